//! `mtnlg generate`: continues prompts in the terminal.

use std::io::{BufRead, IsTerminal, Write};

use clap::Args;
use serde::Serialize;

use super::loaded::{Loaded, ModelArgs, Needs};
use super::{Finish, Model, Prompt, Sampling, writing};
use crate::{Error, Result};

/// `mtnlg generate`.
#[derive(Clone, Debug, Args)]
pub struct GenerateArgs {
    #[command(flatten)]
    model: ModelArgs,
    /// Text to continue; may be given many times [default: ask for one after the other]
    #[arg(long, value_name = "TEXT")]
    prompt: Vec<String>,
    /// Tokens to add at the most
    #[arg(long, value_name = "N", default_value_t = 128)]
    max_tokens: usize,
    #[command(flatten)]
    sampling: SamplingArgs,
    /// Text that ends the continuation; may be given many times
    #[arg(long, value_name = "TEXT")]
    stop: Vec<String>,
    /// Print JSON, one line a prompt
    #[arg(long)]
    json: bool,
}

/// How tokens are drawn.
#[derive(Clone, Debug, Args)]
pub struct SamplingArgs {
    /// Divides the logits; 0 always takes the most likely token
    #[arg(long, value_name = "T", default_value_t = 0.8)]
    temperature: f64,
    /// Draw from the so many most likely tokens; 0 for all
    #[arg(long, value_name = "N", default_value_t = 40)]
    top_k: usize,
    /// Draw from the fewest tokens that have this much of the probability
    #[arg(long, value_name = "P", default_value_t = 1.0)]
    top_p: f64,
    /// Makes tokens that are there already less likely; 1 leaves them
    #[arg(long, value_name = "FACTOR", default_value_t = 1.0)]
    repetition_penalty: f64,
    /// Seed of the draws
    #[arg(long, value_name = "N", default_value_t = 1234)]
    seed: u64,
}

impl SamplingArgs {
    /// The checked values.
    ///
    /// # Errors
    /// One is out of its range.
    pub fn resolve(&self) -> Result<Sampling> {
        let Self { temperature, top_k, top_p, repetition_penalty, seed } = *self;
        let ranges = [
            ("--temperature", temperature, temperature >= 0.0, "give 0 or more"),
            ("--top-p", top_p, top_p > 0.0 && top_p <= 1.0, "give more than 0 and at most 1"),
            ("--repetition-penalty", repetition_penalty, repetition_penalty > 0.0, "give more than 0"),
        ];
        for (name, value, fits, remedy) in ranges {
            if !(fits && value.is_finite()) {
                return Err(Error::user("a number out of its range")
                    .value(format!("{name} {value}"))
                    .remedy(remedy));
            }
        }
        Ok(Sampling { temperature, top_k, top_p, repetition_penalty, seed })
    }
}

/// A continuation, as `--json` prints it.
#[derive(Debug, Serialize)]
struct Continuation {
    prompt: String,
    text: String,
    tokens: usize,
    finish_reason: &'static str,
}

impl GenerateArgs {
    /// Does it.
    ///
    /// # Errors
    /// The user's mistakes, those of the ranks.
    pub fn run(&self) -> Result<()> {
        let sampling = self.sampling.resolve()?;
        let mut loaded = Loaded::open(&self.model)?;
        let longest = loaded.model().seq_len;
        let slots = self.prompt.len().clamp(1, 16);
        loaded.reserve(Needs { slots, length: longest, tokens: longest.min(256), rows: slots });
        // Before any rank starts.
        let prompts = self.prompt.iter().enumerate();
        let prompts: Vec<Prompt> =
            prompts.map(|(i, text)| self.encode(&loaded, text, i as u64, sampling)).collect::<Result<_>>()?;
        let loaded = &loaded;
        super::run(loaded, &self.model, |model| match prompts.is_empty() {
            true => self.converse(loaded, model, sampling),
            false => self.continue_all(loaded, model, prompts),
        })?;
        Ok(())
    }

    fn encode(&self, loaded: &Loaded, text: &str, index: u64, sampling: Sampling) -> Result<Prompt> {
        let tokenizer = loaded.tokenizer();
        let mut tokens = tokenizer.encode(text)?;
        if tokens.is_empty() {
            tokens.push(tokenizer.eod());
        }
        let most = loaded.model().seq_len;
        if tokens.len() > most {
            return Err(Error::user(format!("a prompt of {} tokens for a model of {most}", tokens.len()))
                .remedy("shorten the prompt"));
        }
        let end = Some(tokenizer.eod());
        Ok(Prompt { tokens, most: self.max_tokens, sampling, index, end, likelihoods: None, echo: false })
    }

    /// All prompts at once; a single one is shown as it is written.
    fn continue_all(&self, loaded: &Loaded, model: &mut dyn Model, prompts: Vec<Prompt>) -> Result<()> {
        let live = self.prompt.len() == 1 && !self.json;
        if live {
            show(&self.prompt[0]);
        }
        let written = writing::write(model, loaded.tokenizer(), prompts, &self.stop, |_, piece| {
            if live {
                show(piece);
            }
        })?;
        if live {
            show("\n");
            return Ok(());
        }
        for (prompt, written) in self.prompt.iter().zip(written) {
            match self.json {
                true => {
                    let continuation = Continuation {
                        prompt: prompt.clone(),
                        text: written.text,
                        tokens: written.tokens,
                        finish_reason: if written.finish == Finish::End { "stop" } else { "length" },
                    };
                    let line = serde_json::to_string(&continuation);
                    show(&format!("{}\n", line.map_err(|error| Error::other(error.to_string()))?));
                }
                false => show(&format!("{prompt}{}\n\n", written.text)),
            }
        }
        Ok(())
    }

    /// A prompt a line, from the terminal or a pipe, until its end.
    fn converse(&self, loaded: &Loaded, model: &mut dyn Model, sampling: Sampling) -> Result<()> {
        let asks = std::io::stdin().is_terminal();
        if asks {
            eprintln!("{}: a line is a prompt; an empty one, or Ctrl-D, ends.", loaded.name());
        }
        let (sender, lines) = std::sync::mpsc::channel();
        std::thread::spawn(move || {
            for line in std::io::stdin().lock().lines() {
                if sender.send(line).is_err() {
                    break;
                }
            }
        });
        for index in 0.. {
            if asks {
                show("> ");
            }
            let line = loop {
                match lines.recv_timeout(std::time::Duration::from_secs(30)) {
                    Ok(line) => break line.ok(),
                    Err(std::sync::mpsc::RecvTimeoutError::Timeout) => model.idle()?,
                    Err(std::sync::mpsc::RecvTimeoutError::Disconnected) => break None,
                }
            };
            let Some(line) = line.filter(|line| !line.is_empty()) else { break };
            match self.encode(loaded, &line, index, sampling) {
                Ok(prompt) => {
                    let one = Self { prompt: vec![line], json: self.json, ..self.clone() };
                    one.continue_all(loaded, model, vec![prompt])?;
                }
                // The next one may be better.
                Err(error) => eprintln!("{error}"),
            }
        }
        Ok(())
    }
}

/// To stdout at once; a reader that has gone away is no error.
fn show(text: &str) {
    let mut out = std::io::stdout().lock();
    let _ = out.write_all(text.as_bytes()).and_then(|()| out.flush());
}
