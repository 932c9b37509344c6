import com.fasterxml.jackson.databind.JsonNode;

import org.apache.kafka.clients.admin.Admin;
import org.apache.kafka.clients.consumer.OffsetAndMetadata;
import org.apache.kafka.common.TopicPartition;
import org.apache.kafka.common.acl.AccessControlEntry;
import org.apache.kafka.common.acl.AclBinding;
import org.apache.kafka.common.acl.AclBindingFilter;
import org.apache.kafka.common.acl.AclOperation;
import org.apache.kafka.common.acl.AclPermissionType;
import org.apache.kafka.common.quota.ClientQuotaAlteration;
import org.apache.kafka.common.quota.ClientQuotaEntity;
import org.apache.kafka.common.quota.ClientQuotaFilter;
import org.apache.kafka.common.resource.PatternType;
import org.apache.kafka.common.resource.ResourcePattern;
import org.apache.kafka.common.resource.ResourceType;

import java.util.List;
import java.util.Map;
import java.util.Set;

/** Groups, producers and transactions; ACLs, quotas, users and tokens. */
final class GroupSteps extends Steps {
    GroupSteps(Admin admin, JsonNode in, Map<String, Object> out) {
        super(admin, in, out);
    }

    @Override
    void run() {
        groups();
        producers();
        security();
    }

    private void groups() {
        String group = topic + "-group";
        TopicPartition zero = new TopicPartition(topic, 0);
        step(
                "alter group offsets",
                () ->
                        admin.alterConsumerGroupOffsets(
                                        group, Map.of(zero, new OffsetAndMetadata(17, "note")))
                                .all()
                                .get());
        step(
                "list groups",
                () ->
                        admin.listConsumerGroups().all().get().stream()
                                .anyMatch(listing -> listing.groupId().equals(group)));
        step(
                "describe group",
                () -> {
                    var description =
                            admin.describeConsumerGroups(List.of(group)).all().get().get(group);
                    return description.groupId()
                            + " "
                            + description.state()
                            + " "
                            + description.members().size();
                });
        step(
                "coordinator",
                () ->
                        brokers.contains(
                                admin.describeConsumerGroups(List.of(group))
                                        .all()
                                        .get()
                                        .get(group)
                                        .coordinator()
                                        .id()));
        step(
                "group offsets",
                () ->
                        String.valueOf(
                                admin.listConsumerGroupOffsets(group)
                                        .partitionsToOffsetAndMetadata()
                                        .get()
                                        .get(zero)
                                        .offset()));
        step(
                "delete group offsets",
                () -> admin.deleteConsumerGroupOffsets(group, Set.of(zero)).all().get());
        step(
                "alter group offsets again",
                () ->
                        admin.alterConsumerGroupOffsets(
                                        group, Map.of(zero, new OffsetAndMetadata(18)))
                                .all()
                                .get());
        step("delete group", () -> admin.deleteConsumerGroups(List.of(group)).all().get());
        step(
                "describe group: gone",
                () ->
                        String.valueOf(
                                admin.describeConsumerGroups(List.of(group))
                                        .all()
                                        .get()
                                        .get(group)
                                        .state()));
        step("delete group: gone", () -> admin.deleteConsumerGroups(List.of(group)).all().get());
    }

    private void producers() {
        TopicPartition zero = new TopicPartition(topic, 0);
        step(
                "describe producers",
                () ->
                        admin
                                .describeProducers(List.of(zero))
                                .all()
                                .get()
                                .get(zero)
                                .activeProducers()
                                .stream()
                                .map(producer -> producer.lastSequence())
                                .sorted()
                                .toList());
        step(
                "transactions",
                () -> {
                    try (var producer = Records.producer(in, "transactional.id", topic)) {
                        producer.initTransactions();
                        producer.beginTransaction();
                        producer.send(Records.record(topic, 1, 1, 10)).get();
                        var description =
                                admin.describeTransactions(List.of(topic)).all().get().get(topic);
                        String listed =
                                String.valueOf(
                                        admin.listTransactions().all().get().stream()
                                                .filter(
                                                        listing ->
                                                                listing.transactionalId()
                                                                        .equals(topic))
                                                .map(listing -> listing.state())
                                                .toList());
                        producer.abortTransaction();
                        return description.state()
                                + " "
                                + description.topicPartitions()
                                + " "
                                + listed;
                    }
                });
        step(
                "describe transactions: unknown",
                () -> admin.describeTransactions(List.of(topic + "-no")).all().get());
        step("fence producers", () -> admin.fenceProducers(List.of(topic)).all().get());
    }

    private void security() {
        ResourcePattern pattern =
                new ResourcePattern(ResourceType.TOPIC, topic, PatternType.LITERAL);
        AclBinding acl =
                new AclBinding(
                        pattern,
                        new AccessControlEntry(
                                "User:*", "*", AclOperation.WRITE, AclPermissionType.DENY));
        step("create acls", () -> admin.createAcls(List.of(acl)).all().get());
        step(
                "describe acls",
                () -> {
                    for (int i = 0;
                            i < 100 && admin.describeAcls(acl.toFilter()).values().get().isEmpty();
                            i++) {
                        Thread.sleep(50);
                    }
                    return String.valueOf(admin.describeAcls(acl.toFilter()).values().get());
                });
        step(
                "produce against the acl",
                () -> {
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
        step(
                "all acls",
                () -> {
                    // Brokers hear of it one after the other.
                    for (int i = 0;
                            i < 100
                                    && !admin.describeAcls(AclBindingFilter.ANY)
                                            .values()
                                            .get()
                                            .isEmpty();
                            i++) {
                        Thread.sleep(50);
                    }
                    return admin.describeAcls(AclBindingFilter.ANY).values().get().size();
                });
        ClientQuotaEntity entity = new ClientQuotaEntity(Map.of("client-id", topic));
        step(
                "alter quotas",
                () ->
                        admin.alterClientQuotas(
                                        List.of(
                                                new ClientQuotaAlteration(
                                                        entity,
                                                        List.of(
                                                                new ClientQuotaAlteration.Op(
                                                                        "producer_byte_rate",
                                                                        1e9)))))
                                .all()
                                .get());
        step(
                "describe quotas",
                () -> {
                    Map<String, Double> quotas = null;
                    for (int i = 0; i < 200 && quotas == null; i++) {
                        quotas =
                                admin.describeClientQuotas(ClientQuotaFilter.all())
                                        .entities()
                                        .get()
                                        .get(entity);
                        Thread.sleep(20);
                    }
                    return String.valueOf(quotas);
                });
        step(
                "alter quotas: back",
                () ->
                        admin.alterClientQuotas(
                                        List.of(
                                                new ClientQuotaAlteration(
                                                        entity,
                                                        List.of(
                                                                new ClientQuotaAlteration.Op(
                                                                        "producer_byte_rate",
                                                                        null)))))
                                .all()
                                .get());
        step("scram users", () -> admin.describeUserScramCredentials().all().get().size());
        step(
                "delegation tokens",
                () -> admin.describeDelegationToken().delegationTokens().get().size());
        step(
                "create delegation token",
                () -> admin.createDelegationToken().delegationToken().get() != null);
    }
}
