"""One real broker with a listener per mode, and the warm JVM that drives Java clients.

Each listener advertises the address of its mode: a client that asks for the leader is sent back to
where it came from, so nobody leaves the path that is measured.
"""

import re
import subprocess

import net
from processes import Failed, Process

HEAP_MB = 1024
START_SECONDS = 90


class Broker:
    """A single node, its own controller, data in `folder`."""

    def __init__(self, jars, log4j, folder, host, ports, advertised):
        """`advertised`: mode -> address that clients of its listener are told (None: its own)."""
        self.folder = folder
        self.version = jar_version(jars)
        self.addresses = {mode: f"{host}:{next(ports)}" for mode in advertised}
        self.jmx_port = next(ports)
        told = {mode: address or self.addresses[mode] for mode, address in advertised.items()}
        controller = f"{host}:{next(ports)}"
        properties = folder / "server.properties"
        properties.write_text(self.properties(told, controller))
        java = ["java", f"-Dlog4j2.configurationFile={log4j}", "-cp", f"{jars}/*"]
        format_log = folder / "format.log"
        with open(format_log, "wb") as log:
            formatted = subprocess.run(
                java + ["-XX:TieredStopAtLevel=1", "kafka.tools.StorageTool", "format",
                        "--cluster-id", net.cluster_id(), "--config", str(properties)],
                stdout=log, stderr=log, check=False,
            )
        if formatted.returncode:
            raise Failed(f"cannot format the broker's log: {format_log.read_text()}")
        jmx = [
            f"-Dcom.sun.management.jmxremote.port={self.jmx_port}",
            f"-Dcom.sun.management.jmxremote.rmi.port={self.jmx_port}",
            f"-Dcom.sun.management.jmxremote.host={host}",
            f"-Djava.rmi.server.hostname={host}",
            "-Dcom.sun.management.jmxremote.authenticate=false",
            "-Dcom.sun.management.jmxremote.ssl=false",
        ]
        self.process = Process(
            java[:1] + [f"-Xms{HEAP_MB}m", f"-Xmx{HEAP_MB}m"] + jmx + java[1:]
            + ["kafka.Kafka", str(properties)],
            folder / "broker.log",
        )
        first = next(iter(self.addresses.values()))
        try:
            net.wait_kafka(first, 1, START_SECONDS, [self.process.pid])
        except SystemExit as stopped:
            self.process.close()
            raise Failed(str(stopped)) from None

    def properties(self, told, controller):
        name = {mode: listener(mode) for mode in told}
        listeners = [f"{name[mode]}://{address}" for mode, address in self.addresses.items()]
        advertised = [f"{name[mode]}://{address}" for mode, address in told.items()]
        protocols = [f"{one}:PLAINTEXT" for one in [*name.values(), "CONTROLLER"]]
        first = next(iter(name.values()))
        return f"""process.roles=broker,controller
node.id=1
controller.quorum.voters=1@{controller}
controller.listener.names=CONTROLLER
listeners={",".join(listeners)},CONTROLLER://{controller}
advertised.listeners={",".join(advertised)}
listener.security.protocol.map={",".join(protocols)}
inter.broker.listener.name={first}
log.dirs={self.folder}/data
offsets.topic.replication.factor=1
offsets.topic.num.partitions=1
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
share.coordinator.state.topic.replication.factor=1
share.coordinator.state.topic.min.isr=1
group.initial.rebalance.delay.ms=0
num.network.threads=2
socket.listen.backlog.size=4096
auto.create.topics.enable=false
log.retention.ms=-1
log.retention.bytes=400000000
log.segment.bytes=100000000
log.retention.check.interval.ms=3000
log.segment.delete.delay.ms=1000
"""

    def close(self):
        self.process.close()


class Java:
    """The warm JVM (see java/Bench.java)."""

    def __init__(self, jars, log4j, source, log):
        self.process = Process(
            ["java", "-Xms512m", "-Xmx1g", f"-Dlog4j2.configurationFile={log4j}",
             "-cp", f"{jars}/*", source],
            log, talks=True,
        )
        self.version = self.ask("version")

    def ask(self, *words):
        return self.process.ask(" ".join(str(word) for word in words))

    def close(self):
        self.process.close()


def listener(mode):
    """Listener names are letters, digits and underscores."""
    return re.sub("[^A-Z0-9]", "_", mode.upper())


def jar_version(jars):
    for jar in jars.glob("kafka-clients-*.jar"):
        return jar.stem.removeprefix("kafka-clients-")
    raise Failed(f"no Kafka jars in {jars}")
