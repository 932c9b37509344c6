//! TOML -> raw tables, key by key, so that one wrong key hides no other.

use serde::de::DeserializeOwned;
use toml::{Table, Value};

use super::parse::Problems;
use super::raw::File;
use super::words;
use crate::fault;

/// Reads a file. What cannot be read is told and left out.
pub(super) fn read(text: &str, p: &mut Problems) -> File {
    let tables: Table = match toml::from_str(text) {
        Ok(tables) => tables,
        Err(error) => {
            p.add("file", format!("is no TOML: {}", shown(text, &error)));
            return File::default();
        }
    };
    let mut good = Table::new();
    for (name, value) in tables {
        let sound = match value {
            // One line tells of it, however many keys are in it.
            unknown if !is_known(&name) => unknown,
            Value::Table(table) => Value::Table(sound(&name, &name, table, p)),
            Value::Array(items) => {
                let items = items.into_iter().enumerate().filter_map(|(n, item)| match item {
                    Value::Table(table) => {
                        let path = if name == "cluster" { name.clone() } else { indexed(&name, n) };
                        Some(Value::Table(sound(&name, &path, table, p)))
                    }
                    other => alone(&name, &name, other, p),
                });
                Value::Array(items.collect())
            }
            other => other,
        };
        if let Some(sound) = checked::<File>(&name, &name, sound, p) {
            good.insert(name, sound);
        }
    }
    good.try_into().unwrap_or_default()
}

/// What is wrong with the text of a file, with the line; not with a line that may hold a secret.
fn shown(text: &str, error: &toml::de::Error) -> String {
    let start = error.span().map_or(0, |span| span.start.min(text.len()));
    let before = text.get(..start).unwrap_or_default().matches('\n').count();
    let line = text.lines().nth(before).unwrap_or_default().to_ascii_lowercase();
    if line.contains('@') || ["password", "secret"].iter().any(|word| line.contains(word)) {
        return format!("TOML parse error at line {}: {}", before + 1, error.message().trim_end());
    }
    error.to_string().trim_end().to_owned()
}

fn indexed(name: &str, n: usize) -> String {
    format!("{name}[{n}]")
}

/// The keys of a table of the file that can be read by themselves.
fn sound(name: &str, path: &str, table: Table, p: &mut Problems) -> Table {
    let mut good = Table::new();
    for (key, value) in table {
        let mut one = Table::new();
        one.insert(key.clone(), value.clone());
        let one = if is_list(name) { Value::Array(vec![one.into()]) } else { one.into() };
        if checked::<File>(name, &format!("{path}.{key}"), one, p).is_some() {
            good.insert(key, value);
        }
    }
    good
}

fn alone(name: &str, path: &str, item: Value, p: &mut Problems) -> Option<Value> {
    checked::<File>(name, path, Value::Array(vec![item.clone()]), p).map(|_| item)
}

/// Tables that are written `[[NAME]]`.
fn is_list(name: &str) -> bool {
    ["cluster", "offload", "virtual_topic", "region", "throttle", "quota"].contains(&name)
}

/// Whether a file may have a key of this name.
fn is_known(name: &str) -> bool {
    let mut file = Table::new();
    file.insert(name.to_owned(), Value::Boolean(true));
    let read = file.try_into::<File>();
    read.err().is_none_or(|error| !error.message().starts_with("unknown field"))
}

/// The value, if the file with nothing else in it can be read.
fn checked<T: DeserializeOwned>(
    name: &str,
    path: &str,
    value: Value,
    p: &mut Problems,
) -> Option<Value> {
    let mut file = Table::new();
    file.insert(name.to_owned(), value.clone());
    match file.try_into::<T>() {
        Ok(_) => Some(value),
        Err(error) => {
            let said = masked(error.message().trim_end());
            p.add(path, words::plain(path, &said));
            None
        }
    }
}

/// A text without what stands between the first scheme in it and the last host: there may be
/// passwords.
fn masked(text: &str) -> String {
    match (text.split_once("://"), text.rsplit_once('@')) {
        (Some((scheme, _)), Some((before, host)))
            if scheme.len() < before.len() && !fault::on("secrets-shown") =>
        {
            format!("{scheme}://***@{host}")
        }
        _ => text.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_that_may_hold_a_secret_is_not_shown() {
        let told = |text: &str| {
            let mut problems = Problems(Vec::new());
            read(text, &mut problems);
            problems.0.iter().map(ToString::to_string).collect::<String>()
        };
        let sasl = "[[cluster]]\nsasl = { password = \"hunter2\" }\n";
        for text in [sasl, "[store]\nsecret_key = \"hunter2\"\n"] {
            assert!(!told(text).contains("hunter2"), "{}", told(text));
            assert!(told(text).contains("no key"), "{}", told(text));
        }
        let no_toml = told("[store]\nsecret_key = hunter2\n");
        assert!(!no_toml.contains("hunter2") && no_toml.contains("line 2"), "{no_toml}");
        assert!(told("[listen\nport = 9\n").contains("[listen"));
        let url = "redis://me:hunter2://hunter2@cache:1";
        for text in [format!("[store]\nredis = \"{url}\"\n"), format!("[store]\nredis = {url}\n")] {
            let told = told(&text);
            assert!(!told.is_empty() && !told.contains("hunter2"), "{told}");
        }
    }

    #[test]
    fn a_table_of_an_unknown_name_is_told_once() {
        let text = "[limit]\nidle_ms = 5\ndrain_ms = \"x\"\n[[clusters]]\nname = \"n\"\n";
        let mut problems = Problems(Vec::new());
        read(text, &mut problems);
        let told: Vec<String> = problems.0.iter().map(ToString::to_string).collect();
        assert_eq!(told.len(), 2, "{told:?}");
        for name in ["limit", "clusters"] {
            let start = format!("{name}: is no key; here are: listen");
            assert!(told.iter().any(|line| line.starts_with(&start)), "{told:?}");
        }
    }

    #[test]
    fn every_key_that_is_wrong_is_told_and_the_others_are_read() {
        let text = r#"
            colour = "red"
            [listen]
            bootstrp = "x"
            advertise = "a"
            ports = 7
            [[cluster]]
            name = "n"
            bootstrap = "a:1"
            [[offload]]
            topics = ["a"]
            [[offload]]
            topics = "b"
            [limits]
            idle_ms = "long"
            drain_ms = 5
        "#;
        let mut problems = Problems(Vec::new());
        let file = read(text, &mut problems);
        let keys: Vec<&str> = problems.0.iter().map(|problem| problem.key.as_str()).collect();
        let expected = [
            "cluster.bootstrap",
            "colour",
            "limits.idle_ms",
            "listen.bootstrp",
            "listen.ports",
            "offload[1].topics",
        ];
        let mut sorted = keys.clone();
        sorted.sort_unstable();
        assert_eq!(sorted, expected);
        let of = |key: &str| problems.0.iter().find(|problem| problem.key == key).expect("told");
        assert!(of("listen.bootstrp").text.contains("here are: bootstrap"));
        assert!(of("limits.idle_ms").text.contains("\"long\""), "{}", of("limits.idle_ms"));
        assert_eq!(file.listen.and_then(|listen| listen.advertise).as_deref(), Some("a"));
        assert_eq!(file.limits.and_then(|limits| limits.drain_ms), Some(5));
        assert_eq!((file.cluster.len(), file.offload.len()), (1, 2));
    }
}
