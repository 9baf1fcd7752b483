//! [`WgpuBackend`]: one rank's view of a device that ranks share.

use std::sync::Arc;
use std::time::Duration;

use backend::local::{LocalCommunicator, connect};
use backend::ops::{self, Scratch, check_copy, check_float};
use backend::{
    Backend, Class, DType, Error, Info, KernelTime, ReduceOp, Result, Shape, Support, Tensor, Usage, View,
};

use crate::adapter::{AdapterInfo, Choice};
use crate::device::Device;
use crate::kernels::Params;
use crate::launch::Call;
use crate::matmul::MatmulKernel;
use crate::memory::{Pool, WgpuBuffer};
use crate::ops::matmul::MOST_FLOPS;
use crate::ops::{attention, bias, embedding, layernorm, sum};
use crate::setup::Setup;
use crate::trial::Trial;

/// One rank on an adapter.
#[derive(Clone)]
pub struct WgpuBackend {
    pub(crate) device: Arc<Device>,
    pub(crate) pool: Arc<Pool>,
    /// The kernel of every matrix product, where one was asked for.
    pub(crate) matmul_kernel: Option<MatmulKernel>,
    /// Work of a dispatch of a matrix product at the most.
    pub(crate) most_flops: u64,
    /// Whether attention takes its kernels for subgroups of eight.
    pub(crate) subgroups: bool,
    /// Multiply-adds of one dispatch of attention at the most.
    pub(crate) most_products: u64,
}

impl WgpuBackend {
    /// A rank alone on the preferred acceptable adapter. No wait for the device lasts longer than `timeout`.
    ///
    /// # Errors
    /// [`Error::NoDevice`] with what was looked for and what would do.
    pub fn new(choice: &Choice, timeout: Duration) -> Result<Self> {
        Setup::new(choice.clone(), timeout).rank()
    }

    /// As [`new`](Self::new), with these changes.
    ///
    /// # Errors
    /// As [`new`](Self::new); [`Error::Argument`] for a patch of what is not there.
    #[doc(hidden)]
    pub fn on_trial(choice: &Choice, timeout: Duration, trial: &Trial) -> Result<Self> {
        Setup { trial: trial.clone(), ..Setup::new(choice.clone(), timeout) }.rank()
    }

    /// That many ranks on one adapter, connected; rank i gets the i-th. No wait, for the device or for each other, lasts longer than `timeout`.
    ///
    /// # Errors
    /// As [`new`](Self::new).
    pub fn cluster(ranks: usize, timeout: Duration, choice: &Choice) -> Result<Vec<LocalCommunicator<Self>>> {
        Setup::new(choice.clone(), timeout).cluster(ranks)
    }

    /// That many ranks on this one's device, connected: kernels that are compiled already are theirs too.
    #[must_use]
    pub fn cluster_beside(&self, ranks: usize) -> Vec<LocalCommunicator<Self>> {
        let backends: Vec<_> = (0..ranks).map(|_| Arc::new(Self::rank(Arc::clone(&self.device)))).collect();
        connect(&backends, self.device.timeout)
    }

    pub(crate) fn rank(device: Arc<Device>) -> Self {
        let subgroups = device.info.software && device.info.subgroup_lanes == Some(8);
        Self {
            pool: Pool::new(Arc::clone(&device)),
            device,
            matmul_kernel: None,
            most_flops: MOST_FLOPS,
            most_products: attention::MOST_PRODUCTS,
            subgroups,
        }
    }

    /// The adapter that this rank runs on.
    pub fn adapter(&self) -> &AdapterInfo {
        &self.device.info
    }

    /// The names of the kernels of matrix products that run on this adapter.
    pub fn matmul_kernels(&self) -> Vec<&'static str> {
        let all = MatmulKernel::ALL.into_iter().filter(|kernel| kernel.runs_on(&self.device.info));
        all.map(MatmulKernel::name).collect()
    }

    /// From now on the kernel of that name makes every matrix product of this rank.
    ///
    /// # Errors
    /// [`Error::Unsupported`]: there is none of that name, or it does not run on this adapter.
    pub fn pin_matmul(&mut self, name: &str) -> Result<()> {
        match MatmulKernel::named(name).filter(|kernel| kernel.runs_on(&self.device.info)) {
            Some(kernel) => {
                self.matmul_kernel = Some(kernel);
                Ok(())
            }
            None => Err(Error::Unsupported {
                op: "matmul",
                what: format!(
                    "kernel '{name}'; {} has {}",
                    self.device.info,
                    self.matmul_kernels().join(", ")
                ),
            }),
        }
    }

    /// Kernels launched on the device since it was opened, by all of its ranks: what a layer costs beside its arithmetic.
    pub fn launched(&self) -> u64 {
        self.device.launches()
    }

    pub(crate) fn call<P: Params>(&self, op: &'static str, params: P) -> Call<'_, P> {
        Call::new(&self.device, op, params)
    }

    /// Lanes of a workgroup that reduces a row of that many elements: the `ROW_LANES` of `lib/reduce.wgsl`.
    pub(crate) fn row_lanes(&self, row: usize) -> u32 {
        match (self.device.info.software, row) {
            // Emulated lanes take turns at every barrier.
            (true, _) => 8,
            (false, ..=1024) => 64,
            (false, _) => 256,
        }
    }

    /// Elements that a kernel sees of one buffer at the most, wherever the view begins; a multiple of four.
    pub(crate) fn window(&self) -> usize {
        (self.device.max_binding as usize / 4 - 64) / 4 * 4
    }

    /// `first, count` of the pieces of `n` elements that kernels can take one after the other.
    pub(crate) fn pieces(&self, n: usize) -> impl Iterator<Item = (usize, usize)> + use<> {
        let most = self.window();
        (0..n).step_by(most).map(move |first| (first, most.min(n - first)))
    }

    /// `first, count` of the pieces of `rows` rows, the widest operand having `width` elements a row.
    pub(crate) fn row_pieces(
        &self,
        rows: usize,
        width: usize,
    ) -> impl Iterator<Item = (usize, usize)> + use<> {
        let most = (self.window() / width.max(1)).max(1);
        (0..rows).step_by(most).map(move |first| (first, most.min(rows - first)))
    }
}

/// The view as one row.
pub(crate) fn flat(view: View<'_, WgpuBuffer>) -> Result<View<'_, WgpuBuffer>> {
    view.reshape([view.len()])
}

/// The workspace is long enough.
pub(crate) fn roomy(op: &'static str, workspace: View<'_, WgpuBuffer>, need: usize) -> Result<()> {
    match workspace.len() >= need {
        true => Ok(()),
        false => Err(Error::Shape {
            op,
            tensor: "workspace",
            expected: format!("at least {need} elements"),
            got: workspace.shape(),
        }),
    }
}

/// Host memory as long as a view.
fn same_bytes(op: &'static str, view: View<'_, WgpuBuffer>, bytes: usize) -> Result<()> {
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

impl Backend for WgpuBackend {
    type Buffer = WgpuBuffer;

    fn info(&self) -> Info {
        let AdapterInfo { name, api, software, driver, .. } = &self.device.info;
        Info {
            backend: "wgpu",
            device: name.clone(),
            driver: format!("{api}, {driver}"),
            software: *software,
        }
    }

    fn support(&self, op: &str) -> Support {
        match op {
            "matmul_bias" | "matmul_bias_gelu" | "bias_gelu" | "bias_dropout_residual" => Support::Native,
            _ => Support::Composed,
        }
    }

    fn alloc(&self, class: Class, dtype: DType, shape: Shape) -> Result<Tensor<WgpuBuffer>> {
        let buffer = self.pool.alloc(class, shape.len() * dtype.size())?;
        Tensor::new(buffer, dtype, 0, shape)
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
            Scratch::EmbeddingBackward { t, v, .. } => embedding::workspace(t, v),
            Scratch::Sum { n } => sum::workspace(n),
        }
    }

    fn write(&self, dst: View<'_, WgpuBuffer>, data: &[u8]) -> Result<()> {
        same_bytes("write", dst, data.len())?;
        self.do_write(dst, data)
    }

    fn read(&self, src: View<'_, WgpuBuffer>, data: &mut [u8]) -> Result<()> {
        same_bytes("read", src, data.len())?;
        self.do_read(src, data)
    }

    fn sync(&self) -> Result<()> {
        self.device.ask(|reply| crate::queue::Command::Sync { reply })
    }

    fn profile(&self) -> Result<Option<Vec<KernelTime>>> {
        match self.device.profiled {
            true => self.device.ask(|reply| crate::queue::Command::Profile { reply }).map(Some),
            false => Ok(None),
        }
    }

    fn fill(&self, x: View<'_, WgpuBuffer>, value: f32) -> Result<()> {
        check_float("fill", x)?;
        self.do_fill(x, value)
    }

    fn copy(&self, src: View<'_, WgpuBuffer>, dst: View<'_, WgpuBuffer>) -> Result<()> {
        check_copy(src, dst)?;
        self.do_copy(src, dst)
    }

    fn scale(&self, x: View<'_, WgpuBuffer>, alpha: f32) -> Result<()> {
        check_float("scale", x)?;
        self.do_scale(x, alpha)
    }

    fn add(&self, args: ops::Add<'_, WgpuBuffer>) -> Result<()> {
        self.do_add(args)
    }

    fn cast(&self, args: ops::Cast<'_, WgpuBuffer>) -> Result<()> {
        self.do_cast(args)
    }

    fn reduce(
        &self,
        op: ReduceOp,
        inputs: &[View<'_, WgpuBuffer>],
        outputs: &[View<'_, WgpuBuffer>],
    ) -> Result<()> {
        self.do_reduce(op, inputs, outputs)
    }

    fn matmul(&self, args: ops::Matmul<'_, WgpuBuffer>) -> Result<()> {
        self.do_matmul(args)
    }

    fn matmul_bias(&self, args: ops::MatmulBias<'_, WgpuBuffer>) -> Result<()> {
        self.do_matmul_bias(args)
    }

    fn matmul_bias_gelu(&self, args: ops::MatmulBiasGelu<'_, WgpuBuffer>) -> Result<()> {
        self.do_matmul_bias_gelu(args)
    }

    fn bias_add(&self, args: ops::BiasAdd<'_, WgpuBuffer>) -> Result<()> {
        self.do_bias_add(args)
    }

    fn bias_backward(&self, args: ops::BiasBackward<'_, WgpuBuffer>) -> Result<()> {
        self.do_bias_backward(args)
    }

    fn bias_gelu(&self, args: ops::BiasGelu<'_, WgpuBuffer>) -> Result<()> {
        self.do_bias_gelu(args)
    }

    fn bias_dropout_residual(&self, args: ops::BiasDropoutResidual<'_, WgpuBuffer>) -> Result<()> {
        self.do_bias_dropout_residual(args)
    }

    fn gelu(&self, args: ops::Gelu<'_, WgpuBuffer>) -> Result<()> {
        self.do_gelu(args)
    }

    fn gelu_backward(&self, args: ops::GeluBackward<'_, WgpuBuffer>) -> Result<()> {
        self.do_gelu_backward(args)
    }

    fn dropout(&self, args: ops::Dropout<'_, WgpuBuffer>) -> Result<()> {
        self.do_dropout(args)
    }

    fn layernorm(&self, args: ops::LayerNorm<'_, WgpuBuffer>) -> Result<()> {
        self.do_layernorm(args)
    }

    fn layernorm_backward(&self, args: ops::LayerNormBackward<'_, WgpuBuffer>) -> Result<()> {
        self.do_layernorm_backward(args)
    }

    fn attention(&self, args: ops::Attention<'_, WgpuBuffer>) -> Result<()> {
        self.do_attention(args)
    }

    fn attention_backward(&self, args: ops::AttentionBackward<'_, WgpuBuffer>) -> Result<()> {
        self.do_attention_backward(args)
    }

    fn attention_cached(&self, args: ops::AttentionCached<'_, WgpuBuffer>) -> Result<()> {
        self.do_attention_cached(args)
    }

    fn embedding(&self, args: ops::Embedding<'_, WgpuBuffer>) -> Result<()> {
        self.do_embedding(args)
    }

    fn embedding_backward(&self, args: ops::EmbeddingBackward<'_, WgpuBuffer>) -> Result<()> {
        self.do_embedding_backward(args)
    }

    fn cross_entropy_max(&self, args: ops::CrossEntropyMax<'_, WgpuBuffer>) -> Result<()> {
        self.do_cross_entropy_max(args)
    }

    fn cross_entropy_sums(&self, args: ops::CrossEntropySums<'_, WgpuBuffer>) -> Result<()> {
        self.do_cross_entropy_sums(args)
    }

    fn cross_entropy_loss(&self, args: ops::CrossEntropyLoss<'_, WgpuBuffer>) -> Result<()> {
        self.do_cross_entropy_loss(args)
    }

    fn cross_entropy_backward(&self, args: ops::CrossEntropyBackward<'_, WgpuBuffer>) -> Result<()> {
        self.do_cross_entropy_backward(args)
    }

    fn adamw(&self, args: ops::AdamW<'_, WgpuBuffer>) -> Result<()> {
        self.do_adamw(args)
    }

    fn sum(&self, args: ops::Sum<'_, WgpuBuffer>) -> Result<()> {
        self.do_sum(args)
    }

    fn block_squares(&self, args: ops::BlockSquares<'_, WgpuBuffer>) -> Result<()> {
        self.do_block_squares(args)
    }
}
