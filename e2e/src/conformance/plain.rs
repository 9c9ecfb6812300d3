//! HTTP without a client library: headers, media types, codes and forms that libraries hide.

use std::time::Duration;

use anyhow::{Context as _, ensure};
use http::{Method, Request};
use kube::client::Body;
use serde_json::{Value, json};

use super::Client;
use crate::client::Api;
use crate::controller::Controller;
use crate::rest::{Answer, Rest, config_map};

const TABLE: &str = "application/json;as=Table;v=v1;g=meta.k8s.io";
const LIMIT: usize = 3 << 20;

/// Goes through all cases in that namespace, which is there.
pub async fn run(controller: &Controller, namespace: &str) -> anyhow::Result<Client> {
    let rest = Rest::new(&controller.kubeconfig()).await?;
    let api = Api::of(controller).await?;
    let web = Web {
        rest,
        api,
        maps: format!("/api/v1/namespaces/{namespace}/configmaps"),
        namespace: namespace.to_owned(),
    };
    let client = Client::new("http");
    client.case("discovery", discovery(&web)).await;
    client.case("discovery: aggregated", aggregated(&web)).await;
    client.case("openapi v3", openapi(&web)).await;
    client.case("openapi v2", openapi_v2(&web)).await;
    client.case("get: table", table(&web)).await;
    client.case("get: partial metadata", partial(&web)).await;
    client.case("paging", paging(&web)).await;
    client.case("resourceVersionMatch", version_match(&web)).await;
    client.case("watch", watch(&web)).await;
    client.case("watch: bookmarks", bookmarks(&web)).await;
    client.case("watch: initial events", initial_events(&web)).await;
    client.case("watch: table", watch_table(&web)).await;
    client.case("watch: partial metadata", watch_partial(&web)).await;
    client.case("yaml", yaml(&web)).await;
    client.case("field validation", field_validation(&web)).await;
    client.case("delete: collection", collection(&web)).await;
    client.case("gzip", gzip(&web)).await;
    client.case("405", method_not_allowed(&web)).await;
    client.case("406", not_acceptable(&web)).await;
    client.case("413", too_large(&web)).await;
    client.case("415", unsupported(&web)).await;
    client.case("429", too_many(&web)).await;
    Ok(client)
}

struct Web {
    rest: Rest,
    api: Api,
    maps: String,
    namespace: String,
}

impl Web {
    async fn call(
        &self,
        method: Method,
        path: &str,
        headers: &[(&str, &str)],
        body: impl Into<Vec<u8>>,
    ) -> anyhow::Result<Answer> {
        let request =
            headers.iter().fold(Request::builder().method(method).uri(path), |request, (name, value)| {
                request.header(*name, *value)
            });
        self.rest.ask(request.body(Body::from(body.into()))?).await
    }

    async fn get_as(&self, path: &str, accept: &str) -> anyhow::Result<Answer> {
        let answer = self.call(Method::GET, path, &[("accept", accept)], "").await?;
        ensure!(answer.code == 200, "{path} as {accept}: {answer:?}");
        Ok(answer)
    }

    /// The events of a watch that ends by itself.
    async fn events(&self, query: &str, accept: &str) -> anyhow::Result<(Answer, Vec<Value>)> {
        let answer = self.get_as(&format!("{}?watch=1&timeoutSeconds=1&{query}", self.maps), accept).await?;
        // One line reads as the object that it is.
        let events = match &answer.body {
            Value::String(lines) => lines.lines().map(serde_json::from_str).collect::<Result<_, _>>()?,
            one => vec![one.clone()],
        };
        Ok((answer, events))
    }

    async fn make(&self, name: &str) -> anyhow::Result<Answer> {
        let mut object = config_map(name, "v");
        object["metadata"]["labels"] = json!({"case": name.split('-').next()});
        let made = self.rest.post(&self.maps, &object).await?;
        ensure!(made.code == 201, "{made:?}");
        Ok(made)
    }
}

fn header<'a>(answer: &'a Answer, name: &str) -> &'a str {
    answer.headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default()
}

fn is_status(answer: &Answer, code: u16, reason: &str) -> anyhow::Result<()> {
    ensure!(answer.code == code && answer.body["kind"] == "Status", "{answer:?}");
    ensure!(answer.body["reason"] == reason && answer.body["code"] == code, "{answer:?}");
    ensure!(answer.body["message"].as_str().is_some_and(|message| !message.is_empty()), "{answer:?}");
    Ok(())
}

fn names(list: &Value) -> Vec<&str> {
    let items = list["items"].as_array().into_iter().flatten();
    items.filter_map(|item| item["metadata"]["name"].as_str()).collect()
}

async fn discovery(web: &Web) -> anyhow::Result<()> {
    let groups = web.get_as("/apis", "application/json").await?;
    ensure!(groups.body["kind"] == "APIGroupList", "{groups:?}");
    for group in groups.body["groups"].as_array().into_iter().flatten() {
        let version = group["preferredVersion"]["groupVersion"].as_str().context("no version")?;
        let list = web.rest.get(&format!("/apis/{version}")).await?;
        let resources = list.body["resources"].as_array().with_context(|| format!("{version}: {list:?}"))?;
        for resource in resources {
            ensure!(resource["verbs"].as_array().is_some_and(|verbs| !verbs.is_empty()), "{resource}");
            ensure!(resource["kind"].is_string() && resource["singularName"].is_string(), "{resource}");
        }
    }
    let tag = header(&groups, "etag").to_owned();
    let again = web.call(Method::GET, "/apis", &[("if-none-match", &tag)], "").await?;
    ensure!(again.code == 304, "{again:?}");
    Ok(())
}

async fn aggregated(web: &Web) -> anyhow::Result<()> {
    for version in ["v2", "v2beta1"] {
        let form = format!("application/json;g=apidiscovery.k8s.io;v={version};as=APIGroupDiscoveryList");
        for path in ["/api", "/apis"] {
            let answer = web.get_as(path, &format!("{form},application/json")).await?;
            ensure!(header(&answer, "content-type") == form, "{answer:?}");
            let item = &answer.body["items"][0]["versions"][0];
            ensure!(
                item["freshness"] == "Current" && item["resources"][0]["responseKind"]["kind"].is_string(),
                "{item}"
            );
        }
    }
    Ok(())
}

async fn openapi(web: &Web) -> anyhow::Result<()> {
    let index = web.get_as("/openapi/v3", "application/json").await?;
    let paths = index.body["paths"].as_object().context("no paths")?;
    ensure!(paths.contains_key("api/v1") && paths.contains_key("apis/gantry.dev/v1alpha1"), "{paths:?}");
    for path in paths.values() {
        let url = path["serverRelativeURL"].as_str().context("no address")?;
        let document = web.get_as(url, "application/json").await?;
        ensure!(header(&document, "cache-control").contains("immutable"), "{:?}", document.headers);
        let patches = document.body["paths"]
            .as_object()
            .into_iter()
            .flatten()
            .filter_map(|(_, path)| path.get("patch"));
        for patch in patches {
            let parameters = patch["parameters"].as_array().context("no parameters")?;
            for wanted in ["dryRun", "fieldManager", "fieldValidation"] {
                ensure!(parameters.iter().any(|parameter| parameter["name"] == wanted), "{patch}");
            }
            ensure!(patch["x-kubernetes-group-version-kind"]["kind"].is_string(), "{patch}");
        }
    }
    Ok(())
}

async fn openapi_v2(web: &Web) -> anyhow::Result<()> {
    let document = web.get_as("/openapi/v2", "application/json").await?;
    ensure!(document.body["swagger"] == "2.0", "no swagger");
    let protobuf = "application/com.github.proto-openapi.spec.v2@v1.0+protobuf";
    let answer = web.get_as("/openapi/v2", protobuf).await?;
    ensure!(header(&answer, "content-type").contains("protobuf"), "{:?}", answer.headers);
    Ok(())
}

async fn table(web: &Web) -> anyhow::Result<()> {
    web.make("table-a").await?;
    let answer = web
        .get_as(&format!("{}?labelSelector=case%3Dtable", web.maps), &format!("{TABLE},application/json"))
        .await?;
    ensure!(answer.body["kind"] == "Table" && answer.body["apiVersion"] == "meta.k8s.io/v1", "{answer:?}");
    let column = &answer.body["columnDefinitions"][0];
    ensure!(column["name"] == "Name" && column["format"] == "name", "{column}");
    let row = &answer.body["rows"][0];
    ensure!(row["cells"][0] == "table-a" && row["object"]["kind"] == "PartialObjectMetadata", "{row}");
    let whole = web.get_as(&format!("{}/table-a?includeObject=Object", web.maps), TABLE).await?;
    ensure!(whole.body["rows"][0]["object"]["data"]["value"] == "v", "{whole:?}");
    Ok(())
}

async fn partial(web: &Web) -> anyhow::Result<()> {
    web.make("partial-a").await?;
    let form = |kind: &str| format!("application/json;as={kind};g=meta.k8s.io;v=v1");
    let one = web.get_as(&format!("{}/partial-a", web.maps), &form("PartialObjectMetadata")).await?;
    ensure!(one.body["kind"] == "PartialObjectMetadata" && one.body.get("data").is_none(), "{one:?}");
    let list = web.get_as(&web.maps, &form("PartialObjectMetadataList")).await?;
    ensure!(
        list.body["kind"] == "PartialObjectMetadataList" && names(&list.body).contains(&"partial-a"),
        "{list:?}"
    );
    Ok(())
}

async fn paging(web: &Web) -> anyhow::Result<()> {
    for letter in ["a", "b", "c"] {
        web.make(&format!("page-{letter}")).await?;
    }
    let list = async |query: &str| web.rest.get(&format!("{}?{query}", web.maps)).await;
    let first = list("limit=1&labelSelector=case%3Dpage").await?.body;
    let token = first["metadata"]["continue"].as_str().context("no more")?;
    ensure!(first["metadata"].get("remainingItemCount").is_none(), "a count with a selector: {first}");
    web.make("page-bb").await?;
    let rest = list(&format!("labelSelector=case%3Dpage&continue={token}")).await?.body;
    ensure!([names(&first), names(&rest)].concat() == ["page-a", "page-b", "page-c"], "{first} {rest}");
    ensure!(rest["metadata"]["resourceVersion"] == first["metadata"]["resourceVersion"], "{rest}");
    is_status(&list("continue=nonsense").await?, 400, "BadRequest")?;
    is_status(&list(&format!("continue={token}&resourceVersion=5")).await?, 400, "BadRequest")?;
    let counted = list("limit=1").await?.body;
    ensure!(counted["metadata"]["remainingItemCount"].as_i64() > Some(0), "{counted}");
    Ok(())
}

async fn version_match(web: &Web) -> anyhow::Result<()> {
    let first = web.make("match-a").await?.body;
    let version = first["metadata"]["resourceVersion"].as_str().context("no version")?.to_owned();
    let second = web.make("match-b").await?.body;
    let second = second["metadata"]["resourceVersion"].as_str().context("no version")?.to_owned();
    let list =
        async |query: &str| web.rest.get(&format!("{}?labelSelector=case%3Dmatch&{query}", web.maps)).await;
    let exact = list(&format!("resourceVersion={version}&resourceVersionMatch=Exact")).await?;
    ensure!(names(&exact.body) == ["match-a"], "{exact:?}");
    ensure!(exact.body["metadata"]["resourceVersion"] == version.as_str(), "{exact:?}");
    let newer = list(&format!("resourceVersion={second}&resourceVersionMatch=NotOlderThan")).await?;
    ensure!(names(&newer.body) == ["match-a", "match-b"], "{newer:?}");
    let future = list("resourceVersion=1000000000").await?;
    is_status(&future, 504, "Timeout")?;
    ensure!(future.body["details"]["causes"][0]["reason"] == "ResourceVersionTooLarge", "{future:?}");
    is_status(&list("resourceVersionMatch=Exact").await?, 422, "Invalid")?;
    is_status(&list("resourceVersion=0&resourceVersionMatch=Exact").await?, 422, "Invalid")?;
    is_status(&list("resourceVersion=1&resourceVersionMatch=Roughly").await?, 422, "Invalid")?;
    is_status(&list("resourceVersion=word").await?, 400, "BadRequest")
}

async fn watch(web: &Web) -> anyhow::Result<()> {
    let made = web.make("watch-a").await?.body;
    let version = made["metadata"]["resourceVersion"].as_str().context("no version")?.to_owned();
    web.rest
        .merge(&format!("{}/watch-a", web.maps), &json!({"metadata": {"labels": {"case": null}}}))
        .await?;
    web.make("watch-b").await?;
    web.rest.delete(&format!("{}/watch-b", web.maps), &json!({})).await?;
    let query = format!("resourceVersion={version}&labelSelector=case%3Dwatch");
    let (answer, events) = web.events(&query, "application/json;stream=watch,application/json").await?;
    ensure!(header(&answer, "content-type") == "application/json;stream=watch", "{:?}", answer.headers);
    let seen: Vec<_> = events
        .iter()
        .map(|event| (event["type"].as_str(), event["object"]["metadata"]["name"].as_str()))
        .collect();
    let wanted = [("DELETED", "watch-a"), ("ADDED", "watch-b"), ("DELETED", "watch-b")];
    ensure!(seen == wanted.map(|(kind, name)| (Some(kind), Some(name))), "{events:?}");
    let [_, second, third] = events.as_slice() else { anyhow::bail!("{events:?}") };
    let resumed = second["object"]["metadata"]["resourceVersion"].as_str().context("no version")?;
    let (_, rest) = web
        .events(&format!("resourceVersion={resumed}&labelSelector=case%3Dwatch"), "application/json")
        .await?;
    ensure!(rest == [third.clone()], "{rest:?}");
    Ok(())
}

async fn bookmarks(web: &Web) -> anyhow::Result<()> {
    let (_, events) =
        web.events("allowWatchBookmarks=true&fieldSelector=metadata.name%3Dnone", "application/json").await?;
    let [mark] = events.as_slice() else { anyhow::bail!("{events:?}") };
    ensure!(mark["type"] == "BOOKMARK" && mark["object"]["kind"] == "ConfigMap", "{mark}");
    ensure!(mark["object"]["metadata"]["resourceVersion"].is_string(), "{mark}");
    Ok(())
}

async fn initial_events(web: &Web) -> anyhow::Result<()> {
    web.make("initial-a").await?;
    let query = "sendInitialEvents=true&resourceVersionMatch=NotOlderThan&labelSelector=case%3Dinitial";
    let (_, events) = web.events(&format!("{query}&allowWatchBookmarks=true"), "application/json").await?;
    // The last marks the end of the watch.
    let [first, mark, _] = events.as_slice() else { anyhow::bail!("{events:?}") };
    ensure!(first["type"] == "ADDED" && mark["type"] == "BOOKMARK", "{events:?}");
    ensure!(mark["object"]["metadata"]["annotations"]["k8s.io/initial-events-end"] == "true", "{events:?}");
    let path = format!("{}?watch=1&timeoutSeconds=1&sendInitialEvents=true", web.maps);
    is_status(&web.rest.get(&path).await?, 422, "Invalid")
}

async fn watch_table(web: &Web) -> anyhow::Result<()> {
    web.make("rows-a").await?;
    web.make("rows-b").await?;
    let (_, events) = web.events("labelSelector=case%3Drows", &format!("{TABLE},application/json")).await?;
    let [first, second] = events.as_slice() else { anyhow::bail!("{events:?}") };
    ensure!(first["object"]["kind"] == "Table" && second["object"]["kind"] == "Table", "{events:?}");
    ensure!(first["object"]["columnDefinitions"].is_array(), "{events:?}");
    ensure!(!second["object"]["columnDefinitions"].is_array(), "the columns again: {events:?}");
    ensure!(second["object"]["rows"][0]["cells"][0] == "rows-b", "{events:?}");
    Ok(())
}

async fn watch_partial(web: &Web) -> anyhow::Result<()> {
    web.make("bare-a").await?;
    let form = "application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1";
    let (_, events) = web.events("labelSelector=case%3Dbare&allowWatchBookmarks=1", form).await?;
    let [first, mark] = events.as_slice() else { anyhow::bail!("{events:?}") };
    let kinds = [&first["object"]["kind"], &mark["object"]["kind"]];
    ensure!(kinds == ["PartialObjectMetadata"; 2] && mark["type"] == "BOOKMARK", "{events:?}");
    ensure!(first["object"].get("data").is_none(), "{events:?}");
    Ok(())
}

async fn yaml(web: &Web) -> anyhow::Result<()> {
    let made = web
        .call(
            Method::POST,
            &web.maps,
            &[("content-type", "application/yaml")],
            "metadata: {name: from-yaml}\ndata: {k: v}\n",
        )
        .await?;
    ensure!(made.code == 201 && made.body["data"]["k"] == "v", "{made:?}");
    Ok(())
}

async fn field_validation(web: &Web) -> anyhow::Result<()> {
    let path = format!("/apis/gantry.dev/v1alpha1/namespaces/{}/dockerinstances", web.namespace);
    let json = &[("content-type", "application/json")];
    let body =
        r#"{"metadata":{"name":"validated"},"spec":{"foo":1,"displayName":"a","displayName":"b"},"bar":{}}"#;
    let said = web.call(Method::POST, &format!("{path}?fieldValidation=Strict"), json, body).await?;
    is_status(&said, 400, "BadRequest")?;
    let message = said.body["message"].as_str().unwrap_or_default();
    for part in [
        "strict decoding error: ",
        "unknown field \"spec.foo\"",
        "unknown field \"bar\"",
        "duplicate field \"spec.displayName\"",
    ] {
        ensure!(message.contains(part), "{message}");
    }
    let warned = web.call(Method::POST, &path, json, body).await?;
    let warnings: Vec<_> =
        warned.headers.get_all("warning").iter().filter_map(|value| value.to_str().ok()).collect();
    ensure!(warned.code == 201 && warnings.len() == 3, "{warned:?}");
    ensure!(warnings.contains(&r#"299 - "unknown field \"spec.foo\"""#), "{warnings:?}");
    let patch = json!({"spec": {"foo": 2}}).to_string();
    let merge = &[("content-type", "application/merge-patch+json")];
    let said =
        web.call(Method::PATCH, &format!("{path}/validated?fieldValidation=Strict"), merge, patch).await?;
    ensure!(matches!(said.code, 400 | 422), "{said:?}");
    let said = web.call(Method::POST, &format!("{path}?fieldValidation=Perhaps"), json, body).await?;
    is_status(&said, 422, "Invalid")
}

async fn collection(web: &Web) -> anyhow::Result<()> {
    web.make("all-a").await?;
    web.make("all-b").await?;
    let path = format!("{}?labelSelector=case%3Dall", web.maps);
    let gone = web.rest.delete(&path, &json!({"propagationPolicy": "Background"})).await?;
    ensure!(gone.code == 200, "{gone:?}");
    ensure!(names(&web.rest.get(&path).await?.body).is_empty());
    Ok(())
}

async fn gzip(web: &Web) -> anyhow::Result<()> {
    let mut large = config_map("large", "");
    large["data"]["value"] = "x".repeat(200 << 10).into();
    web.rest.post(&web.maps, &large).await?;
    let packed =
        web.call(Method::GET, &format!("{}/large", web.maps), &[("accept-encoding", "gzip")], "").await?;
    ensure!(header(&packed, "content-encoding") == "gzip", "{:?}", packed.headers);
    let plain = web.rest.get(&format!("{}/large", web.maps)).await?;
    ensure!(
        header(&plain, "content-encoding").is_empty() && plain.body["kind"] == "ConfigMap",
        "{:?}",
        plain.headers
    );
    ensure!(header(&plain, "audit-id").len() == 36, "{:?}", plain.headers);
    Ok(())
}

async fn method_not_allowed(web: &Web) -> anyhow::Result<()> {
    for (method, path) in
        [(Method::PUT, web.maps.as_str()), (Method::POST, "/version"), (Method::DELETE, "/apis")]
    {
        is_status(&web.call(method, path, &[], "{}").await?, 405, "MethodNotAllowed")?;
    }
    Ok(())
}

async fn not_acceptable(web: &Web) -> anyhow::Result<()> {
    for path in [web.maps.as_str(), "/apis", "/api/v1"] {
        for accept in ["text/html", "application/vnd.kubernetes.protobuf"] {
            is_status(&web.call(Method::GET, path, &[("accept", accept)], "").await?, 406, "NotAcceptable")?;
        }
        web.get_as(path, "application/vnd.kubernetes.protobuf, application/json").await?;
    }
    Ok(())
}

async fn too_large(web: &Web) -> anyhow::Result<()> {
    let mut object = config_map("too-large", "");
    object["data"]["value"] = "x".repeat(LIMIT).into();
    is_status(&web.rest.post(&web.maps, &object).await?, 413, "RequestEntityTooLarge")
}

async fn unsupported(web: &Web) -> anyhow::Result<()> {
    let json = config_map("unsupported", "v").to_string();
    let sent = web.call(Method::POST, &web.maps, &[("content-type", "text/plain")], json.clone()).await?;
    is_status(&sent, 415, "UnsupportedMediaType")?;
    web.make("unsupported").await?;
    let path = format!("{}/unsupported", web.maps);
    let sent = web.call(Method::PATCH, &path, &[("content-type", "application/json")], json).await?;
    is_status(&sent, 415, "UnsupportedMediaType")
}

/// Bodies that are announced and do not come, until there is no room for one more.
async fn too_many(web: &Web) -> anyhow::Result<()> {
    const ROOM: usize = 64 << 20;
    let mut waiting = Vec::new();
    for _ in 0..ROOM / LIMIT {
        let mut connection = web.api.connect(None).await?;
        connection.announce("POST", &web.maps, LIMIT).await?;
        waiting.push(connection);
    }
    let mut large = config_map("one-more", "");
    large["data"]["value"] = "x".repeat(LIMIT / 2).into();
    let answer = web.rest.post(&web.maps, &large).await?;
    is_status(&answer, 429, "TooManyRequests")?;
    let is_told =
        answer.number("retry-after").is_some() && answer.body["details"]["retryAfterSeconds"].is_number();
    ensure!(is_told, "{answer:?}");
    drop(waiting);
    crate::eventually("the server to take it", Duration::from_secs(10), async || {
        web.make("afterwards").await.map(drop)
    })
    .await
}
