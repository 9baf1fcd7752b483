//! Final LayerNorm, logits by the tied embedding, and the vocabulary-parallel cross-entropy (Shoeybi et al. 2019, section 3): the model's end.

use backend::ops::{CrossEntropyBackward, CrossEntropyLoss, CrossEntropyMax, CrossEntropySums, Sum};
use backend::{Backend, Class, DType, ReduceOp, Result, Shape, Tensor, View};

use super::linear::{product, weight_gradient};
use super::{Chunked, Context, Dims, Norm, NormActivations};
use crate::ParameterStore;
use crate::store::Handle;

/// The end of the last stage.
#[derive(Clone, Debug)]
pub struct Head {
    norm: Norm,
    token: Vec<Handle>,
}

/// What the backward needs beside the input.
pub struct HeadActivations<B: Backend> {
    norm: NormActivations<B>,
    /// `[t]`: the next tokens.
    pub targets: Tensor<B::Buffer>,
    /// `[t, v]` a chunk: this rank's logits, f32.
    pub logits: Chunked<B>,
    /// `[t]` a chunk: the rows' maximum; the first one becomes the group's.
    max: Chunked<B>,
    /// `[2, t]` a chunk: sums of exponentials, and target logits less the maximum, together so that one all-reduce takes both; the first one becomes the group's.
    sums: Chunked<B>,
    /// `[t]`: loss of each token.
    pub loss: Tensor<B::Buffer>,
}

/// What the weight's gradient needs beside the activations.
pub struct HeadGradients<B: Backend> {
    /// `[t, v]` a chunk: the logits' gradient; where activations are f32 it takes the logits' place.
    d_logits: Option<Chunked<B>>,
}

impl<B: Backend> HeadActivations<B> {
    /// Memory for one microbatch.
    ///
    /// # Errors
    /// Those of the backend.
    pub fn new(backend: &B, dims: &Dims) -> Result<Self> {
        let (t, class) = (dims.tokens(), Class::Activations);
        let chunked = |shape: &[usize]| Chunked::new(backend, class, DType::F32, dims.chunks, shape);
        Ok(Self {
            norm: NormActivations::new(backend, dims, class)?,
            targets: backend.alloc(class, DType::U32, Shape::new(&[t]))?,
            logits: chunked(&[t, dims.vocab])?,
            max: chunked(&[t])?,
            sums: chunked(&[2, t])?,
            loss: backend.alloc(class, DType::F32, Shape::new(&[t]))?,
        })
    }

    /// `[t]`, behind [`Head::losses`]: the target's logit less the largest one of its row, 0 where no other is larger.
    ///
    /// # Errors
    /// None: it is a window of what is there.
    pub fn target_below_largest(&self) -> Result<View<'_, B::Buffer>> {
        let [_, target] = self.sums(0)?;
        Ok(target)
    }

    /// `[t]` each: a chunk's sums of exponentials, its target logits.
    fn sums(&self, chunk: usize) -> Result<[View<'_, B::Buffer>; 2]> {
        let [sum_exp, target] =
            [0, 1].map(|i| self.sums.at(chunk).rows(i, 1).and_then(|row| row.reshape([self.loss.len()])));
        Ok([sum_exp?, target?])
    }
}

impl<B: Backend> HeadGradients<B> {
    /// Memory for one microbatch.
    ///
    /// # Errors
    /// Those of the backend.
    pub fn new(backend: &B, dims: &Dims, class: Class) -> Result<Self> {
        let shape = [dims.tokens(), dims.vocab];
        let narrow = dims.dtype != DType::F32;
        let d_logits = narrow.then(|| Chunked::new(backend, class, dims.dtype, dims.chunks, &shape));
        Ok(Self { d_logits: d_logits.transpose()? })
    }

    fn d_logits<'v>(&'v self, kept: &'v HeadActivations<B>) -> &'v Chunked<B> {
        self.d_logits.as_ref().unwrap_or(&kept.logits)
    }
}

impl Head {
    /// The head of a last stage.
    pub fn new<B: Backend>(store: &ParameterStore<B>) -> Self {
        Self { norm: Norm::new(store, "final_ln"), token: store.find("embedding.token.weight") }
    }

    /// `logits = ln(x) E^T`: `x [t', h]`, `kept.logits [t, v]` a chunk.
    ///
    /// # Errors
    /// Those of the backend.
    pub fn logits<B: Backend>(
        &self,
        cx: &Context<'_, B>,
        x: View<'_, B::Buffer>,
        kept: &HeadActivations<B>,
    ) -> Result<()> {
        self.norm.forward(cx, x, &kept.norm)?;
        let y = cx.gathered(kept.norm.y.view(), cx.scratch.whole.view())?;
        let mut chunks = self.token.iter().zip(kept.logits.iter());
        chunks.try_for_each(|(&table, logits)| product(cx, y, cx.parameters.value(table), logits, true))
    }

    /// The logits, and `total[0] = weight sum_t loss[t]`.
    ///
    /// # Errors
    /// Those of the backend and the group.
    pub fn forward<B: Backend>(
        &self,
        cx: &Context<'_, B>,
        x: View<'_, B::Buffer>,
        kept: &HeadActivations<B>,
        weight: f32,
        total: View<'_, B::Buffer>,
    ) -> Result<()> {
        self.logits(cx, x, kept)?;
        self.losses(cx, kept)?;
        let x = kept.loss.view();
        cx.backend.sum(Sum { x, out: total, alpha: weight, beta: 0.0, workspace: cx.workspace() })
    }

    /// `loss[t]` from the logits: `ln sum_v exp(logits[t, v]) - logits[t, target]`, over the whole vocabulary.
    ///
    /// # Errors
    /// Those of the backend and the group.
    pub fn losses<B: Backend>(&self, cx: &Context<'_, B>, kept: &HeadActivations<B>) -> Result<()> {
        let (targets, loss) = (kept.targets.view(), kept.loss.view());
        for (logits, max) in kept.logits.iter().zip(kept.max.iter()) {
            cx.backend.cross_entropy_max(CrossEntropyMax { logits, max })?;
        }
        let max = kept.max.at(0);
        self.combine(cx, ReduceOp::Max, &kept.max)?;
        cx.tensor.max(max)?;
        for (chunk, logits) in kept.logits.iter().enumerate() {
            let ([sum_exp, target], first_column) = (kept.sums(chunk)?, cx.first_row(chunk));
            cx.backend.cross_entropy_sums(CrossEntropySums {
                logits,
                targets,
                first_column,
                max,
                sum_exp,
                target,
            })?;
        }
        self.combine(cx, ReduceOp::Sum, &kept.sums)?;
        cx.tensor.sum(kept.sums.at(0))?;
        let [sum_exp, target] = kept.sums(0)?;
        cx.backend.cross_entropy_loss(CrossEntropyLoss { sum_exp, target, loss })
    }

    /// This rank's chunks into the first of them.
    fn combine<B: Backend>(&self, cx: &Context<'_, B>, op: ReduceOp, chunks: &Chunked<B>) -> Result<()> {
        match chunks.len() {
            1 => Ok(()),
            _ => cx.backend.reduce(op, &chunks.iter().collect::<Vec<_>>(), &[chunks.at(0)]),
        }
    }

    /// Gradient of `weight sum_t loss[t]` with respect to the input into `d [t', h]`, that of the logits left in `gradients`.
    ///
    /// # Errors
    /// Those of the backend and the group.
    pub fn backward_input<B: Backend>(
        &self,
        cx: &Context<'_, B>,
        x: View<'_, B::Buffer>,
        kept: &HeadActivations<B>,
        gradients: &HeadGradients<B>,
        weight: f32,
        d: View<'_, B::Buffer>,
    ) -> Result<()> {
        let ([sum_exp, _], d_norm) = (kept.sums(0)?, cx.scratch.d_norm.view());
        let d_logits = gradients.d_logits(kept);
        for (chunk, &table) in self.token.iter().enumerate() {
            let dlogits = d_logits.at(chunk);
            cx.backend.cross_entropy_backward(CrossEntropyBackward {
                logits: kept.logits.at(chunk),
                targets: kept.targets.view(),
                first_column: cx.first_row(chunk),
                max: kept.max.at(0),
                sum_exp,
                scale: weight,
                dlogits,
            })?;
            product(cx, dlogits, cx.parameters.value(table), cx.partial(chunk, d_norm), false)?;
        }
        cx.sum_partials(d_norm)?;
        self.norm.backward(cx, x, &kept.norm, d_norm, d, false)
    }

    /// The table's gradient, from what [`backward_input`](Self::backward_input) left.
    ///
    /// # Errors
    /// Those of the backend and the group.
    pub fn backward_weight<B: Backend>(
        &self,
        cx: &Context<'_, B>,
        kept: &HeadActivations<B>,
        gradients: &HeadGradients<B>,
    ) -> Result<()> {
        let y = cx.gathered(kept.norm.y.view(), cx.scratch.whole.view())?;
        let mut chunks = self.token.iter().zip(gradients.d_logits(kept).iter());
        chunks.try_for_each(|(&table, d)| weight_gradient(cx, d, y, cx.parameters.head_gradient(table)))
    }
}
