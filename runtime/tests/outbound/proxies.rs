//! Containers whose TCP leaves through the proxies of others: microsocks and tinyproxy.

use std::{net::Ipv4Addr, path::Path, process::Stdio, time::Duration};

use gantry_model::{
    firewall::Rules,
    outbound::{Endpoint, Scheme},
};
use gantry_runtime::{Firewall, Order, Outbound, Proxy, Runtime, Way};
use serde_json::json;
use tokio::{
    net::TcpListener,
    process::{Child, Command},
};

use super::{fetch, stays_away};
use crate::{
    contract::{Host as _, order, until},
    machine::{Machine, OPEN_PORT},
    world::{NAMED, World},
};

const SOCKS: u16 = 1080;
const HTTP: u16 = 3128;

/// A program in the world, which ends with its handle.
fn start(world: &World, argv: &[&str]) -> Child {
    let words = [&["netns", "exec", world.name.as_str()], argv].concat();
    let log = Stdio::null;
    Command::new("ip").args(words).stdout(log()).stderr(log()).kill_on_drop(true).spawn().unwrap()
}

async fn listens(world: &World, port: u16) {
    until("a proxy listens", async || {
        tokio::net::TcpStream::connect((world.own.as_str(), port)).await.is_ok()
    })
    .await;
}

async fn start_socks(world: &World) -> Child {
    let port = SOCKS.to_string();
    let child =
        start(world, &["microsocks", "-i", &world.own, "-p", &port, "-u", "al", "-P", "s:t"]);
    listens(world, SOCKS).await;
    child
}

async fn start_http(world: &World, dir: &Path) -> Child {
    let config = dir.join("tinyproxy.conf");
    let text = format!("Port {HTTP}\nListen {}\nBasicAuth al secret\nTimeout 60\n", world.own);
    std::fs::write(&config, text).unwrap();
    let child = start(world, &["tinyproxy", "-d", "-c", config.to_str().unwrap()]);
    listens(world, HTTP).await;
    child
}

fn through(version: u64, scheme: Scheme, url: &str, world: &World) -> Outbound {
    let (endpoint, credentials) = Endpoint::parse(scheme, url).unwrap();
    let dns_servers = vec![world.own.parse().unwrap()];
    Outbound { version, way: Way::Through(Proxy { endpoint, credentials, dns_servers }) }
}

/// The owner's rules are about where it was to go.
async fn rules_are_about_the_aim(
    machine: &Machine,
    runtime: &dyn Runtime,
    own: &str,
    (dial, carried): (&str, &str),
) {
    let id = order(machine, 1).id;
    let rule = json!({ "action": "reject", "protocol": "tcp", "description": "",
        "destination": own, "destination_port": "9000" });
    let rules = Rules::read(&json!({ "ingress": [], "egress": [rule] })).unwrap();
    runtime.ensure_firewall(id, &Firewall { version: 1, rules }).await.unwrap();
    assert_eq!(machine.shell(1, dial).await, "", "what its owner closes");
    let none = Firewall { version: 2, rules: Rules::default() };
    runtime.ensure_firewall(id, &none).await.unwrap();
    assert_eq!(machine.shell(1, dial).await, carried);
}

pub(crate) async fn tcp_and_names_leave_through_the_proxy_of_the_owner_only(machine: &mut Machine) {
    let world = World::new().await;
    machine.config.network.proxy_networks = vec!["198.18.0.0/15".parse().unwrap()];
    let runtime = machine.restart().await;
    let own = world.own.clone();
    let socks = |version, user: &str| {
        through(version, Scheme::Socks5, &format!("socks5://{user}@{own}:{SOCKS}"), &world)
    };
    let mut proxy = start_socks(&world).await;
    let order = Order { outbound: socks(1, "al:s%3At"), ..order(machine, 1) };
    let address = runtime.ensure_running(&order).await.unwrap().address;
    machine.shell(1, "httpd -p 8080 -h /etc").await;
    until("its server answers the edge", async || fetch(address).await.is_some()).await;

    // The proxy ends both ways when one of them has ended.
    let dial = format!(
        "rm -f /got /over; until [ -s /got ] || [ -e /over ]; do sleep 0.1; done \
         | {{ nc -w 3 {own} 9000 >/got; touch /over; }}; cat /got"
    );
    let carried = format!("seen from {own}");
    assert_eq!(machine.shell(1, &dial).await, carried, "the proxy connects, not the host");
    let looked = machine.shell(1, &format!("nslookup carried.example {own}")).await;
    assert!(looked.contains(&Ipv4Addr::from(NAMED).to_string()), "{looked}");
    let asked = world.asked();
    assert!(!asked.is_empty() && asked.iter().all(|(over, _)| *over == "tcp"), "{asked:?}");
    assert_eq!(runtime.outbound(order.id).await.unwrap().unwrap().fault, None);

    // Nothing else leaves it, and nothing of the host is behind the proxy.
    let gateway = machine.config.network.subnet.hosts().next().unwrap();
    let open = TcpListener::bind((gateway, OPEN_PORT)).await.unwrap();
    let relay = machine.config.network.relay_port;
    let script = format!(
        "ping -c 1 -W 1 {host} >/dev/null 2>&1 && echo ping; \
         for place in '{gateway} {OPEN_PORT}' '{gateway} {relay}' '127.0.0.2 9000' '{host} 9000'; do \
         nc -w 1 $place </dev/null; done",
        host = world.host,
    );
    let (said, is_away) = tokio::join!(machine.shell(1, &script), stays_away(open.accept()));
    assert!(said.is_empty() && is_away, "{said}");

    rules_are_about_the_aim(machine, &*runtime, &own, (&dial, &carried)).await;

    proxy.kill().await.unwrap();
    assert_eq!(machine.shell(1, &dial).await, "", "without its proxy it reaches nobody");
    let fault = runtime.outbound(order.id).await.unwrap().unwrap().fault.unwrap();
    assert!(fault.contains("cannot be reached") && !fault.contains("s:t"), "{fault}");
    let _proxy = start_socks(&world).await;
    assert_eq!(machine.shell(1, &dial).await, carried);
    runtime.ensure_outbound(order.id, &socks(2, "al:wrong")).await.unwrap();
    assert_eq!(machine.shell(1, &dial).await, "", "nor with wrong credentials");
    let fault = runtime.outbound(order.id).await.unwrap().unwrap().fault.unwrap();
    assert!(fault.contains("credentials"), "{fault}");

    let dir = tempfile::tempdir().unwrap();
    let _http = start_http(&world, dir.path()).await;
    let url = format!("http://al:secret@{own}:{HTTP}");
    runtime.ensure_outbound(order.id, &through(3, Scheme::Http, &url, &world)).await.unwrap();
    assert_eq!(machine.shell(1, &dial).await, carried, "by CONNECT");

    drop(runtime);
    let runtime = machine.restart().await;
    assert_eq!(machine.shell(1, &dial).await, "", "nothing passes until the next one is told");
    runtime.ensure_outbound(order.id, &socks(5, "al:s%3At")).await.unwrap();
    assert_eq!(machine.shell(1, &dial).await, carried);
    assert!(fetch(address).await.is_some(), "what comes in is answered");
    let direct = Outbound { version: 6, way: Way::Direct };
    runtime.ensure_outbound(order.id, &direct).await.unwrap();
    assert_eq!(machine.shell(1, &dial).await, format!("seen from {}", world.host));

    // A place that the operator does not allow.
    drop(runtime);
    machine.config.network.proxy_networks.clear();
    let runtime = machine.restart().await;
    runtime.ensure_outbound(order.id, &socks(7, "al:s%3At")).await.unwrap();
    assert_eq!(machine.shell(1, &dial).await, "");
    let fault = runtime.outbound(order.id).await.unwrap().unwrap().fault.unwrap();
    assert!(fault.contains("does not allow"), "{fault}");
    runtime.ensure_stopped(order.id, Duration::ZERO).await.unwrap();
    runtime.ensure_deleted(order.id).await.unwrap();
}
