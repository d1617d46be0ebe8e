//! `maxsim bench compare`: is anything slower than it was?

use std::collections::BTreeMap;
use std::io::Write;
use std::path::{Path, PathBuf};

use anyhow::Context;
use clap::Args;
use maxsim::Error;
use serde_json::Value;

use crate::exit::Outcome;
use crate::output::{Out, columns, pad};

/// Compare two records made with `bench --json`
///
/// Rows are matched by op, shape, dtype, backend, normalize, precision and threads. Device time is compared where both
/// have it, else wall time. Exit code 1 if a row is slower than the tolerance allows or has no time any more.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  maxsim bench compare old.json new.json
  maxsim bench compare old.json new.json --tolerance 5

A record file holds an array of the objects that `bench --json` prints, or those objects one after the other.")]
pub(super) struct CompareArgs {
    /// Record to compare with
    old: PathBuf,
    /// Record to judge
    new: PathBuf,
    /// Percent by which a row may be slower
    #[arg(long, default_value_t = 10.0, value_name = "PERCENT", value_parser = tolerance)]
    tolerance: f64,
}

fn tolerance(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(percent) if percent.is_finite() && percent >= 0.0 => Ok(percent),
        _ => Err("expected a percentage of at least 0".into()),
    }
}

/// The values that say whether two rows measure the same thing.
const KEY: [&str; 7] = ["op", "shape", "dtype", "backend", "normalize", "precision", "threads"];

/// A row of a record file; its other fields are not needed.
struct Row {
    label: String,
    device: String,
    gpu_us: Option<f64>,
    wall_us: Option<f64>,
    peak_bytes: Option<f64>,
}

/// Runs `maxsim bench compare`.
pub(super) fn run(args: &CompareArgs) -> anyhow::Result<Outcome> {
    let (old, new) = (read(&args.old)?, read(&args.new)?);
    let limit = 1.0 + args.tolerance / 100.0;
    let mut table = vec![["old µs", "new µs", "time ×", "memory ×", "", "case"].map(String::from)];
    let (mut slower, mut matched) = (0, 0);
    let mut devices = BTreeMap::new();
    for (key, before) in &old {
        let Some(after) = new.get(key) else {
            table.push(row(before, None, "only in old"));
            continue;
        };
        matched += 1;
        if before.device != after.device {
            devices.insert(before.device.as_str(), after.device.as_str());
        }
        let verdict = match times(before, after) {
            (Some(old), Some(new)) if new > old * limit => "SLOWER",
            (Some(_), None) => "NO TIME",
            (Some(old), Some(new)) if new < old / limit => "faster",
            _ => "",
        };
        slower += usize::from(matches!(verdict, "SLOWER" | "NO TIME"));
        table.push(row(before, Some(after), verdict));
    }
    for (_, after) in new.iter().filter(|(key, _)| !old.contains_key(*key)) {
        let mut cells = row(after, None, "only in new");
        cells.swap(0, 1);
        table.push(cells);
    }
    if matched == 0 {
        let problem = format!("{} and {} have no row in common", args.old.display(), args.new.display());
        return Err(Error::format("records", problem).into());
    }

    let mut out = Out::stdout();
    let widths: [usize; 6] = std::array::from_fn(|c| table.iter().map(|r| columns(&r[c])).max().unwrap_or(0));
    for cells in &table {
        let numbers: Vec<String> =
            (0..4).map(|c| format!("{:1$}{2}", "", widths[c] - columns(&cells[c]), cells[c])).collect();
        writeln!(out, "{}  {}  {}", numbers.join("  "), pad(&cells[4], widths[4]), cells[5])?;
    }
    for (before, after) in devices {
        writeln!(out, "note: old is from {before}, new from {after}")?;
    }
    writeln!(out, "{matched} compared, {slower} slower than {} % allow", args.tolerance)?;
    out.flush()?;
    Ok(if slower == 0 { Outcome::Success } else { Outcome::CheckFailed })
}

/// Device times if both rows have one, else wall times.
fn times(before: &Row, after: &Row) -> (Option<f64>, Option<f64>) {
    match (before.gpu_us, after.gpu_us) {
        (Some(old), Some(new)) => (Some(old), Some(new)),
        _ => (before.wall_us, after.wall_us),
    }
}

fn row(before: &Row, after: Option<&Row>, verdict: &str) -> [String; 6] {
    let number = |value: Option<f64>| value.map_or("–".into(), |v| format!("{v:.1}"));
    let ratio = |old: Option<f64>, new: Option<f64>| match (old, new) {
        (Some(old), Some(new)) if old > 0.0 => format!("{:.2}", new / old),
        _ => "–".into(),
    };
    let (old, new) = match after {
        Some(after) => times(before, after),
        None => (before.gpu_us.or(before.wall_us), None),
    };
    [
        number(old),
        number(new),
        ratio(old, new),
        ratio(before.peak_bytes, after.and_then(|row| row.peak_bytes)),
        verdict.into(),
        before.label.clone(),
    ]
}

fn read(path: &Path) -> anyhow::Result<BTreeMap<String, Row>> {
    let name = path.display().to_string();
    let text = std::fs::read_to_string(path)
        .map_err(|error| Error::io(&name, error))
        .context("the record cannot be read")?;
    let mut rows = BTreeMap::new();
    for value in serde_json::Deserializer::from_str(&text).into_iter::<Value>() {
        let value = value.map_err(|error| Error::format(&name, error.to_string()))?;
        let list = match value {
            Value::Array(list) => list,
            other => vec![other],
        };
        for value in list {
            let (key, row) = parse(&value).map_err(|problem| Error::format(&name, problem))?;
            if rows.insert(key, row).is_some() {
                return Err(Error::format(&name, format!("two rows measure the same: {value}")).into());
            }
        }
    }
    Ok(rows)
}

fn parse(value: &Value) -> Result<(String, Row), String> {
    for field in ["op", "shape", "dtype", "backend"] {
        if value.get(field).is_none() {
            return Err(format!("a row has no {field:?}: {value}"));
        }
    }
    let number = |field: &str| match value.get(field) {
        None | Some(Value::Null) => Ok(None),
        Some(Value::Number(number)) => Ok(number.as_f64()),
        Some(other) => Err(format!("{field} is {other}, not a number")),
    };
    // Maps are ordered by key, so equal values have equal text.
    let key: Vec<String> = KEY.iter().map(|field| value[field].to_string()).collect();
    let text = |field: &str| value[field].as_str().unwrap_or("?").to_owned();
    let row = Row {
        label: format!("{} {} {} {}", text("op"), text("dtype"), text("backend"), shape(&value["shape"])),
        device: text("device"),
        gpu_us: number("gpu_us")?,
        wall_us: number("wall_us")?,
        peak_bytes: number("peak_bytes")?,
    };
    Ok((key.join(" "), row))
}

/// `nq=1 nd=1000 …`, in a fixed order as far as the fields are known.
fn shape(value: &Value) -> String {
    let Value::Object(fields) = value else {
        return value.to_string();
    };
    let known = ["nq", "nd", "lq", "ld", "dim"];
    let mut parts: Vec<String> =
        known.iter().filter_map(|name| Some(format!("{name}={}", fields.get(*name)?))).collect();
    let rest = fields.iter().filter(|(name, _)| !known.contains(&name.as_str()));
    parts.extend(rest.map(|(name, value)| format!("{name}={value}")));
    parts.join(" ")
}
