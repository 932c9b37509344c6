//! A Java client of 2017 (kafka-clients 0.11), in a JVM of its own: Produce 3, Fetch 5, groups.

use serde_json::json;

use crate::process::Scratch;
use crate::rig::{Place, Rig};
use crate::{driver, jars};

/// With every codec it knows; zstd came later.
pub fn java_of_kafka_0_11(rig: &mut Rig) {
    let jars = jars::folder("0.11.0.3");
    let classes = Scratch::new("old-client");
    driver::compile(&[driver::folder().join("old/OldClient.java")], &jars, classes.path());
    let before = answers(rig);
    for codec in ["none", "gzip", "snappy", "lz4"] {
        rig.compare(&format!("Java 0.11, {codec}"), 2, |_, place| {
            let lines = run(jars::java(&jars, &["-Xmx128m"], Some(classes.path())), place, codec);
            for word in ["sent", "read"] {
                let count = lines.iter().filter(|line| line.starts_with(word)).count();
                assert_eq!(count, 60, "{word} with {codec}: {lines:#?}");
            }
            json!(lines)
        });
    }
    let more = before.iter().zip(answers(rig)).all(|(before, after)| after > *before);
    assert!(more, "Produce 3 and Fetch 5: {before:?} answers, then {:?}", answers(rig));
}

fn run(mut java: std::process::Command, place: &Place, codec: &str) -> Vec<String> {
    let done = java.args(["OldClient", &place.bootstrap, &place.topic, codec]).output().unwrap();
    let errors = String::from_utf8_lossy(&done.stderr);
    assert!(done.status.success(), "OldClient: {}\n{errors}", done.status);
    String::from_utf8(done.stdout).unwrap().lines().map(str::to_owned).collect()
}

/// How many answers of the versions that only such a client asks for were searched so far.
fn answers(rig: &Rig) -> [usize; 2] {
    let apis = rig.relay.findings().apis;
    [(0, 3), (1, 5)].map(|api| apis.get(&api).map_or(0, |counts| counts.responses))
}
