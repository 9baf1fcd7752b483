use backend::ops::{
    CrossEntropyBackward, CrossEntropyLoss, CrossEntropyMax, CrossEntropySums, Embedding, EmbeddingBackward,
    Scratch,
};
use backend::philox::Stream;
use backend::{Backend, DType};

use super::{close, empty, floats, get, place, random, rig, twice, workspace};

/// Tokens below `n`, the low ones often.
fn tokens(t: usize, n: u32) -> Vec<u32> {
    let stream = Stream { seed: 1, stream: 5 };
    (0..t as u64).map(|i| (stream.uniform(i).powi(3) * n as f32) as u32 % n).collect()
}

#[test]
fn embedding_and_its_gradient() {
    let Some(backend) = rig() else { return };
    for (t, v, h, first_row, offset) in
        [(1, 1, 1, 0, 0), (50, 10, 8, 5, 4), (333, 70, 31, 20, 1), (200, 300, 132, 0, 0)]
    {
        let ids = tokens(t, 100);
        let (rows, up, before) = (random(v * h, 2), random(t * h, 3), random(v * h, 4));
        let got = twice(|| {
            let ids = place(backend, DType::U32, &ids, offset, [t]);
            let table = floats(backend, &rows, offset, [v, h]);
            let y = empty(backend, offset, [t, h]);
            backend
                .embedding(Embedding { tokens: ids.view(), table: table.view(), first_row, y: y.view() })
                .unwrap();
            let dy = floats(backend, &up, offset, [t, h]);
            let dtable = floats(backend, &before, offset, [v, h]);
            let space = workspace(backend, backend.workspace(Scratch::EmbeddingBackward { t, v, h }));
            let args = EmbeddingBackward {
                tokens: ids.view(),
                dy: dy.view(),
                first_row,
                dtable: dtable.view(),
                workspace: space.view(),
            };
            backend.embedding_backward(args).unwrap();
            vec![get(backend, &y), get(backend, &dtable)]
        });
        let mut y = vec![0.0; t * h];
        let mut dtable: Vec<_> = before.iter().map(|&x| f64::from(x)).collect();
        for (place, &id) in ids.iter().enumerate() {
            let Some(row) = (id as usize).checked_sub(first_row).filter(|&row| row < v) else { continue };
            for i in 0..h {
                y[place * h + i] = rows[row * h + i];
                dtable[row * h + i] += f64::from(up[place * h + i]);
            }
        }
        assert_eq!(got[0], y);
        close("dtable", &got[1], &dtable, 1e-5);
    }
}

#[test]
fn cross_entropy_in_two_parts() {
    let Some(backend) = rig() else { return };
    for (t, v, offset) in [(1, 2, 0), (9, 24, 4), (33, 514, 3), (5, 4096, 0)] {
        let ids = tokens(t, v as u32);
        let logits: Vec<_> = random(t * v, 5).iter().map(|x| 20.0 * x).collect();
        let targets = place(backend, DType::U32, &ids, offset, [t]);
        let half = v / 2;
        // Two ranks' columns, and what they would reduce.
        let part = |side: usize| -> Vec<f32> {
            (0..t).flat_map(|r| logits[r * v + side * half..][..half].to_vec()).collect()
        };
        let [left, right] = [0, 1].map(|side| floats(backend, &part(side), offset, [t, half]));
        let [max0, max1] = [&left, &right].map(|logits| {
            let max = empty(backend, 1, [t]);
            backend.cross_entropy_max(CrossEntropyMax { logits: logits.view(), max: max.view() }).unwrap();
            get(backend, &max)
        });
        let highest: Vec<_> = max0.iter().zip(&max1).map(|(a, b)| a.max(*b)).collect();
        let max = floats(backend, &highest, 1, [t]);
        let mut sums = vec![vec![0.0; t]; 2];
        for (side, logits) in [&left, &right].into_iter().enumerate() {
            // One buffer for both outputs.
            let both = empty(backend, offset, [2, t]);
            let row = |i| both.view().rows(i, 1).unwrap().reshape([t]).unwrap();
            let args = CrossEntropySums {
                logits: logits.view(),
                targets: targets.view(),
                first_column: side * half,
                max: max.view(),
                sum_exp: row(0),
                target: row(1),
            };
            backend.cross_entropy_sums(args).unwrap();
            for (i, x) in get(backend, &both).iter().enumerate() {
                sums[i / t][i % t] += x;
            }
        }
        let (sum_exp, target) = (floats(backend, &sums[0], 1, [t]), floats(backend, &sums[1], 1, [t]));
        let loss = empty(backend, 0, [t]);
        let args = CrossEntropyLoss { sum_exp: sum_exp.view(), target: target.view(), loss: loss.view() };
        backend.cross_entropy_loss(args).unwrap();
        let (mut expected, mut gradient) = (vec![], vec![]);
        for r in 0..t {
            let row: Vec<_> = logits[r * v..][..v].iter().map(|&x| f64::from(x)).collect();
            let m = row.iter().copied().fold(f64::MIN, f64::max);
            let total: f64 = row.iter().map(|x| (x - m).exp()).sum();
            expected.push(m + total.ln() - row[ids[r] as usize]);
            for j in half..2 * half {
                gradient
                    .push(0.125 * ((row[j] - m).exp() / total - f64::from(u8::from(ids[r] as usize == j))));
            }
        }
        close("loss", &get(backend, &loss), &expected, 1e-5);
        let args = CrossEntropyBackward {
            logits: right.view(),
            targets: targets.view(),
            first_column: half,
            max: max.view(),
            sum_exp: sum_exp.view(),
            scale: 0.125,
            dlogits: right.view(),
        };
        backend.cross_entropy_backward(args).unwrap();
        close("dlogits", &get(backend, &right), &gradient, 1e-6);
    }
}

#[test]
fn a_maximum_keeps_nan() {
    let Some(backend) = rig() else { return };
    for v in [5, 64, 1000] {
        let mut logits = random(3 * v, 6);
        logits[v + 3] = f32::NAN;
        let (x, max) = (floats(backend, &logits, 0, [3, v]), empty(backend, 0, [3]));
        backend.cross_entropy_max(CrossEntropyMax { logits: x.view(), max: max.view() }).unwrap();
        let got = get(backend, &max);
        assert!(got[1].is_nan() && !got[0].is_nan() && !got[2].is_nan(), "{got:?}");
    }
}
