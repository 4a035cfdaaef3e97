//! Block-aligned memory that the shard fills, the kernel reads or writes, and readers share.
//!
//! This is the only module of the crate with unsafe code. One allocation ([`Memory`] behind an `Arc`) goes through
//! three hands, and the type of the hand says who may do what:
//!
//! ```text
//!  UniqueBuffer ----------> FillingBuffer ---------------------> SharedBuffer -----> UniqueBuffer (when the last
//!  one owner, read/write    one writer; bytes below `frozen`     nobody writes       reader is gone: the pool)
//!                           never change again
//!                               |  slice(), write_bytes()            |  slice()
//!                               v                                    v
//!                           Slice / WriteBytes: bytes below `frozen` at the time they were made
//! ```
//!
//! The invariant all blocks below rest on: **a byte is either reachable through exactly one `UniqueBuffer` or
//! `FillingBuffer` (and there at or above `frozen`), or it does not change while any `Slice`, `WriteBytes` or
//! `SharedBuffer` covers it.** `frozen` only grows, and a buffer becomes unique again only when `Arc::get_mut`
//! proves that nobody else holds it.

#![allow(unsafe_code)] // Raw memory shared with the kernel; see the invariant above.

use std::alloc::{Layout, alloc_zeroed, dealloc, handle_alloc_error};
use std::fmt;
use std::ops::Range;
use std::ptr::{NonNull, null_mut};
use std::sync::Arc;

use rustix::mm::{Advice, MapFlags, ProtFlags, madvise, mmap_anonymous, munmap};

/// Alignment and granularity of every buffer: what O_DIRECT asks of memory, offset and length.
pub const BLOCK_BYTES: usize = 4096;

/// Size and alignment of a huge page. A device write or read of memory that lies together is one segment for the
/// kernel and the device instead of one per 4 KiB: reads of 1 MiB went from 1.2 to 2.4 GB/s by that, writes from 2.4
/// to 3.4 (`fio --bs=1m --direct=1 --iodepth=4` with `--iomem=mmap` and `--iomem=mmaphuge`, 2-core VM, 2026-11-26).
const HUGE_BYTES: usize = 2 << 20;
/// Smaller buffers gain nothing from huge pages, and whoever touches one first would wait until all of it is zeroed.
const HUGE_BUFFER_BYTES_MIN: usize = 256 << 10;
/// Smaller buffers are cut from mappings of this size.
const SMALL_SLAB_BYTES: usize = 256 << 10;

/// A mapping that buffers are cut from: fewer system calls than one allocation each, and no room lost to alignment.
struct Slab {
    start: NonNull<u8>,
    bytes: usize,
}

// SAFETY: a `Slab` is an address range; who may touch which bytes is decided by the `Memory`s cut from it.
unsafe impl Send for Slab {}
// SAFETY: as above.
unsafe impl Sync for Slab {}

impl Slab {
    /// For buffers of `capacity` bytes: on huge pages, where the kernel has some, if they are large.
    fn for_buffers(capacity: usize) -> Self {
        if capacity < HUGE_BUFFER_BYTES_MIN {
            return Self::map(SMALL_SLAB_BYTES.next_multiple_of(capacity), BLOCK_BYTES);
        }
        let slab = Self::map(capacity.next_multiple_of(HUGE_BYTES), HUGE_BYTES);
        // A huge page that reaches behind the last buffer would take memory for nobody.
        let huge_bytes = slab.bytes / capacity * capacity / HUGE_BYTES * HUGE_BYTES;
        // SAFETY: the range is ours. Where huge pages are switched off this is an error, and small ones serve as well.
        let _ = unsafe { madvise(slab.start.as_ptr().cast(), huge_bytes, Advice::LinuxHugepage) };
        slab
    }

    /// Zeroed, untouched memory. `align`: a power of two, at least a page.
    fn map(bytes: usize, align: usize) -> Self {
        let spare = align - BLOCK_BYTES;
        let protection = ProtFlags::READ | ProtFlags::WRITE;
        // SAFETY: a fresh private anonymous mapping at an address of the kernel's choosing.
        let mapped = unsafe { mmap_anonymous(null_mut(), bytes + spare, protection, MapFlags::PRIVATE) };
        let Some(mapped) = mapped.ok().and_then(|address| NonNull::new(address.cast::<u8>())) else {
            handle_alloc_error(Memory::layout(bytes))
        };
        let before = mapped.as_ptr().align_offset(align);
        for (edge, edge_bytes) in [(0, before), (before + bytes, spare - before)] {
            if edge_bytes > 0 {
                // SAFETY: both edges are inside the mapping just made, outside the slab, and nobody knows them. An
                // error would leave address space unused and nothing else.
                let _ = unsafe { munmap(mapped.as_ptr().add(edge).cast(), edge_bytes) };
            }
        }
        // SAFETY: pages are blocks, so `before` is at most `spare`, and the aligned range inside the mapping.
        Self { start: unsafe { mapped.add(before) }, bytes }
    }
}

impl Drop for Slab {
    fn drop(&mut self) {
        // SAFETY: mapped in `map` with this length; the last `Memory` in it is gone. A failure leaks address space.
        let _ = unsafe { munmap(self.start.as_ptr().cast(), self.bytes) };
    }
}

/// Aligned bytes, zero-initialised when they were allocated. They never move and never shrink.
struct Memory {
    start: NonNull<u8>,
    capacity: usize,
    /// The mapping it is a part of; none: an allocation of its own.
    slab: Option<Arc<Slab>>,
}

// SAFETY: `Memory` is plain bytes without thread affinity; who may touch which bytes is decided by the wrapping
// types of this module (see the module's invariant).
unsafe impl Send for Memory {}
// SAFETY: as above: a shared `Memory` is only read below `frozen`, where nobody writes.
unsafe impl Sync for Memory {}

impl Memory {
    fn layout(capacity: usize) -> Layout {
        Layout::from_size_align(capacity, BLOCK_BYTES).expect("a buffer's size is far below isize::MAX")
    }

    fn new(capacity: usize) -> Self {
        assert!(capacity > 0 && capacity.is_multiple_of(BLOCK_BYTES), "buffers are whole blocks");
        let layout = Self::layout(capacity);
        // SAFETY: the layout's size is not zero (asserted above).
        let raw = unsafe { alloc_zeroed(layout) };
        let Some(start) = NonNull::new(raw) else { handle_alloc_error(layout) };
        Self { start, capacity, slab: None }
    }

    /// Pieces of `capacity` bytes of a mapping that holds at least one.
    fn pieces_of_slab(capacity: usize) -> impl Iterator<Item = Self> {
        assert!(capacity > 0 && capacity.is_multiple_of(BLOCK_BYTES), "buffers are whole blocks");
        let slab = Arc::new(Slab::for_buffers(capacity));
        (0..slab.bytes / capacity).map(move |index| {
            // SAFETY: `index` pieces fit before this one, so it starts and ends inside the slab.
            let start = unsafe { slab.start.add(index * capacity) };
            Self { start, capacity, slab: Some(Arc::clone(&slab)) }
        })
    }

    /// # Safety
    /// `range` must be inside the capacity, and nobody may write to it while the slice lives.
    unsafe fn shared(&self, range: Range<usize>) -> &[u8] {
        debug_assert!(range.start <= range.end && range.end <= self.capacity);
        // SAFETY: inside the allocation and initialised (zeroed at allocation); not written: the caller's promise.
        unsafe { std::slice::from_raw_parts(self.start.as_ptr().add(range.start), range.end - range.start) }
    }

    /// # Safety
    /// `range` must be inside the capacity, and nobody else may read or write it while the slice lives.
    #[allow(clippy::mut_from_ref)] // The exclusive access is proven by the caller, not by the borrow.
    unsafe fn exclusive(&self, range: Range<usize>) -> &mut [u8] {
        debug_assert!(range.start <= range.end && range.end <= self.capacity);
        // SAFETY: inside the allocation and initialised; exclusive: the caller's promise.
        unsafe { std::slice::from_raw_parts_mut(self.start.as_ptr().add(range.start), range.end - range.start) }
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        if self.slab.is_none() {
            // SAFETY: allocated in `new` with the same layout, and dropped once, with the last `Arc`.
            unsafe { dealloc(self.start.as_ptr(), Self::layout(self.capacity)) }
        } else if self.capacity >= HUGE_BUFFER_BYTES_MIN {
            // The rest of the slab may live on for long: its memory goes back at once.
            // SAFETY: this piece is ours, and nobody reaches it any more. An error would leave it for the slab's end.
            let _ = unsafe { madvise(self.start.as_ptr().cast(), self.capacity, Advice::LinuxDontNeed) };
        }
    }
}

/// A buffer with one owner: fresh from the pool, or being filled by a read.
pub struct UniqueBuffer {
    memory: Arc<Memory>,
}

impl UniqueBuffer {
    /// A zeroed buffer of `capacity` bytes.
    ///
    /// # Panics
    /// If `capacity` is 0 or not a multiple of [`BLOCK_BYTES`].
    pub fn new(capacity: usize) -> Self {
        Self { memory: Arc::new(Memory::new(capacity)) }
    }

    pub fn len(&self) -> usize {
        self.memory.capacity
    }

    pub fn is_empty(&self) -> bool {
        false // A buffer has at least one block.
    }

    /// Where the kernel may write. Valid until this buffer is dropped or given back to the shard.
    pub fn as_mut_ptr(&mut self) -> *mut u8 {
        self.memory.start.as_ptr()
    }

    pub fn as_mut_slice(&mut self) -> &mut [u8] {
        // SAFETY: the whole capacity; a `UniqueBuffer` is the only holder of its memory (made by `new`, or by
        // `SharedBuffer::try_into_unique` after `Arc::get_mut`), and `&mut self` excludes a second slice.
        unsafe { self.memory.exclusive(0..self.memory.capacity) }
    }

    /// Turns the first `filled` bytes into shared, immutable ones.
    pub fn into_shared(self, filled: usize) -> SharedBuffer {
        assert!(filled <= self.memory.capacity, "filled bytes are inside the buffer");
        SharedBuffer { memory: self.memory, len: filled }
    }

    /// Starts filling from `frozen` on: the bytes below it are final already.
    pub fn into_filling(self, frozen: usize) -> FillingBuffer {
        assert!(frozen <= self.memory.capacity, "frozen bytes are inside the buffer");
        FillingBuffer { memory: self.memory, frozen }
    }
}

impl fmt::Debug for UniqueBuffer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "UniqueBuffer({} bytes)", self.len())
    }
}

/// A buffer being appended to by one writer while others already read its frozen beginning.
pub struct FillingBuffer {
    memory: Arc<Memory>,
    frozen: usize,
}

impl FillingBuffer {
    pub fn capacity(&self) -> usize {
        self.memory.capacity
    }

    /// Bytes that never change again.
    pub fn frozen(&self) -> usize {
        self.frozen
    }

    /// The bytes `range`, to be written.
    ///
    /// # Panics
    /// If the range reaches below `frozen` or beyond the capacity.
    pub fn tail_mut(&mut self, range: Range<usize>) -> &mut [u8] {
        assert!(self.frozen <= range.start, "frozen bytes are never written again");
        assert!(range.start <= range.end && range.end <= self.memory.capacity, "inside the buffer");
        // SAFETY: in bounds and at or above `frozen` (asserted). Slices and write views given out cover only bytes
        // below `frozen`, there is one `FillingBuffer` per memory, and `&mut self` excludes a second slice.
        unsafe { self.memory.exclusive(range) }
    }

    /// The bytes `range`, written or not, as the writer itself sees them.
    pub fn bytes(&self, range: Range<usize>) -> &[u8] {
        assert!(range.start <= range.end && range.end <= self.memory.capacity, "inside the buffer");
        // SAFETY: in bounds (asserted). Only this `FillingBuffer` can write, and that needs `&mut self`.
        unsafe { self.memory.shared(range) }
    }

    /// Makes everything below `to` final.
    pub fn freeze(&mut self, to: usize) {
        assert!(self.frozen <= to && to <= self.memory.capacity, "frozen only grows, inside the buffer");
        self.frozen = to;
    }

    /// A reader's view of frozen bytes.
    ///
    /// # Panics
    /// If the range reaches beyond `frozen`.
    pub fn slice(&self, range: Range<usize>) -> Slice {
        assert!(range.start <= range.end && range.end <= self.frozen, "readers see frozen bytes only");
        Slice::new(&self.memory, range)
    }

    /// What the kernel is to write: whole blocks around `range`, of which the bytes above `range.end` are padding.
    /// The writer keeps off the padding until the write has completed; that is the shard's promise (a batch opened
    /// while writes are in flight starts at the next block), and breaking it would tear the padding, never memory.
    pub fn write_bytes(&self, range: Range<usize>) -> WriteBytes {
        assert!(range.start <= range.end && range.end <= self.frozen, "only frozen bytes are written out");
        WriteBytes {
            memory: Arc::clone(&self.memory),
            start: range.start / BLOCK_BYTES * BLOCK_BYTES,
            frozen: range.end,
            end: range.end.next_multiple_of(BLOCK_BYTES),
        }
    }

    /// Ends the filling: from here on nobody writes.
    pub fn into_shared(self) -> SharedBuffer {
        SharedBuffer { memory: self.memory, len: self.frozen }
    }
}

/// An immutable buffer with any number of readers.
#[derive(Clone)]
pub struct SharedBuffer {
    memory: Arc<Memory>,
    len: usize,
}

impl SharedBuffer {
    pub fn capacity(&self) -> usize {
        self.memory.capacity
    }

    pub fn len(&self) -> usize {
        self.len
    }

    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    pub fn as_ptr(&self) -> *const u8 {
        self.memory.start.as_ptr()
    }

    pub fn as_slice(&self) -> &[u8] {
        // SAFETY: `len` is inside the capacity, and no writer exists while a `SharedBuffer` does.
        unsafe { self.memory.shared(0..self.len) }
    }

    /// # Panics
    /// If the range is not inside the buffer's length.
    pub fn slice(&self, range: Range<usize>) -> Slice {
        assert!(range.start <= range.end && range.end <= self.len, "inside the shared bytes");
        Slice::new(&self.memory, range)
    }

    /// The memory for a new use, if this was its last holder.
    pub fn try_into_unique(mut self) -> Result<UniqueBuffer, Self> {
        // `Arc::get_mut` (not `strong_count`) because it also synchronises with the last reader's drop.
        if Arc::get_mut(&mut self.memory).is_some() { Ok(UniqueBuffer { memory: self.memory }) } else { Err(self) }
    }
}

impl fmt::Debug for SharedBuffer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SharedBuffer({} bytes)", self.len)
    }
}

/// Reference-counted bytes of a log chunk. Cloning copies no byte; dropping the last one lets the chunk be reused.
#[derive(Clone)]
pub struct Slice {
    memory: Arc<Memory>,
    start: u32,
    len: u32,
}

impl Slice {
    fn new(memory: &Arc<Memory>, range: Range<usize>) -> Self {
        let start = u32::try_from(range.start).expect("chunks are far below 4 GiB");
        let len = u32::try_from(range.end - range.start).expect("chunks are far below 4 GiB");
        Self { memory: Arc::clone(memory), start, len }
    }

    pub fn len(&self) -> usize {
        self.len as usize
    }

    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Whether `next` continues this slice in the same memory without a gap.
    pub fn is_followed_by(&self, next: &Slice) -> bool {
        Arc::ptr_eq(&self.memory, &next.memory) && self.start + self.len == next.start
    }

    /// A part of the slice; `None` if it reaches beyond its end.
    pub fn part(&self, range: Range<usize>) -> Option<Slice> {
        let start = self.start as usize;
        (range.start <= range.end && range.end <= self.len())
            .then(|| Slice::new(&self.memory, start + range.start..start + range.end))
    }

    /// Lengthens this slice by `next`, which must follow it directly.
    pub fn join(&mut self, next: &Slice) {
        assert!(self.is_followed_by(next), "only neighbours are joined");
        self.len += next.len;
    }
}

impl AsRef<[u8]> for Slice {
    fn as_ref(&self) -> &[u8] {
        let start = self.start as usize;
        // SAFETY: made from a checked range below `frozen` (or of a shared buffer) and joined only with another
        // such range, so in bounds and never written while this slice holds its `Arc`.
        unsafe { self.memory.shared(start..start + self.len as usize) }
    }
}

impl fmt::Debug for Slice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Slice({} bytes)", self.len)
    }
}

/// Whole blocks of the log for the kernel to write; holds the memory until the write has completed.
pub struct WriteBytes {
    memory: Arc<Memory>,
    start: usize,
    frozen: usize,
    end: usize,
}

impl WriteBytes {
    /// Start of the first block. Valid as long as this value lives.
    pub fn as_ptr(&self) -> *const u8 {
        self.memory.start.as_ptr().wrapping_add(self.start)
    }

    /// Bytes to write: whole blocks, padding included.
    pub fn len(&self) -> usize {
        self.end - self.start
    }

    pub fn is_empty(&self) -> bool {
        self.end == self.start
    }

    /// The bytes without the zero padding at the end, for storages that copy.
    pub fn without_padding(&self) -> &[u8] {
        // SAFETY: `start..frozen` was checked against the writer's `frozen` mark when this view was made.
        unsafe { self.memory.shared(self.start..self.frozen) }
    }
}

impl fmt::Debug for WriteBytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "WriteBytes({} bytes)", self.len())
    }
}

/// Buffers of one size, reused when their last reader is gone: in the steady state nothing is allocated or freed,
/// and no page is touched for the first time.
pub struct BufferPool {
    buffer_bytes: usize,
    /// Cut from a slab and never used.
    fresh: Vec<UniqueBuffer>,
    /// Not used by the owner any more, but perhaps still held by readers; oldest first.
    retired: std::collections::VecDeque<SharedBuffer>,
    /// Most unheld buffers kept for reuse; the rest is freed.
    spare_max: usize,
}

/// Retired buffers looked at per request: readers let go in roughly the order the buffers were retired.
const RETIRED_PROBES: usize = 4;

impl BufferPool {
    pub fn new(buffer_bytes: usize, spare_max: usize) -> Self {
        Self { buffer_bytes, fresh: Vec::new(), retired: std::collections::VecDeque::new(), spare_max }
    }

    /// A buffer of at least `bytes` (rounded up to whole pool buffers); its content is whatever it was.
    pub fn take(&mut self, bytes: usize) -> UniqueBuffer {
        if bytes <= self.buffer_bytes {
            for _ in 0..RETIRED_PROBES.min(self.retired.len()) {
                let Some(candidate) = self.retired.pop_front() else {
                    break;
                };
                match candidate.try_into_unique() {
                    Ok(unique) => return unique,
                    Err(held) => self.retired.push_back(held),
                }
            }
        }
        self.make(bytes.max(1).next_multiple_of(self.buffer_bytes))
    }

    fn make(&mut self, capacity: usize) -> UniqueBuffer {
        let is_usual = capacity == self.buffer_bytes;
        if is_usual && let Some(buffer) = self.fresh.pop() {
            return buffer;
        }
        let mut pieces = Memory::pieces_of_slab(capacity).map(|memory| UniqueBuffer { memory: Arc::new(memory) });
        let first = pieces.next().expect("a slab holds at least one piece");
        if is_usual {
            self.fresh.extend(pieces);
        }
        first
    }

    /// Frees what is kept for reuse.
    pub fn release(&mut self) {
        self.fresh = Vec::new();
        self.retired = std::collections::VecDeque::new();
    }

    /// Takes a buffer the owner does not need any more. Odd sizes are not kept.
    pub fn retire(&mut self, buffer: SharedBuffer) {
        if buffer.capacity() == self.buffer_bytes && self.retired.len() < self.spare_max {
            self.retired.push_back(buffer);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn readers_keep_frozen_bytes_while_the_writer_goes_on() {
        let mut filling = UniqueBuffer::new(BLOCK_BYTES).into_filling(0);
        filling.tail_mut(0..5).copy_from_slice(b"hello");
        filling.freeze(5);
        let slice = filling.slice(1..5);
        filling.tail_mut(5..8).copy_from_slice(b"abc");
        assert_eq!(slice.as_ref(), b"ello");
        let write = filling.write_bytes(0..5);
        assert_eq!((write.len(), write.without_padding()), (BLOCK_BYTES, &b"hello"[..]));
        assert_eq!(write.as_ptr() as usize % BLOCK_BYTES, 0);
    }

    #[test]
    #[should_panic(expected = "frozen bytes are never written again")]
    fn frozen_bytes_cannot_be_written() {
        let mut filling = UniqueBuffer::new(BLOCK_BYTES).into_filling(8);
        filling.tail_mut(7..9);
    }

    #[test]
    fn a_buffer_is_reused_only_after_its_last_reader() {
        let mut pool = BufferPool::new(BLOCK_BYTES, 4);
        let buffer = pool.take(10);
        let shared = buffer.into_shared(10);
        let address = shared.as_ptr();
        let reader = shared.slice(0..4);
        pool.retire(shared);
        assert_ne!(pool.take(10).into_shared(0).as_ptr(), address);
        drop(reader);
        assert_eq!(pool.take(10).into_shared(0).as_ptr(), address);
    }

    #[test]
    fn large_buffers_share_aligned_mappings() {
        let half = HUGE_BYTES / 2;
        let mut pool = BufferPool::new(half, 4);
        let mut buffers: Vec<_> = (0..3).map(|_| pool.take(half)).collect();
        let starts: Vec<_> = buffers.iter_mut().map(|buffer| buffer.as_mut_ptr() as usize).collect();
        assert_eq!((starts[0] % HUGE_BYTES, starts[1]), (0, starts[0] + half), "the second is the first one's twin");
        assert_eq!(starts[2] % HUGE_BYTES, 0);
        for (number, buffer) in buffers.iter_mut().enumerate() {
            assert!(buffer.as_mut_slice().iter().all(|byte| *byte == 0));
            buffer.as_mut_slice().fill(number as u8 + 1);
        }
        drop(buffers.swap_remove(0));
        assert!(buffers.iter_mut().all(|buffer| buffer.as_mut_slice().iter().all(|byte| *byte > 1)));
        assert_eq!(pool.take(3 * half).len(), 3 * half);
    }

    #[test]
    fn many_small_buffers_lie_together_and_stay_apart() {
        let mut pool = BufferPool::new(BLOCK_BYTES, 4);
        let mut buffers: Vec<_> = (0..3 * SMALL_SLAB_BYTES / BLOCK_BYTES).map(|_| pool.take(1)).collect();
        for (number, buffer) in buffers.iter_mut().enumerate() {
            assert!(buffer.as_mut_slice().iter().all(|byte| *byte == 0), "fresh buffers are zeroed");
            buffer.as_mut_slice().fill(number as u8 | 1);
        }
        for (number, buffer) in buffers.iter_mut().enumerate() {
            assert!(buffer.as_mut_slice().iter().all(|byte| *byte == number as u8 | 1));
        }
    }

    #[test]
    fn neighbours_join_into_one_slice() {
        let shared = UniqueBuffer::new(BLOCK_BYTES).into_shared(100);
        let mut first = shared.slice(0..10);
        let second = shared.slice(10..30);
        assert!(first.is_followed_by(&second) && !second.is_followed_by(&first));
        first.join(&second);
        assert_eq!(first.len(), 30);
    }
}
