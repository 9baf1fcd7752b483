//! Attention on tensor cores with probabilities and score gradients rounded once: near the exact one by what that rounding may do, and not the same.

#![allow(clippy::unwrap_used, reason = "a failure here is the test's")]

mod twin;

use backend::ops::{Attention, AttentionBackward, Scratch};
use backend::{Backend, Class, DType};
use backend_cuda::{CudaBackend, Settings};
use conformance::or_skip;

const B: usize = 1;
const S: usize = 150;
const A: usize = 2;
const D: usize = 96;

fn bf16(bytes: &[u8]) -> Vec<f32> {
    bytes.chunks_exact(2).map(|b| f32::from_bits(u32::from(u16::from_ne_bytes([b[0], b[1]])) << 16)).collect()
}

/// Output and gradients of a forward and its backward.
fn run(settings: &Settings) -> [Vec<f32>; 2] {
    let gpu = CudaBackend::new(0, settings).unwrap();
    let new =
        |dtype, shape: &[usize]| gpu.alloc(Class::Workspace, dtype, backend::Shape::new(shape)).unwrap();
    let drawn = |seed, shape: &[usize]| {
        let (tensor, stream) = (new(DType::Bf16, shape), backend::philox::Stream { seed, stream: 0 });
        let number = |i| ((stream.normal(i) as f32).to_bits() >> 16) as u16;
        let bytes: Vec<u8> = (0..tensor.len() as u64).flat_map(|i| number(i).to_ne_bytes()).collect();
        gpu.write(tensor.view(), &bytes).unwrap();
        tensor
    };
    let (qkv, dout) = (drawn(1, &[B, S, A, 3, D]), drawn(2, &[B, S, A, D]));
    let (out, lse, dqkv) =
        (new(DType::Bf16, &[B, S, A, D]), new(DType::F32, &[B, A, S]), new(DType::Bf16, &[B, S, A, 3, D]));
    let workspace = new(DType::F32, &[gpu.workspace(Scratch::AttentionBackward { b: B, s: S, a: A, d: D })]);
    let (qkv, out, lse, dout) = (qkv.view(), out.view(), lse.view(), dout.view());
    let (scale, dropout) = (1.0 / (D as f32).sqrt(), None);
    gpu.attention(Attention { qkv, out, lse, scale, dropout, workspace: workspace.view() }).unwrap();
    let (dqkv, workspace) = (dqkv.view(), workspace.view());
    gpu.attention_backward(AttentionBackward { qkv, out, lse, dout, dqkv, scale, dropout, workspace })
        .unwrap();
    [out, dqkv].map(|view| {
        let mut bytes = vec![0; view.bytes()];
        gpu.read(view, &mut bytes).unwrap();
        bf16(&bytes)
    })
}

#[test]
fn cuda_attention_rounded_once_is_near_and_not_the_same() {
    let Some(settings) = or_skip("cuda-twin", twin::settings()) else { return };
    let exact = run(&settings);
    let rounded = run(&Settings { rounded_attention: true, ..settings });
    for (exact, rounded) in exact.iter().zip(&rounded) {
        let largest = exact.iter().fold(0.0f32, |largest, x| largest.max(x.abs()));
        let pairs = || exact.iter().zip(rounded);
        let worst = pairs().fold(0.0f32, |worst, (a, b)| worst.max((a - b).abs()));
        // Each factor is off by 2^-9 of itself at the most, and the result is rounded to as much.
        assert!(worst <= largest / 128.0, "{worst} of {largest}");
        assert!(pairs().any(|(a, b)| a != b));
        assert!(pairs().all(|(a, b)| a.is_finite() && b.is_finite()));
    }
}
