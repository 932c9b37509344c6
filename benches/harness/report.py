"""Tables for people, JSON for everything else."""

import datetime
import json
import os
import pathlib
import platform
import subprocess

from measure import CLAIM_ROUNDS


def machine():
    """What the figures were made on."""
    model = "unknown"
    for line in pathlib.Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            model = line.split(":", 1)[1].strip()
            break
    memory_kb = int(pathlib.Path("/proc/meminfo").read_text().split()[1])
    return {
        "cpu": model,
        "cores": os.cpu_count(),
        "memory_gb": round(memory_kb / 1e6, 1),
        "kernel": platform.release(),
        "load_at_start": os.getloadavg()[0],
        "date": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
    }


def commit(repo):
    told = subprocess.run(
        ["git", "-C", str(repo), "describe", "--always", "--dirty"],
        capture_output=True, text=True, check=False,
    )
    return told.stdout.strip() or "unknown"


def number(value):
    if value is None:
        return "-"
    if value >= 1000:
        return f"{value:,.0f}"
    return f"{value:.3g}"


def ratio(value):
    return "-" if value is None else f"{value:.2f}"


def print_cell(result):
    """One table per cell: a row per measure and judged mode."""
    print(f"\n{result['cell']}: {result['title']}")
    if result.get("error"):
        print(f"  VOID: {result['error']}")
        return
    modes = result["modes"]
    if result["rounds"] < CLAIM_ROUNDS:
        print(f"  ({result['rounds']} round{'s' * (result['rounds'] > 1)}: no claim)")
    head = ["measure", *modes, "judged", "to", "ratio", "min..max", "relay again", "bar", "met"]
    rows = [head]
    for verdict in result["verdicts"]:
        low, high = ratio(verdict["ratio_min"]), ratio(verdict["ratio_max"])
        rows.append([
            f"{verdict['measure']} {verdict['unit']}",
            *(number(verdict["median"].get(mode)) for mode in modes),
            verdict["mode"], verdict["base"], ratio(verdict["ratio"]), f"{low}..{high}",
            ratio(verdict["relay_again"]), bar(verdict), met(verdict),
        ])
    widths = [max(len(row[place]) for row in rows) for place in range(len(head))]
    for row in rows:
        print("  " + "  ".join(word.ljust(width) for word, width in zip(row, widths)).rstrip())
    for note in result["notes"]:
        print(f"  {note}")
    print(f"  the rest of the machine used {result['others_share']:.0%} of all cores meanwhile")


def bar(verdict):
    words = []
    if verdict["bar"] is not None:
        words.append(f"{verdict['bar']:.2f}x")
    if verdict["limit"] is not None:
        sign = ">=" if verdict["higher_is_better"] else "<="
        words.append(f"{sign} {number(verdict['limit'])}")
    return " ".join(words) or "-"


def met(verdict):
    return {None: "-", True: "yes", False: "NO"}[verdict["met"]]


def print_head(head):
    machine_told = head["machine"]
    print(
        f"{machine_told['cpu']}, {machine_told['cores']} cores, {machine_told['memory_gb']} GB, "
        f"Linux {machine_told['kernel']}, load {machine_told['load_at_start']:.1f}, "
        f"{machine_told['date']}"
    )
    print(", ".join(f"{name} {version}" for name, version in head["versions"].items()))


def print_foot(results):
    """The verdicts again, in a few lines."""
    judged = [verdict for one in results for verdict in one.get("verdicts", [])]
    count = {state: sum(1 for one in judged if one["met"] is state) for state in (True, False)}
    void = [one["cell"] for one in results if one.get("error")]
    print(f"\nbars met: {count[True]}, not met: {count[False]}, void cells: {len(void)}")
    for one in results:
        for verdict in one.get("verdicts", []):
            if verdict["met"] is False:
                judged_to = f"{verdict['mode']} to {verdict['base']}"
                print(f"  not met: {one['cell']} {verdict['measure']} ({judged_to})")
    for cell in void:
        print(f"  void: {cell}")


def keep_logs(folder, place):
    """What the processes said, when a cell is void."""
    place.mkdir(parents=True, exist_ok=True)
    for log in folder.glob("*.log"):
        (place / log.name).write_bytes(log.read_bytes())
    print(f"logs: {place}")


def write(path, head, results):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({**head, "cells": results}, indent=1) + "\n")
    print(f"JSON: {path}")
