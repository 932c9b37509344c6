//! A store that fails again and again is left alone for a while, and then asked again.

use crate::harness::broker::Brokers;
use crate::harness::client::Client;
use crate::harness::proxy::Setup;
use crate::harness::records::single;
use crate::harness::s3::{Fault, Kind, S3};
use crate::harness::{Checked, Faults, QUIET, ensure_eq, noise, until};

/// Longer than the pause behind the last attempt before it.
const REST: &str = "store-rest-ms=return(3000)";
const STORAGE_ERROR: i16 = 56;

/// After five failures nobody asks, and everybody is answered; once the rest is over values are
/// stored again.
pub async fn it_rests_and_is_asked_again(faults: Faults) -> Checked {
    let brokers = Brokers::start(1).await;
    let s3 = S3::start().await;
    let setup = Setup::new(&brokers, faults.or(Some(REST))).offload_s3(&s3, 1000);
    let proxy = setup.start().await;
    // What a start asks counts too.
    until("an owner", async || s3.has_owner().then_some(())).await?;
    tokio::time::sleep(QUIET).await;
    let mut client = Client::connect(proxy.port).await?;
    s3.always(Kind::Put, Fault::Status(503, "SlowDown"));
    let sent = single(noise(1, 30_000));
    for n in 0..3 {
        let (error, _) = client.produce(9, "t", 0, &sent).await?;
        ensure_eq!(error, STORAGE_ERROR, "error of request {n}");
        ensure_eq!(s3.count(Kind::Put), 5, "attempts up to request {n}, before and in the rest");
    }
    ensure_eq!(brokers.cluster().count(0), 0, "Produce requests at the broker");
    s3.always(Kind::Put, Fault::None);
    let taken = until("a store that is asked again", async || {
        let (error, base) = client.produce(9, "t", 0, &sent).await.ok()?;
        (error == 0).then_some(base)
    });
    ensure_eq!(taken.await?, 0, "offset once the rest is over");
    ensure_eq!(s3.count(Kind::Put), 6, "attempts in all");
    Ok(())
}

#[tokio::test]
async fn a_store_that_fails_rests_and_is_asked_again() -> Checked {
    it_rests_and_is_asked_again(None).await
}
