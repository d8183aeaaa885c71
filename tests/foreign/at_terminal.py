"""Runs the command line of Gantry at a terminal, as a person does.

at_terminal.py ADDRESS PORT HOST CA TOKEN GANTRY CONTAINER
"""

import fcntl
import os
import pty
import select
import signal
import struct
import sys
import termios
import time

ADDRESS, PORT, HOST, CA, TOKEN, GANTRY, CONTAINER = sys.argv[1:]
ENV = {
    "GANTRY_API_URL": f"https://{HOST}:{PORT}", "GANTRY_CONNECT": ADDRESS, "GANTRY_CA": CA,
    "GANTRY_TOKEN": TOKEN, "TERM": "vt220", "HOME": "/nonexistent", "PATH": "/usr/bin:/bin",
}
# Less than whoever runs this waits for, so that it says what is missing. In seconds.
PATIENCE = 40


class Terminal:
    def __init__(self, *command):
        self.master, slave = pty.openpty()
        self.resize(40, 100)
        self.before = termios.tcgetattr(slave)
        self.slave = slave
        self.said = b""
        self.pid = os.fork()
        if self.pid == 0:
            os.login_tty(slave) if hasattr(os, "login_tty") else self.log_in(slave)
            os.execve(GANTRY, [GANTRY, *command], ENV)

    def log_in(self, slave):
        os.setsid()
        fcntl.ioctl(slave, termios.TIOCSCTTY, 0)
        for fd in range(3):
            os.dup2(slave, fd)

    def resize(self, rows, columns):
        fcntl.ioctl(self.master, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))

    def types(self, octets):
        os.write(self.master, octets)

    def says(self, want):
        until = time.monotonic() + PATIENCE
        while want not in self.said:
            assert time.monotonic() < until, (want, self.said)
            if select.select([self.master], [], [], 1)[0]:
                self.said += os.read(self.master, 65536)
        seen, self.said = self.said.split(want, 1)
        return seen

    def ended(self):
        """The exit status; the terminal is as it was."""
        until = time.monotonic() + PATIENCE
        while True:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            if pid:
                break
            assert time.monotonic() < until, "it does not end"
            if select.select([self.master], [], [], 0.05)[0]:
                self.said += os.read(self.master, 65536)
        while select.select([self.master], [], [], 0)[0]:
            self.said += os.read(self.master, 65536)
        assert termios.tcgetattr(self.slave) == self.before, "the terminal is not restored"
        os.close(self.master)
        os.close(self.slave)
        return os.waitstatus_to_exitcode(status)


# A login shell, whose terminal follows this one.
shell = Terminal("ssh", CONTAINER)
shell.types(b"PS1='$ '; stty size; echo $TERM $0 rea''dy\n")
seen = shell.says(b"ready")
assert b"40 100" in seen and b"vt220 -" in seen, seen
assert termios.tcgetattr(shell.slave)[3] & (termios.ECHO | termios.ISIG) == 0, "it is raw"
shell.resize(50, 132)
shell.types(b"while [ \"$(stty size)\" != '50 132' ]; do sleep 0.1; done; echo fol''lowed\n")
shell.says(b"followed")
# Ctrl-C is for what runs inside. Shells lose one that comes while they begin a program, so this one takes it
# whenever it comes.
shell.types(b"sh -c 'trap \"echo interrup\"\"ted; exit\" INT; echo beg\"\"un; while :; do sleep 0.1; done'\n")
shell.says(b"begun")
shell.types(b"\x03")
shell.says(b"interrupted")
shell.types(b"exit 9\n")
assert shell.ended() == 9, shell.said

# Whatever ends it, the terminal is as it was.
for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT):
    cat = Terminal("exec", "-it", CONTAINER, "--", "sh", "-c", "echo in; exec cat")
    cat.says(b"in")
    os.kill(cat.pid, number)
    assert cat.ended() == 128 + number, (number, cat.said)

# Without its own terminal the command's output comes as it is.
plain = Terminal("exec", CONTAINER, "--", "sh", "-c", "tty; exit 3")
assert plain.ended() == 3 and b"not a tty" in plain.said, plain.said
killed = Terminal("exec", "-it", CONTAINER, "--", "sh", "-c", "kill -9 $$")
assert killed.ended() == 137, killed.said
print("done", flush=True)
