//! What an operation makes of an element or a row has the same bits whatever else the call has, and wherever the operands begin.

use backend::DType;

use super::kit::{CASES, Kit, Output};
use super::rig;
use crate::WgpuBackend;
use crate::matmul::MatmulKernel;

#[test]
fn parts_have_the_bits_of_the_whole() {
    let Some(rig) = rig() else { return };
    let portable =
        WgpuBackend { matmul_kernel: Some(MatmulKernel::Tiled64), subgroups: false, ..rig.clone() };
    for (backend, dtype) in [(rig, DType::F32), (rig, DType::Bf16), (&portable, DType::F32)] {
        for n in [40, 37] {
            for case in CASES {
                let kit = |offset| Kit { backend, dtype, grid: dtype, offset, n };
                let whole = (case.run)(&kit(0), 0..case.rows);
                let even = |parts: usize| (1..=parts).map(|i| i * case.rows / parts).collect::<Vec<_>>();
                for ends in [even(1), even(2), even(4), even(8), vec![1, 3, case.rows]] {
                    let mut first = 0;
                    let mut parts: Vec<Vec<f32>> = vec![];
                    for (i, &end) in ends.iter().enumerate() {
                        // In vectors and one element at a time.
                        let outputs: Vec<Output> = (case.run)(&kit((i + 1) % 4 * (i % 3)), first..end);
                        parts.resize_with(outputs.len(), Vec::new);
                        for (all, part) in parts.iter_mut().zip(outputs) {
                            all.extend(part.values);
                        }
                        first = end;
                    }
                    for (i, (parts, whole)) in parts.iter().zip(&whole).enumerate() {
                        let what =
                            format!("{} of {dtype}, output {i}, rows of {n}, cut at {ends:?}", case.name);
                        assert_eq!(parts.len(), whole.values.len(), "{what}");
                        for (at, (x, y)) in parts.iter().zip(&whole.values).enumerate() {
                            assert!(
                                x.to_bits() == y.to_bits(),
                                "{what}: element {at} is {x:e}, in the whole {y:e}"
                            );
                        }
                    }
                }
            }
        }
    }
}
