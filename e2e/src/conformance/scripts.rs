//! Clients of other languages. A script says a line on its standard output for each case:
//! `ok<TAB>CASE`, `FAIL<TAB>CASE<TAB>WHY` or `not run<TAB>CASE<TAB>WHY`.

use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use tokio::process::Command;

use super::{Client, Outcome};

/// Longest a whole script may take.
const PATIENCE: Duration = Duration::from_secs(150);

/// Runs the script in that namespace; what it cannot say for itself is a case of its own, `runs`.
pub async fn run(name: &str, program: &Path, script: &Path, kubeconfig: &Path, namespace: &str) -> Client {
    let client = Client::new(name);
    if !program.is_file() || !script.is_file() {
        let why = format!("{} is not there: e2e/scripts/conformance.sh installs it", program.display());
        client.add("runs", Outcome::NotRun(why));
        return client;
    }
    let running = Command::new(program)
        .arg(script)
        .env("KUBECONFIG", kubeconfig)
        .env("NAMESPACE", namespace)
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .output();
    let outcome = match tokio::time::timeout(PATIENCE, running).await {
        Ok(Ok(output)) => {
            let said = String::from_utf8_lossy(&output.stdout);
            for (case, outcome) in said.lines().filter_map(read) {
                client.add(case, outcome);
            }
            if output.status.success() {
                return client;
            }
            let complaint = String::from_utf8_lossy(&output.stderr);
            Outcome::Failed(format!("{}: {}", output.status, crate::scratch::tail(&complaint, 8)))
        }
        Ok(Err(error)) => Outcome::Failed(error.to_string()),
        Err(_) => Outcome::Failed(format!("it has not ended within {PATIENCE:?}")),
    };
    client.add("runs", outcome);
    client
}

fn read(line: &str) -> Option<(&str, Outcome)> {
    let mut parts = line.splitn(3, '\t');
    let (word, case) = (parts.next()?, parts.next()?);
    let why = parts.next().unwrap_or("no reason was given").to_owned();
    match word {
        "ok" => Some((case, Outcome::Fine)),
        "FAIL" => Some((case, Outcome::Failed(why))),
        "not run" => Some((case, Outcome::NotRun(why))),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_cases_are_read_and_others_left() {
        assert_eq!(read("ok\tlist"), Some(("list", Outcome::Fine)));
        assert_eq!(read("FAIL\twatch\tit\tended"), Some(("watch", Outcome::Failed("it\tended".to_owned()))));
        assert_eq!(read("not run\twatch\told"), Some(("watch", Outcome::NotRun("old".to_owned()))));
        assert_eq!(read("a warning"), None);
    }
}
