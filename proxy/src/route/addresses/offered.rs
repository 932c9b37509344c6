//! The versions that clients are told where SASL ends here: those that every known broker has.
//!
//! A client does not ask again once it is let through, and may be led to any broker: in a rolling
//! upgrade one knows what another does not. Invariant: with a table of each broker, no version is
//! told that one of them lacks.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use protocol_ext::versions;

use super::Broker;
use crate::{clock, fault};

/// Host and port of a broker.
type Place = (String, u16);

/// What a broker told, when it was asked last; `None`: nothing.
#[derive(Debug)]
struct Told {
    table: Option<Bytes>,
    at: clock::Tick,
}

/// The tables of brokers, and what they have in common.
#[derive(Debug, Default)]
pub(super) struct Offered {
    told: BTreeMap<Place, Told>,
    common: Option<Bytes>,
}

impl Offered {
    /// The table for clients, if there is one.
    pub fn common(&self) -> Option<Bytes> {
        self.common.clone()
    }

    /// Takes what the broker at a place told. One that tells nothing keeps the table it had.
    pub fn learn(&mut self, place: &Place, table: Option<Bytes>, brokers: &[Broker]) {
        let told = self.told.entry(place.clone());
        let told = told.or_insert_with(|| Told { table: None, at: clock::now() });
        told.at = clock::now();
        told.table = table.or(told.table.take());
        self.unite(brokers);
    }

    /// Takes a new list of brokers; one that is gone may be another when it comes back.
    pub fn keep(&mut self, brokers: &[Broker]) {
        if brokers.iter().any(|broker| self.told.contains_key(&place(broker))) {
            self.told.retain(|at, _| brokers.iter().any(|broker| place(broker) == *at));
        }
        self.unite(brokers);
    }

    /// Whether every known broker was asked.
    pub fn is_whole(&self, brokers: &[Broker]) -> bool {
        !brokers.is_empty() && brokers.iter().all(|broker| self.told.contains_key(&place(broker)))
    }

    /// Known brokers that were not asked yet, or whose table is older than `age`; one that has
    /// none is asked again after `pause`.
    pub fn due(
        &self,
        brokers: &[Broker],
        now: clock::Tick,
        (age, pause): (Duration, Duration),
    ) -> Vec<Place> {
        let due = |at: &Place| match self.told.get(at) {
            None => true,
            Some(told) => now - told.at >= if told.table.is_some() { age } else { pause },
        };
        brokers.iter().map(place).filter(due).collect()
    }

    /// Before the brokers are known by their own places, the one that answered speaks for all.
    fn unite(&mut self, brokers: &[Broker]) {
        let known = brokers.iter().filter_map(|broker| self.told.get(&place(broker)));
        let mut tables: Vec<&Bytes> = known.filter_map(|told| told.table.as_ref()).collect();
        if tables.is_empty() {
            tables.extend(self.told.values().filter_map(|told| told.table.as_ref()));
        }
        if fault::on("one-broker-speaks") {
            tables.truncate(1);
        }
        match versions::common(tables) {
            Ok(Some(common)) => self.common = Some(common),
            Ok(None) => {}
            Err(error) => tracing::warn!(%error, "tables of versions of brokers"),
        }
    }
}

fn place(broker: &Broker) -> Place {
    (broker.host.clone(), broker.port)
}

#[cfg(test)]
mod tests {
    use kafka_protocol::messages::ApiVersionsResponse;
    use kafka_protocol::messages::api_versions_response::ApiVersion;
    use protocol_ext::header::Head;
    use protocol_ext::{api, reply};

    use super::*;

    fn table(max: i16) -> Bytes {
        let row = ApiVersion::default().with_api_key(0).with_max_version(max);
        let head = Head { api: api::API_VERSIONS, version: versions::LAYOUT, correlation: 0 };
        let table = ApiVersionsResponse::default().with_api_keys(vec![row]);
        reply::frame(head, &table).expect("a table")
    }

    fn broker(node: i32) -> Broker {
        Broker { node, host: format!("b{node}"), port: 9092 }
    }

    fn most(offered: &Offered) -> Option<i16> {
        let rows = versions::rows(&offered.common()?).expect("rows");
        rows.get(&0).map(|(_, max)| *max)
    }

    #[test]
    fn the_least_of_those_who_are_there_is_told() {
        let mut offered = Offered::default();
        let (one, two) = (broker(1), broker(2));
        let all = [one.clone(), two.clone()];
        // The place of the configuration is none of theirs.
        offered.learn(&("vip".to_owned(), 9092), Some(table(13)), &[]);
        offered.keep(&all);
        assert_eq!((most(&offered), offered.is_whole(&all)), (Some(13), false));
        offered.learn(&place(&one), Some(table(12)), &all);
        assert_eq!((most(&offered), offered.is_whole(&all)), (Some(12), false));
        offered.learn(&place(&two), None, &all);
        assert!(offered.is_whole(&all));
        offered.learn(&place(&two), Some(table(9)), &all);
        offered.learn(&place(&two), None, &all);
        assert_eq!(most(&offered), Some(9));
        offered.keep(std::slice::from_ref(&one));
        assert_eq!(most(&offered), Some(12));
        offered.keep(&all);
        assert!(!offered.is_whole(&all));
    }

    #[test]
    fn a_broker_is_asked_again_soon_without_a_table_and_later_with_one() {
        let mut offered = Offered::default();
        let all = [broker(1), broker(2)];
        let (age, pause) = (Duration::from_secs(30), Duration::from_secs(5));
        let due = |offered: &Offered, after: Duration| {
            offered.due(&all, clock::now() + after, (age, pause)).len()
        };
        assert_eq!(due(&offered, Duration::ZERO), 2);
        offered.learn(&place(&all[0]), Some(table(1)), &all);
        offered.learn(&place(&all[1]), None, &all);
        assert_eq!(due(&offered, Duration::ZERO), 0);
        assert_eq!(due(&offered, pause), 1);
        assert_eq!(due(&offered, age), 2);
    }
}
