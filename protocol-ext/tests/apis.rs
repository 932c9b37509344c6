//! Every API key and version that anyone we know speaks is classified, and docs/apis.md says how.

use std::collections::BTreeMap;
use std::path::Path;

use kafka_protocol::messages::{ApiKey, ApiVersionsResponse};
use kafka_protocol::protocol::Decodable;
use protocol_ext::api::{self, Answer};
use protocol_ext::header;
use protocol_ext::hostile::corpus;

fn reviewed(key: i16) -> i16 {
    api::get(key).map_or(-1, |api| api.reviewed)
}

#[test]
fn nothing_that_the_codec_crate_speaks_is_unclassified() {
    let mut wrong = Vec::new();
    for key in ApiKey::iter() {
        let (number, max) = (key as i16, key.valid_versions().max);
        if api::name(number) != format!("{key:?}") || max > reviewed(number) {
            wrong.push(format!("{key:?} ({number}) version {max}"));
        }
    }
    assert!(wrong.is_empty(), "not read for addresses yet: {wrong:?}");
}

#[test]
fn nothing_that_brokers_offered_when_frames_were_captured_is_unclassified() {
    let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden");
    let (mut rows, mut wrong) = (0, Vec::new());
    for frame in corpus::read(&golden).expect("the golden frames") {
        if frame.request || frame.api != api::API_VERSIONS {
            continue;
        }
        let at = header::response_body_at(frame.api, frame.version, &frame.bytes).expect("a head");
        let mut body = frame.bytes.slice(at..);
        let answer = ApiVersionsResponse::decode(&mut body, frame.version).expect("an answer");
        for row in answer.api_keys {
            rows += 1;
            if row.max_version > reviewed(row.api_key) {
                wrong.push(format!("{} version {}", row.api_key, row.max_version));
            }
        }
    }
    assert!(rows > 500, "{rows} rows");
    assert!(wrong.is_empty(), "not read for addresses yet: {wrong:?}");
}

/// Key -> (name, how answers are treated, versions offered, newest version reviewed).
type Table = BTreeMap<i16, (String, String, String, String)>;

fn of_the_code() -> Table {
    let keys = 0..i16::try_from(api::KEY_END).expect("few keys");
    keys.map(|key| {
        let api = api::get(key).expect("no gap");
        let range = |min: i16, max: i16| format!("{min}-{max}");
        let (answer, versions) = match api.answer {
            Answer::Opaque => ("opaque", "all".to_owned()),
            Answer::Versions => ("versions", "all".to_owned()),
            Answer::Patch(layout) => ("patch", range(layout.min, layout.max)),
            Answer::Tail(layout) => ("tail", range(layout.min, layout.max)),
            Answer::Hidden => ("hidden", "none".to_owned()),
        };
        (key, (api.name.to_owned(), answer.to_owned(), versions, api.reviewed.to_string()))
    })
    .collect()
}

#[test]
fn the_page_about_apis_says_what_the_code_does_and_why() {
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/apis.md");
    let page = std::fs::read_to_string(page).expect("docs/apis.md");
    let mut documented = Table::new();
    for row in page.lines().filter(|line| line.starts_with("| ")) {
        let cells: Vec<&str> = row.trim_matches('|').split('|').map(str::trim).collect();
        let Ok(key) = cells[0].parse::<i16>() else { continue };
        let [_, name, answer, versions, reviewed, _, _, _, why] = cells[..] else {
            panic!("nine columns in {row}");
        };
        assert!(why.len() > 8, "no reason in {row}");
        let row = [name, answer, versions, reviewed].map(str::to_owned);
        let [name, answer, versions, reviewed] = row;
        let before = documented.insert(key, (name, answer, versions, reviewed));
        assert!(before.is_none(), "key {key} twice");
    }
    let code = of_the_code();
    let wrong: Vec<_> = code.iter().filter(|(key, row)| documented.get(key) != Some(row)).collect();
    assert!(wrong.is_empty(), "docs/apis.md should have {wrong:#?}");
    assert_eq!(documented.len(), code.len(), "rows of keys that there are not");
}
