//! Ranks: how a world of `tp * dp * pp` of them is cut into tensor, data and pipeline groups.
//!
//! Rank order is tensor fastest, then data, then pipeline (Megatron-LM): `rank = tp_rank + tp * (dp_rank + dp * pp_rank)`. Tensor groups are
//! neighbours, as they talk most. All rank arithmetic of the trainer is in this file.
//!
//! ```
//! use trainer::layout::Layout;
//! let layout = Layout::new(2, 2, 2).unwrap();
//! assert_eq!(layout.tensor_group(5), [4, 5]);
//! assert_eq!(layout.data_group(5), [5, 7]);
//! assert_eq!(layout.pipeline_group(5), [1, 5]);
//! ```

use std::fmt;
use std::ops::Range;

use model::GptConfig;

use crate::Error;

/// A validated cut of the world: every size is at least 1 and their product fits a `usize`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Layout {
    tp: usize,
    pp: usize,
    dp: usize,
}

/// Where a rank stands along each axis of the layout.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Coordinates {
    /// Tensor rank, `0..tp`.
    pub tp: usize,
    /// Data-parallel rank, `0..dp`.
    pub dp: usize,
    /// Pipeline stage, `0..pp`.
    pub pp: usize,
}

/// Why a [`Layout`] cannot be, or cannot carry a model and its batch.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum LayoutError {
    /// A size is 0.
    #[error("parallel.{key} is 0; it must be at least 1")]
    Zero {
        /// The configuration key.
        key: &'static str,
    },
    /// The number of ranks does not fit.
    #[error("parallel.tensor x pipeline x data = {tp} x {pp} x {dp} ranks is more than can be counted")]
    TooLarge {
        /// Tensor ranks.
        tp: usize,
        /// Pipeline stages.
        pp: usize,
        /// Data-parallel ranks.
        dp: usize,
    },
    /// More pipeline stages than layers.
    #[error(
        "parallel.pipeline = {pp} needs more ranks than layers: the model has model.layers = {layers}, and every stage holds at least one; set \
         parallel.pipeline to at most {layers}"
    )]
    MoreStagesThanLayers {
        /// Stages asked for.
        pp: usize,
        /// Layers there are.
        layers: usize,
    },
    /// The layers of the stages, as listed, are not the model's.
    #[error(
        "parallel.layers = {given:?} must list the layers of each of the {stages} (virtual) stages, {layers} in all and 0 only in the first or the last; it \
         lists {} stages of {} layers", given.len(), given.iter().sum::<usize>()
    )]
    Layers {
        /// As listed.
        given: Vec<usize>,
        /// Virtual stages there are.
        stages: usize,
        /// Layers there are.
        layers: usize,
    },
    /// The model does not divide as asked.
    #[error(transparent)]
    Model(#[from] model::ConfigError),
    /// A batch of no samples.
    #[error("train.{key} is 0; it must be at least 1")]
    ZeroBatch {
        /// The configuration key.
        key: &'static str,
    },
    /// The global batch does not divide over the replicas.
    #[error(
        "train.global_batch = {global_batch} is not a multiple of train.micro_batch x parallel.data = {micro_batch} x {dp} = {}; set \
         train.global_batch to {}", micro_batch.saturating_mul(*dp), near(*global_batch, micro_batch.saturating_mul(*dp))
    )]
    Batch {
        /// Samples a step.
        global_batch: usize,
        /// Samples a microbatch.
        micro_batch: usize,
        /// Data-parallel ranks.
        dp: usize,
    },
}

/// The nearest positive multiples of `unit` around `n`, which is none, in words.
fn near(n: usize, unit: usize) -> String {
    match n / unit * unit {
        0 => format!("{unit}"),
        below => format!("{below} or {}", below.saturating_add(unit)),
    }
}

impl From<LayoutError> for Error {
    fn from(error: LayoutError) -> Self {
        Error::user(error.to_string())
    }
}

impl Layout {
    /// `tp` tensor ranks x `pp` pipeline stages x `dp` data-parallel replicas.
    ///
    /// # Errors
    /// [`LayoutError::Zero`] or [`LayoutError::TooLarge`].
    pub fn new(tp: usize, pp: usize, dp: usize) -> Result<Self, LayoutError> {
        for (key, size) in [("tensor", tp), ("pipeline", pp), ("data", dp)] {
            if size == 0 {
                return Err(LayoutError::Zero { key });
            }
        }
        let world = tp.checked_mul(pp).and_then(|n| n.checked_mul(dp));
        world.ok_or(LayoutError::TooLarge { tp, pp, dp })?;
        Ok(Self { tp, pp, dp })
    }

    /// Tensor-parallel ranks.
    pub fn tp(&self) -> usize {
        self.tp
    }

    /// Pipeline stages.
    pub fn pp(&self) -> usize {
        self.pp
    }

    /// Data-parallel replicas.
    pub fn dp(&self) -> usize {
        self.dp
    }

    /// Ranks in all: tp x pp x dp.
    pub fn world_size(&self) -> usize {
        self.tp * self.pp * self.dp
    }

    /// Where `rank` stands. `rank` is below [`world_size`](Self::world_size).
    pub fn coordinates(&self, rank: usize) -> Coordinates {
        assert!(rank < self.world_size(), "rank {rank} of a world of {}", self.world_size());
        Coordinates { tp: rank % self.tp, dp: rank / self.tp % self.dp, pp: rank / (self.tp * self.dp) }
    }

    /// The rank that stands there: the inverse of [`coordinates`](Self::coordinates).
    pub fn rank_of(&self, at: Coordinates) -> usize {
        assert!(at.tp < self.tp && at.dp < self.dp && at.pp < self.pp, "{at:?} is outside of {self}");
        at.tp + self.tp * (at.dp + self.dp * at.pp)
    }

    /// Every rank, in order.
    pub fn world_group(&self) -> Vec<usize> {
        (0..self.world_size()).collect()
    }

    /// The ranks that share a layer's weights with `rank`, by tensor rank.
    pub fn tensor_group(&self, rank: usize) -> Vec<usize> {
        let at = self.coordinates(rank);
        (0..self.tp).map(|tp| self.rank_of(Coordinates { tp, ..at })).collect()
    }

    /// The ranks that hold the same weights as `rank`, by replica.
    pub fn data_group(&self, rank: usize) -> Vec<usize> {
        let at = self.coordinates(rank);
        (0..self.dp).map(|dp| self.rank_of(Coordinates { dp, ..at })).collect()
    }

    /// The ranks that a microbatch of `rank` passes through, by stage.
    pub fn pipeline_group(&self, rank: usize) -> Vec<usize> {
        let at = self.coordinates(rank);
        (0..self.pp).map(|pp| self.rank_of(Coordinates { pp, ..at })).collect()
    }

    /// The two ranks of `rank`'s pipeline that hold the tied embedding: first and last stage; `[rank]` itself in the middle of the pipeline, and where
    /// there is one stage.
    pub fn embedding_group(&self, rank: usize) -> Vec<usize> {
        let at = self.coordinates(rank);
        if self.pp == 1 || (at.pp != 0 && at.pp != self.pp - 1) {
            return vec![rank];
        }
        [0, self.pp - 1].map(|pp| self.rank_of(Coordinates { pp, ..at })).to_vec()
    }

    /// Microbatches that each replica runs a step. The batch has passed [`validate`](Self::validate).
    pub fn microbatches(&self, micro_batch: usize, global_batch: usize) -> usize {
        global_batch / (micro_batch * self.dp)
    }

    /// Checks that the layout can carry `model` and its batch: `tp` divides heads, FFN and vocabulary, `pp` is at most the number of layers, and
    /// `micro_batch x dp` divides `global_batch`.
    ///
    /// # Errors
    /// The first [`LayoutError`] that holds, with the values and what would do.
    pub fn validate(
        &self,
        model: &GptConfig,
        micro_batch: usize,
        global_batch: usize,
    ) -> Result<(), LayoutError> {
        model.validate(self.tp)?;
        stage_layers(model.layers, self.pp, 0)?;
        for (key, value) in [("micro_batch", micro_batch), ("global_batch", global_batch)] {
            if value == 0 {
                return Err(LayoutError::ZeroBatch { key });
            }
        }
        match micro_batch.checked_mul(self.dp).is_some_and(|unit| global_batch.is_multiple_of(unit)) {
            true => Ok(()),
            false => Err(LayoutError::Batch { global_batch, micro_batch, dp: self.dp }),
        }
    }
}

impl fmt::Display for Layout {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "tensor {} x pipeline {} x data {}", self.tp, self.pp, self.dp)
    }
}

/// The layers of virtual stage `stage` of `stages`: as `given` lists them, or equal shares. The first stage, which has the embedding, and the last, which
/// has the logits, may have none.
///
/// # Errors
/// [`LayoutError::MoreStagesThanLayers`], [`LayoutError::Layers`].
pub fn virtual_stage_layers(
    layers: usize,
    given: Option<&[usize]>,
    stages: usize,
    stage: usize,
) -> Result<Range<usize>, LayoutError> {
    let Some(given) = given else { return stage_layers(layers, stages, stage) };
    let idle = given.len() > 2 && given[1..given.len() - 1].contains(&0);
    if given.len() != stages || idle || given.iter().sum::<usize>() != layers {
        return Err(LayoutError::Layers { given: given.to_vec(), stages, layers });
    }
    let start = given[..stage].iter().sum();
    Ok(start..start + given[stage])
}

/// The layers of stage `stage` of `pp`: equal shares, and where `pp` does not divide `layers` one more for each of the first stages, because the
/// last stage has the logits to compute.
///
/// # Errors
/// [`LayoutError::MoreStagesThanLayers`] if a stage would be empty.
pub fn stage_layers(layers: usize, pp: usize, stage: usize) -> Result<Range<usize>, LayoutError> {
    if pp > layers {
        return Err(LayoutError::MoreStagesThanLayers { pp, layers });
    }
    let (share, longer) = (layers / pp, layers % pp);
    let start = stage * share + stage.min(longer);
    Ok(start..start + share + usize::from(stage < longer))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn layouts() -> impl Strategy<Value = Layout> {
        (1usize..6, 1usize..6, 1usize..6).prop_map(|(tp, pp, dp)| Layout::new(tp, pp, dp).unwrap())
    }

    proptest! {
        #[test]
        fn coordinates_and_ranks_are_inverse(layout in layouts()) {
            for rank in 0..layout.world_size() {
                prop_assert_eq!(layout.rank_of(layout.coordinates(rank)), rank);
            }
        }

        #[test]
        fn each_kind_of_group_partitions_the_world(layout in layouts()) {
            type Of = fn(&Layout, usize) -> Vec<usize>;
            let kinds: [(Of, Option<usize>); 4] = [
                (Layout::tensor_group, Some(layout.tp())),
                (Layout::data_group, Some(layout.dp())),
                (Layout::pipeline_group, Some(layout.pp())),
                (Layout::embedding_group, None),
            ];
            for (group, size) in kinds {
                let mut groups: Vec<Vec<usize>> = Vec::new();
                for rank in 0..layout.world_size() {
                    let ranks = group(&layout, rank);
                    prop_assert!(ranks.contains(&rank));
                    prop_assert!(ranks.is_sorted());
                    prop_assert!(size.is_none_or(|size| ranks.len() == size));
                    // Every member sees the same group.
                    prop_assert!(ranks.iter().all(|&peer| group(&layout, peer) == ranks));
                    groups.push(ranks);
                }
                groups.sort();
                groups.dedup();
                let mut members: Vec<usize> = groups.concat();
                members.sort_unstable();
                prop_assert_eq!(members, layout.world_group());
            }
        }

        #[test]
        fn stages_share_the_layers_in_order(layers in 1usize..200, pp in 1usize..64) {
            prop_assume!(pp <= layers);
            let stages: Vec<Range<usize>> = (0..pp).map(|s| stage_layers(layers, pp, s).unwrap()).collect();
            prop_assert_eq!(stages.iter().cloned().flatten().collect::<Vec<_>>(), (0..layers).collect::<Vec<_>>());
            let sizes: Vec<usize> = stages.iter().map(ExactSizeIterator::len).collect();
            prop_assert!(sizes[0] - sizes[pp - 1] <= 1 && sizes.is_sorted_by(|a, b| a >= b));
        }
    }

    #[test]
    fn tensor_is_fastest_then_data_then_pipeline() {
        let layout = Layout::new(2, 4, 3).unwrap();
        assert_eq!(layout.tensor_group(0), [0, 1]);
        assert_eq!(layout.data_group(0), [0, 2, 4]);
        assert_eq!(layout.pipeline_group(0), [0, 6, 12, 18]);
        assert_eq!(layout.embedding_group(0), [0, 18]);
        assert_eq!(layout.embedding_group(6), [6]);
        assert_eq!(layout.coordinates(9), Coordinates { tp: 1, dp: 1, pp: 1 });
    }

    #[test]
    fn mt_nlg_530b_in_its_published_layout() {
        let model = model::presets::find("mt-nlg-530b").unwrap().config;
        let layout = Layout::new(8, 35, 8).unwrap();
        layout.validate(&model, 1, 1920).unwrap();
        assert_eq!(layout.world_size(), 2240);
        assert_eq!(layout.microbatches(1, 1920), 240);
        assert_eq!(stage_layers(model.layers, 35, layout.coordinates(2239).pp).unwrap(), 102..105);
    }

    #[test]
    fn listed_layers_are_taken_in_order() {
        let of = |stage| virtual_stage_layers(6, Some(&[1, 2, 3]), 3, stage).unwrap();
        assert_eq!([0, 1, 2].map(of), [0..1, 1..3, 3..6]);
        let error = virtual_stage_layers(6, Some(&[1, 2]), 3, 0).unwrap_err().to_string();
        assert!(error.contains("[1, 2]") && error.contains("2 stages of 3 layers"), "{error}");
        assert_eq!(virtual_stage_layers(3, Some(&[2, 1, 0]), 3, 2).unwrap(), 3..3);
        assert!(virtual_stage_layers(3, Some(&[2, 0, 1]), 3, 2).is_err());
    }

    #[test]
    fn mistakes_name_the_values_and_the_remedy() {
        let model = GptConfig::new(4, 128, 4, 256, 4096);
        let message = |tp, pp, dp, micro, global| {
            Layout::new(tp, pp, dp)
                .and_then(|layout| layout.validate(&model, micro, global))
                .unwrap_err()
                .to_string()
        };
        assert!(message(0, 1, 1, 1, 1).contains("parallel.tensor is 0"));
        assert!(message(3, 1, 1, 1, 1).contains("parallel.tensor = 3 does not divide model.heads = 4"));
        let stages = message(1, 5, 1, 1, 1);
        assert!(stages.contains("more ranks than layers") && stages.contains("at most 4"), "{stages}");
        let batch = message(1, 1, 2, 2, 6);
        assert!(batch.contains("2 x 2 = 4") && batch.contains("to 4 or 8"), "{batch}");
        assert!(message(1, 1, 1, 0, 6).contains("micro_batch is 0"));
        assert!(message(usize::MAX, 2, 1, 1, 1).contains("more than can be counted"));
    }
}
