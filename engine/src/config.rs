//! What a shard is told when it is opened, and the bounds that need no setting.

use crate::buffer::BLOCK_BYTES;

const KIB: u64 = 1024;
const MIB: u64 = 1024 * KIB;

/// Log writes in flight at once. Four keep the devices we measured at their full rate; more only adds latency.
pub const WRITES_IN_FLIGHT_MAX: usize = 4;
/// Cold log reads in flight at once, per shard.
pub const READS_IN_FLIGHT_MAX: usize = 8;
/// How many reads of single records may be in flight in the place of one of those: small ones need many for the same work.
pub const SMALL_READS_PER_CHUNK: usize = 8;
/// Buffers of single records, two blocks each, kept for reuse.
pub const SPARE_SMALL_READS_MAX: usize = 1024;
/// Chunks kept for reuse beside the caches: what slow readers may hold back without new memory per chunk.
pub const SPARE_CHUNKS_MAX: usize = 32;
/// Index pages kept for reuse.
pub const SPARE_PAGES_MAX: usize = 256;
/// Windows read ahead of a sequential reader.
pub const READ_AHEAD_WINDOWS: u64 = 2;
/// Longest batch, and so longest single append, in bytes: a list of small messages within the largest allowed body
/// (4 MiB) stays below it.
pub const BATCH_BYTES_MAX: u64 = 64 * MIB;
/// Largest queue id plus one. RocketMQ itself has no bound; ours keeps a wrong number from allocating memory.
pub const QUEUE_COUNT_MAX: u32 = 65_536;
/// Words of a message's `KEYS` that are indexed: properties have 32 KiB, and a message of one-letter keys must not fill the
/// index. RocketMQ has no bound.
pub const KEYS_PER_MESSAGE_MAX: usize = 1024;
/// Rows examined by one fetch, whatever the filter: RocketMQ stops after 16,000 bytes of its 20-byte rows.
pub const EXAMINED_ROWS_MIN: u32 = 800;
/// Bytes of properties, each counted as often as the filter may look at it, after which a fetch examines no further
/// record: a few milliseconds for the most expensive filter. A usual one takes 1 MB for [`EXAMINED_ROWS_MIN`] records.
pub const FILTERED_BYTES_MAX: u64 = 16 * MIB;
/// Milliseconds after which a segment that could not be prepared is asked for again.
pub const PREPARE_RETRY_MS: i64 = 1000;
/// Milliseconds after which a snapshot that could not be written is tried again.
pub const SNAPSHOT_RETRY_MS: i64 = 60_000;

/// What the acknowledgement of an append promises.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Durability {
    /// The device has completed the write (`ASYNC_FLUSH`): survives `kill -9` and a kernel crash.
    Async,
    /// The write is also on stable media (`SYNC_FLUSH`): survives power loss.
    Sync,
}

/// How the log's byte space is cut. Part of the on-disk format, fixed when the store is created.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Geometry {
    /// Bytes of one segment file; a multiple of `chunk_bytes`.
    pub segment_bytes: u64,
    /// Unit in which the log is held in memory and read; a multiple of 4 KiB. No batch crosses the end of its chunk.
    pub chunk_bytes: u64,
}

impl Default for Geometry {
    fn default() -> Self {
        Self { segment_bytes: 1024 * MIB, chunk_bytes: MIB }
    }
}

impl Geometry {
    /// Whether the sizes fit each other.
    pub fn is_valid(&self) -> bool {
        self.chunk_bytes >= BLOCK_BYTES as u64
            && self.chunk_bytes.is_multiple_of(BLOCK_BYTES as u64)
            && self.chunk_bytes <= 256 * MIB
            && self.segment_bytes >= self.chunk_bytes
            && self.segment_bytes.is_multiple_of(self.chunk_bytes)
            && self.segment_bytes <= 1 << 40
    }

    pub(crate) fn segment_of(&self, position: u64) -> u64 {
        position / self.segment_bytes * self.segment_bytes
    }

    pub(crate) fn segment_end(&self, position: u64) -> u64 {
        self.segment_of(position) + self.segment_bytes
    }

    pub(crate) fn chunk_of(&self, position: u64) -> u64 {
        position / self.chunk_bytes * self.chunk_bytes
    }
}

/// Settings of one shard.
#[derive(Clone, Debug)]
pub struct ShardConfig {
    /// Number of this shard, below the store's shard count.
    pub shard: u16,
    /// Which opening of the store this is: larger than at every earlier opening (the manifest counts them).
    pub epoch: u64,
    /// First epoch since this machine was started: what the device completed in it or later was not exposed to a
    /// loss of power. `epoch` itself if that is not known.
    pub powered_since: u64,
    pub geometry: Geometry,
    pub durability: Durability,
    /// Bytes of finished log chunks kept in memory for tail readers. Full: the oldest goes.
    pub tail_bytes_max: u64,
    /// Bytes of older log kept after reading it from disk. Full: the least recently used goes.
    pub read_bytes_max: u64,
    /// Bytes of consume-queue pages kept in memory. Full: the least recently used goes.
    pub index_bytes_max: u64,
    /// Whether messages are found by their keys (`messageIndexEnable`).
    pub indexes_keys: bool,
    /// Rows of the key index that are in memory before they go to pages: 16 bytes each, and as much again while they go.
    /// A query reads a page for each time this many rows were added.
    pub key_rows_max: usize,
    /// Bytes of an open batch that justify a second, third, fourth write while others are in flight. Below this,
    /// waiting for the running write makes a larger batch and costs the device less.
    pub eager_write_bytes: u64,
    /// Bytes appended and not yet given to the device while it has all the writes it can have. Full: appends are refused
    /// with `BatchFull` until a write completes. What waits here makes no write faster and delays all who come behind it:
    /// `docs/ARCHITECTURE.md` has the measurement.
    pub waiting_bytes_max: u64,
    /// Bytes appended but not yet durable. Full: appends are refused with `BatchFull` until writes complete.
    pub undurable_bytes_max: u64,
    /// Bytes of log after which a new snapshot is taken: what a start after a crash replays at most, about. More while
    /// snapshots are so large that this would write more snapshot than a quarter of the log.
    pub snapshot_log_bytes: u64,
}

/// What the bounds allow one shard to hold in memory, in bytes. What grows with the number of queues, offsets and
/// settings comes on top.
#[derive(Clone, Copy, Debug)]
pub struct ShardMemory {
    /// The end of the log: what is kept for readers, and what is not durable yet.
    pub log: u64,
    /// Log read back from disk.
    pub read: u64,
    /// Pages of the consume queues.
    pub index: u64,
    /// Buffers ready for their next use, and the zeroes that new segments are filled with.
    pub spare: u64,
}

impl ShardConfig {
    pub fn memory(&self) -> ShardMemory {
        let chunk_bytes = self.geometry.chunk_bytes;
        ShardMemory {
            // The bounds are looked at before an append, so that one more may come.
            log: self.tail_bytes_max + self.undurable_bytes_max + BATCH_BYTES_MAX,
            read: self.read_bytes_max.max(4 * chunk_bytes) + READS_IN_FLIGHT_MAX as u64 * chunk_bytes,
            // A page has about 150 bytes in tables.
            index: self.index_bytes_max + self.index_bytes_max / 16 + 2 * 16 * self.key_rows_max as u64,
            spare: (SPARE_CHUNKS_MAX as u64 + 2) * chunk_bytes
                + ((SPARE_PAGES_MAX + 2 * SPARE_SMALL_READS_MAX) * BLOCK_BYTES) as u64,
        }
    }

    pub fn new(shard: u16, epoch: u64) -> Self {
        Self {
            shard,
            epoch,
            powered_since: epoch,
            geometry: Geometry::default(),
            durability: Durability::Async,
            tail_bytes_max: 64 * MIB,
            read_bytes_max: 64 * MIB,
            // Three million rows: a page read from disk waits behind the large reads of the log.
            index_bytes_max: 96 * MIB,
            indexes_keys: true,
            // 192 pages of 341 rows.
            key_rows_max: 65_472,
            eager_write_bytes: 32 * KIB,
            waiting_bytes_max: MIB,
            // Four writes and what waits; more only while the next segment is not there yet.
            undurable_bytes_max: 16 * MIB,
            snapshot_log_bytes: 1024 * MIB,
        }
    }
}
