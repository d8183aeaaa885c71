//! What every runtime promises, as functions over the port. Each backend's test file runs them all.

pub(crate) mod archives;
mod hosted;

use std::{collections::BTreeMap, net::IpAddr, pin::pin, sync::Arc, time::Duration};

use bytes::Bytes;
use gantry_model::{ContainerId, SnapshotId, container::ImageName};
use gantry_runtime::{
    Error, Exec, ExecUser, ExitStatus, Firewall, Kit, Limits, Observed, Order, Outbound, PtySize,
    Runtime, SnapshotInfo, Source, State,
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    time::timeout,
};

pub(crate) use archives::{
    an_archive_becomes_a_container_of_its_own, an_archive_needs_a_source_that_exists,
    an_archive_refills_containers_and_becomes_snapshots, of_a_part_of_an_archive_nothing_is_made,
};
pub(crate) use hosted::{
    kvm_is_there_where_it_is_ordered_and_offered_only,
    memory_is_shared_within_a_project_by_who_wants_it,
};

/// Longer than anything here may take.
const BOUND: Duration = Duration::from_secs(20);

/// Every promise, by name; expanded to one test each by the backends.
#[macro_export]
macro_rules! contract {
    ($run:path) => {
        $crate::contract! { $run:
            a_created_container_has_not_run_yet
            running_twice_is_running_once
            a_stopped_container_keeps_its_address
            stopping_what_does_not_run_is_nothing
            a_paused_container_is_thawed_by_running_it
            only_running_containers_can_be_paused
            a_deleted_container_is_gone_and_its_id_is_free
            an_unknown_image_is_refused_for_good
            two_containers_never_share_an_address
            many_callers_at_once_start_one_container
            a_command_sees_its_input_environment_and_directory
            changed_variables_are_those_of_the_next_command
            a_running_container_can_be_given_another_name
            a_command_that_does_not_exist_is_told_from_one_that_fails
            a_command_that_takes_too_long_is_ended
            output_beyond_the_bound_is_dropped
            commands_need_a_running_container
            a_terminal_echoes_resizes_and_ends
            the_end_of_an_init_is_told
            use_is_counted_while_it_runs
            a_snapshot_brings_the_files_back
            a_snapshot_outlives_its_container_and_the_runtime
            a_copy_has_its_sources_files_and_goes_its_own_way
            a_copy_is_refreshed_from_its_source
            copies_need_a_source_that_exists
            memory_is_shared_within_a_project_by_who_wants_it
            kvm_is_there_where_it_is_ordered_and_offered_only
            an_archive_becomes_a_container_of_its_own
            an_archive_refills_containers_and_becomes_snapshots
            of_a_part_of_an_archive_nothing_is_made
            an_archive_needs_a_source_that_exists
            the_next_runtime_finds_what_the_last_one_left
        }
    };
    ($run:path: $($name:ident)*) => { $(
        #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
        async fn $name() {
            $run(async |host| contract::$name(host).await).await;
        }
    )* };
}

/// A backend under test: the runtime, how to make the next one over the same containers, and the
/// image to ask for.
pub(crate) trait Host {
    /// The runtime that lives now.
    fn runtime(&self) -> Arc<dyn Runtime>;
    /// Ends it and makes the next one.
    async fn restart(&mut self) -> Arc<dyn Runtime>;
    /// Waits until a container that was just started has all its processes.
    async fn settle(&self, id: ContainerId);
    /// An image that is there.
    fn image(&self) -> ImageName;
}

/// The id of the n-th container of a test. Each program of tests has its own: those with real containers run
/// beside each other, and a machine's containers are told apart by their ids.
pub(crate) fn id(n: u8) -> ContainerId {
    let mut id = [n; 12];
    id[11] = env!("CARGO_CRATE_NAME").as_bytes()[0];
    ContainerId::from_bytes(id)
}

/// An order for the n-th container of a test.
pub(crate) fn order(host: &impl Host, n: u8) -> Order {
    Order {
        id: id(n),
        hostname: format!("box-{n}"),
        image: host.image(),
        kit: Kit::None,
        cache: true,
        env: BTreeMap::from([("GREETING".to_owned(), "good day".to_owned())]),
        ramdisk: false,
        kvm: false,
        project_ramdisk: None,
        limits: Limits { memory_bytes: 256 << 20, cpu_millis: 1000, pids: 100 },
        firewall: Firewall::default(),
        outbound: Outbound::default(),
    }
}

/// How one container looks from outside.
async fn seen(runtime: &Arc<dyn Runtime>, id: ContainerId) -> Option<Observed> {
    let one = runtime.observe(id).await.unwrap();
    let listed = runtime.list().await.unwrap().into_iter().find(|observed| observed.id == id);
    assert_eq!(one, listed, "observe and list tell the same");
    one
}

pub(crate) async fn state(runtime: &Arc<dyn Runtime>, id: ContainerId) -> Option<State> {
    seen(runtime, id).await.map(|observed| observed.state)
}

pub(crate) async fn a_created_container_has_not_run_yet(host: &mut impl Host) {
    let (runtime, order) = (host.runtime(), order(host, 1));
    assert_eq!(seen(&runtime, order.id).await, None);
    runtime.ensure_created(&order).await.unwrap();
    runtime.ensure_created(&order).await.unwrap();
    assert_eq!(state(&runtime, order.id).await, Some(State::Created));
}

pub(crate) async fn running_twice_is_running_once(host: &mut impl Host) {
    let (runtime, order) = (host.runtime(), order(host, 1));
    let first = runtime.ensure_running(&order).await.unwrap();
    let second = runtime.ensure_running(&order).await.unwrap();
    assert_eq!(first, second);
    let want = Observed { id: order.id, state: State::Running, address: Some(first.address) };
    assert_eq!(seen(&runtime, order.id).await, Some(want));
}

pub(crate) async fn a_stopped_container_keeps_its_address(host: &mut impl Host) {
    let (runtime, order) = (host.runtime(), order(host, 1));
    let first = runtime.ensure_running(&order).await.unwrap();
    runtime.ensure_stopped(order.id, Duration::ZERO).await.unwrap();
    assert_eq!(state(&runtime, order.id).await, Some(State::Stopped));
    let second = runtime.ensure_running(&order).await.unwrap();
    assert_eq!(first, second);
    runtime.ensure_stopped(order.id, Duration::from_secs(5)).await.unwrap();
    assert_eq!(state(&runtime, order.id).await, Some(State::Stopped));
}

pub(crate) async fn stopping_what_does_not_run_is_nothing(host: &mut impl Host) {
    let (runtime, order) = (host.runtime(), order(host, 1));
    runtime.ensure_stopped(order.id, Duration::ZERO).await.unwrap();
    assert_eq!(state(&runtime, order.id).await, None);
    runtime.ensure_created(&order).await.unwrap();
    runtime.ensure_stopped(order.id, Duration::ZERO).await.unwrap();
    assert_eq!(state(&runtime, order.id).await, Some(State::Created));
}

pub(crate) async fn a_paused_container_is_thawed_by_running_it(host: &mut impl Host) {
    let (runtime, order) = (host.runtime(), order(host, 1));
    runtime.ensure_running(&order).await.unwrap();
    runtime.ensure_paused(order.id).await.unwrap();
    runtime.ensure_paused(order.id).await.unwrap();
    assert_eq!(state(&runtime, order.id).await, Some(State::Paused));
    runtime.ensure_resumed(order.id).await.unwrap();
    runtime.ensure_resumed(order.id).await.unwrap();
    assert_eq!(state(&runtime, order.id).await, Some(State::Running));
    runtime.ensure_paused(order.id).await.unwrap();
    runtime.ensure_running(&order).await.unwrap();
    assert_eq!(state(&runtime, order.id).await, Some(State::Running));
    runtime.ensure_paused(order.id).await.unwrap();
    runtime.ensure_stopped(order.id, Duration::from_secs(5)).await.unwrap();
    assert_eq!(state(&runtime, order.id).await, Some(State::Stopped), "a frozen one stops, too");
}

pub(crate) async fn only_running_containers_can_be_paused(host: &mut impl Host) {
    let (runtime, order) = (host.runtime(), order(host, 1));
    let missing = runtime.ensure_paused(order.id).await;
    assert!(matches!(missing, Err(Error::NotFound { .. })), "{missing:?}");
    runtime.ensure_created(&order).await.unwrap();
    for refused in [runtime.ensure_paused(order.id).await, runtime.ensure_resumed(order.id).await] {
        assert!(matches!(refused, Err(Error::NotRunning { .. })), "{refused:?}");
    }
}

pub(crate) async fn a_deleted_container_is_gone_and_its_id_is_free(host: &mut impl Host) {
    let (runtime, order) = (host.runtime(), order(host, 1));
    runtime.ensure_deleted(order.id).await.unwrap();
    runtime.ensure_running(&order).await.unwrap();
    runtime.ensure_deleted(order.id).await.unwrap();
    assert_eq!(state(&runtime, order.id).await, None);
    runtime.ensure_deleted(order.id).await.unwrap();
    runtime.ensure_running(&order).await.unwrap();
    runtime.ensure_paused(order.id).await.unwrap();
    runtime.ensure_deleted(order.id).await.unwrap();
    assert_eq!(state(&runtime, order.id).await, None, "a frozen one goes, too");
}

pub(crate) async fn an_unknown_image_is_refused_for_good(host: &mut impl Host) {
    let runtime = host.runtime();
    let image = ImageName::parse("image", "plan9/4").unwrap();
    let order = Order { image, ..order(host, 1) };
    let refused = runtime.ensure_created(&order).await.unwrap_err();
    assert!(matches!(&refused, Error::UnknownImage { name } if name == "plan9/4"), "{refused:?}");
    assert!(!refused.is_retryable());
    assert_eq!(state(&runtime, order.id).await, None);
    assert!(runtime.images().await.unwrap().iter().any(|image| image.name == host.image()));
}

pub(crate) async fn two_containers_never_share_an_address(host: &mut impl Host) {
    let runtime = host.runtime();
    let (one, two) = (order(host, 1), order(host, 2));
    let (first, second) = tokio::join!(runtime.ensure_running(&one), runtime.ensure_running(&two));
    let (first, second) = (first.unwrap().address, second.unwrap().address);
    assert_ne!(first, second);
    runtime.ensure_deleted(one.id).await.unwrap();
    let three = runtime.ensure_running(&order(host, 3)).await.unwrap().address;
    assert!(![first, second].contains(&three), "a freed address rests before it is used again");
}

pub(crate) async fn many_callers_at_once_start_one_container(host: &mut impl Host) {
    let (runtime, order) = (host.runtime(), order(host, 1));
    let calls = (0..8).map(|_| runtime.ensure_running(&order));
    let addresses: Vec<IpAddr> = futures_util::future::join_all(calls)
        .await
        .into_iter()
        .map(|r| r.unwrap().address)
        .collect();
    assert!(addresses.iter().all(|address| *address == addresses[0]), "{addresses:?}");
    assert_eq!(runtime.list().await.unwrap().len(), 1);
}

pub(crate) async fn a_command_sees_its_input_environment_and_directory(host: &mut impl Host) {
    let (runtime, order) = (host.runtime(), order(host, 1));
    runtime.ensure_running(&order).await.unwrap();
    let input = Exec { stdin: Bytes::from_static(b"through\n"), ..Exec::new(["cat"]) };
    let extra = BTreeMap::from([("EXTRA".to_owned(), "more".to_owned())]);
    let user = ExecUser { uid: 1000, gid: 1000 };
    for (command, want) in [
        (Exec::new(["echo", "hello", "there"]), "hello there\n"),
        (input, "through\n"),
        (Exec::new(["printenv", "GREETING"]), "good day\n"),
        (Exec { env: extra, ..Exec::new(["printenv", "EXTRA"]) }, "more\n"),
        (Exec { cwd: "/etc".to_owned(), ..Exec::new(["pwd"]) }, "/etc\n"),
        (Exec::new(["id", "-u"]), "0\n"),
        (Exec { user, ..Exec::new(["id", "-u"]) }, "1000\n"),
    ] {
        let output = runtime.exec(order.id, &command).await.unwrap();
        assert_eq!(output.stdout, want, "{command:?} {output:?}");
        assert!(output.status.success() && !output.truncated, "{command:?} {output:?}");
    }
}

pub(crate) async fn changed_variables_are_those_of_the_next_command(host: &mut impl Host) {
    let (runtime, mut order) = (host.runtime(), order(host, 1));
    let verse = "one\nlxc.hook.start = two";
    order.env.insert("VERSE".to_owned(), verse.to_owned());
    let env = BTreeMap::from([("COLOUR".to_owned(), "green\r\nand blue".to_owned())]);
    runtime.ensure_environment(order.id, &env).await.unwrap();
    assert_eq!(seen(&runtime, order.id).await, None, "it is not made by that");
    runtime.ensure_running(&order).await.unwrap();
    let variable = async |runtime: &Arc<dyn Runtime>, name| {
        let output = runtime.exec(order.id, &Exec::new(["printenv", name])).await.unwrap();
        // Some say nothing about what is not there, others an empty line.
        String::from_utf8(output.stdout.trim_ascii().to_vec()).unwrap()
    };
    assert_eq!(variable(&runtime, "VERSE").await, verse);
    runtime.ensure_environment(order.id, &env).await.unwrap();
    assert_eq!(variable(&runtime, "COLOUR").await, "green\r\nand blue");
    assert_eq!(variable(&runtime, "GREETING").await, "");
    assert_eq!(variable(&runtime, "VERSE").await, "");
    drop(runtime);
    let runtime = host.restart().await;
    let colour = variable(&runtime, "COLOUR").await;
    assert_eq!(colour, "green\r\nand blue", "the next runtime knows it");
    runtime.ensure_stopped(order.id, Duration::ZERO).await.unwrap();
    runtime.ensure_environment(order.id, &env).await.unwrap();
    runtime.ensure_running(&order).await.unwrap();
    assert_eq!(variable(&runtime, "GREETING").await, "good day", "a start has what its order says");
    assert_eq!(variable(&runtime, "VERSE").await, verse);
}

pub(crate) async fn a_running_container_can_be_given_another_name(host: &mut impl Host) {
    let (runtime, order) = (host.runtime(), order(host, 1));
    runtime.ensure_hostname(order.id, "early").await.unwrap();
    assert_eq!(seen(&runtime, order.id).await, None, "it is not made by that");
    runtime.ensure_running(&order).await.unwrap();
    for name in ["claimed", "claimed", "again"] {
        runtime.ensure_hostname(order.id, name).await.unwrap();
        let output = runtime.exec(order.id, &Exec::new(["uname", "-n"])).await.unwrap();
        assert_eq!(output.stdout, format!("{name}\n"), "{output:?}");
    }
}

pub(crate) async fn a_command_that_does_not_exist_is_told_from_one_that_fails(
    host: &mut impl Host,
) {
    let (runtime, order) = (host.runtime(), order(host, 1));
    runtime.ensure_running(&order).await.unwrap();
    let failed = runtime.exec(order.id, &Exec::new(["false"])).await.unwrap();
    assert_eq!(failed.status, ExitStatus::Code(1));
    let missing = runtime.exec(order.id, &Exec::new(["no-such-program"])).await;
    assert!(matches!(missing, Err(Error::Command { .. })), "{missing:?}");
    let nothing = runtime.exec(order.id, &Exec::new(Vec::<String>::new())).await;
    assert!(matches!(nothing, Err(Error::Command { .. })), "{nothing:?}");
}

pub(crate) async fn a_command_that_takes_too_long_is_ended(host: &mut impl Host) {
    let (runtime, order) = (host.runtime(), order(host, 1));
    runtime.ensure_running(&order).await.unwrap();
    host.settle(order.id).await;
    let before = runtime.stats(order.id).await.unwrap().pids;
    let command = Exec { timeout: Duration::from_millis(300), ..Exec::new(["sleep", "1000"]) };
    let late = timeout(BOUND, runtime.exec(order.id, &command)).await.expect("it returns");
    assert!(matches!(late, Err(Error::Timeout { .. })), "{late:?}");
    until("the command is gone", async || runtime.stats(order.id).await.unwrap().pids == before)
        .await;
}

pub(crate) async fn output_beyond_the_bound_is_dropped(host: &mut impl Host) {
    let (runtime, order) = (host.runtime(), order(host, 1));
    runtime.ensure_running(&order).await.unwrap();
    let stdin = Bytes::from(vec![b'x'; 300_000]);
    let command = Exec { stdin, output_max: 1000, ..Exec::new(["cat"]) };
    let output = timeout(BOUND, runtime.exec(order.id, &command)).await.unwrap().unwrap();
    assert_eq!(output.stdout.len(), 1000);
    assert!(output.truncated && output.status.success());
}

pub(crate) async fn commands_need_a_running_container(host: &mut impl Host) {
    let (runtime, order) = (host.runtime(), order(host, 1));
    let command = Exec::new(["true"]);
    let missing = runtime.exec(order.id, &command).await;
    assert!(matches!(missing, Err(Error::NotFound { .. })), "{missing:?}");
    runtime.ensure_running(&order).await.unwrap();
    runtime.ensure_paused(order.id).await.unwrap();
    let frozen = runtime.exec(order.id, &command).await;
    assert!(matches!(frozen, Err(Error::NotRunning { .. })), "{frozen:?}");
    runtime.ensure_stopped(order.id, Duration::ZERO).await.unwrap();
    let size = PtySize { columns: 80, rows: 24 };
    let stopped = runtime.exec(order.id, &command).await;
    assert!(matches!(stopped, Err(Error::NotRunning { .. })), "{stopped:?}");
    let stopped = runtime.attach(order.id, &command, size).await;
    assert!(matches!(stopped, Err(Error::NotRunning { .. })), "{stopped:?}");
}

pub(crate) async fn a_terminal_echoes_resizes_and_ends(host: &mut impl Host) {
    let (runtime, order) = (host.runtime(), order(host, 1));
    runtime.ensure_running(&order).await.unwrap();
    let size = PtySize { columns: 80, rows: 24 };
    let mut pty = runtime.attach(order.id, &Exec::new(["cat"]), size).await.unwrap();
    pty.write_all(b"typed\n").await.unwrap();
    let mut shown = Vec::new();
    while !String::from_utf8_lossy(&shown).contains("typed") {
        let mut part = [0; 64];
        let read = timeout(BOUND, pty.read(&mut part)).await.expect("an echo").unwrap();
        assert_ne!(read, 0, "the terminal stays open");
        shown.extend_from_slice(&part[..read]);
    }
    pty.resize(PtySize { columns: 132, rows: 50 }).unwrap();
    pty.write_all(b"\x04").await.unwrap();
    let mut rest = Vec::new();
    timeout(BOUND, pty.read_to_end(&mut rest)).await.expect("the terminal ends").unwrap();
    assert_eq!(timeout(BOUND, pty.wait()).await.unwrap(), Some(ExitStatus::Code(0)));
}

pub(crate) async fn the_end_of_an_init_is_told(host: &mut impl Host) {
    let (runtime, order) = (host.runtime(), order(host, 1));
    let mut exits = runtime.exits();
    runtime.ensure_running(&order).await.unwrap();
    runtime.ensure_stopped(order.id, Duration::ZERO).await.unwrap();
    assert_eq!(timeout(BOUND, exits.recv()).await.expect("a hint").unwrap(), order.id);
}

pub(crate) async fn use_is_counted_while_it_runs(host: &mut impl Host) {
    let (runtime, order) = (host.runtime(), order(host, 1));
    runtime.ensure_created(&order).await.unwrap();
    let idle = runtime.stats(order.id).await;
    assert!(matches!(idle, Err(Error::NotRunning { .. })), "{idle:?}");
    runtime.ensure_running(&order).await.unwrap();
    let stats = runtime.stats(order.id).await.unwrap();
    assert!(stats.cpu_ns > 0 && stats.memory_bytes > 0 && stats.pids > 0, "{stats:?}");
    assert_eq!(stats.memory_limit_bytes, order.limits.memory_bytes);
}

pub(crate) async fn the_next_runtime_finds_what_the_last_one_left(host: &mut impl Host) {
    let runtime = host.runtime();
    let (runs, rests) = (order(host, 1), order(host, 2));
    let before = runtime.ensure_running(&runs).await.unwrap();
    runtime.ensure_created(&rests).await.unwrap();
    let boot = runtime.boot_id().to_owned();
    drop(runtime);
    let runtime = host.restart().await;
    assert_eq!(runtime.boot_id(), boot);
    assert_eq!(state(&runtime, runs.id).await, Some(State::Running));
    assert_eq!(state(&runtime, rests.id).await, Some(State::Created));
    assert_eq!(runtime.ensure_running(&runs).await.unwrap(), before);
    let other = runtime.ensure_running(&rests).await.unwrap();
    assert_ne!(other.address, before.address);
    let mut exits = runtime.exits();
    runtime.ensure_stopped(runs.id, Duration::ZERO).await.unwrap();
    assert_eq!(timeout(BOUND, exits.recv()).await.expect("a hint").unwrap(), runs.id);
}

const NOTE: &str = "/root/note";

/// Writes a file in a running container.
async fn note(runtime: &Arc<dyn Runtime>, id: ContainerId, text: &'static str) {
    let stdin = Bytes::from_static(text.as_bytes());
    let written = runtime.exec(id, &Exec { stdin, ..Exec::new(["tee", NOTE]) }).await.unwrap();
    assert!(written.status.success(), "{written:?}");
}

/// What is in the file; `None` when it is missing.
async fn noted(runtime: &Arc<dyn Runtime>, id: ContainerId) -> Option<Bytes> {
    let read = runtime.exec(id, &Exec::new(["cat", NOTE])).await.unwrap();
    read.status.success().then_some(read.stdout)
}

async fn snapshot_ids(runtime: &Arc<dyn Runtime>) -> Vec<SnapshotId> {
    let mut ids: Vec<_> = runtime.snapshots().await.unwrap().iter().map(|info| info.id).collect();
    ids.sort();
    ids
}

pub(crate) async fn a_snapshot_brings_the_files_back(host: &mut impl Host) {
    let (runtime, order) = (host.runtime(), order(host, 1));
    let [empty, full] = [1, 2].map(|n| SnapshotId::from_bytes([n; 12]));
    let first = runtime.ensure_running(&order).await.unwrap();
    runtime.ensure_snapshot(order.id, empty).await.unwrap();
    note(&runtime, order.id, "one").await;
    let mut making = pin!(runtime.ensure_snapshot(order.id, full));
    let made = loop {
        tokio::select! {
            made = &mut making => break made.unwrap(),
            seen = state(&runtime, order.id) => assert_eq!(seen, Some(State::Running), "not paused"),
        }
    };
    assert_eq!(state(&runtime, order.id).await, Some(State::Running), "it runs on");
    note(&runtime, order.id, "two").await;
    assert_eq!(runtime.ensure_snapshot(order.id, full).await.unwrap(), made, "it stays as it is");
    assert_eq!(snapshot_ids(&runtime).await, [empty, full]);

    for (snapshot, want) in [(full, Some("one")), (empty, None), (full, Some("one"))] {
        runtime.ensure_refilled(order.id, Source::Snapshot(snapshot)).await.unwrap();
        assert_eq!(state(&runtime, order.id).await, Some(State::Stopped));
        runtime.ensure_refilled(order.id, Source::Snapshot(snapshot)).await.unwrap();
        assert_eq!(runtime.ensure_running(&order).await.unwrap(), first, "at its address");
        assert_eq!(noted(&runtime, order.id).await, want.map(Bytes::from));
        note(&runtime, order.id, "three").await;
    }
    assert_eq!(snapshot_ids(&runtime).await, [empty, full], "a restoration uses none up");
}

pub(crate) async fn a_snapshot_outlives_its_container_and_the_runtime(host: &mut impl Host) {
    let (runtime, one, two) = (host.runtime(), order(host, 1), order(host, 2));
    let snapshot = SnapshotId::from_bytes([9; 12]);
    runtime.ensure_running(&one).await.unwrap();
    note(&runtime, one.id, "kept").await;
    runtime.ensure_paused(one.id).await.unwrap();
    let made = runtime.ensure_snapshot(one.id, snapshot).await.unwrap();
    assert_eq!(state(&runtime, one.id).await, Some(State::Paused), "a frozen one stays frozen");
    runtime.ensure_deleted(one.id).await.unwrap();
    drop(runtime);

    let runtime = host.restart().await;
    let want = SnapshotInfo { id: snapshot, ..made };
    assert_eq!(runtime.snapshots().await.unwrap(), [want]);
    assert_eq!(runtime.ensure_snapshot(one.id, snapshot).await.unwrap(), made);
    runtime.ensure_copied(&two, Source::Snapshot(snapshot)).await.unwrap();
    assert_eq!(state(&runtime, two.id).await, Some(State::Created));
    runtime.ensure_running(&two).await.unwrap();
    assert_eq!(noted(&runtime, two.id).await.unwrap(), "kept");
    for _ in 0..2 {
        runtime.ensure_snapshot_deleted(snapshot).await.unwrap();
    }
    assert_eq!(runtime.snapshots().await.unwrap(), []);
    assert_eq!(noted(&runtime, two.id).await.unwrap(), "kept", "a copy is of its own");
}

pub(crate) async fn a_copy_has_its_sources_files_and_goes_its_own_way(host: &mut impl Host) {
    let (runtime, one, two) = (host.runtime(), order(host, 1), order(host, 2));
    let first = runtime.ensure_running(&one).await.unwrap();
    note(&runtime, one.id, "both").await;
    runtime.ensure_copied(&two, Source::Container(one.id)).await.unwrap();
    assert_eq!(state(&runtime, one.id).await, Some(State::Running));
    let second = runtime.ensure_running(&two).await.unwrap();
    assert_ne!(first, second);
    assert_eq!(noted(&runtime, two.id).await.unwrap(), "both");
    note(&runtime, two.id, "mine").await;
    runtime.ensure_copied(&two, Source::Container(one.id)).await.unwrap();
    assert_eq!(noted(&runtime, two.id).await.unwrap(), "mine", "what exists is left as it is");
    assert_eq!(noted(&runtime, one.id).await.unwrap(), "both");
    runtime.ensure_deleted(one.id).await.unwrap();
    assert_eq!(noted(&runtime, two.id).await.unwrap(), "mine");
}

pub(crate) async fn a_copy_is_refreshed_from_its_source(host: &mut impl Host) {
    let (runtime, one, two) = (host.runtime(), order(host, 1), order(host, 2));
    runtime.ensure_running(&one).await.unwrap();
    runtime.ensure_copied(&two, Source::Container(one.id)).await.unwrap();
    runtime.ensure_running(&two).await.unwrap();
    note(&runtime, one.id, "newer").await;
    note(&runtime, two.id, "lost").await;
    runtime.ensure_refilled(two.id, Source::Container(one.id)).await.unwrap();
    runtime.ensure_refilled(one.id, Source::Container(one.id)).await.unwrap();
    assert_eq!(state(&runtime, one.id).await, Some(State::Running), "from itself is nothing");
    assert_eq!(state(&runtime, two.id).await, Some(State::Stopped));
    runtime.ensure_running(&two).await.unwrap();
    assert_eq!(noted(&runtime, two.id).await.unwrap(), "newer");
}

pub(crate) async fn copies_need_a_source_that_exists(host: &mut impl Host) {
    let (runtime, one, two) = (host.runtime(), order(host, 1), order(host, 2));
    let snapshot = SnapshotId::from_bytes([9; 12]);
    let sources = [Source::Container(one.id), Source::Snapshot(snapshot)];
    let refused = |result: Result<(), Error>, source: Source| match (result, source) {
        (Err(error @ Error::NotFound { .. }), Source::Container(_))
        | (Err(error @ Error::NoSnapshot { .. }), Source::Snapshot(_)) => {
            assert!(!error.is_retryable());
        }
        (other, _) => panic!("{source:?}: {other:?}"),
    };
    for source in sources {
        refused(runtime.ensure_copied(&two, source).await, source);
        assert_eq!(state(&runtime, two.id).await, None);
    }
    let none = runtime.ensure_snapshot(one.id, snapshot).await.unwrap_err();
    assert!(matches!(none, Error::NotFound { .. }), "{none:?}");
    runtime.ensure_running(&two).await.unwrap();
    for source in sources {
        refused(runtime.ensure_refilled(two.id, source).await, source);
    }
    assert_eq!(state(&runtime, two.id).await, Some(State::Running), "it was not stopped for it");
}

/// Waits for a predicate, asking again and again without a fixed sleep.
pub(crate) async fn until(what: &str, holds: impl AsyncFnMut() -> bool) {
    until_within(BOUND, what, holds).await;
}

/// The same for what may take long.
pub(crate) async fn until_within(
    bound: Duration,
    what: &str,
    mut holds: impl AsyncFnMut() -> bool,
) {
    let wait = async {
        let mut tick = tokio::time::interval(Duration::from_millis(20));
        while !holds().await {
            tick.tick().await;
        }
    };
    timeout(bound, wait).await.unwrap_or_else(|_| panic!("never: {what}"));
}
