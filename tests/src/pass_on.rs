//! What a backend with one fault does right.

/// Within `impl Backend for Wrapper`, whose field `inner` is a CPU backend: passes memory, simple operations on it, and the operations that are listed on to
/// it as they are.
#[macro_export]
macro_rules! pass_on {
    ($($name:ident: $args:ident;)*) => {
        fn info(&self) -> backend::Info {
            self.inner.info()
        }
        fn alloc(
            &self,
            class: backend::Class,
            dtype: backend::DType,
            shape: backend::Shape,
        ) -> backend::Result<backend::Tensor<Self::Buffer>> {
            self.inner.alloc(class, dtype, shape)
        }
        fn usage(&self, class: backend::Class) -> backend::Usage {
            self.inner.usage(class)
        }
        fn workspace(&self, scratch: backend::ops::Scratch) -> usize {
            self.inner.workspace(scratch)
        }
        fn write(&self, dst: backend::View<'_, Self::Buffer>, data: &[u8]) -> backend::Result<()> {
            self.inner.write(dst, data)
        }
        fn read(&self, src: backend::View<'_, Self::Buffer>, data: &mut [u8]) -> backend::Result<()> {
            self.inner.read(src, data)
        }
        fn sync(&self) -> backend::Result<()> {
            self.inner.sync()
        }
        fn fill(&self, x: backend::View<'_, Self::Buffer>, value: f32) -> backend::Result<()> {
            self.inner.fill(x, value)
        }
        fn copy(
            &self,
            src: backend::View<'_, Self::Buffer>,
            dst: backend::View<'_, Self::Buffer>,
        ) -> backend::Result<()> {
            self.inner.copy(src, dst)
        }
        fn scale(&self, x: backend::View<'_, Self::Buffer>, alpha: f32) -> backend::Result<()> {
            self.inner.scale(x, alpha)
        }
        $(
            fn $name(&self, args: backend::ops::$args<'_, Self::Buffer>) -> backend::Result<()> {
                self.inner.$name(args)
            }
        )*
    };
}
