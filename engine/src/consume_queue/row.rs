//! One row of a consume queue, and the page that holds 128 of them.

use rkyv::{Archive, Deserialize, Serialize};

use crate::buffer::BLOCK_BYTES;

/// Rows in one page of the index file.
pub(crate) const ROWS_PER_PAGE: usize = BLOCK_BYTES / Row::SIZE_BYTES;

/// Where the n-th message of a queue stands, and what filters and time look-ups need of it. Big-endian in a page:
///
/// | at | bytes | field           | meaning                                        |
/// |---:|------:|-----------------|------------------------------------------------|
/// |  0 |     8 | `position`      | where the record starts in the shard's log     |
/// |  8 |     8 | `tags_code`     | tag hash: filter without reading the log       |
/// | 16 |     8 | `store_time_ms` | store timestamp of the record                  |
/// | 24 |     4 | `size_bytes`    | the whole record                               |
/// | 28 |     4 | `checksum`      | CRC-32 of the record but its body, which has one |
///
/// Pages are written only when full, so every row of a page on disk is a real one.
#[derive(Archive, Serialize, Deserialize, Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Row {
    pub position: u64,
    pub tags_code: i64,
    pub store_time_ms: i64,
    pub size_bytes: u32,
    /// [`checksum_but_body`](crate::commit_log::record::checksum_but_body) of the record.
    pub checksum: u32,
}

const _: () = assert!(ROWS_PER_PAGE == 128, "a page holds 128 rows");

impl Row {
    pub const SIZE_BYTES: usize = 32;

    /// A place for a row.
    pub const NONE: Self = Self { position: 0, tags_code: 0, store_time_ms: 0, size_bytes: 0, checksum: 0 };

    pub fn encode(&self) -> [u8; Self::SIZE_BYTES] {
        let mut bytes = [0; Self::SIZE_BYTES];
        bytes[0..8].copy_from_slice(&self.position.to_be_bytes());
        bytes[8..16].copy_from_slice(&self.tags_code.to_be_bytes());
        bytes[16..24].copy_from_slice(&self.store_time_ms.to_be_bytes());
        bytes[24..28].copy_from_slice(&self.size_bytes.to_be_bytes());
        bytes[28..32].copy_from_slice(&self.checksum.to_be_bytes());
        bytes
    }

    pub fn decode(bytes: &[u8; Self::SIZE_BYTES]) -> Self {
        let number = |at: usize| {
            let mut raw = [0; 8];
            raw.copy_from_slice(&bytes[at..at + 8]);
            u64::from_be_bytes(raw)
        };
        Self {
            position: number(0),
            tags_code: number(8) as i64,
            store_time_ms: number(16) as i64,
            size_bytes: (number(24) >> 32) as u32,
            checksum: number(24) as u32,
        }
    }

    /// The row number `slot` of a page; `None` beyond the page's end.
    pub fn of_page(page: &[u8], slot: usize) -> Option<Self> {
        let bytes = page.get(slot * Self::SIZE_BYTES..)?.first_chunk()?;
        Some(Self::decode(bytes))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn decode_gives_back_what_was_encoded(position: u64, tags_code: i64, store_time_ms: i64, size_bytes: u32, checksum: u32, slot in 0..128_usize) {
            let row = Row { position, tags_code, store_time_ms, size_bytes, checksum };
            let mut page = vec![0; BLOCK_BYTES];
            page[slot * 32..slot * 32 + 32].copy_from_slice(&row.encode());
            prop_assert_eq!(Row::of_page(&page, slot), Some(row));
            prop_assert_eq!(Row::of_page(&page, 128), None);
        }
    }
}
