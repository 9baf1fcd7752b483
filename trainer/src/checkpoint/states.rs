//! What ranks hold, as tensors of a checkpoint: each parameter with Adam's two moments.

use model::Slice;

use super::{CheckpointError, Reader, ShardTensor, Writer, adam_m, adam_v};
use crate::engine::TensorState;

impl Writer {
    /// Writes what a rank exports as its shard; no shard for nothing.
    ///
    /// # Errors
    /// As [`write_shard`](Self::write_shard).
    pub fn write_states(&self, index: usize, states: &[TensorState]) -> Result<(), CheckpointError> {
        if states.is_empty() {
            return Ok(());
        }
        let moments: Vec<[String; 2]> = states.iter().map(|s| [adam_m(&s.name), adam_v(&s.name)]).collect();
        let tensors =
            states.iter().zip(&moments).flat_map(|(state, [m, v])| {
                [(&state.name, &state.value), (m, &state.m), (v, &state.v)]
                    .map(|(name, values)| ShardTensor { name, slice: &state.slice, values })
            });
        self.write_shard(index, &tensors.collect::<Vec<_>>())
    }
}

impl Reader {
    /// A slice of a parameter and of both of its moments, which are 0 in a checkpoint of weights alone.
    ///
    /// # Errors
    /// As [`read`](Self::read).
    pub fn read_state(&self, name: &str, slice: &Slice) -> Result<[Vec<f32>; 3], CheckpointError> {
        let [m, v] = [adam_m(name), adam_v(name)];
        if self.weights_alone() {
            return Ok([self.read(name, slice)?, vec![0.0; slice.len()], vec![0.0; slice.len()]]);
        }
        Ok([self.read(name, slice)?, self.read(&m, slice)?, self.read(&v, slice)?])
    }

    /// Whether it holds no moments, as an imported one.
    pub fn weights_alone(&self) -> bool {
        let moments = [adam_m(""), adam_v("")];
        !self.tensors().any(|(name, _)| moments.iter().any(|suffix| name.ends_with(suffix)))
    }
}
