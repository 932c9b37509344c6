import com.fasterxml.jackson.databind.JsonNode;

import org.apache.kafka.clients.admin.Admin;
import org.apache.kafka.clients.admin.NewPartitionReassignment;
import org.apache.kafka.clients.admin.NewTopic;
import org.apache.kafka.clients.admin.OffsetSpec;
import org.apache.kafka.common.ElectionType;
import org.apache.kafka.common.TopicPartition;

import java.util.ArrayList;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.Optional;
import java.util.Set;
import java.util.TreeMap;

/**
 * The admin client: all its calls as one case, and what the harness itself needs of it. Node ids
 * must agree in both places; addresses are reported as text.
 */
final class Admins {
    /** Every admin call, one group of steps after the other. */
    static Object run(JsonNode in) throws Exception {
        Map<String, Object> out = new TreeMap<>();
        try (Admin admin = Admin.create(Cases.properties(in))) {
            for (Steps steps :
                    List.of(
                            new TopicSteps(admin, in, out),
                            new ClusterSteps(admin, in, out),
                            new GroupSteps(admin, in, out),
                            new EndSteps(admin, in, out))) {
                steps.run();
            }
        }
        return out;
    }

    /**
     * Creates a topic whose replicas are given, partition by partition, and waits until each leader
     * knows that it leads: until then it refuses what is written to it.
     */
    static Object createTopic(JsonNode in) throws Exception {
        Map<Integer, List<Integer>> replicas = new HashMap<>();
        for (JsonNode partition : in.get("replicas")) {
            List<Integer> ids = new ArrayList<>();
            partition.forEach(id -> ids.add(id.asInt()));
            replicas.put(replicas.size(), ids);
        }
        String topic = in.get("topic").asText();
        try (Admin admin = Admin.create(Cases.properties(in))) {
            Map<String, String> configs = new HashMap<>();
            if (in.has("configs")) {
                in.get("configs")
                        .fields()
                        .forEachRemaining(
                                field -> configs.put(field.getKey(), field.getValue().asText()));
            }
            NewTopic wanted = new NewTopic(topic, replicas).configs(configs);
            var result = admin.createTopics(List.of(wanted));
            result.all().get();
            while (!ready(admin, topic, replicas.size())) {
                Thread.sleep(20);
            }
            Map<TopicPartition, OffsetSpec> ends = new HashMap<>();
            replicas.keySet()
                    .forEach(p -> ends.put(new TopicPartition(topic, p), OffsetSpec.latest()));
            admin.listOffsets(ends).all().get();
            var id = result.topicId(topic).get();
            return String.format(
                    "%016x%016x", id.getMostSignificantBits(), id.getLeastSignificantBits());
        }
    }

    private static boolean ready(Admin admin, String topic, int partitions) throws Exception {
        try {
            var found =
                    admin.describeTopics(List.of(topic))
                            .allTopicNames()
                            .get()
                            .get(topic)
                            .partitions();
            return found.size() == partitions
                    && found.stream()
                            .allMatch(
                                    p ->
                                            p.leader() != null
                                                    && p.isr().size() == p.replicas().size());
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

    /**
     * Once its heartbeats have ended the controller fences a broker, and then forgets it on
     * request.
     */
    static Object unregisterBroker(JsonNode in) throws Exception {
        try (Admin admin = Admin.create(Cases.properties(in))) {
            admin.unregisterBroker(in.get("broker").asInt()).all().get();
            return Map.of();
        }
    }

    static Object leaders(JsonNode in) throws Exception {
        String topic = in.get("topic").asText();
        try (Admin admin = Admin.create(Cases.properties(in))) {
            return admin
                    .describeTopics(List.of(topic))
                    .allTopicNames()
                    .get()
                    .get(topic)
                    .partitions()
                    .stream()
                    .map(partition -> partition.leader() == null ? -1 : partition.leader().id())
                    .toList();
        }
    }

    /**
     * Gives one partition the replicas in {@code replicas}, the first of which becomes its leader.
     */
    static Object moveLeader(JsonNode in) throws Exception {
        TopicPartition partition =
                new TopicPartition(in.get("topic").asText(), in.get("partition").asInt());
        List<Integer> replicas = new ArrayList<>();
        in.get("replicas").forEach(id -> replicas.add(id.asInt()));
        try (Admin admin = Admin.create(Cases.properties(in))) {
            admin.alterPartitionReassignments(
                            Map.of(partition, Optional.of(new NewPartitionReassignment(replicas))))
                    .all()
                    .get();
            while (!admin.listPartitionReassignments(Set.of(partition))
                    .reassignments()
                    .get()
                    .isEmpty()) {
                Thread.sleep(20);
            }
            admin.electLeaders(ElectionType.PREFERRED, Set.of(partition)).partitions().get();
            int leader = -1;
            while (leader != replicas.get(0)) {
                Thread.sleep(20);
                leader =
                        admin.describeTopics(List.of(partition.topic()))
                                .allTopicNames()
                                .get()
                                .get(partition.topic())
                                .partitions()
                                .get(partition.partition())
                                .leader()
                                .id();
            }
            return leader;
        }
    }
}
