//! `mtnlg data`: the command line over the crate `data`; what each command does is there.

mod look;

use std::path::PathBuf;

use clap::{Args, Subcommand};
use data::clean::{Clean, CleanConfig};
use data::decontaminate::{Decontaminate, DecontaminateConfig, Task};
use data::dedup::{Dedup, DedupConfig};
use data::extract::{Extract, Method, language::Language};
use data::filter::{Filter, FilterConfig};
use data::input::Files;
use data::step::{self, Set, Step, Tally};
use data::tokenizer::TokenizerSpec;

use super::watch::Work;
use crate::presets::grouped;
use crate::{Error, Result};

/// `mtnlg data`.
#[derive(Clone, Debug, Args)]
pub struct DataArgs {
    /// What to do
    #[command(subcommand)]
    what: What,
    /// Threads [default: all cores]
    #[arg(long, value_name = "N", global = true)]
    threads: Option<usize>,
}

#[derive(Clone, Debug, Subcommand)]
enum What {
    /// The main text of pages, in one language
    Extract(ExtractArgs),
    /// Documents by length and by how much they read like good text
    Filter(FilterArgs),
    /// Of equal and nearly equal documents only the first
    Dedup(DedupArgs),
    /// Cut out what evaluation tasks ask
    Decontaminate(DecontaminateArgs),
    /// Mend characters; drop what is too short or foreign
    Clean(CleanArgs),
    /// Text to a .bin/.idx pair, as Megatron writes it
    Tokenize(TokenizeArgs),
    /// How many samples a blend takes of each set; Megatron's blending indices
    Blend(look::BlendArgs),
    /// Samples in training order, with their text and documents
    Inspect(look::InspectArgs),
    /// Read all of a .bin/.idx pair, or of a step's output, and say whether it is sound
    Verify(look::VerifyArgs),
    /// The whole chain, by a recipe
    Build(BuildArgs),
}

/// What every step is given.
#[derive(Clone, Debug, Args)]
struct StepArgs {
    /// Files, folders, or outputs of steps, in the order of their priority: .jsonl, .warc, .html and text, plain or as .gz or .zst
    #[arg(required = true, value_name = "INPUT")]
    inputs: Vec<String>,
    /// Folder of the output; interrupted, the same command goes on in it
    #[arg(long, value_name = "DIR")]
    output: PathBuf,
    /// Stop when more records than this cannot be read [default: never]
    #[arg(long, value_name = "N")]
    bad_limit: Option<u64>,
    /// Print the step's manifest as JSON
    #[arg(long)]
    json: bool,
}

#[derive(Clone, Debug, Args)]
struct ExtractArgs {
    #[command(flatten)]
    step: StepArgs,
    /// justext (running text), main (what the page marks) or page (the same, else all)
    #[arg(long, default_value = "justext")]
    method: Method,
    /// The language that is kept, or any
    #[arg(long, value_name = "CODE", default_value = "en")]
    language: String,
}

#[derive(Clone, Debug, Args)]
struct FilterArgs {
    #[command(flatten)]
    step: StepArgs,
    /// Good text to learn from; may be given many times
    #[arg(long, value_name = "PATH", required = true)]
    positive: Vec<PathBuf>,
    /// Text of the other kind; may be given many times
    #[arg(long, value_name = "PATH", required = true)]
    negative: Vec<PathBuf>,
    /// Shape of the draw: a document of score q stays where pareto(alpha) > 1 - q
    #[arg(long, default_value_t = FilterConfig::default().alpha)]
    alpha: f64,
    /// Seed of the draws
    #[arg(long, default_value_t = FilterConfig::default().seed)]
    seed: u64,
    /// Fewest characters of a document
    #[arg(long, default_value_t = FilterConfig::default().min_chars)]
    min_chars: usize,
    /// Most characters of a document [default: any number]
    #[arg(long)]
    max_chars: Option<usize>,
}

#[derive(Clone, Debug, Args)]
struct DedupArgs {
    #[command(flatten)]
    step: StepArgs,
    /// Only documents of the same bytes
    #[arg(long)]
    exact: bool,
    /// Words of a shingle
    #[arg(long, default_value_t = DedupConfig::default().ngram)]
    ngram: usize,
    /// Bands of the hashing
    #[arg(long, default_value_t = DedupConfig::default().bands)]
    bands: usize,
    /// Hashes of a band
    #[arg(long, default_value_t = DedupConfig::default().rows)]
    rows: usize,
    /// Least Jaccard similarity of near duplicates
    #[arg(long, default_value_t = DedupConfig::default().jaccard)]
    jaccard: f64,
    /// Folder for scratch files of about two thirds of the text [default: the output]
    #[arg(long, value_name = "DIR")]
    scratch: Option<PathBuf>,
}

#[derive(Clone, Debug, Args)]
struct DecontaminateArgs {
    #[command(flatten)]
    step: StepArgs,
    /// An evaluation task: JSON lines or text, with the fields that are documents; may be given many times
    #[arg(long, value_name = "NAME=PATH[:FIELD,FIELD]", required = true)]
    against: Vec<String>,
}

#[derive(Clone, Debug, Args)]
struct CleanArgs {
    #[command(flatten)]
    step: StepArgs,
    /// Fewest characters of a document
    #[arg(long, default_value_t = CleanConfig::default().min_chars)]
    min_chars: usize,
    /// The language of the corpus
    #[arg(long, value_name = "CODE", default_value = "en")]
    language: Language,
    /// Fewest characters of a document in another language
    #[arg(long, default_value_t = CleanConfig::default().foreign_under)]
    foreign_under: usize,
}

#[derive(Clone, Debug, Args)]
struct TokenizeArgs {
    /// Files, folders, or outputs of steps; may be given many times
    #[arg(long, value_name = "PATH", required = true)]
    input: Vec<String>,
    /// gpt2, or the path of a tokenizer.json
    #[arg(long, default_value = "gpt2")]
    tokenizer: TokenizerSpec,
    /// End every document with the end-of-document token
    #[arg(long)]
    append_eod: bool,
    /// Where to write: PREFIX.bin and PREFIX.idx
    #[arg(long, value_name = "PREFIX")]
    output: PathBuf,
    /// Stop when more records than this cannot be read [default: never]
    #[arg(long, value_name = "N")]
    bad_limit: Option<u64>,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

#[derive(Clone, Debug, Args)]
struct BuildArgs {
    /// The recipe; see configs/data
    recipe: PathBuf,
    /// Folder of everything that is made; interrupted, the same command goes on in it
    #[arg(long, value_name = "DIR")]
    output: PathBuf,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

impl DataArgs {
    /// Runs the command; gives what it prints.
    ///
    /// # Errors
    /// The user's mistakes; a disk that fails.
    pub fn run(&self) -> Result<String> {
        if let Some(threads) = self.threads {
            data::set_threads(threads)?;
        }
        match &self.what {
            What::Extract(args) => {
                let language = match args.language.as_str() {
                    "any" => None,
                    code => Some(code.parse()?),
                };
                args.step.run(&mut Extract { method: args.method, language })
            }
            What::Filter(args) => {
                let FilterArgs { alpha, seed, min_chars, max_chars, .. } = *args;
                let open = |paths: &[PathBuf]| Files::of_paths(paths.iter().cloned());
                let (positives, negatives) = (open(&args.positive)?, open(&args.negative)?);
                let config = FilterConfig { alpha, seed, min_chars, max_chars };
                args.step.run(&mut Filter::new(config, positives, negatives)?)
            }
            What::Dedup(args) => {
                let DedupArgs { exact, ngram, bands, rows, jaccard, .. } = *args;
                let config = DedupConfig { fuzzy: !exact, ngram, bands, rows, jaccard };
                args.step.run(&mut Dedup::new(config, args.scratch.clone())?)
            }
            What::Decontaminate(args) => {
                let tasks = args.against.iter().map(|task| parse_task(task)).collect::<Result<Vec<_>>>()?;
                args.step.run(&mut Decontaminate::new(DecontaminateConfig::default(), &tasks)?)
            }
            What::Clean(args) => {
                let CleanArgs { min_chars, language, foreign_under, .. } = *args;
                args.step.run(&mut Clean { config: CleanConfig { min_chars, language, foreign_under } })
            }
            What::Tokenize(args) => args.run(),
            What::Blend(args) => args.run(),
            What::Inspect(args) => args.run(),
            What::Verify(args) => args.run(),
            What::Build(args) => args.run(),
        }
    }
}

/// `NAME=PATH[:FIELD,FIELD]`; several of the same name are one task.
fn parse_task(argument: &str) -> Result<Task> {
    let Some((name, path)) =
        argument.split_once('=').filter(|(name, path)| !name.is_empty() && !path.is_empty())
    else {
        return Err(Error::user("an evaluation task without a name or a path")
            .at("--against")
            .value(argument)
            .remedy("write NAME=PATH, for example lambada=eval/lambada.jsonl"));
    };
    let (path, fields) = match path.rsplit_once(':') {
        // A path may hold a colon itself.
        Some((before, fields)) if !std::path::Path::new(path).exists() => {
            (before, Some(fields.split(',').map(str::to_owned).collect()))
        }
        _ => (path, None),
    };
    Ok(Task { name: name.to_owned(), files: Files::of_paths([PathBuf::from(path)])?, fields })
}

fn open(inputs: &[String]) -> Result<Vec<Set>> {
    let mut sets = Vec::new();
    for input in inputs {
        sets.extend(step::sets_of(input)?);
    }
    Ok(sets)
}

pub(super) fn json(value: &impl serde::Serialize) -> Result<String> {
    serde_json::to_string_pretty(value).map_err(|error| Error::other(format!("no JSON: {error}")))
}

impl StepArgs {
    fn run(&self, step: &mut dyn Step) -> Result<String> {
        let sets = open(&self.inputs)?;
        let mut work = Work::new();
        let manifest = step::run(step, &sets, &self.output, self.bad_limit, &mut |now| work.show(now))?;
        drop(work);
        if self.json {
            return json(&manifest);
        }
        let mut lines = manifest.notes.clone();
        for set in &manifest.sets {
            lines.push(format!("{}: {}", set.name, describe(&set.tally)));
        }
        let all = manifest.tally();
        for (what, counts) in [("dropped", &all.dropped), ("changed", &all.changed)] {
            for (reason, count) in counts {
                let (documents, bytes) = (grouped(count.documents), grouped(count.bytes));
                lines.push(format!("  {what} {reason}: {documents} ({bytes} bytes)"));
            }
        }
        if all.bad > 0 {
            let output = self.output.display();
            lines.push(format!("  unreadable: {}, with reasons in {output}/*/*.bad.jsonl", grouped(all.bad)));
        }
        Ok(lines.join("\n"))
    }
}

fn describe(tally: &Tally) -> String {
    format!(
        "{} of {} documents, {} of {} bytes of text",
        grouped(tally.documents_out),
        grouped(tally.documents_in),
        grouped(tally.bytes_out),
        grouped(tally.bytes_in)
    )
}

impl TokenizeArgs {
    fn run(&self) -> Result<String> {
        let tokenizer = self.tokenizer.load()?;
        let files = Files(open(&self.input)?.into_iter().flat_map(|set| set.files.0).collect());
        let mut work = Work::new();
        let mut show = |now| work.show(now);
        let made = data::tokenize::tokenize(
            &files,
            &tokenizer,
            self.append_eod,
            &self.output,
            self.bad_limit,
            &mut show,
        )?;
        drop(work);
        if self.json {
            return json(&made);
        }
        let mut lines = vec![format!(
            "{}: {} documents ({} without a token), {} tokens, {} bytes of text",
            self.output.display(),
            grouped(made.documents),
            grouped(made.empty),
            grouped(made.tokens),
            grouped(made.bytes)
        )];
        if made.bad > 0 {
            lines.push(format!("unreadable: {}", grouped(made.bad)));
            lines.extend(made.first_bad.iter().map(|bad| format!("  {bad}")));
        }
        Ok(lines.join("\n"))
    }
}

impl BuildArgs {
    fn run(&self) -> Result<String> {
        let mut recipe = data::build::Recipe::read(&self.recipe)?;
        let mut work = Work::new();
        let built = data::build::build(&mut recipe, &self.output, &mut |now| work.show(now))?;
        drop(work);
        if self.json {
            return json(&built.sets);
        }
        let mut lines = Vec::new();
        for manifest in &built.steps {
            lines.push(format!("{}: {}", manifest.step, describe(&manifest.tally())));
            lines.extend(manifest.notes.iter().map(|note| format!("  {note}")));
        }
        for set in &built.sets {
            let (documents, tokens) = (grouped(set.documents), grouped(set.tokens));
            lines.push(format!("{}: {documents} documents, {tokens} tokens", set.name));
        }
        let output = self.output.display();
        lines.push(format!("report: {output}/report.html"));
        lines.push(format!("train on it: mtnlg train --config {output}/train.toml"));
        Ok(lines.join("\n"))
    }
}
