#!/usr/bin/env python3
"""Small network questions of the scripts: free ports, a cluster id, "does it answer yet?".

  net.py free-ports N [HOST]                     N consecutive free TCP ports, on one line
  net.py cluster-id                              a new Kafka cluster id
  net.py wait-kafka H:P[,..] BROKERS SECONDS PID...   until Metadata names that many brokers
  net.py wait-http URL SECONDS PID               until the URL answers 200

A wait fails (exit 1, reason on stderr) when time is up or when a process it waits for has ended.
"""

import base64
import os
import random
import socket
import struct
import sys
import time
import urllib.error
import urllib.request
import uuid

# Below the range from which Linux takes ports for outgoing connections.
PORT_MIN, PORT_MAX = 20000, 32000


def free_ports(count, host):
    """A run of consecutive ports that nobody listens on; starts at random, so runs rarely meet."""
    for _ in range(200):
        base = random.randrange(PORT_MIN, PORT_MAX - count)
        if all(bindable(host, port) for port in range(base, base + count)):
            return list(range(base, base + count))
    raise SystemExit(f"no {count} consecutive free ports between {PORT_MIN} and {PORT_MAX}")


def bindable(host, port):
    with socket.socket() as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            sock.bind((host, port))
        except OSError:
            return False
    return True


def cluster_id():
    """22 characters, as Kafka's Uuid prints itself; never with a leading dash."""
    while True:
        text = base64.urlsafe_b64encode(uuid.uuid4().bytes).decode().rstrip("=")
        if not text.startswith("-"):
            return text


def brokers_named(address):
    """How many brokers a Metadata v1 answer of this address names."""
    host, port = address.rsplit(":", 1)
    client = b"firebreak-wait"
    request = struct.pack(">hhih", 3, 1, 1, len(client)) + client + struct.pack(">i", 0)
    with socket.create_connection((host, int(port)), timeout=3) as sock:
        sock.sendall(struct.pack(">i", len(request)) + request)
        with sock.makefile("rb") as answer:
            length, _, brokers = struct.unpack(">iii", answer.read(12))
            return brokers if length >= 8 else 0


def wait(what, seconds, pids, ready):
    end = time.monotonic() + seconds
    why = "no answer"
    while time.monotonic() < end:
        for pid in pids:
            if not os.path.exists(f"/proc/{pid}"):
                raise SystemExit(f"{what}: process {pid} has ended")
        try:
            if ready():
                return
            why = "not ready"
        except (OSError, struct.error, urllib.error.URLError) as error:
            why = str(error)
        time.sleep(0.2)
    raise SystemExit(f"{what}: not there after {seconds} s ({why})")


def wait_kafka(bootstrap, brokers, seconds, pids):
    def ready():
        return all(brokers_named(one) >= brokers for one in bootstrap.split(","))

    wait(f"Kafka on {bootstrap}", seconds, pids, ready)


def wait_http(url, seconds, pid):
    def ready():
        with urllib.request.urlopen(url, timeout=3) as answer:
            return answer.status == 200

    wait(url, seconds, [pid], ready)


def main(args):
    match args:
        case ["free-ports", count]:
            print(*free_ports(int(count), "127.0.0.1"))
        case ["free-ports", count, host]:
            print(*free_ports(int(count), host))
        case ["cluster-id"]:
            print(cluster_id())
        case ["wait-kafka", bootstrap, brokers, seconds, *pids]:
            wait_kafka(bootstrap, int(brokers), float(seconds), pids)
        case ["wait-http", url, seconds, pid]:
            wait_http(url, float(seconds), pid)
        case _:
            raise SystemExit(__doc__)


if __name__ == "__main__":
    main(sys.argv[1:])
