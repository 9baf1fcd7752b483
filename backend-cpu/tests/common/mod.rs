//! A bench for one operation: inputs of known numbers, outputs full of NaN, one and several threads, an f64 reference.
#![allow(
    dead_code,
    missing_docs,
    clippy::unwrap_used,
    reason = "each test binary uses its part; a failure here is the test's"
)]

use std::sync::Arc;

use backend::ops::{Cast, Scratch};
use backend::philox::Stream;
use backend::{Backend, Class, DType, Shape, Tensor};
use backend_cpu::{CpuBackend, CpuBuffer};

pub type Memory = Tensor<CpuBuffer>;

/// Extents that fill vectors, tiles and tasks, or just miss them.
pub const ODD: [usize; 7] = [1, 2, 3, 8, 31, 64, 257];

/// Numbers in (-1, 1), a different row for each `seed`.
pub fn numbers(seed: u64, n: usize) -> Vec<f32> {
    let stream = Stream { seed, stream: 77 };
    (0..n as u64).map(|i| 2.0 * stream.uniform(i) - 1.0).collect()
}

/// Tokens below `v`.
pub fn indices(seed: u64, n: usize, v: usize) -> Vec<u32> {
    let stream = Stream { seed, stream: 78 };
    (0..n as u64).map(|i| stream.word(i) % v as u32).collect()
}

pub fn wide(x: &[f32]) -> Vec<f64> {
    x.iter().copied().map(f64::from).collect()
}

pub struct Rig {
    pub cpu: Arc<CpuBackend>,
}

impl Rig {
    pub fn new(threads: usize) -> Self {
        Self { cpu: CpuBackend::new(threads) }
    }

    /// Memory of these extents that holds `data`. It starts one element into its buffer, so that nothing is aligned by luck.
    pub fn put(&self, extents: &[usize], data: &[f32]) -> Memory {
        let bytes: Vec<u8> = data.iter().flat_map(|x| x.to_ne_bytes()).collect();
        self.place(DType::F32, extents, &bytes)
    }

    /// As [`put`](Self::put), the numbers rounded to that type.
    pub fn put_as(&self, dtype: DType, extents: &[usize], data: &[f32]) -> Memory {
        let (from, to) =
            (self.put(extents, data), self.place(dtype, extents, &vec![0; data.len() * dtype.size()]));
        self.cpu.cast(Cast { src: from.view(), dst: to.view() }).unwrap();
        to
    }

    /// Memory of that type and these extents, all of it NaN.
    pub fn nan_as(&self, dtype: DType, extents: &[usize]) -> Memory {
        self.put_as(dtype, extents, &vec![f32::NAN; Shape::new(extents).len()])
    }

    /// What memory holds, bit by bit.
    pub fn bits(&self, memory: &Memory) -> Vec<u32> {
        let mut bytes = vec![0; memory.view().bytes()];
        self.cpu.read(memory.view(), &mut bytes).unwrap();
        let word = |bytes: &[u8]| bytes.iter().rev().fold(0, |word, &byte| word << 8 | u32::from(byte));
        bytes.chunks_exact(memory.dtype().size()).map(word).collect()
    }

    pub fn put_tokens(&self, data: &[u32]) -> Memory {
        let bytes: Vec<u8> = data.iter().flat_map(|x| x.to_ne_bytes()).collect();
        self.place(DType::U32, &[data.len()], &bytes)
    }

    fn place(&self, dtype: DType, extents: &[usize], bytes: &[u8]) -> Memory {
        let shape = Shape::new(extents);
        let whole = self.cpu.alloc(Class::Workspace, dtype, Shape::new(&[shape.len() + 1])).unwrap();
        let memory = Tensor::new(whole.view().buffer().clone(), dtype, 1, shape).unwrap();
        self.cpu.write(memory.view(), bytes).unwrap();
        memory
    }

    /// Memory of these extents, all of it NaN.
    pub fn nan(&self, extents: &[usize]) -> Memory {
        self.put(extents, &vec![f32::NAN; Shape::new(extents).len()])
    }

    pub fn zeros(&self, extents: &[usize]) -> Memory {
        self.put(extents, &vec![0.0; Shape::new(extents).len()])
    }

    pub fn scratch(&self, scratch: Scratch) -> Memory {
        self.nan(&[self.cpu.workspace(scratch)])
    }

    pub fn get(&self, memory: &Memory) -> Vec<f32> {
        let mut bytes = vec![0; memory.view().bytes()];
        self.cpu.read(memory.view(), &mut bytes).unwrap();
        bytes.chunks_exact(4).map(|b| f32::from_ne_bytes([b[0], b[1], b[2], b[3]])).collect()
    }
}

/// Runs an operation on 1, 2, 3 and again 2 threads: the same bits each time, and within `tolerance` of the reference, relative to what is larger, the number or 1.
pub fn check(name: &str, tolerance: f64, run: impl Fn(&Rig) -> Vec<Vec<f32>>, expected: &[Vec<f64>]) {
    let rigs = [1, 2, 3].map(Rig::new);
    let outputs = [&rigs[0], &rigs[1], &rigs[2], &rigs[1]].map(&run);
    let bits = |x: &Vec<Vec<f32>>| -> Vec<Vec<u32>> {
        x.iter().map(|x| x.iter().map(|x| x.to_bits()).collect()).collect()
    };
    for other in &outputs[1..] {
        assert!(bits(other) == bits(&outputs[0]), "{name}: the bits depend on the threads");
    }
    assert_eq!(outputs[0].len(), expected.len(), "{name}");
    for (k, (output, expected)) in outputs[0].iter().zip(expected).enumerate() {
        assert_eq!(output.len(), expected.len(), "{name}: output {k}");
        for (i, (&x, &y)) in output.iter().zip(expected).enumerate() {
            let error = (f64::from(x) - y).abs();
            let fine =
                error <= tolerance * y.abs().max(1.0) || f64::from(x) == y || (x.is_nan() && y.is_nan());
            assert!(fine, "{name}: output {k}, element {i}: {x} for {y}");
        }
    }
}
