//! HellaSwag (Zellers et al. 2019): which of four sentences comes next.

use super::{Measure, Published, Task};
use crate::documents::{Document, Reason, Row};
use crate::python;

pub(super) static HELLASWAG: Task = Task {
    name: "hellaswag",
    title: "HellaSwag",
    data: "hellaswag",
    split: "validation",
    also: None,
    fields: "`activity_label`, `ctx_a`, `ctx_b`, `endings` (four), `label` (0 to 3); or, prepared, `query`, `choices`, `gold`",
    prompt: "<activity_label>: <ctx_a> <Ctx_b>| <ending>",
    origin: "lm-evaluation-harness, hellaswag",
    few: 20,
    measure: Measure::Choice { normalised: true },
    own_example: false,
    published: Published { mt_nlg: [80.24, 80.20, 82.42], gpt3: Some([78.9, 78.1, 79.3]) },
    read,
};

fn read(row: Row<'_>) -> Result<Vec<Document>, Reason> {
    if row.get("ctx_a").is_none() && row.get("query").is_some() {
        let choices = row.texts("choices")?;
        let gold = row.label("gold", choices.len().max(1))?;
        if choices.len() < 2 {
            return Err(format!("field `choices` has {} entries, expected four", choices.len()));
        }
        return Ok(vec![Document::choices(row.text("query")?.into(), &choices, gold)]);
    }
    let (label, first) = (row.text("activity_label")?, row.text("ctx_a")?);
    let second = python::capitalize(row.text("ctx_b")?);
    let context = cleaned(&format!("{label}: {first} {second}"));
    let endings: Vec<String> = row.texts("endings")?.into_iter().map(cleaned).collect();
    if endings.len() != 4 {
        return Err(format!("field `endings` has {} entries, expected four", endings.len()));
    }
    let choices: Vec<&str> = endings.iter().map(String::as_str).collect();
    Ok(vec![Document::choices(context, &choices, row.label("label", 4)?)])
}

/// Without the marks that the pages of WikiHow left behind: ` [title]` ends a sentence, other brackets go, and of two blanks one.
fn cleaned(text: &str) -> String {
    let text = python::strip(text).replace(" [title]", ". ");
    let mut kept = String::with_capacity(text.len());
    let mut rest = text.as_str();
    while let Some(open) = rest.find('[') {
        // A bracket that its own line does not close is text.
        let inside = &rest[open..];
        match inside.find([']', '\n']).filter(|end| inside[*end..].starts_with(']')) {
            Some(end) => {
                kept.push_str(&rest[..open]);
                rest = &inside[end + 1..];
            }
            None => {
                kept.push_str(&rest[..=open]);
                rest = &inside[1..];
            }
        }
    }
    kept.push_str(rest);
    kept.replace("  ", " ")
}

#[cfg(test)]
mod tests {
    use super::cleaned;

    #[test]
    fn marks_of_pages() {
        assert_eq!(
            cleaned(" How to sit [title] Sit. [step] Down [substeps] now  \n"),
            "How to sit. Sit. Down now"
        );
        assert_eq!(cleaned("a [b\nc] d [e [f] g]"), "a [b\nc] d g]");
    }
}
