//! The values of the file that are written as text: addresses, ranges, times, names.
//!
//! Each is read from a scalar as it stands in the file, so that every message can quote what was written and say what to
//! write instead, with an example.

use std::borrow::Cow;
use std::fmt::Display;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::time::Duration;

use dataplane::plan::{IpPrefix, MacAddr, MssClamp};
use schemars::{Schema, json_schema};
use serde_yaml::Value;

use super::written;

/// Something that is written as one scalar.
pub(super) trait FromText: Sized {
    /// What to write, with an example: completes "write".
    fn wanted() -> Cow<'static, str>;

    /// Reads it.
    fn from_text(text: &str) -> Option<Self>;

    /// Writes it: of all texts that are read as this value the usual one.
    fn to_text(&self) -> String;

    /// What is wrong with `text`, where more can be said than that something else is wanted.
    fn flaw(_text: &str) -> Option<&'static str> {
        None
    }

    /// The value in YAML: text, unless it is a number or a switch.
    fn to_value(&self) -> Value {
        Value::String(self.to_text())
    }

    /// What an editor needs to know of it.
    fn schema() -> Schema;
}

/// The name of a port, interface, zone, pool or rule. Names become labels of metrics and names of capture files.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Name(pub String);

impl FromText for Name {
    fn wanted() -> Cow<'static, str> {
        "a name (a letter or digit, then letters, digits, `-`, `_` or `.`, at most 32 in all)".into()
    }

    fn from_text(text: &str) -> Option<Self> {
        let first = text.chars().next()?;
        let fits = text.len() <= 32 && first.is_ascii_alphanumeric();
        let legal = text.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.'));
        (fits && legal).then(|| Name(text.to_owned()))
    }

    fn to_text(&self) -> String {
        self.0.clone()
    }

    fn schema() -> Schema {
        json_schema!({"type": "string", "pattern": "^[A-Za-z0-9][A-Za-z0-9._-]{0,31}$"})
    }
}

impl FromText for bool {
    fn wanted() -> Cow<'static, str> {
        "true or false".into()
    }

    fn from_text(text: &str) -> Option<Self> {
        text.parse().ok()
    }

    fn to_text(&self) -> String {
        self.to_string()
    }

    fn to_value(&self) -> Value {
        Value::Bool(*self)
    }

    fn schema() -> Schema {
        json_schema!({"type": "boolean"})
    }
}

/// A whole number between two others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Number<const LEAST: u32, const MOST: u32>(pub u32);

impl<const LEAST: u32, const MOST: u32> FromText for Number<LEAST, MOST> {
    fn wanted() -> Cow<'static, str> {
        if LEAST == MOST { LEAST.to_string().into() } else { format!("a whole number from {LEAST} to {MOST}").into() }
    }

    fn from_text(text: &str) -> Option<Self> {
        digits(text).filter(|number| (LEAST..=MOST).contains(number)).map(Number)
    }

    fn to_text(&self) -> String {
        self.0.to_string()
    }

    fn to_value(&self) -> Value {
        self.0.into()
    }

    fn schema() -> Schema {
        json_schema!({"type": "integer", "minimum": LEAST, "maximum": MOST})
    }
}

impl<const LEAST: u32, const MOST: u32> Number<LEAST, MOST> {
    /// The number, where the range makes sure of its width.
    pub fn narrow(self) -> u16 {
        const { assert!(MOST <= u16::MAX as u32) };
        u16::try_from(self.0).unwrap_or(u16::MAX)
    }
}

/// Descriptors of a queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Descriptors(pub u16);

impl FromText for Descriptors {
    fn wanted() -> Cow<'static, str> {
        "a multiple of 32 from 64 to 16384, such as 1024".into()
    }

    fn from_text(text: &str) -> Option<Self> {
        digits(text).filter(|number: &u16| (64..=16_384).contains(number) && number.is_multiple_of(32)).map(Descriptors)
    }

    fn to_text(&self) -> String {
        self.0.to_string()
    }

    fn to_value(&self) -> Value {
        self.0.into()
    }

    fn schema() -> Schema {
        json_schema!({"type": "integer", "minimum": 64, "maximum": 16384, "multipleOf": 32})
    }
}

impl FromText for u16 {
    fn wanted() -> Cow<'static, str> {
        "a whole number from 0 to 65535".into()
    }

    fn from_text(text: &str) -> Option<Self> {
        digits(text)
    }

    fn to_text(&self) -> String {
        self.to_string()
    }

    fn to_value(&self) -> Value {
        (*self).into()
    }

    fn schema() -> Schema {
        json_schema!({"type": "integer", "minimum": 0, "maximum": 65535})
    }
}

impl FromText for IpAddr {
    fn wanted() -> Cow<'static, str> {
        "an address, such as 192.0.2.1 or \"2001:db8::1\"".into()
    }

    fn from_text(text: &str) -> Option<Self> {
        text.parse().ok()
    }

    fn to_text(&self) -> String {
        self.to_string()
    }

    fn schema() -> Schema {
        json_schema!({"type": "string", "anyOf": [{"format": "ipv4"}, {"format": "ipv6"}]})
    }
}

impl FromText for Ipv4Addr {
    fn wanted() -> Cow<'static, str> {
        "an IPv4 address, such as 192.0.2.1".into()
    }

    fn from_text(text: &str) -> Option<Self> {
        text.parse().ok()
    }

    fn to_text(&self) -> String {
        self.to_string()
    }

    fn schema() -> Schema {
        json_schema!({"type": "string", "format": "ipv4"})
    }
}

impl FromText for IpPrefix {
    fn wanted() -> Cow<'static, str> {
        "an address with a prefix length, such as 192.0.2.1/24 or \"2001:db8::1/64\"".into()
    }

    fn from_text(text: &str) -> Option<Self> {
        let (address, len) = text.split_once('/')?;
        let address: IpAddr = address.parse().ok()?;
        let len: u8 = digits(len)?;
        (len <= if address.is_ipv4() { 32 } else { 128 }).then_some(IpPrefix { address, len })
    }

    fn flaw(text: &str) -> Option<&'static str> {
        let (address, length) = text.split_once('/').map_or((text, None), |(address, length)| (address, Some(length)));
        match (address.parse().ok()?, length) {
            (_, None) => Some("the length of its prefix is missing"),
            (IpAddr::V4(_), Some(_)) => Some("its prefix may be 0 to 32 bits long"),
            (IpAddr::V6(_), Some(_)) => Some("its prefix may be 0 to 128 bits long"),
        }
    }

    fn to_text(&self) -> String {
        self.to_string()
    }

    fn schema() -> Schema {
        json_schema!({"type": "string", "pattern": "^[0-9A-Fa-f.:]+/[0-9]{1,3}$"})
    }
}

/// A prefix, or an address as one of its whole length.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Network(pub IpPrefix);

impl FromText for Network {
    fn wanted() -> Cow<'static, str> {
        "an address or a prefix, such as 192.0.2.1 or \"2001:db8:aaaa::/64\"".into()
    }

    fn from_text(text: &str) -> Option<Self> {
        let whole = |address: IpAddr| IpPrefix { address, len: if address.is_ipv4() { 32 } else { 128 } };
        let read = if text.contains('/') { IpPrefix::from_text(text) } else { text.parse().ok().map(whole) };
        read.filter(|prefix| prefix.network() == *prefix).map(Network)
    }

    fn flaw(text: &str) -> Option<&'static str> {
        match IpPrefix::from_text(text) {
            Some(_) => Some("bits are set after its length"),
            None => IpPrefix::flaw(text),
        }
    }

    fn to_text(&self) -> String {
        let whole = self.0.len == if self.0.address.is_ipv4() { 32 } else { 128 };
        if whole { self.0.address.to_string() } else { self.0.to_string() }
    }

    fn schema() -> Schema {
        json_schema!({"type": "string", "pattern": "^[0-9A-Fa-f.:]+(/[0-9]{1,3})?$"})
    }
}

/// The path of a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct FilePath(pub PathBuf);

impl FromText for FilePath {
    fn wanted() -> Cow<'static, str> {
        "the path of a file, such as eam.csv".into()
    }

    fn from_text(text: &str) -> Option<Self> {
        (!text.is_empty()).then(|| FilePath(text.into()))
    }

    fn to_text(&self) -> String {
        self.0.display().to_string()
    }

    fn schema() -> Schema {
        json_schema!({"type": "string", "minLength": 1})
    }
}

/// External addresses, inclusive: every address of a prefix counts, the first and the last too.
impl FromText for RangeInclusive<Ipv4Addr> {
    fn wanted() -> Cow<'static, str> {
        "IPv4 addresses: one (192.0.2.1), a range in rising order (192.0.2.1-192.0.2.9) or a prefix (192.0.2.0/28)"
            .into()
    }

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

    fn flaw(text: &str) -> Option<&'static str> {
        let prefix = IpPrefix::from_text(text)?;
        if prefix.address.is_ipv6() { Some("it is IPv6") } else { Some("bits are set after its length") }
    }

    fn to_text(&self) -> String {
        span(self)
    }

    fn schema() -> Schema {
        json_schema!({"type": "string", "pattern": "^[0-9.]+(\\s*-\\s*[0-9.]+|/[0-9]{1,2})?$"})
    }
}

impl FromText for RangeInclusive<u16> {
    fn wanted() -> Cow<'static, str> {
        "a port or a range of ports in rising order between 1 and 65535, such as 8080 or 1024-65535".into()
    }

    fn from_text(text: &str) -> Option<Self> {
        let (first, last) = text.split_once('-').unwrap_or((text, text));
        let (first, last): (u16, u16) = (digits(first.trim())?, digits(last.trim())?);
        (0 < first && first <= last).then_some(first..=last)
    }

    fn to_text(&self) -> String {
        span(self)
    }

    fn schema() -> Schema {
        json_schema!({
            "type": ["string", "integer"], "pattern": "^[0-9]+(\\s*-\\s*[0-9]+)?$", "minimum": 1, "maximum": 65535,
        })
    }
}

/// An IPv4 address with a port or a range of ports.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Endpoint {
    pub address: Ipv4Addr,
    pub ports: RangeInclusive<u16>,
}

impl FromText for Endpoint {
    fn wanted() -> Cow<'static, str> {
        "an IPv4 address with a port or a range of ports, such as \"192.0.2.1:80\" or \"192.0.2.1:27000-27010\"".into()
    }

    fn from_text(text: &str) -> Option<Self> {
        let (address, ports) = text.split_once(':')?;
        Some(Endpoint { address: address.parse().ok()?, ports: FromText::from_text(ports)? })
    }

    fn flaw(text: &str) -> Option<&'static str> {
        text.parse::<IpAddr>().is_ok().then_some("its port is missing")
    }

    fn to_text(&self) -> String {
        format!("{}:{}", self.address, span(&self.ports))
    }

    fn schema() -> Schema {
        json_schema!({"type": "string", "pattern": "^[0-9.]+:[0-9]+(\\s*-\\s*[0-9]+)?$"})
    }
}

impl FromText for MacAddr {
    fn wanted() -> Cow<'static, str> {
        "the Ethernet address of one station, such as \"02:00:00:00:00:77\"".into()
    }

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

    fn flaw(text: &str) -> Option<&'static str> {
        let group = u8::from_str_radix(text.get(..2)?, 16).is_ok_and(|octet| octet & 1 == 1);
        group.then_some("it is the address of a group")
    }

    fn to_text(&self) -> String {
        self.to_string()
    }

    fn schema() -> Schema {
        json_schema!({"type": "string", "pattern": "^[0-9A-Fa-f]{2}([:-][0-9A-Fa-f]{2}){5}$"})
    }
}

impl FromText for Duration {
    fn wanted() -> Cow<'static, str> {
        "a time with its unit, such as 90s, 5m, 2h or 1h 30m".into()
    }

    fn from_text(text: &str) -> Option<Self> {
        humantime::parse_duration(text).ok().filter(|_| text.bytes().any(|b| b.is_ascii_alphabetic()))
    }

    fn flaw(text: &str) -> Option<&'static str> {
        let bare = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
        bare.then_some("its unit is missing")
    }

    fn to_text(&self) -> String {
        written(*self)
    }

    fn schema() -> Schema {
        json_schema!({"type": "string", "pattern": "^\\s*([0-9]+\\s*[A-Za-z\u{b5}]+\\s*)+$"})
    }
}

/// An amount of memory in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Size(pub u64);

impl FromText for Size {
    fn wanted() -> Cow<'static, str> {
        "an amount of memory in mebibytes or gibibytes, such as 256M or 4G".into()
    }

    fn from_text(text: &str) -> Option<Self> {
        let shift = match text.chars().last()? {
            'M' => 20,
            'G' => 30,
            _ => return None,
        };
        let number: u64 = digits(&text[..text.len() - 1])?;
        number.checked_mul(1 << shift).map(Size)
    }

    fn flaw(text: &str) -> Option<&'static str> {
        let bare = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
        bare.then_some("its unit is missing")
    }

    fn to_text(&self) -> String {
        if self.0.is_multiple_of(1 << 30) { format!("{}G", self.0 >> 30) } else { format!("{}M", self.0 >> 20) }
    }

    fn schema() -> Schema {
        json_schema!({"type": "string", "pattern": "^[0-9]+[MG]$"})
    }
}

impl FromText for MssClamp {
    fn wanted() -> Cow<'static, str> {
        "off, from-mtu or a segment size in bytes, such as 1360".into()
    }

    fn from_text(text: &str) -> Option<Self> {
        match text {
            "off" => Some(MssClamp::Off),
            "from-mtu" => Some(MssClamp::FromMtu),
            _ => digits(text).map(MssClamp::Fixed),
        }
    }

    fn to_text(&self) -> String {
        match self {
            MssClamp::Off => "off".to_owned(),
            MssClamp::FromMtu => "from-mtu".to_owned(),
            MssClamp::Fixed(size) => size.to_string(),
        }
    }

    fn to_value(&self) -> Value {
        match self {
            MssClamp::Fixed(size) => (*size).into(),
            _ => Value::String(self.to_text()),
        }
    }

    fn schema() -> Schema {
        json_schema!({"anyOf": [{"enum": ["off", "from-mtu"]}, {"type": "integer", "minimum": 536, "maximum": 8960}]})
    }
}

/// A PCI address, with its domain.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Pci(pub String);

impl FromText for Pci {
    fn wanted() -> Cow<'static, str> {
        "a PCI address, such as \"0000:03:00.0\" (see `dpdk-devbind.py --status`)".into()
    }

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

    fn to_text(&self) -> String {
        self.0.clone()
    }

    fn schema() -> Schema {
        json_schema!({
            "type": "string", "pattern": "^([0-9A-Fa-f]{4}:)?[0-9A-Fa-f]{2}:[01][0-9A-Fa-f]\\.[0-7]$",
        })
    }
}

/// A DPDK virtual device with its arguments.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Vdev(pub String);

impl FromText for Vdev {
    fn wanted() -> Cow<'static, str> {
        "a DPDK virtual device: its driver, a number and arguments, such as \
         \"net_af_packet0,iface=eth1\" \
         (a PCI device goes under `pci:`)"
            .into()
    }

    fn from_text(text: &str) -> Option<Self> {
        let driver = text.split(',').next()?.strip_prefix("net_")?;
        let legal = !driver.is_empty() && driver.chars().all(|c| c.is_ascii_alphanumeric() || c == '_');
        (legal && !text.contains(char::is_whitespace)).then(|| Vdev(text.to_owned()))
    }

    fn to_text(&self) -> String {
        self.0.clone()
    }

    fn schema() -> Schema {
        json_schema!({"type": "string", "pattern": "^net_[A-Za-z0-9_]+(,\\S*)?$"})
    }
}

/// Where to listen, if at all.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Listen(pub Option<SocketAddr>);

impl FromText for Listen {
    fn wanted() -> Cow<'static, str> {
        "an address with a port, such as \"127.0.0.1:17644\" or \"[::1]:17644\", or off".into()
    }

    fn from_text(text: &str) -> Option<Self> {
        if text == "off" {
            return Some(Listen(None));
        }
        text.parse().ok().filter(|address: &SocketAddr| address.port() != 0).map(|address| Listen(Some(address)))
    }

    fn to_text(&self) -> String {
        self.0.map_or_else(|| "off".to_owned(), |address| address.to_string())
    }

    fn schema() -> Schema {
        json_schema!({"type": "string", "pattern": "^(off|.+:[0-9]{1,5})$"})
    }
}

/// Where the control socket is, if there is one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct SocketPath(pub Option<PathBuf>);

impl FromText for SocketPath {
    fn wanted() -> Cow<'static, str> {
        "an absolute path of at most 107 bytes, such as /run/turnpike/control.sock, or off".into()
    }

    fn from_text(text: &str) -> Option<Self> {
        if text == "off" {
            return Some(SocketPath(None));
        }
        (text.starts_with('/') && text.len() <= 107).then(|| SocketPath(Some(PathBuf::from(text))))
    }

    fn to_text(&self) -> String {
        self.0.as_ref().map_or_else(|| "off".to_owned(), |path| path.display().to_string())
    }

    fn schema() -> Schema {
        json_schema!({"type": "string", "pattern": "^(off|/.*)$", "maxLength": 107})
    }
}

/// The name of a system group, as groupadd(8) allows it. Whether there is one is seen at start.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Group(pub String);

impl FromText for Group {
    fn wanted() -> Cow<'static, str> {
        "the name of a system group, such as turnpike".into()
    }

    fn from_text(text: &str) -> Option<Self> {
        let first = text.chars().next().is_some_and(|c| c.is_ascii_alphabetic() || c == '_');
        let legal = text.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.'));
        (first && legal && text.len() <= 32).then(|| Group(text.to_owned()))
    }

    fn to_text(&self) -> String {
        self.0.clone()
    }

    fn schema() -> Schema {
        json_schema!({"type": "string", "pattern": "^[A-Za-z_][A-Za-z0-9_.-]{0,31}$"})
    }
}

/// A range as a user would write it.
pub(super) fn span<T: Display + PartialEq>(range: &RangeInclusive<T>) -> String {
    let (first, last) = (range.start(), range.end());
    if first == last { first.to_string() } else { format!("{first}-{last}") }
}

/// A number in digits alone: no sign, no spaces.
fn digits<T: std::str::FromStr>(text: &str) -> Option<T> {
    text.parse().ok().filter(|_| text.bytes().all(|b| b.is_ascii_digit()))
}
