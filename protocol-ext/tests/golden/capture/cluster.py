"""Real Kafka clusters on loopback whose client listeners are behind relays.

A broker has three listeners: CLIENT and SASL, advertised with the port of a relay, and INTERNAL,
which other brokers and our own readiness probes use, so that only clients are captured.
"""

import shutil
import socket
import subprocess
import time
from pathlib import Path

import wire
from relay import Peers, Relay

CLUSTER_ID = "R29sZGVuRnJhbWVzMDAwMQ"
USER, PASSWORD = "golden", "golden-secret"
START_SECONDS = 180
MOVE_SECONDS = 180

COMMON = f"""
listener.security.protocol.map=CLIENT:PLAINTEXT,SASL:SASL_PLAINTEXT,INTERNAL:PLAINTEXT,\
CONTROLLER:PLAINTEXT
controller.listener.names=CONTROLLER
inter.broker.listener.name=INTERNAL
sasl.enabled.mechanisms=PLAIN,SCRAM-SHA-256
listener.name.sasl.plain.sasl.jaas.config=\
org.apache.kafka.common.security.plain.PlainLoginModule required user_{USER}="{PASSWORD}";
listener.name.sasl.scram-sha-256.sasl.jaas.config=\
org.apache.kafka.common.security.scram.ScramLoginModule required;
delegation.token.secret.key=golden-token-key
group.initial.rebalance.delay.ms=0
metric.reporters=Telemetry
offsets.topic.num.partitions=3
transaction.state.log.num.partitions=3
offsets.topic.replication.factor=1
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
log.cleaner.backoff.ms=200
log.cleaner.delete.retention.ms=600000
auto.create.topics.enable=false
num.partitions=2
"""
OLD = """
group.coordinator.rebalance.protocols=classic,consumer
"""
SHARE = """
share.coordinator.state.topic.num.partitions=3
share.coordinator.state.topic.replication.factor=1
share.coordinator.state.topic.min.isr=1
group.share.record.lock.duration.ms=15000
group.share.min.record.lock.duration.ms=1000
"""
AUTHORIZER = """
authorizer.class.name=org.apache.kafka.metadata.authorizer.StandardAuthorizer
allow.everyone.if.no.acl.found=true
super.users=User:ANONYMOUS
replica.selector.class=org.apache.kafka.common.replica.RackAwareReplicaSelector
"""


class Broker:
    """One broker and the two relays in front of it."""

    def __init__(self, node, host, store):
        self.node = node
        self.host = host
        self.plain, self.sasl = Relay(host, store), Relay(host, store)
        self.ports = {name: free_port(host) for name in ("CLIENT", "SASL", "INTERNAL")}

    def listeners(self):
        """`listeners` of the broker."""
        return ",".join(f"{name}://{self.host}:{port}" for name, port in self.ports.items())

    def advertised(self):
        """`advertised.listeners`: relays for clients."""
        ports = {"CLIENT": self.plain.port, "SASL": self.sasl.port}
        ports["INTERNAL"] = self.ports["INTERNAL"]
        return ",".join(f"{name}://{self.host}:{port}" for name, port in ports.items())

    def probe(self):
        """An address that is not captured."""
        return self.host, self.ports["INTERNAL"]


class Cluster:
    """A single combined node, or one controller and several brokers.

    `classes` is the Java class path of the brokers, `work` a folder that is emptied.
    """

    def __init__(self, classes: str, version: str, work: Path, store, brokers=1):
        self.version, self.work = version, work
        self.classes = classes
        hosts = ["127.0.0.1"] if brokers == 1 else [f"127.0.0.{n + 2}" for n in range(brokers)]
        self.brokers = [Broker(n + 1, host, store) for n, host in enumerate(hosts)]
        self.controller = (100 if brokers > 1 else 1, "127.0.0.1", free_port("127.0.0.1"))
        self.processes = []

    def __enter__(self):
        shutil.rmtree(self.work, ignore_errors=True)
        try:
            if len(self.brokers) > 1:
                self._start_node(self.controller[0], None)
            for broker in self.brokers:
                self._start_node(broker.node, broker)
            self._await_ready()
        except BaseException:
            self.__exit__()
            raise
        for broker in self.brokers:
            broker.plain.start((broker.host, broker.ports["CLIENT"]))
            broker.sasl.start((broker.host, broker.ports["SASL"]))
        return self

    def __exit__(self, *_):
        for broker in self.brokers:
            broker.plain.close()
            broker.sasl.close()
        for process in self.processes:
            process.terminate()
        for process in self.processes:
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        shutil.rmtree(self.work, ignore_errors=True)

    def bootstrap(self, sasl=False):
        """`bootstrap.servers` for a client that shall be captured."""
        relays = [broker.sasl if sasl else broker.plain for broker in self.brokers]
        return ",".join(f"{relay.host}:{relay.port}" for relay in relays)

    def name_client(self, client, version):
        """Connections from now on belong to this client."""
        for broker in self.brokers:
            for relay in (broker.plain, broker.sasl):
                relay.peers = Peers(client, version, self.version)

    def move(self, topic):
        """Gives every partition of the topic, in all its replicas, to the next broker."""
        control = wire.Connection(self.brokers[0].probe())
        nodes = [broker.node for broker in self.brokers]
        leaders = control.leaders(topic)
        target = {p: nodes[(nodes.index(l) + 1) % len(nodes)] for p, l in leaders.items()}
        control.reassign(topic, target)
        deadline = time.monotonic() + MOVE_SECONDS
        while control.leaders(topic) != target or control.reassigning():
            if time.monotonic() > deadline:
                raise TimeoutError(f"leaders of {topic} did not move")
            time.sleep(0.1)
        control.close()

    def _start_node(self, node, broker):
        home = self.work / f"node{node}"
        home.mkdir(parents=True)
        file = home / "server.properties"
        file.write_text(self._properties(node, broker, home))
        java = ["java", "-Xmx400m", "-XX:TieredStopAtLevel=1", "-cp", self.classes]
        storage = ["kafka.tools.StorageTool", "format", "--cluster-id", CLUSTER_ID]
        subprocess.run(
            [*java, *storage, "--config", str(file)],
            cwd=home,
            check=True,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        with open(home / "server.log", "wb") as log:
            process = subprocess.Popen(
                [*java, "kafka.Kafka", str(file)], cwd=home, stdout=log, stderr=log
            )
        self.processes.append(process)

    def _properties(self, node, broker, home):
        number, host, port = self.controller
        lines = [f"node.id={node}", f"log.dirs={home}/data"]
        lines.append(f"controller.quorum.voters={number}@{host}:{port}")
        own = [f"CONTROLLER://{host}:{port}"] if node == number else []
        roles = ["controller"] if own else []
        if broker is not None:
            own.append(broker.listeners())
            roles.append("broker")
            lines.append(f"advertised.listeners={broker.advertised()}")
            lines.append(f"broker.rack=rack{node}")
        lines.append(f"listeners={','.join(own)}")
        lines.append(f"process.roles={','.join(roles)}")
        text = "\n".join(lines) + COMMON
        text += OLD if self.version.startswith("3.") else SHARE
        if len(self.brokers) > 1:
            text += AUTHORIZER
        if broker is None:
            text = text.replace("inter.broker.listener.name=INTERNAL\n", "")
        return text

    def _await_ready(self):
        deadline = time.monotonic() + START_SECONDS
        for broker in self.brokers:
            while True:
                if any(process.poll() is not None for process in self.processes):
                    raise RuntimeError(f"Kafka ended early, see {self.work}/*/server.log")
                try:
                    control = wire.Connection(broker.probe())
                    count = control.broker_count()
                    control.close()
                    if count == len(self.brokers):
                        break
                except (OSError, EOFError):
                    pass
                if time.monotonic() > deadline:
                    raise TimeoutError(f"broker {broker.node} did not come up")
                time.sleep(0.3)


def free_port(host):
    """A port that was free a moment ago."""
    with socket.socket() as probe:
        probe.bind((host, 0))
        return probe.getsockname()[1]
