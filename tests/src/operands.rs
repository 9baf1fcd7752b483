//! The operands of one case on a device: windows with guard words around them, run twice.
//!
//! Values are of the case's element type; statistics, and what is accumulated in f32, have methods of their own.
//!
//! Every word that the operation has no business to write (guards, inputs, what lies between two windows of one buffer) must come back with the bits it
//! had; outputs begin as NaN, so what is not written shows; two runs must give the same bits.

use std::ops::Index;

use backend::{Backend, Class, DType, Shape, Tensor, View};

use crate::measure::{Measure, compare};
use crate::narrow::{from_bits, to_bits};
use crate::{Bounded, Failure, stored};

/// A quiet NaN: what a guard holds. An operation that reads past its window spoils its result.
fn guard(dtype: DType) -> u32 {
    match dtype {
        DType::F32 | DType::U32 => 0x7fc0_dead,
        DType::Bf16 => 0x7fde,
        DType::F16 => 0x7eed,
    }
}

/// A quiet NaN: what outputs and scratch begin with.
fn poison(dtype: DType) -> u32 {
    match dtype {
        DType::F32 | DType::U32 => 0x7fc0_beef,
        DType::Bf16 => 0x7fef,
        DType::F16 => 0x7eef,
    }
}

/// Guards after each window.
const GAP: usize = 9;

/// Where the windows of a case lie.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// Each in a buffer of its own, from its first element.
    Aligned,
    /// Each in a buffer of its own, 1, 2, 3 … elements in.
    Offset,
    /// All numbers of a type in one buffer, one after the other; a kernel may see a buffer as one type only.
    Shared,
}

impl Place {
    /// Every place.
    pub const ALL: [Place; 3] = [Place::Aligned, Place::Offset, Place::Shared];

    /// The name in case identifiers.
    pub const fn name(self) -> &'static str {
        match self {
            Place::Aligned => "aligned",
            Place::Offset => "offset",
            Place::Shared => "shared",
        }
    }
}

/// What the operation may do to an operand.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Role {
    Input,
    Output,
    Scratch,
}

struct Slot {
    name: &'static str,
    dtype: DType,
    shape: Shape,
    words: Vec<u32>,
    role: Role,
}

/// What a buffer holds: the bits of its elements.
struct Image {
    dtype: DType,
    words: Vec<u32>,
}

impl Image {
    fn to_bytes(&self) -> Vec<u8> {
        let size = self.dtype.size();
        self.words.iter().flat_map(|word| word.to_le_bytes().into_iter().take(size)).collect()
    }

    /// An image of the same kind with these bytes.
    fn with_bytes(&self, bytes: &[u8]) -> Self {
        let word = |bytes: &[u8]| bytes.iter().rev().fold(0, |word, &byte| word << 8 | u32::from(byte));
        Self { dtype: self.dtype, words: bytes.chunks_exact(self.dtype.size()).map(word).collect() }
    }
}

/// Names an operand of [`Operands`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Handle(usize);

/// The operands of a case; see the [module](self).
pub struct Operands<'b, B: Backend> {
    backend: &'b B,
    place: Place,
    dtype: DType,
    slots: Vec<Slot>,
}

/// The operands as views, by handle.
pub struct Views<'a, B>(Vec<View<'a, B>>);

impl<'a, B> Index<Handle> for Views<'a, B> {
    type Output = View<'a, B>;
    fn index(&self, handle: Handle) -> &View<'a, B> {
        &self.0[handle.0]
    }
}

impl<'b, B: Backend> Operands<'b, B> {
    /// None yet; values will be of that type.
    pub fn new(backend: &'b B, place: Place, dtype: DType) -> Self {
        Self { backend, place, dtype, slots: Vec::new() }
    }

    fn push(
        &mut self,
        name: &'static str,
        dtype: DType,
        shape: &[usize],
        words: Vec<u32>,
        role: Role,
    ) -> Handle {
        let shape = Shape::new(shape);
        assert_eq!(shape.len(), words.len(), "{name}{shape}");
        self.slots.push(Slot { name, dtype, shape, words, role });
        Handle(self.slots.len() - 1)
    }

    fn bits(dtype: DType, data: &[f32]) -> Vec<u32> {
        data.iter().map(|&x| to_bits(dtype, x)).collect()
    }

    /// Values that are only read; they are of the type already, and so exact.
    pub fn input(&mut self, name: &'static str, shape: &[usize], data: &[f32]) -> Handle {
        self.push(name, self.dtype, shape, Self::bits(self.dtype, data), Role::Input)
    }

    /// As [`input`](Self::input), of f32.
    pub fn input_f32(&mut self, name: &'static str, shape: &[usize], data: &[f32]) -> Handle {
        self.push(name, DType::F32, shape, Self::bits(DType::F32, data), Role::Input)
    }

    /// Token indices that are only read.
    pub fn tokens(&mut self, name: &'static str, data: &[u32]) -> Handle {
        self.push(name, DType::U32, &[data.len()], data.to_vec(), Role::Input)
    }

    /// Values that are read and written.
    pub fn in_place(&mut self, name: &'static str, shape: &[usize], data: &[f32]) -> Handle {
        self.push(name, self.dtype, shape, Self::bits(self.dtype, data), Role::Output)
    }

    /// As [`in_place`](Self::in_place), of f32.
    pub fn in_place_f32(&mut self, name: &'static str, shape: &[usize], data: &[f32]) -> Handle {
        self.in_place_as(name, DType::F32, shape, data)
    }

    /// As [`in_place`](Self::in_place), of that type.
    pub fn in_place_as(&mut self, name: &'static str, dtype: DType, shape: &[usize], data: &[f32]) -> Handle {
        self.push(name, dtype, shape, Self::bits(dtype, data), Role::Output)
    }

    fn poisoned(&mut self, name: &'static str, dtype: DType, shape: &[usize], role: Role) -> Handle {
        let len = shape.iter().product();
        self.push(name, dtype, shape, vec![poison(dtype); len], role)
    }

    /// Values that are overwritten; they begin as NaN.
    pub fn output(&mut self, name: &'static str, shape: &[usize]) -> Handle {
        self.poisoned(name, self.dtype, shape, Role::Output)
    }

    /// As [`output`](Self::output), of f32.
    pub fn output_f32(&mut self, name: &'static str, shape: &[usize]) -> Handle {
        self.output_as(name, DType::F32, shape)
    }

    /// As [`output`](Self::output), of that type.
    pub fn output_as(&mut self, name: &'static str, dtype: DType, shape: &[usize]) -> Handle {
        self.poisoned(name, dtype, shape, Role::Output)
    }

    /// Token indices that are overwritten.
    pub fn tokens_output(&mut self, name: &'static str, len: usize) -> Handle {
        self.poisoned(name, DType::U32, &[len], Role::Output)
    }

    /// Values whose contents mean nothing afterwards.
    pub fn consumed(&mut self, name: &'static str, shape: &[usize], data: &[f32]) -> Handle {
        self.push(name, self.dtype, shape, Self::bits(self.dtype, data), Role::Scratch)
    }

    /// Scratch of exactly `len` f32 elements; it begins as NaN.
    pub fn workspace(&mut self, len: usize) -> Handle {
        self.poisoned("workspace", DType::F32, &[len], Role::Scratch)
    }

    /// Runs the operation twice on fresh copies of the operands and returns what the outputs hold.
    ///
    /// # Errors
    /// The backend's; a word changed that should not have; two runs that differ.
    pub fn run(
        &self,
        operation: impl Fn(&Views<'_, B::Buffer>) -> backend::Result<()>,
    ) -> Result<Outputs, Failure> {
        let (images, places) = self.lay_out();
        let buffers = self.allocate(&images)?;
        let first = self.round(&images, &places, &buffers, &operation)?;
        let second = self.round(&images, &places, &buffers, &operation)?;
        for (slot, (a, b)) in self.slots.iter().zip(first.iter().zip(&second)) {
            if slot.role == Role::Output
                && let Some(index) = a.iter().zip(b).position(|(a, b)| a != b)
            {
                let [first, second] = [a[index], b[index]].map(|bits| from_bits(slot.dtype, bits));
                return Err(Failure::Unsteady { operand: slot.name, index, first, second });
            }
        }
        let number = |(slot, bits): (&Slot, Vec<u32>)| {
            bits.into_iter().map(|bits| from_bits(slot.dtype, bits)).collect()
        };
        let data = self.slots.iter().zip(first).map(number).collect();
        Ok(Outputs { kinds: self.slots.iter().map(|slot| (slot.name, slot.dtype)).collect(), data })
    }

    /// Makes a call that is to be refused: no operand may have changed. Returns what the call answers.
    ///
    /// # Errors
    /// The backend's, of all but the operation; a word that changed.
    pub fn attempt(
        &self,
        operation: impl Fn(&Views<'_, B::Buffer>) -> backend::Result<()>,
    ) -> Result<backend::Result<()>, Failure> {
        let (images, places) = self.lay_out();
        let buffers = self.allocate(&images)?;
        for (image, buffer) in images.iter().zip(&buffers) {
            self.backend.write(buffer.view(), &image.to_bytes())?;
        }
        let answer = operation(&self.views(&places, &buffers)?);
        let after = self.read_back(&images, &buffers)?;
        self.unchanged(&images, &after, &places)?;
        Ok(answer)
    }

    /// The buffers' first contents, and for each operand its buffer and its first element there.
    fn lay_out(&self) -> (Vec<Image>, Vec<(usize, usize)>) {
        let mut images: Vec<Image> = Vec::new();
        let mut places = Vec::new();
        for (i, slot) in self.slots.iter().enumerate() {
            let dtype = slot.dtype;
            let shared = images.iter().position(|image| self.place == Place::Shared && image.dtype == dtype);
            let buffer = shared.unwrap_or_else(|| {
                images.push(Image { dtype, words: Vec::new() });
                images.len() - 1
            });
            let words = &mut images[buffer].words;
            if self.place == Place::Offset {
                words.resize(i + 1, guard(dtype));
            }
            places.push((buffer, words.len()));
            words.extend_from_slice(&slot.words);
            words.extend_from_slice(&[guard(dtype); GAP]);
        }
        // Whole 32-bit words: what is transferred is the buffer, and windows in it are the operations' matter.
        for image in images.iter_mut().filter(|image| image.words.len() % 2 == 1) {
            image.words.push(guard(image.dtype));
        }
        (images, places)
    }

    fn views<'a>(
        &self,
        places: &[(usize, usize)],
        buffers: &'a [Tensor<B::Buffer>],
    ) -> backend::Result<Views<'a, B::Buffer>> {
        let view = |(slot, &(buffer, at)): (&Slot, &(usize, usize))| {
            let whole = buffers[buffer].view();
            View::new(whole.buffer(), slot.dtype, whole.offset() + at, slot.shape)
        };
        Ok(Views(self.slots.iter().zip(places).map(view).collect::<backend::Result<_>>()?))
    }

    /// One run: what each operand's window holds after it.
    fn round(
        &self,
        images: &[Image],
        places: &[(usize, usize)],
        buffers: &[Tensor<B::Buffer>],
        operation: &impl Fn(&Views<'_, B::Buffer>) -> backend::Result<()>,
    ) -> Result<Vec<Vec<u32>>, Failure> {
        for (image, buffer) in images.iter().zip(buffers) {
            self.backend.write(buffer.view(), &image.to_bytes())?;
        }
        operation(&self.views(places, buffers)?)?;
        let mut after = self.read_back(images, buffers)?;
        let windows = |(slot, &(buffer, at)): (&Slot, &(usize, usize))| {
            after[buffer].words[at..at + slot.shape.len()].to_vec()
        };
        let results: Vec<Vec<u32>> = self.slots.iter().zip(places).map(windows).collect();
        // With the writable windows put back, everything must be as it was.
        for (slot, &(buffer, at)) in self.slots.iter().zip(places) {
            if slot.role != Role::Input {
                after[buffer].words[at..at + slot.shape.len()].copy_from_slice(&slot.words);
            }
        }
        self.unchanged(images, &after, places)?;
        Ok(results)
    }

    fn allocate(&self, images: &[Image]) -> backend::Result<Vec<Tensor<B::Buffer>>> {
        images
            .iter()
            .map(|image| self.backend.alloc(Class::Workspace, image.dtype, [image.words.len()].into()))
            .collect()
    }

    fn read_back(&self, images: &[Image], buffers: &[Tensor<B::Buffer>]) -> backend::Result<Vec<Image>> {
        let read = |(image, buffer): (&Image, &Tensor<B::Buffer>)| {
            let mut bytes = vec![0; image.words.len() * image.dtype.size()];
            self.backend.read(buffer.view(), &mut bytes)?;
            Ok(image.with_bytes(&bytes))
        };
        images.iter().zip(buffers).map(read).collect()
    }

    fn unchanged(&self, before: &[Image], after: &[Image], places: &[(usize, usize)]) -> Result<(), Failure> {
        for (buffer, (before, after)) in before.iter().zip(after).enumerate() {
            if let Some(word) = before.words.iter().zip(&after.words).position(|(a, b)| a != b) {
                return Err(self.trespass(places, buffer, word));
            }
        }
        Ok(())
    }

    /// Says whose word was changed.
    fn trespass(&self, places: &[(usize, usize)], buffer: usize, word: usize) -> Failure {
        // The nearest window that begins at or before the word, else the first one of the buffer.
        let here = || self.slots.iter().zip(places).filter(|(_, place)| place.0 == buffer);
        let before = here().rfind(|(_, place)| place.1 <= word).or_else(|| here().next());
        match before {
            Some((slot, &(_, at))) => Failure::Trespass {
                operand: slot.name,
                len: slot.shape.len(),
                index: word as i64 - at as i64,
            },
            None => unreachable!("a buffer is laid out for an operand"),
        }
    }
}

/// What the operands hold after a run.
pub struct Outputs {
    kinds: Vec<(&'static str, DType)>,
    data: Vec<Vec<f32>>,
}

impl Outputs {
    /// An operand's elements.
    pub fn of(&self, handle: Handle) -> &[f32] {
        &self.data[handle.0]
    }

    /// Compares an operand with what it should be before it is rounded to its type; returns how near it came to its limits.
    ///
    /// # Errors
    /// [`Failure::Wrong`], [`Failure::Spread`].
    pub fn expect(&self, handle: Handle, expected: &[Bounded]) -> Result<Measure, Failure> {
        let (name, dtype) = self.kinds[handle.0];
        compare(name, self.of(handle), &stored(dtype, expected))
    }

    /// As [`expect`](Self::expect), for an operation that copies or selects: not a bit may differ.
    ///
    /// # Errors
    /// [`Failure::Wrong`], with the first element that differs.
    pub fn expect_bits(&self, handle: Handle, expected: &[f32]) -> Result<Measure, Failure> {
        let got = self.of(handle);
        assert_eq!(got.len(), expected.len());
        let differs = |(got, expected): (&f32, &f32)| {
            got.to_bits() != expected.to_bits() && !(got.is_nan() && expected.is_nan())
        };
        let beyond = got.iter().zip(expected).filter(|&pair| differs(pair)).count();
        match got.iter().zip(expected).position(differs) {
            None => Ok(Measure::exact()),
            Some(index) => Err(Failure::Wrong {
                operand: self.kinds[handle.0].0,
                index,
                observed: got[index],
                expected: f64::from(expected[index]),
                limit: 0.0,
                beyond,
                len: got.len(),
            }),
        }
    }
}
