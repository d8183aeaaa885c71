//! Archives of containers: what comes of them, and of parts of them.

use std::time::Duration;

use bytes::Bytes;
use futures_util::stream;
use gantry_model::SnapshotId;
use gantry_runtime::{Archive, Error, Exec, Source, State};
use tokio::io::AsyncReadExt as _;
use tokio_util::io::StreamReader;

use super::{Host, note, noted, order, snapshot_ids, state};

const MACHINE_ID: &str = "/etc/machine-id";

/// The octets of an archive.
pub(crate) async fn octets(mut archive: Archive) -> Vec<u8> {
    let mut octets = Vec::new();
    archive.read_to_end(&mut octets).await.unwrap();
    octets
}

/// An archive of these octets.
pub(crate) fn archive(octets: &[u8]) -> Archive {
    Archive::new(std::io::Cursor::new(octets.to_vec()))
}

pub(crate) async fn an_archive_becomes_a_container_of_its_own(host: &mut impl Host) {
    let (runtime, one, two) = (host.runtime(), order(host, 1), order(host, 2));
    let first = runtime.ensure_running(&one).await.unwrap();
    note(&runtime, one.id, "both").await;
    let stdin = Bytes::from_static(b"0123456789abcdef0123456789abcdef\n");
    let command = Exec { stdin, ..Exec::new(["tee", MACHINE_ID]) };
    runtime.exec(one.id, &command).await.unwrap();
    let exported = runtime.export(Source::Container(one.id)).await.unwrap();
    assert_eq!(state(&runtime, one.id).await, Some(State::Running), "it runs on");
    note(&runtime, one.id, "later").await;
    let octets = octets(exported).await;
    runtime.ensure_deleted(one.id).await.unwrap();

    runtime.ensure_imported(&two, archive(&octets)).await.unwrap();
    assert_eq!(state(&runtime, two.id).await, Some(State::Created));
    let second = runtime.ensure_running(&two).await.unwrap();
    assert_ne!(first, second);
    assert_eq!(noted(&runtime, two.id).await.unwrap(), "both", "as it was then");
    let id = runtime.exec(two.id, &Exec::new(["cat", MACHINE_ID])).await.unwrap();
    assert_eq!(id.stdout, "", "it is another machine");
    note(&runtime, two.id, "mine").await;
    runtime.ensure_imported(&two, archive(&octets)).await.unwrap();
    assert_eq!(noted(&runtime, two.id).await.unwrap(), "mine", "what exists is left as it is");
    drop(runtime);

    let runtime = host.restart().await;
    assert_eq!(noted(&runtime, two.id).await.unwrap(), "mine");
    runtime.ensure_stopped(two.id, Duration::ZERO).await.unwrap();
    let again = runtime.export(Source::Container(two.id)).await.unwrap();
    runtime.ensure_imported(&one, again).await.unwrap();
    runtime.ensure_running(&one).await.unwrap();
    assert_eq!(noted(&runtime, one.id).await.unwrap(), "mine", "from one to the other");
}

pub(crate) async fn an_archive_refills_containers_and_becomes_snapshots(host: &mut impl Host) {
    let (runtime, one, two) = (host.runtime(), order(host, 1), order(host, 2));
    let [old, came] = [1, 2].map(|n| SnapshotId::from_bytes([n; 12]));
    let first = runtime.ensure_running(&one).await.unwrap();
    note(&runtime, one.id, "old").await;
    runtime.ensure_snapshot(one.id, old).await.unwrap();
    runtime.ensure_running(&two).await.unwrap();
    note(&runtime, two.id, "came").await;
    let octets = octets(runtime.export(Source::Container(two.id)).await.unwrap()).await;
    runtime.ensure_deleted(two.id).await.unwrap();

    runtime.ensure_refilled_from(one.id, archive(&octets)).await.unwrap();
    assert_eq!(state(&runtime, one.id).await, Some(State::Stopped));
    assert_eq!(runtime.ensure_running(&one).await.unwrap(), first, "at its address");
    assert_eq!(noted(&runtime, one.id).await.unwrap(), "came");
    let kept = runtime.ensure_snapshot_imported(came, archive(&octets)).await.unwrap();
    let part = archive(octets.get(..100).unwrap());
    let again = runtime.ensure_snapshot_imported(came, part).await.unwrap();
    assert_eq!(again, kept, "what is there stays as it is");
    assert_eq!(snapshot_ids(&runtime).await, [old, came]);

    // What was made from an image and what came go into each other, both ways.
    runtime.ensure_imported(&two, archive(&octets)).await.unwrap();
    for (order, snapshot, want) in
        [(&one, old, "old"), (&one, came, "came"), (&two, old, "old"), (&two, came, "came")]
    {
        runtime.ensure_running(order).await.unwrap();
        note(&runtime, order.id, "lost").await;
        runtime.ensure_refilled(order.id, Source::Snapshot(snapshot)).await.unwrap();
        assert_eq!(state(&runtime, order.id).await, Some(State::Stopped));
        runtime.ensure_running(order).await.unwrap();
        assert_eq!(noted(&runtime, order.id).await.unwrap(), want, "{}", order.hostname);
    }
    runtime.ensure_refilled(one.id, Source::Container(two.id)).await.unwrap();
    runtime.ensure_running(&one).await.unwrap();
    assert_eq!(noted(&runtime, one.id).await.unwrap(), "came");
    let again = runtime.export(Source::Snapshot(old)).await.unwrap();
    runtime.ensure_refilled_from(two.id, again).await.unwrap();
    runtime.ensure_running(&two).await.unwrap();
    assert_eq!(noted(&runtime, two.id).await.unwrap(), "old");
}

pub(crate) async fn of_a_part_of_an_archive_nothing_is_made(host: &mut impl Host) {
    let (runtime, one, two) = (host.runtime(), order(host, 1), order(host, 2));
    let snapshot = SnapshotId::from_bytes([9; 12]);
    runtime.ensure_running(&one).await.unwrap();
    note(&runtime, one.id, "kept").await;
    let octets = octets(runtime.export(Source::Container(one.id)).await.unwrap()).await;
    // The end of an entry, where nothing else tells: only the mark of the end is missing.
    let marks = octets.len() - octets.iter().rev().take_while(|octet| **octet == 0).count();
    let whole = marks.next_multiple_of(512);
    let fails = |length: usize| {
        let failure = std::io::Error::other("the network is down");
        let rest = stream::iter([Err::<Bytes, _>(failure)]);
        let begin = std::io::Cursor::new(octets[..length].to_vec());
        Archive::new(begin.chain(StreamReader::new(Box::pin(rest))))
    };
    let parts: [(&str, &dyn Fn() -> Archive); 6] = [
        ("empty", &|| archive(&[])),
        ("in a header", &|| archive(&octets[..100])),
        ("in a file", &|| archive(&octets[..octets.len() / 2])),
        ("before the mark", &|| archive(&octets[..whole])),
        ("a failure before the mark", &|| fails(whole)),
        ("a failure after the mark", &|| fails(octets.len())),
    ];
    for (what, part) in parts {
        let imported = runtime.ensure_imported(&two, part()).await;
        let refilled = runtime.ensure_refilled_from(one.id, part()).await;
        let kept = runtime.ensure_snapshot_imported(snapshot, part()).await.map(drop);
        for outcome in [imported, refilled, kept] {
            let Err(error @ Error::Failed { .. }) = outcome else { panic!("{what}: {outcome:?}") };
            assert!(error.is_retryable());
        }
        assert_eq!(state(&runtime, two.id).await, None, "{what}");
        assert_eq!(snapshot_ids(&runtime).await, [], "{what}");
        assert_eq!(state(&runtime, one.id).await, Some(State::Running), "{what}");
        assert_eq!(noted(&runtime, one.id).await.unwrap(), "kept", "{what}");
    }
    runtime.ensure_imported(&two, archive(&octets)).await.unwrap();
}

pub(crate) async fn an_archive_needs_a_source_that_exists(host: &mut impl Host) {
    let (runtime, one) = (host.runtime(), order(host, 1));
    let snapshot = SnapshotId::from_bytes([9; 12]);
    let none = runtime.export(Source::Container(one.id)).await.unwrap_err();
    assert!(matches!(none, Error::NotFound { .. }), "{none:?}");
    let none = runtime.export(Source::Snapshot(snapshot)).await.unwrap_err();
    assert!(matches!(none, Error::NoSnapshot { .. }), "{none:?}");
    let none = runtime.ensure_refilled_from(one.id, archive(&[])).await.unwrap_err();
    assert!(matches!(none, Error::NotFound { .. }), "{none:?}");
}
