#!/usr/bin/env python3
"""Measures Firebreak beside direct, the bare relay and the relay again, as README.md says.

Started by run.sh, which builds and fetches what is needed. Modes take turns within a round and
their order is reversed every second round; every mode's process must have carried the bytes.
"""

import argparse
import datetime
import itertools
import os
import pathlib
import resource
import shutil
import signal
import sys
import tempfile
import time

HERE = pathlib.Path(__file__).resolve().parent
REPO = HERE.parent
sys.path[:0] = [str(HERE / "harness"), str(REPO / "compose")]

import net  # noqa: E402
import cells  # noqa: E402
import offload  # noqa: E402
import report  # noqa: E402
from cells import OFFLOAD_BUDGET  # noqa: E402
from kafka import Broker, Java  # noqa: E402
from measure import CLAIM_ROUNDS, judge  # noqa: E402
from modes import PORTS_OF_FIREBREAK, Direct, Firebreak, Relay, certificate  # noqa: E402
from processes import Failed, machine_busy_s, run_json  # noqa: E402

CELLS = cells.CELLS + offload.CELLS
HOST = "127.0.0.1"
CARRIED_MIN = 0.99
# Relays, Firebreaks, listeners of the broker; more than are taken.
PORTS = 60
MEMORY_DISK_MIN = 4 << 30
READ_RECORDS = 600_000
FETCH_REQUESTS = 700
TOPIC_SETTINGS = ("retention.bytes=400000000", "segment.bytes=100000000")
KEPT_SETTINGS = ("retention.bytes=-1", "segment.bytes=1073741824")
OFFLOAD_SETTINGS = """[store]
kind = "local"
path = "{store}"
cache_bytes = {cache}

[[offload]]
topics = ["*"]
threshold_bytes = 100000

[limits]
buffered_bytes_max = {budget}
frame_bytes_max = {frame}
"""


# Slots norcal, socal, central-valley, other. What has no header `region` goes to `other`.
ROUTED_SETTINGS = """
[[virtual_topic]]
name = "regions"
partitions = 4
region = { latitude = "/latitude", longitude = "/longitude" }

[[virtual_topic]]
name = "single-1"
partitions = 1
region = { header = "region" }

[[virtual_topic]]
name = "single-12"
partitions = 12
region = { header = "region" }

[[region]]
name = "norcal"
area = { south = 37.0, north = 42.1, west = -124.6, east = -119.0 }

[[region]]
name = "socal"
area = { south = 32.0, north = 35.0, west = -121.0, east = -114.0 }

[[region]]
name = "central-valley"
area = { polygon = [[37.0, -122.6], [37.0, -115.0], [35.0, -115.0], [35.0, -122.6]] }
"""
TLS_SETTINGS = """[listen]
tls = {{ cert = "{cert}", key = "{key}" }}
"""


class Bench:
    """Everything that runs while cells are measured."""

    def __init__(self, options, folder):
        self.options = options
        self.folder = folder
        self.repo = REPO
        self.scale = 0.4 if options.quick else 1.0
        self.read_records = self.scaled(READ_RECORDS)
        self.topic = None
        self.topics_made = 0
        self.requests_seen = {}
        self.modes = []
        self.broker = None
        self.java = None
        self.stores = None

    def scaled(self, amount):
        return type(amount)(amount * self.scale)

    def serial(self):
        """A number that no topic has yet."""
        self.topics_made += 1
        return self.topics_made

    def binary(self, name):
        return self.options.bin / name

    def log(self, name):
        return self.folder / f"{name}.log"

    def start(self):
        log4j = REPO / "compose" / "log4j2.properties"
        ports = iter(net.free_ports(PORTS, HOST))
        relays = [
            Relay(name, self.binary("relay"), f"{HOST}:{next(ports)}", f"{HOST}:{next(ports)}",
                  self.log(name))
            for name in ("relay", "relay2")
        ]
        proxies = self.firebreaks(ports)
        advertised = {"direct": None}
        advertised.update({relay.name: relay.bootstrap for relay in relays})
        advertised.update({proxy.name: None for proxy in proxies})
        self.broker = Broker(self.options.jars, log4j, self.folder, HOST, ports, advertised)
        self.modes = [Direct(self.broker.addresses["direct"])]
        if any(cell.routed for cell in self.options.cells):
            self.modes.append(Direct(self.broker.addresses["direct"], "direct1"))
        for mode in relays + proxies:
            self.modes.append(mode)
            mode.start(self.broker.addresses[mode.name])
        self.java = Java(self.options.jars, log4j, HERE / "java" / "Bench.java", self.log("java"))
        self.fill()

    def firebreaks(self, ports):
        """The proxy, and the proxy with a feature on, unless they are left out."""
        if self.options.without_firebreak:
            return []
        wanted = {"firebreak": (None, None)}
        if self.options.features:
            wanted["offload"] = OFFLOAD_SETTINGS.format(
                store=self.folder / "objects", cache=OFFLOAD_BUDGET // 4,
                budget=OFFLOAD_BUDGET // 4 * 3,
                frame=OFFLOAD_BUDGET // 4,
            ), None
        if any(cell.tls for cell in self.options.cells):
            ca, cert, key = certificate(self.folder, HOST)
            wanted["tls"] = TLS_SETTINGS.format(cert=cert, key=key), ca
        if any(cell.routed for cell in self.options.cells):
            wanted["routed"] = ROUTED_SETTINGS, None
        stores = {name for cell in self.options.cells for name in cell.stores}
        if stores:
            self.stores = offload.Stores(self, stores, ports)
            wanted.update((name, (self.stores.settings(name), None)) for name in sorted(stores))
        made = []
        for name, (settings, ca) in wanted.items():
            own = list(itertools.islice(ports, PORTS_OF_FIREBREAK))
            made.append(
                Firebreak(name, self.binary("firebreak"), own, HOST, self.folder, settings, ca)
            )
        return made

    def fill(self):
        """Topics that are read, and a warm broker and JVM."""
        direct = self.modes[0].bootstrap
        self.java.ask("topic", direct, "read", 2, *KEPT_SETTINGS)
        self.java.ask("topic", direct, "fetch", 1, *KEPT_SETTINGS)
        self.java.ask("produce", direct, "read", self.read_records, 1000, "1", "none", 0)
        self.java.ask("consume", direct, "read", 2, self.read_records)
        run_json(
            [self.binary("load"), "--bootstrap", direct, "--topic", "fetch", "produce",
             "--connections", 1, "--requests", FETCH_REQUESTS],
            self.log("load"),
        )
        self.new_requests()

    def bytes_into_broker(self, listener):
        """Bytes that the broker read from the connections of a listener so far."""
        return self.java.ask("counts", self.broker.jmx_port)["listeners"][f"{listener} incoming"]

    def new_requests(self):
        """Produce and Fetch requests the broker counted since the last question, by version."""
        told = self.java.ask("counts", self.broker.jmx_port)["requests"]
        new = {key: count - self.requests_seen.get(key, 0) for key, count in told.items()}
        self.requests_seen = told
        return {
            key: count for key, count in sorted(new.items())
            if count and key.split()[0] in ("Produce", "Fetch")
        }

    def measure(self, cell):
        """All rounds of one cell; a failure voids it."""
        result = {"cell": cell.name, "title": cell.title, "notes": []}
        try:
            self.make_topic(cell)
            self.new_requests()
            busy = self.cpu_s(), machine_busy_s(), time.monotonic()
            result.update(self.rounds(cell))
            result["others_share"] = self.others_share(*busy)
        except Failed as failure:
            result["error"] = str(failure)
        finally:
            self.drop_topic()
        return result

    def rounds(self, cell):
        modes = [mode for mode in self.modes if self.takes_part(cell, mode)]
        # Long cells of one round stay that.
        rounds = 1 if cell.rounds == 1 else self.options.rounds or cell.rounds
        samples = {mode.name: [] for mode in modes}
        versions = {mode.name: {} for mode in modes}
        for number in range(rounds):
            for mode in modes if number % 2 == 0 else reversed(modes):
                samples[mode.name].append(self.sample(cell, mode))
                for key, count in self.new_requests().items():
                    versions[mode.name][key] = versions[mode.name].get(key, 0) + count
        plain = ("direct", "direct1", "relay", "relay2") + (("firebreak",) if cell.stores else ())
        judged = [name for name in samples if name not in plain]
        return {
            "modes": list(samples),
            "rounds": rounds,
            "samples": samples,
            "versions": versions,
            "verdicts": [
                judge(one, samples, name)
                for name in judged or ["relay2"] for one in cell.measures
            ],
            "notes": [versions_note(versions)] if any(versions.values()) else [],
        }

    def cpu_s(self):
        """CPU seconds of the bench itself and of every process it started."""
        started = [self.broker.process, self.broker.controller, self.java.process]
        started += [mode.process for mode in self.modes if mode.process]
        started += self.stores.processes() if self.stores else []
        ended = resource.getrusage(resource.RUSAGE_CHILDREN)
        return (time.process_time() + ended.ru_utime + ended.ru_stime
                + sum(process.cpu_s() for process in started))

    def others_share(self, own_then, busy_then, then):
        """How much of the machine something else used meanwhile: a claim wants it near zero."""
        others = machine_busy_s() - busy_then - (self.cpu_s() - own_then)
        return max(others, 0.0) / ((time.monotonic() - then) * os.cpu_count())

    def takes_part(self, cell, mode):
        if mode.name == "offload":
            return cell.features or cell.features_only
        if mode.name == "tls":
            return cell.tls
        if mode.name in offload.MODES:
            return mode.name in cell.stores
        if mode.name == "direct1":
            return cell.routed and cell.modes is None
        if mode.name == "routed":
            return cell.routed
        if cell.routed and cell.modes is None and mode.name == "firebreak":
            return False
        return cell.modes is None or mode.name in cell.modes

    def sample(self, cell, mode):
        """One run: the cell's own figures, CPU and bytes of the mode's process."""
        fresh = cell.fresh
        carried = {} if fresh else mode.carried()
        begun = mode.process.cpu_s() if mode.process and not fresh else None
        sample = cell.run(self, mode)
        if mode.process:
            sample["carried"] = self.carried_since(mode, carried, sample)
        if begun is not None:
            sample["cpu_s"] = mode.process.cpu_s() - begun
        derive(cell, sample)
        return sample

    def carried_since(self, mode, before, sample):
        """Bytes carried in this run, by direction. Too few void the run: somebody left."""
        expected = sample["bytes_sent"] + sample["bytes_received"]
        end = time.monotonic() + 2
        while True:
            now = mode.carried()
            carried = {way: count - before.get(way, 0) for way, count in now.items()}
            share = sum(carried.values()) / expected
            if share >= CARRIED_MIN:
                return {**carried, "share": share}
            if time.monotonic() > end:
                raise Failed(f"{mode.name} carried {share:.1%} of the bytes: {carried}")
            time.sleep(0.05)

    def make_topic(self, cell):
        if cell.topic is None:
            return
        self.topic = f"{cell.topic}-{self.serial()}"
        self.java.ask(
            "topic", self.modes[0].bootstrap, self.topic, cell.partitions, *TOPIC_SETTINGS
        )

    def drop_topic(self):
        if self.topic:
            self.java.ask("delete", self.modes[0].bootstrap, self.topic)
            self.topic = None

    def close(self):
        for one in [self.java, *reversed(self.modes), self.broker, self.stores]:
            if one:
                one.close()


def derive(cell, sample):
    """CPU per GB on the wire, MB/s, CPU per request."""
    if cell.direction:
        on_wire = sample["bytes_sent" if cell.direction == "up" else "bytes_received"]
        sample["mb_per_s"] = on_wire / sample["seconds"] / 1e6
        if "cpu_s" in sample:
            sample["cpu_s_per_gb"] = sample["cpu_s"] / (on_wire / 1e9)
    if "cpu_s" in sample and sample.get("requests"):
        sample["cpu_us_per_request"] = sample["cpu_s"] / sample["requests"] * 1e6


def versions_note(versions):
    """The versions on the wire; a mode that differs from the others is told."""
    keys = {name: sorted(key for key in seen) for name, seen in versions.items()}
    everywhere = {tuple(one) for one in keys.values()}
    if len(everywhere) == 1:
        return "versions on the wire: " + ", ".join(everywhere.pop())
    told = "; ".join(f"{name}: {', '.join(one)}" for name, one in keys.items())
    return "versions on the wire DIFFER: " + told


def allocators():
    """The relay is honest only with Firebreak's allocator."""
    told = {}
    for name, folder in (("relay", HERE / "src/bin/relay.rs"), ("firebreak", REPO / "proxy/src")):
        files = [folder] if folder.is_file() else folder.rglob("*.rs")
        told[name] = any("#[global_allocator]" in file.read_text() for file in files)
    if told["relay"] != told["firebreak"]:
        raise Failed(f"different allocators: {told}")
    return "own" if told["relay"] else "system"


def arguments():
    names = ", ".join(cell.name for cell in CELLS)
    parser = argparse.ArgumentParser(prog="benches/run.sh", description=__doc__.split("\n")[0],
                                     epilog=f"cells: {names}")
    parser.add_argument("--quick", action="store_true", help="one short round, no claims")
    parser.add_argument("--only", metavar="CELL,...", help="these cells only")
    parser.add_argument("--rounds", type=int,
                        help=f"of every cell but long ones; default its own, {CLAIM_ROUNDS} to 15")
    parser.add_argument("--open-seconds", type=int, help="length of the open loop (60, quick 4)")
    parser.add_argument("--features", action="store_true", help="Firebreak with offload on, too")
    parser.add_argument("--s3", choices=("versitygw", "moto"), default="versitygw",
                        help="the S3 service of the cells that need one")
    parser.add_argument("--without-firebreak", action="store_true", help="the harness alone")
    parser.add_argument("--hold", action="store_true", help="wait for a line before the cells")
    parser.add_argument("--out", type=pathlib.Path, help="where the JSON goes")
    parser.add_argument("--dir", type=pathlib.Path, help="where the broker's data goes")
    parser.add_argument("--bin", type=pathlib.Path, required=True, help="folder of the binaries")
    parser.add_argument("--jars", type=pathlib.Path, required=True, help="folder of Kafka's jars")
    options = parser.parse_args()
    options.rounds = options.rounds or (1 if options.quick else None)
    options.open_seconds = options.open_seconds or (4 if options.quick else 60)
    stamp = datetime.datetime.now().strftime("%Y%m%d-%H%M%S")
    options.out = options.out or options.bin.parent.parent / "benches" / f"{stamp}.json"
    wanted = options.only.split(",") if options.only else [cell.name for cell in CELLS]
    options.cells = [
        cell for cell in CELLS
        if cell.name in wanted and (options.features or not cell.features_only)
        and (options.only or not cell.by_name())
    ]
    unknown = set(wanted) - {cell.name for cell in CELLS}
    if unknown:
        parser.error(f"no cell {', '.join(sorted(unknown))}; there are: {names}")
    return options


def hold(bench):
    """Everything up, topics `read` and `fetch` filled, `scratch` to write to: for a profiler."""
    bench.java.ask("topic", bench.modes[0].bootstrap, "scratch", 2, *TOPIC_SETTINGS)
    for mode in bench.modes:
        print(f"{mode.name:10} {mode.bootstrap:16} pid {mode.process.pid if mode.process else '-'}")
    print(f"data and logs in {bench.folder}; an empty line goes on", flush=True)
    sys.stdin.readline()


def data_folder(options):
    """Memory, when there is room: a disk's pauses are noise."""
    place = options.dir
    if place is None:
        memory = pathlib.Path("/dev/shm")
        if memory.is_dir() and shutil.disk_usage(memory).free > MEMORY_DISK_MIN:
            place = memory
    return pathlib.Path(tempfile.mkdtemp(prefix="firebreak-bench-", dir=place))


def main():
    options = arguments()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("ended by SIGTERM"))
    _, files_max = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (files_max, files_max))
    folder = data_folder(options)
    bench = Bench(options, folder)
    head, results = {}, []
    begun = time.monotonic()
    try:
        head["machine"] = report.machine()
        allocator = allocators()
        bench.start()
        head["versions"] = {
            "Firebreak": report.commit(REPO), "Kafka broker": bench.broker.version,
            "Java client": bench.java.version["client"], "Java": bench.java.version["java"],
            "allocator": allocator, "data in": str(folder.parent),
        }
        if bench.stores and bench.stores.s3:
            head["versions"]["S3 service"] = options.s3
        report.print_head(head)
        if options.hold:
            hold(bench)
        for cell in options.cells:
            results.append(bench.measure(cell))
            report.print_cell(results[-1])
            sys.stdout.flush()
    except Failed as failure:
        results.append({"cell": "start", "error": str(failure)})
        print(f"error: {failure}")
    finally:
        bench.close()
        if not results or any(one.get("error") for one in results):
            report.keep_logs(folder, options.out.with_suffix(".logs"))
        shutil.rmtree(folder, ignore_errors=True)
    report.print_foot(results)
    print(f"{time.monotonic() - begun:.0f} s")
    report.write(options.out, head, results)
    failed = any(one.get("error") for one in results)
    missed = any(v["met"] is False for one in results for v in one.get("verdicts", []))
    sys.exit(1 if failed or missed else 0)


if __name__ == "__main__":
    main()
