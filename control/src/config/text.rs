//! The values of the file that are written as text (addresses, ranges, durations, names), and tables of named things.
//!
//! [`Text`] reads a scalar as it stands in the file, so that every message can quote what was written and say what was
//! expected, with an example.

use std::fmt;
use std::hash::Hash;
use std::marker::PhantomData;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::time::Duration;

use dataplane::plan::{IpPrefix, MacAddr, MssClamp};
use indexmap::IndexMap;
use serde::de::{Deserialize, Deserializer, Error, MapAccess, Visitor};

/// Something that is written as one scalar.
pub(super) trait FromText: Sized {
    /// What to write, with an example: completes "expected" and "is not".
    const EXPECTED: &'static str;

    /// Reads it.
    fn from_text(text: &str) -> Option<Self>;
}

/// A scalar of the file, read by [`FromText`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Text<T>(pub T);

impl<'de, T: FromText> Deserialize<'de> for Text<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Scalar<T>(PhantomData<T>);

        impl<T: FromText> Visitor<'_> for Scalar<T> {
            type Value = Text<T>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(T::EXPECTED)
            }

            fn visit_str<E: Error>(self, text: &str) -> Result<Text<T>, E> {
                T::from_text(text).map(Text).ok_or_else(|| E::custom(format_args!("{text:?} is not {}", T::EXPECTED)))
            }
        }

        deserializer.deserialize_str(Scalar(PhantomData))
    }
}

/// Things by name, in the order of the file. A name that is given twice is an error, not the last one's victory.
#[derive(Clone, Debug)]
pub(super) struct Table<K, V>(pub IndexMap<K, V>);

impl<K, V> Default for Table<K, V> {
    fn default() -> Self {
        Table(IndexMap::new())
    }
}

impl<'de, K: FromText + Eq + Hash + fmt::Display, V: Deserialize<'de>> Deserialize<'de> for Table<K, V> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Entries<K, V>(PhantomData<(K, V)>);

        impl<'de, K: FromText + Eq + Hash + fmt::Display, V: Deserialize<'de>> Visitor<'de> for Entries<K, V> {
            type Value = Table<K, V>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "a mapping whose keys are each {}", K::EXPECTED)
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Table<K, V>, A::Error> {
                let mut entries = IndexMap::new();
                while let Some(Text(key)) = map.next_key::<Text<K>>()? {
                    if entries.contains_key(&key) {
                        return Err(A::Error::custom(format_args!(
                            "\"{key}\" is given twice; remove one of the two, or rename it"
                        )));
                    }
                    let value = map.next_value()?;
                    entries.insert(key, value);
                }
                Ok(Table(entries))
            }
        }

        deserializer.deserialize_map(Entries(PhantomData))
    }
}

/// The name of a port, interface, zone, pool or rule. Names become labels of metrics and names of capture files.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Name(pub String);

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromText for Name {
    const EXPECTED: &'static str =
        "a name: a letter or digit, then letters, digits, `-`, `_` or `.`, at most 32 in all";

    fn from_text(text: &str) -> Option<Self> {
        let first = text.chars().next()?;
        let fits = text.len() <= 32 && first.is_ascii_alphanumeric();
        let legal = text.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.'));
        (fits && legal).then(|| Name(text.to_owned()))
    }
}

impl FromText for bool {
    const EXPECTED: &'static str = "true or false";

    fn from_text(text: &str) -> Option<Self> {
        text.parse().ok()
    }
}

impl FromText for u32 {
    const EXPECTED: &'static str = "a whole number between 0 and 4294967295";

    fn from_text(text: &str) -> Option<Self> {
        digits(text)
    }
}

impl FromText for u16 {
    const EXPECTED: &'static str = "a whole number between 0 and 65535";

    fn from_text(text: &str) -> Option<Self> {
        digits(text)
    }
}

impl FromText for IpAddr {
    const EXPECTED: &'static str = "an address, such as 192.0.2.1 or \"2001:db8::1\"";

    fn from_text(text: &str) -> Option<Self> {
        text.parse().ok()
    }
}

impl FromText for Ipv4Addr {
    const EXPECTED: &'static str = "an IPv4 address, such as 192.0.2.1";

    fn from_text(text: &str) -> Option<Self> {
        text.parse().ok()
    }
}

impl FromText for IpPrefix {
    const EXPECTED: &'static str = "an address with a prefix length, such as 192.0.2.1/24 (length 0 to 32) or \
         \"2001:db8::1/64\" (length 0 \
         to 128)";

    fn from_text(text: &str) -> Option<Self> {
        let (address, len) = text.split_once('/')?;
        let address: IpAddr = address.parse().ok()?;
        let len: u8 = digits(len)?;
        (len <= if address.is_ipv4() { 32 } else { 128 }).then_some(IpPrefix { address, len })
    }
}

/// External addresses, inclusive: every address of a prefix counts, the first and the last too.
impl FromText for RangeInclusive<Ipv4Addr> {
    const EXPECTED: &'static str =
        "IPv4 addresses: one (192.0.2.1), a range in rising order (192.0.2.1-192.0.2.9) or a prefix (192.0.2.0/28)";

    fn from_text(text: &str) -> Option<Self> {
        if let Some((first, last)) = text.split_once('-') {
            let (first, last): (Ipv4Addr, Ipv4Addr) = (first.trim().parse().ok()?, last.trim().parse().ok()?);
            return (first <= last).then_some(first..=last);
        }
        if text.contains('/') {
            let IpPrefix { address: IpAddr::V4(address), len } = IpPrefix::from_text(text)? else { return None };
            let host = u32::MAX.checked_shr(u32::from(len)).unwrap_or(0);
            let first = address.to_bits();
            return (first & host == 0).then(|| address..=Ipv4Addr::from_bits(first | host));
        }
        text.parse().ok().map(|address| address..=address)
    }
}

impl FromText for RangeInclusive<u16> {
    const EXPECTED: &'static str =
        "a port or a range of ports in rising order between 1 and 65535, such as 8080 or 1024-65535";

    fn from_text(text: &str) -> Option<Self> {
        let (first, last) = text.split_once('-').unwrap_or((text, text));
        let (first, last): (u16, u16) = (digits(first.trim())?, digits(last.trim())?);
        (0 < first && first <= last).then_some(first..=last)
    }
}

/// An IPv4 address with a port or a range of ports.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Endpoint {
    pub address: Ipv4Addr,
    pub ports: RangeInclusive<u16>,
}

impl FromText for Endpoint {
    const EXPECTED: &'static str =
        "an IPv4 address with a port or a range of ports, such as \"192.0.2.1:80\" or \"192.0.2.1:27000-27010\"";

    fn from_text(text: &str) -> Option<Self> {
        let (address, ports) = text.split_once(':')?;
        Some(Endpoint { address: address.parse().ok()?, ports: FromText::from_text(ports)? })
    }
}

impl FromText for MacAddr {
    const EXPECTED: &'static str =
        "the Ethernet address of one station, such as \"02:00:00:00:00:77\" (not a group address)";

    fn from_text(text: &str) -> Option<Self> {
        let mut octets = [0; 6];
        let mut parts = text.split([':', '-']);
        for octet in &mut octets {
            let part = parts.next().filter(|part| part.len() == 2 && part.bytes().all(|b| b.is_ascii_hexdigit()))?;
            *octet = u8::from_str_radix(part, 16).ok()?;
        }
        let station = octets[0] & 1 == 0 && octets != [0; 6];
        (parts.next().is_none() && station).then_some(MacAddr(octets))
    }
}

impl FromText for Duration {
    const EXPECTED: &'static str = "a time with its unit, such as 90s, 5m, 2h or 1h 30m";

    fn from_text(text: &str) -> Option<Self> {
        humantime::parse_duration(text).ok()
    }
}

/// An amount of memory in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Size(pub u64);

impl FromText for Size {
    const EXPECTED: &'static str = "an amount of memory in mebibytes or gibibytes, such as 256M or 4G";

    fn from_text(text: &str) -> Option<Self> {
        let shift = match text.chars().last()? {
            'M' => 20,
            'G' => 30,
            _ => return None,
        };
        let number: u64 = digits(&text[..text.len() - 1])?;
        number.checked_mul(1 << shift).map(Size)
    }
}

impl FromText for MssClamp {
    const EXPECTED: &'static str = "off, from-mtu or a segment size in bytes, such as 1360";

    fn from_text(text: &str) -> Option<Self> {
        match text {
            "off" => Some(MssClamp::Off),
            "from-mtu" => Some(MssClamp::FromMtu),
            _ => digits(text).map(MssClamp::Fixed),
        }
    }
}

/// A PCI address, with its domain.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Pci(pub String);

impl FromText for Pci {
    const EXPECTED: &'static str = "a PCI address, such as \"0000:03:00.0\" (see `dpdk-devbind.py --status`)";

    fn from_text(text: &str) -> Option<Self> {
        let (rest, function) = text.rsplit_once('.')?;
        let mut parts: Vec<&str> = rest.split(':').collect();
        if parts.len() == 2 {
            parts.insert(0, "0000");
        }
        let [domain, bus, device] = parts[..] else { return None };
        let hex = |text: &str, len, most| {
            let legal = text.len() == len && text.bytes().all(|b| b.is_ascii_hexdigit());
            legal && u32::from_str_radix(text, 16).is_ok_and(|value| value <= most)
        };
        let legal = hex(domain, 4, 0xffff) && hex(bus, 2, 0xff) && hex(device, 2, 0x1f) && hex(function, 1, 7);
        legal.then(|| Pci(format!("{domain}:{bus}:{device}.{function}").to_ascii_lowercase()))
    }
}

/// A DPDK virtual device with its arguments.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Vdev(pub String);

impl FromText for Vdev {
    const EXPECTED: &'static str = "a DPDK virtual device: its driver, a number and arguments, such as \
         \"net_af_packet0,iface=eth1\" \
         (a PCI device goes under `pci:`)";

    fn from_text(text: &str) -> Option<Self> {
        let driver = text.split(',').next()?.strip_prefix("net_")?;
        let legal = !driver.is_empty() && driver.chars().all(|c| c.is_ascii_alphanumeric() || c == '_');
        (legal && !text.contains(char::is_whitespace)).then(|| Vdev(text.to_owned()))
    }
}

/// Where to listen, if at all.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Listen(pub Option<SocketAddr>);

impl FromText for Listen {
    const EXPECTED: &'static str = "an address with a port, such as \"127.0.0.1:17644\" or \"[::1]:17644\", or off";

    fn from_text(text: &str) -> Option<Self> {
        if text == "off" {
            return Some(Listen(None));
        }
        text.parse().ok().filter(|address: &SocketAddr| address.port() != 0).map(|address| Listen(Some(address)))
    }
}

/// Where the control socket is, if there is one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct SocketPath(pub Option<PathBuf>);

impl FromText for SocketPath {
    const EXPECTED: &'static str = "an absolute path of at most 107 bytes, such as /run/turnpike/control.sock, or off";

    fn from_text(text: &str) -> Option<Self> {
        if text == "off" {
            return Some(SocketPath(None));
        }
        (text.starts_with('/') && text.len() <= 107).then(|| SocketPath(Some(PathBuf::from(text))))
    }
}

/// A number in digits alone: no sign, no spaces.
fn digits<T: std::str::FromStr>(text: &str) -> Option<T> {
    text.parse().ok().filter(|_| text.bytes().all(|b| b.is_ascii_digit()))
}
