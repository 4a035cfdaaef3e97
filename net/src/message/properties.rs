//! Message properties: `key 0x01 value 0x02 key 0x01 value 0x02 ...`, UTF-8.
#![forbid(unsafe_code)]

use crate::word::{WORD_BYTES, equal_bytes};

const KEY_END: u8 = 1;
const VALUE_END: u8 = 2;

/// Longest property string a record can hold (RocketMQ: its length field is an i16).
pub const PROPERTIES_BYTES_MAX: usize = 32_767;

/// Reserved keys, spelt as on the wire.
pub mod keys {
    pub const KEYS: &str = "KEYS";
    pub const TAGS: &str = "TAGS";
    pub const WAIT: &str = "WAIT";
    pub const DELAY: &str = "DELAY";
    pub const TIMER_DELAY_SEC: &str = "TIMER_DELAY_SEC";
    pub const TIMER_DELAY_MS: &str = "TIMER_DELAY_MS";
    pub const TIMER_DELIVER_MS: &str = "TIMER_DELIVER_MS";
    pub const RETRY_TOPIC: &str = "RETRY_TOPIC";
    pub const REAL_TOPIC: &str = "REAL_TOPIC";
    pub const REAL_QID: &str = "REAL_QID";
    pub const ORIGIN_MESSAGE_ID: &str = "ORIGIN_MESSAGE_ID";
    pub const RECONSUME_TIME: &str = "RECONSUME_TIME";
    pub const MAX_RECONSUME_TIMES: &str = "MAX_RECONSUME_TIMES";
    pub const UNIQ_KEY: &str = "UNIQ_KEY";
    pub const TRAN_MSG: &str = "TRAN_MSG";
    pub const TRANSACTION_ID: &str = "__transactionId__";
    pub const TRANSACTION_CHECK_TIMES: &str = "TRANSACTION_CHECK_TIMES";
    pub const TRAN_PREPARED_QUEUE_OFFSET: &str = "TRAN_PREPARED_QUEUE_OFFSET";
    pub const CHECK_IMMUNITY_TIME_IN_SECONDS: &str = "CHECK_IMMUNITY_TIME_IN_SECONDS";
    pub const PGROUP: &str = "PGROUP";
    pub const CLUSTER: &str = "CLUSTER";
    pub const MSG_REGION: &str = "MSG_REGION";
    pub const TRACE_ON: &str = "TRACE_ON";
    pub const SHARDING_KEY: &str = "__SHARDINGKEY";
    pub const POP_CK: &str = "POP_CK";
    pub const CORRELATION_ID: &str = "CORRELATION_ID";
    pub const REPLY_TO_CLIENT: &str = "REPLY_TO_CLIENT";
    pub const MSG_TYPE: &str = "MSG_TYPE";
    pub const PRIORITY: &str = "_SYS_MSG_PRIORITY_";
    pub const LITE_TOPIC: &str = "__LITE_TOPIC";
    pub const INNER_NUM: &str = "INNER_NUM";
    pub const INNER_BASE: &str = "INNER_BASE";
    pub const INNER_MULTI_DISPATCH: &str = "INNER_MULTI_DISPATCH";
}

/// The pairs in order. Segments without separator, key or value are skipped; the last segment need
/// not be terminated.
pub fn iter(properties: &[u8]) -> Properties<'_> {
    Properties { segments: Segments::of(properties) }
}

/// What stands between ends of values, for who looks for a few keys only: most often `key 0x01 value`.
pub fn segments(properties: &[u8]) -> impl Iterator<Item = &[u8]> {
    let mut start = 0;
    let ends = memchr::memchr_iter(VALUE_END, properties).chain([properties.len()]);
    ends.map(move |end| &properties[std::mem::replace(&mut start, end + 1)..end])
}

/// Key and value of a segment; `None` if it has none or one of them is empty.
pub fn pair(segment: &[u8]) -> Option<(&[u8], &[u8])> {
    let (key, rest) = segment.split_at(memchr::memchr(KEY_END, segment)?);
    (!key.is_empty() && rest.len() > 1).then(|| (key, &rest[1..]))
}

/// See [`iter`].
#[derive(Clone, Debug)]
pub struct Properties<'a> {
    segments: Segments<'a>,
}

impl<'a> Iterator for Properties<'a> {
    type Item = (&'a [u8], &'a [u8]);

    fn next(&mut self) -> Option<Self::Item> {
        self.segments.by_ref().find_map(|segment| segment.pair)
    }
}

/// What ends with an end of a value, or with the text.
struct Segment<'a> {
    /// Where the next one begins.
    next: usize,
    /// Key and value, neither of them empty.
    pair: Option<(&'a [u8], &'a [u8])>,
}

/// All segments of a property string, each once.
#[derive(Clone, Debug)]
struct Segments<'a> {
    text: &'a [u8],
    /// Where the next segment begins.
    start: usize,
    separators: Separators<'a>,
}

impl<'a> Segments<'a> {
    fn of(text: &'a [u8]) -> Self {
        Self { text, start: 0, separators: Separators { text, words_end: 0, found: 0 } }
    }
}

impl<'a> Iterator for Segments<'a> {
    type Item = Segment<'a>;

    #[inline]
    fn next(&mut self) -> Option<Segment<'a>> {
        let (text, start) = (self.text, self.start);
        if text.len() <= start {
            return None;
        }
        let mut key_end = None;
        let end = loop {
            match self.separators.next() {
                Some(at) if text[at] == KEY_END => key_end = key_end.or(Some(at)),
                found => break found.unwrap_or(text.len()),
            }
        };
        self.start = end + 1;
        let pair = key_end.map(|at| (&text[start..at], &text[at + 1..end]));
        let pair = pair.filter(|(key, value)| !key.is_empty() && !value.is_empty());
        Some(Segment { next: self.start.min(text.len()), pair })
    }
}

/// Where the separators stand. Keys and values are short: a search that is begun anew for each costs more than to look at
/// all bytes of a word together.
#[derive(Clone, Debug)]
struct Separators<'a> {
    text: &'a [u8],
    /// Up to where words were looked at.
    words_end: usize,
    /// The highest bit of each byte of the last word that is a separator not yet told.
    found: u64,
}

impl Iterator for Separators<'_> {
    type Item = usize;

    #[inline]
    fn next(&mut self) -> Option<usize> {
        while self.found == 0 {
            let rest = self.text.get(self.words_end..).filter(|rest| !rest.is_empty())?;
            let word = rest.first_chunk().copied().unwrap_or_else(|| {
                let mut last = [0; WORD_BYTES];
                last[..rest.len()].copy_from_slice(rest);
                last
            });
            let word = u64::from_le_bytes(word);
            self.found = equal_bytes(word, KEY_END) | equal_bytes(word, VALUE_END);
            self.words_end += WORD_BYTES;
        }
        let byte = (self.found.trailing_zeros() / 8) as usize;
        self.found &= self.found - 1;
        Some(self.words_end - WORD_BYTES + byte)
    }
}

/// The value of `key`; the last one if it occurs more than once. Walks the whole string.
pub fn get<'a>(properties: &'a [u8], key: &str) -> Option<&'a [u8]> {
    iter(properties).filter(|(name, _)| *name == key.as_bytes()).last().map(|(_, value)| value)
}

/// As [`get`]; `None` also when the value is not UTF-8.
pub fn get_str<'a>(properties: &'a [u8], key: &str) -> Option<&'a str> {
    get(properties, key).and_then(|value| std::str::from_utf8(value).ok())
}

/// Appends one pair. `out` must end with a terminated pair or be empty, see [`terminate`].
///
/// Key and value must not contain the separators: they come from our own names, or from values
/// read out of a property string.
pub fn push(out: &mut Vec<u8>, key: &str, value: &[u8]) {
    debug_assert!(!value.iter().any(|byte| matches!(*byte, KEY_END | VALUE_END)));
    out.extend_from_slice(key.as_bytes());
    out.push(KEY_END);
    out.extend_from_slice(value);
    out.push(VALUE_END);
}

/// [`push`] of a number in decimal.
pub fn push_number(out: &mut Vec<u8>, key: &str, value: i64) {
    push(out, key, itoa::Buffer::new().format(value).as_bytes());
}

/// Ends the last pair, which some clients leave open, so that [`push`] may follow.
pub fn terminate(out: &mut Vec<u8>) {
    if out.last().is_some_and(|byte| *byte != VALUE_END) {
        out.push(VALUE_END);
    }
}

/// Appends every pair of `properties` but those whose key `skip` names, each terminated. Segments a
/// reader would drop are left out.
pub fn copy_without(properties: &[u8], skip: &[&str], out: &mut Vec<u8>) {
    copy_if(properties, |key| !skip.iter().any(|name| name.as_bytes() == key), out);
}

/// As [`copy_without`], the pairs whose key `is_wanted`.
pub fn copy_if(properties: &[u8], is_wanted: impl Fn(&[u8]) -> bool, out: &mut Vec<u8>) {
    // Pairs that stand together are copied together.
    let (mut at, mut together_from) = (0, 0);
    for Segment { next, pair } in Segments::of(properties) {
        if !pair.is_some_and(|(key, _)| is_wanted(key)) {
            out.extend_from_slice(&properties[together_from..at]);
            together_from = next;
        }
        at = next;
    }
    out.extend_from_slice(&properties[together_from..]);
    terminate(out);
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn pairs(text: &str) -> Vec<(String, String)> {
        let text_of = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
        iter(text.as_bytes()).map(|(key, value)| (text_of(key), text_of(value))).collect()
    }

    #[test]
    fn segments_without_key_or_value_are_dropped() {
        let expected = [("a".to_string(), "b".to_string()), ("e".into(), "f".into())];
        assert_eq!(pairs("a\u{1}b\u{2}c\u{1}\u{2}e\u{1}f\u{2}"), expected);
        assert_eq!(pairs("a\u{1}b\u{2}c\u{2}\u{1}d\u{2}\u{2}e\u{1}f"), expected);
        assert_eq!(pairs(""), []);
        assert_eq!(pairs("k\u{1}v\u{1}w"), [("k".to_string(), "v\u{1}w".to_string())]);
    }

    #[test]
    fn last_duplicate_wins() {
        assert_eq!(get_str(b"a\x011\x02b\x012\x02a\x013", "a"), Some("3"));
        assert_eq!(get_str(b"a\x01\xff", "a"), None);
    }

    #[test]
    fn copies_leave_out_what_is_named() {
        let mut out = Vec::new();
        copy_without(b"POP_CK\x01x\x02a\x01b", &["POP_CK"], &mut out);
        push(&mut out, "CLUSTER", b"c");
        assert_eq!(out, b"a\x01b\x02CLUSTER\x01c\x02");
        let mut open = b"a\x01b".to_vec();
        terminate(&mut open);
        terminate(&mut open);
        assert_eq!(open, b"a\x01b\x02");
    }

    proptest! {
        #[test]
        fn decode_undoes_encode(written in proptest::collection::vec(("[^\\x01\\x02]{1,8}", "[^\\x01\\x02]{1,8}"), 0..6)) {
            let mut out = Vec::new();
            for (key, value) in &written {
                push(&mut out, key, value.as_bytes());
            }
            prop_assert_eq!(pairs(std::str::from_utf8(&out).unwrap()), written);
        }

        #[test]
        fn copies_have_the_wanted_pairs_of_what_was_copied(junk in proptest::collection::vec(0u8..5, 0..40), name in 0u8..5) {
            let (wanted, mut out) = (|key: &[u8]| key != [name], b"x\x01y\x02".to_vec());
            copy_if(&junk, wanted, &mut out);
            let expected: Vec<_> = iter(&junk).filter(|(key, _)| wanted(key)).collect();
            prop_assert_eq!(iter(&out).skip(1).collect::<Vec<_>>(), expected);
            prop_assert_eq!(out.last(), Some(&2));
        }

        #[test]
        fn pairs_are_what_splitting_gives(junk in proptest::collection::vec(prop_oneof![0u8..5, any::<u8>()], 0..60)) {
            let split = junk.split(|byte| *byte == VALUE_END).filter_map(|segment| {
                let at = segment.iter().position(|byte| *byte == KEY_END)?;
                let (key, value) = (&segment[..at], &segment[at + 1..]);
                (!key.is_empty() && !value.is_empty()).then_some((key, value))
            });
            let split: Vec<_> = split.collect();
            prop_assert_eq!(&iter(&junk).collect::<Vec<_>>(), &split);
            prop_assert_eq!(segments(&junk).filter_map(pair).collect::<Vec<_>>(), split);
        }

        #[test]
        fn junk_never_panics(junk in proptest::collection::vec(0u8..5, 0..40)) {
            let _count = iter(&junk).count();
        }
    }
}
