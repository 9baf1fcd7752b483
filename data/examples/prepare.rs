//! Prepare the default corpus, or the sources named as arguments, and print what came out.
//!
//! `cargo run --release -p data --example prepare -- CACHE [[weight=]PATH]…`

use data::corpus::Fallback;
use data::prepare::{Corpus, Request, prepare};
use data::source::Source;
use data::tokenizer::TokenizerSpec;
use std::time::Instant;

fn main() -> data::Result<()> {
    let mut arguments = std::env::args().skip(1);
    let cache = arguments.next().unwrap_or_else(|| "target/data-cache".to_owned()).into();
    let sources = arguments.map(|argument| Source::parse(&argument)).collect::<data::Result<Vec<_>>>()?;
    let corpus = if sources.is_empty() { Corpus::Default(Fallback::None) } else { Corpus::Sources(sources) };
    let tokenizer = std::env::var("TOKENIZER").map_or(Ok(TokenizerSpec::default()), |name| name.parse())?;

    let start = Instant::now();
    let mut stages = Vec::new();
    let prepared = prepare(&Request { corpus, tokenizer, cache }, &mut |progress| {
        match stages.last_mut() {
            Some((stage, end)) if *stage == progress.stage => *end = start.elapsed(),
            _ => stages.push((progress.stage, start.elapsed())),
        };
    })?;
    println!(
        "{:.2} s, {}",
        start.elapsed().as_secs_f64(),
        if prepared.cached { "cached" } else { "prepared" }
    );
    for (stage, end) in stages {
        println!("  {} until {:.2} s", stage.name(), end.as_secs_f64());
    }
    println!(
        "{:<18} {:>9} {:>10} {:>11} {:>11} {:>8}",
        "set", "documents", "duplicates", "bytes", "tokens", "weight"
    );
    for set in &prepared.sets {
        let bytes = set.bytes.map_or_else(|| "?".to_owned(), |bytes| bytes.to_string());
        let (name, documents, duplicates) = (&set.name, set.documents, set.duplicates);
        println!(
            "{name:<18} {documents:>9} {duplicates:>10} {bytes:>11} {:>11} {:>8.4}",
            set.tokens, set.weight
        );
    }
    println!("tokenizer {}, bytes a token {:?}", prepared.tokenizer, prepared.bytes_per_token());
    Ok(())
}
