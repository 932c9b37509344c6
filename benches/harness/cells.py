"""The cells: what is run in each mode, and which figures bind.

A cell's `run` gets the bench and a mode and returns one sample: a dictionary of figures. The bench
adds what it alone can see (CPU of the mode's process, bytes it carried).
"""

import dataclasses
import time
from collections.abc import Callable

from measure import CLAIM_ROUNDS, Measure
from processes import Failed, Process, run_json

CPU_BAR, THROUGHPUT_BAR = 1.15, 0.95
PING_P50_BAR, PING_P99_BAR = 1.10, 1.25
# Of a proxy beside one that does the same for a client: two equal ones differ by as much.
BESIDE_COST_BAR, BESIDE_RATE_BAR = 1.03, 0.97
IDLE_KB_MAX, RSS_MB_MAX, UNREAD_MB_MAX = 8, 60, 8
OPEN_RATE, OPEN_SIZE = 150_000, 300
IMAGE_BYTES, OFFLOAD_BUDGET = 900_000, 64 << 20
ROUTED_RATE, ROUTED_CPU_MAX, SINGLE_BAR = 100_000, 4, 0.85
BIG_FETCH, SMALL_FETCH, TINY_FETCH = 50_000_000, 1_000_000, 100_000
SETTLE_SECONDS = 2.0
# Bulk cells last a second or two a mode, so that one round says little; so does that of a ping.
BULK_ROUNDS, SOME_ROUNDS = 15, 9

CPU = Measure("cpu_s_per_gb", "s/GB", bar=CPU_BAR)
SPEED = Measure("mb_per_s", "MB/s", bar=THROUGHPUT_BAR, higher_is_better=True)
PING = Measure("p50_us", "us", bar=PING_P50_BAR), Measure("p99_us", "us", bar=PING_P99_BAR)


@dataclasses.dataclass(frozen=True)
class Cell:
    """`rounds`: unless the command names others, 1 stays; `modes` names those that take part
    (None: all); `fresh`: the run starts the mode's process anew; `features` and `features_only`
    bring the mode `offload` in, `tls` that of the same name, `routed` those of virtual topics:
    `routed`, and `direct1` where no modes are named; `stores` names modes with stores of their own
    (offload.py). The last three run when they are named.
    """

    name: str
    title: str
    run: Callable
    measures: tuple
    topic: str | None = None
    direction: str | None = None
    rounds: int = CLAIM_ROUNDS
    modes: tuple | None = None
    features: bool = False
    features_only: bool = False
    fresh: bool = False
    tls: bool = False
    routed: bool = False
    stores: tuple = ()
    partitions: int = 2

    def by_name(self):
        return self.tls or self.routed or bool(self.stores)


def java_produce(records, acks, codec):
    def run(bench, mode):
        return bench.java.ask(
            "produce", mode.bootstrap, bench.topic, bench.scaled(records), 1000, acks, codec, 0
        )
    return run


def java_consume(bench, mode):
    return bench.java.ask("consume", mode.bootstrap, "read", 2, bench.read_records)


def java_end_to_end(bench, mode):
    return bench.java.ask("end2end", mode.bootstrap, bench.topic, bench.scaled(8000), 1000, 2000)


def rdk_produce(bench, mode):
    return rdk(bench, mode, bench.topic, bench.scaled(400_000), "produce")


def rdk_consume(bench, mode):
    return rdk(bench, mode, "read", bench.read_records, "consume", "--partitions", 2)


def rdk(bench, mode, topic, records, *words):
    return run_json(
        [bench.binary("rdk"), "--bootstrap", mode.bootstrap, "--topic", topic,
         "--records", records, *words],
        bench.log("rdk"),
    )


def load(bench, mode, topic, *words):
    return run_json(load_command(bench, mode, topic, *words), bench.log("load"))


def load_command(bench, mode, topic, *words):
    tls = ["--tls", mode.ca] if mode.ca else []
    return [bench.binary("load"), "--bootstrap", mode.bootstrap, "--topic", topic, *tls, *words]


def raw_produce(requests):
    def run(bench, mode):
        return load(bench, mode, bench.topic, "produce", "--requests", bench.scaled(requests))
    return run


def raw_fetch(bytes_max, total_bytes):
    def run(bench, mode):
        return load(
            bench, mode, "fetch", "fetch", "--bytes-max", bytes_max,
            "--total-bytes", bench.scaled(total_bytes),
        )
    return run


def ping(bench, mode):
    return load(bench, mode, bench.topic, "ping", "--seconds", bench.scaled(3.0))


def many(bench, mode):
    return load(bench, mode, bench.topic, "many", "--seconds", max(2, int(bench.scaled(5.0))))


def handshakes(*words):
    """Connections that come and go; in mode `tls` each shakes hands."""
    def run(bench, mode):
        tls = ["--ca", mode.ca] if mode.ca else []
        return run_json(
            [bench.binary("load"), "--bootstrap", mode.bootstrap, "--topic", "fetch",
             "handshakes", "--seconds", bench.scaled(3.0), *tls, *words],
            bench.log("load"),
        )
    return run


def open_loop(bench, mode):
    sample = load(
        bench, mode, bench.topic, "open", "--rate", OPEN_RATE, "--size", OPEN_SIZE,
        "--partitions", 2, "--seconds", bench.options.open_seconds,
    )
    sample["records_per_s"] = sample["records"] / sample["seconds"]
    return sample


def idle(words, connections):
    """A fresh process; its memory before and after, its CPU for opening and for being idle."""
    def run(bench, mode):
        mode.fresh()
        before = mode.process.memory_kb()
        begun = mode.process.cpu_s()
        holder = Process(
            load_command(bench, mode, "fetch", "idle", "--connections", connections, *words),
            bench.log("load"), talks=True,
        )
        try:
            sample = holder.answer()
            opened = mode.process.cpu_s()
            time.sleep(SETTLE_SECONDS)
            grown = mode.process.memory_kb() - before
            idle_from = mode.process.cpu_s()
            time.sleep(SETTLE_SECONDS)
            idle_cpu = mode.process.cpu_s() - idle_from
        finally:
            holder.close()
        if sample["open"] != connections:
            raise Failed(f"{sample['open']} of {connections} connections open")
        sample["kb_per_connection"] = grown / connections
        sample["open_cpu_us"] = (opened - begun) / connections * 1e6
        sample["idle_cpu_ms_per_s"] = idle_cpu / SETTLE_SECONDS * 1000
        sample["fresh_rss_mb"] = before / 1024
        return sample
    return run


def rss_after_load(bench, mode):
    """A fresh process, every kind of load in turn, then its memory at rest."""
    mode.fresh()
    fresh = mode.process.memory_kb()
    raw = [
        load(bench, mode, bench.topic, "produce", "--requests", bench.scaled(1500)),
        load(bench, mode, "fetch", "fetch", "--total-bytes", bench.scaled(500_000_000)),
        load(bench, mode, "fetch", "fetch", "--connections", 4, "--bytes-max", BIG_FETCH,
             "--total-bytes", bench.scaled(200_000_000)),
        load(bench, mode, bench.topic, "many", "--seconds", 1),
        bench.java.ask("consume", mode.bootstrap, "read", 2, bench.read_records),
    ]
    peak = mode.process.memory_kb("VmHWM")
    time.sleep(SETTLE_SECONDS)
    return {
        "bytes_sent": sum(one["bytes_sent"] for one in raw),
        "bytes_received": sum(one["bytes_received"] for one in raw),
        "fresh_rss_mb": fresh / 1024,
        "peak_rss_mb": peak / 1024,
        "rss_mb": mode.process.memory_kb() / 1024,
    }


def unread(bench, mode):
    """16 readers that do not read, another client beside them, then 40 readers that drain."""
    mode.fresh()
    alone = load(bench, mode, bench.topic, "ping", "--seconds", 1)
    before = mode.process.memory_kb()
    readers = Process(
        load_command(bench, mode, "fetch", "unread", "--readers", 16, "--bytes-max", BIG_FETCH),
        bench.log("load"), talks=True,
    )
    try:
        readers.answer()
        beside = load(bench, mode, bench.topic, "ping", "--seconds", 1)
        time.sleep(SETTLE_SECONDS)
        grown = mode.process.memory_kb("VmHWM") - before
        drained = readers.ask("drain")
    finally:
        readers.close()
    drainers = Process(
        load_command(bench, mode, "fetch", "unread", "--readers", 40, "--bytes-max", BIG_FETCH),
        bench.log("load"), talks=True,
    )
    try:
        drainers.answer()
        time.sleep(SETTLE_SECONDS)
        all_drained = drainers.ask("drain")
    finally:
        drainers.close()
    if (drained["drained"], all_drained["drained"]) != (16, 40):
        raise Failed("not every reader drained")
    return {
        "growth_mb": max(grown, 0) / 1024,
        "ping_p50_us": beside["p50_us"],
        "ping_slowdown": beside["p50_us"] / alone["p50_us"],
        "drain_40_s": all_drained["seconds"],
        "rss_after_mb": mode.process.memory_kb() / 1024,
        "bytes_received": drained["bytes_received"] + all_drained["bytes_received"],
        "bytes_sent": 0,
    }


def topic_of(bench, mode, virtual):
    """The virtual topic where there is one."""
    return virtual if mode.name == "routed" else bench.topic


def routed_java(virtual, records, rate=0, batch_bytes=16_384, partitions=0, values=()):
    """Java with idempotence, to a virtual topic or a plain one of as many partitions. `direct1` is
    direct with one request in flight, as each logical partition has one. `partitions`: written to
    in turn, those of the slot where the records belong."""
    def run(bench, mode):
        # Those of slot `other`, the last.
        first = 3 * partitions if mode.name == "routed" else 0
        chosen = [f"partitions={first}-{first + partitions}"] if partitions else []
        in_flight = 1 if mode.name == "direct1" else 5
        return bench.java.ask(
            "produce", mode.bootstrap, topic_of(bench, mode, virtual), bench.scaled(records), 1000,
            "all", "none", rate, "enable.idempotence=true", f"batch.size={batch_bytes}",
            "max.request.size=2000000", f"max.in.flight.requests.per.connection={in_flight}",
            *chosen, *values,
        )
    return run


def routed_open(bench, mode):
    """Records with a place by a schedule, split over three regions; without idempotence."""
    sample = load(
        bench, mode, topic_of(bench, mode, "regions"), "open", "--rate", ROUTED_RATE, "--size", 300,
        "--partitions", 4, "--seconds", int(bench.scaled(20.0)), "--located",
    )
    sample["records_per_s"] = sample["records"] / sample["seconds"]
    return sample


def images(bench, mode):
    """Large values written and read back: as records, or through the store."""
    topic, records = f"{bench.topic}-{mode.name}-{bench.serial()}", bench.scaled(150)
    bench.java.ask("topic", mode.bootstrap, topic, 2)
    written = bench.java.ask(
        "produce", mode.bootstrap, topic, records, IMAGE_BYTES, "all", "none", 0
    )
    read = bench.java.ask("consume", mode.bootstrap, topic, 2, records)
    bench.java.ask("delete", mode.bootstrap, topic)
    if read["bytes"] != written["bytes"]:
        raise Failed(f"{read['bytes']} bytes read of {written['bytes']} written")
    check_offloaded(mode)
    return {
        "bytes_sent": written["bytes_sent"] + read["bytes_sent"],
        "bytes_received": written["bytes_received"] + read["bytes_received"],
        "seconds": written["seconds"] + read["seconds"],
        "write_mb_per_s": written["bytes"] / written["seconds"] / 1e6,
        "read_mb_per_s": read["bytes"] / read["seconds"] / 1e6,
    }


def check_offloaded(mode):
    """The values did go through the store, and all came back."""
    if mode.name == "offload":
        done = mode.offloaded()
        if not done.get("store") or not done.get("restore") or done.get("damaged"):
            raise Failed(f"offloaded: {done}")


def image_memory(bench, mode):
    """Eight writers of large values, then four readers, on a fresh process with a small budget."""
    mode.fresh()
    loads = [
        load(bench, mode, bench.topic, "produce", "--connections", 8, "--batch-records", 1,
             "--size", IMAGE_BYTES, "--requests", bench.scaled(100)),
        load(bench, mode, bench.topic, "fetch", "--connections", 4, "--bytes-max", IMAGE_BYTES,
             "--total-bytes", bench.scaled(100_000_000)),
    ]
    check_offloaded(mode)
    peak = mode.process.memory_kb("VmHWM")
    time.sleep(SETTLE_SECONDS)
    return {
        "bytes_sent": sum(one["bytes_sent"] for one in loads),
        "bytes_received": sum(one["bytes_received"] for one in loads),
        "peak_rss_mb": peak / 1024,
        "rss_mb": mode.process.memory_kb() / 1024,
    }


HANDSHAKES = (
    Measure("connections_per_s", "/s", higher_is_better=True),
    Measure("cpu_us_per_request", "us"), Measure("p50_us", "us"),
)

PROXIED = ("relay", "relay2", "firebreak")


def of_routed(*measures):
    """What binds a proxy without virtual topics binds one with them, where the topic is plain; and
    the other proxy is hardly better."""
    bound = [dataclasses.replace(measure, mode="routed") for measure in measures]
    beside = [
        dataclasses.replace(
            one, bar=BESIDE_RATE_BAR if one.higher_is_better else BESIDE_COST_BAR, base="firebreak"
        )
        for one in bound
    ]
    return (*bound, *beside)


CELLS = (
    Cell("produce_java", "Java, acks=1, no codec, 1,000 B", java_produce(400_000, "1", "none"),
         (CPU, SPEED), topic="write", direction="up", features=True, rounds=BULK_ROUNDS),
    Cell("produce_java_lz4", "Java, acks=all, lz4, 1,000 B", java_produce(1_200_000, "all", "lz4"),
         (CPU, SPEED), topic="write", direction="up", features=True, rounds=BULK_ROUNDS),
    Cell("consume_java", "Java, 1,000 B", java_consume, (CPU, SPEED), direction="down",
         features=True, rounds=BULK_ROUNDS),
    Cell("produce_rdk", "librdkafka, acks=1, no codec, 1,000 B", rdk_produce, (CPU, SPEED),
         topic="write", direction="up", rounds=BULK_ROUNDS),
    Cell("consume_rdk", "librdkafka, 1,000 B", rdk_consume, (CPU, SPEED), direction="down",
         rounds=BULK_ROUNDS),
    Cell("produce_raw", "prebuilt batches of 100 x 1,000 B, 2 connections",
         raw_produce(2000), (CPU, SPEED), topic="write", direction="up", rounds=BULK_ROUNDS),
    Cell("fetch_100kb", "raw, 100 KB fetches, discarded", raw_fetch(TINY_FETCH, 300_000_000),
         (CPU, SPEED), direction="down", rounds=BULK_ROUNDS),
    Cell("fetch_1mb", "raw, 1 MB fetches, discarded", raw_fetch(SMALL_FETCH, 1_500_000_000),
         (CPU, SPEED), direction="down", rounds=BULK_ROUNDS),
    Cell("fetch_50mb", "raw, 50 MB fetches, discarded", raw_fetch(BIG_FETCH, 2_000_000_000),
         (CPU, SPEED), direction="down", rounds=SOME_ROUNDS),
    Cell("ping", "raw Produce of one record, 1 in flight", ping, PING, topic="write",
         rounds=SOME_ROUNDS),
    Cell("java_2000", "Java, 2,000 records/s, acks=1, linger 0", java_end_to_end,
         (Measure("ack_p50_us", "us"), Measure("end_p50_us", "us")), topic="write"),
    Cell("many", "200 connections x 10 requests/s, open loop", many,
         (Measure("cpu_us_per_request", "us", bar=CPU_BAR), Measure("p50_us", "us")),
         topic="write"),
    Cell("idle", "2,000 idle connections, fresh process", idle((), 2000),
         (Measure("kb_per_connection", "KB", limit=IDLE_KB_MAX), Measure("open_cpu_us", "us"),
          Measure("idle_cpu_ms_per_s", "ms/s")), modes=PROXIED, fresh=True),
    Cell("idle_used", "500 connections idle after a 1 MB fetch each, fresh process",
         idle(("--fetch-bytes", SMALL_FETCH), 500),
         (Measure("kb_per_connection", "KB", limit=IDLE_KB_MAX),), modes=PROXIED,
         fresh=True),
    Cell("unread", "16 readers ask 50 MB and do not read, one pings; then 40 drain", unread,
         (Measure("growth_mb", "MB", limit=UNREAD_MB_MAX),
          Measure("ping_p50_us", "us", bar=PING_P50_BAR), Measure("ping_slowdown", "x"),
          Measure("drain_40_s", "s")),
         topic="write", modes=PROXIED, fresh=True, rounds=SOME_ROUNDS),
    Cell("rss", "memory after every kind of load, fresh process", rss_after_load,
         (Measure("rss_mb", "MB", limit=RSS_MB_MAX), Measure("peak_rss_mb", "MB"),
          Measure("fresh_rss_mb", "MB")), topic="write", modes=PROXIED, fresh=True),
    Cell("images", "Java, 900 KB values written and read back, offloaded or not", images,
         (Measure("write_mb_per_s", "MB/s", higher_is_better=True),
          Measure("read_mb_per_s", "MB/s", higher_is_better=True)),
         topic="write", features_only=True),
    Cell("image_memory", "8 writers and 4 readers of 900 KB values, budget 64 MiB, fresh process",
         image_memory,
         (Measure("peak_rss_mb", "MB", limit=RSS_MB_MAX + (OFFLOAD_BUDGET >> 20),
                  mode="offload"), Measure("rss_mb", "MB")),
         topic="write", modes=("offload",), features_only=True, fresh=True, partitions=8),
    Cell("tls_produce", "prebuilt batches of 100 x 1,000 B, 2 connections, also in TLS",
         raw_produce(2000),
         (dataclasses.replace(CPU, bar=None), dataclasses.replace(SPEED, bar=None)),
         topic="write", direction="up", modes=PROXIED, tls=True),
    Cell("tls_fetch", "raw, 1 MB fetches, discarded, also in TLS",
         raw_fetch(SMALL_FETCH, 1_500_000_000),
         (dataclasses.replace(CPU, bar=None), dataclasses.replace(SPEED, bar=None)),
         direction="down", modes=PROXIED, tls=True),
    Cell("tls_ping", "raw Produce of one record, 1 in flight, also in TLS", ping,
         (Measure("p50_us", "us"), Measure("p99_us", "us")), topic="write", modes=PROXIED,
         tls=True),
    Cell("tls_handshakes", "connections of one ApiVersions, in TLS with full handshakes",
         handshakes(), HANDSHAKES, modes=PROXIED, tls=True),
    Cell("tls_resumed", "the same, sessions taken up again", handshakes("--resume"), HANDSHAKES,
         modes=PROXIED, tls=True),
    Cell("routed_java", "Java, idempotent, JSON of 1 KB, 16 KB batches, by JSON pointer to 3 regions",
         routed_java("regions", 300_000, values=("values=located",)),
         (dataclasses.replace(CPU, bar=None, limit=ROUTED_CPU_MAX, mode="routed"),
          dataclasses.replace(SPEED, bar=None, base="direct1")),
         topic="write", direction="up", routed=True, partitions=16),
    Cell("routed_latency", "the same, 2,000 records/s, linger 5",
         routed_java("regions", 10_000, rate=2000, values=("values=located",)),
         (Measure("ack_p50_us", "us", base="direct"), Measure("ack_p99_us", "us", base="direct")),
         topic="write", routed=True, partitions=16),
    *(Cell(f"single_{partitions}_{name}",
           f"Java, idempotent, 1 KB, {name} batches, all to one slot of {partitions} partitions",
           routed_java(f"single-{partitions}", 300_000, batch_bytes=size, partitions=partitions),
           (dataclasses.replace(SPEED, bar=SINGLE_BAR, mode="routed", base="direct1"),
            dataclasses.replace(CPU, bar=None)),
           topic="write", direction="up", routed=True, partitions=partitions)
      for partitions in (1, 12) for name, size in (("16kb", 16_384), ("1mb", 1_000_000))),
    Cell("routed_open", "100,000 records/s of 300 B, open loop, by JSON pointer to 3 regions",
         routed_open,
         (Measure("records_per_s", "/s", higher_is_better=True, base="direct"),
          Measure("p50_us", "us", base="direct"), Measure("p99_us", "us", base="direct"),
          Measure("late_p99_us", "us", base="direct")),
         topic="write", routed=True, partitions=16),
    Cell("plain_produce", "prebuilt batches of 100 x 1,000 B to a plain topic beside virtual ones",
         raw_produce(6000), of_routed(CPU, SPEED), topic="write", direction="up", modes=PROXIED,
         routed=True, rounds=BULK_ROUNDS),
    Cell("plain_fetch", "raw, 1 MB fetches of a plain topic beside virtual ones",
         raw_fetch(SMALL_FETCH, 1_500_000_000), of_routed(CPU, SPEED), direction="down",
         modes=PROXIED, routed=True, rounds=BULK_ROUNDS),
    Cell("plain_ping", "raw Produce of one record to a plain topic beside virtual ones", ping,
         of_routed(*PING), topic="write", modes=PROXIED, routed=True, rounds=SOME_ROUNDS),
    Cell("open", "150,000 records/s of 300 B, open loop", open_loop,
         (Measure("p50_us", "us"), Measure("p99_us", "us"), Measure("records_per_s", "/s"),
          Measure("late_p99_us", "us")),
         topic="write", modes=("direct", "relay", "firebreak"), rounds=1),
)
