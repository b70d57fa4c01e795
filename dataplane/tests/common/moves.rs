//! Lists of counters that move, for [`Lab::moved`]: what a scenario adds up to.

use std::collections::BTreeMap;

use dataplane::counters::Drop;

use super::{Lab, tally};

/// By how much each counter moves, by its name in [`tally`].
#[derive(Clone, Debug, Default)]
pub struct Moves(BTreeMap<String, i64>);

/// Nothing moves.
pub fn moves() -> Moves {
    Moves::default()
}

impl Moves {
    /// And this counter by that much.
    pub fn and(mut self, name: &str, change: i64) -> Moves {
        *self.0.entry(name.into()).or_default() += change;
        self
    }

    /// `n` packets from the inside interface, translated, out of the outside one.
    pub fn outbound(self, n: i64) -> Moves {
        self.and("received", n).and("inside-received", n).and("nat44-out", n).sent("outside", n)
    }

    /// `n` packets from the outside interface, translated, out of the inside one.
    pub fn inbound(self, n: i64) -> Moves {
        self.and("received", n).and("outside-received", n).and("nat44-in", n).sent("inside", n)
    }

    /// `n` packets received by this interface, dropped for this reason.
    pub fn dropped(self, interface: &str, reason: Drop, n: i64) -> Moves {
        self.and("received", n).and(&format!("{interface}-received"), n).and(&format!("drop-{}", reason.name()), n)
    }

    /// `n` ICMP errors of our own, e.g. `"icmp4-3/1"`, out of this interface.
    pub fn answered(self, interface: &str, error: &str, n: i64) -> Moves {
        self.and("originated", n).and(error, n).sent(interface, n)
    }

    /// `n` packets from the inside interface, turned round, out of the same.
    pub fn hairpinned(self, n: i64) -> Moves {
        let moves = self.and("received", n).and("inside-received", n).and("hairpins", n);
        moves.and("nat44-out", n).and("nat44-in", n).sent("inside", n)
    }

    fn sent(self, interface: &str, n: i64) -> Moves {
        self.and("transmitted", n).and(&format!("{interface}-transmitted"), n)
    }

    /// `n` sessions of a class (`"udp-active"`) made, and `mappings` mappings for them.
    pub fn opened(self, class: &str, n: i64, mappings: i64) -> Moves {
        self.and("session-creations", n).and("mapping-creations", mappings).present(class, n, mappings)
    }

    /// `n` sessions of a class ended by their timer, and `mappings` mappings with them.
    pub fn expired(self, class: &str, n: i64, mappings: i64) -> Moves {
        self.and("session-timeouts", n).present(class, -n, -mappings)
    }

    fn present(self, class: &str, sessions: i64, mappings: i64) -> Moves {
        let (proto, _) = class.split_once('-').expect("a protocol and a state");
        self.and(&format!("sessions-{class}"), sessions).and(&format!("mappings-{proto}"), mappings)
    }

    /// A session is now counted under another class.
    pub fn turned(self, from: &str, to: &str) -> Moves {
        self.and(&format!("sessions-{from}"), -1).and(&format!("sessions-{to}"), 1)
    }
}

impl Lab {
    /// Asserts that exactly these counters moved since the last call, or since [`Lab::recount`].
    #[track_caller]
    pub fn moved(&mut self, moves: Moves) {
        let moves = moves.0.into_iter().filter(|(_, change)| *change != 0);
        self.counted(&moves.map(|(name, change)| format!("{name} {change}")).collect::<Vec<_>>().join(", "));
    }

    /// What has moved so far is not looked at.
    pub fn recount(&mut self) {
        self.counted = tally::tally(&self.counters, &self.worker.engine().plan().spec.interfaces);
    }
}
