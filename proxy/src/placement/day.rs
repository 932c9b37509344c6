//! Days and the names of segments: `<topic>-<slot>-<YYYY-MM-DD>`, `.2` behind it for a second one.

use crate::clock::DAY_MS;

/// The UTC day of a time in Unix milliseconds, as `YYYY-MM-DD`.
pub fn day(unix_ms: u64) -> String {
    // Days from 1 March of the year 0, in which leap days end years (proleptic Gregorian).
    let days = unix_ms / DAY_MS + 719_468;
    let (era, of_era) = (days / 146_097, days % 146_097);
    let year_of_era = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let march_month = (5 * of_year + 2) / 153;
    let of_month = of_year - (153 * march_month + 2) / 5 + 1;
    let month = if march_month < 10 { march_month + 3 } else { march_month - 9 };
    let year = year_of_era + era * 400 + u64::from(month <= 2);
    format!("{year:04}-{month:02}-{of_month:02}")
}

/// The day in the name of a segment of `slot`, the part of the name before it.
pub fn day_of<'a>(slot: &str, segment: &'a str) -> Option<&'a str> {
    let end = segment.strip_prefix(slot)?.strip_prefix('-')?;
    Some(end.split_once('.').map_or(end, |(day, _)| day))
}

/// The first name of that day that is not taken.
pub fn next_name(slot: &str, day: &str, is_taken: impl Fn(&str) -> bool) -> String {
    let first = format!("{slot}-{day}");
    let later = (2..).map(|n: u32| format!("{first}.{n}"));
    let mut names = std::iter::once(first.clone()).chain(later);
    names.find(|name| !is_taken(name)).unwrap_or(first)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn days_are_those_of_the_calendar() {
        let days = [
            (0, "1970-01-01"),
            (DAY_MS - 1, "1970-01-01"),
            (951_782_400_000, "2000-02-29"),
            (951_868_800_000, "2000-03-01"),
            (1_735_689_599_999, "2024-12-31"),
            (1_735_689_600_000, "2025-01-01"),
            (4_107_542_400_000, "2100-03-01"),
        ];
        for (at, expected) in days {
            assert_eq!(day(at), expected);
        }
    }

    #[test]
    fn a_second_segment_of_a_day_has_a_number() {
        let taken = ["a-b-2025-01-05", "a-b-2025-01-05.2"];
        let name = next_name("a-b", "2025-01-05", |name| taken.contains(&name));
        assert_eq!(name, "a-b-2025-01-05.3");
        assert_eq!(day_of("a-b", &name), Some("2025-01-05"));
        assert_eq!(day_of("a", "b-2025-01-05"), None);
        assert_eq!(next_name("a-b", "2025-01-06", |_| false), "a-b-2025-01-06");
    }
}
