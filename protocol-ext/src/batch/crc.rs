//! CRC-32C of one byte string, and of an old and a new one that share most of their bytes.
//!
//! Flow: `Twin` is told what both strings have in common, what only the old and what only the new
//! one has; bytes in common are read once. CRCs are joined by multiplying with a power of x.
//! Invariant: what `Twin` ends with equals `crc32c` of the concatenated parts.

use crc_fast::{CrcAlgorithm, Digest};

/// Castagnoli's polynomial, lowest power in the highest bit.
const POLYNOMIAL: u32 = 0x82F6_3B78;
/// x to the power of 0, lowest power in the highest bit.
const ONE: u32 = 1 << 31;
/// `SQUARES[n]` is x to the power of 2^n.
const SQUARES: [u32; 64] = squares();
/// Joining costs about as much as reading this much.
const JOIN_BYTES_MIN: usize = 16 * 1024;
/// Copied and then summed while it is still in the first cache.
const CHUNK_BYTES: usize = 16 * 1024;

/// CRC-32C (Castagnoli) of `bytes`.
#[inline]
pub fn crc32c(bytes: &[u8]) -> u32 {
    crc_fast::crc32_iscsi(bytes)
}

/// CRC-32C of `pieces` one after the other.
pub fn crc32c_of(pieces: &[&[u8]]) -> u32 {
    let mut digest = Digest::new(CrcAlgorithm::Crc32Iscsi);
    for piece in pieces {
        digest.update(piece);
    }
    u32::try_from(digest.finalize()).unwrap_or(u32::MAX)
}

/// CRC-32C of a byte string and one of `bytes` bytes behind it, by the CRC of each.
pub fn crc32c_joined(first: u32, second: u32, bytes: u64) -> u32 {
    multiply(first, power_of_x(8 * bytes)) ^ second
}

/// The CRCs of an old and a new byte string.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Twin {
    /// Of the old one.
    pub old: u32,
    /// Of the new one.
    pub new: u32,
}

impl Twin {
    /// Two strings that both are `bytes` so far.
    pub(crate) fn of(bytes: &[u8]) -> Twin {
        let crc = crc32c(bytes);
        Twin { old: crc, new: crc }
    }

    /// Appends `bytes` to both strings and to `out`.
    pub(crate) fn copy_shared(&mut self, bytes: &[u8], out: &mut Vec<u8>) {
        if self.old == self.new {
            self.copy_new(bytes, out);
            self.old = self.new;
        } else if bytes.len() < JOIN_BYTES_MIN {
            self.copy_new(bytes, out);
            self.skip_old(bytes);
        } else {
            let mut shared = Twin::default();
            shared.copy_new(bytes, out);
            let n = bytes.len() as u64;
            self.old = crc32c_joined(self.old, shared.new, n);
            self.new = crc32c_joined(self.new, shared.new, n);
        }
    }

    /// Appends `bytes` to the new string and to `out`.
    pub(crate) fn copy_new(&mut self, bytes: &[u8], out: &mut Vec<u8>) {
        for chunk in bytes.chunks(CHUNK_BYTES) {
            out.extend_from_slice(chunk);
            self.new = crc32c_appended(self.new, chunk);
        }
    }

    /// Appends `bytes` to the old string.
    pub(crate) fn skip_old(&mut self, bytes: &[u8]) {
        self.old = crc32c_appended(self.old, bytes);
    }

    /// The same with bytes whose CRC may be known.
    pub(crate) fn skip_known(&mut self, bytes: &[u8], known: Option<u32>) {
        self.old = append_known(self.old, bytes, known);
    }
}

/// [`crc32c_appended`], which does not read `bytes` if their own CRC is known and joining costs
/// less.
pub(crate) fn append_known(crc: u32, bytes: &[u8], known: Option<u32>) -> u32 {
    match known.filter(|_| bytes.len() >= JOIN_BYTES_MIN) {
        Some(known) => crc32c_joined(crc, known, bytes.len() as u64),
        None => crc32c_appended(crc, bytes),
    }
}

/// The CRC of a string whose CRC is `crc`, with `bytes` behind it.
pub fn crc32c_appended(crc: u32, bytes: &[u8]) -> u32 {
    let mut digest = Digest::new_with_init_state(CrcAlgorithm::Crc32Iscsi, u64::from(!crc));
    digest.update(bytes);
    let [a, b, c, d, ..] = digest.finalize().to_le_bytes();
    u32::from_le_bytes([a, b, c, d])
}

/// x to the power of `exponent`, modulo the polynomial.
fn power_of_x(exponent: u64) -> u32 {
    let mut power = ONE;
    let mut rest = exponent;
    for square in SQUARES {
        if rest & 1 == 1 {
            power = multiply(power, square);
        }
        rest >>= 1;
        if rest == 0 {
            break;
        }
    }
    power
}

/// `a * b` modulo the polynomial.
const fn multiply(a: u32, b: u32) -> u32 {
    let mut product = 0;
    let mut b = b;
    let mut bit = 32;
    while bit > 0 {
        bit -= 1;
        // all ones where the power is there: branches here cannot be foretold
        product ^= b & (a >> bit & 1).wrapping_neg();
        b = b >> 1 ^ POLYNOMIAL & (b & 1).wrapping_neg();
    }
    product
}

const fn squares() -> [u32; 64] {
    // x itself is the second highest bit
    let mut squares = [ONE >> 1; 64];
    let mut n = 1;
    while n < squares.len() {
        squares[n] = multiply(squares[n - 1], squares[n - 1]);
        n += 1;
    }
    squares
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_crc_is_castagnoli_s() {
        assert_eq!(crc32c(b"123456789"), 0xE306_9283);
        assert_eq!(crc32c_appended(crc32c(b"1234"), b"56789"), 0xE306_9283);
    }

    #[test]
    fn two_strings_that_share_parts_get_the_crcs_of_the_whole() {
        let bytes: Vec<u8> = (0..200_000u32).map(|i| i.wrapping_mul(31).to_be_bytes()[1]).collect();
        for shared in [0, 1, 100, JOIN_BYTES_MIN - 1, JOIN_BYTES_MIN, 99_999] {
            let (part, other) = bytes.split_at(shared);
            let mut twin = Twin::default();
            let (mut old, mut new) = (Vec::new(), Vec::new());
            for (old_only, new_only) in [(&b""[..], &b"n"[..]), (b"old", b""), (other, b"new")] {
                twin.copy_shared(part, &mut new);
                twin.skip_old(old_only);
                twin.copy_new(new_only, &mut new);
                old.extend_from_slice(&[part, old_only].concat());
            }
            twin.copy_shared(part, &mut new);
            old.extend_from_slice(part);
            assert_eq!(twin.old, crc32c(&old), "{shared}");
            assert_eq!(twin.new, crc32c(&new), "{shared}");
        }
    }
}
