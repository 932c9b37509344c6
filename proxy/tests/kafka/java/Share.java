import com.fasterxml.jackson.databind.JsonNode;

import org.apache.kafka.clients.admin.Admin;
import org.apache.kafka.clients.admin.AlterConfigOp;
import org.apache.kafka.clients.admin.ConfigEntry;
import org.apache.kafka.clients.consumer.AcknowledgeType;
import org.apache.kafka.clients.consumer.ConsumerRecord;
import org.apache.kafka.clients.consumer.KafkaShareConsumer;
import org.apache.kafka.common.config.ConfigResource;
import org.apache.kafka.common.serialization.ByteArrayDeserializer;

import java.nio.charset.StandardCharsets;
import java.time.Duration;
import java.util.Arrays;
import java.util.List;
import java.util.Map;
import java.util.TreeMap;
import java.util.TreeSet;

/**
 * A share group: two members, every record accepted once, one released and one rejected on the way.
 */
final class Share {
    static Object run(JsonNode in) throws Exception {
        String topic = in.get("topic").asText();
        String group = topic + "-share";
        int count = 100;
        int size = Cases.number(in, "size", 100);
        int wrong = 0;
        Map<String, Object> out = new TreeMap<>();
        try (Admin admin = Admin.create(Cases.properties(in))) {
            var earliest =
                    new AlterConfigOp(
                            new ConfigEntry("share.auto.offset.reset", "earliest"),
                            AlterConfigOp.OpType.SET);
            admin.incrementalAlterConfigs(
                            Map.of(
                                    new ConfigResource(ConfigResource.Type.GROUP, group),
                                    List.of(earliest)))
                    .all()
                    .get();
        }
        try (var producer = Records.producer(in)) {
            for (int i = 0; i < count; i++) {
                producer.send(Records.record(topic, 2, i, size));
            }
        }
        TreeSet<String> accepted = new TreeSet<>();
        TreeSet<String> released = new TreeSet<>();
        TreeSet<String> rejected = new TreeSet<>();
        int redelivered = 0;
        try (var one = consumer(in, group);
                var two = consumer(in, group)) {
            one.subscribe(List.of(topic));
            two.subscribe(List.of(topic));
            long end = System.nanoTime() + Duration.ofSeconds(60).toNanos();
            while (accepted.size() + rejected.size() < count && System.nanoTime() < end) {
                for (var consumer : List.of(one, two)) {
                    for (ConsumerRecord<byte[], byte[]> record :
                            consumer.poll(Duration.ofMillis(200))) {
                        String name = record.partition() + "@" + record.offset();
                        byte[] n = record.headers().lastHeader("n").value();
                        int i = Integer.parseInt(new String(n, StandardCharsets.UTF_8));
                        byte[] sent = Records.record(topic, 2, i, size).value();
                        wrong += Arrays.equals(record.value(), sent) ? 0 : 1;
                        if (record.offset() == 5 && released.add(name)) {
                            consumer.acknowledge(record, AcknowledgeType.RELEASE);
                        } else if (record.offset() == 7) {
                            rejected.add(name);
                            consumer.acknowledge(record, AcknowledgeType.REJECT);
                        } else {
                            redelivered += record.deliveryCount().orElse((short) 1) > 1 ? 1 : 0;
                            accepted.add(name);
                            consumer.acknowledge(record, AcknowledgeType.ACCEPT);
                        }
                    }
                    Map<String, String> failures = new TreeMap<>();
                    consumer.commitSync()
                            .forEach(
                                    (partition, failure) ->
                                            failure.ifPresent(
                                                    error ->
                                                            failures.put(
                                                                    "commit",
                                                                    Cases.describe(error))));
                    out.putAll(failures);
                }
            }
        }
        out.put("accepted", accepted.size());
        out.put("released", released.size());
        out.put("wrong values", wrong);
        out.put("rejected", rejected.size());
        out.put("redelivered at least the released", redelivered >= released.size());
        return out;
    }

    private static KafkaShareConsumer<byte[], byte[]> consumer(JsonNode in, String group) {
        return new KafkaShareConsumer<>(
                Cases.properties(in, "group.id", group, "share.acknowledgement.mode", "explicit"),
                new ByteArrayDeserializer(),
                new ByteArrayDeserializer());
    }
}
