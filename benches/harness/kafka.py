"""One real broker with a listener per mode, and the warm JVM that drives Java clients.

Each listener advertises the address of its mode: a client that asks for the leader is sent back to
where it came from, so nobody leaves the path that is measured.
"""

import re
import subprocess

import net
from processes import Failed, Process

HEAP_MB, CONTROLLER_HEAP_MB = 1024, 256
START_SECONDS = 90
BROKER_ID, CONTROLLER_ID = 1, 2


class Broker:
    """A broker, data in `folder`, and a controller in a process of its own: what that costs is no
    cost of the broker."""

    def __init__(self, jars, log4j, folder, host, ports, advertised):
        """`advertised`: mode -> address that clients of its listener are told (None: its own)."""
        self.folder = folder
        self.version = jar_version(jars)
        self.addresses = {mode: f"{host}:{next(ports)}" for mode in advertised}
        self.jmx_port = next(ports)
        told = {mode: address or self.addresses[mode] for mode, address in advertised.items()}
        controller = f"{host}:{next(ports)}"
        java = ["java", f"-Dlog4j2.configurationFile={log4j}", "-cp", f"{jars}/*"]
        cluster = net.cluster_id()
        self.process = self.controller = None
        try:
            self.controller = self.start(
                "controller", cluster, java, CONTROLLER_HEAP_MB, self.of_controller(controller),
            )
            self.process = self.start(
                "broker", cluster, java, HEAP_MB, self.properties(told, controller),
                [
                    f"-Dcom.sun.management.jmxremote.port={self.jmx_port}",
                    f"-Dcom.sun.management.jmxremote.rmi.port={self.jmx_port}",
                    f"-Dcom.sun.management.jmxremote.host={host}",
                    f"-Djava.rmi.server.hostname={host}",
                    "-Dcom.sun.management.jmxremote.authenticate=false",
                    "-Dcom.sun.management.jmxremote.ssl=false",
                ],
            )
            first = next(iter(self.addresses.values()))
            pids = [self.process.pid, self.controller.pid]
            net.wait_kafka(first, 1, START_SECONDS, pids)
        except SystemExit as stopped:
            self.close()
            raise Failed(str(stopped)) from None
        except Failed:
            self.close()
            raise

    def start(self, role, cluster, java, heap_mb, properties, options=()):
        """Formats the data of a node and starts it."""
        file, log = self.folder / f"{role}.properties", self.folder / f"{role}-format.log"
        file.write_text(properties)
        with open(log, "wb") as out:
            formatted = subprocess.run(
                java + ["-XX:TieredStopAtLevel=1", "kafka.tools.StorageTool", "format",
                        "--cluster-id", cluster, "--config", str(file)],
                stdout=out, stderr=out, check=False,
            )
        if formatted.returncode:
            raise Failed(f"cannot format the {role}'s log: {log.read_text()}")
        return Process(
            java[:1] + [f"-Xms{heap_mb}m", f"-Xmx{heap_mb}m", *options] + java[1:]
            + ["kafka.Kafka", str(file)],
            self.folder / f"{role}.log",
        )

    def of_controller(self, address):
        return f"""process.roles=controller
node.id={CONTROLLER_ID}
controller.quorum.voters={CONTROLLER_ID}@{address}
controller.listener.names=CONTROLLER
listeners=CONTROLLER://{address}
log.dirs={self.folder}/controller
offsets.topic.replication.factor=1
"""

    def properties(self, told, controller):
        name = {mode: listener(mode) for mode in told}
        listeners = [f"{name[mode]}://{address}" for mode, address in self.addresses.items()]
        advertised = [f"{name[mode]}://{address}" for mode, address in told.items()]
        protocols = [f"{one}:PLAINTEXT" for one in [*name.values(), "CONTROLLER"]]
        first = next(iter(name.values()))
        return f"""process.roles=broker
node.id={BROKER_ID}
controller.quorum.voters={CONTROLLER_ID}@{controller}
controller.listener.names=CONTROLLER
listeners={",".join(listeners)}
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
        for process in (self.process, self.controller):
            if process:
                process.close()


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
