//! What owners' firewall rules do to real connections, on either runtime.

use std::{io::ErrorKind, net::IpAddr, time::Duration};

use gantry_model::firewall::Rules;
use gantry_runtime::{Firewall, Order};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    process::Command,
    time::timeout,
};

use crate::{
    contract::{Host as _, order, until},
    machine::{Machine, OPEN_PORT},
};

fn rules(version: u64, ingress: &Value, egress: &Value) -> Firewall {
    let rules = Rules::read(&json!({ "ingress": ingress, "egress": egress })).unwrap();
    Firewall { version, rules }
}

fn none(version: u64) -> Firewall {
    Firewall { version, rules: Rules::default() }
}

fn rule(action: &str, protocol: &str, more: &Value) -> Value {
    let mut rule = json!({ "action": action, "protocol": protocol, "description": "" });
    for (name, value) in more.as_object().unwrap() {
        rule[name] = value.clone();
    }
    rule
}

/// How the host's attempt to connect ends; none when nothing answers.
async fn connect(address: IpAddr, port: u16) -> Option<std::io::Result<TcpStream>> {
    timeout(Duration::from_secs(2), TcpStream::connect((address, port))).await.ok()
}

async fn passes(address: IpAddr, port: u16) -> bool {
    connect(address, port).await.is_some_and(|connected| connected.is_ok())
}

async fn is_refused(address: IpAddr, port: u16) -> bool {
    connect(address, port).await.is_some_and(
        |connected| matches!(connected, Err(error) if error.kind() == ErrorKind::ConnectionRefused),
    )
}

pub(crate) async fn rules_decide_about_connections(machine: &mut Machine) {
    let serve = "for port in 8080 8081; do httpd -p $port -h /etc; done";
    let refused = rule("reject", "tcp", &json!({ "destination_port": "8081" }));
    let firewall = rules(1, &json!([refused]), &json!([]));
    let (runtime, order) = (machine.runtime(), Order { firewall, ..order(machine, 1) });
    let address = runtime.ensure_running(&order).await.unwrap().address;
    machine.shell(1, serve).await;
    until("its server answers", async || passes(address, 8080).await).await;
    assert!(is_refused(address, 8081).await, "the rules of its order hold from the beginning");

    runtime.ensure_firewall(order.id, &none(2)).await.unwrap();
    let mut before = connect(address, 8081).await.expect("an answer").expect("a connection");
    let gateway = machine.config.network.subnet.hosts().next().unwrap();
    let table = format!("gantryowners_{}", machine.config.network.bridge);
    let first = rule("allow", "tcp", &json!({ "destination_port": "8080", "source": gateway }));
    let off = rule("allow", "tcp", &json!({ "destination_port": "8081", "state": "disabled" }));
    let rest = rule("drop", "tcp", &json!({ "destination_port": "1-65535" }));
    let closed = rules(3, &json!([first, off, rest]), &json!([]));
    runtime.ensure_firewall(order.id, &closed).await.unwrap();
    runtime.ensure_firewall(order.id, &none(2)).await.unwrap();
    runtime.ensure_running(&order).await.unwrap();
    assert!(passes(address, 8080).await, "the first rule that fits decides, and no older ones");
    assert!(connect(address, 8081).await.is_none(), "what is dropped is not answered");
    before.write_all(b"GET /hostname HTTP/1.0\r\n\r\n").await.unwrap();
    let answer = timeout(Duration::from_secs(2), before.read_u8()).await;
    assert!(answer.is_err(), "a connection that exists is no exception: {answer:?}");

    drop(runtime);
    let runtime = machine.restart().await;
    assert!(connect(address, 8081).await.is_none(), "they hold while the next one knows nothing");
    assert!(passes(address, 8080).await);
    let nft = async |args: &[&str]| {
        let output = Command::new("nft").args(args).output().await.unwrap();
        assert!(output.status.success(), "nft {args:?}");
        String::from_utf8(output.stdout).unwrap()
    };
    runtime.ensure_firewall(order.id, &closed).await.unwrap();
    nft(&["delete", "table", "inet", &table]).await;
    assert!(passes(address, 8081).await, "somebody has emptied the packet filter");
    runtime.list().await.unwrap();
    assert!(connect(address, 8081).await.is_none(), "the next look installs it again");
    runtime.ensure_firewall(order.id, &none(4)).await.unwrap();
    assert!(passes(address, 8081).await, "without rules it is open again");

    let ping = format!("ping -c 1 -W 2 {gateway} >/dev/null 2>&1 && echo got || echo no");
    let dial = format!("nc -w 2 {gateway} {OPEN_PORT} </dev/null && echo got || echo no");
    let open = TcpListener::bind((gateway, OPEN_PORT)).await.unwrap();
    let accept = async { open.accept().await.map(drop) };
    let (dialled, accepted) = tokio::join!(machine.shell(1, &dial), accept);
    assert!(accepted.is_ok() && dialled == "got", "{dialled}");
    assert_eq!(machine.shell(1, &ping).await, "got");
    let host = json!({ "destination": format!("{gateway}"), "destination_port": "1-65535" });
    let echo = rule("drop", "icmp4", &json!({ "icmp_type": "8" }));
    let shut = rules(5, &json!([]), &json!([rule("reject", "tcp", &host), echo]));
    runtime.ensure_firewall(order.id, &shut).await.unwrap();
    assert_eq!(machine.shell(1, &dial).await, "no", "what it may not reach");
    assert_eq!(machine.shell(1, &ping).await, "no", "nor by ICMP");
    assert!(passes(address, 8080).await, "its answers are no connections of its own");

    runtime.ensure_deleted(order.id).await.unwrap();
    let listed = nft(&["list", "table", "inet", &table]).await;
    assert!(listed.contains("hook output") && !listed.contains("gress_"), "{listed}");
}
