//! What is wrong is named, and nothing breaks.

use anyhow::ensure;
use gantry_e2e::manifest::operation;
use gantry_e2e::world::World;

#[tokio::test]
async fn t23_bad_manifests_are_refused_with_the_field_and_the_server_goes_on() -> anyhow::Result<()> {
    let world = World::new().await?;
    let kubectl = world.kubectl();
    let cases = [
        (operation("x", "nuc-01", "Explode", "web", ""), "spec.action"),
        (operation("x", "nuc-01", "Stop", "web", "  backoffLimit: -1"), "spec.backoffLimit"),
        (operation("x", "nuc-01", "Stop", "web", "  backoffLimit: 99999999999999999999999"), "backoffLimit"),
        (operation("x", "nuc-01", "Stop", "web", "  surprise: true"), "surprise"),
        (operation("x", "nuc-01", "Rename", "web", ""), "newName"),
        (operation("x", "nuc-01", "Stop", "web", "  parameters: {signal: HUP}"), "signal"),
        (operation("Not_A_Name", "nuc-01", "Stop", "web", ""), "metadata.name"),
        (operation(&"n".repeat(254), "nuc-01", "Stop", "web", ""), "metadata.name"),
        (image("Stop"), "target"),
        ("apiVersion: gantry.dev/v1alpha1\nkind: Operation\nmetadata: {name: x}\n".to_owned(), "spec"),
        (
            "apiVersion: gantry.dev/v1alpha1\nkind: Operation\nmetadata: {name: x}\nspec: 7\n".to_owned(),
            "spec",
        ),
    ];

    for (manifest, word) in &cases {
        let said = kubectl.feed(["create", "-f", "-"], manifest).await?;
        let said = said.expect_err("this must be refused");
        ensure!(said.contains(word), "the refusal of\n{manifest}\ndoes not name {word}: {said}");
    }

    assert_eq!(kubectl.list("op").await?.len(), 0);
    ensure!(kubectl.get_raw("/livez").await?.contains("ok"));
    Ok(())
}

fn image(action: &str) -> String {
    gantry_e2e::manifest::image_operation("x", "nuc-01", action, "demo:1", "")
}

#[tokio::test]
async fn t23_bodies_that_are_too_large_too_deep_or_no_text_are_refused() -> anyhow::Result<()> {
    let world = World::new().await?;
    let path = "/apis/gantry.dev/v1alpha1/namespaces/default/operations";
    let deep = format!("{{\"spec\":{}{}}}", "[".repeat(1_000), "]".repeat(1_000));
    let large = format!("{{\"metadata\":{{\"annotations\":{{\"a\":\"{}\"}}}}}}", "x".repeat(4 << 20));
    let bomb = "a: &a [x,x,x,x,x,x,x,x]\nb: &b [*a,*a,*a,*a,*a,*a,*a,*a]\nc: &c [*b,*b,*b,*b,*b,*b,*b,*b]\n\
        d: &d [*c,*c,*c,*c,*c,*c,*c,*c]\ne: &e [*d,*d,*d,*d,*d,*d,*d,*d]\nf: &f [*e,*e,*e,*e,*e,*e,*e,*e]\n\
        g: &g [*f,*f,*f,*f,*f,*f,*f,*f]\nh: [*g,*g,*g,*g,*g,*g,*g,*g]\n";
    let cases: [(&[u8], &str, u16); 7] = [
        (deep.as_bytes(), "application/json", 400),
        (large.as_bytes(), "application/json", 413),
        (b"{\"metadata\": \xff\xfe}", "application/json", 400),
        (b"{not json", "application/json", 400),
        (b"a: [1, 2", "application/yaml", 400),
        (bomb.as_bytes(), "application/yaml", 400),
        (b"k8s\0", "application/vnd.kubernetes.protobuf", 415),
    ];

    for (body, media_type, status) in cases {
        let file = world.path("body");
        std::fs::write(&file, body)?;
        let mut curl = tokio::process::Command::new("curl");
        curl.args([
            "-sk",
            "-o",
            "/dev/null",
            "-w",
            "%{http_code}",
            "-H",
            &format!("Content-Type: {media_type}"),
            "-H",
        ])
        .arg(format!("Authorization: Bearer {}", world.controller.admin_token()?))
        .args(["--data-binary", &format!("@{}", file.display())])
        .arg(format!("https://{}{path}", world.controller.address()));
        let said = gantry_e2e::process::run(curl).await?;
        assert_eq!(
            said,
            status.to_string(),
            "{media_type}: {}",
            String::from_utf8_lossy(&body[..body.len().min(60)])
        );
    }

    ensure!(world.kubectl().get_raw("/livez").await?.contains("ok"));
    Ok(())
}

#[tokio::test]
async fn t01_who_shows_no_right_reads_nothing() -> anyhow::Result<()> {
    let world = World::new().await?;
    for (header, status) in [("X-Nothing: 1", "401"), ("Authorization: Bearer wrong", "401")] {
        let mut curl = tokio::process::Command::new("curl");
        curl.args(["-sk", "-o", "/dev/null", "-w", "%{http_code}", "-H", header])
            .arg(format!("https://{}/api/v1/namespaces", world.controller.address()));
        assert_eq!(gantry_e2e::process::run(curl).await?, status, "{header}");
    }
    Ok(())
}
