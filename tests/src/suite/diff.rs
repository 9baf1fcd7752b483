//! What changed between two reports: statuses, cases that came or went, errors that drifted.

use std::collections::BTreeMap;
use std::fmt::Write;

use super::report::{Record, Report, Status, VERSION};

/// A worst error is said to have drifted when it has so many times its size, and is more than a tenth of its limit.
const DRIFT: f64 = 1.5;

/// Reads a report.
///
/// # Errors
/// A sentence with the file.
pub fn read(path: &std::path::Path) -> Result<Report, String> {
    let text = std::fs::read(path).map_err(|error| format!("cannot read {}: {error}", path.display()))?;
    let any: serde_json::Value =
        serde_json::from_slice(&text).map_err(|error| format!("{} is no report: {error}", path.display()))?;
    if any["version"] != VERSION {
        return Err(format!(
            "{} is a report of version {}; this program reads version {VERSION}",
            path.display(),
            any["version"]
        ));
    }
    serde_json::from_value(any).map_err(|error| format!("{} is no report: {error}", path.display()))
}

/// The changes in words, and whether a case has become worse.
pub fn words(before: &Report, after: &Report) -> (String, bool) {
    let by_id = |report: &'_ Report| {
        report.cases.iter().map(|case| (case.id.clone(), case.clone())).collect::<BTreeMap<String, Record>>()
    };
    let (old, new) = (by_id(before), by_id(after));
    let mut text = format!("before: {}\nafter:  {}\n", before.headline(), after.headline());
    let (mut worse, mut changes) = (false, 0);
    for (id, case) in &new {
        match old.get(id) {
            None => {
                let _ = writeln!(text, "new      {id}: {}", case.status.name());
                worse |= case.status.is_bad();
            }
            Some(was) if was.status != case.status => {
                let _ = writeln!(text, "status   {id}: {} -> {}", was.status.name(), case.status.name());
                // What is no longer tested is no longer known to be right.
                worse |= was.status == Status::Pass || (case.status.is_bad() && !was.status.is_bad());
            }
            Some(was) => {
                let (Some(a), Some(b)) = (was.ratio, case.ratio) else { continue };
                let drifted = (b > DRIFT * a && b > 0.1) || (a > DRIFT * b && a > 0.1);
                if !drifted {
                    continue;
                }
                let _ = writeln!(text, "drift    {id}: {a:.3} -> {b:.3} of its limit");
            }
        }
        changes += 1;
    }
    for id in old.keys().filter(|id| !new.contains_key(*id)) {
        let _ = writeln!(text, "gone     {id}");
        // Unless fewer were asked for.
        worse |= (before.tier, &before.filter) == (after.tier, &after.filter);
        changes += 1;
    }
    let _ = write!(text, "{changes} changes in {} and {} cases", before.total, after.total);
    (text, worse)
}
