//! `mtnlg`, the command line.
fn main() {}
