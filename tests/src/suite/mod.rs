//! The suite: every case of every operation and of the collectives, by group, for any backend.
//!
//! A group runs in a child process that writes a line before and after each case; see [`run`]. What that comes to is a [`Report`](report::Report).

pub mod child;
pub mod cli;
pub mod diff;
pub mod html;
pub mod perf;
pub mod report;
pub mod run;
pub mod support;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;

use backend::{Backend, Error};

use crate::collectives::{self, Ranks};
use crate::{Case, Failure, Measure, Subject, ops};

/// Which cases.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Tier {
    /// About one of [`SMOKE`] cases, and the first of each group.
    Smoke,
    /// All of them.
    Full,
}

/// About one of so many cases is in the smoke tier. Which ones is drawn by their ids and not by their places: options go round in steps of their own, of which a
/// step of the tier would see only some. So a new case moves no other into the tier or out of it, either.
pub const SMOKE: u64 = 9;

/// FNV-1a of the id.
fn digest(id: &str) -> u64 {
    id.bytes()
        .fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3))
}

/// A case of any operation, for one kind of subject.
pub trait Check<S: Subject> {
    /// Its name.
    fn id(&self) -> String;
    /// Whether a backend may lack it.
    fn optional(&self) -> bool;
    /// Asks it.
    ///
    /// # Errors
    /// What is wrong.
    fn run(&self, subject: &S, backend: &S::Backend) -> Result<Measure, Failure>;
}

impl<S: Subject, C: Case> Check<S> for C {
    fn id(&self) -> String {
        Case::id(self)
    }

    fn optional(&self) -> bool {
        Case::optional(self)
    }

    fn run(&self, _: &S, backend: &S::Backend) -> Result<Measure, Failure> {
        Case::run(self, backend)
    }
}

/// A check of the collectives, which fails by a panic.
struct Collective<S: Subject> {
    name: &'static str,
    check: fn(&Connect<'_, S>),
}

/// Connects so many ranks with such a timeout.
type Connect<'c, S> = dyn Fn(usize, Duration) -> Ranks<<S as Subject>::Backend> + 'c;

impl<S: Subject> Check<S> for Collective<S> {
    fn id(&self) -> String {
        format!("collectives:{}", self.name)
    }

    fn optional(&self) -> bool {
        false
    }

    fn run(&self, subject: &S, _: &S::Backend) -> Result<Measure, Failure> {
        // A world that does not open is the failure.
        let connect = |ranks, timeout| match subject.cluster(ranks, timeout) {
            Ok(world) => Some(world),
            Err(error) => std::panic::panic_any(error.to_string()),
        };
        let result = catch_unwind(AssertUnwindSafe(|| (self.check)(&connect)));
        result.map(|()| Measure::exact()).map_err(|panic| {
            let text = panic.downcast_ref::<String>().cloned();
            let text = text.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned()));
            Failure::Other(text.unwrap_or_else(|| "a panic without words".into()))
        })
    }
}

/// The cases of one group.
pub type Checks<S> = Vec<Box<dyn Check<S>>>;

/// A group: its name, and what makes its cases.
pub type Group<S> = (&'static str, fn() -> Checks<S>);

/// The groups, in the order in which they run: name, and cases.
pub fn groups<S: Subject>() -> Vec<Group<S>> {
    fn boxed<S: Subject, C: Case + 'static>(cases: Vec<C>) -> Checks<S> {
        cases.into_iter().map(|case| Box::new(case) as Box<dyn Check<S>>).collect()
    }
    macro_rules! groups {
        ($($name:ident = $cases:path;)*) => {
            vec![$((stringify!($name), || boxed($cases()))),*]
        };
    }
    let mut groups: Vec<Group<S>> = groups! {
        elementwise = ops::elementwise::cases;
        cast = ops::elementwise::cast_cases;
        reduce = ops::reduce::cases;
        sum = ops::reduce::sum_cases;
        block_squares = ops::reduce::block_squares_cases;
        matmul = ops::matmul::cases;
        matmul_bias = ops::matmul::bias_cases;
        matmul_bias_gelu = ops::matmul::bias_gelu_cases;
        bias_add = ops::bias::cases;
        bias_backward = ops::bias::backward_cases;
        gelu = ops::gelu::cases;
        gelu_backward = ops::gelu::backward_cases;
        bias_gelu = ops::gelu::bias_cases;
        dropout = ops::dropout::cases;
        bias_dropout_residual = ops::bias_dropout_residual::cases;
        layernorm = ops::layernorm::cases;
        layernorm_backward = ops::layernorm::backward_cases;
        attention = ops::attention::cases;
        attention_backward = ops::attention::backward_cases;
        attention_cached = ops::attention_cached::cases;
        embedding = ops::embedding::cases;
        embedding_backward = ops::embedding::backward_cases;
        cross_entropy_max = ops::cross_entropy::max_cases;
        cross_entropy = ops::cross_entropy::cases;
        cross_entropy_backward = ops::cross_entropy::backward_cases;
        adamw = ops::adamw::cases;
        special = ops::special::cases;
        refusals = ops::refusals::cases;
    };
    groups.push(("collectives", collective_checks));
    groups
}

fn collective_checks<S: Subject>() -> Checks<S> {
    macro_rules! checks {
        ($($name:ident)*) => {
            vec![$(Box::new(Collective::<S> { name: stringify!($name), check: |connect| collectives::$name(connect) })),*]
        };
    }
    checks! {
        all_reduce reduce_scatter_and_all_gather broadcast interleaved_groups messages_in_order lanes_apart failed_peer panicking_peer
        missing_peer missing_message contradiction wrong_message wrong_arguments
    }
}

/// Which cases of all, in which tier.
#[derive(Clone, Debug, Default)]
pub struct Selection {
    /// Only ids that hold this, `*` standing for anything; empty for all.
    pub filter: String,
    /// Whether only the smoke tier.
    pub smoke: bool,
}

impl Selection {
    /// Whether the `index`-th case of its group is asked for.
    pub fn has(&self, index: usize, id: &str) -> bool {
        (!self.smoke || index == 0 || digest(id).is_multiple_of(SMOKE)) && matches(&self.filter, id)
    }
}

/// Whether the id holds the pattern's parts between its `*`, in order.
fn matches(pattern: &str, id: &str) -> bool {
    let mut rest = id;
    pattern.split('*').all(|part| match rest.find(part) {
        Some(at) => {
            rest = &rest[at + part.len()..];
            true
        }
        None => false,
    })
}

/// The error in words, and whether the device is beyond use.
fn words(failure: &Failure) -> (String, bool) {
    (failure.to_string(), matches!(failure, Failure::Backend(Error::Device { .. })))
}

/// Whether the backend says that it lacks this.
fn lacks(failure: &Failure) -> bool {
    matches!(failure, Failure::Backend(Error::Unsupported { .. }))
}

/// A device in words.
pub fn device<B: Backend>(backend: &B) -> String {
    let info = backend.info();
    format!("{} ({})", info.device, info.driver)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns() {
        for (pattern, id, fits) in [
            ("", "matmul:m=1", true),
            ("matmul", "matmul:m=1", true),
            ("matmul:*dt=bf16", "matmul:m=1,dt=bf16", true),
            ("matmul:*dt=bf16", "matmul:m=1,dt=f16", false),
            ("b*a", "ab", false),
        ] {
            assert_eq!(matches(pattern, id), fits, "{pattern} {id}");
        }
    }
}
