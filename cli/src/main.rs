//! The person's tool: a fleet of Docker hosts, asked and told through the API of its controller; and `gantry dev`.

mod args;
mod client;
mod clock;
mod commands;
mod complete;
mod context;
mod foreground;
mod kinds;
mod manifests;
mod oidc;
mod output;
mod place;
mod terminal;
mod web;

use std::process::ExitCode;

use gantry_api::v1alpha1::Action;

use crate::args::{
    AgentCommand, AuditCommand, AuthCommand, Cli, Command, ContextCommand, SessionsCommand, TokenCommand,
};

fn main() -> ExitCode {
    let program = complete::program();
    if complete::answered(&program) {
        return ExitCode::SUCCESS;
    }
    let cli = args::parse(&program);
    if rustls::crypto::ring::default_provider().install_default().is_err() {
        eprintln!("error: another TLS provider was installed first");
        return ExitCode::FAILURE;
    }
    // One thread: the children of `gantry dev` are told of its death through the thread that started them.
    let ended = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => {
            let ended = runtime.block_on(run(cli));
            // A thread that reads a terminal ends with the next key, and nobody waits for it.
            runtime.shutdown_background();
            ended
        }
        Err(error) => Err(error.into()),
    };
    match ended {
        Ok(code) => code,
        Err(error) => {
            eprint!("{}", output::failure::render(&error));
            ExitCode::from(output::failure::code(&error))
        }
    }
}

async fn run(cli: Cli) -> anyhow::Result<ExitCode> {
    let reach = &cli.reach;
    match cli.command {
        Command::Dev(options) => commands::dev::run(options).await?,
        Command::Ls(options) => commands::ls::run(reach, &options).await?,
        Command::Ps(options) => commands::ps::run(reach, &options).await?,
        Command::Images(options) => commands::images::run(reach, &options).await?,
        Command::Start(options) => return commands::act::plain(reach, Action::Start, &options).await,
        Command::Stop(options) => return commands::act::stop(reach, Action::Stop, &options).await,
        Command::Restart(options) => return commands::act::stop(reach, Action::Restart, &options).await,
        Command::Pause(options) => return commands::act::plain(reach, Action::Pause, &options).await,
        Command::Unpause(options) => return commands::act::plain(reach, Action::Unpause, &options).await,
        Command::Kill(options) => return commands::act::kill(reach, &options).await,
        Command::Rm(options) => return commands::act::remove(reach, &options).await,
        Command::Pull(options) => return commands::act::pull(reach, &options).await,
        Command::Rmi(options) => return commands::act::remove_images(reach, &options).await,
        Command::Logs(options) => commands::logs::run(reach, &options).await?,
        Command::Exec(options) => return commands::exec::exec(reach, &options).await,
        Command::Attach(options) => return commands::exec::attach(reach, &options).await,
        Command::Stats(options) => commands::stats::run(reach, &options).await?,
        Command::Top(options) => commands::top::run(reach, &options).await?,
        Command::Cp(options) => commands::cp::run(reach, &options).await?,
        Command::Inspect(options) => commands::inspect::run(reach, &options).await?,
        Command::Docker(options) => return commands::docker::run(reach, &options).await,
        Command::DockerContext(options) => commands::docker::context(reach, &options).await?,
        Command::Get(options) => commands::get::run(reach, &options).await?,
        Command::Describe(options) => commands::describe::run(reach, &options).await?,
        Command::Explain(options) => commands::explain::run(reach, &options).await?,
        Command::Edit(options) => commands::edit::run(reach, &options).await?,
        Command::Events(options) => commands::events::run(reach, &options).await?,
        Command::Apply(options) => return commands::apply::apply(reach, &options).await,
        Command::Diff(options) => return commands::apply::diff(reach, &options).await,
        Command::Delete(options) => commands::delete::run(reach, &options).await?,
        Command::Wait(options) => commands::wait::run(reach, &options).await?,
        Command::Auth(AuthCommand::CanI(options)) => return commands::auth::can_i(reach, &options).await,
        Command::Auth(AuthCommand::Whoami) => commands::auth::who_am_i(reach).await?,
        Command::Auth(AuthCommand::Token(options)) => commands::auth::token(&options).await?,
        Command::Login(options) => commands::login::run(reach, &options).await?,
        Command::Context(ContextCommand::Ls) => commands::context::list(reach)?,
        Command::Context(ContextCommand::Use { name }) => commands::context::switch(reach, &name)?,
        Command::Archive(options) => commands::archive::run(reach, &options, true).await?,
        Command::Unarchive(options) => commands::archive::run(reach, &options, false).await?,
        Command::Completion(options) => commands::completion::run(&options)?,
        Command::ManPages(options) => commands::completion::man_pages(&options)?,
        Command::ApiResources(options) => commands::api_resources::run(reach, &options).await?,
        Command::Token(TokenCommand::Create(options)) => commands::token::run(reach, &options).await?,
        Command::Audit(AuditCommand::Ls(options)) => commands::audit::list(reach, &options).await?,
        Command::Audit(AuditCommand::Verify(options)) => return commands::audit::verify(&options).await,
        Command::Sessions(SessionsCommand::Ls(options)) => commands::sessions::list(reach, &options).await?,
        Command::Sessions(SessionsCommand::Play(options)) => {
            commands::sessions::play(reach, &options).await?;
        }
        Command::Sessions(SessionsCommand::Export(options)) => {
            commands::sessions::export(reach, &options).await?;
        }
        Command::Agent(AgentCommand::InstallCommand(options)) => {
            commands::agent::run(reach, &options).await?;
        }
    }
    Ok(ExitCode::SUCCESS)
}
