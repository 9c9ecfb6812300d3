//! Explores the worlds of the model as far as it is told to.

use anyhow::bail;
use clap::Parser;
use gantry_model::{Settings, explore, worlds};

/// Explores the model of operations and the agents' link.
#[derive(Debug, Parser)]
struct Arguments {
    /// Generated states of each world, in thousands.
    #[arg(long, default_value_t = 10_000)]
    thousands: usize,
    /// Only worlds with this in their name.
    #[arg(long, default_value = "")]
    only: String,
}

fn main() -> anyhow::Result<()> {
    let arguments = Arguments::parse();
    let narrow: Vec<Settings> =
        worlds().into_iter().filter(|settings| settings.name.contains(&arguments.only)).collect();
    let wide: Vec<Settings> = narrow.iter().map(Settings::wider).collect();
    let most = arguments.thousands.saturating_mul(1000);
    let (mut states, mut fails) = (0, false);
    for (title, worlds) in [("as in the tests", narrow), ("with one more of each fault", wide)] {
        println!("{title}:");
        for settings in &worlds {
            let explored = explore(settings, most);
            println!("{explored}");
            states += explored.states;
            fails |= !explored.failures.is_empty()
                || (!settings.reaches.is_empty() && !explored.missing.is_empty());
        }
    }
    println!("{states} different states");
    if fails {
        bail!("the model does not hold");
    }
    Ok(())
}
