//! From the contract's views to memory that a kernel can touch.

use std::cell::Cell;
use std::marker::PhantomData;
use std::ops::Range;

use backend::{DType, Error, Result, View};

use crate::CpuBuffer;
use crate::element::Element;

/// The elements of a view, to be handed to the threads that share an operation.
pub(crate) struct Floats<'a, T = f32> {
    start: *mut T,
    len: usize,
    borrowed: PhantomData<&'a CpuBuffer>,
}

impl<T> Clone for Floats<'_, T> {
    fn clone(&self) -> Self {
        *self
    }
}
impl<T> Copy for Floats<'_, T> {}

// SAFETY: it is an address; reading and writing through it is `cells`, whose caller vouches for the other threads.
unsafe impl<T> Send for Floats<'_, T> {}
// SAFETY: as above.
unsafe impl<T> Sync for Floats<'_, T> {}

impl<'a, T: Element> Floats<'a, T> {
    /// The view's elements.
    ///
    /// # Errors
    /// [`Error::DType`] if they are of another type.
    pub(crate) fn new(op: &'static str, view: View<'a, CpuBuffer>) -> Result<Self> {
        match view.dtype() == T::DTYPE {
            true => Ok(Self {
                start: view.buffer().start().wrapping_add(view.byte_range().start).cast(),
                len: view.len(),
                borrowed: PhantomData,
            }),
            // The arguments' check has said so before, with the operand's name.
            false => Err(Error::DType { op, tensor: "operand", expected: T::DTYPE, got: view.dtype() }),
        }
    }
}

impl<'a> Floats<'a> {
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
}

impl<'a, T> Floats<'a, T> {
    /// The first element's address.
    pub(crate) fn start(&self) -> *mut T {
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
    pub(crate) unsafe fn cells(&self, range: Range<usize>) -> &'a [Cell<T>] {
        assert!(range.start <= range.end && range.end <= self.len, "{range:?} of {}", self.len);
        // SAFETY: in bounds of a live, initialised, aligned block; a cell has the layout of its content; the caller vouches for other threads.
        unsafe { std::slice::from_raw_parts(self.start.add(range.start).cast(), range.len()) }
    }
}

/// The bytes of a view.
pub(crate) fn bytes<'a>(view: View<'a, CpuBuffer>) -> Floats<'a, u8> {
    let range = view.byte_range();
    Floats { start: view.buffer().start().wrapping_add(range.start), len: range.len(), borrowed: PhantomData }
}

/// The indices of a u32 view.
pub(crate) fn tokens<'a>(view: View<'a, CpuBuffer>) -> &'a [u32] {
    debug_assert_eq!(view.dtype(), DType::U32);
    let start = view.buffer().start().wrapping_add(view.byte_range().start);
    // SAFETY: in bounds and aligned to its element (`View`); no operation that reads tokens writes them (the arguments' `check`), and an operation
    // holds the backend's turn while it runs.
    unsafe { std::slice::from_raw_parts(start.cast(), view.len()) }
}
