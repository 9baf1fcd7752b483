//! The backend: one rank's clock and meter.
//!
//! A rank has three clocks in simulated seconds: the host, which launches kernels and runs ahead of them; the device, which executes them in order; and the
//! wire, on which messages to other stages travel. A kernel begins when both the host has launched it and the device is free.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use backend::ops::{
    AdamW, Add, Attention, AttentionBackward, AttentionCached, AttentionDims, BiasAdd, BiasBackward,
    BiasDropoutResidual, BiasGelu, BlockSquares, Cast, CrossEntropyBackward, CrossEntropyLoss,
    CrossEntropyMax, CrossEntropySums, Dropout, Embedding, EmbeddingBackward, Gelu, GeluBackward, LayerNorm,
    LayerNormBackward, Matmul, MatmulBias, MatmulBiasGelu, Scratch, Sum, check_copy, check_float,
    check_reduce,
};
use backend::{
    Backend, Buffer, Class, DType, Error, Info, Meter, ReduceOp, Result, Shape, Support, Tensor, Usage, View,
};

use crate::cost::Kernel;
use crate::world::World;

/// Where a rank's simulated time went, in seconds of its device.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Spent {
    /// In matrix products.
    pub products: f64,
    /// In kernels that are bound by memory.
    pub streams: f64,
    /// In the optimizer's.
    pub optimizer: f64,
    /// Idle, because the host had not launched the next kernel.
    pub launches: f64,
    /// In collectives of the tensor group.
    pub tensor: f64,
    /// In collectives of replicas, and of all others.
    pub data: f64,
    /// In messages to or from another stage that nothing hid.
    pub messages: f64,
    /// In messages that travelled while the device worked.
    pub hidden: f64,
    /// Waiting for other ranks: the bubble.
    pub waiting: f64,
    /// FLOPs of matrix products.
    pub flops: f64,
    /// Kernels launched.
    pub kernels: u64,
}

/// A rank's clocks, in seconds since the beginning.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Clock {
    pub host: f64,
    pub device: f64,
    pub wire: f64,
    pub spent: Spent,
}

impl Clock {
    /// When the next thing on the device can begin, once the host has launched it.
    pub fn launch(&mut self, seconds: f64) -> f64 {
        self.host += seconds;
        if self.host > self.device {
            self.spent.launches += self.host - self.device;
            self.device = self.host;
        }
        self.device
    }
}

/// One rank of a simulated cluster.
pub struct SimBackend {
    pub(crate) rank: usize,
    pub(crate) world: Arc<World>,
    pub(crate) clock: Mutex<Clock>,
    meter: Arc<Meter>,
    limit: u64,
    workspace: Workspace,
    /// What the rank was last about to do.
    doing: Mutex<String>,
    /// Every operation, once that is asked for.
    log: Mutex<Option<Vec<Operation>>>,
}

/// An operation that a rank was asked for.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Operation {
    /// Its name.
    pub op: &'static str,
    /// FLOPs of its matrix products.
    pub flops: f64,
    /// Bytes that it reads and writes.
    pub bytes: f64,
}

/// Which operation asks for how much workspace: a real backend's word, beside what the stack's attention asks for.
pub type Workspace = Arc<dyn Fn(Scratch) -> usize + Send + Sync>;

/// A handle to no memory, counted until its last copy is dropped.
#[derive(Clone)]
pub struct Line(Arc<Taken>);

struct Taken {
    class: Class,
    /// As long as it is to who uses it.
    bytes: usize,
    /// As much as it is counted for.
    counted: u64,
    meter: Arc<Meter>,
}

impl Drop for Taken {
    fn drop(&mut self) {
        self.meter.give(self.class, self.counted);
    }
}

impl Buffer for Line {
    fn bytes(&self) -> usize {
        self.0.bytes
    }

    fn same(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

impl SimBackend {
    /// A rank of that world, which may hold `limit` bytes.
    pub fn new(world: &Arc<World>, rank: usize, limit: u64, workspace: Workspace) -> Self {
        Self {
            rank,
            world: Arc::clone(world),
            clock: Mutex::default(),
            meter: Arc::default(),
            limit,
            workspace,
            doing: Mutex::new("at its beginning".to_owned()),
            log: Mutex::default(),
        }
    }

    /// Keeps every operation from now on.
    pub fn keep_operations(&self) {
        *self.log.lock().unwrap_or_else(PoisonError::into_inner) = Some(Vec::new());
    }

    /// The operations that were kept.
    pub fn operations(&self) -> Vec<Operation> {
        self.log.lock().unwrap_or_else(PoisonError::into_inner).clone().unwrap_or_default()
    }

    /// Where its time went.
    pub fn spent(&self) -> Spent {
        self.clock().spent
    }

    /// Begins to count time again, at 0: all ranks of a world do so before they first speak to each other, or none.
    pub fn restart(&self) {
        *self.clock() = Clock::default();
    }

    /// Its simulated time, in seconds since the beginning.
    pub fn seconds(&self) -> f64 {
        let clock = self.clock();
        clock.host.max(clock.device)
    }

    /// What the rank was last about to do.
    pub fn doing(&self) -> String {
        self.doing.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Bytes that it holds.
    pub fn in_use(&self) -> u64 {
        self.meter.in_use()
    }

    fn does(&self, what: String) {
        *self.doing.lock().unwrap_or_else(PoisonError::into_inner) = what;
    }

    pub(crate) fn clock(&self) -> MutexGuard<'_, Clock> {
        self.clock.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Runs an operation's kernels: behind each other on the device.
    fn kernels(&self, op: &'static str, kernels: &[Kernel]) -> Result<()> {
        let World { cluster, stack, .. } = &*self.world;
        if let Some(log) = &mut *self.log.lock().unwrap_or_else(PoisonError::into_inner) {
            let [flops, bytes] = [Kernel::flops, Kernel::bytes].map(|of| kernels.iter().map(of).sum());
            log.push(Operation { op, flops, bytes });
        }
        let mut clock = self.clock();
        if let Some(rate) = cluster.measured.get(op) {
            let flops: f64 = kernels.iter().map(Kernel::flops).sum();
            let bytes: f64 = kernels.iter().map(Kernel::bytes).sum();
            let seconds = rate.call + rate.per_flop * flops + rate.per_byte * bytes;
            let product = if flops > 0.0 { seconds } else { 0.0 };
            self.spend(&mut clock, op, [product, seconds - product], flops, 1);
            return Ok(());
        }
        for kernel in kernels {
            let seconds = cluster.kernel(kernel) / stack.efficiency;
            clock.launch(stack.launch_seconds / stack.efficiency);
            let split = match kernel {
                Kernel::Product { .. } => [seconds, 0.0],
                Kernel::Stream(_) => [0.0, seconds],
            };
            self.spend(&mut clock, op, split, kernel.flops(), 1);
        }
        Ok(())
    }

    fn spend(&self, clock: &mut Clock, op: &str, [product, stream]: [f64; 2], flops: f64, kernels: u64) {
        clock.device += product + stream;
        clock.spent.products += product;
        match op {
            "adamw" => clock.spent.optimizer += stream,
            _ => clock.spent.streams += stream,
        }
        clock.spent.flops += flops;
        clock.spent.kernels += kernels;
    }

    fn stream(&self, op: &'static str, bytes: usize) -> Result<()> {
        self.kernels(op, &[Kernel::Stream(bytes as f64)])
    }
}

/// Checks the operands, then streams the bytes of these views, some of them twice.
macro_rules! streams {
    ($($op:ident($args:ident: $type:ident) => $bytes:expr;)*) => {$(
        fn $op(&self, $args: $type<'_, Line>) -> Result<()> {
            $args.check()?;
            self.stream(stringify!($op), $bytes)
        }
    )*};
}

impl Backend for SimBackend {
    type Buffer = Line;

    fn info(&self) -> Info {
        let World { cluster, stack, .. } = &*self.world;
        Info {
            backend: "sim",
            device: cluster.device.name.clone(),
            driver: format!("{}, stack {}", cluster.name, stack.name),
            software: true,
        }
    }

    fn now(&self) -> Instant {
        self.world.epoch + Duration::from_secs_f64(self.seconds())
    }

    fn begins(&self, what: &dyn std::fmt::Debug) {
        self.does(format!("in {what:?}"));
    }

    fn support(&self, _op: &str) -> Support {
        Support::Native
    }

    fn alloc(&self, class: Class, dtype: DType, shape: Shape) -> Result<Tensor<Line>> {
        let bytes = shape.extents().iter().try_fold(dtype.size(), |bytes, &n| bytes.checked_mul(n));
        let bytes = bytes.unwrap_or(usize::MAX);
        let counted = match class {
            // Held as f32 here; what another software holds beside or instead is its stack's word.
            Class::Gradients => (bytes as f64 * self.world.stack.held_gradient_bytes / 4.0) as u64,
            _ => bytes as u64,
        };
        let in_use = self.meter.in_use();
        if in_use.saturating_add(counted) > self.limit {
            self.does(format!("in the allocation of {class} {dtype}{shape}"));
            let remedy = "use more tensor or pipeline ranks, recomputation, sequence parallelism, a sharded optimizer or a smaller microbatch";
            return Err(Error::OutOfMemory { class, asked: counted, in_use, remedy });
        }
        self.meter.take(class, counted);
        Tensor::new(
            Line(Arc::new(Taken { class, bytes, counted, meter: Arc::clone(&self.meter) })),
            dtype,
            0,
            shape,
        )
    }

    fn usage(&self, class: Class) -> Usage {
        self.meter.usage(class)
    }

    fn workspace(&self, scratch: Scratch) -> usize {
        let own = (self.workspace)(scratch);
        match scratch {
            Scratch::Attention { b, s, a, d } => {
                own.max(self.world.stack.attention_workspace(AttentionDims { b, s, a, d }))
            }
            _ => own,
        }
    }

    fn write(&self, dst: View<'_, Line>, data: &[u8]) -> Result<()> {
        length("write", dst, data.len())
    }

    /// Zeros: what control flow reads (a norm, a wish to stop) must be a number, and there are no data.
    fn read(&self, src: View<'_, Line>, data: &mut [u8]) -> Result<()> {
        length("read", src, data.len())?;
        data.fill(0);
        let mut clock = self.clock();
        clock.host = clock.host.max(clock.device);
        Ok(())
    }

    /// Nothing is waited for: who asks for the time is told the device's.
    fn sync(&self) -> Result<()> {
        Ok(())
    }

    fn fill(&self, x: View<'_, Line>, _: f32) -> Result<()> {
        check_float("fill", x)?;
        self.stream("fill", x.bytes())
    }

    fn copy(&self, src: View<'_, Line>, dst: View<'_, Line>) -> Result<()> {
        check_copy(src, dst)?;
        self.stream("copy", 2 * src.bytes())
    }

    fn scale(&self, x: View<'_, Line>, _: f32) -> Result<()> {
        check_float("scale", x)?;
        self.stream("scale", 2 * x.bytes())
    }

    fn reduce(&self, _: ReduceOp, inputs: &[View<'_, Line>], outputs: &[View<'_, Line>]) -> Result<()> {
        check_reduce(inputs, outputs)?;
        self.stream("reduce", inputs.iter().chain(outputs).map(View::bytes).sum())
    }

    fn matmul(&self, args: Matmul<'_, Line>) -> Result<()> {
        let dims = args.check()?;
        let bytes = args.a.bytes() + args.b.bytes() + args.c.bytes();
        let sum = if args.beta == 0.0 { 0 } else { args.c.bytes() };
        let stack = &self.world.stack;
        self.kernels("matmul", &stack.product(dims, args.a.dtype(), bytes as f64, sum as f64))
    }

    fn matmul_bias(&self, args: MatmulBias<'_, Line>) -> Result<()> {
        let dims = args.check()?;
        let bytes = args.x.bytes() + args.w.bytes() + args.y.bytes();
        self.kernels("matmul_bias", &self.world.stack.product(dims, args.x.dtype(), bytes as f64, 0.0))
    }

    fn matmul_bias_gelu(&self, args: MatmulBiasGelu<'_, Line>) -> Result<()> {
        let dims = args.check()?;
        let bytes = args.x.bytes() + args.w.bytes() + args.pre.bytes() + args.y.bytes();
        self.kernels("matmul_bias_gelu", &self.world.stack.product_gelu(dims, args.x.dtype(), bytes as f64))
    }

    fn bias_dropout_residual(&self, args: BiasDropoutResidual<'_, Line>) -> Result<()> {
        args.check()?;
        let mask = if args.mask.is_some() { self.world.stack.mask(args.x.len() as f64) } else { 0.0 };
        self.kernels("bias_dropout_residual", &[Kernel::Stream(3.0 * args.x.bytes() as f64 + mask)])
    }

    fn dropout(&self, args: Dropout<'_, Line>) -> Result<()> {
        args.check()?;
        let mask = self.world.stack.mask(args.x.len() as f64);
        self.kernels("dropout", &[Kernel::Stream(2.0 * args.x.bytes() as f64 + mask)])
    }

    fn attention(&self, args: Attention<'_, Line>) -> Result<()> {
        let dims = args.check()?;
        let kernels = self.world.stack.attention(dims, args.qkv.dtype(), args.dropout.is_some());
        self.kernels("attention", &kernels)
    }

    fn attention_backward(&self, args: AttentionBackward<'_, Line>) -> Result<()> {
        let dims = args.check()?;
        let kernels = self.world.stack.attention_backward(dims, args.qkv.dtype(), args.dropout.is_some());
        self.kernels("attention_backward", &kernels)
    }

    fn adamw(&self, args: AdamW<'_, Line>) -> Result<()> {
        let elements = args.check()?;
        let own = args.grad.bytes() + 2 * (args.param.bytes() + args.m.bytes() + args.v.bytes());
        let beside = elements as f64 * self.world.stack.step_bytes;
        let kernels = [Kernel::Stream(own as f64), Kernel::Stream(beside)];
        self.kernels("adamw", &kernels[..1 + usize::from(beside > 0.0)])
    }

    streams! {
        add(args: Add) => 3 * args.x.bytes();
        cast(args: Cast) => args.src.bytes() + args.dst.bytes();
        bias_add(args: BiasAdd) => 2 * args.x.bytes();
        bias_backward(args: BiasBackward) => args.dy.bytes();
        bias_gelu(args: BiasGelu) => 2 * args.x.bytes();
        gelu(args: Gelu) => 2 * args.x.bytes();
        gelu_backward(args: GeluBackward) => 3 * args.x.bytes();
        layernorm(args: LayerNorm) => 2 * args.x.bytes();
        layernorm_backward(args: LayerNormBackward) => (3 + usize::from(args.accumulate)) * args.x.bytes();
        attention_cached(args: AttentionCached) => args.qkv.bytes() + args.cache.bytes();
        embedding(args: Embedding) => 2 * args.y.bytes();
        embedding_backward(args: EmbeddingBackward) => args.dy.bytes() + 8 * args.dy.len();
        cross_entropy_max(args: CrossEntropyMax) => args.logits.bytes();
        cross_entropy_sums(args: CrossEntropySums) => args.logits.bytes();
        cross_entropy_loss(args: CrossEntropyLoss) => 3 * args.loss.bytes();
        cross_entropy_backward(args: CrossEntropyBackward) => args.logits.bytes() + args.dlogits.bytes();
        sum(args: Sum) => args.x.bytes();
        block_squares(args: BlockSquares) => args.x.bytes();
    }
}

/// Host memory is as long as the view.
fn length(op: &'static str, view: View<'_, Line>, len: usize) -> Result<()> {
    match len == view.bytes() {
        true => Ok(()),
        false => Err(Error::Shape {
            op,
            tensor: "data",
            expected: format!("{len} bytes, as long as the host memory"),
            got: view.shape(),
        }),
    }
}
