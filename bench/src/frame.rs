//! Remoting frames: a writer for the few requests this tool sends, and a scan of the replies.
//!
//! Requests are written once and then patched in place, so the writer reports where a value
//! stands. Replies are read where they lie in the receive buffer: nothing is copied, and only an
//! error reply or an unusual header reaches the JSON parser.

use std::borrow::Cow;

use thiserror::Error;

/// Largest frame either side accepts, the length field included (RocketMQ: 16 MiB).
pub const FRAME_BYTES_MAX: usize = 16 * 1024 * 1024;

/// Version number put into requests: RocketMQ 5.5.0.
const VERSION: i32 = 513;

/// First opaque of a connection. All opaques have ten digits, so that they can be patched in place.
pub const OPAQUE_FIRST: i32 = 1_000_000_000;

/// Request codes this tool sends.
pub mod request {
    pub const PULL_MESSAGE: i32 = 11;
    pub const UPDATE_AND_CREATE_TOPIC: i32 = 17;
    pub const GET_MAX_OFFSET: i32 = 30;
    pub const GET_MIN_OFFSET: i32 = 31;
    pub const END_TRANSACTION: i32 = 37;
    pub const LOCK_BATCH_MQ: i32 = 41;
    pub const GET_ROUTE: i32 = 105;
    pub const GET_CLUSTER_INFO: i32 = 106;
    pub const SEND_MESSAGE_V2: i32 = 310;
    pub const SEND_BATCH_MESSAGE: i32 = 320;
    pub const POP_MESSAGE: i32 = 200_050;
    pub const ACK_MESSAGE: i32 = 200_051;
}

/// Response codes this tool tells apart.
pub mod response {
    pub const SUCCESS: i32 = 0;
    pub const TOPIC_NOT_EXIST: i32 = 17;
    pub const PULL_NOT_FOUND: i32 = 19;
    pub const PULL_RETRY_IMMEDIATELY: i32 = 20;
    pub const PULL_OFFSET_MOVED: i32 = 21;
    pub const POLLING_FULL: i32 = 209;
    pub const POLLING_TIMEOUT: i32 = 210;
}

/// How the header of a frame is written; chosen per frame by its type byte.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Serialization {
    Json,
    Binary,
}

/// The peer sent bytes that are no frame; the connection is of no more use.
#[derive(Debug, Error)]
pub enum FrameError {
    #[error("frame length {0} is out of range")]
    Length(i64),
    #[error("frame header is unreadable: {0}")]
    Header(&'static str),
}

/// Writes one request frame. Bytes of the body follow after [`FrameWriter::finish`].
pub struct FrameWriter<'a> {
    out: &'a mut Vec<u8>,
    start: usize,
    serialization: Serialization,
    opaque: i32,
    opaque_at: usize,
    ext_length_at: usize,
    is_first: bool,
}

impl<'a> FrameWriter<'a> {
    pub fn begin(out: &'a mut Vec<u8>, serialization: Serialization, code: i32, opaque: i32) -> Self {
        let start = out.len();
        out.extend_from_slice(&[0; 8]);
        let (mut opaque_at, mut ext_length_at) = (0, 0);
        match serialization {
            Serialization::Json => {
                out.extend_from_slice(b"{\"code\":");
                push_int(out, i64::from(code));
                out.extend_from_slice(b",\"extFields\":{");
            }
            Serialization::Binary => {
                // The codes sent here all fit the 16 bits this form has for them.
                out.extend_from_slice(&(code as i16).to_be_bytes());
                out.push(0); // language JAVA
                out.extend_from_slice(&(VERSION as i16).to_be_bytes());
                opaque_at = out.len();
                out.extend_from_slice(&opaque.to_be_bytes());
                out.extend_from_slice(&[0; 8]); // flag, remark length
                ext_length_at = out.len();
                out.extend_from_slice(&[0; 4]);
            }
        }
        Self { out, start, serialization, opaque, opaque_at, ext_length_at, is_first: true }
    }

    /// Appends one ext field; returns where its value starts, counted from the frame's first byte.
    pub fn text(&mut self, key: &str, value: &str) -> usize {
        let value_at;
        match self.serialization {
            Serialization::Json => {
                if !self.is_first {
                    self.out.push(b',');
                }
                self.is_first = false;
                self.out.push(b'"');
                self.out.extend_from_slice(key.as_bytes());
                self.out.extend_from_slice(b"\":\"");
                value_at = self.out.len();
                push_escaped(self.out, value);
                self.out.push(b'"');
            }
            Serialization::Binary => {
                self.out.extend_from_slice(&(key.len() as u16).to_be_bytes());
                self.out.extend_from_slice(key.as_bytes());
                self.out.extend_from_slice(&(value.len() as u32).to_be_bytes());
                value_at = self.out.len();
                self.out.extend_from_slice(value.as_bytes());
            }
        }
        value_at - self.start
    }

    pub fn int(&mut self, key: &str, value: i64) -> usize {
        let mut digits = itoa::Buffer::new();
        self.text(key, digits.format(value))
    }

    /// Closes the header and fills in the lengths; returns where the opaque stands in the frame.
    pub fn finish(mut self, body_bytes: usize) -> usize {
        match self.serialization {
            Serialization::Json => {
                self.out.extend_from_slice(b"},\"flag\":0,\"language\":\"JAVA\",\"opaque\":");
                self.opaque_at = self.out.len();
                push_int(self.out, i64::from(self.opaque));
                self.out.extend_from_slice(b",\"serializeTypeCurrentRPC\":\"JSON\",\"version\":");
                push_int(self.out, i64::from(VERSION));
                self.out.push(b'}');
            }
            Serialization::Binary => {
                let ext_bytes = (self.out.len() - self.ext_length_at - 4) as u32;
                put(self.out, self.ext_length_at, &ext_bytes.to_be_bytes());
            }
        }
        let header_bytes = (self.out.len() - self.start - 8) as u32;
        let kind: u32 = match self.serialization {
            Serialization::Json => 0,
            Serialization::Binary => 1,
        };
        let length = header_bytes + 4 + body_bytes as u32;
        put(self.out, self.start, &length.to_be_bytes());
        put(self.out, self.start + 4, &(kind << 24 | header_bytes).to_be_bytes());
        self.opaque_at - self.start
    }
}

/// Overwrites `out[at..]` with `bytes`, which the writer reserved before.
pub fn put(out: &mut [u8], at: usize, bytes: &[u8]) {
    out[at..at + bytes.len()].copy_from_slice(bytes);
}

/// Overwrites the opaque of a frame; `opaque` must have ten digits.
pub fn put_opaque(out: &mut [u8], at: usize, serialization: Serialization, opaque: i32) {
    match serialization {
        Serialization::Json => put_digits(out, at, 10, opaque as u64),
        Serialization::Binary => put(out, at, &opaque.to_be_bytes()),
    }
}

/// Overwrites `width` bytes with the lowest decimal digits of `value`.
pub fn put_digits(out: &mut [u8], at: usize, width: usize, mut value: u64) {
    for digit in out[at..at + width].iter_mut().rev() {
        *digit = b'0' + (value % 10) as u8;
        value /= 10;
    }
}

/// Overwrites 16 bytes with `value` in hexadecimal.
pub fn put_hex(out: &mut [u8], at: usize, value: u64) {
    const HEX: &[u8; 16] = b"0123456789ABCDEF";
    for (index, digit) in out[at..at + 16].iter_mut().enumerate() {
        *digit = HEX[(value >> (60 - 4 * index)) as usize & 15];
    }
}

fn push_int(out: &mut Vec<u8>, value: i64) {
    out.extend_from_slice(itoa::Buffer::new().format(value).as_bytes());
}

fn push_escaped(out: &mut Vec<u8>, value: &str) {
    for character in value.chars() {
        match character {
            '"' => out.extend_from_slice(b"\\\""),
            '\\' => out.extend_from_slice(b"\\\\"),
            '\0'..='\x1f' => {
                out.extend_from_slice(format!("\\u{:04X}", character as u32).as_bytes());
            }
            _ => {
                let mut utf8 = [0; 4];
                out.extend_from_slice(character.encode_utf8(&mut utf8).as_bytes());
            }
        }
    }
}

/// Size of the frame at the start of `head`, or `None` while its length field is incomplete.
pub fn frame_size(head: &[u8]) -> Result<Option<usize>, FrameError> {
    let Some(field) = head.first_chunk::<4>() else {
        return Ok(None);
    };
    let length = i32::from_be_bytes(*field);
    let size = i64::from(length) + 4;
    if length < 4 || size > FRAME_BYTES_MAX as i64 {
        return Err(FrameError::Length(i64::from(length)));
    }
    Ok(Some(size as usize))
}

/// One reply, read in place.
#[derive(Debug)]
pub struct Reply<'a> {
    pub code: i32,
    pub opaque: i32,
    pub body: &'a [u8],
    serialization: Serialization,
    header: &'a [u8],
}

impl<'a> Reply<'a> {
    /// Reads a whole frame, its length field included.
    pub fn scan(frame: &'a [u8]) -> Result<Self, FrameError> {
        let (info, rest) = frame
            .get(4..)
            .and_then(|rest| rest.split_first_chunk::<4>())
            .ok_or(FrameError::Header("frame is shorter than its lengths"))?;
        let info = u32::from_be_bytes(*info);
        let (header, body) = rest
            .split_at_checked((info & 0xff_ffff) as usize)
            .ok_or(FrameError::Header("header is longer than its frame"))?;
        let (serialization, code, opaque) = match info >> 24 {
            0 => {
                let (code, opaque) = scan_json(header)
                    .or_else(|| parse_json(header))
                    .ok_or(FrameError::Header("no code or opaque in the JSON header"))?;
                (Serialization::Json, code, opaque)
            }
            1 => {
                let fixed = header.first_chunk::<21>().ok_or(FrameError::Header("binary header is too short"))?;
                let code = i32::from(i16::from_be_bytes([fixed[0], fixed[1]]));
                let opaque = i32::from_be_bytes([fixed[5], fixed[6], fixed[7], fixed[8]]);
                (Serialization::Binary, code, opaque)
            }
            _ => return Err(FrameError::Header("unknown serialisation type")),
        };
        Ok(Self { code, opaque, body, serialization, header })
    }

    /// An ext field.
    pub fn ext_text(&self, key: &str) -> Option<Cow<'a, str>> {
        match self.serialization {
            Serialization::Json => match scan_json_ext(self.header, key) {
                Some(value) => Some(Cow::Borrowed(value)),
                None => {
                    let header: serde_json::Value = serde_json::from_slice(self.header).ok()?;
                    Some(Cow::Owned(header.get("extFields")?.get(key)?.as_str()?.to_owned()))
                }
            },
            Serialization::Binary => std::str::from_utf8(binary_ext(self.header, key)?).ok().map(Cow::Borrowed),
        }
    }

    /// An ext field that holds an integer.
    pub fn ext_int(&self, key: &str) -> Option<i64> {
        self.ext_text(key)?.parse().ok()
    }

    /// The text that explains an error; empty when there is none.
    pub fn remark(&self) -> String {
        match self.serialization {
            Serialization::Json => serde_json::from_slice::<serde_json::Value>(self.header)
                .ok()
                .and_then(|header| Some(header.get("remark")?.as_str()?.to_owned()))
                .unwrap_or_default(),
            Serialization::Binary => binary_remark(self.header)
                .map(|remark| String::from_utf8_lossy(remark).into_owned())
                .unwrap_or_default(),
        }
    }
}

/// Code and opaque of a header as the stock encoder writes it: `code` first, `opaque` near the end.
fn scan_json(header: &[u8]) -> Option<(i32, i32)> {
    let code = leading_int(header.strip_prefix(b"{\"code\":")?)?;
    let mut end = header.len();
    // Inside a string the quotes would be escaped, so this pattern is always the member itself.
    while let Some(at) = memchr::memrchr(b'q', header.get(..end)?) {
        let found = header.get(at.checked_sub(4)?..)?;
        if let Some(rest) = found.strip_prefix(b"\"opaque\":") {
            return Some((code, leading_int(rest)?));
        }
        end = at;
    }
    None
}

#[cold]
fn parse_json(header: &[u8]) -> Option<(i32, i32)> {
    let header: serde_json::Value = serde_json::from_slice(header).ok()?;
    let member = |name| i32::try_from(header.get(name)?.as_i64()?).ok();
    Some((member("code").unwrap_or(0), member("opaque")?))
}

/// The value of an ext field without escapes in it.
fn scan_json_ext<'a>(header: &'a [u8], key: &str) -> Option<&'a str> {
    let mut rest = header;
    loop {
        let at = memchr::memmem::find(rest, key.as_bytes())?;
        let is_quoted = at > 0 && rest.get(at - 1) == Some(&b'"');
        rest = rest.get(at + key.len()..)?;
        if let (true, Some(value)) = (is_quoted, rest.strip_prefix(b"\":\"")) {
            let value = value.get(..memchr::memchr2(b'"', b'\\', value)?)?;
            let is_whole = rest.get(3 + value.len()) == Some(&b'"');
            return std::str::from_utf8(value).ok().filter(|_| is_whole);
        }
    }
}

fn leading_int(text: &[u8]) -> Option<i32> {
    let (is_negative, digits) = match text.strip_prefix(b"-") {
        Some(digits) => (true, digits),
        None => (false, text),
    };
    let count = digits.iter().take_while(|byte| byte.is_ascii_digit()).count();
    if count == 0 || count > 10 {
        return None;
    }
    let value = digits[..count].iter().fold(0i64, |value, digit| value * 10 + i64::from(digit - b'0'));
    i32::try_from(if is_negative { -value } else { value }).ok()
}

fn binary_remark(header: &[u8]) -> Option<&[u8]> {
    let length = u32::from_be_bytes(*header.get(13..)?.first_chunk()?) as usize;
    header.get(17..)?.get(..length)
}

fn binary_ext<'a>(header: &'a [u8], key: &str) -> Option<&'a [u8]> {
    let mut rest = header.get(17 + binary_remark(header)?.len() + 4..)?;
    while !rest.is_empty() {
        let (length, after) = rest.split_first_chunk::<2>()?;
        let (name, after) = after.split_at_checked(u16::from_be_bytes(*length) as usize)?;
        let (length, after) = after.split_first_chunk::<4>()?;
        let (value, after) = after.split_at_checked(u32::from_be_bytes(*length) as usize)?;
        if name == key.as_bytes() {
            return Some(value);
        }
        rest = after;
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reply(header: &str, body: &[u8]) -> Vec<u8> {
        let mut frame = ((header.len() + 4 + body.len()) as u32).to_be_bytes().to_vec();
        frame.extend_from_slice(&(header.len() as u32).to_be_bytes());
        frame.extend_from_slice(header.as_bytes());
        frame.extend_from_slice(body);
        frame
    }

    #[test]
    fn json_request_is_strict_json_with_patchable_opaque() {
        let mut out = b"before".to_vec();
        let mut writer = FrameWriter::begin(&mut out, Serialization::Json, request::SEND_MESSAGE_V2, OPAQUE_FIRST);
        writer.text("b", "T");
        let properties_at = writer.text("i", "KEYS\u{1}k\u{2}");
        let opaque_at = writer.finish(2);
        out.extend_from_slice(b"hi");
        let frame = &mut out[6..];
        put_opaque(frame, opaque_at, Serialization::Json, OPAQUE_FIRST + 7);
        assert_eq!(frame_size(frame).unwrap(), Some(frame.len()));
        assert!(frame[properties_at..].starts_with(b"KEYS\\u0001k\\u0002\""));
        let header: serde_json::Value = serde_json::from_slice(&frame[8..frame.len() - 2]).unwrap();
        assert_eq!(header["code"], 310);
        assert_eq!(header["opaque"], 1_000_000_007);
        assert_eq!(header["extFields"]["i"], "KEYS\u{1}k\u{2}");
        assert_eq!(header["version"], 513);
    }

    #[test]
    fn binary_request_has_the_layout_of_the_reference_encoder() {
        let mut out = Vec::new();
        let mut writer = FrameWriter::begin(&mut out, Serialization::Binary, 310, OPAQUE_FIRST);
        assert_eq!(writer.text("a", "pg"), 36);
        let opaque_at = writer.finish(2);
        put_opaque(&mut out, opaque_at, Serialization::Binary, 7);
        out.extend_from_slice(b"hi");
        let expected = [
            0, 0, 0, 36, 1, 0, 0, 30, 0x01, 0x36, 0, 0x02, 0x01, 0, 0, 0, 7, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 9, 0, 1,
            b'a', 0, 0, 0, 2, b'p', b'g', b'h', b'i',
        ];
        assert_eq!(out, expected);
    }

    #[test]
    fn reply_of_the_reference_broker_is_scanned_in_place() {
        let frame = reply(
            r#"{"code":0,"extFields":{"queueId":"3","msgId":"7F","queueOffset":"-12"},"flag":1,"language":"JAVA","opaque":1000000007,"serializeTypeCurrentRPC":"JSON","version":479}"#,
            b"xy",
        );
        let reply = Reply::scan(&frame).unwrap();
        assert_eq!((reply.code, reply.opaque, reply.body), (0, 1_000_000_007, &b"xy"[..]));
        assert_eq!(reply.ext_int("queueOffset"), Some(-12));
        assert_eq!(reply.ext_int("offset"), None);
        assert!(scan_json(reply.header).is_some());
    }

    #[test]
    fn error_reply_whose_remark_names_opaque_is_not_confused() {
        let frame = reply(
            r#"{"code":1,"flag":1,"language":"JAVA","opaque":-3,"remark":"bad \"opaque\":9 q","version":479}"#,
            b"",
        );
        let reply = Reply::scan(&frame).unwrap();
        assert_eq!((reply.code, reply.opaque), (1, -3));
        assert_eq!(reply.remark(), "bad \"opaque\":9 q");
    }

    #[test]
    fn header_in_another_order_takes_the_slow_path() {
        let frame = reply(r#"{ "opaque" : 5, "code" : 19 }"#, b"");
        let reply = Reply::scan(&frame).unwrap();
        assert_eq!((reply.code, reply.opaque), (19, 5));
    }

    #[test]
    fn binary_reply_gives_fields_and_remark() {
        let mut frame = Vec::new();
        let mut writer = FrameWriter::begin(&mut frame, Serialization::Binary, 21, 9);
        writer.text("minOffset", "0");
        writer.int("nextBeginOffset", 44);
        writer.finish(0);
        let reply = Reply::scan(&frame).unwrap();
        assert_eq!((reply.code, reply.opaque), (21, 9));
        assert_eq!(reply.ext_int("nextBeginOffset"), Some(44));
        assert_eq!(reply.remark(), "");
    }

    #[test]
    fn every_cut_and_flipped_byte_is_refused_or_read_without_panic() {
        let frame = reply(r#"{"code":0,"opaque":5}"#, b"body");
        for length in 0..frame.len() {
            let _ = frame_size(&frame[..length]);
            let _ = Reply::scan(&frame[..length]).map(|reply| reply.remark());
        }
        for at in 0..frame.len() {
            let mut broken = frame.clone();
            broken[at] ^= 0xff;
            let _ = frame_size(&broken);
            let _ = Reply::scan(&broken).map(|reply| (reply.ext_int("a"), reply.remark()));
        }
        assert!(frame_size(&[0xff, 0, 0, 0]).is_err());
        assert!(frame_size(&[0x01, 0, 0, 0]).is_err());
    }

    #[test]
    fn digits_and_hex_fill_their_width() {
        let mut out = *b"................";
        put_digits(&mut out, 0, 5, 42);
        assert_eq!(&out[..6], b"00042.");
        put_hex(&mut out, 0, 0x1F);
        assert_eq!(&out, b"000000000000001F");
    }
}
