import com.fasterxml.jackson.databind.JsonNode;

import org.apache.kafka.clients.consumer.ConsumerRecord;

import java.nio.charset.StandardCharsets;
import java.time.Duration;
import java.util.ArrayList;
import java.util.List;

/** A member that is alone in its group: reads so many records, commits, leaves. */
final class Readers {
    static Object run(JsonNode in) throws Exception {
        int count = Cases.number(in, "count", 1);
        List<String> values = new ArrayList<>();
        long until = System.nanoTime() + Duration.ofSeconds(60).toNanos();
        try (var consumer =
                Records.consumer(
                        in,
                        "group.id",
                        in.get("group").asText(),
                        "group.protocol",
                        in.get("protocol").asText(),
                        "auto.offset.reset",
                        "earliest",
                        "enable.auto.commit",
                        "false",
                        "max.poll.records",
                        "50")) {
            consumer.subscribe(List.of(in.get("topic").asText()));
            while (values.size() < count && System.nanoTime() < until) {
                for (ConsumerRecord<byte[], byte[]> record :
                        consumer.poll(Duration.ofMillis(200))) {
                    values.add(new String(record.value(), StandardCharsets.UTF_8));
                }
            }
            consumer.commitSync();
        }
        return values;
    }
}
