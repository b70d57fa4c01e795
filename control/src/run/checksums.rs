//! Wrong transport checksums in what is received: one warning for each interface.
//!
//! A cable does not make them: the Ethernet FCS sees to that. Nearly always a sender leaves checksums to hardware that there
//! is none of (a virtual machine, a container), and its packets are lost at their receivers for no visible reason.

use std::collections::HashSet;

use dataplane::counters::Counters;

/// The interfaces that have been warned of.
#[derive(Debug, Default)]
pub(super) struct ChecksumWatch {
    warned: HashSet<String>,
}

impl ChecksumWatch {
    /// What is to be said now, after a look at what the workers count of the interfaces of these names, in the plan's order.
    pub(super) fn look<'a>(&mut self, interfaces: impl Iterator<Item = &'a str>, workers: &[&Counters]) -> Vec<String> {
        let mut warnings = Vec::new();
        for (name, at) in interfaces.zip(0usize..).filter(|(name, _)| !name.is_empty()) {
            let counters = || workers.iter().filter_map(|worker| worker.interfaces.get(at));
            let bad: u64 = counters().map(|interface| interface.checksum_bad.get()).sum();
            if bad > 0 && self.warned.insert(name.to_owned()) {
                let samples: u64 = counters().map(|interface| interface.checksum_samples.get()).sum();
                warnings.push(format!(
                    "interface {name}: {bad} of {samples} packets looked at came with a wrong TCP, UDP or ICMP checksum; they \
                     are forwarded as they are, and their receivers drop them: if the sender leaves checksums to \
                     hardware that does not compute them, run `ethtool -K IF tx off` there, IF being its device"
                ));
            }
        }
        warnings
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_interface_is_warned_of_once() {
        let workers = [Counters::new(2), Counters::new(2)];
        let mut watch = ChecksumWatch::default();
        let mut look = || watch.look(["lan", "wan"].into_iter(), &[&workers[0], &workers[1]]);
        workers[0].interfaces[1].checksum_samples.add(7);
        assert!(look().is_empty());
        workers[1].interfaces[1].checksum_samples.add(2);
        workers[1].interfaces[1].checksum_bad.add(2);
        let said = look();
        assert_eq!(said.len(), 1);
        assert!(said[0].starts_with("interface wan: 2 of 9 packets "), "{said:?}");
        assert!(said[0].contains("`ethtool -K IF tx off`"), "{said:?}");
        workers[0].interfaces[1].checksum_bad.add(1);
        assert!(look().is_empty());
        workers[0].interfaces[0].checksum_bad.add(1);
        assert!(look()[0].starts_with("interface lan: "));
    }
}
