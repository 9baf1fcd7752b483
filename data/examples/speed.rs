//! Bytes of text a second of processor time, step by step, over the text files or JSON lines that are named.
//!
//! `cargo run --release -p data --example speed -- FILE…`. Times are of the process, all threads together, so that they are those of one core.

use data::clean::{Clean, CleanConfig};
use data::dedup::{Dedup, DedupConfig};
use data::extract::{Extract, Method, language::Language};
use data::input::Files;
use data::step::{Set, Step, run};
use data::tokenize::tokenize;
use data::tokenizer::Tokenizer;
use std::path::PathBuf;

/// Seconds of processor time of this process so far, where the system tells.
fn processor_time() -> f64 {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let fields = stat.rsplit(')').next().unwrap_or_default().split_whitespace();
    fields.skip(11).take(2).filter_map(|ticks| ticks.parse::<f64>().ok()).sum::<f64>() / 100.0
}

fn main() -> data::Result<()> {
    let files = Files::of_paths(std::env::args().skip(1).map(PathBuf::from))?;
    let folder = std::env::temp_dir().join(format!("data-speed-{}", std::process::id()));
    let output = |name: &str| folder.join(name);
    let tell = |name: &str, bytes: u64, start: f64| {
        let seconds = processor_time() - start;
        println!(
            "{name:<12} {:>8.1} MB in {seconds:>6.2} s: {:>6.1} MB/s a core",
            bytes as f64 / 1e6,
            bytes as f64 / 1e6 / seconds
        );
    };
    let sets = [Set { name: "text".to_owned(), files: files.clone() }];
    let mut steps: Vec<Box<dyn Step>> = vec![
        Box::new(Extract { method: Method::Justext, language: Some(Language::ENGLISH) }),
        Box::new(Dedup::new(DedupConfig { fuzzy: false, ..DedupConfig::default() }, None)?),
        Box::new(Dedup::new(DedupConfig::default(), None)?),
        Box::new(Clean { config: CleanConfig::default() }),
    ];
    for (i, step) in steps.iter_mut().enumerate() {
        let start = processor_time();
        let manifest = run(step.as_mut(), &sets, &output(&i.to_string()), None, &mut |_| {})?;
        let tally = manifest.tally();
        tell(step.name(), tally.bytes_in, start);
        println!(
            "{:<12} {} of {} documents; {}",
            "",
            tally.documents_out,
            tally.documents_in,
            manifest.notes.join("; ")
        );
    }
    let tokenizer = Tokenizer::gpt2();
    let start = processor_time();
    let made = tokenize(&files, &tokenizer, true, &output("pair"), None, &mut |_| {})?;
    tell("tokenize", made.bytes, start);
    let removed = std::fs::remove_dir_all(&folder);
    removed.map_err(|source| data::Error::Io { action: "remove", path: folder, source })
}
