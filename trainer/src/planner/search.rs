//! Every layout of a cluster, ranked, with the reason why each other one lost.
//!
//! What cannot be is sorted out by the configuration's own checks, what does not fit by allocating the first and the last stage. The time of the rest is
//! estimated from two short rehearsals: a step is linear in its microbatches once the pipeline is full. The best of them are then run whole.

use std::collections::BTreeMap;

use model::Recompute;
use serde::Serialize;

use super::args::PlanArgs;
use super::{Prediction, predict};
use crate::config::{Layers, RunConfig};
use crate::rehearse::{Place, Ranks, allocate, rehearse};
use crate::schedule::Schedule;
use crate::{Error, Result};

/// Layouts that are run whole.
const WHOLE: usize = 10;
/// Why most lose.
const NO_ROOM: &str = "does not fit the memory of a device";
/// Microbatches a stage of the two short rehearsals.
const SHORT: [usize; 2] = [1, 2];

/// What a search found.
#[derive(Clone, Debug, Serialize)]
pub struct Found {
    /// Devices.
    pub devices: usize,
    /// Layouts that were looked at.
    pub considered: usize,
    /// Those that can be.
    pub possible: usize,
    /// Those that fit.
    pub fitting: usize,
    /// The best, quickest first.
    pub ranked: Vec<Ranked>,
    /// Why the others lost, and how many.
    pub lost: BTreeMap<String, usize>,
}

/// A layout that was run whole.
#[derive(Clone, Debug, Serialize)]
pub struct Ranked {
    /// Its prediction.
    pub prediction: Prediction,
    /// Why it is behind the best.
    pub why: String,
}

/// Searches the layouts of the devices that the arguments ask for.
///
/// # Errors
/// No layout that fits.
pub fn search(args: &PlanArgs, place: &Place) -> Result<Found> {
    let layers = args.layers()?;
    let devices = match args.asked_devices(place)? {
        Some(devices) => devices,
        None => args.resolve(place)?.layout().world_size(),
    };
    let base = RunConfig::resolve(&single(layers)?)?;
    let mut found =
        Found { devices, considered: 0, possible: 0, fitting: 0, ranked: Vec::new(), lost: BTreeMap::new() };
    let mut fitting = Vec::new();
    for config in candidates(&base, devices, place.cluster.node.devices) {
        found.considered += 1;
        let lost = match config.validate() {
            Err(error) => Some(reason(&error)),
            Ok(()) => {
                found.possible += 1;
                match ends_fit(&config, place) {
                    false => Some(NO_ROOM.to_owned()),
                    true => None,
                }
            }
        };
        match lost {
            Some(reason) => *found.lost.entry(reason).or_default() += 1,
            None => fitting.push(config),
        }
    }
    found.fitting = fitting.len();
    let mut estimated: Vec<(f64, RunConfig)> = Vec::new();
    for config in fitting {
        estimated.push((estimate(&config, place)?, config));
    }
    estimated.sort_by(|a, b| a.0.total_cmp(&b.0));
    let best = estimated.first().map_or(0.0, |(seconds, _)| *seconds);
    for (seconds, config) in estimated {
        if found.ranked.len() < WHOLE {
            // Between the ends a stage of ZB-H1 may hold more than both.
            let prediction = predict(&config, place)?;
            match prediction.fits {
                true => found.ranked.push(Ranked { prediction, why: String::new() }),
                false => {
                    found.fitting -= 1;
                    *found.lost.entry(NO_ROOM.to_owned()).or_default() += 1;
                }
            }
            continue;
        }
        let slower = seconds / best;
        let bound = [1.05, 1.1, 1.25, 1.5, 2.0].into_iter().find(|bound| slower <= *bound);
        let words = match bound {
            Some(bound) => format!("fits, and by estimate takes up to {bound}x as long as the best"),
            None => "fits, and by estimate takes more than twice as long as the best".to_owned(),
        };
        *found.lost.entry(words).or_default() += 1;
    }
    found.ranked.sort_by(|a, b| a.prediction.step_seconds.total_cmp(&b.prediction.step_seconds));
    let Some(best) = found.ranked.first().map(|ranked| ranked.prediction.clone()) else {
        return Err(Error::user(format!("no layout of {devices} devices fits"))
            .value(found.lost.iter().map(|(why, n)| format!("{n}: {why}")).collect::<Vec<_>>().join("; "))
            .remedy("use more devices, a smaller model or a smaller batch"));
    };
    found.ranked.iter_mut().skip(1).for_each(|ranked| ranked.why = why(&ranked.prediction, &best));
    Ok(found)
}

/// One device, so that the keys beside the layout are checked on their own.
fn single(layers: Layers) -> Result<Layers> {
    let mut layers = layers;
    for (key, value) in [("tensor", 1i64), ("pipeline", 1), ("data", 1), ("virtual_stages", 1)] {
        layers = layers.assign(&format!("parallel.{key}"), value, "search");
    }
    Ok(layers
        .assign("parallel.schedule", "1f1b", "search")
        .assign("parallel.recompute", "none", "search")
        .assign("parallel.sequence_parallel", false, "search"))
}

/// Every layout of the devices: tensor groups within a node.
fn candidates(base: &RunConfig, devices: usize, per_node: usize) -> Vec<RunConfig> {
    let divisors = |n: usize, most: usize| (1..=most.min(n)).filter(move |d| n.is_multiple_of(*d));
    let mut candidates = Vec::new();
    for tensor in divisors(devices, per_node).filter(|t| t.is_power_of_two()) {
        for pipeline in divisors(devices / tensor, base.model.layers) {
            let data = devices / tensor / pipeline;
            for micro_batch in [1, 2, 4, 8] {
                if !base.train.global_batch.is_multiple_of(micro_batch * data) {
                    continue;
                }
                let chunks = divisors(base.model.layers / pipeline, 8).filter(|&v| v > 1 && pipeline > 1);
                let schedules: Vec<(Schedule, usize)> = std::iter::once((Schedule::OneFOneB, 1))
                    .chain((pipeline > 1).then_some((Schedule::ZbH1, 1)))
                    .chain(chunks.map(|v| (Schedule::Interleaved, v)))
                    .collect();
                for (schedule, virtual_stages) in schedules {
                    for recompute in [Recompute::None, Recompute::Selective, Recompute::Full] {
                        if schedule == Schedule::ZbH1 && recompute != Recompute::None {
                            continue;
                        }
                        for sequence_parallel in [false, true].into_iter().take(1 + usize::from(tensor > 1)) {
                            for sharded_optimizer in [false, true].into_iter().take(1 + usize::from(data > 1))
                            {
                                let mut config = base.clone();
                                config.train.micro_batch = micro_batch;
                                let parallel = &mut config.parallel;
                                (parallel.tensor, parallel.pipeline, parallel.data) =
                                    (tensor, pipeline, data);
                                (parallel.schedule, parallel.virtual_stages) = (schedule, virtual_stages);
                                parallel.recompute = recompute;
                                parallel.sequence_parallel = sequence_parallel;
                                parallel.sharded_optimizer = sharded_optimizer;
                                parallel.layers.clear();
                                candidates.push(config);
                            }
                        }
                    }
                }
            }
        }
    }
    candidates
}

/// The kind of mistake, without its numbers.
fn reason(error: &Error) -> String {
    let text = error.to_string();
    let line = text.lines().next().unwrap_or_default();
    let line = line.split([';', ',']).next().unwrap_or_default();
    line.chars()
        .filter(|c| !c.is_ascii_digit())
        .collect::<String>()
        .split_whitespace()
        .collect::<Vec<_>>()
        .join(" ")
}

/// Whether the first and the last stage fit.
fn ends_fit(config: &RunConfig, place: &Place) -> bool {
    allocate(config, place, Ranks::Ends, place.cluster.device.memory_bytes).is_ok()
}

/// Seconds of a step, from two with few microbatches.
fn estimate(config: &RunConfig, place: &Place) -> Result<f64> {
    let all = config.microbatches();
    let p = config.parallel.pipeline;
    let [few, more] = SHORT.map(|n| n * p);
    if more >= all {
        return Ok(rehearse(config, place, Ranks::One, 1, u64::MAX, false)?.seconds);
    }
    let seconds = |microbatches: usize| -> Result<f64> {
        let mut short = config.clone();
        short.train.global_batch = microbatches * config.train.micro_batch * config.parallel.data;
        Ok(rehearse(&short, place, Ranks::One, 1, u64::MAX, false)?.seconds)
    };
    let (a, b) = (seconds(few)?, seconds(more)?);
    Ok(b + (b - a) / (more - few) as f64 * (all - more) as f64)
}

/// What a layout loses against the best, in the largest part.
fn why(p: &Prediction, best: &Prediction) -> String {
    let mean = |p: &Prediction| {
        [
            ("matrix products", p.time.products),
            ("other kernels", p.time.other_kernels + p.time.launches),
            ("tensor groups' collectives", p.time.tensor),
            ("replicas' collectives", p.time.data),
            ("messages between stages", p.time.messages),
            ("bubble", p.time.waiting),
            ("optimizer", p.time.optimizer),
        ]
    };
    let parts = mean(p).into_iter().zip(mean(best)).map(|((name, ours), (_, theirs))| (name, ours - theirs));
    let most = parts.max_by(|a, b| a.1.total_cmp(&b.1));
    most.map_or(String::new(), |(name, seconds)| {
        format!(
            "{:+.3} s against the best, of it {seconds:+.3} s in {name}",
            p.step_seconds - best.step_seconds
        )
    })
}
