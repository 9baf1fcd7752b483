//! A parallel run with one fault: the CPU backend and its collectives, and something done wrong.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::Duration;

use backend::local::{self, LocalCommunicator};
use backend::ops::*;
use backend::{Backend, ReduceOp, Result, Support, View};
use backend_cpu::{CpuBackend, CpuBuffer};
use trainer::engine::Samples;

/// What is wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// Nothing.
    None,
    /// One sum of partial results is left out: a rank goes on with its own.
    DroppedAllReduce,
    /// The bias behind a row-parallel product is added twice.
    DoubledBias,
    /// Two microbatches of each step change places.
    SwappedMicrobatch,
    /// The dropout on the attention's probabilities counts the rank's own heads from 0.
    LocalDropoutKey,
}

impl Fault {
    /// Each one.
    pub const ALL: [Self; 4] =
        [Self::DroppedAllReduce, Self::DoubledBias, Self::SwappedMicrobatch, Self::LocalDropoutKey];

    /// The run's samples, with the fault.
    pub fn samples<'a>(self, right: &'a dyn Samples, global_batch: u64) -> impl Samples + 'a {
        SwappedSamples { right, global_batch, swapped: self == Self::SwappedMicrobatch }
    }
}

struct SwappedSamples<'a> {
    right: &'a dyn Samples,
    global_batch: u64,
    swapped: bool,
}

impl Samples for SwappedSamples<'_> {
    fn read(&self, index: u64, out: &mut [u32]) -> std::result::Result<(), String> {
        // The same samples in every step: only the order in which their gradients are added is another one.
        let index = match index % self.global_batch {
            1 if self.swapped => index + 1,
            2 if self.swapped => index - 1,
            _ => index,
        };
        self.right.read(index, out)
    }
}

/// A rank's backend.
pub struct Faulty {
    inner: Arc<CpuBackend>,
    fault: Fault,
    dropped: AtomicBool,
}

/// Ranks on the CPU; the last one has the fault.
pub fn faulty(ranks: usize, fault: Fault) -> Vec<LocalCommunicator<Faulty>> {
    let fault = |rank| if rank + 1 == ranks { fault } else { Fault::None };
    let backend = |rank| {
        Arc::new(Faulty { inner: CpuBackend::new(1), fault: fault(rank), dropped: AtomicBool::new(false) })
    };
    let backends: Vec<Arc<Faulty>> = (0..ranks).map(backend).collect();
    local::connect(&backends, Duration::from_secs(60))
}

type V<'a> = View<'a, CpuBuffer>;

impl Backend for Faulty {
    type Buffer = CpuBuffer;

    fn support(&self, op: &str) -> Support {
        self.inner.support(op)
    }

    fn reduce(&self, op: ReduceOp, inputs: &[V<'_>], outputs: &[V<'_>]) -> Result<()> {
        // Between ranks every input is an output too; the first such sum of two is the one that is lost.
        let between_ranks = inputs.len() == 2 && outputs.len() == 2 && op == ReduceOp::Sum;
        if self.fault == Fault::DroppedAllReduce && between_ranks && !self.dropped.swap(true, Relaxed) {
            return Ok(());
        }
        self.inner.reduce(op, inputs, outputs)
    }

    fn bias_dropout_residual(&self, args: BiasDropoutResidual<'_, CpuBuffer>) -> Result<()> {
        if self.fault == Fault::DoubledBias {
            self.inner.bias_add(BiasAdd { x: args.x, bias: args.bias })?;
        }
        self.inner.bias_dropout_residual(args)
    }

    fn attention(&self, mut args: Attention<'_, CpuBuffer>) -> Result<()> {
        args.dropout = args.dropout.map(|mask| self.mask(mask));
        self.inner.attention(args)
    }

    fn attention_backward(&self, mut args: AttentionBackward<'_, CpuBuffer>) -> Result<()> {
        args.dropout = args.dropout.map(|mask| self.mask(mask));
        self.inner.attention_backward(args)
    }

    conformance::pass_on! {
        add: Add;
        cast: Cast;
        matmul: Matmul;
        bias_add: BiasAdd;
        bias_backward: BiasBackward;
        gelu: Gelu;
        gelu_backward: GeluBackward;
        dropout: Dropout;
        layernorm: LayerNorm;
        layernorm_backward: LayerNormBackward;
        attention_cached: AttentionCached;
        embedding: Embedding;
        embedding_backward: EmbeddingBackward;
        cross_entropy_max: CrossEntropyMax;
        cross_entropy_sums: CrossEntropySums;
        cross_entropy_loss: CrossEntropyLoss;
        cross_entropy_backward: CrossEntropyBackward;
        adamw: AdamW;
        sum: Sum;
        block_squares: BlockSquares;
        matmul_bias: MatmulBias;
        matmul_bias_gelu: MatmulBiasGelu;
        bias_gelu: BiasGelu;
    }
}

impl Faulty {
    fn mask(&self, mask: AttentionDropout) -> AttentionDropout {
        match self.fault {
            Fault::LocalDropoutKey => AttentionDropout { first_head: mask.first_head % 4, ..mask },
            _ => mask,
        }
    }
}
