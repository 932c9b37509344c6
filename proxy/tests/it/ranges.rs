//! Which values of one pack are read together: by the bytes between them and by those of all, at
//! the very limits.

use protocol_ext::codec::{Codec, Framing};

use crate::harness::broker::Brokers;
use crate::harness::client::Client;
use crate::harness::proxy::{Proxy, Setup};
use crate::harness::records::{batch, read, records};
use crate::harness::s3::{Kind, S3};
use crate::harness::{Checked, Faults, ensure, ensure_eq, failure, noise};
use crate::log_shapes::{LAST_OFFSET_DELTA, changed};

const ALL: i32 = i32::MAX;
const MIB: usize = 1 << 20;

struct Scene {
    brokers: Brokers,
    s3: S3,
    proxy: Proxy,
    client: Client,
}

async fn scene(faults: Faults) -> Checked<Scene> {
    let brokers = Brokers::start(1).await;
    let s3 = S3::start().await;
    let proxy = Setup::new(&brokers, faults).offload_s3(&s3, 1000).start().await;
    let client = Client::connect(proxy.port).await?;
    Ok(Scene { brokers, s3, proxy, client })
}

impl Scene {
    /// Reads of the store so far that were not a second one beside a slow one.
    async fn reads(&self) -> Checked<f64> {
        let hedged = self.proxy.metric("firebreak_offload_hedged_total").await?;
        Ok(self.s3.count(Kind::Get) as f64 - hedged)
    }

    /// Values of these bytes are stored in one pack, and compaction leaves those of these offsets:
    /// how often the store is read for them.
    async fn reads_of(&mut self, partition: i32, bytes: &[usize], left: &[i64]) -> Checked<f64> {
        let values: Vec<_> = (0..).zip(bytes).map(|(n, bytes)| noise(n, *bytes)).collect();
        let mut sent = records(&values);
        let stored = batch(Codec::None, Framing::Plain, &sent);
        let told = self.client.produce(9, "t", partition, &stored).await?;
        ensure_eq!(told, (0, 0), "error and offset of Produce");
        ensure_eq!(self.s3.objects().len(), usize::from(partition == 1) + 1, "packs");
        let last = i32::try_from(bytes.len() - 1).map_err(failure)?;
        if let Some(log) = self.brokers.cluster().log("t", partition) {
            log.compact(|stored| {
                let mut kept = read(stored);
                kept.retain(|record| left.contains(&record.offset));
                let kept = batch(Codec::None, Framing::Plain, &kept);
                Some(changed(&kept, LAST_OFFSET_DELTA, &last.to_be_bytes()))
            });
        }
        sent.retain(|record| left.contains(&record.offset));
        let before = self.reads().await?;
        let (error, section) = self.client.fetch(11, "t", partition, 0, ALL).await?;
        ensure_eq!(error, 0, "error of Fetch");
        ensure!(read(&section) == sent, "records differ");
        Ok(self.reads().await? - before)
    }
}

/// What lies between two values is read along up to a MiB of it, and not a byte more.
pub async fn gaps_are_bounded(faults: Faults) -> Checked {
    let mut scene = scene(faults).await?;
    for (partition, gap, expected) in [(0, MIB, 1.0), (1, MIB + 1, 2.0)] {
        let reads = scene.reads_of(partition, &[20_000, gap, 30_000], &[0, 2]).await?;
        ensure_eq!(reads, expected, "reads of the store with {gap} bytes between two values");
    }
    Ok(())
}

#[tokio::test]
async fn values_are_read_together_with_at_most_a_mib_between_them() -> Checked {
    gaps_are_bounded(None).await
}

/// At most 16 MiB are read at once, and not a byte more.
pub async fn ranges_are_bounded(faults: Faults) -> Checked {
    const TWO: [usize; 2] = [6_000_000, 6_000_000];
    let mut scene = scene(faults).await?;
    let rest = 16 * MIB - TWO[0] - TWO[1];
    for (partition, rest, expected) in [(0, rest, 1.0), (1, rest + 1, 2.0)] {
        let reads = scene.reads_of(partition, &[TWO[0], TWO[1], rest], &[0, 1, 2]).await?;
        ensure_eq!(reads, expected, "reads of the store, the last value of {rest} bytes");
    }
    Ok(())
}

#[tokio::test]
async fn values_are_read_together_up_to_16_mib() -> Checked {
    ranges_are_bounded(None).await
}
