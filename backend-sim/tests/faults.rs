//! What ranks can do wrong to each other is found and named, at once and without a timeout.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::sync::Arc;

use backend::{Backend, Class, Communicator, DType, Error, Group, GroupKind, Lane, ReduceOp, Result, Shape};
use backend_sim::device::Workspace;
use backend_sim::{Cluster, Fault, Present, RankReport, SimBackend, SimCommunicator, Stack, World, run};

fn world(present: Present) -> Arc<World> {
    World::new(Cluster::load("selene").unwrap(), Stack::load("mtnlg").unwrap(), present)
}

fn workspace() -> Workspace {
    Arc::new(|_| 0)
}

fn two<R: Send>(
    work: impl Fn(&SimBackend, &SimCommunicator) -> Result<R> + Sync,
) -> std::result::Result<Vec<(R, RankReport)>, Fault> {
    run(&world(Present::all(2)), 1 << 40, &workspace(), work)
}

fn pair() -> Group {
    Group::new(GroupKind::Tensor, [0, 1])
}

fn floats(backend: &SimBackend, len: usize) -> Result<backend::Tensor<backend_sim::Line>> {
    backend.alloc(Class::Workspace, DType::F32, Shape::new(&[len]))
}

#[test]
fn ranks_that_wait_for_each_other_deadlock() {
    let error = two(|backend, communicator| {
        backend.begins(&"the test");
        let x = floats(backend, 8)?;
        let (from, lane) = (1 - communicator.rank(), Lane::Forward);
        communicator.recv(from, lane, x.view())
    });
    let Err(Fault::Deadlock(Error::Deadlock { waiting })) = error else { panic!("{error:?}") };
    assert_eq!(waiting.len(), 2);
    assert!(
        waiting[0].contains("rank 0, in \"the test\": recv from rank 1 on the Forward lane"),
        "{waiting:?}"
    );
    assert!(waiting[1].contains("rank 1"), "{waiting:?}");
}

#[test]
fn a_rank_that_does_not_come_is_missed() {
    let error = two(|backend, communicator| {
        let x = floats(backend, 8)?;
        match communicator.rank() {
            0 => communicator.all_reduce(&pair(), ReduceOp::Sum, x.view()),
            _ => Ok(()),
        }
    });
    let text = error.unwrap_err().to_string();
    assert!(
        text.contains("deadlock: rank 0") && text.contains("all_reduce of f32[8] in the tensor group"),
        "{text}"
    );
    assert!(text.contains("with rank(s) [1]"), "{text}");
}

#[test]
fn a_message_that_nobody_receives_is_found() {
    let fault = two(|backend, communicator| {
        let x = floats(backend, 8)?;
        match communicator.rank() {
            0 => communicator.send(1, Lane::Backward, x.view()),
            _ => Ok(()),
        }
    });
    let text = fault.unwrap_err().to_string();
    assert!(text.contains("1 message(s) of rank 0 to rank 1 on the Backward lane"), "{text}");
    assert!(text.contains("f32[8]"), "{text}");
}

#[test]
fn ranks_that_do_not_agree_are_told_apart() {
    for (lens, words) in [([8, 9], "all_reduce of f32[9]"), ([8, 8], "barrier of u32[0]")] {
        let fault = two(|backend, communicator| {
            let rank = communicator.rank();
            let x = floats(backend, lens[rank])?;
            if lens[0] == lens[1] && rank == 1 {
                return communicator.barrier(&pair());
            }
            communicator.all_reduce(&pair(), ReduceOp::Sum, x.view())
        });
        let Err(Fault::Rank { error, .. }) = fault else { panic!("{fault:?}") };
        let Error::Mismatch { mine, theirs, .. } = *error else { panic!("{error:?}") };
        assert!(mine.starts_with(words) || theirs.starts_with(words), "{mine} {theirs}");
    }
}

#[test]
fn a_message_of_another_shape_is_refused() {
    let fault = two(|backend, communicator| {
        backend.begins(&"RecvForward");
        let x = floats(backend, 8)?;
        match communicator.rank() {
            0 => communicator.send(1, Lane::Forward, x.view().rows(0, 7)?),
            _ => communicator.recv(0, Lane::Forward, x.view()),
        }
    });
    let text = fault.unwrap_err().to_string();
    assert!(text.starts_with("rank 1, in \"RecvForward\"") && text.contains("a message of f32[7]"), "{text}");
}

#[test]
fn memory_past_the_limit_names_rank_and_tensor() {
    let fault = run(&world(Present::all(1)), 1000, &workspace(), |backend, _| {
        let _some = floats(backend, 200)?;
        floats(backend, 51).map(drop)
    });
    let text = fault.unwrap_err().to_string();
    assert!(text.contains("rank 0, in the allocation of workspace f32[51]"), "{text}");
    assert!(text.contains("204 bytes") && text.contains("800 bytes in use"), "{text}");
}

#[test]
fn a_panic_is_the_ranks_error_and_stops_the_others() {
    let fault = two(|_, communicator| match communicator.rank() {
        0 => panic!("on purpose"),
        _ => communicator.barrier(&pair()),
    });
    let text = fault.unwrap_err().to_string();
    assert!(text.contains("rank 0") && text.contains("on purpose"), "{text}");
}

/// The later of two ranks sets the time; a message is there when it has travelled; and who is absent comes when who is present does.
#[test]
fn time_is_what_ranks_wait_for() {
    let seconds = |present: Present, work: usize| {
        let ranks = run(&world(present), 1 << 40, &workspace(), |backend, communicator| {
            let x = floats(backend, 1 << 20)?;
            let times = if communicator.rank() == 0 { work } else { 1 };
            (0..times).try_for_each(|_| backend.fill(x.view(), 0.0))?;
            communicator.all_reduce(&pair(), ReduceOp::Sum, x.view())?;
            Ok(backend.seconds())
        });
        ranks.unwrap().into_iter().map(|(seconds, _)| seconds).collect::<Vec<_>>()
    };
    let both = seconds(Present::all(2), 10);
    assert_eq!(both[0], both[1]);
    assert_eq!(seconds(Present::of(2, vec![0]), 10), both[..1]);
    assert!(seconds(Present::all(2), 5)[1] < both[1]);

    let cluster = Cluster::load("selene").unwrap();
    let stack = Stack { launch_seconds: 0.0, ..Stack::load("mtnlg").unwrap() };
    let world = World::new(cluster.clone(), stack, Present::of(16, vec![0, 8]));
    let ranks = run(&world, 1 << 40, &workspace(), |backend, communicator| {
        let x = floats(backend, 1 << 20)?;
        match communicator.rank() {
            0 => communicator.send(8, Lane::Forward, x.view()),
            _ => communicator.recv(0, Lane::Forward, x.view()),
        }
    });
    let ranks = ranks.unwrap();
    let way = cluster.message(0, 8, f64::from(4 << 20));
    assert_eq!((ranks[0].1.seconds, ranks[1].1.seconds), (0.0, way));
    assert_eq!((ranks[0].1.spent.hidden, ranks[1].1.spent.messages), (way, way));
}
