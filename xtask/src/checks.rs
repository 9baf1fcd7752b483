//! The checks, in an order that says the cheap things first and compiles every crate as few times as may be: one profile, one target directory.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use crate::command::{Finished, answers, cargo, run};
use crate::harness::Tests;
use crate::{Outcome, cuda, dawn, lavapipe, mpi, readme};

/// The checks that were made.
#[derive(Default)]
pub struct Checks {
    /// Name, outcome and time of each.
    pub done: Vec<(&'static str, Outcome, Duration)>,
    /// Every test program's tests.
    pub tests: Tests,
}

/// What the tests find on this machine; or why not.
struct Found {
    device: Result<(), String>,
    dawn: Result<PathBuf, String>,
    twin: Result<PathBuf, String>,
    wheels: Result<cuda::Wheels, String>,
    mpi: Result<(), String>,
}

impl Found {
    /// Installs what is not there, unless `quick`.
    fn new(quick: bool) -> Self {
        if quick {
            let why = || "--quick".to_owned();
            return Self {
                device: Err(why()),
                dawn: Err(why()),
                twin: Err(why()),
                wheels: Err(why()),
                mpi: Err(why()),
            };
        }
        Self {
            device: lavapipe::ensure(),
            dawn: dawn::ensure(),
            twin: cuda::twin(),
            wheels: cuda::wheels(),
            mpi: mpi::ensure(),
        }
    }
}

/// What a command's end means.
fn outcome(finished: &Finished) -> Outcome {
    if finished.ok { Outcome::Passed } else { Outcome::Failed("see above".to_owned()) }
}

impl Checks {
    /// Makes them all, whatever fails.
    pub fn run(quick: bool, ci: bool) -> Self {
        let mut checks = Self::default();
        checks.note("formatting", || outcome(&run(&mut cargo(&["fmt", "--all", "--check"]), false)));
        checks.note("clippy", || {
            let command = ["clippy", "--workspace", "--all-targets", "--", "--deny", "warnings"];
            outcome(&run(&mut cargo(&command), false))
        });
        let found = Found::new(quick);
        checks.test(quick, ci, &found);
        let there = |there: Result<(), String>| match there {
            Ok(()) => Outcome::Passed,
            Err(why) => Outcome::NotRun { why, required: !quick },
        };
        checks.note("a device for the wgpu tests", || there(found.device));
        checks.note("Dawn for the tests under Tint", || there(found.dawn.map(drop)));
        checks.note("the CPU twin for CUDA's tests", || there(found.twin.map(drop)));
        checks.note("NVRTC, NCCL and cuBLASLt for CUDA's tests", || there(found.wheels.map(drop)));
        checks.note("MPI for the tests of ranks over it", || there(found.mpi));
        if quick {
            return checks;
        }
        checks.note("documentation", || {
            let mut command = cargo(&["doc", "--workspace", "--no-deps"]);
            outcome(&run(command.env("RUSTDOCFLAGS", "--deny warnings"), false))
        });
        checks.note("commands in the documents", readme::check);
        checks.deny();
        checks
    }

    fn note(&mut self, name: &'static str, check: impl FnOnce() -> Outcome) {
        let start = Instant::now();
        let outcome = check();
        self.done.push((name, outcome, start.elapsed()));
    }

    /// Every test of the workspace; with `quick`, not those of wgpu and CUDA.
    fn test(&mut self, quick: bool, ci: bool, found: &Found) {
        let mut arguments = vec!["test", "--workspace", "--no-fail-fast"];
        if quick {
            arguments.extend(["--exclude", "backend-wgpu"]);
        }
        if found.mpi.is_ok() {
            // In the same build as all else: a feature of one package alone has the cost of a second one.
            arguments.extend(["--features", "trainer/mpi"]);
        }
        arguments.extend(["--", "--show-output"]);
        if quick {
            // Tests of these backends, and those under Dawn, say so in their names, or in their file's.
            arguments.extend(
                ["wgpu", "dawn", "cuda", "nvrtc", "nccl", "cublaslt"]
                    .iter()
                    .flat_map(|name| ["--skip", name]),
            );
        }
        let mut command = cargo(&arguments);
        let wheels = found.wheels.as_ref().ok();
        let required = [
            ("wgpu", found.device.is_ok()),
            ("dawn", found.dawn.is_ok()),
            ("cuda-twin", found.twin.is_ok()),
            ("nvrtc", wheels.is_some()),
            ("nccl", wheels.is_some()),
            ("cublaslt", wheels.is_some()),
        ];
        let required: Vec<_> = required.iter().filter(|(_, there)| *there).map(|(name, _)| *name).collect();
        command.env("MTNLG_REQUIRE", required.join(","));
        for (name, folder) in [
            ("MTNLG_DAWN", found.dawn.as_ref().ok()),
            ("MTNLG_CUDA_LIBRARIES", found.twin.as_ref().ok()),
            ("MTNLG_NVRTC", wheels.map(|wheels| &wheels.nvrtc)),
            ("MTNLG_NCCL", wheels.map(|wheels| &wheels.nccl)),
            ("MTNLG_CUBLASLT", wheels.map(|wheels| &wheels.cublas)),
        ] {
            match folder {
                Some(folder) => command.env(name, folder),
                None => command.env_remove(name),
            };
        }
        if ci {
            command.env("CARGO_INCREMENTAL", "0");
        }
        if std::env::var_os("XDG_RUNTIME_DIR").is_none() {
            // Vulkan's window system layers complain of its absence with every instance that is made.
            command.env("XDG_RUNTIME_DIR", std::env::temp_dir());
        }
        let start = Instant::now();
        let finished = run(&mut command, false);
        self.tests = Tests::count(&finished.lines);
        let ran = self.tests.passed + self.tests.failed;
        let outcome = match (finished.ok, self.tests.failed) {
            (true, _) if ran == 0 => Outcome::Failed("no test ran".to_owned()),
            (true, _) => Outcome::Passed,
            (false, 0) => Outcome::Failed("a test program did not build or did not finish".to_owned()),
            (false, failed) => Outcome::Failed(format!("{failed} tests")),
        };
        self.done.push(("tests", outcome, start.elapsed()));
    }

    /// Licences, sources and bans; advisories where their database can be had.
    fn deny(&mut self) {
        if !answers("cargo", &["deny", "--version"]) {
            let why = "cargo-deny is not installed (cargo install cargo-deny)".to_owned();
            self.note("cargo deny", || Outcome::NotRun { why, required: false });
            return;
        }
        self.note("cargo deny: licences, sources, bans", || {
            outcome(&run(&mut cargo(&["deny", "check", "licenses", "sources", "bans"]), false))
        });
        self.note("cargo deny: advisories", || {
            let finished = run(&mut cargo(&["deny", "check", "advisories"]), false);
            let unreachable = |line: &String| {
                line.contains("failed to fetch advisory database")
                    || line.contains("failed to load advisory database")
            };
            match finished.lines.iter().any(unreachable) {
                true => Outcome::NotRun {
                    why: "the advisory database cannot be fetched".to_owned(),
                    required: false,
                },
                false => outcome(&finished),
            }
        });
    }
}
