//! How many cases the suite has, by operation.

use std::collections::{BTreeMap, BTreeSet};

use conformance::Case;
use conformance::ops::*;

fn ids<C: Case>(cases: Vec<C>) -> Vec<String> {
    cases.iter().map(Case::id).collect()
}

fn all() -> Vec<String> {
    [
        ids(adamw::cases()),
        ids(attention::cases()),
        ids(attention::backward_cases()),
        ids(attention_cached::cases()),
        ids(bias::cases()),
        ids(bias::backward_cases()),
        ids(bias_dropout_residual::cases()),
        ids(gelu::bias_cases()),
        ids(reduce::block_squares_cases()),
        ids(elementwise::cast_cases()),
        ids(cross_entropy::cases()),
        ids(cross_entropy::max_cases()),
        ids(cross_entropy::backward_cases()),
        ids(dropout::cases()),
        ids(elementwise::cases()),
        ids(embedding::cases()),
        ids(embedding::backward_cases()),
        ids(gelu::cases()),
        ids(gelu::backward_cases()),
        ids(layernorm::cases()),
        ids(layernorm::backward_cases()),
        ids(matmul::cases()),
        ids(matmul::bias_cases()),
        ids(matmul::bias_gelu_cases()),
        ids(reduce::cases()),
        ids(refusals::cases()),
        ids(special::cases()),
        ids(reduce::sum_cases()),
    ]
    .concat()
}

#[test]
fn at_least_1500_cases_each_with_an_id_of_its_own() {
    let ids = all();
    let mut count: BTreeMap<&str, usize> = BTreeMap::new();
    for id in &ids {
        *count.entry(id.split(':').next().unwrap_or(id)).or_default() += 1;
    }
    println!("{} cases: {count:?}", ids.len());
    assert!(ids.len() >= 1500, "{} cases", ids.len());
    let distinct: BTreeSet<&String> = ids.iter().collect();
    let mut seen = BTreeSet::new();
    let doubled: Vec<_> = ids.iter().filter(|id| !seen.insert(*id)).collect();
    assert_eq!(distinct.len(), ids.len(), "{doubled:?}");
    assert!(count.iter().all(|(op, n)| *n >= 10 || *op == "wrong"), "{count:?}");
}
