//! Each operation on whatever adapter there is (lavapipe on a machine without a GPU) against plain f64 loops, with odd sizes and offsets.

mod attention;
mod collectives;
mod cuts;
mod elementwise;
mod failures;
mod kit;
mod matmul;
mod narrow;
mod rows;
mod tokens;

use std::sync::OnceLock;
use std::time::Duration;

use backend::philox::Stream;
use backend::{Backend, Class, DType, Shape, Tensor, View};

use crate::{Choice, WgpuBackend, WgpuBuffer};

/// What surrounds an operand, and must still be there afterwards.
const GUARD: f32 = -12_345.0;

pub(crate) const TIMEOUT: Duration = Duration::from_secs(120);

/// The adapter, or word that there is none; with `MTNLG_REQUIRE=wgpu` that is a failure.
pub(crate) fn rig() -> Option<&'static WgpuBackend> {
    static RIG: OnceLock<Option<WgpuBackend>> = OnceLock::new();
    RIG.get_or_init(|| match WgpuBackend::new(&Choice::Any { name: None }, TIMEOUT) {
        Ok(backend) => Some(backend),
        Err(error) => {
            skip_unless_required("wgpu", &error);
            None
        }
    })
    .as_ref()
}

/// Says that the test is skipped; if `MTNLG_REQUIRE`, a list with commas, names the thing that is missing, that is a failure.
#[track_caller]
pub(crate) fn skip_unless_required(name: &str, error: &backend::Error) {
    let required = std::env::var("MTNLG_REQUIRE").unwrap_or_default();
    assert!(!required.split(',').any(|what| what.trim() == name), "MTNLG_REQUIRE asks for {name}: {error}");
    println!("skipped: {error}");
}

/// Numbers in (-1, 1), the same for the same seed.
pub(crate) fn random(n: usize, seed: u64) -> Vec<f32> {
    let stream = Stream { seed, stream: 1 };
    (0..n as u64).map(|i| 2.0 * stream.uniform(i) - 1.0).collect()
}

/// A tensor `offset` elements into a guarded buffer.
pub(crate) fn place(
    backend: &WgpuBackend,
    dtype: DType,
    words: &[u32],
    offset: usize,
    shape: impl Into<Shape>,
) -> Tensor<WgpuBuffer> {
    let n = offset + words.len() + 5;
    let whole = backend.alloc(Class::Activations, DType::F32, Shape::new(&[n])).unwrap();
    let mut data = vec![GUARD.to_bits(); n];
    data[offset..offset + words.len()].copy_from_slice(words);
    backend.write(whole.view(), bytemuck::cast_slice(&data)).unwrap();
    Tensor::new(whole.view().buffer().clone(), dtype, offset, shape).unwrap()
}

pub(crate) fn floats(
    backend: &WgpuBackend,
    data: &[f32],
    offset: usize,
    shape: impl Into<Shape>,
) -> Tensor<WgpuBuffer> {
    place(backend, DType::F32, bytemuck::cast_slice(data), offset, shape)
}

/// A tensor that holds NaN, to be overwritten.
pub(crate) fn empty(backend: &WgpuBackend, offset: usize, shape: impl Into<Shape>) -> Tensor<WgpuBuffer> {
    let shape = shape.into();
    floats(backend, &vec![f32::NAN; shape.len()], offset, shape)
}

pub(crate) fn workspace(backend: &WgpuBackend, n: usize) -> Tensor<WgpuBuffer> {
    floats(backend, &vec![f32::NAN; n], 3, [n])
}

/// The tensor's numbers; its guards are still there.
pub(crate) fn get(backend: &WgpuBackend, tensor: &Tensor<WgpuBuffer>) -> Vec<f32> {
    let view = tensor.view();
    let n = view.offset() + view.len() + 5;
    let mut all = vec![0f32; n];
    let whole = View::new(view.buffer(), DType::F32, 0, [n]).unwrap();
    backend.read(whole, bytemuck::cast_slice_mut(&mut all)).unwrap();
    let end = view.offset() + view.len();
    let guards = all[..view.offset()].iter().chain(&all[end..]);
    assert!(guards.into_iter().all(|&x| x == GUARD), "something wrote beside the tensor {view:?}");
    all[view.offset()..end].to_vec()
}

/// Every number is within `tolerance (1 + |expected|)`.
#[track_caller]
pub(crate) fn close(what: &str, got: &[f32], expected: &[f64], tolerance: f64) {
    assert_eq!(got.len(), expected.len(), "{what}");
    for (i, (&g, &e)) in got.iter().zip(expected).enumerate() {
        let off = (f64::from(g) - e).abs();
        assert!(off <= tolerance * (1.0 + e.abs()), "{what}: element {i} is {g}, expected {e} (off {off:e})");
    }
}

/// Runs a case twice; the bits are the same.
#[track_caller]
pub(crate) fn twice(mut case: impl FnMut() -> Vec<Vec<f32>>) -> Vec<Vec<f32>> {
    let bits = |all: &[Vec<f32>]| -> Vec<Vec<u32>> {
        all.iter().map(|v| v.iter().map(|x| x.to_bits()).collect()).collect()
    };
    let (first, second) = (case(), case());
    assert!(bits(&first) == bits(&second), "two runs differ");
    first
}
