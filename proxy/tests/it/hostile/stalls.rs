//! Peers that begin something and do not go on.

use std::time::Duration;

use kafka_protocol::messages::ProduceResponse;
use protocol_ext::fake_broker::Fault;

use super::{counted, told_once};
use crate::harness::broker::Brokers;
use crate::harness::client::{Client, request_frame};
use crate::harness::proxy::{Folder, Proxy, Setup};
use crate::harness::records::single;
use crate::harness::requests::{fetch, list_offsets, metadata, produce};
use crate::harness::{Checked, Faults, ensure, ensure_eq, failure, noise, until, within};

const LIMIT: &str = "frame_progress_ms = 400";
/// Several of these fit into the limit.
const PAUSE: Duration = Duration::from_millis(60);
const MIB: usize = 1 << 20;

/// Sends `held` at once and then a byte now and then, until the proxy closes.
async fn drip(client: &mut Client, frame: &[u8], held: usize) -> Checked {
    client.send_raw(&frame[..held]).await?;
    let drip = async {
        for byte in &frame[held..] {
            tokio::time::sleep(PAUSE).await;
            if client.send_raw(&[*byte]).await.is_err() {
                return;
            }
        }
    };
    within("the proxy to lose patience", drip).await
}

async fn closed(proxy: &Proxy, blame: &str, kind: &str, times: f64) -> Checked {
    counted(proxy, blame, kind, times - 1.0).await
}

/// A request of one byte now and then is closed, counted and told, wherever it stands still: in
/// its head, in a body that passes, in one that is peeked into, in one that is held whole.
#[tokio::test]
async fn a_request_of_one_byte_now_and_then_is_closed_wherever_it_stands_still() -> Checked {
    let brokers = Brokers::start(1).await;
    let store = Folder::new();
    let proxy = Setup::new(&brokers, None).offload(&store, 1000).limit(LIMIT).start().await;
    let large = request_frame(0, 9, 5, &produce(9, -1, "t", &[(0, single(noise(1, 9000)))]));
    let small = request_frame(2, 7, 5, &list_offsets("t"));
    let asks = request_frame(1, 11, 5, &fetch(11, "t", &[(0, 0)], 1000));
    let cases = [(&small, 3), (&small, 13), (&asks, 20), (&large, 30), (&large, 300)];
    for (n, (frame, held)) in cases.into_iter().enumerate() {
        let mut client = Client::connect(proxy.port).await?;
        client.metadata(12).await?;
        drip(&mut client, frame, held).await?;
        let times = u32::try_from(n + 1).map_err(failure)?;
        closed(&proxy, "client", "slow_frame", f64::from(times)).await?;
    }
    proxy.says("request without progress", cases.len()).await?;
    Client::connect(proxy.port).await?.metadata(12).await.map(drop)
}

/// An answer that begins and does not go on is closed, wherever it stands still and however it
/// would be treated.
pub async fn answers_that_stand_still(faults: Faults) -> Checked {
    let brokers = Brokers::start(1).await;
    let setup = Setup::new(&brokers, faults).refresh_ms(60_000);
    let proxy = setup.limit(LIMIT).start().await;
    let mut times = 0.0;
    for (api, after) in [(2, 3), (2, 12), (3, 2), (3, 40), (1, 5), (1, 20)] {
        let mut client = Client::connect(proxy.port).await?;
        client.metadata(12).await?;
        brokers.cluster().script(api, Fault::HoldAfter(after));
        match api {
            1 => client.send(1, 16, &fetch(16, "t", &[(0, 0)], 1 << 20)).await?,
            2 => client.send(2, 7, &list_offsets("t")).await?,
            _ => client.send(3, 12, &metadata(12)).await?,
        };
        times += 1.0;
        closed(&proxy, "upstream", "slow_answer", times).await?;
        brokers.release();
    }
    Ok(())
}

#[tokio::test]
async fn an_answer_that_stands_still_is_closed_wherever_it_does() -> Checked {
    answers_that_stand_still(None).await
}

#[tokio::test]
async fn an_answer_that_is_long_in_coming_is_waited_for() -> Checked {
    let brokers = Brokers::start(1).await;
    let proxy = Setup::new(&brokers, None).limit(LIMIT).start().await;
    let mut client = Client::connect(proxy.port).await?;
    brokers.cluster().script(2, Fault::Delay(Duration::from_millis(1200)));
    client.send(2, 7, &list_offsets("t")).await?;
    client.receive().await?;
    // And so is a client between two requests.
    tokio::time::sleep(Duration::from_millis(900)).await;
    client.metadata(12).await?;
    Ok(())
}

/// Requests that are announced and never sent hold the room for what is held whole; it comes back
/// with the limit, and who waited is served.
#[tokio::test]
async fn room_that_is_asked_for_and_not_used_comes_back() -> Checked {
    let brokers = Brokers::start(1).await;
    let store = Folder::new();
    // Who sends all it can has to move megabytes in a part of this.
    let limits = "frame_progress_ms = 6000\nframe_bytes_max = 8388608\n\
                  buffered_bytes_max = 16777216";
    let setup = Setup::new(&brokers, None).offload(&store, 1000).limit(limits);
    let proxy = setup.start().await;
    let mut good = Client::connect(proxy.port).await?;
    good.metadata(12).await?;
    let batch = single(noise(2, 6 * MIB));
    let frame = request_frame(0, 9, 5, &produce(9, -1, "t", &[(0, batch.clone())]));
    let mut greedy = Vec::new();
    for _ in 0..3 {
        let mut client = Client::connect(proxy.port).await?;
        client.send_raw(&frame[..200]).await?;
        greedy.push(client);
    }
    let sent = produce(9, -1, "t", &[(0, batch)]);
    let answer: ProduceResponse = good.call(0, 9, &sent).await?;
    ensure_eq!(answer.responses[0].partition_responses[0].error_code, 0, "error of Produce");
    for client in &mut greedy {
        client.receive_to_end().await?;
    }
    // Those that kept others waiting are closed earlier, and counted as such.
    let of = |kind| format!("firebreak_errors_total{{blame=\"client\",kind=\"{kind}\"}}");
    let (slow, stalled) = (of("slow_frame"), of("stalled"));
    until("three that are counted", async || {
        let count = proxy.metric(&slow).await.ok()? + proxy.metric(&stalled).await.ok()?;
        (count > 2.5).then_some(())
    })
    .await
}

#[tokio::test]
async fn a_broker_that_closes_its_sending_side_only_closes_the_client() -> Checked {
    let brokers = Brokers::start(1).await;
    let proxy = Setup::new(&brokers, None).start().await;
    let mut client = Client::connect(proxy.port).await?;
    client.metadata(12).await?;
    brokers.cluster().script(2, Fault::CloseAfter(0));
    client.send(2, 7, &list_offsets("t")).await?;
    ensure!(client.receive_to_end().await?.is_empty(), "bytes of an answer that never came");
    Ok(())
}

#[tokio::test]
async fn a_client_that_says_nothing_holds_no_broker_and_is_told_of_once() -> Checked {
    let brokers = Brokers::start(1).await;
    let proxy = Setup::new(&brokers, None).limit("first_request_ms = 300").start().await;
    let accepted = brokers.counts(0).accepted.load(std::sync::atomic::Ordering::Relaxed);
    let mut mute = Client::connect(proxy.port).await?;
    mute.send_raw(&[0, 0, 0]).await?;
    ensure!(mute.receive_to_end().await?.is_empty(), "bytes for a silent client");
    counted(&proxy, "client", "silent", 0.0).await?;
    told_once(&proxy, "no request within 300ms of connecting").await?;
    let now = brokers.counts(0).accepted.load(std::sync::atomic::Ordering::Relaxed);
    ensure_eq!(now, accepted, "connections at the broker");
    Ok(())
}
