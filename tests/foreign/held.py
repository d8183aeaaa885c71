"""Holds connections to a container open, and says what becomes of them.

held.py ADDRESS PORT HOST CA MODE [FIELD…]

MODE cut: a WebSocket, a long download and a stream of events, with these fields ("Name: value");
says `open` once all of them have brought something, and `cut NAME` when one has ended.
MODE idle: a WebSocket that sends pings only, and a page that polls; says `open`.

All in one thread: before Python 3.13 two threads that use one TLS connection break it.
"""

import asyncio
import ssl
import sys

import websockets.asyncio.client
import websockets.exceptions

ADDRESS, PORT, HOST, CA, MODE, *FIELDS = sys.argv[1:]
TRUST = ssl.create_default_context(cafile=CA)
PATIENCE = 60


def say(text):
    print(text, flush=True)


def request(path, more=""):
    fields = "".join(f"{field}\r\n" for field in FIELDS)
    return f"GET {path} HTTP/1.1\r\nHost: {HOST}\r\n{fields}{more}\r\n".encode()


async def connect():
    """A TLS connection as a reader and a writer."""
    opening = asyncio.open_connection(ADDRESS, int(PORT), ssl=TRUST, server_hostname=HOST)
    return await asyncio.wait_for(opening, PATIENCE)


def tunnel(**how):
    fields = dict(field.split(": ", 1) for field in FIELDS)
    return websockets.asyncio.client.connect(
        f"wss://{HOST}/ws",
        host=ADDRESS,
        port=int(PORT),
        ssl=TRUST,
        additional_headers=fields,
        open_timeout=PATIENCE,
        proxy=None,
        **how,
    )


async def echo(opened):
    async with tunnel() as connection:
        try:
            while True:
                await connection.send("hello")
                assert await connection.recv() == "hello"
                opened.set()
                await asyncio.sleep(0.02)
        except (websockets.exceptions.ConnectionClosed, OSError):
            say("cut websocket")


async def read(name, opened):
    reader, writer = await connect()
    writer.write(request(f"/{name}"))
    head = await reader.read(65536)
    assert head.startswith(b"HTTP/1.1 200"), head
    try:
        while await reader.read(65536):
            opened.set()
    except OSError:
        pass
    say(f"cut {name}")


async def cut():
    opened = [asyncio.Event() for _ in range(3)]
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(echo(opened[0]))
        tasks.create_task(read("download", opened[1]))
        tasks.create_task(read("events", opened[2]))
        async with asyncio.timeout(PATIENCE):
            for event in opened:
                await event.wait()
        say("open")


async def idle():
    async with tunnel(ping_interval=0.5, ping_timeout=None):
        reader, writer = await connect()
        first = True
        while True:
            writer.write(request("/status", "Accept: */*\r\n"))
            assert await reader.read(65536), "the poller's connection has ended"
            if first:
                say("open")
            first = False
            await asyncio.sleep(0.5)


asyncio.run({"cut": cut, "idle": idle}[MODE]())
