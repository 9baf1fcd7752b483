//! BoolQ (Clark et al. 2019): questions about a passage, answered by yes or no.

use super::{Measure, Published, Task};
use crate::documents::{Document, Reason, Row};

pub(super) static BOOLQ: Task = Task {
    name: "boolq",
    title: "BoolQ",
    data: "boolq",
    split: "validation",
    also: None,
    fields: "`passage`, `question`, `label` (0 no, 1 yes) or `answer` (true, false)",
    prompt: "<passage>\\nQuestion: <question>?\\nAnswer:| no, yes",
    origin: "lm-evaluation-harness, boolq",
    few: 32,
    measure: Measure::Choice { normalised: false },
    own_example: false,
    published: Published { mt_nlg: [78.20, 82.51, 84.83], gpt3: Some([60.5, 76.7, 77.5]) },
    read,
};

fn read(row: Row<'_>) -> Result<Vec<Document>, Reason> {
    let context = format!("{}\nQuestion: {}?\nAnswer:", row.text("passage")?, row.text("question")?);
    // SuperGLUE's field, or that of the set as first published.
    let field = if row.get("label").is_none() && row.get("answer").is_some() { "answer" } else { "label" };
    Ok(vec![Document::choices(context, &["no", "yes"], row.label(field, 2)?)])
}
