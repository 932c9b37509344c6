//! Readers see one log: offsets go on across segments, and no answer mixes two.

use kafka_protocol::messages::{FetchResponse, ListOffsetsResponse};
use serde_json::Value;

use super::{NORCAL, TOPIC, at_time, roll, seal, start, write_facts};
use crate::harness::broker::Brokers;
use crate::harness::client::Client;
use crate::harness::records::read;
use crate::harness::requests::{fetch, list_offsets};
use crate::harness::{Checked, Faults, ensure_eq, failure, until};

const FETCH: i16 = 1;
const VERSION: i16 = 12;
const LIST_OFFSETS: i16 = 2;
/// Timestamps count from here, so that they fit a batch.
const TIME: i64 = 1_700_000_000_000;

/// One record at each of these times.
pub fn fill(brokers: &Brokers, topic: &str, times: &[i64]) {
    for time in times {
        let mut cluster = brokers.cluster();
        let log = cluster.log(topic, 0).expect("a log");
        log.append(&at_time(TIME + time)).expect("a batch");
    }
}

/// Five records in a sealed segment and three in the open one: logical offsets 0 to 8.
pub async fn fill_two(brokers: &Brokers, client: &mut Client) -> Checked {
    fill(brokers, NORCAL[0], &[1, 2, 3, 4, 5]);
    fill(brokers, NORCAL[1], &[6, 7, 8]);
    roll(brokers, "norcal", NORCAL, 5);
    placed(client, 0, 8).await
}

/// What one answer says of the first partition.
struct Told {
    code: i16,
    end: i64,
    start: i64,
    offsets: Vec<i64>,
}

async fn told(client: &mut Client, offset: i64) -> Checked<Told> {
    let request = fetch(VERSION, TOPIC, &[(0, offset)], i32::MAX);
    let answer: FetchResponse = client.call(FETCH, VERSION, &request).await?;
    let rows = answer.responses.into_iter().flat_map(|topic| topic.partitions);
    let row = rows.into_iter().next().ok_or_else(|| failure("no partition"))?;
    Ok(Told {
        code: row.error_code,
        end: row.high_watermark,
        start: row.log_start_offset,
        offsets: read(&row.records.unwrap_or_default()).iter().map(|r| r.offset).collect(),
    })
}

/// Waits until the proxy has taken over what was written to the placement log.
pub async fn placed(client: &mut Client, start: i64, end: i64) -> Checked {
    for (what, timestamp, offset) in [("start", -2, start), ("end", -1, end)] {
        until(what, async || (listed(client, timestamp).await.ok()? == (0, offset)).then_some(()))
            .await?;
    }
    Ok(())
}

async fn listed(client: &mut Client, timestamp: i64) -> Checked<(i16, i64)> {
    let mut request = list_offsets(TOPIC);
    request.topics[0].partitions[0].timestamp = timestamp;
    let answer: ListOffsetsResponse = client.call(LIST_OFFSETS, 7, &request).await?;
    let row = &answer.topics[0].partitions[0];
    Ok((row.error_code, row.offset))
}

/// Five records in a sealed segment and three in the open one are eight in a row.
pub async fn records_have_logical_offsets(faults: Faults) -> Checked {
    let (brokers, proxy) = start(faults).await?;
    let mut client = Client::connect(proxy.port).await?;
    fill_two(&brokers, &mut client).await?;
    // Nobody may see what came behind a seal in spite of it.
    fill(&brokers, NORCAL[0], &[9]);
    for (from, offsets) in [(0, 0..5), (3, 3..5), (5, 5..8), (7, 7..8), (8, 8..8)] {
        let told = told(&mut client, from).await?;
        let expected: Vec<i64> = offsets.collect();
        ensure_eq!((told.code, told.offsets), (0, expected), "offsets from {from}");
        ensure_eq!((told.start, told.end), (0, 8), "start and end told from {from}");
    }
    ensure_eq!(told(&mut client, 9).await?.code, 1, "error beyond the end");
    Ok(())
}

#[tokio::test]
async fn offsets_go_on_across_segments_and_no_answer_mixes_two() -> Checked {
    records_have_logical_offsets(None).await
}

#[tokio::test]
async fn what_was_below_the_oldest_segment_is_out_of_range() -> Checked {
    let (brokers, proxy) = start(None).await?;
    let mut client = Client::connect(proxy.port).await?;
    fill(&brokers, NORCAL[1], &[6, 7, 8]);
    roll(&brokers, "norcal", NORCAL, 5);
    placed(&mut client, 0, 8).await?;
    write_facts(&brokers, &[("segment/fires/norcal/0", Value::Null)]);
    placed(&mut client, 5, 8).await?;
    let below = told(&mut client, 4).await?;
    ensure_eq!((below.code, below.start), (1, 5), "error and start below the oldest segment");
    let at = told(&mut client, 5).await?;
    ensure_eq!((at.code, at.start, at.offsets), (0, 5, vec![5, 6, 7]), "what the start has");
    Ok(())
}

/// Another proxy heard of a roll first, and a reader comes from there.
pub async fn a_reader_that_is_ahead_is_not_reset(faults: Faults) -> Checked {
    let (brokers, proxy) = start(faults).await?;
    let mut client = Client::connect(proxy.port).await?;
    fill(&brokers, NORCAL[0], &[1, 2, 3]);
    fill(&brokers, NORCAL[1], &[4, 5]);
    ensure_eq!(told(&mut client, 4).await?.code, 1, "error beyond the end of an open segment");
    seal(&brokers, NORCAL[0]);
    ensure_eq!(told(&mut client, 4).await?.code, 6, "error before the roll is known");
    roll(&brokers, "norcal", NORCAL, 3);
    placed(&mut client, 0, 5).await?;
    let ahead = told(&mut client, 4).await?;
    ensure_eq!((ahead.code, ahead.offsets), (0, vec![4]), "what comes behind the roll");
    Ok(())
}

#[tokio::test]
async fn a_reader_that_another_proxy_led_on_is_not_told_to_start_anew() -> Checked {
    a_reader_that_is_ahead_is_not_reset(None).await
}

/// Times are looked for in all segments, in their order.
pub async fn offsets_are_listed_over_segments(faults: Faults) -> Checked {
    let (brokers, proxy) = start(faults).await?;
    let mut client = Client::connect(proxy.port).await?;
    fill(&brokers, NORCAL[0], &[10, 20, 70]);
    fill(&brokers, NORCAL[1], &[30, 50, 60]);
    roll(&brokers, "norcal", NORCAL, 3);
    placed(&mut client, 0, 6).await?;
    // Behind the seal, so not there.
    fill(&brokers, NORCAL[0], &[90]);
    let times = [(5, 0), (15, 1), (25, 2), (70, 2), (71, -1), (80, -1), (90, -1)];
    for (time, offset) in times {
        let found = listed(&mut client, TIME + time).await?;
        ensure_eq!(found, (0, offset), "offset of time {time}");
    }
    ensure_eq!(listed(&mut client, -2).await?, (0, 0), "start");
    ensure_eq!(listed(&mut client, -1).await?, (0, 6), "end");
    Ok(())
}

#[tokio::test]
async fn offsets_are_found_by_time_in_all_segments() -> Checked {
    offsets_are_listed_over_segments(None).await
}
