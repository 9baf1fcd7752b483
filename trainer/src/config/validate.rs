//! Whether the values of a configuration fit each other. How the layout is executed is checked in [`super::execution`].

use super::{Evaluation, RunConfig, Train};
use crate::batch::BatchRamp;
use crate::layout::Layout;
use crate::{Error, Result};

/// More parts of a ramp than a run has a use for: surely a mistake.
const MOST_PARTS: usize = 1 << 16;

impl RunConfig {
    /// Checks every value against its range and against the others.
    ///
    /// # Errors
    /// The first that does not fit, with its key, its value and what would do.
    pub fn validate(&self) -> Result<()> {
        let layout = Layout::new(self.parallel.tensor, self.parallel.pipeline, self.parallel.data)?;
        self.train.validate()?;
        layout.validate(&self.model, self.train.micro_batch, self.train.global_batch)?;
        self.validate_ramp()?;
        self.validate_execution(&layout)?;
        self.evaluation.validate()?;
        let (seq_len, positions) = (self.train.seq_len, self.model.seq_len);
        if seq_len > positions {
            return Err(Error::user(format!(
                "train.seq_len = {seq_len} is longer than the model's positions, model.seq_len = {positions}"
            ))
            .remedy(format!("set train.seq_len to at most {positions}, or raise model.seq_len")));
        }
        if let Some(tokens) = self.data.tokenizer.tokens()
            && tokens > self.model.vocab
        {
            return Err(Error::user(format!(
                "data.tokenizer = {} has {tokens} tokens, more than the embedding's rows, model.vocab = {}",
                self.data.tokenizer, self.model.vocab
            ))
            .remedy("leave model.vocab out, and it follows the tokenizer"));
        }
        Ok(())
    }

    /// Every batch of the ramp divides over the replicas, and the last part ends at the full batch.
    fn validate_ramp(&self) -> Result<()> {
        let BatchRamp { start, increment, samples } = self.train.batch_ramp;
        if samples == 0 {
            return Ok(());
        }
        let (micro_batch, data, full) = (self.train.micro_batch, self.parallel.data, self.train.global_batch);
        let unit = micro_batch * data;
        for (name, value) in [("start", start), ("increment", increment)] {
            if value == 0 || !value.is_multiple_of(unit) {
                return Err(Error::user(format!(
                    "train.batch_ramp: {name} = {value} is not a multiple of train.micro_batch x parallel.data = {micro_batch} x {data} = {unit}"
                ))
                .remedy(format!("set {name} to {}", value.next_multiple_of(unit).max(unit))));
            }
        }
        if start > full || !(full - start).is_multiple_of(increment) {
            return Err(Error::user(format!(
                "train.batch_ramp: no whole number of increments of {increment} leads from start = {start} to train.global_batch = {full}"
            ))
            .remedy("choose an increment that divides global_batch - start"));
        }
        if (full - start) / increment > MOST_PARTS {
            return Err(Error::user(format!(
                "train.batch_ramp: {} increments of {increment} from start = {start} to train.global_batch = {full} are too many",
                (full - start) / increment
            ))
            .remedy(format!("at most {MOST_PARTS}: choose a larger increment")));
        }
        match i64::try_from(samples) {
            Ok(_) => Ok(()),
            Err(_) => Err(Error::user(format!("train.batch_ramp: samples = {samples} is out of range"))
                .remedy("it must be below 2^63")),
        }
    }
}

impl Evaluation {
    /// Whether the tasks are there, and all that is needed to ask them is named. The files are found when the run begins.
    fn validate(&self) -> Result<()> {
        if self.tasks.is_empty() {
            return match self.every {
                0 => Ok(()),
                every => {
                    Err(Error::user(format!("evaluation.every = {every}, but evaluation.tasks is empty"))
                        .remedy(
                            "name tasks, such as evaluation.tasks = [\"piqa\"], or set evaluation.every to 0",
                        ))
                }
            };
        }
        eval::tasks::by_names(&self.tasks.join(",")).map_err(|error| {
            Error::user(format!("evaluation.tasks = {:?}: {error}", self.tasks))
                .remedy("`mtnlg eval --formats` lists the tasks")
        })?;
        for (key, empty, remedy) in [
            ("shots", self.shots.is_empty(), "give numbers of examples, such as [0]"),
            ("data", self.data.is_empty(), "name the folder that has the tasks' files"),
        ] {
            if empty {
                return Err(Error::user(format!(
                    "evaluation.tasks = {:?}, but evaluation.{key} is empty",
                    self.tasks
                ))
                .remedy(remedy));
            }
        }
        Ok(())
    }
}

impl Train {
    fn validate(&self) -> Result<()> {
        let refuse = |key: &str, value: String, range: &str| {
            Err(Error::user(format!("train.{key} = {value} is out of range"))
                .remedy(format!("it must be {range}")))
        };
        for (key, steps, tokens) in [
            ("steps", self.steps, self.tokens),
            ("decay_steps", self.decay_steps, self.decay_tokens),
            ("warmup_steps", self.warmup_steps.max(1), self.warmup_tokens.max(1)),
        ] {
            // TOML's integers are signed.
            if tokens == 0 || i64::try_from(tokens.max(steps)).is_err() {
                let tokens_key = key.replace("steps", "tokens");
                let what = format!("train.{key} = {steps} (train.{tokens_key} = {tokens}) is out of range");
                return Err(Error::user(what).remedy("it must be at least 1, and below 2^63 tokens"));
            }
        }
        for (key, value) in [
            ("seq_len", self.seq_len as u64),
            ("valid_batches", self.valid_batches),
            ("keep_checkpoints", self.keep_checkpoints as u64),
        ] {
            if value == 0 {
                return refuse(key, value.to_string(), "at least 1");
            }
        }
        let unit = |x: f64| (0.0..=1.0).contains(&x);
        let below_one = |x: f64| (0.0..1.0).contains(&x);
        let positive = |x: f64| x > 0.0 && x.is_finite();
        let not_negative = |x: f64| x >= 0.0 && x.is_finite();
        for (key, value, fits, range) in [
            ("lr", self.lr, positive(self.lr), "above 0"),
            ("min_lr_ratio", self.min_lr_ratio, unit(self.min_lr_ratio), "between 0 and 1"),
            ("beta1", self.beta1, below_one(self.beta1), "at least 0 and below 1"),
            ("beta2", self.beta2, below_one(self.beta2), "at least 0 and below 1"),
            ("eps", self.eps, positive(self.eps), "above 0"),
            ("weight_decay", self.weight_decay, not_negative(self.weight_decay), "at least 0"),
            ("clip", self.clip, not_negative(self.clip), "at least 0, which is no clipping"),
        ] {
            if !fits {
                return refuse(key, value.to_string(), range);
            }
        }
        if self.warmup_tokens > self.decay_tokens {
            return Err(Error::user(format!(
                "train.warmup_steps = {} (train.warmup_tokens = {}) is out of range",
                self.warmup_steps, self.warmup_tokens
            ))
            .remedy(format!(
                "it must be at most train.decay_steps = {} (train.decay_tokens = {})",
                self.decay_steps, self.decay_tokens
            )));
        }
        // TOML's integers are signed.
        if self.seed > i64::MAX as u64 {
            return refuse("seed", self.seed.to_string(), "below 2^63");
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use crate::config::{Layers, RunConfig};

    #[test]
    fn each_range_is_checked() {
        for set in [
            "train.steps=0",
            "train.seq_len=0",
            "train.decay_steps=0",
            "train.valid_batches=0",
            "train.keep_checkpoints=0",
            "train.lr=0",
            "train.lr=nan",
            "train.lr=inf",
            "train.min_lr_ratio=1.5",
            "train.beta1=1",
            "train.beta2=-0.1",
            "train.eps=0",
            "train.weight_decay=-1",
            "train.clip=-1",
            "train.warmup_steps=5000",
            "train.warmup_tokens=99999999",
            "train.tokens=0",
            "train.steps=9000000000000000000",
            "train.micro_batch=0",
            "train.global_batch=6",
            "parallel.data=0",
            "model.dropout=1.0",
            "model.vocab=4094",
            "model.vocab=2048",
        ] {
            let error = RunConfig::resolve(&Layers::default().set(set).unwrap()).unwrap_err();
            let (key, value) = set.split_once('=').unwrap();
            let message = error.to_string();
            assert!(message.contains(key), "{set}: {message}");
            assert!(message.to_lowercase().contains(value.trim_end_matches(".0")), "{set}: {message}");
            assert_eq!(error.exit_code(), 2);
        }
    }

    #[test]
    fn an_evaluation_names_its_tasks_and_files() {
        for (sets, words) in [
            (&["evaluation.every=5"][..], "evaluation.every = 5, but evaluation.tasks is empty"),
            (&["evaluation.tasks=[\"piqa\"]"], "but evaluation.data is empty"),
            (&["evaluation.tasks=[\"pika\"]", "evaluation.data=[\"sets\"]"], "there is no task \"pika\""),
            (
                &["evaluation.tasks=[\"piqa\"]", "evaluation.data=[\"sets\"]", "evaluation.shots=[]"],
                "but evaluation.shots is empty",
            ),
            (&["evaluation.shots=[\"some\"]"], "is no number of examples"),
            (&["evaluation.shots=[-1]"], "is no number of examples"),
            (&["evaluation.every=-1"], "evaluation.every: invalid value"),
        ] {
            let layers = sets.iter().try_fold(Layers::default(), |layers, set| layers.set(set)).unwrap();
            let error = RunConfig::resolve(&layers).unwrap_err();
            let message = error.to_string();
            assert!(message.contains(words) && message.contains("where: "), "{sets:?}: {message}");
            assert_eq!(error.exit_code(), 2);
        }
        let sets = [
            "evaluation.tasks=[\"all\"]",
            "evaluation.data=[\"a\", \"piqa=b\"]",
            "evaluation.shots=[0, \"few\"]",
        ];
        let layers = sets.iter().try_fold(Layers::default(), |layers, set| layers.set(set)).unwrap();
        let config = RunConfig::resolve(&layers).unwrap();
        assert!(config.to_toml().contains("shots = [0, \"few\"]"), "{}", config.to_toml());
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), config.to_toml()).unwrap();
        assert_eq!(RunConfig::load(file.path()).unwrap(), config);
    }

    #[test]
    fn a_ramp_fits_the_batch() {
        // micro_batch x data = 2 x 2, global_batch = 8.
        for (ramp, words) in [
            ("{start=2,increment=4,samples=9}", "start = 2 is not a multiple of"),
            ("{start=4,increment=0,samples=9}", "increment = 0 is not a multiple of"),
            ("{start=4,increment=8,samples=9}", "no whole number of increments of 8"),
            ("{start=12,increment=4,samples=9}", "no whole number of increments"),
            ("{start=4,increment=4}", "missing field `samples`"),
            ("{start=4,increment=4,samples=1,sample=1}", "unknown field `sample`"),
            ("{start=4,increment=4,samples=-1}", "train.batch_ramp: invalid value"),
        ] {
            let set = format!("train.batch_ramp={ramp}");
            let error = RunConfig::resolve(&Layers::default().set(&set).unwrap()).unwrap_err().to_string();
            assert!(error.contains(words) && error.contains("--set train.batch_ramp"), "{set}: {error}");
        }
        let fits = Layers::default().set("train.batch_ramp={start=4,increment=4,samples=9}").unwrap();
        RunConfig::resolve(&fits).unwrap();
    }
}
