//! Which shell a container has. Its files are looked at; nothing is run to find out.

use crate::docker::DockerError;
use crate::docker::streams::{StreamFacts, Streams};
use crate::operations::Refusal;

use super::{refused, unfit};

/// The first that is there is taken.
const SHELLS: [&str; 6] =
    ["/bin/bash", "/usr/bin/bash", "/usr/local/bin/bash", "/bin/sh", "/usr/bin/sh", "/busybox/sh"];

pub(super) async fn find(engine: &dyn Streams, facts: &StreamFacts) -> Result<String, Refusal> {
    for shell in SHELLS {
        match engine.has_file(&facts.id, shell).await {
            Ok(true) => return Ok(shell.to_owned()),
            Ok(false) => {}
            // An engine that shows no files has shells all the same.
            Err(DockerError::Refused { .. }) => return Ok("sh".to_owned()),
            Err(error) => return Err(refused(error)),
        }
    }
    let name = &facts.name;
    Err(unfit(format!(
        "container `{name}` has no shell: name a command that it has, as `exec {name} -- PROGRAM`"
    )))
}
