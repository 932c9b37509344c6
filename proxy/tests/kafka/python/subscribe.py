"""librdkafka of today against one address: lists all topics, reads one in groups of both protocols.

One argument, a JSON object: bootstrap, topic, count. Says which topics there are, what each member
read, and how a pattern that brokers would match is refused.
"""

import json
import sys
import time
import uuid

from confluent_kafka import Consumer, KafkaError
from confluent_kafka.admin import AdminClient

LIMIT = 20


def member(wanted, protocol, subscription):
    config = {"bootstrap.servers": wanted["bootstrap"], "group.id": uuid.uuid4().hex,
              "group.protocol": protocol, "auto.offset.reset": "earliest"}
    consumer, end = Consumer(config), time.monotonic() + LIMIT
    consumer.subscribe([subscription])
    try:
        read = []
        while len(read) < wanted["count"] and time.monotonic() < end:
            message = consumer.poll(0.2)
            if message is None:
                continue
            if message.error() and message.error().code() == KafkaError._FATAL:
                return {"read": read, "refused": message.error().str()}
            if not message.error():
                read.append(message.value().decode())
        return {"read": read, "refused": None}
    finally:
        consumer.close()


def main():
    wanted = json.loads(sys.argv[1])
    admin = AdminClient({"bootstrap.servers": wanted["bootstrap"]})
    pattern = "^" + wanted["topic"]
    print(json.dumps({
        "topics": sorted(admin.list_topics(timeout=LIMIT).topics),
        "classic": member(wanted, "classic", wanted["topic"]),
        "classic_pattern": member(wanted, "classic", pattern),
        "consumer": member(wanted, "consumer", wanted["topic"]),
        "consumer_pattern": member(wanted, "consumer", pattern),
    }))


main()
