//! The users: they create Operations, and cancel, delete and abandon them, through whichever controller answers.

use std::sync::Arc;
use std::time::Duration;

use gantry_api::v1alpha1::{Operation, OperationSpec, TargetReference};
use kube::api::{DeleteParams, Patch, PatchParams, PostParams};
use kube::{Api, ResourceExt as _};
use serde_json::json;
use tokio::time::{sleep, timeout};
use uuid::Uuid;

use super::host::NAMESPACE;
use super::scenario::Wish;
use super::world::{World, host_name};

/// How often a user tries.
const TRIES: u32 = 20;
const PATIENCE: Duration = Duration::from_secs(5);

impl World {
    /// An Operation, from its creation to whatever its owner does with it last.
    pub(super) async fn wish(self: Arc<Self>, wish: Wish) {
        sleep(wish.at).await;
        let name = wish.name();
        let Some(uid) = self.create(&wish).await else {
            self.trace.tell(format!("nobody takes {name}"));
            return;
        };
        let mut acts: Vec<(Duration, Act)> =
            [(wish.cancelled, Act::Cancel), (wish.deleted, Act::Delete), (wish.abandoned, Act::Abandon)]
                .into_iter()
                .filter_map(|(when, act)| Some((when?, act)))
                .collect();
        acts.sort_by_key(|(when, _)| *when);
        let created = tokio::time::Instant::now();
        for (when, act) in acts {
            tokio::time::sleep_until(created + when).await;
            self.does(&name, uid, act).await;
        }
    }

    fn operations(&self) -> Option<Api<Operation>> {
        Some(Api::namespaced(self.switchboard.any()?.client("user"), NAMESPACE))
    }

    async fn create(&self, wish: &Wish) -> Option<Uuid> {
        let target = TargetReference { kind: wish.kind, name: wish.target.clone() };
        let mut operation =
            Operation::new(&wish.name(), OperationSpec::new(host_name(wish.host), wish.action, target));
        operation.spec.parameters.clone_from(&wish.parameters);
        operation.spec.start_deadline_seconds = wish.start_within;
        operation.spec.active_deadline_seconds = Some(wish.run_within);
        operation.spec.ttl_seconds_after_finished = wish.kept_for;
        for _ in 0..TRIES {
            if let Some(api) = self.operations() {
                match timeout(PATIENCE, api.create(&PostParams::default(), &operation)).await {
                    Ok(Ok(created)) => {
                        let uid = created.uid()?.parse().ok()?;
                        self.checker.is_acknowledged(uid, |_| {});
                        self.trace.tell(format!("user: {wish} is created"));
                        return Some(uid);
                    }
                    Ok(Err(kube::Error::Api(status))) if status.code == 409 => {
                        // An earlier try was stored, and its answer lost.
                        let found = timeout(PATIENCE, api.get_opt(&wish.name())).await;
                        if let Ok(Ok(Some(found))) = found {
                            return found.uid()?.parse().ok();
                        }
                    }
                    Ok(Err(kube::Error::Api(status))) if status.code == 422 || status.code == 400 => {
                        self.trace.tell(format!("user: {} is refused: {}", wish.name(), status.message));
                        return None;
                    }
                    Ok(Err(_)) | Err(_) => {}
                }
            }
            sleep(Duration::from_secs(1)).await;
        }
        None
    }

    async fn does(&self, name: &str, uid: Uuid, act: Act) {
        if act == Act::Delete {
            self.checker.is_acknowledged(uid, |told| told.may_be_deleted = true);
        }
        for _ in 0..TRIES {
            if let Some(api) = self.operations() {
                let done = async {
                    match act {
                        Act::Delete => {
                            let exactly = kube::api::Preconditions {
                                uid: Some(uid.to_string()),
                                resource_version: None,
                            };
                            let params =
                                DeleteParams { preconditions: Some(exactly), ..DeleteParams::default() };
                            api.delete(name, &params).await.map(drop)
                        }
                        Act::Cancel | Act::Abandon => {
                            let field = if act == Act::Cancel { "cancel" } else { "abandon" };
                            let patch = json!({"metadata": {"uid": uid}, "spec": {field: true}});
                            api.patch(name, &PatchParams::default(), &Patch::Merge(patch)).await.map(drop)
                        }
                    }
                };
                match timeout(PATIENCE, done).await {
                    Ok(Ok(())) => {
                        self.trace.tell(format!("user: {name}: {act:?}"));
                        self.checker.is_acknowledged(uid, |told| match act {
                            Act::Cancel => told.cancel = true,
                            Act::Delete => told.delete = true,
                            Act::Abandon => told.abandon = true,
                        });
                        return;
                    }
                    Ok(Err(kube::Error::Api(status))) if matches!(status.code, 404 | 409 | 422) => {
                        if status.code == 404 {
                            return;
                        }
                    }
                    Ok(Err(_)) | Err(_) => {}
                }
            }
            sleep(Duration::from_secs(1)).await;
        }
    }
}

/// What an owner does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Act {
    Cancel,
    Delete,
    Abandon,
}
