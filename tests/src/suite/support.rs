//! What a backend has: each operation with a kernel of its own, composed of others, or not at all, by type.

use std::fmt::Write;

use serde::Serialize;

use super::groups;
use crate::Subject;

/// An operation's row.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Row {
    /// The operation.
    pub operation: String,
    /// `native` or `composed`.
    pub by: &'static str,
    /// Types of values that it takes.
    pub types: Vec<String>,
    /// Types that the backend lacks, or gets wrong, and why.
    pub lacking: Vec<(String, String)>,
}

/// Operations with a default body in the contract.
const FUSED: [&str; 4] = ["matmul_bias", "matmul_bias_gelu", "bias_gelu", "bias_dropout_residual"];

/// Asks the first case of each type.
///
/// # Errors
/// The backend does not open.
pub fn table<S: Subject>(subject: &S) -> backend::Result<(String, Vec<Row>)> {
    let backend = subject.open()?;
    let mut rows = Vec::new();
    for (group, cases) in groups::<S>() {
        if ["special", "refusals", "collectives"].contains(&group) {
            continue;
        }
        let native = !FUSED.contains(&group)
            || backend::Backend::support(&*backend, group) == backend::Support::Native;
        let by = if native { "native" } else { "composed" };
        let mut row = Row { operation: group.to_owned(), by, types: vec![], lacking: vec![] };
        for case in cases() {
            let id = case.id();
            let Some((_, dtype)) = id.rsplit_once("dt=") else { continue };
            let known = row.types.iter().chain(row.lacking.iter().map(|(dtype, _)| dtype));
            if known.into_iter().any(|known| known == dtype) {
                continue;
            }
            match case.run(subject, &backend) {
                Ok(_) => row.types.push(dtype.to_owned()),
                // An answer that is wrong is no support either.
                Err(failure) => row.lacking.push((dtype.to_owned(), failure.to_string())),
            }
        }
        rows.push(row);
    }
    Ok((super::device(&*backend), rows))
}

/// As a Markdown table.
pub fn markdown(backend: &str, device: &str, rows: &[Row]) -> String {
    let mut text =
        format!("`{backend}` on {device}\n\n| operation | by | types | lacking |\n|---|---|---|---|\n");
    for Row { operation, by, types, lacking } in rows {
        let lacking: Vec<_> = lacking.iter().map(|(dtype, why)| format!("{dtype}: {why}")).collect();
        let _ = writeln!(text, "| {operation} | {by} | {} | {} |", types.join(", "), lacking.join("; "));
    }
    text
}
