//! Kafka's own command line tools, each in its own JVM.

use std::io::Write;
use std::process::Stdio;

use serde_json::json;

use crate::jars;
use crate::rig::{Place, Rig};

pub fn stock_tools(rig: &mut Rig) {
    rig.compare("stock tools", 0, |rig, place| {
        let topic = ["--topic", &place.topic];
        let create = ["--create", "--partitions", "2", "--replication-factor", "1"];
        let created =
            tool(rig, place, "org.apache.kafka.tools.TopicCommand", &[&create, &topic], "");
        let verify = ["--max-messages", "50", "--acks", "-1", "--repeating-keys", "2"];
        let sent =
            tool(rig, place, "org.apache.kafka.tools.VerifiableProducer", &[&topic, &verify], "");
        let summary = sent.lines().find(|line| line.contains("tool_data")).unwrap();
        assert!(summary.contains("\"acked\":50"), "{summary}");
        let lines: String = (0..20).map(|line| format!("typed {line}\n")).collect();
        tool(rig, place, console_producer(rig), &[&topic], &lines);
        let read = [
            "--from-beginning",
            "--max-messages",
            "70",
            "--group",
            &place.topic,
            "--timeout-ms",
            "30000",
        ];
        let text = tool(
            rig,
            place,
            "org.apache.kafka.tools.consumer.ConsoleConsumer",
            &[&topic, &read],
            "",
        );
        let mut read: Vec<&str> = text.lines().collect();
        read.sort_unstable();
        assert_eq!(read.len(), 70);
        let describe = ["--describe", "--group", &place.topic];
        let command = "org.apache.kafka.tools.consumer.group.ConsumerGroupCommand";
        let groups = tool(rig, place, command, &[&describe], "");
        let lag: Vec<&str> = groups.lines().filter(|line| line.contains(&place.topic)).collect();
        json!([created.lines().last(), read, summary_without_rates(summary), lag.len()])
    });
}

/// It moved when Kafka 4.0 came.
pub fn console_producer(rig: &Rig) -> &'static str {
    if rig.cluster.version.starts_with("3.") {
        "kafka.tools.ConsoleProducer"
    } else {
        "org.apache.kafka.tools.ConsoleProducer"
    }
}

fn summary_without_rates(summary: &str) -> serde_json::Value {
    let mut fields: serde_json::Value = serde_json::from_str(summary).unwrap();
    let fields = fields.as_object_mut().unwrap();
    fields.retain(|name, _| ["name", "sent", "acked"].contains(&name.as_str()));
    json!(fields)
}

/// Runs one of the tools with input; gives its output.
pub fn tool(rig: &Rig, place: &Place, class: &str, arguments: &[&[&str]], input: &str) -> String {
    let mut command = jars::java(&rig.cluster.jars, &["-Xmx256m"], None);
    command.arg(class).args(["--bootstrap-server", &place.bootstrap]).args(arguments.concat());
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
    let done = child.wait_with_output().unwrap();
    let errors = String::from_utf8_lossy(&done.stderr);
    let text = String::from_utf8(done.stdout).unwrap();
    assert!(done.status.success(), "{class}: {}\n{errors}\n{text}", done.status);
    text
}
