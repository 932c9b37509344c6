import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.ObjectMapper;
import com.fasterxml.jackson.databind.node.ObjectNode;

import java.io.BufferedReader;
import java.io.FileDescriptor;
import java.io.FileOutputStream;
import java.io.InputStreamReader;
import java.io.PrintStream;
import java.nio.charset.StandardCharsets;
import java.util.HashMap;
import java.util.Map;
import java.util.Properties;
import java.util.concurrent.ExecutionException;
import java.util.concurrent.ExecutorService;
import java.util.concurrent.Executors;

/**
 * One JVM that runs the cases of the Java clients: a JSON command a line on stdin, a JSON answer a
 * line on stdout, matched by {@code id}. Each command runs on its own thread, so a load can go on
 * beside other cases.
 */
public final class Cases {
    static final ObjectMapper JSON = new ObjectMapper();

    /** What a command does: a JSON object in, anything Jackson can write out. */
    interface Command {
        Object run(JsonNode in) throws Exception;
    }

    private static final Map<String, Command> COMMANDS = new HashMap<>();

    public static void main(String[] args) throws Exception {
        PrintStream answers =
                new PrintStream(
                        new FileOutputStream(FileDescriptor.out), true, StandardCharsets.UTF_8);
        System.setOut(System.err);
        COMMANDS.put(
                "versions",
                in -> Map.of("client", org.apache.kafka.common.utils.AppInfoParser.getVersion()));
        COMMANDS.put("produce", Records::produce);
        COMMANDS.put("consume", Records::consume);
        COMMANDS.put("large", Records::large);
        COMMANDS.put("transactions", Transactions::run);
        COMMANDS.put("group", Groups::run);
        COMMANDS.put("read-group", Readers::run);
        COMMANDS.put("admin", Admins::run);
        COMMANDS.put("create-topic", Admins::createTopic);
        COMMANDS.put("delete-topic", Admins::deleteTopic);
        COMMANDS.put("unregister-broker", Admins::unregisterBroker);
        COMMANDS.put("leaders", Admins::leaders);
        COMMANDS.put("move-leader", Admins::moveLeader);
        COMMANDS.put("load-start", Load::start);
        COMMANDS.put("load-acked", Load::acked);
        COMMANDS.put("load-stop", Load::stop);
        COMMANDS.put("keyed-start", Keyed::start);
        COMMANDS.put("keyed-acked", Keyed::acked);
        COMMANDS.put("keyed-stop", Keyed::stop);
        COMMANDS.put("follow-start", Follower::start);
        COMMANDS.put("follow-stop", Follower::stop);
        COMMANDS.put("commit-start", Follower::commitStart);
        COMMANDS.put("cluster-config", Keyed::clusterConfig);
        COMMANDS.put("scram-user", Security::scramUser);
        COMMANDS.put("deny", Security::deny);
        COMMANDS.put("round", Security::round);
        optional("share", "Share", "run");
        ExecutorService threads =
                Executors.newCachedThreadPool(
                        task -> {
                            Thread thread = new Thread(task);
                            thread.setDaemon(true);
                            return thread;
                        });
        BufferedReader lines =
                new BufferedReader(new InputStreamReader(System.in, StandardCharsets.UTF_8));
        for (String line = lines.readLine(); line != null; line = lines.readLine()) {
            JsonNode in = JSON.readTree(line);
            threads.submit(
                    () -> {
                        ObjectNode answer = JSON.createObjectNode();
                        answer.set("id", in.get("id"));
                        try {
                            Command command = COMMANDS.get(in.get("do").asText());
                            if (command == null) {
                                answer.put(
                                        "lacks",
                                        "this client version has no " + in.get("do").asText());
                            } else {
                                answer.set("ok", JSON.valueToTree(command.run(in)));
                            }
                        } catch (Throwable error) {
                            error.printStackTrace();
                            answer.put("error", describe(error));
                        }
                        synchronized (answers) {
                            answers.println(answer);
                        }
                    });
        }
        System.exit(0);
    }

    /**
     * Registers a command of a class that is compiled only where the client version has its API.
     */
    private static void optional(String name, String type, String method)
            throws NoSuchMethodException {
        try {
            var found = Class.forName(type).getDeclaredMethod(method, JsonNode.class);
            COMMANDS.put(name, in -> found.invoke(null, in));
        } catch (ClassNotFoundException absent) {
            System.err.println(name + ": not in this client version");
        }
    }

    /** Client properties: the bootstrap servers and everything under {@code config}. */
    static Properties properties(JsonNode in, Object... more) {
        Properties properties = new Properties();
        properties.put("bootstrap.servers", in.get("bootstrap").asText());
        for (int i = 0; i < more.length; i += 2) {
            properties.put(more[i], String.valueOf(more[i + 1]));
        }
        JsonNode config = in.get("config");
        if (config != null) {
            config.fields()
                    .forEachRemaining(
                            field -> properties.put(field.getKey(), field.getValue().asText()));
        }
        return properties;
    }

    /** The class and the text of what a client was told, without the wrapping of futures. */
    static String describe(Throwable error) {
        Throwable cause = error;
        while ((cause instanceof ExecutionException
                        || cause instanceof java.lang.reflect.InvocationTargetException)
                && cause.getCause() != null) {
            cause = cause.getCause();
        }
        return cause.getClass().getSimpleName() + ": " + cause.getMessage();
    }

    static String text(JsonNode in, String name, String otherwise) {
        return in.has(name) ? in.get(name).asText() : otherwise;
    }

    static int number(JsonNode in, String name, int otherwise) {
        return in.has(name) ? in.get(name).asInt() : otherwise;
    }
}
