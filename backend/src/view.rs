//! Buffers, and the windows on them that operations take.

use crate::{DType, Error, Result};

/// The most axes that a shape has.
pub const MAX_RANK: usize = 5;

/// Extents of a contiguous, row-major block, outermost first; at most [`MAX_RANK`] of them.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Shape {
    extents: [usize; MAX_RANK],
    rank: u8,
}

impl Shape {
    /// The shape of these extents.
    ///
    /// # Panics
    /// With more than [`MAX_RANK`] extents: shapes are written in code, not read from users.
    pub fn new(extents: &[usize]) -> Self {
        assert!(extents.len() <= MAX_RANK, "a shape has at most {MAX_RANK} axes, not {}", extents.len());
        let mut all = [1; MAX_RANK];
        all[..extents.len()].copy_from_slice(extents);
        Self { extents: all, rank: extents.len() as u8 }
    }

    /// The extents.
    pub fn extents(&self) -> &[usize] {
        &self.extents[..usize::from(self.rank)]
    }

    /// Number of elements; 1 for a shape without axes.
    pub fn len(&self) -> usize {
        self.extents().iter().product()
    }

    /// Whether an extent is 0.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl<const N: usize> From<[usize; N]> for Shape {
    fn from(extents: [usize; N]) -> Self {
        Self::new(&extents)
    }
}

impl std::fmt::Debug for Shape {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:?}", self.extents())
    }
}

impl std::fmt::Display for Shape {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:?}", self.extents())
    }
}

/// A backend's handle to device memory: cheap to clone, freed to its pool when the last clone is dropped.
pub trait Buffer: Clone + Send + Sync + 'static {
    /// Size in bytes.
    fn bytes(&self) -> usize;

    /// Whether two handles are the same memory.
    fn same(&self, other: &Self) -> bool;
}

/// A contiguous, row-major window on a buffer: what an operation reads or writes. It borrows; whether it is read or written is the operation's word.
pub struct View<'a, B> {
    buffer: &'a B,
    offset: usize,
    shape: Shape,
    dtype: DType,
}

impl<B> Clone for View<'_, B> {
    fn clone(&self) -> Self {
        *self
    }
}
impl<B> Copy for View<'_, B> {}

impl<B> std::fmt::Debug for View<'_, B> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}{} at {}", self.dtype, self.shape, self.offset)
    }
}

impl<'a, B: Buffer> View<'a, B> {
    /// The window of `shape` elements of `dtype` that begins `offset` *elements* into the buffer.
    ///
    /// # Errors
    /// [`Error::OutOfBounds`] if it leaves the buffer.
    pub fn new(buffer: &'a B, dtype: DType, offset: usize, shape: impl Into<Shape>) -> Result<Self> {
        let shape = shape.into();
        let (len, capacity) = (shape.len(), buffer.bytes() / dtype.size());
        match offset.checked_add(len) {
            Some(end) if end <= capacity => Ok(Self { buffer, offset, shape, dtype }),
            _ => Err(Error::OutOfBounds { offset, len, capacity }),
        }
    }

    /// The buffer.
    pub fn buffer(&self) -> &'a B {
        self.buffer
    }

    /// First element, counted in elements from the buffer's start.
    pub fn offset(&self) -> usize {
        self.offset
    }

    /// Extents.
    pub fn shape(&self) -> Shape {
        self.shape
    }

    /// The extents as a slice.
    pub fn extents(&self) -> &[usize] {
        self.shape.extents()
    }

    /// Element type.
    pub fn dtype(&self) -> DType {
        self.dtype
    }

    /// Number of elements.
    pub fn len(&self) -> usize {
        self.shape.len()
    }

    /// Whether there is no element.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Size in bytes.
    pub fn bytes(&self) -> usize {
        self.len() * self.dtype.size()
    }

    /// The same elements under other extents.
    ///
    /// # Errors
    /// [`Error::Shape`] if the number of elements differs.
    pub fn reshape(&self, shape: impl Into<Shape>) -> Result<Self> {
        let shape = shape.into();
        if shape.len() != self.len() {
            return Err(Error::Shape {
                op: "reshape",
                tensor: "view",
                expected: format!("{} elements", shape.len()),
                got: self.shape,
            });
        }
        Ok(Self { shape, ..*self })
    }

    /// Entries `first .. first + count` of the outermost axis.
    ///
    /// # Errors
    /// [`Error::OutOfBounds`] if there are not so many.
    pub fn rows(&self, first: usize, count: usize) -> Result<Self> {
        let extents = self.extents();
        let have = extents.first().copied().unwrap_or(1);
        if first.checked_add(count).is_none_or(|end| end > have) {
            return Err(Error::OutOfBounds { offset: first, len: count, capacity: have });
        }
        let mut shape = self.shape;
        shape.extents[0] = count;
        shape.rank = shape.rank.max(1);
        let row: usize = extents.iter().skip(1).product();
        Ok(Self { offset: self.offset + first * row, shape, ..*self })
    }

    /// Whether the two windows are the very same elements.
    pub fn same(&self, other: &View<'_, B>) -> bool {
        self.buffer.same(other.buffer) && self.byte_range() == other.byte_range() && self.dtype == other.dtype
    }

    /// Whether the two windows share a byte.
    pub fn overlaps(&self, other: &View<'_, B>) -> bool {
        let (a, b) = (self.byte_range(), other.byte_range());
        self.buffer.same(other.buffer) && a.start < b.end && b.start < a.end
    }

    /// The bytes of the buffer that the window covers.
    pub fn byte_range(&self) -> std::ops::Range<usize> {
        let start = self.offset * self.dtype.size();
        start..start + self.bytes()
    }

    /// The same window, keeping the buffer alive.
    pub fn to_tensor(&self) -> Tensor<B> {
        Tensor { buffer: self.buffer.clone(), offset: self.offset, shape: self.shape, dtype: self.dtype }
    }
}

/// A [`View`] that owns a share of its buffer: what a model keeps in its fields.
#[derive(Clone)]
pub struct Tensor<B> {
    buffer: B,
    offset: usize,
    shape: Shape,
    dtype: DType,
}

impl<B> std::fmt::Debug for Tensor<B> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}{} at {}", self.dtype, self.shape, self.offset)
    }
}

impl<B: Buffer> Tensor<B> {
    /// The window of `shape` elements at `offset` of a buffer that it takes over.
    ///
    /// # Errors
    /// [`Error::OutOfBounds`] if it leaves the buffer.
    pub fn new(buffer: B, dtype: DType, offset: usize, shape: impl Into<Shape>) -> Result<Self> {
        let shape = View::new(&buffer, dtype, offset, shape)?.shape;
        Ok(Self { buffer, offset, shape, dtype })
    }

    /// The window, for an operation.
    pub fn view(&self) -> View<'_, B> {
        View { buffer: &self.buffer, offset: self.offset, shape: self.shape, dtype: self.dtype }
    }

    /// Extents.
    pub fn extents(&self) -> &[usize] {
        self.shape.extents()
    }

    /// Number of elements.
    pub fn len(&self) -> usize {
        self.shape.len()
    }

    /// Whether there is no element.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Element type.
    pub fn dtype(&self) -> DType {
        self.dtype
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Clone)]
    struct Bytes(std::sync::Arc<Vec<u8>>);
    impl Buffer for Bytes {
        fn bytes(&self) -> usize {
            self.0.len()
        }
        fn same(&self, other: &Self) -> bool {
            std::sync::Arc::ptr_eq(&self.0, &other.0)
        }
    }
    fn bytes(n: usize) -> Bytes {
        Bytes(std::sync::Arc::new(vec![0; n]))
    }

    #[test]
    fn a_window_stays_in_its_buffer() {
        let buffer = bytes(40);
        assert!(View::new(&buffer, DType::F32, 2, [2, 4]).is_ok());
        let error = View::new(&buffer, DType::F32, 3, [2, 4]).unwrap_err();
        assert_eq!(error, Error::OutOfBounds { offset: 3, len: 8, capacity: 10 });
        assert!(View::new(&buffer, DType::F32, usize::MAX, [2]).is_err());
    }

    #[test]
    fn rows_and_overlap() {
        let (buffer, other) = (bytes(48), bytes(48));
        let x = View::new(&buffer, DType::F32, 0, [4, 3]).unwrap();
        let (a, b) = (x.rows(0, 2).unwrap(), x.rows(2, 2).unwrap());
        assert_eq!((b.offset(), b.extents()), (6, &[2, 3][..]));
        assert!(!a.overlaps(&b) && x.overlaps(&a) && x.overlaps(&b));
        assert!(!x.overlaps(&View::new(&other, DType::F32, 0, [4, 3]).unwrap()));
        assert!(x.rows(3, 2).is_err());
        assert!(a.same(&x.rows(0, 2).unwrap()) && !a.same(&b));
    }
}
