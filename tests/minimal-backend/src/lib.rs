//! The smallest backend that conforms: the required operations on host memory, one number after the other in f64, and nothing of what the contract composes of them.
//!
//! It is what somebody who brings up a backend begins with: implement [`Backend`], name it in a [`Subject`], and call
//! [`conformance::main`]. Replace an operation by a kernel, run its group, and go on.

mod attention;
mod memory;

use std::sync::Arc;

use backend::ops::{
    AdamW, Add, Attention, AttentionBackward, AttentionCached, BiasAdd, BiasBackward, BlockSquares, Cast,
    CrossEntropyBackward, CrossEntropyLoss, CrossEntropyMax, CrossEntropySums, Dropout, Embedding,
    EmbeddingBackward, Gelu, GeluBackward, LayerNorm, LayerNormBackward, Matmul, MatmulDims, Scratch, Sum,
    check_copy, check_float, check_reduce,
};
use backend::philox::drop_below;
use backend::{Backend, Class, DType, Error, Info, Meter, ReduceOp, Result, Shape, Tensor, Usage, View};
use conformance::Subject;
use memory::{Bytes, bytes, numbers, set_bytes, set_numbers, tokens};

/// One rank.
#[derive(Default)]
pub struct Minimal {
    meter: Arc<Meter>,
}

/// A view here.
type V<'a> = View<'a, Bytes>;

/// The slope and the value of the GELU, tanh form.
fn gelu(x: f64) -> (f64, f64) {
    let root = (2.0 / std::f64::consts::PI).sqrt();
    // 1 + tanh u, without the cancellation of large negative u.
    let gate = 2.0 / (1.0 + (-2.0 * root * (x + 0.044_715 * x * x * x)).exp());
    let slope = root * (1.0 + 3.0 * 0.044_715 * x * x);
    let change = if gate > 0.0 { 0.5 * x * gate * (2.0 - gate) * slope } else { 0.0 };
    (0.5 * gate + change, 0.5 * x * gate)
}

/// NaN if one is.
fn larger(a: f64, b: f64) -> f64 {
    if a.is_nan() || b.is_nan() { f64::NAN } else { a.max(b) }
}

impl Backend for Minimal {
    type Buffer = Bytes;

    fn info(&self) -> Info {
        let device = "host memory".to_owned();
        Info { backend: "minimal", device, driver: "scalar f64".to_owned(), software: true }
    }

    fn alloc(&self, class: Class, dtype: DType, shape: Shape) -> Result<Tensor<Bytes>> {
        let len = shape.extents().iter().try_fold(dtype.size(), |len, &n| len.checked_mul(n));
        let len = len.filter(|&len| len <= isize::MAX as usize).ok_or_else(|| Error::OutOfMemory {
            class,
            asked: u64::MAX,
            in_use: self.meter.in_use(),
            remedy: "take a smaller microbatch or more ranks",
        })?;
        Tensor::new(Bytes::new(class, len, &self.meter), dtype, 0, shape)
    }

    fn usage(&self, class: Class) -> Usage {
        self.meter.usage(class)
    }

    fn workspace(&self, _: Scratch) -> usize {
        0
    }

    fn write(&self, dst: V<'_>, data: &[u8]) -> Result<()> {
        set_bytes("write", dst, data)
    }

    fn read(&self, src: V<'_>, data: &mut [u8]) -> Result<()> {
        let held = bytes(src);
        if held.len() != data.len() {
            let expected = format!("{} bytes, as the host's memory has", data.len());
            return Err(Error::Shape { op: "read", tensor: "data", expected, got: src.shape() });
        }
        data.copy_from_slice(&held);
        Ok(())
    }

    fn sync(&self) -> Result<()> {
        Ok(())
    }

    fn fill(&self, x: V<'_>, value: f32) -> Result<()> {
        let n = check_float("fill", x)?;
        set_numbers("fill", x, &vec![f64::from(value); n])
    }

    fn copy(&self, src: V<'_>, dst: V<'_>) -> Result<()> {
        check_copy(src, dst)?;
        set_bytes("copy", dst, &bytes(src))
    }

    fn scale(&self, x: V<'_>, alpha: f32) -> Result<()> {
        check_float("scale", x)?;
        let scaled: Vec<f64> = numbers(x).iter().map(|x| f64::from(alpha) * x).collect();
        set_numbers("scale", x, &scaled)
    }

    fn add(&self, args: Add<'_, Bytes>) -> Result<()> {
        args.check()?;
        let sum = |(x, y): (f64, f64)| f64::from(args.alpha) * x + y;
        let sums: Vec<f64> = numbers(args.x).into_iter().zip(numbers(args.y)).map(sum).collect();
        set_numbers("add", args.y, &sums)
    }

    fn cast(&self, args: Cast<'_, Bytes>) -> Result<()> {
        args.check()?;
        set_numbers("cast", args.dst, &numbers(args.src))
    }

    /// In f32: what the bits of every backend are.
    fn reduce(&self, op: ReduceOp, inputs: &[V<'_>], outputs: &[V<'_>]) -> Result<()> {
        check_reduce(inputs, outputs)?;
        let mut level: Vec<Vec<f64>> = inputs.iter().map(|input| numbers(*input)).collect();
        while level.len() > 1 {
            let combine = |pair: &[Vec<f64>]| match pair {
                [a, b] => a
                    .iter()
                    .zip(b)
                    .map(|(&a, &b)| match op {
                        ReduceOp::Sum => f64::from(a as f32 + b as f32),
                        ReduceOp::Max => larger(a, b),
                    })
                    .collect(),
                odd => odd.concat(),
            };
            level = level.chunks(2).map(combine).collect();
        }
        outputs.iter().try_for_each(|output| set_numbers("reduce", *output, &level.concat()))
    }

    fn matmul(&self, args: Matmul<'_, Bytes>) -> Result<()> {
        let MatmulDims { batch, m, n, k } = args.check()?;
        let (a, b) = (numbers(args.a), numbers(args.b));
        // With beta = 0 nothing is read, NaN included.
        let mut c = if args.beta == 0.0 { vec![0.0; batch * m * n] } else { numbers(args.c) };
        for (index, value) in c.iter_mut().enumerate() {
            let (matrix, row, column) = (index / (m * n), index / n % m, index % n);
            let left = |i: usize| a[matrix * m * k + if args.trans_a { i * m + row } else { row * k + i }];
            let right =
                |i: usize| b[matrix * k * n + if args.trans_b { column * k + i } else { i * n + column }];
            let product: f64 = (0..k).map(|i| left(i) * right(i)).sum();
            let held = if args.beta == 0.0 { 0.0 } else { f64::from(args.beta) * *value };
            *value = f64::from(args.alpha) * product + held;
        }
        set_numbers("matmul", args.c, &c)
    }

    fn bias_add(&self, args: BiasAdd<'_, Bytes>) -> Result<()> {
        let [_, n] = args.check()?;
        let (mut x, bias) = (numbers(args.x), numbers(args.bias));
        x.iter_mut().enumerate().for_each(|(i, x)| *x += bias[i % n]);
        set_numbers("bias_add", args.x, &x)
    }

    fn bias_backward(&self, args: BiasBackward<'_, Bytes>) -> Result<()> {
        let [_, n] = args.check()?;
        let mut sums = numbers(args.dbias);
        numbers(args.dy).iter().enumerate().for_each(|(i, dy)| sums[i % n] += dy);
        set_numbers("bias_backward", args.dbias, &sums)
    }

    fn gelu(&self, args: Gelu<'_, Bytes>) -> Result<()> {
        args.check()?;
        let y: Vec<f64> = numbers(args.x).iter().map(|&x| gelu(x).1).collect();
        set_numbers("gelu", args.y, &y)
    }

    fn gelu_backward(&self, args: GeluBackward<'_, Bytes>) -> Result<()> {
        args.check()?;
        let dx = |(x, dy): (f64, f64)| gelu(x).0 * dy;
        let dx: Vec<f64> = numbers(args.x).into_iter().zip(numbers(args.dy)).map(dx).collect();
        set_numbers("gelu_backward", args.dx, &dx)
    }

    fn dropout(&self, args: Dropout<'_, Bytes>) -> Result<()> {
        args.check()?;
        let (mask, below) = (args.mask, drop_below(args.mask.p));
        let keep = |(i, x): (usize, f64)| match mask.stream.word(mask.first.wrapping_add(i as u64)) >= below {
            true => x * f64::from(mask.scale()),
            false => 0.0,
        };
        let y: Vec<f64> = numbers(args.x).into_iter().enumerate().map(keep).collect();
        set_numbers("dropout", args.y, &y)
    }

    fn layernorm(&self, args: LayerNorm<'_, Bytes>) -> Result<()> {
        let [t, h] = args.check()?;
        let (mut x, gamma, beta) = (numbers(args.x), numbers(args.gamma), numbers(args.beta));
        let (mut means, mut rstds) = (Vec::with_capacity(t), Vec::with_capacity(t));
        for row in x.chunks_mut(h) {
            let mean = row.iter().sum::<f64>() / h as f64;
            let variance = row.iter().map(|x| (x - mean) * (x - mean)).sum::<f64>() / h as f64;
            let rstd = 1.0 / (variance + f64::from(args.eps)).sqrt();
            row.iter_mut().enumerate().for_each(|(i, x)| *x = (*x - mean) * rstd * gamma[i] + beta[i]);
            means.push(mean);
            rstds.push(rstd);
        }
        set_numbers("layernorm", args.y, &x)?;
        set_numbers("layernorm", args.mean, &means)?;
        set_numbers("layernorm", args.rstd, &rstds)
    }

    fn layernorm_backward(&self, args: LayerNormBackward<'_, Bytes>) -> Result<()> {
        let [t, h] = args.check()?;
        let (x, gamma, dy) = (numbers(args.x), numbers(args.gamma), numbers(args.dy));
        let (mean, rstd) = (numbers(args.mean), numbers(args.rstd));
        let (mut dgamma, mut dbeta) = (numbers(args.dgamma), numbers(args.dbeta));
        let mut dx = if args.accumulate { numbers(args.dx) } else { vec![0.0; t * h] };
        for row in 0..t {
            let normal = |i: usize| (x[row * h + i] - mean[row]) * rstd[row];
            let g = |i: usize| dy[row * h + i] * gamma[i];
            let first = (0..h).map(g).sum::<f64>() / h as f64;
            let second = (0..h).map(|i| g(i) * normal(i)).sum::<f64>() / h as f64;
            for i in 0..h {
                dx[row * h + i] += rstd[row] * (g(i) - first - normal(i) * second);
                dgamma[i] += dy[row * h + i] * normal(i);
                dbeta[i] += dy[row * h + i];
            }
        }
        set_numbers("layernorm_backward", args.dx, &dx)?;
        set_numbers("layernorm_backward", args.dgamma, &dgamma)?;
        set_numbers("layernorm_backward", args.dbeta, &dbeta)
    }

    fn attention(&self, args: Attention<'_, Bytes>) -> Result<()> {
        attention::forward(args)
    }

    fn attention_backward(&self, args: AttentionBackward<'_, Bytes>) -> Result<()> {
        attention::backward(args)
    }

    fn attention_cached(&self, args: AttentionCached<'_, Bytes>) -> Result<()> {
        attention::cached(args)
    }

    fn embedding(&self, args: Embedding<'_, Bytes>) -> Result<()> {
        let [_, v, h] = args.check()?;
        let table = numbers(args.table);
        let row = |token: usize| match token.checked_sub(args.first_row).filter(|&row| row < v) {
            Some(row) => table[row * h..(row + 1) * h].to_vec(),
            None => vec![0.0; h],
        };
        let y: Vec<f64> = tokens(args.tokens).into_iter().flat_map(row).collect();
        set_numbers("embedding", args.y, &y)
    }

    fn embedding_backward(&self, args: EmbeddingBackward<'_, Bytes>) -> Result<()> {
        let [_, v, h] = args.check()?;
        let (mut table, dy) = (numbers(args.dtable), numbers(args.dy));
        for (token, dy) in tokens(args.tokens).into_iter().zip(dy.chunks(h)) {
            if let Some(row) = token.checked_sub(args.first_row).filter(|&row| row < v) {
                table[row * h..(row + 1) * h].iter_mut().zip(dy).for_each(|(sum, dy)| *sum += dy);
            }
        }
        set_numbers("embedding_backward", args.dtable, &table)
    }

    fn cross_entropy_max(&self, args: CrossEntropyMax<'_, Bytes>) -> Result<()> {
        let [_, v] = args.check()?;
        let maxima = numbers(args.logits)
            .chunks(v)
            .map(|row| row.iter().copied().fold(f64::NEG_INFINITY, larger))
            .collect::<Vec<_>>();
        set_numbers("cross_entropy_max", args.max, &maxima)
    }

    fn cross_entropy_sums(&self, args: CrossEntropySums<'_, Bytes>) -> Result<()> {
        let [_, v] = args.check()?;
        let (logits, max, targets) = (numbers(args.logits), numbers(args.max), tokens(args.targets));
        let (mut sums, mut hits) = (Vec::new(), Vec::new());
        for ((row, max), target) in logits.chunks(v).zip(max).zip(targets) {
            sums.push(row.iter().map(|x| (x - max).exp()).sum::<f64>());
            let column = target.checked_sub(args.first_column).filter(|&column| column < v);
            hits.push(column.map_or(0.0, |column| row[column] - max));
        }
        set_numbers("cross_entropy_sums", args.sum_exp, &sums)?;
        set_numbers("cross_entropy_sums", args.target, &hits)
    }

    fn cross_entropy_loss(&self, args: CrossEntropyLoss<'_, Bytes>) -> Result<()> {
        args.check()?;
        let loss = |(sum, target): (f64, f64)| sum.ln() - target;
        let loss: Vec<f64> = numbers(args.sum_exp).into_iter().zip(numbers(args.target)).map(loss).collect();
        set_numbers("cross_entropy_loss", args.loss, &loss)
    }

    fn cross_entropy_backward(&self, args: CrossEntropyBackward<'_, Bytes>) -> Result<()> {
        let [_, v] = args.check()?;
        let (mut logits, max, sums) = (numbers(args.logits), numbers(args.max), numbers(args.sum_exp));
        for (row, target) in tokens(args.targets).into_iter().enumerate() {
            let hit = target.checked_sub(args.first_column);
            for (column, x) in logits[row * v..(row + 1) * v].iter_mut().enumerate() {
                let probability = (*x - max[row]).exp() / sums[row];
                *x = f64::from(args.scale) * (probability - f64::from(u8::from(hit == Some(column))));
            }
        }
        set_numbers("cross_entropy_backward", args.dlogits, &logits)
    }

    fn adamw(&self, args: AdamW<'_, Bytes>) -> Result<()> {
        args.check()?;
        let [first, second] = args.bias_corrections().map(f64::from);
        let [lr, beta1, beta2, eps, decay, factor] =
            [args.lr, args.beta1, args.beta2, args.eps, args.weight_decay, args.grad_scale].map(f64::from);
        let (mut w, mut m, mut v) = (numbers(args.param), numbers(args.m), numbers(args.v));
        for (i, g) in numbers(args.grad).into_iter().enumerate() {
            let g = factor * g;
            m[i] = beta1 * m[i] + (1.0 - beta1) * g;
            v[i] = beta2 * v[i] + (1.0 - beta2) * g * g;
            w[i] -= lr * (m[i] / first / ((v[i] / second).sqrt() + eps) + decay * w[i]);
        }
        set_numbers("adamw", args.param, &w)?;
        set_numbers("adamw", args.m, &m)?;
        set_numbers("adamw", args.v, &v)
    }

    fn sum(&self, args: Sum<'_, Bytes>) -> Result<()> {
        args.check()?;
        let held = if args.beta == 0.0 { 0.0 } else { f64::from(args.beta) * numbers(args.out)[0] };
        let sum: f64 = numbers(args.x).iter().sum();
        set_numbers("sum", args.out, &[f64::from(args.alpha) * sum + held])
    }

    fn block_squares(&self, args: BlockSquares<'_, Bytes>) -> Result<()> {
        args.check()?;
        let squares = |block: &[f64]| block.iter().map(|x| x * x).sum();
        let sums: Vec<f64> = numbers(args.x).chunks(args.block).map(squares).collect();
        set_numbers("block_squares", args.out, &sums)
    }
}

/// The backend's name for the suite, and how it is opened.
pub struct Host;

impl Subject for Host {
    type Backend = Minimal;

    fn name(&self) -> String {
        "minimal".to_owned()
    }

    fn open(&self) -> Result<Arc<Minimal>> {
        Ok(Arc::new(Minimal::default()))
    }
}
