//! ARP, received (RFC 826, RFC 5227).

use std::net::IpAddr;

use dataplane::message::ToWorker;
use dataplane::plan::MacAddr;
use dataplane::time::Time;
use smoltcp::wire::{ArpOperation, ArpPacket, ArpRepr};

use super::neighbour::Advertisement;
use super::wire::{self, ArpEnd};
use super::{Came, Host, Ignored, is_station, send_frame};

impl Host {
    pub(super) fn receive_arp(
        &mut self,
        came: Came,
        payload: &[u8],
        now: Time,
        out: &mut Vec<ToWorker>,
    ) -> Result<(), Ignored> {
        let packet = ArpPacket::new_checked(payload).map_err(|_| Ignored::Malformed)?;
        let Ok(ArpRepr::EthernetIpv4 {
            operation,
            source_hardware_addr,
            source_protocol_addr: address,
            target_hardware_addr,
            target_protocol_addr: target,
        }) = ArpRepr::parse(&packet)
        else {
            return Err(Ignored::Malformed);
        };
        if !matches!(operation, ArpOperation::Request | ArpOperation::Reply) {
            return Err(Ignored::Unsupported);
        }
        let mac = MacAddr(source_hardware_addr.0);
        if self.links.iter().any(|link| link.mac == mac) {
            return Err(Ignored::Looped);
        }
        if !is_station(mac) {
            return Err(Ignored::BadSource);
        }
        let link = &self.links[came.index];
        let owned = link.owns(target.into());
        let answered = owned || self.proxies(link, target);
        let reply = ArpEnd { mac: link.mac, address: target };
        let asker = ArpEnd { mac, address };

        // A probe (RFC 5227 §2.1.1): somebody wants to know whether the address is free, and has none yet.
        if address.is_unspecified() {
            if operation == ArpOperation::Request && answered {
                send_frame(link, wire::arp(ArpOperation::Reply, reply, asker, mac), out);
                return Ok(());
            }
            return Err(Ignored::NotOurs);
        }
        if link.owns(address.into()) || self.proxies(link, address) {
            return Err(self.conflict(came.index, address.into(), mac, now, out));
        }
        let key = (link.id, IpAddr::from(address));
        if !link.reaches(address.into()) && !self.neighbours.contains(key) {
            return Err(Ignored::OffLink);
        }
        let mut effects = Vec::new();
        let wanted = if operation == ArpOperation::Request && answered {
            self.neighbours.asked(key, mac, now, &mut effects);
            send_frame(link, wire::arp(ArpOperation::Reply, reply, asker, mac), out);
            true
        } else {
            // A reply to us confirms; everything else (RFC 826's merge: gratuitous ARP, others' requests) only informs.
            let to_us = operation == ArpOperation::Reply && owned && MacAddr(target_hardware_addr.0) == link.mac;
            let how = Advertisement { solicited: to_us && self.neighbours.awaits(key), replace: true };
            self.neighbours.advertised(key, Some(mac), how, now, &mut effects)
        };
        self.apply(effects, out);
        if wanted { Ok(()) } else { Err(Ignored::Unneeded) }
    }
}
