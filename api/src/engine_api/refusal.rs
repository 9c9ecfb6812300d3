//! Why a request is not understood.

/// Which part of a request the grammar does not know; the label of the metric.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Why {
    /// No such path.
    Route,
    /// The path is there with other methods.
    Method,
    /// A version before 1.41, or what is none.
    Version,
    /// A path that could be read in two ways.
    Path,
    /// A key or a value of the query.
    Query,
    /// A header.
    Header,
    /// The body.
    Body,
    /// A body that is too long.
    Size,
    /// Known, and never forwarded.
    NotServed,
}

impl Why {
    /// One word.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Route => "route",
            Self::Method => "method",
            Self::Version => "version",
            Self::Path => "path",
            Self::Query => "query",
            Self::Header => "header",
            Self::Body => "body",
            Self::Size => "size",
            Self::NotServed => "not_served",
        }
    }

    /// HTTP status: what is not understood is forbidden.
    pub const fn status(self) -> u16 {
        match self {
            Self::Size => 413,
            _ => 403,
        }
    }
}

/// A request that is not forwarded. Its message repeats nothing of what was sent but names of keys.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct Refusal {
    /// What is wrong.
    pub why: Why,
    /// A sentence for whoever sent it.
    pub message: String,
}

impl Refusal {
    /// With a sentence of ours.
    pub fn new(why: Why, message: impl Into<String>) -> Self {
        Self { why, message: message.into() }
    }

    pub(super) fn version() -> Self {
        Self::new(Why::Version, "this endpoint speaks versions 1.41 and up of the Docker Engine API")
    }

    pub(super) fn path() -> Self {
        Self::new(Why::Path, "this path can be read in more than one way: write it plainly")
    }

    pub(super) fn query(key: &str, what: &str) -> Self {
        let key: String = key.chars().filter(|letter| !letter.is_control()).take(64).collect();
        Self::new(Why::Query, format!("query `{key}`: {what}"))
    }

    pub(super) fn header(name: &str, what: &str) -> Self {
        Self::new(Why::Header, format!("header `{name}`: {what}"))
    }

    pub(super) fn body(what: impl Into<String>) -> Self {
        Self::new(Why::Body, what)
    }
}
