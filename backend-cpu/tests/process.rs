//! Ranks as processes: the same bits as ranks of one process, and what happens when one of them does not play along.

#![allow(clippy::unwrap_used, reason = "a failure here is the test's")]

use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use backend::philox::Stream;
use backend::process::{Channel, Interrupted, Launch, ProcessCommunicator, TcpTransport, Track, Transport};
use backend::{Backend, Class, Communicator, DType, Error, Group, GroupKind, Lane, ReduceOp, Result, Tensor};
use backend_cpu::{CpuBackend, CpuBuffer};

type Memory = Tensor<CpuBuffer>;
type Rank = ProcessCommunicator<CpuBackend>;

/// Long enough for a busy machine; the tests that wait for a timeout choose their own.
const PATIENCE: Duration = Duration::from_secs(60);

fn launch(rank: usize, world_size: usize, port: u16) -> Launch {
    let master_address = "127.0.0.1".to_owned();
    Launch { launcher: "test", rank, world_size, local_rank: rank, master_address, master_port: port }
}

fn listener() -> (TcpListener, u16) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    (listener, port)
}

/// Connects ranks that are threads of this process as if they were processes, and runs `work` on each; the results in rank order.
fn ranks<R: Send>(
    world_size: usize,
    timeout: Duration,
    work: impl Fn(Result<TcpTransport>) -> R + Sync,
) -> Vec<R> {
    let (listener, port) = listener();
    let (work, listener) = (&work, &listener);
    std::thread::scope(|scope| {
        let rank = |rank| {
            scope.spawn(move || {
                let launch = launch(rank, world_size, port);
                work(match rank {
                    0 => TcpTransport::host(listener, &launch, "a run", timeout),
                    _ => TcpTransport::connect(&launch, "a run", timeout),
                })
            })
        };
        let threads: Vec<_> = (0..world_size).map(rank).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    })
}

fn communicators<R: Send>(world_size: usize, timeout: Duration, work: impl Fn(Rank) -> R + Sync) -> Vec<R> {
    // The ranks find each other at leisure; it is the collectives whose timeout is tested.
    ranks(world_size, PATIENCE, |transport| {
        work(ProcessCommunicator::new(transport.unwrap(), CpuBackend::new(1), timeout))
    })
}

fn world(n: usize) -> Group {
    Group::new(GroupKind::World, (0..n).collect::<Vec<_>>())
}

fn put(cpu: &CpuBackend, dtype: DType, bytes: &[u8]) -> Memory {
    let memory = cpu.alloc(Class::Workspace, dtype, [bytes.len() / dtype.size()].into()).unwrap();
    cpu.write(memory.view(), bytes).unwrap();
    memory
}

fn get(cpu: &CpuBackend, memory: &Memory) -> Vec<u8> {
    let mut bytes = vec![0; memory.view().bytes()];
    cpu.read(memory.view(), &mut bytes).unwrap();
    bytes
}

/// Numbers of many magnitudes, so that every order of summation gives other bits; for bf16 the upper halves of them.
fn numbers(dtype: DType, rank: usize, n: usize) -> Vec<u8> {
    let stream = Stream { seed: 5, stream: rank as u64 };
    let number = |i: u64| (stream.uniform(2 * i) - 0.5) * 2f32.powi((stream.word(2 * i + 1) % 24) as i32);
    let bytes = |x: f32| match dtype {
        DType::F32 => x.to_ne_bytes().to_vec(),
        DType::Bf16 => ((x.to_bits() >> 16) as u16).to_ne_bytes().to_vec(),
        other => panic!("no numbers of {other}"),
    };
    // A prime period: no share or piece looks like another one.
    let period: Vec<u8> = (0..n.min(65_537) as u64).flat_map(|i| bytes(number(i))).collect();
    period.iter().copied().cycle().take(n * dtype.size()).collect()
}

/// Every collective once, on data of about `len` elements; what came out of them.
fn every_collective(
    comm: &dyn Communicator<CpuBuffer>,
    cpu: &CpuBackend,
    dtype: DType,
    len: usize,
) -> Result<Vec<Vec<u8>>> {
    let (rank, n) = (comm.rank(), comm.world_size());
    let everybody = world(n);
    let mine = numbers(dtype, rank, len);
    let zeros = |len: usize| put(cpu, dtype, &vec![0; len * dtype.size()]);
    let mut outputs = Vec::new();
    for op in [ReduceOp::Sum, ReduceOp::Max] {
        let data = put(cpu, dtype, &mine);
        comm.all_reduce(&everybody, op, data.view())?;
        outputs.push(data);
    }
    // Two groups at a time, one of them in an order of its own.
    let group: Vec<usize> = (0..n).filter(|member| member % 2 == rank % 2).rev().collect();
    let data = put(cpu, dtype, &mine);
    comm.all_reduce(&Group::new(GroupKind::Data, group), ReduceOp::Sum, data.view())?;
    outputs.push(data);

    let (source, part) = (put(cpu, dtype, &numbers(dtype, rank, len * n)), zeros(len));
    comm.reduce_scatter(&everybody, source.view(), part.view())?;
    let (whole, inner) = (zeros(len * n), put(cpu, dtype, &numbers(dtype, rank + 50, len * n)));
    comm.all_gather(&everybody, part.view(), whole.view())?;
    comm.all_gather(&everybody, inner.view().rows(rank * len, len)?, inner.view())?;
    outputs.extend([part, whole, inner]);
    for root in [0, n - 1] {
        let data = put(cpu, dtype, &mine);
        comm.broadcast(&everybody, root, data.view())?;
        outputs.push(data);
    }
    // A ring, both ways at once, two messages deep; the one to oneself too.
    let (next, previous) = ((rank + 1) % n, (rank + n - 1) % n);
    let short = source.view().rows(0, len.div_ceil(3))?;
    for _ in 0..2 {
        comm.send(next, Lane::Forward, source.view())?;
        comm.send(previous, Lane::Backward, short)?;
    }
    comm.send(rank, Lane::Forward, short)?;
    for _ in 0..2 {
        let (short, long) = (zeros(len.div_ceil(3)), zeros(len * n));
        comm.recv(next, Lane::Backward, short.view())?;
        comm.recv(previous, Lane::Forward, long.view())?;
        outputs.extend([short, long]);
    }
    let own = zeros(len.div_ceil(3));
    comm.recv(rank, Lane::Forward, own.view())?;
    outputs.push(own);
    comm.barrier(&everybody)?;
    Ok(outputs.iter().map(|memory| get(cpu, memory)).collect())
}

fn same_bits_as_threads(n: usize, dtype: DType, lengths: &[usize]) {
    let locals = backend::local::run(backend_cpu::cluster(n, PATIENCE), |comm| -> Result<_> {
        lengths
            .iter()
            .map(|&len| every_collective(comm, comm.backend(), dtype, len))
            .collect::<Result<Vec<_>>>()
    });
    let processes = communicators(n, PATIENCE, |comm| {
        let each = lengths.iter().map(|&len| every_collective(&comm, comm.backend(), dtype, len));
        each.collect::<Result<Vec<_>>>().unwrap()
    });
    for (rank, (local, process)) in locals.unwrap().iter().zip(&processes).enumerate() {
        for ((len, local), process) in lengths.iter().zip(local).zip(process) {
            for (which, (local, process)) in local.iter().zip(process).enumerate() {
                assert!(local == process, "output {which} of {dtype}[{len}], rank {rank} of {n}");
            }
        }
    }
}

/// Below, at and above the length from which data are reduced by shares; odd ones and none.
const LENGTHS: [usize; 6] = [0, 1, 65, 8192, 8193, 100_003];

#[test]
fn the_bits_of_threads_f32() {
    for n in [2, 3, 4, 8] {
        same_bits_as_threads(n, DType::F32, &LENGTHS);
    }
}

#[test]
fn the_bits_of_threads_bf16() {
    for n in [2, 3, 8] {
        same_bits_as_threads(n, DType::Bf16, &LENGTHS);
    }
}

/// A few pieces, and not a whole number of them.
#[test]
fn the_bits_of_threads_in_pieces() {
    same_bits_as_threads(2, DType::F32, &[262_144, 600_011]);
    same_bits_as_threads(3, DType::F32, &[1_000_003]);
}

fn sum(comm: &Rank, group: &Group, len: usize) -> Result<Memory> {
    let data = put(comm.backend(), DType::F32, &numbers(DType::F32, comm.rank(), len));
    comm.all_reduce(group, ReduceOp::Sum, data.view())?;
    Ok(data)
}

/// Who was at fault, and its words.
fn fault(result: Result<Memory>) -> (usize, String) {
    match result {
        Err(Error::PeerFailed { peer, cause, .. }) => (peer, cause),
        Err(other) => panic!("{other}"),
        Ok(_) => panic!("no failure"),
    }
}

#[test]
fn a_rank_that_fails_stops_all() {
    let start = Instant::now();
    let faults = communicators(4, PATIENCE, |comm| {
        let before = sum(&comm, &world(4), 100_000);
        if comm.rank() == 2 {
            before.unwrap();
            comm.fail("the disk is full");
        }
        // Rank 2 may have done with the first sum, and fail, while the others are still in it.
        let first = fault(sum(&comm, &world(4), 100_000));
        // And it stays so, in other groups as well.
        let lonely = Group::new(GroupKind::Data, [comm.rank() / 2 * 2, comm.rank() / 2 * 2 + 1]);
        assert_eq!(fault(sum(&comm, &lonely, 10)), first);
        // A rank that stops because of another one passes on that one's name, not its own.
        comm.fail("rank 2 has failed, so I stop");
        first
    });
    assert_eq!(faults, vec![(2, "the disk is full".to_owned()); 4]);
    assert!(start.elapsed() < PATIENCE);
}

#[test]
fn a_rank_that_panics_stops_all() {
    let faults = communicators(3, PATIENCE, |comm| {
        if comm.rank() == 1 {
            let panic = std::panic::catch_unwind(std::panic::AssertUnwindSafe(move || {
                let _comm = comm;
                panic!("on purpose");
            }));
            assert!(panic.is_err());
            return None;
        }
        Some(fault(sum(&comm, &world(3), 10)))
    });
    for rank in [0, 2] {
        assert_eq!(faults[rank], Some((1, "it panicked".to_owned())), "rank {rank}");
    }
}

#[test]
fn a_rank_that_leaves_is_missed_only_where_it_is_needed() {
    let faults = communicators(3, PATIENCE, |comm| {
        let pair = Group::new(GroupKind::Data, [0, 1]);
        if comm.rank() == 2 {
            sum(&comm, &world(3), 10).unwrap();
            return None;
        }
        sum(&comm, &world(3), 10).unwrap();
        for _ in 0..50 {
            sum(&comm, &pair, 20_000).unwrap();
        }
        Some(fault(sum(&comm, &world(3), 10)))
    });
    for rank in [0, 1] {
        let (peer, cause) = faults[rank].clone().unwrap();
        assert_eq!(peer, 2, "{cause}");
        assert!(cause.contains("ended its run"), "{cause}");
    }
}

#[test]
fn silent_ranks_are_named() {
    let timeout = Duration::from_millis(1500);
    let start = Instant::now();
    let errors = communicators(4, timeout, |comm| {
        if comm.rank() % 2 == 1 {
            // Neither gone nor failed: it does something else.
            std::thread::sleep(2 * timeout);
            return fault(sum(&comm, &world(4), 10)).1;
        }
        sum(&comm, &world(4), 10).unwrap_err().to_string()
    });
    assert!(start.elapsed() < Duration::from_secs(20), "{:?}", start.elapsed());
    for error in errors {
        let (_, error) =
            error.split_once("all_reduce in the world group timed out after 1 s on rank ").expect(&error);
        assert!(error.contains("no word from rank(s) [1, 3]"), "{error}");
    }
    let errors = communicators(2, timeout, |comm| {
        let data = put(comm.backend(), DType::F32, &[0; 8]);
        match comm.rank() {
            0 => Some(comm.recv(1, Lane::Backward, data.view()).unwrap_err()),
            // A message on the other lane is not the one that is waited for.
            _ => {
                comm.send(0, Lane::Forward, data.view()).unwrap();
                std::thread::sleep(2 * timeout);
                None
            }
        }
    });
    let expected = Error::Timeout { op: "recv", group: "pipeline", rank: 0, missing: vec![1], seconds: 1 };
    assert_eq!(errors, [Some(expected), None]);
}

/// One rank is in its data group's collective before it comes to the tensor group's, and the other the other way round: neither waits for the other.
#[test]
fn the_data_group_has_a_track_of_its_own() {
    let sums = communicators(2, PATIENCE, |comm| {
        let sum = |kind, value: f32| {
            let data = put(comm.backend(), DType::F32, &value.to_ne_bytes());
            comm.all_reduce(&Group::new(kind, [0, 1]), ReduceOp::Sum, data.view())?;
            Ok::<_, Error>(f32::from_ne_bytes(get(comm.backend(), &data).try_into().unwrap()))
        };
        std::thread::scope(|scope| {
            let data = || scope.spawn(|| sum(GroupKind::Data, 1.0));
            if comm.rank() == 0 {
                let data = data();
                std::thread::sleep(Duration::from_millis(100));
                let tensor = sum(GroupKind::Tensor, 10.0).unwrap();
                (data.join().unwrap().unwrap(), tensor)
            } else {
                let tensor = sum(GroupKind::Tensor, 20.0).unwrap();
                (data().join().unwrap().unwrap(), tensor)
            }
        })
    });
    assert_eq!(sums, [(2.0, 30.0); 2]);
}

/// Three ranks of which the last one calls something else: nobody hangs, nobody gets numbers, and the error says what was called.
fn contradiction(
    usual: impl Fn(&Rank) -> Result<()> + Sync,
    other: impl Fn(&Rank) -> Result<()> + Sync,
    words: [&str; 2],
) {
    let start = Instant::now();
    let errors = communicators(3, PATIENCE, |comm| {
        let result = if comm.rank() == 2 { other(&comm) } else { usual(&comm) };
        result.expect_err(words[1])
    });
    assert!(start.elapsed() < PATIENCE);
    assert!(errors.iter().any(|error| matches!(error, Error::Mismatch { .. })), "{errors:?}");
    for error in errors {
        let text = error.to_string();
        assert!(words.iter().all(|word| text.contains(word)), "{words:?} are not in: {text}");
        let (low, high) = match error {
            Error::Mismatch { rank, peer, .. } => (rank.min(peer), rank.max(peer)),
            // One who had not begun when the others found out.
            Error::PeerFailed { peer, .. } => (0, peer.max(2)),
            other => panic!("{other}"),
        };
        assert!(low < 2 && high == 2, "{text}");
    }
}

#[test]
fn calls_that_contradict_are_found() {
    let data = |comm: &Rank, dtype, len| put(comm.backend(), dtype, &vec![0; len * 4]);
    let reduce = |len: usize, op, kind, dtype| {
        move |comm: &Rank| {
            let memory = data(comm, dtype, len);
            comm.all_reduce(&Group::new(kind, [0, 1, 2]), op, memory.view())
        }
    };
    let (sum, world) = (ReduceOp::Sum, GroupKind::World);
    let usual = reduce(30_000, sum, world, DType::F32);
    contradiction(usual, reduce(30, sum, world, DType::F32), ["f32[30000]", "f32[30]"]);
    contradiction(usual, reduce(30_000, ReduceOp::Max, world, DType::F32), ["(Sum)", "(Max)"]);
    contradiction(usual, reduce(30_000, sum, GroupKind::Tensor, DType::F32), ["world group", "tensor group"]);
    contradiction(usual, reduce(30_000, sum, world, DType::U32), ["f32[30000]", "u32[30000]"]);
    let reversed = move |comm: &Rank| {
        let memory = data(comm, DType::F32, 30_000);
        comm.all_reduce(&Group::new(GroupKind::World, [2, 1, 0]), ReduceOp::Sum, memory.view())
    };
    contradiction(usual, reversed, ["[0, 1, 2]", "[2, 1, 0]"]);
    let barrier = |comm: &Rank| comm.barrier(&Group::new(GroupKind::World, [0, 1, 2]));
    contradiction(usual, barrier, ["all_reduce", "barrier"]);
    let broadcast = |root: usize| {
        move |comm: &Rank| {
            let memory = data(comm, DType::F32, 9);
            comm.broadcast(&Group::new(GroupKind::World, [0, 1, 2]), root, memory.view())
        }
    };
    contradiction(broadcast(0), broadcast(1), ["root 0", "root 1"]);
}

#[test]
fn a_message_of_another_length_or_type_is_refused() {
    for (dtype, len) in [(DType::F32, 3), (DType::U32, 4)] {
        let errors = communicators(2, PATIENCE, |comm| match comm.rank() {
            0 => comm.send(1, Lane::Forward, put(comm.backend(), DType::F32, &[0; 16]).view()).err(),
            _ => {
                let room = put(comm.backend(), dtype, &vec![0; len * 4]);
                comm.recv(0, Lane::Forward, room.view()).err()
            }
        });
        let expected = Error::Mismatch {
            op: "recv",
            group: "pipeline",
            rank: 1,
            mine: format!("room for {dtype}[{len}]"),
            peer: 0,
            theirs: "a message of f32[4]".to_owned(),
        };
        assert_eq!(errors, [None, Some(expected)]);
    }
}

#[test]
fn arguments_are_checked_before_anything_is_sent() {
    communicators(2, PATIENCE, |comm| {
        let data = put(comm.backend(), DType::F32, &[0; 16]);
        let argument =
            |result: Result<()>| matches!(result, Err(Error::Argument { .. } | Error::Shape { .. }));
        let stranger = Group::new(GroupKind::Data, [1 - comm.rank(), 2]);
        assert!(argument(comm.all_reduce(&stranger, ReduceOp::Sum, data.view())));
        assert!(argument(comm.barrier(&Group::new(GroupKind::Data, [1 - comm.rank()]))));
        assert!(argument(comm.broadcast(&world(2), 2, data.view())));
        assert!(argument(comm.reduce_scatter(&world(2), data.view(), data.view())));
        assert!(argument(comm.all_gather(&world(2), data.view(), data.view())));
        assert!(argument(comm.send(2, Lane::Forward, data.view())));
        assert!(argument(comm.recv(2, Lane::Forward, data.view())));
        // And nobody is out of step.
        sum(&comm, &world(2), 10).unwrap();
    });
}

#[test]
fn sending_never_waits_for_the_receiver() {
    // More than the sockets hold, both ways, before anybody receives.
    let message = Arc::new(vec![1; 32 << 20]);
    ranks(2, PATIENCE, |transport| {
        let transport = transport.unwrap();
        let peer = 1 - transport.rank();
        let nothing = transport.recv(peer, Channel::Second(Track::Main), Duration::from_millis(10));
        assert_eq!(nothing, Err(Interrupted::Silence));
        let start = Instant::now();
        for _ in 0..4 {
            transport.send(peer, Channel::First(Track::Main), Arc::clone(&message)).unwrap();
        }
        assert!(start.elapsed() < Duration::from_secs(1), "{:?}", start.elapsed());
        for _ in 0..4 {
            assert!(transport.recv(peer, Channel::First(Track::Main), PATIENCE).unwrap() == *message);
        }
    });
}

/// Rank 0 as it should be, and one caller; both results.
fn two(caller: impl FnOnce(Launch) -> Result<TcpTransport> + Send, timeout: Duration) -> [Result<()>; 2] {
    let (listener, port) = listener();
    std::thread::scope(|scope| {
        let caller = scope.spawn(move || caller(launch(1, 2, port)).map(drop));
        let host = TcpTransport::host(&listener, &launch(0, 2, port), "a run", timeout).map(drop);
        [host, caller.join().unwrap()]
    })
}

#[test]
fn ranks_of_different_runs_do_not_connect() {
    let wrong_world =
        |launch: Launch| TcpTransport::connect(&Launch { world_size: 3, ..launch }, "a run", PATIENCE);
    let wrong_run = |launch: Launch| TcpTransport::connect(&launch, "another run", PATIENCE);
    let results = [
        (two(wrong_world, PATIENCE), "a world of 2 ranks", "a world of 3 ranks"),
        (two(wrong_run, PATIENCE), "run \"a run\"", "run \"another run\""),
    ];
    for (errors, host, caller) in results {
        for (rank, error) in errors.into_iter().enumerate() {
            let Err(Error::Mismatch { op: "connect", rank: here, mine, peer, theirs, .. }) = error else {
                panic!("{error:?}");
            };
            let (mine_is, theirs_is) = if rank == 0 { (host, caller) } else { (caller, host) };
            assert!((here, peer) == (rank, 1 - rank) && mine.contains(mine_is) && theirs.contains(theirs_is));
        }
    }
}

#[test]
fn a_rank_that_does_not_come_is_named() {
    let timeout = Duration::from_millis(1200);
    let (listener, port) = listener();
    let errors = std::thread::scope(|scope| {
        let one =
            scope.spawn(move || TcpTransport::connect(&launch(1, 4, port), "a run", PATIENCE).map(drop));
        let zero = TcpTransport::host(&listener, &launch(0, 4, port), "a run", timeout).map(drop);
        [zero, one.join().unwrap()].map(Result::unwrap_err)
    });
    let missing = Error::Timeout { op: "connect", group: "world", rank: 0, missing: vec![2, 3], seconds: 1 };
    assert_eq!(errors[0], missing);
    let Error::PeerFailed { peer: 0, cause, .. } = &errors[1] else { panic!("{}", errors[1]) };
    assert_eq!(*cause, missing.to_string());
    // Nobody at all: the listener is gone.
    drop(listener);
    let error = TcpTransport::connect(&launch(1, 4, port), "a run", timeout).map(drop).unwrap_err();
    let expected = Error::Timeout { op: "connect", group: "world", rank: 1, missing: vec![0], seconds: 1 };
    assert_eq!(error, expected);
}

#[test]
fn strangers_are_turned_away() {
    // Rank 0 is called by something else first, and by somebody who says nothing.
    let caller = |launch: Launch| {
        let address = ("127.0.0.1", launch.master_port);
        let mut stranger = TcpStream::connect(address).unwrap();
        stranger.write_all(b"GET / HTTP/1.1\r\n\r\n").unwrap();
        let _silent = TcpStream::connect(address).unwrap();
        TcpTransport::connect(&launch, "a run", PATIENCE)
    };
    assert_eq!(two(caller, PATIENCE), [Ok(()), Ok(())]);
    // A rank finds another program at rank 0's port.
    let (listener, port) = listener();
    let server = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        stream.write_all(b"SSH-2.0-OpenSSH_9.9\r\n").unwrap();
        // Open until the caller has read it.
        let _ = std::io::copy(&mut stream, &mut std::io::sink());
    });
    let error = TcpTransport::connect(&launch(1, 2, port), "a run", PATIENCE).map(drop).unwrap_err();
    server.join().unwrap();
    let Error::Argument { name: "MASTER_PORT", value, .. } = &error else { panic!("{error}") };
    assert!(value.contains("another program"), "{error}");
    // Rank 0 cannot listen.
    let (_taken, port) = self::listener();
    let error = TcpTransport::connect(&launch(0, 2, port), "a run", PATIENCE).map(drop).unwrap_err();
    let Error::Argument { name: "MASTER_PORT", value, .. } = &error else { panic!("{error}") };
    assert!(value.contains(&port.to_string()), "{error}");
}

/// What a child of the next test does: sums without end. It says where it listens, that it is under way, and how it ended.
fn child() {
    let mut launch = Launch::from_environment().unwrap().unwrap();
    let timeout = Duration::from_secs(30);
    let transport = match launch.rank {
        0 => {
            let (listener, port) = listener();
            launch.master_port = port;
            println!("\nport {port}");
            TcpTransport::host(&listener, &launch, "a run", timeout)
        }
        _ => TcpTransport::connect(&launch, "a run", timeout),
    };
    let comm = ProcessCommunicator::new(transport.unwrap(), CpuBackend::new(1), timeout);
    let group = world(launch.world_size);
    for step in 0.. {
        if let Err(error) = sum(&comm, &group, 50_000) {
            comm.fail(&error.to_string());
            println!("\nended {error}");
            return;
        }
        if step == 20 {
            println!("\nunder way");
        }
    }
}

/// The rest of the first line that begins so.
fn line(output: &mut impl BufRead, begin: &str) -> String {
    let mut lines = output.lines().map(|line| line.unwrap());
    lines.find_map(|line| line.strip_prefix(begin).map(str::to_owned)).expect(begin)
}

#[test]
fn a_process_that_is_killed_is_named_by_all() {
    const NAME: &str = "a_process_that_is_killed_is_named_by_all";
    if std::env::var_os("MTNLG_TEST_CHILD").is_some() {
        return child();
    }
    let start = |rank: usize, port: &str| -> Child {
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.args([NAME, "--exact", "--nocapture"]).stdout(Stdio::piped());
        command.env("MTNLG_TEST_CHILD", "1").env("RANK", rank.to_string()).env("WORLD_SIZE", "4");
        command.env("LOCAL_RANK", rank.to_string()).env("MASTER_ADDR", "127.0.0.1").env("MASTER_PORT", port);
        command.env_remove("TORCHELASTIC_USE_AGENT_STORE");
        command.spawn().unwrap()
    };
    let output = |child: &mut Child| BufReader::new(child.stdout.take().unwrap());
    let mut children = vec![start(0, "1")];
    let mut outputs = vec![output(&mut children[0])];
    let port = line(&mut outputs[0], "port ");
    for rank in 1..4 {
        children.push(start(rank, &port));
        outputs.push(output(&mut children[rank]));
    }
    for output in &mut outputs {
        line(output, "under way");
    }
    children[2].kill().unwrap();
    let killed = Instant::now();
    for rank in [0, 1, 3] {
        let error = line(&mut outputs[rank], "ended ");
        assert!(error.contains("rank 2 failed: its connection"), "rank {rank}: {error}");
    }
    // Long before any timeout: the end of the connection is what tells.
    assert!(killed.elapsed() < Duration::from_secs(15), "{:?}", killed.elapsed());
    for mut child in children {
        child.wait().unwrap();
    }
}
