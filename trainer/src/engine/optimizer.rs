//! Gradient norm, clipping and AdamW over the flat parameter buffers.

use backend::ops::{AdamW, SumSquares};
use backend::{Backend, Class, DType, Result, Shape, Tensor, View};
use model::{ParameterStore, Shard};

/// AdamW's settings that do not change from step to step.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct AdamWSettings {
    /// Decay of the first moment.
    pub beta1: f32,
    /// Decay of the second moment.
    pub beta2: f32,
    /// Added to the root of the second moment.
    pub eps: f32,
    /// Decoupled weight decay, on matrices only.
    pub weight_decay: f32,
    /// Largest global gradient norm; 0 for no clipping.
    pub clip: f32,
}

/// A rank's optimizer state: Adam's moments beside the parameters, in the same flat order.
pub struct Optimizer<B: Backend> {
    settings: AdamWSettings,
    m: Tensor<B::Buffer>,
    v: Tensor<B::Buffer>,
}

impl<B: Backend> Optimizer<B> {
    /// Moments of 0.
    ///
    /// # Errors
    /// Those of the backend.
    pub fn new(backend: &B, settings: AdamWSettings, parameters: &ParameterStore<B>) -> Result<Self> {
        let zeros = || -> Result<_> {
            let tensor = backend.alloc(Class::Optimizer, DType::F32, Shape::new(&[parameters.len()]))?;
            backend.fill(tensor.view(), 0.0)?;
            Ok(tensor)
        };
        Ok(Self { settings, m: zeros()?, v: zeros()? })
    }

    /// First and second moments, flat.
    pub fn moments(&self) -> [View<'_, B::Buffer>; 2] {
        [self.m.view(), self.v.view()]
    }

    /// `out[0] += sum of squares of the gradients that this rank counts`.
    ///
    /// # Errors
    /// Those of the backend.
    pub fn add_squares(
        &self,
        backend: &B,
        parameters: &ParameterStore<B>,
        shard: &Shard,
        out: View<'_, B::Buffer>,
        workspace: View<'_, B::Buffer>,
    ) -> Result<()> {
        for range in parameters.counted(shard) {
            let x = parameters.gradients().rows(range.start, range.len())?;
            backend.sum_squares(SumSquares { x, out, beta: 1.0, workspace })?;
        }
        Ok(())
    }

    /// The factor that brings gradients of this norm within the limit.
    pub fn clip_factor(&self, norm: f32) -> f32 {
        match self.settings.clip {
            clip if clip > 0.0 && norm > clip => clip / (norm + 1e-6),
            _ => 1.0,
        }
    }

    /// One AdamW step, number `step` from 1.
    ///
    /// # Errors
    /// Those of the backend.
    pub fn step(
        &self,
        backend: &B,
        parameters: &ParameterStore<B>,
        lr: f32,
        grad_scale: f32,
        step: u32,
    ) -> Result<()> {
        let AdamWSettings { beta1, beta2, eps, weight_decay, .. } = self.settings;
        let (decayed, len) = (parameters.decayed(), parameters.len());
        for (first, count, weight_decay) in [(0, decayed, weight_decay), (decayed, len - decayed, 0.0)] {
            if count == 0 {
                continue;
            }
            backend.adamw(AdamW {
                param: parameters.values().rows(first, count)?,
                grad: parameters.gradients().rows(first, count)?,
                m: self.m.view().rows(first, count)?,
                v: self.v.view().rows(first, count)?,
                lr,
                beta1,
                beta2,
                eps,
                weight_decay,
                grad_scale,
                step,
            })?;
        }
        Ok(())
    }
}
