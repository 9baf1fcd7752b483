//! What a run found: as JSON (versioned), as a Markdown matrix, as words.

use std::collections::BTreeMap;
use std::fmt::Write;

use serde::{Deserialize, Serialize};

use super::Tier;

/// The columns of the matrix; the last is for what has none of these types.
const TYPES: [&str; 4] = ["f32", "bf16", "f16", "-"];

/// Changes with the meaning of a field.
pub const VERSION: u32 = 1;

/// How a case ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Status {
    /// Right.
    Pass,
    /// Wrong.
    Fail,
    /// The backend says that it lacks this, which it may.
    Unsupported,
    /// Wrong, as is known.
    ExpectedFail,
    /// Right, though it is known to be wrong: the list of what is known is out of date.
    UnexpectedPass,
    /// The process died, or the device was lost.
    Crash,
    /// No answer in time.
    Timeout,
}

impl Status {
    /// All of them.
    pub const ALL: [Status; 7] = [
        Status::Pass,
        Status::Fail,
        Status::Unsupported,
        Status::ExpectedFail,
        Status::UnexpectedPass,
        Status::Crash,
        Status::Timeout,
    ];

    /// In words.
    pub const fn name(self) -> &'static str {
        match self {
            Status::Pass => "pass",
            Status::Fail => "fail",
            Status::Unsupported => "unsupported",
            Status::ExpectedFail => "expected fail",
            Status::UnexpectedPass => "unexpected pass",
            Status::Crash => "crash",
            Status::Timeout => "timeout",
        }
    }

    /// Whether a run with such a case has failed.
    pub const fn is_bad(self) -> bool {
        matches!(self, Status::Fail | Status::UnexpectedPass | Status::Crash | Status::Timeout)
    }
}

/// The element nearest to its limit, or beyond.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Worst {
    /// The output.
    pub operand: String,
    /// The element.
    pub index: usize,
    /// What it is, in words where it is no number.
    pub observed: String,
    /// What it should be.
    pub expected: String,
    /// How far it may be from that.
    pub limit: String,
}

/// One case.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Record {
    /// Its id.
    pub id: String,
    /// The group that it ran in.
    pub group: String,
    /// How it ended.
    pub status: Status,
    /// The worst error over its limit, where it was measured.
    pub ratio: Option<f64>,
    /// Where that was.
    pub worst: Option<Worst>,
    /// Normalised mean square error of that output.
    pub nmse: Option<f64>,
    /// Mean of `(error / limit)^2` there, at most a half, where there were elements enough.
    pub spread: Option<f64>,
    /// How long it took, reference and all.
    pub seconds: f64,
    /// Why it did not pass.
    pub reason: Option<String>,
}

impl Record {
    /// The type of its values, by its id.
    pub fn dtype(&self) -> &str {
        self.id.rsplit_once("dt=").map_or("-", |(_, dtype)| dtype.split(',').next().unwrap_or(dtype))
    }
}

/// By group: cells by type, and the case nearest to its limit.
type Matrix<'r> = BTreeMap<&'r str, (Cells<'r>, Option<&'r Record>)>;
/// By type: cases passed, and asked for.
type Cells<'r> = BTreeMap<&'r str, (usize, usize)>;

/// A run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Report {
    /// [`VERSION`].
    pub version: u32,
    /// The backend's name.
    pub backend: String,
    /// Its device.
    pub device: String,
    /// Which cases.
    pub tier: Tier,
    /// Only ids with this.
    pub filter: String,
    /// How many were asked for.
    pub total: usize,
    /// How many of each status.
    pub pass: usize,
    /// See [`Status`].
    pub fail: usize,
    /// See [`Status`].
    pub unsupported: usize,
    /// See [`Status`].
    pub expected_fail: usize,
    /// See [`Status`].
    pub unexpected_pass: usize,
    /// See [`Status`].
    pub crash: usize,
    /// See [`Status`].
    pub timeout: usize,
    /// Wall time.
    pub seconds: f64,
    /// Every case.
    pub cases: Vec<Record>,
}

impl Report {
    /// The report of these cases.
    pub fn new(
        backend: String,
        device: String,
        (tier, filter): (Tier, String),
        seconds: f64,
        cases: Vec<Record>,
    ) -> Self {
        let count = |status| cases.iter().filter(|case| case.status == status).count();
        Self {
            version: VERSION,
            backend,
            device,
            tier,
            filter,
            total: cases.len(),
            pass: count(Status::Pass),
            fail: count(Status::Fail),
            unsupported: count(Status::Unsupported),
            expected_fail: count(Status::ExpectedFail),
            unexpected_pass: count(Status::UnexpectedPass),
            crash: count(Status::Crash),
            timeout: count(Status::Timeout),
            seconds,
            cases,
        }
    }

    /// Whether nothing is wrong that is not known.
    pub fn is_good(&self) -> bool {
        !self.cases.iter().any(|case| case.status.is_bad())
    }

    /// One line that always carries the denominator.
    pub fn headline(&self) -> String {
        let mut text = format!("{} of {} cases pass", self.pass, self.total);
        for status in &Status::ALL[1..] {
            let count = self.cases.iter().filter(|case| case.status == *status).count();
            if count > 0 {
                let _ = write!(text, ", {count} {}", status.name());
            }
        }
        let _ = write!(text, ": {} on {}", self.backend, self.device);
        text
    }

    /// The cases that are wrong.
    pub fn bad(&self) -> impl Iterator<Item = &Record> {
        self.cases.iter().filter(|case| case.status.is_bad())
    }

    /// By group: cases of each type as `(passed, asked for)`, and the case nearest to its limit.
    fn matrix(&self) -> Matrix<'_> {
        let mut matrix = Matrix::new();
        for case in &self.cases {
            let (cells, nearest) = matrix.entry(&case.group).or_default();
            let column = TYPES.into_iter().find(|name| *name == case.dtype()).unwrap_or("-");
            let cell = cells.entry(column).or_default();
            cell.0 += usize::from(case.status == Status::Pass);
            cell.1 += 1;
            let ratio = |case: &Record| case.ratio.unwrap_or(0.0);
            if ratio(case) > nearest.map_or(0.0, ratio) {
                *nearest = Some(case);
            }
        }
        matrix
    }

    /// The matrix of operations and types.
    pub fn markdown(&self) -> String {
        let mut text = format!("# Conformance of `{}`\n\n{}\n\n", self.backend, self.headline());
        let _ = writeln!(
            text,
            "Passed of asked for, by type of the values; \"any\" is what has none of these. The last columns are the case nearest to its limit, and how near.\n"
        );
        let _ = writeln!(
            text,
            "| group | {} | any | nearest | case |\n|---|---|---|---|---|---|---|",
            TYPES[..3].join(" | ")
        );
        for (group, (cells, nearest)) in self.matrix() {
            let cell =
                |dtype: &str| cells.get(dtype).map_or(String::new(), |(passed, of)| format!("{passed}/{of}"));
            let nearest = nearest.map_or(("0".into(), String::new()), |case| {
                (format!("{:.3}", case.ratio.unwrap_or(0.0)), format!("`{}`", case.id))
            });
            let _ = writeln!(
                text,
                "| {group} | {} | {} | {} |",
                TYPES.map(cell).join(" | "),
                nearest.0,
                nearest.1
            );
        }
        if self.cases.iter().any(|case| case.status != Status::Pass) {
            let _ = writeln!(text, "\n| not passed | status | why |\n|---|---|---|");
            for case in self.cases.iter().filter(|case| case.status != Status::Pass) {
                let why = case.reason.as_deref().unwrap_or("").replace('|', "\\|").replace('\n', " ");
                let _ = writeln!(text, "| `{}` | {} | {why} |", case.id, case.status.name());
            }
        }
        text
    }
}
