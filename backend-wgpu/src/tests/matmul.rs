use backend::Backend;
use backend::ops::{Matmul, MatmulBias, MatmulBiasGelu};

use super::elementwise::gelu;
use super::{close, empty, floats, get, random, rig, twice};
use crate::WgpuBackend;
use crate::matmul::MatmulKernel;

/// The rig's device with each of the kernels.
fn every(rig: &WgpuBackend) -> Vec<WgpuBackend> {
    let kernels = MatmulKernel::ALL.into_iter().filter(|kernel| kernel.runs_on(&rig.device.info));
    let with = |kernel| WgpuBackend {
        device: std::sync::Arc::clone(&rig.device),
        pool: std::sync::Arc::clone(&rig.pool),
        matmul_kernel: Some(kernel),
        subgroups: rig.subgroups,
    };
    kernels.map(with).collect()
}

fn reference(
    (a, b): (&[f32], &[f32]),
    [batch, m, n, k]: [usize; 4],
    trans_a: bool,
    trans_b: bool,
) -> Vec<f64> {
    let mut c = vec![0.0; batch * m * n];
    for (i, c) in c.iter_mut().enumerate() {
        let (z, row, column) = (i / (m * n), i / n % m, i % n);
        for j in 0..k {
            let x = a[z * m * k + if trans_a { j * m + row } else { row * k + j }];
            let y = b[z * k * n + if trans_b { column * k + j } else { j * n + column }];
            *c += f64::from(x) * f64::from(y);
        }
    }
    c
}

#[test]
fn products() {
    let Some(rig) = rig() else { return };
    let shapes =
        [[1, 1, 1, 1], [1, 7, 5, 3], [1, 64, 64, 16], [3, 33, 20, 9], [2, 68, 72, 40], [1, 130, 66, 257]];
    for backend in &every(rig) {
        for dims in shapes {
            let [batch, m, n, k] = dims;
            for (trans_a, trans_b) in [(false, false), (false, true), (true, false), (true, true)] {
                for (offset, alpha, beta) in [(0, 1.0, 0.0), (3, -0.5, 2.0)] {
                    let (a, b, before) =
                        (random(batch * m * k, 1), random(batch * k * n, 2), random(batch * m * n, 3));
                    let x = floats(backend, &a, offset, if trans_a { [batch, k, m] } else { [batch, m, k] });
                    let y = floats(backend, &b, offset, if trans_b { [batch, n, k] } else { [batch, k, n] });
                    let got = twice(|| {
                        let c = match beta == 0.0 {
                            true => empty(backend, offset, [batch, m, n]),
                            false => floats(backend, &before, offset, [batch, m, n]),
                        };
                        let args =
                            Matmul { a: x.view(), b: y.view(), c: c.view(), trans_a, trans_b, alpha, beta };
                        backend.matmul(args).unwrap();
                        vec![get(backend, &c)]
                    });
                    let product = reference((&a, &b), dims, trans_a, trans_b);
                    let expected: Vec<_> = product
                        .iter()
                        .zip(&before)
                        .map(|(p, c)| f64::from(alpha) * p + f64::from(beta) * f64::from(*c))
                        .collect();
                    let what = format!("{:?} {dims:?} {trans_a} {trans_b} {offset}", backend.matmul_kernel);
                    close(&what, &got[0], &expected, 1e-5);
                }
            }
        }
    }
}

#[test]
fn an_empty_sum_is_zero() {
    let Some(rig) = rig() else { return };
    for backend in &every(rig) {
        let (a, b) = (floats(backend, &[], 0, [3, 0]), floats(backend, &[], 0, [0, 2]));
        let c = empty(backend, 1, [3, 2]);
        let args = Matmul {
            a: a.view(),
            b: b.view(),
            c: c.view(),
            trans_a: false,
            trans_b: false,
            alpha: 1.0,
            beta: 0.0,
        };
        backend.matmul(args).unwrap();
        assert_eq!(get(backend, &c), vec![0.0; 6]);
    }
}

#[test]
fn linear_layers() {
    let Some(rig) = rig() else { return };
    for backend in &every(rig) {
        for ([t, n, k], offset) in [([5, 7, 3], 1), ([68, 132, 64], 0), ([65, 128, 128], 4)] {
            let (a, w, c) = (random(t * k, 4), random(n * k, 5), random(n, 6));
            let x = floats(backend, &a, offset, [t, k]);
            // Weights and bias in one buffer, as a parameter store has them.
            let store = floats(backend, &[&w[..], &c[..]].concat(), offset, [n * k + n]);
            let weights = store.view().rows(0, n * k).unwrap().reshape([n, k]).unwrap();
            let bias = store.view().rows(n * k, n).unwrap();
            let (y, pre) = (empty(backend, offset, [t, n]), empty(backend, offset, [t, n]));
            let product = reference((&a, &w), [1, t, n, k], false, true);
            let sum: Vec<_> = product.iter().enumerate().map(|(i, p)| p + f64::from(c[i % n])).collect();
            backend.matmul_bias(MatmulBias { x: x.view(), w: weights, bias, y: y.view() }).unwrap();
            close("matmul_bias", &get(backend, &y), &sum, 1e-5);
            let args = MatmulBiasGelu { x: x.view(), w: weights, bias, pre: pre.view(), y: y.view() };
            backend.matmul_bias_gelu(args).unwrap();
            close("pre", &get(backend, &pre), &sum, 1e-5);
            close("y", &get(backend, &y), &sum.iter().map(|&x| gelu(x)).collect::<Vec<_>>(), 1e-5);
        }
    }
}
