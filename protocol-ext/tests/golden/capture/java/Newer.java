import java.time.Duration;
import java.util.List;
import java.util.Map;
import java.util.Optional;
import java.util.Set;
import org.apache.kafka.clients.admin.*;
import org.apache.kafka.clients.consumer.AcknowledgeType;
import org.apache.kafka.clients.consumer.KafkaConsumer;
import org.apache.kafka.clients.consumer.KafkaShareConsumer;
import org.apache.kafka.clients.consumer.SubscriptionPattern;
import org.apache.kafka.clients.producer.KafkaProducer;
import org.apache.kafka.clients.producer.ProducerRecord;
import org.apache.kafka.common.TopicPartition;
import org.apache.kafka.common.config.ConfigResource;
import org.apache.kafka.common.serialization.ByteArrayDeserializer;
import org.apache.kafka.common.serialization.ByteArraySerializer;

/** What only clients of Kafka 4.x have: share groups, patterns, the newer Admin calls. */
public final class Newer {
    private final String bootstrap;
    private final String prefix;
    private final Admin admin;

    private Newer(String[] args, Admin admin) {
        bootstrap = args[0];
        prefix = args[1];
        this.admin = admin;
    }

    public static void main(String[] args) {
        try (Admin admin = Admin.create(Steps.settings(args[0]))) {
            Newer newer = new Newer(args, admin);
            Steps.step("pattern", newer::pattern);
            Steps.step("share explicit", () -> newer.share("explicit"));
            Steps.step("share implicit", () -> newer.share("implicit"));
            if (Integer.parseInt(args[2]) > 1) {
                Steps.step("share moved fetch", () -> newer.shareMoved(false));
                Steps.step("share moved acknowledge", () -> newer.shareMoved(true));
            }
            newer.admins();
        }
    }

    private void pattern() {
        try (var consumer = new KafkaConsumer<>(Steps.settings(bootstrap, "group.id",
                prefix + "-pattern", "group.protocol", "consumer", "client.rack", "rack1"),
                new ByteArrayDeserializer(), new ByteArrayDeserializer())) {
            consumer.subscribe(new SubscriptionPattern(prefix + "-c.*"));
            for (int i = 0; i < 10; i++) {
                consumer.poll(Duration.ofMillis(200));
            }
        }
    }

    private KafkaShareConsumer<byte[], byte[]> shareConsumer(String mode) {
        return new KafkaShareConsumer<>(Steps.settings(bootstrap, "group.id", prefix + "-share",
                "share.acknowledgement.mode", mode, "max.poll.records", 10),
                new ByteArrayDeserializer(), new ByteArrayDeserializer());
    }

    private void send(String topic, int count) {
        try (var producer = new KafkaProducer<>(Steps.settings(bootstrap, "linger.ms", 20),
                new ByteArraySerializer(), new ByteArraySerializer())) {
            for (int i = 0; i < count; i++) {
                producer.send(new ProducerRecord<>(topic, new byte[20 + i]));
            }
        }
    }

    private void fromTheStart() throws Exception {
        ConfigResource group = new ConfigResource(ConfigResource.Type.GROUP, prefix + "-share");
        admin.incrementalAlterConfigs(Map.of(group, List.of(new AlterConfigOp(
                new ConfigEntry("share.auto.offset.reset", "earliest"),
                AlterConfigOp.OpType.SET)))).all().get();
        admin.describeConfigs(List.of(group)).all().get();
    }

    private void share(String mode) throws Exception {
        fromTheStart();
        try (var consumer = shareConsumer(mode)) {
            consumer.subscribe(List.of(prefix + "-codec", prefix + "-txn"));
            send(prefix + "-codec", 30);
            AcknowledgeType[] kinds = {AcknowledgeType.ACCEPT, AcknowledgeType.RELEASE,
                AcknowledgeType.REJECT};
            int seen = 0;
            for (int i = 0; i < 25 && seen < 60; i++) {
                for (var record : consumer.poll(Duration.ofMillis(400))) {
                    if (mode.equals("explicit")) {
                        consumer.acknowledge(record, kinds[seen % 3]);
                    }
                    seen++;
                }
                if (i % 2 == 0) {
                    consumer.commitSync();
                }
            }
            describe(prefix + "-share");
        }
    }

    private void describe(String group) {
        Steps.step("describeShareGroups", () -> admin.describeShareGroups(List.of(group),
                new DescribeShareGroupsOptions().includeAuthorizedOperations(true)).all().get());
        Steps.step("listShareGroupOffsets", () -> admin.listShareGroupOffsets(
                Map.of(group, new ListShareGroupOffsetsSpec())).all().get());
    }

    /** Acknowledges at, or fetches from, a broker that led the partition a moment ago. */
    private void shareMoved(boolean acknowledge) throws Exception {
        String topic = prefix + "-moved";
        fromTheStart();
        try (var consumer = shareConsumer("explicit")) {
            consumer.subscribe(List.of(topic));
            for (int round = 0; round < 3; round++) {
                send(topic, 20);
                int seen = 0;
                for (int i = 0; i < 30 && seen == 0; i++) {
                    for (var record : consumer.poll(Duration.ofMillis(300))) {
                        consumer.acknowledge(record);
                        seen++;
                    }
                }
                Steps.move(topic);
                if (acknowledge) {
                    consumer.commitSync();
                }
            }
        }
    }

    private void admins() {
        String share = prefix + "-share";
        TopicPartition part = new TopicPartition(prefix + "-codec", 0);
        Steps.step("listGroups", () -> admin.listGroups().all().get());
        Steps.step("listGroups share", () -> admin.listGroups(
                ListGroupsOptions.forShareGroups()).all().get());
        Steps.step("describeClassicGroups", () -> admin.describeClassicGroups(
                List.of(prefix + "-classic")).all().get());
        Steps.step("listConfigResources", () -> admin.listConfigResources(
                Set.of(ConfigResource.Type.GROUP, ConfigResource.Type.TOPIC),
                new ListConfigResourcesOptions()).all().get());
        Steps.step("alterShareGroupOffsets", () -> admin.alterShareGroupOffsets(share,
                Map.of(part, 0L)).all().get());
        Steps.step("deleteShareGroupOffsets", () -> admin.deleteShareGroupOffsets(share,
                Set.of(prefix + "-codec")).all().get());
        Steps.step("deleteShareGroups", () -> admin.deleteShareGroups(List.of(share))
                .all().get());
        Steps.step("describeStreamsGroups", () -> admin.describeStreamsGroups(
                List.of(prefix + "-none")).all().get());
        Steps.step("fenced cluster", () -> admin.describeCluster(
                new DescribeClusterOptions().includeFencedBrokers(true)).nodes().get());
        Steps.step("updateFeatures", () -> admin.updateFeatures(
                Map.of("share.version", new FeatureUpdate((short) 1,
                        FeatureUpdate.UpgradeType.UPGRADE)),
                new UpdateFeaturesOptions()).all().get());
        Steps.step("listTransactions pattern", () -> admin.listTransactions(
                new ListTransactionsOptions().filterOnTransactionalIdPattern(prefix + ".*"))
                .all().get());
        Steps.step("earliestPendingUpload", () -> admin.listOffsets(
                Map.of(part, OffsetSpec.earliestPendingUpload())).all().get());
    }
}
