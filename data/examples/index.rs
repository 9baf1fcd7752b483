//! The index maps and the blend of many samples: how long they take and how much memory.
//!
//! `cargo run --release -p data --example index -- [SAMPLES] [SETS]`, 300 million samples of 2049 tokens from one set unless given. Sets have documents of 1 to 2047
//! tokens, a million in all, so that there are many epochs.

use data::blend::{Blend, samples_for};
use data::mt19937::RandomState;
use data::order::SampleOrder;
use std::time::Instant;

const SEQUENCE: usize = 2048;
const DOCUMENTS: usize = 1_000_000;

fn main() -> data::Result<()> {
    let mut arguments = std::env::args().skip(1).map(|argument| argument.parse().unwrap_or(0));
    let samples: u64 = arguments.next().unwrap_or(300_000_000);
    let sets = arguments.next().unwrap_or(1).max(1) as usize;
    // Long enough that an epoch is a tenth of the samples.
    let mean = samples * SEQUENCE as u64 / 10 / DOCUMENTS as u64;
    let mut random = RandomState::new(1);
    let lengths: Vec<u32> =
        (0..DOCUMENTS / sets).map(|_| 1 + random.interval((2 * mean).max(2) as u32 - 1)).collect();
    let start = Instant::now();
    let weights = vec![1.0; sets];
    let blend = Blend::weighted(&weights, samples)?;
    println!("blend: {:.1} s", start.elapsed().as_secs_f64());
    let mut orders = Vec::new();
    for _ in 0..sets {
        let wanted = if sets == 1 { samples } else { samples_for(samples, 1.0 / sets as f64) };
        orders.push(SampleOrder::build(&lengths, 0..lengths.len(), SEQUENCE, Some(wanted), 1234)?);
    }
    println!(
        "blend and {} orders of {} samples: {:.1} s, {} epochs",
        orders.len(),
        blend.len(),
        start.elapsed().as_secs_f64(),
        orders[0].epochs()
    );
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let peak = status.lines().find(|line| line.starts_with("VmHWM")).unwrap_or("peak memory: not known here");
    println!("{peak}");
    Ok(())
}
