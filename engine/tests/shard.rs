//! The shard on a storage in memory: what its owner sees.

use std::sync::Arc;

use rmq_engine::config::FILTERED_BYTES_MAX;
use rmq_engine::memory::MemoryStorage;
use rmq_engine::scrub::{Rotten, scrub};
use rmq_engine::{
    AppendError, BatchItem, Boundary, Bounds, CommandKind, Done, Durability, Fetch, FetchRequest, Geometry,
    MessageDraft, MessageKeys, Nothing, PhysicalOffset, PropertyFilter, ReadRecord, Record, RecoverError, Rows,
    Searched, Shard, ShardConfig, StorageError, StoreTime, TagFilter, Ticket,
};

const TICKET: Ticket = Ticket(7);

fn config(epoch: u64) -> ShardConfig {
    let mut config = ShardConfig::new(2, epoch);
    config.geometry = Geometry { segment_bytes: 256 * 1024, chunk_bytes: 16 * 1024 };
    (config.tail_bytes_max, config.read_bytes_max, config.index_bytes_max) = (64 * 1024, 128 * 1024, 64 * 1024);
    config
}

fn draft<'a>(topic: &'a str, queue_id: u32, body: &'a [u8]) -> MessageDraft<'a> {
    MessageDraft {
        topic,
        queue_id,
        flag: 0,
        sys_flag: 0,
        born_timestamp_ms: 1,
        born_host: "127.0.0.1:5".parse().unwrap(),
        store_host: "127.0.0.1:10911".parse().unwrap(),
        reconsume_times: 0,
        prepared_transaction_offset: 0,
        body,
        properties: b"",
        keys: MessageKeys::default(),
    }
}

struct Fixture {
    storage: MemoryStorage,
    shard: Shard,
}

impl Fixture {
    fn new() -> Self {
        let mut storage = MemoryStorage::new();
        let shard = storage.open(config(1)).unwrap();
        Self { storage, shard }
    }

    fn restart(&mut self) {
        let epoch = self.shard.config().epoch + 1;
        self.shard = self.storage.open(config(epoch)).unwrap();
    }

    fn settle(&mut self, now_ms: i64) {
        self.storage.settle(&mut self.shard, now_ms);
    }

    fn send(&mut self, topic: &str, queue_id: u32, bodies: impl IntoIterator<Item = Vec<u8>>) {
        for body in bodies {
            self.shard.append(&draft(topic, queue_id, &body), 1000).unwrap();
            self.settle(1000);
        }
    }

    fn fetch(&mut self, request: &FetchRequest<'_>) -> Fetch {
        for _ in 0..8 {
            match self.shard.fetch(request, TICKET) {
                Fetch::Pending => {
                    self.settle(0);
                    assert_eq!(self.shard.ready(), Some(TICKET), "a pending fetch is woken");
                }
                fetch => return fetch,
            }
        }
        panic!("fetch stays pending");
    }

    fn bodies_from(&mut self, topic: &str, queue_id: u32, mut offset: i64) -> Vec<Vec<u8>> {
        let mut bodies = Vec::new();
        loop {
            let request =
                FetchRequest { topic, queue_id, offset, count_max: 32, bytes_max: 262_144, filter: &TagFilter::All };
            match self.fetch(&request) {
                Fetch::Found { slices, count, next, bytes, .. } => {
                    let mut seen = (0, 0);
                    for slice in &slices {
                        let mut rest = slice.as_ref();
                        while !rest.is_empty() {
                            let record = Record::decode(rest).unwrap();
                            assert_eq!((record.topic, record.queue_id), (topic, queue_id));
                            assert_eq!(record.queue_offset, offset + i64::from(seen.0));
                            bodies.push(record.body.to_vec());
                            rest = &rest[record.size_bytes as usize..];
                            seen = (seen.0 + 1, seen.1 + record.size_bytes);
                        }
                    }
                    assert_eq!(seen, (count, bytes));
                    assert_eq!(next, offset + i64::from(count));
                    offset = next;
                }
                Fetch::Nothing { why: Nothing::AtEnd | Nothing::Empty | Nothing::NoQueue, .. } => return bodies,
                other => panic!("{other:?}"),
            }
        }
    }
}

fn numbered(count: usize, size: usize) -> Vec<Vec<u8>> {
    (0..count).map(|number| format!("{number:0size$}").into_bytes()).collect()
}

#[test]
fn messages_become_readable_when_durable() {
    let mut fixture = Fixture::new();
    let placed = fixture.shard.append(&draft("T", 0, b"hello"), 1000).unwrap();
    assert_eq!((placed.queue_offset, placed.physical_offset.shard()), (0, 2));
    assert!(fixture.shard.durable() < placed.end);
    assert_eq!(fixture.shard.bounds("T", 0), Bounds { min: 0, max: 0 });
    fixture.shard.watch("T", 0);
    fixture.settle(1000);
    assert!(placed.end <= fixture.shard.durable());
    assert_eq!(fixture.shard.bounds("T", 0), Bounds { min: 0, max: 1 });
    assert_eq!(fixture.shard.arrival(), Some((Arc::from("T"), 0)));
    assert_eq!(fixture.shard.arrival(), None);
    assert_eq!(fixture.bodies_from("T", 0, 0), [b"hello".to_vec()]);
    assert!(fixture.shard.is_idle());
}

#[test]
fn everything_is_there_after_a_restart_cold_and_hot() {
    let mut fixture = Fixture::new();
    // Far more than the caches hold: 6 segments, hundreds of pages.
    let bodies = numbered(2000, 600);
    fixture.send("T", 1, bodies.clone());
    assert_eq!(fixture.bodies_from("T", 1, 0), bodies);
    for _ in 0..2 {
        fixture.restart();
        assert_eq!(fixture.bodies_from("T", 1, 0), bodies);
        assert!(fixture.shard.counters().reads.windows_read_ahead > 0);
        assert_eq!(fixture.shard.counters().reads.damaged_records, 0);
    }
    fixture.send("T", 1, [b"more".to_vec()]);
    fixture.restart();
    assert_eq!(fixture.bodies_from("T", 1, 1999), [bodies[1999].clone(), b"more".to_vec()]);
}

#[test]
fn records_larger_than_a_chunk_are_kept() {
    let mut fixture = Fixture::new();
    let bodies: Vec<Vec<u8>> = (0..40).map(|number| vec![number as u8; 1000 + 1700 * number]).collect();
    fixture.send("T", 0, bodies.clone());
    assert_eq!(fixture.bodies_from("T", 0, 0), bodies);
    fixture.restart();
    assert_eq!(fixture.bodies_from("T", 0, 0), bodies);
    let too_large = vec![0; 256 * 1024];
    let refused = fixture.shard.append(&draft("T", 0, &too_large), 0);
    assert!(matches!(refused, Err(AppendError::RecordTooLarge { size_bytes_max: 262_080, .. })), "{refused:?}");
}

#[test]
fn a_batch_is_one_slice() {
    let mut fixture = Fixture::new();
    let bodies = numbered(10, 20);
    let tag_a = b"TAGS\x01A\x02";
    let items: Vec<_> = bodies
        .iter()
        .map(|body| BatchItem { flag: 3, body, properties: tag_a, keys: MessageKeys::of(tag_a) })
        .collect();
    let mut placed = Vec::new();
    fixture.shard.append_many(&draft("T", 0, b""), &items, 5, &mut placed).unwrap();
    assert_eq!(placed.iter().map(|placed| placed.queue_offset).collect::<Vec<_>>(), (0..10).collect::<Vec<_>>());
    fixture.settle(5);
    let filter = TagFilter::Codes(Arc::from([65, 1]));
    let request = FetchRequest { topic: "T", queue_id: 0, offset: 2, count_max: 5, bytes_max: 9999, filter: &filter };
    match fixture.fetch(&request) {
        Fetch::Found { slices, count: 5, next: 7, .. } => assert_eq!(slices.len(), 1),
        other => panic!("{other:?}"),
    }
    assert_eq!(fixture.shard.counters().log_writes, 1);
}

#[test]
fn fetch_answers_as_the_reference_does() {
    let mut fixture = Fixture::new();
    let filter = TagFilter::All;
    let why = |fixture: &mut Fixture, offset| {
        let request = FetchRequest { topic: "T", queue_id: 0, offset, count_max: 32, bytes_max: 10, filter: &filter };
        match fixture.fetch(&request) {
            Fetch::Nothing { why, next, .. } => (why, next),
            Fetch::Found { count, next, .. } => panic!("{count} found, next {next}"),
            Fetch::Pending => unreachable!(),
        }
    };
    assert_eq!(why(&mut fixture, 5), (Nothing::NoQueue, 0));
    fixture.shard.watch("T", 0);
    assert_eq!(why(&mut fixture, 5), (Nothing::Empty, 0));
    fixture.send("T", 0, numbered(3, 8));
    assert_eq!(why(&mut fixture, -1), (Nothing::TooSmall, 0));
    assert_eq!(why(&mut fixture, 3), (Nothing::AtEnd, 3));
    assert_eq!(why(&mut fixture, 4), (Nothing::BeyondEnd, 3));
    // The first message is delivered whatever its size.
    let request = FetchRequest { topic: "T", queue_id: 0, offset: 1, count_max: 0, bytes_max: 10, filter: &filter };
    assert!(matches!(fixture.fetch(&request), Fetch::Found { count: 1, next: 2, .. }));
    let request = FetchRequest { count_max: 32, ..request };
    assert!(matches!(fixture.fetch(&request), Fetch::Found { count: 1, next: 2, .. }));
    // A filter that nothing passes moves on by at most 800 rows.
    fixture.send("T", 0, numbered(1000, 8));
    let filter = TagFilter::Codes(Arc::from([1]));
    let request = FetchRequest { filter: &filter, ..request };
    assert!(matches!(fixture.fetch(&request), Fetch::Nothing { why: Nothing::NoMatch, next: 801, .. }));
    let request = FetchRequest { offset: 801, ..request };
    assert!(matches!(fixture.fetch(&request), Fetch::Nothing { why: Nothing::NoMatch, next: 1003, .. }));
}

/// Selects nothing, at the given cost.
#[derive(Debug)]
struct Costly(u32);

impl PropertyFilter for Costly {
    fn selects(&self, _properties: &[u8]) -> bool {
        false
    }

    fn passes_over_properties(&self) -> u32 {
        self.0
    }
}

#[test]
fn a_costly_filter_examines_fewer_records_but_at_least_one() {
    let mut fixture = Fixture::new();
    let with_properties = MessageDraft { properties: b"a\x011\x02", ..draft("T", 0, b"") };
    for _ in 0..100 {
        fixture.shard.append(&with_properties, 1000).unwrap();
    }
    fixture.settle(1000);
    let ten_records = FILTERED_BYTES_MAX.div_ceil(10 * with_properties.properties.len() as u64) as u32;
    for (passes, examined) in [(1, 100), (ten_records, 10), (u32::MAX, 1)] {
        let filter = TagFilter::Properties(Arc::new(Costly(passes)));
        let request =
            FetchRequest { topic: "T", queue_id: 0, offset: 0, count_max: 32, bytes_max: 10, filter: &filter };
        match fixture.fetch(&request) {
            Fetch::Nothing { why: Nothing::NoMatch, next, .. } => assert_eq!(next, examined, "{passes} passes"),
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn a_message_is_found_by_physical_offset_only_where_it_starts() {
    let mut fixture = Fixture::new();
    let mut placed = Vec::new();
    for body in numbered(500, 700) {
        placed.push(fixture.shard.append(&draft("T", 0, &body), 9).unwrap());
        fixture.settle(9);
    }
    fixture.restart();
    for (number, placed) in placed.iter().enumerate().step_by(50) {
        let found = loop {
            match fixture.shard.read_record(placed.physical_offset, TICKET) {
                ReadRecord::Pending => fixture.settle(9),
                found => break found,
            }
        };
        let ReadRecord::Found(slice) = found else { panic!("{found:?}") };
        assert_eq!(Record::decode(slice.as_ref()).unwrap().queue_offset, number as i64);
        let inside = PhysicalOffset::from_wire(placed.physical_offset.to_wire() + 1).unwrap();
        assert!(matches!(fixture.shard.read_record(inside, TICKET), ReadRecord::NotFound));
    }
    for raw in [0, i64::MAX, placed[0].physical_offset.to_wire() + (1 << 40)] {
        let offset = PhysicalOffset::from_wire(raw).unwrap();
        assert!(matches!(fixture.shard.read_record(offset, TICKET), ReadRecord::NotFound));
    }
}

#[test]
fn offsets_are_found_by_time() {
    let mut fixture = Fixture::new();
    // Two messages per 10 ms; the index pages of most are evicted.
    for number in 0..3000 {
        fixture.shard.append(&draft("T", 0, b"x"), 1000 + number / 2 * 10).unwrap();
        fixture.settle(0);
    }
    let mut search = |timestamp_ms, boundary| loop {
        match fixture.shard.search_time("T", 0, timestamp_ms, boundary, TICKET) {
            Searched::Done(offset) => return offset,
            Searched::Pending => fixture.storage.settle(&mut fixture.shard, 0),
            Searched::Failed(error) => panic!("{error}"),
        }
    };
    assert_eq!((search(0, Boundary::Lower), search(0, Boundary::Upper)), (0, 0));
    assert_eq!((search(1000, Boundary::Lower), search(1000, Boundary::Upper)), (0, 1));
    assert_eq!((search(6000, Boundary::Lower), search(6000, Boundary::Upper)), (1000, 1001));
    assert_eq!((search(6001, Boundary::Lower), search(6009, Boundary::Upper)), (1002, 1001));
    assert_eq!((search(15_990, Boundary::Lower), search(15_990, Boundary::Upper)), (2998, 2999));
    assert_eq!((search(99_999, Boundary::Lower), search(99_999, Boundary::Upper)), (3000, 2999));
    assert_eq!(fixture.shard.search_time("none", 0, 5, Boundary::Lower, TICKET), Searched::Done(0));
    assert_eq!(fixture.shard.store_time("T", 0, 2999, TICKET), StoreTime::Known(15_990));
    assert_eq!(fixture.shard.store_time("T", 0, 3000, TICKET), StoreTime::NotFound);
}

#[test]
fn an_owed_message_is_found_by_its_row_and_read_alone_until_another_takes_its_place() {
    let mut fixture = Fixture::new();
    let due = |due_ms: i64| format!("__DUE_MS\u{1}{due_ms}\u{2}TAGS\u{1}x\u{2}");
    for number in 0..200 {
        let (properties, body) = (due(5000 + number), [number as u8; 100]);
        let owed = MessageDraft { properties: properties.as_bytes(), ..draft("owed", 0, &body) };
        fixture.shard.append(&owed, 5).unwrap();
        fixture.settle(5);
    }
    let done = Done::one("\0own", "owed", 0, 130);
    fixture.shard.append_consuming(&draft("T", 0, b"delivered"), &done, 6).unwrap();
    fixture.settle(6);
    fixture.restart();
    assert_eq!(fixture.bodies_from("T", 0, 0), [b"delivered"]);
    assert!(fixture.shard.is_done("\0own", "owed", 0, 130) && !fixture.shard.is_done("\0own", "owed", 0, 131));
    assert_eq!(fixture.shard.offsets().count(), 0, "clients do not see the server's own groups");
    let mut rows = Vec::new();
    let mut from = 0;
    while from < 200 {
        match fixture.shard.rows("owed", 0, from, TICKET, |offset, code, message| rows.push((offset, code, message))) {
            Rows::UpTo(next) => from = next,
            Rows::Pending => fixture.settle(7),
            Rows::Failed(error) => panic!("{error}"),
        }
    }
    assert!(rows.iter().map(|(offset, code, _)| (*offset, *code)).eq((0..200).map(|at| (at, 5000 + at))));
    for (offset, _, message) in rows {
        let slice = loop {
            match fixture.shard.read_message(message, TICKET) {
                ReadRecord::Pending => fixture.settle(7),
                ReadRecord::Found(slice) => break slice,
                other => panic!("{other:?}"),
            }
        };
        assert_eq!(Record::decode(slice.as_ref()).unwrap().queue_offset, offset);
    }
}

/// Carries out all commands; of each read of the log, its length and that of its buffer.
fn log_reads(fixture: &mut Fixture) -> Vec<(u32, usize)> {
    let mut reads = Vec::new();
    fixture.shard.pump(1);
    while let Some(command) = fixture.shard.next_command() {
        if let CommandKind::Read { len, into, .. } = &command.kind {
            reads.push((*len, into.len()));
        }
        fixture.storage.carry_out(&mut fixture.shard, command);
    }
    reads
}

#[test]
fn messages_wanted_soon_are_read_by_the_chunk_where_many_stand_together_and_else_alone() {
    let mut fixture = Fixture::new();
    let mut messages: Vec<_> = numbered(600, 100)
        .iter()
        .map(|body| fixture.shard.append(&draft("T", 0, body), 1).expect("appended").message)
        .collect();
    fixture.settle(1);
    fixture.restart();
    // The last chunk is in memory after a start.
    messages.truncate(400);
    let mut scattered: Vec<_> = messages.iter().copied().step_by(90).rev().collect();
    fixture.shard.read_soon(&mut scattered);
    let reads = log_reads(&mut fixture);
    assert_eq!(reads.len(), scattered.len());
    assert!(reads.iter().all(|(len, buffer)| *len <= 8192 && *buffer == 8192), "{reads:?}");

    fixture.shard.read_soon(&mut messages.clone());
    let reads = log_reads(&mut fixture);
    assert!((3..8).contains(&reads.len()) && reads.iter().all(|read| *read == (16 * 1024, 16 * 1024)), "{reads:?}");
    for message in &messages {
        assert!(matches!(fixture.shard.read_message(*message, TICKET), ReadRecord::Found(_)));
    }
}

#[test]
fn offsets_and_settings_are_folded() {
    let mut fixture = Fixture::new();
    let first = fixture.shard.commit_offset("g", "T", 3, 10).unwrap();
    assert_eq!(fixture.shard.commit_offset("g", "T", 3, 10), Ok(first), "an unchanged value is not written again");
    fixture.shard.commit_offset("g", "T", 3, 5).unwrap();
    fixture.shard.commit_offset("g", "U", 0, 1).unwrap();
    fixture.shard.commit_offset("h", "T", 3, 2).unwrap();
    fixture.shard.put_setting(1, "a", Some(b"one")).unwrap();
    fixture.shard.put_setting(1, "b", Some(b"two")).unwrap();
    fixture.shard.put_setting(1, "a", None).unwrap();
    fixture.shard.put_setting(2, "b", Some(b"")).unwrap();
    fixture.shard.remove_offsets_of_group("h").unwrap();
    fixture.settle(0);
    for _ in 0..2 {
        let mut offsets: Vec<_> = fixture.shard.offsets().collect();
        offsets.sort_unstable();
        assert_eq!(offsets, [("g", "T", 3, 5), ("g", "U", 0, 1)]);
        assert_eq!(fixture.shard.settings(1).collect::<Vec<_>>(), [("b", &b"two"[..])]);
        assert_eq!(fixture.shard.setting(2, "b"), Some(&b""[..]));
        fixture.restart();
    }
}

#[test]
fn a_removed_topic_starts_again_at_zero() {
    let mut fixture = Fixture::new();
    fixture.send("T", 0, numbered(300, 10));
    fixture.shard.commit_offset("g", "T", 0, 4).unwrap();
    fixture.shard.watch("T", 0);
    // A removal with rows of the same queue still under way must not disturb the new queue.
    fixture.shard.append(&draft("T", 0, b"late"), 1).unwrap();
    fixture.shard.remove_topic("T").unwrap();
    assert_eq!(fixture.shard.arrival(), Some((Arc::from("T"), 0)));
    assert_eq!(fixture.shard.append(&draft("T", 0, b"new"), 1).unwrap().queue_offset, 0);
    fixture.settle(1);
    for _ in 0..2 {
        assert_eq!(fixture.shard.bounds("T", 0), Bounds { min: 0, max: 1 });
        assert_eq!(fixture.bodies_from("T", 0, 0), [b"new".to_vec()]);
        assert_eq!(fixture.shard.offset("g", "T", 0), None);
        fixture.restart();
    }
}

#[test]
fn a_failed_write_poisons_the_shard_but_not_its_readers() {
    let mut fixture = Fixture::new();
    fixture.send("T", 0, numbered(3, 10));
    fixture.shard.append(&draft("T", 0, b"lost"), 1).unwrap();
    fixture.shard.pump(1);
    let command = fixture.shard.next_command().unwrap();
    fixture.shard.complete(command.id, Err(StorageError::IO));
    assert_eq!(fixture.shard.append(&draft("T", 0, b"next"), 1), Err(AppendError::Poisoned));
    assert_eq!(fixture.shard.poison_reason(), Some(StorageError::IO));
    assert_eq!(fixture.bodies_from("T", 0, 0).len(), 3);
}

#[test]
fn a_damaged_record_is_skipped_and_its_neighbours_in_other_batches_are_not() {
    let mut fixture = Fixture::new();
    // One batch each, 3 segments, far more than stays in memory.
    fixture.send("T", 0, numbered(1000, 600));
    let first_from = |fixture: &mut Fixture, offset: i64| {
        let request =
            FetchRequest { topic: "T", queue_id: 0, offset, count_max: 1, bytes_max: 1, filter: &TagFilter::All };
        match fixture.fetch(&request) {
            Fetch::Found { slices, next, .. } => {
                let record = Record::decode(slices[0].as_ref()).unwrap();
                assert_eq!(next, record.queue_offset + 1);
                (record.queue_offset, record.physical_offset)
            }
            other => panic!("{other:?}"),
        }
    };
    let (_, damaged) = first_from(&mut fixture, 10);
    let damaged = PhysicalOffset::from_wire(damaged).unwrap();
    // Push the window with the record out of the read cache.
    fixture.bodies_from("T", 0, 0);
    let at = damaged.position().bytes() as usize + 300;
    fixture.storage.segment_mut(0).unwrap()[at] ^= 1;
    assert_eq!([9, 10, 11].map(|offset| first_from(&mut fixture, offset).0), [9, 11, 11]);
    assert_eq!(fixture.shard.counters().reads.damaged_records, 1);
}

#[test]
fn damage_before_the_end_is_refused_and_named_however_large_the_hole() {
    const MIB: usize = 1 << 20;
    let mut config = config(1);
    config.geometry = Geometry { segment_bytes: 64 << 20, chunk_bytes: 1 << 20 };
    let mut storage = MemoryStorage::new();
    let mut shard = storage.open(config.clone()).unwrap();
    for _ in 0..60 {
        shard.append(&draft("T", 0, &[7; 500_000]), 1).unwrap();
        storage.settle(&mut shard, 1);
    }
    (config.epoch, config.powered_since) = (2, 1);
    // One byte of a body; a header; and far more than is searched without gaps.
    for (from, len) in [(5 * MIB + 70, 1), (7 * MIB, 4), (2 * MIB, 20 * MIB)] {
        let mut damaged = storage.clone();
        damaged.segment_mut(0).unwrap()[from..from + len].fill(0);
        match Shard::recover(config.clone(), &mut damaged) {
            Err(RecoverError::Damaged { shard: 2, segment_start: 0, at, position, intact_from }) => {
                assert!(at == position && at <= from as u64 && (from - MIB) as u64 <= at, "{from}: found at {at}");
                assert!((from + len) as u64 <= intact_from, "{from}: intact from {intact_from}");
            }
            other => panic!("{:?}", other.map(|(_, recovered)| recovered)),
        }
    }
    // After a restart of the machine, ASYNC_FLUSH may have lost the same: the start works.
    let mut damaged = storage.clone();
    damaged.segment_mut(0).unwrap()[2 * MIB..3 * MIB].fill(0);
    config.powered_since = 2;
    assert!(Shard::recover(config, &mut damaged).is_ok());
}

#[test]
fn too_much_in_memory_is_backpressure() {
    let mut storage = MemoryStorage::new();
    let mut config = config(1);
    (config.undurable_bytes_max, config.durability) = (40_000, Durability::Sync);
    let mut shard = storage.open(config).unwrap();
    let body = [0; 10_000];
    let accepted = (0..100).take_while(|_| shard.append(&draft("T", 0, &body), 1).is_ok()).count();
    assert_eq!(accepted, 3, "each message takes a chunk of 16 KiB, and the bound is checked before it");
    assert!(matches!(shard.append(&draft("T", 0, b""), 1), Err(AppendError::BatchFull { pending_bytes: 40_000.. })));
    storage.settle(&mut shard, 1);
    assert!(shard.append(&draft("T", 0, &body), 1).is_ok());
}

/// A device with all the writes it can have gets more work only when one of them is done: what waits in memory would
/// delay the next message and speed up nothing.
#[test]
fn little_waits_behind_a_busy_device() {
    let mut storage = MemoryStorage::new();
    let config = ShardConfig { waiting_bytes_max: 4_500, eager_write_bytes: 0, ..config(1) };
    let mut shard = storage.open(config).unwrap();
    let body = [0; 1_000];
    shard.append(&draft("T", 0, &body), 1).unwrap();
    storage.settle(&mut shard, 1); // Both segments it asks for are there.
    let mut writes = Vec::new();
    let mut accepted = 0;
    while shard.append(&draft("T", 0, &body), 1).is_ok() {
        accepted += 1;
        shard.pump(1);
        writes.extend(std::iter::from_fn(|| shard.next_command()));
        assert!(accepted < 100, "appends are refused once enough waits");
    }
    assert_eq!(accepted, 4 + 2, "four writes are with the device, and two messages wait");
    assert!(matches!(shard.append(&draft("T", 0, &body), 1), Err(AppendError::BatchFull { .. })));
    storage.carry_out(&mut shard, writes.remove(0));
    assert!(shard.append(&draft("T", 0, &body), 1).is_ok(), "a write is done, another can go out");
}

#[test]
fn fields_that_do_not_fit_are_refused() {
    let mut fixture = Fixture::new();
    let long = vec![b'x'; 32_768];
    let mut too_long = draft("T", 0, b"");
    too_long.properties = &long;
    assert!(matches!(fixture.shard.append(&too_long, 0), Err(AppendError::FieldTooLong { field: "properties", .. })));
    let wide = fixture.shard.append(&draft("T", 65_536, b""), 0);
    assert!(matches!(wide, Err(AppendError::QueueOutOfRange { .. })));
    assert_eq!(fixture.shard.append(&draft("T", 65_535, b""), 0).unwrap().queue_offset, 0);
}

/// Verifies the whole log of the fixture's shard.
fn scrubbed(fixture: &mut Fixture) -> (u64, Vec<Rotten>) {
    let mut found = Vec::new();
    let config = fixture.shard.config();
    let log = fixture.shard.log_start().bytes()..fixture.shard.durable().bytes();
    let (shard, geometry) = (config.shard, config.geometry);
    let intact_bytes = scrub(&mut fixture.storage, shard, geometry, log, &mut |rotten| found.push(rotten))
        .expect("memory can be read");
    (intact_bytes, found)
}

#[test]
fn scrubbing_names_the_messages_that_have_rotted_and_only_those() {
    let mut fixture = Fixture::new();
    fixture.send("T", 1, numbered(700, 1000));
    let (whole, found) = scrubbed(&mut fixture);
    assert_eq!(found, []);
    assert!(700_000 < whole);
    let place_of = |fixture: &mut Fixture, offset: i64| {
        let request =
            FetchRequest { topic: "T", queue_id: 1, offset, count_max: 1, bytes_max: 0, filter: &TagFilter::All };
        let Fetch::Found { slices, .. } = fixture.fetch(&request) else { panic!("message {offset} is there") };
        let offset = Record::decode(slices[0].as_ref()).unwrap().physical_offset;
        PhysicalOffset::from_wire(offset).unwrap().position().bytes()
    };
    let flip = |fixture: &mut Fixture, offset: i64, at: u64| {
        let position = place_of(fixture, offset) + at;
        let segment = position - position % (256 * 1024);
        fixture.storage.segment_mut(segment).unwrap()[(position - segment) as usize] ^= 4;
        position
    };
    let in_body = flip(&mut fixture, 5, 500);
    let in_head = flip(&mut fixture, 300, 41);
    let last = flip(&mut fixture, 699, 500);
    let (intact, found) = scrubbed(&mut fixture);
    assert!(intact < whole);
    let offsets: Vec<_> = found.iter().map(|rotten| (rotten.messages[0].offsets.clone(), rotten.is_exact)).collect();
    assert_eq!(offsets, [(5..6, true), (300..301, false), (699..700, true)]);
    for (rotten, position) in found.iter().zip([in_body, in_head, last]) {
        assert!(rotten.range.contains(&position), "{rotten:?} is not where {position} is");
        assert_eq!((&*rotten.messages[0].topic, rotten.messages[0].queue_id), ("T", 1));
    }
}

#[test]
fn scrubbing_goes_on_behind_a_batch_of_which_nothing_can_be_read() {
    let mut fixture = Fixture::new();
    fixture.send("T", 1, numbered(700, 1000));
    let segment = fixture.storage.segment_mut(256 * 1024).unwrap();
    segment[8192..12288].fill(0);
    segment[200_000] ^= 1;
    let (_, found) = scrubbed(&mut fixture);
    assert_eq!(found.len(), 2, "{found:?}");
    assert!(found[0].range.start <= 256 * 1024 + 8192 && 256 * 1024 + 12288 <= found[0].range.end, "{found:?}");
    assert!(found[1].range.contains(&(256 * 1024 + 200_000)), "{found:?}");
}
