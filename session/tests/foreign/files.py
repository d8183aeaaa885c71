"""Files by paramiko, which sends many requests ahead: files.py PROGRAM DIRECTORY."""

import errno
import os
import socket
import stat
import subprocess
import sys

import paramiko

program, directory = sys.argv[1:]
mine, its = socket.socketpair()
server = subprocess.Popen([program, "sftp"], stdin=its, stdout=its, cwd=directory)
its.close()


class Channel:
    """What paramiko asks of a channel."""

    send, recv, close = mine.send, mine.recv, mine.close

    def get_name(self):
        return "pipe"


client = paramiko.SFTPClient(Channel())


def fails(kind, call, *arguments):
    try:
        call(*arguments)
    except OSError as error:
        assert error.errno == kind or kind is None, (call, arguments, error)
        return str(error)
    raise AssertionError(f"{call} {arguments} did not fail")


# Paths are relative to where it was started.
assert client.normalize(".") == directory
assert client.normalize("none") == directory + "/none"
fails(errno.ENOENT, client.normalize, "none/none")

# Content, whole and in parts, ahead and far out.
data = os.urandom(3_000_000)
with client.open("file", "wb") as file:
    file.set_pipelined(True)
    file.write(data)
with client.open("file", "rb") as file:
    file.prefetch()
    assert file.read() == data
with client.open("file", "rb") as file:
    assert list(file.readv([(5, 7), (2_999_990, 100)])) == [data[5:12], data[2_999_990:]]
with client.open("far", "wb") as file:
    file.seek(5 << 30)
    file.write(b"end")
assert client.stat("far").st_size == (5 << 30) + 3
with client.open("far", "rb") as file:
    file.seek((5 << 30) - 1)
    assert file.read() == b"\0end"
with client.open("file", "ab") as file:
    file.write(b"more")
assert os.path.getsize(directory + "/file") == len(data) + 4
fails(None, client.open, "file", "x")
fails(errno.ENOENT, client.open, "none")

# Attributes.
client.truncate("file", 10)
client.utime("file", (1_000_000_000, 1_100_000_000))
client.chmod("file", 0o640)
client.chown("file", 4242, 4243)
of = os.stat(directory + "/file")
got = (of.st_size, of.st_atime, of.st_mtime, stat.S_IMODE(of.st_mode), of.st_uid, of.st_gid)
assert got == (10, 1_000_000_000, 1_100_000_000, 0o640, 4242, 4243), got
with client.open("file", "r+b") as file:
    file.truncate(4)
    file.chmod(0o600)
    file.utime((1, 2))
    assert (file.stat().st_size, file.stat().st_mtime) == (4, 2)
[line] = [str(entry) for entry in client.listdir_attr(".") if entry.filename == "file"]
assert line.startswith("-rw-------   1 4242     4243            4 01 Jan 1970 "), line

# Links and names.
client.symlink("file", "link")
assert client.readlink("link") == "file"
assert stat.S_ISLNK(client.lstat("link").st_mode)
assert stat.S_ISREG(client.stat("link").st_mode)
assert client.normalize("link") == directory + "/file"
client.symlink("nowhere", "dangling")
assert stat.S_ISLNK(client.lstat("dangling").st_mode)
fails(errno.ENOENT, client.stat, "dangling")
client.mkdir("below", 0o700)
fails(None, client.rename, "file", "far")
client.posix_rename("far", "below/far")
client.rename("below/far", "below/gültig ☃")
assert client.listdir("below") == ["gültig ☃"]
fails(None, client.rmdir, "below")
client.remove("below/gültig ☃")
client.rmdir("below")
fails(errno.ENOENT, client.remove, "below")

# A name that is not UTF-8 is shown, but never taken for another one.
with open(directory.encode() + b"/\xff", "w"):
    pass
assert "\ufffd" in client.listdir(".")
for name in (b"\xff", b"\xfe"):
    said = fails(None, client.open, name, "w")
    assert "UTF-8" in said, said

# A large directory.
client.mkdir("many")
for number in range(10_000):
    os.close(os.open(f"{directory}/many/{number}", os.O_CREAT))
assert sorted(client.listdir("many")) == sorted(str(n) for n in range(10_000))

# Many files open, each with its own content.
files = [client.open(f"many/{number}", "w+b") for number in range(200)]
for number, file in enumerate(files):
    file.write(str(number).encode())
for number, file in enumerate(files):
    file.seek(0)
    assert file.read() == str(number).encode()
    file.close()

client.close()
assert server.wait(10) == 0
print("done")
