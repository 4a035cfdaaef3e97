//! The file of a snapshot: what a shard's log had added up to, so that a start replays only what came later.
//!
//! A snapshot is fuzzy: the shard goes on while it is written, part by part. It names the position of the log where
//! it was begun; a start loads the parts and folds the log into them from there on. Settings may meanwhile
//! have seen some of that log already, and seeing it again ends in the same state, because the last one wins. A queue
//! says up to where it has seen the log (`as_of`), as does the key index, and a group's offset where the last record about it
//! ends; they ignore what lies before.
//!
//! | bytes | field      | meaning                                                                         |
//! |------:|------------|---------------------------------------------------------------------------------|
//! |     8 | magic      | `RMQSNAP` and the format's version, 4                                           |
//! |     4 | `length`   | of the first part, big-endian                                                   |
//! |     4 | `checksum` | CRC-32 of the part's bytes, begun with the checksum of the part before          |
//! | length| part       | a [`Part`] as an rkyv archive                                                   |
//! |   ... |            | length, checksum and bytes of every further part; [`Part::End`] is the last one |

use std::io;

use rkyv::rancor;
use rkyv::util::AlignedVec;
use rkyv::{Archive, Deserialize, Serialize};

use crate::consume_queue::row::Row;
use crate::consume_queue::table::PageEntry;
use crate::key_index::{KeyRow, KeyRun, TimeSpan};

pub(crate) const MAGIC: [u8; 8] = *b"RMQSNAP\x04";
/// Bytes before each part: its length and its checksum.
const PART_HEAD_BYTES: usize = 8;
/// Parts are cut at [`PART_BYTES`]; one that claims to be longer than this is damage.
const PART_BYTES_MAX: usize = 256 << 20;
/// A part is closed when it has about this many bytes: what one turn encodes.
pub(crate) const PART_BYTES: usize = 128 << 10;

#[derive(Archive, Serialize, Deserialize, Debug, PartialEq)]
pub(crate) enum Part {
    Start(Start),
    /// Full pages of a queue too large for one part. The queue itself follows in a later part.
    Pages {
        queue: QueueName,
        first_offset: i64,
        pages: Vec<PageEntry>,
    },
    /// Queues as they were when the log ended at `as_of`.
    Queues {
        as_of: u64,
        queues: Vec<QueueState>,
    },
    /// Runs of the key index that no part before has told; those told before them may have gone meanwhile.
    KeyRuns {
        /// Number of the first of these runs.
        first_run: u64,
        runs: Vec<KeyRun>,
    },
    /// The rest of the key index, as it was when the log ended at `as_of`.
    OpenKeys {
        as_of: u64,
        times: TimeSpan,
        rows: Vec<KeyRow>,
    },
    Offsets(Vec<OffsetState>),
    Settings(Vec<SettingState>),
    End(End),
}

/// Where in the log the snapshot was begun.
#[derive(Archive, Serialize, Deserialize, Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Start {
    pub shard: u16,
    /// End of the last batch sealed before; replay begins there.
    pub position: u64,
    /// Checksum and epoch of that batch.
    pub checksum: u32,
    pub epoch: u64,
}

#[derive(Archive, Serialize, Deserialize, Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct QueueName {
    pub topic: String,
    pub queue_id: u32,
    /// Tells a queue from one of the same name made after its topic was removed.
    pub generation: u32,
}

#[derive(Archive, Serialize, Deserialize, Debug, PartialEq)]
pub(crate) struct QueueState {
    pub name: QueueName,
    pub min: i64,
    pub base: i64,
    pub next: i64,
    pub last_store_time_ms: i64,
    /// The full pages that no [`Part::Pages`] before has told.
    pub pages: Vec<PageEntry>,
    pub open: Vec<Row>,
}

#[derive(Archive, Serialize, Deserialize, Debug, PartialEq)]
pub(crate) struct OffsetState {
    pub group: String,
    pub topic: String,
    pub queues: Vec<ProgressState>,
}

#[derive(Archive, Serialize, Deserialize, Debug, PartialEq)]
pub(crate) struct ProgressState {
    pub queue_id: u32,
    pub offset: i64,
    /// What is done above `offset`: 64 messages to a word, with the number of the word.
    pub done: Vec<(i64, u64)>,
    pub in_flight: Option<InFlightState>,
    /// Where the record that says so ends.
    pub end: u64,
}

/// See [`crate::in_flight`].
#[derive(Archive, Serialize, Deserialize, Debug, PartialEq)]
pub(crate) struct InFlightState {
    pub next: i64,
    pub attempt: String,
    pub taken: Vec<TakenRun>,
}

/// Messages in flight that follow each other in the queue and are alike.
#[derive(Archive, Serialize, Deserialize, Clone, Copy, Debug, PartialEq)]
pub(crate) struct TakenRun {
    pub first: i64,
    pub count: u32,
    pub taken_ms: i64,
    pub until_ms: i64,
    pub how: u8,
    pub times_before: u32,
}

#[derive(Archive, Serialize, Deserialize, Debug, PartialEq)]
pub(crate) struct SettingState {
    pub kind: u8,
    pub key: String,
    pub value: Vec<u8>,
}

/// What holds for the snapshot as a whole.
#[derive(Archive, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
pub(crate) struct End {
    /// No part has seen more of the log; the log was durable up to here before the snapshot was finished.
    pub as_of: u64,
    /// First position of the log that was still kept.
    pub log_start: u64,
    /// Segments of the log, and when the last batch of each was written.
    pub segment_times: Vec<(u64, i64)>,
    /// Pages of the index file below this number are in use, held or free.
    pub next_page: u32,
    /// Pages nobody uses any more, but the snapshot before this one may name.
    pub held_pages: Vec<u32>,
    /// Pages nobody uses any more, but this snapshot may name.
    pub freed_pages: Vec<u32>,
}

/// Writes parts behind each other.
#[derive(Default)]
pub(crate) struct Encoder {
    checksum: u32,
    pub bytes_written: u64,
}

impl Encoder {
    pub fn encode(&mut self, part: &Part) -> Vec<u8> {
        let archive =
            rkyv::to_bytes::<rancor::Error>(part).expect("strings, numbers and lists of them can be archived");
        let mut hasher = crc32fast::Hasher::new_with_initial(self.checksum);
        hasher.update(&archive);
        self.checksum = hasher.finalize();
        let mut bytes = Vec::with_capacity(MAGIC.len() + PART_HEAD_BYTES + archive.len());
        if self.bytes_written == 0 {
            bytes.extend_from_slice(&MAGIC);
        }
        bytes.extend_from_slice(&(archive.len() as u32).to_be_bytes());
        bytes.extend_from_slice(&self.checksum.to_be_bytes());
        bytes.extend_from_slice(&archive);
        self.bytes_written += bytes.len() as u64;
        bytes
    }
}

/// Why a snapshot is not used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SnapshotError {
    #[error("it cannot be read: {0}")]
    Io(#[from] io::Error),
    #[error("it is not a snapshot this program reads")]
    Magic,
    #[error("it ends before its last part")]
    Truncated,
    #[error("a part's checksum does not match")]
    Checksum,
    #[error("a part is not an archive: {0}")]
    Archive(rancor::Error),
    #[error("{0}")]
    Contradiction(&'static str),
}

/// Reads the parts of one snapshot in order.
pub(crate) struct Decoder<R> {
    /// Fills a buffer from an offset of the file on; fewer bytes only at its end.
    read: R,
    at: u64,
    checksum: u32,
    buffer: AlignedVec,
}

impl<R: FnMut(u64, &mut [u8]) -> io::Result<usize>> Decoder<R> {
    pub fn new(read: R) -> Self {
        Self { read, at: 0, checksum: 0, buffer: AlignedVec::new() }
    }

    fn fill<const N: usize>(&mut self) -> Result<[u8; N], SnapshotError> {
        let mut bytes = [0; N];
        let got = (self.read)(self.at, &mut bytes)?;
        self.at += N as u64;
        if got < N { Err(SnapshotError::Truncated) } else { Ok(bytes) }
    }

    /// The next part; every snapshot has one until [`Part::End`].
    pub fn next_part(&mut self) -> Result<Part, SnapshotError> {
        if self.at == 0 && self.fill()? != MAGIC {
            return Err(SnapshotError::Magic);
        }
        let length = u32::from_be_bytes(self.fill()?) as usize;
        let checksum = u32::from_be_bytes(self.fill()?);
        if length > PART_BYTES_MAX {
            return Err(SnapshotError::Checksum);
        }
        self.buffer.resize(length, 0);
        let got = (self.read)(self.at, &mut self.buffer)?;
        if got < length {
            return Err(SnapshotError::Truncated);
        }
        self.at += length as u64;
        let mut hasher = crc32fast::Hasher::new_with_initial(self.checksum);
        hasher.update(&self.buffer);
        if hasher.finalize() != checksum {
            return Err(SnapshotError::Checksum);
        }
        self.checksum = checksum;
        rkyv::from_bytes(&self.buffer).map_err(SnapshotError::Archive)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn parts() -> Vec<Part> {
        let name = QueueName { topic: "T".to_owned(), queue_id: 3, generation: 1 };
        let row = Row { position: 77, tags_code: -1, store_time_ms: 5, size_bytes: 99, checksum: 3 };
        let page = PageEntry { page: 9, checksum: 1, first_position: 4, first_store_time_ms: 5 };
        let queue = QueueState {
            name: name.clone(),
            min: 0,
            base: 0,
            next: 129,
            last_store_time_ms: 5,
            pages: Vec::new(),
            open: vec![row],
        };
        vec![
            Part::Start(Start { shard: 1, position: 4096, checksum: 7, epoch: 2 }),
            Part::Pages { queue: name, first_offset: 0, pages: vec![page] },
            Part::Queues { as_of: 5000, queues: vec![queue] },
            Part::Settings(vec![SettingState { kind: 1, key: "k".to_owned(), value: b"v".to_vec() }]),
            Part::End(End {
                as_of: 5000,
                log_start: 0,
                segment_times: vec![(0, 5)],
                next_page: 10,
                held_pages: vec![2],
                freed_pages: vec![3],
            }),
        ]
    }

    fn encoded() -> Vec<u8> {
        let mut encoder = Encoder::default();
        parts().iter().flat_map(|part| encoder.encode(part)).collect()
    }

    fn decode(bytes: &[u8]) -> Result<Vec<Part>, SnapshotError> {
        let mut decoder = Decoder::new(|at: u64, into: &mut [u8]| {
            let rest = bytes.get(at as usize..).unwrap_or_default();
            let len = rest.len().min(into.len());
            into[..len].copy_from_slice(&rest[..len]);
            Ok(len)
        });
        let mut parts = Vec::new();
        loop {
            parts.push(decoder.next_part()?);
            if matches!(parts.last(), Some(Part::End(_))) {
                return Ok(parts);
            }
        }
    }

    #[test]
    fn parts_are_read_back_in_order() {
        assert_eq!(decode(&encoded()).unwrap(), parts());
    }

    proptest! {
        #[test]
        fn a_changed_or_missing_byte_is_noticed(at in any::<prop::sample::Index>(), change in 1..=255_u8, is_cut: bool) {
            let mut bytes = encoded();
            let at = at.index(bytes.len());
            if is_cut {
                bytes.truncate(at);
            } else {
                bytes[at] ^= change;
            }
            prop_assert!(decode(&bytes).is_err());
        }

        #[test]
        fn junk_is_refused(mut bytes in prop::collection::vec(any::<u8>(), 0..300), has_magic: bool) {
            if has_magic && bytes.len() >= MAGIC.len() {
                bytes[..MAGIC.len()].copy_from_slice(&MAGIC);
            }
            prop_assert!(decode(&bytes).is_err());
        }
    }
}
