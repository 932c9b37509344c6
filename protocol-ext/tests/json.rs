//! Values found by JSON pointers, against a parser that builds a tree.
#![cfg(test)]

use std::alloc::System;

use proptest::prelude::*;
use protocol_ext::json::{Found, JsonError, Pointer, PointerError, find, unescaped};
use serde_json::{Map, Value};
use stats_alloc::{INSTRUMENTED_SYSTEM, Region, StatsAlloc};

#[global_allocator]
static ALLOCATOR: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

fn pointer(text: &str) -> Pointer {
    Pointer::parse(text).expect("a pointer")
}

fn one<'a>(text: &'a str, at: &str) -> Result<Option<Found<'a>>, JsonError> {
    find(text.as_bytes(), [&pointer(at)]).map(|[found]| found)
}

#[test]
fn values_are_found_on_any_level() {
    let text =
        r#" { "a" : 1 , "b" : { "c" : [ 10 , { "d" : "x\"y" } , -2.5e-3 ] } , "e" : true } "#;
    assert_eq!(one(text, "/a"), Ok(Some(Found::Number("1"))));
    assert_eq!(one(text, "/b/c/0"), Ok(Some(Found::Number("10"))));
    assert_eq!(one(text, "/b/c/1/d"), Ok(Some(Found::Text(br#"x\"y"#))));
    assert_eq!(one(text, "/b/c/2").map(|f| f.and_then(|f| f.number())), Ok(Some(-0.0025)));
    assert_eq!(one(text, "/b"), Ok(Some(Found::Other)));
    assert_eq!(one(text, "/e"), Ok(Some(Found::Other)));
    for nowhere in ["/x", "/a/b", "/b/c/3", "/b/c/00", "/b/c/-", "/b/c/1/d/0", "/"] {
        assert_eq!(one(text, nowhere), Ok(None), "{nowhere}");
    }
    let all = ["/e", "/b/c/2", "/a", "/b"].map(pointer);
    let found = find(text.as_bytes(), [&all[0], &all[1], &all[2], &all[3]]).expect("JSON");
    assert!(found.iter().all(Option::is_some), "{found:?}");
}

#[test]
fn the_first_of_two_keys_counts() {
    assert_eq!(one(r#"{"a":1,"a":2}"#, "/a"), Ok(Some(Found::Number("1"))));
    assert_eq!(one(r#"{"a":{},"a":{"b":2}}"#, "/a/b"), Ok(None));
    assert_eq!(one(r#"{"a":{"b":1,"b":2}}"#, "/a/b"), Ok(Some(Found::Number("1"))));
}

#[test]
fn keys_are_compared_as_they_are_meant() {
    let text = r#"{"\u006cat":1,"a\/b":2,"\ud83d\udd25":3,"q\"":4,"~":5,"":6,"\u00e9":7}"#;
    let keys = ["/lat", "/a~1b", "/🔥", "/q\"", "/~0", "/", "/é"];
    for (n, at) in (1..).zip(keys) {
        let found = one(text, at).map(|found| found.and_then(|found| found.number()));
        assert_eq!(found, Ok(Some(f64::from(n))), "{at}");
    }
    assert_eq!(one(r#"{"\ud83d":1}"#, "/\u{fffd}"), Ok(None), "half a character is none");
}

#[test]
fn what_is_no_pointer_is_told() {
    assert_eq!(Pointer::parse("a"), Err(PointerError::Start));
    assert_eq!(Pointer::parse(""), Err(PointerError::Start));
    assert_eq!(Pointer::parse("/a~2"), Err(PointerError::Escape));
    assert_eq!(Pointer::parse(&"/a".repeat(65)), Err(PointerError::Steps));
    assert_eq!(pointer("/a~1b/~0/0").to_string(), "/a~1b/~0/0");
}

#[test]
fn broken_texts_are_refused_and_deep_ones_too() {
    let broken = [
        "",
        " ",
        "{",
        "{\"a\"",
        "{\"a\":",
        "{\"a\":1",
        "{\"a\":01}",
        "{\"a\":1.}",
        "{\"a\":.5}",
        "{\"a\":+1}",
        "{\"a\":1e}",
        "{\"a\":-}",
        "{a:1}",
        "{\"b\":[1,2}}",
        "{\"b\":{]}",
        "{\"b\":\"x}",
        "{\"b\":\"x\\\"}",
        "[1 2]",
        "{\"b\":tru}",
        "{} {}",
        "{\"b\":1}x",
        "nul",
        "{\"b\":1 \"a\":2}",
        "{,}",
    ];
    for text in broken {
        assert!(matches!(one(text, "/a"), Err(JsonError::Broken { .. })), "{text:?}");
    }
    let deep = |n: usize| format!("{{\"b\":{}{}}}", "[".repeat(n), "]".repeat(n));
    assert_eq!(one(&deep(60), "/a"), Ok(None));
    assert_eq!(one(&deep(100_000), "/a"), Err(JsonError::Deep));
    let levels = "{\"a\":".repeat(100_000);
    let steps = pointer(&"/a".repeat(64));
    assert_eq!(find(levels.as_bytes(), [&steps]), Ok([Some(Found::Other)]));
    // What lies behind the last one is not read.
    assert_eq!(one("{\"a\":1, what?", "/a"), Ok(Some(Found::Number("1"))));
}

#[test]
fn nothing_is_allocated() {
    let text =
        format!(r#"{{"x":[{}],"a\u0062":{{"c":"d"}},"n":-1.5e3}}"#, "[{}],".repeat(99) + "1");
    let pointers = [pointer("/ab/c"), pointer("/n"), pointer("/none")];
    // Other tests run beside this one and allocate: the least of many tries is its own.
    let tries = (0..1000).map(|_| {
        let region = Region::new(ALLOCATOR);
        let found = find(text.as_bytes(), [&pointers[0], &pointers[1], &pointers[2]]);
        (region.change().allocations, found)
    });
    let (least, found) = tries.min_by_key(|(allocations, _)| *allocations).expect("tries");
    let [c, n, none] = found.expect("JSON");
    let number = n.and_then(|n| n.number());
    let is_text = c.is_some_and(|c| c.is_text(b"d"));
    assert_eq!(least, 0, "allocations");
    assert!(is_text && number == Some(-1500.0) && none.is_none());
}

fn key() -> impl Strategy<Value = String> {
    prop_oneof!["[ab0-2/~\"\\\\\u{e9}\u{1F525}]{0,3}", "latitude|longitude"]
}

fn tree() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<f64>().prop_filter("finite", |n| n.is_finite()).prop_map(Value::from),
        "[ -~\u{e9}\u{1F525}\n\t]{0,30}".prop_map(Value::from),
    ];
    leaf.prop_recursive(5, 60, 6, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..5).prop_map(Value::from),
            prop::collection::vec((key(), inner), 0..6)
                .prop_map(|pairs| Value::from(pairs.into_iter().collect::<Map<_, _>>())),
        ]
    })
}

/// All pointers into a tree.
fn pointers(tree: &Value, at: &str, out: &mut Vec<String>) {
    let mut step = |name: &str, value: &Value| {
        let at = format!("{at}/{}", name.replace('~', "~0").replace('/', "~1"));
        out.push(at.clone());
        pointers(value, &at, out);
    };
    match tree {
        Value::Object(map) => map.iter().for_each(|(key, value)| step(key, value)),
        Value::Array(items) => {
            (0..).zip(items).for_each(|(n, v): (usize, _)| step(&n.to_string(), v))
        }
        _ => {}
    }
}

fn agrees(found: Option<Found<'_>>, value: Option<&Value>) -> bool {
    match (found, value) {
        (None, None) => true,
        (Some(Found::Number(text)), Some(Value::Number(number))) => *text == number.to_string(),
        (Some(text @ Found::Text(written)), Some(Value::String(value))) => {
            text.is_text(value.as_bytes()) && unescaped(written).as_deref() == Some(value)
        }
        (Some(Found::Other), Some(Value::Null | Value::Bool(_))) => true,
        (Some(Found::Other), Some(Value::Array(_) | Value::Object(_))) => true,
        _ => false,
    }
}

/// Writes every character of strings as an escape where `escape` says so.
fn escaped(text: &str, escape: bool) -> String {
    if !escape {
        return text.to_owned();
    }
    let mut out = String::new();
    let (mut inside, mut after) = (false, false);
    for c in text.chars() {
        let plain = inside && !after && c != '"' && c != '\\' && c.is_alphanumeric();
        if plain {
            for unit in c.encode_utf16(&mut [0; 2]) {
                out.push_str(&format!("\\u{unit:04x}"));
            }
        } else {
            out.push(c);
        }
        match (after, c) {
            (true, _) => after = false,
            (false, '\\') if inside => after = true,
            (false, '"') => inside = !inside,
            (false, _) => {}
        }
    }
    out
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1000))]

    /// What is found is what a tree has there, however the text is written; cut anywhere, a text is
    /// broken or says the same.
    #[test]
    fn what_is_found_is_what_a_tree_has(
        tree in tree(), pretty: bool, escape: bool, picks in prop::collection::vec(any::<prop::sample::Index>(), 3),
        other in key(), cut in any::<prop::sample::Index>(),
    ) {
        let text = if pretty { serde_json::to_string_pretty(&tree) } else { serde_json::to_string(&tree) };
        let text = escaped(&text.expect("JSON"), escape);
        prop_assert!(serde_json::from_str::<Value>(&text).is_ok(), "{text} is no JSON any more");
        let mut all = vec![format!("/{}", other.replace('~', "~0").replace('/', "~1"))];
        pointers(&tree, "", &mut all);
        let asked: Vec<&String> = picks.iter().map(|pick| pick.get(&all)).collect();
        let parsed: Vec<Pointer> = asked.iter().map(|at| pointer(at)).collect();
        let pointers = [&parsed[0], &parsed[1], &parsed[2]];
        let found = find(text.as_bytes(), pointers).expect("JSON");
        for (at, found) in asked.iter().zip(found) {
            prop_assert!(agrees(found, tree.pointer(at)), "{} in {}: {:?}", at, text, found);
        }
        if tree.is_object() || tree.is_array() {
            let cut = cut.index(text.len());
            if let Ok(of_cut) = find(&text.as_bytes()[..cut], pointers) {
                prop_assert_eq!(of_cut, found, "cut at {}", cut);
            }
        }
    }

    /// No bytes make it panic.
    #[test]
    fn no_bytes_make_it_panic(bytes in prop::collection::vec(
        prop_oneof![any::<u8>(), prop::sample::select(b"{}[]\",:\\u0123ae.-+ tfn".to_vec())], 0..200,
    )) {
        let pointers = ["/a", "/a/0", "/"].map(pointer);
        let found = find(&bytes, [&pointers[0], &pointers[1], &pointers[2]]);
        prop_assert_eq!(found, find(&bytes, [&pointers[0], &pointers[1], &pointers[2]]));
    }
}
