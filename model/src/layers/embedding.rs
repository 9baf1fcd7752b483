//! Token and position embedding: the model's beginning.

use backend::ops::{BiasAdd, BiasBackward, Dropout, Embedding, EmbeddingBackward};
use backend::{Backend, Class, DType, Result, Shape, Tensor, View};

use super::{Context, Dims, DropoutSite};
use crate::ParameterStore;
use crate::store::Handle;

/// `x = dropout(token[tokens] + position)`, the token table cut by rows of the vocabulary, the position table repeated.
#[derive(Clone, Copy, Debug)]
pub struct TokenEmbedding {
    token: Handle,
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
        let find = |name| store.find(name).expect("a first stage holds the embedding");
        Self { token: find("embedding.token.weight"), position: find("embedding.position.weight") }
    }

    /// Tokens to `x [t, h]`.
    ///
    /// # Errors
    /// Those of the backend and the group.
    pub fn forward<B: Backend>(
        &self,
        cx: &Context<'_, B>,
        kept: &EmbeddingActivations<B>,
        x: View<'_, B::Buffer>,
    ) -> Result<()> {
        cx.backend.embedding(Embedding {
            tokens: kept.tokens.view(),
            table: cx.parameters.value(self.token),
            first_row: cx.shard.first_row(cx.config),
            y: x,
        })?;
        cx.tensor.sum(x)?;
        let positions = cx.parameters.value(self.position);
        cx.backend.bias_add(BiasAdd { x: by_sequence(&cx.dims, x)?, bias: flat(&cx.dims, positions)? })?;
        match cx.mask(DropoutSite::Embedding) {
            None => Ok(()),
            Some(mask) => cx.backend.dropout(Dropout { x, y: x, mask }),
        }
    }

    /// Accumulates both tables' gradients from `d`, the gradient of `x`, which is spent.
    ///
    /// # Errors
    /// Those of the backend.
    pub fn backward<B: Backend>(
        &self,
        cx: &Context<'_, B>,
        kept: &EmbeddingActivations<B>,
        d: View<'_, B::Buffer>,
    ) -> Result<()> {
        if let Some(mask) = cx.mask(DropoutSite::Embedding) {
            cx.backend.dropout(Dropout { x: d, y: d, mask })?;
        }
        cx.backend.bias_backward(BiasBackward {
            dy: by_sequence(&cx.dims, d)?,
            dbias: flat(&cx.dims, cx.parameters.gradient(self.position))?,
            workspace: cx.workspace(),
        })?;
        cx.backend.embedding_backward(EmbeddingBackward {
            tokens: kept.tokens.view(),
            dy: d,
            first_row: cx.shard.first_row(cx.config),
            dtable: cx.parameters.gradient(self.token),
            workspace: cx.workspace(),
        })
    }
}

/// `[t, h]` as a row a sequence: the position table is a bias of such rows.
fn by_sequence<'a, B: backend::Buffer>(dims: &Dims, x: View<'a, B>) -> Result<View<'a, B>> {
    x.reshape([dims.batch, dims.seq * dims.hidden])
}

/// The first `s` positions in a row.
fn flat<'a, B: backend::Buffer>(dims: &Dims, table: View<'a, B>) -> Result<View<'a, B>> {
    table.rows(0, dims.seq)?.reshape([dims.seq * dims.hidden])
}
