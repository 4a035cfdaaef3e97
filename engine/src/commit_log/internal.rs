//! Records of the log that are not messages: consumer offsets, settings, removals.

use crate::commit_log::record::{Reader, RecordError};
use crate::in_flight::{IN_FLIGHT_SPAN_MAX, Take, TakenHow};

/// Magic of every record that is not a message: `RMQI`. Clients never see one.
pub const MAGIC: i32 = 0x524D_5149;

const KIND_OFFSET: u8 = 1;
const KIND_GROUP_OFFSETS_REMOVED: u8 = 2;
const KIND_TOPIC_REMOVED: u8 = 3;
const KIND_SETTING: u8 = 4;
const KIND_SETTING_REMOVED: u8 = 5;
const KIND_DONE: u8 = 6;
const KIND_TAKEN: u8 = 7;

/// A record that is not a message. Big-endian: size i32, magic `RMQI`, kind u8, then per kind:
///
/// | kind | payload                                                                               |
/// |-----:|---------------------------------------------------------------------------------------|
/// |    1 | offset i64, queue id u32, group length u16, group, topic length u16, topic            |
/// |    2 | group length u16, group: forget all offsets of the group                              |
/// |    3 | topic length u16, topic: forget its queues and every group's offsets in them          |
/// |    4 | setting kind u8, key length u16, key, value length u32, value: last one wins          |
/// |    5 | setting kind u8, key length u16, key: the setting is gone                             |
/// |    6 | first offset i64, queue id u32, group length u16, group, topic length u16, topic, count of bit bytes u16, bits: the group is done with offset `first + n` for every bit n set, counted from the lowest bit of the first byte |
/// |    7 | first, next, taken at, until: i64; queue id u32, how u8, group length u16, group, topic length u16, topic, attempt length u16, attempt, count of bit bytes u16, bits: see [`Take`] |
///
/// Integrity is the batch's: a record is read only from a batch whose checksum holds. A kind that is not listed was
/// written by a later version; recovery refuses the store then.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum InternalRecord<'a> {
    Offset { group: &'a str, topic: &'a str, queue_id: u32, offset: i64 },
    GroupOffsetsRemoved { group: &'a str },
    TopicRemoved { topic: &'a str },
    Setting { kind: u8, key: &'a str, value: &'a [u8] },
    SettingRemoved { kind: u8, key: &'a str },
    Done { group: &'a str, topic: &'a str, queue_id: u32, first: i64, bits: &'a [u8] },
    Taken(Take<'a>),
}

/// Why bytes are not an internal record.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InternalRecordError {
    #[error(transparent)]
    Record(#[from] RecordError),
    #[error("record kind {kind} is unknown: the store was written by a later version")]
    UnknownKind { kind: u8 },
}

const HEAD_BYTES: u64 = 4 + 4 + 1;

impl<'a> InternalRecord<'a> {
    /// Bytes of the encoded record.
    pub(crate) fn size_bytes(&self) -> u64 {
        HEAD_BYTES
            + match self {
                Self::Offset { group, topic, .. } => 8 + 4 + 2 + group.len() as u64 + 2 + topic.len() as u64,
                Self::GroupOffsetsRemoved { group: name } | Self::TopicRemoved { topic: name } => 2 + name.len() as u64,
                Self::Setting { key, value, .. } => 1 + 2 + key.len() as u64 + 4 + value.len() as u64,
                Self::SettingRemoved { key, .. } => 1 + 2 + key.len() as u64,
                Self::Done { group, topic, bits, .. } => {
                    8 + 4 + 2 + group.len() as u64 + 2 + topic.len() as u64 + 2 + bits.len() as u64
                }
                Self::Taken(take) => {
                    let texts = take.group.len() + take.topic.len() + take.attempt.len() + take.bits.len();
                    4 * 8 + 4 + 1 + 4 * 2 + texts as u64
                }
            }
    }

    /// The longest of its names (or of its bits), in bytes; each must fit 16 bits.
    pub(crate) fn name_bytes(&self) -> usize {
        match self {
            Self::Done { group, topic, bits, .. } => group.len().max(topic.len()).max(bits.len()),
            Self::Taken(take) => take.group.len().max(take.topic.len()).max(take.attempt.len()).max(take.bits.len()),
            Self::Offset { group, topic, .. } => group.len().max(topic.len()),
            Self::GroupOffsetsRemoved { group: name } | Self::TopicRemoved { topic: name } => name.len(),
            Self::Setting { key, .. } | Self::SettingRemoved { key, .. } => key.len(),
        }
    }

    /// Writes the record into `out`, which is exactly [`Self::size_bytes`] long.
    pub(crate) fn encode(&self, out: &mut [u8]) {
        let total = out.len() as i32;
        let mut rest = out;
        let mut put = |bytes: &[u8]| {
            let (head, tail) = std::mem::take(&mut rest).split_at_mut(bytes.len());
            head.copy_from_slice(bytes);
            rest = tail;
        };
        put(&total.to_be_bytes());
        put(&MAGIC.to_be_bytes());
        match self {
            Self::Offset { group, topic, queue_id, offset } => {
                put(&[KIND_OFFSET]);
                put(&offset.to_be_bytes());
                put(&queue_id.to_be_bytes());
                put(&(group.len() as u16).to_be_bytes());
                put(group.as_bytes());
                put(&(topic.len() as u16).to_be_bytes());
                put(topic.as_bytes());
            }
            Self::GroupOffsetsRemoved { group } => {
                put(&[KIND_GROUP_OFFSETS_REMOVED]);
                put(&(group.len() as u16).to_be_bytes());
                put(group.as_bytes());
            }
            Self::TopicRemoved { topic } => {
                put(&[KIND_TOPIC_REMOVED]);
                put(&(topic.len() as u16).to_be_bytes());
                put(topic.as_bytes());
            }
            Self::Setting { kind, key, value } => {
                put(&[KIND_SETTING, *kind]);
                put(&(key.len() as u16).to_be_bytes());
                put(key.as_bytes());
                put(&(value.len() as u32).to_be_bytes());
                put(value);
            }
            Self::SettingRemoved { kind, key } => {
                put(&[KIND_SETTING_REMOVED, *kind]);
                put(&(key.len() as u16).to_be_bytes());
                put(key.as_bytes());
            }
            Self::Done { group, topic, queue_id, first, bits } => {
                put(&[KIND_DONE]);
                put(&first.to_be_bytes());
                put(&queue_id.to_be_bytes());
                for bytes in [group.as_bytes(), topic.as_bytes(), bits] {
                    put(&(bytes.len() as u16).to_be_bytes());
                    put(bytes);
                }
            }
            Self::Taken(take) => {
                put(&[KIND_TAKEN]);
                for number in [take.first, take.next, take.taken_ms, take.until_ms] {
                    put(&number.to_be_bytes());
                }
                put(&take.queue_id.to_be_bytes());
                put(&[take.how as u8]);
                for bytes in [take.group.as_bytes(), take.topic.as_bytes(), take.attempt.as_bytes(), take.bits] {
                    put(&(bytes.len() as u16).to_be_bytes());
                    put(bytes);
                }
            }
        }
        assert!(rest.is_empty(), "a record fills exactly its size");
    }

    /// Reads the record that `bytes` holds exactly.
    pub fn decode(bytes: &'a [u8]) -> Result<Self, InternalRecordError> {
        let mut reader = Reader::new(bytes);
        let size = reader.i32()?;
        if usize::try_from(size).ok() != Some(bytes.len()) {
            return Err(RecordError::Malformed { field: "size" }.into());
        }
        let magic = reader.i32()?;
        if magic != MAGIC {
            return Err(RecordError::UnknownMagic { magic }.into());
        }
        let [kind] = reader.array()?;
        let record = match kind {
            KIND_OFFSET => {
                let offset = reader.i64()?;
                let queue_id = u32::from_be_bytes(reader.array()?);
                Self::Offset { offset, queue_id, group: name(&mut reader)?, topic: name(&mut reader)? }
            }
            KIND_GROUP_OFFSETS_REMOVED => Self::GroupOffsetsRemoved { group: name(&mut reader)? },
            KIND_TOPIC_REMOVED => Self::TopicRemoved { topic: name(&mut reader)? },
            KIND_SETTING => {
                let [kind] = reader.array()?;
                let key = name(&mut reader)?;
                let value_bytes = u32::from_be_bytes(reader.array()?);
                Self::Setting { kind, key, value: reader.length(i64::from(value_bytes), "value")? }
            }
            KIND_SETTING_REMOVED => {
                let [kind] = reader.array()?;
                Self::SettingRemoved { kind, key: name(&mut reader)? }
            }
            KIND_DONE => {
                let first = reader.i64()?;
                let queue_id = u32::from_be_bytes(reader.array()?);
                let (group, topic) = (name(&mut reader)?, name(&mut reader)?);
                let bits_bytes = u16::from_be_bytes(reader.array()?);
                Self::Done { group, topic, queue_id, first, bits: reader.bytes(usize::from(bits_bytes))? }
            }
            KIND_TAKEN => Self::Taken(taken(&mut reader)?),
            kind => return Err(InternalRecordError::UnknownKind { kind }),
        };
        if !reader.rest().is_empty() {
            return Err(RecordError::Malformed { field: "size" }.into());
        }
        Ok(record)
    }
}

fn taken<'a>(reader: &mut Reader<'a>) -> Result<Take<'a>, RecordError> {
    let [first, next, taken_ms, until_ms] = [reader.i64()?, reader.i64()?, reader.i64()?, reader.i64()?];
    // What lies between is folded piece by piece.
    if next.checked_sub(first).is_none_or(|span| !(0..=2 * IN_FLIGHT_SPAN_MAX).contains(&span)) {
        return Err(RecordError::Malformed { field: "next" });
    }
    let queue_id = u32::from_be_bytes(reader.array()?);
    let [how] = reader.array()?;
    let how = TakenHow::from_byte(how).ok_or(RecordError::Malformed { field: "how" })?;
    let (group, topic, attempt) = (name(reader)?, name(reader)?, name(reader)?);
    let bits_bytes = u16::from_be_bytes(reader.array()?);
    let bits = reader.bytes(usize::from(bits_bytes))?;
    Ok(Take { group, topic, queue_id, first, next, bits, taken_ms, until_ms, how, attempt })
}

fn name<'a>(reader: &mut Reader<'a>) -> Result<&'a str, RecordError> {
    let len = u16::from_be_bytes(reader.array()?);
    std::str::from_utf8(reader.bytes(usize::from(len))?).map_err(|_| RecordError::Malformed { field: "name" })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn round_trip(record: InternalRecord<'_>) {
        let mut bytes = vec![0; record.size_bytes() as usize];
        record.encode(&mut bytes);
        assert_eq!(InternalRecord::decode(&bytes), Ok(record));
        for cut in 0..bytes.len() {
            assert!(InternalRecord::decode(&bytes[..cut]).is_err());
        }
    }

    proptest! {
        #[test]
        fn decode_gives_back_what_was_encoded(
            first in ".{0,40}", second in ".{0,40}", queue_id: u32, offset: i64, kind: u8,
            value in prop::collection::vec(any::<u8>(), 0..100),
        ) {
            round_trip(InternalRecord::Offset { group: &first, topic: &second, queue_id, offset });
            let first_taken = offset % (1 << 40);
            round_trip(InternalRecord::Taken(Take {
                group: &first, topic: &second, queue_id, first: first_taken, next: first_taken + i64::from(kind),
                bits: &value, taken_ms: offset, until_ms: !offset, how: TakenHow::from_byte(kind % 3).unwrap(),
                attempt: &first,
            }));
            round_trip(InternalRecord::GroupOffsetsRemoved { group: &first });
            round_trip(InternalRecord::TopicRemoved { topic: &first });
            round_trip(InternalRecord::Setting { kind, key: &first, value: &value });
            round_trip(InternalRecord::SettingRemoved { kind, key: &second });
            round_trip(InternalRecord::Done { group: &first, topic: &second, queue_id, first: offset, bits: &value });
        }

        #[test]
        fn junk_never_panics(mut bytes in prop::collection::vec(any::<u8>(), 9..100), kind in 0..9_u8) {
            let size = bytes.len() as i32;
            bytes[..4].copy_from_slice(&size.to_be_bytes());
            bytes[4..8].copy_from_slice(&MAGIC.to_be_bytes());
            bytes[8] = kind;
            let _ = InternalRecord::decode(&bytes); // Only that it returns matters.
        }
    }
}
