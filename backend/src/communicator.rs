//! What ranks say to each other: collectives on groups, and point-to-point messages between pipeline stages.

use std::sync::Arc;
use std::time::Instant;

use crate::{Buffer, DType, Error, Result, View};

/// Which cut of the cluster a group belongs to: names it in errors and timelines.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum GroupKind {
    /// Ranks that share each layer (NVLink, inside a node).
    Tensor,
    /// Ranks that hold the same parameters and see different samples.
    Data,
    /// Ranks that hold consecutive layers.
    Pipeline,
    /// First and last stage, which share the tied embedding.
    Embedding,
    /// Every rank.
    World,
}

impl GroupKind {
    /// The name in messages.
    pub const fn name(self) -> &'static str {
        match self {
            GroupKind::Tensor => "tensor",
            GroupKind::Data => "data",
            GroupKind::Pipeline => "pipeline",
            GroupKind::Embedding => "embedding",
            GroupKind::World => "world",
        }
    }
}

/// Some ranks of the world, in an order that all of them agree on.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Group {
    kind: GroupKind,
    ranks: Arc<[usize]>,
}

impl Group {
    /// The group of these world ranks.
    pub fn new(kind: GroupKind, ranks: impl Into<Arc<[usize]>>) -> Self {
        Self { kind, ranks: ranks.into() }
    }

    /// Which cut it belongs to.
    pub fn kind(&self) -> GroupKind {
        self.kind
    }

    /// Its world ranks, in order.
    pub fn ranks(&self) -> &[usize] {
        &self.ranks
    }

    /// Number of ranks.
    pub fn size(&self) -> usize {
        self.ranks.len()
    }

    /// The place of a world rank in the group.
    pub fn position(&self, rank: usize) -> Option<usize> {
        self.ranks.iter().position(|&member| member == rank)
    }
}

/// How a collective combines elements.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ReduceOp {
    /// Their sum, as the tree of [`Backend::reduce`](crate::Backend::reduce) over the order of the group.
    Sum,
    /// Their maximum; NaN if one of them is NaN.
    Max,
}

/// A way between two ranks on which messages keep their order. The two directions of a pipeline are lanes of their own: where two stages are each
/// other's neighbour on both sides (interleaved schedules), activations and gradients travel between the same two ranks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Lane {
    /// Activations, to the stage after.
    Forward,
    /// Gradients, to the stage before.
    Backward,
}

/// One rank's end of the cluster.
///
/// Every rank of a group makes the same calls in the same order; a call that another rank contradicts fails on all of them. Calls are ordered with the
/// operations of the rank's own backend: what was enqueued before is what is sent. No call waits longer than the communicator's timeout, and once a rank
/// has failed every other one's calls fail with [`Error::PeerFailed`]. A second thread of a rank may be in the collectives of its data group meanwhile.
pub trait Communicator<B: Buffer>: Send + Sync {
    /// This rank.
    fn rank(&self) -> usize;

    /// Number of ranks.
    fn world_size(&self) -> usize;

    /// The rank's clock, as [`Backend::now`](crate::Backend::now).
    fn now(&self) -> Instant {
        Instant::now()
    }

    /// `data = reduce over ranks of data`, the same bits on every rank.
    ///
    /// # Errors
    /// Timeout, mismatch, failed peer, or a backend's own.
    fn all_reduce(&self, group: &Group, op: ReduceOp, data: View<'_, B>) -> Result<()>;

    /// `dst = part i of the sum over ranks of src`, on the rank at place i; `src` is as long as all `dst` together.
    ///
    /// # Errors
    /// As [`all_reduce`](Self::all_reduce); [`Error::Shape`] if the lengths do not fit.
    fn reduce_scatter(&self, group: &Group, src: View<'_, B>, dst: View<'_, B>) -> Result<()>;

    /// `dst = the ranks' src, one after the other in the order of the group`.
    ///
    /// # Errors
    /// As [`reduce_scatter`](Self::reduce_scatter).
    fn all_gather(&self, group: &Group, src: View<'_, B>, dst: View<'_, B>) -> Result<()>;

    /// `data = world rank root's data`.
    ///
    /// # Errors
    /// As [`all_reduce`](Self::all_reduce).
    fn broadcast(&self, group: &Group, root: usize, data: View<'_, B>) -> Result<()>;

    /// Sends `data` to a world rank on a lane; returns once `data` may be overwritten, which does not wait for the receiver.
    ///
    /// # Errors
    /// As [`all_reduce`](Self::all_reduce).
    fn send(&self, to: usize, lane: Lane, data: View<'_, B>) -> Result<()>;

    /// Makes room for `messages` of `len` elements on their way to a world rank at once, beside what was reserved before, so that sending them asks for no more
    /// memory. A hint: by default nothing is kept.
    ///
    /// # Errors
    /// A backend's own.
    fn reserve(&self, to: usize, messages: usize, dtype: DType, len: usize) -> Result<()> {
        let _ = (to, messages, dtype, len);
        Ok(())
    }

    /// Receives the oldest message that world rank `from` has sent here on that lane.
    ///
    /// # Errors
    /// As [`all_reduce`](Self::all_reduce); a message of another length or type is a mismatch.
    fn recv(&self, from: usize, lane: Lane, data: View<'_, B>) -> Result<()>;

    /// Returns once every rank of the group is here.
    ///
    /// # Errors
    /// As [`all_reduce`](Self::all_reduce).
    fn barrier(&self, group: &Group) -> Result<()>;

    /// Tells the other ranks that this one has failed and why: what they wait for, or call next, returns at once.
    fn fail(&self, cause: &str);
}

/// The lengths that a scatter or a gather needs: `whole` is `n` times `one`.
pub(crate) fn check_parts<B: Buffer>(
    op: &'static str,
    tensor: &'static str,
    whole: View<'_, B>,
    one: View<'_, B>,
    n: usize,
) -> Result<()> {
    match whole.len() == n * one.len() {
        true => Ok(()),
        false => Err(Error::Shape {
            op,
            tensor,
            expected: format!("{n} x {} elements", one.len()),
            got: whole.shape(),
        }),
    }
}
