import com.fasterxml.jackson.databind.JsonNode;
import java.util.ArrayList;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.Optional;
import java.util.Set;
import java.util.TreeMap;
import java.util.TreeSet;
import java.util.concurrent.Callable;
import java.util.function.Predicate;
import org.apache.kafka.clients.admin.Admin;
import org.apache.kafka.clients.admin.AlterConfigOp;
import org.apache.kafka.clients.admin.ConfigEntry;
import org.apache.kafka.clients.admin.CreateTopicsOptions;
import org.apache.kafka.clients.admin.DescribeClusterOptions;
import org.apache.kafka.clients.admin.NewPartitionReassignment;
import org.apache.kafka.clients.admin.NewPartitions;
import org.apache.kafka.clients.admin.NewTopic;
import org.apache.kafka.clients.admin.OffsetSpec;
import org.apache.kafka.clients.admin.RecordsToDelete;
import org.apache.kafka.clients.admin.TopicDescription;
import org.apache.kafka.clients.consumer.OffsetAndMetadata;
import org.apache.kafka.common.ElectionType;
import org.apache.kafka.common.Node;
import org.apache.kafka.common.TopicPartition;
import org.apache.kafka.common.TopicPartitionReplica;
import org.apache.kafka.common.acl.AccessControlEntry;
import org.apache.kafka.common.acl.AclBinding;
import org.apache.kafka.common.acl.AclBindingFilter;
import org.apache.kafka.common.acl.AclOperation;
import org.apache.kafka.common.acl.AclPermissionType;
import org.apache.kafka.common.config.ConfigResource;
import org.apache.kafka.common.quota.ClientQuotaAlteration;
import org.apache.kafka.common.quota.ClientQuotaEntity;
import org.apache.kafka.common.quota.ClientQuotaFilter;
import org.apache.kafka.common.resource.PatternType;
import org.apache.kafka.common.resource.ResourcePattern;
import org.apache.kafka.common.resource.ResourceType;

/** Every admin call, each step's result or its error text. Node ids must agree; addresses are reported as text. */
final class Admins {
    private final Admin admin;
    private final JsonNode in;
    private final String topic;
    private final List<Integer> brokers = new ArrayList<>();
    private final Map<String, Object> out = new TreeMap<>();

    private Admins(Admin admin, JsonNode in) {
        this.admin = admin;
        this.in = in;
        topic = in.get("topic").asText();
        in.get("brokers").forEach(broker -> brokers.add(broker.asInt()));
    }

    static Object run(JsonNode in) throws Exception {
        try (Admin admin = Admin.create(Cases.properties(in))) {
            Admins steps = new Admins(admin, in);
            steps.topics();
            steps.cluster();
            steps.configs();
            steps.records();
            steps.groups();
            steps.replicas();
            steps.security();
            steps.producers();
            steps.end();
            return steps.out;
        }
    }

    private void step(String name, Callable<Object> call) {
        Object result;
        try {
            result = call.call();
        } catch (Exception error) {
            result = "error " + Cases.describe(error);
        }
        out.put(name, result == null ? "done" : result);
    }

    /** A client that gives up soon, for nodes that are not there. */
    private Admin hasty() {
        return Admin.create(Cases.properties(in, "default.api.timeout.ms", 2000, "request.timeout.ms", 1000));
    }

    private void topics() {
        Map<Integer, List<Integer>> replicas = new TreeMap<>();
        for (int partition = 0; partition < 3; partition++) {
            replicas.put(partition, rotated(partition));
        }
        step("create topics", () -> {
            var result = admin.createTopics(List.of(new NewTopic(topic, replicas).configs(Map.of("retention.ms", "1234567"))));
            result.all().get();
            return Map.of("partitions", result.numPartitions(topic).get(), "replicas",
                result.replicationFactor(topic).get(), "retention", result.config(topic).get().get("retention.ms").value());
        });
        step("create topics: exists", () -> admin.createTopics(List.of(new NewTopic(topic, replicas))).all().get());
        step("create topics: name", () -> admin.createTopics(List.of(new NewTopic("bad name!", 1, (short) 1))).all().get());
        step("create topics: replicas", () ->
            admin.createTopics(List.of(new NewTopic(topic + "-x", 1, (short) 99))).all().get());
        step("create topics: unknown broker", () ->
            admin.createTopics(List.of(new NewTopic(topic + "-x", Map.of(0, List.of(77))))).all().get());
        step("create topics: validate only", () -> admin.createTopics(List.of(new NewTopic(topic + "-y", replicas)),
            new CreateTopicsOptions().validateOnly(true)).all().get());
        step("list topics", () -> admin.listTopics().names().get().contains(topic));
        step("create partitions", () -> admin.createPartitions(
            Map.of(topic, NewPartitions.increaseTo(4, List.of(rotated(1))))).all().get());
        step("create partitions: fewer", () ->
            admin.createPartitions(Map.of(topic, NewPartitions.increaseTo(2))).all().get());
        step("describe topics", () -> describe(awaited(topic, description -> description.partitions().size() == 4)));
        step("describe topics: unknown", () -> admin.describeTopics(List.of(topic + "-no")).allTopicNames().get());
    }

    /** The description once it is as expected, or what it is after ten seconds. */
    private TopicDescription awaited(String name, Predicate<TopicDescription> expected) throws Exception {
        TopicDescription description = null;
        for (int i = 0; i < 200 && (description == null || !expected.test(description)); i++) {
            Thread.sleep(i == 0 ? 0 : 50);
            try {
                description = admin.describeTopics(List.of(name)).allTopicNames().get().get(name);
            } catch (java.util.concurrent.ExecutionException notKnownYet) {
                continue;
            }
        }
        return description;
    }

    private Object describe(TopicDescription description) {
        return description.partitions().stream().map(p -> p.partition() + " leader " + node(p.leader())
            + " replicas " + p.replicas().stream().map(Admins::node).toList()
            + " isr " + p.isr().stream().map(Admins::node).sorted().toList()).toList();
    }

    /** A node as clients see it; the harness turns the address into the node's name before it compares. */
    private static String node(Node node) {
        return node.id() + "=" + node.host() + ":" + node.port();
    }

    private List<Integer> rotated(int by) {
        List<Integer> all = new ArrayList<>(brokers);
        java.util.Collections.rotate(all, -by);
        return all;
    }

    private void cluster() {
        step("describe cluster", () -> {
            var result = admin.describeCluster(new DescribeClusterOptions().includeAuthorizedOperations(true));
            return Map.of("id", result.clusterId().get(), "nodes",
                result.nodes().get().stream().map(Admins::node).sorted().toList(),
                "controller is a node", result.nodes().get().stream().map(Node::id).toList()
                    .contains(result.controller().get().id()),
                "operations", new TreeSet<>(result.authorizedOperations().get()));
        });
        step("describe features", () -> String.valueOf(new TreeMap<>(
            admin.describeFeatures().featureMetadata().get().finalizedFeatures())));
        step("describe quorum", () -> {
            var quorum = admin.describeMetadataQuorum().quorumInfo().get();
            return Map.of("leader", quorum.leaderId(), "voters",
                quorum.voters().stream().map(v -> v.replicaId()).toList(), "observers",
                quorum.observers().stream().map(v -> v.replicaId()).sorted().toList());
        });
        step("list client metrics", () -> admin.listClientMetricsResources().all().get().size());
        step("unregister broker", () -> admin.unregisterBroker(77).all().get());
        step("log dirs", () -> {
            Map<String, Object> sizes = new TreeMap<>();
            admin.describeLogDirs(brokers).allDescriptions().get().forEach((broker, dirs) ->
                sizes.put("broker " + broker, dirs.values().stream().flatMap(dir -> dir.replicaInfos().keySet().stream())
                    .filter(partition -> partition.topic().equals(topic)).map(TopicPartition::partition).sorted().toList()));
            return sizes;
        });
        step("replica log dirs", () -> admin.describeReplicaLogDirs(
            List.of(new TopicPartitionReplica(topic, 0, brokers.get(0)))).all().get().size());
        step("log dirs: unknown broker", () -> {
            try (Admin hasty = hasty()) {
                return hasty.describeLogDirs(List.of(77)).allDescriptions().get();
            }
        });
    }

    private void configs() {
        var ofTopic = new ConfigResource(ConfigResource.Type.TOPIC, topic);
        var ofBroker = new ConfigResource(ConfigResource.Type.BROKER, String.valueOf(brokers.get(0)));
        var ofEvery = new ConfigResource(ConfigResource.Type.BROKER, "");
        var ofLogger = new ConfigResource(ConfigResource.Type.BROKER_LOGGER, String.valueOf(brokers.get(0)));
        step("topic configs", () -> values(ofTopic));
        step("broker configs", () -> {
            Map<String, String> values = values(ofBroker);
            values.keySet().removeIf(name -> name.contains("listeners") || name.startsWith("controller.quorum."));
            return values;
        });
        step("default broker configs", () -> values(ofEvery));
        step("logger configs", () -> values(ofLogger).size() > 10);
        step("alter topic configs", () -> alter(ofTopic, "retention.ms", "7654321"));
        step("altered topic configs", () -> awaited(ofTopic, "retention.ms", "7654321 DYNAMIC_TOPIC_CONFIG"));
        step("alter topic configs: bad", () -> alter(ofTopic, "retention.ms", "soon"));
        step("alter topic configs: unknown", () -> alter(ofTopic, "no.such.thing", "1"));
        step("alter broker configs", () -> alter(ofBroker, "log.cleaner.threads", "2"));
        // A broker takes up a changed value when the controller's record reaches it.
        step("altered broker configs", () -> awaited(ofBroker, "log.cleaner.threads", "2 DYNAMIC_BROKER_CONFIG"));
        step("alter broker configs: back", () -> alter(ofBroker, "log.cleaner.threads", null));
        step("altered broker configs: back", () -> awaited(ofBroker, "log.cleaner.threads", "1 DEFAULT_CONFIG"));
        step("alter broker configs: bad", () -> alter(ofBroker, "node.id", "4"));
        step("broker configs: other", () -> {
            var ofOther = new ConfigResource(ConfigResource.Type.BROKER, "77");
            try (Admin hasty = hasty()) {
                return hasty.describeConfigs(List.of(ofOther)).all().get();
            }
        });
        step("configs of another broker", () -> values(new ConfigResource(ConfigResource.Type.BROKER, "x")));
    }

    private Map<String, String> values(ConfigResource resource) throws Exception {
        Map<String, String> values = new TreeMap<>();
        admin.describeConfigs(List.of(resource)).all().get().get(resource).entries()
            .forEach(entry -> values.put(entry.name(), entry.value() + " " + entry.source()));
        return values;
    }

    /** The value once it is the expected one, or what it is after ten seconds. */
    private String awaited(ConfigResource resource, String name, String expected) throws Exception {
        String value = null;
        for (int i = 0; i < 200 && !expected.equals(value); i++) {
            value = values(resource).get(name);
            Thread.sleep(50);
        }
        return value;
    }

    private Object alter(ConfigResource resource, String name, String value) throws Exception {
        var type = value == null ? AlterConfigOp.OpType.DELETE : AlterConfigOp.OpType.SET;
        return admin.incrementalAlterConfigs(
            Map.of(resource, List.of(new AlterConfigOp(new ConfigEntry(name, value), type)))).all().get();
    }

    private void records() {
        TopicPartition zero = new TopicPartition(topic, 0);
        step("produce", () -> {
            try (var producer = Records.producer(in)) {
                for (int i = 0; i < 30; i++) {
                    producer.send(Records.record(topic, 1, i, 100)).get();
                }
            }
            return null;
        });
        step("delete records", () -> admin.deleteRecords(
            Map.of(zero, RecordsToDelete.beforeOffset(10))).all().get());
        step("delete records: beyond", () -> admin.deleteRecords(
            Map.of(zero, RecordsToDelete.beforeOffset(1000))).all().get());
        Map<String, OffsetSpec> specs = Map.of("earliest", OffsetSpec.earliest(), "latest", OffsetSpec.latest(),
            "largest timestamp", OffsetSpec.maxTimestamp(), "timestamp", OffsetSpec.forTimestamp(1_750_000_000_020L));
        specs.forEach((name, spec) -> step("list offsets: " + name, () -> {
            var result = admin.listOffsets(Map.of(zero, spec)).partitionResult(zero).get();
            return result.offset() + " at " + result.timestamp();
        }));
    }

    private void groups() {
        String group = topic + "-group";
        TopicPartition zero = new TopicPartition(topic, 0);
        step("alter group offsets", () -> admin.alterConsumerGroupOffsets(
            group, Map.of(zero, new OffsetAndMetadata(17, "note"))).all().get());
        step("list groups", () -> admin.listConsumerGroups().all().get().stream()
            .anyMatch(listing -> listing.groupId().equals(group)));
        step("describe group", () -> {
            var description = admin.describeConsumerGroups(List.of(group)).all().get().get(group);
            return description.groupId() + " " + description.state() + " " + description.members().size();
        });
        step("coordinator", () -> brokers.contains(
            admin.describeConsumerGroups(List.of(group)).all().get().get(group).coordinator().id()));
        step("group offsets", () -> String.valueOf(
            admin.listConsumerGroupOffsets(group).partitionsToOffsetAndMetadata().get().get(zero).offset()));
        step("delete group offsets", () -> admin.deleteConsumerGroupOffsets(group, Set.of(zero)).all().get());
        step("alter group offsets again", () -> admin.alterConsumerGroupOffsets(
            group, Map.of(zero, new OffsetAndMetadata(18))).all().get());
        step("delete group", () -> admin.deleteConsumerGroups(List.of(group)).all().get());
        step("describe group: gone", () -> String.valueOf(
            admin.describeConsumerGroups(List.of(group)).all().get().get(group).state()));
        step("delete group: gone", () -> admin.deleteConsumerGroups(List.of(group)).all().get());
    }

    private void replicas() {
        TopicPartition zero = new TopicPartition(topic, 0);
        step("reassign", () -> admin.alterPartitionReassignments(
            Map.of(zero, Optional.of(new NewPartitionReassignment(rotated(1))))).all().get());
        step("reassignments in the end", () -> {
            while (!admin.listPartitionReassignments().reassignments().get().isEmpty()) {
                Thread.sleep(50);
            }
            return null;
        });
        step("reassign: unknown broker", () -> admin.alterPartitionReassignments(
            Map.of(zero, Optional.of(new NewPartitionReassignment(List.of(77))))).all().get());
        step("cancel a reassignment: none", () -> admin.alterPartitionReassignments(Map.of(zero, Optional.empty())).all().get());
        step("elect leader", () -> String.valueOf(admin.electLeaders(ElectionType.PREFERRED, Set.of(zero))
            .partitions().get().get(zero).map(Cases::describe)));
        step("elect leader: not needed", () -> String.valueOf(admin.electLeaders(ElectionType.PREFERRED, Set.of(zero))
            .partitions().get().get(zero).map(Cases::describe)));
        step("describe topics: moved", () -> describe(awaited(topic,
            description -> description.partitions().get(0).leader().id() == rotated(1).get(0))));
    }

    private void security() {
        ResourcePattern pattern = new ResourcePattern(ResourceType.TOPIC, topic, PatternType.LITERAL);
        AclBinding acl = new AclBinding(pattern,
            new AccessControlEntry("User:*", "*", AclOperation.WRITE, AclPermissionType.DENY));
        step("create acls", () -> admin.createAcls(List.of(acl)).all().get());
        step("describe acls", () -> {
            for (int i = 0; i < 100 && admin.describeAcls(acl.toFilter()).values().get().isEmpty(); i++) {
                Thread.sleep(50);
            }
            return String.valueOf(admin.describeAcls(acl.toFilter()).values().get());
        });
        step("produce against the acl", () -> {
            for (int i = 0; i < 100; i++) {
                try (var producer = Records.producer(in)) {
                    producer.send(Records.record(topic, 1, 1, 10)).get();
                }
                if (out.get("create acls").toString().startsWith("error")) {
                    break;
                }
                Thread.sleep(50);
            }
            return null;
        });
        step("delete acls", () -> admin.deleteAcls(List.of(acl.toFilter())).all().get().size());
        step("all acls", () -> admin.describeAcls(AclBindingFilter.ANY).values().get().size());
        ClientQuotaEntity entity = new ClientQuotaEntity(Map.of("client-id", topic));
        step("alter quotas", () -> admin.alterClientQuotas(List.of(new ClientQuotaAlteration(entity,
            List.of(new ClientQuotaAlteration.Op("producer_byte_rate", 1e9))))).all().get());
        step("describe quotas", () -> {
            Map<String, Double> quotas = null;
            for (int i = 0; i < 200 && quotas == null; i++) {
                quotas = admin.describeClientQuotas(ClientQuotaFilter.all()).entities().get().get(entity);
                Thread.sleep(20);
            }
            return String.valueOf(quotas);
        });
        step("alter quotas: back", () -> admin.alterClientQuotas(List.of(new ClientQuotaAlteration(entity,
            List.of(new ClientQuotaAlteration.Op("producer_byte_rate", null))))).all().get());
        step("scram users", () -> admin.describeUserScramCredentials().all().get().size());
        step("delegation tokens", () -> admin.describeDelegationToken().delegationTokens().get().size());
        step("create delegation token", () -> admin.createDelegationToken().delegationToken().get() != null);
    }

    private void producers() {
        TopicPartition zero = new TopicPartition(topic, 0);
        step("describe producers", () -> admin.describeProducers(List.of(zero)).all().get().get(zero)
            .activeProducers().stream().map(producer -> producer.lastSequence()).sorted().toList());
        step("transactions", () -> {
            try (var producer = Records.producer(in, "transactional.id", topic)) {
                producer.initTransactions();
                producer.beginTransaction();
                producer.send(Records.record(topic, 1, 1, 10)).get();
                var description = admin.describeTransactions(List.of(topic)).all().get().get(topic);
                String listed = String.valueOf(admin.listTransactions().all().get().stream()
                    .filter(listing -> listing.transactionalId().equals(topic))
                    .map(listing -> listing.state()).toList());
                producer.abortTransaction();
                return description.state() + " " + description.topicPartitions() + " " + listed;
            }
        });
        step("describe transactions: unknown", () -> admin.describeTransactions(List.of(topic + "-no")).all().get());
        step("fence producers", () -> admin.fenceProducers(List.of(topic)).all().get());
    }

    private void end() {
        step("delete topics", () -> admin.deleteTopics(List.of(topic)).all().get());
        step("delete topics: gone", () -> {
            while (admin.listTopics().names().get().contains(topic)) {
                Thread.sleep(20);
            }
            return admin.deleteTopics(List.of(topic)).all().get();
        });
    }

    /** Creates a topic whose replicas are given, partition by partition, and waits for its leaders. */
    static Object createTopic(JsonNode in) throws Exception {
        Map<Integer, List<Integer>> replicas = new HashMap<>();
        for (JsonNode partition : in.get("replicas")) {
            List<Integer> ids = new ArrayList<>();
            partition.forEach(id -> ids.add(id.asInt()));
            replicas.put(replicas.size(), ids);
        }
        String topic = in.get("topic").asText();
        try (Admin admin = Admin.create(Cases.properties(in))) {
            var result = admin.createTopics(List.of(new NewTopic(topic, replicas)));
            result.all().get();
            while (!ready(admin, topic, replicas.size())) {
                Thread.sleep(20);
            }
            var id = result.topicId(topic).get();
            return String.format("%016x%016x", id.getMostSignificantBits(), id.getLeastSignificantBits());
        }
    }

    private static boolean ready(Admin admin, String topic, int partitions) throws Exception {
        try {
            var found = admin.describeTopics(List.of(topic)).allTopicNames().get().get(topic).partitions();
            return found.size() == partitions
                && found.stream().allMatch(p -> p.leader() != null && p.isr().size() == p.replicas().size());
        } catch (java.util.concurrent.ExecutionException notYet) {
            return false;
        }
    }

    static Object deleteTopic(JsonNode in) throws Exception {
        try (Admin admin = Admin.create(Cases.properties(in))) {
            admin.deleteTopics(List.of(in.get("topic").asText())).all().get();
            return Map.of();
        }
    }

    /** Once its heartbeats have ended the controller fences a broker, and then forgets it on request. */
    static Object unregisterBroker(JsonNode in) throws Exception {
        try (Admin admin = Admin.create(Cases.properties(in))) {
            admin.unregisterBroker(in.get("broker").asInt()).all().get();
            return Map.of();
        }
    }

    static Object leaders(JsonNode in) throws Exception {
        String topic = in.get("topic").asText();
        try (Admin admin = Admin.create(Cases.properties(in))) {
            return admin.describeTopics(List.of(topic)).allTopicNames().get().get(topic).partitions().stream()
                .map(partition -> partition.leader() == null ? -1 : partition.leader().id()).toList();
        }
    }

    /** Gives one partition the replicas in {@code replicas}, the first of which becomes its leader. */
    static Object moveLeader(JsonNode in) throws Exception {
        TopicPartition partition = new TopicPartition(in.get("topic").asText(), in.get("partition").asInt());
        List<Integer> replicas = new ArrayList<>();
        in.get("replicas").forEach(id -> replicas.add(id.asInt()));
        try (Admin admin = Admin.create(Cases.properties(in))) {
            admin.alterPartitionReassignments(
                Map.of(partition, Optional.of(new NewPartitionReassignment(replicas)))).all().get();
            while (!admin.listPartitionReassignments(Set.of(partition)).reassignments().get().isEmpty()) {
                Thread.sleep(20);
            }
            admin.electLeaders(ElectionType.PREFERRED, Set.of(partition)).partitions().get();
            int leader = -1;
            while (leader != replicas.get(0)) {
                Thread.sleep(20);
                leader = admin.describeTopics(List.of(partition.topic())).allTopicNames().get()
                    .get(partition.topic()).partitions().get(partition.partition()).leader().id();
            }
            return leader;
        }
    }
}
