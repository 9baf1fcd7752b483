//! What is in a checkpoint, whether it is whole, and in what two of them differ.

use std::collections::BTreeSet;
use std::fmt::Write;

use model::Slice;
use serde::Serialize;

use super::Found;
use crate::checkpoint::{Meta, Reader};
use crate::{Error, Result};

fn json<T: Serialize>(value: &T) -> Result<String> {
    serde_json::to_string_pretty(value).map_err(|error| Error::other(format!("no JSON: {error}")))
}

#[derive(Serialize)]
struct Listing<'a> {
    path: String,
    step: u64,
    #[serde(flatten)]
    meta: &'a Meta,
    parameters: u64,
    weights_alone: bool,
    tensors: Vec<(&'a str, &'a [usize])>,
}

/// What a checkpoint is of, with its tensors.
pub fn inspect(found: &Found, as_json: bool) -> Result<String> {
    let Found { reader, .. } = found;
    let meta = reader.meta();
    let listing = Listing {
        path: reader.dir().display().to_string(),
        step: reader.step(),
        meta,
        parameters: meta.model.parameters(),
        weights_alone: reader.weights_alone(),
        tensors: reader.tensors().collect(),
    };
    if as_json {
        return json(&listing);
    }
    let model = &meta.model;
    let mut text = format!(
        "{}\n  step {}, {} updates, {} samples, {} tokens of the schedule, seed {}\n",
        listing.path, listing.step, meta.updates, meta.samples_consumed, meta.scheduled_tokens, meta.seed
    );
    let _ = writeln!(
        text,
        "  model: {} parameters, {} layers, hidden {}, {} heads, FFN {}, {} positions, vocabulary {} ({} tokens)",
        listing.parameters,
        model.layers,
        model.hidden,
        model.heads,
        model.ffn_hidden,
        model.seq_len,
        model.vocab,
        meta.tokenizer.tokens
    );
    let moments = if listing.weights_alone { "weights alone" } else { "weights and Adam's moments" };
    let _ = writeln!(text, "  tokenizer: {}; written by: {}; {moments}", meta.tokenizer.name, meta.layout);
    for (name, shape) in listing.tensors {
        let _ = writeln!(text, "  {name:<40} {shape:?}");
    }
    Ok(text)
}

/// Checks hashes (which finding it has done) and values.
pub fn verify(found: &Found) -> Result<String> {
    let reader = &found.reader;
    let mut values = 0;
    for (name, shape) in reader.tensors() {
        let data = reader.read(name, &Slice::whole(shape))?;
        if let Some(index) = data.iter().position(|x| !x.is_finite()) {
            return Err(Error::user(format!("{name}[{index}] is {}", data[index]))
                .at(reader.dir().display().to_string())
                .remedy(
                    "the run has diverged: go on from an earlier checkpoint with a smaller learning rate",
                ));
        }
        values += data.len();
    }
    let tensors = reader.tensors().count();
    Ok(format!("{}: whole, {tensors} tensors, {values} values, all finite", reader.dir().display()))
}

/// How a tensor differs.
#[derive(Debug, Serialize)]
struct Difference {
    tensor: String,
    /// Elements whose bits differ, of how many; none if one of the two lacks the tensor or it has another shape there.
    differ: Option<(usize, usize)>,
    max_absolute: f64,
    max_relative: f64,
}

#[derive(Serialize)]
struct Differences {
    equal: bool,
    tensors: usize,
    different: Vec<Difference>,
}

/// Compares all tensors, bit for bit.
pub fn diff(first: &Reader, second: &Reader, as_json: bool) -> Result<String> {
    let names: BTreeSet<&str> = first.tensors().chain(second.tensors()).map(|(name, _)| name).collect();
    let shape = |reader: &Reader, wanted: &str| {
        reader.tensors().find(|(name, _)| *name == wanted).map(|(_, shape)| shape.to_vec())
    };
    let mut different = Vec::new();
    for name in &names {
        let (Some(a), Some(b)) = (shape(first, name), shape(second, name)) else {
            different.push(Difference {
                tensor: (*name).to_owned(),
                differ: None,
                max_absolute: 0.0,
                max_relative: 0.0,
            });
            continue;
        };
        if a != b {
            different.push(Difference {
                tensor: (*name).to_owned(),
                differ: None,
                max_absolute: 0.0,
                max_relative: 0.0,
            });
            continue;
        }
        let (a, b) = (first.read(name, &Slice::whole(&a))?, second.read(name, &Slice::whole(&b))?);
        let differ = a.iter().zip(&b).filter(|(a, b)| a.to_bits() != b.to_bits()).count();
        if differ == 0 {
            continue;
        }
        let gaps = || a.iter().zip(&b).map(|(a, b)| (f64::from(*a), f64::from(*b)));
        // NaN is the largest of differences.
        let largest = |x: f64, y: f64| if x.is_nan() || y.is_nan() { f64::NAN } else { x.max(y) };
        different.push(Difference {
            tensor: (*name).to_owned(),
            differ: Some((differ, a.len())),
            max_absolute: gaps().map(|(a, b)| (a - b).abs()).fold(0.0, largest),
            max_relative: gaps()
                .filter(|(a, b)| a != b)
                .map(|(a, b)| (a - b).abs() / a.abs().max(b.abs()))
                .fold(0.0, largest),
        });
    }
    let all = Differences { equal: different.is_empty(), tensors: names.len(), different };
    let text = match as_json {
        true => json(&all)?,
        false => words(&all, first, second),
    };
    match all.equal {
        true => Ok(text),
        false => {
            println!("{text}");
            Err(Error::other(format!("{} of {} tensors differ", all.different.len(), all.tensors)))
        }
    }
}

fn words(all: &Differences, first: &Reader, second: &Reader) -> String {
    let (a, b) = (first.dir().display(), second.dir().display());
    if all.equal {
        return format!("{a}\n{b}\nequal: {} tensors, bit for bit", all.tensors);
    }
    let mut text = format!("{a}\n{b}\n");
    for difference in &all.different {
        let Difference { tensor, differ, max_absolute, max_relative } = difference;
        let _ = match differ {
            None => writeln!(text, "  {tensor:<40} in one of them only, or of another shape"),
            Some((count, len)) => writeln!(
                text,
                "  {tensor:<40} {count} of {len} differ, by at most {max_absolute:.3e} ({max_relative:.3e} relative)"
            ),
        };
    }
    text
}
