import com.fasterxml.jackson.databind.JsonNode;

import org.apache.kafka.clients.consumer.ConsumerRecord;
import org.apache.kafka.clients.consumer.KafkaConsumer;
import org.apache.kafka.clients.producer.KafkaProducer;
import org.apache.kafka.clients.producer.ProducerRecord;
import org.apache.kafka.common.TopicPartition;
import org.apache.kafka.common.header.Header;
import org.apache.kafka.common.serialization.ByteArrayDeserializer;
import org.apache.kafka.common.serialization.ByteArraySerializer;

import java.nio.charset.StandardCharsets;
import java.security.MessageDigest;
import java.time.Duration;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.HexFormat;
import java.util.List;
import java.util.Map;
import java.util.Random;
import java.util.TreeMap;
import java.util.concurrent.ConcurrentSkipListMap;

/** Writes records that are the same in every run, and reads partitions back as digests. */
final class Records {
    private static final long FIRST_TIMESTAMP = 1_750_000_000_000L;

    /**
     * Record {@code i} of a run: null keys, null values, empty values and doubled headers occur.
     */
    static ProducerRecord<byte[], byte[]> record(String topic, int partitions, int i, int size) {
        byte[] key = i % 7 == 0 ? null : ("key-" + i).getBytes(StandardCharsets.UTF_8);
        byte[] value = i % 11 == 10 ? null : value(i, i % 13 == 12 ? 0 : size);
        var record = new ProducerRecord<>(topic, i % partitions, FIRST_TIMESTAMP + i, key, value);
        record.headers()
                .add("twice", new byte[] {1})
                .add("n", String.valueOf(i).getBytes(StandardCharsets.UTF_8));
        record.headers().add("twice", new byte[] {2}).add("none", null);
        return record;
    }

    /** Half noise, half repetition: compressible, but not to nothing. */
    static byte[] value(int seed, int size) {
        byte[] value = new byte[size];
        Arrays.fill(value, (byte) ('a' + seed % 26));
        byte[] noise = new byte[size / 2];
        new Random(seed).nextBytes(noise);
        System.arraycopy(noise, 0, value, 0, noise.length);
        return value;
    }

    static KafkaProducer<byte[], byte[]> producer(JsonNode in, Object... more) {
        return new KafkaProducer<>(
                Cases.properties(in, more), new ByteArraySerializer(), new ByteArraySerializer());
    }

    static KafkaConsumer<byte[], byte[]> consumer(JsonNode in, Object... more) {
        return new KafkaConsumer<>(
                Cases.properties(in, more),
                new ByteArrayDeserializer(),
                new ByteArrayDeserializer());
    }

    static Object produce(JsonNode in) throws Exception {
        String topic = in.get("topic").asText();
        int partitions = Cases.number(in, "partitions", 1);
        int count = Cases.number(in, "count", 100);
        Map<String, Integer> answers = new ConcurrentSkipListMap<>();
        try (var producer = producer(in)) {
            for (int i = 0; i < count; i++) {
                var record = record(topic, partitions, i, Cases.number(in, "size", 200));
                producer.send(
                        record,
                        (metadata, error) -> {
                            String answer =
                                    error != null
                                            ? Cases.describe(error)
                                            : metadata.hasOffset() ? "offset given" : "no offset";
                            answers.merge(answer, 1, Integer::sum);
                        });
            }
        }
        return Map.of("answers", answers);
    }

    /** Reads every partition from its start to its end, and says what it held. */
    static Object consume(JsonNode in) throws Exception {
        try (var consumer =
                consumer(
                        in,
                        "auto.offset.reset",
                        "earliest",
                        "enable.auto.commit",
                        "false",
                        "group.id",
                        "reader-of-" + in.get("topic").asText())) {
            return digests(consumer, in.get("topic").asText(), Cases.number(in, "at_least", 0));
        }
    }

    /** Waits up to 30 s for {@code atLeast} records (acks=0 gives no other sign of arrival). */
    static Map<String, Object> digests(
            KafkaConsumer<byte[], byte[]> consumer, String topic, int atLeast) throws Exception {
        List<TopicPartition> partitions = new ArrayList<>();
        consumer.partitionsFor(topic)
                .forEach(p -> partitions.add(new TopicPartition(topic, p.partition())));
        partitions.sort((a, b) -> a.partition() - b.partition());
        consumer.assign(partitions);
        consumer.seekToBeginning(partitions);
        Map<Integer, MessageDigest> digests = new TreeMap<>();
        Map<Integer, Long> counts = new TreeMap<>();
        long total = 0;
        long until = System.nanoTime() + Duration.ofSeconds(30).toNanos();
        while (System.nanoTime() < until) {
            Map<TopicPartition, Long> ends = consumer.endOffsets(partitions);
            boolean there = true;
            for (TopicPartition partition : partitions) {
                there &= consumer.position(partition) >= ends.get(partition);
            }
            if (there && total >= atLeast) {
                break;
            }
            for (ConsumerRecord<byte[], byte[]> record : consumer.poll(Duration.ofMillis(200))) {
                add(digests.computeIfAbsent(record.partition(), p -> sha256()), record);
                counts.merge(record.partition(), 1L, Long::sum);
                total++;
            }
        }
        Map<String, Object> out = new TreeMap<>();
        for (TopicPartition partition : partitions) {
            MessageDigest digest = digests.get(partition.partition());
            out.put(
                    "partition " + partition.partition(),
                    Map.of(
                            "records", counts.getOrDefault(partition.partition(), 0L),
                            "position", consumer.position(partition),
                            "sha256",
                                    digest == null
                                            ? "nothing"
                                            : HexFormat.of().formatHex(digest.digest())));
        }
        out.put("records", total);
        return out;
    }

    /** One record of {@code size} bytes there and back. */
    static Object large(JsonNode in) throws Exception {
        String topic = in.get("topic").asText();
        int size = in.get("size").asInt();
        long offset;
        try (var producer =
                producer(
                        in,
                        "max.request.size",
                        64 << 20,
                        "buffer.memory",
                        96 << 20,
                        "linger.ms",
                        0)) {
            offset = producer.send(record(topic, 1, 1, size)).get().offset();
        }
        try (var consumer =
                consumer(
                        in,
                        "max.partition.fetch.bytes",
                        1 << 20,
                        "auto.offset.reset",
                        "earliest")) {
            return Map.of("offset", offset, "read", digests(consumer, topic, 1));
        }
    }

    static MessageDigest sha256() {
        try {
            return MessageDigest.getInstance("SHA-256");
        } catch (java.security.NoSuchAlgorithmException absent) {
            throw new IllegalStateException(absent);
        }
    }

    static void add(MessageDigest digest, ConsumerRecord<byte[], byte[]> record) {
        digest.update(
                (record.offset() + " " + record.timestampType() + " " + record.timestamp() + " ")
                        .getBytes());
        digest.update(record.key() == null ? "no key".getBytes() : record.key());
        digest.update(record.value() == null ? "no value".getBytes() : record.value());
        for (Header header : record.headers()) {
            digest.update(header.key().getBytes());
            digest.update(header.value() == null ? "none".getBytes() : header.value());
        }
    }
}
