use super::{apart, dtype, float};
use crate::{Buffer, Error, Result, View};

/// `y += alpha x`, element by element.
///
/// | view | shape | dtype | |
/// |---|---|---|---|
/// | `x` | any | float | |
/// | `y` | as long as `x` | as `x` | in place |
pub struct Add<'a, B> {
    /// Summand.
    pub x: View<'a, B>,
    /// What it is added to.
    pub y: View<'a, B>,
    /// Factor of the summand.
    pub alpha: f32,
}

impl<B: Buffer> Add<'_, B> {
    /// Checks the operands; returns the number of elements.
    ///
    /// # Errors
    /// [`Error::Shape`], [`Error::DType`], [`Error::Overlap`].
    pub fn check(&self) -> Result<usize> {
        const OP: &str = "add";
        float(OP, "x", self.x)?;
        same_length(OP, "y", self.y, self.x)?;
        apart(OP, ("y", self.y), &[("x", self.x)], false)?;
        Ok(self.x.len())
    }
}

/// `dst = src`, each element rounded to nearest even in `dst`'s type; what leaves its range is infinite, NaN stays NaN.
///
/// | view | shape | dtype |
/// |---|---|---|
/// | `src` | any | float |
/// | `dst` | as long as `src` | float |
pub struct Cast<'a, B> {
    /// What is read.
    pub src: View<'a, B>,
    /// What is written.
    pub dst: View<'a, B>,
}

impl<B: Buffer> Cast<'_, B> {
    /// Checks the operands; returns the number of elements.
    ///
    /// # Errors
    /// [`Error::Shape`], [`Error::DType`], [`Error::Overlap`].
    pub fn check(&self) -> Result<usize> {
        const OP: &str = "cast";
        float(OP, "src", self.src)?;
        float(OP, "dst", self.dst)?;
        as_long(OP, "dst", self.dst, self.src)?;
        apart(OP, ("dst", self.dst), &[("src", self.src)], false)?;
        Ok(self.src.len())
    }
}

/// Checks the operands of `copy`; returns the number of elements.
///
/// # Errors
/// [`Error::Shape`], [`Error::DType`], [`Error::Overlap`].
pub fn check_copy<B: Buffer>(src: View<'_, B>, dst: View<'_, B>) -> Result<usize> {
    same_length("copy", "dst", dst, src)?;
    apart("copy", ("dst", dst), &[("src", src)], false)?;
    Ok(src.len())
}

/// Checks the operand of `fill` or `scale`; returns the number of elements.
///
/// # Errors
/// [`Error::DType`].
pub fn check_float<B: Buffer>(op: &'static str, x: View<'_, B>) -> Result<usize> {
    float(op, "x", x)?;
    Ok(x.len())
}

/// Checks the operands of `reduce`; returns the number of elements of each. An output may be one of the inputs: elements are combined before any of
/// them is written.
///
/// # Errors
/// [`Error::Shape`], [`Error::DType`], [`Error::Overlap`], [`Error::Argument`] without an input.
pub fn check_reduce<B: Buffer>(inputs: &[View<'_, B>], outputs: &[View<'_, B>]) -> Result<usize> {
    const OP: &str = "reduce";
    let Some(first) = inputs.first() else {
        return Err(Error::Argument {
            op: OP,
            name: "inputs",
            value: "none".to_owned(),
            range: "at least one view",
        });
    };
    float(OP, "inputs", *first)?;
    for input in inputs {
        same_length(OP, "inputs", *input, *first)?;
    }
    for (i, output) in outputs.iter().enumerate() {
        same_length(OP, "outputs", *output, *first)?;
        for input in inputs {
            apart(OP, ("outputs", *output), &[("inputs", *input)], true)?;
        }
        for other in &outputs[..i] {
            apart(OP, ("outputs", *output), &[("outputs", *other)], false)?;
        }
    }
    Ok(first.len())
}

fn same_length<B: Buffer>(
    op: &'static str,
    name: &'static str,
    view: View<'_, B>,
    like: View<'_, B>,
) -> Result<()> {
    dtype(op, name, view, like.dtype())?;
    as_long(op, name, view, like)
}

fn as_long<B: Buffer>(
    op: &'static str,
    name: &'static str,
    view: View<'_, B>,
    like: View<'_, B>,
) -> Result<()> {
    match view.len() == like.len() {
        true => Ok(()),
        false => Err(Error::Shape {
            op,
            tensor: name,
            expected: format!("{} elements", like.len()),
            got: view.shape(),
        }),
    }
}
