//! docs/apis.md says what is done with every API in every version; the proxy counts what it does.

use std::collections::BTreeMap;

use protocol_ext::api::{self, Answer};
use protocol_ext::hostile::{Frame, corpus};
use protocol_ext::wire::put_length;

use crate::harness::broker::Brokers;
use crate::harness::client::request_frame;
use crate::harness::proxy::{Folder, Proxy, Setup};
use crate::harness::requests::fetch;
use crate::harness::{Checked, ensure, failure, until};
use crate::hostile::mutants::{counts, spend};
use crate::hostile::parrot::Parrot;

/// API name and class -> number of versions.
type Counts = BTreeMap<(String, String), u64>;

/// Columns of the page.
const PLAIN: usize = 5;
const STORE: usize = 6;
const VIRTUAL: usize = 7;

fn last_version(key: i16) -> i16 {
    let api = api::get(key).expect("a known key");
    match api.answer {
        Answer::Patch(layout) | Answer::Tail(layout) => layout.max.max(api.reviewed),
        _ => api.reviewed,
    }
}

/// `peek`, or `0-9 peek, 10-13 patch`: the class of each version.
fn classes(cell: &str, last: i16) -> Vec<String> {
    if !cell.contains(' ') {
        return (0..=last).map(|_| cell.to_owned()).collect();
    }
    let mut out = Vec::new();
    for part in cell.split(", ") {
        let (range, class) = part.split_once(' ').expect("versions and a class");
        let (min, max) = range.split_once('-').unwrap_or((range, range));
        let number = |text: &str| text.parse::<i16>().expect("a version");
        assert_eq!(usize::try_from(number(min)).expect("from 0"), out.len(), "a gap in {cell}");
        out.extend((number(min)..=number(max)).map(|_| class.to_owned()));
    }
    assert_eq!(out.len(), usize::try_from(last).expect("from 0") + 1, "{cell} up to {last}");
    out
}

fn documented(column: usize) -> (Counts, u64) {
    let page = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/apis.md");
    let page = std::fs::read_to_string(page).expect("docs/apis.md");
    let (mut counts, mut hidden) = (Counts::new(), 0);
    for row in page.lines().filter(|line| line.starts_with("| ")) {
        let cells: Vec<&str> = row.trim_matches('|').split('|').map(str::trim).collect();
        let Ok(key) = cells[0].parse::<i16>() else { continue };
        for class in classes(cells[column], last_version(key)) {
            match class.as_str() {
                "hidden" => hidden += 1,
                _ => *counts.entry((cells[1].to_owned(), class)).or_default() += 1,
            }
        }
    }
    (counts, hidden)
}

/// A request of that API and version: Produce of one topic with acks, others as captured or drawn,
/// or a bare head.
fn request(frames: &[Frame], key: i16, version: i16) -> Vec<u8> {
    let known = frames.iter().find(|f| f.request && (f.api, f.version) == (key, version));
    // Those that were captured may be of followers.
    if key == api::FETCH && (4..=18).contains(&version) {
        let asked = fetch(version, "t", &[(0, 0)], i32::MAX);
        return request_frame(key, version, 1, &asked)[4..].to_vec();
    }
    if let Some(frame) = known.filter(|_| key != api::PRODUCE) {
        return frame.bytes.to_vec();
    }
    let mut frame = [key.to_be_bytes(), version.to_be_bytes()].concat();
    frame.extend_from_slice(&[0, 0, 0, 1, 0xff, 0xff]);
    let flexible = api::is_flexible(key, version);
    if flexible {
        frame.push(0);
    }
    if key == api::PRODUCE {
        if version >= 3 {
            put_length(&mut frame, flexible, false, None);
        }
        frame.extend_from_slice(&[0xff, 0xff, 0, 0, 1, 0]);
        put_length(&mut frame, flexible, true, Some(1));
        match version {
            13.. => frame.extend_from_slice(crate::harness::requests::id("t").as_bytes()),
            _ => {
                put_length(&mut frame, flexible, false, Some(1));
                frame.push(b't');
            }
        }
        put_length(&mut frame, flexible, true, Some(0));
        frame.extend(std::iter::repeat_n(0, if flexible { 2 } else { 0 }));
    }
    frame
}

async fn counted(proxy: &Proxy, frames: &[Frame], hidden: u64) -> Checked<(Counts, u64)> {
    for key in 0..i16::try_from(api::KEY_END).map_err(failure)? {
        for version in 0..=last_version(key) {
            let frame = request(frames, key, version);
            let length = u32::try_from(frame.len()).map_err(failure)?;
            spend(proxy.node(1), &[&length.to_be_bytes(), &frame[..]].concat()).await?;
        }
    }
    let label = |labels: &str, name: &str| {
        let rest = labels.split(&format!("{name}=\"")).nth(1).unwrap_or_default();
        rest.split('"').next().unwrap_or_default().to_owned()
    };
    // A connection ends before it is counted, and the last row of all is one that is not offered.
    let row = "firebreak_errors_total{blame=\"client\",kind=\"not_offered\"}";
    let all = async || (proxy.metric(row).await.ok()? >= hidden as f64).then_some(());
    // Who counts less is told of below.
    let _ = until("all closes counted", all).await;
    let requests = counts(proxy, "firebreak_requests_total").await?;
    let requests = requests.into_iter().filter(|(_, n)| *n > 0);
    let requests =
        requests.map(|(labels, n)| ((label(&labels, "api"), label(&labels, "class")), n)).collect();
    let closes = counts(proxy, "firebreak_errors_total").await?;
    let hidden = closes.iter().find(|(labels, _)| labels.contains("not_offered"));
    Ok((requests, hidden.map_or(0, |(_, n)| *n)))
}

async fn as_documented(column: usize, setup: impl Fn(Setup) -> Setup) -> Checked {
    let golden = concat!(env!("CARGO_MANIFEST_DIR"), "/../protocol-ext/tests/golden");
    let frames = corpus::all(golden.as_ref()).map_err(failure)?;
    let brokers = Brokers::start(1).await;
    let _parrot = Parrot::start(&brokers, 1, &frames, None).await;
    let proxy = setup(Setup::new(&brokers, None)).start().await;
    let (expected, expected_hidden) = documented(column);
    let (counted, hidden) = counted(&proxy, &frames, expected_hidden).await?;
    let differ = |(row, n): (&(String, String), &u64)| {
        let other = expected.get(row).copied().unwrap_or(0);
        (other != *n).then(|| format!("{row:?}: {n} versions, the page has {other}"))
    };
    let wrong: Vec<String> = counted.iter().filter_map(differ).collect();
    let missing: Vec<_> = expected.keys().filter(|row| !counted.contains_key(row)).collect();
    ensure!(wrong.is_empty() && missing.is_empty(), "{wrong:#?}, never counted: {missing:?}");
    ensure!(hidden == expected_hidden, "{hidden} not offered, the page has {expected_hidden}");
    Ok(())
}

#[tokio::test]
async fn every_version_of_every_api_is_treated_as_the_page_says() -> Checked {
    as_documented(PLAIN, |setup| setup).await
}

#[tokio::test]
async fn with_a_store_every_version_is_treated_as_the_page_says() -> Checked {
    let store = Folder::new();
    as_documented(STORE, |setup| setup.offload(&store, 1000)).await
}

#[tokio::test]
async fn with_virtual_topics_every_version_is_treated_as_the_page_says() -> Checked {
    as_documented(VIRTUAL, Setup::virtual_topic).await
}
