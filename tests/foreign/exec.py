"""Commands in a container by the official client of Kubernetes, which knows them of pods; another by
websockets.

exec.py ADDRESS PORT HOST CA TOKEN CONTAINER
"""

import asyncio
import json
import socket
import ssl
import sys
import time

import websockets.asyncio.client
from kubernetes.client import Configuration
from kubernetes.stream import ws_client

ADDRESS, PORT, HOST, CA, TOKEN, CONTAINER = sys.argv[1:]
PATH = f"/api/v1/containers/{CONTAINER}/exec"

# It looks its server up by itself.
lookup = socket.getaddrinfo
socket.getaddrinfo = lambda host, *more, **how: lookup(ADDRESS if host == HOST else host, *more, **how)

configuration = Configuration()
configuration.ssl_ca_cert = CA


def start(*command, protocol=None, **more):
    query = [("command", list(command)), ("stderr", True), ("stdout", True)]
    headers = {"authorization": f"Bearer {TOKEN}"}
    if protocol:
        headers["sec-websocket-protocol"] = protocol
    client = ws_client.websocket_call(
        configuration, "GET", f"https://{HOST}:{PORT}{PATH}",
        query_params=query + [(name, value) for name, value in more.items()],
        headers=headers, _preload_content=False, binary=True,
    )
    return client


def run(*command, **more):
    client = start(*command, **more)
    client.run_forever(timeout=60)
    return client.read_stdout(), client.read_stderr(), client.returncode


def says(client, want):
    """Waits until this has been said."""
    said, until = b"", time.monotonic() + 40
    while want not in said:
        client.update(timeout=1)
        said += client.read_channel(ws_client.STDOUT_CHANNEL)
        assert time.monotonic() < until, (want, said)
    return said


for code in (0, 7, 255):
    out, errors, got = run("sh", "-c", f"echo out; echo err >&2; exit {code}")
    assert (out, errors, got) == (b"out\n", b"err\n", code), (out, errors, got)
assert run("sh", "-c", "kill -TERM $$", protocol="v4.channel.k8s.io")[2] == 143
assert run("printf", r"%s|", "a b", "$HOME", "'")[0] == b"a b|$HOME|'|"

# All octets, and what has been sent by the time that the input is closed arrives.
client = start("sh", "-c", "cat; echo end", stdin=True)
assert client.subprotocol == "v5.channel.k8s.io"
client.write_stdin(bytes(range(256)))
client.close_channel(0)
client.run_forever(timeout=60)
assert client.read_stdout() == bytes(range(256)) + b"end\n"
assert client.returncode == 0

# 20 MB, there and back again.
begun, piece, back = time.monotonic(), bytes(range(256)) * 256, b""
client = start("cat", stdin=True)
for _ in range(320):
    client.write_stdin(piece)
    while len(back) < len(piece):
        client.update(timeout=60)
        back += client.read_channel(ws_client.STDOUT_CHANNEL)
    assert back[: len(piece)] == piece
    back = back[len(piece):]
client.close_channel(0)
client.run_forever(timeout=60)
assert client.returncode == 0 and not back
print(f"20 MB took {time.monotonic() - begun:.1f} s", file=sys.stderr)

# A terminal: its size, at first and later, and what is typed.
client = start("sh", stdin=True, tty=True, columns=100, rows=40)
client.write_stdin(b"stty size; tty; echo $TERM\n")
said = says(client, b"xterm")
assert b"40 100" in said and b"/dev/pts/" in said, said
client.write_channel(4, json.dumps({"Width": 132, "Height": 50}).encode())
# A size is no part of what is typed, and may come a moment after it.
client.write_stdin(b"while [ \"$(stty size)\" != '50 132' ]; do sleep 0.1; done\n")
# Shells lose an interrupt that comes while they begin a program, so this one takes it whenever it comes.
client.write_stdin(b"trap 'echo interrupted; over=1' INT; echo rea''dy; until [ $over ]; do sleep 0.1; done\n")
says(client, b"ready")
client.write_stdin(b"\x03")
says(client, b"interrupted")
client.write_stdin(b"exit 5\n")
client.run_forever(timeout=60)
assert client.returncode == 5

# What a refused handshake says is an answer of the API as any other.
try:
    start("true", user="a:b")
    raise AssertionError("it begins")
except Exception as refused:
    assert "400" in str(refused), refused

# A library of its own, whose user leaves in the middle: the process is hung up. In one thread: before Python
# 3.13 two threads that use one TLS connection break it.
context = ssl.create_default_context(cafile=CA)


def connect(query):
    return websockets.asyncio.client.connect(
        f"wss://{HOST}{PATH}?{query}", host=ADDRESS, port=int(PORT), ssl=context, server_hostname=HOST,
        additional_headers={"authorization": f"Bearer {TOKEN}"}, subprotocols=["v5.channel.k8s.io"],
        proxy=None,
    )


async def leave():
    async with connect("command=sleep&command=4711") as other:
        assert await other.recv() == b"\x01"


asyncio.run(leave())
until = time.monotonic() + 20
while run("pgrep", "-f", "sleep 4711")[2] == 0:
    assert time.monotonic() < until, "it sleeps on"
print("done", flush=True)


async def last():
    async with connect("command=sh&command=-c&command=echo+in;exec+sleep+600") as client:
        heard = [await client.recv(), await client.recv()]
        assert heard == [b"\x01", b"\x01in\n"], heard
        print("in", flush=True)
        outcome = await client.recv()
        assert outcome[0] == 3, outcome
        print(json.loads(outcome[1:])["message"], flush=True)


# Sessions that last, until something ends them.
for _ in sys.stdin:
    asyncio.run(last())
