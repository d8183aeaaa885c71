"""A name server that knows one name, and what listens there: names.py NAME ADDRESS PORT."""

import socket
import struct
import sys
import threading

name, address, port = sys.argv[1:]
names = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
names.bind(("127.0.0.1", 53))
service = socket.create_server((address, int(port)))


def serve():
    while True:
        connection, _ = service.accept()
        connection.sendall(b"found")
        connection.close()


threading.Thread(target=serve, daemon=True).start()
print("ready", flush=True)
while True:
    query, asker = names.recvfrom(4096)
    end = 12
    labels = []
    while query[end]:
        labels.append(query[end + 1 : end + 1 + query[end]].decode())
        end += 1 + query[end]
    kind = struct.unpack(">H", query[end + 1 : end + 3])[0]
    question = query[12 : end + 5]
    known = ".".join(labels).lower() == name
    records = b""
    if known and kind == 1:
        records = b"\xc0\x0c" + struct.pack(">HHIH", 1, 1, 60, 4) + socket.inet_aton(address)
    flags = 0x8180 if known else 0x8183
    head = query[:2] + struct.pack(">HHHHH", flags, 1, 1 if records else 0, 0, 0)
    names.sendto(head + question + records, asker)
