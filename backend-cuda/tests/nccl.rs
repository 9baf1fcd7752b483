//! Ranks on GPUs of their own, talking through NCCL, on the CPU twin: threads of this process that find each other over TCP as processes do.

#![allow(clippy::unwrap_used, reason = "a failure here is the test's")]

mod twin;
#[path = "twin/ranks.rs"]
mod twin_ranks;

mod cuda {
    use std::time::Duration;

    use backend::{
        Backend, Class, Communicator, DType, Error, Group, GroupKind, Lane, ReduceOp, Result, Tensor,
    };
    use backend_cuda::{CudaBackend, CudaBuffer, NcclCommunicator};
    use conformance::or_skip;

    use super::twin_ranks::{PATIENCE, on_each};

    /// Runs `work` on that many ranks; the results in rank order, or nothing where there is no twin.
    fn ranks<R: Send>(
        n: usize,
        timeout: Duration,
        invariant: bool,
        work: impl Fn(&NcclCommunicator) -> R + Sync,
    ) -> Option<Vec<R>> {
        let settings = or_skip("cuda-twin", super::twin::settings())?;
        Some(on_each(n, timeout, invariant, &settings, |_, communicator| work(&communicator)))
    }

    fn everybody(n: usize) -> Group {
        Group::new(GroupKind::World, (0..n).collect::<Vec<_>>())
    }

    /// Numbers whose sums show their order; whole ones where that must not show.
    fn numbers(rank: usize, len: usize, whole: bool) -> Vec<f32> {
        let stream = backend::philox::Stream { seed: 3, stream: rank as u64 };
        let number = |i| match whole {
            true => (stream.word(i) % 200) as f32 - 100.0,
            false => (stream.uniform(i) - 0.5) * 2f32.powi((stream.word(i) % 20) as i32),
        };
        (0..len as u64).map(number).collect()
    }

    fn put(backend: &CudaBackend, data: &[f32]) -> Tensor<CudaBuffer> {
        let tensor = backend.alloc(Class::Workspace, DType::F32, [data.len()].into()).unwrap();
        let bytes: Vec<u8> = data.iter().flat_map(|x| x.to_ne_bytes()).collect();
        backend.write(tensor.view(), &bytes).unwrap();
        tensor
    }

    fn get(backend: &CudaBackend, tensor: &Tensor<CudaBuffer>) -> Result<Vec<f32>> {
        let mut bytes = vec![0; tensor.view().bytes()];
        backend.read(tensor.view(), &mut bytes)?;
        Ok(bytes.chunks_exact(4).map(|b| f32::from_ne_bytes([b[0], b[1], b[2], b[3]])).collect())
    }

    /// The contract's tree.
    fn tree(mut level: Vec<Vec<f32>>, op: ReduceOp) -> Vec<f32> {
        let both = |a: f32, b: f32| if op == ReduceOp::Sum { a + b } else { a.max(b) };
        while level.len() > 1 {
            let pair = |pair: &[Vec<f32>]| match pair {
                [a, b] => a.iter().zip(b).map(|(a, b)| both(*a, *b)).collect(),
                _ => pair[0].clone(),
            };
            level = level.chunks(2).map(pair).collect();
        }
        level.remove(0)
    }

    /// Every collective on groups of everybody and of halves.
    fn collectives(n: usize, invariant: bool) {
        ranks(n, PATIENCE, invariant, |comm| {
            let (backend, rank) = (comm.backend(), comm.rank());
            let half = Group::new(GroupKind::Data, (rank % 2..n).step_by(2).collect::<Vec<_>>());
            for group in [everybody(n), half] {
                let members = group.ranks();
                let place = group.position(rank).unwrap();
                for part in [1, 7, 1000] {
                    let all = |len| members.iter().map(|r| numbers(*r, len, !invariant)).collect::<Vec<_>>();
                    for op in [ReduceOp::Sum, ReduceOp::Max] {
                        let data = put(backend, &numbers(rank, part, !invariant));
                        comm.all_reduce(&group, op, data.view()).unwrap();
                        assert_eq!(
                            get(backend, &data).unwrap(),
                            tree(all(part), op),
                            "{op:?} {group:?} {part}"
                        );
                    }
                    let len = part * members.len();
                    let (src, dst) =
                        (put(backend, &numbers(rank, len, !invariant)), put(backend, &vec![f32::NAN; part]));
                    comm.reduce_scatter(&group, src.view(), dst.view()).unwrap();
                    let sum = tree(all(len), ReduceOp::Sum);
                    assert_eq!(get(backend, &dst).unwrap(), sum[place * part..(place + 1) * part]);
                    let gathered = put(backend, &vec![f32::NAN; len]);
                    comm.all_gather(&group, dst.view(), gathered.view()).unwrap();
                    assert_eq!(get(backend, &gathered).unwrap(), sum);
                    let root = members[members.len() - 1];
                    let data = put(backend, &numbers(rank, part, true));
                    comm.broadcast(&group, root, data.view()).unwrap();
                    assert_eq!(get(backend, &data).unwrap(), numbers(root, part, true));
                    comm.barrier(&group).unwrap();
                }
            }
        });
    }

    #[test]
    fn collectives_are_those_of_the_contract() {
        collectives(4, true);
        collectives(3, true);
    }

    #[test]
    fn collectives_of_nccl() {
        collectives(4, false);
    }

    /// Everybody sends, twice on each lane, before anybody receives; what was sent may be overwritten at once.
    #[test]
    fn messages_wait_for_nobody() {
        let n = 3;
        ranks(n, PATIENCE, false, |comm| {
            let (backend, rank) = (comm.backend(), comm.rank());
            let (next, before) = ((rank + 1) % n, (rank + n - 1) % n);
            let ways = [(Lane::Forward, next, before), (Lane::Backward, before, next)];
            for round in 0..2 {
                for (lane, to, _) in ways {
                    let data = put(
                        backend,
                        &numbers(10 * rank + round + usize::from(lane == Lane::Backward) * 5, 300, false),
                    );
                    comm.send(to, lane, data.view()).unwrap();
                    backend.fill(data.view(), f32::NAN).unwrap();
                }
            }
            for round in 0..2 {
                for (lane, _, from) in ways {
                    let data = put(backend, &[0.0; 300]);
                    comm.recv(from, lane, data.view()).unwrap();
                    let expected =
                        numbers(10 * from + round + usize::from(lane == Lane::Backward) * 5, 300, false);
                    assert_eq!(get(backend, &data).unwrap(), expected, "{lane:?} from {from}");
                }
            }
        });
    }

    /// A rank that does not come is named, with the operation and the group, by a collective and by the read after it.
    #[test]
    fn a_missing_rank_is_named() {
        let results = ranks(2, Duration::from_secs(2), false, |comm| -> Result<()> {
            let data = put(comm.backend(), &[1.0; 8]);
            comm.all_reduce(&everybody(2), ReduceOp::Sum, data.view())?;
            get(comm.backend(), &data)?;
            if comm.rank() == 1 {
                std::thread::sleep(Duration::from_secs(8));
                return Ok(());
            }
            comm.all_reduce(&everybody(2), ReduceOp::Sum, data.view())?;
            get(comm.backend(), &data).map(drop)
        });
        let Some(results) = results else { return };
        let expected =
            Error::Timeout { op: "all_reduce", group: "world", rank: 0, missing: vec![1], seconds: 2 };
        assert_eq!(results[0], Err(expected));
    }

    /// A rank that fails takes the others with it, in its own words.
    #[test]
    fn a_failed_rank_is_heard_of() {
        let results = ranks(3, PATIENCE, false, |comm| -> Result<()> {
            let data = put(comm.backend(), &[1.0; 8]);
            comm.all_reduce(&everybody(3), ReduceOp::Sum, data.view())?;
            if comm.rank() == 2 {
                comm.fail("the disk is full");
                return Ok(());
            }
            comm.all_reduce(&everybody(3), ReduceOp::Sum, data.view())?;
            get(comm.backend(), &data).map(drop)
        });
        let Some(results) = results else { return };
        for result in &results[..2] {
            match result {
                Err(Error::PeerFailed { peer: 2, cause, .. }) => {
                    assert!(cause.contains("the disk is full"), "{cause}")
                }
                other => panic!("{other:?}"),
            }
        }
    }
}
