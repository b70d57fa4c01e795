//! Writing pcap: nanoseconds, Ethernet, little-endian. Such files are read by tcpdump, Wireshark and every libpcap since 1.5.

use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};

use dataplane::time::Time;

use super::CaptureError;

/// Magic number of a pcap file with timestamps in nanoseconds.
const MAGIC_NANOS: u32 = 0xa1b2_3c4d;
/// Link type Ethernet.
const LINKTYPE_ETHERNET: u32 = 1;
/// libpcap's largest snapshot length, in bytes.
const SNAPLEN: u32 = 262_144;

/// A capture being written.
#[derive(Debug)]
pub struct CaptureWriter {
    path: PathBuf,
    out: BufWriter<File>,
}

impl CaptureWriter {
    /// Creates the file (replacing one of that name) and writes its header.
    ///
    /// # Errors
    /// When the system does not let us.
    pub fn create(path: &Path) -> Result<Self, CaptureError> {
        let io = |error| CaptureError::Io { path: path.to_owned(), error };
        let mut out = BufWriter::new(File::create(path).map_err(io)?);
        let mut header = [0; 24];
        header[0..4].copy_from_slice(&MAGIC_NANOS.to_le_bytes());
        header[4..6].copy_from_slice(&2u16.to_le_bytes());
        header[6..8].copy_from_slice(&4u16.to_le_bytes());
        header[16..20].copy_from_slice(&SNAPLEN.to_le_bytes());
        header[20..24].copy_from_slice(&LINKTYPE_ETHERNET.to_le_bytes());
        out.write_all(&header).map_err(io)?;
        Ok(CaptureWriter { path: path.to_owned(), out })
    }

    /// Appends a frame, from its Ethernet header on. `time` counts from the Unix epoch; the format's 32 bits of seconds
    /// end in 2106.
    ///
    /// # Errors
    /// When the system does not let us, or the frame is longer than a record can say.
    pub fn write(&mut self, time: Time, frame: &[u8]) -> Result<(), CaptureError> {
        self.try_write(time, frame).map_err(|error| CaptureError::Io { path: self.path.clone(), error })
    }

    /// Writes out what is still buffered. Dropping the writer does so too, but can't say that it failed.
    ///
    /// # Errors
    /// When the system does not let us.
    pub fn finish(mut self) -> Result<(), CaptureError> {
        self.out.flush().map_err(|error| CaptureError::Io { path: self.path.clone(), error })
    }

    fn try_write(&mut self, time: Time, frame: &[u8]) -> io::Result<()> {
        let seconds = u32::try_from(time.0 / 1_000_000_000).unwrap_or(u32::MAX);
        let nanos = u32::try_from(time.0 % 1_000_000_000).unwrap_or_default();
        let len = u32::try_from(frame.len()).map_err(|_| io::Error::from(io::ErrorKind::InvalidInput))?;
        for field in [seconds, nanos, len, len] {
            self.out.write_all(&field.to_le_bytes())?;
        }
        self.out.write_all(frame)
    }
}
