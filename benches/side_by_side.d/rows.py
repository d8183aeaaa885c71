"""What is measured. Each function yields rows; a row has one list of figures per proxy, one figure
per round. Rounds are interleaved (A B C D A B C D …), so that all see the same machine."""

import re
import signal
import time
from dataclasses import dataclass, field

from machine import ADDRESSES, ORIGIN, PROXIES, cpu_seconds, memory, run, say

# What Caddy does, it does several times slower; a quarter of the work says as much.
SHARE = {"caddy": 0.25}
PEERS = ("nginx", "haproxy")


@dataclass
class Row:
    """One line of the table. `target` bounds the ratio to the better of nginx and HAProxy if
    `relative`, else Gantry's figure itself."""

    work: str
    unit: str
    target: float
    relative: bool
    figures: dict = field(default_factory=dict)


def rounds(machine, options, row, measure):
    """Fills `row` with one figure of each proxy per round."""
    for number in range(options.rounds):
        say(f"{row.work}: round {number + 1} of {options.rounds}")
        for proxy in machine.wanted:
            row.figures.setdefault(proxy, []).append(measure(proxy))
    return row


def cpu_rows(machine, options):
    """CPU time per request, handshake and answer."""
    tls = {proxy: f"{ADDRESSES[proxy]}:8443" for proxy in PROXIES}

    def load(connections, secure, version, path="/some/path"):
        return lambda proxy, count: machine.h2load(
            proxy, count, min(connections, count), secure, version, path
        )

    def shake(proxy, count):
        machine.client("handshakes", tls[proxy], count, machine.ca)

    works = [
        ("CPU per request, HTTP/1.1 keep-alive over TLS", 40_000, 0.85, load(32, True, 1)),
        ("CPU per request, HTTP/1.1 keep-alive", 60_000, 1.00, load(32, False, 1)),
        ("CPU per request, HTTP/2 over TLS", 60_000, 1.00, load(8, True, 2)),
        ("CPU per full TLS 1.3 handshake, P-256", 2_000, 0.60, shake),
        ("CPU per 100 KB answer over TLS", 6_000, 0.70, load(8, True, 1, "/octets/102400")),
        ("CPU per 10 MB answer over TLS", 80, 0.70, load(4, True, 1, "/octets/10485760")),
    ]
    machine.start_proxies()
    for work, count, target, act in works:

        def measure(proxy, count=count, act=act):
            count = max(8, int(count * SHARE.get(proxy, 1) * options.scale))
            before = cpu_seconds(machine.processes[proxy])
            act(proxy, count)
            return (cpu_seconds(machine.processes[proxy]) - before) / count * 1e6

        # Connections to the origin, caches and pages are there before anything counts.
        for proxy in machine.wanted:
            act(proxy, 64)
        yield rounds(machine, options, Row(work, "µs", target, True), measure)


def instruction_rows(machine, options):
    """User-space instructions per request. Go's runtime does not run under valgrind."""
    requests = 500 if options.quick else 2_000

    def count(proxy, kind, amount):
        log = machine.place / f"{proxy}.valgrind"
        under = ["valgrind", "--tool=callgrind", "--callgrind-out-file=/dev/null"]
        with open(log, "wb") as stderr:
            machine.start_proxy(proxy, under, stderr)
            port, ca = (8080, []) if kind == "plain" else (8443, [machine.ca])
            machine.client("requests", kind, f"{ADDRESSES[proxy]}:{port}", amount, *ca)
            machine.stop(proxy, signal.SIGQUIT if proxy == "nginx" else signal.SIGTERM)
        collected = re.findall(r"Collected : (\d+)", log.read_text())
        return int(collected[-1]) if collected else None

    for kind, target in (("plain", 30_000), ("tls", 40_000)):
        row = Row(f"user-space instructions per request, {kind}", "instructions", target, False)
        for proxy in (proxy for proxy in machine.wanted if proxy != "caddy"):
            say(f"{row.work}: {proxy}")
            if proxy in machine.processes:
                machine.stop(proxy)
            once = count(proxy, kind, requests)
            twice = count(proxy, kind, 2 * requests)
            if once and twice:
                row.figures[proxy] = [(twice - once) / requests]
        yield row


def latency_rows(machine, options):
    """What a proxy over TLS adds to the latency of a connection to the origin, both at the same rate:
    half of what the proxy can do."""
    machine.start_proxies()
    seconds = 2 if options.quick else 5
    rates = {}
    for proxy in machine.wanted:
        process, amount = machine.processes[proxy], int(10_000 * SHARE.get(proxy, 1))
        before, begun = cpu_seconds(process), time.monotonic()
        machine.h2load(proxy, amount, 32, True, 1)
        # Whichever bounds it, its own core or that of the clients.
        busy = max(cpu_seconds(process) - before, time.monotonic() - begun)
        rates[proxy] = max(100, int(amount / busy / 2))

    def ask(*arguments):
        out = machine.client("latency", *arguments)
        return [int(re.search(rf"{name}_us (\d+)", out)[1]) / 1000 for name in ("p50", "p99")]

    p50 = Row("added latency at half load, p50", "ms", 0.15, False)
    p99 = Row("added latency at half load, p99", "ms", 0.5, False)
    for number in range(options.rounds):
        say(f"added latency at half load: round {number + 1} of {options.rounds}")
        for proxy in machine.wanted:
            direct = ask("plain", ORIGIN, rates[proxy], seconds)
            address = f"{ADDRESSES[proxy]}:8443"
            through = ask("tls", address, rates[proxy], seconds, machine.ca)
            for row, by, without in zip((p50, p99), through, direct):
                row.figures.setdefault(proxy, []).append(by - without)
    yield p50
    yield p99


def memory_rows(machine, options):
    """Resident memory per connection that waits, measured on processes started afresh."""
    works = [
        ("memory per idle TLS keep-alive connection", "http", 10_000, 16),
        ("memory per idle WebSocket pair, TLS", "websocket", 2_000, 32),
    ]
    for work, kind, amount, target in works:
        amount = amount // 10 if options.quick else amount
        row = Row(work, "KiB", target, False)
        for proxy in machine.wanted:
            say(f"{work}: {proxy}")
            process = machine.restart_alone(proxy)
            address = f"{ADDRESSES[proxy]}:8443"
            machine.client("requests", "tls", address, 500, machine.ca)
            before = memory(process)
            arguments = ["idle", kind, address, str(amount), machine.ca]
            idle = machine.start("idle", [machine.bench, *arguments], machine.client_core)
            wait_for_line(machine.place / "idle.out", idle)
            row.figures[proxy] = [(memory(process) - before) / amount / 1024]
            machine.stop("idle", signal.SIGTERM)
        yield row


def wait_for_line(path, process):
    """Waits until a process says that it is ready."""
    end = time.monotonic() + 300
    while "ready" not in path.read_text():
        if process.poll() is not None or time.monotonic() > end:
            raise RuntimeError(f"the idle connections did not come about: {path.read_text()}")
        time.sleep(0.1)


def table_rows(bench, options):
    """The route table by itself; no peer has one to compare."""
    containers = 100_000 if options.quick else 1_000_000
    say(f"route table with {containers:,} containers")
    out = run([bench, "count", "time", str(containers), "2000" if options.quick else "20000"], 600)
    for name, what in (("hot", "in use"), ("cold", "not asked for before")):
        work = f"lookup among {containers:,} containers, {what}"
        figure = int(re.search(rf"{name}_ns (\d+)", out)[1])
        yield Row(work, "ns", 150, False, {"gantry": [figure]})
    out = run([bench, "count", "memory", str(containers), "1"], 600)
    figure = int(re.search(r"bytes_per_container (\d+)", out)[1])
    yield Row("memory per container in the table", "octets", 200, False, {"gantry": [figure]})
