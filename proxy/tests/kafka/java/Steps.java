import com.fasterxml.jackson.databind.JsonNode;

import org.apache.kafka.clients.admin.Admin;
import org.apache.kafka.common.Node;

import java.util.ArrayList;
import java.util.List;
import java.util.Map;
import java.util.concurrent.Callable;

/** What the groups of admin steps share: each step leaves its result, or the text of its error. */
abstract class Steps {
    final Admin admin;
    final JsonNode in;
    final String topic;
    final List<Integer> brokers = new ArrayList<>();
    final Map<String, Object> out;

    Steps(Admin admin, JsonNode in, Map<String, Object> out) {
        this.admin = admin;
        this.in = in;
        this.out = out;
        topic = in.get("topic").asText();
        in.get("brokers").forEach(broker -> brokers.add(broker.asInt()));
    }

    abstract void run();

    void step(String name, Callable<Object> call) {
        Object result;
        try {
            result = call.call();
        } catch (Exception error) {
            result = "error " + Cases.describe(error);
        }
        out.put(name, result == null ? "done" : result);
    }

    /** A client that gives up soon, for nodes that are not there. */
    Admin hasty() {
        return Admin.create(
                Cases.properties(in, "default.api.timeout.ms", 2000, "request.timeout.ms", 1000));
    }

    /**
     * A node as clients see it; the harness turns the address into the node's name before it
     * compares.
     */
    static String node(Node node) {
        return node.id() + "=" + node.host() + ":" + node.port();
    }
}
