"""What asyncssh does with a server: by_asyncssh.py NAME PORT DIRECTORY. Prints what came of it."""

import asyncio
import os
import sys

import asyncssh

NAME, PORT, DIRECTORY = sys.argv[1:]
SIGNALS = ("TERM", "KILL", "INT", "QUIT", "HUP", "ABRT", "USR1", "USR2", "SEGV", "PIPE", "ALRM", "XCPU", "34")


async def signals(connection):
    for name in ("TERM", "INT", "USR1", "NONE"):
        process = await connection.create_process(
            "for s in TERM INT USR1; do trap \"echo got $s; exit 5\" $s; done; echo in; until read -t 0.1 x; do :; done; echo $x"
        )
        assert await process.stdout.readline() == "in\n"
        process.send_signal(name)
        if name == "NONE":
            process.stdin.write("end\n")
        done = await process.wait()
        want = (0, "end\n") if name == "NONE" else (5, f"got {name}\n")
        assert (done.exit_status, done.stdout) == want, (name, done)


async def main():
    connection = await asyncssh.connect(
        "127.0.0.1",
        int(PORT),
        username="root",
        client_keys=[DIRECTORY + "/id"],
        known_hosts=DIRECTORY + "/known_hosts",
        config=None,
        agent_path=None,
    )
    # Statuses, and streams apart.
    for command in ("true", "echo out; echo err >&2; exit 7"):
        done = await connection.run(command)
        print(done.exit_status, done.exit_signal, repr(done.stdout), repr(done.stderr))
    # How it was killed, if the protocol has a name for that.
    for name in SIGNALS:
        done = await connection.run(f"ulimit -c 0; kill -{name} $$")
        print(name, done.exit_status, done.exit_signal)

    # Signals to a process. Of root's, sshd refuses to send any (it wants its privileges to be separated).
    if NAME != "sshd":
        await signals(connection)

    # The input's end comes before the output's.
    data = os.urandom(1_000_000)
    done = await connection.run("cat | cksum; sleep 0.2; echo end", input=data, encoding=None)
    print(done.exit_status, done.stdout.endswith(b"end\n"))

    # A terminal: modes, size and another size, which need not come in order with what is typed; its end as a key.
    process = await connection.create_process(
        "stty size; stty -a | grep -o -- '-\\?ixon'; read x; until [ \"$(stty size)\" != '30 90' ]; do :; done; stty size; echo $TERM; cat; exit 4",
        term_type="vt220",
        term_size=(90, 30, 900, 600),
        term_modes={asyncssh.PTY_IXON: 0, asyncssh.PTY_ECHO: 0},
    )
    print(repr(await process.stdout.readline()), repr(await process.stdout.readline()))
    process.change_terminal_size(70, 20, 700, 400)
    process.stdin.write("\n")
    print(repr(await process.stdout.readline()), repr(await process.stdout.readline()))
    process.stdin.write("line\n\x04")
    done = await process.wait()
    print(done.exit_status, repr(done.stdout))

    # A break is nothing to a process without a terminal.
    process = await connection.create_process("read x; echo $x")
    process.send_break(10)
    process.stdin.write("after\n")
    print(repr((await process.wait()).stdout))

    # Nearly as many channels at once as there may be.
    runs = (connection.run(f"cat; exit {n}", input=str(n)) for n in range(95))
    many = [(done.exit_status, done.stdout) for done in await asyncio.gather(*runs)]
    assert many == [(n, str(n)) for n in range(95)], many

    # Octets by a connection inside, each end closed by itself.
    async def echo(reader, writer):
        text = await reader.read()
        writer.write(text + b"end")
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(echo, "127.0.0.1")
    reader, writer = await connection.open_connection(*server.sockets[0].getsockname())
    writer.write(b"hello")
    writer.write_eof()
    print(await reader.read())
    server.close()
    try:
        await connection.open_connection("127.0.0.1", 1)
    except asyncssh.ChannelOpenError as error:
        print(error.code)

    # Listeners, which can be had again as soon as they are closed.
    path = f"/tmp/gantry-asyncssh-{os.getpid()}.sock"
    # sshd leaves its sockets behind.
    for _ in range(0 if NAME == "sshd" else 20):
        listener = await connection.forward_remote_path(path, "/dev/null/none")
        listener.close()
        await listener.wait_closed()
    print(os.path.exists(path))
    listener = await connection.forward_remote_port("127.0.0.1", 0, "127.0.0.1", 1)
    port = listener.get_port()
    for _ in range(20):
        listener.close()
        await listener.wait_closed()
        listener = await connection.forward_remote_port("127.0.0.1", port, "127.0.0.1", 1)
    listener.close()
    await listener.wait_closed()

    # Files.
    async with connection.start_sftp_client() as files:
        directory = f"/tmp/gantry-asyncssh-{os.getpid()}"
        await files.mkdir(directory)
        async with files.open(directory + "/a", "wb") as file:
            await file.write(data)
        async with files.open(directory + "/a", "rb") as file:
            assert await file.read() == data
        await files.posix_rename(directory + "/a", directory + "/b")
        await files.symlink("b", directory + "/c")
        await files.link(directory + "/b", directory + "/d")
        print(sorted(await files.listdir(directory)), (await files.stat(directory + "/d")).size)
        print((await files.statvfs(directory)).bsize > 0)
        print((await files.realpath(directory + "/..")) == "/tmp")
        await files.rmtree(directory)
        print(await files.exists(directory))
    connection.close()
    await connection.wait_closed()
    print("done")


asyncio.run(asyncio.wait_for(main(), 50))
