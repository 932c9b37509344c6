//! The counts that tests of faults end with: they see each kind of harm, and no other.

use crate::harness::broker::Brokers;
use crate::harness::client::Client;
use crate::harness::proxy::Setup;
use crate::harness::records::single;
use crate::harness::s3::S3;
use crate::harness::tally::{Held, Ledger, Tally};
use crate::harness::{Checked, ensure, ensure_eq, noise};

#[tokio::test]
async fn counts_see_what_is_lost_what_is_orphaned_and_what_dangles() -> Checked {
    let brokers = Brokers::start(1).await;
    let s3 = S3::start().await;
    let proxy = Setup::new(&brokers, None).offload_s3(&s3, 1000).start().await;
    let mut client = Client::connect(proxy.port).await?;
    let mut ledger = Ledger::default();
    for n in 0..3 {
        let sent = single(noise(n, 20_000));
        let (error, base) = client.produce(9, "t", 0, &sent).await?;
        ensure_eq!(error, 0, "error of Produce");
        ledger.acknowledged("t", 0, base, &sent);
    }
    let counted = async || ledger.tally(proxy.port, &brokers, &Held::in_bucket(&s3)?).await;
    let sound = Tally { acknowledged: 3, lost: 0, orphaned: 0, dangling: 0 };
    ensure_eq!(counted().await?, sound, "counts of what is sound");
    sound.is_sound("nothing wrong", 0)?;

    // The log of the second value is cut off: its pack is an orphan, and its record is lost.
    let mut batches = 0;
    if let Some(log) = brokers.cluster().log("t", 0) {
        log.compact(|batch| {
            batches += 1;
            (batches != 2).then(|| batch.clone())
        });
    }
    let cut = Tally { lost: 1, orphaned: 1, ..sound };
    ensure_eq!(counted().await?, cut, "counts without a batch");
    // A pack that is referred to is gone.
    let held = Held::in_bucket(&s3)?;
    let key = held.referred(&brokers).remove(0).0;
    s3.remove(&key);
    let gone = Tally { lost: 2, dangling: 1, ..cut };
    ensure_eq!(counted().await?, gone, "counts without a pack");
    ensure!(gone.is_sound("a pack is gone", 1).is_err(), "what is lost is called sound");
    Ok(())
}
