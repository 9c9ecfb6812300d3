//! The grammar of the Docker Engine API, 1.41 and up: what a request may say, and nothing else.
//!
//! An engine obeys more than it documents: escaped paths, keys in any case, bodies beside queries, old versions. So nothing is forwarded.
//! A request is parsed into the types here, judged by them, and written anew; what they cannot say is a [`Refusal`]. The controller
//! parses what a client sent, the agent what the controller sent: both with this. No I/O, no HTTP library.
//!
//! [`table`] has the routes, [`route`] what is told of one, [`target`] paths and queries, [`head`] headers, [`body`] JSON, [`facts`] what
//! a policy judges.

pub mod body;
pub mod facts;
pub mod head;
pub mod refusal;
pub mod route;
pub mod table;
pub mod target;

use crate::agent_v1::{EngineCall, EnginePair};

pub use body::{Json, Parsed};
pub use refusal::{Refusal, Why};
pub use route::{Answer, Body, Level, Right, Route};

/// The oldest version that is spoken, `1.41`: older ones let a start rewrite a container.
pub const OLDEST: u16 = 41;
/// Longest body of JSON, in bytes.
pub const MOST_JSON: usize = 4 << 20;

/// One request as it is understood. What [`Request::target`] writes is what an engine reads in one way only.
#[derive(Clone, PartialEq, Eq)]
pub struct Request {
    /// Which route.
    pub route: &'static Route,
    /// Minor version that the client asked for; `None` where its path had none.
    pub version: Option<u16>,
    /// What stands in the path for each `{…}`, decoded.
    pub params: Vec<String>,
    /// Keys as the route knows them, each value in the one way it is written.
    pub query: Vec<(&'static str, String)>,
    /// Headers that an engine is to see, by name; credentials among them.
    pub headers: Vec<(&'static str, String)>,
}

/// Neither the query nor the headers, which may hold secrets.
impl std::fmt::Debug for Request {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Request")
            .field("route", &self.route.id)
            .field("params", &self.params)
            .finish_non_exhaustive()
    }
}

/// Understands the head of a request: method, path with query below the endpoint, headers.
///
/// `target` begins with a slash and is as it came, escapes and all. What came is refused unless every part of it is known.
pub fn parse<'a>(
    method: &str,
    target: &str,
    headers: impl IntoIterator<Item = (&'a str, &'a [u8])>,
) -> Result<Request, Refusal> {
    let target = target::read(method, target)?;
    let headers = head::read(target.route, headers)?;
    Ok(Request { headers, ..target })
}

impl Request {
    /// A request of our own in the engine's newest version, judged as strictly as what a client sends.
    pub fn new(id: &str, params: Vec<String>, query: Vec<(String, String)>) -> Result<Self, Refusal> {
        Self::rebuild(id, None, params, query, Vec::new())
    }

    /// The same request from its parts.
    fn rebuild(
        id: &str,
        version: Option<u16>,
        params: Vec<String>,
        query: Vec<(String, String)>,
        headers: Vec<(String, String)>,
    ) -> Result<Self, Refusal> {
        let route = table::by_id(id).ok_or_else(|| Refusal::new(Why::Route, "there is no such route"))?;
        if version.is_some_and(|minor| !(OLDEST..100).contains(&minor)) {
            return Err(Refusal::version());
        }
        target::check_params(route, &params)?;
        let query = target::check_query(route, query)?;
        let headers = headers.iter().map(|(name, value)| (name.as_str(), value.as_bytes()));
        let headers = head::allowed(route, headers)?;
        Ok(Self { route, version, params, query, headers })
    }

    /// As the controller hands it to an agent.
    pub fn call(&self, json: Vec<u8>, upgrade: bool) -> EngineCall {
        let pairs = |pairs: &[(&'static str, String)]| {
            let pair = |(name, value): &(&'static str, String)| EnginePair {
                name: (*name).to_owned(),
                value: value.clone(),
            };
            pairs.iter().map(pair).collect()
        };
        EngineCall {
            route: self.route.id.to_owned(),
            version: self.version.unwrap_or_default().into(),
            params: self.params.clone(),
            query: pairs(&self.query),
            headers: pairs(&self.headers),
            json: json.into(),
            upgrade,
        }
    }

    /// What an agent was handed, checked as strictly as what a client sends. The JSON that comes with it is read by its route's type.
    pub fn of_call(call: EngineCall) -> Result<Self, Refusal> {
        let pairs = |pairs: Vec<EnginePair>| pairs.into_iter().map(|pair| (pair.name, pair.value)).collect();
        let version = match call.version {
            0 => None,
            version => Some(u16::try_from(version).map_err(|_| Refusal::version())?),
        };
        Self::rebuild(&call.route, version, call.params, pairs(call.query), pairs(call.headers))
    }

    /// The path and query for an engine, with this minor version, or none.
    pub fn target(&self, version: Option<u16>) -> String {
        target::write(self, version)
    }

    /// The value of a key of the query.
    pub fn query(&self, key: &str) -> Option<&str> {
        self.query.iter().find(|(name, _)| *name == key).map(|(_, value)| value.as_str())
    }

    /// Everything that whoever asks needs a right to.
    pub fn rights(&self) -> Vec<Right> {
        let mut rights = vec![self.route.right];
        // Whoever chooses the arguments of `ps` can have it show what processes have in their environment.
        if self.route.id == "ContainerTop" && self.query("ps_args").is_some() {
            rights.push(Right::Environment);
        }
        // Whoever attaches with the log sees what was written before.
        if self.route.id == "ContainerAttach" && self.query("logs") == Some("1") {
            rights.push(Right::Logs);
        }
        // Files of an image go to whoever builds, as with `save`.
        if self.route.id == "ImageBuild" && self.query("outputs").is_some() {
            rights.push(Right::Export);
        }
        rights
    }

    /// What the path names first: a container, an image; empty where it names nothing.
    pub fn object(&self) -> &str {
        self.params.first().map_or("", String::as_str)
    }
}

#[cfg(test)]
mod tests;
