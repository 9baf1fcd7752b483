//! A tensor for each of a rank's chunks.

use backend::{Backend, Class, DType, Result, Shape, Tensor, View};

/// Tensors of one shape, one a chunk, in one buffer.
pub struct Chunked<B: Backend> {
    all: Tensor<B::Buffer>,
    shape: Shape,
    chunks: usize,
}

impl<B: Backend> Chunked<B> {
    /// Memory for `chunks` tensors.
    ///
    /// # Errors
    /// Those of the backend.
    pub fn new(backend: &B, class: Class, dtype: DType, chunks: usize, shape: &[usize]) -> Result<Self> {
        let shape = Shape::new(shape);
        let all = backend.alloc(class, dtype, Shape::new(&[chunks * shape.len()]))?;
        Ok(Self { all, shape, chunks })
    }

    /// Chunk `i`.
    pub fn at(&self, i: usize) -> View<'_, B::Buffer> {
        let all = self.all.view();
        View::new(all.buffer(), all.dtype(), all.offset() + i * self.shape.len(), self.shape)
            .expect("a chunk lies in its buffer")
    }

    /// Every chunk, in order.
    pub fn iter(&self) -> impl Iterator<Item = View<'_, B::Buffer>> {
        (0..self.chunks).map(|i| self.at(i))
    }

    /// All chunks behind each other, flat.
    pub fn whole(&self) -> View<'_, B::Buffer> {
        self.all.view()
    }

    /// Number of chunks.
    pub fn len(&self) -> usize {
        self.chunks
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.chunks == 0
    }
}
