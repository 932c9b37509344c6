//! Records that say where they are in their values, and where they go.

use bytes::Bytes;
use protocol_ext::codec::{Codec, Framing};

use super::without_sequences;
use crate::harness::broker::Brokers;
use crate::harness::client::Client;
use crate::harness::proxy::Setup;
use crate::harness::records::{Record, batch, read};
use crate::harness::{Checked, Faults, ensure_eq};

/// A virtual topic of two regions by coordinates.
pub const PLACES: &str = "\n[[virtual_topic]]\nname = \"fires\"\n\
    region = { latitude = \"/at/lat\", longitude = \"/at/lon\" }\n\
    [[region]]\nname = \"norcal\"\n\
    area = { south = 37.0, north = 42.1, west = -124.6, east = -119.0 }\n\
    [[region]]\nname = \"socal\"\n\
    area = { polygon = [[32.0, -125.0], [40.0, -125.0], [32.0, -114.0]] }\n";

/// A batch of records with these values.
fn of(codec: Codec, values: &[Option<&str>]) -> Bytes {
    let record = |(offset, value): (i64, &Option<&str>)| Record {
        offset,
        timestamp: 1_700_000_000_000,
        key: None,
        value: value.map(|value| value.as_bytes().to_vec()),
        headers: Vec::new(),
    };
    let records: Vec<Record> = (0..).zip(values).map(record).collect();
    without_sequences(&batch(codec, Framing::Plain, &records))
}

fn stored(brokers: &Brokers, topic: &str) -> Vec<Option<String>> {
    let mut cluster = brokers.cluster();
    let log = cluster.log(topic, 0).expect("a log");
    let values = log.batches().flat_map(read).map(|record| record.value);
    let text = |value: Vec<u8>| String::from_utf8(value).expect("text");
    values.map(|value| value.map(text)).collect()
}

/// One batch is spread over the regions that its records lie in; what lies nowhere is counted.
pub async fn records_go_where_they_are(faults: Faults) -> Checked {
    const NORTH: &str = r#"{"id":7,"at":{"lat":38.5,"lon":-1.2e2}}"#;
    const SOUTH: &str = r#"{"at":{"lon":-124.0,"lat":33,"lon":0}}"#;
    const BOTH: &str = r#"{"at":{"lat":37.0,"lon":-124.6}}"#;
    const FAR: &str = r#"{"at":{"lat":48.2,"lon":16.4}}"#;
    const TEXT: &str = r#"{"at":{"lat":"38.5","lon":-120}}"#;
    const CUT: &str = r#"{"at":{"lat":38.5,"lon":-120"#;
    let values =
        [Some(SOUTH), Some(FAR), Some(NORTH), None, Some(CUT), Some(BOTH), Some(TEXT), Some(NORTH)];
    for codec in [Codec::None, Codec::Lz4] {
        let brokers = Brokers::start(2).await;
        for topic in ["fires-norcal", "fires-socal", "fires-other"] {
            brokers.cluster().add_topic(topic, 1);
        }
        brokers.cluster().add_topic("fires", 3);
        let proxy = Setup::new(&brokers, faults).limit(PLACES).start().await;
        let mut client = Client::connect(proxy.port).await?;
        let (code, _) = client.produce(9, "fires", 0, &of(codec, &values)).await?;
        ensure_eq!(code, 0, "error of Produce");
        let expected: [(&str, &[Option<&str>]); 3] = [
            ("fires-norcal", &[Some(NORTH), Some(BOTH), Some(NORTH)]),
            ("fires-socal", &[Some(SOUTH)]),
            ("fires-other", &[Some(FAR), None, Some(CUT), Some(TEXT)]),
        ];
        for (topic, expected) in expected {
            let expected: Vec<_> = expected.iter().map(|text| text.map(str::to_owned)).collect();
            ensure_eq!(stored(&brokers, topic), expected, "values in {topic}");
        }
        for reason in ["null_value", "broken_json", "no_location", "outside"] {
            let name = format!("firebreak_unlocated_records_total{{reason=\"{reason}\"}}");
            proxy.metric_becomes(&name, 1.0).await?;
        }
    }
    Ok(())
}

#[tokio::test]
async fn records_go_to_the_regions_that_they_lie_in() -> Checked {
    records_go_where_they_are(None).await
}
