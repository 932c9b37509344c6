"""The end of a soak: what its store holds beside what the logs refer to, and one line that sums up.

soak.py WORK OUT STORE: WORK holds the reports of `fsck` and `gc`, and lists of the uploads that
were broken off, OUT the figures of `soak`, to which the line's are added. The exit code is 1 where
one of them must be zero and is not, or must not be and is.
"""

import collections
import json
import pathlib
import re
import sys

# Kills that waited for an upload in parts: where there were so many, one was broken off at least.
AIMED_MIN = 5
FAILED = re.compile(r"object store failed .*\bkind=\"?(\w+)\"?.* left_out=(\d+)")


def uploads(file):
    """How many there are, and the bytes of their parts."""
    lines = file.read_text().splitlines()
    return len(lines), sum(int(line.split()[-1]) for line in lines), lines


def failures(log):
    """Attempts at the store that failed, as the proxy's log counts them, by kind."""
    counts = collections.Counter()
    with log.open(errors="replace") as lines:
        for line in lines:
            found = FAILED.search(line)
            if found:
                counts[found.group(1)] += 1 + int(found.group(2))
    return counts


def summed(work, figures, store):
    """The figures of the line, and whether each is as it must be."""
    def read(name):
        return json.loads((work / f"{name}.json").read_text())

    before, after, passes = read("fsck"), read("after"), [read("gc-2"), read("gc-4")]
    count, size, lines = uploads(work / "uploads-before")
    left, left_size, _ = uploads(work / "uploads-after")
    # A local store removes what was not written to its end by itself, whenever it is opened.
    ends_uploads = store == "local" or any("uploads" in report for report in passes)
    unreferred = sum(after[what]["objects"] for what in ("orphans", "young", "hidden"))
    broken = sum(
        len(report[what]) for report in (before, after) for what in ("dangling", "damaged")
    )
    orphaned = sum(before[what]["objects"] for what in ("orphans", "young"))
    deleted = sum(report["deleted"]["objects"] for report in passes)
    for line in lines[:5]:
        print(f"  broken off: {line}")
    print(f"  store: {before['stored']['objects']} objects, {before['references']} references, "
          f"{deleted} objects deleted by gc, {unreferred} left that no log refers to")
    return {
        "acknowledged": (figures["acknowledged"], figures["acknowledged"] > 0),
        "lost": (figures["lost"], figures["lost"] == 0),
        "doubled": (figures["doubled"], figures["doubled"] == 0),
        "orphaned": (orphaned, True),
        "orphan bytes older than the grace after gc":
            (after["orphans"]["bytes"], unreferred == 0 and after["orphans"]["bytes"] == 0),
        "dangling references": (broken, broken == 0 and before["references"] > 0),
        "unfinished uploads":
            (count, count > 0 or figures.get("kills_in_parts", 0) < AIMED_MIN),
        "bytes of them": (size, True),
        "unfinished uploads after gc": (left, left == 0 or not ends_uploads),
        "bytes of these": (left_size, True),
    }, ends_uploads


def main():
    work, out, store = pathlib.Path(sys.argv[1]), pathlib.Path(sys.argv[2]), sys.argv[3]
    try:
        report = json.loads(out.read_text())
        line, ends_uploads = summed(work, report["figures"], store)
    except (OSError, ValueError, KeyError, TypeError) as error:
        print(f"  no account of the store: {error!r}")
        return 1
    failed = failures(work / "firebreak.log")
    if failed:
        told = ", ".join(f"{kind} {count}" for kind, count in failed.most_common())
        print(f"  attempts at the store that failed: {told}")
    if not ends_uploads:
        print("  this gc does not end uploads that were broken off: they are counted, not judged")
    whole = {name: int(value) for name, (value, _) in line.items()}
    print(" / ".join(f"{name} {value}" for name, value in whole.items()))
    wrong = [name for name, (_, holds) in line.items() if not holds]
    if wrong:
        print(f"NOT AS IT MUST BE: {', '.join(wrong)}")
    report["end"] = {**whole, "failed_attempts": dict(failed), "wrong": wrong}
    report["passed"] = report["passed"] and not wrong
    out.write_text(json.dumps(report, indent=2) + "\n")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
