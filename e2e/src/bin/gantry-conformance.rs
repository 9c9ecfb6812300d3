//! Starts a control plane with a Postgres of its own, lets every client that this machine has go through its cases, and prints what
//! came of them. Fails if one failed.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;
use futures::{StreamExt as _, TryStreamExt as _, stream};
use gantry_e2e::conformance::{Client, is_fine, kube_rs, kubectl, plain, scripts, table};
use gantry_e2e::postgres::Postgres;
use gantry_e2e::scratch::Scratch;
use gantry_e2e::world::World;

/// What every client of the Kubernetes API finds here.
#[derive(Debug, Parser)]
struct Arguments {
    /// Where e2e/scripts/conformance.sh has installed the clients of other languages.
    #[arg(long, default_value = "target/conformance")]
    clients: PathBuf,
    /// Only clients whose name contains this.
    #[arg(long)]
    only: Option<String>,
    /// kubectls at the same time.
    #[arg(long, default_value_t = 4)]
    jobs: usize,
}

#[tokio::main]
async fn main() -> anyhow::Result<ExitCode> {
    let arguments = Arguments::parse();
    let dir = Scratch::new()?;
    let postgres = Postgres::start(&dir.path().join("pg")).await?;
    let world = World::over(dir, postgres, &[]).await?;
    let is_wanted = |name: &str| arguments.only.as_ref().is_none_or(|only| name.contains(only.as_str()));
    let default = world.kubectl();
    let mut clients: Vec<Client> = Vec::new();

    let found = kubectl::found(&default)
        .await?
        .into_iter()
        .filter(|(minor, _)| is_wanted(&format!("kubectl 1.{minor}")));
    let running = found.map(|(minor, kubectl)| {
        let dir = world.path(&format!("kubectl-{minor}"));
        async move { kubectl::run(&kubectl, minor, dir).await }
    });
    clients.extend(stream::iter(running).buffered(arguments.jobs).try_collect::<Vec<_>>().await?);
    for name in ["kube-rs", "python", "node", "http"] {
        if !is_wanted(name) {
            continue;
        }
        default.run(["create", "namespace", name]).await?;
        let kubeconfig = world.controller.kubeconfig();
        let place = std::path::absolute(arguments.clients.join(name))?;
        clients.push(match name {
            "kube-rs" => kube_rs::run(&kubeconfig, name).await?,
            "python" => {
                scripts::run(name, &place.join("bin/python"), &place.join("cases.py"), &kubeconfig, name)
                    .await
            }
            "node" => {
                scripts::run(name, &place.join("bin/node"), &place.join("cases.mjs"), &kubeconfig, name).await
            }
            _ => plain::run(&world.controller, name).await?,
        });
    }

    // Logs of what the table is not about would stand below it.
    let text = table(&clients);
    drop(world);
    println!("{text}");
    println!("not run  client-go: it has no cases of its own; kubectl, which is built on it, stands for it");
    Ok(if is_fine(&clients) { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
