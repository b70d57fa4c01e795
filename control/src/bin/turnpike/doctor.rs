//! `turnpike doctor`: whether a machine is fit for bare-metal use, and what to change.

use std::fmt::Write as _;
use std::io::{ErrorKind, Write as _};
use std::path::PathBuf;
use std::process::ExitCode;

use control::config::Config;
use control::doctor::{Area, Finding, Tree, Verdict, examine, probe};

/// Say whether this machine is fit for bare-metal use, and what to change
///
/// Looks at cores, memory, the IOMMU, vfio and network devices, and changes nothing. With a configuration, it looks at
/// what that asks for.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  turnpike doctor
  turnpike doctor -c /etc/turnpike --probe

Verdicts:
  ok    as it should be
  warn  it works, but slower or less evenly than it could
  FAIL  Turnpike can't run on these devices before it is changed
  -     the question does not arise here

Exit codes: 0 nothing fails, 1 something does, 2 wrong use or configuration.")]
pub struct Args {
    /// Look at what this configuration asks for: files, or directories whose *.yaml are read, merged in this order
    #[arg(short, long, value_name = "FILE", num_args = 1..)]
    config: Vec<PathBuf>,
    /// Open the ports of the configuration, which no gateway may have, and say what their devices can do
    #[arg(long, requires = "config")]
    probe: bool,
    /// Write JSON
    #[arg(long)]
    json: bool,
    /// Where `sys`, `proc`, `dev` and `lib` are
    #[arg(long, value_name = "DIR", default_value = "/", hide = true)]
    root: PathBuf,
}

/// Runs the command.
pub fn run(args: Args) -> anyhow::Result<ExitCode> {
    let config = if args.config.is_empty() { None } else { Some(Config::load(&args.config)?) };
    let mut findings = examine(&Tree::new(&args.root), config.as_ref());
    if let Some(config) = config.as_ref().filter(|_| args.probe) {
        findings.extend(probe(config));
    }
    let report = if args.json { serde_json::to_string_pretty(&findings)? + "\n" } else { text(&findings) };
    match std::io::stdout().write_all(report.as_bytes()) {
        Err(error) if error.kind() != ErrorKind::BrokenPipe => return Err(error.into()),
        _ => {}
    }
    let fails = findings.iter().any(|finding| finding.verdict == Verdict::Fail);
    Ok(if fails { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

fn text(findings: &[Finding]) -> String {
    let mut text = String::new();
    let mut area = None;
    let name = |finding: &Finding| match &finding.subject {
        Some(subject) => format!("{subject} {}", finding.check),
        None => finding.check.to_owned(),
    };
    let width = findings.iter().map(|finding| name(finding).len()).max().unwrap_or(0);
    for finding in findings {
        if area.replace(finding.area) != Some(finding.area) {
            let gap = if text.is_empty() { "" } else { "\n" };
            let _ = writeln!(text, "{gap}{}", title(finding.area));
        }
        let verdict = match finding.verdict {
            Verdict::Ok => "ok",
            Verdict::Warn => "warn",
            Verdict::Fail => "FAIL",
            Verdict::NotApplicable => "-",
        };
        let _ = writeln!(text, "  {verdict:4}  {:width$}  {}", name(finding), finding.found);
        if let Some(remedy) = &finding.remedy {
            let _ = writeln!(text, "  {:4}  {:width$}  => {remedy}", "", "");
        }
    }
    let count = |verdict| findings.iter().filter(|finding| finding.verdict == verdict).count();
    let (fails, warnings) = (count(Verdict::Fail), count(Verdict::Warn));
    let _ = writeln!(text, "\n{} ok, {warnings} to improve, {fails} to change before it can work", count(Verdict::Ok));
    if findings.iter().any(|finding| finding.remedy.as_deref().is_some_and(|text| text.contains("kernel argument"))) {
        text.push_str("Kernel arguments: GRUB_CMDLINE_LINUX in /etc/default/grub, then `update-grub` and a reboot.\n");
    }
    text
}

fn title(area: Area) -> &'static str {
    match area {
        Area::Cores => "Cores",
        Area::Memory => "Memory",
        Area::Isolation => "IOMMU and vfio",
        Area::Devices => "Network devices",
        Area::Ports => "Ports, as DPDK sees them",
    }
}
