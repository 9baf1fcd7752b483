//! What the launcher says of this process: its rank, and where the ranks meet.

use std::collections::HashMap;

use crate::{Error, Result};

/// Environment variables by name.
type Variables = HashMap<String, String>;

/// torchrun's default, unless `MASTER_PORT` says otherwise.
const DEFAULT_PORT: u16 = 29500;

/// One process's place in the world. `MASTER_ADDR` and `MASTER_PORT` hold whatever the launcher is; the rest is the launcher's own:
///
/// | launcher | rank | world size | local rank | address, unless `MASTER_ADDR` is set |
/// |---|---|---|---|---|
/// | torchrun, by hand | `RANK` | `WORLD_SIZE` | `LOCAL_RANK` | 127.0.0.1 |
/// | Open MPI | `OMPI_COMM_WORLD_RANK` | `OMPI_COMM_WORLD_SIZE` | `OMPI_COMM_WORLD_LOCAL_RANK` | 127.0.0.1 if all ranks are local |
/// | MPICH, Intel MPI | `PMI_RANK` | `PMI_SIZE` | `MPI_LOCALRANKID` | 127.0.0.1 if all ranks are local |
/// | Slurm's srun | `SLURM_PROCID` | `SLURM_STEP_NUM_TASKS`, `SLURM_NTASKS` | `SLURM_LOCALID` | first of `SLURM_STEP_NODELIST` |
///
/// The first launcher in this order whose variables are there counts: torchrun started by srun or mpirun is torchrun.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Launch {
    /// The launcher, by name.
    pub launcher: &'static str,
    /// This process's rank.
    pub rank: usize,
    /// Number of processes.
    pub world_size: usize,
    /// Its place among the processes of its host: which device to take.
    pub local_rank: usize,
    /// Rank 0's host, as the others reach it.
    pub master_address: String,
    /// The port on which rank 0 waits for the others.
    pub master_port: u16,
}

/// A launcher's variables, by name.
struct Names {
    launcher: &'static str,
    rank: &'static str,
    world: &'static str,
    local_rank: &'static str,
    /// Number of ranks on this host; tells whether there are other hosts.
    local_size: &'static str,
}

const TORCHRUN: Names = Names {
    launcher: "torchrun",
    rank: "RANK",
    world: "WORLD_SIZE",
    local_rank: "LOCAL_RANK",
    local_size: "LOCAL_WORLD_SIZE",
};
const OPEN_MPI: Names = Names {
    launcher: "Open MPI",
    rank: "OMPI_COMM_WORLD_RANK",
    world: "OMPI_COMM_WORLD_SIZE",
    local_rank: "OMPI_COMM_WORLD_LOCAL_RANK",
    local_size: "OMPI_COMM_WORLD_LOCAL_SIZE",
};
const PMI: Names = Names {
    launcher: "MPICH",
    rank: "PMI_RANK",
    world: "PMI_SIZE",
    local_rank: "MPI_LOCALRANKID",
    local_size: "MPI_LOCALNRANKS",
};

impl Launch {
    /// What the environment says; `None` if no launcher has started this process.
    ///
    /// # Errors
    /// [`Error::Argument`] with the variable for what is missing, unreadable or contradictory.
    pub fn from_environment() -> Result<Option<Self>> {
        let text = |(name, value): (std::ffi::OsString, std::ffi::OsString)| {
            Some((name.into_string().ok()?, value.to_string_lossy().into_owned()))
        };
        Self::from_variables(&std::env::vars_os().filter_map(text).collect())
    }

    /// What these variables say; `None` if they are no launcher's.
    ///
    /// # Errors
    /// As [`from_environment`](Self::from_environment).
    pub fn from_variables(variables: &Variables) -> Result<Option<Self>> {
        for names in [TORCHRUN, OPEN_MPI, PMI] {
            if let Some(launch) = Self::from_names(variables, &names)? {
                return Ok(Some(launch));
            }
        }
        Self::from_slurm(variables)
    }

    fn from_names(variables: &Variables, names: &Names) -> Result<Option<Self>> {
        let (rank, world_size) = match (number(variables, names.rank)?, number(variables, names.world)?) {
            (None, None) => return Ok(None),
            (Some(rank), Some(world_size)) => (rank, world_size),
            (rank, _) => {
                let name = if rank.is_some() { names.world } else { names.rank };
                let range = "set together with the other of rank and world size, or neither";
                return Err(wrong(name, "(not set)", range));
            }
        };
        check(names.rank, rank, names.world, world_size)?;
        let several_hosts = match number(variables, names.local_size)? {
            Some(local_size) => local_size < world_size,
            None => !variables.get("MASTER_ADDR").is_none_or(|address| is_loopback(address)),
        };
        let local_rank = match number(variables, names.local_rank)? {
            Some(local_rank) => local_rank,
            None if several_hosts => {
                let range = "set where the ranks are on several hosts: the rank's place among those of its host, from 0";
                return Err(wrong(names.local_rank, "(not set)", range));
            }
            None => rank,
        };
        check(names.local_rank, local_rank, names.world, world_size)?;
        let address = match (variables.get("MASTER_ADDR"), variables.get("SLURM_STEP_NODELIST")) {
            (Some(address), _) => address.clone(),
            (None, Some(hosts)) if several_hosts => first_host(hosts)?,
            (None, None) if several_hosts => {
                let range =
                    "set where the ranks are on several hosts: the host of rank 0, the same on every rank";
                return Err(wrong("MASTER_ADDR", "(not set)", range));
            }
            _ => "127.0.0.1".to_owned(),
        };
        let port = port(variables)?;
        Self::new(names.launcher, rank, world_size, local_rank, address, port).map(Some)
    }

    /// srun. The shell of an allocation (`salloc`, the script of `sbatch`) has `SLURM_PROCID` and `SLURM_NTASKS` as well, but is no step or one of a single
    /// task: a program started there runs alone.
    fn from_slurm(variables: &Variables) -> Result<Option<Self>> {
        let name = match variables.contains_key("SLURM_STEP_NUM_TASKS") {
            true => "SLURM_STEP_NUM_TASKS",
            false => "SLURM_NTASKS",
        };
        let Some(hosts) = variables.get("SLURM_STEP_NODELIST") else { return Ok(None) };
        let (Some(rank), Some(world_size)) = (number(variables, "SLURM_PROCID")?, number(variables, name)?)
        else {
            return Ok(None);
        };
        if world_size <= 1 {
            return Ok(None);
        }
        check("SLURM_PROCID", rank, name, world_size)?;
        let local_rank = number(variables, "SLURM_LOCALID")?
            .ok_or_else(|| wrong("SLURM_LOCALID", "(not set)", "set by srun beside SLURM_PROCID"))?;
        check("SLURM_LOCALID", local_rank, name, world_size)?;
        let address = variables.get("MASTER_ADDR").cloned().map_or_else(|| first_host(hosts), Ok)?;
        let port = port(variables)?;
        Self::new("Slurm", rank, world_size, local_rank, address, port).map(Some)
    }

    fn new(
        launcher: &'static str,
        rank: usize,
        world_size: usize,
        local_rank: usize,
        address: String,
        port: u16,
    ) -> Result<Self> {
        if address.trim().is_empty() {
            return Err(wrong("MASTER_ADDR", "(empty)", "the name or address of rank 0's host"));
        }
        let master_address = address.trim().to_owned();
        Ok(Self { launcher, rank, world_size, local_rank, master_address, master_port: port })
    }
}

/// Whether that is this host's name for itself, which nobody else can reach.
pub(super) fn is_loopback(address: &str) -> bool {
    address == "localhost" || address.parse().is_ok_and(|ip: std::net::IpAddr| ip.is_loopback())
}

fn wrong(name: &'static str, value: impl Into<String>, range: &'static str) -> Error {
    Error::Argument { op: "launch", name, value: value.into(), range }
}

fn number(variables: &Variables, name: &'static str) -> Result<Option<usize>> {
    let parse =
        |text: &String| text.trim().parse().map_err(|_| wrong(name, text, "a whole number, 0 or more"));
    variables.get(name).map(parse).transpose()
}

/// A rank is below the number of ranks.
fn check(rank_name: &'static str, rank: usize, world_name: &'static str, world_size: usize) -> Result<()> {
    match (rank < world_size, world_size) {
        (_, 0) => Err(wrong(world_name, "0", "the number of ranks, 1 or more")),
        (true, _) => Ok(()),
        (false, _) => {
            let value = format!("{rank} ({world_name} = {world_size})");
            Err(wrong(rank_name, value, "below the number of ranks, which count from 0"))
        }
    }
}

/// `MASTER_PORT`, or the one after it where torchrun's own agent listens on that one.
fn port(variables: &Variables) -> Result<u16> {
    let range = "a port, 1 to 65534";
    let port = match variables.get("MASTER_PORT") {
        None => DEFAULT_PORT,
        Some(text) => text.trim().parse().map_err(|_| wrong("MASTER_PORT", text, range))?,
    };
    if port == 0 || port == u16::MAX {
        return Err(wrong("MASTER_PORT", port.to_string(), range));
    }
    let taken = variables.get("TORCHELASTIC_USE_AGENT_STORE").is_some_and(|text| text == "True");
    Ok(port + u16::from(taken))
}

/// The first host of a Slurm list: `node[03-07,9],login1` begins with `node03`.
fn first_host(list: &str) -> Result<String> {
    let broken = || wrong("SLURM_STEP_NODELIST", list, "a list of hosts such as node[03-07,9],other1");
    let (mut host, mut rest) = (String::new(), list.trim());
    while let Some(at) = rest.find(['[', ']', ',']) {
        host.push_str(&rest[..at]);
        match rest.as_bytes()[at] {
            b'[' => {
                let (inside, after) = rest[at + 1..].split_once(']').ok_or_else(broken)?;
                let first = inside.split([',', '-']).next().unwrap_or_default();
                if first.is_empty() {
                    return Err(broken());
                }
                host.push_str(first);
                rest = after;
            }
            b',' => {
                rest = "";
            }
            _ => return Err(broken()),
        }
    }
    host.push_str(rest);
    if host.is_empty() { Err(broken()) } else { Ok(host) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn launch(pairs: &[(&str, &str)]) -> Result<Option<Launch>> {
        let own = |&(name, value): &(&str, &str)| (name.to_owned(), value.to_owned());
        Launch::from_variables(&pairs.iter().map(own).collect())
    }

    /// The launch as `launcher rank/world local address:port`.
    fn text(pairs: &[(&str, &str)]) -> String {
        let x = launch(pairs).unwrap().unwrap();
        let Launch { launcher, rank, world_size, local_rank, master_address, master_port } = x;
        format!("{launcher} {rank}/{world_size} {local_rank} {master_address}:{master_port}")
    }

    /// The variable that the error is about.
    fn fault(pairs: &[(&str, &str)]) -> &'static str {
        match launch(pairs) {
            Err(Error::Argument { name, .. }) => name,
            other => panic!("{other:?} for {pairs:?}"),
        }
    }

    #[test]
    fn no_launcher() {
        assert_eq!(launch(&[]), Ok(None));
        assert_eq!(launch(&[("MASTER_ADDR", "node1"), ("LOCAL_RANK", "0")]), Ok(None));
    }

    #[test]
    fn torchrun() {
        let by_hand = [("RANK", "1"), ("WORLD_SIZE", "4")];
        assert_eq!(text(&by_hand), "torchrun 1/4 1 127.0.0.1:29500");
        let far = [("MASTER_ADDR", "node1"), ("MASTER_PORT", "4000"), ("LOCAL_RANK", "3")];
        assert_eq!(
            text(&[&[("RANK", "7"), ("WORLD_SIZE", "8")], &far[..]].concat()),
            "torchrun 7/8 3 node1:4000"
        );
        let agent = [("TORCHELASTIC_USE_AGENT_STORE", "True"), ("MASTER_PORT", "4000")];
        assert_eq!(text(&[&by_hand, &agent[..]].concat()), "torchrun 1/4 1 127.0.0.1:4001");
        // One agent a node under srun: the agents' ranks are not the processes'.
        let slurm = [
            ("SLURM_PROCID", "0"),
            ("SLURM_NTASKS", "2"),
            ("SLURM_STEP_NODELIST", "a[1-2]"),
            ("SLURM_LOCALID", "0"),
        ];
        assert_eq!(text(&[&by_hand, &slurm[..]].concat()), "torchrun 1/4 1 127.0.0.1:29500");
    }

    #[test]
    fn open_mpi_and_mpich() {
        let ompi = [
            ("OMPI_COMM_WORLD_RANK", "2"),
            ("OMPI_COMM_WORLD_SIZE", "4"),
            ("OMPI_COMM_WORLD_LOCAL_RANK", "0"),
        ];
        let with = |more: &[(&'static str, &'static str)]| [&ompi, more].concat();
        assert_eq!(text(&with(&[("OMPI_COMM_WORLD_LOCAL_SIZE", "4")])), "Open MPI 2/4 0 127.0.0.1:29500");
        assert_eq!(fault(&with(&[("OMPI_COMM_WORLD_LOCAL_SIZE", "2")])), "MASTER_ADDR");
        let far = [("OMPI_COMM_WORLD_LOCAL_SIZE", "2"), ("MASTER_ADDR", "head")];
        assert_eq!(text(&with(&far)), "Open MPI 2/4 0 head:29500");
        let slurm = [("OMPI_COMM_WORLD_LOCAL_SIZE", "2"), ("SLURM_STEP_NODELIST", "rack3n[08-09]")];
        assert_eq!(text(&with(&slurm)), "Open MPI 2/4 0 rack3n08:29500");
        let pmi = [("PMI_RANK", "1"), ("PMI_SIZE", "2"), ("MPI_LOCALRANKID", "1"), ("MPI_LOCALNRANKS", "2")];
        assert_eq!(text(&pmi), "MPICH 1/2 1 127.0.0.1:29500");
    }

    #[test]
    fn slurm() {
        let step = [
            ("SLURM_PROCID", "5"),
            ("SLURM_NTASKS", "8"),
            ("SLURM_LOCALID", "1"),
            ("SLURM_STEP_NODELIST", "node[03-07,9]"),
        ];
        assert_eq!(text(&step), "Slurm 5/8 1 node03:29500");
        assert_eq!(text(&[&step, &[("MASTER_ADDR", "ib0")][..]].concat()), "Slurm 5/8 1 ib0:29500");
        assert_eq!(fault(&[&step[..2], &step[3..]].concat()), "SLURM_LOCALID");
        // The shell of an allocation, with and without a step of its own.
        assert_eq!(launch(&step[..3]), Ok(None));
        assert_eq!(launch(&[&step[..], &[("SLURM_STEP_NUM_TASKS", "1")]].concat()), Ok(None));
        assert_eq!(launch(&[("SLURM_NTASKS", "8")]), Ok(None));
    }

    #[test]
    fn half_set_or_contradictory() {
        assert_eq!(fault(&[("RANK", "0")]), "WORLD_SIZE");
        assert_eq!(fault(&[("WORLD_SIZE", "2")]), "RANK");
        assert_eq!(fault(&[("RANK", "2"), ("WORLD_SIZE", "2")]), "RANK");
        assert_eq!(fault(&[("RANK", "0"), ("WORLD_SIZE", "0")]), "WORLD_SIZE");
        assert_eq!(fault(&[("RANK", "one"), ("WORLD_SIZE", "2")]), "RANK");
        assert_eq!(fault(&[("RANK", "-1"), ("WORLD_SIZE", "2")]), "RANK");
        let two = [("RANK", "0"), ("WORLD_SIZE", "2")];
        let with = |more: (&'static str, &'static str)| [&two[..], &[more]].concat();
        assert_eq!(fault(&with(("LOCAL_RANK", "2"))), "LOCAL_RANK");
        assert_eq!(fault(&with(("MASTER_PORT", "http"))), "MASTER_PORT");
        assert_eq!(fault(&with(("MASTER_PORT", "0"))), "MASTER_PORT");
        assert_eq!(fault(&with(("MASTER_ADDR", "node1"))), "LOCAL_RANK");
        assert_eq!(fault(&[&with(("MASTER_ADDR", " "))[..], &[("LOCAL_RANK", "0")]].concat()), "MASTER_ADDR");
        let error = launch(&[("RANK", "2"), ("WORLD_SIZE", "2")]).unwrap_err().to_string();
        assert!(error.contains("RANK = 2 (WORLD_SIZE = 2)"), "{error}");
    }

    #[test]
    fn host_lists() {
        let first = |list| first_host(list).unwrap();
        assert_eq!(first("node1"), "node1");
        assert_eq!(first("node1,node2"), "node1");
        assert_eq!(first("node[03-07,9]"), "node03");
        assert_eq!(first("node[9,03-07],other"), "node9");
        assert_eq!(first("rack[1-2]-node[08-16]"), "rack1-node08");
        assert_eq!(first("a[7].cluster,b"), "a7.cluster");
        for broken in ["", "node[03", "node[]", "node]", ",node1"] {
            assert!(first_host(broken).is_err(), "{broken:?}");
        }
    }
}
