//! Strings of a JSON text, as written and as meant.

use std::borrow::Cow;

/// Whether a string, as it is written between its quotes, is this text.
pub(super) fn same(written: &[u8], text: &[u8]) -> bool {
    if written == text {
        return !written.contains(&b'\\');
    }
    // An escape is never shorter than what it stands for.
    written.len() > text.len() && written.contains(&b'\\') && same_unescaped(written, text)
}

fn same_unescaped(mut written: &[u8], mut text: &[u8]) -> bool {
    while let Some((first, rest)) = written.split_first() {
        let mut buffer = [0; 4];
        let (unescaped, rest): (&[u8], &[u8]) = match first {
            b'\\' => match unescape(rest) {
                Some((c, rest)) => (c.encode_utf8(&mut buffer).as_bytes(), rest),
                None => return false,
            },
            _ => (&written[..1], rest),
        };
        let Some(after) = text.strip_prefix(unescaped) else { return false };
        (written, text) = (rest, after);
    }
    text.is_empty()
}

/// The character of an escape, behind its backslash, and what follows.
fn unescape(text: &[u8]) -> Option<(char, &[u8])> {
    let (kind, rest) = text.split_first()?;
    let c = match kind {
        b'"' | b'\\' | b'/' => char::from(*kind),
        b'b' => '\u{8}',
        b'f' => '\u{c}',
        b'n' => '\n',
        b'r' => '\r',
        b't' => '\t',
        b'u' => {
            let (high, rest) = hex(rest)?;
            if !(0xD800..0xDC00).contains(&high) {
                return Some((char::from_u32(high)?, rest));
            }
            let (low, rest) = hex(rest.strip_prefix(b"\\u")?)?;
            if !(0xDC00..0xE000).contains(&low) {
                return None;
            }
            let c = 0x10000 + ((high - 0xD800) << 10) + (low - 0xDC00);
            return Some((char::from_u32(c)?, rest));
        }
        _ => return None,
    };
    Some((c, rest))
}

fn hex(text: &[u8]) -> Option<(u32, &[u8])> {
    let (digits, rest) = text.split_at_checked(4)?;
    let digit = |n: u32, byte: &u8| Some(n << 4 | char::from(*byte).to_digit(16)?);
    Some((digits.iter().try_fold(0, digit)?, rest))
}

/// A string as it is meant, for people and tests.
pub fn unescaped(written: &[u8]) -> Option<Cow<'_, str>> {
    let text = std::str::from_utf8(written).ok()?;
    let Some(first) = text.find('\\') else { return Some(Cow::Borrowed(text)) };
    let (mut out, mut rest) = (text[..first].to_owned(), &text[first..]);
    while let Some(escape) = rest.strip_prefix('\\') {
        let (c, behind) = unescape(escape.as_bytes())?;
        out.push(c);
        let behind = std::str::from_utf8(behind).ok()?;
        let next = behind.find('\\').unwrap_or(behind.len());
        out.push_str(&behind[..next]);
        rest = &behind[next..];
    }
    Some(Cow::Owned(out))
}
