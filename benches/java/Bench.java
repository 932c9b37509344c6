import java.io.BufferedReader;
import java.io.InputStreamReader;
import java.time.Duration;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.Properties;
import java.util.TreeMap;
import java.util.concurrent.ExecutionException;
import java.util.concurrent.TimeUnit;
import java.util.concurrent.atomic.AtomicInteger;
import java.util.concurrent.atomic.AtomicReference;
import java.util.concurrent.locks.LockSupport;
import javax.management.MBeanServerConnection;
import javax.management.ObjectName;
import javax.management.remote.JMXConnector;
import javax.management.remote.JMXConnectorFactory;
import javax.management.remote.JMXServiceURL;
import org.apache.kafka.clients.admin.Admin;
import org.apache.kafka.clients.admin.NewTopic;
import org.apache.kafka.clients.admin.OffsetSpec;
import org.apache.kafka.clients.consumer.ConsumerRecord;
import org.apache.kafka.clients.consumer.KafkaConsumer;
import org.apache.kafka.clients.producer.KafkaProducer;
import org.apache.kafka.clients.producer.ProducerRecord;
import org.apache.kafka.common.Metric;
import org.apache.kafka.common.MetricName;
import org.apache.kafka.common.TopicPartition;
import org.apache.kafka.common.errors.RetriableException;
import org.apache.kafka.common.serialization.ByteArrayDeserializer;
import org.apache.kafka.common.serialization.ByteArraySerializer;
import org.apache.kafka.common.utils.AppInfoParser;

/**
 * The Java driver: one warm JVM that obeys commands on standard input and answers each with one
 * line of JSON, so that the modes of a bench take turns in the same JVM.
 *
 * <p>Start: java -cp 'JARS/*' Bench.java. Commands, words separated by blanks:
 *
 * <pre>
 * topic   BOOTSTRAP NAME PARTITIONS [KEY=VALUE ...]
 * delete  BOOTSTRAP NAME
 * produce BOOTSTRAP TOPIC RECORDS SIZE ACKS CODEC RATE [KEY=VALUE ...]   RATE in records/s, 0: no limit
 *         KEY: a setting of the producer, or `values=located` (one object with a place in its middle),
 *         or `partitions=FIRST-END` (in turn, in place of the client's choice)
 * consume BOOTSTRAP TOPIC PARTITIONS RECORDS               from the beginning
 * end2end BOOTSTRAP TOPIC RECORDS SIZE RATE                one partition, acks=1
 * counts  JMX_PORT                                 requests by version, bytes by listener
 * version
 * </pre>
 */
public final class Bench {
    private static final int VALUES = 512;
    private static final int VALUES_BYTES = 64_000_000;
    private static final Duration POLL = Duration.ofMillis(100);
    private static final long STUCK_NS = 120_000_000_000L;

    public static void main(String[] args) throws Exception {
        BufferedReader commands = new BufferedReader(new InputStreamReader(System.in));
        for (String line = commands.readLine(); line != null; line = commands.readLine()) {
            Map<String, Object> answer;
            try {
                answer = obey(line.trim().split(" +"));
            } catch (Exception error) {
                answer = new TreeMap<>(Map.of("error", String.valueOf(error)));
            }
            System.out.println(json(answer));
            System.out.flush();
        }
    }

    private static Map<String, Object> obey(String[] words) throws Exception {
        switch (words[0]) {
            case "topic":
                return topic(words);
            case "delete":
                return delete(words[1], words[2]);
            case "produce":
                return produce(words[1], words[2], Integer.parseInt(words[3]),
                        Integer.parseInt(words[4]), words[5], words[6], Integer.parseInt(words[7]),
                        settings(words, 8));
            case "consume":
                return consume(words[1], words[2], Integer.parseInt(words[3]),
                        Long.parseLong(words[4]));
            case "end2end":
                return endToEnd(words[1], words[2], Integer.parseInt(words[3]),
                        Integer.parseInt(words[4]), Integer.parseInt(words[5]));
            case "counts":
                return counts(Integer.parseInt(words[1]));
            case "version":
                return new TreeMap<>(Map.of("client", AppInfoParser.getVersion(),
                        "java", System.getProperty("java.version")));
            default:
                throw new IllegalArgumentException("no command '" + words[0] + "'");
        }
    }

    private static Map<String, Object> topic(String[] words) throws Exception {
        Map<String, String> configs = settings(words, 4);
        NewTopic topic = new NewTopic(words[2], Integer.parseInt(words[3]), (short) 1);
        try (Admin admin = Admin.create(config(words[1]))) {
            admin.createTopics(List.of(topic.configs(configs))).all().get();
            // A broker answers this once it leads them: it refuses writes before, out of order
            // where several are on their way.
            Map<TopicPartition, OffsetSpec> ends = new HashMap<>();
            for (int p = 0; p < topic.numPartitions(); p++) {
                ends.put(new TopicPartition(words[2], p), OffsetSpec.latest());
            }
            awaitEnds(admin, ends);
        }
        return new TreeMap<>(Map.of("topic", words[2]));
    }

    /** Asks until every broker that is asked knows the topic. */
    private static void awaitEnds(Admin admin, Map<TopicPartition, OffsetSpec> ends)
            throws Exception {
        long until = System.nanoTime() + TimeUnit.SECONDS.toNanos(30);
        while (true) {
            try {
                admin.listOffsets(ends).all().get();
                return;
            } catch (ExecutionException error) {
                boolean late = System.nanoTime() > until;
                if (late || !(error.getCause() instanceof RetriableException)) {
                    throw error;
                }
                Thread.sleep(50);
            }
        }
    }

    /** KEY=VALUE words from one on. */
    private static Map<String, String> settings(String[] words, int from) {
        Map<String, String> settings = new HashMap<>();
        for (String pair : Arrays.copyOfRange(words, from, words.length)) {
            String[] setting = pair.split("=", 2);
            settings.put(setting[0], setting[1]);
        }
        return settings;
    }

    private static Map<String, Object> delete(String bootstrap, String topic) throws Exception {
        try (Admin admin = Admin.create(config(bootstrap))) {
            admin.deleteTopics(List.of(topic)).all().get();
        }
        return new TreeMap<>(Map.of("topic", topic));
    }

    private static Map<String, Object> produce(String bootstrap, String topic, int records,
            int size, String acks, String codec, int rate, Map<String, String> settings)
            throws Exception {
        byte[][] values = settings.containsKey("values") ? located(size) : values(size);
        settings.remove("values");
        String[] range = settings.getOrDefault("partitions", "0-0").split("-");
        settings.remove("partitions");
        int first = Integer.parseInt(range[0]);
        int partitions = Integer.parseInt(range[1]) - first;
        long[] acked = new long[records];
        AtomicInteger count = new AtomicInteger();
        AtomicReference<Exception> failure = new AtomicReference<>();
        try (KafkaProducer<byte[], byte[]> producer =
                producer(bootstrap, acks, codec, "5", settings)) {
            producer.partitionsFor(topic);
            long start = System.nanoTime();
            for (int i = 0; i < records; i++) {
                long due = rate == 0 ? System.nanoTime() : start + i * 1_000_000_000L / rate;
                if (rate != 0) {
                    waitUntil(due);
                }
                int number = i;
                byte[] value = values[i % values.length];
                Integer partition = partitions == 0 ? null : Integer.valueOf(first + i % partitions);
                producer.send(new ProducerRecord<>(topic, partition, null, value), (where, error) -> {
                    acked[number] = System.nanoTime() - due;
                    count.incrementAndGet();
                    if (error != null) {
                        failure.compareAndSet(null, error);
                    }
                });
            }
            producer.flush();
            double seconds = (System.nanoTime() - start) / 1e9;
            if (failure.get() != null) {
                throw failure.get();
            }
            if (count.get() != records) {
                throw new IllegalStateException(count.get() + " of " + records + " acknowledged");
            }
            Map<String, Object> answer = traffic(producer.metrics(), "producer-metrics");
            answer.put("records", records);
            answer.put("bytes", (long) records * size);
            answer.put("seconds", seconds);
            latencies(answer, "ack", acked);
            return answer;
        }
    }

    private static Map<String, Object> consume(String bootstrap, String topic, int partitions,
            long records) {
        try (KafkaConsumer<byte[], byte[]> consumer = consumer(bootstrap)) {
            List<TopicPartition> all = assign(consumer, topic, partitions);
            consumer.seekToBeginning(all);
            long start = System.nanoTime();
            long seen = 0;
            long bytes = 0;
            while (seen < records) {
                if (System.nanoTime() - start > STUCK_NS) {
                    throw new IllegalStateException(seen + " of " + records + " read");
                }
                for (ConsumerRecord<byte[], byte[]> record : consumer.poll(POLL)) {
                    seen++;
                    bytes += record.value().length;
                }
            }
            double seconds = (System.nanoTime() - start) / 1e9;
            Map<String, Object> answer = traffic(consumer.metrics(), "consumer-metrics");
            answer.put("records", seen);
            answer.put("bytes", bytes);
            answer.put("seconds", seconds);
            return answer;
        }
    }

    /** Every record carries its due time; the same JVM reads it back. */
    private static Map<String, Object> endToEnd(String bootstrap, String topic, int records,
            int size, int rate) throws Exception {
        long[] acked = new long[records];
        long[] read = new long[records];
        AtomicInteger acknowledged = new AtomicInteger();
        AtomicReference<Exception> failure = new AtomicReference<>();
        Map<String, Object> answer = new TreeMap<>();
        Thread reader;
        try (KafkaConsumer<byte[], byte[]> consumer = consumer(bootstrap);
                KafkaProducer<byte[], byte[]> producer = producer(bootstrap, "1", "none", "0", Map.of())) {
            producer.partitionsFor(topic);
            consumer.seekToEnd(assign(consumer, topic, 1));
            consumer.position(new TopicPartition(topic, 0));
            reader = new Thread(() -> {
                try {
                    readBack(consumer, read);
                } catch (RuntimeException error) {
                    failure.compareAndSet(null, error);
                }
            });
            reader.start();
            long start = System.nanoTime() + 50_000_000L;
            for (int i = 0; i < records; i++) {
                long due = start + i * 1_000_000_000L / rate;
                byte[] value = new byte[size];
                java.nio.ByteBuffer.wrap(value).putInt(i).putLong(due);
                waitUntil(due);
                int number = i;
                producer.send(new ProducerRecord<>(topic, 0, null, value), (where, error) -> {
                    acked[number] = System.nanoTime() - due;
                    acknowledged.incrementAndGet();
                    if (error != null) {
                        failure.compareAndSet(null, error);
                    }
                });
            }
            producer.flush();
            reader.join();
            if (failure.get() != null) {
                throw failure.get();
            }
            answer.putAll(traffic(producer.metrics(), "producer-metrics"));
            Map<String, Object> reading = traffic(consumer.metrics(), "consumer-metrics");
            reading.forEach((key, value) ->
                    answer.merge(key, value, (a, b) -> (long) a + (long) b));
        }
        answer.put("records", acknowledged.get());
        latencies(answer, "ack", acked);
        latencies(answer, "end", read);
        return answer;
    }

    private static void readBack(KafkaConsumer<byte[], byte[]> consumer, long[] read) {
        long start = System.nanoTime();
        for (int seen = 0; seen < read.length;) {
            for (ConsumerRecord<byte[], byte[]> record : consumer.poll(POLL)) {
                java.nio.ByteBuffer value = java.nio.ByteBuffer.wrap(record.value());
                read[value.getInt()] = System.nanoTime() - value.getLong();
                seen++;
            }
            if (System.nanoTime() - start > STUCK_NS) {
                throw new IllegalStateException(seen + " of " + read.length + " read back");
            }
        }
    }

    /** What the broker itself counted since it started. */
    private static Map<String, Object> counts(int port) throws Exception {
        String url = "service:jmx:rmi:///jndi/rmi://127.0.0.1:" + port + "/jmxrmi";
        Map<String, Object> requests = new TreeMap<>();
        Map<String, Object> listeners = new TreeMap<>();
        try (JMXConnector connector = JMXConnectorFactory.connect(new JMXServiceURL(url))) {
            MBeanServerConnection broker = connector.getMBeanServerConnection();
            ObjectName all =
                    new ObjectName("kafka.network:type=RequestMetrics,name=RequestsPerSec,*");
            for (ObjectName name : broker.queryNames(all, null)) {
                String key = name.getKeyProperty("request") + " " + name.getKeyProperty("version");
                requests.put(key, broker.getAttribute(name, "Count"));
            }
            ObjectName sockets = new ObjectName("kafka.server:type=socket-server-metrics,*");
            for (ObjectName name : broker.queryNames(sockets, null)) {
                if (name.getKeyProperty("listener") == null
                        || name.getKeyProperty("networkProcessor") == null
                        || name.getKeyProperty("clientSoftwareName") != null) {
                    continue;
                }
                for (String direction : List.of("incoming", "outgoing")) {
                    double bytes = (double) broker.getAttribute(name, direction + "-byte-total");
                    listeners.merge(name.getKeyProperty("listener") + " " + direction,
                            (long) bytes, (a, b) -> (long) a + (long) b);
                }
            }
        }
        return new TreeMap<>(Map.of("requests", requests, "listeners", listeners));
    }

    private static Properties config(String bootstrap) {
        Properties config = new Properties();
        config.put("bootstrap.servers", bootstrap);
        return config;
    }

    private static KafkaProducer<byte[], byte[]> producer(String bootstrap, String acks,
            String codec, String lingerMs, Map<String, String> settings) {
        Properties config = config(bootstrap);
        config.put("acks", acks);
        config.put("compression.type", codec);
        config.put("linger.ms", lingerMs);
        config.put("batch.size", "131072");
        config.put("buffer.memory", "67108864");
        config.putAll(settings);
        ByteArraySerializer bytes = new ByteArraySerializer();
        return new KafkaProducer<>(config, bytes, bytes);
    }

    private static KafkaConsumer<byte[], byte[]> consumer(String bootstrap) {
        Properties config = config(bootstrap);
        config.put("enable.auto.commit", "false");
        config.put("max.poll.records", "5000");
        ByteArrayDeserializer bytes = new ByteArrayDeserializer();
        return new KafkaConsumer<>(config, bytes, bytes);
    }

    private static List<TopicPartition> assign(KafkaConsumer<byte[], byte[]> consumer,
            String topic, int partitions) {
        List<TopicPartition> all = new ArrayList<>();
        for (int partition = 0; partition < partitions; partition++) {
            all.add(new TopicPartition(topic, partition));
        }
        consumer.assign(all);
        return all;
    }

    private static void waitUntil(long due) {
        for (long left = due - System.nanoTime(); left > 0; left = due - System.nanoTime()) {
            LockSupport.parkNanos(left);
        }
    }

    /** JSON records of stations, so that a codec finds what it would find in practice. */
    private static byte[][] values(int size) {
        java.util.Random random = new java.util.Random(42);
        byte[][] values = new byte[Math.max(1, Math.min(VALUES, VALUES_BYTES / size))][];
        for (int i = 0; i < values.length; i++) {
            StringBuilder text = new StringBuilder();
            while (text.length() < size) {
                text.append("{\"station\":\"st-").append(random.nextInt(10_000))
                        .append("\",\"latitude\":").append(random.nextInt(90_000) / 1000.0)
                        .append(",\"longitude\":").append(random.nextInt(180_000) / 1000.0)
                        .append(",\"kelvin\":").append(random.nextInt(60_000) / 100.0)
                        .append("}");
            }
            values[i] = Arrays.copyOf(text.toString().getBytes(), size);
        }
        return values;
    }

    /** One JSON object each, with a place in California in its middle. */
    private static byte[][] located(int size) {
        java.util.Random random = new java.util.Random(42);
        byte[][] values = new byte[Math.max(1, Math.min(VALUES, VALUES_BYTES / size))][];
        for (int i = 0; i < values.length; i++) {
            String place = String.format(java.util.Locale.ROOT,
                    "\"latitude\":%.4f,\"longitude\":%.4f", 32.6 + random.nextDouble() * 9,
                    -124 + random.nextDouble() * 9);
            String head = "{\"station\":\"st-" + random.nextInt(10_000) + "\",\"before\":\"";
            int filler = size - head.length() - place.length() - 16;
            values[i] = (head + letters(random, filler / 2) + "\"," + place + ",\"after\":\""
                    + letters(random, filler - filler / 2) + "\"}").getBytes();
        }
        return values;
    }

    private static String letters(java.util.Random random, int length) {
        return random.ints(Math.max(length, 0), 'a', 'z').collect(StringBuilder::new,
                StringBuilder::appendCodePoint, StringBuilder::append).toString();
    }

    private static Map<String, Object> traffic(Map<MetricName, ? extends Metric> metrics,
            String group) {
        Map<String, Object> answer = new TreeMap<>();
        metrics.forEach((name, metric) -> {
            if (name.group().equals(group) && name.name().equals("outgoing-byte-total")) {
                answer.put("bytes_sent", (long) (double) metric.metricValue());
            }
            if (name.group().equals(group) && name.name().equals("incoming-byte-total")) {
                answer.put("bytes_received", (long) (double) metric.metricValue());
            }
        });
        return answer;
    }

    private static void latencies(Map<String, Object> answer, String what, long[] nanos) {
        long[] sorted = nanos.clone();
        Arrays.sort(sorted);
        answer.put(what + "_p50_us", sorted[sorted.length / 2] / 1000.0);
        answer.put(what + "_p99_us", sorted[(int) (sorted.length * 0.99)] / 1000.0);
    }

    private static String json(Map<?, ?> map) {
        StringBuilder out = new StringBuilder("{");
        map.forEach((key, value) -> {
            out.append(out.length() > 1 ? "," : "").append(quote(String.valueOf(key))).append(':');
            if (value instanceof Map<?, ?> inner) {
                out.append(json(inner));
            } else if (value instanceof Number) {
                out.append(value);
            } else {
                out.append(quote(String.valueOf(value)));
            }
        });
        return out.append('}').toString();
    }

    private static String quote(String text) {
        StringBuilder out = new StringBuilder("\"");
        for (char letter : text.toCharArray()) {
            if (letter == '"' || letter == '\\') {
                out.append('\\').append(letter);
            } else {
                out.append(letter < ' ' ? ' ' : letter);
            }
        }
        return out.append('"').toString();
    }
}
