//! Ranks as threads: every collective on real buffers.

#![allow(clippy::unwrap_used, reason = "a failure here is the test's")]

mod common;

use std::time::Duration;

use backend::{Backend, Class, Communicator, DType, Error, Group, GroupKind, Lane, ReduceOp};
use backend_cpu::{CpuBackend, cluster};

fn put(cpu: &CpuBackend, data: &[f32]) -> common::Memory {
    let memory = cpu.alloc(Class::Workspace, DType::F32, [data.len()].into()).unwrap();
    let bytes: Vec<u8> = data.iter().flat_map(|x| x.to_ne_bytes()).collect();
    cpu.write(memory.view(), &bytes).unwrap();
    memory
}

fn get(cpu: &CpuBackend, memory: &common::Memory) -> Vec<f32> {
    let mut bytes = vec![0; memory.view().bytes()];
    cpu.read(memory.view(), &mut bytes).unwrap();
    bytes.chunks_exact(4).map(|b| f32::from_ne_bytes([b[0], b[1], b[2], b[3]])).collect()
}

#[test]
fn collectives_of_four_ranks() {
    let world = Group::new(GroupKind::World, [0, 1, 2, 3]);
    let results = backend::local::run(cluster(4, Duration::from_secs(20)), |comm| -> Result<_, Error> {
        let (cpu, rank) = (comm.backend(), comm.rank());
        let mine: Vec<f32> = (0..12).map(|i| (10 * rank + i) as f32).collect();
        let sum = put(cpu, &mine);
        comm.all_reduce(&world, ReduceOp::Sum, sum.view())?;
        let max = put(cpu, &mine);
        comm.all_reduce(&world, ReduceOp::Max, max.view())?;
        let (source, part) = (put(cpu, &mine), put(cpu, &[0.0; 3]));
        comm.reduce_scatter(&world, source.view(), part.view())?;
        let whole = put(cpu, &[0.0; 12]);
        comm.all_gather(&world, part.view(), whole.view())?;
        let root = put(cpu, &mine);
        comm.broadcast(&world, 2, root.view())?;
        let (to, from) = ((rank + 1) % 4, (rank + 3) % 4);
        comm.send(to, Lane::Forward, source.view())?;
        let received = put(cpu, &[0.0; 12]);
        comm.recv(from, Lane::Forward, received.view())?;
        comm.barrier(&world)?;
        Ok([sum, max, whole, root, received].map(|x| get(cpu, &x)))
    });
    for (rank, [sum, max, whole, root, received]) in results.unwrap().into_iter().enumerate() {
        let expect = |f: &dyn Fn(usize) -> usize| (0..12).map(|i| f(i) as f32).collect::<Vec<_>>();
        assert_eq!(sum, expect(&|i| 60 + 4 * i));
        assert_eq!(max, expect(&|i| 30 + i));
        assert_eq!(whole, sum);
        assert_eq!(root, expect(&|i| 20 + i));
        assert_eq!(received, expect(&|i| 10 * ((rank + 3) % 4) + i));
    }
}
