//! Which messages of a shard may have a key: hashes of keys and the positions of their messages, as the log goes on.
//!
//! ```text
//!   append --> open rows, in memory, in the order of the log
//!                 full --> a run: the same rows by bucket, in pages of the index file; here stays where each page begins
//!   query  --> open rows, then the runs from the newest to the oldest, one page of each (more if many rows share a bucket)
//! ```
//!
//! A row is only a hint: the record it points to says whether it has the key. Runs go when the log before their end does.

use std::collections::VecDeque;

use rkyv::{Archive, Deserialize, Serialize};

use crate::buffer::BLOCK_BYTES;
use crate::config::KEYS_PER_MESSAGE_MAX;
use crate::consume_queue::pages::IndexPages;
use crate::planted::{self, Bug};

/// What of a message a query names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeyKind {
    /// A word of `KEYS`.
    Key,
    /// `UNIQ_KEY`.
    Unique,
    /// `TAGS`.
    Tag,
}

/// The properties a message can be found by; of each, the last pair that counts.
///
/// RocketMQ: pairs end at 0x02; one shorter than 3 bytes, without 0x01, or with an empty key or value is dropped; the last
/// pair needs no end.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MessageKeys<'a> {
    unique: Option<&'a [u8]>,
    words: Option<&'a [u8]>,
    tag: Option<&'a [u8]>,
}

impl<'a> MessageKeys<'a> {
    pub fn of(properties: &'a [u8]) -> Self {
        let mut keys = Self::default();
        let mut start = 0;
        for end in memchr::memchr_iter(2, properties).chain([properties.len()]) {
            keys.note(&properties[start..end]);
            start = end + 1;
        }
        keys
    }

    /// Takes in the next pair, without its end. Whether it is one of these.
    #[inline]
    pub fn note(&mut self, pair: &'a [u8]) -> bool {
        let (place, value) = match pair.first() {
            Some(b'U') => (&mut self.unique, pair.strip_prefix(b"UNIQ_KEY\x01")),
            Some(b'K') => (&mut self.words, pair.strip_prefix(b"KEYS\x01")),
            Some(b'T') => (&mut self.tag, pair.strip_prefix(b"TAGS\x01")),
            _ => return false,
        };
        let value = value.filter(|value| !value.is_empty());
        *place = value.or(*place);
        value.is_some()
    }

    pub fn unique(&self) -> Option<&'a [u8]> {
        self.unique
    }

    pub fn tag(&self) -> Option<&'a [u8]> {
        self.tag
    }

    /// The words of `KEYS`, which spaces part.
    fn words(&self) -> impl Iterator<Item = &'a [u8]> {
        let words = self.words.unwrap_or_default().split(|byte| *byte == b' ');
        words.filter(|word| !word.is_empty()).take(KEYS_PER_MESSAGE_MAX)
    }

    /// Whether the message has this key, tag or unique key.
    pub fn has(&self, kind: KeyKind, key: &[u8]) -> bool {
        match kind {
            KeyKind::Key => self.words().any(|word| word == key),
            KeyKind::Unique => self.unique == Some(key),
            KeyKind::Tag => self.tag == Some(key),
        }
    }

    /// The hashes under which a message of the topic is found.
    fn hashes(&self, topic: TopicHash) -> impl Iterator<Item = u32> {
        let kind = move |kind, key| hash_in(topic, kind, key);
        let unique = self.unique.map(|key| kind(KeyKind::Unique, key));
        let tag = self.tag.map(|key| kind(KeyKind::Tag, key));
        unique.into_iter().chain(self.words().map(move |key| kind(KeyKind::Key, key))).chain(tag)
    }
}

/// The hash of a key within a topic. It stands in pages on disk: another function is another format.
pub(crate) fn key_hash(topic: &str, kind: KeyKind, key: &[u8]) -> u32 {
    hash_in(TopicHash::of(topic), kind, key)
}

/// What a topic adds to the hashes of its messages' keys.
#[derive(Clone, Copy, Debug)]
pub(crate) struct TopicHash(u64);

impl TopicHash {
    pub fn of(topic: &str) -> Self {
        Self(fold(0, topic.as_bytes()))
    }
}

/// RocketMQ looks up keys and unique keys in the same place: a message is found by either under either name.
fn hash_in(topic: TopicHash, kind: KeyKind, key: &[u8]) -> u32 {
    let space = match kind {
        KeyKind::Key | KeyKind::Unique => 1,
        KeyKind::Tag => 2,
    };
    (fold(topic.0 ^ space, key) >> 32) as u32
}

/// Eight bytes per multiplication: keys are short, and CRC-32 of 32 bytes takes ten times as long.
fn fold(seed: u64, bytes: &[u8]) -> u64 {
    const ODD: u64 = 0x9E37_79B9_7F4A_7C15;
    let mix = |state: u64, word: u64| {
        let state = (state ^ word).wrapping_mul(ODD);
        state ^ state >> 29
    };
    let (words, rest) = bytes.as_chunks::<8>();
    let state = words.iter().fold(mix(seed, bytes.len() as u64), |state, word| mix(state, u64::from_le_bytes(*word)));
    let mut last = [0; 8];
    last[..rest.len()].copy_from_slice(rest);
    mix(mix(state, u64::from_le_bytes(last)), ODD)
}

/// A message that may have a key. Big-endian in a page: position, 8 bytes, and hash, 4 bytes.
#[derive(Archive, Serialize, Deserialize, Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct KeyRow {
    pub position: u64,
    pub hash: u32,
}

const ROW_BYTES: usize = 12;
const ROWS_PER_PAGE: usize = BLOCK_BYTES / ROW_BYTES;
/// Position in the places of a run's last page that have no row.
const NO_ROW: u64 = u64::MAX;
/// Rows of a run are in the order of these upper bits of their hashes, and within them in that of the log.
const BUCKET_BITS: u32 = 12;

fn bucket_of(hash: u32) -> u16 {
    (hash >> (u32::BITS - BUCKET_BITS)) as u16
}

/// A page of a run in the index file.
#[derive(Archive, Serialize, Deserialize, Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct KeyPage {
    pub page: u32,
    pub checksum: u32,
    pub first_bucket: u16,
}

/// Between which store times messages are, both included.
#[derive(Archive, Serialize, Deserialize, Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct TimeSpan {
    pub first_ms: i64,
    pub last_ms: i64,
}

impl TimeSpan {
    const NEVER: Self = Self { first_ms: i64::MAX, last_ms: i64::MIN };

    fn add(&mut self, time_ms: i64) {
        self.first_ms = self.first_ms.min(time_ms);
        self.last_ms = self.last_ms.max(time_ms);
    }

    pub fn contains(&self, time_ms: i64) -> bool {
        self.first_ms <= time_ms && time_ms <= self.last_ms
    }

    pub fn meets(&self, other: &Self) -> bool {
        self.first_ms <= other.last_ms && other.first_ms <= self.last_ms
    }
}

/// Rows that are in the index file.
#[derive(Archive, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
pub(crate) struct KeyRun {
    pub last_position: u64,
    pub times: TimeSpan,
    pub pages: Vec<KeyPage>,
}

impl KeyRun {
    /// The last page before number `end` that may have rows of the hash; its number too.
    pub fn page_with(&self, hash: u32, end: usize) -> Option<(usize, KeyPage)> {
        let bucket = bucket_of(hash);
        let page = self.pages.partition_point(|page| page.first_bucket <= bucket).min(end).checked_sub(1)?;
        // Earlier pages only while the one behind them begins with the bucket.
        let next_begins_with = self.pages.get(page + 1).is_none_or(|next| bucket <= next.first_bucket);
        next_begins_with.then_some((page, self.pages[page]))
    }
}

/// The positions of a page's rows with this hash, in the order of the log.
pub(crate) fn positions_in(page: &[u8], hash: u32) -> impl Iterator<Item = u64> {
    let (rows, _) = page.as_chunks::<ROW_BYTES>();
    let row = |bytes: &[u8; ROW_BYTES]| {
        let (position, rest) = bytes.split_first_chunk()?;
        let row = KeyRow { position: u64::from_be_bytes(*position), hash: u32::from_be_bytes(*rest.first_chunk()?) };
        Some(row)
    };
    rows.iter().filter_map(row).filter(move |row| row.hash == hash && row.position != NO_ROW).map(|row| row.position)
}

/// See the module.
pub(crate) struct KeyIndex {
    /// Oldest first.
    runs: VecDeque<KeyRun>,
    /// Number of the first of them, counted since the log began.
    first_run: u64,
    open: Vec<KeyRow>,
    open_times: TimeSpan,
    /// Where a run is sorted: its memory is kept, for new memory costs as much as the sorting.
    sorted: Vec<KeyRow>,
    rows_max: usize,
    is_enabled: bool,
    /// Rows before this position of the log are in already.
    seen_until: u64,
}

impl KeyIndex {
    /// With runs of `rows_max` rows. If it is not enabled, what it has can be queried, and nothing comes to it.
    pub fn new(rows_max: usize, is_enabled: bool) -> Self {
        Self {
            runs: VecDeque::new(),
            first_run: 0,
            open: Vec::new(),
            open_times: TimeSpan::NEVER,
            sorted: Vec::new(),
            rows_max,
            is_enabled,
            seen_until: 0,
        }
    }

    /// Goes on from what a snapshot tells.
    pub fn restore(&mut self, first_run: u64, runs: Vec<KeyRun>, open: Vec<KeyRow>, times: TimeSpan, seen_until: u64) {
        (self.first_run, self.runs, self.open) = (first_run, runs.into(), open);
        (self.open_times, self.seen_until) = (times, seen_until);
    }

    /// Adds the keys of the message at `position`, behind all added before.
    pub fn add(
        &mut self,
        topic: TopicHash,
        keys: &MessageKeys<'_>,
        position: u64,
        store_time_ms: i64,
        pages: &mut IndexPages,
    ) {
        let is_seen = position < self.seen_until && !planted::is(Bug::SeenKeysAddedAgain);
        if !self.is_enabled || is_seen {
            return;
        }
        for hash in keys.hashes(topic) {
            self.open.push(KeyRow { position, hash });
            self.open_times.add(store_time_ms);
            if self.open.len() >= self.rows_max {
                self.write_run(pages);
            }
        }
    }

    #[cold]
    fn write_run(&mut self, pages: &mut IndexPages) {
        let Some(last_position) = self.open.last().map(|row| row.position) else { return };
        sort_by_bucket(&self.open, &mut self.sorted);
        let mut run = KeyRun { last_position, times: self.open_times, pages: Vec::new() };
        for rows in self.sorted.chunks(ROWS_PER_PAGE) {
            let (page, checksum) = pages.add_passing(|bytes| {
                let (places, rest) = bytes.as_chunks_mut::<ROW_BYTES>();
                rest.fill(0);
                let no_row = KeyRow { position: NO_ROW, hash: 0 };
                for (place, row) in places.iter_mut().zip(rows.iter().chain(std::iter::repeat(&no_row))) {
                    place[..8].copy_from_slice(&row.position.to_be_bytes());
                    place[8..].copy_from_slice(&row.hash.to_be_bytes());
                }
            });
            run.pages.push(KeyPage { page, checksum, first_bucket: rows.first().map_or(0, |row| bucket_of(row.hash)) });
        }
        self.runs.push_back(run);
        self.open.clear();
        self.open_times = TimeSpan::NEVER;
    }

    /// Lets go of runs all of whose messages are before `log_start`.
    pub fn trim(&mut self, log_start: u64, pages: &mut IndexPages) {
        while self.runs.front().is_some_and(|run| run.last_position < log_start)
            && let Some(run) = self.runs.pop_front()
        {
            self.first_run += 1;
            run.pages.iter().for_each(|page| pages.free(page.page));
        }
    }

    /// Number of the run that follows all there are.
    pub fn next_run(&self) -> u64 {
        self.first_run + self.runs.len() as u64
    }

    /// Number of the oldest run there is.
    pub fn first_run(&self) -> u64 {
        self.first_run
    }

    pub fn run(&self, number: u64) -> Option<&KeyRun> {
        self.runs.get(usize::try_from(number.checked_sub(self.first_run)?).ok()?)
    }

    /// Rows that are in no run, in the order of the log, and when their messages were stored.
    pub fn open(&self) -> (&[KeyRow], TimeSpan) {
        (&self.open, self.open_times)
    }

    /// Store time and position of the last message that has a key; `None` without any.
    pub fn newest(&self) -> Option<(i64, u64)> {
        match (self.open.last(), self.runs.back()) {
            (Some(row), _) => Some((self.open_times.last_ms, row.position)),
            (None, Some(run)) => Some((run.times.last_ms, run.last_position)),
            (None, None) => None,
        }
    }

    pub fn used_pages(&self) -> impl Iterator<Item = u32> {
        self.runs.iter().flat_map(|run| &run.pages).map(|page| page.page)
    }
}

/// Puts the rows by bucket, those of one bucket in the order they had.
fn sort_by_bucket(rows: &[KeyRow], sorted: &mut Vec<KeyRow>) {
    let mut ends = vec![0_u32; 1 << BUCKET_BITS];
    rows.iter().for_each(|row| ends[usize::from(bucket_of(row.hash))] += 1);
    let mut total = 0;
    for place in &mut ends {
        (total, *place) = (total + *place, total);
    }
    sorted.resize(rows.len(), KeyRow::default());
    for row in rows {
        let place = &mut ends[usize::from(bucket_of(row.hash))];
        sorted[*place as usize] = *row;
        *place += 1;
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;
    use crate::storage::CommandKind;

    #[test]
    fn of_a_property_given_twice_the_last_one_that_counts_is_meant() {
        let keys = MessageKeys::of(b"KEYS\x01a\x02KEYS\x01b  c\x02UNIQ_KEY\x01u\x02TAGS\x01\x02TAGS\x01t");
        assert!(keys.has(KeyKind::Key, b"b") && keys.has(KeyKind::Key, b"c"));
        assert!(!keys.has(KeyKind::Key, b"a") && !keys.has(KeyKind::Key, b""));
        assert!(keys.has(KeyKind::Unique, b"u") && keys.has(KeyKind::Tag, b"t"));
        assert_eq!(keys.hashes(TopicHash::of("T")).count(), 4);
        assert_eq!(MessageKeys::of(b"").hashes(TopicHash::of("T")).count(), 0);
    }

    #[test]
    fn hashes_are_those_of_pages_on_disk() {
        assert_eq!(key_hash("T", KeyKind::Key, b"k"), key_hash("T", KeyKind::Unique, b"k"));
        assert_ne!(key_hash("T", KeyKind::Key, b"k"), key_hash("T", KeyKind::Tag, b"k"));
        assert_ne!(key_hash("T", KeyKind::Key, b"k"), key_hash("U", KeyKind::Key, b"k"));
        assert_eq!(key_hash("TopicTest", KeyKind::Key, b"order-4711"), 1_133_753_774);
    }

    proptest! {
        #[test]
        fn every_row_of_a_run_is_on_a_page_that_is_looked_at(hashes in prop::collection::vec(prop_oneof![any::<u32>(), 0..3_u32, Just(7 << 20)], 1..3000)) {
            let mut pages = IndexPages::new(0);
            let mut keys = KeyIndex::new(hashes.len(), true);
            keys.open = hashes.iter().zip(0..).map(|(hash, position)| KeyRow { position, hash: *hash }).collect();
            keys.write_run(&mut pages);
            let mut bytes = BTreeMap::new();
            while let Some(CommandKind::WriteIndex { at, pages: written }) = pages.next_write(true) {
                pages.on_written(at, written.len());
                bytes.extend((at / BLOCK_BYTES as u64..).zip(written));
            }
            let run = keys.run(0).unwrap();
            for hash in &hashes {
                let (mut found, mut end) = (Vec::new(), usize::MAX);
                while let Some((number, page)) = run.page_with(*hash, end) {
                    let mut here: Vec<u64> = positions_in(bytes[&u64::from(page.page)].as_slice(), *hash).collect();
                    here.append(&mut found);
                    (found, end) = (here, number);
                }
                let right: Vec<u64> = (0..).zip(&hashes).filter(|(_, other)| *other == hash).map(|(at, _)| at).collect();
                prop_assert_eq!(found, right);
            }
        }
    }
}
