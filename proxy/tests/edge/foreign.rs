//! Clients that others wrote.

use std::process::{Command, Output};

use crate::{
    bed::{Bed, CONTAINER, host},
    origin::{reply, send},
};

/// Runs curl against the edge; nothing if there is no curl.
pub(crate) fn curl(bed: &Bed, name: &str, arguments: &[&str]) -> Option<Output> {
    let address = bed.https();
    let connect = format!("::{address}");
    let output = Command::new("curl")
        .args(["--silent", "--show-error", "--max-time", "20", "--connect-to", &connect])
        .arg("--cacert")
        .arg(&bed.ca_path)
        .args(arguments)
        .arg(format!("https://{name}:{}/file", address.port()))
        .output();
    output.inspect_err(|error| eprintln!("not run, curl: {error}")).ok()
}

#[test]
fn curl_is_served_by_both_versions_of_http_and_of_tls() {
    let bed = Bed::new(120);
    let _origin = bed.running_with(|seen, stream| {
        let length = seen.body.len();
        reply(stream, "", &format!("{} {length}", seen.line().split(' ').next().unwrap()));
    });
    let name = host(CONTAINER, "http-3000");
    let body = "x".repeat(1_000_000);
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), &body).unwrap();
    let data = format!("@{}", file.path().display());
    let show = ["--write-out", " %{http_version} %{http_code}"];
    for (arguments, want) in [
        (&["--http1.1"][..], "GET 0 1.1 200"),
        (&["--http2"], "GET 0 2 200"),
        (&["--http2", "--tls-max", "1.2"], "GET 0 2 200"),
        (&["--http1.1", "--tls-max", "1.2"], "GET 0 1.1 200"),
        (&["--http1.1", "--data-binary", &data], "POST 1000000 1.1 200"),
        (&["--http2", "--data-binary", &data], "POST 1000000 2 200"),
        (
            &["--http1.1", "-H", "Transfer-Encoding: chunked", "-T", file.path().to_str().unwrap()],
            "PUT 1000000 1.1 200",
        ),
    ] {
        let Some(output) = curl(&bed, &name, &[arguments, &show].concat()) else { return };
        let text = String::from_utf8_lossy(&output.stdout);
        let error = String::from_utf8_lossy(&output.stderr);
        assert_eq!(text, want, "{arguments:?} {error}");
    }
    let Some(output) = curl(&bed, &name, &["--tls-max", "1.1"]) else { return };
    assert!(!output.status.success(), "TLS 1.1 is not spoken");
}

#[test]
fn curl_gets_a_large_answer_whole() {
    let bed = Bed::new(121);
    let octets: Vec<u8> = (0..5_000_000_u32).map(|n| n.to_le_bytes()[n as usize % 3]).collect();
    let sent = octets.clone();
    let _origin = bed.running_with(move |seen, stream| {
        if seen.values("x-close").is_empty() {
            send(stream, format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", sent.len()));
            send(stream, &sent);
        } else {
            send(stream, "HTTP/1.0 200 OK\r\n\r\n");
            send(stream, &sent);
            stream.shutdown(std::net::Shutdown::Both).unwrap();
        }
    });
    let name = host(CONTAINER, "http-3000");
    for arguments in [
        &["--http1.1"][..],
        &["--http2"],
        &["--http1.1", "-H", "X-Close: 1"],
        &["--http2", "-H", "X-Close: 1"],
    ] {
        let Some(output) = curl(&bed, &name, arguments) else { return };
        assert!(output.stdout == octets, "{arguments:?}: {}", output.stdout.len());
    }
}

#[test]
fn openssl_agrees_with_the_handshake() {
    let bed = Bed::new(122);
    let name = host(CONTAINER, "http-3000");
    let run = |arguments: &[&str]| {
        let output = Command::new("openssl")
            .args(["s_client", "-connect", &bed.https().to_string(), "-servername", &name])
            .arg("-CAfile")
            .arg(&bed.ca_path)
            .args(arguments)
            .stdin(std::process::Stdio::null())
            .output();
        let output = output.inspect_err(|error| eprintln!("not run, openssl: {error}")).ok()?;
        Some(String::from_utf8_lossy(&output.stdout).into_owned())
    };
    let Some(text) = run(&["-alpn", "http/1.1,h2", "-verify_hostname", &name]) else { return };
    for want in ["Verification: OK", "ALPN protocol: h2", "TLSv1.3", "X25519"] {
        assert!(text.contains(want), "{want} in {text}");
    }
    let text = run(&["-tls1_2", "-alpn", "http/1.1"]).unwrap();
    for want in ["ALPN protocol: http/1.1", "TLSv1.2", "Secure Renegotiation IS supported"] {
        assert!(text.contains(want), "{want} in {text}");
    }
}
