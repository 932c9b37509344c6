//! The figures of a run, their bars, a table for people and JSON for everything else.

use std::fmt;
use std::fmt::Write;
use std::time::Duration;

use serde_json::{Map, Value, json};

/// What a figure must be.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Bar {
    /// Told, not judged.
    None,
    /// More than nothing.
    Positive,
    /// Nothing.
    Zero,
    /// That much or less.
    AtMost(f64),
    /// Between both.
    Within(f64, f64),
}

impl Bar {
    fn holds(self, value: f64) -> bool {
        match self {
            Self::None => true,
            Self::Positive => value > 0.0,
            Self::Zero => value == 0.0,
            Self::AtMost(most) => value <= most,
            Self::Within(least, most) => (least..=most).contains(&value),
        }
    }
}

impl fmt::Display for Bar {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::None => Ok(()),
            Self::Positive => write!(out, "> 0"),
            Self::Zero => write!(out, "0"),
            Self::AtMost(most) => write!(out, "<= {most}"),
            Self::Within(least, most) => write!(out, "{least} to {most}"),
        }
    }
}

struct Row {
    key: &'static str,
    name: &'static str,
    value: f64,
    decimals: usize,
    bar: Bar,
}

/// Figures in the order in which they are shown.
#[derive(Default)]
pub struct Report {
    rows: Vec<Row>,
    /// What was found wrong, in words.
    pub examples: Vec<String>,
}

impl Report {
    /// A count.
    pub fn count(&mut self, key: &'static str, name: &'static str, value: u64, bar: Bar) {
        #[expect(clippy::cast_precision_loss, reason = "counts of a run have fewer than 52 bits")]
        let value = value as f64;
        self.rows.push(Row { key, name, value, decimals: 0, bar });
    }

    /// A time, in seconds.
    pub fn time(&mut self, key: &'static str, name: &'static str, value: Duration, bar: Bar) {
        self.rows.push(Row { key, name, value: value.as_secs_f64(), decimals: 3, bar });
    }

    /// `part` of `all`, in percent.
    pub fn share(&mut self, key: &'static str, name: &'static str, of: (u64, u64), bar: Bar) {
        #[expect(clippy::cast_precision_loss, reason = "counts of a run have fewer than 52 bits")]
        let value = 100.0 * of.0 as f64 / of.1.max(1) as f64;
        self.rows.push(Row { key, name, value, decimals: 2, bar });
    }

    /// Whether every bar holds.
    pub fn passed(&self) -> bool {
        self.rows.iter().all(|row| row.bar.holds(row.value))
    }

    /// One line per figure, then what was found wrong.
    pub fn table(&self) -> String {
        let mut text = format!("  {:<46}{:>12}  {:<12}met\n", "", "value", "must be");
        for Row { name, value, decimals, bar, .. } in &self.rows {
            let met = match bar {
                Bar::None => "",
                _ if bar.holds(*value) => "yes",
                _ => "NO",
            };
            let bar = bar.to_string();
            let line = format!("  {name:<46}{value:>12.decimals$}  {bar:<12}{met}");
            // Writing to a string does not fail.
            let _ = writeln!(text, "{}", line.trim_end());
        }
        for example in &self.examples {
            let _ = writeln!(text, "  {example}");
        }
        text
    }

    /// All figures, and those whose bar does not hold.
    pub fn json(&self) -> Value {
        let figures: Map<String, Value> =
            self.rows.iter().map(|row| (row.key.to_owned(), json!(row.value))).collect();
        let missed: Vec<&str> =
            self.rows.iter().filter(|row| !row.bar.holds(row.value)).map(|row| row.key).collect();
        json!({
            "passed": self.passed(),
            "missed": missed,
            "figures": figures,
            "examples": self.examples,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_report_passes_only_if_every_bar_holds() {
        for (bar, good, bad) in [
            (Bar::Positive, 1, 0),
            (Bar::Zero, 0, 1),
            (Bar::AtMost(2.0), 2, 3),
            (Bar::Within(8.0, 12.0), 8, 13),
        ] {
            let mut report = Report::default();
            report.count("told", "told", 7, Bar::None);
            report.count("good", "good", good, bar);
            assert!(report.passed(), "{bar:?}");
            report.count("bad", "bad", bad, bar);
            assert!(!report.passed(), "{bar:?}");
            assert_eq!(report.json()["missed"], json!(["bad"]));
            assert!(report.table().contains("NO"));
        }
    }
}
