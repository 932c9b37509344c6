"""librdkafka against one address: writes records, reads them back, says what came of it.

One argument, a JSON object: config (of librdkafka), topic, partition, count, wait_ms (for each
step). What is refused is told by the name of the error; a login or a handshake that fails ends the
step at once.
"""

import hashlib
import json
import sys
import time

from confluent_kafka import OFFSET_BEGINNING, Consumer, KafkaError, Producer, TopicPartition

REFUSALS = (KafkaError._AUTHENTICATION, KafkaError._SSL)


class Step:
    """One client's time, and why it ended early."""

    def __init__(self, wanted, **more):
        self.refused = None
        self.end = time.monotonic() + wanted["wait_ms"] / 1000
        self.config = dict(wanted["config"], error_cb=self.on_error, **more)

    def on_error(self, error):
        if error.code() in REFUSALS:
            self.refuse(error)

    def refuse(self, error):
        self.refused = self.refused or error.name()

    def goes_on(self):
        if time.monotonic() > self.end:
            self.refused = self.refused or "out of time"
        return self.refused is None


def write(wanted):
    step = Step(wanted)
    # One batch: what is tried again keeps its order.
    step.config.update({"message.timeout.ms": wanted["wait_ms"], "linger.ms": 100})
    producer, written = Producer(step.config), []

    def answered(error, _):
        step.refuse(error) if error else written.append(1)

    for n in range(wanted["count"]):
        producer.produce(
            wanted["topic"], value=b"value %d" % n, key=b"key-%d" % n,
            partition=wanted["partition"], on_delivery=answered, timestamp=1_750_000_000_000 + n,
        )
    while len(written) < wanted["count"] and step.goes_on():
        producer.poll(0.05)
    return len(written), step.refused


def read(wanted):
    step = Step(wanted)
    step.config.update({"group.id": "none", "enable.auto.commit": False,
                        "enable.partition.eof": True, "fetch.wait.max.ms": 100})
    consumer = Consumer(step.config)
    at = TopicPartition(wanted["topic"], wanted["partition"], OFFSET_BEGINNING)
    consumer.assign([at])
    digest, seen = hashlib.sha256(), 0
    while seen < wanted["count"] and step.goes_on():
        message = consumer.poll(0.05)
        if message is None:
            continue
        if message.error() is None:
            digest.update(b"%d %d %s %s" % (message.offset(), message.timestamp()[1],
                                            message.key() or b"", message.value() or b""))
            seen += 1
        elif message.error().code() == KafkaError._PARTITION_EOF:
            break
        else:
            step.refuse(message.error())
    consumer.close()
    return step.refused or {"records": seen, "sha256": digest.hexdigest()}


def main():
    wanted = json.loads(sys.argv[1])
    written, refused = write(wanted)
    print(json.dumps({"written": written, "error": refused, "read": read(wanted)}))


main()
