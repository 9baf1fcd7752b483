//! From an operation's views to a kernel on the queue: which buffers share a binding, where the windows begin, whether four numbers at a time will do, how many
//! workgroups.
//!
//! * A window begins at a multiple of 256 bytes at or below its view; the kernel gets the rest as an offset in its parameters.
//! * Views of one buffer, one of them written, share one binding over all of them, since WebGPU tracks a whole buffer at a time.
//! * `WIDE` (vectors of four) is chosen where the operation allows it and every vector operand begins at a multiple of four elements. It is a matter of memory
//!   only: kernels compute the same without it.

use std::sync::Arc;

use backend::{DType, Error, Result, View};

use crate::compile::Variant;
use crate::device::Device;
use crate::kernels::Params;
use crate::memory::{ALIGNMENT, Memory, WgpuBuffer};
use crate::operand::Element;
use crate::preprocess::{Bindings, MAX_BINDINGS, MAX_OPERANDS};
use crate::queue::{Launch, MAX_PARAMS, Window};

/// Fours that a workgroup of `lib/flat.wgsl` takes.
const FLAT: usize = 128 * 4;
/// Lanes (of four columns each) and rows of a workgroup of `lib/columns.wgsl`.
const COLUMN_LANES: usize = 64;
const COLUMN_ROWS: usize = 8;

/// How the work is laid out over workgroups.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Grid {
    /// As `lib/flat.wgsl`: that many numbers.
    Flat(usize),
    /// As `lib/columns.wgsl`: columns and rows.
    Columns(usize, usize),
    /// Columns, and blocks of rows, one a workgroup.
    Blocks(usize, usize),
    /// One workgroup each, folded into x and y.
    Each(usize),
    /// As it is.
    Exact([usize; 3]),
}

struct Operand {
    memory: Arc<Memory>,
    start: u64,
    end: u64,
    element: Element,
    written: bool,
    /// Whether the kernel takes it in vectors where it is `WIDE`.
    vector: bool,
}

/// A kernel about to be launched.
pub(crate) struct Call<'a, P> {
    device: &'a Device,
    op: &'static str,
    params: P,
    defines: Vec<(&'static str, u32)>,
    operands: Vec<Operand>,
    wide: bool,
    native_f16: bool,
}

impl<'a, P: Params> Call<'a, P> {
    /// The kernel that these are the parameters of, on behalf of `op`.
    pub fn new(device: &'a Device, op: &'static str, params: P) -> Self {
        Self { device, op, params, defines: Vec::new(), operands: Vec::new(), wide: false, native_f16: false }
    }

    /// Four numbers at a time are possible: every row is a multiple of four long.
    pub fn wide(mut self, possible: bool) -> Self {
        self.wide = possible;
        self
    }

    /// Reads f16 as the device does, where it can.
    pub fn native_f16(mut self) -> Self {
        self.native_f16 = self.device.info.f16;
        self
    }

    /// Defines `name` in the shader.
    pub fn define(mut self, name: &'static str, value: impl Into<u32>) -> Self {
        self.defines.push((name, value.into()));
        self
    }

    /// The next operand, read one number at a time.
    pub fn read(self, view: View<'_, WgpuBuffer>) -> Self {
        self.operand(view, false, false)
    }

    /// The next operand, read in vectors where that is possible.
    pub fn read_wide(self, view: View<'_, WgpuBuffer>) -> Self {
        self.operand(view, false, true)
    }

    /// The next operand, written (and perhaps read) one number at a time.
    pub fn write(self, view: View<'_, WgpuBuffer>) -> Self {
        self.operand(view, true, false)
    }

    /// The next operand, written (and perhaps read) in vectors where that is possible.
    pub fn write_wide(self, view: View<'_, WgpuBuffer>) -> Self {
        self.operand(view, true, true)
    }

    fn operand(mut self, view: View<'_, WgpuBuffer>, written: bool, vector: bool) -> Self {
        let memory = Arc::clone(view.buffer().memory());
        // A binding is never empty; an empty view's stands for any word of the buffer.
        let (start, end) = match view.is_empty() {
            true => (0, 4),
            false => (view.byte_range().start as u64, view.byte_range().end as u64),
        };
        let element = match view.dtype() {
            DType::F32 | DType::U32 => Element::Word,
            DType::Bf16 => Element::Bf16,
            DType::F16 => Element::F16,
        };
        self.operands.push(Operand { memory, start, end, element, written, vector });
        self
    }

    /// Launches it.
    ///
    /// # Errors
    /// As [`prepare`](Self::prepare).
    pub fn run(self, grid: Grid) -> Result<()> {
        let device = self.device;
        if let Some(launch) = self.prepare(grid)? {
            device.launch(launch);
        }
        Ok(())
    }

    /// What the owner thread needs to launch it; `None` where there is nothing to do. Its compilation has begun.
    ///
    /// # Errors
    /// [`Error::Limit`] where a window or the number of workgroups is past the device's; [`Error::Unsupported`] where it takes more buffers than a kernel can
    /// bind.
    pub fn prepare(self, grid: Grid) -> Result<Option<Launch>> {
        let merged = merge(&self.operands);
        let (mut bindings, mut windows) = (merged.bindings, merged.windows);
        if windows.len() > MAX_BINDINGS {
            return Err(Error::Unsupported {
                op: self.op,
                what: format!("{} buffers at once; {MAX_BINDINGS} is the most", windows.len()),
            });
        }
        let aligned = |o: &Operand| !o.vector || o.start.is_multiple_of(4 * o.element.size());
        let flagged = P::KERNEL.flags.contains(&"WIDE");
        let wide = self.wide && flagged && !merged.mixed && self.operands.iter().all(aligned);
        if self.native_f16 {
            bindings.read_natively();
        }
        let mut params = [0; MAX_PARAMS];
        for (i, operand) in self.operands.iter().enumerate() {
            let step = operand.element.size() * if operand.vector && wide { 4 } else { 1 };
            let at = ((operand.start - windows[usize::from(bindings.of[i])].offset) / step) as u32;
            params[i * 4..i * 4 + 4].copy_from_slice(&at.to_ne_bytes());
        }
        let own = bytemuck::bytes_of(&self.params);
        let first = self.operands.len() * 4;
        params[first..first + own.len()].copy_from_slice(own);
        for window in &mut windows {
            // Whole vectors; buffers are multiples of the alignment.
            window.size = window.size.next_multiple_of(16);
            if window.size > self.device.max_binding {
                return Err(Error::Limit {
                    op: self.op,
                    what: "the window that a kernel sees of a buffer".to_owned(),
                    limit: "largest storage binding in bytes",
                    allowed: self.device.max_binding,
                    asked: window.size,
                    remedy: "split the model over more tensor ranks, or take a smaller microbatch",
                });
            }
        }
        let groups = self.groups(grid)?;
        if groups.contains(&0) {
            return Ok(None);
        }
        let mut defines = self.defines;
        if flagged {
            defines.push(("WIDE", wide.into()));
        }
        let variant = Variant { path: P::KERNEL.path, defines, bindings };
        let pipeline = self.device.compiler.pipeline(variant);
        Ok(Some(Launch { pipeline, windows, params, groups }))
    }

    fn groups(&self, grid: Grid) -> Result<[u32; 3]> {
        let most = self.device.max_groups as usize;
        let fold = |n: usize| {
            let lines = n.div_ceil(most).max(1);
            [n.div_ceil(lines), lines]
        };
        let columns = |columns: usize| columns.div_ceil(4 * COLUMN_LANES);
        let groups = match grid {
            Grid::Flat(n) => {
                let [x, y] = fold(n.div_ceil(4 * FLAT));
                [x, y, 1]
            }
            Grid::Columns(n, rows) => {
                let [y, z] = fold(rows.div_ceil(COLUMN_ROWS));
                [columns(n), y, z]
            }
            Grid::Blocks(n, blocks) => {
                let [y, z] = fold(blocks);
                [columns(n), y, z]
            }
            Grid::Each(n) => {
                let [x, y] = fold(n);
                [x, y, 1]
            }
            Grid::Exact(groups) => groups,
        };
        match groups.iter().find(|&&n| n > most) {
            None => Ok(groups.map(|n| n as u32)),
            Some(&asked) => Err(Error::Limit {
                op: self.op,
                what: "the number of workgroups".to_owned(),
                limit: "workgroups in one dimension",
                allowed: most as u64,
                asked: asked as u64,
                remedy: "take a smaller microbatch",
            }),
        }
    }
}

/// What the operands come to.
struct Merged {
    bindings: Bindings,
    windows: Vec<Window>,
    /// Whether vectors and single elements, or words and halves of words, share a binding.
    mixed: bool,
}

/// Gives each operand a binding: its own, or one for all of a buffer that is written.
fn merge(operands: &[Operand]) -> Merged {
    let written_somewhere = |id: u64| operands.iter().any(|o| o.written && o.memory.id == id);
    let mut of = [0; MAX_OPERANDS];
    let mut written = 0u32;
    let mut first_of: Vec<usize> = Vec::with_capacity(MAX_BINDINGS);
    let mut windows: Vec<Window> = Vec::with_capacity(MAX_BINDINGS);
    let mut mixed = false;
    for (i, operand) in operands.iter().enumerate() {
        let start = operand.start / ALIGNMENT * ALIGNMENT;
        let shared = written_somewhere(operand.memory.id);
        let known = windows.iter().position(|w| shared && w.memory.id == operand.memory.id);
        let binding = match known {
            Some(binding) => {
                let window = &mut windows[binding];
                let end = operand.end.max(window.offset + window.size);
                window.offset = window.offset.min(start);
                window.size = end - window.offset;
                let first = &operands[first_of[binding]];
                mixed |= (first.vector, first.element.size()) != (operand.vector, operand.element.size());
                binding
            }
            None => {
                let memory = Arc::clone(&operand.memory);
                windows.push(Window { memory, offset: start, size: operand.end - start });
                first_of.push(i);
                windows.len() - 1
            }
        };
        of[i] = binding as u8;
        written |= u32::from(shared) << binding;
    }
    let mut elements = [Element::Word; MAX_OPERANDS];
    for (element, operand) in elements.iter_mut().zip(operands) {
        *element = operand.element;
    }
    let bindings = Bindings { of, elements, operands: operands.len() as u8, written: written as u16 };
    Merged { bindings, windows, mixed }
}
