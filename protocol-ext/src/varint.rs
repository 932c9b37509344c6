//! Variable-length integers of records (zigzag) and of flexible messages (unsigned).
//!
//! Flow: a reader takes the buffer and a cursor, gives the value and moves the cursor; a writer
//! appends to a `Vec`. One and two byte forms, nearly all there are, take the inlined path.
//! Invariant: the cursor never moves past the buffer, and a failed read leaves it where it was.

/// Longest encoding of a 32-bit value.
pub const VARINT_BYTES_MAX: usize = 5;
/// Longest encoding of a 64-bit value.
pub const VARLONG_BYTES_MAX: usize = 10;

/// Reads an unsigned varint. `None` if the buffer ends first or the value does not fit 32 bits.
#[inline(always)]
pub fn read_unsigned(buf: &[u8], pos: &mut usize) -> Option<u32> {
    let at = *pos;
    let first = *buf.get(at)?;
    if first < 0x80 {
        *pos = at + 1;
        return Some(u32::from(first));
    }
    let second = *buf.get(at + 1)?;
    if second < 0x80 {
        *pos = at + 2;
        return Some(u32::from(first & 0x7f) | u32::from(second) << 7);
    }
    let wide = read_long_form(buf, pos, VARINT_BYTES_MAX)?;
    u32::try_from(wide).ok().or_else(|| {
        *pos = at;
        None
    })
}

/// Reads a zigzag varint (a record's lengths and offset delta).
#[inline(always)]
pub fn read_varint(buf: &[u8], pos: &mut usize) -> Option<i32> {
    read_unsigned(buf, pos).map(unzigzag)
}

/// Reads a zigzag varlong (a record's timestamp delta).
#[inline(always)]
pub fn read_varlong(buf: &[u8], pos: &mut usize) -> Option<i64> {
    let at = *pos;
    let first = *buf.get(at)?;
    if first < 0x80 {
        *pos = at + 1;
        return Some(unzigzag_long(u64::from(first)));
    }
    read_long_form(buf, pos, VARLONG_BYTES_MAX).map(unzigzag_long)
}

/// Appends an unsigned varint.
#[inline]
pub fn write_unsigned(out: &mut Vec<u8>, value: u32) {
    write_unsigned_long(out, u64::from(value));
}

/// Appends a zigzag varint.
#[inline]
pub fn write_varint(out: &mut Vec<u8>, value: i32) {
    write_unsigned(out, zigzag(value));
}

/// Appends a zigzag varlong.
#[inline]
pub fn write_varlong(out: &mut Vec<u8>, value: i64) {
    write_unsigned_long(out, zigzag_long(value));
}

/// Bytes that [`write_unsigned`] takes for `value`.
#[inline]
pub fn unsigned_len(value: u32) -> usize {
    // 7 value bits a byte; zero takes one byte as well
    ((38 - (value | 1).leading_zeros()) / 7) as usize
}

/// Bytes that [`write_varint`] takes for `value`.
#[inline]
pub fn varint_len(value: i32) -> usize {
    unsigned_len(zigzag(value))
}

#[cold]
#[inline(never)]
fn read_long_form(buf: &[u8], pos: &mut usize, bytes_max: usize) -> Option<u64> {
    let mut value = 0u64;
    for (i, byte) in buf.get(*pos..)?.iter().take(bytes_max).enumerate() {
        let bits = u64::from(byte & 0x7f);
        if i == VARLONG_BYTES_MAX - 1 && bits > 1 {
            return None;
        }
        value |= bits << (7 * i);
        if byte & 0x80 == 0 {
            *pos += i + 1;
            return Some(value);
        }
    }
    None
}

#[inline]
fn write_unsigned_long(out: &mut Vec<u8>, value: u64) {
    let mut rest = value;
    while rest >= 0x80 {
        out.push((rest & 0x7f) as u8 | 0x80);
        rest >>= 7;
    }
    out.push((rest & 0x7f) as u8);
}

#[inline(always)]
fn zigzag(value: i32) -> u32 {
    (value << 1).cast_unsigned() ^ (value >> 31).cast_unsigned()
}

#[inline(always)]
fn zigzag_long(value: i64) -> u64 {
    (value << 1).cast_unsigned() ^ (value >> 63).cast_unsigned()
}

#[inline(always)]
fn unzigzag(value: u32) -> i32 {
    (value >> 1).cast_signed() ^ -(value & 1).cast_signed()
}

#[inline(always)]
fn unzigzag_long(value: u64) -> i64 {
    (value >> 1).cast_signed() ^ -(value & 1).cast_signed()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_edge_of_a_varint_survives_a_round_trip() {
        for value in [0, 1, -1, 63, 64, -64, -65, 8191, 8192, i32::MAX, i32::MIN] {
            let mut out = Vec::new();
            write_varint(&mut out, value);
            assert_eq!(out.len(), varint_len(value), "{value}");
            let mut pos = 0;
            assert_eq!(read_varint(&out, &mut pos), Some(value));
            assert_eq!(pos, out.len());
        }
    }

    #[test]
    fn every_edge_of_a_varlong_survives_a_round_trip() {
        for value in [0, 1, -1, 1 << 31, -(1 << 40), i64::MAX, i64::MIN] {
            let mut out = Vec::new();
            write_varlong(&mut out, value);
            let mut pos = 0;
            assert_eq!(read_varlong(&out, &mut pos), Some(value));
            assert_eq!(pos, out.len());
        }
    }

    #[test]
    fn a_cut_or_too_long_varint_is_refused_and_the_cursor_stays() {
        let too_wide = [0xff, 0xff, 0xff, 0xff, 0x1f];
        let endless = [0xff; 12];
        for bytes in [&[][..], &[0x80][..], &[0x80, 0x80][..], &too_wide[..], &endless[..]] {
            let mut pos = 0;
            assert_eq!(read_unsigned(bytes, &mut pos), None, "{bytes:?}");
            assert_eq!(pos, 0);
        }
        let mut pos = 0;
        assert_eq!(read_varlong(&endless, &mut pos), None);
        let mut pos = 9;
        assert_eq!(read_unsigned(&[1], &mut pos), None, "a cursor beyond the end");
    }

    #[test]
    fn a_longer_form_than_needed_is_read_as_kafka_reads_it() {
        let mut pos = 0;
        assert_eq!(read_unsigned(&[0x81, 0x80, 0x00], &mut pos), Some(1));
        assert_eq!(pos, 3);
    }
}
