//! Values that look like references and are not followed: whether they may be copied as they are.
//!
//! Where the key is another one than references were signed with, each of them looks like this, and
//! a copy of them would be worth nothing. Invariant: what may be a reference to a value stops the
//! copy; what only looks like one and refers to no object is a client's own.

use std::collections::HashSet;

use protocol_ext::reference::{Reference, ReferenceError};

use crate::fault;
use crate::filters::offload::object_key;
use crate::store::{ObjectStore, StoreError};
use crate::upkeep::UpkeepError;
use crate::upkeep::log::Partition;

/// A value that is not followed.
#[derive(Debug)]
pub struct Refused {
    /// Offset of its record.
    offset: i64,
    why: ReferenceError,
    /// What it says, with no good signature.
    reference: Option<Box<Reference>>,
}

impl Refused {
    /// The value of the record there.
    pub fn new(offset: i64, value: &[u8], why: ReferenceError) -> Self {
        let reference = Reference::parse_unverified(value).ok();
        Self { offset, why, reference: reference.map(|(reference, _)| Box::new(reference)) }
    }
}

/// Fails at the first that may stand for a value.
pub async fn judge(
    store: &ObjectStore,
    cluster: &str,
    at: &Partition,
    refused: &[Refused],
) -> Result<(), UpkeepError> {
    let mut absent = HashSet::new();
    for Refused { offset, why, reference } in refused {
        let advice = match why {
            ReferenceError::UnknownKey(_) => ANOTHER_KEY,
            ReferenceError::UnknownVersion(_) | ReferenceError::UnknownFlags(_) => LATER_VERSION,
            ReferenceError::BadMac => {
                let Some(reference) = reference else { continue };
                let Reference { pack_id, topic_id, partition, .. } = &**reference;
                let object = object_key(cluster, pack_id, topic_id, *partition);
                if absent.contains(&object) {
                    continue;
                }
                match store.size(&object).await {
                    Ok(_) => ANOTHER_TOPIC,
                    Err(StoreError::Missing(_)) => {
                        absent.insert(object);
                        continue;
                    }
                    Err(error) => return Err(error.into()),
                }
            }
            // No version of ours makes such ones.
            ReferenceError::WrongLength(_) | ReferenceError::NotAReference => continue,
        };
        if !fault::on("unsigned-copied") {
            let (topic, partition, offset) = (at.topic.clone(), at.partition, *offset);
            return Err(UpkeepError::Unsigned { topic, partition, offset, why: *why, advice });
        }
    }
    Ok(())
}

const ANOTHER_KEY: &str = "name the key it was signed with by store.key_file, or put it beside \
                           that one as FILE.previous";
const LATER_VERSION: &str = "take the version of firebreak that wrote it";
const ANOTHER_TOPIC: &str = "its object is there, so it may be a reference of another topic: where \
                             this is a part of a virtual topic, name that one in the configuration";
