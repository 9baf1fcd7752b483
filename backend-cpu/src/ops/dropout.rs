//! Dropout: a mask from Philox, a block of four words to each lane.

use std::cell::Cell;

use backend::Result;
use backend::ops::{Dropout, DropoutMask};
use backend::philox::{Stream, drop_below};

use super::GRAIN;
use crate::CpuBuffer;
use crate::element::Element;
use crate::lanes::{Lanes, kernel, lanes};
use crate::operand::Floats;
use crate::threads::Threads;

/// A mask in the kernels' terms.
#[derive(Clone, Copy)]
pub(crate) struct Mask {
    pub(crate) stream: Stream,
    /// Words below it drop their element.
    pub(crate) below: u32,
    /// Factor of the elements that are kept.
    pub(crate) scale: f32,
}

impl Mask {
    pub(crate) fn new(mask: &DropoutMask) -> Self {
        Self { stream: mask.stream, below: drop_below(mask.p), scale: mask.scale() }
    }
}

/// Elements whose factors are made at a time.
pub(crate) const FACTORS: usize = 256;

/// `factors[i] = ` the factor, 0 or `scale`, of element `first + i` of the stream, for up to [`FACTORS`] of them.
///
/// The rounds of Philox over 32-bit lanes: the loops over blocks are what the compiler turns into vectors.
#[inline(always)]
pub(crate) fn factors(mask: Mask, first: u64, factors: &[Cell<f32>]) {
    const BLOCKS: usize = FACTORS / 4;
    let mut words = [[0u32; 4]; BLOCKS + 1];
    let skip = (first % 4) as usize;
    let blocks = (skip + factors.len()).div_ceil(4);
    for (i, words) in words.iter_mut().take(blocks).enumerate() {
        *words = mask.stream.block(first / 4 + i as u64);
    }
    let words = words.as_flattened();
    for (factor, &word) in factors.iter().zip(&words[skip..]) {
        factor.set(if word >= mask.below { mask.scale } else { 0.0 });
    }
}

kernel! {
    fn dropout_all<'a, S, T>(simd, x: &'a [Cell<T>], y: &'a [Cell<T>], mask: Mask, first: u64) {
        let mut buffer = [0.0; FACTORS];
        let buffer = Cell::from_mut(&mut buffer[..]).as_slice_of_cells();
        for (k, (x, y)) in x.chunks(FACTORS).zip(y.chunks(FACTORS)).enumerate() {
            factors(mask, first + (k * FACTORS) as u64, &buffer[..x.len()]);
            lanes!(S, x.len(), |i, w| {
                (Lanes::load(simd, x, i, w) * Lanes::load(simd, buffer, i, w)).store(y, i, w);
            });
        }
    }
}

pub(crate) fn dropout<T: Element>(threads: &Threads, args: Dropout<'_, CpuBuffer>) -> Result<()> {
    let n = args.check()?;
    let (x, y) = (Floats::<T>::new("dropout", args.x)?, Floats::<T>::new("dropout", args.y)?);
    let mask = Mask::new(&args.mask);
    threads.pieces(n, GRAIN, |piece| {
        let first = args.mask.first + piece.start as u64;
        // SAFETY: x is y or apart from it; each piece is its own task's.
        let (x, y) = unsafe { (x.cells(piece.clone()), y.cells(piece)) };
        dropout_all(x, y, mask, first);
    });
    Ok(())
}
