//! The backend: one rank's memory, threads and turn.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use backend::ops::{
    AdamW, Add, Attention, AttentionBackward, AttentionCached, AttentionDims, BiasAdd, BiasBackward,
    BiasDropoutResidual, BiasGelu, BlockSquares, Cast, CrossEntropyBackward, CrossEntropyLoss,
    CrossEntropyMax, CrossEntropySums, Dropout, Embedding, EmbeddingBackward, Gelu, GeluBackward, LayerNorm,
    LayerNormBackward, Matmul, MatmulBias, MatmulBiasGelu, Scratch, Sum,
};
use backend::{Backend, Class, DType, Error, Info, ReduceOp, Result, Shape, Support, Tensor, Usage, View};

use crate::CpuBuffer;
use crate::element::by_dtype;
use crate::memory::Pool;
use crate::ops;
use crate::panels::Panels;
use crate::threads::Threads;

/// One rank on the processor: operations are done when their call returns.
pub struct CpuBackend {
    pool: Arc<Pool>,
    threads: Threads,
    panels: Panels,
    /// Held by the operation in progress: operations of one rank take their turn, whoever calls them.
    turn: Mutex<()>,
}

impl CpuBackend {
    /// A rank that shares each operation among `threads` threads, the calling one included; 1 starts none.
    pub fn new(threads: usize) -> Arc<Self> {
        let (pool, threads) = (Arc::<Pool>::default(), Threads::new(threads));
        let panels = Panels::new(Arc::clone(&pool), threads.count());
        Arc::new(Self { pool, threads, panels, turn: Mutex::new(()) })
    }

    fn turn(&self) -> MutexGuard<'_, ()> {
        // An operation that panicked leaves its outputs half written, and nothing else.
        self.turn.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The bytes of a view, which host memory of `len` bytes is to be copied to or from.
    fn bytes(op: &'static str, view: View<'_, CpuBuffer>, len: usize) -> Result<*mut u8> {
        match len == view.bytes() {
            true => Ok(view.buffer().start().wrapping_add(view.byte_range().start)),
            false => Err(Error::Shape {
                op,
                tensor: "data",
                expected: format!("{len} bytes, as long as the host memory"),
                got: view.shape(),
            }),
        }
    }
}

/// The processor's name for itself.
fn processor() -> String {
    let info = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let name = info.lines().find_map(|line| line.strip_prefix("model name")?.split_once(':'));
    name.map_or_else(|| std::env::consts::ARCH.to_owned(), |(_, name)| name.trim().to_owned())
}

/// Forwards an operation to its module, which gets the threads, while the turn is held: to the one for the named operand's type, where one is named.
macro_rules! operations {
    ($($name:ident($args:ident $(of $operand:ident)?) => $module:ident::$function:ident;)*) => {
        $(fn $name(&self, args: $args<'_, CpuBuffer>) -> Result<()> {
            let _turn = self.turn();
            operations!(@call self, args, $module::$function $(, $operand)?)
        })*
    };
    (@call $self:ident, $args:ident, $module:ident::$function:ident) => {
        ops::$module::$function(&$self.threads, $args)
    };
    (@call $self:ident, $args:ident, $module:ident::$function:ident, $operand:ident) => {
        by_dtype!($args.$operand.dtype(), T => ops::$module::$function::<T>(&$self.threads, $args))
    };
}

impl Backend for CpuBackend {
    type Buffer = CpuBuffer;

    fn info(&self) -> Info {
        let instructions = format!("{:?}", pulp::Arch::new());
        let instructions = instructions.split('(').next().unwrap_or_default();
        Info {
            backend: "cpu",
            device: processor(),
            driver: format!("{} {instructions}, {} thread(s)", std::env::consts::ARCH, self.threads.count()),
            software: false,
        }
    }

    fn support(&self, _op: &str) -> Support {
        Support::Native
    }

    fn alloc(&self, class: Class, dtype: DType, shape: Shape) -> Result<Tensor<CpuBuffer>> {
        let bytes = shape.extents().iter().try_fold(dtype.size(), |bytes, &n| bytes.checked_mul(n));
        Tensor::new(self.pool.alloc(class, bytes.unwrap_or(usize::MAX))?, dtype, 0, shape)
    }

    fn usage(&self, class: Class) -> Usage {
        self.pool.usage(class)
    }

    fn workspace(&self, scratch: Scratch) -> usize {
        match scratch {
            Scratch::EmbeddingBackward { .. } => 0,
            Scratch::LayerNormBackward { t, h } => ops::layernorm::layernorm_backward_workspace(t, h),
            Scratch::BiasBackward { t, n } => ops::bias::bias_backward_workspace(t, n),
            Scratch::Attention { b, s, a, d } => {
                ops::attention::attention_workspace(&self.threads, AttentionDims { b, s, a, d })
            }
            Scratch::AttentionBackward { b, s, a, d } => {
                let dims = AttentionDims { b, s, a, d };
                ops::attention_backward::attention_backward_workspace(&self.threads, dims)
            }
            Scratch::AttentionCached { s, .. } => ops::attention_cached::workspace(&self.threads, s),
            Scratch::Sum { n } => ops::reduce::sum_workspace(n),
        }
    }

    fn write(&self, dst: View<'_, CpuBuffer>, data: &[u8]) -> Result<()> {
        let _turn = self.turn();
        let to = Self::bytes("write", dst, data.len())?;
        // SAFETY: as long as the view, which lies in its buffer; host memory is apart from it.
        unsafe { data.as_ptr().copy_to_nonoverlapping(to, data.len()) };
        Ok(())
    }

    fn read(&self, src: View<'_, CpuBuffer>, data: &mut [u8]) -> Result<()> {
        let _turn = self.turn();
        let from = Self::bytes("read", src, data.len())?;
        // SAFETY: as in `write`.
        unsafe { data.as_mut_ptr().copy_from_nonoverlapping(from, data.len()) };
        Ok(())
    }

    fn sync(&self) -> Result<()> {
        Ok(())
    }

    fn fill(&self, x: View<'_, CpuBuffer>, value: f32) -> Result<()> {
        let _turn = self.turn();
        by_dtype!(x.dtype(), T => ops::elementwise::fill::<T>(&self.threads, x, value))
    }

    fn copy(&self, src: View<'_, CpuBuffer>, dst: View<'_, CpuBuffer>) -> Result<()> {
        let _turn = self.turn();
        ops::elementwise::copy(&self.threads, src, dst)
    }

    fn scale(&self, x: View<'_, CpuBuffer>, alpha: f32) -> Result<()> {
        let _turn = self.turn();
        by_dtype!(x.dtype(), T => ops::elementwise::scale::<T>(&self.threads, x, alpha))
    }

    fn reduce(
        &self,
        op: ReduceOp,
        inputs: &[View<'_, CpuBuffer>],
        outputs: &[View<'_, CpuBuffer>],
    ) -> Result<()> {
        let _turn = self.turn();
        let dtype = inputs.first().map_or(DType::F32, View::dtype);
        by_dtype!(dtype, T => ops::elementwise::reduce::<T>(&self.threads, op, inputs, outputs))
    }

    fn matmul(&self, args: Matmul<'_, CpuBuffer>) -> Result<()> {
        let _turn = self.turn();
        ops::matmul::matmul(&self.threads, &self.panels, args)
    }

    fn matmul_bias(&self, args: MatmulBias<'_, CpuBuffer>) -> Result<()> {
        let _turn = self.turn();
        by_dtype!(args.x.dtype(), T => ops::matmul::matmul_bias::<T>(&self.threads, &self.panels, args))
    }

    fn matmul_bias_gelu(&self, args: MatmulBiasGelu<'_, CpuBuffer>) -> Result<()> {
        let _turn = self.turn();
        by_dtype!(args.x.dtype(), T => ops::matmul::matmul_bias_gelu::<T>(&self.threads, &self.panels, args))
    }

    operations! {
        add(Add of x) => elementwise::add;
        cast(Cast) => elementwise::cast;
        bias_add(BiasAdd of x) => bias::bias_add;
        bias_backward(BiasBackward of dy) => bias::bias_backward;
        gelu(Gelu of x) => gelu::gelu;
        gelu_backward(GeluBackward of x) => gelu::gelu_backward;
        bias_gelu(BiasGelu of x) => gelu::bias_gelu;
        dropout(Dropout of x) => dropout::dropout;
        bias_dropout_residual(BiasDropoutResidual of x) => bias_dropout_residual::bias_dropout_residual;
        layernorm(LayerNorm of x) => layernorm::layernorm;
        layernorm_backward(LayerNormBackward of x) => layernorm::layernorm_backward;
        attention(Attention of qkv) => attention::attention;
        attention_backward(AttentionBackward of qkv) => attention_backward::attention_backward;
        attention_cached(AttentionCached of qkv) => attention_cached::attention_cached;
        embedding(Embedding of table) => embedding::embedding;
        embedding_backward(EmbeddingBackward of dy) => embedding::embedding_backward;
        cross_entropy_max(CrossEntropyMax of logits) => cross_entropy::max;
        cross_entropy_sums(CrossEntropySums of logits) => cross_entropy::sums;
        cross_entropy_loss(CrossEntropyLoss) => cross_entropy::loss;
        cross_entropy_backward(CrossEntropyBackward) => cross_entropy::backward;
        adamw(AdamW) => adamw::adamw;
        sum(Sum of x) => reduce::sum;
        block_squares(BlockSquares) => reduce::block_squares;
    }
}
