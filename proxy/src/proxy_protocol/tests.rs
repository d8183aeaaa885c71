use std::{fs, net::SocketAddr, path::Path};

use proptest::prelude::*;

use super::*;

#[path = "../../fuzz/laws.rs"]
mod laws;

fn socket(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

fn v2(command: u8, kind: u8, rest: &[u8]) -> Vec<u8> {
    let length = u16::try_from(rest.len()).unwrap().to_be_bytes();
    [b"\r\n\r\n\0\r\nQUIT\n".as_slice(), &[command, kind], &length, rest].concat()
}

const IPV4: [u8; 12] = [192, 0, 2, 1, 198, 51, 100, 2, 0xe0, 0x00, 0x01, 0xbb];

#[test]
fn a_line_says_who_is_there() {
    for (line, source) in [
        ("PROXY TCP4 192.0.2.1 198.51.100.2 57344 443\r\n", Some("192.0.2.1:57344")),
        ("PROXY TCP4 255.255.255.255 255.255.255.255 65535 0\r\n", Some("255.255.255.255:65535")),
        ("PROXY TCP6 2001:db8::1 ::1 1 2\r\n", Some("[2001:db8::1]:1")),
        ("PROXY UNKNOWN\r\n", None),
        ("PROXY UNKNOWN ffff:f::1 ffff:f::2 65535 65535\r\n", None),
    ] {
        for behind in ["", "\n", "GET / HTTP/1.1\r\n"] {
            let octets = [line, behind].concat();
            let header = parse(octets.as_bytes()).unwrap().unwrap();
            assert_eq!(header.len, line.len());
            assert_eq!(header.ends.map(|ends| ends.source), source.map(socket), "{line}");
        }
    }
}

#[test]
fn a_line_has_one_spelling() {
    let long = format!("PROXY UNKNOWN {}\r\n", "x".repeat(100));
    for (line, error) in [
        ("PROXY  TCP4 192.0.2.1 198.51.100.2 1 2\r\n", Malformed::Unknown),
        ("PROXY TCP4 192.0.2.1  198.51.100.2 1 2\r\n", Malformed::Addresses),
        ("PROXY TCP4 192.0.2.1 198.51.100.2 1 2 \r\n", Malformed::Addresses),
        ("PROXY TCP4 192.0.2.1 198.51.100.2 1\r\n", Malformed::Addresses),
        ("PROXY TCP4 192.0.2.1 198.51.100.2 1 65536\r\n", Malformed::Addresses),
        ("PROXY TCP4 192.0.2.1 198.51.100.2 01 2\r\n", Malformed::Addresses),
        ("PROXY TCP4 192.0.2.1 198.51.100.2 +1 2\r\n", Malformed::Addresses),
        ("PROXY TCP4 192.0.2.01 198.51.100.2 1 2\r\n", Malformed::Addresses),
        ("PROXY TCP4 192.0.2 198.51.100.2 1 2\r\n", Malformed::Addresses),
        ("PROXY TCP4 2001:db8::1 ::1 1 2\r\n", Malformed::Addresses),
        ("PROXY TCP6 192.0.2.1 198.51.100.2 1 2\r\n", Malformed::Addresses),
        ("PROXY TCP4 192.0.2.1 198.51.100.2 1 2\n", Malformed::Addresses),
        ("PROXY UDP4 192.0.2.1 198.51.100.2 1 2\r\n", Malformed::Unknown),
        ("PROXY tcp4 192.0.2.1 198.51.100.2 1 2\r\n", Malformed::Unknown),
        ("proxy TCP4 192.0.2.1 198.51.100.2 1 2\r\n", Malformed::Missing),
        ("PROXY\r\n", Malformed::Missing),
        ("GET / HTTP/1.1\r\n", Malformed::Missing),
        ("\u{16}\u{3}\u{1}", Malformed::Missing),
        (&long, Malformed::TooLong),
    ] {
        assert_eq!(parse(line.as_bytes()), Err(error), "{line:?}");
    }
}

#[test]
fn a_binary_header_says_who_is_there() {
    let v4 = parse(&v2(0x21, 0x11, &IPV4)).unwrap().unwrap();
    let ends = v4.ends.unwrap();
    assert_eq!(ends.source, socket("192.0.2.1:57344"));
    assert_eq!(ends.destination, socket("198.51.100.2:443"));
    let mut six = [0; 36];
    (six[15], six[31], six[33], six[35]) = (1, 2, 3, 4);
    let ends = parse(&v2(0x21, 0x21, &six)).unwrap().unwrap().ends.unwrap();
    assert_eq!((ends.source, ends.destination), (socket("[::1]:3"), socket("[::2]:4")));
    for (command, kind, rest) in
        [(0x20, 0x00, &b""[..]), (0x20, 0x11, &IPV4), (0x20, 0xff, b"any"), (0x21, 0x00, b"any")]
    {
        let octets = v2(command, kind, rest);
        let header = parse(&octets).unwrap().unwrap();
        assert_eq!((header.len, header.ends), (octets.len(), None), "{command:x} {kind:x}");
    }
}

#[test]
fn a_binary_header_is_refused_for_what_it_is() {
    let with = |extensions: &[u8]| v2(0x21, 0x11, &[&IPV4, extensions].concat());
    let long = v2(0x21, 0x11, &vec![0; HEADER_MAX]);
    for (octets, error) in [
        (v2(0x11, 0x11, &IPV4), Malformed::Unknown),
        (v2(0x22, 0x11, &IPV4), Malformed::Unknown),
        (v2(0x21, 0x12, &IPV4), Malformed::Unknown),
        (v2(0x21, 0x31, &[0; 216]), Malformed::Unknown),
        (v2(0x21, 0x11, &IPV4[..11]), Malformed::Addresses),
        (v2(0x21, 0x21, &[0; 35]), Malformed::Addresses),
        (with(&[4]), Malformed::Extensions),
        (with(&[4, 0, 2, 0]), Malformed::Extensions),
        (with(&[4, 0xff, 0xff]), Malformed::Extensions),
        (with(&[3, 0, 3, 0, 0, 0]), Malformed::Extensions),
        (with(&[3, 0, 4, 0, 0, 0, 0]), Malformed::Checksum),
        (long[..16].to_vec(), Malformed::TooLong),
    ] {
        assert_eq!(parse(&octets), Err(error), "{octets:?}");
    }
    assert!(parse(&with(&[4, 0, 0, 0xe0, 0, 1, 7])).unwrap().is_some(), "unknown ones are skipped");
}

#[test]
fn a_checksum_that_is_there_must_be_right() {
    // The check value of CRC-32C for "123456789", from the catalogue of parametrised algorithms.
    let crc = !b"123456789".iter().fold(u32::MAX, |crc, &octet| v2::crc32c(crc, octet));
    assert_eq!(crc, 0xe306_9283);
    let mut octets = v2(0x21, 0x11, &[&IPV4[..], &[4, 0, 1, 9, 3, 0, 4, 0, 0, 0, 0]].concat());
    let at = octets.len() - 4;
    let crc = !octets.iter().fold(u32::MAX, |crc, &octet| v2::crc32c(crc, octet));
    octets[at..].copy_from_slice(&crc.to_be_bytes());
    assert!(parse(&octets).unwrap().is_some());
    let kind = at - 3;
    // Without its kind it is another extension, and there is no checksum.
    for bit in (0..octets.len() * 8).filter(|bit| bit / 8 != kind) {
        let mut changed = octets.clone();
        changed[bit / 8] ^= 1 << (bit % 8);
        let same = parse(&octets);
        assert_ne!(parse(&changed), same, "bit {bit}");
    }
}

#[test]
fn what_is_not_whole_is_waited_for() {
    let binary = v2(0x21, 0x11, &IPV4);
    for whole in [b"PROXY TCP4 192.0.2.1 198.51.100.2 1 2\r\n".as_slice(), &binary] {
        for end in 0..whole.len() {
            assert_eq!(parse(&whole[..end]), Ok(None), "{end} of {whole:?}");
        }
    }
}

#[test]
fn the_seeds_of_the_fuzz_target_hold_the_laws() {
    let seeds = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus/proxy_protocol");
    let files: Vec<_> = fs::read_dir(seeds).unwrap().map(|entry| entry.unwrap().path()).collect();
    assert!(files.len() >= 12, "{files:?}");
    for file in files {
        laws::proxy_protocol(&fs::read(file).unwrap());
    }
}

fn any_socket() -> impl Strategy<Value = SocketAddr> {
    prop_oneof![
        (any::<[u8; 4]>(), any::<u16>()).prop_map(|(ip, port)| SocketAddr::new(ip.into(), port)),
        (any::<[u8; 16]>(), any::<u16>()).prop_map(|(ip, port)| SocketAddr::new(ip.into(), port)),
    ]
}

proptest! {
    #[test]
    fn what_is_written_is_read(source in any_socket(), destination in any_socket()) {
        let mut octets = Vec::new();
        write(Ends { source, destination }, &mut octets);
        let header = parse(&octets).unwrap().unwrap();
        prop_assert_eq!(header.len, octets.len());
        let ends = header.ends.unwrap();
        prop_assert_eq!(ends.source.ip().to_canonical(), source.ip().to_canonical());
        prop_assert_eq!(ends.destination.ip().to_canonical(), destination.ip().to_canonical());
        let ports = (ends.source.port(), ends.destination.port());
        prop_assert_eq!(ports, (source.port(), destination.port()));
    }

    #[test]
    fn a_line_is_read_as_its_addresses(source in any_socket(), port in any::<u16>()) {
        let family = if source.is_ipv4() { "TCP4" } else { "TCP6" };
        let ip = source.ip();
        let line = format!("PROXY {family} {ip} {ip} {} {port}\r\n", source.port());
        let ends = parse(line.as_bytes()).unwrap().unwrap().ends.unwrap();
        prop_assert_eq!(ends, Ends { source, destination: SocketAddr::new(ip, port) });
    }

    #[test]
    fn any_octets_hold_the_laws(octets in any::<Vec<u8>>(), start in 0_usize..3) {
        let starts: [&[u8]; 3] = [b"", b"PROXY ", b"\r\n\r\n\0\r\nQUIT\n\x21"];
        laws::proxy_protocol(&[starts[start], &octets].concat());
    }
}
