#!/usr/bin/env python3
"""The quickstart's verdict: is what came back what was sent, and what does the broker keep of it?

  report.py RUN_DIR TOPIC...

Reads RUN_DIR/{sent,back,direct}/TOPIC.tsv (see records.py) and the sizes of the broker's log files
below RUN_DIR/kafka, prints a table. Exit 0 only when every record came back identical, in the order
sent, and the image topic takes GOAL per cent less in the broker's log than was sent.
"""

import collections
import pathlib
import sys

from records import Record

REFERENCE_BYTES = 112
REFERENCE_MAGIC = b"\xfbREF"
GOAL_TOPIC, GOAL = "satellite-images", 95.0


def load(path):
    for line in path.read_text().splitlines():
        partition, key, length, sha256, head = line.split("\t")
        yield Record(partition, key, int(length), sha256, head)


def differences(sent, back):
    """What is not as it was sent, in words; empty when all came back identical, in order."""
    sent_count = collections.Counter((one.key, one.sha256) for one in sent)
    back_count = collections.Counter((one.key, one.sha256) for one in back)
    missing, extra = sent_count - back_count, back_count - sent_count
    found = examples("did not come back as sent", missing) + examples("was never sent so", extra)
    if missing and not extra:
        found.append("(one that cannot be restored holds up those behind it in its partition)")
    return found or out_of_order(sent, back)


def examples(words, records):
    """The first three by name, the others as a number."""
    found = []
    for key, sha256 in list(records)[:3]:
        name = "a record" if key == "-" else key
        found.append(f"{name} (SHA-256 {sha256[:16]}...) {words}")
    more = records.total() - len(found)
    return found + ([f"and {more:,} more"] if more > 0 else [])


def out_of_order(sent, back):
    """Within a partition, records must come in the order sent."""
    places = collections.defaultdict(list)
    for place, one in enumerate(sent):
        places[one.key, one.sha256].append(place)
    last = collections.defaultdict(lambda: -1)
    for one in back:
        place = next((p for p in places[one.key, one.sha256] if p > last[one.partition]), None)
        if place is None:
            return [f"partition {one.partition}: records came back in another order than sent"]
        last[one.partition] = place
    return []


def log_bytes(run, topic):
    return sum(path.stat().st_size for path in run.glob(f"kafka/node-*/data/{topic}-[0-9]*/*.log"))


def key_and_value_bytes(records):
    return sum(one.length + (0 if one.key == "-" else len(one.key.encode())) for one in records)


def report(run, topics):
    rows, notes, references = [], [], []
    for topic in topics:
        sent, back, direct = (
            list(load(run / way / f"{topic}.tsv")) for way in ("sent", "back", "direct")
        )
        wrong = differences(sent, back)
        notes += [f"{topic}: {words}" for words in wrong]
        rows.append((topic, len(sent), key_and_value_bytes(sent), log_bytes(run, topic), not wrong))
        marked = [one for one in direct if is_reference(one)]
        references.append(
            f"{topic}: of {len(direct):,} records on the broker {len(marked):,} are references "
            f"({REFERENCE_BYTES} bytes, first four {REFERENCE_MAGIC.hex(' ')})"
        )
    sums = [sum(row[column] for row in rows) for column in (1, 2, 3)]
    rows.append(("total", *sums, all(row[4] for row in rows)))
    print_table(rows)
    print("\nRead directly from the broker:", *references, sep="\n  ")
    if notes:
        print("\nNot identical:", *notes, sep="\n  ")
    return rows


def is_reference(one):
    return one.length == REFERENCE_BYTES and bytes.fromhex(one.head).startswith(REFERENCE_MAGIC)


def print_table(rows):
    cells = [("topic", "records", "bytes sent", "bytes in the broker's log", "saved", "identical")]
    for topic, count, sent, kept, identical in rows:
        saved = f"{saved_percent(sent, kept):.1f} %"
        verdict = "yes" if identical else "no"
        cells.append((topic, f"{count:,}", f"{sent:,}", f"{kept:,}", saved, verdict))
    widths = [max(len(row[column]) for row in cells) for column in range(len(cells[0]))]
    for row in cells:
        first, *others = (
            cell.ljust(width) if column == 0 else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(row, widths))
        )
        print("  ".join([first, *others]))
    print(f"\nidentical {'yes' if rows[-1][4] else 'no'}")


def saved_percent(sent, kept):
    return 100 * (1 - kept / sent) if sent else 0.0


def verdict(rows):
    by_topic = {row[0]: row for row in rows}
    if not by_topic["total"][4]:
        return 1
    saved = saved_percent(*by_topic[GOAL_TOPIC][2:4])
    if saved < GOAL:
        print(f"\n{GOAL_TOPIC}: {saved:.1f} % saved, less than the {GOAL:.0f} % expected")
        return 1
    return 0


if __name__ == "__main__":
    if len(sys.argv) < 3:
        raise SystemExit(__doc__)
    sys.exit(verdict(report(pathlib.Path(sys.argv[1]), sys.argv[2:])))
