//! Full pages of rows: in memory until written, then cached while used, then read back from the one index file.

use std::collections::VecDeque;

use crate::buffer::{BLOCK_BYTES, BufferPool, SharedBuffer, UniqueBuffer};
use crate::cache::Cache;
use crate::consume_queue::row::{ROWS_PER_PAGE, Row};
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
    Unwritten(SharedBuffer),
    /// On disk; `load` says which read brought it back, 0 if none did.
    Clean {
        buffer: SharedBuffer,
        load: u64,
    },
    Loading(Vec<Ticket>),
    Failed(StorageError),
}

/// What asking for a page gave.
pub(crate) enum PageRead {
    Found(SharedBuffer),
    Pending,
    Failed(StorageError),
}

/// The pages of all queues of a shard.
pub(crate) struct IndexPages {
    next_page: u32,
    free: Vec<u32>,
    cache: Cache<u32, Page>,
    unwritten: VecDeque<u32>,
    unwritten_bytes: u64,
    writes_in_flight: usize,
    pool: BufferPool,
    loads: u64,
    bytes_max: u64,
}

impl IndexPages {
    pub fn new(bytes_max: u64) -> Self {
        Self {
            next_page: 0,
            free: Vec::new(),
            cache: Cache::new(),
            unwritten: VecDeque::new(),
            unwritten_bytes: 0,
            writes_in_flight: 0,
            pool: BufferPool::new(BLOCK_BYTES, 256),
            loads: 0,
            bytes_max,
        }
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

    /// Stores a full page and returns its number in the file.
    pub fn add(&mut self, rows: &[Row]) -> u32 {
        assert_eq!(rows.len(), ROWS_PER_PAGE, "only full pages leave their queue");
        let mut buffer = self.pool.take(BLOCK_BYTES);
        for (row, bytes) in rows.iter().zip(buffer.as_mut_slice().chunks_exact_mut(Row::SIZE_BYTES)) {
            bytes.copy_from_slice(&row.encode());
        }
        let page = self.free.pop().unwrap_or_else(|| {
            self.next_page += 1;
            self.next_page - 1
        });
        self.cache.insert(page, Page::Unwritten(buffer.into_shared(BLOCK_BYTES)), PAGE_BYTES);
        self.unwritten.push_back(page);
        self.unwritten_bytes += PAGE_BYTES;
        page
    }

    /// Lets the page's place in the file be used again.
    pub fn free(&mut self, page: u32) {
        // A page with I/O in flight keeps its place until the next start: two writes to one place could swap.
        match self.cache.get(page) {
            Some(Page::Unwritten(_) | Page::Loading(_)) => {}
            Some(Page::Clean { .. } | Page::Failed(_)) => {
                if let Some(Page::Clean { buffer, .. }) = self.cache.remove(page) {
                    self.pool.retire(buffer);
                }
                self.free.push(page);
            }
            None => self.free.push(page),
        }
    }

    /// The page's rows; `Pending` means that `ticket` hears of it, after `command` was carried out.
    pub fn read(&mut self, page: u32, ticket: Ticket, command: impl FnOnce(CommandKind)) -> PageRead {
        match self.cache.get(page) {
            Some(Page::Unwritten(buffer) | Page::Clean { buffer, .. }) => {
                return PageRead::Found(buffer.clone());
            }
            Some(Page::Loading(waiting)) => {
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
        self.cache.insert(page, Page::Loading(vec![ticket]), PAGE_BYTES);
        command(CommandKind::ReadIndex { at: u64::from(page) * PAGE_BYTES, into: self.pool.take(BLOCK_BYTES) });
        PageRead::Pending
    }

    /// Takes the result of a read; returns who waited for it.
    pub fn on_read(&mut self, at: u64, result: Result<UniqueBuffer, StorageError>) -> Vec<Ticket> {
        let page = (at / PAGE_BYTES) as u32;
        let loaded = match result {
            Ok(buffer) => {
                self.loads += 1;
                Page::Clean { buffer: buffer.into_shared(BLOCK_BYTES), load: self.loads }
            }
            Err(error) => Page::Failed(error),
        };
        let Some(slot) = self.cache.get(page) else {
            return Vec::new();
        };
        match std::mem::replace(slot, loaded) {
            Page::Loading(waiting) => waiting,
            _ => Vec::new(),
        }
    }

    /// The next write of waiting pages, adjacent ones together.
    pub fn next_write(&mut self) -> Option<CommandKind> {
        if self.writes_in_flight >= INDEX_WRITES_IN_FLIGHT_MAX {
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
                Some(Page::Unwritten(buffer)) => pages.push(buffer.clone()),
                _ => unreachable!("a page stays in memory until it is written"),
            }
        }
        self.writes_in_flight += 1;
        Some(CommandKind::WriteIndex { at: u64::from(first) * PAGE_BYTES, pages })
    }

    /// Takes the success of a write of `count` pages from `at`.
    pub fn on_written(&mut self, at: u64, count: usize) {
        self.writes_in_flight -= 1;
        let first = (at / PAGE_BYTES) as u32;
        for page in (first..).take(count) {
            if let Some(slot) = self.cache.get(page)
                && let Page::Unwritten(buffer) = slot
            {
                *slot = Page::Clean { buffer: buffer.clone(), load: 0 };
                self.unwritten_bytes -= PAGE_BYTES;
            }
        }
    }

    /// Brings the cache back under its bound.
    pub fn trim(&mut self) {
        let loads = self.loads;
        let may_go = |page: &Page| match page {
            Page::Clean { load, .. } => *load == 0 || load + FRESH_PAGES <= loads,
            Page::Failed(_) => true,
            Page::Unwritten(_) | Page::Loading(_) => false,
        };
        while let Some(page) = self.cache.evict_above(self.bytes_max, may_go) {
            if let Page::Clean { buffer, .. } = page {
                self.pool.retire(buffer);
            }
        }
    }
}
