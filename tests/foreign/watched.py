"""Runs a command whose standard error is a terminal and whose standard output is not.

watched.py TERMINAL COMMAND…

TERMINAL is the TERM of it, `none` for a pipe in its place. Prints what came out of both, as JSON.
"""

import json
import os
import pty
import subprocess
import sys

TERMINAL, *COMMAND = sys.argv[1:]
environment = {name: value for name, value in os.environ.items() if name != "TERM"}
if TERMINAL == "none":
    reader, writer = os.pipe()
else:
    reader, writer = pty.openpty()
    environment["TERM"] = TERMINAL
child = subprocess.Popen(COMMAND, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                         stderr=writer, env=environment)
os.close(writer)
shown = b""
while True:
    try:
        more = os.read(reader, 65536)
    except OSError:  # How a terminal says that nobody writes to it any more.
        break
    if not more:
        break
    shown += more
out = child.stdout.read()
print(json.dumps({
    "status": child.wait(), "shown": shown.decode(), "out": out.decode(),
}))
