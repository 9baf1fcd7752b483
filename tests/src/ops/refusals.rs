//! Wrong calls: each must be answered at once with the error that names the mistake, and nothing may have been written.
//!
//! What is wrong is the contract's to find (`check` of each operation); whether a backend asks it, before it enqueues anything, is what these cases see.

use backend::ops::*;
use backend::{Backend, DType, Error, ReduceOp, Result, View};

use crate::{Case, Failure, Handle, Measure, Operands, Place, Views};

/// Which error.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Shape,
    DType,
    Overlap,
    Argument,
}

impl Kind {
    fn name(self) -> &'static str {
        match self {
            Kind::Shape => "Error::Shape",
            Kind::DType => "Error::DType",
            Kind::Overlap => "Error::Overlap",
            Kind::Argument => "Error::Argument",
        }
    }

    fn of(error: &Error) -> Option<Self> {
        match error {
            Error::Shape { .. } => Some(Kind::Shape),
            Error::DType { .. } => Some(Kind::DType),
            Error::Overlap { .. } => Some(Kind::Overlap),
            Error::Argument { .. } => Some(Kind::Argument),
            _ => None,
        }
    }
}

/// A wrong call.
pub struct Refusal {
    op: &'static str,
    mistake: &'static str,
    kind: Kind,
}

/// Every operation with a wrong shape; where they differ from it, wrong types, overlaps, numbers out of range and workspaces one element short.
pub fn cases() -> Vec<Refusal> {
    let case = |kind| move |&(op, mistake): &(&'static str, &'static str)| Refusal { op, mistake, kind };
    let shapes = [
        "copy",
        "add",
        "reduce",
        "matmul",
        "matmul_bias",
        "matmul_bias_gelu",
        "bias_add",
        "bias_backward",
        "gelu",
        "gelu_backward",
        "bias_gelu",
        "dropout",
        "bias_dropout_residual",
        "layernorm",
        "layernorm_backward",
        "attention",
        "attention_backward",
        "embedding",
        "embedding_backward",
        "cross_entropy_max",
        "cross_entropy_sums",
        "cross_entropy_loss",
        "cross_entropy_backward",
        "adamw",
        "sum",
        "block_squares",
        "cast",
        "write",
        "read",
    ]
    .map(|op| (op, "shape"));
    let dtypes = [
        "fill",
        "scale",
        "copy",
        "cast",
        "add",
        "matmul",
        "gelu",
        "embedding",
        "cross_entropy_sums",
        "sum",
        "block_squares",
    ]
    .map(|op| (op, "dtype"));
    let overlaps =
        ["copy", "add", "reduce", "matmul", "gelu", "layernorm", "attention", "embedding", "adamw"]
            .map(|op| (op, "overlap"));
    let numbers = [
        ("adamw", "step=0"),
        ("block_squares", "block=0"),
        ("dropout", "p=1"),
        ("layernorm", "eps=0"),
        ("reduce", "inputs=none"),
    ];
    let short = [
        "bias_backward",
        "layernorm_backward",
        "attention",
        "attention_backward",
        "embedding_backward",
        "sum",
    ]
    .map(|op| (op, "short_workspace"));
    let mut cases: Vec<Refusal> = shapes.iter().chain(&short).map(case(Kind::Shape)).collect();
    cases.extend(dtypes.iter().map(case(Kind::DType)));
    cases.extend(overlaps.iter().map(case(Kind::Overlap)));
    cases.extend(numbers.iter().map(case(Kind::Argument)));
    cases
}

/// Operands of which every operation finds right and wrong ones.
struct Company {
    /// `[6, 6]`, two of them.
    square: [Handle; 2],
    /// `[4, 6]`, four of them.
    rows: [Handle; 4],
    /// `[6]`, four of them.
    row: [Handle; 4],
    /// `[4]`, three of them.
    column: [Handle; 3],
    /// `[1]`.
    one: Handle,
    /// `[4]`, u32.
    tokens: Handle,
    /// `[2, 3, 2, 3, 2]`, two of them.
    qkv: [Handle; 2],
    /// `[2, 3, 2, 2]`, two of them.
    out: [Handle; 2],
    /// `[2, 2, 3]`.
    lse: Handle,
    /// As long as the operation asks, or one short of it.
    workspace: Handle,
}

impl Company {
    fn new<B: Backend>(on: &mut Operands<'_, B>, workspace: usize) -> Self {
        let mut input = |shape: &[usize]| on.input("operand", shape, &vec![1.0; shape.iter().product()]);
        Self {
            square: [(); 2].map(|()| input(&[6, 6])),
            rows: [(); 4].map(|()| input(&[4, 6])),
            row: [(); 4].map(|()| input(&[6])),
            column: [(); 3].map(|()| input(&[4])),
            one: input(&[1]),
            qkv: [(); 2].map(|()| input(&[2, 3, 2, 3, 2])),
            out: [(); 2].map(|()| input(&[2, 3, 2, 2])),
            lse: input(&[2, 2, 3]),
            tokens: on.tokens("tokens", &[0, 1, 2, 3]),
            workspace: on.workspace(workspace),
        }
    }
}

impl Refusal {
    fn scratch(&self) -> Option<Scratch> {
        let (b, s, a, d) = (2, 3, 2, 2);
        match self.op {
            "bias_backward" => Some(Scratch::BiasBackward { t: 4, n: 6 }),
            "layernorm_backward" => Some(Scratch::LayerNormBackward { t: 4, h: 6 }),
            "attention" => Some(Scratch::Attention { b, s, a, d }),
            "attention_backward" => Some(Scratch::AttentionBackward { b, s, a, d }),
            "embedding_backward" => Some(Scratch::EmbeddingBackward { t: 4, v: 6, h: 6 }),
            "sum" => Some(Scratch::Sum { n: 24 }),
            _ => None,
        }
    }

    /// Makes the wrong call: a right one but for `self.mistake`.
    fn call<B: Backend>(&self, backend: &B, company: &Company, v: &Views<'_, B::Buffer>) -> Result<()> {
        let [square, square2] = company.square.map(|h| v[h]);
        let [x, y, z, dz] = company.rows.map(|h| v[h]);
        let [row, row2, row3, row4] = company.row.map(|h| v[h]);
        let [column, column2, column3] = company.column.map(|h| v[h]);
        let [qkv, dqkv] = company.qkv.map(|h| v[h]);
        let [out, dout] = company.out.map(|h| v[h]);
        let (one, tokens, lse, workspace) =
            (v[company.one], v[company.tokens], v[company.lse], v[company.workspace]);
        let wrong = |mistake: &str| self.mistake == mistake;
        /// The right operand, or the wrong one if that is the mistake.
        fn or<'a, B>(wrong: bool, right: View<'a, B>, instead: View<'a, B>) -> View<'a, B> {
            if wrong { instead } else { right }
        }
        let shape = wrong("shape");
        match self.op {
            "fill" => backend.fill(tokens, 1.0),
            "scale" => backend.scale(tokens, 2.0),
            "copy" => match self.mistake {
                "shape" => backend.copy(x, row),
                "dtype" => backend.copy(column, tokens),
                _ => backend.copy(x.rows(0, 3)?, x.rows(1, 3)?),
            },
            "add" => match self.mistake {
                "shape" => backend.add(Add { x, y: row, alpha: 1.0 }),
                "dtype" => backend.add(Add { x: tokens, y: column, alpha: 1.0 }),
                _ => backend.add(Add { x, y: x, alpha: 1.0 }),
            },
            "reduce" => match self.mistake {
                "shape" => backend.reduce(ReduceOp::Sum, &[x, row], &[y]),
                "overlap" => backend.reduce(ReduceOp::Sum, &[x.rows(0, 3)?], &[x.rows(1, 3)?]),
                _ => backend.reduce(ReduceOp::Sum, &[], &[y]),
            },
            "matmul" => {
                let (a, b, c) = match self.mistake {
                    "shape" => (x, square, square2),
                    "dtype" => (tokens.reshape([1, 4])?, tokens.reshape([4, 1])?, one.reshape([1, 1])?),
                    _ => (square, square2, square),
                };
                backend.matmul(Matmul { a, b, c, trans_a: false, trans_b: false, alpha: 1.0, beta: 0.0 })
            }
            "matmul_bias" => backend.matmul_bias(MatmulBias { x, w: square, bias: column, y }),
            "matmul_bias_gelu" => {
                backend.matmul_bias_gelu(MatmulBiasGelu { x, w: square, bias: row, pre: y, y: square2 })
            }
            "bias_add" => backend.bias_add(BiasAdd { x, bias: column }),
            "bias_backward" => {
                backend.bias_backward(BiasBackward { dy: x, dbias: or(shape, row, column), workspace })
            }
            "gelu" => match self.mistake {
                "shape" => backend.gelu(Gelu { x, y: square }),
                "dtype" => backend.gelu(Gelu { x: tokens, y: tokens }),
                _ => backend.gelu(Gelu { x: x.rows(0, 3)?, y: x.rows(1, 3)? }),
            },
            "gelu_backward" => backend.gelu_backward(GeluBackward { x, dy: y, dx: square }),
            "bias_gelu" => backend.bias_gelu(BiasGelu { x, bias: row, y: square }),
            "dropout" => {
                let p = if wrong("p=1") { 1.0 } else { 0.5 };
                let mask = DropoutMask { p, stream: super::dropout::STREAM, first: 0 };
                backend.dropout(Dropout { x, y: or(shape, y, square), mask })
            }
            "bias_dropout_residual" => backend.bias_dropout_residual(BiasDropoutResidual {
                x,
                bias: column,
                residual: y,
                y: z,
                mask: None,
            }),
            "layernorm" => backend.layernorm(LayerNorm {
                x,
                gamma: or(shape, row, column),
                beta: row2,
                eps: if wrong("eps=0") { 0.0 } else { 1e-5 },
                y,
                mean: column2,
                rstd: or(wrong("overlap"), column3, column2),
            }),
            "layernorm_backward" => backend.layernorm_backward(LayerNormBackward {
                x,
                gamma: row,
                mean: column,
                rstd: or(shape, column2, row4),
                dy: y,
                dx: z,
                accumulate: false,
                dgamma: row2,
                dbeta: row3,
                workspace,
            }),
            "attention" => {
                let room = or(wrong("overlap"), out, qkv.reshape([72])?.rows(0, 24)?.reshape([2, 3, 2, 2])?);
                let lse = or(shape, lse, column);
                backend.attention(Attention { qkv, out: room, lse, scale: 1.0, dropout: None, workspace })
            }
            "attention_backward" => backend.attention_backward(AttentionBackward {
                qkv,
                out,
                lse: or(shape, lse, column),
                dout,
                dqkv,
                scale: 1.0,
                dropout: None,
                workspace,
            }),
            "embedding" => {
                let y = match self.mistake {
                    "shape" => square2,
                    "overlap" => square.rows(0, 4)?,
                    _ => x,
                };
                backend.embedding(Embedding {
                    tokens: or(wrong("dtype"), tokens, column),
                    table: square,
                    first_row: 0,
                    y,
                })
            }
            "embedding_backward" => backend.embedding_backward(EmbeddingBackward {
                tokens,
                dy: or(shape, x, square),
                first_row: 0,
                dtable: square2,
                workspace,
            }),
            "cross_entropy_max" => backend.cross_entropy_max(CrossEntropyMax { logits: x, max: row }),
            "cross_entropy_sums" => backend.cross_entropy_sums(CrossEntropySums {
                logits: x,
                targets: or(wrong("dtype"), tokens, column),
                first_column: 0,
                max: or(shape, column, row),
                sum_exp: column2,
                target: column3,
            }),
            "cross_entropy_loss" => {
                backend.cross_entropy_loss(CrossEntropyLoss { sum_exp: column, target: row, loss: column2 })
            }
            "cross_entropy_backward" => backend.cross_entropy_backward(CrossEntropyBackward {
                logits: x,
                targets: tokens,
                first_column: 0,
                max: column,
                sum_exp: column2,
                scale: 1.0,
                dlogits: square,
            }),
            "adamw" => backend.adamw(AdamW {
                param: row,
                grad: or(shape, row2, column),
                m: or(wrong("overlap"), row3, row),
                v: row4,
                lr: 1.0,
                beta1: 0.9,
                beta2: 0.95,
                eps: 1e-8,
                weight_decay: 0.0,
                grad_scale: 1.0,
                step: u32::from(!wrong("step=0")),
            }),
            "sum" => {
                let x = or(wrong("dtype"), x, tokens);
                backend.sum(Sum { x, out: or(shape, one, row), alpha: 1.0, beta: 0.0, workspace })
            }
            "block_squares" => {
                let (x, block) = (or(wrong("dtype"), x, tokens), usize::from(!wrong("block=0")) * 24);
                backend.block_squares(BlockSquares { x, out: or(shape, one, row), block })
            }
            "cast" => backend.cast(Cast { src: or(wrong("dtype"), x, tokens), dst: or(shape, y, row) }),
            "write" => backend.write(x, &[0; 95]),
            "read" => backend.read(dz, &mut [0; 97]),
            _ => unreachable!("no call of {} here", self.op),
        }
    }
}

impl Case for Refusal {
    fn id(&self) -> String {
        format!("refusal:op={},mistake={}", self.op, self.mistake)
    }

    fn run<B: Backend>(&self, backend: &B) -> std::result::Result<Measure, Failure> {
        let asked = self.scratch().map_or(0, |scratch| backend.workspace(scratch));
        let short = self.mistake == "short_workspace";
        if short && asked == 0 {
            // This backend needs no workspace here.
            return Ok(Measure::exact());
        }
        let mut on = Operands::new(backend, Place::Offset, DType::F32);
        let company = Company::new(&mut on, asked - usize::from(short));
        let answer = on.attempt(|v| self.call(backend, &company, v))?;
        match answer {
            Err(error) if Kind::of(&error) == Some(self.kind) => Ok(Measure::exact()),
            Err(error) => Err(self.failure(format!("{error:?}"))),
            Ok(()) => Err(self.failure("that all is well".to_owned())),
        }
    }
}

impl Refusal {
    fn failure(&self, got: String) -> Failure {
        Failure::Refusal {
            what: format!("{} with {}", self.op, self.mistake),
            expected: self.kind.name(),
            got,
        }
    }
}
