//! One topic with values in a store, read by every kind of client with its own checks of CRCs on:
//! what each of them prints is what was sent, byte for byte.

use std::process::Command;

use rdkafka::message::Message;
use rdkafka::producer::{BaseRecord, Producer};

use super::librdkafka::{TIMEOUT, producer, read_as};
use super::offload::start;
use super::{kcat, sha256, tools};
use crate::franz_go;
use crate::process::Scratch;
use crate::proxy::Proxy;
use crate::rig::{Place, Rig, tell};

/// A client, and how it reads so many records: their values, in any order.
type Reader = (&'static str, fn(&Rig, &Place, usize) -> Vec<String>);

const READERS: [Reader; 5] = [
    ("kcat", by_kcat),
    ("librdkafka", by_librdkafka),
    ("Java console consumer", by_console),
    ("franz-go", by_franz_go),
    ("Java console share consumer", by_share_console),
];
const CODECS: [&str; 3] = ["none", "zstd", "lz4"];
/// Values of a codec.
const VALUES: usize = 40;

/// A topic with all values, and what was sent there.
fn filled(rig: &mut Rig, store: &Scratch) -> (Proxy, Place, Vec<String>) {
    let (proxy, place) = start(rig, store, "");
    let sent = fill(&place);
    (proxy, place, sent)
}

/// Sends all values to a topic, and gives them.
pub fn fill(place: &Place) -> Vec<String> {
    let mut sent = Vec::new();
    for (n, codec) in (0..).zip(CODECS) {
        let producer = producer(&place.bootstrap, &[("compression.type", codec)]);
        for value in (n * VALUES..(n + 1) * VALUES).map(value) {
            let record = BaseRecord::<(), str>::to(&place.topic).payload(&value);
            producer.send(record).map_err(|(error, _)| error).unwrap();
            sent.push(value);
        }
        producer.flush(TIMEOUT).unwrap();
    }
    sent
}

/// Five kinds of clients read one topic: uncompressed batches beside compressed ones, small values
/// beside large ones.
pub fn every_client_reads_what_was_sent(rig: &mut Rig) {
    let store = Scratch::new("store");
    let (proxy, place, sent) = filled(rig, &store);
    read_by_all(rig, (&proxy, &place), sent);
}

/// The same for a topic that was filled through a proxy which had nothing in its store.
pub fn read_by_all(rig: &mut Rig, (proxy, place): (&Proxy, &Place), sent: Vec<String>) {
    let large = sent.iter().filter(|value| value.len() > 1000).count();
    let stored = proxy.metric("firebreak_offload_objects_total{op=\"store\"}");
    assert_eq!(stored, large as f64, "values in the store");
    let expected = digest(sent);
    for (client, read) in READERS {
        let before = restored(proxy);
        let values = read(rig, place, CODECS.len() * VALUES);
        let restored = restored(proxy) - before;
        assert_eq!(values.len(), CODECS.len() * VALUES, "values read by {client}");
        assert_eq!(digest(values), expected, "values read by {client} differ");
        assert!(restored >= large as f64, "{restored} values restored for {client}");
        tell(&format!("{client}: {expected:.16}, as sent; {restored} values restored of {large}"));
        rig.executed();
    }
}

fn restored(proxy: &Proxy) -> f64 {
    proxy.metric("firebreak_offload_objects_total{op=\"restore\"}")
}

/// A line of words, every fourth a short one, the others of 2 to 90 KB.
fn value(n: usize) -> String {
    let bytes = if n.is_multiple_of(4) { 300 } else { 2000 + n * 7919 % 88_000 };
    let mut state = u32::try_from(n).unwrap();
    let mut line = format!("{n:04}");
    while line.len() < bytes {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        line.push_str(&format!(" smoke-{}", state >> 20));
    }
    line
}

/// SHA-256 of values in the order of their numbers.
fn digest(mut values: Vec<String>) -> String {
    values.sort_unstable();
    sha256(values.join("\n").as_bytes())
}

fn lines(text: &str) -> Vec<String> {
    text.lines().map(str::to_owned).collect()
}

fn by_kcat(_: &Rig, place: &Place, _: usize) -> Vec<String> {
    let from = ["-C", "-q", "-e", "-t", &place.topic, "-o", "beginning", "-f", "%s\\n"];
    lines(&kcat::kcat(&place.bootstrap, &[&from, &["-X", "check.crcs=true"]], ""))
}

fn by_librdkafka(_: &Rig, place: &Place, count: usize) -> Vec<String> {
    read_as(place, &[("check.crcs", "true")], count, |message| {
        String::from_utf8_lossy(message.payload().unwrap_or_default()).into_owned()
    })
}

/// It checks unless told otherwise.
fn by_console(rig: &Rig, place: &Place, count: usize) -> Vec<String> {
    let count = count.to_string();
    let from = ["--topic", &place.topic, "--from-beginning", "--max-messages", &count];
    let class = "org.apache.kafka.tools.consumer.ConsoleConsumer";
    lines(&tools::tool(rig, place, class, &[&from, &["--timeout-ms", "30000"]], ""))
}

/// As the console consumer.
fn by_share_console(rig: &Rig, place: &Place, count: usize) -> Vec<String> {
    let group = format!("{}-share", place.topic);
    let from_the_start = ["--add-config", "share.auto.offset.reset=earliest"];
    let of_group = ["--alter", "--entity-type", "groups", "--entity-name", &group];
    let class = "kafka.admin.ConfigCommand";
    tools::tool(rig, place, class, &[&of_group, &from_the_start], "");
    let count = count.to_string();
    let from = ["--topic", &place.topic, "--group", &group, "--max-messages", &count];
    let class = "org.apache.kafka.tools.consumer.ConsoleShareConsumer";
    lines(&tools::tool(rig, place, class, &[&from, &["--timeout-ms", "30000"]], ""))
}

/// It always checks.
fn by_franz_go(_: &Rig, place: &Place, count: usize) -> Vec<String> {
    let mut command = Command::new("timeout");
    command.arg("90").arg(franz_go::program()).arg("read").arg(&place.bootstrap);
    command.args([&place.topic, &format!("{}-go", place.topic), &count.to_string()]);
    let done = command.output().unwrap();
    let errors = String::from_utf8_lossy(&done.stderr);
    assert!(done.status.success(), "franz-go: {}\n{errors}", done.status);
    lines(std::str::from_utf8(&done.stdout).unwrap())
}

/// Each client checks: batches whose CRCs do not fit are no records to it.
#[cfg(feature = "failpoints")]
pub mod mutants {
    use std::panic::{AssertUnwindSafe, catch_unwind};

    use super::{CODECS, READERS, Rig, Scratch, VALUES, filled, tell};

    /// Restored batches have wrong CRCs: nobody may read what was sent.
    pub fn every_client_sees_a_wrong_crc(rig: &mut Rig) {
        rig.faults = Some("stale-crc-restored=return".to_owned());
        let store = Scratch::new("store");
        let (_proxy, place, _) = filled(rig, &store);
        rig.faults = None;
        let all = CODECS.len() * VALUES;
        for (client, read) in READERS {
            let read = catch_unwind(AssertUnwindSafe(|| read(rig, &place, all).len()));
            let seen = read.as_ref().map_or(true, |values| *values < all);
            assert!(seen, "{client} read everything though CRCs are wrong");
            let values = read.map_or("an error".to_owned(), |n| format!("{n} of {all} values"));
            tell(&format!("stale-crc-restored is seen by {client}: {values}"));
            rig.executed();
        }
    }
}
