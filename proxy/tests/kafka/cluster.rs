//! Real Kafka clusters: one broker that is its own controller, or three brokers and a controller.
//!
//! Broker `n` listens on 127.0.0.`n+1`, so that no upstream address looks like the proxy's
//! (127.0.0.1).

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use crate::process::{Process, Scratch};
use crate::rig::Version;
use crate::secured::Secured;
use crate::{jars, ports, raw};

/// A running cluster; its processes end and its directories go when it is dropped.
pub struct Cluster {
    pub version: &'static str,
    pub jars: PathBuf,
    nodes: BTreeMap<i32, Node>,
    copies: usize,
    id: String,
    /// Its listeners with TLS and SASL, if it has some.
    pub secured: Option<Secured>,
    dir: Scratch,
}

struct Node {
    host: String,
    port: u16,
    roles: &'static str,
    process: Option<Process>,
}

impl Cluster {
    /// Starts 1 or 3 brokers, and waits until every one of them is listed.
    pub fn start(Version { name: version, brokers, secured }: Version) -> Self {
        let dir = Scratch::new(&format!("kafka-{version}"));
        let mut cluster = Self {
            version,
            jars: jars::folder(version),
            nodes: BTreeMap::new(),
            copies: brokers,
            id: cluster_id(),
            secured: secured.then(|| Secured::new(dir.path())),
            dir,
        };
        let alone = brokers == 1;
        if !alone {
            cluster.lay_out(CONTROLLER, "controller");
        }
        for id in 1..=i32::try_from(brokers).unwrap() {
            cluster.lay_out(id, if alone { "broker,controller" } else { "broker" });
        }
        cluster.format(if alone { 1 } else { CONTROLLER });
        let ids: Vec<i32> = cluster.nodes.keys().rev().copied().collect();
        ids.iter().for_each(|id| cluster.start_node(*id));
        cluster.wait_until_whole();
        cluster
    }

    /// The address of broker 1.. that is up, for a client's `bootstrap.servers`.
    pub fn bootstrap(&self) -> String {
        let up = self.brokers().into_iter().filter(|id| self.nodes[id].process.is_some());
        up.map(|id| self.address(id)).collect::<Vec<_>>().join(",")
    }

    /// The addresses of all brokers' listeners for SASL in TLS, or for certificates.
    pub fn secured_bootstrap(&self, certificates: bool) -> Vec<String> {
        let more = if certificates { 2 } else { 1 };
        let address = |id: &i32| format!("{}:{}", self.nodes[id].host, self.nodes[id].port + more);
        self.brokers().iter().map(address).collect()
    }

    /// The file of names for Java clients, where there is one.
    pub fn hosts(&self) -> Option<PathBuf> {
        self.secured.as_ref().map(Secured::hosts)
    }

    /// Where broker `id` listens.
    pub fn address(&self, id: i32) -> String {
        format!("{}:{}", self.nodes[&id].host, self.nodes[&id].port)
    }

    /// The ids of all brokers, up or not.
    pub fn brokers(&self) -> Vec<i32> {
        self.nodes.keys().copied().filter(|id| *id != CONTROLLER).collect()
    }

    /// Every port any node listens on, the controller's included.
    pub fn ports(&self) -> Vec<u16> {
        let of_controllers = self.controller_port().into_iter();
        self.nodes.values().map(|node| node.port).chain(of_controllers).collect()
    }

    /// SIGTERM: the broker hands its leaderships over and ends.
    pub fn stop(&mut self, id: i32) {
        let process = self.nodes.get_mut(&id).unwrap().process.take();
        process.unwrap().terminate(Duration::from_secs(20));
    }

    /// kill -9.
    pub fn kill(&mut self, id: i32) {
        self.nodes.get_mut(&id).unwrap().process.take().unwrap().kill();
    }

    /// Starts a stopped or killed broker again, on the same port and data.
    pub fn restart(&mut self, id: i32) {
        self.start_node(id);
    }

    /// Adds a broker and returns its id.
    pub fn add(&mut self) -> i32 {
        let id = self.brokers().last().unwrap() + 1;
        self.lay_out(id, "broker");
        self.start_node(id);
        id
    }

    /// Stops a broker for good.
    pub fn remove(&mut self, id: i32) {
        self.stop(id);
        self.nodes.remove(&id);
    }

    /// Waits until all brokers are listed and no partition lacks a replica.
    pub fn wait_until_whole(&mut self) {
        let until = Instant::now() + Duration::from_secs(90);
        let (all, address) = (self.brokers(), self.address(self.brokers()[0]));
        loop {
            let state = raw::health(&address);
            if state.as_ref().is_ok_and(|state| state.brokers == all && state.short == 0) {
                return;
            }
            for (id, node) in &mut self.nodes {
                let ended = node.process.as_mut().and_then(Process::ended);
                let log = || node.process.as_ref().unwrap().log_tail();
                assert!(ended.is_none(), "node {id} ended:\n{}", log());
            }
            assert!(Instant::now() < until, "the cluster is not whole after 90 s: {state:?}");
            std::thread::sleep(Duration::from_millis(100));
        }
    }

    /// Chooses ports and writes the configuration of one node.
    fn lay_out(&mut self, id: i32, roles: &'static str) {
        let host =
            if id == CONTROLLER { "127.0.0.2".into() } else { format!("127.0.0.{}", id + 1) };
        let more = if self.secured.is_some() { 2 } else { 0 };
        let port = ports::free(&[&host], more + if roles.contains(',') { 2 } else { 1 });
        self.nodes.insert(id, Node { host, port, roles, process: None });
        let data = self.dir.path().join(format!("data-{id}"));
        fs::create_dir_all(&data).unwrap();
        let meta = format!("version=1\ncluster.id={}\nnode.id={id}\n", self.id);
        if !roles.contains("controller") {
            fs::write(data.join("meta.properties"), meta).unwrap();
        }
        fs::write(self.config(id), self.properties(id)).unwrap();
    }

    fn config(&self, id: i32) -> PathBuf {
        self.dir.path().join(format!("{id}.properties"))
    }

    fn controller_port(&self) -> Option<u16> {
        let alone = self.nodes.values().find(|node| node.roles.contains(','));
        alone.map(|node| node.port + 1)
    }

    fn properties(&self, id: i32) -> String {
        let (node, copies) = (&self.nodes[&id], self.copies);
        let quorum = match self.controller_port() {
            Some(port) => format!("1@127.0.0.2:{port}"),
            None => format!("{CONTROLLER}@{}", self.address(CONTROLLER)),
        };
        let control = quorum.split_once('@').unwrap().1;
        let (roles, address) = (node.roles, self.address(id));
        let secured = self.secured.as_ref().filter(|_| roles == "broker");
        let listeners = match roles {
            "broker" if secured.is_some() => Secured::listeners(&node.host, node.port),
            "broker" => format!("PLAINTEXT://{address}"),
            "controller" => format!("CONTROLLER://{control}"),
            _ => format!("PLAINTEXT://{address},CONTROLLER://{control}"),
        };
        let mut lines = format!(
            "process.roles={roles}\nnode.id={id}\ncontroller.quorum.voters={quorum}\n\
             controller.listener.names=CONTROLLER\nlisteners={listeners}\n\
             listener.security.protocol.map=PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT,\
             SASL_SSL:SASL_SSL,SSL:SSL\n\
             log.dirs={}/data-{id}\n\
             offsets.topic.replication.factor={copies}\n\
             transaction.state.log.replication.factor={copies}\n\
             default.replication.factor={copies}\n",
            self.dir.path().display(),
        );
        if let Some(secured) = secured {
            lines.push_str(&format!("advertised.listeners={listeners}\n"));
            lines.push_str(&secured.properties());
        } else if roles.contains("broker") {
            lines.push_str(&format!("advertised.listeners=PLAINTEXT://{address}\n"));
        }
        if self.version.starts_with("4.3") || self.secured.is_some() {
            lines.push_str(AUTHORIZER);
        }
        if self.secured.is_some() {
            lines.push_str(SUPER_USERS);
        }
        match &self.version[..3] {
            "3.9" => lines.push_str("group.coordinator.rebalance.protocols=classic,consumer\n"),
            "4.1" => {
                lines.push_str("group.coordinator.rebalance.protocols=classic,consumer,share\n")
            }
            _ => {}
        }
        if self.version.starts_with("4.") {
            lines.push_str(&format!(
                "share.coordinator.state.topic.replication.factor={copies}\n{SHARE}"
            ));
        }
        lines.push_str(COMMON);
        lines
    }

    /// Only a node with the controller role needs the tool; a broker's directory needs its ids
    /// alone.
    fn format(&self, id: i32) {
        let mut tool = jars::java(&self.jars, &["-Xmx128m"], None);
        tool.arg("kafka.tools.StorageTool").args(["format", "--cluster-id", &self.id, "--config"]);
        tool.arg(self.config(id));
        if self.version.starts_with("4.1") {
            tool.args(["--feature", "share.version=1"]);
        }
        let done = tool.output().unwrap();
        let errors = String::from_utf8_lossy(&done.stderr);
        assert!(done.status.success(), "StorageTool: {errors}");
    }

    fn start_node(&mut self, id: i32) {
        let heap = if id == CONTROLLER { "-Xmx200m" } else { "-Xmx640m" };
        let mut command =
            jars::java(&self.jars, &["-Xms64m", heap, "-Dfirebreak.log.level=info"], None);
        command.arg("kafka.Kafka").arg(self.config(id));
        let log = self.dir.path().join(format!("{id}.log"));
        self.nodes.get_mut(&id).unwrap().process = Some(Process::start(&mut command, &log));
    }
}

/// 22 characters of base64, as Kafka's own ids.
fn cluster_id() -> String {
    let hex = uuid::Uuid::new_v4().simple().to_string();
    format!("fb{}", &hex[..20])
}

/// The node id of the separate controller; far from the brokers', which no client may depend on.
const CONTROLLER: i32 = 100;

/// Everybody may do everything that no ACL forbids.
const AUTHORIZER: &str = "\
authorizer.class.name=org.apache.kafka.metadata.authorizer.StandardAuthorizer
allow.everyone.if.no.acl.found=true
";

/// Brokers and the harness come without a name; the proxy comes with its own.
const SUPER_USERS: &str = "super.users=User:ANONYMOUS;User:firebreak;User:CN=firebreak\n";

const SHARE: &str = "\
group.share.heartbeat.interval.ms=500
group.share.min.heartbeat.interval.ms=500
share.coordinator.state.topic.num.partitions=4
share.coordinator.state.topic.min.isr=1
";

/// Records of the tests have fixed timestamps, long past: a retention by time would delete them at
/// the first check, 30 s after a broker's start. The cleaner looks for work every 15 s by itself.
const COMMON: &str = "\
log.retention.ms=-1
log.cleaner.backoff.ms=1000
offsets.topic.num.partitions=4
transaction.state.log.num.partitions=4
transaction.state.log.min.isr=1
group.initial.rebalance.delay.ms=0
group.consumer.heartbeat.interval.ms=500
group.consumer.min.heartbeat.interval.ms=500
auto.create.topics.enable=false
auto.leader.rebalance.enable=false
message.max.bytes=41943040
replica.fetch.max.bytes=41943040
broker.session.timeout.ms=4000
broker.heartbeat.interval.ms=500
";
