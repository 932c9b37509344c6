//! Every address that a message holds becomes the one that clients use, and nothing else changes.

use bytes::Bytes;
use proptest::prelude::*;
use protocol_ext::address::{Addresses, Rewrite};
use protocol_ext::schema::{Role, requests, responses};
use protocol_ext::walk::{Check, walk};

use super::tree::{Sample, Tree, any_sample, sample, sample_of};

/// The proxy's addresses: one host, one port a node.
#[derive(Debug, Clone)]
pub struct Told {
    pub host: String,
}

const FIRST_PORT: u16 = 30_000;
const BOOTSTRAP_PORT: u16 = 29_999;

impl Addresses for Told {
    fn of(&self, node: i32) -> (Bytes, u16) {
        let port = u16::try_from(node).map_or(BOOTSTRAP_PORT, |node| FIRST_PORT.wrapping_add(node));
        (self.host.clone().into(), port)
    }

    fn scrub(&self, text: &str) -> Option<String> {
        text.contains("upstream").then(|| text.replace("upstream", &self.host))
    }
}

/// A host that clients are told; none looks like an upstream one.
pub fn told() -> impl Strategy<Value = Told> {
    "[a-z]{1,4}(\\.[a-z]{1,90}){0,3}".prop_map(|host| Told { host })
}

/// Applies what the addresses say to a tree, in the plainest way: node, host and port follow one
/// another.
fn rewritten(sample: &Sample, told: &Told) -> Sample {
    let mut expected = sample.clone();
    let (mut node, mut config, mut broker) = (-1, Vec::new(), false);
    expected.body.change(&mut |role, tree| match (role, tree) {
        (Role::Node, Tree::Fixed(bytes)) => node = i32::from(bytes[3]),
        (Role::Host, Tree::Content { bytes, .. }) => {
            if bytes.as_ref().is_none_or(Vec::is_empty) {
                node = -1;
            } else {
                *bytes = Some(told.host.clone().into_bytes());
            }
        }
        (Role::Port, Tree::Fixed(bytes)) if node >= 0 => {
            bytes.copy_from_slice(&i32::from(told.of(node).1).to_be_bytes());
        }
        (Role::ErrorText, Tree::Content { bytes: Some(bytes), .. }) => {
            let text = String::from_utf8(bytes.clone()).expect("text");
            *bytes = text.replace("upstream", &told.host).into_bytes();
        }
        (Role::ResourceType, Tree::Fixed(bytes)) => broker = bytes[..] == [4],
        (Role::ResourceName, Tree::Content { bytes, .. }) => {
            let name = String::from_utf8(bytes.clone().unwrap_or_default()).expect("text");
            node = name.parse().unwrap_or(-1);
        }
        (Role::ConfigName, Tree::Content { bytes, .. }) => {
            config = bytes.clone().unwrap_or_default();
        }
        (Role::ConfigValue, Tree::Content { bytes, .. }) if broker => {
            let Some(value) = bytes.clone().filter(|value| !value.is_empty()) else { return };
            if config.ends_with(b"listeners") {
                let (_, port) = told.of(node);
                *bytes = Some(format!("PLAINTEXT://{}:{port}", told.host).into_bytes());
            } else if config.starts_with(b"controller.quorum")
                || value.windows(8).any(|part| part == b"upstream")
            {
                *bytes = None;
            }
        }
        _ => {}
    });
    expected
}

proptest! {
    #![proptest_config(super::config())]

    #[test]
    fn every_address_is_replaced_and_every_other_byte_stays(
        sample in any_sample(),
        told in told(),
    ) {
        let frame = Bytes::from(sample.bytes());
        let mut rewrite = Rewrite::new(&told);
        let edits = walk(sample.message, sample.version, &frame, 0, &mut rewrite);
        let edits = edits.map_err(|error| TestCaseError::fail(error.to_string()))?;
        let new = edits.apply(&frame);
        prop_assert_eq!(&new[..], &rewritten(&sample, &told).bytes()[..]);
        let leak = new.windows(8).any(|part| part == b"upstream");
        prop_assert!(!leak, "an upstream name is left");
        prop_assert!(walk(sample.message, sample.version, &new, 0, &mut Check).is_ok());
    }

    #[test]
    fn a_message_without_an_address_is_the_same_memory(
        sample in without_addresses(),
        told in told(),
    ) {
        let frame = Bytes::from(sample.bytes());
        let edits = walk(sample.message, sample.version, &frame, 0, &mut Rewrite::new(&told));
        let edits = edits.map_err(|error| TestCaseError::fail(error.to_string()))?;
        prop_assert_eq!(edits.apply(&frame).as_ptr(), frame.as_ptr());
    }
}

fn without_addresses() -> impl Strategy<Value = Sample> {
    prop_oneof![
        sample(&requests::PRODUCE),
        sample(&requests::METADATA),
        sample(&responses::LIST_OFFSETS),
        sample_of(&responses::FETCH, 4, 15),
        sample_of(&responses::PRODUCE, 3, 7),
    ]
}
