//! ApiVersions: what the broker has and the proxy serves, nothing else.

use bytes::Bytes;
use kafka_protocol::messages::{ApiVersionsRequest, ApiVersionsResponse};
use kafka_protocol::protocol::StrBytes;
use protocol_ext::fake_broker::Fault;
use protocol_ext::sasl::Mechanism;

use crate::harness::broker::Brokers;
use crate::harness::client::{Client, answer};
use crate::harness::proxy::{Folder, Proxy, Setup};
use crate::harness::{Checked, Faults, ensure, ensure_eq, until};
use crate::sasl;

/// (key, least, greatest) that the broker offers and that clients must see; `None` is hidden.
type Row = ((i16, i16, i16), Option<(i16, i16)>);

const ROWS: [Row; 16] = [
    ((0, 0, 13), Some((0, 13))),
    ((1, 4, 99), Some((4, 18))),
    ((2, 1, 11), Some((1, 11))),
    ((3, 0, 99), Some((0, 13))),
    ((4, 0, 7), None),
    ((10, 0, 99), Some((0, 6))),
    ((17, 0, 1), Some((0, 1))),
    ((18, 0, 5), Some((0, 4))),
    ((32, 1, 99), Some((1, 4))),
    ((52, 0, 2), None),
    ((55, 0, 3), Some((0, 2))),
    ((60, 0, 99), Some((0, 2))),
    ((78, 1, 99), Some((1, 2))),
    ((79, 3, 9), None),
    ((93, 0, 1), None),
    ((30_000, 0, 0), None),
];

fn request(version: i16) -> ApiVersionsRequest {
    let request = ApiVersionsRequest::default();
    if version < 3 {
        return request;
    }
    request
        .with_client_software_name(StrBytes::from_static_str("it"))
        .with_client_software_version(StrBytes::from_static_str("1"))
}

async fn rows(proxy: &Proxy, version: i16) -> Checked<Vec<(i16, i16, i16)>> {
    let mut client = Client::connect(proxy.port).await?;
    let answer: ApiVersionsResponse = client.call(18, version, &request(version)).await?;
    ensure_eq!(answer.error_code, 0, "error of ApiVersions");
    let rows = answer.api_keys.iter();
    Ok(rows.map(|row| (row.api_key, row.min_version, row.max_version)).collect())
}

/// Clients see the intersection, in every version of the answer.
pub async fn clients_see_the_intersection(faults: Faults) -> Checked {
    let brokers = Brokers::start(1).await;
    brokers.cluster().versions = ROWS.iter().map(|(offered, _)| *offered).collect();
    let proxy = Setup::new(&brokers, faults).start().await;
    let expected: Vec<_> = ROWS
        .iter()
        .filter_map(|((key, ..), shown)| shown.map(|(min, max)| (*key, min, max)))
        .collect();
    for version in 0..=4 {
        ensure_eq!(rows(&proxy, version).await?, expected, "rows in version {version}");
    }
    Ok(())
}

#[tokio::test]
async fn hidden_keys_are_not_shown_and_ranges_are_clamped() -> Checked {
    clients_see_the_intersection(None).await
}

#[tokio::test]
async fn a_request_that_is_too_new_gets_an_error_and_one_row_whatever_the_broker_knows() -> Checked
{
    requests_that_are_too_new_are_answered(None).await
}

/// As a broker refuses a version that it does not know, so are those that are not known here.
pub async fn requests_that_are_too_new_are_answered(faults: Faults) -> Checked {
    let brokers = Brokers::start(1).await;
    brokers.cluster().versions.retain(|(key, ..)| *key != 18);
    brokers.cluster().versions.push((18, 0, 99));
    let proxy = Setup::new(&brokers, faults).start().await;
    let mut client = Client::connect(proxy.port).await?;
    for version in [5, 9, 127] {
        let mut frame = vec![0, 0, 0, 15, 0, 18, 0, version, 0, 0, 0, 77, 0, 2, b'i', b't'];
        frame.extend_from_slice(&[0, 1, 1]);
        client.send_raw(&frame).await?;
        let answer: ApiVersionsResponse = answer(&client.receive().await?, 0, 77)?;
        ensure_eq!(answer.error_code, 35, "error of version {version}");
        ensure_eq!(answer.api_keys.len(), 1, "rows");
        ensure_eq!(answer.api_keys[0].api_key, 18, "key of the row");
        ensure_eq!(answer.api_keys[0].max_version, 4, "greatest version");
    }
    // As a client does then: on the same connection, with a version that both know.
    let answer: ApiVersionsResponse = client.call(18, 4, &request(4)).await?;
    ensure!(answer.api_keys.len() > 5, "rows after the second try");
    Ok(())
}

/// Where SASL ends here, clients are told what every broker has, whichever is of an older release.
pub async fn all_brokers_count(faults: Faults) -> Checked {
    for older in [0, 1] {
        let (mut brokers, folder) = (sasl::brokers().await, Folder::new());
        let rows = vec![(0, 3, 9), (1, 4, 16), (3, 0, 12), (18, 0, 4), (36, 0, 2)];
        brokers.cluster().versions_of.insert(older, rows);
        let setup = Setup::new(&brokers, faults).listen(&sasl::listen(&folder, ""));
        let setup = setup.cluster(&sasl::cluster(&folder, Mechanism::Plain));
        let proxy = setup.start().await;
        let told = self::rows(&proxy, 3).await?;
        // What only one of them has is not told; tokens of SASL are answered here.
        let expected = [(0, 3, 9), (1, 4, 16), (3, 0, 12), (18, 0, 4), (36, 0, 2)];
        ensure_eq!(told, expected, "versions told while broker {older} is older");
        // Who tells none, as a stub at its place would, has no say.
        let error = Bytes::from_static(&[0, 0, 0, 12, 0, 0, 0, 0, 0, 35, 1, 0, 0, 0, 0, 0]);
        brokers.cluster().versions_of.clear();
        brokers.cluster().script(18, Fault::Instead(error));
        // It comes back in the release of the others.
        brokers.stop(older);
        brokers.add(older).await;
        let mut least = usize::MAX;
        until("the versions of all", async || {
            let told = self::rows(&proxy, 3).await.ok()?;
            least = least.min(told.len());
            (least < 5 || told.contains(&(0, 3, 13))).then_some(())
        })
        .await?;
        ensure!(least >= 5, "only {least} APIs were told for a while");
    }
    Ok(())
}

/// A broker that comes is asked at once, also while another one takes long to answer.
pub async fn newcomers_wait_for_nobody(faults: Faults) -> Checked {
    let (mut brokers, folder) = (sasl::brokers().await, Folder::new());
    brokers.freeze(0);
    let setup = Setup::new(&brokers, faults).listen(&sasl::listen(&folder, ""));
    let setup = setup.cluster(&sasl::cluster(&folder, Mechanism::Plain));
    // Longer than anything here is waited for.
    let _proxy = setup.limit("connect_ms = 60000").start().await;
    let asked = |brokers: &Brokers, node| {
        let cluster = brokers.cluster();
        cluster.seen.iter().any(|seen| (seen.node, seen.head.api) == (node, 18))
    };
    until("a question to broker 1", async || asked(&brokers, 1).then_some(())).await?;
    brokers.add(2).await;
    let what = "a question to who came while another was asked";
    until(what, async || asked(&brokers, 2).then_some(())).await
}

#[tokio::test]
async fn a_broker_that_hangs_delays_no_newcomer() -> Checked {
    newcomers_wait_for_nobody(None).await
}

#[tokio::test]
async fn versions_told_before_a_login_are_those_of_all_brokers() -> Checked {
    all_brokers_count(None).await
}

#[tokio::test]
async fn share_groups_are_hidden_only_beside_virtual_topics() -> Checked {
    let brokers = Brokers::start(1).await;
    let store = Folder::new();
    let is_shown = async |setup: Setup| {
        let rows = rows(&setup.start().await, 3).await?;
        ensure!(rows.iter().any(|(key, ..)| *key == 1), "no Fetch among {rows:?}");
        Ok(rows.iter().any(|(key, ..)| (76..=79).contains(key)))
    };
    let setup = || Setup::new(&brokers, None);
    ensure_eq!(is_shown(setup()).await?, true, "without anything");
    ensure_eq!(is_shown(setup().offload(&store, 1000)).await?, true, "with a store");
    ensure_eq!(is_shown(setup().virtual_topic()).await?, false, "with virtual topics");
    Ok(())
}
