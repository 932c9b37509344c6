//! Regions of records.

use bytes::Bytes;
use proptest::prelude::*;
use protocol_ext::batch::{BatchHeader, Caps, OpenBatch, build};
use protocol_ext::codec::{Codec, Framing};
use protocol_ext::varint::write_varint;

use super::*;

fn put(out: &mut Vec<u8>, bytes: Option<&[u8]>) {
    let length = bytes.map_or(-1, |bytes| i32::try_from(bytes.len()).expect("short"));
    write_varint(out, length);
    out.extend_from_slice(bytes.unwrap_or_default());
}

/// A batch of one record.
fn batch(
    key: Option<&str>,
    value: Option<&str>,
    header: Option<(&str, Option<&str>)>,
) -> OpenBatch {
    let mut fields = vec![0, 0, 0];
    put(&mut fields, key.map(str::as_bytes));
    put(&mut fields, value.map(str::as_bytes));
    write_varint(&mut fields, i32::from(header.is_some()));
    if let Some((key, value)) = header {
        put(&mut fields, Some(key.as_bytes()));
        put(&mut fields, value.map(str::as_bytes));
    }
    let mut body = Vec::new();
    write_varint(&mut body, i32::try_from(fields.len()).expect("short"));
    body.extend(fields);
    let head = BatchHeader {
        base_offset: 0,
        batch_length: 0,
        partition_leader_epoch: -1,
        crc: 0,
        attributes: Codec::None.bits(),
        last_offset_delta: 0,
        base_timestamp: 0,
        max_timestamp: 0,
        producer_id: -1,
        producer_epoch: -1,
        base_sequence: -1,
        records_count: 1,
    };
    let bytes: Bytes = build(head, Framing::Plain, &body).expect("a batch");
    let caps = Caps { body_bytes_max: 1 << 20, rewritten_bytes_max: 1 << 20 };
    OpenBatch::open(bytes, &caps).expect("a batch")
}

fn of(rule: &Rule, batch: &OpenBatch) -> Result<usize, Unlocated> {
    let record = batch.records().next().expect("a record").expect("a sound one");
    rule.region(&regions(), &record)
}

fn regions() -> Vec<Region> {
    let north = Area::Box { south: 37.0, north: 42.1, west: -124.6, east: -114.0 };
    let triangle = vec![(32.0, -125.0), (37.0, -125.0), (32.0, -114.0)];
    let region = |name: &str, area| Region { name: name.to_owned(), area: Some(area) };
    vec![region("norcal", north), region("socal", Area::Polygon(triangle))]
}

fn pointer(text: &str) -> Pointer {
    Pointer::parse(text).expect("a pointer")
}

fn by_place() -> Rule {
    let place = ValueRule::Place(pointer("/at/latitude"), pointer("/at/longitude"));
    Rule { value: Some(place), ..Rule::default() }
}

fn value(text: &str) -> OpenBatch {
    batch(None, Some(text), None)
}

#[test]
fn a_place_belongs_to_the_first_area_that_holds_it() {
    let at = |latitude: &str, longitude: &str| {
        let text = format!(r#"{{"at":{{"latitude":{latitude},"longitude":{longitude}}}}}"#);
        of(&by_place(), &value(&text))
    };
    assert_eq!(at("38.5", "-120"), Ok(0));
    assert_eq!(at("3.85e1", "-1.2E+2"), Ok(0));
    assert_eq!(at("33", "-120"), Ok(1));
    assert_eq!(at("36.9", "-115"), Err(Unlocated::Outside), "beyond the long side");
    assert_eq!(at("37.0", "-124.6"), Ok(0), "a corner");
    assert_eq!(at("42.1", "-114.0"), Ok(0), "the other corner");
    assert_eq!(at("90.5", "0"), Err(Unlocated::Outside));
    assert_eq!(at("\"38.5\"", "-120"), Err(Unlocated::NoLocation), "text is no number");
    assert_eq!(at("null", "-120"), Err(Unlocated::NoLocation));
    assert_eq!(at("1e999", "-120"), Err(Unlocated::NoLocation), "beyond all numbers");
    assert_eq!(at("038.5", "-120"), Err(Unlocated::Broken));
}

#[test]
fn what_has_no_place_goes_elsewhere_for_a_reason() {
    let reason = |batch: &OpenBatch| of(&by_place(), batch).expect_err("no region");
    assert_eq!(reason(&batch(None, None, None)), Unlocated::NullValue);
    assert_eq!(reason(&value("")), Unlocated::Broken);
    assert_eq!(reason(&value("{\"at\":")), Unlocated::Broken);
    assert_eq!(reason(&value("{}")), Unlocated::NoLocation);
    assert_eq!(reason(&value("[1,2]")), Unlocated::NoLocation);
    assert_eq!(reason(&value("{\"at\":{\"latitude\":38}}")), Unlocated::NoLocation);
    let twice = r#"{"at":{"latitude":0},"at":{"latitude":38,"longitude":-120}}"#;
    assert_eq!(reason(&value(twice)), Unlocated::NoLocation, "the first of two keys counts");
}

#[test]
fn a_box_may_cross_the_antimeridian() {
    let fiji = Area::Box { south: -20.0, north: -15.0, west: 176.0, east: -178.0 };
    assert!(fiji.holds((-17.0, 179.0)) && fiji.holds((-17.0, -179.0)));
    assert!(!fiji.holds((-17.0, 175.0)) && !fiji.holds((-17.0, -177.0)));
}

#[test]
fn ways_are_tried_in_their_order() {
    let rule = Rule {
        header: Some("region".to_owned()),
        value: Some(ValueRule::Name(pointer("/re~1gion"))),
        key_prefix: Some("-".to_owned()),
    };
    let header = |region| Some(("region", region));
    let socal = r#"{"re\u002fgion":"so\u0063al"}"#;
    let all = batch(Some("norcal-7"), Some(socal), header(Some("norcal")));
    assert_eq!(of(&rule, &all), Ok(0), "the header first");
    let strange = batch(Some("norcal-7"), Some(socal), header(Some("nowhere")));
    assert_eq!(of(&rule, &strange), Ok(1), "then the value");
    assert_eq!(
        of(&rule, &batch(Some("norcal-7"), Some("{}"), header(None))),
        Ok(0),
        "then the key"
    );
    assert_eq!(of(&rule, &batch(Some("norcal-7"), None, None)), Ok(0));
    let none = batch(Some("norcalx-7"), Some(r#"{"re/gion":"x"}"#), None);
    assert_eq!(of(&rule, &none), Err(Unlocated::Outside));
}

/// Whether a place is left of an edge, for each edge: another way to say where it is.
fn in_triangle(corners: &[(f64, f64); 3], (y, x): (f64, f64)) -> Option<bool> {
    let sides = [0, 1, 2].map(|n| {
        let ((ay, ax), (by, bx)) = (corners[n], corners[(n + 1) % 3]);
        (bx - ax) * (y - ay) - (by - ay) * (x - ax)
    });
    let clear = sides.iter().all(|side| side.abs() > 1e-6);
    clear.then(|| sides.iter().all(|side| *side > 0.0) || sides.iter().all(|side| *side < 0.0))
}

proptest! {
    #[test]
    fn a_polygon_is_what_lies_left_of_all_its_edges(
        corners in [(-80.0..80.0, -170.0..170.0), (-80.0..80.0, -170.0..170.0),
            (-80.0..80.0, -170.0..170.0)],
        place in (-90.0..90.0, -180.0..180.0),
    ) {
        let corners: [(f64, f64); 3] = corners;
        if let Some(inside) = in_triangle(&corners, place) {
            prop_assert_eq!(Area::Polygon(corners.to_vec()).holds(place), inside);
        }
    }
}
