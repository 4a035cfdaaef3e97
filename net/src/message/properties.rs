//! Message properties: `key 0x01 value 0x02 key 0x01 value 0x02 ...`, UTF-8.
#![forbid(unsafe_code)]

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
    Properties { rest: properties }
}

/// See [`iter`].
#[derive(Clone, Debug)]
pub struct Properties<'a> {
    rest: &'a [u8],
}

impl<'a> Iterator for Properties<'a> {
    type Item = (&'a [u8], &'a [u8]);

    fn next(&mut self) -> Option<Self::Item> {
        while !self.rest.is_empty() {
            let end = memchr::memchr(VALUE_END, self.rest).unwrap_or(self.rest.len());
            let (segment, tail) = self.rest.split_at(end);
            self.rest = tail.get(1..).unwrap_or_default();
            if let Some((key, value)) = split_pair(segment) {
                return Some((key, value));
            }
        }
        None
    }
}

/// The segments of a property string in order, for those who look for a few keys: it costs half of what [`iter`] does.
pub fn segments(properties: &[u8]) -> impl Iterator<Item = Segment<'_>> {
    let mut rest = properties;
    std::iter::from_fn(move || {
        if rest.is_empty() {
            return None;
        }
        let end = memchr::memchr(VALUE_END, rest).unwrap_or(rest.len());
        let segment = &rest[..end];
        rest = rest.get(end + 1..).unwrap_or_default();
        Some(Segment(segment))
    })
}

/// What stands between two ends of values: a pair, if it is well-formed.
#[derive(Clone, Copy, Debug)]
pub struct Segment<'a>(&'a [u8]);

impl<'a> Segment<'a> {
    /// The value, if this is a pair with this key, which is not empty and has no separators in it.
    pub fn value_of(self, key: &[u8]) -> Option<&'a [u8]> {
        // Nearly every other key ends elsewhere, which is found out without a call.
        let (name, value) = self.0.split_at_checked(key.len()).filter(|(_, rest)| rest.first() == Some(&KEY_END))?;
        (value.len() > 1 && name == key).then(|| &value[1..])
    }
}

fn split_pair(segment: &[u8]) -> Option<(&[u8], &[u8])> {
    let (key, value) = segment.split_at(memchr::memchr(KEY_END, segment)?);
    let value = value.get(1..)?;
    (!key.is_empty() && !value.is_empty()).then_some((key, value))
}

/// The value of `key`; the last one if it occurs more than once. Walks the whole string.
pub fn get<'a>(properties: &'a [u8], key: &str) -> Option<&'a [u8]> {
    segments(properties).filter_map(|segment| segment.value_of(key.as_bytes())).last()
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
    while at < properties.len() {
        let rest = &properties[at..];
        let end = memchr::memchr(VALUE_END, rest).unwrap_or(rest.len());
        let next = (at + end + 1).min(properties.len());
        if !split_pair(&rest[..end]).is_some_and(|(key, _)| is_wanted(key)) {
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
        fn segments_have_the_values_of_the_pairs(junk in proptest::collection::vec(0u8..5, 0..40), key in proptest::collection::vec(3u8..5, 1..3)) {
            let expected: Vec<_> = iter(&junk).filter(|(name, _)| **name == *key).map(|(_, value)| value).collect();
            prop_assert_eq!(segments(&junk).filter_map(|segment| segment.value_of(&key)).collect::<Vec<_>>(), expected);
        }

        #[test]
        fn junk_never_panics(junk in proptest::collection::vec(0u8..5, 0..40)) {
            let _count = iter(&junk).count();
        }
    }
}
