//! The reader of primitive types, against a plain writer.

use proptest::prelude::*;
use protocol_ext::wire::{Reader, put_length, put_uvarint, uvarint_len};

use super::tree::uvarint;

/// A string or bytes in one of the four forms.
fn content(flexible: bool, wide: bool, text: Option<&[u8]>, out: &mut Vec<u8>) {
    match (flexible, wide, text) {
        (true, _, text) => uvarint(out, text.map_or(0, |text| text.len() + 1)),
        (false, true, None) => out.extend_from_slice(&(-1_i32).to_be_bytes()),
        (false, false, None) => out.extend_from_slice(&(-1_i16).to_be_bytes()),
        (false, true, Some(text)) => {
            out.extend_from_slice(&i32::try_from(text.len()).expect("small").to_be_bytes());
        }
        (false, false, Some(text)) => {
            out.extend_from_slice(&i16::try_from(text.len()).expect("small").to_be_bytes());
        }
    }
    out.extend_from_slice(text.unwrap_or_default());
}

proptest! {
    #![proptest_config(super::config())]

    #[test]
    fn integers_are_big_endian(
        a in any::<i8>(),
        b in any::<i16>(),
        c in any::<i32>(),
        d in any::<i64>(),
    ) {
        let mut out = a.to_be_bytes().to_vec();
        out.extend_from_slice(&b.to_be_bytes());
        out.extend_from_slice(&c.to_be_bytes());
        out.extend_from_slice(&d.to_be_bytes());
        let mut read = Reader::new(&out, 0);
        prop_assert_eq!(read.i8(), Ok(a));
        prop_assert_eq!(read.i16(), Ok(b));
        prop_assert_eq!(read.i32(), Ok(c));
        prop_assert_eq!(read.i64(), Ok(d));
        prop_assert_eq!(read.left(), 0);
    }

    #[test]
    fn unsigned_varints_round_trip(n in any::<u32>(), shift in 0_u32..32) {
        let n = n >> shift;
        let (mut plain, mut ours) = (Vec::new(), Vec::new());
        uvarint(&mut plain, n as usize);
        put_uvarint(&mut ours, n);
        prop_assert_eq!(&ours, &plain);
        prop_assert_eq!(uvarint_len(n), ours.len());
        prop_assert_eq!(Reader::new(&ours, 0).uvarint(), Ok(n));
        prop_assert!(Reader::new(&ours[..ours.len() - 1], 0).uvarint().is_err());
    }

    #[test]
    fn strings_and_bytes_are_read_in_all_four_forms(
        text in proptest::option::of(proptest::collection::vec(any::<u8>(), 0..300)),
    ) {
        let forms = [(false, false), (true, false), (false, true), (true, true)];
        let mut out = Vec::new();
        for (flexible, wide) in forms {
            content(flexible, wide, text.as_deref(), &mut out);
        }
        let mut read = Reader::new(&out, 0);
        for (flexible, wide) in forms {
            let at = read.pos();
            prop_assert_eq!(read.bytes(flexible, wide), Ok(text.as_deref()));
            let mut length = Vec::new();
            put_length(&mut length, flexible, wide, text.as_ref().map(Vec::len));
            prop_assert!(out[at..].starts_with(&length));
        }
        prop_assert_eq!(read.left(), 0);
    }

    #[test]
    fn any_bytes_at_all_never_panic_and_never_read_past_the_end(
        bytes in proptest::collection::vec(any::<u8>(), 0..40),
        from in 0_usize..60,
        flexible in any::<bool>(),
        wide in any::<bool>(),
    ) {
        let mut read = Reader::new(&bytes, from);
        while let Ok(Some(content)) = read.bytes(flexible, wide) {
            prop_assert!(content.len() <= bytes.len());
        }
        prop_assert!(read.pos() <= bytes.len());
    }
}
