//! kcat, as Debian ships it: an old librdkafka (2.0), which asks for old versions.

use std::io::Write;
use std::process::{Command, Stdio};
use std::sync::Once;

use serde_json::{Value, json};

use super::records::{ACKS, CODECS};
use crate::rig::Rig;

pub fn every_codec_with_every_acks(rig: &mut Rig) {
    for codec in CODECS {
        for acks in ACKS {
            there_and_back(
                rig,
                &format!("kcat {codec}, acks={acks}"),
                &["-z", codec, "-X", &format!("acks={acks}")],
            );
        }
    }
    there_and_back(rig, "kcat idempotent", &["-X", "enable.idempotence=true"]);
}

/// A client that does not ask for versions and speaks as to Kafka 0.9: message sets, no record
/// batches.
pub fn as_of_kafka_0_9(rig: &mut Rig) {
    if rig.cluster.version.starts_with("4.") {
        return rig.skip("kcat as of Kafka 0.9: Produce below 3");
    }
    there_and_back(rig, "kcat as of Kafka 0.9", OLD);
}

fn there_and_back(rig: &mut Rig, what: &str, settings: &[&str]) {
    rig.compare(what, 1, |_, place| {
        let lines: String =
            (0..50).map(|i| format!("key-{i}:value {i} {}\n", "abc".repeat(i))).collect();
        let headers: &[&str] =
            if settings == OLD { &[] } else { &["-H", "twice=1", "-H", "twice=2"] };
        let to = ["-P", "-K", ":", "-t", &place.topic, "-p", "0"];
        kcat(&place.bootstrap, &[&to, settings, headers], &lines);
        let old: &[&str] = if settings == OLD { OLD } else { &[] };
        let from = ["-C", "-q", "-t", &place.topic, "-p", "0", "-o", "beginning", "-c", "50"];
        let shown = ["-f", "%o %k %s %h\\n"];
        let read = kcat(&place.bootstrap, &[&from, &shown, old], "");
        let expected = lines.replace(':', " ");
        let values: String = read
            .lines()
            .map(|line| line.split_once(' ').unwrap().1)
            .fold(String::new(), |all, line| {
                all + line.trim_end().trim_end_matches("twice=1,twice=2").trim_end() + "\n"
            });
        let expected: String =
            expected.lines().map(|line| format!("{}\n", line.trim_end())).collect();
        assert_eq!(values, expected, "{what}");
        json!(read)
    });
}

/// `kcat -L`: brokers, addresses, leaders.
pub fn lists_the_cluster(rig: &mut Rig) {
    rig.compare("kcat -L", 3, |_, place| {
        let text = kcat(&place.bootstrap, &[&["-L", "-J", "-t", &place.topic]], "");
        let mut list: Value = serde_json::from_str(&text).unwrap();
        assert!(!list["brokers"].as_array().unwrap().is_empty());
        // Which broker was asked, and who a broker says is the controller, are chosen at random.
        for random in ["originating_broker", "query", "controllerid"] {
            list.as_object_mut().unwrap().remove(random);
        }
        list["brokers"].as_array_mut().unwrap().sort_by_key(|broker| broker["id"].as_i64());
        list
    });
}

/// Runs kcat with input; gives its output.
pub fn kcat(bootstrap: &str, arguments: &[&[&str]], input: &str) -> String {
    let mut command = command(60);
    command.args(["kcat", "-b", bootstrap]).args(arguments.concat());
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
    let done = child.wait_with_output().unwrap();
    let errors = String::from_utf8_lossy(&done.stderr);
    assert!(done.status.success(), "{command:?}: {}\n{errors}", done.status);
    String::from_utf8(done.stdout).unwrap()
}

/// A command that ends after so many seconds, for kcat, which is installed if it is not there.
pub fn command(seconds: u32) -> Command {
    static INSTALLED: Once = Once::new();
    INSTALLED.call_once(install);
    let mut command = Command::new("timeout");
    command.arg(seconds.to_string());
    // Cargo puts the folder with our own librdkafka there, which has no TLS and is newer.
    command.env_remove("LD_LIBRARY_PATH");
    command
}

fn install() {
    if Command::new("kcat").arg("-V").output().is_err() {
        let done = Command::new("apt-get").args(["install", "-y", "-qq", "kcat"]).status();
        assert!(
            done.is_ok_and(|status| status.success()),
            "kcat is missing and cannot be installed"
        );
    }
}

const OLD: &[&str] =
    &["-X", "api.version.request=false", "-X", "broker.version.fallback=0.9.0", "-X", "acks=1"];
