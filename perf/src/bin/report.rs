//! `report`: tables and plots of what `bench` and `ports` have measured (see perf/README.md).
#![allow(clippy::cast_precision_loss)] // counts and ticks are far below 2^52

use std::fmt::Write as _;
use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use clap::Parser;
use dataplane::stages::Stage;
use perf::figures::{self, Case, Cell, grouped, shown};
use perf::frames::Lengths;
use perf::machine::Part;
use perf::matrix::{ENGINE, FILLED, FLOWS, FRAMES, MEMORY, RESIDENT, ROUTED, STATELESS, TABLES, TURN, WORST};
use perf::plot::{self, Scale, Series};
use perf::stages::PREFIX;

/// Puts the figures of a directory into results.json, results.md and plots, and prints the tables.
#[derive(Debug, Parser)]
#[command(name = "report")]
struct Options {
    /// The directory that `bench --out` and `ports --out` have written to
    directory: PathBuf,
}

/// The parts of a run, in the order of the report.
const PARTS: [&str; 7] = ["engine", "tables", "ports", "rings", "workers", "rfc8219", "rfc9693"];
/// What stands for a cell that was not run.
const NOT_RUN: &str = "-";
/// A line of 100 Gbit/s, in bits a second, and what each frame takes of it beside its bytes: preamble and gap.
const LINE: f64 = 100e9;
const BETWEEN: f64 = 20.0;

fn main() -> Result<()> {
    let Options { directory } = Options::parse();
    let mut parts = Vec::new();
    for name in PARTS {
        let file = directory.join(format!("{name}.json"));
        if let Ok(text) = fs::read_to_string(&file) {
            let part: Part = serde_json::from_str(&text).with_context(|| format!("reading {}", file.display()))?;
            parts.push(part);
        }
    }
    ensure!(!parts.is_empty(), "{} has no figures: `bench --out` writes some", directory.display());
    let report = Report { parts };
    let text = report.text();
    // Whoever has seen enough may close the pipe.
    let _ = std::io::stdout().write_all(text.as_bytes());
    let write = |name: &str, text: &str| {
        let file = directory.join(name);
        fs::write(&file, text).with_context(|| format!("writing {}", file.display()))
    };
    write("results.json", &(serde_json::to_string_pretty(&report.parts)? + "\n"))?;
    write("results.md", &text)?;
    report.plots(&directory)
}

/// A run.
struct Report {
    parts: Vec<Part>,
}

impl Report {
    fn cells(&self, part: &str) -> &[Cell] {
        self.parts.iter().find(|it| it.part == part).map_or(&[], |it| &it.cells)
    }

    fn cell(&self, part: &str, case: &Case) -> Option<&Cell> {
        self.cells(part).iter().find(|it| it.case == *case)
    }

    fn frequency(&self) -> f64 {
        self.parts.first().map_or(f64::NAN, |it| it.frequency)
    }

    /// All tables.
    fn text(&self) -> String {
        let mut text = String::new();
        for part in &self.parts {
            let Part { part, date, commit, machine, frequency, load_before, load_after, pages, command, notes, .. } =
                part;
            let _ = writeln!(
                text,
                "- **{part}**: {date}, commit {commit}, `{command}`; {machine}, {:.0} MHz TSC; load {load_before} before, \
                 {load_after} after; {pages}. {}",
                frequency / 1e6,
                notes.join(". "),
            );
        }
        let tables = [
            ("Engine alone: cycles per packet (floor)", self.engine()),
            ("Engine alone, by length of frames: cycles per packet", self.frames()),
            ("Engine alone: instructions per packet, 1,008 flows", self.instructions()),
            ("New sessions and their end: cycles each", self.sessions()),
            ("Where the cycles go: by stage, for each packet (`STAGES=1`)", self.stages()),
            ("A poll of 32 packets: cycles", self.polls()),
            ("A flood of new flows into a full table: cycles per packet", self.flood()),
            ("All sessions made, used and ended, over and over", self.turns()),
            ("Memory of a NAT44 flow, by part: bytes", self.memory()),
            ("Three tables: cycles, and bytes of a session", self.tables()),
            ("Through memif ports", self.ports("ports", ["testpmd io", "testpmd macswap"])),
            ("Latency through memif ports at half of that rate, both ways: microseconds", self.latency()),
            ("Through rings, within one process", self.ports("rings", ["io loop", "macswap loop"])),
            ("Two workers against two processes of one worker: NAT44, both ways", self.list("workers")),
            ("RFC 8219, both ways", self.list("rfc8219")),
            ("RFC 9693", self.list("rfc9693")),
            ("One core to a line of 100 Gbit/s", self.model()),
            ("Every figure of the engine", self.list("engine")),
        ];
        for (title, table) in tables {
            let _ = writeln!(text, "\n### {title}\n\n{}", table.trim_end());
        }
        text
    }

    /// A table of cells: rows by name, columns by flows. What is in no matrix stays empty.
    fn by_flows(&self, rows: &[(&str, &[usize])], show: impl Fn(&Cell) -> String) -> String {
        let columns: Vec<usize> = FLOWS.into_iter().filter(|it| rows.iter().any(|row| row.1.contains(it))).collect();
        let heads: Vec<String> = columns.iter().map(|&it| grouped(it)).collect();
        let mut text = format!("| flows | {} |\n|---{}|\n", heads.join(" | "), "|--:".repeat(columns.len()));
        for (name, flows) in rows {
            let cell = |&column: &usize| {
                let shown = self.cell("engine", &Case::new(name, column)).map_or(NOT_RUN.into(), &show);
                if flows.contains(&column) { shown } else { String::new() }
            };
            let _ = writeln!(text, "| {name} | {} |", columns.iter().map(cell).collect::<Vec<_>>().join(" | "));
        }
        text
    }

    fn engine(&self) -> String {
        self.by_flows(&ENGINE, |cell| match cell.beside.get("floor") {
            Some(floor) => format!("{:.0} ({floor:.0})", cell.median),
            None => format!("{:.0}", cell.median),
        })
    }

    fn frames(&self) -> String {
        let mut text = format!("| 1,008 flows | {} |\n|---{}|\n", FRAMES.join(" | "), "|--:".repeat(FRAMES.len()));
        for name in ["NAT44 in→out", "NAT44 out→in"] {
            let cell = |frames: &&str| {
                let case = Case::new(name, ROUTED).frames((*frames).into());
                self.cell("engine", &case).map_or(NOT_RUN.into(), |cell| format!("{:.0}", cell.median))
            };
            let _ = writeln!(text, "| {name} | {} |", FRAMES.iter().map(cell).collect::<Vec<_>>().join(" | "));
        }
        text
    }

    fn instructions(&self) -> String {
        let mut text = String::from("| path | instructions | cycles |\n|---|--:|--:|\n");
        for (name, _) in ENGINE[..6].iter().chain(&ENGINE[STATELESS..STATELESS + 6]) {
            let cell = self.cell("engine", &Case::new(name, ROUTED));
            let count = cell.and_then(|it| it.beside.get("instructions"));
            let show = |figure: Option<f64>| figure.map_or(NOT_RUN.into(), |it| format!("{it:.0}"));
            let _ = writeln!(text, "| {name} | {} | {} |", show(count.copied()), show(cell.map(|it| it.median)));
        }
        text
    }

    fn sessions(&self) -> String {
        let names: Vec<String> = ["NAT44 new session", "session expiry"]
            .iter()
            .flat_map(|name| FILLED.map(|percent| format!("{name}, {percent} % full")))
            .collect();
        let rows: Vec<(&str, &[usize])> = names.iter().map(|name| (name.as_str(), &FLOWS[2..])).collect();
        let frequency = self.frequency();
        self.by_flows(&rows, |cell| {
            let rate = frequency / cell.median / 1e6;
            let opened = cell.beside.get("opened").filter(|&&it| it < 1.0);
            let refused = opened.map_or(String::new(), |it| format!(", {:.2} % refused", (1.0 - it) * 100.0));
            format!("{:.0} ({rate:.2} million/s{refused})", cell.median)
        })
    }

    /// The cases of which the cycles were counted by stage.
    fn stages(&self) -> String {
        let mut text = String::new();
        let of = |stage: &Stage| format!("{PREFIX}{}", stage.name());
        let there =
            |stage: &Stage| self.parts.iter().flat_map(|it| &it.cells).any(|it| it.beside.contains_key(&of(stage)));
        let stages: Vec<Stage> = Stage::ALL.into_iter().filter(there).collect();
        if stages.is_empty() {
            return NOT_RUN.into();
        }
        let heads: Vec<&str> = stages.iter().map(|it| it.name()).collect();
        let _ = writeln!(
            text,
            "| case | flows | {} | sum |\n|---|--:{}|",
            heads.join(" | "),
            "|--:".repeat(heads.len() + 1)
        );
        for (part, cell) in self.parts.iter().flat_map(|part| part.cells.iter().map(move |cell| (part, cell))) {
            let figures: Vec<Option<&f64>> = stages.iter().map(|stage| cell.beside.get(&of(stage))).collect();
            if figures.iter().all(Option::is_none) {
                continue;
            }
            let sum: f64 = figures.iter().copied().flatten().sum();
            let figures: Vec<String> =
                figures.iter().map(|it| it.map_or(String::new(), |it| format!("{it:.0}"))).collect();
            let frames = if cell.case.frames == "64" { String::new() } else { format!(", {}", cell.case.frames) };
            let (part, name, flows) = (&part.part, &cell.case.name, grouped(cell.case.flows));
            let _ = writeln!(text, "| {part}: {name}{frames} | {flows} | {} | {sum:.0} |", figures.join(" | "));
        }
        text
    }

    fn polls(&self) -> String {
        let kinds = ["p50", "p99", "p99.9", "max"];
        let mut text = format!("| | flows | {} |\n|---|--:{}|\n", kinds.join(" | "), "|--:".repeat(kinds.len()));
        for flows in &FLOWS[2..] {
            for name in ["poll", "poll, sessions ending", "empty loop"] {
                let cell = self.cell("engine", &Case::new(name, *flows));
                let figure = |kind: &&str| cell.and_then(|it| it.beside.get(*kind)).map(|&it| it.round());
                let show = |kind| figure(kind).map_or(NOT_RUN.into(), |it| format!("{it}"));
                let figures: Vec<String> = kinds.iter().map(show).collect();
                let _ = writeln!(text, "| {name} | {} | {} |", grouped(*flows), figures.join(" | "));
            }
        }
        text
    }

    fn flood(&self) -> String {
        let rows = ["NAT44 in→out, table full", "NAT44 in→out, table full and flooded", "refused new flow"];
        let flows = self.cells("engine").iter().find(|it| it.case.name == rows[0]).map_or(FLOWS[3], |it| it.case.flows);
        let mut text = format!("| {} flows | cycles |\n|---|--:|\n", grouped(flows));
        for name in rows {
            let cell = self.cell("engine", &Case::new(name, flows));
            let _ = writeln!(text, "| {name} | {} |", cell.map_or(NOT_RUN.into(), |it| format!("{:.0}", it.median)));
        }
        text
    }

    fn turns(&self) -> String {
        let cells = |name: &str| self.cells("engine").iter().find(|it| it.case.name == name);
        let Some(first) = cells(TURN[0]) else { return NOT_RUN.into() };
        let mut text = format!(
            "| {} sessions, turn | new session, cycles | hit, cycles | end, cycles | resident afterwards, MiB |\n\
             |--:|--:|--:|--:|--:|\n",
            grouped(first.case.flows)
        );
        for turn in 0..first.windows.len() {
            let figure = |name: &&str| {
                cells(name).and_then(|it| it.windows.get(turn)).map_or(NOT_RUN.into(), |it| format!("{it:.0}"))
            };
            let figures: Vec<String> = TURN.iter().chain([&RESIDENT]).map(figure).collect();
            let _ = writeln!(text, "| {} | {} |", turn + 1, figures.join(" | "));
        }
        let most = cells(TURN[2]).and_then(|it| it.beside.get("ended in a poll at most")).copied().unwrap_or(0.0);
        let _ = writeln!(
            text,
            "\nNo poll ended more than {most:.0} sessions. After each turn every segment of memory was free again."
        );
        text
    }

    /// What shards hold when the table is full, divided by its flows.
    fn memory(&self) -> String {
        let parts: Vec<&Cell> = self.cells("engine").iter().filter(|it| it.case.name.starts_with(MEMORY)).collect();
        let Some(first) = parts.first() else { return NOT_RUN.into() };
        let mut text = format!("| {} flows, a mapping each | bytes |\n|---|--:|\n", grouped(first.case.flows));
        for cell in &parts {
            let _ = writeln!(text, "| {} | {:.1} |", cell.case.name.trim_start_matches(MEMORY), cell.median);
        }
        let sum: f64 = parts.iter().map(|it| it.median).sum();
        let _ = writeln!(text, "| **sum** | **{sum:.1}** |");
        text
    }

    /// The tables beside each other.
    fn tables(&self) -> String {
        let (mut tables, mut whats): (Vec<&str>, Vec<&str>) = Default::default();
        for (table, what) in self.cells("tables").iter().filter_map(|it| it.case.name.split_once(": ")) {
            tables.extend((!tables.contains(&table)).then_some(table));
            whats.extend((!whats.contains(&what)).then_some(what));
        }
        if tables.is_empty() {
            return NOT_RUN.into();
        }
        let heads: Vec<String> = TABLES.iter().map(|&it| grouped(it)).collect();
        let mut text = format!("| sessions | | {} |\n|---|---{}|\n", heads.join(" | "), "|--:".repeat(heads.len()));
        for what in whats {
            // Not each is measured in every respect.
            let there = |name: &str| self.cells("tables").iter().any(|it| it.case.name == name);
            for table in tables.iter().filter(|table| there(&format!("{table}: {what}"))) {
                let cell = |&sessions: &usize| {
                    let cell = self.cell("tables", &Case::new(&format!("{table}: {what}"), sessions));
                    // The worst that the table itself does: what interrupts a run is not there in each.
                    cell.map_or(NOT_RUN.into(), |it| shown(if what == WORST { it.lowest } else { it.median }))
                };
                let _ = writeln!(
                    text,
                    "| {what} | {table} | {} |",
                    TABLES.iter().map(cell).collect::<Vec<_>>().join(" | ")
                );
            }
        }
        text
    }

    /// The gateway beside testpmd, or beside what stands for it.
    fn ports(&self, part: &str, [io, macswap]: [&str; 2]) -> String {
        let cells = self.cells(part);
        let ours = cells.iter().filter(|it| it.unit == "Mpps" && it.case.name.ends_with(", turnpike"));
        let ours: Vec<&Cell> = ours.collect();
        if ours.is_empty() {
            return NOT_RUN.into();
        }
        let mut text = String::from(
            "| traffic | flows | Mpps | io | macswap | generator alone | of io | of macswap | busy cycles/packet |\n\
             |---|--:|--:|--:|--:|--:|--:|--:|--:|\n",
        );
        for cell in ours {
            let what = cell.case.name.trim_end_matches(", turnpike");
            let rate = |who: &str| {
                let case = Case { name: format!("{what}, {who}"), ..cell.case.clone() };
                self.cell(part, &case).map(|it| it.median)
            };
            let alone = rate("the generator alone");
            let shown = |who: &str| match (rate(who), alone) {
                (None, _) => NOT_RUN.into(),
                (Some(rate), Some(alone)) if rate * 2.0 > alone => format!("≥ {rate:.2}"),
                (Some(rate), _) => format!("{rate:.2}"),
            };
            let beside = |what: &str, digits: usize| {
                cell.beside.get(what).filter(|it| it.is_finite()).map_or(NOT_RUN.into(), |it| format!("{it:.digits$}"))
            };
            let (flows, ours) = (grouped(cell.case.flows), shown("turnpike"));
            let _ = writeln!(
                text,
                "| {what} | {flows} | {ours} | {} | {} | {} | {} | {} | {} |",
                shown(io),
                shown(macswap),
                alone.map_or(NOT_RUN.into(), |it| format!("{it:.2}")),
                beside(&format!("of {io}"), 2),
                beside(&format!("of {macswap}"), 2),
                beside("busy cycles/packet", 0),
            );
        }
        text += "\n≥: limited by the generator, which with nothing between its ports moves less than twice as much.\n";
        text
    }

    /// How long packets are on their way through the ports.
    fn latency(&self) -> String {
        const AT: &str = "latency at half of the rate, ";
        let kinds = ["Mpps each way", "least", "p50", "p99", "p99.9", "max"];
        let cells: Vec<&Cell> = self.cells("ports").iter().filter(|it| it.case.name.starts_with(AT)).collect();
        if cells.is_empty() {
            return NOT_RUN.into();
        }
        let mut text = format!("| | flows | {} |\n|---|--:{}|\n", kinds.join(" | "), "|--:".repeat(kinds.len()));
        for cell in cells {
            let figures = kinds.map(|kind| cell.beside.get(kind).map_or(NOT_RUN.into(), |it| format!("{it:.2}")));
            let (name, flows) = (cell.case.name.trim_start_matches(AT), grouped(cell.case.flows));
            let _ = writeln!(text, "| {name} | {flows} | {} |", figures.join(" | "));
        }
        text
    }

    /// Every cell of a part, one a line.
    fn list(&self, part: &str) -> String {
        let cells = self.cells(part);
        if cells.is_empty() {
            return NOT_RUN.into();
        }
        figures::list(cells.iter())
    }

    /// How many cores a line takes: its frames a second, times the cycles of a frame, by the cycles of a core.
    fn model(&self) -> String {
        let rate = |bytes: f64| LINE / 8.0 / (bytes + BETWEEN);
        let (small, mixed) = (rate(64.0), rate(Lengths::Imix.mean()));
        let frequency = self.frequency();
        let mut text = format!(
            "A line of 100 Gbit/s carries 10^11 / 8 / (64 + 20) = {:.2} million frames of 64 bytes a second, or 10^11 / 8 / \
             ({:.1} + 20) = {:.2} million of the mix. A core has {:.0} million cycles a second. Cores = frames x cycles / \
             cycles of a core, both directions being half each. `engine`: without driver, the lower bound. `memif`: busy cycles \
             through memif ports, driver and copies included; a NIC's driver copies nothing.\n\n\
             | path | flows | from | cycles | cores at 64 bytes | cores at the mix |\n|---|--:|---|--:|--:|--:|\n",
            small / 1e6,
            Lengths::Imix.mean(),
            mixed / 1e6,
            frequency / 1e6,
        );
        let mut row = |path: &str, flows: usize, from: &str, cycles: Option<f64>| {
            let cores = |rate: f64| cycles.map_or(NOT_RUN.into(), |it| format!("{:.1}", rate * it / frequency));
            let shown = cycles.map_or(NOT_RUN.into(), |it| format!("{it:.0}"));
            let (flows, small, mixed) = (grouped(flows), cores(small), cores(mixed));
            let _ = writeln!(text, "| {path} | {flows} | {from} | {shown} | {small} | {mixed} |");
        };
        let engine = |names: &[&str], flows| {
            let cycles: Option<Vec<f64>> =
                names.iter().map(|name| self.cell("engine", &Case::new(name, flows)).map(|it| it.median)).collect();
            cycles.map(|it| it.iter().sum::<f64>() / it.len() as f64)
        };
        let ports = |name: &str, flows| {
            let cell = self.cell("ports", &Case::new(&format!("{name} both ways, turnpike"), flows))?;
            cell.beside.get("busy cycles/packet").copied().filter(|it| it.is_finite())
        };
        for (path, names, flows) in [
            ("IPv4 routed", &["IPv4 routed"][..], &[ROUTED][..]),
            ("IPv6 routed", &["IPv6 routed"], &[ROUTED]),
            ("NAT44", &["NAT44 in→out", "NAT44 out→in"], &[ROUTED, FLOWS[2], FLOWS[3], FLOWS[4]]),
        ] {
            for &flows in flows {
                row(path, flows, "engine", engine(names, flows));
                if flows < FLOWS[4] {
                    row(path, flows, "memif", ports(path, flows));
                }
            }
        }
        text
    }

    /// Writes the plots whose figures there are.
    fn plots(&self, directory: &Path) -> Result<()> {
        let put = |name: &str, svg: &str| {
            let file = directory.join(name);
            fs::write(&file, svg).with_context(|| format!("writing {}", file.display()))
        };
        let of = |part: &str, name: &str| Series {
            name: name.into(),
            points: self
                .cells(part)
                .iter()
                .filter(|it| it.case.name == name && it.case.frames == "64")
                .map(|it| [it.case.flows as f64, it.lowest, it.median, it.highest])
                .collect(),
        };
        let some =
            |series: Vec<Series>| -> Vec<Series> { series.into_iter().filter(|it| !it.points.is_empty()).collect() };
        let hits = ["NAT44 in→out", "NAT44 out→in", "NAT44 in→out, 10 remotes a mapping", ENGINE[10].0];
        let hits = some(hits.into_iter().map(|name| of("engine", name)).collect());
        if !hits.is_empty() {
            let svg = plot::lines("An established flow's packet", "flows", "cycles", Scale::Logarithmic, &hits);
            put("engine.svg", &svg)?;
        }
        let made = FILLED.map(|percent| format!("NAT44 new session, {percent} % full"));
        let made = some(made.iter().map(|name| of("engine", name)).collect());
        if !made.is_empty() {
            put("sessions.svg", &plot::lines("A new session", "flows", "cycles", Scale::Logarithmic, &made))?;
        }
        let who = ["turnpike", "testpmd io", "testpmd macswap"];
        let both = self.cells("ports").iter().filter(|it| it.case.name.ends_with("both ways, turnpike"));
        let groups: Vec<(String, Vec<Option<f64>>)> = both
            .map(|cell| {
                let what = cell.case.name.trim_end_matches(", turnpike");
                let figure = |who: &&str| {
                    let case = Case { name: format!("{what}, {who}"), ..cell.case.clone() };
                    self.cell("ports", &case).map(|it| it.median)
                };
                let name = what.trim_end_matches(" both ways");
                (format!("{name}, {} flows", grouped(cell.case.flows)), who.iter().map(figure).collect())
            })
            .collect();
        if !groups.is_empty() {
            put("ports.svg", &plot::bars("Through memif ports, both ways, 64 bytes", "Mpps", &who, &groups))?;
        }
        let mut curves: Vec<Series> = Vec::new();
        for cell in self.cells("rfc8219").iter().filter(|it| it.unit == "% lost") {
            let Some((_, load)) = cell.case.name.split_once("top rate, ") else { continue };
            let name = format!("{load}, {} flows", grouped(cell.case.flows));
            let at = curves.iter().position(|it| it.name == name).unwrap_or(curves.len());
            if at == curves.len() {
                curves.push(Series { name, points: Vec::new() });
            }
            let offered = cell.beside.get("Mpps each way offered").copied().unwrap_or(0.0);
            curves[at].points.push([(offered * 100.0).round() / 100.0, cell.lowest, cell.median, cell.highest]);
        }
        if !curves.is_empty() {
            let svg = plot::lines("Loss", "Mpps offered each way", "% lost", Scale::Linear, &curves);
            put("loss.svg", &svg)?;
        }
        Ok(())
    }
}
