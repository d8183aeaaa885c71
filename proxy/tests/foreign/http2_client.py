"""A client of HTTP/2, made of h2.

http2_client.py ADDRESS PORT HOST CA MODE
"""

import json
import socket
import ssl
import sys

import h2.config
import h2.connection
import h2.errors
import h2.events

ADDRESS, PORT, HOST, CA, MODE = sys.argv[1:]


class Client:
    """One connection; its streams' events are kept until they are asked for."""

    def __init__(self):
        context = ssl.create_default_context(cafile=CA)
        context.set_alpn_protocols(["h2"])
        plain = socket.create_connection((ADDRESS, int(PORT)), timeout=20)
        self.socket = context.wrap_socket(plain, server_hostname=HOST)
        self.h2 = h2.connection.H2Connection(h2.config.H2Configuration(header_encoding="utf-8"))
        self.h2.initiate_connection()
        self.interims, self.heads, self.data, self.ended = {}, {}, {}, {}
        self.flush()

    def flush(self):
        self.socket.sendall(self.h2.data_to_send())

    def until(self, done):
        while not done():
            octets = self.socket.recv(65536)
            assert octets, "the connection ended"
            for event in self.h2.receive_data(octets):
                self.take(event)
            self.flush()

    def take(self, event):
        if isinstance(event, h2.events.InformationalResponseReceived):
            self.interims.setdefault(event.stream_id, []).append(dict(event.headers))
        elif isinstance(event, h2.events.ResponseReceived):
            self.heads[event.stream_id] = dict(event.headers)
        elif isinstance(event, h2.events.DataReceived):
            self.data[event.stream_id] = self.data.get(event.stream_id, b"") + event.data
            self.h2.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
        elif isinstance(event, h2.events.StreamEnded):
            self.ended[event.stream_id] = "end"
        elif isinstance(event, h2.events.StreamReset):
            # What was whole before stays so (RFC 9113, 8.1).
            name = h2.errors.ErrorCodes(event.error_code).name
            self.ended[event.stream_id] = self.ended.get(event.stream_id, "") + f" {name}"
        elif isinstance(event, h2.events.ConnectionTerminated):
            raise AssertionError(f"GOAWAY {event.error_code}")

    def begin(self, method, path, fields=(), end=True):
        stream = self.h2.get_next_available_stream_id()
        head = [(":method", method), (":scheme", "https"), (":path", path), (":authority", HOST)]
        self.h2.send_headers(stream, [*head, *fields], end_stream=end)
        self.flush()
        return stream

    def send(self, stream, data, end=False):
        self.h2.send_data(stream, data, end_stream=end)
        self.flush()

    def answer(self, stream):
        """The status, the body, and how the stream ended."""
        self.until(lambda: stream in self.ended)
        status = self.heads.get(stream, {}).get(":status")
        return status, self.data.get(stream, b""), self.ended[stream]

    def get(self, path):
        return self.answer(self.begin("GET", path))


def hint():
    client = Client()
    stream = client.begin("GET", "/hint")
    client.until(lambda: stream in client.interims)
    assert client.interims[stream] == [{":status": "103", "link": "</a.css>"}], client.interims
    assert stream not in client.heads, client.heads
    assert client.get("/go")[0] == "200"
    assert client.answer(stream) == ("200", b"done", "end")


def hints():
    """Hints that come with the answer stand before it, in their order, cleaned."""
    client = Client()
    streams = [client.begin("GET", "/hints") for _ in range(20)]
    for stream in streams:
        assert client.answer(stream) == ("200", b"done", "end")
        links = [interim.pop("link") for interim in client.interims[stream]]
        assert links == ["</a.css>", "</b.js>"], links
        assert client.interims[stream] == [{":status": "103"}] * 2, client.interims


def held(path, asked, want):
    """A request whose body is held back until it is asked for."""
    client = Client()
    stream = client.begin(
        "POST", path, [("expect", "100-continue"), ("content-length", "3")], end=False
    )
    client.until(lambda: stream in client.interims or stream in client.heads)
    interims = [{":status": "100"}] if asked else None
    assert client.interims.get(stream) == interims, client.interims
    if asked:
        client.send(stream, b"abc", end=True)
    assert client.answer(stream)[:2] == want
    # Another request on the same connection.
    assert client.get("/")[0] == "200"


def leaves():
    """A client that leaves between a hint and the answer."""
    client = Client()
    stream = client.begin("GET", "/hint")
    client.until(lambda: stream in client.interims)
    client.h2.reset_stream(stream, h2.errors.ErrorCodes.CANCEL)
    client.flush()
    assert client.get("/go") == ("200", b"done", "end")
    assert stream not in client.heads, client.heads


def early():
    """An answer that comes before the body: whole, and then the stream is reset without an error."""
    client = Client()
    stream = client.begin("POST", "/", [("content-length", "3")], end=False)
    client.until(lambda: " NO_ERROR" in client.ended.get(stream, ""))
    assert client.answer(stream) == ("200", b"done", "end NO_ERROR"), client.ended


def from_http2():
    """What containers of HTTP/2 say before their answers, and how they break off."""
    client = Client()
    assert client.get("/")[0] == "200"
    stream = client.begin("GET", "/hints")
    assert client.answer(stream)[0] == "200"
    hints = [{":status": "103", "link": link} for link in ("</a.css>", "</b.js>")]
    assert client.interims[stream] == hints, client.interims
    for path in ("/flood", "/switches"):
        assert client.get(path)[0] == "502", path
    for path, asked in [("/asks", True), ("/silent", True), ("/refuses", False)]:
        fields = [("expect", "100-continue"), ("content-length", "3")]
        stream = client.begin("POST", path, fields, end=False)
        client.until(lambda: stream in client.interims or stream in client.heads)
        assert client.interims.get(stream) == ([{":status": "100"}] if asked else None), path
        if asked:
            client.send(stream, b"abc", end=True)
            status, body, _ = client.answer(stream)
            told = json.loads(body)
            assert (status, told["body"]) == ("200", "abc"), told
            assert ["expect", "100-continue"] in told["fields"], told
        else:
            assert client.answer(stream)[:2] == ("417", b"no")
    stream = client.begin("POST", "/early", [("content-length", "3")], end=False)
    client.until(lambda: " NO_ERROR" in client.ended.get(stream, ""))
    assert client.answer(stream) == ("200", b"done", "end NO_ERROR"), client.ended
    assert client.get("/breaks") == ("200", b"half", " ENHANCE_YOUR_CALM")
    assert client.get("/breaks-short") == ("200", b"half", " INTERNAL_ERROR")
    assert client.get("/")[0] == "200"


MODES = {
    "from-http2": from_http2,
    "hint": hint,
    "hints": hints,
    "held-asks": lambda: held("/asks", True, ("200", b"done")),
    "held-silent": lambda: held("/silent", True, ("200", b"done")),
    "held-refuses": lambda: held("/refuses", False, ("417", b"no")),
    "leaves": leaves,
    "early": early,
}
MODES[MODE]()
print("done", flush=True)
