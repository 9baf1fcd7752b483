//! A training software, in TOML: what its kernels and its communication do, and one number that was fitted.
//!
//! The trainer that is simulated is always this project's. A stack says where another software's kernels differ (an attention that writes its scores to
//! memory), what of its communication hides behind arithmetic, and what it keeps. Hardware constants are the [`Cluster`](crate::Cluster)'s, the same for all.

use serde::{Deserialize, Serialize};

use crate::cluster::{DescriptionError, load};

/// What a software does.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Stack {
    /// Its name.
    pub name: String,
    /// What it is, and where that is read.
    #[serde(default)]
    pub sources: Vec<String>,
    /// Modelled time over measured time of a step: every kernel, collective and message takes its modelled time divided by this.
    pub efficiency: f64,
    /// The published row on which it was fitted; none for our own, where it is unknown and taken as 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fitted_on: Option<String>,
    /// How attention is computed.
    pub attention: Attention,
    /// How weights' gradients are added up over microbatches.
    pub weight_gradients: WeightGradients,
    /// Whether a stage goes on while its message to another one travels.
    pub overlapped_messages: bool,
    /// Bytes an element of the gradients that replicas sum.
    pub reduced_gradient_bytes: f64,
    /// Bytes a parameter of gradients that are held.
    pub held_gradient_bytes: f64,
    /// Bytes a parameter that a step streams beside the optimizer's own kernel: gradients flattened, scaled, cast, clipped by kernels of their own.
    pub step_bytes: f64,
    /// Whether dropout masks are written to memory (a byte an element) instead of drawn again.
    pub masks: bool,
    /// Whether full recomputation computes a layer's output too, which no backward needs.
    pub recompute_outputs: bool,
    /// Whether the GELU is a kernel behind the product's, instead of its last step.
    pub separate_gelu: bool,
    /// Seconds of the host for each kernel that it launches.
    pub launch_seconds: f64,
}

/// How attention is computed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Attention {
    /// Block by block, no score is written to memory, nothing above the diagonal is computed (Dao et al. 2022).
    Streaming,
    /// Product, softmax with scale and mask, dropout, product: each writes `[b, a, s, s]` (Megatron-LM before 2023).
    Unfused,
}

/// How weights' gradients are added up over microbatches.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum WeightGradients {
    /// The product adds to the sum itself.
    Fused,
    /// The product writes a gradient of its own, which another kernel adds to the sum.
    Separate,
}

/// The stacks that come with the program.
const BUILT_IN: [(&str, &str); 4] = [
    ("mtnlg", include_str!("../../configs/stacks/mtnlg.toml")),
    ("mt-nlg", include_str!("../../configs/stacks/mt-nlg.toml")),
    ("narayanan-2021", include_str!("../../configs/stacks/narayanan-2021.toml")),
    ("korthikanti-2022", include_str!("../../configs/stacks/korthikanti-2022.toml")),
];

impl Stack {
    /// Our own: the trainer as it is.
    pub const OWN: &str = "mtnlg";

    /// The stack of that name, or in that file.
    ///
    /// # Errors
    /// [`DescriptionError`].
    pub fn load(name: &str) -> Result<Self, DescriptionError> {
        let stack: Self = load("stack", &BUILT_IN, name)?;
        let positive = stack.efficiency > 0.0 && stack.efficiency.is_finite();
        let not_negative =
            [stack.reduced_gradient_bytes, stack.held_gradient_bytes, stack.step_bytes, stack.launch_seconds];
        match positive && not_negative.iter().all(|value| *value >= 0.0 && value.is_finite()) {
            true => Ok(stack),
            false => Err(DescriptionError::Malformed {
                kind: "stack",
                name: name.to_owned(),
                message: "efficiency must be above 0, every other number at least 0".to_owned(),
            }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn those_that_come_with_the_program_are_whole() {
        for (name, _) in BUILT_IN {
            let stack = Stack::load(name).unwrap();
            assert_eq!(stack.name, name);
            assert_eq!(stack.fitted_on.is_none(), name == Stack::OWN);
        }
    }
}
