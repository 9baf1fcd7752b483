//! Compiles kernels beside the ranks: whoever launches a kernel for the first time goes on at once, and the thread that owns the device waits for the pipeline when it
//! comes to that launch. A rank runs ahead of the device until it reads something, so that the first step's kernels are compiled several at a time.

use std::collections::{HashMap, VecDeque};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Condvar, Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use crate::gpu::{Gpu, RawPipeline};
use crate::preprocess::{self, Bindings};
use crate::trial::Sources;

/// A kernel variant: what is compiled once.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Variant {
    pub path: &'static str,
    pub defines: Vec<(&'static str, u32)>,
    pub bindings: Bindings,
}

impl Variant {
    /// Path, and what is defined as 1; for the products also their transposes.
    fn name(&self) -> String {
        let path = self.path.trim_end_matches(".wgsl");
        let on = |name: &str| self.defines.iter().any(|&(n, value)| n == name && value == 1);
        let mut name = path.to_owned();
        if path.starts_with("matmul/") {
            let letter = |name| if on(name) { 't' } else { 'n' };
            name.extend([' ', letter("TRANS_A"), letter("TRANS_B")]);
        }
        for flag in ["BETA", "BIAS", "GELU", "DROPOUT", "ACCUMULATE"] {
            if on(flag) {
                name.push(' ');
                name.push_str(&flag.to_lowercase());
            }
        }
        name
    }
}

/// A compiled kernel.
#[derive(Debug)]
pub(crate) struct Pipeline {
    pub raw: RawPipeline,
    /// What a profile calls it.
    pub name: String,
}

/// A pipeline that may still be in the making, or the reason why there is none.
pub(crate) type Promise = Arc<OnceLock<Result<Pipeline, String>>>;

/// Makes pipelines.
pub(crate) struct Compiler {
    pub gpu: Gpu,
    sources: Sources,
    pipelines: Mutex<HashMap<Variant, Promise>>,
    say: Option<fn(&str)>,
    work: Mutex<Work>,
    changed: Condvar,
    most_threads: usize,
    said: Mutex<Option<Instant>>,
}

/// What the threads have to do. They come with work and go without it.
#[derive(Default)]
struct Work {
    waiting: VecDeque<(Variant, Promise)>,
    under_way: usize,
    threads: usize,
    begun: usize,
    done: usize,
    since: Option<Instant>,
}

/// A line of progress at most so often.
const OFTEN: Duration = Duration::from_secs(1);

impl Compiler {
    pub fn new(gpu: Gpu, sources: Sources, say: Option<fn(&str)>) -> Arc<Self> {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        Arc::new(Self {
            gpu,
            sources,
            pipelines: Mutex::default(),
            say,
            work: Mutex::default(),
            changed: Condvar::new(),
            most_threads: cores.clamp(1, 8),
            said: Mutex::default(),
        })
    }

    /// The pipeline of a variant, made or in the making.
    pub fn pipeline(self: &Arc<Self>, variant: Variant) -> Promise {
        let mut pipelines = self.pipelines.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = pipelines.get(&variant) {
            return Arc::clone(known);
        }
        let promise = Promise::default();
        pipelines.insert(variant.clone(), Arc::clone(&promise));
        drop(pipelines);
        let mut work = self.work.lock().unwrap_or_else(PoisonError::into_inner);
        work.waiting.push_back((variant, Arc::clone(&promise)));
        work.begun += 1;
        work.since.get_or_insert_with(Instant::now);
        if work.threads < self.most_threads {
            let this = Arc::clone(self);
            let spawned = std::thread::Builder::new().name("compile".to_owned()).spawn(move || this.drain());
            work.threads += usize::from(spawned.is_ok());
            if spawned.is_err() && work.threads == 0 {
                drop(work);
                self.drain();
            }
        }
        promise
    }

    /// Waits until nothing is in the making, so that a deadline that follows is the device's own.
    pub fn settle(&self) {
        let mut work = self.work.lock().unwrap_or_else(PoisonError::into_inner);
        while work.under_way > 0 || !work.waiting.is_empty() {
            work = self.changed.wait(work).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Compiles until nothing waits.
    fn drain(&self) {
        loop {
            let (variant, promise) = {
                let mut work = self.work.lock().unwrap_or_else(PoisonError::into_inner);
                match work.waiting.pop_front() {
                    Some(next) => {
                        work.under_way += 1;
                        next
                    }
                    None => {
                        work.threads = work.threads.saturating_sub(1);
                        return;
                    }
                }
            };
            let made = catch_unwind(AssertUnwindSafe(|| self.compile(&variant)));
            let made = made.unwrap_or_else(|_| Err("the compiler panicked".to_owned()));
            let _ = promise.set(made.map_err(|what| {
                format!(
                    "kernel {} {:?} does not compile: {what}; this is a defect of the backend or the driver, please report it",
                    variant.path, variant.defines
                )
            }));
            let mut work = self.work.lock().unwrap_or_else(PoisonError::into_inner);
            work.under_way -= 1;
            work.done += 1;
            let line = self.line(&mut work);
            drop(work);
            self.changed.notify_all();
            if let Some((say, line)) = self.say.zip(line) {
                say(&line);
            }
        }
    }

    /// What there is to say now: while many are in the making now and then a line, and one when all are made that took a moment.
    fn line(&self, work: &mut Work) -> Option<String> {
        let idle = work.waiting.is_empty() && work.under_way == 0;
        let seconds = work.since?.elapsed().as_secs_f64();
        if idle {
            work.since = None;
        }
        let mut said = self.said.lock().unwrap_or_else(PoisonError::into_inner);
        let due = match *said {
            None => seconds > OFTEN.as_secs_f64(),
            Some(last) => last.elapsed() > OFTEN || idle,
        };
        if !due {
            return None;
        }
        *said = (!idle).then(Instant::now);
        Some(format!(
            "kernels: {} of {} compiled, {seconds:.1} s, up to {} at a time",
            work.done, work.begun, self.most_threads
        ))
    }

    fn compile(&self, variant: &Variant) -> Result<Pipeline, String> {
        let path = variant.path;
        let files: Vec<_> = self.sources.iter().map(|(path, text)| (*path, &**text)).collect();
        let source = preprocess::expand(&files, path, &variant.defines, &variant.bindings)?;
        let raw = self.gpu.compile(path, source, &variant.bindings)?;
        Ok(Pipeline { raw, name: variant.name() })
    }
}
