//! The tasks by name: what each reads, asks and measures. A task is data and one function, from a line of its file to documents.
//!
//! Prompts, choices and metrics are those of lm-evaluation-harness 0.4.13 for the tasks that it has, request for request; the others say where theirs
//! come from.

mod boolq;
mod hellaswag;
mod lambada;
mod nli;
mod piqa;
mod race;
mod wic;
mod winogrande;

use crate::documents::{Document, Reason, Row};
use crate::{Error, Result};

/// A task.
#[derive(Debug)]
pub struct Task {
    /// Its name on the command line.
    pub name: &'static str,
    /// Its name in the paper's table.
    pub title: &'static str,
    /// Its file without `.jsonl`; variants of a task read the same one.
    pub data: &'static str,
    /// The split of the set that the harness evaluates.
    pub split: &'static str,
    /// Another name that the published file has.
    pub also: Option<&'static str>,
    /// The fields that it reads.
    pub fields: &'static str,
    /// What it asks.
    pub prompt: &'static str,
    /// Where the prompt comes from.
    pub origin: &'static str,
    /// Examples of the few-shot setting (MT-NLG's).
    pub few: usize,
    /// What it measures.
    pub measure: Measure,
    /// Whether a document may be drawn as an example for itself. The harness forbids it where the evaluated split is no test split.
    pub own_example: bool,
    /// The published accuracy.
    pub published: Published,
    /// From a line to documents.
    pub read: fn(Row<'_>) -> Result<Vec<Document>, Reason>,
}

/// What a task measures.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Measure {
    /// One continuation: perplexity of the word, and accuracy, which is that it is greedy.
    Word,
    /// The most probable choice, and maybe also the most probable by character.
    Choice {
        /// Whether acc_norm is measured.
        normalised: bool,
    },
    /// The choice whose probability gains most over the one behind a baseline.
    Ratio,
}

/// Published accuracies in per cent, with no, one and a few examples (Smith et al. 2022, arXiv 2201.11990; GPT-3 as quoted there).
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Published {
    /// MT-NLG 530B.
    pub mt_nlg: [f64; 3],
    /// GPT-3 175B.
    pub gpt3: Option<[f64; 3]>,
}

/// Every task: the ten of `all`, then MT-NLG's variants.
pub static TASKS: [&Task; 12] = [
    &lambada::OPENAI,
    &lambada::STANDARD,
    &race::HIGH,
    &boolq::BOOLQ,
    &piqa::PIQA,
    &hellaswag::HELLASWAG,
    &winogrande::WINOGRANDE,
    &nli::ANLI_R2,
    &nli::HANS,
    &wic::WIC,
    &lambada::MTNLG,
    &race::MTNLG,
];

/// Tasks of `all`.
const ALL: usize = 10;

/// A list of tasks and groups (`all`, `mtnlg`), separated by commas; each task once, in the order of the list.
///
/// # Errors
/// A name that is none, with the nearest thing that is.
pub fn by_names(names: &str) -> Result<Vec<&'static Task>> {
    let mut tasks: Vec<&'static Task> = Vec::new();
    for name in names.split(',').map(str::trim).filter(|name| !name.is_empty()) {
        let found: Vec<&'static Task> = match name {
            "all" => TASKS[..ALL].to_vec(),
            "mtnlg" => TASKS[ALL..].to_vec(),
            _ => TASKS.iter().copied().filter(|task| task.name == name).collect(),
        };
        if found.is_empty() {
            return Err(Error::UnknownTask { name: name.into(), known: known() });
        }
        for task in found {
            if !tasks.iter().any(|there| there.name == task.name) {
                tasks.push(task);
            }
        }
    }
    if tasks.is_empty() {
        return Err(Error::UnknownTask { name: names.into(), known: known() });
    }
    Ok(tasks)
}

/// All names, for a message.
fn known() -> String {
    let names: Vec<&str> = TASKS.iter().map(|task| task.name).collect();
    format!("all, mtnlg, or some of {}", names.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(list: &str) -> Vec<&'static str> {
        by_names(list).unwrap().iter().map(|task| task.name).collect()
    }

    #[test]
    fn lists_of_names() {
        assert_eq!(names("wic, lambada_openai,wic"), ["wic", "lambada_openai"]);
        assert_eq!(names("all").len(), 10);
        assert_eq!(names("mtnlg"), ["mtnlg_lambada", "mtnlg_race_high"]);
        assert_eq!(names("hans,all,mtnlg").len(), 12);
        for none in ["lambada", "", ","] {
            let error = by_names(none).unwrap_err();
            assert!(error.is_user() && error.to_string().contains("race_high"), "{error}");
        }
    }
}
