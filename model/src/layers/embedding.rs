//! Token and position embedding: the model's beginning.

use backend::ops::{Add, BiasAdd, BiasBackward, Dropout, Embedding, EmbeddingBackward};
use backend::{Backend, Buffer, Class, DType, Result, Shape, Tensor, View};

use super::{Context, Dims, DropoutSite, the};
use crate::ParameterStore;
use crate::store::Handle;

/// `x = dropout(token[tokens] + position)`, the token table cut by rows of the vocabulary, the position table repeated.
#[derive(Clone, Debug)]
pub struct TokenEmbedding {
    token: Vec<Handle>,
    position: Handle,
}

/// What the backward needs.
pub struct EmbeddingActivations<B: Backend> {
    /// `[t]`: the input tokens.
    pub tokens: Tensor<B::Buffer>,
}

impl<B: Backend> EmbeddingActivations<B> {
    /// Memory for one microbatch.
    ///
    /// # Errors
    /// Those of the backend.
    pub fn new(backend: &B, dims: &Dims) -> Result<Self> {
        let tokens = backend.alloc(Class::Activations, DType::U32, Shape::new(&[dims.tokens()]))?;
        Ok(Self { tokens })
    }
}

impl TokenEmbedding {
    /// The embedding of a first stage.
    pub fn new<B: Backend>(store: &ParameterStore<B>) -> Self {
        Self {
            token: store.find("embedding.token.weight"),
            position: the(store, "embedding.position.weight"),
        }
    }

    /// Tokens to `x [t', h]`.
    ///
    /// A token's row is in one chunk and 0 in all others, so that any order of adding them up is exact; the first tensor rank adds the positions.
    ///
    /// # Errors
    /// Those of the backend and the group.
    pub fn forward<B: Backend>(
        &self,
        cx: &Context<'_, B>,
        kept: &EmbeddingActivations<B>,
        x: View<'_, B::Buffer>,
    ) -> Result<()> {
        let shared_out = cx.dims.token_parts > 1;
        let y = if shared_out { cx.scratch.whole.view() } else { x };
        self.look_up(cx, kept, 0, y)?;
        if let Some(room) = &cx.scratch.lookup {
            for chunk in 1..self.token.len() {
                self.look_up(cx, kept, chunk, room.view())?;
                cx.backend.add(Add { x: room.view(), y, alpha: 1.0 })?;
            }
        }
        if cx.shard.tensor_rank == 0 {
            self.add_positions(cx, y)?;
        }
        match shared_out {
            true => cx.tensor.sum_scatter(y, x)?,
            false => cx.tensor.sum(x)?,
        }
        match cx.mask(DropoutSite::Embedding) {
            None => Ok(()),
            Some(mask) => cx.backend.dropout(Dropout { x, y: x, mask }),
        }
    }

    /// `y += position`: of whole sequences, or of tokens wherever they stand.
    fn add_positions<B: Backend>(&self, cx: &Context<'_, B>, y: View<'_, B::Buffer>) -> Result<()> {
        let table = cx.parameters.value(self.position);
        match &cx.cached {
            None => {
                cx.backend.bias_add(BiasAdd { x: by_sequence(&cx.dims, y)?, bias: flat(&cx.dims, table)? })
            }
            Some(cached) => {
                let (tokens, room) = (cached.positions, cx.scratch.branch.view());
                cx.backend.embedding(Embedding { tokens, table, first_row: 0, y: room })?;
                cx.backend.add(Add { x: room, y, alpha: 1.0 })
            }
        }
    }

    fn look_up<B: Backend>(
        &self,
        cx: &Context<'_, B>,
        kept: &EmbeddingActivations<B>,
        chunk: usize,
        y: View<'_, B::Buffer>,
    ) -> Result<()> {
        cx.backend.embedding(Embedding {
            tokens: kept.tokens.view(),
            table: cx.parameters.value(self.token[chunk]),
            first_row: cx.first_row(chunk),
            y,
        })
    }

    /// The gradient before the dropout: `d [t', h]`, that of `x`, in place.
    ///
    /// # Errors
    /// Those of the backend.
    pub fn backward_input<B: Backend>(&self, cx: &Context<'_, B>, d: View<'_, B::Buffer>) -> Result<()> {
        match cx.mask(DropoutSite::Embedding) {
            None => Ok(()),
            Some(mask) => cx.backend.dropout(Dropout { x: d, y: d, mask }),
        }
    }

    /// Accumulates both tables' gradients from what [`backward_input`](Self::backward_input) left.
    ///
    /// # Errors
    /// Those of the backend and the group.
    pub fn backward_weight<B: Backend>(
        &self,
        cx: &Context<'_, B>,
        kept: &EmbeddingActivations<B>,
        d: View<'_, B::Buffer>,
    ) -> Result<()> {
        let d = cx.gathered(d, cx.scratch.whole.view())?;
        cx.backend.bias_backward(BiasBackward {
            dy: by_sequence(&cx.dims, d)?,
            dbias: flat(&cx.dims, cx.parameters.gradient(self.position))?,
            workspace: cx.workspace(),
        })?;
        for (chunk, &table) in self.token.iter().enumerate() {
            cx.backend.embedding_backward(EmbeddingBackward {
                tokens: kept.tokens.view(),
                dy: d,
                first_row: cx.first_row(chunk),
                dtable: cx.parameters.embedding_gradient(table),
                workspace: cx.workspace(),
            })?;
        }
        Ok(())
    }
}

/// `[t, h]` as a row a sequence: the position table is a bias of such rows.
fn by_sequence<'a, B: Buffer>(dims: &Dims, x: View<'a, B>) -> Result<View<'a, B>> {
    x.reshape([dims.batch, dims.seq * dims.hidden])
}

/// The first `s` positions in a row.
fn flat<'a, B: Buffer>(dims: &Dims, table: View<'a, B>) -> Result<View<'a, B>> {
    table.rows(0, dims.seq)?.reshape([dims.seq * dims.hidden])
}
