//! Ranks as threads of one process: a [`Communicator`] over any [`Backend`] whose ranks can reach each other's buffers.
//!
//! A collective is two meetings with the rank's share of the work between them: the first one says that everybody's data are ready, the second one
//! that everybody's share is done (or, on a device, enqueued). Element `j` of a group's reduction is always combined in the same tree over the group, so the
//! bits depend neither on timing nor on who computes it.

use std::collections::HashMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::communicator::check_parts;
use crate::rendezvous::{Call, Rendezvous};
use crate::{
    Backend, Class, Communicator, DType, Error, Group, GroupKind, Lane, ReduceOp, Result, Shape, Tensor, View,
};

/// What a rank brings to a meeting: its call, and the tensor that the others may read or write until the next one.
#[derive(Clone)]
struct Contribution<B> {
    op: &'static str,
    root: usize,
    data: Tensor<B>,
}

/// A message in a mailbox: a staging tensor that the receiver gives back.
struct Message<B> {
    staged: Tensor<B>,
    shape: Shape,
}

/// Staging tensors that are free, by sender, receiver, type and length.
type Staging<B> = HashMap<(usize, usize, DType, usize), Vec<Tensor<B>>>;

/// What the ranks of one process share.
struct World<B: Backend> {
    ranks: usize,
    rendezvous: Rendezvous<Option<Contribution<B::Buffer>>, Message<B::Buffer>>,
    staging: Mutex<Staging<B::Buffer>>,
}

/// One rank's end of a world of threads.
pub struct LocalCommunicator<B: Backend> {
    rank: usize,
    backend: Arc<B>,
    world: Arc<World<B>>,
}

/// Connects these backends, one a rank: rank i gets the i-th. No wait lasts longer than `timeout`.
pub fn connect<B: Backend>(backends: &[Arc<B>], timeout: Duration) -> Vec<LocalCommunicator<B>> {
    let world = Arc::new(World {
        ranks: backends.len(),
        rendezvous: Rendezvous::new(timeout),
        staging: Mutex::default(),
    });
    let rank = |(rank, backend): (usize, &Arc<B>)| LocalCommunicator {
        rank,
        backend: Arc::clone(backend),
        world: Arc::clone(&world),
    };
    backends.iter().enumerate().map(rank).collect()
}

/// Runs `work` once a rank, each on a thread of its own, and returns their results in rank order.
///
/// A rank that returns an error or panics fails the world: the others stop at their next call. The error returned is the one that came first.
///
/// # Errors
/// The first rank's error; a panic becomes [`Error::Device`] with its message.
pub fn run<B, R, E>(
    communicators: Vec<LocalCommunicator<B>>,
    work: impl Fn(&LocalCommunicator<B>) -> std::result::Result<R, E> + Sync,
) -> std::result::Result<Vec<R>, E>
where
    B: Backend,
    R: Send,
    E: From<Error> + std::fmt::Display + Send,
{
    let work = &work;
    let results: Vec<_> = std::thread::scope(|scope| {
        let spawn = |communicator: LocalCommunicator<B>| {
            let body = move || {
                let result = catch_unwind(AssertUnwindSafe(|| work(&communicator))).unwrap_or_else(|panic| {
                    let text = panic.downcast_ref::<String>().cloned();
                    let text = text.or_else(|| panic.downcast_ref::<&str>().map(|s| (*s).to_owned()));
                    let what = format!(
                        "rank {} panicked: {}",
                        communicator.rank,
                        text.unwrap_or_else(|| "no message".to_owned())
                    );
                    Err(E::from(Error::Device { what }))
                });
                if let Err(error) = &result {
                    communicator.fail(&error.to_string());
                }
                (communicator.world.rendezvous.failure().map(|(rank, _)| rank), result)
            };
            std::thread::Builder::new().name("rank".to_owned()).spawn_scoped(scope, body)
        };
        let threads: Vec<_> = communicators.into_iter().map(spawn).collect();
        let join =
            |thread: std::io::Result<std::thread::ScopedJoinHandle<'_, _>>| match thread.map(|t| t.join()) {
                Ok(Ok(result)) => result,
                Ok(Err(_)) => (None, Err(E::from(Error::Device { what: "a rank's thread died".to_owned() }))),
                Err(error) => {
                    (None, Err(E::from(Error::Device { what: format!("no thread for a rank: {error}") })))
                }
            };
        threads.into_iter().map(join).collect()
    });
    let first = results.iter().find_map(|(failed, _)| *failed);
    let mut values = Vec::with_capacity(results.len());
    let mut errors = Vec::new();
    for (rank, (_, result)) in results.into_iter().enumerate() {
        match result {
            Ok(value) => values.push(value),
            Err(error) => errors.push((rank, error)),
        }
    }
    let at_fault = errors.iter().position(|(rank, _)| Some(*rank) == first).unwrap_or(0);
    if errors.is_empty() { Ok(values) } else { Err(errors.swap_remove(at_fault).1) }
}

impl<B: Backend> LocalCommunicator<B> {
    /// The rank's backend.
    pub fn backend(&self) -> &B {
        &self.backend
    }

    /// A share of it, for who wraps it.
    pub fn shared_backend(&self) -> Arc<B> {
        Arc::clone(&self.backend)
    }

    fn call<'a>(&self, op: &'static str, group: &'a Group) -> Result<(Call<'a>, usize)> {
        let position = group.position(self.rank).ok_or_else(|| Error::Argument {
            op,
            name: "group",
            value: format!("{:?}", group.ranks()),
            range: "a group that the calling rank belongs to",
        })?;
        Ok((Call { op, group, rank: self.rank }, position))
    }

    /// Meets the group, has `share` do this rank's part, and meets again.
    fn together(
        &self,
        op: &'static str,
        group: &Group,
        root: usize,
        data: View<'_, B::Buffer>,
        share: impl FnOnce(&[Contribution<B::Buffer>], usize) -> Result<()>,
    ) -> Result<()> {
        let (call, position) = self.call(op, group)?;
        let mine = Contribution { op, root, data: data.to_tensor() };
        let all = self.world.rendezvous.meet(call, position, Some(mine))?;
        disagreement(call, &all)?;
        let all: Vec<_> = all.iter().flatten().cloned().collect();
        share(&all, position)?;
        self.world.rendezvous.meet(call, position, None).map(drop)
    }

    /// A tensor like `data` for a message from this rank to `to`: a free one, or a new one.
    fn stage(&self, to: usize, data: View<'_, B::Buffer>) -> Result<Tensor<B::Buffer>> {
        let key = (self.rank, to, data.dtype(), data.len());
        let free = self.staging().entry(key).or_default().pop();
        match free {
            Some(tensor) => Ok(tensor),
            None => self.backend.alloc(Class::Workspace, data.dtype(), Shape::new(&[data.len()])),
        }
    }

    fn staging(&self) -> MutexGuard<'_, Staging<B::Buffer>> {
        self.world.staging.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn pair(&self, peer: usize) -> Group {
        Group::new(GroupKind::Pipeline, [self.rank, peer])
    }
}

/// Fails if a rank's call is not the first rank's.
fn disagreement<B: crate::Buffer>(call: Call<'_>, all: &[Option<Contribution<B>>]) -> Result<()> {
    let describe = |c: &Option<Contribution<B>>| match c {
        Some(c) => format!("{} of {}[{}] (root {})", c.op, c.data.dtype(), c.data.len(), c.root),
        None => "barrier".to_owned(),
    };
    let Some(mine) = all.first().map(describe) else { return Ok(()) };
    match all.iter().map(describe).enumerate().find(|(_, theirs)| *theirs != mine) {
        None => Ok(()),
        Some((other, theirs)) => Err(Error::Mismatch {
            op: call.op,
            group: call.group.kind().name(),
            rank: call.group.ranks()[0],
            mine,
            peer: call.group.ranks()[other],
            theirs,
        }),
    }
}

/// Elements `start .. end` that the rank at `position` of `n` works on, of `len`.
fn share_of(len: usize, position: usize, n: usize) -> std::ops::Range<usize> {
    let at = |i: usize| (len as u128 * i as u128 / n as u128) as usize;
    at(position)..at(position + 1)
}

/// The view's elements in a row, `range` of them.
fn part<'a, B: crate::Buffer>(tensor: &'a Tensor<B>, range: &std::ops::Range<usize>) -> Result<View<'a, B>> {
    tensor.view().reshape([tensor.len()])?.rows(range.start, range.len())
}

impl<B: Backend> Communicator<B::Buffer> for LocalCommunicator<B> {
    fn rank(&self) -> usize {
        self.rank
    }

    fn world_size(&self) -> usize {
        self.world.ranks
    }

    fn all_reduce(&self, group: &Group, op: ReduceOp, data: View<'_, B::Buffer>) -> Result<()> {
        if group.size() == 1 {
            return Ok(());
        }
        self.together("all_reduce", group, 0, data, |all, position| {
            let range = share_of(data.len(), position, all.len());
            let parts = all.iter().map(|c| part(&c.data, &range)).collect::<Result<Vec<_>>>()?;
            self.backend.reduce(op, &parts, &parts)
        })
    }

    fn reduce_scatter(
        &self,
        group: &Group,
        src: View<'_, B::Buffer>,
        dst: View<'_, B::Buffer>,
    ) -> Result<()> {
        check_parts("reduce_scatter", "src", src, dst, group.size())?;
        self.together("reduce_scatter", group, 0, src, |all, position| {
            let range = position * dst.len()..(position + 1) * dst.len();
            let parts = all.iter().map(|c| part(&c.data, &range)).collect::<Result<Vec<_>>>()?;
            self.backend.reduce(ReduceOp::Sum, &parts, &[dst.reshape([dst.len()])?])
        })
    }

    fn all_gather(&self, group: &Group, src: View<'_, B::Buffer>, dst: View<'_, B::Buffer>) -> Result<()> {
        check_parts("all_gather", "dst", dst, src, group.size())?;
        self.together("all_gather", group, 0, src, |all, _| {
            let dst = dst.reshape([dst.len()])?;
            for (i, member) in all.iter().enumerate() {
                let to = dst.rows(i * src.len(), src.len())?;
                if !to.same(&member.data.view()) {
                    self.backend.copy(part(&member.data, &(0..src.len()))?, to)?;
                }
            }
            Ok(())
        })
    }

    fn broadcast(&self, group: &Group, root: usize, data: View<'_, B::Buffer>) -> Result<()> {
        let (_, _) = self.call("broadcast", group)?;
        let from = group.position(root).ok_or_else(|| Error::Argument {
            op: "broadcast",
            name: "root",
            value: root.to_string(),
            range: "a rank of the group",
        })?;
        if group.size() == 1 {
            return Ok(());
        }
        self.together("broadcast", group, root, data, |all, position| match position == from {
            true => Ok(()),
            false => self.backend.copy(part(&all[from].data, &(0..data.len()))?, data.reshape([data.len()])?),
        })
    }

    fn send(&self, to: usize, lane: Lane, data: View<'_, B::Buffer>) -> Result<()> {
        let staged = self.stage(to, data)?;
        self.backend.copy(data.reshape([data.len()])?, staged.view())?;
        let group = self.pair(to);
        let call = Call { op: "send", group: &group, rank: self.rank };
        self.world.rendezvous.post(call, to, lane, Message { staged, shape: data.shape() })
    }

    fn reserve(&self, to: usize, messages: usize, dtype: DType, len: usize) -> Result<()> {
        let new = (0..messages).map(|_| self.backend.alloc(Class::Workspace, dtype, Shape::new(&[len])));
        let new = new.collect::<Result<Vec<_>>>()?;
        self.staging().entry((self.rank, to, dtype, len)).or_default().extend(new);
        Ok(())
    }

    fn recv(&self, from: usize, lane: Lane, data: View<'_, B::Buffer>) -> Result<()> {
        let group = self.pair(from);
        let call = Call { op: "recv", group: &group, rank: self.rank };
        let Message { staged, shape } = self.world.rendezvous.collect(call, from, lane)?;
        if staged.dtype() != data.dtype() || staged.len() != data.len() {
            return Err(Error::Mismatch {
                op: "recv",
                group: group.kind().name(),
                rank: self.rank,
                mine: format!("room for {}{}", data.dtype(), data.shape()),
                peer: from,
                theirs: format!("a message of {}{shape}", staged.dtype()),
            });
        }
        self.backend.copy(staged.view(), data.reshape([data.len()])?)?;
        let key = (from, self.rank, data.dtype(), data.len());
        self.staging().entry(key).or_default().push(staged);
        Ok(())
    }

    fn barrier(&self, group: &Group) -> Result<()> {
        let (call, position) = self.call("barrier", group)?;
        let all = self.world.rendezvous.meet(call, position, None)?;
        disagreement(call, &all)
    }

    fn fail(&self, cause: &str) {
        self.world.rendezvous.fail(self.rank, cause);
    }
}
