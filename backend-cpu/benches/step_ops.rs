//! The operations of one training step of preset `laptop` (batch 8), in their order, without the model: milliseconds by kind.
//!
//! `cargo bench -p backend-cpu --bench step_ops -- [threads] [steps]`

mod common;

use std::collections::BTreeMap;
use std::time::Instant;

use backend::ops::{
    AdamW, Add, Attention, AttentionBackward, BiasAdd, BiasBackward, BiasDropoutResidual, BlockSquares,
    CrossEntropyBackward, CrossEntropyLoss, CrossEntropyMax, CrossEntropySums, DropoutMask, Embedding,
    EmbeddingBackward, GeluBackward, LayerNorm, LayerNormBackward, Matmul, MatmulBias, MatmulBiasGelu,
    Scratch, Sum,
};
use backend::philox::Stream;
use backend::{Backend, Result, Tensor};
use backend_cpu::{CpuBackend, CpuBuffer};
use common::{A, B, D, H, Rig, S, T, V};

type Memory = Tensor<CpuBuffer>;

const LAYERS: usize = 4;

/// Elements of a block of the gradient norm.
const BLOCK: usize = 65_536;

/// A linear layer's tensors.
struct Linear {
    w: Memory,
    bias: Memory,
    dw: Memory,
    dbias: Memory,
}

/// Time by kind of operation.
#[derive(Default)]
struct Clock(BTreeMap<&'static str, f64>);

impl Clock {
    fn time(&mut self, kind: &'static str, work: impl FnOnce() -> Result<()>) {
        let start = Instant::now();
        work().expect("the arguments fit");
        *self.0.entry(kind).or_default() += start.elapsed().as_secs_f64() * 1e3;
    }
}

fn main() {
    let mut numbers = std::env::args().filter_map(|arg| arg.parse().ok());
    let threads =
        numbers.next().unwrap_or_else(|| std::thread::available_parallelism().map_or(1, usize::from));
    let steps = numbers.next().unwrap_or(10);
    let rig = Rig { cpu: CpuBackend::new(threads) };
    let mut steps: Vec<(f64, Clock)> = {
        let mut step = step(&rig);
        step();
        (0..steps)
            .map(|_| {
                let start = Instant::now();
                let clock = step();
                (start.elapsed().as_secs_f64() * 1e3, clock)
            })
            .collect()
    };
    steps.sort_by(|a, b| a.0.total_cmp(&b.0));
    let (fastest, _) = steps[0];
    let (median, clock) = &steps[steps.len() / 2];
    println!(
        "{threads} thread(s): {median:.1} ms a step (fastest {fastest:.1}), {:.0} tokens/s",
        T as f64 / median * 1e3
    );
    for (kind, ms) in &clock.0 {
        println!("{kind:28} {ms:8.2} ms");
    }
}

/// Everything a step touches, and the step.
fn step(rig: &Rig) -> impl FnMut() -> Clock {
    let f = |extents: &[usize]| rig.floats(extents);
    let linear = |n: usize, k: usize| Linear { w: f(&[n, k]), bias: f(&[n]), dw: f(&[n, k]), dbias: f(&[n]) };
    let layers: Vec<_> = (0..LAYERS)
        .map(|_| {
            let linears = [linear(3 * H, H), linear(H, H), linear(4 * H, H), linear(H, 4 * H)];
            let norms = [(); 2].map(|()| [f(&[H]), f(&[H]), f(&[H]), f(&[H]), f(&[T]), f(&[T])]);
            let kept = [
                f(&[T, H]),
                f(&[B, S, A, 3, D]),
                f(&[B, S, A, D]),
                f(&[B, A, S]),
                f(&[T, H]),
                f(&[T, H]),
                f(&[T, 4 * H]),
                f(&[T, 4 * H]),
                f(&[T, H]),
            ];
            (linears, norms, kept)
        })
        .collect();
    let (table, dtable, positions) = (f(&[V, H]), f(&[V, H]), f(&[S * H]));
    let (tokens, targets) = (rig.tokens(T), rig.tokens(T));
    let (x, branch, final_norm, dx, dbranch) = (f(&[T, H]), f(&[T, H]), f(&[T, H]), f(&[T, H]), f(&[T, H]));
    let (dwide, dqkv, dattention) = (f(&[T, 4 * H]), f(&[B, S, A, 3, D]), f(&[B, S, A, D]));
    let logits = f(&[T, V]);
    let [max, sum_exp, target, loss, mean, rstd] = [(); 6].map(|()| f(&[T]));
    let norm = [f(&[H]), f(&[H]), f(&[H]), f(&[H])];
    let n = 12 * H * H * LAYERS + 13 * H * LAYERS + (V + S + 2) * H;
    let [param, grad, m, v] = [(); 4].map(|()| f(&[n]));
    rig.cpu.fill(v.view(), 0.1).expect("f32");
    let (scalar, norms) = (f(&[1]), f(&[n.div_ceil(BLOCK)]));
    let biggest = [
        Scratch::LayerNormBackward { t: T, h: H },
        Scratch::BiasBackward { t: T, n: 4 * H },
        Scratch::Attention { b: B, s: S, a: A, d: D },
        Scratch::AttentionBackward { b: B, s: S, a: A, d: D },
        Scratch::Sum { n },
    ];
    let workspace = biggest.map(|s| rig.cpu.workspace(s)).into_iter().max().unwrap_or(0);
    let workspace = f(&[workspace]);
    let cpu = std::sync::Arc::clone(&rig.cpu);
    let rows = |x: &Memory, n: usize| {
        Tensor::new(x.view().buffer().clone(), x.dtype(), 0, [x.len() / n, n]).expect("fits")
    };
    let mask = |_: usize| None::<DropoutMask>;
    let _ = Stream { seed: 0, stream: 0 };
    move || {
        let mut clock = Clock::default();
        let cpu = &*cpu;
        let w = workspace.view();
        clock.time("embedding", || {
            cpu.embedding(Embedding {
                tokens: tokens.view(),
                table: table.view(),
                first_row: 0,
                y: x.view(),
            })?;
            cpu.bias_add(BiasAdd { x: x.view().reshape([B, S * H])?, bias: positions.view() })
        });
        let normalise = |clock: &mut Clock, x: &Memory, y: &Memory, n: &[Memory], stats: [&Memory; 2]| {
            clock.time("layernorm", || {
                let [mean, rstd] = stats.map(|x| x.view());
                cpu.layernorm(LayerNorm {
                    x: x.view(),
                    gamma: n[0].view(),
                    beta: n[1].view(),
                    eps: 1e-5,
                    y: y.view(),
                    mean,
                    rstd,
                })
            });
        };
        let finish = |clock: &mut Clock, bias: &Memory, residual: &Memory, y: &Memory| {
            clock.time("bias_dropout_residual", || {
                let (x, bias, residual) = (branch.view(), bias.view(), residual.view());
                cpu.bias_dropout_residual(BiasDropoutResidual {
                    x,
                    bias,
                    residual,
                    y: y.view(),
                    mask: mask(0),
                })
            });
        };
        let mut input = &x;
        for (linears, norms, kept) in &layers {
            let [qkv_w, out_w, up, down] = linears;
            let [normal1, qkv, attended, lse, middle, normal2, pre, active, output] = kept;
            normalise(&mut clock, input, normal1, &norms[0], [&norms[0][4], &norms[0][5]]);
            clock.time("matmul forward", || {
                let y = rows(qkv, 3 * H);
                cpu.matmul_bias(MatmulBias {
                    x: normal1.view(),
                    w: qkv_w.w.view(),
                    bias: qkv_w.bias.view(),
                    y: y.view(),
                })
            });
            clock.time("attention", || {
                let (qkv, out, lse) = (qkv.view(), attended.view(), lse.view());
                cpu.attention(Attention { qkv, out, lse, scale: 0.17, dropout: None, workspace: w })
            });
            clock.time("matmul forward", || cpu.matmul(product(&rows(attended, H), &out_w.w, &branch)));
            finish(&mut clock, &out_w.bias, input, middle);
            normalise(&mut clock, middle, normal2, &norms[1], [&norms[1][4], &norms[1][5]]);
            clock.time("matmul_bias_gelu forward", || {
                let (pre, y) = (pre.view(), active.view());
                cpu.matmul_bias_gelu(MatmulBiasGelu {
                    x: normal2.view(),
                    w: up.w.view(),
                    bias: up.bias.view(),
                    pre,
                    y,
                })
            });
            clock.time("matmul forward", || cpu.matmul(product(active, &down.w, &branch)));
            finish(&mut clock, &down.bias, middle, output);
            input = output;
        }
        normalise(&mut clock, input, &final_norm, &norm, [&mean, &rstd]);
        clock.time("matmul logits", || cpu.matmul(product(&final_norm, &table, &logits)));
        let (ce_logits, targets) = (logits.view(), targets.view());
        let (max, sum_exp, target) = (max.view(), sum_exp.view(), target.view());
        clock.time("cross_entropy max", || cpu.cross_entropy_max(CrossEntropyMax { logits: ce_logits, max }));
        clock.time("cross_entropy sums", || {
            cpu.cross_entropy_sums(CrossEntropySums {
                logits: ce_logits,
                targets,
                first_column: 0,
                max,
                sum_exp,
                target,
            })
        });
        clock.time("cross_entropy loss", || {
            cpu.cross_entropy_loss(CrossEntropyLoss { sum_exp, target, loss: loss.view() })?;
            cpu.sum(Sum { x: loss.view(), out: scalar.view(), alpha: 1.0, beta: 0.0, workspace: w })
        });
        clock.time("cross_entropy backward", || {
            let (logits, dlogits) = (ce_logits, ce_logits);
            cpu.cross_entropy_backward(CrossEntropyBackward {
                logits,
                targets,
                first_column: 0,
                max,
                sum_exp,
                scale: 1e-3,
                dlogits,
            })
        });
        clock.time("matmul logits backward", || {
            cpu.matmul(Matmul {
                a: logits.view(),
                b: table.view(),
                c: dbranch.view(),
                trans_a: false,
                trans_b: false,
                alpha: 1.0,
                beta: 0.0,
            })?;
            cpu.matmul(weight_gradient(&logits, &final_norm, &dtable))
        });
        let unnormalise = |clock: &mut Clock,
                           x: &Memory,
                           dy: &Memory,
                           accumulate: bool,
                           n: &[Memory],
                           stats: [&Memory; 2]| {
            clock.time("layernorm backward", || {
                let [mean, rstd] = stats.map(|x| x.view());
                cpu.layernorm_backward(LayerNormBackward {
                    x: x.view(),
                    gamma: n[0].view(),
                    mean,
                    rstd,
                    dy: dy.view(),
                    dx: dx.view(),
                    accumulate,
                    dgamma: n[2].view(),
                    dbeta: n[3].view(),
                    workspace: w,
                })
            });
        };
        let backward = |clock: &mut Clock, layer: &Linear, x: &Memory, dy: &Memory, dx: &Memory| {
            clock.time("bias_backward", || {
                cpu.bias_backward(BiasBackward { dy: dy.view(), dbias: layer.dbias.view(), workspace: w })
            });
            clock.time("matmul weight gradient", || cpu.matmul(weight_gradient(dy, x, &layer.dw)));
            clock.time("matmul input gradient", || {
                cpu.matmul(Matmul {
                    a: dy.view(),
                    b: layer.w.view(),
                    c: dx.view(),
                    trans_a: false,
                    trans_b: false,
                    alpha: 1.0,
                    beta: 0.0,
                })
            });
        };
        unnormalise(&mut clock, input, &dbranch, false, &norm, [&mean, &rstd]);
        for i in (0..LAYERS).rev() {
            let (linears, norms, kept) = &layers[i];
            let input = if i == 0 { &x } else { &layers[i - 1].2[8] };
            let [qkv_w, out_w, up, down] = linears;
            let [normal1, qkv, attended, lse, middle, normal2, pre, active, _] = kept;
            backward(&mut clock, down, active, &dx, &dwide);
            clock.time("gelu backward", || {
                cpu.gelu_backward(GeluBackward { x: pre.view(), dy: dwide.view(), dx: dwide.view() })
            });
            backward(&mut clock, up, normal2, &dwide, &dbranch);
            unnormalise(&mut clock, middle, &dbranch, true, &norms[1], [&norms[1][4], &norms[1][5]]);
            backward(&mut clock, out_w, &rows(attended, H), &dx, &rows(&dattention, H));
            clock.time("attention backward", || {
                cpu.attention_backward(AttentionBackward {
                    qkv: qkv.view(),
                    out: attended.view(),
                    lse: lse.view(),
                    dout: dattention.view(),
                    dqkv: dqkv.view(),
                    scale: 0.17,
                    dropout: None,
                    workspace: w,
                })
            });
            backward(&mut clock, qkv_w, normal1, &rows(&dqkv, 3 * H), &dbranch);
            unnormalise(&mut clock, input, &dbranch, true, &norms[0], [&norms[0][4], &norms[0][5]]);
        }
        clock.time("embedding backward", || {
            cpu.embedding_backward(EmbeddingBackward {
                tokens: tokens.view(),
                dy: dx.view(),
                first_row: 0,
                dtable: dtable.view(),
                workspace: w,
            })?;
            cpu.bias_backward(BiasBackward {
                dy: dx.view().reshape([B, S * H])?,
                dbias: positions.view(),
                workspace: w,
            })
        });
        clock.time("optimizer", || {
            cpu.block_squares(BlockSquares { x: grad.view(), out: norms.view(), block: BLOCK })?;
            let (param, grad, m, v) = (param.view(), grad.view(), m.view(), v.view());
            cpu.adamw(AdamW {
                param,
                grad,
                m,
                v,
                lr: 1e-3,
                beta1: 0.9,
                beta2: 0.95,
                eps: 1e-8,
                weight_decay: 0.1,
                grad_scale: 1.0,
                step: 5,
            })?;
            cpu.fill(grad, 1e-3)?;
            cpu.scale(scalar.view(), 1.0)?;
            cpu.add(Add { x: norm[2].view(), y: norm[3].view(), alpha: 0.0 })
        });
        clock
    }
}

/// `y = x w^T`.
fn product<'a>(x: &'a Memory, w: &'a Memory, y: &'a Memory) -> Matmul<'a, CpuBuffer> {
    Matmul { a: x.view(), b: w.view(), c: y.view(), trans_a: false, trans_b: true, alpha: 1.0, beta: 0.0 }
}

/// `dw += dy^T x`.
fn weight_gradient<'a>(dy: &'a Memory, x: &'a Memory, dw: &'a Memory) -> Matmul<'a, CpuBuffer> {
    Matmul { a: dy.view(), b: x.view(), c: dw.view(), trans_a: true, trans_b: false, alpha: 1.0, beta: 1.0 }
}
