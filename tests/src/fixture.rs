//! What PyTorch computes for a small GPT in fp64: `fixtures/gpt.safetensors`, made by `fixtures/gpt_fixture.py`, which documents the file.

use std::collections::BTreeMap;
use std::path::PathBuf;

use safetensors::tensor::{Dtype, SafeTensors, TensorView};

/// A tensor with its extents.
#[derive(Clone, Debug, PartialEq)]
pub struct Array<T> {
    /// Extents, outermost first.
    pub shape: Vec<usize>,
    /// Elements, row-major.
    pub data: Vec<T>,
}

/// The fixture's model, data and settings, and PyTorch's results.
#[derive(Clone, Debug)]
pub struct Fixture {
    /// Transformer layers.
    pub layers: usize,
    /// Hidden size.
    pub hidden: usize,
    /// Attention heads.
    pub heads: usize,
    /// Tokens of a sample, and rows of the position table.
    pub seq_len: usize,
    /// Rows of the token table.
    pub vocab: usize,
    /// Samples.
    pub batch: usize,
    /// Inner size of the MLP.
    pub ffn_hidden: usize,
    /// Epsilon of every LayerNorm.
    pub layernorm_eps: f32,
    /// Learning rate.
    pub lr: f32,
    /// Decay of the first moment.
    pub beta1: f32,
    /// Decay of the second moment.
    pub beta2: f32,
    /// Adam's epsilon.
    pub eps: f32,
    /// Weight decay of parameters with two axes; others have none.
    pub weight_decay: f32,
    /// Global gradient norm above which gradients are scaled down to it.
    pub clip: f32,
    /// Input tokens, `[batch, seq_len]`.
    pub tokens: Vec<u32>,
    /// Next tokens, `[batch, seq_len]`.
    pub targets: Vec<u32>,
    /// Initial parameters, by logical name.
    pub parameters: BTreeMap<String, Array<f32>>,
    /// Gradients of the mean loss at the initial parameters, by logical name.
    pub gradients: BTreeMap<String, Array<f64>>,
    /// The mean loss after 0, 1, 2 … optimizer steps.
    pub losses: Vec<f64>,
    /// The global gradient norm at each step, before clipping.
    pub grad_norms: Vec<f64>,
}

/// Why the fixture cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum FixtureError {
    /// The file cannot be read.
    #[error("{}: {source}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// It is not a safetensors file, or lacks a tensor.
    #[error("fixture: {0}")]
    Format(#[from] safetensors::SafeTensorError),
    /// A tensor is not of the type or size that it must have.
    #[error("fixture: {tensor} is {got}, expected {expected}")]
    Tensor {
        /// The tensor.
        tensor: String,
        /// What it is.
        got: String,
        /// What it must be.
        expected: String,
    },
}

impl Fixture {
    /// Reads the committed file.
    ///
    /// # Errors
    /// [`FixtureError`] if it is missing or damaged.
    pub fn load() -> Result<Self, FixtureError> {
        let path = PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/fixtures/gpt.safetensors"));
        let bytes = std::fs::read(&path).map_err(|source| FixtureError::Read { path, source })?;
        let file = SafeTensors::deserialize(&bytes)?;
        let (mut parameters, mut gradients) = (BTreeMap::new(), BTreeMap::new());
        for (name, view) in file.tensors() {
            if let Some(parameter) = name.strip_prefix("param.") {
                parameters.insert(parameter.to_owned(), floats(&name, &view)?);
            } else if let Some(parameter) = name.strip_prefix("grad.") {
                gradients.insert(parameter.to_owned(), doubles(&name, &view)?);
            }
        }
        let tokens = indices("tokens", &file.tensor("tokens")?)?;
        let targets = indices("targets", &file.tensor("targets")?)?;
        let hyper = doubles("hyper", &file.tensor("hyper")?)?.data;
        let &[lr, beta1, beta2, eps, weight_decay, clip, layernorm_eps, heads] = &hyper[..] else {
            return Err(mistake("hyper", format!("{} numbers", hyper.len()), "8 numbers"));
        };
        let extents = |name: &str| -> Result<[usize; 2], FixtureError> {
            let shape = file.tensor(&format!("param.{name}"))?.shape().to_vec();
            shape.as_slice().try_into().map_err(|_| mistake(name, format!("{shape:?}"), "a matrix"))
        };
        let [vocab, hidden] = extents("embedding.token.weight")?;
        let [seq_len, _] = extents("embedding.position.weight")?;
        let [ffn_hidden, _] = extents("layers.0.mlp.up.weight")?;
        Ok(Self {
            layers: parameters.keys().filter(|name| name.ends_with(".ln1.gamma")).count(),
            hidden,
            heads: heads as usize,
            seq_len,
            vocab,
            batch: tokens.shape[0],
            ffn_hidden,
            layernorm_eps: layernorm_eps as f32,
            lr: lr as f32,
            beta1: beta1 as f32,
            beta2: beta2 as f32,
            eps: eps as f32,
            weight_decay: weight_decay as f32,
            clip: clip as f32,
            tokens: tokens.data,
            targets: targets.data,
            parameters,
            gradients,
            losses: doubles("losses", &file.tensor("losses")?)?.data,
            grad_norms: doubles("grad_norms", &file.tensor("grad_norms")?)?.data,
        })
    }
}

fn mistake(tensor: &str, got: String, expected: &str) -> FixtureError {
    FixtureError::Tensor { tensor: tensor.to_owned(), got, expected: expected.to_owned() }
}

/// The elements of a tensor of that type, `N` bytes each.
fn array<const N: usize, T>(
    name: &str,
    view: &TensorView<'_>,
    dtype: Dtype,
    convert: impl Fn([u8; N]) -> T,
) -> Result<Array<T>, FixtureError> {
    if view.dtype() != dtype {
        return Err(mistake(name, format!("{:?}", view.dtype()), &format!("{dtype:?}")));
    }
    let element = |chunk: &[u8]| {
        let mut bytes = [0; N];
        bytes.copy_from_slice(chunk);
        convert(bytes)
    };
    Ok(Array { shape: view.shape().to_vec(), data: view.data().chunks_exact(N).map(element).collect() })
}

fn floats(name: &str, view: &TensorView<'_>) -> Result<Array<f32>, FixtureError> {
    array(name, view, Dtype::F32, f32::from_le_bytes)
}

fn doubles(name: &str, view: &TensorView<'_>) -> Result<Array<f64>, FixtureError> {
    array(name, view, Dtype::F64, f64::from_le_bytes)
}

fn indices(name: &str, view: &TensorView<'_>) -> Result<Array<u32>, FixtureError> {
    array(name, view, Dtype::U32, u32::from_le_bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn is_whole() {
        let fixture = Fixture::load().unwrap();
        assert_eq!((fixture.layers, fixture.hidden, fixture.heads, fixture.ffn_hidden), (2, 16, 4, 64));
        assert_eq!((fixture.batch, fixture.seq_len, fixture.vocab), (4, 12, 24));
        assert_eq!(fixture.tokens.len(), 48);
        assert_eq!((fixture.losses.len(), fixture.grad_norms.len()), (11, 10));
        assert_eq!(fixture.parameters.len(), 2 + 12 * 2 + 2);
        let mut squares = 0.0;
        for (name, parameter) in &fixture.parameters {
            let gradient = &fixture.gradients[name];
            assert_eq!(gradient.shape, parameter.shape, "{name}");
            squares += gradient.data.iter().map(|g| g * g).sum::<f64>();
        }
        // The gradients in the file are those of the run in the file.
        assert!((squares.sqrt() / fixture.grad_norms[0] - 1.0).abs() < 1e-12);
    }
}
