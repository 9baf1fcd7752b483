//! [`CudaBackend`]: one rank on one GPU.

use std::sync::Arc;
use std::time::Duration;

use backend::local::{LocalCommunicator, connect};

use backend::ops::{self, Scratch, check_copy, check_float};
use backend::{Backend, Class, DType, Error, Info, ReduceOp, Result, Shape, Support, Tensor, Usage, View};

use crate::cublaslt::CublasLt;
use crate::device::Device;
use crate::launch::at;
use crate::libraries::{Products, Settings};
use crate::memory::{CudaBuffer, Pool};
use crate::ops::{attention, bias, embedding, layernorm, sum};

/// One rank on a GPU.
pub struct CudaBackend {
    pub(crate) device: Arc<Device>,
    pool: Arc<Pool>,
    /// Who makes matrix products, if not kernels of our own.
    pub(crate) cublaslt: Option<Arc<CublasLt>>,
    /// See [`Settings::rounded_attention`].
    pub(crate) exact_attention: bool,
}

impl CudaBackend {
    /// A rank on the GPU of that number.
    ///
    /// # Errors
    /// [`Error::NoDevice`]: a library or the device is missing, or is too old; the error says which, and what would do.
    pub fn new(index: usize, settings: &Settings) -> Result<Self> {
        Self::rank(Device::open(index, settings)?, None, settings)
    }

    /// That many ranks on one GPU, connected; rank i gets the i-th. They share its stream, whose order is what orders them. No wait for each other lasts
    /// longer than `timeout`.
    ///
    /// # Errors
    /// As [`new`](Self::new).
    pub fn cluster(
        ranks: usize,
        timeout: Duration,
        index: usize,
        settings: &Settings,
    ) -> Result<Vec<LocalCommunicator<Self>>> {
        let device = Device::open(index, settings)?;
        let mut backends: Vec<Arc<Self>> = Vec::with_capacity(ranks);
        for _ in 0..ranks {
            let first = backends.first().and_then(|first| first.cublaslt.clone());
            backends.push(Arc::new(Self::rank(Arc::clone(&device), first, settings)?));
        }
        Ok(connect(&backends, timeout))
    }

    /// With the cuBLASLt of the GPU's first rank, if this is another one.
    fn rank(device: Arc<Device>, first: Option<Arc<CublasLt>>, settings: &Settings) -> Result<Self> {
        let pool = Pool::new(Arc::clone(&device));
        let load = || CublasLt::new(&device, &pool, settings).map(Arc::new);
        let cublaslt = match (settings.products, first) {
            (Products::Kernels, _) => None,
            (_, Some(first)) => Some(first),
            (Products::CublasLt, None) => Some(load()?),
            (Products::Fastest, None) => match load() {
                Err(Error::NoDevice { .. }) => None,
                loaded => Some(loaded?),
            },
        };
        Ok(Self { pool, device, cublaslt, exact_attention: !settings.rounded_attention })
    }
}

/// Host memory as long as a view.
fn same_bytes(op: &'static str, view: View<'_, CudaBuffer>, bytes: usize) -> Result<()> {
    match view.bytes() == bytes {
        true => Ok(()),
        false => Err(Error::Shape {
            op,
            tensor: "data",
            expected: format!("{bytes} bytes, as the host's memory has"),
            got: view.shape(),
        }),
    }
}

/// Forwards an operation to its file.
macro_rules! operations {
    ($($name:ident($args:ident) => $function:ident;)*) => {
        $(fn $name(&self, args: ops::$args<'_, CudaBuffer>) -> Result<()> {
            self.$function(args)
        })*
    };
}

impl Backend for CudaBackend {
    type Buffer = CudaBuffer;

    fn info(&self) -> Info {
        let ((major, minor), driver, compiler) =
            (self.device.capability, self.device.driver, self.device.compiler());
        Info {
            backend: "cuda",
            device: match self.cublaslt.as_ref().map(|cublaslt| cublaslt.version()) {
                Some((major, minor, patch)) => {
                    format!("{}, products by cuBLASLt {major}.{minor}.{patch}", self.device.name)
                }
                None => self.device.name.clone(),
            },
            driver: format!(
                "CUDA {}.{}, NVRTC {}.{}, capability {major}.{minor}",
                driver.0, driver.1, compiler.0, compiler.1
            ),
            software: false,
        }
    }

    fn support(&self, _op: &str) -> Support {
        Support::Native
    }

    fn alloc(&self, class: Class, dtype: DType, shape: Shape) -> Result<Tensor<CudaBuffer>> {
        let bytes = shape.extents().iter().try_fold(dtype.size(), |bytes, &n| bytes.checked_mul(n));
        Tensor::new(self.pool.alloc(class, bytes.unwrap_or(usize::MAX))?, dtype, 0, shape)
    }

    fn usage(&self, class: Class) -> Usage {
        self.pool.meter.usage(class)
    }

    fn workspace(&self, scratch: Scratch) -> usize {
        match scratch {
            Scratch::Attention { .. } => 0,
            Scratch::LayerNormBackward { t, h } => layernorm::workspace(t, h),
            Scratch::BiasBackward { t, n } => bias::workspace(t, n),
            Scratch::AttentionBackward { b, s, a, .. } => attention::workspace(b, s, a),
            Scratch::AttentionCached { .. } => 0,
            Scratch::EmbeddingBackward { t, .. } => embedding::workspace(t),
            Scratch::Sum { n } => sum::workspace(n),
        }
    }

    fn write(&self, dst: View<'_, CudaBuffer>, data: &[u8]) -> Result<()> {
        same_bytes("write", dst, data.len())?;
        self.device.enter()?;
        if data.is_empty() {
            return Ok(());
        }
        self.device.stream.upload(at(dst), data).map_err(|failed| self.device.failed(failed))
    }

    fn read(&self, src: View<'_, CudaBuffer>, data: &mut [u8]) -> Result<()> {
        same_bytes("read", src, data.len())?;
        if data.is_empty() {
            return self.sync();
        }
        self.device.enter()?;
        self.device.stream.download(at(src), data).map_err(|failed| self.device.failed(failed))?;
        // A collective that was aborted lets the stream go on.
        self.device.check()
    }

    fn sync(&self) -> Result<()> {
        self.device.enter()?;
        self.device.stream.synchronize().map_err(|failed| self.device.failed(failed))?;
        self.device.check()
    }

    fn fill(&self, x: View<'_, CudaBuffer>, value: f32) -> Result<()> {
        check_float("fill", x)?;
        self.do_fill("fill", x, value)
    }

    fn copy(&self, src: View<'_, CudaBuffer>, dst: View<'_, CudaBuffer>) -> Result<()> {
        check_copy(src, dst)?;
        self.device.enter()?;
        if src.is_empty() {
            return Ok(());
        }
        self.device.stream.copy(at(src), at(dst), src.bytes()).map_err(|failed| self.device.failed(failed))
    }

    fn scale(&self, x: View<'_, CudaBuffer>, alpha: f32) -> Result<()> {
        check_float("scale", x)?;
        self.do_fill("scale", x, alpha)
    }

    fn reduce(
        &self,
        op: ReduceOp,
        inputs: &[View<'_, CudaBuffer>],
        outputs: &[View<'_, CudaBuffer>],
    ) -> Result<()> {
        self.do_reduce(op, inputs, outputs)
    }

    operations! {
        matmul(Matmul) => do_matmul;
        matmul_bias(MatmulBias) => do_matmul_bias;
        matmul_bias_gelu(MatmulBiasGelu) => do_matmul_bias_gelu;
        bias_add(BiasAdd) => do_bias_add;
        bias_backward(BiasBackward) => do_bias_backward;
        bias_gelu(BiasGelu) => do_bias_gelu;
        bias_dropout_residual(BiasDropoutResidual) => do_bias_dropout_residual;
        gelu(Gelu) => do_gelu;
        gelu_backward(GeluBackward) => do_gelu_backward;
        dropout(Dropout) => do_dropout;
        layernorm(LayerNorm) => do_layernorm;
        layernorm_backward(LayerNormBackward) => do_layernorm_backward;
        attention(Attention) => do_attention;
        attention_backward(AttentionBackward) => do_attention_backward;
        attention_cached(AttentionCached) => do_attention_cached;
        embedding(Embedding) => do_embedding;
        embedding_backward(EmbeddingBackward) => do_embedding_backward;
        cross_entropy_max(CrossEntropyMax) => do_cross_entropy_max;
        cross_entropy_sums(CrossEntropySums) => do_cross_entropy_sums;
        cross_entropy_loss(CrossEntropyLoss) => do_cross_entropy_loss;
        cross_entropy_backward(CrossEntropyBackward) => do_cross_entropy_backward;
        adamw(AdamW) => do_adamw;
        sum(Sum) => do_sum;
        block_squares(BlockSquares) => do_block_squares;
        add(Add) => do_add;
        cast(Cast) => do_cast;
    }
}
