//! Keys that are right by themselves and not together: ports taken twice, a proxy before itself.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};

use super::parse::Problems;
use super::{Cluster, Listen};

/// A listener's place, and the key that put it there.
struct Place {
    address: SocketAddr,
    key: &'static str,
    what: String,
}

/// Tells of listeners that cannot all be had, and of a cluster that is this proxy.
pub(super) fn conflicts(
    p: &mut Problems,
    listen: &Listen,
    admin: SocketAddr,
    cluster: Option<&Cluster>,
) {
    let places = places(listen, admin);
    let mut taken: BTreeMap<u16, Vec<&Place>> = BTreeMap::new();
    for place in places.iter().filter(|place| place.address.port() != 0) {
        let same = taken.entry(place.address.port()).or_default();
        if let Some(first) = same.iter().find(|first| meet(first.address.ip(), place.address.ip()))
        {
            let (port, first) = (place.address.port(), &first.what);
            let text = format!("port {port} of {} is taken by {first}", place.what);
            p.add(place.key, format!("{text}: every listener needs a port of its own"));
        } else {
            same.push(place);
        }
    }
    for (host, port) in cluster.iter().flat_map(|cluster| &cluster.bootstrap) {
        if let Some(own) = places.iter().find(|place| is_own(place, host, *port, listen)) {
            let text = format!("\"{host}:{port}\" is {} of this proxy itself", own.what);
            p.add("cluster.bootstrap", format!("{text}: name the brokers behind it"));
        }
    }
}

fn places(listen: &Listen, admin: SocketAddr) -> Vec<Place> {
    let place = |ip, port, key, what| Place { address: SocketAddr::new(ip, port), key, what };
    let ip = listen.bootstrap.ip();
    let bootstrap = "the bootstrap listener (listen.bootstrap)".to_owned();
    let mut places = vec![place(ip, listen.bootstrap.port(), "listen.bootstrap", bootstrap)];
    if listen.sni.is_none() {
        let ports = &listen.ports;
        for (port, node) in (ports.first..=ports.last).zip(0..) {
            // A broker with a port elsewhere leaves its place in the range to nobody.
            if !ports.mapped.iter().any(|(id, _)| *id == node) {
                let what = format!("broker {node} (listen.ports)");
                places.push(place(ip, port, "listen.ports", what));
            }
        }
        for (node, port) in &ports.mapped {
            let what = format!("broker {node} (listen.broker_ports)");
            places.push(place(ip, *port, "listen.broker_ports", what));
        }
    }
    if let Some(beside) = &listen.passthrough {
        let key = "listen.passthrough";
        let (ip, ports) = (beside.bootstrap.ip(), &beside.ports);
        let what = "the passthrough listener (listen.passthrough)".to_owned();
        places.push(place(ip, beside.bootstrap.port(), key, what));
        for (port, node) in (ports.first..=ports.last).zip(0..) {
            let what = format!("broker {node} (listen.passthrough)");
            places.push(place(ip, port, key, what));
        }
    }
    let what = "the admin port (admin.address)".to_owned();
    places.push(place(admin.ip(), admin.port(), "admin.address", what));
    places
}

/// Whether two listeners of one port exclude each other.
fn meet(a: IpAddr, b: IpAddr) -> bool {
    a == b || a.is_unspecified() || b.is_unspecified()
}

/// Whether a broker's address is one that this proxy listens on or tells its clients.
fn is_own(place: &Place, host: &str, port: u16, listen: &Listen) -> bool {
    if place.address.port() != port {
        return false;
    }
    let ip = place.address.ip();
    if place.key != "admin.address" && host.eq_ignore_ascii_case(&listen.advertise) {
        return true;
    }
    match host.parse::<IpAddr>() {
        Ok(host) => host == ip || (ip.is_unspecified() && host.is_loopback()),
        Err(_) => {
            host.eq_ignore_ascii_case("localhost") && (ip.is_unspecified() || ip.is_loopback())
        }
    }
}
