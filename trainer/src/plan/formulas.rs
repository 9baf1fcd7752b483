//! What the papers say that a run costs: formulas of sizes alone, which know neither model nor engine.
//!
//! NAR is Narayanan et al., arXiv 2104.04473; KOR is Korthikanti et al., arXiv 2205.05198. Letters as there: `s` sequence, `b` microbatch, `h` hidden,
//! `a` heads, `L` layers, `V` vocabulary, `B` global batch, `t` tensor ranks, `p` stages, `m` microbatches, `v` model chunks a stage.

use model::Recompute;

use crate::schedule::Schedule;

/// A transformer's sizes.
#[derive(Clone, Copy, Debug)]
pub struct Sizes {
    /// Layers, L.
    pub layers: f64,
    /// Hidden size, h; the FFN has 4h.
    pub hidden: f64,
    /// Heads, a.
    pub heads: f64,
    /// Tokens of a sequence, s.
    pub seq: f64,
    /// Vocabulary, V.
    pub vocab: f64,
}

/// Bytes of one layer's activations of a microbatch of `b` sequences on one of `t` tensor ranks, at two bytes an element and one a dropout mask's (KOR,
/// table 2). There the scores `[a, s, s]` are kept, three times: 5 a s^2 b, which selective recomputation saves.
pub fn activation_bytes(sizes: &Sizes, b: f64, t: f64, sequence_parallel: bool, recompute: Recompute) -> f64 {
    let Sizes { hidden: h, heads: a, seq: s, .. } = *sizes;
    let sbh = s * b * h;
    let scores = match recompute {
        Recompute::None => 5.0 * a * s / h,
        Recompute::Selective => 0.0,
        Recompute::Full => return 2.0 * sbh,
    };
    match sequence_parallel {
        true => sbh / t * (34.0 + scores),
        false => sbh * (10.0 + (24.0 + scores) / t),
    }
}

/// The same for this project's layers, of activations of `element` bytes. Against the published formula:
///
/// * no dropout masks: they are drawn again from the seed, `2 s b h` bytes less;
/// * no scores in any mode: the attention keeps the log-sum-exp of each row, `4 a s b` bytes, instead of `5 a s^2 b`;
/// * selective computes the core's output again too, which there is kept: two bytes an element less;
/// * mean and deviation of both LayerNorms, 16 bytes a token, which are left out there.
pub fn kept_bytes(
    sizes: &Sizes,
    b: f64,
    t: f64,
    sequence_parallel: bool,
    recompute: Recompute,
    element: f64,
) -> f64 {
    let Sizes { hidden: h, heads: a, seq: s, .. } = *sizes;
    let own = if sequence_parallel { t } else { 1.0 };
    // Input, the stream between the branches, and both LayerNorms' outputs; queries, keys, values, the core's output, and both sides of the GELU.
    let (whole, cut, rows) = match recompute {
        Recompute::None => (4.0, 12.0, 4.0 * a * s * b / t),
        Recompute::Selective => (4.0, 11.0, 0.0),
        Recompute::Full => return s * b * h * element / own,
    };
    s * b * h * element * (whole / own + cut / t) + 16.0 * s * b / own + rows
}

/// Model FLOPs of a step of `batch` sequences: forward and backward, nothing computed twice (NAR, section 5.1, without recomputation):
/// `72 B s L h^2 (1 + s/(6h) + V/(12 L h))`.
pub fn model_flops(sizes: &Sizes, batch: f64) -> f64 {
    let Sizes { layers: l, hidden: h, seq: s, vocab: v, .. } = *sizes;
    72.0 * batch * s * l * h * h * (1.0 + s / (6.0 * h) + v / (12.0 * l * h))
}

/// FLOPs that a step of `batch` sequences executes. With full recomputation `96 B s L h^2 (1 + s/(6h) + V/(16 L h))` (NAR, equation 3); selective computes
/// the two products of the attention's core a second time, `4 B s^2 h` a layer.
pub fn hardware_flops(sizes: &Sizes, batch: f64, recompute: Recompute) -> f64 {
    let Sizes { layers: l, hidden: h, seq: s, vocab: v, .. } = *sizes;
    match recompute {
        Recompute::None => model_flops(sizes, batch),
        Recompute::Selective => model_flops(sizes, batch) + 4.0 * batch * s * s * h * l,
        Recompute::Full => 96.0 * batch * s * l * h * h * (1.0 + s / (6.0 * h) + v / (16.0 * l * h)),
    }
}

/// Time that a stage waits in a step, over the time that it works: `(p - 1)/m`, with `v` chunks `(p - 1)/(v m)` (NAR, section 2.2); ZB-H1 fills two thirds of
/// it where forward and both halves of the backward take as long as each other (Qi et al., arXiv 2401.10241).
pub fn bubble(schedule: Schedule, p: usize, m: usize, v: usize) -> f64 {
    let plain = (p - 1) as f64 / m as f64;
    match schedule {
        Schedule::GPipe | Schedule::OneFOneB => plain,
        Schedule::Interleaved => plain / v as f64,
        Schedule::ZbH1 => plain / 3.0,
    }
}

/// Elements that a rank sends to the next stage for a microbatch: `b s h`, or its part of them (NAR, section 4.1).
pub fn pipeline_elements(sizes: &Sizes, b: f64, t: f64, scattered: bool) -> f64 {
    b * sizes.seq * sizes.hidden / if scattered { t } else { 1.0 }
}

/// Elements that a rank exchanges within its tensor group for a layer and microbatch: `8 b s h (t - 1)/t` (NAR, section 3.2).
pub fn tensor_elements(sizes: &Sizes, b: f64, t: f64) -> f64 {
    8.0 * b * sizes.seq * sizes.hidden * (t - 1.0) / t
}

#[cfg(test)]
mod tests {
    use super::*;

    const MT_NLG: Sizes =
        Sizes { layers: 105.0, hidden: 20_480.0, heads: 128.0, seq: 2048.0, vocab: 51_200.0 };
    const GPT3: Sizes = Sizes { layers: 96.0, hidden: 12_288.0, heads: 96.0, seq: 2048.0, vocab: 51_200.0 };

    /// Relative distance.
    fn off(value: f64, published: f64) -> f64 {
        (value / published - 1.0).abs()
    }

    /// KOR, section 5: scores are 80 of GPT-3's and 64 of MT-NLG's s b h a layer, beside 34: 70% and 65%.
    #[test]
    fn selective_recomputation_saves_what_the_paper_says() {
        for (sizes, scores, saved) in [(GPT3, 80.0, 0.70), (MT_NLG, 64.0, 0.65)] {
            let bytes = |recompute| activation_bytes(&sizes, 1.0, 1.0, false, recompute);
            let sbh = sizes.seq * sizes.hidden;
            assert_eq!(bytes(Recompute::None) / sbh, 34.0 + scores);
            let share = 1.0 - bytes(Recompute::Selective) / bytes(Recompute::None);
            assert!((share - saved).abs() < 0.005, "{share}");
        }
    }

    #[test]
    fn the_rows_of_the_table() {
        let sbh = MT_NLG.seq * MT_NLG.hidden;
        let bytes = |t, sp, recompute| activation_bytes(&MT_NLG, 1.0, t, sp, recompute) / sbh;
        assert_eq!(bytes(8.0, false, Recompute::None), 10.0 + 24.0 / 8.0 + 64.0 / 8.0);
        assert_eq!(bytes(8.0, true, Recompute::None), (34.0 + 64.0) / 8.0);
        assert_eq!(bytes(8.0, false, Recompute::Selective), 13.0);
        assert_eq!(bytes(8.0, true, Recompute::Selective), 4.25);
        assert_eq!(bytes(8.0, true, Recompute::Full), 2.0);
    }

    /// MT-NLG's three rows: 60.1, 50.2, 44.4 s a step on 8, 10, 12 replicas of 280 A100 are 126, 121, 113 TFLOP/s a GPU.
    #[test]
    fn published_throughput() {
        let flops = hardware_flops(&MT_NLG, 1920.0, Recompute::Full);
        for (replicas, seconds, teraflops) in [(8.0, 60.1, 126.0), (10.0, 50.2, 121.0), (12.0, 44.4, 113.0)] {
            assert!(off(flops / seconds / (replicas * 280.0) / 1e12, teraflops) < 0.006);
        }
        // KOR at 530B, 280 GPUs, batch 280: 37.83 s with selective recomputation are 56.0% of 312 TFLOP/s.
        let share = model_flops(&MT_NLG, 280.0) / 37.83 / 280.0 / 312e12;
        assert!((share - 0.56).abs() < 0.001, "{share}");
        // 27 to 30% MFU of MT-NLG's own runs.
        let share = model_flops(&MT_NLG, 1920.0) / 60.1 / 2240.0 / 312e12;
        assert!((0.27..0.31).contains(&share), "{share}");
    }

    #[test]
    fn recomputation_is_a_third_more() {
        let layers = Sizes { vocab: 0.0, ..MT_NLG };
        let full = hardware_flops(&layers, 1.0, Recompute::Full) / model_flops(&layers, 1.0);
        assert!(off(full, 4.0 / 3.0) < 1e-12);
        let selective = hardware_flops(&layers, 1.0, Recompute::Selective) / model_flops(&layers, 1.0);
        assert!(selective > 1.0 && selective < 1.01, "{selective}");
    }

    #[test]
    fn bubbles_and_traffic() {
        assert!(off(bubble(Schedule::OneFOneB, 35, 240, 1), 34.0 / 240.0) < 1e-12);
        assert!(off(bubble(Schedule::Interleaved, 35, 280, 3), 34.0 / 840.0) < 1e-12);
        assert_eq!(bubble(Schedule::GPipe, 1, 4, 1), 0.0);
        assert_eq!(bubble(Schedule::ZbH1, 4, 3, 1), 1.0 / 3.0);
        assert_eq!(pipeline_elements(&MT_NLG, 1.0, 8.0, true) * 8.0, 2048.0 * 20_480.0);
        assert_eq!(tensor_elements(&MT_NLG, 1.0, 8.0), 7.0 * 2048.0 * 20_480.0);
        assert_eq!(tensor_elements(&MT_NLG, 1.0, 1.0), 0.0);
    }
}
