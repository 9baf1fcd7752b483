//! Whether a layout can be executed as asked: schedule, stages, sequence parallelism, numerics, loss scale.

use model::Recompute;

use super::{Mode, NumericsConfig, RunConfig};
use crate::layout::Layout;
use crate::schedule::{Pipeline, Schedule};
use crate::{Error, Result};

impl RunConfig {
    /// The pipeline in a step of `global_batch` samples.
    pub fn pipeline(&self, global_batch: usize) -> Pipeline {
        Pipeline {
            schedule: self.parallel.schedule,
            stages: self.parallel.pipeline,
            chunks: self.parallel.virtual_stages,
            microbatches: self.layout().microbatches(self.train.micro_batch, global_batch),
        }
    }

    /// Checks everything that [`execution`](Self::execution) hands to the engine. Layout, model and batches are valid on their own.
    ///
    /// # Errors
    /// The first that does not fit, with its key, its value and what would do.
    pub(super) fn validate_execution(&self, layout: &Layout) -> Result<()> {
        for batch in self.batches() {
            self.pipeline(batch).validate()?;
        }
        self.validate_stages(layout)?;
        let (schedule, recompute) = (self.parallel.schedule, self.parallel.recompute);
        if schedule == Schedule::ZbH1 && recompute != Recompute::None {
            return Err(Error::user(format!(
                "parallel.schedule = zb-h1 keeps what the weights' gradients need, and parallel.recompute = {} does not",
                name(recompute)
            ))
            .remedy("set parallel.recompute to none, or parallel.schedule to 1f1b"));
        }
        let (tensor, tokens) = (layout.tp(), self.tokens_per_microbatch());
        if self.parallel.sequence_parallel && !tokens.is_multiple_of(tensor) {
            return Err(Error::user(format!(
                "parallel.sequence_parallel cuts a microbatch's tokens, train.micro_batch x train.seq_len = {tokens}, in parallel.tensor = {tensor} \
                 equal parts, which do not exist"
            ))
            .remedy("choose a train.seq_len that parallel.tensor divides, or set parallel.sequence_parallel to false"));
        }
        if self.numerics.mode == Mode::Invariant {
            self.validate_invariant(layout)?;
        }
        self.validate_loss_scale()
    }

    /// Every size that a step's batch takes.
    fn batches(&self) -> impl Iterator<Item = usize> {
        self.batch().stretches().map(|stretch| stretch.batch)
    }

    fn tokens_per_microbatch(&self) -> usize {
        self.train.micro_batch.saturating_mul(self.train.seq_len)
    }

    /// Every virtual stage has work, and the list of layers is as long as the stages are many.
    fn validate_stages(&self, layout: &Layout) -> Result<()> {
        let (stages, chunks, layers) = (layout.pp(), self.parallel.virtual_stages, self.model.layers);
        let virtual_stages = stages.saturating_mul(chunks);
        if virtual_stages > layers {
            return Err(Error::user(format!(
                "parallel.pipeline x parallel.virtual_stages = {stages} x {chunks} = {virtual_stages} parts are more than there are layers, \
                 model.layers = {layers}"
            ))
            .remedy("set parallel.virtual_stages to a smaller number: every part holds at least one layer"));
        }
        let list = &self.parallel.layers;
        if list.is_empty() {
            return Ok(());
        }
        let refuse = |what: String| {
            Err(Error::user(format!("parallel.layers = {list:?} {what}")).remedy(format!(
                "give {virtual_stages} numbers that add up to {layers}, 0 only as the first or the last, or [] for equal shares"
            )))
        };
        if list.len() != virtual_stages {
            let entries = list.len();
            return refuse(format!(
                "has {entries} entries, and parallel.pipeline x parallel.virtual_stages = {virtual_stages}"
            ));
        }
        if list.len() > 2 && list[1..list.len() - 1].contains(&0) {
            return refuse("leaves a stage without work: only the first (embedding) and the last (logits) may have no layer".into());
        }
        match list.iter().try_fold(0usize, |sum, n| sum.checked_add(*n)) {
            Some(sum) if sum == layers => Ok(()),
            sum => refuse(format!(
                "adds up to {}, and model.layers = {layers}",
                sum.map_or("too much".into(), |sum| sum.to_string())
            )),
        }
    }

    /// The sums of every layout are the same trees: over C chunks of each axis that tensor parallelism cuts, over microbatches, over replicas.
    fn validate_invariant(&self, layout: &Layout) -> Result<()> {
        let NumericsConfig { chunks, .. } = self.numerics;
        if !chunks.is_power_of_two() {
            return Err(Error::user(format!("numerics.chunks = {chunks} is not a power of two"))
                .remedy("choose 1, 2, 4, 8 or 16"));
        }
        let tensor = layout.tp();
        if !chunks.is_multiple_of(tensor) {
            return Err(Error::user(format!(
                "numerics.mode = invariant needs parallel.tensor = {tensor} to divide numerics.chunks = {chunks}"
            ))
            .remedy("choose a power of two for parallel.tensor, at most numerics.chunks"));
        }
        for (key, value) in [
            ("model.heads", self.model.heads),
            ("model.ffn_hidden", self.model.ffn_hidden),
            ("model.vocab", self.model.vocab),
            ("train.micro_batch x train.seq_len", self.tokens_per_microbatch()),
        ] {
            if !value.is_multiple_of(chunks) {
                let most = 1usize << value.trailing_zeros();
                return Err(Error::user(format!(
                    "numerics.mode = invariant needs numerics.chunks = {chunks} to divide {key} = {value}"
                ))
                .remedy(format!("set numerics.chunks to at most {most}, or change {key}")));
            }
        }
        let data = layout.dp();
        if !data.is_power_of_two() {
            return Err(Error::user(format!(
                "numerics.mode = invariant needs parallel.data = {data} to be a power of two"
            ))
            .remedy(format!("set parallel.data to {}", data.next_power_of_two())));
        }
        for batch in self.batches() {
            let microbatches = layout.microbatches(self.train.micro_batch, batch);
            if !microbatches.is_power_of_two() {
                let micro_batch = self.train.micro_batch;
                let (what, remedy) = match batch == self.train.global_batch {
                    true => (
                        "train.global_batch",
                        format!("to {}", microbatches.next_power_of_two() * micro_batch * data),
                    ),
                    false => (
                        "a batch of train.batch_ramp",
                        "to sizes that double, or train.batch_ramp to {start=0,increment=0,samples=0}".into(),
                    ),
                };
                return Err(Error::user(format!(
                    "numerics.mode = invariant needs a power of two of microbatches a replica, and {what} = {batch} is {microbatches} of \
                     train.micro_batch x parallel.data = {micro_batch} x {data}"
                ))
                .remedy(format!("set it {remedy}")));
            }
        }
        Ok(())
    }

    fn validate_loss_scale(&self) -> Result<()> {
        let scale = &self.loss_scale;
        let power = |x: f32| x >= 1.0 && x.is_finite() && x.log2().fract() == 0.0;
        for (key, value, fits, range) in [
            ("initial", f64::from(scale.initial), power(scale.initial), "a power of two of at least 1"),
            ("min", f64::from(scale.min), power(scale.min), "a power of two of at least 1"),
            ("window", scale.window.into(), scale.window > 0, "at least 1"),
            ("hysteresis", scale.hysteresis.into(), scale.hysteresis > 0, "at least 1"),
        ] {
            if !fits {
                return Err(Error::user(format!("loss_scale.{key} = {value} is out of range"))
                    .remedy(format!("it must be {range}")));
            }
        }
        if scale.min > scale.initial {
            return Err(Error::user(format!(
                "loss_scale.min = {} is above loss_scale.initial = {}",
                scale.min, scale.initial
            ))
            .remedy("set loss_scale.min to at most loss_scale.initial"));
        }
        Ok(())
    }
}

/// The choice as the configuration writes it.
fn name(recompute: Recompute) -> &'static str {
    match recompute {
        Recompute::None => "none",
        Recompute::Selective => "selective",
        Recompute::Full => "full",
    }
}

#[cfg(test)]
mod tests {
    use model::Recompute;

    use crate::config::{Layers, Mode, RunConfig};
    use crate::options::{Execution, Numerics, Precision};
    use crate::schedule::Schedule;

    fn resolve(sets: &str) -> crate::Result<RunConfig> {
        let layers = sets.split_whitespace().try_fold(Layers::default(), |layers, set| layers.set(set))?;
        RunConfig::resolve(&layers)
    }

    /// Each refused with words of its message, which names where the value comes from.
    #[test]
    fn what_does_not_fit_is_refused() {
        for (sets, words) in [
            ("parallel.schedule=interleaved parallel.pipeline=1", "needs at least 2 stages"),
            (
                "parallel.schedule=interleaved parallel.pipeline=4 train.global_batch=24",
                "a multiple of parallel.pipeline = 4",
            ),
            (
                "parallel.schedule=interleaved parallel.virtual_stages=3",
                "2 x 3 = 6 parts are more than there are layers, model.layers = 4",
            ),
            ("parallel.virtual_stages=2", "is for parallel.schedule = interleaved"),
            ("parallel.virtual_stages=0", "parallel.virtual_stages is 0"),
            ("parallel.schedule=zb-h1 parallel.recompute=full", "parallel.recompute = full does not"),
            (
                "parallel.schedule=zb-h1 parallel.recompute=selective",
                "parallel.recompute = selective does not",
            ),
            ("parallel.layers=[1,1,2]", "has 3 entries, and parallel.pipeline x parallel.virtual_stages = 2"),
            ("parallel.pipeline=3 parallel.layers=[2,0,2]", "leaves a stage without work"),
            ("parallel.layers=[1,2]", "adds up to 3, and model.layers = 4"),
            (
                "parallel.sequence_parallel=true train.micro_batch=1 train.seq_len=255",
                "train.micro_batch x train.seq_len = 255",
            ),
            ("numerics.mode=invariant numerics.chunks=6", "numerics.chunks = 6 is not a power of two"),
            ("numerics.mode=invariant numerics.chunks=0", "numerics.chunks = 0 is not a power of two"),
            (
                "numerics.mode=invariant numerics.chunks=1",
                "parallel.tensor = 2 to divide numerics.chunks = 1",
            ),
            ("numerics.mode=invariant numerics.chunks=8", "numerics.chunks = 8 to divide model.heads = 4"),
            (
                "numerics.mode=invariant numerics.chunks=4 model.ffn_hidden=514",
                "divide model.ffn_hidden = 514",
            ),
            ("numerics.mode=invariant numerics.chunks=4 model.vocab=4098", "divide model.vocab = 4098"),
            (
                "numerics.mode=invariant numerics.chunks=4 train.seq_len=255 ",
                "train.micro_batch x train.seq_len = 510",
            ),
            (
                "numerics.mode=invariant numerics.chunks=4 parallel.data=3 train.global_batch=24",
                "parallel.data = 3 to be a power of two",
            ),
            (
                "numerics.mode=invariant numerics.chunks=4 train.global_batch=12",
                "train.global_batch = 12 is 3 of",
            ),
            (
                "numerics.mode=invariant numerics.chunks=4 train.global_batch=16 train.batch_ramp={start=4,increment=4,samples=100}",
                "a batch of train.batch_ramp = 12 is 3 of",
            ),
            ("loss_scale.initial=3.0", "loss_scale.initial = 3 is out of range"),
            ("loss_scale.min=0.5", "loss_scale.min = 0.5 is out of range"),
            ("loss_scale.window=0", "loss_scale.window = 0 is out of range"),
            ("loss_scale.hysteresis=0", "loss_scale.hysteresis = 0 is out of range"),
            (
                "loss_scale.initial=2.0 loss_scale.min=4.0",
                "loss_scale.min = 4 is above loss_scale.initial = 2",
            ),
            ("train.precision=fp8", "fp8"),
            ("parallel.recompute=some", "some"),
            ("numerics.mode=exact", "exact"),
        ] {
            let error = resolve(sets).expect_err(sets);
            let message = error.to_string();
            assert!(message.contains(words), "{sets}: {message}");
            assert!(message.contains("where: "), "{sets}: {message}");
            assert_eq!(error.exit_code(), 2);
        }
    }

    #[test]
    fn what_fits_reaches_the_engine() {
        let config = resolve(
            "parallel.schedule=interleaved parallel.layers=[1,1,1,1] parallel.sequence_parallel=true parallel.scatter_gather=false \
             parallel.recompute=selective parallel.sharded_optimizer=true parallel.bucket=4096 numerics.mode=invariant numerics.chunks=4 \
             train.precision=f16 loss_scale.window=7",
        )
        .unwrap();
        let Execution { schedule, virtual_stages, layers, recompute, numerics, precision, .. } =
            config.execution();
        assert_eq!((schedule, virtual_stages, layers), (Schedule::Interleaved, 2, Some(vec![1; 4])));
        assert_eq!((recompute, precision), (Recompute::Selective, Precision::F16));
        assert_eq!(numerics, Numerics::Invariant { chunks: 4 });
        let execution = config.execution();
        assert!(execution.sequence_parallel && !execution.scatter_gather && execution.sharded_optimizer);
        assert_eq!((execution.bucket, execution.loss_scale.window), (4096, 7));
        assert_eq!(execution.loss_scale.initial, 4_294_967_296.0);
    }

    #[test]
    fn the_default_is_the_engines() {
        assert_eq!(resolve("").unwrap().execution(), Execution::default());
        assert_eq!(resolve("").unwrap().numerics.mode, Mode::Fast);
    }

    #[test]
    fn the_resolved_file_shows_every_key_and_comes_back() {
        let config =
            resolve("parallel.schedule=interleaved parallel.layers=[1,1,1,1] train.precision=bf16").unwrap();
        let toml = config.to_toml();
        for key in [
            "virtual_stages = 2",
            "layers = [1, 1, 1, 1]",
            "sequence_parallel = false",
            "scatter_gather = true",
            "recompute = \"none\"",
            "sharded_optimizer = false",
            "bucket = 0",
            "mode = \"fast\"",
            "chunks = 8",
            "precision = \"bf16\"",
            "[train.batch_ramp]",
            "warmup_tokens = ",
            "hysteresis = 2",
        ] {
            assert!(toml.contains(key), "{key} in\n{toml}");
        }
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), toml).unwrap();
        assert_eq!(RunConfig::load(file.path()).unwrap(), config);
    }
}
