"""A container's program that speaks HTTP/2 without TLS and nothing else: it tells what it was asked,
and ends its answers with trailers.

h2c_origin.py ADDRESS PORT
"""

import json
import socket
import sys
import threading

import h2.config
import h2.connection
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


def take(connection, asked, event):
    if isinstance(event, h2.events.RequestReceived):
        asked[event.stream_id] = {"fields": event.headers, "body": "", "trailers": []}
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
