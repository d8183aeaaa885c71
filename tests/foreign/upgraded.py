"""Clients that go on all the time, and count what fails, made of h2, websockets and the standard library.

upgraded.py ADDRESS PORT HOST CA API TOKEN STOP

Asks HOST by HTTP/1.1 over connections that it keeps, over new ones, and by HTTP/2, sends messages over two
WebSockets, and makes projects at API. Says `running` once everything has succeeded, and, when the file
STOP appears, one line of JSON: how often each has succeeded, every failure, and the ids of the projects.

A connection that is kept ends when an answer says so, and at no other time.
"""

import asyncio
import json
import os
import ssl
import sys

import h2.config
import h2.connection
import h2.events
import websockets.asyncio.client

ADDRESS, PORT, HOST, CA, API, TOKEN, STOP = sys.argv[1:]
PATIENCE = 30


def trust(*protocols):
    context = ssl.create_default_context(cafile=CA)
    if protocols:
        context.set_alpn_protocols(list(protocols))
    return context


TRUST, TRUST_H2 = trust(), trust("h2")
counts, failures, projects = {}, [], []


def done(name):
    counts[name] = counts.get(name, 0) + 1


async def connect(host=HOST, context=TRUST):
    opening = asyncio.open_connection(ADDRESS, int(PORT), ssl=context, server_hostname=host)
    return await asyncio.wait_for(opening, PATIENCE)


async def ask(streams, request):
    """Sends a request of HTTP/1.1; returns status, body, and whether the connection is kept."""
    reader, writer = streams
    writer.write(request)
    head = (await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), PATIENCE)).decode().lower()
    length = next(line for line in head.split("\r\n") if line.startswith("content-length:"))
    body = await asyncio.wait_for(reader.readexactly(int(length.split(":")[1])), PATIENCE)
    return int(head.split(" ")[1]), body, "connection: close" not in head


def get():
    return f"GET / HTTP/1.1\r\nHost: {HOST}\r\n\r\n".encode()


async def kept(pause):
    streams = None
    while not os.path.exists(STOP):
        streams = streams or await connect()
        status, body, keeps = await ask(streams, get())
        assert (status, body) == (200, b"hello\n"), (status, body)
        done(f"kept {pause}")
        if not keeps:
            streams[1].close()
            streams = None
        await asyncio.sleep(pause)


async def fresh():
    while not os.path.exists(STOP):
        streams = await connect()
        status, body, _ = await ask(streams, get())
        assert (status, body) == (200, b"hello\n"), (status, body)
        done("fresh")
        streams[1].close()
        await asyncio.sleep(0.01)


class Http2:
    """One connection, with one request at a time."""

    @classmethod
    async def open(cls):
        self = cls()
        self.reader, self.writer = await connect(context=TRUST_H2)
        config = h2.config.H2Configuration(client_side=True, header_encoding="utf-8")
        self.h2 = h2.connection.H2Connection(config)
        self.h2.initiate_connection()
        self.leaving, self.held = None, b""
        self.flush()
        return self

    def flush(self):
        self.writer.write(self.h2.data_to_send())

    def events(self, octets):
        """What the server says, frame by frame: after a GOAWAY the library would refuse to hear the rest."""
        self.held += octets
        while len(self.held) >= 9:
            length = 9 + int.from_bytes(self.held[:3], "big")
            if len(self.held) < length:
                return
            frame, self.held = self.held[:length], self.held[length:]
            events = self.h2.receive_data(frame)
            if any(isinstance(event, h2.events.ConnectionTerminated) for event in events):
                self.h2.state_machine.state = h2.connection.ConnectionState.CLIENT_OPEN
            yield from events

    async def get(self):
        """The status; nothing if the server did not take the request, which it says before."""
        stream = self.h2.get_next_available_stream_id()
        fields = [(":method", "GET"), (":scheme", "https"), (":authority", HOST), (":path", "/")]
        self.h2.send_headers(stream, fields, end_stream=True)
        self.flush()
        status = None
        while True:
            octets = await asyncio.wait_for(self.reader.read(65536), PATIENCE)
            if not octets:
                # Only who was told before may be left without an answer.
                assert self.leaving is not None and stream > self.leaving, "cut off"
                return None
            for event in self.events(octets):
                if isinstance(event, h2.events.ConnectionTerminated):
                    self.leaving = event.last_stream_id
                elif isinstance(event, h2.events.ResponseReceived):
                    status = int(dict(event.headers)[":status"])
                elif isinstance(event, h2.events.DataReceived):
                    self.h2.acknowledge_received_data(event.flow_controlled_length, stream)
                elif isinstance(event, h2.events.StreamReset):
                    assert event.error_code == 7, f"reset {event.error_code}"
                    return None
                elif isinstance(event, h2.events.StreamEnded):
                    self.flush()
                    return status
            self.flush()


async def http2():
    connection = None
    while not os.path.exists(STOP):
        connection = connection or await Http2.open()
        status = await connection.get()
        assert status in (200, None), status
        if status:
            done("http2")
        if connection.leaving is not None or status is None:
            connection.writer.close()
            connection = None
        await asyncio.sleep(0.005)


async def websocket(pause):
    async with websockets.asyncio.client.connect(
        f"wss://{HOST}/ws", host=ADDRESS, port=int(PORT), ssl=TRUST, proxy=None
    ) as connection:
        count = 0
        while not os.path.exists(STOP):
            count += 1
            await connection.send(str(count))
            assert await asyncio.wait_for(connection.recv(), PATIENCE) == str(count)
            done(f"websocket {pause}")
            await asyncio.sleep(pause)


async def writes():
    streams, count = None, 0
    while not os.path.exists(STOP):
        count += 1
        body = json.dumps({"alias": f"upgrade-{count}"}).encode()
        fields = f"Host: {API}\r\nAuthorization: Bearer {TOKEN}\r\n"
        fields += f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
        streams = streams or await connect(API)
        request = f"POST /api/v1/projects HTTP/1.1\r\n{fields}".encode() + body
        status, body, keeps = await ask(streams, request)
        assert status in (200, 201), (status, body)
        projects.append(json.loads(body)["data"]["id"])
        done("writes")
        if not keeps:
            streams[1].close()
            streams = None
        await asyncio.sleep(0.1)


async def watch(name, task):
    try:
        await task
    except Exception as error:
        failures.append(f"{name}: {error!r}")


async def run():
    tasks = {
        "kept": kept(0.002),
        "kept, with pauses": kept(0.3),
        "fresh": fresh(),
        "http2": http2(),
        "websocket": websocket(0.01),
        "websocket, with pauses": websocket(1),
        "writes": writes(),
    }
    running = [asyncio.create_task(watch(name, task)) for name, task in tasks.items()]
    while len(counts) < len(tasks) and not failures:
        await asyncio.sleep(0.05)
    print("running", flush=True)
    await asyncio.gather(*running)
    print(json.dumps({"counts": counts, "failures": failures, "projects": projects}), flush=True)


asyncio.run(run())
