//! What is wrong with a key, in the words of its user instead of those of the reader.

/// What the reader says of the value at `path`, as a user would say it.
pub(super) fn plain(path: &str, said: &str) -> String {
    if let Some(rest) = said.strip_prefix("unknown field `")
        && let Some((_, keys)) = rest.split_once("`, expected ")
    {
        let keys = keys.trim_start_matches("one of ").replace('`', "");
        return format!("is no key; here are: {keys}");
    }
    let wrong = said.strip_prefix("invalid type: ").or(said.strip_prefix("invalid value: "));
    let Some((got, due)) = wrong.and_then(|wrong| wrong.split_once(", expected ")) else {
        return said.to_owned();
    };
    if got == "map" && due == "a sequence" {
        return format!("is a table: write it as [[{path}]], with two brackets");
    }
    let (kind, shown) = got.split_once(' ').unwrap_or((got, ""));
    let got = match kind {
        "map" => "a table".to_owned(),
        "sequence" => "a list".to_owned(),
        "string" => format!("the text {shown}"),
        "integer" | "floating" => format!("the number {}", shown.trim_start_matches("point ")),
        _ => shown.to_owned(),
    };
    let whole = ["u8", "u16", "u32", "u64", "usize", "i16", "i32", "i64"].contains(&due);
    let due = match due {
        _ if whole => "a whole number",
        "a sequence" => "a list in brackets",
        "a string" | "string" | "path string" => "text in quotes",
        "a boolean" => "true or false",
        _ if due.starts_with("struct ") || due == "a map" => "a table",
        _ => due,
    };
    // Somebody wrote a unit, or quotes.
    let digit = shown.trim_start_matches('"').starts_with(|c: char| c.is_ascii_digit());
    let unit = match path.rsplit_once('_') {
        Some((_, "ms")) => " of milliseconds, without unit and quotes",
        Some((_, "s")) => " of seconds, without unit and quotes",
        Some((_, "bytes" | "max")) if path.contains("bytes") => {
            " of bytes, without unit and quotes"
        }
        _ => ", without unit and quotes",
    };
    let unit = if whole && kind == "string" && digit { unit } else { "" };
    format!("is {got}, expected {due}{unit}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_of_another_type_are_told_in_plain_words() {
        for (path, said, expected) in [
            (
                "cluster",
                "invalid type: map, expected a sequence",
                "is a table: write it as [[cluster]], with two brackets",
            ),
            (
                "limits.idle_ms",
                "invalid type: string \"10m\", expected u64",
                "is the text \"10m\", expected a whole number of milliseconds, without unit and \
                 quotes",
            ),
            (
                "offload[0].threshold_bytes",
                "invalid type: string \"100KB\", expected usize",
                "is the text \"100KB\", expected a whole number of bytes, without unit and quotes",
            ),
            (
                "listen.advertise",
                "invalid type: integer `5`, expected a string",
                "is the number `5`, expected text in quotes",
            ),
            (
                "limits.drain_ms",
                "invalid value: integer `-1`, expected u64",
                "is the number `-1`, expected a whole number",
            ),
            (
                "throttle",
                "unknown field `throttle`, expected one of `listen`, `admin`",
                "is no key; here are: listen, admin",
            ),
            ("x", "missing field `name`", "missing field `name`"),
        ] {
            assert_eq!(plain(path, said), expected);
        }
    }
}
