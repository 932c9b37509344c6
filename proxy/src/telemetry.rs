//! Logs to stderr, and the limit on how many lines peers can cause.

use std::collections::BTreeMap;
use std::io::IsTerminal;

use parking_lot::Mutex;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::LevelFilter;

use crate::cli::LogFormat;
use crate::config::Problem;
use crate::{clock, fault};

/// Starts logging. `RUST_LOG` sets the level; `info` without it.
pub fn start(format: LogFormat) {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info"));
    let lines = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_target(false)
        .with_ansi(std::io::stderr().is_terminal());
    match format {
        LogFormat::Text => lines.init(),
        LogFormat::Json => lines.json().flatten_event(true).init(),
    }
}

/// What is wrong with `RUST_LOG`, if anything is.
pub fn problem() -> Option<Problem> {
    let text = std::env::var(EnvFilter::DEFAULT_ENV).ok()?;
    let why = wrong_filter(&text)?;
    let text = format!("\"{text}\" {why}: write LEVEL or TARGET=LEVEL, such as info or debug");
    Some(Problem { key: EnvFilter::DEFAULT_ENV.to_owned(), text })
}

/// Why a filter of lines would not do what its writer wants. A word by itself is a level: taken
/// for a target, a level that is misspelt would silence everything.
fn wrong_filter(text: &str) -> Option<String> {
    let words = text.split(',').map(str::trim).filter(|word| !word.is_empty());
    let mut alone = words.filter(|word| !word.contains(['=', '[', ']']));
    if let Some(word) = alone.find(|word| word.parse::<LevelFilter>().is_err()) {
        return Some(format!("has \"{word}\", which is no level"));
    }
    EnvFilter::builder().parse(text).err().map(|error| error.to_string())
}

/// Lines of one kind that may follow each other at once.
pub const LINES_AT_ONCE: u64 = 10;

/// How many lines peers can cause: of each kind a few at once, then one a second. What was left
/// out is counted, and told with the next line of its kind or by whoever asks.
#[derive(Debug, Default)]
pub struct LineLimits(Mutex<BTreeMap<&'static str, Kind>>);

#[derive(Debug)]
struct Kind {
    /// Lines that may be written, as of `second`.
    left: u64,
    second: u64,
    left_out: u64,
}

impl LineLimits {
    /// `Some` if another line of `kind` may be written now: how many were left out before it.
    pub fn allows(&self, kind: &'static str) -> Option<u64> {
        let second = clock::unix_ms() / 1000;
        let mut kinds = self.0.lock();
        let new = Kind { left: LINES_AT_ONCE, second, left_out: 0 };
        let kind = kinds.entry(kind).or_insert(new);
        let more = second.saturating_sub(kind.second);
        kind.left = (kind.left + more).min(LINES_AT_ONCE);
        kind.second = second.max(kind.second);
        if kind.left == 0 && !fault::on("lines-unlimited") {
            kind.left_out += 1;
            return None;
        }
        kind.left = kind.left.saturating_sub(1);
        Some(std::mem::take(&mut kind.left_out))
    }

    /// The kinds of which lines were left out since somebody was told, and how many.
    pub fn take_left_out(&self) -> Vec<(&'static str, u64)> {
        let mut kinds = self.0.lock();
        let taken =
            kinds.iter_mut().map(|(name, kind)| (*name, std::mem::take(&mut kind.left_out)));
        taken.filter(|(_, left_out)| *left_out > 0).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn filters_that_would_silence_everything_are_told() {
        for good in ["", "info", "DEBUG", "off", "warn,firebreak=debug", "firebreak::store=trace"] {
            assert_eq!(wrong_filter(good), None, "{good}");
        }
        for bad in ["inof", "firebreak", "info,verbose", "firebreak=loud", "a=b=c"] {
            assert!(wrong_filter(bad).is_some(), "{bad}");
        }
    }

    #[test]
    fn one_kind_does_not_use_up_the_lines_of_another_and_nothing_is_forgotten() {
        let limits = LineLimits::default();
        let said = (0..1000).filter(|_| limits.allows("a").is_some()).count();
        assert!((10..=12).contains(&said), "{said} lines of 1000");
        assert_eq!(limits.allows("b"), Some(0));
        let left_out = limits.take_left_out();
        assert_eq!(left_out, [("a", 1000 - said as u64)]);
        assert_eq!(limits.take_left_out(), []);
    }
}
