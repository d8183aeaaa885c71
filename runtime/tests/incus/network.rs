//! What containers may reach, and who may reach them.

use std::net::{IpAddr, SocketAddr};

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
};

use crate::{
    contract::{Host as _, order, until},
    machine::{Machine, OPEN_PORT},
};

/// What a page of a container's own server says, asked from the host.
async fn page(address: IpAddr) -> std::io::Result<String> {
    let mut stream = TcpStream::connect(SocketAddr::new(address, 8000)).await?;
    stream.write_all(b"GET /page HTTP/1.0\r\n\r\n").await?;
    let mut text = String::new();
    stream.read_to_string(&mut text).await?;
    Ok(text)
}

pub(crate) async fn containers_reach_neither_each_other_nor_the_host_nor_take_addresses(
    machine: &mut Machine,
) {
    let runtime = machine.runtime();
    let (one, two) = (order(machine, 1), order(machine, 2));
    let first = runtime.ensure_running(&one).await.unwrap().address;
    let second = runtime.ensure_running(&two).await.unwrap().address;
    for n in [1, 2] {
        machine.shell(n, &format!("echo I am {n} > /tmp/page; httpd -p 8000 -h /tmp")).await;
    }
    for (n, address) in [(1, first), (2, second)] {
        until("the host reaches it", async || {
            page(address).await.is_ok_and(|text| text.contains(&format!("I am {n}")))
        })
        .await;
    }
    let get = |address: String| {
        format!("wget -q -T 2 -O - http://{address}/page >/dev/null 2>&1 && echo got || echo no")
    };
    assert_eq!(machine.shell(1, &get(format!("{second}:8000"))).await, "no", "its neighbour");
    let gateway = machine.config.network.subnet.hosts().next().unwrap();
    let closed = TcpListener::bind((gateway, 0)).await.unwrap();
    let open = TcpListener::bind((gateway, OPEN_PORT)).await.unwrap();
    let dial = |port: u16| format!("nc -w 2 {gateway} {port} </dev/null && echo got || echo no");
    let closed = closed.local_addr().unwrap().port();
    assert_eq!(machine.shell(1, &dial(closed)).await, "no", "the host's other ports");
    let accept = async { open.accept().await.map(drop) };
    let open_port = dial(OPEN_PORT);
    let (dialled, accepted) = tokio::join!(machine.shell(1, &open_port), accept);
    assert!(accepted.is_ok() && dialled == "got", "the edge: {dialled}");
    // Root in a container may give itself any address, with and without the other's hardware.
    let hardware = machine.shell(2, "cat /sys/class/net/eth0/address").await;
    let take = format!(
        "ip link set eth0 down; ip link set eth0 address {hardware}; ip link set eth0 up; \
         ip addr add {second}/27 dev eth0; ip route add default via {gateway}; \
         arping -c 2 -w 2 -U -I eth0 {second} >/dev/null 2>&1; echo tried"
    );
    assert_eq!(machine.shell(1, &take).await, "tried");
    let text = page(second).await.unwrap();
    assert!(text.contains("I am 2"), "{text}");
    assert_eq!(machine.shell(1, &dial(OPEN_PORT)).await, "no", "it is heard no more");
}
