//! Whether a premise entails a hypothesis: ANLI's second round (Nie et al. 2020) and HANS (McCoy et al. 2019).

use serde_json::Value;

use super::{Measure, Published, Task};
use crate::documents::{Document, Reason, Row};

pub(super) static ANLI_R2: Task = Task {
    name: "anli_r2",
    title: "ANLI-R2",
    data: "anli_r2",
    split: "test",
    also: None,
    fields: "`premise`, `hypothesis`, `label` (0 entailment, 1 neutral, 2 contradiction)",
    prompt: "<premise>\\nQuestion: <hypothesis> True, False, or Neither?\\nAnswer:| True, Neither, False",
    origin: "lm-evaluation-harness, anli_r2",
    few: 50,
    measure: Measure::Choice { normalised: false },
    own_example: true,
    published: Published { mt_nlg: [36.60, 39.70, 39.60], gpt3: Some([35.4, 33.9, 34.0]) },
    read: read_anli,
};

/// The harness has no HANS; the prompt is that of its other two-way entailment, RTE.
pub(super) static HANS: Task = Task {
    name: "hans",
    title: "HANS",
    data: "hans",
    split: "validation",
    also: None,
    fields: "`premise`, `hypothesis`, `label` (0 entailment, 1 none), `heuristic` (lexical_overlap, subsequence, constituent)",
    prompt: "<premise>\\nQuestion: <hypothesis> True or False?\\nAnswer:| True, False",
    origin: "that of lm-evaluation-harness's rte, which has no HANS",
    few: 32,
    measure: Measure::Choice { normalised: false },
    own_example: false,
    published: Published { mt_nlg: [51.61, 60.01, 73.16], gpt3: None },
    read: read_hans,
};

fn read_anli(row: Row<'_>) -> Result<Vec<Document>, Reason> {
    let (premise, hypothesis) = (row.text("premise")?, row.text("hypothesis")?);
    let context = format!("{premise}\nQuestion: {hypothesis} True, False, or Neither?\nAnswer:");
    // The set as first published has letters.
    let target = match row.get("label").and_then(Value::as_str) {
        Some("e") => 0,
        Some("n") => 1,
        Some("c") => 2,
        _ => row.label("label", 3)?,
    };
    Ok(vec![Document::choices(context, &["True", "Neither", "False"], target)])
}

fn read_hans(row: Row<'_>) -> Result<Vec<Document>, Reason> {
    let (premise, hypothesis) = (row.text("premise")?, row.text("hypothesis")?);
    let context = format!("{premise}\nQuestion: {hypothesis} True or False?\nAnswer:");
    let heuristic = row.text("heuristic")?;
    if !["lexical_overlap", "subsequence", "constituent"].contains(&heuristic) {
        return Err(format!(
            "field `heuristic` is {heuristic:?}, expected lexical_overlap, subsequence or constituent"
        ));
    }
    let document = Document::choices(context, &["True", "False"], row.label("label", 2)?);
    Ok(vec![Document { group: Some(heuristic.into()), ..document }])
}
