//! Several installations on one Incus, and what interrupted ones leave.

use std::{process::Command, time::Duration};

use gantry_runtime::{Error, Order, Source, State, incus::Incus};
use serde_json::{Value, json};
use tokio::io::AsyncReadExt as _;

use crate::{
    contract::{Host as _, id, order, state, until, until_within},
    machine::Machine,
    sessions,
};

/// What Incus answers to `curl`, in the machine's project.
fn incus(machine: &Machine, method: &str, path: &str, body: &Value) -> Value {
    let mark = if path.contains('?') { '&' } else { '?' };
    let output = Command::new("curl")
        .args(["--silent", "--max-time", "20", "--request", method, "--unix-socket"])
        .arg(&machine.config.socket)
        .args(["--data", &body.to_string()])
        .arg(format!("http://incus{path}{mark}project={}", machine.config.project))
        .output()
        .expect("curl is there");
    serde_json::from_slice(&output.stdout).expect("Incus answers")
}

pub(crate) async fn two_of_them_do_not_see_each_other(machine: &mut Machine) {
    let other = machine.another().await;
    let order = order(machine, 1);
    let ours = machine.runtime().ensure_running(&order).await.unwrap();
    assert_eq!(other.runtime().list().await.unwrap(), []);
    let theirs = other.runtime().ensure_running(&order).await.unwrap();
    assert_ne!(ours, theirs, "the same id, in two projects");
    other.runtime().ensure_deleted(order.id).await.unwrap();
    let observed = machine.runtime().observe(order.id).await.unwrap().unwrap();
    assert_eq!(observed.state, State::Running);
    let mut stranger = other.config.clone();
    stranger.project.clone_from(&machine.config.project);
    let refused = Incus::open(stranger).await.unwrap_err();
    let said = gantry_model::Chain(&refused).to_string();
    assert!(said.contains("belongs to") && said.contains("state"), "{said}");
    other.clean_up().await;
    let mut nowhere = machine.config.clone();
    nowhere.socket = "/nowhere/incus.socket".into();
    let Err(Error::Denied { missing }) = Incus::open(nowhere).await else { panic!("refused") };
    assert!(missing[0].contains("Incus at /nowhere/incus.socket"), "{missing:?}");
}

pub(crate) async fn an_image_is_handed_over_once(machine: &mut Machine) {
    let count = |machine: &Machine| {
        let images = incus(machine, "GET", "/1.0/images", &Value::Null);
        images["metadata"].as_array().unwrap().len()
    };
    let (one, two) = (order(machine, 1), order(machine, 2));
    let runtime = machine.runtime();
    let (first, second) = tokio::join!(runtime.ensure_created(&one), runtime.ensure_created(&two));
    first.unwrap();
    second.unwrap();
    assert_eq!(count(machine), 1);
    drop(runtime);
    let runtime = machine.restart().await;
    runtime.ensure_created(&order(machine, 3)).await.unwrap();
    assert_eq!(count(machine), 1);
    let tarball = machine.config.images.tarballs.join("busybox/1.tar");
    // Two blocks of zeros more: another image, as its digest says, even if the same is in it with the same
    // times, as when two are unpacked within one second.
    for number in 4..8 {
        let mut bytes = std::fs::read(&tarball).unwrap();
        bytes.extend([0; 1024]);
        std::fs::write(&tarball, bytes).unwrap();
        runtime.ensure_created(&order(machine, number)).await.unwrap();
    }
    assert_eq!(count(machine), 1, "the old one is gone");
}

pub(crate) async fn what_an_interrupted_creation_left_is_made_anew(machine: &mut Machine) {
    let (runtime, order) = (machine.runtime(), order(machine, 1));
    let before = runtime.ensure_running(&order).await.unwrap();
    runtime.ensure_stopped(order.id, Duration::ZERO).await.unwrap();
    let path = format!("/1.0/instances/g-{}", order.id);
    let unmade = json!({"config": {"user.gantry.made": ""}});
    assert_eq!(incus(machine, "PATCH", &path, &unmade)["type"], "sync");
    drop(runtime);
    let runtime = machine.restart().await;
    assert_eq!(runtime.list().await.unwrap(), [], "one that is not whole is not there");
    let running = runtime.ensure_running(&order).await.unwrap();
    assert_ne!(running, before, "its address rests");
    assert_eq!(machine.shell(1, "echo whole").await, "whole");
}

pub(crate) async fn a_container_without_a_place_for_sessions_gets_it_while_it_runs(
    machine: &mut Machine,
) {
    let (runtime, order) = (machine.runtime(), order(machine, 1));
    runtime.ensure_running(&order).await.unwrap();
    machine.settle(order.id).await;
    // As an older Gantry has made and started it.
    let path = format!("/1.0/instances/g-{}", order.id);
    let mut instance = incus(machine, "GET", &path, &Value::Null)["metadata"].clone();
    instance["devices"].as_object_mut().unwrap().remove("session").expect("it has one");
    let begun = incus(machine, "PUT", &path, &instance);
    let wait = format!("{}/wait", begun["operation"].as_str().unwrap());
    assert_eq!(incus(machine, "GET", &wait, &Value::Null)["metadata"]["status_code"], 200);
    std::fs::remove_dir_all(machine.place(1)).unwrap();
    assert_eq!(machine.shell(1, "ls /dev/.gantry").await, "");
    let session = sessions::open(&runtime, 1).await;
    assert_eq!(sessions::printed(&session, 2, "hostname").await, "box-1");
    // Nothing else has changed.
    let now = incus(machine, "GET", &path, &Value::Null)["metadata"]["devices"].clone();
    let mut names: Vec<_> = now.as_object().unwrap().keys().map(String::as_str).collect();
    names.sort_unstable();
    assert_eq!(names, ["eth0", "root", "session", "shares"]);
}

/// What is of archives in the project: copies to be read, and images that came in.
fn of_archives(machine: &Machine) -> Vec<String> {
    let all = incus(machine, "GET", "/1.0/instances", &Value::Null);
    let names = all["metadata"].as_array().unwrap().iter();
    let copies = names.filter_map(|url| url.as_str().filter(|url| url.contains("/e-")));
    let images = incus(machine, "GET", "/1.0/images?recursion=1", &Value::Null);
    let images = images["metadata"].as_array().unwrap().iter();
    let images = images.filter(|image| image["properties"]["gantry.archive"].is_string());
    let images = images.map(|image| image["fingerprint"].to_string());
    copies.map(str::to_owned).chain(images).collect()
}

pub(crate) async fn what_interrupted_archives_left_is_removed(machine: &mut Machine) {
    let (runtime, order) = (machine.runtime(), order(machine, 1));
    runtime.ensure_created(&order).await.unwrap();
    let source = Source::Container(order.id);
    let mut exported = runtime.export(source).await.unwrap();
    exported.read_exact(&mut [0; 512]).await.unwrap();
    assert_eq!(of_archives(machine).len(), 1);
    drop(exported);
    until("it is removed", async || of_archives(machine).is_empty()).await;
    let other = Order { id: id(2), ..order.clone() };
    let exported = runtime.export(source).await.unwrap();
    runtime.ensure_imported(&other, exported).await.unwrap();
    until("nothing is left", async || of_archives(machine).is_empty()).await;

    // As a process that was killed leaves them.
    let copy =
        json!({"name": "e-1", "source": {"type": "copy", "source": format!("g-{}", order.id)}});
    let begun = incus(machine, "POST", "/1.0/instances", &copy);
    let path = format!("{}/wait", begun["operation"].as_str().unwrap());
    assert_eq!(incus(machine, "GET", &path, &Value::Null)["metadata"]["status_code"], 200);
    let images = incus(machine, "GET", "/1.0/images", &Value::Null);
    let path = images["metadata"][0].as_str().unwrap().to_owned();
    let marked = json!({"properties": {"gantry.archive": "1"}});
    assert_eq!(incus(machine, "PATCH", &path, &marked)["type"], "sync");
    assert_eq!(of_archives(machine).len(), 2);
    drop(runtime);
    let runtime = machine.restart().await;
    assert_eq!(of_archives(machine), Vec::<String>::new());
    assert_eq!(runtime.list().await.unwrap().len(), 2);
}

pub(crate) async fn a_container_goes_to_another_kind_of_runtime_and_back(machine: &mut Machine) {
    let there = (machine.runtime(), order(machine, 1));
    crate::embedded::run(async |here| {
        let first = (here.runtime(), order(here, 1));
        let last = (here.runtime(), order(here, 2));
        crate::transfer::all_arrives(&[first, there.clone(), last]).await;
    })
    .await;
}

/// Whether something of this name is in the project.
fn is_there(machine: &Machine, name: &str) -> bool {
    let all = incus(machine, "GET", "/1.0/instances", &Value::Null);
    let mut names = all["metadata"].as_array().unwrap().iter().filter_map(Value::as_str);
    names.any(|url| url.contains(name))
}

/// How long Incus may take to end copies of so many files, which nothing ends before, and to remove them.
const REMOVED: Duration = Duration::from_mins(5);

/// Incus copies so many files for some seconds, and nothing ends it before.
pub(crate) async fn a_copy_that_gives_way_leaves_nothing(machine: &mut Machine) {
    let (runtime, one, two) = (machine.runtime(), order(machine, 1), order(machine, 2));
    let source = Source::Container(one.id);
    runtime.ensure_running(&one).await.unwrap();
    let fill = "mkdir /many; for i in $(seq 50000); do : > /many/$i; done";
    machine.shell(1, fill).await;
    let half = format!("/g-{}", two.id);
    let (copied, stopped) = tokio::join!(runtime.ensure_copied(&two, source), async {
        until("it is being copied", async || is_there(machine, &half)).await;
        runtime.ensure_stopped(one.id, Duration::ZERO).await
    });
    assert!(matches!(copied, Err(Error::GivenUp { .. })), "{copied:?}");
    stopped.unwrap();
    assert_eq!(state(&runtime, one.id).await, Some(State::Stopped));
    assert_eq!(state(&runtime, two.id).await, None);
    until_within(REMOVED, "its half is removed", async || !is_there(machine, &half)).await;

    // The same for an archive; and at once again, however far Incus is with what was given up.
    let (exported, stopped) = tokio::join!(runtime.export(source), async {
        until("it is being kept", async || is_there(machine, "/e-")).await;
        runtime.ensure_stopped(one.id, Duration::ZERO).await
    });
    assert!(matches!(exported, Err(Error::GivenUp { .. })), "{exported:?}");
    stopped.unwrap();
    let (copied, stopped) = tokio::join!(runtime.ensure_copied(&two, source), async {
        until("it is being copied", async || is_there(machine, &half)).await;
        runtime.ensure_stopped(one.id, Duration::ZERO).await
    });
    assert!(matches!(copied, Err(Error::GivenUp { .. })), "{copied:?}");
    stopped.unwrap();
    match runtime.ensure_copied(&two, source).await {
        // It had just ended.
        Ok(()) => {}
        Err(Error::GivenUp { .. }) => {
            until_within(REMOVED, "its half is removed again", async || !is_there(machine, &half))
                .await;
            runtime.ensure_copied(&two, source).await.unwrap();
        }
        Err(error) => panic!("{}", gantry_model::Chain(&error)),
    }
    until_within(REMOVED, "nothing else is left", async || of_archives(machine).is_empty()).await;
    runtime.ensure_running(&two).await.unwrap();
    assert_eq!(machine.shell(2, "ls /many | grep -c .").await, "50000");
}
