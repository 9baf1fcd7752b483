//! A backend that dies, hangs, loses its device and is wrong: what the suite's runner has to survive.

use std::process::ExitCode;
use std::sync::Arc;

use backend::ops::*;
use backend::{Backend, Error, ReduceOp, Result, View};
use conformance::{Expectation, Subject};
use minimal_backend::Minimal;

struct Misbehaving {
    inner: Minimal,
}

type Buffer = <Minimal as Backend>::Buffer;

impl Backend for Misbehaving {
    type Buffer = Buffer;

    fn reduce(&self, op: ReduceOp, inputs: &[View<'_, Buffer>], outputs: &[View<'_, Buffer>]) -> Result<()> {
        self.inner.reduce(op, inputs, outputs)
    }

    fn gelu(&self, args: Gelu<'_, Buffer>) -> Result<()> {
        if args.x.len() == 33 {
            eprintln!("the last words of a driver");
            std::process::abort();
        }
        self.inner.gelu(args)
    }

    fn dropout(&self, args: Dropout<'_, Buffer>) -> Result<()> {
        if args.x.len() == 33 {
            std::thread::sleep(std::time::Duration::from_secs(3600));
        }
        self.inner.dropout(args)
    }

    fn adamw(&self, args: AdamW<'_, Buffer>) -> Result<()> {
        if args.param.len() == 33 {
            return Err(Error::Device { what: "it was lost".to_owned() });
        }
        self.inner.adamw(args)
    }

    fn bias_add(&self, args: BiasAdd<'_, Buffer>) -> Result<()> {
        let x = args.x;
        self.inner.bias_add(args)?;
        self.inner.scale(x, 1.5)
    }

    conformance::pass_on! {
        add: Add;
        cast: Cast;
        matmul: Matmul;
        bias_backward: BiasBackward;
        gelu_backward: GeluBackward;
        layernorm: LayerNorm;
        layernorm_backward: LayerNormBackward;
        attention: Attention;
        attention_backward: AttentionBackward;
        attention_cached: AttentionCached;
        embedding: Embedding;
        embedding_backward: EmbeddingBackward;
        cross_entropy_max: CrossEntropyMax;
        cross_entropy_sums: CrossEntropySums;
        cross_entropy_loss: CrossEntropyLoss;
        cross_entropy_backward: CrossEntropyBackward;
        sum: Sum;
        block_squares: BlockSquares;
    }
}

struct Host;

impl Subject for Host {
    type Backend = Misbehaving;

    fn name(&self) -> String {
        "misbehaving".to_owned()
    }

    fn open(&self) -> Result<Arc<Misbehaving>> {
        Ok(Arc::new(Misbehaving { inner: Minimal::default() }))
    }

    fn expected_failures(&self) -> &[Expectation] {
        &[
            Expectation { pattern: "bias_add:t=", reason: "its bias is scaled" },
            Expectation { pattern: "fill:", reason: "a list that is out of date" },
        ]
    }
}

fn main() -> ExitCode {
    conformance::main(Host)
}
