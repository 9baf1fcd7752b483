//! The commands that the documents tell a reader to type: each must exist.

use std::process::Command;

use crate::Outcome;
use crate::command::{root, run};

/// Documents with commands for a reader.
const DOCUMENTS: [&str; 5] =
    ["README.md", "CONTRIBUTING.md", "docs/data.md", "docs/evaluation.md", "docs/inference.md"];

/// Asks `mtnlg`, which the tests have built beside this program, for the help of every subcommand that a document runs.
pub fn check() -> Outcome {
    let program = match std::env::current_exe() {
        Ok(this) => this.with_file_name(format!("mtnlg{}", std::env::consts::EXE_SUFFIX)),
        Err(error) => return Outcome::Failed(format!("this program's file: {error}")),
    };
    let mut missing = Vec::new();
    let mut commands = Vec::new();
    for document in DOCUMENTS {
        match std::fs::read_to_string(root().join(document)) {
            Ok(text) => commands.extend(subcommands(&text)),
            Err(error) => missing.push(format!("{document}: {error}")),
        }
    }
    commands.sort();
    commands.dedup();
    for command in &commands {
        if !run(Command::new(&program).args([command, "--help"]), true).ok {
            missing.push(format!("`mtnlg {command}` does not exist"));
        }
    }
    match missing.is_empty() {
        true => Outcome::Passed,
        false => Outcome::Failed(missing.join("; ")),
    }
}

/// The subcommands of `mtnlg` in the text's command lines (in fences or indented): `mtnlg NAME`, `cargo run … -- NAME`.
fn subcommands(text: &str) -> Vec<String> {
    let command = |line: &str| {
        let line = line.trim_start().trim_start_matches("$ ");
        let mut words = line.split_whitespace();
        match words.next()? {
            "mtnlg" => {}
            program if program.ends_with("/mtnlg") => {}
            "cargo" if words.next()? == "run" => {
                words.find(|word| *word == "--")?;
            }
            _ => return None,
        }
        let name = words.next()?;
        let plain = name.chars().all(|c| c.is_ascii_lowercase() || c == '-') && !name.starts_with('-');
        plain.then(|| name.to_owned())
    };
    text.lines().filter_map(command).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_command_lines() {
        let text = "Use mtnlg train.\n```\n$ cargo run --release -- train --steps 3\ntarget/release/mtnlg bench step --json\n```\n    mtnlg plan\ncargo test\ncargo run --release\nmtnlg --help";
        assert_eq!(subcommands(text), ["train", "bench", "plan"]);
    }
}
