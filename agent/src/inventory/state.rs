//! The inventory at one moment, and what is told of its changes.

use std::collections::BTreeMap;

use gantry_api::agent_v1::{
    Container, FollowInventoryRequest, Image, InfoResponse, InventoryUpdate, Network, Volume,
};
use prost::Message;

/// Bytes of one message. The reader takes far more, but keeps as much room for each agent as its largest message took.
const MOST_BYTES: usize = 8 << 10;

/// What was looked at; `None` for what was not.
#[derive(Default)]
pub(super) struct Listed {
    pub containers: Option<BTreeMap<String, Container>>,
    /// Those asked for; `None` for what is not there.
    pub some_containers: BTreeMap<String, Option<Container>>,
    pub images: Option<BTreeMap<String, Image>>,
    pub networks: Option<BTreeMap<String, Network>>,
    pub volumes: Option<BTreeMap<String, Volume>>,
}

/// What is known of the host.
pub(super) struct State {
    epoch: u64,
    version: u64,
    /// Everything was listed once.
    is_known: bool,
    engine_answers: bool,
    /// What the engine counted otherwise last, and at which version.
    doubted: Option<(u64, [u32; 3])>,
    containers: BTreeMap<String, Container>,
    images: BTreeMap<String, Image>,
    networks: BTreeMap<String, Network>,
    volumes: BTreeMap<String, Volume>,
}

impl State {
    pub fn new(epoch: u64) -> Self {
        Self {
            epoch,
            version: 0,
            is_known: false,
            engine_answers: false,
            doubted: None,
            containers: BTreeMap::new(),
            images: BTreeMap::new(),
            networks: BTreeMap::new(),
            volumes: BTreeMap::new(),
        }
    }

    /// Takes in what was looked at; what of it is new. `now` in seconds since 1970.
    pub fn take(&mut self, listed: Listed, now: i64) -> Option<InventoryUpdate> {
        let mut update = InventoryUpdate::default();
        let is_whole = listed.containers.is_some();
        if let Some(found) = listed.containers {
            let found = found.into_iter().map(|(id, one)| (id, self.aged(one, now))).collect();
            (update.containers, update.containers_gone) = replace(&mut self.containers, found);
        }
        for (id, found) in listed.some_containers {
            let Some(found) = found.map(|one| self.aged(one, now)) else {
                update.containers_gone.extend(self.containers.remove(&id).map(|one| one.id));
                continue;
            };
            if self.containers.get(&id) != Some(&found) {
                update.containers.push(found.clone());
                self.containers.insert(id, found);
            }
        }
        if let Some(found) = listed.images {
            (update.images, update.images_gone) = replace(&mut self.images, found);
        }
        if let Some(found) = listed.networks {
            (update.networks, update.networks_gone) = replace(&mut self.networks, found);
        }
        if let Some(found) = listed.volumes {
            (update.volumes, update.volumes_gone) = replace(&mut self.volumes, found);
        }
        let has_come = is_whole && !self.engine_answers;
        self.is_known |= is_whole;
        self.engine_answers |= is_whole;
        self.told(update, has_come)
    }

    /// Epoch and version.
    pub fn at(&self) -> (u64, u64) {
        (self.epoch, self.version)
    }

    /// The engine does not answer; what is known stays what is known.
    pub fn lose(&mut self) -> Option<InventoryUpdate> {
        let has_gone = std::mem::take(&mut self.engine_answers);
        self.told(InventoryUpdate::default(), has_gone)
    }

    /// The next version, if anything is new.
    fn told(&mut self, update: InventoryUpdate, is_news: bool) -> Option<InventoryUpdate> {
        if !is_news && update == InventoryUpdate::default() {
            return None;
        }
        self.version += 1;
        Some(InventoryUpdate { is_complete: self.is_known, ..self.headed(update) })
    }

    fn headed(&self, update: InventoryUpdate) -> InventoryUpdate {
        let Self { epoch, version, engine_answers, .. } = *self;
        InventoryUpdate { epoch, version, engine_answers, ..update }
    }

    /// Everything, or that who asks has it.
    pub fn whole(&self, from: Option<FollowInventoryRequest>) -> Vec<InventoryUpdate> {
        if self.is_known && from.is_some_and(|from| (from.epoch, from.version) == (self.epoch, self.version))
        {
            return vec![InventoryUpdate { is_complete: true, ..self.headed(InventoryUpdate::default()) }];
        }
        parts(&InventoryUpdate {
            begins: true,
            is_complete: self.is_known,
            containers: self.containers.values().cloned().collect(),
            images: self.images.values().cloned().collect(),
            networks: self.networks.values().cloned().collect(),
            volumes: self.volumes.values().cloned().collect(),
            ..self.headed(InventoryUpdate::default())
        })
    }

    /// False if the engine counts otherwise, the first time that it says so of this version: engines differ in what they count as
    /// running. Before the first list, and of an engine that is away, nothing can be said.
    pub fn agrees_with(&mut self, info: &InfoResponse) -> bool {
        if !self.engine_answers {
            return true;
        }
        let count = |state: &str| self.containers.values().filter(|one| one.state == state).count();
        let counted = [count("running"), count("paused"), self.containers.len()];
        let (running, paused, stopped) =
            (info.containers_running, info.containers_paused, info.containers_stopped);
        let told = [running, paused, running + paused + stopped];
        let is_so = counted.iter().zip(told).all(|(counted, told)| usize::try_from(told) == Ok(*counted));
        let doubt = (self.version, told);
        is_so || self.doubted.replace(doubt) == Some(doubt)
    }

    /// With the time since when as it was first told, as long as what is told now may be the same: later it is told less exactly.
    fn aged(&self, mut found: Container, now: i64) -> Container {
        let known = self.containers.get(&found.id).filter(|known| {
            (&known.state, known.exit_code) == (&found.state, found.exit_code)
                && known.since.abs_diff(found.since) <= exactness(now - found.since)
        });
        if let Some(known) = known {
            found.since = known.since;
        }
        found
    }
}

/// By how much an age in Docker's words may be wrong: it has the largest unit of which there are two, and a moment for the call.
fn exactness(age: i64) -> u64 {
    const MINUTE: i64 = 60;
    const HOUR: i64 = 60 * MINUTE;
    const DAY: i64 = 24 * HOUR;
    let unit = match age {
        ..MINUTE => 1,
        MINUTE..HOUR => MINUTE,
        HOUR..172_800 => HOUR,
        172_800..1_209_600 => DAY,
        1_209_600..5_184_000 => 7 * DAY,
        5_184_000..63_072_000 => 30 * DAY,
        _ => 365 * DAY,
    };
    unit.unsigned_abs() + 5
}

/// Puts what was found in the place of what was known: what is new of it, and what is gone.
fn replace<T: Clone + PartialEq>(
    known: &mut BTreeMap<String, T>,
    found: BTreeMap<String, T>,
) -> (Vec<T>, Vec<String>) {
    let is_new = |(id, one): &(&String, &T)| known.get(*id) != Some(*one);
    let new = found.iter().filter(is_new).map(|(_, one)| one.clone()).collect();
    let gone = known.keys().filter(|id| !found.contains_key(*id)).cloned().collect();
    *known = found;
    (new, gone)
}

/// An update in messages that are small enough, each with the same version; the last one makes it complete.
pub(super) fn parts(update: &InventoryUpdate) -> Vec<InventoryUpdate> {
    let empty = || InventoryUpdate {
        epoch: update.epoch,
        version: update.version,
        engine_answers: update.engine_answers,
        ..InventoryUpdate::default()
    };
    let mut parts = Vec::new();
    let (mut part, mut bytes) = (empty(), 0);
    let mut room = |part: &mut InventoryUpdate, size: usize| {
        bytes += size;
        if bytes > MOST_BYTES {
            bytes = size;
            parts.push(std::mem::replace(part, empty()));
        }
    };
    macro_rules! put {
        ($list:ident, $size:expr) => {
            for item in &update.$list {
                room(&mut part, $size(item));
                part.$list.push(item.clone());
            }
        };
    }
    put!(containers, Message::encoded_len);
    put!(images, Message::encoded_len);
    put!(networks, Message::encoded_len);
    put!(volumes, Message::encoded_len);
    put!(containers_gone, String::len);
    put!(images_gone, String::len);
    put!(networks_gone, String::len);
    put!(volumes_gone, String::len);
    parts.push(part);
    if let Some(first) = parts.first_mut() {
        first.begins = update.begins;
    }
    if let Some(last) = parts.last_mut() {
        last.is_complete = update.is_complete;
    }
    parts
}

#[cfg(test)]
mod tests;
