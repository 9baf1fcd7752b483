//! Values at the ends of the types: NaN and infinities must come out where they went in, since a diverging run is found by them; numbers past f16's range and
//! subnormal ones are numbers like any other, but that a device may flush subnormals to 0.

use backend::ops::{Add, BiasAdd, Gelu, LayerNorm, Matmul, Scratch, Sum};
use backend::{Backend, DType};

use super::{of_each_type, place};
use crate::draw::Draw;
use crate::narrow::rounded;
use crate::reference::matmul::Product;
use crate::reference::{bias, elementwise, gelu, layernorm, matmul, reduce};
use crate::{Bounded, Case, Failure, Measure, Operands, Place, exact};

/// What is among the values.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Values {
    Nan,
    Infinity,
    MinusInfinity,
    /// Magnitudes from f16's largest number, 65,504, to far beyond.
    Large,
    /// Subnormal numbers of f32 among ordinary ones.
    Subnormal,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Op {
    Add,
    Scale,
    BiasAdd,
    Gelu,
    Sum,
    Matmul { trans_b: bool },
    LayerNorm,
}

/// An operation on `t` rows of `n`.
pub struct SpecialCase {
    op: Op,
    values: Values,
    t: usize,
    n: usize,
    place: Place,
    dtype: DType,
}

/// Each operation with each kind of values, in vectors of four and not.
pub fn cases() -> Vec<SpecialCase> {
    use Values::{Infinity, Large, MinusInfinity, Nan, Subnormal};
    let ops = [
        Op::Add,
        Op::Scale,
        Op::BiasAdd,
        Op::Gelu,
        Op::Sum,
        Op::Matmul { trans_b: false },
        Op::Matmul { trans_b: true },
        Op::LayerNorm,
    ];
    of_each_type(|dtype| {
        let mut cases = Vec::new();
        for op in ops {
            for values in [Nan, Infinity, MinusInfinity, Large, Subnormal] {
                let skipped = match values {
                    // No number of f16.
                    Large => dtype == DType::F16 || matches!(op, Op::LayerNorm | Op::Gelu),
                    Subnormal => dtype != DType::F32 || op == Op::LayerNorm,
                    // The limit is 0, the arithmetic says NaN.
                    MinusInfinity => op == Op::Gelu,
                    Nan | Infinity => false,
                };
                for [t, n] in [[5, 64], [7, 33]] {
                    if !skipped {
                        cases.push(SpecialCase { op, values, t, n, place: place(cases.len()), dtype });
                    }
                }
            }
        }
        cases
    })
}

impl SpecialCase {
    /// `[t, n]`: ordinary numbers, and the special ones in some places; all rows but one have none that is not finite.
    fn numbers(&self, draw: &mut Draw) -> Vec<f32> {
        let (t, n) = (self.t, self.n);
        let mut numbers = draw.normal(t * n, 0.0, 1.0);
        let row = &mut numbers[(t - 2) * n..(t - 1) * n];
        match self.values {
            Values::Nan => row[n / 2] = f32::NAN,
            Values::Infinity => row[n / 2] = f32::INFINITY,
            Values::MinusInfinity => row[n - 1] = f32::NEG_INFINITY,
            Values::Large => {
                let scales = [65_504.0, 65_536.0, 1e5, 3e9, -7e15];
                numbers.iter_mut().zip(scales.iter().cycle()).for_each(|(x, scale)| *x *= scale);
            }
            Values::Subnormal => {
                let small = [1e-39, -3e-42, 1e-45, 1.1e-38];
                numbers.iter_mut().step_by(3).zip(small.iter().cycle()).for_each(|(x, small)| *x = *small);
            }
        }
        rounded(self.dtype, &numbers)
    }
}

impl Case for SpecialCase {
    fn id(&self) -> String {
        let (op, setting) = match self.op {
            Op::Add => ("add", ""),
            Op::Scale => ("scale", ""),
            Op::BiasAdd => ("bias_add", ""),
            Op::Gelu => ("gelu", ""),
            Op::Sum => ("sum", ""),
            Op::Matmul { trans_b: false } => ("matmul", "tb=0,"),
            Op::Matmul { trans_b: true } => ("matmul", "tb=1,"),
            Op::LayerNorm => ("layernorm", ""),
        };
        let values = match self.values {
            Values::Nan => "nan",
            Values::Infinity => "inf",
            Values::MinusInfinity => "-inf",
            Values::Large => "large",
            Values::Subnormal => "subnormal",
        };
        let Self { t, n, place, dtype, .. } = self;
        format!("{op}:values={values},{setting}t={t},n={n},place={},dt={dtype}", place.name())
    }

    fn optional(&self) -> bool {
        self.dtype == DType::F16
    }

    fn run<B: Backend>(&self, backend: &B) -> Result<Measure, Failure> {
        let Self { t, n, .. } = *self;
        let mut draw = Draw::new(&self.id()).of(self.dtype);
        let numbers = self.numbers(&mut draw);
        let (other, row) = (draw.values(t * n, 0.0, 1.0), draw.values(n, 0.0, 1.0));
        let mut on = Operands::new(backend, self.place, self.dtype);
        match self.op {
            Op::Add => {
                let (x, y) = (on.input("x", &[t, n], &numbers), on.in_place("y", &[t, n], &other));
                let expected = elementwise::add::<Bounded>(&exact(&numbers), &exact(&other), -0.5);
                on.run(|v| backend.add(Add { x: v[x], y: v[y], alpha: -0.5 }))?.expect(y, &expected)
            }
            Op::Scale => {
                let x = on.in_place("x", &[t, n], &numbers);
                let expected = elementwise::scale::<Bounded>(&exact(&numbers), -1.5);
                on.run(|v| backend.scale(v[x], -1.5))?.expect(x, &expected)
            }
            Op::BiasAdd => {
                let x = on.in_place("x", &[t, n], &numbers);
                let bias = on.input("bias", &[n], &row);
                let expected = bias::forward::<Bounded>(n, &exact(&numbers), &exact(&row));
                on.run(|v| backend.bias_add(BiasAdd { x: v[x], bias: v[bias] }))?.expect(x, &expected)
            }
            Op::Gelu => {
                let (x, y) = (on.input("x", &[t, n], &numbers), on.output("y", &[t, n]));
                let expected = gelu::forward::<Bounded>(&exact(&numbers));
                on.run(|v| backend.gelu(Gelu { x: v[x], y: v[y] }))?.expect(y, &expected)
            }
            Op::Sum => {
                let (x, out) = (on.input("x", &[t * n], &numbers), on.in_place_f32("out", &[1], &row[..1]));
                let workspace = on.workspace(backend.workspace(Scratch::Sum { n: t * n }));
                let expected = reduce::sum(&exact(&numbers), exact(&row)[0], 0.5, 1.0);
                let result = on.run(|v| {
                    let (x, out, workspace) = (v[x], v[out], v[workspace]);
                    backend.sum(Sum { x, out, alpha: 0.5, beta: 1.0, workspace })
                })?;
                result.expect(out, &[expected])
            }
            Op::Matmul { trans_b } => {
                let (m, k) = (t, n);
                let product =
                    Product { batch: 1, m, n: t, k, trans_a: false, trans_b, alpha: 1.0, beta: 0.0 };
                let shape = if trans_b { [t, k] } else { [k, t] };
                let (a, b) = (on.input("a", &[m, k], &numbers), on.input("b", &shape, &other));
                let c = on.output("c", &[m, t]);
                let expected = matmul::forward::<Bounded>(&product, &exact(&numbers), &exact(&other), &[]);
                let result = on.run(|v| {
                    let (a, b, c) = (v[a], v[b], v[c]);
                    backend.matmul(Matmul { a, b, c, trans_a: false, trans_b, alpha: 1.0, beta: 0.0 })
                })?;
                result.expect(c, &expected)
            }
            Op::LayerNorm => {
                let (x, gamma) = (on.input("x", &[t, n], &numbers), on.input("gamma", &[n], &row));
                let beta = on.input("beta", &[n], &other[..n]);
                let y = on.output("y", &[t, n]);
                let (mean, rstd) = (on.output_f32("mean", &[t]), on.output_f32("rstd", &[t]));
                let result = on.run(|v| {
                    let [x, y, gamma, beta, mean, rstd] = [x, y, gamma, beta, mean, rstd].map(|h| v[h]);
                    backend.layernorm(LayerNorm { x, gamma, beta, eps: 1e-5, y, mean, rstd })
                })?;
                let expected = layernorm::forward::<Bounded>(
                    n,
                    &exact(&numbers),
                    &exact(&row),
                    &exact(&other[..n]),
                    f64::from(1e-5_f32),
                );
                Ok(result.expect(mean, &expected.mean)?.max(result.expect(y, &expected.y)?))
            }
        }
    }
}
