//! Every layout trains the same model: the same initial weights bit for bit, and the same losses to rounding, step after step.

use std::time::Duration;

use backend::local::{self, LocalCommunicator};
use backend::philox::Stream;
use backend::{Backend, Class, Communicator};
use backend_wgpu::{Choice, WgpuBackend};
use conformance::or_skip;
use model::GptConfig;
use trainer::engine::{AdamWSettings, Rank, RankConfig, StepPlan, StepStats, TensorState};
use trainer::layout::Layout;
use trainer::options::Execution;
use trainer::schedule::Schedule;

/// (tp, pp, dp): {1, 2}^3, and four ways along each axis alone.
const LAYOUTS: [(usize, usize, usize); 11] = [
    (1, 1, 1),
    (1, 1, 2),
    (1, 2, 1),
    (1, 2, 2),
    (2, 1, 1),
    (2, 1, 2),
    (2, 2, 1),
    (2, 2, 2),
    (4, 1, 1),
    (1, 4, 1),
    (1, 1, 4),
];
const STEPS: u64 = 20;
const TIMEOUT: Duration = Duration::from_secs(120);

fn config((tp, pp, dp): (usize, usize, usize), schedule: Schedule) -> RankConfig {
    RankConfig {
        model: GptConfig { dropout: 0.1, ..GptConfig::new(4, 32, 4, 24, 128) },
        layout: Layout::new(tp, pp, dp).expect("a valid layout"),
        execution: Execution { schedule, ..Execution::default() },
        seq_len: 24,
        micro_batch: 1,
        global_batch: 8,
        optimizer: AdamWSettings { beta1: 0.9, beta2: 0.95, eps: 1e-8, weight_decay: 0.1, clip: 1.0 },
        seed: 42,
        inference: None,
    }
}

/// Text of a kind: each token follows from the one before, with some noise, so that there is something to learn.
fn samples(index: u64, out: &mut [u32]) {
    let stream = Stream { seed: 9, stream: 5 };
    let mut token = stream.word(index << 8) % 128;
    for (i, slot) in out.iter_mut().enumerate() {
        *slot = token;
        let noise = stream.word((index << 8) + i as u64 + 1);
        token = if noise.is_multiple_of(4) { noise / 4 % 128 } else { (token * 5 + 7) % 128 };
    }
}

fn plan(first_sample: u64, lr: f32) -> StepPlan {
    StepPlan { first_sample, global_batch: 8, lr, stop: false }
}

struct Trained {
    initial: Vec<TensorState>,
    steps: Vec<StepStats>,
}

fn train<B: Backend>(communicators: Vec<LocalCommunicator<B>>, config: &RankConfig) -> Trained {
    let ranks = local::run(communicators, |communicator| -> backend::Result<_> {
        let mut rank = Rank::new(communicator.backend(), communicator, config.clone())?;
        let initial = rank.export()?;
        let lr = |step: u64| 3e-3 * (step + 1).min(5) as f32 / 5.0;
        let held = || Class::ALL.map(|class| communicator.backend().usage(class).current);
        let mut steps = Vec::new();
        let mut after_two = None;
        for step in 0..STEPS {
            steps.push(rank.train_step(&samples, plan(step * 8, lr(step)))?);
            if step == 1 {
                after_two = Some(held());
            }
        }
        // Behind the second step nothing more is asked of the device.
        assert_eq!(Some(held()), after_two, "rank {}", communicator.rank());
        Ok((initial, steps, communicator.rank()))
    })
    .unwrap_or_else(|error| panic!("{}: {error}", config.layout));
    let steps = ranks[0].1.clone();
    for (_, other, rank) in &ranks {
        assert_eq!(*other, steps, "rank {rank} of {} reports other numbers than rank 0", config.layout);
    }
    Trained { initial: ranks.into_iter().flat_map(|(initial, ..)| initial).collect(), steps }
}

/// Every element of every initial parameter, by its global index.
fn elements(initial: &[TensorState]) -> Vec<(String, u64, u32)> {
    let mut all = Vec::new();
    for state in initial {
        let mut values = state.value.iter();
        for (first, len) in state.slice.runs() {
            for index in first..first + len as u64 {
                let value = values.next().expect("a slice's runs cover its values");
                all.push((state.name.clone(), index, value.to_bits()));
            }
        }
    }
    all.sort();
    all
}

fn every_layout<B: Backend>(connect: impl Fn(usize) -> Vec<LocalCommunicator<B>>) {
    let serial = train(connect(1), &config((1, 1, 1), Schedule::OneFOneB));
    let weights = elements(&serial.initial);
    let losses: Vec<f32> = serial.steps.iter().map(|step| step.loss).collect();
    assert!(losses[STEPS as usize - 1] < losses[0] - 0.5, "nothing was learnt: {losses:?}");
    for layout in LAYOUTS {
        for schedule in [Schedule::OneFOneB, Schedule::GPipe] {
            let config = config(layout, schedule);
            if schedule == Schedule::GPipe && config.layout.pp() == 1 {
                continue;
            }
            let trained = train(connect(config.layout.world_size()), &config);
            assert!(elements(&trained.initial) == weights, "{}: other initial weights", config.layout);
            for (step, (a, b)) in trained.steps.iter().zip(&serial.steps).enumerate() {
                for (what, a, b) in [("loss", a.loss, b.loss), ("gradient norm", a.grad_norm, b.grad_norm)] {
                    let relative = ((a - b) / b).abs();
                    // NaN is not below the bound.
                    assert!(relative <= 1e-5, "{}, step {step}: {what} {a} for {b}", config.layout);
                }
            }
        }
    }
}

#[test]
fn every_layout_trains_alike_on_the_cpu() {
    every_layout(|ranks| backend_cpu::cluster(ranks, TIMEOUT));
}

/// The same layout gives the same bits, run after run.
#[test]
fn a_run_repeats_its_bits() {
    let config = config((2, 2, 2), Schedule::OneFOneB);
    let run = || train(backend_cpu::cluster(8, TIMEOUT), &config).steps;
    let bits = |steps: Vec<StepStats>| -> Vec<[u32; 2]> {
        steps.iter().map(|step| [step.loss.to_bits(), step.grad_norm.to_bits()]).collect()
    };
    assert_eq!(bits(run()), bits(run()));
}

/// Buckets that replicas reduce beside the backward are the sums that they would be behind it.
#[test]
fn overlapped_buckets_have_the_same_bits() {
    for schedule in [Schedule::OneFOneB, Schedule::Interleaved] {
        let config = |bucket| {
            let mut config = config((2, 2, 2), schedule);
            config.execution.bucket = bucket;
            config.execution.virtual_stages = if schedule == Schedule::Interleaved { 2 } else { 1 };
            config
        };
        let run = |bucket| train(backend_cpu::cluster(8, TIMEOUT), &config(bucket)).steps;
        let behind = run(0);
        // A bucket a layer, and one for all of them.
        for bucket in [1, 1 << 20] {
            assert_eq!(run(bucket), behind, "{schedule}, buckets of {bucket}");
        }
    }
}

/// A rank that fails stops the others with its own words, at once.
#[test]
fn a_failing_rank_stops_the_others() {
    let config = config((2, 2, 2), Schedule::OneFOneB);
    let start = std::time::Instant::now();
    let result = local::run(backend_cpu::cluster(8, TIMEOUT), |communicator| -> backend::Result<()> {
        let mut rank = Rank::new(communicator.backend(), communicator, config.clone())?;
        if communicator.rank() == 5 {
            return Err(backend::Error::Device { what: "pulled the plug".to_owned() });
        }
        rank.train_step(&samples, plan(0, 1e-3)).map(drop)
    });
    let error = result.expect_err("a rank has failed").to_string();
    assert!(error.contains("pulled the plug"), "{error}");
    assert!(start.elapsed() < TIMEOUT / 4, "the others waited");
}

#[test]
fn every_layout_trains_alike_on_wgpu() {
    if let Some(rank) = or_skip("wgpu", WgpuBackend::new(&Choice::Any { name: None }, TIMEOUT)) {
        every_layout(|ranks| rank.cluster_beside(ranks));
    }
}
