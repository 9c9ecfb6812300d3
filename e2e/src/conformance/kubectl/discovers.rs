//! What is served, who serves it, and who asks.

use anyhow::{Context as _, ensure};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use super::{Tool, says};
use crate::conformance::{Client, NotRun};

pub(super) async fn run(client: &Client, tool: &Tool) {
    client.case("version", version(tool)).await;
    client.case("discovery", api_resources(tool)).await;
    client.case("api-versions", api_versions(tool)).await;
    client.case("cluster-info", cluster_info(tool)).await;
    client.case("explain", explain(tool)).await;
    client.case("get --raw", raw(tool)).await;
    client.case("proxy", proxy(tool)).await;
    client.case("whoami", whoami(tool)).await;
    client.case("auth can-i", can_i(tool)).await;
    client.case("roles and bindings", roles(tool)).await;
    client.case("service accounts", service_account(tool)).await;
    client.case("create token", create_token(tool)).await;
}

async fn version(tool: &Tool) -> anyhow::Result<()> {
    let said = tool.run(["version"]).await?;
    says(&said, &["+gantry"])
}

async fn api_resources(tool: &Tool) -> anyhow::Result<()> {
    let said = tool.run(["api-resources", "-o", "wide"]).await?;
    says(
        &said,
        &[
            "dockerinstances",
            "di ",
            "gantry.dev/v1alpha1",
            "leases",
            "configmaps",
            "cm ",
            "serviceaccounts",
            "sa ",
            "deletecollection",
        ],
    )?;
    let said = tool.run(["api-resources", "--namespaced=false", "-o", "name"]).await?;
    let served: Vec<&str> = said.lines().map(str::trim).collect();
    for name in
        ["namespaces", "clusterroles.rbac.authorization.k8s.io", "subjectaccessreviews.authorization.k8s.io"]
    {
        ensure!(served.contains(&name), "{name} is not among {said}");
    }
    ensure!(!said.contains("secrets") && !said.contains("dockerinstances"), "{said}");
    let said = tool.run(["api-resources", "--api-group=gantry.dev", "-o", "name"]).await?;
    let served: Vec<&str> = said.lines().map(str::trim).collect();
    let wanted = ["clusterpolicies", "dockerinstances", "operations", "policies", "registries"];
    ensure!(served == wanted.map(|plural| format!("{plural}.gantry.dev")), "{said}");
    Ok(())
}

async fn api_versions(tool: &Tool) -> anyhow::Result<()> {
    let said = tool.run(["api-versions"]).await?;
    says(&said, &["coordination.k8s.io/v1", "gantry.dev/v1alpha1", "v1"])
}

/// It lists Services of the cluster's own, which nobody has here.
async fn cluster_info(tool: &Tool) -> anyhow::Result<()> {
    match tool.run(["cluster-info"]).await {
        Ok(said) => says(&said, &["is running at"]),
        Err(error) => {
            says(&error.to_string(), &["the server doesn't have a resource type \"services\""])?;
            Err(NotRun("Services are deliberately not served".to_owned()).into())
        }
    }
}

async fn explain(tool: &Tool) -> anyhow::Result<()> {
    says(&tool.run(["explain", "operation.spec.startDeadlineSeconds"]).await?, &["Friday"])?;
    says(
        &tool.run(["explain", "di", "--recursive"]).await?,
        &["displayName", "healthCheck", "intervalSeconds"],
    )?;
    says(&tool.run(["explain", "cm.binaryData"]).await?, &["BinaryData contains the binary data"])?;
    says(&tool.run(["explain", "lease.spec"]).await?, &["holderIdentity"])?;
    says(&tool.refused(["explain", "di.spec.nothing"]).await?, &["nothing"])
}

async fn raw(tool: &Tool) -> anyhow::Result<()> {
    ensure!(tool.run(["get", "--raw", "/readyz"]).await? == "ok");
    says(&tool.run(["get", "--raw", "/livez?verbose"]).await?, &["[+]ping ok"])?;
    says(&tool.run(["get", "--raw", "/metrics"]).await?, &["gantry_request_duration_seconds"])?;
    let path = format!("/api/v1/namespaces/{}/configmaps", tool.namespace);
    let body = r#"{"metadata":{"name":"raw"},"data":{"k":"v"}}"#;
    says(&tool.feed(["create", "--raw", &path, "-f", "-"], body).await?, &["\"uid\""])?;
    says(&tool.run(["delete", "--raw", &format!("{path}/raw")]).await?, &["Success"])?;
    says(
        &tool.refused(["get", "--raw", "/nowhere"]).await?,
        &["the server could not find the requested resource"],
    )
}

async fn proxy(tool: &Tool) -> anyhow::Result<()> {
    let port = crate::free_port()?.to_string();
    let log = tool.dir.join("proxy.log");
    let _proxy = tool.kubectl.follow(["proxy", "--port", &port], &log)?;
    let server = format!("--server=http://127.0.0.1:{port}");
    crate::eventually("the proxy", std::time::Duration::from_secs(10), async || {
        says(&tool.run([&server, "get", "ns", &tool.namespace]).await?, &["Active"])
    })
    .await
}

async fn whoami(tool: &Tool) -> anyhow::Result<()> {
    // 1.27 asks for a version of before it was released.
    tool.since(28, "auth whoami")?;
    says(&tool.run(["auth", "whoami"]).await?, &["gantry-admin", "system:masters"])?;
    let said = tool.run(["auth", "whoami", "--as=ada", "--as-group=ops"]).await?;
    says(&said, &["ada", "ops", "system:authenticated"])?;
    ensure!(!said.contains("system:masters"), "{said}");
    Ok(())
}

async fn can_i(tool: &Tool) -> anyhow::Result<()> {
    says(&tool.run(["auth", "can-i", "create", "operations.gantry.dev"]).await?, &["yes"])?;
    says(&tool.run(["auth", "can-i", "--list"]).await?, &["*.*", "[*]"])?;
    // Nobody is bound under this name, also not by the kubectl of another version at the same time.
    says(&tool.refused(["auth", "can-i", "get", "secrets", "--as=mallory"]).await?, &["no"])?;
    says(&tool.refused(["auth", "can-i", "get", "/metrics", "--as=mallory"]).await?, &["no"])
}

async fn roles(tool: &Tool) -> anyhow::Result<()> {
    tool.run([
        "create",
        "role",
        "reader",
        "--verb=get,list",
        "--resource=configmaps,operations.gantry.dev/status",
    ])
    .await?;
    tool.run(["create", "rolebinding", "readers", "--role=reader", "--user=ada", "--group=ops"]).await?;
    let cluster = format!("metrics-{}", tool.minor);
    tool.run(["create", "clusterrole", &cluster, "--verb=get", "--non-resource-url=/metrics"]).await?;
    tool.run(["create", "clusterrolebinding", &cluster, "--clusterrole", &cluster, "--user=ada"]).await?;
    says(
        &tool.run(["get", "role,rolebinding", "-o", "wide"]).await?,
        &["CREATED AT", "Role/reader", "ada", "ops"],
    )?;
    says(&tool.run(["describe", "role", "reader"]).await?, &["operations.gantry.dev/status", "[get list]"])?;
    says(&tool.run(["describe", "rolebinding", "readers"]).await?, &["ada", "ops"])?;
    says(&tool.run(["auth", "can-i", "--list", "--as=ada"]).await?, &["configmaps", "/metrics"])?;
    says(&tool.run(["auth", "can-i", "list", "configmaps", "--as=eve", "--as-group=ops"]).await?, &["yes"])?;
    says(&tool.run(["get", "cm", "--as=ada", "-o", "name"]).await?, &[])?;
    says(&tool.refused(["get", "secrets", "--as=ada"]).await?, &["User \"ada\" cannot list"])?;
    let more = ["create", "role", "more", "--verb=delete", "--resource=secrets", "--as=ada"];
    says(&tool.refused(more).await?, &["cannot create resource \"roles\""])?;
    tool.run(["delete", "clusterrolebinding,clusterrole", &cluster]).await?;
    tool.run(["delete", "rolebinding/readers", "role/reader"]).await?;
    says(&tool.refused(["auth", "can-i", "list", "configmaps", "--as=ada"]).await?, &["no"])
}

async fn service_account(tool: &Tool) -> anyhow::Result<()> {
    tool.run(["create", "serviceaccount", "clerk"]).await?;
    says(&tool.run(["get", "sa"]).await?, &["NAME", "SECRETS", "AGE", "clerk"])?;
    says(&tool.run(["describe", "sa", "clerk"]).await?, &["clerk", &tool.namespace])?;
    let pulls = r#"{"imagePullSecrets":[{"name":"pull"}]}"#;
    tool.run(["patch", "sa", "clerk", "-p", pulls]).await?;
    ensure!(tool.value("sa/clerk", "{.imagePullSecrets[0].name}").await? == "pull");
    tool.run(["delete", "sa", "clerk"]).await?;
    Ok(())
}

async fn create_token(tool: &Tool) -> anyhow::Result<()> {
    tool.since(24, "create token")?;
    tool.run(["create", "serviceaccount", "bot"]).await?;
    tool.run(["create", "secret", "generic", "bot-key"]).await?;
    let bound = [
        "create",
        "token",
        "bot",
        "--duration=20m",
        "--audience=vault",
        "--bound-object-kind=Secret",
        "--bound-object-name=bot-key",
    ];
    let claims = claims(&tool.run(bound).await?)?;
    ensure!(claims["aud"] == serde_json::json!(["vault"]), "{claims}");
    ensure!(claims["exp"].as_i64().zip(claims["iat"].as_i64()).is_some_and(|(exp, iat)| exp - iat == 1_200));
    ensure!(claims["kubernetes.io"]["secret"]["name"] == "bot-key", "{claims}");
    let said = tool.refused(["create", "token", "bot", "--duration=1m"]).await?;
    says(&said, &["may not specify a duration less than 10 minutes"])?;
    says(&tool.refused(["create", "token", "nobody"]).await?, &["serviceaccounts \"nobody\" not found"])?;

    let token = tool.run(["create", "token", "bot"]).await?;
    let path = format!("/api/v1/namespaces/{}/configmaps", tool.namespace);
    let show = ["get", "--raw", &path, "--token", token.trim()];
    let who = format!("User \"system:serviceaccount:{}:bot\" cannot list", tool.namespace);
    says(&tool.refused(show).await?, &[&who])?;
    tool.run(["delete", "sa", "bot"]).await?;
    says(&tool.refused(show).await?, &["nauthorized"])
}

/// What a token says, unverified.
fn claims(token: &str) -> anyhow::Result<serde_json::Value> {
    let claims = token.split('.').nth(1).context("a token has three parts")?;
    Ok(serde_json::from_slice(&URL_SAFE_NO_PAD.decode(claims)?)?)
}
