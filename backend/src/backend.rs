//! The trait that a backend implements.

use std::time::{Duration, Instant};

use crate::ops::{
    AdamW, Add, Attention, AttentionBackward, AttentionCached, BiasAdd, BiasBackward, BiasDropoutResidual,
    BiasGelu, BlockSquares, Cast, CrossEntropyBackward, CrossEntropyLoss, CrossEntropyMax, CrossEntropySums,
    Dropout, Embedding, EmbeddingBackward, Gelu, GeluBackward, LayerNorm, LayerNormBackward, Matmul,
    MatmulBias, MatmulBiasGelu, Scratch, Sum,
};
use crate::{Buffer, Class, DType, ReduceOp, Result, Shape, Tensor, Usage, View};

/// What a backend says of itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Info {
    /// The backend's name: `cpu`, `wgpu`.
    pub backend: &'static str,
    /// The device's own name.
    pub device: String,
    /// The driver or the instruction set, with its version.
    pub driver: String,
    /// Whether the device is a processor that plays a GPU.
    pub software: bool,
}

/// What a kernel took on the device.
#[derive(Clone, Debug, PartialEq)]
pub struct KernelTime {
    /// The backend's name for the kernel and its variant.
    pub name: String,
    /// How often it ran.
    pub dispatches: u64,
    /// Time on the device, in all.
    pub time: Duration,
}

/// How a backend does an operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Support {
    /// With a kernel of its own.
    Native,
    /// By the default, composed of other operations.
    Composed,
}

/// One rank's device: buffers, and a stream of operations on them. The crate's documentation has the invariants.
///
/// The operations with a body here are compositions of the others; a backend overrides them where it has a fused kernel, and says so in
/// [`support`](Self::support).
pub trait Backend: Send + Sync + 'static {
    /// Handle to device memory.
    type Buffer: Buffer;

    /// What this is.
    fn info(&self) -> Info;

    /// The rank's clock: the machine's, but where a backend simulates time.
    fn now(&self) -> Instant {
        Instant::now()
    }

    /// Hears what the rank is about to do: words for errors that are found in it. By default it is forgotten.
    fn begins(&self, _what: &dyn std::fmt::Debug) {}

    /// How the fused operation of that name (`matmul_bias`, `matmul_bias_gelu`, `bias_gelu`, `bias_dropout_residual`) is done here.
    fn support(&self, _op: &str) -> Support {
        Support::Composed
    }

    /// Memory from the rank's pool. Its contents are unspecified.
    ///
    /// # Errors
    /// [`Error::OutOfMemory`](crate::Error::OutOfMemory), [`Error::Limit`](crate::Error::Limit) where one buffer may not be so large.
    fn alloc(&self, class: Class, dtype: DType, shape: Shape) -> Result<Tensor<Self::Buffer>>;

    /// What the rank holds of that class.
    fn usage(&self, class: Class) -> Usage;

    /// The f32 elements that the operation's `workspace` must have at the least.
    fn workspace(&self, scratch: Scratch) -> usize;

    /// Writes host memory to the device; `data` may be reused at once.
    ///
    /// # Errors
    /// [`Error::Shape`](crate::Error::Shape) unless `data` is as long as the view.
    fn write(&self, dst: View<'_, Self::Buffer>, data: &[u8]) -> Result<()>;

    /// Waits for everything enqueued before, and reads device memory.
    ///
    /// # Errors
    /// As [`write`](Self::write), and whatever the device has failed with.
    fn read(&self, src: View<'_, Self::Buffer>, data: &mut [u8]) -> Result<()>;

    /// Waits for everything enqueued before.
    ///
    /// # Errors
    /// Whatever the device has failed with.
    fn sync(&self) -> Result<()>;

    /// What each kernel took since this was last asked for, over all ranks of the device, the longest first; `None` where kernels are not measured, because the backend was
    /// not opened so, or cannot.
    ///
    /// # Errors
    /// Whatever the device has failed with.
    fn profile(&self) -> Result<Option<Vec<KernelTime>>> {
        Ok(None)
    }

    /// `x = value`.
    ///
    /// # Errors
    /// [`Error::DType`](crate::Error::DType) unless `x` is float. As for every operation: what its arguments' `check` says, and
    /// [`Error::Unsupported`](crate::Error::Unsupported) or [`Error::Limit`](crate::Error::Limit) for what the device lacks.
    fn fill(&self, x: View<'_, Self::Buffer>, value: f32) -> Result<()>;

    /// `dst = src`; they are of one type and length, and apart.
    ///
    /// # Errors
    /// As [`check_copy`](crate::ops::check_copy).
    fn copy(&self, src: View<'_, Self::Buffer>, dst: View<'_, Self::Buffer>) -> Result<()>;

    /// `x *= alpha`.
    ///
    /// # Errors
    /// As [`fill`](Self::fill).
    fn scale(&self, x: View<'_, Self::Buffer>, alpha: f32) -> Result<()>;

    /// See [`Add`].
    ///
    /// # Errors
    /// As [`Add::check`].
    fn add(&self, args: Add<'_, Self::Buffer>) -> Result<()>;

    /// See [`Cast`].
    ///
    /// # Errors
    /// As [`Cast::check`].
    fn cast(&self, args: Cast<'_, Self::Buffer>) -> Result<()>;

    /// Every output = the inputs combined element by element, in a balanced binary tree over their order: neighbours are combined pairwise, level after
    /// level, and an odd last one goes up as it is, `((x0 + x1) + (x2 + x3)) + x4`. In fp32 throughout; a narrower type is rounded once, at the end. So the
    /// sum of 2^k inputs is the sum of the sums of their halves, to the bit. The buffers may belong to other ranks of this process; it is the caller
    /// that keeps those ranks waiting. The piece of every collective that does arithmetic.
    ///
    /// # Errors
    /// As [`check_reduce`](crate::ops::check_reduce).
    fn reduce(
        &self,
        op: ReduceOp,
        inputs: &[View<'_, Self::Buffer>],
        outputs: &[View<'_, Self::Buffer>],
    ) -> Result<()>;

    /// See [`Matmul`].
    ///
    /// # Errors
    /// As [`Matmul::check`].
    fn matmul(&self, args: Matmul<'_, Self::Buffer>) -> Result<()>;

    /// See [`BiasAdd`].
    ///
    /// # Errors
    /// As [`BiasAdd::check`].
    fn bias_add(&self, args: BiasAdd<'_, Self::Buffer>) -> Result<()>;

    /// See [`BiasBackward`].
    ///
    /// # Errors
    /// As [`BiasBackward::check`].
    fn bias_backward(&self, args: BiasBackward<'_, Self::Buffer>) -> Result<()>;

    /// See [`Gelu`].
    ///
    /// # Errors
    /// As [`Gelu::check`].
    fn gelu(&self, args: Gelu<'_, Self::Buffer>) -> Result<()>;

    /// See [`GeluBackward`].
    ///
    /// # Errors
    /// As [`GeluBackward::check`].
    fn gelu_backward(&self, args: GeluBackward<'_, Self::Buffer>) -> Result<()>;

    /// See [`Dropout`].
    ///
    /// # Errors
    /// As [`Dropout::check`].
    fn dropout(&self, args: Dropout<'_, Self::Buffer>) -> Result<()>;

    /// See [`LayerNorm`].
    ///
    /// # Errors
    /// As [`LayerNorm::check`].
    fn layernorm(&self, args: LayerNorm<'_, Self::Buffer>) -> Result<()>;

    /// See [`LayerNormBackward`].
    ///
    /// # Errors
    /// As [`LayerNormBackward::check`].
    fn layernorm_backward(&self, args: LayerNormBackward<'_, Self::Buffer>) -> Result<()>;

    /// See [`Attention`].
    ///
    /// # Errors
    /// As [`Attention::check`].
    fn attention(&self, args: Attention<'_, Self::Buffer>) -> Result<()>;

    /// See [`AttentionBackward`].
    ///
    /// # Errors
    /// As [`AttentionBackward::check`].
    fn attention_backward(&self, args: AttentionBackward<'_, Self::Buffer>) -> Result<()>;

    /// See [`AttentionCached`].
    ///
    /// # Errors
    /// As [`AttentionCached::check`].
    fn attention_cached(&self, args: AttentionCached<'_, Self::Buffer>) -> Result<()>;

    /// See [`Embedding`].
    ///
    /// # Errors
    /// As [`Embedding::check`].
    fn embedding(&self, args: Embedding<'_, Self::Buffer>) -> Result<()>;

    /// See [`EmbeddingBackward`].
    ///
    /// # Errors
    /// As [`EmbeddingBackward::check`].
    fn embedding_backward(&self, args: EmbeddingBackward<'_, Self::Buffer>) -> Result<()>;

    /// See [`CrossEntropyMax`].
    ///
    /// # Errors
    /// As [`CrossEntropyMax::check`].
    fn cross_entropy_max(&self, args: CrossEntropyMax<'_, Self::Buffer>) -> Result<()>;

    /// See [`CrossEntropySums`].
    ///
    /// # Errors
    /// As [`CrossEntropySums::check`].
    fn cross_entropy_sums(&self, args: CrossEntropySums<'_, Self::Buffer>) -> Result<()>;

    /// See [`CrossEntropyLoss`].
    ///
    /// # Errors
    /// As [`CrossEntropyLoss::check`].
    fn cross_entropy_loss(&self, args: CrossEntropyLoss<'_, Self::Buffer>) -> Result<()>;

    /// See [`CrossEntropyBackward`].
    ///
    /// # Errors
    /// As [`CrossEntropyBackward::check`].
    fn cross_entropy_backward(&self, args: CrossEntropyBackward<'_, Self::Buffer>) -> Result<()>;

    /// See [`AdamW`].
    ///
    /// # Errors
    /// As [`AdamW::check`].
    fn adamw(&self, args: AdamW<'_, Self::Buffer>) -> Result<()>;

    /// See [`Sum`].
    ///
    /// # Errors
    /// As [`Sum::check`].
    fn sum(&self, args: Sum<'_, Self::Buffer>) -> Result<()>;

    /// See [`BlockSquares`].
    ///
    /// # Errors
    /// As [`BlockSquares::check`].
    fn block_squares(&self, args: BlockSquares<'_, Self::Buffer>) -> Result<()>;

    /// See [`MatmulBias`]. Composed of [`matmul`](Self::matmul) and [`bias_add`](Self::bias_add).
    ///
    /// # Errors
    /// As [`MatmulBias::check`].
    fn matmul_bias(&self, args: MatmulBias<'_, Self::Buffer>) -> Result<()> {
        args.check()?;
        self.matmul(args.product())?;
        self.bias_add(BiasAdd { x: args.y, bias: args.bias })
    }

    /// See [`MatmulBiasGelu`]. Composed of [`matmul`](Self::matmul) and [`bias_gelu`](Self::bias_gelu).
    ///
    /// # Errors
    /// As [`MatmulBiasGelu::check`].
    fn matmul_bias_gelu(&self, args: MatmulBiasGelu<'_, Self::Buffer>) -> Result<()> {
        args.check()?;
        self.matmul(args.product())?;
        self.bias_gelu(BiasGelu { x: args.pre, bias: args.bias, y: args.y })
    }

    /// See [`BiasGelu`]. Composed of [`bias_add`](Self::bias_add) and [`gelu`](Self::gelu).
    ///
    /// # Errors
    /// As [`BiasGelu::check`].
    fn bias_gelu(&self, args: BiasGelu<'_, Self::Buffer>) -> Result<()> {
        args.check()?;
        self.bias_add(BiasAdd { x: args.x, bias: args.bias })?;
        self.gelu(Gelu { x: args.x, y: args.y })
    }

    /// See [`BiasDropoutResidual`]. Composed of [`bias_add`](Self::bias_add), [`dropout`](Self::dropout), [`copy`](Self::copy) and
    /// [`add`](Self::add).
    ///
    /// # Errors
    /// As [`BiasDropoutResidual::check`].
    fn bias_dropout_residual(&self, args: BiasDropoutResidual<'_, Self::Buffer>) -> Result<()> {
        args.check()?;
        let BiasDropoutResidual { x, bias, residual, y, mask } = args;
        self.bias_add(BiasAdd { x, bias })?;
        if let Some(mask) = mask {
            self.dropout(Dropout { x, y: x, mask })?;
        }
        if !y.same(&residual) {
            self.copy(residual, y)?;
        }
        self.add(Add { x, y, alpha: 1.0 })
    }
}
