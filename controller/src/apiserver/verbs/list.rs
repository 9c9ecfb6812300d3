//! Reading a collection, page by page from one state.

use std::sync::Arc;
use std::time::Duration;

use axum::response::Response;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::{Deserialize, Serialize};

use crate::apiserver::ApiServer;
use crate::apiserver::answer::{self, Page};
use crate::apiserver::failure::{Failure, Outcome};
use crate::apiserver::limits::LIGHT;
use crate::apiserver::request::{Call, Format, Freshness};
use crate::apiserver::selectors::Selector;
use crate::storage::{Object, Version};
use crate::watch_cache::Listing;

/// Answers the objects that the selectors mean, sorted by namespace and name.
pub(crate) async fn list(server: &ApiServer, call: &Call) -> Outcome<Response> {
    let selector = call.selector()?;
    let page = page(server, call, &selector).await?;
    let bytes: usize = page.objects.iter().map(|object| object.json.len()).sum();
    let now = server.clock.now();
    // Of hosts themselves all is known that there is.
    let is_on_hosts = call.kind.is_live && call.kind.namespaced;
    let unknown = if is_on_hosts { server.unknown_hosts(call.namespace.as_deref()) } else { Vec::new() };
    let answered = if call.format == Format::Whole || bytes <= LIGHT {
        answer::list(call, now, page)
    } else {
        // Every other form is made by parsing each object.
        let call = call.clone();
        server.limits.heavily(async move { answer::list(&call, now, page) }).await
    };
    answered.map(|answered| answer::warn(answered, &unknown))
}

/// One page: `limit` objects from `continue` on, all pages from the state of the first.
pub(super) async fn page(server: &ApiServer, call: &Call, selector: &Selector) -> Outcome<Page> {
    let limit = call.params.limit()?;
    call.params.number("timeoutSeconds")?;
    if call.params.get("sendInitialEvents").is_some() {
        return Err(Failure::forbidden_option(
            "sendInitialEvents",
            "sendInitialEvents is forbidden for list",
        ));
    }
    let resume = call.params.get("continue").map(Continue::read).transpose()?;
    let (listing, age) = match &resume {
        Some(resume) => {
            if call.params.get("resourceVersionMatch").is_some() {
                return Err(Failure::forbidden_option(
                    "resourceVersionMatch",
                    "resourceVersionMatch is forbidden when continue is provided",
                ));
            }
            if call.params.get("resourceVersion").is_some_and(|version| version != "0") {
                return Err(Failure::bad_request(
                    "specifying resource version is not allowed when using continue",
                ));
            }
            (continued(server, call, resume).await?, None)
        }
        None => first(server, call).await?,
    };
    let (version, damaged) = (listing.version, listing.damaged);
    let start = resume.as_ref().map_or(0, |resume| {
        listing.objects.partition_point(|object| {
            (&*object.key.namespace, &*object.key.name) <= (resume.namespace.as_str(), resume.name.as_str())
        })
    });
    let rest = listing.objects.get(start..).unwrap_or_default();
    let limit = limit.unwrap_or(usize::MAX);
    // One more than the page tells whether there is another; of 200,000 objects those behind it are not looked at.
    let meant = rest.iter().filter(|object| selector.matches(object));
    let mut objects: Vec<Arc<Object>> = meant.take(limit.saturating_add(1)).cloned().collect();
    if objects.len() <= limit {
        return Ok(Page { objects, version, resume: None, remaining: None, damaged, age });
    }
    objects.truncate(limit);
    let resume = objects.last().map(|last| {
        Continue {
            version: version.0,
            namespace: last.key.namespace.to_string(),
            name: last.key.name.to_string(),
        }
        .write()
    });
    let left = rest.len().saturating_sub(limit);
    let remaining = selector.is_everything().then(|| i64::try_from(left).unwrap_or(i64::MAX));
    Ok(Page { objects, version, resume, remaining, damaged, age })
}

/// The collection, and how old it may be where the database did not answer.
async fn first(server: &ApiServer, call: &Call) -> Outcome<(Listing, Option<Duration>)> {
    let freshness = call.params.freshness()?;
    let age = server.reach_or_age(call, freshness).await?;
    let (cache, resource, namespace) = (server.cache(call.kind), call.resource(), call.namespace.as_deref());
    let listing = match freshness {
        Freshness::Exact(version) => cache.list_at(&resource, namespace, version).map_err(|_| {
            Failure::expired(format!("The resourceVersion for the provided list is too old: {version}"), None)
        })?,
        _ => cache.list(&resource, namespace),
    };
    Ok((listing, age))
}

async fn continued(server: &ApiServer, call: &Call, resume: &Continue) -> Outcome<Listing> {
    let (cache, resource, namespace) = (server.cache(call.kind), call.resource(), call.namespace.as_deref());
    if resume.version == INCONSISTENT {
        server.reach(call.kind, Freshness::Newest).await?;
        return Ok(cache.list(&resource, namespace));
    }
    server.reach(call.kind, Freshness::NotOlderThan(Version(resume.version))).await?;
    cache.list_at(&resource, namespace, Version(resume.version)).map_err(|_| {
        let fresh = Continue { version: INCONSISTENT, ..resume.clone() };
        Failure::expired(
            "The provided continue parameter is too old to display a consistent list result. You can start a new list without \
             the continue parameter, or use the continue token in this response to retrieve the remainder of the results. \
             Continuing with the provided token results in an inconsistent list - objects that were created, modified, or \
             deleted between the time the first chunk was returned and now may show up in the list.",
            Some(fresh.write()),
        )
    })
}

/// The version of a token whose first pages came from an older state than the next will.
const INCONSISTENT: i64 = -1;

/// Where a list goes on; opaque to clients.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Continue {
    #[serde(rename = "v")]
    version: i64,
    #[serde(rename = "ns")]
    namespace: String,
    #[serde(rename = "n")]
    name: String,
}

impl Continue {
    fn write(&self) -> String {
        URL_SAFE_NO_PAD.encode(serde_json::json!(self).to_string())
    }

    fn read(token: &str) -> Outcome<Self> {
        URL_SAFE_NO_PAD
            .decode(token)
            .ok()
            .and_then(|text| serde_json::from_slice(&text).ok())
            .filter(|token: &Self| token.version >= INCONSISTENT)
            .ok_or_else(|| {
                Failure::bad_request("continue key is not valid: it is none that this server gave")
            })
    }
}
