//! RACE (Lai et al. 2017), the questions for high schools. As in the harness's data, a line is an article with all of its problems.

use serde_json::Value;

use super::{Measure, Published, Task};
use crate::documents::{Document, Reason, Row};

pub(super) static HIGH: Task = Task {
    name: "race_high",
    title: "RACE-h",
    data: "race_high",
    split: "test",
    also: None,
    fields: "`article` and `problems`, a list (maybe as a Python literal) of `question`, `answer` (A to D), `options`",
    prompt: "Article: <article>\\n\\n<the other problems, answered><last question>| <option>",
    origin: "lm-evaluation-harness, race",
    few: 10,
    measure: Measure::Choice { normalised: false },
    own_example: true,
    published: Published { mt_nlg: [47.94, 48.42, 47.94], gpt3: Some([45.5, 45.9, 46.8]) },
    read,
};

/// Every problem of an article by itself, scored by P(option | context) / P(option | "Answer:") (Brown et al. 2020, section 2.4, and MT-NLG after
/// it).
pub(super) static MTNLG: Task = Task {
    name: "mtnlg_race_high",
    prompt: "Article: <article>\\n\\nQuestion: <question>\\nAnswer:| <option>",
    origin: "MT-NLG's ratio to P(option | \"Answer:\"); the words are ours, the paper does not print its own",
    measure: Measure::Ratio,
    read: read_each,
    ..HIGH
};

/// A problem: question, options, index of the right one.
struct Problem<'a> {
    question: &'a str,
    options: Vec<&'a str>,
    answer: usize,
}

impl<'a> Problem<'a> {
    fn new(value: &'a Value) -> Result<Self, Reason> {
        let row = Row(value);
        let options = row.texts("options")?;
        if options.len() < 4 {
            return Err(format!("field `options` has {} entries, expected four", options.len()));
        }
        let answer = match row.text("answer")? {
            "A" => 0,
            "B" => 1,
            "C" => 2,
            "D" => 3,
            other => return Err(format!("field `answer` is {other:?}, expected A, B, C or D")),
        };
        Ok(Self { question: row.text("question")?, options, answer })
    }
}

fn read(row: Row<'_>) -> Result<Vec<Document>, Reason> {
    let problems = row.list("problems")?;
    let problems = problems.iter().map(Problem::new).collect::<Result<Vec<_>, _>>()?;
    let Some((last, others)) = problems.split_last() else {
        return Err("field `problems` is empty, expected one at least".into());
    };
    let mut context = format!("Article: {}\n\n", row.text("article")?);
    for problem in others {
        let (question, answer) = (problem.question, problem.options[problem.answer]);
        match question.strip_suffix("_  .") {
            // A gap at the end is filled in.
            Some(beginning) if beginning.ends_with("  ") => {
                context.push_str(&format!("{}{answer}\n", &beginning[..beginning.len() - 1]));
            }
            _ => context.push_str(&format!("Question: {question}\nAnswer: {answer}\n")),
        }
    }
    context.push_str(last.question);
    Ok(vec![Document::choices(context, &last.options[..4], last.answer)])
}

fn read_each(row: Row<'_>) -> Result<Vec<Document>, Reason> {
    let article = row.text("article")?;
    let problems = row.list("problems")?;
    let document = |value| {
        let problem = Problem::new(value)?;
        let context = format!("Article: {article}\n\nQuestion: {}\nAnswer:", problem.question);
        let document = Document::choices(context, &problem.options[..4], problem.answer);
        Ok(Document { baseline: Some("Answer:"), ..document })
    };
    problems.iter().map(document).collect()
}
