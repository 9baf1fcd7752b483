//! `fill`, `copy`, `scale` and [`backend::ops::Add`].

use backend::Backend;
use backend::ops::Add;

use super::{EDGES, place};
use crate::draw::Draw;
use crate::reference::elementwise;
use crate::{Bounded, Case, Failure, Operands, Place, exact};

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
}

/// Every operation at every edge.
pub fn cases() -> Vec<ElementwiseCase> {
    let ops = [
        Op::Fill(-1.5),
        Op::Fill(0.0),
        Op::Copy,
        Op::CopyTokens,
        Op::Scale(0.3),
        Op::Add(1.0),
        Op::Add(-0.7),
    ];
    let sizes = EDGES.into_iter().chain([1000, 70_001]);
    let each =
        sizes.enumerate().flat_map(|(i, n)| ops.into_iter().enumerate().map(move |(j, op)| (i + j, op, n)));
    each.map(|(i, op, n)| ElementwiseCase { op, n, place: place(i) }).collect()
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
        let dtype = if self.op == Op::CopyTokens { "" } else { ",dt=f32" };
        format!("{op}:{setting}n={},place={}{dtype}", self.n, self.place.name())
    }

    fn run<B: Backend>(&self, backend: &B) -> Result<f64, Failure> {
        let n = self.n;
        let mut draw = Draw::new(&self.id());
        let (source, target) = (draw.normal(n, 0.0, 1.0), draw.normal(n, 0.0, 1.0));
        let mut on = Operands::new(backend, self.place);
        match self.op {
            Op::Fill(value) => {
                let x = on.output("x", &[n]);
                on.run(|v| backend.fill(v[x], value))?.expect_bits(x, &vec![value; n])
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
