//! Products against a plain loop in f64: every transpose, batches, alpha and beta, and the fusions.

mod common;

use backend::Backend;
use backend::ops::{Matmul, MatmulBias, MatmulBiasGelu};
use common::{Rig, check, numbers, wide};

/// `[rows, columns]` transposed.
fn transposed(x: &[f32], rows: usize, columns: usize) -> Vec<f32> {
    (0..columns).flat_map(|j| (0..rows).map(move |i| x[i * columns + j])).collect()
}

fn product(a: &[f32], b: &[f32], [m, n, k]: [usize; 3]) -> Vec<f64> {
    let dot = |i: usize, j: usize| (0..k).map(|p| f64::from(a[i * k + p]) * f64::from(b[p * n + j])).sum();
    (0..m).flat_map(|i| (0..n).map(move |j| dot(i, j))).collect()
}

#[test]
fn every_transpose_and_batch() {
    let shapes = [
        [1, 1, 1],
        [1, 1, 300],
        [1, 257, 3],
        [257, 1, 31],
        [3, 31, 257],
        [31, 3, 2],
        [64, 64, 700],
        [257, 31, 64],
        [5, 600, 100],
        [300, 129, 600],
        [640, 33, 65],
        [17, 700, 70],
        [16, 16, 2000],
        [1024, 9, 600],
    ];
    for [m, n, k] in shapes {
        for batch in [None, Some(1), Some(3)] {
            let count = batch.unwrap_or(1);
            let (a, b, held) =
                (numbers(1, count * m * k), numbers(2, count * k * n), numbers(3, count * m * n));
            for (trans_a, trans_b) in [(false, false), (false, true), (true, false), (true, true)] {
                for (alpha, beta) in [(1.0, 0.0), (-0.5, 1.0), (1.0, 0.25)] {
                    let run = |rig: &Rig| {
                        let extents =
                            |x: usize, y: usize| batch.into_iter().chain([x, y]).collect::<Vec<_>>();
                        let stored = |x: &[f32], rows: usize, columns: usize, transpose: bool| {
                            let each = x.chunks(rows * columns);
                            match transpose {
                                false => rig.put(&extents(rows, columns), x),
                                true => {
                                    let data: Vec<f32> =
                                        each.flat_map(|x| transposed(x, rows, columns)).collect();
                                    rig.put(&extents(columns, rows), &data)
                                }
                            }
                        };
                        let (a, b) = (stored(&a, m, k, trans_a), stored(&b, k, n, trans_b));
                        let c = if beta == 0.0 {
                            rig.nan(&extents(m, n))
                        } else {
                            rig.put(&extents(m, n), &held)
                        };
                        let (a, b) = (a.view(), b.view());
                        rig.cpu.matmul(Matmul { a, b, c: c.view(), trans_a, trans_b, alpha, beta }).unwrap();
                        vec![rig.get(&c)]
                    };
                    let each =
                        a.chunks(m * k).zip(b.chunks(k * n)).flat_map(|(a, b)| product(a, b, [m, n, k]));
                    let expected =
                        each.zip(wide(&held)).map(|(p, c)| f64::from(alpha) * p + f64::from(beta) * c);
                    let name = format!("matmul {m} {n} {k} {batch:?} {trans_a} {trans_b} {alpha} {beta}");
                    check(&name, 3e-5, run, &[expected.collect()]);
                }
            }
        }
    }
}

#[test]
fn an_empty_sum_is_zero() {
    for beta in [0.0, 2.0] {
        let run = |rig: &Rig| {
            let (a, b) = (rig.zeros(&[3, 0]), rig.zeros(&[0, 5]));
            let c = if beta == 0.0 { rig.nan(&[3, 5]) } else { rig.put(&[3, 5], &[1.5; 15]) };
            let args = Matmul {
                a: a.view(),
                b: b.view(),
                c: c.view(),
                trans_a: false,
                trans_b: false,
                alpha: 1.0,
                beta,
            };
            rig.cpu.matmul(args).unwrap();
            vec![rig.get(&c)]
        };
        check("matmul k = 0", 0.0, run, &[vec![f64::from(beta) * 1.5; 15]]);
    }
    let rig = Rig::new(2);
    let (a, b, c) = (rig.zeros(&[0, 4]), rig.zeros(&[4, 5]), rig.zeros(&[0, 5]));
    let args = Matmul {
        a: a.view(),
        b: b.view(),
        c: c.view(),
        trans_a: false,
        trans_b: false,
        alpha: 1.0,
        beta: 0.0,
    };
    rig.cpu.matmul(args).unwrap();
}

#[test]
fn linear_layers() {
    for [t, n, k] in [[1, 1, 1], [3, 31, 7], [257, 64, 31], [600, 130, 128]] {
        let (x, w, bias) = (numbers(1, t * k), numbers(2, n * k), numbers(3, n));
        let run = |rig: &Rig| {
            let (x, w, bias) = (rig.put(&[t, k], &x), rig.put(&[n, k], &w), rig.put(&[n], &bias));
            let [y, pre, active] = [(); 3].map(|()| rig.nan(&[t, n]));
            let (x, w, bias) = (x.view(), w.view(), bias.view());
            rig.cpu.matmul_bias(MatmulBias { x, w, bias, y: y.view() }).unwrap();
            let (pre_view, y_view) = (pre.view(), active.view());
            rig.cpu.matmul_bias_gelu(MatmulBiasGelu { x, w, bias, pre: pre_view, y: y_view }).unwrap();
            vec![rig.get(&y), rig.get(&pre), rig.get(&active)]
        };
        let sums = product(&x, &transposed(&w, n, k), [t, n, k]);
        let y: Vec<f64> = sums.iter().enumerate().map(|(i, x)| x + f64::from(bias[i % n])).collect();
        let gelu = |x: &f64| {
            0.5 * x * (1.0 + ((2.0 / std::f64::consts::PI).sqrt() * (x + 0.044715 * x.powi(3))).tanh())
        };
        let active = y.iter().map(gelu).collect();
        check("linear", 1e-5, run, &[y.clone(), y, active]);
    }
}
