use backend::ops::{
    AdamW, Add, BiasDropoutResidual, BlockSquares, Dropout, DropoutMask, Gelu, GeluBackward, Sum,
};
use backend::philox::{Stream, drop_below};
use backend::{Backend, ops::Scratch};

use super::{close, empty, floats, get, random, rig, twice, workspace};

const SIZES: [(usize, usize); 6] = [(1, 0), (3, 1), (4, 4), (1024, 8), (1021, 0), (70_000, 3)];

pub(crate) fn gelu(x: f64) -> f64 {
    0.5 * x * (1.0 + ((2.0 / std::f64::consts::PI).sqrt() * (x + 0.044715 * x * x * x)).tanh())
}

fn gelu_derivative(x: f64) -> f64 {
    let c = (2.0 / std::f64::consts::PI).sqrt();
    let t = (c * (x + 0.044715 * x * x * x)).tanh();
    0.5 * (1.0 + t) + 0.5 * x * (1.0 - t * t) * c * (1.0 + 3.0 * 0.044715 * x * x)
}

#[test]
fn fill_scale_add_copy() {
    let Some(backend) = rig() else { return };
    for (n, offset) in SIZES {
        let (a, b) = (random(n, 1), random(n, 2));
        let (x, y) = (floats(backend, &a, offset, [n]), floats(backend, &b, 0, [n]));
        let z = empty(backend, offset + 1, [n]);
        backend.copy(x.view(), z.view()).unwrap();
        assert_eq!(get(backend, &z), a);
        backend.scale(z.view(), -3.0).unwrap();
        backend.add(Add { x: z.view(), y: y.view(), alpha: 0.5 }).unwrap();
        let expected: Vec<_> = a.iter().zip(&b).map(|(a, b)| f64::from(*b) - 1.5 * f64::from(*a)).collect();
        close("add", &get(backend, &y), &expected, 1e-6);
        backend.fill(x.view(), 7.5).unwrap();
        assert!(get(backend, &x).iter().all(|&v| v == 7.5));
        backend.fill(x.view(), f32::NAN).unwrap();
        assert!(get(backend, &x).iter().all(|v| v.is_nan()));
    }
}

#[test]
fn copies_within_a_buffer() {
    let Some(backend) = rig() else { return };
    let data = random(100, 3);
    let x = floats(backend, &data, 2, [100]);
    let v = x.view();
    backend.copy(v.rows(0, 41).unwrap(), v.rows(50, 41).unwrap()).unwrap();
    let got = get(backend, &x);
    assert_eq!(&got[50..91], &data[..41]);
    assert_eq!(&got[91..], &data[91..]);
}

#[test]
fn gelu_and_its_derivative() {
    let Some(backend) = rig() else { return };
    for (n, offset) in SIZES {
        let mut a: Vec<f32> = random(n, 4).iter().map(|x| 6.0 * x).collect();
        a[0] = -200.0;
        a[n / 2] = 200.0;
        let b = random(n, 5);
        let x = floats(backend, &a, offset, [n]);
        let y = empty(backend, 0, [n]);
        backend.gelu(Gelu { x: x.view(), y: y.view() }).unwrap();
        let expected: Vec<_> = a.iter().map(|&x| gelu(x.into())).collect();
        close("gelu", &get(backend, &y), &expected, 2e-6);
        let dy = floats(backend, &b, offset, [n]);
        backend.gelu_backward(GeluBackward { x: x.view(), dy: dy.view(), dx: dy.view() }).unwrap();
        let expected: Vec<_> =
            a.iter().zip(&b).map(|(&x, &g)| gelu_derivative(x.into()) * f64::from(g)).collect();
        close("gelu_backward", &get(backend, &dy), &expected, 2e-6);
        backend.gelu(Gelu { x: x.view(), y: x.view() }).unwrap();
        assert_eq!(get(backend, &x), get(backend, &y), "in place");
    }
}

#[test]
fn dropout_draws_the_streams_words() {
    let Some(backend) = rig() else { return };
    // The second and third firsts make the index carry into its high word.
    for first in [0, 5, u64::from(u32::MAX) - 6, (7 << 34) + 3] {
        for (n, offset) in [(1024, 4), (999, 1)] {
            let stream = Stream { seed: 0x1234_5678_9abc, stream: 0x77_0000_0003 };
            let mask = DropoutMask { p: 0.3, stream, first };
            let a = random(n, 6);
            let x = floats(backend, &a, offset, [n]);
            backend.dropout(Dropout { x: x.view(), y: x.view(), mask }).unwrap();
            let keep = |i: usize| stream.word(first + i as u64) >= drop_below(0.3);
            let expected: Vec<_> = (0..n).map(|i| if keep(i) { a[i] * mask.scale() } else { 0.0 }).collect();
            assert_eq!(get(backend, &x), expected, "first {first}");
        }
    }
}

#[test]
fn bias_dropout_residual() {
    let Some(backend) = rig() else { return };
    for (t, h, offset) in [(1, 1, 0), (9, 31, 3), (17, 128, 4)] {
        for p in [None, Some(0.25)] {
            let stream = Stream { seed: 9, stream: 2 };
            let mask = p.map(|p| DropoutMask { p, stream, first: 1001 });
            let (a, b, r) = (random(t * h, 7), random(h, 8), random(t * h, 9));
            let x = floats(backend, &a, offset, [t, h]);
            let bias = floats(backend, &b, offset, [h]);
            let y = floats(backend, &r, offset, [t, h]);
            let args =
                BiasDropoutResidual { x: x.view(), bias: bias.view(), residual: y.view(), y: y.view(), mask };
            backend.bias_dropout_residual(args).unwrap();
            let expected: Vec<_> = (0..t * h)
                .map(|i| {
                    let branch = f64::from(a[i]) + f64::from(b[i % h]);
                    let factor = match mask {
                        Some(m) if stream.word(1001 + i as u64) < drop_below(m.p) => 0.0,
                        Some(m) => f64::from(m.scale()),
                        None => 1.0,
                    };
                    f64::from(r[i]) + factor * branch
                })
                .collect();
            close("bias_dropout_residual", &get(backend, &y), &expected, 1e-6);
        }
    }
}

#[test]
fn adamw() {
    let Some(backend) = rig() else { return };
    for (n, offset) in SIZES {
        let (w, g, m) = (random(n, 10), random(n, 11), random(n, 12));
        let v: Vec<f32> = random(n, 13).iter().map(|x| x * x).collect();
        let (param, grad) = (floats(backend, &w, offset, [n]), floats(backend, &g, offset, [n]));
        let (m1, v1) = (floats(backend, &m, offset, [n]), floats(backend, &v, offset, [n]));
        let (lr, beta1, beta2, eps, weight_decay, grad_scale, step) = (1e-2, 0.9, 0.95, 1e-8, 0.1, 0.5, 3);
        let (param_view, grad_view) = (param.view(), grad.view());
        let args = AdamW {
            param: param_view,
            grad: grad_view,
            m: m1.view(),
            v: v1.view(),
            lr,
            beta1,
            beta2,
            eps,
            weight_decay,
            grad_scale,
            step,
        };
        backend.adamw(args).unwrap();
        let d = f64::from;
        let expected: [Vec<f64>; 3] = {
            let mut all = [vec![], vec![], vec![]];
            for i in 0..n {
                let gi = d(grad_scale) * d(g[i]);
                let mi = d(beta1) * d(m[i]) + (1.0 - d(beta1)) * gi;
                let vi = d(beta2) * d(v[i]) + (1.0 - d(beta2)) * gi * gi;
                let step_of =
                    (mi / (1.0 - d(beta1).powi(3))) / ((vi / (1.0 - d(beta2).powi(3))).sqrt() + d(eps));
                all[0].push(d(w[i]) - d(lr) * (step_of + d(weight_decay) * d(w[i])));
                all[1].push(mi);
                all[2].push(vi);
            }
            all
        };
        close("param", &get(backend, &param), &expected[0], 2e-6);
        close("m", &get(backend, &m1), &expected[1], 1e-6);
        close("v", &get(backend, &v1), &expected[2], 1e-6);
    }
}

#[test]
fn sums() {
    let Some(backend) = rig() else { return };
    for (n, offset) in [(0, 0), (1, 1), (63, 0), (4097, 3), (300_001, 2)] {
        let a = random(n, 14);
        let got = twice(|| {
            let x = floats(backend, &a, offset, [n]);
            let space = workspace(backend, backend.workspace(Scratch::Sum { n }));
            let out = floats(backend, &[2.0], 1, [1]);
            let args = Sum { x: x.view(), out: out.view(), alpha: 0.5, beta: -1.0, workspace: space.view() };
            backend.sum(args).unwrap();
            vec![get(backend, &out)]
        });
        let sum: f64 = a.iter().map(|&x| f64::from(x)).sum();
        let scale = 1e-6 * (n as f64).sqrt().max(1.0);
        assert!((f64::from(got[0][0]) - (0.5 * sum - 2.0)).abs() < scale, "{n}: {} {sum}", got[0][0]);
    }
}

#[test]
fn squares_of_a_block_depend_on_the_block_alone() {
    let Some(backend) = rig() else { return };
    for (n, offset, block) in
        [(0, 0, 4), (1, 1, 1), (300, 3, 7), (4096, 4, 1024), (9001, 0, 4096), (300_001, 2, 1 << 20)]
    {
        let a = random(n, 14);
        let squares = |first: usize, n: usize, offset: usize| {
            let x = floats(backend, &a[first..first + n], offset, [n]);
            let out = empty(backend, 1, [n.div_ceil(block)]);
            backend.block_squares(BlockSquares { x: x.view(), out: out.view(), block }).unwrap();
            get(backend, &out)
        };
        let whole = squares(0, n, offset);
        let expected: Vec<f64> =
            a.chunks(block).map(|b| b.iter().map(|&x| f64::from(x) * f64::from(x)).sum()).collect();
        close("squares", &whole, &expected, 1e-6);
        for (i, sum) in whole.iter().enumerate().step_by(whole.len().div_ceil(16).max(1)) {
            let (first, last) = (i * block, n.min((i + 1) * block));
            assert_eq!(
                squares(first, last - first, i % 5)[0].to_bits(),
                sum.to_bits(),
                "block {i} of {n} by {block}"
            );
        }
    }
}
