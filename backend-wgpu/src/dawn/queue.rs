//! The executor that has the child do it.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::mpsc::Receiver;

use backend::{Error, Result};

use super::connection::{Connection, Operation, Refusal, words};
use crate::compile::{Pipeline, Promise};
use crate::device::Failure;
use crate::gpu::{RawBuffer, RawPipeline};
use crate::memory::Memory;
use crate::queue::{Batch, Executor, Step};

/// Requests under way before the owner waits: what lies in the pipe is bounded.
const IN_FLIGHT: usize = 4;

/// The child's queue.
pub(crate) struct DawnQueue {
    connection: Arc<Connection>,
    failure: Arc<Failure>,
    in_flight: VecDeque<Receiver<std::result::Result<Vec<u8>, Refusal>>>,
}

/// The number of the buffer behind memory of a device by Dawn.
fn buffer(memory: &Memory) -> u32 {
    match &memory.raw {
        RawBuffer::Dawn(buffer) => buffer.id,
        // The owner turns it into the device's failure.
        RawBuffer::Native(_) => panic!("an operand does not lie on a device by Dawn"),
    }
}

/// The kernel's number; the owner has waited for it.
fn pipeline(promise: &Promise) -> Option<u32> {
    match promise.get() {
        Some(Ok(Pipeline { raw: RawPipeline::Dawn(id), .. })) => Some(*id),
        _ => None,
    }
}

impl DawnQueue {
    pub fn new(connection: &Arc<Connection>, failure: &Arc<Failure>) -> Self {
        Self { connection: Arc::clone(connection), failure: Arc::clone(failure), in_flight: VecDeque::new() }
    }

    fn start(&mut self, operation: Operation, payload: &[u8]) {
        self.in_flight.push_back(self.connection.start(operation, payload));
        if self.in_flight.len() > IN_FLIGHT {
            self.finish_oldest();
        }
    }

    fn finish_oldest(&mut self) {
        if let Some(answer) = self.in_flight.pop_front() {
            let answer = self.connection.finish(&answer);
            // A failure is kept for whoever reads next.
            let _ = self.checked(answer);
        }
    }

    /// The answer; a refusal is the device's failure.
    fn checked(&self, answer: std::result::Result<Vec<u8>, Refusal>) -> Result<Vec<u8>> {
        match answer {
            Ok(payload) => return self.failure.get().map_or(Ok(payload), Err),
            Err(Refusal::Memory) => {
                self.failure.set("it ran out of memory; take a smaller microbatch or more ranks")
            }
            Err(Refusal::Error(text)) => {
                self.failure
                    .set(format!("{text}; this is a defect of the backend or the driver, please report it"));
            }
            Err(Refusal::Unanswered) => {}
        }
        Err(self.failure.get().unwrap_or_else(|| Error::Device { what: "Dawn does not answer".to_owned() }))
    }

    fn ask(&mut self, operation: Operation, payload: &[u8]) -> Result<Vec<u8>> {
        let answer = self.connection.start(operation, payload);
        while !self.in_flight.is_empty() {
            self.finish_oldest();
        }
        let answer = self.connection.finish(&answer);
        self.checked(answer)
    }
}

impl Executor for DawnQueue {
    fn submit(&mut self, batch: &Batch) {
        let mut payload = words(&[batch.params.len() as u32, batch.staged.len() as u32]);
        payload.extend_from_slice(&batch.params);
        payload.extend_from_slice(&batch.staged);
        for step in &batch.steps {
            match step {
                Step::Launch { kernel, windows, offset, groups: [x, y, z] } => {
                    let Some(kernel) = pipeline(kernel) else { continue };
                    payload.extend(words(&[0, kernel, *offset, *x, *y, *z, windows.len() as u32]));
                    for window in windows {
                        payload.extend(words(&[
                            buffer(&window.memory),
                            window.offset as u32,
                            window.size as u32,
                        ]));
                    }
                }
                Step::Copy { staged, memory, offset, bytes } => {
                    payload.extend(words(&[
                        1,
                        *staged as u32,
                        buffer(memory),
                        *offset as u32,
                        *bytes as u32,
                    ]));
                }
            }
        }
        self.start(Operation::Submit, &payload);
    }

    fn write(&mut self, memory: &Memory, offset: u64, data: &[u8]) {
        let mut payload = words(&[buffer(memory), offset as u32]);
        payload.extend_from_slice(data);
        self.start(Operation::Write, &payload);
    }

    fn wait(&mut self) -> Result<()> {
        self.ask(Operation::Sync, &[]).map(drop)
    }

    fn read(&mut self, memory: &Memory, offset: u64, bytes: u64, into: &mut Vec<u8>) -> Result<()> {
        let data = self.ask(Operation::Read, &words(&[buffer(memory), offset as u32, bytes as u32]))?;
        into.extend_from_slice(&data);
        Ok(())
    }

    fn release(&mut self) {}
}
