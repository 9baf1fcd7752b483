//! Causal attention, forward and backward, against a plain loop in f64.

mod common;

use backend::Backend;
use backend::ops::{Attention, AttentionBackward, AttentionDropout, Scratch};
use backend::philox::{Stream, drop_below};
use common::{Rig, check, numbers, wide};

/// `out`, `lse`, `dqkv`.
fn reference(
    qkv: &[f64],
    dout: &[f64],
    [b, s, a, d]: [usize; 4],
    scale: f64,
    dropout: Option<&AttentionDropout>,
) -> Vec<Vec<f64>> {
    let (mut out, mut lse, mut dqkv) = (vec![0.0; b * s * a * d], vec![0.0; b * a * s], vec![0.0; qkv.len()]);
    for (b, a_index) in (0..b).flat_map(|b| (0..a).map(move |a| (b, a))) {
        let at = |t: usize, which: usize| (((b * s + t) * a + a_index) * 3 + which) * d;
        let out_at = |t: usize| ((b * s + t) * a + a_index) * d;
        let dot = |x: &[f64], i: usize, y: &[f64], j: usize| (0..d).map(|c| x[i + c] * y[j + c]).sum::<f64>();
        for q in 0..s {
            let scores: Vec<f64> = (0..=q).map(|k| scale * dot(qkv, at(q, 0), qkv, at(k, 1))).collect();
            let max = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
            let sum: f64 = scores.iter().map(|x| (x - max).exp()).sum();
            lse[(b * a + a_index) * s + q] = max + sum.ln();
            let kept = |k: usize| {
                dropout.map_or(1.0, |dropout| {
                    let word = dropout.stream.word(dropout.row(b, a_index, q, s) + k as u64);
                    if word >= drop_below(dropout.p) { f64::from(dropout.scale()) } else { 0.0 }
                })
            };
            let p: Vec<f64> = scores.iter().map(|x| (x - max).exp() / sum).collect();
            let mut total = 0.0;
            for k in 0..=q {
                let dp = kept(k) * dot(dout, out_at(q), qkv, at(k, 2));
                total += p[k] * dp;
                for c in 0..d {
                    out[out_at(q) + c] += p[k] * kept(k) * qkv[at(k, 2) + c];
                    dqkv[at(k, 2) + c] += p[k] * kept(k) * dout[out_at(q) + c];
                }
            }
            for k in 0..=q {
                let dp = kept(k) * dot(dout, out_at(q), qkv, at(k, 2));
                let ds = p[k] * (dp - total) * scale;
                for c in 0..d {
                    dqkv[at(q, 0) + c] += ds * qkv[at(k, 1) + c];
                    dqkv[at(k, 1) + c] += ds * qkv[at(q, 0) + c];
                }
            }
        }
    }
    vec![out, lse, dqkv]
}

#[test]
fn forward_and_backward() {
    let shapes = [
        [1, 1, 1, 1],
        [2, 3, 1, 5],
        [1, 6, 2, 32],
        [2, 31, 3, 7],
        [1, 47, 1, 64],
        [1, 48, 2, 33],
        [1, 49, 1, 16],
        [2, 130, 2, 32],
        [1, 257, 1, 40],
    ];
    for shape @ [b, s, a, d] in shapes {
        let dropouts = [0.0, 0.25].map(|p| AttentionDropout {
            p,
            stream: Stream { seed: 3, stream: 8 },
            first_sample: 5,
            first_head: 2,
            heads: 9,
        });
        for dropout in [None, Some(dropouts[0]), Some(dropouts[1])] {
            let scale = 2.0 / (d as f32).sqrt();
            let (qkv, dout) = (numbers(1, b * s * a * 3 * d), numbers(2, b * s * a * d));
            let run = |rig: &Rig| {
                let (qkv, out) = (rig.put(&[b, s, a, 3, d], &qkv), rig.nan(&[b, s, a, d]));
                let (lse, dout) = (rig.nan(&[b, a, s]), rig.put(&[b, s, a, d], &dout));
                let dqkv = rig.nan(&[b, s, a, 3, d]);
                let workspace = rig.scratch(Scratch::Attention { b, s, a, d });
                let forward = Attention {
                    qkv: qkv.view(),
                    out: out.view(),
                    lse: lse.view(),
                    scale,
                    dropout,
                    workspace: workspace.view(),
                };
                rig.cpu.attention(forward).unwrap();
                let workspace = rig.scratch(Scratch::AttentionBackward { b, s, a, d });
                let backward = AttentionBackward {
                    qkv: qkv.view(),
                    out: out.view(),
                    lse: lse.view(),
                    dout: dout.view(),
                    dqkv: dqkv.view(),
                    scale,
                    dropout,
                    workspace: workspace.view(),
                };
                rig.cpu.attention_backward(backward).unwrap();
                vec![rig.get(&out), rig.get(&lse), rig.get(&dqkv)]
            };
            let expected = reference(&wide(&qkv), &wide(&dout), shape, f64::from(scale), dropout.as_ref());
            check(&format!("attention {shape:?} {dropout:?}"), 1e-5, run, &expected);
        }
    }
}

#[test]
fn the_future_is_not_read() {
    // NaN in the last token reaches the last row alone, and the gradients of the others not at all.
    let [s, d] = [50, 32];
    let mut qkv = numbers(1, s * 3 * d);
    qkv[(s - 1) * 3 * d..].fill(f32::NAN);
    let rig = Rig::new(1);
    let (qkv, out, lse) = (rig.put(&[1, s, 1, 3, d], &qkv), rig.nan(&[1, s, 1, d]), rig.nan(&[1, 1, s]));
    let workspace = rig.scratch(Scratch::Attention { b: 1, s, a: 1, d });
    let args = Attention {
        qkv: qkv.view(),
        out: out.view(),
        lse: lse.view(),
        scale: 0.2,
        dropout: None,
        workspace: workspace.view(),
    };
    rig.cpu.attention(args).unwrap();
    let nan: Vec<bool> = rig.get(&out).chunks(d).map(|row| row.iter().any(|x| x.is_nan())).collect();
    assert_eq!(nan, (0..s).map(|q| q == s - 1).collect::<Vec<_>>());
}
