//! What a step must know of the whole world: its loss, the norm of its gradients, and whether a rank wishes to stop. The one thing that is read back.
//!
//! `fast`: each rank adds up its own on the device, and three numbers are summed over the world. `invariant`: every microbatch has its place among the losses,
//! and every chunk of every parameter its place among the squares; each place is filled by one rank, the sum over the world only collects them, and
//! both are added up as trees in an order that no layout changes.

use std::collections::HashMap;

use backend::ops::{BlockSquares, Sum};
use backend::{Backend, Class, Communicator, DType, Group, ReduceOp, Result, Shape, Tensor};
use model::store::{BLOCK, Entry};
use model::{GptConfig, Shard};

use super::chunk::ModelChunk;
use super::tree::tree_sum;
use crate::layout::Coordinates;

/// The world's totals of a step.
#[derive(Clone, Copy, Debug)]
pub struct Totals {
    /// Sum of the weighted losses.
    pub loss: f32,
    /// Sum of the squares of all gradients.
    pub squares: f32,
    /// Ranks that wish to stop.
    pub stops: f32,
}

/// Places of every chunk of every parameter in the canonical order: the whole model's, front to back.
struct Places {
    first: HashMap<String, usize>,
    count: usize,
}

impl Places {
    fn new(model: &GptConfig, chunks: usize) -> Self {
        let mut first = HashMap::new();
        let mut count = 0;
        for parameter in Shard::whole(model).parameters(model) {
            first.insert(parameter.name, count);
            count += if parameter.tensor_parallel { chunks } else { 1 };
        }
        Self { first, count }
    }

    fn of(&self, entry: &Entry) -> usize {
        let slice = &entry.parameter.slice;
        let chunk = slice.start.iter().zip(&slice.shape).map(|(start, extent)| start / extent).max();
        self.first[&entry.parameter.name] + chunk.unwrap_or(0)
    }
}

/// Adds up what ranks know.
pub struct Tally<B: Backend> {
    places: Option<Places>,
    /// Squares of the gradients of each block of the largest chunk's parameters.
    blocks: Tensor<B::Buffer>,
    /// What is summed over the world.
    shared: Tensor<B::Buffer>,
    world: Group,
    data: Group,
}

impl<B: Backend> Tally<B> {
    /// For a rank whose fullest model chunk has `len` elements, in a world of `microbatches` a step. `chunks` is C of `invariant` sums, `None` for fast
    /// ones.
    ///
    /// # Errors
    /// Those of the backend.
    pub fn new(
        backend: &B,
        model: &GptConfig,
        chunks: Option<usize>,
        (len, microbatches): (usize, usize),
        [world, data]: [Group; 2],
    ) -> Result<Self> {
        let places = chunks.map(|chunks| Places::new(model, chunks));
        let shared = places.as_ref().map_or(3, |places| 1 + microbatches + places.count);
        let tensor = |len| backend.alloc(Class::Workspace, DType::F32, Shape::new(&[len]));
        Ok(Self { places, blocks: tensor(len / BLOCK)?, shared: tensor(shared)?, world, data })
    }

    /// The world's totals; `norm` asks for the squares of the gradients, which have been reduced over the replicas.
    ///
    /// # Errors
    /// Those of the backend and the communicator.
    pub fn totals(
        &self,
        backend: &B,
        communicator: &dyn Communicator<B::Buffer>,
        chunks: &[ModelChunk<'_, B>],
        at: Coordinates,
        (microbatches, replicas): (usize, usize),
        (norm, stop): (bool, bool),
    ) -> Result<Totals> {
        let last = chunks.last().filter(|chunk| chunk.stage.shard().last && at.tp == 0);
        let stops = f32::from(u8::from(stop));
        let Some(places) = &self.places else {
            let shared = self.shared.view();
            let mut host = [stops, 0.0, 0.0];
            backend.write(shared, bytemuck::cast_slice(&host))?;
            if let Some(chunk) = last {
                let (x, out) = (chunk.losses.view().rows(0, microbatches)?, shared.rows(1, 1)?);
                backend.sum(Sum { x, out, alpha: 1.0, beta: 0.0, workspace: chunk.stage.workspace() })?;
            }
            if norm {
                for chunk in chunks.iter().filter(|chunk| chunk.optimizer.sharded() || at.dp == 0) {
                    self.add_squares(backend, chunk)?;
                }
            }
            communicator.all_reduce(&self.world, ReduceOp::Sum, shared)?;
            backend.read(shared, bytemuck::cast_slice_mut(&mut host))?;
            let [stops, loss, squares] = host;
            return Ok(Totals { loss, squares, stops });
        };

        let losses = microbatches * replicas;
        let mut host = vec![0.0; 1 + losses + places.count];
        host[0] = stops;
        if let Some(chunk) = last {
            let own = &mut host[1 + at.dp * microbatches..][..microbatches];
            backend.read(chunk.losses.view().rows(0, microbatches)?, bytemuck::cast_slice_mut(own))?;
        }
        if norm {
            for chunk in chunks {
                let squares = self.block_squares(backend, communicator, chunk)?;
                for entry in chunk.stage.parameters().counted(chunk.stage.shard()).filter(|_| at.dp == 0) {
                    let range = entry.range();
                    let blocks = &squares[range.start / BLOCK..range.end.div_ceil(BLOCK)];
                    host[1 + losses + places.of(entry)] = tree_sum(blocks);
                }
            }
        }
        let shared = self.shared.view().rows(0, host.len())?;
        backend.write(shared, bytemuck::cast_slice(&host))?;
        communicator.all_reduce(&self.world, ReduceOp::Sum, shared)?;
        backend.read(shared, bytemuck::cast_slice_mut(&mut host))?;
        let (losses, squares) = host[1..].split_at(losses);
        Ok(Totals { loss: tree_sum(losses), squares: tree_sum(squares), stops: host[0] })
    }

    /// `shared[2] +=` the squares of the gradients that the rank counts, of those that it has.
    fn add_squares(&self, backend: &B, chunk: &ModelChunk<'_, B>) -> Result<()> {
        let (parameters, own) = (chunk.stage.parameters(), chunk.optimizer.own());
        let blocks = self.blocks.view().rows(0, own.len() / BLOCK)?;
        let x = parameters.gradients().rows(own.start, own.len())?;
        backend.block_squares(BlockSquares { x, out: blocks, block: BLOCK })?;
        // Neighbours join into one range; the padding behind a parameter is 0.
        let mut ranges: Vec<std::ops::Range<usize>> = Vec::new();
        for entry in parameters.counted(chunk.stage.shard()) {
            let range = entry.range();
            let begin = range.start.max(own.start) / BLOCK;
            let end = range.end.next_multiple_of(BLOCK).min(own.end) / BLOCK;
            match ranges.last_mut().filter(|last| last.end == begin) {
                _ if begin >= end => {}
                Some(last) => last.end = end,
                None => ranges.push(begin..end),
            }
        }
        for range in ranges {
            let x = blocks.rows(range.start - own.start / BLOCK, range.len())?;
            let out = self.shared.view().rows(2, 1)?;
            backend.sum(Sum { x, out, alpha: 1.0, beta: 1.0, workspace: chunk.stage.workspace() })?;
        }
        Ok(())
    }

    /// The squares of every block of a chunk's gradients, whichever replica has them.
    fn block_squares(
        &self,
        backend: &B,
        communicator: &dyn Communicator<B::Buffer>,
        chunk: &ModelChunk<'_, B>,
    ) -> Result<Vec<f32>> {
        let (parameters, own) = (chunk.stage.parameters(), chunk.optimizer.own());
        let blocks = self.blocks.view().rows(0, parameters.len() / BLOCK)?;
        let own_blocks = blocks.rows(own.start / BLOCK, own.len() / BLOCK)?;
        let x = parameters.gradients().rows(own.start, own.len())?;
        backend.block_squares(BlockSquares { x, out: own_blocks, block: BLOCK })?;
        if chunk.optimizer.sharded() {
            communicator.all_gather(&self.data, own_blocks, blocks)?;
        }
        let mut host = vec![0.0_f32; blocks.len()];
        backend.read(blocks, bytemuck::cast_slice_mut(&mut host))?;
        Ok(host)
    }
}
