"""A container's script service: each path is a script that decides about the requests of others. It
appends what it was asked, one JSON object a line, to the file that it is given."""

import json
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

ADDRESS, PORT, SEEN = sys.argv[1], int(sys.argv[2]), sys.argv[3]
LOCK = threading.Lock()


class Scripts(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def decide(self):
        about = json.loads(self.headers["X-Gantry-Hook"])
        length = int(self.headers.get("Content-Length") or 0)
        body = self.rfile.read(length).decode()
        if self.headers.get("Transfer-Encoding") == "chunked":
            while size := int(self.rfile.readline(), 16):
                body += self.rfile.read(size).decode()
                self.rfile.readline()
            self.rfile.readline()
        seen = {
            "method": self.command,
            "target": self.path,
            "fields": dict((k.lower(), v) for k, v in self.headers.items()),
            "body": body,
            "about": about,
        }
        with LOCK, open(SEEN, "a", encoding="utf-8") as file:
            file.write(json.dumps(seen) + "\n")
        script = self.path.split("?")[0].removeprefix("/").replace("-", "_")
        getattr(self, "do_script_" + script)(about, body)

    do_GET = do_HEAD = do_POST = do_PUT = do_OPTIONS = decide

    def answer(self, status, fields, body=b""):
        self.send_response(status)
        for name, value in fields:
            self.send_header(name, value)
        if status != 204:
            self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def do_script_pass(self, about, body):
        self.answer(204, [("X-Gantry-Hook", "continue")])

    def do_script_edit(self, about, body):
        self.answer(
            204,
            [
                ("X-Gantry-Hook", "continue"),
                ("X-Gantry-Set-X-User", "ann"),
                ("X-Gantry-Set-X-Many", "1"),
                ("X-Gantry-Set-X-Many", "2"),
                ("X-Gantry-Remove", "X-Gone, Cookie"),
                ("X-Gantry-Path", "/new?from=hook"),
            ],
        )

    def do_script_block(self, about, body):
        fields = [("X-Gantry-Error", "NOT_FOUND"), ("X-Gantry-Other", "1"), ("X-Why", "closed")]
        self.answer(451, fields, b"blocked: " + about["url"].encode())

    def do_script_whole(self, about, body):
        if about["phase"] == "head":
            self.answer(204, [("X-Gantry-Hook", "body")])
        else:
            self.answer(200, [], body.upper().encode())

    def do_script_greedy(self, about, body):
        self.answer(204, [("X-Gantry-Hook", "body" if about["phase"] == "head" else "continue")])

    def do_script_late(self, about, body):
        threading.Event().wait(3)
        self.do_script_pass(about, body)

    def do_script_broken(self, about, body):
        self.close_connection = True

    def do_script_nonsense(self, about, body):
        self.answer(204, [("X-Gantry-Hook", "maybe")])

    def do_script_loud(self, about, body):
        self.answer(200, [("X-Gantry-Hook", "continue")], b"but with a body")

    def do_script_host(self, about, body):
        self.answer(204, [("X-Gantry-Hook", "continue"), ("X-Gantry-Set-Host", "evil.example")])

    def do_script_framing(self, about, body):
        fields = [("X-Gantry-Hook", "continue"), ("X-Gantry-Set-Content-Length", "1")]
        self.answer(204, fields)

    def do_script_many(self, about, body):
        fields = [("X-Gantry-Set-X-%d" % at, "1") for at in range(33)]
        self.answer(204, [("X-Gantry-Hook", "continue"), *fields])

    def do_script_fetch(self, about, body):
        # A script may ask the service itself; nobody asks it again about that.
        import http.client

        upstream = about["upstream"]
        client = http.client.HTTPConnection(upstream["host"], upstream["port"], timeout=5)
        client.request(about["method"], "/fetched")
        reply = client.getresponse()
        self.answer(reply.status, [("X-By", "script")], reply.read())

    def log_message(self, *_):
        pass


server = ThreadingHTTPServer((ADDRESS, PORT), Scripts)
print("ready", flush=True)
server.serve_forever()
