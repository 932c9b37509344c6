import com.fasterxml.jackson.databind.JsonNode;

import org.apache.kafka.clients.admin.Admin;
import org.apache.kafka.clients.admin.ScramCredentialInfo;
import org.apache.kafka.clients.admin.ScramMechanism;
import org.apache.kafka.clients.admin.UserScramCredentialAlteration;
import org.apache.kafka.clients.admin.UserScramCredentialUpsertion;
import org.apache.kafka.common.acl.AccessControlEntry;
import org.apache.kafka.common.acl.AclBinding;
import org.apache.kafka.common.acl.AclOperation;
import org.apache.kafka.common.acl.AclPermissionType;
import org.apache.kafka.common.resource.PatternType;
import org.apache.kafka.common.resource.ResourcePattern;
import org.apache.kafka.common.resource.ResourceType;

import java.util.List;
import java.util.Map;
import java.util.TreeMap;

/** Users, ACLs, and clients that may be refused. */
final class Security {
    /** Gives a user a password for both SCRAM mechanisms, one in each request. */
    static Object scramUser(JsonNode in) throws Exception {
        String user = in.get("user").asText();
        try (Admin admin = Admin.create(Cases.properties(in))) {
            for (ScramMechanism mechanism :
                    List.of(ScramMechanism.SCRAM_SHA_256, ScramMechanism.SCRAM_SHA_512)) {
                UserScramCredentialAlteration change =
                        new UserScramCredentialUpsertion(
                                user,
                                new ScramCredentialInfo(mechanism, 8192),
                                in.get("password").asText());
                admin.alterUserScramCredentials(List.of(change)).all().get();
            }
        }
        return Map.of();
    }

    /**
     * Allows a principal everything but one operation on a topic, or on all whose names begin so.
     */
    static Object deny(JsonNode in) throws Exception {
        PatternType kind = in.has("prefix") ? PatternType.PREFIXED : PatternType.LITERAL;
        String name = Cases.text(in, "prefix", Cases.text(in, "topic", ""));
        var what = new ResourcePattern(ResourceType.TOPIC, name, kind);
        String who = in.get("principal").asText();
        var operation = AclOperation.fromString(in.get("operation").asText());
        var all = new AccessControlEntry(who, "*", AclOperation.ALL, AclPermissionType.ALLOW);
        var but = new AccessControlEntry(who, "*", operation, AclPermissionType.DENY);
        try (Admin admin = Admin.create(Cases.properties(in))) {
            var binding = new AclBinding(what, but);
            admin.createAcls(List.of(new AclBinding(what, all), binding)).all().get();
            while (admin.describeAcls(binding.toFilter()).values().get().isEmpty()) {
                Thread.sleep(20);
            }
        }
        return Map.of();
    }

    /** Writes records and reads them back; what is refused is told by the names of errors. */
    static Object round(JsonNode in) {
        Map<String, Object> out = new TreeMap<>();
        out.put("produced", outcome(() -> answers(in)));
        out.put(
                "read",
                outcome(
                        () -> {
                            try (var consumer =
                                    Records.consumer(
                                            in,
                                            "auto.offset.reset",
                                            "earliest",
                                            "default.api.timeout.ms",
                                            "15000")) {
                                return Records.digests(consumer, in.get("topic").asText(), 0);
                            }
                        }));
        return out;
    }

    private static Object answers(JsonNode in) throws Exception {
        Map<String, Integer> answers = new TreeMap<>();
        int partitions = Cases.number(in, "partitions", 1);
        try (var producer =
                Records.producer(
                        in,
                        "acks",
                        "all",
                        "max.block.ms",
                        "15000",
                        "request.timeout.ms",
                        "10000",
                        "delivery.timeout.ms",
                        "20000")) {
            for (int i = 0; i < Cases.number(in, "count", 20); i++) {
                String answer;
                try {
                    producer.send(Records.record(in.get("topic").asText(), partitions, i, 200))
                            .get();
                    answer = "written";
                } catch (Exception error) {
                    answer = name(error);
                }
                answers.merge(answer, 1, Integer::sum);
                if (!answer.equals("written") && in.has("until_refused")) {
                    break;
                }
            }
        }
        return answers;
    }

    private interface Attempt {
        Object run() throws Exception;
    }

    private static Object outcome(Attempt attempt) {
        try {
            return attempt.run();
        } catch (Exception error) {
            error.printStackTrace();
            return name(error);
        }
    }

    private static String name(Throwable error) {
        Throwable cause = error;
        while (cause instanceof java.util.concurrent.ExecutionException
                || cause.getClass().equals(org.apache.kafka.common.KafkaException.class)) {
            if (cause.getCause() == null) {
                break;
            }
            cause = cause.getCause();
        }
        return cause.getClass().getSimpleName();
    }
}
