//! Between host and device, which move whole words.

use std::sync::Arc;

use backend::{Class, DType, Result, View};

use crate::backend::WgpuBackend;
use crate::memory::WgpuBuffer;
use crate::queue::Command;

impl WgpuBackend {
    pub(crate) fn do_write(&self, dst: View<'_, WgpuBuffer>, data: &[u8]) -> Result<()> {
        if data.is_empty() {
            return Ok(());
        }
        let range = dst.byte_range();
        if range.start.is_multiple_of(4) && range.end.is_multiple_of(4) {
            self.send_write(dst, data.to_vec());
            return Ok(());
        }
        // The view shares a word with what is beside it: a kernel puts the elements in their places.
        let words = data.len().div_ceil(4);
        let staged = self.pool.alloc(Class::Workspace, 4 * words)?;
        let mut padded = data.to_vec();
        padded.resize(4 * words, 0);
        self.send_write(View::new(&staged, DType::U32, 0, [words])?, padded);
        self.do_copy(View::new(&staged, dst.dtype(), 0, [dst.len()])?, dst)
    }

    fn send_write(&self, dst: View<'_, WgpuBuffer>, data: Vec<u8>) {
        let (memory, offset) = (Arc::clone(dst.buffer().memory()), dst.byte_range().start as u64);
        self.device.send(Command::Write { memory, offset, data });
    }

    pub(crate) fn do_read(&self, src: View<'_, WgpuBuffer>, data: &mut [u8]) -> Result<()> {
        // The words that the view touches; the buffer's last one is whole.
        let range = src.byte_range();
        let (start, end) = (range.start / 4 * 4, range.end.next_multiple_of(4));
        let bytes = self.device.ask(|reply| Command::Read {
            memory: Arc::clone(src.buffer().memory()),
            offset: start as u64,
            bytes: end - start,
            reply,
        })?;
        data.copy_from_slice(&bytes[range.start - start..][..data.len()]);
        Ok(())
    }
}
