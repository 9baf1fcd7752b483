//! `cargo xtask test`: the one test command. It installs what the tests need where it can, runs every check, and ends with a table of them, with
//! what could not run and why, and a last line `N passed, N failed, N skipped` that counts tests.
//!
//! No dependencies, so that it is built in a second.

mod checks;
mod command;
mod cuda;
mod dawn;
mod harness;
mod lavapipe;
mod mpi;
mod packages;
mod readme;

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use checks::Checks;

/// What came of a check.
enum Outcome {
    Passed,
    Failed(String),
    /// Could not run here, and why. A failure under CI where `required`.
    NotRun {
        why: String,
        required: bool,
    },
}

const USAGE: &str = "usage: cargo xtask test [--quick] | dawn | twin

  test           every check: formatting, clippy, tests (on the CPU, on wgpu, under Dawn, and CUDA on its twin), documentation, commands in the documents,
                 cargo deny
  test --quick   the inner loop: formatting, clippy and the tests that need no GPU
  dawn           installs Dawn and SwiftShader for the tests under Dawn, and prints their folder, which MTNLG_DAWN is to name
  twin           builds the CPU twin of a machine with NVIDIA GPUs, and prints its folder, which MTNLG_CUDA_LIBRARIES is to name";

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let quick = match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["test"] => false,
        ["test", "--quick"] => true,
        ["dawn"] => return print(dawn::ensure()),
        ["twin"] => return print(cuda::twin()),
        ["help" | "--help" | "-h"] => {
            println!("{USAGE}");
            return ExitCode::SUCCESS;
        }
        _ => {
            eprintln!("{USAGE}");
            return ExitCode::from(2);
        }
    };
    let ci = std::env::var("CI").is_ok_and(|value| !value.is_empty() && value != "false" && value != "0");
    report(&Checks::run(quick, ci), ci)
}

/// Prints a folder, or why there is none.
fn print(folder: Result<PathBuf, String>) -> ExitCode {
    match folder {
        Ok(folder) => {
            println!("{}", folder.display());
            ExitCode::SUCCESS
        }
        Err(why) => {
            eprintln!("{why}");
            ExitCode::FAILURE
        }
    }
}

/// Prints the table and the count; the exit code says whether all is well.
fn report(checks: &Checks, ci: bool) -> ExitCode {
    println!("\n{:-<100}", "");
    let mut broken = 0;
    for (name, outcome, time) in &checks.done {
        let word = match outcome {
            Outcome::Passed => "passed".to_owned(),
            Outcome::Failed(why) => format!("FAILED: {why}"),
            Outcome::NotRun { why, required: true } if ci => format!("FAILED: could not run: {why}"),
            Outcome::NotRun { why, .. } => format!("could not run: {why}"),
        };
        broken += usize::from(word.starts_with("FAILED"));
        println!("{name:<34} {:>6}  {word}", seconds(*time));
    }
    let tests = &checks.tests;
    if ci && tests.lacking > 0 {
        println!("{} tests did not find what they need, which under CI is a failure:", tests.lacking);
        broken += 1;
    }
    for reason in &tests.reasons {
        println!("  {reason}");
    }
    for name in &tests.failures {
        println!("  failed: {name}");
    }
    println!("{:-<100}", "");
    println!("{} passed, {} failed, {} skipped", tests.passed, tests.failed, tests.skipped);
    if broken == 0 && tests.failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn seconds(time: Duration) -> String {
    format!("{:.0} s", time.as_secs_f64())
}
