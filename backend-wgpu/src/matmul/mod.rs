//! Which kernel a matrix product takes.

mod kernel;

pub(crate) use kernel::MatmulKernel;
