//! [`backend::ops::Embedding`] and [`backend::ops::EmbeddingBackward`].

use backend::ops::{Embedding, EmbeddingBackward, Scratch};
use backend::{Backend, DType};

use super::{EDGES, of_each_type, place};
use crate::draw::Draw;
use crate::reference::embedding;
use crate::{Bounded, Case, Failure, Measure, Operands, Place, exact};

/// `t` tokens over `v` rows of `h`.
pub struct EmbeddingCase {
    t: usize,
    v: usize,
    h: usize,
    first_row: usize,
    place: Place,
    dtype: DType,
    backward: bool,
}

fn both(backward: bool) -> Vec<EmbeddingCase> {
    let edge = |i: usize| EDGES[i % EDGES.len()];
    let mut sizes: Vec<_> =
        (0..EDGES.len()).map(|i| [edge(i), edge(3 * i + 1), edge(5 * i + 2), [0, 17, 1000][i % 3]]).collect();
    // Every token the same row; a table of the laptop preset; more tokens, or rows, than a dispatch has workgroups in one dimension.
    sizes.extend([[500, 1, 33, 7], [2048, 2048, 128, 2048], [70_000, 300, 4, 100], [3, 70_000, 4, 0]]);
    of_each_type(|dtype| {
        let case = |(i, &[t, v, h, first_row]): (usize, &[usize; 4])| EmbeddingCase {
            t,
            v,
            h,
            first_row,
            place: place(i),
            dtype,
            backward,
        };
        sizes.iter().enumerate().map(case).collect()
    })
}

/// Cases of [`Embedding`].
pub fn cases() -> Vec<EmbeddingCase> {
    both(false)
}

/// Cases of [`EmbeddingBackward`].
pub fn backward_cases() -> Vec<EmbeddingCase> {
    both(true)
}

impl Case for EmbeddingCase {
    fn id(&self) -> String {
        let op = if self.backward { "embedding_backward" } else { "embedding" };
        let Self { t, v, h, first_row, .. } = self;
        format!("{op}:t={t},v={v},h={h},first={first_row},place={},dt={}", self.place.name(), self.dtype)
    }

    fn optional(&self) -> bool {
        self.dtype == DType::F16
    }

    fn run<B: Backend>(&self, backend: &B) -> Result<Measure, Failure> {
        let Self { t, v, h, first_row, .. } = *self;
        let mut draw = Draw::new(&self.id()).of(self.dtype);
        // From the rank below and the rank above as well, both ends of this one's rows, and the largest token there is.
        let mut ids = draw.tokens(t, first_row.saturating_sub(v / 2)..first_row + v + v / 2);
        let ends =
            [first_row, first_row + v - 1, first_row + v, first_row.saturating_sub(1), u32::MAX as usize];
        for (i, end) in ends.into_iter().enumerate().filter(|_| t >= 31) {
            ids[i * 6] = end as u32;
        }
        let mut on = Operands::new(backend, self.place, self.dtype);
        let tokens = on.tokens("tokens", &ids);
        if self.backward {
            let (upstream, held) = (draw.values(t * h, 0.0, 1.0), draw.normal(v * h, 0.0, 1.0));
            let dy = on.input("dy", &[t, h], &upstream);
            let dtable = on.in_place_f32("dtable", &[v, h], &held);
            let workspace = on.workspace(backend.workspace(Scratch::EmbeddingBackward { t, v, h }));
            let out = on.run(|view| {
                let [tokens, dy, dtable, workspace] = [tokens, dy, dtable, workspace].map(|h| view[h]);
                backend.embedding_backward(EmbeddingBackward { tokens, dy, first_row, dtable, workspace })
            })?;
            out.expect(
                dtable,
                &embedding::backward::<Bounded>(h, &ids, &exact(&upstream), first_row, &exact(&held)),
            )
        } else {
            let rows = draw.values(v * h, 0.0, 1.0);
            let table = on.input("table", &[v, h], &rows);
            let y = on.output("y", &[t, h]);
            let out = on.run(|view| {
                backend.embedding(Embedding {
                    tokens: view[tokens],
                    table: view[table],
                    first_row,
                    y: view[y],
                })
            })?;
            let expected: Vec<f64> = embedding::forward(h, &ids, &exact(&rows), first_row);
            out.expect_bits(y, &expected.iter().map(|&x| x as f32).collect::<Vec<_>>())
        }
    }
}
