//! Which sessions or mappings: options, written as the query of a request. The gateway reads and judges them.

use clap::Args;

/// Which sessions; all of these must fit
#[derive(Debug, Args)]
pub struct Filters {
    #[command(flatten)]
    common: MappingFilters,
    /// With this peer outside: an address or a prefix
    #[arg(long, value_name = "PREFIX")]
    remote: Option<String>,
}

/// Which mappings; all of these must fit
#[derive(Debug, Args)]
pub struct MappingFilters {
    /// Of this protocol: tcp, udp or icmp
    #[arg(long, value_name = "PROTOCOL")]
    proto: Option<String>,
    /// Of these inside hosts: an address or a prefix
    #[arg(long, value_name = "PREFIX")]
    inside: Option<String>,
    /// With these external addresses: an address or a prefix
    #[arg(long, value_name = "PREFIX")]
    external: Option<String>,
    /// With this external port, or ICMP identifier
    #[arg(long, value_name = "PORT")]
    external_port: Option<String>,
    /// Made by this rule, forward or static entry
    #[arg(long, value_name = "NAME")]
    rule: Option<String>,
}

impl MappingFilters {
    fn pairs(&self) -> impl Iterator<Item = (&'static str, &str)> {
        let pairs = [
            ("proto", &self.proto),
            ("inside", &self.inside),
            ("external", &self.external),
            ("external-port", &self.external_port),
            ("rule", &self.rule),
        ];
        pairs.into_iter().filter_map(|(key, value)| Some((key, value.as_deref()?)))
    }

    /// The query, with its question mark.
    pub fn query(&self) -> String {
        query(self.pairs())
    }
}

impl Filters {
    /// The query, with its question mark.
    pub fn query(&self, all: bool) -> String {
        let remote = self.remote.as_deref().map(|remote| ("remote", remote));
        query(self.common.pairs().chain(remote).chain(all.then_some(("all", "true"))))
    }
}

fn query<'a>(pairs: impl Iterator<Item = (&'static str, &'a str)>) -> String {
    let mut query = form_urlencoded::Serializer::new(String::from("?"));
    query.extend_pairs(pairs);
    query.finish()
}
