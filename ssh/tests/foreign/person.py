"""A person at a terminal: person.py NAME PORT DIRECTORY. Prints what was seen, without what differs by chance.

The terminal has modes, a speed and a size of its own, which the session's must have, too.
"""

import fcntl
import os
import pty
import re
import select
import struct
import sys
import termios
import time

NAME, PORT, DIRECTORY = sys.argv[1:]
PATIENCE = 30
VINTR, VERASE = termios.VINTR, termios.VERASE
IUTF8 = 0o40000


def size(fd, rows, columns, width, height):
    fcntl.ioctl(fd, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, width, height))


class Person:
    def __init__(self, *command):
        self.pid, self.fd = pty.fork()
        if self.pid == 0:
            modes = termios.tcgetattr(0)
            modes[0] = modes[0] & ~termios.IXON | IUTF8
            modes[4] = modes[5] = termios.B9600
            modes[6][VINTR], modes[6][VERASE] = b"\x07", b"\x08"
            termios.tcsetattr(0, termios.TCSANOW, modes)
            size(0, 33, 101, 1010, 660)
            os.environ["TERM"] = "xterm"
            os.execvp("ssh", ["ssh", "-F", DIRECTORY + "/config", "-t", NAME, *command])
        self.seen = b""

    def until(self, pattern):
        """What comes until this, and it."""
        end = time.monotonic() + PATIENCE
        while not (found := re.search(pattern, self.seen)):
            ready, _, _ = select.select([self.fd], [], [], max(0, end - time.monotonic()))
            assert ready, f"no {pattern} in {self.seen}"
            self.seen += os.read(self.fd, 65536)
        text, self.seen = self.seen[: found.end()], self.seen[found.end() :]
        return text.decode()

    def types(self, octets):
        os.write(self.fd, octets)

    def status(self):
        """The status, and the rest of what came."""
        rest = self.seen
        try:
            while piece := os.read(self.fd, 65536):
                rest += piece
        except OSError:
            pass  # The client has closed its end.
        return os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1]), rest.decode()


# Modes and sizes.
pixels = (
    "python3 -c 'import fcntl, termios, struct;"
    ' print(*struct.unpack("HHHH", fcntl.ioctl(0, termios.TIOCGWINSZ, bytes(8))))\''
)
one = Person(f"stty -a; {pixels}")
print(*one.status())

# A shell with job control. What it says between prompts is shown.
PROMPT = rb"ready> "
# Before the prompt, nothing can be typed that the shell would not see.
shell = Person("PS1='ready> ' exec bash --norc --noprofile --noediting -i")
shell.until(PROMPT)


def does(line, *more):
    """Types a line, and what more once something was seen; returns what came until the prompt."""
    shell.types(line + b"\n")
    text = ""
    for after, keys in more:
        text += shell.until(after)
        shell.types(keys)
    return text + shell.until(PROMPT)


BEGUN = rb"\r\nbegun\r\n"
print(does(b"sh -c 'echo begun; exec sleep 600'", (BEGUN, b"\x07")))
print(does(b"echo interrupted $?"))
print(does(b"sh -c 'echo begun; exec sleep 600'; echo stopped $?", (BEGUN, b"\x1a")))
print(does(b"jobs"))
print(re.sub(r"\d{2,}", "N", does(b"pid=$(jobs -p); disown %1; kill -9 $pid; jobs")))
print(does(b"ulimit -c 0; sh -c 'echo begun; exec sleep 600'; echo quit $?", (BEGUN, b"\x1c")))
print(does(b"echo wrogn\x08\x08ng"))
print(does(b"cat; echo eof 7", (rb"cat; echo eof 7\r\n", b"a line\n\x04")))

# A new size is heard of.
shell.types(b"sh -c 'trap \"echo resized \\$(stty size); exit\" WINCH; echo begun; while :; do sleep 0.05; done'\n")
shell.until(BEGUN)
size(shell.fd, 20, 70, 700, 400)
print(shell.until(PROMPT))
print(does(b"stty size"))

# Much output, interrupted: what is typed is heard at once.
shell.types(b"yes\n")
shell.until(rb"y\r\n" * 1000)
shell.types(b"\x07")
shell.until(rb"\^G")
shell.until(PROMPT)
print(does(b"echo alive"))
shell.types(b"exit 9\n")
print(*shell.status())
