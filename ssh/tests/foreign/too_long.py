"""Long commands by paramiko, whose own is no argument of a process: too_long.py NAME PORT DIRECTORY."""

import sys

import paramiko

NAME, PORT, DIRECTORY = sys.argv[1:]
client = paramiko.SSHClient()
client.load_host_keys(DIRECTORY + "/known_hosts")
client.connect(
    "127.0.0.1", int(PORT), "root", key_filename=DIRECTORY + "/id", look_for_keys=False, allow_agent=False
)
for length in (131_060, 140_000, 170_000):
    stdin, stdout, stderr = client.exec_command(("exit 0;" + "#" * length)[:length])
    status = stdout.channel.recv_exit_status()
    if status:
        errors = stderr.read().decode()
        assert "Argument list too long" in errors, (status, errors)
    print(length, status == 0)
client.close()
