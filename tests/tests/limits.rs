//! The wgpu backend on a device of small limits: what is past a binding or past a dispatch's workgroups at large sizes elsewhere is so here at small ones.

// In a module so that the tests' names hold the backend's: `--skip wgpu`.
mod wgpu {
    use std::time::Duration;

    use backend::Error;
    use backend_wgpu::{Choice, Trial, WgpuBackend};
    use conformance::ops::*;
    use conformance::{Case, Failure, or_skip};

    /// Of the cases of f32 how many ran and how many had an operand that no cut helps, such as one row longer than a binding.
    fn run<C: Case>(backend: &WgpuBackend, cases: Vec<C>) -> (usize, usize) {
        let (mut ran, mut refused) = (0, 0);
        for case in cases
            .into_iter()
            .filter(|case| case.id().contains("dt=f32") && !case.id().contains("place=shared"))
        {
            match case.run(backend) {
                Ok(_) => ran += 1,
                Err(Failure::Backend(Error::Limit { .. })) => refused += 1,
                Err(failure) => panic!("{}: {failure}", case.id()),
            }
        }
        (ran, refused)
    }

    fn all(trial: &Trial) {
        let backend = WgpuBackend::on_trial(&Choice::Any { name: None }, Duration::from_secs(120), trial);
        let Some(backend) = or_skip("wgpu", backend) else { return };
        let results = [
            ("elementwise", run(&backend, elementwise::cases())),
            ("gelu", run(&backend, gelu::backward_cases())),
            ("dropout", run(&backend, dropout::cases())),
            ("reduce", run(&backend, reduce::cases())),
            ("sum", run(&backend, reduce::sum_cases())),
            ("layernorm", run(&backend, layernorm::cases())),
            ("bias", run(&backend, bias::cases())),
            ("cross_entropy", run(&backend, cross_entropy::cases())),
            ("embedding", run(&backend, embedding::cases())),
            ("matmul", run(&backend, matmul::cases())),
        ];
        for (name, (ran, refused)) in results {
            println!("{name}: {ran} right, {refused} refused");
            assert!(ran > refused, "{name}: {ran} right, {refused} refused");
        }
    }

    #[test]
    fn past_a_binding() {
        all(&Trial { max_binding: Some(64 << 10), ..Trial::default() });
    }

    #[test]
    fn past_the_workgroups_of_a_dispatch() {
        all(&Trial { max_groups: Some(300), ..Trial::default() });
    }
}
