//! The ext fields of a frame: its typed header as strings, iterated in place.
#![forbid(unsafe_code)]

use crate::json::scan::{StringObject, StringPairs};
use crate::text::Text;

/// The ext fields. No map is built: the fields are walked where they stand in the frame.
///
/// Duplicate keys may occur; the last one wins, which a decoder that overwrites gets for free.
#[derive(Clone, Debug, Default)]
pub struct ExtFields<'a>(Repr<'a>);

#[derive(Clone, Debug, Default)]
enum Repr<'a> {
    #[default]
    Absent,
    Json(StringObject<'a>),
    /// Validated binary entries.
    Binary(&'a [u8]),
    Owned(Box<[(Box<str>, Box<str>)]>),
}

impl<'a> ExtFields<'a> {
    pub(crate) fn json(object: StringObject<'a>) -> Self {
        Self(Repr::Json(object))
    }

    pub(crate) fn binary(entries: &'a [u8]) -> Self {
        Self(Repr::Binary(entries))
    }

    /// For tests and the lenient path: fields that stand in no frame.
    pub fn owned<K: Into<Box<str>>, V: Into<Box<str>>>(pairs: impl IntoIterator<Item = (K, V)>) -> Self {
        Self(Repr::Owned(pairs.into_iter().map(|(key, value)| (key.into(), value.into())).collect()))
    }

    /// The fields in the order of the frame.
    #[inline]
    pub fn iter(&self) -> ExtIter<'_, 'a> {
        ExtIter(match &self.0 {
            Repr::Absent => IterRepr::Binary(BinaryPairs(&[])),
            Repr::Json(object) => IterRepr::Json(object.iter()),
            Repr::Binary(entries) => IterRepr::Binary(BinaryPairs(entries)),
            Repr::Owned(pairs) => IterRepr::Owned(pairs.iter()),
        })
    }

    /// The value of `key`; the last one if it occurs more than once. Walks all fields.
    pub fn get(&self, key: &str) -> Option<Text<'a>> {
        self.iter().filter(|(name, _)| name.eq_str(key)).last().map(|(_, value)| value)
    }

    /// Whether the frame had ext fields at all; an empty JSON object counts.
    pub fn is_present(&self) -> bool {
        !matches!(self.0, Repr::Absent)
    }
}

/// Iterator over `(key, value)`. A key of the fast path is always plain.
#[derive(Clone, Debug)]
pub struct ExtIter<'f, 'a>(IterRepr<'f, 'a>);

#[derive(Clone, Debug)]
enum IterRepr<'f, 'a> {
    Json(StringPairs<'f, 'a>),
    Binary(BinaryPairs<'a>),
    Owned(std::slice::Iter<'f, (Box<str>, Box<str>)>),
}

impl<'a> Iterator for ExtIter<'_, 'a> {
    type Item = (Text<'a>, Text<'a>);

    /// Inlined into every header's decoder, so that keys are matched in registers.
    #[inline(always)]
    fn next(&mut self) -> Option<Self::Item> {
        match &mut self.0 {
            IterRepr::Json(pairs) => pairs.next(),
            IterRepr::Binary(pairs) => pairs.next(),
            IterRepr::Owned(pairs) => next_owned(pairs),
        }
    }
}

#[cold]
fn next_owned<'a>(pairs: &mut std::slice::Iter<'_, (Box<str>, Box<str>)>) -> Option<(Text<'a>, Text<'a>)> {
    pairs.next().map(|(key, value)| (Text::owned(key.clone()), Text::owned(value.clone())))
}

/// Entries `keyLen i16, key, valLen i32, value`. An empty key or value means "absent" and is
/// skipped; anything cut short ends the walk (decoding has excluded it).
#[derive(Clone, Debug)]
struct BinaryPairs<'a>(&'a [u8]);

impl<'a> Iterator for BinaryPairs<'a> {
    type Item = (Text<'a>, Text<'a>);

    #[inline]
    fn next(&mut self) -> Option<Self::Item> {
        loop {
            let (key_len, rest) = self.0.split_first_chunk::<2>()?;
            let (key, rest) = rest.split_at_checked(u16::from_be_bytes(*key_len) as usize)?;
            let (value_len, rest) = rest.split_first_chunk::<4>()?;
            let (value, rest) = rest.split_at_checked(u32::from_be_bytes(*value_len) as usize)?;
            self.0 = rest;
            if !key.is_empty() && !value.is_empty() {
                return Some((Text::from_bytes(key), Text::from_bytes(value)));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::json::scan::Scanner;

    #[test]
    fn last_duplicate_wins() {
        let mut object = StringObject::empty();
        Scanner::new(r#"{"a":"1","b":"2","a":"3"}"#).object_of_strings(&mut object).unwrap();
        let json = ExtFields::json(object);
        assert_eq!(json.get("a"), Some(Text::plain("3")));
        assert_eq!(json.get("c"), None);
        let owned = ExtFields::owned([("a", "1"), ("a", "3")]);
        assert_eq!(owned.get("a"), Some(Text::plain("3")));
    }

    #[test]
    fn empty_binary_values_are_absent() {
        let entries = [0, 1, b'a', 0, 0, 0, 0, 0, 1, b'b', 0, 0, 0, 1, b'x'];
        let pairs: Vec<_> = ExtFields::binary(&entries).iter().map(|(k, v)| (k.to_string(), v.to_string())).collect();
        assert_eq!(pairs, [("b".to_string(), "x".to_string())]);
    }
}
