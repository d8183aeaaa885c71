"""Single requests for a login, and what is answered to each, octet by octet: `refusals.py PORT DIRECTORY`.

Reads lines `USER KEY HOW` (KEY: a file of the directory; HOW: `offered`, `signed` or `forged`), and prints the
number and the octets of the message that answers it. `flood USER KEY` offers a key until the connection ends.
`benches/refusals` takes what is in here, too.
"""

import functools
import os
import queue
import sys
import time

import paramiko
from paramiko.message import Message

SERVICE_REQUEST, SERVICE_ACCEPT, REQUEST, PK_OK = 5, 6, 50, 60


class Recorder:
    """In the place of the library's own handler of logins; keeps what the server says."""

    def __init__(self):
        self.said = queue.Queue()
        kinds = [SERVICE_ACCEPT, *range(50, 80)]
        self._handler_table = {kind: functools.partial(self.note, kind) for kind in kinds}

    def note(self, kind, message):
        self.said.put((kind, message.get_remainder()))

    def abort(self):
        self.said.put((0, b""))

    def is_authenticated(self):
        return False


def connect(address):
    transport = paramiko.Transport(address)
    transport.start_client(timeout=30)
    transport.auth_handler = recorder = Recorder()
    message = Message()
    message.add_byte(bytes([SERVICE_REQUEST]))
    message.add_string("ssh-userauth")
    transport._send_message(message)
    assert recorder.said.get(timeout=30)[0] == SERVICE_ACCEPT
    return transport, recorder


def request(transport, user, key, how):
    message = Message()
    message.add_byte(bytes([REQUEST]))
    for text in (user, "ssh-connection", "publickey"):
        message.add_string(text)
    message.add_boolean(how != "offered")
    message.add_string(key.get_name())
    message.add_string(key.asbytes())
    if how != "offered":
        signed = Message()
        signed.add_string(transport.session_id)
        signed.add_bytes(message.asbytes())
        if how == "forged":
            signed.add_byte(b"\0")
        message.add_string(key.sign_ssh_data(signed.asbytes()).asbytes())
    return message


def load(file):
    return paramiko.Ed25519Key.from_private_key_file(file)


def flood(address, user, key):
    """Whether much was answered, only that the key would do, and not for long."""
    transport, recorder = connect(address)
    message = request(transport, user, key, "offered")
    begun = time.monotonic()
    try:
        while transport.is_active() and time.monotonic() - begun < 30:
            transport._send_message(message)
    except (OSError, EOFError, paramiko.SSHException):
        pass  # It was cut.
    took = time.monotonic() - begun
    transport.join(30)
    kinds = {kind for kind, _ in recorder.said.queue}
    # The last is what the recorder itself notes when the connection has ended.
    return recorder.said.qsize() > 100, kinds == {PK_OK, 0}, took < 20


def main():
    address, directory = ("127.0.0.1", int(sys.argv[1])), sys.argv[2]
    for line in sys.stdin:
        if line.startswith("flood "):
            _, user, name = line.split()
            print(*flood(address, user, load(os.path.join(directory, name))), flush=True)
            continue
        user, name, how = line.split()
        transport, recorder = connect(address)
        key = load(os.path.join(directory, name))
        transport._send_message(request(transport, user, key, how))
        kind, octets = recorder.said.get(timeout=30)
        print(kind, octets.hex(), flush=True)
        transport.close()


if __name__ == "__main__":
    main()
