//! Refuses a key that is not there, and names the one that was probably meant.

use super::defaults;
use crate::{Error, Result};

/// Names that other trainers have for our keys.
const SYNONYMS: [(&str, &str); 43] = [
    ("learning_rate", "train.lr"),
    ("max_lr", "train.lr"),
    ("warmup", "train.warmup_steps"),
    ("lr_warmup_iters", "train.warmup_steps"),
    ("lr_decay_iters", "train.decay_steps"),
    ("min_lr", "train.min_lr_ratio"),
    ("batch_size", "train.global_batch"),
    ("global_batch_size", "train.global_batch"),
    ("micro_batch_size", "train.micro_batch"),
    ("train_iters", "train.steps"),
    ("max_steps", "train.steps"),
    ("iterations", "train.steps"),
    ("grad_clip", "train.clip"),
    ("clip_grad", "train.clip"),
    ("hidden_size", "model.hidden"),
    ("num_layers", "model.layers"),
    ("num_attention_heads", "model.heads"),
    ("vocab_size", "model.vocab"),
    ("tp", "parallel.tensor"),
    ("pp", "parallel.pipeline"),
    ("dp", "parallel.data"),
    ("output_dir", "run.dir"),
    ("train_samples", "train.tokens"),
    ("lr_warmup_tokens", "train.warmup_tokens"),
    ("lr_decay_tokens", "train.decay_tokens"),
    ("rampup_batch_size", "train.batch_ramp"),
    ("dtype", "train.precision"),
    ("bf16", "train.precision"),
    ("fp16", "train.precision"),
    ("initial_loss_scale", "loss_scale.initial"),
    ("min_loss_scale", "loss_scale.min"),
    ("loss_scale_window", "loss_scale.window"),
    ("virtual_pipeline", "parallel.virtual_stages"),
    ("model_chunks", "parallel.virtual_stages"),
    ("recompute_granularity", "parallel.recompute"),
    ("use_distributed_optimizer", "parallel.sharded_optimizer"),
    ("zero1", "parallel.sharded_optimizer"),
    ("bucket_size", "parallel.bucket"),
    ("scatter_gather_tensors_in_pipeline", "parallel.scatter_gather"),
    ("deterministic", "numerics.deterministic"),
    ("eval_tasks", "evaluation.tasks"),
    ("num_fewshot", "evaluation.shots"),
    ("eval_every", "evaluation.every"),
];

/// Every key there is, dotted: those of the default preset's configuration, which is complete.
pub fn keys() -> Vec<String> {
    let config = defaults::preset(defaults::DEFAULT_PRESET).expect("the default preset is there");
    let table = toml::Table::try_from(config).expect("a configuration is a table");
    let mut keys = Vec::new();
    for (section, value) in &table {
        match value {
            toml::Value::Table(entries) => keys.extend(entries.keys().map(|key| format!("{section}.{key}"))),
            _ => keys.push(section.clone()),
        }
    }
    keys
}

/// Refuses a dotted key that is not among [`keys`].
pub fn key(key: &str, origin: &str) -> Result<()> {
    let keys = keys();
    if keys.iter().any(|known| known == key) {
        return Ok(());
    }
    let (section, name) = match key.split_once('.') {
        Some((section, name)) => (Some(section), name),
        None => (None, key),
    };
    let what = match section {
        Some(section) => format!("unknown key `{name}` in [{section}]"),
        None => format!("unknown key `{key}`"),
    };
    let remedy = match nearest(section, name, &keys) {
        Some(near) => format!("did you mean `{near}`?"),
        None => listing(section, &keys),
    };
    Err(Error::user(what).at(origin).remedy(remedy))
}

/// Refuses a section that is not there.
pub fn section(section: &str, origin: &str) -> Result<()> {
    let keys = keys();
    match keys.iter().any(|key| key.split_once('.').is_some_and(|(known, _)| known == section)) {
        true => Ok(()),
        false => {
            Err(Error::user(format!("unknown section [{section}]")).at(origin).remedy(listing(None, &keys)))
        }
    }
}

/// The known key that `section.name` was probably meant to be, dotted.
fn nearest(section: Option<&str>, name: &str, keys: &[String]) -> Option<String> {
    let name = name.replace('-', "_");
    let names =
        keys.iter().map(|key| (key.split_once('.').map_or(key.as_str(), |(_, name)| name), key.as_str()));
    let scored = names.chain(SYNONYMS).map(|(known_name, known)| {
        let alike = strsim::normalized_damerau_levenshtein(&name, known_name);
        // Of two equal names the one in the section that was meant.
        let known_section = known.split_once('.').map_or("", |(section, _)| section);
        let in_section = section.map_or(1.0, |s| strsim::normalized_damerau_levenshtein(s, known_section));
        (alike, alike + 0.1 * in_section, known)
    });
    let likely = scored.filter(|(alike, ..)| *alike > 0.55);
    likely.max_by(|a, b| a.1.total_cmp(&b.1)).map(|(_, _, known)| known.into())
}

/// The keys of a section that is there, else the sections.
fn listing(section: Option<&str>, keys: &[String]) -> String {
    let split = || keys.iter().filter_map(|key| key.split_once('.'));
    let names: Vec<&str> = split().filter(|(s, _)| Some(*s) == section).map(|(_, name)| name).collect();
    if let (Some(section), false) = (section, names.is_empty()) {
        return format!("[{section}] has {}", names.join(", "));
    }
    let mut sections: Vec<String> = split().map(|(section, _)| format!("[{section}]")).collect();
    sections.dedup();
    format!("there are preset and {}", sections.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn remedy(text: &str) -> String {
        let message = key(text, "here").unwrap_err().to_string();
        message.split_once("remedy: ").unwrap().1.into()
    }

    #[test]
    fn the_nearest_key_is_named() {
        assert_eq!(remedy("train.warmup_step"), "did you mean `train.warmup_steps`?");
        assert_eq!(remedy("train.learning_rate"), "did you mean `train.lr`?");
        assert_eq!(remedy("train.lerning_rat"), "did you mean `train.lr`?");
        assert_eq!(remedy("modle.hiden"), "did you mean `model.hidden`?");
        assert_eq!(remedy("model.lr"), "did you mean `train.lr`?");
        assert_eq!(remedy("model.seqlen"), "did you mean `model.seq_len`?");
        assert_eq!(remedy("train.seqlen"), "did you mean `train.seq_len`?");
        assert_eq!(remedy("lr"), "did you mean `train.lr`?");
    }

    #[test]
    fn what_is_like_nothing_gets_the_list() {
        assert_eq!(remedy("run.zzz"), "[run] has backend, cluster, dir, stack");
        assert!(
            remedy("zzz").starts_with("there are preset and [data], [evaluation], [loss_scale]"),
            "{}",
            remedy("zzz")
        );
        assert!(section("zzz", "here").is_err());
        section("train", "here").unwrap();
    }

    #[test]
    fn synonyms_point_to_keys_that_are_there() {
        let keys = keys();
        for (_, known) in SYNONYMS {
            assert!(keys.iter().any(|key| key == known), "{known}");
        }
        for known in &keys {
            key(known, "here").unwrap();
        }
    }
}
