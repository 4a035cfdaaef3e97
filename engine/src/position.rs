//! Positions in a shard's log, and which shard owns a queue.

/// Bits of a physical offset that hold the position inside one shard's log.
const POSITION_BITS: u32 = 55;
const POSITION_MASK: i64 = (1 << POSITION_BITS) - 1;

/// Most shards a store can have: the shard number stands in bits 55 to 62 of a physical offset.
pub const SHARD_COUNT_MAX: u16 = 256;

/// Byte position in one shard's log, batch headers included, counted from the first byte ever written.
/// Removing old segments moves the smallest readable position, never the origin.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LogPosition(u64);

impl LogPosition {
    pub const START: Self = Self(0);

    pub const fn new(bytes: u64) -> Self {
        Self(bytes)
    }

    /// Bytes from the log's origin.
    pub const fn bytes(self) -> u64 {
        self.0
    }
}

/// Where a record stands, as clients see it: the shard in bits 55 to 62, the position in its log below.
/// Never negative, so it fits every place where the protocol carries a commit-log offset.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PhysicalOffset(i64);

impl PhysicalOffset {
    /// # Panics
    /// If the shard or the position do not fit their bits. Both are numbers we hand out ourselves.
    pub fn new(shard: u16, position: LogPosition) -> Self {
        assert!(shard < SHARD_COUNT_MAX, "shard number fits its 8 bits");
        assert!(position.0 <= POSITION_MASK as u64, "log position fits its 55 bits");
        Self((i64::from(shard) << POSITION_BITS) | position.0 as i64)
    }

    pub const fn shard(self) -> u16 {
        (self.0 >> POSITION_BITS) as u16
    }

    pub const fn position(self) -> LogPosition {
        LogPosition((self.0 & POSITION_MASK) as u64)
    }

    pub const fn to_wire(self) -> i64 {
        self.0
    }

    /// A negative number is "not known" in the protocol; here that is `None`.
    pub const fn from_wire(raw: i64) -> Option<Self> {
        if raw < 0 { None } else { Some(Self(raw)) }
    }
}

/// The shard that owns a queue. Part of the on-disk format: changing it moves queues between logs.
///
/// # Panics
/// If `shard_count` is 0.
pub fn shard_of(topic: &str, queue_id: u32, shard_count: u16) -> u16 {
    assert!(shard_count > 0, "a store has at least one shard");
    if shard_count == 1 {
        return 0;
    }
    // CRC-32 and not a hash of a library: the choice is on disk for good.
    let topic_hash = u64::from(crc32fast::hash(topic.as_bytes()));
    ((topic_hash + u64::from(queue_id)) % u64::from(shard_count)) as u16
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn physical_offset_carries_shard_and_position() {
        let offset = PhysicalOffset::new(255, LogPosition::new((1 << 55) - 1));
        assert_eq!(offset.shard(), 255);
        assert_eq!(offset.position().bytes(), (1 << 55) - 1);
        assert_eq!(offset.to_wire(), i64::MAX);
        assert_eq!(PhysicalOffset::from_wire(offset.to_wire()), Some(offset));
        assert_eq!(PhysicalOffset::from_wire(-1), None);
        assert_eq!(PhysicalOffset::new(0, LogPosition::new(1000)).to_wire(), 1000);
    }

    #[test]
    fn queues_of_a_topic_go_round_the_shards() {
        let first = shard_of("TopicTest", 0, 4);
        for queue_id in 0..16 {
            assert_eq!(shard_of("TopicTest", queue_id, 4), ((u32::from(first) + queue_id) % 4) as u16);
        }
        assert_eq!(shard_of("TopicTest", 7, 1), 0);
        // The format's own numbers: a store written with others would lose its queues.
        assert_eq!([shard_of("TopicTest", 0, 7), shard_of("%RETRY%g", 3, 7), shard_of("", 0, 7)], [3, 6, 0]);
    }
}
