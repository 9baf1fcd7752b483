//! Final LayerNorm, logits by the tied embedding, and the vocabulary-parallel cross-entropy (Shoeybi et al. 2019, section 3): the model's end.

use backend::ops::{CrossEntropyBackward, CrossEntropyLoss, CrossEntropyMax, CrossEntropySums, Matmul, Sum};
use backend::{Backend, Class, DType, Result, Shape, Tensor, View};

use super::{Context, Dims, Norm, NormActivations};
use crate::ParameterStore;
use crate::store::Handle;

/// The end of the last stage.
#[derive(Clone, Copy, Debug)]
pub struct Head {
    norm: Norm,
    token: Handle,
}

/// What the backward needs beside the input.
pub struct HeadActivations<B: Backend> {
    norm: NormActivations<B>,
    /// `[t]`: the next tokens.
    pub targets: Tensor<B::Buffer>,
    /// `[t, v]`: this rank's logits, and in the backward their gradient.
    pub logits: Tensor<B::Buffer>,
    /// `[t]`: the rows' maximum.
    max: Tensor<B::Buffer>,
    /// `[2, t]`: sums of exponentials and target logits, together so that one all-reduce takes both.
    sums: Tensor<B::Buffer>,
    /// `[t]`: loss of each token.
    pub loss: Tensor<B::Buffer>,
}

impl<B: Backend> HeadActivations<B> {
    /// Memory for one microbatch.
    ///
    /// # Errors
    /// Those of the backend.
    pub fn new(backend: &B, dims: &Dims) -> Result<Self> {
        let tensor = |dtype, extents: &[usize]| backend.alloc(Class::Activations, dtype, Shape::new(extents));
        let t = dims.tokens();
        Ok(Self {
            norm: NormActivations::new(backend, dims)?,
            targets: tensor(DType::U32, &[t])?,
            logits: tensor(DType::F32, &[t, dims.vocab])?,
            max: tensor(DType::F32, &[t])?,
            sums: tensor(DType::F32, &[2, t])?,
            loss: tensor(DType::F32, &[t])?,
        })
    }

    /// `[t]` each: sums of exponentials, target logits.
    fn sums(&self) -> Result<[View<'_, B::Buffer>; 2]> {
        let [sum_exp, target] =
            [0, 1].map(|i| self.sums.view().rows(i, 1).and_then(|row| row.reshape([self.loss.len()])));
        Ok([sum_exp?, target?])
    }
}

impl Head {
    /// The head of a last stage.
    pub fn new<B: Backend>(store: &ParameterStore<B>) -> Self {
        let token = store.find("embedding.token.weight").expect("a last stage holds the tied embedding");
        Self { norm: Norm::new(store, "final_ln"), token }
    }

    /// `logits = ln(x) E^T`: `x [t, h]`, `kept.logits [t, v]`.
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
        cx.backend.matmul(Matmul {
            a: kept.norm.y.view(),
            b: cx.parameters.value(self.token),
            c: kept.logits.view(),
            trans_a: false,
            trans_b: true,
            alpha: 1.0,
            beta: 0.0,
        })
    }

    /// The logits, and `total[0] += weight sum_t loss[t]`.
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
        let (logits, targets, max, loss) =
            (kept.logits.view(), kept.targets.view(), kept.max.view(), kept.loss.view());
        let [sum_exp, target] = kept.sums()?;
        let first_column = cx.shard.first_row(cx.config);

        cx.backend.cross_entropy_max(CrossEntropyMax { logits, max })?;
        cx.tensor.max(max)?;
        cx.backend.cross_entropy_sums(CrossEntropySums {
            logits,
            targets,
            first_column,
            max,
            sum_exp,
            target,
        })?;
        cx.tensor.sum(kept.sums.view())?;
        cx.backend.cross_entropy_loss(CrossEntropyLoss { sum_exp, target, loss })?;
        cx.backend.sum(Sum { x: loss, out: total, alpha: weight, beta: 1.0, workspace: cx.workspace() })
    }

    /// Gradient of `weight sum_t loss[t]` with respect to the input into `d [t, h]`; the logits are spent.
    ///
    /// # Errors
    /// Those of the backend and the group.
    pub fn backward<B: Backend>(
        &self,
        cx: &Context<'_, B>,
        x: View<'_, B::Buffer>,
        kept: &HeadActivations<B>,
        weight: f32,
        d: View<'_, B::Buffer>,
    ) -> Result<()> {
        let [sum_exp, _] = kept.sums()?;
        let (logits, d_norm) = (kept.logits.view(), cx.scratch.d_norm.view());
        cx.backend.cross_entropy_backward(CrossEntropyBackward {
            logits,
            targets: kept.targets.view(),
            first_column: cx.shard.first_row(cx.config),
            max: kept.max.view(),
            sum_exp,
            scale: weight,
            dlogits: logits,
        })?;
        cx.backend.matmul(Matmul {
            a: logits,
            b: cx.parameters.value(self.token),
            c: d_norm,
            trans_a: false,
            trans_b: false,
            alpha: 1.0,
            beta: 0.0,
        })?;
        cx.tensor.sum(d_norm)?;
        cx.backend.matmul(Matmul {
            a: logits,
            b: kept.norm.y.view(),
            c: cx.parameters.gradient(self.token),
            trans_a: true,
            trans_b: false,
            alpha: 1.0,
            beta: 1.0,
        })?;
        self.norm.backward(cx, x, &kept.norm, d_norm, d, false)
    }
}
