import org.apache.kafka.clients.consumer.ConsumerRecord;
import org.apache.kafka.clients.consumer.KafkaConsumer;
import org.apache.kafka.clients.producer.KafkaProducer;
import org.apache.kafka.clients.producer.ProducerRecord;
import org.apache.kafka.common.header.Header;
import org.apache.kafka.common.serialization.ByteArrayDeserializer;
import org.apache.kafka.common.serialization.ByteArraySerializer;

import java.nio.charset.StandardCharsets;
import java.util.Arrays;
import java.util.Collections;
import java.util.Properties;
import java.util.TreeSet;

/**
 * A client of 2017 (kafka-clients 0.11): writes to two partitions, reads as a member of a group,
 * commits. Prints a line for each record acknowledged and each read.
 */
public final class OldClient {
    private static final int COUNT = 60;
    private static final long FIRST_TIMESTAMP = 1_500_000_000_000L;

    public static void main(String[] args) throws Exception {
        Properties settings = new Properties();
        settings.put("bootstrap.servers", args[0]);
        settings.put("compression.type", args[2]);
        settings.put("acks", "all");
        settings.put("linger.ms", "20");
        settings.put("group.id", args[1] + "-" + args[2]);
        settings.put("auto.offset.reset", "earliest");
        settings.put("enable.auto.commit", "false");
        TreeSet<String> lines = new TreeSet<>();
        produce(settings, args[1], lines);
        consume(settings, args[1], lines);
        lines.forEach(System.out::println);
    }

    private static void produce(Properties settings, String topic, TreeSet<String> lines)
            throws Exception {
        try (KafkaProducer<byte[], byte[]> producer =
                new KafkaProducer<>(
                        settings, new ByteArraySerializer(), new ByteArraySerializer())) {
            for (int i = 0; i < COUNT; i++) {
                byte[] value = new byte[300];
                Arrays.fill(value, (byte) ('a' + i % 26));
                var record = new ProducerRecord<>(topic, i % 2, FIRST_TIMESTAMP + i, key(i), value);
                record.headers().add("twice", key(1)).add("twice", key(2));
                producer.send(
                        record,
                        (metadata, error) -> {
                            String place = metadata.partition() + "@" + metadata.offset();
                            lines.add(error == null ? "sent " + place : "failed " + error);
                        });
            }
        }
    }

    private static byte[] key(int i) {
        return i % 7 == 6 ? null : ("key-" + i).getBytes(StandardCharsets.UTF_8);
    }

    private static void consume(Properties settings, String topic, TreeSet<String> lines) {
        try (KafkaConsumer<byte[], byte[]> consumer =
                new KafkaConsumer<>(
                        settings, new ByteArrayDeserializer(), new ByteArrayDeserializer())) {
            consumer.subscribe(Collections.singletonList(topic));
            long until = System.nanoTime() + 30_000_000_000L;
            for (int read = 0; read < COUNT && System.nanoTime() < until; ) {
                for (ConsumerRecord<byte[], byte[]> record : consumer.poll(200)) {
                    lines.add(inWords(record));
                    read++;
                }
            }
            consumer.commitSync();
        }
    }

    private static String inWords(ConsumerRecord<byte[], byte[]> record) {
        StringBuilder line = new StringBuilder("read ");
        line.append(record.partition()).append('@').append(record.offset());
        line.append(" at ").append(record.timestamp());
        line.append(" key ").append(text(record.key()));
        line.append(" value ").append(Arrays.hashCode(record.value()));
        for (Header header : record.headers()) {
            line.append(' ').append(header.key()).append('=').append(text(header.value()));
        }
        return line.toString();
    }

    private static String text(byte[] bytes) {
        return bytes == null ? "null" : new String(bytes, StandardCharsets.UTF_8);
    }
}
