//! From a request to its answer.

use std::borrow::Cow;
use std::io;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use dataplane::plan::IpPrefix;
use dataplane::session::walk::{Action, Filter};
use dataplane::steer::{SHARDS, ShardId, WorkerId};
use hyper::body::Incoming;
use hyper::header::{ALLOW, CONTENT_TYPE, HeaderValue};
use hyper::{Method, Response, StatusCode};
use serde::Serialize;
use tokio::sync::oneshot;

use super::filter::{Of, filter};
use super::listing::{self, Walker};
use super::request::{Answer, Request, View};
use super::rights::Peer;
use super::types::{Count, Flushed, Refusal, ReloadReport};
use super::{Desk, rows};
use crate::http::{Body, full};

/// How long the control thread may take for an answer: a reload makes it build a plan.
const ANSWER_TIME: Duration = Duration::from_secs(30);

/// Over how much time a worker's load is taken.
const LOAD_TIME: Duration = Duration::from_millis(250);

const JSON: HeaderValue = HeaderValue::from_static("application/json");

/// What can be asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verb {
    Status,
    Reload,
    Sessions,
    CountSessions,
    FlushSessions,
    Mappings,
    Pools,
    PoolAddresses,
    Interfaces,
    Neighbours,
    Routes,
    Workers,
    Shards,
    MoveShard,
    Prefixes,
    Renumber,
    Stats,
}

const VERBS: [(Method, &str, Verb); 17] = [
    (Method::GET, "/v1/status", Verb::Status),
    (Method::POST, "/v1/reload", Verb::Reload),
    (Method::GET, "/v1/sessions", Verb::Sessions),
    (Method::DELETE, "/v1/sessions", Verb::FlushSessions),
    (Method::GET, "/v1/sessions/count", Verb::CountSessions),
    (Method::GET, "/v1/mappings", Verb::Mappings),
    (Method::GET, "/v1/pools", Verb::Pools),
    (Method::GET, "/v1/pools/addresses", Verb::PoolAddresses),
    (Method::GET, "/v1/interfaces", Verb::Interfaces),
    (Method::GET, "/v1/neighbours", Verb::Neighbours),
    (Method::GET, "/v1/routes", Verb::Routes),
    (Method::GET, "/v1/workers", Verb::Workers),
    (Method::GET, "/v1/shards", Verb::Shards),
    (Method::POST, "/v1/shards", Verb::MoveShard),
    (Method::GET, "/v1/prefixes", Verb::Prefixes),
    (Method::POST, "/v1/prefixes", Verb::Renumber),
    (Method::GET, "/v1/stats", Verb::Stats),
];

/// Why a request gets no better answer.
#[derive(Debug)]
pub(super) struct Problem {
    status: StatusCode,
    error: Cow<'static, str>,
    remedy: Option<Cow<'static, str>>,
    allow: Option<HeaderValue>,
}

impl Problem {
    fn new(
        status: StatusCode,
        error: impl Into<Cow<'static, str>>,
        remedy: impl Into<Option<Cow<'static, str>>>,
    ) -> Self {
        Problem { status, error: error.into(), remedy: remedy.into(), allow: None }
    }

    /// The request itself is wrong.
    pub(super) fn wrong(error: impl Into<Cow<'static, str>>, remedy: impl Into<Cow<'static, str>>) -> Self {
        Problem::new(StatusCode::BAD_REQUEST, error, remedy.into())
    }

    fn busy(error: &'static str) -> Self {
        Problem::new(StatusCode::SERVICE_UNAVAILABLE, error, Cow::from("try again in a moment"))
    }

    fn response(self) -> Response<Body> {
        let refusal = Refusal { error: self.error.into_owned(), remedy: self.remedy.map(Cow::into_owned) };
        let mut response = json(&refusal);
        *response.status_mut() = self.status;
        if let Some(methods) = self.allow {
            response.headers_mut().insert(ALLOW, methods);
        }
        response
    }
}

impl From<Problem> for io::Error {
    fn from(problem: Problem) -> Self {
        io::Error::other(problem.error)
    }
}

fn json(value: &impl Serialize) -> Response<Body> {
    // Strings, numbers and lists of them: writing these does not fail.
    let mut text = serde_json::to_vec(value).unwrap_or_default();
    text.push(b'\n');
    let mut response = Response::new(full(text));
    response.headers_mut().insert(CONTENT_TYPE, JSON);
    response
}

/// Answers a request of `peer`.
pub(super) async fn answer(desk: Arc<Desk>, peer: Peer, request: hyper::Request<Incoming>) -> Response<Body> {
    respond(desk, peer, request).await.unwrap_or_else(Problem::response)
}

async fn respond(desk: Arc<Desk>, peer: Peer, request: hyper::Request<Incoming>) -> Result<Response<Body>, Problem> {
    admit(&desk, peer, request.method() == Method::GET).await?;
    let verb = verb(request.method(), request.uri().path())?;
    let query = request.uri().query();
    let takes_a_query = matches!(
        verb,
        Verb::Reload
            | Verb::Sessions
            | Verb::CountSessions
            | Verb::FlushSessions
            | Verb::Mappings
            | Verb::MoveShard
            | Verb::Renumber
    );
    if let Some(query) = query.filter(|query| !takes_a_query && !query.is_empty()) {
        return Err(Problem::wrong(format!("`{query}`: nothing is to be said here"), "leave it out"));
    }
    match verb {
        Verb::Status => Ok(json(&rows::status(&desk.view().await?))),
        Verb::Reload => Ok(json(&desk.reload(check_only(query)?).await?)),
        Verb::Sessions => {
            let filter = filter(query, Of::Sessions, &desk.view().await?.plan)?;
            Ok(listing::table(desk.walker(peer, Action::ListSessions, filter)?))
        }
        Verb::CountSessions => {
            let filter = filter(query, Of::Sessions, &desk.view().await?.plan)?;
            let sessions = desk.walker(peer, Action::CountSessions, filter)?.finish().await?;
            Ok(json(&Count { sessions }))
        }
        Verb::FlushSessions => {
            let filter = filter(query, Of::Flush, &desk.view().await?.plan)?;
            let walker = desk.walker(peer, Action::EndSessions, filter)?;
            // It goes on to its end whether or not the client waits for that.
            let ended = tokio::spawn(walker.finish()).await;
            let sessions = ended.map_err(|_| Problem::busy("the gateway is stopping"))??;
            Ok(json(&Flushed { sessions }))
        }
        Verb::Mappings => {
            let filter = filter(query, Of::Mappings, &desk.view().await?.plan)?;
            Ok(listing::table(desk.walker(peer, Action::ListMappings, filter)?))
        }
        Verb::Pools => Ok(listing::of(desk.view().await?, rows::pools)),
        Verb::PoolAddresses => Ok(listing::of(desk.view().await?, rows::pool_addresses)),
        Verb::Interfaces => Ok(listing::of(desk.view().await?, rows::interfaces)),
        Verb::Neighbours => Ok(listing::neighbours(desk)),
        Verb::Routes => Ok(listing::of(desk.view().await?, rows::routes)),
        Verb::Workers => {
            let before = rows::done(&desk.view().await?);
            tokio::time::sleep(LOAD_TIME).await;
            Ok(listing::of(desk.view().await?, move |view| rows::workers(view, &before, LOAD_TIME)))
        }
        Verb::Shards => Ok(listing::of(desk.view().await?, rows::shards)),
        Verb::MoveShard => {
            let (shard, to) = shard_and_worker(query)?;
            let moved = desk.ask(|answer| Request::MoveShard { shard, to, answer }).await?;
            Ok(json(&moved.map_err(|error| Problem::new(StatusCode::UNPROCESSABLE_ENTITY, error, None))?))
        }
        Verb::Prefixes => Ok(listing::of(desk.view().await?, rows::prefixes)),
        Verb::Renumber => {
            let (rule, outside) = rule_and_prefix(query)?;
            let report = desk.ask(|answer| Request::Renumber { rule, outside, answer }).await?;
            Ok(json(&report.map_err(|error| Problem::new(StatusCode::UNPROCESSABLE_ENTITY, error, None))?))
        }
        Verb::Stats => Ok(listing::of(desk.view().await?, rows::stats)),
    }
}

/// Judges the peer; away from the other connections, as the user database may be slow.
async fn admit(desk: &Desk, peer: Peer, reading: bool) -> Result<(), Problem> {
    let readers = desk.readers.clone();
    let judged = tokio::task::spawn_blocking(move || readers.admit(peer, reading)).await;
    let judged = judged.map_err(|_| Problem::busy("the user can't be looked up"))?;
    judged.map_err(|(error, remedy)| Problem::new(StatusCode::FORBIDDEN, error, Cow::from(remedy)))
}

fn verb(method: &Method, path: &str) -> Result<Verb, Problem> {
    let there = || VERBS.iter().filter(|(_, known, _)| *known == path);
    if let Some((.., verb)) = there().find(|(known, ..)| known == method) {
        return Ok(*verb);
    }
    let methods: Vec<&str> = there().map(|(method, ..)| method.as_str()).collect();
    if methods.is_empty() {
        let mut paths: Vec<&str> = VERBS.iter().map(|(_, path, _)| *path).collect();
        paths.dedup();
        let remedy = format!("this gateway answers to {}", paths.join(", "));
        return Err(Problem::new(StatusCode::NOT_FOUND, format!("there is no {path}"), Cow::from(remedy)));
    }
    let methods = methods.join(", ");
    let error = format!("{path} does not take {method}");
    let problem = Problem::new(StatusCode::METHOD_NOT_ALLOWED, error, Cow::from(format!("it takes {methods}")));
    Err(Problem { allow: HeaderValue::from_str(&methods).ok(), ..problem })
}

fn check_only(query: Option<&str>) -> Result<bool, Problem> {
    match query.unwrap_or_default() {
        "" | "check=false" => Ok(false),
        "check=true" => Ok(true),
        other => Err(Problem::wrong(format!("`{other}` says nothing to a reload"), "write check=true, or nothing")),
    }
}

/// What a move says: `shard=N&worker=M`.
fn shard_and_worker(query: Option<&str>) -> Result<(ShardId, WorkerId), Problem> {
    let (mut shard, mut worker) = (None, None);
    for (key, value) in form_urlencoded::parse(query.unwrap_or_default().as_bytes()) {
        let number: Option<u8> = value.parse().ok();
        match (&*key, number) {
            ("shard", Some(id)) if usize::from(id) < SHARDS => shard = Some(ShardId(id)),
            ("worker", Some(id)) => worker = Some(WorkerId(id)),
            _ => {
                let remedy = "write shard= and a number from 0 to 63, and worker= and a worker's number";
                return Err(Problem::wrong(format!("`{key}={value}` does not do"), remedy));
            }
        }
    }
    let missing = || Problem::wrong("a move needs a shard and a worker", "write shard=N&worker=M");
    shard.zip(worker).ok_or_else(missing)
}

/// What another prefix says: `rule=SECTION.NAME&outside=PREFIX`, or `outside=file`.
fn rule_and_prefix(query: Option<&str>) -> Result<(String, Option<IpPrefix>), Problem> {
    let (mut rule, mut outside) = (None, None);
    for (key, value) in form_urlencoded::parse(query.unwrap_or_default().as_bytes()) {
        match &*key {
            "rule" => rule = Some(value.into_owned()),
            "outside" if value == "file" => outside = Some(None),
            "outside" => {
                let read = value.split_once('/').and_then(|(address, len)| {
                    let (address, len): (IpAddr, u8) = (address.parse().ok()?, len.parse().ok()?);
                    (len <= if address.is_ipv4() { 32 } else { 128 }).then_some(IpPrefix { address, len })
                });
                let wrong = || {
                    Problem::wrong(
                        format!("outside: `{value}` is no prefix"),
                        "write it like 2001:db8:1::/48, or `file`",
                    )
                };
                outside = Some(Some(read.ok_or_else(wrong)?));
            }
            _ => return Err(Problem::wrong(format!("`{key}={value}` says nothing here"), "write rule= and outside=")),
        }
    }
    let missing = || Problem::wrong("a rule and a prefix are needed", "write rule=SECTION.NAME&outside=PREFIX");
    rule.zip(outside).ok_or_else(missing)
}

impl Desk {
    /// Asks the control thread, and waits for its answer.
    pub(super) async fn ask<T>(&self, request: impl FnOnce(Answer<T>) -> Request) -> Result<T, Problem> {
        let (answer, answered) = oneshot::channel();
        self.requests.try_send(request(answer)).map_err(|_| Problem::busy("too many requests wait for the gateway"))?;
        match tokio::time::timeout(ANSWER_TIME, answered).await {
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(_)) => Err(Problem::busy("the gateway is stopping")),
            Err(_) => {
                let remedy = Cow::from("look at its log");
                Err(Problem::new(StatusCode::GATEWAY_TIMEOUT, "the gateway does not answer", remedy))
            }
        }
    }

    async fn view(&self) -> Result<View, Problem> {
        self.ask(Request::View).await
    }

    async fn reload(&self, check_only: bool) -> Result<ReloadReport, Problem> {
        let report = self.ask(|answer| Request::Reload { check_only, answer }).await?;
        report.map_err(|error| Problem::new(StatusCode::UNPROCESSABLE_ENTITY, error, None))
    }

    /// A walk for `peer`, if not too many are on their way.
    fn walker(self: Arc<Self>, peer: Peer, action: Action, filter: Filter) -> Result<Walker, Problem> {
        let busy = || Problem::busy("other listings of the tables are still on their way");
        let place = self.walks.take(peer).ok_or_else(busy)?;
        Ok(Walker::new(self, place, action, filter))
    }
}
