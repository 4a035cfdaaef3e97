//! The batch: what one log write carries, and what recovery believes or rejects as a whole.

use crate::planted::{self, Bug};
use crate::position::LogPosition;

/// First bytes of every batch: `RMQB`.
pub(crate) const MAGIC: u32 = 0x524D_5142;
/// Version of the batch layout and of everything inside it.
pub const FORMAT_VERSION: u16 = 2;
/// Batches start at multiples of this.
pub const BATCH_ALIGN_BYTES: u64 = 8;

/// The header in front of every batch of records. Big-endian.
///
/// | at | bytes | field               | meaning                                                            |
/// |---:|------:|---------------------|--------------------------------------------------------------------|
/// |  0 |     4 | magic               | `RMQB`                                                             |
/// |  4 |     2 | format version      | 2                                                                  |
/// |  6 |     2 | `shard`             | the shard whose log this is                                        |
/// |  8 |     4 | `total_bytes`       | header and records, without the padding of the write               |
/// | 12 |     4 | `record_count`      | records in this batch, at least 1                                  |
/// | 16 |     8 | `epoch`             | which opening of the store wrote it; never decreases along the log |
/// | 24 |     8 | `position`          | where this header stands in the log                                |
/// | 32 |     4 | `previous_checksum` | `checksum` of the batch before it; 0 for the first one ever        |
/// | 36 |     4 | `checksum`          | CRC-32 of the header without this field, then of the records       |
/// | 40 |     8 | `store_time_ms`     | broker clock when the batch was opened                             |
/// | 48 |     8 | `durable`           | end of what the device had completed when this batch was sealed    |
/// | 56 |     8 | `stable`            | end of what was on stable media then; at most `durable`            |
///
/// A torn or lost write leaves a batch whose checksum fails. A batch left over from an earlier use of the bytes
/// fails on `position`, `epoch` or `previous_checksum`: the chain of checksums admits exactly one successor.
///
/// `durable` and `stable` tell damage from a crash: see [`Self::proof_against`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BatchHeader {
    pub shard: u16,
    pub total_bytes: u32,
    pub record_count: u32,
    pub epoch: u64,
    pub position: LogPosition,
    pub previous_checksum: u32,
    pub store_time_ms: i64,
    pub durable: LogPosition,
    pub stable: LogPosition,
}

/// What an intact batch says about a log that seems to end before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Proof {
    /// Nothing: it was on its way when the log ended, or belongs to a life that was cut off.
    None,
    /// The log went on at the end, and the device had said so, but a loss of power may have taken it: ASYNC_FLUSH
    /// does not promise more.
    LostPower,
    /// The log went on at the end, and nothing that RingMQ allows for can have taken it.
    Damage,
}

/// Why bytes are not a batch of this log at this position.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BatchError {
    #[error("no batch starts here")]
    NoBatch,
    #[error("batch has format version {version}, this program reads {FORMAT_VERSION}")]
    UnknownVersion { version: u16 },
    #[error("batch of {total_bytes} bytes does not fit its {available_bytes} bytes")]
    Truncated { total_bytes: u32, available_bytes: u64 },
    #[error("batch belongs to shard {shard} at position {position}")]
    Misplaced { shard: u16, position: u64 },
    #[error("checksum does not match")]
    Checksum,
    #[error("batch of epoch {epoch} does not follow the one before it")]
    Stale { epoch: u64 },
}

/// A verified batch: its header, its records, its checksum.
pub type VerifiedBatch<'a> = (BatchHeader, &'a [u8], u32);

fn field<const N: usize>(bytes: &[u8; BatchHeader::SIZE_BYTES], at: usize) -> [u8; N] {
    let mut value = [0; N];
    value.copy_from_slice(&bytes[at..at + N]);
    value
}

impl BatchHeader {
    pub const SIZE_BYTES: usize = 64;
    const CHECKSUM_AT: usize = 36;

    /// Writes the header into the first bytes of `batch`, which already holds the records, and returns its checksum.
    ///
    /// # Panics
    /// If `batch` is not `total_bytes` long or too short for the header.
    pub fn seal(&self, batch: &mut [u8]) -> u32 {
        assert_eq!(batch.len(), self.total_bytes as usize, "the batch is as long as its header says");
        let (head, records) = batch.split_at_mut(Self::SIZE_BYTES);
        head.fill(0);
        head[0..4].copy_from_slice(&MAGIC.to_be_bytes());
        head[4..6].copy_from_slice(&FORMAT_VERSION.to_be_bytes());
        head[6..8].copy_from_slice(&self.shard.to_be_bytes());
        head[8..12].copy_from_slice(&self.total_bytes.to_be_bytes());
        head[12..16].copy_from_slice(&self.record_count.to_be_bytes());
        head[16..24].copy_from_slice(&self.epoch.to_be_bytes());
        head[24..32].copy_from_slice(&self.position.bytes().to_be_bytes());
        head[32..36].copy_from_slice(&self.previous_checksum.to_be_bytes());
        head[40..48].copy_from_slice(&self.store_time_ms.to_be_bytes());
        head[48..56].copy_from_slice(&self.durable.bytes().to_be_bytes());
        head[56..64].copy_from_slice(&self.stable.bytes().to_be_bytes());
        let checksum = Self::checksum(head, records);
        head[Self::CHECKSUM_AT..Self::CHECKSUM_AT + 4].copy_from_slice(&checksum.to_be_bytes());
        checksum
    }

    fn checksum(head: &[u8], records: &[u8]) -> u32 {
        let mut crc = crc32fast::Hasher::new();
        crc.update(&head[..Self::CHECKSUM_AT]);
        crc.update(&head[Self::CHECKSUM_AT + 4..Self::SIZE_BYTES]);
        crc.update(records);
        crc.finalize()
    }

    /// Reads a header without looking at the records: magic, version and a plausible length only.
    pub fn peek(bytes: &[u8]) -> Result<Self, BatchError> {
        let head: &[u8; Self::SIZE_BYTES] = bytes.first_chunk().ok_or(BatchError::NoBatch)?;
        if u32::from_be_bytes(field(head, 0)) != MAGIC {
            return Err(BatchError::NoBatch);
        }
        let version = u16::from_be_bytes(field(head, 4));
        if version != FORMAT_VERSION {
            return Err(BatchError::UnknownVersion { version });
        }
        let header = Self {
            shard: u16::from_be_bytes(field(head, 6)),
            total_bytes: u32::from_be_bytes(field(head, 8)),
            record_count: u32::from_be_bytes(field(head, 12)),
            epoch: u64::from_be_bytes(field(head, 16)),
            position: LogPosition::new(u64::from_be_bytes(field(head, 24))),
            previous_checksum: u32::from_be_bytes(field(head, 32)),
            store_time_ms: i64::from_be_bytes(field(head, 40)),
            durable: LogPosition::new(u64::from_be_bytes(field(head, 48))),
            stable: LogPosition::new(u64::from_be_bytes(field(head, 56))),
        };
        if (header.total_bytes as usize) < Self::SIZE_BYTES || header.record_count == 0 {
            return Err(BatchError::NoBatch);
        }
        Ok(header)
    }

    /// Reads and verifies the batch at the start of `bytes`, which is at `position` of the log of `shard`.
    /// Returns the header, the records and the batch's checksum.
    pub fn decode(bytes: &[u8], shard: u16, position: LogPosition) -> Result<VerifiedBatch<'_>, BatchError> {
        let header = Self::peek(bytes)?;
        let is_ours = header.shard == shard || planted::is(Bug::ShardNotChecked);
        let is_here = header.position == position || planted::is(Bug::PositionNotChecked);
        if !is_ours || !is_here {
            return Err(BatchError::Misplaced { shard: header.shard, position: header.position.bytes() });
        }
        let Some(batch) = bytes.get(..header.total_bytes as usize) else {
            let available_bytes = bytes.len() as u64;
            return Err(BatchError::Truncated { total_bytes: header.total_bytes, available_bytes });
        };
        let (head, records) = batch.split_at_checked(Self::SIZE_BYTES).ok_or(BatchError::NoBatch)?;
        let head: &[u8; Self::SIZE_BYTES] = head.first_chunk().ok_or(BatchError::NoBatch)?;
        let stored = u32::from_be_bytes(field(head, Self::CHECKSUM_AT));
        if Self::checksum(head, records) != stored && !planted::is(Bug::BatchChecksumNotChecked) {
            return Err(BatchError::Checksum);
        }
        Ok((header, records, stored))
    }

    /// What this batch, intact at its place, proves about a log whose chain ends at `end`, before it. `powered_since`
    /// is the first epoch since the machine was last started.
    ///
    /// The batch says how far the log was durable when it was sealed. If that is beyond `end`, the log once went on
    /// there, and every restart since has had to find it: recovery ends before it only if it was lost. A crash of the
    /// process loses nothing that was durable, a crash of the machine nothing that was stable. The other way round, a
    /// batch that was in flight together with what is missing was sealed before that was durable, so it never says
    /// more than `end`. One left over from a life that was cut off is older than the last batch of the chain, or
    /// recovery judged it in the same way when it cut.
    pub fn proof_against(&self, end: LogPosition, end_epoch: u64, powered_since: u64) -> Proof {
        if self.epoch < end_epoch {
            Proof::None
        } else if end < self.stable || (end < self.durable && powered_since <= self.epoch) {
            Proof::Damage
        } else if end < self.durable {
            Proof::LostPower
        } else {
            Proof::None
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn sample(records: &[u8]) -> (BatchHeader, Vec<u8>, u32) {
        let mut bytes = vec![0xAA; BatchHeader::SIZE_BYTES];
        bytes.extend_from_slice(records);
        let header = BatchHeader {
            shard: 3,
            total_bytes: bytes.len() as u32,
            record_count: 2,
            epoch: 7,
            position: LogPosition::new(4096),
            previous_checksum: 0xDEAD_BEEF,
            store_time_ms: 1_700_000_000_000,
            durable: LogPosition::new(4000),
            stable: LogPosition::new(3000),
        };
        let checksum = header.seal(&mut bytes);
        (header, bytes, checksum)
    }

    #[test]
    fn a_sealed_batch_is_read_back() {
        let (header, bytes, checksum) = sample(b"records");
        let decoded = BatchHeader::decode(&bytes, 3, LogPosition::new(4096));
        assert_eq!(decoded, Ok((header, &b"records"[..], checksum)));
    }

    #[test]
    fn the_header_is_laid_out_as_its_table_says() {
        let (_, bytes, checksum) = sample(b"records");
        let mut golden = b"RMQB\x00\x02\x00\x03\x00\x00\x00\x47\x00\x00\x00\x02".to_vec();
        for field in [7_u64, 4096, 0xDEAD_BEEF << 32 | u64::from(checksum), 1_700_000_000_000, 4000, 3000] {
            golden.extend_from_slice(&field.to_be_bytes());
        }
        assert_eq!(bytes[..BatchHeader::SIZE_BYTES], golden);
        assert_eq!(checksum, 105_261_685);
    }

    #[test]
    fn a_later_batch_proves_damage_only_if_the_end_was_durable_when_it_was_sealed() {
        let (header, ..) = sample(b"records"); // Epoch 7, durable to 4000, stable to 3000.
        let proof =
            |end, end_epoch, powered_since| header.proof_against(LogPosition::new(end), end_epoch, powered_since);
        assert_eq!(proof(4000, 7, 0), Proof::None, "it may have been in flight with what is missing");
        assert_eq!(proof(3999, 7, 7), Proof::Damage);
        assert_eq!(proof(3999, 7, 8), Proof::LostPower, "the machine was started since");
        assert_eq!(proof(2999, 7, 8), Proof::Damage, "no loss of power takes what is on stable media");
        assert_eq!(proof(2999, 8, 0), Proof::None, "the log went on without it");
    }

    #[test]
    fn a_batch_of_another_place_or_shard_is_refused() {
        let (_, bytes, _) = sample(b"records");
        let elsewhere = BatchHeader::decode(&bytes, 3, LogPosition::new(8192));
        assert_eq!(elsewhere, Err(BatchError::Misplaced { shard: 3, position: 4096 }));
        assert!(BatchHeader::decode(&bytes, 2, LogPosition::new(4096)).is_err());
    }

    proptest! {
        #[test]
        fn any_changed_byte_is_noticed(records in prop::collection::vec(any::<u8>(), 1..300), at in any::<prop::sample::Index>(), change in 1..=255_u8) {
            let (_, mut bytes, _) = sample(&records);
            let at = at.index(bytes.len());
            bytes[at] ^= change;
            prop_assert!(BatchHeader::decode(&bytes, 3, LogPosition::new(4096)).is_err());
        }

        #[test]
        fn junk_never_panics(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            let _ = BatchHeader::decode(&bytes, 0, LogPosition::START); // Only that it returns matters.
        }

        #[test]
        fn a_truncated_batch_is_refused(records in prop::collection::vec(any::<u8>(), 1..300), cut in any::<prop::sample::Index>()) {
            let (_, bytes, _) = sample(&records);
            let cut = cut.index(bytes.len());
            prop_assert!(BatchHeader::decode(&bytes[..cut], 3, LogPosition::new(4096)).is_err());
        }
    }
}
