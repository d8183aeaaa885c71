"""Messages of somebody who has logged in, against the rules: `messages.py PORT DIRECTORY WHAT …`."""

import os
import queue
import random
import socket
import sys
import time

import paramiko
from paramiko.message import Message

PORT, DIRECTORY, WHAT, ARGUMENTS = int(sys.argv[1]), sys.argv[2], sys.argv[3], sys.argv[4:]
(
    GLOBAL, OPEN, CONFIRM, REFUSE, ADJUST, DATA, EXTENDED, EOF, CLOSE, REQUEST, SUCCESS, FAILURE
) = (80, 90, 91, 92, 93, 94, 95, 96, 97, 98, 99, 100)


def say(*words):
    print(*words, flush=True)


class Raw(paramiko.Transport):
    """A connection whose channels are ours: what comes is put aside."""

    def __init__(self):
        super().__init__(("127.0.0.1", PORT))
        self.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.said = queue.Queue()
        self.start_client(timeout=30)
        key = paramiko.Ed25519Key.from_private_key_file(os.path.join(DIRECTORY, "id"))
        self.auth_publickey("root", key)
        kinds = range(GLOBAL, FAILURE + 1)
        self._handler_table = {
            **self._handler_table,
            **{kind: lambda message, kind=kind: self.said.put((kind, message)) for kind in kinds},
        }
        self._channel_handler_table = {}

    def send(self, kind, *fields):
        message = Message()
        message.add_byte(bytes([kind]))
        for field in fields:
            if isinstance(field, bool):
                message.add_boolean(field)
            elif isinstance(field, int):
                message.add_int(field)
            else:
                message.add_string(field)
        self._send_message(message)

    def next(self, *kinds):
        """The next message of these kinds; nothing if the connection ends first."""
        end = time.monotonic() + 30
        while time.monotonic() < end:
            try:
                kind, message = self.said.get(timeout=0.05)
            except queue.Empty:
                if not self.is_alive():
                    return None
                continue
            if kind in kinds:
                return kind, message
        raise TimeoutError(f"none of {kinds}")

    def open(self, window=1 << 21, packet=1 << 15, number=0):
        """A session; the server's number of it."""
        self.send(OPEN, "session", number, window, packet)
        kind, message = self.next(CONFIRM, REFUSE)
        assert kind == CONFIRM
        message.get_int()
        return message.get_int()

    def runs(self, command, channel):
        self.send(REQUEST, channel, "exec", True, command)
        return self.next(SUCCESS, FAILURE)[0] == SUCCESS

    def reads(self):
        """What comes until the end of the channel's output."""
        octets = b""
        while True:
            told = self.next(DATA, EOF, CLOSE)
            if told is None or told[0] != DATA:
                return octets
            told[1].get_int()
            octets += told[1].get_string()

    def ended(self):
        """Whether the server ends the connection."""
        self.join(30)
        return not self.is_alive()


def packets():
    """Data in packets larger than the server wants, and larger than any may be."""
    for length in (100_000, 200_000):
        raw = Raw()
        channel = raw.open()
        assert raw.runs("wc -c", channel)
        raw.send(DATA, channel, bytes(length))
        raw.send(EOF, channel)
        say(length, raw.reads().decode().strip() or "ended")
        raw.close()
    raw = Raw()
    channel = raw.open()
    assert raw.runs("wc -c", channel)
    try:
        raw.send(DATA, channel, bytes(300_000))
    except (OSError, EOFError):
        pass  # It is cut before all was sent.
    say(300_000, "ended" if raw.ended() else "goes on")


def zero():
    """Channels to which no packet may be sent, and none of whose octets."""
    raw = Raw()
    raw.send(OPEN, "session", 1, 1 << 20, 0)
    told = raw.next(CONFIRM, REFUSE)
    if told is None:
        say("packet", "ended")
        raw = Raw()
    elif told[0] == REFUSE:
        say("packet", "refused")
    else:
        told[1].get_int()
        number = told[1].get_int()
        assert raw.runs("head -c 1000 /dev/zero", number)
        say("packet", "opened")
    raw.close()

    raw = Raw()
    channel = raw.open(window=0)
    assert raw.runs("seq 1000", channel)
    time.sleep(0.3)
    assert raw.said.empty(), "octets without a window"
    raw.send(ADJUST, channel, 4)
    kind, message = raw.next(DATA)
    message.get_int()
    say("window", message.get_string())
    raw.send(ADJUST, channel, 1 << 20)
    say("rest", len(raw.reads()))
    raw.close()

    # Windows of more than 32 bits.
    raw = Raw()
    channel = raw.open(window=0xFFFFFFFF)
    raw.send(ADJUST, channel, 0xFFFFFFFF)
    raw.send(ADJUST, channel, 0xFFFFFFFF)
    raw.send(REQUEST, channel, "exec", True, "seq 1000")
    say("overflow", len(raw.reads()) or ("ended" if raw.ended() else "nothing"))
    raw.close()


def strangers():
    """Messages about channels that are not open, and requests that nobody knows."""
    for kind, *fields in (
        (CONFIRM, 9, 9, 1 << 20, 1 << 15),
        (REFUSE, 9, 1, "no", ""),
        (ADJUST, 9, 1 << 20),
        (DATA, 9, bytes(100)),
        (EXTENDED, 9, 1, bytes(100)),
        (EOF, 9),
        (CLOSE, 9),
        (REQUEST, 9, "exec", True, "echo"),
        (REQUEST, 9, "pty-req", True, "x", 1, 1, 1, 1, ""),
        (SUCCESS, 9),
        (FAILURE, 9),
    ):
        raw = Raw()
        raw.send(kind, *fields)
        try:
            raw.send(GLOBAL, "keepalive@openssh.com", True)
        except (OSError, EOFError):
            pass  # It may have been ended by then.
        told = raw.next(81, 82)
        say(kind, "ended" if told is None else "goes on")
        raw.close()
    raw = Raw()
    raw.send(GLOBAL, "no-such-request@example.com", True)
    assert raw.next(81, 82)[0] == 82
    channel = raw.open()
    for name, *fields in (
        ("no-such-request@example.com",),
        ("x11-req", False, "MIT-MAGIC-COOKIE-1", "00", 0),
        ("break", 100),
    ):
        raw.send(REQUEST, channel, name, True, *fields)
        assert raw.next(SUCCESS, FAILURE)[0] == FAILURE, name
    assert raw.runs("echo ok", channel)
    say("echo", raw.reads().decode().strip())
    raw.close()


def spoilt(octets, dice):
    octets = bytearray(octets)
    for _ in range(dice.randrange(4)):
        at = dice.randrange(len(octets) + 1)
        choice = dice.randrange(4)
        if choice == 0:
            del octets[max(1, at) :]
        elif choice == 1:
            octets[at:at] = dice.randbytes(dice.randrange(5))
        elif choice == 2 and at + 4 <= len(octets):
            octets[at : at + 4] = dice.choice([0, 1, 0x7FFFFFFF, 0xFFFFFFFF, 70_000]).to_bytes(4, "big")
        elif at < len(octets):
            octets[at] ^= 1 << dice.randrange(8)
    return bytes(octets)


def anything():
    """Spoilt messages of all kinds, on so many connections one after the other."""
    dice = random.Random(7)
    messages = []
    for kind, *fields in (
        (GLOBAL, "tcpip-forward", True, "127.0.0.1", 0),
        (GLOBAL, "cancel-tcpip-forward", True, "127.0.0.1", 1),
        (GLOBAL, "streamlocal-forward@openssh.com", True, "/nowhere/at/all"),
        (OPEN, "session", 3, 1 << 20, 1 << 15),
        (OPEN, "direct-tcpip", 4, 1 << 20, 1 << 15, "127.0.0.1", 1, "127.0.0.1", 1),
        (OPEN, "direct-streamlocal@openssh.com", 5, 1 << 20, 1 << 15, "/nowhere", "", 0),
        (OPEN, "x11", 6, 1 << 20, 1 << 15, "127.0.0.1", 1),
        (CONFIRM, 0, 0, 1 << 20, 1 << 15),
        (REFUSE, 0, 1, "no", ""),
        (ADJUST, 0, 1 << 20),
        (DATA, 0, bytes(100)),
        (EXTENDED, 0, 1, bytes(100)),
        (EOF, 0),
        (CLOSE, 0),
        (REQUEST, 0, "pty-req", True, "xterm", 80, 24, 0, 0, bytes([1, 0, 0, 0, 3, 0])),
        (REQUEST, 0, "env", True, "LC_X", "y"),
        (REQUEST, 0, "exec", True, "exec sleep 1"),
        (REQUEST, 0, "subsystem", True, "sftp"),
        (REQUEST, 0, "window-change", False, 80, 24, 0, 0),
        (REQUEST, 0, "signal", False, "TERM"),
        (REQUEST, 0, "auth-agent-req@openssh.com", True),
        (SUCCESS, 0),
        (FAILURE, 0),
    ):
        message = Message()
        message.add_byte(bytes([kind]))
        for field in fields:
            if isinstance(field, bool):
                message.add_boolean(field)
            elif isinstance(field, int):
                message.add_int(field)
            else:
                message.add_string(field)
        messages.append(message.asbytes())
    sent = 0
    for _ in range(int(ARGUMENTS[0])):
        raw = Raw()
        # Some of the messages mean a channel that there is.
        raw.send(OPEN, "session", 0, 1 << 20, 1 << 15)
        try:
            for _ in range(60):
                raw._send_message(Message(spoilt(dice.choice(messages), dice)))
                sent += 1
                if not raw.is_alive():
                    break
        except (OSError, EOFError, paramiko.SSHException):
            pass  # It was ended, as it should be.
        raw.close()
    say("sent", sent > 10 * int(ARGUMENTS[0]))


globals()[WHAT](*([] if WHAT == "anything" else ARGUMENTS))
