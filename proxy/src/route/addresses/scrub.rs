//! Takes upstream addresses out of texts: error messages and values of configurations.
//!
//! text -> each upstream host that stands there, with the port behind it -> what clients are told.
//! Invariant: neither an upstream host nor the port of one is left; other words stay as they are.

/// An upstream address, and the port at which clients reach what listens there.
#[derive(Debug, Clone, Copy)]
pub struct Place<'a> {
    /// Its host.
    pub host: &'a str,
    /// Its port.
    pub port: u16,
    /// The port that clients are told.
    pub told: u16,
}

/// `text` with `host` in the place of upstream hosts. A port that no client can reach (a
/// controller's) becomes `otherwise`. `None` if there is nothing to take out.
pub fn scrub(text: &str, places: &[Place<'_>], host: &str, otherwise: u16) -> Option<String> {
    let mut clean = String::with_capacity(text.len());
    let mut at = 0;
    while let Some(next) = text[at..].chars().next() {
        let found = places.iter().map(|place| place.host).filter(|host| stands(text, at, host));
        let Some(found) = found.max_by_key(|host| host.len()) else {
            clean.push(next);
            at += next.len_utf8();
            continue;
        };
        at += found.len();
        clean.push_str(host);
        let Some((port, bytes)) = port_at(&text[at..]) else { continue };
        let place = places.iter().find(|p| p.host == found && Some(p.port) == port);
        clean.push_str(&format!(":{}", place.map_or(otherwise, |place| place.told)));
        at += bytes;
    }
    (clean != text).then_some(clean)
}

/// Whether `host` stands at `at`, and not as a part of another name. A host without dots can be
/// any word, such as the `kafka` in a Java package: dots and hyphens beside it make it another.
fn stands(text: &str, at: usize, host: &str) -> bool {
    let Some(behind) = text[at..].strip_prefix(host).filter(|_| !host.is_empty()) else {
        return false;
    };
    let before = text[..at].chars().next_back();
    let mut behind = behind.chars();
    let (first, second) = (behind.next(), behind.next());
    let letter = |c: Option<char>| c.is_some_and(char::is_alphanumeric);
    if letter(before) || letter(first) {
        return false;
    }
    let joins = |c: Option<char>| c.is_some_and(|c| matches!(c, '.' | '-' | '_'));
    host.contains(['.', ':']) || !(joins(before) || joins(first) && letter(second))
}

/// The port at the start of what stands behind a host, and the bytes it takes with its colon. The
/// number is `None` where it is none that a port can have.
fn port_at(behind: &str) -> Option<(Option<u16>, usize)> {
    let digits = behind.strip_prefix("]:").or_else(|| behind.strip_prefix(':'))?;
    let count = digits.bytes().take_while(u8::is_ascii_digit).count();
    let bytes = behind.len() - digits.len() + count;
    (count > 0).then(|| (digits[..count].parse().ok(), bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scrubbed(text: &str) -> Option<String> {
        let places = [
            Place { host: "10.1.2.3", port: 909, told: 19_093 },
            Place { host: "10.1.2.3", port: 9092, told: 19_094 },
            Place { host: "kafka", port: 9092, told: 19_095 },
            Place { host: "kafka-1.example.org", port: 9092, told: 19_096 },
        ];
        scrub(text, &places, "proxy", 19_092)
    }

    #[test]
    fn hosts_and_their_ports_become_the_proxys() {
        for (text, clean) in [
            ("PLAINTEXT://10.1.2.3:9092", "PLAINTEXT://proxy:19094"),
            ("10.1.2.3:909,kafka:9092.", "proxy:19093,proxy:19095."),
            ("CONTROLLER://10.1.2.3:9093", "CONTROLLER://proxy:19092"),
            ("0@10.1.2.3:99999", "0@proxy:19092"),
            ("/data/10.1.2.3/logs", "/data/proxy/logs"),
            ("data-10.1.2.3-logs", "data-proxy-logs"),
            ("no way to kafka.", "no way to proxy."),
            ("kafka-1.example.org:9092 (kafka)", "proxy:19096 (proxy)"),
            ("[10.1.2.3]:9092 gr\u{fc}\u{df}t", "[proxy:19094 gr\u{fc}\u{df}t"),
        ] {
            assert_eq!(scrubbed(text).as_deref(), Some(clean));
        }
    }

    #[test]
    fn other_words_stay() {
        for text in [
            "",
            "org.apache.kafka.common.security",
            "kafka-2.example.org:9092",
            "110.1.2.3 and 10.1.2.31",
            "kafkaesque",
        ] {
            assert_eq!(scrubbed(text), None, "{text}");
        }
    }
}
