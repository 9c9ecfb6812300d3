//! A part of a crowd of agents, in a process of its own.

use clap::Parser as _;
use gantry_e2e::crowd::Part;

/// Enrols agents that have nothing to do and keeps their links until it is ended.
#[derive(Debug, clap::Parser)]
struct Arguments {
    #[command(flatten)]
    part: Part,
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    Arguments::parse().part.run().await
}
