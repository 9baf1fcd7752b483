//! Host memory as device memory, and elements of any type as numbers.

use std::sync::{Arc, Mutex, PoisonError};

use backend::{Buffer, Class, DType, Error, Meter, Result, View};
use half::{bf16, f16};

/// Bytes that the copies of a handle share, counted until the last one is gone.
#[derive(Clone)]
pub struct Bytes(Arc<Held>);

struct Held {
    data: Mutex<Vec<u8>>,
    len: usize,
    class: Class,
    meter: Arc<Meter>,
}

impl Drop for Held {
    fn drop(&mut self) {
        self.meter.give(self.class, self.len as u64);
    }
}

impl Buffer for Bytes {
    fn bytes(&self) -> usize {
        self.0.len
    }

    fn same(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

impl Bytes {
    /// New ones.
    pub fn new(class: Class, len: usize, meter: &Arc<Meter>) -> Self {
        meter.take(class, len as u64);
        Self(Arc::new(Held { data: Mutex::new(vec![0; len]), len, class, meter: Arc::clone(meter) }))
    }
}

/// A view's bytes.
pub fn bytes(view: View<'_, Bytes>) -> Vec<u8> {
    let start = view.offset() * view.dtype().size();
    let data = view.buffer().0.data.lock().unwrap_or_else(PoisonError::into_inner);
    data[start..start + view.bytes()].to_vec()
}

/// Overwrites a view's bytes.
///
/// # Errors
/// [`Error::Shape`] unless they are as many.
pub fn set_bytes(op: &'static str, view: View<'_, Bytes>, from: &[u8]) -> Result<()> {
    if from.len() != view.bytes() {
        let expected = format!("{} bytes, as the host's memory has", from.len());
        return Err(Error::Shape { op, tensor: "data", expected, got: view.shape() });
    }
    let start = view.offset() * view.dtype().size();
    let mut data = view.buffer().0.data.lock().unwrap_or_else(PoisonError::into_inner);
    data[start..start + from.len()].copy_from_slice(from);
    Ok(())
}

/// A view's numbers.
pub fn numbers(view: View<'_, Bytes>) -> Vec<f64> {
    let bytes = bytes(view);
    let pairs = || bytes.chunks_exact(2).map(|b| [b[0], b[1]]);
    match view.dtype() {
        DType::F32 | DType::U32 => {
            bytes.chunks_exact(4).map(|b| f64::from(f32::from_le_bytes([b[0], b[1], b[2], b[3]]))).collect()
        }
        DType::Bf16 => pairs().map(|b| bf16::from_le_bytes(b).to_f64()).collect(),
        DType::F16 => pairs().map(|b| f16::from_le_bytes(b).to_f64()).collect(),
    }
}

/// Overwrites a view's numbers: rounded to f32, and from there to the view's type.
///
/// # Errors
/// [`Error::Shape`] unless they are as many.
pub fn set_numbers(op: &'static str, view: View<'_, Bytes>, numbers: &[f64]) -> Result<()> {
    let bytes: Vec<u8> = match view.dtype() {
        DType::F32 | DType::U32 => numbers.iter().flat_map(|&x| (x as f32).to_le_bytes()).collect(),
        DType::Bf16 => numbers.iter().flat_map(|&x| bf16::from_f32(x as f32).to_le_bytes()).collect(),
        DType::F16 => numbers.iter().flat_map(|&x| f16::from_f32(x as f32).to_le_bytes()).collect(),
    };
    set_bytes(op, view, &bytes)
}

/// Token indices.
pub fn tokens(view: View<'_, Bytes>) -> Vec<usize> {
    let bytes = bytes(view);
    bytes.chunks_exact(4).map(|b| u32::from_le_bytes([b[0], b[1], b[2], b[3]]) as usize).collect()
}
