//! What is wrong with a key, in the words of its user instead of those of the reader.

/// What the reader says of the value at `path`, or of one in it, as a user would say it. A text in
/// the place of a table is not shown: it may hold a password.
pub(super) fn plain(path: &str, said: &str) -> String {
    if let Some(rest) = said.strip_prefix("unknown field `")
        && let Some((key, keys)) = rest.split_once("`, expected ")
    {
        let keys = keys.trim_start_matches("one of ").replace('`', "");
        let keys: Vec<&str> = keys.split(", ").filter(|key| !is_refused(path, key)).collect();
        let keys = keys.join(", ");
        return match path.rsplit('.').next() == Some(key) {
            true => format!("is no key; here are: {keys}"),
            false => format!("has no key {key}; here are: {keys}"),
        };
    }
    let wrong = said.strip_prefix("invalid type: ").or(said.strip_prefix("invalid value: "));
    let Some((got, due)) = wrong.and_then(|wrong| wrong.split_once(", expected ")) else {
        return said.to_owned();
    };
    if got == "map" && due == "a sequence" && path == "cluster" {
        return format!("is one table: write [[{path}]], with two brackets");
    }
    let table = due.starts_with("struct ") || due == "a map";
    let (kind, shown) = got.split_once(' ').unwrap_or((got, ""));
    let got = match kind {
        "map" => "a table".to_owned(),
        "sequence" => "a list".to_owned(),
        "string" if table => "a text".to_owned(),
        "string" => format!("the text {shown}"),
        "integer" | "floating" => format!("the number {}", shown.trim_start_matches("point ")),
        _ => shown.to_owned(),
    };
    let whole = ["u8", "u16", "u32", "u64", "usize", "i16", "i32", "i64"].contains(&due);
    let due = match due {
        _ if whole => "a whole number",
        _ if table => "a table",
        "a sequence" => "a list in brackets",
        "a string" | "string" | "path string" => "text in quotes",
        "a boolean" => "true or false",
        _ => due,
    };
    // Somebody wrote a unit, or quotes.
    let digit = shown.trim_start_matches('"').starts_with(|c: char| c.is_ascii_digit());
    let unit = match path.rsplit('_').next() {
        Some("ms") => " of milliseconds, without unit and quotes",
        Some("s") => " of seconds, without unit and quotes",
        _ if path.contains("bytes") => " of bytes, without unit and quotes",
        _ => ", without unit and quotes",
    };
    let unit = if whole && kind == "string" && digit { unit } else { "" };
    format!("holds {got} where {due}{unit} is due")
}

/// Keys that are read only to be refused with a reason: no hint names them.
fn is_refused(path: &str, key: &str) -> bool {
    match key {
        "throttle" | "quota" | "listener" => true,
        "ca" => path == "listen.tls",
        "client_ca" => path == "cluster.tls",
        _ => false,
    }
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
                "is one table: write [[cluster]], with two brackets",
            ),
            (
                "listen.proxy_protocol_from",
                "invalid type: map, expected a sequence",
                "holds a table where a list in brackets is due",
            ),
            (
                "limits.idle_ms",
                "invalid type: string \"10m\", expected u64",
                "holds the text \"10m\" where a whole number of milliseconds, without unit and \
                 quotes is due",
            ),
            (
                "offload[0].threshold_bytes",
                "invalid type: string \"100KB\", expected usize",
                "holds the text \"100KB\" where a whole number of bytes, without unit and quotes \
                 is due",
            ),
            (
                "listen.tls",
                "invalid type: integer `5`, expected a string",
                "holds the number `5` where text in quotes is due",
            ),
            (
                "cluster.sasl",
                "invalid type: string \"me:hunter2\", expected struct Sasl",
                "holds a text where a table is due",
            ),
            ("x", "missing field `name`", "missing field `name`"),
        ] {
            assert_eq!(plain(path, said), expected);
        }
    }

    #[test]
    fn keys_that_are_unknown_are_told_with_those_that_are_taken() {
        for (path, said, expected) in [
            (
                "throttle",
                "unknown field `throttle`, expected one of `listen`, `admin`",
                "is no key; here are: listen, admin",
            ),
            (
                "limit",
                "unknown field `limit`, expected one of `region`, `throttle`, `quota`, `limits`",
                "is no key; here are: region, limits",
            ),
            (
                "virtual_topic[0].region",
                "unknown field `heador`, expected one of `header`, `key_prefix`, `listener`",
                "has no key heador; here are: header, key_prefix",
            ),
            (
                "listen.tls",
                "unknown field `cet`, expected one of `cert`, `key`, `client_ca`, `ca`",
                "has no key cet; here are: cert, key, client_ca",
            ),
            (
                "listen.passthrough",
                "unknown field `port`, expected `bootstrap` or `ports`",
                "has no key port; here are: bootstrap or ports",
            ),
            (
                "store.redis",
                "unknown field `password`, expected one of `url`, `ca`",
                "has no key password; here are: url, ca",
            ),
        ] {
            assert_eq!(plain(path, said), expected);
        }
    }
}
