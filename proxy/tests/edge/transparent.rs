//! Containers that see their clients' own addresses: client, edge and container in network namespaces
//! of the test, with the routing that `scripts/transparent` installs.

use std::{
    fs::File,
    mem::ManuallyDrop,
    net::{IpAddr, SocketAddr},
    os::fd::AsFd,
    path::Path,
    process::Command,
    thread,
};

use gantry_model::Phase;
use gantry_proxy::UpstreamSource;
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use crate::{
    bed::{Bed, CONTAINER, Setup, host},
    origin::{Origin, reply},
};

const SCRIPT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../scripts/transparent");

/// A network namespace, removed when dropped.
struct Space(String);

impl Space {
    fn new(role: &str) -> Self {
        let this = Self(format!("gantry-{}-{role}", std::process::id()));
        run(&format!("ip netns add {}", this.0));
        this.run("ip link set lo up");
        this
    }

    /// Runs a command inside.
    fn run(&self, command: &str) -> String {
        run(&format!("ip netns exec {} {command}", self.0))
    }

    /// Does something in a thread that is inside; what the thread starts is inside, too.
    fn inside<T: Send>(&self, act: impl FnOnce() -> T + Send) -> T {
        let space = File::open(Path::new("/run/netns").join(&self.0)).unwrap();
        thread::scope(|scope| {
            let inside = scope.spawn(move || {
                let kind = Some(LinkNameSpaceType::Network);
                move_into_link_name_space(space.as_fd(), kind).unwrap();
                act()
            });
            inside.join().unwrap()
        })
    }
}

impl Drop for Space {
    fn drop(&mut self) {
        drop(Command::new("ip").args(["netns", "del", &self.0]).status());
    }
}

fn run(command: &str) -> String {
    let mut words = command.split(' ');
    let output = Command::new(words.next().unwrap()).args(words).output().unwrap();
    let text = format!(
        "{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    assert!(output.status.success(), "{command}: {text}");
    text
}

/// Whether namespaces can be made here. In CI they must be.
fn is_possible() -> bool {
    let tools = ["/usr/sbin/nft", "/usr/sbin/ip"].iter().all(|path| Path::new(path).exists());
    let possible = tools && rustix::process::geteuid().is_root();
    assert!(possible || std::env::var_os("CI").is_none(), "root, nft and ip are needed");
    if !possible {
        eprintln!("not run: root, nft and ip are needed");
    }
    possible
}

/// Client and edge joined by a cable, the container by a bridge; the edge knows the routing.
fn spaces() -> [Space; 3] {
    let [client, edge, container] = ["client", "edge", "container"].map(Space::new);
    let cable = |from: &Space, name: &str, to: &Space, other: &str| {
        from.run(&format!("ip link add {name} type veth peer name {other} netns {}", to.0));
        from.run(&format!("ip link set {name} up"));
        to.run(&format!("ip link set {other} up"));
    };
    cable(&edge, "outside", &client, "net");
    client.run("ip addr add 198.51.100.7/24 dev net");
    client.run("ip addr add 198.51.100.8/24 dev net");
    edge.run("ip addr add 198.51.100.1/24 dev outside");
    edge.run("ip link add gantry0 type bridge");
    edge.run("ip link set gantry0 up");
    edge.run("ip addr add 10.88.0.1/16 dev gantry0");
    cable(&edge, "port", &container, "eth0");
    edge.run("ip link set port master gantry0");
    container.run("ip addr add 10.88.0.2/16 dev eth0");
    container.run("ip route add default via 10.88.0.1");
    [client, edge, container]
}

#[test]
fn a_container_sees_the_addresses_of_its_clients() {
    if !is_possible() {
        return;
    }
    let [client, edge, container] = spaces();
    let first = edge.run(&format!("{SCRIPT} install"));
    assert!(first.contains("added the rule") && first.contains("gantry_transparent_gantry0"));
    assert!(edge.run(&format!("{SCRIPT} install")).contains("was there"), "again, to no effect");
    edge.run(&format!("{SCRIPT} check"));
    // It stays until the process ends: from here its address cannot be reached to wake it.
    let origin = ManuallyDrop::new(container.inside(|| {
        Origin::start("10.88.0.2:3000".parse().unwrap(), |_, stream| {
            let peer = stream.peer_addr().unwrap();
            reply(stream, "", &peer.to_string());
        })
    }));
    let bed = edge.inside(|| {
        Bed::with(
            178,
            Setup {
                upstream_source: UpstreamSource::Client,
                listen: Some("198.51.100.1".parse().unwrap()),
                container_network: "10.88.0.0/16".parse().unwrap(),
                ..Setup::default()
            },
        )
    });
    bed.set_at(CONTAINER, Phase::Running, 1, "10.88.0.2".parse().unwrap(), 0);
    let name = host(CONTAINER, "http-3000");
    // Two requests on each connection: the second may use the connection of the first.
    let seen = client.inside(|| {
        let mut connection = bed.tls_client(&name);
        [(); 2].map(|()| connection.get(&name, "/", "").text().parse::<SocketAddr>().unwrap())
    });
    assert_eq!(seen.map(|seen| seen.ip()), ["198.51.100.7".parse::<IpAddr>().unwrap(); 2]);
    assert_eq!(seen[0], seen[1], "the connection is kept for its client");
    let other = client.run(&format!(
        "curl --silent --max-time 20 --interface 198.51.100.8 --cacert {} --connect-to ::{} https://{name}:{}/",
        bed.ca_path.display(),
        bed.https(),
        bed.https().port(),
    ));
    assert!(other.starts_with("198.51.100.8:"), "and for no other: {other}");
    // A client on the edge itself has no address that could be lent.
    let own = edge.inside(|| bed.client().get(&name, "/", "").text());
    assert!(own.starts_with("10.88.0.1:"), "{own}");
    assert_eq!(origin.last().values("x-forwarded-for"), ["127.0.0.1"]);
    let removed = edge.run(&format!("{SCRIPT} remove"));
    assert!(removed.contains("removed table") && removed.contains("removed the rule"));
    edge.run(&format!("{SCRIPT} remove"));
    assert!(!edge.run("ip rule show").contains("0x6761"));
    let left = edge.run("nft list tables");
    assert!(!left.contains("gantry_transparent"), "{left}");
    drop(bed);
}
