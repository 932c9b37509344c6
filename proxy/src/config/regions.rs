//! Regions and the rules that tell them: raw -> checked.

use protocol_ext::json::Pointer;

use super::parse::Problems;
use super::topics::{OTHER, is_topic_name};
use super::{Cluster, raw};
use crate::route::region::{Area, Region, Rule, ValueRule};

const AREA: &str = "write { south = .., north = .., west = .., east = .. } in degrees, or \
    { polygon = [[LATITUDE, LONGITUDE], ..] } of three corners or more";

pub(super) fn regions(
    p: &mut Problems,
    raw: &[raw::Region],
    cluster: Option<&Cluster>,
) -> Vec<Region> {
    let mut regions: Vec<Region> = Vec::with_capacity(raw.len());
    for (n, region) in raw.iter().enumerate() {
        let name = region.name.clone().unwrap_or_default();
        let why = match () {
            () if regions.iter().any(|other| other.name == name) => {
                Some("names two regions: each needs its own")
            }
            () if name == OTHER => Some("is the slot of all other records: take another name"),
            () if !is_topic_name(&name) => {
                Some("is no name: 1 to 200 of a-z, A-Z, 0-9, '.', '_', '-'")
            }
            () => None,
        };
        if let Some(why) = why {
            p.add(&format!("region[{n}].name"), format!("\"{name}\" {why}"));
        }
        let known = cluster.map(|c| c.name.as_str());
        if region.cluster.is_some() && known.is_some() && region.cluster.as_deref() != known {
            let given = region.cluster.as_deref().unwrap_or_default();
            let text = format!("\"{given}\" names no [[cluster]]: write its name");
            p.add(&format!("region[{n}].cluster"), text);
        }
        let area = region.area.as_ref().map(area);
        if let Some(Err(why)) = &area {
            p.add(&format!("region[{n}].area"), format!("{why}: {AREA}"));
        }
        regions.push(Region { name, area: area.and_then(Result::ok) });
    }
    regions
}

fn area(raw: &raw::Area) -> Result<Area, &'static str> {
    let latitude = |n: f64| (-90.0..=90.0).contains(&n);
    let longitude = |n: f64| (-180.0..=180.0).contains(&n);
    match raw {
        raw::Area { polygon: Some(corners), south: None, north: None, west: None, east: None } => {
            match corners.iter().all(|(a, b)| latitude(*a) && longitude(*b)) {
                true if corners.len() >= 3 => Ok(Area::Polygon(corners.clone())),
                true => Err("has too few corners"),
                false => Err("has a corner that is no place"),
            }
        }
        raw::Area {
            polygon: None,
            south: Some(south),
            north: Some(north),
            west: Some(west),
            east: Some(east),
        } => {
            let (south, north, west, east) = (*south, *north, *west, *east);
            let places = [south, north].into_iter().all(latitude);
            match places && [west, east].into_iter().all(longitude) {
                true if south < north && (west - east).abs() > 0.0 => {
                    Ok(Area::Box { south, north, west, east })
                }
                true => Err("is empty"),
                false => Err("is not on the map"),
            }
        }
        _ => Err("is neither a box nor a polygon"),
    }
}

const RULE: &str = "write { header = \"NAME\" }, { latitude = \"/POINTER\", longitude = \
    \"/POINTER\" }, { field = \"/POINTER\" } or { key_prefix = \"-\" }";

/// How records of a virtual topic tell their region. Problems have the key `key`.
pub(super) fn rule(
    p: &mut Problems,
    key: &str,
    raw: Option<&raw::RegionRule>,
    regions: &[Region],
) -> Rule {
    let Some(raw) = raw else {
        // One that cannot be read was told of.
        if !p.has(key) {
            p.add(key, format!("is missing: {RULE}"));
        }
        return Rule::default();
    };
    if raw.listener.is_some() {
        let why = "a client that reconnects by another listener would have its batches written \
            twice, so the listener is no rule in this version";
        p.add(&format!("{key}.listener"), format!("{why}: {RULE}"));
    }
    let mut pointer = |name: &str, text: &Option<String>| {
        let read = text.as_deref().map(Pointer::parse);
        if let Some(Err(why)) = &read {
            p.add(&format!("{key}.{name}"), format!("{why}, as in \"/position/{name}\""));
        }
        read.and_then(Result::ok)
    };
    let latitude = pointer("latitude", &raw.latitude);
    let longitude = pointer("longitude", &raw.longitude);
    let field = pointer("field", &raw.field);
    if raw.latitude.is_some() != raw.longitude.is_some() {
        p.add(key, "latitude and longitude belong together: write both");
    }
    if raw.latitude.is_some() && raw.field.is_some() {
        p.add(key, "a value has either a place or a field with the region's name: write one");
    }
    if raw.latitude.is_some() && !regions.iter().any(|region| region.area.is_some()) {
        p.add(key, format!("no [[region]] has an area: {AREA}"));
    }
    let place = latitude.zip(longitude).map(|(a, b)| ValueRule::Place(a, b));
    let some = |text: &Option<String>| text.clone().filter(|text| !text.is_empty());
    let (header, key_prefix) = (some(&raw.header), some(&raw.key_prefix));
    let value = place.or(field.map(ValueRule::Name));
    let given = raw.latitude.is_some() || raw.longitude.is_some() || raw.field.is_some();
    // A listener was told of.
    let given = given || raw.listener.is_some();
    if header.is_none() && key_prefix.is_none() && !given {
        p.add(key, format!("says nothing: {RULE}"));
    }
    Rule { header, value, key_prefix }
}

#[cfg(test)]
mod tests {
    use super::super::{Config, ConfigError, raw::Flags};

    fn problems(region: &str, area: &str) -> Vec<String> {
        let text = format!(
            "[[cluster]]\nbootstrap = [\"a:1\"]\n[[virtual_topic]]\nname = \"v\"\n\
             region = {region}\n[[region]]\nname = \"n\"\n{area}\n"
        );
        match Config::parse(&text, &Flags::default()) {
            Ok(_) => Vec::new(),
            Err(ConfigError(problems)) => problems.iter().map(ToString::to_string).collect(),
        }
    }

    const BOX: &str = "area = { south = 37.0, north = 42, west = -124.6, east = -119.0 }";
    const PLACE: &str = "{ latitude = \"/latitude\", longitude = \"/longitude\" }";

    #[test]
    fn every_way_to_tell_a_region_is_taken() {
        for rule in [
            PLACE,
            "{ header = \"region\" }",
            "{ field = \"/a/b\" }",
            "{ key_prefix = \"-\" }",
            "{ header = \"r\", field = \"/r\", key_prefix = \":\" }",
        ] {
            assert_eq!(problems(rule, BOX), Vec::<String>::new(), "{rule}");
        }
        let triangle = "area = { polygon = [[32, -125.0], [37.0, -125], [32.0, -114.0]] }";
        assert_eq!(problems(PLACE, triangle), Vec::<String>::new());
    }

    #[test]
    fn what_is_wrong_with_a_rule_or_an_area_is_told() {
        for (rule, area, told) in [
            ("{ }", BOX, "virtual_topic[0].region: says nothing"),
            ("{ header = \"\" }", BOX, "virtual_topic[0].region: says nothing"),
            ("{ latitude = \"/a\" }", BOX, "belong together"),
            ("{ field = \"a\" }", BOX, "virtual_topic[0].region.field: a JSON pointer begins"),
            ("{ listener = \"a\" }", BOX, "written twice"),
            (PLACE, "", "no [[region]] has an area"),
            (PLACE, "area = { south = 42.0, north = 37.0, west = 1.0, east = 2.0 }", "is empty"),
            (PLACE, "area = { south = -91, north = 37, west = 1, east = 2 }", "not on the map"),
            (PLACE, "area = { south = 1, north = 2, west = 3 }", "neither a box nor a polygon"),
            (PLACE, "area = { polygon = [[1, 2], [3, 4]] }", "too few corners"),
            (PLACE, "area = { polygon = [[1, 2], [3, 4], [5, 200]] }", "no place"),
        ] {
            let all = problems(rule, area);
            assert!(all.iter().any(|one| one.contains(told)), "{rule} {area}: {all:?}");
        }
    }

    #[test]
    fn a_rule_with_an_unknown_key_is_told_once() {
        let told = problems("{ heador = \"r\" }", BOX);
        assert_eq!(told.len(), 1, "{told:?}");
        assert!(told[0].starts_with("virtual_topic[0].region: has no key heador"), "{told:?}");
        assert!(!told[0].contains("listener"), "{told:?}");
    }

    #[test]
    fn values_that_may_be_stored_cannot_tell_a_region() {
        let text = format!(
            "[[cluster]]\nbootstrap = [\"a:1\"]\n[[virtual_topic]]\nname = \"fires\"\n\
             region = {PLACE}\n[[region]]\nname = \"n\"\n{BOX}\n[store]\nkind = \"local\"\n\
             path = \"/tmp\"\n[[offload]]\ntopics = [\"fire*\"]\n"
        );
        let Err(ConfigError(problems)) = Config::parse(&text, &Flags::default()) else {
            panic!("accepted")
        };
        let told = problems.iter().any(|one| one.to_string().contains("may be stored"));
        assert!(told, "{problems:?}");
    }
}
