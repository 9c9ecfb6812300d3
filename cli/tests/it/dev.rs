use nix::sys::signal::{Signal, kill};

use crate::world::{World, eventually};

#[tokio::test]
async fn dev_starts_the_controller_then_the_agent_and_stops_them_the_other_way_round() {
    let world = World::new().await;
    let mut dev = world.dev().await;
    eventually("both wrote to the log", || {
        let log = world.log();
        log.contains("controller | gantry-controller speaks")
            && log.contains("agent      | gantry-agent speaks")
    })
    .await;

    dev.signal(Signal::SIGINT);
    assert!(dev.ended().await.success());

    let words: Vec<_> =
        world.notes().iter().map(|note| note.split(' ').take(2).collect::<Vec<_>>().join(" ")).collect();
    assert_eq!(
        words,
        ["gantry-controller start", "gantry-agent start", "gantry-agent stop", "gantry-controller stop"]
    );
    assert!(!world.log().contains('\x1b'), "a log in a file has no colours");
    assert!(dev.said[0].starts_with("kubectl:") && dev.said[0].contains("data/kubeconfig"), "{:?}", dev.said);
}

#[tokio::test]
async fn a_token_is_made_only_while_this_host_has_no_valid_certificate_of_an_instance_that_is_there() {
    let world = World::new().await;
    let mut dev = world.dev().await;
    eventually("the agent was started", || world.notes().len() == 2).await;
    dev.signal(Signal::SIGTERM);
    dev.ended().await;
    let first = world.notes()[1].clone();
    assert!(first.contains("--ca-hash sha256:") && first.contains("--instance here"), "{first}");
    assert!(!first.contains("token=none"), "{first}");
    assert_eq!(world.created().len(), 1);

    std::fs::create_dir_all(world.data().join("agent")).expect("made");
    let key = rcgen::KeyPair::generate().expect("a key");
    let mut params = rcgen::CertificateParams::default();
    let uri = "gantry://instance/6f1c2a38".try_into().expect("a URI");
    params.subject_alt_names = vec![rcgen::SanType::URI(uri)];
    let certificate = params.self_signed(&key).expect("signed").pem();
    *world.instance.lock().expect("unpoisoned") = "6f1c2a38".to_owned();
    std::fs::write(world.data().join("agent/certificate.pem"), certificate).expect("written");
    let mut dev = world.dev().await;
    eventually("the agent was started again", || world.notes().len() == 6).await;
    dev.signal(Signal::SIGTERM);
    dev.ended().await;

    let notes = world.notes();
    let starts: Vec<_> = notes.iter().filter(|note| note.starts_with("gantry-agent start")).collect();
    assert!(starts[1].starts_with("gantry-agent start token=none"), "{notes:?}");
    assert_eq!(world.created().len(), 1);

    // The instance was deleted, and then there is another one of its name.
    for (number, uid) in [(1, ""), (2, "another")] {
        *world.instance.lock().expect("unpoisoned") = uid.to_owned();
        let mut dev = world.dev().await;
        eventually("the agent was started again", || world.notes().len() == 6 + 4 * number).await;
        dev.signal(Signal::SIGTERM);
        dev.ended().await;
        // The two note their starts in either order.
        let notes = world.notes();
        let started = notes[4 + 4 * number..].iter().find(|note| note.starts_with("gantry-agent start"));
        assert!(started.is_some_and(|started| !started.contains("token=none")), "{notes:#?}");
        assert_eq!(world.created().len(), 1 + number);
    }
}

#[tokio::test]
async fn further_names_of_this_machine_reach_the_controller() {
    let world = World::new().await;
    let data = world.data().display().to_string();
    let names = ["--tls-san", "gantry.example", "--tls-san", "192.0.2.7"];
    let free = ["--listen", "127.0.0.1:0", "--agent-metrics-listen", "127.0.0.1:0"];

    let mut child =
        world.gantry(&["dev", "--data-dir", &data]).args(names).args(free).spawn().expect("started");
    eventually("the controller was started", || !world.notes().is_empty()).await;

    let first = world.notes()[0].clone();
    assert!(first.contains("--tls-san gantry.example --tls-san 192.0.2.7"), "{first}");
    child.kill().await.expect("killed");
}

#[tokio::test]
async fn a_child_that_dies_is_started_again() {
    let world = World::new().await;
    let mut dev = world.dev().await;
    eventually("the agent was started", || world.notes().len() == 2).await;

    kill(world.pid("gantry-agent"), Signal::SIGKILL).expect("killed");
    eventually("the agent was started again", || world.notes().len() == 3).await;
    kill(world.pid("gantry-controller"), Signal::SIGKILL).expect("killed");
    eventually("the controller was started again", || world.notes().len() == 4).await;

    assert!(world.notes()[2].starts_with("gantry-agent start"), "{:?}", world.notes());
    assert!(world.notes()[3].starts_with("gantry-controller start"), "{:?}", world.notes());
    dev.signal(Signal::SIGTERM);
    assert!(dev.ended().await.success());
}

#[tokio::test]
async fn the_children_end_when_dev_is_killed() {
    let world = World::new().await;
    let mut dev = world.dev().await;
    eventually("the agent was started", || world.notes().len() == 2).await;

    dev.signal(Signal::SIGKILL);
    dev.ended().await;

    eventually("both were told to stop", || {
        let notes = world.notes();
        notes.iter().any(|note| note == "gantry-agent stop")
            && notes.iter().any(|note| note == "gantry-controller stop")
    })
    .await;
}

#[tokio::test]
async fn a_second_dev_on_the_same_data_is_refused() {
    let world = World::new().await;
    let mut dev = world.dev().await;
    let data = world.data().display().to_string();

    let second = world.gantry(&["dev", "--data-dir", &data]).output().await.expect("run");

    let error = String::from_utf8(second.stderr).expect("text");
    assert_eq!(second.status.code(), Some(1));
    assert!(error.starts_with("error: another `gantry dev` (process "), "{error}");
    assert!(error.contains("\nhint: stop that one"), "{error}");
    dev.signal(Signal::SIGTERM);
    dev.ended().await;
}

#[tokio::test]
async fn a_controller_that_cannot_start_is_an_error_and_not_a_loop() {
    let world = World::new().await;
    let script = "#!/bin/sh\necho 'no disk' >&2\nexit 3\n";
    std::fs::write(world.dir.path().join("gantry-controller"), script).expect("written");
    let data = world.data().display().to_string();
    let free = ["--listen", "127.0.0.1:0", "--agent-metrics-listen", "127.0.0.1:0"];

    let output = world.gantry(&["dev", "--data-dir", &data]).args(free).output().await.expect("run");

    let error = String::from_utf8(output.stderr).expect("text");
    assert_eq!(output.status.code(), Some(1));
    assert!(error.contains("controller | no disk\n"), "{error}");
    assert!(
        error.contains("error: the controller ended before it was ready: exit status: 3\nhint: "),
        "{error}"
    );
}
