use backend::local::{LocalCommunicator, run};
use backend::{Backend, Communicator, Error, Group, GroupKind, Lane, ReduceOp};

use super::{TIMEOUT, empty, floats, get, random, rig};
use crate::{Choice, WgpuBackend};

fn cluster(ranks: usize) -> Option<Vec<LocalCommunicator<WgpuBackend>>> {
    rig()?;
    Some(WgpuBackend::cluster(ranks, TIMEOUT, &Choice::Any { name: None }).unwrap())
}

fn world(ranks: usize) -> Group {
    Group::new(GroupKind::World, (0..ranks).collect::<Vec<_>>())
}

/// The sum as the contract has it: a balanced binary tree over the ranks.
fn sum(parts: &[Vec<f32>]) -> Vec<f32> {
    let mut level = parts.to_vec();
    while level.len() > 1 {
        let add = |pair: &[Vec<f32>]| match pair {
            [a, b] => a.iter().zip(b).map(|(a, b)| a + b).collect(),
            _ => pair[0].clone(),
        };
        level = level.chunks(2).map(add).collect();
    }
    level.swap_remove(0)
}

#[test]
fn all_reduce_has_the_bits_of_the_tree() {
    for ranks in [2, 3, 4, 5, 6, 7, 8, 9, 11, 13, 16] {
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
            c.send(next, Lane::Forward, data.view())?;
        }
        for round in 0..5 {
            c.recv(previous, Lane::Forward, mine.view())?;
            assert_eq!(get(backend, &mine), vec![(previous * 10 + round) as f32; n]);
        }
        c.barrier(&group)
    })
    .unwrap();
}

#[test]
fn sums_of_any_number_of_inputs_are_the_tree() {
    let Some(backend) = rig() else { return };
    for count in [1, 2, 3, 5, 8, 9, 15, 16, 17, 37] {
        for n in [1, 37, 1024] {
            let parts: Vec<_> = (0..count).map(|i| random(n, 100 + i as u64)).collect();
            let expected = sum(&parts);
            let inputs: Vec<_> =
                parts.iter().enumerate().map(|(i, part)| floats(backend, part, i % 3, [n])).collect();
            // Into one place apart, into one of the inputs, into all of them.
            let apart = empty(backend, 1, [n]);
            let views: Vec<_> = inputs.iter().map(|input| input.view()).collect();
            backend.reduce(ReduceOp::Sum, &views, &[apart.view()]).unwrap();
            assert_eq!(get(backend, &apart), expected, "{count} inputs of {n}");
            let last = empty(backend, 2, [n]);
            backend.copy(views[count - 1], last.view()).unwrap();
            let mut others = views.clone();
            others[count - 1] = last.view();
            backend.reduce(ReduceOp::Sum, &others, &[last.view()]).unwrap();
            assert_eq!(get(backend, &last), expected, "{count} inputs of {n}, into one of them");
            backend.reduce(ReduceOp::Sum, &views, &views).unwrap();
            for input in &inputs {
                assert_eq!(get(backend, input), expected, "{count} inputs of {n}, in place");
            }
        }
    }
}
