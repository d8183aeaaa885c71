"""A relay before a CA that speaks ACME, made of the standard library; it cuts each step of an order twice.

relay.py ADDRESS PORT HOST CA LISTEN UPSTREAM ROOTS CERTIFICATE KEY

Carries requests to localhost:LISTEN on to the CA at localhost:UPSTREAM. A step is a kind of request in a state of
the order. The first time that one comes, the CA does not hear it, the second time it does, and nobody hears its
answer: both times `cut STEP unheard` or `cut STEP heard` is said, and the client waits until it is killed. What only
reads is the same in both cases, and is cut once. Says
`ready` at first, and `issued` once a certificate has been carried through.

`orders` has it say the new orders that the CA has taken, in JSON: the names of each, and whether its answer was
carried back. `sql STORE STATEMENTS` changes a store, and has it say `changed`; `ask STORE QUERY` has it say the one
value that is asked for.
"""

import base64
import http.client
import http.server
import json
import sqlite3
import ssl
import sys
import threading

LISTEN, UPSTREAM = (int(port) for port in sys.argv[5:7])
ROOTS, CERTIFICATE, KEY = sys.argv[7:]
TRUST = ssl.create_default_context(cafile=ROOTS)
WRITES = ("sign-me-up", "order-plz", "chalZ", "finalize-order")
lock = threading.Lock()
cuts, orders = {}, []
state = "none"
has_proof = False


def say(line):
    with lock:
        print(line, flush=True)


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        pass

    def do_POST(self):
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        at = self.step()
        if cuts.get(at) is None and self.kind() in WRITES:
            cuts[at] = "unheard"
            return self.cut(at)
        upstream = http.client.HTTPSConnection("localhost", UPSTREAM, context=TRUST)
        # With the name that we are called by: the addresses in its answers are ours.
        headers = {name: value for name, value in self.headers.items() if name != "Connection"}
        upstream.request(self.command, self.path, body, headers)
        answer = upstream.getresponse()
        text = answer.read()
        is_good = answer.status < 300
        is_cut = is_good and cuts.get(at) != "heard"
        if is_good:
            self.note(body, text, not is_cut)
        if is_cut:
            cuts[at] = "heard"
            return self.cut(at)
        self.send_response(answer.status)
        for name, value in answer.getheaders():
            if name.lower() not in ("date", "server", "transfer-encoding", "content-length", "connection"):
                self.send_header(name, value)
        if answer.status != 204:
            self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(text)
        if is_good and self.path.startswith("/certZ/"):
            say("issued")

    do_GET = do_HEAD = do_POST

    def kind(self):
        return self.path.strip("/").partition("/")[0]

    def step(self):
        kind = self.kind()
        if kind in ("dir", "nonce-plz", "sign-me-up", "order-plz"):
            return kind
        # The names come in any order; when one is proved, others are not.
        return f"{state} {kind} next" if kind == "chalZ" and has_proof else f"{state} {kind}"

    def note(self, body, text, is_carried):
        global state, has_proof
        kind = self.kind()
        if kind == "order-plz":
            signed = json.loads(body)["payload"]
            said = json.loads(base64.urlsafe_b64decode(signed + "=" * (-len(signed) % 4)))
            names = sorted(name["value"] for name in said["identifiers"])
            orders.append({"names": names, "is_carried": is_carried})
            has_proof = False
        if kind == "chalZ":
            has_proof = True
        if kind in ("order-plz", "my-order", "finalize-order"):
            state = json.loads(text)["status"]

    def cut(self, at):
        self.close_connection = True
        say(f"cut {at} {cuts[at]}")
        # Nothing comes any more, but the end of the client.
        try:
            self.rfile.read(1)
        except OSError:
            pass


class Server(http.server.ThreadingHTTPServer):
    def handle_error(self, *_):
        # Whoever is killed ends in the middle of anything.
        if not isinstance(sys.exception(), OSError):
            super().handle_error(*_)


server = Server(("127.0.0.1", LISTEN), Handler)
context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
context.load_cert_chain(CERTIFICATE, KEY)
server.socket = context.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
threading.Thread(target=server.serve_forever, daemon=True).start()
say("ready")
for line in sys.stdin:
    if line.strip() == "orders":
        say(json.dumps(orders))
    if line.startswith("sql "):
        _, path, statements = line.split(" ", 2)
        store = sqlite3.connect(path, timeout=20)
        store.executescript(f"BEGIN IMMEDIATE; {statements}; COMMIT;")
        store.close()
        say("changed")
    if line.startswith("ask "):
        _, path, query = line.split(" ", 2)
        store = sqlite3.connect(path, timeout=20)
        say(store.execute(query).fetchone()[0])
        store.close()
