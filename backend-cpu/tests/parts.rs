//! What a rank holds of a tensor does not change a bit of it: every operation on all rows, elements, heads or columns, and on each part of them.

#![allow(clippy::unwrap_used, reason = "a failure here is the test's")]

mod common;

use std::ops::Range;

use backend::ops::{
    AdamW, Add, Attention, AttentionBackward, AttentionDropout, BiasAdd, BiasDropoutResidual, BiasGelu, Cast,
    CrossEntropyBackward, CrossEntropyLoss, CrossEntropyMax, CrossEntropySums, Dropout, DropoutMask,
    Embedding, Gelu, GeluBackward, LayerNorm, LayerNormBackward, Matmul, MatmulBias, MatmulBiasGelu, Scratch,
};
use backend::philox::Stream;
use backend::{Backend, Class, DType, ReduceOp};
use common::{Memory, Rig, indices, numbers};

const FLOATS: [DType; 3] = [DType::F32, DType::Bf16, DType::F16];

/// The outputs of the parts, one after the other, are those of the whole.
fn check(name: &str, n: usize, run: impl Fn(&Rig, Range<usize>) -> Vec<Vec<u32>>) {
    let (rig, other) = (Rig::new(1), Rig::new(3));
    let whole = run(&rig, 0..n);
    assert!(whole == run(&other, 0..n), "{name}: the bits depend on the threads");
    for cuts in [2, 4, 8] {
        let mut parts = vec![Vec::new(); whole.len()];
        for i in 0..cuts {
            let part = run(&rig, n * i / cuts..n * (i + 1) / cuts);
            parts.iter_mut().zip(part).for_each(|(all, part)| all.extend(part));
        }
        for (k, (part, whole)) in parts.iter().zip(&whole).enumerate() {
            assert_eq!(part.len(), whole.len(), "{name}: output {k} in {cuts}");
            let differs = part.iter().zip(whole).position(|(a, b)| a != b);
            assert_eq!(differs, None, "{name}: the first element of output {k} that differs in {cuts} parts");
        }
    }
}

/// Parts that fill vectors, and that leave all kinds of remainders.
const SIZES: [usize; 4] = [8, 8 * 33, 8 * 333 + 5, 8 * 5000 + 3];

fn slice(x: &[f32], part: &Range<usize>, width: usize) -> Vec<f32> {
    x[part.start * width..part.end * width].to_vec()
}

const STREAM: Stream = Stream { seed: 5, stream: 6 };

#[test]
fn elements() {
    for (dtype, n) in FLOATS.into_iter().flat_map(|dtype| SIZES.map(|n| (dtype, n))) {
        let data: Vec<Vec<f32>> =
            (0..5).map(|seed| numbers(seed, n).iter().map(|x| 3.0 * x).collect()).collect();
        check(&format!("{dtype}, {n} elements"), n, |rig, part| {
            let len = part.len();
            let x = |i: usize| rig.put_as(dtype, &[len], &slice(&data[i], &part, 1));
            let new = |dtype: DType| rig.nan_as(dtype, &[len]);
            let cpu = &rig.cpu;
            let scaled = x(0);
            cpu.scale(scaled.view(), 0.3).unwrap();
            let added = x(1);
            cpu.add(Add { x: x(0).view(), y: added.view(), alpha: -0.7 }).unwrap();
            let (active, slope, kept) = (new(dtype), new(dtype), new(dtype));
            cpu.gelu(Gelu { x: x(0).view(), y: active.view() }).unwrap();
            cpu.gelu_backward(GeluBackward { x: x(0).view(), dy: x(1).view(), dx: slope.view() }).unwrap();
            let mask = DropoutMask { p: 0.3, stream: STREAM, first: 77 + part.start as u64 };
            cpu.dropout(Dropout { x: x(0).view(), y: kept.view(), mask }).unwrap();
            let inputs: Vec<Memory> = (0..5).map(x).collect();
            let views: Vec<_> = inputs.iter().map(|x| x.view()).collect();
            let sum = new(dtype);
            cpu.reduce(ReduceOp::Sum, &views, &[sum.view()]).unwrap();
            let casts = FLOATS.map(new);
            for dst in &casts {
                cpu.cast(Cast { src: views[3], dst: dst.view() }).unwrap();
            }
            [&scaled, &added, &active, &slope, &kept, &sum]
                .into_iter()
                .chain(&casts)
                .map(|x| rig.bits(x))
                .collect()
        });
    }
}

#[test]
fn parameters() {
    for n in SIZES {
        let data: Vec<Vec<f32>> =
            (0..4).map(|seed| numbers(seed, n).iter().map(|x| x.abs()).collect()).collect();
        check(&format!("adamw of {n}"), n, |rig, part| {
            let [param, grad, m, v] =
                [0, 1, 2, 3].map(|i: usize| rig.put(&[part.len()], &slice(&data[i], &part, 1)));
            let args = AdamW {
                param: param.view(),
                grad: grad.view(),
                m: m.view(),
                v: v.view(),
                lr: 1e-2,
                beta1: 0.9,
                beta2: 0.95,
                eps: 1e-8,
                weight_decay: 0.1,
                grad_scale: 0.7,
                step: 3,
            };
            rig.cpu.adamw(args).unwrap();
            [param, m, v].iter().map(|x| rig.bits(x)).collect()
        });
    }
}

#[test]
fn rows() {
    for (dtype, [t, h]) in
        FLOATS.into_iter().flat_map(|dtype| [[8, 1], [24, 37], [136, 64]].map(|x| (dtype, x)))
    {
        let [x, y, z] = [1, 2, 3].map(|seed| numbers(seed, t * h));
        let [gain, offset] = [4, 5].map(|seed| numbers(seed, h));
        let w = numbers(6, 50 * h);
        let wide = numbers(7, 50);
        check(&format!("{dtype}, rows [{t}, {h}]"), t, |rig, part| {
            let (cpu, t) = (&rig.cpu, part.len());
            let put = |data: &[f32]| rig.put_as(dtype, &[t, h], &slice(data, &part, h));
            let new = |n: usize| rig.nan_as(dtype, &[t, n]);
            let (gamma, beta) = (rig.put_as(dtype, &[h], &gain), rig.put_as(dtype, &[h], &offset));
            let mut out = Vec::new();
            let added = put(&x);
            cpu.bias_add(BiasAdd { x: added.view(), bias: gamma.view() }).unwrap();
            let (pre, active) = (put(&x), new(h));
            cpu.bias_gelu(BiasGelu { x: pre.view(), bias: gamma.view(), y: active.view() }).unwrap();
            let first = (part.start * h) as u64;
            let mask = DropoutMask { p: 0.3, stream: STREAM, first };
            for mask in [None, Some(mask)] {
                let y = new(h);
                let (x, residual) = (put(&x), put(&z));
                let (x, bias, residual) = (x.view(), gamma.view(), residual.view());
                cpu.bias_dropout_residual(BiasDropoutResidual { x, bias, residual, y: y.view(), mask })
                    .unwrap();
                out.push(y);
            }
            let (input, normal, mean, rstd) = (put(&x), new(h), rig.nan(&[t]), rig.nan(&[t]));
            let args = LayerNorm {
                x: input.view(),
                gamma: gamma.view(),
                beta: beta.view(),
                eps: 1e-5,
                y: normal.view(),
                mean: mean.view(),
                rstd: rstd.view(),
            };
            cpu.layernorm(args).unwrap();
            for accumulate in [false, true] {
                let (dy, dx) = (put(&y), put(&z));
                let (dgamma, dbeta) = (rig.zeros(&[h]), rig.zeros(&[h]));
                let workspace = rig.scratch(Scratch::LayerNormBackward { t, h });
                let args = LayerNormBackward {
                    x: input.view(),
                    gamma: gamma.view(),
                    mean: mean.view(),
                    rstd: rstd.view(),
                    dy: dy.view(),
                    dx: dx.view(),
                    accumulate,
                    dgamma: dgamma.view(),
                    dbeta: dbeta.view(),
                    workspace: workspace.view(),
                };
                cpu.layernorm_backward(args).unwrap();
                out.push(dx);
            }
            let (w, bias) = (rig.put_as(dtype, &[50, h], &w), rig.put_as(dtype, &[50], &wide));
            let [linear, before, after] = [(); 3].map(|()| new(50));
            let (x, w, bias) = (input.view(), w.view(), bias.view());
            cpu.matmul_bias(MatmulBias { x, w, bias, y: linear.view() }).unwrap();
            cpu.matmul_bias_gelu(MatmulBiasGelu { x, w, bias, pre: before.view(), y: after.view() }).unwrap();
            out.extend([added, pre, active, normal, mean, rstd, linear, before, after]);
            out.iter().map(|x| rig.bits(x)).collect()
        });
    }
}

#[test]
fn tokens() {
    for (dtype, [t, v]) in FLOATS.into_iter().flat_map(|dtype| [[8, 5], [40, 257]].map(|x| (dtype, x))) {
        let (logits, targets) = (numbers(1, t * v), indices(2, t, v));
        let table = numbers(3, v * 19);
        check(&format!("{dtype}, logits [{t}, {v}]"), t, |rig, part| {
            let (cpu, t) = (&rig.cpu, part.len());
            let x = rig.put_as(dtype, &[t, v], &slice(&logits, &part, v));
            let next = rig.put_tokens(&targets[part.clone()]);
            let (logits, targets) = (x.view(), next.view());
            let [max, sum_exp, target, loss] = [(); 4].map(|()| rig.nan(&[t]));
            let [same, wide] = [dtype, DType::F32].map(|dtype| rig.nan_as(dtype, &[t, v]));
            cpu.cross_entropy_max(CrossEntropyMax { logits, max: max.view() }).unwrap();
            let sums = CrossEntropySums {
                logits,
                targets,
                first_column: 0,
                max: max.view(),
                sum_exp: sum_exp.view(),
                target: target.view(),
            };
            cpu.cross_entropy_sums(sums).unwrap();
            let args = CrossEntropyLoss { sum_exp: sum_exp.view(), target: target.view(), loss: loss.view() };
            cpu.cross_entropy_loss(args).unwrap();
            for dlogits in [&same, &wide] {
                let args = CrossEntropyBackward {
                    logits,
                    targets,
                    first_column: 0,
                    max: max.view(),
                    sum_exp: sum_exp.view(),
                    scale: 0.3,
                    dlogits: dlogits.view(),
                };
                cpu.cross_entropy_backward(args).unwrap();
            }
            let (table, rows) = (rig.put_as(dtype, &[v, 19], &table), rig.nan_as(dtype, &[t, 19]));
            cpu.embedding(Embedding { tokens: targets, table: table.view(), first_row: 0, y: rows.view() })
                .unwrap();
            [max, sum_exp, target, loss, same, wide, rows].iter().map(|x| rig.bits(x)).collect()
        });
    }
}

/// Attention of sequences `samples` and heads `heads` of `[8, s, 8, d]`: `out`, `lse` and `dqkv`, all of them with the head's elements together.
fn attention(
    rig: &Rig,
    dtype: DType,
    [s, d]: [usize; 2],
    [samples, heads]: [Range<usize>; 2],
    dropout: bool,
) -> Vec<Vec<u32>> {
    const ALL: usize = 8;
    let (b, a) = (samples.len(), heads.len());
    let pick = |x: &[f32], width: usize| -> Vec<f32> {
        let rows = samples.clone().flat_map(|b| (0..s).map(move |q| (b * s + q) * ALL));
        rows.flat_map(|row| x[(row + heads.start) * width..(row + heads.end) * width].to_vec()).collect()
    };
    let (qkv, dout) = (numbers(1, ALL * s * ALL * 3 * d), numbers(2, ALL * s * ALL * d));
    let qkv = rig.put_as(dtype, &[b, s, a, 3, d], &pick(&qkv, 3 * d));
    let dout = rig.put_as(dtype, &[b, s, a, d], &pick(&dout, d));
    let (out, lse) = (rig.nan_as(dtype, &[b, s, a, d]), rig.nan(&[b, a, s]));
    let dqkv = rig.nan_as(dtype, &[b, s, a, 3, d]);
    let dropout = dropout.then_some(AttentionDropout {
        p: 0.2,
        stream: STREAM,
        first_sample: samples.start as u64,
        first_head: heads.start,
        heads: ALL,
    });
    let (qkv, out_view, lse_view, scale) = (qkv.view(), out.view(), lse.view(), 0.4);
    let workspace = rig.scratch(Scratch::Attention { b, s, a, d });
    let workspace = workspace.view();
    rig.cpu.attention(Attention { qkv, out: out_view, lse: lse_view, scale, dropout, workspace }).unwrap();
    let workspace = rig.scratch(Scratch::AttentionBackward { b, s, a, d });
    let args = AttentionBackward {
        qkv,
        out: out_view,
        lse: lse_view,
        dout: dout.view(),
        dqkv: dqkv.view(),
        scale,
        dropout,
        workspace: workspace.view(),
    };
    rig.cpu.attention_backward(args).unwrap();
    // [b, s, a, width] to [b, a, s, width], and whichever of the two is cut to the front.
    let by_head = |x: Vec<u32>, width: usize| -> Vec<Vec<u32>> {
        let index = |(b, a): (usize, usize)| {
            (0..s).flat_map(|q| x[((b * s + q) * heads.len() + a) * width..][..width].to_vec()).collect()
        };
        (0..a).flat_map(|a| (0..b).map(move |b| (b, a))).map(index).collect()
    };
    let lse = rig.bits(&lse);
    let lse: Vec<u32> = (0..a)
        .flat_map(|h| (0..b).map(move |b| (b, h)))
        .flat_map(|(b, h)| lse[(b * a + h) * s..][..s].to_vec())
        .collect();
    vec![by_head(rig.bits(&out), d).concat(), lse, by_head(rig.bits(&dqkv), 3 * d).concat()]
}

#[test]
fn heads_and_sequences() {
    for dtype in FLOATS {
        for [s, d] in [[1, 1], [13, 5], [50, 32], [63, 33]] {
            for dropout in [false, true] {
                let name = format!("{dtype}, attention [{s}, {d}], dropout {dropout}");
                check(&format!("{name}, heads"), 8, |rig, part| {
                    attention(rig, dtype, [s, d], [2..3, part], dropout)
                });
                check(&format!("{name}, sequences"), 8, |rig, part| {
                    attention(rig, dtype, [s, d], [part, 4..5], dropout)
                });
            }
        }
    }
}

/// A product with the rows of `a`, or the columns of `op(b)`, of a part.
#[test]
fn rows_and_columns_of_products() {
    for dtype in FLOATS {
        for [m, n, k] in [[8, 24, 5], [40, 8, 300], [136, 72, 64], [1030, 40, 33]] {
            let (a, b, held) = (numbers(1, m * k), numbers(2, n * k), numbers(3, m * n));
            for (result, trans_b, beta) in
                [(dtype, true, 0.0), (dtype, false, 0.5), (DType::F32, true, 1.0), (DType::F32, false, 0.0)]
            {
                let product = |rig: &Rig, rows: Range<usize>, columns: Range<usize>| {
                    let transposed = |x: &[f32]| -> Vec<f32> {
                        let n = columns.len();
                        (0..k).flat_map(|p| (0..n).map(move |j| (j, p))).map(|(j, p)| x[j * k + p]).collect()
                    };
                    let b = slice(&b, &columns, k);
                    let b = match trans_b {
                        true => rig.put_as(dtype, &[columns.len(), k], &b),
                        false => rig.put_as(dtype, &[k, columns.len()], &transposed(&b)),
                    };
                    let a = rig.put_as(dtype, &[rows.len(), k], &slice(&a, &rows, k));
                    let c: Vec<f32> =
                        rows.clone().flat_map(|i| held[i * n..][columns.clone()].to_vec()).collect();
                    let c = rig.put_as(result, &[rows.len(), columns.len()], &c);
                    let args = Matmul {
                        a: a.view(),
                        b: b.view(),
                        c: c.view(),
                        trans_a: false,
                        trans_b,
                        alpha: 0.7,
                        beta,
                    };
                    rig.cpu.matmul(args).unwrap();
                    rig.bits(&c)
                };
                let name = format!("{dtype} to {result}, product {m} {n} {k} {trans_b} {beta}");
                check(&format!("{name}, rows"), m, |rig, part| vec![product(rig, part, 0..n)]);
                // A column at a time, so that parts can be put one after the other.
                check(&format!("{name}, columns"), n, |rig, part| {
                    let c = product(rig, 0..m, part.clone());
                    let n = part.len();
                    vec![
                        (0..n).flat_map(|j| (0..m).map(move |i| (i, j))).map(|(i, j)| c[i * n + j]).collect(),
                    ]
                });
            }
        }
    }
}

/// The product of 16-bit factors is that of the same numbers in f32, rounded once: more than one panel of everything, and each transpose.
#[test]
fn narrow_products_are_wide_ones_rounded() {
    let rig = Rig::new(2);
    for dtype in [DType::Bf16, DType::F16] {
        for [m, n, k] in [[1, 1, 1], [3, 700, 2], [530, 20, 70], [70, 600, 300], [600, 530, 257]] {
            let (a, b, held) = (numbers(1, m * k), numbers(2, n * k), numbers(3, m * n));
            for (trans_a, trans_b) in [(false, false), (false, true), (true, false), (true, true)] {
                let a = rig.put_as(dtype, &if trans_a { [k, m] } else { [m, k] }, &a);
                let b = rig.put_as(dtype, &if trans_b { [n, k] } else { [k, n] }, &b);
                let wide = [&a, &b].map(|x| {
                    let wide = rig.nan(x.view().extents());
                    rig.cpu.cast(Cast { src: x.view(), dst: wide.view() }).unwrap();
                    wide
                });
                for (alpha, beta) in [(1.0, 0.0), (0.5, 1.0)] {
                    let run = |[a, b]: [&Memory; 2], c: &Memory| {
                        let (a, b, c) = (a.view(), b.view(), c.view());
                        rig.cpu.matmul(Matmul { a, b, c, trans_a, trans_b, alpha, beta }).unwrap();
                    };
                    // What a result of 16 bits holds before, in f32 as well.
                    let narrow = rig.put_as(dtype, &[m, n], &held);
                    let [expected, sums] = [(); 2].map(|()| {
                        let wide = rig.nan(&[m, n]);
                        rig.cpu.cast(Cast { src: narrow.view(), dst: wide.view() }).unwrap();
                        wide
                    });
                    run(wide.each_ref(), &expected);
                    run([&a, &b], &sums);
                    run([&a, &b], &narrow);
                    let rounded = rig.nan_as(dtype, &[m, n]);
                    rig.cpu.cast(Cast { src: expected.view(), dst: rounded.view() }).unwrap();
                    let name = format!("{dtype} {m} {n} {k} {trans_a} {trans_b} {alpha} {beta}");
                    assert!(rig.bits(&sums) == rig.bits(&expected), "{name}, to f32");
                    assert!(rig.bits(&narrow) == rig.bits(&rounded), "{name}");
                }
            }
        }
    }
}

/// The panels of 16-bit products are allocated by the first one, whatever the sizes of those that follow.
#[test]
fn panels_are_kept() {
    let rig = Rig::new(2);
    let product = |n: usize| {
        let [a, b, c] = [(); 3].map(|()| rig.put_as(DType::Bf16, &[n, n], &vec![1.0; n * n]));
        let (a, b, c) = (a.view(), b.view(), c.view());
        let args = Matmul { a, b, c, trans_a: false, trans_b: false, alpha: 1.0, beta: 0.0 };
        rig.cpu.matmul(args).unwrap();
    };
    let held = || rig.cpu.usage(Class::Workspace).current;
    assert_eq!(held(), 0);
    product(5);
    let first = held();
    assert!(first > 0);
    product(700);
    assert_eq!(held(), first);
}
