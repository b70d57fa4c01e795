//! A port made of two channels.

use crossbeam_channel::{Receiver, Sender};
use dataplane::packet::HeapPacket;
use dataplane::plan::PortId;
use dataplane::worker::{Burst, Device};

/// Receives what the replay puts into its channel, and hands on what it is to send.
#[derive(Debug)]
pub(super) struct ReplayDevice {
    port: PortId,
    arrivals: Receiver<HeapPacket>,
    departures: Sender<(PortId, HeapPacket)>,
}

impl ReplayDevice {
    pub(super) fn new(port: PortId, arrivals: Receiver<HeapPacket>, departures: Sender<(PortId, HeapPacket)>) -> Self {
        ReplayDevice { port, arrivals, departures }
    }
}

impl Device for ReplayDevice {
    type Packet = HeapPacket;

    fn receive(&mut self, burst: &mut Burst<HeapPacket>) {
        let room = burst.remaining_capacity();
        burst.extend(self.arrivals.try_iter().take(room));
    }

    fn transmit(&mut self, burst: &mut Burst<HeapPacket>) {
        for packet in burst.drain(..) {
            // The replay holds the other end for as long as it polls.
            let _ = self.departures.send((self.port, packet));
        }
    }
}
