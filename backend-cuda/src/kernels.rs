//! The kernels' sources, and every variant of them that the backend launches.

use backend::DType;

use crate::compiler::Compiler;
use crate::libraries::Settings;

macro_rules! texts {
    ($($name:literal)*) => { &[$(($name, include_str!(concat!("../kernels/", $name)))),*] };
}

/// What kernels include.
pub(crate) const HEADERS: &[(&str, &str)] =
    texts!("common.cuh" "philox.cuh" "gelu.cuh" "attention.cuh" "tensor.cuh");

/// One file an operation, or a family of them.
const SOURCES: &[(&str, &str)] = texts!(
    "adamw.cu" "attention.cu" "attention_cached.cu" "bias.cu" "cast.cu" "cross_entropy.cu" "dropout.cu" "elementwise.cu" "embedding.cu" "flash.cu" "gelu.cu" "layernorm.cu" "loss.cu"
    "matmul.cu" "matmul_tensor.cu" "squares.cu" "sum.cu"
);

/// A file and what is defined when it is compiled; unused places are empty.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Variant {
    pub file: &'static str,
    pub defines: [(&'static str, &'static str); 3],
}

impl Variant {
    pub fn source(&self) -> &'static str {
        SOURCES.iter().find(|(name, _)| *name == self.file).map_or("", |(_, text)| text)
    }

    /// The places that are used.
    pub fn defines(&self) -> impl Iterator<Item = (&'static str, &'static str)> + use<> {
        self.defines.into_iter().filter(|(name, _)| !name.is_empty())
    }

    /// A file without variants.
    pub const fn plain(file: &'static str) -> Self {
        Self { file, defines: [("", ""); 3] }
    }

    /// Of elements of that type.
    pub fn of(file: &'static str, dtype: DType) -> Self {
        Self { file, defines: [("ELEMENT", element(dtype)), ("", ""), ("", "")] }
    }

    /// With another definition.
    pub fn and(self, name: &'static str, value: &'static str) -> Self {
        let mut defines = self.defines;
        if let Some(place) = defines.iter_mut().find(|(name, _)| name.is_empty()) {
            *place = (name, value);
        }
        Self { defines, ..self }
    }

    /// Attention on tensor cores for heads of that size, if there is a kernel; `exact`: see flash.cu.
    pub fn flash(dtype: DType, d: usize, exact: bool) -> Option<Self> {
        let narrow = matches!(dtype, DType::Bf16 | DType::F16);
        let (_, head) = HEADS.iter().find(|(size, _)| narrow && *size == d)?;
        Some(Self::of("flash.cu", dtype).and("HEAD", head).and("EXACT", if exact { "1" } else { "0" }))
    }

    /// Products on tensor cores; `layout`: see matmul_tensor.cu.
    pub fn matmul_tensor(factors: DType, result: DType, layout: u32) -> Self {
        let layout = ["0", "1", "2"][layout as usize];
        Self::of("matmul_tensor.cu", factors).and("RESULT", element(result)).and("LAYOUT", layout)
    }

    /// All that the backend launches.
    pub fn all() -> Vec<Self> {
        const FLOATS: [DType; 3] = [DType::F32, DType::Bf16, DType::F16];
        let mut all = ["adamw.cu", "loss.cu", "squares.cu"].map(Self::plain).to_vec();
        for dtype in FLOATS {
            let of_one = [
                "attention.cu",
                "attention_cached.cu",
                "bias.cu",
                "dropout.cu",
                "elementwise.cu",
                "embedding.cu",
                "gelu.cu",
                "layernorm.cu",
                "sum.cu",
            ];
            all.extend(of_one.map(|file| Self::of(file, dtype)));
            for exact in [true, false] {
                all.extend(HEADS.iter().filter_map(|(d, _)| Self::flash(dtype, *d, exact)));
            }
            for other in FLOATS {
                all.push(Self::of("cast.cu", dtype).and("SOURCE", element(other)));
                all.push(Self::of("cross_entropy.cu", dtype).and("GRADIENT", element(other)));
                if other == dtype || other == DType::F32 {
                    all.push(Self::of("matmul.cu", dtype).and("RESULT", element(other)));
                    let layouts = if dtype == DType::F32 { 0..0 } else { 0..3 };
                    all.extend(layouts.map(|layout| Self::matmul_tensor(dtype, other, layout)));
                }
            }
        }
        all
    }
}

/// Head sizes of the kernels on tensor cores. MT-NLG's is 160.
const HEADS: [(usize, &str); 5] = [(64, "64"), (80, "80"), (96, "96"), (128, "128"), (160, "160")];

/// The type's name in kernels.
pub(crate) fn element(dtype: DType) -> &'static str {
    match dtype {
        DType::F32 => "float",
        DType::Bf16 => "bf16",
        DType::F16 => "f16",
        DType::U32 => "u32",
    }
}

/// What one kernel needs of a multiprocessor.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Resources {
    /// Its name.
    pub kernel: String,
    /// Registers a thread.
    pub registers: u32,
    /// Static shared memory a block, in bytes.
    pub shared: u32,
    /// Bytes a thread that do not fit into registers, stored and loaded.
    pub spills: u32,
    /// Bytes a thread of stack.
    pub stack: u32,
}

/// A compiled variant.
#[derive(Clone, Debug)]
pub struct Report {
    /// The file and what was defined.
    pub variant: String,
    /// Its kernels.
    pub kernels: Vec<Resources>,
}

/// Compiles every variant for a device of that capability, which need not be there, and says what the kernels need. What the compiler said is kept with the
/// compiled kernels, and what is kept is not compiled again.
///
/// # Errors
/// [`NoDevice`](backend::Error::NoDevice) without NVRTC; [`Device`](backend::Error::Device) with the compiler's words.
pub fn report(settings: &Settings, capability: (i32, i32)) -> backend::Result<Vec<Report>> {
    let compiler = Compiler::new(settings)?;
    let one = |variant: Variant| {
        let defines = variant.defines().collect::<Vec<_>>();
        let log = compiler.log(variant.file, variant.source(), &defines, capability);
        let log = log.map_err(|what| backend::Error::Device { what })?;
        let words = defines.iter().map(|(name, value)| format!(" {name}={value}"));
        Ok(Report {
            variant: format!("{}{}", variant.file, words.collect::<String>()),
            kernels: resources(&log),
        })
    };
    let variants = Variant::all();
    let share = variants.len().div_ceil(std::thread::available_parallelism().map_or(1, usize::from));
    std::thread::scope(|scope| {
        let shares = variants.chunks(share);
        let threads: Vec<_> =
            shares.map(|share| scope.spawn(|| share.iter().copied().map(one).collect::<Vec<_>>())).collect();
        threads.into_iter().flat_map(|thread| thread.join().expect("the compiler does not panic")).collect()
    })
}

/// Reads the assembler's lines: `Function properties for NAME`, `… bytes stack frame, … bytes spill stores, … bytes spill loads`, `Used … registers, …`.
fn resources(log: &str) -> Vec<Resources> {
    let number_before = |line: &str, words: &str| -> u32 {
        let before = line.find(words).map_or("", |at| line[..at].trim_end());
        before.rsplit(|c: char| !c.is_ascii_digit()).next().and_then(|n| n.parse().ok()).unwrap_or(0)
    };
    let mut all: Vec<Resources> = Vec::new();
    for line in log.lines() {
        if let Some((_, name)) = line.split_once("Function properties for ") {
            all.push(Resources {
                kernel: name.trim().to_owned(),
                registers: 0,
                shared: 0,
                spills: 0,
                stack: 0,
            });
        }
        let Some(last) = all.last_mut() else { continue };
        if line.contains("spill stores") {
            last.stack = number_before(line, " bytes stack frame");
            last.spills =
                number_before(line, " bytes spill stores") + number_before(line, " bytes spill loads");
        }
        if line.contains(" registers") {
            last.registers = number_before(line, " registers");
            last.shared = number_before(line, " bytes smem");
        }
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_assemblers_lines() {
        let log = "ptxas info    : 0 bytes gmem\nptxas info    : Compiling entry function 'fill' for 'sm_80'\nptxas info    : Function properties for fill\n    \
                   16 bytes stack frame, 8 bytes spill stores, 12 bytes spill loads\nptxas info    : Used 42 registers, used 1 barriers, 128 bytes smem, 376 bytes cmem[0]\n";
        let fill = Resources { kernel: "fill".to_owned(), registers: 42, shared: 128, spills: 20, stack: 16 };
        assert_eq!(resources(log), [fill]);
    }

    #[test]
    fn every_variant_has_a_source() {
        let mut files: Vec<_> = Variant::all().iter().map(|v| v.file).collect();
        assert!(Variant::all().iter().all(|variant| !variant.source().is_empty()));
        files.sort_unstable();
        files.dedup();
        assert_eq!(files, SOURCES.iter().map(|(name, _)| *name).collect::<Vec<_>>());
    }
}
