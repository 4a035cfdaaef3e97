//! Records of a pull reply, walked in place. RocketMQ: records stand one after the other without
//! separators, each starting with its own size.

/// Fixed fields before the body length when both hosts are IPv4.
const BODY_LENGTH_AT: usize = 84;
const BORN_HOST_V6: u32 = 0x10;
const STORE_HOST_V6: u32 = 0x20;
const MAGICS: [u32; 2] = [0xdaa3_20a7, 0xdaa3_20ab];

/// The parts of a stored message this tool looks at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Record<'a> {
    pub queue_id: u32,
    pub queue_offset: i64,
    /// CRC-32 of the body as the broker stored it, highest bit cleared.
    pub body_crc: u32,
    pub born_ms: u64,
    pub body: &'a [u8],
    properties: &'a [u8],
}

impl<'a> Record<'a> {
    /// The value of a property; `name` ends with the separator 1.
    pub fn property(&self, name: &str) -> Option<&'a str> {
        let at = memchr::memmem::find(self.properties, name.as_bytes())? + name.len();
        let value = self.properties.get(at..)?;
        let end = memchr::memchr(2, value).unwrap_or(value.len());
        std::str::from_utf8(&value[..end]).ok()
    }
}

/// The reply's bytes are no sequence of records.
#[derive(Debug, PartialEq, Eq)]
pub struct BadRecord {
    pub at: usize,
}

pub struct Records<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Records<'a> {
    pub fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, at: 0 }
    }
}

impl<'a> Iterator for Records<'a> {
    type Item = Result<Record<'a>, BadRecord>;

    fn next(&mut self) -> Option<Self::Item> {
        let rest = self.bytes.get(self.at..).filter(|rest| !rest.is_empty())?;
        let Some((size_bytes, record)) = decode(rest) else {
            let at = std::mem::replace(&mut self.at, self.bytes.len());
            return Some(Err(BadRecord { at }));
        };
        self.at += size_bytes;
        Some(Ok(record))
    }
}

fn decode(bytes: &[u8]) -> Option<(usize, Record<'_>)> {
    let u32_at = |at: usize| Some(u32::from_be_bytes(*bytes.get(at..)?.first_chunk()?));
    let size_bytes = u32_at(0)? as usize;
    let record = bytes.get(..size_bytes)?;
    if !MAGICS.contains(&u32_at(4)?) {
        return None;
    }
    let flags = u32_at(36)?;
    let mut body_length_at = BODY_LENGTH_AT;
    body_length_at += if flags & BORN_HOST_V6 != 0 { 12 } else { 0 };
    body_length_at += if flags & STORE_HOST_V6 != 0 { 12 } else { 0 };
    let body_bytes = u32_at(body_length_at)? as usize;
    let (body, rest) = record.get(body_length_at + 4..)?.split_at_checked(body_bytes)?;
    let properties = properties(bytes[7], rest)?;
    let u64_at = |at: usize| Some(u64::from_be_bytes(*bytes.get(at..)?.first_chunk()?));
    let (queue_offset, born_ms) = (u64_at(20)? as i64, u64_at(40)?);
    Some((size_bytes, Record { queue_id: u32_at(12)?, queue_offset, body_crc: u32_at(8)?, born_ms, body, properties }))
}

/// What follows the topic; its length has two bytes in records with the second magic number.
fn properties(magic: u8, rest: &[u8]) -> Option<&[u8]> {
    let u16_at = |at: usize| Some(usize::from(u16::from_be_bytes(*rest.get(at..)?.first_chunk()?)));
    let topic_end = match magic {
        0xab => 2 + u16_at(0)?,
        _ => 1 + usize::from(*rest.first()?),
    };
    rest.get(topic_end + 2..)?.get(..u16_at(topic_end)?)
}

#[cfg(test)]
impl<'a> Record<'a> {
    /// A record of queue 0 as it would be stored.
    pub fn of_body(queue_offset: i64, body: &'a [u8]) -> Self {
        let body_crc = crc32fast::hash(body) & 0x7fff_ffff;
        Self { queue_id: 0, queue_offset, body_crc, born_ms: 0, body, properties: b"" }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A record as the reference broker stores it: topic `T`, body `hi`, queue 3, queue offset 5.
    const GOLDEN: &str = "00000065daa320a758932aac0000000300000000000000000000000500000000000003e8\
        000000000000018bcfe568007f000001000015b30000018bcfe568017f00000100002a9f00000000\
        000000000000000000000002686901540007544147530141\
        02";

    fn golden() -> Vec<u8> {
        let digits: Vec<u8> = GOLDEN.bytes().filter(|byte| !byte.is_ascii_whitespace()).collect();
        digits.chunks(2).map(|pair| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap()).collect()
    }

    #[test]
    fn golden_records_are_walked_one_after_the_other() {
        let twice = [golden(), golden()].concat();
        let records: Vec<_> = Records::new(&twice).map(Result::unwrap).collect();
        assert_eq!(records.len(), 2);
        let expected = Record {
            queue_id: 3,
            queue_offset: 5,
            body_crc: 0x5893_2aac,
            born_ms: 1_700_000_000_000,
            body: b"hi",
            properties: b"TAGS\x01A\x02",
        };
        assert_eq!(records, [expected, expected]);
        assert_eq!(crc32fast::hash(b"hi") & 0x7fff_ffff, expected.body_crc);
    }

    #[test]
    fn cut_and_broken_records_end_the_walk() {
        let golden = golden();
        for length in 1..golden.len() {
            let results: Vec<_> = Records::new(&golden[..length]).collect();
            assert_eq!(results, [Err(BadRecord { at: 0 })]);
        }
        for at in 0..golden.len() {
            let mut broken = golden.clone();
            broken[at] ^= 0xff;
            let _ = Records::new(&broken).count();
        }
        assert_eq!(Records::new(&[0; 64]).count(), 1);
    }
}
