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
    /// The same request from its parts, as the controller sends them to an agent; checked as strictly as what a client sends.
    pub fn rebuild(
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
        rights
    }

    /// What the path names first: a container, an image; empty where it names nothing.
    pub fn object(&self) -> &str {
        self.params.first().map_or("", String::as_str)
    }
}

#[cfg(test)]
mod tests;
