//! Each operation against a plain loop in f64, at extents that fit nothing, into memory full of NaN.

mod common;

use backend::ops::{
    AdamW, Add, BiasAdd, BiasBackward, BiasDropoutResidual, BiasGelu, BlockSquares, Cast,
    CrossEntropyBackward, CrossEntropyLoss, CrossEntropyMax, CrossEntropySums, Dropout, DropoutMask,
    Embedding, EmbeddingBackward, Gelu, GeluBackward, LayerNorm, LayerNormBackward, Scratch, Sum,
};
use backend::philox::{Stream, drop_below};
use backend::{Backend, DType, Error, ReduceOp, View};
use common::{ODD, Rig, check, indices, numbers, wide};

fn gelu(x: f64) -> f64 {
    0.5 * x * (1.0 + ((2.0 / std::f64::consts::PI).sqrt() * (x + 0.044715 * x * x * x)).tanh())
}

fn gelu_slope(x: f64) -> f64 {
    let c = (2.0 / std::f64::consts::PI).sqrt();
    let t = (c * (x + 0.044715 * x * x * x)).tanh();
    0.5 * (1.0 + t) + 0.5 * x * (1.0 - t * t) * c * (1.0 + 3.0 * 0.044715 * x * x)
}

#[test]
fn fill_copy_scale_add() {
    for n in [1, 7, 31, 257, 50_001] {
        let (x, y) = (numbers(1, n), numbers(2, n));
        let run = |rig: &Rig| {
            let (x, y, z, c) = (rig.put(&[n], &x), rig.put(&[n], &y), rig.nan(&[n]), rig.nan(&[n]));
            rig.cpu.fill(z.view(), -2.5).unwrap();
            rig.cpu.copy(x.view(), c.view()).unwrap();
            rig.cpu.scale(x.view(), 3.0).unwrap();
            rig.cpu.add(Add { x: x.view(), y: y.view(), alpha: -0.5 }).unwrap();
            vec![rig.get(&z), rig.get(&c), rig.get(&x), rig.get(&y)]
        };
        let scaled = wide(&x).iter().map(|x| 3.0 * x).collect::<Vec<_>>();
        let added = wide(&y).iter().zip(&scaled).map(|(y, x)| y - 0.5 * x).collect();
        check("elementwise", 2e-7, run, &[vec![-2.5; n], wide(&x), scaled, added]);
    }
}

#[test]
fn copy_of_tokens() {
    let rig = Rig::new(1);
    let (from, to) = (rig.put_tokens(&[1, 2, u32::MAX]), rig.put_tokens(&[0; 3]));
    rig.cpu.copy(from.view(), to.view()).unwrap();
    assert_eq!(rig.get(&to).map_bits(), [1, 2, u32::MAX]);
}

trait Bits {
    fn map_bits(&self) -> Vec<u32>;
}
impl Bits for Vec<f32> {
    fn map_bits(&self) -> Vec<u32> {
        self.iter().map(|x| x.to_bits()).collect()
    }
}

/// Neighbours pairwise, level after level; an odd last one goes up as it is.
fn tree(mut level: Vec<f32>, combine: impl Fn(f32, f32) -> f32) -> f32 {
    while level.len() > 1 {
        let pair = |pair: &[f32]| if let [a, b] = *pair { combine(a, b) } else { pair[0] };
        level = level.chunks(2).map(pair).collect();
    }
    level[0]
}

#[test]
fn reduce_is_a_tree_into_its_inputs() {
    for (n, count) in [1, 31, 4000].into_iter().flat_map(|n| (1..=17).map(move |count| (n, count))) {
        let data: Vec<_> = (0..count as u64).map(|i| numbers(i, n)).collect();
        for op in [ReduceOp::Sum, ReduceOp::Max] {
            let run = |rig: &Rig| {
                let parts: Vec<_> = data.iter().map(|x| rig.put(&[n], x)).collect();
                let views: Vec<View<'_, _>> = parts.iter().map(|x| x.view()).collect();
                let other = rig.nan(&[n]);
                rig.cpu.reduce(op, &views, &[views[count - 1], other.view()]).unwrap();
                parts.iter().chain([&other]).map(|x| rig.get(x)).collect()
            };
            let combined = (0..n).map(|i| {
                let level = data.iter().map(|x| x[i]).collect();
                f64::from(tree(level, |a, b| if op == ReduceOp::Sum { a + b } else { a.max(b) }))
            });
            let combined: Vec<f64> = combined.collect();
            let untouched = data[..count - 1].iter().map(|x| wide(x));
            let expected: Vec<_> = untouched.chain([combined.clone(), combined]).collect();
            check(&format!("reduce {count} of {n}"), 0.0, run, &expected);
        }
    }
}

#[test]
fn reduce_passes_nan_on() {
    let rig = Rig::new(1);
    for place in 0..3 {
        let mut data = vec![vec![1.0f32; 9]; 3];
        data[place][4] = f32::NAN;
        for op in [ReduceOp::Sum, ReduceOp::Max] {
            let parts: Vec<_> = data.iter().map(|x| rig.put(&[9], x)).collect();
            let views: Vec<View<'_, _>> = parts.iter().map(|x| x.view()).collect();
            rig.cpu.reduce(op, &views, &views[..1]).unwrap();
            let nan: Vec<bool> = rig.get(&parts[0]).iter().map(|x| x.is_nan()).collect();
            assert_eq!(nan, (0..9).map(|i| i == 4).collect::<Vec<_>>(), "{op:?} of NaN at {place}");
        }
    }
}

#[test]
fn bias_and_its_gradient() {
    for t in ODD {
        for n in ODD {
            let (x, bias, held) = (numbers(1, t * n), numbers(2, n), numbers(3, n));
            let run = |rig: &Rig| {
                let (x, bias) = (rig.put(&[t, n], &x), rig.put(&[n], &bias));
                rig.cpu.bias_add(BiasAdd { x: x.view(), bias: bias.view() }).unwrap();
                let dbias = rig.put(&[n], &held);
                let workspace = rig.scratch(Scratch::BiasBackward { t, n });
                let (dy, workspace) = (x.view(), workspace.view());
                rig.cpu.bias_backward(BiasBackward { dy, dbias: dbias.view(), workspace }).unwrap();
                vec![rig.get(&x), rig.get(&dbias)]
            };
            let sums: Vec<f64> = (0..t * n).map(|i| f64::from(x[i]) + f64::from(bias[i % n])).collect();
            let dbias =
                (0..n).map(|j| f64::from(held[j]) + (0..t).map(|i| sums[i * n + j]).sum::<f64>()).collect();
            check("bias", 1e-5, run, &[sums, dbias]);
        }
    }
}

/// Numbers of every size, infinities and NaN.
fn extremes(n: usize) -> Vec<f32> {
    let special =
        [0.0, -0.0, 1e-30, -1e-30, 12.0, -12.0, 1e4, -1e4, 3e38, -3e38, f32::INFINITY, f32::NAN, 88.0, -88.0];
    let body = numbers(4, n).into_iter().map(|x| 6.0 * x);
    body.enumerate().map(|(i, x)| if i % 3 == 0 { special[i / 3 % special.len()] } else { x }).collect()
}

#[test]
fn gelu_and_its_gradient() {
    for n in [1, 31, 257, 50_001] {
        let (x, dy) = (extremes(n), numbers(5, n));
        let run = |rig: &Rig| {
            let (x, dy) = (rig.put(&[n], &x), rig.put(&[n], &dy));
            let (y, dx) = (rig.nan(&[n]), rig.nan(&[n]));
            rig.cpu.gelu(Gelu { x: x.view(), y: y.view() }).unwrap();
            rig.cpu.gelu_backward(GeluBackward { x: x.view(), dy: dy.view(), dx: dx.view() }).unwrap();
            let slope = rig.get(&dx);
            rig.cpu.gelu_backward(GeluBackward { x: x.view(), dy: dy.view(), dx: dy.view() }).unwrap();
            rig.cpu.gelu(Gelu { x: x.view(), y: x.view() }).unwrap();
            vec![rig.get(&y), rig.get(&x), slope, rig.get(&dy)]
        };
        let y: Vec<f64> = wide(&x).into_iter().map(gelu).collect();
        let slope = |(x, dy): (f64, &f32)| {
            let slope = if x.abs() > 50.0 { if x > 0.0 { 1.0 } else { 0.0 } } else { gelu_slope(x) };
            slope * f64::from(*dy)
        };
        let dx: Vec<f64> = wide(&x).into_iter().zip(&dy).map(slope).collect();
        check("gelu", 1e-6, run, &[y.clone(), y, dx.clone(), dx]);
    }
}

#[test]
fn gelu_keeps_small_values_accurate() {
    // Where 1 + tanh u would have cancelled, the relative error stays small.
    let x: Vec<f32> = (0..400).map(|i| -0.01 * i as f32).collect();
    let rig = Rig::new(1);
    let y = rig.put(&[400], &x);
    rig.cpu.gelu(Gelu { x: y.view(), y: y.view() }).unwrap();
    for (x, y) in x.iter().zip(rig.get(&y)) {
        let u = (2.0 / std::f64::consts::PI).sqrt() * (f64::from(*x) + 0.044715 * f64::from(*x).powi(3));
        let exact = f64::from(*x) / (1.0 + (-2.0 * u).exp());
        assert!((f64::from(y) - exact).abs() <= 3e-6 * exact.abs(), "{x}: {y} for {exact}");
    }
}

#[test]
fn bias_gelu_in_one_pass() {
    for [t, n] in [[1, 1], [3, 31], [257, 257]] {
        let (x, bias) = (numbers(1, t * n), numbers(2, n));
        let run = |rig: &Rig| {
            let (x, bias, y) = (rig.put(&[t, n], &x), rig.put(&[n], &bias), rig.nan(&[t, n]));
            rig.cpu.bias_gelu(BiasGelu { x: x.view(), bias: bias.view(), y: y.view() }).unwrap();
            vec![rig.get(&x), rig.get(&y)]
        };
        let pre: Vec<f64> = (0..t * n).map(|i| f64::from(x[i]) + f64::from(bias[i % n])).collect();
        let y = pre.iter().copied().map(gelu).collect();
        check("bias_gelu", 1e-6, run, &[pre, y]);
    }
}

fn mask(first: u64) -> DropoutMask {
    DropoutMask { p: 0.3, stream: Stream { seed: 11, stream: 5 }, first }
}

fn kept(mask: &DropoutMask, i: usize) -> f64 {
    let keeps = mask.stream.word(mask.first + i as u64) >= drop_below(mask.p);
    if keeps { f64::from(mask.scale()) } else { 0.0 }
}

#[test]
fn dropout_takes_its_mask_from_the_stream() {
    for n in [1, 3, 257, 40_003] {
        for first in [0, 1, 6, (1 << 34) - 2] {
            let (x, mask) = (numbers(1, n), mask(first));
            let run = |rig: &Rig| {
                let (x, y) = (rig.put(&[n], &x), rig.nan(&[n]));
                rig.cpu.dropout(Dropout { x: x.view(), y: y.view(), mask }).unwrap();
                rig.cpu.dropout(Dropout { x: x.view(), y: x.view(), mask }).unwrap();
                vec![rig.get(&y), rig.get(&x)]
            };
            let y: Vec<f64> = (0..n).map(|i| f64::from(x[i]) * kept(&mask, i)).collect();
            check("dropout", 2e-7, run, &[y.clone(), y]);
        }
    }
}

#[test]
fn bias_dropout_residual_in_one_pass() {
    for [t, h] in [[1, 1], [3, 31], [65, 300], [257, 128]] {
        for mask in [None, Some(mask(9))] {
            let (x, bias, residual) = (numbers(1, t * h), numbers(2, h), numbers(3, t * h));
            let run = |rig: &Rig| {
                let (bias, held) = (rig.put(&[h], &bias), rig.put(&[t, h], &residual));
                let (x1, x2, y) = (rig.put(&[t, h], &x), rig.put(&[t, h], &x), rig.nan(&[t, h]));
                let (bias, residual) = (bias.view(), held.view());
                let fused = |x, y| BiasDropoutResidual { x, bias, residual, y, mask };
                rig.cpu.bias_dropout_residual(fused(x1.view(), y.view())).unwrap();
                rig.cpu.bias_dropout_residual(fused(x2.view(), residual)).unwrap();
                vec![rig.get(&y), rig.get(&held)]
            };
            let y = (0..t * h).map(|i| {
                let branch = f64::from(x[i]) + f64::from(bias[i % h]);
                f64::from(residual[i]) + branch * mask.as_ref().map_or(1.0, |mask| kept(mask, i))
            });
            let y: Vec<f64> = y.collect();
            check("bias_dropout_residual", 1e-6, run, &[y.clone(), y]);
        }
    }
}

#[test]
fn layernorm_and_its_gradient() {
    const EPS: f64 = 1e-5;
    for t in ODD {
        for h in ODD {
            let (x, gamma, beta) = (numbers(1, t * h), numbers(2, h), numbers(3, h));
            let (dy, residual, held) = (numbers(4, t * h), numbers(5, t * h), numbers(6, 2 * h));
            let run = |rig: &Rig| {
                let (x, gamma, beta) = (rig.put(&[t, h], &x), rig.put(&[h], &gamma), rig.put(&[h], &beta));
                let (y, mean, rstd) = (rig.nan(&[t, h]), rig.nan(&[t]), rig.nan(&[t]));
                let forward = |y| LayerNorm {
                    x: x.view(),
                    gamma: gamma.view(),
                    beta: beta.view(),
                    eps: EPS as f32,
                    y,
                    mean: mean.view(),
                    rstd: rstd.view(),
                };
                rig.cpu.layernorm(forward(y.view())).unwrap();
                let mut out = vec![rig.get(&y), rig.get(&mean), rig.get(&rstd)];
                let workspace = rig.scratch(Scratch::LayerNormBackward { t, h });
                for (accumulate, in_place) in [(true, false), (false, false), (false, true)] {
                    let (dy, dx) = (rig.put(&[t, h], &dy), rig.put(&[t, h], &residual));
                    let (dgamma, dbeta) = (rig.put(&[h], &held[..h]), rig.put(&[h], &held[h..]));
                    let args = LayerNormBackward {
                        x: x.view(),
                        gamma: gamma.view(),
                        mean: mean.view(),
                        rstd: rstd.view(),
                        dy: dy.view(),
                        dx: if in_place { dy.view() } else { dx.view() },
                        accumulate,
                        dgamma: dgamma.view(),
                        dbeta: dbeta.view(),
                        workspace: workspace.view(),
                    };
                    rig.cpu.layernorm_backward(args).unwrap();
                    out.push(rig.get(if in_place { &dy } else { &dx }));
                    out.extend([rig.get(&dgamma), rig.get(&dbeta)]);
                }
                rig.cpu.layernorm(forward(x.view())).unwrap();
                out.push(rig.get(&x));
                out
            };
            let [x, gamma, beta, dy] = [&x, &gamma, &beta, &dy].map(|x| wide(x));
            let (mut y, mut mean, mut rstd, mut dx) = (vec![], vec![], vec![], vec![]);
            let (mut dgamma, mut dbeta) = (wide(&held[..h]), wide(&held[h..]));
            for (x, dy) in x.chunks(h).zip(dy.chunks(h)) {
                let average = |f: &dyn Fn(usize) -> f64| (0..h).map(f).sum::<f64>() / h as f64;
                let m = average(&|j| x[j]);
                let r = 1.0 / (average(&|j| (x[j] - m).powi(2)) + EPS).sqrt();
                let n: Vec<f64> = x.iter().map(|x| (x - m) * r).collect();
                let g: Vec<f64> = dy.iter().zip(&gamma).map(|(dy, gamma)| dy * gamma).collect();
                let (mean_g, mean_gn) = (average(&|j| g[j]), average(&|j| g[j] * n[j]));
                for j in 0..h {
                    y.push(n[j] * gamma[j] + beta[j]);
                    dx.push(r * (g[j] - mean_g - n[j] * mean_gn));
                    dgamma[j] += dy[j] * n[j];
                    dbeta[j] += dy[j];
                }
                mean.push(m);
                rstd.push(r);
            }
            let summed: Vec<f64> = dx.iter().zip(&residual).map(|(dx, r)| dx + f64::from(*r)).collect();
            let mut expected = vec![y.clone(), mean, rstd];
            for dx in [summed, dx.clone(), dx] {
                expected.extend([dx, dgamma.clone(), dbeta.clone()]);
            }
            expected.push(y);
            // With h = 1 the variance is 0 and 1/sqrt(eps) magnifies what rounding leaves: h = 2 is the worst of the others.
            check(&format!("layernorm {t} {h}"), 2e-4, run, &expected);
        }
    }
}

#[test]
fn layernorm_of_large_equal_values() {
    let rig = Rig::new(1);
    let (x, gamma, beta) = (rig.put(&[1, 100], &[6e4; 100]), rig.put(&[100], &[1.0; 100]), rig.zeros(&[100]));
    let (mean, rstd) = (rig.nan(&[1]), rig.nan(&[1]));
    let (x, y, gamma, beta) = (x.view(), x.view(), gamma.view(), beta.view());
    rig.cpu
        .layernorm(LayerNorm { x, gamma, beta, eps: 1e-5, y, mean: mean.view(), rstd: rstd.view() })
        .unwrap();
    assert_eq!((rig.get(&mean), rig.get(&rstd)), (vec![6e4], vec![1.0 / 1e-5f32.sqrt()]));
}

#[test]
fn embedding_and_its_gradient() {
    for [t, v, h, first_row] in [[1, 1, 1, 0], [31, 7, 3, 5], [257, 50, 130, 20], [3000, 64, 64, 0]] {
        let (table, dy, held) = (numbers(1, v * h), numbers(2, t * h), numbers(3, v * h));
        let tokens = indices(4, t, 2 * v);
        let run = |rig: &Rig| {
            let (tokens, table, y) = (rig.put_tokens(&tokens), rig.put(&[v, h], &table), rig.nan(&[t, h]));
            let (dy, dtable) = (rig.put(&[t, h], &dy), rig.put(&[v, h], &held));
            let workspace = rig.scratch(Scratch::EmbeddingBackward { t, v, h });
            let forward = Embedding { tokens: tokens.view(), table: table.view(), first_row, y: y.view() };
            rig.cpu.embedding(forward).unwrap();
            let backward = EmbeddingBackward {
                tokens: tokens.view(),
                dy: dy.view(),
                first_row,
                dtable: dtable.view(),
                workspace: workspace.view(),
            };
            rig.cpu.embedding_backward(backward).unwrap();
            vec![rig.get(&y), rig.get(&dtable)]
        };
        let (mut y, mut dtable) = (vec![0.0; t * h], wide(&held));
        for (i, &token) in tokens.iter().enumerate() {
            let token = token as usize;
            if (first_row..first_row + v).contains(&token) {
                for j in 0..h {
                    y[i * h + j] = f64::from(table[(token - first_row) * h + j]);
                    dtable[(token - first_row) * h + j] += f64::from(dy[i * h + j]);
                }
            }
        }
        check("embedding", 1e-5, run, &[y, dtable]);
    }
}

#[test]
fn cross_entropy_in_pieces() {
    for [t, v, first_column] in [[1, 1, 0], [3, 31, 10], [31, 257, 0], [257, 300, 100]] {
        let logits: Vec<f32> = numbers(1, t * v).iter().map(|x| 20.0 * x).collect();
        let targets = indices(2, t, 2 * v + first_column);
        let scale = 0.25;
        let run = |rig: &Rig| {
            let (x, targets) = (rig.put(&[t, v], &logits), rig.put_tokens(&targets));
            let [max, sum_exp, target, loss] = [(); 4].map(|()| rig.nan(&[t]));
            let dx = rig.nan(&[t, v]);
            let (logits, targets) = (x.view(), targets.view());
            rig.cpu.cross_entropy_max(CrossEntropyMax { logits, max: max.view() }).unwrap();
            let (max, sum_exp, target) = (max.view(), sum_exp.view(), target.view());
            let sums = CrossEntropySums { logits, targets, first_column, max, sum_exp, target };
            rig.cpu.cross_entropy_sums(sums).unwrap();
            rig.cpu.cross_entropy_loss(CrossEntropyLoss { sum_exp, target, loss: loss.view() }).unwrap();
            for dlogits in [dx.view(), logits] {
                let args =
                    CrossEntropyBackward { logits, targets, first_column, max, sum_exp, scale, dlogits };
                rig.cpu.cross_entropy_backward(args).unwrap();
            }
            let memory = [max, sum_exp, target].map(|x| rig.get(&x.to_tensor()));
            memory.into_iter().chain([rig.get(&loss), rig.get(&dx), rig.get(&x)]).collect()
        };
        let mut expected = vec![vec![]; 6];
        for (x, &token) in logits.chunks(v).zip(&targets) {
            let x = wide(x);
            let max = x.iter().copied().fold(f64::NEG_INFINITY, f64::max);
            let sum: f64 = x.iter().map(|x| (x - max).exp()).sum();
            let column = (token as usize).checked_sub(first_column).filter(|c| *c < v);
            let target = column.map_or(0.0, |c| x[c] - max);
            for (column, value) in [max, sum, target, sum.ln() - target].into_iter().enumerate() {
                expected[column].push(value);
            }
            for (j, x) in x.iter().enumerate() {
                let one = if Some(j) == column { 1.0 } else { 0.0 };
                let gradient = f64::from(scale) * ((x - max).exp() / sum - one);
                expected[4].push(gradient);
                expected[5].push(gradient);
            }
        }
        check("cross_entropy", 2e-6, run, &expected);
    }
}

#[test]
fn cross_entropy_max_passes_nan_on() {
    let rig = Rig::new(1);
    for v in [1, 9, 40] {
        for place in 0..v {
            let mut logits = vec![f32::NEG_INFINITY; 2 * v];
            logits[place] = f32::NAN;
            let (logits, max) = (rig.put(&[2, v], &logits), rig.nan(&[2]));
            rig.cpu.cross_entropy_max(CrossEntropyMax { logits: logits.view(), max: max.view() }).unwrap();
            let max = rig.get(&max);
            assert!(max[0].is_nan() && max[1] == f32::NEG_INFINITY, "{max:?} with NaN at {place} of {v}");
        }
    }
}

#[test]
fn adamw_step() {
    for n in [1, 31, 257, 40_001] {
        let (param, grad, m) = (numbers(1, n), numbers(2, n), numbers(3, n));
        let v: Vec<f32> = numbers(4, n).iter().map(|x| x.abs()).collect();
        let (lr, beta1, beta2, eps, weight_decay, grad_scale) = (0.01, 0.9, 0.95, 1e-8, 0.1, 0.5);
        let run = |rig: &Rig| {
            let views = [&param, &grad, &m, &v].map(|x| rig.put(&[n], x));
            let [param, grad, m, v] = [0, 1, 2, 3].map(|i: usize| views[i].view());
            let args = AdamW { param, grad, m, v, lr, beta1, beta2, eps, weight_decay, grad_scale, step: 3 };
            rig.cpu.adamw(args).unwrap();
            [0, 2, 3].map(|i: usize| rig.get(&views[i])).to_vec()
        };
        let mut expected = vec![vec![]; 3];
        let [lr, b1, b2, eps, decay, scale] =
            [lr, beta1, beta2, eps, weight_decay, grad_scale].map(f64::from);
        for i in 0..n {
            let [p, g, m, v] = [param[i], grad[i], m[i], v[i]].map(f64::from);
            let g = g * scale;
            let (m, v) = (b1 * m + (1.0 - b1) * g, b2 * v + (1.0 - b2) * g * g);
            let direction = m / (1.0 - b1.powi(3)) / ((v / (1.0 - b2.powi(3))).sqrt() + eps);
            for (column, value) in [p - lr * (direction + decay * p), m, v].into_iter().enumerate() {
                expected[column].push(value);
            }
        }
        check("adamw", 2e-6, run, &expected);
    }
}

#[test]
fn sums_of_everything() {
    for n in [0, 1, 31, 257, 16_384, 100_003] {
        let x = numbers(1, n);
        let run = |rig: &Rig| {
            let x = rig.put(&[n], &x);
            let workspace = rig.scratch(Scratch::Sum { n });
            let (fresh, held) = (rig.nan(&[1]), rig.put(&[1], &[2.0]));
            let sum = |out, beta| Sum { x: x.view(), out, alpha: 0.5, beta, workspace: workspace.view() };
            rig.cpu.sum(sum(fresh.view(), 0.0)).unwrap();
            rig.cpu.sum(sum(held.view(), 3.0)).unwrap();
            vec![rig.get(&fresh), rig.get(&held)]
        };
        let sum: f64 = wide(&x).iter().sum();
        check("sums", 2e-5, run, &[vec![0.5 * sum], vec![0.5 * sum + 6.0]]);
    }
}

#[test]
fn squares_of_blocks() {
    for n in [0, 1, 31, 257, 16_384, 100_003] {
        for block in [1, 7, 64, 1000, 40_000, 1 << 40] {
            let x = numbers(1, n);
            let run = |rig: &Rig| {
                let (x, out) = (rig.put(&[n], &x), rig.nan(&[n.div_ceil(block)]));
                rig.cpu.block_squares(BlockSquares { x: x.view(), out: out.view(), block }).unwrap();
                vec![rig.get(&out)]
            };
            let squares: Vec<f64> =
                wide(&x).chunks(block).map(|block| block.iter().map(|x| x * x).sum()).collect();
            check("block_squares", 2e-5, run, &[squares]);
        }
    }
}

#[test]
fn the_squares_of_a_block_depend_on_nothing_else() {
    let rig = Rig::new(2);
    let (n, block) = (90_000, 777);
    let x = rig.put(&[n], &numbers(1, n));
    let squares = |first: usize, count: usize| {
        let (x, out) = (x.view().rows(first * block, count * block).unwrap(), rig.nan(&[count]));
        rig.cpu.block_squares(BlockSquares { x, out: out.view(), block }).unwrap();
        rig.get(&out).map_bits()
    };
    let whole = squares(0, n / block);
    for (first, count) in [(0, 1), (1, 1), (3, 50), (114, 1)] {
        assert_eq!(squares(first, count), whole[first..first + count]);
    }
}

#[test]
fn cast_of_f32_is_a_copy() {
    let run = |rig: &Rig| {
        let (src, dst) = (rig.put(&[40_001], &numbers(1, 40_001)), rig.nan(&[40_001]));
        rig.cpu.cast(Cast { src: src.view(), dst: dst.view() }).unwrap();
        vec![rig.get(&dst)]
    };
    check("cast", 0.0, run, &[wide(&numbers(1, 40_001))]);
}

#[test]
fn wrong_arguments_are_refused() {
    let rig = Rig::new(1);
    let (x, y) = (rig.zeros(&[8]), rig.zeros(&[8]));
    let overlapping = x.view().rows(0, 7).unwrap();
    let error = rig.cpu.add(Add { x: x.view().rows(1, 7).unwrap(), y: overlapping, alpha: 1.0 }).unwrap_err();
    assert_eq!(error, Error::Overlap { op: "add", output: "y", input: "x" });
    assert!(matches!(rig.cpu.write(x.view(), &[0; 31]), Err(Error::Shape { op: "write", .. })));
    assert!(matches!(rig.cpu.read(x.view(), &mut [0; 33]), Err(Error::Shape { op: "read", .. })));
    let error = rig.cpu.fill(rig.put_tokens(&[1]).view(), 0.0).unwrap_err();
    assert!(matches!(error, Error::DType { op: "fill", .. }), "{error}");
    let workspace = View::new(y.view().buffer(), DType::F32, 1, [1]).unwrap();
    let big = rig.zeros(&[40_000]);
    let out = y.view().rows(7, 1).unwrap();
    let error = rig.cpu.sum(Sum { x: big.view(), out, alpha: 1.0, beta: 0.0, workspace }).unwrap_err();
    assert!(matches!(error, Error::Shape { op: "sum", tensor: "workspace", .. }), "{error}");
}
