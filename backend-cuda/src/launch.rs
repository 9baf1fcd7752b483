//! A launch: the kernel's struct of arguments, the grid, and the limits that stand in the way.

use backend::{DType, Error, Result, View};

use crate::backend::CudaBackend;
use crate::kernels::Variant;
use crate::memory::CudaBuffer;

/// Address of a view's first element.
pub(crate) fn at(view: View<'_, CudaBuffer>) -> u64 {
    view.buffer().address() + view.byte_range().start as u64
}

/// Whether four elements may be fetched at once from wherever these views begin.
pub(crate) fn wide(views: &[View<'_, CudaBuffer>]) -> u32 {
    u32::from(views.iter().all(|view| at(*view).is_multiple_of(4 * view.dtype().size() as u64)))
}

/// Blocks of a grid whose threads share out groups of four.
pub(crate) fn fours(n: usize) -> [u32; 3] {
    // Enough to fill any device several times; each thread takes what is left in turn.
    [n.div_ceil(4 * 256).min(8192) as u32, 1, 1]
}

/// An extent as kernels count it.
///
/// # Errors
/// [`Error::Limit`] beyond 2^31 - 1.
pub(crate) fn extent(op: &'static str, what: &'static str, n: usize) -> Result<u32> {
    match i32::try_from(n) {
        Ok(n) => Ok(n as u32),
        Err(_) => Err(Error::Limit {
            op,
            what: what.to_owned(),
            limit: "largest extent of the kernels",
            allowed: i32::MAX as u64,
            asked: n as u64,
            remedy: "split the model over more ranks, or take a smaller microbatch",
        }),
    }
}

/// The workspace is long enough.
pub(crate) fn roomy(op: &'static str, workspace: View<'_, CudaBuffer>, need: usize) -> Result<()> {
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

/// `u32` tokens and `f32` statistics have no variant; a kernel of a type is found by the type.
pub(crate) fn of(file: &'static str, dtype: DType) -> Variant {
    Variant::of(file, dtype)
}

impl CudaBackend {
    /// Enqueues a kernel on the rank's stream; an empty grid is nothing to do. `params` is the struct that the kernel takes.
    pub(crate) fn launch<P: Copy>(
        &self,
        op: &'static str,
        (variant, kernel): (Variant, &'static str),
        grid: [u32; 3],
        threads: u32,
        params: P,
    ) -> Result<()> {
        self.launch_shared(op, (variant, kernel), grid, (threads, 0), params)
    }

    /// As [`launch`](Self::launch), with so many bytes of dynamic shared memory.
    pub(crate) fn launch_shared<P: Copy>(
        &self,
        op: &'static str,
        (variant, kernel): (Variant, &'static str),
        grid: [u32; 3],
        (threads, shared): (u32, u32),
        params: P,
    ) -> Result<()> {
        if grid.contains(&0) {
            return Ok(());
        }
        if let Some(blocks) = grid[1..].iter().find(|blocks| **blocks > 65_535) {
            return Err(Error::Limit {
                op,
                what: format!("a grid of {grid:?} blocks"),
                limit: "blocks along an axis",
                allowed: 65_535,
                asked: u64::from(*blocks),
                remedy: "take a smaller microbatch",
            });
        }
        self.device.enter()?;
        let function = self.device.function(variant, kernel)?;
        // Beyond what every kernel may have unasked.
        if shared > 48 * 1024 {
            function.allow_shared(shared).map_err(|failed| self.device.failed(failed))?;
        }
        // SAFETY: each operation passes its kernel's struct, made from views that its check has matched to the extents.
        let result = unsafe { function.launch(self.device.stream, grid, threads, shared, &params) };
        result.map_err(|failed| self.device.failed(failed))
    }
}
