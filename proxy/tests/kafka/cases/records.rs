//! Java producers and consumers: codecs, acks, idempotence, large records.

use serde_json::{Value, json};

use super::{command, expect};
use crate::rig::Rig;

pub const CODECS: [&str; 5] = ["none", "gzip", "snappy", "lz4", "zstd"];
pub const ACKS: [&str; 3] = ["0", "1", "all"];

/// Records of every shape, in batches of several records, in order, byte for byte.
pub fn every_codec_with_every_acks(rig: &mut Rig) {
    for codec in CODECS {
        for acks in ACKS {
            let config = json!({"compression.type": codec, "acks": acks, "linger.ms": 20,
                "enable.idempotence": false});
            produce_and_read_back(rig, &format!("{codec}, acks={acks}"), &config, acks != "0");
        }
    }
}

pub fn idempotent_producer(rig: &mut Rig) {
    let config = json!({"enable.idempotence": true, "linger.ms": 1});
    produce_and_read_back(rig, "idempotent", &config, true);
}

fn produce_and_read_back(rig: &mut Rig, what: &str, config: &Value, answered: bool) {
    rig.compare(what, 3, |rig, place| {
        let produce = json!({"partitions": 3, "count": 99, "config": config});
        let sent = rig.java.must("produce", command(place, &produce));
        let answers = if answered { "/answers/offset given" } else { "/answers/no offset" };
        expect(&sent, answers, 99);
        let read = rig.java.must("consume", command(place, &json!({"at_least": 99})));
        expect(&read, "/records", 99);
        json!([sent, read])
    });
}

pub fn records_of_thirty_megabytes(rig: &mut Rig) {
    for codec in ["none", "lz4"] {
        rig.compare(&format!("30 MB, {codec}"), 1, |rig, place| {
            let large = json!({"size": 30 << 20, "config": {"compression.type": codec}});
            let outcome = rig.java.must("large", command(place, &large));
            expect(&outcome, "/read/records", 1);
            outcome
        });
    }
}
