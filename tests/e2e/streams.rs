//! A program for containers that answers, and streams in every way that there is.

use std::time::Duration;

use anyhow::{Context as _, Result};
use gantry_tests::{Container, Gantry, wait_until};

/// Echoes WebSocket messages at `/ws`, sends events at `/events` and octets at `/download` for ever,
/// and says `hello` elsewhere.
const STREAMS: &str = r"
import base64, hashlib, http.server, time
class Streams(http.server.BaseHTTPRequestHandler):
    protocol_version = 'HTTP/1.1'
    def log_message(self, *_):
        pass
    def do_GET(self):
        try:
            {'/ws': self.echo, '/events': self.events, '/download': self.download}.get(
                self.path, self.hello)()
        except OSError:
            self.close_connection = True
    def head(self, status, *fields):
        self.send_response(status)
        for name, value in fields:
            self.send_header(name, value)
        self.end_headers()
    def hello(self):
        self.head(200, ('Content-Length', '6'))
        self.wfile.write(b'hello\n')
    def events(self):
        self.head(200, ('Content-Type', 'text/event-stream'), ('Connection', 'close'))
        while True:
            self.wfile.write(b'data: tick\n\n')
            time.sleep(0.05)
    def download(self):
        self.head(200, ('Content-Length', str(1 << 40)))
        while True:
            self.wfile.write(bytes(16384))
            time.sleep(0.01)
    def echo(self):
        key = self.headers['Sec-WebSocket-Key'] + '258EAFA5-E914-47DA-95CA-C5AB0DC85B11'
        accept = base64.b64encode(hashlib.sha1(key.encode()).digest()).decode()
        self.head(101, ('Connection', 'upgrade'), ('Upgrade', 'websocket'),
                  ('Sec-WebSocket-Accept', accept))
        while frame := self.rfile.read(2):
            mask = self.rfile.read(4)
            octets = self.rfile.read(frame[1] & 0x7f)
            octets = bytes(octet ^ mask[at % 4] for at, octet in enumerate(octets))
            # A ping is answered with a pong, everything else with itself.
            kind = 0x8a if frame[0] == 0x89 else frame[0]
            self.wfile.write(bytes([kind, len(octets)]) + octets)
http.server.ThreadingHTTPServer(('', 3000), Streams).serve_forever()
";

/// Has a container, of any runtime, serve them on port 3000, and waits until it does.
pub(crate) fn serve(gantry: &Gantry, container: &Container) -> Result<()> {
    let run = ["systemd-run", "--quiet", "--collect", "python3", "-c", STREAMS];
    let command = [&["exec", &container.id, "--"][..], &run].concat();
    let mut said = String::new();
    wait_until("the container takes orders", Duration::from_secs(30), || {
        gantry.cli(&command).is_ok_and(|output| {
            said = String::from_utf8_lossy(&output.stderr).into_owned();
            output.status.success()
        })
    })
    .with_context(|| said.clone())?;
    gantry.wait_200(&gantry.url(container, "http-3000", "/"), Duration::from_secs(30))
}
