import com.fasterxml.jackson.databind.JsonNode;

import org.apache.kafka.clients.admin.Admin;
import org.apache.kafka.clients.admin.AlterConfigOp;
import org.apache.kafka.clients.admin.ConfigEntry;
import org.apache.kafka.clients.producer.KafkaProducer;
import org.apache.kafka.clients.producer.ProducerConfig;
import org.apache.kafka.clients.producer.ProducerRecord;
import org.apache.kafka.common.config.ConfigResource;

import java.nio.charset.StandardCharsets;
import java.util.ArrayList;
import java.util.List;
import java.util.Map;
import java.util.Properties;
import java.util.TreeMap;
import java.util.concurrent.ConcurrentHashMap;
import java.util.concurrent.ConcurrentSkipListSet;
import java.util.concurrent.atomic.AtomicLong;

/**
 * A producer with Java's default settings, idempotent therefore, that writes keyed records of
 * several regions. It remembers which of its records failed; all others were acknowledged.
 */
final class Keyed {
    private static final Map<String, Keyed> RUNNING = new ConcurrentHashMap<>();

    private final JsonNode in;
    private final String name;
    private final List<String> regions = new ArrayList<>();
    private final Thread thread;
    private final ConcurrentSkipListSet<Long> failed = new ConcurrentSkipListSet<>();
    private final Map<String, Long> errors = new ConcurrentHashMap<>();
    private final AtomicLong acked = new AtomicLong();
    private volatile long sent;
    private volatile long retries;
    private volatile boolean stopped;

    private Keyed(JsonNode in) {
        this.in = in;
        name = in.get("name").asText();
        in.get("regions").forEach(region -> regions.add(region.asText()));
        thread = new Thread(this::run, name);
        thread.setDaemon(true);
        thread.start();
    }

    static Object start(JsonNode in) {
        RUNNING.put(in.get("name").asText(), new Keyed(in));
        return Map.of();
    }

    /** How many records were acknowledged so far. */
    static Object acked(JsonNode in) {
        return RUNNING.get(in.get("name").asText()).acked.get();
    }

    /** Ends it: what is in flight is waited for. */
    static Object stop(JsonNode in) throws Exception {
        Keyed load = RUNNING.remove(in.get("name").asText());
        load.stopped = true;
        load.thread.join(200_000);
        if (load.thread.isAlive()) {
            throw new IllegalStateException(load.name + " does not end");
        }
        Map<String, Object> out = new TreeMap<>();
        out.put("sent", load.sent);
        out.put("failed", load.failed);
        out.put("errors", load.errors);
        out.put("retries", load.retries);
        return out;
    }

    private void run() {
        Properties properties = Cases.properties(in);
        var bytes = "org.apache.kafka.common.serialization.ByteArraySerializer";
        properties.put(ProducerConfig.KEY_SERIALIZER_CLASS_CONFIG, bytes);
        properties.put(ProducerConfig.VALUE_SERIALIZER_CLASS_CONFIG, bytes);
        String topic = in.get("topic").asText();
        try (var producer = new KafkaProducer<byte[], byte[]>(properties)) {
            for (long n = 0; !stopped; n++) {
                long number = n;
                sent = n + 1;
                producer.send(
                        record(topic, n),
                        (metadata, error) -> {
                            if (error == null) {
                                acked.incrementAndGet();
                            } else {
                                failed.add(number);
                                errors.merge(Cases.describe(error), 1L, Long::sum);
                            }
                        });
                if (n % Cases.number(in, "burst", 10) == 0) {
                    Thread.sleep(Cases.number(in, "pause_ms", 40));
                }
            }
            producer.flush();
            retries =
                    producer.metrics().entrySet().stream()
                            .filter(metric -> metric.getKey().name().equals("record-retry-total"))
                            .filter(metric -> metric.getKey().group().equals("producer-metrics"))
                            .mapToLong(m -> ((Number) m.getValue().metricValue()).longValue())
                            .sum();
        } catch (Exception error) {
            error.printStackTrace();
            errors.merge("ended: " + Cases.describe(error), 1L, Long::sum);
        }
    }

    /** Keys take turns; the region changes once each key had its turn. */
    private ProducerRecord<byte[], byte[]> record(String topic, long n) {
        int keys = in.get("keys").asInt();
        String region = regions.get((int) (n / keys % regions.size()));
        byte[] key = (name + "-key-" + n % keys).getBytes(StandardCharsets.UTF_8);
        byte[] value = (name + " " + n).getBytes(StandardCharsets.UTF_8);
        var record = new ProducerRecord<byte[], byte[]>(topic, key, value);
        record.headers().add("region", region.getBytes(StandardCharsets.UTF_8));
        return record;
    }

    /** Sets a configuration of all brokers. */
    static Object clusterConfig(JsonNode in) throws Exception {
        var entry = new ConfigEntry(in.get("name").asText(), in.get("value").asText());
        var set = new AlterConfigOp(entry, AlterConfigOp.OpType.SET);
        var brokers = new ConfigResource(ConfigResource.Type.BROKER, "");
        try (Admin admin = Admin.create(Cases.properties(in))) {
            admin.incrementalAlterConfigs(Map.of(brokers, List.of(set))).all().get();
        }
        return Map.of();
    }
}
