//! [`backend::ops::Dropout`].

use backend::ops::{Dropout, DropoutMask};
use backend::philox::Stream;
use backend::{Backend, DType};

use super::{EDGES, of_each_type, place};
use crate::draw::Draw;
use crate::reference::dropout;
use crate::{Bounded, Case, Failure, Measure, Operands, Place, exact};

/// A dropout of `n` elements.
pub struct DropoutCase {
    n: usize,
    p: f32,
    first: u64,
    in_place: bool,
    place: Place,
    dtype: DType,
}

/// Every edge with starts inside a block of four words and beyond 32 bits, where a trillion-parameter run's elements are.
pub fn cases() -> Vec<DropoutCase> {
    let firsts = [0, 1, 6, (1 << 34) + 3, (1 << 32) - 2];
    of_each_type(|dtype| {
        let sizes = EDGES.into_iter().chain([1000, 70_001]).enumerate();
        sizes
            .map(|(i, n)| DropoutCase {
                n,
                p: [0.1, 0.5, 0.0, 0.9][i % 4],
                first: firsts[i % 5],
                in_place: i % 2 == 1,
                place: place(i),
                dtype,
            })
            .collect()
    })
}

/// The stream of the cases: all four words of it count.
pub(super) const STREAM: Stream = Stream { seed: 0x0123_4567_89ab_cdef, stream: 0xfedc_ba98_7654_3210 };

impl Case for DropoutCase {
    fn id(&self) -> String {
        format!(
            "dropout:n={},p={},first={},in_place={},place={},dt={}",
            self.n,
            self.p,
            self.first,
            u8::from(self.in_place),
            self.place.name(),
            self.dtype
        )
    }

    fn optional(&self) -> bool {
        self.dtype == DType::F16
    }

    fn run<B: Backend>(&self, backend: &B) -> Result<Measure, Failure> {
        let n = self.n;
        let values = Draw::new(&self.id()).of(self.dtype).values(n, 0.0, 1.0);
        let mask = DropoutMask { p: self.p, stream: STREAM, first: self.first };
        let mut on = Operands::new(backend, self.place, self.dtype);
        let (x, y) = match self.in_place {
            true => {
                let x = on.in_place("x", &[n], &values);
                (x, x)
            }
            false => (on.input("x", &[n], &values), on.output("y", &[n])),
        };
        let out = on.run(|v| backend.dropout(Dropout { x: v[x], y: v[y], mask }))?;
        out.expect(y, &dropout::forward::<Bounded>(&exact(&values), &mask))
    }
}
