//! [`backend::ops::BiasAdd`] and [`backend::ops::BiasBackward`].

use backend::ops::{BiasAdd, BiasBackward, Scratch};
use backend::{Backend, DType};

use super::{edge_pairs, of_each_type, place};
use crate::draw::Draw;
use crate::reference::bias;
use crate::{Bounded, Case, Failure, Measure, Operands, Place, exact};

/// A bias over `t` rows of `n`.
pub struct BiasCase {
    t: usize,
    n: usize,
    place: Place,
    dtype: DType,
    backward: bool,
}

fn both(backward: bool) -> Vec<BiasCase> {
    // Long, wide, and the position table's shape.
    let more = [[2048, 128], [3, 1000], [8, 32_768], [70_000, 3]];
    of_each_type(|dtype| {
        let sizes = edge_pairs().chain(more).enumerate();
        sizes.map(|(i, [t, n])| BiasCase { t, n, place: place(i), dtype, backward }).collect()
    })
}

/// Cases of [`BiasAdd`].
pub fn cases() -> Vec<BiasCase> {
    both(false)
}

/// Cases of [`BiasBackward`].
pub fn backward_cases() -> Vec<BiasCase> {
    both(true)
}

impl Case for BiasCase {
    fn id(&self) -> String {
        let op = if self.backward { "bias_backward" } else { "bias_add" };
        format!("{op}:t={},n={},place={},dt={}", self.t, self.n, self.place.name(), self.dtype)
    }

    fn optional(&self) -> bool {
        self.dtype == DType::F16
    }

    fn run<B: Backend>(&self, backend: &B) -> Result<Measure, Failure> {
        let Self { t, n, .. } = *self;
        let mut draw = Draw::new(&self.id()).of(self.dtype);
        let rows = draw.values(t * n, 0.0, 1.0);
        let mut on = Operands::new(backend, self.place, self.dtype);
        if self.backward {
            let dy = on.input("dy", &[t, n], &rows);
            let row = draw.normal(n, 0.0, 1.0);
            let dbias = on.in_place_f32("dbias", &[n], &row);
            let workspace = on.workspace(backend.workspace(Scratch::BiasBackward { t, n }));
            let out = on.run(|v| {
                backend.bias_backward(BiasBackward { dy: v[dy], dbias: v[dbias], workspace: v[workspace] })
            })?;
            out.expect(dbias, &bias::backward::<Bounded>(n, &exact(&rows), &exact(&row)))
        } else {
            let row = draw.values(n, 0.0, 1.0);
            let x = on.in_place("x", &[t, n], &rows);
            let bias = on.input("bias", &[n], &row);
            let out = on.run(|v| backend.bias_add(BiasAdd { x: v[x], bias: v[bias] }))?;
            out.expect(x, &bias::forward::<Bounded>(n, &exact(&rows), &exact(&row)))
        }
    }
}
