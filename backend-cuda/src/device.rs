//! An open device: its context, its stream, its kernels, and the first thing that went wrong on it.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use backend::{Error, Result};

use crate::compiler::Compiler;
use crate::driver::{self, Context, Failed, Function, Module, Ordinal, Stream};
use crate::kernels::Variant;
use crate::libraries::Settings;

/// The least compute capability: bf16 in tensor cores, asynchronous copies to shared memory.
pub(crate) const LEAST: (i32, i32) = (8, 0);

/// One rank's hold on a GPU.
#[derive(Debug)]
pub(crate) struct Device {
    pub name: String,
    pub capability: (i32, i32),
    pub driver: (i32, i32),
    pub multiprocessors: u32,
    pub stream: Stream,
    context: Context,
    compiler: Compiler,
    failure: OnceLock<Error>,
    modules: Mutex<HashMap<Variant, Arc<OnceLock<Result<Module>>>>>,
    functions: Mutex<HashMap<(Variant, &'static str), Function>>,
}

/// Why the device can't be used, if so.
pub(crate) fn unfit((major, minor): (i32, i32)) -> Option<String> {
    ((major, minor) < LEAST).then(|| {
        format!(
            "its compute capability is {major}.{minor}, and the kernels need {}.{} (A100, H100 and later)",
            LEAST.0, LEAST.1
        )
    })
}

impl Device {
    /// # Errors
    /// [`Error::NoDevice`]: a library or the device is missing, or is too old.
    pub fn open(index: usize, settings: &Settings) -> Result<Arc<Self>> {
        driver::start(settings)?;
        let none = |what: String| Error::NoDevice { what };
        let failed = |failed: Failed| none(format!("CUDA device {index}: {failed}"));
        let count = driver::device_count().map_err(failed)?;
        if index >= count {
            return Err(none(format!(
                "CUDA device {index} was asked for, and there are {count}; see `mtnlg devices`"
            )));
        }
        let ordinal = Ordinal::get(index).map_err(failed)?;
        let capability = ordinal.capability().map_err(failed)?;
        if let Some(why) = unfit(capability) {
            return Err(none(format!("CUDA device {index} can't be used: {why}")));
        }
        let compiler = Compiler::new(settings)?;
        let context = Context::retain(ordinal).map_err(failed)?;
        context.enter().map_err(failed)?;
        Ok(Arc::new(Self {
            name: ordinal.name().map_err(failed)?,
            capability,
            driver: driver::version().map_err(failed)?,
            multiprocessors: ordinal.multiprocessors().map_err(failed)?,
            stream: Stream::new().map_err(failed)?,
            context,
            compiler,
            failure: OnceLock::new(),
            modules: Mutex::default(),
            functions: Mutex::default(),
        }))
    }

    pub fn compiler(&self) -> (i32, i32) {
        self.compiler.version()
    }

    /// Makes the device the calling thread's, unless it has failed.
    pub fn enter(&self) -> Result<()> {
        self.check()?;
        self.context.enter().map_err(|failed| self.failed(failed))
    }

    /// Keeps that this device must not go on, for a reason that is not its own.
    pub fn stop(&self, error: Error) {
        let _ = self.failure.set(error);
    }

    /// What it has failed with, if it has.
    pub fn check(&self) -> Result<()> {
        self.failure.get().cloned().map_or(Ok(()), Err)
    }

    /// Keeps the first failure, and returns it.
    pub fn failed(&self, failed: Failed) -> Error {
        let what = format!("{failed}, on {}; a device that has failed needs a new process", self.name);
        self.failure.get_or_init(|| Error::Device { what }).clone()
    }

    /// The kernel, compiled if need be.
    pub fn function(&self, variant: Variant, kernel: &'static str) -> Result<Function> {
        let mut functions = self.functions.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(function) = functions.get(&(variant, kernel)) {
            return Ok(*function);
        }
        drop(functions);
        let function = self.module(variant)?.function(kernel).map_err(|failed| self.failed(failed))?;
        functions = self.functions.lock().unwrap_or_else(PoisonError::into_inner);
        functions.insert((variant, kernel), function);
        Ok(function)
    }

    fn module(&self, variant: Variant) -> Result<Module> {
        // Compiled outside the lock, once.
        let slot = Arc::clone(
            self.modules.lock().unwrap_or_else(PoisonError::into_inner).entry(variant).or_default(),
        );
        let load = || {
            let defines = variant.defines().collect::<Vec<_>>();
            let image = self.compiler.image(variant.file, variant.source(), &defines, self.capability);
            let image = image.map_err(|what| Error::Device { what })?;
            Module::load(&image).map_err(|failed| self.failed(failed))
        };
        slot.get_or_init(load).clone()
    }
}
