//! A string as it stands in a frame, read without copying it.
#![forbid(unsafe_code)]

use crate::json::escape;
use std::borrow::Cow;

/// A string value of a frame header.
///
/// Borrows the frame: either plain UTF-8, or JSON text whose escapes are still in place (they were
/// checked when the frame was decoded). Owned only when the frame had to take the lenient path.
#[derive(Clone, Debug)]
pub struct Text<'a>(Repr<'a>);

#[derive(Clone, Debug)]
enum Repr<'a> {
    Plain(&'a str),
    Escaped(&'a str),
    Owned(Box<str>),
}

impl<'a> Text<'a> {
    pub const fn plain(value: &'a str) -> Self {
        Self(Repr::Plain(value))
    }

    /// `raw` is the inside of a JSON string whose escapes have been validated.
    pub(crate) const fn escaped(raw: &'a str) -> Self {
        Self(Repr::Escaped(raw))
    }

    pub fn owned(value: impl Into<Box<str>>) -> Self {
        Self(Repr::Owned(value.into()))
    }

    /// Plain for valid UTF-8; otherwise an owned copy with replacement characters, which is what
    /// the reference makes of such bytes.
    #[inline]
    pub fn from_bytes(bytes: &'a [u8]) -> Self {
        match std::str::from_utf8(bytes) {
            Ok(plain) => Self::plain(plain),
            Err(_lossy_by_rule) => Self::owned(String::from_utf8_lossy(bytes).into_owned()),
        }
    }

    /// The text itself, unless it still contains JSON escapes.
    #[inline]
    pub fn as_plain(&self) -> Option<&str> {
        match &self.0 {
            Repr::Plain(text) => Some(text),
            Repr::Escaped(_) => None,
            Repr::Owned(text) => Some(text),
        }
    }

    /// The unescaped text. Allocates only for escaped text.
    pub fn to_cow(&self) -> Cow<'_, str> {
        match &self.0 {
            Repr::Plain(text) => Cow::Borrowed(text),
            Repr::Escaped(raw) => {
                let mut out = Vec::with_capacity(raw.len());
                escape::unescape_into(raw, &mut out);
                Cow::Owned(match String::from_utf8(out) {
                    Ok(text) => text,
                    // Unreachable: unescaping a `str` yields UTF-8. Lossy keeps it panic-free.
                    Err(error) => String::from_utf8_lossy(error.as_bytes()).into_owned(),
                })
            }
            Repr::Owned(text) => Cow::Borrowed(text),
        }
    }

    /// Appends the unescaped bytes to `out`; allocates nothing but growth of `out`.
    pub fn write_to(&self, out: &mut Vec<u8>) {
        match &self.0 {
            Repr::Plain(text) => out.extend_from_slice(text.as_bytes()),
            Repr::Escaped(raw) => escape::unescape_into(raw, out),
            Repr::Owned(text) => out.extend_from_slice(text.as_bytes()),
        }
    }

    /// Optional sign and decimal digits, nothing else (no blanks).
    pub fn parse_i32(&self) -> Option<i32> {
        match self.as_plain() {
            Some(text) => text.parse().ok(),
            None => self.to_cow().parse().ok(),
        }
    }

    /// As [`Self::parse_i32`], 64 bit.
    pub fn parse_i64(&self) -> Option<i64> {
        match self.as_plain() {
            Some(text) => text.parse().ok(),
            None => self.to_cow().parse().ok(),
        }
    }

    /// `true` in any letter case is true, everything else false.
    pub fn parse_bool(&self) -> bool {
        match self.as_plain() {
            Some(text) => text.eq_ignore_ascii_case("true"),
            None => self.to_cow().eq_ignore_ascii_case("true"),
        }
    }

    pub fn eq_str(&self, other: &str) -> bool {
        match self.as_plain() {
            Some(text) => text == other,
            None => self.to_cow() == other,
        }
    }

    pub fn is_empty(&self) -> bool {
        match &self.0 {
            Repr::Plain(text) | Repr::Escaped(text) => text.is_empty(),
            Repr::Owned(text) => text.is_empty(),
        }
    }
}

impl Default for Text<'_> {
    fn default() -> Self {
        Self::plain("")
    }
}

impl PartialEq for Text<'_> {
    fn eq(&self, other: &Self) -> bool {
        match (self.as_plain(), other.as_plain()) {
            (Some(left), Some(right)) => left == right,
            _ => self.to_cow() == other.to_cow(),
        }
    }
}

impl Eq for Text<'_> {}

impl std::fmt::Display for Text<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.to_cow())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn escaped_text_reads_like_the_plain_one() {
        let text = Text::escaped("KEYS\\u0001k\\u0002");
        assert_eq!(text.as_plain(), None);
        assert_eq!(text.to_cow(), "KEYS\u{1}k\u{2}");
        let mut out = Vec::new();
        text.write_to(&mut out);
        assert_eq!(out, b"KEYS\x01k\x02");
        assert!(text.eq_str("KEYS\u{1}k\u{2}"));
        assert_eq!(text, Text::plain("KEYS\u{1}k\u{2}"));
    }

    #[test]
    fn numbers_take_a_sign_and_digits_only() {
        assert_eq!(Text::plain("+7").parse_i32(), Some(7));
        assert_eq!(Text::plain("-7").parse_i64(), Some(-7));
        for bad in ["", " 7", "7 ", "0x7", "7.0", "-", "2147483648"] {
            assert_eq!(Text::plain(bad).parse_i32(), None, "{bad:?}");
        }
        assert!(Text::plain("TRUE").parse_bool());
        assert!(!Text::plain("1").parse_bool());
    }
}
