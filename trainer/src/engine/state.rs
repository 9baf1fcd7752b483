//! A rank's parameters and moments as host memory, by logical name and slice: what checkpoints are made of.

use std::ops::Range;

use backend::{Backend, Communicator, DType, Group, Result, View};
use model::Slice;
use model::store::Entry;

use super::chunk::ModelChunk;

/// One parameter with its moments, the part that a rank holds.
#[derive(Clone, Debug, PartialEq)]
pub struct TensorState {
    /// The parameter's name.
    pub name: String,
    /// Which part this is.
    pub slice: Slice,
    /// Its values, in fp32.
    pub value: Vec<f32>,
    /// Adam's first moment.
    pub m: Vec<f32>,
    /// Adam's second moment.
    pub v: Vec<f32>,
}

/// Reads what this rank is to save: parameters that the tensor group repeats are its first rank's to save, the tied embedding the first stage's. Every
/// replica calls it, as each may have its share of the state; the first one gets it, the others nothing. The gradients are lost.
///
/// # Errors
/// Those of the backend and the communicator.
pub fn export<B: Backend>(
    backend: &B,
    communicator: &dyn Communicator<B::Buffer>,
    data: &Group,
    chunk: &ModelChunk<'_, B>,
) -> Result<Vec<TensorState>> {
    let (parameters, optimizer) = (chunk.stage.parameters(), &chunk.optimizer);
    let first_replica = data.ranks()[0] == communicator.rank();
    let entries: Vec<&Entry> = match first_replica {
        true => parameters.counted(chunk.stage.shard()).collect(),
        false => Vec::new(),
    };
    let read = |flat: View<'_, B::Buffer>| -> Result<Vec<Vec<f32>>> {
        let entry = |entry: &&Entry| {
            let mut host = vec![0.0_f32; entry.parameter.slice.len()];
            backend.read(flat.rows(entry.offset, host.len())?, bytemuck::cast_slice_mut(&mut host))?;
            Ok(host)
        };
        entries.iter().map(entry).collect()
    };
    // The gradients' buffer is free between two steps: shares of the state are gathered there.
    let room = parameters.gradients();
    let [values, m, v] = optimizer.state().map(|own| match own {
        Some(own) if optimizer.sharded() => {
            communicator.all_gather(data, own, room)?;
            read(room)
        }
        Some(own) => read(own),
        None => read(parameters.values()),
    });
    let states = entries.iter().zip(values?).zip(m?).zip(v?).map(|(((entry, value), m), v)| TensorState {
        name: entry.parameter.name.clone(),
        slice: entry.parameter.slice.clone(),
        value,
        m,
        v,
    });
    Ok(join(states))
}

/// Joins neighbouring chunks of one parameter.
fn join(states: impl Iterator<Item = TensorState>) -> Vec<TensorState> {
    let mut joined: Vec<TensorState> = Vec::new();
    for state in states {
        match joined.last_mut().filter(|last| last.name == state.name) {
            None => joined.push(state),
            Some(last) => {
                let differs = |&axis: &usize| last.slice.start[axis] != state.slice.start[axis];
                let axis = (0..last.slice.shape.len()).find(differs).unwrap_or(0);
                let inner: usize = last.slice.shape[axis + 1..].iter().product();
                let [a, b] = [&last.slice, &state.slice].map(|slice| slice.shape[axis] * inner);
                for (to, from) in
                    [(&mut last.value, &state.value), (&mut last.m, &state.m), (&mut last.v, &state.v)]
                {
                    *to = to.chunks(a).zip(from.chunks(b)).flat_map(|(a, b)| [a, b].concat()).collect();
                }
                last.slice.shape[axis] += state.slice.shape[axis];
            }
        }
    }
    joined
}

/// Fills parameters, master copy and moments from `load(name, slice)`, which gives values and both moments.
///
/// # Errors
/// Those of the backend and of `load`.
pub fn import<B: Backend, E: From<backend::Error>>(
    backend: &B,
    chunk: &ModelChunk<'_, B>,
    load: impl Fn(&str, &Slice) -> std::result::Result<[Vec<f32>; 3], E>,
) -> std::result::Result<(), E> {
    let parameters = chunk.stage.parameters();
    for entry in parameters.entries() {
        let [value, m, v] = load(&entry.parameter.name, &entry.parameter.slice)?;
        parameters.write(backend, entry, &value)?;
        for (own, host) in chunk.optimizer.state().into_iter().zip([&value, &m, &v]) {
            if let Some(own) = own {
                write_share(backend, &chunk.optimizer.own(), own, entry, host)?;
            }
        }
    }
    Ok(())
}

/// Draws the initial values, for the parameters and their master copy.
///
/// # Errors
/// Those of the backend.
pub fn initialize<B: Backend>(backend: &B, chunk: &ModelChunk<'_, B>, seed: u64) -> Result<()> {
    let parameters = chunk.stage.parameters();
    parameters.initialize(seed, |entry, values| {
        parameters.write(backend, entry, values)?;
        match chunk.optimizer.state()[0] {
            Some(master) => write_share(backend, &chunk.optimizer.own(), master, entry, values),
            None => Ok(()),
        }
    })
}

/// Writes what of an entry lies in this replica's share of a flat f32 buffer.
fn write_share<B: Backend>(
    backend: &B,
    own: &Range<usize>,
    share: View<'_, B::Buffer>,
    entry: &Entry,
    values: &[f32],
) -> Result<()> {
    debug_assert_eq!(share.dtype(), DType::F32);
    let range = entry.range();
    let (begin, end) = (range.start.max(own.start), range.end.min(own.end));
    if begin >= end {
        return Ok(());
    }
    let part = &values[begin - range.start..end - range.start];
    backend.write(share.rows(begin - own.start, part.len())?, bytemuck::cast_slice(part))
}
