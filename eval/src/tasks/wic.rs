//! WiC (Pilehvar & Camacho-Collados 2019): whether a word means the same in two sentences.

use super::{Measure, Published, Task};
use crate::documents::{Document, Reason, Row};
use crate::python;

pub(super) static WIC: Task = Task {
    name: "wic",
    title: "WiC",
    data: "wic",
    split: "validation",
    also: None,
    fields: "`sentence1`, `sentence2`, `start1`, `end1` (characters of the word), `label` (0 no, 1 yes)",
    prompt: "Sentence 1: <sentence1>\\nSentence 2: <sentence2>\\nQuestion: Is the word '<word>' used in the same way \
             in the two sentences above?\\nAnswer:| no, yes",
    origin: "lm-evaluation-harness, wic",
    few: 32,
    measure: Measure::Choice { normalised: false },
    own_example: false,
    published: Published { mt_nlg: [48.59, 51.25, 58.46], gpt3: Some([0.0, 48.6, 55.3]) },
    read,
};

fn read(row: Row<'_>) -> Result<Vec<Document>, Reason> {
    let (first, second) = (row.text("sentence1")?, row.text("sentence2")?);
    let word = python::slice(first, row.number("start1")?, row.number("end1")?);
    let context = format!(
        "Sentence 1: {first}\nSentence 2: {second}\nQuestion: Is the word '{word}' used in the same way in the two sentences \
         above?\nAnswer:"
    );
    Ok(vec![Document::choices(context, &["no", "yes"], row.label("label", 2)?)])
}
