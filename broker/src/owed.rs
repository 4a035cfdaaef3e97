//! Messages this shard owes: delayed ones and timers, until they are delivered, and half messages, until they are ended.
//!
//! A message waits in the shard of the queue it is for, in an internal queue of that shard. It begins with the property
//! [`DUE_PROPERTY`], which also is the code of its row, so that a start finds all that is open by reading rows only. When
//! it is due, what becomes of it and the mark that it is done are one atomic append: nothing is delivered twice or lost,
//! whenever the process dies. In memory an open message costs 32 bytes.

mod near;
pub mod soon;

use std::collections::{BTreeMap, VecDeque};

use rmq_engine::commit_log::record::{DUE_PROPERTY, row_code};
use rmq_engine::{
    AppendError, Done, LogPosition, MessageDraft, MessageKeys, MessageRef, Placed, ReadRecord, Rows, Shard, Slice,
    Ticket,
};
use rmq_net::message::names::{SCHEDULE_TOPIC, TRANS_HALF_TOPIC};
use rmq_net::message::{properties, record};
use rustc_hash::FxHashMap;

use crate::broker::{Broker, Handled};
use crate::owed::near::Near;
use crate::owed::soon::{CopyPlace, Soon};
use crate::request::{check_back, transaction};
use crate::state::reserved::TIMER_TOPIC;

/// Keeps track of which messages are done. No client can name it.
pub const GROUP: &str = "\0owed";
/// Reads for this module; nobody waits under it, each turn asks again.
const TICKET: Ticket = Ticket(0);
/// How many messages may be owed by one core: 1 GiB of memory.
pub const OWED_MAX: usize = 32 << 20;
/// Most messages that become due in one turn, so that live requests get theirs.
const DUE_PER_TURN: usize = 128;
/// The same once they are late: as many as the sends of a turn would only keep the distance.
const DUE_PER_TURN_LATE: usize = 256;
/// Those that were done before, as most half messages are, cost next to nothing and do not count, up to here.
const LOOKED_AT_PER_TURN: usize = 2048;
/// Most half messages looked at in a millisecond: their producers can be asked a little later, each is stored again for
/// it, and a core that never rests between them would write live messages in small batches.
const CHECKS_PER_MS: usize = 8;
/// How many are taken out of memory at once.
const TAKEN_TOGETHER: usize = 32;
/// No more while so many bytes of the log are on their way to the disk.
const UNDURABLE_BYTES_MAX: u64 = 2 << 20;
/// How many messages are sorted by their due times in one turn.
const OPENED_PER_TURN: usize = 4096;
/// How many messages are read before they are due.
const READ_AHEAD: usize = 2048;
const READ_AHEAD_MS: i64 = 500;
/// From here on what is due is late, and the order of due times matters less than that of the log, in which it is read at
/// the disk's full rate.
const LATE_MS: i64 = 50;
/// How many late messages are put into that order at once.
const LATE_MAX: usize = 65_536;
/// Pages of rows one turn of the start looks at, and asks for at once.
const PAGES_PER_TURN: usize = 64;
const ROWS_PER_PAGE: i64 = 128;
/// Messages moved to the end of the log in one turn.
const MOVES_PER_TURN: usize = 64;
/// How long to rest when the disk refuses.
const REST_MS: i64 = 1000;

/// An internal queue whose messages are owed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OwedQueue {
    Timer,
    Half,
    /// A delay level, counted from 0 as the queue ids of RocketMQ's schedule topic are.
    Level(u8),
}

impl OwedQueue {
    pub fn topic(self) -> &'static str {
        match self {
            Self::Timer => TIMER_TOPIC,
            Self::Half => TRANS_HALF_TOPIC,
            Self::Level(_) => SCHEDULE_TOPIC,
        }
    }

    pub fn queue_id(self) -> u32 {
        match self {
            Self::Timer | Self::Half => 0,
            Self::Level(level) => level.into(),
        }
    }

    fn number(self) -> u8 {
        match self {
            Self::Timer => 0,
            Self::Half => 1,
            Self::Level(level) => level.saturating_add(2),
        }
    }

    fn of_number(number: u8) -> Self {
        match number {
            0 => Self::Timer,
            1 => Self::Half,
            level => Self::Level(level - 2),
        }
    }

    /// Those the shard has messages in.
    fn all(shard: &Shard) -> Vec<Self> {
        let levels = shard.queues(SCHEDULE_TOPIC).filter_map(|(queue_id, ..)| u8::try_from(queue_id).ok());
        let mut queues: Vec<_> = levels.map(Self::Level).chain([Self::Timer, Self::Half]).collect();
        queues.sort_unstable_by_key(|queue| queue.number());
        queues
    }

    /// The mark that the message at `offset` is done.
    pub fn done(self, offset: i64) -> Done<'static> {
        Done::one(GROUP, self.topic(), self.queue_id(), offset)
    }

    pub fn is_done(self, shard: &Shard, offset: i64) -> bool {
        shard.is_done(GROUP, self.topic(), self.queue_id(), offset)
    }
}

/// Queue and offset in one number; offsets stay below 2^56.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
struct Place(u64);

impl Place {
    fn new(queue: OwedQueue, offset: i64) -> Self {
        Self(u64::from(queue.number()) << 56 | offset as u64)
    }

    fn queue(self) -> OwedQueue {
        OwedQueue::of_number((self.0 >> 56) as u8)
    }

    fn offset(self) -> i64 {
        (self.0 & ((1 << 56) - 1)) as i64
    }
}

/// Due time and place: the order in which messages are delivered.
type Key = (i64, Place);

/// A message that waits for its time.
#[derive(Clone, Copy)]
pub struct Open {
    key: Key,
    message: MessageRef,
    copy: Option<CopyPlace>,
}

/// An open message among those of the same second.
struct OpenInSecond {
    place: Place,
    message: MessageRef,
    ms: u16,
    copy: Option<CopyPlace>,
}

const _: () = assert!(size_of::<OpenInSecond>() == 32, "what an owed message costs");

impl Open {
    fn new(due_ms: i64, queue: OwedQueue, offset: i64, message: MessageRef) -> Self {
        Self { key: (due_ms, Place::new(queue, offset)), message, copy: None }
    }

    fn due_ms(&self) -> i64 {
        self.key.0
    }

    fn place(&self) -> Place {
        self.key.1
    }
}

impl OpenInSecond {
    fn new(Open { key: (due_ms, place), message, copy }: Open) -> Self {
        Self { place, message, ms: due_ms.rem_euclid(1000) as u16, copy }
    }

    fn open(self, second: i64) -> Open {
        let Self { place, message, ms, copy } = self;
        Open { key: (second * 1000 + i64::from(ms), place), message, copy }
    }
}

/// Rows of a queue that were there at the start and have not been looked at.
struct Unread {
    queue: OwedQueue,
    next: i64,
    end: i64,
}

/// Moving what is owed out of the oldest segments, which are to go.
#[derive(Default)]
struct Clearing {
    /// Nothing owed stands before this position of the log.
    clear: u64,
    wanted: u64,
    unread: VecDeque<Unread>,
}

/// Open messages by time.
#[derive(Default)]
struct Lane {
    /// By the second in which it is due; those up to `opened_s` are in `near` or `opening`.
    later: BTreeMap<i64, Vec<OpenInSecond>>,
    /// On their way to `near`, before their second begins.
    opening: std::vec::IntoIter<OpenInSecond>,
    near: Near,
    opened_s: i64,
    /// What is late, and goes before all in `near`.
    late: VecDeque<Open>,
    /// When the first of them was due.
    late_from_ms: i64,
    /// How many of the first of them were read.
    late_read_count: usize,
    /// Messages up to here were read before they were due, and how many of them still wait.
    read_up_to: Key,
    read_count: usize,
}

/// Which open messages a turn looks at by themselves, so that many of the one kind do not hold up the other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    /// Messages with a delay level or timer.
    Delayed,
    /// Half messages, whose producers are asked.
    Half,
}

impl Kind {
    fn of(queue: OwedQueue) -> Self {
        if queue == OwedQueue::Half { Self::Half } else { Self::Delayed }
    }

    fn per_look(self, is_late: bool) -> usize {
        match self {
            Self::Delayed if is_late => DUE_PER_TURN_LATE,
            Self::Delayed => DUE_PER_TURN,
            Self::Half => CHECKS_PER_MS,
        }
    }
}

/// What one core owes.
pub struct Owed {
    delayed: Lane,
    halves: Lane,
    soon: Soon,
    /// When half messages were looked at last.
    checked_ms: i64,
    count: usize,
    unread: VecDeque<Unread>,
    clearing: Clearing,
    /// Unique keys of timers that were recalled and are due now, with the offset of the recall.
    recalled: FxHashMap<Box<str>, i64>,
    /// The disk has to do something first; its completion wakes the core.
    is_waiting: bool,
    rest_until_ms: i64,
}

impl Lane {
    fn add(&mut self, open: Open) {
        let second = open.due_ms().div_euclid(1000);
        if second <= self.opened_s {
            self.near.add(open);
        } else {
            self.later.entry(second).or_default().push(OpenInSecond::new(open));
        }
    }

    /// Those whose time has come, the first ones first; what is late is not mixed with the others.
    fn due(&self, now_ms: i64) -> impl Iterator<Item = Open> {
        let until_ms = if self.late.is_empty() { now_ms } else { i64::MIN };
        let near = self.near.iter().take_while(move |open| open.due_ms() <= until_ms);
        self.late.iter().copied().chain(near)
    }

    /// Takes away the first that [`due`](Self::due) gave.
    fn remove(&mut self, key: Key) {
        if self.late.pop_front().is_some() {
            self.late_read_count = self.late_read_count.saturating_sub(1);
            return;
        }
        self.near.remove(key);
        if key <= self.read_up_to {
            self.read_count = self.read_count.saturating_sub(1);
        }
    }

    /// Puts what is late into the order of the log. A recall stays before what it may take back: it is due at the start of
    /// a span of `span_ms`, the others later in it; and it is over only with the next span.
    fn order_late(&mut self, now_ms: i64, span_ms: i64) {
        let Some(first_ms) = self.near.first_ms() else { return };
        if !self.late.is_empty() || now_ms < first_ms + LATE_MS {
            return;
        }
        let until_ms = now_ms.min(((first_ms - 1).div_euclid(span_ms) + 1).saturating_mul(span_ms));
        self.near.sort_until(until_ms);
        let is_late = |open: &Open| open.due_ms() <= until_ms;
        let mut late: Vec<_> = self.near.iter().take_while(is_late).take(LATE_MAX).collect();
        for open in &late {
            self.near.remove(open.key);
            if open.key <= self.read_up_to {
                self.read_count = self.read_count.saturating_sub(1);
            }
        }
        late.sort_unstable_by_key(|open| {
            let starts_span = open.due_ms().rem_euclid(span_ms) == 0;
            (!starts_span, if starts_span { open.due_ms() } else { 0 }, open.message.position(), open.place())
        });
        (self.late, self.late_from_ms, self.late_read_count) = (late.into(), first_ms, 0);
    }

    /// Sorts the seconds that are about to come, one after the other: after a long stop there may be millions due. A second
    /// that has not begun is sorted a little in each turn.
    fn open_seconds(&mut self, now_ms: i64) {
        self.near.move_to(now_ms);
        loop {
            let second = self.opened_s;
            let begins_ms = self.opened_s.saturating_mul(1000);
            let at_once = if begins_ms <= now_ms { usize::MAX } else { OPENED_PER_TURN };
            self.opening.by_ref().take(at_once).for_each(|open| self.near.add(open.open(second)));
            let Some(second) = self.later.first_entry().filter(|_| self.opening.len() == 0) else { return };
            let begins_ms = second.key() * 1000;
            if now_ms + READ_AHEAD_MS < begins_ms || begins_ms <= now_ms && self.near.len() >= READ_AHEAD {
                return;
            }
            let (second, open) = second.remove_entry();
            (self.opened_s, self.opening) = (second, open.into_iter());
            if now_ms < begins_ms {
                return;
            }
        }
    }

    /// Nothing open was due before; of what is not sorted yet, seconds are known.
    fn open_from_ms(&self, now_ms: i64) -> i64 {
        let late_ms = (!self.late.is_empty()).then_some(self.late_from_ms);
        let near_ms = self.near.first_ms();
        let opening_ms = (self.opening.len() > 0).then_some(self.opened_s * 1000);
        let later_ms = self.later.first_key_value().map(|(second, _)| second * 1000);
        late_ms.into_iter().chain(near_ms).chain(opening_ms).chain(later_ms).min().unwrap_or(now_ms)
    }

    /// When there is something to do next.
    fn next_ms(&self, now_ms: i64) -> Option<i64> {
        if !self.late.is_empty() || self.opening.len() > 0 {
            return Some(now_ms);
        }
        let near_ms = self.near.first_ms();
        let later_ms = self.later.first_key_value().map(|(second, _)| second * 1000 - READ_AHEAD_MS);
        near_ms.into_iter().chain(later_ms).min()
    }
}

impl Owed {
    /// All that is open in the shard will be found by the first turns.
    pub fn new(shard: &Shard) -> Self {
        let unread = OwedQueue::all(shard).into_iter().filter_map(|queue| {
            let end = shard.bounds(queue.topic(), queue.queue_id()).max;
            let next = shard.offset(GROUP, queue.topic(), queue.queue_id()).unwrap_or(0);
            (next < end).then_some(Unread { queue, next, end })
        });
        Self {
            delayed: Lane::default(),
            halves: Lane::default(),
            soon: Soon::new(soon::BYTES_MAX),
            checked_ms: 0,
            count: 0,
            unread: unread.collect(),
            clearing: Clearing::default(),
            recalled: FxHashMap::default(),
            is_waiting: false,
            rest_until_ms: 0,
        }
    }

    /// Messages owed, done ones that are not due yet included.
    pub fn count(&self) -> usize {
        self.count
    }

    pub fn is_full(&self) -> bool {
        self.count >= OWED_MAX
    }

    pub fn release_spare_buffers(&mut self) {
        self.delayed.near.release_spare_room();
        self.halves.near.release_spare_room();
        self.soon.release_spare_buffers();
    }

    fn is_idle(&self) -> bool {
        self.count == 0 && self.unread.is_empty()
    }

    fn lane(&mut self, kind: Kind) -> &mut Lane {
        match kind {
            Kind::Delayed => &mut self.delayed,
            Kind::Half => &mut self.halves,
        }
    }

    fn add(&mut self, open: Open) {
        self.count += 1;
        self.lane(Kind::of(open.place().queue())).add(open);
    }

    /// Takes away what is first in its lane.
    fn remove(&mut self, key: Key) {
        self.count -= 1;
        self.lane(Kind::of(key.1.queue())).remove(key);
    }

    /// The next messages whose time has come, with their copies.
    fn due_together(&mut self, kind: Kind, now_ms: i64) -> impl Iterator<Item = (Open, Option<Slice>)> {
        let lane = match kind {
            Kind::Delayed => &mut self.delayed,
            Kind::Half => &mut self.halves,
        };
        lane.near.sort_until(now_ms);
        lane.due(now_ms).take(TAKEN_TOGETHER).map(|open| (open, self.soon.fetch(&open)))
    }

    /// Whether somebody else may have done with the message: with a half message its producer has, with the others only the
    /// move to the end of the log.
    fn may_be_done(&self, open: &Open) -> bool {
        open.place().queue() == OwedQueue::Half || open.message.position().bytes() < self.clearing.wanted
    }

    /// Puts what has come to the front back for another time; it stays open.
    pub fn postpone(&mut self, queue: OwedQueue, offset: i64, due_ms: i64, message: MessageRef) {
        self.add(Open::new(due_ms, queue, offset, message));
    }

    /// In how many milliseconds there is something to do; `None` while nothing is owed or the disk is waited for.
    pub fn due_in_ms(&self, now_ms: i64) -> Option<i64> {
        if self.is_waiting {
            return None;
        }
        let is_clearing = self.clearing.wanted > self.clearing.clear;
        let at_ms = if !self.unread.is_empty() || is_clearing {
            now_ms
        } else {
            let check_ms = self.halves.next_ms(now_ms).map(|at_ms| at_ms.max(self.checked_ms.min(now_ms) + 1));
            self.delayed.next_ms(now_ms).into_iter().chain(check_ms).min()?
        };
        Some((at_ms.max(self.rest_until_ms) - now_ms).max(0))
    }

    /// Whether nothing that is owed stands before `end`. If not, it is moved from now on: ask again later.
    pub fn is_clear_before(&mut self, end: LogPosition) -> bool {
        if self.is_idle() || end.bytes() <= self.clearing.clear {
            return true;
        }
        self.clearing.wanted = self.clearing.wanted.max(end.bytes());
        false
    }
}

/// What the properties of an owed message say, read in one walk; of a key given twice the last one counts.
#[derive(Default)]
pub struct Facts<'a> {
    pub keys: MessageKeys<'a>,
    /// Where the message is to go.
    pub real_topic: Option<&'a str>,
    pub real_queue: Option<u32>,
    /// Of a recall: which timer it takes back.
    recalls: Option<&'a str>,
    /// Of a half message: who is asked what became of it.
    pub producer_group: Option<&'a str>,
    /// `CHECK_IMMUNITY_TIME_IN_SECONDS`.
    pub immunity: Option<&'a str>,
    /// How often its producer was asked; -1 if that is no number.
    pub check_times: Option<i32>,
    /// The offset of the half message's first copy.
    pub first_copy: Option<i64>,
    /// How many of them a delivery may have to leave out.
    left_out: usize,
}

/// What is not delivered; of a delay level only the first.
const LEFT_OUT: [&str; 3] = [DUE_PROPERTY, "TIMER_ENQUEUE_MS", "TIMER_DEQUEUE_MS"];

impl<'a> Facts<'a> {
    pub fn of(text: &'a [u8]) -> Self {
        let mut facts = Self::default();
        // Most properties are of no interest, and their values need not be texts.
        let text_of = |value| std::str::from_utf8(value).ok();
        for segment in properties::segments(text) {
            if facts.keys.note(segment) {
                continue;
            }
            let Some((key, value)) = properties::pair(segment) else { continue };
            match key {
                b"REAL_TOPIC" => facts.real_topic = text_of(value),
                b"REAL_QID" => facts.real_queue = text_of(value).and_then(|id| id.parse().ok()),
                b"TIMER_DEL_UNIQKEY" => facts.recalls = text_of(value),
                b"PGROUP" => facts.producer_group = text_of(value),
                b"CHECK_IMMUNITY_TIME_IN_SECONDS" => facts.immunity = text_of(value),
                b"TRANSACTION_CHECK_TIMES" => {
                    facts.check_times = text_of(value).map(|times| times.parse().unwrap_or(-1));
                }
                b"TRAN_PREPARED_QUEUE_OFFSET" => {
                    facts.first_copy = text_of(value).and_then(|offset| offset.parse().ok());
                }
                key if LEFT_OUT.iter().any(|name| name.as_bytes() == key) => facts.left_out += 1,
                _ => {}
            }
        }
        facts
    }

    pub fn unique_key(&self) -> Option<&'a str> {
        self.keys.unique().and_then(|key| std::str::from_utf8(key).ok())
    }
}

/// The properties of a message that becomes owed: when it is due, then those given but `skip`, then where it really
/// belongs.
pub fn owed_properties(text: &[u8], skip: &[&str], due_ms: i64, topic: &str, queue_id: u32) -> Vec<u8> {
    let own = [DUE_PROPERTY, "REAL_TOPIC", "REAL_QID"];
    let is_kept = |key: &[u8]| !own.iter().chain(skip).any(|name| name.as_bytes() == key);
    let mut kept = Vec::with_capacity(text.len());
    properties::copy_if(text, is_kept, &mut kept);
    owed_properties_of_all(&kept, due_ms, topic, queue_id)
}

/// The same of properties, the last one ended, of which nothing is to be left out.
pub fn owed_properties_of_all(text: &[u8], due_ms: i64, topic: &str, queue_id: u32) -> Vec<u8> {
    let mut owed = Vec::with_capacity(text.len() + topic.len() + 128);
    properties::push_number(&mut owed, DUE_PROPERTY, due_ms);
    owed.extend_from_slice(text);
    properties::push(&mut owed, "REAL_TOPIC", topic.as_bytes());
    properties::push_number(&mut owed, "REAL_QID", queue_id.into());
    owed
}

/// Stores an owed message. Its properties begin with [`DUE_PROPERTY`]; topic, queue and row code of the draft are set
/// here. If it takes the place of another message, that is done with the same append.
pub fn store(
    broker: &mut Broker,
    queue: OwedQueue,
    draft: &MessageDraft<'_>,
    instead_of: Option<&Done<'_>>,
) -> Result<Placed, AppendError> {
    let due_ms = row_code(draft.properties, &draft.keys);
    let draft = MessageDraft { topic: queue.topic(), queue_id: queue.queue_id(), ..*draft };
    let placed = match instead_of {
        None => broker.shard.append(&draft, broker.now_ms)?,
        Some(done) => broker.shard.append_consuming(&draft, done, broker.now_ms)?,
    };
    let mut open = Open::new(due_ms, queue, placed.queue_offset, placed.message);
    // Most half messages are done before they are looked at.
    if Kind::of(queue) == Kind::Delayed
        && let Some(record) = broker.shard.just_appended(placed.message)
    {
        open.copy = broker.owed.soon.keep(due_ms, record, broker.now_ms);
    }
    broker.owed.add(open);
    Ok(placed)
}

/// A stored message, to be stored once more with these properties, which have the keys it had; where is up to the caller.
pub fn draft_of<'a>(record: &record::Record<'a>, keys: MessageKeys<'a>, properties: &'a [u8]) -> MessageDraft<'a> {
    MessageDraft {
        topic: record.topic,
        queue_id: record.queue_id as u32,
        flag: record.flag,
        sys_flag: record.sys_flag,
        born_timestamp_ms: record.born_timestamp,
        born_host: record.born_host,
        store_host: record.store_host,
        reconsume_times: record.reconsume_times,
        prepared_transaction_offset: record.prepared_transaction_offset,
        body: record.body,
        properties,
        keys,
    }
}

/// A message that has come to its time.
pub struct Due<'a> {
    pub due_ms: i64,
    pub queue: OwedQueue,
    pub offset: i64,
    pub message: MessageRef,
    pub record: record::Record<'a>,
    pub facts: Facts<'a>,
}

/// One turn's share: what was there at the start, what is due, what has to move.
pub fn tick(broker: &mut Broker) {
    broker.owed.is_waiting = false;
    if broker.owed.is_idle() || broker.now_ms < broker.owed.rest_until_ms {
        return;
    }
    if !broker.owed.unread.is_empty() {
        read_rows(broker);
    }
    // A recall that is not known yet must not come behind what it recalls.
    if broker.owed.unread.is_empty() {
        let is_checked = broker.owed.checked_ms == broker.now_ms;
        broker.owed.checked_ms = broker.now_ms;
        for kind in [Kind::Delayed, Kind::Half].into_iter().take(if is_checked { 1 } else { 2 }) {
            let (now_ms, precision_ms) = (broker.now_ms, broker.config.timer_precision_ms);
            let lane = broker.owed.lane(kind);
            lane.open_seconds(now_ms);
            lane.order_late(now_ms, precision_ms);
            settle_due(broker, kind);
            read_ahead(broker, kind);
        }
        let open_from_ms = broker.owed.delayed.open_from_ms(broker.now_ms);
        broker.owed.soon.forget_before(open_from_ms);
        clear(broker);
    }
}

fn read_rows(broker: &mut Broker) {
    for _ in 0..PAGES_PER_TURN {
        let Some(Unread { queue, next, end }) = broker.owed.unread.front_mut() else { return };
        if *next >= *end {
            broker.owed.unread.pop_front();
            continue;
        }
        let (queue, from, end) = (*queue, *next, *end);
        let mut rows = Vec::new();
        let read = broker.shard.rows(queue.topic(), queue.queue_id(), from, TICKET, |offset, due_ms, message| {
            rows.push(Open::new(due_ms, queue, offset, message));
        });
        let Some(next) = settle_rows(broker, queue, from, end, read) else { return };
        for open in rows.into_iter().filter(|open| open.place().offset() < end) {
            if !queue.is_done(&broker.shard, open.place().offset()) {
                broker.owed.add(open);
            }
        }
        if let Some(unread) = broker.owed.unread.front_mut() {
            unread.next = next;
        }
    }
}

/// Where to go on, or `None` if the disk has to read first.
fn settle_rows(broker: &mut Broker, queue: OwedQueue, from: i64, end: i64, read: Rows) -> Option<i64> {
    match read {
        // Rows before the first readable one are skipped by the shard; without any there is nothing left.
        Rows::UpTo(next) => Some(if next > from { next } else { end }),
        Rows::Pending => {
            // The pages behind it, too: one after the other they would take the disk's latency each.
            for page in 1..PAGES_PER_TURN as i64 {
                let ahead = from + page * ROWS_PER_PAGE;
                if ahead < end {
                    broker.shard.rows(queue.topic(), queue.queue_id(), ahead, TICKET, |_, _, _| ());
                }
            }
            broker.owed.is_waiting = true;
            None
        }
        Rows::Failed(error) => {
            rest(broker, &format!("rows of {} cannot be read: {error}", queue.topic()));
            None
        }
    }
}

fn settle_due(broker: &mut Broker, kind: Kind) {
    let is_late = !broker.owed.lane(kind).late.is_empty();
    let mut left = kind.per_look(is_late);
    let mut together = Vec::with_capacity(TAKEN_TOGETHER);
    for _ in 0..LOOKED_AT_PER_TURN / TAKEN_TOGETHER {
        together.extend(broker.owed.due_together(kind, broker.now_ms));
        if together.is_empty() {
            return;
        }
        for (open, copy) in together.drain(..) {
            if settle_one(broker, &open, copy, &mut left) == Handled::Full {
                return;
            }
            broker.owed.remove(open.key);
        }
    }
}

/// `Full`: it is not its turn, or the disk has to do something first.
fn settle_one(broker: &mut Broker, open: &Open, copy: Option<Slice>, left: &mut usize) -> Handled {
    let message = open.message;
    let durable = broker.shard.durable();
    let is_behind = broker.shard.appended().bytes() - durable.bytes() > UNDURABLE_BYTES_MAX;
    if is_behind || durable.bytes() < message.position().bytes() + u64::from(message.size_bytes()) {
        broker.owed.is_waiting = true;
        return Handled::Full;
    }
    let (queue, offset) = (open.place().queue(), open.place().offset());
    if broker.owed.may_be_done(open) && queue.is_done(&broker.shard, offset) {
        return Handled::Taken;
    }
    let Some(fewer) = left.checked_sub(1) else { return Handled::Full };
    *left = fewer;
    let slice = match copy {
        Some(copy) => copy,
        None => match read(broker, queue, offset, message) {
            Ok(slice) => slice,
            Err(handled) => return handled,
        },
    };
    let Ok(record) = record::decode(slice.as_ref()) else { return give_up(broker, queue, offset) };
    let facts = Facts::of(record.properties);
    let due = Due { due_ms: open.due_ms(), queue, offset, message, record, facts };
    match queue {
        OwedQueue::Timer if due.facts.recalls.is_some() => recall(broker, &due),
        OwedQueue::Timer if is_recalled(broker, &due) => give_up(broker, queue, offset),
        OwedQueue::Timer | OwedQueue::Level(_) => deliver(broker, &due),
        OwedQueue::Half => check_back::check(broker, &due),
    }
}

/// The record of an owed message, or what there is to do without it.
fn read(broker: &mut Broker, queue: OwedQueue, offset: i64, message: MessageRef) -> Result<Slice, Handled> {
    match broker.shard.read_message(message, TICKET) {
        ReadRecord::Found(slice) => Ok(slice),
        ReadRecord::Pending => {
            broker.owed.is_waiting = true;
            Err(Handled::Full)
        }
        ReadRecord::Failed(error) => {
            rest(broker, &format!("an owed message cannot be read: {error}"));
            Err(Handled::Full)
        }
        ReadRecord::NotFound => {
            let topic = queue.topic();
            tracing::error!(core = broker.core, topic, offset, "an owed message is damaged and is given up");
            Err(give_up(broker, queue, offset))
        }
    }
}

/// Nothing becomes of the message any more.
pub fn give_up(broker: &mut Broker, queue: OwedQueue, offset: i64) -> Handled {
    match broker.shard.mark_done(&queue.done(offset)) {
        Ok(_) => Handled::Taken,
        Err(error) => hold(broker, &error),
    }
}

/// What should take the place of an owed message was not stored: later, then; or never, if it cannot be. A client that
/// writes to an internal topic by its name may have made it up, and must not hold up the others.
pub fn not_stored(broker: &mut Broker, queue: OwedQueue, offset: i64, error: &AppendError) -> Handled {
    match error {
        AppendError::BatchFull { .. } | AppendError::Poisoned | AppendError::SegmentUnavailable { .. } => {
            hold(broker, error)
        }
        error => {
            let topic = queue.topic();
            tracing::error!(core = broker.core, topic, offset, %error, "an owed message cannot be stored and is given up");
            give_up(broker, queue, offset)
        }
    }
}

/// The log takes nothing now: later, then.
fn hold(broker: &mut Broker, error: &AppendError) -> Handled {
    match error {
        AppendError::BatchFull { .. } => broker.owed.is_waiting = true,
        error => rest(broker, &format!("what is due cannot be stored: {error}")),
    }
    Handled::Full
}

fn rest(broker: &mut Broker, why: &str) {
    tracing::warn!(core = broker.core, "{why}; trying again in {REST_MS} ms");
    broker.owed.rest_until_ms = broker.now_ms + REST_MS;
}

/// Stores the message in the queue it is for.
fn deliver(broker: &mut Broker, due: &Due<'_>) -> Handled {
    let Due { queue, offset, record, facts, .. } = due;
    let (Some(topic), Some(queue_id)) = (facts.real_topic, facts.real_queue) else {
        tracing::error!(core = broker.core, topic = queue.topic(), offset, "an owed message does not say to whom");
        return give_up(broker, *queue, *offset);
    };
    let mut text = std::mem::take(&mut broker.scratch);
    text.clear();
    delivered_properties(&mut text, due, broker.now_ms);
    let draft = MessageDraft { topic, queue_id, store_host: broker.store_host, ..draft_of(record, facts.keys, &text) };
    let appended = broker.shard.append_consuming(&draft, &queue.done(*offset), broker.now_ms);
    if appended.is_ok() && broker.config.enable_schedule_message_stats {
        broker.counters.put(topic, 1, record.body.len() as u64);
    }
    broker.scratch = text;
    match appended {
        Ok(_) => Handled::Taken,
        Err(error) => not_stored(broker, *queue, *offset, &error),
    }
}

/// Most bytes that delivery, or putting a half message back, adds to the properties.
pub const DELIVERED_BYTES: usize = 128;

fn delivered_properties(text: &mut Vec<u8>, due: &Due<'_>, now_ms: i64) {
    let (record, is_timer) = (&due.record, due.queue == OwedQueue::Timer);
    let due_ms = record.properties.strip_prefix(DUE_PROPERTY.as_bytes()).and_then(|rest| rest.strip_prefix(b"\x01"));
    let rest = due_ms.and_then(|due_ms| due_ms.get(memchr::memchr(2, due_ms)? + 1..));
    match rest {
        Some(rest) if due.facts.left_out == 1 => {
            text.extend_from_slice(rest);
            properties::terminate(text);
        }
        _ => properties::copy_without(record.properties, &LEFT_OUT[..if is_timer { 3 } else { 1 }], text),
    }
    if !is_timer {
        return;
    }
    properties::push_number(text, "TIMER_ENQUEUE_MS", record.store_timestamp);
    properties::push_number(text, "TIMER_DEQUEUE_MS", now_ms);
}

/// A recall comes first in its span of time, takes away what it names, and goes when the span is over.
fn recall(broker: &mut Broker, due: &Due<'_>) -> Handled {
    let Some(key) = due.facts.recalls else { return give_up(broker, due.queue, due.offset) };
    if let Some(known) = broker.owed.recalled.get(key).copied() {
        // Its span is over, or it repeats another one.
        let handled = give_up(broker, due.queue, due.offset);
        if handled == Handled::Taken && known == due.offset {
            broker.owed.recalled.remove(key);
        }
        return handled;
    }
    let over_ms = due.due_ms + broker.config.timer_precision_ms + 1;
    broker.owed.recalled.insert(key.into(), due.offset);
    broker.owed.postpone(due.queue, due.offset, over_ms, due.message);
    Handled::Taken
}

/// RocketMQ writes the bare unique key, or (before 5.4, and with appendTopicForTimerDeleteKey) topic and key.
fn is_recalled(broker: &Broker, due: &Due<'_>) -> bool {
    if broker.owed.recalled.is_empty() {
        return false;
    }
    let Some(key) = due.facts.unique_key() else { return false };
    let topic = due.facts.real_topic.unwrap_or_default();
    broker.owed.recalled.contains_key(key) || broker.owed.recalled.contains_key(format!("{topic}+{key}").as_str())
}

/// Has messages read that are due soon, many at a time: those that stand together in the log are read together.
fn read_ahead(broker: &mut Broker, kind: Kind) {
    let (until_ms, durable) = (broker.now_ms + READ_AHEAD_MS, broker.shard.durable().bytes());
    let lane = broker.owed.lane(kind);
    let mut messages = Vec::new();
    if !lane.late.is_empty() {
        let until = lane.late.len().min(READ_AHEAD);
        if lane.late_read_count <= until / 2 {
            messages.extend(lane.late.range(lane.late_read_count..until));
            lane.late_read_count = until;
        }
    } else if lane.read_count <= READ_AHEAD / 2 {
        lane.near.sort_until(until_ms);
        let is_next = |open: &Open| {
            let end = open.message.position().bytes() + u64::from(open.message.size_bytes());
            open.due_ms() <= until_ms && end <= durable
        };
        let ahead = lane.near.after(lane.read_up_to).take_while(is_next);
        messages.extend(ahead.take(READ_AHEAD - lane.read_count));
        lane.read_up_to = messages.last().map_or(lane.read_up_to, |open| open.key);
        lane.read_count += messages.len();
    }
    messages.retain(|open| {
        !broker.owed.soon.has(open) && !open.place().queue().is_done(&broker.shard, open.place().offset())
    });
    let mut wanted: Vec<_> = messages.into_iter().map(|open| open.message).collect();
    if !wanted.is_empty() {
        broker.shard.read_soon(&mut wanted);
    }
}

/// Appends what is owed and stands before a position once more, at the end of the log.
fn clear(broker: &mut Broker) {
    if broker.owed.clearing.wanted <= broker.owed.clearing.clear {
        return;
    }
    if broker.owed.clearing.unread.is_empty() {
        let again = Owed::new(&broker.shard);
        broker.owed.clearing.unread = again.unread;
    }
    for _ in 0..MOVES_PER_TURN {
        let Some(Unread { queue, next, end }) = broker.owed.clearing.unread.front() else { break };
        let (queue, from, end) = (*queue, *next, *end);
        let mut first = None;
        let read = broker.shard.rows(queue.topic(), queue.queue_id(), from, TICKET, |offset, due_ms, message| {
            first = first.or(Some((offset, due_ms, message)));
        });
        let Some(past) = settle_rows(broker, queue, from, end, read) else { return };
        let is_over = past >= end && first.is_none();
        let Some((offset, due_ms, message)) = first.filter(|(offset, _, message)| {
            !is_over && *offset < end && message.position().bytes() < broker.owed.clearing.wanted
        }) else {
            broker.owed.clearing.unread.pop_front();
            continue;
        };
        if !queue.is_done(&broker.shard, offset) && move_to_end(broker, queue, offset, due_ms, message) == Handled::Full
        {
            return;
        }
        if let Some(unread) = broker.owed.clearing.unread.front_mut() {
            unread.next = offset + 1;
        }
    }
    if broker.owed.clearing.unread.is_empty() {
        broker.owed.clearing.clear = broker.owed.clearing.wanted;
    }
}

fn move_to_end(broker: &mut Broker, queue: OwedQueue, offset: i64, due_ms: i64, message: MessageRef) -> Handled {
    let slice = match read(broker, queue, offset, message) {
        Ok(slice) => slice,
        Err(handled) => return handled,
    };
    let Ok(record) = record::decode(slice.as_ref()) else { return give_up(broker, queue, offset) };
    let facts = Facts::of(record.properties);
    let moved = match queue {
        OwedQueue::Half => transaction::put_back(broker, &record, &facts, offset, None, due_ms),
        _ => store(broker, queue, &draft_of(&record, facts.keys, record.properties), Some(&queue.done(offset))),
    };
    match moved {
        Ok(_) => Handled::Taken,
        Err(error) => not_stored(broker, queue, offset, &error),
    }
}

#[cfg(test)]
mod simulation;
#[cfg(test)]
mod tests;
