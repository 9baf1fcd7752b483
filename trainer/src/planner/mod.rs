//! `mtnlg plan`: what a run would be on a cluster that is not there: does it fit, how long is a step, which layout is best.
//!
//! * [`args`]: the command line, and the configuration that it asks for; [`mod@predict`]: a configuration's prediction, from a step of the trainer itself on
//!   [`rehearse`](crate::rehearse); [`remedy`]: what would make a layout fit;
//! * [`search`]: every layout of a cluster, ranked, with the reason why each other one lost;
//! * [`published`]: predictions beside published runs, and the one number of each stack that was fitted on one of them;
//! * [`text`], [`page`]: how a terminal and a browser show it; [`calibrate`]: a cluster from what was measured on a machine.

pub mod args;
pub mod calibrate;
pub mod page;
pub mod predict;
pub mod published;
pub mod remedy;
pub mod search;
pub mod text;

pub use args::PlanArgs;
pub use predict::{Prediction, predict};

use crate::config::RunConfig;
use crate::rehearse::{Place, Ranks};
use crate::timeline::{self, TIMELINE_FILE};
use crate::{Error, Result, metrics, run};

/// The prediction in the directory of a rehearsal.
pub const REHEARSAL_FILE: &str = "rehearsal.json";

/// `mtnlg train --backend sim`: a step of the full batch on `run.cluster`, of which every later one takes as long. Leaves `config.toml`, `timeline.json`
/// in simulated time, `rehearsal.json` and `report.html`; no weights are made, and no loss is known.
///
/// # Errors
/// A run that does not fit the simulated devices, or whose ranks do not fit together; a run directory that cannot be written.
pub fn rehearse_run(config: &RunConfig) -> Result<Prediction> {
    let place = Place::load(&config.run.cluster, &config.run.stack)?;
    let (prediction, recorders) = predict::predict_with(config, &place, Ranks::One, None, true)?;
    if let Some(why) = &prediction.why_not {
        return Err(Error::user(why.clone()).remedy(prediction.what_would.join("; ")));
    }
    let dir = run::fresh(config, false)?;
    std::fs::create_dir_all(&dir).map_err(|error| Error::io("create the run directory", &dir, &error))?;
    let json = serde_json::to_string_pretty(&prediction).map_err(|error| Error::other(error.to_string()))?;
    metrics::replace(&dir.join(run::CONFIG_FILE), config.to_toml().as_bytes())?;
    metrics::replace(&dir.join(REHEARSAL_FILE), json.as_bytes())?;
    metrics::replace(&dir.join(run::REPORT_FILE), page::html(config, &prediction, &recorders).as_bytes())?;
    timeline::write(&dir.join(TIMELINE_FILE), &recorders)?;
    eprintln!("rehearsal: {}", dir.display());
    Ok(prediction)
}
