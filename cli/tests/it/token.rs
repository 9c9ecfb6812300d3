use insta::assert_snapshot;

use crate::world::World;

#[tokio::test]
async fn the_token_alone_is_on_standard_output_and_only_its_hash_is_stored() {
    let world = World::new().await;
    let args = ["token", "create", "--uses", "3", "--kubeconfig"];

    let output = world.gantry(&args).arg(world.dir.path().join("kubeconfig")).output().await.expect("run");

    let token = String::from_utf8(output.stdout).expect("text");
    let (id, secret) = token.trim_end().split_once('.').expect("an id, a dot, a secret");
    let stored = world.created().pop().expect("one object");
    assert!(output.status.success());
    assert_eq!((id.len(), secret.len()), (10, 32));
    assert!(stored.contains(&format!("join-token-{id}")), "{stored}");
    assert!(!stored.contains(secret), "{stored}");
}

#[tokio::test]
async fn a_namespace_that_is_not_there_is_named() {
    let world = World::new().await;
    let args = ["token", "create", "-n", "gone", "--kubeconfig"];

    let output = world.gantry(&args).arg(world.dir.path().join("kubeconfig")).output().await.expect("run");

    assert_eq!(output.status.code(), Some(5));
    assert_snapshot!(String::from_utf8_lossy(&output.stderr), @r#"
    error: no token was made in namespace `gone`: namespaces "gone" not found
    hint: is the namespace there? `gantry get namespaces`
    "#);
}

#[tokio::test]
async fn what_is_pasted_on_a_host_has_the_pin_of_the_kubeconfig() {
    let world = World::new().await;
    let args =
        ["agent", "install-command", "--instance", "nuc-03", "--controller", "https://gantry.example:7443"];

    let output = world.gantry(&args).env("KUBECONFIG", world.dir.path().join("kubeconfig")).output().await;

    let text = String::from_utf8(output.expect("run").stdout).expect("text");
    assert!(text.contains("gantry-agent --controller https://gantry.example:7443 --token-file - "), "{text}");
    assert!(text.contains(" --ca-hash sha256:") && text.contains(" --instance nuc-03"), "{text}");
}

#[tokio::test]
async fn without_a_kubeconfig_it_says_how_to_get_one() {
    let world = World::new().await;

    let output = world.gantry(&["token", "create"]).output().await.expect("run");

    let error = String::from_utf8(output.stderr).expect("text");
    assert!(error.contains(".local/share/gantry/kubeconfig"), "{error}");
    assert!(error.contains("hint: start a controller here with `gantry dev`"), "{error}");
}
