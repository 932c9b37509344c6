import java.util.Collections;
import java.util.Properties;
import java.util.concurrent.Future;
import org.apache.kafka.clients.consumer.KafkaConsumer;
import org.apache.kafka.clients.producer.KafkaProducer;
import org.apache.kafka.clients.producer.ProducerRecord;
import org.apache.kafka.common.serialization.ByteArrayDeserializer;
import org.apache.kafka.common.serialization.ByteArraySerializer;

/** A client of 2017: Produce v2 and Fetch v3 with message sets of magic 1. The topic exists. */
public final class Old {
    private Old() {}

    public static void main(String[] args) throws Exception {
        String topic = args[1] + "-old";
        for (String codec : new String[] {"none", "gzip", "snappy", "lz4"}) {
            Properties settings = Steps.settings(args[0], "compression.type", codec,
                    "linger.ms", 50);
            KafkaProducer<byte[], byte[]> producer = new KafkaProducer<>(settings,
                    new ByteArraySerializer(), new ByteArraySerializer());
            for (int count : new int[] {1, 8}) {
                Future<?> last = null;
                for (int i = 0; i < count; i++) {
                    last = producer.send(new ProducerRecord<>(topic, ("key-" + i).getBytes(),
                            ("value " + i).getBytes()));
                }
                last.get();
            }
            producer.close();
        }
        KafkaConsumer<byte[], byte[]> consumer = new KafkaConsumer<>(
                Steps.settings(args[0], "group.id", args[1] + "-old", "auto.offset.reset",
                        "earliest", "max.partition.fetch.bytes", 2000),
                new ByteArrayDeserializer(), new ByteArrayDeserializer());
        consumer.subscribe(Collections.singletonList(topic));
        int have = 0;
        for (int i = 0; i < 40 && have < 20; i++) {
            have += consumer.poll(250).count();
        }
        consumer.commitSync();
        consumer.close();
        System.out.println("done old " + have);
    }
}
