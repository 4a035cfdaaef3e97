//! A stored message as clients receive it.
//!
//! | bytes | field |
//! |---|---|
//! | 4 | total size, this field included |
//! | 4 | magic, V1 or V2 |
//! | 4 | body CRC-32, masked to 31 bits; 0 for an empty body |
//! | 4 4 | queue id, flag |
//! | 8 8 | queue offset, physical offset |
//! | 4 | sysFlag |
//! | 8 | born timestamp, ms |
//! | 8 or 20 | born host: IP, port as i32 |
//! | 8 | store timestamp, ms |
//! | 8 or 20 | store host |
//! | 4 | reconsume times |
//! | 8 | prepared transaction offset |
//! | 4 + n | body |
//! | 1 + t (V1) or 2 + t (V2) | topic |
//! | 2 + p | properties |
#![forbid(unsafe_code)]

use super::{properties, sys_flag};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

pub const MAGIC_V1: i32 = 0xDAA3_20A7_u32 as i32;
/// Topic length takes two bytes.
pub const MAGIC_V2: i32 = 0xDAA3_20AB_u32 as i32;
/// Longest topic of a V1 record: clients read its length as a signed byte.
const TOPIC_BYTES_V1_MAX: usize = 127;

/// One stored message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record<'a> {
    /// Bytes of the whole record.
    pub size_bytes: usize,
    pub body_crc: u32,
    pub queue_id: i32,
    pub flag: i32,
    pub queue_offset: i64,
    pub physical_offset: i64,
    pub sys_flag: i32,
    pub born_timestamp: i64,
    pub born_host: SocketAddr,
    pub store_timestamp: i64,
    pub store_host: SocketAddr,
    pub reconsume_times: i32,
    pub prepared_transaction_offset: i64,
    /// As stored, possibly compressed.
    pub body: &'a [u8],
    pub topic: &'a str,
    pub properties: &'a [u8],
}

impl Record<'_> {
    /// Whether the stored CRC is that of the body.
    pub fn is_body_intact(&self) -> bool {
        self.body_crc == body_crc(self.body)
    }
}

/// CRC-32 of a body, masked to 31 bits; 0 for an empty one.
pub fn body_crc(body: &[u8]) -> u32 {
    crc32fast::hash(body) & 0x7FFF_FFFF
}

/// Why bytes are not a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RecordError {
    #[error("the record is cut short")]
    Short,
    #[error("unknown magic {0:#x}")]
    Magic(i32),
    #[error("the record's sizes disagree")]
    Sizes,
    #[error("the topic is not UTF-8")]
    Topic,
}

/// Decodes the record at the start of `bytes`; more bytes may follow it.
pub fn decode(bytes: &[u8]) -> Result<Record<'_>, RecordError> {
    let size = i32::from_be_bytes(*bytes.first_chunk().ok_or(RecordError::Short)?);
    let size_bytes = usize::try_from(size).map_err(|_negative| RecordError::Sizes)?;
    let mut reader = Reader(bytes.get(..size_bytes).ok_or(RecordError::Short)?);
    reader.i32()?;
    let magic = reader.i32()?;
    if !matches!(magic, MAGIC_V1 | MAGIC_V2) {
        return Err(RecordError::Magic(magic));
    }
    let body_crc = reader.i32()? as u32;
    let queue_id = reader.i32()?;
    let flag = reader.i32()?;
    let queue_offset = reader.i64()?;
    let physical_offset = reader.i64()?;
    let flags = reader.i32()?;
    let born_timestamp = reader.i64()?;
    let born_host = reader.host(flags & sys_flag::BORNHOST_V6 != 0)?;
    let store_timestamp = reader.i64()?;
    let store_host = reader.host(flags & sys_flag::STOREHOST_V6 != 0)?;
    let reconsume_times = reader.i32()?;
    let prepared_transaction_offset = reader.i64()?;
    let body_len = reader.i32()?;
    let body = reader.bytes(usize::try_from(body_len).map_err(|_negative| RecordError::Sizes)?)?;
    let topic_len = match magic {
        MAGIC_V1 => reader.array::<1>()?[0].into(),
        _ => u16::from_be_bytes(reader.array()?).into(),
    };
    let topic = std::str::from_utf8(reader.bytes(topic_len)?).map_err(|_not_utf8| RecordError::Topic)?;
    let properties_len = u16::from_be_bytes(reader.array()?).into();
    let properties = reader.bytes(properties_len)?;
    if !reader.0.is_empty() {
        return Err(RecordError::Sizes);
    }
    Ok(Record {
        size_bytes,
        body_crc,
        queue_id,
        flag,
        queue_offset,
        physical_offset,
        sys_flag: flags,
        born_timestamp,
        born_host,
        store_timestamp,
        store_host,
        reconsume_times,
        prepared_transaction_offset,
        body,
        topic,
        properties,
    })
}

/// Appends the record `stored`, whose bytes are `bytes`, with another topic and one property more.
pub fn readdress(bytes: &[u8], stored: &Record<'_>, topic: &str, (key, value): (&str, &str), out: &mut Vec<u8>) {
    let length_bytes = |topic: &str| if topic.len() > usize::from(u8::MAX / 2) { 2 } else { 1 };
    let stored_length_bytes = if bytes.get(4..8) == Some(&MAGIC_V2.to_be_bytes()) { 2 } else { 1 };
    let kept = stored.size_bytes - stored.properties.len() - 2 - stored.topic.len() - stored_length_bytes;
    let start = out.len();
    out.extend_from_slice(&bytes[..kept]);
    if length_bytes(topic) == 1 {
        out.push(topic.len() as u8);
    } else {
        out.extend_from_slice(&(topic.len() as u16).to_be_bytes());
    }
    out.extend_from_slice(topic.as_bytes());
    let mut text = stored.properties.to_vec();
    properties::terminate(&mut text);
    properties::push(&mut text, key, value.as_bytes());
    out.extend_from_slice(&(text.len() as u16).to_be_bytes());
    out.extend_from_slice(&text);
    let size = (out.len() - start) as i32;
    let magic = if length_bytes(topic) == 1 { MAGIC_V1 } else { MAGIC_V2 };
    out[start..start + 4].copy_from_slice(&size.to_be_bytes());
    out[start + 4..start + 8].copy_from_slice(&magic.to_be_bytes());
}

/// Encodes a message as a stored one, for a body the broker makes itself. The size, the body's CRC and the magic follow
/// from the fields; so do the host bits of `sys_flag`.
pub fn encode(record: &Record<'_>) -> Vec<u8> {
    let is_v2 = record.topic.len() > TOPIC_BYTES_V1_MAX;
    let host_bits = sys_flag::BORNHOST_V6 | sys_flag::STOREHOST_V6;
    let mut flags = record.sys_flag & !host_bits;
    flags |= if record.born_host.is_ipv6() { sys_flag::BORNHOST_V6 } else { 0 };
    flags |= if record.store_host.is_ipv6() { sys_flag::STOREHOST_V6 } else { 0 };
    let mut out = vec![0; 4];
    out.extend((if is_v2 { MAGIC_V2 } else { MAGIC_V1 }).to_be_bytes());
    out.extend(body_crc(record.body).to_be_bytes());
    out.extend(record.queue_id.to_be_bytes());
    out.extend(record.flag.to_be_bytes());
    out.extend(record.queue_offset.to_be_bytes());
    out.extend(record.physical_offset.to_be_bytes());
    out.extend(flags.to_be_bytes());
    out.extend(record.born_timestamp.to_be_bytes());
    push_host(&mut out, record.born_host);
    out.extend(record.store_timestamp.to_be_bytes());
    push_host(&mut out, record.store_host);
    out.extend(record.reconsume_times.to_be_bytes());
    out.extend(record.prepared_transaction_offset.to_be_bytes());
    out.extend((record.body.len() as u32).to_be_bytes());
    out.extend(record.body);
    match is_v2 {
        true => out.extend((record.topic.len() as u16).to_be_bytes()),
        false => out.push(record.topic.len() as u8),
    }
    out.extend(record.topic.as_bytes());
    out.extend((record.properties.len() as u16).to_be_bytes());
    out.extend(record.properties);
    let size_bytes = out.len() as u32;
    out[..4].copy_from_slice(&size_bytes.to_be_bytes());
    out
}

fn push_host(out: &mut Vec<u8>, host: SocketAddr) {
    match host.ip() {
        IpAddr::V4(ip) => out.extend(ip.octets()),
        IpAddr::V6(ip) => out.extend(ip.octets()),
    }
    out.extend(u32::from(host.port()).to_be_bytes());
}

/// The records of a pull reply's body; ends after the first error.
pub fn iter(bytes: &[u8]) -> Records<'_> {
    Records { rest: bytes }
}

/// See [`iter`].
#[derive(Clone, Debug)]
pub struct Records<'a> {
    rest: &'a [u8],
}

impl<'a> Iterator for Records<'a> {
    type Item = Result<Record<'a>, RecordError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.rest.is_empty() {
            return None;
        }
        let record = decode(self.rest);
        let used = record.as_ref().map_or(self.rest.len(), |record| record.size_bytes);
        self.rest = self.rest.get(used..).unwrap_or_default();
        Some(record)
    }
}

struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn array<const N: usize>(&mut self) -> Result<[u8; N], RecordError> {
        let (head, rest) = self.0.split_first_chunk::<N>().ok_or(RecordError::Sizes)?;
        self.0 = rest;
        Ok(*head)
    }

    fn bytes(&mut self, len: usize) -> Result<&'a [u8], RecordError> {
        let (head, rest) = self.0.split_at_checked(len).ok_or(RecordError::Sizes)?;
        self.0 = rest;
        Ok(head)
    }

    fn i32(&mut self) -> Result<i32, RecordError> {
        self.array().map(i32::from_be_bytes)
    }

    fn i64(&mut self) -> Result<i64, RecordError> {
        self.array().map(i64::from_be_bytes)
    }

    fn host(&mut self, is_v6: bool) -> Result<SocketAddr, RecordError> {
        let ip: IpAddr =
            if is_v6 { Ipv6Addr::from(self.array::<16>()?).into() } else { Ipv4Addr::from(self.array::<4>()?).into() };
        let port = u16::try_from(self.i32()?).map_err(|_too_large| RecordError::Sizes)?;
        Ok(SocketAddr::new(ip, port))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn golden() -> Vec<u8> {
        let hex = "00000065 daa320a7 58932aac 00000003 00000000 0000000000000005 00000000000003e8 00000000
            0000018bcfe56800 7f000001000015b3 0000018bcfe56801 7f00000100002a9f 00000000 0000000000000000
            00000002 6869 01 54 0007 54414753 01 41 02";
        let digits: Vec<u8> = hex.bytes().filter(|byte| !byte.is_ascii_whitespace()).collect();
        digits.chunks(2).map(|pair| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap()).collect()
    }

    #[test]
    fn golden_record_decodes() {
        let bytes = golden();
        let record = decode(&bytes).unwrap();
        assert_eq!(
            (record.size_bytes, record.queue_id, record.queue_offset, record.physical_offset),
            (101, 3, 5, 1000)
        );
        assert_eq!((record.topic, record.body, record.properties), ("T", &b"hi"[..], &b"TAGS\x01A\x02"[..]));
        assert_eq!(record.born_host, "127.0.0.1:5555".parse().unwrap());
        assert_eq!(record.store_host, "127.0.0.1:10911".parse().unwrap());
        assert_eq!(record.store_timestamp, 1_700_000_000_001);
        assert!(record.is_body_intact());
        let twice = [bytes.clone(), bytes].concat();
        assert_eq!(iter(&twice).filter(Result::is_ok).count(), 2);
        assert_eq!(body_crc(b""), 0);
    }

    #[test]
    fn encode_undoes_decode() {
        let bytes = golden();
        let record = decode(&bytes).unwrap();
        assert_eq!(encode(&record), bytes);
        let long = "t".repeat(128);
        let (v6, properties) = ("[::1]:7".parse().unwrap(), &b"a\x01b\x02"[..]);
        let other = encode(&Record { topic: &long, born_host: v6, properties, ..record });
        let read = decode(&other).unwrap();
        assert_eq!((read.topic, read.born_host, read.properties), (&*long, v6, properties));
        assert_eq!(read.sys_flag, sys_flag::BORNHOST_V6);
    }

    #[test]
    fn what_is_cut_or_foreign_is_refused() {
        let bytes = golden();
        assert_eq!(decode(&bytes[..100]), Err(RecordError::Short));
        let mut foreign = bytes;
        foreign[7] = 0;
        assert!(matches!(decode(&foreign), Err(RecordError::Magic(_))));
    }

    proptest! {
        #[test]
        fn one_wrong_byte_never_panics(at in 0usize..101, byte: u8) {
            let mut bytes = golden();
            bytes[at] = byte;
            let _count = iter(&bytes).count();
        }
    }
}
