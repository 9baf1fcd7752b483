//! Commands, run from the workspace's root with their output shown as it comes and kept.

use std::io::{BufRead, BufReader, Read, Write};
use std::path::Path;
use std::process::{Command, Stdio};

/// What a command left.
pub struct Finished {
    /// Whether it exited with 0.
    pub ok: bool,
    /// Its standard output and error, line by line, each in its own order.
    pub lines: Vec<String>,
}

/// The workspace's root.
pub fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("xtask lies in the workspace")
}

/// `cargo` with these arguments: the one that runs this program.
pub fn cargo(arguments: &[&str]) -> Command {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.args(arguments).current_dir(root());
    command
}

/// Runs it; shows what it prints unless `quiet`.
pub fn run(command: &mut Command, quiet: bool) -> Finished {
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    let words: Vec<String> = words.map(|word| word.to_string_lossy().into_owned()).collect();
    if !quiet {
        println!("\n$ {}", words.join(" "));
    }
    let child = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn();
    let mut child = match child {
        Ok(child) => child,
        Err(error) => return Finished { ok: false, lines: vec![format!("{}: {error}", words[0])] },
    };
    let (out, err) = (child.stdout.take().expect("piped"), child.stderr.take().expect("piped"));
    let mut lines = Vec::new();
    std::thread::scope(|scope| {
        let err = scope.spawn(|| show(err, quiet, &mut std::io::stderr()));
        lines = show(out, quiet, &mut std::io::stdout());
        lines.extend(err.join().expect("reading does not panic"));
    });
    Finished { ok: child.wait().is_ok_and(|status| status.success()), lines }
}

fn show(from: impl Read, quiet: bool, to: &mut impl Write) -> Vec<String> {
    let mut lines = Vec::new();
    for line in BufReader::new(from).split(b'\n').map_while(Result::ok) {
        let line = String::from_utf8_lossy(&line).into_owned();
        if !quiet {
            // A closed terminal is no reason to stop the checks.
            let _ = writeln!(to, "{line}");
        }
        lines.push(line);
    }
    lines
}

/// Whether the command exists and says its version.
pub fn answers(program: &str, arguments: &[&str]) -> bool {
    let status = Command::new(program).args(arguments).stdout(Stdio::null()).stderr(Stdio::null()).status();
    status.is_ok_and(|status| status.success())
}
