import com.fasterxml.jackson.databind.JsonNode;

import org.apache.kafka.clients.consumer.CommitFailedException;
import org.apache.kafka.clients.consumer.ConsumerRecord;
import org.apache.kafka.clients.consumer.KafkaConsumer;
import org.apache.kafka.common.TopicPartition;
import org.apache.kafka.common.errors.RebalanceInProgressException;

import java.time.Duration;
import java.util.ArrayList;
import java.util.HashMap;
import java.util.HashSet;
import java.util.List;
import java.util.Map;
import java.util.Set;
import java.util.TreeMap;
import java.util.concurrent.ConcurrentHashMap;
import java.util.function.BooleanSupplier;

/**
 * A group of two: both get partitions, together they read everything once, one leaves after its
 * commit, the other takes over and reads on. Works for either group protocol.
 */
final class Groups {
    private static final int PARTITIONS = 4;
    private static final int COUNT = 200;

    /** One consumer polled by its own thread until told to leave. */
    private static final class Member extends Thread {
        final KafkaConsumer<byte[], byte[]> consumer;
        final Set<TopicPartition> assigned = ConcurrentHashMap.newKeySet();
        final List<String> seen = new ArrayList<>();
        volatile boolean leave;
        volatile String failure;

        Member(JsonNode in, String topic, Object... more) {
            consumer = Records.consumer(in, more);
            consumer.subscribe(List.of(topic));
            setDaemon(true);
            start();
        }

        @Override
        public void run() {
            try (consumer) {
                while (!leave) {
                    for (ConsumerRecord<byte[], byte[]> record :
                            consumer.poll(Duration.ofMillis(100))) {
                        synchronized (seen) {
                            seen.add(record.partition() + "@" + record.offset());
                        }
                    }
                    Set<TopicPartition> now = consumer.assignment();
                    assigned.retainAll(now);
                    assigned.addAll(now);
                    commit();
                }
                while (!commit()) {
                    consumer.poll(Duration.ofMillis(100));
                }
            } catch (Exception error) {
                error.printStackTrace();
                failure = Cases.describe(error);
            }
        }

        /**
         * A commit that a rebalance overtook is tried again after the next poll, as applications
         * do.
         */
        private boolean commit() {
            try {
                consumer.commitSync();
                return true;
            } catch (CommitFailedException | RebalanceInProgressException overtaken) {
                return false;
            }
        }

        int seen() {
            synchronized (seen) {
                return seen.size();
            }
        }
    }

    static Object run(JsonNode in) throws Exception {
        String topic = in.get("topic").asText();
        String group = topic + "-group";
        Object[] settings = {
            "group.id",
            group,
            "group.protocol",
            in.get("protocol").asText(),
            "auto.offset.reset",
            "earliest",
            "enable.auto.commit",
            "false"
        };
        Map<String, Object> out = new TreeMap<>();
        produce(in, topic);
        Member first = new Member(in, topic, settings);
        until(
                "the first member has all partitions",
                first,
                () -> first.assigned.size() == PARTITIONS);
        Member second = new Member(in, topic, settings);
        until(
                "both have a share",
                first,
                () -> first.assigned.size() == 2 && second.assigned.size() == 2);
        out.put("shares", List.of(first.assigned.size(), second.assigned.size()));
        until("everything was read", first, () -> first.seen() + second.seen() >= COUNT);
        second.leave = true;
        second.join(30_000);
        until("the first took over", first, () -> first.assigned.size() == PARTITIONS);
        produce(in, topic);
        until("the rest was read", first, () -> first.seen() + second.seen() >= 2 * COUNT);
        first.leave = true;
        first.join(30_000);
        Map<String, Integer> times = new HashMap<>();
        first.seen.forEach(seen -> times.merge(seen, 1, Integer::sum));
        second.seen.forEach(seen -> times.merge(seen, 1, Integer::sum));
        out.put("distinct", times.size());
        out.put("failures", String.valueOf(first.failure) + " " + second.failure);
        try (var consumer = Records.consumer(in, settings)) {
            Set<TopicPartition> all = new HashSet<>();
            for (int partition = 0; partition < PARTITIONS; partition++) {
                all.add(new TopicPartition(topic, partition));
            }
            Map<String, Long> committed = new TreeMap<>();
            consumer.committed(all)
                    .forEach(
                            (partition, offset) ->
                                    committed.put(
                                            "partition " + partition.partition(),
                                            offset == null ? -1 : offset.offset()));
            out.put("committed", committed);
        }
        return out;
    }

    private static void produce(JsonNode in, String topic) throws Exception {
        try (var producer = Records.producer(in)) {
            for (int i = 0; i < COUNT; i++) {
                producer.send(Records.record(topic, PARTITIONS, i, 50));
            }
        }
    }

    private static void until(String what, Member member, BooleanSupplier reached)
            throws Exception {
        long end = System.nanoTime() + Duration.ofSeconds(60).toNanos();
        while (!reached.getAsBoolean()) {
            if (System.nanoTime() > end) {
                throw new IllegalStateException(
                        "not reached in 60 s: " + what + ", failure " + member.failure);
            }
            Thread.sleep(20);
        }
    }
}
