//! What Tint says of the kernels, and what a child that misbehaves comes to. The operations themselves are the conformance suite's.

use std::collections::{HashMap, VecDeque};
use std::process;
use std::sync::Arc;
use std::time::{Duration, Instant};

use backend::{Backend, Class, DType, Error, Shape};

use super::Dawn;
use super::connection::{Connection, Operation, for_tint};
use crate::adapter::AdapterInfo;
use crate::device::Failure;
use crate::kernels::tests::each_variant;
use crate::queue::Command;
use crate::tests::{TIMEOUT, floats, skip_unless_required};
use crate::{Choice, WgpuBackend};

/// A child, or word that Dawn is not there.
fn connection() -> Option<(AdapterInfo, Arc<Connection>)> {
    let opened =
        Dawn::installed().and_then(|dawn| Connection::open(&dawn, &Arc::new(Failure::default()), TIMEOUT));
    match opened {
        Ok((info, _, connection)) => Some((info, connection)),
        Err(error) => {
            skip_unless_required("dawn", &error);
            None
        }
    }
}

/// What of those texts the child's Tint rejects, and why.
fn rejected<'a>(connection: &Connection, sources: impl Iterator<Item = (&'a str, &'a str)>) -> Vec<String> {
    /// Requests under way: what lies in the pipe is bounded.
    const IN_FLIGHT: usize = 64;
    let (mut in_flight, mut rejected) = (VecDeque::new(), Vec::new());
    let mut finish = |(what, answer): (&str, _)| {
        if let Err(refusal) = connection.finish(&answer) {
            rejected.push(format!("{what}: {refusal:?}"));
        }
    };
    for (what, source) in sources {
        if in_flight.len() == IN_FLIGHT {
            in_flight.pop_front().into_iter().for_each(&mut finish);
        }
        in_flight.push_back((what, connection.start(Operation::Validate, for_tint(source).as_bytes())));
    }
    in_flight.into_iter().for_each(&mut finish);
    rejected
}

#[test]
fn dawn_accepts_every_variant() {
    let Some((info, connection)) = connection() else { return };
    // Variants may come to the same text.
    let mut sources = HashMap::new();
    let mut foreign = 0;
    let variants = each_variant(|variant| {
        // An extension of naga's; f16 as the device has it, where it has none.
        match variant.source.contains("enable wgpu_") || !info.f16 && variant.source.contains("enable f16;") {
            true => foreign += 1,
            false => drop(sources.entry(variant.source).or_insert(variant.what)),
        }
    });
    let rejected =
        rejected(&connection, sources.iter().map(|(source, what)| (what.as_str(), source.as_str())));
    println!("{variants} variants, {foreign} of them not for {info}, {} texts", sources.len());
    assert!(
        rejected.is_empty(),
        "{} are rejected:\n{}",
        rejected.len(),
        rejected[..rejected.len().min(20)].join("\n")
    );
    assert!(sources.len() > 500);
}

#[test]
fn dawn_rejects_what_naga_does_not() {
    let Some((_, connection)) = connection() else { return };
    let barrier = "@compute @workgroup_size(8) fn main(@builtin(local_invocation_index) lane: u32) { if (lane < 4u) { workgroupBarrier(); } }";
    assert!(naga::front::wgsl::parse_str(barrier).is_ok());
    let [error] = &rejected(&connection, [("a barrier that not all lanes reach", barrier)].into_iter())[..]
    else {
        panic!("it is accepted");
    };
    assert!(error.contains("uniform"), "{error}");
}

/// A backend on a child of its own.
fn backend(timeout: Duration) -> Option<WgpuBackend> {
    match Dawn::installed().and_then(|dawn| WgpuBackend::new(&Choice::Dawn(dawn), timeout)) {
        Ok(backend) => Some(backend),
        Err(error) => {
            skip_unless_required("dawn", &error);
            None
        }
    }
}

#[test]
fn dawn_s_errors_are_sticky() {
    let Some(backend) = backend(TIMEOUT) else { return };
    let x = floats(&backend, &[1.0], 0, [1]);
    backend.sync().unwrap();
    let memory = Arc::clone(x.view().buffer().memory());
    backend.device.send(Command::Write { memory, offset: 1 << 20, data: vec![0; 8] });
    for _ in 0..2 {
        let error = backend.sync().unwrap_err();
        assert!(matches!(error, Error::Device { .. }), "{error}");
        let mut data = [0; 4];
        assert!(matches!(backend.read(x.view(), &mut data).unwrap_err(), Error::Device { .. }));
        assert_eq!(data, [0; 4]);
    }
}

#[test]
fn dawn_s_end_is_an_error_and_no_hang() {
    let Some(backend) = backend(TIMEOUT) else { return };
    let x = floats(&backend, &[1.0], 0, [1]);
    backend.sync().unwrap();
    backend.device.dawn().unwrap().end();
    let error = backend.sync().unwrap_err();
    assert!(matches!(error, Error::Device { .. }) && error.to_string().contains("has ended"), "{error}");
    let error = backend.alloc(Class::Workspace, DType::F32, Shape::new(&[1 << 20])).unwrap_err();
    assert!(matches!(error, Error::Device { .. }), "{error}");
    drop(x);
}

#[test]
fn a_dawn_that_does_not_answer_is_an_error_and_no_hang() {
    // Long enough to open.
    let timeout = Duration::from_secs(15);
    let Some(backend) = backend(timeout) else { return };
    let x = floats(&backend, &[1.0], 0, [1]);
    backend.sync().unwrap();
    let id = backend.device.dawn().unwrap().process().to_string();
    assert!(process::Command::new("kill").args(["-STOP", &id]).status().unwrap().success());
    // More than the pipe holds, and then something to wait for.
    let big = vec![0; 1 << 20];
    let memory = x.view().buffer().memory();
    backend.device.send(Command::Write { memory: Arc::clone(memory), offset: 0, data: big });
    let long = backend.alloc(Class::Workspace, DType::F32, Shape::new(&[1 << 20])).map(drop);
    assert!(matches!(long, Err(Error::Device { .. })), "{long:?}");
    let start = Instant::now();
    let error = backend.sync().unwrap_err();
    assert!(error.to_string().contains("no answer within"), "{error}");
    drop((x, backend));
    assert!(start.elapsed() < timeout, "the failure is not sticky");
}

#[test]
fn a_missing_dawn_is_named() {
    let dawn = Dawn { folder: "no/such/folder".into(), driver: None };
    let Err(error) = WgpuBackend::new(&Choice::Dawn(dawn), TIMEOUT) else { panic!("it opened") };
    assert!(
        matches!(error, Error::NoDevice { .. }) && error.to_string().contains("no/such/folder"),
        "{error}"
    );
}
