//! Images: what is here, what the registry has, and what a call does to one.

use std::sync::Arc;
use std::time::Duration;

use gantry_agent::docker::{Answer, Call, DockerError, ImageFacts, LayerUpdate, Pull};

use super::{Errand, FakeEngine, State, lost, refused};
use crate::simulation::chance::Chance;
use crate::simulation::check::PULL_BY_DIGEST;

impl State {
    /// The image with that id, reference or digest.
    pub(super) fn image(&self, name: &str) -> Option<&ImageFacts> {
        self.images.get(name).or_else(|| {
            self.images
                .values()
                .find(|image| image.references.iter().chain(&image.digests).any(|known| known == name))
        })
    }

    /// Gives an image a reference, taking it from any other.
    fn refer(&mut self, reference: &str, id: &str) {
        for image in self.images.values_mut() {
            image.references.retain(|known| known != reference);
        }
        if let Some(image) = self.images.get_mut(id) {
            image.references.push(reference.to_owned());
        }
    }

    pub(super) fn put_image(&mut self, reference: &str, id: &str, digest: &str) {
        let image = self
            .images
            .entry(id.to_owned())
            .or_insert_with(|| ImageFacts { id: id.to_owned(), ..ImageFacts::default() });
        let repository = reference.rsplit_once(':').map_or(reference, |(repository, _)| repository);
        let exact = format!("{repository}@{digest}");
        if !image.digests.contains(&exact) {
            image.digests.push(exact);
        }
        self.refer(reference, id);
    }
}

impl FakeEngine {
    pub(super) fn perform_on_image(
        &self,
        run: u64,
        errand: Errand,
        call: &Call,
    ) -> Result<Answer, DockerError> {
        let mut state = self.state.lock();
        if state.run != run {
            return Err(lost());
        }
        match call {
            Call::RemoveImage { id, reference, .. } => {
                let gone = || refused(404, format!("No such image: {id}"));
                let image = state.images.get_mut(id).ok_or_else(gone)?;
                let references = image.references.len();
                if let Some(reference) = reference {
                    image.references.retain(|known| *known != reference.to_string());
                }
                let (is_by_id, is_last) = (reference.is_none(), image.references.is_empty());
                if !is_by_id && image.references.len() == references {
                    return Err(gone());
                }
                if is_by_id || is_last {
                    state.images.remove(id);
                }
                self.checker.has_effect(errand, id, "remove image");
            }
            Call::Tag { id, reference } => {
                if !state.images.contains_key(id) {
                    return Err(refused(404, format!("No such image: {id}")));
                }
                state.refer(&reference.to_string(), id);
                self.checker.has_effect(errand, id, "tag");
            }
            _ => return Err(refused(400, "this is about a container")),
        }
        drop(state);
        self.changed();
        Ok(Answer::Done)
    }

    /// What the registry says of a reference or of a digest in a repository.
    fn in_registry(&self, wanted: &Pull) -> Option<(String, String, String)> {
        let state = self.state.lock();
        let (name, digest) = (wanted.reference.to_string(), wanted.reference.digest());
        state.registry.iter().find_map(|(reference, (id, known))| {
            let is_it = match digest {
                Some(digest) => digest == known && reference.starts_with(wanted.reference.repository()),
                None => *reference == name,
            };
            is_it.then(|| (reference.clone(), id.clone(), known.clone()))
        })
    }

    /// The digest a reference has in the registry.
    pub(super) fn registry_digest(&self, wanted: &Pull) -> Option<String> {
        self.in_registry(wanted).map(|(_, _, digest)| digest)
    }

    /// Fetches layer by layer; dropped, it stops.
    pub(super) async fn fetch(
        self: &Arc<Self>,
        run: u64,
        errand: Errand,
        pull: &Pull,
        progress: &mut (dyn FnMut(LayerUpdate) + Send),
        chance: &Chance,
    ) -> Result<(), DockerError> {
        let Some((_, id, digest)) = self.in_registry(pull) else {
            return Err(refused(404, format!("manifest for {} not found", pull.reference)));
        };
        for layer in 0..3_u32 {
            for (status, bytes) in [("Downloading", Some((1, 2))), ("Pull complete", None)] {
                tokio::time::sleep(chance.millis(10, 2_000)).await;
                // It is never killed for good.
                let _ = self.process.runs().await;
                progress(LayerUpdate { id: format!("layer-{layer}"), status: status.to_owned(), bytes });
            }
        }
        // A pull of what was here already changes nothing that anybody could see.
        if self.keep(run, pull, &id, &digest)? {
            let what = if pull.reference.digest().is_some() { PULL_BY_DIGEST } else { "pull" };
            self.checker.has_effect(errand, &id, what);
        }
        self.changed();
        tokio::time::sleep(Duration::from_millis(5)).await;
        Ok(())
    }

    /// A pulled image is here; true if that is new.
    fn keep(&self, run: u64, pull: &Pull, id: &str, digest: &str) -> Result<bool, DockerError> {
        let mut state = self.state.lock();
        if state.run != run {
            return Err(lost());
        }
        let named = pull.reference.to_string();
        let meant = state.image(&named).map(|image| image.id.clone());
        match pull.reference.digest() {
            // By digest: no tag is moved.
            Some(_) => {
                let exact = pull.reference.to_string();
                let image = state.images.entry(id.to_owned());
                let image =
                    image.or_insert_with(|| ImageFacts { id: id.to_owned(), ..ImageFacts::default() });
                if !image.digests.contains(&exact) {
                    image.digests.push(exact);
                }
            }
            None => state.put_image(&pull.reference.to_string(), id, digest),
        }
        Ok(meant.as_deref() != Some(id))
    }
}
