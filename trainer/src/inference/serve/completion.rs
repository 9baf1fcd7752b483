//! OpenAI's completion request and answer: what is asked for, checked, and how it is told.

use data::tokenizer::Tokenizer;
use serde::{Deserialize, Serialize};

use crate::inference::batcher::{Likelihood, Prompt};
use crate::inference::sampling::Sampling;
use crate::inference::step::Capacity;

/// The most alternatives that are told beside a token.
const MOST_LOGPROBS: usize = 20;
/// The most stop strings.
const MOST_STOPS: usize = 16;

/// What is wrong with a request: status, parameter, words.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refused {
    /// HTTP's status code.
    pub status: u16,
    /// The parameter, where it is one.
    pub param: Option<&'static str>,
    /// What, and what would do.
    pub message: String,
}

fn refused(param: &'static str, message: impl Into<String>) -> Refused {
    Refused { status: 400, param: Some(param), message: message.into() }
}

/// One or several texts, or their tokens.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(untagged)]
enum Prompts {
    Text(String),
    Texts(Vec<String>),
    Tokens(Vec<u32>),
    Batch(Vec<Vec<u32>>),
}

/// One or several strings.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(untagged)]
enum Strings {
    One(String),
    Many(Vec<String>),
}

/// The body of `POST /v1/completions`. Unknown fields are refused: what is not done is not silently left out.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Request {
    model: Option<String>,
    prompt: Option<Prompts>,
    max_tokens: Option<usize>,
    temperature: Option<f64>,
    top_p: Option<f64>,
    n: Option<usize>,
    /// Whether the answer comes piece by piece.
    #[serde(default)]
    pub stream: Option<bool>,
    stream_options: Option<StreamOptions>,
    logprobs: Option<usize>,
    echo: Option<bool>,
    stop: Option<Strings>,
    seed: Option<i64>,
    best_of: Option<usize>,
    presence_penalty: Option<f64>,
    frequency_penalty: Option<f64>,
    logit_bias: Option<serde_json::Map<String, serde_json::Value>>,
    suffix: Option<String>,
    #[serde(rename = "user")]
    _user: Option<String>,
    /// Not OpenAI's, as other servers have it.
    top_k: Option<usize>,
    repetition_penalty: Option<f64>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
struct StreamOptions {
    #[serde(default)]
    include_usage: bool,
}

/// A request that can be done.
#[derive(Clone, Debug, PartialEq)]
pub struct Task {
    /// The prompts, each as often as it was asked for.
    pub prompts: Vec<Prompt>,
    /// Continuations of each prompt.
    pub n: usize,
    /// Texts that end one.
    pub stops: Vec<String>,
    /// Whether the answer comes piece by piece, and ends with what it cost.
    pub stream: bool,
    /// See [`stream`](Self::stream).
    pub include_usage: bool,
}

/// What a request is checked against.
pub struct Rules<'a> {
    /// The model's name.
    pub name: &'a str,
    /// Its tokenizer.
    pub tokenizer: &'a Tokenizer,
    /// What it can take.
    pub capacity: Capacity,
    /// Sequences of a request at the most.
    pub most: usize,
    /// The seed where none is given, and the number of the request.
    pub seed: (u64, u64),
}

impl Request {
    /// Checks it.
    ///
    /// # Errors
    /// What is wrong, in the words for the client.
    pub fn resolve(self, rules: &Rules<'_>) -> Result<Task, Refused> {
        if let Some(model) = self.model.filter(|model| model != rules.name) {
            let message = format!("there is no model {model:?} here; it is {:?}", rules.name);
            return Err(Refused { status: 404, param: Some("model"), message });
        }
        let n = self.n.unwrap_or(1);
        if n == 0 {
            return Err(refused("n", "n must be at least 1"));
        }
        if self.best_of.is_some_and(|best| best != n) {
            return Err(refused("best_of", "best_of other than n is not done here"));
        }
        for (param, value) in
            [("presence_penalty", self.presence_penalty), ("frequency_penalty", self.frequency_penalty)]
        {
            if value.is_some_and(|value| value != 0.0) {
                return Err(refused(param, format!("{param} is not done here; repetition_penalty is")));
            }
        }
        if self.logit_bias.is_some_and(|bias| !bias.is_empty()) {
            return Err(refused("logit_bias", "logit_bias is not done here"));
        }
        if self.suffix.is_some_and(|suffix| !suffix.is_empty()) {
            return Err(refused("suffix", "suffix is not done here"));
        }
        let sampling = Sampling {
            temperature: within("temperature", self.temperature.unwrap_or(1.0), 0.0, 100.0)?,
            top_p: within("top_p", self.top_p.unwrap_or(1.0), f64::MIN_POSITIVE, 1.0)?,
            top_k: self.top_k.unwrap_or(0),
            repetition_penalty: within(
                "repetition_penalty",
                self.repetition_penalty.unwrap_or(1.0),
                f64::MIN_POSITIVE,
                100.0,
            )?,
            seed: self.seed.map_or(rules.seed.0, i64::cast_unsigned),
        };
        let likelihoods = match self.logprobs {
            Some(count) if count > MOST_LOGPROBS => {
                return Err(refused("logprobs", format!("logprobs must be at most {MOST_LOGPROBS}")));
            }
            told => told,
        };
        let stops = match self.stop {
            None => Vec::new(),
            Some(Strings::One(stop)) => vec![stop],
            Some(Strings::Many(stops)) => stops,
        };
        if stops.len() > MOST_STOPS {
            return Err(refused("stop", format!("at most {MOST_STOPS} stop strings")));
        }
        let all = tokens(self.prompt, rules)?;
        if all.len().saturating_mul(n) > rules.most {
            let message =
                format!("{} prompts of n = {n}; at most {} sequences a request", all.len(), rules.most);
            return Err(refused("prompt", message));
        }
        let most = self.max_tokens.unwrap_or(16);
        let mut prompts = Vec::with_capacity(all.len() * n);
        for tokens in all {
            let room = rules.capacity.length;
            if tokens.is_empty() || tokens.len() > room || tokens.len().saturating_add(most) > room + 1 {
                let message = format!(
                    "a prompt of {} tokens and max_tokens = {most}; together at least 1 and at most {} here",
                    tokens.len(),
                    room + 1
                );
                return Err(refused("prompt", message));
            }
            for choice in 0..n {
                // With a seed of its own a request's draws are its own business, whatever came before it.
                let request = if self.seed.is_some() { 0 } else { rules.seed.1 };
                prompts.push(Prompt {
                    tokens: tokens.clone(),
                    most,
                    sampling,
                    index: (request << 20) + choice as u64,
                    end: Some(rules.tokenizer.eod()),
                    likelihoods,
                    echo: self.echo.unwrap_or(false),
                });
            }
        }
        Ok(Task {
            prompts,
            n,
            stops,
            stream: self.stream.unwrap_or(false),
            include_usage: self.stream_options.unwrap_or_default().include_usage,
        })
    }
}

fn within(param: &'static str, value: f64, low: f64, high: f64) -> Result<f64, Refused> {
    match value >= low && value <= high {
        true => Ok(value),
        false => Err(refused(param, format!("{param} = {value} is out of its range"))),
    }
}

fn tokens(prompt: Option<Prompts>, rules: &Rules<'_>) -> Result<Vec<Vec<u32>>, Refused> {
    let encode = |text: &String| -> Result<Vec<u32>, Refused> {
        let tokens = rules.tokenizer.encode(text).map_err(|error| refused("prompt", error.to_string()))?;
        Ok(if tokens.is_empty() { vec![rules.tokenizer.eod()] } else { tokens })
    };
    let all = match prompt {
        None => vec![vec![rules.tokenizer.eod()]],
        Some(Prompts::Text(text)) => vec![encode(&text)?],
        Some(Prompts::Texts(texts)) => texts.iter().map(encode).collect::<Result<_, _>>()?,
        Some(Prompts::Tokens(tokens)) => vec![tokens],
        Some(Prompts::Batch(batch)) => batch,
    };
    if all.is_empty() {
        return Err(refused("prompt", "there is no prompt"));
    }
    let known = rules.capacity.vocabulary as u32;
    match all.iter().flatten().find(|&&token| token >= known) {
        Some(token) => Err(refused("prompt", format!("token {token} of a vocabulary of {known}"))),
        None => Ok(all),
    }
}

/// What a choice says of its tokens.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Logprobs {
    tokens: Vec<String>,
    token_logprobs: Vec<Option<f64>>,
    top_logprobs: Vec<Option<serde_json::Map<String, serde_json::Value>>>,
    text_offset: Vec<usize>,
}

impl Logprobs {
    /// Adds a token; `None` for the first one of an echoed prompt, which has no likelihood. `at` is where its text begins, in characters.
    pub fn push(&mut self, tokenizer: &Tokenizer, token: u32, likelihood: Option<&Likelihood>, at: usize) {
        self.tokens.push(word(tokenizer, token));
        self.token_logprobs.push(likelihood.map(|likelihood| likelihood.log_probability));
        self.top_logprobs.push(likelihood.map(|likelihood| {
            likelihood.top.iter().map(|&(token, value)| (word(tokenizer, token), value.into())).collect()
        }));
        self.text_offset.push(at);
    }
}

/// A token as text: what is no whole character by its bytes, so that no two tokens are one word.
fn word(tokenizer: &Tokenizer, token: u32) -> String {
    let text = tokenizer.decode(&[token]);
    match text.contains('\u{fffd}') || text.is_empty() {
        true => format!("token_id:{token}"),
        false => text,
    }
}

/// A continuation, or a piece of one.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Choice {
    /// Its text.
    pub text: String,
    /// Its place among all.
    pub index: usize,
    /// Of its tokens.
    pub logprobs: Option<Logprobs>,
    /// `stop` or `length`, once it has ended.
    pub finish_reason: Option<&'static str>,
}

/// What was read and written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Usage {
    /// Tokens of the prompts.
    pub prompt_tokens: usize,
    /// New tokens.
    pub completion_tokens: usize,
    /// Both.
    pub total_tokens: usize,
}

/// The answer, or a piece of it.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Completion {
    /// The request's.
    pub id: String,
    /// `text_completion`.
    pub object: &'static str,
    /// Seconds since 1970.
    pub created: u64,
    /// The model's name.
    pub model: String,
    /// The continuations.
    pub choices: Vec<Choice>,
    /// What it cost, at the end.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub usage: Option<Usage>,
}
