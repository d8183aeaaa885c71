//! The attempts of HTTP/1, one a row: what is tried, its octets, what must become of it.

use crate::desync::{
    Fate::{Answered, Cut, May, Passes, Refused},
    Row,
};

/// A `POST /p` with one more field or more, and what follows the head.
macro_rules! post {
    ($fields:literal, $body:literal) => {
        concat!("POST /p HTTP/1.1\r\nHost: {h}\r\n", $fields, "\r\n\r\n", $body).as_bytes()
    };
}

/// A `POST /p` with a chunked body.
macro_rules! chunks {
    ($body:literal) => {
        post!("Transfer-Encoding: chunked", $body)
    };
}

/// A `GET` of a target.
macro_rules! get {
    ($target:literal) => {
        concat!("GET ", $target, " HTTP/1.1\r\nHost: {h}\r\n\r\n").as_bytes()
    };
}

/// A `GET /p` with this `Host`.
macro_rules! host {
    ($host:literal) => {
        concat!("GET /p HTTP/1.1\r\nHost: ", $host, "\r\n\r\n").as_bytes()
    };
}

const ABC: &[(&str, &str, &str)] = &[("POST", "/p", "abc")];
const ABC_AND_CANARY: &[(&str, &str, &str)] = &[("POST", "/p", "abc"), ("GET", "/canary", "")];
const EMPTY: &[(&str, &str, &str)] = &[("POST", "/p", "")];
const GET: &[(&str, &str, &str)] = &[("GET", "/p", "")];
const GET_AND_CANARY: &[(&str, &str, &str)] = &[("GET", "/p", ""), ("GET", "/canary", "")];

/// What a head says about the length of its body.
pub(crate) const HEADS: &[Row] = &[
    ("an honest length", post!("Content-Length: 3", "abc"), Passes(ABC)),
    ("an honest coding", chunks!("3\r\nabc\r\n0\r\n\r\n"), Passes(ABC)),
    ("pipelining", post!("Content-Length: 3", "abc{c}"), Passes(ABC_AND_CANARY)),
    (
        "CL.TE",
        post!("Content-Length: 6\r\nTransfer-Encoding: chunked", "0\r\n\r\nG{c}"),
        Refused(400),
    ),
    (
        "TE.CL",
        post!("Transfer-Encoding: chunked\r\nContent-Length: 4", "5c\r\n{c}\r\n0\r\n\r\n"),
        Refused(400),
    ),
    (
        "CL.TE with a length of nothing",
        post!("Content-Length: 0\r\nTransfer-Encoding: chunked", "{c}"),
        Refused(400),
    ),
    (
        "TE.TE, the second unknown",
        post!("Transfer-Encoding: chunked\r\nTransfer-Encoding: cow", "0\r\n\r\n{c}"),
        Refused(400),
    ),
    (
        "TE.TE, the first unknown",
        post!("Transfer-Encoding: cow\r\nTransfer-Encoding: chunked", "0\r\n\r\n{c}"),
        Refused(400),
    ),
    ("TE in a list", post!("Transfer-Encoding: identity, chunked", "0\r\n\r\n{c}"), Refused(400)),
    ("TE not last", post!("Transfer-Encoding: chunked, identity", "0\r\n\r\n{c}"), Refused(400)),
    (
        "TE twice in a list",
        post!("Transfer-Encoding: chunked, chunked", "0\r\n\r\n{c}"),
        Refused(400),
    ),
    ("TE with a parameter", post!("Transfer-Encoding: chunked;q=1", "0\r\n\r\n{c}"), Refused(400)),
    ("TE with a comma behind", post!("Transfer-Encoding: chunked,", "0\r\n\r\n{c}"), Refused(400)),
    ("TE in quotes", post!("Transfer-Encoding: \"chunked\"", "0\r\n\r\n{c}"), Refused(400)),
    ("TE x", post!("Transfer-Encoding: xchunked", "0\r\n\r\n{c}"), Refused(400)),
    ("TE empty", post!("Transfer-Encoding: \r\nContent-Length: 3", "abc{c}"), Refused(400)),
    (
        "TE identity",
        post!("Transfer-Encoding: identity\r\nContent-Length: 3", "abc{c}"),
        Refused(400),
    ),
    ("TE behind a tab", post!("Transfer-Encoding:\tchunked", "3\r\nabc\r\n0\r\n\r\n"), Passes(ABC)),
    (
        "TE before a blank",
        post!("Transfer-Encoding: chunked ", "3\r\nabc\r\n0\r\n\r\n"),
        Passes(ABC),
    ),
    ("TE in capitals", post!("TRANSFER-ENCODING: CHUNKED", "3\r\nabc\r\n0\r\n\r\n"), Passes(ABC)),
    (
        "TE behind a vertical tab",
        post!("Transfer-Encoding: \x0bchunked", "0\r\n\r\n{c}"),
        Refused(400),
    ),
    (
        "TE before a form feed",
        post!("Transfer-Encoding: chunked\x0c", "0\r\n\r\n{c}"),
        Refused(400),
    ),
    ("TE before a NUL", post!("Transfer-Encoding: chunked\0", "0\r\n\r\n{c}"), Refused(400)),
    (
        "a blank before TE's colon",
        post!("Transfer-Encoding : chunked", "0\r\n\r\n{c}"),
        Refused(400),
    ),
    (
        "a tab before TE's colon",
        post!("Transfer-Encoding\t: chunked", "0\r\n\r\n{c}"),
        Refused(400),
    ),
    (
        "a NUL before TE's colon",
        post!("Transfer-Encoding\0: chunked", "0\r\n\r\n{c}"),
        Refused(400),
    ),
    (
        "TE folded",
        post!("Content-Length: 3\r\nTransfer-Encoding:\r\n chunked", "abc{c}"),
        Refused(400),
    ),
    (
        "TE behind a bare LF",
        post!("Content-Length: 3\r\nX: y\nTransfer-Encoding: chunked", "abc{c}"),
        Refused(400),
    ),
    (
        "TE behind a bare CR",
        post!("Content-Length: 3\r\nX: y\rTransfer-Encoding: chunked", "abc{c}"),
        Refused(400),
    ),
    (
        "TE in the fold of another",
        post!("Content-Length: 3\r\nX: y\r\n Transfer-Encoding: chunked", "abc{c}"),
        Refused(400),
    ),
    (
        "TE spelled with an underscore",
        post!("Content-Length: 3\r\nTransfer_Encoding: chunked", "abc{c}"),
        Passes(ABC_AND_CANARY),
    ),
    (
        "TE in HTTP/1.0",
        b"POST /p HTTP/1.0\r\nHost: {h}\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n{c}",
        Refused(400),
    ),
    ("two equal lengths", post!("Content-Length: 3\r\nContent-Length: 3", "abc{c}"), Refused(400)),
    ("two lengths", post!("Content-Length: 3\r\nContent-Length: 0", "abc{c}"), Refused(400)),
    ("a list of lengths", post!("Content-Length: 3, 3", "abc{c}"), Refused(400)),
    ("a length with a plus", post!("Content-Length: +3", "abc{c}"), Refused(400)),
    ("a length with a minus", post!("Content-Length: -3", "abc{c}"), Refused(400)),
    ("a length in hexadecimal", post!("Content-Length: 0x3", "abc{c}"), Refused(400)),
    ("a length with an underscore", post!("Content-Length: 1_0", "abc{c}"), Refused(400)),
    ("a length with a blank within", post!("Content-Length: 3 0", "abc{c}"), Refused(400)),
    ("a length with a fraction", post!("Content-Length: 3.0", "abc{c}"), Refused(400)),
    (
        "a length past 64 bits",
        post!("Content-Length: 18446744073709551619", "abc{c}"),
        Refused(400),
    ),
    ("an empty length", post!("Content-Length: ", "{c}"), Refused(400)),
    ("a length before a form feed", post!("Content-Length: 3\x0c", "abc{c}"), Refused(400)),
    (
        "a length with an underscore in its name",
        post!("Content-Length: 3\r\nContent_Length: 40", "abc{c}"),
        Passes(ABC_AND_CANARY),
    ),
    (
        "a POST without a length",
        post!("X: y", "{c}"),
        Passes(&[("POST", "/p", ""), ("GET", "/canary", "")]),
    ),
];

/// What a chunked body says about its end.
pub(crate) const BODIES: &[Row] = &[
    ("an extension", chunks!("3;a=b\r\nabc\r\n0;c\r\n\r\n{c}"), Passes(ABC_AND_CANARY)),
    ("zeros before a size", chunks!("0003\r\nabc\r\n000\r\n\r\n{c}"), Passes(ABC_AND_CANARY)),
    ("a size past 64 bits", chunks!("10000000000000003\r\nabc\r\n0\r\n\r\n{c}"), Cut),
    ("a size that becomes negative", chunks!("ffffffffffffffff\r\nabc\r\n0\r\n\r\n{c}"), Cut),
    ("a size with a minus", chunks!("-3\r\nabc\r\n0\r\n\r\n{c}"), Cut),
    ("a size with a plus", chunks!("+3\r\nabc\r\n0\r\n\r\n{c}"), Cut),
    ("a size with 0x", chunks!("0x3\r\nabc\r\n0\r\n\r\n{c}"), Cut),
    ("a size with an underscore", chunks!("0_3\r\nabc\r\n0\r\n\r\n{c}"), Cut),
    ("a size behind a blank", chunks!(" 3\r\nabc\r\n0\r\n\r\n{c}"), Cut),
    ("a size before a blank", chunks!("3 \r\nabc\r\n0\r\n\r\n{c}"), Cut),
    ("no size", chunks!("\r\nabc\r\n0\r\n\r\n{c}"), Cut),
    ("an extension without a size", chunks!(";a\r\nabc\r\n0\r\n\r\n{c}"), Cut),
    ("a size that ends by LF", chunks!("3\nabc\r\n0\r\n\r\n{c}"), Cut),
    ("a size that ends by CR", chunks!("3\rabc\r\n0\r\n\r\n{c}"), Cut),
    ("LF in an extension", chunks!("3;a\nb\r\nabc\r\n0\r\n\r\n{c}"), Cut),
    ("CR in an extension", chunks!("3;a\rb\r\nabc\r\n0\r\n\r\n{c}"), Cut),
    ("LF in a quoted extension", chunks!("3;a=\"\n\"\r\nabc\r\n0\r\n\r\n{c}"), Cut),
    ("NUL in an extension", chunks!("3;a\0\r\nabc\r\n0\r\n\r\n{c}"), Cut),
    ("data that is too long", chunks!("3\r\nabcXX0\r\n\r\n{c}"), Cut),
    ("data that ends by LF", chunks!("3\r\nabc\n0\r\n\r\n{c}"), Cut),
    ("data that ends by CR", chunks!("3\r\nabc\r0\r\n\r\n{c}"), Cut),
    ("data that ends by nothing", chunks!("3\r\nabc0\r\n\r\n{c}"), Cut),
    ("an end by LF", chunks!("3\r\nabc\r\n0\r\n\n{c}"), Cut),
    ("a last chunk that ends by LF", chunks!("3\r\nabc\r\n0\n\r\n{c}"), Cut),
    ("no end, a request instead", chunks!("3\r\nabc\r\n0\r\n{c}"), Cut),
    ("a trailer that ends by LF", chunks!("3\r\nabc\r\n0\r\nX: y\n\r\n{c}"), Cut),
    ("a folded trailer", chunks!("3\r\nabc\r\n0\r\nX: y\r\n z\r\n\r\n{c}"), Cut),
    ("a trailer with a blank before its colon", chunks!("3\r\nabc\r\n0\r\nX : y\r\n\r\n{c}"), Cut),
    ("a trailer without a colon", chunks!("3\r\nabc\r\n0\r\nX\r\n\r\n{c}"), Cut),
    (
        "trailers that say a length",
        post!(
            "Trailer: content-length, transfer-encoding\r\nTransfer-Encoding: chunked",
            "3\r\nabc\r\n0\r\nContent-Length: 60\r\nTransfer-Encoding: chunked\r\n\r\n{c}"
        ),
        Passes(ABC_AND_CANARY),
    ),
    (
        "trailers that say what the edge says",
        post!(
            "Trailer: host, x-forwarded-for, authorization, cookie\r\nTransfer-Encoding: chunked",
            "3\r\nabc\r\n0\r\nHost: evil\r\nX-Forwarded-For: 6.6.6.6\r\nX_Real_IP: 6.6.6.6\r\n\
             Authorization: x\r\nCookie: a=b\r\nConnection: close\r\n\r\n{c}"
        ),
        Passes(ABC_AND_CANARY),
    ),
    (
        "a GET with a request for a body",
        b"GET /p HTTP/1.1\r\nHost: {h}\r\nContent-Length: 29\r\n\r\nGET /canary HTTP/1.1\r\nHost: x",
        Passes(&[("GET", "/p", "GET /canary HTTP/1.1\r\nHost: x")]),
    ),
    (
        "a chunked GET",
        b"GET /p HTTP/1.1\r\nHost: {h}\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nG\r\n0\r\n\r\n{c}",
        Passes(&[("GET", "/p", "G"), ("GET", "/canary", "")]),
    ),
    (
        "a request in a chunk",
        chunks!("1e\r\nGET /canary HTTP/1.1\r\nHost: x\r\r\n0\r\n\r\n"),
        Passes(&[("POST", "/p", "GET /canary HTTP/1.1\r\nHost: x\r")]),
    ),
];

/// The form of a head.
pub(crate) const FORMS: &[Row] = &[
    ("lines that end by LF", b"POST /p HTTP/1.1\nHost: {h}\nContent-Length: 3\n\nabc{c}", Refused(400)),
    ("a head that ends by LF", b"POST /p HTTP/1.1\r\nHost: {h}\r\nContent-Length: 3\n\r\nabc{c}", Refused(400)),
    ("a head that ends by CR", b"POST /p HTTP/1.1\r\nHost: {h}\r\nContent-Length: 3\r\n\rabc{c}", Refused(400)),
    ("a fold", b"GET /p HTTP/1.1\r\nHost: {h}\r\nX: y\r\n z: a\r\n\r\n{c}", Refused(400)),
    ("a fold by a tab", b"GET /p HTTP/1.1\r\nHost: {h}\r\nX: y\r\n\tz: a\r\n\r\n{c}", Refused(400)),
    ("a blank before the first field", b"GET /p HTTP/1.1\r\n Host: {h}\r\n\r\n{c}", Refused(400)),
    ("a field without a name", b"GET /p HTTP/1.1\r\nHost: {h}\r\n: x\r\n\r\n{c}", Refused(400)),
    ("a field without a colon", b"GET /p HTTP/1.1\r\nHost: {h}\r\nX\r\n\r\n{c}", Refused(400)),
    ("NUL in a value", b"GET /p HTTP/1.1\r\nHost: {h}\r\nX: a\0b\r\n\r\n{c}", Refused(400)),
    ("NUL in a name", b"GET /p HTTP/1.1\r\nHost: {h}\r\nX\0: a\r\n\r\n{c}", Refused(400)),
    ("DEL in a value", b"GET /p HTTP/1.1\r\nHost: {h}\r\nX: a\x7fb\r\n\r\n{c}", Refused(400)),
    ("a name that is not ASCII", b"GET /p HTTP/1.1\r\nHost: {h}\r\nX\xa0: a\r\n\r\n{c}", Refused(400)),
    ("a value that is not ASCII", b"GET /p HTTP/1.1\r\nHost: {h}\r\nX: \xa0\x85\r\n\r\n{c}", Passes(GET_AND_CANARY)),
    ("one empty line first", b"\r\nGET /p HTTP/1.1\r\nHost: {h}\r\n\r\n", Passes(GET)),
    ("two empty lines first", b"\r\n\r\nGET /p HTTP/1.1\r\nHost: {h}\r\n\r\n{c}", Refused(400)),
    ("an empty line of LF first", b"\nGET /p HTTP/1.1\r\nHost: {h}\r\n\r\n{c}", Refused(400)),
    ("two blanks in the first line", b"GET  /p HTTP/1.1\r\nHost: {h}\r\n\r\n{c}", Refused(400)),
    ("a tab in the first line", b"GET\t/p HTTP/1.1\r\nHost: {h}\r\n\r\n{c}", Refused(400)),
    ("a blank behind the version", b"GET /p HTTP/1.1 \r\nHost: {h}\r\n\r\n{c}", Refused(400)),
    ("two versions", b"GET /p HTTP/1.1 HTTP/1.1\r\nHost: {h}\r\n\r\n{c}", Refused(400)),
    ("a method with a control character", b"G\x01T /p HTTP/1.1\r\nHost: {h}\r\n\r\n{c}", Refused(400)),
    ("a method in braces", b"{GET} /p HTTP/1.1\r\nHost: {h}\r\n\r\n{c}", Refused(400)),
    ("HTTP/0.9", b"GET /p\r\n{c}", Refused(400)),
    ("HTTP/1.2", b"GET /p HTTP/1.2\r\nHost: {h}\r\n\r\n{c}", Refused(400)),
    ("HTTP/2.0", b"GET /p HTTP/2.0\r\nHost: {h}\r\n\r\n{c}", Refused(400)),
    ("HTTP/1.10", b"GET /p HTTP/1.10\r\nHost: {h}\r\n\r\n{c}", Refused(400)),
    ("http/1.1 in small letters", b"GET /p http/1.1\r\nHost: {h}\r\n\r\n{c}", Refused(400)),
    ("HTTP/2 without being asked", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n{c}", Refused(400)),
    (
        "HTTP/1.0 kept alive",
        b"POST /p HTTP/1.0\r\nHost: {h}\r\nConnection: keep-alive\r\nContent-Length: 3\r\n\r\nabc{c}",
        Passes(ABC_AND_CANARY),
    ),
    ("HTTP/1.0 without a host", b"GET /p HTTP/1.0\r\n\r\n{c}", Refused(400)),
];

/// Which target and which host a request is for.
pub(crate) const TARGETS: &[Row] = &[
    ("an absolute target", get!("http://{h}/p"), Passes(GET)),
    ("an absolute target without a path", get!("http://{h}"), Passes(&[("GET", "/", "")])),
    ("an absolute target with a query only", get!("http://{h}?a"), Passes(&[("GET", "/?a", "")])),
    ("an absolute target in capitals", get!("HTTP://{H}/p"), Passes(GET)),
    ("an absolute target for another", get!("http://{other}/p"), Answered(400)),
    ("an absolute target for another port", get!("http://{h}:81/p"), Answered(400)),
    ("an absolute target with a user", get!("http://{h}@evil/p"), Answered(400)),
    ("an absolute target with this host as user", get!("http://evil@{h}/p"), Answered(400)),
    ("an absolute target of another scheme", get!("file://{h}/p"), Refused(400)),
    ("a target of two slashes", get!("//evil/p"), Passes(&[("GET", "//evil/p", "")])),
    ("a target that begins with a backslash", get!("\\\\evil/p"), Refused(400)),
    ("a target without a slash", get!("p"), Refused(400)),
    ("a target that is a host", get!("{h}"), Refused(400)),
    ("a target that is a query", get!("?a"), Refused(400)),
    ("a target that is @", get!("@evil/p"), Refused(400)),
    ("a fragment", get!("/p#f"), Refused(400)),
    ("an encoded line end", get!("/p%0d%0aX:%20y"), Passes(&[("GET", "/p%0d%0aX:%20y", "")])),
    ("steps up", get!("/a/./b/../c//p;x/%2e%2e/%2F"), Passes(&[("GET", "/a/./b/../c//p;x/%2e%2e/%2F", "")])),
    ("NUL in a target", get!("/p\0"), Refused(400)),
    ("DEL in a target", get!("/p\x7f"), Refused(400)),
    ("CONNECT", b"CONNECT {h}:3000 HTTP/1.1\r\nHost: {h}:3000\r\n\r\n", Refused(501)),
    ("OPTIONS of *", b"OPTIONS * HTTP/1.1\r\nHost: {h}\r\n\r\n", May(&[("OPTIONS", "*", "")])),
    ("a GET of *", get!("*"), Refused(400)),
    ("no host", b"GET /p HTTP/1.1\r\nX: y\r\n\r\n", Answered(400)),
    ("two hosts", b"GET /p HTTP/1.1\r\nHost: {h}\r\nHost: {other}\r\n\r\n", Answered(400)),
    ("two equal hosts", b"GET /p HTTP/1.1\r\nHost: {h}\r\nHost: {h}\r\n\r\n", Answered(400)),
    ("a blank before the host's colon", b"GET /p HTTP/1.1\r\nHost : {h}\r\n\r\n{c}", Refused(400)),
    ("a second host in a fold", b"GET /p HTTP/1.1\r\nHost: {h}\r\n {other}\r\n\r\n{c}", Refused(400)),
    (
        "a second host spelled with an underscore",
        b"GET /p HTTP/1.1\r\nHost: {h}\r\nX_Forwarded_Host: evil\r\nX.Forwarded.For: 6.6.6.6\r\n\r\n",
        Passes(GET),
    ),
    ("an empty host", host!(""), Answered(400)),
    ("a host in capitals with a dot", host!("{H}."), Passes(GET)),
    ("a host with a port", host!("{h}:80"), Passes(GET)),
    ("a host with an empty port", host!("{h}:"), Answered(400)),
    ("a host with port 0", host!("{h}:0"), Answered(400)),
    ("a host with a port too high", host!("{h}:65536"), Answered(400)),
    ("a host with two ports", host!("{h}:80:80"), Answered(400)),
    ("a host with a host for a port", host!("{h}:80@evil"), Answered(400)),
    ("a host with a user", host!("evil@{h}"), Answered(400)),
    ("a host with a user and a password", host!("a:b@{h}"), Answered(400)),
    ("a host with a path", host!("{h}/p"), Answered(400)),
    ("a host with a query", host!("{h}?p"), Answered(400)),
    ("a host with a fragment", host!("{h}#.evil"), Answered(400)),
    ("a host with a backslash", host!("{h}\\.evil"), Answered(400)),
    ("a host with an encoded dot", host!("{h}%2eevil"), Answered(400)),
    ("a host with a blank", host!("{h} evil"), Answered(400)),
    ("a list of hosts", host!("{h},{other}"), Answered(400)),
    ("a host in brackets", host!("[{h}]"), Answered(400)),
    ("an address", host!("127.77.200.2:3000"), Answered(400)),
    ("an address in brackets", host!("[::ffff:127.77.200.2]:3000"), Answered(400)),
    ("a container of nobody", host!("{other}"), Answered(404)),
];

/// Fields between two hops, upgrades, expectations.
pub(crate) const HOPS: &[Row] = &[
    ("Connection: content-length", post!("Connection: content-length\r\nContent-Length: 3", "abc{c}"), Refused(400)),
    ("Connection: transfer-encoding", post!("Connection: transfer-encoding\r\nTransfer-Encoding: chunked", "3\r\nabc\r\n0\r\n\r\n"), Passes(ABC)),
    ("Connection: host", b"GET /p HTTP/1.1\r\nHost: {h}\r\nConnection: host\r\n\r\n", Refused(400)),
    ("Connection: cookie", b"GET /p HTTP/1.1\r\nHost: {h}\r\nConnection: cookie\r\nCookie: a\r\n\r\n", Refused(400)),
    ("Connection: x-forwarded-for", b"GET /p HTTP/1.1\r\nHost: {h}\r\nConnection: x-forwarded-for, x-real-ip\r\n\r\n", Passes(GET)),
    ("Connection: close, a name with blanks", b"GET /p HTTP/1.1\r\nHost: {h}\r\nConnection: a b\r\n\r\n", Refused(400)),
    (
        "octets behind an upgrade that nobody grants",
        b"GET /p HTTP/1.1\r\nHost: {h}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
          Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n{c}",
        May(GET_AND_CANARY),
    ),
    (
        "octets behind an upgrade of an unknown version",
        b"GET /p HTTP/1.1\r\nHost: {h}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
          Sec-WebSocket-Version: 777\r\n\r\n{c}",
        May(GET_AND_CANARY),
    ),
    (
        "an upgrade to HTTP/2",
        b"GET /p HTTP/1.1\r\nHost: {h}\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\n\
          HTTP2-Settings: AAMAAABkAARAAAAAAAIAAAAA\r\n\r\n{c}",
        Passes(GET_AND_CANARY),
    ),
    (
        "an upgrade to HTTP/2 behind another",
        b"GET /p HTTP/1.1\r\nHost: {h}\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: websocket, h2c\r\n\
          HTTP2-Settings: AAMAAABkAARAAAAAAAIAAAAA\r\n\r\n{c}",
        May(GET_AND_CANARY),
    ),
    (
        "an upgrade with a body",
        post!("Connection: Upgrade\r\nUpgrade: websocket\r\nContent-Length: 3", "abc{c}"),
        Passes(ABC_AND_CANARY),
    ),
    ("an expectation", post!("Expect: 100-continue\r\nContent-Length: 3", "abc{c}"), Passes(ABC_AND_CANARY)),
    ("an expectation of nothing", b"GET /p HTTP/1.1\r\nHost: {h}\r\nExpect: 100-continue\r\n\r\n{c}", Passes(GET_AND_CANARY)),
    ("an unknown expectation", post!("Expect: 100-continue-x\r\nContent-Length: 3", "abc"), Answered(417)),
    ("an expectation in a list", post!("Expect: x, 100-continue\r\nContent-Length: 3", "abc"), Answered(417)),
    (
        "an override of the method",
        post!("X-HTTP-Method-Override: DELETE\r\nContent-Length: 0", ""),
        Passes(EMPTY),
    ),
];
