//! A small model trained by eight ranks, (tp, pp, dp) = (2, 2, 2), on eight GPUs of the CPU twin, through NCCL: against one rank of it, and against the CPU backend.

#![allow(clippy::unwrap_used, reason = "a failure here is the test's")]

mod twin;
#[path = "twin/ranks.rs"]
mod twin_ranks;

mod cuda {
    use backend_cuda::{CudaBackend, Settings};
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

    /// Some steps in that layout: `None` where there is no twin, otherwise on it, or on the CPU backend.
    fn trained(mode: &str, dtype: &str, [tp, pp, dp]: [usize; 3], cpu: bool) -> Option<Trained> {
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
        Some(match cpu {
            true => train(
                World::Threads(backend_cpu::cluster(ranks, PATIENCE)),
                &config,
                &samples,
                lr,
                0..STEPS,
                None,
            )
            .unwrap(),
            false => {
                let settings = or_skip("cuda-twin", super::twin::settings())?;
                train(gpus(ranks, mode == "invariant", &settings), &config, &samples, lr, 0..STEPS, None)
                    .unwrap()
            }
        })
    }

    /// The same bits on eight GPUs as on one: loss, norm, every parameter and moment.
    #[test]
    fn invariant_in_every_layout() {
        let Some(eight) = trained("invariant", "bf16", [2, 2, 2], false) else { return };
        let Some(one) = trained("invariant", "bf16", [1, 1, 1], false) else { return };
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
    #[test]
    fn as_the_cpu_backend() {
        let Some(cuda) = trained("fast", "f32", [2, 2, 2], false) else { return };
        let Some(cpu) = trained("fast", "f32", [2, 2, 2], true) else { return };
        assert!((cuda.loss - cpu.loss).abs() <= 1e-5 * cpu.loss, "{} and {}", cuda.loss, cpu.loss);
        assert!(
            (cuda.grad_norm - cpu.grad_norm).abs() <= 1e-4 * cpu.grad_norm,
            "{} and {}",
            cuda.grad_norm,
            cpu.grad_norm
        );
    }
}
