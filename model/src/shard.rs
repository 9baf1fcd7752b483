//! Which part of the model a rank holds, and so which slices of which parameters.

use std::ops::Range;

use crate::{GptConfig, Parameter, Slice};

/// A rank's part of the model: consecutive layers (its pipeline stage), of each layer one tensor rank's share.
///
/// What the tensor group cuts is cut in `chunks` equal parts, of which a rank holds `chunks / tensor_size` neighbours and treats each one as a rank of its
/// own would: it is computed by operations of the same extents, and its partial sums are added in the same tree. With as many chunks in every layout a
/// layout cannot be told from the bits; with one chunk a rank nothing is done twice.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shard {
    /// Place in the tensor-parallel group.
    pub tensor_rank: usize,
    /// Size of the tensor-parallel group, a divisor of `chunks`.
    pub tensor_size: usize,
    /// Parts of every axis that tensor parallelism cuts, C.
    pub chunks: usize,
    /// Parts of a microbatch's tokens, over which the gradients of LayerNorms and of biases behind a reduction are summed apart: C too, or 1 where only this
    /// rank's own bits matter and it has all tokens.
    pub token_chunks: usize,
    /// Whether the tensor group shares out the tokens between its matrix products (Korthikanti et al. 2022, section 4.2.2).
    pub sequence_parallel: bool,
    /// Layers of this pipeline stage.
    pub layers: Range<usize>,
    /// Whether the stage begins with the embedding.
    pub first: bool,
    /// Whether the stage ends with the final LayerNorm and the loss.
    pub last: bool,
}

impl Shard {
    /// The whole model on one rank.
    pub fn whole(config: &GptConfig) -> Self {
        Self {
            tensor_rank: 0,
            tensor_size: 1,
            chunks: 1,
            token_chunks: 1,
            sequence_parallel: false,
            layers: 0..config.layers,
            first: true,
            last: true,
        }
    }

    /// The chunks that this rank holds.
    pub fn local_chunks(&self) -> Range<usize> {
        let count = self.chunks / self.tensor_size;
        self.tensor_rank * count..(self.tensor_rank + 1) * count
    }

    /// Ranks that share out a microbatch's tokens.
    pub fn token_parts(&self) -> usize {
        if self.sequence_parallel { self.tensor_size } else { 1 }
    }

    /// Token chunks that this rank sums apart.
    pub fn local_token_chunks(&self) -> usize {
        self.token_chunks / self.token_parts()
    }

    /// Every parameter that this rank holds, in the order of the forward.
    ///
    /// Column-parallel weights (`qkv`, `up`) are cut by rows `[out / C, in]` with their biases, row-parallel ones (`out`, `down`) by columns
    /// `[out, in / C]`, the vocabulary by rows, each with an entry a chunk; LayerNorms, positions and the biases after a reduction are whole on every tensor rank
    /// (Shoeybi et al. 2019, section 3).
    pub fn parameters(&self, config: &GptConfig) -> Vec<Parameter> {
        let GptConfig { hidden: h, ffn_hidden: f, vocab, seq_len, init_std, .. } = *config;
        let residual_std = config.residual_std();
        let mut list = Vec::new();
        if self.first {
            list.extend(self.token_embedding(config));
            list.push(self.whole_matrix("embedding.position.weight", &[seq_len, h], init_std));
        }
        for layer in self.layers.clone() {
            let name = |part: &str| format!("layers.{layer}.{part}");
            list.extend(self.layernorm(&name("ln1"), h));
            list.extend(self.matrix(&name("attention.qkv.weight"), &[3 * h, h], 0, init_std));
            list.extend(self.cut_vector(&name("attention.qkv.bias"), 3 * h));
            list.extend(self.matrix(&name("attention.out.weight"), &[h, h], 1, residual_std));
            list.push(self.vector(&name("attention.out.bias"), h, 0.0));
            list.extend(self.layernorm(&name("ln2"), h));
            list.extend(self.matrix(&name("mlp.up.weight"), &[f, h], 0, init_std));
            list.extend(self.cut_vector(&name("mlp.up.bias"), f));
            list.extend(self.matrix(&name("mlp.down.weight"), &[h, f], 1, residual_std));
            list.push(self.vector(&name("mlp.down.bias"), h, 0.0));
        }
        if self.last {
            list.extend(self.layernorm("final_ln", h));
            if !self.first {
                list.extend(self.token_embedding(config));
            }
        }
        debug_assert!(vocab.is_multiple_of(self.chunks) && self.chunks.is_multiple_of(self.tensor_size));
        list
    }

    fn token_embedding(&self, config: &GptConfig) -> Vec<Parameter> {
        let tied = !(self.first && self.last);
        let table = self.matrix("embedding.token.weight", &[config.vocab, config.hidden], 0, config.init_std);
        table.into_iter().map(|chunk| Parameter { tied, ..chunk }).collect()
    }

    /// The chunks of a matrix that is cut along an axis.
    fn matrix(&self, name: &str, global: &[usize], cut_axis: usize, init_std: f32) -> Vec<Parameter> {
        let whole = Parameter { tensor_parallel: true, ..self.whole_matrix(name, global, init_std) };
        let chunk = |i| Parameter { slice: Slice::part(global, cut_axis, i, self.chunks), ..whole.clone() };
        self.local_chunks().map(chunk).collect()
    }

    fn whole_matrix(&self, name: &str, global: &[usize], init_std: f32) -> Parameter {
        Parameter {
            name: name.to_owned(),
            slice: Slice::whole(global),
            init_std,
            init_mean: 0.0,
            decays: true,
            tensor_parallel: false,
            tied: false,
        }
    }

    fn cut_vector(&self, name: &str, n: usize) -> Vec<Parameter> {
        let chunks = self.matrix(name, &[n], 0, 0.0).into_iter();
        chunks.map(|chunk| Parameter { decays: false, ..chunk }).collect()
    }

    fn vector(&self, name: &str, n: usize, init_mean: f32) -> Parameter {
        Parameter { decays: false, init_mean, ..self.whole_matrix(name, &[n], 0.0) }
    }

    fn layernorm(&self, name: &str, h: usize) -> [Parameter; 2] {
        [self.vector(&format!("{name}.gamma"), h, 1.0), self.vector(&format!("{name}.beta"), h, 0.0)]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;

    #[test]
    fn every_cut_holds_each_parameter_once() {
        let config = GptConfig::new(4, 16, 4, 8, 128);
        let all = Shard::whole(&config);
        let whole: BTreeMap<_, _> =
            all.parameters(&config).into_iter().map(|p| (p.name.clone(), p)).collect();
        assert_eq!(whole.values().map(|p| p.slice.len() as u64).sum::<u64>(), config.parameters());
        for (tp, pp, chunks) in [(1, 2, 1), (2, 1, 2), (2, 2, 4), (4, 4, 4), (1, 1, 4)] {
            let mut held: BTreeMap<String, usize> = BTreeMap::new();
            for stage in 0..pp {
                for tensor_rank in 0..tp {
                    let per_stage = config.layers / pp;
                    let shard = Shard {
                        tensor_rank,
                        tensor_size: tp,
                        chunks,
                        layers: stage * per_stage..(stage + 1) * per_stage,
                        first: stage == 0,
                        last: stage + 1 == pp,
                        ..all.clone()
                    };
                    for parameter in shard.parameters(&config) {
                        let mine = parameter.tensor_parallel || tensor_rank == 0;
                        let first_copy = !parameter.tied || stage == 0;
                        if mine && first_copy {
                            *held.entry(parameter.name).or_default() += parameter.slice.len();
                        }
                    }
                }
            }
            let expected = whole.iter().map(|(name, p)| (name.clone(), p.slice.len())).collect();
            assert_eq!(held, expected, "tp {tp} pp {pp}");
        }
    }
}
