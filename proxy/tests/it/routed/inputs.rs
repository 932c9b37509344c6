//! Whatever a client may send: keys or none, values that say where they are and values that do not,
//! one of 5 MB, with sequences and without. Each record goes where the rules say, each that lies
//! nowhere is counted with its reason, and as many are read as were sent.

use protocol_ext::batch::crc32c;
use protocol_ext::codec::{Codec, Framing};
use protocol_ext::split::{ProducerFields, with_producer};

use super::regions::PLACES;
use super::without_sequences;
use crate::harness::broker::Brokers;
use crate::harness::client::Client;
use crate::harness::proxy::Setup;
use crate::harness::records::{Record, batch, read};
use crate::harness::{Checked, Faults, ensure_eq};

const NORCAL: &str = "fires-norcal";
const SOCAL: &str = "fires-socal";
const OTHER: &str = "fires-other";
const NULL: &str = "null_value";
const BROKEN: &str = "broken_json";
const NOWHERE: &str = "no_location";
const OUTSIDE: &str = "outside";
const LONG_BYTES: usize = 5 * 1024 * 1024;

/// A value, the topic it belongs to, and why it is counted if it belongs to no region.
type Place = (Option<Vec<u8>>, &'static str, Option<&'static str>);

/// Values of every kind, the longest one with its place at its end.
fn places() -> Vec<Place> {
    const TEXTS: [(&str, &str, Option<&str>); 29] = [
        (r#"{"at":{"lat":38.5,"lon":-120}}"#, NORCAL, None),
        (r#" { "x" : [ {"at":1} ], "at" : { "lon" : -1.2e2 , "lat" : 3850E-2 } } "#, NORCAL, None),
        (r#"{"at":{"lat":38.5,"lon":-120}} and what is not read any more"#, NORCAL, None),
        (r#"{"\u0061t":{"lat":38.5,"lon":-120}}"#, NORCAL, None),
        (r#"{"at":{"lat":33,"lon":-124}}"#, SOCAL, None),
        (r#"{"at":{"lat":33,"lon":-124},"at":{"lat":38.5,"lon":-120}}"#, SOCAL, None),
        ("", OTHER, Some(BROKEN)),
        ("no JSON", OTHER, Some(BROKEN)),
        (r#"{"at":{"lat":38.5,"lon":-120"#, OTHER, Some(BROKEN)),
        (r#"{"at":{"lat":38.5,}}"#, OTHER, Some(BROKEN)),
        (r#"{"at":{"lat":038.5,"lon":-120}}"#, OTHER, Some(BROKEN)),
        (r#"{"at":{"lat":38.5}} {"at":{"lat":38.5,"lon":-120}}"#, OTHER, Some(BROKEN)),
        (r#"{'at':{'lat':38.5,'lon':-120}}"#, OTHER, Some(BROKEN)),
        ("{}", OTHER, Some(NOWHERE)),
        ("null", OTHER, Some(NOWHERE)),
        ("38.5", OTHER, Some(NOWHERE)),
        (r#""at""#, OTHER, Some(NOWHERE)),
        (r#"[{"at":{"lat":38.5,"lon":-120}}]"#, OTHER, Some(NOWHERE)),
        (r#"{"at":{"lat":38.5}}"#, OTHER, Some(NOWHERE)),
        (r#"{"at":[38.5,-120]}"#, OTHER, Some(NOWHERE)),
        (r#"{"at":7}"#, OTHER, Some(NOWHERE)),
        (r#"{"at":{"lat":"38.5","lon":-120}}"#, OTHER, Some(NOWHERE)),
        (r#"{"at":{"lat":38.5,"lon":null}}"#, OTHER, Some(NOWHERE)),
        (r#"{"at":{"lat":true,"lon":-120}}"#, OTHER, Some(NOWHERE)),
        (r#"{"at":{"lat":[38.5],"lon":{"lon":-120}}}"#, OTHER, Some(NOWHERE)),
        (r#"{"at":{"lat":1e999,"lon":-120}}"#, OTHER, Some(NOWHERE)),
        (r#"{"at":{"lat":48.2,"lon":16.4}}"#, OTHER, Some(OUTSIDE)),
        (r#"{"at":{"lat":90.5,"lon":-120}}"#, OTHER, Some(OUTSIDE)),
        (r#"{"at":{"lat":38.5,"lon":240}}"#, OTHER, Some(OUTSIDE)),
    ];
    let long = format!(
        r#"{{"image":"{}","at":{{"lon":-120,"lat":38.5}}}}"#,
        "/9j/4AAQSkZJRg".repeat(LONG_BYTES / 14)
    );
    let mut all: Vec<Place> =
        TEXTS.map(|(text, topic, why)| (Some(text.into()), topic, why)).into();
    all.push((Some(long.into_bytes()), NORCAL, None));
    all.push((Some(vec![0xff, 0xd8, 0xff, 0xe0]), OTHER, Some(BROKEN)));
    all.push((None, OTHER, Some(NULL)));
    all
}

/// Every value without a key and with one.
fn all() -> Vec<(Record, Place)> {
    let keys = [None, Some(b"a key".to_vec())];
    let pairs = keys.iter().flat_map(|key| places().into_iter().map(move |place| (key, place)));
    let records = (0..).zip(pairs).map(|(offset, (key, place))| {
        let (key, value) = (key.clone(), place.0.clone());
        let record =
            Record { offset, timestamp: 1_700_000_000_000, key, value, headers: Vec::new() };
        (record, place)
    });
    records.collect()
}

/// A record in short words.
fn shown(record: &Record) -> String {
    let value = record.value.as_deref().map(|value| {
        let begin = String::from_utf8_lossy(&value[..value.len().min(60)]).into_owned();
        (begin, value.len(), crc32c(value))
    });
    format!("{:?} {value:?}", record.key)
}

/// The records in a broker's log.
fn stored(brokers: &Brokers, topic: &str) -> Vec<String> {
    let mut cluster = brokers.cluster();
    let log = cluster.log(topic, 0).expect("a log");
    log.batches().flat_map(read).map(|record| shown(&record)).collect()
}

/// The records of a partition, read to its end.
async fn fetched(client: &mut Client, partition: i32) -> Checked<Vec<String>> {
    let (mut offset, mut all) = (0, Vec::new());
    loop {
        let (code, section) = client.fetch(11, "fires", partition, offset, i32::MAX).await?;
        ensure_eq!(code, 0, "error of Fetch");
        let records = read(&section);
        let Some(last) = records.last() else { return Ok(all) };
        offset = last.offset + 1;
        all.extend(records.iter().map(shown));
    }
}

/// All of it, from a producer without sequences and from one with them.
pub async fn everything_goes_by_the_rules(faults: Faults) -> Checked {
    let brokers = Brokers::start(2).await;
    for topic in [NORCAL, SOCAL, OTHER] {
        brokers.cluster().add_topic(topic, 1);
    }
    brokers.cluster().add_topic("fires", 3);
    let proxy = Setup::new(&brokers, faults).limit(PLACES).start().await;
    let mut client = Client::connect(proxy.port).await?;
    let all = all();
    let records: Vec<Record> = all.iter().map(|(record, _)| record.clone()).collect();
    let fields = ProducerFields { id: 5, epoch: 0, base_sequence: 0 };
    let plain = without_sequences(&batch(Codec::None, Framing::Plain, &records));
    let sequenced = batch(Codec::Zstd, Framing::Plain, &records);
    let sequenced = with_producer(&sequenced, fields).expect("a batch");
    for batch in [&plain, &sequenced] {
        let (code, _) = client.produce(9, "fires", 0, batch).await?;
        ensure_eq!(code, 0, "error of Produce");
    }
    let mut count = 0;
    for (partition, topic) in (0..).zip([NORCAL, SOCAL, OTHER]) {
        let here = all.iter().filter(|(_, (_, belongs, _))| *belongs == topic);
        let here: Vec<String> = here.map(|(record, _)| shown(record)).collect();
        let twice = [here.as_slice(), &here].concat();
        ensure_eq!(stored(&brokers, topic), twice, "records in {topic}");
        let read = fetched(&mut client, partition).await?;
        ensure_eq!(read, twice, "records read from {topic}");
        count += read.len();
    }
    ensure_eq!(count, 2 * records.len(), "records read, and records sent");
    for reason in [NULL, BROKEN, NOWHERE, OUTSIDE] {
        let of_reason = all.iter().filter(|(_, (.., why))| *why == Some(reason)).count();
        let name = format!("firebreak_unlocated_records_total{{reason=\"{reason}\"}}");
        let twice = u32::try_from(2 * of_reason).expect("few");
        proxy.metric_becomes(&name, twice.into()).await?;
    }
    Ok(())
}

#[tokio::test]
async fn whatever_is_sent_goes_by_the_rules() -> Checked {
    everything_goes_by_the_rules(None).await
}
