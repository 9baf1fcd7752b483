//! A checkpoint as a Hugging Face GPT-2.

use std::path::Path;

use half::{bf16, f16};
use model::Slice;
use safetensors::tensor::{Dtype, TensorView};

use super::gpt2::{Gpt2Config, entries};
use super::safetensors_dir::FILE;
use super::{Found, Width, whole_directory};
use crate::run::TOKENIZER_FILE;
use crate::{Error, Result, metrics};

/// Exports; returns what to tell the user.
pub fn export(found: &Found, output: &Path, dtype: Width) -> Result<String> {
    let meta = found.reader.meta();
    let (model, tokens) = (&meta.model, meta.tokenizer.tokens);
    let tokenizer = found.tokenizer()?;
    let config = Gpt2Config::of(model, tokens, tokenizer.eod());
    whole_directory(output, |dir| {
        let (kind, mut tensors) = (dtype.kind(), Vec::new());
        for entry in entries(model).iter().flatten() {
            let ours = found.reader.read(&entry.ours, &Slice::whole(&entry.shape))?;
            let values = entry.to_theirs(&ours, model.heads, tokens);
            tensors.push((
                format!("transformer.{}", entry.theirs),
                entry.their_shape(tokens),
                dtype.bytes(&values),
            ));
        }
        let failed = |error: safetensors::SafeTensorError| Error::other(format!("no safetensors: {error}"));
        let mut views = Vec::with_capacity(tensors.len());
        for (name, shape, bytes) in &tensors {
            views.push((name.as_str(), TensorView::new(kind, shape.clone(), bytes).map_err(failed)?));
        }
        // transformers asks for it.
        let format = [("format".to_owned(), "pt".to_owned())].into();
        let path = dir.join(FILE);
        safetensors::serialize_to_file(views, Some(format), &path).map_err(|error| match error {
            safetensors::SafeTensorError::IoError(e) => Error::io("write", &path, &e),
            other => failed(other),
        })?;
        let text =
            serde_json::to_string_pretty(&config).map_err(|e| Error::other(format!("no JSON: {e}")))?;
        metrics::replace(&dir.join("config.json"), text.as_bytes())?;
        let file = found.run.join(TOKENIZER_FILE);
        if meta.tokenizer.name != "gpt2" {
            let json =
                std::fs::read(&file).map_err(|e| Error::io("read the model's tokenizer", &file, &e))?;
            metrics::replace(&dir.join(TOKENIZER_FILE), &json)?;
        }
        Ok(())
    })?;
    Ok(format!("exported {} parameters, {tokens} tokens: {}", model.parameters(), output.display()))
}

impl Width {
    fn kind(self) -> Dtype {
        match self {
            Width::F32 => Dtype::F32,
            Width::Bf16 => Dtype::BF16,
            Width::F16 => Dtype::F16,
        }
    }

    fn bytes(self, values: &[f32]) -> Vec<u8> {
        match self {
            Width::F32 => values.iter().flat_map(|x| x.to_le_bytes()).collect(),
            Width::Bf16 => values.iter().flat_map(|x| bf16::from_f32(*x).to_le_bytes()).collect(),
            Width::F16 => values.iter().flat_map(|x| f16::from_f32(*x).to_le_bytes()).collect(),
        }
    }
}
