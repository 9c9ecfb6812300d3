//! Looking at a target: before a call for the pre-image, after it for evidence.

use gantry_api::agent_v1::Target;

use super::action::Action;
use super::evidence::Sight;
use crate::docker::{Call, DockerError, Engine, Incarnation, containers, images};
use crate::journal::{Observed, PreImage};

/// The target and the engine as they are now.
pub(super) struct Look {
    pub(super) sight: Sight,
    /// The engine's own id; empty if it has none.
    pub(super) engine_id: String,
    incarnation: Option<Incarnation>,
}

/// Asks the engine. Changes nothing.
pub(super) async fn look(engine: &dyn Engine, action: &Action) -> Result<Look, DockerError> {
    // First, so that what is seen is seen on this engine.
    let engine_id = match engine.id().await {
        Ok(id) => id,
        // An engine that does not say who it is cannot be told from another.
        Err(DockerError::Refused { status: ..500, .. } | DockerError::Unreadable(_)) => String::new(),
        Err(error) => return Err(error),
    };
    let mut sight = Sight::default();
    match action {
        Action::Pull(pull) => sight.named = engine.image(&pull.reference.to_string()).await?,
        Action::Call(Call::Tag { id, reference }) => {
            sight.image = engine.image(id).await?;
            sight.named = engine.image(&reference.to_string()).await?;
        }
        Action::Call(Call::RemoveImage { id, reference, .. }) => {
            sight.image = engine.image(id).await?;
            if let Some(reference) = reference {
                sight.named = engine.image(&reference.to_string()).await?;
            }
        }
        Action::Call(call) => sight.container = engine.container(call.id()).await?,
    }
    let incarnation = match action {
        Action::Call(Call::Start { .. } | Call::Restart { .. } | Call::Kill { .. }) => {
            match engine.incarnation().await {
                Ok(incarnation) => incarnation,
                // An engine without networks to tell its runs by is one whose runs cannot be told apart.
                Err(DockerError::Refused { .. } | DockerError::Unreadable(_)) => None,
                Err(error) => return Err(error),
            }
        }
        _ => None,
    };
    Ok(Look { sight, engine_id, incarnation })
}

impl Look {
    /// The sight, weighed against the run of the engine that was asked.
    pub(super) fn since(mut self, before: &PreImage) -> Sight {
        self.sight.is_same_run = before.is_same_run(self.incarnation.as_ref());
        self.sight.is_other_engine = before.is_other_engine(&self.engine_id);
        self.sight
    }

    /// What evidence will be compared with.
    pub(super) fn pre_image(&self, action: &Action, digest: String) -> PreImage {
        PreImage {
            container: self.sight.container.as_ref().map(Observed::from),
            image_id: self.sight.named.as_ref().map(|image| image.id.clone()).unwrap_or_default(),
            digest,
            incarnation: self.incarnation.as_ref().map(|run| run.0.clone()).unwrap_or_default(),
            target: self.sight.target(action),
            engine_id: self.engine_id.clone(),
        }
    }
}

impl Sight {
    /// The target as the protocol shows it; `None` if it is gone.
    pub(super) fn target(&self, action: &Action) -> Option<Target> {
        match action {
            Action::Pull(pull) => {
                self.named.as_ref().map(|image| images::target(image, &pull.reference.to_string()))
            }
            Action::Call(Call::RemoveImage { reference: Some(reference), .. }) => {
                self.named.as_ref().map(|image| images::target(image, &reference.to_string()))
            }
            Action::Call(Call::Tag { .. } | Call::RemoveImage { .. }) => self
                .image
                .as_ref()
                .map(|image| images::target(image, image.references.first().map_or("", String::as_str))),
            Action::Call(_) => self.container.as_ref().map(containers::target),
        }
    }

    /// True if what the action is aimed at is not there.
    pub(super) fn is_gone(&self, action: &Action) -> bool {
        match action {
            Action::Pull(_) => false,
            Action::Call(Call::RemoveImage { reference: Some(_), .. }) => self.named.is_none(),
            Action::Call(Call::Tag { .. } | Call::RemoveImage { .. }) => self.image.is_none(),
            Action::Call(_) => self.container.is_none(),
        }
    }

    /// The image that a reference means which is to be taken from another one.
    pub(super) fn other_image(&self, action: &Action) -> Option<&str> {
        let Action::Call(Call::RemoveImage { id, reference: Some(_), .. }) = action else { return None };
        self.named.as_ref().map(|image| image.id.as_str()).filter(|now| now != id)
    }
}
