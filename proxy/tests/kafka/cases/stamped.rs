//! Days by the records' own timestamps: fire detections of eight days, in regions by coordinates.

use std::time::Duration;

use rdkafka::config::ClientConfig;
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};

use super::days;
use super::virtual_topics::{
    Detection, PLACES, areas, assert_same, detections, kcat_reads, others_read, place_of,
    read_directly, regions,
};
use crate::rig::Rig;

/// Days that are open at a time: with three regions and `other` all slots that there may be.
const RING: i64 = 4;

/// Every detection is in the segment of its region and day, as Python worked out, and is read once.
pub fn detections_by_their_days(rig: &mut Rig) {
    let topic = format!("stamped-{}", uuid::Uuid::new_v4().simple());
    let areas = areas();
    let more = format!(
        "[[virtual_topic]]\nname = {topic:?}\npartitions = 2\ndays = true\n\
         day_from = \"timestamp\"\nopen_days = {RING}\nregion = {{ {PLACES} }}\n{}",
        regions(&areas)
    );
    let proxy = days::proxy_with(rig, more);
    let slots = 4 * usize::try_from(RING).unwrap();
    days::until_open(&proxy, &topic, slots);
    let all = detections(&areas);
    let place = place_of(rig, &proxy, &topic);
    produce(&place.bootstrap, &topic, &all);
    let mut filled = 0;
    for (slot, segments) in days::segments(&proxy, &topic) {
        let segment = segments.last().unwrap();
        let (region, nth) = slot.rsplit_once('.').unwrap();
        let nth: i64 = nth.parse().unwrap();
        let here = all.iter().filter(|d| d.region == region && d.day % RING == nth);
        let lines: Vec<String> = here.map(|d| d.line.clone()).collect();
        filled += usize::from(!lines.is_empty());
        assert_same(&read_directly(rig, segment), &lines, &format!("{segment} of {slot}"));
    }
    assert!(filled > slots / 2, "records in {filled} slots only");
    rig.executed();
    let lines: Vec<String> = all.iter().map(|d| d.line.clone()).collect();
    assert_same(&kcat_reads(&place.bootstrap, &topic), &lines, "read through the proxy");
    let late = proxy.metric("firebreak_records_outside_days_total{reason=\"late\"}");
    assert!(late >= u32::try_from(all.len()).unwrap().into(), "{late} late records");
    println!("{} detections in {filled} of {slots} slots", all.len());
    rig.executed();
    others_read(rig, &place, &lines);
}

/// Sends all, each at its own time, with idempotence.
fn produce(bootstrap: &str, topic: &str, all: &[Detection]) {
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", bootstrap).set("enable.idempotence", "true");
    let producer: BaseProducer = config.create().unwrap();
    for detection in all {
        let record = BaseRecord::<(), str>::to(topic).payload(&detection.line);
        let record = record.timestamp(detection.at_ms);
        producer.send(record).map_err(|(error, _)| error).unwrap();
        producer.poll(Duration::ZERO);
    }
    producer.flush(Duration::from_secs(60)).unwrap();
    assert_eq!(producer.in_flight_count(), 0, "records not acknowledged");
}
