//! What a change of the configuration does to flows that live through it (`dataplane::session::recheck` does it).

use super::difference::{Change, What};

impl Change {
    /// What it does to live flows, in a sentence without a full stop. Empty where they notice nothing.
    #[must_use]
    pub fn flows(&self) -> &'static str {
        let mut path = self.key.split('.');
        let section = path.next().unwrap_or("").split('[').next().unwrap_or("");
        let (kind, name, key) = (path.next(), path.next(), path.next());
        let added = matches!(self.what, What::Added(_));
        let removed = matches!(self.what, What::Removed(_));
        match (section, kind, name) {
            ("timers", _, _) => "sessions have the new times from their next packet on",
            ("routes", _, _) => "packets take the new way at once; sessions go on if it leads to their own zone",
            ("interfaces", ..) => interface(name, removed),
            ("nptv6" | "map66" | "netmap", _, Some("outside")) => {
                "packets have the new prefix at once; what comes for the old one is dropped (prefix-former)"
            }
            ("nptv6" | "map66" | "netmap" | "siit", ..) => "holds at once for every packet",
            ("pools", ..) => pool(name, added, removed),
            ("nat44", Some("rules"), Some(_)) => rule(key, added, removed),
            ("nat44", Some("rules"), None) => "sessions that another rule now comes first for end",
            ("nat44", Some("forwards"), Some(_)) => match (added, removed) {
                (true, _) => "mappings that hold a port of the same blocks of 64 end",
                (_, true) => "its sessions end",
                _ => "sessions that it no longer describes end",
            },
            ("nat44", Some("static"), Some(_)) => match (added, removed) {
                (true, _) => "the inside host's other sessions end, and what is mapped to the address",
                (_, true) => "its sessions end",
                _ => "sessions that it no longer describes end",
            },
            _ => "",
        }
    }
}

fn interface(key: Option<&str>, removed: bool) -> &'static str {
    match key {
        None if removed => "its neighbours are forgotten, and packets find no way there",
        Some("port" | "vlan" | "outer-vlan" | "mac") => "its neighbours are asked for again",
        Some("zone") => "sessions between other zones than its rules now name end",
        Some("addresses") => "neighbours on a prefix that has gone are no longer reached",
        _ => "",
    }
}

fn pool(key: Option<&str>, added: bool, removed: bool) -> &'static str {
    match key {
        None if added => "",
        None if removed => "its sessions end",
        Some("ports") => "sessions on ports that it no longer gives out end",
        Some(key) if key.starts_with("addresses") => {
            "an address that leaves is drained: its sessions go on, new flows go elsewhere"
        }
        _ => "",
    }
}

fn rule(key: Option<&str>, added: bool, removed: bool) -> &'static str {
    match key.map(|key| key.split('[').next().unwrap_or(key)) {
        None if added => "sessions that it now comes first for end",
        None if removed => "its sessions end",
        Some("from" | "to" | "source" | "destination") => "sessions that it no longer covers end",
        Some("pool") => "its sessions end",
        Some("profile" | "filtering") => "holds at once for what comes from outside; sessions go on",
        Some("pooling" | "port-preservation" | "port-parity" | "inbound-refresh") => "holds for new flows",
        _ => "",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every change that an operator may make has its sentence; what changes nothing for flows has none.
    #[test]
    fn changes_say_what_they_do_to_flows() {
        let of = |key: &str, what: What| Change { key: key.to_owned(), what }.flows();
        let changed = || What::Changed { old: "a".to_owned(), new: "b".to_owned() };
        let (added, removed) = (|| What::Added("a".to_owned()), || What::Removed("a".to_owned()));
        assert_eq!(of("nat44.rules.one", removed()), "its sessions end");
        assert_eq!(of("nat44.rules.one.pool", changed()), "its sessions end");
        assert_eq!(of("nat44.rules.one.source[1]", removed()), "sessions that it no longer covers end");
        assert!(of("nat44.rules.one", added()).contains("comes first"));
        let reordered = What::Reordered { old: "a, b".to_owned(), new: "b, a".to_owned() };
        assert!(of("nat44.rules", reordered).contains("comes first"));
        assert!(of("pools.public.addresses[0]", removed()).contains("drained"));
        assert!(of("pools.public.addresses", changed()).contains("drained"));
        assert_eq!(of("pools.public", added()), "");
        assert!(of("timers.udp", changed()).contains("next packet"));
        assert!(of("routes[0].via", changed()).contains("at once"));
        assert_eq!(of("icmp.rate", changed()), "");
    }
}
