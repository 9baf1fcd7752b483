//! `reduce`, the arithmetic of the collectives, and [`backend::ops::Sum`] and [`backend::ops::SumSquares`].

use backend::ops::{Scratch, Sum, SumSquares};
use backend::{Backend, ReduceOp};

use super::{EDGES, place};
use crate::draw::Draw;
use crate::reference::{elementwise, reduce};
use crate::{Bounded, Case, Failure, Operands, Place, Real, exact};

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
}

/// One to eight inputs at every edge.
pub fn cases() -> Vec<ReduceCase> {
    let mut cases = Vec::new();
    for (i, n) in EDGES.into_iter().chain([1000, 70_001]).enumerate() {
        for (j, inputs) in [1, 2, 3, 4, 8].into_iter().enumerate() {
            let op = if (i + j) % 3 == 2 { ReduceOp::Max } else { ReduceOp::Sum };
            let to = if (i + j) % 2 == 0 { To::Inputs } else { To::One };
            cases.push(ReduceCase { op, inputs, n, to, place: place(i + j / 2) });
        }
    }
    cases
}

impl Case for ReduceCase {
    fn id(&self) -> String {
        let op = if self.op == ReduceOp::Sum { "sum" } else { "max" };
        let to = if self.to == To::One { "one" } else { "inputs" };
        format!(
            "reduce:op={op},inputs={},n={},to={to},place={},dt=f32",
            self.inputs,
            self.n,
            self.place.name()
        )
    }

    fn run<B: Backend>(&self, backend: &B) -> Result<f64, Failure> {
        let mut draw = Draw::new(&self.id());
        let mut data: Vec<Vec<f32>> = (0..self.inputs).map(|_| draw.normal(self.n, 0.0, 1.0)).collect();
        if self.op == ReduceOp::Max {
            // NaN wins, wherever it stands.
            data[self.inputs - 1][self.n / 2] = f32::NAN;
            data[0][self.n / 3] = f32::NAN;
            data[0][self.n / 5] = f32::NEG_INFINITY;
        }
        let mut on = Operands::new(backend, self.place);
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
        outputs.iter().try_fold(0.0, |worst: f64, &output| Ok(worst.max(out.expect_bits(output, &expected)?)))
    }
}

/// A sum of everything.
pub struct SumCase {
    squares: bool,
    n: usize,
    alpha: f32,
    beta: f32,
    place: Place,
}

fn both(squares: bool) -> Vec<SumCase> {
    let factors = [(1.0, 0.0), (0.125, 1.0), (-0.3, 0.5)];
    let sizes = EDGES.into_iter().chain([1000, 70_001, 1_000_003]).enumerate();
    let case = |(i, n)| {
        let (alpha, beta) = factors[i % 3];
        SumCase { squares, n, alpha: if squares { 1.0 } else { alpha }, beta, place: place(i / 2) }
    };
    sizes.map(case).collect()
}

/// Cases of [`Sum`].
pub fn sum_cases() -> Vec<SumCase> {
    both(false)
}

/// Cases of [`SumSquares`].
pub fn sum_squares_cases() -> Vec<SumCase> {
    both(true)
}

impl Case for SumCase {
    fn id(&self) -> String {
        let op = if self.squares { "sum_squares:" } else { &format!("sum:alpha={},", self.alpha) };
        format!("{op}beta={},n={},place={},dt=f32", self.beta, self.n, self.place.name())
    }

    fn run<B: Backend>(&self, backend: &B) -> Result<f64, Failure> {
        let Self { n, alpha, beta, .. } = *self;
        let mut draw = Draw::new(&self.id());
        let (terms, held) = (draw.normal(n, 0.25, 1.0), draw.normal(1, 0.0, 1.0));
        let mut on = Operands::new(backend, self.place);
        let x = on.input("x", &[n], &terms);
        let out = if beta == 0.0 { on.output("out", &[1]) } else { on.in_place("out", &[1], &held) };
        let workspace = on.workspace(backend.workspace(Scratch::Sum { n }));
        let result = on.run(|v| {
            let (x, out, workspace) = (v[x], v[out], v[workspace]);
            match self.squares {
                true => backend.sum_squares(SumSquares { x, out, beta, workspace }),
                false => backend.sum(Sum { x, out, alpha, beta, workspace }),
            }
        })?;
        let held = Bounded::exact(f64::from(held[0]));
        let expected = match self.squares {
            true => reduce::sum_squares(&exact(&terms), held, f64::from(beta)),
            false => reduce::sum(&exact(&terms), held, f64::from(alpha), f64::from(beta)),
        };
        result.expect(out, &[expected])
    }
}
