//! What a container sees of another, and what neither can make of it, on either runtime.

use std::{sync::Arc, time::Duration};

use gantry_model::{
    ShareId,
    share::{ShareMode, SharePath},
};
use gantry_runtime::{Runtime, Share, ShareFault};

use crate::{
    contract::{Host as _, id, order},
    machine::Machine,
};

fn share(n: u8, source: u8, path: &str, mode: ShareMode) -> Share {
    Share {
        id: ShareId::from_bytes([n; 12]),
        name: format!("share-{n}"),
        source: id(source),
        path: SharePath::parse("path", path).unwrap(),
        mode,
    }
}

/// Which shares the container cannot have, and why.
async fn ensure(runtime: &Arc<dyn Runtime>, target: u8, shares: &[Share]) -> Vec<(u8, ShareFault)> {
    let faults = runtime.ensure_shares(id(target), shares).await.unwrap();
    faults.into_iter().map(|(share, fault)| (share.as_bytes()[0], fault)).collect()
}

/// What is mounted below `/hoody/shares` and elsewhere of a share in the container.
const MOUNTED: &str = "grep -c share-1 /proc/self/mountinfo";

/// Both sides are hostile: they have root inside, and may mount and link what they like.
pub(crate) async fn a_share_is_what_was_shared_and_no_more(machine: &mut Machine) {
    let runtime = machine.runtime();
    for n in [1, 2] {
        runtime.ensure_running(&order(machine, n)).await.unwrap();
        machine.settle(id(n)).await;
    }
    let made = "mkdir /data /data/sub /other && echo one >/data/file && echo secret >/other/file \
                && chmod 0600 /data/file && ln -s /data /link && ln -s / /data/out && ln -s /proc /kernel \
                && ln -s ../../../../../../etc /up && mkdir /mounted \
                && mount -t tmpfs tmpfs /mounted && echo ok";
    assert_eq!(machine.shell(1, made).await, "ok");
    let (read, write) = (ShareMode::ReadOnly, ShareMode::ReadWrite);

    // Both ways at once, with the owners that the files have inside.
    let one = [share(1, 1, "/data", read)];
    assert_eq!(ensure(&runtime, 2, &one).await, []);
    assert_eq!(machine.shell(2, "cat /hoody/shares/share-1/file").await, "one");
    assert_eq!(machine.shell(2, "stat -c %u:%g /hoody/shares/share-1/file").await, "0:0");
    machine.shell(1, "echo two >/data/file").await;
    assert_eq!(machine.shell(2, "cat /hoody/shares/share-1/file").await, "two");

    // Nobody inside makes a share writable, or brings devices and set-user-id programs to life by it.
    for attempt in [
        "echo three >/hoody/shares/share-1/file",
        "touch /hoody/shares/share-1/new",
        "mount -o remount,bind,rw /hoody/shares/share-1",
        "mount -o remount,bind,ro,suid,dev /hoody/shares/share-1",
        "mkdir /hoody/shares/mine",
    ] {
        let script = format!("{attempt} 2>/dev/null && echo done; echo over");
        assert_eq!(machine.shell(2, &script).await, "over", "{attempt}");
    }
    let bound = "mkdir -p /copy && mount --bind /hoody/shares/share-1 /copy; \
                 mount -o remount,bind,rw /copy 2>/dev/null; touch /copy/new 2>/dev/null || echo refused";
    assert_eq!(machine.shell(2, bound).await, "refused");
    // A link that the source has in it means what it means on this side.
    assert_eq!(machine.shell(2, "cat /hoody/shares/share-1/out/other/file || echo no").await, "no");

    // What is asked for again is left alone; written is what may be.
    let held = "cd /hoody/shares/share-1/sub && (sleep 1000 </dev/null >/dev/null 2>&1 &) && pwd";
    assert_eq!(machine.shell(2, held).await, "/hoody/shares/share-1/sub");
    assert_eq!(ensure(&runtime, 2, &one).await, []);
    let two = [one[0].clone(), share(2, 1, "/data", write)];
    assert_eq!(ensure(&runtime, 2, &two).await, []);
    let written = "echo four >/hoody/shares/share-2/file && echo ok";
    assert_eq!(machine.shell(2, written).await, "ok");
    assert_eq!(machine.shell(1, "cat /data/file; stat -c %u /data/file").await, "four\n0");

    // Gone is gone, also where it was bound and where something was mounted inside of it.
    let hidden = "mount -t tmpfs tmpfs /hoody/shares/share-1/sub && mkdir /lair && \
                  mount --bind /hoody/shares/share-2 /lair && \
                  (unshare -m sleep 1000 </dev/null >/dev/null 2>&1 &) && echo ok";
    assert_eq!(machine.shell(2, hidden).await, "ok");
    assert_eq!(ensure(&runtime, 2, &[]).await, []);
    let left = "ls /hoody/shares /copy /lair; grep -c -e share- -e /copy -e /lair /proc/*/mountinfo \
                | grep -v :0; echo over";
    let left = machine.shell(2, left).await;
    assert!(!left.contains("file") && !left.contains("mountinfo"), "{left}");
    assert_eq!(machine.shell(1, "cat /data/file").await, "four", "the source has its own");

    // A path leads where the source says, and never out of its own files.
    for (path, want) in [
        ("/link", Ok("four")),
        ("/kernel", Err(ShareFault::OtherFileSystem)),
        ("/mounted", Err(ShareFault::OtherFileSystem)),
        ("/data/file", Err(ShareFault::NoDirectory)),
        ("/none", Err(ShareFault::NoDirectory)),
    ] {
        let got = ensure(&runtime, 2, &[share(1, 1, path, read)]).await;
        match want {
            Ok(content) => {
                assert_eq!(got, [], "{path}");
                assert_eq!(machine.shell(2, "cat /hoody/shares/share-1/file").await, content);
            }
            Err(fault) => assert_eq!(got, [(1, fault)], "{path}"),
        }
    }
    // Whatever is above its root is its root.
    assert_eq!(ensure(&runtime, 2, &[share(1, 1, "/up", read)]).await, []);
    let (names, own) = ("ls /hoody/shares/share-1", machine.shell(1, "ls /etc").await);
    assert_eq!(machine.shell(2, names).await, own);
    // What was received is not passed on, by whatever way.
    assert_eq!(ensure(&runtime, 2, &one).await, []);
    machine.shell(2, "mkdir /relay && ln -s /hoody/shares/share-1 /pass && mount --bind /hoody/shares/share-1 /relay").await;
    for path in ["/pass", "/relay"] {
        let got = ensure(&runtime, 1, &[share(3, 2, path, write)]).await;
        assert_eq!(got, [(3, ShareFault::OtherFileSystem)], "{path}");
    }
    // The link that was shared leads elsewhere now: looked at again, it is the other directory.
    assert_eq!(ensure(&runtime, 2, &[share(1, 1, "/link", read)]).await, []);
    machine.shell(1, "rm /link && ln -s /other /link").await;
    assert_eq!(ensure(&runtime, 2, &[share(1, 1, "/link", read)]).await, []);
    assert_eq!(machine.shell(2, "cat /hoody/shares/share-1/file").await, "secret");
}

/// A container that has put something else where shares would be starts all the same.
pub(crate) async fn a_share_comes_and_goes_with_both_sides(machine: &mut Machine) {
    let mut runtime = machine.runtime();
    let orders = [order(machine, 1), order(machine, 2)];
    for order in &orders {
        runtime.ensure_running(order).await.unwrap();
        machine.settle(order.id).await;
    }
    machine.shell(1, "mkdir /data && echo one >/data/file").await;
    let shares = [share(1, 1, "/data", ShareMode::ReadWrite)];
    let read = "cat /hoody/shares/share-1/file 2>/dev/null || echo none";
    assert_eq!(ensure(&runtime, 2, &shares).await, []);
    let (_, before) = (machine.shell(2, read).await, machine.shell(2, MOUNTED).await);
    // The next Gantry finds it and changes nothing.
    drop(runtime);
    runtime = machine.restart().await;
    assert_eq!(machine.shell(2, read).await, "one");
    assert_eq!(ensure(&runtime, 2, &shares).await, []);
    assert_eq!(
        (machine.shell(2, read).await, machine.shell(2, MOUNTED).await),
        ("one".to_owned(), before)
    );

    // The source ends: nothing of it stays, before its files are mounted once more.
    runtime.ensure_stopped(orders[0].id, Duration::ZERO).await.unwrap();
    assert_eq!(machine.shell(2, read).await, "none");
    assert_eq!(ensure(&runtime, 2, &shares).await, [(1, ShareFault::SourceNotRunning)]);
    runtime.ensure_running(&orders[0]).await.unwrap();
    assert_eq!(ensure(&runtime, 2, &shares).await, []);
    assert_eq!(machine.shell(2, read).await, "one");

    // The target ends: it starts without, and gets it back.
    runtime.ensure_stopped(orders[1].id, Duration::ZERO).await.unwrap();
    assert_eq!(ensure(&runtime, 2, &shares).await, []);
    runtime.ensure_running(&orders[1]).await.unwrap();
    assert_eq!(machine.shell(2, read).await, "none");
    assert_eq!(ensure(&runtime, 2, &shares).await, []);
    assert_eq!(machine.shell(2, read).await, "one");

    // Links where the mount would be lead nowhere, and keep nobody from starting.
    let moved = "umount /hoody/shares/share-1; umount /hoody/shares; rm -r /hoody && ln -s /etc /hoody && echo ok";
    assert_eq!(machine.shell(2, moved).await, "ok");
    assert_eq!(ensure(&runtime, 2, &[]).await, []);
    assert_eq!(ensure(&runtime, 2, &shares).await, [(1, ShareFault::NoPlace)]);
    runtime.ensure_stopped(orders[1].id, Duration::ZERO).await.unwrap();
    runtime.ensure_running(&orders[1]).await.unwrap();
    // A link may have become the place, inside of the container itself.
    if ensure(&runtime, 2, &shares).await.is_empty() {
        assert_eq!(machine.shell(2, "cat /etc/shares/share-1/file").await, "one");
    }
    runtime.ensure_deleted(orders[0].id).await.unwrap();
    assert_eq!(
        machine.shell(2, "cat /*/shares/share-1/file 2>/dev/null || echo none").await,
        "none"
    );
}
