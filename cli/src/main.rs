//! The person's tool: a fleet of Docker hosts, asked and told through the API of its controller; and `gantry dev`.

mod args;
mod client;
mod clock;
mod commands;
mod context;
mod kinds;
mod output;

use std::process::ExitCode;

use clap::Parser as _;

use crate::args::{AgentCommand, Cli, Command, TokenCommand};

/// One thread: the children of `gantry dev` are told of its death through the thread that started them.
#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    let cli = Cli::parse();
    if rustls::crypto::ring::default_provider().install_default().is_err() {
        eprintln!("error: another TLS provider was installed first");
        return ExitCode::FAILURE;
    }
    match run(cli).await {
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
        Command::Get(options) => commands::get::run(reach, &options).await?,
        Command::ApiResources(options) => commands::api_resources::run(reach, &options).await?,
        Command::Token(TokenCommand::Create(options)) => commands::token::run(reach, &options).await?,
        Command::Audit(options) => commands::audit::run(reach, &options).await?,
        Command::Agent(AgentCommand::InstallCommand(options)) => {
            commands::agent::run(reach, &options).await?;
        }
    }
    Ok(ExitCode::SUCCESS)
}
