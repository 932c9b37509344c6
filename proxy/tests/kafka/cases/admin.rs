//! Every call of the Java admin client, results and error texts alike.

use serde_json::json;

use super::{command, expect};
use crate::rig::Rig;

pub fn every_call(rig: &mut Rig) {
    rig.compare("admin", 0, |rig, place| {
        let brokers = rig.cluster.brokers();
        let outcome = rig.java.must("admin", command(place, &json!({"brokers": brokers})));
        expect(&outcome, "/create topics/partitions", 3);
        expect(&outcome, "/create partitions", "done");
        expect(&outcome, "/produce", "done");
        expect(&outcome, "/delete topics", "done");
        let steps = outcome.as_object().unwrap();
        let errors = steps.values().filter(|step| step.to_string().starts_with("\"error")).count();
        crate::rig::tell(&format!(
            "{} admin: {} steps, {errors} of them refusals, {}",
            rig.cluster.version,
            steps.len(),
            if place.proxied { "proxied" } else { "direct" }
        ));
        outcome
    });
}
