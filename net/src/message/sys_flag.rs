//! Bits of a message's sysFlag.
#![forbid(unsafe_code)]

pub const COMPRESSED: i32 = 0x0001;
pub const MULTI_TAGS: i32 = 0x0002;
/// Half message of a transaction.
pub const TRANSACTION_PREPARED: i32 = 0x0004;
pub const TRANSACTION_COMMIT: i32 = 0x0008;
/// Rolled back; also the mask of the two transaction bits.
pub const TRANSACTION_ROLLBACK: i32 = 0x000C;
pub const TRANSACTION_MASK: i32 = 0x000C;
/// The born host takes 20 bytes instead of 8.
pub const BORNHOST_V6: i32 = 0x0010;
/// The store host takes 20 bytes instead of 8.
pub const STOREHOST_V6: i32 = 0x0020;
pub const NEED_UNWRAP: i32 = 0x0040;
pub const INNER_BATCH: i32 = 0x0080;
/// Compression type: 0x100 LZ4 frame, 0x200 Zstandard, 0x300 zlib; 0 with COMPRESSED is zlib too.
pub const COMPRESSION_MASK: i32 = 0x0700;
