//! Large values in S3 services, on a real Kafka: written and read by every kind of client, checked,
//! collected, and copied out again.

use std::path::PathBuf;
use std::process::Command;

use rdkafka::message::Message;
use rdkafka::producer::{BaseRecord, Producer};
use serde_json::{Value, json};

use super::librdkafka::{TIMEOUT, producer, read_as};
use super::offload::{PARTITIONS, start_with};
use super::{objects, readers, sha256, tools, upkeep};
use crate::jars;
use crate::process::{self, Scratch};
use crate::proxy::Proxy;
use crate::rig::{Place, Rig, tell};

/// Values in a pack with others, alone in one, and in one that is sent in parts.
const SIZES: [usize; 3] = [60_000, 9_000_000, 41_000_000];

/// A service that `compose/s3.sh` has started; it ends when dropped.
struct Service {
    dir: Scratch,
    endpoint: String,
    bucket: String,
    access: String,
    secret: String,
    pid: u32,
}

impl Service {
    fn start(kind: &str) -> Self {
        let dir = Scratch::new(kind);
        let mut start = script();
        start.args(["start", "--kind", kind, "--dir"]).arg(dir.path());
        let done = start.output().unwrap();
        let errors = String::from_utf8_lossy(&done.stderr);
        assert!(done.status.success(), "{kind}: {errors}");
        let told = String::from_utf8(done.stdout).unwrap();
        let of = |name: &str| {
            let found = told.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix('='));
            found.unwrap_or_else(|| panic!("no {name} in {told}")).to_owned()
        };
        let pid = std::fs::read_to_string(dir.path().join("pid")).unwrap().trim().parse().unwrap();
        process::adopt(pid);
        let service = Self {
            endpoint: of("MINIO_ENDPOINT"),
            bucket: of("S3_BUCKET"),
            access: of("MINIO_ACCESS_KEY"),
            secret: of("MINIO_SECRET_KEY"),
            dir,
            pid,
        };
        service.tell_secret(&service.secret);
        let [a, b] = [0, 0].map(|_| uuid::Uuid::new_v4().simple().to_string());
        std::fs::write(service.dir.path().join("reference.key"), a + &b).unwrap();
        service
    }

    /// Writes the file that proxies take their secret from.
    fn tell_secret(&self, secret: &str) {
        std::fs::write(self.secret_file(), secret).unwrap();
    }

    fn secret_file(&self) -> PathBuf {
        self.dir.path().join("secret")
    }

    /// The lines of `[store]`; no value is kept in memory.
    fn store(&self) -> String {
        let Self { endpoint, bucket, access, .. } = self;
        format!(
            "kind = \"s3\"\nendpoint = \"http://{endpoint}\"\nbucket = {bucket:?}\n\
             access_key = {access:?}\nsecret_key_file = {:?}\nkey_file = {:?}\ncache_bytes = 0\n",
            self.secret_file(),
            self.dir.path().join("reference.key"),
        )
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        // If it cannot be stopped the janitor ends it.
        let stopped = script().args(["stop", "--dir"]).arg(self.dir.path()).status();
        if stopped.is_ok_and(|status| status.success()) {
            process::forget(self.pid);
        }
    }
}

fn script() -> Command {
    let mut script = Command::new("bash");
    // Cargo puts the folder with our own librdkafka there.
    script.arg(jars::compose("s3.sh")).env_remove("LD_LIBRARY_PATH");
    script
}

/// One that takes any signature, of any day.
pub fn moto(rig: &mut Rig) {
    let service = Service::start("moto");
    let (mut proxy, place) = start(rig, &service);
    let expected = everything_is_read(rig, &proxy, &place);
    copied_out(rig, &proxy, &place, &expected);
    let before = sound(&proxy);
    let all = objects(&before, "stored");
    assert_eq!(objects(&before, "referred"), all, "packs that are referred to: {before:#}");
    // Retention takes the records, and then gc their packs.
    delete_records(rig, &service, &place);
    proxy.ahead_days = 2;
    assert_eq!(objects(&upkeep(&proxy, &["gc"]), "marked"), all, "packs that are marked");
    proxy.ahead_days = 4;
    assert_eq!(objects(&upkeep(&proxy, &["gc"]), "deleted"), all, "packs that are deleted");
    assert_eq!(objects(&sound(&proxy), "stored"), 0, "packs left");
    tell(&format!("moto: {all} packs written, read, copied out and deleted"));
    rig.executed();
}

/// One that checks signatures and sums.
pub fn versitygw(rig: &mut Rig) {
    let service = Service::start("versitygw");
    let (mut proxy, place) = start(rig, &service);
    let mut expected = everything_is_read(rig, &proxy, &place);
    copied_out(rig, &proxy, &place, &expected);
    let report = upkeep(&proxy, &["gc", "--dry-run"]);
    assert_eq!(objects(&report, "referred"), objects(&report, "stored"), "packs: {report:#}");
    refused_with_another_secret(&service, &mut proxy, &place);
    expected.push(write(&place, 9, SIZES[0]));
    expected.sort();
    assert_eq!(hashes(&place, expected.len()), expected, "values once the secret is right");
    sound(&proxy);
    rig.executed();
}

fn start(rig: &mut Rig, service: &Service) -> (Proxy, Place) {
    start_with(rig, &service.store(), ("", String::new()), &json!({}))
}

/// Every kind of client reads values of usual sizes; those of all sizes come back as they were
/// sent. Gives the hashes of all of them.
fn everything_is_read(rig: &mut Rig, proxy: &Proxy, place: &Place) -> Vec<String> {
    let texts = readers::fill(place);
    let mut expected: Vec<String> = texts.iter().map(|text| sha256(text.as_bytes())).collect();
    readers::read_by_all(rig, (proxy, place), texts);
    expected.extend((0..).zip(SIZES).map(|(seed, bytes)| write(place, seed, bytes)));
    expected.sort();
    assert_eq!(hashes(place, expected.len()), expected, "values of all sizes");
    let report = sound(proxy);
    let bytes = report["stored"]["bytes"].as_u64().unwrap();
    assert!(bytes > SIZES.iter().sum::<usize>() as u64, "{bytes} bytes in the store");
    expected
}

/// Sends one value, and gives its hash.
fn write(place: &Place, seed: u64, bytes: usize) -> String {
    let producer = producer(&place.bootstrap, &[("message.max.bytes", "60000000")]);
    let value = noise(seed, bytes);
    let record = BaseRecord::<(), [u8]>::to(&place.topic).payload(&value);
    producer.send(record).map_err(|(error, _)| error).unwrap();
    producer.flush(TIMEOUT).unwrap();
    let answers = producer.context().answers();
    assert!(answers.len() == 1 && answers[0].contains('@'), "{bytes} bytes: {answers:?}");
    sha256(&value)
}

/// Bytes that no codec makes smaller.
fn noise(seed: u64, bytes: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut out = Vec::with_capacity(bytes + 8);
    while out.len() < bytes {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        out.extend_from_slice(&state.to_le_bytes());
    }
    out.truncate(bytes);
    out
}

/// Hashes of the values of so many records, sorted.
fn hashes(place: &Place, count: usize) -> Vec<String> {
    read_as(place, &[], count, |message| sha256(message.payload().unwrap_or_default()))
}

/// Nothing is missing and every object is what was stored.
fn sound(proxy: &Proxy) -> Value {
    let report = upkeep(proxy, &["fsck", "--deep"]);
    for found in ["dangling", "damaged"] {
        assert_eq!(report[found], json!([]), "{found} in {report:#}");
    }
    report
}

/// The way out: the copy is read without the proxy, value for value.
fn copied_out(rig: &mut Rig, proxy: &Proxy, place: &Place, expected: &[String]) {
    let report = upkeep(proxy, &["rehydrate", &place.topic]);
    let copy = rig.place(false, &format!("{}-rehydrated", place.topic));
    assert_eq!(hashes(&copy, expected.len()), expected, "values of the copy: {report:#}");
    rig.executed();
}

fn delete_records(rig: &Rig, service: &Service, place: &Place) {
    let all =
        |partition: usize| json!({"topic": place.topic, "partition": partition, "offset": -1});
    let partitions: Vec<Value> = (0..PARTITIONS).map(all).collect();
    let file = service.dir.path().join("offsets.json");
    std::fs::write(&file, json!({"partitions": partitions, "version": 1}).to_string()).unwrap();
    let direct = rig.place(false, &place.topic);
    let class = "org.apache.kafka.tools.DeleteRecordsCommand";
    let file = file.display().to_string();
    tools::tool(rig, &direct, class, &[&["--offset-json-file", &file]], "");
}

/// With a wrong secret a large value is refused by the error of a broken disk, and one line of the
/// start says why; a small one is written.
fn refused_with_another_secret(service: &Service, proxy: &mut Proxy, place: &Place) {
    const TOLD: &str = "the object store cannot be asked";
    assert_eq!(proxy.logged(TOLD), 0, "lines about a store that can be asked");
    proxy.kill();
    service.tell_secret("not-this-one");
    proxy.restart();
    let producer = producer(&place.bootstrap, &[("retries", "0")]);
    let value = noise(77, SIZES[0]);
    let record = BaseRecord::<(), [u8]>::to(&place.topic).payload(&value);
    producer.send(record).map_err(|(error, _)| error).unwrap();
    producer.flush(TIMEOUT).unwrap();
    let answers = producer.context().answers();
    let refused = answers.len() == 1 && answers[0].contains("KafkaStorageError");
    assert!(refused, "answer with a wrong secret: {answers:?}");
    let log = std::fs::read_to_string(proxy.log()).unwrap();
    let lines: Vec<&str> = log.lines().filter(|line| line.contains(TOLD)).collect();
    let is_clear = lines.len() == 1 && lines[0].contains("SignatureDoesNotMatch");
    assert!(is_clear, "lines about a wrong secret: {lines:#?}");
    tell(&format!("a wrong secret: {} and {}", answers[0], lines[0]));
    proxy.kill();
    service.tell_secret(&service.secret);
    proxy.restart();
}
