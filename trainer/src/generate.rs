//! Continuations of prompts by a trained model: the samples at the end of a run.
//!
//! The whole model runs on one rank, loaded from the run's checkpoint whatever layout wrote it. The choice of each token is drawn from Philox by seed,
//! prompt and position: the same checkpoint and seed give the same text.

use std::sync::Arc;

use backend::philox::Stream;
use backend::{Backend, Communicator, Group, GroupKind};
use model::layers::Scratch;
use model::{GptConfig, Shard, Stage, StageOptions, TensorGroup};

/// How the next token is drawn from the logits.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Sampling {
    /// Divides the logits; 0 takes the most likely token.
    pub temperature: f64,
    /// Only the so many most likely tokens are drawn from.
    pub top_k: usize,
    /// Tokens to add to each prompt.
    pub tokens: usize,
    /// Seed of the draws.
    pub seed: u64,
}

/// Philox stream of the draws: apart from those of initial weights and dropout.
const STREAM: u64 = 1 << 62;

/// Continues each prompt until `sampling.tokens` tokens are added, `end` is drawn, or the sequence is full; returns the added tokens.
///
/// `initialize` fills the stage's parameters. Only the first `tokens` rows of the vocabulary are drawn: the rest is padding.
///
/// # Errors
/// Those of the backend and of `initialize`.
pub fn continuations<B: Backend, E: From<backend::Error>>(
    backend: &B,
    communicator: &dyn Communicator<B::Buffer>,
    config: &GptConfig,
    prompts: &[Vec<u32>],
    (tokens, end): (usize, u32),
    sampling: Sampling,
    initialize: impl FnOnce(&Stage<'_, B>) -> Result<(), E>,
) -> Result<Vec<Vec<u32>>, E> {
    let (b, s) = (prompts.len(), config.seq_len);
    if b == 0 {
        return Ok(Vec::new());
    }
    let group = TensorGroup::new(communicator, Group::new(GroupKind::Tensor, [communicator.rank()]));
    let (shard, options) = (Shard::whole(config), StageOptions::plain(b, s));
    let dims = options.dims(config, &shard);
    let scratch = Arc::new(Scratch::new(backend, &dims, options.recompute, &[])?);
    let stage = Stage::new(backend, group, config, &shard, &options, scratch)?;
    initialize(&stage)?;
    let kept = stage.activations()?;
    let (Some(input), Some(logits)) = (kept.tokens(), kept.logits(0)) else {
        unreachable!("the whole model has an embedding and a head");
    };

    // What lies behind a sequence's end is masked by the causal attention: any token will do.
    let mut window = vec![end; b * s];
    let mut length: Vec<usize> = prompts.iter().map(|prompt| prompt.len().clamp(1, s)).collect();
    for (row, prompt) in window.chunks_mut(s).zip(prompts) {
        let recent = &prompt[prompt.len().saturating_sub(s)..];
        row[..recent.len()].copy_from_slice(recent);
    }
    let mut added: Vec<Vec<u32>> = vec![Vec::new(); b];
    let mut done = vec![false; b];
    let mut row = vec![0.0_f32; config.vocab];
    for _ in 0..sampling.tokens {
        backend.write(input, bytemuck::cast_slice(&window))?;
        stage.infer(&kept)?;
        for i in 0..b {
            done[i] = done[i] || length[i] == s;
            if done[i] {
                continue;
            }
            backend.read(logits.rows(i * s + length[i] - 1, 1)?, bytemuck::cast_slice_mut(&mut row))?;
            let stream = Stream { seed: sampling.seed, stream: STREAM + i as u64 };
            let token = draw(&row[..tokens.min(config.vocab)], sampling, stream.uniform(length[i] as u64));
            done[i] = token == end;
            if !done[i] {
                window[i * s + length[i]] = token;
                length[i] += 1;
                added[i].push(token);
            }
        }
        if done.iter().all(|&done| done) {
            break;
        }
    }
    Ok(added)
}

/// The token at the point `uniform` of the distribution `softmax(logits / temperature)`, cut to its `top_k` most likely; ties go to the lower token.
fn draw(logits: &[f32], sampling: Sampling, uniform: f32) -> u32 {
    let mut order: Vec<usize> = (0..logits.len()).collect();
    order.sort_by(|&a, &b| logits[b].total_cmp(&logits[a]).then(a.cmp(&b)));
    if sampling.temperature <= 0.0 {
        return order[0] as u32;
    }
    order.truncate(sampling.top_k.max(1));
    let top = f64::from(logits[order[0]]);
    let weight = |&i: &usize| ((f64::from(logits[i]) - top) / sampling.temperature).exp();
    let mut left = f64::from(uniform) * order.iter().map(weight).sum::<f64>();
    for token in &order {
        left -= weight(token);
        if left < 0.0 {
            return *token as u32;
        }
    }
    order[order.len() - 1] as u32
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_draw_follows_the_distribution() {
        let sampling = Sampling { temperature: 1.0, top_k: 2, tokens: 0, seed: 0 };
        let logits = [1.0, f32::ln(3.0) + 1.0, 0.9];
        assert_eq!(draw(&logits, Sampling { temperature: 0.0, ..sampling }, 0.99), 1);
        // Of the two most likely the second token has 3/4.
        assert_eq!([0.0, 0.74, 0.76, 0.999].map(|u| draw(&logits, sampling, u)), [1, 1, 0, 0]);
    }
}
