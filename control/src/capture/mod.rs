//! Packet captures: reading what tcpdump, tshark and others write, and writing what they read.
//!
//! [`CaptureReader`] takes pcap (microseconds and nanoseconds, either byte order) and pcapng, with link type Ethernet (1)
//! or raw IP (12, 101, 228, 229), one packet at a time and in memory that does not grow with the file. [`CaptureWriter`]
//! writes pcap with nanoseconds, Ethernet, little-endian.
//!
//! Promises: no file, however damaged, makes the reader panic, loop or take more than [`RECORD_MAX`] bytes for a record;
//! every error names the file, the packet and what to do. An error ends the file: the packets before it are good.
//!
//! Formats: draft-ietf-opsawg-pcap, draft-ietf-opsawg-pcapng; link types: the registry that both refer to.

mod reader;
mod writer;

use std::path::PathBuf;

use dataplane::time::Time;

pub use reader::CaptureReader;
pub use writer::CaptureWriter;

/// The largest record that is believed, in bytes. libpcap itself captures at most 256 KiB of a packet.
pub const RECORD_MAX: usize = 16 << 20;

/// What a captured packet begins with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LinkType {
    /// An Ethernet header.
    Ethernet,
    /// An IPv4 or IPv6 header.
    Ip,
}

/// One captured packet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// Its place in the file, counted from 1 as Wireshark does.
    pub number: u64,
    /// When it was captured, since the Unix epoch.
    pub time: Time,
    /// What `data` begins with.
    pub link: LinkType,
    /// What was captured of it.
    pub data: Vec<u8>,
    /// Its length on the wire, in bytes: larger than `data` if the capture cut it off (tcpdump's `-s`).
    pub wire_len: u32,
}

impl Record {
    /// Whether the capture holds less of the packet than was on the wire.
    #[must_use]
    pub fn is_cut(&self) -> bool {
        self.data.len() < self.wire_len as usize
    }
}

/// Why a capture can't be read or written.
#[derive(Debug, thiserror::Error)]
pub enum CaptureError {
    /// The operating system refused.
    #[error("{}: {error}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system said.
        error: std::io::Error,
    },
    /// Not a capture.
    #[error("{}: neither pcap nor pcapng; convert it with `editcap -F pcap IN OUT`", path.display())]
    Format {
        /// The file.
        path: PathBuf,
    },
    /// Packets that begin with something else than Ethernet or IP.
    #[error(
        "{}: packet {packet}: link type {link} is neither Ethernet (1) nor raw IP (12, 101, 228, 229); \
         capture on a named interface (tcpdump -i NAME, not -i any)",
        path.display()
    )]
    LinkType {
        /// The file.
        path: PathBuf,
        /// The first packet concerned.
        packet: u64,
        /// The link type's number.
        link: i32,
    },
    /// The file ends inside a packet, as when its writer was killed. What came before is good.
    #[error("{}: the file ends inside packet {packet}", path.display())]
    CutShort {
        /// The file.
        path: PathBuf,
        /// The packet that is incomplete.
        packet: u64,
    },
    /// What the file says of itself is impossible.
    #[error("{}: damaged at packet {packet}: {problem}", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// The packet at which it was noticed.
        packet: u64,
        /// What is wrong.
        problem: &'static str,
    },
}
