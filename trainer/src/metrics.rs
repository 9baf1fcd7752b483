//! What a run measured: `metrics.jsonl`, one line a step (and the same for TensorBoard, see [`tensorboard`](crate::tensorboard)), and `summary.json` at the
//! end.
//!
//! Numbers are written so that they come back with the same bits. A number that is not finite is `null` in the file and NaN when read back.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Deserializer, Serialize};

use crate::tensorboard::EventLog;
use crate::{Error, Result};

/// The steps' file in a run directory.
pub const METRICS_FILE: &str = "metrics.jsonl";
/// The summary's file in a run directory.
pub const SUMMARY_FILE: &str = "summary.json";

/// One line of `metrics.jsonl`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct StepMetrics {
    /// Optimizer steps done, from 1.
    pub step: u64,
    /// Mean cross-entropy of the step's tokens, in nats.
    #[serde(deserialize_with = "number")]
    pub loss: f64,
    /// The step's learning rate.
    #[serde(deserialize_with = "number")]
    pub lr: f64,
    /// Global norm of the gradient, before clipping.
    #[serde(deserialize_with = "number")]
    pub grad_norm: f64,
    /// Tokens over the step's wall-clock seconds, all replicas together.
    #[serde(deserialize_with = "number")]
    pub tokens_per_second: f64,
    /// Mean cross-entropy on the validation split, in nats, where the step validated.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "some_number")]
    pub valid_loss: Option<f64>,
    /// What came of the tasks that the step's model was asked.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub evaluation: Vec<Evaluated>,
}

/// A metric of a task, as `mtnlg eval` has it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Evaluated {
    /// The task.
    pub task: String,
    /// Examples before each question.
    pub shots: usize,
    /// Documents.
    pub documents: usize,
    /// `acc`, `acc_norm`, `perplexity`, or `acc_` and a group.
    pub metric: String,
    /// An accuracy as a share of 1; a perplexity. None where it is no number.
    pub value: Option<f64>,
    /// Its standard error.
    pub stderr: Option<f64>,
}

/// `summary.json`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Summary {
    /// Mean cross-entropy of the last validation, in nats a token.
    #[serde(deserialize_with = "number")]
    pub final_valid_loss: f64,
    /// The same in bits a byte of the text: comparable between tokenizers.
    #[serde(deserialize_with = "number")]
    pub bits_per_byte: f64,
    /// Optimizer steps done.
    pub steps: u64,
    /// Tokens trained on.
    pub tokens: u64,
    /// Wall-clock seconds of training, over all sessions of the run.
    pub seconds: f64,
    /// The backend that ran it.
    pub backend: String,
    /// The layout, as [`crate::layout::Layout`] prints it.
    pub layout: String,
}

/// `null` is how JSON writes a number that is not finite.
fn number<'de, D: Deserializer<'de>>(deserializer: D) -> Result<f64, D::Error> {
    Ok(Option::<f64>::deserialize(deserializer)?.unwrap_or(f64::NAN))
}

fn some_number<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<f64>, D::Error> {
    number(deserializer).map(Some)
}

/// `metrics.jsonl`, open for appending, and TensorBoard's events beside it.
#[derive(Debug)]
pub struct MetricsLog {
    path: PathBuf,
    file: File,
    events: EventLog,
}

impl MetricsLog {
    /// Starts an empty log in a run directory, which is there.
    ///
    /// # Errors
    /// The file cannot be made.
    pub fn create(run_dir: &Path) -> Result<Self> {
        let path = run_dir.join(METRICS_FILE);
        let file = File::create(&path).map_err(|e| Error::io("create the metrics", &path, &e))?;
        Ok(Self { path, file, events: EventLog::create(run_dir)? })
    }

    /// Goes on with a log after `step`: lines of later steps, and a last one that was torn, are cut off. Also gives the lines that stay.
    ///
    /// # Errors
    /// The file cannot be read or cut, or a line before the last cannot be understood.
    pub fn resume(run_dir: &Path, step: u64) -> Result<(Self, Vec<StepMetrics>)> {
        let path = run_dir.join(METRICS_FILE);
        let text = match fs::read_to_string(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => String::new(),
            read => read.map_err(|e| Error::io("read the metrics", &path, &e))?,
        };
        let (lines, end) = parse(&text, step, &path)?;
        let mut file = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(false)
            .open(&path)
            .map_err(|e| Error::io("open the metrics", &path, &e))?;
        file.set_len(end as u64)
            .and_then(|()| file.seek(SeekFrom::End(0)))
            .map_err(|e| Error::io("cut the metrics", &path, &e))?;
        Ok((Self { path, file, events: EventLog::resume(run_dir, step)? }, lines))
    }

    /// Adds a line, in one write, so that what reads along never sees half of it, and an event.
    ///
    /// # Errors
    /// The line cannot be written.
    pub fn append(&mut self, metrics: &StepMetrics) -> Result<()> {
        let mut line = serde_json::to_string(metrics).expect("metrics have only JSON's types");
        line.push('\n');
        self.file.write_all(line.as_bytes()).map_err(|e| Error::io("write the metrics", &self.path, &e))?;
        self.events.append(metrics)
    }
}

/// Every line of a run's `metrics.jsonl`.
///
/// # Errors
/// The file cannot be read, or a line before the last cannot be understood.
pub fn read_metrics(run_dir: &Path) -> Result<Vec<StepMetrics>> {
    let path = run_dir.join(METRICS_FILE);
    let text = fs::read_to_string(&path).map_err(|e| Error::io("read the metrics", &path, &e))?;
    Ok(parse(&text, u64::MAX, &path)?.0)
}

/// The lines up to `step`, and the bytes that they take.
fn parse(text: &str, step: u64, path: &Path) -> Result<(Vec<StepMetrics>, usize)> {
    let mut lines: Vec<StepMetrics> = Vec::new();
    let mut end = 0;
    for (index, line) in text.split_inclusive('\n').enumerate() {
        // A run that was killed in the middle of a write leaves a last line without its end.
        if !line.ends_with('\n') {
            break;
        }
        let metrics: StepMetrics = serde_json::from_str(line).map_err(|error| {
            Error::user(format!("not a line of metrics: {error}"))
                .at(format!("{}:{}", path.display(), index + 1))
                .value(line.trim_end())
                .remedy("remove that line and all after it; a resumed run writes them again")
        })?;
        if metrics.step > step {
            break;
        }
        lines.push(metrics);
        end += line.len();
    }
    Ok((lines, end))
}

impl Summary {
    /// Writes `summary.json`: whole, or not at all.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn write(&self, run_dir: &Path) -> Result<()> {
        let mut text = serde_json::to_string_pretty(self).expect("a summary has only JSON's types");
        text.push('\n');
        replace(&run_dir.join(SUMMARY_FILE), text.as_bytes())
    }

    /// Reads a run's `summary.json`.
    ///
    /// # Errors
    /// The file cannot be read or understood.
    pub fn read(run_dir: &Path) -> Result<Self> {
        let path = run_dir.join(SUMMARY_FILE);
        let text = fs::read_to_string(&path).map_err(|e| Error::io("read the summary", &path, &e))?;
        serde_json::from_str(&text)
            .map_err(|e| Error::user(format!("not a summary: {e}")).at(path.display().to_string()))
    }
}

/// Writes a file of the run directory beside its place and renames it: a reader sees the old one or the new one.
///
/// # Errors
/// The file cannot be written; what was there before is left.
pub fn replace(path: &Path, bytes: &[u8]) -> Result<()> {
    let mut name = path.file_name().unwrap_or_default().to_os_string();
    name.push(".partial");
    let temporary = path.with_file_name(name);
    let written = File::create(&temporary)
        .and_then(|mut file| file.write_all(bytes).and_then(|()| file.sync_all()))
        .and_then(|()| fs::rename(&temporary, path));
    written.map_err(|error| {
        // The first error is the one to tell.
        let _ = fs::remove_file(&temporary);
        Error::io("write", path, &error)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn evaluated() -> Evaluated {
        Evaluated {
            task: "piqa".into(),
            shots: 1,
            documents: 7,
            metric: "acc".into(),
            value: Some(0.1 + 0.2),
            stderr: None,
        }
    }

    fn at(step: u64) -> StepMetrics {
        StepMetrics {
            step,
            loss: 1.0 / step as f64,
            lr: 5e-3,
            grad_norm: 0.1 + 0.2,
            tokens_per_second: 1e4,
            valid_loss: step.is_multiple_of(2).then_some(4.5),
            evaluation: if step.is_multiple_of(4) { vec![evaluated()] } else { vec![] },
        }
    }

    fn written(dir: &Path, steps: u64) {
        let mut log = MetricsLog::create(dir).unwrap();
        (1..=steps).for_each(|step| log.append(&at(step)).unwrap());
    }

    proptest! {
        #[test]
        fn numbers_keep_their_bits(loss in any::<f32>(), norm in any::<f64>()) {
            let dir = tempfile::tempdir().unwrap();
            let line = StepMetrics { loss: f64::from(loss), grad_norm: norm, ..at(2) };
            MetricsLog::create(dir.path()).unwrap().append(&line).unwrap();
            let read = &read_metrics(dir.path()).unwrap()[0];
            if loss.is_finite() {
                prop_assert_eq!((read.loss as f32).to_bits(), loss.to_bits());
            } else {
                prop_assert!(read.loss.is_nan());
            }
            if norm.is_finite() {
                prop_assert_eq!(read.grad_norm.to_bits(), norm.to_bits());
            }
        }
    }

    #[test]
    fn keys_are_the_documented_ones() {
        let line: serde_json::Value = serde_json::to_value(at(1)).unwrap();
        let keys: Vec<&str> = line.as_object().unwrap().keys().map(String::as_str).collect();
        let mut expected = ["step", "loss", "lr", "grad_norm", "tokens_per_second"];
        expected.sort_unstable();
        let mut keys = keys;
        keys.sort_unstable();
        assert_eq!(keys, expected);
        assert!(serde_json::to_value(at(2)).unwrap().get("valid_loss").is_some());
        assert_eq!(serde_json::to_value(at(4)).unwrap()["evaluation"][0]["task"], "piqa");
    }

    #[test]
    fn resuming_cuts_what_came_after() {
        let dir = tempfile::tempdir().unwrap();
        written(dir.path(), 10);
        let whole = fs::read(dir.path().join(METRICS_FILE)).unwrap();
        let (mut log, lines) = MetricsLog::resume(dir.path(), 4).unwrap();
        assert_eq!(lines, (1..=4).map(at).collect::<Vec<_>>());
        (5..=10).for_each(|step| log.append(&at(step)).unwrap());
        assert_eq!(fs::read(dir.path().join(METRICS_FILE)).unwrap(), whole);
    }

    #[test]
    fn a_torn_last_line_is_dropped_and_a_bad_one_named() {
        let dir = tempfile::tempdir().unwrap();
        written(dir.path(), 3);
        let path = dir.path().join(METRICS_FILE);
        let text = fs::read_to_string(&path).unwrap();
        fs::write(&path, &text[..text.len() - 10]).unwrap();
        assert_eq!(read_metrics(dir.path()).unwrap().len(), 2);
        let (mut log, lines) = MetricsLog::resume(dir.path(), 3).unwrap();
        assert_eq!(lines.len(), 2);
        log.append(&at(3)).unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), text);

        fs::write(&path, text.replacen("\"lr\"", "\"rl\"", 1)).unwrap();
        let message = read_metrics(dir.path()).unwrap_err().to_string();
        assert!(message.contains(&format!("{}:1", path.display())), "{message}");
    }

    #[test]
    fn resuming_where_there_is_no_log_starts_one() {
        let dir = tempfile::tempdir().unwrap();
        let (mut log, lines) = MetricsLog::resume(dir.path(), 4).unwrap();
        assert!(lines.is_empty());
        log.append(&at(5)).unwrap();
        assert_eq!(read_metrics(dir.path()).unwrap(), [at(5)]);
    }

    #[test]
    fn summary_comes_back() {
        let dir = tempfile::tempdir().unwrap();
        let summary = Summary {
            final_valid_loss: 4.4,
            bits_per_byte: 2.1,
            steps: 1280,
            tokens: 2_621_440,
            seconds: 240.5,
            backend: "cpu".into(),
            layout: "tensor 2 x pipeline 2 x data 2".into(),
        };
        summary.write(dir.path()).unwrap();
        assert_eq!(Summary::read(dir.path()).unwrap(), summary);
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    }
}
