//! Containers, images, networks and volumes of one host, from what its agent told.

use std::time::Duration;

use axum::response::Response;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use http::header::CACHE_CONTROL;
use serde_json::Value;

use super::Ask;
use super::filters::Filters;
use super::inventory::{Known, Sort};
use crate::apiserver::answer::{self, Page};
use crate::apiserver::failure::{Failure, Outcome};
use crate::apiserver::request::Call;
use crate::apiserver::{ApiServer, kinds};

/// Objects of a page where none asks for another number.
const PAGE: usize = 50;
/// Most of a page.
const MOST: usize = 1_000;
/// How long the host may take to list everything anew.
const ANEW_WITHIN: Duration = Duration::from_secs(30);

/// A page of one sort, in Docker's order unless another is asked for: the newest first. Docker's filters and our selectors both hold.
pub(super) async fn list(server: &ApiServer, ask: &Ask, sort: Sort) -> Outcome<Response> {
    let limit = match ask.call.params.number("limit")? {
        None | Some(0) => PAGE,
        Some(limit) => usize::try_from(limit).ok().filter(|limit| *limit <= MOST).ok_or_else(|| {
            Failure::bad_request(format!(
                "limit: Invalid value: {limit}: at most {MOST}, and go on with `continue`"
            ))
        })?,
    };
    let order = Order::read(ask.call.params.get("sortBy"))?;
    let filters = Filters::read(ask.call.params.get("filters"), sort)?;
    let resume = ask.call.params.get("continue").map(|token| resume(token, order)).transpose()?;
    let shows_all = sort != Sort::Containers || ask.call.params.is_set("all") || filters.name_states();

    let asks_anew =
        ask.parts.headers.get_all(CACHE_CONTROL).iter().any(|value| value.as_bytes() == b"no-cache");
    if asks_anew {
        anew(server, ask).await?;
    }
    let Some(Known { objects, stale_since, version }) =
        server.live().inventories().of(ask.instance.uid, sort)
    else {
        return Err(ask.instance.untold(server.live()));
    };
    let kind = kinds::live(sort.plural()).ok_or_else(|| Failure::internal("a kind is not served"))?;
    let call = Call { kind, ..ask.call.clone() };
    let selector = call.selector()?;

    let mut found = Vec::new();
    for object in objects {
        if !selector.matches(&object) {
            continue;
        }
        let value: Value = serde_json::from_slice(&object.json).map_err(answer::broken)?;
        let is_up = || {
            matches!(value.get("state").and_then(Value::as_str), Some("running" | "paused" | "restarting"))
        };
        if (shows_all || is_up()) && filters.hold(&value) {
            found.push((order.place(&value, &object.key.name), object));
        }
    }
    found.sort_by(|(a, _), (b, _)| a.cmp(b));
    if let Some(resume) = resume {
        found.retain(|(place, _)| *place > resume);
    }
    let left = found.len().saturating_sub(limit);
    found.truncate(limit);
    let resume = found.last().filter(|_| left > 0).map(|(place, _)| token(order, place));
    let page = Page {
        objects: found.into_iter().map(|(_, object)| object).collect(),
        version,
        resume,
        remaining: (left > 0).then(|| i64::try_from(left).unwrap_or(i64::MAX)),
        damaged: Vec::new(),
        age: None,
    };
    let answered = answer::list(&call, server.now(), page)?;
    let Some(since) = stale_since else { return Ok(answered) };
    let name = &ask.instance.name;
    let warning = format!(
        "dockerinstance \"{name}\" cannot be heard since {since}: this is the last that is known of it"
    );
    Ok(answer::warn(answered, &[warning]))
}

/// Has the host list everything, and waits until what it has is here.
async fn anew(server: &ApiServer, ask: &Ask) -> Outcome<()> {
    let uid = ask.instance.uid;
    let refreshed = server.live().link()?.refresh_inventory(uid, ANEW_WITHIN).await;
    let refreshed = refreshed.map_err(|error| ask.instance.failed(error))?;
    let has_come = server.live().inventories().reached(uid, &refreshed, ANEW_WITHIN).await;
    if has_come {
        Ok(())
    } else {
        Err(Failure::timeout("the host has listed what there is, and it has not come here in time"))
    }
}

/// What a list is sorted by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Order {
    Created,
    Name,
    Status,
}

/// Where an object stands: what it is sorted by, then its name.
type Place = (String, String);

impl Order {
    fn read(text: Option<&str>) -> Outcome<Self> {
        match text {
            None | Some("created") => Ok(Self::Created),
            Some("name") => Ok(Self::Name),
            Some("status") => Ok(Self::Status),
            Some(other) => Err(Failure::bad_request(format!(
                "sortBy: Unsupported value: {other:?}: supported values: \"name\", \"created\", \"status\""
            ))),
        }
    }

    fn place(self, object: &Value, name: &str) -> Place {
        let text = |pointer: &str| object.pointer(pointer).and_then(Value::as_str).unwrap_or_default();
        let by = match self {
            Self::Name => String::new(),
            Self::Status => text("/state").to_owned(),
            // RFC 3339 in UTC sorts as time does; its complement puts the newest first.
            Self::Created => {
                let newest_first =
                    |digit: char| digit.to_digit(10).map_or(digit, |digit| char::from(b'9' - digit as u8));
                text("/metadata/creationTimestamp").chars().map(newest_first).collect()
            }
        };
        (by, name.to_owned())
    }

    const fn word(self) -> &'static str {
        match self {
            Self::Created => "created",
            Self::Name => "name",
            Self::Status => "status",
        }
    }
}

fn token(order: Order, (by, name): &Place) -> String {
    URL_SAFE_NO_PAD.encode(serde_json::json!([order.word(), by, name]).to_string())
}

fn resume(token: &str, order: Order) -> Outcome<Place> {
    let read = URL_SAFE_NO_PAD.decode(token).ok();
    let read: Option<(String, String, String)> = read.and_then(|text| serde_json::from_slice(&text).ok());
    match read {
        Some((word, by, name)) if word == order.word() => Ok((by, name)),
        _ => Err(Failure::bad_request(
            "continue key is not valid: it is none that this server gave for a list in this order",
        )),
    }
}
