//! What ranks of one process say to each other, on any backend: results to the bit, in the order of the group, and an error on every rank when one fails.
//!
//! Each check takes a function that connects so many ranks with such a timeout.

use std::time::{Duration, Instant};

use backend::local::{self, LocalCommunicator};
use backend::{Backend, Class, Communicator, DType, Error, Group, GroupKind, Lane, ReduceOp, Result, Tensor};

use crate::draw::Draw;
use crate::reference::elementwise;

/// Long enough for any work here: a test that meets it hangs.
const PATIENCE: Duration = Duration::from_secs(120);
/// A wait that is to end without an answer; long enough for a busy machine to bring the other ranks.
const SOON: Duration = Duration::from_secs(3);
/// What "at once" may take on a busy machine.
const AT_ONCE: Duration = Duration::from_secs(20);
/// World sizes.
const WORLDS: [usize; 5] = [1, 2, 3, 4, 8];

/// The ranks, or nothing where there is no device.
pub type Ranks<B> = Option<Vec<LocalCommunicator<B>>>;

fn group(ranks: &[usize]) -> Group {
    Group::new(GroupKind::Tensor, ranks)
}

fn everyone(ranks: usize) -> Group {
    Group::new(GroupKind::World, (0..ranks).collect::<Vec<_>>())
}

/// The numbers that a rank begins with.
fn numbers(what: &str, rank: usize, len: usize) -> Vec<f32> {
    Draw::new(&format!("{what}:rank={rank},len={len}")).normal(len, 0.0, 1.0)
}

/// A tensor of these numbers, some elements into its buffer.
fn upload<B: Backend>(backend: &B, data: &[f32]) -> Result<Tensor<B::Buffer>> {
    const BEFORE: usize = 3;
    let whole = backend.alloc(Class::Workspace, DType::F32, [data.len() + BEFORE].into())?;
    let view = whole.view().rows(BEFORE, data.len())?;
    let bytes: Vec<u8> = data.iter().flat_map(|x| x.to_ne_bytes()).collect();
    backend.write(view, &bytes)?;
    Ok(view.to_tensor())
}

fn download<B: Backend>(backend: &B, tensor: &Tensor<B::Buffer>) -> Result<Vec<f32>> {
    let mut bytes = vec![0; tensor.len() * 4];
    backend.read(tensor.view(), &mut bytes)?;
    Ok(bytes.chunks_exact(4).map(|b| f32::from_ne_bytes([b[0], b[1], b[2], b[3]])).collect())
}

fn assert_bits(got: &[f32], expected: &[f32], what: &str) {
    assert_eq!(got.len(), expected.len(), "{what}");
    for (i, (got, expected)) in got.iter().zip(expected).enumerate() {
        assert_eq!(got.to_bits(), expected.to_bits(), "{what}, element {i}: {got} for {expected}");
    }
}

/// Lengths that the ranks divide, and that they do not: fewer elements than ranks, odd ones, more than one workgroup.
const LENGTHS: [usize; 6] = [1, 2, 7, 64, 1001, 70_001];

/// `all_reduce`, sum and maximum.
pub fn all_reduce<B: Backend>(connect: impl Fn(usize, Duration) -> Ranks<B>) {
    for ranks in WORLDS {
        let Some(world) = connect(ranks, PATIENCE) else { return };
        local::run(world, |communicator| -> Result<()> {
            let (backend, rank) = (communicator.backend(), communicator.rank());
            for len in LENGTHS {
                for op in [ReduceOp::Sum, ReduceOp::Max] {
                    let all: Vec<_> = (0..ranks).map(|rank| numbers("all_reduce", rank, len)).collect();
                    let data = upload(backend, &all[rank])?;
                    communicator.all_reduce(&everyone(ranks), op, data.view())?;
                    let expected =
                        elementwise::reduce(op, &all.iter().map(Vec::as_slice).collect::<Vec<_>>());
                    let what = format!("all_reduce {op:?} of {len} on rank {rank} of {ranks}");
                    assert_bits(&download(backend, &data)?, &expected, &what);
                }
            }
            Ok(())
        })
        .unwrap_or_else(|error| panic!("{ranks} ranks: {error}"));
    }
}

/// `reduce_scatter`, then `all_gather` of its parts, from apart and from their place in the result.
pub fn reduce_scatter_and_all_gather<B: Backend>(connect: impl Fn(usize, Duration) -> Ranks<B>) {
    for ranks in WORLDS {
        let Some(world) = connect(ranks, PATIENCE) else { return };
        local::run(world, |communicator| -> Result<()> {
            let (backend, rank) = (communicator.backend(), communicator.rank());
            let world = everyone(ranks);
            for part in [1, 5, 33, 4097] {
                let all: Vec<_> = (0..ranks).map(|rank| numbers("scatter", rank, ranks * part)).collect();
                let sum =
                    elementwise::reduce(ReduceOp::Sum, &all.iter().map(Vec::as_slice).collect::<Vec<_>>());
                let what = format!("part of {part} on rank {rank} of {ranks}");

                let (src, dst) = (upload(backend, &all[rank])?, upload(backend, &vec![f32::NAN; part])?);
                communicator.reduce_scatter(&world, src.view(), dst.view())?;
                assert_bits(&download(backend, &dst)?, &sum[rank * part..(rank + 1) * part], &what);
                assert_bits(&download(backend, &src)?, &all[rank], &what);

                let gathered = upload(backend, &vec![f32::NAN; ranks * part])?;
                communicator.all_gather(&world, dst.view(), gathered.view())?;
                assert_bits(&download(backend, &gathered)?, &sum, &what);

                let mut begun = vec![f32::NAN; ranks * part];
                begun[rank * part..(rank + 1) * part].copy_from_slice(&sum[rank * part..(rank + 1) * part]);
                let gathered = upload(backend, &begun)?;
                communicator.all_gather(&world, gathered.view().rows(rank * part, part)?, gathered.view())?;
                assert_bits(&download(backend, &gathered)?, &sum, &what);
            }
            Ok(())
        })
        .unwrap_or_else(|error| panic!("{ranks} ranks: {error}"));
    }
}

/// `broadcast` from each rank.
pub fn broadcast<B: Backend>(connect: impl Fn(usize, Duration) -> Ranks<B>) {
    for ranks in WORLDS {
        let Some(world) = connect(ranks, PATIENCE) else { return };
        local::run(world, |communicator| -> Result<()> {
            let (backend, rank) = (communicator.backend(), communicator.rank());
            for root in 0..ranks {
                for len in LENGTHS {
                    let data = upload(backend, &numbers("broadcast", rank, len))?;
                    communicator.broadcast(&everyone(ranks), root, data.view())?;
                    let what = format!("broadcast of {len} from {root} to {rank} of {ranks}");
                    assert_bits(&download(backend, &data)?, &numbers("broadcast", root, len), &what);
                }
            }
            Ok(())
        })
        .unwrap_or_else(|error| panic!("{ranks} ranks: {error}"));
    }
}

/// Eight ranks in a cube: along each axis in turn, then all together, round after round, nothing read back between. Groups run ahead of each other.
pub fn interleaved_groups<B: Backend>(connect: impl Fn(usize, Duration) -> Ranks<B>) {
    const ROUNDS: usize = 40;
    let Some(world) = connect(8, PATIENCE) else { return };
    let axes = |rank: usize| [1, 2, 4].map(|bit| group(&[rank & !bit, rank | bit]));
    // The same on the host, all ranks at once.
    let mut all: Vec<Vec<f32>> = (0..8).map(|rank| numbers("interleaved", rank, 77)).collect();
    for round in 0..ROUNDS {
        let before = all.clone();
        for (rank, data) in all.iter_mut().enumerate() {
            let group = &axes(rank)[round % 3];
            let members: Vec<_> = group.ranks().iter().map(|&member| before[member].as_slice()).collect();
            *data = elementwise::reduce(ReduceOp::Sum, &members);
            data.iter_mut().for_each(|x| *x *= 0.5);
        }
    }
    local::run(world, |communicator| -> Result<()> {
        let (backend, rank) = (communicator.backend(), communicator.rank());
        let data = upload(backend, &numbers("interleaved", rank, 77))?;
        for round in 0..ROUNDS {
            communicator.all_reduce(&axes(rank)[round % 3], ReduceOp::Sum, data.view())?;
            backend.scale(data.view(), 0.5)?;
            if round % 7 == 3 {
                communicator.barrier(&everyone(8))?;
            }
        }
        assert_bits(&download(backend, &data)?, &all[rank], &format!("rank {rank}"));
        Ok(())
    })
    .unwrap_or_else(|error| panic!("{error}"));
}

/// Messages round a ring: several are sent before one is received, each is received as it was when it was sent, in order.
pub fn messages_in_order<B: Backend>(connect: impl Fn(usize, Duration) -> Ranks<B>) {
    for ranks in [2, 3, 8] {
        let Some(world) = connect(ranks, PATIENCE) else { return };
        local::run(world, |communicator| -> Result<()> {
            let (backend, rank) = (communicator.backend(), communicator.rank());
            let (next, previous) = ((rank + 1) % ranks, (rank + ranks - 1) % ranks);
            for round in 0..3 {
                let what =
                    |rank: usize, i: usize| numbers(&format!("message {round} {i}"), rank, LENGTHS[i / 2]);
                for i in 0..LENGTHS.len() * 2 {
                    let data = upload(backend, &what(rank, i))?;
                    communicator.send(next, Lane::Forward, data.view())?;
                    // `send` is back: the memory is ours again.
                    backend.fill(data.view(), f32::NAN)?;
                }
                for i in 0..LENGTHS.len() * 2 {
                    let expected = what(previous, i);
                    let data = upload(backend, &vec![f32::NAN; expected.len()])?;
                    communicator.recv(previous, Lane::Forward, data.view())?;
                    assert_bits(
                        &download(backend, &data)?,
                        &expected,
                        &format!("message {i} to rank {rank}"),
                    );
                }
            }
            Ok(())
        })
        .unwrap_or_else(|error| panic!("{ranks} ranks: {error}"));
    }
}

/// Two lanes between the same two ranks: each keeps its own order, whatever was sent first on the other, even of other lengths.
pub fn lanes_apart<B: Backend>(connect: impl Fn(usize, Duration) -> Ranks<B>) {
    const LANES: [Lane; 2] = [Lane::Forward, Lane::Backward];
    let Some(world) = connect(2, PATIENCE) else { return };
    local::run(world, |communicator| -> Result<()> {
        let (backend, rank) = (communicator.backend(), communicator.rank());
        let what = |rank: usize, lane: Lane, i: usize| {
            numbers(&format!("{lane:?} {i}"), rank, LENGTHS[i] + lane as usize)
        };
        let send = |lane: Lane, i: usize| {
            communicator.send(1 - rank, lane, upload(backend, &what(rank, lane, i))?.view())
        };
        let receive = |lane: Lane, i: usize| -> Result<()> {
            let expected = what(1 - rank, lane, i);
            let data = upload(backend, &vec![f32::NAN; expected.len()])?;
            communicator.recv(1 - rank, lane, data.view())?;
            assert_bits(
                &download(backend, &data)?,
                &expected,
                &format!("{lane:?} message {i} to rank {rank}"),
            );
            Ok(())
        };
        // Alternately into the lanes; then all of one lane before the first of the other, and on each rank another one first.
        for i in 0..LENGTHS.len() {
            LANES.iter().try_for_each(|&lane| send(lane, i))?;
        }
        for lane in [LANES[1 - rank], LANES[rank]] {
            (0..LENGTHS.len()).try_for_each(|i| receive(lane, i))?;
        }
        Ok(())
    })
    .unwrap_or_else(|error| panic!("{error}"));
}

/// Runs ranks of which one fails: `fail` says how, `wait` what the others are in. Returns what each of them got.
fn with_failure<B: Backend>(
    connect: impl Fn(usize, Duration) -> Ranks<B>,
    fail: impl Fn() -> Result<()> + Sync,
    wait: impl Fn(&LocalCommunicator<B>) -> Result<()> + Sync,
) -> Option<(Error, Vec<Error>)> {
    const RANKS: usize = 4;
    let world = connect(RANKS, PATIENCE)?;
    let answers = std::sync::Mutex::new(Vec::new());
    let start = Instant::now();
    let first = local::run(world, |communicator| {
        if communicator.rank() == 2 {
            // The others are in their calls by then; were they not, they would fail at the call.
            std::thread::sleep(Duration::from_millis(100));
            return fail();
        }
        let answer = wait(communicator);
        if let Err(error) = &answer {
            answers.lock().unwrap_or_else(std::sync::PoisonError::into_inner).push(error.clone());
        }
        answer
    })
    .expect_err("rank 2 has failed");
    assert!(start.elapsed() < AT_ONCE, "the others noticed only after {:?}", start.elapsed());
    Some((first, answers.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner)))
}

/// A rank fails: every other one is told at once, with its words, whatever it waits in; and the run returns the first error.
pub fn failed_peer<B: Backend>(connect: impl Fn(usize, Duration) -> Ranks<B>) {
    let words = "it rains into the machine room";
    let fail = || Err(Error::Device { what: words.to_owned() });
    type Wait<B> = fn(&LocalCommunicator<B>) -> Result<()>;
    let waits: [(&str, Wait<B>); 3] = [
        ("all_reduce", |communicator| {
            let data = upload(communicator.backend(), &[1.0])?;
            communicator.all_reduce(&everyone(4), ReduceOp::Sum, data.view())
        }),
        ("recv", |communicator| {
            // Nobody has anything to send.
            let data = upload(communicator.backend(), &[1.0])?;
            communicator.recv((communicator.rank() + 1) % 4, Lane::Forward, data.view())
        }),
        ("barrier", |communicator| communicator.barrier(&everyone(4))),
    ];
    for (name, wait) in waits {
        let Some((first, answers)) = with_failure(&connect, fail, wait) else { return };
        assert_eq!(first, Error::Device { what: words.to_owned() });
        assert_eq!(answers.len(), 3, "{name}: {answers:?}");
        for answer in answers {
            match answer {
                Error::PeerFailed { op, peer: 2, cause, .. } => {
                    assert_eq!(op, name);
                    assert!(cause.contains(words), "{cause}");
                }
                other => panic!("{name}: {other}"),
            }
        }
    }
}

/// A rank panics: an error like any other, with the message.
pub fn panicking_peer<B: Backend>(connect: impl Fn(usize, Duration) -> Ranks<B>) {
    let fail = || -> Result<()> { panic!("a deliberate panic of this test") };
    let wait = |communicator: &LocalCommunicator<B>| communicator.barrier(&everyone(4));
    let Some((first, answers)) = with_failure(connect, fail, wait) else { return };
    assert!(first.to_string().contains("a deliberate panic of this test"), "{first}");
    assert!(answers.iter().all(|answer| matches!(answer, Error::PeerFailed { peer: 2, .. })), "{answers:?}");
}

/// A rank does not come to a collective: the others' error names it, the operation and the group.
pub fn missing_peer<B: Backend>(connect: impl Fn(usize, Duration) -> Ranks<B>) {
    let Some(world) = connect(3, SOON) else { return };
    let start = Instant::now();
    let error = local::run(world, |communicator| -> Result<()> {
        if communicator.rank() == 1 {
            return Ok(());
        }
        let data = upload(communicator.backend(), &[1.0])?;
        communicator.all_reduce(&everyone(3), ReduceOp::Sum, data.view())
    })
    .expect_err("rank 1 did not come");
    assert!(start.elapsed() < AT_ONCE, "{:?}", start.elapsed());
    match error {
        Error::Timeout { op: "all_reduce", group: "world", missing, .. } => assert_eq!(missing, [1]),
        other => panic!("{other}"),
    }
}

/// Nothing is sent: the receiver's error names the sender.
pub fn missing_message<B: Backend>(connect: impl Fn(usize, Duration) -> Ranks<B>) {
    let Some(world) = connect(2, SOON) else { return };
    let error = local::run(world, |communicator| -> Result<()> {
        if communicator.rank() == 0 {
            return Ok(());
        }
        let data = upload(communicator.backend(), &[1.0])?;
        communicator.recv(0, Lane::Backward, data.view())
    })
    .expect_err("rank 0 sends nothing");
    match error {
        Error::Timeout { op: "recv", rank: 1, missing, .. } => assert_eq!(missing, [0]),
        other => panic!("{other}"),
    }
}

/// Ranks that make different calls, or the same with different lengths or roots, are all told.
pub fn contradiction<B: Backend>(connect: impl Fn(usize, Duration) -> Ranks<B>) {
    type Call<B> = fn(&LocalCommunicator<B>, usize) -> Result<()>;
    let calls: [(&str, Call<B>); 3] = [
        ("lengths", |communicator, rank| {
            let data = upload(communicator.backend(), &vec![1.0; 4 + rank / 2])?;
            communicator.all_reduce(&everyone(3), ReduceOp::Sum, data.view())
        }),
        ("roots", |communicator, rank| {
            let data = upload(communicator.backend(), &[1.0])?;
            communicator.broadcast(&everyone(3), rank / 2, data.view())
        }),
        ("operations", |communicator, rank| {
            let data = upload(communicator.backend(), &[1.0])?;
            match rank {
                2 => communicator.barrier(&everyone(3)),
                _ => communicator.all_reduce(&everyone(3), ReduceOp::Sum, data.view()),
            }
        }),
    ];
    for (what, call) in calls {
        let Some(world) = connect(3, PATIENCE) else { return };
        let start = Instant::now();
        let answers = std::sync::Mutex::new(0);
        let error = local::run(world, |communicator| {
            let answer = call(communicator, communicator.rank());
            if matches!(answer, Err(Error::Mismatch { .. } | Error::PeerFailed { .. })) {
                *answers.lock().unwrap_or_else(std::sync::PoisonError::into_inner) += 1;
            }
            answer
        })
        .expect_err("the ranks contradict each other");
        assert!(matches!(error, Error::Mismatch { .. }), "{what}: {error}");
        assert_eq!(answers.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner), 3, "{what}");
        assert!(start.elapsed() < AT_ONCE, "{what}: {:?}", start.elapsed());
    }
}

/// A message of another length than the receiver has room for.
pub fn wrong_message<B: Backend>(connect: impl Fn(usize, Duration) -> Ranks<B>) {
    let Some(world) = connect(2, PATIENCE) else { return };
    let error = local::run(world, |communicator| -> Result<()> {
        let data = upload(communicator.backend(), &vec![1.0; 5 + communicator.rank()])?;
        match communicator.rank() {
            0 => communicator.send(1, Lane::Backward, data.view()),
            _ => communicator.recv(0, Lane::Backward, data.view()),
        }
    })
    .expect_err("6 is not 5");
    assert!(matches!(error, Error::Mismatch { op: "recv", rank: 1, peer: 0, .. }), "{error}");
}

/// Calls that no rank could make: a group without the caller, a root outside it, lengths that do not fit.
pub fn wrong_arguments<B: Backend>(connect: impl Fn(usize, Duration) -> Ranks<B>) {
    let Some(world) = connect(2, PATIENCE) else { return };
    local::run(world, |communicator| -> Result<()> {
        let backend = communicator.backend();
        let data = upload(backend, &[1.0, 2.0, 3.0])?;
        let other = group(&[1 - communicator.rank(), 5]);
        let answers = [
            communicator.all_reduce(&other, ReduceOp::Sum, data.view()),
            communicator.barrier(&other),
            communicator.broadcast(&everyone(2), 7, data.view()),
        ];
        for answer in answers {
            assert!(matches!(answer, Err(Error::Argument { .. })), "{answer:?}");
        }
        let two = data.view().rows(0, 2)?;
        let answers = [
            communicator.reduce_scatter(&everyone(2), data.view(), two),
            communicator.all_gather(&everyone(2), two, data.view()),
        ];
        for answer in answers {
            assert!(matches!(answer, Err(Error::Shape { .. })), "{answer:?}");
        }
        // And the world still works.
        communicator.all_reduce(&everyone(2), ReduceOp::Sum, data.view())?;
        assert_eq!(download(backend, &data)?, [2.0, 4.0, 6.0]);
        Ok(())
    })
    .unwrap_or_else(|error| panic!("{error}"));
}
