//! What is told of a route.

use super::body::Json;

/// One route of the Engine API.
#[derive(Debug, PartialEq, Eq)]
pub struct Route {
    /// Its name on the wire between controller and agent, and of the action in the audit log.
    pub id: &'static str,
    /// `GET`.
    pub method: &'static str,
    /// `/containers/{id}/json`: `{id}` is one segment, `{name...}` the reference of an image, which may be several.
    pub path: &'static str,
    /// Keys of the query and what they hold.
    pub query: &'static [(&'static str, Value)],
    /// Headers that are passed on.
    pub headers: &'static [&'static str],
    /// What it sends.
    pub body: Body,
    /// What comes back.
    pub answer: Answer,
    /// What whoever asks needs.
    pub right: Right,
    /// What the host's owner must allow.
    pub level: Level,
    /// Why it is never forwarded; `None` where it is.
    pub not_served: Option<&'static str>,
}

/// What a key of a query holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Value {
    /// `1` or `0`.
    Flag,
    /// A whole number.
    Int,
    /// A line of text.
    Text,
    /// Text that may have line breaks.
    Prose,
    /// The same key may come again.
    Texts,
    /// As [`Value::Texts`], with line breaks.
    Proses,
    /// `{"label":{"a=b":true}}`, or as older clients write it `{"label":["a=b"]}`.
    Filters,
    /// A JSON list of texts.
    JsonTexts,
    /// A JSON object whose members are texts or null.
    JsonMap,
    /// A JSON list of limits.
    JsonUlimits,
    /// `linux/arm64`, or since 1.48 a JSON object.
    Platform,
    /// As [`Value::Platform`], and may come again.
    Platforms,
    /// This and nothing else.
    Only(&'static str),
    /// One of these.
    OneOf(&'static [&'static str]),
    /// A JSON list of what a build gives to its client.
    JsonOutputs,
}

/// What a request sends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Body {
    /// Nothing at all.
    None,
    /// JSON of a type.
    Json(Json),
    /// A tar archive of any length.
    Tar,
}

/// What comes back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    /// Soon, and then it is over.
    Short,
    /// As long as it takes.
    Stream,
    /// Raw bytes both ways in that protocol where the client asks for it, else a stream.
    Upgrade(&'static str),
}

/// What the host's owner must allow, as `--policy` of the agent says it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// Reading.
    Observe,
    /// Also start, stop, restart, pause, unpause, kill, pull.
    Operate,
    /// Everything.
    Full,
}

/// What whoever asks needs: a verb on a subresource of the instance.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Right {
    /// Lists and details, without what is in the environment of containers.
    Read,
    /// What containers have in their environment.
    Environment,
    /// Logs.
    Logs,
    /// A terminal of a container, also by GET.
    Attach,
    /// Commands in a container.
    Exec,
    /// Files out of a container.
    CopyOut,
    /// Files into a container.
    CopyIn,
    /// Whole containers and images out of the host.
    Export,
    /// New containers.
    Create,
    /// Other limits for a container.
    Update,
    /// Start.
    Start,
    /// Stop.
    Stop,
    /// Restart.
    Restart,
    /// Pause.
    Pause,
    /// Unpause.
    Unpause,
    /// Signals.
    Kill,
    /// Remove anything, prune among it.
    Remove,
    /// Rename a container.
    Rename,
    /// Have the host ask a registry.
    Pull,
    /// Send an image to a registry.
    Push,
    /// Build images.
    Build,
    /// Bring images from a file.
    Load,
    /// Another reference for an image.
    Tag,
    /// Make an image of a container.
    Commit,
    /// Make and change networks.
    Networks,
    /// Make volumes.
    Volumes,
    /// Have the host try a password at a registry.
    Login,
}

impl Right {
    /// All of them.
    pub const ALL: [Self; 27] = [
        Self::Read,
        Self::Environment,
        Self::Logs,
        Self::Attach,
        Self::Exec,
        Self::CopyOut,
        Self::CopyIn,
        Self::Export,
        Self::Create,
        Self::Update,
        Self::Start,
        Self::Stop,
        Self::Restart,
        Self::Pause,
        Self::Unpause,
        Self::Kill,
        Self::Remove,
        Self::Rename,
        Self::Pull,
        Self::Push,
        Self::Build,
        Self::Load,
        Self::Tag,
        Self::Commit,
        Self::Networks,
        Self::Volumes,
        Self::Login,
    ];

    /// The verb. What only reads by its method is not `get` where it opens a terminal or takes things away.
    pub const fn verb(self) -> &'static str {
        match self {
            Self::Read | Self::Environment | Self::Logs => "get",
            Self::CopyIn | Self::Update => "update",
            _ => "create",
        }
    }

    /// The subresource of `dockerinstances`; those that are also actions of an Operation are called as there.
    pub const fn subresource(self) -> &'static str {
        match self {
            Self::Read => "docker",
            Self::Environment => "environment",
            Self::Logs => "logs",
            Self::Attach => "attach",
            Self::Exec => "exec",
            Self::CopyOut | Self::CopyIn => "archive",
            Self::Export => "export",
            Self::Create | Self::Update => "containers",
            Self::Start => "start",
            Self::Stop => "stop",
            Self::Restart => "restart",
            Self::Pause => "pause",
            Self::Unpause => "unpause",
            Self::Kill => "kill",
            Self::Remove => "remove",
            Self::Rename => "rename",
            Self::Pull => "pull",
            Self::Push => "push",
            Self::Build => "build",
            Self::Load => "load",
            Self::Tag => "tag",
            Self::Commit => "commit",
            Self::Networks => "networks",
            Self::Volumes => "volumes",
            Self::Login => "login",
        }
    }
}

impl Route {
    /// As the audit log calls it: `container_create`.
    pub fn action(&self) -> String {
        let mut action = String::with_capacity(self.id.len() + 4);
        for letter in self.id.chars() {
            if letter.is_ascii_uppercase() && !action.is_empty() {
                action.push('_');
            }
            action.push(letter.to_ascii_lowercase());
        }
        action
    }

    /// What the connection becomes where the client asks for it.
    pub fn protocol(&self) -> Option<&'static str> {
        match self.answer {
            Answer::Upgrade(protocol) => Some(protocol),
            Answer::Short | Answer::Stream => None,
        }
    }

    /// True if nothing but looking is asked for.
    pub fn is_read(&self) -> bool {
        self.right == Right::Read
    }

    /// True if what a process shows and is typed flows through it.
    pub fn shows_terminal(&self) -> bool {
        matches!(self.id, "ContainerAttach" | "ExecStart")
    }

    /// True if something is different afterwards, or bytes flow in.
    pub fn is_change(&self) -> bool {
        self.right.verb() != "get"
    }

    pub(super) const fn new(
        method: &'static str,
        id: &'static str,
        path: &'static str,
        right: Right,
    ) -> Self {
        let level = match right {
            Right::Read | Right::Logs | Right::Environment => Level::Observe,
            Right::Start
            | Right::Stop
            | Right::Restart
            | Right::Pause
            | Right::Unpause
            | Right::Kill
            | Right::Pull => Level::Operate,
            _ => Level::Full,
        };
        Self {
            id,
            method,
            path,
            query: &[],
            headers: &[],
            body: Body::None,
            answer: Answer::Short,
            right,
            level,
            not_served: None,
        }
    }

    pub(super) const fn query(self, query: &'static [(&'static str, Value)]) -> Self {
        Self { query, ..self }
    }

    pub(super) const fn json(self, json: Json) -> Self {
        Self { body: Body::Json(json), ..self }
    }

    pub(super) const fn tar(self) -> Self {
        Self { body: Body::Tar, answer: Answer::Stream, ..self }
    }

    pub(super) const fn stream(self) -> Self {
        Self { answer: Answer::Stream, ..self }
    }

    pub(super) const fn upgrade(self, protocol: &'static str) -> Self {
        Self { answer: Answer::Upgrade(protocol), ..self }
    }

    pub(super) const fn headers(self, headers: &'static [&'static str]) -> Self {
        Self { headers, ..self }
    }
}
