//! Reading pcap and pcapng, over the `pcap-parser` crate.

use std::fmt;
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use dataplane::time::Time;
use pcap_parser::pcapng::{Block, OptionCode};
use pcap_parser::traits::{PcapNGPacketBlock, PcapReaderIterator};
use pcap_parser::{InterfaceDescriptionBlock, LegacyPcapBlock, PcapBlockOwned, PcapError, create_reader};

use super::{CaptureError, LinkType, RECORD_MAX, Record};

/// Bytes read ahead; grows up to [`RECORD_MAX`] for larger records.
const BUFFER: usize = 256 << 10;

/// The type of a pcapng section header, the same in both byte orders.
const SECTION_HEADER: [u8; 4] = [0x0a, 0x0d, 0x0d, 0x0a];

/// The shortest pcapng block: its type and two lengths, in bytes.
const BLOCK_MIN: u32 = 12;

const NANOS_PER_SEC: u128 = 1_000_000_000;

/// A capture being read: an iterator over its packets. After an error it ends.
pub struct CaptureReader {
    path: PathBuf,
    blocks: Box<dyn PcapReaderIterator + Send>,
    buffer: usize,
    context: Context,
    ended: bool,
}

impl fmt::Debug for CaptureReader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CaptureReader").field("path", &self.path).field("packets", &self.context.packets).finish()
    }
}

/// What the blocks read so far say about those to come.
#[derive(Debug, Default)]
struct Context {
    /// Packets seen.
    packets: u64,
    /// Time of the last packet: a simple packet block has none of its own.
    last: Time,
    /// pcap: unit of the fraction of a second, in nanoseconds.
    fraction_nanos: u64,
    /// pcapng: the byte order of the section. None in a pcap file, and before the first section.
    big_endian: Option<bool>,
    /// The interfaces of the pcapng section; of a pcap file, its only one.
    interfaces: Vec<Source>,
}

/// An interface that was captured on.
#[derive(Clone, Copy, Debug)]
struct Source {
    /// Link type, and what it is here.
    link: (i32, Option<LinkType>),
    /// Unit of its timestamps, as a power of ten or of two (option if_tsresol).
    resolution: u8,
    /// Seconds to add (option if_tsoffset).
    offset: i64,
}

/// A problem with a file, before its name is known.
enum Problem {
    LinkType(i32),
    Damaged(&'static str),
}

impl CaptureReader {
    /// Opens a capture; the format is recognised by its first bytes.
    ///
    /// # Errors
    /// When the file can't be read or is no capture.
    pub fn open(path: &Path) -> Result<Self, CaptureError> {
        let io = |error| CaptureError::Io { path: path.to_owned(), error };
        let file = File::open(path).map_err(io)?;
        if file.metadata().map_err(io)?.is_dir() {
            return Err(io(std::io::ErrorKind::IsADirectory.into()));
        }
        Self::from_reader(path, file)
    }

    /// Reads a capture from any source; `path` is what errors call it.
    ///
    /// # Errors
    /// When it is no capture.
    pub fn from_reader(path: &Path, source: impl Read + Send + 'static) -> Result<Self, CaptureError> {
        let blocks = create_reader(BUFFER, source).map_err(|_| CaptureError::Format { path: path.to_owned() })?;
        Ok(CaptureReader { path: path.to_owned(), blocks, buffer: BUFFER, context: Context::default(), ended: false })
    }

    /// The file's name.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The next packet; none at the end of the file.
    fn read(&mut self) -> Result<Option<Record>, CaptureError> {
        let mut refilled_at = None;
        loop {
            let packet = self.context.packets + 1;
            let path = || self.path.clone();
            if self.context.is_impossible(self.blocks.data()) {
                let problem = "its block is shorter than a block can be";
                return Err(CaptureError::Damaged { path: path(), packet, problem });
            }
            match self.blocks.next() {
                Ok((len, block)) => {
                    let record = self.context.take(&block);
                    self.blocks.consume(len);
                    match record {
                        Ok(Some(record)) => return Ok(Some(record)),
                        Ok(None) => {}
                        Err(Problem::LinkType(link)) => {
                            return Err(CaptureError::LinkType { path: path(), packet, link });
                        }
                        Err(Problem::Damaged(problem)) => {
                            return Err(CaptureError::Damaged { path: path(), packet, problem });
                        }
                    }
                }
                Err(PcapError::Eof) => return Ok(None),
                Err(PcapError::UnexpectedEof) => return Err(CaptureError::CutShort { path: path(), packet }),
                Err(PcapError::Incomplete(_)) => {
                    // Twice without progress: a block that wants more than there is.
                    let at = (self.blocks.consumed(), self.blocks.data().len());
                    if refilled_at == Some(at) {
                        return Err(CaptureError::CutShort { path: path(), packet });
                    }
                    refilled_at = Some(at);
                    self.refill()?;
                }
                Err(PcapError::BufferTooSmall) => {
                    self.buffer *= 2;
                    if self.buffer > RECORD_MAX || !self.blocks.grow(self.buffer) {
                        let problem = "it claims an impossible length";
                        return Err(CaptureError::Damaged { path: path(), packet, problem });
                    }
                    self.refill()?;
                }
                Err(_) => {
                    let problem = "this is not a packet record";
                    return Err(CaptureError::Damaged { path: path(), packet, problem });
                }
            }
        }
    }

    fn refill(&mut self) -> Result<(), CaptureError> {
        // pcap-parser keeps no more of the system's error than that there was one.
        let path = &self.path;
        self.blocks.refill().map_err(|_| CaptureError::Io {
            path: path.clone(),
            error: std::io::Error::other("the file can't be read on"),
        })
    }
}

impl Iterator for CaptureReader {
    type Item = Result<Record, CaptureError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.ended {
            return None;
        }
        let record = self.read().transpose();
        self.ended = !matches!(record, Some(Ok(_)));
        record
    }
}

impl Context {
    /// Whether the pcapng block that begins here says that it is shorter than its type and its two lengths. pcap-parser 0.17
    /// does not see that in all of them.
    fn is_impossible(&self, data: &[u8]) -> bool {
        let (Some(big_endian), Some([kind @ .., a, b, c, d])) = (self.big_endian, data.first_chunk::<8>()) else {
            return false;
        };
        let read = if big_endian { u32::from_be_bytes } else { u32::from_le_bytes };
        // A section header's length is in the byte order of its own section.
        *kind != SECTION_HEADER && read([*a, *b, *c, *d]) < BLOCK_MIN
    }

    /// Learns from a block; gives its packet, if it holds one.
    fn take(&mut self, block: &PcapBlockOwned<'_>) -> Result<Option<Record>, Problem> {
        match block {
            PcapBlockOwned::LegacyHeader(header) => {
                self.fraction_nanos = if header.is_nanosecond_precision() { 1 } else { 1000 };
                // The upper bits tell the length of the frame check sequence.
                self.interfaces = vec![Source::new(header.network.0 & 0xffff, 0, 0)];
                Ok(None)
            }
            PcapBlockOwned::Legacy(packet) => {
                let time = self.legacy_time(packet);
                let data = packet.data.get(..packet.caplen as usize).unwrap_or(packet.data);
                self.record(0, time, data, packet.origlen).map(Some)
            }
            PcapBlockOwned::NG(Block::SectionHeader(section)) => {
                self.big_endian = Some(section.big_endian());
                self.interfaces.clear();
                Ok(None)
            }
            PcapBlockOwned::NG(Block::InterfaceDescription(interface)) => {
                self.interfaces.push(Source::from_block(interface, self.big_endian == Some(true)));
                Ok(None)
            }
            PcapBlockOwned::NG(Block::EnhancedPacket(packet)) => {
                let source = self.source(packet.if_id)?;
                let time = source.time(u64::from(packet.ts_high) << 32 | u64::from(packet.ts_low));
                self.record(packet.if_id, time, packet.packet_data(), packet.origlen).map(Some)
            }
            PcapBlockOwned::NG(Block::SimplePacket(packet)) => {
                self.record(0, self.last, packet.packet_data(), packet.origlen).map(Some)
            }
            PcapBlockOwned::NG(_) => Ok(None),
        }
    }

    fn record(&mut self, interface: u32, time: Time, data: &[u8], wire_len: u32) -> Result<Record, Problem> {
        let (number, known) = self.source(interface)?.link;
        let link = known.ok_or(Problem::LinkType(number))?;
        self.packets += 1;
        self.last = time;
        Ok(Record { number: self.packets, time, link, data: data.to_vec(), wire_len })
    }

    fn source(&self, interface: u32) -> Result<Source, Problem> {
        let source = self.interfaces.get(interface as usize).copied();
        source.ok_or(Problem::Damaged("it belongs to an interface that the file does not describe"))
    }

    fn legacy_time(&self, packet: &LegacyPcapBlock<'_>) -> Time {
        let seconds = u64::from(packet.ts_sec) * 1_000_000_000;
        Time(seconds + u64::from(packet.ts_usec) * self.fraction_nanos)
    }
}

impl Source {
    fn new(link: i32, resolution: u8, offset: i64) -> Self {
        let known = match link {
            1 => Some(LinkType::Ethernet),
            12 | 101 | 228 | 229 => Some(LinkType::Ip),
            _ => None,
        };
        Source { link: (link, known), resolution, offset }
    }

    fn from_block(interface: &InterfaceDescriptionBlock<'_>, big_endian: bool) -> Self {
        // The crate reads the offset as little-endian only, so we read it from the option.
        let offset = interface.options.iter().find(|option| option.code == OptionCode::IfTsoffset);
        let offset = offset.and_then(|option| option.value.get(..8)?.try_into().ok());
        let read = if big_endian { i64::from_be_bytes } else { i64::from_le_bytes };
        Source::new(interface.linktype.0, interface.if_tsresol, offset.map_or(0, read))
    }

    /// A pcapng timestamp in nanoseconds since the Unix epoch; what lies outside of [`Time`] becomes its nearest end.
    fn time(&self, units: u64) -> Time {
        let exponent = u32::from(self.resolution & 0x7f);
        let nanos = if self.resolution & 0x80 != 0 {
            (u128::from(units) * NANOS_PER_SEC) >> exponent
        } else {
            // Units finer than 10^-38 s amount to nothing.
            10u128.checked_pow(exponent).map_or(0, |per_sec| u128::from(units) * NANOS_PER_SEC / per_sec)
        };
        let nanos = i128::try_from(nanos).unwrap_or(i128::MAX);
        let nanos = nanos.saturating_add(i128::from(self.offset) * 1_000_000_000);
        Time(u64::try_from(nanos.max(0)).unwrap_or(u64::MAX - 1))
    }
}
