"""A client that sends a request over HTTP/2 with a body and trailers, and shows the whole answer.

trailers_h2.py ADDRESS PORT HOST CA
"""

import json
import socket
import ssl
import sys

import h2.config
import h2.connection
import h2.events

address, port, host, ca = sys.argv[1:]
context = ssl.create_default_context(cafile=ca)
context.set_alpn_protocols(["h2"])
plain = socket.create_connection((address, int(port)), timeout=10)
stream = context.wrap_socket(plain, server_hostname=host)
connection = h2.connection.H2Connection(h2.config.H2Configuration(header_encoding="utf-8"))
connection.initiate_connection()
head = [(":method", "POST"), (":scheme", "https"), (":path", "/"), (":authority", host)]
connection.send_headers(1, [*head, ("te", "trailers"), ("trailer", "x-sum")])
connection.send_data(1, b"abc")
connection.send_headers(1, [("x-sum", "7")], end_stream=True)
stream.sendall(connection.data_to_send())
answer = {"head": {}, "body": "", "trailers": {}}
done = False
while not done:
    octets = stream.recv(65536)
    assert octets, "the connection ended"
    for event in connection.receive_data(octets):
        if isinstance(event, h2.events.ResponseReceived):
            answer["head"] = dict(event.headers)
        elif isinstance(event, h2.events.DataReceived):
            answer["body"] += event.data.decode()
        elif isinstance(event, h2.events.TrailersReceived):
            answer["trailers"] = dict(event.headers)
        done = done or isinstance(event, (h2.events.StreamEnded, h2.events.StreamReset))
    stream.sendall(connection.data_to_send())
print(json.dumps(answer))
