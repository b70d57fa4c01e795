//! Any frames into the gateway as a host.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use control::host::{Host, SETTLING};
use dataplane::message::ToWorker;
use dataplane::plan::{InterfaceId, Limits, Plan, Spec};
use dataplane::time::Time;

use super::bytes::Bytes;
use crate::catalogue::seal;
use crate::{check, scene};

/// Steps of an input that are looked at.
const STEPS: usize = 256;

/// Neighbours that the host may know.
const NEIGHBOURS: u32 = 16;

/// Plays frames, questions and time into a host: each frame is accounted for, what it sends is well-formed, and it keeps no
/// more neighbours than it may.
///
/// # Panics
/// When that is not so.
pub fn host(input: &[u8]) {
    static PLAN: OnceLock<Arc<Plan>> = OnceLock::new();
    let plan = PLAN.get_or_init(|| {
        let limits = Limits { neighbours: NEIGHBOURS, ..Limits::default() };
        Arc::new(Plan::compile(Spec { limits, ..scene::spec() }).expect("a plan"))
    });
    let mut bytes = Bytes(input);
    let mut now = Time::from_secs(1000);
    let mut host = Host::new(Arc::clone(plan), 1, now);
    let mut out = Vec::new();
    host.start(now, &mut out);
    for _ in 0..STEPS {
        if step(&mut host, &mut bytes, &mut now, &mut out).is_none() {
            break;
        }
        out.drain(..).for_each(|message| sent(&message));
        let counters = host.counters();
        assert_eq!(counters.received, counters.handled + counters.ignored.iter().sum::<u64>());
        let permanent = plan.spec.interfaces.iter().map(|it| it.neighbours.len()).sum::<usize>();
        assert!(host.neighbours().count() <= NEIGHBOURS as usize + permanent);
        host.notices().for_each(|notice| assert!(!notice.to_string().is_empty()));
    }
}

fn step(host: &mut Host, bytes: &mut Bytes, now: &mut Time, out: &mut Vec<ToWorker>) -> Option<()> {
    let what = bytes.byte()?;
    let interface = InterfaceId(u16::from(what >> 4 & 3));
    match what & 7 {
        0..=3 => {
            let mut frame = bytes.piece()?.to_vec();
            if what & 1 == 1 {
                seal(&mut frame);
            }
            host.receive(interface, &frame, *now, out);
        }
        4 => host.resolve(interface, address(bytes)?, *now, out),
        5 => host.neighbour_used(interface, address(bytes)?, *now, out),
        6 => *now = *now + Duration::from_millis(u64::from(bytes.word()?)),
        _ => *now = *now + SETTLING,
    }
    if host.next_deadline().is_some_and(|due| due <= *now) {
        host.poll(*now, out);
    }
    Some(())
}

/// One of the addresses that mean something to the host, or any.
fn address(bytes: &mut Bytes) -> Option<IpAddr> {
    let last = bytes.byte()?;
    Some(match bytes.byte()? % 6 {
        0 => Ipv4Addr::new(192, 168, 1, last).into(),
        1 => Ipv4Addr::new(198, 51, 100, last).into(),
        2 => Ipv4Addr::new(203, 0, 113, last).into(),
        3 => Ipv6Addr::new(0xfd00, 1, 0, 0, 0, 0, 0, last.into()).into(),
        4 => Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, last.into()).into(),
        _ => Ipv6Addr::new(u16::from(last) << 8, 0, 0, 0, 0, 0, 0, last.into()).into(),
    })
}

/// What the host sends reads from end to end.
fn sent(message: &ToWorker) {
    let frame = match message {
        ToWorker::Frame { frame, .. } => frame.to_vec(),
        ToWorker::Packet { packet } => {
            let kind = if packet.first().is_some_and(|first| first >> 4 == 6) { [0x86, 0xdd] } else { [8, 0] };
            [&[2; 12][..], &kind, packet].concat()
        }
        _ => return,
    };
    if let Err(wrong) = check::own(&frame) {
        panic!("{wrong}: {frame:02x?}");
    }
}
