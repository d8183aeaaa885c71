"""A container's program behind TLS with HTTP/1.1: it tells which name it was asked for.

https_origin.py ADDRESS PORT CERTIFICATE KEY [PROTOCOL…]
"""

import http.server
import ssl
import sys

address, port, certificate, key, *protocols = sys.argv[1:]
context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
context.load_cert_chain(certificate, key)
if protocols:
    context.set_alpn_protocols(protocols)
names = {}
context.sni_callback = lambda stream, name, _context: names.update({stream: name})


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        name = names.get(self.connection)
        told = f"{name} {self.headers['host']} {self.connection.selected_alpn_protocol()}"
        self.send_response(200)
        self.send_header("content-length", str(len(told)))
        self.end_headers()
        self.wfile.write(told.encode())

    def log_message(self, *_):
        pass


server = http.server.ThreadingHTTPServer((address, int(port)), Handler)
server.socket = context.wrap_socket(server.socket, server_side=True)
print("ready", flush=True)
server.serve_forever()
