//! The conformance suite as the program of one backend.

use std::process::ExitCode;

fn main() -> ExitCode {
    conformance::main(minimal_backend::Host)
}
