import com.fasterxml.jackson.databind.JsonNode;

import org.apache.kafka.clients.consumer.ConsumerGroupMetadata;
import org.apache.kafka.clients.consumer.OffsetAndMetadata;
import org.apache.kafka.clients.producer.KafkaProducer;
import org.apache.kafka.common.TopicPartition;

import java.util.Map;
import java.util.Set;
import java.util.TreeMap;

/**
 * Commit, abort, offsets within a transaction, fencing, and what both isolation levels then read.
 */
final class Transactions {
    static Object run(JsonNode in) throws Exception {
        String topic = in.get("topic").asText();
        String group = topic + "-group";
        Map<String, Object> out = new TreeMap<>();
        Object[] settings = {
            "transactional.id", topic + "-id", "compression.type", Cases.text(in, "codec", "none")
        };
        try (var producer = Records.producer(in, settings)) {
            producer.initTransactions();
            producer.beginTransaction();
            send(producer, topic, 0);
            producer.sendOffsetsToTransaction(
                    Map.of(
                            new TopicPartition(topic, 0),
                            new OffsetAndMetadata(4, "in a transaction")),
                    new ConsumerGroupMetadata(group));
            producer.commitTransaction();
            producer.beginTransaction();
            send(producer, topic, 100);
            producer.flush();
            producer.abortTransaction();
            producer.beginTransaction();
            send(producer, topic, 200);
            producer.commitTransaction();
            try (var later = Records.producer(in, settings)) {
                later.initTransactions();
                out.put("fenced", fenced(producer, topic));
                later.beginTransaction();
                send(later, topic, 300);
                later.commitTransaction();
            }
        }
        for (String isolation : new String[] {"read_committed", "read_uncommitted"}) {
            try (var consumer =
                    Records.consumer(
                            in,
                            "group.id",
                            group,
                            "isolation.level",
                            isolation,
                            "enable.auto.commit",
                            "false")) {
                out.put(isolation, Records.digests(consumer, topic, 0));
                out.put(
                        "committed",
                        String.valueOf(
                                consumer.committed(Set.of(new TopicPartition(topic, 0)))
                                        .get(new TopicPartition(topic, 0))
                                        .offset()));
            }
        }
        return out;
    }

    private static void send(KafkaProducer<byte[], byte[]> producer, String topic, int first) {
        for (int i = first; i < first + 20; i++) {
            producer.send(Records.record(topic, 2, i, 100));
        }
    }

    /** The older producer of the same id goes on, and must be refused. */
    private static String fenced(KafkaProducer<byte[], byte[]> producer, String topic) {
        try {
            producer.beginTransaction();
            producer.send(Records.record(topic, 2, 999, 100)).get();
            producer.commitTransaction();
            return "not fenced";
        } catch (Exception error) {
            return Cases.describe(error).replaceAll(":.*", "");
        }
    }
}
