"""What is measured. Each function yields rows; a row has one list of figures per proxy, one figure
per round. Rounds are interleaved (A B C D A B C D …), so that all see the same machine."""

import os
import re
import signal
import time
from dataclasses import dataclass, field

from machine import ADDRESSES, ORIGIN, PROXIES, cpu_seconds, memory, run, say, stolen_seconds

# What Caddy does, it does several times slower; a quarter of the work says as much.
SHARE = {"caddy": 0.25}
PEERS = ("nginx", "haproxy")
# How the work of a line begins that says how much of the line before it is of one kind.
SPLIT = "– of it"
# (work, kind of connection, how many wait at the same time, the most KiB for each). `benches/memory`
# holds the product to the same bounds.
IDLE = (
    ("memory per idle TLS keep-alive connection", "http", 10_000, 16),
    ("memory per idle WebSocket pair, TLS", "websocket", 2_000, 32),
)


@dataclass
class Row:
    """One line of the table. `target` bounds the ratio to the better of nginx and HAProxy if
    `relative`, else Gantry's figure itself; without one the line only says where a figure comes
    from."""

    work: str
    unit: str
    target: float | None = None
    relative: bool = False
    figures: dict = field(default_factory=dict)
    # What a proxy's figure consists of, in words.
    parts: dict = field(default_factory=dict)


def cpu_rows(machine, options):
    """CPU time per request, handshake and answer; of requests, how much of it is the kernel's."""
    tls = {proxy: f"{ADDRESSES[proxy]}:8443" for proxy in PROXIES}

    def load(connections, secure, version, path="/some/path", hostname=None):
        return lambda proxy, count: machine.h2load(
            proxy, count, min(connections, count), secure, version, path, hostname
        )

    def shake(proxy, count):
        machine.client("handshakes", tls[proxy], count, machine.ca)

    # Peers have no permission documents: what they do for either hostname is the same.
    open_host = machine.open_hostname
    works = [
        ("CPU per request, HTTP/1.1 keep-alive over TLS", 40_000, 0.85, load(32, True, 1)),
        (
            "the same, no permission document",
            40_000,
            None,
            load(32, True, 1, hostname=open_host),
        ),
        ("CPU per request, HTTP/1.1 keep-alive", 60_000, 1.00, load(32, False, 1)),
        ("CPU per request, HTTP/2 over TLS", 60_000, 1.00, load(8, True, 2)),
        ("CPU per full TLS 1.3 handshake, P-256", 2_000, 0.60, shake),
        ("CPU per 100 KB answer over TLS", 6_000, 0.70, load(8, True, 1, "/octets/102400")),
        ("CPU per 10 MB answer over TLS", 80, 0.70, load(4, True, 1, "/octets/10485760")),
    ]
    machine.start_proxies()
    for work, count, target, act in works:
        # Connections to the origin, caches and pages are there before anything counts.
        for proxy in machine.wanted:
            act(proxy, 64)
        whole, kernel = Row(work, "µs", target, True), Row(f"{SPLIT} in the kernel", "µs")
        for number in range(options.rounds):
            say(f"{work}: round {number + 1} of {options.rounds}")
            for proxy in machine.wanted:
                amount = max(8, int(count * SHARE.get(proxy, 1) * options.scale))
                before = cpu_seconds(machine.processes[proxy])
                act(proxy, amount)
                after = cpu_seconds(machine.processes[proxy])
                user, system = ((now - then) / amount * 1e6 for then, now in zip(before, after))
                whole.figures.setdefault(proxy, []).append(user + system)
                kernel.figures.setdefault(proxy, []).append(system)
        yield whole
        if "keep-alive" in work or "HTTP/2" in work:
            yield kernel


def call_rows(machine, options):
    """System calls per request, counted by strace: apart from what is timed, because it slows the
    proxies down. Also which ones they are."""
    machine.start_proxies()
    requests = 1_000 if options.quick else 4_000

    def one_by_one(proxy):
        address = f"{ADDRESSES[proxy]}:8443"
        machine.client("requests", "tls", "guarded", address, requests, machine.ca)

    works = [
        (
            "HTTP/1.1 over TLS, 32 connections",
            lambda proxy: machine.h2load(proxy, requests, 32, True, 1),
        ),
        ("HTTP/1.1 over TLS, one connection", one_by_one),
        (
            "HTTP/1.1 without TLS, 32 connections",
            lambda proxy: machine.h2load(proxy, requests, 32, False, 1),
        ),
        (
            "HTTP/2 over TLS, 8 connections",
            lambda proxy: machine.h2load(proxy, requests, 8, True, 2),
        ),
    ]
    for work, act in works:
        row = Row(f"system calls per request, {work}", "calls")
        for proxy in (proxy for proxy in machine.wanted if proxy != "caddy"):
            say(f"{row.work}: {proxy}")
            calls = machine.calls(proxy, act)
            each = {name: count / requests for name, count in calls.items()}
            row.figures[proxy] = [sum(each.values())]
            often = sorted((-count, name) for name, count in each.items() if count >= 0.05)
            row.parts[proxy] = ", ".join(f"{name} {-count:.2f}" for count, name in often)
        yield row


def instruction_rows(machine, options):
    """User-space instructions per request. Go's runtime does not run under valgrind."""
    requests = 500 if options.quick else 2_000

    def count(proxy, kind, gate, amount):
        log = machine.place / f"{proxy}.valgrind"
        under = ["valgrind", "--tool=callgrind", "--callgrind-out-file=/dev/null"]
        with open(log, "wb") as stderr:
            machine.start_proxy(proxy, under, stderr)
            if kind == "HTTP/2 over TLS":
                machine.h2load(proxy, amount, 1, True, 2)
            else:
                tls = kind == "TLS"
                port, ca = (8443, [machine.ca]) if tls else (8080, [])
                address = f"{ADDRESSES[proxy]}:{port}"
                machine.client("requests", "tls" if tls else "plain", gate, address, amount, *ca)
            machine.stop(proxy, signal.SIGQUIT if proxy == "nginx" else signal.SIGTERM)
        collected = re.findall(r"Collected : (\d+)", log.read_text())
        return int(collected[-1]) if collected else None

    for kind, gate, target in (
        ("plain", "guarded", 30_000),
        ("plain", "open", None),
        ("TLS", "guarded", 40_000),
        ("TLS", "open", None),
        ("HTTP/2 over TLS", "guarded", None),
    ):
        guard = "" if gate == "guarded" else ", no permission document"
        row = Row(f"user-space instructions per request, {kind}{guard}", "instructions", target)
        for proxy in machine.wanted:
            # To peers both hostnames are the same.
            if proxy == "caddy" or (gate == "open" and proxy != "gantry"):
                continue
            say(f"{row.work}: {proxy}")
            if proxy in machine.processes:
                machine.stop(proxy)
            once = count(proxy, kind, gate, requests)
            twice = count(proxy, kind, gate, 2 * requests)
            if once and twice:
                row.figures[proxy] = [(twice - once) / requests]
        yield row


def latency_rows(machine, options):
    """What a proxy over TLS adds to the latency of a connection to the origin, both at the same rate:
    half of what the proxy can do. Beside it what no proxy can help: how much of the cores' time the
    host of a virtual machine took for others. Where that is more than one part in a hundred, the last
    hundredth of the requests measures the host."""
    machine.start_proxies()
    seconds = 2 if options.quick else 5
    rates = {}
    for proxy in machine.wanted:
        process, amount = machine.processes[proxy], int(10_000 * SHARE.get(proxy, 1))
        before, begun = sum(cpu_seconds(process)), time.monotonic()
        machine.h2load(proxy, amount, 32, True, 1)
        # Whichever bounds it, its own core or that of the clients.
        busy = max(sum(cpu_seconds(process)) - before, time.monotonic() - begun)
        rates[proxy] = max(100, int(amount / busy / 2))

    percents = (50, 95, 99)

    def ask(*arguments):
        out = machine.client("latency", *arguments)
        return [int(re.search(rf"p{percent}_us (\d+)", out)[1]) / 1000 for percent in percents]

    targets = {50: 0.15, 99: 0.5}
    added = [
        Row(f"added latency at half load, p{percent}", "ms", targets.get(percent))
        for percent in percents
    ]
    alone = [
        Row(f"– latency of the direct connection at that rate, p{percent}", "ms")
        for percent in percents
    ]
    stolen = Row("– time of the cores that the host took meanwhile", "%")
    for number in range(options.rounds):
        say(f"added latency at half load: round {number + 1} of {options.rounds}")
        for proxy in machine.wanted:
            direct = ask("plain", ORIGIN, rates[proxy], seconds)
            before = stolen_seconds(), time.monotonic()
            address = f"{ADDRESSES[proxy]}:8443"
            through = ask("tls", address, rates[proxy], seconds, machine.ca)
            took = (time.monotonic() - before[1]) * os.cpu_count()
            share = (stolen_seconds() - before[0]) / took * 100
            stolen.figures.setdefault(proxy, []).append(share)
            for extra, row, by, without in zip(added, alone, through, direct):
                extra.figures.setdefault(proxy, []).append(by - without)
                row.figures.setdefault(proxy, []).append(without)
    yield from added
    yield from alone
    yield stolen


def memory_rows(machine, options):
    """Resident memory per connection that waits. A row says how many there were, if it was not as many as
    there should be."""
    for work, kind, wanted, target in IDLE:
        amount = machine.connections(wanted // 10 if options.quick else wanted)
        row = Row(work if amount == wanted else f"{work}, {amount:,} of them", "KiB", target)
        for proxy in machine.wanted:
            say(f"{work}: {proxy}")
            row.figures[proxy] = [idle(machine, proxy, kind, amount)]
        yield row


def idle(machine, proxy, kind, amount):
    """By how many KiB a proxy that was started afresh grows for each of so many idle connections."""
    process = machine.restart_alone(proxy)
    address = f"{ADDRESSES[proxy]}:8443"
    machine.client("requests", "tls", "guarded", address, 500, machine.ca)
    before = memory(process)
    command = [machine.bench, "idle", kind, address, str(amount), machine.ca]
    clients = machine.start("idle", command, machine.client_core)
    wait_for_line(machine.place / "idle.out", clients)
    each = (memory(process) - before) / amount / 1024
    machine.stop("idle", signal.SIGTERM)
    return each


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
        yield Row(work, "ns", 150, figures={"gantry": [figure]})
    out = run([bench, "count", "memory", str(containers), "1"], 600)
    figure = int(re.search(r"bytes_per_container (\d+)", out)[1])
    yield Row("memory per container in the table", "octets", 200, figures={"gantry": [figure]})
