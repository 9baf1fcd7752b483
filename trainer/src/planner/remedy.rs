//! What would make a layout fit: changes of it, one at a time and then two, whose ranks fit a device.

use model::Recompute;

use crate::config::RunConfig;
use crate::rehearse::{Place, Ranks, allocate};

/// The most that are told.
const MOST: usize = 4;

/// A change, in the words of the command line.
type Change = (String, Box<dyn Fn(&mut RunConfig)>);

/// Changes that make it fit, each with the bytes of the worst rank; where none alone does, pairs.
pub fn what_would(config: &RunConfig, place: &Place) -> Vec<String> {
    let changes = changes(config, place);
    let alone: Vec<Vec<&Change>> = changes.iter().map(|change| vec![change]).collect();
    let found = fitting(config, place, alone);
    if !found.is_empty() {
        return found;
    }
    let pairs =
        changes.iter().enumerate().flat_map(|(i, a)| changes[i + 1..].iter().map(move |b| vec![a, b]));
    let found = fitting(config, place, pairs.collect());
    match found.is_empty() {
        true => vec!["no one or two changes of layout: use more devices or a smaller model".to_owned()],
        false => found,
    }
}

fn fitting(config: &RunConfig, place: &Place, sets: Vec<Vec<&Change>>) -> Vec<String> {
    let mut found = Vec::new();
    for set in sets {
        let mut changed = config.clone();
        set.iter().for_each(|(_, change)| change(&mut changed));
        if changed.validate().is_err() {
            continue;
        }
        if let Ok(peak) = allocate(&changed, place, Ranks::One, place.cluster.device.memory_bytes) {
            let names: Vec<&str> = set.iter().map(|(name, _)| name.as_str()).collect();
            found.push(format!("{} ({:.1} GB)", names.join(" and "), peak as f64 / 1e9));
        }
        if found.len() == MOST {
            break;
        }
    }
    found
}

/// What can be changed, from what costs least.
fn changes(config: &RunConfig, place: &Place) -> Vec<Change> {
    let mut changes: Vec<Change> = Vec::new();
    let parallel = &config.parallel;
    let mut add = |name: String, change: Box<dyn Fn(&mut RunConfig)>| changes.push((name, change));
    if !parallel.sequence_parallel && parallel.tensor > 1 {
        add("--sequence-parallel".into(), Box::new(|c| c.parallel.sequence_parallel = true));
    }
    if !parallel.sharded_optimizer && parallel.data > 1 {
        add("--sharded-optimizer".into(), Box::new(|c| c.parallel.sharded_optimizer = true));
    }
    for (recompute, name) in [(Recompute::Selective, "selective"), (Recompute::Full, "full")] {
        if parallel.recompute != recompute && parallel.recompute != Recompute::Full {
            add(format!("--recompute {name}"), Box::new(move |c| c.parallel.recompute = recompute));
        }
    }
    if config.train.micro_batch > 1 {
        add("--micro-batch 1".into(), Box::new(|c| c.train.micro_batch = 1));
    }
    let devices = config.layout().world_size();
    let mut cut = |tensor: usize, pipeline: usize| {
        let replica = tensor * pipeline;
        if devices.is_multiple_of(replica) {
            let mut names = Vec::new();
            if tensor != parallel.tensor {
                names.push(format!("--tp {tensor}"));
            }
            if pipeline != parallel.pipeline {
                names.push(format!("--pp {pipeline}"));
            }
            add(
                names.join(" "),
                Box::new(move |c| {
                    (c.parallel.tensor, c.parallel.pipeline) = (tensor, pipeline);
                    c.parallel.data = devices / replica;
                    c.parallel.layers.clear();
                }),
            );
        }
    };
    let mut tensor = parallel.tensor * 2;
    while tensor <= place.cluster.node.devices {
        cut(tensor, parallel.pipeline);
        tensor *= 2;
    }
    let layers = config.model.layers / parallel.virtual_stages.max(1);
    let deeper = (parallel.pipeline + 1..=layers).filter(|pp| config.model.layers.is_multiple_of(*pp));
    deeper.for_each(|pipeline| cut(parallel.tensor, pipeline));
    changes
}
