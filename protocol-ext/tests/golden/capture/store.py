"""Chooses which frames are kept, and writes them with their index.

For each (client, API key, version, direction) frames are sorted into kinds by what they hold:
the codecs and flags of their batches, node endpoints, nothing special. Of each kind the smallest
and the largest are kept. A correlation id is rarely the same twice, so sizes tell frames apart.
"""

import re
import socket
import struct
import threading
import zlib
from pathlib import Path

from apis import NAMES
from relay import Frame

FRAME_BYTES_MAX = 64 * 1024
CODECS = ("plain", "gzip", "snappy", "lz4", "zstd", "codec5", "codec6", "codec7")
# The end of a Fetch response with one partition: a broker id to read from and no records (KIP-392).
NEAREST = re.compile(rb"\x00\x00\x00[\x01-\x09]\x01\x00\x00\x00$", re.DOTALL)
# Frames go into a repository: they name no machine. Short names would match by chance.
HOST = socket.gethostname().encode() if len(socket.gethostname()) > 5 else b""
ENDPOINT_APIS = (0, 1, 78, 79)
COLUMNS = (
    "file",
    "client",
    "client_version",
    "broker_version",
    "api_key",
    "api_version",
    "direction",
    "correlation_id",
    "holds",
)


class Store:
    """Thread-safe: relays offer from many threads."""

    def __init__(self):
        self.lock = threading.Lock()
        self.kinds = {}
        self.seen = {}

    def offer(self, frame):
        """Keeps the frame if it is the smallest or largest of its kind so far."""
        key = (frame.client, frame.api_key, frame.api_version, frame.direction)
        with self.lock:
            self.seen[key] = self.seen.get(key, 0) + 1
        if len(frame.body) > FRAME_BYTES_MAX:
            return
        holds = kind(frame)
        with self.lock:
            ends = self.kinds.setdefault(key, {}).setdefault(holds, [])
            ends.append(frame)
            ends.sort(key=lambda kept: len(kept.body))
            if len(ends) > 2 or (len(ends) == 2 and len(ends[0].body) == len(ends[1].body)):
                del ends[1]

    def counts(self):
        """How often each key was seen."""
        with self.lock:
            return dict(self.seen)

    def load(self, root: Path):
        """Offers the frames of an earlier capture, so that a capture of one cluster adds to it."""
        for line in (root / "index.tsv").read_text().splitlines()[1:]:
            name, client, version, broker, key, api_version, direction, correlation, _ = line.split(
                "\t"
            )
            numbers = (int(key), int(api_version), direction, int(correlation))
            self.offer(Frame(client, version, broker, *numbers, (root / name).read_bytes()))

    def write(self, root: Path):
        """Replaces the corpus under `root` and returns (files, bytes)."""
        with self.lock:
            frames = [f for kinds in self.kinds.values() for ends in kinds.values() for f in ends]
        if any(HOST and HOST in frame.body for frame in frames):
            raise ValueError("a frame names this machine")
        for old in root.glob("*/*.bin"):
            old.unlink()
        rows, total = [], 0
        with self.lock:
            for key, kinds in sorted(self.kinds.items()):
                frames = [(holds, frame) for holds in sorted(kinds) for frame in kinds[holds]]
                for number, (holds, frame) in enumerate(frames):
                    name = file_name(frame, number)
                    path = root / name
                    path.parent.mkdir(parents=True, exist_ok=True)
                    path.write_bytes(frame.body)
                    total += len(frame.body)
                    rows.append(row(name, frame, holds))
        lines = ["\t".join(COLUMNS)] + ["\t".join(columns) for columns in rows]
        (root / "index.tsv").write_text("\n".join(lines) + "\n")
        return len(rows), total


def file_name(frame, number):
    """`client/Api-vN-direction[-n].bin`."""
    api = NAMES.get(frame.api_key, f"Api{frame.api_key}")
    suffix = f"-{number + 1}" if number else ""
    return f"{frame.client}/{api}-v{frame.api_version}-{frame.direction}{suffix}.bin"


def row(name, frame, holds):
    """The index line of one frame."""
    return (
        name,
        frame.client,
        frame.client_version,
        frame.broker_version,
        str(frame.api_key),
        str(frame.api_version),
        frame.direction,
        str(frame.correlation_id),
        holds,
    )


def kind(frame):
    """What the frame holds, as comma-separated words; empty if nothing of note."""
    words = set()
    produce = frame.api_key == 0 and frame.direction == "request"
    fetch = frame.api_key in (1, 78) and frame.direction == "response"
    if produce or fetch:
        words |= record_words(frame.body)
    if frame.direction == "response" and frame.api_key in ENDPOINT_APIS:
        if b"127.0.0." in frame.body:
            words.add("endpoints")
    if fetch and frame.api_version >= 12 and NEAREST.search(frame.body):
        words.add("nearest")
    if frame.direction == "response" and frame.api_key == 18:
        if struct.unpack_from(">h", frame.body, 4)[0] != 0:
            words.add("error")
    return ",".join(sorted(words))


def record_words(body):
    """Finds batches by shape: length, magic and CRC must agree with what follows."""
    words, at, batches = set(), 0, 0
    while at + 26 <= len(body):
        length, magic = struct.unpack_from(">i", body, at + 8)[0], body[at + 16]
        end = at + 12 + length
        if magic == 2 and length >= 49 and end <= len(body) and crc_holds(body, at, end):
            words |= batch_words(body, at)
            batches += 1
            at = end
        elif magic in (0, 1) and 14 <= length and end <= len(body) and old_crc(body, at, end):
            words |= {f"magic{magic}", CODECS[body[at + 17] & 7]}
            at = end
        else:
            at += 1
    if batches > 1:
        words.add("batches")
    return words


def batch_words(body, at):
    """The flags of one v2 batch."""
    attributes, last_delta = struct.unpack_from(">hi", body, at + 21)
    producer, (count,) = body[at + 43 : at + 51], struct.unpack_from(">i", body, at + 57)
    words = {CODECS[attributes & 7]}
    flags = ((8, "append-time"), (16, "transactional"), (32, "control"), (64, "horizon"))
    words |= {word for bit, word in flags if attributes & bit}
    if producer != b"\xff" * 8:
        words.add("producer")
    if count == 0:
        words.add("empty")
    elif count != last_delta + 1:
        words.add("compacted")
    return words


def crc_holds(body, at, end):
    """Whether the CRC-32C of a v2 batch is right."""
    (want,) = struct.unpack_from(">I", body, at + 17)
    return crc32c(body[at + 21 : end]) == want


def old_crc(body, at, end):
    """Whether the CRC-32 of a v0 or v1 message is right."""
    (want,) = struct.unpack_from(">I", body, at + 12)
    return zlib.crc32(body[at + 16 : end]) == want


def crc32c(data):
    """CRC-32C, table driven."""
    crc = 0xFFFFFFFF
    for byte in data:
        crc = TABLE[(crc ^ byte) & 0xFF] ^ (crc >> 8)
    return crc ^ 0xFFFFFFFF


def table():
    """The 256 steps of the reflected Castagnoli polynomial."""
    steps = []
    for value in range(256):
        for _ in range(8):
            value = (value >> 1) ^ (0x82F63B78 if value & 1 else 0)
        steps.append(value)
    return steps


TABLE = table()
