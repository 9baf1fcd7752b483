//! The suite itself: each kind of fault must be found, and a backend that composes every fused operation passes.

mod faulty;

use conformance::ops::checks;
use conformance::{Failure, Report};
use faulty::{Fault, Faulty};

/// How many of the report's cases failed, each as `kind` says.
fn found(report: &Report, kind: impl Fn(&Failure) -> bool) -> usize {
    for (id, failure) in &report.failures {
        assert!(kind(failure), "{id}: {failure}");
    }
    report.failures.len()
}

fn wrong(failure: &Failure) -> bool {
    matches!(failure, Failure::Wrong { .. })
}

#[test]
fn narrow_products_are_found_at_every_depth() {
    let report = checks::matmul(&Faulty::new(Fault::NarrowProduct));
    // All but the ones without a term, and those of integers that ten bits hold.
    assert_eq!(found(&report, wrong), report.ran - 8);
    assert!(report.failures.iter().any(|(id, _)| id.contains("k=4096")));
}

#[test]
fn beta_zero_must_not_read() {
    let report = checks::matmul(&Faulty::new(Fault::BetaZeroReads));
    assert!(found(&report, wrong) >= report.ran / 3);
}

#[test]
fn trespasses_are_found() {
    let report = checks::matmul(&Faulty::new(Fault::WritesPastEnd));
    let past_end = |failure: &Failure| matches!(failure, Failure::Trespass { operand: "c", len, index } if *index == *len as i64);
    assert_eq!(found(&report, past_end), report.ran);

    let report = checks::matmul(&Faulty::new(Fault::WritesInput));
    let into_b = |failure: &Failure| matches!(failure, Failure::Trespass { operand: "b", index: 0, .. });
    assert_eq!(found(&report, into_b), report.ran - 4, "all but the products without a term");

    let report = checks::sum(&Faulty::new(Fault::Workspace));
    assert_eq!(
        found(&report, |failure| matches!(failure, Failure::Trespass { operand: "workspace", .. })),
        report.ran
    );
}

#[test]
fn one_bit_between_two_runs_is_found() {
    let report = checks::matmul(&Faulty::new(Fault::Unsteady));
    assert_eq!(
        found(&report, |failure| matches!(failure, Failure::Unsteady { operand: "c", .. })),
        report.ran
    );
}

#[test]
fn a_wrong_call_that_passes_is_found() {
    let report = checks::refusals(&Faulty::new(Fault::NoCheck));
    assert_eq!(found(&report, |failure| matches!(failure, Failure::Refusal { .. })), 3);
}

#[test]
fn subtle_arithmetic_is_found() {
    let shifted = checks::layernorm(&Faulty::new(Fault::OnePassVariance));
    assert!(found(&shifted, wrong) > 0);
    let hard = |id: &str| id.contains("rows=shifted") || id.contains("rows=constant");
    assert!(shifted.failures.iter().all(|(id, _)| hard(id)), "{:?}", shifted.failures);

    let counter = checks::dropout(&Faulty::new(Fault::ShortCounter));
    assert!(found(&counter, wrong) > 0);

    let overwritten = checks::embedding_backward(&Faulty::new(Fault::Overwrites));
    assert_eq!(found(&overwritten, wrong), overwritten.ran);

    let order = checks::reduce(&Faulty::new(Fault::OtherOrder));
    assert!(found(&order, wrong) > 0);

    let adamw = checks::adamw(&Faulty::new(Fault::Uncorrected));
    assert!(found(&adamw, wrong) > 0);

    let nan = checks::cross_entropy_max(&Faulty::new(Fault::LosesNan));
    assert!(found(&nan, wrong) > 0);
}

/// Without a fault, and without one fused kernel of its own: the contract's compositions, too, are right.
mod composed {
    use super::*;
    conformance::operation_tests!(Some(Box::new(Faulty::new(Fault::None))));
}
