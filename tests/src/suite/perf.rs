//! How fast the operations are at the shapes of a model: a table, best of some rounds, in FLOP/s and bytes a second.

use std::time::{Duration, Instant};

use backend::ops::{
    AdamW, Attention, AttentionBackward, BiasAdd, BiasBackward, CrossEntropyBackward, CrossEntropyMax,
    CrossEntropySums, Embedding, EmbeddingBackward, Gelu, GeluBackward, LayerNorm, LayerNormBackward, Matmul,
    Scratch,
};
use backend::{Backend, Class, DType, Result, Shape, Tensor};
use serde::Serialize;

use crate::draw::Draw;
use crate::narrow::to_bits;

/// A row of the table.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Timing {
    /// The operation.
    pub operation: String,
    /// Its extents.
    pub shape: String,
    /// Type of the values.
    pub dtype: String,
    /// Seconds of the fastest round.
    pub seconds: f64,
    /// 10^9 floating-point operations a second, where they are what it does.
    pub gflops: Option<f64>,
    /// 10^9 bytes read and written a second, each operand once.
    pub gbytes: f64,
}

/// The shapes: tokens `b s`, hidden `h`, heads `a`, vocabulary `v`; and the side of a square product.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sizes {
    /// Sequences.
    pub b: usize,
    /// Their length.
    pub s: usize,
    /// Hidden size.
    pub h: usize,
    /// Heads.
    pub a: usize,
    /// Vocabulary.
    pub v: usize,
    /// Rows, columns and inner dimension of a product that is no model's.
    pub square: usize,
}

/// Whose shapes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
#[value(rename_all = "lowercase")]
pub enum Model {
    /// Next to nothing: to see that it runs.
    Tiny,
    /// Preset `laptop`, 8 sequences.
    Laptop,
    /// GPT-2 of 124 M parameters, 8 sequences of 1024.
    Gpt2,
}

impl Model {
    /// Its shapes.
    #[must_use]
    pub const fn sizes(self) -> Sizes {
        match self {
            Self::Tiny => Sizes { b: 1, s: 64, h: 64, a: 1, v: 256, square: 64 },
            Self::Laptop => Sizes { b: 8, s: 256, h: 128, a: 4, v: 4096, square: 1024 },
            Self::Gpt2 => Sizes { b: 8, s: 1024, h: 768, a: 12, v: 50304, square: 1024 },
        }
    }
}

/// The operations on one backend.
struct Bench<'b, B: Backend> {
    backend: &'b B,
    dtype: DType,
    least: Duration,
    rows: Vec<Timing>,
}

impl<B: Backend> Bench<'_, B> {
    fn tensor_of(&self, dtype: DType, shape: &[usize]) -> Result<Tensor<B::Buffer>> {
        let tensor = self.backend.alloc(Class::Workspace, dtype, Shape::new(shape))?;
        let values = Draw::new("perf").normal(tensor.len().next_multiple_of(2), 0.0, 0.5);
        let bytes: Vec<u8> = values
            .iter()
            .flat_map(|&x| to_bits(dtype, x).to_le_bytes().into_iter().take(dtype.size()))
            .collect();
        self.backend.write(tensor.view(), &bytes[..tensor.len() * dtype.size()])?;
        Ok(tensor)
    }

    fn tensor(&self, shape: &[usize]) -> Result<Tensor<B::Buffer>> {
        self.tensor_of(self.dtype, shape)
    }

    fn f32(&self, shape: &[usize]) -> Result<Tensor<B::Buffer>> {
        self.tensor_of(DType::F32, shape)
    }

    /// Runs it until the time is over, in rounds that wait for the device once; the first round warms up.
    fn time(
        &mut self,
        (operation, shape): (&str, &str),
        flops: Option<f64>,
        bytes: f64,
        work: impl Fn() -> Result<()>,
    ) -> Result<()> {
        work()?;
        self.backend.sync()?;
        let begin = Instant::now();
        work()?;
        self.backend.sync()?;
        let once = begin.elapsed().max(Duration::from_micros(1));
        let repeat = (0.05 / once.as_secs_f64()).ceil().clamp(1.0, 1000.0) as u32;
        let (start, mut best) = (Instant::now(), f64::INFINITY);
        while start.elapsed() < self.least || best.is_infinite() {
            let begin = Instant::now();
            for _ in 0..repeat {
                work()?;
            }
            self.backend.sync()?;
            best = best.min(begin.elapsed().as_secs_f64() / f64::from(repeat));
        }
        self.rows.push(Timing {
            operation: operation.to_owned(),
            shape: shape.to_owned(),
            dtype: self.dtype.to_string(),
            seconds: best,
            gflops: flops.map(|flops| flops / best / 1e9),
            gbytes: bytes / best / 1e9,
        });
        Ok(())
    }
}

/// Times every operation of a layer and of the loss, each for about so long.
///
/// # Errors
/// Those of the backend; a type that it lacks.
pub fn table<B: Backend>(backend: &B, sizes: Sizes, dtype: DType, least: Duration) -> Result<Vec<Timing>> {
    let Sizes { b, s, h, a, v, square } = sizes;
    let (t, d, size) = (b * s, h / a, dtype.size() as f64);
    let mut bench = Bench { backend, dtype, least, rows: Vec::new() };
    for ([m, n, k], trans_a, trans_b) in [
        ([square; 3], false, true),
        ([t, 3 * h, h], false, true),
        ([t, 4 * h, h], false, true),
        ([4 * h, h, t], true, false),
        ([t, v, h], false, true),
    ] {
        let x = bench.tensor(&if trans_a { [k, m] } else { [m, k] })?;
        let w = bench.tensor(&if trans_b { [n, k] } else { [k, n] })?;
        let y = bench.tensor(&[m, n])?;
        let shape = format!("m={m},n={n},k={k},ta={},tb={}", u8::from(trans_a), u8::from(trans_b));
        let bytes = size * (m * k + n * k + m * n) as f64;
        bench.time(("matmul", &shape), Some(2.0 * (m * n * k) as f64), bytes, || {
            let (a, b, c) = (x.view(), w.view(), y.view());
            backend.matmul(Matmul { a, b, c, trans_a, trans_b, alpha: 1.0, beta: 0.0 })
        })?;
    }

    let shape = format!("b={b},s={s},a={a},d={d}");
    let (qkv, out, lse) =
        (bench.tensor(&[b, s, a, 3, d])?, bench.tensor(&[b, s, a, d])?, bench.f32(&[b, a, s])?);
    let scale = 1.0 / (d as f32).sqrt();
    let space = bench.f32(&[backend.workspace(Scratch::Attention { b, s, a, d }).max(1)])?;
    // Two products of s^2 d multiply-adds, half of them masked.
    let flops = 2.0 * (b * a * s * s * d) as f64;
    bench.time(("attention", &shape), Some(flops), 4.0 * size * (t * h) as f64, || {
        let (qkv, out, lse, workspace) = (qkv.view(), out.view(), lse.view(), space.view());
        backend.attention(Attention { qkv, out, lse, scale, dropout: None, workspace })
    })?;
    let (dout, dqkv) = (bench.tensor(&[b, s, a, d])?, bench.tensor(&[b, s, a, 3, d])?);
    let space = bench.f32(&[backend.workspace(Scratch::AttentionBackward { b, s, a, d }).max(1)])?;
    bench.time(("attention_backward", &shape), Some(2.5 * flops), 8.0 * size * (t * h) as f64, || {
        let (qkv, out, lse, dout, dqkv) = (qkv.view(), out.view(), lse.view(), dout.view(), dqkv.view());
        backend.attention_backward(AttentionBackward {
            qkv,
            out,
            lse,
            dout,
            dqkv,
            scale,
            dropout: None,
            workspace: space.view(),
        })
    })?;

    let shape = format!("t={t},h={h}");
    let (x, y) = (bench.tensor(&[t, h])?, bench.tensor(&[t, h])?);
    let (gamma, beta, mean, rstd) =
        (bench.tensor(&[h])?, bench.tensor(&[h])?, bench.f32(&[t])?, bench.f32(&[t])?);
    bench.time(("layernorm", &shape), None, 2.0 * size * (t * h) as f64, || {
        let (x, gamma, beta, y, mean, rstd) =
            (x.view(), gamma.view(), beta.view(), y.view(), mean.view(), rstd.view());
        backend.layernorm(LayerNorm { x, gamma, beta, eps: 1e-5, y, mean, rstd })
    })?;
    let (dy, dx, dgamma, dbeta) =
        (bench.tensor(&[t, h])?, bench.tensor(&[t, h])?, bench.f32(&[h])?, bench.f32(&[h])?);
    let space = bench.f32(&[backend.workspace(Scratch::LayerNormBackward { t, h }).max(1)])?;
    bench.time(("layernorm_backward", &shape), None, 3.0 * size * (t * h) as f64, || {
        let (x, gamma, mean, rstd, dy, dx) =
            (x.view(), gamma.view(), mean.view(), rstd.view(), dy.view(), dx.view());
        let (dgamma, dbeta, workspace) = (dgamma.view(), dbeta.view(), space.view());
        backend.layernorm_backward(LayerNormBackward {
            x,
            gamma,
            mean,
            rstd,
            dy,
            dx,
            accumulate: false,
            dgamma,
            dbeta,
            workspace,
        })
    })?;

    let shape = format!("t={t},n={}", 4 * h);
    let (wide, narrow, bias) =
        (bench.tensor(&[t, 4 * h])?, bench.tensor(&[t, 4 * h])?, bench.tensor(&[4 * h])?);
    let dbias = bench.f32(&[4 * h])?;
    let once = size * (4 * t * h) as f64;
    bench.time(("bias_add", &shape), None, 2.0 * once, || {
        backend.bias_add(BiasAdd { x: wide.view(), bias: bias.view() })
    })?;
    bench.time(("gelu", &shape), None, 2.0 * once, || {
        backend.gelu(Gelu { x: narrow.view(), y: wide.view() })
    })?;
    bench.time(("gelu_backward", &shape), None, 3.0 * once, || {
        backend.gelu_backward(GeluBackward { x: narrow.view(), dy: wide.view(), dx: wide.view() })
    })?;
    let space = bench.f32(&[backend.workspace(Scratch::BiasBackward { t, n: 4 * h }).max(1)])?;
    bench.time(("bias_backward", &shape), None, once, || {
        backend.bias_backward(BiasBackward {
            dy: narrow.view(),
            dbias: dbias.view(),
            workspace: space.view(),
        })
    })?;
    bench.time(("copy", &shape), None, 2.0 * once, || backend.copy(narrow.view(), wide.view()))?;

    let shape = format!("t={t},v={v},h={h}");
    let tokens = backend.alloc(Class::Workspace, DType::U32, Shape::new(&[t]))?;
    let ids: Vec<u8> = Draw::new("tokens").tokens(t, 0..v).iter().flat_map(|id| id.to_le_bytes()).collect();
    backend.write(tokens.view(), &ids)?;
    let (table, dtable) = (bench.tensor(&[v, h])?, bench.f32(&[v, h])?);
    bench.time(("embedding", &shape), None, 2.0 * size * (t * h) as f64, || {
        backend.embedding(Embedding { tokens: tokens.view(), table: table.view(), first_row: 0, y: y.view() })
    })?;
    let space = bench.f32(&[backend.workspace(Scratch::EmbeddingBackward { t, v, h }).max(1)])?;
    bench.time(("embedding_backward", &shape), None, (size + 8.0) * (t * h) as f64, || {
        let (tokens, dy, dtable, workspace) = (tokens.view(), dy.view(), dtable.view(), space.view());
        backend.embedding_backward(EmbeddingBackward { tokens, dy, first_row: 0, dtable, workspace })
    })?;
    let shape = format!("t={t},v={v}");
    let (logits, dlogits) = (bench.tensor(&[t, v])?, bench.tensor(&[t, v])?);
    let (max, sum_exp, target) = (bench.f32(&[t])?, bench.f32(&[t])?, bench.f32(&[t])?);
    let once = size * (t * v) as f64;
    bench.time(("cross_entropy_max", &shape), None, once, || {
        backend.cross_entropy_max(CrossEntropyMax { logits: logits.view(), max: max.view() })
    })?;
    bench.time(("cross_entropy_sums", &shape), None, once, || {
        let (logits, targets, max) = (logits.view(), tokens.view(), max.view());
        let (sum_exp, target) = (sum_exp.view(), target.view());
        backend.cross_entropy_sums(CrossEntropySums {
            logits,
            targets,
            first_column: 0,
            max,
            sum_exp,
            target,
        })
    })?;
    bench.time(("cross_entropy_backward", &shape), None, 2.0 * once, || {
        let (logits, targets, max, sum_exp) = (logits.view(), tokens.view(), max.view(), sum_exp.view());
        backend.cross_entropy_backward(CrossEntropyBackward {
            logits,
            targets,
            first_column: 0,
            max,
            sum_exp,
            scale: 1e-3,
            dlogits: dlogits.view(),
        })
    })?;
    let n = 12 * h * h;
    let [param, grad, m, v] = [bench.f32(&[n])?, bench.f32(&[n])?, bench.f32(&[n])?, bench.f32(&[n])?];
    backend.fill(v.view(), 1.0)?;
    bench.time(("adamw", &format!("n={n}")), None, 28.0 * n as f64, || {
        backend.adamw(AdamW {
            param: param.view(),
            grad: grad.view(),
            m: m.view(),
            v: v.view(),
            lr: 1e-3,
            beta1: 0.9,
            beta2: 0.95,
            eps: 1e-8,
            weight_decay: 0.1,
            grad_scale: 1.0,
            step: 1,
        })
    })?;
    Ok(bench.rows)
}
