//! Sends as the Java client writes them, decoded in one pass.
//!
//! The general decoder validates a header first and types its fields afterwards; for the one request that makes up
//! nearly all traffic that is twice the work. This path reads a V2 send (310, 320) with one-letter fields and the
//! members in the order of the reference's writer, and gives up at anything else. What it reads, the general decoder
//! reads in the same way (a property test holds them together).
#![forbid(unsafe_code)]

use super::send::SendHeader;
use crate::ext::ExtFields;
use crate::frame::{Frame, Language, PREFIX_BYTES, Serialization};
use crate::json::scan::Scanner;

const SINGLE: &[u8] = b"{\"code\":310,\"extFields\":{";
const BATCH: &[u8] = b"{\"code\":320,\"extFields\":{";

impl<'a> SendHeader<'a> {
    /// Decodes a whole frame and its header at once; `None` sends the caller to [`Frame::decode`]. The frame's ext
    /// fields are left empty: the header holds them all.
    ///
    /// Cost: one pass, no allocation.
    pub fn decode_frame(bytes: &'a [u8]) -> Option<(Frame<'a>, Self)> {
        let (prefix, rest) = bytes.split_first_chunk::<PREFIX_BYTES>()?;
        let [_, _, _, _, kind, len @ ..] = *prefix;
        let header_bytes = u32::from_be_bytes([0, len[0], len[1], len[2]]) as usize;
        let (header, body) = rest.split_at_checked(header_bytes)?;
        if kind != Serialization::Json as u8 {
            return None;
        }
        let code = match header.get(..SINGLE.len())? {
            SINGLE => 310,
            BATCH => 320,
            _ => return None,
        };
        let text = str::from_utf8(header).ok()?;
        let mut scanner = Scanner::new(text.get(SINGLE.len()..)?);
        let header = fields(&mut scanner)?;
        let mut frame = Frame {
            code,
            language: Language::Java,
            version: 0,
            opaque: 0,
            flag: 0,
            remark: None,
            serialization: Serialization::Json,
            ext: ExtFields::default(),
            body,
        };
        scanner.literal(b",\"flag\":")?;
        frame.flag = scanner.int()?;
        scanner.literal(b",\"language\":\"JAVA\",\"opaque\":")?;
        frame.opaque = scanner.int()?;
        scanner.literal(b",\"serializeTypeCurrentRPC\":\"JSON\",\"version\":")?;
        frame.version = scanner.int()?;
        scanner.literal(b"}")?;
        scanner.is_at_end().then_some((frame, header))
    }
}

/// The one-letter fields up to the closing brace.
fn fields<'a>(scanner: &mut Scanner<'a>) -> Option<SendHeader<'a>> {
    let (mut group, mut topic, mut default_topic, mut properties) = (None, None, None, None);
    let (mut queues, mut queue_id, mut sys_flag, mut born, mut flag) = (None, None, None, None, None);
    let (mut reconsume_times, mut max_reconsume_times, mut unit_mode, mut batch) = (0, None, false, false);
    loop {
        match scanner.letter_key()? {
            b'a' => group = Some(scanner.string()?),
            b'b' => topic = Some(scanner.string()?),
            b'c' => default_topic = Some(scanner.string()?),
            b'd' => queues = Some(number(scanner)?),
            b'e' => queue_id = Some(number(scanner)?),
            b'f' => sys_flag = Some(number(scanner)?),
            b'g' => born = Some(scanner.quoted_int()?),
            b'h' => flag = Some(number(scanner)?),
            b'i' => properties = Some(scanner.string()?),
            b'j' => reconsume_times = number(scanner)?,
            b'k' => unit_mode = scanner.quoted_bool()?,
            b'l' => max_reconsume_times = Some(number(scanner)?),
            b'm' => batch = scanner.quoted_bool()?,
            _ => drop(scanner.string()?),
        }
        if !scanner.take(b',') {
            break;
        }
    }
    scanner.literal(b"}")?;
    Some(SendHeader {
        producer_group: group?,
        topic: topic?,
        default_topic: default_topic?,
        default_topic_queue_nums: queues?,
        queue_id: queue_id?,
        sys_flag: sys_flag?,
        born_timestamp: born?,
        flag: flag?,
        properties,
        reconsume_times,
        unit_mode,
        max_reconsume_times,
        batch,
    })
}

#[inline(always)]
fn number(scanner: &mut Scanner<'_>) -> Option<i32> {
    i32::try_from(scanner.quoted_int()?).ok()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::reply::FrameWriter;

    fn send(code: i32, oneway: bool, pairs: &[(String, String)]) -> Vec<u8> {
        let mut bytes = Vec::new();
        FrameWriter::request(&mut bytes, Serialization::Json, code, -7, oneway, 2, |ext| {
            pairs.iter().for_each(|(key, value)| ext.text(key, value));
        });
        bytes.extend_from_slice(b"hi");
        bytes
    }

    fn pair(key: &str, value: &str) -> (String, String) {
        (key.into(), value.into())
    }

    fn agree(bytes: &[u8]) -> bool {
        let Some((fast, header)) = SendHeader::decode_frame(bytes) else { return false };
        let frame = Frame::decode(bytes).unwrap();
        assert_eq!(header, SendHeader::decode(&frame).unwrap());
        assert_eq!(
            (fast.code, fast.opaque, fast.flag, fast.version),
            (frame.code, frame.opaque, frame.flag, frame.version)
        );
        assert_eq!((fast.body, fast.is_oneway()), (frame.body, frame.is_oneway()));
        true
    }

    fn usual() -> Vec<(String, String)> {
        [
            ("a", "pg"),
            ("b", "T"),
            ("c", "TBW102"),
            ("d", "4"),
            ("e", "0"),
            ("f", "0"),
            ("g", "1700000000000"),
            ("h", "0"),
        ]
        .iter()
        .chain(&[("i", "KEYS\u{1}k \"\u{2}TAGS\u{1}中\u{2}"), ("j", "0"), ("k", "false"), ("m", "false")])
        .map(|(key, value)| pair(key, value))
        .collect()
    }

    #[test]
    fn what_the_java_client_sends_takes_this_path() {
        for code in [310, 320] {
            assert!(agree(&send(code, true, &usual())));
        }
        assert!(!agree(&send(10, false, &usual())), "other codes do not");
        assert!(!agree(&send(310, false, &usual()[..3])), "nor do headers that lack a field");
        assert!(SendHeader::decode_frame(b"").is_none());
    }

    proptest! {
        #[test]
        fn both_decoders_read_the_same(
            changes in proptest::collection::vec((0_usize..12, ".{0,12}"), 0..3),
            extra in proptest::collection::vec(("[a-z]{1,2}", "[0-9a-z\"\\\\]{0,4}"), 0..3),
        ) {
            let mut pairs = usual();
            for (at, value) in changes {
                pairs[at].1 = value;
            }
            pairs.extend(extra);
            agree(&send(310, false, &pairs));
        }

        #[test]
        fn junk_never_panics(text in ".{0,120}", cut in 0_usize..300) {
            let mut bytes = send(310, false, &usual());
            bytes.truncate(cut.min(bytes.len()));
            SendHeader::decode_frame(&bytes);
            let mut bytes = vec![0, 0, 0, 0, 0, 0, 0, (SINGLE.len() + text.len()).min(255) as u8];
            bytes.extend_from_slice(SINGLE);
            bytes.extend_from_slice(text.as_bytes());
            SendHeader::decode_frame(&bytes);
        }
    }
}
