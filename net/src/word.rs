//! Eight bytes at a time.
#![forbid(unsafe_code)]

pub(crate) const WORD_BYTES: usize = size_of::<u64>();

/// The highest bit of each byte that equals `byte`; the first byte is the lowest one of the word.
pub(crate) fn equal_bytes(word: u64, byte: u8) -> u64 {
    const LOW_BITS: u64 = u64::from_le_bytes([0x7F; WORD_BYTES]);
    let differing = word ^ u64::from_le_bytes([byte; WORD_BYTES]);
    // No carry leaves a byte: the sum's highest bit says whether any of its low bits was set.
    !(((differing & LOW_BITS) + LOW_BITS) | differing | LOW_BITS)
}
