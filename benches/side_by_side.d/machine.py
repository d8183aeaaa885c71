"""Processes of our own: started on one core, measured, ended; and the packages they come from."""

import os
import pathlib
import re
import resource
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time

import config

REPOSITORY = pathlib.Path(__file__).resolve().parents[2]
PACKAGES = {
    "nginx": "nginx",
    "haproxy": "haproxy",
    "caddy": "caddy",
    "h2load": "nghttp2-client",
    "valgrind": "valgrind",
    "strace": "strace",
}
ADDRESSES = {
    "gantry": "127.77.201.1",
    "nginx": "127.77.201.2",
    "haproxy": "127.77.201.3",
    "caddy": "127.77.201.4",
}
PROXIES = tuple(ADDRESSES)
ORIGIN_ADDRESS, ORIGIN_PORT = "127.77.202.1", 3000
ORIGIN = f"{ORIGIN_ADDRESS}:{ORIGIN_PORT}"
FILES = 2 * config.CONNECTIONS + 5000


class Failed(Exception):
    """The measurement cannot go on; the text says why."""


def say(text):
    """Progress goes to the standard error, so that the table stands alone."""
    print(text, file=sys.stderr, flush=True)


def install():
    """Installs what is missing from Debian, without starting any of it."""
    missing = [package for program, package in PACKAGES.items() if not which(program)]
    if not missing:
        return
    if os.geteuid() != 0 or not shutil.which("apt-get"):
        raise Failed(f"these packages are missing: {' '.join(missing)}")
    say(f"Installing {' '.join(missing)} …")
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive", "RUNLEVEL": "1"}
    policy = pathlib.Path("/usr/sbin/policy-rc.d")
    ours = not policy.exists()
    if ours:
        # Their services must not take the ports of this machine.
        policy.write_text("#!/bin/sh\nexit 101\n")
        policy.chmod(0o755)
    try:
        lock = ["-o", "DPkg::Lock::Timeout=300"]
        for command in (["update"], ["install", "-y", "--no-install-recommends", *missing]):
            run(["apt-get", *lock, *command], 900, env=environment)
    finally:
        if ours:
            policy.unlink()


def which(program):
    """The program's path; servers lie where not everybody looks."""
    return shutil.which(program, path=f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin")


def run(command, seconds, **more):
    """Runs a command to its end and returns its output; fails when it fails or is late."""
    try:
        done = subprocess.run(
            command, timeout=seconds, text=True, capture_output=True, check=False, **more
        )
    except subprocess.TimeoutExpired as late:
        raise Failed(f"{command[0]} was not done after {seconds} s") from late
    if done.returncode != 0:
        raise Failed(f"{' '.join(map(str, command))}\n{done.stdout}{done.stderr}")
    return done.stdout


def build():
    """Builds the program of the measurements; returns its path."""
    say("Building …")
    return pathlib.Path(run([REPOSITORY / "benches" / "build"], 3600).strip())


def open_files_max():
    """The files that a process of ours may open: as many as are needed, if the machine lets us."""
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    if hard == resource.RLIM_INFINITY or hard >= FILES:
        return FILES
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (FILES, FILES))
        return FILES
    except (ValueError, PermissionError):
        return hard


class Machine:
    """""The temporary directory, the cores and the processes; all of it is gone after `with`."""

    def __init__(self, bench, wanted):
        self.bench = bench
        self.wanted = wanted
        self.place = pathlib.Path(tempfile.mkdtemp(prefix="gantry-side-by-side-"))
        cores = sorted(os.sched_getaffinity(0))
        self.proxy_core, self.client_core = cores[0], cores[-1]
        self.processes = {}
        self.ca = self.place / "ca.pem"
        self.hostnames = []
        self.files = open_files_max()

    def connections(self, wanted):
        """So many connections, or as many as a proxy may have: each is two files of its, and it needs
        some for itself."""
        return min(wanted, (self.files - 1000) // 2)

    def __enter__(self):
        run([self.bench, "certificates", self.place], 60)
        self.hostnames = run([self.bench, "hostnames"], 60).split()
        self.origin = self.start("origin", [self.bench, "origin", ORIGIN], self.client_core)
        wait_for(ORIGIN_ADDRESS, ORIGIN_PORT, self.origin, 30)
        return self

    def __exit__(self, *_):
        for name in list(self.processes):
            self.stop(name)
        shutil.rmtree(self.place, ignore_errors=True)

    @property
    def hostname(self):
        """The host that requests are for: of a container with a permission document."""
        return self.hostnames[0]

    @property
    def open_hostname(self):
        """The host of a container without one."""
        return self.hostnames[1]

    def start(self, name, command, core, stderr=None):
        """Starts a process on one core; its output goes to a file, its input stays open."""
        files = self.files

        def prepare():
            os.sched_setaffinity(0, {core})
            resource.setrlimit(resource.RLIMIT_NOFILE, (files, files))

        environment = {**os.environ, "GOMAXPROCS": "1", "HOME": str(self.place)}
        with open(self.place / f"{name}.out", "wb") as out:
            process = subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=out,
                stderr=stderr or out,
                preexec_fn=prepare,
                env=environment,
            )
        self.processes[name] = process
        return process

    def stop(self, name, way=signal.SIGKILL, seconds=60):
        """Ends one of our processes and waits for its end."""
        process = self.processes.pop(name)
        process.stdin.close()
        if name != "gantry" or way == signal.SIGKILL:
            process.send_signal(way)
        try:
            process.wait(seconds)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait(seconds)

    def command(self, proxy):
        """The command line of a proxy; its configuration is written."""
        place = self.place / proxy
        place.mkdir(exist_ok=True)
        if proxy == "gantry":
            for name in ("leaf.pem", "leaf.key"):
                shutil.copy(self.place / name, place / name)
            return [self.bench, "edge", ADDRESSES[proxy], ORIGIN_ADDRESS, place]
        command = config.WRITERS[proxy](place, ADDRESSES[proxy], ORIGIN, self.hostnames)
        return [which(command[0]), *command[1:]]

    def start_proxy(self, proxy, under=(), stderr=None):
        """Starts a proxy afresh and waits until it answers."""
        process = self.start(proxy, [*under, *self.command(proxy)], self.proxy_core, stderr)
        for port in (8080, 8443):
            wait_for(ADDRESSES[proxy], port, process, 300)
        self.client("requests", "plain", "guarded", f"{ADDRESSES[proxy]}:8080", 10)
        return process

    def start_proxies(self):
        """Starts all that are wanted and do not run."""
        for proxy in self.wanted:
            if proxy not in self.processes:
                self.start_proxy(proxy)

    def restart_alone(self, proxy):
        """Starts a proxy afresh, and no other one."""
        for name in PROXIES:
            if name in self.processes:
                self.stop(name)
        return self.start_proxy(proxy)

    def client(self, *arguments, seconds=600):
        """Runs one of our clients on the core of clients; returns its output."""
        pinned = ["taskset", "-c", str(self.client_core), self.bench, *map(str, arguments)]
        return run(pinned, seconds)

    def h2load(
        self, proxy, requests, connections, secure, version, path="/some/path", hostname=None
    ):
        """`requests` requests by h2load; fails unless each is answered by a 200."""
        scheme, port = ("https", 8443) if secure else ("http", 8080)
        command = ["taskset", "-c", str(self.client_core), "h2load", "-t1"]
        command += ["-n", str(requests), "-c", str(connections)]
        # More than one at a time over HTTP/1 would be pipelining.
        command += ["--h1", "-m1"] if version == 1 else ["-m8"]
        command += [f"--connect-to={ADDRESSES[proxy]}:{port}"]
        out = run([*command, f"{scheme}://{hostname or self.hostname}:{port}{path}"], 600)
        if f" {requests} succeeded" not in out or f"status codes: {requests} 2xx" not in out:
            raise Failed(f"{proxy} did not answer every request:\n{out}")

    def calls(self, proxy, act):
        """The system calls that a proxy makes while `act(proxy)` runs, by name."""
        pid, out = self.processes[proxy].pid, self.place / "strace.out"
        log = self.place / "strace.log"
        command = [which("strace"), "-f", "-c", "-U", "name,calls", "-o", out, "-p", str(pid)]
        with open(log, "wb") as stderr:
            # Beside the clients, as it runs while the proxy stands still.
            strace = self.start("strace", command, self.client_core, stderr)
        end = time.monotonic() + 30
        while "attached" not in log.read_text():
            if strace.poll() is not None or time.monotonic() > end:
                raise Failed(f"strace does not look at {proxy}: {log.read_text()}")
            time.sleep(0.02)
        act(proxy)
        self.stop("strace", signal.SIGINT)
        found = re.findall(r"^(\w+)\s+(\d+)$", out.read_text(), re.MULTILINE)
        return {name: int(count) for name, count in found if name != "total"}


def wait_for(address, port, process, seconds):
    """Waits until somebody listens."""
    end = time.monotonic() + seconds
    while True:
        if process.poll() is not None:
            raise Failed(f"{process.args} has ended with {process.returncode}")
        try:
            socket.create_connection((address, port), 1).close()
            return
        except OSError:
            if time.monotonic() > end:
                raise Failed(f"nothing listens on {address}:{port}") from None
            time.sleep(0.05)


def cpu_seconds(process):
    """The user and the system time of a process, all its threads together."""
    text = pathlib.Path(f"/proc/{process.pid}/stat").read_text()
    fields = text.rpartition(")")[2].split()
    return tuple(int(ticks) / os.sysconf("SC_CLK_TCK") for ticks in fields[11:13])


def stolen_seconds():
    """The time that the host of this machine, if it is a virtual one, gave to others."""
    total = pathlib.Path("/proc/stat").read_text().split("\n", maxsplit=1)[0]
    return int(total.split()[8]) / os.sysconf("SC_CLK_TCK")


def memory(process):
    """The resident octets of a process, once they do not change any more."""

    def resident():
        pages = pathlib.Path(f"/proc/{process.pid}/statm").read_text().split()[1]
        return int(pages) * os.sysconf("SC_PAGE_SIZE")

    last = resident()
    for _ in range(20):
        time.sleep(0.5)
        now = resident()
        if abs(now - last) < 64 * 1024:
            return now
        last = now
    return last
