//! bf16 and f16: an operation on narrow operands does what it does on the same values in f32, and rounds its results once.

use backend::ops::Cast;
use backend::{Backend, Class, DType, Shape};

use super::kit::{CASES, Kit, decode, encode};
use super::rig;
use crate::WgpuBackend;
use crate::matmul::MatmulKernel;

#[test]
fn narrow_operations_are_those_of_f32_rounded_once() {
    let Some(rig) = rig() else { return };
    // With the kernels for subgroups of eight, where the adapter has them, and without.
    for (portable, grid) in [(false, DType::Bf16), (true, DType::Bf16), (false, DType::F16)] {
        let backend = &WgpuBackend {
            matmul_kernel: if portable { Some(MatmulKernel::Tiled64) } else { rig.matmul_kernel },
            subgroups: rig.subgroups && !portable,
            ..rig.clone()
        };
        // In vectors, and one element at a time.
        for (n, offset) in [(40, 0), (37, 1)] {
            for case in CASES {
                let of = |dtype| (case.run)(&Kit { backend, dtype, grid, offset, n }, 0..case.rows);
                let (narrow, full) = (of(grid), of(DType::F32));
                for (i, (narrow, full)) in narrow.iter().zip(&full).enumerate() {
                    let what = format!("{} of {grid}, output {i}, rows of {n} at {offset}", case.name);
                    assert_eq!(narrow.values.len(), full.values.len(), "{what}");
                    for (at, (&got, &x)) in narrow.values.iter().zip(&full.values).enumerate() {
                        let expected = decode(narrow.dtype, &encode(narrow.dtype, x));
                        assert!(
                            got.to_bits() == expected.to_bits() && !got.is_nan(),
                            "{what}: element {at} is {got:e}, expected {x:e} as {expected:e}"
                        );
                    }
                }
            }
        }
    }
}

/// Values at and beside every border of the types: each 16-bit pattern, what lies half way to the next, and an ulp on both sides of that.
fn border_values(dtype: DType) -> Vec<f32> {
    let mut all = vec![];
    for bits in 0..=u16::MAX {
        let x = decode(dtype, &bits.to_ne_bytes());
        let half = match dtype {
            DType::Bf16 => f32::from_bits((u32::from(bits) << 16) | 0x8000),
            _ => (x + decode(dtype, &bits.wrapping_add(1).to_ne_bytes())) / 2.0,
        };
        let around = [half.to_bits().wrapping_sub(1), half.to_bits(), half.to_bits().wrapping_add(1)];
        all.push(x);
        all.extend(around.map(f32::from_bits));
    }
    all.extend([
        f32::MAX,
        -f32::MAX,
        f32::INFINITY,
        65519.0,
        65520.0,
        -65520.0,
        1e-30,
        -1e-30,
        2.9e-8,
        3.0e-8,
    ]);
    // Subnormal f32: a device may take them for zero. (Every bf16 below 2^-126 is one.)
    all.retain(|x| !x.is_subnormal());
    all
}

#[test]
fn casts_round_to_nearest_even() {
    let Some(backend) = rig() else { return };
    for dtype in [DType::Bf16, DType::F16] {
        let values = border_values(dtype);
        for (n, offset) in [(values.len() / 4 * 4, 0), (values.len() / 4 * 4 - 1, 1)] {
            let kit = Kit { backend, dtype, grid: dtype, offset, n };
            let src = kit.put_as(DType::F32, &values[..n], [n]);
            let (dst, back) =
                (kit.put_as(dtype, &vec![1.0; n], [n]), kit.put_as(DType::F32, &vec![1.0; n], [n]));
            backend.cast(Cast { src: src.view(), dst: dst.view() }).unwrap();
            backend.cast(Cast { src: dst.view(), dst: back.view() }).unwrap();
            let (dst, back) = (kit.get(&dst).values, kit.get(&back).values);
            for ((&x, got), back) in values.iter().zip(dst).zip(back) {
                let expected = decode(dtype, &encode(dtype, x));
                let same = |y: f32| y.to_bits() == expected.to_bits() || (x.is_nan() && y.is_nan());
                assert!(same(got) && same(back), "{dtype} of {x:e} ({:#x}): {got:e}, {back:e}", x.to_bits());
            }
        }
    }
}

#[test]
fn host_writes_and_reads_end_within_words() {
    let Some(backend) = rig() else { return };
    for (offset, n) in [(0, 1), (1, 1), (1, 2), (3, 64), (2, 7), (5, 100_001)] {
        let whole = backend.alloc(Class::Activations, DType::Bf16, Shape::new(&[offset + n + 1])).unwrap();
        backend.fill(whole.view(), 7.0).unwrap();
        let bytes: Vec<u8> = (0..2 * n).map(|i| (i * 7 % 251) as u8).collect();
        let part = whole.view().rows(offset, n).unwrap();
        backend.write(part, &bytes).unwrap();
        let mut got = vec![0; bytes.len()];
        backend.read(part, &mut got).unwrap();
        assert_eq!(got, bytes);
        let mut all = vec![0; 2 * (offset + n + 1)];
        backend.read(whole.view(), &mut all).unwrap();
        let seven = half::bf16::from_f32(7.0).to_ne_bytes();
        let beside = all[..2 * offset].chunks(2).chain(all[2 * (offset + n)..].chunks(2));
        assert!(beside.into_iter().all(|x| x == seven), "{offset}, {n}");
    }
}
