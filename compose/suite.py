"""Compares the results of a Go test suite: suite.py FOLDER direct COLUMN...

A test differs where it passes direct and does not pass through the proxy. What pages of docs/ say
is told apart; anything else makes the exit code 1, and so does a run of no tests.
"""

import json
import pathlib
import re
import sys

# Column -> tests that end otherwise on purpose, and the page that says so.
DOCUMENTED = {
    # It expects max.message.bytes to refuse a value that the store takes.
    "offload": (r"TestClient_ProduceLargeMessages(/LargeMessage_FailureBroker)?$", "offload.md"),
    # Share groups, and patterns that brokers would match, end where there are virtual topics.
    "virtual": (r"Test.*(Share|848RegexBroker)", "virtual-topics.md"),
}
WORDS = ("pass", "fail", "skip")


def results(path):
    found = {}
    for line in path.read_text(errors="replace").splitlines():
        try:
            event = json.loads(line)
        except ValueError:
            continue
        name, action = event.get("Test"), event.get("Action")
        if name and action in WORDS:
            found[name] = action
        elif name and action == "run":
            found.setdefault(name, "no end")
    return found


def main(folder, direct, columns):
    folder = pathlib.Path(folder)
    expected, wrong = results(folder / f"{direct}.json"), 0
    for column in [direct, *columns]:
        found = results(folder / f"{column}.json")
        counts = {word: sum(r == word for r in found.values()) for word in (*WORDS, "no end")}
        print(column, *(f"{count} {word}" for word, count in counts.items()), sep="  ")
        pattern, page = DOCUMENTED.get(column, ("$^", ""))
        skipped = tuple(f"{name}/" for name, result in found.items() if result == "skip")
        for name in (name for name, result in expected.items() if result == "pass"):
            result = found.get(name, "not run")
            # What a skipped test would have run is not there.
            if result == "pass" or (result == "not run" and name.startswith(skipped)):
                continue
            said = re.match(pattern, name) is not None
            wrong += not said
            print(f"  {name}: {result}" + (f" (docs/{page})" if said else ""))
    if not any(result == "pass" for result in expected.values()):
        sys.exit("no test passed direct: nothing is shown")
    sys.exit(f"{wrong} tests differ" if wrong else 0)


main(sys.argv[1], sys.argv[2], sys.argv[3:])
