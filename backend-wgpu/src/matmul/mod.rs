//! Which kernel a matrix product takes.

mod choice;
mod kernel;
mod qualify;

pub(crate) use choice::{Choices, Class, Contest};
pub(crate) use kernel::MatmulKernel;
pub(crate) use qualify::qualifies;
