//! LAMBADA (Paperno et al. 2016): the last word of a passage. `openai` is the text as OpenAI cleaned it, `standard` the tokenised original.

use super::{Measure, Published, Task};
use crate::documents::{BETWEEN_EXAMPLES, Document, Reason, Row};

const PUBLISHED: Published = Published { mt_nlg: [76.56, 73.06, 87.15], gpt3: Some([76.2, 72.5, 86.4]) };

pub(super) static OPENAI: Task = Task {
    name: "lambada_openai",
    title: "LAMBADA",
    data: "lambada_openai",
    split: "test",
    also: None,
    fields: "`text`",
    prompt: "<text without its last word>| <last word>",
    origin: "lm-evaluation-harness, lambada_openai",
    few: 15,
    measure: Measure::Word,
    own_example: true,
    published: PUBLISHED,
    read,
};

pub(super) static STANDARD: Task = Task {
    name: "lambada_standard",
    data: "lambada_standard",
    origin: "lm-evaluation-harness, lambada_standard",
    ..OPENAI
};

/// A blank to fill in, as GPT-3 was given it and MT-NLG after it.
pub(super) static MTNLG: Task = Task {
    name: "mtnlg_lambada",
    prompt: "<text without its last word> ____. ->| <last word>",
    origin: "lm-evaluation-harness, lambada_openai_cloze_yaml",
    read: read_cloze,
    ..OPENAI
};

fn read(row: Row<'_>) -> Result<Vec<Document>, Reason> {
    document(row, "")
}

fn read_cloze(row: Row<'_>) -> Result<Vec<Document>, Reason> {
    document(row, " ____. ->")
}

/// The last word is what stands behind the last blank: a line break does not end a word.
fn document(row: Row<'_>, blank: &str) -> Result<Vec<Document>, Reason> {
    let text = row.text("text")?;
    let (before, word) = text.rsplit_once(' ').unwrap_or(("", text));
    if word.is_empty() {
        return Err("field `text` ends with a blank, expected a word".into());
    }
    let (context, continuation) = (format!("{before}{blank}"), format!(" {word}"));
    // The harness puts its delimiter before a target that already begins with a blank: two of them.
    let example = format!("{context} {continuation}{BETWEEN_EXAMPLES}");
    Ok(vec![Document {
        contexts: vec![context],
        lengths: vec![continuation.chars().count()],
        continuations: vec![continuation],
        target: 0,
        example,
        group: None,
        baseline: None,
        source: Default::default(),
    }])
}
