//! The signed reference: what is signed opens, whatever is changed does not.

use proptest::prelude::*;
use proptest::strategy::ValueTree;
use protocol_ext::reference::{
    Binding, KeyRing, MacKey, REFERENCE_BYTES, Reference, ReferenceError,
};

use crate::generate::noise;

fn ring(seed: u64) -> KeyRing {
    KeyRing::new(MacKey::new(&noise(seed, 32)).unwrap(), None).unwrap()
}

fn reference() -> impl Strategy<Value = Reference> {
    (any::<[u8; 4]>(), any::<[u32; 5]>(), any::<[u64; 2]>(), any::<[[u8; 16]; 3]>(), any::<u16>())
        .prop_map(|(bytes, ints, longs, ids, store_alias)| Reference {
            flags: 0,
            store_alias,
            codec: bytes[0],
            filter: bytes[1],
            content_type: bytes[2],
            shard: bytes[3],
            written_at_ms: longs[0] >> 16,
            stored_bytes: ints[0],
            original_bytes: ints[1],
            original_crc: ints[2],
            pack_offset: longs[1],
            data_key_id: ints[3],
            partition: ints[4],
            pack_id: ids[0],
            topic_id: ids[1],
            original_hash: ids[2],
        })
}

proptest! {
    #[test]
    fn what_is_signed_opens_to_the_same_fields(
        reference in reference(), seed in any::<u64>(), topic in ".{0,30}", tenant in ".{0,30}",
    ) {
        let ring = ring(seed);
        let binding = Binding { topic: &topic, tenant: &tenant };
        let signed = ring.sign(&reference, &binding);
        prop_assert!(Reference::looks_like(&signed));
        prop_assert_eq!(ring.open(&signed, &binding), Ok(reference));
    }

    #[test]
    fn one_changed_bit_anywhere_does_not_open(
        reference in reference(), at in 0usize..REFERENCE_BYTES, bit in 0u8..8,
    ) {
        let ring = ring(3);
        let binding = Binding { topic: "images", tenant: "one" };
        let mut signed = ring.sign(&reference, &binding);
        signed[at] ^= 1 << bit;
        prop_assert!(ring.open(&signed, &binding).is_err());
    }

    #[test]
    fn another_topic_tenant_or_key_does_not_open(
        reference in reference(), topic in "[a-c]{0,4}", tenant in "[a-c]{0,4}",
        other_topic in "[a-c]{0,4}", other_tenant in "[a-c]{0,4}",
    ) {
        let ring = ring(5);
        let signed = ring.sign(&reference, &Binding { topic: &topic, tenant: &tenant });
        let moved = Binding { topic: &other_topic, tenant: &other_tenant };
        let same = topic == other_topic && tenant == other_tenant;
        let opened = ring.open(&signed, &moved);
        prop_assert_eq!(opened, if same { Ok(reference) } else { Err(ReferenceError::BadMac) });
        let stranger = MacKey::with_id(ring_id(&signed), &noise(6, 32)).unwrap();
        let stranger = KeyRing::new(stranger, None).unwrap();
        let binding = Binding { topic: &topic, tenant: &tenant };
        prop_assert_eq!(stranger.open(&signed, &binding), Err(ReferenceError::BadMac));
    }
}

fn ring_id(signed: &[u8]) -> u16 {
    u16::from_be_bytes([signed[6], signed[7]])
}

#[test]
fn after_a_change_of_keys_old_references_open_and_new_ones_carry_the_new_id() {
    let (old, new) = (MacKey::new(&noise(1, 32)).unwrap(), MacKey::new(&noise(2, 40)).unwrap());
    let binding = Binding { topic: "images", tenant: "one" };
    let mut runner = proptest::test_runner::TestRunner::deterministic();
    let reference = reference().new_tree(&mut runner).unwrap().current();
    let before = KeyRing::new(old.clone(), None).unwrap();
    let during = KeyRing::new(new.clone(), Some(old.clone())).unwrap();
    let after = KeyRing::new(new.clone(), None).unwrap();
    let signed_before = before.sign(&reference, &binding);
    let signed_during = during.sign(&reference, &binding);
    assert_eq!(during.open(&signed_before, &binding), Ok(reference));
    assert_eq!(after.open(&signed_before, &binding), Err(ReferenceError::UnknownKey(old.id())));
    assert_eq!(after.open(&signed_during, &binding), Ok(reference));
    assert_eq!(ring_id(&signed_during), new.id());
}
