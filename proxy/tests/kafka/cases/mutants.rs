//! The search for leaks must fail when a row of the address table is switched off.

use crate::cases::addresses;
use crate::cases::tails::{self, Topic};
use crate::proxy::Proxy;
use crate::relay::Relay;
use crate::rig::{Place, Rig, tell};

/// A failpoint, the APIs whose answers then leak, and what provokes one of each.
type Row = (&'static str, &'static [&'static str], fn(&mut Rig, &Place));

const ROWS: [Row; 10] = [
    ("address-metadata", &["Metadata"], |_, place| addresses::metadata(place)),
    ("address-find-coordinator", &["FindCoordinator"], |_, place| addresses::coordinators(place)),
    ("address-describe-cluster", &["DescribeCluster"], |_, place| addresses::cluster(place)),
    ("address-describe-quorum", &["DescribeQuorum"], |_, place| addresses::quorum(place)),
    ("address-describe-configs", &["DescribeConfigs"], |_, place| addresses::configs(place)),
    ("address-alter-configs", &["AlterConfigs", "IncrementalAlterConfigs"], |_, place| {
        addresses::refused_listeners(place);
    }),
    ("address-produce-tail", &["Produce"], |rig, place| {
        let topic = Topic::moved(rig, place);
        tails::stale_produce(place, &topic, 12);
    }),
    ("address-fetch-tail", &["Fetch"], |rig, place| {
        let topic = Topic::moved(rig, place);
        tails::stale_fetch(place, &topic, 17);
    }),
    ("address-share-fetch-tail", &["ShareFetch"], |rig, place| {
        let topic = Topic::moved(rig, place);
        tails::stale_share_fetch(place, &topic, 1);
    }),
    ("address-share-acknowledge-tail", &["ShareAcknowledge"], |rig, place| {
        tails::fenced_acknowledge(rig, place, 1);
    }),
];

pub fn each_address_row_is_missed(rig: &mut Rig) {
    for (failpoint, apis, provoke) in ROWS {
        let proxy = Proxy::start(&rig.cluster.bootstrap(), Some(&format!("{failpoint}=return")));
        let relay = Relay::start(proxy.port, rig.cluster.ports());
        let place = Place::proxied(proxy.port, &rig.cluster.brokers(), failpoint);
        provoke(rig, &place);
        let leaks = relay.findings().leaks;
        let counts: Vec<usize> = apis.iter().map(|api| count(&leaks, api)).collect();
        tell(&format!("{failpoint} off: {apis:?} {counts:?} leaks, such as {:?}", leaks.first()));
        assert!(!counts.contains(&0), "{failpoint}: the search missed one of {apis:?}");
        let there: usize = counts.iter().sum();
        assert_eq!(there, leaks.len(), "{failpoint}: leaks of another API: {leaks:#?}");
        rig.executed();
    }
    tell(&format!("{0} of {0} address rows were seen to leak when switched off", ROWS.len()));
}

fn count(leaks: &[String], api: &str) -> usize {
    leaks.iter().filter(|leak| leak.starts_with(&format!("{api} v"))).count()
}
