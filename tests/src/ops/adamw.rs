//! [`backend::ops::AdamW`].

use backend::ops::AdamW;
use backend::{Backend, DType};

use super::{EDGES, place};
use crate::draw::Draw;
use crate::reference::adamw::{Settings, State, step};
use crate::{Bounded, Case, Failure, Measure, Operands, Place, exact};

/// A step over `n` parameters.
pub struct AdamWCase {
    n: usize,
    settings: Settings,
    place: Place,
}

/// Every edge; first and late steps, with and without decay and clipping.
pub fn cases() -> Vec<AdamWCase> {
    let sizes = EDGES.into_iter().chain([1000, 70_001]).enumerate();
    let case = |(i, n)| AdamWCase {
        n,
        settings: Settings {
            lr: [1e-2, 6e-4, 1.0][i % 3],
            beta1: 0.9,
            beta2: [0.95, 0.999][i % 2],
            eps: [1e-8, 1e-5][i / 2 % 2],
            weight_decay: [0.1, 0.0][i % 2],
            grad_scale: [1.0, 0.37][i / 3 % 2],
            step: [1, 2, 1000, 100_000][i % 4],
        },
        place: place(i / 2),
    };
    sizes.map(case).collect()
}

impl Case for AdamWCase {
    fn id(&self) -> String {
        let Settings { lr, beta2, eps, weight_decay, grad_scale, step, .. } = self.settings;
        format!(
            "adamw:n={},lr={lr},beta2={beta2},eps={eps},decay={weight_decay},scale={grad_scale},step={step},place={},dt=f32",
            self.n,
            self.place.name()
        )
    }

    fn run<B: Backend>(&self, backend: &B) -> Result<Measure, Failure> {
        let n = self.n;
        let mut draw = Draw::new(&self.id());
        let (values, mut gradient) = (draw.normal(n, 0.0, 1.0), draw.normal(n, 0.0, 1e-2));
        // A parameter that has never had a gradient, as an unused row of the embedding: its update is 0 / (0 + eps).
        gradient.iter_mut().step_by(7).for_each(|g| *g = 0.0);
        let first = self.settings.step == 1;
        let moment = |i: usize, x: f32| if first || i.is_multiple_of(7) { 0.0 } else { x };
        let firsts: Vec<f32> =
            draw.normal(n, 0.0, 1e-2).into_iter().enumerate().map(|(i, x)| moment(i, x)).collect();
        let seconds: Vec<f32> =
            draw.normal(n, 0.0, 1e-2).into_iter().enumerate().map(|(i, x)| moment(i, x * x)).collect();
        let mut on = Operands::new(backend, self.place, DType::F32);
        let param = on.in_place("param", &[n], &values);
        let grad = on.input("grad", &[n], &gradient);
        let (m, v) = (on.in_place("m", &[n], &firsts), on.in_place("v", &[n], &seconds));
        let Settings { lr, beta1, beta2, eps, weight_decay, grad_scale, step: number } = self.settings;
        let out = on.run(|view| {
            backend.adamw(AdamW {
                param: view[param],
                grad: view[grad],
                m: view[m],
                v: view[v],
                lr,
                beta1,
                beta2,
                eps,
                weight_decay,
                grad_scale,
                step: number,
            })
        })?;
        let before = State::<Bounded> { param: exact(&values), m: exact(&firsts), v: exact(&seconds) };
        let after = step(&self.settings, &before, &exact(&gradient));
        let moments = out.expect(m, &after.m)?.max(out.expect(v, &after.v)?);
        Ok(moments.max(out.expect(param, &after.param)?))
    }
}
