//! TensorBoard's event file: the numbers of `metrics.jsonl` as scalars, for `tensorboard --logdir runs`.
//!
//! A file is a row of TFRecords: `u64` length, masked CRC-32C of those eight bytes, the data, masked CRC-32C of the data; little-endian. The data are
//! protobuf messages `Event`, of which two fields are wanted here beside time and step: the file's version, and a `Summary` of tagged values. They
//! are written out by hand: it is a dozen lines, and the crates that do it have not been released for years.
//!
//! There is one file a run. A resumed run cuts it back to its step, as it does with the metrics, so that no step is there twice.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use crate::metrics::{Evaluated, StepMetrics};
use crate::{Error, Result};

/// The file in a run directory; TensorBoard finds it by the `tfevents` in its name.
pub const EVENTS_FILE: &str = "events.out.tfevents.mtnlg";

/// What the first event says of the file.
const VERSION: &str = "brain.Event:2";

/// The event file, open for appending.
#[derive(Debug)]
pub struct EventLog {
    path: PathBuf,
    file: File,
}

impl EventLog {
    /// Starts an empty log in a run directory, which is there.
    ///
    /// # Errors
    /// The file cannot be made.
    pub fn create(run_dir: &Path) -> Result<Self> {
        let path = run_dir.join(EVENTS_FILE);
        let file = File::create(&path).map_err(|e| Error::io("create the TensorBoard events", &path, &e))?;
        let mut log = Self { path, file };
        let mut event = time_and_step(now(), 0);
        bytes_field(3, VERSION.as_bytes(), &mut event);
        log.write(&event)?;
        Ok(log)
    }

    /// Goes on with a log after `step`: later steps, and what was torn at the end, are cut off. Starts one where there is none.
    ///
    /// # Errors
    /// The file cannot be read or cut.
    pub fn resume(run_dir: &Path, step: u64) -> Result<Self> {
        let path = run_dir.join(EVENTS_FILE);
        let bytes = match fs::read(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Self::create(run_dir),
            read => read.map_err(|e| Error::io("read the TensorBoard events", &path, &e))?,
        };
        let end = end_of(&bytes, step);
        if end == 0 {
            return Self::create(run_dir);
        }
        let mut file = OpenOptions::new()
            .write(true)
            .open(&path)
            .map_err(|e| Error::io("open the TensorBoard events", &path, &e))?;
        file.set_len(end as u64)
            .and_then(|()| file.seek(SeekFrom::End(0)))
            .map_err(|e| Error::io("cut the TensorBoard events", &path, &e))?;
        Ok(Self { path, file })
    }

    /// Adds a step, in one write.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn append(&mut self, metrics: &StepMetrics) -> Result<()> {
        let mut summary = Vec::new();
        let scalars = [
            ("train/loss", Some(metrics.loss)),
            ("train/lr", Some(metrics.lr)),
            ("train/grad_norm", Some(metrics.grad_norm)),
            ("train/tokens_per_second", Some(metrics.tokens_per_second)),
            ("validation/loss", metrics.valid_loss),
        ];
        let scalars = scalars.map(|(tag, value)| (tag.to_owned(), value)).into_iter();
        let evaluated = metrics.evaluation.iter().map(|Evaluated { task, shots, metric, value, .. }| {
            (format!("evaluation/{task}/{shots}-shot/{metric}"), *value)
        });
        for (tag, value) in scalars.chain(evaluated) {
            let Some(value) = value else { continue };
            let mut scalar = Vec::new();
            bytes_field(1, tag.as_bytes(), &mut scalar);
            key(2, 5, &mut scalar);
            scalar.extend((value as f32).to_le_bytes());
            bytes_field(1, &scalar, &mut summary);
        }
        let mut event = time_and_step(now(), metrics.step);
        bytes_field(5, &summary, &mut event);
        self.write(&event)
    }

    /// One record.
    fn write(&mut self, data: &[u8]) -> Result<()> {
        let length = (data.len() as u64).to_le_bytes();
        let mut record = Vec::with_capacity(data.len() + 16);
        record.extend(length);
        record.extend(masked_crc(&length).to_le_bytes());
        record.extend(data);
        record.extend(masked_crc(data).to_le_bytes());
        self.file.write_all(&record).map_err(|e| Error::io("write the TensorBoard events", &self.path, &e))
    }
}

/// Seconds since 1970.
fn now() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0.0, |time| time.as_secs_f64())
}

/// An `Event` as far as every one has it: `wall_time` is field 1, `step` field 2.
fn time_and_step(time: f64, step: u64) -> Vec<u8> {
    let mut event = Vec::new();
    key(1, 1, &mut event);
    event.extend(time.to_le_bytes());
    key(2, 0, &mut event);
    varint(step, &mut event);
    event
}

/// A field's number and wire type.
fn key(number: u64, wire: u64, out: &mut Vec<u8>) {
    varint(number << 3 | wire, out);
}

/// A field of bytes, text or a message.
fn bytes_field(number: u64, bytes: &[u8], out: &mut Vec<u8>) {
    key(number, 2, out);
    varint(bytes.len() as u64, out);
    out.extend(bytes);
}

/// Seven bits a byte, the lowest first; the top bit says that more follow.
fn varint(mut value: u64, out: &mut Vec<u8>) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

/// Bytes of the whole and sound records at the beginning, up to the first of a later step than `step`.
fn end_of(bytes: &[u8], step: u64) -> usize {
    let mut end = 0;
    while let Some(data) = record(&bytes[end..]) {
        if step_of(data).is_none_or(|event| event > step) {
            break;
        }
        end += data.len() + 16;
    }
    end
}

/// The data of the record at the beginning of `bytes`, if it is whole and sound.
fn record(bytes: &[u8]) -> Option<&[u8]> {
    let (length, rest) = bytes.split_first_chunk::<8>()?;
    let (sum, rest) = rest.split_first_chunk::<4>()?;
    if u32::from_le_bytes(*sum) != masked_crc(length) {
        return None;
    }
    let length = usize::try_from(u64::from_le_bytes(*length)).ok()?;
    let (data, rest) = rest.split_at_checked(length)?;
    let (sum, _) = rest.split_first_chunk::<4>()?;
    (u32::from_le_bytes(*sum) == masked_crc(data)).then_some(data)
}

/// The step of one of our own events: behind the nine bytes of the time.
fn step_of(event: &[u8]) -> Option<u64> {
    let (&tag, digits) = event.get(9..)?.split_first()?;
    if tag != 2 << 3 {
        return None;
    }
    let length = digits.iter().position(|byte| byte & 0x80 == 0)? + 1;
    (length <= 10)
        .then(|| digits[..length].iter().rev().fold(0u64, |value, byte| value << 7 | u64::from(byte & 0x7f)))
}

/// CRC-32C as TFRecords hold it: turned by 15 bits and shifted by a constant, so that a sum of sums is no sum.
fn masked_crc(bytes: &[u8]) -> u32 {
    crc32c(bytes).rotate_right(15).wrapping_add(0xa282_ead8)
}

/// CRC-32C (Castagnoli), reflected, byte by byte.
fn crc32c(bytes: &[u8]) -> u32 {
    const TABLE: [u32; 256] = {
        let mut table = [0u32; 256];
        let mut i = 0;
        while i < 256 {
            let mut value = i as u32;
            let mut bit = 0;
            while bit < 8 {
                value = if value & 1 == 1 { value >> 1 ^ 0x82f6_3b78 } else { value >> 1 };
                bit += 1;
            }
            table[i] = value;
            i += 1;
        }
        table
    };
    !bytes.iter().fold(!0u32, |sum, &byte| sum >> 8 ^ TABLE[(sum as u8 ^ byte) as usize])
}

#[cfg(test)]
mod tests {
    use super::*;

    /// One of which has no value.
    fn evaluated() -> Vec<Evaluated> {
        let metric = |metric: &str, value| Evaluated {
            task: "piqa".into(),
            shots: 1,
            documents: 7,
            metric: metric.into(),
            value,
            stderr: None,
        };
        vec![metric("acc", Some(0.5)), metric("acc_norm", None)]
    }

    fn at(step: u64) -> StepMetrics {
        StepMetrics {
            step,
            loss: 8.0 / step as f64,
            lr: 5e-3,
            grad_norm: 0.75,
            tokens_per_second: 12_345.5,
            valid_loss: step.is_multiple_of(3).then_some(4.5),
            evaluation: if step == 3 { evaluated() } else { vec![] },
        }
    }

    fn bytes(dir: &Path) -> Vec<u8> {
        fs::read(dir.join(EVENTS_FILE)).unwrap()
    }

    /// A reader of its own: any protobuf message as (field, wire type, number or bytes), sums by long division.
    mod reader {
        pub enum Value {
            Number(u64),
            Bytes(Vec<u8>),
        }

        pub fn fields(mut message: &[u8]) -> Vec<(u64, Value)> {
            let mut fields = Vec::new();
            while !message.is_empty() {
                let key = varint(&mut message);
                let take = |message: &mut &[u8], n: usize| {
                    let (head, tail) = message.split_at(n);
                    *message = tail;
                    head.to_vec()
                };
                let little_endian =
                    |bytes: Vec<u8>| bytes.iter().rev().fold(0u64, |n, &b| n * 256 + u64::from(b));
                let value = match key % 8 {
                    0 => Value::Number(varint(&mut message)),
                    1 => Value::Number(little_endian(take(&mut message, 8))),
                    2 => {
                        let n = varint(&mut message) as usize;
                        Value::Bytes(take(&mut message, n))
                    }
                    5 => Value::Number(little_endian(take(&mut message, 4))),
                    other => panic!("wire type {other}"),
                };
                fields.push((key / 8, value));
            }
            fields
        }

        fn varint(message: &mut &[u8]) -> u64 {
            let mut value = 0;
            for shift in (0..).step_by(7) {
                let (&byte, rest) = message.split_first().unwrap();
                *message = rest;
                value += u64::from(byte % 128) << shift;
                if byte < 128 {
                    break;
                }
            }
            value
        }

        /// CRC-32C bit by bit, as a division by the polynomial 0x1EDC6F41.
        pub fn masked(bytes: &[u8]) -> u32 {
            let mut sum = 0xffff_ffffu32;
            for &byte in bytes {
                for bit in 0..8 {
                    let top = (sum >> 31) ^ u32::from(byte >> bit & 1);
                    sum = (sum << 1) ^ if top == 1 { 0x1edc_6f41 } else { 0 };
                }
            }
            let sum = (!sum).reverse_bits();
            sum.rotate_right(15).wrapping_add(0xa282_ead8)
        }

        pub fn records(mut file: &[u8]) -> Vec<Vec<u8>> {
            let mut records = Vec::new();
            while !file.is_empty() {
                let length = u64::from_le_bytes(file[..8].try_into().unwrap()) as usize;
                assert_eq!(u32::from_le_bytes(file[8..12].try_into().unwrap()), masked(&file[..8]));
                let data = &file[12..12 + length];
                let sum: [u8; 4] = file[12 + length..16 + length].try_into().unwrap();
                assert_eq!(u32::from_le_bytes(sum), masked(data));
                records.push(data.to_vec());
                file = &file[16 + length..];
            }
            records
        }
    }

    /// Step, and tag and value of each scalar.
    fn decode(event: &[u8]) -> (u64, Vec<(String, f32)>) {
        use reader::Value;
        let (mut step, mut scalars) = (0, Vec::new());
        for (field, value) in reader::fields(event) {
            match (field, value) {
                (1, Value::Number(bits)) => assert!(f64::from_bits(bits) > 1.5e9),
                (2, Value::Number(number)) => step = number,
                (3, Value::Bytes(version)) => assert_eq!(version, b"brain.Event:2"),
                (5, Value::Bytes(summary)) => {
                    for (field, value) in reader::fields(&summary) {
                        let (1, Value::Bytes(scalar)) = (field, value) else { panic!("no value") };
                        match &reader::fields(&scalar)[..] {
                            [(1, Value::Bytes(tag)), (2, Value::Number(bits))] => scalars.push((
                                String::from_utf8(tag.clone()).unwrap(),
                                f32::from_bits(*bits as u32),
                            )),
                            _ => panic!("no tag and simple value"),
                        }
                    }
                }
                (other, _) => panic!("field {other}"),
            }
        }
        (step, scalars)
    }

    #[test]
    fn another_reader_finds_every_number() {
        let dir = tempfile::tempdir().unwrap();
        let mut log = EventLog::create(dir.path()).unwrap();
        for step in [1, 2, 3, 127, 128, 300_000] {
            log.append(&at(step)).unwrap();
        }
        let events: Vec<_> = reader::records(&bytes(dir.path())).iter().map(|event| decode(event)).collect();
        assert_eq!(events[0], (0, vec![]));
        assert_eq!(events.iter().map(|(step, _)| *step).collect::<Vec<_>>(), [0, 1, 2, 3, 127, 128, 300_000]);
        let scalar = |tag: &str, value: f32| (tag.to_string(), value);
        let mut expected = vec![
            scalar("train/loss", 4.0),
            scalar("train/lr", 5e-3),
            scalar("train/grad_norm", 0.75),
            scalar("train/tokens_per_second", 12_345.5),
        ];
        assert_eq!(events[2].1, expected);
        expected[0].1 = (8.0 / 3.0) as f32;
        expected.push(scalar("validation/loss", 4.5));
        expected.push(scalar("evaluation/piqa/1-shot/acc", 0.5));
        assert_eq!(events[3].1, expected);
    }

    #[test]
    fn resuming_cuts_what_came_after_and_what_was_torn() {
        let dir = tempfile::tempdir().unwrap();
        let mut log = EventLog::create(dir.path()).unwrap();
        (1..=10).for_each(|step| log.append(&at(step)).unwrap());
        let whole = bytes(dir.path());
        let steps =
            || -> Vec<u64> { reader::records(&bytes(dir.path())).iter().map(|e| decode(e).0).collect() };

        let mut log = EventLog::resume(dir.path(), 4).unwrap();
        log.append(&at(5)).unwrap();
        assert_eq!(steps(), [0, 1, 2, 3, 4, 5]);

        // A torn record, and one whose bytes have changed, end the log.
        fs::write(dir.path().join(EVENTS_FILE), &whole[..whole.len() - 3]).unwrap();
        EventLog::resume(dir.path(), 10).unwrap();
        assert_eq!(steps(), (0..=9).collect::<Vec<_>>());
        let mut flipped = whole.clone();
        flipped[whole.len() / 2] ^= 1;
        fs::write(dir.path().join(EVENTS_FILE), flipped).unwrap();
        EventLog::resume(dir.path(), 10).unwrap();
        assert!(steps().len() > 2 && steps().len() < 8, "{:?}", steps());
    }

    #[test]
    fn where_there_is_no_log_or_another_file_it_starts_one() {
        let dir = tempfile::tempdir().unwrap();
        EventLog::resume(dir.path(), 4).unwrap().append(&at(5)).unwrap();
        assert_eq!(reader::records(&bytes(dir.path())).len(), 2);
        fs::write(dir.path().join(EVENTS_FILE), b"not records at all").unwrap();
        EventLog::resume(dir.path(), 4).unwrap();
        assert_eq!(reader::records(&bytes(dir.path())).len(), 1);
    }

    #[test]
    fn published_sums() {
        // RFC 3720, appendix B.4, and the check value of CRC-32C.
        assert_eq!(crc32c(b"123456789"), 0xe306_9283);
        assert_eq!(crc32c(&[0; 32]), 0x8a91_36aa);
        assert_eq!(crc32c(&[0xff; 32]), 0x62a8_ab43);
    }
}
