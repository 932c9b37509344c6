//! Each promise is broken on purpose, by a named fault of the binary; its own check must see it.
//!
//! Runs with `--features failpoints`. A check that passes though its promise is broken proves
//! nothing, so this fails then.

use std::future::Future;
use std::pin::Pin;
use std::time::Duration;

use crate::harness::{Checked, Faults};
use crate::rehydrate::refusals;
use crate::{
    addresses, brokers, budget, durable, exact, followers, full, holders, hostile, inflation, keys,
    lifecycle, log_shapes, lost, many_batches, offload, order, origin, overstay, passthrough,
    permissions, pools, ranges, reach, refused, rehydrate, resting, room, routed, rules, sasl,
    segments, share, shared_cache, store, tails, tls, upkeep, uploads, versions,
};

type Check = fn(Faults) -> Pin<Box<dyn Future<Output = Checked>>>;

/// A fault, the check that must fail with it, and what the check must complain of.
struct Mutant {
    name: &'static str,
    faults: &'static str,
    check: Check,
    complaint: &'static str,
}

macro_rules! mutant {
    ($name:literal, $check:path, $complaint:literal) => {
        mutant!($name, concat!($name, "=return"), $check, $complaint)
    };
    ($name:literal, $faults:expr, $check:path, $complaint:literal) => {
        Mutant {
            name: $name,
            faults: $faults,
            check: |faults| Box::pin($check(faults)),
            complaint: $complaint,
        }
    };
}

#[expect(clippy::too_many_lines, reason = "a table")]
fn mutants() -> Vec<Mutant> {
    vec![
        mutant!("address-metadata", addresses::metadata_names_virtual_brokers, "names 127.0.0"),
        mutant!(
            "address-find-coordinator",
            addresses::find_coordinator_names_virtual_brokers,
            "names 127.0.0"
        ),
        mutant!(
            "address-describe-cluster",
            addresses::describe_cluster_names_virtual_brokers,
            "names 127.0.0"
        ),
        mutant!(
            "address-describe-configs",
            addresses::describe_configs_hides_listeners,
            "names 127.0.0"
        ),
        mutant!(
            "address-alter-configs",
            addresses::refused_configs_name_no_broker,
            "names 127.0.0"
        ),
        mutant!(
            "address-describe-quorum",
            addresses::describe_quorum_names_virtual_brokers,
            "names 127.0.0"
        ),
        mutant!("address-produce-tail", tails::produce_tail, "names upstream"),
        mutant!("address-fetch-tail", tails::fetch_tail, "names upstream"),
        mutant!("address-share-fetch-tail", tails::share_fetch_tail, "names upstream"),
        mutant!("address-share-acknowledge-tail", tails::share_acknowledge_tail, "names upstream"),
        mutant!(
            "drop-answer",
            "drop-answer=1*return",
            order::pipelined_requests_are_answered_in_order,
            "was due"
        ),
        mutant!("reorder-answers", order::a_local_answer_waits_for_its_turn, "was due"),
        mutant!("acks0-answered", order::acks_0_has_no_answer, "no answer"),
        mutant!("drain-ignores-in-flight", lifecycle::drain_answers_what_is_in_flight, "no answer"),
        mutant!(
            "silent-client-connects",
            lifecycle::silent_clients_hold_no_broker,
            "connections at the broker"
        ),
        mutant!("overstay-unseen", overstay::a_stuck_request_is_cut_off, "holds a connection"),
        mutant!(
            "short-questions-wait",
            holders::short_questions_wait_for_nobody,
            "a question waited for room"
        ),
        mutant!("holders-unseen", holders::a_sender_that_keeps_room_is_closed, "keeps its room"),
        mutant!(
            "answers-lost-with-home",
            brokers::answers_of_a_broker_that_ends_arrive,
            "answers that arrived"
        ),
        mutant!(
            "answers-lost-with-request",
            crate::refusals::answers_before_a_bad_request_arrive,
            "no answer"
        ),
        mutant!("leg-ends-with-home", brokers::a_leg_outlives_an_idle_home, "no answer"),
        mutant!("lost-cluster-ready", lifecycle::a_lost_cluster_is_told, "still called ready"),
        mutant!("moved-broker-ignored", brokers::a_broker_that_moved_is_found, "no answer"),
        mutant!("attempts-one-by-one", reach::dead_bootstraps_are_not_waited_for, "that failed"),
        mutant!("attempts-one-by-one", reach::a_frozen_broker_is_not_waited_for, "no answer"),
        mutant!(
            "attempts-one-by-one",
            reach::named::dead_addresses_are_not_waited_for,
            "that failed"
        ),
        mutant!(
            "away-looks-closed",
            brokers::a_client_without_a_broker_is_reset,
            "closed in good order"
        ),
        mutant!("names-kept", reach::named::a_host_that_moved_is_found, "no answer"),
        mutant!("moved-broker-ignored", brokers::ids_come_and_go, "no answer"),
        mutant!(
            "drain-ignores-in-flight",
            lifecycle::pipelines_survive_a_drain,
            "batches at the broker"
        ),
        mutant!("drained-for-ever", overstay::a_drain_that_stands_still_ends, "is 1, not 0"),
        mutant!("hidden-api-shown", versions::clients_see_the_intersection, "rows in version"),
        mutant!("forced-unstored", offload::forced_modes_store_values, "values in the store"),
        mutant!("ack-before-durable", offload::values_come_back_as_they_were, "objects at the"),
        mutant!("stale-crc", offload::values_come_back_as_they_were, "error of Produce: 2"),
        mutant!("other-crc-known", offload::values_come_back_as_they_were, "does not fit"),
        mutant!("other-old-crc-known", offload::values_come_back_as_they_were, "in the log"),
        mutant!("store-put-fails", offload::values_come_back_as_they_were, "error of Produce: 56"),
        mutant!(
            "forged-reference-followed",
            offload::a_forged_reference_is_never_followed,
            "was changed"
        ),
        mutant!(
            "restore-unchecked",
            offload::a_damaged_object_is_an_error_and_never_data,
            "values came"
        ),
        mutant!("restore-unchecked", store::other_bytes_of_a_store_are_never_data, "other bytes"),
        mutant!("stuck-answer-unseen", hostile::stalls::answers_that_stand_still, "slow_answer"),
        mutant!("lines-unlimited", hostile::lines::a_flood_writes_few_lines, "lines of a flood"),
        mutant!("taken-key-trusted", store::a_taken_key_is_no_stored_value, "answer for a key"),
        mutant!("checksum-unsent", store::a_damaged_body_is_sent_again, "in the store differ"),
        mutant!("every-reader-asks", store::readers_at_once_read_once, "read the store"),
        mutant!("never-hedged", store::a_slow_read_is_asked_twice, "reads of the store"),
        mutant!("ranges-apart", store::values_of_a_batch_are_read_at_once, "reads of the store"),
        mutant!(
            "uploads-one-by-one",
            store::pipelined_uploads_overlap_in_order,
            "objects there when"
        ),
        mutant!("uploads-reordered", store::pipelined_uploads_overlap_in_order, "was due"),
        mutant!(
            "forgery-inline",
            store::inline_lets_originals_through_but_no_forgery,
            "looks like a reference"
        ),
        mutant!("stored-not-kept", store::what_was_just_stored_is_read_from_memory, "reads of"),
        mutant!("gc-forgets-logs", upkeep::gc_deletes_what_nothing_refers_to, "marked by"),
        mutant!("gc-in-one-pass", upkeep::gc_deletes_what_nothing_refers_to, "first pass"),
        mutant!("lost-key-replaced", offload::a_lost_key_is_not_replaced, "with a new key"),
        mutant!(
            "inflate-unbounded",
            budget::batches_inflate_within_the_budget,
            "inflated too much"
        ),
        mutant!("budget-ignored", offload::restored_values_keep_to_the_budget, "values at offset"),
    ]
}

fn mutants_of_upkeep() -> Vec<Mutant> {
    vec![
        mutant!(
            "runs-not-joined",
            many_batches::a_value_beside_many_batches_comes_back,
            "no answer"
        ),
        mutant!(
            "owner-unasked",
            upkeep::a_cluster_of_the_same_name_deletes_nothing,
            "another cluster's gc"
        ),
        mutant!(
            "segments-kept-for-ever",
            upkeep::values_go_with_their_segment,
            "a deletion: not within"
        ),
        mutant!("parts-not-missed", upkeep::an_unshown_part_keeps_its_objects, "objects left"),
        mutant!("every-log-read", upkeep::topics_without_references_are_not_read, "elsewhere"),
        mutant!("listing-trusted", upkeep::what_is_stored_meanwhile_is_not_dangling, "dangling"),
        mutant!("fetch-unbounded", many_batches::a_small_buffer_strands_nobody, "no answer"),
        mutant!(
            "long-batches-stored",
            offload::batches_beyond_an_answer_are_split,
            "error of a batch of 4"
        ),
        mutant!("away-looks-closed", sasl::clients_that_read_nothing_are_reset, "in good order"),
        mutant!("away-looks-closed", tls::a_drain_resets_who_shakes_hands, "in good order"),
        mutant!("look-alikes-trusted", upkeep::look_alikes_are_no_loss, "a forged reference"),
    ]
}

fn mutants_of_losses() -> Vec<Mutant> {
    vec![
        mutant!("copy-keeps-references", rehydrate::a_copy_is_what_was_read_before, "SHA-256"),
        mutant!("copy-takes-aborted", rehydrate::a_copy_is_what_was_read_before, "records, not"),
        mutant!("copy-begins-anew", rehydrate::a_copy_goes_on_where_it_ended, "records, not"),
        mutant!(
            "left-out-but-acquired",
            share::what_is_acquired_is_there,
            "acquired offsets there"
        ),
        mutant!("share-pace-ignored", share::requests_ask_for_what_fits, "records asked for"),
        mutant!("pace-forgets", share::requests_ask_for_what_fits, "no answer"),
        mutant!("crowds-are-deliveries", share::requests_ask_for_what_fits, "has no room"),
        mutant!("whole-batches-read", share::only_what_is_acquired_is_read, "values read"),
        mutant!("unreadable-cut-off", share::what_is_unreadable_is_passed_on, "is missing"),
        mutant!("lost-are-damaged", lost::what_is_whole_is_given, "values restored, lost"),
        mutant!("lost-at-first-sight", lost::what_is_whole_is_given, "beside a cut"),
        mutant!("any-store-is-ours", lost::another_store_is_no_loss, "the volume"),
        mutant!("any-owner-is-us", lost::another_store_is_no_loss, "another cluster's volume"),
        mutant!("any-404-is-missing", lost::a_gateway_is_no_loss, "behind a gateway"),
        mutant!("bursts-pass", lost::a_burst_is_no_loss, "were passed over"),
        mutant!(
            "always-another-producer",
            rehydrate::a_batch_that_waits_for_replicas_is_there_once,
            "producers"
        ),
        mutant!(
            "replicas-unasked",
            rehydrate::a_batch_that_waits_for_replicas_is_there_once,
            "before the replicas"
        ),
        mutant!("held-back-untold", rehydrate::an_open_transaction_is_told, "exit code with"),
        mutant!(
            "any-hash-fits",
            refusals::a_value_of_another_hash_is_not_copied,
            "with another hash"
        ),
        mutant!("unreplicated-untold", refusals::what_replicas_lack_is_told, "exit code without"),
        mutant!(
            "unsigned-copied",
            refusals::references_that_are_not_followed_end_it,
            "of another key"
        ),
        mutant!("parts-not-missed", refusals::a_hidden_part_ends_it, "without a hidden part"),
        mutant!("copies-are-segments", refusals::a_hidden_part_ends_it, "in the place of"),
        mutant!("any-copy-fits", refusals::a_copy_that_would_lose_is_refused, "with new times"),
        mutant!("burst-at-once", lost::a_burst_is_no_loss, "before readers stop"),
        mutant!(
            "any-copy-taken",
            rehydrate::a_copy_is_no_part_of_a_virtual_topic,
            "taken for a copy"
        ),
        mutant!("outages-are-deliveries", share::an_outage_is_no_delivery, "while the store"),
        mutant!("nameless-is-ours", share::an_unknown_topic_is_the_brokers, "kind=\"nameless\""),
        mutant!("lost-batches-removed", share::readers_go_on_without_a_lost_value, "ends of"),
        mutant!(
            "versions-are-forgeries",
            offload::later_versions_are_no_forgeries,
            "unknown versions"
        ),
        mutant!("store-unprobed", store::a_store_that_refuses_is_told_at_the_start, "a line about"),
        mutant!("foreign-rules-dropped", upkeep::rules_of_others_stay, "theirs"),
        mutant!("all-uploads-ended", upkeep::rules_of_others_stay, "<Prefix>"),
        mutant!("passthrough-writes", passthrough::nothing_is_written, "error of Produce to t"),
        mutant!("passthrough-restores", passthrough::references_are_given_raw, "restores values"),
        mutant!(
            "partition-bytes-ignored",
            offload::restored_values_keep_to_what_partitions_want,
            "bytes wanted"
        ),
    ]
}

/// What a service may do to upkeep, and what is left in a bucket.
fn mutants_of_buckets() -> Vec<Mutant> {
    use upkeep::bucket;
    vec![
        mutant!("one-page-listed", bucket::every_page_counts, "deleted at first"),
        mutant!("listing-asked-once", bucket::listings_are_asked_for_again, "objects listed"),
        mutant!("silence-waited-for", bucket::listings_are_asked_for_again, "upkeep: not within"),
        mutant!("look-asked-once", bucket::looks_are_asked_for_again, "dangling references"),
        mutant!("deletion-asked-once", bucket::deletions_are_asked_for_again, "by a busy store"),
        mutant!("upkeep-impatient", bucket::upkeep_has_time, "in a busy store"),
        mutant!("deletions-one-by-one", bucket::deletions_overlap, "1 deletions at once"),
        mutant!("deep-reads-whole", bucket::long_packs_are_read_in_ranges, "asked for at once"),
        mutant!("uploads-left", bucket::broken_off_uploads_go, "uploads left by gc"),
        mutant!("young-uploads-aborted", bucket::broken_off_uploads_go, "within the grace"),
        mutant!("any-upload-is-ours", bucket::broken_off_uploads_go, "within the grace"),
        mutant!("one-page-of-uploads", bucket::broken_off_uploads_go, "within the grace"),
        mutant!("present-uploads-aborted", bucket::doubtful_uploads_stay, "kept by"),
        mutant!("no-time-is-a-time", bucket::doubtful_uploads_stay, "begun, left"),
        mutant!("one-upload-stops-all", bucket::uploads_stop_nothing, "though two fail"),
        mutant!(
            "uploads-asked-once",
            bucket::uploads_are_asked_for_again,
            "told of NotImplemented"
        ),
        mutant!(
            "upload-unaborted",
            store::a_part_that_is_not_answered_leaves_nothing,
            "parts of the late attempt"
        ),
        mutant!("one-part-analysed", upkeep::every_segment_is_analysed, "records, large ones"),
        mutant!("formats-untold", offload::formats_are_counted, "of format jpeg"),
    ]
}

/// What `gc` need not read again.
fn mutants_of_indexes() -> Vec<Mutant> {
    use upkeep::index;
    vec![
        mutant!("index-unread", index::a_second_gc_reads_what_is_new, "by the second gc"),
        mutant!("index-forgets-packs", index::a_second_gc_reads_what_is_new, "by the third gc"),
        mutant!("index-never-forgets", index::packs_before_the_start_go, "the log begins later"),
        mutant!("index-by-record", index::a_batch_over_the_start_keeps_its_object, "over the"),
        mutant!("index-start-ignored", index::a_log_that_begins_earlier_is_read_whole, "earlier"),
        mutant!(
            "index-trusted-after-truncation",
            index::a_truncated_log_is_read_whole,
            "a value is gone"
        ),
        mutant!("index-epoch-ignored", index::another_leaders_batch_is_another, "a value is gone"),
        mutant!("index-of-two-logs", index::two_logs_are_no_index, "a value is gone"),
        mutant!("log-sums-unchecked", index::a_damaged_batch_is_not_read, "a value is gone"),
        mutant!(
            "gone-batch-ends-gc",
            index::a_log_that_goes_while_it_is_read_stops_nothing,
            "while retention goes on"
        ),
        mutant!(
            "index-trusted-when-damaged",
            index::a_damaged_index_is_not_used,
            "with a damaged index"
        ),
        mutant!(
            "index-trusted-after-recreation",
            index::a_topic_made_anew_has_no_index,
            "a value is gone"
        ),
        mutant!(
            "compacted-logs-indexed",
            index::compacted_logs_are_read_whole,
            "was compacted away"
        ),
    ]
}

/// Who is given values and when, and what becomes of objects.
fn mutants_of_values() -> Vec<Mutant> {
    use upkeep::life;
    vec![
        mutant!("followers-restored", followers::logs_are_copied, "bytes for a follower"),
        mutant!("turn-forgotten", log_shapes::partitions_take_turns, "never come"),
        mutant!("aborted-values-read", log_shapes::aborted_values_are_not_read, "values read with"),
        mutant!("aborted-for-ever", log_shapes::aborted_values_are_not_read, "value 4 of 112"),
        mutant!(
            "ack-before-durable",
            "ack-before-durable=return;disk-full=1*off->5*return;store-rest-ms=return(3000)",
            full::what_cannot_be_kept_is_refused,
            "answer while the disk is full"
        ),
        mutant!(
            "half-files-kept",
            "half-files-kept=return;disk-full=1*off->5*return;store-rest-ms=return(3000)",
            full::what_cannot_be_kept_is_refused,
            "half files"
        ),
        mutant!("inflation-unlearned", inflation::a_backlog_is_sent_about_once, "brokers sent"),
        mutant!(
            "inflation-unlearned",
            inflation::sessions_are_sent_about_what_they_use,
            "brokers sent"
        ),
        mutant!(
            "inflation-unlearned",
            routed::stored::a_routed_backlog_is_sent_about_once,
            "brokers sent"
        ),
        mutant!(
            "inflation-kept",
            inflation::plain_records_come_in_full_again,
            "plain records come in"
        ),
        mutant!(
            "waited-bytes-undercut",
            inflation::no_broker_waits_for_what_it_may_not_give,
            "and may give"
        ),
        mutant!(
            "lowered-fetches-wait",
            inflation::a_long_fetch_waits_for_no_room,
            "waited for room"
        ),
        mutant!(
            "cut-to-lowered",
            routed::stored::what_a_leg_gave_is_not_cut_to_less,
            "was cut off"
        ),
        mutant!("gc-forgets-logs", life::a_retry_leaves_an_orphan, "objects left by gc"),
        mutant!("gc-forgets-logs", life::compacted_values_go, "orphans, dangling"),
        mutant!(
            "deleted-topics-unasked",
            life::a_topic_made_anew_keeps_its_objects,
            "gone without being asked for"
        ),
    ]
}

/// What a restored batch keeps of the one in the log, and what becomes of uploads and keys.
fn mutants_of_stores() -> Vec<Mutant> {
    vec![
        mutant!("append-time-lost", log_shapes::append_times_stay, "the append time is lost"),
        mutant!("gaps-closed", log_shapes::gaps_stay, "last offset delta"),
        mutant!("control-restored", log_shapes::markers_pass, "batches that came"),
        mutant!(
            "store-never-rests",
            "store-never-rests=return;store-rest-ms=return(3000)",
            resting::it_rests_and_is_asked_again,
            "attempts up to request"
        ),
        mutant!(
            "store-rests-for-ever",
            "store-rests-for-ever=return;store-rest-ms=return(3000)",
            resting::it_rests_and_is_asked_again,
            "is asked again: not within"
        ),
        mutant!(
            "file-unsynced",
            "file-unsynced=return;file-sync-fails=5*return;store-rest-ms=return(3000)",
            durable::files_are_on_the_disk,
            "answer to files"
        ),
        mutant!(
            "folder-unsynced",
            "folder-unsynced=return;folder-sync-fails=5*return;store-rest-ms=return(3000)",
            durable::names_are_on_the_disk,
            "answer to folders"
        ),
        mutant!(
            "unsynced-names-trusted",
            "unsynced-names-trusted=return;folder-sync-fails=1*return(4500)",
            durable::what_may_be_taken_back_is_not_believed,
            "behind a disk that hung"
        ),
        mutant!(
            "folders-trusted-unsynced",
            "folders-trusted-unsynced=return;\
             folder-sync-fails=5*off->1*return->1*off->1*return",
            durable::folders_above_are_on_the_disk,
            "attempts that failed"
        ),
        mutant!("upload-unaborted", uploads::parts_of_a_failed_upload_go, "parts left of"),
        mutant!(
            "unsure-uploads-aborted",
            uploads::what_may_be_complete_is_not_given_up,
            "that may be complete"
        ),
        mutant!("key-for-all", keys::a_key_is_its_owners, "mode of the key"),
        mutant!("previous-key-ignored", keys::keys_are_replaced, "raw bytes for a reader"),
        mutant!("last-rule-counts", rules::the_first_rule_counts, "objects of 20000 bytes in t"),
        mutant!("unruled-unrestored", rules::the_first_rule_counts, "lost, dangling, orphaned"),
        mutant!("gaps-unbounded", ranges::gaps_are_bounded, "reads of the store with"),
        mutant!("ranges-unbounded", ranges::ranges_are_bounded, "reads of the store, the last"),
        mutant!("cold-values-kept", pools::old_values_push_nothing_out, "found in memory"),
        mutant!("laggards-beside-others", pools::laggards_wait_alone, "who lags was answered"),
    ]
}

fn mutants_of_security() -> Vec<Mutant> {
    vec![
        mutant!(
            "client-certificate-unasked",
            tls::client_certificates_are_checked,
            "served with no certificate"
        ),
        mutant!("any-password-taken", sasl::passwords_are_checked, "login of alice with other"),
        mutant!(
            "early-frames-unbounded",
            sasl::requests_before_the_proof_are_closed,
            "was waited for"
        ),
        mutant!("strangers-answered", permissions::strangers_get_nothing, "before a login"),
        mutant!("legs-unasked", permissions::acls_hold_through_legs, "without WRITE"),
        mutant!(
            "store-unasked",
            permissions::values_of_strangers_are_not_stored,
            "uploads of who may not write"
        ),
        mutant!("handshake-0-hidden", sasl::version_0_of_handshakes_is_shown, "versions told"),
        mutant!("any-header-believed", origin::headers_of_strangers_are_closed, "was believed"),
        mutant!("header-not-counted", origin::addresses_of_headers_count, "was served"),
        mutant!(
            "unproven-for-long",
            tls::unproven_ends_with_the_handshake,
            "room beside a silent client"
        ),
        mutant!("login-unbounded", sasl::logins_have_a_time, "end of the connection"),
        mutant!(
            "session-behind-uploads",
            sasl::sessions_end_behind_uploads,
            "kind=\"session_over\""
        ),
        mutant!("one-broker-speaks", versions::all_brokers_count, "versions told while"),
        mutant!("errors-are-tables", versions::all_brokers_count, "APIs were told for a while"),
        mutant!("newcomers-wait", versions::newcomers_wait_for_nobody, "who came while another"),
        mutant!(
            "newest-versions-pass",
            versions::requests_that_are_too_new_are_answered,
            "no answer"
        ),
        mutant!("newest-versions-pass", versions::clients_see_the_intersection, "rows in version"),
        mutant!("users-hidden", sasl::brokers_see_clients, "logins of alice at brokers"),
        mutant!("lifetime-untold", sasl::sessions_end, "lifetime told"),
        mutant!("session-never-ends", sasl::sessions_end, "end of the connection"),
        mutant!("secrets-shown", sasl::secrets_stay_secret, "no secret is masked"),
        mutant!("renewal-ignored", tls::certificates_are_renewed, "file_reloads_total"),
        mutant!("any-name-served", tls::unknown_names_are_closed, "was served"),
        mutant!("handshake-unbounded", tls::slow_handshakes_end, "end of the connection"),
    ]
}

/// Exactly once through a split.
fn mutants_of_exactly_once() -> Vec<Mutant> {
    use exact::{gate, large};
    use segments::write;
    vec![
        mutant!(
            "sizes-unknown",
            write::halves_of_what_is_too_large_are_written,
            "error of a large one"
        ),
        mutant!("parts-cut-in-halves", write::what_is_there_in_part_is_not_cut, "halves of"),
        mutant!("unanswered-forgotten", large::what_may_be_written_is_sent_again, "once it is"),
        mutant!("lost-answers-closed", large::what_may_be_written_is_sent_again, "while it is"),
        mutant!("unanswered-forgotten", large::a_lost_answer_keeps_a_batch_whole, "written yet"),
        mutant!("lost-answers-closed", large::a_lost_answer_keeps_a_batch_whole, "written yet"),
        mutant!("sizes-waited-for", large::a_silent_leader_is_sent_to, "answer: not within"),
        mutant!("ahead-for-ever", exact::a_first_batch_follows, "on the first connection"),
        mutant!("no-look-up", exact::a_first_batch_follows, "error of a batch ahead"),
        mutant!(
            "pass-a-failed-batch",
            exact::a_failed_batch_is_not_passed,
            "error of a batch behind it"
        ),
        mutant!(
            "partial-success",
            exact::success_is_told_of_whole_batches,
            "error of half a batch"
        ),
        mutant!("dispatch-late", exact::a_part_is_not_sent_late, "in fires-"),
        mutant!("zombie-epoch-sent", gate::an_older_epoch_is_not_sent, "the older epoch"),
        mutant!(
            "epoch-of-another-partition",
            gate::an_epoch_is_that_of_its_partition,
            "answers to both epochs"
        ),
        mutant!(
            "dispatch-unlimited",
            "dispatch-ms=return(500);dispatch-unlimited=return",
            gate::a_part_has_its_time,
            "in fires-"
        ),
    ]
}

/// What is refused here, and what is not.
fn mutants_of_refusals() -> Vec<Mutant> {
    vec![
        mutant!(
            "refusals-forgotten",
            refused::followers_of_a_refused_batch_are_refused,
            "answer of batch 1"
        ),
        mutant!(
            "refused-for-others",
            refused::others_are_written,
            "answer beside an unknown topic"
        ),
        mutant!(
            "queue-unbounded",
            refused::refusals_are_bounded_in_number,
            "requests wait for an answer"
        ),
        mutant!(
            "plain-bytes-uncounted",
            refused::plain_batches_count,
            "where 1000000 were asked for"
        ),
        mutant!("answers-take-no-room", room::long_answers_take_room, "answers are held"),
        mutant!("long-questions-taken", room::long_questions_are_refused, "was answered"),
    ]
}

/// Carriers of virtual topics, and the regions of their records.
fn mutants_of_carriers_and_regions() -> Vec<Mutant> {
    vec![
        mutant!("patterns-pass", routed::groups::patterns_end_here, "patterns that brokers saw"),
        mutant!("areas-overlap", routed::regions::records_go_where_they_are, "values in fires"),
        mutant!(
            "unlocated-uncounted",
            routed::regions::records_go_where_they_are,
            "firebreak_unlocated_records_total"
        ),
        mutant!(
            "long-values-unread",
            routed::inputs::everything_goes_by_the_rules,
            "records in fires-norcal"
        ),
        mutant!(
            "unlocated-uncounted",
            routed::inputs::everything_goes_by_the_rules,
            "firebreak_unlocated_records_total"
        ),
        mutant!("ends-unasked", segments::delete::records_before_an_offset_go, "beyond the end"),
        mutant!(
            "looks-forgotten",
            segments::seals::growth_is_seen_by_the_next_leader,
            "sealed_segments_grown"
        ),
        mutant!("newest-first", segments::delete::no_hole_is_made, "starts after a failure"),
        mutant!("days-by-arrival", segments::stamped::records_go_to_their_days, "days in"),
        mutant!(
            "too-large-is-corrupt",
            routed::bounds::a_batch_that_inflates_too_far_is_refused,
            "error of a batch"
        ),
        mutant!("bombs-add-up", routed::bounds::batches_do_not_add_up, "errors of batches"),
        mutant!("no-carrier", routed::carrier::the_carrier_is_made, "a carrier beside"),
        mutant!("segments-shown", routed::carrier::the_carrier_is_made, "all topics in"),
        mutant!("missing-carrier-told", routed::carrier::a_carrier_is_waited_for, "without a"),
        mutant!("old-ids-kept", routed::carrier::a_new_id_is_followed, "by the old id"),
        mutant!(
            "unknown-ids-pass",
            routed::carrier::an_unseen_id_reaches_no_carrier,
            "records in the carrier"
        ),
        mutant!("old-versions-pass", routed::carrier::old_versions_reach_no_carrier, "at a broker"),
        mutant!(
            "negative-commits-pass",
            routed::carrier::commits_are_the_carriers,
            "errors of OffsetCommit"
        ),
        mutant!("epochs-pass", routed::carrier::epochs_end_nowhere, "ends of epochs"),
        mutant!("structure-passes", routed::carrier::the_structure_is_kept, "of CreatePartitions"),
        mutant!(
            "deletions-pass",
            routed::carrier::records_are_deleted_in_the_parts,
            "answers of DeleteRecords"
        ),
        mutant!(
            "carriers-unread",
            routed::carrier::records_in_a_carrier_are_told_of,
            "firebreak_hidden_topics is"
        ),
        mutant!(
            "partitions-uncounted",
            routed::carrier::misshapen_topics_are_told_of,
            "firebreak_misshapen_topics is"
        ),
    ]
}

/// What clients must not see is nobody's, whatever API names it.
fn mutants_of_hidden_topics() -> Vec<Mutant> {
    use segments::hidden::{data, offsets, partitions, the_writer, topics};
    vec![
        mutant!("hidden-produce", data, "answer of Produce"),
        mutant!("hidden-fetch", data, "answer of Fetch"),
        mutant!("hidden-list-offsets", offsets, "answer of ListOffsets"),
        mutant!("hidden-offset-commit", offsets, "answer of OffsetCommit"),
        mutant!("hidden-txn-offset-commit", offsets, "answer of TxnOffsetCommit"),
        mutant!("hidden-offset-delete", offsets, "answer of OffsetDelete"),
        mutant!("hidden-offset-for-leader-epoch", offsets, "answer of OffsetForLeaderEpoch"),
        mutant!("hidden-create-topics", topics, "answer of CreateTopics"),
        mutant!("structure-passes", topics, "requests CreateTopics"),
        mutant!("hidden-delete-topics", topics, "answer of DeleteTopics"),
        mutant!("unknown-ids-pass", topics, "answer of DeleteTopics"),
        mutant!("hidden-create-partitions", topics, "answer of CreatePartitions"),
        mutant!("hidden-describe-configs", topics, "answer of DescribeConfigs"),
        mutant!("hidden-alter-configs", topics, "answer of AlterConfigs"),
        mutant!("address-alter-configs", topics, "names a broker"),
        mutant!("hidden-incremental-alter-configs", topics, "answer of IncrementalAlterConfigs"),
        mutant!("hidden-delete-records", partitions, "answer of DeleteRecords"),
        mutant!("hidden-add-partitions-to-txn", partitions, "answer of AddPartitionsToTxn"),
        mutant!("hidden-write-txn-markers", partitions, "answer of WriteTxnMarkers"),
        mutant!("markers-pass", partitions, "answer of WriteTxnMarkers"),
        mutant!("hidden-alter-replica-log-dirs", partitions, "answer of AlterReplicaLogDirs"),
        mutant!("hidden-elect-leaders", partitions, "answer of ElectLeaders"),
        mutant!("hidden-alter-partition-reassignments", partitions, "PartitionReassignments"),
        mutant!("writer-unguarded", the_writer, "answer of InitProducerId"),
        mutant!("hidden-describe-producers", partitions, "answer of DescribeProducers"),
        mutant!(
            "old-versions-of-parts-pass",
            routed::carrier::old_versions_reach_no_carrier,
            "at a broker"
        ),
    ]
}

/// What clients see of virtual topics.
fn mutants_of_virtual_topics() -> Vec<Mutant> {
    vec![
        mutant!(
            "leaders-kept",
            routed::leaders::a_partition_gets_its_leader_back,
            "errors though there is a leader"
        ),
        mutant!(
            "names-beside-ids",
            routed::leaders::names_and_ids_are_asked_for_apart,
            "errors of a name"
        ),
        mutant!(
            "questions-unbounded",
            permissions::questions_are_bounded,
            "topics in one question"
        ),
        mutant!(
            "attempts-one-by-one",
            routed::leaders::a_silent_broker_stalls_no_question,
            "beside a silent broker"
        ),
        mutant!(
            "any-error-doubts",
            routed::leaders::errors_of_clients_doubt_no_leader,
            "questions because of errors"
        ),
        mutant!(
            "leg-limits-add-up",
            routed::leaders::a_slow_leg_has_one_deadline,
            "beside a slow leg"
        ),
        mutant!("refusals-unbounded", routed::transactions::refusals_are_bounded, "a row for each"),
        mutant!(
            "question-asked-once",
            routed::leaders::a_stale_connection_costs_no_request,
            "behind a broken connection"
        ),
        mutant!(
            "read-out-of-turn",
            routed::fetch::restored_values_wait_for_their_turn,
            "never came"
        ),
        mutant!("bytes-unbounded", routed::fetch::an_answer_keeps_to_its_bytes, "bytes of 1000000"),
        mutant!(
            "legs-take-no-room",
            routed::bounds::answers_of_legs_keep_to_the_byte_budget,
            "memory grew by"
        ),
        mutant!(
            "transactional-id-lost",
            routed::produce::the_plain_part_is_as_its_client_wrote_it,
            "transactional id of"
        ),
        mutant!(
            "transactions-unread",
            routed::transactions::a_transaction_with_a_virtual_topic_is_refused,
            "codes of version 0"
        ),
        mutant!(
            "routed-unrestored",
            routed::stored::a_routed_value_comes_back,
            "bytes of the values that came back"
        ),
    ]
}

/// The next request, read while a leg of the one before is waited for.
fn mutants_of_reading_ahead() -> Vec<Mutant> {
    use routed::ahead;
    vec![
        mutant!(
            "ahead-read-at-its-turn",
            ahead::it_is_read_while_a_leg_waits,
            "bytes of the next request"
        ),
        mutant!("ahead-behind-many", ahead::one_is_read_and_waits_for_its_turn, "was due"),
        mutant!("ahead-buffers-unbounded", ahead::it_has_room_of_its_own, "without room"),
        mutant!("ahead-blames-for-both", ahead::it_counts_for_itself, "that gets on is cut off"),
        mutant!("ahead-end-blamed", ahead::the_end_is_the_clients, "kind=\"client_io\""),
        mutant!("ahead-read-again", ahead::values_are_stored_once, "no answer"),
    ]
}

/// Segments behind a virtual topic.
fn mutants_of_segments() -> Vec<Mutant> {
    use segments::{apart, begin, begun, command, election, leader, log, read, seals, soon, write};
    vec![
        mutant!("tomorrow-unmade", soon::made_before_and_opened_later, "tomorrow's topics"),
        mutant!("bases-forgotten", read::records_have_logical_offsets, "offsets from 5"),
        mutant!("sealed-end-read", read::records_have_logical_offsets, "offsets from 5"),
        mutant!("read-behind-a-seal", read::records_have_logical_offsets, "offsets from 0"),
        mutant!("sealed-end-told", read::records_have_logical_offsets, "end told from 0"),
        mutant!(
            "ahead-is-out-of-range",
            read::a_reader_that_is_ahead_is_not_reset,
            "before the roll is known"
        ),
        mutant!("later-segment-first", read::offsets_are_listed_over_segments, "offset of time"),
        mutant!("seal-called-too-large", write::writers_wait_for_the_next_segment, "answer"),
        mutant!("seal-not-crossed", write::a_retry_across_a_seal_doubles_nothing, "in fires-"),
        mutant!(
            "aborted-placement-read",
            log::what_was_not_committed_did_not_happen,
            "end: not within"
        ),
        mutant!(
            "placement-uncommitted",
            leader::segments_are_made_and_rolled,
            "segments: not within"
        ),
        mutant!("seal-unasked", seals::a_seal_waits_for_every_broker, "while the roll must wait"),
        mutant!(
            "open-transaction-sealed",
            seals::a_seal_waits_for_transactions,
            "while the roll must wait"
        ),
        mutant!(
            "unreplicated-sealed",
            seals::a_seal_waits_for_replicas,
            "while the roll must wait"
        ),
        mutant!(
            "seal-asks-brokers-that-are-down",
            seals::a_seal_waits_for_no_broker_that_is_down,
            "a roll: not within"
        ),
        mutant!(
            "sealed-rows-forgotten",
            write::a_sealed_segment_is_asked_about_once,
            "questions about"
        ),
        mutant!("one-work-at-a-time", apart::a_slot_that_waits_holds_up_no_other, "not within"),
        mutant!("silent-brokers-waited-for", apart::a_silent_broker_is_asked_again, "not within"),
        mutant!("fenced-leader-fights", election::a_stopped_leader_is_followed, "how often"),
        mutant!(
            "writers-apart",
            election::a_stopped_leader_is_followed,
            "that a broker refuses: not within"
        ),
        mutant!("writers-apart", begin::two_start_at_once, "who leads: (true, true)"),
        mutant!(
            "unread-placement-ready",
            begin::who_has_not_read_is_not_ready,
            "readiness before the log is read"
        ),
        mutant!(
            "open-intents-forgotten",
            begun::what_was_begun_is_ended,
            "firebreak_placement_intents is 2, not 0"
        ),
        mutant!("roll-asked-once", command::the_leader_is_found, "no leader within"),
        mutant!("sealed-length-unchecked", write::a_short_answer_is_no_answer, "error of a batch"),
    ]
}

/// Values that proxies share.
fn mutants_of_shared_values() -> Vec<Mutant> {
    use shared_cache as cache;
    vec![
        mutant!("stored-not-shared", cache::what_was_stored_needs_no_store, "is 0, not 3"),
        mutant!("shared-unasked", cache::what_was_stored_needs_no_store, "reads of the store"),
        mutant!("read-not-shared", cache::what_was_read_needs_no_store, "is 0, not 1"),
        mutant!("shared-misses-final", cache::a_redis_that_dies_costs_no_read, "values differ"),
        mutant!("shared-misses-final", cache::half_an_answer_costs_no_read, "values differ"),
        mutant!("shared-not-regained", cache::a_redis_that_dies_costs_no_read, "used again"),
        mutant!("shared-trusted", cache::a_planted_value_is_not_given_out, "values differ"),
        mutant!("shared-hash-unchecked", cache::a_planted_value_is_not_given_out, "values differ"),
        mutant!("shared-wrong-stays", cache::a_planted_value_is_not_given_out, "removal of"),
        mutant!("shared-unmeasured", cache::a_planted_length_takes_no_memory, "bytes of memory"),
        mutant!("shared-kept-asking", cache::a_silent_redis_is_waited_for_once, "in vain"),
        mutant!("shared-asked-on", cache::a_slow_redis_is_not_asked_on, "question by question"),
        mutant!("shared-queue-unbounded", cache::the_queue_is_bounded, "turned away"),
        mutant!("cold-values-shared", cache::old_values_are_not_asked_for, "for an old value"),
        mutant!("secrets-shown", cache::the_password_is_never_shown, "no password is masked"),
    ]
}

/// A fault that needs a race to do harm may miss it: one harm of so many tries is enough, since the
/// check without a fault passes every time.
const TRIES: u32 = 5;
/// No check takes so long, whatever is broken; one that does waits for something without a bound.
const CHECK_MAX: Duration = Duration::from_secs(240);

/// `FIREBREAK_MUTANT=NAME` runs one of them.
#[tokio::test]
async fn every_check_fails_when_its_promise_is_broken() {
    let only = std::env::var("FIREBREAK_MUTANT").ok();
    let mut survived = Vec::new();
    let mut mutants = mutants();
    mutants.extend(mutants_of_upkeep());
    mutants.extend(mutants_of_buckets());
    mutants.extend(mutants_of_indexes());
    mutants.extend(mutants_of_losses());
    mutants.extend(mutants_of_values());
    mutants.extend(mutants_of_stores());
    mutants.extend(mutants_of_shared_values());
    mutants.extend(mutants_of_security());
    mutants.extend(mutants_of_exactly_once());
    mutants.extend(mutants_of_virtual_topics());
    mutants.extend(mutants_of_reading_ahead());
    mutants.extend(mutants_of_hidden_topics());
    mutants.extend(mutants_of_carriers_and_regions());
    mutants.extend(mutants_of_refusals());
    mutants.extend(mutants_of_segments());
    mutants.retain(|mutant| only.as_ref().is_none_or(|only| only == mutant.name));
    assert!(!mutants.is_empty(), "no mutant is called {only:?}");
    for mutant in &mutants {
        if let Err(why) = seen_to_fail(mutant).await {
            survived.push(format!("{}: {why}", mutant.name));
        }
    }
    println!("{} of {} mutants seen to fail", mutants.len() - survived.len(), mutants.len());
    assert!(survived.is_empty(), "{survived:#?}");
}

async fn seen_to_fail(mutant: &Mutant) -> Result<(), String> {
    for tries in 1..=TRIES {
        let checked = tokio::time::timeout(CHECK_MAX, (mutant.check)(Some(mutant.faults))).await;
        match checked.map_err(|_| "it stands still")? {
            Err(failure) if failure.0.contains(mutant.complaint) => {
                println!("{} (try {tries}): {}", mutant.name, failure.0);
                return Ok(());
            }
            Err(failure) => return Err(format!("failed for another reason: {failure:?}")),
            Ok(()) => {}
        }
    }
    Err(format!("its check passed {TRIES} times"))
}
