"""The web terminal of one index: a page, a WebSocket to a persistent session, and commands.

usage: server.py INDEX PORT

Every connection attaches to the session of the index, so that all browsers see the same shell and
a closed tab loses nothing. The sessions themselves live in a service of their own.
"""

import asyncio
import json
import os
import socket
import sys

import tornado.httpserver
import tornado.netutil
import tornado.routing
import tornado.web
import tornado.websocket
from terminado import TermSocket, UniqueTermManager

# The interpreter looks beside this file for nothing of itself.
sys.path.append("/usr/lib/gantry")
import terminal_commands

PAGE = "/usr/share/gantry/terminal"
XTERM = "/usr/share/javascript/xterm"

# Browsers that look at one session at the same time.
CONNECTIONS_MAX = 64
# What may wait for a browser that reads slowly. One that is farther behind is cut off; it connects
# again and is shown the present screen.
PENDING_BYTES_MAX = 4 << 20
MESSAGE_BYTES_MAX = 1 << 20

HEADERS = {
    "Content-Security-Policy": "default-src 'self'; style-src 'self' 'unsafe-inline';"
    " img-src 'self' data:; object-src 'none'; base-uri 'none'; form-action 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-cache",
}


class Page(tornado.web.StaticFileHandler):
    """The page and what it loads."""

    def set_extra_headers(self, path):
        for name, value in HEADERS.items():
            self.set_header(name, value)


class DesktopIsMeant(tornado.routing.Matcher):
    """Requests for a desktop session, which is not here; they would be shown a shell."""

    def match(self, request):
        return {} if b"true" in request.query_arguments.get("desktop", []) else None


class NoDesktop(tornado.web.RequestHandler):
    """Says that this Kit has no desktops."""

    SAYS = "the service desktop is not provided by this version of the Kit"

    def prepare(self):
        self.set_status(501)
        for name, value in HEADERS.items():
            self.set_header(name, value)
        if "text/html" in self.request.headers.get("Accept", ""):
            self.finish(
                "<!DOCTYPE html><html lang=en><meta charset=utf-8><title>Not provided yet</title>"
                f"<h1>Not provided yet</h1><p role=status>{self.SAYS}.</p>"
            )
        else:
            self.finish(
                {
                    "statusCode": 501,
                    "error": "Not Implemented",
                    "code": "SERVICE_NOT_PROVIDED",
                    "message": self.SAYS,
                }
            )


class Health(tornado.web.RequestHandler):
    """Says that the service answers."""

    def initialize(self, index):
        self.index = index

    def get(self):
        self.write({"status": "ok", "service": "terminal", "index": self.index})


class Socket(TermSocket):
    """One browser's view of the session. Only pages of the same origin may open it."""

    pending = 0

    def send_json_message(self, content):
        message = json.dumps(content)
        size = len(message)
        self.pending += size
        if self.pending > PENDING_BYTES_MAX:
            self.close(1013, "too far behind")
            return
        try:
            sent = self.write_message(message)
        except tornado.websocket.WebSocketClosedError:
            # The browser has gone; on_close ends its terminal.
            return
        sent.add_done_callback(lambda sent: self.delivered(sent, size))

    def delivered(self, sent, size):
        self.pending -= size
        if not sent.cancelled():
            # A browser that went away meanwhile is no news.
            sent.exception()


def listener(port):
    """A socket that takes a port again at once after a restart."""
    sock = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    sock.setblocking(False)
    sock.bind(("0.0.0.0", port))
    sock.listen(128)
    return sock


def ready():
    """Tells systemd that connections are accepted."""
    path = os.environ.pop("NOTIFY_SOCKET", None)
    if path:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as notify:
            notify.connect("\0" + path[1:] if path.startswith("@") else path)
            notify.send(b"READY=1")


async def main(index, port):
    sock = listener(port)
    sessions = UniqueTermManager(
        shell_command=["/usr/lib/gantry/session", f"terminal-{index}"],
        term_settings={"type": "xterm-256color"},
        max_terminals=CONNECTIONS_MAX,
    )
    app = tornado.web.Application(
        [
            (DesktopIsMeant(), NoDesktop),
            (r"/ws", Socket, {"term_manager": sessions}),
            (r"/api/v1/terminal/health", Health, {"index": index}),
            *terminal_commands.routes(),
            (r"/xterm/(xterm\.js|xterm\.css)", Page, {"path": XTERM}),
            (r"/(.*)", Page, {"path": PAGE, "default_filename": "index.html"}),
        ],
        websocket_ping_interval=20,
        websocket_max_message_size=MESSAGE_BYTES_MAX,
    )
    server = tornado.httpserver.HTTPServer(app, max_body_size=MESSAGE_BYTES_MAX)
    server.add_sockets([sock])
    ready()
    await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1]), int(sys.argv[2])))
