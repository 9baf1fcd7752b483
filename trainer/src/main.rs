//! `mtnlg`, the command line: exit code 0 done, 2 the user's input, 1 anything else.

use std::process::ExitCode;

use clap::Parser;
use trainer::cli::{Bench, BenchArgs, Cli, Command};
use trainer::config::BackendChoice;
use trainer::launch::launch;
use trainer::{Error, Result, bench, device, planner, presets, run, subjects};

fn main() -> ExitCode {
    // clap prints its own errors, and exits with 2.
    let cli = Cli::parse();
    if let Command::Conformance(args) = &cli.command {
        return args.run(&subjects::all(), vec!["conformance".to_owned()]);
    }
    match run(cli) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => error.report(),
    }
}

fn run(cli: Cli) -> Result<()> {
    match cli.command {
        Command::Train(args) if args.dry_run => {
            let plan = args.plan()?;
            match args.json {
                true => print_json(&plan)?,
                false => print(&plan.to_string()),
            }
        }
        Command::Train(args) if args.resolve()?.run.backend == BackendChoice::Sim => {
            let prediction = planner::rehearse_run(&args.resolve()?)?;
            match args.json {
                true => print_json(&prediction)?,
                false => print(&planner::text::prediction(&prediction)),
            }
        }
        Command::Train(args) => {
            let summary = run::train(args.resolve()?, args.resume.is_some())?;
            if let Some(summary) = summary.filter(|_| args.json) {
                print_json(&summary)?;
            }
        }
        // It has exit codes of its own, and was answered before.
        Command::Conformance(_) => {}
        Command::Data(args) => print(&args.run()?),
        Command::Parity(args) => args.run()?,
        Command::ParityRank(args) => args.run()?,
        Command::Generate(args) => args.run()?,
        Command::Serve(args) => args.run()?,
        Command::Eval(args) => args.run()?.iter().for_each(|text| print(text)),
        Command::Probe(args) => args.run()?.iter().for_each(|text| print(text)),
        Command::Score(args) => args.run()?,
        Command::Checkpoint(args) => print(&args.run()?),
        Command::Presets(args) => print(&if args.json { presets::json() } else { presets::table() }),
        Command::Plan(args) => args.run()?,
        Command::Devices => print(&device::table()),
        Command::Bench(BenchArgs { what: Bench::Ops(args) }) => {
            let (device, _) = device::choose(args.backend)?;
            let config = args.resolve()?;
            let ranks = config.layout().world_size();
            let job = bench::ops::Ops { config: &config, seconds: args.seconds };
            let measured = launch(&device, ranks, job)?;
            match args.json {
                true => print_json(&measured)?,
                false => print(&measured.to_string()),
            }
        }
        Command::Bench(BenchArgs { what: Bench::Step(args) }) => {
            let config = args.resolve()?;
            let mut device = device::choose(args.backend)?.0.with_kernels(config.kernels());
            if args.profile {
                device = device.profiled()?;
            }
            let ranks = config.layout().world_size();
            let job = bench::Step { config: &config, seconds: args.seconds, data: args.data.as_deref() };
            let result = launch(&device, ranks, job)?;
            match args.json {
                true => print_json(&result)?,
                false => print(&result.to_string()),
            }
        }
    }
    Ok(())
}

fn print_json(value: &impl serde::Serialize) -> Result<()> {
    let text =
        serde_json::to_string_pretty(value).map_err(|error| Error::other(format!("no JSON: {error}")))?;
    print(&text);
    Ok(())
}

/// Prints to stdout; a reader that has gone away (`mtnlg presets | head -1`) is no error.
fn print(text: &str) {
    use std::io::Write;
    let _ = writeln!(std::io::stdout(), "{}", text.trim_end());
}
