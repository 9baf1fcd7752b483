//! Operands in WGSL: how a storage buffer is declared, and the functions by which a kernel reads and writes it.
//!
//! A kernel says what it computes with (f32 or u32, one or four at a time); the host says what lies in memory. Every buffer is an array of words, and these
//! functions convert:
//!
//! | function | |
//! |---|---|
//! | `load_x(i)`, `store_x(i, v)` | element i of the operand, counted in its own type: vector i where it is taken in fours |
//! | `rounded_x(v)` | the four numbers that a store of `v` leaves in memory |
//! | `load4_x(at, left)`, `store4_x(at, left, v)` | elements `at .. at + 4`, of which `left` (at least 1) exist: the others are read as 0 and not written |
//!
//! With `load4`, a kernel does the same arithmetic in the same order whether memory is fetched in vectors (`WIDE`) or one element at a time, so that the
//! bits of its results do not depend on where an operand begins or how long its rows are.
//!
//! Two 16-bit elements share a word, element 2 i in its lower half. In vectors a lane owns its words. One element at a time, two lanes may own the halves of one word: they
//! change their half by an atomic exclusive-or of its old and new bits, which commutes with whatever happens to the other half.

use std::fmt::Write;

/// What an element is in memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Element {
    /// f32 or u32: a word.
    Word,
    /// The upper half of an f32.
    Bf16,
    /// IEEE 754 binary16, converted by `lib/half.wgsl`.
    F16,
    /// The same, converted by the device; only read, since WGSL leaves the rounding of a store to the implementation.
    NativeF16,
}

impl Element {
    /// Bytes of one.
    pub fn size(self) -> u64 {
        match self {
            Element::Word => 4,
            Element::Bf16 | Element::F16 | Element::NativeF16 => 2,
        }
    }
}

/// A declared operand.
pub struct Operand {
    /// Name in the kernel.
    pub name: String,
    /// What the kernel computes with: `f32`, `u32`, `vec4<f32>` or `vec4<u32>`.
    pub ty: String,
    /// What is in memory.
    pub element: Element,
    /// The variable, which is named after the first operand of the binding.
    pub variable: String,
    /// What the variable is an array of.
    pub storage: &'static str,
}

impl Operand {
    /// The storage of an operand of type `ty`; `shared` if lanes may write halves of one word.
    pub fn storage(ty: &str, element: Element, shared: bool) -> &'static str {
        match (ty.starts_with("vec4"), element) {
            (true, Element::NativeF16) => "vec4<f16>",
            (false, Element::NativeF16) => "f16",
            (true, Element::Word) => "vec4<u32>",
            (true, _) => "vec2<u32>",
            (false, _) if shared => "atomic<u32>",
            (false, _) => "u32",
        }
    }

    /// Appends those of the operand's functions that `text` mentions.
    pub fn append_functions(&self, text: &mut String) {
        let name = &self.name;
        let mentions = |text: &String, function: &str| text.contains(&format!("{function}_{name}("));
        let (load4, store4) = (mentions(text, "load4"), mentions(text, "store4"));
        let (load, store) = (mentions(text, "load") || load4, mentions(text, "store") || store4);
        for (wanted, function) in [
            (load4, Self::load4 as fn(&Self) -> String),
            (store4, Self::store4),
            (load, Self::load),
            (mentions(text, "rounded"), Self::rounded),
            (store, Self::store),
        ] {
            if wanted {
                text.push_str(&function(self));
            }
        }
    }

    fn wide(&self) -> bool {
        self.ty.starts_with("vec4")
    }

    /// The expression for word `at`.
    fn word(&self, at: &str) -> String {
        match self.storage {
            "atomic<u32>" => format!("atomicLoad(&{}[{at}])", self.variable),
            _ => format!("{}[{at}]", self.variable),
        }
    }

    /// The expression for what the bits mean: `bits` is a u32, or four where the type is.
    fn value(&self, bits: &str) -> String {
        let ty = &self.ty;
        match (ty.contains("u32"), self.element) {
            (true, _) => bits.to_owned(),
            (false, Element::Word) => format!("bitcast<{ty}>({bits})"),
            (false, Element::Bf16) => {
                format!("bitcast<{ty}>(({bits}) << {})", if self.wide() { "vec4<u32>(16u)" } else { "16u" })
            }
            (false, Element::NativeF16) => format!("{ty}({bits})"),
            (false, Element::F16) if self.wide() => format!("f16_values({bits})"),
            (false, Element::F16) => format!("f16_values(vec4<u32>({bits})).x"),
        }
    }

    /// The expression for the bits of `v`.
    fn bits(&self) -> &'static str {
        match (self.ty.contains("u32"), self.element, self.wide()) {
            (true, ..) => "v",
            (false, Element::Word, true) => "bitcast<vec4<u32>>(v)",
            (false, Element::Word, false) => "bitcast<u32>(v)",
            (false, Element::Bf16, true) => "bf16_bits(v)",
            (false, Element::Bf16, false) => "bf16_bits(vec4<f32>(v)).x",
            (false, Element::F16, true) => "f16_bits(v)",
            (false, Element::F16, false) => "f16_bits(vec4<f32>(v)).x",
            (false, Element::NativeF16, _) => unreachable!("what is read natively is not written"),
        }
    }

    fn load(&self) -> String {
        let Self { name, ty, variable, .. } = self;
        let mut text = format!("fn load_{name}(i: u32) -> {ty} {{\n    let at = p.{name}_at + i;\n");
        let value = match (self.element, self.wide()) {
            (Element::NativeF16, _) => self.value(&format!("{variable}[at]")),
            (Element::Word, true) => self.value(&format!("{variable}[at]")),
            (Element::Word, false) => self.value(&self.word("at")),
            (_, true) => {
                let _ = writeln!(text, "    let w = {variable}[at];");
                self.value("vec4<u32>(w.x & 0xffffu, w.x >> 16u, w.y & 0xffffu, w.y >> 16u)")
            }
            (_, false) => self.value(&format!("({} >> ((at & 1u) * 16u)) & 0xffffu", self.word("at >> 1u"))),
        };
        let _ = writeln!(text, "    return {value};\n}}");
        text
    }

    fn store(&self) -> String {
        let Self { name, ty, variable, .. } = self;
        let bits = self.bits();
        let body = match (self.element, self.wide()) {
            (Element::Word, false) if self.storage == "atomic<u32>" => {
                format!("    atomicStore(&{variable}[at], {bits});\n")
            }
            (Element::Word, _) => format!("    {variable}[at] = {bits};\n"),
            (_, true) => format!(
                "    let b = {bits};\n    {variable}[at] = vec2<u32>(b.x | (b.y << 16u), b.z | (b.w << 16u));\n"
            ),
            (_, false) => format!(
                "    let shift = (at & 1u) * 16u;\n    let change = ((atomicLoad(&{variable}[at >> 1u]) >> shift) ^ ({bits})) & 0xffffu;\n    atomicXor(&{variable}[at >> 1u], change << shift);\n"
            ),
        };
        format!("fn store_{name}(i: u32, v: {ty}) {{\n    let at = p.{name}_at + i;\n{body}}}\n")
    }

    fn rounded(&self) -> String {
        let value = match self.element {
            Element::Word | Element::NativeF16 => "v",
            Element::Bf16 => "bitcast<vec4<f32>>(bf16_bits(v) << vec4<u32>(16u))",
            Element::F16 => "f16_values(f16_bits(v))",
        };
        format!("fn rounded_{}(v: vec4<f32>) -> vec4<f32> {{\n    return {value};\n}}\n", self.name)
    }

    /// The type of four elements.
    fn four(&self) -> &'static str {
        if self.ty.contains("u32") { "vec4<u32>" } else { "vec4<f32>" }
    }

    fn load4(&self) -> String {
        let (name, four) = (&self.name, self.four());
        let head = format!("fn load4_{name}(at: u32, left: u32) -> {four} {{\n");
        if self.wide() {
            return format!("{head}    return load_{name}(at / 4u);\n}}\n");
        }
        let mut text = format!("{head}    var v = {four}();\n    v.x = load_{name}(at);\n");
        for (i, part) in ["y", "z", "w"].iter().enumerate() {
            let i = i + 1;
            let _ =
                writeln!(text, "    if (left > {i}u) {{\n        v.{part} = load_{name}(at + {i}u);\n    }}");
        }
        text.push_str("    return v;\n}\n");
        text
    }

    fn store4(&self) -> String {
        let (name, four) = (&self.name, self.four());
        let head = format!("fn store4_{name}(at: u32, left: u32, v: {four}) {{\n");
        if self.wide() {
            return format!("{head}    store_{name}(at / 4u, v);\n}}\n");
        }
        let mut text = format!("{head}    store_{name}(at, v.x);\n");
        for (i, part) in ["y", "z", "w"].iter().enumerate() {
            let i = i + 1;
            let _ =
                writeln!(text, "    if (left > {i}u) {{\n        store_{name}(at + {i}u, v.{part});\n    }}");
        }
        text.push_str("}\n");
        text
    }
}
