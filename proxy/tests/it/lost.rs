//! Values that cannot be read, by the rule `on_missing = "skip"`: what is there is never passed
//! over.

use std::path::PathBuf;

use protocol_ext::codec::{Codec, Framing};

use crate::harness::broker::Brokers;
use crate::harness::client::Client;
use crate::harness::proxy::{Folder, Proxy, Setup};
use crate::harness::records::{batch, heads, read, records, single};
use crate::harness::s3::{Fault, Kind, S3};
use crate::harness::tally::{Held, Ledger};
use crate::harness::{Checked, Faults, ensure, ensure_eq, failure, noise, until};
use crate::upkeep::collect;

const STORAGE_ERROR: i16 = 56;

struct Scene {
    brokers: Brokers,
    proxy: Proxy,
    client: Client,
    store: Folder,
}

async fn scene(faults: Faults) -> Checked<Scene> {
    let brokers = Brokers::start(1).await;
    let store = Folder::new();
    let setup = Setup::new(&brokers, faults).offload(&store, 1000).rule("on_missing = \"skip\"");
    let proxy = setup.start().await;
    let client = Client::connect(proxy.port).await?;
    Ok(Scene { brokers, proxy, client, store })
}

/// Error of a Fetch, offsets of what it gives, and the offset behind them.
async fn fetched(client: &mut Client, from: i64) -> Checked<(i16, Vec<i64>, i64)> {
    fetched_within(client, from, i32::MAX).await
}

/// The same with so many bytes asked for.
async fn fetched_within(
    client: &mut Client,
    from: i64,
    bytes_max: i32,
) -> Checked<(i16, Vec<i64>, i64)> {
    let (error, section) = client.fetch(11, "t", 0, from, bytes_max).await?;
    let offsets = read(&section).into_iter().map(|record| record.offset).collect();
    let next = heads(&section)
        .last()
        .map_or(from, |head| head.base_offset + i64::from(head.last_offset_delta) + 1);
    Ok((error, offsets, next))
}

impl Scene {
    fn objects(&self) -> Vec<PathBuf> {
        let mut objects = Vec::new();
        collect(&self.store.path().join("v1"), &mut objects);
        objects
    }

    async fn send(&mut self, values: &[Vec<u8>]) -> Checked {
        let sent = batch(Codec::None, Framing::Plain, &records(values));
        let (error, _) = self.client.produce(9, "t", 0, &sent).await?;
        ensure_eq!(error, 0, "error of Produce");
        Ok(())
    }
}

/// Values are read together with others: one that is whole in front of where the pack was cut is
/// given out.
pub async fn what_is_whole_is_given(faults: Faults) -> Checked {
    let mut scene = scene(faults).await?;
    scene.send(&[noise(1, 20_000), noise(2, 20_000), noise(3, 20_000)]).await?;
    let pack = scene.objects().pop().ok_or_else(|| failure("no object"))?;
    let pack = std::fs::OpenOptions::new().write(true).open(pack).map_err(failure)?;
    pack.set_len(26_000).map_err(failure)?;
    let got = fetched(&mut scene.client, 0).await?;
    ensure_eq!(got, (0, vec![0], 3), "error, offsets given beside a cut, and the end");
    let mut counted = Vec::new();
    for op in ["restore", "lost", "damaged", "missing", "failed"] {
        let metric = format!("firebreak_offload_objects_total{{op=\"{op}\"}}");
        counted.push(scene.proxy.metric(&metric).await?);
    }
    let expected = [1.0, 2.0, 0.0, 0.0, 0.0];
    ensure_eq!(counted, expected, "values restored, lost, damaged, missing, failed");
    Ok(())
}

#[tokio::test]
async fn values_before_the_cut_of_a_pack_are_given_out() -> Checked {
    what_is_whole_is_given(None).await
}

#[expect(clippy::disallowed_methods, reason = "a file is made new")]
fn in_an_hour() -> std::time::SystemTime {
    std::time::SystemTime::now() + std::time::Duration::from_secs(3600)
}

/// A volume that is not mounted, and an empty one in its place, hold no value, and none is lost.
pub async fn another_store_is_no_loss(faults: Faults) -> Checked {
    let mut scene = scene(faults).await?;
    scene.send(&[noise(1, 20_000)]).await?;
    let volume = scene.store.path().to_owned();
    let away = volume.with_extension("away");
    std::fs::rename(&volume, &away).map_err(failure)?;
    let unmounted = fetched(&mut scene.client, 0).await;
    // Another one, that was claimed as the first thing that happened to it: later than the value
    // was written.
    let owner = volume.join("upkeep/v1/owner/fake");
    std::fs::create_dir_all(owner.parent().expect("a folder")).map_err(failure)?;
    std::fs::write(&owner, "fake").map_err(failure)?;
    let file = std::fs::OpenOptions::new().write(true).open(&owner).map_err(failure)?;
    file.set_modified(in_an_hour()).map_err(failure)?;
    let other = fetched(&mut scene.client, 0).await;
    // Another cluster's, and older than the value.
    std::fs::write(&owner, "elsewhere").map_err(failure)?;
    let file = std::fs::OpenOptions::new().write(true).open(&owner).map_err(failure)?;
    file.set_modified(std::time::UNIX_EPOCH).map_err(failure)?;
    let elsewhere = fetched(&mut scene.client, 0).await;
    std::fs::remove_dir_all(&volume).map_err(failure)?;
    std::fs::rename(&away, &volume).map_err(failure)?;
    let expected = (STORAGE_ERROR, Vec::new(), 0);
    ensure_eq!(unmounted?, expected, "error, offsets and end without the volume");
    ensure_eq!(other?, expected, "error, offsets and end with another volume");
    ensure_eq!(elsewhere?, expected, "error, offsets and end with another cluster's volume");
    ensure_eq!(fetched(&mut scene.client, 0).await?, (0, vec![0], 1), "the same once it is back");
    let held = Held::in_folder(&scene.store)?;
    is_sound("a volume that was away", (&scene.brokers, &scene.proxy), &held).await
}

/// One value was acknowledged, and is there for good.
async fn is_sound(what: &str, (brokers, proxy): (&Brokers, &Proxy), held: &Held) -> Checked {
    let mut ledger = Ledger::default();
    ledger.acknowledged("t", 0, 0, &single(noise(1, 20_000)));
    ledger.tally(proxy.port, brokers, held).await?.is_sound(what, 0)
}

#[tokio::test]
async fn nothing_is_lost_while_the_volume_is_away() -> Checked {
    another_store_is_no_loss(None).await
}

/// A gateway that answers 404 in the bucket's place has lost nothing.
pub async fn a_gateway_is_no_loss(faults: Faults) -> Checked {
    let brokers = Brokers::start(1).await;
    let s3 = S3::start().await;
    let setup = Setup::new(&brokers, faults).offload_s3(&s3, 1000);
    let proxy = setup.rule("on_missing = \"skip\"").start().await;
    let mut client = Client::connect(proxy.port).await?;
    let (error, _) = client.produce(9, "t", 0, &single(noise(1, 20_000))).await?;
    ensure_eq!(error, 0, "error of Produce");
    until("an owner", async || s3.has_owner().then_some(())).await?;
    s3.always(Kind::Get, Fault::Status(404, "NoSuchRoute"));
    let (refused, late) = ((STORAGE_ERROR, Vec::new(), 0), (0, Vec::new(), 0));
    let mut got = fetched(&mut client, 0).await?;
    for _ in 0..2 {
        // The answer is due before the last attempt, if the pauses between them are long.
        if got == late {
            got = fetched(&mut client, 0).await?;
        }
    }
    ensure_eq!(got, refused, "error, offsets and end behind a gateway");
    s3.always(Kind::Get, Fault::None);
    // The store is left alone for a moment.
    let got = until("the value", async || {
        fetched(&mut client, 0).await.ok().filter(|(error, ..)| *error == 0)
    });
    ensure_eq!(got.await?, (0, vec![0], 1), "the same once the bucket answers");
    // What the bucket itself does not have is gone.
    s3.always(Kind::Get, Fault::Status(404, "NoSuchKey"));
    ensure_eq!(fetched(&mut client, 0).await?, (0, vec![], 1), "the same without the object");
    s3.always(Kind::Get, Fault::None);
    is_sound("404 of a gateway and of a bucket", (&brokers, &proxy), &Held::in_bucket(&s3)?).await
}

#[tokio::test]
async fn only_the_bucket_itself_says_that_a_value_is_gone() -> Checked {
    a_gateway_is_no_loss(None).await
}

/// Where many packs are missing and none is found readers stop.
pub async fn a_burst_is_no_loss(faults: Faults) -> Checked {
    let mut scene = scene(faults).await?;
    const LOST: i64 = 130;
    const PASSED: i64 = 100;
    for n in 0..130 {
        scene.send(&[noise(n, 1001)]).await?;
    }
    for object in scene.objects() {
        std::fs::remove_file(object).map_err(failure)?;
    }
    let mut next = 0;
    while next < LOST {
        // One batch at a time.
        let (error, _, end) = fetched_within(&mut scene.client, next, 1).await?;
        if error == STORAGE_ERROR {
            ensure_eq!(next, PASSED, "packs passed over before readers stop");
            return Ok(());
        }
        ensure!(end > next, "nothing is passed over at {next}");
        ensure_eq!(error, 0, "error of Fetch");
        next = end;
    }
    ensure!(false, "all of {LOST} packs were passed over");
    Ok(())
}

#[tokio::test]
async fn readers_stop_where_everything_is_missing() -> Checked {
    a_burst_is_no_loss(None).await
}
