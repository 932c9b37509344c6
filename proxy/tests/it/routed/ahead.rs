//! The next Produce request, read while the one before it is with its legs.

use std::time::Duration;

use bytes::Bytes;
use kafka_protocol::messages::{ApiVersionsRequest, ProduceResponse};
use protocol_ext::fake_broker::Fault;

use super::{NORCAL, TOPIC, located, start};
use crate::harness::broker::Brokers;
use crate::harness::certs::Authority;
use crate::harness::client::{Client, answer, request_frame};
use crate::harness::proxy::{Folder, Proxy, Setup};
use crate::harness::records::read;
use crate::harness::requests::produce;
use crate::harness::{Checked, Faults, QUIET, ensure, ensure_eq, failure, noise, until};

const PRODUCE: i16 = 0;
const API_VERSIONS: i16 = 18;
const READ: &str = "firebreak_bytes_total{direction=\"from_client\"}";
const HELD: &str = "firebreak_buffered_bytes{what=\"requests\"}";
/// Bytes of the first request, and of the next one.
const FIRST: usize = 100_000;
const NEXT: usize = 300_000;
/// Most bytes that are read to see what comes next.
const LOOK: usize = 128 * 1024;

/// A proxy with a client whose first request is read and waits for its leg.
struct Held {
    brokers: Brokers,
    proxy: Proxy,
    client: Client,
    /// What the client sent so far, and what is to be in the log in the end.
    sent: usize,
    values: Vec<Vec<u8>>,
    next: i32,
}

/// A Produce request for the first slot, behind its length. Its leg may take longer than the test.
fn request(correlation: i32, value: Vec<u8>) -> Bytes {
    let batch = located(Some("norcal"), value);
    let request = produce(9, -1, TOPIC, &[(0, batch)]).with_timeout_ms(60_000);
    request_frame(PRODUCE, 9, correlation, &request)
}

impl Held {
    async fn start(
        faults: Faults,
        setup: impl FnOnce(Setup) -> Setup,
        first: usize,
    ) -> Checked<Self> {
        let (brokers, proxy) = start(faults, setup).await;
        let client = Client::connect(proxy.node(0)).await?;
        Self::behind(brokers, proxy, client, first).await
    }

    async fn behind(
        brokers: Brokers,
        proxy: Proxy,
        mut client: Client,
        first: usize,
    ) -> Checked<Self> {
        // Leaders are known then, and nothing else is waited for.
        let small = located(Some("norcal"), b"0".to_vec());
        ensure_eq!(client.produce(9, TOPIC, 0, &small).await?.0, 0, "error of Produce");
        until("what was sent", async || (proxy.metric(READ).await.ok()? > 0.0).then_some(()))
            .await?;
        let sent = bytes(proxy.metric(READ).await?);
        let mut held = Self { brokers, proxy, client, sent, values: vec![b"0".to_vec()], next: 0 };
        let before = held.brokers.cluster().count(PRODUCE);
        held.brokers.cluster().script(PRODUCE, Fault::HoldAfter(0));
        held.send(first).await?;
        let asked = || (held.brokers.cluster().count(PRODUCE) > before).then_some(());
        until("the leg", async || asked()).await?;
        Ok(held)
    }

    /// The next request, with so many bytes of a value.
    fn request(&mut self, value_bytes: usize) -> Bytes {
        let value = noise(u64::try_from(self.values.len()).expect("few"), value_bytes);
        self.values.push(value.clone());
        self.next += 1;
        request(self.next, value)
    }

    async fn send(&mut self, value_bytes: usize) -> Checked {
        let frame = self.request(value_bytes);
        self.sent += frame.len();
        self.client.send_raw(&frame).await
    }

    /// Waits until all is read that was sent.
    async fn is_read(&self) -> Checked {
        let proxy = &self.proxy;
        let all = async || (bytes(proxy.metric(READ).await.ok()?) >= self.sent).then_some(());
        until("bytes of the next request", all).await
    }

    /// Receives the answer that is due.
    async fn answered(&mut self, correlation: i32) -> Checked {
        let told: ProduceResponse = answer(&self.client.receive().await?, 9, correlation)?;
        ensure_eq!(told.responses[0].partition_responses[0].error_code, 0, "error of Produce");
        Ok(())
    }

    /// Lets the first request go on; all are answered, in order, and written.
    async fn go_on(mut self) -> Checked {
        self.brokers.release();
        for correlation in 1..=self.next {
            self.answered(correlation).await?;
        }
        self.is_written()?;
        self.proxy.metric_becomes(HELD, 0.0).await
    }

    fn is_written(&self) -> Checked {
        let values = logged(&self.brokers);
        ensure_eq!(values.len(), self.values.len(), "records in the log");
        ensure!(values == self.values, "the log has other values, or another order");
        Ok(())
    }
}

#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a count")]
fn bytes(metric: f64) -> usize {
    metric as usize
}

fn logged(brokers: &Brokers) -> Vec<Vec<u8>> {
    let mut cluster = brokers.cluster();
    let log = cluster.log(NORCAL, 0).expect("a log");
    let values = log.batches().flat_map(read).map(|record| record.value.expect("a value"));
    values.collect()
}

fn same(setup: Setup) -> Setup {
    setup
}

/// All of the next request is off the socket before the first one is answered; it goes nowhere.
pub async fn it_is_read_while_a_leg_waits(faults: Faults) -> Checked {
    let mut held = Held::start(faults, same, FIRST).await?;
    let asked = held.brokers.cluster().count(PRODUCE);
    held.send(NEXT).await?;
    held.is_read().await?;
    tokio::time::sleep(QUIET).await;
    ensure_eq!(held.brokers.cluster().count(PRODUCE), asked, "Produce requests at the brokers");
    held.go_on().await
}

#[tokio::test]
async fn the_next_request_is_read_while_a_leg_waits() -> Checked {
    it_is_read_while_a_leg_waits(None).await
}

/// Long ones, small ones, many: each is written once and in its turn.
#[tokio::test]
async fn requests_of_any_length_are_written_once_and_in_order() -> Checked {
    let mut held = Held::start(None, same, FIRST).await?;
    for value_bytes in [NEXT, 10, 70_000, 131_000, 10, 10, NEXT, 10, 200_000, 1] {
        held.send(value_bytes).await?;
    }
    held.go_on().await
}

#[tokio::test]
async fn the_next_request_is_read_in_tls_too() -> Checked {
    let (folder, front) = (Folder::new(), Authority::new("front"));
    let (cert, key) = front.sign(&["127.0.0.1"]).write(folder.path(), "proxy");
    let listen = format!("tls = {{ cert = {cert:?}, key = {key:?} }}");
    let (brokers, proxy) = start(None, |setup| setup.listen(&listen)).await;
    let client = Client::connect_tls(proxy.node(0), "127.0.0.1", &front.client(None)).await?;
    let mut held = Held::behind(brokers, proxy, client, FIRST).await?;
    held.send(NEXT).await?;
    held.is_read().await?;
    for value_bytes in [10, NEXT, 70_000] {
        held.send(value_bytes).await?;
    }
    held.go_on().await
}

/// One request is read ahead, whatever comes behind it, and all are answered in their turns.
pub async fn one_is_read_and_waits_for_its_turn(faults: Faults) -> Checked {
    let mut held = Held::start(faults, same, FIRST).await?;
    held.send(NEXT).await?;
    held.is_read().await?;
    let read = held.sent;
    let question = ApiVersionsRequest::default();
    held.client.send_raw(&request_frame(API_VERSIONS, 0, 99, &question)).await?;
    let unanswered = request_frame(
        PRODUCE,
        9,
        50,
        &produce(9, 0, TOPIC, &[(0, located(Some("norcal"), b"unanswered".to_vec()))]),
    );
    held.client.send_raw(&unanswered).await?;
    held.values.push(b"unanswered".to_vec());
    let last = held.request(NEXT);
    held.client.send_raw(&last).await?;
    tokio::time::sleep(QUIET).await;
    let now = bytes(held.proxy.metric(READ).await?);
    ensure_eq!(now, read, "bytes that are read while the first request waits");
    held.brokers.release();
    for correlation in [1, 2] {
        held.answered(correlation).await?;
    }
    let told = held.client.receive().await?;
    ensure_eq!(told[..4], 99_i32.to_be_bytes()[..], "the answer that was due");
    held.answered(3).await?;
    held.is_written()
}

#[tokio::test]
async fn one_request_is_read_ahead_and_waits_for_its_turn() -> Checked {
    one_is_read_and_waits_for_its_turn(None).await
}

#[tokio::test]
async fn nothing_is_read_ahead_behind_another_request() -> Checked {
    let mut held = Held::start(None, same, FIRST).await?;
    let before = held.sent;
    let question = ApiVersionsRequest::default();
    held.client.send_raw(&request_frame(API_VERSIONS, 0, 99, &question)).await?;
    held.send(NEXT).await?;
    tokio::time::sleep(QUIET).await;
    let now = bytes(held.proxy.metric(READ).await?);
    ensure!(now <= before + LOOK, "{} bytes behind a question are read", now - before);
    held.brokers.release();
    held.answered(1).await?;
    let told = held.client.receive().await?;
    ensure_eq!(told[..4], 99_i32.to_be_bytes()[..], "the answer that was due");
    held.answered(2).await?;
    held.is_written()
}

/// Without room for it the next request stays where it is until the first one is done with.
pub async fn it_has_room_of_its_own(faults: Faults) -> Checked {
    let limits = "frame_bytes_max = 1048576\nbuffered_bytes_max = 2097152";
    let mut held = Held::start(faults, |setup| setup.limit(limits), 700_000).await?;
    let before = held.sent;
    held.send(NEXT).await?;
    tokio::time::sleep(QUIET).await;
    let now = bytes(held.proxy.metric(READ).await?);
    ensure!(now <= before + LOOK, "{} bytes are read without room", now - before);
    held.go_on().await
}

#[tokio::test]
async fn what_is_read_ahead_has_room_of_its_own() -> Checked {
    it_has_room_of_its_own(None).await
}

const PAUSE: Duration = Duration::from_millis(200);

/// A client that gets on with the next request is not blamed for the room of the first.
pub async fn it_counts_for_itself(faults: Faults) -> Checked {
    let limit = "frame_progress_ms = 3000";
    let mut held = Held::start(faults, |setup| setup.limit(limit), 8_000_000).await?;
    let frame = held.request(NEXT);
    // All of it takes longer than the limit, an eighth of it much less.
    for part in frame.chunks(frame.len() / 25) {
        ensure!(held.client.send_raw(part).await.is_ok(), "a client that gets on is cut off");
        tokio::time::sleep(PAUSE).await;
    }
    let cut = |kind: &str| format!("firebreak_errors_total{{blame=\"client\",kind=\"{kind}\"}}");
    for kind in ["stalled", "slow_frame"] {
        let cut = held.proxy.metric(&cut(kind)).await?;
        ensure!(cut == 0.0, "a client that gets on is cut off");
    }
    held.go_on().await
}

#[tokio::test]
async fn a_client_is_judged_by_what_it_sends_ahead_alone() -> Checked {
    it_counts_for_itself(None).await
}

#[tokio::test]
async fn a_client_that_stops_within_the_next_request_is_cut_off() -> Checked {
    let limit = "frame_progress_ms = 1000";
    let mut held = Held::start(None, |setup| setup.limit(limit), FIRST).await?;
    let frame = held.request(NEXT);
    held.client.send_raw(&frame[..2000]).await?;
    let slow = "firebreak_errors_total{blame=\"client\",kind=\"stalled\"}";
    let slower = "firebreak_errors_total{blame=\"client\",kind=\"slow_frame\"}";
    let proxy = &held.proxy;
    until("the end of a client that stands still", async || {
        let cut = proxy.metric(slow).await.ok()? + proxy.metric(slower).await.ok()?;
        (cut > 0.0).then_some(())
    })
    .await?;
    proxy.metric_becomes(HELD, 0.0).await
}

/// The next request is there, and the leg takes longer than any frame may: nobody is cut off.
#[tokio::test]
async fn a_slow_leg_is_not_blamed_on_its_client() -> Checked {
    let limit = "frame_progress_ms = 500";
    let mut held = Held::start(None, |setup| setup.limit(limit), FIRST).await?;
    held.send(NEXT).await?;
    held.is_read().await?;
    tokio::time::sleep(Duration::from_millis(2500)).await;
    held.go_on().await
}

/// A client that goes within the next request: the first is written, and the end is the client's.
pub async fn the_end_is_the_clients(faults: Faults) -> Checked {
    let mut held = Held::start(faults, same, FIRST).await?;
    let frame = held.request(NEXT);
    held.values.pop();
    held.client.send_raw(&frame[..NEXT / 2]).await?;
    held.sent += NEXT / 2;
    held.is_read().await?;
    held.client.finish().await?;
    tokio::time::sleep(QUIET).await;
    held.brokers.release();
    let end = "firebreak_errors_total{blame=\"client\",kind=\"client_io\"}";
    held.proxy.metric_becomes(end, 1.0).await?;
    held.is_written()?;
    held.proxy.metric_becomes(HELD, 0.0).await
}

#[tokio::test]
async fn the_end_of_a_client_within_the_next_request_is_its_own() -> Checked {
    the_end_is_the_clients(None).await
}

#[tokio::test]
async fn a_client_that_ends_behind_the_next_request_has_both_answered() -> Checked {
    let mut held = Held::start(None, same, FIRST).await?;
    held.send(NEXT).await?;
    held.client.finish().await?;
    held.is_read().await?;
    held.go_on().await
}

/// Large values: what was read ahead is stored as what is read in its turn.
pub async fn values_are_stored_once(faults: Faults) -> Checked {
    let store = Folder::new();
    let (brokers, proxy) = start(faults, |setup| setup.offload(&store, 1000)).await;
    let client = Client::connect(proxy.node(0)).await?;
    let mut held = Held::behind(brokers, proxy, client, FIRST).await?;
    held.send(NEXT).await?;
    held.is_read().await?;
    for value_bytes in [10, 200_000, NEXT] {
        held.send(value_bytes).await?;
    }
    held.brokers.release();
    for correlation in 1..=held.next {
        held.answered(correlation).await?;
    }
    let (mut came, mut offset) = (Vec::new(), 0);
    while came.len() < held.values.len() {
        let (code, records) = held.client.fetch(12, TOPIC, 0, offset, i32::MAX).await?;
        ensure_eq!(code, 0, "error of Fetch");
        let records = read(&records);
        let last = records.last().ok_or_else(|| failure("values are missing"))?;
        offset = last.offset + 1;
        came.extend(records.into_iter().map(|record| record.value.expect("a value")));
    }
    ensure!(came == held.values, "other values came back");
    held.proxy.metric_becomes(HELD, 0.0).await
}

#[tokio::test]
async fn values_that_are_read_ahead_are_stored_once() -> Checked {
    values_are_stored_once(None).await
}

/// What was read ahead when a drain begins is a request that has not begun.
#[tokio::test]
async fn a_drain_ends_behind_the_first_request() -> Checked {
    let mut held = Held::start(None, same, FIRST).await?;
    held.send(NEXT).await?;
    held.is_read().await?;
    held.values.pop();
    held.proxy.terminate();
    held.proxy.says("draining", 1).await?;
    held.brokers.release();
    held.answered(1).await?;
    ensure!(held.client.receive_to_end().await?.is_empty(), "an answer behind the drain");
    held.is_written()
}

/// What is wrong with the next request is told when its turn has come: the first one is written.
#[tokio::test]
async fn what_is_wrong_with_the_next_request_is_told_in_its_turn() -> Checked {
    let wrong = |at: usize, bytes: &[u8]| {
        let mut frame = request(2, noise(2, NEXT)).to_vec();
        frame[at..at + bytes.len()].copy_from_slice(bytes);
        frame
    };
    let (long, unknown) = (wrong(0, &[0x7f; 4]), wrong(6, &[0, 99]));
    for (frame, kind) in [(long, "frame_length"), (unknown, "not_offered")] {
        let mut held = Held::start(None, same, FIRST).await?;
        held.client.send_raw(&frame).await?;
        tokio::time::sleep(QUIET).await;
        let told = format!("firebreak_errors_total{{blame=\"client\",kind=\"{kind}\"}}");
        ensure!(held.proxy.metric(&told).await? < 1.0, "{kind} is told while a leg waits");
        held.brokers.release();
        held.proxy.metric_becomes(&told, 1.0).await?;
        held.is_written()?;
    }
    Ok(())
}
