"""Drives the kcat of the distribution: a librdkafka of 2022. Topics are those of drive.py."""

import subprocess
import sys

from steps import move, step

BOOTSTRAP, _, BROKERS = sys.argv[1:4]
PREFIX = "lr"


def kcat(*arguments, text=None):
    """Runs kcat to its end."""
    subprocess.run(
        ["kcat", "-b", BOOTSTRAP, "-q", *arguments],
        input=text,
        text=True,
        check=True,
        timeout=60,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )


def produce(codec, *more, topic=f"{PREFIX}-codec"):
    """Ten records in one batch."""
    lines = "".join(f"key-{n}:value {n} of some words\n" for n in range(10))
    kcat("-P", "-t", topic, "-z", codec, "-K", ":", "-H", "h=1", *more, text=lines)


def main():
    """Listing, every codec, transactions, a group, a moved leader."""
    step("list", lambda: kcat("-L"))
    for codec in ("none", "gzip", "snappy", "lz4", "zstd"):
        step(f"produce {codec}", lambda: produce(codec))
        step(f"idempotent {codec}", lambda: produce(codec, "-X", "enable.idempotence=true"))
    for acks in ("0", "1"):
        step(f"acks {acks}", lambda: produce("none", "-X", f"acks={acks}"))
    for topic in ("codec", "txn", "stamped"):
        step(f"consume {topic}", lambda: kcat("-C", "-t", f"{PREFIX}-{topic}", "-e", "-o", "0"))
    step("transaction", lambda: produce("lz4", "-X", "transactional.id=kc-id"))
    step("query", lambda: kcat("-Q", "-t", f"{PREFIX}-codec:0:1"))
    group = ("-G", "kc-group", "-X", "auto.offset.reset=earliest", "-c", "40")
    step("group", lambda: kcat(*group, f"{PREFIX}-codec"))
    if int(BROKERS) > 1:
        step("moved", lambda: kcat("-C", "-t", f"{PREFIX}-moved", "-e", "-o", "0"))
        move(f"{PREFIX}-moved")
        step("moved", lambda: kcat("-C", "-t", f"{PREFIX}-moved", "-e", "-o", "0"))


if __name__ == "__main__":
    main()
