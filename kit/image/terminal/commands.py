"""Commands that run to their end: `execute`, `result` and `abort`.

Each command is a process of its own, without a terminal. What it wrote and how it ended is kept for
five minutes after its end; it goes on when the client that gave it goes away.
"""

import asyncio
import collections
import errno
import json
import os
import re
import secrets
import signal
import subprocess
import time
import urllib.parse

import tornado.web

# Commands at the same time, and what is kept of all that have ended.
RUNNING_MAX = 64
KEPT_BYTES_MAX = 64 << 20
KEPT_SECONDS = 300
# What is kept of each of a command's two streams; the rest is read and dropped.
STREAM_BYTES_MAX = 1 << 20
# The kernel takes arguments of up to 128 KiB.
COMMAND_BYTES_MAX = 100_000
TIMEOUT_SECONDS_MAX = 24 * 3600
# How long a command's streams are read after its end, where programs that it left still hold them.
DRAIN_SECONDS = 0.5

# What the ids of ephemeral terminals lie between.
TERMINALS = (40_000, 65_535)

ID = re.compile(r"[A-Za-z0-9_-]{1,64}\Z")
NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,127}\Z")


class Refused(tornado.web.HTTPError):
    """A request that is not carried out, with a reason for the client."""

    def __init__(self, status, message):
        super().__init__(status, message.replace("%", "%%"))
        self.says = message


class Command:
    """One command, from its start to the end of what is kept of it."""

    def __init__(self, name, terminal):
        self.name = name
        self.terminal = terminal
        self.status = "running"
        self.exit_code = None
        self.streams = {"stdout": bytearray(), "stderr": bytearray()}
        self.truncated = False
        self.started = time.time()
        self.ended = asyncio.Event()
        self.process = None

    def size(self):
        """What is kept of it, in octets."""
        return sum(map(len, self.streams.values()))

    def start(self, command, directory, variables):
        """Starts its process; what can be wrong with that is the client's mistake."""
        pairs = [f"{name}={value}" for name, value in variables.items()]
        try:
            self.process = subprocess.Popen(
                ["/usr/lib/gantry/command", directory, command, *pairs],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                start_new_session=True,
            )
        except OSError as error:
            if error.errno == errno.E2BIG:
                raise Refused(400, "env: all variables together are too long") from error
            raise Refused(503, "the command cannot be started: no process can be made") from error

    async def run(self, timeout):
        """Follows it to its end."""
        readers = [
            asyncio.create_task(self.read(getattr(self.process, name), kept))
            for name, kept in self.streams.items()
        ]
        gone = asyncio.create_task(self.gone())
        if not (await asyncio.wait([gone], timeout=timeout))[0]:
            self.kill("timeout")
        await gone
        _, late = await asyncio.wait(readers, timeout=DRAIN_SECONDS)
        for reader in late:
            reader.cancel()
        code = self.process.wait()
        self.exit_code = code if code >= 0 else 128 - code
        if self.status == "running":
            self.status = "completed"
        self.ended.set()

    async def gone(self):
        """Waits for its process alone: programs that it has left may hold its streams for long."""
        loop = asyncio.get_running_loop()
        gone, handle = asyncio.Event(), os.pidfd_open(self.process.pid)
        loop.add_reader(handle, gone.set)
        try:
            await gone.wait()
        finally:
            loop.remove_reader(handle)
            os.close(handle)

    async def read(self, pipe, kept):
        """Reads one of its streams to the end."""
        stream = asyncio.StreamReader()
        transport, _ = await asyncio.get_running_loop().connect_read_pipe(
            lambda: asyncio.StreamReaderProtocol(stream), pipe
        )
        try:
            while piece := await stream.read(1 << 16):
                room = STREAM_BYTES_MAX - len(kept)
                kept += piece[:room]
                self.truncated |= len(piece) > room
        finally:
            transport.close()

    def kill(self, status):
        """Ends it with all that it has started and not set apart."""
        self.status = status
        try:
            os.killpg(self.process.pid, signal.SIGKILL)
        except ProcessLookupError:
            pass

    def answer(self):
        """It as its client sees it."""
        return {
            "command_id": self.name,
            "terminal_id": str(self.terminal),
            "status": self.status,
            "exit_code": self.exit_code,
            **{name: kept.decode("utf-8", "replace") for name, kept in self.streams.items()},
            "truncated": self.truncated,
            "started_at": self.started,
        }


class Commands:
    """Those that run, and those that have ended not long ago."""

    def __init__(self):
        self.known = {}
        self.ended = collections.OrderedDict()
        self.tasks = set()
        self.terminal = TERMINALS[0]

    def find(self, name):
        """The command of this id."""
        if command := self.known.get(name):
            return command
        raise Refused(404, f"no command has this id, or it ended more than {KEPT_SECONDS} s ago")

    def start(self, wanted):
        """Starts a command; it is followed by itself."""
        name = wanted.name or secrets.token_hex(12)
        if name in self.known:
            raise Refused(409, "id: a command of this id is running or not long ended")
        if len(self.known) - len(self.ended) >= RUNNING_MAX:
            raise Refused(429, f"{RUNNING_MAX} commands run already, which is the most")
        first, last = TERMINALS
        command = Command(name, self.terminal)
        self.terminal = first if self.terminal == last else self.terminal + 1
        self.known[name] = command
        try:
            command.start(wanted.command, wanted.directory, wanted.variables)
        except BaseException:
            del self.known[name]
            raise
        task = asyncio.create_task(self.follow(command, wanted.timeout))
        self.tasks.add(task)
        task.add_done_callback(self.tasks.discard)
        return command

    async def follow(self, command, timeout):
        """Waits for a command's end, and keeps what came of it for a while."""
        await command.run(timeout)
        self.ended[command.name] = command
        while sum(kept.size() for kept in self.ended.values()) > KEPT_BYTES_MAX:
            self.forget(next(iter(self.ended)))
        asyncio.get_running_loop().call_later(KEPT_SECONDS, self.forget, command.name, command)

    def forget(self, name, only=None):
        """Lets go of what is kept of a command, if it is still this one."""
        if only is None or self.ended.get(name) is only:
            self.ended.pop(name, None)
            self.known.pop(name, None)


class Wanted:
    """What a client asks for, checked."""

    def __init__(self, body):
        if not isinstance(body, dict):
            raise Refused(400, "the body must be a JSON object")
        self.command = body.get("command")
        if not isinstance(self.command, str) or not self.command.strip():
            raise Refused(400, "Missing 'command' field: it must be text, the command to run")
        if len(self.command.encode()) > COMMAND_BYTES_MAX or "\0" in self.command:
            raise Refused(400, f"command: must have at most {COMMAND_BYTES_MAX} octets and no NUL")
        self.name = body.get("id")
        if self.name is not None and not (isinstance(self.name, str) and ID.match(self.name)):
            raise Refused(400, "id: must be 1 to 64 letters, digits, hyphens or underscores")
        self.directory = body.get("cwd", "/root")
        if not isinstance(self.directory, str) or not os.path.isdir(self.directory.split("\0")[0]):
            raise Refused(400, "cwd: must be a directory of the container")
        self.timeout = body.get("timeout")
        number = isinstance(self.timeout, (int, float)) and not isinstance(self.timeout, bool)
        if self.timeout is not None and not (number and 0 < self.timeout <= TIMEOUT_SECONDS_MAX):
            raise Refused(400, f"timeout: must be seconds, above 0 and at most {TIMEOUT_SECONDS_MAX}")
        self.variables = body.get("env") or {}
        sound = isinstance(self.variables, dict) and all(
            NAME.match(name) and isinstance(value, str) and "\0" not in value and len(value) <= 65_536
            for name, value in self.variables.items()
        )
        if not sound:
            raise Refused(400, "env: must map names of variables to texts of up to 65536 characters")
        self.wait = body.get("wait")
        if self.wait is not None and not isinstance(self.wait, bool):
            raise Refused(400, "wait: must be true or false")


class Handler(tornado.web.RequestHandler):
    """Answers in JSON, errors too."""

    def initialize(self, commands):
        self.commands = commands

    def prepare(self):
        self.set_header("Cache-Control", "no-store")
        self.set_header("X-Content-Type-Options", "nosniff")
        # A page of somebody else's must not run commands with what a browser has for this host.
        origin = self.request.headers.get("Origin")
        if origin and urllib.parse.urlsplit(origin).netloc != self.request.host:
            raise Refused(403, "requests of pages must come from pages of this host")

    def write_error(self, status_code, **kwargs):
        error = kwargs.get("exc_info", (None, None, None))[1]
        says = error.says if isinstance(error, Refused) else self._reason
        self.finish({"statusCode": status_code, "error": self._reason, "message": says})

    def switch(self, name):
        """A switch in the query; none where it is not given."""
        value = self.get_query_argument(name, None)
        if value not in (None, "true", "false"):
            raise Refused(400, f"{name}: must be true or false")
        return None if value is None else value == "true"


class Execute(Handler):
    """Runs a command."""

    async def post(self):
        # What a form of somebody else's page cannot send.
        if self.request.headers.get("Content-Type", "").split(";")[0].strip() != "application/json":
            raise Refused(415, "the body must be application/json")
        if not self.switch("ephemeral"):
            raise Refused(
                501,
                "commands in a lasting session are not provided by this version of the Kit;"
                " ephemeral=true runs one by itself",
            )
        try:
            body = json.loads(self.request.body)
        except ValueError as error:
            raise Refused(400, f"the body is no JSON: {error}") from error
        wanted = Wanted(body)
        waits = next((wait for wait in (wanted.wait, self.switch("wait")) if wait is not None), True)
        command = self.commands.start(wanted)
        if waits:
            await command.ended.wait()
        self.finish(command.answer())


class Result(Handler):
    """How far a command is."""

    def get(self, name):
        self.finish(self.commands.find(name).answer())


class Abort(Handler):
    """Ends a command."""

    async def post(self, name):
        command = self.commands.find(name)
        if command.status == "running":
            command.kill("aborted")
            await command.ended.wait()
        self.finish(command.answer())


def routes():
    """The paths of all this."""
    commands = {"commands": Commands()}
    return [
        (r"/api/v1/terminal/execute", Execute, commands),
        (r"/api/v1/terminal/result/([^/]+)", Result, commands),
        (r"/api/v1/terminal/execute/([^/]+)/abort", Abort, commands),
    ]
