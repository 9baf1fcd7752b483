//! One error type: what went wrong, in which operation, at which tensor, rank or limit, and what was asked.

use crate::{Class, DType, Shape};

/// The result of a call into a backend.
pub type Result<T> = std::result::Result<T, Error>;

/// What a backend or a communicator can answer instead of doing what it was asked.
///
/// It is `Clone` because a device's failure is sticky: the same error is returned again and again.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum Error {
    /// An operand has the wrong extents.
    #[error("{op}: {tensor} has shape {got}, expected {expected}")]
    Shape {
        /// The operation.
        op: &'static str,
        /// The operand.
        tensor: &'static str,
        /// What it must be, in the operation's letters and numbers.
        expected: String,
        /// What it is.
        got: Shape,
    },
    /// An operand has the wrong element type.
    #[error("{op}: {tensor} is {got}, expected {expected}")]
    DType {
        /// The operation.
        op: &'static str,
        /// The operand.
        tensor: &'static str,
        /// What it must be.
        expected: DType,
        /// What it is.
        got: DType,
    },
    /// Two operands overlap where they must not.
    #[error("{op}: {output} overlaps {input}, which the operation reads; give it memory of its own")]
    Overlap {
        /// The operation.
        op: &'static str,
        /// The operand written.
        output: &'static str,
        /// The operand it overlaps.
        input: &'static str,
    },
    /// A number outside its range.
    #[error("{op}: {name} = {value} is out of range; it must be {range}")]
    Argument {
        /// The operation.
        op: &'static str,
        /// The argument.
        name: &'static str,
        /// Its value, printed.
        value: String,
        /// The range, in words.
        range: &'static str,
    },
    /// A window that does not lie in its buffer.
    #[error("a view of {len} elements at {offset} leaves its buffer of {capacity} elements")]
    OutOfBounds {
        /// First element of the window.
        offset: usize,
        /// Its length.
        len: usize,
        /// Elements in the buffer.
        capacity: usize,
    },
    /// The device or the backend has no such operation for these arguments.
    #[error("{op} is not supported here: {what}")]
    Unsupported {
        /// The operation.
        op: &'static str,
        /// What is missing, and what would do.
        what: String,
    },
    /// A device limit stands in the way.
    #[error("{op}: {what} needs {asked}, but the device's {limit} is {allowed}; {remedy}")]
    Limit {
        /// The operation.
        op: &'static str,
        /// What needs it.
        what: String,
        /// The limit's name.
        limit: &'static str,
        /// What the device allows.
        allowed: u64,
        /// What was asked.
        asked: u64,
        /// What to change.
        remedy: &'static str,
    },
    /// Memory ran out.
    #[error("out of memory: {asked} bytes for {class} ({in_use} bytes in use on this rank); {remedy}")]
    OutOfMemory {
        /// What the memory was for.
        class: Class,
        /// Bytes asked.
        asked: u64,
        /// Bytes that this rank holds already.
        in_use: u64,
        /// What to change.
        remedy: &'static str,
    },
    /// No device to run on.
    #[error("no device: {what}")]
    NoDevice {
        /// What was looked for, and what would do.
        what: String,
    },
    /// The device is gone, or reported an error that it cannot recover from. Sticky.
    #[error("the device failed: {what}")]
    Device {
        /// What the driver says, and what to do.
        what: String,
    },
    /// A collective or a receive waited too long.
    #[error(
        "{op} in the {group} group timed out after {seconds} s on rank {rank}: no word from rank(s) {missing:?}"
    )]
    Timeout {
        /// The operation.
        op: &'static str,
        /// The group, by name.
        group: &'static str,
        /// The rank that waited.
        rank: usize,
        /// The ranks that did not come.
        missing: Vec<usize>,
        /// How long it waited.
        seconds: u64,
    },
    /// Every rank waits for another one, and none can go on.
    #[error("deadlock: {}", waiting.join("; "))]
    Deadlock {
        /// Each rank that waits: what it was doing, in which call, for whom.
        waiting: Vec<String>,
    },
    /// Another rank failed; this one stops with it.
    #[error("{op} in the {group} group on rank {rank}: rank {peer} failed: {cause}")]
    PeerFailed {
        /// The operation this rank was in.
        op: &'static str,
        /// The group, by name.
        group: &'static str,
        /// The rank that reports.
        rank: usize,
        /// The rank at fault.
        peer: usize,
        /// Its own words.
        cause: String,
    },
    /// The ranks of a group do not agree on what they do together.
    #[error(
        "{op} in the {group} group: rank {rank} brings {mine}, rank {peer} {theirs}; every rank must make the same call"
    )]
    Mismatch {
        /// The operation.
        op: &'static str,
        /// The group, by name.
        group: &'static str,
        /// A rank.
        rank: usize,
        /// What it brings.
        mine: String,
        /// A rank that disagrees.
        peer: usize,
        /// What that one brings.
        theirs: String,
    },
}
