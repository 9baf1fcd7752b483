//! PiQA (Bisk et al. 2020): which of two ways reaches a goal.

use super::{Measure, Published, Task};
use crate::documents::{Document, Reason, Row};

pub(super) static PIQA: Task = Task {
    name: "piqa",
    title: "PiQA",
    data: "piqa",
    split: "validation",
    also: None,
    fields: "`goal`, `sol1`, `sol2`, `label` (0 or 1)",
    prompt: "Question: <goal>\\nAnswer:| <sol1>, <sol2>",
    origin: "lm-evaluation-harness, piqa",
    few: 50,
    measure: Measure::Choice { normalised: true },
    own_example: false,
    published: Published { mt_nlg: [81.99, 80.96, 83.19], gpt3: Some([81.0, 80.5, 82.3]) },
    read,
};

fn read(row: Row<'_>) -> Result<Vec<Document>, Reason> {
    let context = format!("Question: {}\nAnswer:", row.text("goal")?);
    let choices = [row.text("sol1")?, row.text("sol2")?];
    Ok(vec![Document::choices(context, &choices, row.label("label", 2)?)])
}
