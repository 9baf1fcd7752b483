//! The model against PyTorch in fp64, in every layout that the small fixture can be cut into: loss, the gradient of every parameter, and ten AdamW steps.

use std::time::Duration;

use backend::local::{self, LocalCommunicator};
use backend::{Backend, Communicator};
use backend_wgpu::{Choice, WgpuBackend};
use conformance::fixture::Fixture;
use conformance::or_skip;
use model::{GptConfig, Slice};
use trainer::engine::{AdamWSettings, Rank, RankConfig, StepPlan, StepStats};
use trainer::layout::Layout;
use trainer::options::Execution;

const TIMEOUT: Duration = Duration::from_secs(120);
/// fp32 against fp64: relative to the loss, and to the largest element of each gradient.
const BOUND: f64 = 1e-5;
const LAYOUTS: [(usize, usize, usize); 6] =
    [(1, 1, 1), (2, 1, 1), (1, 2, 1), (1, 1, 2), (2, 2, 2), (4, 1, 4)];

fn config(fixture: &Fixture, (tp, pp, dp): (usize, usize, usize)) -> RankConfig {
    let Fixture { layers, hidden, heads, seq_len, vocab, batch, .. } = *fixture;
    let model = GptConfig {
        ffn_hidden: fixture.ffn_hidden,
        layernorm_eps: fixture.layernorm_eps,
        ..GptConfig::new(layers, hidden, heads, seq_len, vocab)
    };
    RankConfig {
        model,
        layout: Layout::new(tp, pp, dp).expect("a valid layout"),
        execution: Execution::default(),
        seq_len,
        micro_batch: 1,
        global_batch: batch,
        optimizer: AdamWSettings {
            beta1: fixture.beta1,
            beta2: fixture.beta2,
            eps: fixture.eps,
            weight_decay: fixture.weight_decay,
            clip: fixture.clip,
        },
        seed: 0,
        inference: None,
    }
}

/// The elements of a slice of a whole tensor.
fn cut<T: Copy>(whole: &[T], slice: &Slice) -> Vec<T> {
    let run = |(first, len): (u64, usize)| whole[first as usize..first as usize + len].to_vec();
    slice.runs().into_iter().flat_map(run).collect()
}

/// Runs `steps` steps at this learning rate from the fixture's weights; checks every gradient after the first.
fn run<B: Backend>(
    fixture: &Fixture,
    communicators: Vec<LocalCommunicator<B>>,
    config: &RankConfig,
    steps: usize,
    lr: f32,
) -> Vec<StepStats> {
    let s = fixture.seq_len;
    let samples = |index: u64, out: &mut [u32]| {
        let at = index as usize * s;
        out[..s].copy_from_slice(&fixture.tokens[at..at + s]);
        out[s] = fixture.targets[at + s - 1];
    };
    // Targets are the next tokens, or the fixture is not a language model's.
    for at in (0..fixture.tokens.len()).filter(|at| at % s != s - 1) {
        assert_eq!(fixture.targets[at], fixture.tokens[at + 1]);
    }
    let ranks = local::run(communicators, |communicator| -> backend::Result<_> {
        let backend = communicator.backend();
        let mut rank = Rank::new(backend, communicator, config.clone())?;
        rank.import::<backend::Error>(0, |name, slice| {
            let value = cut(&fixture.parameters[name].data, slice);
            let zeros = vec![0.0; value.len()];
            Ok([value, zeros.clone(), zeros])
        })?;
        let mut all = Vec::new();
        for step in 0..steps {
            let plan = StepPlan { first_sample: 0, global_batch: config.global_batch, lr, stop: false };
            all.push(rank.train_step(&samples, plan)?);
            if step > 0 {
                continue;
            }
            let stores = rank.chunks().iter().map(|chunk| chunk.stage.parameters());
            for (store, entry) in stores.flat_map(|store| store.entries().iter().map(move |e| (store, e))) {
                let name = &entry.parameter.name;
                let mut ours = vec![0.0_f32; entry.parameter.slice.len()];
                let gradient = store.gradients().rows(entry.offset, ours.len())?;
                backend.read(gradient, bytemuck::cast_slice_mut(&mut ours))?;
                let theirs = cut(&fixture.gradients[name].data, &entry.parameter.slice);
                let largest = fixture.gradients[name].data.iter().fold(0.0_f64, |m, g| m.max(g.abs()));
                for (i, (a, b)) in ours.iter().zip(&theirs).enumerate() {
                    let error = (f64::from(*a) - b).abs() / largest;
                    assert!(error <= BOUND, "{name}[{i}]: {a} for {b} ({error:e} of {largest})");
                }
            }
        }
        Ok((communicator.rank(), all))
    })
    .unwrap_or_else(|error| panic!("{}: {error}", config.layout));
    ranks[0].1.clone()
}

fn follows_pytorch<B: Backend>(connect: impl Fn(usize) -> Vec<LocalCommunicator<B>>) {
    let fixture = Fixture::load().expect("the committed fixture");
    for layout in LAYOUTS {
        let config = config(&fixture, layout);
        let ranks = config.layout.world_size();
        let steps = run(&fixture, connect(ranks), &config, fixture.grad_norms.len(), fixture.lr);
        for (i, step) in steps.iter().enumerate() {
            for (what, ours, theirs) in [
                ("loss", step.loss, fixture.losses[i]),
                ("gradient norm", step.grad_norm, fixture.grad_norms[i]),
            ] {
                let error = (f64::from(ours) - theirs).abs() / theirs;
                assert!(
                    error <= BOUND,
                    "{}, step {i}: {what} {ours} for {theirs} ({error:e})",
                    config.layout
                );
            }
        }
    }
}

#[test]
fn loss_gradients_and_ten_steps_on_the_cpu() {
    follows_pytorch(|ranks| backend_cpu::cluster(ranks, TIMEOUT));
}

#[test]
fn loss_gradients_and_ten_steps_on_wgpu() {
    if let Some(rank) = or_skip("wgpu", WgpuBackend::new(&Choice::Any { name: None }, TIMEOUT)) {
        follows_pytorch(|ranks| rank.cluster_beside(ranks));
    }
}
