//! JSON string escapes: how we write them and how we undo them.
#![forbid(unsafe_code)]

use std::ops::ControlFlow;

use crate::word::{WORD_BYTES, equal_bytes};

const HEX: &[u8; 16] = b"0123456789ABCDEF";

/// Appends `text` in quotes, escaped exactly as the reference does: short escapes where JSON has
/// them, `\uXXXX` (upper case) for other control characters, U+007F..U+009F, U+2028 and U+2029;
/// everything else raw.
pub(crate) fn write_quoted(out: &mut Vec<u8>, text: &str) {
    out.push(b'"');
    let mut rest = text;
    // Plain ASCII, nearly all there is, is told without a branch per byte.
    if text.bytes().fold(true, |all, byte| all & is_plain(byte)) {
        out.extend_from_slice(text.as_bytes());
        rest = "";
    }
    while let Some((at, special)) = first_special(rest) {
        let (raw, tail) = rest.split_at(at);
        out.extend_from_slice(raw.as_bytes());
        write_escape(out, special);
        rest = tail.get(special.len_utf8()..).unwrap_or("");
    }
    out.extend_from_slice(rest.as_bytes());
    out.push(b'"');
}

fn is_plain(byte: u8) -> bool {
    (0x20..0x7f).contains(&byte) & (byte != b'"') & (byte != b'\\')
}

/// The first character that needs an escape. Plain ASCII goes byte by byte without decoding characters.
fn first_special(text: &str) -> Option<(usize, char)> {
    let plain = text.bytes().take_while(|byte| is_plain(*byte)).count();
    if plain == text.len() {
        return None;
    }
    let (at, c) = text.get(plain..)?.char_indices().find(|(_, c)| needs_escape(*c))?;
    Some((plain + at, c))
}

fn needs_escape(c: char) -> bool {
    matches!(c, '\0'..='\u{1f}' | '"' | '\\' | '\u{7f}'..='\u{9f}' | '\u{2028}' | '\u{2029}')
}

fn write_escape(out: &mut Vec<u8>, c: char) {
    let short = match c {
        '"' => b'"',
        '\\' => b'\\',
        '\u{8}' => b'b',
        '\t' => b't',
        '\n' => b'n',
        '\u{c}' => b'f',
        '\r' => b'r',
        other => {
            out.extend_from_slice(b"\\u");
            for shift in [12, 8, 4, 0] {
                out.push(HEX[(u32::from(other) >> shift & 0xf) as usize]);
            }
            return;
        }
    };
    out.extend_from_slice(&[b'\\', short]);
}

/// Reads the escape whose text after the backslash is `bytes`: the character it stands for and the
/// bytes it takes (without the backslash). A surrogate pair is one escape; half of one becomes
/// `?`, as Java writes it in UTF-8. `None`: not a JSON escape.
pub(crate) fn read_escape(bytes: &[u8]) -> Option<(char, usize)> {
    // What separates properties, so what most messages have several of.
    if let [b'u', b'0', b'0', b'0', digit @ b'0'..=b'9', ..] = bytes {
        return Some((char::from(digit - b'0'), 5));
    }
    let simple = match bytes.first()? {
        b'"' => '"',
        b'\\' => '\\',
        b'/' => '/',
        b'b' => '\u{8}',
        b't' => '\t',
        b'n' => '\n',
        b'f' => '\u{c}',
        b'r' => '\r',
        b'u' => return read_unicode(bytes),
        _ => return None,
    };
    Some((simple, 1))
}

fn read_unicode(bytes: &[u8]) -> Option<(char, usize)> {
    let first = hex4(bytes.get(1..5)?)?;
    if let Some(c) = char::from_u32(first) {
        return Some((c, 5));
    }
    let second = match bytes.get(5..7) {
        Some(b"\\u") => bytes.get(7..11).and_then(hex4),
        _ => None,
    };
    match second {
        Some(low @ 0xDC00..=0xDFFF) if first < 0xDC00 => {
            let scalar = 0x1_0000 + ((first - 0xD800) << 10) + (low - 0xDC00);
            Some((char::from_u32(scalar)?, 11))
        }
        _ => Some(('?', 5)),
    }
}

fn hex4(digits: &[u8]) -> Option<u32> {
    digits.iter().try_fold(0, |value, digit| Some(value << 4 | char::from(*digit).to_digit(16)?))
}

/// Appends what `raw` (the inside of a validated JSON string) stands for. A stray backslash, which
/// validation excludes, would be copied as it is.
pub(crate) fn unescape_into(raw: &str, out: &mut Vec<u8>) {
    let mut rest = raw.as_bytes();
    // What stands between the escapes of properties is so short that a search and a copy for each would cost more.
    while let Some(word) = rest.first_chunk() {
        out.extend_from_slice(word);
        let found = equal_bytes(u64::from_le_bytes(*word), b'\\');
        if found == 0 {
            rest = &rest[WORD_BYTES..];
            continue;
        }
        let plain = found.trailing_zeros() as usize / 8;
        out.truncate(out.len() - (WORD_BYTES - plain));
        rest = unescape_one(&rest[plain + 1..], out);
    }
    while let ControlFlow::Continue(tail) = unescape_step(rest, out) {
        rest = tail;
    }
}

fn unescape_step<'a>(rest: &'a [u8], out: &mut Vec<u8>) -> ControlFlow<(), &'a [u8]> {
    let Some(at) = memchr::memchr(b'\\', rest) else {
        out.extend_from_slice(rest);
        return ControlFlow::Break(());
    };
    let (plain, escape) = rest.split_at(at);
    out.extend_from_slice(plain);
    ControlFlow::Continue(unescape_one(escape.get(1..).unwrap_or_default(), out))
}

/// Takes an escape whose text after the backslash is the beginning of `after`; what follows it.
fn unescape_one<'a>(after: &'a [u8], out: &mut Vec<u8>) -> &'a [u8] {
    match read_escape(after) {
        Some((c, len)) => {
            if c.is_ascii() {
                out.push(c as u8);
            } else {
                let mut utf8 = [0; 4];
                out.extend_from_slice(c.encode_utf8(&mut utf8).as_bytes());
            }
            after.get(len..).unwrap_or_default()
        }
        None => {
            out.push(b'\\');
            after
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn quoted(text: &str) -> String {
        let mut out = Vec::new();
        write_quoted(&mut out, text);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn escapes_are_those_of_the_reference() {
        assert_eq!(quoted("bad \"x\"\n/\\"), r#""bad \"x\"\n/\\""#);
        assert_eq!(
            quoted("\u{1}\u{7f}\u{9f}\u{2028}\u{2029}\u{a0}é中'<>"),
            "\"\\u0001\\u007F\\u009F\\u2028\\u2029\u{a0}é中'<>\""
        );
        assert_eq!(quoted("\u{8}\t\n\u{c}\r\u{b}"), r#""\b\t\n\f\r\u000B""#);
    }

    #[test]
    fn surrogate_pairs_join_and_halves_become_question_marks() {
        let mut out = Vec::new();
        unescape_into(r"\ud83d\ude00 \ud83d \ude00 \ud83d\u0041", &mut out);
        assert_eq!(String::from_utf8(out).unwrap(), "😀 ? ? ?A");
    }

    proptest! {
        #[test]
        fn unescape_undoes_escape(text in any::<String>()) {
            let quoted = quoted(&text);
            let mut out = Vec::new();
            unescape_into(&quoted[1..quoted.len() - 1], &mut out);
            prop_assert_eq!(String::from_utf8(out).unwrap(), text.clone());
            prop_assert_eq!(serde_json::from_str::<String>(&quoted).unwrap(), text);
        }
    }
}
