import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.Optional;
import java.util.Set;
import org.apache.kafka.clients.admin.*;
import org.apache.kafka.clients.consumer.KafkaConsumer;
import org.apache.kafka.clients.consumer.OffsetAndMetadata;
import org.apache.kafka.clients.producer.KafkaProducer;
import org.apache.kafka.clients.producer.ProducerRecord;
import org.apache.kafka.common.ElectionType;
import org.apache.kafka.common.TopicPartition;
import org.apache.kafka.common.TopicPartitionReplica;
import org.apache.kafka.common.acl.*;
import org.apache.kafka.common.config.ConfigResource;
import org.apache.kafka.common.quota.*;
import org.apache.kafka.common.resource.*;
import org.apache.kafka.common.security.token.delegation.DelegationToken;
import org.apache.kafka.common.serialization.ByteArrayDeserializer;
import org.apache.kafka.common.serialization.ByteArraySerializer;

/** The Admin calls that Kafka 3.9 and 4.x share. Run after Records, whose topics it describes. */
public final class Admins {
    private final Admin admin;
    private final String bootstrap;
    private final String prefix;
    private final String topic;
    private final TopicPartition part;
    private final Set<TopicPartition> parts;
    private final int brokers;

    private Admins(Admin admin, String[] args) {
        this.admin = admin;
        bootstrap = args[0];
        prefix = args[1];
        brokers = Integer.parseInt(args[2]);
        topic = prefix + "-codec";
        part = new TopicPartition(topic, 0);
        parts = Set.of(part, new TopicPartition(topic, 1));
    }

    public static void main(String[] args) throws Exception {
        try (Admin admin = Admin.create(Steps.settings(args[0]))) {
            Admins admins = new Admins(admin, args);
            admins.topics();
            admins.configs();
            admins.cluster();
            admins.offsets();
            admins.transactions();
            admins.groups();
            admins.partitions();
            admins.security();
        }
        Steps.step("sasl", () -> sasl(args, args[5]));
        Steps.step("sasl refused", () -> sasl(args, "wrong"));
    }

    private void topics() {
        String extra = prefix + "-extra";
        Steps.step("createTopics", () -> admin.createTopics(List.of(
                new NewTopic(extra, 2, (short) 1).configs(Map.of("retention.ms", "1000000")),
                new NewTopic(topic, 1, (short) 1))).all().get());
        Steps.step("createTopics replicas", () -> admin.createTopics(List.of(
                new NewTopic(prefix + "-set", Map.of(0, List.of(1)))),
                new CreateTopicsOptions().validateOnly(true)).all().get());
        Steps.step("createPartitions", () -> admin.createPartitions(
                Map.of(extra, NewPartitions.increaseTo(3))).all().get());
        Steps.step("listTopics", () -> admin.listTopics(
                new ListTopicsOptions().listInternal(true)).names().get());
        Steps.step("describeTopics", () -> admin.describeTopics(List.of(topic, extra),
                new DescribeTopicsOptions().includeAuthorizedOperations(true))
                .allTopicNames().get());
        Steps.step("describeTopics none", () -> admin.describeTopics(List.of(prefix + "-no"))
                .allTopicNames().get());
        Steps.step("describeTopics id", () -> {
            var id = admin.describeTopics(List.of(topic)).allTopicNames().get()
                    .get(topic).topicId();
            admin.describeTopics(org.apache.kafka.common.TopicCollection.ofTopicIds(List.of(id)))
                    .allTopicIds().get();
        });
        Steps.step("deleteRecords", () -> admin.deleteRecords(
                Map.of(part, RecordsToDelete.beforeOffset(2))).all().get());
        Steps.step("deleteTopics", () -> admin.deleteTopics(List.of(extra)).all().get());
        Steps.step("deleteTopics none", () -> admin.deleteTopics(List.of(extra)).all().get());
    }

    private void configs() {
        ConfigResource onTopic = new ConfigResource(ConfigResource.Type.TOPIC, topic);
        ConfigResource onBroker = new ConfigResource(ConfigResource.Type.BROKER, "1");
        ConfigResource onAll = new ConfigResource(ConfigResource.Type.BROKER, "");
        ConfigResource logger = new ConfigResource(ConfigResource.Type.BROKER_LOGGER, "1");
        for (ConfigResource of : List.of(onTopic, onBroker, onAll, logger)) {
            Steps.step("describeConfigs " + of, () -> admin.describeConfigs(List.of(of),
                    new DescribeConfigsOptions().includeSynonyms(of == onTopic)
                            .includeDocumentation(of == onTopic)).all().get());
        }
        Steps.step("incrementalAlterConfigs", () -> admin.incrementalAlterConfigs(Map.of(
                onTopic, List.of(set("retention.ms", "900000")),
                onBroker, List.of(set("log.cleaner.threads", "1")))).all().get());
        Steps.step("incrementalAlterConfigs bad", () -> admin.incrementalAlterConfigs(Map.of(
                onTopic, List.of(set("no.such", "1")))).all().get());
        Steps.step("incrementalAlterConfigs listeners", () -> admin.incrementalAlterConfigs(
                Map.of(onBroker, List.of(set("advertised.listeners", "CLIENT://127.0.0.1:1"))),
                new AlterConfigsOptions().validateOnly(true)).all().get());
        ConfigResource metrics = new ConfigResource(ConfigResource.Type.CLIENT_METRICS, "golden");
        Steps.step("incrementalAlterConfigs metrics", () -> admin.incrementalAlterConfigs(Map.of(
                metrics, List.of(set("interval.ms", "1000"), set("metrics", "*")))).all().get());
        Steps.step("listClientMetricsResources",
                () -> admin.listClientMetricsResources().all().get());
    }

    private static AlterConfigOp set(String name, String value) {
        return new AlterConfigOp(new ConfigEntry(name, value), AlterConfigOp.OpType.SET);
    }

    private void cluster() {
        Steps.step("describeCluster", () -> admin.describeCluster(
                new DescribeClusterOptions().includeAuthorizedOperations(true)).nodes().get());
        Steps.step("describeLogDirs", () -> admin.describeLogDirs(List.of(1))
                .allDescriptions().get());
        Steps.step("describeMetadataQuorum",
                () -> admin.describeMetadataQuorum().quorumInfo().get());
        Steps.step("describeFeatures", () -> admin.describeFeatures().featureMetadata().get());
        Steps.step("updateFeatures", () -> admin.updateFeatures(
                Map.of("group.version", new FeatureUpdate((short) 1,
                        FeatureUpdate.UpgradeType.UPGRADE)),
                new UpdateFeaturesOptions().validateOnly(true)).all().get());
        Steps.step("unregisterBroker", () -> admin.unregisterBroker(77).all().get());
        Steps.step("alterReplicaLogDirs", () -> admin.alterReplicaLogDirs(
                Map.of(new TopicPartitionReplica(topic, 0, 1), "/nowhere")).all().get());
        Steps.step("describeReplicaLogDirs", () -> admin.describeReplicaLogDirs(
                List.of(new TopicPartitionReplica(topic, 0, 1))).all().get());
        Steps.step("addRaftVoter", () -> admin.addRaftVoter(9,
                org.apache.kafka.common.Uuid.randomUuid(),
                Set.of(new RaftVoterEndpoint("CONTROLLER", "127.0.0.1", 1))).all().get());
        Steps.step("removeRaftVoter", () -> admin.removeRaftVoter(9,
                org.apache.kafka.common.Uuid.randomUuid()).all().get());
    }

    private void offsets() {
        List<OffsetSpec> specs = List.of(OffsetSpec.earliest(), OffsetSpec.latest(),
                OffsetSpec.maxTimestamp(), OffsetSpec.forTimestamp(1), OffsetSpec.earliestLocal(),
                OffsetSpec.latestTiered());
        for (OffsetSpec spec : specs) {
            Steps.step("listOffsets " + spec.getClass().getSimpleName(), () -> {
                Map<TopicPartition, OffsetSpec> asked = new HashMap<>();
                parts.forEach(each -> asked.put(each, spec));
                admin.listOffsets(asked).all().get();
            });
        }
    }

    private void transactions() {
        var settings = Steps.settings(bootstrap, "transactional.id", prefix + "-open");
        try (var producer = new KafkaProducer<>(settings, new ByteArraySerializer(),
                new ByteArraySerializer())) {
            producer.initTransactions();
            producer.beginTransaction();
            producer.send(new ProducerRecord<>(prefix + "-txn", new byte[9]));
            producer.flush();
            TopicPartition txn = new TopicPartition(prefix + "-txn", 0);
            Steps.step("describeProducers", () -> admin.describeProducers(List.of(txn))
                    .all().get());
            Steps.step("listTransactions", () -> admin.listTransactions().all().get());
            Steps.step("describeTransactions", () -> admin.describeTransactions(
                    List.of(prefix + "-open", prefix + "-none")).all().get());
            Steps.step("abortTransaction", () -> {
                var state = admin.describeProducers(List.of(txn)).all().get().get(txn)
                        .activeProducers().stream()
                        .filter(each -> each.currentTransactionStartOffset().isPresent())
                        .findFirst().orElseThrow();
                admin.abortTransaction(new AbortTransactionSpec(txn, state.producerId(),
                        (short) state.producerEpoch(), 0)).all().get();
            });
            Steps.step("fenceProducers", () -> admin.fenceProducers(List.of(prefix + "-open"))
                    .all().get());
        }
    }

    private void groups() {
        String classic = prefix + "-classic";
        String modern = prefix + "-consumer";
        Steps.step("listConsumerGroups", () -> admin.listConsumerGroups().all().get());
        Steps.step("describeConsumerGroups", () -> admin.describeConsumerGroups(
                List.of(classic, modern, prefix + "-none"),
                new DescribeConsumerGroupsOptions().includeAuthorizedOperations(true))
                .all().get());
        var consumer = new KafkaConsumer<>(Steps.settings(bootstrap, "group.id", classic,
                "group.instance.id", "steady"), new ByteArrayDeserializer(),
                new ByteArrayDeserializer());
        try (consumer) {
            consumer.subscribe(List.of(topic));
            consumer.poll(java.time.Duration.ofSeconds(2));
            Steps.step("describe live", () -> admin.describeConsumerGroups(List.of(classic))
                    .all().get());
            Steps.step("removeMembers", () -> admin.removeMembersFromConsumerGroup(classic,
                    new RemoveMembersFromConsumerGroupOptions(
                            List.of(new MemberToRemove("steady")))).all().get());
        }
        Steps.step("listConsumerGroupOffsets", () -> admin.listConsumerGroupOffsets(
                Map.of(classic, new ListConsumerGroupOffsetsSpec(), modern,
                        new ListConsumerGroupOffsetsSpec().topicPartitions(parts))).all().get());
        Steps.step("alterConsumerGroupOffsets", () -> admin.alterConsumerGroupOffsets(classic,
                Map.of(part, new OffsetAndMetadata(3, Optional.of(0), "note"))).all().get());
        Steps.step("deleteConsumerGroupOffsets", () -> admin.deleteConsumerGroupOffsets(classic,
                parts).all().get());
        Steps.step("deleteConsumerGroups", () -> admin.deleteConsumerGroups(
                List.of(modern, prefix + "-none")).all().get());
    }

    private void partitions() {
        Steps.step("electLeaders", () -> admin.electLeaders(ElectionType.PREFERRED, parts)
                .partitions().get());
        Steps.step("electLeaders unclean", () -> admin.electLeaders(ElectionType.UNCLEAN,
                Set.of(part)).all().get());
        Steps.step("alterPartitionReassignments", () -> admin.alterPartitionReassignments(
                Map.of(part, Optional.of(new NewPartitionReassignment(List.of(brokers)))))
                .all().get());
        Steps.step("alterPartitionReassignments cancel",
                () -> admin.alterPartitionReassignments(Map.of(part, Optional.empty()))
                        .all().get());
        Steps.step("listPartitionReassignments",
                () -> admin.listPartitionReassignments().reassignments().get());
        Steps.step("listPartitionReassignments of",
                () -> admin.listPartitionReassignments(parts).reassignments().get());
    }

    private void security() {
        AclBinding acl = new AclBinding(
                new ResourcePattern(ResourceType.TOPIC, topic, PatternType.LITERAL),
                new AccessControlEntry("User:ANONYMOUS", "*", AclOperation.READ,
                        AclPermissionType.ALLOW));
        Steps.step("createAcls", () -> admin.createAcls(List.of(acl)).all().get());
        Steps.step("describeAcls", () -> admin.describeAcls(AclBindingFilter.ANY)
                .values().get());
        Steps.step("deleteAcls", () -> admin.deleteAcls(List.of(acl.toFilter())).all().get());
        var user = new ClientQuotaEntity(Map.of(ClientQuotaEntity.USER, "golden"));
        Steps.step("alterClientQuotas", () -> admin.alterClientQuotas(List.of(
                new ClientQuotaAlteration(user, List.of(new ClientQuotaAlteration.Op(
                        "producer_byte_rate", 1e9))))).all().get());
        Steps.step("describeClientQuotas", () -> admin.describeClientQuotas(
                ClientQuotaFilter.all()).entities().get());
        List<UserScramCredentialAlteration> scram = List.of(
                new UserScramCredentialUpsertion("reader", new ScramCredentialInfo(
                        ScramMechanism.SCRAM_SHA_256, 4096), "no-secret"));
        Steps.step("alterUserScramCredentials",
                () -> admin.alterUserScramCredentials(scram).all().get());
        Steps.step("describeUserScramCredentials",
                () -> admin.describeUserScramCredentials().all().get());
        Steps.step("createDelegationToken",
                () -> admin.createDelegationToken().delegationToken().get());
    }

    private static void sasl(String[] args, String password) throws Exception {
        try (Admin admin = Admin.create(Steps.sasl(
                Steps.settings(args[3], "default.api.timeout.ms", 5000,
                        "request.timeout.ms", 5000), args[4], password))) {
            admin.listTopics().names().get();
            DelegationToken token = admin.createDelegationToken().delegationToken().get();
            Thread.sleep(1000);
            Steps.step("describeDelegationToken",
                    () -> admin.describeDelegationToken().delegationTokens().get());
            Steps.step("renewDelegationToken",
                    () -> admin.renewDelegationToken(token.hmac()).expiryTimestamp().get());
            Steps.step("expireDelegationToken",
                    () -> admin.expireDelegationToken(token.hmac()).expiryTimestamp().get());
        }
    }
}
