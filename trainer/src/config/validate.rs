//! Whether the values of a configuration fit each other.

use super::{RunConfig, Train};
use crate::layout::Layout;
use crate::{Error, Result};

impl RunConfig {
    /// Checks every value against its range and against the others.
    ///
    /// # Errors
    /// The first that does not fit, with its key, its value and what would do.
    pub fn validate(&self) -> Result<()> {
        let layout = Layout::new(self.parallel.tensor, self.parallel.pipeline, self.parallel.data)?;
        self.train.validate()?;
        layout.validate(&self.model, self.train.micro_batch, self.train.global_batch)?;
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
}

impl Train {
    fn validate(&self) -> Result<()> {
        let refuse = |key: &str, value: String, range: &str| {
            Err(Error::user(format!("train.{key} = {value} is out of range"))
                .remedy(format!("it must be {range}")))
        };
        for (key, value) in [
            ("steps", self.steps),
            ("seq_len", self.seq_len as u64),
            ("decay_steps", self.decay_steps),
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
        if self.warmup_steps > self.decay_steps {
            let range = format!("at most train.decay_steps = {}", self.decay_steps);
            return refuse("warmup_steps", self.warmup_steps.to_string(), &range);
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
}
