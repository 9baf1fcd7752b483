use backend::local::{LocalCommunicator, run};
use backend::{Backend, Communicator, Error, Group, GroupKind, ReduceOp};

use super::{TIMEOUT, empty, floats, get, random, rig};
use crate::{Choice, WgpuBackend};

fn cluster(ranks: usize) -> Option<Vec<LocalCommunicator<WgpuBackend>>> {
    rig()?;
    Some(WgpuBackend::cluster(ranks, TIMEOUT, &Choice::Any { name: None }).unwrap())
}

fn world(ranks: usize) -> Group {
    Group::new(GroupKind::World, (0..ranks).collect::<Vec<_>>())
}

/// Sums in the order of the ranks.
fn sum(parts: &[Vec<f32>]) -> Vec<f32> {
    let mut total = parts[0].clone();
    for part in &parts[1..] {
        total.iter_mut().zip(part).for_each(|(t, x)| *t += x);
    }
    total
}

#[test]
fn all_reduce_has_the_bits_of_a_sum_in_order() {
    for ranks in [2, 4, 8, 11] {
        let Some(communicators) = cluster(ranks) else { return };
        for n in [1, 37, 4096] {
            let parts: Vec<_> = (0..ranks).map(|rank| random(n, rank as u64)).collect();
            let expected = sum(&parts);
            let _ = &communicators;
            let communicators = cluster(ranks).unwrap();
            let got = run(communicators, |c| {
                let data = floats(c.backend(), &parts[c.rank()], 3, [n]);
                // Again and again, so that a missing order would show.
                for _ in 0..10 {
                    c.backend().copy(floats(c.backend(), &parts[c.rank()], 0, [n]).view(), data.view())?;
                    c.all_reduce(&world(ranks), ReduceOp::Sum, data.view())?;
                }
                Ok::<_, Error>(get(c.backend(), &data))
            })
            .unwrap();
            for (rank, data) in got.iter().enumerate() {
                assert_eq!(*data, expected, "rank {rank} of {ranks}, {n} elements");
            }
        }
    }
}

#[test]
fn a_maximum_over_ranks_keeps_nan() {
    let Some(communicators) = cluster(3) else { return };
    let got = run(communicators, |c| {
        let mut mine = [c.rank() as f32, -1.0, 5.0 - c.rank() as f32];
        if c.rank() == 1 {
            mine[1] = f32::NAN;
        }
        let data = floats(c.backend(), &mine, 1, [3]);
        c.all_reduce(&world(3), ReduceOp::Max, data.view())?;
        Ok::<_, Error>(get(c.backend(), &data))
    })
    .unwrap();
    assert!(got.iter().all(|x| x[0] == 2.0 && x[1].is_nan() && x[2] == 5.0), "{got:?}");
}

#[test]
fn scatter_gather_broadcast_send() {
    let ranks = 4;
    let Some(communicators) = cluster(ranks) else { return };
    let n = 33;
    let parts: Vec<_> = (0..ranks).map(|rank| random(ranks * n, rank as u64)).collect();
    let total = sum(&parts);
    run(communicators, |c| {
        let (backend, group) = (c.backend(), world(ranks));
        let src = floats(backend, &parts[c.rank()], 1, [ranks * n]);
        let mine = empty(backend, 2, [n]);
        c.reduce_scatter(&group, src.view(), mine.view())?;
        assert_eq!(get(backend, &mine), total[c.rank() * n..][..n]);
        let all = empty(backend, 0, [ranks * n]);
        c.all_gather(&group, mine.view(), all.view())?;
        assert_eq!(get(backend, &all), total);
        c.broadcast(&group, 2, src.view())?;
        assert_eq!(get(backend, &src), parts[2]);
        // Round the ring, several messages under way.
        let (next, previous) = ((c.rank() + 1) % ranks, (c.rank() + ranks - 1) % ranks);
        for round in 0..5 {
            let data = floats(backend, &vec![(c.rank() * 10 + round) as f32; n], 1, [n]);
            c.send(next, data.view())?;
        }
        for round in 0..5 {
            c.recv(previous, mine.view())?;
            assert_eq!(get(backend, &mine), vec![(previous * 10 + round) as f32; n]);
        }
        c.barrier(&group)
    })
    .unwrap();
}
