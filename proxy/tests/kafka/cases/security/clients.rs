//! Clients that log in: Java, librdkafka (kcat), franz-go, kafka-python.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Once;

use serde_json::{Value, json};

use crate::cases::{command, kcat};
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

    /// Properties of librdkafka, as kcat takes them.
    fn librdkafka(&self) -> Vec<String> {
        let mut all = vec![format!("security.protocol={}", self.protocol().to_lowercase())];
        all.push(format!("ssl.ca.location={}", self.ca.display()));
        all.push("ssl.endpoint.identification.algorithm=https".to_owned());
        if let Some((mechanism, user, password)) = &self.sasl {
            all.push(format!("sasl.mechanisms={mechanism}"));
            if mechanism == "OAUTHBEARER" {
                all.push("enable.sasl.oauthbearer.unsecure.jwt=true".to_owned());
                all.push(format!("sasl.oauthbearer.config=principal={user}"));
            } else {
                all.push(format!("sasl.username={user}"));
                all.push(format!("sasl.password={password}"));
            }
        }
        if let Some((cert, key, _)) = &self.own {
            all.push(format!("ssl.certificate.location={}", cert.display()));
            all.push(format!("ssl.key.location={}", key.display()));
        }
        all.iter().flat_map(|one| ["-X".to_owned(), one.clone()]).collect()
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
    pub const ALL: [Self; 4] = [Self::Java, Self::Librdkafka, Self::FranzGo, Self::Python];

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
        match self {
            Self::Java => {
                let mut config = login.java();
                config["max.block.ms"] = json!(wait_ms);
                config["default.api.timeout.ms"] = json!(wait_ms);
                let round = json!({"config": config, "count": count, "until_refused": true});
                rig.java.must("round", command(place, &round))
            }
            Self::Librdkafka => librdkafka(place, login, count),
            Self::FranzGo => {
                let mut wanted = login.franz_go(place);
                (wanted["count"], wanted["wait_ms"]) = (json!(count), json!(wait_ms));
                franz_go::round(&wanted)
            }
            Self::Python => {
                let mut wanted = login.python(place);
                (wanted["count"], wanted["wait_ms"]) = (json!(count), json!(wait_ms));
                python(&wanted)
            }
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
            Self::Librdkafka => (&outcome["written"], &outcome["read"]),
            Self::FranzGo => (&outcome["written"], &outcome["read"]["records"]),
            Self::Python => (&outcome["answers"]["written"], &outcome["read"]["records"]),
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
        if self == Self::Librdkafka {
            let told = refused_librdkafka(place, login);
            assert!(told.is_some(), "{what}: not refused");
            return json!(told);
        }
        let outcome = self.round_of(rig, place, login, (1, 4000));
        assert!(self.is(&outcome, false, false), "{what}: {outcome:#}");
        outcome
    }
}

fn librdkafka(place: &Place, login: &Login, count: usize) -> Value {
    let lines: String = (0..count).map(|n| format!("key-{n}:value {n}\n")).collect();
    let partition = partition(place);
    let to =
        ["-P", "-K", ":", "-t", &place.topic, "-p", partition, "-X", "message.timeout.ms=15000"];
    let sent = run(place, login, &to, &lines);
    let written = if sent.is_ok() { json!(count) } else { json!(0) };
    let from = ["-C", "-q", "-t", &place.topic, "-p", partition, "-o", "beginning", "-e"];
    let read = match run(place, login, &from, "") {
        Ok(text) => json!(text.lines().count()),
        Err(_) => json!("refused"),
    };
    json!({"written": written, "read": read})
}

/// Where records without a region go: the slot `other` of a virtual topic.
fn partition(place: &Place) -> &'static str {
    if place.topic.starts_with("virtual") { "1" } else { "0" }
}

/// How librdkafka tells that it is not let in; `None` if it is.
fn refused_librdkafka(place: &Place, login: &Login) -> Option<String> {
    let told = run(place, login, &["-L", "-m", "5"], "").err()?;
    let why = ["SASL authentication error", "SSL handshake failed", "Disconnected"];
    Some(why.into_iter().find(|why| told.contains(why)).unwrap_or("another way").to_owned())
}

/// Runs kcat; what it said if it failed.
fn run(place: &Place, login: &Login, more: &[&str], input: &str) -> Result<String, String> {
    kcat::available();
    let mut command = Command::new("timeout");
    command.arg("40");
    if place.bootstrap.contains("test:") {
        // It takes names from the machine only: it gets a file of hosts of its own.
        command.args(["unshare", "--map-root-user", "--mount", "sh", "-c", OWN_HOSTS]);
        command.arg(&login.hosts);
    }
    command.args(["kcat", "-b", &place.bootstrap]).args(login.librdkafka()).args(more);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    // It may end before it read everything.
    let _ = child.stdin.take().unwrap().write_all(input.as_bytes());
    let done = child.wait_with_output().unwrap();
    let errors = String::from_utf8_lossy(&done.stderr).into_owned();
    let failed = !done.status.success() || errors.contains("uthorization failed");
    let text = String::from_utf8_lossy(&done.stdout).into_owned();
    if failed {
        crate::rig::tell(&format!("kcat {more:?}, {}: {errors}", done.status));
        Err(errors)
    } else {
        Ok(text)
    }
}

/// Runs the script with kafka-python, which is fetched the first time.
fn python(wanted: &Value) -> Value {
    static FETCHED: Once = Once::new();
    let folder = crate::jars::folder("4.3.1").with_file_name(format!("kafka-python-{PYTHON}"));
    FETCHED.call_once(|| fetch(&folder));
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/kafka/python/secure.py");
    let mut python = Command::new("timeout");
    python.arg("120").arg(folder.join("bin/python")).arg(script).arg(wanted.to_string());
    let done = python.output().unwrap();
    let errors = String::from_utf8_lossy(&done.stderr);
    let last = String::from_utf8_lossy(&done.stdout).lines().last().unwrap_or_default().to_owned();
    serde_json::from_str(&last).unwrap_or_else(|_| panic!("kafka-python: {last}\n{errors}"))
}

fn fetch(folder: &Path) {
    if folder.join("bin/pip").exists()
        && Command::new(folder.join("bin/python"))
            .args(["-c", "import kafka"])
            .status()
            .is_ok_and(|status| status.success())
    {
        return;
    }
    let made = Command::new("python3").args(["-m", "venv"]).arg(folder).status();
    assert!(made.is_ok_and(|status| status.success()), "python3 with venv is needed");
    let wanted = format!("kafka-python=={PYTHON}");
    let done = Command::new(folder.join("bin/pip")).args(["install", "-q", &wanted]).status();
    assert!(done.is_ok_and(|status| status.success()), "{wanted} cannot be fetched");
}

const PYTHON: &str = "3.0.12";

/// Runs its further arguments with its first as the machine's file of hosts.
const OWN_HOSTS: &str = r#"mount --bind "$0" /etc/hosts && exec "$@""#;
