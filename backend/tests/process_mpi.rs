//! The MPI transport under a real `mpirun`: each test starts itself again as several ranks.
#![cfg(feature = "mpi")]
#![allow(clippy::unwrap_used, reason = "a failure here is the test's")]

use std::process::{Command, Output};
use std::sync::Arc;
use std::time::{Duration, Instant};

use backend::Lane;
use backend::process::{Channel, Interrupted, MpiTransport, Track, Transport};

const PATIENCE: Duration = Duration::from_secs(60);

/// Whether this is a rank, started by [`ranks`].
fn is_rank() -> bool {
    std::env::var_os("MTNLG_TEST_CHILD").is_some()
}

/// Runs the test of that name as so many ranks, and waits.
fn ranks(test: &str, count: usize) -> Output {
    let mut mpirun = Command::new("mpirun");
    // Open MPI refuses root, and more ranks than cores, unless told otherwise.
    for allow in [
        "OMPI_ALLOW_RUN_AS_ROOT",
        "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM",
        "OMPI_MCA_rmaps_base_oversubscribe",
        "MTNLG_TEST_CHILD",
    ] {
        mpirun.env(allow, "1");
    }
    mpirun.env("PRTE_MCA_rmaps_default_mapping_policy", ":oversubscribe");
    mpirun.args(["-n", &count.to_string()]).arg(std::env::current_exe().unwrap());
    mpirun.args([test, "--exact", "--nocapture"]).output().unwrap()
}

fn text(output: &Output) -> String {
    String::from_utf8_lossy(&[&output.stdout[..], &output.stderr].concat()).into_owned()
}

/// Bytes that say who sent them, to whom, and which message it is.
fn message(from: usize, to: usize, number: usize, len: usize) -> Vec<u8> {
    (0..len).map(|i| (i / 7 + 31 * from + 17 * to + 5 * number) as u8).collect()
}

/// Every rank sends everybody, itself too, messages of all lengths on all channels before it receives any; the longest go in pieces.
#[test]
fn messages_of_all_lengths() {
    if !is_rank() {
        let output = ranks("messages_of_all_lengths", 4);
        assert!(output.status.success(), "{}", text(&output));
        assert_eq!(text(&output).matches("all messages came").count(), 4, "{}", text(&output));
        return;
    }
    let transport = MpiTransport::connect("a run", PATIENCE).unwrap();
    let (rank, world) = (transport.rank(), transport.world_size());
    assert_eq!(world, 4);
    let lengths = [0, 1, 1000, 100_000, 3_000_000, 32 << 20, 70_000_000];
    let channels = [Channel::First(Track::Main), Channel::Second(Track::Data), Channel::Lane(Lane::Forward)];
    let start = Instant::now();
    for (number, len) in lengths.into_iter().enumerate() {
        for to in 0..world {
            // The longest from one rank to one, to spare memory.
            if len > 10_000_000 && (rank, to) != (number % world, 0) {
                continue;
            }
            for channel in channels {
                transport.send(to, channel, Arc::new(message(rank, to, number, len))).unwrap();
            }
        }
    }
    println!("sent after {:?}", start.elapsed());
    for from in 0..world {
        // Channels do not wait for each other.
        for channel in channels.into_iter().rev() {
            for (number, len) in lengths.into_iter().enumerate() {
                if len > 10_000_000 && (from, rank) != (number % world, 0) {
                    continue;
                }
                let got = transport.recv(from, channel, PATIENCE).unwrap();
                assert!(got == message(from, rank, number, len), "{len} bytes from {from} to {rank}");
            }
        }
    }
    let nothing =
        transport.recv((rank + 1) % world, Channel::Lane(Lane::Backward), Duration::from_millis(50));
    assert_eq!(nothing, Err(Interrupted::Silence));
    // All are here before anybody leaves.
    for other in (0..world).filter(|&other| other != rank) {
        transport.send(other, Channel::First(Track::Main), Arc::new(vec![])).unwrap();
    }
    for other in (0..world).filter(|&other| other != rank) {
        transport.recv(other, Channel::First(Track::Main), PATIENCE).unwrap();
    }
    println!("rank {rank}: all messages came");
}

#[test]
fn a_rank_that_fails_stops_all() {
    if !is_rank() {
        let start = Instant::now();
        let output = ranks("a_rank_that_fails_stops_all", 4);
        let text = text(&output);
        for rank in 0..4 {
            assert!(text.contains(&format!("rank {rank} heard of rank 2: the disk is full")), "{text}");
        }
        assert!(start.elapsed() < PATIENCE / 2, "{:?}", start.elapsed());
        return;
    }
    let transport = MpiTransport::connect("a run", PATIENCE).unwrap();
    let rank = transport.rank();
    if rank == 2 {
        transport.fail("the disk is full");
    }
    let result = transport.recv((rank + 1) % 4, Channel::First(Track::Main), PATIENCE);
    let Err(Interrupted::Failed { rank: peer, cause }) = result else { panic!("{result:?}") };
    transport.fail("because of rank 2");
    assert_eq!(transport.failure(), Some((2, "the disk is full".to_owned())));
    println!("\nrank {rank} heard of rank {peer}: {cause}");
}

#[test]
fn ranks_of_different_runs_do_not_connect() {
    if !is_rank() {
        let output = ranks("ranks_of_different_runs_do_not_connect", 3);
        let text = text(&output);
        assert!(
            text.contains("run \"run 0\", rank 1 run \"run 1\"")
                || text.contains("run \"run 1\", rank 0 run \"run 0\""),
            "{text}"
        );
        return;
    }
    let rank: usize = ["OMPI_COMM_WORLD_RANK", "PMI_RANK"]
        .iter()
        .find_map(|name| std::env::var(name).ok()?.parse().ok())
        .unwrap();
    let error = MpiTransport::connect(&format!("run {rank}"), PATIENCE).map(drop).unwrap_err();
    println!("\n{error}");
}
