import java.io.BufferedReader;
import java.io.IOException;
import java.io.InputStreamReader;
import java.util.Map;
import java.util.Properties;
import java.util.concurrent.ExecutionException;

/** What every driver needs: steps whose failures are told, not fatal; settings; leader moves. */
final class Steps {
    interface Step {
        void run() throws Exception;
    }

    private static final BufferedReader IN =
            new BufferedReader(new InputStreamReader(System.in));

    private Steps() {}

    /** Runs one step; an error answer is a frame too, so a failure is printed and passed over. */
    static void step(String name, Step step) {
        try {
            step.run();
            System.out.println("done " + name);
        } catch (Exception e) {
            Throwable cause = e instanceof ExecutionException ? e.getCause() : e;
            System.out.println("error " + name + " " + cause);
        }
    }

    /** Asks the capture to move the topic's leaders, and waits until it has. */
    static void move(String topic) throws IOException {
        System.out.println("MOVE " + topic);
        System.out.flush();
        IN.readLine();
    }

    static Properties settings(String bootstrap, Object... pairs) {
        Properties settings = new Properties();
        settings.put("bootstrap.servers", bootstrap);
        for (int i = 0; i < pairs.length; i += 2) {
            settings.put((String) pairs[i], String.valueOf(pairs[i + 1]));
        }
        return settings;
    }

    static Properties sasl(Properties settings, String user, String password) {
        settings.put("security.protocol", "SASL_PLAINTEXT");
        settings.put("sasl.mechanism", "PLAIN");
        settings.put("sasl.jaas.config",
                "org.apache.kafka.common.security.plain.PlainLoginModule required username=\""
                        + user + "\" password=\"" + password + "\";");
        return settings;
    }

    static <K, V> Map<K, V> one(K key, V value) {
        return Map.of(key, value);
    }
}
