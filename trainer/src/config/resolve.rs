//! From preset, file and flags to one [`RunConfig`].

use std::path::{Path, PathBuf};

use model::GptConfig;

use super::{Mode, RunConfig, defaults, file, lengths, unknown};
use crate::reduce::reduce;
use crate::schedule::Schedule;
use crate::{Error, Result};

/// What a configuration is made of, lowest layer first: preset, file, assignments.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Layers {
    preset: Option<String>,
    file: Option<PathBuf>,
    reduced: Option<(u64, usize)>,
    /// Name and text of a file that comes with the program.
    built_in: Option<(&'static str, &'static str)>,
    assignments: Vec<Assignment>,
}

/// One key set to a value.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Assignment {
    /// Dotted.
    pub key: String,
    pub value: toml::Value,
    /// What was typed, where `value` is a reading of it.
    pub text: Option<String>,
    /// Where it comes from, for a message.
    pub origin: String,
    /// Whether that is the file.
    pub in_file: bool,
}

impl Layers {
    /// Starts from this preset, whatever the file names. Without one it is the file's, and [`defaults::DEFAULT_PRESET`] if that has none.
    pub fn preset(mut self, name: &str) -> Self {
        self.preset = Some(name.into());
        self
    }

    /// Lays a TOML file over the preset.
    pub fn file(mut self, path: &Path) -> Self {
        self.file = Some(path.into());
        self
    }

    /// Makes what preset and file say small, before the assignments: about `target` parameters, for a machine of `cores` cores.
    pub fn reduce(mut self, target: u64, cores: usize) -> Self {
        self.reduced = Some((target, cores));
        self
    }

    /// Preset and file alone: what [`reduce`](Self::reduce) starts from.
    pub fn production(&self) -> Self {
        let mut layers = Self { reduced: None, ..self.clone() };
        layers.assignments.retain(|a| a.key == "preset");
        layers
    }

    /// Lays a TOML file that comes with the program over the preset, where no other file is given.
    pub fn built_in(mut self, name: &'static str, text: &'static str) -> Self {
        self.built_in = Some((name, text));
        self
    }

    /// Adds `section.key=value` of a `--set`. The value is TOML where it can be read as TOML, else text.
    ///
    /// # Errors
    /// No `=`.
    pub fn set(mut self, assignment: &str) -> Result<Self> {
        let Some((key, text)) = assignment.split_once('=') else {
            return Err(Error::user("--set without a value")
                .value(assignment)
                .remedy("write --set section.key=value, such as --set train.lr=1e-3"));
        };
        let (key, text) = (key.trim(), text.trim());
        let value = text.parse::<toml::Value>().unwrap_or_else(|_| text.into());
        self.assignments.push(Assignment {
            key: key.into(),
            value,
            text: Some(text.into()),
            origin: format!("--set {assignment}"),
            in_file: false,
        });
        Ok(self)
    }

    /// Adds a key's value, as a flag gives it; `origin` is the flag.
    pub fn assign(mut self, key: &str, value: impl Into<toml::Value>, origin: &str) -> Self {
        self.assignments.push(Assignment {
            key: key.into(),
            value: value.into(),
            text: None,
            origin: origin.into(),
            in_file: false,
        });
        self
    }
}

impl RunConfig {
    /// Puts the layers over each other, lets what was not set follow what was (see below), and validates.
    ///
    /// Without a value of its own, `model.ffn_hidden` stays 4h and `model.init_std` keeps the preset's rule when `model.hidden` is set;
    /// `model.vocab` is the padded size of a `data.tokenizer` that is set, and is padded up to a multiple of `parallel.tensor`; `train.seq_len` is
    /// `model.seq_len`; `parallel.virtual_stages` is 2 where `parallel.schedule` is set to interleaved;
    /// `numerics.chunks` is the largest of 8, 4, 2 that the model allows where `numerics.mode` is invariant. A length set in steps is as many tokens as those
    /// steps take; where both are set the later one counts, and in a file the tokens. The run's length stays the preset's in tokens with any batch;
    /// where it is set, warm-up and decay keep their share of it.
    ///
    /// # Errors
    /// An unknown preset or key, a value of the wrong type or out of range, a layout that does not fit: what, where, the value, the remedy.
    pub fn resolve(layers: &Layers) -> Result<Self> {
        let mut assigned = match (&layers.file, layers.built_in) {
            // What it says has gone into the reduced configuration.
            _ if layers.reduced.is_some() => vec![],
            (Some(path), _) => file::read(path)?,
            (None, Some((name, text))) => file::parse(text, name)?,
            (None, None) => vec![],
        };
        assigned.extend(layers.assignments.iter().cloned());
        for assignment in &assigned {
            unknown::key(&assignment.key, &assignment.origin)?;
        }
        let preset = match layers.reduced {
            Some((target, cores)) => reduce(&Self::resolve(&layers.production())?, target, cores)?,
            None => Self::named(layers.preset.as_deref(), &assigned)?,
        };
        assigned.retain(|a| a.key != "preset");

        let base = toml::Table::try_from(&preset).expect("a configuration is a table");
        let mut table = base.clone();
        for assignment in &assigned {
            // Alone over the preset first, so that a value of the wrong type is blamed on its own origin.
            let mut alone = base.clone();
            assignment.apply(&mut alone);
            alone.try_into::<Self>().map_err(|error| assignment.refuse(&error))?;
            assignment.apply(&mut table);
        }
        let mut config: Self = table.try_into().expect("each value alone was of its type");
        config.follow(&preset, |key| assigned.iter().any(|a| a.key == key));
        let checked = lengths::follow(&mut config, &preset, &assigned).and_then(|()| config.validate());
        checked.map_err(|error| blame(error, &assigned, &config.preset))?;
        Ok(config)
    }

    /// The preset that is asked for, that the assignments name, or the default.
    fn named(asked: Option<&str>, assigned: &[Assignment]) -> Result<Self> {
        let named = assigned.iter().rev().find(|a| a.key == "preset");
        match (asked, named) {
            (Some(name), _) => defaults::preset(name).map_err(|error| error.at("--preset")),
            (None, Some(Assignment { value: toml::Value::String(name), origin, .. })) => {
                defaults::preset(name).map_err(|error| error.at(origin))
            }
            (None, Some(Assignment { value, origin, .. })) => {
                Err(Error::user("preset is not a name").at(origin).value(value.to_string()))
            }
            (None, None) => defaults::preset(defaults::DEFAULT_PRESET),
        }
    }

    /// Lets what was not set follow what was.
    fn follow(&mut self, preset: &Self, set: impl Fn(&str) -> bool) {
        if set("model.hidden") {
            let rule = GptConfig::new(1, preset.model.hidden, 1, 1, 1);
            let own = GptConfig::new(1, self.model.hidden, 1, 1, 1);
            if !set("model.ffn_hidden") && preset.model.ffn_hidden == rule.ffn_hidden {
                self.model.ffn_hidden = own.ffn_hidden;
            }
            if !set("model.init_std") && preset.model.init_std == rule.init_std {
                self.model.init_std = own.init_std;
            }
        }
        if !set("model.vocab") {
            let tensor = self.parallel.tensor;
            let vocab = match self.data.tokenizer.tokens() {
                Some(tokens) if set("data.tokenizer") => tokens,
                _ => self.model.vocab,
            };
            if vocab != self.model.vocab || tensor != 0 && !vocab.is_multiple_of(tensor) {
                self.model.vocab = GptConfig::padded_vocab(vocab, tensor);
            }
        }
        if set("model.seq_len") && !set("train.seq_len") {
            self.train.seq_len = self.model.seq_len;
        }
        let interleaved = self.parallel.schedule == Schedule::Interleaved;
        if interleaved && self.parallel.virtual_stages < 2 && !set("parallel.virtual_stages") {
            self.parallel.virtual_stages = 2;
        }
        if self.numerics.mode == Mode::Invariant && !set("numerics.chunks") {
            let tokens = self.train.micro_batch.saturating_mul(self.train.seq_len);
            let cut = [self.model.heads, self.model.ffn_hidden, self.model.vocab, tokens];
            let fits = |chunks: &usize| cut.iter().all(|size| size.is_multiple_of(*chunks));
            self.numerics.chunks = [8, 4, 2].into_iter().find(fits).unwrap_or(1);
        }
    }
}

impl Assignment {
    fn apply(&self, table: &mut toml::Table) {
        let (table, key) = match self.key.split_once('.') {
            Some((section, key)) => match table.get_mut(section) {
                Some(toml::Value::Table(entries)) => (entries, key),
                _ => return,
            },
            None => (table, self.key.as_str()),
        };
        // `--set run.dir=2024` is the text, although it reads as a number.
        let value = match (&self.text, table.get(key)) {
            (Some(text), Some(toml::Value::String(_))) if !self.value.is_str() => text.as_str().into(),
            _ => self.value.clone(),
        };
        table.insert(key.into(), value);
    }

    fn refuse(&self, error: &toml::de::Error) -> Error {
        let value = self.text.clone().unwrap_or_else(|| self.value.to_string());
        Error::user(format!("{}: {}", self.key, error.message().trim())).at(&self.origin).value(value)
    }
}

/// Adds where the values come from that the message speaks of.
fn blame(error: Error, assigned: &[Assignment], preset: &str) -> Error {
    let message = error.to_string();
    let words = message.split(|c: char| !(c.is_ascii_alphanumeric() || c == '.' || c == '_'));
    let known = unknown::keys();
    let mut places: Vec<String> = Vec::new();
    for word in words.map(|word| word.trim_end_matches('.')) {
        if !known.iter().any(|key| key == word) {
            continue;
        }
        let place = match assigned.iter().rev().find(|a| a.key == word) {
            Some(assignment) => format!("{word} from {}", assignment.origin),
            None => format!("{word} from preset {preset}"),
        };
        if !places.contains(&place) {
            places.push(place);
        }
    }
    if places.is_empty() { error } else { error.at(places.join("; ")) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{DataSource, Tokenizer};

    fn resolve(sets: &[&str]) -> Result<RunConfig> {
        let layers = sets.iter().try_fold(Layers::default(), |layers, set| layers.set(set))?;
        RunConfig::resolve(&layers)
    }

    fn message(sets: &[&str]) -> String {
        resolve(sets).unwrap_err().to_string()
    }

    fn file(text: &str) -> tempfile::NamedTempFile {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), text).unwrap();
        file
    }

    #[test]
    fn flags_over_file_over_preset() {
        let file = file("preset = \"gpt2\"\n[train]\nlr = 1e-3\nsteps = 10\n");
        let layers = Layers::default().file(file.path());
        let layers = layers.set("train.steps=20").unwrap().assign("parallel.tensor", 2i64, "--tensor");
        let config = RunConfig::resolve(&layers).unwrap();
        assert_eq!((config.preset.as_str(), config.model.hidden), ("gpt2", 768));
        assert_eq!((config.train.lr, config.train.steps, config.parallel.tensor), (1e-3, 20, 2));
        let over = RunConfig::resolve(&layers.preset("laptop")).unwrap();
        assert_eq!((over.preset.as_str(), over.train.lr), ("laptop", 1e-3));
    }

    #[test]
    fn every_preset_comes_back_from_its_file() {
        for preset in model::presets::all() {
            let config = defaults::preset(preset.name).unwrap();
            let file = file(&config.to_toml());
            assert_eq!(RunConfig::load(file.path()).unwrap(), config);
        }
        let odd = resolve(&[
            "model.dropout=0.1",
            "train.lr=0.30000000000000004",
            "data.sources=[\"0.5=a b\", \"c\"]",
            "data.tokenizer=gpt2",
            "parallel.schedule=gpipe",
            "run.dir=2024",
        ])
        .unwrap();
        assert_eq!(RunConfig::load(file(&odd.to_toml()).path()).unwrap(), odd);
        assert_eq!(odd.parallel.schedule, Schedule::GPipe);
        assert_eq!(odd.data.sources[0], DataSource { weight: Some(0.5), path: "a b".into() });
        assert_eq!(odd.run.dir, PathBuf::from("2024"));
    }

    #[test]
    fn what_is_not_set_follows_what_is() {
        let config = resolve(&["model.hidden=256", "model.seq_len=512", "train.steps=850"]).unwrap();
        assert_eq!(config.model, GptConfig::new(4, 256, 4, 512, 4096));
        assert_eq!(
            (config.train.seq_len, config.train.warmup_steps, config.train.decay_steps),
            (512, 50, 850)
        );
        let own =
            resolve(&["model.hidden=256", "model.ffn_hidden=512", "train.steps=10", "train.warmup_steps=5"]);
        let own = own.unwrap();
        assert_eq!((own.model.ffn_hidden, own.train.warmup_steps), (512, 5));
        let gpt2 = resolve(&["data.tokenizer=gpt2"]).unwrap();
        assert_eq!((gpt2.data.tokenizer, gpt2.model.vocab), (Tokenizer::Gpt2, 50_432));
        assert_eq!(resolve(&["preset=gpt2", "parallel.tensor=4"]).unwrap().model.vocab, 50_304);
    }

    #[test]
    fn invariant_numerics_take_the_chunks_that_fit() {
        let chunks =
            |sets: &[&str]| resolve(&[&["numerics.mode=invariant"], sets].concat()).unwrap().numerics.chunks;
        assert_eq!(chunks(&[]), 4, "laptop has four heads");
        assert_eq!(chunks(&["model.heads=16"]), 8);
        assert_eq!(chunks(&["numerics.chunks=2"]), 2);
    }

    #[test]
    fn mistakes_say_what_where_value_and_remedy() {
        let file = file("[train]\nlr = 1e-3\n\nwarmup_step = 3\n");
        let unknown = RunConfig::load(file.path()).unwrap_err().to_string();
        assert!(unknown.contains("unknown key `warmup_step` in [train]"), "{unknown}");
        assert!(unknown.contains(&format!("{}:4", file.path().display())), "{unknown}");
        assert!(unknown.contains("did you mean `train.warmup_steps`?"), "{unknown}");

        let kind = message(&["train.lr=fast"]);
        assert!(kind.contains("train.lr: invalid type") && kind.contains("value: fast"), "{kind}");
        let heads = message(&["parallel.tensor=3"]);
        assert!(heads.contains("parallel.tensor = 3 does not divide model.heads = 4"), "{heads}");
        assert!(heads.contains("parallel.tensor from --set parallel.tensor=3"), "{heads}");
        assert!(heads.contains("model.heads from preset laptop"), "{heads}");
        let long = message(&["train.seq_len=512"]);
        assert!(
            long.contains("train.seq_len = 512 is longer than") && long.contains("at most 256"),
            "{long}"
        );
        let schedule = message(&["parallel.schedule=zigzag"]);
        assert!(schedule.contains("zigzag") && schedule.contains("1f1b"), "{schedule}");
        let split = message(&["data.split=1,2"]);
        assert!(split.contains("is not a split") && split.contains("949,50,1"), "{split}");
        let layers = message(&["parallel.pipeline=5"]);
        assert!(layers.contains("more ranks than layers"), "{layers}");
        assert!(message(&["train.lr"]).contains("--set without a value"));
        assert!(message(&["preset=gpt5"]).contains("no preset `gpt5`"));
        assert!(
            message(&["preset=5"]).contains("no preset `5`") || message(&["preset=5"]).contains("not a name")
        );
        assert!(message(&["train=5"]).contains("unknown key `train`"));
        assert!(message(&["train.steps=-1"]).contains("train.steps: invalid value"));
    }

    #[test]
    fn a_missing_file_is_named() {
        let error = RunConfig::load(Path::new("no/such.toml")).unwrap_err();
        assert_eq!(error.exit_code(), 2);
        assert!(error.to_string().contains("no/such.toml"), "{error}");
    }
}
