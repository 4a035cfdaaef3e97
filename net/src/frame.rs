//! One remoting command: cutting it from the stream and decoding its header.
//!
//! ```text
//!  0  4     length      bytes after this field
//!  4  4     headerInfo  bits 31..24 serialisation, bits 23..0 header length
//!  8  hl    header      JSON or binary
//!  .. rest  body
//! ```
//!
//! A frame that does not decode closes its connection; there is no error reply for it.
#![forbid(unsafe_code)]

pub use crate::ext::ExtFields;
pub use crate::language::{Language, SERVER_VERSION};
pub use crate::text::Text;

mod binary_header;
mod json_header;
#[cfg(test)]
mod tests;

/// Largest frame either side may send, the length field included (RocketMQ:
/// `com.rocketmq.remoting.frameMaxLength`).
pub const FRAME_BYTES_MAX: usize = 16 * 1024 * 1024;
/// Length field and headerInfo.
pub const PREFIX_BYTES: usize = 8;

const FLAG_RESPONSE: i32 = 1;
const FLAG_ONEWAY: i32 = 2;

/// How a frame's header is written. The discriminant is the byte in headerInfo.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(u8)]
pub enum Serialization {
    #[default]
    Json = 0,
    Binary = 1,
}

/// Why a frame cannot be decoded. The connection it came from must be closed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    #[error("frame length {length} is outside 4..={}", FRAME_BYTES_MAX - 4)]
    Length { length: i32 },
    #[error("{got_bytes} bytes given for a frame of {frame_bytes}")]
    Incomplete { got_bytes: usize, frame_bytes: usize },
    #[error("unknown serialisation type {0}")]
    Serialization(u8),
    #[error("header length {header_bytes} exceeds the frame")]
    HeaderLength { header_bytes: usize },
    #[error("JSON header: {0}")]
    Json(&'static str),
    #[error("binary header: {0}")]
    Binary(&'static str),
}

/// A decoded command. Borrows the bytes it was decoded from.
#[derive(Clone, Debug)]
pub struct Frame<'a> {
    /// Request code or response code, see [`crate::codes`].
    pub code: i32,
    pub language: Language,
    /// Release number of the sender; 0 when it did not say.
    pub version: i32,
    /// Correlation id. A JSON header without one counts as 0: its reply cannot be matched anyway.
    pub opaque: i32,
    pub flag: i32,
    pub remark: Option<Text<'a>>,
    pub serialization: Serialization,
    pub ext: ExtFields<'a>,
    /// An absent body and an empty one are the same.
    pub body: &'a [u8],
}

/// Size of the frame that starts with `head`, the length field included.
///
/// `Ok(None)`: fewer than 4 bytes so far.
pub fn frame_size(head: &[u8]) -> Result<Option<usize>, FrameError> {
    let Some((length, _)) = head.split_first_chunk::<4>() else {
        return Ok(None);
    };
    let length = i32::from_be_bytes(*length);
    match usize::try_from(length) {
        Ok(after) if (4..=FRAME_BYTES_MAX - 4).contains(&after) => Ok(Some(after + 4)),
        _ => Err(FrameError::Length { length }),
    }
}

impl<'a> Frame<'a> {
    /// Decodes exactly one whole frame, the length field included.
    ///
    /// Cost: no allocation for strict JSON and binary headers.
    pub fn decode(bytes: &'a [u8]) -> Result<Self, FrameError> {
        let frame_bytes = frame_size(bytes)?.unwrap_or(PREFIX_BYTES);
        if bytes.len() != frame_bytes {
            return Err(FrameError::Incomplete { got_bytes: bytes.len(), frame_bytes });
        }
        let Some((info, rest)) = bytes.get(4..).and_then(|rest| rest.split_first_chunk::<4>()) else {
            return Err(FrameError::Incomplete { got_bytes: bytes.len(), frame_bytes });
        };
        let [kind, len @ ..] = *info;
        let header_bytes = u32::from_be_bytes([0, len[0], len[1], len[2]]) as usize;
        let Some((header, body)) = rest.split_at_checked(header_bytes) else {
            return Err(FrameError::HeaderLength { header_bytes });
        };
        match kind {
            0 => json_header::decode(header, body),
            1 => binary_header::decode(rest, header_bytes),
            other => Err(FrameError::Serialization(other)),
        }
    }

    /// A response whatever the other bits say.
    pub fn is_response(&self) -> bool {
        self.flag & FLAG_RESPONSE != 0
    }

    /// A request that must not be answered, not even with an error.
    pub fn is_oneway(&self) -> bool {
        self.flag & FLAG_ONEWAY != 0
    }
}
