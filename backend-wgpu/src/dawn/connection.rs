//! The child process and what is said to it: numbered requests, each answered once, in any order.
//!
//! Nobody waits longer than the device's timeout, not even for the pipe: a thread of its own writes, and a child that is waited for in vain is ended.

use std::collections::HashMap;
use std::io::{BufReader, Read, Write};
use std::process::{Child, ChildStderr, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use backend::{Error, Result};

use super::Dawn;
use crate::adapter::{self, AdapterInfo};
use crate::device::{Failure, Most, timed_out};
use crate::preprocess::Bindings;
use crate::queue::{BATCH, MAX_PARAMS, STAGING, STRIDE};

/// The child's program.
const SCRIPT: &str = include_str!("../../dawn/dawn.mjs");
/// The number of an answer that nobody asked for: something is wrong with the device.
const UNASKED: u32 = u32::MAX;
/// Bytes of the child's complaints that are kept for an error.
const COMPLAINTS: usize = 2000;

/// The operations, in the order of the script's.
#[derive(Clone, Copy, Debug)]
#[repr(u32)]
pub(crate) enum Operation {
    Open,
    MakeBuffer,
    DropBuffer,
    #[cfg_attr(not(test), allow(dead_code, reason = "for the test of all variants"))]
    Validate,
    MakePipeline,
    Submit,
    Write,
    Read,
    Sync,
}

/// Why a request came to nothing.
#[derive(Debug)]
pub(crate) enum Refusal {
    /// There is no memory for it.
    Memory,
    /// What Dawn says.
    Error(String),
    /// There was no answer, which the device's failure tells.
    Unanswered,
}

pub(crate) type Answer = std::result::Result<Vec<u8>, Refusal>;
/// The requests under way; `None` once the child has ended.
type Waiting = Arc<Mutex<Option<HashMap<u32, Sender<Answer>>>>>;

/// A child with a device.
#[derive(Debug)]
pub(crate) struct Connection {
    requests: Sender<Vec<u8>>,
    waiting: Waiting,
    next: AtomicU32,
    child: Mutex<Child>,
    failure: Arc<Failure>,
    timeout: Duration,
}

/// A buffer of the child's; it goes with its last owner.
#[derive(Debug)]
pub(crate) struct DawnBuffer {
    pub id: u32,
    connection: Arc<Connection>,
}

impl Drop for DawnBuffer {
    fn drop(&mut self) {
        // The answer says nothing.
        drop(self.connection.start(Operation::DropBuffer, &self.id.to_le_bytes()));
    }
}

/// Words as they are sent.
pub(crate) fn words(words: &[u32]) -> Vec<u8> {
    words.iter().flat_map(|word| word.to_le_bytes()).collect()
}

impl Connection {
    /// Starts a child that opens a device: what it is, and what it allows.
    pub fn open(
        dawn: &Dawn,
        failure: &Arc<Failure>,
        timeout: Duration,
    ) -> Result<(AdapterInfo, Most, Arc<Self>)> {
        let what = |what: String| Error::NoDevice { what };
        let package = dawn.folder.join("node_modules/webgpu");
        let own = dawn.folder.join("swiftshader");
        let driver = dawn.driver.clone().unwrap_or_else(|| own.join("vk_swiftshader_icd.json"));
        if let Some(missing) = [&package, &driver].into_iter().find(|path| !path.exists()) {
            return Err(what(format!(
                "Dawn needs {}, which does not exist; run `cargo xtask dawn`",
                missing.display()
            )));
        }
        let mut libraries = own.into_os_string();
        if let Some(others) = std::env::var_os("LD_LIBRARY_PATH").filter(|others| !others.is_empty()) {
            libraries.push(":");
            libraries.push(others);
        }
        let mut child = Command::new("node")
            .args(["--input-type=module", "--eval", SCRIPT, "--"])
            .arg(&dawn.folder)
            .env("VK_DRIVER_FILES", &driver)
            .env("VK_ICD_FILENAMES", &driver)
            .env("LD_LIBRARY_PATH", libraries)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .map_err(|error| {
                what(format!("Dawn needs node, which does not start: {error}; install Node.js 20 or later"))
            })?;
        let (Some(stdin), Some(stdout), Some(stderr)) =
            (child.stdin.take(), child.stdout.take(), child.stderr.take())
        else {
            return Err(what("Dawn's process has no pipes".to_owned()));
        };
        let (requests, to_write) = mpsc::channel();
        let waiting = Waiting::new(Mutex::new(Some(HashMap::new())));
        let complaints = Arc::new(Mutex::new(Vec::new()));
        let of_child = (Arc::clone(&waiting), Arc::clone(failure), Arc::clone(&complaints));
        spawn("dawn write", move || write(stdin, &to_write))?;
        spawn("dawn complaints", move || listen(stderr, &complaints))?;
        spawn("dawn read", move || read(stdout, &of_child.0, &of_child.1, &of_child.2))?;
        let child = Mutex::new(child);
        let connection = Arc::new(Self {
            requests,
            waiting,
            next: AtomicU32::new(0),
            child,
            failure: Arc::clone(failure),
            timeout,
        });
        let sizes = words(&[(BATCH * STRIDE) as u32, MAX_PARAMS as u32, STAGING as u32]);
        let found = connection.ask(Operation::Open, &sizes).map_err(|refusal| match refusal {
            Refusal::Error(text) => what(format!("{text} (driver {})", driver.display())),
            Refusal::Memory => what("Dawn has no memory for its device".to_owned()),
            Refusal::Unanswered => what(failure.get().map_or_else(String::new, |error| error.to_string())),
        })?;
        let (info, most) = describe(&String::from_utf8_lossy(&found));
        Ok((info, most, connection))
    }

    /// Sends a request; [`finish`](Self::finish) has its answer.
    pub fn start(&self, operation: Operation, payload: &[u8]) -> Receiver<Answer> {
        let (sender, answer) = mpsc::channel();
        let number = self.next.fetch_add(1, Relaxed) % UNASKED;
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        // With the child gone the sender goes, too, and the answer is that there is none.
        if let Some(waiting) = waiting.as_mut() {
            waiting.insert(number, sender);
            let mut frame = words(&[payload.len() as u32 + 8, number, operation as u32]);
            frame.extend_from_slice(payload);
            let _ = self.requests.send(frame);
        }
        answer
    }

    /// Waits for an answer.
    pub fn finish(&self, answer: &Receiver<Answer>) -> Answer {
        match answer.recv_timeout(self.timeout) {
            Ok(answer) => answer,
            Err(RecvTimeoutError::Timeout) => {
                self.failure.set(timed_out(self.timeout));
                self.end();
                Err(Refusal::Unanswered)
            }
            Err(RecvTimeoutError::Disconnected) => Err(Refusal::Unanswered),
        }
    }

    /// Sends a request and waits for its answer.
    pub fn ask(&self, operation: Operation, payload: &[u8]) -> Answer {
        self.finish(&self.start(operation, payload))
    }

    /// The child's process.
    #[cfg(test)]
    pub fn process(&self) -> u32 {
        self.child.lock().unwrap_or_else(PoisonError::into_inner).id()
    }

    /// Ends the child.
    pub fn end(&self) {
        let mut child = self.child.lock().unwrap_or_else(PoisonError::into_inner);
        let _ = child.kill();
        let _ = child.wait();
    }

    /// A new piece of device memory; the error is what else than memory was missing.
    pub fn buffer(self: &Arc<Self>, size: u64) -> std::result::Result<DawnBuffer, Option<String>> {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let id = NEXT.fetch_add(1, Relaxed);
        match self.ask(Operation::MakeBuffer, &words(&[id, size as u32])) {
            Ok(_) => Ok(DawnBuffer { id, connection: Arc::clone(self) }),
            Err(Refusal::Memory) => Err(None),
            Err(Refusal::Error(text)) => Err(Some(text)),
            Err(Refusal::Unanswered) => Err(Some("Dawn does not answer".to_owned())),
        }
    }

    /// Compiles plain WGSL: the pipeline's number.
    pub fn compile(&self, source: &str, bindings: &Bindings) -> std::result::Result<u32, String> {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let id = NEXT.fetch_add(1, Relaxed);
        let mut payload = words(&[id, bindings.count() as u32, u32::from(bindings.written)]);
        payload.extend_from_slice(for_tint(source).as_bytes());
        match self.ask(Operation::MakePipeline, &payload) {
            Ok(_) => Ok(id),
            Err(Refusal::Error(text)) => Err(text),
            Err(Refusal::Memory) => Err("no memory for it".to_owned()),
            Err(Refusal::Unanswered) => Err("Dawn does not answer".to_owned()),
        }
    }
}

/// WGSL with the directives that Tint demands; naga knows subgroups without, and rejects theirs. Comments are gone by now.
pub(crate) fn for_tint(source: &str) -> String {
    let enable = if source.contains("subgroup") { "enable subgroups;\n" } else { "" };
    format!("{enable}{source}")
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.end();
    }
}

fn spawn(name: &str, body: impl FnOnce() + Send + 'static) -> Result<()> {
    let thread = std::thread::Builder::new().name(name.to_owned()).spawn(body);
    thread.map(drop).map_err(|error| Error::NoDevice { what: format!("no thread for the device: {error}") })
}

/// Writes what comes until the connection or the child is gone.
fn write(mut stdin: ChildStdin, frames: &Receiver<Vec<u8>>) {
    while let Ok(frame) = frames.recv() {
        if stdin.write_all(&frame).is_err() {
            // The reading thread says why.
            return;
        }
    }
}

/// Keeps the end of what the child complains of.
fn listen(mut stderr: ChildStderr, complaints: &Mutex<Vec<u8>>) {
    let mut piece = [0; 1000];
    while let Ok(n @ 1..) = stderr.read(&mut piece) {
        let mut complaints = complaints.lock().unwrap_or_else(PoisonError::into_inner);
        complaints.extend_from_slice(&piece[..n]);
        let excess = complaints.len().saturating_sub(COMPLAINTS);
        complaints.drain(..excess);
    }
}

/// Hands the answers to who waits for them, until the child has ended.
fn read(stdout: ChildStdout, waiting: &Waiting, failure: &Failure, complaints: &Mutex<Vec<u8>>) {
    let mut stdout = BufReader::with_capacity(64 << 10, stdout);
    while let Ok((number, status, payload)) = frame(&mut stdout) {
        let text = || String::from_utf8_lossy(&payload).into_owned();
        if number == UNASKED {
            failure
                .set(format!("{}; this is a defect of the backend or the driver, please report it", text()));
            continue;
        }
        let answer = match status {
            0 => Ok(payload),
            1 => Err(Refusal::Memory),
            _ => Err(Refusal::Error(text())),
        };
        let mut waiting = waiting.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(sender) = waiting.as_mut().and_then(|waiting| waiting.remove(&number)) {
            // Nobody need wait for it.
            let _ = sender.send(answer);
        }
    }
    let complaints = complaints.lock().unwrap_or_else(PoisonError::into_inner);
    failure.set(format!(
        "Dawn's process has ended ({}); restart from the last checkpoint, and report it if it happens again",
        String::from_utf8_lossy(&complaints).trim()
    ));
    *waiting.lock().unwrap_or_else(PoisonError::into_inner) = None;
}

/// The next answer: number, status, payload.
fn frame(from: &mut impl Read) -> std::io::Result<(u32, u32, Vec<u8>)> {
    let mut head = [0; 12];
    from.read_exact(&mut head)?;
    let word = |i: usize| u32::from_le_bytes([head[i], head[i + 1], head[i + 2], head[i + 3]]);
    let mut payload = vec![0; (word(0) as usize).saturating_sub(8)];
    from.read_exact(&mut payload)?;
    Ok((word(4), word(8), payload))
}

/// What the child found, from lines `key=value`.
fn describe(text: &str) -> (AdapterInfo, Most) {
    let found: HashMap<&str, &str> = text.lines().filter_map(|line| line.split_once('=')).collect();
    let get = |key| found.get(key).copied().unwrap_or_default();
    let number = |key| get(key).parse::<u64>().unwrap_or(0);
    let has = |feature| get("features").split(' ').any(|found| found == feature);
    let info = AdapterInfo {
        name: format!("{} {}", get("vendor"), get("architecture")),
        api: "dawn",
        software: number("software") == 1,
        driver: get("driver").to_owned(),
        subgroup_lanes: (has("subgroups") && number("subgroup_min") == number("subgroup_max"))
            .then_some(number("subgroup_min") as u32),
        f16: has("shader-f16"),
        cooperative_matrices: false,
        cooperative_f16: false,
        timestamps: false,
        max_buffer: number("max_buffer").min(adapter::TRUSTED),
        max_binding: number("max_binding").min(adapter::TRUSTED) / 256 * 256,
    };
    let most =
        Most { buffer: info.max_buffer, binding: info.max_binding, groups: number("max_groups") as u32 };
    (info, most)
}
