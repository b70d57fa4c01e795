//! What the gateway answers, as a table, JSON or CSV, printed as it comes.

use std::io::{self, BufWriter, StdoutLock, Write};

use control::api::types::{DropReason, Row};
use control::api::{Client, Reply};
use hyper::Method;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

use crate::tables::{Summary, Table};

/// Rows by which the widths of a table's columns are chosen; later ones that need more push their line aside.
const MEASURED: usize = 1000;

/// How to print.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// For people.
    Table,
    /// For programs.
    Json,
    /// For spreadsheets.
    Csv,
}

/// Prints what a client receives.
#[derive(Debug)]
pub struct Output<'a> {
    /// The client.
    pub client: &'a Client,
    /// How.
    pub format: Format,
}

type Out = BufWriter<StdoutLock<'static>>;

fn out() -> Out {
    BufWriter::with_capacity(1 << 16, io::stdout().lock())
}

impl Output<'_> {
    /// Asks for an object, and prints it.
    pub fn object<T: Summary + DeserializeOwned>(&self, method: Method, path: &str) -> anyhow::Result<()> {
        let object: T = self.client.request(method, path)?.object()?;
        let mut out = out();
        match self.format {
            Format::Json => {
                serde_json::to_writer_pretty(&mut out, &object)?;
                writeln!(out)?;
            }
            Format::Csv => {
                csv(&mut out, T::FIELDS.iter().copied())?;
                csv_row::<T>(&mut out, &serde_json::to_vec(&object)?)?;
            }
            Format::Table => write!(out, "{}", object.summary())?,
        }
        Ok(out.flush()?)
    }

    /// Asks for a list, and prints it.
    pub fn list<T: Table + DeserializeOwned>(&self, path: &str) -> anyhow::Result<()> {
        let reply = self.client.request(Method::GET, path)?;
        match self.format {
            Format::Json => json_list(reply),
            Format::Csv => {
                let mut out = out();
                csv(&mut out, T::FIELDS.iter().copied())?;
                each_line(reply, |line| csv_row::<T>(&mut out, line))?;
                Ok(out.flush()?)
            }
            Format::Table => table::<T>(reply),
        }
    }

    /// Asks for the reasons for drops, and explains them.
    pub fn explained(&self, path: &str) -> anyhow::Result<()> {
        let mut out = out();
        each_line(self.client.request(Method::GET, path)?, |line| {
            let DropReason { function, reason, packets, meaning, advice } = serde_json::from_slice(line)?;
            Ok(writeln!(out, "{function} {reason}: {packets}\n    {meaning}\n    To do: {advice}.")?)
        })?;
        Ok(out.flush()?)
    }
}

/// Calls `take` with each line, without its end.
fn each_line(mut reply: Reply<'_>, mut take: impl FnMut(&[u8]) -> anyhow::Result<()>) -> anyhow::Result<()> {
    while let Some(lines) = reply.lines()? {
        lines.split(|&byte| byte == b'\n').filter(|line| !line.is_empty()).try_for_each(&mut take)?;
    }
    Ok(())
}

/// A list of the objects, one on each line.
fn json_list(reply: Reply<'_>) -> anyhow::Result<()> {
    let mut out = out();
    let mut before = "[\n";
    each_line(reply, |line| {
        out.write_all(before.as_bytes())?;
        before = ",\n";
        Ok(out.write_all(line)?)
    })?;
    // Without any object: an empty list.
    out.write_all(if before == "[\n" { b"[]\n" } else { b"\n]\n" })?;
    Ok(out.flush()?)
}

/// A row of an object's fields.
fn csv_row<T: Row>(out: &mut Out, object: &[u8]) -> anyhow::Result<()> {
    let object: Map<String, Value> = serde_json::from_slice(object)?;
    csv(out, T::FIELDS.iter().map(|&field| object.get(field).map(csv_cell).unwrap_or_default()))
}

fn csv_cell(value: &Value) -> String {
    match value {
        Value::Null => String::new(),
        Value::String(text) => text.clone(),
        Value::Array(values) => values.iter().map(csv_cell).collect::<Vec<_>>().join(" "),
        other => other.to_string(),
    }
}

/// A line of cells (RFC 4180).
fn csv<C: AsRef<str>>(out: &mut Out, cells: impl Iterator<Item = C>) -> anyhow::Result<()> {
    for (index, cell) in cells.enumerate() {
        let (cell, comma) = (cell.as_ref(), if index == 0 { "" } else { "," });
        if cell.contains(['"', ',', '\n']) {
            write!(out, "{comma}\"{}\"", cell.replace('"', "\"\""))?;
        } else {
            write!(out, "{comma}{cell}")?;
        }
    }
    Ok(writeln!(out)?)
}

/// Aligned columns.
fn table<T: Table + DeserializeOwned>(reply: Reply<'_>) -> anyhow::Result<()> {
    let mut out = out();
    let mut first = vec![T::TITLES.iter().map(|&title| title.to_owned()).collect::<Vec<_>>()];
    let mut widths: Option<Vec<usize>> = None;
    each_line(reply, |line| {
        let cells = serde_json::from_slice::<T>(line)?.cells();
        match &widths {
            Some(widths) => aligned(&mut out, &cells, widths)?,
            None => {
                first.push(cells);
                if first.len() > MEASURED {
                    widths = Some(print_measured(&mut out, &first)?);
                }
            }
        }
        Ok(())
    })?;
    if widths.is_none() {
        print_measured(&mut out, &first)?;
    }
    Ok(out.flush()?)
}

fn print_measured(out: &mut Out, rows: &[Vec<String>]) -> io::Result<Vec<usize>> {
    let columns = rows.first().map_or(0, Vec::len);
    let widest = |column: usize| rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count()).max();
    let widths: Vec<usize> = (0..columns).map(|column| widest(column).unwrap_or(0)).collect();
    rows.iter().try_for_each(|row| aligned(out, row, &widths))?;
    Ok(widths)
}

fn aligned(out: &mut Out, cells: &[String], widths: &[usize]) -> io::Result<()> {
    let mut line = String::new();
    for (cell, &width) in cells.iter().zip(widths) {
        line.push_str(&format!("{cell:width$}  "));
    }
    writeln!(out, "{}", line.trim_end())
}
