//! A rank's parameters and gradients: one flat buffer each, so that the optimizer, the gradient norm and the data-parallel reduction are few large
//! operations, and a parameter is a view.
//!
//! Within the buffers parameters stand in four regions: those that decay before those that do not, in each the ones that the tensor group cuts before
//! the ones that it repeats. So AdamW is two operations, and what is summed over token chunks (the last region: LayerNorms and the biases behind a
//! reduction) is one range. Each begins on a block of [`BLOCK`] elements, the unit of the gradient norm, of the sharded optimizer and of gradient buckets.
//!
//! The gradients' buffer goes on behind the parameters: a copy of the last region for each further token chunk, and, where sums are trees, a table of its
//! own for each use of the embedding, so that each has its own sum over microbatches and replicas, on one stage as on two.

use std::ops::Range;

use backend::philox::Stream;
use backend::{Backend, Class, DType, ReduceOp, Result, Shape, Tensor, View};

use crate::accumulation::{Accumulation, Half, Ranges};
use crate::{GptConfig, Parameter, Shard, TensorGroup};

/// Elements of a block: parameters begin at multiples of it, and the gradient norm sums squares block by block.
pub const BLOCK: usize = 256;

/// The table that embedding and head share.
const TABLE: &str = "embedding.token.weight";

/// One parameter's place in the flat buffers.
#[derive(Clone, Debug, PartialEq)]
pub struct Entry {
    /// The parameter.
    pub parameter: Parameter,
    /// Its first element.
    pub offset: usize,
}

impl Entry {
    /// Its elements in the flat buffers, without the padding behind it.
    pub fn range(&self) -> Range<usize> {
        self.offset..self.offset + self.parameter.slice.len()
    }
}

/// Index of a parameter in its store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Handle(usize);

/// How a store keeps its parameters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StoreOptions {
    /// Type of the values that the layers compute with.
    pub dtype: DType,
    /// The flat buffers divide into so many equal parts of whole blocks: the replicas of a sharded optimizer.
    pub parts: usize,
    /// Microbatches whose gradients are summed as a tree (a power of two); `None` adds them up one after the other.
    pub tree: Option<usize>,
    /// Whether there is memory for gradients: what does not train has none.
    pub gradients: bool,
}

/// A rank's parameters and their gradients.
pub struct ParameterStore<B: Backend> {
    entries: Vec<Entry>,
    len: usize,
    decayed: usize,
    /// Parameters summed over token chunks.
    token_summed: Range<usize>,
    /// Token chunks that this rank sums apart.
    token_chunks: usize,
    /// Whether those sums are still to be added over the tensor group.
    sequence_parallel: bool,
    /// The table's entries, and where the gradients of its uses in embedding and head begin, where they have places of their own.
    uses: Option<(Range<usize>, [Option<usize>; 2])>,
    dtype: DType,
    values: Tensor<B::Buffer>,
    gradients: Tensor<B::Buffer>,
    tree: Option<Accumulation<B>>,
}

impl<B: Backend> ParameterStore<B> {
    /// Memory for the shard's parameters and gradients, all 0.
    ///
    /// # Errors
    /// Those of the backend.
    pub fn new(backend: &B, config: &GptConfig, shard: &Shard, options: StoreOptions) -> Result<Self> {
        let mut parameters = shard.parameters(config);
        parameters.sort_by_key(|p| (!p.decays, !p.tensor_parallel, !p.tied));
        let mut entries: Vec<Entry> = Vec::with_capacity(parameters.len());
        let (mut end, mut decayed, mut repeated) = (0, 0, None);
        for parameter in parameters {
            let entry = Entry { parameter, offset: end };
            end += entry.parameter.slice.len().next_multiple_of(BLOCK);
            if entry.parameter.decays {
                decayed = end;
            } else if !entry.parameter.tensor_parallel {
                repeated.get_or_insert(entry.offset);
            }
            entries.push(entry);
        }
        let len = end.next_multiple_of(options.parts * BLOCK);
        let token_summed = repeated.unwrap_or(end)..end;
        let token_chunks = shard.local_token_chunks();
        let copies_end = len + (token_chunks - 1) * token_summed.len();
        let mut gradients_len = copies_end;
        let mut ranges = Ranges { input: decayed..len, copies: len..copies_end, weight: Vec::new() };
        let table: Vec<&Entry> = entries.iter().filter(|entry| entry.parameter.name == TABLE).collect();
        let uses = match (options.tree, &table[..]) {
            (Some(_), [first, ..]) => {
                let range = first.offset..table[table.len() - 1].range().end.next_multiple_of(BLOCK);
                debug_assert_eq!(range.start, 0, "the table stands first among what decays");
                let begins = [shard.first, shard.last].map(|used| {
                    used.then(|| {
                        gradients_len += range.len();
                        gradients_len - range.len()
                    })
                });
                let own = begins.into_iter().flatten().map(|begin| begin..begin + range.len());
                ranges.weight.push(range.end..decayed);
                ranges.weight.extend(own);
                Some((range, begins))
            }
            _ => {
                ranges.weight.push(0..decayed);
                None
            }
        };
        let flat = |class, dtype, len| backend.alloc(class, dtype, Shape::new(&[len]));
        let store = Self {
            entries,
            len,
            decayed,
            token_summed,
            token_chunks,
            sequence_parallel: shard.sequence_parallel && shard.tensor_size > 1,
            uses,
            dtype: options.dtype,
            values: flat(Class::Parameters, options.dtype, len)?,
            gradients: flat(Class::Gradients, DType::F32, if options.gradients { gradients_len } else { 0 })?,
            tree: options.tree.map(|m| Accumulation::new(backend, m, gradients_len, ranges)).transpose()?,
        };
        backend.fill(store.values.view(), 0.0)?;
        backend.fill(store.gradients.view(), 0.0)?;
        Ok(store)
    }

    /// The parameters in the order of the buffers.
    pub fn entries(&self) -> &[Entry] {
        &self.entries
    }

    /// Elements in each flat buffer, padding included; a multiple of [`BLOCK`].
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether the rank holds no parameter.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Elements, from the first, that weight decay applies to.
    pub fn decayed(&self) -> usize {
        self.decayed
    }

    /// All parameters.
    pub fn values(&self) -> View<'_, B::Buffer> {
        self.values.view()
    }

    /// All gradients, in the order of the parameters.
    pub fn gradients(&self) -> View<'_, B::Buffer> {
        self.range(&(0..self.len)).expect("the buffer is at least as long")
    }

    /// The parameter's entries on this rank, chunk by chunk; none if it is not here.
    pub fn find(&self, name: &str) -> Vec<Handle> {
        let of_name = |(i, entry): (usize, &Entry)| (entry.parameter.name == name).then_some(Handle(i));
        self.entries.iter().enumerate().filter_map(of_name).collect()
    }

    /// A parameter's values, in its slice's shape.
    pub fn value(&self, handle: Handle) -> View<'_, B::Buffer> {
        self.window(&self.values, handle, self.entries[handle.0].offset)
    }

    /// A parameter's gradient, in its slice's shape.
    pub fn gradient(&self, handle: Handle) -> View<'_, B::Buffer> {
        self.window(&self.gradients, handle, self.entries[handle.0].offset)
    }

    /// The part of a repeated vector's gradient that comes from this rank's token chunk `chunk`.
    pub fn token_gradient(&self, handle: Handle, chunk: usize) -> View<'_, B::Buffer> {
        let offset = self.entries[handle.0].offset;
        debug_assert!(self.token_summed.contains(&offset) && chunk < self.token_chunks);
        let begin = match chunk {
            0 => offset,
            _ => offset - self.token_summed.start + self.copy_of_summed(chunk).start,
        };
        self.window(&self.gradients, handle, begin)
    }

    /// The gradient of the table's use in the embedding.
    pub fn embedding_gradient(&self, handle: Handle) -> View<'_, B::Buffer> {
        self.gradient_of_use(handle, 0)
    }

    /// The gradient of the table's use in the head.
    pub fn head_gradient(&self, handle: Handle) -> View<'_, B::Buffer> {
        self.gradient_of_use(handle, 1)
    }

    fn gradient_of_use(&self, handle: Handle, place: usize) -> View<'_, B::Buffer> {
        let offset = self.entries[handle.0].offset;
        let begin =
            self.uses.as_ref().and_then(|(table, begins)| Some(offset - table.start + begins[place]?));
        self.window(&self.gradients, handle, begin.unwrap_or(offset))
    }

    /// Where token chunk `chunk`, from 1, has its copy of the summed region.
    fn copy_of_summed(&self, chunk: usize) -> Range<usize> {
        let begin = self.len + (chunk - 1) * self.token_summed.len();
        begin..begin + self.token_summed.len()
    }

    fn window<'a>(
        &self,
        flat: &'a Tensor<B::Buffer>,
        Handle(i): Handle,
        offset: usize,
    ) -> View<'a, B::Buffer> {
        let shape = Shape::new(&self.entries[i].parameter.slice.shape);
        View::new(flat.view().buffer(), flat.dtype(), offset, shape).expect("an entry lies in its store")
    }

    fn range(&self, range: &Range<usize>) -> Result<View<'_, B::Buffer>> {
        self.gradients.view().rows(range.start, range.len())
    }

    /// Begins a step's sums.
    ///
    /// # Errors
    /// Those of the backend.
    pub fn begin_step(&self, backend: &B) -> Result<()> {
        match self.tree {
            Some(_) => Ok(()),
            None => backend.fill(self.gradients.view(), 0.0),
        }
    }

    /// Before the gradients of `half` of a microbatch are computed.
    ///
    /// # Errors
    /// Those of the backend.
    pub fn begin_microbatch(&self, backend: &B, half: Half) -> Result<()> {
        let tree = self.tree.as_ref();
        tree.map_or(Ok(()), |tree| tree.begin_microbatch(backend, self.gradients.view(), half))
    }

    /// After them. Microbatches come in their order, in each half.
    ///
    /// # Errors
    /// Those of the backend and the group.
    pub fn end_microbatch(
        &self,
        backend: &B,
        tensor: &TensorGroup<'_, B::Buffer>,
        half: Half,
        index: usize,
    ) -> Result<()> {
        let Some(tree) = &self.tree else { return Ok(()) };
        if half == Half::Input {
            self.sum_token_chunks(backend, tensor)?;
        }
        tree.end_microbatch(backend, self.gradients.view(), half, index)
    }

    /// Behind the last microbatch.
    ///
    /// # Errors
    /// Those of the backend and the group.
    pub fn end_step(&self, backend: &B, tensor: &TensorGroup<'_, B::Buffer>) -> Result<()> {
        match self.tree {
            Some(_) => Ok(()),
            None => self.sum_token_chunks(backend, tensor),
        }
    }

    /// Adds up token chunks, over the tensor group where it shares out the tokens.
    fn sum_token_chunks(&self, backend: &B, tensor: &TensorGroup<'_, B::Buffer>) -> Result<()> {
        if self.token_summed.is_empty() {
            return Ok(());
        }
        let total = self.range(&self.token_summed)?;
        if self.token_chunks > 1 {
            let copies = (1..self.token_chunks).map(|chunk| self.range(&self.copy_of_summed(chunk)));
            let chunks = std::iter::once(Ok(total)).chain(copies).collect::<Result<Vec<_>>>()?;
            backend.reduce(ReduceOp::Sum, &chunks, &[total])?;
        }
        if self.sequence_parallel { tensor.sum(total) } else { Ok(()) }
    }

    /// The gradients of the table's uses on this rank, where they have places of their own.
    pub fn uses(&self) -> impl Iterator<Item = View<'_, B::Buffer>> {
        let places = self.uses.as_ref().map(|(table, begins)| begins.map(|begin| (begin, table.len())));
        let range = |(begin, len): (Option<usize>, usize)| self.range(&(begin?..begin? + len)).ok();
        places.into_iter().flatten().filter_map(range)
    }

    /// Adds up the table's uses, each of them summed over everything that has it, to the table's gradient.
    ///
    /// # Errors
    /// Those of the backend.
    pub fn add_uses(&self, backend: &B) -> Result<()> {
        match &self.uses {
            Some((table, _)) => {
                backend.reduce(ReduceOp::Sum, &self.uses().collect::<Vec<_>>(), &[self.range(table)?])
            }
            None => Ok(()),
        }
    }

    /// The gradient of the table that first and last stage share, all chunks of it; `None` where it is not shared.
    pub fn tied_gradient(&self) -> Option<View<'_, B::Buffer>> {
        if let Some((_, begins)) = &self.uses
            && begins.contains(&None)
        {
            return self.uses().next();
        }
        let mut tied = self.entries.iter().filter(|entry| entry.parameter.tied);
        let first = tied.next()?;
        let end = tied.next_back().unwrap_or(first).range().end;
        self.range(&(first.offset..end)).ok()
    }

    /// Draws the initial values, `N(mean, std)` by each element's global index, so that every layout begins with the same bits, and hands them to `write`.
    ///
    /// # Errors
    /// Those of `write`.
    pub fn initialize(&self, seed: u64, write: impl Fn(&Entry, &[f32]) -> Result<()>) -> Result<()> {
        self.entries.iter().try_for_each(|entry| write(entry, &initial_values(&entry.parameter, seed)))
    }

    /// Writes one parameter's values, rounded to the store's type.
    ///
    /// # Errors
    /// Those of the backend.
    pub fn write(&self, backend: &B, entry: &Entry, values: &[f32]) -> Result<()> {
        let to = self.values.view().rows(entry.offset, values.len())?;
        match self.dtype {
            DType::Bf16 => {
                let rounded: Vec<half::bf16> = values.iter().map(|&x| half::bf16::from_f32(x)).collect();
                backend.write(to, bytemuck::cast_slice(&rounded))
            }
            DType::F16 => {
                let rounded: Vec<half::f16> = values.iter().map(|&x| half::f16::from_f32(x)).collect();
                backend.write(to, bytemuck::cast_slice(&rounded))
            }
            _ => backend.write(to, bytemuck::cast_slice(values)),
        }
    }

    /// Entries that this rank counts in the gradient norm and saves: a parameter that the tensor group repeats is its first rank's, the tied embedding
    /// the first stage's.
    pub fn counted<'a>(&'a self, shard: &'a Shard) -> impl Iterator<Item = &'a Entry> {
        self.entries.iter().filter(|entry| {
            let Parameter { tensor_parallel, tied, .. } = entry.parameter;
            (tensor_parallel || shard.tensor_rank == 0) && (!tied || shard.first)
        })
    }
}

/// The initial values of the elements that the parameter's slice holds.
pub fn initial_values(parameter: &Parameter, seed: u64) -> Vec<f32> {
    let Parameter { name, slice, init_std, init_mean, .. } = parameter;
    if *init_std == 0.0 {
        return vec![*init_mean; slice.len()];
    }
    let stream = Stream { seed, stream: parameter_stream(name) };
    let draw = |i: u64| (f64::from(*init_mean) + f64::from(*init_std) * stream.normal(i)) as f32;
    slice.runs().into_iter().flat_map(|(first, len)| (first..first + len as u64).map(draw)).collect()
}

/// The stream that a parameter's initial values come from: its name's FNV-1a hash, in the upper half of the streams (dropout has the lower one).
fn parameter_stream(name: &str) -> u64 {
    let hash = name.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)
    });
    hash | 1 << 63
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn initial_values_do_not_depend_on_the_cut() {
        let config = GptConfig::new(2, 16, 4, 8, 128);
        let whole = Shard::whole(&config);
        let all = whole.parameters(&config);
        for (tensor_size, chunks) in [(4, 4), (2, 4), (1, 4)] {
            for tensor_rank in 0..tensor_size {
                let shard = Shard { tensor_rank, tensor_size, chunks, ..whole.clone() };
                for part in shard.parameters(&config) {
                    let global = all.iter().find(|p| p.name == part.name).unwrap();
                    let global = initial_values(global, 7);
                    let runs = part.slice.runs();
                    let run =
                        |&(first, len): &(u64, usize)| global[first as usize..first as usize + len].to_vec();
                    let expected: Vec<f32> = runs.iter().flat_map(run).collect();
                    assert_eq!(initial_values(&part, 7), expected, "{}", part.name);
                }
            }
        }
    }
}
