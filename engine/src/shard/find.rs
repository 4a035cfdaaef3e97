//! Messages of a topic by their keys, through the key index.

use crate::buffer::Slice;
use crate::commit_log::record::Record;
use crate::key_index::{KeyKind, MessageKeys, TimeSpan, key_hash, positions_in};
use crate::position::{LogPosition, PhysicalOffset};
use crate::shard::fetch::{Unavailable, read_page};
use crate::shard::{Shard, Ticket};
use crate::storage::StorageError;

/// Runs whose pages are asked for at once: one at a time, a query that goes back through all of them would wait for the
/// disk as often as there are runs.
const RUNS_AHEAD: u64 = 16;

/// A query on its way through the shard's key index, from the newest message to older ones.
#[derive(Debug)]
pub struct KeyQuery {
    topic: Box<str>,
    kind: KeyKind,
    key: Box<str>,
    hash: u32,
    times: TimeSpan,
    count_max: usize,
    bytes_max: usize,
    place: Place,
    /// Where messages may be that are to be looked at next, the last one first.
    positions: Vec<u64>,
    found: Vec<FoundByKey>,
    found_bytes: usize,
}

/// What is looked at when all positions have been.
#[derive(Clone, Copy, Debug)]
enum Place {
    Open,
    /// The pages of a run before this number.
    Run {
        number: u64,
        page_end: usize,
    },
    End,
}

/// A message that has the key.
#[derive(Clone, Debug)]
pub struct FoundByKey {
    pub store_time_ms: i64,
    pub physical_offset: PhysicalOffset,
    pub record: Slice,
}

/// What a query has come to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeyQueried {
    /// [`KeyQuery::into_found`] has everything.
    Done,
    Pending,
    Failed(StorageError),
}

impl KeyQuery {
    /// For the newest messages of the topic with this key that were stored between the two times, both included: at most
    /// `count_max`, and no more than fit `bytes_max` (the first one whatever its size).
    pub fn new(
        topic: &str,
        kind: KeyKind,
        key: &str,
        times_ms: (i64, i64),
        count_max: usize,
        bytes_max: usize,
    ) -> Self {
        Self {
            topic: topic.into(),
            kind,
            key: key.into(),
            hash: key_hash(topic, kind, key.as_bytes()),
            times: TimeSpan { first_ms: times_ms.0, last_ms: times_ms.1 },
            count_max,
            bytes_max,
            place: if count_max == 0 { Place::End } else { Place::Open },
            positions: Vec::new(),
            found: Vec::new(),
            found_bytes: 0,
        }
    }

    /// The messages found, the newest first.
    pub fn into_found(self) -> Vec<FoundByKey> {
        self.found
    }

    /// Looks at the record at the last of the positions, which this is.
    fn look_at(&mut self, at: PhysicalOffset, slice: Slice) {
        let Ok(record) = Record::decode(slice.as_ref()) else { return };
        let keys = MessageKeys::of(record.properties);
        let is_asked_for = match self.kind {
            // Under one hash, as in RocketMQ: tools ask for unique keys as for keys.
            KeyKind::Key | KeyKind::Unique => {
                keys.has(KeyKind::Key, self.key.as_bytes()) || keys.has(KeyKind::Unique, self.key.as_bytes())
            }
            KeyKind::Tag => keys.has(KeyKind::Tag, self.key.as_bytes()),
        };
        let is_wanted = is_asked_for && *record.topic == *self.topic && self.times.contains(record.store_timestamp_ms);
        // A message has one row for each of its keys, and two of them may be the same.
        let is_known = self.found.last().is_some_and(|found| found.physical_offset == at);
        if !is_wanted || is_known {
            return;
        }
        let (store_time_ms, bytes) = (record.store_timestamp_ms, slice.as_ref().len());
        if !self.found.is_empty() && self.found_bytes + bytes > self.bytes_max {
            return self.end();
        }
        self.found_bytes += bytes;
        self.found.push(FoundByKey { store_time_ms, physical_offset: at, record: slice });
        if self.found.len() == self.count_max {
            self.end();
        }
    }

    fn end(&mut self) {
        self.positions.clear();
        self.place = Place::End;
    }
}

impl Shard {
    /// Goes on with a query until it is answered or something it needs is not in memory: then [`Shard::ready`] names
    /// the ticket.
    pub fn query_key(&mut self, query: &mut KeyQuery, ticket: Ticket) -> KeyQueried {
        let result = self.go_on_with(query, ticket);
        self.issue_reads();
        match result {
            Ok(()) => KeyQueried::Done,
            Err(Unavailable::Pending) => KeyQueried::Pending,
            Err(Unavailable::Failed(error)) => KeyQueried::Failed(error),
        }
    }

    /// Store time and physical offset of the last message that was indexed, durable or not; `None` without any.
    pub fn newest_key(&self) -> Option<(i64, PhysicalOffset)> {
        let (store_time_ms, position) = self.keys.newest()?;
        Some((store_time_ms, PhysicalOffset::new(self.config.shard, LogPosition::new(position))))
    }

    fn go_on_with(&mut self, query: &mut KeyQuery, ticket: Ticket) -> Result<(), Unavailable> {
        loop {
            while let Some(position) = query.positions.last() {
                let at = PhysicalOffset::new(self.config.shard, LogPosition::new(*position));
                let found = self.find_record(at, ticket)?;
                query.positions.pop();
                if let Some(slice) = found {
                    query.look_at(at, slice);
                }
            }
            match query.place {
                Place::Open => {
                    let (rows, times) = self.keys.open();
                    let rows = if times.meets(&query.times) { rows } else { &[] };
                    let positions = rows.iter().filter(|row| row.hash == query.hash).map(|row| row.position);
                    query.positions.extend(positions);
                    query.place = before(self.keys.next_run());
                }
                Place::Run { number, page_end } => self.look_into_run(query, number, page_end, ticket)?,
                Place::End => return Ok(()),
            }
        }
    }

    /// Takes the positions of the next page of a run, or goes on to the run before it.
    fn look_into_run(
        &mut self,
        query: &mut KeyQuery,
        number: u64,
        page_end: usize,
        ticket: Ticket,
    ) -> Result<(), Unavailable> {
        // What is before the first run, retention has taken.
        if number < self.keys.first_run() {
            query.end();
            return Ok(());
        }
        let run = self.keys.run(number).filter(|run| run.times.meets(&query.times));
        let Some((page_number, page)) = run.and_then(|run| run.page_with(query.hash, page_end)) else {
            query.place = before(number);
            return Ok(());
        };
        let page = match read_page(&mut self.pages, &mut self.commands, page.page, page.checksum, ticket) {
            Ok(page) => page,
            Err(unavailable) => {
                self.ask_ahead(query, number, ticket);
                return Err(unavailable);
            }
        };
        query.positions.extend(positions_in(page.as_slice(), query.hash));
        query.place = Place::Run { number, page_end: page_number };
        Ok(())
    }

    /// Asks for the pages of the runs before, whatever comes of it: they are asked for again when it is their turn.
    fn ask_ahead(&mut self, query: &KeyQuery, number: u64, ticket: Ticket) {
        for ahead in number.saturating_sub(RUNS_AHEAD)..number {
            let run = self.keys.run(ahead).filter(|run| run.times.meets(&query.times));
            if let Some((_, page)) = run.and_then(|run| run.page_with(query.hash, usize::MAX)) {
                let _ = read_page(&mut self.pages, &mut self.commands, page.page, page.checksum, ticket);
            }
        }
    }
}

/// The run before this one.
fn before(number: u64) -> Place {
    match number.checked_sub(1) {
        Some(number) => Place::Run { number, page_end: usize::MAX },
        None => Place::End,
    }
}
