//! `reduce`, the arithmetic of the collectives, and [`backend::ops::Sum`] and [`backend::ops::BlockSquares`].

use backend::ops::{BlockSquares, Scratch, Sum};
use backend::{Backend, DType, ReduceOp};

use super::{EDGES, of_each_type, place};
use crate::draw::Draw;
use crate::narrow::rounded;
use crate::reference::{elementwise, reduce};
use crate::{Bounded, Case, Failure, Handle, Measure, Operands, Outputs, Place, Real, exact};

/// Where a reduction goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum To {
    /// One output of its own: a reduce-scatter.
    One,
    /// Every input: an all-reduce.
    Inputs,
}

/// A reduction of `inputs` views of `n`.
pub struct ReduceCase {
    op: ReduceOp,
    inputs: usize,
    n: usize,
    to: To,
    place: Place,
    dtype: DType,
}

/// One to sixteen inputs at every edge.
pub fn cases() -> Vec<ReduceCase> {
    of_each_type(|dtype| {
        let mut cases = Vec::new();
        for (i, n) in EDGES.into_iter().chain([1000, 70_001]).enumerate() {
            for (j, inputs) in [1, 2, 3, 4, 5, 7, 8, 11, 16].into_iter().enumerate() {
                let op = if (i + j) % 3 == 2 { ReduceOp::Max } else { ReduceOp::Sum };
                let to = if (i + j) % 2 == 0 { To::Inputs } else { To::One };
                cases.push(ReduceCase { op, inputs, n, to, place: place(i + j / 2), dtype });
            }
        }
        cases
    })
}

impl Case for ReduceCase {
    fn id(&self) -> String {
        let op = if self.op == ReduceOp::Sum { "sum" } else { "max" };
        let to = if self.to == To::One { "one" } else { "inputs" };
        format!(
            "reduce:op={op},inputs={},n={},to={to},place={},dt={}",
            self.inputs,
            self.n,
            self.place.name(),
            self.dtype
        )
    }

    fn optional(&self) -> bool {
        self.dtype == DType::F16
    }

    fn run<B: Backend>(&self, backend: &B) -> Result<Measure, Failure> {
        let mut draw = Draw::new(&self.id()).of(self.dtype);
        let mut data: Vec<Vec<f32>> = (0..self.inputs).map(|_| draw.values(self.n, 0.0, 1.0)).collect();
        if self.op == ReduceOp::Max {
            // NaN wins, wherever it stands.
            data[self.inputs - 1][self.n / 2] = f32::NAN;
            data[0][self.n / 3] = f32::NAN;
            data[0][self.n / 5] = f32::NEG_INFINITY;
        }
        let mut on = Operands::new(backend, self.place, self.dtype);
        let inputs: Vec<_> = data
            .iter()
            .map(|data| match self.to {
                To::One => on.input("inputs", &[self.n], data),
                To::Inputs => on.in_place("inputs", &[self.n], data),
            })
            .collect();
        let outputs = if self.to == To::One { vec![on.output("outputs", &[self.n])] } else { inputs.clone() };
        let out = on.run(|v| {
            let [inputs, outputs] = [&inputs, &outputs].map(|h| h.iter().map(|&h| v[h]).collect::<Vec<_>>());
            backend.reduce(self.op, &inputs, &outputs)
        })?;
        let expected = elementwise::reduce(self.op, &data.iter().map(Vec::as_slice).collect::<Vec<_>>());
        // In f32 to the end, then rounded once.
        let expected = rounded(self.dtype, &expected);
        outputs
            .iter()
            .try_fold(Measure::exact(), |worst, &output| Ok(worst.max(out.expect_bits(output, &expected)?)))
    }
}

/// A sum of everything.
pub struct SumCase {
    n: usize,
    alpha: f32,
    beta: f32,
    place: Place,
    dtype: DType,
}

/// Cases of [`Sum`].
pub fn sum_cases() -> Vec<SumCase> {
    let factors = [(1.0, 0.0), (0.125, 1.0), (-0.3, 0.5)];
    of_each_type(|dtype| {
        let sizes = EDGES.into_iter().chain([1000, 70_001, 1_000_003]).enumerate();
        let case = |(i, n)| {
            let (alpha, beta) = factors[i % 3];
            SumCase { n, alpha, beta, place: place(i / 2), dtype }
        };
        sizes.map(case).collect()
    })
}

impl Case for SumCase {
    fn id(&self) -> String {
        let Self { n, alpha, beta, place, dtype } = self;
        format!("sum:alpha={alpha},beta={beta},n={n},place={},dt={dtype}", place.name())
    }

    fn optional(&self) -> bool {
        self.dtype == DType::F16
    }

    fn run<B: Backend>(&self, backend: &B) -> Result<Measure, Failure> {
        let Self { n, alpha, beta, .. } = *self;
        let mut draw = Draw::new(&self.id()).of(self.dtype);
        let (terms, held) = (draw.values(n, 0.25, 1.0), draw.normal(1, 0.0, 1.0));
        let mut on = Operands::new(backend, self.place, self.dtype);
        let x = on.input("x", &[n], &terms);
        let out = match beta == 0.0 {
            true => on.output_f32("out", &[1]),
            false => on.in_place_f32("out", &[1], &held),
        };
        let workspace = on.workspace(backend.workspace(Scratch::Sum { n }));
        let result = on.run(|v| {
            let (x, out, workspace) = (v[x], v[out], v[workspace]);
            backend.sum(Sum { x, out, alpha, beta, workspace })
        })?;
        let held = Bounded::exact(f64::from(held[0]));
        let expected = reduce::sum(&exact(&terms), held, f64::from(alpha), f64::from(beta));
        result.expect(out, &[expected])
    }
}

/// The squares of the blocks of `n` elements.
pub struct BlockSquaresCase {
    n: usize,
    block: usize,
    /// Blocks before `x` in its buffer, and after it.
    around: [usize; 2],
    place: Place,
}

/// Cases of [`BlockSquares`]: blocks of one element, of about a vector and about a workgroup, of more than there is; the last one whole and cut off.
pub fn block_squares_cases() -> Vec<BlockSquaresCase> {
    let blocks = [1, 7, 32, 257, 4096, 65_536, 1_000_000_000];
    let sizes = EDGES.into_iter().chain([1000, 70_001, 1_000_003]).enumerate();
    let pairs = sizes.flat_map(|(i, n)| [0, 2, 5].map(|j| (n, blocks[(i + j) % blocks.len()])));
    let case = |(i, (n, block)): (usize, (usize, usize))| BlockSquaresCase {
        n,
        block,
        around: if block < 10_000 { [i % 3, 2] } else { [0, 0] },
        place: place(i / 2),
    };
    pairs.enumerate().map(case).collect()
}

impl Case for BlockSquaresCase {
    fn id(&self) -> String {
        let Self { n, block, around: [before, after], place } = self;
        format!("block_squares:n={n},block={block},around={before}+{after},place={},dt=f32", place.name())
    }

    /// The sums are right, and have the bits that the same blocks have among others: what a rank holds does not change a block's sum.
    fn run<B: Backend>(&self, backend: &B) -> Result<Measure, Failure> {
        let Self { n, block, around: [before, after], .. } = *self;
        let mut draw = Draw::new(&self.id());
        let (first, end) = (before * block, before * block + n);
        // Whole blocks only may be followed by others.
        let after = if n.is_multiple_of(block) { after * block } else { 0 };
        let terms = draw.normal(end + after, 0.25, 1.0);
        let squares = |x: &[f32]| -> Result<(Handle, Outputs), Failure> {
            let mut on = Operands::new(backend, self.place, DType::F32);
            let view = on.input("x", &[x.len()], x);
            let out = on.output("out", &[x.len().div_ceil(block)]);
            let outputs =
                on.run(|v| backend.block_squares(BlockSquares { x: v[view], out: v[out], block }))?;
            Ok((out, outputs))
        };
        let (out, alone) = squares(&terms[first..end])?;
        let (_, among) = squares(&terms)?;
        alone.expect_bits(out, &among.of(out)[before..before + n.div_ceil(block)])?;
        alone.expect(out, &reduce::block_squares::<Bounded>(block, &exact(&terms[first..end])))
    }
}
