//! What ways out do to real connections, on either runtime.

mod proxies;

use std::{
    net::{IpAddr, Ipv4Addr},
    time::Duration,
};

use gantry_runtime::{Order, Outbound, Way};
use tokio::{
    io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader},
    net::{TcpListener, TcpStream},
    process::Command,
    time::timeout,
};

use crate::{
    contract::{Host as _, order, until},
    machine::{Machine, OPEN_PORT},
    world::{NAMED, World},
};

pub(crate) use self::proxies::tcp_and_names_leave_through_the_proxy_of_the_owner_only;

const BOUND: Duration = Duration::from_secs(10);

/// What its own server says to the host.
async fn fetch(address: IpAddr) -> Option<String> {
    let ask = async {
        let mut stream = TcpStream::connect((address, 8080)).await?;
        stream.write_all(b"GET /hostname HTTP/1.0\r\n\r\n").await?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.map(|_| answer)
    };
    timeout(Duration::from_secs(3), ask).await.ok()?.ok()
}

/// Whether something is not there within a second.
async fn stays_away<T>(what: impl Future<Output = T>) -> bool {
    timeout(Duration::from_secs(1), what).await.is_err()
}

pub(crate) async fn a_shut_container_answers_and_begins_nothing(machine: &mut Machine) {
    let world = World::new().await;
    let ways = |version, way| Outbound { version, way };
    let (blocked, runtime) = (ways(1, Way::Blocked), machine.runtime());
    let order = Order { outbound: blocked.clone(), ..order(machine, 1) };
    let address = runtime.ensure_running(&order).await.unwrap().address;
    machine.shell(1, "httpd -p 8080 -h /etc").await;
    until("its server answers the edge", async || fetch(address).await.is_some()).await;
    let gateway = machine.config.network.subnet.hosts().next().unwrap();
    let open = TcpListener::bind((gateway, OPEN_PORT)).await.unwrap();
    let is_shut = async |machine: &Machine, why: &str| {
        // All at once: each waits for an answer that does not come.
        let begin = format!(
            "nc -w 1 {own} 9000 </dev/null & timeout 1 nslookup {why}.example {own} >/dev/null 2>&1 & \
             ping -c 1 -W 1 {host} >/dev/null 2>&1 && echo got & nc -w 1 {gateway} {OPEN_PORT} </dev/null & wait",
            own = world.own,
            host = world.host,
        );
        let accepted = async { tokio::join!(machine.shell(1, &begin), stays_away(open.accept())) };
        let (said, is_away) = accepted.await;
        assert_eq!(said, "", "{why}: TCP and ICMP");
        assert!(is_away, "{why}: a port that the host opens");
        assert_eq!(world.asked(), [], "{why}: UDP");
        assert!(fetch(address).await.is_some(), "{why}: what comes in is answered");
    };
    is_shut(machine, "from-the-beginning").await;

    assert_eq!(runtime.outbound(order.id).await.unwrap().unwrap().version, 1);
    runtime.ensure_outbound(order.id, &ways(2, Way::Direct)).await.unwrap();
    runtime.ensure_outbound(order.id, &blocked).await.unwrap();
    let dial = format!("nc -w 3 {} 9000 </dev/null", world.own);
    assert_eq!(machine.shell(1, &dial).await, format!("seen from {}", world.host), "no older one");
    let name = machine.shell(1, &format!("nslookup open.example {}", world.own)).await;
    assert!(name.contains(&Ipv4Addr::from(NAMED).to_string()), "{name}");
    world.forget();

    // A connection from before.
    let hold = format!(
        "rm -f /go; (echo one; until [ -e /go ]; do sleep 0.1; done; echo two) | nc {gateway} {OPEN_PORT} >/dev/null &"
    );
    machine.shell(1, &format!("({hold}) >/dev/null 2>&1")).await;
    let (before, _) = timeout(BOUND, open.accept()).await.unwrap().unwrap();
    let mut before = BufReader::new(before).lines();
    let one = timeout(BOUND, before.next_line()).await.unwrap().unwrap();
    assert_eq!(one.as_deref(), Some("one"));
    runtime.ensure_outbound(order.id, &ways(3, Way::Blocked)).await.unwrap();
    machine.shell(1, "touch /go").await;
    assert!(stays_away(before.next_line()).await, "a connection that exists is no exception");

    drop(runtime);
    let runtime = machine.restart().await;
    is_shut(machine, "while-the-next-one-knows-nothing").await;
    assert_eq!(runtime.outbound(order.id).await.unwrap(), None);
    let order = Order { outbound: ways(3, Way::Blocked), ..order };
    runtime.ensure_stopped(order.id, Duration::ZERO).await.unwrap();
    runtime.ensure_running(&order).await.unwrap();
    machine.shell(1, "httpd -p 8080 -h /etc").await;
    until("its server answers again", async || fetch(address).await.is_some()).await;
    is_shut(machine, "after-a-restart").await;

    runtime.ensure_deleted(order.id).await.unwrap();
    let table = format!("gantryowners_{}", machine.config.network.bridge);
    let listed =
        Command::new("nft").args(["list", "table", "inet", &table]).output().await.unwrap();
    let listed = String::from_utf8(listed.stdout).unwrap();
    assert!(listed.contains("set shut") && !listed.contains(&address.to_string()), "{listed}");
}
