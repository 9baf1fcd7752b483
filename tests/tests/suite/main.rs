//! The suite itself: each kind of fault must be found, and a backend that composes every fused operation passes.

mod faulty;

use std::sync::Arc;

use backend::Backend;
use conformance::suite::groups;
use conformance::{Case, Failure, Subject, ops};
use faulty::{Fault, Faulty};

/// What a run of cases found.
struct Report {
    /// How many ran.
    ran: usize,
    /// Ids of those that failed, and why.
    failures: Vec<(String, Failure)>,
}

impl Report {
    fn of<B: Backend, C: Case>(backend: &B, cases: impl IntoIterator<Item = C>) -> Self {
        let mut report = Self { ran: 0, failures: Vec::new() };
        for case in cases {
            report.ran += 1;
            report.failures.extend(case.run(backend).err().map(|failure| (case.id(), failure)));
        }
        report
    }
}

/// How many of the report's cases failed, each as `kind` says.
fn found(report: &Report, kind: impl Fn(&Failure) -> bool) -> usize {
    for (id, failure) in &report.failures {
        assert!(kind(failure), "{id}: {failure}");
    }
    report.failures.len()
}

/// What the cases of f32 find of a fault.
fn in_f32<C: Case>(fault: Fault, cases: Vec<C>) -> Report {
    Report::of(&Faulty::new(fault), cases.into_iter().filter(|case| case.id().ends_with("dt=f32")))
}

fn wrong(failure: &Failure) -> bool {
    matches!(failure, Failure::Wrong { .. })
}

#[test]
fn narrow_products_are_found_at_every_depth() {
    let report = in_f32(Fault::NarrowProduct, ops::matmul::cases());
    // All but the ones without a term or an element, and those of integers that ten bits hold.
    let (nothing, whole) = (12, 4);
    assert_eq!(found(&report, wrong), report.ran - nothing - whole);
    assert!(report.failures.iter().any(|(id, _)| id.contains("k=4096")));
}

#[test]
fn a_result_that_is_cut_off_is_found() {
    let cases = ops::matmul::cases().into_iter();
    let cases = cases.filter(|case| case.id().ends_with("dt=bf16") && case.id().contains("beta=0,"));
    let report = Report::of(&Faulty::new(Fault::Truncates), cases);
    // All whose result is of 16 bits and takes more than eight bits of mantissa.
    assert!(found(&report, wrong) >= report.ran / 3, "{} of {}", report.failures.len(), report.ran);
}

#[test]
fn beta_zero_must_not_read() {
    let report = in_f32(Fault::BetaZeroReads, ops::matmul::cases());
    assert!(found(&report, wrong) >= report.ran / 3);
}

#[test]
fn trespasses_are_found() {
    let report = in_f32(Fault::WritesPastEnd, ops::matmul::cases());
    let past_end = |failure: &Failure| matches!(failure, Failure::Trespass { operand: "c", len, index } if *index == *len as i64);
    assert_eq!(found(&report, past_end), report.ran);

    let report = in_f32(Fault::WritesInput, ops::matmul::cases());
    let into_b = |failure: &Failure| matches!(failure, Failure::Trespass { operand: "b", index: 0, .. });
    assert_eq!(found(&report, into_b), report.ran - 8, "all but those whose right factor is empty");

    let report = in_f32(Fault::Workspace, ops::reduce::sum_cases());
    assert_eq!(
        found(&report, |failure| matches!(failure, Failure::Trespass { operand: "workspace", .. })),
        report.ran
    );
}

#[test]
fn one_bit_between_two_runs_is_found() {
    let report = in_f32(Fault::Unsteady, ops::matmul::cases());
    assert_eq!(
        found(&report, |failure| matches!(failure, Failure::Unsteady { operand: "c", .. })),
        report.ran - 8,
        "all but those that have no element"
    );
}

#[test]
fn a_wrong_call_that_passes_is_found() {
    let report = Report::of(&Faulty::new(Fault::NoCheck), ops::refusals::cases());
    assert_eq!(found(&report, |failure| matches!(failure, Failure::Refusal { .. })), 3);
}

#[test]
fn subtle_arithmetic_is_found() {
    let shifted = in_f32(Fault::OnePassVariance, ops::layernorm::cases());
    assert!(found(&shifted, wrong) > 0);
    // Of so many rows of three numbers some are nearly constant.
    let hard = |id: &str| ["rows=shifted", "rows=constant", "t=70000"].iter().any(|hard| id.contains(hard));
    assert!(shifted.failures.iter().all(|(id, _)| hard(id)), "{:?}", shifted.failures);

    let counter = in_f32(Fault::ShortCounter, ops::dropout::cases());
    assert!(found(&counter, wrong) > 0);

    let overwritten = in_f32(Fault::Overwrites, ops::embedding::backward_cases());
    assert_eq!(found(&overwritten, wrong), overwritten.ran);

    let order = in_f32(Fault::OtherOrder, ops::reduce::cases());
    assert!(found(&order, wrong) > 0);

    let adamw = in_f32(Fault::Uncorrected, ops::adamw::cases());
    assert!(found(&adamw, wrong) > 0);

    let nan = in_f32(Fault::LosesNan, ops::cross_entropy::max_cases());
    assert!(found(&nan, wrong) > 0);
}

/// The collectives are as short as the reduction that they are made of.
#[test]
#[should_panic(expected = "all_reduce Sum of ")]
fn a_short_all_reduce_is_found() {
    let connect = |ranks: usize, timeout| {
        let backends: Vec<_> = (0..ranks).map(|_| Arc::new(Faulty::new(Fault::ShortReduce))).collect();
        Some(backend::local::connect(&backends, timeout))
    };
    conformance::collectives::all_reduce(connect);
}

/// Without a fault, and without one fused kernel of its own.
struct Composed;

impl Subject for Composed {
    type Backend = Faulty;

    fn name(&self) -> String {
        "composed".to_owned()
    }

    fn open(&self) -> backend::Result<Arc<Faulty>> {
        Ok(Arc::new(Faulty::new(Fault::None)))
    }
}

/// The contract's compositions, too, are right.
#[test]
fn what_is_composed_conforms() {
    let mut ran = 0;
    for (_, cases) in groups::<Composed>().into_iter().filter(|(group, _)| *group != "collectives") {
        let backend = Composed.open().unwrap();
        for case in cases() {
            ran += 1;
            case.run(&Composed, &backend).unwrap_or_else(|failure| panic!("{}: {failure}", case.id()));
        }
    }
    assert!(ran > 2500, "{ran} cases");
}
