//! Clients that log in: Java, librdkafka, franz-go; and kcat (an old librdkafka), kafka-python.

use std::io::Write;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use serde_json::{Value, json};

use crate::cases::command;
use crate::certs::Certificate;
use crate::franz_go;
use crate::rig::{Place, Rig};
use crate::secured::{ALICE, Secured};

/// A client.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Client {
    Java,
    Librdkafka,
    FranzGo,
    Python,
    /// Debian's, whose librdkafka (before 2.6.1) sends a nonce in SCRAM that Kafka 4 refuses.
    Kcat,
}

/// How a client proves who it is.
pub struct Login {
    /// Mechanism, name, password.
    sasl: Option<(String, String, String)>,
    ca: PathBuf,
    hosts: PathBuf,
    /// Certificate, key, and both in one file.
    own: Option<(PathBuf, PathBuf, PathBuf)>,
}

const COUNT: usize = 20;

impl Login {
    /// Alice with her password.
    pub fn alice(rig: &Rig, mechanism: &str) -> Self {
        Self::sasl(rig.cluster.secured.as_ref().unwrap(), mechanism, ALICE)
    }

    /// SASL in TLS.
    pub fn sasl(secured: &Secured, mechanism: &str, (user, password): (&str, &str)) -> Self {
        let sasl = Some((mechanism.to_owned(), user.to_owned(), password.to_owned()));
        Self { sasl, ca: secured.file("servers.pem"), hosts: secured.hosts(), own: None }
    }

    /// TLS, with a certificate or without.
    pub fn certificate(secured: &Secured, own: Option<&Certificate>) -> Self {
        let own = own.map(|own| {
            let (cert, key) = own.write(&secured.file(""), "client");
            (cert, key, secured.store("client", own))
        });
        Self { sasl: None, ca: secured.file("servers.pem"), hosts: secured.hosts(), own }
    }

    fn protocol(&self) -> &'static str {
        if self.sasl.is_some() { "SASL_SSL" } else { "SSL" }
    }

    /// Properties of a Java client.
    pub fn java(&self) -> Value {
        let mut config = json!({
            "security.protocol": self.protocol(),
            "ssl.truststore.type": "PEM",
            "ssl.truststore.location": self.ca,
        });
        if let Some((mechanism, user, password)) = &self.sasl {
            let modules = "org.apache.kafka.common.security";
            config["sasl.mechanism"] = json!(mechanism);
            config["sasl.jaas.config"] = json!(match mechanism.as_str() {
                "OAUTHBEARER" => format!(
                    "{modules}.oauthbearer.OAuthBearerLoginModule required \
                     unsecuredLoginStringClaim_sub=\"{user}\";"
                ),
                "PLAIN" => format!(
                    "{modules}.plain.PlainLoginModule required username=\"{user}\" \
                     password=\"{password}\";"
                ),
                _ => format!(
                    "{modules}.scram.ScramLoginModule required username=\"{user}\" \
                     password=\"{password}\";"
                ),
            });
        }
        if let Some((.., store)) = &self.own {
            config["ssl.keystore.type"] = json!("PEM");
            config["ssl.keystore.location"] = json!(store);
        }
        config
    }

    /// Properties of librdkafka.
    fn librdkafka(&self, place: &Place) -> Value {
        let mut all = json!({
            "bootstrap.servers": place.bootstrap,
            "security.protocol": self.protocol().to_lowercase(),
            "ssl.ca.location": self.ca,
            "ssl.endpoint.identification.algorithm": "https",
        });
        if let Some((mechanism, user, password)) = &self.sasl {
            all["sasl.mechanisms"] = json!(mechanism);
            if mechanism == "OAUTHBEARER" {
                all["enable.sasl.oauthbearer.unsecure.jwt"] = json!("true");
                all["sasl.oauthbearer.config"] = json!(format!("principal={user}"));
            } else {
                all["sasl.username"] = json!(user);
                all["sasl.password"] = json!(password);
            }
        }
        if let Some((cert, key, _)) = &self.own {
            all["ssl.certificate.location"] = json!(cert);
            all["ssl.key.location"] = json!(key);
        }
        all
    }

    /// Settings of kafka-python, and what the script does with them.
    fn python(&self, place: &Place) -> Value {
        let mut settings = json!({
            "security_protocol": self.protocol(),
            "ssl_cafile": self.ca,
            "request_timeout_ms": 10_000,
        });
        let partition: i32 = partition(place).parse().unwrap();
        let mut wanted = json!({"bootstrap": place.bootstrap, "topic": place.topic,
            "partition": partition});
        if let Some((mechanism, user, password)) = &self.sasl {
            settings["sasl_mechanism"] = json!(mechanism);
            if mechanism == "OAUTHBEARER" {
                wanted["claim"] = json!(user);
            } else {
                settings["sasl_plain_username"] = json!(user);
                settings["sasl_plain_password"] = json!(password);
            }
        }
        if let Some((cert, key, _)) = &self.own {
            settings["ssl_certfile"] = json!(cert);
            settings["ssl_keyfile"] = json!(key);
        }
        (wanted["settings"], wanted["hosts"]) = (settings, self.names());
        wanted
    }

    /// What franz-go's program is told.
    fn franz_go(&self, place: &Place) -> Value {
        let partition: i32 = partition(place).parse().unwrap();
        let mut wanted = json!({"bootstrap": place.bootstrap, "topic": place.topic,
            "partition": partition, "ca": self.ca, "hosts": self.names()});
        if let Some((mechanism, user, password)) = &self.sasl {
            wanted["mechanism"] = json!(mechanism);
            (wanted["user"], wanted["password"]) = (json!(user), json!(password));
        }
        if let Some((cert, key, _)) = &self.own {
            (wanted["cert"], wanted["key"]) = (json!(cert), json!(key));
        }
        wanted
    }

    /// Addresses by name, for clients that take them so.
    fn names(&self) -> Value {
        let hosts = std::fs::read_to_string(&self.hosts).unwrap();
        let hosts = hosts.lines().filter_map(|line| line.split_once(' '));
        Value::Object(hosts.map(|(address, name)| (name.to_owned(), json!(address))).collect())
    }
}

impl Client {
    /// Three libraries that have nothing in common.
    pub const ALL: [Self; 3] = [Self::Java, Self::Librdkafka, Self::FranzGo];

    /// Others that know this mechanism.
    pub fn more(mechanism: &str) -> impl Iterator<Item = Self> {
        let kcat = mechanism == "PLAIN";
        [Self::Python, Self::Kcat].into_iter().filter(move |one| *one != Self::Kcat || kcat)
    }

    /// Whether it can be told where the names lead that only a test knows.
    pub fn takes_names(self) -> bool {
        let unshare = ["--map-root-user", "--mount", "true"];
        self != Self::Librdkafka
            || Command::new("unshare").args(unshare).status().is_ok_and(|done| done.success())
    }

    /// Writes records to one partition and reads them back; what was refused is told by its name.
    pub fn round(self, rig: &mut Rig, place: &Place, login: &Login) -> Value {
        self.round_of(rig, place, login, (COUNT, 15_000))
    }

    fn round_of(
        self,
        rig: &mut Rig,
        place: &Place,
        login: &Login,
        (count, wait_ms): (usize, u32),
    ) -> Value {
        let with_count = |mut wanted: Value| {
            (wanted["count"], wanted["wait_ms"]) = (json!(count), json!(wait_ms));
            wanted
        };
        match self {
            Self::Java => {
                let mut config = login.java();
                config["max.block.ms"] = json!(wait_ms);
                config["default.api.timeout.ms"] = json!(wait_ms);
                let round = json!({"config": config, "count": count, "until_refused": true});
                rig.java.must("round", command(place, &round))
            }
            Self::Librdkafka => {
                let partition: i32 = partition(place).parse().unwrap();
                let wanted = json!({"config": login.librdkafka(place), "topic": place.topic,
                    "partition": partition});
                python(place, login, "librdkafka.py", &with_count(wanted))
            }
            Self::FranzGo => franz_go::round(&with_count(login.franz_go(place))),
            Self::Python => python(place, login, "secure.py", &with_count(login.python(place))),
            Self::Kcat => kcat(place, login, count),
        }
    }

    /// All was written and read.
    pub fn expect_all(self, outcome: &Value, what: &str) {
        self.expect(outcome, what, true, true);
    }

    /// All or nothing was written, and read.
    pub fn expect(self, outcome: &Value, what: &str, wrote: bool, read: bool) {
        assert!(self.is(outcome, wrote, read), "{what}: wanted {wrote}, {read}: {outcome:#}");
    }

    /// Whether all or nothing was written, and read.
    pub fn is(self, outcome: &Value, wrote: bool, read: bool) -> bool {
        let (written, got) = match self {
            Self::Java => (&outcome["produced"]["written"], &outcome["read"]["records"]),
            Self::Librdkafka | Self::FranzGo => (&outcome["written"], &outcome["read"]["records"]),
            Self::Python => (&outcome["answers"]["written"], &outcome["read"]["records"]),
            Self::Kcat => (&outcome["written"], &outcome["read"]),
        };
        let all = u64::try_from(COUNT).unwrap();
        let written = written.as_u64().unwrap_or(0);
        // Who may not write has nothing to read in a topic of its own.
        let enough = if wrote { all } else { 0 };
        (if wrote { written == all } else { written == 0 })
            && match got.as_u64() {
                None => !read,
                Some(got) if read => got >= enough,
                Some(got) => got == 0,
            }
    }

    /// Nothing is written nor read: the login fails, and how that is told.
    pub fn refused(self, rig: &mut Rig, place: &Place, login: &Login, what: &str) -> Value {
        let outcome = self.round_of(rig, place, login, (1, 4000));
        assert!(self.is(&outcome, false, false), "{what}: {outcome:#}");
        outcome
    }
}

/// Where records without a region go: the slot `other` of a virtual topic.
fn partition(place: &Place) -> &'static str {
    if place.topic.starts_with("virtual") { "1" } else { "0" }
}

fn kcat(place: &Place, login: &Login, count: usize) -> Value {
    let lines: String = (0..count).map(|n| format!("key-{n}:value {n}\n")).collect();
    let partition = partition(place);
    let to =
        ["-P", "-K", ":", "-t", &place.topic, "-p", partition, "-X", "message.timeout.ms=15000"];
    let written = if run(place, login, &to, &lines).is_some() { count } else { 0 };
    let from = ["-C", "-q", "-t", &place.topic, "-p", partition, "-o", "beginning", "-e"];
    let read = run(place, login, &from, "").map(|text| text.lines().count());
    json!({"written": written, "read": read})
}

/// Runs kcat; gives what it printed if it did what it should.
fn run(place: &Place, login: &Login, more: &[&str], input: &str) -> Option<String> {
    let mut command = crate::cases::kcat::command(40);
    command.arg("kcat").args(more);
    for (name, value) in login.librdkafka(place).as_object().unwrap() {
        command.args(["-X", &format!("{name}={}", value.as_str().unwrap())]);
    }
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    // It may end before it read everything.
    let _ = child.stdin.take().unwrap().write_all(input.as_bytes());
    let done = child.wait_with_output().unwrap();
    let errors = String::from_utf8_lossy(&done.stderr).into_owned();
    let ok = done.status.success() && !errors.contains("uthorization failed");
    if !ok {
        crate::rig::tell(&format!("kcat {more:?}, {}: {errors}", done.status));
    }
    ok.then(|| String::from_utf8_lossy(&done.stdout).into_owned())
}

/// Runs a script with the clients of Python.
fn python(place: &Place, login: &Login, script: &str, wanted: &Value) -> Value {
    let hosts = place.bootstrap.contains("test:").then_some(login.hosts.as_ref());
    crate::python::run(script, wanted, hosts)
}
