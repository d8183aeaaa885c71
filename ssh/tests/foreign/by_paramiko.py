"""What paramiko does with a server: by_paramiko.py NAME PORT DIRECTORY. Prints what came of it."""

import os
import sys
import time

import paramiko

NAME, PORT, DIRECTORY = sys.argv[1:]
client = paramiko.SSHClient()
client.load_host_keys(DIRECTORY + "/known_hosts")
client.connect(
    "127.0.0.1", int(PORT), "root", key_filename=DIRECTORY + "/id", look_for_keys=False, allow_agent=False
)

# Statuses, and streams apart.
for command in ("true", "echo out; echo err >&2; exit 7", "kill -TERM $$", "kill -KILL $$"):
    stdin, stdout, stderr = client.exec_command(command)
    print(stdout.read(), stderr.read(), stdout.channel.recv_exit_status())

# The input's end comes before the output's.
data = os.urandom(1_000_000)
stdin, stdout, stderr = client.exec_command("cat > /tmp/$$; sleep 0.2; cat /tmp/$$; rm /tmp/$$")
stdin.write(data)
stdin.channel.shutdown_write()
assert stdout.read() == data
print(stdout.channel.recv_exit_status())

# A client that closes the channel with its input: all of that arrives, and the process comes to its end.
path = f"/tmp/gantry-paramiko-input-{os.getpid()}-{NAME}"
stdin, stdout, stderr = client.exec_command(f"cat > {path}; sleep 0.2; echo after >> {path}")
stdin.write(data)
stdin.channel.shutdown_write()
stdin.channel.close()
until = time.monotonic() + 30
while (size := os.path.exists(path) and os.path.getsize(path)) != len(data) + 6 and time.monotonic() < until:
    time.sleep(0.01)
print("closed with its input:", size)
os.remove(path)

# A terminal, its size, and another one, which need not come in order with what is typed.
channel = client.get_transport().open_session()
channel.get_pty("vt100", 90, 30, 900, 600)
channel.exec_command("stty size; echo $TERM; read x; until [ \"$(stty size)\" != '30 90' ]; do :; done; stty size; exit 4")
seen = b""
while b"vt100\r\n" not in seen:
    seen += channel.recv(1000)
channel.resize_pty(70, 20)
channel.send(b"\n")
while piece := channel.recv(1000):
    seen += piece
print(seen, channel.recv_exit_status())

# Variables: those that may be set, and those that may not; whatever the answer, the session goes on.
stdin, stdout, stderr = client.exec_command(
    "echo $LC_TIME ${SECRET-none}", environment={"LC_TIME": "C", "SECRET": "1"}
)
print(stdout.read())

# One process a channel, and no subsystem that nobody has.
channel = client.get_transport().open_session()
channel.exec_command("sleep 0.2; echo first")
try:
    channel.exec_command("echo second")
    print("a second command")
except paramiko.SSHException:
    print("no second command")
channel = client.get_transport().open_session()
try:
    channel.invoke_subsystem("none")
    print("a subsystem")
except paramiko.SSHException:
    print("no subsystem")

# Many channels at once.
channels = [client.exec_command(f"cat; exit {n}") for n in range(10)]
for n, (stdin, stdout, stderr) in enumerate(channels):
    stdin.write(str(n))
    stdin.channel.shutdown_write()
print([(stdout.read(), stdout.channel.recv_exit_status()) for _, stdout, _ in channels])

# Files.
files = client.open_sftp()
directory = f"/tmp/gantry-paramiko-{os.getpid()}"
files.mkdir(directory)
files.chdir(directory)
with files.open("a", "wb") as file:
    file.set_pipelined(True)
    file.write(data)
with files.open("a", "rb") as file:
    file.prefetch()
    assert file.read() == data
files.posix_rename("a", "b")
files.symlink("b", "c")
files.chmod("b", 0o640)
files.utime("b", (1, 2))
files.truncate("b", 5)
print(files.readlink("c"), sorted(files.listdir()), files.stat("c").st_size, oct(files.stat("b").st_mode))
for call in (files.rmdir, files.remove):
    try:
        call("none")
    except OSError as error:
        print(error.errno)
files.remove("c")
files.remove("b")
files.rmdir(directory)
client.close()
print("done")
