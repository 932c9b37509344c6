#!/usr/bin/env python3
"""The quickstart's records: those sent, those read back.

  records.py sent-lines FILE            one record a line of FILE, without a key
  records.py sent-files FILE...         one record a file, its name the key
  records.py read BOOTSTRAP TOPIC       everything in the topic, through kcat
  records.py flip DIR                   flips one byte of the largest file below DIR

The first three print one line a record: partition, key, length, SHA-256, first 8 bytes in hex,
split by tabs; no key is a dash. A read always ends: at the topic's end, after IDLE_S seconds
without a byte, or after TOTAL_S seconds.
"""

import collections
import hashlib
import os
import pathlib
import selectors
import subprocess
import sys
import time

IDLE_S = 30
TOTAL_S = 180

Record = collections.namedtuple("Record", "partition key length sha256 head")


def record(partition, key, value):
    sha256 = hashlib.sha256(value).hexdigest()
    return Record(str(partition), key, len(value), sha256, value[:8].hex())


def sent_lines(path):
    with open(path, "rb") as file:
        for line in file:
            yield record("-", "-", line.rstrip(b"\n"))


def sent_files(paths):
    for path in map(pathlib.Path, paths):
        yield record("-", path.name, path.read_bytes())


def read_topic(bootstrap, topic):
    """kcat prints per record: partition, key length, value length, newline, key, value, newline."""
    command = ["kcat", "-C", "-q", "-e", "-u", "-b", bootstrap, "-t", topic]
    command += ["-o", "beginning", "-f", "%p %K %S\\n%k%s\\n"]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as kcat:
        stream = BoundedStream(kcat.stdout)
        try:
            while header := stream.line():
                partition, key_length, value_length = map(int, header.split())
                key = stream.exactly(max(key_length, 0)).decode() if key_length >= 0 else "-"
                value = stream.exactly(max(value_length, 0))
                if stream.exactly(1) != b"\n":
                    raise SystemExit(f"{topic}: kcat's output is not framed as asked")
                yield record(partition, key, value)
        except StalledError as stalled:
            print(f"  {topic}: gave up reading, {stalled}", file=sys.stderr)
        finally:
            kcat.terminate()


class StalledError(Exception):
    """Nothing came for too long, or the stream ended inside a record."""


class BoundedStream:
    """Reads a pipe with a bound on every wait and on the whole."""

    def __init__(self, pipe):
        self.pipe = pipe
        self.buffer = bytearray()
        self.end = time.monotonic() + TOTAL_S
        self.selector = selectors.DefaultSelector()
        self.selector.register(pipe, selectors.EVENT_READ)

    def fill(self):
        """True when more bytes are there, False at the end of the stream."""
        left = self.end - time.monotonic()
        if left <= 0:
            raise StalledError(f"not at the end after {TOTAL_S} s")
        if not self.selector.select(min(IDLE_S, left)):
            raise StalledError(f"no byte for {IDLE_S} s")
        more = os.read(self.pipe.fileno(), 1 << 20)
        self.buffer += more
        return bool(more)

    def line(self):
        """The next line; empty at the end of the stream."""
        while (at := self.buffer.find(b"\n")) < 0:
            if not self.fill():
                return b""
        return self.take(at + 1)

    def exactly(self, count):
        while len(self.buffer) < count:
            if not self.fill():
                raise StalledError("kcat ended inside a record")
        return self.take(count)

    def take(self, count):
        taken = bytes(self.buffer[:count])
        del self.buffer[:count]
        return taken


def flip(directory):
    files = [path for path in pathlib.Path(directory).rglob("*") if path.is_file()]
    if not files:
        raise SystemExit(f"no object in {directory}: nothing was offloaded")
    path = max(files, key=lambda file: file.stat().st_size)
    at = path.stat().st_size // 2
    with open(path, "r+b") as file:
        file.seek(at)
        byte = file.read(1)[0]
        file.seek(at)
        file.write(bytes([byte ^ 1]))
    print(f"  flipped one bit of byte {at} of {path}", file=sys.stderr)


def main(args):
    match args:
        case ["sent-lines", path]:
            records = sent_lines(path)
        case ["sent-files", *paths] if paths:
            records = sent_files(paths)
        case ["read", bootstrap, topic]:
            records = read_topic(bootstrap, topic)
        case ["flip", directory]:
            flip(directory)
            records = ()
        case _:
            raise SystemExit(__doc__)
    for one in records:
        print(*one, sep="\t")


if __name__ == "__main__":
    main(sys.argv[1:])
