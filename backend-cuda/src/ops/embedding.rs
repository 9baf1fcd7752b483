use backend::Result;
use backend::ops::{Embedding, EmbeddingBackward};

use crate::backend::CudaBackend;
use crate::launch::{at, extent, of, roomy};
use crate::memory::CudaBuffer;

/// Two words a token: where the next one of its kind is, and whether it is the first.
pub(crate) fn workspace(t: usize) -> usize {
    2 * t
}

#[repr(C)]
#[derive(Clone, Copy)]
struct Params {
    tokens: u64,
    table: u64,
    y: u64,
    first_row: u64,
    rows: u64,
    h: u32,
}

#[repr(C)]
#[derive(Clone, Copy)]
struct BackwardParams {
    tokens: u64,
    dy: u64,
    dtable: u64,
    next: u64,
    begins: u64,
    first_row: u64,
    rows: u64,
    t: u32,
    h: u32,
}

impl CudaBackend {
    pub(crate) fn do_embedding(&self, args: Embedding<'_, CudaBuffer>) -> Result<()> {
        const OP: &str = "embedding";
        let [t, v, h] = args.check()?;
        let params = Params {
            tokens: at(args.tokens),
            table: at(args.table),
            y: at(args.y),
            first_row: args.first_row as u64,
            rows: v as u64,
            h: extent(OP, "a row", h)?,
        };
        self.launch(
            OP,
            (of("embedding.cu", args.table.dtype()), OP),
            [extent(OP, "tokens", t)?, 1, 1],
            256,
            params,
        )
    }

    pub(crate) fn do_embedding_backward(&self, args: EmbeddingBackward<'_, CudaBuffer>) -> Result<()> {
        const OP: &str = "embedding_backward";
        let [t, v, h] = args.check()?;
        roomy(OP, args.workspace, workspace(t))?;
        let tokens = extent(OP, "tokens", t)?;
        let params = BackwardParams {
            tokens: at(args.tokens),
            dy: at(args.dy),
            dtable: at(args.dtable),
            next: at(args.workspace),
            begins: at(args.workspace) + 4 * u64::from(tokens),
            first_row: args.first_row as u64,
            rows: v as u64,
            t: tokens,
            h: extent(OP, "a row", h)?,
        };
        let variant = of("embedding.cu", args.dy.dtype());
        self.launch(OP, (variant, "embedding_lists"), [tokens.div_ceil(128), 1, 1], 128, params)?;
        self.launch(OP, (variant, OP), [tokens, 1, 1], 256, params)
    }
}
