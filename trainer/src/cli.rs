//! The command line of `mtnlg`.

mod data;
mod watch;

use std::path::{Path, PathBuf};

use clap::{Args, Parser, Subcommand};
use eval::shots::Shots;

pub use self::data::DataArgs;
use crate::config::{BackendChoice, DataSource, Layers, RunConfig};
use crate::plan::{DryRun, Plan};
use crate::reduce::parse_count;
use crate::{Error, Result};

/// Megatron-Turing NLG: trains a GPT model, tensor x pipeline x data parallel.
#[derive(Debug, Parser)]
#[command(name = "mtnlg", version, about)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Train a model from text, or go on with a run
    Train(Box<TrainArgs>),
    /// Make a corpus: from raw text to the tokens of a training run
    Data(Box<DataArgs>),
    /// Train the same few steps in many layouts, and compare them bit for bit
    Parity(crate::parity::ParityArgs),
    /// One rank of a parity run; `mtnlg parity` starts it
    #[command(hide = true)]
    ParityRank(crate::parity::RankArgs),
    /// List the models by name, with their exact sizes
    Presets(PresetsArgs),
    /// List the devices that a run could use
    Devices,
    /// Continue prompts with a trained model
    Generate(Box<crate::inference::generate::GenerateArgs>),
    /// Serve a trained model: OpenAI's /v1/completions
    Serve(Box<crate::inference::serve::ServeArgs>),
    /// Evaluate a trained model on the nine tasks: LAMBADA, RACE, BoolQ, PiQA, HellaSwag, WinoGrande, ANLI, HANS, WiC
    Eval(Box<crate::inference::evaluate::EvaluateArgs>),
    /// Let a trained model write, and look at what: arithmetic with unknown operators, occupations, adjectives
    Probe(Box<crate::inference::evaluate::ProbeModelArgs>),
    /// Log-likelihoods of continuations, a request a line
    Score(crate::inference::score::ScoreArgs),
    /// Look at checkpoints, and exchange them with other programs
    Checkpoint(crate::exchange::CheckpointArgs),
    /// Test a backend: every operation against an fp64 reference, and the collectives
    Conformance(conformance::suite::cli::ConformanceArgs),
    /// Measure this machine
    Bench(BenchArgs),
    /// Predict a run on a cluster that is not there: does it fit, how long is a step, which layout is best
    Plan(Box<crate::planner::PlanArgs>),
}

/// `mtnlg presets`.
#[derive(Clone, Debug, Default, Args)]
pub struct PresetsArgs {
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

/// `mtnlg bench`.
#[derive(Clone, Debug, Args)]
pub struct BenchArgs {
    /// What to measure
    #[command(subcommand)]
    pub what: Bench,
}

/// What `mtnlg bench` measures.
#[derive(Clone, Debug, Subcommand)]
pub enum Bench {
    /// The training step on random tokens, in tokens a second
    Step(BenchStepArgs),
    /// Each operation of that step, in seconds: what `mtnlg plan --calibrate` makes a cluster from
    Ops(BenchStepArgs),
}

/// `mtnlg bench step`.
#[derive(Clone, Debug, Args)]
pub struct BenchStepArgs {
    /// Model
    #[arg(long, value_name = "NAME", default_value = "laptop")]
    pub preset: String,
    /// Where the model runs: auto, cpu, wgpu or cuda
    #[arg(long, value_name = "BACKEND", default_value = "auto")]
    pub backend: BackendChoice,
    /// Tensor-parallel ranks
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub tensor: u32,
    /// Pipeline stages
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub pipeline: u32,
    /// Data-parallel replicas
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub data_parallel: u32,
    /// Samples that a replica runs at once [default: all that it has]
    #[arg(long, value_name = "N")]
    pub micro_batch: Option<u32>,
    /// Samples a step
    #[arg(long, value_name = "N", default_value_t = 8)]
    pub global_batch: u32,
    /// Any configuration key; may be given many times
    #[arg(long, value_name = "SECTION.KEY=VALUE")]
    pub set: Vec<String>,
    /// Choose kernels by rule, never by measurement
    #[arg(long)]
    pub deterministic: bool,
    /// Read samples of this .bin/.idx pair, round and round, instead of random tokens (`bench step`)
    #[arg(long, value_name = "PREFIX")]
    pub data: Option<PathBuf>,
    /// Print where the device's time goes, kernel by kernel
    #[arg(long)]
    pub profile: bool,
    /// How long to measure
    #[arg(long, value_name = "SECONDS", default_value_t = 10.0)]
    pub seconds: f64,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

impl BenchStepArgs {
    /// The configuration that these arguments ask for.
    ///
    /// # Errors
    /// As [`RunConfig::resolve`].
    pub fn resolve(&self) -> Result<RunConfig> {
        let share = (self.global_batch / self.data_parallel.max(1)).max(1);
        let mut layers = Layers::default().preset(&self.preset);
        for (key, value) in [
            ("parallel.tensor", self.tensor),
            ("parallel.pipeline", self.pipeline),
            ("parallel.data", self.data_parallel),
            ("train.micro_batch", self.micro_batch.unwrap_or(share)),
            ("train.global_batch", self.global_batch),
        ] {
            layers = layers.assign(key, i64::from(value), "bench step");
        }
        if self.deterministic {
            layers = layers.assign("numerics.deterministic", true, "--deterministic");
        }
        for assignment in &self.set {
            layers = layers.set(assignment)?;
        }
        RunConfig::resolve(&layers)
    }
}

/// `mtnlg train`.
#[derive(Clone, Debug, Default, Args)]
pub struct TrainArgs {
    /// Model and training defaults to start from; `mtnlg presets` lists them [default: laptop]
    #[arg(long, value_name = "NAME")]
    pub preset: Option<String>,
    /// Configuration file, over the preset
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Make the model and its recipe small: about this many parameters, such as 500k, 10M or 1.5B, in the same proportions
    #[arg(long, value_name = "PARAMETERS", value_parser = parse_count)]
    pub reduce: Option<u64>,
    /// Any configuration key, over the file; may be given many times
    #[arg(long, value_name = "SECTION.KEY=VALUE")]
    pub set: Vec<String>,
    /// Text to train on: a file, a folder, a .jsonl or a .bin/.idx prefix; may be given many times [default: the Rust documentation]
    #[arg(long, value_name = "[WEIGHT=]PATH")]
    pub data: Vec<DataSource>,
    /// Where the model runs: auto, cpu, wgpu, cuda, or sim for a rehearsal of one step on a simulated cluster [default: auto]
    #[arg(long, value_name = "BACKEND")]
    pub backend: Option<BackendChoice>,
    /// The cluster of a rehearsal: selene, dgx-h100, laptop or a TOML file [default: selene]
    #[arg(long, value_name = "NAME")]
    pub cluster: Option<String>,
    /// The software of a rehearsal: mtnlg, mt-nlg, narayanan-2021, korthikanti-2022 or a TOML file [default: mtnlg]
    #[arg(long, value_name = "NAME")]
    pub stack: Option<String>,
    /// Tensor-parallel ranks
    #[arg(long, value_name = "N")]
    pub tensor: Option<u32>,
    /// Pipeline stages
    #[arg(long, value_name = "N")]
    pub pipeline: Option<u32>,
    /// Data-parallel replicas
    #[arg(long, value_name = "N")]
    pub data_parallel: Option<u32>,
    /// Order of a pipeline's work: gpipe, 1f1b, interleaved or zb-h1
    #[arg(long, value_name = "NAME")]
    pub schedule: Option<String>,
    /// Model chunks a stage, for the interleaved schedule
    #[arg(long, value_name = "N")]
    pub virtual_stages: Option<u32>,
    /// What the backward computes again: none, selective or full
    #[arg(long, value_name = "WHAT")]
    pub recompute: Option<String>,
    /// Share out the tokens within a tensor group
    #[arg(long)]
    pub sequence_parallel: bool,
    /// Share out the optimizer's state over the replicas (ZeRO-1)
    #[arg(long)]
    pub sharded_optimizer: bool,
    /// Type of weights and activations: f32, bf16 or f16
    #[arg(long, value_name = "TYPE")]
    pub precision: Option<String>,
    /// How sums are taken: fast, or invariant for the same bits in every layout
    #[arg(long, value_name = "MODE")]
    pub numerics: Option<String>,
    /// Choose kernels by rule, never by measurement: the same bits on every run, whatever state the machine is in
    #[arg(long)]
    pub deterministic: bool,
    /// Optimizer steps
    #[arg(long, value_name = "N")]
    pub steps: Option<u32>,
    /// Tokens to train on, such as 5M; the run ends with the step that reaches them
    #[arg(long, value_name = "N", value_parser = parse_count, conflicts_with = "steps")]
    pub tokens: Option<u64>,
    /// Tasks of `mtnlg eval` to ask the model while it is trained, separated by commas: all, mtnlg, or names as `mtnlg eval --formats` lists them
    #[arg(long, value_name = "TASKS", value_delimiter = ',')]
    pub eval_tasks: Vec<String>,
    /// Ask them every so many steps [default: at the end alone]
    #[arg(long, value_name = "N")]
    pub eval_every: Option<u32>,
    /// Examples before each question: numbers, or few [default: 0]
    #[arg(long, value_name = "N,…", value_delimiter = ',')]
    pub eval_shots: Vec<Shots>,
    /// Only the first documents of each task
    #[arg(long, value_name = "N")]
    pub eval_limit: Option<u32>,
    /// Folder of the tasks' files, or the file of one: DIR, TASK=FILE or TASK.train=FILE; may be given many times
    #[arg(long, value_name = "DIR")]
    pub eval_data: Vec<String>,
    /// Directory for everything that the run writes [default: runs/PRESET]
    #[arg(long, value_name = "DIR")]
    pub run_dir: Option<PathBuf>,
    /// Go on with the run in this directory, from its newest good checkpoint and with its own configuration
    #[arg(long, value_name = "RUN", conflicts_with_all = ["preset", "config", "run_dir", "reduce"])]
    pub resume: Option<PathBuf>,
    /// Say what the run would be and what each rank would hold, and do nothing
    #[arg(long)]
    pub dry_run: bool,
    /// Print the summary (or the plan of a dry run) as JSON
    #[arg(long)]
    pub json: bool,
}

impl TrainArgs {
    /// The configuration that these arguments ask for. With `--resume RUN` the file is `RUN/config.toml`, and `run.dir` is `RUN`.
    ///
    /// # Errors
    /// As [`RunConfig::resolve`]; a `RUN` without a `config.toml`.
    pub fn resolve(&self) -> Result<RunConfig> {
        RunConfig::resolve(&self.layers()?)
    }

    /// What `--dry-run` prints: the run, and with `--reduce` the production run beside it.
    ///
    /// # Errors
    /// As [`resolve`](Self::resolve).
    pub fn plan(&self) -> Result<DryRun> {
        let layers = self.layers()?;
        let run = Plan::new(&RunConfig::resolve(&layers)?)?;
        Ok(match self.reduce {
            None => DryRun { production: run, reduced: None },
            Some(_) => {
                let production = Plan::new(&RunConfig::resolve(&layers.production())?)?;
                DryRun { production, reduced: Some(run) }
            }
        })
    }

    fn layers(&self) -> Result<Layers> {
        let mut layers = Layers::default();
        if let Some(target) = self.reduce {
            layers = layers.reduce(target, std::thread::available_parallelism().map_or(1, usize::from));
        }
        if let Some(preset) = &self.preset {
            layers = layers.preset(preset);
        }
        if let Some(file) = &self.config {
            layers = layers.file(file);
        }
        if let Some(run) = &self.resume {
            let file = run.join("config.toml");
            if !file.is_file() {
                return Err(Error::user("there is no run to resume")
                    .at(file.display().to_string())
                    .remedy("give the directory of a run, which has a config.toml"));
            }
            layers = layers.file(&file).assign("run.dir", text(run)?, "--resume");
        }
        for assignment in &self.set {
            layers = layers.set(assignment)?;
        }
        if !self.data.is_empty() {
            let sources: Vec<toml::Value> =
                self.data.iter().map(|source| source.to_string().into()).collect();
            layers = layers.assign("data.sources", sources, "--data");
        }
        for (key, values, flag) in [
            ("evaluation.tasks", &self.eval_tasks, "--eval-tasks"),
            ("evaluation.data", &self.eval_data, "--eval-data"),
        ] {
            if !values.is_empty() {
                layers = layers.assign(key, values.clone(), &format!("{flag} {}", values.join(",")));
            }
        }
        if !self.eval_shots.is_empty() {
            let value = |shots: &Shots| match shots {
                Shots::Count(count) => toml::Value::Integer(*count as i64),
                Shots::Few => shots.to_string().into(),
            };
            let values: Vec<toml::Value> = self.eval_shots.iter().map(value).collect();
            layers = layers.assign("evaluation.shots", values, "--eval-shots");
        }
        if let Some(backend) = self.backend {
            layers = layers.assign("run.backend", backend.to_string(), "--backend");
        }
        if let Some(dir) = &self.run_dir {
            layers = layers.assign("run.dir", text(dir)?, "--run-dir");
        }
        for (key, value, flag) in [
            ("parallel.tensor", self.tensor, "--tensor"),
            ("parallel.pipeline", self.pipeline, "--pipeline"),
            ("parallel.data", self.data_parallel, "--data-parallel"),
            ("parallel.virtual_stages", self.virtual_stages, "--virtual-stages"),
            ("train.steps", self.steps, "--steps"),
            ("evaluation.every", self.eval_every, "--eval-every"),
            ("evaluation.limit", self.eval_limit, "--eval-limit"),
        ] {
            if let Some(value) = value {
                layers = layers.assign(key, i64::from(value), &format!("{flag} {value}"));
            }
        }
        for (key, value, flag) in [
            ("parallel.schedule", &self.schedule, "--schedule"),
            ("parallel.recompute", &self.recompute, "--recompute"),
            ("train.precision", &self.precision, "--precision"),
            ("numerics.mode", &self.numerics, "--numerics"),
            ("run.cluster", &self.cluster, "--cluster"),
            ("run.stack", &self.stack, "--stack"),
        ] {
            if let Some(value) = value {
                layers = layers.assign(key, value.as_str(), &format!("{flag} {value}"));
            }
        }
        for (key, on, flag) in [
            ("parallel.sequence_parallel", self.sequence_parallel, "--sequence-parallel"),
            ("parallel.sharded_optimizer", self.sharded_optimizer, "--sharded-optimizer"),
            ("numerics.deterministic", self.deterministic, "--deterministic"),
        ] {
            if on {
                layers = layers.assign(key, true, flag);
            }
        }
        if let Some(tokens) = self.tokens {
            // A count is below 10^15.
            layers = layers.assign("train.tokens", tokens as i64, &format!("--tokens {tokens}"));
        }
        Ok(layers)
    }
}

/// A path as TOML can hold it.
fn text(path: &Path) -> Result<String> {
    path.to_str().map(String::from).ok_or_else(|| {
        Error::user("a path that is not UTF-8").value(path.display().to_string()).remedy("rename it")
    })
}

#[cfg(test)]
mod tests {
    use backend_wgpu::Kernels;
    use clap::CommandFactory;

    use model::Recompute;

    use super::*;
    use crate::config::Tokenizer;
    use crate::options::{Numerics, Precision};
    use crate::schedule::Schedule;

    fn train(args: &[&str]) -> TrainArgs {
        match Cli::try_parse_from([&["mtnlg", "train"], args].concat()).unwrap().command {
            Command::Train(args) => *args,
            _ => unreachable!("train was asked for"),
        }
    }

    #[test]
    fn the_declaration_is_sound() {
        Cli::command().debug_assert();
    }

    #[test]
    fn flags_end_up_in_the_configuration() {
        let args = [
            "--preset",
            "gpt2",
            "--data",
            "0.7=books",
            "--data",
            "code.jsonl",
            "--tensor",
            "2",
            "--steps",
            "9",
        ];
        let more =
            ["--set", "data.tokenizer=bpe:512", "--backend", "cpu", "--run-dir", "here", "--pipeline", "3"];
        let config = train(&[&args[..], &more[..]].concat()).resolve().unwrap();
        assert_eq!((config.preset.as_str(), config.parallel.tensor, config.train.steps), ("gpt2", 2, 9));
        assert_eq!((config.parallel.pipeline, config.run.backend), (3, BackendChoice::Cpu));
        assert_eq!(config.data.sources.len(), 2);
        assert_eq!(config.data.sources[0].weight, Some(0.7));
        assert_eq!((config.data.tokenizer, config.model.vocab), (Tokenizer::Bpe(512), 512));
        assert_eq!(config.run.dir, PathBuf::from("here"));
    }

    #[test]
    fn no_flags_is_the_laptop() {
        assert_eq!(train(&[]).resolve().unwrap(), crate::config::defaults::preset("laptop").unwrap());
    }

    #[test]
    fn resume_takes_the_runs_own_configuration() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().to_str().unwrap();
        let missing = train(&["--resume", path]).resolve().unwrap_err();
        assert!(missing.to_string().contains("no run to resume"), "{missing}");
        let mut config = train(&["--steps", "7", "--run-dir", "elsewhere"]).resolve().unwrap();
        std::fs::write(dir.path().join("config.toml"), config.to_toml()).unwrap();
        config.run.dir = dir.path().into();
        assert_eq!(train(&["--resume", path]).resolve().unwrap(), config);
        let wider = train(&["--resume", path, "--tensor", "1"]).resolve().unwrap();
        assert_eq!(wider.parallel.tensor, 1);
        assert!(Cli::try_parse_from(["mtnlg", "train", "--resume", path, "--preset", "gpt2"]).is_err());
    }

    #[test]
    fn how_it_is_executed() {
        let config = train(&[
            "--schedule",
            "interleaved",
            "--virtual-stages",
            "2",
            "--recompute",
            "selective",
            "--sequence-parallel",
        ])
        .resolve()
        .unwrap();
        let parallel = &config.parallel;
        assert_eq!((parallel.schedule, parallel.virtual_stages), (Schedule::Interleaved, 2));
        assert_eq!((parallel.recompute, parallel.sequence_parallel), (Recompute::Selective, true));
        let more = [
            "--precision",
            "bf16",
            "--numerics",
            "invariant",
            "--set",
            "numerics.chunks=4",
            "--sharded-optimizer",
        ];
        let config = train(&[&more[..], &["--tokens", "1M"]].concat()).resolve().unwrap();
        assert_eq!((config.train.precision, config.train.tokens), (Precision::Bf16, 1_000_000));
        assert_eq!(config.execution().numerics, Numerics::Invariant { chunks: 4 });
        assert!(config.parallel.sharded_optimizer);
        let error = train(&["--schedule", "zigzag"]).resolve().unwrap_err().to_string();
        assert!(error.contains("where: --schedule zigzag") && error.contains("zb-h1"), "{error}");
    }

    #[test]
    fn an_evaluation_by_flags() {
        let flags = "--eval-tasks piqa,wic --eval-every 50 --eval-shots 0,few --eval-limit 100 --eval-data sets --eval-data wic=w.jsonl";
        let evaluation = train(&flags.split(' ').collect::<Vec<_>>()).resolve().unwrap().evaluation;
        assert_eq!(evaluation.tasks, ["piqa", "wic"]);
        assert_eq!(evaluation.data, ["sets", "wic=w.jsonl"]);
        assert_eq!((evaluation.every, evaluation.limit), (50, 100));
        assert_eq!(evaluation.shots, [Shots::Count(0), Shots::Few]);
        let error =
            train(&["--eval-tasks", "pika", "--eval-data", "sets"]).resolve().unwrap_err().to_string();
        assert!(error.contains("no task \"pika\"") && error.contains("--eval-tasks pika"), "{error}");
    }

    #[test]
    fn what_may_choose_kernels() {
        for (flags, kernels) in [
            (&[][..], Kernels::Fastest),
            (&["--numerics", "invariant", "--set", "numerics.chunks=4"][..], Kernels::SameBits),
            (&["--deterministic"][..], Kernels::Fixed),
            (
                &["--deterministic", "--numerics", "invariant", "--set", "numerics.chunks=4"][..],
                Kernels::Fixed,
            ),
        ] {
            assert_eq!(train(flags).resolve().unwrap().kernels(), kernels, "{flags:?}");
        }
    }

    #[test]
    fn a_dry_run_of_the_recipe_and_of_its_reduction() {
        let recipe = concat!(env!("CARGO_MANIFEST_DIR"), "/../configs/mt-nlg-530b.toml");
        let alone = train(&["--config", recipe, "--dry-run"]);
        assert!(alone.dry_run);
        let plan = alone.plan().unwrap();
        assert_eq!((plan.production.ranks, plan.reduced.is_none()), (2240, true));
        let small = train(&["--config", recipe, "--reduce", "10M", "--steps", "5"]);
        let plan = small.plan().unwrap();
        assert_eq!(plan.production.parameters, 529_600_819_200);
        let reduced = plan.reduced.unwrap();
        assert_eq!(reduced.steps, 5);
        // Its data are the default corpus: the production sets are not here, and of another vocabulary.
        assert!(small.resolve().unwrap().data.sources.is_empty());
        assert!(Cli::try_parse_from(["mtnlg", "train", "--reduce", "small"]).is_err());
    }

    #[test]
    fn mistakes_name_the_flag() {
        let error = train(&["--tensor", "3"]).resolve().unwrap_err().to_string();
        assert!(error.contains("parallel.tensor from --tensor 3"), "{error}");
        let error = Cli::try_parse_from(["mtnlg", "train", "--backend", "gpu"]).unwrap_err();
        assert_eq!(error.exit_code(), 2);
        assert!(error.to_string().contains("give auto, cpu, wgpu, cuda or sim"), "{error}");
    }
}
