//! Arithmetic with obfuscated operators: worked examples with a sign that means nothing, then a problem with the same sign.
//!
//! The paper asks whether a model that adds when it sees `+` has learned to add or to continue the familiar line. Each operation is asked twice, with its own
//! sign and with one that no text gives a meaning, on the same problems. A wrong answer that another operation would give to the same numbers is told
//! as that operation's.

use serde::{Deserialize, Serialize};

use super::{Ask, Asking, percent};
use crate::Result;
use crate::python::random::Random;

/// An operation on two numbers.
#[derive(Clone, Copy, Debug)]
struct Operation {
    name: &'static str,
    sign: &'static str,
    /// The sign that stands for it when it is obfuscated.
    obfuscated: &'static str,
    apply: fn(i64, i64) -> i64,
}

const OPERATIONS: [Operation; 4] = [
    Operation { name: "addition", sign: "+", obfuscated: "☆", apply: |a, b| a + b },
    Operation { name: "subtraction", sign: "-", obfuscated: "◇", apply: |a, b| a - b },
    Operation { name: "multiplication", sign: "*", obfuscated: "▽", apply: |a, b| a * b },
    Operation { name: "division", sign: "/", obfuscated: "□", apply: |a, b| a / b },
];

/// One operation with one sign.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Row {
    /// The operation.
    pub operation: String,
    /// The sign that was shown.
    pub sign: String,
    /// Whether the sign is its own.
    pub plain: bool,
    /// Problems.
    pub problems: usize,
    /// Right answers.
    pub right: usize,
    /// Answers that are no number.
    pub no_number: usize,
    /// Wrong answers that another operation gives, by its name.
    pub others: Vec<(String, usize)>,
    /// The first prompt and what was written.
    pub example: (String, String),
}

/// What came of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Findings {
    /// Worked examples before each problem.
    pub shots: usize,
    /// Two rows an operation: its own sign, and the obfuscated one.
    pub rows: Vec<Row>,
}

/// A problem of two numbers: up to two digits, for products one digit on the right; quotients are whole.
fn numbers(operation: &Operation, random: &mut Random) -> (i64, i64) {
    let mut draw = |from: i64, to: i64| from + random.choice((to - from + 1) as usize) as i64;
    match operation.name {
        "multiplication" => (draw(2, 20), draw(2, 9)),
        "division" => {
            let (quotient, divisor) = (draw(2, 20), draw(2, 9));
            (quotient * divisor, divisor)
        }
        _ => (draw(1, 99), draw(1, 99)),
    }
}

/// Asks `problems` of each operation and sign, each behind `shots` worked examples.
pub(super) fn probe(shots: usize, problems: usize, seed: u32, ask: &mut Asking<'_>) -> Result<Findings> {
    let mut rows = Vec::new();
    for (index, operation) in OPERATIONS.iter().enumerate() {
        for sign in [operation.sign, operation.obfuscated] {
            // The same numbers with either sign.
            let mut random = Random::new(seed.wrapping_add(index as u32));
            let line = |(a, b): (i64, i64)| format!("{a} {sign} {b} =");
            let problem = |random: &mut Random| {
                let examples = (0..shots).map(|_| {
                    let (a, b) = numbers(operation, random);
                    format!("{} {}\n", line((a, b)), (operation.apply)(a, b))
                });
                let examples: String = examples.collect();
                let asked = numbers(operation, random);
                (examples + &line(asked), asked)
            };
            let asked: Vec<(String, (i64, i64))> = (0..problems).map(|_| problem(&mut random)).collect();
            let written = ask(&Ask {
                prompts: asked.iter().map(|(prompt, _)| prompt.clone()).collect(),
                samples: 1,
                max_tokens: 8,
                temperature: 0.0,
                top_p: 1.0,
                stop: vec!["\n".into()],
                seed: seed.into(),
            })?;
            let written: Vec<String> = written.into_iter().map(|samples| samples.concat()).collect();
            let numbers: Vec<(i64, i64)> = asked.iter().map(|(_, numbers)| *numbers).collect();
            let example = asked.first().map(|(prompt, _)| prompt.clone()).unwrap_or_default();
            rows.push(count(operation, sign, &numbers, &written, example));
        }
    }
    Ok(Findings { shots, rows })
}

fn count(
    operation: &Operation,
    sign: &str,
    numbers: &[(i64, i64)],
    written: &[String],
    prompt: String,
) -> Row {
    let mut row = Row {
        operation: operation.name.into(),
        sign: sign.into(),
        plain: sign == operation.sign,
        problems: numbers.len(),
        right: 0,
        no_number: 0,
        others: Vec::new(),
        example: (prompt, written.first().cloned().unwrap_or_default()),
    };
    for (&(a, b), text) in numbers.iter().zip(written) {
        let Some(answer) = first_number(text) else {
            row.no_number += 1;
            continue;
        };
        if answer == (operation.apply)(a, b) {
            row.right += 1;
            continue;
        }
        let other = OPERATIONS.iter().find(|other| (other.apply)(a, b) == answer);
        if let Some(other) = other {
            match row.others.iter_mut().find(|(name, _)| name == other.name) {
                Some((_, count)) => *count += 1,
                None => row.others.push((other.name.into(), 1)),
            }
        }
    }
    row
}

/// The number that a continuation begins with.
fn first_number(text: &str) -> Option<i64> {
    let text = text.trim_start();
    let sign = usize::from(text.starts_with('-'));
    let digits = text[sign..].chars().take_while(char::is_ascii_digit).count();
    text[..sign + digits].parse().ok()
}

impl Findings {
    /// As text.
    #[must_use]
    pub fn text(&self) -> String {
        let mut text =
            format!("Arithmetic behind {} worked examples, right answers in per cent\n", self.shots);
        for pair in self.rows.chunks(2) {
            let cells =
                pair.iter().map(|row| format!("{} {:>5}", row.sign, percent(row.right, row.problems)));
            text += &format!("  {:<16}", pair[0].operation);
            text += &cells.collect::<Vec<_>>().join("   ");
            let wrong: Vec<String> = pair
                .iter()
                .flat_map(|row| {
                    row.others
                        .iter()
                        .map(move |(name, count)| format!("{} read as {name}: {count}", row.sign))
                })
                .collect();
            if !wrong.is_empty() {
                text += &format!("   ({})", wrong.join(", "));
            }
            text.push('\n');
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_read_from_the_beginning() {
        assert_eq!(first_number(" 42 apples"), Some(42));
        assert_eq!(first_number("-7."), Some(-7));
        for none in ["", "-", "x 7", " = 7", "99999999999999999999"] {
            assert_eq!(first_number(none), None, "{none}");
        }
    }

    /// A generator that knows what the operators mean, another that always adds.
    #[test]
    fn who_understands_and_who_adds() {
        fn solve(prompt: &str, of: impl Fn(&str) -> fn(i64, i64) -> i64) -> String {
            let line = prompt.lines().last().unwrap();
            let parts: Vec<&str> = line.split(' ').collect();
            format!(" {}", of(parts[1])(parts[0].parse().unwrap(), parts[2].parse().unwrap()))
        }
        let mut knows = |ask: &Ask| {
            let meaning = |sign: &str| {
                OPERATIONS.iter().find(|o| o.sign == sign || o.obfuscated == sign).unwrap().apply
            };
            assert!(ask.prompts.iter().all(|prompt| prompt.lines().count() == 4));
            Ok(ask.prompts.iter().map(|prompt| vec![solve(prompt, meaning)]).collect())
        };
        let findings = probe(3, 20, 5, &mut knows).unwrap();
        assert_eq!(findings.rows.len(), 8);
        assert!(findings.rows.iter().all(|row| row.right == 20 && row.others.is_empty()), "{findings:?}");
        let mut adds = |ask: &Ask| {
            let add: fn(i64, i64) -> i64 = |a, b| a + b;
            Ok(ask.prompts.iter().map(|prompt| vec![solve(prompt, |_| add)]).collect())
        };
        let findings = probe(0, 20, 5, &mut adds).unwrap();
        assert_eq!((findings.rows[0].right, findings.rows[1].right), (20, 20));
        assert_eq!(findings.rows[2].others, [("addition".to_owned(), 20)]);
        assert!(findings.text().contains("- read as addition: 20"), "{}", findings.text());
        // The numbers are the same with either sign.
        assert_eq!(findings.rows[2].example.0.replace('-', "◇"), findings.rows[3].example.0);
    }
}
