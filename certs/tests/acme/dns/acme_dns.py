"""An acme-dns server's update API: two values for each account, the older one overwritten."""

import json
import sys
from http.server import BaseHTTPRequestHandler, HTTPServer

USER, KEY, SUBDOMAIN = "c36f50e8", "htB9mR9DYgcu9bX", "8e5700ea-a4bf"
VALUES = [["", 0], ["", 0]]
CLOCK = [0]


class Api(BaseHTTPRequestHandler):
    def answer(self, status, body):
        text = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)

    def do_GET(self):
        self.answer(200, {"values": [text for text, _ in VALUES], "writes": CLOCK[0]})

    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        if self.path == "/moved/update":
            self.send_response(307)
            self.send_header("Location", "/update")
            self.send_header("Content-Length", "0")
            self.end_headers()
        elif self.path != "/update":
            self.answer(404, {"error": "not_found"})
        elif (self.headers["X-Api-User"], self.headers["X-Api-Key"]) != (USER, KEY):
            self.answer(401, {"error": "forbidden"})
        elif body["subdomain"] != SUBDOMAIN:
            self.answer(401, {"error": "forbidden"})
        elif len(body["txt"]) != 43:
            self.answer(400, {"error": "bad_txt"})
        else:
            CLOCK[0] += 1
            oldest = min(VALUES, key=lambda value: value[1])
            oldest[:] = [body["txt"], CLOCK[0]]
            self.answer(200, {"txt": body["txt"]})

    def log_message(self, *_):
        pass


server = HTTPServer(("127.0.0.1", 0), Api)
print(server.server_address[1], flush=True)
# Ends with the test, whatever becomes of it.
import threading

threading.Thread(target=server.serve_forever, daemon=True).start()
sys.stdin.read()
