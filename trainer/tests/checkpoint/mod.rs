//! `mtnlg checkpoint`, as a user runs it.

use std::path::Path;
use std::process::{Command, Output};

pub fn checkpoint(args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_mtnlg")).arg("checkpoint").args(args).output().unwrap()
}

pub fn said(output: &Output) -> String {
    String::from_utf8_lossy(&[&output.stdout[..], &output.stderr].concat()).into_owned()
}

pub fn done(args: &[&str]) -> String {
    let output = checkpoint(args);
    assert!(output.status.success(), "{args:?}: {}", said(&output));
    said(&output)
}

pub fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}
