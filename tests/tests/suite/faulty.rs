//! A backend with one fault: the CPU backend, and something done wrong around one operation.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use backend::ops::*;
use backend::{Backend, Class, DType, ReduceOp, Result, Support, View};
use backend_cpu::{CpuBackend, CpuBuffer};

/// What is wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// Nothing.
    None,
    /// `matmul` rounds its left factor to ten bits of mantissa.
    NarrowProduct,
    /// `matmul` with `beta = 0` multiplies by it instead of overwriting.
    BetaZeroReads,
    /// `matmul` writes one element past its result.
    WritesPastEnd,
    /// `matmul` leaves its right factor changed.
    WritesInput,
    /// Every other `matmul` has one bit of its last element another way.
    Unsteady,
    /// `matmul` cuts off what a result of 16 bits has no room for, instead of rounding it.
    Truncates,
    /// `matmul` answers every wrong call with success.
    NoCheck,
    /// `layernorm` takes its variance in one pass.
    OnePassVariance,
    /// `dropout` counts elements in 32 bits.
    ShortCounter,
    /// `embedding_backward` overwrites where it should add.
    Overwrites,
    /// `reduce` adds in the opposite order.
    OtherOrder,
    /// `adamw` forgets the correction of the second moment.
    Uncorrected,
    /// `cross_entropy_max` loses NaN.
    LosesNan,
    /// `reduce` leaves the last element out.
    ShortReduce,
    /// `sum` needs more workspace than it says, and writes there.
    Workspace,
}

/// The CPU backend with that fault.
pub struct Faulty {
    inner: Arc<CpuBackend>,
    fault: Fault,
    calls: AtomicUsize,
}

type V<'a> = View<'a, CpuBuffer>;

impl Faulty {
    /// The backend with that fault.
    pub fn new(fault: Fault) -> Self {
        Self { inner: CpuBackend::new(1), fault, calls: AtomicUsize::new(0) }
    }

    fn get(&self, view: V<'_>) -> Result<Vec<f32>> {
        let mut data = vec![0.0_f32; view.len()];
        self.inner.read(view, bytemuck::cast_slice_mut(&mut data))?;
        Ok(data)
    }

    fn set(&self, view: V<'_>, data: &[f32]) -> Result<()> {
        self.inner.write(view, bytemuck::cast_slice(data))
    }

    /// The element after the window.
    fn past<'a>(&self, view: V<'a>) -> Result<V<'a>> {
        View::new(view.buffer(), DType::F32, view.offset() + view.len(), [1])
    }
}

impl Backend for Faulty {
    type Buffer = CpuBuffer;

    fn support(&self, _op: &str) -> Support {
        Support::Composed
    }

    fn reduce<'a>(&self, op: ReduceOp, inputs: &[V<'a>], outputs: &[V<'a>]) -> Result<()> {
        let mut inputs = inputs.to_vec();
        if self.fault == Fault::OtherOrder {
            inputs.reverse();
        }
        let short = |view: &V<'a>| view.reshape([view.len()])?.rows(0, view.len().saturating_sub(1));
        if self.fault == Fault::ShortReduce {
            let inputs = inputs.iter().map(short).collect::<Result<Vec<_>>>()?;
            let outputs = outputs.iter().map(short).collect::<Result<Vec<_>>>()?;
            return self.inner.reduce(op, &inputs, &outputs);
        }
        self.inner.reduce(op, &inputs, outputs)
    }

    fn matmul(&self, args: Matmul<'_, CpuBuffer>) -> Result<()> {
        let (b, c) = (args.b, args.c);
        let call = self.calls.fetch_add(1, Relaxed);
        match self.fault {
            Fault::NoCheck if args.check().is_err() => Ok(()),
            Fault::NarrowProduct => {
                let rounded: Vec<f32> = self
                    .get(args.a)?
                    .iter()
                    .map(|x| f32::from_bits((x.to_bits() + 0x1000) & !0x1fff))
                    .collect();
                let copy = self.inner.alloc(Class::Workspace, DType::F32, args.a.shape())?;
                self.set(copy.view(), &rounded)?;
                self.inner.matmul(Matmul { a: copy.view(), ..args })
            }
            Fault::BetaZeroReads if args.beta == 0.0 => {
                let before = self.get(c)?;
                self.inner.matmul(args)?;
                let after: Vec<f32> = self.get(c)?.iter().zip(before).map(|(c, b)| c + 0.0 * b).collect();
                self.set(c, &after)
            }
            Fault::WritesPastEnd => {
                self.inner.matmul(args)?;
                self.set(self.past(c)?, &[0.0])
            }
            Fault::WritesInput if !b.is_empty() => {
                self.inner.matmul(args)?;
                let mut data = self.get(b)?;
                data[0] += 1.0;
                self.set(b, &data)
            }
            Fault::Truncates if c.dtype() == DType::Bf16 && args.beta == 0.0 => {
                let sums = self.inner.alloc(Class::Workspace, DType::F32, c.shape())?;
                self.inner.matmul(Matmul { c: sums.view(), ..args })?;
                let cut: Vec<u16> =
                    self.get(sums.view())?.iter().map(|x| (x.to_bits() >> 16) as u16).collect();
                self.inner.write(c, bytemuck::cast_slice(&cut))
            }
            Fault::Unsteady if call % 2 == 1 => {
                self.inner.matmul(args)?;
                let mut data = self.get(c)?;
                data.iter_mut()
                    .next_back()
                    .into_iter()
                    .for_each(|last| *last = f32::from_bits(last.to_bits() ^ 1));
                self.set(c, &data)
            }
            _ => self.inner.matmul(args),
        }
    }

    fn layernorm(&self, args: LayerNorm<'_, CpuBuffer>) -> Result<()> {
        let [_, h] = args.check()?;
        if self.fault != Fault::OnePassVariance {
            return self.inner.layernorm(args);
        }
        let (x, gamma, beta) = (self.get(args.x)?, self.get(args.gamma)?, self.get(args.beta)?);
        let (mut y, mut means, mut rstds) = (Vec::new(), Vec::new(), Vec::new());
        for row in x.chunks(h) {
            let mean = row.iter().sum::<f32>() / h as f32;
            let squares = row.iter().map(|x| x * x).sum::<f32>() / h as f32;
            let rstd = 1.0 / ((squares - mean * mean).max(0.0) + args.eps).sqrt();
            y.extend(
                row.iter().zip(&gamma).zip(&beta).map(|((x, gamma), beta)| (x - mean) * rstd * gamma + beta),
            );
            means.push(mean);
            rstds.push(rstd);
        }
        self.set(args.y, &y)?;
        self.set(args.mean, &means)?;
        self.set(args.rstd, &rstds)
    }

    fn dropout(&self, mut args: Dropout<'_, CpuBuffer>) -> Result<()> {
        if self.fault == Fault::ShortCounter {
            args.mask.first = u64::from(args.mask.first as u32);
        }
        self.inner.dropout(args)
    }

    fn embedding_backward(&self, args: EmbeddingBackward<'_, CpuBuffer>) -> Result<()> {
        args.check()?;
        if self.fault == Fault::Overwrites {
            self.inner.fill(args.dtable, 0.0)?;
        }
        self.inner.embedding_backward(args)
    }

    fn adamw(&self, mut args: AdamW<'_, CpuBuffer>) -> Result<()> {
        args.check()?;
        if self.fault == Fault::Uncorrected {
            // As if the second moment's correction were 1: lr sqrt(correction) instead of lr.
            args.lr *= args.bias_corrections()[1].sqrt();
        }
        self.inner.adamw(args)
    }

    fn cross_entropy_max(&self, args: CrossEntropyMax<'_, CpuBuffer>) -> Result<()> {
        let [_, v] = args.check()?;
        if self.fault != Fault::LosesNan {
            return self.inner.cross_entropy_max(args);
        }
        let max = |row: &[f32]| row.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        let maxima: Vec<f32> = self.get(args.logits)?.chunks(v).map(max).collect();
        self.set(args.max, &maxima)
    }

    fn sum(&self, args: Sum<'_, CpuBuffer>) -> Result<()> {
        let workspace = args.workspace;
        self.inner.sum(args)?;
        match self.fault {
            Fault::Workspace => self.set(self.past(workspace)?, &[0.0]),
            _ => Ok(()),
        }
    }

    conformance::pass_on! {
        add: Add;
        bias_add: BiasAdd;
        bias_backward: BiasBackward;
        gelu: Gelu;
        gelu_backward: GeluBackward;
        layernorm_backward: LayerNormBackward;
        attention: Attention;
        attention_backward: AttentionBackward;
        attention_cached: AttentionCached;
        embedding: Embedding;
        cross_entropy_sums: CrossEntropySums;
        cross_entropy_loss: CrossEntropyLoss;
        cross_entropy_backward: CrossEntropyBackward;
        block_squares: BlockSquares;
        cast: Cast;
    }
}
