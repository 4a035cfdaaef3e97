use super::*;
use crate::header::send::SendHeader;
use crate::reply::{FrameHead, FrameWriter};
use proptest::prelude::*;

/// SEND_MESSAGE_V2 as the original Java encoder writes it.
const GOLDEN_JSON: &str = r#"{"code":310,"extFields":{"a":"pg","b":"T","c":"TBW102","d":"4","e":"0","f":"0","g":"1700000000000","h":"0","i":"KEYS\u0001k\u0002","j":"0","k":"false","m":"false"},"flag":0,"language":"JAVA","opaque":7,"serializeTypeCurrentRPC":"JSON","version":479}"#;

const GOLDEN_BINARY: &str = "0000009b 01000095 0136 00 01df 00000007 00000000 00000000 00000080
    0001 61 00000002 7067 0001 62 00000001 54 0001 63 00000006 544257313032 0001 64 00000001 34
    0001 65 00000001 30 0001 66 00000001 30 0001 67 0000000d 31373030303030303030303030 0001 68 00000001 30
    0001 69 00000007 4b455953016b02 0001 6a 00000001 30 0001 6b 00000005 66616c7365
    0001 6d 00000005 66616c7365 6869";

fn golden_json() -> Vec<u8> {
    let mut frame = vec![0, 0, 0, 0xff, 0, 0, 0, 0xf9];
    frame.extend_from_slice(GOLDEN_JSON.as_bytes());
    frame.extend_from_slice(b"hi");
    frame
}

fn golden_binary() -> Vec<u8> {
    let digits: Vec<u8> = GOLDEN_BINARY
        .bytes()
        .filter(|byte| !byte.is_ascii_whitespace())
        .collect();
    digits
        .chunks(2)
        .map(|pair| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap())
        .collect()
}

fn json(header: &str) -> Vec<u8> {
    let mut frame = (4 + header.len() as u32).to_be_bytes().to_vec();
    frame.extend_from_slice(&(header.len() as u32).to_be_bytes());
    frame.extend_from_slice(header.as_bytes());
    frame
}

fn binary(header: &[u8], body: &[u8]) -> Vec<u8> {
    let mut frame = (4 + header.len() as u32 + body.len() as u32)
        .to_be_bytes()
        .to_vec();
    frame.extend_from_slice(&(1 << 24 | header.len() as u32).to_be_bytes());
    frame.extend_from_slice(header);
    frame.extend_from_slice(body);
    frame
}

fn code_of(header: &str) -> Result<i32, FrameError> {
    Frame::decode(&json(header)).map(|frame| frame.code)
}

#[test]
fn golden_frames_decode() {
    for bytes in [golden_json(), golden_binary()] {
        assert_eq!(frame_size(&bytes[..4]), Ok(Some(bytes.len())));
        let frame = Frame::decode(&bytes).unwrap();
        assert_eq!(
            (frame.code, frame.opaque, frame.version, frame.flag),
            (310, 7, 479, 0)
        );
        assert_eq!(
            (frame.language, frame.remark.as_ref(), frame.body),
            (Language::Java, None, &b"hi"[..])
        );
        let send = SendHeader::decode(&frame).unwrap();
        assert_eq!(send.born_timestamp, 1_700_000_000_000);
        assert_eq!(send.properties, Some(Text::plain("KEYS\u{1}k\u{2}")));
        assert_eq!(send.max_reconsume_times, None);
    }
}

#[test]
fn golden_frames_are_what_we_write() {
    for bytes in [golden_json(), golden_binary()] {
        let frame = Frame::decode(&bytes).unwrap();
        let head = FrameHead {
            code: 310,
            language: Language::Java,
            version: 479,
            opaque: 7,
            flag: 0,
            remark: None,
        };
        let send = SendHeader::decode(&frame).unwrap();
        let mut out = Vec::new();
        FrameWriter::write(&mut out, frame.serialization, &head, 2, |ext| {
            send.encode_v2(ext)
        });
        out.extend_from_slice(b"hi");
        assert_eq!(out, bytes);
    }
}

#[test]
fn size_limits_are_those_of_the_reference() {
    let size = |length: i32| frame_size(&length.to_be_bytes());
    assert_eq!(size(16_777_212), Ok(Some(FRAME_BYTES_MAX)));
    for length in [16_777_213, 0, 3, -1, i32::MIN, i32::MAX] {
        assert_eq!(size(length), Err(FrameError::Length { length }));
    }
    assert_eq!(frame_size(&[0, 0, 0]), Ok(None));
    assert!(frame_size(b"GET / HTTP/1.1").is_err());
}

#[test]
fn broken_frames_are_refused() {
    let good = golden_json();
    assert!(matches!(
        Frame::decode(&good[..good.len() - 1]),
        Err(FrameError::Incomplete { .. })
    ));
    let mut other = good.clone();
    other[4] = 2;
    assert_eq!(
        Frame::decode(&other).unwrap_err(),
        FrameError::Serialization(2)
    );
    let mut long_header = good;
    long_header[5] = 1;
    assert!(matches!(
        Frame::decode(&long_header),
        Err(FrameError::HeaderLength { .. })
    ));
    assert!(
        Frame::decode(&[0, 0, 0, 4, 0, 0, 0, 0]).is_err(),
        "an empty JSON header"
    );
}

#[test]
fn json_tolerance_is_that_of_the_reference() {
    assert_eq!(code_of("{}"), Ok(0));
    for header in [
        r#"{"Code":10}"#,
        r#"{code:10}"#,
        r#"{'code':10,}"#,
        r#" /* c */ {"code":"10"} "#,
        r#"{"code":9,"code":10}"#,
        r#"{"unknown":{"a":[1,null]},"body":"x","code":10}"#,
        r#"{"code":10,"remark":null,"extFields":null}"#,
        r#"{"code":10,"language":"KLINGON"}"#,
        r#"{"code":10,"language":null}"#,
    ] {
        assert_eq!(code_of(header), Ok(10), "{header}");
    }
    for header in [
        "",
        "[]",
        "{",
        r#"{"opaque":2147483648}"#,
        r#"{"language":14}"#,
        r#"{"code":10}x"#,
    ] {
        assert!(code_of(header).is_err(), "{header}");
    }
}

#[test]
fn lenient_members_keep_their_meaning() {
    let bytes = json(
        r#"{"flag":"2","language":12,"version":479,"opaque":-3,"remark":"r","extFields":{"a":1,"b":true,"c":1.5,"d":null,"e":{"x":[1]},"f":"g"}}"#,
    );
    let frame = Frame::decode(&bytes).unwrap();
    assert!(frame.is_oneway());
    assert_eq!(
        (frame.language, frame.version, frame.opaque),
        (Language::Rust, 479, -3)
    );
    assert_eq!(frame.remark, Some(Text::plain("r")));
    let pairs: Vec<_> = frame
        .ext
        .iter()
        .map(|(key, value)| format!("{key}={value}"))
        .collect();
    assert_eq!(pairs, ["a=1", "b=true", "c=1.5", r#"e={"x":[1]}"#, "f=g"]);
}

#[test]
fn invalid_utf8_reads_as_replacement_characters() {
    let mut bytes = json(r#"{"code":10,"extFields":{"a":"?"}}"#);
    let at = bytes.iter().position(|byte| *byte == b'?').unwrap();
    bytes[at] = 0xff;
    assert_eq!(
        Frame::decode(&bytes).unwrap().ext.get("a"),
        Some(Text::plain("\u{fffd}"))
    );
}

#[test]
fn binary_lengths_are_checked() {
    let head = |remark_len: i32, rest: &[u8]| {
        let mut header = vec![0, 10, 12, 1, 0xdf, 0, 0, 0, 1, 0, 0, 0, 0];
        header.extend_from_slice(&remark_len.to_be_bytes());
        header.extend_from_slice(rest);
        header
    };
    let good = binary(&head(2, &[b'o', b'k', 0, 0, 0, 0]), b"body");
    let frame = Frame::decode(&good).unwrap();
    assert_eq!((frame.language, frame.body), (Language::Rust, &b"body"[..]));
    assert_eq!(frame.remark, Some(Text::plain("ok")));
    assert!(!frame.ext.is_present());
    for broken in [
        head(-1, &[0, 0, 0, 0]),
        head(1000, &[0, 0, 0, 0]),
        head(0, &[0x7f, 0, 0, 0]),
        head(0, &[0xff, 0xff, 0xff, 0xff]),
        head(0, &[0, 0, 0, 7, 0xff, 0xff, 0, 0, 0, 0, 0]),
        head(0, &[0, 0, 0, 7, 0, 1, b'a', 0, 0, 0, 9]),
        head(0, &[]),
    ] {
        assert!(Frame::decode(&binary(&broken, b"")).is_err(), "{broken:?}");
    }
}

proptest! {
    #[test]
    fn junk_never_panics(kind in 0u8..3, junk in proptest::collection::vec(any::<u8>(), 0..200)) {
        let mut bytes = (4 + junk.len() as u32).to_be_bytes().to_vec();
        bytes.extend_from_slice(&[kind, 0, 0, (junk.len() / 2) as u8]);
        bytes.extend_from_slice(&junk);
        if let Ok(frame) = Frame::decode(&bytes) {
            let _count = frame.ext.iter().count();
        }
        let _either = Frame::decode(&junk);
    }

    #[test]
    fn one_wrong_byte_never_panics(at in 4usize..200, byte: u8, is_binary: bool) {
        let mut bytes = if is_binary { golden_binary() } else { golden_json() };
        if let Some(slot) = bytes.get_mut(at) {
            *slot = byte;
        }
        if let Ok(frame) = Frame::decode(&bytes) {
            let _either = SendHeader::decode(&frame);
            let _count = frame.ext.iter().map(|(_, value)| value.to_cow().len()).sum::<usize>();
        }
    }

    #[test]
    fn decode_undoes_encode(
        is_binary: bool,
        code in 0i32..32_768,
        opaque: i32,
        flag: i32,
        version in 0i32..32_768,
        language in (0i64..14).prop_map(|ordinal| Language::from_ordinal(ordinal).unwrap()),
        remark in proptest::option::of("[^\\x00]{1,20}"),
        values in proptest::collection::vec(".{1,20}", 0..6),
        body in proptest::collection::vec(any::<u8>(), 0..20),
    ) {
        const KEYS: [&str; 6] = ["a", "b", "topic", "MSG_REGION", "x1", "z"];
        let serialization = if is_binary { Serialization::Binary } else { Serialization::Json };
        let head = FrameHead { code, language, version, opaque, flag, remark: remark.as_deref() };
        let mut out = Vec::new();
        FrameWriter::write(&mut out, serialization, &head, body.len(), |ext| {
            for (key, value) in KEYS.iter().zip(&values) {
                ext.text(key, value);
            }
        });
        out.extend_from_slice(&body);
        let frame = Frame::decode(&out).unwrap();
        prop_assert_eq!((frame.code, frame.opaque, frame.flag, frame.version), (code, opaque, flag, version));
        prop_assert_eq!(frame.language, language);
        prop_assert_eq!(frame.remark.map(|text| text.to_string()), remark);
        prop_assert_eq!(frame.body, &body[..]);
        let pairs: Vec<_> = frame.ext.iter().map(|(key, value)| (key.to_string(), value.to_string())).collect();
        let expected: Vec<_> = KEYS.iter().zip(&values).map(|(key, value)| (key.to_string(), value.clone())).collect();
        prop_assert_eq!(pairs, expected);
    }
}
