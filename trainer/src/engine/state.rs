//! A rank's parameters and moments as host memory, by logical name and slice: what checkpoints are made of.

use backend::{Backend, Result};
use model::{ParameterStore, Shard, Slice};

use super::Optimizer;

/// One parameter with its moments, the part that a rank holds.
#[derive(Clone, Debug, PartialEq)]
pub struct TensorState {
    /// The parameter's name.
    pub name: String,
    /// Which part this is.
    pub slice: Slice,
    /// Its values.
    pub value: Vec<f32>,
    /// Adam's first moment.
    pub m: Vec<f32>,
    /// Adam's second moment.
    pub v: Vec<f32>,
}

/// Reads what this rank is to save: parameters that the tensor group repeats are its first rank's to save, the tied embedding the first stage's.
///
/// # Errors
/// Those of the backend.
pub fn export<B: Backend>(
    backend: &B,
    parameters: &ParameterStore<B>,
    optimizer: &Optimizer<B>,
    shard: &Shard,
) -> Result<Vec<TensorState>> {
    let [m, v] = optimizer.moments();
    let read = |flat: backend::View<'_, B::Buffer>, first, len| -> Result<Vec<f32>> {
        let mut host = vec![0.0_f32; len];
        backend.read(flat.rows(first, len)?, bytemuck::cast_slice_mut(&mut host))?;
        Ok(host)
    };
    let counted = parameters.counted(shard);
    let mut list = Vec::new();
    for entry in parameters.entries() {
        if !counted.iter().any(|range| range.contains(&entry.offset)) {
            continue;
        }
        let (first, len) = (entry.offset, entry.parameter.slice.len());
        list.push(TensorState {
            name: entry.parameter.name.clone(),
            slice: entry.parameter.slice.clone(),
            value: read(parameters.values(), first, len)?,
            m: read(m, first, len)?,
            v: read(v, first, len)?,
        });
    }
    Ok(list)
}

/// Fills parameters and moments from `load(name, slice)`, which gives values and both moments.
///
/// # Errors
/// Those of the backend and of `load`.
pub fn import<B: Backend, E: From<backend::Error>>(
    backend: &B,
    parameters: &ParameterStore<B>,
    optimizer: Option<&Optimizer<B>>,
    load: impl Fn(&str, &Slice) -> std::result::Result<[Vec<f32>; 3], E>,
) -> std::result::Result<(), E> {
    for entry in parameters.entries() {
        let slice = &entry.parameter.slice;
        let [value, m, v] = load(&entry.parameter.name, slice)?;
        let write = |flat: backend::View<'_, B::Buffer>, host: &[f32]| -> std::result::Result<(), E> {
            Ok(backend.write(flat.rows(entry.offset, slice.len())?, bytemuck::cast_slice(host))?)
        };
        write(parameters.values(), &value)?;
        if let Some(optimizer) = optimizer {
            let [flat_m, flat_v] = optimizer.moments();
            write(flat_m, &m)?;
            write(flat_v, &v)?;
        }
    }
    Ok(())
}
