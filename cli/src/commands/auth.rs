//! `gantry auth`: what may I do, and who am I.

use std::process::ExitCode;

use http::Request;
use http::header::CONTENT_TYPE;
use serde_json::{Value, json};

use crate::args::{AuthTokenArgs, CanIArgs, Reach};
use crate::client::Controller;
use crate::kinds;
use crate::oidc::Session;
use crate::output::out;
use crate::output::plain::plain;
use crate::output::table::table;

/// How an error begins where it is only asked.
const UNSAID: &str = "the controller does not say";

/// Says yes or no, or everything that is allowed.
pub(crate) async fn can_i(reach: &Reach, options: &CanIArgs) -> anyhow::Result<ExitCode> {
    let controller = Controller::reach(reach).await?;
    let (Some(verb), Some(what)) = (&options.verb, &options.what) else {
        out::write(&everything(&controller).await?)?;
        return Ok(ExitCode::SUCCESS);
    };
    let (word, name) = what.split_once('/').map_or((&**what, None), |(word, name)| (word, Some(name)));
    let kinds = kinds::known(&controller, |kinds| word == "*" || kinds::find(kinds, word).is_ok()).await?;
    let found = kinds::find(&kinds, word);
    // Whoever asks for everything means `*`.
    let (group, plural, is_namespaced) = match found.as_deref() {
        _ if word == "*" => ("*", "*", true),
        Ok([kind, ..]) => (&*kind.group, &*kind.plural, kind.is_namespaced),
        _ => return found.map(|_| ExitCode::FAILURE),
    };
    let namespace = Some(&controller.namespace).filter(|_| is_namespaced && !options.all_namespaces);
    let review = json!({
        "apiVersion": "authorization.k8s.io/v1", "kind": "SelfSubjectAccessReview",
        "spec": {"resourceAttributes": {
            "verb": verb, "group": group, "resource": plural, "subresource": options.subresource.as_deref().unwrap_or_default(),
            "name": name.unwrap_or_default(), "namespace": namespace.map(String::as_str).unwrap_or_default(),
        }},
    });
    let answer =
        ask(&controller, "authorization.k8s.io", "selfsubjectaccessreviews", &review, UNSAID).await?;
    let is_allowed = answer.pointer("/status/allowed") == Some(&Value::Bool(true));
    let reason = answer.pointer("/status/reason").and_then(Value::as_str).filter(|reason| !reason.is_empty());
    let reason =
        reason.filter(|_| !is_allowed).map(|reason| format!(": {}", plain(reason))).unwrap_or_default();
    out::write(&format!("{}{reason}\n", if is_allowed { "yes" } else { "no" }))?;
    Ok(if is_allowed { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

async fn everything(controller: &Controller) -> anyhow::Result<String> {
    let review = json!({
        "apiVersion": "authorization.k8s.io/v1", "kind": "SelfSubjectRulesReview",
        "spec": {"namespace": controller.namespace},
    });
    let answer = ask(controller, "authorization.k8s.io", "selfsubjectrulesreviews", &review, UNSAID).await?;
    let rules = answer.pointer("/status/resourceRules").and_then(Value::as_array);
    let mut rows: Vec<_> = rules
        .into_iter()
        .flatten()
        .map(|rule| {
            let words = |field: &str| {
                let words = rule.get(field).and_then(Value::as_array).into_iter().flatten();
                words
                    .filter_map(Value::as_str)
                    .map(|word| if word.is_empty() { "core" } else { word })
                    .collect::<Vec<_>>()
                    .join(",")
            };
            vec![words("resources"), words("apiGroups"), words("resourceNames"), words("verbs")]
        })
        .collect();
    rows.sort();
    Ok(table(&["RESOURCES", "GROUPS", "NAMES", "VERBS"], &rows, false))
}

/// Says who the controller takes the person for.
pub(crate) async fn who_am_i(reach: &Reach) -> anyhow::Result<()> {
    let answer = review_of_self(&Controller::reach(reach).await?, UNSAID).await?;
    let text = |pointer: &str| answer.pointer(pointer).and_then(Value::as_str).unwrap_or_default().to_owned();
    let groups = answer.pointer("/status/userInfo/groups").and_then(Value::as_array).into_iter().flatten();
    let groups: Vec<_> = groups.filter_map(Value::as_str).collect();
    out::write(&table(
        &["USER", "GROUPS"],
        &[vec![text("/status/userInfo/username"), groups.join(",")]],
        false,
    ))
}

/// The name that the controller takes the person for.
pub(crate) async fn user(controller: &Controller) -> anyhow::Result<String> {
    let answer = review_of_self(controller, "nobody is signed in").await?;
    let name = answer.pointer("/status/userInfo/username").and_then(Value::as_str);
    Ok(name.unwrap_or_default().to_owned())
}

async fn review_of_self(controller: &Controller, what: &str) -> anyhow::Result<Value> {
    let review = json!({"apiVersion": "authentication.k8s.io/v1", "kind": "SelfSubjectReview"});
    ask(controller, "authentication.k8s.io", "selfsubjectreviews", &review, what).await
}

/// Prints a token of who has signed in, renewed if it is about to end, as Kubernetes has it of its plugins.
pub(crate) async fn token(options: &AuthTokenArgs) -> anyhow::Result<()> {
    let (token, ends) = Session::of(options)?.token().await?;
    let credential = json!({
        "apiVersion": "client.authentication.k8s.io/v1", "kind": "ExecCredential",
        "status": {"token": token, "expirationTimestamp": ends.to_string()},
    });
    out::write(&format!("{credential}\n"))
}

async fn ask(
    controller: &Controller,
    group: &str,
    plural: &str,
    review: &Value,
    what: &str,
) -> anyhow::Result<Value> {
    let request = Request::post(format!("/apis/{group}/v1/{plural}"))
        .header(CONTENT_TYPE, "application/json")
        .body(serde_json::to_vec(review)?)?;
    controller.read(request, what).await
}
