import com.fasterxml.jackson.databind.JsonNode;

import org.apache.kafka.clients.admin.Admin;

import java.util.List;
import java.util.Map;

/** Takes the topic away again. */
final class EndSteps extends Steps {
    EndSteps(Admin admin, JsonNode in, Map<String, Object> out) {
        super(admin, in, out);
    }

    @Override
    void run() {
        step("delete topics", () -> admin.deleteTopics(List.of(topic)).all().get());
        step(
                "delete topics: gone",
                () -> {
                    while (admin.listTopics().names().get().contains(topic)) {
                        Thread.sleep(20);
                    }
                    return admin.deleteTopics(List.of(topic)).all().get();
                });
    }
}
