//! The command line: `firebreak check` and wrong usage.

use std::process::{Command, Output};

use crate::harness::proxy::Folder;

fn firebreak(arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_firebreak"));
    command.args(arguments).env_remove("KAFKA_BOOTSTRAP_SERVERS");
    command.output().expect("firebreak runs")
}

/// The problem lines of a file that is refused.
fn problems(toml: &str) -> Vec<String> {
    let (code, out, err) = check(toml);
    assert_eq!((code, out.as_str()), (Some(2), ""), "{err}");
    err.lines().skip(1).map(|line| line.trim().to_owned()).collect()
}

fn told(toml: &str, lines: &[&str]) {
    let problems = problems(toml);
    for line in lines {
        assert!(problems.iter().any(|p| p.starts_with(line)), "{line} is not in {problems:#?}");
    }
    assert_eq!(problems.len(), lines.len(), "{problems:#?}");
}

const CLUSTER: &str = "[[cluster]]\nbootstrap = [\"kafka-1:9092\"]\n";

fn check(toml: &str) -> (Option<i32>, String, String) {
    let folder = Folder::new();
    let file = folder.path().join("firebreak.toml");
    std::fs::write(&file, toml).expect("a file");
    let output = firebreak(&["check", &file.display().to_string()]);
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (output.status.code(), text(&output.stdout), text(&output.stderr))
}

#[test]
fn check_tells_every_problem_at_once_with_exit_code_2() {
    let (code, out, err) = check(
        r#"
        [listen]
        bootstrap = "nowhere"
        [[cluster]]
        bootstrap = ["kafka-1"]
        node_id_base = 5
        [store]
        kind = "tape"
        [[offload]]
        topics = []
        threshold_bytes = 3
        [[quota]]
        client_id = "*"
        [limits]
        connections_max = 0
        drain_ms = -1
        "#,
    );
    assert_eq!(code, Some(2), "{err}");
    assert_eq!(out, "", "problems belong to stderr");
    for key in [
        "listen.bootstrap: ",
        "cluster.bootstrap: ",
        "cluster.node_id_base: ",
        "store.kind: ",
        "offload[0].topics: ",
        "offload[0].threshold_bytes: ",
        "quota: ",
        "limits.connections_max: ",
        "limits.drain_ms: ",
    ] {
        let lines = err.lines().filter(|line| line.trim_start().starts_with(key)).count();
        assert_eq!(lines, 1, "{key} in:\n{err}");
    }
    assert!(err.starts_with("configuration has 9 problem(s):"), "{err}");
}

#[test]
fn check_of_a_valid_file_has_exit_code_0() {
    let (code, out, err) = check("[[cluster]]\nbootstrap = [\"kafka-1:9092\"]\n");
    assert_eq!((code, out.as_str(), err.as_str()), (Some(0), "configuration is valid\n", ""));
}

#[test]
fn check_of_a_file_that_is_no_toml_or_is_not_there_has_exit_code_2() {
    let (code, _, err) = check("[listen\n");
    assert_eq!(code, Some(2), "{err}");
    let named = firebreak(&["check", "--config", "no-such-file.toml"]);
    assert_eq!(named.status.code(), Some(2));
    let missing = firebreak(&["check", "no-such-file.toml"]);
    assert_eq!(missing.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&missing.stderr).contains("no-such-file.toml"));
}

#[test]
fn wrong_usage_has_exit_code_2_and_help_exit_code_0() {
    assert_eq!(firebreak(&["--no-such-flag"]).status.code(), Some(2));
    assert_eq!(firebreak(&["--listen", "127.0.0.1:19092"]).status.code(), Some(2));
    // Its brokers are told by a flag; that nobody answers there is no wrong usage.
    let analyse = firebreak(&["analyse", "t", "--upstream", "127.0.0.1:1"]);
    assert_eq!(analyse.status.code(), Some(3), "{}", String::from_utf8_lossy(&analyse.stderr));
    let help = firebreak(&["--help"]);
    assert_eq!(help.status.code(), Some(0));
    let text = String::from_utf8_lossy(&help.stdout);
    assert!(text.contains("Example:") && text.contains("check"), "{text}");
}

#[test]
fn prices_alone_make_a_cost_table_that_says_where_each_claim_holds() {
    let prices = format!("{}/../docs/prices.example.toml", env!("CARGO_MANIFEST_DIR"));
    let priced = firebreak(&["analyse", "--prices", &prices]);
    let text = String::from_utf8_lossy(&priced.stdout);
    assert_eq!(priced.status.code(), Some(0), "{text}");
    // Each of 100 KB, 1 MB, 8 MB over 7, 30 and 90 days.
    let rows = text.lines().filter(|line| line.matches(" %").count() == 3);
    assert_eq!(rows.count(), 9, "{text}");
    for claim in ["78 % less money for storage: holds ", "90 % less money with requests: holds "] {
        assert!(text.contains(claim), "{text}");
    }
    let json = firebreak(&["analyse", "--prices", &prices, "--json"]);
    let json: serde_json::Value = serde_json::from_slice(&json.stdout).expect("one object");
    assert_eq!(json["rows"].as_array().map(Vec::len), Some(9), "{json}");
    assert_eq!(json["claims"].as_array().map(Vec::len), Some(5), "{json}");
    let missing = firebreak(&["analyse", "--prices", "no-such-file.toml"]);
    assert_eq!(missing.status.code(), Some(2));
    let neither = firebreak(&["analyse"]);
    assert_eq!(neither.status.code(), Some(2), "neither topic nor prices");
    let told = String::from_utf8_lossy(&neither.stderr).into_owned();
    assert!(told.contains("--prices FILE"), "{told}");
}

#[test]
fn virtual_topics_of_clients_that_prove_who_they_are_need_an_identity_of_the_proxy() {
    let folder = Folder::new();
    let users = folder.path().join("users");
    std::fs::write(&users, "alice:x\n").expect("a file");
    let toml = |sees: &str, own: &str| {
        format!(
            "[listen]\nsasl = {{ mechanisms = [\"PLAIN\"], users_file = {users:?}, \
             brokers_see = \"{sees}\" }}\n[[cluster]]\nbootstrap = [\"k:9092\"]\n{own}\n\
             [[virtual_topic]]\nname = \"v\"\nregion = {{ header = \"r\" }}\n\
             [[region]]\nname = \"a\"\n"
        )
    };
    for sees in ["proxy", "client"] {
        let (code, _, err) = check(&toml(sees, ""));
        assert_eq!(code, Some(2), "{err}");
        assert!(err.contains("cluster.sasl: is missing: parts of virtual topics"), "{err}");
        let own = folder.path().join("own");
        std::fs::write(&own, "secret\n").expect("a file");
        let own = format!(
            "sasl = {{ mechanism = \"PLAIN\", username = \"f\", password_file = {own:?} }}"
        );
        let (code, _, err) = check(&toml(sees, &own));
        assert_eq!(code, Some(0), "{err}");
    }
}

#[test]
fn load_balancers_are_addresses_or_nets() {
    let toml = |nets: &str| {
        format!("[listen]\nproxy_protocol_from = {nets}\n[[cluster]]\nbootstrap = [\"k:9092\"]\n")
    };
    let (code, _, err) = check(&toml("[\"10.0.1.0/24\", \"::1\"]"));
    assert_eq!(code, Some(0), "{err}");
    for bad in ["10.0.1.1/24", "lb.example.org", "10.0.0.0/33"] {
        let (code, _, err) = check(&toml(&format!("[{bad:?}]")));
        assert_eq!(code, Some(2), "{err}");
        let line = format!("listen.proxy_protocol_from: \"{bad}\" is no net");
        assert!(err.contains(&line), "{err}");
    }
}

#[test]
fn keys_that_cannot_be_read_hide_no_others() {
    told(
        "[listen]\nadvertize = \"x\"\nports = 7\n[[cluster]]\nbootstrap = [\"kafka-1\"]\n\
         [admin]\naddress = \"here\"\n[limits]\nidle_ms = \"long\"\ndrain_ms = 0\n",
        &[
            "listen.advertize: is no key; here are: bootstrap",
            "listen.ports: holds the number `7` where text in quotes is due",
            "limits.idle_ms: holds the text \"long\" where a whole number is due",
            "cluster.bootstrap: \"kafka-1\" is not HOST:PORT",
            "admin.address: \"here\" is not ADDRESS:PORT",
            "limits.drain_ms: 0 is too small: at least 1",
        ],
    );
}

#[test]
fn a_table_of_an_unknown_name_is_one_problem_and_the_hint_names_what_is_taken() {
    let keys = "listen, admin, cluster, store, offload, virtual_topic, region, limits";
    let line = format!("limit: is no key; here are: {keys}");
    let lines = problems(&format!("[limit]\nidle_ms = 5\ndrain_ms = 7\n{CLUSTER}"));
    assert_eq!(lines, [line]);
}

#[test]
fn ports_that_two_listeners_want_are_told() {
    let listen = "[listen]\nbootstrap = \"127.0.0.1:19092\"\nports = \"19090-19099\"\n\
        broker_ports = { 20 = 19095, 21 = 19200, 22 = 19200 }\n\
        [admin]\naddress = \"0.0.0.0:19097\"\n";
    told(
        &format!("{listen}{CLUSTER}"),
        &[
            "listen.ports: port 19092 of broker 2 (listen.ports) is taken by the bootstrap",
            "listen.broker_ports: port 19095 of broker 20 (listen.broker_ports) is taken by br",
            "listen.broker_ports: port 19200 of broker 22 (listen.broker_ports) is taken by br",
            "admin.address: port 19097 of the admin port (admin.address) is taken by broker 7",
        ],
    );
    let apart = "[listen]\nbootstrap = \"127.0.0.1:19092\"\n\
        broker_ports = { 5 = 19098, 205 = 9999 }\n\
        [admin]\naddress = \"127.0.0.2:19093\"\n";
    let (code, _, err) = check(&format!("{apart}{CLUSTER}"));
    // Broker 5 has the place of none: its own in the range is 19098.
    assert_eq!(code, Some(0), "{err}");
}

#[test]
fn a_proxy_before_itself_is_told() {
    let listen = "[listen]\nbootstrap = \"0.0.0.0:19092\"\nadvertise = \"kafka.example.org\"\n";
    let hosts =
        "bootstrap = [\"localhost:19092\", \"KAFKA.example.org:19093\", \"10.0.0.1:19092\"]";
    told(
        &format!("{listen}[[cluster]]\n{hosts}\n"),
        &[
            "cluster.bootstrap: \"localhost:19092\" is the bootstrap listener (listen.bootstrap)",
            "cluster.bootstrap: \"KAFKA.example.org:19093\" is broker 0 (listen.ports)",
        ],
    );
}

#[test]
fn names_that_two_things_would_share_are_told() {
    let regions = "[[region]]\nname = \"c\"\n[[region]]\nname = \"b-c\"\n[[region]]\nname = \"c\"\n\
        cluster = \"elsewhere\"\n";
    let topic = |name: &str| {
        format!("[[virtual_topic]]\nname = \"{name}\"\nregion = {{ header = \"r\" }}\n")
    };
    let (a, b) = (topic("a"), topic("a-b"));
    let twice = "[[cluster]]\nname = \"main\"\nbootstrap = [\"kafka-1:9092\"]\n".repeat(2);
    told(
        &format!("{twice}{regions}{a}{b}{a}"),
        &[
            "cluster: several clusters",
            "cluster.name: \"main\" names two clusters",
            "region[2].name: \"c\" names two regions",
            "region[2].cluster: \"elsewhere\" names no [[cluster]]",
            "virtual_topic[1].name: \"a-b-c\" is the physical topic of virtual_topic[0] for b-c",
            "virtual_topic[2].name: \"a\" is virtual_topic[0] and virtual_topic[2]",
        ],
    );
}

#[test]
fn files_and_folders_of_the_store_are_looked_at() {
    told(
        &format!(
            "[store]\nkind = \"local\"\npath = \"objects\"\nkey_file = \"/no/such/key\"\n{CLUSTER}"
        ),
        &[
            "store.path: \"objects\" is relative: write a path from / on",
            "store.key_file: /no/such/key cannot be read: No such file",
        ],
    );
    let folder = Folder::new();
    let key = folder.path().join("key");
    std::fs::write(&key, "short").expect("a file");
    told(
        &format!("[store]\nkind = \"local\"\npath = \"/o\"\nkey_file = {key:?}\n{CLUSTER}"),
        &[&format!("store.key_file: {}: the key has 5 bytes, at least", key.display())],
    );
}

#[test]
fn keys_of_a_shared_cache_are_told_one_by_one() {
    let store = "[store]\nkind = \"local\"\npath = \"/o\"\n";
    let redis = |keys: &str| format!("{store}redis = {{ {keys} }}\n{CLUSTER}");
    let (code, _, err) = check(&redis("url = \"redis://cache-1\""));
    assert_eq!(code, Some(0), "{err}");
    told(
        &redis(
            "url = \"http://cache\", password_file = \"/no/such\", ttl_s = 3601, \
             value_bytes_max = 9000000, timeout_ms = 0",
        ),
        &[
            "store.redis.url: is not redis://HOST:PORT",
            "store.redis.password_file: /no/such: No such file",
            "store.redis.ttl_s: 3601 is too large: at most 3600",
            "store.redis.value_bytes_max: 9000000 is too large",
            "store.redis.timeout_ms: 0 is too small",
        ],
    );
    told(&redis("ttl_s = 1"), &["store.redis.url: is not redis://HOST:PORT"]);
    told(&redis("url = \"redis://c\", tll_s = 1"), &["store.redis: has no key tll_s"]);
    told(&redis("url = \"rediss://c\""), &["store.redis.ca: is missing: the PEM file"]);
    told(&redis("url = \"rediss://c\", ca = \"/no\""), &["store.redis.ca: /no: No such file"]);
    let plain = redis("url = \"redis://c\", ca = \"/no\"");
    told(&plain, &["store.redis.ca: belongs to a URL that begins with rediss://"]);
    told(&redis("url = \"redis://me@c\""), &["store.redis.password_file: is missing: a user"]);
    let (code, _, err) = check(&redis("url = \"redis://me:hunter2@c\""));
    assert_eq!(code, Some(2), "{err}");
    let refused = err.contains("store.redis.url: holds a password") && !err.contains("hunter2");
    assert!(refused, "{err}");
}

#[test]
fn what_the_environment_says_is_checked_too() {
    let with = |name: &str, value: &str, arguments: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_firebreak"));
        command.args(arguments).env_remove("KAFKA_BOOTSTRAP_SERVERS").env(name, value);
        let output = command.output().expect("firebreak runs");
        (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
    };
    let (code, err) = with("KAFKA_BOOTSTRAP_SERVERS", "", &["check"]);
    assert_eq!(code, Some(2), "{err}");
    assert!(err.contains("cluster.bootstrap: names no broker"), "{err}");
    assert!(err.contains("a start takes --upstream too, `check` does not"), "{err}");
    let (code, err) = with("RUST_LOG", "inof", &["check"]);
    assert_eq!(code, Some(2), "{err}");
    assert!(err.contains("RUST_LOG: \"inof\" has \"inof\", which is no level"), "{err}");
    assert!(err.starts_with("configuration has 2 problem(s):"), "{err}");
    for workers in ["0", "1025", "many"] {
        let (code, err) = with("RUST_LOG", "info", &["--workers", workers, "--upstream", "a:1"]);
        assert_eq!(code, Some(2), "{workers}: {err}");
        assert!(err.contains("--workers"), "{err}");
    }
}
