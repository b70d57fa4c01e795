//! The host under another plan: another configuration, or other links that are up.
//!
//! Addresses that stay go on as they are, new ones are brought up, and neighbours are forgotten where their interface is no
//! longer what it was. Behind a link that is down nothing is known: packets that wait for a neighbour there are answered, its
//! neighbours forgotten, its addresses at rest. When it is up again the addresses are announced (gratuitous ARP, RFC 5227
//! §3; unsolicited advertisement, RFC 4861 §7.2.6), and those whose test the fault cut short are tested again.

use std::net::IpAddr;
use std::sync::Arc;

use dataplane::message::ToWorker;
use dataplane::plan::{InterfaceId, InterfaceSpec, Plan};
use dataplane::time::Time;

use super::link::{ANNOUNCE_INTERVAL, Link};
use super::{Host, NudState};

impl Host {
    /// Goes over to `plan`, a successor of the present one ([`Plan::succeed`], [`Plan::with_links_down`]) that the workers have
    /// been given already.
    pub fn succeed(&mut self, plan: Arc<Plan>, now: Time, out: &mut Vec<ToWorker>) {
        let old = std::mem::replace(&mut self.plan, plan);
        let plan = Arc::clone(&self.plan);
        let before = |id: InterfaceId| old.interface(id).filter(|it| !it.name.is_empty());
        let ids = || (0..=u16::MAX).map(InterfaceId).zip(&plan.spec.interfaces);

        let mut effects = Vec::new();
        let strangers = self.neighbours.iter().filter(|neighbour| {
            let spec = plan.interface(neighbour.interface);
            let same = spec.zip(before(neighbour.interface)).is_some_and(|(new, old)| is_same_link(new, old));
            let listed = |address| spec.is_some_and(|spec| spec.neighbours.iter().any(|&(known, _)| known == address));
            let own = spec.is_some_and(|spec| spec.addresses.iter().any(|own| own.address == neighbour.address));
            !same || own || (neighbour.state == NudState::Permanent && !listed(neighbour.address))
        });
        let strangers: Vec<_> = strangers.map(|neighbour| (neighbour.interface, neighbour.address)).collect();
        strangers.into_iter().for_each(|key| self.neighbours.forget_one(key, &mut effects));
        for (id, spec) in ids() {
            for &(address, mac) in &spec.neighbours {
                self.neighbours.insert_permanent((id, address), mac, now, &mut effects);
            }
        }
        let is_up = |spec: &InterfaceSpec| !plan.spec.links_down.contains(&spec.port);
        for (id, _) in ids().filter(|(_, spec)| !is_up(spec)) {
            self.neighbours.forget(id, &mut effects);
        }
        self.apply(effects, out);

        let was_up = |id: InterfaceId| self.links.get(usize::from(id.0)).is_none_or(|link| link.up);
        let come_up: Vec<_> = ids().filter(|&(id, spec)| is_up(spec) && !was_up(id)).map(|(id, _)| id).collect();
        let links = ids().map(|(id, spec)| {
            let mut link = Link::new(id, spec);
            link.up = is_up(spec);
            let kept = before(id).filter(|old| is_same_link(spec, old)).and_then(|_| self.links.get(usize::from(id.0)));
            link.continue_from(kept, now);
            link
        });
        self.links = links.collect();
        let usable = |link: &Link| link.own.iter().filter(|own| own.usable()).map(|own| own.prefix.address).collect();
        let addresses: Vec<Vec<IpAddr>> = self.links.iter().map(usable).collect();
        let is_link_local = |address: &IpAddr| matches!(address, IpAddr::V6(a) if a.is_unicast_link_local());
        self.addresses = addresses.into_iter().flatten().filter(|address| !is_link_local(address)).collect();
        for index in 0..self.links.len() {
            let tasks = self.links[index].poll(now);
            self.perform(index, tasks, out);
        }

        let external = self.external_on_links();
        let before = std::mem::replace(&mut self.external, external);
        let is_news = |id, address| come_up.contains(&id) || !before.contains(&(id, address));
        self.announce_external(is_news, out);
        if !come_up.is_empty() {
            self.announce_external = now + ANNOUNCE_INTERVAL;
        }
    }
}

/// Whether an interface is where it was, and has the same Ethernet address.
fn is_same_link(new: &InterfaceSpec, old: &InterfaceSpec) -> bool {
    let of = |it: &InterfaceSpec| (it.port, it.outer_vlan, it.vlan, it.mac);
    !new.name.is_empty() && of(new) == of(old)
}
