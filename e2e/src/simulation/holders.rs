//! Which controllers serve and which of them holds an agent: the registry's tables, and a controller's view of them.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use gantry_controller::storage::replicas::{Claim, Registry, Replica};
use gantry_controller::storage::{Backend as _, StorageError};
use tokio::time::Instant;
use uuid::Uuid;

use super::database::Connection;

/// As the product's.
const LASTS: Duration = Duration::from_secs(15);
const RENEWED_EVERY: Duration = Duration::from_secs(5);

/// The tables.
#[derive(Clone, Debug, Default)]
pub struct Holders {
    replicas: BTreeMap<Uuid, (String, Instant)>,
    sessions: BTreeMap<Uuid, (Uuid, i64)>,
}

impl Holders {
    fn serving(&self, replica: Uuid) -> Option<Replica> {
        let (address, ends) = self.replicas.get(&replica)?;
        (*ends > Instant::now()).then(|| Replica { id: replica, address: address.clone() })
    }

    fn claim(&mut self, by: Uuid, instance: Uuid, seen: Option<i64>) -> Claim {
        let held = self.sessions.get(&instance).copied();
        let other = held.and_then(|(holder, epoch)| Some((self.serving(holder)?, epoch)));
        match other {
            Some((holder, epoch)) if holder.id != by && seen != Some(epoch) => {
                Claim::Held { by: holder, epoch }
            }
            _ => {
                let epoch = held.map_or(1, |(_, epoch)| epoch + 1);
                self.sessions.insert(instance, (by, epoch));
                Claim::Granted { epoch }
            }
        }
    }
}

/// A controller's part in it; its address is the name of its process.
pub struct Holder {
    connection: Arc<Connection>,
    me: Replica,
}

impl Holder {
    /// Serves once [`Holder::run`] runs.
    pub fn new(connection: Arc<Connection>, id: Uuid, process: &str) -> Arc<Self> {
        Arc::new(Self { connection, me: Replica { id, address: process.to_owned() } })
    }

    /// Says again and again that it serves.
    pub async fn run(self: Arc<Self>) {
        loop {
            let renewed = self.at_database(|holders| {
                holders.replicas.insert(self.me.id, (self.me.address.clone(), Instant::now() + LASTS));
            });
            // The next one follows soon enough.
            drop(renewed.await);
            tokio::time::sleep(RENEWED_EVERY).await;
        }
    }

    /// There, and back again.
    async fn at_database<T>(&self, act: impl FnOnce(&mut Holders) -> T) -> Result<T, StorageError> {
        self.connection.newest().await?;
        let done = act(&mut self.connection.database.holders.lock());
        self.connection.travels().await?;
        Ok(done)
    }
}

#[async_trait]
impl Registry for Holder {
    fn me(&self) -> Uuid {
        self.me.id
    }

    async fn claim(&self, instance: Uuid, _key: &str, seen: Option<i64>) -> Result<Claim, StorageError> {
        self.at_database(|holders| holders.claim(self.me.id, instance, seen)).await
    }

    async fn release(&self, instance: Uuid, epoch: i64) -> Result<(), StorageError> {
        self.at_database(|holders| {
            if holders.sessions.get(&instance) == Some(&(self.me.id, epoch)) {
                holders.sessions.remove(&instance);
            }
        })
        .await
    }

    async fn others(&self) -> Result<Vec<Replica>, StorageError> {
        self.at_database(|holders| {
            let others = holders.replicas.keys().filter(|id| **id != self.me.id);
            others.filter_map(|id| holders.serving(*id)).collect()
        })
        .await
    }
}
