//! [`backend::ops::AttentionCached`].

use backend::ops::{AttentionCached, Scratch};
use backend::{Backend, DType};

use super::{of_each_type, place};
use crate::draw::Draw;
use crate::narrow::rounded;
use crate::reference::attention_cached::{self as reference, forward};
use crate::{Bounded, Case, Failure, Measure, Operands, Place, exact};

/// What the new tokens are.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Kind {
    /// The whole beginning of each sequence.
    Prefill,
    /// One token a sequence, all of different lengths.
    Decode,
    /// A few tokens a sequence behind a beginning that the last slot holds for all.
    Shared,
}

impl Kind {
    const fn name(self) -> &'static str {
        match self {
            Kind::Prefill => "prefill",
            Kind::Decode => "decode",
            Kind::Shared => "shared",
        }
    }
}

/// New tokens of the sequences in `n` slots of `s` tokens.
pub struct AttentionCachedCase {
    kind: Kind,
    n: usize,
    s: usize,
    a: usize,
    d: usize,
    place: Place,
    dtype: DType,
}

/// Cases of [`AttentionCached`].
pub fn cases() -> Vec<AttentionCachedCase> {
    // [n, s, a, d]: edges of tiles of keys, head sizes up to the 530B model's 160 and past a vector.
    let sizes = [
        [1, 1, 1, 1],
        [2, 31, 2, 16],
        [3, 32, 1, 64],
        [5, 33, 2, 32],
        [4, 65, 2, 33],
        [9, 64, 1, 5],
        [3, 129, 1, 128],
        [2, 257, 2, 31],
        [7, 40, 1, 160],
        [2, 96, 2, 256],
        [2, 1024, 1, 8],
        [300, 8, 3, 4],
    ];
    of_each_type(|dtype| {
        let case = |(i, &[n, s, a, d]): (usize, &[usize; 4])| {
            let kinds = [Kind::Prefill, Kind::Decode, Kind::Shared];
            kinds.map(|kind| AttentionCachedCase { kind, n, s, a, d, place: place(i + kind as usize), dtype })
        };
        sizes.iter().enumerate().flat_map(case).collect()
    })
}

impl AttentionCachedCase {
    /// The rows' places: sequences of all lengths up to the slots', in an order that mixes them, some padding among them.
    fn places(&self) -> Vec<[u32; 4]> {
        let Self { kind, n, s, .. } = *self;
        let mut places = Vec::new();
        for slot in 0..n {
            let length = s - slot * 7 % s.div_ceil(2);
            let tokens = match kind {
                Kind::Prefill => 0..length.min(70),
                Kind::Decode => length - 1..length,
                Kind::Shared => length - length.min(3)..length,
            };
            let shared = match kind {
                Kind::Shared if slot + 1 < n => [n as u32 - 1, tokens.start as u32],
                // A slot that there is not shares nothing.
                _ => [n as u32 + slot as u32 % 2 * 70_000, 5],
            };
            places.extend(tokens.map(|position| [slot as u32, position as u32, shared[0], shared[1]]));
            if slot % 3 == 1 {
                places.push([n as u32 + slot as u32, 0, 0, 0]);
                places.push([slot as u32, s as u32, 0, 0]);
                places.push([u32::MAX, u32::MAX, 0, 1]);
            }
        }
        if kind == Kind::Decode {
            places.reverse();
        }
        places
    }
}

impl Case for AttentionCachedCase {
    fn id(&self) -> String {
        let Self { kind, n, s, a, d, .. } = self;
        let place = self.place.name();
        format!("attention_cached:{},n={n},s={s},a={a},d={d},place={place},dt={}", kind.name(), self.dtype)
    }

    fn optional(&self) -> bool {
        self.dtype == DType::F16
    }

    fn run<B: Backend>(&self, backend: &B) -> Result<Measure, Failure> {
        let Self { n, s, a, d, .. } = *self;
        let places = self.places();
        let t = places.len();
        let scale = (1.0 / (d as f64).sqrt()) as f32;
        let shape = reference::AttentionCached { t, n, s, a, d, scale: f64::from(scale) };
        let mut draw = Draw::new(&self.id()).of(self.dtype);
        let mut values = draw.normal(t * a * 3 * d, 0.0, 1.0);
        values.chunks_exact_mut(d).step_by(3).flatten().for_each(|x| *x *= 3.0);
        let values = rounded(self.dtype, &values);
        // What no row may read is NaN.
        let drawn = draw.values(n * a * 2 * s * d, 0.0, 1.0);
        let mut held = vec![f32::NAN; drawn.len()];
        for &[slot, position, shared_slot, shared] in &places {
            if slot as usize >= n || position as usize >= s {
                continue;
            }
            for k in 0..=position {
                let slot = if (shared_slot as usize) < n && k < shared { shared_slot } else { slot };
                for (head, which) in (0..a).flat_map(|head| [(head, 0), (head, 1)]) {
                    let at = shape.entry(slot as usize, head, which, k as usize);
                    held[at..at + d].copy_from_slice(&drawn[at..at + d]);
                }
            }
        }
        let mut on = Operands::new(backend, self.place, self.dtype);
        let qkv = on.input("qkv", &[t, a, 3, d], &values);
        let rows = on.tokens("places", places.as_flattened());
        let cache = on.in_place("cache", &[n, a, 2, s, d], &held);
        let out = on.output("out", &[t, a, d]);
        let workspace = on.workspace(backend.workspace(Scratch::AttentionCached { t, a, s, d }));
        let result = on.run(|v| {
            let [qkv, places, cache, out, workspace] =
                [qkv, rows, cache, out, workspace].map(|handle| v[handle]);
            let places = places.reshape([t, 4])?;
            backend.attention_cached(AttentionCached { qkv, places, cache, out, scale, workspace })
        })?;
        let (expected, _) = forward::<Bounded>(&shape, &exact(&values), &places, &exact(&held));
        let (_, then) = forward::<f64>(&shape, &exact(&values), &places, &exact(&held));
        result.expect_bits(cache, &then.iter().map(|&x| x as f32).collect::<Vec<_>>())?;
        result.expect(out, &expected)
    }
}
