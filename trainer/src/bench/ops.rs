//! `mtnlg bench ops`: the seconds of each operation, in the training step that they belong to.
//!
//! A step is run with every operation timed and waited for, again and again, and the same step on the simulated backend, which says of each operation what it
//! computes and moves. Both are asked for the same operations in the same order: that is checked.

use std::collections::BTreeMap;
use std::fmt;
use std::time::{Duration, Instant};

use backend::{Backend, Communicator};
use backend_sim::{Operation, Stack};

use super::random_tokens;
use super::timed::{Timed, Timing};
use crate::config::RunConfig;
use crate::engine::{Rank, StepPlan};
use crate::launch::{Job, World};
use crate::planner::calibrate::{Measured, Sample};
use crate::rehearse::{Place, operations};
use crate::run::rank_config;
use crate::{Error, Result};

/// Steps before the clock counts.
const WARM_UP: usize = 2;
/// Steps that are timed at the least.
const FEWEST: usize = 5;

/// The benchmark of a step's operations: for `seconds`, at least five steps.
pub struct Ops<'a> {
    /// Model, layout and batch.
    pub config: &'a RunConfig,
    /// How long.
    pub seconds: f64,
}

impl Job for Ops<'_> {
    type Output = Measured;

    fn run<B: Backend>(self, world: World<B>) -> Result<Measured> {
        let info = world.info().ok_or_else(|| Error::other("a world without ranks"))?;
        let rank_config = rank_config(self.config);
        let samples = random_tokens(&rank_config);
        let timed = world.run_shared(|backend, communicator: &dyn Communicator<B::Buffer>| {
            let timed = Timed::new(backend);
            let mut rank = Rank::new(&timed, communicator, rank_config.clone())?;
            let mut steps: Vec<Vec<Timing>> = Vec::new();
            let (mut seconds, mut busy) = (Vec::new(), Vec::new());
            let begin = Instant::now();
            loop {
                timed.take();
                let (start, clock) = (Instant::now(), timed.clock());
                let enough = begin.elapsed() > Duration::from_secs_f64(self.seconds)
                    && steps.len() >= WARM_UP + FEWEST - 1;
                let global_batch = rank_config.global_batch;
                let first_sample = rank.steps() * global_batch as u64;
                let stop = enough && communicator.rank() == 0;
                let stats =
                    rank.train_step(&samples, StepPlan { first_sample, global_batch, lr: 1e-4, stop })?;
                seconds.push(start.elapsed().as_secs_f64());
                busy.push(timed.clock() - clock);
                steps.push(timed.take());
                if stats.stop {
                    let counted = [seconds.split_off(WARM_UP), busy.split_off(WARM_UP)];
                    return Ok((steps.split_off(WARM_UP), counted));
                }
            }
        })?;
        let place = Place::load("laptop", Stack::OWN)?;
        let asked = operations(self.config, &place)?;
        let mut by_operation: BTreeMap<(&str, u64, u64), Vec<f64>> = BTreeMap::new();
        for ((steps, _), asked) in timed.iter().zip(&asked) {
            for step in steps {
                same(step, asked)?;
                for ((op, seconds), operation) in step.iter().zip(asked) {
                    let key = (*op, operation.flops as u64, operation.bytes as u64);
                    by_operation.entry(key).or_default().push(*seconds);
                }
            }
        }
        let sample = |((op, flops, bytes), mut seconds): ((&str, u64, u64), Vec<f64>)| Sample {
            op: op.to_owned(),
            flops: flops as f64,
            bytes: bytes as f64,
            seconds: median(&mut seconds),
        };
        let times: Vec<[f64; 2]> =
            timed.into_iter().map(|(_, counted)| counted.map(|mut seconds| median(&mut seconds))).collect();
        Ok(Measured {
            backend: format!("{} ({})", info.backend, info.device),
            layout: self.config.layout().to_string(),
            step_seconds: times.iter().map(|[seconds, _]| *seconds).fold(0.0, f64::max),
            busy_seconds: times.iter().map(|[_, busy]| *busy).collect(),
            samples: by_operation.into_iter().map(sample).collect(),
        })
    }
}

/// Both were asked for the same.
fn same(timed: &[Timing], asked: &[Operation]) -> Result<()> {
    let ours = timed.iter().map(|(op, _)| *op);
    match ours.eq(asked.iter().map(|operation| operation.op)) {
        true => Ok(()),
        false => Err(Error::other(format!(
            "a step asked the backend for {} operations and the simulated one for {}, or for others",
            timed.len(),
            asked.len()
        ))),
    }
}

fn median(seconds: &mut [f64]) -> f64 {
    seconds.sort_by(f64::total_cmp);
    seconds.get(seconds.len() / 2).copied().unwrap_or(0.0)
}

impl fmt::Display for Measured {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}, {}: a step of {:.2} ms", self.backend, self.layout, 1e3 * self.step_seconds)?;
        for Sample { op, flops, bytes, seconds } in &self.samples {
            let rate = match *flops > 0.0 {
                true => format!("{:>8.2} GFLOP/s", flops / seconds / 1e9),
                false => format!("{:>8.2} GB/s", bytes / seconds / 1e9),
            };
            writeln!(f, "  {op:<24}{:>12.1} us  {rate}", 1e6 * seconds)?;
        }
        Ok(())
    }
}
