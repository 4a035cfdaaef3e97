//! Receive buffers the kernel picks from when data arrives, so that an idle connection pins no memory.

use std::sync::atomic::{AtomicU16, Ordering};

use io_uring::types::BufRingEntry;
use rustix::mm::{MapFlags, ProtFlags, mmap_anonymous, munmap};

use crate::ring::{Ring, RingError};

/// A group of equal buffers registered with one ring. A buffer belongs to the kernel until a completion
/// names it, then to us until [`give_back`](Self::give_back). Memory is mapped lazily: a buffer never used
/// costs nothing.
pub struct ReceiveBuffers {
    group: u16,
    count: u16,
    size_bytes: u32,
    entries: *mut BufRingEntry,
    memory: *mut u8,
    tail: u16,
}

impl ReceiveBuffers {
    /// `count` must be a power of two, at most 32768.
    pub fn register(ring: &Ring, group: u16, count: u16, size_bytes: u32) -> Result<Self, RingError> {
        assert!(count.is_power_of_two(), "the kernel wants a power of two");
        let map = |bytes: usize| {
            // SAFETY: a fresh private anonymous mapping at an address of the kernel's choosing.
            unsafe {
                mmap_anonymous(std::ptr::null_mut(), bytes, ProtFlags::READ | ProtFlags::WRITE, MapFlags::PRIVATE)
            }
            .map_err(|error| RingError::Other(error.into()))
        };
        let entries = map(Self::entries_bytes(count))?.cast::<BufRingEntry>();
        let memory = map(count as usize * size_bytes as usize)?.cast::<u8>();
        // SAFETY: `entries` is page-aligned, long enough for `count` entries, and unmapped only in `drop`,
        // which the owner runs after the ring is gone or quiet.
        unsafe { ring.submitter().register_buf_ring_with_flags(entries as u64, count, group, 0) }
            .map_err(RingError::Other)?;
        let mut buffers = Self { group, count, size_bytes, entries, memory, tail: 0 };
        for index in 0..count {
            buffers.give_back(index);
        }
        Ok(buffers)
    }

    pub fn group(&self) -> u16 {
        self.group
    }

    pub fn size_bytes(&self) -> u32 {
        self.size_bytes
    }

    /// The bytes a completion delivered in buffer `index`.
    pub fn bytes(&self, index: u16, length: u32) -> &[u8] {
        assert!(index < self.count && length <= self.size_bytes, "the kernel names only buffers it was given");
        // SAFETY: the buffer is inside the mapping and ours since its completion; the kernel does not touch it
        // again before `give_back`, which needs `&mut self` and so cannot run while this borrow lives.
        unsafe { std::slice::from_raw_parts(self.start_of(index), length as usize) }
    }

    /// Returns a buffer to the kernel.
    pub fn give_back(&mut self, index: u16) {
        assert!(index < self.count, "only buffers of this group come back");
        let slot = (self.tail & (self.count - 1)) as usize;
        let address = self.start_of(index) as u64;
        // SAFETY: `slot` < `count`, inside the entries' mapping. The kernel reads an entry only after the tail
        // below has moved past it.
        let entry = unsafe { &mut *self.entries.add(slot) };
        entry.set_addr(address);
        entry.set_len(self.size_bytes);
        entry.set_bid(index);
        self.tail = self.tail.wrapping_add(1);
        // SAFETY: `entries` is the base of the registered ring, where the kernel keeps the tail.
        let tail = unsafe { &*BufRingEntry::tail(self.entries).cast::<AtomicU16>() };
        tail.store(self.tail, Ordering::Release);
    }

    fn start_of(&self, index: u16) -> *mut u8 {
        // SAFETY: `index` < `count` (asserted by the callers), so the result is inside the mapping.
        unsafe { self.memory.add(index as usize * self.size_bytes as usize) }
    }

    fn entries_bytes(count: u16) -> usize {
        count as usize * size_of::<BufRingEntry>()
    }
}

impl Drop for ReceiveBuffers {
    fn drop(&mut self) {
        // SAFETY: both mappings were made in `register` with these lengths and nothing borrows them any more.
        // A failure to unmap leaks address space and nothing else.
        unsafe {
            let _ = munmap(self.entries.cast(), Self::entries_bytes(self.count));
            let _ = munmap(self.memory.cast(), self.count as usize * self.size_bytes as usize);
        }
    }
}
