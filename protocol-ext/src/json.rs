//! Finds a few values in a JSON text by their pointers (RFC 6901), without a tree and without
//! memory of its own.
//!
//! Flow: one pass over the text; on each level the pointers whose path leads there are a set of
//! bits; what none leads into is skipped by its quotes and brackets. It ends early once every
//! pointer has its value.
//! Invariant: no allocation, no panic, no recursion deeper than the longest pointer; of keys that
//! are there twice the first one counts; the same bytes always give the same.

mod text;

use memchr::memchr2;

use text::same;
pub use text::unescaped;

/// Steps of a pointer, and levels within what is skipped.
pub const DEPTH_MAX: usize = 64;
/// Pointers that can be looked for at once.
pub const POINTERS_MAX: usize = 8;

/// A JSON pointer to something inside a text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pointer {
    steps: Vec<Step>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Step {
    key: Vec<u8>,
    index: Option<usize>,
}

/// Why a text is no pointer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum PointerError {
    /// It does not begin with a slash.
    #[error("a JSON pointer begins with \"/\"")]
    Start,
    /// A `~` is not followed by 0 or 1.
    #[error("\"~\" is written \"~0\" and \"/\" is written \"~1\" inside a JSON pointer")]
    Escape,
    /// It has more steps than texts have levels.
    #[error("a JSON pointer has at most {DEPTH_MAX} steps")]
    Steps,
}

impl Pointer {
    /// Reads a pointer such as `/position/latitude`.
    pub fn parse(text: &str) -> Result<Self, PointerError> {
        let steps = text.strip_prefix('/').ok_or(PointerError::Start)?;
        let steps: Vec<Step> = steps.split('/').map(Step::parse).collect::<Result<_, _>>()?;
        if steps.len() > DEPTH_MAX { Err(PointerError::Steps) } else { Ok(Self { steps }) }
    }
}

impl std::fmt::Display for Pointer {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        for step in &self.steps {
            let key = String::from_utf8_lossy(&step.key);
            write!(out, "/{}", key.replace('~', "~0").replace('/', "~1"))?;
        }
        Ok(())
    }
}

impl Step {
    fn parse(text: &str) -> Result<Self, PointerError> {
        let mut key = Vec::with_capacity(text.len());
        let mut bytes = text.bytes();
        while let Some(byte) = bytes.next() {
            key.push(match byte {
                b'~' => match bytes.next() {
                    Some(b'0') => b'~',
                    Some(b'1') => b'/',
                    _ => return Err(PointerError::Escape),
                },
                byte => byte,
            });
        }
        let plain =
            text == "0" || !text.starts_with('0') && text.bytes().all(|b| b.is_ascii_digit());
        Ok(Self { key, index: plain.then(|| text.parse().ok()).flatten() })
    }
}

/// A value that a pointer leads to.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Found<'a> {
    /// A number, as it is written.
    Number(&'a str),
    /// A string, as it is written between its quotes.
    Text(&'a [u8]),
    /// Anything else.
    Other,
}

impl Found<'_> {
    /// The number, if it is one and finite.
    pub fn number(&self) -> Option<f64> {
        let Found::Number(text) = self else { return None };
        text.parse().ok().filter(|number: &f64| number.is_finite())
    }

    /// Whether it is this string.
    pub fn is_text(&self, text: &[u8]) -> bool {
        matches!(self, Found::Text(written) if same(written, text))
    }
}

/// Why values cannot be found.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum JsonError {
    /// The text is no JSON, as far as it was read.
    #[error("no JSON at byte {at}")]
    Broken {
        /// Where it is broken.
        at: usize,
    },
    /// Too many levels.
    #[error("more than {DEPTH_MAX} levels")]
    Deep,
}

/// The values that pointers lead to, in their order; `None` where one leads nowhere. The text is
/// read only until all are found, and what lies beside them is not checked for more than its
/// quotes and brackets. More than `POINTERS_MAX` pointers find nothing.
pub fn find<'a, const N: usize>(
    text: &'a [u8],
    pointers: [&Pointer; N],
) -> Result<[Option<Found<'a>>; N], JsonError> {
    let mut scan = Scan { text, at: 0, pointers, found: [None; N], left: N };
    let all = if N >= POINTERS_MAX { u8::MAX } else { (1 << N) - 1 };
    scan.value(0, all)?;
    if scan.left > 0 {
        scan.space();
        if scan.at < text.len() {
            return Err(scan.broken());
        }
    }
    Ok(scan.found)
}

struct Scan<'a, 'p, const N: usize> {
    text: &'a [u8],
    at: usize,
    pointers: [&'p Pointer; N],
    found: [Option<Found<'a>>; N],
    /// Pointers without a value.
    left: usize,
}

impl<'a, const N: usize> Scan<'a, '_, N> {
    fn broken(&self) -> JsonError {
        JsonError::Broken { at: self.at }
    }

    fn peek(&self) -> Option<u8> {
        self.text.get(self.at).copied()
    }

    fn space(&mut self) {
        while let Some(b' ' | b'\n' | b'\r' | b'\t') = self.peek() {
            self.at += 1;
        }
    }

    /// Reads a value to which the pointers of `active` lead with `depth` steps, of which some may
    /// end here.
    fn value(&mut self, depth: usize, active: u8) -> Result<(), JsonError> {
        self.space();
        let here = self.those(active, |pointer| pointer.steps.len() == depth);
        let deeper = active & !here;
        match self.peek().ok_or(self.broken())? {
            b'{' | b'[' if deeper == 0 => {
                self.take(here, Found::Other);
                if self.left > 0 { self.skip_container() } else { Ok(()) }
            }
            b'{' => {
                self.take(here, Found::Other);
                self.object(depth, deeper)
            }
            b'[' => {
                self.take(here, Found::Other);
                self.array(depth, deeper)
            }
            b'"' => {
                let text = self.string()?;
                self.take(here, Found::Text(text));
                Ok(())
            }
            _ if here == 0 => self.skip(),
            b'-' | b'0'..=b'9' => {
                let number = self.number()?;
                self.take(here, Found::Number(number));
                Ok(())
            }
            _ => {
                self.word()?;
                self.take(here, Found::Other);
                Ok(())
            }
        }
    }

    fn object(&mut self, depth: usize, mut active: u8) -> Result<(), JsonError> {
        self.at += 1;
        self.space();
        if self.peek() == Some(b'}') {
            self.at += 1;
            return Ok(());
        }
        loop {
            self.space();
            if self.peek() != Some(b'"') {
                return Err(self.broken());
            }
            let key = self.string()?;
            self.space();
            self.expect(b':')?;
            let led = self.those(active, |pointer| same(key, &pointer.steps[depth].key));
            // A key that comes again is another one.
            active &= !led;
            match led {
                0 => self.skip()?,
                led => self.value(depth + 1, led)?,
            }
            if self.left == 0 || self.ends(b'}')? {
                return Ok(());
            }
        }
    }

    fn array(&mut self, depth: usize, active: u8) -> Result<(), JsonError> {
        self.at += 1;
        self.space();
        if self.peek() == Some(b']') {
            self.at += 1;
            return Ok(());
        }
        for index in 0.. {
            match self.those(active, |pointer| pointer.steps[depth].index == Some(index)) {
                0 => self.skip()?,
                led => self.value(depth + 1, led)?,
            }
            if self.left == 0 || self.ends(b']')? {
                break;
            }
        }
        Ok(())
    }

    /// Whether the list ends here; else another item follows.
    fn ends(&mut self, end: u8) -> Result<bool, JsonError> {
        self.space();
        let next = self.peek();
        if next != Some(end) && next != Some(b',') {
            return Err(self.broken());
        }
        self.at += 1;
        Ok(next == Some(end))
    }

    fn expect(&mut self, byte: u8) -> Result<(), JsonError> {
        if self.peek() != Some(byte) {
            return Err(self.broken());
        }
        self.at += 1;
        Ok(())
    }

    fn those(&self, active: u8, is: impl Fn(&Pointer) -> bool) -> u8 {
        let mut bits = 0;
        for (n, pointer) in self.pointers.iter().enumerate().take(POINTERS_MAX) {
            if active & (1 << n) != 0 && is(pointer) {
                bits |= 1 << n;
            }
        }
        bits
    }

    fn take(&mut self, here: u8, found: Found<'a>) {
        for n in 0..N.min(POINTERS_MAX) {
            if here & (1 << n) != 0 {
                self.found[n] = Some(found);
                self.left -= 1;
            }
        }
    }

    /// What is between the quotes of a string.
    fn string(&mut self) -> Result<&'a [u8], JsonError> {
        let from = self.at + 1;
        let mut at = from;
        loop {
            let rest = self.text.get(at..).unwrap_or_default();
            let Some(found) = quote(rest) else {
                self.at = self.text.len();
                return Err(self.broken());
            };
            at += found;
            if self.text[at] == b'"' {
                self.at = at + 1;
                return Ok(&self.text[from..at]);
            }
            // What is escaped ends nothing.
            at += 2;
        }
    }

    /// A number: `-`, digits without a leading zero, a fraction, an exponent.
    fn number(&mut self) -> Result<&'a str, JsonError> {
        let from = self.at;
        if self.peek() == Some(b'-') {
            self.at += 1;
        }
        match self.peek() {
            Some(b'0') => self.at += 1,
            Some(b'1'..=b'9') => self.digits()?,
            _ => return Err(self.broken()),
        }
        if self.peek() == Some(b'.') {
            self.at += 1;
            self.digits()?;
        }
        if let Some(b'e' | b'E') = self.peek() {
            self.at += 1;
            if let Some(b'+' | b'-') = self.peek() {
                self.at += 1;
            }
            self.digits()?;
        }
        match self.peek() {
            Some(b' ' | b'\n' | b'\r' | b'\t' | b',' | b'}' | b']') => {}
            // Where it is cut, digits may be missing.
            _ => return Err(self.broken()),
        }
        std::str::from_utf8(&self.text[from..self.at]).map_err(|_| self.broken())
    }

    fn digits(&mut self) -> Result<(), JsonError> {
        let from = self.at;
        while self.peek().is_some_and(|byte| byte.is_ascii_digit()) {
            self.at += 1;
        }
        if self.at > from { Ok(()) } else { Err(self.broken()) }
    }

    fn word(&mut self) -> Result<(), JsonError> {
        let rest = &self.text[self.at..];
        let words: [&[u8]; 3] = [b"true", b"false", b"null"];
        let word = words.into_iter().find(|word| rest.starts_with(word));
        self.at += word.ok_or(self.broken())?.len();
        Ok(())
    }

    /// Passes a value that nobody looks into.
    fn skip(&mut self) -> Result<(), JsonError> {
        self.space();
        match self.peek() {
            Some(b'{' | b'[') => self.skip_container(),
            Some(b'"') => self.string().map(drop),
            Some(b'-' | b'0'..=b'9') => {
                self.at += 1;
                while let Some(b'0'..=b'9' | b'.' | b'e' | b'E' | b'+' | b'-') = self.peek() {
                    self.at += 1;
                }
                Ok(())
            }
            _ => self.word(),
        }
    }

    /// Passes an object or array by its brackets, which must fit each other.
    fn skip_container(&mut self) -> Result<(), JsonError> {
        // One bit a level: whether it is an object.
        let (mut kinds, mut depth) = (0u64, 0u32);
        loop {
            let rest = self.text.get(self.at..).unwrap_or_default();
            let next = rest.iter().position(|byte| BRACKETS[usize::from(*byte)]);
            let Some(next) = next else {
                self.at = self.text.len();
                return Err(self.broken());
            };
            self.at += next;
            match self.text[self.at] {
                b'"' => {
                    self.string()?;
                    continue;
                }
                open @ (b'{' | b'[') => {
                    if depth == u64::BITS {
                        return Err(JsonError::Deep);
                    }
                    kinds = kinds << 1 | u64::from(open == b'{');
                    depth += 1;
                }
                close => {
                    if kinds & 1 != u64::from(close == b'}') {
                        return Err(self.broken());
                    }
                    kinds >>= 1;
                    depth -= 1;
                }
            }
            self.at += 1;
            if depth == 0 {
                return Ok(());
            }
        }
    }
}

/// Bytes that matter where a container is skipped.
const BRACKETS: [bool; 256] = {
    let mut table = [false; 256];
    table[b'"' as usize] = true;
    table[b'{' as usize] = true;
    table[b'}' as usize] = true;
    table[b'[' as usize] = true;
    table[b']' as usize] = true;
    table
};

/// Where the next quote or backslash is. Most strings are short.
fn quote(text: &[u8]) -> Option<usize> {
    let short = &text[..text.len().min(SHORT_BYTES)];
    let near = short.iter().position(|byte| matches!(byte, b'"' | b'\\'));
    near.or_else(|| {
        let far = memchr2(b'"', b'\\', text.get(SHORT_BYTES..)?)?;
        Some(SHORT_BYTES + far)
    })
}

/// Up to here a loop is faster than a call.
const SHORT_BYTES: usize = 16;
