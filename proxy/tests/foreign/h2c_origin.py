"""A container's program that speaks HTTP/2 without TLS and nothing else: it tells what it was asked,
and ends its answers with trailers. What it does before, the path says.

h2c_origin.py ADDRESS PORT
"""

import json
import socket
import sys
import threading

import h2.config
import h2.connection
import h2.errors
import h2.events


def serve(stream):
    connection = h2.connection.H2Connection(
        h2.config.H2Configuration(client_side=False, header_encoding="utf-8")
    )
    connection.initiate_connection()
    stream.sendall(connection.data_to_send())
    asked = {}
    while octets := stream.recv(65536):
        try:
            events = connection.receive_data(octets)
        except Exception:  # Not HTTP/2: h2 has written its GOAWAY.
            stream.sendall(connection.data_to_send())
            return
        for event in events:
            take(connection, asked, event)
        stream.sendall(connection.data_to_send())


def begin(connection, stream, path):
    """What a path says that is to be done before the body is read; whether the stream goes on."""

    def head(status, *fields, **how):
        connection.send_headers(stream, [(":status", status), *fields], **how)

    if path == "/hints":
        head("103", ("link", "</a.css>"))
        head("103", ("link", "</b.js>"), ("x-gantry-error", "FORGED"))
    elif path == "/flood":
        for _ in range(33):
            head("103")
    elif path == "/switches":
        head("101")
    elif path == "/asks":
        head("100")
    elif path == "/refuses":
        head("417")
        connection.send_data(stream, b"no", end_stream=True)
        return False
    elif path == "/early":
        # All of it, and then not a word about the body (RFC 9113, 8.1).
        head("200")
        connection.send_data(stream, b"done", end_stream=True)
        connection.reset_stream(stream, h2.errors.ErrorCodes.NO_ERROR)
        return False
    elif path in ("/breaks", "/breaks-short"):
        head("200", *([("content-length", "9")] if path == "/breaks-short" else []))
        connection.send_data(stream, b"half")
        codes = h2.errors.ErrorCodes
        code = codes.NO_ERROR if path == "/breaks-short" else codes.ENHANCE_YOUR_CALM
        connection.reset_stream(stream, code)
        return False
    return True


def take(connection, asked, event):
    if isinstance(event, h2.events.RequestReceived):
        if begin(connection, event.stream_id, dict(event.headers)[":path"]):
            asked[event.stream_id] = {"fields": event.headers, "body": "", "trailers": []}
    elif getattr(event, "stream_id", None) not in asked:
        pass
    elif isinstance(event, h2.events.StreamReset):
        del asked[event.stream_id]
    elif isinstance(event, h2.events.DataReceived):
        asked[event.stream_id]["body"] += event.data.decode()
        connection.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
    elif isinstance(event, h2.events.TrailersReceived):
        asked[event.stream_id]["trailers"] = event.headers
    elif isinstance(event, h2.events.StreamEnded):
        told = json.dumps(asked.pop(event.stream_id)).encode()
        head = [(":status", "200"), ("content-type", "application/json"), ("trailer", "x-told")]
        connection.send_headers(event.stream_id, head)
        connection.send_data(event.stream_id, told)
        connection.send_headers(event.stream_id, [("x-told", str(len(told)))], end_stream=True)


listener = socket.create_server((sys.argv[1], int(sys.argv[2])))
print("ready", flush=True)
while True:
    threading.Thread(target=serve, args=[listener.accept()[0]], daemon=True).start()
