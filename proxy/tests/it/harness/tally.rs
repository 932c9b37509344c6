//! What a fault has cost, in counts. It believes nothing that the proxy counts: it reads the logs
//! of the fake brokers, looks at the store itself, and reads everything back as a client.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::time::Duration;

use bytes::Bytes;
use protocol_ext::batch::BatchHeader;
use protocol_ext::reference::{Binding, KeyRing, MacKey, Reference};
use sha2::{Digest, Sha256};

use super::broker::Brokers;
use super::client::Client;
use super::proxy::Folder;
use super::records::{Record, heads, read};
use super::s3::S3;
use super::{Checked, ensure, ensure_eq, failure};

/// How often an error is asked about again in all: a store that failed is left alone for a while.
const AGAIN_MAX: usize = 60;
const PAUSE: Duration = Duration::from_millis(100);

/// What a store holds: bytes of each pack by its key, and the key that signs references to them.
#[derive(Debug)]
pub struct Held {
    packs: BTreeMap<String, u64>,
    keys: KeyRing,
}

impl Held {
    /// What lies in a bucket.
    pub fn in_bucket(s3: &S3) -> Checked<Self> {
        let packs = s3.objects().into_iter().filter(|(key, _)| key.starts_with("v1/"));
        let packs = packs.map(|(key, object)| (key, object.len() as u64)).collect();
        Self::of(packs, &s3.key_file())
    }

    /// What lies in a local store that made its own key.
    pub fn in_folder(store: &Folder) -> Checked<Self> {
        let mut packs = BTreeMap::new();
        collect(store.path(), &store.path().join("v1"), &mut packs)?;
        Self::of(packs, &store.path().join("reference.key"))
    }

    fn of(packs: BTreeMap<String, u64>, key_file: &Path) -> Checked<Self> {
        let key = std::fs::read(key_file).map_err(failure)?;
        let key = MacKey::new(key.trim_ascii()).map_err(failure)?;
        Ok(Self { packs, keys: KeyRing::new(key, None).map_err(failure)? })
    }

    /// Pack and end of every reference in the logs that clients of its topic would follow.
    pub fn referred(&self, brokers: &Brokers) -> Vec<(String, u64)> {
        let cluster = brokers.cluster();
        let mut found = Vec::new();
        for topic in &cluster.topics {
            let binding = Binding { topic: &topic.name, tenant: "" };
            for batch in topic.logs.iter().flat_map(|log| log.batches()) {
                if BatchHeader::parse(batch).is_ok_and(|header| header.is_control()) {
                    continue;
                }
                for record in read(batch) {
                    let value = record.value.unwrap_or_default();
                    if let Ok(reference) = self.keys.open(&value, &binding) {
                        found.push(place(&reference));
                    }
                }
            }
        }
        found
    }
}

/// Bytes of all files below a folder of a store, by key.
fn collect(root: &Path, folder: &Path, found: &mut BTreeMap<String, u64>) -> Checked {
    let Ok(entries) = std::fs::read_dir(folder) else { return Ok(()) };
    for entry in entries {
        let path = entry.map_err(failure)?.path();
        if path.is_dir() {
            collect(root, &path, found)?;
            continue;
        }
        let key = path.strip_prefix(root).map_err(failure)?.to_string_lossy().into_owned();
        found.insert(key, std::fs::metadata(&path).map_err(failure)?.len());
    }
    Ok(())
}

/// The key of a reference's pack (docs/pack-format.md), and where its part ends there.
fn place(reference: &Reference) -> (String, u64) {
    let hex = |id: [u8; 16]| uuid::Uuid::from_bytes(id).simple().to_string();
    let Reference { shard, partition, topic_id, pack_id, .. } = *reference;
    let key = format!("v1/{shard:02x}/fake/{}/{partition}/{}", hex(topic_id), hex(pack_id));
    (key, reference.pack_offset + u64::from(reference.stored_bytes))
}

/// A record that is to come back: where it lies, and the hash of all else but its time.
#[derive(Debug)]
struct Entry {
    topic: String,
    partition: i32,
    offset: i64,
    hash: Vec<u8>,
}

/// What producers were told is there.
#[derive(Debug, Default)]
pub struct Ledger(Vec<Entry>);

impl Ledger {
    /// Notes that a batch was acknowledged, or lies in a log otherwise, at this offset.
    pub fn acknowledged(&mut self, topic: &str, partition: i32, base: i64, batch: &Bytes) {
        let entry = |record: &Record| Entry {
            topic: topic.to_owned(),
            partition,
            offset: base + record.offset,
            hash: hash(record),
        };
        self.0.extend(read(batch).iter().map(entry));
    }

    /// Notes that a record is rightly gone.
    pub fn compacted(&mut self, topic: &str, partition: i32, offset: i64) {
        let is_it = |entry: &Entry| {
            (entry.topic.as_str(), entry.partition, entry.offset) == (topic, partition, offset)
        };
        self.0.retain(|entry| !is_it(entry));
    }

    /// Counts, once nothing is under way any more. Reads through this port of a proxy.
    pub async fn tally(&self, port: u16, brokers: &Brokers, held: &Held) -> Checked<Tally> {
        let referred = held.referred(brokers);
        let needed: BTreeSet<&str> = referred.iter().map(|(key, _)| key.as_str()).collect();
        let orphaned = held.packs.keys().filter(|key| !needed.contains(key.as_str())).count();
        let is_there = |key: &str, end: u64| held.packs.get(key).is_some_and(|bytes| *bytes >= end);
        let dangling = referred.iter().filter(|(key, end)| !is_there(key, *end)).count();
        let lost = self.lost(port).await?;
        Ok(Tally { acknowledged: self.0.len(), lost, orphaned, dangling })
    }

    /// Records that do not come back as they were.
    async fn lost(&self, port: u16) -> Checked<usize> {
        let mut places: BTreeMap<(&str, i32), Vec<&Entry>> = BTreeMap::new();
        for entry in &self.0 {
            places.entry((entry.topic.as_str(), entry.partition)).or_default().push(entry);
        }
        let mut client = Client::connect(port).await?;
        let (mut lost, mut again) = (0, 0);
        for ((topic, partition), entries) in places {
            let offsets = || entries.iter().map(|entry| entry.offset);
            let (first, last) = (offsets().min().unwrap_or(0), offsets().max().unwrap_or(-1));
            let mut found = BTreeMap::new();
            let mut next = first;
            while next <= last {
                let (error, section) = client.fetch(11, topic, partition, next, i32::MAX).await?;
                let behind = heads(&section)
                    .last()
                    .map(|head| head.base_offset + i64::from(head.last_offset_delta) + 1);
                if let Some(behind) = behind.filter(|behind| error == 0 && *behind > next) {
                    found.extend(read(&section).iter().map(|record| (record.offset, hash(record))));
                    next = behind;
                } else if again < AGAIN_MAX {
                    again += 1;
                    tokio::time::sleep(PAUSE).await;
                } else {
                    next += 1;
                }
            }
            let is_back = |entry: &Entry| found.get(&entry.offset) == Some(&entry.hash);
            lost += entries.into_iter().filter(|entry| !is_back(entry)).count();
        }
        Ok(lost)
    }
}

fn hash(record: &Record) -> Vec<u8> {
    let Record { key, headers, value, .. } = record;
    let mut hash = Sha256::new();
    hash.update(format!("{key:?} {headers:?} {}", value.is_some()));
    hash.update(value.as_deref().unwrap_or_default());
    hash.finalize().to_vec()
}

/// The counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Tally {
    /// Records that producers were told are there.
    pub acknowledged: usize,
    /// Those of them that do not come back as they were.
    pub lost: usize,
    /// Packs that nothing refers to.
    pub orphaned: usize,
    /// References to what is not there.
    pub dangling: usize,
}

impl Tally {
    /// Prints the counts, and wants some records, none lost, no reference dangling, and so many
    /// orphans.
    pub fn is_sound(self, what: &str, orphaned: usize) -> Checked {
        let Self { acknowledged, lost, orphaned: found, dangling } = self;
        println!(
            "{what}: acknowledged {acknowledged}, lost {lost}, orphaned {found}, \
             dangling {dangling}"
        );
        ensure!(acknowledged > 0, "{what}: nothing was acknowledged");
        ensure_eq!((lost, dangling, found), (0, 0, orphaned), "lost, dangling, orphaned, {what}");
        Ok(())
    }
}
