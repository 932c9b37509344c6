import com.fasterxml.jackson.databind.JsonNode;

import org.apache.kafka.clients.admin.Admin;
import org.apache.kafka.clients.admin.AlterConfigOp;
import org.apache.kafka.clients.admin.ConfigEntry;
import org.apache.kafka.clients.admin.DescribeClusterOptions;
import org.apache.kafka.common.Node;
import org.apache.kafka.common.TopicPartition;
import org.apache.kafka.common.TopicPartitionReplica;
import org.apache.kafka.common.config.ConfigResource;

import java.util.List;
import java.util.Map;
import java.util.TreeMap;
import java.util.TreeSet;

/** The cluster, its quorum and directories, and configurations of every kind. */
final class ClusterSteps extends Steps {
    ClusterSteps(Admin admin, JsonNode in, Map<String, Object> out) {
        super(admin, in, out);
    }

    @Override
    void run() {
        cluster();
        configs();
    }

    private void cluster() {
        step(
                "describe cluster",
                () -> {
                    var result =
                            admin.describeCluster(
                                    new DescribeClusterOptions().includeAuthorizedOperations(true));
                    return Map.of(
                            "id",
                            result.clusterId().get(),
                            "nodes",
                            result.nodes().get().stream().map(Steps::node).sorted().toList(),
                            "controller is a node",
                            result.nodes().get().stream()
                                    .map(Node::id)
                                    .toList()
                                    .contains(result.controller().get().id()),
                            "operations",
                            new TreeSet<>(result.authorizedOperations().get()));
                });
        step(
                "describe features",
                () ->
                        String.valueOf(
                                new TreeMap<>(
                                        admin.describeFeatures()
                                                .featureMetadata()
                                                .get()
                                                .finalizedFeatures())));
        step(
                "describe quorum",
                () -> {
                    var quorum = admin.describeMetadataQuorum().quorumInfo().get();
                    return Map.of(
                            "leader",
                            quorum.leaderId(),
                            "voters",
                            quorum.voters().stream().map(v -> v.replicaId()).toList(),
                            "observers",
                            quorum.observers().stream().map(v -> v.replicaId()).sorted().toList());
                });
        step("list client metrics", () -> admin.listClientMetricsResources().all().get().size());
        step("unregister broker", () -> admin.unregisterBroker(77).all().get());
        step(
                "log dirs",
                () -> {
                    Map<String, Object> sizes = new TreeMap<>();
                    admin.describeLogDirs(brokers)
                            .allDescriptions()
                            .get()
                            .forEach(
                                    (broker, dirs) ->
                                            sizes.put(
                                                    "broker " + broker,
                                                    dirs.values().stream()
                                                            .flatMap(
                                                                    dir ->
                                                                            dir
                                                                                    .replicaInfos()
                                                                                    .keySet()
                                                                                    .stream())
                                                            .filter(
                                                                    partition ->
                                                                            partition
                                                                                    .topic()
                                                                                    .equals(topic))
                                                            .map(TopicPartition::partition)
                                                            .sorted()
                                                            .toList()));
                    return sizes;
                });
        step(
                "replica log dirs",
                () ->
                        admin.describeReplicaLogDirs(
                                        List.of(
                                                new TopicPartitionReplica(
                                                        topic, 0, brokers.get(0))))
                                .all()
                                .get()
                                .size());
        step(
                "log dirs: unknown broker",
                () -> {
                    try (Admin hasty = hasty()) {
                        return hasty.describeLogDirs(List.of(77)).allDescriptions().get();
                    }
                });
    }

    private void configs() {
        var ofTopic = new ConfigResource(ConfigResource.Type.TOPIC, topic);
        var ofBroker =
                new ConfigResource(ConfigResource.Type.BROKER, String.valueOf(brokers.get(0)));
        var ofEvery = new ConfigResource(ConfigResource.Type.BROKER, "");
        var ofLogger =
                new ConfigResource(
                        ConfigResource.Type.BROKER_LOGGER, String.valueOf(brokers.get(0)));
        step("topic configs", () -> values(ofTopic));
        step(
                "broker configs",
                () -> {
                    Map<String, String> values = values(ofBroker);
                    values.keySet()
                            .removeIf(
                                    name ->
                                            name.contains("listeners")
                                                    || name.startsWith("controller.quorum."));
                    return values;
                });
        step("default broker configs", () -> values(ofEvery));
        step("logger configs", () -> values(ofLogger).size() > 10);
        step("alter topic configs", () -> alter(ofTopic, "retention.ms", "7654321"));
        step(
                "altered topic configs",
                () -> awaited(ofTopic, "retention.ms", "7654321 DYNAMIC_TOPIC_CONFIG"));
        step("alter topic configs: bad", () -> alter(ofTopic, "retention.ms", "soon"));
        step("alter topic configs: unknown", () -> alter(ofTopic, "no.such.thing", "1"));
        step("alter broker configs", () -> alter(ofBroker, "log.cleaner.threads", "2"));
        // A broker takes up a changed value when the controller's record reaches it.
        step(
                "altered broker configs",
                () -> awaited(ofBroker, "log.cleaner.threads", "2 DYNAMIC_BROKER_CONFIG"));
        step("alter broker configs: back", () -> alter(ofBroker, "log.cleaner.threads", null));
        step(
                "altered broker configs: back",
                () -> awaited(ofBroker, "log.cleaner.threads", "1 DEFAULT_CONFIG"));
        step("alter broker configs: bad", () -> alter(ofBroker, "node.id", "4"));
        step(
                "broker configs: other",
                () -> {
                    var ofOther = new ConfigResource(ConfigResource.Type.BROKER, "77");
                    try (Admin hasty = hasty()) {
                        return hasty.describeConfigs(List.of(ofOther)).all().get();
                    }
                });
        step(
                "configs of another broker",
                () -> values(new ConfigResource(ConfigResource.Type.BROKER, "x")));
    }

    private Map<String, String> values(ConfigResource resource) throws Exception {
        Map<String, String> values = new TreeMap<>();
        admin.describeConfigs(List.of(resource))
                .all()
                .get()
                .get(resource)
                .entries()
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
                        Map.of(
                                resource,
                                List.of(new AlterConfigOp(new ConfigEntry(name, value), type))))
                .all()
                .get();
    }
}
