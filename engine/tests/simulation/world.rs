//! One run: a shard, its disk, its users, and the checks after every crash.

mod experiments;
mod follower;
mod looks;

use std::collections::BTreeMap;
use std::sync::Arc;

use rmq_engine::commit_log::record::row_code;
use rmq_engine::in_flight::{Take, TakenHow};
use rmq_engine::{
    AppendError, BatchItem, Bounds, Done, Durability, Fetch, FetchRequest, Geometry, KeyKind, LogPosition,
    MessageDraft, MessageKeys, Nothing, OldSegment, Placed, PropertyFilter, ReadRecord, Record, RecoverError, Shard,
    ShardConfig, TagFilter, Ticket,
};

use crate::disk::{Crash, Disk, Faults, SHARD};
use crate::model::{Appended, Entry, Sent, State, TakenEntry};
use crate::promises::Promises;
use crate::random::Random;

const TOPICS: [&str; 3] = [
    "A",
    "B",
    "a-topic-whose-name-is-longer-than-one-hundred-and-twenty-seven-bytes-so-that-its-records-use-the-second-version-of-the-format-yes",
];
const GROUPS: [&str; 2] = ["g", "h"];
const KEYS: [&str; 3] = ["k1", "k2", "k3"];
const TAGS: [&[u8]; 4] =
    [b"", b"TAGS\x01A\x02", b"KEYS\x01x y\x02UNIQ_KEY\x01u\x02TAGS\x01TagB", b"TAGS\x01\xE4\xB8\xAD\x02"];
/// What messages are searched by: keys they have, and others.
const SEARCHED: [(KeyKind, &str); 6] = [
    (KeyKind::Key, "x"),
    (KeyKind::Key, "y"),
    (KeyKind::Unique, "u"),
    (KeyKind::Tag, "A"),
    (KeyKind::Tag, "x"),
    (KeyKind::Key, "A"),
];
const TICKET: Ticket = Ticket(1);

/// A filter that has to read every record.
#[derive(Debug)]
struct EvenLength;

impl PropertyFilter for EvenLength {
    fn selects(&self, properties: &[u8]) -> bool {
        properties.len().is_multiple_of(2)
    }

    fn passes_over_properties(&self) -> u32 {
        1
    }
}

/// What happened in a run, or in many.
#[derive(Clone, Copy, Debug, Default)]
pub struct Summary {
    pub messages: u64,
    pub kills: u64,
    pub power_cuts: u64,
    pub crashes_in_recovery: u64,
    pub lost_unacknowledged: u64,
    pub lost_in_async_power_cut: u64,
    pub poisoned: u64,
    pub segments_recycled: u64,
    pub cold_reads: u64,
    pub index_reads: u64,
    pub writes_beside_others: u64,
    pub segments_retired: u64,
    pub segments_renamed: u64,
    pub segments_removed: u64,
    pub snapshots_published: u64,
    pub snapshots_damaged: u64,
    pub restarts_from_snapshot: u64,
    pub clean_stops: u64,
    pub damages_refused: u64,
    pub writes_misdirected: u64,
    pub lookalikes: u64,
    pub bits_flipped: u64,
    pub flips_noticed: u64,
    pub recoveries_interrupted: u64,
    pub follower_cuts: u64,
    pub followers_diverged: u64,
}

impl Summary {
    pub fn add(&mut self, other: &Self) {
        self.messages += other.messages;
        self.kills += other.kills;
        self.power_cuts += other.power_cuts;
        self.crashes_in_recovery += other.crashes_in_recovery;
        self.lost_unacknowledged += other.lost_unacknowledged;
        self.lost_in_async_power_cut += other.lost_in_async_power_cut;
        self.poisoned += other.poisoned;
        self.segments_recycled += other.segments_recycled;
        self.cold_reads += other.cold_reads;
        self.index_reads += other.index_reads;
        self.writes_beside_others += other.writes_beside_others;
        self.segments_retired += other.segments_retired;
        self.segments_renamed += other.segments_renamed;
        self.segments_removed += other.segments_removed;
        self.snapshots_published += other.snapshots_published;
        self.snapshots_damaged += other.snapshots_damaged;
        self.restarts_from_snapshot += other.restarts_from_snapshot;
        self.clean_stops += other.clean_stops;
        self.damages_refused += other.damages_refused;
        self.writes_misdirected += other.writes_misdirected;
        self.lookalikes += other.lookalikes;
        self.bits_flipped += other.bits_flipped;
        self.flips_noticed += other.flips_noticed;
        self.recoveries_interrupted += other.recoveries_interrupted;
        self.follower_cuts += other.follower_cuts;
        self.followers_diverged += other.followers_diverged;
    }
}

pub struct World {
    random: Random,
    disk: Disk,
    shard: Shard,
    geometry: Geometry,
    epoch: u64,
    /// First epoch since the last power cut.
    powered_since: u64,
    now_ms: i64,
    /// Everything appended and not lost since.
    history: Vec<Appended>,
    state: State,
    promises: Promises,
    appends: u64,
    /// End of the log at the last recovery, which made it stable.
    stable_end: u64,
    /// Messages sent at once, now and then; many fill pages of the index.
    flood: usize,
    /// Whether old segments are let go of in this run.
    does_retire: bool,
    /// Whether the log is sent to followers after every crash.
    has_followers: bool,
    /// The log as it was before the last crash.
    before_crash: Option<Disk>,
    summary: Summary,
}

impl World {
    pub fn new(seed: u64) -> Self {
        let mut random = Random::new(seed);
        let (chunk_bytes, chunks) = *random.pick(&[(4096, 4), (8192, 8), (16_384, 4), (16_384, 1), (65_536, 2)]);
        let geometry = Geometry { segment_bytes: chunk_bytes * chunks, chunk_bytes };
        let mut disk = Disk::new(geometry.segment_bytes);
        let config = Self::config(&mut random, geometry, 1, 1);
        let (shard, _) = Shard::recover(config, &mut disk).expect("an empty disk is an empty shard");
        if random.chance(30) {
            disk.faults = Faults {
                write_error: random.below(4),
                short_write: random.below(3),
                read_error: random.below(20),
                no_space: random.below(60),
                snapshot_error: random.below(40),
                misdirected: 0,
            };
        }
        disk.faults.misdirected = *random.pick(&[0, 20, 60]);
        let flood = *random.pick(&[1, 1, 1, 1, 300]);
        let does_retire = random.chance(30);
        disk.is_index_slow = random.chance(50);
        Self {
            random,
            disk,
            shard,
            geometry,
            epoch: 1,
            powered_since: 1,
            now_ms: 1_700_000_000_000,
            history: Vec::new(),
            state: State::default(),
            promises: Promises::default(),
            appends: 0,
            stable_end: 0,
            flood,
            does_retire,
            has_followers: false,
            before_crash: None,
            summary: Summary::default(),
        }
    }

    fn config(random: &mut Random, geometry: Geometry, epoch: u64, powered_since: u64) -> ShardConfig {
        let mut config = ShardConfig::new(SHARD, epoch);
        config.powered_since = powered_since;
        config.geometry = geometry;
        config.durability = *random.pick(&[Durability::Async, Durability::Sync]);
        config.tail_bytes_max = *random.pick(&[0, 16_384, 1 << 20]);
        config.read_bytes_max = *random.pick(&[0, 32_768, 1 << 20]);
        config.index_bytes_max = *random.pick(&[0, 8192, 1 << 20]);
        // The same in every life of a shard, or the log alone would make other runs of rows than are on disk.
        config.key_rows_max = match geometry.chunk_bytes {
            4096 => 3,
            8192 => 40,
            16_384 => 500,
            _ => 65_472,
        };
        config.eager_write_bytes = *random.pick(&[0, 1000, 20_000]);
        config.undurable_bytes_max = *random.pick(&[10_000, 1 << 20]);
        config.waiting_bytes_max = *random.pick(&[0, 5_000, 1 << 20]);
        config.snapshot_log_bytes = *random.pick(&[1, 5000, 40_000, 1 << 30]);
        config
    }

    /// The same run with followers; see `follower`.
    pub fn with_followers(self) -> Self {
        Self { has_followers: true, ..self }
    }

    pub fn run(mut self) -> Summary {
        let lives = 1 + self.random.below(5);
        for _ in 0..lives {
            let steps = self.random.below(120);
            let busyness = *self.random.pick(&[20, 50, 90]);
            for _ in 0..steps {
                self.step(busyness);
            }
            if self.random.chance(30) {
                self.damage_must_be_refused();
            }
            self.crash_and_recover();
        }
        self.disk.faults = Faults::default();
        self.settle();
        self.check_all();
        self.summary.segments_recycled = self.disk.counters.segments_recycled;
        self.summary.cold_reads = self.disk.counters.log_reads;
        self.summary.index_reads = self.disk.counters.index_reads;
        self.summary.writes_beside_others = self.disk.counters.writes_beside_others;
        self.summary.segments_renamed = self.disk.counters.segments_renamed;
        self.summary.segments_removed = self.disk.counters.segments_removed;
        self.summary.snapshots_published = self.disk.counters.snapshots_published;
        self.summary.snapshots_damaged = self.disk.counters.snapshots_damaged;
        self.summary.writes_misdirected = self.disk.counters.writes_misdirected;
        self.summary
    }

    fn step(&mut self, busyness: usize) {
        match self.random.below(20) {
            0..=6 => self.send(),
            7 if self.random.chance(50) => self.revive_what_is_due(),
            7 => self.send_in_place_of_another(),
            8 | 9 => self.send_batch(),
            10 | 11 => self.change_something_small(),
            12 => self.fetch_somewhere(),
            13 => match self.random.below(4) {
                0 => self.search_some_time(),
                1 => self.look_at_some_store_time(),
                2 => self.query_some_key(),
                _ => self.read_some_record(),
            },
            14 => {
                let jump = *self.random.pick(&[1, 1000, 7_200_000, 86_400_000, -5000, -7_200_000, -86_400_000]);
                self.now_ms += jump;
            }
            _ => self.turn(),
        }
        if self.random.chance(busyness) {
            self.turn();
        }
        if self.does_retire && self.random.chance(10) {
            self.retire();
        }
    }

    /// One turn of the loop: pump, hand commands over, complete some.
    fn turn(&mut self) {
        self.now_ms += 1;
        self.shard.pump(self.now_ms);
        self.hand_over();
        for _ in 0..self.random.below(4) {
            let Some((id, result)) = self.disk.complete_one(&mut self.random) else {
                break;
            };
            let durable = self.shard.durable();
            let was_poisoned = self.shard.is_poisoned();
            self.shard.complete(id, result);
            assert!(durable <= self.shard.durable() && self.shard.durable() <= self.shard.appended());
            assert!(!was_poisoned || durable == self.shard.durable(), "a poisoned log acknowledges nothing");
        }
    }

    /// Lets go of the oldest segment, as soon as it may go.
    fn retire(&mut self) {
        match self.shard.oldest_segment() {
            Some(OldSegment { is_free: true, start, .. }) => {
                let end = start.bytes() + self.geometry.segment_bytes;
                let is_in_segment = |appended: &Appended| start.bytes() < appended.end && appended.end <= end;
                assert!(self.history.iter().any(is_in_segment), "a segment that goes has held records");
                assert!(self.shard.retire_oldest_segment());
                assert!(start < self.shard.log_start());
                self.summary.segments_retired += 1;
            }
            Some(OldSegment { is_free: false, .. }) => {
                assert!(!self.shard.retire_oldest_segment());
                self.shard.want_snapshot();
            }
            None => {}
        }
    }

    fn hand_over(&mut self) {
        while let Some(command) = self.shard.next_command() {
            self.disk.submit(command, self.shard.durable());
        }
    }

    /// Turns until everything appended is durable and the disk is idle (or the shard is poisoned).
    fn settle(&mut self) {
        for _ in 0..10_000 {
            self.now_ms += 500; // Segments that failed are asked for again.
            self.turn();
            let is_written = self.shard.durable() == self.shard.appended() || self.shard.is_poisoned();
            if self.disk.is_idle() && is_written {
                return;
            }
        }
        panic!("the shard does not settle");
    }

    fn place(&mut self) -> (&'static str, u32) {
        let topic = *self.random.pick(&TOPICS);
        let queue_id = *self.random.pick(&[0, 0, 0, 1, 9]);
        (topic, queue_id)
    }

    fn body(&mut self) -> Vec<u8> {
        let largest = self.geometry.segment_bytes as usize;
        let size = match self.random.below(20) {
            0 => self.random.below(largest),
            1..=4 => self.random.below(6000),
            _ => self.random.below(200),
        };
        let fill = self.random.next() as u8;
        (0..size).map(|at| fill.wrapping_add(at as u8)).collect()
    }

    fn draft<'a>(&self, topic: &'a str, queue_id: u32, body: &'a [u8], properties: &'a [u8]) -> MessageDraft<'a> {
        MessageDraft {
            topic,
            queue_id,
            flag: body.len() as i32,
            sys_flag: 0,
            born_timestamp_ms: 5,
            born_host: "[2001:db8::5]:77".parse().unwrap(),
            store_host: "10.0.0.1:10911".parse().unwrap(),
            reconsume_times: 2,
            prepared_transaction_offset: 0,
            body,
            properties,
            keys: MessageKeys::of(properties),
        }
    }

    fn send(&mut self) {
        let ((topic, queue_id), mut body) = (self.place(), self.body());
        let properties = *self.random.pick(&TAGS);
        let times = *self.random.pick(&[1, 1, 1, 30, self.flood]);
        if times > 30 {
            body.truncate(3); // Many rows, little log.
        }
        for _ in 0..times {
            let draft = self.draft(topic, queue_id, &body, properties);
            match self.shard.append(&draft, self.now_ms) {
                Ok(placed) => self.note_message(topic, queue_id, placed, &body, properties),
                Err(error) => return self.check_refusal(error),
            }
            self.appends += 1;
        }
    }

    /// A message takes the place of another one, as a delayed one does when it is delivered.
    fn send_in_place_of_another(&mut self) {
        let ((topic, queue_id), (from, from_id), body) = (self.place(), self.place(), self.body());
        let (group, first) = (*self.random.pick(&GROUPS), self.random.below(10) as i64);
        let draft = self.draft(topic, queue_id, &body, TAGS[1]);
        let done = Done::one(group, from, from_id, first);
        match self.shard.append_consuming(&draft, &done, self.now_ms) {
            Ok(placed) => {
                self.note_message(topic, queue_id, placed, &body, TAGS[1]);
                let entry = Entry::Done { group, topic: from, queue_id: from_id, first, bits: vec![1] };
                self.note(self.shard.appended(), placed.end, entry);
                self.appends += 1;
            }
            Err(error) => self.check_refusal(error),
        }
    }

    fn send_batch(&mut self) {
        let (topic, queue_id) = self.place();
        let bodies: Vec<_> = (0..1 + self.random.below(20)).map(|_| (self.body(), *self.random.pick(&TAGS))).collect();
        let items: Vec<_> = bodies
            .iter()
            .map(|(body, properties)| BatchItem {
                flag: body.len() as i32,
                body,
                properties,
                keys: MessageKeys::of(properties),
            })
            .collect();
        let mut placed = Vec::new();
        let draft = self.draft(topic, queue_id, b"", b"");
        match self.shard.append_many(&draft, &items, self.now_ms, &mut placed) {
            Ok(()) => {
                assert_eq!(placed.len(), bodies.len());
                for (placed, (body, properties)) in placed.into_iter().zip(&bodies) {
                    self.note_message(topic, queue_id, placed, body, properties);
                }
                self.appends += 1;
            }
            Err(error) => self.check_refusal(error),
        }
    }

    fn note_message(&mut self, topic: &'static str, queue_id: u32, placed: Placed, body: &[u8], properties: &[u8]) {
        self.summary.messages += 1;
        let sent = Sent {
            physical_offset: placed.physical_offset,
            body: body.to_vec(),
            properties: properties.to_vec(),
            flag: body.len() as i32,
            store_time_ms: self.now_ms,
        };
        let end = LogPosition::new(sent.physical_offset.position().bytes() + record_bytes(&sent, topic).bytes());
        self.note(end, placed.end, Entry::Message { topic, queue_id, queue_offset: placed.queue_offset, sent });
    }

    /// Notes what was appended up to `end` and may be acknowledged at `promised`.
    fn note(&mut self, end: LogPosition, promised: LogPosition, entry: Entry) {
        self.state.add(&entry);
        self.promises.make(promised, end);
        self.history.push(Appended { end: end.bytes(), append: self.appends, entry });
    }

    fn check_refusal(&self, error: AppendError) {
        match error {
            AppendError::BatchFull { pending_bytes } => assert!(0 < pending_bytes),
            AppendError::Poisoned => assert!(self.shard.is_poisoned()),
            AppendError::RecordTooLarge { size_bytes, size_bytes_max } => assert!(size_bytes > size_bytes_max),
            AppendError::SegmentUnavailable { .. } => assert!(0 < self.disk.faults.no_space),
            other => panic!("{other}"),
        }
    }

    fn change_something_small(&mut self) {
        let (topic, queue_id) = self.place();
        let (group, key) = (*self.random.pick(&GROUPS), *self.random.pick(&KEYS));
        let before = self.shard.appended();
        let (end, entry) = match self.random.below(36) {
            0..=10 => {
                let offset = self.random.below(5) as i64;
                let end = self.shard.commit_offset(group, topic, queue_id, offset);
                (end, Entry::Offset { group, topic, queue_id, offset })
            }
            11..=20 => {
                let kind = self.random.below(2) as u8;
                let value = self.random.chance(70).then(|| self.body());
                (self.shard.put_setting(kind, key, value.as_deref()), Entry::Setting { kind, key, value })
            }
            21 | 22 => (self.shard.remove_offsets_of_group(group), Entry::GroupRemoved { group }),
            23 => (self.shard.remove_topic(topic), Entry::TopicRemoved { topic }),
            24..=31 => {
                let entry = self.take_something(group, topic, queue_id);
                let TakenEntry { first, next, taken_ms, until_ms, how, attempt, .. } = entry;
                let bits = &entry.bits;
                let take = Take { group, topic, queue_id, first, next, bits, taken_ms, until_ms, how, attempt };
                (self.shard.take(&take), Entry::Taken(entry))
            }
            _ => {
                let first = self.random.below(80) as i64;
                let bits: Vec<u8> = (0..1 + self.random.below(12)).map(|_| self.random.next() as u8).collect();
                let end = self.shard.mark_done(&Done { group, topic, queue_id, first, bits: &bits });
                (end, Entry::Done { group, topic, queue_id, first, bits })
            }
        };
        match end {
            Ok(end) if before < self.shard.appended() => {
                self.note(self.shard.appended(), end, entry);
                self.appends += 1;
            }
            Ok(end) => {
                assert!(end <= before, "what writes nothing waits for nothing later");
                let mut unchanged = self.state.clone();
                unchanged.add(&entry);
                assert_eq!(unchanged, self.state, "only what changes nothing may write nothing");
                if let Some(says_so) = self.history.iter().rfind(|appended| appended.entry.is_same_offset(&entry)) {
                    self.promises.make(end, LogPosition::new(says_so.end));
                }
            }
            Err(error) => self.check_refusal(error),
        }
    }

    fn take_something(&mut self, group: &'static str, topic: &'static str, queue_id: u32) -> TakenEntry {
        let first = self.random.below(80) as i64;
        let bits: Vec<u8> = (0..1 + self.random.below(5)).map(|_| self.random.next() as u8).collect();
        let next = first + 8 * bits.len() as i64 + self.random.below(30) as i64;
        let taken_ms = self.now_ms - self.random.below(2) as i64;
        let until_ms = self.now_ms + *self.random.pick(&[0, 5, 1000]);
        let how = *self.random.pick(&[TakenHow::Counted, TakenHow::Uncounted, TakenHow::InOrder]);
        let attempt = *self.random.pick(&["", "a", "b"]);
        TakenEntry { group, topic, queue_id, first, next, bits, taken_ms, until_ms, how, attempt }
    }

    /// What is in flight and over takes a new place; what was acknowledged is not among it.
    fn revive_what_is_due(&mut self) {
        for _ in 0..self.random.below(10) {
            let Some(due) = self.shard.next_due(self.now_ms) else { return };
            assert!(due.taken.until_ms <= self.now_ms);
            let queue = due.queue.clone();
            let find =
                |name: &str, names: &[&'static str]| *names.iter().find(|of| **of == name).expect("a name of ours");
            let (group, topic) = (find(&queue.group, &GROUPS), find(&queue.topic, &TOPICS));
            let message = (group, topic, queue.queue_id, due.offset);
            assert_eq!(self.state.taken.get(&message), Some(&due.taken), "only what is in flight comes back");
            let (place, body) = (self.place(), self.body());
            let draft = self.draft(place.0, place.1, &body, TAGS[1]);
            let done = Done::one(group, topic, queue.queue_id, due.offset);
            match self.shard.append_consuming(&draft, &done, self.now_ms) {
                Ok(placed) => {
                    self.note_message(place.0, place.1, placed, &body, TAGS[1]);
                    let (queue_id, first) = (queue.queue_id, due.offset);
                    let entry = Entry::Done { group, topic, queue_id, first, bits: vec![1] };
                    self.note(self.shard.appended(), placed.end, entry);
                    self.appends += 1;
                }
                Err(error) => {
                    self.shard.put_off(&due, self.now_ms);
                    return self.check_refusal(error);
                }
            }
        }
    }

    fn fetch_somewhere(&mut self) {
        let (topic, queue_id) = self.place();
        let Bounds { max, .. } = self.shard.bounds(topic, queue_id);
        let offset = self.random.below(max as usize + 1) as i64;
        let filter = match self.random.below(4) {
            0 => TagFilter::Codes(Arc::from([65, 20_013])),
            1 => TagFilter::Properties(Arc::new(EvenLength)),
            _ => TagFilter::All,
        };
        self.fetch_and_check(topic, queue_id, offset, &filter);
    }

    /// One fetch, with turns while it is pending; returns where to go on.
    fn fetch_and_check(&mut self, topic: &'static str, queue_id: u32, offset: i64, filter: &TagFilter) -> i64 {
        let request = FetchRequest {
            topic,
            queue_id,
            offset,
            count_max: 1 + self.random.below(40) as u32,
            bytes_max: self.random.below(20_000) as u32,
            filter,
        };
        for _ in 0..2000 {
            let bounds = self.shard.bounds(topic, queue_id);
            self.check_bounds(topic, queue_id, bounds);
            match self.shard.fetch(&request, TICKET) {
                Fetch::Pending => {
                    self.hand_over();
                    while self.shard.ready().is_none() {
                        assert!(!self.disk.is_idle(), "a pending fetch waits for a command");
                        self.turn();
                    }
                }
                Fetch::Found { slices, count, bytes, next, bounds: at } => {
                    assert_eq!(at, bounds);
                    assert!(offset < next && next <= bounds.max && 0 < count && count <= request.count_max);
                    let sizes: usize = slices.iter().map(|slice| slice.len()).sum();
                    assert_eq!(sizes, bytes as usize);
                    assert!(count == 1 || bytes <= request.bytes_max);
                    let records = slices.iter().flat_map(|slice| records(slice.as_ref()));
                    let found: Vec<_> = records.inspect(|record| assert!(record.topic == topic)).collect();
                    assert_eq!(found.len(), count as usize);
                    self.check_found(&found, topic, queue_id, offset, next, filter);
                    return next;
                }
                Fetch::Nothing { why: Nothing::ReadFailed(_), next, .. } => {
                    assert!(0 < self.disk.faults.read_error);
                    return next;
                }
                Fetch::Nothing { why: Nothing::NoMatch, next, .. } => {
                    assert!(offset < next && next <= bounds.max);
                    self.check_found(&[], topic, queue_id, offset, next, filter);
                    return next;
                }
                Fetch::Nothing { why: Nothing::AtEnd, next, .. } => {
                    assert_eq!((next, offset), (bounds.max, bounds.max));
                    return next;
                }
                Fetch::Nothing { why: Nothing::NoQueue | Nothing::Empty, .. } => {
                    assert_eq!(bounds.max, 0);
                    return 0;
                }
                Fetch::Nothing { why: Nothing::TooSmall, next, .. } => {
                    assert!(offset < bounds.min && next == bounds.min);
                    return next;
                }
                Fetch::Nothing { why: Nothing::Removed, next, .. } if offset < self.first_kept(topic, queue_id) => {
                    assert!(offset < next);
                    self.check_found(&[], topic, queue_id, offset, next, filter);
                    return next;
                }
                other => panic!("{other:?} for {request:?} within {bounds:?}"),
            }
        }
        panic!("a fetch never ends");
    }

    /// Found must be exactly the messages between the offsets that pass the filter.
    fn check_found(
        &self,
        found: &[Record<'_>],
        topic: &'static str,
        queue_id: u32,
        offset: i64,
        next: i64,
        filter: &TagFilter,
    ) {
        let queue = &self.state.queues[&(topic, queue_id)];
        let passes = |sent: &Sent| match filter {
            TagFilter::All => true,
            TagFilter::Codes(codes) => {
                codes.contains(&(row_code(&sent.properties, &MessageKeys::of(&sent.properties)) as i32))
            }
            TagFilter::Properties(filter) => filter.selects(&sent.properties),
        };
        let offset = offset.max(self.first_kept(topic, queue_id));
        let expected: Vec<_> = (offset..next).filter(|at| passes(&queue[*at as usize])).collect();
        assert_eq!(found.iter().map(|record| record.queue_offset).collect::<Vec<_>>(), expected);
        for record in found {
            check_record(record, &queue[record.queue_offset as usize]);
        }
    }

    fn read_some_record(&mut self) {
        let (topic, queue_id) = self.place();
        let Bounds { max, .. } = self.shard.bounds(topic, queue_id);
        if max == 0 {
            return;
        }
        let offset = self.random.below(max as usize);
        let sent = self.state.queues[&(topic, queue_id)][offset].clone();
        for _ in 0..2000 {
            match self.shard.read_record(sent.physical_offset, TICKET) {
                ReadRecord::Pending => {
                    self.hand_over();
                    while self.shard.ready().is_none() {
                        assert!(!self.disk.is_idle(), "a pending read waits for a command");
                        self.turn();
                    }
                }
                ReadRecord::Found(slice) => {
                    return check_record(&Record::decode(slice.as_ref()).unwrap(), &sent);
                }
                ReadRecord::Failed(_) if 0 < self.disk.faults.read_error => return,
                ReadRecord::NotFound if sent.physical_offset.position() < self.shard.log_start() => return,
                other => panic!("{other:?}"),
            }
        }
        panic!("a read never ends");
    }

    fn crash_and_recover(&mut self) {
        let is_clean = self.random.chance(20) && self.stop_cleanly();
        let acknowledged = self.shard.durable().bytes();
        let mut must_keep = acknowledged.max(self.promises.kept(self.shard.durable()));
        self.summary.poisoned += u64::from(self.shard.is_poisoned());
        let damaged_before = self.disk.counters.snapshots_damaged;
        let before_crash = self.has_followers.then(|| self.disk.log_only());
        let mut crash = self.crash();
        let recovered = loop {
            if crash == Crash::PowerCut && self.shard.config().durability == Durability::Async {
                // A clean prefix, not shorter than what recovery has shown before or a snapshot rests on.
                must_keep = self.stable_end.max(self.disk.stable_end);
            }
            self.try_crashes_in_recovery();
            self.epoch += 1;
            let config = Self::config(&mut self.random, self.geometry, self.epoch, self.powered_since);
            if self.random.chance(20) {
                self.disk.operations_left = Some(self.random.below(6));
            }
            match Shard::recover(config, &mut self.disk) {
                Ok((shard, recovered)) => {
                    self.disk.operations_left = None;
                    self.shard = shard;
                    break recovered;
                }
                Err(RecoverError::Io(_)) if self.disk.operations_left == Some(0) => {
                    self.summary.crashes_in_recovery += 1;
                    crash = self.crash();
                }
                Err(error) => panic!("{error}"),
            }
        };
        let end = recovered.end.bytes();
        assert!(must_keep <= end, "acknowledged up to {must_keep}, recovered up to {end}: {recovered:?}");
        let kept = self.history.partition_point(|appended| appended.end <= end);
        if let (Some(last), Some(first_lost)) =
            (kept.checked_sub(1).map(|at| &self.history[at]), self.history.get(kept))
        {
            assert_ne!(last.append, first_lost.append, "a batch is kept or lost as a whole");
        }
        let last_end = kept.checked_sub(1).map_or(0, |at| self.history[at].end);
        assert_eq!(last_end, end, "the log ends with a record that was sent: {recovered:?}");
        self.summary.lost_unacknowledged += u64::from(kept < self.history.len());
        self.summary.lost_in_async_power_cut += u64::from(end < acknowledged);
        self.stable_end = end;
        self.promises.forget_all();
        self.history.truncate(kept);
        self.state = State::of(&self.history);
        let replayed_from = recovered.replayed_from.bytes();
        let replayed = kept - self.history.partition_point(|appended| appended.end <= replayed_from);
        assert_eq!(recovered.records, replayed as u64);
        self.summary.restarts_from_snapshot += u64::from(0 < replayed_from);
        if is_clean && self.disk.counters.snapshots_damaged == damaged_before {
            assert_eq!(replayed_from, end, "after a clean stop nothing is replayed");
        }
        self.check_all();
        self.check_snapshots_change_nothing();
        if self.random.chance(20) {
            self.check_recovery_is_idempotent(&recovered);
        }
        self.try_lookalikes(&recovered);
        self.try_flipped_bits();
        self.check_follower(end);
        self.check_diverged_follower(end);
        self.before_crash = before_crash;
    }

    /// Stops as the broker does: everything durable, then a snapshot. False if that failed.
    fn stop_cleanly(&mut self) -> bool {
        self.disk.faults = Faults::default();
        self.settle();
        self.shard.want_snapshot();
        while self.shard.is_taking_snapshot() {
            self.turn();
        }
        self.settle();
        self.summary.clean_stops += u64::from(!self.shard.is_poisoned());
        !self.shard.is_poisoned()
    }

    /// The log alone adds up to the same state as snapshot and log.
    fn check_snapshots_change_nothing(&mut self) {
        if self.shard.log_start() > LogPosition::new(0) {
            return; // The log alone is not all any more.
        }
        let config = Self::config(&mut self.random, self.geometry, self.epoch, self.powered_since);
        let (from_log, _) = Shard::recover(config, &mut self.disk.log_only()).unwrap();
        assert_eq!(self.shard.state_digest(), from_log.state_digest());
    }

    /// A byte of a message rots after everything was durable and the log went on: no start may take that for the end.
    fn damage_must_be_refused(&mut self) {
        if self.shard.log_start() > LogPosition::new(0) {
            return;
        }
        let faults = std::mem::take(&mut self.disk.faults);
        self.settle();
        let durable = self.shard.durable();
        // Sealed when everything before is known to be durable: the witness.
        let end = self.shard.put_setting(1, "witness", Some(b"here"));
        self.settle();
        if let (Ok(end), false) = (end, self.shard.is_poisoned()) {
            // A power cut may take the witness where it is not on stable media.
            let is_stable = self.shard.config().durability == Durability::Sync;
            let crash = if is_stable && self.random.chance(50) { Crash::PowerCut } else { Crash::Kill };
            let safe = durable.bytes();
            let batches = self.disk.batches(safe);
            self.note(end, end, Entry::Setting { kind: 1, key: "witness", value: Some(b"here".to_vec()) });
            self.appends += 1;
            if !batches.is_empty() {
                let (start, len) = *self.random.pick(&batches);
                let at = start + self.random.below(len) as u64;
                let (mut disk, mut random) = (self.disk.log_only(), self.random.clone());
                disk.flip(at, 1 << self.random.below(8));
                disk.crash(crash, &mut random);
                let epoch = self.epoch + 1;
                let powered_since = if crash == Crash::PowerCut { epoch } else { self.powered_since };
                let config = Self::config(&mut random, self.geometry, epoch, powered_since);
                match Shard::recover(config, &mut disk) {
                    Err(RecoverError::Damaged { position, intact_from, .. }) => {
                        assert!(
                            position <= at && at < intact_from,
                            "damaged at {at}, found at {position} to {intact_from}"
                        );
                        self.summary.damages_refused += 1;
                    }
                    Err(error) => panic!("damaged at {at}: {error}"),
                    Ok((_, recovered)) => panic!("damaged at {at}, up to {safe} must be kept: {recovered:?}"),
                }
            }
        }
        self.disk.faults = faults;
    }

    fn crash(&mut self) -> Crash {
        let crash = *self.random.pick(&[Crash::Kill, Crash::PowerCut]);
        match crash {
            Crash::Kill => self.summary.kills += 1,
            Crash::PowerCut => {
                self.summary.power_cuts += 1;
                self.powered_since = self.epoch + 1;
            }
        }
        self.disk.crash(crash, &mut self.random);
        crash
    }

    fn check_recovery_is_idempotent(&mut self, recovered: &rmq_engine::Recovered) {
        // Only reads and index writes can be in flight, and all that recovery has shown is stable.
        let crash = *self.random.pick(&[Crash::Kill, Crash::PowerCut]);
        self.disk.crash(crash, &mut self.random);
        self.epoch += 1;
        let config = Self::config(&mut self.random, self.geometry, self.epoch, self.powered_since);
        let (shard, again) = Shard::recover(config, &mut self.disk).unwrap();
        assert_eq!(again.end, recovered.end);
        // An older snapshot may not know yet that a segment was to go.
        let is_same_log = shard.log_start() == self.shard.log_start();
        assert!(!is_same_log || shard.state_digest() == self.shard.state_digest());
        self.shard = shard;
        self.check_all();
    }

    /// Everything the shard shows is what the model says, up to what is durable. Called when all of it is.
    fn check_all(&mut self) {
        if self.shard.is_poisoned() {
            return;
        }
        assert_eq!(self.shard.durable(), self.shard.appended());
        let queues: BTreeMap<_, _> = self
            .shard
            .all_queues()
            .map(|(topic, queue_id, bounds)| ((topic.to_owned(), queue_id), bounds.max))
            .collect();
        let expected = self.state.queues.iter();
        let expected: BTreeMap<_, _> =
            expected.map(|((topic, queue_id), sent)| ((topic.to_string(), *queue_id), sent.len() as i64)).collect();
        assert_eq!(queues, expected);
        let faults = std::mem::take(&mut self.disk.faults);
        for (topic, queue_id) in self.state.queues.keys().copied().collect::<Vec<_>>() {
            let Bounds { max, .. } = self.shard.bounds(topic, queue_id);
            let mut offset = 0;
            while offset < max {
                offset = self.fetch_and_check(topic, queue_id, offset, &TagFilter::All);
            }
        }
        for topic in TOPICS {
            let (kind, key) = *self.random.pick(&SEARCHED);
            self.query_and_check(topic, kind, key, usize::MAX);
        }
        self.disk.faults = faults;
        let offsets: BTreeMap<_, _> = self.shard.offsets().map(|(g, t, q, offset)| ((g, t, q), offset)).collect();
        assert!(
            offsets.iter().map(|(key, offset)| (*key, *offset)).eq(self.state.offsets.iter().map(|(k, o)| (*k, *o)))
        );
        for (group, topic, queue_id) in self.state.offsets.keys().copied() {
            let at = self.state.offsets[&(group, topic, queue_id)];
            for offset in 0..200 {
                let is_done = offset < at || self.state.done.contains(&(group, topic, queue_id, offset));
                assert_eq!(self.shard.is_done(group, topic, queue_id, offset), is_done, "{offset} of {topic}");
            }
            let in_flight = self.shard.in_flight(group, topic, queue_id);
            let taken: Vec<_> =
                in_flight.into_iter().flat_map(|of| of.iter()).map(|(at, taken)| (at, *taken)).collect();
            let expected = self.state.taken.range((group, topic, queue_id, 0)..=(group, topic, queue_id, i64::MAX));
            assert_eq!(taken, expected.map(|((.., at), taken)| (*at, *taken)).collect::<Vec<_>>());
            let attempt = self.state.attempts.get(&(group, topic, queue_id)).copied();
            assert_eq!(in_flight.map(|of| of.attempt()), attempt);
        }
        assert_eq!(self.shard.in_flight_count(), self.state.taken.len());
        for kind in 0..2 {
            let settings = self.shard.settings(kind).map(|(key, value)| (key, value.to_vec()));
            let expected = self.state.settings.iter().filter(|((of, _), _)| *of == kind);
            assert!(settings.eq(expected.map(|((_, key), value)| (*key, value.clone()))));
        }
    }
}

fn records(mut bytes: &[u8]) -> Vec<Record<'_>> {
    let mut records = Vec::new();
    while !bytes.is_empty() {
        let record = Record::decode(bytes).expect("slices hold whole records");
        bytes = &bytes[record.size_bytes as usize..];
        records.push(record);
    }
    records
}

fn check_record(record: &Record<'_>, sent: &Sent) {
    assert_eq!(record.physical_offset, sent.physical_offset.to_wire());
    assert!(record.body == sent.body, "the body at {} is another one", record.queue_offset);
    assert_eq!((record.properties, record.flag), (&sent.properties[..], sent.flag));
    assert_eq!(record.store_timestamp_ms, sent.store_time_ms);
    assert_eq!((record.born_timestamp_ms, record.reconsume_times), (5, 2));
}

/// Length of a message's record, as the format says.
fn record_bytes(sent: &Sent, topic: &str) -> LogPosition {
    let topic_length_bytes = if topic.len() > 127 { 2 } else { 1 };
    let fixed = 4 * 7 + 8 * 5 + 4 + 20 + 8 + 2;
    LogPosition::new((fixed + topic_length_bytes + topic.len() + sent.body.len() + sent.properties.len()) as u64)
}
