"""kafka-python against one address: writes records, reads them back, says what came of it.

One argument, a JSON object: bootstrap, topic, partition, count, wait_ms (for each step), settings of
both clients, hosts (names that this process resolves by itself), claim (the subject of an unsecured
token for OAUTHBEARER).
"""

import base64
import hashlib
import json
import socket
import sys
import time

from kafka import KafkaConsumer, KafkaProducer, TopicPartition
from kafka.net.sasl.oauth import AbstractTokenProvider


class Unsecured(AbstractTokenProvider):
    """A token that nobody signed, which a broker's unsecured validator takes."""

    def __init__(self, subject):
        self.subject = subject

    def token(self):
        now = int(time.time())
        claims = {"sub": self.subject, "iat": now, "exp": now + 3600}
        parts = [json.dumps(part).encode() for part in ({"alg": "none"}, claims)]
        return ".".join(base64.urlsafe_b64encode(part).decode().rstrip("=") for part in parts) + "."


def resolve_by(hosts):
    ask = socket.getaddrinfo
    socket.getaddrinfo = lambda host, *rest, **more: ask(hosts.get(host, host), *rest, **more)


def main():
    wanted = json.loads(sys.argv[1])
    resolve_by(wanted.get("hosts", {}))
    settings = dict(wanted["settings"], bootstrap_servers=wanted["bootstrap"])
    if "claim" in wanted:
        settings["sasl_oauth_token_provider"] = Unsecured(wanted["claim"])
    topic, count, wait_ms = wanted["topic"], wanted["count"], wanted.get("wait_ms", 15000)
    answers = {}
    try:
        producer = KafkaProducer(acks="all", max_block_ms=wait_ms, **settings)
        for n in range(count):
            try:
                future = producer.send(
                    topic, key=b"key-%d" % n, value=b"value %d" % n, partition=wanted["partition"],
                    timestamp_ms=1_750_000_000_000 + n,
                )
                future.get(wait_ms / 1000)
                answer = "written"
            except Exception as error:
                answer = type(error).__name__
            answers[answer] = answers.get(answer, 0) + 1
        producer.close(timeout=5)
        print(json.dumps({"answers": answers, "read": read(topic, wanted, wait_ms, settings)}))
    except Exception as error:
        print(json.dumps({"answers": answers, "error": type(error).__name__}))


def read(topic, wanted, wait_ms, settings):
    consumer = KafkaConsumer(auto_offset_reset="earliest", consumer_timeout_ms=wait_ms, **settings)
    consumer.assign([TopicPartition(topic, wanted["partition"])])
    digest, seen = hashlib.sha256(), 0
    try:
        for record in consumer:
            digest.update(b"%d %d %s %s" % (
                record.offset, record.timestamp, record.key or b"", record.value or b""))
            seen += 1
            if seen == wanted["count"]:
                break
    except Exception as error:
        return type(error).__name__
    finally:
        consumer.close()
    return {"records": seen, "sha256": digest.hexdigest()}


main()
