//! The command line: `firebreak check` and wrong usage.

use std::process::{Command, Output};

use crate::harness::proxy::Folder;

fn firebreak(arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_firebreak"));
    command.args(arguments).env_remove("KAFKA_BOOTSTRAP_SERVERS");
    command.output().expect("firebreak runs")
}

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
    let missing = firebreak(&["check", "no-such-file.toml"]);
    assert_eq!(missing.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&missing.stderr).contains("no-such-file.toml"));
}

#[test]
fn wrong_usage_has_exit_code_2_and_help_exit_code_0() {
    assert_eq!(firebreak(&["--no-such-flag"]).status.code(), Some(2));
    assert_eq!(firebreak(&["--listen", "127.0.0.1:19092"]).status.code(), Some(2));
    let help = firebreak(&["--help"]);
    assert_eq!(help.status.code(), Some(0));
    let text = String::from_utf8_lossy(&help.stdout);
    assert!(text.contains("Example:") && text.contains("check"), "{text}");
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
