//! [`backend::ops::Matmul`] and its fused forms.

use backend::ops::{Matmul, MatmulBias, MatmulBiasGelu};
use backend::{Backend, DType, Support};

use super::{edge_pairs, of_each_type, place};
use crate::draw::Draw;
use crate::reference::matmul::{Product, forward};
use crate::reference::{bias, gelu};
use crate::{Bounded, Case, Failure, Measure, Operands, Place, Real, exact, stored};

/// What the factors hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Data {
    /// Standard normal numbers.
    Normal,
    /// Integers so small that every partial sum is exact in f32: the result must be, but for its rounding to a narrower type.
    Whole,
}

/// A product.
pub struct MatmulCase {
    product: Product,
    data: Data,
    place: Place,
    dtype: DType,
    /// The result's type: that, or f32.
    result: DType,
    /// Whether the operands have their batch axis.
    batched: bool,
}

/// Every pair of transposes over edges, batches, factors and places.
pub fn cases() -> Vec<MatmulCase> {
    let shapes = [
        [1, 1, 1],
        [1, 33, 64],
        [31, 1, 127],
        [33, 65, 1],
        [32, 32, 32],
        [63, 129, 31],
        [64, 64, 64],
        [65, 63, 128],
        [127, 31, 257],
        [128, 128, 129],
        [129, 257, 65],
        [257, 33, 1000],
        [3, 5, 0],
        [0, 5, 7],
        [5, 0, 7],
    ];
    let factors = [(1.0, 0.0), (1.0, 1.0), (-1.25, 0.75), (0.5, 0.0)];
    of_each_type(|dtype| {
        let mut cases = Vec::new();
        let mut push = |product, data, place, batched| {
            // Every other result of factors of 16 bits is f32.
            let result = if cases.len() % 2 == 1 { DType::F32 } else { dtype };
            cases.push(MatmulCase { product, data, place, dtype, result, batched });
            cases.len()
        };
        let mut i = 0;
        for (trans_a, trans_b) in [(false, false), (false, true), (true, false), (true, true)] {
            for [m, n, k] in shapes {
                let (alpha, beta) = factors[i % factors.len()];
                let batch = [1, 1, 3][i % 3];
                let product = Product { batch, m, n, k, trans_a, trans_b, alpha, beta };
                // The places go round more slowly than the batches, so that each meets each.
                i = push(product, Data::Normal, place(i / 3), i % 3 > 0);
            }
            let whole = Product { batch: 1, m: 129, n: 67, k: 130, trans_a, trans_b, alpha: 1.0, beta: 0.0 };
            i = push(whole, Data::Whole, Place::Offset, false);
        }
        // Deep enough that a narrower accumulation would show, and more than one tile of everything: a gradient of weights.
        let deep = Product {
            batch: 1,
            m: 192,
            n: 160,
            k: 4096,
            trans_a: true,
            trans_b: false,
            alpha: 1.0,
            beta: 1.0,
        };
        let result = DType::F32;
        cases.push(MatmulCase {
            product: deep,
            data: Data::Normal,
            place: Place::Aligned,
            dtype,
            result,
            batched: false,
        });
        cases
    })
}

impl Case for MatmulCase {
    fn id(&self) -> String {
        let Product { batch, m, n, k, trans_a, trans_b, alpha, beta } = self.product;
        let batch = if self.batched { format!("batch={batch},") } else { String::new() };
        let data = if self.data == Data::Whole { ",data=whole" } else { "" };
        let result = if self.result == self.dtype { String::new() } else { format!(",c={}", self.result) };
        format!(
            "matmul:ta={},tb={},{batch}m={m},n={n},k={k},alpha={alpha},beta={beta}{data}{result},place={},dt={}",
            u8::from(trans_a),
            u8::from(trans_b),
            self.place.name(),
            self.dtype
        )
    }

    fn optional(&self) -> bool {
        self.dtype == DType::F16
    }

    fn run<B: Backend>(&self, backend: &B) -> Result<Measure, Failure> {
        let Product { batch, m, n, k, trans_a, trans_b, alpha, beta } = self.product;
        let mut draw = Draw::new(&self.id()).of(self.dtype);
        let mut numbers = |len| match self.data {
            Data::Normal => draw.values(len, 0.0, 1.0),
            // Within the range of the narrowest, and so are the sums.
            Data::Whole if self.dtype != DType::F32 => draw.whole(len, -16, 16),
            Data::Whole => draw.whole(len, -64, 64),
        };
        let (left, right) = (numbers(batch * m * k), numbers(batch * k * n));
        let before = match self.result == self.dtype {
            true => numbers(batch * m * n),
            // Accumulated in f32: nothing is rounded to less.
            false => draw.normal(batch * m * n, 0.0, 1.0),
        };
        let extents = |rows, columns| match self.batched {
            true => vec![batch, rows, columns],
            false => vec![rows, columns],
        };
        let mut on = Operands::new(backend, self.place, self.dtype);
        let a = on.input("a", &if trans_a { extents(k, m) } else { extents(m, k) }, &left);
        let b = on.input("b", &if trans_b { extents(n, k) } else { extents(k, n) }, &right);
        let c = match beta == 0.0 {
            true => on.output_as("c", self.result, &extents(m, n)),
            false => on.in_place_as("c", self.result, &extents(m, n), &before),
        };
        let out = on.run(|v| {
            let (alpha, beta) = (alpha as f32, beta as f32);
            backend.matmul(Matmul { a: v[a], b: v[b], c: v[c], trans_a, trans_b, alpha, beta })
        })?;
        let mut expected: Vec<Bounded> =
            forward(&self.product, &exact(&left), &exact(&right), &exact(&before));
        if self.data == Data::Whole {
            expected.iter_mut().for_each(|x| *x = Bounded::exact(x.value));
        }
        out.expect(c, &expected)
    }
}

/// A linear layer, with or without its activation.
pub struct LinearCase {
    t: usize,
    n: usize,
    k: usize,
    gelu: bool,
    place: Place,
    dtype: DType,
}

fn linear_cases(gelu: bool) -> Vec<LinearCase> {
    of_each_type(|dtype| {
        let case = |(i, [t, n]): (usize, [usize; 2])| LinearCase {
            t,
            n,
            k: [64, 33, 127, 1][i % 4],
            gelu,
            place: place(i),
            dtype,
        };
        edge_pairs().enumerate().map(case).collect()
    })
}

/// Cases of [`MatmulBias`].
pub fn bias_cases() -> Vec<LinearCase> {
    linear_cases(false)
}

/// Cases of [`MatmulBiasGelu`].
pub fn bias_gelu_cases() -> Vec<LinearCase> {
    linear_cases(true)
}

impl Case for LinearCase {
    fn id(&self) -> String {
        let op = if self.gelu { "matmul_bias_gelu" } else { "matmul_bias" };
        format!("{op}:t={},n={},k={},place={},dt={}", self.t, self.n, self.k, self.place.name(), self.dtype)
    }

    fn optional(&self) -> bool {
        self.dtype == DType::F16
    }

    fn run<B: Backend>(&self, backend: &B) -> Result<Measure, Failure> {
        let Self { t, n, k, .. } = *self;
        let mut draw = Draw::new(&self.id()).of(self.dtype);
        let (input, weights, row) = (
            draw.values(t * k, 0.0, 1.0),
            draw.values(n * k, 0.0, 1.0 / (k as f64).sqrt()),
            draw.values(n, 0.0, 1.0),
        );
        let mut on = Operands::new(backend, self.place, self.dtype);
        let x = on.input("x", &[t, k], &input);
        let w = on.input("w", &[n, k], &weights);
        let offset = on.input("bias", &[n], &row);
        // Composed, the product is stored before the bias is added.
        let op = if self.gelu { "matmul_bias_gelu" } else { "matmul_bias" };
        let between = match backend.support(op) {
            Support::Native => DType::F32,
            Support::Composed => self.dtype,
        };
        let product = Product { batch: 1, m: t, n, k, trans_a: false, trans_b: true, alpha: 1.0, beta: 0.0 };
        let sums = forward(&product, &exact(&input), &exact(&weights), &[]);
        let expected: Vec<Bounded> = bias::forward(n, &stored(between, &sums), &exact(&row));
        if self.gelu {
            let pre = on.output("pre", &[t, n]);
            let y = on.output("y", &[t, n]);
            let out = on.run(|v| {
                backend.matmul_bias_gelu(MatmulBiasGelu {
                    x: v[x],
                    w: v[w],
                    bias: v[offset],
                    pre: v[pre],
                    y: v[y],
                })
            })?;
            // What is activated may be what was stored.
            let activated = gelu::forward(&stored(self.dtype, &expected));
            Ok(out.expect(pre, &expected)?.max(out.expect(y, &activated)?))
        } else {
            let y = on.output("y", &[t, n]);
            let out =
                on.run(|v| backend.matmul_bias(MatmulBias { x: v[x], w: v[w], bias: v[offset], y: v[y] }))?;
            out.expect(y, &expected)
        }
    }
}
