//! Images: what inspect says, and the calls that change one.

use ::bollard::auth::DockerCredentials;
use ::bollard::errors::Error;
use ::bollard::query_parameters::{
    CreateImageOptionsBuilder, RemoveImageOptionsBuilder, TagImageOptionsBuilder,
};
use futures::{StreamExt as _, pin_mut};
use gantry_api::agent_v1::{RegistryAuth, Target, TargetKind};

use super::connection::Connection;
use super::containers::is_ambiguous;
use super::engine::{Call, ImageFacts, LayerUpdate, Pull};
use super::reference::{is_digest, is_lower_hex};
use super::{DockerError, ImageReference};

/// Refuses what no image can be called, before it becomes part of a path.
pub(super) fn check_name(name: &str) -> Result<(), DockerError> {
    let is_id_prefix = name.strip_prefix("sha256:").is_some_and(|hex| hex.len() <= 64 && is_lower_hex(hex));
    if is_digest(name) || is_id_prefix { Ok(()) } else { ImageReference::parse(name).map(drop) }
}

pub(super) async fn inspect(one: &Connection, name: &str) -> Result<Option<ImageFacts>, Error> {
    match one.docker.inspect_image(name).await {
        Ok(found) => Ok(Some(ImageFacts {
            id: found.id.unwrap_or_default(),
            references: found.repo_tags.unwrap_or_default(),
            digests: found.repo_digests.unwrap_or_default(),
        })),
        Err(Error::DockerResponseServerError { status_code: 404, message }) if !is_ambiguous(&message) => {
            Ok(None)
        }
        Err(error) => Err(error),
    }
}

/// An image as the protocol shows it.
pub fn target(facts: &ImageFacts, name: &str) -> Target {
    Target {
        kind: TargetKind::Image.into(),
        id: facts.id.clone(),
        name: name.to_owned(),
        image: String::new(),
        state: String::new(),
        repo_digest: repo_digest(facts, name),
    }
}

/// The digest in the repository the image was named by, else in the first that has one.
fn repo_digest(facts: &ImageFacts, name: &str) -> String {
    let split = || facts.digests.iter().filter_map(|digest| digest.split_once('@'));
    let repository = ImageReference::parse(name).ok();
    let of_name = split().find(|(repo, _)| {
        repository.as_ref().is_some_and(|reference| {
            reference.repository() == *repo
                || reference.repository().strip_prefix("docker.io/library/") == Some(repo)
        })
    });
    of_name.or_else(|| split().next()).map(|(_, digest)| digest.to_owned()).unwrap_or_default()
}

pub(super) async fn call(one: &Connection, call: &Call) -> Result<(), Error> {
    match call {
        Call::RemoveImage { id, reference, force } => {
            let options = RemoveImageOptionsBuilder::default().force(*force).build();
            let name = reference.as_ref().map_or_else(|| id.clone(), ImageReference::to_string);
            one.docker.remove_image(&name, Some(options), None).await.map(drop)
        }
        Call::Tag { id, reference } => {
            let options = TagImageOptionsBuilder::default()
                .repo(reference.repository())
                .tag(reference.tag().unwrap_or("latest"))
                .build();
            one.docker.tag_image(id, Some(options)).await
        }
        _ => Err(Error::IOError { err: std::io::Error::other("this call is about a container") }),
    }
}

pub(super) async fn pull(
    one: &Connection,
    pull: &Pull,
    credentials: Option<RegistryAuth>,
    progress: &mut (dyn FnMut(LayerUpdate) + Send),
) -> Result<(), Error> {
    let options = CreateImageOptionsBuilder::default()
        .from_image(pull.reference.repository())
        .tag(pull.reference.version())
        .platform(pull.platform.as_deref().unwrap_or_default())
        .build();
    let lines = one.docker.create_image(Some(options), None, credentials.map(as_docker));
    pin_mut!(lines);
    while let Some(line) = lines.next().await {
        let line = line?;
        let (Some(id), Some(status)) = (line.id, line.status) else { continue };
        let bytes = line.progress_detail.and_then(|detail| {
            let number = |number: Option<i64>| number.and_then(|number| u64::try_from(number).ok());
            Some((number(detail.current)?, number(detail.total).unwrap_or_default()))
        });
        progress(LayerUpdate { id, status, bytes });
    }
    Ok(())
}

/// Credentials in the form the engine wants them in.
pub(super) fn as_docker(credentials: RegistryAuth) -> DockerCredentials {
    let given = |text: String| (!text.is_empty()).then_some(text);
    DockerCredentials {
        username: given(credentials.username),
        password: given(credentials.password),
        identitytoken: given(credentials.identity_token),
        serveraddress: given(credentials.server_address),
        ..DockerCredentials::default()
    }
}
