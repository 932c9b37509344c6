//! Each promise is broken on purpose, by a named fault of the binary; its check must see it on a
//! real Kafka too.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;

use serde_json::json;

use super::{Client, Login, asking_for_certificates, certificate, deny, ending};
use super::{named, names_lead, proxy, rotate, topic, under_load, upstream};
use crate::rig::{Rig, tell};

/// A fault, the check that must fail with it, and what the check must complain of.
type Promise = (&'static str, fn(&mut Rig), &'static str);

const PROMISES: [Promise; 8] = [
    ("any-password-taken", a_wrong_password, "a wrong password"),
    ("handshake-0-hidden", kcat_passes, "wanted true, true"),
    ("lifetime-untold", sessions, "sessions ended"),
    ("client-certificate-unasked", no_certificate, "no certificate"),
    ("renewal-ignored", |rig| rotate(rig, &proxy(rig, "", &upstream(rig, "PLAIN"), "")), "new"),
    ("any-name-served", names, "one port, broker"),
    ("users-hidden", forbidden_where_sasl_ends, "wanted false, true"),
    ("legs-unasked", super::writes_forbidden_through_legs, "wanted false, true"),
];

/// With the fault the check fails as it must; without it it passes.
pub fn each_broken_promise_is_seen(rig: &mut Rig) {
    for (fault, check, complaint) in PROMISES {
        check(rig);
        rig.faults = Some(format!("{fault}=return"));
        let failed = catch_unwind(AssertUnwindSafe(|| check(rig)));
        rig.faults = None;
        let why = match failed {
            Ok(()) => panic!("{fault}: its check passes though the promise is broken"),
            Err(why) => why.downcast_ref::<String>().cloned().unwrap_or_default(),
        };
        assert!(why.contains(complaint), "{fault}: another complaint: {why}");
        tell(&format!("{fault} is seen: {}", why.lines().next().unwrap_or_default()));
        rig.executed();
    }
    tell(&format!("{0} of {0} broken promises of security were seen", PROMISES.len()));
}

fn a_wrong_password(rig: &mut Rig) {
    let proxy = ending(rig, "proxy", "SCRAM-SHA-512", "");
    super::wrong_password(rig, &proxy, Client::Librdkafka, "PLAIN");
}

fn kcat_passes(rig: &mut Rig) {
    let proxy = proxy(rig, "", &upstream(rig, "PLAIN"), "");
    let login = Login::alice(rig, "PLAIN");
    let place = topic(rig, &proxy, 1);
    let outcome = Client::Kcat.round(rig, &place, &login);
    Client::Kcat.expect_all(&outcome, "kcat, through");
}

fn sessions(rig: &mut Rig) {
    let proxy = ending(rig, "client", "SCRAM-SHA-256", ", session_ms = 10000");
    under_load(rig, &proxy, "SCRAM-SHA-512", Duration::from_secs(12), |_| ());
}

fn no_certificate(rig: &mut Rig) {
    let proxy = asking_for_certificates(rig);
    let place = topic(rig, &proxy, 1);
    Client::Librdkafka.refused(rig, &place, &certificate(rig, None), "no certificate");
}

fn names(rig: &mut Rig) {
    let proxy = named(rig);
    names_lead(rig, &proxy, &[Client::FranzGo]);
}

fn forbidden_where_sasl_ends(rig: &mut Rig) {
    let proxy = ending(rig, "client", "PLAIN", "");
    let place = topic(rig, &proxy, 1);
    deny(rig, "WRITE", &json!({"topic": place.topic}));
    let outcome = Client::FranzGo.round(rig, &place, &Login::alice(rig, "PLAIN"));
    Client::FranzGo.expect(&outcome, "WRITE denied", false, true);
}
