//! The command line of `mtnlg plan`.

use std::path::{Path, PathBuf};

use backend_sim::Stack;
use clap::Args;

use super::{calibrate, page, predict, published, search, text};
use crate::config::{Layers, RunConfig};
use crate::reduce::parse_count;
use crate::rehearse::{Place, Ranks};
use crate::{Error, Result};

/// The largest preset: what a planner is for.
const DEFAULT_PRESET: &str = "mt-nlg-530b";

/// `mtnlg plan`.
#[derive(Clone, Debug, Default, Args)]
pub struct PlanArgs {
    /// Configuration file, over the preset
    #[arg(value_name = "CONFIG")]
    pub config: Option<PathBuf>,
    /// Model and training to start from [default: mt-nlg-530b, or the configuration's]
    #[arg(long, value_name = "NAME")]
    pub preset: Option<String>,
    /// The machine: selene, dgx-h100, laptop, or a TOML file
    #[arg(long, value_name = "NAME", default_value = "selene")]
    pub cluster: String,
    /// The software: mtnlg (this one), mt-nlg, narayanan-2021, korthikanti-2022, or a TOML file
    #[arg(long, value_name = "NAME", default_value = Stack::OWN)]
    pub stack: String,
    /// Nodes; the replicas follow [default: as many as the configuration's replicas need]
    #[arg(long, value_name = "N")]
    pub nodes: Option<usize>,
    /// Devices, where they are not whole nodes; the replicas follow
    #[arg(long, value_name = "N", conflicts_with = "nodes")]
    pub devices: Option<usize>,
    /// Tensor-parallel ranks
    #[arg(long, value_name = "N")]
    pub tp: Option<usize>,
    /// Pipeline stages
    #[arg(long, value_name = "N")]
    pub pp: Option<usize>,
    /// Samples a step
    #[arg(long, value_name = "N")]
    pub global_batch: Option<usize>,
    /// Samples that a replica runs at once
    #[arg(long, value_name = "N")]
    pub micro_batch: Option<usize>,
    /// Order of a pipeline's work: gpipe, 1f1b, zb-h1, or interleaved:V with V model chunks a stage
    #[arg(long, value_name = "NAME")]
    pub schedule: Option<String>,
    /// What the backward computes again: none, selective or full
    #[arg(long, value_name = "WHAT")]
    pub recompute: Option<String>,
    /// Share out the tokens within a tensor group
    #[arg(long)]
    pub sequence_parallel: bool,
    /// Share out the optimizer's state over the replicas (ZeRO-1)
    #[arg(long)]
    pub sharded_optimizer: bool,
    /// Type of weights and activations: f32, bf16 or f16
    #[arg(long, value_name = "TYPE")]
    pub precision: Option<String>,
    /// Any configuration key; may be given many times
    #[arg(long, value_name = "SECTION.KEY=VALUE")]
    pub set: Vec<String>,
    /// Tokens to train on, such as 270B, for days and dollars [default: the configuration's]
    #[arg(long, value_name = "N", value_parser = parse_count)]
    pub tokens: Option<u64>,
    /// Write JSON to a file, or to the terminal
    #[arg(long, value_name = "FILE", num_args = 0..=1, default_missing_value = "-")]
    pub json: Option<PathBuf>,
    /// Write a page with the schedule drawn
    #[arg(long, value_name = "FILE")]
    pub html: Option<PathBuf>,
    /// Rank the layouts that fit
    #[arg(long)]
    pub search: bool,
    /// Run all ranks of a replica, instead of one of each stage
    #[arg(long)]
    pub all_ranks: bool,
    /// Compare with published runs, and write the page of docs/rehearsal.md
    #[arg(long, value_name = "FILE", num_args = 0..=1, default_missing_value = "-")]
    pub published: Option<PathBuf>,
    /// Print the efficiency that fits the stack's named row
    #[arg(long)]
    pub fit: bool,
    /// Print the cluster with what `mtnlg bench ops --json` measured
    #[arg(long, value_name = "FILE")]
    pub calibrate: Option<PathBuf>,
}

impl PlanArgs {
    /// Does what was asked for.
    ///
    /// # Errors
    /// The user's mistakes; a layout that deadlocks or does not fit together.
    pub fn run(&self) -> Result<()> {
        if let Some(file) = &self.calibrate {
            return say(&calibrate::cluster(file, &self.cluster)?);
        }
        if self.fit {
            return say(&published::fit(&self.stack)?);
        }
        if let Some(file) = &self.published {
            let page = published::page(&published::all()?)?;
            return write(file, &page);
        }
        let place = self.place()?;
        if self.search {
            let found = search::search(self, &place)?;
            return match &self.json {
                Some(file) => write(file, &json(&found)?),
                None => say(&text::search(&found)),
            };
        }
        let config = self.resolve(&place)?;
        let ranks = if self.all_ranks { Ranks::Replica } else { Ranks::One };
        let (prediction, recorders) =
            predict::predict_with(&config, &place, ranks, self.tokens, self.html.is_some())?;
        if let Some(file) = &self.html {
            write(file, &page::html(&config, &prediction, &recorders))?;
        }
        match &self.json {
            Some(file) => write(file, &json(&prediction)?),
            None => say(&text::prediction(&prediction)),
        }
    }

    /// The machine and the software.
    ///
    /// # Errors
    /// One that is not there.
    pub fn place(&self) -> Result<Place> {
        Place::load(&self.cluster, &self.stack)
    }

    /// What the flags say, over the configuration.
    ///
    /// # Errors
    /// A schedule that is none.
    pub fn layers(&self) -> Result<Layers> {
        let mut layers = Layers::default();
        match (&self.preset, &self.config) {
            (Some(preset), _) => layers = layers.preset(preset),
            (None, None) => layers = layers.preset(DEFAULT_PRESET),
            (None, Some(_)) => {}
        }
        if let Some(file) = &self.config {
            layers = layers.file(file);
        }
        for assignment in &self.set {
            layers = layers.set(assignment)?;
        }
        for (key, value, flag) in [
            ("parallel.tensor", self.tp, "--tp"),
            ("parallel.pipeline", self.pp, "--pp"),
            ("train.global_batch", self.global_batch, "--global-batch"),
            ("train.micro_batch", self.micro_batch, "--micro-batch"),
        ] {
            if let Some(value) = value {
                let number = i64::try_from(value).unwrap_or(i64::MAX);
                layers = layers.assign(key, number, &format!("{flag} {value}"));
            }
        }
        if let Some(schedule) = &self.schedule {
            let origin = format!("--schedule {schedule}");
            let (name, chunks) = match schedule.split_once(':') {
                None => (schedule.as_str(), None),
                Some((name, chunks)) => match chunks.parse::<i64>() {
                    Ok(chunks) if chunks > 0 => (name, Some(chunks)),
                    _ => {
                        return Err(Error::user("not a number of model chunks a stage")
                            .at(origin)
                            .value(chunks)
                            .remedy("give interleaved:2 or more"));
                    }
                },
            };
            layers = layers.assign("parallel.schedule", name, &origin);
            match chunks {
                Some(chunks) => layers = layers.assign("parallel.virtual_stages", chunks, &origin),
                None if name != "interleaved" => {
                    layers = layers.assign("parallel.virtual_stages", 1i64, &origin);
                }
                None => {}
            }
        }
        for (key, value, flag) in [
            ("parallel.recompute", &self.recompute, "--recompute"),
            ("train.precision", &self.precision, "--precision"),
        ] {
            if let Some(value) = value {
                layers = layers.assign(key, value.as_str(), &format!("{flag} {value}"));
            }
        }
        for (key, on, flag) in [
            ("parallel.sequence_parallel", self.sequence_parallel, "--sequence-parallel"),
            ("parallel.sharded_optimizer", self.sharded_optimizer, "--sharded-optimizer"),
        ] {
            if on {
                layers = layers.assign(key, true, flag);
            }
        }
        // A plan is of a full step: the smaller batches before, which fewer replicas can run, are another one's.
        let mut ramp = toml::Table::new();
        for key in ["start", "increment", "samples"] {
            ramp.insert(key.into(), 0i64.into());
        }
        Ok(layers.assign("train.batch_ramp", ramp, "plan"))
    }

    /// The devices that were asked for.
    ///
    /// # Errors
    /// None at all, or more than there can be.
    pub fn asked_devices(&self, place: &Place) -> Result<Option<usize>> {
        let per_node = place.cluster.node.devices;
        let (given, flag, devices) = match (self.nodes, self.devices) {
            (Some(nodes), _) => (nodes, "--nodes", nodes.checked_mul(per_node)),
            (None, Some(devices)) => (devices, "--devices", Some(devices)),
            (None, None) => return Ok(None),
        };
        match devices.filter(|devices| (1..=1 << 24).contains(devices)) {
            Some(devices) => Ok(Some(devices)),
            None => Err(Error::user("out of range")
                .at(flag)
                .value(given.to_string())
                .remedy("give at least 1, and no more than 16 million devices in all")),
        }
    }

    /// The configuration, with as many replicas as fill the machine.
    ///
    /// # Errors
    /// As [`RunConfig::resolve`]; ranks of a replica that do not divide the devices.
    pub fn resolve(&self, place: &Place) -> Result<RunConfig> {
        let layers = self.layers()?;
        let Some(devices) = self.asked_devices(place)? else { return RunConfig::resolve(&layers) };
        // The replicas of a configuration whose other keys are right; its own number of them may not fit the batch.
        let single = layers.clone().assign("parallel.data", 1i64, "plan");
        let single = RunConfig::resolve(&single)?;
        let replica = single.parallel.tensor * single.parallel.pipeline;
        if !devices.is_multiple_of(replica) {
            let per_node = place.cluster.node.devices;
            let down = devices / replica * replica;
            return Err(Error::user(format!(
                "parallel.tensor x parallel.pipeline = {} x {} = {replica} ranks a replica do not divide {devices} devices",
                single.parallel.tensor, single.parallel.pipeline
            ))
            .at("--nodes")
            .remedy(format!(
                "give a multiple of {replica} devices{}, such as {}; or another --tp or --pp",
                if replica.is_multiple_of(per_node) {
                    format!(" ({} nodes of {per_node})", replica / per_node)
                } else {
                    String::new()
                },
                if down > 0 { format!("{down} or {}", down + replica) } else { replica.to_string() },
            )));
        }
        let replicas = i64::try_from(devices / replica).unwrap_or(i64::MAX);
        RunConfig::resolve(&layers.assign("parallel.data", replicas, "--nodes"))
    }
}

fn json(value: &impl serde::Serialize) -> Result<String> {
    let text = serde_json::to_string_pretty(value);
    text.map(|text| text + "\n").map_err(|error| Error::other(format!("no JSON: {error}")))
}

/// To stdout, whose reader may have gone away.
fn say(text: &str) -> Result<()> {
    use std::io::Write;
    let _ = writeln!(std::io::stdout(), "{}", text.trim_end());
    Ok(())
}

fn write(file: &Path, text: &str) -> Result<()> {
    match file == Path::new("-") {
        true => say(text),
        false => crate::metrics::replace(file, text.as_bytes()),
    }
}
