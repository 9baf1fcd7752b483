//! What simulated ranks say to each other: who waits for whom in simulated time, and what it costs on the link that it crosses.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use backend::{
    Backend, Class, Communicator, DType, Error, Group, GroupKind, Lane, ReduceOp, Result, Shape, Tensor, View,
};

use crate::cost::{Collective, Spread};
use crate::device::{Line, SimBackend};
use crate::world::{Call, Message, World};

/// One rank's end of a simulated cluster.
pub struct SimCommunicator {
    backend: Arc<SimBackend>,
    /// Room for messages on their way.
    reserved: Mutex<Vec<Tensor<Line>>>,
    /// Where the members of each group are, and how many of them run.
    groups: Mutex<Vec<(Group, Spread, usize)>>,
}

impl SimCommunicator {
    /// The end of the rank that `backend` is.
    pub fn new(backend: Arc<SimBackend>) -> Self {
        Self { backend, reserved: Mutex::default(), groups: Mutex::default() }
    }

    /// The rank's backend.
    pub fn backend(&self) -> &Arc<SimBackend> {
        &self.backend
    }

    fn world(&self) -> &World {
        &self.backend.world
    }

    /// Where a group is, and how many of it run.
    fn group(&self, op: &'static str, group: &Group) -> Result<(Spread, usize)> {
        let mut groups = self.groups.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, spread, present)) = groups.iter().find(|(known, ..)| known == group) {
            return Ok((*spread, *present));
        }
        if group.position(self.backend.rank).is_none() {
            return Err(Error::Argument {
                op,
                name: "group",
                value: format!("{:?}", group.ranks()),
                range: "a group that the calling rank belongs to",
            });
        }
        let spread = self.world().cluster.spread(group.ranks());
        let present = self.world().present.count(group.ranks());
        groups.push((group.clone(), spread, present));
        Ok((spread, present))
    }

    /// Waits for the group, then takes as long as the collective does.
    fn together(&self, what: Collective, group: &Group, call: Call, bytes: f64) -> Result<()> {
        let (spread, present) = self.group(call.op, group)?;
        if spread.ranks == 1 {
            return Ok(());
        }
        let World { cluster, stack, .. } = self.world();
        let seconds = cluster.collective(what, spread, bytes) / stack.efficiency;
        let now = self.backend.clock().launch(stack.launch_seconds / stack.efficiency);
        let begin = match present {
            // All others do the same at the same time.
            1 => now,
            _ => self.world().meet(self.backend.rank, group, call, now, &self.backend.doing())?,
        };
        let mut clock = self.backend.clock();
        clock.device = begin + seconds;
        clock.spent.waiting += begin - now;
        match group.kind() {
            GroupKind::Tensor => clock.spent.tensor += seconds,
            _ => clock.spent.data += seconds,
        }
        Ok(())
    }

    /// Bytes that cross the wire: replicas sum gradients in the stack's type.
    fn reduced_bytes(&self, group: &Group, data: View<'_, Line>) -> f64 {
        match group.kind() {
            GroupKind::Data | GroupKind::Embedding => {
                data.len() as f64 * self.world().stack.reduced_gradient_bytes
            }
            _ => data.bytes() as f64,
        }
    }
}

fn call(op: &'static str, data: View<'_, Line>, root: usize) -> Call {
    Call { op, dtype: data.dtype(), len: data.len(), root }
}

/// `whole` is `n` times `one`.
fn parts(
    op: &'static str,
    tensor: &'static str,
    whole: View<'_, Line>,
    one: View<'_, Line>,
    n: usize,
) -> Result<()> {
    match whole.len() == n * one.len() && whole.dtype() == one.dtype() {
        true => Ok(()),
        false => Err(Error::Shape {
            op,
            tensor,
            expected: format!("{n} x {} elements of {}", one.len(), one.dtype()),
            got: whole.shape(),
        }),
    }
}

impl Communicator<Line> for SimCommunicator {
    fn rank(&self) -> usize {
        self.backend.rank
    }

    fn world_size(&self) -> usize {
        self.world().present.world_size()
    }

    fn now(&self) -> Instant {
        self.backend.now()
    }

    fn all_reduce(&self, group: &Group, _: ReduceOp, data: View<'_, Line>) -> Result<()> {
        let bytes = self.reduced_bytes(group, data);
        self.together(Collective::AllReduce, group, call("all_reduce", data, 0), bytes)
    }

    fn reduce_scatter(&self, group: &Group, src: View<'_, Line>, dst: View<'_, Line>) -> Result<()> {
        parts("reduce_scatter", "src", src, dst, group.size())?;
        let bytes = self.reduced_bytes(group, src);
        self.together(Collective::ReduceScatter, group, call("reduce_scatter", src, 0), bytes)
    }

    fn all_gather(&self, group: &Group, src: View<'_, Line>, dst: View<'_, Line>) -> Result<()> {
        parts("all_gather", "dst", dst, src, group.size())?;
        self.together(Collective::AllGather, group, call("all_gather", dst, 0), dst.bytes() as f64)
    }

    fn broadcast(&self, group: &Group, root: usize, data: View<'_, Line>) -> Result<()> {
        self.together(Collective::Broadcast, group, call("broadcast", data, root), data.bytes() as f64)
    }

    fn send(&self, to: usize, lane: Lane, data: View<'_, Line>) -> Result<()> {
        let World { cluster, stack, .. } = self.world();
        let seconds = cluster.message(self.backend.rank, to, data.bytes() as f64) / stack.efficiency;
        let at = {
            let mut clock = self.backend.clock();
            let now = clock.launch(stack.launch_seconds / stack.efficiency);
            clock.wire = clock.wire.max(now) + seconds;
            match stack.overlapped_messages {
                true => clock.spent.hidden += seconds,
                false => {
                    clock.spent.messages += clock.wire - now;
                    clock.device = clock.wire;
                }
            }
            clock.wire
        };
        let message = Message { at, seconds, dtype: data.dtype(), shape: data.shape() };
        self.world().post(self.backend.rank, to, lane, message)
    }

    fn reserve(&self, _: usize, messages: usize, dtype: DType, len: usize) -> Result<()> {
        let new = (0..messages).map(|_| self.backend.alloc(Class::Workspace, dtype, Shape::new(&[len])));
        let new = new.collect::<Result<Vec<_>>>()?;
        self.reserved.lock().unwrap_or_else(PoisonError::into_inner).extend(new);
        Ok(())
    }

    fn recv(&self, from: usize, lane: Lane, data: View<'_, Line>) -> Result<()> {
        let rank = self.backend.rank;
        let Message { at, seconds, dtype, shape } =
            self.world().collect(from, rank, lane, &self.backend.doing())?;
        if dtype != data.dtype() || shape.len() != data.len() {
            return Err(Error::Mismatch {
                op: "recv",
                group: GroupKind::Pipeline.name(),
                rank,
                mine: format!("room for {}{}", data.dtype(), data.shape()),
                peer: from,
                theirs: format!("a message of {dtype}{shape}"),
            });
        }
        let stack = &self.world().stack;
        let mut clock = self.backend.clock();
        let now = clock.launch(stack.launch_seconds / stack.efficiency);
        let wait = (at - now).max(0.0);
        // What of the wait is the message's own way, and what is the bubble.
        let exposed = wait.min(seconds);
        clock.spent.messages += exposed;
        clock.spent.waiting += wait - exposed;
        if stack.overlapped_messages {
            clock.spent.hidden -= exposed;
        }
        clock.device = now + wait;
        Ok(())
    }

    fn barrier(&self, group: &Group) -> Result<()> {
        let nothing = Call { op: "barrier", dtype: DType::U32, len: 0, root: 0 };
        self.together(Collective::Barrier, group, nothing, 0.0)
    }

    fn fail(&self, cause: &str) {
        self.world().fail(self.backend.rank, cause);
    }
}
