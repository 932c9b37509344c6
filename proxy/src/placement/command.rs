//! `firebreak topic ...`: asks the admin port of a running proxy, and the leader's if need be.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::cli::{AdminArgs, TopicCommand};
use crate::{clock, fault, net};

/// Longest answer that is read.
const ANSWER_BYTES_MAX: u64 = 64 * 1024 * 1024;
/// Time for an answer that waits for nothing.
const LIMIT: Duration = Duration::from_secs(10);
/// A proxy that does not say for so long that it lives is stopped, or as good as that.
const ALIVE: Duration = Duration::from_secs(2);
/// Pause before somebody is asked again.
const PAUSE: Duration = Duration::from_millis(200);
const MISDIRECTED: u16 = 421;
const UNAVAILABLE: u16 = 503;

/// Does it; gives what is to be printed.
pub async fn run(command: &TopicCommand) -> io::Result<String> {
    let (at, asked) = match command {
        TopicCommand::List { at } => (at, ask(at.admin, "GET", "/topics", LIMIT).await),
        TopicCommand::Describe { name, at } => {
            let path = format!("/topics/{}", checked(name)?);
            (at, ask(at.admin, "GET", &path, LIMIT).await)
        }
        TopicCommand::Roll { name, at, wait_s } => {
            let path = format!("/topics/{}/roll", checked(name)?);
            (at, ask_leader(at.admin, &path, Duration::from_secs((*wait_s).into())).await)
        }
    };
    let (code, told) = asked?;
    if code != 200 {
        let why = told["error"].as_str().map_or_else(|| told.to_string(), str::to_owned);
        return Err(io::Error::other(format!("{why} ({code})")));
    }
    if told.is_null() {
        return Err(io::Error::other(format!("{} is no admin port", at.admin)));
    }
    Ok(printed(command, at, &told))
}

/// Has the leader do something, whoever that is: the proxy that is asked first knows, or waits for
/// a new one. Who does not lead has begun nothing, so somebody else may be asked; who was asked and
/// gives no answer may have.
async fn ask_leader(first: SocketAddr, path: &str, limit: Duration) -> io::Result<(u16, Value)> {
    let until = clock::now() + limit;
    let mut at = first;
    // A wrong address is no leader that is lost.
    ask(first, "GET", "/livez", LIMIT.min(limit)).await?;
    loop {
        let left = until.saturating_duration_since(clock::now());
        let why = match ask(at, "GET", "/livez", ALIVE.min(left)).await {
            Err(error) => {
                at = first;
                error.to_string()
            }
            Ok(_) => match ask(at, "POST", path, left).await {
                Ok((MISDIRECTED, told)) => {
                    let leader = told["leader"].as_str().and_then(|leader| leader.parse().ok());
                    let none = || io::Error::other("the leader has no admin port");
                    let leader: SocketAddr = leader.ok_or_else(none)?;
                    let why = format!("{at} says that {leader} leads");
                    at = if leader == at { first } else { leader };
                    why
                }
                Ok((UNAVAILABLE, told)) => {
                    let why = format!("{at} says: {}", text(&told["error"]));
                    at = first;
                    why
                }
                Ok(answer) => return Ok(answer),
                Err(error) => {
                    let told = format!(
                        "asked and no answer: {error}; what was begun \
                        goes on: see `firebreak topic describe`"
                    );
                    return Err(io::Error::new(error.kind(), told));
                }
            },
        };
        if clock::now() + PAUSE >= until || fault::on("roll-asked-once") {
            return Err(io::Error::other(format!("no leader within {limit:?}: {why}")));
        }
        tokio::time::sleep(PAUSE).await;
    }
}

/// A name that can be part of a path.
fn checked(name: &str) -> io::Result<&str> {
    let legal = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
    match !name.is_empty() && name.chars().all(legal) {
        true => Ok(name),
        false => Err(io::Error::other(format!("\"{name}\" is no topic name"))),
    }
}

/// One answer of an admin port: status code, and the body if that is JSON.
async fn ask(
    admin: SocketAddr,
    method: &str,
    path: &str,
    limit: Duration,
) -> io::Result<(u16, Value)> {
    let asked = async {
        let mut stream = net::open(admin).await?;
        let head = format!("{method} {path} HTTP/1.1\r\nHost: {admin}\r\n");
        let end = "Content-Length: 0\r\nConnection: close\r\n\r\n";
        stream.write_all(format!("{head}{end}").as_bytes()).await?;
        let mut answer = Vec::new();
        stream.take(ANSWER_BYTES_MAX).read_to_end(&mut answer).await?;
        Ok::<_, io::Error>(answer)
    };
    let late = |_| io::Error::new(io::ErrorKind::TimedOut, format!("nothing for {limit:?}"));
    let answer = tokio::time::timeout(limit, asked).await.map_err(late).flatten();
    let at = |error: io::Error| io::Error::new(error.kind(), format!("{admin}: {error}"));
    let answer = answer.map_err(at)?;
    let answer = String::from_utf8_lossy(&answer);
    let parts = answer.split_once("\r\n\r\n").and_then(|(head, body)| {
        let code = head.split(' ').nth(1)?.parse().ok()?;
        Some((code, serde_json::from_str(body).unwrap_or_default()))
    });
    parts.ok_or_else(|| io::Error::other(format!("{admin} is no admin port")))
}

fn printed(command: &TopicCommand, at: &AdminArgs, told: &Value) -> String {
    if at.json {
        return told.to_string();
    }
    let mut out = String::new();
    match command {
        TopicCommand::List { .. } => {
            let topics = told.as_array().into_iter().flatten();
            topics.for_each(|topic| list(topic, &mut out));
            if out.is_empty() {
                let _ = write!(out, "no virtual topic is configured at {}", at.admin);
            }
        }
        TopicCommand::Describe { .. } => {
            for slot in told["slots"].as_array().into_iter().flatten() {
                if let Some(why) = slot["problem"].as_str() {
                    let _ = writeln!(out, "{}  none    {why}", text(&slot["slot"]));
                }
                for segment in slot["segments"].as_array().into_iter().flatten() {
                    let open = if segment["ends"].is_null() { "open  " } else { "sealed" };
                    let (slot, topic) = (text(&slot["slot"]), text(&segment["topic"]));
                    let (bases, ends) = (&segment["bases"], &segment["ends"]);
                    let _ = writeln!(out, "{slot}  {open}  {topic}  from {bases} to {ends}");
                }
            }
        }
        TopicCommand::Roll { .. } => {
            for segment in told["segments"].as_array().into_iter().flatten() {
                let _ = writeln!(out, "{}", text(segment));
            }
        }
    }
    out.trim_end().to_owned()
}

/// The line of a virtual topic, with the slots that nobody can use and why.
fn list(topic: &Value, out: &mut String) {
    let (name, partitions) = (text(&topic["name"]), &topic["partitions"]);
    let mut segments = 0;
    let mut unserved: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for slot in topic["slots"].as_array().into_iter().flatten() {
        segments += slot["segments"].as_array().map_or(0, Vec::len);
        if let Some(why) = slot["problem"].as_str() {
            unserved.entry(why).or_default().push(text(&slot["slot"]));
        }
    }
    let _ = write!(out, "{name}  partitions {partitions}  segments {segments}");
    for (why, slots) in unserved {
        let _ = write!(out, "  not served in {}: {why}", slots.join(", "));
    }
    out.push('\n');
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn at(json: bool) -> AdminArgs {
        AdminArgs { admin: SocketAddr::from(([127, 0, 0, 1], 9091)), json }
    }

    fn list_of(told: &Value, json: bool) -> String {
        printed(&TopicCommand::List { at: at(json) }, &at(json), told)
    }

    #[test]
    fn a_list_without_a_topic_says_so() {
        let none = "no virtual topic is configured at 127.0.0.1:9091";
        assert_eq!(list_of(&json!([]), false), none);
        assert_eq!(list_of(&json!([]), true), "[]");
    }

    #[test]
    fn slots_that_are_not_served_are_shown_with_the_reason() {
        let open = json!({ "topic": "v-a", "bases": [0], "ends": null });
        let slots = json!([
            { "slot": "a", "segments": [open], "problem": null },
            { "slot": "b", "segments": [], "problem": "why" },
            { "slot": "other", "segments": [], "problem": "why" },
        ]);
        let topic = json!({ "name": "v", "partitions": 3, "slots": slots });
        let line = "v  partitions 3  segments 1  not served in b, other: why";
        assert_eq!(list_of(&json!([topic]), false), line);
        let describe = TopicCommand::Describe { name: "v".to_owned(), at: at(false) };
        let rows = printed(&describe, &at(false), &topic);
        assert_eq!(rows, "a  open    v-a  from [0] to null\nb  none    why\nother  none    why");
    }
}
