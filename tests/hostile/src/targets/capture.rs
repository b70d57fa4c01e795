//! Any bytes as a capture.

use std::io::Cursor;
use std::path::Path;

use control::capture::{CaptureReader, RECORD_MAX};

/// Reads a capture to its end: it ends, packets are counted from 1, none is larger than is believed, and an error names the
/// file.
///
/// # Panics
/// When that is not so.
pub fn capture(bytes: &[u8]) {
    let path = Path::new("any.pcap");
    let Ok(reader) = CaptureReader::from_reader(path, Cursor::new(bytes.to_vec())) else { return };
    let (mut packets, mut held, mut failed) = (0, 0, false);
    for record in reader {
        assert!(!failed, "nothing comes behind an error");
        match record {
            Ok(record) => {
                packets += 1;
                assert_eq!(record.number, packets);
                assert!(record.data.len() <= RECORD_MAX);
                held += record.data.len();
                assert!(held <= bytes.len(), "more than the file holds");
            }
            Err(error) => {
                failed = true;
                assert!(error.to_string().contains("any.pcap"), "{error}");
            }
        }
    }
}
