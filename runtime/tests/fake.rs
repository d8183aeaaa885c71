//! The fake runtime keeps the promises of the port, and those it makes to tests.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stderr,
    reason = "a test fails by panicking and says what it cannot test"
)]

mod contract;

use std::{
    net::IpAddr,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use contract::{Host, order};
use gantry_model::{ContainerId, container::ImageName};
use gantry_runtime::{
    Error, Exec, ExecOutput, ExitStatus, Kvm, Runtime, State,
    fake::{Call, Fake, World},
};

struct Memory(World);

impl Host for Memory {
    fn runtime(&self) -> Arc<dyn Runtime> {
        Arc::new(Fake::new(self.0.clone()))
    }
    async fn restart(&mut self) -> Arc<dyn Runtime> {
        self.runtime()
    }
    async fn settle(&self, _id: ContainerId) {}
    fn image(&self) -> ImageName {
        ImageName::parse("image", "debian/13").unwrap()
    }
}

async fn run(test: impl AsyncFn(&mut Memory)) {
    let world = World::default();
    world.set_kvm(Kvm::Offered);
    test(&mut Memory(world)).await;
}

contract!(run);

#[tokio::test]
async fn what_is_not_offered_is_refused_as_the_contract_says() {
    for why in [Kvm::Off, Kvm::Missing] {
        let world = World::default();
        world.set_kvm(why);
        contract::kvm_is_there_where_it_is_ordered_and_offered_only(&mut Memory(world)).await;
    }
}

#[tokio::test]
async fn an_injected_fault_happens_once_and_has_no_effect() {
    let host = Memory(World::default());
    let (runtime, order) = (Fake::new(host.0.clone()), order(&host, 1));
    host.0.fail_next(Call::Run, Error::NoAddress);
    assert!(matches!(runtime.ensure_running(&order).await, Err(Error::NoAddress)));
    assert_eq!(runtime.observe(order.id).await.unwrap().unwrap().state, State::Created);
    runtime.ensure_running(&order).await.unwrap();
    assert_eq!((host.0.calls(Call::Run), host.0.starts(order.id)), (2, 1));
}

#[tokio::test(start_paused = true)]
async fn a_delay_holds_up_one_container_and_not_the_next() {
    let host = Memory(World::default());
    let (runtime, one, two) = (Fake::new(host.0.clone()), order(&host, 1), order(&host, 2));
    host.0.delay(Call::Create, Duration::from_secs(1));
    let begin = tokio::time::Instant::now();
    let (a, b) = tokio::join!(runtime.ensure_created(&one), runtime.ensure_created(&two));
    a.unwrap();
    b.unwrap();
    assert_eq!(begin.elapsed(), Duration::from_secs(1), "side by side");
    let (a, b) = tokio::join!(runtime.ensure_created(&one), runtime.ensure_created(&one));
    a.unwrap();
    b.unwrap();
    assert_eq!(begin.elapsed(), Duration::from_secs(3), "one after the other");
}

#[tokio::test]
async fn after_a_reboot_nothing_runs_and_the_boot_has_another_name() {
    let host = Memory(World::default());
    let (runtime, order) = (Fake::new(host.0.clone()), order(&host, 1));
    runtime.ensure_running(&order).await.unwrap();
    host.0.reboot();
    let next = Fake::new(host.0.clone());
    assert_ne!(next.boot_id(), runtime.boot_id());
    assert_eq!(next.observe(order.id).await.unwrap().unwrap().state, State::Stopped);
}

#[tokio::test]
async fn a_crash_is_told_and_a_loss_is_seen() {
    let host = Memory(World::default());
    let (runtime, order) = (Fake::new(host.0.clone()), order(&host, 1));
    runtime.ensure_running(&order).await.unwrap();
    let mut exits = runtime.exits();
    host.0.crash(order.id);
    assert_eq!(exits.recv().await.unwrap(), order.id);
    assert_eq!(runtime.observe(order.id).await.unwrap().unwrap().state, State::Stopped);
    host.0.lose(order.id);
    assert_eq!(runtime.observe(order.id).await.unwrap(), None);
}

#[tokio::test]
async fn a_test_can_listen_on_a_containers_address_and_answer_its_commands() {
    let host = Memory(World::new("127.89.0.0/24".parse().unwrap()));
    let (runtime, order) = (Fake::new(host.0.clone()), order(&host, 1));
    let hooks = Arc::new(AtomicU64::new(0));
    let counted = Arc::clone(&hooks);
    host.0.on_start(move |_id, address| {
        std::net::TcpListener::bind((address, 0)).expect("the address is ours");
        counted.fetch_add(1, Ordering::SeqCst);
    });
    let address = runtime.ensure_running(&order).await.unwrap().address;
    assert_eq!(address, "127.89.0.2".parse::<IpAddr>().unwrap());
    runtime.ensure_running(&order).await.unwrap();
    assert_eq!(hooks.load(Ordering::SeqCst), 1, "a container that runs is not started again");
    host.0.script(|_id, command| async move {
        let stdout = format!("{} in {}", command.argv.join(" "), command.env["GREETING"]).into();
        let status = ExitStatus::Code(7);
        Ok(ExecOutput { status, stdout, stderr: "".into(), truncated: false })
    });
    let output = runtime.exec(order.id, &Exec::new(["systemctl", "start"])).await.unwrap();
    assert_eq!(output.stdout, "systemctl start in good day");
    assert_eq!(output.status, ExitStatus::Code(7));
}

#[tokio::test]
async fn a_test_can_be_the_program_of_sessions() {
    let host = Memory(World::default());
    let (runtime, order) = (Fake::new(host.0.clone()), order(&host, 1));
    let none = runtime.session(order.id).await;
    assert!(matches!(none, Err(Error::NotFound { .. })), "{none:?}");
    runtime.ensure_created(&order).await.unwrap();
    let idle = runtime.session(order.id).await;
    assert!(matches!(idle, Err(Error::NotRunning { .. })), "{idle:?}");
    runtime.ensure_running(&order).await.unwrap();
    let nowhere = runtime.session(order.id).await;
    assert!(matches!(nowhere, Err(Error::NoPlace { .. })), "{nowhere:?}");
    host.0.on_session(|id, socket| {
        rustix::io::write(socket, id.to_string().as_bytes()).expect("the other end is there");
    });
    let socket = runtime.session(order.id).await.unwrap();
    let mut said = [0; 64];
    let len = rustix::io::read(&socket, &mut said).unwrap();
    assert_eq!(said[..len], *order.id.to_string().as_bytes());
    assert_eq!(rustix::io::read(&socket, &mut said), Ok(0), "it has ended");
    runtime.ensure_paused(order.id).await.unwrap();
    let paused = runtime.session(order.id).await;
    assert!(matches!(paused, Err(Error::Paused { .. })), "{paused:?}");
    assert_eq!(host.0.calls(Call::Session), 5);
}
