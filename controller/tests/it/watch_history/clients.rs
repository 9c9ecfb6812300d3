//! Who writes and who watches, and what they remember of it.

use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use bytes::{Buf as _, BytesMut};
use futures::StreamExt as _;
use gantry_controller::clock::{Clock as _, SystemClock};
use http::{Method, Request, StatusCode};
use serde_json::{Value, json};

use super::{Dice, NAMESPACES, World};
use crate::world::history::{
    Begin, Event, Kind, LABEL, List, Scope, Selector, State, Stream, Told, What, Write,
};
use crate::world::replicas::Replica;

/// Objects in each namespace.
const NAMES: u64 = 80;
const TIERS: [&str; 3] = ["gold", "silver", "iron"];
const JSON: &str = "application/json";
/// How often a watcher to whom nothing comes looks whether the run is over.
const IDLE: Duration = Duration::from_millis(300);

/// The replica that the dice name, if it serves.
async fn any_replica(world: &World, dice: &mut Dice) -> Option<(usize, Arc<Replica>)> {
    let number = usize::try_from(dice.below(world.replicas.count() as u64)).expect("a number");
    let replica = world.replicas.get(number);
    if replica.is_none() {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    Some((number, replica?))
}

/// Creates, updates, patches and deletes at random.
pub struct Writer {
    world: Arc<World>,
    dice: Dice,
    number: u64,
    writes: Vec<Write>,
}

impl Writer {
    pub fn new(world: &Arc<World>, dice: Dice, number: u64) -> Self {
        Self { world: Arc::clone(world), dice, number, writes: Vec::new() }
    }

    /// Writes until the run stops; what it was told of each.
    pub async fn run(mut self) -> Vec<Write> {
        let world = Arc::clone(&self.world);
        while !world.is_stopping() {
            {
                let _writing = world.writing.read().await;
                if let Some((_, replica)) = any_replica(&world, &mut self.dice).await {
                    self.write(&replica).await;
                }
            }
            tokio::time::sleep(Duration::from_millis(2 + self.dice.below(10))).await;
        }
        self.writes
    }

    async fn write(&mut self, replica: &Replica) {
        let stamp = format!("{}-{}", self.number, self.writes.len());
        let namespace = *self.dice.pick(&NAMESPACES);
        let name = format!("n{}", self.dice.below(NAMES));
        let collection = format!("/api/v1/namespaces/{namespace}/configmaps");
        let path = format!("{collection}/{name}");
        let label = Some(*self.dice.pick(&TIERS)).filter(|_| !self.dice.one_in(5));
        let object = json!({"metadata": {"name": name, "labels": {LABEL: label}}, "data": {"stamp": stamp, "twin": stamp}});
        let mut whole = object.clone();
        if label.is_none() {
            whole["metadata"]["labels"] = json!({});
        }
        // Mostly what can succeed, as far as the writers know.
        let is_there = self.world.living.lock().contains(&path) != self.dice.one_in(12);
        let answer = match self.dice.below(10) {
            _ if !is_there => replica.call(Method::POST, &collection, JSON, whole.to_string()).await,
            0..3 => replica.call(Method::PUT, &path, JSON, whole.to_string()).await,
            3..7 => {
                let merge = "application/merge-patch+json";
                replica.call(Method::PATCH, &path, merge, object.to_string()).await
            }
            _ => replica.call(Method::DELETE, &path, JSON, String::new()).await,
        };
        let is_taken = matches!(answer, Some((409, _)));
        let told = self.understand(answer);
        match told {
            Told::Stored(_) => drop(self.world.living.lock().insert(path)),
            Told::Refused if is_taken && !is_there => drop(self.world.living.lock().insert(path)),
            Told::Deleted(_) | Told::Refused => drop(self.world.living.lock().remove(&path)),
            Told::Unknown => {}
        }
        if matches!(told, Told::Unknown) {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        self.world.count();
        self.writes.push(Write { stamp, told });
    }

    fn understand(&self, answer: Option<(u16, Value)>) -> Told {
        match answer {
            Some((200 | 201, object)) if object["kind"] == "Status" => {
                Told::Deleted(object["details"]["uid"].as_str().expect("it says which").to_owned())
            }
            Some((200 | 201, object)) => {
                let state = State::read(object);
                self.world.learn(state.version);
                Told::Stored(state)
            }
            Some((404 | 409 | 503, _)) => Told::Refused,
            Some((504, _)) | None => Told::Unknown,
            Some((code, body)) => panic!("a write was answered {code} {body}"),
        }
    }
}

/// How a watcher reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Manner {
    /// At once, until the watch ends.
    Prompt,
    /// With long pauses, so that what it has not read is forgotten.
    Slow,
    /// Leaves often, and goes on elsewhere.
    Restless,
}

/// Lists, watches, and goes on where it was after every end.
pub struct Watcher {
    world: Arc<World>,
    dice: Dice,
    manner: Manner,
    scope: Scope,
    /// Where to go on.
    position: Option<i64>,
    /// True if the next watch goes on where the last one was left.
    continues: bool,
    streams: Vec<Stream>,
    lists: Vec<List>,
}

impl Watcher {
    pub fn new(world: &Arc<World>, mut dice: Dice, number: u64) -> Self {
        let manner = match number % 4 {
            0 => Manner::Slow,
            1 => Manner::Restless,
            _ => Manner::Prompt,
        };
        let namespace = dice.one_in(2).then(|| (*dice.pick(&NAMESPACES)).to_owned());
        let selector = match dice.below(4) {
            0 => Selector::Is((*dice.pick(&TIERS)).to_owned()),
            1 => Selector::IsNot((*dice.pick(&TIERS)).to_owned()),
            _ => Selector::Everything,
        };
        Self {
            world: Arc::clone(world),
            dice,
            manner,
            scope: Scope { namespace, selector },
            position: None,
            continues: false,
            streams: Vec::new(),
            lists: Vec::new(),
        }
    }

    /// Watches until the run has stopped and the newest version is reached; what it saw.
    pub async fn run(mut self) -> (Vec<Stream>, Vec<List>) {
        let world = Arc::clone(&self.world);
        while world.last().is_none_or(|last| self.position.is_none_or(|position| position < last)) {
            let Some((number, replica)) = any_replica(&world, &mut self.dice).await else { continue };
            match self.position {
                Some(version) => self.watch(number, &replica, Begin::After(version)).await,
                None if self.dice.one_in(2) => {
                    let begin = Begin::State { at_least: world.known() };
                    self.watch(number, &replica, begin).await;
                }
                None => self.list(number, &replica).await,
            }
        }
        (self.streams, self.lists)
    }

    fn path(&self) -> String {
        let collection = match &self.scope.namespace {
            Some(namespace) => format!("/api/v1/namespaces/{namespace}/configmaps"),
            None => "/api/v1/configmaps".to_owned(),
        };
        match &self.scope.selector {
            Selector::Everything => format!("{collection}?"),
            Selector::Is(label) => format!("{collection}?labelSelector={LABEL}%3D{label}&"),
            Selector::IsNot(label) => format!("{collection}?labelSelector={LABEL}%21%3D{label}&"),
        }
    }

    /// A list, sometimes in pages: consistent, unless it says how old it is, as it does without a database.
    async fn list(&mut self, number: usize, replica: &Replica) {
        let mut at_least = self.world.known();
        let limit = if self.dice.one_in(2) { 0 } else { 20 };
        let first = format!("{}limit={limit}", self.path());
        let mut path = first.clone();
        let mut items = Vec::new();
        loop {
            let request = Request::get(&path).body(Body::empty()).expect("a request");
            let answer = replica.ask(request).await.filter(|(parts, _)| parts.status == StatusCode::OK);
            let Some((parts, page)) = answer else {
                // Away, or the state of the first page is forgotten.
                tokio::time::sleep(Duration::from_millis(20)).await;
                return;
            };
            if parts.headers.contains_key(http::header::AGE) {
                at_least = 0;
            }
            items.extend(page["items"].as_array().into_iter().flatten().cloned().map(State::read));
            let metadata = &page["metadata"];
            let version = metadata["resourceVersion"].as_str().and_then(|version| version.parse().ok());
            if let Some(token) = metadata["continue"].as_str() {
                path = format!("{first}&continue={token}");
                continue;
            }
            let version: i64 = version.expect("a list has a version");
            self.world.learn(version);
            self.lists.push(List { scope: self.scope.clone(), replica: number, version, at_least, items });
            self.position = Some(version);
            self.continues = false;
            return;
        }
    }

    fn watch_path(&mut self, begin: Begin) -> String {
        let from = match begin {
            Begin::After(version) => format!("&resourceVersion={version}"),
            Begin::State { .. } => "&sendInitialEvents=true&resourceVersionMatch=NotOlderThan".to_owned(),
        };
        let is_initial = matches!(begin, Begin::State { .. });
        let bookmarks = is_initial || self.world.last().is_some() || !self.dice.one_in(4);
        let bookmarks = if bookmarks { "&allowWatchBookmarks=true" } else { "" };
        let is_short = self.manner != Manner::Slow || self.world.last().is_some();
        let seconds = if is_short { 1 + self.dice.below(4) } else { 15 };
        format!("{}watch=1&timeoutSeconds={seconds}{from}{bookmarks}", self.path())
    }

    async fn watch(&mut self, number: usize, replica: &Replica, begin: Begin) {
        let path = self.watch_path(begin);
        let request = Request::builder().uri(path).body(Body::empty()).expect("a request");
        let Some(response) = replica.send(request).await.filter(|response| response.status() == 200) else {
            tokio::time::sleep(Duration::from_millis(20)).await;
            return;
        };
        let mut stream = Stream {
            scope: self.scope.clone(),
            replica: number,
            begin,
            continues: std::mem::take(&mut self.continues),
            events: Vec::new(),
        };
        let mut chunks = response.into_body().into_data_stream();
        let mut unread = BytesMut::new();
        let is_last = self.world.last().is_some();
        'open: loop {
            let chunk = match tokio::time::timeout(IDLE, chunks.next()).await {
                Ok(Some(Ok(chunk))) => chunk,
                Ok(_) => break,
                // Nothing more comes; the next watch ends with a bookmark soon.
                Err(_) if !is_last && self.world.last().is_some() => break,
                Err(_) => continue,
            };
            unread.extend_from_slice(&chunk);
            while let Some(end) = unread.iter().position(|byte| *byte == b'\n') {
                self.see(&mut stream, &unread[..end]);
                unread.advance(end + 1);
                if self.manner == Manner::Restless && self.dice.one_in(60) {
                    break 'open;
                }
            }
            if self.manner == Manner::Slow && self.dice.one_in(3) && !self.world.is_stopping() {
                tokio::time::sleep(Duration::from_millis(500 + self.dice.below(2_500))).await;
            }
        }
        self.continues = self.position.is_some();
        self.streams.push(stream);
    }

    /// Takes one line of a watch.
    fn see(&mut self, stream: &mut Stream, line: &[u8]) {
        let mut event: Value = serde_json::from_slice(line).expect("one JSON object a line");
        let object = event["object"].take();
        let kind = event["type"].as_str().expect("a type");
        let mark = "/metadata/annotations/k8s.io~1initial-events-end";
        let marks_end = object.pointer(mark).is_some_and(|mark| mark == "true");
        let (code, state) = (object["code"].as_i64(), State::read(object));
        let version = state.version;
        let what = match kind {
            "ADDED" => What::Change(Kind::Added, Arc::new(state)),
            "MODIFIED" => What::Change(Kind::Modified, Arc::new(state)),
            "DELETED" => What::Change(Kind::Deleted, Arc::new(state)),
            "BOOKMARK" => What::Bookmark { marks_end },
            _ => {
                assert_eq!(code, Some(410), "{}", state.content);
                What::Expired
            }
        };
        match what {
            What::Expired => self.position = None,
            What::Change(..) if self.position.is_none() => {}
            What::Change(..) | What::Bookmark { .. } => self.position = Some(version),
        }
        self.world.learn(version);
        self.world.count();
        let seen = SystemClock.now().as_microsecond();
        stream.events.push(Event { what, version, seen });
    }
}
