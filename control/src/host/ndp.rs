//! Neighbour discovery, received (RFC 4861 §7, RFC 4862 §5.4).

use std::net::{IpAddr, Ipv6Addr};

use dataplane::message::ToWorker;
use dataplane::plan::MacAddr;
use dataplane::time::Time;
use smoltcp::wire::{Icmpv6Packet, NdiscNeighborFlags, NdiscRepr, RawHardwareAddress};

use super::link::{Link, Standing};
use super::neighbour::Advertisement;
use super::wire::{self, NdEnd};
use super::{Came, Host, Ignored, Notice, is_bad_source6, is_station, send_frame};

/// What a discovery message came in, as far as the rules ask for it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Envelope {
    pub came: Came,
    pub source: Ipv6Addr,
    pub destination: Ipv6Addr,
    pub hop_limit: u8,
}

impl Host {
    /// Takes in a discovery message whose checksum has been found right.
    pub(super) fn receive_discovery(
        &mut self,
        envelope: Envelope,
        icmp: &Icmpv6Packet<&[u8]>,
        now: Time,
        out: &mut Vec<ToWorker>,
    ) -> Result<(), Ignored> {
        if envelope.hop_limit != wire::ND_HOP_LIMIT {
            return Err(Ignored::HopLimit);
        }
        if icmp.msg_code() != 0 {
            return Err(Ignored::Malformed);
        }
        match NdiscRepr::parse(icmp).map_err(|_| Ignored::Malformed)? {
            NdiscRepr::NeighborSolicit { target_addr, lladdr } => {
                self.receive_solicitation(envelope, target_addr, station(lladdr)?, now, out)
            }
            NdiscRepr::NeighborAdvert { flags, target_addr, lladdr } => {
                self.receive_advertisement(envelope, target_addr, flags, station(lladdr)?, now, out)
            }
            // A router needs no router; its own advertisements are not of this host.
            _ => Err(Ignored::Unsupported),
        }
    }

    fn receive_solicitation(
        &mut self,
        Envelope { came, source, destination, .. }: Envelope,
        target: Ipv6Addr,
        mac: Option<MacAddr>,
        now: Time,
        out: &mut Vec<ToWorker>,
    ) -> Result<(), Ignored> {
        let link = &self.links[came.index];
        let ours = NdEnd { mac: link.mac, address: target };
        if source.is_unspecified() {
            // Another station tests whether it may have the address (RFC 4861 §7.1.1, RFC 4862 §5.4.3).
            if destination != wire::solicited_node(target) || mac.is_some() {
                return Err(Ignored::Malformed);
            }
            if link.owns(target.into()) {
                send_frame(link, wire::advertisement(ours, None), out);
                return Ok(());
            }
            if let Some(from) = self.stands_in(link, target) {
                send_frame(link, wire::proxy_advertisement(from, target, None), out);
                return Ok(());
            }
            return Err(self.claimed(came, target, now, out));
        }
        if target.is_multicast() {
            return Err(Ignored::Malformed);
        }
        if is_bad_source6(source) {
            return Err(Ignored::BadSource);
        }
        if link.owns(source.into()) {
            return Err(self.conflict(came.index, source.into(), came.from, now, out));
        }
        let stands_in = if link.owns(target.into()) { None } else { self.stands_in(link, target) };
        if stands_in.is_none() && !link.owns(target.into()) {
            return Err(Ignored::NotOurs);
        }
        if !link.reaches(source.into()) {
            return Err(Ignored::OffLink);
        }
        let key = (link.id, IpAddr::from(source));
        let mut effects = Vec::new();
        if let Some(mac) = mac {
            self.neighbours.asked(key, mac, now, &mut effects);
        }
        // One who does not say where it is asked this station alone, and is where the frame came from.
        let asker = NdEnd { mac: mac.unwrap_or(came.from), address: source };
        let advertisement = match stands_in {
            Some(from) => wire::proxy_advertisement(from, target, Some(asker)),
            None => wire::advertisement(ours, Some(asker)),
        };
        send_frame(link, advertisement, out);
        self.apply(effects, out);
        Ok(())
    }

    /// By which address of ours we answer for one that stands for a host elsewhere. None: it does not, or there is none yet.
    fn stands_in(&self, link: &Link, target: Ipv6Addr) -> Option<NdEnd> {
        let own = if self.stands_for(link, target.into()) { link.source_for(target.into()) } else { None };
        match own {
            Some(IpAddr::V6(address)) => Some(NdEnd { mac: link.mac, address }),
            _ => None,
        }
    }

    fn receive_advertisement(
        &mut self,
        Envelope { came, source, destination, .. }: Envelope,
        target: Ipv6Addr,
        flags: NdiscNeighborFlags,
        mac: Option<MacAddr>,
        now: Time,
        out: &mut Vec<ToWorker>,
    ) -> Result<(), Ignored> {
        let solicited = flags.contains(NdiscNeighborFlags::SOLICITED);
        if target.is_multicast() || (destination.is_multicast() && solicited) {
            return Err(Ignored::Malformed);
        }
        if is_bad_source6(source) {
            return Err(Ignored::BadSource);
        }
        let link = &self.links[came.index];
        if link.own.iter().any(|own| own.prefix.address == target) {
            return Err(self.claimed(came, target, now, out));
        }
        let how = Advertisement { solicited, replace: flags.contains(NdiscNeighborFlags::OVERRIDE) };
        let mut effects = Vec::new();
        let wanted = self.neighbours.advertised((link.id, target.into()), mac, how, now, &mut effects);
        self.apply(effects, out);
        if wanted { Ok(()) } else { Err(Ignored::Unneeded) }
    }

    /// Another station has, or wants, an address of this interface.
    fn claimed(&mut self, came: Came, address: Ipv6Addr, now: Time, out: &mut Vec<ToWorker>) -> Ignored {
        let link = &mut self.links[came.index];
        if link.owns(address.into()) {
            return self.conflict(came.index, address.into(), came.from, now, out);
        }
        let Some(own) = link.tentative(address.into()) else { return Ignored::NotOurs };
        own.standing = Standing::Duplicate;
        let interface = link.name.clone();
        self.notice(Notice::Duplicate { interface, address: address.into(), mac: came.from });
        Ignored::Conflict
    }
}

/// The station that a link-layer address option names.
fn station(option: Option<RawHardwareAddress>) -> Result<Option<MacAddr>, Ignored> {
    let Some(raw) = option else { return Ok(None) };
    let mac = MacAddr(raw.as_bytes().try_into().map_err(|_| Ignored::Malformed)?);
    if is_station(mac) { Ok(Some(mac)) } else { Err(Ignored::BadSource) }
}
