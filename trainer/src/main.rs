//! `mtnlg`, the command line: exit code 0 done, 2 the user's input, 1 anything else.

use std::process::ExitCode;

use clap::Parser;
use trainer::cli::{Cli, Command};
use trainer::{Result, presets};

fn main() -> ExitCode {
    // clap prints its own errors, and exits with 2.
    match run(Cli::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => error.report(),
    }
}

fn run(cli: Cli) -> Result<()> {
    match cli.command {
        Command::Train(args) => {
            let config = args.resolve()?;
            print(&config.to_toml());
        }
        Command::Presets(args) => print(&if args.json { presets::json() } else { presets::table() }),
    }
    Ok(())
}

/// Prints to stdout; a reader that has gone away (`mtnlg presets | head -1`) is no error.
fn print(text: &str) {
    use std::io::Write;
    let _ = writeln!(std::io::stdout(), "{}", text.trim_end());
}
