//! The house rules that a compiler does not check, read off the files.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use firebreak::error::ConnectionError;
use firebreak::metrics::{Class, Metrics, Side, StoreOp};
use firebreak::store::StoreError;

/// Lines of a file, tests apart.
const LINES_MAX: usize = 500;
/// The same for the file in the middle.
const LINES_MEDIAN_MAX: usize = 150;
/// Characters of a line.
const COLUMNS_MAX: usize = 100;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// Path from the top of the repository and text of every Rust file below some folders.
fn sources(folders: &[&str]) -> BTreeMap<String, String> {
    let mut found = BTreeMap::new();
    for folder in folders {
        collect(&root().join(folder), &mut found);
    }
    assert!(found.len() > 10, "only {} files below {folders:?}", found.len());
    found
}

fn collect(folder: &Path, found: &mut BTreeMap<String, String>) {
    for entry in std::fs::read_dir(folder).expect("a folder") {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            collect(&path, found);
        } else if path.extension().is_some_and(|kind| kind == "rs" || kind == "java") {
            let name = path.strip_prefix(root()).expect("below the top").display().to_string();
            found.insert(name, std::fs::read_to_string(&path).expect("a text"));
        }
    }
}

fn all() -> BTreeMap<String, String> {
    sources(&["proxy/src", "protocol-ext/src", "benches/src"])
}

/// The text in front of a file's tests.
fn without_tests(text: &str) -> &str {
    text.split_once("#[cfg(test)]\nmod ").map_or(text, |(code, _)| code)
}

/// The text in front of a file's tests, comments cut away.
fn code(text: &str) -> String {
    let lines = without_tests(text).lines();
    let lines = lines.map(|line| line.split_once("//").map_or(line, |(code, _)| code));
    lines.fold(String::new(), |mut out, line| {
        let _ = writeln!(out, "{line}");
        out
    })
}

/// Files below `within` whose code has one of `words` though they are not among `allowed`.
fn offenders(within: &str, words: &[&str], allowed: &[&str]) -> Vec<String> {
    let mut found = Vec::new();
    for (name, text) in all().iter().filter(|(name, _)| name.starts_with(within)) {
        if allowed.iter().any(|allowed| name.starts_with(&format!("{within}{allowed}"))) {
            continue;
        }
        let code = code(text);
        let used = words.iter().filter(|word| code.contains(**word));
        found.extend(used.map(|word| format!("{name} names {word}")));
    }
    found
}

fn none(found: &[String], rule: &str) {
    assert!(found.is_empty(), "{rule}:\n  {}", found.join("\n  "));
}

#[test]
fn files_are_short() {
    let sources = all();
    let lines = |text: &String| without_tests(text).lines().count();
    let long = sources.iter().filter(|(_, text)| lines(text) > LINES_MAX);
    let long: Vec<_> = long.map(|(name, text)| format!("{name}: {}", lines(text))).collect();
    none(&long, "files of more than 500 lines");
    let mut counts: Vec<usize> = sources.values().map(lines).collect();
    counts.sort_unstable();
    let median = counts[counts.len() / 2];
    assert!(median <= LINES_MEDIAN_MAX, "the median file has {median} lines");
}

#[test]
fn lines_are_at_most_100_columns() {
    let mut sources = all();
    sources.extend(sources_of_these_tests());
    let mut long = Vec::new();
    for (name, text) in &sources {
        for (n, line) in (1..).zip(text.lines()) {
            if line.chars().count() > COLUMNS_MAX {
                long.push(format!("{name}:{n}"));
            }
        }
    }
    none(&long, "lines of more than 100 columns");
}

fn sources_of_these_tests() -> BTreeMap<String, String> {
    sources(&["proxy/tests", "protocol-ext/tests/walk"])
}

#[test]
fn every_file_says_at_its_top_what_it_is() {
    let mute = all().into_iter().filter(|(_, text)| !text.starts_with("//! "));
    none(&mute.map(|(name, _)| name).collect::<Vec<_>>(), "files without a module doc");
}

#[test]
fn modules_stand_beside_their_folders() {
    let sources = all();
    let old = sources.keys().filter(|name| name.ends_with("/mod.rs")).cloned();
    none(&old.collect::<Vec<_>>(), "mod.rs files");
    let folders: BTreeSet<String> = sources
        .keys()
        .filter_map(|name| name.rsplit_once('/').map(|(folder, _)| folder.to_owned()))
        .filter(|folder| !folder.ends_with("/src") && !folder.ends_with("/bin"))
        .collect();
    // A binary of several files has its main.rs inside its folder.
    let alone = folders.into_iter().filter(|folder| {
        !sources.contains_key(&format!("{folder}.rs"))
            && !sources.contains_key(&format!("{folder}/main.rs"))
    });
    none(&alone.collect::<Vec<_>>(), "folders without a file beside them");
}

#[test]
fn the_protocol_knows_nothing_of_the_proxy_nor_of_sockets_and_time() {
    let words = ["tokio", "firebreak::", "std::net", "Instant", "SystemTime", "tracing::"];
    none(&offenders("protocol-ext/src/", &words, &[]), "protocol-ext is sans-I/O");
}

#[test]
fn filters_do_not_see_each_other_nor_connections() {
    let words = ["crate::connection", "crate::upstream", "crate::accept"];
    none(&offenders("proxy/src/filters/", &words, &[]), "filters see exchanges only");
    let sources = all();
    let filter = |name: &str| {
        let rest = name.strip_prefix("proxy/src/filters/")?;
        rest.split(['/', '.']).next().map(str::to_owned)
    };
    let filters: BTreeSet<String> = sources.keys().filter_map(|name| filter(name)).collect();
    let mut found = Vec::new();
    for (name, text) in &sources {
        let Some(own) = filter(name) else { continue };
        for other in filters.iter().filter(|other| **other != own) {
            if code(text).contains(&format!("filters::{other}")) {
                found.push(format!("{name} uses {other}"));
            }
        }
    }
    none(&found, "filters do not see each other");
}

#[test]
fn control_never_touches_a_connection_and_the_data_plane_never_calls_control() {
    let words = ["crate::connection", "crate::accept"];
    none(&offenders("proxy/src/control", &words, &[]), "control never touches a connection");
    let mut found = Vec::new();
    for part in ["connection", "filters", "route", "store", "upstream", "accept", "data_plane"] {
        found.extend(offenders(&format!("proxy/src/{part}"), &["crate::control"], &[]));
    }
    none(&found, "the data plane never calls control");
}

#[test]
fn names_of_stores_and_metric_crates_stay_in_their_modules() {
    let stores = ["aws_", "moka", "redis"];
    none(&offenders("proxy/src/", &stores, &["store", "config", "limits", "run"]), "stores");
    let metrics = ["prometheus_client", "opentelemetry"];
    none(&offenders("proxy/src/", &metrics, &["metrics", "telemetry.rs"]), "metric crates");
}

#[test]
fn sockets_clock_and_randomness_come_through_one_module_each() {
    let sockets = ["TcpStream::connect", "TcpListener::bind", "TcpSocket", "socket2", "UdpSocket"];
    none(&offenders("proxy/src/", &sockets, &["net"]), "only net.rs opens sockets");
    let clocks = ["Instant", "SystemTime", "UNIX_EPOCH"];
    none(&offenders("proxy/src/", &clocks, &["clock.rs"]), "only clock.rs reads a clock");
    let random = ["new_v4", "getrandom", "rand::", "fastrand", "/dev/urandom", "/dev/random"];
    none(&offenders("proxy/src/", &random, &["random.rs"]), "only random.rs draws");
}

#[test]
fn nothing_is_left_to_chance_that_a_simulation_cannot_seed() {
    let mut found = Vec::new();
    for (name, text) in all().iter().filter(|(name, _)| name.starts_with("proxy/src/")) {
        let packed: String = code(text).split_whitespace().collect();
        let choices = packed.split("select!{").skip(1);
        let biased = choices.filter(|choice| !choice.starts_with("biased;")).count();
        found.extend((biased > 0).then(|| format!("{name} has a select! that is not biased")));
    }
    none(&found, "what tokio draws has no seed");
}

#[test]
fn errors_are_types_and_only_main_may_give_up_on_them() {
    let words = ["anyhow", ".unwrap()", "panic!(", "unreachable!(", "todo!(", "unimplemented!("];
    none(&offenders("proxy/src/", &words, &["main.rs"]), "errors travel");
    none(&offenders("protocol-ext/src/", &words, &[]), "errors travel");
}

/// The names in `text` that follow `before` and end at a quote.
fn quoted(text: &str, before: &str) -> BTreeSet<String> {
    let rest = text.split(before).skip(1);
    rest.filter_map(|rest| rest.split('"').next()).map(str::to_owned).collect()
}

#[test]
fn every_fault_has_a_mutant_and_every_mutant_a_fault() {
    let mut faults = BTreeSet::new();
    for (name, text) in all().iter().filter(|(name, _)| name.starts_with("proxy/src/")) {
        faults.extend(quoted(&code(text), "fault::on(\""));
        // The faults of addresses and those of hidden topics are named in two tables.
        for kind in ["address", "hidden"].into_iter().filter(|_| name == "proxy/src/fault.rs") {
            let names = quoted(&code(text), &format!("\"{kind}-"));
            faults.extend(names.into_iter().map(|name| format!("{kind}-{name}")));
        }
    }
    let tests = sources(&["proxy/tests"]);
    let mut mutants = BTreeSet::new();
    for text in tests.values() {
        let packed: String = text.split_whitespace().collect();
        mutants.extend(quoted(&packed, "mutant!(\""));
    }
    let unseen: Vec<_> = faults.difference(&mutants).cloned().collect();
    none(&unseen, "faults that no mutant turns on");
    let dead: Vec<_> = mutants.difference(&faults).cloned().collect();
    none(&dead, "mutants without a fault");
    assert!(faults.len() >= 19, "{faults:?}");
}

/// Name, type and labels of a metric.
type Row = (String, String, BTreeSet<String>);

/// What the registry exports, once everything was counted once.
fn exported() -> BTreeSet<Row> {
    let metrics = Metrics::new();
    metrics.request(0, Class::Opaque);
    metrics.answered(0, Duration::from_millis(1));
    metrics.error(&ConnectionError::Unasked);
    metrics.paused(Side::Client, Duration::from_millis(1));
    metrics.health.store_failure(StoreOp::Put, &StoreError::Late);
    metrics.places.slots("topic", &["slot".to_owned()]).count(0, 1);
    let text = metrics.text();
    let types = text.lines().filter_map(|line| line.strip_prefix("# TYPE "));
    let types = types.filter_map(|line| line.split_once(' '));
    types
        .map(|(name, kind)| {
            let suffix = if kind == "counter" { "_total" } else { "" };
            let samples = text.lines().filter(|line| line.starts_with(name));
            let labels = samples.filter_map(|line| line.split_once('{')?.1.split_once('}'));
            let labels = labels.flat_map(|(labels, _)| labels.split(','));
            let labels = labels.filter_map(|label| Some(label.split_once('=')?.0.to_owned()));
            let labels = labels.filter(|label| label != "le").collect();
            (format!("{name}{suffix}"), kind.to_owned(), labels)
        })
        .collect()
}

fn documented(text: &str) -> BTreeSet<Row> {
    let rows = text.lines().filter(|line| line.starts_with("| `firebreak_"));
    rows.map(|row| {
        let cells: Vec<&str> = row.split('|').map(str::trim).collect();
        let labels = cells[3].split(',').map(|label| label.trim().trim_matches('`'));
        let labels = labels.filter(|label| !label.is_empty()).map(str::to_owned).collect();
        (cells[1].trim_matches('`').to_owned(), cells[2].to_owned(), labels)
    })
    .collect()
}

#[test]
fn the_table_of_metrics_is_what_the_registry_exports() {
    let text = std::fs::read_to_string(root().join("docs/metrics.md")).expect("the page");
    let (documented, exported) = (documented(&text), exported());
    let missing: Vec<_> = exported.difference(&documented).map(|r| format!("{r:?}")).collect();
    none(&missing, "metrics that docs/metrics.md does not have, or not so");
    let gone: Vec<_> = documented.difference(&exported).map(|r| format!("{r:?}")).collect();
    none(&gone, "metrics that docs/metrics.md has and the registry has not");
    let errors = std::fs::read_to_string(root().join("proxy/src/error.rs")).expect("the file");
    for kind in quoted(&code(&errors), "=> \"") {
        assert!(text.contains(&format!("| `{kind}` |")), "kind {kind} is not in docs/metrics.md");
    }
}
