//! Where a send goes, read without decoding its frame: a core that only passes a frame on need not parse it.
#![forbid(unsafe_code)]

use memchr::memmem;

use super::PREFIX_BYTES;

/// The queue a send names, as far as a glance can tell. The core that owns the queue decodes the frame in full and
/// decides; a wrong guess costs a detour, never a wrong answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SendRoute<'a> {
    pub topic: &'a str,
    pub queue_id: u32,
    pub is_oneway: bool,
}

/// Looks into a JSON frame of SEND_MESSAGE_V2 (310) or SEND_BATCH_MESSAGE (320) as the Java client writes them: members
/// in alphabetical order, no blanks. `None` for everything else.
///
/// A quote inside a JSON string is escaped, so the searched texts can only be members.
pub fn peek_send(frame: &[u8]) -> Option<SendRoute<'_>> {
    let info: [u8; 4] = frame.get(4..PREFIX_BYTES)?.try_into().ok()?;
    // The highest byte is the serialisation type: 0 is JSON.
    let header_bytes = usize::try_from(u32::from_be_bytes(info)).ok()?;
    let header = frame.get(PREFIX_BYTES..)?.get(..header_bytes.min(1 << 24))?;
    let rest = header.strip_prefix(b"{\"code\":310,\"extFields\":{").or_else(|| {
        header.strip_prefix(b"{\"code\":320,\"extFields\":{") //
    })?;
    let (topic, rest) = value_of(rest, b"\"b\":\"")?;
    let (queue_id, rest) = value_of(rest, b"\"e\":\"")?;
    let flag = rest.get(memmem::rfind(rest, b"},\"flag\":")? + 9..)?;
    let is_oneway = match flag.first_chunk::<2>()? {
        b"0," => false,
        b"2," => true,
        _ => return None,
    };
    if topic.contains(&b'\\') {
        return None;
    }
    let queue_id = str::from_utf8(queue_id).ok()?.parse().ok()?;
    Some(SendRoute { topic: str::from_utf8(topic).ok()?, queue_id, is_oneway })
}

/// The plain string behind `key`, and what follows it.
fn value_of<'a>(text: &'a [u8], key: &[u8]) -> Option<(&'a [u8], &'a [u8])> {
    let start = memmem::find(text, key)? + key.len();
    let text = text.get(start..)?;
    let end = memchr::memchr(b'"', text)?;
    Some((text.get(..end)?, text.get(end..)?))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::frame::{Frame, Serialization};
    use crate::header::send::SendHeader;
    use crate::reply::FrameWriter;

    fn frame(topic: &str, queue_id: i64, properties: &str, oneway: bool) -> Vec<u8> {
        let mut bytes = Vec::new();
        FrameWriter::request(&mut bytes, Serialization::Json, 310, 7, oneway, 2, |ext| {
            ext.text("a", "pg");
            ext.text("b", topic);
            ext.text("c", "TBW102");
            ext.int("d", 4);
            ext.int("e", queue_id);
            ext.int("f", 0);
            ext.int("g", 1);
            ext.int("h", 0);
            ext.text("i", properties);
        });
        bytes.extend_from_slice(b"hi");
        bytes
    }

    #[test]
    fn reads_what_the_java_client_writes() {
        let bytes = frame("T", 3, "KEYS\u{1}\"e\":\"9\u{2}", true);
        assert_eq!(peek_send(&bytes), Some(SendRoute { topic: "T", queue_id: 3, is_oneway: true }));
        assert_eq!(peek_send(&frame("T", -1, "", false)), None, "the broker picks the queue");
        assert_eq!(peek_send(&frame("a\"b\":\"", 3, "", false)), None, "escapes are left to the decoder");
        assert_eq!(peek_send(b""), None);
    }

    proptest! {
        #[test]
        fn agrees_with_the_decoder(topic in "[a-zA-Z%_\"\\\\-]{1,20}", queue: u16, properties in ".{0,40}", oneway: bool) {
            let bytes = frame(&topic, queue.into(), &properties, oneway);
            let decoded = Frame::decode(&bytes).unwrap();
            let header = SendHeader::decode(&decoded).unwrap();
            if let Some(route) = peek_send(&bytes) {
                prop_assert_eq!(route.topic, header.topic.to_cow());
                prop_assert_eq!(i64::from(route.queue_id), i64::from(header.queue_id));
                prop_assert_eq!(route.is_oneway, decoded.is_oneway());
            } else {
                prop_assert!(topic.contains(['"', '\\']));
            }
        }

        #[test]
        fn junk_never_panics(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let mut frame = vec![0, 0, 0, 0, 0, 0, 0, bytes.len() as u8];
            frame.extend_from_slice(b"{\"code\":310,\"extFields\":{");
            frame.extend_from_slice(&bytes);
            peek_send(&frame);
        }
    }
}
