//! `fill`, `copy`, `scale`, [`backend::ops::Add`] and [`backend::ops::Cast`].

use backend::ops::{Add, Cast};
use backend::{Backend, DType};

use super::{EDGES, FLOATS, of_each_type, place};
use crate::draw::Draw;
use crate::narrow::rounded;
use crate::reference::elementwise;
use crate::{Bounded, Case, Failure, Measure, Operands, Place, exact};

#[derive(Clone, Copy, Debug, PartialEq)]
enum Op {
    Fill(f32),
    Copy,
    /// Of token indices.
    CopyTokens,
    Scale(f32),
    Add(f32),
}

/// An operation on `n` elements.
pub struct ElementwiseCase {
    op: Op,
    n: usize,
    place: Place,
    dtype: DType,
}

/// Every operation at every edge.
pub fn cases() -> Vec<ElementwiseCase> {
    let ops = [
        Op::Fill(-1.5),
        Op::Fill(0.0),
        // In none of the types.
        Op::Fill(0.1),
        Op::Copy,
        Op::CopyTokens,
        Op::Scale(0.3),
        Op::Add(1.0),
        Op::Add(-0.7),
    ];
    // Nothing, and more than 65,535 workgroups of 64 lanes of four have.
    let sizes = EDGES.into_iter().chain([0, 1000, 70_001]);
    let each =
        sizes.enumerate().flat_map(|(i, n)| ops.into_iter().enumerate().map(move |(j, op)| (i + j, op, n)));
    let each: Vec<_> = each.collect();
    of_each_type(|dtype| {
        // Token indices have no other type.
        let each = each.iter().filter(|(_, op, _)| *op != Op::CopyTokens || dtype == DType::F32);
        each.map(|&(i, op, n)| ElementwiseCase { op, n, place: place(i), dtype }).collect()
    })
}

impl Case for ElementwiseCase {
    fn id(&self) -> String {
        let (op, setting) = match self.op {
            Op::Fill(value) => ("fill", format!("value={value},")),
            Op::Copy => ("copy", String::new()),
            Op::CopyTokens => ("copy", "dt=u32,".to_owned()),
            Op::Scale(alpha) => ("scale", format!("alpha={alpha},")),
            Op::Add(alpha) => ("add", format!("alpha={alpha},")),
        };
        let dtype = if self.op == Op::CopyTokens { String::new() } else { format!(",dt={}", self.dtype) };
        format!("{op}:{setting}n={},place={}{dtype}", self.n, self.place.name())
    }

    fn optional(&self) -> bool {
        self.dtype == DType::F16
    }

    fn run<B: Backend>(&self, backend: &B) -> Result<Measure, Failure> {
        let n = self.n;
        let mut draw = Draw::new(&self.id()).of(self.dtype);
        let (source, target) = (draw.values(n, 0.0, 1.0), draw.values(n, 0.0, 1.0));
        let mut on = Operands::new(backend, self.place, self.dtype);
        match self.op {
            Op::Fill(value) => {
                let x = on.output("x", &[n]);
                on.run(|v| backend.fill(v[x], value))?.expect_bits(x, &rounded(self.dtype, &vec![value; n]))
            }
            Op::Copy => {
                let (src, dst) = (on.input("src", &[n], &source), on.output("dst", &[n]));
                on.run(|v| backend.copy(v[src], v[dst]))?.expect_bits(dst, &source)
            }
            Op::CopyTokens => {
                let tokens: Vec<u32> = source.iter().map(|x| x.to_bits()).collect();
                let (src, dst) = (on.tokens("src", &tokens), on.tokens_output("dst", n));
                on.run(|v| backend.copy(v[src], v[dst]))?.expect_bits(dst, &source)
            }
            Op::Scale(alpha) => {
                let x = on.in_place("x", &[n], &source);
                let expected = elementwise::scale::<Bounded>(&exact(&source), f64::from(alpha));
                on.run(|v| backend.scale(v[x], alpha))?.expect(x, &expected)
            }
            Op::Add(alpha) => {
                let (x, y) = (on.input("x", &[n], &source), on.in_place("y", &[n], &target));
                let expected =
                    elementwise::add::<Bounded>(&exact(&source), &exact(&target), f64::from(alpha));
                on.run(|v| backend.add(Add { x: v[x], y: v[y], alpha }))?.expect(y, &expected)
            }
        }
    }
}

/// A conversion of `n` elements.
pub struct CastCase {
    n: usize,
    from: DType,
    to: DType,
    place: Place,
}

/// Cases of [`Cast`]: every pair of types at every edge.
pub fn cast_cases() -> Vec<CastCase> {
    let pairs = FLOATS.into_iter().flat_map(|from| FLOATS.map(|to| (from, to)));
    let sizes = EDGES.into_iter().chain([1000, 70_001]).enumerate();
    let each = sizes.flat_map(|(i, n)| pairs.clone().enumerate().map(move |(j, pair)| (i + j, n, pair)));
    each.map(|(i, n, (from, to))| CastCase { n, from, to, place: place(i) }).collect()
}

/// Ties between two numbers of 16 bits, to even from below and from above; the ends of the ranges; what has no number.
const HARD: [f32; 16] = [
    1.003_906_3,
    1.011_718_8,
    -1.000_488_3,
    -1.001_464_8,
    65_519.0,
    65_520.0,
    -7e4,
    6.103e-5,
    5.96e-8,
    2.98e-8,
    -8.9e-8,
    3.39e38,
    f32::MAX,
    f32::INFINITY,
    f32::NEG_INFINITY,
    f32::NAN,
];

impl Case for CastCase {
    fn id(&self) -> String {
        format!("cast:n={},from={},place={},dt={}", self.n, self.from, self.place.name(), self.to)
    }

    fn optional(&self) -> bool {
        [self.from, self.to].contains(&DType::F16)
    }

    /// To the bit.
    fn run<B: Backend>(&self, backend: &B) -> Result<Measure, Failure> {
        let mut values = Draw::new(&self.id()).normal(self.n, 0.0, 3.0);
        for (x, hard) in values.iter_mut().skip(1).step_by(2).zip(HARD.iter().cycle()) {
            *x = *hard;
        }
        let values = rounded(self.from, &values);
        let mut on = Operands::new(backend, self.place, self.from);
        let src = on.input("src", &[self.n], &values);
        let dst = on.output_as("dst", self.to, &[self.n]);
        let out = on.run(|v| backend.cast(Cast { src: v[src], dst: v[dst] }))?;
        out.expect_bits(dst, &rounded(self.to, &values))
    }
}
