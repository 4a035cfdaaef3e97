//! Offline looks at a store that no broker runs on: what is in it, whether it is intact, what a damaged one has lost.
//!
//! The rules are those of recovery, whose scan is used; but all of the log is read, from the first segment that exists,
//! and nothing is folded or changed. Memory is bounded by the number of queues, not by the log.

mod check;
mod dump;

use crate::commit_log::batch::BatchHeader;
use crate::commit_log::internal::{self, InternalRecord, InternalRecordError};
use crate::commit_log::record::{self, Record, RecordError};

pub use check::{Behind, Damage, Ending, LostRange, Problem, ShardReport, SnapshotReport, check};
pub use dump::{Item, Walked, walk};

/// One record of an intact batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stored<'a> {
    Message(Record<'a>),
    Internal(InternalRecord<'a>),
}

/// The records of a batch, each with the position where it stands. After one that cannot be read there is no other:
/// where the next one would begin is not known.
pub(crate) struct StoredRecords<'a> {
    rest: &'a [u8],
    position: u64,
}

/// The records of a batch with this header.
pub(crate) fn records_of<'a>(header: &BatchHeader, records: &'a [u8]) -> StoredRecords<'a> {
    StoredRecords { rest: records, position: header.position.bytes() + BatchHeader::SIZE_BYTES as u64 }
}

impl<'a> Iterator for StoredRecords<'a> {
    type Item = (u64, Result<Stored<'a>, InternalRecordError>);

    fn next(&mut self) -> Option<Self::Item> {
        if self.rest.is_empty() {
            return None;
        }
        let position = self.position;
        let stored = self.read();
        if stored.is_err() {
            self.rest = &[];
        }
        Some((position, stored))
    }
}

impl<'a> StoredRecords<'a> {
    fn read(&mut self) -> Result<Stored<'a>, InternalRecordError> {
        let (size, magic) = record::peek(self.rest)?;
        let (bytes, rest) = self.rest.split_at_checked(size as usize).ok_or(RecordError::Truncated)?;
        self.rest = rest;
        self.position += u64::from(size);
        Ok(if magic == internal::MAGIC {
            Stored::Internal(InternalRecord::decode(bytes)?)
        } else {
            Stored::Message(Record::decode(bytes)?)
        })
    }
}
