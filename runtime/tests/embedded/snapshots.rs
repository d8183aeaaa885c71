//! Snapshots and copies of real containers: what is in them, and what interruptions leave.

use std::{os::unix::fs::PermissionsExt as _, time::Duration};

use gantry_model::SnapshotId;
use gantry_runtime::{Archive, Error, Order, Runtime as _, Source, State};
use rustix::fs::{CWD, FileType, Mode};
use tokio::{io::AsyncReadExt as _, time::timeout};

use crate::{
    contract::{
        Host as _,
        archives::{archive, octets},
        id, order, until,
    },
    machine::Machine,
};

fn snapshot(n: u8) -> SnapshotId {
    SnapshotId::from_bytes([n; 12])
}

pub(crate) async fn what_hides_the_image_is_kept_and_copied(machine: &mut Machine) {
    let (runtime, one, two) = (machine.runtime(), order(machine, 1), order(machine, 2));
    runtime.ensure_running(&one).await.unwrap();
    // A file of the image is removed, a directory of it is replaced.
    machine
        .shell(1, "rm /etc/passwd; rm -r /root; mkdir /root; echo a >/root/a; ln /root/a /root/b")
        .await;
    runtime.ensure_snapshot(one.id, snapshot(1)).await.unwrap();
    machine.shell(1, "echo back >/etc/passwd; rm -r /root").await;
    runtime.ensure_copied(&two, Source::Snapshot(snapshot(1))).await.unwrap();
    runtime.ensure_refilled(one.id, Source::Snapshot(snapshot(1))).await.unwrap();
    for (n, order) in [(1, &one), (2, &two)] {
        runtime.ensure_running(order).await.unwrap();
        let seen = machine.shell(n, "ls -A /etc/passwd /root 2>&1; stat -c %h:%u /root/a").await;
        assert!(seen.contains("/etc/passwd: No such") && seen.ends_with("a\nb\n2:0"), "{seen}");
    }
    let name = machine.shell(2, "cat /etc/hostname").await;
    assert_eq!(name, "box-2", "a copy has a name of its own");
    machine.shell(2, "rm /root/a").await;
    assert_eq!(machine.shell(1, "cat /root/a").await, "a");
}

pub(crate) async fn a_copy_forgets_who_it_was(machine: &mut Machine) {
    let (runtime, one, two) = (machine.runtime(), order(machine, 1), order(machine, 2));
    runtime.ensure_running(&one).await.unwrap();
    machine.shell(1, "echo one >/etc/machine-id").await;
    runtime.ensure_snapshot(one.id, snapshot(1)).await.unwrap();
    runtime.ensure_copied(&two, Source::Container(one.id)).await.unwrap();
    runtime.ensure_running(&two).await.unwrap();
    assert_eq!(machine.shell(2, "cat /etc/machine-id").await, "");
    runtime.ensure_refilled(one.id, Source::Snapshot(snapshot(1))).await.unwrap();
    runtime.ensure_running(&one).await.unwrap();
    assert_eq!(machine.shell(1, "cat /etc/machine-id").await, "one", "its own is no other");
}

/// Cut off after ever longer times; the runtime is replaced as after a crash.
pub(crate) async fn interrupted_snapshots_and_restorations_are_completed(machine: &mut Machine) {
    let order = order(machine, 1);
    let mut cut = 0;
    machine.runtime().ensure_running(&order).await.unwrap();
    for round in 0_u8..5 {
        let limit = Duration::from_millis(u64::from(round) * 20);
        machine.shell(1, &format!("echo {round} >/root/round")).await;
        let runtime = machine.runtime();
        let made = timeout(limit, runtime.ensure_snapshot(order.id, snapshot(round))).await;
        cut += u32::from(made.is_err());
        drop(runtime);
        let runtime = machine.restart().await;
        runtime.ensure_snapshot(order.id, snapshot(round)).await.unwrap();
        let observed = runtime.observe(order.id).await.unwrap().unwrap();
        assert_eq!(observed.state, State::Running, "nobody is left frozen");
        machine.shell(1, "echo changed >/root/round").await;
        let source = Source::Snapshot(snapshot(round));
        let refilled = timeout(limit, runtime.ensure_refilled(order.id, source)).await;
        cut += u32::from(refilled.is_err());
        drop(runtime);
        let runtime = machine.restart().await;
        runtime.ensure_refilled(order.id, source).await.unwrap();
        runtime.ensure_running(&order).await.unwrap();
        assert_eq!(machine.shell(1, "cat /root/round").await, round.to_string());
        let left = std::fs::read_dir(machine.home(1)).unwrap().flatten();
        let left: Vec<_> = left.map(|entry| entry.file_name()).collect();
        assert!(!left.iter().any(|name| name.to_string_lossy().contains("new")), "{left:?}");
    }
    assert!(cut > 0, "at least one was cut off");
}

pub(crate) async fn what_an_interrupted_snapshot_left_is_removed(machine: &mut Machine) {
    let half = machine.config.dir.join("snapshots").join(snapshot(7).to_string());
    let order = order(machine, 1);
    machine.runtime().ensure_created(&order).await.unwrap();
    machine.runtime().ensure_snapshot(order.id, snapshot(1)).await.unwrap();
    let fresh = machine.home(1).join("upper.new/etc");
    for dir in [&half.join("upper/etc"), &half.join("upper.links"), &fresh] {
        std::fs::create_dir_all(dir).unwrap();
    }
    std::fs::remove_dir_all(machine.home(1).join("work")).unwrap();
    assert_eq!(machine.runtime().snapshots().await.unwrap().len(), 1, "half a one is none");
    let runtime = machine.restart().await;
    assert!(!half.exists() && !fresh.exists());
    runtime.ensure_running(&order).await.unwrap();
    assert_eq!(runtime.snapshots().await.unwrap().len(), 1);
}

pub(crate) async fn images_of_snapshots_are_not_removed(machine: &mut Machine) {
    let order = Order { cache: false, ..order(machine, 1) };
    let newer = Order { id: id(2), ..order.clone() };
    let runtime = machine.embedded();
    runtime.ensure_running(&order).await.unwrap();
    runtime.ensure_snapshot(order.id, snapshot(1)).await.unwrap();
    runtime.ensure_deleted(order.id).await.unwrap();
    runtime.ensure_created(&newer).await.unwrap();
    assert_eq!(runtime.prune_images().await.unwrap(), 0, "the snapshot needs the older build");
    runtime.ensure_copied(&order, Source::Snapshot(snapshot(1))).await.unwrap();
    runtime.ensure_running(&order).await.unwrap();
    assert_eq!(machine.shell(1, "echo up").await, "up");
    runtime.ensure_deleted(order.id).await.unwrap();
    runtime.ensure_snapshot_deleted(snapshot(1)).await.unwrap();
    assert_eq!(runtime.prune_images().await.unwrap(), 1);
}

/// With a `runc` that freezes containers only when it is told to.
pub(crate) async fn an_archive_under_way_keeps_no_images_from_being_removed(machine: &mut Machine) {
    let one = order(machine, 1);
    let place = machine.config.dir.join("slow");
    std::fs::create_dir_all(&place).unwrap();
    let [begun, goes_on] = ["begun", "goes-on"].map(|name| place.join(name));
    for pipe in [&begun, &goes_on] {
        let (kind, mode) = (FileType::Fifo, Mode::RUSR | Mode::WUSR);
        rustix::fs::mknodat(CWD, pipe, kind, mode, 0).unwrap();
    }
    let script = format!(
        "#!/bin/sh\ncase \" $* \" in *' pause '*) : >{}; : <{};; esac\nexec {} \"$@\"\n",
        begun.display(),
        goes_on.display(),
        machine.config.runc.display()
    );
    let runc = place.join("runc");
    std::fs::write(&runc, script).unwrap();
    std::fs::set_permissions(&runc, std::fs::Permissions::from_mode(0o755)).unwrap();
    machine.config.runc = runc;
    let runtime = machine.restart().await;
    runtime.ensure_running(&one).await.unwrap();
    let embedded = machine.embedded();
    let (exported, pruned) = tokio::join!(runtime.export(Source::Container(one.id)), async {
        tokio::task::spawn_blocking(move || std::fs::File::open(begun)).await.unwrap().unwrap();
        let pruned = timeout(Duration::from_secs(5), embedded.prune_images()).await;
        let going_on = move || std::fs::File::options().write(true).open(goes_on);
        tokio::task::spawn_blocking(going_on).await.unwrap().unwrap();
        pruned
    });
    assert_eq!(pruned.expect("the copy is not waited for").unwrap(), 0);
    assert!(octets(exported.unwrap()).await.len() > 512);
    assert_eq!(machine.shell(1, "echo up").await, "up");
}

/// Cut off after ever longer times; the runtime is replaced as after a crash.
pub(crate) async fn what_interrupted_archives_left_is_removed(machine: &mut Machine) {
    let (one, two) = (order(machine, 1), order(machine, 2));
    machine.runtime().ensure_running(&one).await.unwrap();
    machine.shell(1, "echo kept >/root/note").await;
    let whole = octets(machine.runtime().export(Source::Container(one.id)).await.unwrap()).await;
    let exports = machine.config.dir.join("exports");
    for round in 0_u8..4 {
        let limit = Duration::from_millis(u64::from(round) * 15);
        let runtime = machine.runtime();
        let exported = timeout(limit, runtime.export(Source::Container(one.id))).await;
        let imported = timeout(limit, runtime.ensure_imported(&two, archive(&whole))).await;
        drop((runtime, exported, imported));
        let runtime = machine.restart().await;
        assert_eq!(std::fs::read_dir(&exports).unwrap().count(), 0, "nothing is left");
        let state = runtime.observe(one.id).await.unwrap().unwrap().state;
        assert_eq!(state, State::Running, "nobody is left frozen");
        runtime.ensure_imported(&two, archive(&whole)).await.unwrap();
        runtime.ensure_running(&two).await.unwrap();
        assert_eq!(machine.shell(2, "cat /root/note").await, "kept");
        runtime.ensure_deleted(two.id).await.unwrap();
    }
    // An archive that nobody reads on is not kept, nor one that is made while nobody looks.
    let mut archive = machine.runtime().export(Source::Container(one.id)).await.unwrap();
    archive.read_exact(&mut [0; 512]).await.unwrap();
    assert_eq!(std::fs::read_dir(&exports).unwrap().count(), 1);
    drop(archive);
    until("it is removed", async || std::fs::read_dir(&exports).unwrap().count() == 0).await;
}

/// A container whose files come from elsewhere keeps its image, of which nothing is seen any more.
pub(crate) async fn nothing_of_the_image_shows_through_an_archive(machine: &mut Machine) {
    let (runtime, one, two) = (machine.runtime(), order(machine, 1), order(machine, 2));
    runtime.ensure_running(&two).await.unwrap();
    machine.shell(2, "rm -r /root /etc/passwd; echo file >/root").await;
    let octets = octets(runtime.export(Source::Container(two.id)).await.unwrap()).await;
    machine.shell(2, "rm /root").await;
    let without = runtime.export(Source::Container(two.id)).await.unwrap();
    let look = "ls -d /etc/passwd /root 2>/dev/null";
    runtime.ensure_running(&one).await.unwrap();
    assert_eq!(machine.shell(1, look).await, "/etc/passwd\n/root");
    runtime.ensure_refilled_from(one.id, archive(&octets)).await.unwrap();
    runtime.ensure_running(&one).await.unwrap();
    assert_eq!(machine.shell(1, &format!("{look}; cat /root")).await, "/root\nfile");
    runtime.ensure_refilled_from(one.id, without).await.unwrap();
    runtime.ensure_running(&one).await.unwrap();
    assert_eq!(machine.shell(1, look).await, "");
    runtime.ensure_snapshot(one.id, snapshot(1)).await.unwrap();
    let again = runtime.export(Source::Snapshot(snapshot(1))).await.unwrap();
    runtime.ensure_refilled_from(two.id, again).await.unwrap();
    runtime.ensure_running(&two).await.unwrap();
    assert_eq!(machine.shell(2, &format!("{look}; stat -c %a /")).await, "755");
}

/// A copy to elsewhere waits for the container's owner.
pub(crate) async fn what_comes_from_elsewhere_is_given_up(machine: &mut Machine) {
    let (runtime, two) = (machine.runtime(), order(machine, 2));
    let (stuck, _open) = tokio::io::duplex(1024);
    let imported = runtime.ensure_imported(&two, Archive::new(stuck));
    let deleted = async {
        until("it begins", async || machine.home(2).exists()).await;
        runtime.ensure_deleted(two.id).await.unwrap();
    };
    let (imported, ()) = tokio::join!(imported, deleted);
    assert!(matches!(imported, Err(Error::GivenUp { .. })), "{imported:?}");
    assert!(!machine.home(2).exists());

    // It ends, too, when nobody waits for it any more.
    let (stuck, _open) = tokio::io::duplex(1024);
    let kept = machine.config.dir.join("snapshots").join(snapshot(1).to_string());
    tokio::select! {
        made = runtime.ensure_snapshot_imported(snapshot(1), Archive::new(stuck)) => {
            panic!("{made:?}")
        }
        () = until("it begins", async || kept.exists()) => {}
    }
    let deleted = timeout(Duration::from_secs(20), runtime.ensure_snapshot_deleted(snapshot(1)));
    deleted.await.expect("nothing holds it").unwrap();
    assert!(!kept.exists());
}
