//! A backend without memory: it writes down what a rank asks for, by class, and does nothing.
//!
//! A plan builds a rank's real objects on it, and so has the bytes of the very buffers that training would have, of a model of any size.

use std::sync::{Arc, Mutex, PoisonError};

use backend::ops::{
    AdamW, Add, Attention, AttentionBackward, BiasAdd, BiasBackward, BlockSquares, Cast,
    CrossEntropyBackward, CrossEntropyLoss, CrossEntropyMax, CrossEntropySums, Dropout, Embedding,
    EmbeddingBackward, Gelu, GeluBackward, LayerNorm, LayerNormBackward, Matmul, Scratch, Sum,
};
use backend::{
    Backend, Buffer, Class, Communicator, DType, Error, Group, Info, Lane, Meter, ReduceOp, Result, Shape,
    Tensor, Usage, View,
};
use backend_cpu::CpuBackend;

/// Asks for no memory, and counts it.
pub struct Counting {
    meter: Arc<Meter>,
    /// Which operations ask for how much workspace is a backend's word: one thread of the CPU's.
    sizes: Arc<CpuBackend>,
}

impl Default for Counting {
    /// An empty one.
    fn default() -> Self {
        Self { meter: Arc::default(), sizes: CpuBackend::new(1) }
    }
}

/// A handle to no memory, counted until its last copy is dropped.
#[derive(Clone)]
pub struct Line(Arc<Taken>);

struct Taken {
    class: Class,
    bytes: usize,
    meter: Arc<Meter>,
}

impl Drop for Taken {
    fn drop(&mut self) {
        self.meter.give(self.class, self.bytes as u64);
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

/// Operations that have nothing to do.
macro_rules! nothing {
    ($($op:ident: $args:ident),* $(,)?) => {$(
        fn $op(&self, _: $args<'_, Line>) -> Result<()> {
            Ok(())
        }
    )*};
}

impl Backend for Counting {
    type Buffer = Line;

    fn info(&self) -> Info {
        let text = String::new;
        Info { backend: "counting", device: text(), driver: text(), software: true }
    }

    fn alloc(&self, class: Class, dtype: DType, shape: Shape) -> Result<Tensor<Line>> {
        let bytes = shape.len() * dtype.size();
        self.meter.take(class, bytes as u64);
        Tensor::new(Line(Arc::new(Taken { class, bytes, meter: Arc::clone(&self.meter) })), dtype, 0, shape)
    }

    fn usage(&self, class: Class) -> Usage {
        self.meter.usage(class)
    }

    fn workspace(&self, scratch: Scratch) -> usize {
        self.sizes.workspace(scratch)
    }

    fn write(&self, _: View<'_, Line>, _: &[u8]) -> Result<()> {
        Ok(())
    }

    fn read(&self, _: View<'_, Line>, _: &mut [u8]) -> Result<()> {
        Err(Error::Unsupported { op: "read", what: "a plan has no data".into() })
    }

    fn sync(&self) -> Result<()> {
        Ok(())
    }

    fn fill(&self, _: View<'_, Line>, _: f32) -> Result<()> {
        Ok(())
    }

    fn copy(&self, _: View<'_, Line>, _: View<'_, Line>) -> Result<()> {
        Ok(())
    }

    fn scale(&self, _: View<'_, Line>, _: f32) -> Result<()> {
        Ok(())
    }

    fn reduce(&self, _: ReduceOp, _: &[View<'_, Line>], _: &[View<'_, Line>]) -> Result<()> {
        Ok(())
    }

    nothing! {
        add: Add, cast: Cast, matmul: Matmul, bias_add: BiasAdd, bias_backward: BiasBackward, gelu: Gelu, gelu_backward: GeluBackward,
        dropout: Dropout, layernorm: LayerNorm, layernorm_backward: LayerNormBackward, attention: Attention,
        attention_backward: AttentionBackward, embedding: Embedding, embedding_backward: EmbeddingBackward,
        cross_entropy_max: CrossEntropyMax, cross_entropy_sums: CrossEntropySums, cross_entropy_loss: CrossEntropyLoss,
        cross_entropy_backward: CrossEntropyBackward, adamw: AdamW, sum: Sum, block_squares: BlockSquares,
    }
}

/// One rank of a world that is not there.
pub struct Alone<'a> {
    /// Counts its messages' memory.
    pub backend: &'a Counting,
    /// That memory.
    pub reserved: Mutex<Vec<Tensor<Line>>>,
    /// The rank.
    pub rank: usize,
    /// Ranks that there would be.
    pub world_size: usize,
}

/// A plan has nobody to talk to.
fn nobody<T>(op: &'static str) -> Result<T> {
    Err(Error::Unsupported { op, what: "a plan has one rank".into() })
}

impl Communicator<Line> for Alone<'_> {
    fn rank(&self) -> usize {
        self.rank
    }

    fn world_size(&self) -> usize {
        self.world_size
    }

    fn all_reduce(&self, _: &Group, _: ReduceOp, _: View<'_, Line>) -> Result<()> {
        nobody("all_reduce")
    }

    fn reduce_scatter(&self, _: &Group, _: View<'_, Line>, _: View<'_, Line>) -> Result<()> {
        nobody("reduce_scatter")
    }

    fn all_gather(&self, _: &Group, _: View<'_, Line>, _: View<'_, Line>) -> Result<()> {
        nobody("all_gather")
    }

    fn broadcast(&self, _: &Group, _: usize, _: View<'_, Line>) -> Result<()> {
        nobody("broadcast")
    }

    fn send(&self, _: usize, _: Lane, _: View<'_, Line>) -> Result<()> {
        nobody("send")
    }

    fn reserve(&self, _: usize, messages: usize, dtype: DType, len: usize) -> Result<()> {
        let mut reserved = self.reserved.lock().unwrap_or_else(PoisonError::into_inner);
        for _ in 0..messages {
            reserved.push(self.backend.alloc(Class::Workspace, dtype, Shape::new(&[len]))?);
        }
        Ok(())
    }

    fn recv(&self, _: usize, _: Lane, _: View<'_, Line>) -> Result<()> {
        nobody("recv")
    }

    fn barrier(&self, _: &Group) -> Result<()> {
        nobody("barrier")
    }

    fn fail(&self, _: &str) {}
}
