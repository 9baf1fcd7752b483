//! [`backend::ops::BiasDropoutResidual`].

use backend::ops::{BiasDropoutResidual, DropoutMask};
use backend::{Backend, DType, Support};

use super::dropout::STREAM;
use super::{edge_pairs, of_each_type, place};
use crate::draw::Draw;
use crate::reference::bias_dropout_residual::forward;
use crate::{Bounded, Case, Failure, Measure, Operands, Place, exact, stored};

/// The end of a residual branch of `t` rows of `h`.
pub struct BiasDropoutResidualCase {
    t: usize,
    h: usize,
    /// Probability of being dropped; `None` for no dropout.
    p: Option<f32>,
    /// Whether the output is the residual.
    in_place: bool,
    place: Place,
    dtype: DType,
}

/// Every edge, with and without a mask, in place and apart.
pub fn cases() -> Vec<BiasDropoutResidualCase> {
    let probabilities = [None, Some(0.1), Some(0.5)];
    of_each_type(|dtype| {
        let case = |(i, [t, h]): (usize, [usize; 2])| BiasDropoutResidualCase {
            t,
            h,
            p: probabilities[i % 3],
            in_place: i % 2 == 1,
            place: place(i / 3),
            dtype,
        };
        edge_pairs().chain([[256, 128]]).enumerate().map(case).collect()
    })
}

impl Case for BiasDropoutResidualCase {
    fn id(&self) -> String {
        let p = self.p.map_or("none".to_owned(), |p| p.to_string());
        format!(
            "bias_dropout_residual:t={},h={},p={p},in_place={},place={},dt={}",
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
        let (branch, row, stream) =
            (draw.values(t * h, 0.0, 1.0), draw.values(h, 0.0, 1.0), draw.values(t * h, 0.0, 1.0));
        let mask = self.p.map(|p| DropoutMask { p, stream: STREAM, first: 4_294_967_291 });
        let mut on = Operands::new(backend, self.place, self.dtype);
        let x = on.consumed("x", &[t, h], &branch);
        let bias = on.input("bias", &[h], &row);
        let (residual, y) = match self.in_place {
            true => {
                let residual = on.in_place("residual", &[t, h], &stream);
                (residual, residual)
            }
            false => (on.input("residual", &[t, h], &stream), on.output("y", &[t, h])),
        };
        let out = on.run(|v| {
            let [x, bias, residual, y] = [x, bias, residual, y].map(|handle| v[handle]);
            backend.bias_dropout_residual(BiasDropoutResidual { x, bias, residual, y, mask })
        })?;
        // Composed, the branch is stored with its bias, and once more with what is dropped.
        let between = match backend.support("bias_dropout_residual") {
            Support::Native => DType::F32,
            Support::Composed => self.dtype,
        };
        let step = |x: &[Bounded]| stored(between, x);
        let expected = forward(h, &exact(&branch), &exact(&row), &exact(&stream), mask.as_ref(), step);
        out.expect(y, &expected)
    }
}
