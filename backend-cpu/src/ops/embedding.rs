//! The embedding's rows, and their gradient in the order of the tokens.

use std::cell::Cell;

use backend::Result;
use backend::ops::{Embedding, EmbeddingBackward};

use super::row_grain;
use crate::CpuBuffer;
use crate::element::Element;
use crate::lanes::{Lanes, kernel, lanes};
use crate::operand::{Floats, tokens};
use crate::threads::Threads;

/// The token's row among `first_row .. first_row + v`, if it is one of them.
fn row_of(token: u32, first_row: usize, v: usize) -> Option<usize> {
    (token as usize).checked_sub(first_row).filter(|row| *row < v)
}

pub(crate) fn embedding<T: Element>(threads: &Threads, args: Embedding<'_, CpuBuffer>) -> Result<()> {
    let [t, v, h] = args.check()?;
    let (table, y) = (Floats::<T>::new("embedding", args.table)?, Floats::<T>::new("embedding", args.y)?);
    let tokens = tokens(args.tokens);
    threads.pieces(t, row_grain(h), |rows| {
        for t in rows {
            // SAFETY: y is apart from the table; each row is its own task's.
            let y = unsafe { y.cells(t * h..(t + 1) * h) };
            match row_of(tokens[t], args.first_row, v) {
                Some(row) => {
                    // SAFETY: nobody writes the table.
                    let row = unsafe { table.cells(row * h..(row + 1) * h) };
                    y.iter().zip(row).for_each(|(y, x)| y.set(x.get()));
                }
                None => y.iter().for_each(|y| y.set(T::default())),
            }
        }
    });
    Ok(())
}

kernel! {
    fn add_row<'a, S, T>(simd, x: &'a [Cell<T>], y: &'a [Cell<f32>]) {
        lanes!(S, y.len(), |i, w| { (Lanes::load(simd, y, i, w) + Lanes::load(simd, x, i, w)).store(y, i, w); });
    }
}

/// Columns of a task of the backward: each walks all tokens, so that a row's sum keeps their order.
const COLUMNS: usize = 64;

pub(crate) fn embedding_backward<T: Element>(
    threads: &Threads,
    args: EmbeddingBackward<'_, CpuBuffer>,
) -> Result<()> {
    const OP: &str = "embedding_backward";
    let [_, v, h] = args.check()?;
    let (dy, dtable) = (Floats::<T>::new(OP, args.dy)?, Floats::new(OP, args.dtable)?);
    Floats::workspace(OP, args.workspace, 0)?;
    let tokens = tokens(args.tokens);
    threads.pieces(h, COLUMNS, |columns| {
        for (t, &token) in tokens.iter().enumerate() {
            let Some(row) = row_of(token, args.first_row, v) else { continue };
            // SAFETY: dy is apart from the table; each column is its own task's.
            let (dy, row) = unsafe {
                (
                    dy.cells(t * h + columns.start..t * h + columns.end),
                    dtable.cells(row * h + columns.start..row * h + columns.end),
                )
            };
            add_row(dy, row);
        }
    });
    Ok(())
}
