//! `mtnlg score`: log-likelihoods of continuations, a request a line.

use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};

use clap::Args;
use eval::scorer::Scored;
use serde::{Deserialize, Serialize};

use super::loaded::{Loaded, ModelArgs, Needs};
use super::scoring::{Encoded, score};
use crate::{Error, Result};

/// `mtnlg score`.
#[derive(Clone, Debug, Args)]
pub struct ScoreArgs {
    #[command(flatten)]
    model: ModelArgs,
    /// A JSONL file, `{"context": …, "continuation": …}` a line
    #[arg(long, value_name = "FILE")]
    requests: PathBuf,
    /// Where the answers go, in the requests' order [default: the terminal]
    #[arg(long, value_name = "FILE")]
    output: Option<PathBuf>,
    /// Tokens that the model reads at once
    #[arg(long, value_name = "N", default_value_t = 512)]
    batch_tokens: usize,
}

/// A request.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
struct Request {
    context: String,
    continuation: String,
}

/// Its answer.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
struct Line {
    /// In nats, summed over the continuation's tokens.
    log_likelihood: f64,
    tokens: usize,
    is_greedy: bool,
}

impl ScoreArgs {
    /// Does it.
    ///
    /// # Errors
    /// The user's mistakes, those of the ranks.
    pub fn run(&self) -> Result<()> {
        let mut loaded = Loaded::open(&self.model)?;
        let encoded = read(&self.requests, &loaded)?;
        loaded.reserve(needs(&encoded, self.batch_tokens));
        let started = std::time::Instant::now();
        let answers = super::run(&loaded, &self.model, |model| {
            let mut answers: Vec<Option<Scored>> = vec![None; encoded.len()];
            score(model, &encoded, |i, scored| {
                answers[i] = Some(*scored);
                Ok(())
            })?;
            Ok(answers)
        })?;
        let Some(answers) = answers else { return Ok(()) };
        let mut text = String::new();
        for scored in answers.iter().flatten() {
            let Scored { log_likelihood, tokens, is_greedy } = *scored;
            let line = serde_json::to_string(&Line { log_likelihood, tokens, is_greedy });
            text.push_str(&line.map_err(|error| Error::other(error.to_string()))?);
            text.push('\n');
        }
        match &self.output {
            // Whole or not at all.
            Some(path) => write_whole(path, &text)?,
            None => {
                let _ = std::io::stdout().write_all(text.as_bytes());
            }
        }
        let (seconds, tokens) =
            (started.elapsed().as_secs_f64(), encoded.iter().map(|e| e.input.len()).sum::<usize>());
        let cut = encoded.iter().filter(|request| request.lost > 0).count();
        if cut > 0 {
            let length = loaded.model().seq_len;
            eprintln!(
                "{cut} of {} requests are longer than the model's {length} positions and lost their beginning",
                encoded.len()
            );
        }
        eprintln!(
            "{} requests, {tokens} tokens, {seconds:.1} s, {:.0} tokens/s",
            encoded.len(),
            tokens as f64 / seconds
        );
        Ok(())
    }
}

/// Room for scoring these.
pub fn needs(requests: &[Encoded], batch_tokens: usize) -> Needs {
    let length = requests.iter().map(|request| request.input.len()).max().unwrap_or(1);
    let tokens = batch_tokens.max(1);
    // Enough to fill a step with short ones, some of them in groups.
    let slots = (4 * tokens / length).clamp(9, 64);
    Needs { slots, length, tokens, rows: tokens.min(256) }
}

fn read(path: &Path, loaded: &Loaded) -> Result<Vec<Encoded>> {
    let file = std::fs::File::open(path).map_err(|e| Error::io("read", path, &e))?;
    let mut encoded = Vec::new();
    for (i, line) in BufReader::new(file).lines().enumerate() {
        let place = || format!("{}:{}", path.display(), i + 1);
        let line = line.map_err(|e| Error::io("read", path, &e))?;
        if line.trim().is_empty() {
            continue;
        }
        let request: Request = serde_json::from_str(&line).map_err(|error| {
            Error::user(format!("it is no request: {error}"))
                .at(place())
                .remedy(r#"write {"context": "...", "continuation": "..."} a line"#)
        })?;
        let Request { context, continuation } = &request;
        let length = loaded.model().seq_len;
        let request = Encoded::new(loaded.tokenizer(), context, continuation, length);
        encoded.push(request.map_err(|error| error.at(place()))?);
    }
    match encoded.is_empty() {
        true => {
            Err(Error::user("there is no request").at(path.display().to_string()).remedy("write one a line"))
        }
        false => Ok(encoded),
    }
}

fn write_whole(path: &Path, text: &str) -> Result<()> {
    let folder = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let failed = |e: std::io::Error| Error::io("write", path, &e);
    let mut file = tempfile::NamedTempFile::new_in(folder).map_err(failed)?;
    file.write_all(text.as_bytes()).map_err(failed)?;
    file.persist(path).map_err(|e| failed(e.error))?;
    Ok(())
}
