//! [`backend::ops::Attention`] and [`backend::ops::AttentionBackward`].

use backend::ops::{Attention, AttentionBackward, AttentionDropout, Scratch};
use backend::{Backend, DType};

use super::dropout::STREAM;
use super::{of_each_type, place};
use crate::draw::Draw;
use crate::narrow::rounded;
use crate::reference::attention::{self as reference, backward, forward};
use crate::{Bounded, Case, Failure, Measure, Operands, Place, exact};

/// An attention, forward or backward.
pub struct AttentionCase {
    shape: reference::Attention,
    /// Standard deviation of the queries: flat or sharp probabilities.
    spread: f64,
    place: Place,
    dtype: DType,
    backward: bool,
}

fn both(backward: bool) -> Vec<AttentionCase> {
    // [b, s, a, d]: the edges of tiles of queries and keys, with head sizes from 1 to the 530B model's 160.
    let sizes = [
        [1, 1, 1, 1],
        [2, 1, 3, 32],
        [1, 31, 2, 16],
        [1, 32, 1, 64],
        [2, 33, 2, 32],
        [1, 63, 3, 8],
        [3, 64, 1, 5],
        [1, 65, 2, 33],
        [2, 127, 1, 32],
        [1, 128, 2, 80],
        [1, 129, 1, 128],
        [1, 257, 2, 31],
        [1, 40, 1, 160],
        [1, 256, 2, 32],
        // Long beside their width.
        [1, 1024, 1, 8],
        [1, 2048, 1, 4],
    ];
    let probabilities = [None, Some(0.1), None, Some(0.5)];
    of_each_type(|dtype| {
        let case = |(i, [b, s, a, d]): (usize, [usize; 4])| {
            let dropout = probabilities[i % 4].map(|p| AttentionDropout {
                p,
                stream: STREAM,
                first_sample: [0, 5, 100_000][i % 3],
                first_head: i % 2 * 3,
                heads: a + 4,
            });
            let scale = f64::from((1.0 / (d as f64).sqrt()) as f32);
            let shape = reference::Attention { b, s, a, d, scale, dropout };
            AttentionCase { shape, spread: [1.0, 6.0, 0.1][i % 3], place: place(i / 2), dtype, backward }
        };
        sizes.into_iter().enumerate().map(case).collect()
    })
}

/// Cases of [`Attention`].
pub fn cases() -> Vec<AttentionCase> {
    both(false)
}

/// Cases of [`AttentionBackward`].
pub fn backward_cases() -> Vec<AttentionCase> {
    both(true)
}

impl Case for AttentionCase {
    fn id(&self) -> String {
        let reference::Attention { b, s, a, d, dropout, .. } = self.shape;
        let op = if self.backward { "attention_backward" } else { "attention" };
        let dropout = match dropout {
            None => "none".to_owned(),
            Some(dropout) => format!("{}@{}", dropout.p, dropout.first_sample),
        };
        format!(
            "{op}:b={b},s={s},a={a},d={d},spread={},dropout={dropout},place={},dt={}",
            self.spread,
            self.place.name(),
            self.dtype
        )
    }

    fn optional(&self) -> bool {
        self.dtype == DType::F16
    }

    fn run<B: Backend>(&self, backend: &B) -> Result<Measure, Failure> {
        let reference::Attention { b, s, a, d, scale, dropout } = self.shape;
        let mut draw = Draw::new(&self.id()).of(self.dtype);
        let mut values = draw.normal(b * s * a * 3 * d, 0.0, 1.0);
        let queries = values.chunks_exact_mut(d).step_by(3).flatten();
        queries.for_each(|x| *x *= self.spread as f32);
        let values = rounded(self.dtype, &values);
        let (outputs, rows) = ([b, s, a, d], [b, a, s]);
        let mut on = Operands::new(backend, self.place, self.dtype);
        let qkv = on.input("qkv", &[b, s, a, 3, d], &values);
        let scale = scale as f32;
        if !self.backward {
            let (out, lse) = (on.output("out", &outputs), on.output_f32("lse", &rows));
            let workspace = on.workspace(backend.workspace(Scratch::Attention { b, s, a, d }));
            let result = on.run(|v| {
                let [qkv, out, lse, workspace] = [qkv, out, lse, workspace].map(|handle| v[handle]);
                backend.attention(Attention { qkv, out, lse, scale, dropout, workspace })
            })?;
            let (expected, expected_lse) = forward::<Bounded>(&self.shape, &exact(&values));
            return Ok(result.expect(lse, &expected_lse)?.max(result.expect(out, &expected)?));
        }
        // What a forward would have saved.
        let (saved, saved_lse) = forward::<f64>(&self.shape, &exact(&values));
        let [saved, saved_lse] = [saved, saved_lse].map(|x| x.iter().map(|&x| x as f32).collect::<Vec<_>>());
        let saved = rounded(self.dtype, &saved);
        let upstream = draw.values(b * s * a * d, 0.0, 1.0);
        let (out, lse) = (on.input("out", &outputs, &saved), on.input_f32("lse", &rows, &saved_lse));
        let dout = on.input("dout", &outputs, &upstream);
        let dqkv = on.output("dqkv", &[b, s, a, 3, d]);
        let workspace = on.workspace(backend.workspace(Scratch::AttentionBackward { b, s, a, d }));
        let result = on.run(|v| {
            let [qkv, out, lse, dout, dqkv, workspace] =
                [qkv, out, lse, dout, dqkv, workspace].map(|handle| v[handle]);
            backend.attention_backward(AttentionBackward {
                qkv,
                out,
                lse,
                dout,
                dqkv,
                scale,
                dropout,
                workspace,
            })
        })?;
        let expected = backward::<Bounded>(
            &self.shape,
            &exact(&values),
            &exact(&saved),
            &exact(&saved_lse),
            &exact(&upstream),
        );
        result.expect(dqkv, &expected)
    }
}
