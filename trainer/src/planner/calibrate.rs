//! A cluster from what was measured on a machine: `mtnlg bench ops --json` gives the seconds of each operation at two sizes, and a line through both gives
//! what a call and what a FLOP or a byte takes.

use std::collections::BTreeMap;
use std::path::Path;

use backend_sim::Cluster;
use backend_sim::cluster::Rate;
use serde::{Deserialize, Serialize};

use crate::{Error, Result};

/// One measurement of an operation.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Sample {
    /// The operation.
    pub op: String,
    /// Its FLOPs, if it is a product.
    pub flops: f64,
    /// Bytes that it reads and writes.
    pub bytes: f64,
    /// Median seconds of a call.
    pub seconds: f64,
}

/// What `mtnlg bench ops --json` writes.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Measured {
    /// The backend and its device.
    pub backend: String,
    /// Tensor x pipeline x data.
    pub layout: String,
    /// Median seconds of a step, its operations timed.
    pub step_seconds: f64,
    /// Median seconds of each rank in a step by the clock that operations are timed by: on the CPU, the thread's time on a processor.
    pub busy_seconds: Vec<f64>,
    /// Every measurement.
    pub samples: Vec<Sample>,
}

/// The rates of the operations that were measured.
pub fn rates(measured: &Measured) -> BTreeMap<String, Rate> {
    let mut by_op: BTreeMap<&str, Vec<&Sample>> = BTreeMap::new();
    measured.samples.iter().for_each(|sample| by_op.entry(&sample.op).or_default().push(sample));
    let rate = |(op, samples): (&str, Vec<&Sample>)| {
        let product = samples.iter().all(|sample| sample.flops > 0.0);
        let size = |sample: &Sample| if product { sample.flops } else { sample.bytes };
        let (call, slope) = line(&samples.iter().map(|s| (size(s), s.seconds)).collect::<Vec<_>>());
        let (per_flop, per_byte) = if product { (slope, 0.0) } else { (0.0, slope) };
        (op.to_owned(), Rate { call, per_flop, per_byte })
    };
    by_op.into_iter().map(rate).collect()
}

/// The line of least relative squares through the points, neither of its parts below 0.
fn line(points: &[(f64, f64)]) -> (f64, f64) {
    // Weights 1/y^2: a microsecond's error counts as much in a short call as a millisecond's in a long one.
    let sum = |f: &dyn Fn(f64, f64) -> f64| points.iter().map(|&(x, y)| f(x, y) / (y * y)).sum::<f64>();
    let (s, sx, sxx) = (sum(&|_, _| 1.0), sum(&|x, _| x), sum(&|x, _| x * x));
    let (sy, sxy) = (sum(&|_, y| y), sum(&|x, y| x * y));
    let determinant = s * sxx - sx * sx;
    let (intercept, slope) = match determinant > 1e-12 * s * sxx {
        true => ((sy * sxx - sx * sxy) / determinant, (s * sxy - sx * sy) / determinant),
        false => (0.0, sxy / sxx),
    };
    match (intercept < 0.0, slope < 0.0) {
        (true, _) => (0.0, sxy / sxx),
        (_, true) => (sy / s, 0.0),
        _ => (intercept, slope),
    }
}

/// `cluster` with the measured rates of `file`, as TOML.
///
/// # Errors
/// A file that is not what the benchmark writes; a cluster that is not there.
pub fn cluster(file: &Path, cluster: &str) -> Result<String> {
    let text =
        std::fs::read_to_string(file).map_err(|error| Error::io("read the measurements", file, &error))?;
    let measured: Measured = serde_json::from_str(&text).map_err(|error| {
        Error::user(format!("not measurements: {error}"))
            .at(file.display().to_string())
            .remedy("give what `mtnlg bench ops --json` wrote")
    })?;
    let cluster = Cluster::load(cluster).map_err(|error| Error::user(error.to_string()).at("--cluster"))?;
    toml::to_string(&calibrated(cluster, &measured))
        .map_err(|error| Error::other(format!("no TOML: {error}")))
}

/// The cluster with the measured rates.
pub fn calibrated(cluster: Cluster, measured: &Measured) -> Cluster {
    let mut sources = cluster.sources.clone();
    sources.push(format!("measured: mtnlg bench ops on {}", measured.backend));
    Cluster { sources, measured: rates(measured), ..cluster }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_found_again_and_never_falls() {
        let on = |call: f64, slope: f64| [10.0, 200.0, 3000.0].map(|x| (x, call + slope * x));
        let (call, slope) = line(&on(0.5, 0.25));
        assert!((call - 0.5).abs() < 1e-9 && (slope - 0.25).abs() < 1e-9, "{call} {slope}");
        let (call, slope) = line(&[(1.0, 0.1), (2.0, 1.0)]);
        assert!(call == 0.0 && slope > 0.0);
        assert_eq!(line(&[(5.0, 2.0)]), (0.0, 0.4));
    }
}
