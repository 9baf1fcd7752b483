//! From the contract's views to memory that a kernel can touch.

use std::cell::Cell;
use std::marker::PhantomData;
use std::ops::Range;

use backend::{DType, Error, Result, View};

use crate::CpuBuffer;

/// The elements of an f32 view, to be handed to the threads that share an operation.
#[derive(Clone, Copy)]
pub(crate) struct Floats<'a> {
    start: *mut f32,
    len: usize,
    borrowed: PhantomData<&'a CpuBuffer>,
}

// SAFETY: it is an address; reading and writing through it is `cells`, whose caller vouches for the other threads.
unsafe impl Send for Floats<'_> {}
// SAFETY: as above.
unsafe impl Sync for Floats<'_> {}

impl<'a> Floats<'a> {
    /// The view's elements.
    ///
    /// # Errors
    /// [`Error::Unsupported`] for a float that is not f32.
    pub(crate) fn new(op: &'static str, view: View<'a, CpuBuffer>) -> Result<Self> {
        match view.dtype() {
            DType::F32 => Ok(Self {
                start: view.buffer().start().wrapping_add(view.byte_range().start).cast(),
                len: view.len(),
                borrowed: PhantomData,
            }),
            other => Err(unsupported(op, other)),
        }
    }

    /// A workspace's elements.
    ///
    /// # Errors
    /// [`Error::Shape`] if there are fewer than `needed`.
    pub(crate) fn workspace(op: &'static str, view: View<'a, CpuBuffer>, needed: usize) -> Result<Self> {
        match view.len() >= needed {
            true => Self::new(op, view),
            false => Err(Error::Shape {
                op,
                tensor: "workspace",
                expected: format!("at least {needed} elements"),
                got: view.shape(),
            }),
        }
    }

    /// The first element's address.
    pub(crate) fn start(&self) -> *mut f32 {
        self.start
    }

    /// Number of elements.
    pub(crate) fn len(&self) -> usize {
        self.len
    }

    /// Some of the elements. Cells, because an operation may be given one view as input and output.
    ///
    /// # Safety
    /// While the slice is in use, no element that is read through it is written by another thread, and none that is written through it is touched by one.
    pub(crate) unsafe fn cells(&self, range: Range<usize>) -> &'a [Cell<f32>] {
        assert!(range.start <= range.end && range.end <= self.len, "{range:?} of {}", self.len);
        // SAFETY: in bounds of a live, initialised, aligned block; a cell has the layout of its content; the caller vouches for other threads.
        unsafe { std::slice::from_raw_parts(self.start.add(range.start).cast(), range.len()) }
    }
}

/// The indices of a u32 view.
pub(crate) fn tokens<'a>(view: View<'a, CpuBuffer>) -> &'a [u32] {
    debug_assert_eq!(view.dtype(), DType::U32);
    let start = view.buffer().start().wrapping_add(view.byte_range().start);
    // SAFETY: in bounds and aligned to its element (`View`); no operation that reads tokens writes them (the arguments' `check`), and an operation
    // holds the backend's turn while it runs.
    unsafe { std::slice::from_raw_parts(start.cast(), view.len()) }
}

/// The error for an element type that this backend does not compute with.
pub(crate) fn unsupported(op: &'static str, dtype: DType) -> Error {
    Error::Unsupported {
        op,
        what: format!("the cpu backend computes in f32, not {dtype}; set the precision to f32"),
    }
}
