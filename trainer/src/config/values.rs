//! The values of a configuration that are written as text: `bpe:4096`, `949,50,1`, `0.7=books/`.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// Why a text is not such a value; says what would be.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{text}` is not {what}; give {remedy}")]
pub struct ValueError {
    text: String,
    what: &'static str,
    remedy: &'static str,
}

/// Which backend runs the model.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum BackendChoice {
    /// A hardware GPU through wgpu where there is one, else the CPU.
    Auto,
    /// The CPU backend.
    Cpu,
    /// The wgpu backend, on a software adapter too.
    Wgpu,
    /// No machine at all: a simulated one, `run.cluster`.
    Sim,
    /// The CUDA backend, in a build that has it.
    Cuda,
}

impl FromStr for BackendChoice {
    type Err = ValueError;
    fn from_str(text: &str) -> Result<Self, ValueError> {
        match text {
            "auto" => Ok(Self::Auto),
            "cpu" => Ok(Self::Cpu),
            "wgpu" => Ok(Self::Wgpu),
            "sim" => Ok(Self::Sim),
            "cuda" => Ok(Self::Cuda),
            _ => Err(ValueError {
                text: text.into(),
                what: "a backend",
                remedy: "auto, cpu, wgpu, cuda or sim",
            }),
        }
    }
}

impl fmt::Display for BackendChoice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Auto => "auto",
            Self::Cpu => "cpu",
            Self::Wgpu => "wgpu",
            Self::Sim => "sim",
            Self::Cuda => "cuda",
        })
    }
}

/// How the sums are taken that a layout can split.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Mode {
    /// Whatever is quickest.
    Fast,
    /// As fixed trees: the same bits in every layout.
    Invariant,
}

/// How text becomes tokens.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum Tokenizer {
    /// `bpe:N`: a byte-level BPE of N tokens, trained on the run's own text.
    Bpe(usize),
    /// `gpt2`: GPT-2's BPE of 50,257 tokens.
    Gpt2,
    /// Any other text: the path of a `tokenizer.json`.
    File(PathBuf),
}

/// Byte-level: every byte is a token, and one marks the end of a document.
const SMALLEST_BPE: usize = 257;

impl Tokenizer {
    /// Tokens, where they are known without reading a file.
    pub fn tokens(&self) -> Option<usize> {
        match self {
            Self::Bpe(tokens) => Some(*tokens),
            Self::Gpt2 => Some(50_257),
            Self::File(_) => None,
        }
    }
}

impl FromStr for Tokenizer {
    type Err = ValueError;
    fn from_str(text: &str) -> Result<Self, ValueError> {
        let remedy = "bpe:N with N at least 257, gpt2, or the path of a tokenizer.json";
        let error = || ValueError { text: text.into(), what: "a tokenizer", remedy };
        match text.split_once(':') {
            _ if text == "gpt2" => Ok(Self::Gpt2),
            Some(("bpe", tokens)) => match tokens.parse() {
                Ok(tokens) if tokens >= SMALLEST_BPE => Ok(Self::Bpe(tokens)),
                _ => Err(error()),
            },
            _ if text.is_empty() || text == "bpe" => Err(error()),
            _ => Ok(Self::File(text.into())),
        }
    }
}

impl fmt::Display for Tokenizer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Bpe(tokens) => write!(f, "bpe:{tokens}"),
            Self::Gpt2 => f.write_str("gpt2"),
            Self::File(path) => write!(f, "{}", path.display()),
        }
    }
}

/// Shares of the documents for training, validation and test, in any unit: Megatron's `949,50,1`.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Split {
    /// Training.
    pub train: f64,
    /// Validation.
    pub valid: f64,
    /// Test.
    pub test: f64,
}

impl FromStr for Split {
    type Err = ValueError;
    fn from_str(text: &str) -> Result<Self, ValueError> {
        let remedy = "three shares such as 949,50,1, none negative, training's and validation's above 0";
        let error = || ValueError { text: text.into(), what: "a split", remedy };
        let shares: Vec<f64> = text
            .split(',')
            .map(|share| share.trim().parse::<f64>().ok().filter(|s| s.is_finite() && *s >= 0.0))
            .collect::<Option<_>>()
            .ok_or_else(error)?;
        match shares[..] {
            [train, valid, test] if train > 0.0 && valid > 0.0 => Ok(Self { train, valid, test }),
            _ => Err(error()),
        }
    }
}

impl fmt::Display for Split {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{},{},{}", self.train, self.valid, self.test)
    }
}

/// One set of the training data, `[weight=]path`: a text file, a folder, a `.jsonl`, or the prefix of a `.bin/.idx` pair.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct DataSource {
    /// Its share of the samples, relative to the other sets' weights; by its size where absent.
    pub weight: Option<f64>,
    /// Where it lies.
    pub path: PathBuf,
}

impl FromStr for DataSource {
    type Err = ValueError;
    fn from_str(text: &str) -> Result<Self, ValueError> {
        let remedy = "[WEIGHT=]PATH with a positive weight";
        let error = || ValueError { text: text.into(), what: "a data source", remedy };
        // A path may have an `=` of its own: only a number before the first one is a weight.
        let weighted =
            text.split_once('=').and_then(|(weight, path)| Some((weight.parse::<f64>().ok()?, path)));
        let (weight, path) = match weighted {
            Some((weight, _)) if !(weight > 0.0 && weight.is_finite()) => return Err(error()),
            Some((weight, path)) => (Some(weight), path),
            None => (None, text),
        };
        match path.is_empty() {
            true => Err(error()),
            false => Ok(Self { weight, path: path.into() }),
        }
    }
}

impl fmt::Display for DataSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(weight) = self.weight {
            write!(f, "{weight}=")?;
        }
        write!(f, "{}", self.path.display())
    }
}

/// serde through `FromStr` and `Display`.
macro_rules! text_serde {
    ($($type:ty),*) => {$(
        impl TryFrom<String> for $type {
            type Error = ValueError;
            fn try_from(text: String) -> Result<Self, ValueError> {
                text.parse()
            }
        }
        impl From<$type> for String {
            fn from(value: $type) -> String {
                value.to_string()
            }
        }
    )*};
}
text_serde!(Tokenizer, Split, DataSource);

#[cfg(test)]
mod tests {
    use super::*;

    fn round_trip<T: FromStr<Err = ValueError> + fmt::Display + PartialEq + fmt::Debug>(
        text: &str,
        value: T,
    ) {
        assert_eq!(text.parse::<T>().unwrap(), value);
        assert_eq!(value.to_string(), text);
    }

    #[test]
    fn texts_and_values() {
        round_trip("bpe:4096", Tokenizer::Bpe(4096));
        round_trip("gpt2", Tokenizer::Gpt2);
        round_trip("my/tokenizer.json", Tokenizer::File("my/tokenizer.json".into()));
        round_trip("949,50,1", Split { train: 949.0, valid: 50.0, test: 1.0 });
        round_trip("0.9,0.1,0", Split { train: 0.9, valid: 0.1, test: 0.0 });
        round_trip("0.25=books", DataSource { weight: Some(0.25), path: "books".into() });
        round_trip("a=b.txt", DataSource { weight: None, path: "a=b.txt".into() });
        round_trip("auto", BackendChoice::Auto);
    }

    #[test]
    fn mistakes() {
        for text in ["bpe", "bpe:", "bpe:256", "bpe:x", ""] {
            assert!(text.parse::<Tokenizer>().is_err(), "{text}");
        }
        for text in ["1,2", "1,2,3,4", "0,1,1", "1,0,1", "1,-1,1", "1,inf,1", "a,b,c"] {
            assert!(text.parse::<Split>().is_err(), "{text}");
        }
        for text in ["", "1=", "0=a", "-1=a", "nan=a"] {
            assert!(text.parse::<DataSource>().is_err(), "{text}");
        }
        let error = "gpu".parse::<BackendChoice>().unwrap_err();
        assert_eq!(error.to_string(), "`gpu` is not a backend; give auto, cpu, wgpu, cuda or sim");
    }
}
