use backend::ops::{Cast, Matmul, MatmulBias, MatmulBiasGelu, MatmulDims};
use backend::{Backend, Class as MemoryClass, DType, Shape, Tensor};

use super::elementwise::gelu;
use super::{TIMEOUT, close, empty, floats, get, random, rig, twice};
use crate::matmul::{Class, MatmulKernel, qualifies};
use crate::{Choice, Kernels, Setup, WgpuBackend};

/// The rig's device with each of the kernels.
fn every(rig: &WgpuBackend) -> Vec<WgpuBackend> {
    let kernels = MatmulKernel::ALL.into_iter().filter(|kernel| kernel.runs_on(&rig.device.info));
    let with = |kernel| WgpuBackend { matmul_kernel: Some(kernel), ..rig.clone() };
    kernels.map(with).collect()
}

fn reference(
    (a, b): (&[f32], &[f32]),
    [batch, m, n, k]: [usize; 4],
    trans_a: bool,
    trans_b: bool,
) -> Vec<f64> {
    let mut c = vec![0.0; batch * m * n];
    for (i, c) in c.iter_mut().enumerate() {
        let (z, row, column) = (i / (m * n), i / n % m, i % n);
        for j in 0..k {
            let x = a[z * m * k + if trans_a { j * m + row } else { row * k + j }];
            let y = b[z * k * n + if trans_b { column * k + j } else { j * n + column }];
            *c += f64::from(x) * f64::from(y);
        }
    }
    c
}

#[test]
fn products() {
    let Some(rig) = rig() else { return };
    let shapes =
        [[1, 1, 1, 1], [1, 7, 5, 3], [1, 64, 64, 16], [3, 33, 20, 9], [2, 68, 72, 40], [1, 130, 66, 257]];
    for backend in &every(rig) {
        for dims in shapes {
            let [batch, m, n, k] = dims;
            for (trans_a, trans_b) in [(false, false), (false, true), (true, false), (true, true)] {
                for (offset, alpha, beta) in [(0, 1.0, 0.0), (3, -0.5, 2.0)] {
                    let (a, b, before) =
                        (random(batch * m * k, 1), random(batch * k * n, 2), random(batch * m * n, 3));
                    let x = floats(backend, &a, offset, if trans_a { [batch, k, m] } else { [batch, m, k] });
                    let y = floats(backend, &b, offset, if trans_b { [batch, n, k] } else { [batch, k, n] });
                    let got = twice(|| {
                        let c = match beta == 0.0 {
                            true => empty(backend, offset, [batch, m, n]),
                            false => floats(backend, &before, offset, [batch, m, n]),
                        };
                        let args =
                            Matmul { a: x.view(), b: y.view(), c: c.view(), trans_a, trans_b, alpha, beta };
                        backend.matmul(args).unwrap();
                        vec![get(backend, &c)]
                    });
                    let product = reference((&a, &b), dims, trans_a, trans_b);
                    let expected: Vec<_> = product
                        .iter()
                        .zip(&before)
                        .map(|(p, c)| f64::from(alpha) * p + f64::from(beta) * f64::from(*c))
                        .collect();
                    let what = format!("{:?} {dims:?} {trans_a} {trans_b} {offset}", backend.matmul_kernel);
                    close(&what, &got[0], &expected, 1e-5);
                }
            }
        }
    }
}

#[test]
fn an_empty_sum_is_zero() {
    let Some(rig) = rig() else { return };
    for backend in &every(rig) {
        let (a, b) = (floats(backend, &[], 0, [3, 0]), floats(backend, &[], 0, [0, 2]));
        let c = empty(backend, 1, [3, 2]);
        let args = Matmul {
            a: a.view(),
            b: b.view(),
            c: c.view(),
            trans_a: false,
            trans_b: false,
            alpha: 1.0,
            beta: 0.0,
        };
        backend.matmul(args).unwrap();
        assert_eq!(get(backend, &c), vec![0.0; 6]);
    }
}

#[test]
fn linear_layers() {
    let Some(rig) = rig() else { return };
    for backend in &every(rig) {
        for ([t, n, k], offset) in [([5, 7, 3], 1), ([68, 132, 64], 0), ([65, 128, 128], 4)] {
            let (a, w, c) = (random(t * k, 4), random(n * k, 5), random(n, 6));
            let x = floats(backend, &a, offset, [t, k]);
            // Weights and bias in one buffer, as a parameter store has them.
            let store = floats(backend, &[&w[..], &c[..]].concat(), offset, [n * k + n]);
            let weights = store.view().rows(0, n * k).unwrap().reshape([n, k]).unwrap();
            let bias = store.view().rows(n * k, n).unwrap();
            let (y, pre) = (empty(backend, offset, [t, n]), empty(backend, offset, [t, n]));
            let product = reference((&a, &w), [1, t, n, k], false, true);
            let sum: Vec<_> = product.iter().enumerate().map(|(i, p)| p + f64::from(c[i % n])).collect();
            backend.matmul_bias(MatmulBias { x: x.view(), w: weights, bias, y: y.view() }).unwrap();
            close("matmul_bias", &get(backend, &y), &sum, 1e-5);
            let args = MatmulBiasGelu { x: x.view(), w: weights, bias, pre: pre.view(), y: y.view() };
            backend.matmul_bias_gelu(args).unwrap();
            close("pre", &get(backend, &pre), &sum, 1e-5);
            close("y", &get(backend, &y), &sum.iter().map(|&x| gelu(x)).collect::<Vec<_>>(), 1e-5);
        }
    }
}

/// A product's operands of a type, with something before them so that nothing begins at a vector, if `offset` is odd.
fn bits(
    backend: &WgpuBackend,
    dtype: DType,
    dims: [usize; 4],
    trans: [bool; 2],
    offset: usize,
    beta: f32,
) -> Vec<u32> {
    let [batch, m, n, k] = dims;
    let narrow = |data: Vec<f32>| {
        let exact = floats(backend, &data, 0, [data.len()]);
        let whole =
            backend.alloc(MemoryClass::Activations, dtype, Shape::new(&[data.len() + offset])).unwrap();
        let tensor = Tensor::new(whole.view().buffer().clone(), dtype, offset, [data.len()]).unwrap();
        backend.cast(Cast { src: exact.view(), dst: tensor.view() }).unwrap();
        tensor
    };
    let (a, b) = (narrow(random(batch * m * k, 11)), narrow(random(batch * k * n, 12)));
    let c = floats(backend, &random(batch * m * n, 13), offset, [batch, m, n]);
    let [trans_a, trans_b] = trans;
    let a_shape = if trans_a { [batch, k, m] } else { [batch, m, k] };
    let b_shape = if trans_b { [batch, n, k] } else { [batch, k, n] };
    let args = Matmul {
        a: a.view().reshape(a_shape).unwrap(),
        b: b.view().reshape(b_shape).unwrap(),
        c: c.view(),
        trans_a,
        trans_b,
        alpha: 0.7,
        beta,
    };
    backend.matmul(args).unwrap();
    get(backend, &c).iter().map(|x| x.to_bits()).collect()
}

const ALL_TRANS: [[bool; 2]; 4] = [[false, false], [false, true], [true, false], [true, true]];

#[test]
fn all_kernels_that_sum_in_order_make_the_same_bits_in_any_cut() {
    let Some(rig) = rig() else { return };
    let kernels = every(rig).into_iter().filter(|b| b.matmul_kernel.is_some_and(MatmulKernel::in_order));
    let kernels: Vec<_> = kernels.collect();
    assert!(kernels.len() >= 3);
    for dtype in [DType::F32, DType::Bf16, DType::F16] {
        for (dims, offset) in [([2, 132, 140, 36], 0), ([1, 67, 75, 33], 1), ([1, 4, 8, 2000], 0)] {
            for trans in ALL_TRANS {
                let beta = if trans[0] { 0.3 } else { 0.0 };
                let first = bits(&kernels[0], dtype, dims, trans, offset, beta);
                for backend in &kernels {
                    for most_flops in [backend.most_flops, 1 << 21, 1] {
                        let cut = WgpuBackend { most_flops, ..backend.clone() };
                        let got = bits(&cut, dtype, dims, trans, offset, beta);
                        let what = format!("{:?} {dtype} {dims:?} {trans:?} {most_flops}", cut.matmul_kernel);
                        let off = first.iter().zip(&got).position(|(x, y)| x != y);
                        assert!(off.is_none(), "{what}: element {off:?} has other bits");
                    }
                }
            }
        }
    }
}

#[test]
fn measured_kernels_make_the_bits_of_fixed_ones_and_are_kept() {
    let Some(rig) = rig() else { return };
    let dir = std::env::temp_dir().join(format!("mtnlg-tuning-{}", std::process::id()));
    let file = dir.join("matmul-kernels.tsv");
    let choice = Choice::Any { name: None };
    let open = |kernels, cache: Option<&std::path::Path>| {
        let cache = cache.map(std::path::Path::to_owned);
        Setup { kernels, cache, ..Setup::new(choice.clone(), TIMEOUT) }.rank().unwrap()
    };
    let dims = [1, 260, 136, 64];
    for trans in ALL_TRANS {
        let expected = bits(rig, DType::F32, dims, trans, 0, 0.0);
        let fixed = open(Kernels::Fixed, Some(&dir));
        assert_eq!(bits(&fixed, DType::F32, dims, trans, 0, 0.0), expected);
        assert!(trans != ALL_TRANS[0] || !file.exists(), "fixed kernels measure nothing");
        let measured = open(Kernels::SameBits, Some(&dir));
        for _ in 0..2 {
            assert_eq!(bits(&measured, DType::F32, dims, trans, 0, 0.0), expected);
        }
    }
    let text = std::fs::read_to_string(&file).unwrap();
    assert!((1..=4).contains(&text.lines().count()) && text.contains("\tf32 f32 nn m2 n1 k0\t"), "{text}");
    // What the file says is taken, whoever is the fastest; what it cannot mean is not.
    let lines: Vec<_> = text.lines().map(|line| line.rsplit_once('\t').unwrap().0).collect();
    let class =
        Class::new([false, false], [DType::F32, DType::F32], MatmulDims { batch: 1, m: 260, n: 136, k: 64 });
    for (kernel, taken) in [("tiled64", Some(MatmulKernel::Tiled64)), ("no such kernel", None)] {
        let edited: String = lines.iter().map(|line| format!("{line}\t{kernel}\nnonsense\n")).collect();
        std::fs::write(&file, edited).unwrap();
        let backend = open(Kernels::SameBits, Some(&dir));
        assert_eq!(backend.device.choices.decided(class, MatmulKernel::Registers), taken);
        let fixed = open(Kernels::Fixed, Some(&dir));
        assert_eq!(
            fixed.device.choices.decided(class, MatmulKernel::Registers),
            Some(MatmulKernel::Registers)
        );
    }
    std::fs::remove_dir_all(&dir).unwrap();
}

#[test]
fn a_kernel_that_is_wrong_does_not_qualify() {
    let Some(rig) = rig() else { return };
    let dims = MatmulDims { batch: 1, m: 9, n: 9, k: 9 };
    for (dtypes, fours) in [([DType::F32, DType::F32], true), ([DType::Bf16, DType::Bf16], false)] {
        let class = Class { fours, ..Class::new([false, true], dtypes, dims) };
        assert!(qualifies(rig, class, MatmulKernel::Tiled64, MatmulKernel::Registers));
    }
    // Where the hardware has no matrix units the kernel for them does not even compile: no winner, and no failure of the device.
    if !rig.device.info.cooperative_matrices {
        let class = Class::new([false, false], [DType::F32, DType::F32], dims);
        assert!(!qualifies(rig, class, MatmulKernel::Cooperative, MatmulKernel::Registers));
        rig.sync().unwrap();
    }
}

#[test]
fn a_profile_counts_every_dispatch() {
    let Some(rig) = rig() else { return };
    let setup = Setup { profile: true, ..Setup::new(Choice::Any { name: None }, TIMEOUT) };
    let backend = setup.rank().unwrap();
    assert_eq!(rig.profile().unwrap(), None, "nothing is measured unless it was asked for");
    if !backend.adapter().timestamps {
        assert_eq!(backend.profile().unwrap(), None);
        return;
    }
    let x = floats(&backend, &random(1 << 16, 1), 0, [256, 256]);
    let c = empty(&backend, 0, [256, 256]);
    for _ in 0..300 {
        backend.scale(x.view(), 1.0).unwrap();
    }
    let (trans_a, trans_b) = (false, true);
    let args = Matmul { a: x.view(), b: x.view(), c: c.view(), trans_a, trans_b, alpha: 1.0, beta: 0.0 };
    backend.matmul(args).unwrap();
    let profile = backend.profile().unwrap().unwrap();
    let of = |part: &str| profile.iter().find(|kernel| kernel.name.starts_with(part)).unwrap();
    assert_eq!((of("elementwise/scale").dispatches, of("matmul/").dispatches), (300, 1), "{profile:?}");
    assert!(of("matmul/").name.ends_with(" nt") && profile.iter().all(|kernel| !kernel.time.is_zero()));
    assert_eq!(backend.profile().unwrap(), Some(vec![]));
}
