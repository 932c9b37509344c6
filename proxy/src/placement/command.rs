//! `firebreak topic ...`: asks the admin port of a running proxy, and the leader's if need be.

use std::fmt::Write as _;
use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::cli::{AdminArgs, TopicCommand};
use crate::net;

/// Longest answer that is read.
const ANSWER_BYTES_MAX: u64 = 64 * 1024 * 1024;
/// Time for an answer: a roll waits for brokers.
const LIMIT: Duration = Duration::from_secs(120);
const MISDIRECTED: u16 = 421;

/// Does it; gives what is to be printed.
pub async fn run(command: &TopicCommand) -> io::Result<String> {
    let (at, method, path) = match command {
        TopicCommand::List { at } => (at, "GET", "/topics".to_owned()),
        TopicCommand::Describe { name, at } => (at, "GET", format!("/topics/{}", checked(name)?)),
        TopicCommand::Roll { name, at } => (at, "POST", format!("/topics/{}/roll", checked(name)?)),
    };
    let (mut code, mut told) = ask(at.admin, method, &path).await?;
    if code == MISDIRECTED {
        let leader = told["leader"].as_str().and_then(|leader| leader.parse().ok());
        let leader = leader.ok_or_else(|| io::Error::other("the leader has no admin port"))?;
        (code, told) = ask(leader, method, &path).await?;
    }
    if code != 200 {
        let why = told["error"].as_str().map_or_else(|| told.to_string(), str::to_owned);
        return Err(io::Error::other(format!("{why} ({code})")));
    }
    Ok(printed(command, at, &told))
}

/// A name that can be part of a path.
fn checked(name: &str) -> io::Result<&str> {
    let legal = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
    match !name.is_empty() && name.chars().all(legal) {
        true => Ok(name),
        false => Err(io::Error::other(format!("\"{name}\" is no topic name"))),
    }
}

async fn ask(admin: SocketAddr, method: &str, path: &str) -> io::Result<(u16, Value)> {
    let asked = async {
        let mut stream = net::open(admin).await?;
        let head = format!("{method} {path} HTTP/1.1\r\nHost: {admin}\r\n");
        let end = "Content-Length: 0\r\nConnection: close\r\n\r\n";
        stream.write_all(format!("{head}{end}").as_bytes()).await?;
        let mut answer = Vec::new();
        stream.take(ANSWER_BYTES_MAX).read_to_end(&mut answer).await?;
        Ok::<_, io::Error>(answer)
    };
    let answer =
        tokio::time::timeout(LIMIT, asked).await.map_err(|_| io::ErrorKind::TimedOut)??;
    let answer = String::from_utf8_lossy(&answer);
    let parts = answer.split_once("\r\n\r\n").and_then(|(head, body)| {
        let code = head.split(' ').nth(1)?.parse().ok()?;
        Some((code, serde_json::from_str(body).ok()?))
    });
    parts.ok_or_else(|| io::Error::other("this is no admin port"))
}

fn printed(command: &TopicCommand, at: &AdminArgs, told: &Value) -> String {
    if at.json {
        return told.to_string();
    }
    let mut out = String::new();
    match command {
        TopicCommand::List { .. } => {
            for topic in told.as_array().into_iter().flatten() {
                let slots = topic["slots"].as_array().into_iter().flatten();
                let counts = slots.map(|slot| slot["segments"].as_array().map_or(0, Vec::len));
                let (name, partitions) = (text(&topic["name"]), &topic["partitions"]);
                let segments: usize = counts.sum();
                let _ = writeln!(out, "{name}  partitions {partitions}  segments {segments}");
            }
        }
        TopicCommand::Describe { .. } => {
            for slot in told["slots"].as_array().into_iter().flatten() {
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

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}
