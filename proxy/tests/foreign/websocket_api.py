"""A client of a WebSocket of the API, made of websockets.

websocket_api.py ADDRESS PORT HOST CA
"""

import socket
import ssl
import sys

import websockets.sync.client

ADDRESS, PORT, HOST, CA = sys.argv[1:]

context = ssl.create_default_context(cafile=CA)
plain = socket.create_connection((ADDRESS, int(PORT)), timeout=10)
with websockets.sync.client.connect(f"wss://{HOST}/live", sock=plain, ssl=context) as client:
    assert client.recv(timeout=10) == "hello"
    client.send("over HTTP/1.1")
    assert client.recv(timeout=10) == "over HTTP/1.1"
    try:
        client.recv(timeout=10)
        raise AssertionError("it was not closed")
    except websockets.exceptions.ConnectionClosedOK as closed:
        assert closed.rcvd.code == 1000, closed
print("done", flush=True)
