//! What a request asks for: which collection or object, with which parameters, and in which form the answer is wanted.

use std::sync::Arc;
use std::time::Duration;

use axum::extract::Query;
use gantry_api::names::CONTROLLER_MANAGER;
use http::request::Parts;
use http::{HeaderMap, Method, Uri, header};

use super::client::InProcess;
use super::failure::{CauseReason, Failure, Outcome};
use super::kinds::Kind;
use super::selectors::Selector;
use crate::apply::LONGEST_MANAGER;
use crate::audit::Ticket;
use crate::auth::Caller;
use crate::storage::{Key, Resource, Version};

/// One request for a resource, read but not yet done.
#[derive(Clone, Debug)]
pub(crate) struct Call {
    /// What kind of object.
    pub kind: &'static Kind,
    /// Absent for objects of the cluster and for collections over all namespaces.
    pub namespace: Option<Arc<str>>,
    /// Absent for collections.
    pub name: Option<Arc<str>>,
    /// `status`, `finalize` or `token`.
    pub subresource: Option<&'static str>,
    /// The query.
    pub params: Params,
    /// How the answer is to look.
    pub format: Format,
    /// True if the client asked for the media type of streams by name.
    pub wants_stream: bool,
    /// True if a part of this controller asks.
    pub is_ours: bool,
    /// True if nothing is to be stored.
    pub is_dry_run: bool,
    /// Media type of the body.
    pub content_type: Option<String>,
    /// Who asks.
    pub caller: Caller,
    /// Who writes: `fieldManager`, or how the client calls itself. At most 128 bytes once the verb was checked.
    pub manager: String,
    /// What becomes its record.
    pub ticket: Arc<Ticket>,
}

impl Call {
    /// Reads query and headers; the path was read by the router.
    pub fn new(
        kind: &'static Kind,
        subresource: Option<&'static str>,
        namespace: Option<Arc<str>>,
        name: Option<Arc<str>>,
        parts: &Parts,
    ) -> Outcome<Self> {
        let params = Params::read(&parts.uri)?;
        let format = match Format::negotiate(&parts.headers, &params) {
            // What an agent answers as it runs has forms of its own.
            Err(_)
                if matches!(
                    subresource,
                    Some(
                        "logs"
                            | "log"
                            | "stats"
                            | "exec"
                            | "attach"
                            | "portforward"
                            | "recording"
                            | "events"
                            | "archive"
                            | "progress"
                    )
                ) =>
            {
                Format::Whole
            }
            format => format?,
        };
        let is_dry_run = parts.method != Method::GET && params.is_dry_run();
        let content_type = parts
            .headers
            .get(header::CONTENT_TYPE)
            .map(|value| value.to_str().map(str::to_owned))
            .transpose()
            .map_err(|_| Failure::bad_request("the Content-Type header is not text"))?;
        let is_ours = parts.extensions.get::<InProcess>().is_some();
        let manager = match params.get("fieldManager") {
            Some(manager) => manager.to_owned(),
            None if is_ours => CONTROLLER_MANAGER.to_owned(),
            None if parts.method == Method::GET => String::new(),
            None => manager_of(&parts.headers),
        };
        let wants_stream = parts
            .headers
            .get_all(header::ACCEPT)
            .iter()
            .any(|value| value.to_str().is_ok_and(|text| text.contains("stream=watch")));
        let ticket = parts.extensions.get::<Arc<Ticket>>().cloned();
        let ticket = ticket.ok_or_else(|| Failure::internal("a request was not looked at"))?;
        Ok(Self {
            kind,
            namespace,
            name,
            subresource,
            params,
            format,
            wants_stream,
            is_ours,
            is_dry_run,
            content_type,
            caller: parts.extensions.get::<Caller>().cloned().unwrap_or_default(),
            manager,
            ticket,
        })
    }

    /// Its kind as storage knows it.
    pub fn resource(&self) -> Resource {
        self.kind.resource()
    }

    /// Where an object of this name stands.
    pub fn key(&self, name: &str) -> Key {
        Key {
            resource: self.resource(),
            namespace: self.namespace.clone().unwrap_or_default(),
            name: name.into(),
        }
    }

    /// The object that the path names.
    pub fn target(&self) -> Outcome<Key> {
        self.name.as_deref().map(|name| self.key(name)).ok_or_else(Failure::no_such_path)
    }

    /// True if the body is a configuration to apply.
    pub fn is_apply(&self) -> bool {
        let essence = self.content_type.as_deref().unwrap_or_default().split(';').next().unwrap_or_default();
        essence.trim().eq_ignore_ascii_case("application/apply-patch+yaml")
    }

    /// 422 for an apply that does not say who applies, and for another patch that wants to be forced.
    pub fn check_patch_options(&self) -> Outcome<()> {
        let refuse = |option, reason, message: &str| {
            Err(Failure::invalid_option("PatchOptions", option, reason, message.to_owned()))
        };
        self.params.check_write_options("PatchOptions")?;
        match (self.is_apply(), self.params.get("fieldManager")) {
            (true, None) => {
                refuse("fieldManager", CauseReason::Required, "Required value: is required for apply patch")
            }
            (false, _) if self.params.has("force") => {
                refuse("force", CauseReason::Forbidden, "Forbidden: may not be specified for non-apply patch")
            }
            _ => Ok(()),
        }
    }

    /// Both selectors of the query.
    pub fn selector(&self) -> Outcome<Selector> {
        Selector::parse(
            self.params.get("labelSelector").unwrap_or_default(),
            self.params.get("fieldSelector").unwrap_or_default(),
            |field| self.kind.field(field),
        )
    }
}

/// What stands before the first `/` of the User-Agent, as far as it can be printed.
fn manager_of(headers: &HeaderMap) -> String {
    let agent = headers.get(header::USER_AGENT).map(|agent| String::from_utf8_lossy(agent.as_bytes()));
    let mut manager = String::new();
    let name = agent.as_deref().unwrap_or_default().split('/').next().unwrap_or_default();
    for character in name.chars().filter(|character| !character.is_control()) {
        if manager.len() + character.len_utf8() > LONGEST_MANAGER {
            break;
        }
        manager.push(character);
    }
    manager
}

/// The query, decoded.
#[derive(Clone, Debug, Default)]
pub(crate) struct Params(Vec<(String, String)>);

impl Params {
    pub fn read(uri: &Uri) -> Outcome<Self> {
        if uri.query().is_none() {
            return Ok(Self::default());
        }
        let Query(pairs) = Query::try_from_uri(uri)
            .map_err(|error| Failure::bad_request(format!("the query cannot be read: {error}")))?;
        Ok(Self(pairs))
    }

    /// The value, `None` also for an empty one.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.0
            .iter()
            .find(|(key, _)| key == name)
            .map(|(_, value)| value.as_str())
            .filter(|value| !value.is_empty())
    }

    /// Every value that is given, empty ones too.
    pub fn all<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a str> {
        self.0.iter().filter(move |(key, _)| key == name).map(|(_, value)| value.as_str())
    }

    /// True if it is given, even without a value.
    pub fn has(&self, name: &str) -> bool {
        self.0.iter().any(|(key, _)| key == name)
    }

    /// True for anything but absent, empty, `0` and `false`.
    pub fn is_set(&self, name: &str) -> bool {
        self.get(name).is_some_and(|value| value != "0" && !value.eq_ignore_ascii_case("false"))
    }

    /// A whole number that is not negative.
    pub fn number(&self, name: &str) -> Outcome<Option<u64>> {
        self.get(name)
            .map(|value| {
                value.parse().map_err(|_| {
                    Failure::bad_request(format!(
                        "{name}: Invalid value: {value:?}: must be a number, 0 or more"
                    ))
                })
            })
            .transpose()
    }

    /// Most objects of a page; as Kubernetes does it, less than none is no limit.
    pub fn limit(&self) -> Outcome<Option<usize>> {
        let Some(text) = self.get("limit") else { return Ok(None) };
        let limit: i64 = text
            .parse()
            .map_err(|_| Failure::bad_request(format!("limit: Invalid value: {text:?}: must be a number")))?;
        Ok(usize::try_from(limit).ok().filter(|limit| *limit > 0))
    }

    /// True for `dryRun=All`, the one value there is.
    pub fn is_dry_run(&self) -> bool {
        self.dry_runs().next().is_some()
    }

    fn dry_runs(&self) -> impl Iterator<Item = &str> {
        let values = self.0.iter().filter(|(key, value)| key == "dryRun" && !value.is_empty());
        values.map(|(_, value)| value.as_str())
    }

    /// 422 for a value of `dryRun` that is none, in `options` as `DeleteOptions`.
    pub fn check_dry_run(&self, options: &str) -> Outcome<()> {
        check_dry_run(options, self.dry_runs())
    }

    /// What all writes but deletions have: 422 unless there is such a `dryRun` and `fieldValidation`, and who writes is short and printable.
    pub fn check_write_options(&self, options: &str) -> Outcome<()> {
        self.check_field_manager(options)?;
        self.check_dry_run(options)?;
        match self.get("fieldValidation") {
            None | Some("Ignore" | "Strict" | "Warn") => Ok(()),
            Some(other) => Err(Failure::invalid_option(
                options,
                "fieldValidation",
                CauseReason::NotSupported,
                format!(
                    "Unsupported value: {other:?}: supported values: \"\", \"Ignore\", \"Strict\", \"Warn\""
                ),
            )),
        }
    }

    fn check_field_manager(&self, options: &str) -> Outcome<()> {
        let Some(manager) = self.get("fieldManager") else { return Ok(()) };
        let (reason, message) = if manager.len() > LONGEST_MANAGER {
            (CauseReason::TooLong, format!("Too long: may not be more than {LONGEST_MANAGER} bytes"))
        } else if manager.chars().any(char::is_control) {
            let message = format!("Invalid value: {manager:?}: should only contain printable characters");
            (CauseReason::Invalid, message)
        } else {
            return Ok(());
        };
        Err(Failure::invalid_option(options, "fieldManager", reason, message))
    }

    /// How long a request that is no watch may take; at most a minute.
    pub fn timeout(&self) -> Outcome<Duration> {
        const LONGEST: Duration = Duration::from_secs(60);
        let Some(text) = self.get("timeout") else { return Ok(LONGEST) };
        let asked = parse_duration(text).ok_or_else(|| {
            Failure::bad_request(format!("timeout: Invalid value: {text:?}: must be like 30s"))
        })?;
        Ok(if asked.is_zero() { LONGEST } else { asked.min(LONGEST) })
    }

    /// `resourceVersion` with how it is meant.
    pub fn freshness(&self) -> Outcome<Freshness> {
        const MATCH: &str = "resourceVersionMatch";
        let version = self.get("resourceVersion").map(parse_version).transpose()?;
        match (version, self.get(MATCH)) {
            (None, None) => Ok(Freshness::Newest),
            (Some(Version(0)), None | Some("NotOlderThan")) => Ok(Freshness::Any),
            (Some(version), None | Some("NotOlderThan")) => Ok(Freshness::NotOlderThan(version)),
            (Some(Version(0)), Some("Exact")) => Err(Failure::forbidden_option(
                MATCH,
                "resourceVersionMatch \"exact\" is forbidden for resourceVersion \"0\"",
            )),
            (Some(version), Some("Exact")) => Ok(Freshness::Exact(version)),
            (None, Some(_)) => Err(Failure::forbidden_option(
                MATCH,
                "resourceVersionMatch is forbidden unless resourceVersion is provided",
            )),
            (Some(_), Some(other)) => Err(Failure::invalid_option(
                "ListOptions",
                MATCH,
                CauseReason::NotSupported,
                format!("Unsupported value: {other:?}: supported values: \"Exact\", \"NotOlderThan\", \"\""),
            )),
        }
    }
}

/// 422 for a value of `dryRun` that is none, from query or body.
pub(crate) fn check_dry_run<'a>(options: &str, values: impl IntoIterator<Item = &'a str>) -> Outcome<()> {
    match values.into_iter().find(|value| *value != "All") {
        None => Ok(()),
        Some(other) => Err(Failure::invalid_option(
            options,
            "dryRun",
            CauseReason::NotSupported,
            format!("Unsupported value: {other:?}: supported values: \"All\""),
        )),
    }
}

/// A `resourceVersion` of a client.
pub(crate) fn parse_version(text: &str) -> Outcome<Version> {
    text.parse().ok().filter(|number| *number >= 0).map(Version).ok_or_else(|| {
        Failure::bad_request(format!(
            "resourceVersion: Invalid value: {text:?}: must be a version this server gave"
        ))
    })
}

/// How new a read has to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Freshness {
    /// Everything acknowledged before the request.
    Newest,
    /// Whatever is at hand.
    Any,
    /// This version or a later one.
    NotOlderThan(Version),
    /// This version.
    Exact(Version),
}

/// A duration as Go writes it, `1h`, `1m30s`, `1.5s`, `250ms`; or whole seconds.
pub(crate) fn parse_duration(text: &str) -> Option<Duration> {
    if let Ok(seconds) = text.parse::<u32>() {
        return Some(Duration::from_secs(seconds.into()));
    }
    let mut rest = Some(text).filter(|text| !text.is_empty())?;
    let mut total = Duration::ZERO;
    while !rest.is_empty() {
        let is_of_number = |character: char| character.is_ascii_digit() || character == '.';
        let (number, tail) = rest.split_at(rest.find(|character| !is_of_number(character))?);
        let (unit, tail) = tail.split_at(tail.find(is_of_number).unwrap_or(tail.len()));
        let unit = match unit {
            "h" => 3_600.0,
            "m" => 60.0,
            "s" => 1.0,
            "ms" => 1e-3,
            "us" | "\u{b5}s" | "\u{3bc}s" => 1e-6,
            "ns" => 1e-9,
            _ => return None,
        };
        let part = Duration::try_from_secs_f64(number.parse::<f64>().ok()? * unit).ok()?;
        total = total.checked_add(part)?;
        rest = tail;
    }
    Some(total)
}

/// In which form objects are sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Format {
    /// As they are stored.
    Whole,
    /// As `PartialObjectMetadata`.
    Metadata,
    /// As rows of a `Table`.
    Table(Include),
}

/// How much of an object a row carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Include {
    Nothing,
    Metadata,
    Object,
}

impl Format {
    /// Takes the first entry of `Accept` that is served.
    fn negotiate(headers: &HeaderMap, params: &Params) -> Outcome<Self> {
        let mut is_anything_asked = false;
        for value in headers.get_all(header::ACCEPT) {
            let Ok(text) = value.to_str() else { continue };
            for entry in text.split(',').map(str::trim).filter(|entry| !entry.is_empty()) {
                is_anything_asked = true;
                if let Some(format) = Self::of(entry, params)? {
                    return Ok(format);
                }
            }
        }
        if is_anything_asked {
            Err(Failure::not_acceptable(
                "application/json, application/json;as=Table;v=v1;g=meta.k8s.io, \
                 application/json;as=PartialObjectMetadata;v=v1;g=meta.k8s.io, \
                 application/json;as=PartialObjectMetadataList;v=v1;g=meta.k8s.io",
            ))
        } else {
            Ok(Self::Whole)
        }
    }

    fn of(entry: &str, params: &Params) -> Outcome<Option<Self>> {
        let mut parts = entry.split(';').map(str::trim);
        if !matches!(parts.next(), Some("application/json" | "application/*" | "*/*")) {
            return Ok(None);
        }
        let (mut form, mut version, mut group) = ("", "", "");
        for (name, value) in parts.filter_map(|part| part.split_once('=')) {
            match name {
                "as" => form = value,
                "v" => version = value,
                "g" => group = value,
                _ => {}
            }
        }
        match (form, version, group) {
            ("", _, _) => Ok(Some(Self::Whole)),
            ("PartialObjectMetadata" | "PartialObjectMetadataList", "v1", "meta.k8s.io") => {
                Ok(Some(Self::Metadata))
            }
            ("Table", "v1", "meta.k8s.io") => {
                let include = match params.get("includeObject") {
                    None | Some("Metadata") => Include::Metadata,
                    Some("None") => Include::Nothing,
                    Some("Object") => Include::Object,
                    Some(other) => {
                        return Err(Failure::bad_request(format!(
                            "unrecognized includeObject value: {other:?}"
                        )));
                    }
                };
                Ok(Some(Self::Table(include)))
            }
            _ => Ok(None),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn params(query: &str) -> Params {
        Params::read(&format!("/x?{query}").parse().expect("a URI")).expect("a query")
    }

    fn negotiate(accept: &str) -> Result<Format, u16> {
        let mut headers = HeaderMap::new();
        headers.insert(header::ACCEPT, accept.parse().expect("a header"));
        Format::negotiate(&headers, &params("a=b")).map_err(|failure| failure.code().as_u16())
    }

    #[test]
    fn the_first_form_that_is_served_is_taken() {
        let table = "application/json;as=Table;v=v1;g=meta.k8s.io";
        assert_eq!(negotiate(&format!("{table},application/json")), Ok(Format::Table(Include::Metadata)));
        assert_eq!(negotiate("application/vnd.kubernetes.protobuf,application/json"), Ok(Format::Whole));
        assert_eq!(negotiate("application/json;as=Table;v=v9;g=meta.k8s.io, */*"), Ok(Format::Whole));
        assert_eq!(
            negotiate("application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1"),
            Ok(Format::Metadata)
        );
        assert_eq!(negotiate("text/html"), Err(406));
    }

    #[test]
    fn parameters_are_read_as_kubernetes_reads_them() {
        assert!(params("watch=1").is_set("watch") && params("watch=true").is_set("watch"));
        assert!(!params("watch=0").is_set("watch") && !params("watch=false").is_set("watch"));
        assert_eq!(params("timeout=1m30s").timeout().expect("valid"), Duration::from_secs(60));
        assert_eq!(params("timeout=1s500ms").timeout().expect("valid"), Duration::from_millis(1_500));
        assert_eq!(params("timeout=1.5s").timeout().expect("valid"), Duration::from_millis(1_500));
        assert_eq!(params("timeout=.5s250us").timeout().expect("valid"), Duration::from_micros(500_250));
        assert_eq!(params("timeout=7%C2%B5s9ns").timeout().expect("valid"), Duration::from_nanos(7_009));
        assert_eq!(params("timeout=1000000000000000000000h").timeout().map_err(drop), Err(()));
        for wrong in ["x", "1", "s", ".s", "1.2.3s", "1s2", "-1s", "1d", "1e3s"] {
            let is_refused = params(&format!("timeout={wrong}")).timeout().is_err();
            assert_eq!(is_refused, wrong != "1", "{wrong}");
        }
        assert!(params("dryRun=None").check_dry_run("PatchOptions").is_err());
        assert!(params("dryRun=All").is_dry_run() && !params("dryRun=").is_dry_run());
        for (text, limit) in [("limit=2", Some(2)), ("limit=0", None), ("limit=-1", None), ("limit=", None)] {
            assert_eq!(params(text).limit().expect("valid"), limit, "{text}");
        }
        assert!(params("limit=few").limit().is_err());
        assert_eq!(
            params("resourceVersion=7&resourceVersionMatch=Exact").freshness().expect("valid"),
            Freshness::Exact(Version(7))
        );
        assert!(params("resourceVersionMatch=Exact").freshness().is_err());
        assert!(params("resourceVersion=abc").freshness().is_err());
    }
}
