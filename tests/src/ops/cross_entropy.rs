//! The pieces of vocabulary-parallel cross-entropy.

use backend::ops::{CrossEntropyBackward, CrossEntropyLoss, CrossEntropyMax, CrossEntropySums};
use backend::{Backend, DType};

use super::{edge_pairs, place};
use crate::draw::Draw;
use crate::reference::cross_entropy;
use crate::{Bounded, Case, Failure, Measure, Operands, Place, exact};

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
    /// The type of the logits, and that of their gradient.
    dtypes: [DType; 2],
}

fn all(pieces: &[Piece], dtypes: &[[DType; 2]]) -> Vec<CrossEntropyCase> {
    let mut cases = Vec::new();
    for dtypes in dtypes {
        for (i, [t, v]) in edge_pairs().chain([[7, 1000], [3, 51_200], [256, 512], [70_000, 3]]).enumerate() {
            cases.push(CrossEntropyCase {
                piece: pieces[i % pieces.len()],
                t,
                v,
                first_column: [0, 129, 40_000][i % 3],
                spread: [1.0, 8.0, 0.01][i % 3],
                place: place(i / 2),
                dtypes: *dtypes,
            });
        }
    }
    cases
}

/// Both of one type.
const ALIKE: [[DType; 2]; 3] = [[DType::F32; 2], [DType::Bf16; 2], [DType::F16; 2]];

/// Logits of f32 and a gradient of 16 bits: what training at 16 bits asks for.
const NARROWED: [[DType; 2]; 2] = [[DType::F32, DType::Bf16], [DType::F32, DType::F16]];

/// Cases of [`CrossEntropyMax`].
pub fn max_cases() -> Vec<CrossEntropyCase> {
    all(&[Piece::Max], &ALIKE)
}

/// Cases of [`CrossEntropySums`] and [`CrossEntropyLoss`].
pub fn cases() -> Vec<CrossEntropyCase> {
    let mut cases = all(&[Piece::Sums], &ALIKE);
    cases.extend(all(&[Piece::Loss], &ALIKE[..1]));
    cases
}

/// Cases of [`CrossEntropyBackward`].
pub fn backward_cases() -> Vec<CrossEntropyCase> {
    let mut cases = all(&[Piece::Backward, Piece::BackwardInPlace], &ALIKE);
    cases.extend(all(&[Piece::Backward], &NARROWED));
    cases
}

impl Case for CrossEntropyCase {
    fn id(&self) -> String {
        let form = if self.piece == Piece::BackwardInPlace { "in_place=1," } else { "" };
        let Self { t, v, first_column, spread, .. } = self;
        let op = self.piece.op();
        let [logits, gradient] = self.dtypes;
        let form = if logits == gradient { form.to_owned() } else { format!("logits={logits},") };
        format!(
            "{op}:t={t},v={v},first={first_column},spread={spread},{form}place={},dt={gradient}",
            self.place.name()
        )
    }

    /// Logits are f32 in training: a backend may have no others.
    fn optional(&self) -> bool {
        self.dtypes[0] != DType::F32 || self.dtypes[1] == DType::F16
    }

    fn run<B: Backend>(&self, backend: &B) -> Result<Measure, Failure> {
        let Self { t, v, first_column, .. } = *self;
        let mut draw = Draw::new(&self.id()).of(self.dtypes[0]);
        let mut values = draw.values(t * v, -1.0, self.spread);
        let mut on = Operands::new(backend, self.place, self.dtypes[0]);
        if self.piece == Piece::Max {
            // Not a number anywhere in a row makes its maximum one; a row of minus infinities has that for its maximum.
            values[(t / 2) * v + v / 2] = f32::NAN;
            values[(t - 1) * v..].fill(f32::NEG_INFINITY);
            let logits = on.input("logits", &[t, v], &values);
            let max = on.output_f32("max", &[t]);
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
                let max = on.input_f32("max", &[t], &maxima);
                let (sum_exp, target) = (on.output_f32("sum_exp", &[t]), on.output_f32("target", &[t]));
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
                    (on.input_f32("sum_exp", &[t], &group), on.input_f32("target", &[t], &picked));
                let loss = on.output_f32("loss", &[t]);
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
                    _ => {
                        let logits = on.input("logits", &[t, v], &values);
                        (logits, on.output_as("dlogits", self.dtypes[1], &[t, v]))
                    }
                };
                let targets = on.tokens("targets", &next);
                let (max, sum_exp) =
                    (on.input_f32("max", &[t], &maxima), on.input_f32("sum_exp", &[t], &group));
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
