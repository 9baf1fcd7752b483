use backend::Backend;
use backend::ops::{Attention, AttentionBackward, AttentionDropout, Scratch};
use backend::philox::{Stream, drop_below};

use super::{close, empty, floats, get, random, rig, twice, workspace};
use crate::WgpuBackend;

struct Reference {
    out: Vec<f64>,
    lse: Vec<f64>,
    dqkv: Vec<f64>,
}

fn reference(
    qkv: &[f32],
    dout: &[f32],
    [b, s, a, d]: [usize; 4],
    scale: f32,
    dropout: Option<AttentionDropout>,
) -> Reference {
    let at = |z: usize, t: usize, head: usize, which: usize| (((z * s + t) * a + head) * 3 + which) * d;
    let row = |z: usize, t: usize, head: usize| ((z * s + t) * a + head) * d;
    let x = |i: usize| f64::from(qkv[i]);
    let mut all = Reference {
        out: vec![0.0; b * s * a * d],
        lse: vec![0.0; b * a * s],
        dqkv: vec![0.0; b * s * a * 3 * d],
    };
    for z in 0..b {
        for head in 0..a {
            for q in 0..s {
                let dot = |k: usize| {
                    (0..d).map(|i| x(at(z, q, head, 0) + i) * x(at(z, k, head, 1) + i)).sum::<f64>()
                };
                let scores: Vec<_> = (0..=q).map(|k| f64::from(scale) * dot(k)).collect();
                let highest = scores.iter().copied().fold(f64::MIN, f64::max);
                let total: f64 = scores.iter().map(|x| (x - highest).exp()).sum();
                let lse = highest + total.ln();
                all.lse[(z * a + head) * s + q] = lse;
                let factor = |k: usize| match dropout {
                    None => 1.0,
                    Some(dropout) => {
                        let word = dropout.stream.word(dropout.row(z, head, q, s) + k as u64);
                        if word >= drop_below(dropout.p) { f64::from(dropout.scale()) } else { 0.0 }
                    }
                };
                let p: Vec<_> = scores.iter().map(|x| (x - lse).exp()).collect();
                for k in 0..=q {
                    for i in 0..d {
                        all.out[row(z, q, head) + i] += p[k] * factor(k) * x(at(z, k, head, 2) + i);
                    }
                }
                let g = |i: usize| f64::from(dout[row(z, q, head) + i]);
                let delta: f64 = (0..d).map(|i| g(i) * all.out[row(z, q, head) + i]).sum();
                for k in 0..=q {
                    let dp = factor(k) * (0..d).map(|i| g(i) * x(at(z, k, head, 2) + i)).sum::<f64>();
                    let ds = p[k] * (dp - delta) * f64::from(scale);
                    for i in 0..d {
                        all.dqkv[at(z, q, head, 0) + i] += ds * x(at(z, k, head, 1) + i);
                        all.dqkv[at(z, k, head, 1) + i] += ds * x(at(z, q, head, 0) + i);
                        all.dqkv[at(z, k, head, 2) + i] += p[k] * factor(k) * g(i);
                    }
                }
            }
        }
    }
    all
}

#[test]
fn forward_and_backward() {
    let Some(rig) = rig() else { return };
    // With the kernels for subgroups of eight, where the adapter has them, and without.
    for subgroups in [false, rig.subgroups] {
        cases(&WgpuBackend { subgroups, ..rig.clone() });
    }
}

fn cases(backend: &WgpuBackend) {
    for (dims, offset) in
        [([1, 1, 1, 1], 0), ([2, 7, 3, 5], 1), ([1, 65, 2, 32], 4), ([2, 34, 1, 8], 2), ([1, 40, 1, 160], 0)]
    {
        let [b, s, a, d] = dims;
        for p in [None, Some(0.2)] {
            let stream = Stream { seed: 77, stream: 1 << 40 };
            let dropout =
                p.map(|p| AttentionDropout { p, stream, first_sample: 1 << 33, first_head: 3, heads: a + 5 });
            let scale = 1.0 / (d as f32).sqrt();
            let (input, up) = (random(b * s * a * 3 * d, 1), random(b * s * a * d, 2));
            let input: Vec<_> = input.iter().map(|x| 2.0 * x).collect();
            let got = twice(|| {
                let qkv = floats(backend, &input, offset, [b, s, a, 3, d]);
                let (out, lse) = (empty(backend, offset, [b, s, a, d]), empty(backend, 1, [b, a, s]));
                let space = workspace(backend, backend.workspace(Scratch::Attention { b, s, a, d }));
                let args = Attention {
                    qkv: qkv.view(),
                    out: out.view(),
                    lse: lse.view(),
                    scale,
                    dropout,
                    workspace: space.view(),
                };
                backend.attention(args).unwrap();
                let dout = floats(backend, &up, offset, [b, s, a, d]);
                let dqkv = empty(backend, offset, [b, s, a, 3, d]);
                let space = workspace(backend, backend.workspace(Scratch::AttentionBackward { b, s, a, d }));
                let args = AttentionBackward {
                    qkv: qkv.view(),
                    out: out.view(),
                    lse: lse.view(),
                    dout: dout.view(),
                    dqkv: dqkv.view(),
                    scale,
                    dropout,
                    workspace: space.view(),
                };
                backend.attention_backward(args).unwrap();
                vec![get(backend, &out), get(backend, &lse), get(backend, &dqkv)]
            });
            let expected = reference(&input, &up, dims, scale, dropout);
            close(&format!("out {dims:?} {p:?}"), &got[0], &expected.out, 1e-5);
            close(&format!("lse {dims:?} {p:?}"), &got[1], &expected.lse, 1e-5);
            close(&format!("dqkv {dims:?} {p:?}"), &got[2], &expected.dqkv, 2e-5);
        }
    }
}
