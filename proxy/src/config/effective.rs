//! The configuration in force, for `/config` and to tell what a reload changes.

use protocol_ext::json::Pointer;
use serde_json::{Value, json};

use super::{BrokersSee, Config, OffloadRule, VirtualTopic};
use crate::route::region::{Area, Rule, ValueRule};

impl Config {
    /// What is in force, in the shape of the file. Of secrets only the files are named.
    pub fn effective(&self) -> Value {
        let Self { listen, cluster, store, offload, virtual_topics, limits, admin } = self;
        let topics = virtual_topics.iter().map(VirtualTopic::effective);
        let bootstrap: Vec<String> =
            cluster.bootstrap.iter().map(|(host, port)| format!("{host}:{port}")).collect();
        json!({
            "listen": {
                "bootstrap": listen.bootstrap.to_string(),
                "advertise": listen.advertise,
                "ports": format!("{}-{}", listen.ports.first, listen.ports.last),
                "broker_ports": listen.ports.mapped,
                "proxy_protocol_from":
                    listen.balancers.iter().map(ToString::to_string).collect::<Vec<_>>(),
                "tls": listen.tls.as_ref().map(|tls| json!({
                    "cert": tls.cert, "key": tls.key, "client_ca": tls.client_ca,
                })),
                "sasl": listen.sasl.as_ref().map(|sasl| json!({
                    "mechanisms": sasl.mechanisms.iter().map(|m| m.name()).collect::<Vec<_>>(),
                    "users_file": sasl.users_file,
                    "brokers_see": match sasl.brokers_see {
                        BrokersSee::Proxy => "proxy",
                        BrokersSee::Client => "client",
                    },
                    "session_ms": sasl.session.map_or(0, |session| session.as_millis()),
                })),
                "passthrough": listen.passthrough.as_ref().map(|beside| json!({
                    "bootstrap": beside.bootstrap.to_string(),
                    "ports": format!("{}-{}", beside.ports.first, beside.ports.last),
                })),
                "sni": listen.sni.as_ref().map(|names| format!(
                    "{}{{node}}{}", names.before, names.after,
                )),
            },
            "admin": { "address": admin.to_string() },
            "cluster": [{
                "name": cluster.name,
                "bootstrap": bootstrap,
                "sasl": cluster.sasl.as_ref().map(|sasl| json!({
                    "mechanism": sasl.mechanism.name(),
                    "username": sasl.username,
                    "password_file": sasl.password_file,
                })),
                "tls": cluster.tls.as_ref().map(|tls| json!({
                    "ca": tls.ca,
                    "cert": tls.own.as_ref().map(|(cert, _)| cert),
                    "key": tls.own.as_ref().map(|(_, key)| key),
                })),
            }],
            "store": store.as_ref().map(super::Store::effective),
            "offload": offload.iter().map(OffloadRule::effective).collect::<Vec<_>>(),
            "virtual_topic": topics.collect::<Vec<_>>(),
            "limits": {
                "frame_bytes_max": limits.frame_bytes_max,
                "connections_max": limits.connections_max,
                "connections_per_address_max": limits.connections_per_address_max.unwrap_or(0),
                "unproven_max": limits.unproven_max,
                "buffered_bytes_max": limits.buffered_bytes_max,
                "connect_ms": limits.connect.as_millis(),
                "handshake_ms": limits.handshake.as_millis(),
                "first_request_ms": limits.first_request.as_millis(),
                "frame_progress_ms": limits.frame_progress.as_millis(),
                "idle_ms": limits.idle.as_millis(),
                "age_ms": limits.age.map_or(0, |age| age.as_millis()),
                "drain_ms": limits.drain.as_millis(),
                "refresh_ms": limits.refresh.as_millis(),
            },
        })
    }
}

impl VirtualTopic {
    fn effective(&self) -> Value {
        let areas = self.regions.iter().map(|region| match &region.area {
            Some(Area::Box { south, north, west, east }) => {
                json!({ "south": south, "north": north, "west": west, "east": east })
            }
            Some(Area::Polygon(corners)) => json!({ "polygon": corners }),
            None => Value::Null,
        });
        let areas: Vec<Value> = areas.collect();
        json!({
            "name": self.name, "partitions": self.partitions, "region": self.rule.effective(),
            "slots": self.slots, "areas": areas, "days": self.days,
            "retention_days": self.retention_days,
            "day_from": if self.open_days > 1 { "timestamp" } else { "arrival" },
            "open_days": self.open_days, "create_ahead_s": self.create_ahead.as_secs(),
        })
    }
}

impl Rule {
    /// The rule as the file could have it.
    fn effective(&self) -> Value {
        let text = |pointer: &Pointer| pointer.to_string();
        let (place, field) = match &self.value {
            Some(ValueRule::Place(a, b)) => ([Some(text(a)), Some(text(b))], None),
            Some(ValueRule::Name(name)) => ([None, None], Some(text(name))),
            None => ([None, None], None),
        };
        let [latitude, longitude] = place;
        json!({
            "header": self.header, "latitude": latitude, "longitude": longitude,
            "field": field, "key_prefix": self.key_prefix,
        })
    }
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;
    use crate::config::raw::Flags;

    /// Keys that show under another name, or stand for what others show.
    const ELSEWHERE: [&str; 2] = ["cluster.0.node_id_base", "region"];

    fn missing(at: &str, file: &toml::Value, shown: &Value, out: &mut Vec<String>) {
        let below = |key: &str| if at.is_empty() { key.to_owned() } else { format!("{at}.{key}") };
        match file {
            toml::Value::Table(table) => {
                table.iter().for_each(|(key, v)| missing(&below(key), v, &shown[key], out));
            }
            toml::Value::Array(all) if all.iter().any(toml::Value::is_table) => {
                let all = all.iter().enumerate();
                all.for_each(|(n, v)| missing(&below(&n.to_string()), v, &shown[n], out));
            }
            _ if shown.is_null() => out.push(at.to_owned()),
            _ => {}
        }
    }

    /// What is not here is told by no reload and shown by no `/config`.
    #[test]
    fn every_key_of_the_example_shows() {
        let text = include_str!("../../../firebreak.example.toml");
        let text = text.replace("\"fail\"", "\"inline\"");
        let text = text.replace("# inline_bytes_max", "inline_bytes_max");
        let shown = Config::parse(&text, &Flags::default()).expect("valid").effective();
        let mut out = Vec::new();
        missing("", &toml::from_str(&text).expect("TOML"), &shown, &mut out);
        out.retain(|key| !ELSEWHERE.iter().any(|elsewhere| key.starts_with(elsewhere)));
        assert_eq!(out, Vec::<String>::new(), "keys that do not show");
    }
}
