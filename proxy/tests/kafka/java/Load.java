import com.fasterxml.jackson.databind.JsonNode;

import org.apache.kafka.clients.consumer.ConsumerRecord;
import org.apache.kafka.clients.producer.KafkaProducer;
import org.apache.kafka.clients.producer.ProducerRecord;
import org.apache.kafka.common.KafkaException;
import org.apache.kafka.common.TopicPartition;
import org.apache.kafka.common.errors.ProducerFencedException;

import java.nio.charset.StandardCharsets;
import java.time.Duration;
import java.util.ArrayList;
import java.util.HashMap;
import java.util.HashSet;
import java.util.List;
import java.util.Map;
import java.util.Set;
import java.util.TreeMap;
import java.util.concurrent.ConcurrentHashMap;
import java.util.concurrent.ConcurrentLinkedQueue;
import java.util.concurrent.atomic.AtomicLong;

/**
 * Producers that go on while something breaks. Each remembers what was acknowledged; at the end the
 * topic is read directly from the brokers, and lost, doubled and reordered records are counted.
 */
final class Load {
    private static final Map<String, Load> RUNNING = new ConcurrentHashMap<>();

    private final JsonNode in;
    private final String topic;
    private final int partitions;
    private final boolean transactional;
    private final List<Thread> producers = new ArrayList<>();
    private final Set<String> acked = ConcurrentHashMap.newKeySet();
    private final Set<String> aborted = ConcurrentHashMap.newKeySet();
    private final ConcurrentLinkedQueue<String> errors = new ConcurrentLinkedQueue<>();
    private final AtomicLong commits = new AtomicLong();
    private final AtomicLong aborts = new AtomicLong();
    private final AtomicLong retries = new AtomicLong();
    private final AtomicLong connections = new AtomicLong();
    private volatile boolean stopped;

    private Load(JsonNode in) {
        this.in = in;
        topic = in.get("topic").asText();
        partitions = in.get("partitions").asInt();
        transactional = in.get("transactional").asBoolean();
        for (int n = 0; n < in.get("producers").asInt(); n++) {
            String name = "p" + n;
            Thread thread =
                    new Thread(
                            () -> {
                                try {
                                    if (transactional) {
                                        transactions(name);
                                    } else {
                                        plain(name);
                                    }
                                } catch (Exception error) {
                                    error.printStackTrace();
                                    errors.add(name + " ended: " + Cases.describe(error));
                                }
                            });
            thread.setDaemon(true);
            thread.start();
            producers.add(thread);
        }
    }

    static Object start(JsonNode in) {
        RUNNING.put(in.get("topic").asText(), new Load(in));
        return Map.of();
    }

    /** How many records were acknowledged so far. */
    static Object acked(JsonNode in) {
        return RUNNING.get(in.get("topic").asText()).acked.size();
    }

    /**
     * Ends the load and counts what became of it, asking the brokers at {@code bootstrap} of this
     * command.
     */
    static Object stop(JsonNode in) throws Exception {
        Load load = RUNNING.remove(in.get("topic").asText());
        load.stopped = true;
        for (Thread producer : load.producers) {
            producer.join(150_000);
            if (producer.isAlive()) {
                load.errors.add("a producer did not end");
            }
        }
        return load.verdict(in);
    }

    private void plain(String name) throws Exception {
        try (var producer = Records.producer(in, "linger.ms", 2)) {
            for (int i = 0; !stopped; i++) {
                String value = name + "-" + i;
                producer.send(
                        record(name, i),
                        (metadata, error) -> {
                            if (error == null) {
                                acked.add(value);
                            } else {
                                errors.add(Cases.describe(error));
                            }
                        });
                pace(i);
            }
            producer.flush();
            retries.addAndGet(counted(producer, "record-retry-total"));
            connections.addAndGet(counted(producer, "connection-creation-total"));
        }
    }

    /** One of a producer's own counts: records sent again, connections made. */
    private static long counted(KafkaProducer<byte[], byte[]> producer, String name) {
        return producer.metrics().entrySet().stream()
                .filter(metric -> metric.getKey().name().equals(name))
                .filter(metric -> metric.getKey().group().equals("producer-metrics"))
                .mapToLong(metric -> ((Number) metric.getValue().metricValue()).longValue())
                .sum();
    }

    /** Five records a transaction; every seventh is aborted on purpose. */
    private void transactions(String name) throws Exception {
        try (var producer =
                Records.producer(
                        in, "transactional.id", topic + name, "transaction.timeout.ms", 60_000)) {
            producer.initTransactions();
            int i = 0;
            for (int n = 0; !stopped; n++) {
                producer.beginTransaction();
                List<String> batch = new ArrayList<>();
                for (int end = i + 5; i < end; i++) {
                    batch.add(name + "-" + i);
                    producer.send(record(name, i));
                }
                try {
                    if (n % 7 == 6) {
                        producer.flush();
                        aborted.addAll(batch);
                        producer.abortTransaction();
                        aborts.incrementAndGet();
                    } else {
                        commit(producer);
                        acked.addAll(batch);
                        commits.incrementAndGet();
                    }
                } catch (ProducerFencedException fenced) {
                    throw fenced;
                } catch (KafkaException error) {
                    aborted.addAll(batch);
                    errors.add(Cases.describe(error));
                    producer.abortTransaction();
                    aborts.incrementAndGet();
                }
                pace(i);
            }
        }
    }

    /** A commit whose answer did not come is asked again, as the client's documentation says. */
    private static void commit(KafkaProducer<byte[], byte[]> producer) {
        for (int attempt = 0; ; attempt++) {
            try {
                producer.commitTransaction();
                return;
            } catch (org.apache.kafka.common.errors.TimeoutException late) {
                if (attempt == 3) {
                    throw late;
                }
            }
        }
    }

    private ProducerRecord<byte[], byte[]> record(String name, int i) {
        byte[] key = (name + "-" + i).getBytes(StandardCharsets.UTF_8);
        return new ProducerRecord<>(
                topic, i % partitions, key, Records.value(i, Cases.number(in, "size", 500)));
    }

    private void pace(int i) throws InterruptedException {
        if (i % 10 == 0) {
            Thread.sleep(Cases.number(in, "pause_ms", 5));
        }
    }

    private Object verdict(JsonNode direct) throws Exception {
        Map<String, Integer> times = new HashMap<>();
        Map<String, Integer> newest = new HashMap<>();
        long reordered = 0;
        try (var consumer = Records.consumer(direct, "isolation.level", "read_committed")) {
            List<TopicPartition> all = new ArrayList<>();
            // Of a virtual topic all partitions hold what was sent to some.
            int there = Cases.number(direct, "partitions", partitions);
            for (int partition = 0; partition < there; partition++) {
                all.add(new TopicPartition(topic, partition));
            }
            consumer.assign(all);
            consumer.seekToBeginning(all);
            Map<TopicPartition, Long> ends = consumer.endOffsets(all);
            while (all.stream()
                    .anyMatch(partition -> consumer.position(partition) < ends.get(partition))) {
                for (ConsumerRecord<byte[], byte[]> record :
                        consumer.poll(Duration.ofMillis(500))) {
                    String key = new String(record.key(), StandardCharsets.UTF_8);
                    int dash = key.indexOf('-');
                    int i = Integer.parseInt(key.substring(dash + 1));
                    times.merge(key, 1, Integer::sum);
                    Integer before =
                            newest.put(key.substring(0, dash) + "/" + record.partition(), i);
                    reordered += before != null && before > i ? 1 : 0;
                }
            }
        }
        Set<String> lost = new HashSet<>(acked);
        lost.removeAll(times.keySet());
        Map<String, Object> out = new TreeMap<>();
        out.put("acked", acked.size());
        out.put("read", times.size());
        out.put("lost", lost.size());
        out.put("doubled", times.values().stream().filter(count -> count > 1).count());
        out.put("reordered", reordered);
        out.put("aborted but read", aborted.stream().filter(times::containsKey).count());
        out.put("commits", commits.get());
        out.put("aborts", aborts.get());
        out.put("retries", retries.get());
        out.put("connections", connections.get());
        out.put(
                "errors",
                new TreeMap<>(
                        errors.stream()
                                .collect(
                                        java.util.stream.Collectors.groupingBy(
                                                error -> error,
                                                java.util.stream.Collectors.counting()))));
        return out;
    }
}
