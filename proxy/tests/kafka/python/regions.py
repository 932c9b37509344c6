#!/usr/bin/env python3
"""The region and time of every fire detection, worked out without the proxy.

  regions.py COMPOSE AREAS.json FILE.csv > lines

AREAS.json is a list of [NAME, AREA], the first that holds a place counts; an area is
{"south", "north", "west", "east"} or {"polygon": [[latitude, longitude], ...]}. A line is, with
tabs between, the region's name, the time of acquisition in Unix milliseconds, the number of its UTC
day since 1970, and the JSON that the sample makes of the detection. A place is inside a polygon if the
polygon winds around it.
"""

import csv
import datetime
import json
import sys


def left_of(a, b, place):
    """Above 0 if the place lies left of the way from a to b, seen with latitude upwards."""
    (ay, ax), (by, bx), (y, x) = a, b, place
    return (bx - ax) * (y - ay) - (x - ax) * (by - ay)


def winds_around(corners, place):
    turns = 0
    for a, b in zip(corners, corners[1:] + corners[:1]):
        if a[0] <= place[0] < b[0] and left_of(a, b, place) > 0:
            turns += 1
        elif b[0] <= place[0] < a[0] and left_of(a, b, place) < 0:
            turns -= 1
    return turns != 0


def holds(area, place):
    if "polygon" in area:
        return winds_around(area["polygon"], place)
    inside = area["south"] <= place[0] <= area["north"]
    return inside and area["west"] <= place[1] <= area["east"]


def main(compose, areas_file, csv_file):
    sys.path.insert(0, compose)
    sys.dont_write_bytecode = True
    import sample_json

    with open(areas_file, encoding="utf-8") as file:
        areas = json.load(file)
    with open(csv_file, newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    for row, line in zip(rows, sample_json.json_lines(csv_file), strict=True):
        place = (float(row["latitude"]), float(row["longitude"]))
        names = [name for name, area in areas if holds(area, place)]
        region = names[0] if names else "other"
        at = datetime.datetime.strptime(row["acq_date"] + row["acq_time"] + "+0000", "%Y-%m-%d%H%M%z")
        day = (at.date() - datetime.date(1970, 1, 1)).days
        sys.stdout.write(f"{region}\t{int(at.timestamp() * 1000)}\t{day}\t{line}")


if __name__ == "__main__":
    if len(sys.argv) != 4:
        raise SystemExit(__doc__)
    main(*sys.argv[1:])
