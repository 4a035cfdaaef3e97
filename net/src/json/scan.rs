//! The strict scanner: walks JSON text in place and gives up (`None`) at the first thing that is
//! not the plain JSON every known client sends. The caller then takes the lenient path.
//!
//! Cost: one pass, eight bytes at a time inside strings, no allocation.
#![forbid(unsafe_code)]

use super::escape;
use crate::text::Text;

/// A cursor over JSON text.
#[derive(Clone, Debug)]
pub(crate) struct Scanner<'a> {
    text: &'a str,
    at: usize,
}

impl<'a> Scanner<'a> {
    pub(crate) fn new(text: &'a str) -> Self {
        Self { text, at: 0 }
    }

    /// The next byte that is not blank, not consumed.
    #[inline]
    pub(crate) fn peek(&mut self) -> Option<u8> {
        loop {
            let byte = *self.text.as_bytes().get(self.at)?;
            if !matches!(byte, b' ' | b'\t' | b'\n' | b'\r') {
                return Some(byte);
            }
            self.at += 1;
        }
    }

    /// Consumes `wanted` if it is the next byte after blanks.
    #[inline]
    pub(crate) fn take(&mut self, wanted: u8) -> bool {
        let found = self.peek() == Some(wanted);
        self.at += usize::from(found);
        found
    }

    #[inline]
    pub(crate) fn expect(&mut self, wanted: u8) -> Option<()> {
        self.take(wanted).then_some(())
    }

    pub(crate) fn is_at_end(&mut self) -> bool {
        self.peek().is_none()
    }

    /// A quoted string; escapes are validated but left in place.
    #[inline]
    pub(crate) fn string(&mut self) -> Option<Text<'a>> {
        self.expect(b'"')?;
        let start = self.at;
        let mut has_escapes = false;
        loop {
            let (at, byte) = special(self.text.as_bytes(), self.at)?;
            if byte == b'"' {
                self.at = at + 1;
                let raw = self.text.get(start..at)?;
                return Some(if has_escapes {
                    Text::escaped(raw)
                } else {
                    Text::plain(raw)
                });
            }
            has_escapes = true;
            let (_, len) = escape::read_escape(self.text.as_bytes().get(at + 1..)?)?;
            self.at = at + 1 + len;
        }
    }

    /// A quoted string without escapes and the colon after it.
    #[inline]
    pub(crate) fn key(&mut self) -> Option<&'a str> {
        self.expect(b'"')?;
        let start = self.at;
        let (end, byte) = special(self.text.as_bytes(), start)?;
        if byte != b'"' {
            return None;
        }
        self.at = end + 1;
        self.expect(b':')?;
        self.text.get(start..end)
    }

    /// Optional minus and digits within i32; no fraction, no exponent.
    #[inline]
    pub(crate) fn int(&mut self) -> Option<i32> {
        let negative = self.take(b'-');
        let mut value: i64 = 0;
        let start = self.at;
        while let Some(digit @ b'0'..=b'9') = self.text.as_bytes().get(self.at) {
            value = value * 10 + i64::from(digit - b'0');
            self.at += 1;
            if self.at - start > 10 {
                return None;
            }
        }
        let is_whole = !matches!(self.text.as_bytes().get(self.at), Some(b'.' | b'e' | b'E'));
        if self.at == start || !is_whole {
            return None;
        }
        i32::try_from(if negative { -value } else { value }).ok()
    }

    /// An object whose values are all strings: the text between its braces.
    #[inline]
    pub(crate) fn object_of_strings(&mut self) -> Option<&'a str> {
        self.expect(b'{')?;
        let start = self.at;
        if !self.take(b'}') {
            loop {
                self.key()?;
                self.string()?;
                if !self.take(b',') {
                    break;
                }
            }
            self.expect(b'}')?;
        }
        self.text.get(start..self.at - 1)
    }
}

/// The first quote or backslash at or after `from`.
#[inline]
fn special(bytes: &[u8], from: usize) -> Option<(usize, u8)> {
    const ONES: u64 = 0x0101_0101_0101_0101;
    const HIGHS: u64 = 0x8080_8080_8080_8080;
    let mut at = from;
    let (words, tail) = bytes.get(from..)?.as_chunks::<8>();
    for word in words {
        let word = u64::from_le_bytes(*word);
        let quote = word ^ (ONES * b'"' as u64);
        let backslash = word ^ (ONES * b'\\' as u64);
        // The lowest marked byte is exact; only bytes above a true hit can be marked wrongly.
        let hits = ((quote.wrapping_sub(ONES) & !quote)
            | (backslash.wrapping_sub(ONES) & !backslash))
            & HIGHS;
        if hits != 0 {
            let hit = at + (hits.trailing_zeros() / 8) as usize;
            return Some((hit, *bytes.get(hit)?));
        }
        at += 8;
    }
    let hit = at + tail.iter().position(|byte| matches!(byte, b'"' | b'\\'))?;
    Some((hit, *bytes.get(hit)?))
}

/// The pairs of an object [`Scanner::object_of_strings`] has validated.
#[derive(Clone, Debug)]
pub(crate) struct StringPairs<'a>(Scanner<'a>);

impl<'a> StringPairs<'a> {
    pub(crate) fn new(inside: &'a str) -> Self {
        Self(Scanner::new(inside))
    }
}

impl<'a> Iterator for StringPairs<'a> {
    type Item = (Text<'a>, Text<'a>);

    #[inline]
    fn next(&mut self) -> Option<Self::Item> {
        let key = self.0.key()?;
        let value = self.0.string()?;
        self.0.take(b',');
        Some((Text::plain(key), value))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn special_finds_the_first_at_every_distance() {
        for before in 0..40 {
            for (byte, other) in [(b'"', b'\\'), (b'\\', b'"')] {
                let mut text = vec![b'!'; before];
                text.extend([byte, other, b'#', b'"', b'x', b'x', b'x', b'x', b'x', b'x']);
                assert_eq!(special(&text, 0), Some((before, byte)));
            }
        }
        assert_eq!(special(b"abcdefghijkl", 0), None);
        assert_eq!(special(b"", 3), None);
    }

    #[test]
    fn pairs_come_in_order_and_keep_escapes() {
        let mut scanner = Scanner::new(r#" { "a" : "1" , "b":"\u0001\"" } "#);
        let inside = scanner.object_of_strings().unwrap();
        assert!(scanner.is_at_end());
        let pairs: Vec<_> = StringPairs::new(inside)
            .map(|(k, v)| (k.to_string(), v.to_string()))
            .collect();
        assert_eq!(
            pairs,
            [
                ("a".into(), "1".into()),
                ("b".into(), "\u{1}\"".to_string())
            ]
        );
    }

    #[test]
    fn anything_unusual_gives_up() {
        for text in [
            r#"{"a":1}"#,
            r#"{a:"1"}"#,
            r#"{"a":"1",}"#,
            r#"{"a":"\x"}"#,
            r#"{"a":"1""#,
            "{",
            "",
            r#"{"a":"\u12"}"#,
        ] {
            assert!(Scanner::new(text).object_of_strings().is_none(), "{text}");
        }
        assert_eq!(Scanner::new("2147483648").int(), None);
        assert_eq!(Scanner::new("-2147483648").int(), Some(i32::MIN));
        assert_eq!(Scanner::new("1.5").int(), None);
        assert_eq!(Scanner::new("1e5").int(), None);
    }
}
