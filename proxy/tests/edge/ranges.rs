//! Parts of files, conditions and lengths without bodies: what nginx answers to a client beside it, it
//! answers to a client of the edge, by every version of HTTP.

use std::{
    fmt::Write,
    fs,
    net::SocketAddr,
    path::Path,
    process::Command,
    time::{Duration, SystemTime},
};

use gantry_model::Phase;
use serde_json::{Value, json};

use crate::{
    bed::{Bed, CONTAINER, host},
    client::{Client, Reply},
    python,
    servers::{PROGRAMS, Program, are_installed},
};

const NGINX: &str = "/usr/sbin/nginx";

/// What of an answer must be the same.
#[derive(Debug, PartialEq, Eq)]
struct Answer {
    status: u16,
    fields: Vec<(&'static str, Option<String>)>,
    body: Vec<u8>,
}

impl Answer {
    fn new(reply: &Reply) -> Self {
        let names = [
            "content-length",
            "content-range",
            "content-type",
            "accept-ranges",
            "etag",
            "last-modified",
        ];
        let mut fields: Vec<_> =
            names.map(|name| (name, reply.value(name).map(str::to_owned))).into();
        let mut body = reply.body.clone();
        // nginx takes another boundary for each answer, all of one length.
        if let Some((_, Some(kind))) = fields.iter_mut().find(|(name, _)| *name == "content-type")
            && let Some((rest, boundary)) = kind.clone().split_once("boundary=")
        {
            *kind = rest.to_owned();
            body = String::from_utf8(body).unwrap().replace(boundary, "boundary").into_bytes();
        }
        Self { status: reply.status, fields, body }
    }
}

/// What is asked: a method, a path and fields.
type Ask = (&'static str, &'static str, Vec<(&'static str, String)>);

/// The requests, of a file with this tag.
fn asks(tag: &str, modified: &str) -> Vec<Ask> {
    let range = |range: &str| ("range", range.to_owned());
    let get = |fields: &[(&'static str, String)]| ("GET", "/file.txt", fields.to_vec());
    let date = |text: &str| text.to_owned();
    vec![
        get(&[]),
        ("HEAD", "/file.txt", Vec::new()),
        ("HEAD", "/file.txt", vec![range("bytes=0-9")]),
        ("HEAD", "/nothing.txt", Vec::new()),
        ("GET", "/empty.txt", Vec::new()),
        ("HEAD", "/empty.txt", Vec::new()),
        ("GET", "/empty.txt", vec![range("bytes=0-")]),
        get(&[range("bytes=0-0")]),
        get(&[range("bytes=10-19")]),
        get(&[range("bytes=299990-")]),
        get(&[range("bytes=-7")]),
        get(&[range("bytes=5-1000000")]),
        get(&[range("bytes=0-9,20-29,-3")]),
        get(&[range("bytes=0-9, 5-14")]),
        ("GET", "/limited.txt", vec![range("bytes=0-9,20-29")]),
        get(&[range("bytes=300000-")]),
        get(&[range("bytes=9-1")]),
        get(&[range("octets=0-9")]),
        get(&[range("bytes=x")]),
        get(&[range("bytes=0-9"), ("if-range", tag.to_owned())]),
        get(&[range("bytes=0-9"), ("if-range", "\"other\"".to_owned())]),
        get(&[range("bytes=0-9"), ("if-range", date(modified))]),
        get(&[range("bytes=0-9"), ("if-range", date("Thu, 01 Jan 1970 00:00:00 GMT"))]),
        get(&[("if-none-match", tag.to_owned())]),
        get(&[("if-none-match", format!("\"a\", W/{tag}"))]),
        get(&[("if-match", "\"other\"".to_owned())]),
        get(&[("if-match", tag.to_owned()), range("bytes=1-2")]),
        get(&[("if-modified-since", date(modified))]),
        get(&[("if-unmodified-since", date("Thu, 01 Jan 1970 00:00:00 GMT"))]),
    ]
}

fn by_http1(mut client: Client, name: &str, (method, path, fields): &Ask) -> Answer {
    let mut head = format!("{method} {path} HTTP/1.1\r\nHost: {name}\r\n");
    for (name, value) in fields {
        write!(head, "{name}: {value}\r\n").unwrap();
    }
    client.send(head + "\r\n");
    if *method != "HEAD" {
        return Answer::new(&client.reply());
    }
    let head = client.head();
    // Nothing stands between this answer and the next.
    assert_eq!(client.get(name, "/empty.txt", "").status, 200);
    Answer::new(&parse(&head, Vec::new()))
}

/// An answer whose head is written as that of HTTP/1.
fn parse(head: &str, body: Vec<u8>) -> Reply {
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    Reply { status, head: head.to_owned(), body }
}

fn by_http2(bed: &Bed, name: &str, (method, path, fields): &Ask) -> Option<Answer> {
    let address = bed.https();
    let mut curl = Command::new("curl");
    curl.args(["--silent", "--show-error", "--http2", "--include", "--max-time", "20"])
        .args(["--connect-to", &format!("::{address}"), "--cacert"])
        .arg(&bed.ca_path)
        .arg(format!("https://{name}:{}{path}", address.port()));
    if *method == "HEAD" {
        curl.arg("--head");
    }
    for (name, value) in fields {
        curl.args(["--header", &format!("{name}: {value}")]);
    }
    let output = curl.output().inspect_err(|error| eprintln!("not run, curl: {error}")).ok()?;
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let mut body = output.stdout;
    let end = body.windows(4).position(|four| four == b"\r\n\r\n").unwrap() + 4;
    let head = String::from_utf8(body.drain(..end).collect()).unwrap();
    assert!(head.starts_with("HTTP/2 "), "{head}");
    Some(Answer::new(&parse(&head, body)))
}

/// All at once, on one connection.
fn by_http3(bed: &Bed, name: &str, asks: &[Ask]) -> Option<Vec<Answer>> {
    let asks: Vec<Value> = asks.iter().map(|ask| json!(ask)).collect();
    let asks = Value::Array(asks).to_string();
    let output = python::ask(bed, "http3_client.py", name, &["asks", &asks])?.ends();
    let told: Value = serde_json::from_str(output.lines().next().unwrap()).unwrap();
    let answer = |told: &Value| {
        let head = told[0].as_object().unwrap().iter();
        let line =
            |(name, value): (&String, &Value)| format!("{name}: {}\r\n", value.as_str().unwrap());
        let head: String = head.filter(|(name, _)| !name.starts_with(':')).map(line).collect();
        let status = told[0][":status"].as_str().unwrap();
        // One character an octet.
        let body = told[1].as_str().unwrap().chars().map(|it| u8::try_from(it).unwrap()).collect();
        Answer::new(&parse(&format!("HTTP/3 {status} \r\n{head}"), body))
    };
    Some(told.as_array().unwrap().iter().map(answer).collect())
}

/// A server of files.
fn nginx(directory: &Path, address: SocketAddr) -> Program {
    let files = directory.join("files");
    fs::create_dir(&files).unwrap();
    let text: String = ('a'..='w').cycle().take(300_000).collect();
    // Of a second that is over, so that `If-Range` may name it.
    let modified = SystemTime::UNIX_EPOCH + Duration::from_secs(1_700_000_000);
    for (name, text) in [("file.txt", &*text), ("limited.txt", &text), ("empty.txt", "")] {
        fs::write(files.join(name), text).unwrap();
        let file = fs::File::options().write(true).open(files.join(name)).unwrap();
        file.set_modified(modified).unwrap();
    }
    let configuration = fs::read_to_string(Path::new(PROGRAMS).join("nginx_files.conf")).unwrap();
    let configuration = configuration
        .replace("ADDRESS", &address.to_string())
        .replace("DIRECTORY", directory.to_str().unwrap());
    let file = directory.join("nginx.conf");
    fs::write(&file, configuration).unwrap();
    Program::start(Command::new(NGINX).arg("-p").arg(directory).arg("-c").arg(&file), address)
}

#[test]
fn parts_and_lengths_of_files_are_those_that_the_container_tells() {
    let bed = Bed::new(7);
    if !are_installed(&[Path::new(NGINX), &python::interpreter()]) {
        return;
    }
    bed.set(CONTAINER, Phase::Running, 1);
    let address = SocketAddr::new(bed.container_address(2), 3000);
    let directory = tempfile::tempdir().unwrap();
    let _nginx = nginx(directory.path(), address);
    let name = host(CONTAINER, "http-3000");
    let whole = Client::connect(address).get(&name, "/file.txt", "");
    let asks = asks(whole.value("etag").unwrap(), whole.value("last-modified").unwrap());
    let direct: Vec<_> =
        asks.iter().map(|ask| by_http1(Client::connect(address), &name, ask)).collect();
    for status in [200, 206, 304, 404, 412, 416] {
        assert!(direct.iter().any(|answer| answer.status == status), "{status}");
    }
    let http3 = by_http3(&bed, &name, &asks).unwrap();
    for ((ask, direct), http3) in asks.iter().zip(&direct).zip(&http3) {
        assert_eq!(&by_http1(bed.client(), &name, ask), direct, "{ask:?}");
        let Some(http2) = by_http2(&bed, &name, ask) else { return };
        assert_eq!(&http2, direct, "by HTTP/2, {ask:?}");
        assert_eq!(http3, direct, "by HTTP/3, {ask:?}");
    }
}
