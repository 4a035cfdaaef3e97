//! Everything that reads messages: from memory at once, from disk by ticket.

use std::fmt::Debug;
use std::sync::Arc;

use crate::buffer::{SharedBuffer, Slice};
use crate::commit_log::reader::Located;
use crate::commit_log::record::{self, Record};
use crate::config::{BATCH_BYTES_MAX, EXAMINED_ROWS_MIN, FILTERED_BYTES_MAX};
use crate::consume_queue::pages::{IndexPages, PageRead};
use crate::consume_queue::row::{ROWS_PER_PAGE, Row};
use crate::consume_queue::table::{Bounds, PageEntry, Queue, QueueRef, RowPlace};
use crate::planted::{self, Bug};
use crate::position::{LogPosition, PhysicalOffset};
use crate::shard::{Commands, Shard, Ticket};
use crate::storage::StorageError;

/// Chooses messages by their properties, for what tags cannot say.
pub trait PropertyFilter: Debug + Send + Sync {
    /// Whether a message with these properties (`key 0x01 value 0x02 ...`) is wanted.
    fn selects(&self, properties: &[u8]) -> bool;

    /// How often one look passes over the properties at most: what it costs, see [`FILTERED_BYTES_MAX`].
    fn passes_over_properties(&self) -> u32;
}

/// Which messages a reader wants.
#[derive(Clone, Debug)]
pub enum TagFilter {
    All,
    /// Tag hashes, compared as 32-bit numbers with the rows, never with the records: a message with another tag of the
    /// same hash may pass, none is held back.
    Codes(Arc<[i32]>),
    /// Asked about every record, which so has to be read.
    Properties(Arc<dyn PropertyFilter>),
}

impl PartialEq for TagFilter {
    fn eq(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::All, Self::All) => true,
            (Self::Codes(codes), Self::Codes(others)) => codes == others,
            (Self::Properties(filter), Self::Properties(other)) => Arc::ptr_eq(filter, other),
            _ => false,
        }
    }
}

impl Eq for TagFilter {}

impl TagFilter {
    fn passes_row(&self, tags_code: i64) -> bool {
        match self {
            Self::All | Self::Properties(_) => true,
            Self::Codes(codes) => codes.contains(&(tags_code as i32)),
        }
    }

    /// Whether the record passes. What that cost is added to `bytes_filtered`.
    fn passes_record(&self, record: &[u8], bytes_filtered: &mut u64) -> bool {
        let Self::Properties(filter) = self else {
            return true;
        };
        is_selected(&**filter, record, bytes_filtered)
    }
}

fn is_selected(filter: &dyn PropertyFilter, record: &[u8], bytes_filtered: &mut u64) -> bool {
    let properties = record::properties(record).unwrap_or_default();
    *bytes_filtered += properties.len() as u64 * u64::from(filter.passes_over_properties());
    filter.selects(properties)
}

/// A reader's request: messages of one queue from an offset on.
#[derive(Clone, Copy, Debug)]
pub struct FetchRequest<'a> {
    pub topic: &'a str,
    pub queue_id: u32,
    pub offset: i64,
    /// Most messages; 0 counts as 1.
    pub count_max: u32,
    /// Most bytes; the first message is delivered whatever its size.
    pub bytes_max: u32,
    pub filter: &'a TagFilter,
}

/// What a fetch gave.
#[derive(Debug)]
pub enum Fetch {
    Found {
        /// The records in offset order; neighbours in the log are one slice.
        slices: Vec<Slice>,
        count: u32,
        /// Sum of the slices.
        bytes: u32,
        /// Where to go on.
        next: i64,
        bounds: Bounds,
    },
    Nothing {
        why: Nothing,
        next: i64,
        bounds: Bounds,
    },
    /// Not in memory: ask again when [`Shard::ready`] names the ticket. A ticket may also be named when nobody waits
    /// under it any more.
    Pending,
}

/// Why a fetch found nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Nothing {
    NoQueue,
    /// The queue never had a message.
    Empty,
    /// The offset lies before the first readable message.
    TooSmall,
    /// Exactly at the end: the next message will be at this offset.
    AtEnd,
    BeyondEnd,
    /// Rows were examined and none passed the filter; `next` lies behind them.
    NoMatch,
    /// The records are gone or damaged; `next` lies behind them.
    Removed,
    /// The disk refused. `next` is where reading stopped; the same request may succeed later.
    ReadFailed(StorageError),
}

/// What looking for one record gave.
#[derive(Debug)]
pub enum ReadRecord {
    Found(Slice),
    NotFound,
    Pending,
    Failed(StorageError),
}

/// Where a message stands in the log of its shard, and how it is verified: enough to read it alone.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MessageRef {
    pub(crate) position: u64,
    pub(crate) size_bytes: u32,
    pub(crate) checksum: u32,
}

impl MessageRef {
    pub fn position(&self) -> LogPosition {
        LogPosition::new(self.position)
    }

    pub fn size_bytes(&self) -> u32 {
        self.size_bytes
    }
}

/// What asking for the rows of a queue gave.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rows {
    /// All rows before this offset were told.
    UpTo(i64),
    Pending,
    Failed(StorageError),
}

/// Which of the messages around a point of time is meant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Boundary {
    /// The first message stored at or after the time.
    Lower,
    /// The last message stored at or before the time.
    Upper,
}

/// What a search by time gave.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Searched {
    Done(i64),
    Pending,
    Failed(StorageError),
}

/// What asking for a message's store time gave: milliseconds since 1970.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StoreTime {
    Known(i64),
    NotFound,
    Pending,
    Failed(StorageError),
}

/// Why a row or page is not at hand.
pub(super) enum Unavailable {
    Pending,
    Failed(StorageError),
}

/// How many records are brought near before the first of them is looked at.
const LOOKED_AT_TOGETHER: usize = 16;

/// What a fetch with a filter looks for in memory.
struct Look<'a> {
    filter: &'a dyn PropertyFilter,
    /// The offset behind the last row to be looked at.
    end: i64,
    count_max: u32,
    bytes_max: u32,
    ticket: Ticket,
}

/// Records gathered for one reply.
#[derive(Default)]
struct Gathered {
    slices: Vec<Slice>,
    count: u32,
    bytes: u32,
}

impl Gathered {
    /// The first record always fits.
    fn has_room_for(&self, size_bytes: u32, bytes_max: u32) -> bool {
        self.count == 0 || self.bytes.saturating_add(size_bytes) <= bytes_max
    }

    fn add(&mut self, slice: Slice) {
        self.count += 1;
        self.bytes += slice.len() as u32;
        match self.slices.last_mut() {
            Some(last) if last.is_followed_by(&slice) => last.join(&slice),
            _ => self.slices.push(slice),
        }
    }
}

/// The page a walk over rows is in, so that it is looked up once.
type CurrentPage = Option<(usize, SharedBuffer)>;

impl Shard {
    /// Messages of a queue from an offset on, as RocketMQ's pull answers them.
    pub fn fetch(&mut self, request: &FetchRequest<'_>, ticket: Ticket) -> Fetch {
        let Some(queue_ref) = self.queues.find(request.topic, request.queue_id) else {
            return Fetch::Nothing { why: Nothing::NoQueue, next: 0, bounds: Bounds::default() };
        };
        let Some(queue) = self.queues.get(queue_ref) else {
            return Fetch::Nothing { why: Nothing::NoQueue, next: 0, bounds: Bounds::default() };
        };
        let bounds = queue.bounds();
        let nothing = |why, next| Fetch::Nothing { why, next, bounds };
        match request.offset {
            _ if bounds.max == 0 => return nothing(Nothing::Empty, 0),
            offset if offset < bounds.min => return nothing(Nothing::TooSmall, bounds.min),
            offset if offset == bounds.max => return nothing(Nothing::AtEnd, offset),
            offset if offset > bounds.max => return nothing(Nothing::BeyondEnd, bounds.max),
            _ => {}
        }
        let count_max = request.count_max.max(1);
        let examined_end = request.offset.saturating_add(i64::from(EXAMINED_ROWS_MIN.max(count_max))).min(bounds.max);
        let mut next = request.offset;
        let mut gathered = Gathered::default();
        let mut is_removed = false;
        let mut bytes_filtered = 0;
        let mut unavailable = None;
        let mut page = None;
        while next < examined_end && gathered.count < count_max && bytes_filtered < FILTERED_BYTES_MAX {
            if let TagFilter::Properties(filter) = request.filter {
                let look =
                    Look { filter: &**filter, end: examined_end, count_max, bytes_max: request.bytes_max, ticket };
                match self.look_in_memory(queue_ref, &look, next, &mut page, &mut gathered, &mut bytes_filtered) {
                    0 => {}
                    looked_at => {
                        next += looked_at;
                        continue;
                    }
                }
            }
            let Some(queue) = self.queues.get(queue_ref) else {
                break;
            };
            let row = match row_at(queue, next, &mut page, |entry| {
                read_rows(&mut self.pages, &mut self.commands, entry, ticket)
            }) {
                Ok(row) => row,
                Err(why) => {
                    unavailable = Some(why);
                    break;
                }
            };
            if !request.filter.passes_row(row.tags_code) {
                next += 1;
                continue;
            }
            if !gathered.has_room_for(row.size_bytes, request.bytes_max) {
                break;
            }
            if row.position < self.log_start {
                (is_removed, next) = (true, next + 1);
                continue;
            }
            match self.reader.record(&row, &self.log, ticket) {
                Located::Found(slice) => {
                    if request.filter.passes_record(slice.as_ref(), &mut bytes_filtered) {
                        gathered.add(slice);
                    }
                }
                Located::Damaged => is_removed = true,
                Located::Pending => unavailable = Some(Unavailable::Pending),
                Located::Failed(error) => unavailable = Some(Unavailable::Failed(error)),
            }
            if unavailable.is_some() {
                break;
            }
            next += 1;
        }
        self.issue_reads();
        if gathered.count > 0 {
            let Gathered { slices, count, bytes } = gathered;
            return Fetch::Found { slices, count, bytes, next, bounds };
        }
        // Progress is reported before waiting: a fetch that started over again and again could need more pages than
        // the cache keeps.
        match unavailable.filter(|_| next == request.offset) {
            Some(Unavailable::Pending) => Fetch::Pending,
            Some(Unavailable::Failed(error)) => nothing(Nothing::ReadFailed(error), next),
            None if is_removed => nothing(Nothing::Removed, next),
            None => nothing(Nothing::NoMatch, next),
        }
    }

    /// Looks at the records of the rows from `next` on that lie together in memory, at most [`LOOKED_AT_TOGETHER`], and
    /// gathers those the filter selects. Returns how many rows that were; 0 leaves the first one to the caller.
    ///
    /// Most of the time of such a look is waiting for memory. So all of these records are touched before the first is
    /// looked at, and their misses overlap.
    fn look_in_memory(
        &mut self,
        queue_ref: QueueRef,
        look: &Look<'_>,
        next: i64,
        page: &mut CurrentPage,
        gathered: &mut Gathered,
        bytes_filtered: &mut u64,
    ) -> i64 {
        let Some(queue) = self.queues.get(queue_ref) else { return 0 };
        let mut rows = [Row::NONE; LOOKED_AT_TOGETHER];
        let mut count = 0;
        for (offset, place) in (next..look.end).zip(&mut rows) {
            let row =
                row_at(queue, offset, page, |entry| read_rows(&mut self.pages, &mut self.commands, entry, look.ticket));
            match row {
                Ok(row) if row.position >= self.log_start => (*place, count) = (row, count + 1),
                _ => break,
            }
        }
        let Some(piece) = rows[..count].first().and_then(|first| self.reader.piece(first, &self.log)) else { return 0 };
        let count = rows[..count].iter().take_while(|row| piece.record(row).is_some_and(record::touch)).count();
        for (row, looked_at) in rows[..count].iter().zip(0..) {
            let offset = PhysicalOffset::new(self.config.shard, LogPosition::new(row.position));
            let bytes = piece.record(row).filter(|bytes| record::is_at(bytes, row.size_bytes, offset));
            let is_full = gathered.count >= look.count_max || *bytes_filtered >= FILTERED_BYTES_MAX;
            let Some(bytes) = bytes.filter(|_| !is_full) else { return looked_at };
            if !is_selected(look.filter, bytes, bytes_filtered) {
                continue;
            }
            match piece.slice(row) {
                Some(slice) if gathered.has_room_for(row.size_bytes, look.bytes_max) => gathered.add(slice),
                _ => return looked_at,
            }
        }
        count as i64
    }

    /// Reads go out at once, not only with the next pump: somebody waits for them.
    pub(super) fn issue_reads(&mut self) {
        while let Some(read) = self.reader.next_read(&mut self.pool) {
            self.commands.issue(read);
        }
    }

    /// The message at a physical offset. The offset may come from anywhere: it names a message only if the record
    /// there says so itself and its queue has it at that place.
    pub fn read_record(&mut self, at: PhysicalOffset, ticket: Ticket) -> ReadRecord {
        let found = self.find_record(at, ticket);
        self.issue_reads();
        match found {
            Ok(Some(slice)) => ReadRecord::Found(slice),
            Ok(None) => ReadRecord::NotFound,
            Err(Unavailable::Pending) => ReadRecord::Pending,
            Err(Unavailable::Failed(error)) => ReadRecord::Failed(error),
        }
    }

    pub(super) fn find_record(&mut self, at: PhysicalOffset, ticket: Ticket) -> Result<Option<Slice>, Unavailable> {
        let position = at.position().bytes();
        let durable = self.log.durable().bytes();
        let readable_end = self.config.geometry.segment_end(position).min(durable);
        let is_inside = |len: u32| position >= self.log_start && position + u64::from(len) <= readable_end;
        if at.shard() != self.config.shard || !is_inside(record::HEAD_BYTES) {
            return Ok(None);
        }
        let Some(head) = available(self.reader.bytes(position, record::HEAD_BYTES, &self.log, ticket))? else {
            return Ok(None);
        };
        // Before the size is believed, which may cost a large read.
        let Some(size) = record::size_at(head.as_ref(), at) else {
            return Ok(None);
        };
        if u64::from(size) > BATCH_BYTES_MAX || !is_inside(size) {
            return Ok(None);
        }
        let Some(slice) = available(self.reader.bytes(position, size, &self.log, ticket))? else {
            return Ok(None);
        };
        let Ok(record) = Record::decode(slice.as_ref()) else {
            return Ok(None);
        };
        let Some(queue_ref) = self.queues.find(record.topic, record.queue_id) else {
            return Ok(None);
        };
        let Some(queue) = self.queues.get(queue_ref) else {
            return Ok(None);
        };
        if record.queue_offset < queue.min || queue.visible <= record.queue_offset {
            return Ok(None);
        }
        let row = row_at(queue, record.queue_offset, &mut None, |entry| {
            read_rows(&mut self.pages, &mut self.commands, entry, ticket)
        })?;
        let is_this = row.position == position && row.size_bytes == size;
        Ok((is_this && record::is_intact(slice.as_ref(), row.checksum)).then_some(slice))
    }

    /// A message alone, wherever it is: on disk only its own blocks are read. It must be durable.
    pub fn read_message(&mut self, message: MessageRef, ticket: Ticket) -> ReadRecord {
        let MessageRef { position, size_bytes, checksum } = message;
        if position < self.log_start {
            return ReadRecord::NotFound;
        }
        let row = Row { position, size_bytes, checksum, tags_code: 0, store_time_ms: 0 };
        let located = self.reader.record_alone(&row, &self.log, ticket);
        self.issue_reads();
        match located {
            Located::Found(slice) => ReadRecord::Found(slice),
            Located::Damaged => ReadRecord::NotFound,
            Located::Pending => ReadRecord::Pending,
            Located::Failed(error) => ReadRecord::Failed(error),
        }
    }

    /// Has durable messages read that [`read_message`](Self::read_message) will be asked for soon. Sorts them.
    pub fn read_soon(&mut self, messages: &mut [MessageRef]) {
        messages.sort_unstable_by_key(|message| message.position);
        let gone = messages.partition_point(|message| message.position < self.log_start);
        self.reader.announce(&messages[gone..], &self.log);
        self.issue_reads();
    }

    /// Tells the readable messages of a queue from offset `from` on, at most those of one page of the index: offset, the
    /// code of the row (of an owed message: when it is due), and where the message is.
    pub fn rows(
        &mut self,
        topic: &str,
        queue_id: u32,
        from: i64,
        ticket: Ticket,
        mut tell: impl FnMut(i64, i64, MessageRef),
    ) -> Rows {
        let Some(queue) = self.queues.find(topic, queue_id).and_then(|queue| self.queues.get(queue)) else {
            return Rows::UpTo(from);
        };
        let from = from.max(queue.min);
        let end = queue
            .visible
            .min((from - queue.base) / ROWS_PER_PAGE as i64 * ROWS_PER_PAGE as i64 + queue.base + ROWS_PER_PAGE as i64);
        let mut page = None;
        for offset in from..end {
            let row =
                row_at(queue, offset, &mut page, |entry| read_rows(&mut self.pages, &mut self.commands, entry, ticket));
            match row {
                Ok(row) => {
                    let Row { position, size_bytes, checksum, .. } = row;
                    tell(offset, row.tags_code, MessageRef { position, size_bytes, checksum });
                }
                Err(Unavailable::Pending) => return Rows::Pending,
                Err(Unavailable::Failed(error)) => return Rows::Failed(error),
            }
        }
        Rows::UpTo(end.max(from))
    }

    /// The offset of the message at the boundary of a point of time, clamped into the queue's bounds; the end if
    /// all are older (lower), the start if all are newer (upper). 0 for an unknown queue.
    pub fn search_time(
        &mut self,
        topic: &str,
        queue_id: u32,
        timestamp_ms: i64,
        boundary: Boundary,
        ticket: Ticket,
    ) -> Searched {
        let Some(queue) = self.queues.find(topic, queue_id).and_then(|queue| self.queues.get(queue)) else {
            return Searched::Done(0);
        };
        let Bounds { min, max } = queue.bounds();
        let is_before = |store_time_ms: i64| match boundary {
            Boundary::Lower => store_time_ms < timestamp_ms,
            Boundary::Upper => store_time_ms <= timestamp_ms,
        };
        let rows_before = if queue.open.first().is_some_and(|row| is_before(row.store_time_ms)) {
            queue.pages.len() * ROWS_PER_PAGE + queue.open.partition_point(|row| is_before(row.store_time_ms))
        } else {
            // The boundary is in the last page that begins before it.
            match queue.pages.partition_point(|entry| is_before(entry.first_store_time_ms)).checked_sub(1) {
                None => 0,
                Some(entry) => {
                    let page = queue.pages[entry];
                    match read_rows(&mut self.pages, &mut self.commands, page, ticket) {
                        Ok(page) => entry * ROWS_PER_PAGE + rows_before_in(page.as_slice(), is_before),
                        Err(Unavailable::Pending) => return Searched::Pending,
                        Err(Unavailable::Failed(error)) => return Searched::Failed(error),
                    }
                }
            }
        };
        let max = if planted::is(Bug::SearchBeyondEnd) { queue.next } else { max };
        let end = (queue.base + rows_before as i64).min(max);
        let found = match boundary {
            Boundary::Lower => end,
            Boundary::Upper => end - 1,
        };
        Searched::Done(found.clamp(min, max))
    }

    /// When the message at an offset was stored.
    pub fn store_time(&mut self, topic: &str, queue_id: u32, offset: i64, ticket: Ticket) -> StoreTime {
        let Some(queue) = self.queues.find(topic, queue_id).and_then(|queue| self.queues.get(queue)) else {
            return StoreTime::NotFound;
        };
        if offset < queue.min || queue.visible <= offset {
            return StoreTime::NotFound;
        }
        let row =
            row_at(queue, offset, &mut None, |entry| read_rows(&mut self.pages, &mut self.commands, entry, ticket));
        match row {
            Ok(row) => StoreTime::Known(row.store_time_ms),
            Err(Unavailable::Pending) => StoreTime::Pending,
            Err(Unavailable::Failed(error)) => StoreTime::Failed(error),
        }
    }
}

fn available(located: Located) -> Result<Option<Slice>, Unavailable> {
    match located {
        Located::Found(slice) => Ok(Some(slice)),
        Located::Damaged => Ok(None),
        Located::Pending => Err(Unavailable::Pending),
        Located::Failed(error) => Err(Unavailable::Failed(error)),
    }
}

fn read_rows(
    pages: &mut IndexPages,
    commands: &mut Commands,
    entry: PageEntry,
    ticket: Ticket,
) -> Result<SharedBuffer, Unavailable> {
    read_page(pages, commands, entry.page, entry.checksum, ticket)
}

/// A page of the index file, if it is what it was when it had this checksum.
pub(super) fn read_page(
    pages: &mut IndexPages,
    commands: &mut Commands,
    page: u32,
    checksum: u32,
    ticket: Ticket,
) -> Result<SharedBuffer, Unavailable> {
    match pages.read(page, checksum, ticket, |command| commands.issue(command)) {
        PageRead::Found(buffer) => Ok(buffer),
        PageRead::Pending => Err(Unavailable::Pending),
        PageRead::Failed(error) => Err(Unavailable::Failed(error)),
    }
}

/// The row of an offset between the queue's bounds. `current` is the page of the row before, kept from call to call.
fn row_at(
    queue: &Queue,
    offset: i64,
    current: &mut CurrentPage,
    load: impl FnOnce(PageEntry) -> Result<SharedBuffer, Unavailable>,
) -> Result<Row, Unavailable> {
    match queue.place(offset) {
        RowPlace::Open(slot) => Ok(queue.open[slot]),
        RowPlace::Page { entry, slot } => {
            let page = match current {
                Some((known, page)) if *known == entry => page,
                _ => &current.insert((entry, load(queue.pages[entry])?)).1,
            };
            Row::of_page(page.as_slice(), slot).ok_or(Unavailable::Failed(StorageError::IO))
        }
    }
}

fn rows_before_in(page: &[u8], is_before: impl Fn(i64) -> bool) -> usize {
    let (mut low, mut high) = (0, ROWS_PER_PAGE);
    while low < high {
        let middle = low.midpoint(high);
        if Row::of_page(page, middle).is_some_and(|row| is_before(row.store_time_ms)) {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    low
}
