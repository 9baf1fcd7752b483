//! [`backend::ops::Gelu`], [`backend::ops::GeluBackward`] and [`backend::ops::BiasGelu`].

use backend::ops::{BiasGelu, Gelu, GeluBackward};
use backend::{Backend, DType};

use super::{EDGES, edge_pairs, of_each_type, place};
use crate::draw::Draw;
use crate::narrow::rounded;
use crate::reference::{bias, gelu};
use crate::{Bounded, Case, Failure, Measure, Operands, Place, exact, stored};

/// How an activation is called.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Form {
    Apart,
    InPlace,
    BackwardApart,
    /// `dx` is `dy`.
    BackwardOverUpstream,
    /// `dx` is `x`.
    BackwardOverInput,
}

/// An activation of `n` elements.
pub struct GeluCase {
    n: usize,
    form: Form,
    place: Place,
    dtype: DType,
}

/// Numbers around 0, where it bends; in its tails, where the two terms of `1 + tanh` cancel; and where `exp(2x)` overflows.
fn arguments(draw: &mut Draw, n: usize, dtype: DType) -> Vec<f32> {
    let special = [0.0, -0.0, 1e-30, -1e-3, 5.0, -5.0, -9.0, 12.0, -12.0, 40.0, -40.0, 6e4, -6e4];
    let mut x = draw.normal(n, 0.0, 2.0);
    for (i, x) in x.iter_mut().enumerate().filter(|(i, _)| i % 5 == 3) {
        *x = special[i / 5 % special.len()];
    }
    rounded(dtype, &x)
}

fn all(forms: &[Form]) -> Vec<GeluCase> {
    of_each_type(|dtype| {
        let sizes = EDGES.into_iter().chain([1000, 70_001]).enumerate();
        let case = |(i, n)| GeluCase { n, form: forms[i % forms.len()], place: place(i / 2), dtype };
        // Every form at an odd size in one buffer, whatever the sizes above gave it.
        let shared = forms.iter().map(|&form| GeluCase { n: 515, form, place: Place::Shared, dtype });
        sizes.map(case).chain(shared).collect()
    })
}

/// Cases of [`Gelu`].
pub fn cases() -> Vec<GeluCase> {
    all(&[Form::Apart, Form::InPlace])
}

/// Cases of [`GeluBackward`].
pub fn backward_cases() -> Vec<GeluCase> {
    all(&[Form::BackwardApart, Form::BackwardOverUpstream, Form::BackwardOverInput])
}

impl Case for GeluCase {
    fn id(&self) -> String {
        let (op, form) = match self.form {
            Form::Apart => ("gelu", "apart"),
            Form::InPlace => ("gelu", "in_place"),
            Form::BackwardApart => ("gelu_backward", "apart"),
            Form::BackwardOverUpstream => ("gelu_backward", "over_dy"),
            Form::BackwardOverInput => ("gelu_backward", "over_x"),
        };
        format!("{op}:n={},form={form},place={},dt={}", self.n, self.place.name(), self.dtype)
    }

    fn optional(&self) -> bool {
        self.dtype == DType::F16
    }

    fn run<B: Backend>(&self, backend: &B) -> Result<Measure, Failure> {
        let n = self.n;
        let mut draw = Draw::new(&self.id()).of(self.dtype);
        let (input, upstream) = (arguments(&mut draw, n, self.dtype), draw.values(n, 0.0, 1.0));
        let mut on = Operands::new(backend, self.place, self.dtype);
        let shape = [n];
        let (output, out) = match self.form {
            Form::Apart => {
                let (x, y) = (on.input("x", &shape, &input), on.output("y", &shape));
                (y, on.run(|v| backend.gelu(Gelu { x: v[x], y: v[y] }))?)
            }
            Form::InPlace => {
                let x = on.in_place("x", &shape, &input);
                (x, on.run(|v| backend.gelu(Gelu { x: v[x], y: v[x] }))?)
            }
            Form::BackwardApart => {
                let (x, dy) = (on.input("x", &shape, &input), on.input("dy", &shape, &upstream));
                let dx = on.output("dx", &shape);
                (dx, on.run(|v| backend.gelu_backward(GeluBackward { x: v[x], dy: v[dy], dx: v[dx] }))?)
            }
            Form::BackwardOverUpstream => {
                let (x, dy) = (on.input("x", &shape, &input), on.in_place("dy", &shape, &upstream));
                (dy, on.run(|v| backend.gelu_backward(GeluBackward { x: v[x], dy: v[dy], dx: v[dy] }))?)
            }
            Form::BackwardOverInput => {
                let (x, dy) = (on.in_place("x", &shape, &input), on.input("dy", &shape, &upstream));
                (x, on.run(|v| backend.gelu_backward(GeluBackward { x: v[x], dy: v[dy], dx: v[x] }))?)
            }
        };
        let expected: Vec<Bounded> = match self.form {
            Form::Apart | Form::InPlace => gelu::forward(&exact(&input)),
            _ => gelu::backward(&exact(&input), &exact(&upstream)),
        };
        out.expect(output, &expected)
    }
}

/// Bias and activation over `t` rows of `n`.
pub struct BiasGeluCase {
    t: usize,
    n: usize,
    place: Place,
    dtype: DType,
}

/// Cases of [`BiasGelu`].
pub fn bias_cases() -> Vec<BiasGeluCase> {
    of_each_type(|dtype| {
        edge_pairs().enumerate().map(|(i, [t, n])| BiasGeluCase { t, n, place: place(i), dtype }).collect()
    })
}

impl Case for BiasGeluCase {
    fn id(&self) -> String {
        format!("bias_gelu:t={},n={},place={},dt={}", self.t, self.n, self.place.name(), self.dtype)
    }

    fn optional(&self) -> bool {
        self.dtype == DType::F16
    }

    fn run<B: Backend>(&self, backend: &B) -> Result<Measure, Failure> {
        let Self { t, n, place, dtype } = *self;
        let mut draw = Draw::new(&self.id()).of(self.dtype);
        let (input, row) = (arguments(&mut draw, t * n, dtype), draw.values(n, 0.0, 1.0));
        let mut on = Operands::new(backend, place, dtype);
        let x = on.in_place("x", &[t, n], &input);
        let bias = on.input("bias", &[n], &row);
        let y = on.output("y", &[t, n]);
        let out = on.run(|v| backend.bias_gelu(BiasGelu { x: v[x], bias: v[bias], y: v[y] }))?;
        let pre: Vec<Bounded> = bias::forward(n, &exact(&input), &exact(&row));
        // What is activated may be what was stored.
        let activated = gelu::forward(&stored(dtype, &pre));
        Ok(out.expect(x, &pre)?.max(out.expect(y, &activated)?))
    }
}
