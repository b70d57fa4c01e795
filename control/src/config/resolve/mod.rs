//! From the configuration as written to a consistent [`Config`]: names become indices, defaults are filled in, and
//! everything that contradicts itself is noted where it stands.
//!
//! One module for each section. What decoding has refused is missing here or is a default; whatever would be said only
//! because of that is not said ([`Resolver::sound`]).

mod boot;
mod crossings;
mod interfaces;
mod nat44;
mod pools;
mod ports;
mod prefixes;
mod routes;
mod timers;

use std::collections::{BTreeSet, HashMap};
use std::fmt::Display;
use std::net::IpAddr;
use std::path::PathBuf;

use dataplane::plan::{InterfaceId, InterfaceSpec, Plan, Spec, ZoneId};
use indexmap::IndexSet;

use super::decode::{Setting, Text};
use super::error::{Problems, suggest};
use super::file::File;
use super::node::{Mark, Node};
use super::text::{Group, Listen, Name, SocketPath};
use super::{Config, Control, Metrics};

/// Gives the file its meaning. None: something is wrong with it, which has been noted.
pub(super) fn resolve(file: &File, root: &Node, files: &[PathBuf], problems: &mut Problems) -> Option<Config> {
    let unsound = problems.unknown().map(str::to_owned).collect();
    let mut resolver = Resolver {
        spec: Spec::default(),
        names: Names::default(),
        places: root.places(),
        unsound,
        files,
        notes: Vec::new(),
        problems,
    };
    let r = &mut resolver;
    let ports = r.ports(file.ports.as_ref());
    r.interfaces(file.interfaces.as_ref());
    let boot = r.boot(&file.boot, &ports);
    r.routes(&file.routes);
    r.pools(&file.pools);
    r.rules(&file.nat44.rules);
    r.statics(&file.nat44.r#static);
    r.forwards(&file.nat44.forwards);
    r.prefix_rules(file);
    let read = r.crossings(&file.siit);
    r.timers(&file.timers);
    r.icmp(&file.icmp);
    if r.problems.is_empty()
        && let Err(error) = Plan::compile(r.spec.clone())
    {
        r.problem("", format_args!("the data plane cannot use this: {error}; remove or shrink what it names"));
    }
    let Text(Listen(listen)) = file.metrics.listen;
    let Text(SocketPath(socket)) = file.control.socket.clone();
    let control = Control { socket, group: file.control.group.clone().map(|Text(Group(name))| name) };
    let (spec, notes) = (resolver.spec, resolver.notes);
    let metrics = Metrics { listen };
    let mut values = file.encode();
    read.iter().for_each(|read| read.note(&mut values));
    let config = Config {
        files: Vec::new(),
        boot,
        ports,
        metrics,
        control,
        spec,
        notes,
        renumbered: super::Renumbered::new(),
        values,
    };
    problems.is_empty().then_some(config)
}

/// The names that other sections speak of, each at its index.
#[derive(Default)]
struct Names {
    ports: IndexSet<String>,
    interfaces: IndexSet<String>,
    zones: IndexSet<String>,
    pools: IndexSet<String>,
}

/// What has been resolved, and what is wrong. After a problem it goes on with a stand-in, only to find further ones.
struct Resolver<'a> {
    spec: Spec,
    names: Names,
    /// Where each key and its value stand, by path.
    places: HashMap<String, (Mark, Mark)>,
    /// Keys about which decoding has noted a problem.
    unsound: BTreeSet<String>,
    /// The files that the configuration was read from.
    files: &'a [PathBuf],
    /// What is allowed but may surprise.
    notes: Vec<String>,
    problems: &'a mut Problems,
}

impl Resolver<'_> {
    /// Notes a problem with the value at `key`.
    fn problem(&mut self, key: impl Display, message: impl Display) {
        let key = key.to_string();
        self.problems.add(self.place(&key).1, key, message);
    }

    /// Notes a problem with `key` itself.
    fn problem_with_key(&mut self, key: impl Display, message: impl Display) {
        let key = key.to_string();
        self.problems.add(self.place(&key).0, key, message);
    }

    /// Where a key and its value stand; of what the file leaves out, where the section around it does.
    fn place(&self, key: &str) -> (Mark, Mark) {
        let mut path = key;
        loop {
            if let Some(place) = self.places.get(path) {
                return *place;
            }
            path = path.rfind(['.', '[']).map_or("", |end| &path[..end]);
        }
    }

    /// Whether decoding has refused nothing at `path` or below, so that what is missing there is missing in the file.
    fn sound(&self, path: &str) -> bool {
        !self.unsound.range(path.to_owned()..).next().is_some_and(|key| key.starts_with(path))
    }

    /// The index of what `key` names, or a problem there.
    fn find(&mut self, key: impl Display, kind: &str, name: &str) -> Option<usize> {
        let (known, section) = match kind {
            "port" => (&self.names.ports, "ports"),
            "interface" => (&self.names.interfaces, "interfaces"),
            "zone" => (&self.names.zones, "interfaces"),
            _ => (&self.names.pools, "pools"),
        };
        let found = known.get_index_of(name);
        if found.is_none() && self.sound(section) {
            let remedy = match suggest(name, known.iter().map(String::as_str)) {
                Some(meant) => format!("did you mean \"{meant}\"?"),
                None if known.is_empty() => format!("there is no {kind} at all: add one under `{section}:`"),
                None => format!("there is {}", list(known)),
            };
            self.problem(key, format_args!("no {kind} is called \"{name}\"; {remedy}"));
        }
        found
    }

    fn interface(&mut self, key: impl Display, Name(name): &Name) -> Option<InterfaceId> {
        self.find(key, "interface", name).map(|index| InterfaceId(id(index)))
    }

    fn zone(&mut self, key: impl Display, Name(name): &Name) -> Option<ZoneId> {
        self.find(key, "zone", name).and_then(|index| u8::try_from(index).ok()).map(ZoneId)
    }

    /// The interface that has this very address.
    fn owner_of(&self, address: IpAddr) -> Option<String> {
        let has = |interface: &&InterfaceSpec| interface.addresses.iter().any(|own| own.address == address);
        self.spec.interfaces.iter().find(has).map(|interface| interface.name.clone())
    }

    fn limit(&mut self, key: &str, number: usize, most: usize, what: &str) {
        if number > most {
            self.problem(key, format_args!("there are {number} {what}; at most {most} are possible, so remove some"));
        }
    }
}

/// An index as the data plane numbers things. Every table is limited below what it can number.
fn id(index: usize) -> u16 {
    u16::try_from(index).unwrap_or(u16::MAX)
}

/// Things in a row, or that there is none.
fn list<T: Display>(things: impl IntoIterator<Item = T>) -> String {
    let things: Vec<String> = things.into_iter().map(|thing| thing.to_string()).collect();
    if things.is_empty() { "none".to_owned() } else { things.join(", ") }
}
