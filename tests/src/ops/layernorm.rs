//! [`backend::ops::LayerNorm`] and [`backend::ops::LayerNormBackward`].

use backend::ops::{LayerNorm, LayerNormBackward, Scratch};
use backend::{Backend, DType};

use super::{edge_pairs, of_each_type, place};
use crate::draw::Draw;
use crate::narrow::rounded;
use crate::reference::layernorm::{Gradients, backward, forward};
use crate::{Bounded, Case, Failure, Measure, Operands, Place, Real, U, exact};

/// What the rows hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Rows {
    /// Standard normal numbers.
    Normal,
    /// Numbers far from 0 beside their spread: the centred squares must be taken in a second pass.
    Shifted,
    /// One large number, the same all along: its variance is 0, and `y` is `beta`.
    Constant,
}

/// A normalisation of `t` rows of `h`.
pub struct LayerNormCase {
    t: usize,
    h: usize,
    rows: Rows,
    in_place: bool,
    place: Place,
    dtype: DType,
}

/// Cases of [`LayerNorm`].
pub fn cases() -> Vec<LayerNormCase> {
    of_each_type(|dtype| {
        // More rows than a dispatch has workgroups in one dimension, and none.
        let sizes = edge_pairs().chain([[5, 1000], [2, 20_480], [300, 128], [70_000, 3], [0, 5]]).enumerate();
        let mut cases: Vec<_> = sizes
            .map(|(i, [t, h])| {
                let rows = if i % 3 == 2 && h > 1 { Rows::Shifted } else { Rows::Normal };
                LayerNormCase { t, h, rows, in_place: i % 2 == 1, place: place(i / 2), dtype }
            })
            .collect();
        for h in [32, 128, 1024] {
            cases.push(LayerNormCase {
                t: 3,
                h,
                rows: Rows::Constant,
                in_place: false,
                place: Place::Offset,
                dtype,
            });
        }
        cases
    })
}

impl LayerNormCase {
    fn values(&self, draw: &mut Draw) -> Vec<f32> {
        let n = self.t * self.h;
        match self.rows {
            Rows::Normal => draw.values(n, 0.5, 1.5),
            Rows::Shifted => draw.values(n, 300.0, 1.0),
            Rows::Constant => rounded(self.dtype, &vec![6e4; n]),
        }
    }
}

const EPS: f32 = 1e-5;

impl Case for LayerNormCase {
    fn id(&self) -> String {
        let rows = match self.rows {
            Rows::Normal => "normal",
            Rows::Shifted => "shifted",
            Rows::Constant => "constant",
        };
        format!(
            "layernorm:t={},h={},rows={rows},in_place={},place={},dt={}",
            self.t,
            self.h,
            u8::from(self.in_place),
            self.place.name(),
            self.dtype
        )
    }

    fn optional(&self) -> bool {
        self.dtype == DType::F16
    }

    fn run<B: Backend>(&self, backend: &B) -> Result<Measure, Failure> {
        let (t, h) = (self.t, self.h);
        let mut draw = Draw::new(&self.id()).of(self.dtype);
        let values = self.values(&mut draw);
        let (gain, offset) = (draw.values(h, 1.0, 0.3), draw.values(h, 0.0, 0.3));
        let mut on = Operands::new(backend, self.place, self.dtype);
        let gamma = on.input("gamma", &[h], &gain);
        let beta = on.input("beta", &[h], &offset);
        let (x, y) = match self.in_place {
            true => {
                let x = on.in_place("x", &[t, h], &values);
                (x, x)
            }
            false => (on.input("x", &[t, h], &values), on.output("y", &[t, h])),
        };
        let (mean, rstd) = (on.output_f32("mean", &[t]), on.output_f32("rstd", &[t]));
        let out = on.run(|v| {
            let [x, y, gamma, beta, mean, rstd] = [x, y, gamma, beta, mean, rstd].map(|handle| v[handle]);
            backend.layernorm(LayerNorm { x, gamma, beta, eps: EPS, y, mean, rstd })
        })?;
        let mut expected =
            forward::<Bounded>(h, &exact(&values), &exact(&gain), &exact(&offset), f64::from(EPS));
        if self.rows == Rows::Constant {
            // The sum of up to 1024 multiples of 2^5 below 2^16 is exact, and so is its quotient by a power of two; the centred values are 0.
            let beta = |i: usize| Bounded::exact(f64::from(offset[i % h]));
            expected.y = (0..t * h).map(beta).collect();
            expected.mean = vec![Bounded::exact(f64::from(values[0])); t];
            let rstd = 1.0 / f64::from(EPS).sqrt();
            expected.rstd = vec![Bounded { value: rstd, error: 9.0 * U * rstd }; t];
        }
        let statistics = out.expect(mean, &expected.mean)?.max(out.expect(rstd, &expected.rstd)?);
        Ok(statistics.max(out.expect(y, &expected.y)?))
    }
}

/// How the gradient of the input is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Write {
    Apart,
    OverUpstream,
    Accumulate,
}

/// A backward of `t` rows of `h`.
pub struct LayerNormBackwardCase {
    t: usize,
    h: usize,
    write: Write,
    place: Place,
    dtype: DType,
}

/// Cases of [`LayerNormBackward`].
pub fn backward_cases() -> Vec<LayerNormBackwardCase> {
    let writes = [Write::Apart, Write::OverUpstream, Write::Accumulate];
    of_each_type(|dtype| {
        let sizes = edge_pairs().chain([[5, 1000], [2, 20_480], [2048, 128], [70_000, 3]]).enumerate();
        sizes
            .map(|(i, [t, h])| LayerNormBackwardCase {
                t,
                h,
                write: writes[i % 3],
                place: place(i / 3),
                dtype,
            })
            .collect()
    })
}

impl Case for LayerNormBackwardCase {
    fn id(&self) -> String {
        let write = match self.write {
            Write::Apart => "apart",
            Write::OverUpstream => "over_dy",
            Write::Accumulate => "accumulate",
        };
        format!(
            "layernorm_backward:t={},h={},dx={write},place={},dt={}",
            self.t,
            self.h,
            self.place.name(),
            self.dtype
        )
    }

    fn optional(&self) -> bool {
        self.dtype == DType::F16
    }

    fn run<B: Backend>(&self, backend: &B) -> Result<Measure, Failure> {
        let (t, h) = (self.t, self.h);
        let mut draw = Draw::new(&self.id()).of(self.dtype);
        let (values, upstream) = (draw.values(t * h, 0.5, 1.5), draw.values(t * h, 0.0, 1.0));
        let (gain, zero) = (draw.values(h, 1.0, 0.3), vec![0.0; h]);
        let [held, held_gamma, held_beta] = [t * h, h, h].map(|n| draw.values(n, 0.0, 1.0));
        // The statistics that a forward in f32 would have saved.
        let statistics = forward::<f64>(h, &exact(&values), &exact(&gain), &exact(&zero), f64::from(EPS));
        let [means, rstds] =
            [statistics.mean, statistics.rstd].map(|s| s.iter().map(|&s| s as f32).collect::<Vec<_>>());
        let mut on = Operands::new(backend, self.place, self.dtype);
        let x = on.input("x", &[t, h], &values);
        let gamma = on.input("gamma", &[h], &gain);
        let (mean, rstd) = (on.input_f32("mean", &[t], &means), on.input_f32("rstd", &[t], &rstds));
        let (dy, dx) = match self.write {
            Write::Apart => (on.input("dy", &[t, h], &upstream), on.output("dx", &[t, h])),
            Write::Accumulate => (on.input("dy", &[t, h], &upstream), on.in_place("dx", &[t, h], &held)),
            Write::OverUpstream => {
                let dy = on.in_place("dy", &[t, h], &upstream);
                (dy, dy)
            }
        };
        let dgamma = on.in_place_f32("dgamma", &[h], &held_gamma);
        let dbeta = on.in_place_f32("dbeta", &[h], &held_beta);
        let workspace = on.workspace(backend.workspace(Scratch::LayerNormBackward { t, h }));
        let accumulate = self.write == Write::Accumulate;
        let out = on.run(|v| {
            backend.layernorm_backward(LayerNormBackward {
                x: v[x],
                gamma: v[gamma],
                mean: v[mean],
                rstd: v[rstd],
                dy: v[dy],
                dx: v[dx],
                accumulate,
                dgamma: v[dgamma],
                dbeta: v[dbeta],
                workspace: v[workspace],
            })
        })?;
        let before = Gradients {
            dx: if accumulate { exact(&held) } else { vec![Bounded::zero(); t * h] },
            dgamma: exact(&held_gamma),
            dbeta: exact(&held_beta),
        };
        let saved: [Vec<Bounded>; 2] = [exact(&means), exact(&rstds)];
        let expected = backward::<Bounded>(
            h,
            &exact(&values),
            &exact(&gain),
            [&saved[0], &saved[1]],
            &exact(&upstream),
            &before,
        );
        let parameters = out.expect(dgamma, &expected.dgamma)?.max(out.expect(dbeta, &expected.dbeta)?);
        Ok(parameters.max(out.expect(dx, &expected.dx)?))
    }
}
