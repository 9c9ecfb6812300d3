//! Keeps the inventories: one stream from each agent that is connected, to this replica or to another.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt as _;
use tokio::sync::broadcast::error::RecvError;
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;

use super::Inventories;
use crate::apiserver::kinds;
use crate::clock::SharedClock;
use crate::gateway::link::{AgentLink, InstanceUid, LinkError, LinkEvent};
use crate::storage::{ChangeKind, Object, Resource, Store};
use crate::watch_cache::Next;

/// DockerInstances, as storage names them.
pub(crate) const INSTANCES: &str = "dockerinstances.gantry.dev";
/// Between two tries at an agent that is connected.
const RETRY: Duration = Duration::from_secs(2);
/// An agent that is too old, or tells too much, may have been updated, or its host cleaned up.
const LATER: Duration = Duration::from_secs(600);

/// What the inventories are kept from.
pub struct Follow {
    /// Where they are kept.
    pub inventories: Inventories,
    /// Which instances there are.
    pub store: Store,
    /// The way to their agents.
    pub link: Arc<dyn AgentLink>,
    /// When something was heard last.
    pub clock: SharedClock,
}

impl Follow {
    /// Runs until `stop`.
    pub async fn run(self, stop: CancellationToken) {
        let follow = Arc::new(self);
        stop.run_until_cancelled(follow.keep()).await;
    }

    async fn keep(self: &Arc<Self>) {
        let mut events = self.link.events();
        loop {
            // Ends with the scope, and begins anew where wakes or changes were lost.
            let mut streams = HashMap::new();
            let resource = Resource(INSTANCES.into());
            let listing = self.store.cache().list(&resource, None);
            self.retain(&listing.objects);
            for object in &listing.objects {
                self.add(object, &mut streams);
            }
            let Ok(mut changes) = self.store.cache().watch(&resource, None, None, listing.version) else {
                continue;
            };
            loop {
                tokio::select! {
                    next = changes.next() => match next {
                        Next::Changes(changes) => for change in changes {
                            match change.kind {
                                ChangeKind::Added => self.add(&change.object, &mut streams),
                                ChangeKind::Deleted => {
                                    let uid = InstanceUid(change.object.uid);
                                    streams.remove(&uid);
                                    self.inventories.remove(uid);
                                }
                                ChangeKind::Modified => self.show(&change.object),
                            }
                        },
                        Next::Progress(_) => {}
                        Next::TooSlow => break,
                        Next::Closed => return,
                    },
                    event = events.recv() => match event {
                        Ok(LinkEvent::Connected(uid)) => self.open(uid, &mut streams),
                        Ok(LinkEvent::Disconnected(uid)) if self.link.session(uid).is_none() => {
                            streams.remove(&uid);
                            self.inventories.lose(uid, self.clock.now());
                        }
                        Ok(_) => {}
                        Err(RecvError::Lagged(_)) => break,
                        Err(RecvError::Closed) => return,
                    },
                }
            }
        }
    }

    /// Forgets instances that are gone, of whose end nobody was told.
    fn retain(&self, present: &[Arc<Object>]) {
        let present: std::collections::HashSet<InstanceUid> =
            present.iter().map(|object| InstanceUid(object.uid)).collect();
        for uid in self.inventories.instances() {
            if !present.contains(&uid) {
                self.inventories.remove(uid);
            }
        }
    }

    fn add(self: &Arc<Self>, object: &Object, streams: &mut Streams) {
        let uid = InstanceUid(object.uid);
        self.inventories.add(uid, &object.key.namespace, &object.key.name);
        self.show(object);
        if self.link.session(uid).is_some() {
            self.open(uid, streams);
        } else {
            self.inventories.lose(uid, self.clock.now());
        }
    }

    /// As a Node, where there are any.
    fn show(&self, object: &Object) {
        if kinds::live("nodes").is_some() {
            self.inventories.show_node(InstanceUid(object.uid), object);
        }
    }

    fn open(self: &Arc<Self>, uid: InstanceUid, streams: &mut Streams) {
        let me = Arc::clone(self);
        streams.insert(uid, AbortOnDropHandle::new(tokio::spawn(async move { me.follow(uid).await })));
    }

    /// Follows one agent as long as it has a session.
    async fn follow(&self, uid: InstanceUid) {
        while self.link.session(uid).is_some() {
            let pause = match self.once(uid).await {
                Ended::Refused(why) => {
                    tracing::warn!(instance.uid = %uid, why, "the inventory of a host is not to be had");
                    LATER
                }
                Ended::Lost => RETRY,
            };
            self.inventories.lose(uid, self.clock.now());
            tokio::time::sleep(pause).await;
        }
    }

    async fn once(&self, uid: InstanceUid) -> Ended {
        let opened = self.link.follow_inventory(uid, self.inventories.from(uid)).await;
        let mut updates = match opened {
            Ok(updates) => updates,
            Err(LinkError::Refused { message, .. }) => return Ended::Refused(message),
            Err(LinkError::Away | LinkError::Silent(_)) => return Ended::Lost,
        };
        while let Some(Ok(update)) = updates.next().await {
            if let Err(error) = self.inventories.take(uid, update, self.clock.now()) {
                return Ended::Refused(error.to_string());
            }
        }
        Ended::Lost
    }
}

type Streams = HashMap<InstanceUid, AbortOnDropHandle<()>>;

/// Why a stream ended.
enum Ended {
    /// Trying again soon would change nothing.
    Refused(String),
    Lost,
}
