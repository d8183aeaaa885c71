//! What the edge agrees to with a client of TLS that offers one thing alone.

use std::{
    net::{SocketAddr, TcpStream},
    process::{Command, Stdio},
    time::Duration,
};

use crate::{
    bed::{Bed, CONTAINER, host},
    origin::reply,
    python, wait_until,
};

/// No connection, by curl's numbers.
const REFUSED: &str = "error 35";

#[test]
fn each_key_exchange_is_enough_by_itself() {
    let bed = Bed::new(138);
    let _origin = bed.running_with(|_seen, stream| reply(stream, "", "hello"));
    let name = host(CONTAINER, "http-3000");
    let Some(mut client) = python::ask(&bed, "tls_client.py", &name, &[]) else { return };
    for (offered, want) in [
        // A recording of it stays closed even to a quantum computer.
        ("X25519MLKEM768", "200"),
        ("X25519", "200"),
        ("P-256", "200"),
        ("P-384", "200"),
        // Of no use to anybody who has the others.
        ("P-521", REFUSED),
        ("TLS 1.2", "200"),
        ("TLS 1.1", REFUSED),
    ] {
        assert_eq!(client.line(), format!("{offered}: {want}"));
    }
    client.ends();
}

#[test]
fn the_edge_chooses_the_cipher() {
    let bed = Bed::new(136);
    let name = host(CONTAINER, "http-3000");
    let chosen = |arguments: &[&str]| {
        let output = Command::new("openssl")
            .args(["s_client", "-connect", &bed.https().to_string(), "-servername", &name])
            .args(arguments)
            .stdin(Stdio::null())
            .output()
            .unwrap();
        String::from_utf8_lossy(&output.stdout).into_owned()
    };
    for (of_13, of_12) in [
        ("TLS_CHACHA20_POLY1305_SHA256:TLS_AES_128_GCM_SHA256", "ECDHE+CHACHA20:ECDHE+AESGCM"),
        ("TLS_AES_256_GCM_SHA384:TLS_AES_128_GCM_SHA256", "ECDHE+AES256:ECDHE+AES128"),
    ] {
        let text = chosen(&["-ciphersuites", of_13]);
        assert!(text.contains("Cipher is TLS_AES_128_GCM_SHA256"), "{of_13}: {text}");
        let text = chosen(&["-tls1_2", "-cipher", of_12]);
        assert!(text.contains("Cipher is ECDHE-ECDSA-AES128-GCM-SHA256"), "{of_12}: {text}");
    }
    // Who has nothing else gets that.
    let text = chosen(&["-ciphersuites", "TLS_CHACHA20_POLY1305_SHA256"]);
    assert!(text.contains("Cipher is TLS_CHACHA20_POLY1305_SHA256"), "{text}");
}

/// The client offers no more than it says: a server that has X25519 alone agrees to that and nothing else.
#[test]
fn the_client_offers_one_key_exchange_alone() {
    let bed = Bed::new(139);
    let name = "one.example".to_owned();
    let made = rcgen::generate_simple_self_signed([name.clone()]).unwrap();
    let directory = tempfile::tempdir().unwrap();
    let (certificate, key) = (directory.path().join("certificate"), directory.path().join("key"));
    std::fs::write(&certificate, made.cert.pem()).unwrap();
    std::fs::write(&key, made.signing_key.serialize_pem()).unwrap();
    let address = SocketAddr::new(bed.container_address(2), 9443);
    let server = Command::new("openssl")
        .args(["s_server", "-www", "-groups", "X25519", "-accept", &address.to_string()])
        .arg("-cert")
        .arg(&certificate)
        .arg("-key")
        .arg(&key)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn();
    let mut server = server.unwrap();
    let listens = || TcpStream::connect(address).is_ok();
    let listens = wait_until("OpenSSL listens", Duration::from_secs(10), listens);
    let (ip, ca) = (address.ip().to_string(), certificate.to_str().unwrap().to_owned());
    let lines =
        python::start("tls_client.py", &[&ip, "9443", &name, &ca]).map(python::Program::ends);
    server.kill().unwrap();
    server.wait().unwrap();
    listens.unwrap();
    let Some(lines) = lines else { return };
    let (hybrid, classic) = (lines.lines().next(), lines.lines().nth(1));
    assert_eq!((hybrid, classic), (Some("X25519MLKEM768: error 35"), Some("X25519: 200")));
}
