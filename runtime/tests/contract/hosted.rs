//! What a container has of its host: its virtualisation, and memory that others have, too.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use gantry_model::ProjectId;
use gantry_runtime::{Error, Exec, ExecUser, ExitStatus, Kvm, Order, Runtime, Source};

use super::{Host, order};

/// How the program `kvm-version` ends where there is no device: with the negated number of the error.
const NO_DEVICE: u8 = 254;
/// How it ends where there is one: with the version of the kernel's interface, which is this for good.
const KVM_VERSION: u8 = 12;

pub(crate) async fn kvm_is_there_where_it_is_ordered_and_offered_only(host: &mut impl Host) {
    let runtime = host.runtime();
    let (with, without) = (Order { kvm: true, ..order(host, 1) }, order(host, 2));
    runtime.ensure_running(&without).await.unwrap();
    let version = Exec::new(["kvm-version"]);
    let code = async |id| runtime.exec(id, &version).await.unwrap().status;
    assert_eq!(code(without.id).await, ExitStatus::Code(NO_DEVICE));
    match runtime.kvm() {
        Kvm::Offered => {
            runtime.ensure_running(&with).await.unwrap();
            assert_eq!(code(with.id).await, ExitStatus::Code(KVM_VERSION));
            let user = ExecUser { uid: 1000, gid: 1000 };
            let other = Exec { user, ..version.clone() };
            let status = runtime.exec(with.id, &other).await.unwrap().status;
            assert_eq!(status, ExitStatus::Code(KVM_VERSION), "for all users");
            let copy = order(host, 3);
            runtime.ensure_copied(&copy, Source::Container(with.id)).await.unwrap();
            runtime.ensure_running(&copy).await.unwrap();
            assert_eq!(code(copy.id).await, ExitStatus::Code(NO_DEVICE), "it is not in the files");
            runtime.ensure_stopped(with.id, Duration::ZERO).await.unwrap();
            runtime.ensure_running(&Order { kvm: false, ..with.clone() }).await.unwrap();
            assert_eq!(code(with.id).await, ExitStatus::Code(NO_DEVICE), "each start decides");
            runtime.ensure_stopped(with.id, Duration::ZERO).await.unwrap();
            runtime.ensure_running(&with).await.unwrap();
            assert_eq!(code(with.id).await, ExitStatus::Code(KVM_VERSION));
        }
        why @ (Kvm::Missing | Kvm::Off) => {
            eprintln!("\n*** {why}; only the refusal is tested ***\n");
            let error = runtime.ensure_running(&with).await.unwrap_err();
            assert!(matches!(error, Error::NoKvm(told) if told == why), "{error}");
            assert!(!error.is_retryable(), "until somebody changes something");
            runtime.ensure_running(&Order { kvm: false, ..with }).await.unwrap();
        }
    }
}

pub(crate) async fn memory_is_shared_within_a_project_by_who_wants_it(host: &mut impl Host) {
    const NOTE: &str = "/ramdisk/project/note";
    let runtime = host.runtime();
    let of = |host: &_, n, project: Option<u8>| Order {
        ramdisk: true,
        project_ramdisk: project.map(|project| ProjectId::from_bytes([project; 12])),
        ..order(host, n)
    };
    let (one, two) = (of(host, 1, Some(7)), of(host, 2, Some(7)));
    let (elsewhere, alone) = (of(host, 3, Some(8)), of(host, 4, None));
    for order in [&one, &two, &elsewhere, &alone] {
        runtime.ensure_running(order).await.unwrap();
    }
    let write = Exec { stdin: Bytes::from("ours"), ..Exec::new(["tee", NOTE]) };
    let written = runtime.exec(one.id, &write).await.unwrap();
    assert!(written.status.success(), "{written:?}");
    let read = async |runtime: &Arc<dyn Runtime>, order: &Order| {
        let read = runtime.exec(order.id, &Exec::new(["cat", NOTE])).await.unwrap();
        read.status.success().then_some(read.stdout)
    };
    let ours = Some(Bytes::from("ours"));
    assert_eq!(read(&runtime, &two).await, ours);
    assert_eq!(read(&runtime, &elsewhere).await, None, "another project has its own");
    assert_eq!(read(&runtime, &alone).await, None, "and who wants none has none");
    let used = runtime.stats(two.id).await.unwrap().ramdisk.unwrap().project.unwrap();
    assert!((4..=64 << 10).contains(&used.used_bytes), "{used:?}");
    assert_eq!(used.max_bytes, 512 << 20);
    assert_eq!(runtime.stats(alone.id).await.unwrap().ramdisk.unwrap().project, None);

    // It outlives the stop of both, and the runtime.
    for order in [&one, &two] {
        runtime.ensure_stopped(order.id, Duration::ZERO).await.unwrap();
    }
    drop(runtime);
    let runtime = host.restart().await;
    runtime.ensure_running(&two).await.unwrap();
    assert_eq!(read(&runtime, &two).await, ours);
    runtime.ensure_deleted(one.id).await.unwrap();
    assert_eq!(read(&runtime, &two).await, ours, "one of them is left");
    // The last one wants it no more, and then again.
    runtime.ensure_stopped(two.id, Duration::ZERO).await.unwrap();
    runtime.ensure_running(&Order { project_ramdisk: None, ..two.clone() }).await.unwrap();
    assert_eq!(read(&runtime, &two).await, None);
    runtime.ensure_stopped(two.id, Duration::ZERO).await.unwrap();
    runtime.ensure_running(&two).await.unwrap();
    assert_eq!(read(&runtime, &two).await, None, "it went with its last container");
    for order in [&two, &elsewhere, &alone] {
        runtime.ensure_deleted(order.id).await.unwrap();
    }
}
