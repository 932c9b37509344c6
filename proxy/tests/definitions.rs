//! Our tables against Kafka's own message definitions, which lie in the jar of kafka-clients.
//!
//! A new Kafka fails here until somebody has read what it added: an API key or a version that our
//! table does not have, a field that our layouts do not have, an answer that began to carry
//! addresses. The jars come from Maven by the script that the quickstart uses.
#![cfg(test)]

use std::collections::BTreeMap;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::Command;

use protocol_ext::api::{self, Answer};
use protocol_ext::hostile::{REQUESTS, RESPONSES};
use protocol_ext::schema::{Field, Kind, Message};
use serde_json::Value;

#[test]
fn of_kafka_4_3_1() {
    check("4.3.1");
}

#[test]
fn of_kafka_4_1_0() {
    check("4.1.0");
}

#[test]
fn of_kafka_3_9_1() {
    check("3.9.1");
}

fn check(kafka: &str) {
    let definitions = definitions(kafka);
    let of = |kind: &str| -> BTreeMap<i16, &Value> {
        let of_kind = definitions.iter().filter(|d| d["type"] == kind);
        of_kind.map(|d| (key(d), d)).collect()
    };
    let (requests, responses) = (of("request"), of("response"));
    assert!(requests.len() > 80 && requests.len() == responses.len(), "{} APIs", requests.len());
    let mut wrong = Vec::new();
    for (key, request) in &requests {
        wrong.extend(unknown(*key, request));
        wrong.extend(addresses(*key, responses[key]));
    }
    let mut compared = 0;
    for (layouts, definitions) in [(REQUESTS, &requests), (RESPONSES, &responses)] {
        for layout in layouts {
            let Some(definition) = definitions.get(&layout.api) else { continue };
            for version in shared(layout, definition) {
                let structs = structs(definition);
                let path = format!("{} v{version}", text(&definition["name"]));
                compare(layout.fields, &definition["fields"], &structs, version, &path, &mut wrong);
                compared += 1;
            }
        }
    }
    println!("Kafka {kafka}: {} APIs, {compared} layouts and versions", requests.len());
    assert!(compared > 80, "only {compared} versions of layouts");
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// What ListConfigResources (KIP-1142) was called up to Kafka 4.0.
const OLD_NAME: &str = "ListClientMetricsResourcesRequest";

/// What our table does not know of an API.
fn unknown(key: i16, request: &Value) -> Option<String> {
    let name = text(&request["name"]);
    let (_, max) = versions(&request["validVersions"])?;
    let Some(api) = api::get(key) else { return Some(format!("{name} (key {key}) is unknown")) };
    if name != format!("{}Request", api.name) && name != OLD_NAME {
        return Some(format!("{name} is called {} here", api.name));
    }
    let reviewed = api.reviewed;
    (max > reviewed).then(|| format!("{name} has version {max}, reviewed up to {reviewed}"))
}

/// Fields whose name sounds like an address and that are none of a broker's.
const NOT_OF_BROKERS: [(i16, &str); 11] = [
    // The clients' own, as brokers see them.
    (15, "ClientHost"),
    (69, "ClientHost"),
    (77, "ClientHost"),
    (89, "ClientHost"),
    // Whom an ACL is about.
    (29, "Host"),
    (31, "Host"),
    // What instances of a streams application tell each other.
    (88, "Host"),
    (88, "Port"),
    (89, "Host"),
    (89, "Port"),
    (88, "PartitionsByUserEndpoint"),
];

/// Addresses in answers that clients get and nobody patches.
fn addresses(key: i16, response: &Value) -> Vec<String> {
    let mut found = Vec::new();
    let patched = |version| match api::get(key).map(|api| api.answer) {
        Some(Answer::Patch(_) | Answer::Tail(_)) | None => true,
        Some(Answer::Opaque | Answer::Versions | Answer::Hidden) => !api::is_servable(key, version),
    };
    let mut look = |field: &Value| {
        let name = text(&field["name"]);
        let sounds = name.ends_with("Host") || name == "Port" || name.contains("Endpoint");
        let own = NOT_OF_BROKERS.contains(&(key, name)) || name == "UserEndpoint";
        if !(sounds || name.contains("Listener")) || own || name == "EndpointInformationEpoch" {
            return;
        }
        let Some((min, max)) = versions(&field["versions"]) else { return };
        let reviewed = api::get(key).map_or(0, |api| api.reviewed);
        for version in min..=max.min(reviewed) {
            if !patched(version) {
                found.push(format!("api {key} v{version}: {name} is not patched"));
            }
        }
    };
    each(&response["fields"], &mut look);
    for common in response["commonStructs"].as_array().into_iter().flatten() {
        each(&common["fields"], &mut look);
    }
    found
}

fn each(fields: &Value, see: &mut impl FnMut(&Value)) {
    for field in fields.as_array().into_iter().flatten() {
        see(field);
        each(&field["fields"], see);
    }
}

/// Versions that a layout and a definition both have.
fn shared(layout: &Message, definition: &Value) -> std::ops::RangeInclusive<i16> {
    let (min, max) = versions(&definition["validVersions"]).unwrap_or((0, -1));
    let flexible = versions(&definition["flexibleVersions"]).map_or(i16::MAX, |(min, _)| min);
    let reaches = flexible == layout.flexible;
    assert!(reaches, "{}: flexible since {flexible}", text(&definition["name"]));
    layout.min.max(min)..=layout.max.min(max)
}

/// The fields of structures that are named and described elsewhere in the definition.
fn structs(definition: &Value) -> BTreeMap<String, Value> {
    let common = definition["commonStructs"].as_array().into_iter().flatten();
    common.map(|c| (text(&c["name"]).to_owned(), c["fields"].clone())).collect()
}

/// A field as both sides can be compared: tag, name, type without its content.
type Row = (Option<u64>, String, String);

fn compare(
    ours: &'static [Field],
    theirs: &Value,
    structs: &BTreeMap<String, Value>,
    version: i16,
    path: &str,
    wrong: &mut Vec<String>,
) {
    let theirs: Vec<&Value> = theirs.as_array().into_iter().flatten().collect();
    let theirs: Vec<&Value> =
        theirs.into_iter().filter(|f| within(&f["versions"], version)).collect();
    let rows: Vec<Row> = theirs.iter().map(|field| row(field, version)).collect();
    let own: Vec<&Field> = ours.iter().filter(|f| (f.since..=f.until).contains(&version)).collect();
    let own_rows: Vec<Row> = own.iter().map(|field| own_row(field)).collect();
    let sorted = |mut rows: Vec<Row>| {
        // Tagged fields have no order.
        rows.sort_by_key(|(tag, ..)| tag.map_or(-1, u64::cast_signed));
        rows
    };
    let (rows, own_rows) = (sorted(rows), sorted(own_rows));
    if rows != own_rows {
        return wrong.push(format!("{path}: Kafka has {rows:?}, we have {own_rows:?}"));
    }
    for field in own {
        let (Kind::Array(inner) | Kind::Struct(inner)) = field.kind else { continue };
        let Some(their) = theirs.iter().find(|their| text(&their["name"]) == field.name) else {
            continue;
        };
        let named = text(&their["type"]).trim_start_matches("[]");
        let fields = structs.get(named).unwrap_or(&their["fields"]);
        let path = format!("{path}.{}", field.name);
        compare(inner, fields, structs, version, &path, wrong);
    }
}

fn row(field: &Value, version: i16) -> Row {
    let tag = field["tag"].as_u64().filter(|_| within(&field["taggedVersions"], version));
    let kind = match text(&field["type"]) {
        "bool" | "int8" => "1".to_owned(),
        "int16" | "uint16" => "2".to_owned(),
        "int32" | "uint32" => "4".to_owned(),
        "int64" | "float64" => "8".to_owned(),
        "uuid" => "16".to_owned(),
        "string" => "string".to_owned(),
        "bytes" | "records" => "bytes".to_owned(),
        "[]string" => "strings".to_owned(),
        "[]int8" => "list of 1".to_owned(),
        "[]int16" => "list of 2".to_owned(),
        "[]int32" => "list of 4".to_owned(),
        "[]int64" => "list of 8".to_owned(),
        "[]uuid" => "list of 16".to_owned(),
        array if array.starts_with("[]") => "array".to_owned(),
        _ => "structure".to_owned(),
    };
    (tag, text(&field["name"]).to_owned(), kind)
}

fn own_row(field: &Field) -> Row {
    let kind = match field.kind {
        Kind::Fixed(n) => n.to_string(),
        Kind::Str => "string".to_owned(),
        Kind::Bytes => "bytes".to_owned(),
        Kind::Struct(_) => "structure".to_owned(),
        Kind::Array(_) => "array".to_owned(),
        Kind::FixedList(n) => format!("list of {n}"),
        Kind::StrList => "strings".to_owned(),
    };
    (field.tag.map(u64::from), field.name.to_owned(), kind)
}

fn within(range: &Value, version: i16) -> bool {
    versions(range).is_some_and(|(min, max)| (min..=max).contains(&version))
}

/// `3`, `3-7` or `3+`; `None` for `none` or nothing.
fn versions(range: &Value) -> Option<(i16, i16)> {
    let range = range.as_str().filter(|range| *range != "none")?;
    let number = |text: &str| text.parse::<i16>().expect("a version");
    Some(match (range.strip_suffix('+'), range.split_once('-')) {
        (Some(min), _) => (number(min), i16::MAX),
        (None, Some((min, max))) => (number(min), number(max)),
        (None, None) => (number(range), number(range)),
    })
}

fn key(definition: &Value) -> i16 {
    i16::try_from(definition["apiKey"].as_i64().expect("a key")).expect("a small number")
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

// ---- the jar --------------------------------------------------------------------------------

fn definitions(kafka: &str) -> Vec<Value> {
    let jar = jars(kafka).join(format!("kafka-clients-{kafka}.jar"));
    let jar = std::fs::read(&jar).unwrap_or_else(|error| panic!("{}: {error}", jar.display()));
    let all = files(&jar).into_iter().filter(|(name, _)| name.starts_with("common/message/"));
    let json = all.filter(|(name, _)| name.ends_with(".json"));
    json.map(|(name, text)| {
        serde_json::from_str(&without_comments(&text)).unwrap_or_else(|e| panic!("{name}: {e}"))
    })
    .collect()
}

fn jars(kafka: &str) -> PathBuf {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../compose/jars.sh");
    let done = Command::new("bash").arg(script).arg(kafka).output().expect("bash");
    let errors = String::from_utf8_lossy(&done.stderr);
    assert!(done.status.success(), "compose/jars.sh {kafka}:\n{errors}");
    PathBuf::from(String::from_utf8(done.stdout).expect("a path").trim())
}

/// Names and texts of the files of a zip archive that are texts.
fn files(zip: &[u8]) -> Vec<(String, String)> {
    let end = zip.windows(4).rposition(|four| four == b"PK\x05\x06").expect("the end of a zip");
    let (count, mut at) = (u16_at(zip, end + 10), u32_at(zip, end + 16));
    let mut found = Vec::new();
    for _ in 0..count {
        assert_eq!(&zip[at..at + 4], b"PK\x01\x02", "an entry of the directory");
        let (method, size) = (u16_at(zip, at + 10), u32_at(zip, at + 20));
        let (name, extra) = (u16_at(zip, at + 28), u16_at(zip, at + 30));
        let (comment, local) = (u16_at(zip, at + 32), u32_at(zip, at + 42));
        let file = String::from_utf8_lossy(&zip[at + 46..at + 46 + name]).into_owned();
        at += 46 + name + extra + comment;
        if file.ends_with(".json") {
            let from = local + 30 + u16_at(zip, local + 26) + u16_at(zip, local + 28);
            found.push((file, inflated(&zip[from..from + size], method)));
        }
    }
    found
}

fn inflated(bytes: &[u8], method: usize) -> String {
    let mut text = String::new();
    match method {
        0 => text.push_str(std::str::from_utf8(bytes).expect("a text")),
        8 => {
            let mut inflate = flate2::read::DeflateDecoder::new(bytes);
            inflate.read_to_string(&mut text).expect("a text");
        }
        other => panic!("compression method {other}"),
    }
    text
}

fn u16_at(bytes: &[u8], at: usize) -> usize {
    usize::from(u16::from_le_bytes([bytes[at], bytes[at + 1]]))
}

fn u32_at(bytes: &[u8], at: usize) -> usize {
    let four = [bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]];
    usize::try_from(u32::from_le_bytes(four)).expect("64 bits")
}

/// The definitions have `//` comments, which JSON has not.
fn without_comments(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let (mut quoted, mut escaped, mut comment) = (false, false, false);
    let mut rest = text.chars().peekable();
    while let Some(c) = rest.next() {
        if comment {
            comment = c != '\n';
            continue;
        }
        if c == '/' && !quoted && rest.peek() == Some(&'/') {
            comment = true;
            continue;
        }
        quoted ^= c == '"' && !escaped;
        escaped = c == '\\' && !escaped;
        out.push(c);
    }
    out
}
