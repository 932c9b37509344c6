//! The proxy in front of **real** Kafka, used by real clients.
//!
//! The harness fetches Kafka from Maven ([`jars`]), starts clusters ([`cluster`]) on 127.0.0.2-5, a
//! `firebreak` that is advertised as 127.0.0.1 ([`proxy`]) and a recording relay in front of it
//! ([`relay`]). Every case runs twice, directly against the brokers and through the proxy, and both
//! outcomes must be equal ([`rig`]); every byte sent to a client is searched for what it must not
//! hold ([`leak`]).
//!
//! `FIREBREAK_KAFKA_VERSIONS=4.3.1,3.9.1` picks brokers; `FIREBREAK_CACHE` says where the jars are
//! kept.
#![cfg(test)]
#![expect(
    clippy::disallowed_methods,
    reason = "a test harness has its own tasks and reads the real clock"
)]

mod balancer;
mod batch;
mod cases;
#[path = "../it/harness/certs.rs"]
#[expect(dead_code, reason = "the suite with a fake broker uses more of it")]
mod certs;
mod cluster;
mod driver;
mod franz_go;
mod jars;
mod leak;
mod ports;
mod process;
mod proxy;
mod python;
mod raw;
mod relay;
mod rig;
mod secured;

/// Declares one test per line for one cluster; its rig is shared by them.
macro_rules! on_kafka {
    ($module:ident, $version:expr, [$($test:ident => $case:path),* $(,)?]) => {
        mod $module {
            use super::*;
            $(#[test] fn $test() { crate::rig::with($version, stringify!($test), $case); })*
        }
    };
}

/// Every case, for one cluster; what a version lacks is for the case to find out.
macro_rules! every_case_on_kafka {
    ($module:ident, $version:expr) => {
        on_kafka!($module, $version, [
            no_answer_names_a_broker => addresses::no_answer_names_a_broker,
            versions_are_an_intersection => by_hand::versions_are_an_intersection,
            requests_no_broker_knows_end_alike => by_hand::requests_no_broker_knows,
            produce_and_fetch_in_every_version => by_hand::produce_and_fetch_in_every_version,
            every_api_in_every_version => everything::every_api_in_every_version,
            message_sets => by_hand::message_sets,
            pipelined_requests_are_answered_in_order => by_hand::pipelined_requests,
            java_every_codec_with_every_acks => records::every_codec_with_every_acks,
            java_idempotent_producer => records::idempotent_producer,
            java_records_of_30_megabytes => records::records_of_thirty_megabytes,
            java_transactions => groups::transactions,
            java_classic_group => groups::classic_group,
            java_consumer_group => groups::consumer_group,
            java_share_group => groups::share_group,
            java_of_kafka_0_11 => old::java_of_kafka_0_11,
            java_admin_every_call => admin::every_call,
            java_stock_tools => tools::stock_tools,
            librdkafka_every_codec_with_every_acks => librdkafka::every_codec_with_every_acks,
            librdkafka_idempotent_producer => librdkafka::idempotent_producer,
            librdkafka_record_of_30_megabytes => librdkafka::a_record_of_thirty_megabytes,
            librdkafka_transactions => librdkafka::transactions,
            librdkafka_classic_group => librdkafka::classic_group,
            librdkafka_consumer_group => librdkafka::consumer_group,
            librdkafka_admin => librdkafka::admin,
            kcat_every_codec_with_every_acks => kcat::every_codec_with_every_acks,
            kcat_as_of_kafka_0_9 => kcat::as_of_kafka_0_9,
            kcat_lists_the_cluster => kcat::lists_the_cluster,
            trouble_leader_moves_under_load => trouble::leader_moves_under_load,
            trouble_broker_restarts_under_load => trouble::broker_restarts_under_load,
            trouble_broker_added => trouble::broker_added,
            trouble_proxy_killed_under_idempotent_load =>
                trouble::proxy_killed_under_idempotent_load,
            trouble_proxy_killed_under_transactions => trouble::proxy_killed_under_transactions,
            trouble_proxy_killed_under_librdkafka => trouble::proxy_killed_under_librdkafka,
            trouble_proxy_drained_under_load => trouble::proxy_drained_under_load,
            rolling_restart_of_everything => rolling::brokers_and_proxies_one_by_one,
        ]);
    };
}

/// What clients and brokers prove to each other, and what that permits.
macro_rules! security_on_kafka {
    ($module:ident, $version:expr) => {
        on_kafka!($module, $version, [
            sasl_passes_through => security::sasl_passes_through,
            sasl_ends_at_the_proxy => security::sasl_ends_at_the_proxy,
            sessions_are_renewed_under_load => security::sessions_are_renewed_under_load,
            certificates_of_clients => security::certificates_of_clients,
            certificates_rotate_under_load => security::certificates_rotate_under_load,
            expired_certificates => security::expired_certificates,
            one_port_with_a_name_for_each_broker => security::one_port_with_names,
            acls_hold_directly_proxied_and_through_legs => security::acls_hold,
            writes_forbidden_through_legs => security::writes_forbidden_through_legs,
        ]);
    };
}

const KAFKA_4_3: rig::Version = rig::Version { name: "4.3.1", brokers: 3, secured: false };
const KAFKA_4_1: rig::Version = rig::Version { name: "4.1.0", brokers: 3, secured: false };
const KAFKA_3_9: rig::Version = rig::Version { name: "3.9.1", brokers: 3, secured: false };
const KAFKA_3_9_ALONE: rig::Version = rig::Version { name: "3.9.1", brokers: 1, secured: false };
const SECURED_4_3: rig::Version = rig::Version { name: "4.3.1", brokers: 3, secured: true };
const SECURED_3_9: rig::Version = rig::Version { name: "3.9.1", brokers: 3, secured: true };

use cases::{
    addresses, admin, aged, buckets, by_hand, everything, exact, groups, kcat, librdkafka, offload,
    old, readers, records, rolling, security, segments, shapes, stamped, tools, trouble,
    virtual_topics,
};

every_case_on_kafka!(on_4_3_1, KAFKA_4_3);
every_case_on_kafka!(on_4_1_0, KAFKA_4_1);
every_case_on_kafka!(on_3_9_1, KAFKA_3_9);
security_on_kafka!(secured_4_3_1, SECURED_4_3);
security_on_kafka!(secured_3_9_1, SECURED_3_9);

on_kafka!(virtual_topics_4_3_1, KAFKA_4_3, [
    one_topic_for_every_client => virtual_topics::one_topic_for_every_client,
    java_sends_halves_of_what_is_too_large => virtual_topics::java_sends_halves,
    leaders_that_come_back_are_followed => virtual_topics::leaders_come_back,
    rolls_under_load => segments::rolls_under_load,
    detections_by_their_coordinates => virtual_topics::detections_by_their_coordinates,
    detections_by_their_days => stamped::detections_by_their_days,
    a_month_later => aged::a_month_later,
]);

on_kafka!(offload_4_3_1, KAFKA_4_3, [
    share_group_beside_a_store => offload::share_group,
    the_way_out => offload::the_way_out,
    lost_values_stop_nobody => offload::lost_values,
    a_passthrough_listener_for_librdkafka => offload::raw_references,
    five_clients_read_what_was_sent => readers::every_client_reads_what_was_sent,
    a_topic_with_the_brokers_times => shapes::append_times,
    a_topic_whose_cleaner_ran => shapes::cleaned,
    a_topic_made_anew => shapes::made_anew,
    a_bucket_of_moto => buckets::moto,
]);

// A service that checks signatures; its build takes minutes the first time.
on_kafka!(strict_store_4_3_1, KAFKA_4_3, [
    a_bucket_of_versitygw => buckets::versitygw,
]);

on_kafka!(exact_4_3_1, KAFKA_4_3, [
    exactly_once_whatever_breaks => exact::exactly_once_whatever_breaks,
    a_hundred_rolls_in_a_row => exact::a_hundred_rolls_in_a_row,
]);

on_kafka!(on_one_broker, KAFKA_3_9_ALONE, [
    no_answer_names_a_broker => addresses::no_answer_names_a_broker,
    java_classic_group => groups::classic_group,
    java_transactions => groups::transactions,
    librdkafka_admin => librdkafka::admin,
    trouble_broker_restarts_under_load => trouble::broker_restarts_under_load,
]);

#[cfg(feature = "failpoints")]
on_kafka!(mutants, KAFKA_4_3, [
    each_address_row_switched_off_is_seen => cases::mutants::each_address_row_is_missed,
]);

#[cfg(feature = "failpoints")]
on_kafka!(mutants_of_security, SECURED_4_3, [
    each_broken_promise_is_seen => security::mutants::each_broken_promise_is_seen,
]);

#[cfg(feature = "failpoints")]
on_kafka!(mutants_of_exactly_once, KAFKA_4_3, [
    each_broken_rule_is_seen => exact::mutants::each_broken_rule_is_seen,
]);

#[cfg(feature = "failpoints")]
on_kafka!(mutants_of_readers, KAFKA_4_3, [
    each_client_sees_a_wrong_crc => readers::mutants::every_client_sees_a_wrong_crc,
]);
