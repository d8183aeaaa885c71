"""A client of WebSockets over HTTP/2 (RFC 8441), made of h2 and wsproto.

websocket_h2.py ADDRESS PORT HOST CA MODE [FILE FILE]
"""

import socket
import ssl
import sys

import h2.config
import h2.connection
import h2.events
import h2.settings
import wsproto.connection
import wsproto.events

ADDRESS, PORT, HOST, CA, MODE, *FILES = sys.argv[1:]


class Client:
    """One connection; its streams' events are kept until they are asked for."""

    def __init__(self):
        context = ssl.create_default_context(cafile=CA)
        context.set_alpn_protocols(["h2"])
        plain = socket.create_connection((ADDRESS, int(PORT)), timeout=10)
        plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.socket = context.wrap_socket(plain, server_hostname=HOST)
        assert self.socket.selected_alpn_protocol() == "h2"
        self.h2 = h2.connection.H2Connection(h2.config.H2Configuration(header_encoding="utf-8"))
        self.h2.initiate_connection()
        self.heads, self.data, self.ended, self.settings = {}, {}, {}, None
        self.flush()
        self.until(lambda: self.settings is not None)

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
        if isinstance(event, h2.events.RemoteSettingsChanged):
            self.settings = event.changed_settings
        elif isinstance(event, h2.events.ResponseReceived):
            self.heads[event.stream_id] = dict(event.headers)
        elif isinstance(event, h2.events.DataReceived):
            self.data[event.stream_id] = self.data.get(event.stream_id, b"") + event.data
            self.h2.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
        elif isinstance(event, h2.events.StreamEnded):
            self.ended[event.stream_id] = "end"
        elif isinstance(event, h2.events.StreamReset):
            self.ended[event.stream_id] = f"reset {event.error_code}"
        elif isinstance(event, h2.events.ConnectionTerminated):
            raise AssertionError(f"GOAWAY {event.error_code}")

    def begin(self, fields, end=True):
        stream = self.h2.get_next_available_stream_id()
        self.h2.send_headers(stream, fields, end_stream=end)
        self.flush()
        return stream

    def ask(self, fields, **how):
        return self.answer(self.begin(fields, **how))

    def answer(self, stream):
        self.until(lambda: stream in self.heads or stream in self.ended)
        return stream, self.heads.get(stream, {})

    def get(self, path):
        fields = [(":method", "GET"), (":scheme", "https"), (":path", path), (":authority", HOST)]
        stream, head = self.ask(fields)
        self.until(lambda: stream in self.ended)
        return head[":status"]

    def begin_connect(self, path="/", protocol="websocket", fields=()):
        pseudo = [
            (":method", "CONNECT"),
            (":protocol", protocol),
            (":scheme", "https"),
            (":path", path),
            (":authority", HOST),
        ]
        return self.begin([*pseudo, ("sec-websocket-version", "13"), *fields], end=False)

    def connect(self, **how):
        return self.answer(self.begin_connect(**how))


class Socket:
    """A WebSocket on a stream."""

    def __init__(self, client, stream):
        self.client, self.stream = client, stream
        self.protocol = wsproto.connection.Connection(wsproto.connection.ConnectionType.CLIENT)

    @classmethod
    def open(cls, client, **how):
        stream, _ = client.connect(**how)
        socket = cls(client, stream)
        socket.check()
        return socket

    def check(self):
        self.head = self.client.heads[self.stream]
        assert self.head[":status"] == "200", self.head
        for name in ("sec-websocket-accept", "upgrade", "connection"):
            assert name not in self.head, self.head

    def send(self, event):
        self.send_octets(self.protocol.send(event))

    def send_octets(self, octets):
        at = 0
        while at < len(octets) and self.stream not in self.client.ended:
            window = self.client.h2.local_flow_control_window(self.stream)
            if window == 0:
                self.client.until(self.may_send)
                continue
            piece = octets[at : at + min(window, self.client.h2.max_outbound_frame_size)]
            self.client.h2.send_data(self.stream, piece)
            self.client.flush()
            at += len(piece)

    def may_send(self):
        if self.stream in self.client.ended:
            return True
        return self.client.h2.local_flow_control_window(self.stream) > 0

    def receive(self):
        """The next message or other event."""
        whole = None
        while True:
            for event in self.protocol.events():
                if isinstance(event, wsproto.events.Message):
                    whole = event.data if whole is None else whole + event.data
                    if event.message_finished:
                        return whole
                else:
                    return event
            self.client.until(lambda: self.client.data.get(self.stream))
            self.protocol.receive_data(self.client.data.pop(self.stream))


def echo():
    client = Client()
    enabled = client.settings[h2.settings.SettingCodes.ENABLE_CONNECT_PROTOCOL]
    assert enabled.new_value == 1, enabled
    one = Socket.open(client, fields=[("sec-websocket-protocol", "other, chat")])
    assert one.head["sec-websocket-protocol"] == "chat", one.head
    two = Socket.open(client)
    one.send(wsproto.events.TextMessage(data="for one"))
    two.send(wsproto.events.TextMessage(data="for two"))
    assert client.get("/page") == "200"
    assert (two.receive(), one.receive()) == ("for two", "for one")
    large = bytes(range(256)) * 4096
    two.send(wsproto.events.BytesMessage(data=large))
    assert two.receive() == large
    one.send(wsproto.events.Ping(payload=b"there?"))
    assert one.receive() == wsproto.events.Pong(payload=b"there?")
    one.send(wsproto.events.CloseConnection(code=1000))
    assert one.receive().code == 1000
    client.until(lambda: one.stream in client.ended)
    assert client.ended[one.stream] == "end", client.ended
    two.send(wsproto.events.TextMessage(data="still there"))
    assert two.receive() == "still there"


def refused():
    client = Client()
    stream, head = client.connect(path="/refused")
    client.until(lambda: stream in client.ended)
    assert head[":status"] == "403", head
    assert client.data[stream] == b"not for you\n"
    # What is no WebSocket after all must not look like one.
    assert client.connect(path="/page")[1][":status"] == "502"
    assert client.connect(protocol="connect-udp")[1][":status"] == "501"
    assert client.get("/page") == "200"


def unproven():
    assert Client().connect()[1][":status"] == "502"


def until_cut():
    client = Client()
    socket = Socket.open(client)
    socket.send(wsproto.events.TextMessage(data="one"))
    assert socket.receive() == "one"
    print("open", flush=True)
    client.until(lambda: socket.stream in client.ended)


def frames(octets):
    """How many whole frames of a server stand in there."""
    count, at = 0, 0
    while at + 2 <= len(octets):
        length, head = octets[at + 1], 2
        if length >= 126:
            head = 4 if length == 126 else 10
            length = int.from_bytes(octets[at + 2 : at + head], "big")
        at += head + length
        count += at <= len(octets)
    return count


def case(client, steps):
    """What a server sends while a client does this. Yields what has to be waited for."""
    offers = [("sec-websocket-extensions", step) for step in steps if isinstance(step, str)]
    stream = client.begin_connect(fields=offers)
    socket, came = Socket(client, stream), bytearray()
    yield lambda: stream in client.heads
    socket.check()
    agreed = socket.head.get("sec-websocket-extensions", "").encode()

    def has_come(count):
        came.extend(client.data.pop(stream, b""))
        return stream in client.ended or frames(came) >= count

    for step in steps:
        if isinstance(step, int):
            yield lambda: has_come(step)
        elif isinstance(step, bytes):
            socket.send_octets(step)
    if isinstance(steps[-1], int):
        socket.send_octets(b"\x88\x82\x37\xfa\x21\x3d\x34\x12")
    yield lambda: stream in client.ended
    if client.ended[stream] == "end":
        client.h2.end_stream(stream)
        client.flush()
    return agreed + came + client.data.pop(stream, b"")


def read_cases(file):
    steps = []
    for line in iter(file.readline, b""):
        kind, *number = line.split()
        if kind == b"end":
            yield steps
            steps = []
        else:
            number = int(number[0])
            if kind == b"await":
                steps.append(number)
            elif kind == b"offer":
                steps.append(file.read(number).decode())
            else:
                steps.append(file.read(number))


def cases():
    """The cases of a file, many at once; what came of each stands in the other file."""
    client = Client()
    with open(FILES[0], "rb") as asked:
        waiting = [case(client, steps) for steps in read_cases(asked)]
    told, running = [None] * len(waiting), []
    waiting = list(enumerate(waiting))
    while waiting or running:
        while waiting and len(running) < 32:
            number, steps = waiting.pop(0)
            running.append((number, steps, next(steps)))
        client.until(lambda: any(may_go_on() for _, _, may_go_on in running))
        before, running = running, []
        for number, steps, may_go_on in before:
            try:
                while may_go_on():
                    may_go_on = next(steps)
                running.append((number, steps, may_go_on))
            except StopIteration as end:
                told[number] = end.value
    with open(FILES[1], "wb") as file:
        for octets in told:
            file.write(b"%d\n%b" % (len(octets), octets))


def api():
    client = Client()
    # Only what leaves HTTP is no common request any more.
    assert client.connect(path="/page")[1][":status"] == "501"
    one, two = (Socket.open(client, path="/live") for _ in range(2))
    for socket in (two, one):
        assert socket.receive() == "hello"
    assert client.get("/page") == "200"
    for socket in (two, one):
        socket.send(wsproto.events.TextMessage(data="over HTTP/2"))
        assert socket.receive() == "over HTTP/2"
        assert socket.receive().code == 1000


MODES = {
    "api": api,
    "echo": echo,
    "refused": refused,
    "unproven": unproven,
    "until-cut": until_cut,
    "cases": cases,
}
MODES[MODE]()
print("done", flush=True)
