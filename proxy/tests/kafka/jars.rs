//! Kafka's jars, by the script that the quickstart uses: Maven, one cache (`FIREBREAK_CACHE`), one
//! lock.

use std::path::{Path, PathBuf};
use std::process::Command;

/// The folder with the jars of `version`, fetched the first time.
pub fn folder(version: &str) -> PathBuf {
    let done = Command::new("bash").arg(compose("jars.sh")).arg(version).output().unwrap();
    let errors = String::from_utf8_lossy(&done.stderr);
    assert!(done.status.success(), "compose/jars.sh {version}:\n{errors}");
    PathBuf::from(String::from_utf8(done.stdout).unwrap().trim())
}

/// `java` with these jars and Kafka's logging settings, ready for a class name.
pub fn java(jars: &Path, options: &[&str], more_classes: Option<&Path>) -> Command {
    let mut classes = more_classes.map_or_else(String::new, |path| format!("{}:", path.display()));
    classes.push_str(&format!("{}/*", jars.display()));
    let mut java = Command::new("java");
    java.args(["-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC"]).args(options);
    java.arg(format!("-Dlog4j2.configurationFile={}", compose("log4j2.properties").display()));
    java.arg("-cp").arg(classes);
    java
}

/// A file of the folder `compose`.
pub fn compose(file: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().join("compose").join(file)
}
