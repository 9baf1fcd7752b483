use backend::Backend;
use backend::ops::{Attention, AttentionBackward, AttentionDropout, Scratch};
use backend::philox::{Stream, drop_below};

use super::{TIMEOUT, close, empty, floats, get, random, rig, twice, workspace};
use crate::ops::attention::{MOST_PRODUCTS, shares};
use crate::{Choice, WgpuBackend};

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
    // With the kernels for subgroups of eight, where the adapter has them, and without; in one dispatch, and in as many as there are blocks.
    for subgroups in [false, rig.subgroups] {
        for most_products in [MOST_PRODUCTS, 1] {
            cases(&with(rig, subgroups, most_products));
        }
    }
}

fn with(rig: &WgpuBackend, subgroups: bool, most_products: u64) -> WgpuBackend {
    WgpuBackend { subgroups, most_products, ..rig.clone() }
}

/// Shares are within the bound, and each sequence, head and block is in one of them.
#[test]
fn shares_are_bounded_and_complete() {
    for extents in [[1, 1, 1], [4, 8, 32], [3, 5, 7], [1, 128, 2049]] {
        for most in [0, 1, 6, 7, 8, 35, 36, 300, 1 << 20] {
            let all = shares(extents, most);
            let mut seen = vec![false; extents.iter().product()];
            for share in &all {
                assert!(
                    share.count.iter().product::<usize>() <= most.max(1),
                    "{extents:?} {most}: {share:?}"
                );
                let range = |axis: usize| share.at[axis]..share.at[axis] + share.count[axis];
                for b in range(0) {
                    for a in range(1) {
                        for block in range(2) {
                            let at = (b * extents[1] + a) * extents[2] + block;
                            assert!(!std::mem::replace(&mut seen[at], true), "{extents:?} {most}: twice");
                        }
                    }
                }
            }
            assert!(seen.iter().all(|&seen| seen), "{extents:?} {most}");
            assert!(most < seen.len() || all.len() == 1);
        }
    }
}

/// A long sequence is several dispatches, none of which has more than the bound, and its bits are those of one.
#[test]
fn a_long_sequence_is_cut() {
    if rig().is_none() {
        return;
    }
    // Nobody else launches on a device of its own.
    let rig = &WgpuBackend::new(&Choice::Any { name: None }, TIMEOUT).unwrap();
    let [b, s, a, d] = [2, 200, 2, 8];
    let input = random(b * s * a * 3 * d, 3);
    for subgroups in [false, rig.subgroups] {
        let run = |most_products| {
            let backend = &with(rig, subgroups, most_products);
            let qkv = floats(backend, &input, 0, [b, s, a, 3, d]);
            let (out, lse) = (empty(backend, 0, [b, s, a, d]), empty(backend, 0, [b, a, s]));
            let space = workspace(backend, backend.workspace(Scratch::Attention { b, s, a, d }));
            let args = Attention {
                qkv: qkv.view(),
                out: out.view(),
                lse: lse.view(),
                scale: 0.3,
                dropout: None,
                workspace: space.view(),
            };
            let before = backend.launched();
            backend.attention(args).unwrap();
            (get(backend, &out), get(backend, &lse), backend.launched() - before)
        };
        // Of 32 queries, each by every key: the rows of a block in the tiles' kernels and, of heads as small as these, in the subgroups'.
        let block = (2 * 32 * s * d) as u64;
        let (whole, cut) = (run(MOST_PRODUCTS), run(3 * block));
        assert_eq!((whole.0, whole.1), (cut.0, cut.1));
        assert_eq!((whole.2, cut.2), (1, 12));
    }
}

fn cases(backend: &WgpuBackend) {
    for (dims, offset) in [
        ([1, 1, 1, 1], 0),
        ([2, 7, 3, 5], 1),
        ([1, 65, 2, 32], 4),
        ([2, 34, 1, 8], 2),
        ([1, 40, 1, 160], 0),
        ([1, 70, 1, 64], 0),
    ] {
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
