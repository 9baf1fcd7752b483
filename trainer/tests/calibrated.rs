//! A step on the CPU beside its simulation on a cluster that is calibrated on this machine. A test program of its own: other tests beside it would slow what it
//! measures.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use backend_sim::{Cluster, Stack};
use trainer::config::{Layers, RunConfig};
use trainer::planner::calibrate;
use trainer::rehearse::{Place, Ranks, rehearse};

/// Seconds that the machine's processors have worked so far, and those that this process has had of them; where Linux tells.
fn worked() -> Option<(f64, f64)> {
    const TICKS: f64 = 100.0;
    let numbers = |text: &str| text.split_whitespace().filter_map(|x| x.parse().ok()).collect::<Vec<f64>>();
    // user nice system idle iowait irq softirq steal
    let all = numbers(std::fs::read_to_string("/proc/stat").ok()?.lines().next()?);
    let own = std::fs::read_to_string("/proc/self/stat").ok()?;
    // Behind the name in brackets: state, ten numbers, then user and system.
    let own = numbers(own.rsplit_once(')')?.1.trim_start().split_once(' ')?.1);
    let busy = all.iter().take(8).sum::<f64>() - all.get(3)? - all.get(4)?;
    Some((busy / TICKS, (own.get(10)? + own.get(11)?) / TICKS))
}

/// Measures, calibrates, simulates and compares; what does not agree.
fn disagreement(config: &RunConfig) -> Option<String> {
    let job = trainer::bench::ops::Ops { config, seconds: 4.0 };
    let before = worked();
    let measured = trainer::launch::launch(&trainer::device::Device::Cpu, 2, job).unwrap();
    let others = before.zip(worked()).map(|(before, after)| (after.0 - before.0) - (after.1 - before.1));
    let cluster = calibrate::calibrated(Cluster::load("laptop").unwrap(), &measured);
    let place = Place { cluster, stack: Stack::load("mtnlg").unwrap() };
    let simulated = rehearse(config, &place, Ranks::All, 1, u64::MAX, false).unwrap();
    let agree = |what: String, simulated: f64, measured: f64| {
        let words = format!("{what}: {simulated:.4} s simulated, {measured:.4} s measured");
        println!("{words}");
        ((simulated / measured - 1.0).abs() >= 0.15).then_some(words)
    };
    let mut wrong = Vec::new();
    for ((at, report), busy) in simulated.ranks.iter().zip(&measured.busy_seconds) {
        let spent = &report.spent;
        wrong.extend(agree(format!("{at:?}"), spent.products + spent.streams + spent.optimizer, *busy));
    }
    match others {
        // A twentieth of what two processors had in four seconds.
        Some(others) if others < 0.4 => {
            wrong.extend(agree("the step".to_owned(), simulated.seconds, measured.step_seconds));
        }
        _ => println!("the step's time was not compared: other programs worked {others:?} s meanwhile"),
    }
    (!wrong.is_empty()).then(|| wrong.join("; "))
}

/// Each rank's work, by its thread's own time, and the step are as long within 15%; the step's time where nothing else runs. A machine that is shared has moments
/// in which all takes longer, and operations and steps are measured one after the other: so of three measurements one must agree.
#[test]
fn the_simulated_step_is_as_long_as_the_executed_one() {
    let sets =
        "parallel.tensor=1 parallel.pipeline=2 parallel.data=1 train.micro_batch=1 train.global_batch=8";
    let layers = Layers::default().preset("laptop");
    let layers = sets.split(' ').fold(layers, |layers, set| layers.set(set).unwrap());
    let config =
        RunConfig::resolve(&layers.set("train.batch_ramp={start=0,increment=0,samples=0}").unwrap()).unwrap();
    let mut wrong = Vec::new();
    for _ in 0..3 {
        match disagreement(&config) {
            None => return,
            Some(words) => wrong.push(words),
        }
    }
    panic!("{}", wrong.join("\n"));
}
