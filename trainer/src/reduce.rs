//! `--reduce 10M`: a small model in a big one's proportions, with the same recipe made small.
//!
//! What a laptop tests is then the production configuration: the same kind of layout (an axis that is cut stays cut), schedule, precision, recomputation,
//! ramp and token schedule. With `N`, `h` the parameters and the width of the production model and `N'`, `h'` those of the reduced one:
//!
//! | what | rule | why |
//! |---|---|---|
//! | layers, heads | `L/h` and the head size as near as integers allow | depth, width and number of heads shrink together: the same shape |
//! | FFN, initialisation | `ffn/h`; `sqrt(1/(3h'))` where production has it, else its sigma | they are rules of the width |
//! | vocabulary | `V h'/h`, at least 1,024 | the embedding keeps its share; fewer tokens are hardly text |
//! | sequence | `s sqrt(h'/h)`, a power of two of at least 64 | between keeping `s/h` (no context left) and `s` (nothing but attention) |
//! | tokens | `x N'/N` for run, warm-up, decay and ramp | as many tokens a parameter |
//! | batch, in tokens | `x sqrt(N'/N)`, a power of two of microbatches | so the number of steps shrinks alike, and neither of the two degenerates |
//! | learning rate | `x h/h'`, at most 0.01 | what Adam's updates of hidden matrices ask for (Yang et al., arXiv 2203.03466) |
//! | layout | 2 where production cuts the axis; the data axis takes further cores | it has to fit the machine |
//!
//! The rules hold upwards too.

use model::GptConfig;

use crate::batch::BatchRamp;
use crate::config::{Parallel, RunConfig, Tokenizer};
use crate::schedule::Schedule;
use crate::{Error, Result};

/// The reduced model's parameters are the target's within this share of them.
pub const TOLERANCE: f64 = 0.15;
/// Fewer tokens make a vocabulary of little more than bytes.
const SMALLEST_VOCAB: usize = 1024;
/// Fewer tokens are no context.
const SHORTEST: usize = 64;
/// Larger learning rates are for no model.
const LARGEST_LR: f64 = 1e-2;
/// More validations and checkpoints than that would take longer than a small run itself.
const MOST_STOPS: u64 = 20;
/// Validation batches that are enough for a small model.
const VALID_BATCHES: u64 = 8;

/// A number of parameters as a user writes it: `500k`, `10M`, `1.5B`, or all its digits.
///
/// # Errors
/// Anything else.
pub fn parse_count(text: &str) -> Result<u64, String> {
    let (digits, unit) = match text.char_indices().last() {
        Some((end, 'k' | 'K')) => (&text[..end], 1e3),
        Some((end, 'm' | 'M')) => (&text[..end], 1e6),
        Some((end, 'b' | 'B' | 'g' | 'G')) => (&text[..end], 1e9),
        _ => (text, 1.0),
    };
    match digits.trim().parse::<f64>().map(|number| (number * unit).round()) {
        Ok(count) if (1.0..1e15).contains(&count) => Ok(count as u64),
        _ => Err(format!("`{text}` is not a number of parameters; give one such as 500k, 10M or 1.5B")),
    }
}

/// The reduced configuration of about `target` parameters, for a machine of `cores` cores. It trains on the default corpus, which a tokenizer of the
/// reduced vocabulary is made for.
///
/// # Errors
/// No model of that size in the layout's kind; a reduced configuration that does not validate.
pub fn reduce(production: &RunConfig, target: u64, cores: usize) -> Result<RunConfig> {
    let parallel = layout(&production.parallel, cores);
    let model = model(production, &parallel, target)?;
    let mut config = RunConfig { model, parallel, ..production.clone() };

    let size = config.model.parameters() as f64 / production.model.parameters() as f64;
    let width = config.model.hidden as f64 / production.model.hidden as f64;
    let (from, train) = (&production.train, &mut config.train);
    let seq_len = config.model.seq_len;
    train.seq_len = seq_len;
    let batch = from.global_batch as f64 * from.seq_len as f64 * size.sqrt() / seq_len as f64;
    let Parallel { pipeline, data, .. } = config.parallel;
    train.micro_batch =
        power_of_two(from.micro_batch as f64).min(power_of_two(batch / (pipeline * data) as f64));
    let unit = train.micro_batch * data;
    train.global_batch = unit * power_of_two(batch / unit as f64).max(pipeline);
    let scaled = |tokens: u64| (tokens as f64 * size).round() as u64;
    train.tokens = scaled(from.tokens).max((train.global_batch * seq_len) as u64);
    (train.warmup_tokens, train.decay_tokens) =
        (scaled(from.warmup_tokens), scaled(from.decay_tokens).max(1));
    train.batch_ramp = ramp(production, size, unit, train.global_batch, seq_len);
    let batch = train.batch();
    let steps = |tokens: u64| batch.steps_for(tokens.div_ceil(seq_len as u64));
    train.steps = steps(train.tokens);
    (train.warmup_steps, train.decay_steps) = (steps(train.warmup_tokens), steps(train.decay_tokens));
    train.lr = three_digits((from.lr / width).min(LARGEST_LR.max(from.lr)));
    let every = |steps: u64| match steps {
        0 => 0,
        _ => {
            let share = steps as f64 * train.steps as f64 / from.steps as f64;
            (share.round() as u64).max(train.steps.div_ceil(MOST_STOPS))
        }
    };
    let (valid_every, checkpoint_every) = (every(from.valid_every), every(from.checkpoint_every));
    (train.valid_every, train.checkpoint_every) = (valid_every, checkpoint_every);
    train.valid_batches = from.valid_batches.min(VALID_BATCHES);

    config.data.sources = vec![];
    if config.data.tokenizer.tokens().is_none_or(|tokens| tokens > config.model.vocab) {
        config.data.tokenizer = Tokenizer::Bpe(config.model.vocab);
    }
    config.numerics.chunks = chunks(&config, production.numerics.chunks);
    config.validate().map_err(|error| error.at("--reduce"))?;
    Ok(config)
}

/// The same kind of layout: what production cuts stays cut, by the smallest number that divides as production's does.
fn layout(production: &Parallel, cores: usize) -> Parallel {
    let smallest = |n: usize| (2..=n).find(|d| n.is_multiple_of(*d)).unwrap_or(1);
    let (tensor, pipeline) = (smallest(production.tensor), production.pipeline.min(2));
    // Four ranks a core are no burden; more cores are the replicas'.
    let data = match production.data {
        1 => 1,
        most => power_of_two((cores / (tensor * pipeline)) as f64).clamp(2, power_of_two(most as f64).max(2)),
    };
    let virtual_stages = match production.schedule {
        Schedule::Interleaved if pipeline > 1 => 2,
        _ => 1,
    };
    Parallel { tensor, pipeline, data, virtual_stages, layers: vec![], ..production.clone() }
}

/// The model of about `target` parameters that is most like production's.
fn model(production: &RunConfig, parallel: &Parallel, target: u64) -> Result<GptConfig> {
    let big = &production.model;
    let tensor = parallel.tensor;
    let aspect = big.layers as f64 / big.hidden as f64;
    let head = big.head_dim();
    // With the vocabulary aside, N = (4 + 2 ffn/h) L h^2 at the same aspect.
    let per_layer = 4.0 + 2.0 * big.ffn_hidden as f64 / big.hidden as f64;
    let ideal = (target as f64 / (per_layer * aspect)).cbrt();
    let fewest = parallel.pipeline * parallel.virtual_stages;
    let most = ((2.0 * ideal * aspect) as usize).max(2 * fewest);
    let most_heads = ((2.0 * ideal / head as f64) as usize + 1).max(8).next_multiple_of(tensor);

    let mut best: Option<(f64, GptConfig)> = None;
    for layers in fewest..=most {
        for heads in (tensor..=most_heads).step_by(tensor) {
            for head_dim in (8..=2 * head.max(4)).step_by(4) {
                let model = sized(big, layers, heads, head_dim, tensor);
                let size = (model.parameters() as f64 / target as f64).ln().abs();
                if size > (1.0 + TOLERANCE).ln() {
                    continue;
                }
                let shape = (layers as f64 / model.hidden as f64 / aspect).ln().abs();
                let heads = (head_dim as f64 / head as f64).ln().abs();
                // Kernels like whole vectors: a little for every power of two that is missing.
                let odd = 0.02 * 4u32.saturating_sub(head_dim.trailing_zeros()) as f64;
                let cost = shape + heads + 2.0 * size + odd;
                if best.as_ref().is_none_or(|(least, _)| cost < *least) {
                    best = Some((cost, model));
                }
            }
        }
    }
    best.map(|(_, model)| model).ok_or_else(|| {
        Error::user(format!("no model like {} has about {target} parameters", production.preset))
            .at("--reduce")
            .remedy("ask for a larger one, or for a layout with fewer tensor ranks and pipeline stages")
    })
}

/// The model of that depth and width by the rules of the module's table.
fn sized(big: &GptConfig, layers: usize, heads: usize, head_dim: usize, tensor: usize) -> GptConfig {
    let hidden = heads * head_dim;
    let width = hidden as f64 / big.hidden as f64;
    let vocab = (big.vocab as f64 * width).max(SMALLEST_VOCAB as f64) as usize;
    let vocab = GptConfig::padded_vocab(vocab, tensor).min(big.vocab);
    let ffn_hidden = (big.ffn_hidden as f64 * width).round() as usize;
    let seq_len = match width {
        smaller if smaller < 1.0 => {
            let rough = (big.seq_len as f64 * smaller.sqrt()).log2().round().exp2() as usize;
            rough.max(SHORTEST).min(big.seq_len)
        }
        _ => big.seq_len,
    };
    let rule = GptConfig::new(big.layers, big.hidden, big.heads, 1, 1).init_std;
    let own = GptConfig::new(layers, hidden, heads, seq_len, vocab);
    GptConfig {
        ffn_hidden: ffn_hidden.next_multiple_of(tensor),
        dropout: big.dropout,
        init_std: if big.init_std == rule { own.init_std } else { big.init_std },
        layernorm_eps: big.layernorm_eps,
        ..own
    }
}

/// The ramp over the same share of the tokens, from the same share of the batch, in whole units.
fn ramp(production: &RunConfig, size: f64, unit: usize, full: usize, seq_len: usize) -> BatchRamp {
    let from = &production.train;
    if from.batch().ramp_samples() == 0 {
        return BatchRamp::default();
    }
    let share = |samples: usize| {
        let units = samples as f64 / from.global_batch as f64 * full as f64 / unit as f64;
        (units.round() as usize).max(1) * unit
    };
    let start = share(from.batch_ramp.start);
    let whole = (full - start) / unit;
    // The divisor of what lies between start and full that is nearest to the share.
    let wish = share(from.batch_ramp.increment) / unit;
    let divisors = (1..=whole).filter(|d| whole.is_multiple_of(*d));
    let increment = divisors.min_by_key(|d| d.abs_diff(wish));
    let samples = from.batch_ramp.samples as f64 * from.seq_len as f64 * size / seq_len as f64;
    match increment {
        Some(increment) => {
            BatchRamp { start, increment: increment * unit, samples: (samples.round() as u64).max(1) }
        }
        None => BatchRamp::default(),
    }
}

/// As many chunks as production has, as far as they divide what they must.
fn chunks(config: &RunConfig, production: usize) -> usize {
    let model = &config.model;
    let tokens = config.train.micro_batch * config.train.seq_len;
    let zeros = [model.heads, model.ffn_hidden, model.vocab, tokens].map(usize::trailing_zeros);
    let most = 1usize << zeros.into_iter().min().unwrap_or(0);
    power_of_two(production as f64).min(most)
}

/// The power of two nearest to `x` by ratio; 1 at the least.
fn power_of_two(x: f64) -> usize {
    1usize << x.max(1.0).log2().round() as u32
}

/// A number that a reader can take in.
fn three_digits(x: f64) -> f64 {
    format!("{x:.2e}").parse().unwrap_or(x)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Layers, Mode, defaults};
    use proptest::prelude::*;

    fn reduced(preset: &str, target: u64) -> RunConfig {
        reduce(&defaults::preset(preset).unwrap(), target, 2).unwrap()
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(48))]

        #[test]
        fn any_preset_has_any_size(preset in 0usize..9, log_target in 5.301f64..9.301, cores in 1usize..200) {
            let preset = &model::presets::all()[preset];
            let target = 10f64.powf(log_target) as u64;
            let production = defaults::preset(preset.name).unwrap();
            let config = reduce(&production, target, cores).unwrap();
            config.validate().unwrap();
            let (model, parallel, train) = (&config.model, &config.parallel, &config.train);
            let size = model.parameters() as f64 / target as f64;
            prop_assert!((size - 1.0).abs() <= TOLERANCE, "{size}");
            prop_assert!(model.hidden.is_multiple_of(model.heads) && model.heads.is_multiple_of(parallel.tensor));
            prop_assert_eq!(model.ffn_hidden, 4 * model.hidden);
            // An axis is cut where production cuts it.
            for (ours, theirs) in [
                (parallel.tensor, production.parallel.tensor),
                (parallel.pipeline, production.parallel.pipeline),
                (parallel.data, production.parallel.data),
            ] {
                prop_assert_eq!(ours > 1, theirs > 1);
            }
            prop_assert_eq!(parallel.recompute, production.parallel.recompute);
            // The same tokens a parameter, up to a step.
            let ratio = train.tokens as f64 / model.parameters() as f64;
            let theirs = production.train.tokens as f64 / production.model.parameters() as f64;
            let step = config.tokens_per_step() as f64 / model.parameters() as f64;
            prop_assert!((ratio - theirs).abs() <= step.max(theirs * 1e-3), "{ratio} {theirs}");
            prop_assert!((train.warmup_tokens as f64 / train.decay_tokens as f64
                - production.train.warmup_tokens as f64 / production.train.decay_tokens as f64).abs() < 1e-3);
            prop_assert_eq!(config.batch().ramp_samples() > 0, production.batch().ramp_samples() > 0);
            // Ready for the same bits in every layout.
            prop_assert!(config.microbatches().is_power_of_two() && parallel.data.is_power_of_two());
            let invariant = RunConfig {
                numerics: crate::config::NumericsConfig { mode: Mode::Invariant, ..config.numerics },
                train: crate::config::Train { batch_ramp: BatchRamp::default(), ..train.clone() },
                ..config.clone()
            };
            invariant.validate().unwrap();
            // A pure function, and its file is the same run.
            prop_assert_eq!(&reduce(&production, target, cores).unwrap(), &config);
            let file = tempfile::NamedTempFile::new().unwrap();
            std::fs::write(file.path(), config.to_toml()).unwrap();
            prop_assert_eq!(RunConfig::load(file.path()).unwrap(), config);
        }
    }

    #[test]
    fn mt_nlg_made_small() {
        let config = reduced("mt-nlg-530b", 10_000_000);
        let model = &config.model;
        assert_eq!(config.layout().to_string(), "tensor 2 x pipeline 2 x data 2");
        // 105 layers of 20480 are one layer to 195 of width; heads have 160.
        let aspect = model.hidden as f64 / model.layers as f64;
        assert!((130.0..260.0).contains(&aspect) && (96..=224).contains(&model.head_dim()), "{model:?}");
        assert_eq!(model.init_std, (1.0 / (3.0 * model.hidden as f64)).sqrt() as f32);
        assert_eq!(model.dropout, 0.1);
        // 0.51 tokens a parameter.
        assert!((4_500_000..6_000_000).contains(&config.train.tokens), "{}", config.train.tokens);
        assert!((100..2000).contains(&config.train.steps), "{}", config.train.steps);
        let big = reduced("mt-nlg-530b", 1_500_000_000);
        assert!(big.model.layers > 8 && big.model.head_dim() >= 128, "{:?}", big.model);
    }

    #[test]
    fn through_the_layers_of_a_configuration() {
        let layers = Layers::default().preset("mt-nlg-530b").reduce(10_000_000, 2);
        let config = RunConfig::resolve(&layers.clone()).unwrap();
        assert_eq!(config, reduced("mt-nlg-530b", 10_000_000));
        let faster =
            RunConfig::resolve(&layers.set("train.lr=1e-3").unwrap().set("train.steps=50").unwrap()).unwrap();
        assert_eq!((faster.train.lr, faster.train.steps, &faster.model), (1e-3, 50, &config.model));
    }

    #[test]
    fn counts_as_users_write_them() {
        let counts = ["500k", "10M", "1.5B", "123456", " 2 M"].map(parse_count);
        assert_eq!(counts.map(Result::unwrap), [500_000, 10_000_000, 1_500_000_000, 123_456, 2_000_000]);
        for text in ["", "M", "-1M", "ten", "0", "1e30", "nan", "infB"] {
            assert!(parse_count(text).unwrap_err().contains("500k"), "{text}");
        }
    }

    #[test]
    fn what_cannot_be_is_refused() {
        let production = defaults::preset("mt-nlg-530b").unwrap();
        let error = reduce(&production, 1000, 2).unwrap_err();
        assert!(error.to_string().contains("no model like mt-nlg-530b has about 1000 parameters"), "{error}");
        assert_eq!(error.exit_code(), 2);
    }
}
