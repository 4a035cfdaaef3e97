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

/// Where a string's inside stands in the text.
#[derive(Clone, Copy)]
struct Raw {
    start: usize,
    end: usize,
    has_escapes: bool,
}

impl<'a> Scanner<'a> {
    pub(crate) fn new(text: &'a str) -> Self {
        Self { text, at: 0 }
    }

    /// Consumes `wanted` if it is the next byte after blanks.
    #[inline(always)]
    pub(crate) fn take(&mut self, wanted: u8) -> bool {
        match self.text.as_bytes().get(self.at) {
            Some(byte) if *byte == wanted => {
                self.at += 1;
                true
            }
            Some(b' ' | b'\t' | b'\n' | b'\r') => self.take_after_blanks(wanted),
            _ => false,
        }
    }

    /// Known clients write no blanks.
    #[cold]
    fn take_after_blanks(&mut self, wanted: u8) -> bool {
        self.skip_blanks();
        self.text.as_bytes().get(self.at) == Some(&wanted) && self.take(wanted)
    }

    fn skip_blanks(&mut self) {
        while let Some(b' ' | b'\t' | b'\n' | b'\r') = self.text.as_bytes().get(self.at) {
            self.at += 1;
        }
    }

    /// A quoted whole number: optional minus and up to 18 digits.
    #[inline(always)]
    pub(crate) fn quoted_int(&mut self) -> Option<i64> {
        let bytes = self.text.as_bytes().get(self.at..)?.strip_prefix(b"\"")?;
        let (is_negative, digits) = match bytes.strip_prefix(b"-") {
            Some(digits) => (true, digits),
            None => (false, bytes),
        };
        let mut value = 0_i64;
        let mut count = 0;
        while let Some(digit @ b'0'..=b'9') = digits.get(count) {
            value = value * 10 + i64::from(digit - b'0');
            count += 1;
            if count > 18 {
                return None;
            }
        }
        if count == 0 || digits.get(count) != Some(&b'"') {
            return None;
        }
        self.at += 1 + usize::from(is_negative) + count + 1;
        Some(if is_negative { -value } else { value })
    }

    /// `"true"` or `"false"`, in this case only.
    #[inline(always)]
    pub(crate) fn quoted_bool(&mut self) -> Option<bool> {
        if self.literal(b"\"false\"").is_some() {
            return Some(false);
        }
        self.literal(b"\"true\"").map(|()| true)
    }

    /// Consumes exactly these bytes.
    #[inline(always)]
    pub(crate) fn literal(&mut self, wanted: &[u8]) -> Option<()> {
        let end = self.at + wanted.len();
        if self.text.as_bytes().get(self.at..end)? != wanted {
            return None;
        }
        self.at = end;
        Some(())
    }

    /// A key of one letter and the colon after it.
    #[inline(always)]
    pub(crate) fn letter_key(&mut self) -> Option<u8> {
        match *self.text.as_bytes().get(self.at..)?.first_chunk::<4>()? {
            [b'"', letter @ b'a'..=b'z', b'"', b':'] => {
                self.at += 4;
                Some(letter)
            }
            _ => None,
        }
    }

    #[inline(always)]
    pub(crate) fn expect(&mut self, wanted: u8) -> Option<()> {
        self.take(wanted).then_some(())
    }

    pub(crate) fn is_at_end(&mut self) -> bool {
        self.skip_blanks();
        self.at == self.text.len()
    }

    /// A quoted string; escapes are validated but left in place.
    #[inline(always)]
    fn raw_string(&mut self) -> Option<Raw> {
        self.expect(b'"')?;
        let start = self.at;
        let (end, byte) = special(self.text.as_bytes(), start)?;
        if byte != b'"' {
            return self.raw_string_with_escapes(start, end);
        }
        self.at = end + 1;
        Some(Raw { start, end, has_escapes: false })
    }

    /// `escape` is the position of the first backslash.
    fn raw_string_with_escapes(&mut self, start: usize, mut escape: usize) -> Option<Raw> {
        loop {
            let (_, len) = escape::read_escape(self.text.as_bytes().get(escape + 1..)?)?;
            let (at, byte) = special(self.text.as_bytes(), escape + 1 + len)?;
            if byte == b'"' {
                self.at = at + 1;
                return Some(Raw { start, end: at, has_escapes: true });
            }
            escape = at;
        }
    }

    #[inline(always)]
    fn text_of(&self, raw: Raw) -> Option<Text<'a>> {
        let inside = self.text.get(raw.start..raw.end)?;
        Some(if raw.has_escapes { Text::escaped(inside) } else { Text::plain(inside) })
    }

    #[inline(always)]
    pub(crate) fn string(&mut self) -> Option<Text<'a>> {
        let raw = self.raw_string()?;
        self.text_of(raw)
    }

    /// A quoted string without escapes and the colon after it.
    #[inline(always)]
    fn raw_key(&mut self) -> Option<Raw> {
        let raw = self.raw_string()?;
        self.expect(b':')?;
        (!raw.has_escapes).then_some(raw)
    }

    #[inline]
    pub(crate) fn key(&mut self) -> Option<&'a str> {
        let raw = self.raw_key()?;
        self.text.get(raw.start..raw.end)
    }

    /// Optional minus and digits within i32; no fraction, no exponent.
    #[inline]
    pub(crate) fn int(&mut self) -> Option<i32> {
        let negative = self.take(b'-');
        if !negative {
            self.skip_blanks();
        }
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

    /// An object whose values are all strings, into `object` (in place, because it is large).
    pub(crate) fn object_of_strings(&mut self, object: &mut StringObject<'a>) -> Option<()> {
        self.expect(b'{')?;
        object.clear(self.text, self.at);
        if self.take(b'}') {
            return Some(());
        }
        loop {
            let key = self.raw_key()?;
            let value = self.raw_string()?;
            let is_last = !self.take(b',');
            object.remember(key, value, self.at);
            if is_last {
                return self.expect(b'}');
            }
        }
    }
}

/// The first quote or backslash at or after `from`.
#[inline(always)]
fn special(bytes: &[u8], from: usize) -> Option<(usize, u8)> {
    const ONES: u64 = 0x0101_0101_0101_0101;
    const HIGHS: u64 = 0x8080_8080_8080_8080;
    let mut at = from;
    while let Some(word) = bytes.get(at..at + 8).and_then(|word| word.first_chunk::<8>()) {
        let word = u64::from_le_bytes(*word);
        let quote = word ^ (ONES * b'"' as u64);
        let backslash = word ^ (ONES * b'\\' as u64);
        // The lowest marked byte is exact; only bytes above a true hit can be marked wrongly.
        let hits = ((quote.wrapping_sub(ONES) & !quote) | (backslash.wrapping_sub(ONES) & !backslash)) & HIGHS;
        if hits != 0 {
            let index = hits.trailing_zeros() & !7;
            return Some((at + (index / 8) as usize, (word >> index) as u8));
        }
        at += 8;
    }
    special_in_tail(bytes, at)
}

#[cold]
fn special_in_tail(bytes: &[u8], from: usize) -> Option<(usize, u8)> {
    let hit = from + bytes.get(from..)?.iter().position(|byte| matches!(byte, b'"' | b'\\'))?;
    Some((hit, *bytes.get(hit)?))
}

/// Pairs whose places are remembered while scanning, so that reading them needs no second scan.
/// Java's sends have 14 pairs and its pulls up to 17.
const SPANS_MAX: usize = 20;

#[derive(Clone, Copy, Debug, Default)]
struct Span {
    key_start: u16,
    key_end: u16,
    value_start: u16,
    /// Highest bit: the value has escapes.
    value_end: u16,
}

const ESCAPED: u16 = 1 << 15;

/// A validated object of strings inside `text`.
#[derive(Clone, Debug)]
pub(crate) struct StringObject<'a> {
    text: &'a str,
    /// Where the pairs go on that have no span.
    rest: usize,
    count: usize,
    spans: [Span; SPANS_MAX],
}

impl<'a> StringObject<'a> {
    pub(crate) fn empty() -> Self {
        Self { text: "", rest: 0, count: 0, spans: [Span::default(); SPANS_MAX] }
    }

    fn clear(&mut self, text: &'a str, rest: usize) {
        self.text = text;
        self.rest = rest;
        self.count = 0;
    }

    /// Keeps the place of a pair while there is room and the places fit; `after` is where the next
    /// pair starts.
    #[inline(always)]
    fn remember(&mut self, key: Raw, value: Raw, after: usize) {
        // A gap must not be followed by a span: `rest` only moves while every pair was kept.
        if let Some(slot) = self.spans.get_mut(self.count)
            && value.end < usize::from(ESCAPED)
        {
            *slot = Span {
                key_start: key.start as u16,
                key_end: key.end as u16,
                value_start: value.start as u16,
                value_end: value.end as u16 | if value.has_escapes { ESCAPED } else { 0 },
            };
            self.count += 1;
            self.rest = after;
        }
    }

    #[inline]
    pub(crate) fn iter(&self) -> StringPairs<'_, 'a> {
        StringPairs {
            spans: self.spans.get(..self.count).unwrap_or_default().iter(),
            rest: Scanner { text: self.text, at: self.rest },
        }
    }
}

/// The pairs of a [`StringObject`] in order.
#[derive(Clone, Debug)]
pub(crate) struct StringPairs<'o, 'a> {
    spans: std::slice::Iter<'o, Span>,
    rest: Scanner<'a>,
}

impl<'a> StringPairs<'_, 'a> {
    /// Pairs without span; ends at the closing brace, where no key can be read.
    #[cold]
    fn scan(&mut self) -> Option<(Text<'a>, Text<'a>)> {
        let key = self.rest.raw_key()?;
        let value = self.rest.raw_string()?;
        let pair = (self.rest.text_of(key)?, self.rest.text_of(value)?);
        if !self.rest.take(b',') {
            self.rest.at = self.rest.text.len();
        }
        Some(pair)
    }
}

impl<'a> Iterator for StringPairs<'_, 'a> {
    type Item = (Text<'a>, Text<'a>);

    #[inline(always)]
    fn next(&mut self) -> Option<Self::Item> {
        let Some(span) = self.spans.next() else {
            return match self.rest.text.as_bytes().get(self.rest.at) {
                None | Some(b'}') => None,
                Some(_) => self.scan(),
            };
        };
        let text = self.rest.text;
        let key = text.get(span.key_start.into()..span.key_end.into())?;
        let value = text.get(span.value_start.into()..(span.value_end & !ESCAPED).into())?;
        let value = if span.value_end & ESCAPED == 0 { Text::plain(value) } else { Text::escaped(value) };
        Some((Text::plain(key), value))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn object<'a>(scanner: &mut Scanner<'a>) -> Option<StringObject<'a>> {
        let mut object = StringObject::empty();
        scanner.object_of_strings(&mut object)?;
        Some(object)
    }

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
    fn pairs_beyond_the_remembered_ones_are_scanned() {
        for separator in [",", " , "] {
            let long = "x".repeat(40_000);
            for values in [vec!["v"; 50], vec!["v", &long, "w", ""], vec!["v"; SPANS_MAX]] {
                let pairs: Vec<_> =
                    values.iter().enumerate().map(|(key, value)| format!("\"{key}\":\"{value}\"")).collect();
                let text = format!("{{{} }}", pairs.join(separator));
                let object = object(&mut Scanner::new(&text)).unwrap();
                let read: Vec<_> = object.iter().map(|(_, value)| value.to_string()).collect();
                assert_eq!(read, values);
            }
        }
    }

    #[test]
    fn pairs_come_in_order_and_keep_escapes() {
        let mut scanner = Scanner::new(r#" { "a" : "1" , "b":"\u0001\"" } "#);
        let object = object(&mut scanner).unwrap();
        assert!(scanner.is_at_end());
        let pairs: Vec<_> = object.iter().map(|(k, v)| (k.to_string(), v.to_string())).collect();
        assert_eq!(pairs, [("a".into(), "1".into()), ("b".into(), "\u{1}\"".to_string())]);
    }

    #[test]
    fn anything_unusual_gives_up() {
        for text in
            [r#"{"a":1}"#, r#"{a:"1"}"#, r#"{"a":"1",}"#, r#"{"a":"\x"}"#, r#"{"a":"1""#, "{", "", r#"{"a":"\u12"}"#]
        {
            assert!(object(&mut Scanner::new(text)).is_none(), "{text}");
        }
        assert_eq!(Scanner::new("2147483648").int(), None);
        assert_eq!(Scanner::new("-2147483648").int(), Some(i32::MIN));
        assert_eq!(Scanner::new("1.5").int(), None);
        assert_eq!(Scanner::new("1e5").int(), None);
    }
}
