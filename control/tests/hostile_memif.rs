//! A million malformed frames over memif into the running gateway, into both of its ports: it lives, its metrics account for
//! every one of them, what it sends is well-formed, and it works on as before. No privileges, no network.
#![allow(missing_docs)]

mod memif;

use std::thread;
use std::time::{Duration, Instant};

use dataplane::worker::Burst;
use hostile::Stream;
use hostile::check::{alive, well_formed};
use hostile::scene::{self, CONFIG, Side};
use memif::{Gateway, PATIENCE, Wires};

/// Frames of the flood.
const FRAMES: u64 = 1_000_000;

/// What the gateway sends is well-formed.
fn checked(side: Side, frame: &[u8]) {
    if let Err(wrong) = well_formed(side, frame) {
        panic!("{side:?}: {wrong}: {frame:02x?}");
    }
}

fn keep(left: &mut Vec<(Side, Vec<u8>)>, side: Side, frame: &[u8]) {
    checked(side, frame);
    left.push((side, frame.to_vec()));
}

#[test]
fn a_million_hostile_frames_over_memif() {
    let dir = tempfile::tempdir().unwrap();
    let gateway = Gateway::start(&dir, CONFIG);
    let mut wires = Wires::connect(memif::eal(), &dir);
    let before = gateway.scrape().sum("turnpike_packets_in_total{source=\"port\"}");
    assert_eq!(before, 0);

    let mut stream = Stream::new(11);
    let mut bursts = [Burst::new(), Burst::new()];
    for _ in 0..FRAMES {
        let (side, frame) = stream.frame();
        let burst = &mut bursts[side as usize];
        burst.push(wires.packet(frame));
        if burst.is_full() {
            wires.send(side, burst, checked);
        }
    }
    for (side, burst) in Side::BOTH.into_iter().zip(&mut bursts) {
        wires.send(side, burst, checked);
    }

    // Every frame that was sent came in and is accounted for; every frame that the gateway sent has come.
    let settle = |wires: &mut Wires, sent: u64, left: &mut Vec<(Side, Vec<u8>)>| {
        let start = Instant::now();
        loop {
            while wires.drain(|side, frame| keep(left, side, frame)) {}
            let scrape = gateway.scrape();
            let done = scrape.sum("turnpike_packets_in_total{source=\"port\"}") == sent
                && scrape.is_balanced()
                && scrape.sum("turnpike_packets_out_total{fate=\"transmitted\"}") == wires.received;
            if done {
                return scrape;
            }
            assert!(start.elapsed() < PATIENCE, "sent {sent}, received {}:\n{}", wires.received, scrape.0);
            thread::sleep(Duration::from_millis(20));
        }
    };
    let scrape = settle(&mut wires, FRAMES, &mut Vec::new());
    // Of everything that the frames are made for something came.
    for series in [
        "fate=\"transmitted\"",
        "fate=\"punted\"",
        "source=\"originated\"",
        "reason=\"multi-segment\"",
        "reason=\"ip-length\"",
    ] {
        assert!(scrape.0.lines().any(|line| line.contains(series) && !line.ends_with(" 0")), "{series}: {}", scrape.0);
    }
    let (mut left, mut sent) = (Vec::new(), FRAMES);
    for (side, frame) in scene::afterwards() {
        let mut burst = Burst::new();
        burst.push(wires.packet(&frame));
        wires.send(side, &mut burst, checked);
        sent += 1;
        settle(&mut wires, sent, &mut left);
    }
    // The ping's answer takes its time: the control thread makes it, behind a queue that a million frames have filled. What
    // that had no room for is asked for again.
    let (start, mut asked) = (Instant::now(), Instant::now());
    while let Err(missing) = alive(&left) {
        assert!(start.elapsed() < Duration::from_secs(10), "{missing}: {left:02x?}");
        if asked.elapsed() > Duration::from_secs(1) {
            let [(side, ping), ..] = scene::afterwards();
            let mut burst = Burst::new();
            burst.push(wires.packet(&ping));
            wires.send(side, &mut burst, checked);
            asked = Instant::now();
        }
        wires.drain(|side, frame| keep(&mut left, side, frame));
        thread::sleep(Duration::from_millis(1));
    }
}
