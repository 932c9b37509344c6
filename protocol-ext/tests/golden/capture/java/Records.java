import java.time.Duration;
import java.util.List;
import java.util.Map;
import java.util.Properties;
import java.util.Set;
import java.util.concurrent.Future;
import org.apache.kafka.clients.admin.Admin;
import org.apache.kafka.clients.admin.NewTopic;
import org.apache.kafka.clients.consumer.ConsumerRebalanceListener;
import org.apache.kafka.clients.consumer.KafkaConsumer;
import org.apache.kafka.clients.consumer.OffsetAndMetadata;
import org.apache.kafka.clients.producer.KafkaProducer;
import org.apache.kafka.clients.producer.ProducerRecord;
import org.apache.kafka.common.TopicPartition;
import org.apache.kafka.common.serialization.ByteArrayDeserializer;
import org.apache.kafka.common.serialization.ByteArraySerializer;

/** Producers and consumers: codecs, transactions, both group protocols, moved leaders. */
public final class Records {
    private static final String[] CODECS = {"none", "gzip", "snappy", "lz4", "zstd"};
    private final String bootstrap;
    private final String prefix;
    private final int brokers;

    private Records(String[] args) {
        bootstrap = args[0];
        prefix = args[1];
        brokers = Integer.parseInt(args[2]);
    }

    public static void main(String[] args) {
        Records records = new Records(args);
        Steps.step("topics", records::topics);
        for (String codec : CODECS) {
            Steps.step("produce " + codec, () -> records.produce(codec));
        }
        Steps.step("acks", records::acks);
        Steps.step("transactions", records::transactions);
        Steps.step("classic group", () -> records.group("classic"));
        Steps.step("consumer group", () -> records.group("consumer"));
        Steps.step("read committed", records::readCommitted);
        Steps.step("compacted", records::compacted);
        if (records.brokers > 1) {
            Steps.step("moved producer", records::movedProducer);
            Steps.step("moved consumer", records::movedConsumer);
            Steps.step("nearest replica", records::nearestReplica);
        }
    }

    private void topics() throws Exception {
        short copies = (short) Math.min(brokers, 2);
        try (Admin admin = Admin.create(Steps.settings(bootstrap))) {
            admin.createTopics(List.of(
                    new NewTopic(prefix + "-codec", 2, copies),
                    new NewTopic(prefix + "-txn", 1, copies),
                    new NewTopic(prefix + "-moved", 2, (short) 1),
                    new NewTopic(prefix + "-old", 1, copies),
                    new NewTopic(prefix + "-wide", 1, (short) brokers),
                    new NewTopic(prefix + "-stamped", 1, copies).configs(Map.of(
                            "message.timestamp.type", "LogAppendTime")),
                    new NewTopic(prefix + "-compact", 1, copies).configs(Map.of(
                            "cleanup.policy", "compact", "segment.ms", "500",
                            "min.cleanable.dirty.ratio", "0.01",
                            "min.compaction.lag.ms", "0",
                            "max.compaction.lag.ms", "1000")))).all().get();
        }
    }

    private KafkaProducer<byte[], byte[]> producer(Object... pairs) {
        Properties settings = Steps.settings(bootstrap, pairs);
        settings.putIfAbsent("linger.ms", "50");
        return new KafkaProducer<>(settings, new ByteArraySerializer(), new ByteArraySerializer());
    }

    private KafkaConsumer<byte[], byte[]> consumer(Object... pairs) {
        Properties settings = Steps.settings(bootstrap, pairs);
        settings.putIfAbsent("auto.offset.reset", "earliest");
        settings.putIfAbsent("enable.auto.commit", "false");
        return new KafkaConsumer<>(settings, new ByteArrayDeserializer(),
                new ByteArrayDeserializer());
    }

    private static ProducerRecord<byte[], byte[]> record(String topic, int number) {
        byte[] key = number % 3 == 0 ? null : ("key-" + number).getBytes();
        byte[] value = number % 5 == 4 ? null : ("value " + number + " of some ").repeat(3)
                .getBytes();
        ProducerRecord<byte[], byte[]> record = new ProducerRecord<>(topic, key, value);
        if (number % 2 == 1) {
            record.headers().add("twice", "a".getBytes()).add("twice", "b".getBytes());
            record.headers().add("none", null);
        }
        return record;
    }

    private void produce(String codec) throws Exception {
        for (boolean idempotent : new boolean[] {true, false}) {
            try (var producer = producer("compression.type", codec,
                    "enable.idempotence", idempotent)) {
                for (int count : new int[] {1, 6, 40}) {
                    for (int i = 0; i < count; i++) {
                        producer.send(record(prefix + "-codec", i));
                    }
                    producer.flush();
                }
                producer.send(record(prefix + "-stamped", 1)).get();
            }
        }
    }

    private void acks() throws Exception {
        for (String acks : new String[] {"0", "1", "all"}) {
            try (var producer = producer("acks", acks, "enable.idempotence", false,
                    "max.block.ms", 3000, "request.timeout.ms", 3000,
                    "delivery.timeout.ms", 4000)) {
                producer.send(record(prefix + "-codec", 1)).get();
                Steps.step("unknown topic", () -> producer.send(record(prefix + "-no", 1)).get());
            }
        }
    }

    private void transactions() throws Exception {
        String topic = prefix + "-txn";
        try (var producer = producer("transactional.id", prefix + "-id",
                "compression.type", "lz4");
                var consumer = consumer("group.id", prefix + "-txn-group")) {
            producer.initTransactions();
            consumer.subscribe(List.of(prefix + "-codec"));
            for (boolean commit : new boolean[] {true, false, true}) {
                producer.beginTransaction();
                for (int i = 0; i < 4; i++) {
                    producer.send(record(topic, i));
                }
                producer.send(record(prefix + "-codec", 1));
                consumer.poll(Duration.ofMillis(1500));
                Map<TopicPartition, OffsetAndMetadata> offsets = Map.of(
                        new TopicPartition(prefix + "-codec", 0), new OffsetAndMetadata(1));
                producer.sendOffsetsToTransaction(offsets, consumer.groupMetadata());
                producer.flush();
                if (commit) {
                    producer.commitTransaction();
                } else {
                    producer.abortTransaction();
                }
            }
        }
    }

    private void group(String protocol) throws Exception {
        String group = prefix + "-" + protocol;
        boolean classic = protocol.equals("classic");
        try (var consumer = consumer("group.id", group, "group.protocol", protocol);
                var second = consumer("group.id", group, "group.protocol", protocol,
                        classic ? "group.instance.id" : "client.id", "member-2")) {
            consumer.subscribe(List.of(prefix + "-codec"));
            drain(consumer, 60);
            consumer.commitSync();
            second.subscribe(List.of(prefix + "-codec", prefix + "-txn"),
                    new NoListener());
            for (int i = 0; i < 30 && second.assignment().isEmpty(); i++) {
                second.poll(Duration.ofMillis(200));
                consumer.poll(Duration.ofMillis(200));
            }
            Set<TopicPartition> mine = consumer.assignment();
            TopicPartition some = new TopicPartition(prefix + "-codec", 0);
            consumer.committed(mine);
            consumer.beginningOffsets(mine);
            consumer.endOffsets(mine);
            consumer.offsetsForTimes(Steps.one(some, 1L));
            consumer.partitionsFor(prefix + "-txn");
            consumer.listTopics();
            Thread.sleep(4000);
            consumer.poll(Duration.ofMillis(300));
            second.poll(Duration.ofMillis(300));
            consumer.commitSync();
        }
    }

    private static int drain(KafkaConsumer<byte[], byte[]> consumer, int want) {
        int have = 0;
        for (int i = 0; i < 40 && have < want; i++) {
            have += consumer.poll(Duration.ofMillis(250)).count();
        }
        return have;
    }

    private void readCommitted() {
        for (String isolation : new String[] {"read_committed", "read_uncommitted"}) {
            for (String topic : new String[] {"-txn", "-stamped", "-codec"}) {
                try (var consumer = consumer("isolation.level", isolation,
                        "max.partition.fetch.bytes", 3000)) {
                    List<TopicPartition> all = List.of(new TopicPartition(prefix + topic, 0));
                    consumer.assign(all);
                    consumer.seekToBeginning(all);
                    drain(consumer, 8);
                    consumer.seekToEnd(all);
                    consumer.poll(Duration.ofMillis(200));
                }
            }
        }
    }

    /** Leaves batches with gaps and, of the last of a producer, an empty one. */
    private void compacted() throws Exception {
        String topic = prefix + "-compact";
        for (int round = 0; round < 4; round++) {
            try (var producer = producer("compression.type", round % 2 == 0 ? "none" : "zstd")) {
                for (int i = 0; i < 12; i++) {
                    boolean keep = i == round;
                    byte[] key = (keep ? "keep-" + round : "same-" + i % 2).getBytes();
                    producer.send(new ProducerRecord<>(topic, key, new byte[40]));
                }
                producer.send(new ProducerRecord<>(topic, ("gone-" + round).getBytes(), null));
                producer.flush();
                producer.send(new ProducerRecord<>(topic, "last".getBytes(), new byte[3]));
            }
            Thread.sleep(1000);
        }
        for (int i = 0; i < 8; i++) {
            try (var consumer = consumer()) {
                List<TopicPartition> all = List.of(new TopicPartition(topic, 0));
                consumer.assign(all);
                consumer.seekToBeginning(all);
                consumer.poll(Duration.ofMillis(500));
            }
            Thread.sleep(1500);
        }
    }

    private void movedProducer() throws Exception {
        String topic = prefix + "-moved";
        for (boolean idempotent : new boolean[] {true, false}) {
            try (var producer = producer("enable.idempotence", idempotent)) {
                send(producer, topic);
                Steps.move(topic);
                send(producer, topic);
            }
        }
    }

    private static void send(KafkaProducer<byte[], byte[]> producer, String topic)
            throws Exception {
        Future<?> last = null;
        for (int i = 0; i < 6; i++) {
            last = producer.send(record(topic, i));
        }
        last.get();
    }

    private void movedConsumer() throws Exception {
        String topic = prefix + "-moved";
        try (var consumer = consumer()) {
            consumer.assign(List.of(new TopicPartition(topic, 0), new TopicPartition(topic, 1)));
            for (int i = 0; i < 2; i++) {
                drain(consumer, 3);
                Steps.move(topic);
                try (var producer = producer()) {
                    send(producer, topic);
                }
            }
            drain(consumer, 3);
        }
    }

    private void nearestReplica() throws Exception {
        try (var producer = producer()) {
            send(producer, prefix + "-wide");
        }
        for (int node = 1; node <= brokers; node++) {
            try (var consumer = consumer("client.rack", "rack" + node)) {
                consumer.assign(List.of(new TopicPartition(prefix + "-wide", 0)));
                drain(consumer, 4);
            }
        }
    }

    private static final class NoListener implements ConsumerRebalanceListener {
        @Override
        public void onPartitionsRevoked(java.util.Collection<TopicPartition> parts) {}

        @Override
        public void onPartitionsAssigned(java.util.Collection<TopicPartition> parts) {}
    }
}
