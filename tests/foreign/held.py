"""Holds connections to a container open, and says what becomes of them.

held.py ADDRESS PORT HOST CA MODE [FIELD…]

MODE cut: a WebSocket, a long download and a stream of events, with these fields ("Name: value");
says `open` once all of them have brought something, and `cut NAME` when one has ended.
MODE idle: a WebSocket that sends pings only, and a page that polls; says `open`.
"""

import socket
import ssl
import sys
import threading

import websockets.exceptions
import websockets.sync.client

ADDRESS, PORT, HOST, CA, MODE, *FIELDS = sys.argv[1:]
TRUST = ssl.create_default_context(cafile=CA)
SAYS = threading.Lock()


def say(text):
    with SAYS:
        print(text, flush=True)


def connect():
    """A connection by TCP, without patience beyond a minute."""
    return socket.create_connection((ADDRESS, int(PORT)), 60)


def request(path, more=""):
    fields = "".join(f"{field}\r\n" for field in FIELDS)
    return f"GET {path} HTTP/1.1\r\nHost: {HOST}\r\n{fields}{more}\r\n".encode()


def tunnel(**how):
    fields = dict(field.split(": ", 1) for field in FIELDS)
    return websockets.sync.client.connect(
        f"wss://{HOST}/ws", sock=connect(), ssl=TRUST, additional_headers=fields, **how
    )


def echo(opened):
    with tunnel() as connection:
        try:
            while True:
                connection.send("hello")
                assert connection.recv() == "hello"
                opened.set()
                threading.Event().wait(0.02)
        except (websockets.exceptions.ConnectionClosed, OSError):
            say("cut websocket")


def read(name, opened):
    connection = TRUST.wrap_socket(connect(), server_hostname=HOST)
    connection.sendall(request(f"/{name}"))
    head = connection.recv(65536)
    assert head.startswith(b"HTTP/1.1 200"), head
    try:
        while connection.recv(65536):
            opened.set()
    except OSError:
        pass
    say(f"cut {name}")


def cut():
    opened = [threading.Event() for _ in range(3)]
    threads = [threading.Thread(target=echo, args=opened[:1])]
    for name, event in zip(["download", "events"], opened[1:]):
        threads.append(threading.Thread(target=read, args=(name, event)))
    for thread in threads:
        thread.start()
    for event in opened:
        assert event.wait(60), "nothing came"
    say("open")
    for thread in threads:
        thread.join()


def idle():
    with tunnel(ping_interval=0.5, ping_timeout=None):
        poll = TRUST.wrap_socket(connect(), server_hostname=HOST)
        first = True
        while True:
            poll.sendall(request("/status", "Accept: */*\r\n"))
            assert poll.recv(65536), "the poller's connection has ended"
            if first:
                say("open")
            first = False
            threading.Event().wait(0.5)


{"cut": cut, "idle": idle}[MODE]()
