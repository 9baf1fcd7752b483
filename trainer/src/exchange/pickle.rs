//! Python's pickle as data: the values that a file describes, and nothing executed.
//!
//! A pickle is a program for a stack machine whose instructions make values, and call functions by name. Here a function is a name: a call is kept as an
//! [`Object`] with its arguments, and it is the reader's affair which names it knows. The instructions are those of protocols 2 to 5 (CPython's `pickletools`),
//! without buffers and extension codes, which `torch.save` does not write.
//!
//! Values lie in one list and refer to each other by [`Id`], as pickles may refer to one value twice, or to a value from inside itself. Every value comes from at
//! least one byte of the file, so memory is bounded by its length, and nothing here recurses.

use std::borrow::Cow;
use std::collections::BTreeMap;

/// A value's place in its [`Pickle`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Id(u32);

/// A value.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    None,
    Bool(bool),
    Int(i64),
    /// An integer of more than 64 bits.
    Wide,
    Float(f64),
    Text(String),
    Bytes(Vec<u8>),
    List(Vec<Id>),
    Tuple(Vec<Id>),
    /// In the order of the file; of equal keys the last one counts.
    Dict(Vec<(Id, Id)>),
    Set(Vec<Id>),
    /// A function or class, `module.name`.
    Global(String),
    Object(Box<Object>),
    /// What is kept outside of the pickle, and how it is named there.
    Persistent(Id),
}

/// What a call would have given.
#[derive(Clone, Debug, PartialEq)]
pub struct Object {
    /// What is called.
    pub class: Id,
    /// With what: a tuple.
    pub arguments: Id,
    /// The attributes that it is given then.
    pub state: Option<Id>,
    /// The items that it is given then, where it is a mapping.
    pub items: Vec<(Id, Id)>,
}

/// Why bytes are no pickle, and where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Broken {
    /// Offset of the instruction.
    pub at: usize,
    /// What is wrong.
    pub why: String,
}

/// Everything that a file describes.
#[derive(Clone, Debug)]
pub struct Pickle {
    values: Vec<Value>,
    root: Id,
}

impl Pickle {
    /// Reads a pickle.
    ///
    /// # Errors
    /// It is cut short, refers to what is not there, or has an instruction that is unknown or out of place.
    pub fn parse(bytes: &[u8]) -> Result<Self, Broken> {
        let mut machine = Machine {
            bytes,
            at: 0,
            values: Vec::new(),
            stack: Vec::new(),
            marks: Vec::new(),
            memo: BTreeMap::new(),
        };
        loop {
            let at = machine.at;
            match machine.step() {
                Ok(None) => {}
                Ok(Some(root)) => return Ok(Self { values: machine.values, root }),
                Err(why) => return Err(Broken { at, why: why.into_owned() }),
            }
        }
    }

    /// What the file is of.
    pub fn root(&self) -> Id {
        self.root
    }

    /// How many values there are.
    pub fn len(&self) -> usize {
        self.values.len()
    }

    /// A value.
    pub fn get(&self, id: Id) -> &Value {
        &self.values[id.0 as usize]
    }

    /// A text.
    pub fn text(&self, id: Id) -> Option<&str> {
        match self.get(id) {
            Value::Text(text) => Some(text),
            _ => None,
        }
    }

    /// The name of a function or class.
    pub fn global(&self, id: Id) -> Option<&str> {
        match self.get(id) {
            Value::Global(name) => Some(name),
            _ => None,
        }
    }

    /// The name of what is called, and its arguments, where it is a call.
    pub fn call(&self, id: Id) -> Option<(&str, &[Id])> {
        let Value::Object(object) = self.get(id) else { return None };
        let Value::Tuple(arguments) = self.get(object.arguments) else { return None };
        Some((self.global(object.class)?, arguments))
    }

    /// Keys and values of a `dict` or a `collections.OrderedDict`.
    pub fn items(&self, id: Id) -> Option<&[(Id, Id)]> {
        match self.get(id) {
            Value::Dict(items) => Some(items),
            Value::Object(object) if self.global(object.class) == Some("collections.OrderedDict") => {
                Some(&object.items)
            }
            _ => None,
        }
    }

    /// Attributes of an `argparse.Namespace`, or the items of a `dict`.
    pub fn attributes(&self, id: Id) -> Option<&[(Id, Id)]> {
        match self.get(id) {
            Value::Object(object) if self.global(object.class) == Some("argparse.Namespace") => {
                self.items(object.state?)
            }
            _ => self.items(id),
        }
    }

    /// The value of a key that is a text.
    pub fn find(&self, items: &[(Id, Id)], key: &str) -> Option<Id> {
        items.iter().rev().find(|(name, _)| self.text(*name) == Some(key)).map(|(_, value)| *value)
    }

    /// A value in few words, for a message.
    pub fn describe(&self, id: Id) -> String {
        match self.get(id) {
            Value::None => "None".into(),
            Value::Bool(true) => "True".into(),
            Value::Bool(false) => "False".into(),
            Value::Int(value) => value.to_string(),
            Value::Wide => "an integer beyond 64 bits".into(),
            Value::Float(value) => value.to_string(),
            Value::Text(text) => format!("'{}'", text.chars().take(60).collect::<String>()),
            Value::Bytes(bytes) => format!("{} bytes", bytes.len()),
            Value::List(list) => format!("a list of {}", list.len()),
            Value::Tuple(list) => format!("a tuple of {}", list.len()),
            Value::Dict(items) => format!("a dict of {}", items.len()),
            Value::Set(list) => format!("a set of {}", list.len()),
            Value::Global(name) => name.chars().take(60).collect(),
            Value::Object(object) => match self.global(object.class) {
                Some(name) => format!("an object of {}", name.chars().take(60).collect::<String>()),
                None => "an object".into(),
            },
            Value::Persistent(_) => "a storage".into(),
        }
    }
}

/// Why an instruction fails.
type Why = Cow<'static, str>;

struct Machine<'a> {
    bytes: &'a [u8],
    at: usize,
    values: Vec<Value>,
    stack: Vec<Id>,
    /// Heights of the stack at the marks.
    marks: Vec<usize>,
    memo: BTreeMap<u32, Id>,
}

impl<'a> Machine<'a> {
    fn take(&mut self, count: u64) -> Result<&'a [u8], Why> {
        let rest = &self.bytes[self.at..];
        let taken = usize::try_from(count).ok().and_then(|count| rest.get(..count));
        let taken =
            taken.ok_or_else(|| format!("{count} bytes are announced, and {} are left", rest.len()))?;
        self.at += taken.len();
        Ok(taken)
    }

    /// A little-endian number of so many bytes, at most 8.
    fn number(&mut self, bytes: u64) -> Result<u64, Why> {
        Ok(self.take(bytes)?.iter().rev().fold(0, |value, byte| value << 8 | u64::from(*byte)))
    }

    /// Bytes behind their count, which has so many bytes.
    fn counted(&mut self, bytes: u64) -> Result<&'a [u8], Why> {
        let count = self.number(bytes)?;
        self.take(count)
    }

    fn line(&mut self) -> Result<&'a [u8], Why> {
        let rest = &self.bytes[self.at..];
        let end = rest.iter().position(|byte| *byte == b'\n').ok_or("a line has no end")?;
        self.at += end + 1;
        Ok(&rest[..end])
    }

    fn push(&mut self, value: Value) -> Result<(), Why> {
        let id = u32::try_from(self.values.len()).map_err(|_| "there are more than 2^32 values")?;
        self.values.push(value);
        self.stack.push(Id(id));
        Ok(())
    }

    /// Python keeps lone halves of UTF-16 pairs (file names that are no text); only what is needed must be readable.
    fn push_text(&mut self, bytes: &[u8]) -> Result<(), Why> {
        self.push(Value::Text(String::from_utf8_lossy(bytes).into_owned()))
    }

    fn floor(&self) -> usize {
        self.marks.last().copied().unwrap_or(0)
    }

    fn pop(&mut self) -> Result<Id, Why> {
        if self.stack.len() <= self.floor() {
            return Err("the stack is empty".into());
        }
        self.stack.pop().ok_or_else(|| "the stack is empty".into())
    }

    fn top(&self) -> Result<Id, Why> {
        match self.stack.last() {
            Some(id) if self.stack.len() > self.floor() => Ok(*id),
            _ => Err("the stack is empty".into()),
        }
    }

    fn pop_to_mark(&mut self) -> Result<Vec<Id>, Why> {
        let mark = self.marks.pop().ok_or("there is no mark")?;
        Ok(self.stack.split_off(mark))
    }

    fn pop_pairs(&mut self) -> Result<Vec<(Id, Id)>, Why> {
        let list = self.pop_to_mark()?;
        match list.as_chunks::<2>() {
            (pairs, []) => Ok(pairs.iter().map(|[key, value]| (*key, *value)).collect()),
            _ => Err("a key has no value".into()),
        }
    }

    fn pop_tuple(&mut self, count: usize) -> Result<(), Why> {
        let mut list = (0..count).map(|_| self.pop()).collect::<Result<Vec<_>, _>>()?;
        list.reverse();
        self.push(Value::Tuple(list))
    }

    fn top_value(&mut self) -> Result<&mut Value, Why> {
        let id = self.top()?;
        Ok(&mut self.values[id.0 as usize])
    }

    fn append(&mut self, list: &[Id]) -> Result<(), Why> {
        match self.top_value()? {
            Value::List(all) | Value::Set(all) => all.extend(list),
            // Elements of a list of a class of its own: nobody asks for them.
            Value::Object(_) => {}
            _ => return Err("elements are given to what is no list".into()),
        }
        Ok(())
    }

    fn set_items(&mut self, items: &[(Id, Id)]) -> Result<(), Why> {
        match self.top_value()? {
            Value::Dict(all) => all.extend(items),
            Value::Object(object) => object.items.extend(items),
            _ => return Err("items are given to what is no dict".into()),
        }
        Ok(())
    }

    fn object(&mut self, class: Id, arguments: Id) -> Result<(), Why> {
        self.push(Value::Object(Box::new(Object { class, arguments, state: None, items: Vec::new() })))
    }

    fn remember(&mut self, index: u64) -> Result<(), Why> {
        let index = u32::try_from(index).map_err(|_| "the memo is full")?;
        let id = self.top()?;
        self.memo.insert(index, id);
        Ok(())
    }

    fn recall(&mut self, index: u64) -> Result<(), Why> {
        let id = u32::try_from(index).ok().and_then(|index| self.memo.get(&index).copied());
        self.stack.push(id.ok_or_else(|| format!("nothing is remembered as {index}"))?);
        Ok(())
    }

    /// A two's complement integer of any width.
    fn push_wide(&mut self, bytes: &[u8]) -> Result<(), Why> {
        let negative = bytes.last().is_some_and(|byte| byte & 0x80 != 0);
        let fill = if negative { 0xff } else { 0 };
        let mut all = [fill; 8];
        if bytes.len() > 8 {
            return self.push(Value::Wide);
        }
        all[..bytes.len()].copy_from_slice(bytes);
        self.push(Value::Int(i64::from_le_bytes(all)))
    }

    /// Does one instruction; the value that the pickle is of if it was the last.
    fn step(&mut self) -> Result<Option<Id>, Why> {
        let instruction = self.take(1).map_err(|_| "it ends before its end")?[0];
        match instruction {
            b'.' => return self.pop().map(Some),
            0x80 => {
                let protocol = self.number(1)?;
                if !(2..=5).contains(&protocol) {
                    return Err(format!("protocol {protocol} is not one of 2 to 5").into());
                }
            }
            // The length of a frame says nothing that its instructions do not.
            0x95 => drop(self.number(8)?),
            b'(' => self.marks.push(self.stack.len()),
            b'0' => drop(self.pop()?),
            b'1' => drop(self.pop_to_mark()?),
            b'2' => self.stack.push(self.top()?),

            b'N' => self.push(Value::None)?,
            0x88 => self.push(Value::Bool(true))?,
            0x89 => self.push(Value::Bool(false))?,
            b'J' => {
                let value = self.number(4)? as u32;
                self.push(Value::Int(i64::from(value.cast_signed())))?;
            }
            b'K' | b'M' => {
                let value = self.number(if instruction == b'K' { 1 } else { 2 })?;
                self.push(Value::Int(value as i64))?;
            }
            0x8a | 0x8b => {
                let bytes = self.counted(if instruction == 0x8a { 1 } else { 4 })?;
                self.push_wide(bytes)?;
            }
            b'G' => {
                // The one big-endian number.
                let value = f64::from_bits(self.number(8)?.swap_bytes());
                self.push(Value::Float(value))?;
            }

            b'U' | b'T' | b'X' | 0x8c | 0x8d => {
                let bytes = self.counted(match instruction {
                    b'U' | 0x8c => 1,
                    0x8d => 8,
                    _ => 4,
                })?;
                self.push_text(bytes)?;
            }
            b'C' | b'B' | 0x8e | 0x96 => {
                let bytes = self.counted(match instruction {
                    b'C' => 1,
                    b'B' => 4,
                    _ => 8,
                })?;
                self.push(Value::Bytes(bytes.to_vec()))?;
            }

            b']' => self.push(Value::List(Vec::new()))?,
            b'}' => self.push(Value::Dict(Vec::new()))?,
            b')' => self.push(Value::Tuple(Vec::new()))?,
            0x8f => self.push(Value::Set(Vec::new()))?,
            b'l' | b't' | 0x91 => {
                let list = self.pop_to_mark()?;
                self.push(match instruction {
                    b'l' => Value::List(list),
                    b't' => Value::Tuple(list),
                    _ => Value::Set(list),
                })?;
            }
            b'd' => {
                let items = self.pop_pairs()?;
                self.push(Value::Dict(items))?;
            }
            0x85..=0x87 => self.pop_tuple(usize::from(instruction - 0x84))?,
            b'a' => {
                let element = self.pop()?;
                self.append(&[element])?;
            }
            b'e' | 0x90 => {
                let list = self.pop_to_mark()?;
                self.append(&list)?;
            }
            b's' => {
                let (value, key) = (self.pop()?, self.pop()?);
                self.set_items(&[(key, value)])?;
            }
            b'u' => {
                let items = self.pop_pairs()?;
                self.set_items(&items)?;
            }

            b'c' => {
                let (module, name) = (self.line()?, self.line()?);
                let name = format!("{}.{}", String::from_utf8_lossy(module), String::from_utf8_lossy(name));
                self.push(Value::Global(name))?;
            }
            0x93 => {
                let (name, module) = (self.pop()?, self.pop()?);
                let text = |id: Id| match &self.values[id.0 as usize] {
                    Value::Text(text) => Ok(text),
                    _ => Err("a name is no text"),
                };
                let name = format!("{}.{}", text(module)?, text(name)?);
                self.push(Value::Global(name))?;
            }
            // A call of a function, or of a class's constructor: here they are the same.
            b'R' | 0x81 => {
                let (arguments, class) = (self.pop()?, self.pop()?);
                self.object(class, arguments)?;
            }
            0x92 => {
                let (_named, arguments, class) = (self.pop()?, self.pop()?, self.pop()?);
                self.object(class, arguments)?;
            }
            b'b' => {
                let state = self.pop()?;
                match self.top_value()? {
                    Value::Object(object) => object.state = Some(state),
                    _ => return Err("attributes are given to what is no object".into()),
                }
            }
            b'Q' => {
                let name = self.pop()?;
                self.push(Value::Persistent(name))?;
            }

            b'q' | b'r' => {
                let index = self.number(if instruction == b'q' { 1 } else { 4 })?;
                self.remember(index)?;
            }
            0x94 => self.remember(self.memo.len() as u64)?,
            b'h' | b'j' => {
                let index = self.number(if instruction == b'h' { 1 } else { 4 })?;
                self.recall(index)?;
            }
            other => return Err(format!("instruction {other:#04x} is not known").into()),
        }
        Ok(None)
    }
}

#[cfg(test)]
mod tests;
