//! NVRTC: source to code for one architecture, kept on disk by everything that it depends on.

use std::ffi::{CStr, CString, c_char};
use std::path::PathBuf;
use std::ptr::null_mut;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use backend::{Error, Result};
use cudarc::nvrtc::sys::{self, nvrtcProgram, nvrtcResult};

use crate::kernels::HEADERS;
use crate::libraries::{Dependency, Settings};

/// A loaded NVRTC and its cache.
#[derive(Debug)]
pub(crate) struct Compiler {
    version: (i32, i32),
    architectures: Vec<i32>,
    cache: Option<PathBuf>,
}

/// Code and what the compiler said.
pub(crate) struct Compiled {
    pub image: Vec<u8>,
    pub log: String,
}

fn check(call: &'static str, result: nvrtcResult) -> std::result::Result<(), String> {
    match result {
        nvrtcResult::NVRTC_SUCCESS => Ok(()),
        failed => {
            // SAFETY: a constant string.
            let words = unsafe { CStr::from_ptr(sys::nvrtcGetErrorString(failed)) };
            Err(format!("{call}: {}", words.to_string_lossy()))
        }
    }
}

/// A program under way, destroyed whatever happens.
struct Program(nvrtcProgram);

impl Drop for Program {
    fn drop(&mut self) {
        // SAFETY: ours, once. There is nothing to do about a failure.
        let _ = unsafe { sys::nvrtcDestroyProgram(&mut self.0) };
    }
}

impl Program {
    fn new(name: &str, source: &str) -> std::result::Result<Self, String> {
        let c = |text: &str| CString::new(text).map_err(|_| "a source with a zero byte".to_owned());
        let (source, name) = (c(source)?, c(name)?);
        let texts = HEADERS.iter().map(|(_, text)| c(text)).collect::<std::result::Result<Vec<_>, _>>()?;
        let names = HEADERS.iter().map(|(name, _)| c(name)).collect::<std::result::Result<Vec<_>, _>>()?;
        let pointers = |strings: &[CString]| strings.iter().map(|s| s.as_ptr()).collect::<Vec<_>>();
        let (texts, names) = (pointers(&texts), pointers(&names));
        let mut program = null_mut();
        // SAFETY: strings that end, as many headers as names; NVRTC copies them.
        let result = unsafe {
            let count = HEADERS.len() as i32;
            sys::nvrtcCreateProgram(
                &mut program,
                source.as_ptr(),
                name.as_ptr(),
                count,
                texts.as_ptr(),
                names.as_ptr(),
            )
        };
        check("nvrtcCreateProgram", result).map(|()| Self(program))
    }

    /// A text or an image: its size, then itself.
    fn get(
        &self,
        call: &'static str,
        size: unsafe fn(nvrtcProgram, *mut usize) -> nvrtcResult,
        get: unsafe fn(nvrtcProgram, *mut c_char) -> nvrtcResult,
    ) -> std::result::Result<Vec<u8>, String> {
        let mut bytes = 0;
        // SAFETY: writes one number.
        check(call, unsafe { size(self.0, &mut bytes) })?;
        let mut data = vec![0u8; bytes];
        // SAFETY: writes as many bytes as it said.
        check(call, unsafe { get(self.0, data.as_mut_ptr().cast()) })?;
        Ok(data)
    }
}

impl Compiler {
    /// # Errors
    /// [`Error::NoDevice`] where NVRTC is missing.
    pub fn new(settings: &Settings) -> Result<Self> {
        Dependency::Nvrtc.load(settings)?;
        let (mut major, mut minor, mut count) = (0, 0, 0);
        let failed = |what| Error::NoDevice { what };
        // SAFETY: writes two numbers, then one.
        unsafe {
            check("nvrtcVersion", sys::nvrtcVersion(&mut major, &mut minor)).map_err(failed)?;
            check("nvrtcGetNumSupportedArchs", sys::nvrtcGetNumSupportedArchs(&mut count)).map_err(failed)?;
        }
        let mut architectures = vec![0; usize::try_from(count).unwrap_or(0)];
        // SAFETY: writes as many numbers as it said.
        check("nvrtcGetSupportedArchs", unsafe { sys::nvrtcGetSupportedArchs(architectures.as_mut_ptr()) })
            .map_err(failed)?;
        architectures.sort_unstable();
        let cache = settings.cache.clone().or_else(|| {
            let variable = |name| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
            let home = variable("XDG_CACHE_HOME").or_else(|| Some(variable("HOME")?.join(".cache")));
            Some(home?.join("mtnlg").join("kernels"))
        });
        Ok(Self { version: (major, minor), architectures, cache })
    }

    pub fn version(&self) -> (i32, i32) {
        self.version
    }

    /// The target for a device of that capability: its own code, or, where NVRTC is older than the device, what the driver can translate.
    fn target(&self, (major, minor): (i32, i32)) -> std::result::Result<String, String> {
        let wanted = major * 10 + minor;
        if self.architectures.contains(&wanted) {
            return Ok(format!("sm_{wanted}"));
        }
        let below = self.architectures.iter().rev().find(|known| **known <= wanted);
        below.map(|known| format!("compute_{known}")).ok_or_else(|| {
            format!(
                "NVRTC {}.{} makes no code for a device of capability {major}.{minor}",
                self.version.0, self.version.1
            )
        })
    }

    /// Compiles, whatever the cache has.
    ///
    /// # Errors
    /// What the compiler says, in words.
    pub fn compile(
        &self,
        name: &str,
        source: &str,
        defines: &[(&str, &str)],
        capability: (i32, i32),
    ) -> std::result::Result<Compiled, String> {
        let options = self.options(defines, capability)?;
        let program = Program::new(name, source)?;
        let strings = options
            .iter()
            .map(|option| CString::new(option.as_str()).unwrap_or_default())
            .collect::<Vec<_>>();
        let pointers = strings.iter().map(|s| s.as_ptr()).collect::<Vec<_>>();
        // SAFETY: a live program, strings that end.
        let result = unsafe { sys::nvrtcCompileProgram(program.0, pointers.len() as i32, pointers.as_ptr()) };
        let log = program.get("nvrtcGetProgramLog", sys::nvrtcGetProgramLogSize, sys::nvrtcGetProgramLog)?;
        let log = String::from_utf8_lossy(&log).trim_end_matches('\0').to_owned();
        check("nvrtcCompileProgram", result)
            .map_err(|error| format!("{error}: {name} {options:?}\n{log}"))?;
        let image = match options[0].contains("sm_") {
            true => program.get("nvrtcGetCUBIN", sys::nvrtcGetCUBINSize, sys::nvrtcGetCUBIN)?,
            false => program.get("nvrtcGetPTX", sys::nvrtcGetPTXSize, sys::nvrtcGetPTX)?,
        };
        Ok(Compiled { image, log })
    }

    fn options(
        &self,
        defines: &[(&str, &str)],
        capability: (i32, i32),
    ) -> std::result::Result<Vec<String>, String> {
        let mut options = vec![format!("--gpu-architecture={}", self.target(capability)?)];
        options.extend(["--std=c++17", "--ptxas-options=-v"].map(str::to_owned));
        options.extend(defines.iter().map(|(name, value)| format!("--define-macro={name}={value}")));
        Ok(options)
    }

    /// From the cache, or compiled and put there. A cache that can't be written costs time, nothing else.
    ///
    /// # Errors
    /// As [`compile`](Self::compile).
    pub fn image(
        &self,
        name: &str,
        source: &str,
        defines: &[(&str, &str)],
        capability: (i32, i32),
    ) -> std::result::Result<Vec<u8>, String> {
        self.kept("bin", name, source, defines, capability, |compiled| compiled.image)
    }

    /// What the compiler says: as [`image`](Self::image).
    ///
    /// # Errors
    /// As [`compile`](Self::compile).
    pub fn log(
        &self,
        name: &str,
        source: &str,
        defines: &[(&str, &str)],
        capability: (i32, i32),
    ) -> std::result::Result<String, String> {
        let log =
            self.kept("log", name, source, defines, capability, |compiled| compiled.log.into_bytes())?;
        Ok(String::from_utf8_lossy(&log).into_owned())
    }

    /// A part of what compiling gives, from the file of that kind in the cache.
    fn kept(
        &self,
        kind: &str,
        name: &str,
        source: &str,
        defines: &[(&str, &str)],
        capability: (i32, i32),
        part: impl Fn(Compiled) -> Vec<u8>,
    ) -> std::result::Result<Vec<u8>, String> {
        let options = self.options(defines, capability)?;
        let mut hash = blake3::Hasher::new();
        let mut add = |text: &str| {
            hash.update(&(text.len() as u64).to_le_bytes());
            hash.update(text.as_bytes());
        };
        add(&format!("{:?}", self.version));
        add(source);
        HEADERS.iter().for_each(|(name, text)| [name, text].into_iter().for_each(|text| add(text)));
        options.iter().for_each(|option| add(option));
        let path =
            self.cache.as_ref().map(|cache| cache.join(format!("{}.{kind}", hash.finalize().to_hex())));
        if let Some(kept) = path.as_ref().and_then(|path| std::fs::read(path).ok()).and_then(sealed) {
            return Ok(kept);
        }
        let made = part(self.compile(name, source, defines, capability)?);
        if let Some(path) = path {
            let _ = store(&path, &made);
        }
        Ok(made)
    }
}

/// What a file of the cache holds behind its hash, if it is whole.
fn sealed(file: Vec<u8>) -> Option<Vec<u8>> {
    let (seal, image) = file.split_at_checked(32)?;
    (blake3::hash(image).as_bytes() == seal).then(|| image.to_vec())
}

/// Written beside and renamed: other ranks may write the same file.
fn store(path: &std::path::Path, image: &[u8]) -> std::io::Result<()> {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    if let Some(directory) = path.parent() {
        std::fs::create_dir_all(directory)?;
    }
    let beside = path.with_extension(format!("{}-{}", std::process::id(), NEXT.fetch_add(1, Relaxed)));
    std::fs::write(&beside, [blake3::hash(image).as_bytes(), image].concat())?;
    std::fs::rename(&beside, path).inspect_err(|_| drop(std::fs::remove_file(&beside)))
}

#[cfg(test)]
mod tests {
    use super::sealed;

    #[test]
    fn a_torn_file_is_not_taken() {
        let image = b"code".to_vec();
        let whole = [blake3::hash(&image).as_bytes(), &image[..]].concat();
        assert_eq!(sealed(whole.clone()), Some(image));
        assert_eq!(sealed(whole[..whole.len() - 1].to_vec()), None);
        assert_eq!(sealed(vec![1, 2, 3]), None);
    }
}
