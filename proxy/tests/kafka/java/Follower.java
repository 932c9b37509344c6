import com.fasterxml.jackson.databind.JsonNode;

import org.apache.kafka.clients.admin.Admin;
import org.apache.kafka.clients.consumer.ConsumerRecord;
import org.apache.kafka.clients.consumer.OffsetAndMetadata;
import org.apache.kafka.common.TopicPartition;

import java.nio.charset.StandardCharsets;
import java.time.Duration;
import java.util.ArrayList;
import java.util.Collections;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.TreeMap;
import java.util.concurrent.ConcurrentHashMap;

/** A member of a group that reads on and on; a reset of its position is an error. */
final class Follower {
    private static final Map<String, Follower> RUNNING = new ConcurrentHashMap<>();
    private static final long LEFTOVER_MAX_MS = 120_000;

    private final JsonNode in;
    private final Thread thread;
    private final List<String> lines = Collections.synchronizedList(new ArrayList<>());
    private final Map<String, Long> errors = new ConcurrentHashMap<>();
    private volatile long wanted = Long.MAX_VALUE;

    private Follower(JsonNode in) {
        this.in = in;
        thread = new Thread(this::run, in.get("group").asText());
        thread.setDaemon(true);
        thread.start();
    }

    static Object start(JsonNode in) {
        RUNNING.put(in.get("group").asText(), new Follower(in));
        return Map.of();
    }

    /** Ends it once it has read so many records; gives what it read, and its errors. */
    static Object stop(JsonNode in) throws Exception {
        Follower follower = RUNNING.remove(in.get("group").asText());
        follower.wanted = in.get("count").asLong();
        follower.thread.join(LEFTOVER_MAX_MS);
        if (follower.thread.isAlive()) {
            follower.wanted = 0;
            follower.thread.join(LEFTOVER_MAX_MS);
        }
        Map<String, Object> errors = new TreeMap<>(follower.errors);
        return Map.of("lines", List.copyOf(follower.lines), "errors", errors);
    }

    private void run() {
        String group = in.get("group").asText();
        try (var consumer =
                Records.consumer(in, "group.id", group, "auto.offset.reset", "none")) {
            consumer.subscribe(List.of(in.get("topic").asText()));
            while (lines.size() < wanted) {
                var records = consumer.poll(Duration.ofMillis(200));
                for (ConsumerRecord<byte[], byte[]> record : records) {
                    lines.add(line(record));
                }
            }
            consumer.commitSync();
        } catch (Exception error) {
            error.printStackTrace();
            errors.merge(Cases.describe(error), 1L, Long::sum);
        }
    }

    private static String line(ConsumerRecord<byte[], byte[]> record) {
        String key = new String(record.key(), StandardCharsets.UTF_8);
        String value = new String(record.value(), StandardCharsets.UTF_8);
        return record.partition() + " " + record.offset() + " " + key + " " + value;
    }

    /** Commits offset 0 of all partitions for groups without members. */
    static Object commitStart(JsonNode in) throws Exception {
        Map<TopicPartition, OffsetAndMetadata> start = new HashMap<>();
        for (int partition = 0; partition < in.get("partitions").asInt(); partition++) {
            start.put(
                    new TopicPartition(in.get("topic").asText(), partition),
                    new OffsetAndMetadata(0));
        }
        try (Admin admin = Admin.create(Cases.properties(in))) {
            for (JsonNode group : in.get("groups")) {
                admin.alterConsumerGroupOffsets(group.asText(), start).all().get();
            }
        }
        return Map.of();
    }
}
