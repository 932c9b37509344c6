import com.fasterxml.jackson.databind.JsonNode;

import org.apache.kafka.clients.admin.Admin;
import org.apache.kafka.clients.admin.CreateTopicsOptions;
import org.apache.kafka.clients.admin.NewPartitionReassignment;
import org.apache.kafka.clients.admin.NewPartitions;
import org.apache.kafka.clients.admin.NewTopic;
import org.apache.kafka.clients.admin.OffsetSpec;
import org.apache.kafka.clients.admin.RecordsToDelete;
import org.apache.kafka.clients.admin.TopicDescription;
import org.apache.kafka.common.ElectionType;
import org.apache.kafka.common.TopicPartition;

import java.util.ArrayList;
import java.util.List;
import java.util.Map;
import java.util.Optional;
import java.util.Set;
import java.util.TreeMap;
import java.util.function.Predicate;

/** Topics, their partitions, records and replicas. */
final class TopicSteps extends Steps {
    TopicSteps(Admin admin, JsonNode in, Map<String, Object> out) {
        super(admin, in, out);
    }

    @Override
    void run() {
        topics();
        records();
        replicas();
    }

    private void topics() {
        Map<Integer, List<Integer>> replicas = new TreeMap<>();
        for (int partition = 0; partition < 3; partition++) {
            replicas.put(partition, rotated(partition));
        }
        step(
                "create topics",
                () -> {
                    var result =
                            admin.createTopics(
                                    List.of(
                                            new NewTopic(topic, replicas)
                                                    .configs(Map.of("retention.ms", "1234567"))));
                    result.all().get();
                    return Map.of(
                            "partitions",
                            result.numPartitions(topic).get(),
                            "replicas",
                            result.replicationFactor(topic).get(),
                            "retention",
                            result.config(topic).get().get("retention.ms").value());
                });
        step(
                "create topics: exists",
                () -> admin.createTopics(List.of(new NewTopic(topic, replicas))).all().get());
        step(
                "create topics: name",
                () ->
                        admin.createTopics(List.of(new NewTopic("bad name!", 1, (short) 1)))
                                .all()
                                .get());
        step(
                "create topics: replicas",
                () ->
                        admin.createTopics(List.of(new NewTopic(topic + "-x", 1, (short) 99)))
                                .all()
                                .get());
        step(
                "create topics: unknown broker",
                () ->
                        admin.createTopics(
                                        List.of(new NewTopic(topic + "-x", Map.of(0, List.of(77)))))
                                .all()
                                .get());
        step(
                "create topics: validate only",
                () ->
                        admin.createTopics(
                                        List.of(new NewTopic(topic + "-y", replicas)),
                                        new CreateTopicsOptions().validateOnly(true))
                                .all()
                                .get());
        step("list topics", () -> admin.listTopics().names().get().contains(topic));
        step(
                "create partitions",
                () ->
                        admin.createPartitions(
                                        Map.of(
                                                topic,
                                                NewPartitions.increaseTo(4, List.of(rotated(1)))))
                                .all()
                                .get());
        step(
                "create partitions: fewer",
                () ->
                        admin.createPartitions(Map.of(topic, NewPartitions.increaseTo(2)))
                                .all()
                                .get());
        step(
                "describe topics",
                () ->
                        describe(
                                awaited(
                                        topic,
                                        description -> description.partitions().size() == 4)));
        step(
                "describe topics: unknown",
                () -> admin.describeTopics(List.of(topic + "-no")).allTopicNames().get());
    }

    private void records() {
        TopicPartition zero = new TopicPartition(topic, 0);
        step(
                "produce",
                () -> {
                    try (var producer = Records.producer(in)) {
                        for (int i = 0; i < 30; i++) {
                            producer.send(Records.record(topic, 1, i, 100)).get();
                        }
                    }
                    return null;
                });
        step(
                "delete records",
                () ->
                        admin.deleteRecords(Map.of(zero, RecordsToDelete.beforeOffset(10)))
                                .all()
                                .get());
        step(
                "delete records: beyond",
                () ->
                        admin.deleteRecords(Map.of(zero, RecordsToDelete.beforeOffset(1000)))
                                .all()
                                .get());
        Map<String, OffsetSpec> specs =
                Map.of(
                        "earliest",
                        OffsetSpec.earliest(),
                        "latest",
                        OffsetSpec.latest(),
                        "largest timestamp",
                        OffsetSpec.maxTimestamp(),
                        "timestamp",
                        OffsetSpec.forTimestamp(1_750_000_000_020L));
        specs.forEach(
                (name, spec) ->
                        step(
                                "list offsets: " + name,
                                () -> {
                                    var result =
                                            admin.listOffsets(Map.of(zero, spec))
                                                    .partitionResult(zero)
                                                    .get();
                                    return result.offset() + " at " + result.timestamp();
                                }));
    }

    private void replicas() {
        TopicPartition zero = new TopicPartition(topic, 0);
        step(
                "reassign",
                () ->
                        admin.alterPartitionReassignments(
                                        Map.of(
                                                zero,
                                                Optional.of(
                                                        new NewPartitionReassignment(rotated(1)))))
                                .all()
                                .get());
        step(
                "reassignments in the end",
                () -> {
                    while (!admin.listPartitionReassignments().reassignments().get().isEmpty()) {
                        Thread.sleep(50);
                    }
                    return null;
                });
        step(
                "reassign: unknown broker",
                () ->
                        admin.alterPartitionReassignments(
                                        Map.of(
                                                zero,
                                                Optional.of(
                                                        new NewPartitionReassignment(List.of(77)))))
                                .all()
                                .get());
        step(
                "cancel a reassignment: none",
                () ->
                        admin.alterPartitionReassignments(Map.of(zero, Optional.empty()))
                                .all()
                                .get());
        step(
                "elect leader",
                () ->
                        String.valueOf(
                                admin.electLeaders(ElectionType.PREFERRED, Set.of(zero))
                                        .partitions()
                                        .get()
                                        .get(zero)
                                        .map(Cases::describe)));
        step(
                "elect leader: not needed",
                () ->
                        String.valueOf(
                                admin.electLeaders(ElectionType.PREFERRED, Set.of(zero))
                                        .partitions()
                                        .get()
                                        .get(zero)
                                        .map(Cases::describe)));
        step(
                "describe topics: moved",
                () ->
                        describe(
                                awaited(
                                        topic,
                                        description ->
                                                description.partitions().get(0).leader().id()
                                                        == rotated(1).get(0))));
    }

    /** The description once it is as expected, or what it is after ten seconds. */
    private TopicDescription awaited(String name, Predicate<TopicDescription> expected)
            throws Exception {
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
        return description.partitions().stream()
                .map(
                        p ->
                                p.partition()
                                        + " leader "
                                        + node(p.leader())
                                        + " replicas "
                                        + p.replicas().stream().map(Steps::node).toList()
                                        + " isr "
                                        + p.isr().stream().map(Steps::node).sorted().toList())
                .toList();
    }

    private List<Integer> rotated(int by) {
        List<Integer> all = new ArrayList<>(brokers);
        java.util.Collections.rotate(all, -by);
        return all;
    }
}
