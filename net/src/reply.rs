//! Writing frames: our responses, and the requests we send ourselves.
#![forbid(unsafe_code)]

use crate::frame::{Language, PREFIX_BYTES, SERVER_VERSION, Serialization};
use crate::json::escape;

/// Remarks are cut here: they may quote the request, and the header length has only 24 bits.
pub const REMARK_BYTES_MAX: usize = 32 * 1024;

/// Room made before a header is written.
const HEADER_BYTES_USUAL: usize = 512;

/// Everything of a header but the ext fields.
#[derive(Clone, Copy, Debug)]
pub struct FrameHead<'a> {
    /// Must fit 16 bits in a binary header; larger codes are truncated there, as in the reference.
    pub code: i32,
    pub language: Language,
    pub version: i32,
    pub opaque: i32,
    /// Bit 0: response. Bit 1: oneway.
    pub flag: i32,
    pub remark: Option<&'a str>,
}

/// Appends exactly one frame's length, headerInfo and header to a buffer. The caller appends
/// exactly `body_len` bytes of body itself.
///
/// Cost: no allocation but growth of the buffer.
pub struct FrameWriter;

impl FrameWriter {
    /// A response. The reference answers with `language` JAVA, which stock tools print.
    pub fn response(
        out: &mut Vec<u8>,
        serialization: Serialization,
        code: i32,
        opaque: i32,
        remark: Option<&str>,
        body_len: usize,
        ext: impl FnOnce(&mut ExtWriter<'_>),
    ) {
        let head = FrameHead { code, language: Language::Java, version: SERVER_VERSION, opaque, flag: 1, remark };
        Self::write(out, serialization, &head, body_len, ext);
    }

    /// A request of ours.
    pub fn request(
        out: &mut Vec<u8>,
        serialization: Serialization,
        code: i32,
        opaque: i32,
        oneway: bool,
        body_len: usize,
        ext: impl FnOnce(&mut ExtWriter<'_>),
    ) {
        let flag = if oneway { 2 } else { 0 };
        let head = FrameHead { code, language: Language::Java, version: SERVER_VERSION, opaque, flag, remark: None };
        Self::write(out, serialization, &head, body_len, ext);
    }

    /// Any frame. Ext fields keep the order in which `ext` writes them.
    pub fn write(
        out: &mut Vec<u8>,
        serialization: Serialization,
        head: &FrameHead<'_>,
        body_len: usize,
        ext: impl FnOnce(&mut ExtWriter<'_>),
    ) {
        // Enough for every usual header, so that the pieces below do not grow the buffer one by one.
        out.reserve(HEADER_BYTES_USUAL);
        let start = out.len();
        out.extend_from_slice(&[0; PREFIX_BYTES]);
        match serialization {
            Serialization::Json => write_json(out, head, ext),
            Serialization::Binary => write_binary(out, head, ext),
        }
        let header_bytes = out.len() - start - PREFIX_BYTES;
        assert!(header_bytes < 1 << 24, "a header of {header_bytes} bytes does not fit its length field");
        let length = i32::try_from(4 + header_bytes + body_len).expect("callers bound bodies far below 2 GiB");
        let info = (serialization as u32) << 24 | header_bytes as u32;
        out[start..start + 4].copy_from_slice(&length.to_be_bytes());
        out[start + 4..start + PREFIX_BYTES].copy_from_slice(&info.to_be_bytes());
    }
}

fn cut_remark(remark: &str) -> &str {
    let mut end = remark.len().min(REMARK_BYTES_MAX);
    while !remark.is_char_boundary(end) {
        end -= 1;
    }
    remark.get(..end).unwrap_or("")
}

fn write_json(out: &mut Vec<u8>, head: &FrameHead<'_>, ext: impl FnOnce(&mut ExtWriter<'_>)) {
    out.extend_from_slice(b"{\"code\":");
    push_int(out, head.code.into());
    let mut writer = ExtWriter { out, form: Form::Json { is_open: false } };
    ext(&mut writer);
    if matches!(writer.form, Form::Json { is_open: true }) {
        out.push(b'}');
    }
    out.extend_from_slice(b",\"flag\":");
    push_int(out, head.flag.into());
    out.extend_from_slice(b",\"language\":\"");
    out.extend_from_slice(head.language.name().as_bytes());
    out.extend_from_slice(b"\",\"opaque\":");
    push_int(out, head.opaque.into());
    if let Some(remark) = head.remark {
        out.extend_from_slice(b",\"remark\":");
        escape::write_quoted(out, cut_remark(remark));
    }
    out.extend_from_slice(b",\"serializeTypeCurrentRPC\":\"JSON\",\"version\":");
    push_int(out, head.version.into());
    out.push(b'}');
}

fn write_binary(out: &mut Vec<u8>, head: &FrameHead<'_>, ext: impl FnOnce(&mut ExtWriter<'_>)) {
    out.extend_from_slice(&(head.code as i16).to_be_bytes());
    out.push(head.language as u8);
    out.extend_from_slice(&(head.version as i16).to_be_bytes());
    out.extend_from_slice(&head.opaque.to_be_bytes());
    out.extend_from_slice(&head.flag.to_be_bytes());
    push_value(out, cut_remark(head.remark.unwrap_or("")).as_bytes());
    let ext_start = out.len();
    out.extend_from_slice(&[0; 4]);
    ext(&mut ExtWriter { out, form: Form::Binary });
    let ext_len = (out.len() - ext_start - 4) as u32;
    out[ext_start..ext_start + 4].copy_from_slice(&ext_len.to_be_bytes());
}

fn push_int(out: &mut Vec<u8>, value: i64) {
    out.extend_from_slice(itoa::Buffer::new().format(value).as_bytes());
}

/// Length i32, then the bytes.
fn push_value(out: &mut Vec<u8>, value: &[u8]) {
    out.extend_from_slice(&(value.len() as u32).to_be_bytes());
    out.extend_from_slice(value);
}

/// Appends ext fields to the frame being written. No allocation but growth of the buffer.
pub struct ExtWriter<'o> {
    out: &'o mut Vec<u8>,
    form: Form,
}

enum Form {
    Json { is_open: bool },
    Binary,
}

/// Ext fields encoded once, for replies that all begin with them.
pub struct ExtPrefix {
    json: Box<[u8]>,
    binary: Box<[u8]>,
}

impl ExtPrefix {
    /// At least one field.
    pub fn new(write: impl Fn(&mut ExtWriter<'_>)) -> Self {
        let encode = |form| {
            let mut out = Vec::new();
            write(&mut ExtWriter { out: &mut out, form });
            assert!(!out.is_empty(), "a prefix has fields");
            out.into_boxed_slice()
        };
        Self { json: encode(Form::Json { is_open: false }), binary: encode(Form::Binary) }
    }
}

impl ExtWriter<'_> {
    /// The first fields of a reply.
    ///
    /// # Panics
    /// If fields have been written before.
    pub fn begin_with(&mut self, prefix: &ExtPrefix) {
        match &mut self.form {
            Form::Json { is_open } => {
                assert!(!*is_open, "a prefix comes first");
                *is_open = true;
                self.out.extend_from_slice(&prefix.json);
            }
            Form::Binary => self.out.extend_from_slice(&prefix.binary),
        }
    }

    /// In a binary header an empty value reads back as absent.
    pub fn text(&mut self, key: &str, value: &str) {
        self.key(key);
        match self.form {
            Form::Json { .. } => escape::write_quoted(self.out, value),
            Form::Binary => push_value(self.out, value.as_bytes()),
        }
    }

    /// A value appended by `write`, known to be text that needs no escapes, such as hex digits.
    pub fn plain(&mut self, key: &str, write: impl FnOnce(&mut Vec<u8>)) {
        self.key(key);
        match self.form {
            Form::Json { .. } => {
                self.out.push(b'"');
                write(self.out);
                self.out.push(b'"');
            }
            Form::Binary => {
                let start = self.out.len();
                self.out.extend_from_slice(&[0; 4]);
                write(self.out);
                let length = (self.out.len() - start - 4) as u32;
                self.out[start..start + 4].copy_from_slice(&length.to_be_bytes());
            }
        }
    }

    pub fn int(&mut self, key: &str, value: i64) {
        self.bare(key, itoa::Buffer::new().format(value).as_bytes());
    }

    pub fn bool(&mut self, key: &str, value: bool) {
        self.bare(key, if value { b"true" } else { b"false" });
    }

    /// A value that needs no escapes.
    fn bare(&mut self, key: &str, value: &[u8]) {
        self.key(key);
        match self.form {
            Form::Json { .. } => {
                self.out.push(b'"');
                self.out.extend_from_slice(value);
                self.out.push(b'"');
            }
            Form::Binary => push_value(self.out, value),
        }
    }

    fn key(&mut self, key: &str) {
        match &mut self.form {
            Form::Json { is_open } => {
                let before: &[u8] = if *is_open { b",\"" } else { b",\"extFields\":{\"" };
                *is_open = true;
                self.out.extend_from_slice(before);
                // Keys are names from our own sources, which need no escapes.
                self.out.extend_from_slice(key.as_bytes());
                self.out.extend_from_slice(b"\":");
            }
            Form::Binary => {
                self.out.extend_from_slice(&(key.len() as u16).to_be_bytes());
                self.out.extend_from_slice(key.as_bytes());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::frame::Frame;

    fn header(out: &[u8]) -> &str {
        std::str::from_utf8(&out[PREFIX_BYTES..]).unwrap()
    }

    #[test]
    fn responses_equal_those_of_the_reference() {
        let mut out = Vec::new();
        FrameWriter::response(&mut out, Serialization::Json, 0, 7, None, 0, |_| {});
        assert_eq!(
            header(&out),
            r#"{"code":0,"flag":1,"language":"JAVA","opaque":7,"serializeTypeCurrentRPC":"JSON","version":513}"#
        );
        out.clear();
        FrameWriter::response(&mut out, Serialization::Json, 1, -3, Some("bad \"x\"\n/..."), 0, |ext| {
            ext.text("k", "v")
        });
        assert_eq!(
            header(&out),
            r#"{"code":1,"extFields":{"k":"v"},"flag":1,"language":"JAVA","opaque":-3,"remark":"bad \"x\"\n/...","serializeTypeCurrentRPC":"JSON","version":513}"#
        );
    }

    #[test]
    fn a_prefix_is_what_its_fields_would_be() {
        let prefix = ExtPrefix::new(|ext| {
            ext.text("region", "a \"b\"");
            ext.bool("on", true);
        });
        for serialization in [Serialization::Json, Serialization::Binary] {
            let (mut plain, mut prefixed) = (Vec::new(), Vec::new());
            FrameWriter::response(&mut plain, serialization, 0, 7, None, 0, |ext| {
                ext.text("region", "a \"b\"");
                ext.bool("on", true);
                ext.text("id", "0A0B");
                ext.int("n", 5);
            });
            FrameWriter::response(&mut prefixed, serialization, 0, 7, None, 0, |ext| {
                ext.begin_with(&prefix);
                ext.plain("id", |out| out.extend_from_slice(b"0A0B"));
                ext.int("n", 5);
            });
            assert_eq!(plain, prefixed);
        }
    }

    #[test]
    fn frames_follow_each_other_in_one_buffer() {
        let mut out = b"before".to_vec();
        for serialization in [Serialization::Json, Serialization::Binary] {
            let start = out.len();
            FrameWriter::request(&mut out, serialization, 40, 9, true, 4, |ext| {
                ext.text("consumerGroup", "g\u{1}");
                ext.int("n", i64::MIN);
                ext.bool("b", true);
            });
            out.extend_from_slice(b"body");
            let frame = Frame::decode(&out[start..]).unwrap();
            assert_eq!(
                (frame.code, frame.opaque, frame.serialization, frame.body),
                (40, 9, serialization, &b"body"[..])
            );
            assert!(frame.is_oneway() && !frame.is_response());
            assert!(frame.ext.get("consumerGroup").unwrap().eq_str("g\u{1}"));
            assert_eq!(frame.ext.get("n").unwrap().parse_i64(), Some(i64::MIN));
            assert!(frame.ext.get("b").unwrap().parse_bool());
        }
    }

    #[test]
    fn a_long_remark_is_cut_between_characters() {
        let mut out = Vec::new();
        FrameWriter::response(&mut out, Serialization::Binary, 1, 1, Some(&"中".repeat(REMARK_BYTES_MAX)), 0, |_| {});
        let remark = Frame::decode(&out).unwrap().remark.unwrap().to_string();
        assert_eq!(remark.len(), REMARK_BYTES_MAX / 3 * 3);
    }
}
