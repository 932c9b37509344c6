"""Drives librdkafka through confluent-kafka: produce, consume, groups, share groups, admin."""

import sys
import time

import confluent_kafka as ck
import confluent_kafka.admin as ca
from steps import move, step

BOOTSTRAP, PREFIX, BROKERS, SASL, USER, PASSWORD = sys.argv[1:7]
BROKERS = int(BROKERS)
TOPIC, TXN, MOVED = f"{PREFIX}-codec", f"{PREFIX}-txn", f"{PREFIX}-moved"
WIDE, STAMPED = f"{PREFIX}-wide", f"{PREFIX}-stamped"


def settings(**more):
    """A configuration with dots written as underscores; metrics are pushed in one step only."""
    return {
        "bootstrap.servers": BOOTSTRAP,
        "enable.metrics.push": False,
        **{key.replace("_", "."): value for key, value in more.items()},
    }


def futures(answers):
    """Waits for the futures of an admin call."""
    for future in answers.values() if isinstance(answers, dict) else [answers]:
        future.result(20)


def record(number):
    """Keys, values and headers of some variety."""
    return {
        "key": None if number % 3 == 0 else f"key-{number}",
        "value": None if number % 5 == 4 else f"value {number} of some " * 3,
        "headers": [("twice", b"a"), ("twice", b"b"), ("none", None)] if number % 2 else None,
    }


def telemetry():
    """A client that pushes metrics; the Java driver has asked for them."""
    producer = ck.Producer(settings(enable_metrics_push=True))
    end = time.monotonic() + 4
    while time.monotonic() < end:
        producer.produce(TOPIC, b"metrics")
        producer.flush(1)
        time.sleep(0.2)


def topics(admin):
    """Makes the topics the other steps use."""
    copies = min(BROKERS, 2)
    futures(
        admin.create_topics(
            [
                ca.NewTopic(TOPIC, 2, copies),
                ca.NewTopic(TXN, 1, copies),
                ca.NewTopic(MOVED, 2, 1),
                ca.NewTopic(WIDE, 1, BROKERS),
                ca.NewTopic(STAMPED, 1, copies, config={"message.timestamp.type": "LogAppendTime"}),
            ]
        )
    )


def produce(codec, idempotent, acks="all"):
    """Three flushes of 1, 6 and 40 records, and one record into the append-time topic."""
    producer = ck.Producer(
        settings(
            compression_type=codec,
            enable_idempotence=idempotent,
            linger_ms=50,
            request_required_acks=acks,
        )
    )
    for count in (1, 6, 40):
        for number in range(count):
            producer.produce(TOPIC, **record(number))
        producer.flush(10)
    producer.produce(STAMPED, value=b"stamped")
    producer.flush(10)


def transactions():
    """Commit, abort, commit; offsets of a group inside."""
    producer = ck.Producer(settings(transactional_id=f"{PREFIX}-id", compression_type="lz4"))
    producer.init_transactions(20)
    consumer = ck.Consumer(settings(group_id=f"{PREFIX}-txn-group"))
    consumer.subscribe([TOPIC])
    for commit in (True, False, True):
        producer.begin_transaction()
        for number in range(4):
            producer.produce(TXN, **record(number))
        producer.produce(TOPIC, **record(1))
        consumer.poll(1)
        offsets = [ck.TopicPartition(TOPIC, 0, 1)]
        producer.send_offsets_to_transaction(offsets, consumer.consumer_group_metadata(), 10)
        producer.flush(10)
        producer.commit_transaction(10) if commit else producer.abort_transaction(10)
    consumer.close()


def group(protocol):
    """Two members, commits, queries."""
    member = settings(
        group_id=f"{PREFIX}-{protocol}",
        group_protocol=protocol,
        auto_offset_reset="earliest",
        enable_auto_commit=False,
    )
    first = ck.Consumer(member)
    first.subscribe([TOPIC])
    drain(first, 60)
    first.commit(asynchronous=False)
    second = ck.Consumer({**member, "group.instance.id": "member-2"})
    second.subscribe([TOPIC, TXN])
    both(first, second, 6)
    first.committed([ck.TopicPartition(TOPIC, 0)], 5)
    first.get_watermark_offsets(ck.TopicPartition(TOPIC, 0), 5)
    first.offsets_for_times([ck.TopicPartition(TOPIC, 0, 1)], 5)
    both(first, second, 4)
    first.close()
    second.close()


def both(first, second, seconds):
    """Polls two members in turn: neither can join or leave while the other does not poll."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        first.poll(0.1)
        second.poll(0.1)


def drain(consumer, want):
    """Polls until `want` messages were seen or ten seconds went by."""
    end = time.monotonic() + 10
    while want > 0 and time.monotonic() < end:
        message = consumer.poll(0.2)
        want -= message is not None and message.error() is None


def isolated():
    """Both isolation levels over batches of all kinds, in small fetches."""
    for isolation in ("read_committed", "read_uncommitted"):
        for topic in (TXN, STAMPED, TOPIC):
            consumer = ck.Consumer(
                settings(
                    group_id=f"{PREFIX}-none",
                    isolation_level=isolation,
                    fetch_message_max_bytes=3000,
                    enable_auto_commit=False,
                )
            )
            consumer.assign([ck.TopicPartition(topic, 0, 0)])
            drain(consumer, 12)
            consumer.close()


def share():
    """A share group; leaders move while records are held."""
    topic = MOVED if BROKERS > 1 else TOPIC
    consumer = ck.ShareConsumer(
        settings(group_id=f"{PREFIX}-share", share_acknowledgement_mode="explicit")
    )
    consumer.subscribe([topic])
    kinds = (ck.AcknowledgeType.ACCEPT, ck.AcknowledgeType.RELEASE, ck.AcknowledgeType.REJECT)
    producer = ck.Producer(settings())
    for round_number in range(6):
        for _ in range(2):
            for number, message in enumerate(consumer.poll(1)):
                if message.error() is None:
                    consumer.acknowledge(message, kinds[number % 3])
        for number in range(12):
            producer.produce(topic, **record(number))
        producer.flush(10)
        if BROKERS > 1 and round_number % 2:
            move(topic)
        consumer.commit_sync()
    consumer.close()


def moved():
    """A producer and a consumer whose leaders go elsewhere."""
    for idempotent in (True, False):
        producer = ck.Producer(settings(enable_idempotence=idempotent, linger_ms=20))
        for _ in range(2):
            for number in range(6):
                producer.produce(MOVED, **record(number))
            producer.flush(10)
            move(MOVED)
    consumer = ck.Consumer(settings(group_id=f"{PREFIX}-none", enable_auto_commit=False))
    consumer.assign([ck.TopicPartition(MOVED, partition, 0) for partition in (0, 1)])
    drain(consumer, 3)
    move(MOVED)
    drain(consumer, 30)
    consumer.close()
    for node in range(1, BROKERS + 1):
        near = ck.Consumer(settings(group_id=f"{PREFIX}-none", client_rack=f"rack{node}"))
        near.assign([ck.TopicPartition(WIDE, 0, 0)])
        producer.produce(WIDE, b"near")
        producer.flush(10)
        drain(near, 2)
        near.close()


def admin_topics(admin):
    """Topics, configurations, offsets."""
    extra = f"{PREFIX}-extra"
    part = ck.TopicPartition(TOPIC, 0)
    config = ca.ConfigResource(ca.ResourceType.TOPIC, TOPIC)
    entry = ca.ConfigEntry(
        "retention.ms", "900000", incremental_operation=ca.AlterConfigOpType.SET
    )
    step("create", lambda: futures(admin.create_topics([ca.NewTopic(extra, 1, 1)])))
    step("create again", lambda: futures(admin.create_topics([ca.NewTopic(extra, 1, 1)])))
    step("partitions", lambda: futures(admin.create_partitions([ca.NewPartitions(extra, 3)])))
    step("list topics", lambda: admin.list_topics(timeout=10))
    step(
        "describe topics",
        lambda: futures(admin.describe_topics(ck.TopicCollection([TOPIC, extra]))),
    )
    step("describe cluster", lambda: futures(admin.describe_cluster()))
    for resource in (config, ca.ConfigResource(ca.ResourceType.BROKER, "1")):
        step("describe configs", lambda: futures(admin.describe_configs([resource])))
    alter = ca.ConfigResource(ca.ResourceType.TOPIC, TOPIC, set_config={"retention.ms": "1000000"})
    step("alter configs", lambda: futures(admin.alter_configs([alter])))
    change = ca.ConfigResource(ca.ResourceType.TOPIC, TOPIC, incremental_configs=[entry])
    step("incremental alter configs", lambda: futures(admin.incremental_alter_configs([change])))
    specs = {
        "earliest": ca.OffsetSpec.earliest(),
        "latest": ca.OffsetSpec.latest(),
        "max": ca.OffsetSpec.max_timestamp(),
        "time": ca.OffsetSpec.for_timestamp(1),
    }
    for name, spec in specs.items():
        step(f"list offsets {name}", lambda: futures(admin.list_offsets({part: spec})))
    step("delete records", lambda: futures(admin.delete_records([ck.TopicPartition(TOPIC, 0, 2)])))
    step("elect", lambda: futures(admin.elect_leaders(ck.ElectionType.PREFERRED, [part])))
    step("delete", lambda: futures(admin.delete_topics([extra])))


def admin_groups(admin):
    """Groups, then security."""
    classic, modern = f"{PREFIX}-classic", f"{PREFIX}-consumer"
    offsets = ck.ConsumerGroupTopicPartitions
    step("list groups", lambda: futures(admin.list_consumer_groups()))
    step("list groups old", lambda: admin.list_groups(timeout=10))
    step("describe groups", lambda: futures(admin.describe_consumer_groups([classic, modern])))
    step(
        "group offsets", lambda: futures(admin.list_consumer_group_offsets([offsets(classic)]))
    )
    step(
        "alter group offsets",
        lambda: futures(
            admin.alter_consumer_group_offsets(
                [offsets(classic, [ck.TopicPartition(TOPIC, 0, 3)])]
            )
        ),
    )
    step("delete groups", lambda: futures(admin.delete_consumer_groups([classic, modern])))
    acl = ("User:ANONYMOUS", "*", ca.AclOperation.READ, ca.AclPermissionType.ALLOW)
    where = (ca.ResourceType.TOPIC, TOPIC, ca.ResourcePatternType.LITERAL)
    step("create acls", lambda: futures(admin.create_acls([ca.AclBinding(*where, *acl)])))
    chosen = ca.AclBindingFilter(*where, *acl)
    step("describe acls", lambda: futures(admin.describe_acls(chosen)))
    step("delete acls", lambda: futures(admin.delete_acls([chosen])))
    info = ca.ScramCredentialInfo(ca.ScramMechanism.SCRAM_SHA_256, 4096)
    scram = ca.UserScramCredentialUpsertion("reader", info, PASSWORD.encode())
    step("scram", lambda: futures(admin.alter_user_scram_credentials([scram])))
    step("describe scram", lambda: futures(admin.describe_user_scram_credentials()))


def sasl():
    """One listing over SASL PLAIN."""
    admin = ca.AdminClient(
        {
            "bootstrap.servers": SASL,
            "security.protocol": "SASL_PLAINTEXT",
            "sasl.mechanism": "PLAIN",
            "sasl.username": USER,
            "sasl.password": PASSWORD,
        }
    )
    admin.list_topics(timeout=10)


def main():
    """All steps, topics first."""
    admin = ca.AdminClient(settings())
    step("topics", lambda: topics(admin))
    for codec in ("none", "gzip", "snappy", "lz4", "zstd"):
        for idempotent in (True, False):
            step(f"produce {codec}", lambda: produce(codec, idempotent))
    for acks in ("0", "1"):
        step(f"acks {acks}", lambda: produce("none", False, acks))
    step("telemetry", telemetry)
    step("transactions", transactions)
    step("classic group", lambda: group("classic"))
    step("consumer group", lambda: group("consumer"))
    step("isolated", isolated)
    step("share", share)
    if BROKERS > 1:
        step("moved", moved)
    admin_topics(admin)
    admin_groups(admin)
    step("sasl", sasl)


if __name__ == "__main__":
    main()
