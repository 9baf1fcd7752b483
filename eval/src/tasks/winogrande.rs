//! WinoGrande (Sakaguchi et al. 2020) by partial evaluation (Trinh & Le 2018): what stands behind the gap is scored after each way to fill it.

use super::{Measure, Published, Task};
use crate::documents::{BETWEEN_EXAMPLES, Document, Reason, Row};
use crate::python;

pub(super) static WINOGRANDE: Task = Task {
    name: "winogrande",
    title: "WinoGrande",
    data: "winogrande",
    split: "validation",
    also: Some("winogrande_xl_validation"),
    fields: "`sentence` with a gap `_`, `option1`, `option2`, `answer` (1 or 2)",
    prompt: "<sentence up to the gap><option>| <sentence behind the gap>",
    origin: "lm-evaluation-harness, winogrande",
    few: 50,
    measure: Measure::Choice { normalised: false },
    own_example: false,
    published: Published { mt_nlg: [73.01, 73.72, 78.85], gpt3: Some([70.2, 73.2, 77.7]) },
    read,
};

fn read(row: Row<'_>) -> Result<Vec<Document>, Reason> {
    let sentence = row.text("sentence")?;
    let (before, behind) =
        sentence.split_once('_').ok_or_else(|| format!("field `sentence` has no gap `_`: {sentence:?}"))?;
    let answer = row.number("answer")?;
    if answer != 1 && answer != 2 {
        return Err(format!("field `answer` is {answer}, expected 1 or 2"));
    }
    let options = [row.text("option1")?, row.text("option2")?];
    let contexts = options.map(|option| format!("{before}{option}"));
    let continuation = format!(" {}", python::strip(behind));
    let target = answer - 1;
    let example = match continuation.as_str() {
        // Where nothing stands behind the gap, the harness sees no answer and puts nothing behind the example.
        " " => contexts[target].clone(),
        _ => format!("{}{continuation}{BETWEEN_EXAMPLES}", contexts[target]),
    };
    Ok(vec![Document {
        example,
        lengths: contexts.iter().map(|context| context.chars().count()).collect(),
        contexts: contexts.to_vec(),
        continuations: vec![continuation],
        target,
        group: None,
        baseline: None,
        source: Default::default(),
    }])
}
