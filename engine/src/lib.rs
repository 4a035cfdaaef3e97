//! The shard: commit log, consume queues, consumer offsets and settings, and how they come back after a crash.
//!
//! A [`Shard`] is a sans-IO state machine. It takes messages and requests as plain calls, gives out
//! [`StorageCommand`]s, and takes their results; a driver (the ring, [`memory::MemoryStorage`], the simulator in the
//! tests) does the I/O. It knows no socket and no request code.
//!
//! ```text
//!   append --> open batch --seal--> Write --complete--> durable mark moves --> rows visible, arrivals
//!   fetch  --> rows --> open chunk | finished chunks | read windows --> slices, or Pending + Read + ready()
//!   recover: LogSource --> batches --> the same state
//! ```

#![deny(unsafe_code)] // Only `buffer` and `driver` may: memory shared with the kernel.

pub mod buffer;
mod cache;
pub mod commit_log;
pub mod config;
mod consume_queue;
pub mod driver;
pub mod in_flight;
pub mod inspect;
mod key_index;
pub mod memory;
mod offsets;
#[cfg(feature = "planted-bugs")]
pub mod planted;
#[cfg(not(feature = "planted-bugs"))]
mod planted;
mod position;
pub mod repair;
pub mod scrub;
mod segments;
mod shard;
mod snapshot;
mod storage;
pub mod store_dir;

pub use buffer::{BufferPool, FillingBuffer, SharedBuffer, Slice, UniqueBuffer, WriteBytes};
pub use commit_log::batch::{BatchError, BatchHeader, Proof};
pub use commit_log::record::{BatchItem, MessageDraft, Record, RecordError};
pub use config::{Durability, Geometry, ShardConfig, ShardMemory};
pub use consume_queue::table::Bounds;
pub use key_index::{KeyKind, MessageKeys};
pub use offsets::{Done, is_own_group};
pub use position::{LogPosition, PhysicalOffset, SHARD_COUNT_MAX, shard_of};
pub use shard::{
    AppendError, Boundary, Fetch, FetchRequest, FoundByKey, KeyQueried, KeyQuery, LogSource, MessageRef, Nothing,
    OldSegment, Placed, PropertyFilter, ReadRecord, RecoverError, Recovered, Rows, Searched, SegmentSource, Shard,
    ShardCounters, StoreTime, TagFilter, Ticket,
};
pub use storage::{CommandId, CommandKind, StorageCommand, StorageDone, StorageError};
