use backend::ops::{Scratch, Sum};
use backend::{Backend, Class, DType, Error, Shape, Tensor};

use super::{TIMEOUT, floats, get, random, rig};
use crate::{Choice, WgpuBackend};

#[test]
fn an_adapter_that_is_not_there_is_named() {
    let choice = Choice::Any { name: Some("no such adapter".to_owned()) };
    let Err(error) = WgpuBackend::new(&choice, TIMEOUT) else { panic!("it opened") };
    let text = error.to_string();
    assert!(matches!(error, Error::NoDevice { .. }) && text.contains("no such adapter"), "{text}");
}

#[test]
fn software_is_not_hardware() {
    if let Ok(backend) = WgpuBackend::new(&Choice::Hardware, TIMEOUT) {
        assert!(!backend.info().software);
    }
}

#[test]
fn what_the_device_lacks_is_said() {
    let Some(backend) = rig() else { return };
    let huge = backend.alloc(Class::Parameters, DType::F32, Shape::new(&[1 << 31])).unwrap_err();
    assert!(matches!(huge, Error::Limit { asked, .. } if asked == 1 << 33), "{huge}");
    let x = floats(backend, &random(10_000, 1), 0, [10_000]);
    let out = floats(backend, &[0.0], 0, [1]);
    assert!(backend.workspace(Scratch::Sum { n: 10_000 }) > 1);
    let args = Sum { x: x.view(), out: out.view(), alpha: 1.0, beta: 0.0, workspace: out.view() };
    assert!(matches!(backend.sum(args).unwrap_err(), Error::Overlap { .. }));
    let short = floats(backend, &[0.0], 0, [1]);
    let args = Sum { x: x.view(), out: out.view(), alpha: 1.0, beta: 0.0, workspace: short.view() };
    assert!(matches!(backend.sum(args).unwrap_err(), Error::Shape { tensor: "workspace", .. }));
}

#[test]
fn memory_is_counted_and_reused() {
    let Some(rig) = rig() else { return };
    let backend =
        WgpuBackend { pool: crate::memory::Pool::new(std::sync::Arc::clone(&rig.device)), ..rig.clone() };
    let alloc = |n| -> Tensor<_> { backend.alloc(Class::Optimizer, DType::F32, Shape::new(&[n])).unwrap() };
    let (a, b) = (alloc(100), alloc(300));
    assert_eq!(backend.usage(Class::Optimizer).current, 1600);
    let id = a.view().buffer().memory().id;
    drop(a);
    assert_eq!(backend.usage(Class::Optimizer).current, 1200);
    let again = alloc(110);
    assert_eq!(again.view().buffer().memory().id, id, "the same memory, by its rounded size");
    drop((again, b));
    assert_eq!(backend.usage(Class::Optimizer).current, 0);
    assert_eq!(backend.usage(Class::Optimizer).peak, 1640);
}

#[test]
fn a_failure_of_the_device_is_sticky() {
    if rig().is_none() {
        return;
    }
    let backend = WgpuBackend::new(&Choice::Any { name: None }, TIMEOUT).unwrap();
    let x = floats(&backend, &[1.0], 0, [1]);
    backend.sync().unwrap();
    // A write past the end of the memory is an error that wgpu reports and no operation can make.
    backend.device.send(crate::queue::Command::Write {
        memory: std::sync::Arc::clone(x.view().buffer().memory()),
        offset: 1 << 20,
        data: vec![0; 8],
    });
    for _ in 0..2 {
        assert!(matches!(backend.sync().unwrap_err(), Error::Device { .. }));
        let mut data = [0; 4];
        assert!(matches!(backend.read(x.view(), &mut data).unwrap_err(), Error::Device { .. }));
        assert_eq!(data, [0; 4]);
    }
    backend.fill(x.view(), 2.0).unwrap();
}

#[test]
fn a_wait_ends() {
    if rig().is_none() {
        return;
    }
    let backend = WgpuBackend::new(&Choice::Any { name: None }, std::time::Duration::from_nanos(1)).unwrap();
    let n = 1 << 22;
    let x = backend.alloc(Class::Activations, DType::F32, Shape::new(&[n])).unwrap();
    for _ in 0..200 {
        backend.scale(x.view(), 1.0).unwrap();
    }
    let error = backend.sync().unwrap_err();
    assert!(
        matches!(error, Error::Device { .. }) && error.to_string().contains("no answer within"),
        "{error}"
    );
}

#[test]
fn host_writes_keep_their_place_among_kernels() {
    let Some(backend) = rig() else { return };
    // Below and above what rides in a batch.
    for n in [64, 40_000] {
        let x = floats(backend, &vec![0.0; n], 0, [n]);
        let total = floats(backend, &vec![0.0; n], 0, [n]);
        for i in 0..300 {
            backend.write(x.view(), bytemuck::cast_slice(&vec![(i % 7) as f32; n])).unwrap();
            backend.add(backend::ops::Add { x: x.view(), y: total.view(), alpha: 1.0 }).unwrap();
        }
        let expected: usize = (0..300).map(|i| i % 7).sum();
        assert_eq!(get(backend, &total), vec![expected as f32; n]);
    }
}
