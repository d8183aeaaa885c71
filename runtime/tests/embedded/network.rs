//! Who reaches whom.

use std::{
    net::{IpAddr, Ipv4Addr},
    path::Path,
    time::Duration,
};

use gantry_model::{Chain, firewall::Rules};
use gantry_runtime::{
    Firewall,
    embedded::{Config, Embedded},
};
use ipnet::Ipv4Net;
use serde_json::json;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    process::Command,
    time::timeout,
};

use crate::{
    contract::{Host as _, order, until},
    machine::{Machine, OPEN_PORT},
    world::World,
};

const BOUND: Duration = Duration::from_secs(10);

/// Asks an HTTP server; `None` when it does not answer.
async fn fetch(address: IpAddr) -> Option<String> {
    let ask = async {
        let mut stream = TcpStream::connect((address, 8080)).await?;
        stream.write_all(b"GET /hostname HTTP/1.0\r\n\r\n").await?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.map(|_| answer)
    };
    timeout(Duration::from_secs(3), ask).await.ok()?.ok()
}

pub(crate) async fn the_host_reaches_a_container_on_its_address(machine: &mut Machine) {
    let (runtime, order) = (machine.runtime(), order(machine, 1));
    let address = runtime.ensure_running(&order).await.unwrap().address;
    machine.shell(1, "httpd -p 8080 -h /etc").await;
    let answer = fetch(address).await.expect("it answers");
    assert!(answer.contains("200 OK") && answer.contains("box-1"), "{answer}");
    let stats = runtime.stats(order.id).await.unwrap();
    assert!(stats.network.received_bytes > 0 && stats.network.sent_packets > 0, "{stats:?}");
    runtime.ensure_stopped(order.id, Duration::ZERO).await.unwrap();
    runtime.ensure_running(&order).await.unwrap();
    machine.shell(1, "httpd -p 8080 -h /etc").await;
    assert!(fetch(address).await.is_some(), "after a restart, too");
}

pub(crate) async fn containers_reach_the_hosts_chosen_ports_only(machine: &mut Machine) {
    let (runtime, order) = (machine.runtime(), order(machine, 1));
    runtime.ensure_running(&order).await.unwrap();
    let gateway = machine.shell(1, "ip route | grep default").await;
    let gateway = gateway.split_whitespace().nth(2).expect("a default route").to_owned();
    let (open, closed) = (
        TcpListener::bind((gateway.as_str(), OPEN_PORT)).await.unwrap(),
        TcpListener::bind((gateway.as_str(), OPEN_PORT + 1)).await.unwrap(),
    );
    let greet = async |listener: &TcpListener| {
        let (mut stream, _) = listener.accept().await.unwrap();
        stream.write_all(b"welcome\n").await.unwrap();
    };
    let ask = |port: u16| format!("nc -w 3 {gateway} {port} </dev/null 2>&1; echo ended");
    let script = ask(OPEN_PORT);
    let (answer, ()) =
        timeout(BOUND, async { tokio::join!(machine.shell(1, &script), greet(&open)) })
            .await
            .expect("the open port answers");
    assert!(answer.contains("welcome"), "{answer}");
    let script = ask(OPEN_PORT + 1);
    tokio::select! {
        answer = machine.shell(1, &script) => assert!(!answer.contains("welcome"), "{answer}"),
        () = greet(&closed) => panic!("the other port must not be reached"),
    }
    let metadata = machine.shell(1, "nc -w 3 169.254.169.254 80 </dev/null; echo $?").await;
    assert_ne!(metadata, "0", "link-local addresses are not reached");
}

pub(crate) async fn the_world_is_reached_through_the_hosts_address_and_does_not_reach_in(
    machine: &mut Machine,
) {
    let (runtime, order) = (machine.runtime(), order(machine, 1));
    let address = runtime.ensure_running(&order).await.unwrap().address;
    machine.shell(1, "httpd -p 8080 -h /etc").await;
    let world = World::new().await;
    let ask = format!("nc -w 3 {} 9000 </dev/null", world.own);
    assert_eq!(machine.shell(1, &ask).await, format!("seen from {}", world.host));
    let rules = json!({ "ingress": [], "egress": [{ "action": "reject", "protocol": "tcp",
        "description": "", "destination": world.own, "destination_port": "9000" }] });
    let rules = Rules::read(&rules).unwrap();
    runtime.ensure_firewall(order.id, &Firewall { version: 1, rules }).await.unwrap();
    let refused = machine.shell(1, &format!("{ask} || echo refused")).await;
    assert!(refused.ends_with("refused"), "its owner closes the world for it: {refused}");
    let open = Firewall { version: 2, rules: Rules::default() };
    runtime.ensure_firewall(order.id, &open).await.unwrap();
    assert_eq!(machine.shell(1, &ask).await, format!("seen from {}", world.host));
    let address = address.to_string();
    let status = Command::new("ip")
        .args(["netns", "exec", &world.name, "busybox", "nc", "-w", "2", &address, "8080"])
        .stdin(std::process::Stdio::null())
        .status()
        .await
        .unwrap();
    assert!(!status.success(), "nobody out there reaches a container directly");
}

pub(crate) async fn containers_do_not_reach_each_other(machine: &mut Machine) {
    let (runtime, one, two) = (machine.runtime(), order(machine, 1), order(machine, 2));
    let address = runtime.ensure_running(&one).await.unwrap().address;
    runtime.ensure_running(&two).await.unwrap();
    machine.shell(1, "httpd -p 8080 -h /etc").await;
    assert!(fetch(address).await.is_some(), "the host reaches it");
    let direct = machine.shell(2, &format!("nc -w 2 {address} 8080 </dev/null; echo $?")).await;
    assert_ne!(direct, "0", "not over the bridge");
    // Through the host's routing, by a route that leads there.
    let gateway = "$(ip route | grep default | { read a b gw c; echo $gw; })";
    let script = format!(
        "ip route add {address}/32 via {gateway} && nc -w 2 {address} 8080 </dev/null; echo $?"
    );
    assert_ne!(machine.shell(2, &script).await, "0", "nor through the host");
}

pub(crate) async fn what_is_sent_to_a_stopped_container_reaches_nobody(machine: &mut Machine) {
    let (runtime, one, two) = (machine.runtime(), order(machine, 1), order(machine, 2));
    let address = runtime.ensure_running(&one).await.unwrap().address;
    runtime.ensure_running(&two).await.unwrap();
    let bridge = machine.config.network.bridge.clone();
    let ports = std::fs::read_dir(format!("/sys/class/net/{bridge}/brif")).unwrap();
    let ports: Vec<_> = ports.map(|port| port.unwrap().path()).collect();
    assert_eq!(ports.len(), 2);
    for (port, flag) in ports.iter().flat_map(|port| {
        ["unicast_flood", "broadcast_flood", "multicast_flood"].map(|flag| (port, flag))
    }) {
        let value = std::fs::read_to_string(port.join(flag)).unwrap();
        assert_eq!(value.trim(), "0", "{flag} of {}", port.display());
    }
    let known = async || {
        let args = ["neigh", "show", &address.to_string(), "dev", &bridge];
        let output = Command::new("ip").args(args).output().await.unwrap();
        String::from_utf8(output.stdout).unwrap()
    };
    assert!(known().await.contains("PERMANENT"));
    runtime.ensure_stopped(one.id, Duration::ZERO).await.unwrap();
    assert_eq!(known().await.trim(), "", "the host forgets where it was");
}

pub(crate) async fn a_container_cannot_take_another_address(machine: &mut Machine) {
    let (runtime, one, two) = (machine.runtime(), order(machine, 1), order(machine, 2));
    let address = runtime.ensure_running(&one).await.unwrap().address;
    let other = runtime.ensure_running(&two).await.unwrap().address;
    for n in [1, 2] {
        machine.shell(n, "httpd -p 8080 -h /etc").await;
    }
    machine.shell(2, &format!("ip addr add {address}/32 dev eth0")).await;
    // Tells everyone that the address is here now.
    machine.shell(2, &format!("arping -A -c 3 -w 1 -I eth0 {address}")).await;
    let answer = fetch(address).await.expect("the owner still answers");
    assert!(answer.contains("box-1"), "{answer}");
    // With another hardware address nothing at all gets through.
    let mac = "02:67:0a:0a:0a:0a";
    machine
        .shell(
            2,
            &format!("ip link set eth0 down; ip link set eth0 address {mac}; ip link set eth0 up"),
        )
        .await;
    until("the impostor is cut off", async || fetch(other).await.is_none()).await;
    assert!(fetch(address).await.is_some());
}

/// A network of something else on the host, such as the bridge of another container engine.
struct Elsewhere(String);

impl Elsewhere {
    async fn new(address: &str) -> Self {
        let elsewhere = Self(format!("ge{}", std::process::id()));
        let name = &elsewhere.0;
        for line in [
            format!("link add {name} type bridge"),
            format!("link set {name} up"),
            format!("addr add {address} dev {name}"),
        ] {
            let status = Command::new("ip").args(line.split(' ')).status().await.unwrap();
            assert!(status.success(), "ip {line}");
        }
        elsewhere
    }
}

impl Drop for Elsewhere {
    fn drop(&mut self) {
        let gone = std::process::Command::new("ip").args(["link", "del", &self.0]).status();
        let is_gone = gone.is_ok_and(|status| status.success());
        assert!(is_gone || std::thread::panicking(), "the link is removed");
    }
}

pub(crate) async fn what_another_network_has_is_left_to_it(machine: &mut Machine) {
    let own = machine.config.network.bridge.clone();
    let mut config = machine.config.clone();
    config.dir.set_extension("other");
    config.network.bridge = format!("go{}", std::process::id());
    let opens = async |config: &Config| {
        let opened = Embedded::open(config.clone()).await;
        let said = opened.as_ref().err().map(|error| Chain(error).to_string());
        if let Ok(runtime) = opened {
            runtime.uninstall().await.unwrap();
        }
        said
    };
    // All of it, and a part.
    let taken = config.network.subnet;
    for prefix in [24, 20] {
        config.network.subnet = Ipv4Net::new(taken.addr(), prefix).unwrap().trunc();
        let said = opens(&config).await.expect("it does not open");
        for word in ["runtime.subnet", &config.network.subnet.to_string(), &own] {
            assert!(said.contains(word), "{word} is not in {said}");
        }
        let bridge = Path::new("/sys/class/net").join(&config.network.bridge);
        assert!(!bridge.exists(), "nothing is begun");
    }
    // One around it takes nothing away, and its own is no other's.
    let [first, second, third, _] = taken.addr().octets();
    config.network.subnet = Ipv4Net::new_assert(Ipv4Addr::new(10, 126, second, third), 29);
    let around = Elsewhere::new(&format!("{first}.126.255.254/16")).await;
    assert_eq!(opens(&config).await, None);
    drop(around);
    machine.restart().await;
}
