"""Has requests to the API under way for as long as they are let, by the standard library and aioquic.

uploads.py ADDRESS PORT HOST CA MODE

MODE tcp or http3: a request whose body comes slowly; says `open` once it has begun, and `cut` when it has ended.
MODE many: twenty connections over HTTP/3 one after the other, each with one request; says `done`.
"""

import asyncio
import ssl
import sys

import aioquic.asyncio.client
import aioquic.asyncio.protocol
import aioquic.h3.connection
import aioquic.h3.events
import aioquic.quic.configuration
import aioquic.quic.events

ADDRESS, PORT, HOST, CA, MODE = sys.argv[1:]
PATIENCE = 20
# More than three minutes of it, within what the API takes.
WHOLE, PIECE, PAUSE = 1_000_000, 1_000, 0.2


def say(text):
    print(text, flush=True)


async def tcp():
    trust = ssl.create_default_context(cafile=CA)
    reader, writer = await asyncio.open_connection(
        ADDRESS, int(PORT), ssl=trust, server_hostname=HOST
    )
    head = f"POST /api/v1/users/auth/login HTTP/1.1\r\nHost: {HOST}\r\nContent-Length: {WHOLE}\r\n\r\n"
    writer.write(head.encode())

    async def write():
        while True:
            writer.write(b" " * PIECE)
            await asyncio.sleep(PAUSE)

    writing = asyncio.create_task(write())
    await asyncio.sleep(3 * PAUSE)
    say("open")
    try:
        await reader.read(1)
    except OSError:
        pass
    say("cut")
    writing.cancel()


class Client(aioquic.asyncio.protocol.QuicConnectionProtocol):
    """One connection over HTTP/3."""

    def __init__(self, *arguments, **named):
        super().__init__(*arguments, **named)
        self.h3 = aioquic.h3.connection.H3Connection(self._quic)
        self.over, self.answered = asyncio.Event(), asyncio.Event()
        self.status = None

    def quic_event_received(self, event):
        if isinstance(event, aioquic.quic.events.ConnectionTerminated):
            self.over.set()
        for told in self.h3.handle_event(event):
            if isinstance(told, aioquic.h3.events.HeadersReceived):
                self.status = int(dict(told.headers)[b":status"])
            if getattr(told, "stream_ended", False):
                self.answered.set()

    def begin(self, method, path, end):
        stream = self._quic.get_next_available_stream_id()
        head = {":method": method, ":scheme": "https", ":authority": HOST, ":path": path}
        encoded = [(name.encode(), value.encode()) for name, value in head.items()]
        self.h3.send_headers(stream, encoded, end_stream=end)
        self.transmit()
        return stream


def connect():
    configuration = aioquic.quic.configuration.QuicConfiguration(
        alpn_protocols=["h3"], server_name=HOST
    )
    configuration.load_verify_locations(CA)
    return aioquic.asyncio.client.connect(
        ADDRESS, int(PORT), configuration=configuration, create_protocol=Client
    )


async def http3():
    async with connect() as client:
        stream = client.begin("POST", "/api/v1/users/auth/login", False)
        opened = False
        while not client.over.is_set():
            client.h3.send_data(stream, b" " * PIECE, end_stream=False)
            client.transmit()
            await asyncio.sleep(PAUSE)
            if not opened:
                say("open")
            opened = True
        say("cut")


async def many():
    for number in range(20):
        async with asyncio.timeout(PATIENCE), connect() as client:
            client.begin("GET", "/openapi.json", True)
            await client.answered.wait()
            assert client.status == 200, (number, client.status)
    say("done")


asyncio.run({"tcp": tcp, "http3": http3, "many": many}[MODE]())
