//! AdamW over the flat parameter buffers, or over a replica's share of them (ZeRO-1, Rajbhandari et al. 2020).

use std::ops::Range;

use backend::ops::{AdamW, Cast};
use backend::{Backend, Class, Communicator, DType, Group, ReduceOp, Result, Shape, Tensor, View};
use model::ParameterStore;

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

impl AdamWSettings {
    /// The factor that brings gradients of this norm within the limit.
    pub fn clip_factor(&self, norm: f32) -> f32 {
        match self.clip {
            clip if clip > 0.0 && norm > clip => clip / (norm + 1e-6),
            _ => 1.0,
        }
    }
}

/// A rank's optimizer state: Adam's moments, and beside narrower weights a master copy, in the flat order of the parameters.
pub struct Optimizer<B: Backend> {
    settings: AdamWSettings,
    /// What of the flat buffers this replica updates: everything, or its share.
    own: Range<usize>,
    sharded: bool,
    m: Tensor<B::Buffer>,
    v: Tensor<B::Buffer>,
    master: Option<Tensor<B::Buffer>>,
}

impl<B: Backend> Optimizer<B> {
    /// Moments of 0, for share `share.0` of `share.1` of the parameters.
    ///
    /// # Errors
    /// Those of the backend.
    pub fn new(
        backend: &B,
        settings: AdamWSettings,
        parameters: &ParameterStore<B>,
        (index, shares): (usize, usize),
    ) -> Result<Self> {
        let len = parameters.len() / shares;
        let zeros = || -> Result<_> {
            let tensor = backend.alloc(Class::Optimizer, DType::F32, Shape::new(&[len]))?;
            backend.fill(tensor.view(), 0.0)?;
            Ok(tensor)
        };
        let narrow = parameters.values().dtype() != DType::F32;
        Ok(Self {
            settings,
            own: index * len..(index + 1) * len,
            sharded: shares > 1,
            m: zeros()?,
            v: zeros()?,
            master: narrow.then(zeros).transpose()?,
        })
    }

    /// What of the flat buffers this replica updates.
    pub fn own(&self) -> Range<usize> {
        self.own.clone()
    }

    /// Whether replicas share out the state.
    pub fn sharded(&self) -> bool {
        self.sharded
    }

    /// The f32 weights that are updated: the parameters themselves, or their master copy.
    ///
    /// # Errors
    /// None: the range lies in the parameters.
    pub fn weights<'v>(&'v self, parameters: &'v ParameterStore<B>) -> Result<View<'v, B::Buffer>> {
        match &self.master {
            Some(master) => Ok(master.view()),
            None => parameters.values().rows(self.own.start, self.own.len()),
        }
    }

    /// The master copy, if there is one, and Adam's first and second moments: this replica's share.
    pub fn state(&self) -> [Option<View<'_, B::Buffer>>; 3] {
        [self.master.as_ref().map(Tensor::view), Some(self.m.view()), Some(self.v.view())]
    }

    /// Sums the gradients over the replicas, but for those of the range `done`: everywhere, or where the state is shared out on the replica that owns them.
    ///
    /// # Errors
    /// Those of the communicator.
    pub fn reduce_gradients(
        &self,
        parameters: &ParameterStore<B>,
        communicator: &dyn Communicator<B::Buffer>,
        data: &Group,
        done: &Range<usize>,
    ) -> Result<()> {
        let gradients = parameters.gradients();
        if self.sharded {
            let own = gradients.rows(self.own.start, self.own.len())?;
            return communicator.reduce_scatter(data, gradients, own);
        }
        for range in [0..done.start, done.end..parameters.len()] {
            if !range.is_empty() {
                communicator.all_reduce(data, ReduceOp::Sum, gradients.rows(range.start, range.len())?)?;
            }
        }
        Ok(())
    }

    /// One AdamW step, number `step` from 1; then every replica has all new weights.
    ///
    /// # Errors
    /// Those of the backend and the communicator.
    pub fn step(
        &self,
        backend: &B,
        parameters: &ParameterStore<B>,
        (communicator, data): (&dyn Communicator<B::Buffer>, &Group),
        lr: f32,
        grad_scale: f32,
        step: u32,
    ) -> Result<()> {
        let AdamWSettings { beta1, beta2, eps, weight_decay, .. } = self.settings;
        let (decayed, own) = (parameters.decayed(), &self.own);
        let middle = decayed.clamp(own.start, own.end);
        let weights = self.weights(parameters)?;
        for (range, weight_decay) in [(own.start..middle, weight_decay), (middle..own.end, 0.0)] {
            if range.is_empty() {
                continue;
            }
            let (first, count) = (range.start - own.start, range.len());
            backend.adamw(AdamW {
                param: weights.rows(first, count)?,
                grad: parameters.gradients().rows(range.start, count)?,
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
        let values = parameters.values();
        let updated = values.rows(own.start, own.len())?;
        if let Some(master) = &self.master {
            backend.cast(Cast { src: master.view(), dst: updated })?;
        }
        if self.sharded {
            communicator.all_gather(data, updated, values)?;
        }
        Ok(())
    }
}
