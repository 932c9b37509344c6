//! What cases of virtual topics share: the proxy in front, and the segments that it tells of.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::proxy::{HOST, Proxy, Tables};
use crate::rig::Rig;

const LIMIT: Duration = Duration::from_secs(120);

/// A proxy in front of the cluster with these tables in its configuration.
pub fn proxy_with(rig: &Rig, more: String) -> Proxy {
    let brokers = rig.cluster.bootstrap();
    let brokers: Vec<&str> = brokers.split(',').collect();
    let (advertise, listen) = (HOST.to_owned(), String::new());
    let cluster = format!("bootstrap = {brokers:?}");
    Proxy::configured(Tables { advertise, listen, cluster, more }, rig.faults.as_deref())
}

/// The segments of each slot of a topic, the oldest first.
pub fn segments(proxy: &Proxy, topic: &str) -> BTreeMap<String, Vec<String>> {
    let answer = proxy.get(&format!("/topics/{topic}")).unwrap();
    let told: Value = serde_json::from_str(answer.split_once("\r\n\r\n").unwrap().1).unwrap();
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    let slots = told["slots"].as_array().unwrap().iter().map(|slot| {
        let segments = slot["segments"].as_array().unwrap().iter();
        (text(&slot["slot"]), segments.map(|segment| text(&segment["topic"])).collect())
    });
    slots.collect()
}

/// Waits until so many slots of a topic have a segment.
pub fn until_open(proxy: &Proxy, topic: &str, slots: usize) {
    let until = Instant::now() + LIMIT;
    while segments(proxy, topic).values().filter(|of_slot| !of_slot.is_empty()).count() < slots {
        assert!(Instant::now() < until, "no segments:\n{}", proxy.log_tail());
        std::thread::sleep(Duration::from_millis(100));
    }
}
