//! The pieces of vocabulary-parallel cross-entropy.

use backend::Backend;
use backend::ops::{CrossEntropyBackward, CrossEntropyLoss, CrossEntropyMax, CrossEntropySums};

use super::{edge_pairs, place};
use crate::draw::Draw;
use crate::reference::cross_entropy;
use crate::{Bounded, Case, Failure, Operands, Place, exact};

/// Which piece.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Piece {
    Max,
    Sums,
    Loss,
    Backward,
    /// With `dlogits` the logits.
    BackwardInPlace,
}

impl Piece {
    fn op(self) -> &'static str {
        match self {
            Piece::Max => "cross_entropy_max",
            Piece::Sums => "cross_entropy_sums",
            Piece::Loss => "cross_entropy_loss",
            Piece::Backward | Piece::BackwardInPlace => "cross_entropy_backward",
        }
    }
}

/// A piece over `t` tokens and this rank's `v` columns.
pub struct CrossEntropyCase {
    piece: Piece,
    t: usize,
    v: usize,
    first_column: usize,
    /// Standard deviation of the logits: sharp or flat distributions.
    spread: f64,
    place: Place,
}

fn all(pieces: &[Piece]) -> Vec<CrossEntropyCase> {
    let mut cases = Vec::new();
    for (i, [t, v]) in edge_pairs().chain([[7, 1000], [3, 51_200], [256, 512]]).enumerate() {
        cases.push(CrossEntropyCase {
            piece: pieces[i % pieces.len()],
            t,
            v,
            first_column: [0, 129, 40_000][i % 3],
            spread: [1.0, 8.0, 0.01][i % 3],
            place: place(i / 2),
        });
    }
    cases
}

/// Cases of [`CrossEntropyMax`].
pub fn max_cases() -> Vec<CrossEntropyCase> {
    all(&[Piece::Max])
}

/// Cases of [`CrossEntropySums`] and [`CrossEntropyLoss`].
pub fn cases() -> Vec<CrossEntropyCase> {
    let mut cases = all(&[Piece::Sums]);
    cases.extend(all(&[Piece::Loss]));
    cases
}

/// Cases of [`CrossEntropyBackward`].
pub fn backward_cases() -> Vec<CrossEntropyCase> {
    all(&[Piece::Backward, Piece::BackwardInPlace])
}

impl Case for CrossEntropyCase {
    fn id(&self) -> String {
        let form = if self.piece == Piece::BackwardInPlace { "in_place=1," } else { "" };
        let Self { t, v, first_column, spread, .. } = self;
        let op = self.piece.op();
        format!(
            "{op}:t={t},v={v},first={first_column},spread={spread},{form}place={},dt=f32",
            self.place.name()
        )
    }

    fn run<B: Backend>(&self, backend: &B) -> Result<f64, Failure> {
        let Self { t, v, first_column, .. } = *self;
        let mut draw = Draw::new(&self.id());
        let mut values = draw.normal(t * v, -1.0, self.spread);
        let mut on = Operands::new(backend, self.place);
        if self.piece == Piece::Max {
            // Not a number anywhere in a row makes its maximum one; a row of minus infinities has that for its maximum.
            values[(t / 2) * v + v / 2] = f32::NAN;
            values[(t - 1) * v..].fill(f32::NEG_INFINITY);
            let logits = on.input("logits", &[t, v], &values);
            let max = on.output("max", &[t]);
            let out = on.run(|view| {
                backend.cross_entropy_max(CrossEntropyMax { logits: view[logits], max: view[max] })
            })?;
            return out.expect_bits(max, &cross_entropy::max(v, &values));
        }
        // The group's maximum: this rank's, or in every other row another rank's larger one.
        let mut maxima = cross_entropy::max(v, &values);
        maxima.iter_mut().step_by(2).for_each(|max| *max += 1.5);
        let mut next = draw.tokens(t, first_column.saturating_sub(v)..first_column + 2 * v);
        next[0] = first_column as u32;
        next[t - 1] = (first_column + v - 1) as u32;
        // The other ranks' share of the sums, so that they are the group's.
        let (sums, targets_logit) =
            cross_entropy::sums::<f64>(v, &exact(&values), &next, first_column, &exact(&maxima));
        let group: Vec<f32> = sums.iter().map(|&sum| (sum * 1.5 + 1.0) as f32).collect();
        match self.piece {
            Piece::Max => unreachable!("returned above"),
            Piece::Sums => {
                let logits = on.input("logits", &[t, v], &values);
                let targets = on.tokens("targets", &next);
                let max = on.input("max", &[t], &maxima);
                let (sum_exp, target) = (on.output("sum_exp", &[t]), on.output("target", &[t]));
                let out = on.run(|view| {
                    let [logits, targets, max, sum_exp, target] =
                        [logits, targets, max, sum_exp, target].map(|handle| view[handle]);
                    backend.cross_entropy_sums(CrossEntropySums {
                        logits,
                        targets,
                        first_column,
                        max,
                        sum_exp,
                        target,
                    })
                })?;
                let (sums, targets) =
                    cross_entropy::sums::<Bounded>(v, &exact(&values), &next, first_column, &exact(&maxima));
                Ok(out.expect(sum_exp, &sums)?.max(out.expect(target, &targets)?))
            }
            Piece::Loss => {
                let picked: Vec<f32> = targets_logit.iter().map(|&x| x as f32).collect();
                let (sum_exp, target) =
                    (on.input("sum_exp", &[t], &group), on.input("target", &[t], &picked));
                let loss = on.output("loss", &[t]);
                let out = on.run(|view| {
                    let [sum_exp, target, loss] = [sum_exp, target, loss].map(|handle| view[handle]);
                    backend.cross_entropy_loss(CrossEntropyLoss { sum_exp, target, loss })
                })?;
                out.expect(loss, &cross_entropy::loss::<Bounded>(&exact(&group), &exact(&picked)))
            }
            Piece::Backward | Piece::BackwardInPlace => {
                let scale = 1.0 / (t as f32 + 3.0);
                let (logits, dlogits) = match self.piece {
                    Piece::BackwardInPlace => {
                        let logits = on.in_place("logits", &[t, v], &values);
                        (logits, logits)
                    }
                    _ => (on.input("logits", &[t, v], &values), on.output("dlogits", &[t, v])),
                };
                let targets = on.tokens("targets", &next);
                let (max, sum_exp) = (on.input("max", &[t], &maxima), on.input("sum_exp", &[t], &group));
                let out = on.run(|view| {
                    let [logits, targets, max, sum_exp, dlogits] =
                        [logits, targets, max, sum_exp, dlogits].map(|handle| view[handle]);
                    backend.cross_entropy_backward(CrossEntropyBackward {
                        logits,
                        targets,
                        first_column,
                        max,
                        sum_exp,
                        scale,
                        dlogits,
                    })
                })?;
                let saved: [Vec<Bounded>; 2] = [exact(&maxima), exact(&group)];
                let expected = cross_entropy::backward(
                    v,
                    &exact(&values),
                    &next,
                    first_column,
                    [&saved[0], &saved[1]],
                    f64::from(scale),
                );
                out.expect(dlogits, &expected)
            }
        }
    }
}
