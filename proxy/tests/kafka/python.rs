//! Clients of Python, which are fetched the first time, and the scripts in `python/`.

use std::path::Path;
use std::process::Command;
use std::sync::Once;

use serde_json::Value;

/// kafka-python, and confluent-kafka, which is librdkafka of the same version with TLS built in.
const CLIENTS: [&str; 2] = ["kafka-python==3.0.12", "confluent-kafka==2.16.1"];

/// Runs its further arguments with its first as the machine's file of hosts.
const OWN_HOSTS: &str = r#"mount --bind "$0" /etc/hosts && exec "$@""#;

/// Runs a script and gives the JSON that it prints last. librdkafka takes names from the machine
/// only: it can get a file of hosts of its own.
pub fn run(script: &str, wanted: &Value, hosts: Option<&Path>) -> Value {
    static FETCHED: Once = Once::new();
    let name = format!("python-clients-{}", CLIENTS.join("-").replace("==", "-"));
    let folder = crate::jars::folder("4.3.1").with_file_name(name);
    FETCHED.call_once(|| fetch(&folder));
    let mut python = Command::new("timeout");
    // Cargo puts the folder with our own librdkafka there.
    python.arg("120").env_remove("LD_LIBRARY_PATH");
    if let Some(hosts) = hosts {
        python.args(["unshare", "--map-root-user", "--mount", "sh", "-c", OWN_HOSTS]).arg(hosts);
    }
    let scripts = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/kafka/python");
    python.arg(folder.join("bin/python")).arg(scripts.join(script)).arg(wanted.to_string());
    let done = python.output().unwrap();
    let errors = String::from_utf8_lossy(&done.stderr);
    let last = String::from_utf8_lossy(&done.stdout).lines().last().unwrap_or_default().to_owned();
    serde_json::from_str(&last).unwrap_or_else(|_| panic!("{script}: {last}\n{errors}"))
}

fn fetch(folder: &Path) {
    let imports = ["-c", "import kafka, confluent_kafka"];
    let tried = Command::new(folder.join("bin/python")).args(imports).output();
    if tried.is_ok_and(|done| done.status.success()) {
        return;
    }
    let made = Command::new("python3").args(["-m", "venv"]).arg(folder).status();
    assert!(made.is_ok_and(|status| status.success()), "python3 with venv is needed");
    let done = Command::new(folder.join("bin/pip")).args(["install", "-q"]).args(CLIENTS).status();
    assert!(done.is_ok_and(|status| status.success()), "{CLIENTS:?} cannot be fetched");
}
