"""Offload: modes with a store of their own, and the cells that measure them.

Images are the sample's, as they are and joined to longer ones (../src/images.rs). Every sample has
a topic of its own, and what it stored is removed behind it.
"""

import secrets
import time

from cells import SETTLE_SECONDS, Cell, load
from kafka import listener
from measure import Measure
from processes import Failed, Process, run_json
from s3 import S3

MIB = 1 << 20
# Mode -> (codec, MiB of limits.buffered_bytes_max, MiB of store.cache_bytes).
MODES = {
    "local": ("auto", 512, 512),
    "s3": ("none", 512, 512),
    "s3_unsigned": ("none", 512, 64),
    "s3_signed": ("none", 512, 64),
    "s3_zstd": ("zstd", 512, 512),
    "stalled": ("none", 256, 64),
}
SETTINGS = """[store]
{place}
cache_bytes = {cache}

[[offload]]
topics = ["*"]
threshold_bytes = 100000
codec = "{codec}"

[limits]
buffered_bytes_max = {buffered}
"""
PARTITIONS = 4
# Values of a sample; a multiple of the partitions.
IMAGES, RATE_MB, BESIDE_RATE_MB = 120, 50, 20
SMALL_RATE, SMALL_CONNECTIONS = 500, 10
GETS_PER_1000_MAX, BYTES_PERCENT_MAX, BROKER_CPU_BAR, PLAIN_BAR = 50, 10, 0.2, 0.8
# JVMs compile well what they have done some 10,000 times; images alone are a few hundred requests.
WARM_UPS, WARM_UP_SECONDS, LONGER = 4, 10, 4
# A store that stalls.
LONG_BYTES, LONG_EACH, READERS, STALLED_BYTES, STALL_SECONDS = 64_000_000, 4, 200, 60_000_000, 30
RSS_MB_BESIDE = 60
TOPIC = ("max.message.bytes=16777216", "retention.bytes=-1", "segment.bytes=1073741824")


class Stores:
    """What the modes store in; started where a mode needs it."""

    def __init__(self, bench, wanted, ports):
        self.bench = bench
        self.local = bench.folder / "images"
        self.warm = False
        self.s3 = None
        self.stall = None
        if wanted - {"local"}:
            self.s3 = S3(bench.options.s3, bench.folder / "s3")
            self.secret(bench.folder / "s3.secret", self.s3.secret_key)
            self.secret(bench.folder / "s3.key", secrets.token_hex(32))
        if "stalled" in wanted:
            self.stalling = f"127.0.0.1:{next(ports)}"
            self.stall = Process(
                [bench.binary("stall"), "--listen", self.stalling, "--upstream", self.s3.address],
                bench.log("stall"), talks=True,
            )
            self.stall.answer()

    def secret(self, file, text):
        file.touch(mode=0o600)
        file.write_text(text)

    def settings(self, name):
        """The configuration of a mode."""
        codec, buffered, cache = MODES[name]
        place = f'kind = "local"\npath = "{self.local}"'
        if name != "local":
            folder = self.bench.folder
            address = self.stalling if name == "stalled" else self.s3.address
            place = "\n".join((
                'kind = "s3"', f'endpoint = "http://{address}"', f'bucket = "{self.s3.bucket}"',
                f'access_key = "{self.s3.access_key}"', f'key_file = "{folder}/s3.key"',
                f'secret_key_file = "{folder}/s3.secret"',
                f"sign_payload = {str(name == 's3_signed').lower()}",
            ))
        return SETTINGS.format(place=place, codec=codec, buffered=buffered * MIB, cache=cache * MIB)

    def objects(self):
        """Files of stored values; moto keeps its own in memory."""
        folders = [self.local / "v1", self.bench.folder / "s3" / "objects"]
        return [file for folder in folders for file in folder.rglob("*") if file.is_file()]

    def empty(self):
        for file in self.objects():
            if "v1" in file.parts:
                file.unlink()

    def processes(self):
        return [one for one in (self.s3, self.stall) if one]

    def close(self):
        for one in (self.stall, self.s3):
            if one:
                one.close()


class Topic:
    """A topic for one sample; it and what was stored for it go at the end."""

    def __init__(self, bench, mode):
        self.bench = bench
        self.name = f"images-{mode.name}-{bench.serial()}"

    def __enter__(self):
        direct = self.bench.modes[0].bootstrap
        self.bench.java.ask("topic", direct, self.name, PARTITIONS, *TOPIC)
        return self

    def __exit__(self, *_):
        self.bench.java.ask("delete", self.bench.modes[0].bootstrap, self.name)
        self.bench.stores.empty()

    def log_bytes(self):
        return disk_bytes((self.bench.folder / "data").glob(f"{self.name}-*/*"))


def disk_bytes(files):
    """Bytes on the disk: holes of files count nothing."""
    return sum(file.stat().st_blocks * 512 for file in files if file.is_file())


def folder(bench):
    return bench.repo / "compose" / "sample" / "images"


def values(bench, times=1):
    """Values of a sample, the same number for each partition."""
    return bench.scaled(IMAGES * times) // PARTITIONS * PARTITIONS


def send(bench, mode, topic, rate_mb, *words, times=1):
    return load(
        bench, mode, topic.name, "images", "--folder", folder(bench), "--values",
        values(bench, times),
        "--connections", PARTITIONS, "--mb-per-s", rate_mb, *words,
    )


def done_since(mode, before):
    """Large values since then, by what was done with them."""
    return {op: count - before.get(op, 0) for op, count in mode.offloaded().items()}


def stored_all(mode, done, count):
    """Every value was stored, none as it came; where the mode offloads."""
    if mode.name in MODES and (done["store"] != count or done["inline"] or done["damaged"]):
        raise Failed(f"{count} values, and offloaded: {done}")


def warm_up(bench):
    """The broker's JVM compiles what it does often: that is no cost of images."""
    if not bench.stores.warm:
        bench.stores.warm = True
        with Topic(bench, bench.modes[0]) as topic:
            for _ in range(WARM_UPS):
                send(bench, bench.modes[0], topic, 0)
            load(bench, bench.modes[0], topic.name, "ping", "--seconds", WARM_UP_SECONDS)


def images(bench, mode):
    """Images at a pace: what reaches the broker, what that costs it, and what is on the disk."""
    warm_up(bench)
    before = mode.offloaded() if mode.name in MODES else {}
    broker = bench.broker
    with Topic(bench, mode) as topic:
        # Asking costs the broker CPU, too.
        bytes_in = bench.bytes_into_broker(listener(mode.name))
        time.sleep(SETTLE_SECONDS)
        idle = broker.process.cpu_s()
        time.sleep(SETTLE_SECONDS)
        idle = (broker.process.cpu_s() - idle) / SETTLE_SECONDS
        own = mode.process.cpu_s() if mode.process else 0
        cpu = broker.process.cpu_s()
        written = send(bench, mode, topic, RATE_MB, times=LONGER)
        cpu = broker.process.cpu_s() - cpu
        own = mode.process.cpu_s() - own if mode.process else 0
        bytes_in = bench.bytes_into_broker(listener(mode.name)) - bytes_in
        log, store = topic.log_bytes(), disk_bytes(bench.stores.objects())
        read = bench.java.ask("consume", mode.bootstrap, topic.name, PARTITIONS, written["values"])
        if read["bytes"] != written["bytes"]:
            raise Failed(f"{read['bytes']} bytes read of {written['bytes']} written")
    if mode.name in MODES:
        stored_all(mode, done_since(mode, before), written["values"])
    gb = written["bytes"] / 1e9
    return {
        **written,
        "bytes_sent": written["bytes_sent"] + read["bytes_sent"],
        "bytes_received": written["bytes_received"] + read["bytes_received"],
        "sent_mb_per_s": written["bytes"] / written["seconds"] / 1e6,
        "broker_bytes_percent": bytes_in / written["bytes"] * 100,
        "broker_cpu_s_per_gb": cpu / gb,
        "broker_idle_ms_per_s": idle * 1000,
        "broker_load_s_per_gb": max(cpu - idle * written["seconds"], 0) / gb,
        "proxy_cpu_s_per_gb": own / gb,
        "log_mb": log / 1e6,
        "store_mb": store / 1e6,
        "disk_percent": (log + store) / written["bytes"] * 100,
    }


def small_beside(*words):
    """Small records in a topic that images are written to."""
    def run(bench, mode):
        before = mode.offloaded() if mode.name in MODES else {}
        with Topic(bench, mode) as topic:
            sample = send(bench, mode, topic, BESIDE_RATE_MB, "--small-per-s", SMALL_RATE, *words)
        if mode.name in MODES:
            stored_all(mode, done_since(mode, before), sample["values"])
        return sample
    return run


def restore(bench, mode):
    """Every value read once by a fresh process, which has none in memory, and once more."""
    with Topic(bench, mode) as topic:
        count = send(bench, mode, topic, RATE_MB)["values"]
        mode.fresh()
        sample = read_each(bench, mode, topic, count, "--rounds", 2)
    if mode.name in MODES:
        cached = mode.counts("offload_cache", "result")
        if (cached["miss"], cached["hit"]) != (count, count):
            raise Failed(f"{count} values read twice: {cached}")
    return sample


def read_each(bench, mode, topic, count, *words):
    sample = load(
        bench, mode, topic.name, "restore", "--connections", PARTITIONS, "--partitions",
        PARTITIONS, "--values", count // PARTITIONS, *words,
    )
    check_offloaded_reads(mode, sample)
    return sample


def check_offloaded_reads(mode, sample):
    if mode.name in MODES and mode.offloaded().get("restore", 0) < sample["values"]:
        raise Failed(f"{sample['values']} values read, and offloaded: {mode.offloaded()}")


def tail(bench, mode):
    """A Java consumer reads along while images are written."""
    before = mode.offloaded()
    with Topic(bench, mode) as topic:
        count = values(bench)
        bench.java.process.tell(f"consume {mode.bootstrap} {topic.name} {PARTITIONS} {count}")
        written = send(bench, mode, topic, RATE_MB)
        read = bench.java.process.answer()
    if read["bytes"] != written["bytes"]:
        raise Failed(f"{read['bytes']} bytes read of {written['bytes']} written")
    done = done_since(mode, before)
    stored_all(mode, done, count)
    if done["restore"] < count:
        raise Failed(f"{count} values, and offloaded: {done}")
    return {
        "bytes_sent": written["bytes_sent"] + read["bytes_sent"],
        "bytes_received": written["bytes_received"] + read["bytes_received"],
        "gets_per_1000": done["get"] / done["restore"] * 1000,
        "restored": done["restore"],
        "large_p50_us": written["large_p50_us"],
        "large_p99_us": written["large_p99_us"],
    }


def store(bench, mode):
    """MB per CPU second: images stored and restored, and plain loops with the same bytes: with the
    SDK as it comes, and lean as Firebreak asks it."""
    codec = ("--zstd",) if mode.name == "s3_zstd" else ()
    with Topic(bench, mode) as topic:
        before, cpu = mode.offloaded(), mode.process.cpu_s()
        written = send(bench, mode, topic, 0)
        put_cpu = mode.process.cpu_s() - cpu
        stored_all(mode, done_since(mode, before), written["values"])
        mode.fresh()
        cpu = mode.process.cpu_s()
        sample = read_each(bench, mode, topic, written["values"])
        get_cpu = mode.process.cpu_s() - cpu
        done = mode.offloaded()
        if done["get"] < written["values"]:
            raise Failed(f"{written['values']} values read from the store: {done}")
    put, get = plain_loops(bench, written["bytes"], *codec)
    lean_put, lean_get = plain_loops(bench, written["bytes"], "--lean", *codec)
    offload, restored = (written["bytes"] / 1e6 / used for used in (put_cpu, get_cpu))
    return {
        **sample,
        "offload_mb_per_cpu_s": offload,
        "plain_put_mb_per_cpu_s": put,
        "lean_put_mb_per_cpu_s": lean_put,
        "offload_ratio": offload / put,
        "offload_lean_ratio": offload / lean_put,
        "restore_mb_per_cpu_s": restored,
        "plain_get_mb_per_cpu_s": get,
        "lean_get_mb_per_cpu_s": lean_get,
        "restore_ratio": restored / get,
        "restore_lean_ratio": restored / lean_get,
        "offload_mb_per_s": written["bytes"] / 1e6 / written["seconds"],
        "restore_mb_per_s": sample["bytes"] / 1e6 / sample["seconds"],
    }


def plain_loops(bench, expected, *words):
    """MB per CPU second of a loop of PUTs and one of GETs."""
    plain = {op: plain_loop(bench, op, *words) for op in ("put", "get", "delete")}
    if plain["put"]["bytes"] != expected:
        raise Failed(f"{plain['put']['bytes']} bytes in a plain loop, {expected} here")
    return (plain[op]["bytes"] / 1e6 / plain[op]["cpu_s"] for op in ("put", "get"))


def plain_loop(bench, op, *words):
    s3 = bench.stores.s3
    return run_json(
        [bench.binary("plain_s3"), "--endpoint", f"http://{s3.address}", "--bucket", s3.bucket,
         "--access-key", s3.access_key, "--secret-key", s3.secret_key, "--folder", folder(bench),
         "--values", values(bench), *words, op],
        bench.log("plain_s3"),
    )


def stall(bench, mode):
    """Readers of long values while the store stands still amid its answers, and then goes on."""
    stores = bench.stores
    with Topic(bench, mode) as topic:
        load(
            bench, mode, topic.name, "produce", "--connections", PARTITIONS, "--in-flight", 1,
            "--batch-records", 1, "--size", LONG_BYTES, "--requests", LONG_EACH,
        )
        check_written(mode, PARTITIONS * LONG_EACH)
        mode.fresh()
        before = stores.stall.ask(f"stall {STALLED_BYTES}")
        readers = Process(
            [bench.binary("load"), "--bootstrap", mode.bootstrap, "--topic", topic.name,
             "restore", "--connections", READERS, "--partitions", PARTITIONS, "--values",
             LONG_EACH, "--reads", 1, "--patient"],
            bench.log("load"), talks=True,
        )
        try:
            time.sleep(STALL_SECONDS)
            stalled = mode.process.memory_kb("VmHWM")
            after = stores.stall.ask("go")
            sample = readers.answer()
        finally:
            readers.close()
            stores.stall.ask("go")
        check_offloaded_reads(mode, sample)
    if sample["values"] != READERS or after["stood"] == before["stood"]:
        raise Failed(f"{sample['values']} values read, the store stalled {after} after {before}")
    return {
        **sample,
        "stalled_rss_mb": stalled / 1024,
        "peak_rss_mb": mode.process.memory_kb("VmHWM") / 1024,
        "stood": after["stood"] - before["stood"],
    }


def check_written(mode, count):
    if mode.offloaded().get("store", 0) < count:
        raise Failed(f"{count} values written, and offloaded: {mode.offloaded()}")


LATENCIES = (
    Measure("small_p50_us", "us", bar=1.0, mode="local", base="firebreak"),
    Measure("small_p99_us", "us", bar=1.0, mode="local", base="firebreak"),
    Measure("large_p50_us", "us", base="firebreak"),
    Measure("large_p99_us", "us", base="firebreak"),
    Measure("late_p99_us", "us", base="firebreak"),
)
STORED = (
    Measure("offload_ratio", "x", limit=PLAIN_BAR, higher_is_better=True, mode="s3_unsigned"),
    Measure("restore_ratio", "x", limit=PLAIN_BAR, higher_is_better=True, mode="s3_unsigned"),
    Measure("offload_lean_ratio", "x", higher_is_better=True),
    Measure("restore_lean_ratio", "x", higher_is_better=True),
    Measure("offload_mb_per_cpu_s", "MB/s"), Measure("plain_put_mb_per_cpu_s", "MB/s"),
    Measure("lean_put_mb_per_cpu_s", "MB/s"),
    Measure("restore_mb_per_cpu_s", "MB/s"), Measure("plain_get_mb_per_cpu_s", "MB/s"),
    Measure("lean_get_mb_per_cpu_s", "MB/s"),
    Measure("offload_mb_per_s", "MB/s"), Measure("restore_mb_per_s", "MB/s"),
)
BESIDE = ("relay", "relay2", "firebreak")

CELLS = (
    Cell("offload_images", "images of 100 KB - 8 MB at 50 MB/s, written and read back", images,
         (Measure("broker_bytes_percent", "%", limit=BYTES_PERCENT_MAX, mode="local"),
          Measure("broker_cpu_s_per_gb", "s/GB", bar=BROKER_CPU_BAR, mode="local",
                  base="firebreak"),
          Measure("broker_load_s_per_gb", "s/GB", base="firebreak"),
          Measure("broker_idle_ms_per_s", "ms/s"), Measure("proxy_cpu_s_per_gb", "s/GB"),
          Measure("sent_mb_per_s", "MB/s"), Measure("log_mb", "MB"), Measure("store_mb", "MB"),
          Measure("disk_percent", "%", base="firebreak"), Measure("large_p50_us", "us"),
          Measure("large_p99_us", "us")),
         modes=("direct", *BESIDE), stores=("local",)),
    Cell("offload_small", "small records of their own producers beside images at 20 MB/s",
         small_beside("--small-connections", SMALL_CONNECTIONS), LATENCIES, modes=BESIDE,
         stores=("local",)),
    Cell("offload_shared", "small records between images on the same connections",
         small_beside(),
         tuple(Measure(one.key, one.unit, base="firebreak") for one in LATENCIES), modes=BESIDE,
         stores=("local",)),
    Cell("offload_restore", "images read one by one: from the store, and again from memory",
         restore,
         tuple(Measure(f"{round}_{part}_us", "us", base="firebreak")
               for round in ("first", "again") for part in ("p50", "p99")),
         modes=("firebreak",), stores=("local", "s3"), fresh=True),
    Cell("offload_tail", "images at 50 MB/s with a Java consumer that reads along", tail,
         (Measure("gets_per_1000", "", limit=GETS_PER_1000_MAX, mode="s3"),
          Measure("restored", ""), Measure("large_p50_us", "us"), Measure("large_p99_us", "us")),
         modes=(), stores=("s3",)),
    Cell("offload_store",
         "images stored and restored beside PUT/GET loops; bars: the loop of the SDK as it is",
         store, STORED, modes=(), stores=("s3_unsigned", "s3_signed"), fresh=True),
    Cell("offload_store_zstd", "the same, every value compressed by zstd -1", store,
         tuple(Measure(one.key, one.unit) for one in STORED), modes=(), stores=("s3_zstd",),
         fresh=True),
    Cell("offload_stall", "200 readers of 64 MB values while the store stands still, then goes on",
         stall,
         (Measure("peak_rss_mb", "MB", limit=sum(MODES["stalled"][1:]) + RSS_MB_BESIDE,
                  mode="stalled"),
          Measure("stalled_rss_mb", "MB"), Measure("empty", ""), Measure("refused", ""),
          Measure("seconds", "s")),
         modes=(), stores=("stalled",), fresh=True, rounds=1),
)
