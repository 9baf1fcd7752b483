//! The CPU backend: the reference, and the default where there is no GPU.
