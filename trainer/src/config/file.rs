//! A configuration file read with its positions, so that a mistake is answered with its line.

use std::path::Path;

use toml::de::DeTable;

use super::resolve::Assignment;
use crate::{Error, Result};

/// The assignments of the file at `path`, as dotted keys in the order in which they stand.
pub fn read(path: &Path) -> Result<Vec<Assignment>> {
    let text = std::fs::read_to_string(path).map_err(|e| {
        Error::io("read the configuration", path, &e).remedy("give the path of a TOML file to --config")
    })?;
    parse(&text, &path.display().to_string())
}

/// The assignments of `text`; `name` is what its positions are given in.
pub fn parse(text: &str, name: &str) -> Result<Vec<Assignment>> {
    let at = |offset: usize| format!("{name}:{}", line(text, offset));
    let syntax = |error: toml::de::Error| {
        let place = error.span().map_or(name.into(), |span| at(span.start));
        Error::user(format!("not TOML: {}", error.message().trim())).at(place)
    };
    let positions = DeTable::parse(text).map_err(syntax)?;
    let values: toml::Table = toml::from_str(text).map_err(syntax)?;
    let mut assignments = Vec::new();
    for (key, value) in positions.get_ref() {
        let place = at(key.span().start);
        let section = key.get_ref().as_ref();
        match (value.get_ref().as_table(), &values[section]) {
            (Some(table), toml::Value::Table(values)) => {
                for key in table.keys() {
                    let name = key.get_ref().as_ref();
                    assignments.push(Assignment {
                        key: format!("{section}.{name}"),
                        value: values[name].clone(),
                        text: None,
                        origin: at(key.span().start),
                        in_file: true,
                    });
                }
                if table.is_empty() {
                    super::unknown::section(section, &place)?;
                }
            }
            (_, value) => assignments.push(Assignment {
                key: section.into(),
                value: value.clone(),
                text: None,
                origin: place,
                in_file: true,
            }),
        }
    }
    Ok(assignments)
}

/// The line, from 1, of a byte of `text`.
fn line(text: &str, offset: usize) -> usize {
    text.as_bytes()[..offset.min(text.len())].iter().filter(|&&byte| byte == b'\n').count() + 1
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_have_their_lines() {
        let text = "preset = \"gpt2\"\n\n[train]\nlr = 1e-3\n  steps = 7\n[run]\ndir=\"x\"";
        let found: Vec<(String, String)> =
            parse(text, "f").unwrap().into_iter().map(|a| (a.key, a.origin)).collect();
        let has = |key: &str, origin: &str| found.contains(&(key.into(), origin.into()));
        assert!(has("preset", "f:1") && has("train.lr", "f:4"), "{found:?}");
        assert!(has("train.steps", "f:5") && has("run.dir", "f:7"), "{found:?}");
    }

    #[test]
    fn syntax_errors_have_their_line() {
        let message = parse("[train]\nlr = \n", "f.toml").unwrap_err().to_string();
        assert!(message.contains("not TOML") && message.contains("f.toml:2"), "{message}");
        assert!(parse("a = 1\na = 2\n", "f.toml").unwrap_err().to_string().contains("f.toml:2"));
    }
}
