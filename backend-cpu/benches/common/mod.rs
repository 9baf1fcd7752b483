//! What the benches share: tensors of known numbers, and the shapes of preset `laptop` at batch 8.
#![allow(dead_code, missing_docs, reason = "each bench uses its part")]

use std::sync::Arc;

use backend::ops::Cast;
use backend::philox::Stream;
use backend::{Backend, Class, DType, Shape, Tensor};
use backend_cpu::{CpuBackend, CpuBuffer};

/// Sequences, tokens of one, heads, head size; tokens, hidden, vocabulary; layers.
pub const B: usize = 8;
pub const S: usize = 256;
pub const A: usize = 4;
pub const D: usize = 32;
pub const T: usize = B * S;
pub const H: usize = A * D;
pub const V: usize = 4096;

pub struct Rig {
    pub cpu: Arc<CpuBackend>,
}

impl Rig {
    /// Numbers in (-0.5, 0.5).
    pub fn floats(&self, extents: &[usize]) -> Tensor<CpuBuffer> {
        let stream = Stream { seed: 1, stream: 2 };
        let n = Shape::new(extents).len();
        let bytes: Vec<u8> = (0..n as u64).flat_map(|i| (stream.uniform(i) - 0.5).to_ne_bytes()).collect();
        self.put(DType::F32, extents, &bytes)
    }

    /// The same numbers in another type.
    pub fn cast(&self, x: &Tensor<CpuBuffer>, dtype: DType) -> Tensor<CpuBuffer> {
        let tensor = self.cpu.alloc(Class::Activations, dtype, x.view().shape()).expect("memory");
        self.cpu.cast(Cast { src: x.view(), dst: tensor.view() }).expect("floats as long");
        tensor
    }

    pub fn tokens(&self, n: usize) -> Tensor<CpuBuffer> {
        let stream = Stream { seed: 1, stream: 3 };
        let bytes: Vec<u8> = (0..n as u64).flat_map(|i| (stream.word(i) % V as u32).to_ne_bytes()).collect();
        self.put(DType::U32, &[n], &bytes)
    }

    fn put(&self, dtype: DType, extents: &[usize], bytes: &[u8]) -> Tensor<CpuBuffer> {
        let tensor = self.cpu.alloc(Class::Activations, dtype, Shape::new(extents)).expect("memory");
        self.cpu.write(tensor.view(), bytes).expect("as long");
        tensor
    }
}
