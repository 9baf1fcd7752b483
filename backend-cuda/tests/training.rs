//! A small model trained by eight ranks, (tp, pp, dp) = (2, 2, 2), on eight GPUs of the CPU twin, through NCCL: against one rank of it, and against the CPU backend.

#![allow(clippy::unwrap_used, reason = "a failure here is the test's")]

mod twin;
#[path = "twin/ranks.rs"]
mod twin_ranks;

mod cuda {
    use backend_cuda::{CudaBackend, Products, Settings};
    use conformance::or_skip;
    use trainer::launch::{Member, World};
    use trainer::parity::{Trained, default_config, random_samples, train};
    use trainer::run::rank_config;

    use super::twin_ranks::{PATIENCE, on_each};

    const STEPS: u64 = 3;

    fn gpus(n: usize, invariant: bool, settings: &Settings) -> World<CudaBackend> {
        let member =
            |backend, communicator| Member { backend, communicator: Box::new(communicator) as Box<_> };
        World::Members(on_each(n, PATIENCE, invariant, settings, member))
    }

    /// Some steps in that layout: `None` where there is no twin, otherwise on it with those products, or on the CPU backend where there are none.
    fn trained(
        mode: &str,
        dtype: &str,
        [tp, pp, dp]: [usize; 3],
        products: Option<Products>,
    ) -> Option<Trained> {
        let set = [
            format!("numerics.mode={mode}"),
            format!("train.precision={dtype}"),
            format!("parallel.tensor={tp}"),
            format!("parallel.pipeline={pp}"),
            format!("parallel.data={dp}"),
        ];
        let config = default_config(&set).unwrap();
        let samples = random_samples(config.train.seed, config.model.vocab, config.train.seq_len);
        let (ranks, lr) = (tp * pp * dp, config.train.lr as f32);
        let config = rank_config(&config);
        Some(match products {
            None => train(
                World::Threads(backend_cpu::cluster(ranks, PATIENCE)),
                &config,
                &samples,
                lr,
                0..STEPS,
                None,
            )
            .unwrap(),
            Some(products) => {
                let settings = Settings { products, ..or_skip("cuda-twin", super::twin::settings())? };
                train(gpus(ranks, mode == "invariant", &settings), &config, &samples, lr, 0..STEPS, None)
                    .unwrap()
            }
        })
    }

    /// The same bits on eight GPUs as on one: loss, norm, every parameter and moment.
    #[test]
    fn invariant_in_every_layout() {
        let kernels = Some(Products::Kernels);
        let Some(eight) = trained("invariant", "bf16", [2, 2, 2], kernels) else { return };
        let Some(one) = trained("invariant", "bf16", [1, 1, 1], kernels) else { return };
        assert!(
            eight == one,
            "loss {} and {}, norm {} and {}",
            eight.loss,
            one.loss,
            eight.grad_norm,
            one.grad_norm
        );
    }

    /// Two backends add in different orders: the losses agree to what that leaves after a few steps.
    fn agree(dtype: &str, products: Products, [of_loss, of_norm]: [f32; 2]) {
        let Some(cuda) = trained("fast", dtype, [2, 2, 2], Some(products)) else { return };
        let Some(cpu) = trained("fast", dtype, [2, 2, 2], None) else { return };
        println!("loss {} and {}, norm {} and {}", cuda.loss, cpu.loss, cuda.grad_norm, cpu.grad_norm);
        assert!((cuda.loss - cpu.loss).abs() <= of_loss * cpu.loss, "{} and {}", cuda.loss, cpu.loss);
        assert!(
            (cuda.grad_norm - cpu.grad_norm).abs() <= of_norm * cpu.grad_norm,
            "{} and {}",
            cuda.grad_norm,
            cpu.grad_norm
        );
    }

    /// Training takes cuBLASLt where only speed counts.
    #[test]
    fn only_fast_training_has_products_by_cublaslt() {
        use trainer::device::Device;
        for (mode, deterministic, products) in [
            ("fast", false, Products::Fastest),
            ("fast", true, Products::Kernels),
            ("invariant", false, Products::Kernels),
        ] {
            let set = [format!("numerics.mode={mode}"), format!("numerics.deterministic={deterministic}")];
            let kernels = default_config(&set).unwrap().kernels();
            let device = Device::Cuda(Products::default()).with_kernels(kernels);
            assert_eq!(device, Device::Cuda(products), "{mode}, {deterministic}");
        }
    }

    #[test]
    fn as_the_cpu_backend() {
        agree("f32", Products::Kernels, [1e-5, 1e-4]);
    }

    #[test]
    fn as_the_cpu_backend_with_products_by_cublaslt() {
        agree("f32", Products::CublasLt, [1e-5, 1e-4]);
    }

    /// One rounding to bf16 is 2^-9 of a number at the most, and so of a norm; a mean over tokens, each rounded one way or the other, is off by a part of that. By our
    /// own kernels as by cuBLASLt.
    #[test]
    fn as_the_cpu_backend_in_bf16_with_products_by_cublaslt() {
        let bounds = [-12, -9].map(|exponent| 2f32.powi(exponent));
        agree("bf16", Products::Kernels, bounds);
        agree("bf16", Products::CublasLt, bounds);
    }
}
