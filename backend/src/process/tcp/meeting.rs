//! How processes that know one address find each other: all call rank 0, which answers with everybody's address; then each calls those below it.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream, ToSocketAddrs};
use std::ops::Range;
use std::thread::sleep;
use std::time::{Duration, Instant};

use super::hello::{Answer, Hello};
use crate::process::Launch;
use crate::process::environment::is_loopback;
use crate::{Error, Result};

const OP: &str = "connect";
const GROUP: &str = "world";

/// How long somebody who has called may take to say who it is. A rank says it at once, and calls again if it was too slow.
const INTRODUCTION: Duration = Duration::from_secs(5);

/// Between two looks at something that cannot be waited for.
const PAUSE: Duration = Duration::from_millis(5);

/// One rank at the meeting.
pub(super) struct Meeting<'a> {
    pub(super) launch: &'a Launch,
    pub(super) identity: &'a str,
    pub(super) timeout: Duration,
    pub(super) deadline: Instant,
}

/// A rank that has called.
struct Caller {
    rank: usize,
    stream: TcpStream,
    /// Where it waits for those above it.
    port: u16,
}

/// The connections to all other ranks, by rank.
pub(super) type Connections = Vec<Option<TcpStream>>;

impl Meeting<'_> {
    /// Rank 0's part, on a listener at the launch's address.
    pub(super) fn host(&self, listener: &TcpListener) -> Result<Connections> {
        let mut callers = Vec::new();
        let result = self.receive(listener, 1..self.launch.world_size, &mut callers);
        let answer = match &result {
            Ok(()) => Answer::Welcome(self.table(&mut callers)?),
            Err(Error::Mismatch { peer, .. }) => Answer::Failed(*peer, said(&result)),
            Err(_) => Answer::Failed(0, said(&result)),
        };
        for caller in &mut callers {
            // One who is gone meanwhile is found out by everybody, when they read from it.
            let _ = answer.write(&mut caller.stream);
        }
        result?;
        Ok(self.connections(callers, Vec::new()))
    }

    /// Everybody else's part.
    pub(super) fn join(&self) -> Result<Connections> {
        let Launch { rank, world_size, .. } = *self.launch;
        let listener = bind(self.launch, 0).map_err(|error| self.local_fault("listen on", &error))?;
        let port = listener.local_addr().map_err(|error| self.local_fault("listen on", &error))?.port();
        let (first, table) = self.call_host(&Hello::new(world_size, rank, port, self.identity))?;
        let addresses: Vec<SocketAddr> = table.lines().filter_map(|line| line.parse().ok()).collect();
        if addresses.len() + 1 != world_size {
            return Err(self.peer_failed(0, format!("its table of addresses is {table:?}")));
        }
        let mut below = vec![first];
        for (peer, address) in (1..rank).zip(addresses) {
            let mut stream = self.dial(&[address], peer)?;
            let hello = Hello::new(world_size, rank, port, self.identity);
            hello.write(&mut stream).map_err(|error| self.peer_failed(peer, error.to_string()))?;
            below.push(stream);
        }
        let mut above = Vec::new();
        self.receive(&listener, rank + 1..world_size, &mut above)?;
        Ok(self.connections(above, below))
    }

    /// The connections to the ranks below, from 0 on, and to those above.
    fn connections(&self, above: Vec<Caller>, below: Vec<TcpStream>) -> Connections {
        let mut connections: Connections = below.into_iter().map(Some).collect();
        connections.resize_with(self.launch.world_size, || None);
        for caller in above {
            connections[caller.rank] = Some(caller.stream);
        }
        connections
    }

    /// Waits until each of these ranks has called once.
    fn receive(&self, listener: &TcpListener, ranks: Range<usize>, callers: &mut Vec<Caller>) -> Result<()> {
        listener.set_nonblocking(true).map_err(|error| self.local_fault("wait on", &error))?;
        let missing = |callers: &[Caller]| -> Vec<usize> {
            ranks.clone().filter(|rank| callers.iter().all(|caller| caller.rank != *rank)).collect()
        };
        while callers.len() < ranks.len() {
            match listener.accept() {
                Ok((stream, _)) => {
                    // Strangers, and ranks that were cut off, are let go; a rank calls again.
                    if let Ok((hello, stream)) = introduction(stream) {
                        self.admit(&hello, &stream, &ranks, callers)?;
                        callers.push(Caller { rank: hello.rank, stream, port: hello.port });
                    }
                }
                Err(_) if Instant::now() >= self.deadline => return Err(self.timed_out(missing(callers))),
                // What ends a call before it is answered is the caller's affair, too many open files may pass.
                Err(_) => sleep(PAUSE),
            }
        }
        Ok(())
    }

    /// Whether the caller belongs here; tells it otherwise.
    fn admit(
        &self,
        hello: &Hello,
        mut stream: &TcpStream,
        ranks: &Range<usize>,
        callers: &[Caller],
    ) -> Result<()> {
        let mine = Hello::new(self.launch.world_size, hello.rank, hello.port, self.identity);
        let theirs = match *hello == mine {
            false => hello.describe(),
            true if !ranks.contains(&hello.rank) => {
                format!("rank {}, which is none of {ranks:?}", hello.rank)
            }
            true if callers.iter().any(|caller| caller.rank == hello.rank) => {
                format!("rank {}, which is here already", hello.rank)
            }
            true => return Ok(()),
        };
        let _ = Answer::Refused(mine.describe()).write(&mut stream);
        Err(self.mismatch(mine.describe(), hello.rank, theirs))
    }

    /// Calls rank 0 until it answers.
    fn call_host(&self, hello: &Hello) -> Result<(TcpStream, String)> {
        let host = (self.launch.master_address.as_str(), self.launch.master_port);
        loop {
            let addresses = self.resolve(host)?;
            let mut stream = self.dial(&addresses, 0)?;
            let left = self.deadline.saturating_duration_since(Instant::now()).max(PAUSE);
            let answer = hello.write(&mut stream).and_then(|()| {
                stream.set_read_timeout(Some(left))?;
                let answer = Answer::read(&mut stream)?;
                stream.set_read_timeout(None)?;
                Ok(answer)
            });
            match answer {
                Ok(Answer::Welcome(table)) => return Ok((stream, table)),
                Ok(Answer::Refused(theirs)) => return Err(self.mismatch(hello.describe(), 0, theirs)),
                Ok(Answer::Failed(rank, cause)) => return Err(self.peer_failed(rank, cause)),
                Err(error) if error.kind() == io::ErrorKind::InvalidData => {
                    return Err(self.fault("MASTER_PORT", format!("{}:{} ({error})", host.0, host.1), FREE));
                }
                Err(_) if Instant::now() >= self.deadline => return Err(self.timed_out(vec![0])),
                Err(_) => sleep(PAUSE),
            }
        }
    }

    /// The addresses of rank 0's host. A name may take a while to become known where hosts are started together.
    fn resolve(&self, host: (&str, u16)) -> Result<Vec<SocketAddr>> {
        loop {
            match host.to_socket_addrs() {
                Ok(addresses) if addresses.len() > 0 => return Ok(addresses.collect()),
                result if Instant::now() >= self.deadline => {
                    let why = result.err().map_or_else(|| "no address".to_owned(), |error| error.to_string());
                    let range = "a name or address that leads to rank 0's host";
                    return Err(self.fault("MASTER_ADDR", format!("{} ({why})", host.0), range));
                }
                _ => sleep(20 * PAUSE),
            }
        }
    }

    /// Calls a rank at one of these addresses until somebody is there.
    fn dial(&self, addresses: &[SocketAddr], peer: usize) -> Result<TcpStream> {
        let mut pause = PAUSE;
        loop {
            for address in addresses {
                let left = self.deadline.saturating_duration_since(Instant::now());
                if left.is_zero() {
                    return Err(self.timed_out(vec![peer]));
                }
                match TcpStream::connect_timeout(address, left.min(INTRODUCTION)) {
                    // A port of this host's own range may be dialled to itself while nobody listens there.
                    Ok(stream) if stream.local_addr().ok() == stream.peer_addr().ok() => {}
                    Ok(stream) => return Ok(stream),
                    Err(_) => {}
                }
            }
            sleep(pause.min(self.deadline.saturating_duration_since(Instant::now())));
            pause = (pause * 2).min(50 * PAUSE);
        }
    }

    /// Where each rank but 0 waits: the address from which it called. One that called over the loopback is on this host, which the others reach by
    /// the address that they called.
    fn table(&self, callers: &mut [Caller]) -> Result<String> {
        callers.sort_by_key(|caller| caller.rank);
        let mut addresses = Vec::with_capacity(callers.len());
        let mut own = None;
        for caller in callers.iter() {
            let ends =
                caller.stream.peer_addr().and_then(|peer| Ok((peer.ip(), caller.stream.local_addr()?.ip())));
            let (ip, here) = ends.map_err(|error| self.peer_failed(caller.rank, error.to_string()))?;
            let (ip, here) = (ip.to_canonical(), here.to_canonical());
            if !ip.is_loopback() {
                own = Some(here);
            }
            addresses.push((ip, caller.port));
        }
        let reachable = |ip: IpAddr| own.filter(|_| ip.is_loopback()).unwrap_or(ip);
        let line = |(ip, port): (IpAddr, u16)| SocketAddr::new(reachable(ip), port).to_string() + "\n";
        Ok(addresses.into_iter().map(line).collect())
    }

    fn timed_out(&self, missing: Vec<usize>) -> Error {
        let (rank, seconds) = (self.launch.rank, self.timeout.as_secs());
        Error::Timeout { op: OP, group: GROUP, rank, missing, seconds }
    }

    fn mismatch(&self, mine: String, peer: usize, theirs: String) -> Error {
        Error::Mismatch { op: OP, group: GROUP, rank: self.launch.rank, mine, peer, theirs }
    }

    fn peer_failed(&self, peer: usize, cause: String) -> Error {
        Error::PeerFailed { op: OP, group: GROUP, rank: self.launch.rank, peer, cause }
    }

    fn fault(&self, name: &'static str, value: String, range: &'static str) -> Error {
        Error::Argument { op: OP, name, value, range }
    }

    fn local_fault(&self, what: &str, error: &io::Error) -> Error {
        self.fault(
            "port",
            format!("none (cannot {what} a port: {error})"),
            "one that this host may listen on",
        )
    }
}

const FREE: &str = "a port that is free on rank 0's host, the same on every rank; set another one";

/// The listener of rank 0.
pub(super) fn listen(launch: &Launch) -> Result<TcpListener> {
    bind(launch, launch.master_port).map_err(|error| {
        let value = format!("{} ({error})", launch.master_port);
        Error::Argument { op: OP, name: "MASTER_PORT", value, range: FREE }
    })
}

/// A listener of this host: for this host alone if the ranks meet on the loopback.
fn bind(launch: &Launch, port: u16) -> io::Result<TcpListener> {
    let address = launch.master_address.as_str();
    let v6 = address.parse().is_ok_and(|ip: IpAddr| ip.is_ipv6());
    let ip: IpAddr = match (is_loopback(address), v6) {
        (true, false) => Ipv4Addr::LOCALHOST.into(),
        (true, true) => Ipv6Addr::LOCALHOST.into(),
        (false, false) => Ipv4Addr::UNSPECIFIED.into(),
        (false, true) => Ipv6Addr::UNSPECIFIED.into(),
    };
    TcpListener::bind((ip, port))
}

/// Who has called.
fn introduction(mut stream: TcpStream) -> io::Result<(Hello, TcpStream)> {
    stream.set_nonblocking(false)?;
    stream.set_read_timeout(Some(INTRODUCTION))?;
    let hello = Hello::read(&mut stream)?;
    stream.set_read_timeout(None)?;
    Ok((hello, stream))
}

fn said(result: &Result<()>) -> String {
    result.as_ref().err().map(ToString::to_string).unwrap_or_default()
}
