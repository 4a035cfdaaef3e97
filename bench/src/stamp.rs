//! The stamp at the start of every body this tool sends, and its check on the consumer's side.
//!
//! | at | bytes | field         | meaning                                                      |
//! |---:|------:|---------------|--------------------------------------------------------------|
//! |  0 |     4 | magic         | [`MAGIC`]: the body was written by this tool                   |
//! |  4 |     4 | `crc`         | CRC-32 of the filler, then of bytes 8..32                      |
//! |  8 |     8 | `producer`    | run (high half) and connection (low half) that sent it         |
//! | 16 |     8 | `sequence`    | 0, 1, 2, ... per producer and queue                            |
//! | 24 |     8 | `due_us`      | wall clock, microseconds since 1970: when consumers should have it |
//! | 32 |       | filler        | the same in all messages of a run                              |
//!
//! A message is due at its intended send time; one with a delay, later. All integers big-endian. The checksum takes
//! the filler first, because its part is then the same for every message and is computed once per run: a message costs
//! the CRC of 24 bytes.

use crate::frame::put;

pub const MAGIC: u32 = 0x524d_5142; // "RMQB"
/// Smallest body that can carry a stamp.
pub const STAMP_BYTES: usize = 32;

/// What the filler of a body consists of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Filler {
    /// Incompressible bytes.
    Random,
    Zero,
    /// 0, 1, 2, ... modulo 251.
    Sequence,
}

impl Filler {
    fn bytes(self, count: usize) -> Vec<u8> {
        let mut state = 0x9e37_79b9_7f4a_7c15u64;
        (0..count)
            .map(|index| match self {
                Self::Random => {
                    // xorshift64: any fixed incompressible text will do.
                    state ^= state << 13;
                    state ^= state >> 7;
                    state ^= state << 17;
                    (state >> 32) as u8
                }
                Self::Zero => 0,
                Self::Sequence => (index % 251) as u8,
            })
            .collect()
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stamp {
    pub producer: u64,
    pub sequence: u64,
    pub due_us: u64,
}

/// A body whose filler is in place and whose stamp is still to be written.
pub struct BodyTemplate {
    bytes: Vec<u8>,
    filler_crc: u32,
}

impl BodyTemplate {
    /// `size_bytes` is at least [`STAMP_BYTES`].
    pub fn new(filler: Filler, size_bytes: usize) -> Self {
        let mut bytes = vec![0; STAMP_BYTES];
        put(&mut bytes, 0, &MAGIC.to_be_bytes());
        bytes.extend(filler.bytes(size_bytes.saturating_sub(STAMP_BYTES)));
        let filler_crc = crc32fast::hash(&bytes[STAMP_BYTES..]);
        Self { bytes, filler_crc }
    }

    pub fn size_bytes(&self) -> usize {
        self.bytes.len()
    }

    /// Appends the body with `stamp` in it.
    pub fn append_to(&self, out: &mut Vec<u8>, stamp: Stamp) {
        let start = out.len();
        out.extend_from_slice(&self.bytes);
        let body = &mut out[start..];
        put(body, 8, &stamp.producer.to_be_bytes());
        put(body, 16, &stamp.sequence.to_be_bytes());
        put(body, 24, &stamp.due_us.to_be_bytes());
        let mut crc = crc32fast::Hasher::new_with_initial(self.filler_crc);
        crc.update(&body[8..STAMP_BYTES]);
        let crc = crc.finalize();
        put(body, 4, &crc.to_be_bytes());
    }
}

/// Why a body is not one of ours, or not any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StampError {
    /// Too short or without the magic number: another producer wrote it.
    Foreign,
    /// The checksum does not match.
    Corrupt,
}

/// Reads the stamp without checking the rest of the body.
pub fn read(body: &[u8]) -> Result<Stamp, StampError> {
    let head = body.first_chunk::<STAMP_BYTES>().ok_or(StampError::Foreign)?;
    let field = |at: usize| {
        let mut bytes = [0; 8];
        bytes.copy_from_slice(&head[at..at + 8]);
        u64::from_be_bytes(bytes)
    };
    if field(0) >> 32 != u64::from(MAGIC) {
        return Err(StampError::Foreign);
    }
    Ok(Stamp { producer: field(8), sequence: field(16), due_us: field(24) })
}

/// Reads the stamp and checks every byte of the body against its checksum.
pub fn check(body: &[u8]) -> Result<Stamp, StampError> {
    let stamp = read(body)?;
    let mut crc = crc32fast::Hasher::new();
    crc.update(&body[STAMP_BYTES..]);
    crc.update(&body[8..STAMP_BYTES]);
    if body[4..8] != crc.finalize().to_be_bytes() {
        return Err(StampError::Corrupt);
    }
    Ok(stamp)
}

#[cfg(test)]
mod tests {
    use super::*;

    const STAMP: Stamp = Stamp { producer: 7 << 32 | 3, sequence: 99, due_us: 1_700_000_000_000_000 };

    #[test]
    fn stamped_bodies_pass_and_any_changed_byte_fails() {
        for (filler, size) in [(Filler::Random, 1024), (Filler::Zero, 32), (Filler::Sequence, 33)] {
            let mut body = Vec::new();
            BodyTemplate::new(filler, size).append_to(&mut body, STAMP);
            assert_eq!(body.len(), size);
            assert_eq!(check(&body), Ok(STAMP));
            for at in 0..size {
                let mut broken = body.clone();
                broken[at] ^= 1;
                assert!(check(&broken).is_err(), "byte {at} of {size}");
            }
        }
    }

    #[test]
    fn short_and_foreign_bodies_are_told_apart_from_corrupt_ones() {
        assert_eq!(check(b"hello"), Err(StampError::Foreign));
        assert_eq!(check(&[0; 64]), Err(StampError::Foreign));
    }
}
