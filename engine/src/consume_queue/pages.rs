//! Full pages of rows: in memory until written, then cached while used, then read back from the one index file.

use std::collections::VecDeque;

use crate::buffer::{BLOCK_BYTES, BufferPool, SharedBuffer, UniqueBuffer};
use crate::cache::Cache;
use crate::config::SPARE_PAGES_MAX;
use crate::consume_queue::row::{ROWS_PER_PAGE, Row};
use crate::consume_queue::table::PageEntry;
use crate::planted::{self, Bug};
use crate::shard::Ticket;
use crate::storage::{CommandKind, StorageError};

const PAGE_BYTES: u64 = BLOCK_BYTES as u64;
/// Pages gathered into one write of the index file.
const PAGES_PER_WRITE_MAX: usize = 64;
/// Index writes in flight at once: the file is written in the background of the log.
const INDEX_WRITES_IN_FLIGHT_MAX: usize = 2;

/// Pages kept whatever the bound, the last ones read back: they must still be there when their reader asks again.
const FRESH_PAGES: u64 = 4;

enum Page {
    /// Not on disk yet; cannot be evicted.
    Unwritten {
        buffer: SharedBuffer,
        /// Whether it stays in memory when it is written.
        is_kept: bool,
    },
    /// On disk; `load` says which read brought it back, 0 if none did.
    Clean {
        buffer: SharedBuffer,
        load: u64,
    },
    Loading {
        waiting: Vec<Ticket>,
        checksum: u32,
    },
    Failed(StorageError),
}

/// What asking for a page gave.
pub(crate) enum PageRead {
    Found(SharedBuffer),
    Pending,
    Failed(StorageError),
}

/// A write of pages under way.
struct PagesInFlight {
    at: u64,
    /// How many pages had been given to writes before.
    given_before: u64,
}

/// The pages of all queues of a shard.
///
/// Snapshots name pages by their numbers, and the last two snapshots may be needed. So the place of a page that nobody
/// uses any more is first `freed`, then `held` from one snapshot to the next but one, and only then `free`.
pub(crate) struct IndexPages {
    next_page: u32,
    free: Vec<u32>,
    freed: Vec<u32>,
    held: VecDeque<Vec<u32>>,
    cache: Cache<u32, Page>,
    unwritten: VecDeque<u32>,
    unwritten_bytes: u64,
    /// Pages given to writes since the start.
    given: u64,
    writes_in_flight: Vec<PagesInFlight>,
    pool: BufferPool,
    loads: u64,
    bytes_max: u64,
}

impl IndexPages {
    pub fn new(bytes_max: u64) -> Self {
        Self {
            next_page: 0,
            free: Vec::new(),
            freed: Vec::new(),
            held: VecDeque::new(),
            cache: Cache::new(),
            unwritten: VecDeque::new(),
            unwritten_bytes: 0,
            given: 0,
            writes_in_flight: Vec::new(),
            pool: BufferPool::new(BLOCK_BYTES, SPARE_PAGES_MAX),
            loads: 0,
            bytes_max,
        }
    }

    /// The pages of a file that a snapshot tells about: those below `next_page` that are neither `used` nor `held` nor
    /// `freed` are free.
    pub fn restored(
        bytes_max: u64,
        next_page: u32,
        held: Vec<u32>,
        freed: Vec<u32>,
        used: impl Iterator<Item = u32>,
    ) -> Self {
        let mut is_taken = vec![false; next_page as usize];
        let take = |page: u32| {
            if let Some(is_taken) = is_taken.get_mut(page as usize) {
                *is_taken = true;
            }
        };
        used.chain(held.iter().copied()).for_each(take);
        // A queue that was told before its topic was removed still uses its pages: the log will free them once more.
        let freed: Vec<u32> = freed.into_iter().filter(|page| is_taken.get(*page as usize) == Some(&false)).collect();
        for page in &freed {
            is_taken[*page as usize] = true;
        }
        // Popped from the end: low numbers first, so that neighbours are written together.
        let free = (0..next_page).rev().filter(|page| !is_taken[*page as usize]).collect();
        Self { next_page, free, freed, held: VecDeque::from([held]), ..Self::new(bytes_max) }
    }

    /// Number no page has reached yet.
    pub fn next_page(&self) -> u32 {
        self.next_page
    }

    /// A snapshot begins: what was freed before is not named by it, only by those before.
    pub fn hold(&mut self) {
        self.held.push_back(std::mem::take(&mut self.freed));
    }

    /// The snapshot that [`Self::hold`] was called for is given up.
    pub fn unhold(&mut self) {
        self.freed.extend(self.held.pop_back().unwrap_or_default());
    }

    /// A snapshot is in force, and only the one before is kept beside it.
    pub fn release(&mut self) {
        while self.held.len() > 1
            && let Some(pages) = self.held.pop_front()
        {
            self.free.extend(pages);
        }
    }

    /// Pages that are not used, but not free either: those held, and those freed since the last [`Self::hold`].
    pub fn unused(&self) -> (Vec<u32>, Vec<u32>) {
        (self.held.iter().flatten().copied().collect(), self.freed.clone())
    }

    /// How many pages were added since the start; see [`Self::is_written`].
    pub fn added(&self) -> u64 {
        self.given + self.unwritten.len() as u64
    }

    /// Whether the first `added` pages are all in the file.
    pub fn is_written(&self, added: u64) -> bool {
        added <= self.given && self.writes_in_flight.iter().all(|write| added <= write.given_before)
    }

    /// Bytes of pages that wait for the index file.
    pub fn unwritten_bytes(&self) -> u64 {
        self.unwritten_bytes
    }

    /// Whether so much waits that appends should too.
    pub fn is_behind(&self) -> bool {
        self.unwritten_bytes > self.bytes_max
    }

    pub fn unwritten_pages(&self) -> usize {
        self.unwritten.len()
    }

    /// Stores a full page and returns how to find it again.
    pub fn add(&mut self, rows: &[Row]) -> PageEntry {
        assert_eq!(rows.len(), ROWS_PER_PAGE, "only full pages leave their queue");
        let (page, checksum) = self.add_page(true, |page| {
            for (row, bytes) in rows.iter().zip(page.chunks_exact_mut(Row::SIZE_BYTES)) {
                bytes.copy_from_slice(&row.encode());
            }
        });
        let Row { position, store_time_ms, .. } = rows[0];
        PageEntry { page, checksum, first_position: position, first_store_time_ms: store_time_ms }
    }

    /// Stores a page that hardly anybody is going to read, and so need not stay in memory; returns its number and its
    /// checksum. `fill` must set every byte that counts.
    pub fn add_passing(&mut self, fill: impl FnOnce(&mut [u8])) -> (u32, u32) {
        self.add_page(false, fill)
    }

    fn add_page(&mut self, is_kept: bool, fill: impl FnOnce(&mut [u8])) -> (u32, u32) {
        let mut buffer = self.pool.take(BLOCK_BYTES);
        fill(buffer.as_mut_slice());
        let page = self.free.pop().unwrap_or_else(|| {
            self.next_page += 1;
            self.next_page - 1
        });
        let checksum = crc32fast::hash(buffer.as_mut_slice());
        let buffer = buffer.into_shared(BLOCK_BYTES);
        self.cache.insert(page, Page::Unwritten { buffer, is_kept }, PAGE_BYTES);
        self.unwritten.push_back(page);
        self.unwritten_bytes += PAGE_BYTES;
        (page, checksum)
    }

    /// Lets the page's place in the file be used again, once no snapshot that is kept names it.
    pub fn free(&mut self, page: u32) {
        let unused = if planted::is(Bug::PageReusedAtOnce) { &mut self.free } else { &mut self.freed };
        // A page with I/O in flight keeps its place until the next start: two writes to one place could swap.
        match self.cache.get(page) {
            Some(Page::Unwritten { .. } | Page::Loading { .. }) => {}
            Some(Page::Clean { .. } | Page::Failed(_)) => {
                if let Some(Page::Clean { buffer, .. }) = self.cache.remove(page) {
                    self.pool.retire(buffer);
                }
                unused.push(page);
            }
            None => unused.push(page),
        }
    }

    /// The page's rows; `Pending` means that `ticket` hears of it, after `command` was carried out.
    pub fn read(&mut self, page: u32, checksum: u32, ticket: Ticket, command: impl FnOnce(CommandKind)) -> PageRead {
        match self.cache.get(page) {
            Some(Page::Unwritten { buffer, .. } | Page::Clean { buffer, .. }) => {
                return PageRead::Found(buffer.clone());
            }
            Some(Page::Loading { waiting, .. }) => {
                if waiting.last() != Some(&ticket) {
                    waiting.push(ticket);
                }
                return PageRead::Pending;
            }
            Some(Page::Failed(error)) => {
                let error = *error;
                self.cache.remove(page); // The next request tries the disk again.
                return PageRead::Failed(error);
            }
            None => {}
        }
        let loading = Page::Loading { waiting: vec![ticket], checksum };
        self.cache.insert(page, loading, PAGE_BYTES);
        command(CommandKind::ReadIndex { at: u64::from(page) * PAGE_BYTES, into: self.pool.take(BLOCK_BYTES) });
        PageRead::Pending
    }

    /// Takes the result of a read; returns who waited for it.
    pub fn on_read(&mut self, at: u64, result: Result<UniqueBuffer, StorageError>) -> Vec<Ticket> {
        let page = (at / PAGE_BYTES) as u32;
        let Some(slot) = self.cache.get(page) else {
            return Vec::new();
        };
        let Page::Loading { waiting, checksum } = slot else {
            return Vec::new();
        };
        let waiting = std::mem::take(waiting);
        *slot = match result.map(|buffer| buffer.into_shared(BLOCK_BYTES)) {
            Ok(buffer)
                if crc32fast::hash(buffer.as_slice()) == *checksum || planted::is(Bug::PageChecksumNotChecked) =>
            {
                self.loads += 1;
                Page::Clean { buffer, load: self.loads }
            }
            Ok(_) => {
                tracing::error!(
                    page,
                    "a page of the index is not what was written, so the messages it lists cannot be found; `rmq store repair --rebuild-index` on the stopped broker makes the index anew where the log still begins with segment 0"
                );
                Page::Failed(StorageError::IO)
            }
            Err(error) => Page::Failed(error),
        };
        waiting
    }

    /// The next write of waiting pages, adjacent ones together. A few are left to wait for more unless `takes_few`: nobody
    /// misses them in the file but a snapshot, and a write costs the same whatever its size.
    pub fn next_write(&mut self, takes_few: bool) -> Option<CommandKind> {
        let are_few = self.unwritten.len() < PAGES_PER_WRITE_MAX && self.unwritten_bytes <= self.bytes_max / 2;
        if self.writes_in_flight.len() >= INDEX_WRITES_IN_FLIGHT_MAX || are_few && !takes_few {
            return None;
        }
        let first = *self.unwritten.front()?;
        let mut pages = Vec::new();
        while pages.len() < PAGES_PER_WRITE_MAX
            && self.unwritten.front().copied() == first.checked_add(pages.len() as u32)
        {
            let Some(page) = self.unwritten.pop_front() else {
                break;
            };
            match self.cache.get(page) {
                Some(Page::Unwritten { buffer, .. }) => pages.push(buffer.clone()),
                _ => unreachable!("a page stays in memory until it is written"),
            }
        }
        let at = u64::from(first) * PAGE_BYTES;
        self.writes_in_flight.push(PagesInFlight { at, given_before: self.given });
        self.given += pages.len() as u64;
        Some(CommandKind::WriteIndex { at, pages })
    }

    /// Takes the success of a write of `count` pages from `at`.
    pub fn on_written(&mut self, at: u64, count: usize) {
        self.writes_in_flight.retain(|write| write.at != at);
        let first = (at / PAGE_BYTES) as u32;
        for page in (first..).take(count) {
            let Some(slot) = self.cache.get(page) else { continue };
            let Page::Unwritten { buffer, is_kept } = slot else { continue };
            self.unwritten_bytes -= PAGE_BYTES;
            if *is_kept {
                *slot = Page::Clean { buffer: buffer.clone(), load: 0 };
            } else if let Some(Page::Unwritten { buffer, .. }) = self.cache.remove(page) {
                self.pool.retire(buffer);
            }
        }
    }

    pub fn release_spare_buffers(&mut self) {
        self.pool.release();
    }

    /// Brings the cache back under its bound.
    pub fn trim(&mut self) {
        let loads = self.loads;
        let may_go = |page: &Page| match page {
            Page::Clean { load, .. } => *load == 0 || load + FRESH_PAGES <= loads,
            Page::Failed(_) => true,
            Page::Unwritten { .. } | Page::Loading { .. } => false,
        };
        while let Some(page) = self.cache.evict_above(self.bytes_max, may_go) {
            if let Page::Clean { buffer, .. } = page {
                self.pool.retire(buffer);
            }
        }
    }
}
