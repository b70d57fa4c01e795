//! The configuration file as it is written: one type per section, no meaning yet. `docs/configuration.md` explains
//! every key, and a test holds it to that.

use std::net::{IpAddr, Ipv4Addr};
use std::ops::RangeInclusive;
use std::time::Duration;

use dataplane::plan::{Filtering, FilteringSet, ForwardProtocol, IpPrefix, MacAddr, MidStream, MssClamp, Pooling};
use serde::Deserialize;
use serde::de::value::MapAccessDeserializer;
use serde::de::{Deserializer, Error, MapAccess, Visitor};

use super::Poll;
use super::text::{Endpoint, FromText, Listen, Name, Pci, Size, SocketPath, Table, Text, Vdev};

/// The whole file.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub(super) struct File {
    pub version: Text<u32>,
    #[serde(default)]
    pub boot: Boot,
    pub ports: Table<Name, Port>,
    pub interfaces: Table<Name, Interface>,
    #[serde(default)]
    pub routes: Vec<Route>,
    #[serde(default)]
    pub pools: Table<Name, Pool>,
    #[serde(default)]
    pub nat44: Nat44,
    #[serde(default)]
    pub timers: Timers,
    #[serde(default)]
    pub icmp: Icmp,
    #[serde(default)]
    pub metrics: Metrics,
    #[serde(default)]
    pub control: Control,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub(super) struct Boot {
    pub cpu: Cpu,
    pub memory: Memory,
    pub packets: Option<Text<u32>>,
    pub tables: Tables,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub(super) struct Cpu {
    pub workers: Vec<Text<u16>>,
    pub control: Option<Text<u16>>,
    pub poll: Option<Text<Poll>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub(super) struct Memory {
    pub hugepages: Option<Text<bool>>,
    pub size: Option<Text<Size>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub(super) struct Tables {
    pub sessions: Option<Text<u32>>,
    pub mappings: Option<Text<u32>>,
    pub neighbours: Option<Text<u32>>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub(super) struct Port {
    pub device: Option<Text<Vdev>>,
    pub pci: Option<Text<Pci>>,
    pub rx_descriptors: Option<Text<u16>>,
    pub tx_descriptors: Option<Text<u16>>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub(super) struct Interface {
    pub port: String,
    pub vlan: Option<Text<u16>>,
    pub outer_vlan: Option<Text<u16>>,
    pub mac: Option<Text<MacAddr>>,
    pub zone: Text<Name>,
    pub addresses: Vec<Text<IpPrefix>>,
    pub mtu: Option<Text<u16>>,
    pub mss_clamp: Option<Text<MssClamp>>,
    #[serde(default)]
    pub neighbours: Table<IpAddr, Text<MacAddr>>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub(super) struct Route {
    pub to: Text<IpPrefix>,
    pub via: Option<Text<IpAddr>>,
    pub interface: Option<String>,
    pub unreachable: Option<Text<bool>>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub(super) struct Pool {
    pub addresses: Vec<Text<RangeInclusive<Ipv4Addr>>>,
    pub ports: Option<Text<RangeInclusive<u16>>>,
    pub proxy_arp: Option<Text<bool>>,
    pub answer_echo: Option<Text<bool>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub(super) struct Nat44 {
    pub rules: Table<Name, Rule>,
    pub forwards: Table<Name, Forward>,
    #[serde(rename = "static")]
    pub statics: Table<Name, Static>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub(super) struct Rule {
    pub from: String,
    pub to: String,
    #[serde(default)]
    pub source: Vec<Text<IpPrefix>>,
    #[serde(default)]
    pub destination: Vec<Text<IpPrefix>>,
    pub pool: String,
    pub profile: Option<Text<Profile>>,
    pub filtering: Option<FilteringChoice>,
    pub pooling: Option<Text<Pooling>>,
    pub port_preservation: Option<Text<bool>>,
    pub port_parity: Option<Text<bool>>,
    pub inbound_refresh: Option<Text<bool>>,
    pub mid_stream: Option<Text<MidStream>>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub(super) struct Forward {
    pub from: String,
    pub to: String,
    pub protocol: Text<ForwardProtocol>,
    pub external: Text<Endpoint>,
    pub inside: Text<Endpoint>,
    pub filtering: Option<Text<Filtering>>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub(super) struct Static {
    pub from: String,
    pub to: String,
    pub external: Text<Ipv4Addr>,
    pub inside: Text<Ipv4Addr>,
    pub filtering: Option<Text<Filtering>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub(super) struct Timers {
    pub udp: Option<Text<Duration>>,
    pub udp_ports: Table<u16, Text<Duration>>,
    pub tcp_opening: Option<Text<Duration>>,
    pub tcp_established: Option<Text<Duration>>,
    pub tcp_closing: Option<Text<Duration>>,
    pub icmp: Option<Text<Duration>>,
    pub hold_down: Option<Text<Duration>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub(super) struct Icmp {
    pub rate: Option<Text<u32>>,
    pub burst: Option<Text<u32>>,
    pub silent: Vec<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub(super) struct Metrics {
    pub listen: Option<Text<Listen>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub(super) struct Control {
    pub socket: Option<Text<SocketPath>>,
    pub group: Option<String>,
}

/// A word out of a few.
macro_rules! words {
    ($type:ty, $expected:literal, $($word:literal => $value:expr),+) => {
        impl FromText for $type {
            const EXPECTED: &'static str = $expected;

            fn from_text(text: &str) -> Option<Self> {
                match text {
                    $($word => Some($value),)+
                    _ => None,
                }
            }
        }
    };
}

/// What a rule's defaults are made for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Profile {
    /// A closed border.
    #[default]
    Default,
    /// Carrier-grade NAT: endpoint-independent filtering (RFC 6888 REQ-7).
    Cgn,
}

words!(
    MidStream, "drop, reset or adopt",
    "drop" => MidStream::Drop, "reset" => MidStream::Reset, "adopt" => MidStream::Adopt
);
words!(Poll, "busy or adaptive", "busy" => Poll::Busy, "adaptive" => Poll::Adaptive);
words!(Profile, "default or cgn", "default" => Profile::Default, "cgn" => Profile::Cgn);
words!(Pooling, "paired or paired-soft", "paired" => Pooling::Paired, "paired-soft" => Pooling::PairedSoft);
words!(ForwardProtocol, "tcp or udp", "tcp" => ForwardProtocol::Tcp, "udp" => ForwardProtocol::Udp);
words!(
    Filtering, "endpoint-independent, address-dependent or address-and-port-dependent",
    "endpoint-independent" => Filtering::EndpointIndependent,
    "address-dependent" => Filtering::AddressDependent,
    "address-and-port-dependent" => Filtering::AddressPortDependent
);

/// One filtering for all protocols, or one for each that is named.
#[derive(Clone, Copy, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub(super) struct FilteringByProtocol {
    pub tcp: Option<Text<Filtering>>,
    pub udp: Option<Text<Filtering>>,
    pub icmp: Option<Text<Filtering>>,
}

/// `filtering:` of a rule, in either of its forms.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct FilteringChoice(FilteringByProtocol);

impl FilteringChoice {
    /// With what is not named taken from `default`.
    pub fn or(self, default: Filtering) -> FilteringSet {
        let pick = |chosen: Option<Text<Filtering>>| chosen.map_or(default, |Text(filtering)| filtering);
        FilteringSet { tcp: pick(self.0.tcp), udp: pick(self.0.udp), icmp: pick(self.0.icmp) }
    }
}

impl<'de> Deserialize<'de> for FilteringChoice {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Either;

        impl<'de> Visitor<'de> for Either {
            type Value = FilteringChoice;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                write!(f, "{}, or one of these for each of tcp, udp and icmp", Filtering::EXPECTED)
            }

            fn visit_str<E: Error>(self, text: &str) -> Result<FilteringChoice, E> {
                let all = Some(Text::deserialize(serde::de::value::StrDeserializer::new(text))?);
                Ok(FilteringChoice(FilteringByProtocol { tcp: all, udp: all, icmp: all }))
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<FilteringChoice, A::Error> {
                FilteringByProtocol::deserialize(MapAccessDeserializer::new(map)).map(FilteringChoice)
            }
        }

        deserializer.deserialize_any(Either)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use serde::de::value::Error as NoValue;
    use serde::forward_to_deserialize_any;

    use super::*;

    /// A deserializer that gives away nothing but the keys that a section asks for.
    struct Keys<'a>(&'a mut Vec<&'static str>);

    impl<'de> Deserializer<'de> for Keys<'_> {
        type Error = NoValue;

        fn deserialize_any<V: Visitor<'de>>(self, _: V) -> Result<V::Value, NoValue> {
            Err(NoValue::custom("not a section"))
        }

        fn deserialize_struct<V: Visitor<'de>>(
            self,
            _: &'static str,
            fields: &'static [&'static str],
            _: V,
        ) -> Result<V::Value, NoValue> {
            self.0.extend(fields);
            Err(NoValue::custom("the keys are known"))
        }

        forward_to_deserialize_any! {
            bool i8 i16 i32 i64 u8 u16 u32 u64 f32 f64 char str string bytes byte_buf option unit unit_struct
            newtype_struct seq tuple tuple_struct map enum identifier ignored_any
        }
    }

    /// The keys of a section, as paths.
    fn keys<'de, T: Deserialize<'de>>(section: &str) -> Vec<String> {
        let mut keys = Vec::new();
        assert!(T::deserialize(Keys(&mut keys)).is_err());
        assert!(!keys.is_empty(), "{section} is no section");
        keys.iter().map(|key| format!("{section}{key}")).collect()
    }

    /// Every key that the reader knows.
    fn all_keys() -> BTreeSet<String> {
        let sections = [
            keys::<File>(""),
            keys::<Boot>("boot."),
            keys::<Cpu>("boot.cpu."),
            keys::<Memory>("boot.memory."),
            keys::<Tables>("boot.tables."),
            keys::<Port>("ports.NAME."),
            keys::<Interface>("interfaces.NAME."),
            keys::<Route>("routes[]."),
            keys::<Pool>("pools.NAME."),
            keys::<Nat44>("nat44."),
            keys::<Rule>("nat44.rules.NAME."),
            keys::<FilteringByProtocol>("nat44.rules.NAME.filtering."),
            keys::<Forward>("nat44.forwards.NAME."),
            keys::<Static>("nat44.static.NAME."),
            keys::<Timers>("timers."),
            keys::<Icmp>("icmp."),
            keys::<Metrics>("metrics."),
            keys::<Control>("control."),
        ];
        sections.into_iter().flatten().collect()
    }

    const MANUAL: &str = include_str!("../../../docs/configuration.md");

    #[test]
    fn the_manual_has_every_key_and_no_other() {
        let documented: BTreeSet<String> = MANUAL
            .lines()
            .filter_map(|line| line.strip_prefix("| `")?.split_once("` |").map(|(key, _)| key.to_owned()))
            .filter(|key| key.chars().all(|c| c.is_ascii_alphanumeric() || ".-[]".contains(c)))
            .filter(|key| key.starts_with(|c: char| c.is_ascii_lowercase()))
            .collect();
        let known = all_keys();
        assert_eq!(known.difference(&documented).collect::<Vec<_>>(), Vec::<&String>::new(), "not in the manual");
        assert_eq!(documented.difference(&known).collect::<Vec<_>>(), Vec::<&String>::new(), "not in the program");
    }

    /// The manual's examples can be read (names that lead nowhere aside, for most are only a section).
    #[test]
    fn the_manuals_examples_can_be_read() {
        let examples: Vec<&str> =
            MANUAL.split("```yaml\n").skip(1).map(|rest| rest.split("```").next().unwrap()).collect();
        assert!(examples.len() > 10);
        for example in examples {
            let mut text = example.to_owned();
            for (section, empty) in
                [("version:", "version: 1\n"), ("ports:", "ports: {}\n"), ("interfaces:", "interfaces: {}\n")]
            {
                if !text.lines().any(|line| line.starts_with(section)) {
                    text.push_str(empty);
                }
            }
            if let (true, Err(error)) = (text == example, crate::config::Config::parse(&text, "manual".as_ref())) {
                panic!("{error}");
            }
            if let Err(error) = serde_yaml::from_str::<File>(&text) {
                panic!("{error}:\n{text}");
            }
        }
    }
}
