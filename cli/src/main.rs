//! The person's tool: `gantry dev`, join tokens, what to paste on a host, and who did what.

mod args;
mod client;
mod clock;
mod commands;
mod context;
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
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprint!("{}", output::failure::render(&error));
            ExitCode::FAILURE
        }
    }
}

async fn run(cli: Cli) -> anyhow::Result<()> {
    match cli.command {
        Command::Dev(options) => commands::dev::run(options).await,
        Command::Token(TokenCommand::Create(options)) => commands::token::run(&options).await,
        Command::Audit(options) => commands::audit::run(&options).await,
        Command::Agent(AgentCommand::InstallCommand(options)) => commands::agent::run(&options).await,
    }
}
