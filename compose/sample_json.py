#!/usr/bin/env python3
"""Fire detections: CSV in, one JSON object a line out.

  sample_json.py FILE.csv... > detections.jsonl

Numbers stay exactly as the CSV has them (312 stays 312, 29.4883 stays 29.4883): the text of the
field is copied, never parsed and printed again. Some columns look like numbers but are text,
`acq_time` above all: 0340 means 03:40, and a JSON number has no leading zero. Such columns are
strings in every line, so that a reader finds one type per column.
"""

import csv
import json
import re
import sys

TEXT_COLUMNS = {"acq_date", "acq_time", "satellite", "instrument", "version", "daynight"}
JSON_NUMBER = re.compile(r"-?(0|[1-9][0-9]*)(\.[0-9]+)?([eE][+-]?[0-9]+)?")


def json_value(column, text):
    if column not in TEXT_COLUMNS and JSON_NUMBER.fullmatch(text):
        return text
    return json.dumps(text)


def json_lines(path):
    with open(path, newline="", encoding="utf-8") as file:
        rows = csv.reader(file)
        columns = next(rows)
        names = [json.dumps(column) for column in columns]
        for row in rows:
            if len(row) != len(columns):
                raise SystemExit(f"{path}:{rows.line_num}: {len(row)} fields, not {len(columns)}")
            values = map(json_value, columns, row)
            yield "{" + ",".join(f"{n}:{v}" for n, v in zip(names, values)) + "}\n"


if __name__ == "__main__":
    if len(sys.argv) < 2:
        raise SystemExit(__doc__)
    for csv_path in sys.argv[1:]:
        sys.stdout.writelines(json_lines(csv_path))
