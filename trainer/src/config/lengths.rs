//! A run's lengths, given in steps or in tokens: one way is kept, the tokens, and the steps are what they come to.

use super::RunConfig;
use super::resolve::Assignment;
use crate::{Error, Result};

/// The three lengths by their keys.
const KEYS: [(&str, &str); 3] = [
    ("train.steps", "train.tokens"),
    ("train.warmup_steps", "train.warmup_tokens"),
    ("train.decay_steps", "train.decay_tokens"),
];
/// What the tokens of a step follow from.
const BATCH: [&str; 4] = ["train.global_batch", "train.batch_ramp", "train.seq_len", "model.seq_len"];

/// Which of the two keys of a length counts.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Given {
    Steps,
    Tokens,
    Neither,
}

/// Brings steps and tokens together; see [`RunConfig::resolve`] for what follows what.
///
/// # Errors
/// Steps and tokens of a file that contradict each other.
pub(super) fn follow(config: &mut RunConfig, preset: &RunConfig, assigned: &[Assignment]) -> Result<()> {
    let batch = config.batch();
    let seq_len = config.train.seq_len.max(1) as u64;
    let tokens_of = |steps: u64| batch.samples_after(steps).saturating_mul(seq_len);
    let steps_of = |tokens: u64| batch.steps_for(tokens.div_ceil(seq_len));

    let train = &config.train;
    let steps = [train.steps, train.warmup_steps, train.decay_steps];
    let mut tokens = [train.tokens, train.warmup_tokens, train.decay_tokens];
    let presets = [preset.train.tokens, preset.train.warmup_tokens, preset.train.decay_tokens];
    let same_batch = !assigned.iter().any(|a| !a.in_file && BATCH.contains(&a.key.as_str()));
    for (length, keys) in KEYS.into_iter().enumerate() {
        let (given, both) = given(assigned, keys);
        tokens[length] = match given {
            Given::Steps => tokens_of(steps[length]),
            Given::Tokens => tokens[length],
            // The run's own length is resolved first.
            Given::Neither if length > 0 && self::given(assigned, KEYS[0]).0 != Given::Neither => {
                share(presets[length], tokens[0], presets[0])
            }
            Given::Neither => presets[length],
        };
        let came_to = steps_of(tokens[length]);
        if both && same_batch && steps[length] != came_to {
            let (steps_key, tokens_key) = keys;
            return Err(Error::user(format!(
                "{steps_key} = {} and {tokens_key} = {} contradict each other: so many tokens are {came_to} steps",
                steps[length], tokens[length]
            ))
            .remedy("leave one of them out"));
        }
    }
    let [steps, warmup_steps, decay_steps] = tokens.map(steps_of);
    let [tokens, warmup_tokens, decay_tokens] = tokens;
    let train = &mut config.train;
    (train.steps, train.warmup_steps, train.decay_steps) = (steps, warmup_steps, decay_steps);
    (train.tokens, train.warmup_tokens, train.decay_tokens) = (tokens, warmup_tokens, decay_tokens);
    Ok(())
}

/// Which key was set last (in a file, whose order means nothing, the tokens), and whether it was the file and set both.
fn given(assigned: &[Assignment], (steps, tokens): (&str, &str)) -> (Given, bool) {
    let last = |key: &str| assigned.iter().enumerate().rev().find(|(_, a)| a.key == key);
    match (last(steps), last(tokens)) {
        (None, None) => (Given::Neither, false),
        (Some(_), None) => (Given::Steps, false),
        (None, Some(_)) => (Given::Tokens, false),
        (Some((_, steps)), Some((_, tokens))) if steps.in_file && tokens.in_file => (Given::Tokens, true),
        (Some((steps, _)), Some((tokens, _))) if steps > tokens => (Given::Steps, false),
        (Some(_), Some(_)) => (Given::Tokens, false),
    }
}

/// `part` of `whole`, scaled to a whole of `new`, rounded.
fn share(part: u64, new: u64, whole: u64) -> u64 {
    let whole = u128::from(whole.max(1));
    ((u128::from(part) * u128::from(new) + whole / 2) / whole).try_into().unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use crate::Result;
    use crate::config::{Layers, RunConfig};

    fn resolve(file: &str, sets: &[&str]) -> Result<RunConfig> {
        let path = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(path.path(), file).unwrap();
        let layers = Layers::default().file(path.path());
        RunConfig::resolve(&sets.iter().try_fold(layers, |layers, set| layers.set(set))?)
    }

    /// Steps and tokens of run, warm-up and decay.
    fn lengths(config: &RunConfig) -> ([u64; 3], [u64; 3]) {
        let train = &config.train;
        let steps = [train.steps, train.warmup_steps, train.decay_steps];
        (steps, [train.tokens, train.warmup_tokens, train.decay_tokens])
    }

    #[test]
    fn steps_and_tokens_are_two_ways_to_say_the_same() {
        let step = 8 * 256;
        let by_steps = resolve("[train]\nsteps = 500\nwarmup_steps = 20\ndecay_steps = 600", &[]).unwrap();
        assert_eq!(lengths(&by_steps), ([500, 20, 600], [500 * step, 20 * step, 600 * step]));
        let sets = ["train.tokens=1024000", "train.warmup_tokens=40960", "train.decay_tokens=1228800"];
        assert_eq!(resolve("", &sets).unwrap(), by_steps);
        // Tokens between two steps stay as they are; the steps reach them.
        let between = resolve("", &["train.tokens=1024001"]).unwrap();
        assert_eq!((between.train.tokens, between.train.steps), (1_024_001, 501));
    }

    #[test]
    fn the_preset_keeps_its_tokens_in_another_batch() {
        let preset = resolve("", &[]).unwrap();
        let wide = resolve("", &["train.global_batch=16"]).unwrap();
        assert_eq!(lengths(&wide), ([850, 50, 850], lengths(&preset).1));
        for steps in 1..=wide.train.steps {
            let rate = |config: &RunConfig, steps| config.learning_rate().at(config.tokens_after(steps));
            assert_eq!(rate(&wide, steps).to_bits(), rate(&preset, 2 * steps).to_bits());
        }
        let half = resolve("", &["train.tokens=1740800"]).unwrap();
        assert_eq!(lengths(&half), ([850, 50, 850], [1_740_800, 102_400, 1_740_800]));
    }

    #[test]
    fn the_last_one_set_counts() {
        let file = "[train]\nsteps = 10\ntokens = 20480\n";
        assert_eq!(resolve(file, &[]).unwrap().train.tokens, 20480);
        assert_eq!(resolve(file, &["train.steps=20"]).unwrap().train.tokens, 40960);
        assert_eq!(resolve(file, &["train.steps=20", "train.tokens=2048"]).unwrap().train.steps, 1);
        // With another batch the file's steps are no longer its tokens: these are kept.
        assert_eq!(resolve(file, &["train.global_batch=16"]).unwrap().train.steps, 5);
    }

    #[test]
    fn a_file_that_contradicts_itself_is_refused() {
        let error = resolve("[train]\nsteps = 11\ntokens = 20480\n", &[]).unwrap_err().to_string();
        assert!(error.contains("train.steps = 11 and train.tokens = 20480"), "{error}");
        assert!(error.contains("10 steps") && error.contains(":2") && error.contains(":3"), "{error}");
    }

    #[test]
    fn along_a_ramp() {
        let ramp = "train.batch_ramp={start=2,increment=2,samples=30}";
        let config =
            resolve("", &[ramp, "train.steps=12", "train.warmup_steps=5", "parallel.data=1"]).unwrap();
        // 5 x 2 + 3 x 4 + 2 x 6 + 2 x 8 samples of 256 tokens.
        assert_eq!((config.train.tokens, config.train.warmup_tokens), (50 * 256, 10 * 256));
        assert_eq!(config.train.batch_ramp.samples, 30);
        let again = resolve(&config.to_toml(), &[]).unwrap();
        assert_eq!(again, config);
    }
}
