//! A rank's parameters and gradients: one flat buffer each, so that the optimizer, the gradient norm and the data-parallel reduction are few large
//! operations, and a parameter is a view.
//!
//! Within the buffers parameters stand in four regions: those that decay before those that do not, in each the ones that the tensor group cuts before
//! the ones that it repeats. So AdamW is two operations, and the norm, which counts a repeated parameter on one rank only, at most four.

use backend::philox::Stream;
use backend::{Backend, Class, DType, Result, Shape, Tensor, View};

use crate::{GptConfig, Parameter, Shard};

/// Parameters begin at multiples of this many elements: 256 bytes, the alignment that every WebGPU device grants.
const ALIGNMENT: usize = 64;

/// One parameter's place in the flat buffers.
#[derive(Clone, Debug, PartialEq)]
pub struct Entry {
    /// The parameter.
    pub parameter: Parameter,
    /// Its first element.
    pub offset: usize,
}

/// Index of a parameter in its store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Handle(usize);

/// A rank's parameters and their gradients.
pub struct ParameterStore<B: Backend> {
    entries: Vec<Entry>,
    len: usize,
    decayed: usize,
    values: Tensor<B::Buffer>,
    gradients: Tensor<B::Buffer>,
}

impl<B: Backend> ParameterStore<B> {
    /// Memory for the shard's parameters and gradients, all 0.
    ///
    /// # Errors
    /// Those of the backend.
    pub fn new(backend: &B, config: &GptConfig, shard: &Shard) -> Result<Self> {
        let mut parameters = shard.parameters(config);
        parameters.sort_by_key(|p| (!p.decays, !p.tensor_parallel, !p.tied));
        let mut entries = Vec::with_capacity(parameters.len());
        let (mut len, mut decayed) = (0, 0);
        for parameter in parameters {
            let entry = Entry { parameter, offset: len };
            len += entry.parameter.slice.len().next_multiple_of(ALIGNMENT);
            if entry.parameter.decays {
                decayed = len;
            }
            entries.push(entry);
        }
        let flat = |class| backend.alloc(class, DType::F32, Shape::new(&[len]));
        let store = Self {
            entries,
            len,
            decayed,
            values: flat(Class::Parameters)?,
            gradients: flat(Class::Gradients)?,
        };
        backend.fill(store.values.view(), 0.0)?;
        backend.fill(store.gradients.view(), 0.0)?;
        Ok(store)
    }

    /// The parameters in the order of the buffers.
    pub fn entries(&self) -> &[Entry] {
        &self.entries
    }

    /// Elements in each flat buffer, padding included.
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

    /// All gradients.
    pub fn gradients(&self) -> View<'_, B::Buffer> {
        self.gradients.view()
    }

    /// The parameter of that name, if the rank holds it.
    pub fn find(&self, name: &str) -> Option<Handle> {
        self.entries.iter().position(|entry| entry.parameter.name == name).map(Handle)
    }

    /// A parameter's values, in its slice's shape.
    pub fn value(&self, handle: Handle) -> View<'_, B::Buffer> {
        self.window(&self.values, handle)
    }

    /// A parameter's gradient, in its slice's shape.
    pub fn gradient(&self, handle: Handle) -> View<'_, B::Buffer> {
        self.window(&self.gradients, handle)
    }

    fn window<'a>(&self, flat: &'a Tensor<B::Buffer>, Handle(index): Handle) -> View<'a, B::Buffer> {
        let Entry { parameter, offset } = &self.entries[index];
        View::new(flat.view().buffer(), DType::F32, *offset, Shape::new(&parameter.slice.shape))
            .expect("an entry lies in its store")
    }

    /// Draws the initial values: `N(mean, std)` by each element's global index, so that every layout begins with the same bits.
    ///
    /// # Errors
    /// Those of the backend.
    pub fn initialize(&self, backend: &B, seed: u64) -> Result<()> {
        for (index, entry) in self.entries.iter().enumerate() {
            let values = initial_values(&entry.parameter, seed);
            backend.write(self.value(Handle(index)), bytemuck::cast_slice(&values))?;
        }
        Ok(())
    }

    /// Ranges of the flat buffers whose parameters this rank counts in the gradient norm: a parameter that the tensor group repeats is counted by its
    /// first rank, the tied embedding by the first stage.
    pub fn counted(&self, shard: &Shard) -> Vec<std::ops::Range<usize>> {
        let mut ranges: Vec<std::ops::Range<usize>> = Vec::new();
        for (index, entry) in self.entries.iter().enumerate() {
            let Parameter { tensor_parallel, tied, .. } = entry.parameter;
            if !(tensor_parallel || shard.tensor_rank == 0) || (tied && !shard.first) {
                continue;
            }
            // The padding behind a parameter is 0: counting it joins neighbours into one range.
            let end = self.entries.get(index + 1).map_or(self.len, |next| next.offset);
            match ranges.last_mut().filter(|range| range.end == entry.offset) {
                Some(range) => range.end = end,
                None => ranges.push(entry.offset..end),
            }
        }
        ranges
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
        for tensor_rank in 0..4 {
            let shard = Shard { tensor_rank, tensor_size: 4, ..whole.clone() };
            for (part, all) in shard.parameters(&config).iter().zip(whole.parameters(&config)) {
                let global = initial_values(&all, 7);
                let expected: Vec<f32> = part
                    .slice
                    .runs()
                    .iter()
                    .flat_map(|&(first, len)| global[first as usize..first as usize + len].to_vec())
                    .collect();
                assert_eq!(initial_values(part, 7), expected, "{}", part.name);
            }
        }
    }
}
