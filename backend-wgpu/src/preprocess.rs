//! The shaders' preprocessor: from a file of `shaders/` and a variant's definitions to plain WGSL.
//!
//! | directive | |
//! |---|---|
//! | `#include "lib/x.wgsl"` | that file, once |
//! | `#define NAME words` | from here on the identifier `NAME` stands for the words, which may hold other names |
//! | `#if NAME`, `#if !NAME`, `#else`, `#endif` | kept if `NAME` is defined as something else than 0 (or is not); may be nested |
//! | `#for NAME COUNT`, `#end` | the lines between, COUNT times, with `{NAME}` counting from 0; may be nested |
//! | `#operand NAME read TYPE`, `#operand NAME write TYPE` | the next operand, computed with as `TYPE`; see [`Operand`] for its functions |
//!
//! An operand that shares a buffer with another one (one of them written) must share its binding too: WebGPU forbids two bindings of a buffer in one
//! dispatch unless both only read. [`Bindings`] says which do; the preprocessor then declares one variable. A kernel never notices, since
//! the operands' functions begin at offsets of their own, passed in its parameters.

use std::collections::HashMap;

use crate::operand::{Element, Operand};

/// The most operands of one kernel.
pub const MAX_OPERANDS: usize = 16;
/// The most storage buffers of one dispatch: WebGPU's portable limit.
pub const MAX_BINDINGS: usize = 8;

/// Which binding each operand has, in the order of the `#operand` lines.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Bindings {
    /// Binding of each operand.
    pub of: [u8; MAX_OPERANDS],
    /// What each operand holds in memory.
    pub elements: [Element; MAX_OPERANDS],
    /// Number of operands.
    pub operands: u8,
    /// Bit i: binding i is written.
    pub written: u16,
}

impl Bindings {
    /// f16 that is only read is read by the device's own conversion.
    pub fn read_natively(&mut self) {
        for (element, of) in self.elements.iter_mut().zip(self.of) {
            if *element == Element::F16 && self.written >> of & 1 == 0 {
                *element = Element::NativeF16;
            }
        }
    }

    /// Number of bindings.
    pub fn count(&self) -> usize {
        self.of[..usize::from(self.operands)].iter().max().map_or(0, |&last| usize::from(last) + 1)
    }
}

/// Expands `path` of `files` under the definitions.
///
/// # Errors
/// A sentence with the file and line: an unknown file or directive, an `#if` left open, operands that do not fit the bindings.
pub fn expand(
    files: &[(&str, &str)],
    path: &str,
    defines: &[(&str, u32)],
    bindings: &Bindings,
) -> Result<String, String> {
    let mut expansion = Expansion {
        files,
        included: Vec::new(),
        names: defines.iter().map(|(name, value)| ((*name).to_owned(), value.to_string())).collect(),
        operands: Vec::new(),
        bindings,
        out: String::new(),
    };
    expansion.file(path)?;
    for operand in &expansion.operands {
        operand.append_functions(&mut expansion.out);
    }
    if expansion.operands.iter().any(|operand| matches!(operand.element, Element::Bf16 | Element::F16)) {
        expansion.file("lib/half.wgsl")?;
    }
    if expansion.operands.iter().any(|operand| operand.element == Element::NativeF16) {
        expansion.out.insert_str(0, "enable f16;\n");
    }
    match expansion.operands.len() == usize::from(bindings.operands) {
        true => Ok(expansion.out),
        false => Err(format!(
            "{path} declares {} operands, {} were given",
            expansion.operands.len(),
            bindings.operands
        )),
    }
}

struct Expansion<'a> {
    files: &'a [(&'a str, &'a str)],
    included: Vec<String>,
    names: HashMap<String, String>,
    operands: Vec<Operand>,
    bindings: &'a Bindings,
    out: String,
}

impl Expansion<'_> {
    fn file(&mut self, path: &str) -> Result<(), String> {
        if self.included.iter().any(|seen| seen == path) {
            return Ok(());
        }
        self.included.push(path.to_owned());
        let source = self
            .files
            .iter()
            .find(|(name, _)| *name == path)
            .ok_or_else(|| format!("no shader file {path}"))?
            .1;
        let lines: Vec<_> = source.lines().map(str::to_owned).enumerate().collect();
        self.block(path, &lines)
    }

    /// Expands numbered lines of a file, each `#if` and `#for` closed among them.
    fn block(&mut self, path: &str, lines: &[(usize, String)]) -> Result<(), String> {
        // One entry an open #if: whether its present branch is kept.
        let mut kept = Vec::new();
        let mut rest = lines;
        while let Some(((number, line), after)) = rest.split_first() {
            rest = after;
            let fail = |what: &str| format!("{path}:{}: {what}", number + 1);
            let line = line.split("//").next().unwrap_or_default().trim_end();
            let Some(directive) = line.trim_start().strip_prefix('#') else {
                if kept.iter().all(|&kept| kept) && !line.is_empty() {
                    let line = self.substitute(line);
                    self.out.push_str(&line);
                    self.out.push('\n');
                }
                continue;
            };
            let (word, words) = directive.split_once(char::is_whitespace).unwrap_or((directive, ""));
            let words = words.trim();
            match word {
                "if" => kept.push(self.holds(words)),
                "else" => {
                    let branch = kept.last_mut().ok_or_else(|| fail("#else without #if"))?;
                    *branch = !*branch;
                }
                "endif" => drop(kept.pop().ok_or_else(|| fail("#endif without #if"))?),
                "for" => {
                    let end = end_of(rest).ok_or_else(|| fail("#for without #end"))?;
                    let (body, after) = (&rest[..end], &rest[end + 1..]);
                    rest = after;
                    if kept.iter().all(|&kept| kept) {
                        self.repeat(path, words, body).map_err(|what| fail(&what))?;
                    }
                }
                _ if !kept.iter().all(|&kept| kept) => {}
                "include" => self.file(words.trim_matches('"')).map_err(|what| fail(&what))?,
                "define" => {
                    let (name, value) = words.split_once(char::is_whitespace).unwrap_or((words, "1"));
                    self.names.insert(name.to_owned(), value.trim().to_owned());
                }
                "operand" => self.operand(words).map_err(|what| fail(&what))?,
                _ => return Err(fail(&format!("unknown directive #{word}"))),
            }
        }
        match kept.is_empty() {
            true => Ok(()),
            false => Err(format!("{path}: #if without #endif")),
        }
    }

    fn repeat(&mut self, path: &str, words: &str, body: &[(usize, String)]) -> Result<(), String> {
        let (name, count) = words.split_once(char::is_whitespace).ok_or("expected #for NAME COUNT")?;
        let count: usize =
            self.substitute(count).trim().parse().map_err(|_| format!("{count} is not a number"))?;
        let placeholder = format!("{{{name}}}");
        for i in 0..count {
            let one =
                |(number, line): &(usize, String)| (*number, line.replace(&placeholder, &i.to_string()));
            self.block(path, &body.iter().map(one).collect::<Vec<_>>())?;
        }
        Ok(())
    }

    fn holds(&self, condition: &str) -> bool {
        let set = |name: &str| self.names.get(name).is_some_and(|value| value != "0");
        match condition.strip_prefix('!') {
            Some(name) => !set(name),
            None => set(condition),
        }
    }

    fn operand(&mut self, rest: &str) -> Result<(), String> {
        let words: Vec<_> = rest.split_whitespace().collect();
        let [name, access @ ("read" | "write"), element] = words[..] else {
            return Err("expected #operand NAME read|write TYPE".to_owned());
        };
        let element = self.substitute(element);
        let index = self.operands.len();
        if index >= usize::from(self.bindings.operands) {
            return Err(format!("operand {name} was not given"));
        }
        let binding = self.bindings.of[index];
        let written = self.bindings.written >> binding & 1 == 1;
        if access == "write" && !written {
            return Err(format!("operand {name} is written, but was given to be read"));
        }
        let first = self.bindings.of[..index].iter().position(|&earlier| earlier == binding);
        let in_memory = self.bindings.elements[index];
        let mut same_buffer =
            (0..usize::from(self.bindings.operands)).filter(|&i| self.bindings.of[i] == binding);
        let halves = same_buffer.any(|i| self.bindings.elements[i] != Element::Word);
        let storage = Operand::storage(&element, in_memory, written && halves);
        let variable = match first {
            Some(first) => {
                let Operand { name: its, storage: other, variable, .. } = &self.operands[first];
                if *other != storage {
                    return Err(format!("{name} and {its} share a buffer, but are {storage} and {other}"));
                }
                variable.clone()
            }
            None => {
                let mode = if written { "read_write" } else { "read" };
                self.out.push_str(&format!(
                    "@group(0) @binding({binding}) var<storage, {mode}> buffer_{name}: array<{storage}>;\n"
                ));
                format!("buffer_{name}")
            }
        };
        let name = name.to_owned();
        self.operands.push(Operand { name, ty: element, element: in_memory, variable, storage });
        Ok(())
    }

    /// The line with every defined identifier replaced, except members: `group.y` stays, whatever `y` stands for.
    fn substitute(&self, line: &str) -> String {
        let mut out = String::with_capacity(line.len());
        let mut rest = line;
        while let Some(start) = rest.find(|c: char| c.is_ascii_alphanumeric() || c == '_') {
            out.push_str(&rest[..start]);
            rest = &rest[start..];
            let end = rest.find(|c: char| !(c.is_ascii_alphanumeric() || c == '_')).unwrap_or(rest.len());
            match self.names.get(&rest[..end]) {
                Some(value) if !out.ends_with('.') => out.push_str(&self.substitute(value)),
                _ => out.push_str(&rest[..end]),
            }
            rest = &rest[end..];
        }
        out.push_str(rest);
        out
    }
}

/// Where the `#end` of a `#for` is, given what follows the `#for`.
fn end_of(lines: &[(usize, String)]) -> Option<usize> {
    let mut open = 1;
    lines.iter().position(|(_, line)| {
        match line.split_whitespace().next() {
            Some("#for") => open += 1,
            Some("#end") => open -= 1,
            _ => {}
        }
        open == 0
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bindings(of: &[u8], written: u16) -> Bindings {
        let mut all = [0; MAX_OPERANDS];
        all[..of.len()].copy_from_slice(of);
        Bindings { of: all, elements: [Element::Word; MAX_OPERANDS], operands: of.len() as u8, written }
    }

    #[test]
    fn conditions_definitions_and_includes() {
        let files = [
            (
                "a.wgsl",
                "#include \"lib/b.wgsl\"\n#include \"lib/b.wgsl\"\n#if WIDE\n#define T vec4<f32>\n#else\n#define T f32\n#endif\nlet x: T = TWO; // T\nlet TT = 1;",
            ),
            ("lib/b.wgsl", "#define TWO T(N)"),
        ];
        let text = expand(&files, "a.wgsl", &[("WIDE", 1), ("N", 2)], &bindings(&[], 0)).unwrap();
        assert_eq!(text, "let x: vec4<f32> = vec4<f32>(2);\nlet TT = 1;\n");
        let text = expand(&files, "a.wgsl", &[("WIDE", 0), ("N", 2)], &bindings(&[], 0)).unwrap();
        assert_eq!(text, "let x: f32 = f32(2);\nlet TT = 1;\n");
    }

    #[test]
    fn operands_that_share_a_buffer_share_a_binding() {
        let files = [("a.wgsl", "#operand x read f32\n#operand y write f32\nstore_y(0u, load_x(group.y));")];
        let text = expand(&files, "a.wgsl", &[], &bindings(&[0, 1], 0b10)).unwrap();
        assert!(
            text.contains("@binding(0) var<storage, read> buffer_x: array<u32>")
                && text.contains("read_write> buffer_y"),
            "{text}"
        );
        let text = expand(&files, "a.wgsl", &[], &bindings(&[0, 0], 0b1)).unwrap();
        let expected = "@group(0) @binding(0) var<storage, read_write> buffer_x: array<u32>;
store_y(0u, load_x(group.y));
fn load_x(i: u32) -> f32 {
    let at = p.x_at + i;
    return bitcast<f32>(buffer_x[at]);
}
fn store_y(i: u32, v: f32) {
    let at = p.y_at + i;
    buffer_x[at] = bitcast<u32>(v);
}
";
        assert_eq!(text, expected);
    }

    #[test]
    fn halves_of_a_word_are_written_atomically() {
        let text = "#operand x write f32\n#operand y write vec4<f32>\nstore_x(0u, 1.0);\nstore4_y(0u, 4u, vec4<f32>());";
        let files = [("a.wgsl", text), ("lib/half.wgsl", "bits")];
        let mut halves = bindings(&[0, 1], 0b11);
        halves.elements[..2].fill(Element::Bf16);
        let text = expand(&files, "a.wgsl", &[], &halves).unwrap();
        for part in [
            "buffer_x: array<atomic<u32>>",
            "atomicXor(&buffer_x[at >> 1u]",
            "buffer_y: array<vec2<u32>>",
            "buffer_y[at] = vec2<u32>(",
            "bits",
        ] {
            assert!(text.contains(part), "{part} is missing in {text}");
        }
    }

    #[test]
    fn repetitions() {
        let text = "#define N 2\n#for A N\n#for B 2\nvar x{A}_{B} = {B};\n#end\n#end\n#if OFF\n#for A 9\nno\n#end\n#endif\nlast";
        let text = expand(&[("a.wgsl", text)], "a.wgsl", &[], &bindings(&[], 0)).unwrap();
        assert_eq!(text, "var x0_0 = 0;\nvar x0_1 = 1;\nvar x1_0 = 0;\nvar x1_1 = 1;\nlast\n");
    }

    #[test]
    fn mistakes_name_their_line() {
        let try_it = |text: &str, b: Bindings| expand(&[("a.wgsl", text)], "a.wgsl", &[], &b).unwrap_err();
        assert_eq!(try_it("\n#endif", bindings(&[], 0)), "a.wgsl:2: #endif without #if");
        assert_eq!(try_it("#if A", bindings(&[], 0)), "a.wgsl: #if without #endif");
        assert_eq!(try_it("\n#for A 2", bindings(&[], 0)), "a.wgsl:2: #for without #end");
        assert!(try_it("#operand x write f32", bindings(&[0], 0)).contains("given to be read"));
        assert!(try_it("#operand x read f32", bindings(&[], 0)).contains("was not given"));
        let mixed = "#operand x read f32\n#operand y write vec4<f32>";
        assert!(try_it(mixed, bindings(&[0, 0], 1)).contains("share a buffer"));
        assert!(try_it("#pragma", bindings(&[], 0)).contains("unknown directive"));
    }
}
