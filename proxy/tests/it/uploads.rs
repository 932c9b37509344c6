//! Uploads that come to nothing: what they leave in the bucket, and what producers are told.

use bytes::Bytes;

use crate::harness::broker::Brokers;
use crate::harness::client::Client;
use crate::harness::proxy::{Proxy, Setup};
use crate::harness::records::single;
use crate::harness::s3::{Fault, Kind, S3};
use crate::harness::tally::{Held, Ledger};
use crate::harness::{Checked, Faults, QUIET, ensure, ensure_eq, noise, until};

const STORAGE_ERROR: i16 = 56;
/// Longer than what is sent in one piece.
const IN_PARTS: usize = 34_000_000;

struct Scene {
    brokers: Brokers,
    s3: S3,
    proxy: Proxy,
    client: Client,
    ledger: Ledger,
}

async fn scene(faults: Faults) -> Checked<Scene> {
    let brokers = Brokers::start(1).await;
    let s3 = S3::start().await;
    let proxy = Setup::new(&brokers, faults).offload_s3(&s3, 1000).start().await;
    // What a start asks is none of the requests that go wrong.
    until("an owner", async || s3.has_owner().then_some(())).await?;
    tokio::time::sleep(QUIET).await;
    let client = Client::connect(proxy.port).await?;
    Ok(Scene { brokers, s3, proxy, client, ledger: Ledger::default() })
}

impl Scene {
    async fn take(&mut self, sent: &Bytes) -> Checked {
        let (error, base) = self.client.produce(9, "t", 0, sent).await?;
        ensure_eq!(error, 0, "error of Produce");
        self.ledger.acknowledged("t", 0, base, sent);
        Ok(())
    }

    /// Parts of uploads that failed go, though nobody waits for it.
    async fn no_parts(&self, what: &str) -> Checked {
        until(what, async || (self.s3.parts_left() == 0).then_some(())).await
    }

    async fn is_sound(&self, what: &str) -> Checked {
        self.no_parts(&format!("an end of the parts, {what}")).await?;
        let held = Held::in_bucket(&self.s3)?;
        let tally = self.ledger.tally(self.proxy.port, &self.brokers, &held).await?;
        tally.is_sound(what, 0)
    }
}

/// All parts are there, and the service does not put them together: they are given up.
pub async fn parts_of_a_failed_upload_go(faults: Faults) -> Checked {
    let mut scene = scene(faults).await?;
    // It is begun, and its end refused.
    scene.s3.script(Kind::Other, &[Fault::None, Fault::Status(403, "AccessDenied")]);
    let sent = single(noise(1, IN_PARTS));
    let (error, _) = scene.client.produce(9, "t", 0, &sent).await?;
    ensure_eq!(error, STORAGE_ERROR, "error of an upload that is not completed");
    ensure_eq!(scene.s3.count(Kind::Put), 3, "parts that were sent");
    scene.no_parts("parts left of an upload that failed").await?;
    ensure_eq!(scene.s3.objects().len(), 0, "objects");
    scene.take(&sent).await?;
    scene.is_sound("an upload that is not completed").await
}

#[tokio::test]
async fn parts_of_an_upload_that_fails_are_given_up() -> Checked {
    parts_of_a_failed_upload_go(None).await
}

/// The parts are put together, and nobody hears of it: what is an object now is not given up.
pub async fn what_may_be_complete_is_not_given_up(faults: Faults) -> Checked {
    let mut scene = scene(faults).await?;
    // A service that has begun to answer tells of an error behind a status of success.
    let late = Fault::DoneBut(200, "InternalError");
    for unheard in [Fault::DoneAndGone, Fault::DoneBut(500, "InternalError"), late] {
        scene.s3.script(Kind::Other, &[Fault::None, unheard]);
        let before = scene.s3.count(Kind::Put);
        scene.take(&single(noise(before as u64, IN_PARTS))).await?;
        ensure_eq!(scene.s3.count(Kind::Put) - before, 6, "parts that were sent");
    }
    tokio::time::sleep(QUIET).await;
    ensure_eq!(scene.s3.count(Kind::Abort), 0, "uploads given up that may be complete");
    scene.is_sound("uploads whose end is not heard of").await
}

#[tokio::test]
async fn an_upload_that_may_be_complete_is_not_given_up() -> Checked {
    what_may_be_complete_is_not_given_up(None).await
}

#[tokio::test]
async fn a_body_that_is_reset_on_its_way_is_sent_again() -> Checked {
    let mut scene = scene(None).await?;
    for (n, bytes, after) in [(0, 3_000_000, 1_000_000), (1, IN_PARTS, 5_000_000)] {
        let before = scene.s3.count(Kind::Put);
        scene.s3.script(Kind::Put, &[Fault::ResetBody(after)]);
        scene.take(&single(noise(n, bytes))).await?;
        let sent = scene.s3.count(Kind::Put) - before;
        // In parts it is begun anew.
        let least = if bytes < IN_PARTS { 2 } else { 4 };
        ensure!(sent >= least, "{sent} bodies sent for {bytes} bytes");
    }
    scene.is_sound("bodies that are reset").await
}

#[tokio::test]
async fn a_body_that_stands_still_is_sent_again() -> Checked {
    let mut scene = scene(None).await?;
    scene.s3.script(Kind::Put, &[Fault::StalledBody(1_000_000)]);
    scene.take(&single(noise(1, 3_000_000))).await?;
    ensure_eq!(scene.s3.count(Kind::Put), 2, "bodies sent");
    let late = "firebreak_store_failures_total{op=\"put\",kind=\"late\"}";
    ensure_eq!(scene.proxy.metric(late).await?, 1.0, "attempts that were given up");
    scene.is_sound("a body that stands still").await
}
