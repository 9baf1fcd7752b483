//! What the backward computes again (Korthikanti et al. 2022, section 5).

use serde::{Deserialize, Serialize};

/// What of a layer's forward is computed again in its backward instead of being kept.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Recompute {
    /// Nothing. The attention's probabilities are never kept: its backward makes them from the log-sum-exp of each row.
    #[default]
    None,
    /// The core of the attention: its output and log-sum-exp come again from queries, keys and values.
    Selective,
    /// All of the layer, from its input.
    Full,
}
