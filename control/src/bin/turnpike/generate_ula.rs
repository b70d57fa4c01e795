//! `turnpike generate-ula`: a prefix of unique local addresses for a site.

use std::fs::File;
use std::io::Read;
use std::net::Ipv6Addr;
use std::process::ExitCode;

use anyhow::Context;

/// Make up a prefix of unique local IPv6 addresses, for the inside of `nptv6` (RFC 4193)
///
/// Forty of its bits are random, so that two networks that are joined one day hardly have the same.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Example:
  turnpike generate-ula")]
pub struct Args {}

/// Runs the command.
pub fn run(Args {}: Args) -> anyhow::Result<ExitCode> {
    let mut random = [0; 5];
    let source = "/dev/urandom";
    File::open(source)
        .and_then(|mut file| file.read_exact(&mut random))
        .with_context(|| format!("reading {source}"))?;
    println!("{}/48", prefix(random));
    Ok(ExitCode::SUCCESS)
}

/// The prefix with this global identifier (RFC 4193 §3.1).
fn prefix([a, b, c, d, e]: [u8; 5]) -> Ipv6Addr {
    Ipv6Addr::from([0xfd, a, b, c, d, e, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_prefix_is_local_and_has_its_identifier() {
        assert_eq!(prefix([0x12, 0x34, 0x56, 0x78, 0x9a]).to_string(), "fd12:3456:789a::");
        assert!(prefix([0; 5]).is_unique_local());
    }
}
