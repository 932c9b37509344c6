//! Regions: which slot of a virtual topic a record belongs to, by what it says of itself.
//!
//! header -> a place or a name in the JSON value -> key prefix, each if it is configured, in this
//! order; the first that names a region, or a place inside one, counts. Else the record goes to
//! `other`, for a reason that is counted.
//! Invariant: a pure function of the record and the configuration: no clock, no state, no memory
//! of its own for a record.

pub mod area;

use protocol_ext::json::{self, Found, Pointer};
use protocol_ext::records::RecordView;

pub use area::Area;

use crate::fault;

/// What in a record tells its region.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Rule {
    /// A header whose value is the region's name.
    pub header: Option<String>,
    /// What in the JSON value tells it.
    pub value: Option<ValueRule>,
    /// What follows the region's name at the start of the key.
    pub key_prefix: Option<String>,
}

/// What in a JSON value tells the region.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ValueRule {
    /// Two numbers: latitude and longitude, in degrees.
    Place(Pointer, Pointer),
    /// A string: the region's name.
    Name(Pointer),
}

/// A slot as rules see it.
#[derive(Debug, Clone, PartialEq)]
pub struct Region {
    /// Its name.
    pub name: String,
    /// Where it is, if it is known by that.
    pub area: Option<Area>,
}

/// Why a record belongs to no region.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unlocated {
    /// Its value is null.
    NullValue,
    /// Its value is no JSON.
    Broken,
    /// It says nothing of its region.
    NoLocation,
    /// It names another region, or a place outside all of them.
    Outside,
}

impl Unlocated {
    /// All of them, in the order of their numbers.
    pub const ALL: [Self; 4] = [Self::NullValue, Self::Broken, Self::NoLocation, Self::Outside];

    /// Its name as a label.
    pub fn name(self) -> &'static str {
        match self {
            Self::NullValue => "null_value",
            Self::Broken => "broken_json",
            Self::NoLocation => "no_location",
            Self::Outside => "outside",
        }
    }
}

impl Rule {
    /// The region of a record by its number; why there is none, as the last of the configured
    /// ways found.
    pub fn region(&self, regions: &[Region], record: &RecordView<'_>) -> Result<usize, Unlocated> {
        let mut why = Unlocated::NoLocation;
        if let Some(header) = &self.header {
            let mut headers = record.headers().filter_map(Result::ok);
            let value = headers.find(|h| h.key == header.as_bytes()).and_then(|h| h.value);
            match value {
                Some(value) => match named(regions, |name| name == value) {
                    Some(region) => return Ok(region),
                    None => why = Unlocated::Outside,
                },
                None => why = Unlocated::NoLocation,
            }
        }
        if let Some(rule) = &self.value {
            match by_value(rule, regions, record.value) {
                Ok(region) => return Ok(region),
                Err(unlocated) => why = unlocated,
            }
        }
        if let Some(end) = &self.key_prefix {
            let key = record.key.unwrap_or_default();
            let begins = |name: &[u8]| {
                key.strip_prefix(name).is_some_and(|rest| rest.starts_with(end.as_bytes()))
            };
            if let Some(region) = named(regions, begins) {
                return Ok(region);
            }
        }
        Err(why)
    }

    /// Whether it looks into values: what is stored elsewhere cannot be looked into.
    pub fn reads_values(&self) -> bool {
        self.value.is_some()
    }
}

fn named(regions: &[Region], is: impl Fn(&[u8]) -> bool) -> Option<usize> {
    regions.iter().position(|region| is(region.name.as_bytes()))
}

fn by_value(
    rule: &ValueRule,
    regions: &[Region],
    value: Option<&[u8]>,
) -> Result<usize, Unlocated> {
    let value = value.ok_or(Unlocated::NullValue)?;
    if fault::on("long-values-unread") && value.len() > 1 << 20 {
        return Err(Unlocated::NoLocation);
    }
    match rule {
        ValueRule::Place(latitude, longitude) => {
            let found = json::find(value, [latitude, longitude]);
            let found = found.map_err(|_| Unlocated::Broken)?;
            let [latitude, longitude] = found.map(|found| found.and_then(|f| f.number()));
            let place = latitude.zip(longitude).ok_or(Unlocated::NoLocation)?;
            let inside = |region: &Region| region.area.as_ref().is_some_and(|a| a.holds(place));
            let found = match fault::on("areas-overlap") {
                true => regions.iter().rposition(inside),
                false => regions.iter().position(inside),
            };
            found.ok_or(Unlocated::Outside)
        }
        ValueRule::Name(pointer) => {
            let [found] = json::find(value, [pointer]).map_err(|_| Unlocated::Broken)?;
            let text = found.filter(|found| matches!(found, Found::Text(_)));
            let text = text.ok_or(Unlocated::NoLocation)?;
            named(regions, |name| text.is_text(name)).ok_or(Unlocated::Outside)
        }
    }
}

#[cfg(test)]
mod tests;
