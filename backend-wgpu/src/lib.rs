//! The wgpu backend: WGSL on Vulkan, Metal and DX12.
