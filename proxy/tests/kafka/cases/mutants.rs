//! The search for leaks must fail when a row of the address table is switched off.

use crate::cases::addresses;
use crate::cases::tails::{self, Topic};
use crate::proxy::Proxy;
use crate::relay::Relay;
use crate::rig::{Place, Rig, tell};

/// A failpoint, the API whose answers then leak, and what provokes one.
type Row = (&'static str, &'static str, fn(&mut Rig, &Place));

const ROWS: [Row; 8] = [
    ("address-metadata", "Metadata", |_, place| addresses::metadata(place)),
    ("address-find-coordinator", "FindCoordinator", |_, place| addresses::coordinators(place)),
    ("address-describe-cluster", "DescribeCluster", |_, place| addresses::cluster(place)),
    ("address-describe-configs", "DescribeConfigs", |_, place| addresses::configs(place)),
    ("address-produce-tail", "Produce", |rig, place| {
        let topic = Topic::moved(rig, place);
        tails::stale_produce(place, &topic, 12);
    }),
    ("address-fetch-tail", "Fetch", |rig, place| {
        let topic = Topic::moved(rig, place);
        tails::stale_fetch(place, &topic, 17);
    }),
    ("address-share-fetch-tail", "ShareFetch", |rig, place| {
        let topic = Topic::moved(rig, place);
        tails::stale_share_fetch(place, &topic, 1);
    }),
    ("address-share-acknowledge-tail", "ShareAcknowledge", |rig, place| {
        tails::fenced_acknowledge(rig, place, 1);
    }),
];

pub fn each_address_row_is_missed(rig: &mut Rig) {
    for (failpoint, api, provoke) in ROWS {
        let proxy = Proxy::start(&rig.cluster.bootstrap(), Some(&format!("{failpoint}=return")));
        let relay = Relay::start(proxy.port, rig.cluster.ports());
        let place = Place::proxied(proxy.port, &rig.cluster.brokers(), failpoint);
        provoke(rig, &place);
        let leaks = relay.findings().leaks;
        let there = leaks.iter().filter(|leak| leak.starts_with(&format!("{api} v"))).count();
        tell(&format!("{failpoint} off: {there} leaks seen, such as {:?}", leaks.first()));
        assert!(there > 0, "{failpoint}: the search saw nothing");
        assert_eq!(there, leaks.len(), "{failpoint}: leaks of another API: {leaks:#?}");
        rig.executed();
    }
}
