//! The ROCKETMQ binary header.
//!
//! | bytes | field |
//! |---|---|
//! | 2 | code, i16 |
//! | 1 | language |
//! | 2 | version, i16 |
//! | 4 | opaque |
//! | 4 | flag |
//! | 4 + n | remark, length first |
//! | 4 + n | entries, length first: keyLen i16, key, valLen i32, value |
#![forbid(unsafe_code)]

use super::{Frame, FrameError, Language, Serialization};
use crate::ext::ExtFields;
use crate::text::Text;

/// `rest` is header and body. The body is read from where the entries end, not from the announced
/// header length, because the reference does so.
pub(super) fn decode(rest: &[u8], header_bytes: usize) -> Result<Frame<'_>, FrameError> {
    let mut reader = Reader(rest);
    let code = i16::from_be_bytes(reader.array()?).into();
    let [language] = reader.array()?;
    let version = i16::from_be_bytes(reader.array()?).into();
    let opaque = i32::from_be_bytes(reader.array()?);
    let flag = i32::from_be_bytes(reader.array()?);
    let remark_len = reader.len_i32(header_bytes)?;
    let remark = reader.bytes(remark_len)?;
    let ext_len = reader.len_i32(header_bytes)?;
    let ext = reader.entries(ext_len)?;
    let body = reader.bytes(rest.len().saturating_sub(header_bytes))?;
    Ok(Frame {
        code,
        language: Language::from_ordinal(i8::from_be_bytes([language]).into())
            .unwrap_or(Language::Other),
        version,
        opaque,
        flag,
        remark: (!remark.is_empty()).then(|| Text::from_bytes(remark)),
        serialization: Serialization::Binary,
        ext: if ext.is_empty() {
            ExtFields::default()
        } else {
            ExtFields::binary(ext)
        },
        body,
    })
}

struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn array<const N: usize>(&mut self) -> Result<[u8; N], FrameError> {
        let (head, rest) = self
            .0
            .split_first_chunk::<N>()
            .ok_or(FrameError::Binary("cut short"))?;
        self.0 = rest;
        Ok(*head)
    }

    fn bytes(&mut self, len: usize) -> Result<&'a [u8], FrameError> {
        let (head, rest) = self
            .0
            .split_at_checked(len)
            .ok_or(FrameError::Binary("cut short"))?;
        self.0 = rest;
        Ok(head)
    }

    fn len_i32(&mut self, len_max: usize) -> Result<usize, FrameError> {
        checked_len(i32::from_be_bytes(self.array()?), len_max)
    }

    /// Entries up to the first that reaches `ext_len`; the last may pass it, as in the reference.
    fn entries(&mut self, ext_len: usize) -> Result<&'a [u8], FrameError> {
        let all = self.0;
        while all.len() - self.0.len() < ext_len {
            let key_len = checked_len(i16::from_be_bytes(self.array()?).into(), ext_len)?;
            self.bytes(key_len)?;
            let value_len = self.len_i32(ext_len)?;
            self.bytes(value_len)?;
        }
        Ok(all.get(..all.len() - self.0.len()).unwrap_or_default())
    }
}

fn checked_len(len: i32, len_max: usize) -> Result<usize, FrameError> {
    match usize::try_from(len) {
        Ok(len) if len <= len_max => Ok(len),
        _ => Err(FrameError::Binary("a length is out of bounds")),
    }
}
