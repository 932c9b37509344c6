import java.time.Duration;
import java.util.List;
import org.apache.kafka.clients.admin.Admin;
import org.apache.kafka.common.serialization.Serdes;
import org.apache.kafka.streams.KafkaStreams;
import org.apache.kafka.streams.StreamsBuilder;
import org.apache.kafka.streams.kstream.Materialized;
import org.apache.kafka.streams.state.Stores;

/** A Kafka Streams application whose tasks the broker assigns (KIP-1071). */
public final class Streams {
    private Streams() {}

    public static void main(String[] args) throws Exception {
        String group = args[1] + "-streams";
        StreamsBuilder builder = new StreamsBuilder();
        builder.<byte[], byte[]>stream(args[1] + "-codec").groupByKey().count(
                Materialized.<byte[], Long>as(Stores.inMemoryKeyValueStore("counts"))
                        .withKeySerde(Serdes.ByteArray()).withValueSerde(Serdes.Long()));
        var settings = Steps.settings(args[0], "application.id", group,
                "group.protocol", "streams", "application.server", "127.0.0.1:7",
                "state.dir", args[7], "commit.interval.ms", 500,
                "default.key.serde", Serdes.ByteArraySerde.class.getName(),
                "default.value.serde", Serdes.ByteArraySerde.class.getName());
        try (Admin admin = Admin.create(Steps.settings(args[0]));
                KafkaStreams streams = new KafkaStreams(builder.build(), settings)) {
            streams.start();
            Thread.sleep(8000);
            Steps.step("describeStreamsGroups", () -> admin.describeStreamsGroups(List.of(group))
                    .all().get());
            System.out.println("state " + streams.state());
            streams.close(Duration.ofSeconds(5));
        }
    }
}
