//! Virtual topics through every kind of client: one name over several slots, read as one topic.

use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use super::{command, days, kcat, tools, trouble};
use crate::franz_go;
use crate::process::Scratch;
use crate::proxy::{HOST, Proxy};
use crate::python;
use crate::raw;
use crate::rig::{Place, Rig};

/// Records of each of the three slots.
const OF_SLOT: usize = 400;
const ALL: usize = 3 * OF_SLOT;
/// Records of two slots in one batch, which is too large for one of them.
const HALVED: usize = 2000;
/// Partitions of each slot.
const PARTITIONS: usize = 2;

/// One virtual topic of three slots by a header: every client reads it whole, groups of every
/// kind go on from where they committed, and tools see no lag at the end.
pub fn one_topic_for_every_client(rig: &mut Rig) {
    let regions = "[[region]]\nname = \"norcal\"\n[[region]]\nname = \"socal\"\n";
    let (proxy, place) = start(rig, "header = \"region\"", regions);
    let mut sent = Vec::new();
    for region in [Some("norcal"), Some("socal"), None] {
        let named = region.unwrap_or("nowhere");
        let lines: Vec<String> =
            (0..OF_SLOT).map(|n| format!("{{\"region\":\"{named}\",\"n\":{n}}}")).collect();
        for (half, idempotence) in lines.chunks(OF_SLOT / 2).zip(["false", "true"]) {
            produce(&place, region, idempotence, half);
        }
        let slot = format!("{}-{}", place.topic, region.unwrap_or("other"));
        assert_same(&read_directly(rig, &slot), &lines, &format!("records in {slot}"));
        sent.extend(lines);
    }
    let read = kcat_reads(&place.bootstrap, &place.topic);
    assert_same(&read, &sent, "read by kcat");
    rig.executed();
    console(rig, &place, &sent);
    for protocol in ["classic", "consumer"] {
        java_group(rig, &place, protocol, &sent);
    }
    franz_go_group(&place, &sent);
    rig.executed();
    librdkafka_of_today(&place, &sent);
    rig.executed();
    no_lag(rig, &place);
    ends(rig, &place);
    let contradictions = "firebreak_routed_parts_total{result=\"contradiction\"}";
    assert!(proxy.metric(contradictions) < 0.5, "contradictions");
    assert!(proxy.metric("firebreak_hidden_topics") < 0.5, "hidden topics");
    let carrier = read_directly(rig, &place.topic);
    assert!(carrier.is_empty(), "{} records in the carrier", carrier.len());
}

/// Fire detections of eight days go to the regions that their coordinates lie in: every record is
/// where an independent computation says, and nowhere else.
pub fn detections_by_their_coordinates(rig: &mut Rig) {
    let areas = areas();
    let regions = regions(&areas);
    let (proxy, place) = start(rig, PLACES, &regions);
    let expected = detections(&areas);
    let lines: Vec<String> = expected.iter().map(|d| d.line.clone()).collect();
    for (part, idempotence) in lines.chunks(lines.len() / 2 + 1).zip(["true", "false"]) {
        produce(&place, None, idempotence, part);
    }
    produce(&place, None, "true", &["no JSON".to_owned()]);
    for region in ["norcal", "central-valley", "socal", "other"] {
        let of_region = expected.iter().filter(|d| d.region == region);
        let mut of_region: Vec<String> = of_region.map(|d| d.line.clone()).collect();
        assert!(of_region.len() >= 5, "{} records of {region}", of_region.len());
        of_region.extend((region == "other").then(|| "no JSON".to_owned()));
        let slot = read_directly(rig, &format!("{}-{region}", place.topic));
        assert_same(&slot, &of_region, &format!("records of {region}"));
    }
    let outside = expected.iter().filter(|d| d.region == "other").count();
    for (reason, count) in [("outside", outside), ("broken_json", 1), ("no_location", 0)] {
        let metric = format!("firebreak_unlocated_records_total{{reason=\"{reason}\"}}");
        // A batch that is sent again is looked at again.
        let counted = proxy.metric(&metric);
        assert!(counted >= u32::try_from(count).unwrap().into(), "{metric} is {counted}");
    }
    let mut all = lines;
    all.push("no JSON".to_owned());
    assert_same(&kcat_reads(&place.bootstrap, &place.topic), &all, "read through the proxy");
    rig.executed();
    others_read(rig, &place, &all);
}

/// Clients of three other kinds read the topic whole.
pub fn others_read(rig: &mut Rig, place: &Place, sent: &[String]) {
    console(rig, place, sent);
    java_group(rig, place, "consumer", sent);
    franz_go_group(place, sent);
    rig.executed();
}

/// One of two slots takes short batches only: Java is told so before anything of a longer one is
/// written, sends halves of it, and every record is there once.
pub fn java_sends_halves(rig: &mut Rig) {
    let (proxy, place) = start(rig, "field = \"/region\"", "[[region]]\nname = \"norcal\"\n");
    let short = format!("{}-norcal", place.topic);
    until_made(rig, &short);
    let to = ["--alter", "--entity-type", "topics", "--entity-name", &short];
    let most = ["--add-config", "max.message.bytes=20000"];
    let direct = rig.place(false, &short);
    tools::tool(rig, &direct, "kafka.admin.ConfigCommand", &[&to, &most], "");
    let regions = ["norcal", "nowhere"].iter().cycle();
    let lines = regions.zip(0..HALVED).map(|(region, n)| {
        format!("{{\"region\":{region:?},\"n\":{n},\"of\":\"{}\"}}", "x".repeat(60))
    });
    let lines: Vec<String> = lines.collect();
    let text: String = lines.iter().map(|line| format!("{line}\n")).collect();
    let long = ["--batch-size", "200000", "--producer-property", "linger.ms=2000"];
    let topic = ["--topic", &place.topic];
    tools::tool(rig, &place, tools::console_producer(rig), &[&topic, &long], &text);
    assert_same(&kcat_reads(&place.bootstrap, &place.topic), &lines, "read through the proxy");
    let refused = proxy.metric("firebreak_routed_parts_total{result=\"refused\"}");
    assert!(refused > 0.5, "no batch was too large");
    let contradictions = proxy.metric("firebreak_routed_parts_total{result=\"contradiction\"}");
    assert!(contradictions < 0.5, "{contradictions} contradictions");
    rig.executed();
}

/// Leaders go from broker to broker and come back while all of them are up: clients go along, over
/// connections that they had before and still have.
pub fn leaders_come_back(rig: &mut Rig) {
    let regions = "[[region]]\nname = \"p0\"\n[[region]]\nname = \"p1\"\n";
    let (_proxy, place) = start(rig, "key_prefix = \"-\"", regions);
    let moved = format!("{}-p0", place.topic);
    until_made(rig, &moved);
    let load = json!({"partitions": PARTITIONS, "producers": 2, "transactional": false});
    rig.java.must("load-start", command(&place, &load));
    for leader in [2, 1, 2, 3, 1, 3, 2] {
        trouble::wait_for_acks(rig, &place, 300);
        let replicas: Vec<i32> = (0..3).map(|step| (leader - 1 + step) % 3 + 1).collect();
        let to = json!({
            "bootstrap": rig.cluster.bootstrap(), "topic": moved, "partition": 0,
            "replicas": replicas,
        });
        rig.java.must("move-leader", to);
    }
    trouble::wait_for_acks(rig, &place, 300);
    let all = command(&place, &json!({"partitions": 3 * PARTITIONS}));
    let verdict = trouble::verdict_of(rig, &place, all);
    assert_eq!(verdict["errors"], json!({}), "{verdict}");
    rig.executed();
}

/// Waits for a physical topic.
fn until_made(rig: &Rig, topic: &str) {
    let until = Instant::now() + Duration::from_secs(30);
    while !raw::leaders(&rig.cluster.address(1), topic).is_ok_and(|led| led == PARTITIONS) {
        assert!(Instant::now() < until, "{topic} is not made");
        std::thread::sleep(Duration::from_millis(100));
    }
}

/// How a place is found in a detection.
pub const PLACES: &str = "latitude = \"/latitude\", longitude = \"/longitude\"";

/// Names and areas of three regions.
pub fn areas() -> Value {
    json!([
        ["norcal", {"south": 38.5, "north": 42.1, "west": -124.6, "east": -119.0}],
        ["central-valley", {"polygon": [[40.6, -122.6], [38.0, -119.8], [35.0, -118.2],
            [34.8, -119.6], [38.0, -122.2], [40.0, -123.0]]}],
        ["socal", {"south": 32.3, "north": 36.0, "west": -121.0, "east": -114.0}],
    ])
}

/// The regions of these areas, as the configuration has them.
pub fn regions(areas: &Value) -> String {
    let regions = areas.as_array().unwrap().iter().map(|region| {
        // What JSON writes of numbers, TOML reads.
        let area = region[1].to_string().replace("\":", "\" = ");
        format!("[[region]]\nname = {}\narea = {area}\n", region[0])
    });
    regions.collect()
}

/// A fire detection, and what Python worked out of it.
pub struct Detection {
    pub region: String,
    pub at_ms: i64,
    /// Days since 1970.
    pub day: i64,
    pub line: String,
}

/// The detections of the sample.
pub fn detections(areas: &Value) -> Vec<Detection> {
    let top = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let folder = Scratch::new("areas");
    let file = folder.path().join("areas.json");
    std::fs::write(&file, areas.to_string()).unwrap();
    let mut command = Command::new("python3");
    command.arg(top.join("proxy/tests/kafka/python/regions.py"));
    command.arg(top.join("compose")).arg(file);
    command.arg(top.join("compose/sample/detections/firms-modis-usa-2020-10-20_27.csv"));
    let done = command.output().unwrap();
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    let text = String::from_utf8(done.stdout).unwrap();
    let told = text.lines().map(|line| {
        let mut parts = line.splitn(4, '\t').map(str::to_owned);
        let (region, mut number) =
            (parts.next().unwrap(), || parts.next().unwrap().parse().unwrap());
        let (at_ms, day) = (number(), number());
        Detection { region, at_ms, day, line: parts.next().unwrap() }
    });
    told.collect()
}

/// A proxy with a virtual topic that is routed by `rule` to `regions`.
fn start(rig: &Rig, rule: &str, regions: &str) -> (Proxy, Place) {
    let topic = format!("virtual-{}", uuid::Uuid::new_v4().simple());
    let more = format!(
        "[[virtual_topic]]\nname = {topic:?}\npartitions = {PARTITIONS}\n\
         region = {{ {rule} }}\n{regions}"
    );
    let proxy = days::proxy_with(rig, more);
    let place = place_of(rig, &proxy, &topic);
    (proxy, place)
}

/// The way through a proxy that no relay stands in front of.
pub fn place_of(rig: &Rig, proxy: &Proxy, topic: &str) -> Place {
    let bootstrap = format!("{HOST}:{}", proxy.port);
    Place { bootstrap, ..Place::proxied(proxy.port, &rig.cluster.brokers(), topic) }
}

fn produce(place: &Place, region: Option<&str>, idempotence: &str, lines: &[String]) {
    let header = region.map(|region| format!("region={region}"));
    let header: Vec<&str> = header.iter().flat_map(|header| ["-H", header]).collect();
    let idempotence = format!("enable.idempotence={idempotence}");
    // Any partition for each record: a client commits only where it has read.
    let spread = "sticky.partitioning.linger.ms=0";
    let to = ["-P", "-t", &place.topic, "-X", &idempotence, "-X", spread];
    let text: String = lines.iter().map(|line| format!("{line}\n")).collect();
    kcat::kcat(&place.bootstrap, &[&to, &header], &text);
}

pub fn kcat_reads(bootstrap: &str, topic: &str) -> Vec<String> {
    let read = kcat::kcat(bootstrap, &[&["-C", "-q", "-e", "-o", "beginning", "-t", topic]], "");
    read.lines().map(str::to_owned).collect()
}

pub fn read_directly(rig: &Rig, topic: &str) -> Vec<String> {
    kcat_reads(&rig.cluster.bootstrap(), topic)
}

fn console(rig: &mut Rig, place: &Place, sent: &[String]) {
    let all = sent.len().to_string();
    let read = ["--topic", &place.topic, "--from-beginning", "--max-messages", &all];
    let group = ["--group", "console", "--timeout-ms", "30000"];
    let class = "org.apache.kafka.tools.consumer.ConsoleConsumer";
    let text = tools::tool(rig, place, class, &[&read, &group], "");
    let lines: Vec<String> = text.lines().map(str::to_owned).collect();
    assert_same(&lines, sent, "read by the console consumer");
    rig.executed();
}

/// A member reads half and leaves, the next one of its group reads the rest.
fn java_group(rig: &mut Rig, place: &Place, protocol: &str, sent: &[String]) {
    let mut read: Vec<String> = Vec::new();
    for part in [sent.len() / 2, sent.len()] {
        let command = json!({
            "bootstrap": place.bootstrap, "topic": place.topic, "group": format!("java-{protocol}"),
            "protocol": protocol, "count": part - read.len(),
        });
        let values = rig.java.must("read-group", command);
        let values: Vec<String> = serde_json::from_value(values).unwrap();
        read.extend(values);
    }
    assert_same(&read, sent, &format!("read by a group of Java's, protocol {protocol}"));
    rig.executed();
}

fn franz_go_group(place: &Place, sent: &[String]) {
    let program = franz_go::program();
    let mut read = Vec::new();
    for part in [sent.len() / 2, sent.len()] {
        read.extend(franz_go_reads(&program, place, part - read.len()));
    }
    assert_same(&read, sent, "read by a group of franz-go's");
}

/// It lists all topics with bytes behind the request, and asks for heartbeats that can name a
/// pattern: names are served, a pattern that brokers would match is refused.
fn librdkafka_of_today(place: &Place, sent: &[String]) {
    let wanted = json!({"bootstrap": place.bootstrap, "topic": place.topic, "count": sent.len()});
    let told = python::run("subscribe.py", &wanted, None);
    let topics: Vec<String> = serde_json::from_value(told["topics"].clone()).unwrap();
    let of_name = topics.iter().filter(|topic| topic.starts_with(&place.topic));
    assert_eq!(of_name.collect::<Vec<_>>(), [&place.topic], "topics listed: {topics:?}");
    for member in ["classic", "classic_pattern", "consumer"] {
        let read: Vec<String> = serde_json::from_value(told[member]["read"].clone()).unwrap();
        assert_same(&read, sent, &format!("read by librdkafka, {member}"));
    }
    let refused = told["consumer_pattern"]["refused"].as_str().unwrap_or_default();
    assert!(refused.contains("regular expression is not valid"), "{}", told["consumer_pattern"]);
}

fn franz_go_reads(program: &Path, place: &Place, count: usize) -> Vec<String> {
    let mut command = Command::new(program);
    command.args(["read", &place.bootstrap, &place.topic, "franz-go", &count.to_string()]);
    let done = command.output().unwrap();
    let errors = String::from_utf8_lossy(&done.stderr);
    assert!(done.status.success(), "{command:?}: {}\n{errors}", done.status);
    String::from_utf8(done.stdout).unwrap().lines().map(str::to_owned).collect()
}

/// What `kafka-consumer-groups --describe` shows of every group: all read, nothing left.
fn no_lag(rig: &mut Rig, place: &Place) {
    let groups = ["console", "java-classic", "java-consumer", "franz-go"];
    let named: Vec<&str> = groups.iter().flat_map(|group| ["--group", group]).collect();
    let class = "org.apache.kafka.tools.consumer.group.ConsumerGroupCommand";
    let text = tools::tool(rig, place, class, &[&["--describe"], &named], "");
    for group in groups {
        let rows = text.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
        let rows = rows.filter(|row| row.first() == Some(&group) && row[1] == place.topic);
        let rows: Vec<_> = rows.collect();
        assert_eq!(rows.len(), 3 * PARTITIONS, "partitions of {group} in\n{text}");
        let number = |text: &str| text.parse::<usize>().unwrap_or_else(|_| panic!("{text}"));
        let read: usize = rows.iter().map(|row| number(row[3])).sum();
        let lag: usize = rows.iter().map(|row| number(row[5])).sum();
        assert_eq!((read, lag), (ALL, 0), "offsets and lag of {group} in\n{text}");
    }
    rig.executed();
}

/// ListOffsets, as the stock tool asks for it: the ends make up everything, the starts nothing.
fn ends(rig: &mut Rig, place: &Place) {
    for (time, expected) in [("-1", ALL), ("-2", 0)] {
        let asked = ["--topic", &place.topic, "--time", time];
        let text = tools::tool(rig, place, "org.apache.kafka.tools.GetOffsetShell", &[&asked], "");
        let offsets = text.lines().filter_map(|line| line.rsplit(':').next()?.parse().ok());
        let offsets: Vec<usize> = offsets.collect();
        assert_eq!(offsets.len(), 3 * PARTITIONS, "{text}");
        assert_eq!(offsets.iter().sum::<usize>(), expected, "offsets at {time}: {text}");
    }
    rig.executed();
}

/// Both hold the same lines, each as often: told by their number and SHA-256 once sorted.
pub fn assert_same(read: &[String], sent: &[String], what: &str) {
    assert_eq!(digest(read), digest(sent), "{what}");
}

fn digest(lines: &[String]) -> (usize, String) {
    let mut sorted: Vec<&String> = lines.iter().collect();
    sorted.sort_unstable();
    let mut hash = Sha256::new();
    sorted.iter().for_each(|line| hash.update(format!("{line}\n")));
    let hex = hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect();
    (lines.len(), hex)
}
