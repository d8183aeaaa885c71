"""Channels by a client that keeps no rules but what it is told to: `channels.py PORT DIRECTORY WHAT …`."""

import os
import queue
import socket
import sys
import threading
import time

import paramiko

PORT, DIRECTORY, WHAT, ARGUMENTS = int(sys.argv[1]), sys.argv[2], sys.argv[3], sys.argv[4:]


def say(*words):
    print(*words, flush=True)


def connect():
    transport = paramiko.Transport(("127.0.0.1", PORT))
    transport.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    transport.start_client(timeout=30)
    key = paramiko.Ed25519Key.from_private_key_file(os.path.join(DIRECTORY, "id"))
    transport.auth_publickey("root", key)
    return transport


def run(transport, command, is_left=False):
    """What a command says; the server is left to close its channel, or not."""
    channel = transport.open_session(timeout=30)
    channel.settimeout(30)
    channel.exec_command(command)
    said = channel.makefile("rb").read().decode()
    assert channel.recv_exit_status() == 0
    if is_left:
        assert settles(lambda: channel.closed)
    channel.close()
    return said


def refused(transport, kind, *where):
    try:
        transport.open_channel(kind, *where, timeout=30)
    except paramiko.ChannelException as error:
        return error.code
    return "open"


def codes(closed, hole, none):
    transport = connect()
    here = ("127.0.0.1", 1)
    say("refused", refused(transport, "direct-tcpip", ("127.0.0.1", int(closed)), here))
    say("unresolvable", refused(transport, "direct-tcpip", ("no-such-host.invalid", 80), here))
    # The library knows no channels to sockets.
    say("socket", streamlocal(transport, none))
    # The library answers twice, with 3 (unknown type) and then with 1; which one this client hears is chance.
    say("type", "refused" if refused(transport, "no-such-type") in (1, 3) else "not refused")
    waiting = threading.Thread(
        target=refused, args=(transport, "direct-tcpip", ("127.0.0.1", int(hole)), here), daemon=True
    )
    waiting.start()
    waiting.join(1)
    say("hole", "pending" if waiting.is_alive() else "answered")
    say("echo", run(transport, "echo ok").strip())
    transport.close()


def streamlocal(transport, path):
    """As `open_channel`, for a kind whose fields it does not know."""
    transport.lock.acquire()
    try:
        number = transport._next_channel()
        message = paramiko.Message()
        message.add_byte(bytes([90]))
        message.add_string("direct-streamlocal@openssh.com")
        message.add_int(number)
        message.add_int(1 << 21)
        message.add_int(1 << 15)
        message.add_string(path)
        message.add_string("")
        message.add_int(0)
        channel = paramiko.Channel(number)
        transport._channels.put(number, channel)
        transport.channel_events[number] = event = threading.Event()
        channel._set_transport(transport)
        channel._set_window(1 << 21, 1 << 15)
    finally:
        transport.lock.release()
    transport._send_user_message(message)
    assert event.wait(30)
    error = transport.get_exception()
    return error.code if isinstance(error, paramiko.ChannelException) else "open"


def many():
    """More channels than are allowed at once, and many more one after the other."""
    transport = connect()
    opened = [transport.open_session(timeout=30) for _ in range(100)]
    say("session", refused(transport, "session"))
    say("forward", refused(transport, "direct-tcpip", ("127.0.0.1", PORT), ("127.0.0.1", 1)))
    for channel in opened[90:]:
        channel.close()
    # Those that the server closes do not count either.
    for number in range(12):
        assert run(transport, f"echo {number}") == f"{number}\n"
    for _ in range(12):
        channel = transport.open_channel(
            "direct-tcpip", ("127.0.0.1", PORT), ("127.0.0.1", 1), timeout=30
        )
        channel.sendall(b"no SSH\n" * 100)
        while channel.recv(1024):
            pass
    for channel in opened[:90]:
        channel.close()
    say("after", run(transport, "echo ok").strip())
    transport.close()


def overrun():
    """Sends more than its window."""
    transport = connect()
    other = transport.open_session(timeout=30)
    other.exec_command("exec sleep 600")
    channel = transport.open_session(timeout=30)
    channel.exec_command("exec sleep 600")
    channel.settimeout(30)
    channel.out_window_size = 1 << 40
    try:
        for _ in range(4096):
            channel.sendall(bytes(1 << 15))
    except (OSError, EOFError, paramiko.SSHException):
        pass
    transport.join(30)
    say("ended", not transport.is_alive(), other.closed)


def strange():
    """Data on channels that are not open, as errors, after their end."""
    transport = connect()
    for number in (0, 7, 0xFFFFFFFF):
        message = paramiko.Message()
        message.add_byte(bytes([94]))
        message.add_int(number)
        message.add_string(bytes(1000))
        transport._send_user_message(message)
    channel = transport.open_session(timeout=30)
    channel.settimeout(30)
    channel.exec_command("wc -c")
    # As errors, which nobody reads; far more than a window, if it is renewed.
    for _ in range(1000):
        channel.send_stderr(bytes(1 << 13))
    channel.sendall(b"12345")
    channel.shutdown_write()
    message = paramiko.Message()
    message.add_byte(bytes([94]))
    message.add_int(channel.remote_chanid)
    message.add_string(b"late")
    transport._send_user_message(message)
    say("counted", channel.makefile("rb").read().decode().strip())
    say("echo", run(transport, "echo ok").strip())
    transport.close()


def late():
    """Answers channels that the server opens when it is told to: `refuse` or `confirm`."""
    transport = connect()
    shell = transport.open_session(timeout=30)
    shell.settimeout(30)
    shell.exec_command("cat")
    asked = queue.Queue()
    confirm = transport._parse_channel_open
    transport._handler_table[90] = asked.put
    taken = queue.Queue()
    say("port", transport.request_port_forward("127.0.0.1", 0, lambda channel, *_: taken.put(channel)))

    def answer():
        message = asked.get(timeout=30)
        say("asked")
        word = sys.stdin.readline().strip()
        if word == "confirm":
            confirm(message)
        else:
            message.get_text()
            refusal = paramiko.Message()
            refusal.add_byte(bytes([92]))
            refusal.add_int(message.get_int())
            refusal.add_int(2)
            refusal.add_string("")
            refusal.add_string("")
            transport._send_user_message(refusal)
        shell.sendall(word.encode())
        said = shell.recv(100).decode()
        say("shell", said)

    # Each has been given up inside by then.
    answer()
    answer()
    channel = taken.get(timeout=30)
    channel.settimeout(30)
    say("closed", channel.recv(1) == b"" and settles(lambda: channel.closed))
    # And one for a session that has ended itself.
    session = transport.open_session(timeout=30)
    session.settimeout(30)
    session.request_forward_agent(lambda channel: None)
    session.exec_command("ssh-add -l")
    message = asked.get(timeout=30)
    asked.put(message)
    session.close()
    answer()
    say("echo", run(transport, "echo ok").strip())
    transport.close()


def closed(file):
    """Closes the channels of processes that would never end: one without a terminal, and one at one."""
    transport = connect()
    for terminal in (False, True):
        channel = transport.open_session(timeout=30)
        channel.settimeout(30)
        if terminal:
            channel.get_pty()
        channel.exec_command(f"trap 'echo hup >>{file}; exit' HUP; sleep 600 & echo in; wait")
        assert channel.recv(2) == b"in"
        channel.close()
        say("hung up", settles(lambda: os.path.exists(file)))
        os.remove(file)
    transport.close()


def worn():
    """As many channels one after the other as a connection may have."""
    transport = connect()
    shell = transport.open_session(timeout=30)
    shell.settimeout(30)
    shell.exec_command("cat")
    for number in range(8):
        assert run(transport, f"echo {number}", is_left=True) == f"{number}\n"
    say("another", refused(transport, "session"))
    shell.sendall(b"still")
    say("shell", shell.recv(100).decode())
    shell.close()
    # There is nothing left that it is good for.
    def is_refused():
        try:
            return refused(transport, "session") != 4
        except (EOFError, OSError, paramiko.SSHException):
            return True

    settles(is_refused)
    transport.join(30)
    say("ended", not transport.is_alive())


def listens():
    """Opens no channel, but has the server listen, when the connection has had all its channels."""
    transport = connect()
    port = transport.request_port_forward("127.0.0.1", 0)
    socket.create_connection(("127.0.0.1", port), 30).close()
    transport.join(30)
    say("ended", not transport.is_alive())


def long():
    """Names without measure."""
    transport = connect()
    for length in (256, 257):
        channel = transport.open_session(timeout=30)
        try:
            channel.get_pty("x" * length)
            say("terminal", length)
        except paramiko.SSHException:
            say("no terminal", length)
    say("socket", streamlocal(transport, "/" + "x" * 107))
    say("host", refused(transport, "direct-tcpip", ("x" * 100_000, 1), ("127.0.0.1", 1)))
    try:
        transport.request_port_forward("x" * 100_000, 0)
        say("a listener")
    except paramiko.SSHException:
        say("no listener")
    transport.close()


def settles(condition):
    until = time.monotonic() + 30
    while not condition() and time.monotonic() < until:
        time.sleep(0.01)
    return condition()


globals()[WHAT](*ARGUMENTS)
