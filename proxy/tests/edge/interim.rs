//! What a container says before its answer, and bodies that a client holds back until it is asked.

use std::{
    io::{Read as _, Write as _},
    net::{SocketAddr, TcpListener, TcpStream},
    sync::{Arc, Mutex, mpsc},
    time::Duration,
};

use gantry_model::Phase;

use crate::{
    bed::{Bed, CONTAINER, Setup, host},
    foreign::curl,
    origin::send,
    python,
};

const WAIT: Duration = Duration::from_secs(20);
const DONE: &str = "HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\ndone";

/// A bed whose edge asks for a body by itself after `expect_timeout`, and a container that does what the
/// target of each request says. It tells the heads that it saw, and how each connection went on.
fn bed(number: u8, expect_timeout: Duration) -> (Bed, mpsc::Receiver<String>) {
    let mut setup = Setup::default();
    setup.limits.expect_timeout = expect_timeout;
    let bed = Bed::with(number, setup);
    bed.set(CONTAINER, Phase::Running, 1);
    let listener = TcpListener::bind(SocketAddr::new(bed.container_address(2), 3000)).unwrap();
    let (tell, told) = mpsc::channel();
    let (go, gone) = mpsc::channel();
    let gone = Arc::new(Mutex::new(gone));
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let (tell, go, gone) = (tell.clone(), go.clone(), Arc::clone(&gone));
            std::thread::spawn(move || drop(serve(stream.unwrap(), &tell, &go, &gone)));
        }
    });
    (bed, told)
}

fn serve(
    mut stream: TcpStream,
    tell: &mpsc::Sender<String>,
    go: &mpsc::Sender<()>,
    gone: &Mutex<mpsc::Receiver<()>>,
) -> std::io::Result<()> {
    stream.set_read_timeout(Some(WAIT))?;
    loop {
        let mut head = Vec::new();
        let mut octet = [0];
        while !head.ends_with(b"\r\n\r\n") {
            if stream.read(&mut octet)? == 0 {
                tell.send(format!("closed {}", String::from_utf8_lossy(&head))).unwrap();
                return Ok(());
            }
            head.push(octet[0]);
        }
        let head = String::from_utf8_lossy(&head).into_owned();
        let target = head.split(' ').nth(1).unwrap_or_default().to_owned();
        tell.send(head).unwrap();
        let mut body = [0; 3];
        match target.as_str() {
            "/hints" => {
                send(&mut stream, "HTTP/1.1 103 Early Hints\r\nLink: </a.css>\r\n\r\n");
                let private = "Connection: x-private\r\nX-Private: 1\r\nX-Gantry-Error: FORGED\r\n\
                               Content-Length: 7\r\nSet-Cookie: a=b; Domain=gantry.localhost\r\n";
                send(&mut stream, format!("HTTP/1.1 103 x\r\nLink: </b.js>\r\n{private}\r\n"));
                send(&mut stream, DONE);
            }
            // The answer comes when the client has heard the hint.
            "/hint" => {
                send(&mut stream, "HTTP/1.1 103 x\r\nLink: </a.css>\r\n\r\n");
                gone.lock().unwrap().recv_timeout(WAIT).unwrap();
                send(&mut stream, DONE);
            }
            "/go" => {
                go.send(()).unwrap();
                send(&mut stream, DONE);
            }
            "/flood" => {
                // The edge may have given up before the end.
                drop(stream.write_all("HTTP/1.1 103 x\r\n\r\n".repeat(33).as_bytes()));
                drop(stream.write_all(DONE.as_bytes()));
            }
            "/asks" => {
                send(&mut stream, "HTTP/1.1 100 Continue\r\n\r\n");
                stream.read_exact(&mut body)?;
                send(&mut stream, DONE);
            }
            "/silent" => {
                stream.read_exact(&mut body)?;
                send(&mut stream, DONE);
            }
            "/refuses" => {
                send(&mut stream, "HTTP/1.1 417 Expectation Failed\r\nContent-Length: 2\r\n\r\nno");
            }
            _ => send(&mut stream, DONE),
        }
    }
}

/// What the container tells next.
fn next(told: &mpsc::Receiver<String>) -> String {
    told.recv_timeout(WAIT).unwrap()
}

/// Has a client of HTTP/3 do what `mode` says.
fn http3(bed: &Bed, mode: &str) -> Option<()> {
    python::ask(bed, "http3_client.py", &host(CONTAINER, "http-3000"), &[mode])?.ends();
    Some(())
}

#[test]
fn a_hint_reaches_a_client_of_http3_before_the_answer() {
    let (bed, told) = bed(240, WAIT);
    if http3(&bed, "hint").is_some() {
        assert!(next(&told).starts_with("GET /hint "));
    }
}

#[test]
fn a_container_that_only_hints_is_given_up() {
    let (bed, _told) = bed(241, WAIT);
    let name = host(CONTAINER, "http-3000");
    let mut client = bed.client();
    client.send(format!("GET /flood HTTP/1.0\r\nHost: {name}\r\n\r\n"));
    let reply = client.reply();
    assert_eq!((reply.status, reply.code()), (502, Some("UPSTREAM_BROKEN")));
}

#[test]
fn a_body_that_is_held_back_over_http3_is_asked_for_by_the_container() {
    let (bed, told) = bed(242, WAIT);
    if http3(&bed, "held-asks").is_none() {
        return;
    }
    let head = next(&told);
    assert!(head.starts_with("POST /asks ") && head.contains("expect: 100-continue"), "{head}");
}

#[test]
fn a_refusal_of_a_body_that_is_held_back_over_http3_is_passed_on() {
    let (bed, told) = bed(243, WAIT);
    if http3(&bed, "held-refuses").is_some() {
        assert!(next(&told).starts_with("POST /refuses "));
        // A body was promised on this connection: it must not be used again.
        assert_eq!(next(&told), "closed ");
    }
}

#[test]
fn a_body_is_asked_for_by_the_edge_if_the_container_says_nothing() {
    let (bed, told) = bed(244, Duration::from_millis(200));
    if http3(&bed, "held-silent").is_some() {
        assert!(next(&told).contains("expect: 100-continue"));
    }
}

/// Has a client of HTTP/2 do what `mode` says.
fn http2(bed: &Bed, mode: &str) -> Option<()> {
    python::ask(bed, "http2_client.py", &host(CONTAINER, "http-3000"), &[mode])?.ends();
    Some(())
}

#[test]
fn hints_reach_clients_of_http2_before_the_answer() {
    let (bed, told) = bed(237, WAIT);
    if http2(&bed, "hint").is_none() {
        return;
    }
    assert!(next(&told).starts_with("GET /hint "));
    http2(&bed, "hints").unwrap();
    http2(&bed, "leaves").unwrap();
}

#[test]
fn bodies_that_are_held_back_over_http2_are_asked_for_by_the_container() {
    let (bed, told) = bed(238, WAIT);
    if http2(&bed, "held-asks").is_none() {
        return;
    }
    let head = next(&told);
    assert!(head.starts_with("POST /asks ") && head.contains("expect: 100-continue"), "{head}");
    assert!(next(&told).starts_with("GET / "));
    http2(&bed, "held-refuses").unwrap();
    assert!(next(&told).starts_with("POST /refuses "));
    http2(&bed, "early").unwrap();
}

#[test]
fn a_body_that_no_container_asks_for_over_http2_is_asked_for_by_the_edge() {
    let (bed, told) = bed(239, Duration::from_millis(200));
    if http2(&bed, "held-silent").is_some() {
        assert!(next(&told).contains("expect: 100-continue"));
    }
}

#[test]
fn what_a_container_of_http2_says_before_its_answer_passes() {
    let mut setup = Setup::default();
    // Only one path waits for it; the others answer sooner, on a busy machine too.
    setup.limits.expect_timeout = Duration::from_secs(3);
    let bed = Bed::with(227, setup);
    bed.set(CONTAINER, Phase::Running, 1);
    let address = SocketAddr::new(bed.container_address(2), 3000);
    let Some(_origin) = python::serve("h2c_origin.py", address) else { return };
    // A request without a body finds the version out.
    let name = host(CONTAINER, "http-3000");
    let mut client = bed.client();
    assert_eq!(client.get(&name, "/", "").status, 200);
    http2(&bed, "from-http2").unwrap();
    client.send(format!("GET /hints HTTP/1.1\r\nHost: {name}\r\n\r\n"));
    for link in ["</a.css>", "</b.js>"] {
        let hint = format!("HTTP/1.1 103 Early Hints\r\nlink: {link}\r\n\r\n");
        assert_eq!(client.head(), hint);
    }
    assert_eq!(client.reply().status, 200);
    client.send(holding("/asks"));
    assert_eq!(client.head(), CONTINUE);
    client.send("abc");
    assert!(client.reply().text().contains("\"body\": \"abc\""));
    client.send(holding("/refuses"));
    assert_eq!(client.reply().status, 417);
}

#[test]
fn curl_shows_a_hint_over_http2() {
    let (bed, _told) = bed(229, WAIT);
    let name = host(CONTAINER, "http-3000");
    let Some(output) = curl(&bed, &name, &["--http2", "--include", "--request-target", "/hints"])
    else {
        return;
    };
    let text = String::from_utf8_lossy(&output.stdout);
    let hint = |link| format!("HTTP/2 103 \r\nlink: {link}\r\n\r\n");
    let want = format!("{}{}HTTP/2 200 \r\n", hint("</a.css>"), hint("</b.js>"));
    assert!(text.starts_with(&want) && text.ends_with("\r\n\r\ndone"), "{text}");
}

/// A request that holds its body back.
fn holding(path: &str) -> String {
    let name = host(CONTAINER, "http-3000");
    format!(
        "POST {path} HTTP/1.1\r\nHost: {name}\r\nContent-Length: 3\r\nExpect: 100-continue\r\n\r\n"
    )
}

const CONTINUE: &str = "HTTP/1.1 100 Continue\r\n\r\n";

#[test]
fn hints_reach_clients_of_http_1_1_cleaned_like_answers_and_no_older_clients() {
    let (bed, _told) = bed(245, WAIT);
    let name = host(CONTAINER, "http-3000");
    let mut client = bed.client();
    for round in 0..2 {
        client.send(format!("GET /hints HTTP/1.1\r\nHost: {name}\r\n\r\n"));
        let hint = |link| format!("HTTP/1.1 103 Early Hints\r\nlink: {link}\r\n\r\n");
        assert_eq!(client.head(), hint("</a.css>"), "round {round}");
        assert_eq!(client.head(), hint("</b.js>"), "round {round}");
        assert_eq!(client.reply().text(), "done");
    }
    let mut old = bed.client();
    old.send(format!("GET /hints HTTP/1.0\r\nHost: {name}\r\n\r\n"));
    assert_eq!(old.reply().text(), "done", "HTTP/1.0 knows no interim answers");
    let mut old = bed.client();
    let text = "POST /asks HTTP/1.0\r\nContent-Length: 3\r\nExpect: 100-continue\r\n";
    old.send(format!("{text}Host: {name}\r\n\r\nabc"));
    assert_eq!(old.reply().text(), "done", "nor does it wait for any");
}

#[test]
fn a_body_that_is_held_back_is_asked_for_by_the_container() {
    let (bed, told) = bed(246, WAIT);
    let mut client = bed.client();
    client.send(holding("/asks"));
    assert_eq!(client.head(), CONTINUE);
    client.send("abc");
    assert_eq!(client.reply().text(), "done");
    assert!(next(&told).contains("expect: 100-continue\r\n"));
    // The connection is used again on both sides.
    let name = host(CONTAINER, "http-3000");
    assert_eq!(client.get(&name, "/", "").text(), "done");
    assert!(next(&told).starts_with("GET / "));
}

#[test]
fn a_refusal_of_a_body_that_is_held_back_is_passed_on() {
    let (bed, told) = bed(247, WAIT);
    let mut client = bed.client();
    client.send(holding("/refuses"));
    let reply = client.reply();
    assert_eq!((reply.status, reply.text().as_str()), (417, "no"));
    assert!(next(&told).starts_with("POST /refuses "));
    assert_eq!(next(&told), "closed ", "a body was promised on this connection");
}

#[test]
fn a_body_that_no_container_asks_for_is_asked_for_by_the_edge() {
    let (bed, told) = bed(248, Duration::from_millis(200));
    let mut client = bed.client();
    client.send(holding("/silent"));
    assert_eq!(client.head(), CONTINUE);
    client.send("abc");
    assert_eq!(client.reply().text(), "done");
    assert!(next(&told).contains("expect: 100-continue\r\n"));
}
