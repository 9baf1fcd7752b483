//! A backend whose operations are timed: each is waited for. On the CPU an operation's time is its thread's own, so that what else runs on the machine does
//! not count; on a device, which works while the thread waits, it is the clock's.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use backend::ops::{
    AdamW, Add, Attention, AttentionBackward, AttentionCached, BiasAdd, BiasBackward, BiasDropoutResidual,
    BiasGelu, BlockSquares, Cast, CrossEntropyBackward, CrossEntropyLoss, CrossEntropyMax, CrossEntropySums,
    Dropout, Embedding, EmbeddingBackward, Gelu, GeluBackward, LayerNorm, LayerNormBackward, Matmul,
    MatmulBias, MatmulBiasGelu, Scratch, Sum,
};
use backend::{Backend, Class, DType, Info, ReduceOp, Result, Shape, Support, Tensor, Usage, View};

/// An operation and how long it took.
pub type Timing = (&'static str, f64);

/// A rank's backend, with the seconds of every operation that it was asked for.
pub struct Timed<B> {
    inner: Arc<B>,
    on_thread: bool,
    origin: Instant,
    log: Mutex<Vec<Timing>>,
}

impl<B: Backend> Timed<B> {
    /// Round that backend.
    pub fn new(inner: Arc<B>) -> Self {
        let on_thread = inner.info().backend == "cpu";
        Self { inner, on_thread, origin: Instant::now(), log: Mutex::default() }
    }

    /// Seconds of the clock that operations are timed by.
    pub fn clock(&self) -> f64 {
        match self.on_thread {
            true => thread_seconds(),
            false => self.origin.elapsed().as_secs_f64(),
        }
    }

    /// What was timed since the last call.
    pub fn take(&self) -> Vec<Timing> {
        std::mem::take(&mut self.log.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn time(&self, op: &'static str, body: impl FnOnce() -> Result<()>) -> Result<()> {
        let begin = self.clock();
        body()?;
        self.inner.sync()?;
        let seconds = self.clock() - begin;
        self.log.lock().unwrap_or_else(PoisonError::into_inner).push((op, seconds));
        Ok(())
    }
}

/// Seconds that this thread has been on a processor.
fn thread_seconds() -> f64 {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    time.tv_sec as f64 + 1e-9 * time.tv_nsec as f64
}

/// Operations that are passed on and timed.
macro_rules! timed {
    ($($op:ident: $args:ident),* $(,)?) => {$(
        fn $op(&self, args: $args<'_, B::Buffer>) -> Result<()> {
            self.time(stringify!($op), || self.inner.$op(args))
        }
    )*};
}

impl<B: Backend> Backend for Timed<B> {
    type Buffer = B::Buffer;

    fn info(&self) -> Info {
        self.inner.info()
    }

    fn now(&self) -> Instant {
        self.inner.now()
    }

    fn support(&self, op: &str) -> Support {
        self.inner.support(op)
    }

    fn alloc(&self, class: Class, dtype: DType, shape: Shape) -> Result<Tensor<B::Buffer>> {
        self.inner.alloc(class, dtype, shape)
    }

    fn usage(&self, class: Class) -> Usage {
        self.inner.usage(class)
    }

    fn workspace(&self, scratch: Scratch) -> usize {
        self.inner.workspace(scratch)
    }

    fn write(&self, dst: View<'_, B::Buffer>, data: &[u8]) -> Result<()> {
        self.inner.write(dst, data)
    }

    fn read(&self, src: View<'_, B::Buffer>, data: &mut [u8]) -> Result<()> {
        self.inner.read(src, data)
    }

    fn sync(&self) -> Result<()> {
        self.inner.sync()
    }

    fn fill(&self, x: View<'_, B::Buffer>, value: f32) -> Result<()> {
        self.time("fill", || self.inner.fill(x, value))
    }

    fn copy(&self, src: View<'_, B::Buffer>, dst: View<'_, B::Buffer>) -> Result<()> {
        self.time("copy", || self.inner.copy(src, dst))
    }

    fn scale(&self, x: View<'_, B::Buffer>, alpha: f32) -> Result<()> {
        self.time("scale", || self.inner.scale(x, alpha))
    }

    fn reduce(
        &self,
        op: ReduceOp,
        inputs: &[View<'_, B::Buffer>],
        outputs: &[View<'_, B::Buffer>],
    ) -> Result<()> {
        self.time("reduce", || self.inner.reduce(op, inputs, outputs))
    }

    timed! {
        add: Add, cast: Cast, matmul: Matmul, matmul_bias: MatmulBias, matmul_bias_gelu: MatmulBiasGelu, bias_add: BiasAdd,
        bias_gelu: BiasGelu, bias_backward: BiasBackward, bias_dropout_residual: BiasDropoutResidual, gelu: Gelu,
        gelu_backward: GeluBackward, dropout: Dropout, layernorm: LayerNorm, layernorm_backward: LayerNormBackward,
        attention: Attention, attention_backward: AttentionBackward,
        attention_cached: AttentionCached, embedding: Embedding,
        embedding_backward: EmbeddingBackward, cross_entropy_max: CrossEntropyMax, cross_entropy_sums: CrossEntropySums,
        cross_entropy_loss: CrossEntropyLoss, cross_entropy_backward: CrossEntropyBackward, adamw: AdamW, sum: Sum,
        block_squares: BlockSquares,
    }
}
