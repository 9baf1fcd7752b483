//! Operands of any float type, and the operations as functions of some of their rows: what the tests of narrow types and of cuts have in common.

use std::ops::Range;

use backend::ops::*;
use backend::philox::Stream;
use backend::{Backend, Class, DType, Shape, Tensor, View};
use half::{bf16, f16};

use super::random;
use crate::{WgpuBackend, WgpuBuffer};

/// What surrounds an operand: a value of every float type.
const GUARD: f32 = -768.0;

/// An element's bytes in memory.
pub(super) fn encode(dtype: DType, x: f32) -> Vec<u8> {
    match dtype {
        DType::F32 | DType::U32 => x.to_ne_bytes().to_vec(),
        DType::Bf16 => bf16::from_f32(x).to_ne_bytes().to_vec(),
        DType::F16 => f16::from_f32(x).to_ne_bytes().to_vec(),
    }
}

pub(super) fn decode(dtype: DType, bytes: &[u8]) -> f32 {
    match (dtype, bytes) {
        (DType::Bf16, &[a, b]) => bf16::from_ne_bytes([a, b]).to_f32(),
        (DType::F16, &[a, b]) => f16::from_ne_bytes([a, b]).to_f32(),
        (_, &[a, b, c, d]) => f32::from_ne_bytes([a, b, c, d]),
        _ => panic!("{} bytes of {dtype}", bytes.len()),
    }
}

/// What an operation wrote.
#[derive(Debug)]
pub(super) struct Output {
    pub dtype: DType,
    pub values: Vec<f32>,
}

/// A way to hold operands: values that type `grid` has, in memory as `dtype`, `offset` elements into their buffers, in rows of `n`.
pub(super) struct Kit<'a> {
    pub backend: &'a WgpuBackend,
    pub dtype: DType,
    pub grid: DType,
    pub offset: usize,
    pub n: usize,
}

impl Kit<'_> {
    /// That many numbers in (-scale, scale) which `grid` has.
    fn numbers(&self, n: usize, seed: u64, scale: f32) -> Vec<f32> {
        random(n, seed).iter().map(|x| decode(self.grid, &encode(self.grid, scale * x))).collect()
    }

    pub fn put_as(&self, dtype: DType, data: &[f32], shape: impl Into<Shape>) -> Tensor<WgpuBuffer> {
        let n = self.offset + data.len() + 5;
        let whole = self.backend.alloc(Class::Activations, dtype, Shape::new(&[n])).unwrap();
        let guards = [GUARD; 5];
        let all = [&vec![GUARD; self.offset][..], data, &guards].concat();
        let bytes: Vec<u8> = all.iter().flat_map(|&x| encode(dtype, x)).collect();
        self.backend.write(whole.view(), &bytes).unwrap();
        Tensor::new(whole.view().buffer().clone(), dtype, self.offset, shape).unwrap()
    }

    fn put(&self, data: &[f32], shape: impl Into<Shape>) -> Tensor<WgpuBuffer> {
        self.put_as(self.dtype, data, shape)
    }

    fn put32(&self, data: &[f32], shape: impl Into<Shape>) -> Tensor<WgpuBuffer> {
        self.put_as(DType::F32, data, shape)
    }

    fn ids(&self, ids: &[u32]) -> Tensor<WgpuBuffer> {
        let ids: Vec<f32> = ids.iter().map(|&id| f32::from_bits(id)).collect();
        self.put_as(DType::U32, &ids, [ids.len()])
    }

    /// A tensor that holds NaN, to be overwritten.
    fn out(&self, shape: impl Into<Shape>) -> Tensor<WgpuBuffer> {
        let shape = shape.into();
        self.put(&vec![f32::NAN; shape.len()], shape)
    }

    fn out32(&self, shape: impl Into<Shape>) -> Tensor<WgpuBuffer> {
        let shape = shape.into();
        self.put32(&vec![f32::NAN; shape.len()], shape)
    }

    fn scratch(&self, scratch: Scratch) -> Tensor<WgpuBuffer> {
        self.out32([self.backend.workspace(scratch)])
    }

    /// The tensor's numbers; its guards are still there.
    pub fn get(&self, tensor: &Tensor<WgpuBuffer>) -> Output {
        let view = tensor.view();
        let (dtype, size) = (view.dtype(), view.dtype().size());
        let n = view.offset() + view.len() + 5;
        let whole = View::new(view.buffer(), dtype, 0, [n]).unwrap();
        let mut bytes = vec![0; n * size];
        self.backend.read(whole, &mut bytes).unwrap();
        let all: Vec<f32> = bytes.chunks(size).map(|x| decode(dtype, x)).collect();
        let end = view.offset() + view.len();
        let guards = all[..view.offset()].iter().chain(&all[end..]);
        assert!(guards.into_iter().all(|&x| x == GUARD), "something wrote beside the tensor {view:?}");
        Output { dtype, values: all[view.offset()..end].to_vec() }
    }
}

/// The rows of what has `width` elements a row.
fn cut<'a, T>(data: &'a [T], rows: &Range<usize>, width: usize) -> &'a [T] {
    &data[rows.start * width..rows.end * width]
}

const STREAM: Stream = Stream { seed: 5, stream: 9 };

/// An operation on some of its rows; the outputs of all rows are those of the parts, one after the other.
pub(super) struct Case {
    pub name: &'static str,
    pub rows: usize,
    pub run: fn(&Kit<'_>, Range<usize>) -> Vec<Output>,
}

pub(super) const CASES: &[Case] = &[
    Case { name: "elementwise", rows: 24, run: elementwise },
    Case { name: "gelu", rows: 24, run: gelu },
    Case { name: "dropout", rows: 24, run: dropout },
    Case { name: "bias", rows: 24, run: bias },
    Case { name: "layernorm", rows: 24, run: layernorm },
    Case { name: "cross_entropy", rows: 24, run: cross_entropy },
    Case { name: "embedding", rows: 24, run: embedding },
    Case { name: "adamw", rows: 24, run: adamw },
    Case { name: "reduce", rows: 24, run: reduce },
    Case { name: "matmul by rows", rows: 72, run: matmul_rows },
    Case { name: "matmul by columns", rows: 72, run: matmul_columns },
    Case { name: "linear layer", rows: 72, run: linear },
    Case { name: "attention by sequences", rows: 8, run: attention_sequences },
    Case { name: "attention by heads", rows: 8, run: attention_heads },
];

fn elementwise(kit: &Kit<'_>, rows: Range<usize>) -> Vec<Output> {
    let (t, n) = (rows.len(), kit.n);
    let (a, b) = (kit.numbers(24 * n, 1, 4.0), kit.numbers(24 * n, 2, 4.0));
    let (x, y) = (kit.put(cut(&a, &rows, n), [t, n]), kit.put(cut(&b, &rows, n), [t, n]));
    let (wide, copy) = (kit.out32([t, n]), kit.out([t, n]));
    let backend = kit.backend;
    backend.add(Add { x: x.view(), y: y.view(), alpha: 0.3 }).unwrap();
    backend.copy(x.view(), copy.view()).unwrap();
    backend.scale(x.view(), 1.7).unwrap();
    backend.cast(Cast { src: y.view(), dst: wide.view() }).unwrap();
    // Through what rounds once more: the f32 that both ways have.
    let again = kit.out([t, n]);
    let whole = kit.put32(cut(&random(24 * n, 3), &rows, n), [t, n]);
    backend.cast(Cast { src: whole.view(), dst: again.view() }).unwrap();
    [&x, &y, &copy, &again].map(|tensor| kit.get(tensor)).into()
}

fn gelu(kit: &Kit<'_>, rows: Range<usize>) -> Vec<Output> {
    let (t, n) = (rows.len(), kit.n);
    let (a, b) = (kit.numbers(24 * n, 1, 6.0), kit.numbers(24 * n, 2, 1.0));
    let (x, dy) = (kit.put(cut(&a, &rows, n), [t, n]), kit.put(cut(&b, &rows, n), [t, n]));
    let y = kit.out([t, n]);
    kit.backend.gelu(Gelu { x: x.view(), y: y.view() }).unwrap();
    kit.backend.gelu_backward(GeluBackward { x: x.view(), dy: dy.view(), dx: dy.view() }).unwrap();
    vec![kit.get(&y), kit.get(&dy)]
}

fn dropout(kit: &Kit<'_>, rows: Range<usize>) -> Vec<Output> {
    let (t, n) = (rows.len(), kit.n);
    let [a, b, r] = [1, 2, 3].map(|seed| kit.numbers(24 * n, seed, 2.0));
    let mask = DropoutMask { p: 0.3, stream: STREAM, first: (rows.start * n) as u64 + 3 };
    let x = kit.put(cut(&a, &rows, n), [t, n]);
    kit.backend.dropout(Dropout { x: x.view(), y: x.view(), mask }).unwrap();
    let branch = kit.put(cut(&b, &rows, n), [t, n]);
    let (bias, y) = (kit.put(&b[..n], [n]), kit.put(cut(&r, &rows, n), [t, n]));
    let args = BiasDropoutResidual {
        x: branch.view(),
        bias: bias.view(),
        residual: y.view(),
        y: y.view(),
        mask: Some(mask),
    };
    kit.backend.bias_dropout_residual(args).unwrap();
    vec![kit.get(&x), kit.get(&y)]
}

fn bias(kit: &Kit<'_>, rows: Range<usize>) -> Vec<Output> {
    let (t, n) = (rows.len(), kit.n);
    let (a, b) = (kit.numbers(24 * n, 1, 3.0), kit.numbers(n, 2, 1.0));
    let (x, pre) = (kit.put(cut(&a, &rows, n), [t, n]), kit.put(cut(&a, &rows, n), [t, n]));
    let (bias, y) = (kit.put(&b, [n]), kit.out([t, n]));
    kit.backend.bias_add(BiasAdd { x: x.view(), bias: bias.view() }).unwrap();
    kit.backend.bias_gelu(BiasGelu { x: pre.view(), bias: bias.view(), y: y.view() }).unwrap();
    // The activation is that of what was stored.
    let again = kit.out([t, n]);
    kit.backend.gelu(Gelu { x: pre.view(), y: again.view() }).unwrap();
    assert_eq!(kit.get(&again).values, kit.get(&y).values);
    vec![kit.get(&x), kit.get(&pre)]
}

fn layernorm(kit: &Kit<'_>, rows: Range<usize>) -> Vec<Output> {
    let (t, h) = (rows.len(), kit.n);
    let [a, up, before] = [1, 2, 3].map(|seed| kit.numbers(24 * h, seed, 2.0));
    let (g, b) = (kit.numbers(h, 4, 1.0), kit.numbers(h, 5, 1.0));
    let (x, gamma, beta) = (kit.put(cut(&a, &rows, h), [t, h]), kit.put(&g, [h]), kit.put(&b, [h]));
    let (y, mean, rstd) = (kit.out([t, h]), kit.out32([t]), kit.out32([t]));
    let args = LayerNorm {
        x: x.view(),
        gamma: gamma.view(),
        beta: beta.view(),
        eps: 1e-5,
        y: y.view(),
        mean: mean.view(),
        rstd: rstd.view(),
    };
    kit.backend.layernorm(args).unwrap();
    let (dgamma, dbeta) = (kit.put32(&vec![0.5; h], [h]), kit.put32(&vec![-0.5; h], [h]));
    let space = kit.scratch(Scratch::LayerNormBackward { t, h });
    let dy = kit.put(cut(&up, &rows, h), [t, h]);
    let mut outputs = vec![kit.get(&y), kit.get(&mean), kit.get(&rstd)];
    for accumulate in [true, false] {
        let dx = if accumulate { kit.put(cut(&before, &rows, h), [t, h]) } else { dy.clone() };
        let args = LayerNormBackward {
            x: x.view(),
            gamma: gamma.view(),
            mean: mean.view(),
            rstd: rstd.view(),
            dy: dy.view(),
            dx: dx.view(),
            accumulate,
            dgamma: dgamma.view(),
            dbeta: dbeta.view(),
            workspace: space.view(),
        };
        kit.backend.layernorm_backward(args).unwrap();
        outputs.push(kit.get(&dx));
    }
    if t == 24 {
        // Sums over the rows: of all of them only.
        outputs.extend([kit.get(&dgamma), kit.get(&dbeta)]);
        let dy = kit.put(&up, [t, h]);
        let space = kit.scratch(Scratch::BiasBackward { t, n: h });
        let args = BiasBackward { dy: dy.view(), dbias: dbeta.view(), workspace: space.view() };
        kit.backend.bias_backward(args).unwrap();
        outputs.push(kit.get(&dbeta));
        let (out, space) = (kit.out32([1]), kit.scratch(Scratch::Sum { n: t * h }));
        let args = Sum { x: dy.view(), out: out.view(), alpha: 0.5, beta: 0.0, workspace: space.view() };
        kit.backend.sum(args).unwrap();
        outputs.push(kit.get(&out));
    }
    outputs
}

fn tokens(t: usize, n: usize) -> Vec<u32> {
    (0..t as u64).map(|i| STREAM.word(i) % n as u32).collect()
}

fn cross_entropy(kit: &Kit<'_>, rows: Range<usize>) -> Vec<Output> {
    let (t, v) = (rows.len(), 3 * kit.n);
    let (a, ids) = (kit.numbers(24 * v, 1, 9.0), tokens(24, v));
    let (logits, targets) = (kit.put(cut(&a, &rows, v), [t, v]), kit.ids(cut(&ids, &rows, 1)));
    let [max, sum_exp, target, loss] = [0; 4].map(|_| kit.out32([t]));
    let backend = kit.backend;
    backend.cross_entropy_max(CrossEntropyMax { logits: logits.view(), max: max.view() }).unwrap();
    let args = CrossEntropySums {
        logits: logits.view(),
        targets: targets.view(),
        first_column: 0,
        max: max.view(),
        sum_exp: sum_exp.view(),
        target: target.view(),
    };
    backend.cross_entropy_sums(args).unwrap();
    let args = CrossEntropyLoss { sum_exp: sum_exp.view(), target: target.view(), loss: loss.view() };
    backend.cross_entropy_loss(args).unwrap();
    // From logits of f32 to gradients of the narrow type, and in place.
    let (full, apart) = (kit.put32(cut(&a, &rows, v), [t, v]), kit.out([t, v]));
    for (logits, dlogits) in [(&full, &apart), (&logits, &logits)] {
        let args = CrossEntropyBackward {
            logits: logits.view(),
            targets: targets.view(),
            first_column: 0,
            max: max.view(),
            sum_exp: sum_exp.view(),
            scale: 0.1,
            dlogits: dlogits.view(),
        };
        backend.cross_entropy_backward(args).unwrap();
    }
    [&max, &sum_exp, &target, &loss, &apart, &logits].map(|tensor| kit.get(tensor)).into()
}

fn embedding(kit: &Kit<'_>, rows: Range<usize>) -> Vec<Output> {
    let (t, v, h) = (rows.len(), 10, kit.n);
    let (table, ids) = (kit.put(&kit.numbers(v * h, 1, 1.0), [v, h]), tokens(24, 16));
    let (ids, y) = (kit.ids(cut(&ids, &rows, 1)), kit.out([t, h]));
    let args = Embedding { tokens: ids.view(), table: table.view(), first_row: 3, y: y.view() };
    kit.backend.embedding(args).unwrap();
    let mut outputs = vec![kit.get(&y)];
    if t == 24 {
        let (dy, dtable) =
            (kit.put(&kit.numbers(t * h, 2, 1.0), [t, h]), kit.put32(&vec![0.5; v * h], [v, h]));
        let space = kit.scratch(Scratch::EmbeddingBackward { t, v, h });
        let args = EmbeddingBackward {
            tokens: ids.view(),
            dy: dy.view(),
            first_row: 3,
            dtable: dtable.view(),
            workspace: space.view(),
        };
        kit.backend.embedding_backward(args).unwrap();
        outputs.push(kit.get(&dtable));
    }
    outputs
}

fn adamw(kit: &Kit<'_>, rows: Range<usize>) -> Vec<Output> {
    let n = rows.len() * kit.n;
    let [param, grad, m, v] = [1, 2, 3, 4].map(|seed| {
        let all: Vec<f32> =
            random(24 * kit.n, seed).iter().map(|x| if seed == 4 { x * x } else { *x }).collect();
        kit.put32(cut(&all, &rows, kit.n), [n])
    });
    let args = AdamW {
        param: param.view(),
        grad: grad.view(),
        m: m.view(),
        v: v.view(),
        lr: 1e-2,
        beta1: 0.9,
        beta2: 0.95,
        eps: 1e-8,
        weight_decay: 0.1,
        grad_scale: 0.7,
        step: 3,
    };
    kit.backend.adamw(args).unwrap();
    [&param, &m, &v].map(|tensor| kit.get(tensor)).into()
}

fn reduce(kit: &Kit<'_>, rows: Range<usize>) -> Vec<Output> {
    let n = rows.len() * kit.n;
    let mut outputs = vec![];
    // In one kernel, and in subtrees.
    for count in [5, 13] {
        let parts: Vec<_> = (0..count)
            .map(|seed| kit.put(cut(&kit.numbers(24 * kit.n, seed, 1.0), &rows, kit.n), [n]))
            .collect();
        let views: Vec<_> = parts.iter().map(|part| part.view()).collect();
        let out = kit.out([n]);
        kit.backend.reduce(backend::ReduceOp::Max, &views, &[out.view()]).unwrap();
        outputs.push(kit.get(&out));
        kit.backend.reduce(backend::ReduceOp::Sum, &views, &views).unwrap();
        outputs.push(kit.get(&parts[count as usize - 1]));
    }
    outputs
}

/// `[rows, columns]` to `[columns, rows]`, of blocks of `block` elements.
fn transposed(mut output: Output, rows: usize, columns: usize, block: usize) -> Output {
    let values = &output.values;
    let at = |r: usize, c: usize| &values[(r * columns + c) * block..][..block];
    output.values =
        (0..columns).flat_map(|c| (0..rows).flat_map(move |r| at(r, c).iter().copied())).collect();
    output
}

const K: usize = 44;

fn matmul_rows(kit: &Kit<'_>, rows: Range<usize>) -> Vec<Output> {
    let (m, n) = (rows.len(), kit.n);
    let (a, b, c) = (kit.numbers(72 * K, 1, 1.0), kit.numbers(K * n, 2, 1.0), kit.numbers(72 * n, 3, 1.0));
    let (a, b) = (kit.put(cut(&a, &rows, K), [m, K]), kit.put(&b, [K, n]));
    let (narrow, wide) = (kit.out([m, n]), kit.put32(cut(&c, &rows, n), [m, n]));
    let mut outputs = vec![];
    for (c, beta) in [(&narrow, 0.0), (&wide, 1.0), (&narrow, 0.5)] {
        if beta == 0.5 {
            kit.backend.fill(c.view(), 0.25).unwrap();
        }
        let args = Matmul {
            a: a.view(),
            b: b.view(),
            c: c.view(),
            trans_a: false,
            trans_b: false,
            alpha: 0.7,
            beta,
        };
        kit.backend.matmul(args).unwrap();
        outputs.push(kit.get(c));
    }
    outputs
}

fn matmul_columns(kit: &Kit<'_>, rows: Range<usize>) -> Vec<Output> {
    let (m, n) = (kit.n, rows.len());
    let (a, b) = (kit.numbers(m * K, 1, 1.0), kit.numbers(72 * K, 2, 1.0));
    let a = kit.put(&a, [K, m]);
    let b = kit.put(cut(&b, &rows, K), [n, K]);
    [kit.out([m, n]), kit.out32([m, n])]
        .map(|c| {
            let (a, b, view) = (a.view(), b.view(), c.view());
            let args = Matmul { a, b, c: view, trans_a: true, trans_b: true, alpha: 1.0, beta: 0.0 };
            kit.backend.matmul(args).unwrap();
            transposed(kit.get(&c), m, n, 1)
        })
        .into()
}

fn linear(kit: &Kit<'_>, rows: Range<usize>) -> Vec<Output> {
    let (t, n) = (rows.len(), kit.n);
    let (a, w, b) = (kit.numbers(72 * K, 1, 1.0), kit.numbers(n * K, 2, 1.0), kit.numbers(n, 3, 1.0));
    let x = kit.put(cut(&a, &rows, K), [t, K]);
    let (w, bias) = (kit.put(&w, [n, K]), kit.put(&b, [n]));
    let [y, pre, active, again] = [0; 4].map(|_| kit.out([t, n]));
    kit.backend.matmul_bias(MatmulBias { x: x.view(), w: w.view(), bias: bias.view(), y: y.view() }).unwrap();
    let args =
        MatmulBiasGelu { x: x.view(), w: w.view(), bias: bias.view(), pre: pre.view(), y: active.view() };
    kit.backend.matmul_bias_gelu(args).unwrap();
    kit.backend.gelu(Gelu { x: pre.view(), y: again.view() }).unwrap();
    assert_eq!(kit.get(&active).values, kit.get(&again).values, "the activation is that of what was stored");
    vec![kit.get(&y), kit.get(&pre)]
}

const S: usize = 19;

fn attention(
    kit: &Kit<'_>,
    dims: [usize; 4],
    first: [usize; 2],
    qkv: &[f32],
    up: &[f32],
    p: f32,
) -> [Output; 3] {
    let [b, s, a, d] = dims;
    let qkv = kit.put(qkv, [b, s, a, 3, d]);
    let dout = kit.put(up, [b, s, a, d]);
    let (out, lse) = (kit.out([b, s, a, d]), kit.out32([b, a, s]));
    let dqkv = kit.out([b, s, a, 3, d]);
    let scale = 0.4;
    let dropout = (p > 0.0).then_some(AttentionDropout {
        p,
        stream: STREAM,
        first_sample: first[0] as u64,
        first_head: first[1],
        heads: 8,
    });
    let space = kit.scratch(Scratch::Attention { b, s, a, d });
    let (qkv_view, out_view, lse_view) = (qkv.view(), out.view(), lse.view());
    let args =
        Attention { qkv: qkv_view, out: out_view, lse: lse_view, scale, dropout, workspace: space.view() };
    kit.backend.attention(args).unwrap();
    // The backward's input is of the grid, as the forward's output is in the narrow type.
    let rounded: Vec<f32> =
        kit.get(&out).values.iter().map(|&x| decode(kit.grid, &encode(kit.grid, x))).collect();
    let saved = kit.put(&rounded, [b, s, a, d]);
    let space = kit.scratch(Scratch::AttentionBackward { b, s, a, d });
    let args = AttentionBackward {
        qkv: qkv_view,
        out: saved.view(),
        lse: lse_view,
        dout: dout.view(),
        dqkv: dqkv.view(),
        scale,
        dropout,
        workspace: space.view(),
    };
    kit.backend.attention_backward(args).unwrap();
    [&out, &lse, &dqkv].map(|tensor| kit.get(tensor))
}

/// Sizes of a head: a multiple of four if the rows are.
fn head(kit: &Kit<'_>) -> usize {
    if kit.n.is_multiple_of(4) { 8 } else { 5 }
}

fn attention_sequences(kit: &Kit<'_>, rows: Range<usize>) -> Vec<Output> {
    let (a, d) = (2, head(kit));
    let width = S * a * d;
    let (qkv, up) = (kit.numbers(8 * width * 3, 1, 2.0), kit.numbers(8 * width, 2, 1.0));
    let (qkv, up) = (cut(&qkv, &rows, 3 * width), cut(&up, &rows, width));
    [0.0, 0.2]
        .iter()
        .flat_map(|&p| attention(kit, [rows.len(), S, a, d], [rows.start, 0], qkv, up, p))
        .collect()
}

fn attention_heads(kit: &Kit<'_>, rows: Range<usize>) -> Vec<Output> {
    let (b, d) = (2, head(kit));
    let heads = |all: &[f32], width: usize| -> Vec<f32> {
        all.chunks(8 * width).flat_map(|token| cut(token, &rows, width).to_vec()).collect()
    };
    let qkv = heads(&kit.numbers(b * S * 8 * 3 * d, 1, 2.0), 3 * d);
    let up = heads(&kit.numbers(b * S * 8 * d, 2, 1.0), d);
    let a = rows.len();
    [0.0, 0.2]
        .iter()
        .flat_map(|&p| {
            let [out, lse, dqkv] = attention(kit, [b, S, a, d], [0, rows.start], &qkv, &up, p);
            [transposed(out, b * S, a, d), transposed(lse, b, a, S), transposed(dqkv, b * S, a, 3 * d)]
        })
        .collect()
}
