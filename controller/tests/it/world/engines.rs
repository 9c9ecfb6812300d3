//! Engines behind the agents of a world: what reaches them is kept.

use std::collections::HashMap;

use bytes::Bytes;
use futures::StreamExt as _;
use gantry_api::agent_v1::{EngineAnswer, EngineCall, EnginePair};
use gantry_controller::gateway::link::{Exchange, LinkError, Piece};
use parking_lot::Mutex;
use serde_json::json;
use tokio::sync::mpsc;

/// What engines were asked.
#[derive(Default)]
pub struct Engines {
    calls: Mutex<Vec<EngineCall>>,
    archives: Mutex<Vec<(Vec<u8>, bool)>>,
    fails: Mutex<Option<LinkError>>,
    silent: Mutex<Vec<&'static str>>,
    endless: Mutex<Vec<&'static str>>,
    answers: Mutex<HashMap<&'static str, (u32, Vec<u8>)>>,
}

impl Engines {
    /// Every call so far.
    pub fn calls(&self) -> Vec<EngineCall> {
        self.calls.lock().clone()
    }

    /// Routes of the calls so far.
    pub fn routes(&self) -> Vec<String> {
        self.calls.lock().iter().map(|call| call.route.clone()).collect()
    }

    /// Each archive, and whether it came to its end.
    pub fn archives(&self) -> Vec<(Vec<u8>, bool)> {
        self.archives.lock().clone()
    }

    /// From now on agents fail like this.
    pub fn fail(&self, error: LinkError) {
        *self.fails.lock() = Some(error);
    }

    /// From now on engines answer that route like this.
    pub fn answer(&self, route: &'static str, status: u32, body: impl ToString) {
        self.answer_bytes(route, status, body.to_string().into_bytes());
    }

    /// As [`Engines::answer`], with what is no text.
    pub fn answer_bytes(&self, route: &'static str, status: u32, body: Vec<u8>) {
        self.answers.lock().insert(route, (status, body));
    }

    /// From now on what engines say by that route has no end.
    pub fn go_on(&self, route: &'static str) {
        self.endless.lock().push(route);
    }

    /// From now on engines do not answer that route.
    pub fn never_answer(&self, route: &'static str) {
        self.silent.lock().push(route);
    }

    pub async fn exchange(
        &self,
        call: EngineCall,
        mut sent: mpsc::Receiver<Piece>,
    ) -> Result<Exchange, LinkError> {
        let (route, is_upgrade) = (call.route.clone(), call.upgrade);
        self.calls.lock().push(call);
        if self.silent.lock().contains(&&*route) {
            return std::future::pending().await;
        }
        if let Some(error) = self.fails.lock().clone() {
            return Err(error);
        }
        let mut body = b"{}".to_vec();
        match route.as_str() {
            "ImageLoad" | "ContainerCopyIn" => {
                let (mut whole, mut is_whole) = (Vec::new(), false);
                while let Some(piece) = sent.recv().await {
                    match piece {
                        Piece::Bytes(bytes) => whole.extend_from_slice(&bytes),
                        Piece::End => is_whole = true,
                    }
                }
                self.archives.lock().push((whole, is_whole));
            }
            "ContainerInspect" => {
                let described = json!({"Id": "c1", "Config": {"Env": ["PASSWORD=planted"], "Image": "a"}});
                body = described.to_string().into_bytes();
            }
            _ => {}
        }
        let mut status = if route == "ContainerExec" { 201 } else { 200 };
        if status == 201 {
            body = br#"{"Id":"e1"}"#.to_vec();
        }
        if is_upgrade {
            body = b"\x01\0\0\0\0\0\0\x05begun".to_vec();
        }
        if let Some((told, said)) = self.answers.lock().get(&*route) {
            (status, body) = (*told, said.clone());
        }
        let first = futures::stream::iter([Ok(Bytes::from(body))]);
        if is_upgrade {
            status = 101;
            // Takes what is typed, and has no more to say.
            tokio::spawn(async move { while sent.recv().await.is_some() {} });
        }
        let bytes = match route.as_str() {
            route if is_upgrade || self.endless.lock().contains(&route) => {
                first.chain(futures::stream::pending()).boxed()
            }
            "SystemEvents" | "ContainerLogs" | "ContainerAttach" => {
                first.chain(futures::stream::pending()).boxed()
            }
            _ => first.boxed(),
        };
        let pair = |name: &str, value: &str| EnginePair { name: name.to_owned(), value: value.to_owned() };
        let headers = vec![
            pair("content-type", "application/json"),
            pair("api-version", "1.41"),
            pair("builder-version", "2"),
            pair("set-cookie", "a=b"),
            pair("x-docker-container-path-stat", "e30="),
        ];
        Ok(Exchange { answer: EngineAnswer { status, headers }, bytes })
    }
}
