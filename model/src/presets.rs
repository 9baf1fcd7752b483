//! The published models by name.

use crate::GptConfig;

/// A named model.
#[derive(Clone, Debug, PartialEq)]
pub struct Preset {
    /// The name on the command line.
    pub name: &'static str,
    /// The model.
    pub config: GptConfig,
    /// Where its numbers come from.
    pub source: &'static str,
}

/// GPT-2's vocabulary as Megatron pads it for one tensor rank (50,257 to a multiple of 128).
const GPT2_VOCAB: usize = 50_304;
/// The same for eight tensor ranks (a multiple of 1,024): every model of the Megatron papers.
const MEGATRON_VOCAB: usize = 51_200;

/// GPT-2's models use sigma = 0.02 and dropout 0.1 (Radford et al. 2019).
fn gpt2(layers: usize, hidden: usize, heads: usize) -> GptConfig {
    GptConfig { init_std: 0.02, dropout: 0.1, ..GptConfig::new(layers, hidden, heads, 1024, GPT2_VOCAB) }
}

/// The large models: Megatron's default dropout of 0.1.
fn megatron(layers: usize, hidden: usize, heads: usize, seq_len: usize) -> GptConfig {
    GptConfig { dropout: 0.1, ..GptConfig::new(layers, hidden, heads, seq_len, MEGATRON_VOCAB) }
}

/// Every preset, smallest first.
pub fn all() -> Vec<Preset> {
    let preset = |name, config, source| Preset { name, config, source };
    let mut presets = vec![
        preset("laptop", GptConfig::new(4, 128, 4, 256, 4096), "this project: five minutes on two CPU cores"),
        preset("gpt2", gpt2(12, 768, 12), "Radford et al. 2019"),
        preset("gpt2-medium", gpt2(24, 1024, 16), "Radford et al. 2019"),
        preset("gpt2-large", gpt2(36, 1280, 20), "Radford et al. 2019"),
        preset("gpt2-xl", gpt2(48, 1600, 25), "Radford et al. 2019"),
        preset("megatron-8.3b", megatron(72, 3072, 32, 1024), "Shoeybi et al., arXiv 1909.08053"),
        preset("turing-nlg-17b", megatron(78, 4256, 28, 1024), "Microsoft 2020"),
        preset("gpt3-175b", megatron(96, 12_288, 96, 2048), "Brown et al., arXiv 2005.14165"),
        preset("mt-nlg-530b", megatron(105, 20_480, 128, 2048), "Smith et al., arXiv 2201.11990"),
    ];
    // Megatron's 8.3B model used a fixed sigma; the others of its family the 1/(3h) rule.
    for preset in &mut presets {
        if preset.name == "megatron-8.3b" || preset.name == "turing-nlg-17b" {
            preset.config.init_std = 0.02;
        }
    }
    presets
}

/// The preset of that name.
pub fn find(name: &str) -> Option<Preset> {
    all().into_iter().find(|preset| preset.name == name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parameter_counts_are_the_published_ones() {
        // Radford et al. print 124M, 355M, 774M, 1558M with the unpadded vocabulary of 50,257.
        let published = [
            ("gpt2", 124_439_808),
            ("gpt2-medium", 354_823_168),
            ("gpt2-large", 774_030_080),
            ("gpt2-xl", 1_557_611_200),
        ];
        for (name, parameters) in published {
            let config = GptConfig { vocab: 50_257, ..find(name).unwrap().config };
            assert_eq!(config.parameters(), parameters, "{name}");
        }
        assert_eq!(find("mt-nlg-530b").unwrap().config.parameters(), 529_600_819_200);
    }

    #[test]
    fn flops_follow_the_published_formula() {
        let config = find("mt-nlg-530b").unwrap().config;
        let [l, h, v, s] = [105.0, 20_480.0, 51_200.0, 2048.0];
        let published = 72.0 * l * h * h * (1.0 + s / (6.0 * h) + v / (12.0 * l * h));
        assert!((config.flops_per_token() / published - 1.0).abs() < 1e-12);
    }

    #[test]
    fn every_preset_is_valid() {
        for preset in all() {
            preset.config.validate(1).unwrap();
        }
        find("mt-nlg-530b").unwrap().config.validate(8).unwrap();
    }
}
