//! The ways to train the same model.

use std::fmt;

use model::Recompute;

use crate::config::RunConfig;
use crate::schedule::Schedule;
use crate::{Error, Result};

/// What a rank is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Launcher {
    /// A thread of this process.
    Threads,
    /// A process, over TCP.
    Processes,
    /// A process that mpirun starts, over MPI where the program was built with it.
    Mpi,
}

impl Launcher {
    /// The name in a list of layouts.
    pub fn name(self) -> &'static str {
        match self {
            Self::Threads => "threads",
            Self::Processes => "processes",
            Self::Mpi => "mpi",
        }
    }
}

/// One way to cut and run a model's training.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Variant {
    /// Tensor x pipeline x data.
    pub layout: [usize; 3],
    /// The pipeline's schedule.
    pub schedule: Schedule,
    /// Model chunks a stage.
    pub virtual_stages: usize,
    /// What is computed again.
    pub recompute: Recompute,
    /// Whether tensor ranks share out the tokens.
    pub sequence_parallel: bool,
    /// Whether replicas share out the optimizer's state.
    pub sharded_optimizer: bool,
    /// What a rank is.
    pub launcher: Launcher,
    /// How the first half of the steps was trained, before an interruption.
    pub interrupted: Option<Box<Variant>>,
}

impl Variant {
    /// A layout, with 1F1B and nothing else.
    pub fn plain(tp: usize, pp: usize, dp: usize) -> Self {
        Self {
            layout: [tp, pp, dp],
            schedule: Schedule::OneFOneB,
            virtual_stages: 1,
            recompute: Recompute::None,
            sequence_parallel: false,
            sharded_optimizer: false,
            launcher: Launcher::Threads,
            interrupted: None,
        }
    }

    /// The configuration, trained this way.
    ///
    /// # Errors
    /// What the model or the batch does not allow.
    pub fn apply(&self, config: &RunConfig) -> Result<RunConfig> {
        let mut config = config.clone();
        let parallel = &mut config.parallel;
        [parallel.tensor, parallel.pipeline, parallel.data] = self.layout;
        parallel.schedule = self.schedule;
        parallel.virtual_stages = self.virtual_stages;
        parallel.layers = Vec::new();
        parallel.recompute = self.recompute;
        parallel.sequence_parallel = self.sequence_parallel;
        parallel.sharded_optimizer = self.sharded_optimizer;
        config.validate()?;
        Ok(config)
    }

    /// The name of what is computed again.
    pub fn recompute_name(&self) -> &'static str {
        match self.recompute {
            Recompute::None => "none",
            Recompute::Selective => "selective",
            Recompute::Full => "full",
        }
    }
}

impl fmt::Display for Variant {
    /// As [`parse`] reads it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [tp, pp, dp] = self.layout;
        write!(f, "{tp}x{pp}x{dp}")?;
        if self.schedule != Schedule::OneFOneB {
            write!(f, "+{}", self.schedule)?;
        }
        if self.virtual_stages > 1 {
            write!(f, "+v{}", self.virtual_stages)?;
        }
        if self.recompute != Recompute::None {
            write!(f, "+{}", self.recompute_name())?;
        }
        if self.sequence_parallel {
            f.write_str("+sp")?;
        }
        if self.sharded_optimizer {
            f.write_str("+zero1")?;
        }
        if self.launcher != Launcher::Threads {
            write!(f, "+{}", self.launcher.name())?;
        }
        match &self.interrupted {
            Some(before) => write!(f, "<{before}"),
            None => Ok(()),
        }
    }
}

/// Every way that is worth a look: each (tp, pp, dp) in {1, 2, 4}^3 of at most 16 ranks, every schedule, recomputation, sequence parallelism, sharded state,
/// an interruption, and several of them together; those that the configuration allows, the serial one first.
pub fn all(config: &RunConfig) -> Vec<Variant> {
    let sizes = [1, 2, 4];
    let cubes = sizes.into_iter().flat_map(|tp| {
        sizes.into_iter().flat_map(move |pp| sizes.into_iter().map(move |dp| Variant::plain(tp, pp, dp)))
    });
    let mut variants: Vec<Variant> = cubes.filter(|v| v.layout.iter().product::<usize>() <= 16).collect();
    let others = "1x4x1+gpipe 2x2x2+gpipe 1x4x1+zb-h1 2x2x2+zb-h1 4x4x1+zb-h1 1x2x4+zb-h1 1x2x1+interleaved+v2 2x2x2+interleaved+v2 1x4x1+interleaved \
                  1x1x1+selective 2x2x2+selective 1x1x1+full 2x2x2+full 4x1x2+full 2x1x1+sp 4x1x1+sp 2x2x2+sp 4x2x1+sp 1x1x4+zero1 2x2x2+zero1 1x2x4+zero1 \
                  2x2x2+interleaved+v2+full+sp+zero1 4x2x2+gpipe+selective+sp+zero1 2x4x2+zb-h1+sp+zero1 \
                  2x2x2<1x1x1 1x1x1<2x2x2 1x4x2+zero1<4x1x2+sp 2x1x2+sp<1x2x2+interleaved+v2+zero1";
    variants.extend(others.split_whitespace().filter_map(|text| parse(text).ok()));
    let fits = |variant: &Variant| {
        let before = variant.interrupted.as_deref().is_none_or(|before| before.apply(config).is_ok());
        before && variant.apply(config).is_ok()
    };
    variants.retain(fits);
    variants
}

/// Reads `2x2x2+interleaved+v2+full+sp+zero1`: tensor x pipeline x data, then in any order a schedule, `vN` for N model chunks a stage, `selective` or
/// `full` recomputation, `sp`, `zero1`, `processes` or `mpi`; behind `<` the way in which the first half of the steps is trained.
///
/// # Errors
/// What is none of that.
pub fn parse(text: &str) -> Result<Variant> {
    let (now, before) = match text.split_once('<') {
        Some((now, before)) => (now, Some(parse(before)?)),
        None => (text, None),
    };
    let mut words = now.split('+');
    let sizes = words.next().unwrap_or("").split('x').map(str::parse);
    let sizes: Vec<usize> = sizes.collect::<std::result::Result<_, _>>().unwrap_or_default();
    let &[tp, pp, dp] = &sizes[..] else {
        return Err(refuse(text, now, "begin with tensor x pipeline x data, such as 2x2x2"));
    };
    let mut variant = Variant { interrupted: before.map(Box::new), ..Variant::plain(tp, pp, dp) };
    for word in words {
        match word {
            "1f1b" => variant.schedule = Schedule::OneFOneB,
            "gpipe" => variant.schedule = Schedule::GPipe,
            "interleaved" => variant.schedule = Schedule::Interleaved,
            "zb-h1" => variant.schedule = Schedule::ZbH1,
            "selective" => variant.recompute = Recompute::Selective,
            "full" => variant.recompute = Recompute::Full,
            "sp" => variant.sequence_parallel = true,
            "zero1" => variant.sharded_optimizer = true,
            "processes" => variant.launcher = Launcher::Processes,
            "mpi" => variant.launcher = Launcher::Mpi,
            _ => match word.strip_prefix('v').and_then(|n| n.parse().ok()) {
                Some(chunks) => variant.virtual_stages = chunks,
                None => {
                    let remedy =
                        "use gpipe, 1f1b, interleaved, zb-h1, vN, selective, full, sp, zero1, processes, mpi";
                    return Err(refuse(text, word, remedy));
                }
            },
        }
    }
    Ok(variant)
}

fn refuse(text: &str, word: &str, remedy: &str) -> Error {
    Error::user(format!("--layouts: `{word}` is not part of a layout")).value(text.to_owned()).remedy(remedy)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_printed_is_read() {
        for text in
            ["2x4x1", "2x2x2+interleaved+v2+full+sp+zero1", "1x1x1<4x1x2+sp", "2x1x1+mpi<1x2x1+processes"]
        {
            assert_eq!(parse(text).unwrap().to_string(), text);
        }
        for wrong in ["", "2x2", "2x2x2x2", "2x2x2+fast", "axbxc", "1x1x1<2"] {
            assert_eq!(parse(wrong).unwrap_err().exit_code(), 2, "{wrong}");
        }
    }
}
