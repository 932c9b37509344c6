#!/usr/bin/env python3
"""Captures golden frames: real brokers, real clients, a relay between them.

Usage: capture.py [--work DIR] [--only NAME,...] [--add] [--out DIR]

Everything it needs is fetched by the ordinary clients of the package registries: Kafka by Maven,
librdkafka by pip, franz-go by Go modules, kcat by apt. Writes the frames and index.tsv beside
this folder, or into --out. Names for --only: single, single39, three. With --add the frames that
are there already stay candidates.
"""

import argparse
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import clients
import raw
from cluster import Cluster
from store import Store

HERE = Path(__file__).resolve().parent
KAFKA, KAFKA_OLD = "4.3.1", "3.9.1"


def single(tools, store, work):
    """All clients against one Kafka 4.3.1 node."""
    with Cluster(tools.broker(KAFKA), KAFKA, work, store) as cluster:
        tools.java(cluster, "java", KAFKA, "ja", ["Records", "Newer", "Streams", "Admins"])
        tools.java(cluster, "java-3.9", KAFKA_OLD, "jb", ["Records", "Admins"])
        tools.librdkafka(cluster, "lr")
        tools.kcat(cluster, "kc")
        tools.franz(cluster, "fr")
        raw.capture(cluster)


def single39(tools, store, work):
    """All clients, and one of 2017, against one Kafka 3.9.1 node."""
    with Cluster(tools.broker(KAFKA_OLD), KAFKA_OLD, work, store) as cluster:
        tools.java(cluster, "java", KAFKA, "ja", ["Records", "Admins"])
        tools.java(cluster, "java-3.9", KAFKA_OLD, "jb", ["Records", "Admins"])
        tools.java_old(cluster, "java-0.10", "ja")
        tools.librdkafka(cluster, "lr")
        tools.kcat(cluster, "kc")
        tools.franz(cluster, "fr")


def three(tools, store, work):
    """Leaders move between three Kafka 4.3.1 brokers under the clients."""
    with Cluster(tools.broker(KAFKA), KAFKA, work, store, brokers=3) as cluster:
        tools.java(cluster, "java", KAFKA, "ja", ["Records", "Newer", "Admins"])
        tools.java(cluster, "java-3.9", KAFKA_OLD, "jb", ["Records"])
        tools.librdkafka(cluster, "lr")
        tools.kcat(cluster, "kc")
        tools.franz(cluster, "fr")


PLANS = {"single": single, "single39": single39, "three": three}


def main():
    """Runs the plans and writes the corpus."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--work", type=Path, default=Path("/var/lib/golden"))
    parser.add_argument("--only", default=",".join(PLANS))
    parser.add_argument("--add", action="store_true")
    parser.add_argument("--out", type=Path, default=HERE.parent)
    options = parser.parse_args()
    tools = clients.Tools(HERE, options.work / "tools")
    store = Store()
    if options.add:
        store.load(options.out)
    for name in options.only.split(","):
        print(f"== {name}", flush=True)
        PLANS[name](tools, store, options.work / name)
    files, size = store.write(options.out)
    print(f"{files} files, {size} bytes, {sum(store.counts().values())} frames seen")


if __name__ == "__main__":
    if shutil.which("java") is None:
        sys.exit("java is needed (a JDK of 17 or later)")
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("ended by a signal"))
    try:
        main()
    except subprocess.CalledProcessError as failed:
        sys.exit(str(failed))
