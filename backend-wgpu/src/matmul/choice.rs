//! Which kernel makes the products of a shape class: by rule, or the winner of a contest.
//!
//! A contest is held on the first product of its class, on the product's own operands: each kernel that has passed its [test](super::qualify) makes the product a few times,
//! and the fastest makes all others of the class. Making it again changes nothing, since a product that reads what it writes (`beta`) holds no contest, and every kernel
//! of [`Kernels::SameBits`] makes the same bits. Contests take [`BUDGET`] a run at the most; whatever class comes later goes by the rule until another run measures it.
//!
//! What was found is kept in a file, a line a class: adapter, driver, hash of the shaders, class, kernel. A line of another driver or other shaders is of no account.

use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use backend::DType;
use backend::ops::MatmulDims;

use super::MatmulKernel;
use crate::adapter::AdapterInfo;
use crate::queue::Launch;
use crate::setup::{Kernels, Setup};
use crate::shaders;

/// What contests may take in all, first compilations included.
const BUDGET: Duration = Duration::from_secs(4);
/// Times that a kernel makes a product in a contest, after once to warm up.
const ROUNDS: usize = 2;
/// The file's name in the cache folder.
const FILE: &str = "matmul-kernels.tsv";

/// Products that the same kernel makes: the same variant of each kernel, and extents alike.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Class {
    /// Whether the factors are transposed.
    pub trans: [bool; 2],
    /// The type of the factors, and of the product.
    pub dtypes: [DType; 2],
    /// Whether the axes are multiples of four.
    pub fours: bool,
    /// One matrix, or many.
    pub batched: bool,
    /// Magnitudes of m, n and k.
    pub sizes: [u8; 3],
}

impl Class {
    pub fn new(trans: [bool; 2], dtypes: [DType; 2], dims: MatmulDims) -> Self {
        let MatmulDims { batch, m, n, k } = dims;
        // To 64, 256, 1024, 4096, and above.
        let size = |extent: usize| [64, 256, 1024, 4096].iter().filter(|&&most| extent > most).count() as u8;
        let fours = [m, n, k].iter().all(|extent| extent % 4 == 0);
        Self { trans, dtypes, fours, batched: batch > 1, sizes: [m, n, k].map(size) }
    }

    /// As the file and the user read it: `f32 f32 nt m2 n1 k3`.
    fn name(&self) -> String {
        let letter = |trans| if trans { 't' } else { 'n' };
        let [a, b] = self.trans.map(letter);
        let [m, n, k] = self.sizes;
        let [factors, product] = self.dtypes;
        let fours = if self.fours { "" } else { " odd" };
        let batched = if self.batched { " batched" } else { "" };
        format!("{factors} {product} {a}{b} m{m} n{n} k{k}{fours}{batched}")
    }
}

/// The kernel of a class, once it is known.
type Slot = Arc<OnceLock<MatmulKernel>>;

/// Whether a kernel has passed its test, once it is known.
type Verdict = Arc<OnceLock<bool>>;

/// A product that several kernels could make.
pub(crate) struct Contest {
    pub class: Class,
    /// Each one's launches, those of the rule first.
    pub candidates: Vec<(MatmulKernel, Vec<Launch>)>,
}

impl Contest {
    /// The launches of a candidate.
    pub fn launches(&self, kernel: MatmulKernel) -> &[Launch] {
        let of = self.candidates.iter().find(|(candidate, _)| *candidate == kernel);
        of.or(self.candidates.first()).map_or(&[], |(_, launches)| launches)
    }
}

/// What is known of the classes on one device.
pub(crate) struct Choices {
    kernels: Kernels,
    slots: Mutex<HashMap<Class, Slot>>,
    tested: Mutex<HashMap<(Class, MatmulKernel), Verdict>>,
    spent: Mutex<Duration>,
    /// Adapter, driver and shaders: the first columns of the file's lines.
    key: String,
    path: Option<PathBuf>,
    /// What earlier runs found on this device, by the class's name.
    known: HashMap<String, MatmulKernel>,
    say: Option<fn(&str)>,
}

impl Choices {
    /// What the setup's cache knows of the adapter.
    pub fn new(setup: &Setup, info: &AdapterInfo) -> Self {
        let key = format!("{}\t{}\t{:016x}", clean(&info.name), clean(&info.driver), hash());
        let path = setup.cache.as_ref().map(|dir| dir.join(FILE));
        let allowed = |kernel: &MatmulKernel| {
            kernel.runs_on(info) && (kernel.in_order() || setup.kernels == Kernels::Fastest)
        };
        let mut known = HashMap::new();
        if setup.kernels != Kernels::Fixed
            && let Some(text) = path.as_ref().and_then(|path| std::fs::read_to_string(path).ok())
        {
            for line in text.lines() {
                let rest = line.strip_prefix(&key).and_then(|rest| rest.strip_prefix('\t'));
                let Some((class, kernel)) = rest.and_then(|rest| rest.split_once('\t')) else { continue };
                if let Some(kernel) = MatmulKernel::named(kernel).filter(allowed) {
                    known.insert(class.to_owned(), kernel);
                }
            }
        }
        Self {
            kernels: setup.kernels,
            slots: Mutex::default(),
            tested: Mutex::default(),
            spent: Mutex::default(),
            key,
            path,
            known,
            say: setup.say,
        }
    }

    /// Whether the kernel may take part in contests.
    pub fn admits(&self, kernel: MatmulKernel, info: &AdapterInfo) -> bool {
        // On a processor lanes take turns at every barrier: kernels that stage blocks are an order of magnitude behind there, and not worth their compilation.
        let staged = matches!(kernel, MatmulKernel::Tiled64 | MatmulKernel::Tiled128);
        kernel.runs_on(info)
            && !(info.software && staged)
            && (kernel.in_order() || self.kernels == Kernels::Fastest)
    }

    /// The kernel of the class where nothing is to be found out: by the rule, known, or found.
    pub fn decided(&self, class: Class, rule: MatmulKernel) -> Option<MatmulKernel> {
        if self.kernels == Kernels::Fixed {
            return Some(rule);
        }
        let slot = self.slot(class);
        if slot.get().is_none() {
            if let Some(&known) = self.known.get(&class.name()) {
                let _ = slot.set(known);
            } else if self.exhausted() {
                let _ = slot.set(rule);
            }
        }
        slot.get().copied()
    }

    /// The rule's kernel has no rival in the class.
    pub fn settle(&self, class: Class, rule: MatmulKernel) {
        let _ = self.slot(class).set(rule);
    }

    /// Whether a kernel has passed in the variants of the class; `test` finds out.
    pub fn passed(&self, class: Class, kernel: MatmulKernel, test: impl FnOnce() -> bool) -> bool {
        // Extents do not make variants.
        let variants = Class { sizes: [0; 3], ..class };
        let mut tested = self.tested.lock().unwrap_or_else(PoisonError::into_inner);
        let result = Arc::clone(tested.entry((variants, kernel)).or_default());
        drop(tested);
        *result.get_or_init(|| {
            let start = Instant::now();
            let passed = test();
            self.spend(start.elapsed());
            passed
        })
    }

    fn slot(&self, class: Class) -> Slot {
        Arc::clone(self.slots.lock().unwrap_or_else(PoisonError::into_inner).entry(class).or_default())
    }

    fn exhausted(&self) -> bool {
        *self.spent.lock().unwrap_or_else(PoisonError::into_inner) >= BUDGET
    }

    fn spend(&self, time: Duration) {
        *self.spent.lock().unwrap_or_else(PoisonError::into_inner) += time;
    }

    /// The winner of the contest, held now if it was not; `run` makes the product by those launches, and says how long it took.
    pub fn winner(
        &self,
        contest: &Contest,
        mut run: impl FnMut(&[Launch]) -> Option<Duration>,
    ) -> MatmulKernel {
        let slot = self.slot(contest.class);
        let Some((rule, _)) = contest.candidates.first() else { return MatmulKernel::Registers };
        if let Some(&kernel) = slot.get() {
            return kernel;
        }
        if self.exhausted() {
            return *slot.get_or_init(|| *rule);
        }
        let start = Instant::now();
        let mut times: Vec<(Duration, MatmulKernel)> = Vec::new();
        for (kernel, launches) in &contest.candidates {
            // The first time may compile.
            run(launches);
            let rounds: Vec<_> = (0..ROUNDS).map(|_| run(launches)).collect();
            if let Some(Some(best)) = rounds.into_iter().min() {
                times.push((best, *kernel));
            }
        }
        self.spend(start.elapsed());
        // An equal does not replace the rule's.
        let Some((_, kernel)) = times.iter().min_by_key(|(time, _)| *time).copied() else {
            return *slot.get_or_init(|| *rule);
        };
        if let Some(say) = self.say {
            let all: Vec<_> = times
                .iter()
                .map(|(time, kernel)| format!("{} {:.2} ms", kernel.name(), 1e3 * time.as_secs_f64()))
                .collect();
            say(&format!("matmul {}: {} ({})", contest.class.name(), kernel.name(), all.join(", ")));
        }
        self.keep(contest.class, kernel);
        *slot.get_or_init(|| kernel)
    }

    /// Writes what was found into the file, beside what is there.
    fn keep(&self, class: Class, kernel: MatmulKernel) {
        let Some(path) = &self.path else { return };
        let own = format!("{}\t{}\t", self.key, class.name());
        let old = std::fs::read_to_string(path).unwrap_or_default();
        let mut lines: Vec<&str> = old.lines().filter(|line| !line.starts_with(&own)).collect();
        let line = format!("{own}{}", kernel.name());
        lines.push(&line);
        lines.sort_unstable();
        if let Err(error) = replace(path, &(lines.join("\n") + "\n"))
            && let Some(say) = self.say
        {
            say(&format!(
                "{} cannot be written ({error}): the kernels are measured again next time",
                path.display()
            ));
        }
    }
}

/// Replaces a file at once: readers see the old or the new.
fn replace(path: &Path, text: &str) -> std::io::Result<()> {
    if let Some(dir) = path.parent() {
        std::fs::create_dir_all(dir)?;
    }
    let beside = path.with_extension(format!("tsv.{}", std::process::id()));
    let mut file = std::fs::File::create(&beside)?;
    file.write_all(text.as_bytes())?;
    drop(file);
    std::fs::rename(&beside, path).inspect_err(|_| drop(std::fs::remove_file(&beside)))
}

/// A name without what separates columns and lines.
fn clean(name: &str) -> String {
    name.replace(['\t', '\n', '\r'], " ")
}

/// Of every shader's text.
fn hash() -> u64 {
    let mut hasher = DefaultHasher::new();
    shaders::FILES.hash(&mut hasher);
    hasher.finish()
}
