//! `siit`, and the files of mappings that it names.

use std::fs::File;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io::{BufRead, BufReader, Read};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use dataplane::plan::{CrossingSpec, IpPrefix, ZoneId};
use dataplane::translate::eam::{self, Family, Row};
use dataplane::translate::embed::{self, Prefix};
use dataplane::translate::siit::Settings;
use serde_yaml::Value;

use super::Resolver;
use crate::config::decode::{List, Table, Text};
use crate::config::file::{self, TrafficClass};
use crate::config::text::{FilePath, FromText, Name, Network, Number};

/// The largest file of mappings, in bytes: some millions of rows.
const FILE_MAX: u64 = 256 << 20;

/// What was read from a file of mappings: a change of it is a change of the configuration.
pub(super) struct ReadFile {
    name: String,
    text: String,
}

impl ReadFile {
    /// Puts it beside the file's name in the values that are compared.
    pub fn note(&self, values: &mut Value) {
        if let Some(value) = values.get_mut("siit").and_then(|it| it.get_mut(&self.name)) {
            value["mappings-file"] = Value::String(self.text.clone());
        }
    }
}

/// Where a row of the table was written.
struct Written {
    row: Row,
    /// Its key, or the place in its file.
    place: String,
}

impl Resolver<'_> {
    /// Stateless translators between IPv4 and IPv6. Gives what was read from files.
    pub(super) fn crossings(&mut self, table: &Table<Name, file::Siit>) -> Vec<ReadFile> {
        let mut read = Vec::new();
        for (Name(name), it) in &table.0 {
            let key = format!("siit.{name}");
            let ipv4 = it.ipv4.as_ref().and_then(|Text(zone)| self.zone(format_args!("{key}.ipv4"), zone));
            let ipv6 = it.ipv6.as_ref().and_then(|Text(zone)| self.zone(format_args!("{key}.ipv6"), zone));
            let prefixes = self.embedding(&key, &it.prefixes);
            let destinations = self.destinations(&key, &it.destinations, prefixes.is_empty());
            let destination_prefix = it.destination_prefix.and_then(|Text(written)| {
                let key = format!("{key}.destination-prefix");
                let prefix = self.embeds(&key, written)?;
                if !prefixes.contains(&prefix) {
                    self.problem(&key, format_args!("{written} is not among `prefixes:`; add it there"));
                }
                Some(prefix)
            });
            let (mappings, file) = self.mappings(&key, name, it);
            read.extend(file);
            if !destinations.is_empty()
                && destination_prefix.as_ref().or(prefixes.first()).is_some_and(Prefix::is_well_known)
            {
                self.notes.push(format!(
                    "siit.{name}: hosts have addresses in 64:ff9b::/96, which is for others' IPv4 addresses only (RFC 6052 section \
                     3.1): give `destination-prefix:` a prefix of your own"
                ));
            }
            let error_prefix =
                it.error_prefix.and_then(|Text(prefix)| self.embeds(&format!("{key}.error-prefix"), prefix));
            if prefixes.is_empty() && mappings.is_empty() && self.sound(&key) {
                self.problem(
                    &key,
                    "it has neither `prefixes:` nor `mappings:`; give it one of them, for it translates nothing",
                );
            }
            let (Some(ipv4), Some(ipv6)) = (ipv4, ipv6) else { continue };
            self.sides(&key, ipv4, ipv6);
            let error_sources = self.error_sources(it, ipv4);
            let Text(Number(lowest)) = it.lowest_ipv6_mtu;
            let mut settings = Settings {
                copy_tos: it.traffic_class.0 == TrafficClass::Copy,
                tos: it.tos.and_then(|Text(Number(tos))| u8::try_from(tos).ok()),
                udp_checksum_none: it.udp_checksum_none.0,
                lowest_ipv6_mtu: u16::try_from(lowest).unwrap_or(u16::MAX),
                ..Settings::default()
            };
            if !it.mtu_plateaus.is_empty() {
                let plateaus = it.mtu_plateaus.iter().map(|(_, Text(mtu))| mtu.narrow());
                settings.plateaus = plateaus.collect();
            }
            self.spec.crossings.push(CrossingSpec {
                name: name.clone(),
                ipv4,
                ipv6,
                prefixes,
                destinations,
                destination_prefix,
                mappings: Arc::new(mappings),
                hairpin: it.hairpin.0,
                settings,
                error_sources,
                error_prefix,
                report_discards: it.report_discards.0,
            });
        }
        read
    }

    /// A zone belongs to one translator on each side.
    fn sides(&mut self, key: &str, ipv4: ZoneId, ipv6: ZoneId) {
        for (side, of) in [("ipv4", 4), ("ipv6", 6)] {
            let zone = |it: &CrossingSpec| if of == 4 { it.ipv4 } else { it.ipv6 };
            let mine = if of == 4 { ipv4 } else { ipv6 };
            let other = self.spec.crossings.iter().find(|it| zone(it) == mine).map(|it| it.name.clone());
            if let Some(other) = other {
                self.problem(
                    format_args!("{key}.{side}"),
                    format_args!(
                        "siit.{other} is between the same zones there already; put both into one, with several prefixes"
                    ),
                );
            }
        }
    }

    /// Prefixes that embed.
    fn embedding(&mut self, key: &str, list: &List<Text<IpPrefix>>) -> Vec<Prefix> {
        let mut prefixes: Vec<Prefix> = Vec::new();
        for (i, &Text(written)) in list.iter() {
            let key = format!("{key}.prefixes[{i}]");
            let Some(prefix) = self.embeds(&key, written) else { continue };
            let others = self.spec.crossings.iter().flat_map(|it| &it.prefixes).chain(&prefixes);
            if others.into_iter().any(|other| *other == prefix) {
                self.problem(&key, format_args!("{written} is given twice; remove one"));
            }
            prefixes.push(prefix);
        }
        prefixes
    }

    fn embeds(&mut self, key: &str, prefix: IpPrefix) -> Option<Prefix> {
        let IpAddr::V6(network) = prefix.address else {
            self.problem(key, format_args!("{prefix} is IPv4; write an IPv6 prefix, such as \"2001:db8:46::/96\""));
            return None;
        };
        if prefix.network() != prefix {
            let net = prefix.network();
            self.problem(key, format_args!("{prefix} has bits set after its length; write {net}"));
            return None;
        }
        match Prefix::new(network.to_bits(), prefix.len) {
            Ok(prefix) => Some(prefix),
            Err(embed::Problem::Length) => {
                self.problem(
                    key,
                    format_args!("{prefix} does not do: {}; write one of these lengths", embed::Problem::Length),
                );
                None
            }
            Err(problem) => {
                self.problem(key, format_args!("{prefix} does not do: {problem}; take another prefix"));
                None
            }
        }
    }

    /// IPv4 destinations that are embedded.
    fn destinations(
        &mut self,
        key: &str,
        list: &List<Text<RangeInclusive<Ipv4Addr>>>,
        bare: bool,
    ) -> Vec<RangeInclusive<Ipv4Addr>> {
        let key = format!("{key}.destinations");
        if bare && !list.is_empty() && self.sound(&key) {
            self.problem(&key, "there are no `prefixes:` for them to be embedded in; add one, or use `mappings:`");
        }
        list.iter().map(|(_, Text(range))| range.clone()).collect()
    }

    /// The table, from the file itself and the one that it names.
    fn mappings(&mut self, key: &str, name: &str, it: &file::Siit) -> (eam::Table, Option<ReadFile>) {
        let mut rows = Vec::new();
        for (i, mapping) in it.mappings.iter() {
            let place = format!("{key}.mappings[{i}]");
            let (Some(Text(Network(ipv4))), Some(Text(Network(ipv6)))) = (mapping.ipv4, mapping.ipv6) else { continue };
            match row(ipv4, ipv6) {
                Some(row) => rows.push(Written { row, place }),
                None => self.problem(&place, format_args!("{ipv4} and {ipv6} are not of the two families; write `ipv4:` with an IPv4 prefix and `ipv6:` with an IPv6 prefix")),
            }
        }
        let mut read = None;
        if let Some(Text(FilePath(path))) = &it.mappings_file {
            let key = format!("{key}.mappings-file");
            let path = self.beside(&key, path);
            match read_rows(&path) {
                Ok((more, digest)) => {
                    let text = format!("{} ({} rows, {digest:016x})", path.display(), more.len());
                    read = Some(ReadFile { name: name.to_owned(), text });
                    rows.extend(more);
                }
                Err(message) => self.problem(&key, message),
            }
        }
        let table: Vec<Row> = rows.iter().map(|it| it.row).collect();
        let problem = match eam::Table::build(&table) {
            Ok((table, overlaps)) => {
                // RFC 7757 §5.
                let prefix = |row: &Row, family| match family {
                    Family::V4 => format!("{}/{}", Ipv4Addr::from_bits(row.v4), row.v4_len),
                    Family::V6 => format!("{}/{}", Ipv6Addr::from_bits(row.v6), row.v6_len),
                };
                if let Some(first) = overlaps.first()
                    && let (Some(row), Some(around)) = (rows.get(first.row), rows.get(first.within))
                {
                    let (inner, outer) = (prefix(&row.row, first.family), prefix(&around.row, first.family));
                    self.notes.push(format!(
                        "siit.{name}: {} mapped prefixes lie within others, the first {inner} within {outer}: the longest counts",
                        overlaps.len()
                    ));
                }
                return (table, read);
            }
            Err(problem) => problem,
        };
        let place = |at: usize| rows.get(at).map_or("", |it| &it.place);
        let (at, message) = match problem {
            eam::Problem::Identical(at, other, family) => {
                let family = if family == Family::V4 { "IPv4" } else { "IPv6" };
                (
                    at,
                    format!(
                        "its {family} prefix is in {} too; remove one of the two (RFC 7757 section 5)",
                        place(other)
                    ),
                )
            }
            eam::Problem::Suffix(at) => (
                at,
                "the IPv4 prefix leaves more bits than the IPv6 prefix; shorten the IPv6 prefix (RFC 7757 section 3.2)"
                    .to_owned(),
            ),
            eam::Problem::Length(at) => (at, format!("{problem}; shorten it")),
            eam::Problem::Rows => (0, format!("{problem}; remove some")),
        };
        let in_file = place(at).starts_with(key);
        if in_file {
            self.problem(place(at), message);
        } else {
            self.problem(format_args!("{key}.mappings-file"), format_args!("{}: {message}", place(at)));
        }
        (eam::Table::default(), read)
    }

    /// A path as it is written at `key`: relative to the file where it stands.
    fn beside(&self, key: &str, path: &Path) -> PathBuf {
        let file = self.files.get(self.place(key).1.file);
        file.and_then(|file| file.parent()).map_or_else(|| path.to_owned(), |directory| directory.join(path))
    }

    /// The addresses that errors come from in IPv4: those of the file, or the gateway's own.
    fn error_sources(&self, it: &file::Siit, ipv4: ZoneId) -> Vec<RangeInclusive<Ipv4Addr>> {
        if !it.error_sources.is_empty() {
            return it.error_sources.iter().map(|(_, Text(range))| range.clone()).collect();
        }
        let there = self.spec.interfaces.iter().filter(|interface| interface.zone == ipv4);
        let own = there.flat_map(|interface| &interface.addresses).find_map(|own| match own.address {
            IpAddr::V4(address) => Some(address..=address),
            IpAddr::V6(_) => None,
        });
        own.into_iter().collect()
    }
}

/// A row of two prefixes. None: they are not of the two families.
fn row(ipv4: IpPrefix, ipv6: IpPrefix) -> Option<Row> {
    match (ipv4.address, ipv6.address) {
        (IpAddr::V4(v4), IpAddr::V6(v6)) => {
            Some(Row { v4: v4.to_bits(), v4_len: ipv4.len, v6: v6.to_bits(), v6_len: ipv6.len })
        }
        _ => None,
    }
}

/// The rows of a file, and a digest of them. A line has an IPv4 and an IPv6 prefix, in either order, as Jool's `eamt display --csv`
/// and people write them; empty lines, what is behind `#`, and a heading in the first line do not count.
fn read_rows(path: &Path) -> Result<(Vec<Written>, u64), String> {
    let name = path.display();
    let cannot = |error: std::io::Error| format!("{name} cannot be read: {error}; name a file that you may read");
    let file = File::open(path).map_err(cannot)?;
    if file.metadata().map_err(cannot)?.len() > FILE_MAX {
        return Err(format!("{name} is larger than {} MiB; name a file of mappings", FILE_MAX >> 20));
    }
    let (mut rows, mut digest) = (Vec::new(), DefaultHasher::new());
    for (line, number) in BufReader::new(file.take(FILE_MAX)).lines().zip(1..) {
        let line = line.map_err(cannot)?;
        let text = line.split('#').next().unwrap_or("").trim();
        if text.is_empty() {
            continue;
        }
        let cells: Vec<Option<IpPrefix>> = text
            .split(',')
            .map(|cell| Network::from_text(cell.trim().trim_matches('"')).map(|Network(it)| it))
            .collect();
        let read = match cells[..] {
            [Some(one), Some(other)] => row(one, other).or_else(|| row(other, one)),
            _ => None,
        };
        match read {
            Some(row) => {
                row.hash(&mut digest);
                rows.push(Written { row, place: format!("{name}:{number}") });
            }
            // A heading.
            None if number == 1 && !text.contains(['/', ':']) => {}
            None => {
                return Err(format!(
                    "{name}:{number}: {text:?} is no mapping; write an IPv4 and an IPv6 prefix with a comma between, such as \
                     192.0.2.0/24,2001:db8:aaaa::/120"
                ));
            }
        }
    }
    Ok((rows, digest.finish()))
}
