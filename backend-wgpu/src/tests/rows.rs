use backend::Backend;
use backend::ops::{BiasAdd, BiasBackward, BiasGelu, LayerNorm, LayerNormBackward, Scratch};

use super::elementwise::gelu;
use super::{close, empty, floats, get, random, rig, twice, workspace};

const SHAPES: [(usize, usize, usize); 6] =
    [(1, 1, 0), (5, 3, 1), (33, 128, 4), (257, 31, 2), (70_000, 4, 0), (3, 1000, 0)];

fn d(x: f32) -> f64 {
    f64::from(x)
}

#[test]
fn bias_add_and_gelu() {
    let Some(backend) = rig() else { return };
    for (t, n, offset) in SHAPES {
        let (a, b) = (random(t * n, 1), random(n, 2));
        let (x, bias) = (floats(backend, &a, offset, [t, n]), floats(backend, &b, offset, [n]));
        let y = empty(backend, offset, [t, n]);
        backend.bias_add(BiasAdd { x: x.view(), bias: bias.view() }).unwrap();
        backend.bias_gelu(BiasGelu { x: x.view(), bias: bias.view(), y: y.view() }).unwrap();
        let sum: Vec<_> = (0..t * n).map(|i| d(a[i]) + 2.0 * d(b[i % n])).collect();
        close("bias_add", &get(backend, &x), &sum, 1e-6);
        close("bias_gelu", &get(backend, &y), &sum.iter().map(|&x| gelu(x)).collect::<Vec<_>>(), 2e-6);
    }
}

#[test]
fn bias_backward() {
    let Some(backend) = rig() else { return };
    for (t, n, offset) in SHAPES {
        let (a, before) = (random(t * n, 3), random(n, 4));
        let got = twice(|| {
            let dy = floats(backend, &a, offset, [t, n]);
            let dbias = floats(backend, &before, offset, [n]);
            let space = workspace(backend, backend.workspace(Scratch::BiasBackward { t, n }));
            let args = BiasBackward { dy: dy.view(), dbias: dbias.view(), workspace: space.view() };
            backend.bias_backward(args).unwrap();
            vec![get(backend, &dbias)]
        });
        let sum = |c: usize| d(before[c]) + (0..t).map(|r| d(a[r * n + c])).sum::<f64>();
        close("bias_backward", &got[0], &(0..n).map(sum).collect::<Vec<_>>(), 1e-5);
    }
}

#[test]
fn layernorm_forward_and_backward() {
    let Some(backend) = rig() else { return };
    let eps = 1e-5f32;
    for (t, h, offset) in SHAPES {
        for accumulate in [false, true] {
            let a: Vec<f32> = random(t * h, 5).iter().map(|x| x + 0.5).collect();
            let parameters = random(2 * h, 6);
            let (gamma, beta) = parameters.split_at(h);
            let (up, before) = (random(t * h, 7), random(2 * h, 8));
            let got = twice(|| {
                let x = floats(backend, &a, offset, [t, h]);
                let weights = floats(backend, &parameters, offset, [2, h]);
                let row = |i| weights.view().rows(i, 1).unwrap().reshape([h]).unwrap();
                let y = empty(backend, offset, [t, h]);
                let (mean, rstd) = (empty(backend, 1, [t]), empty(backend, 2, [t]));
                let args = LayerNorm {
                    x: x.view(),
                    gamma: row(0),
                    beta: row(1),
                    eps,
                    y: y.view(),
                    mean: mean.view(),
                    rstd: rstd.view(),
                };
                backend.layernorm(args).unwrap();
                // Both gradients in one buffer; dx is dy, or adds to itself.
                let gradients = floats(backend, &before, offset, [2, h]);
                let part = |i| gradients.view().rows(i, 1).unwrap().reshape([h]).unwrap();
                let dy = floats(backend, &up, offset, [t, h]);
                let dx = if accumulate { floats(backend, &up, offset, [t, h]) } else { dy.clone() };
                let space = workspace(backend, backend.workspace(Scratch::LayerNormBackward { t, h }));
                let args = LayerNormBackward {
                    x: x.view(),
                    gamma: row(0),
                    mean: mean.view(),
                    rstd: rstd.view(),
                    dy: dy.view(),
                    dx: dx.view(),
                    accumulate,
                    dgamma: part(0),
                    dbeta: part(1),
                    workspace: space.view(),
                };
                backend.layernorm_backward(args).unwrap();
                vec![get(backend, &y), get(backend, &dx), get(backend, &gradients)]
            });
            let (mut y, mut dx) = (vec![], vec![]);
            let mut gradients: Vec<_> = before.iter().map(|&x| d(x)).collect();
            for row in 0..t {
                let x: Vec<_> = a[row * h..][..h].iter().map(|&x| d(x)).collect();
                let mean = x.iter().sum::<f64>() / h as f64;
                let var = x.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / h as f64;
                let rstd = 1.0 / (var + d(eps)).sqrt();
                let n: Vec<_> = x.iter().map(|x| (x - mean) * rstd).collect();
                let dy: Vec<_> = up[row * h..][..h].iter().map(|&x| d(x)).collect();
                let g: Vec<_> = (0..h).map(|i| dy[i] * d(gamma[i])).collect();
                let g_mean = g.iter().sum::<f64>() / h as f64;
                let gn_mean = (0..h).map(|i| g[i] * n[i]).sum::<f64>() / h as f64;
                for i in 0..h {
                    y.push(n[i] * d(gamma[i]) + d(beta[i]));
                    dx.push(rstd * (g[i] - g_mean - n[i] * gn_mean) + if accumulate { dy[i] } else { 0.0 });
                    gradients[i] += dy[i] * n[i];
                    gradients[h + i] += dy[i];
                }
            }
            close("layernorm", &got[0], &y, 1e-5);
            close("dx", &got[1], &dx, 2e-4);
            close("dgamma, dbeta", &got[2], &gradients, 3e-5);
        }
    }
}

#[test]
fn a_constant_row_keeps_its_variance_of_zero() {
    let Some(backend) = rig() else { return };
    let h = 333;
    let (x, y) = (floats(backend, &vec![6.0e4; h], 0, [1, h]), empty(backend, 0, [1, h]));
    let (gamma, beta) = (floats(backend, &vec![1.0; h], 0, [h]), floats(backend, &vec![0.25; h], 0, [h]));
    let (mean, rstd) = (empty(backend, 0, [1]), empty(backend, 0, [1]));
    let args = LayerNorm {
        x: x.view(),
        gamma: gamma.view(),
        beta: beta.view(),
        eps: 1e-5,
        y: y.view(),
        mean: mean.view(),
        rstd: rstd.view(),
    };
    backend.layernorm(args).unwrap();
    // The mean of equal numbers may round by an ulp of 2^-8, which rstd makes 1.2 at the most.
    assert!(get(backend, &y).iter().all(|y| (y - 0.25).abs() < 1.25));
    assert!((get(backend, &rstd)[0] - 316.23).abs() < 160.0);
}
