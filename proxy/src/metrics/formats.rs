//! What stored values are, by the formats that are told apart.

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::registry::Registry;
use protocol_ext::format::NAMES;

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OfFormat {
    format: &'static str,
}

/// The handles, by the number of a format.
#[derive(Debug)]
pub struct Formats {
    values: [Counter; NAMES.len()],
    bytes: [Counter; NAMES.len()],
}

impl Formats {
    pub(super) fn new(registry: &mut Registry) -> Self {
        let [values, bytes]: [Family<OfFormat, Counter>; 2] = Default::default();
        let help = "Values written to the store, by what their first bytes say they are";
        registry.register("offload_format_values", help, values.clone());
        let help = "Bytes of these values, as they came";
        registry.register("offload_format_bytes", help, bytes.clone());
        let of = |family: &Family<OfFormat, Counter>| {
            NAMES.map(|format| family.get_or_create(&OfFormat { format }).clone())
        };
        Self { values: of(&values), bytes: of(&bytes) }
    }

    /// Counts a value that was stored. A number that is not known counts as no format.
    pub fn stored(&self, format: u8, bytes: usize) {
        let at = Some(usize::from(format)).filter(|at| *at < NAMES.len()).unwrap_or(0);
        self.values[at].inc();
        self.bytes[at].inc_by(bytes as u64);
    }
}

#[cfg(test)]
mod tests {
    use crate::metrics::Metrics;

    #[test]
    fn values_are_counted_by_format_and_unknown_numbers_as_none() {
        let metrics = Metrics::new();
        for (format, bytes) in [(3, 100), (3, 50), (0, 7), (16, 5), (255, 1)] {
            metrics.formats.stored(format, bytes);
        }
        let text = metrics.text();
        for line in [
            "firebreak_offload_format_values_total{format=\"jpeg\"} 2",
            "firebreak_offload_format_bytes_total{format=\"jpeg\"} 150",
            "firebreak_offload_format_values_total{format=\"unknown\"} 3",
            "firebreak_offload_format_bytes_total{format=\"unknown\"} 13",
            "firebreak_offload_format_values_total{format=\"zstd\"} 0",
        ] {
            assert!(text.lines().any(|told| told == line), "{line} is not in {text}");
        }
    }
}
