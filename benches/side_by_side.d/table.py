"""From figures to the table, the JSON and the section of RESULTS.md."""

import datetime
import json
import os
import pathlib
import platform
import re
import statistics

from machine import PROXIES, run, which
from rows import PEERS

BEGIN = "<!-- side_by_side: written by the program, not by hand -->"
END = "<!-- side_by_side: end -->"


def summary(row):
    """A row as JSON has it; `noise` is the widest spread of one proxy's rounds around its median."""
    medians = {
        proxy: statistics.median(figures) for proxy, figures in row.figures.items() if figures
    }
    better = min((proxy for proxy in PEERS if proxy in medians), key=medians.get, default=None)
    ratio = None
    if better and "gantry" in medians:
        # Round by round, so that what slowed both down cancels out.
        pairs = zip(row.figures["gantry"], row.figures[better])
        ratios = [ours / theirs for ours, theirs in pairs if theirs > 0]
        ratio = statistics.median(ratios) if ratios else None
    judged = ratio if row.relative else medians.get("gantry")
    judged = None if row.target is None else judged
    spreads = [
        (max(figures) - min(figures)) / 2 / abs(statistics.median(figures))
        for figures in row.figures.values()
        if len(figures) > 1 and statistics.median(figures)
    ]
    return {
        "work": row.work,
        "unit": row.unit,
        **{proxy: medians.get(proxy) for proxy in PROXIES},
        "ratio": ratio,
        "target": row.target,
        "pass": None if judged is None else judged <= row.target,
        "relative": row.relative,
        "noise": max(spreads, default=None),
        "best": {proxy: min(figures) for proxy, figures in row.figures.items() if len(figures) > 1},
        "parts": row.parts,
    }


def number(value):
    """A figure with as many digits as it deserves."""
    if value is None:
        return "–"
    if abs(value) >= 1000:
        return f"{value:,.0f}"
    return f"{value:.0f}" if abs(value) >= 100 else f"{value:.1f}" if abs(value) >= 10 else f"{value:.2f}"


def figure(row, proxy):
    """A proxy's median, and its best round behind a stroke."""
    best = row["best"].get(proxy)
    median = number(row[proxy])
    return median if best is None else f"{median} / {number(best)}"


def render(summaries):
    """The table, in Markdown; behind it one of the parts that figures consist of."""
    head = ["work", "unit", *PROXIES, "ratio", "target", "noise", ""]
    lines = [head]
    for row in summaries:
        target = "–"
        if row["target"] is not None:
            target = f"≤ {row['target']:.2f} ×" if row["relative"] else f"≤ {row['target']:,}"
        verdict = {True: "met", False: "MISSED", None: "–"}[row["pass"]]
        noise = "–" if row["noise"] is None else f"± {row['noise'] * 100:.0f} %"
        figures = [figure(row, proxy) for proxy in PROXIES]
        ratio = "–" if row["ratio"] is None else f"{row['ratio']:.2f}"
        lines.append([row["work"], row["unit"], *figures, ratio, target, noise, verdict])
    parts = [["which", "by", "a request"]]
    for row in summaries:
        parts += [[row["work"], proxy, what] for proxy, what in row["parts"].items()]
    return aligned(lines) + (f"\n\n{aligned(parts)}" if len(parts) > 1 else "")


def aligned(lines):
    """A table whose first line is its head, in Markdown."""
    head, *rest = lines
    lines = [head, ["---"] * len(head), *rest]
    widths = [max(len(line[at]) for line in lines) for at in range(len(head))]
    cells = lambda line: " | ".join(cell.ljust(width) for cell, width in zip(line, widths))
    return "\n".join(f"| {cells(line)} |" for line in lines)


def circumstances(options, begun, load_before):
    """When and where it was measured, and how busy the machine was."""
    model = re.search(r"model name\s*: (.*)", pathlib.Path("/proc/cpuinfo").read_text())
    versions = [
        run([which("haproxy"), "-v"], 10).splitlines()[0].split(" - ")[0].strip(),
        f"caddy {run([which('caddy'), 'version'], 10).split()[0]}",
    ]
    nginx = run(["sh", "-c", f"{which('nginx')} -v 2>&1"], 10).strip().rpartition(": ")[2]
    # The version alone: what follows it names a build.
    kernel = ".".join(platform.release().split(".")[:2])
    took = datetime.datetime.now(datetime.timezone.utc) - begun
    return (
        f"{begun:%Y-%m-%d %H:%M} UTC, {took.seconds // 60} minutes, {options.rounds} interleaved "
        f"rounds{', short ones' if options.quick else ''}. {os.cpu_count()} cores, "
        f"{model[1] if model else platform.machine()}, Linux {kernel}; load average "
        f"before {load_before:.1f}, after {os.getloadavg()[0]:.1f}. {nginx}, "
        f"{', '.join(versions)}, one worker each on one core; origin and clients on the other."
    )


def record(path, text, table):
    """Replaces the section of RESULTS.md."""
    results = path.read_text()
    section = f"{BEGIN}\n{text}\n\n{table}\n{END}"
    pattern = re.compile(f"{re.escape(BEGIN)}.*?{re.escape(END)}", re.DOTALL)
    if not pattern.search(results):
        results += f"\n## Side by side\n\n{BEGIN}\n{END}\n"
    path.write_text(pattern.sub(lambda _: section, results))


def write_json(path, summaries):
    """The rows, for programs."""
    keys = ["work", "unit", *PROXIES, "ratio", "target", "pass"]
    rows = [{key: row[key] for key in keys} for row in summaries]
    pathlib.Path(path).write_text(json.dumps(rows, indent=2, ensure_ascii=False) + "\n")
