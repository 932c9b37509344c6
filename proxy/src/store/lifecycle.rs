//! Rules that a bucket keeps by itself: a cheaper class for old objects, an end for uploads that
//! were broken off.
//!
//! Invariant: no rule deletes an object, since only logs know which are referred to; and no class
//! is taken whose objects cannot be read at once.

use serde_json::{Value, json};

/// A cheaper class whose objects are read like others.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum ColdClass {
    /// S3 Standard-IA.
    StandardIa,
    /// S3 One Zone-IA: in one place only.
    OnezoneIa,
    /// S3 Intelligent-Tiering, without its archive tiers.
    IntelligentTiering,
    /// S3 Glacier Instant Retrieval.
    GlacierIr,
}

impl ColdClass {
    /// Its name in S3's own words.
    pub fn name(self) -> &'static str {
        match self {
            Self::StandardIa => "STANDARD_IA",
            Self::OnezoneIa => "ONEZONE_IA",
            Self::IntelligentTiering => "INTELLIGENT_TIERING",
            Self::GlacierIr => "GLACIER_IR",
        }
    }
}

/// The rules.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Lifecycle {
    /// Days after which packs change their class.
    pub cold_after_days: u16,
    /// The class.
    pub class: ColdClass,
}

impl Lifecycle {
    /// The rules as S3's own tools take them.
    pub fn json(self) -> Value {
        json!({ "Rules": [
            {
                "ID": COLD, "Status": "Enabled", "Filter": { "Prefix": PACKS },
                "Transitions": [
                    { "Days": self.cold_after_days, "StorageClass": self.class.name() },
                ],
            },
            {
                "ID": UPLOADS, "Status": "Enabled", "Filter": { "Prefix": PACKS },
                "AbortIncompleteMultipartUpload": { "DaysAfterInitiation": UPLOAD_DAYS },
            },
        ] })
    }
}

/// Where packs lie. A bucket may be shared: what others put elsewhere is theirs.
pub const PACKS: &str = "v1/";
/// Names of the rules; all others in a bucket are left as they are.
pub const COLD: &str = "firebreak-cold-packs";
/// See [`COLD`].
pub const UPLOADS: &str = "firebreak-broken-off-uploads";
/// Days after which parts of an upload that was broken off go.
pub const UPLOAD_DAYS: i32 = 1;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_rule_deletes_objects_nor_concerns_anything_but_packs() {
        let rules = Lifecycle { cold_after_days: 30, class: ColdClass::GlacierIr }.json();
        assert!(!rules.to_string().contains("Expiration"));
        for rule in rules["Rules"].as_array().expect("rules") {
            assert_eq!(rule["Filter"]["Prefix"], "v1/");
        }
        let cold = &rules["Rules"][0];
        let class = json!([{ "Days": 30, "StorageClass": "GLACIER_IR" }]);
        assert_eq!(cold["Transitions"], class);
    }
}
