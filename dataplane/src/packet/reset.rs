//! TCP resets of our own, in the name of the other end of a connection that is gone (RFC 9293 §3.10.7.1).

use super::buffer::Packet;
use super::checksum;
use super::error::TTL;
use super::parse::{self, View4, put16, put32, tcp_flags};
use crate::session::tcp::Segment;

/// Length of a TCP header without options, in bytes.
const TCP: usize = 20;

/// Writes the RST that answers a TCP segment into the empty `packet`, behind room for an Ethernet header: from the segment's
/// destination to its source, as the destination would answer if it knew of no connection. The caller has made sure that
/// the segment is no RST itself. False without the room.
#[must_use]
pub fn write4<P: Packet>(packet: &mut P, view: &View4, segment: &Segment) -> bool {
    if !packet.append(parse::ETHERNET + parse::IPV4 + TCP) {
        return false;
    }
    let (ethernet, rest) = packet.data_mut().split_at_mut(parse::ETHERNET);
    ethernet.fill(0);
    put16(ethernet, 12, parse::ethertype::IPV4);
    let (ip, tcp) = rest.split_at_mut(parse::IPV4);
    // 40 bytes long; an atomic datagram (RFC 6864 §4.1).
    ip.copy_from_slice(&[0x45, 0, 0, 40, 0, 0, 0x40, 0, TTL, parse::protocol::TCP, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
    put32(ip, 12, view.destination);
    put32(ip, 16, view.source);
    let header = checksum::checksum(0, ip);
    put16(ip, 10, header);
    tcp.fill(0);
    put16(tcp, 0, view.destination_port);
    put16(tcp, 2, view.source_port);
    tcp[12] = 5 << 4;
    if segment.flags & tcp_flags::ACK != 0 {
        put32(tcp, 4, segment.ack);
        tcp[13] = tcp_flags::RST;
    } else {
        put32(tcp, 8, segment.seq.wrapping_add(segment.len));
        tcp[13] = tcp_flags::RST | tcp_flags::ACK;
    }
    let pseudo = checksum::pseudo4(view.destination, view.source, parse::protocol::TCP, 20);
    let sum = checksum::checksum(pseudo, tcp);
    put16(tcp, 16, sum);
    true
}
