//! The message record: RocketMQ's stored-message encoding, which is also what a pull returns.

use std::net::{IpAddr, SocketAddr};
use std::ops::Range;

use crate::key_index::MessageKeys;
use crate::planted::{self, Bug};
use crate::position::PhysicalOffset;

/// Magic of a record whose topic length is one byte (at most 127).
pub const MAGIC_V1: i32 = 0xDAA3_20A7_u32 as i32;
/// Magic of a record whose topic length is two bytes.
pub const MAGIC_V2: i32 = 0xDAA3_20AB_u32 as i32;
/// Longest topic, in bytes, that a V1 record can name: clients read its length as a signed byte.
const TOPIC_BYTES_V1_MAX: usize = 127;
/// Longest properties, in bytes: their length field is a signed 16-bit number.
pub const PROPERTIES_BYTES_MAX: usize = i16::MAX as usize;
/// Longest topic, in bytes: the V2 length field is a signed 16-bit number.
pub const TOPIC_BYTES_MAX: usize = i16::MAX as usize;

/// `sysFlag` bit: the born host is an IPv6 address.
pub const BORN_HOST_V6: i32 = 0x10;
/// `sysFlag` bit: the store host is an IPv6 address.
pub const STORE_HOST_V6: i32 = 0x20;
/// `sysFlag` bits 2 and 3: the transaction type.
pub const TRANSACTION_TYPE_MASK: i32 = 0x0C;
/// Transaction type of a message that was prepared (half).
pub const TRANSACTION_PREPARED: i32 = 0x04;
/// Transaction type of a rolled back message.
pub const TRANSACTION_ROLLBACK: i32 = 0x0C;

/// Whether a record with this `sysFlag` gets a place in its queue. Prepared and rolled back ones do not.
pub fn is_indexed(sys_flag: i32) -> bool {
    let kind = sys_flag & TRANSACTION_TYPE_MASK;
    kind != TRANSACTION_PREPARED && kind != TRANSACTION_ROLLBACK
}

/// CRC-32 of a body as records carry it: without the sign bit, 0 for an empty body.
pub fn body_crc(body: &[u8]) -> i32 {
    (crc32fast::hash(body) & 0x7FFF_FFFF) as i32
}

/// A message before it has a place in the log.
#[derive(Clone, Copy, Debug)]
pub struct MessageDraft<'a> {
    pub topic: &'a str,
    pub queue_id: u32,
    /// The producer's own flag, passed through.
    pub flag: i32,
    /// The two host-family bits are set from the addresses, whatever they are here.
    pub sys_flag: i32,
    /// Producer's clock, milliseconds since 1970.
    pub born_timestamp_ms: i64,
    pub born_host: SocketAddr,
    pub store_host: SocketAddr,
    pub reconsume_times: i32,
    pub prepared_transaction_offset: i64,
    pub body: &'a [u8],
    /// RocketMQ's `key 0x01 value 0x02 ...`, stored as given.
    pub properties: &'a [u8],
    /// What `properties` say, for who has walked them anyway.
    pub keys: MessageKeys<'a>,
}

/// What differs between the messages of one batch; the rest stands in the draft they share.
#[derive(Clone, Copy, Debug)]
pub struct BatchItem<'a> {
    pub flag: i32,
    pub body: &'a [u8],
    pub properties: &'a [u8],
    pub keys: MessageKeys<'a>,
}

/// What the shard decides about a record at append.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Placement {
    pub queue_offset: i64,
    pub physical_offset: PhysicalOffset,
    pub store_timestamp_ms: i64,
}

fn host_bytes(host: &SocketAddr) -> usize {
    if host.ip().to_canonical().is_ipv4() { 8 } else { 20 }
}

/// Bytes of the record for this draft with this body and properties.
pub(crate) fn record_bytes(draft: &MessageDraft<'_>, body: &[u8], properties: &[u8]) -> u64 {
    let topic_length_bytes = if draft.topic.len() > TOPIC_BYTES_V1_MAX { 2 } else { 1 };
    let fixed = 4 * 5 + 8 * 2 + 4 + 8 + 8 + 4 + 8 + 4 + 2;
    let hosts = host_bytes(&draft.born_host) + host_bytes(&draft.store_host);
    fixed + (hosts + topic_length_bytes + draft.topic.len()) as u64 + body.len() as u64 + properties.len() as u64
}

/// Writes big-endian fields one after another.
struct Fields<'a> {
    rest: &'a mut [u8],
}

impl Fields<'_> {
    fn bytes(&mut self, value: &[u8]) {
        let (head, rest) = std::mem::take(&mut self.rest).split_at_mut(value.len());
        head.copy_from_slice(value);
        self.rest = rest;
    }

    fn i32(&mut self, value: i32) {
        self.bytes(&value.to_be_bytes());
    }

    fn i64(&mut self, value: i64) {
        self.bytes(&value.to_be_bytes());
    }

    fn host(&mut self, host: &SocketAddr) {
        match host.ip().to_canonical() {
            IpAddr::V4(ip) => self.bytes(&ip.octets()),
            IpAddr::V6(ip) => self.bytes(&ip.octets()),
        }
        self.i32(i32::from(host.port()));
    }
}

/// Encodes one record into `out`, which is exactly [`record_bytes`] long. The body is copied once, here.
///
/// | # | bytes   | field                      | # | bytes   | field                                  |
/// |--:|--------:|----------------------------|--:|--------:|----------------------------------------|
/// | 1 | 4       | total size                 | 10| 8 or 20 | born host: IP, then port as 4 bytes    |
/// | 2 | 4       | magic V1 or V2             | 11| 8       | store timestamp                        |
/// | 3 | 4       | body CRC                   | 12| 8 or 20 | store host                             |
/// | 4 | 4       | queue id                   | 13| 4       | reconsume times                        |
/// | 5 | 4       | flag                       | 14| 8       | prepared transaction offset            |
/// | 6 | 8       | queue offset               | 15| 4 + n   | body length, body                      |
/// | 7 | 8       | physical offset            | 16| 1 or 2 + n | topic length, topic                 |
/// | 8 | 4       | sysFlag                    | 17| 2 + n   | properties length, properties          |
/// | 9 | 8       | born timestamp             |   |         |                                        |
pub(crate) fn encode(out: &mut [u8], draft: &MessageDraft<'_>, item: &BatchItem<'_>, placement: &Placement) {
    let is_v2 = draft.topic.len() > TOPIC_BYTES_V1_MAX;
    let mut sys_flag = draft.sys_flag & !(BORN_HOST_V6 | STORE_HOST_V6);
    if host_bytes(&draft.born_host) == 20 {
        sys_flag |= BORN_HOST_V6;
    }
    if host_bytes(&draft.store_host) == 20 {
        sys_flag |= STORE_HOST_V6;
    }
    let total = out.len() as i32;
    let mut fields = Fields { rest: out };
    fields.i32(total);
    fields.i32(if is_v2 { MAGIC_V2 } else { MAGIC_V1 });
    fields.i32(body_crc(item.body));
    fields.i32(draft.queue_id as i32);
    fields.i32(item.flag);
    fields.i64(placement.queue_offset);
    fields.i64(placement.physical_offset.to_wire());
    fields.i32(sys_flag);
    fields.i64(draft.born_timestamp_ms);
    fields.host(&draft.born_host);
    fields.i64(placement.store_timestamp_ms);
    fields.host(&draft.store_host);
    fields.i32(draft.reconsume_times);
    fields.i64(draft.prepared_transaction_offset);
    fields.i32(item.body.len() as i32);
    fields.bytes(item.body);
    if is_v2 {
        fields.bytes(&(draft.topic.len() as i16).to_be_bytes());
    } else {
        fields.bytes(&[draft.topic.len() as u8]);
    }
    fields.bytes(draft.topic.as_bytes());
    fields.bytes(&(item.properties.len() as i16).to_be_bytes());
    fields.bytes(item.properties);
    assert!(fields.rest.is_empty(), "a record fills exactly its size");
}

/// A stored record, read in place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Record<'a> {
    pub size_bytes: u32,
    pub body_crc: i32,
    pub queue_id: u32,
    pub flag: i32,
    pub queue_offset: i64,
    pub physical_offset: i64,
    pub sys_flag: i32,
    pub born_timestamp_ms: i64,
    pub born_host: SocketAddr,
    pub store_timestamp_ms: i64,
    pub store_host: SocketAddr,
    pub reconsume_times: i32,
    pub prepared_transaction_offset: i64,
    pub body: &'a [u8],
    pub topic: &'a str,
    pub properties: &'a [u8],
}

/// Why bytes are not a message record.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RecordError {
    #[error("record is cut off")]
    Truncated,
    #[error("unknown record magic {magic:#010x}")]
    UnknownMagic { magic: i32 },
    #[error("record field {field} is out of range")]
    Malformed { field: &'static str },
}

/// Reads big-endian fields one after another, never beyond the end.
pub(crate) struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    pub fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes }
    }

    pub fn rest(&self) -> &'a [u8] {
        self.rest
    }

    pub fn bytes(&mut self, len: usize) -> Result<&'a [u8], RecordError> {
        let (head, rest) = self.rest.split_at_checked(len).ok_or(RecordError::Truncated)?;
        self.rest = rest;
        Ok(head)
    }

    pub fn array<const N: usize>(&mut self) -> Result<[u8; N], RecordError> {
        let (head, rest) = self.rest.split_first_chunk().ok_or(RecordError::Truncated)?;
        self.rest = rest;
        Ok(*head)
    }

    pub fn i32(&mut self) -> Result<i32, RecordError> {
        self.array().map(i32::from_be_bytes)
    }

    pub fn i64(&mut self) -> Result<i64, RecordError> {
        self.array().map(i64::from_be_bytes)
    }

    pub fn length(&mut self, raw: i64, field: &'static str) -> Result<&'a [u8], RecordError> {
        let len = usize::try_from(raw).map_err(|_| RecordError::Malformed { field })?;
        self.bytes(len)
    }

    fn host(&mut self, is_v6: bool) -> Result<SocketAddr, RecordError> {
        let ip: IpAddr =
            if is_v6 { self.array::<16>().map(IpAddr::from)? } else { self.array::<4>().map(IpAddr::from)? };
        let port = u16::try_from(self.i32()?).map_err(|_| RecordError::Malformed { field: "port" })?;
        Ok(SocketAddr::new(ip, port))
    }
}

/// Size and magic of whatever record starts here.
pub(crate) fn peek(bytes: &[u8]) -> Result<(u32, i32), RecordError> {
    let mut reader = Reader::new(bytes);
    let size = u32::try_from(reader.i32()?).map_err(|_| RecordError::Malformed { field: "size" })?;
    let magic = reader.i32()?;
    if size < 8 {
        return Err(RecordError::Malformed { field: "size" });
    }
    Ok((size, magic))
}

/// Where the physical offset stands in a record.
const PHYSICAL_OFFSET_AT: usize = 28;
/// Where the `sysFlag` stands in a record.
const SYS_FLAG_AT: usize = 36;
/// Where the body's CRC stands in a record.
const BODY_CRC_AT: usize = 8;
/// Bytes from the start of a record to the end of its physical offset.
pub(crate) const HEAD_BYTES: u32 = PHYSICAL_OFFSET_AT as u32 + 8;

/// The size of the message record at this place, if the first bytes are those of one that says it stands there.
pub(crate) fn size_at(head: &[u8], physical_offset: PhysicalOffset) -> Option<u32> {
    let (size, magic) = peek(head).ok()?;
    let offset = head.get(PHYSICAL_OFFSET_AT..)?.first_chunk().map(|raw| i64::from_be_bytes(*raw))?;
    let is_message = magic == MAGIC_V1 || magic == MAGIC_V2;
    (is_message && size >= HEAD_BYTES && offset == physical_offset.to_wire()).then_some(size)
}

/// Whether these bytes are the message record of this size at this place: a cheap check of what a row promised.
pub(crate) fn is_at(bytes: &[u8], size_bytes: u32, physical_offset: PhysicalOffset) -> bool {
    bytes.len() == size_bytes as usize && size_at(bytes, physical_offset) == Some(size_bytes)
}

/// Reads a byte of each part of a record that a look at its properties needs, so that the processor fetches them. Says
/// whether there are any.
pub(crate) fn touch(bytes: &[u8]) -> bool {
    const BODY_LENGTH_AT: usize = SYS_FLAG_AT + 4 + 8 + 8 + 8 + 8 + 4 + 8;
    // Properties are the end of a record, most often two or three lines of the processor's cache.
    let end = bytes.len();
    let places = [0, BODY_LENGTH_AT, end.saturating_sub(128), end.saturating_sub(64), end.saturating_sub(1)];
    std::hint::black_box(places.map(|at| bytes.get(at).copied()));
    end > 0
}

/// Where the body of a message record stands; `None` if the bytes end before it does.
fn body_range(bytes: &[u8]) -> Option<Range<usize>> {
    let number = |at: usize| Some(i32::from_be_bytes(*bytes.get(at..)?.first_chunk()?));
    let sys_flag = number(SYS_FLAG_AT)?;
    let host_bytes = |is_v6: i32| if sys_flag & is_v6 == 0 { 8 } else { 20 };
    // Two timestamps, two hosts, how often it was consumed, the prepared transaction's offset.
    let length_at = SYS_FLAG_AT + 4 + 8 + host_bytes(BORN_HOST_V6) + 8 + host_bytes(STORE_HOST_V6) + 4 + 8;
    let start = length_at + 4;
    let end = start.checked_add(usize::try_from(number(length_at)?).ok()?)?;
    (end <= bytes.len()).then_some(start..end)
}

/// The properties of a message record, without a look at the rest; `None` if these bytes are no message record.
pub(crate) fn properties(bytes: &[u8]) -> Option<&[u8]> {
    let (_size, magic) = peek(bytes).ok()?;
    let mut reader = Reader::new(&bytes[body_range(bytes)?.end..]);
    let topic_bytes = match magic {
        MAGIC_V1 => i64::from(i8::from_be_bytes(reader.array().ok()?)),
        MAGIC_V2 => i64::from(i16::from_be_bytes(reader.array().ok()?)),
        _ => return None,
    };
    reader.length(topic_bytes, "topicLength").ok()?;
    let properties_bytes = i16::from_be_bytes(reader.array().ok()?);
    reader.length(i64::from(properties_bytes), "propertiesLength").ok()
}

/// CRC-32 of a message record without its body, whose own CRC is part of the rest; `None` if these bytes are no
/// message record. With both, a record can be checked without the batch it came in.
pub(crate) fn checksum_but_body(bytes: &[u8]) -> Option<u32> {
    let body = body_range(bytes)?;
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(&bytes[..body.start]);
    hasher.update(&bytes[body.end..]);
    Some(hasher.finalize())
}

/// Whether the record is what it was when its row was written, with this [`checksum_but_body`].
pub(crate) fn is_intact(bytes: &[u8], checksum: u32) -> bool {
    if planted::is(Bug::RecordChecksumNotChecked) {
        return true;
    }
    let stored = bytes.get(BODY_CRC_AT..).and_then(|rest| rest.first_chunk()).map(|raw| i32::from_be_bytes(*raw));
    checksum_but_body(bytes) == Some(checksum)
        && body_range(bytes).is_some_and(|body| stored == Some(body_crc(&bytes[body])))
}

impl<'a> Record<'a> {
    /// Reads the record at the start of `bytes`; what follows it is not looked at.
    pub fn decode(bytes: &'a [u8]) -> Result<Self, RecordError> {
        let (size_bytes, magic) = peek(bytes)?;
        let bytes = bytes.get(..size_bytes as usize).ok_or(RecordError::Truncated)?;
        if magic != MAGIC_V1 && magic != MAGIC_V2 {
            return Err(RecordError::UnknownMagic { magic });
        }
        let mut reader = Reader::new(bytes);
        reader.bytes(8)?;
        let body_crc = reader.i32()?;
        let queue_id = u32::try_from(reader.i32()?).map_err(|_| RecordError::Malformed { field: "queueId" })?;
        let flag = reader.i32()?;
        let queue_offset = reader.i64()?;
        let physical_offset = reader.i64()?;
        let sys_flag = reader.i32()?;
        let born_timestamp_ms = reader.i64()?;
        let born_host = reader.host(sys_flag & BORN_HOST_V6 != 0)?;
        let store_timestamp_ms = reader.i64()?;
        let store_host = reader.host(sys_flag & STORE_HOST_V6 != 0)?;
        let reconsume_times = reader.i32()?;
        let prepared_transaction_offset = reader.i64()?;
        let body_bytes = reader.i32()?;
        let body = reader.length(i64::from(body_bytes), "bodyLength")?;
        let topic_bytes = if magic == MAGIC_V2 {
            i64::from(i16::from_be_bytes(reader.array()?))
        } else {
            i64::from(i8::from_be_bytes(reader.array()?))
        };
        let topic = std::str::from_utf8(reader.length(topic_bytes, "topicLength")?)
            .map_err(|_| RecordError::Malformed { field: "topic" })?;
        let properties_bytes = i16::from_be_bytes(reader.array()?);
        let properties = reader.length(i64::from(properties_bytes), "propertiesLength")?;
        if !reader.rest().is_empty() {
            return Err(RecordError::Malformed { field: "size" });
        }
        Ok(Self {
            size_bytes,
            body_crc,
            queue_id,
            flag,
            queue_offset,
            physical_offset,
            sys_flag,
            born_timestamp_ms,
            born_host,
            store_timestamp_ms,
            store_host,
            reconsume_times,
            prepared_transaction_offset,
            body,
            topic,
            properties,
        })
    }
}

/// The property a message begins with while it is owed to another queue: when it is due, milliseconds since 1970.
pub const DUE_PROPERTY: &str = "__DUE_MS";

/// The code of the row of a message with these properties: its tag hash, 0 without a tag; of a message that is owed, when
/// it is due.
pub fn row_code(properties: &[u8], keys: &MessageKeys<'_>) -> i64 {
    let due = properties.strip_prefix(DUE_PROPERTY.as_bytes()).and_then(|rest| rest.strip_prefix(b"\x01"));
    let digits = due.and_then(|rest| rest.split(|byte| *byte == 2).next());
    match digits.and_then(|digits| std::str::from_utf8(digits).ok()).and_then(|digits| digits.parse().ok()) {
        Some(due_ms) => due_ms,
        None => keys.tag().map_or(0, tag_hash),
    }
}

/// Java's `String.hashCode`: over UTF-16 units, wrapping in 32 bits; sign-extended.
fn tag_hash(tag: &[u8]) -> i64 {
    let add = |hash: i32, unit: u16| hash.wrapping_mul(31).wrapping_add(i32::from(unit));
    let hash = if tag.is_ascii() {
        tag.iter().fold(0, |hash, byte| add(hash, u16::from(*byte)))
    } else {
        String::from_utf8_lossy(tag).encode_utf16().fold(0, add)
    };
    i64::from(hash)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::position::LogPosition;

    fn hex(text: &str) -> Vec<u8> {
        let digits: Vec<u8> = text.bytes().filter(|byte| !byte.is_ascii_whitespace()).collect();
        digits.chunks(2).map(|pair| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap()).collect()
    }

    fn encoded(draft: &MessageDraft<'_>, placement: &Placement) -> Vec<u8> {
        let item = BatchItem { flag: draft.flag, body: draft.body, properties: draft.properties, keys: draft.keys };
        let mut out = vec![0; record_bytes(draft, draft.body, draft.properties) as usize];
        encode(&mut out, draft, &item, placement);
        out
    }

    fn draft<'a>(topic: &'a str, body: &'a [u8], properties: &'a [u8], born: &str, store: &str) -> MessageDraft<'a> {
        MessageDraft {
            topic,
            queue_id: 3,
            flag: 0,
            sys_flag: 0,
            born_timestamp_ms: 1_700_000_000_000,
            born_host: born.parse().unwrap(),
            store_host: store.parse().unwrap(),
            reconsume_times: 0,
            prepared_transaction_offset: 0,
            body,
            properties,
            keys: MessageKeys::of(properties),
        }
    }

    const PLACEMENT: fn() -> Placement = || Placement {
        queue_offset: 5,
        physical_offset: PhysicalOffset::new(0, LogPosition::new(1000)),
        store_timestamp_ms: 1_700_000_000_001,
    };

    #[test]
    fn record_equals_the_bytes_of_the_reference_broker() {
        let golden = hex("00000065 daa320a7 58932aac 00000003 00000000 0000000000000005 00000000000003e8 00000000
             0000018bcfe56800 7f000001000015b3 0000018bcfe56801 7f00000100002a9f 00000000 0000000000000000
             00000002 6869 01 54 0007 54414753 01 41 02");
        let draft = draft("T", b"hi", b"TAGS\x01A\x02", "127.0.0.1:5555", "127.0.0.1:10911");
        assert_eq!(encoded(&draft, &PLACEMENT()), golden);
        let record = Record::decode(&golden).unwrap();
        assert_eq!((record.topic, record.body, record.properties), ("T", &b"hi"[..], &b"TAGS\x01A\x02"[..]));
        assert_eq!((record.queue_id, record.queue_offset, record.physical_offset), (3, 5, 1000));
    }

    #[test]
    fn mapped_ipv4_addresses_are_stored_as_ipv4() {
        let draft = draft("T", b"", b"", "[::ffff:1.2.3.4]:1", "[::1]:2");
        let bytes = encoded(&draft, &PLACEMENT());
        let record = Record::decode(&bytes).unwrap();
        assert_eq!(record.sys_flag, STORE_HOST_V6);
        assert_eq!(record.born_host, "1.2.3.4:1".parse::<SocketAddr>().unwrap());
        assert_eq!(record.store_host, "[::1]:2".parse::<SocketAddr>().unwrap());
    }

    #[test]
    fn long_topics_use_the_second_version() {
        for (len, magic) in [(127, MAGIC_V1), (128, MAGIC_V2), (255, MAGIC_V2)] {
            let topic = "t".repeat(len);
            let bytes = encoded(&draft(&topic, b"x", b"", "1.1.1.1:1", "1.1.1.1:1"), &PLACEMENT());
            assert_eq!(peek(&bytes).unwrap().1, magic);
            assert_eq!(Record::decode(&bytes).unwrap().topic, topic);
        }
    }

    #[test]
    fn tag_hashes_are_those_of_java() {
        let tags_code = |properties| row_code(properties, &MessageKeys::of(properties));
        assert_eq!((tag_hash(b"A"), tag_hash(b"TagA"), tag_hash("中".as_bytes())), (65, 2_598_919, 20_013));
        assert_eq!(tags_code(b"TAGS\x01A\x02KEYS\x01k"), 65);
        assert_eq!(tags_code(b"TAGS\x01A\x02TAGS\x01TagA"), 2_598_919);
        assert_eq!(tags_code(b"TAGS\x01\x02XTAGS\x01B\x02"), 0);
        assert_eq!(tags_code(b""), 0);
    }

    #[test]
    fn body_crc_is_masked() {
        assert_eq!((body_crc(b"hi"), body_crc(b"")), (0x5893_2aac, 0));
    }

    proptest! {
        #[test]
        fn decode_gives_back_what_was_encoded(
            topic in "[a-z%_]{1,200}", body in prop::collection::vec(any::<u8>(), 0..200),
            properties in prop::collection::vec(any::<u8>(), 0..200), v6 in any::<bool>(), flag: i32, born: i64,
            rot: prop::sample::Index,
        ) {
            let host = if v6 { "[2001:db8::1]:65535" } else { "10.1.2.3:0" };
            let mut draft = draft(&topic, &body, &properties, host, host);
            (draft.flag, draft.born_timestamp_ms, draft.reconsume_times) = (flag, born, flag);
            let bytes = encoded(&draft, &PLACEMENT());
            let record = Record::decode(&bytes).unwrap();
            prop_assert_eq!((record.topic, record.body, record.properties), (&*topic, &body[..], &properties[..]));
            prop_assert_eq!((record.flag, record.born_timestamp_ms, record.born_host), (flag, born, host.parse().unwrap()));
            prop_assert!(is_at(&bytes, bytes.len() as u32, PLACEMENT().physical_offset));
            prop_assert_eq!(super::properties(&bytes), Some(&properties[..]));
            let checksum = checksum_but_body(&bytes).unwrap();
            prop_assert!(is_intact(&bytes, checksum));
            let mut rotten = bytes.clone();
            let at = rot.index(bytes.len());
            rotten[at] ^= 1 << (at % 8);
            prop_assert!(!is_intact(&rotten, checksum), "byte {at}");
            for cut in 0..bytes.len() {
                prop_assert!(Record::decode(&bytes[..cut]).is_err());
                prop_assert!(super::properties(&bytes[..cut]).is_none());
            }
        }

        #[test]
        fn junk_never_panics(mut bytes in prop::collection::vec(any::<u8>(), 0..300), magic in any::<bool>()) {
            if magic && bytes.len() > 8 {
                let size = bytes.len() as i32;
                bytes[..4].copy_from_slice(&size.to_be_bytes());
                bytes[4..8].copy_from_slice(&MAGIC_V1.to_be_bytes());
            }
            let _ = Record::decode(&bytes); // Only that they return matters.
            let _ = is_intact(&bytes, 0);
            let _ = row_code(&bytes, &MessageKeys::of(&bytes));
        }
    }
}
