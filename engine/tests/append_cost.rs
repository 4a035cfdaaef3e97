//! What an append costs: no allocation once warm, and (run by hand, in release) how long it takes.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Instant;

use allocation_counter::measure;
use rmq_engine::memory::MemoryStorage;
use rmq_engine::{CommandKind, MessageDraft, MessageKeys, Shard, ShardConfig, StorageDone};

const HOST: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 10911);

const PROPERTIES: &[u8] = b"UNIQ_KEY\x017F0000010000123456789ABCDEF0123\x02WAIT\x01true\x02";

fn shard() -> Shard {
    let mut config = ShardConfig::new(0, 1);
    // Small enough to have every pool in use after a few thousand messages.
    config.tail_bytes_max = 8 << 20;
    config.index_bytes_max = 64 << 10;
    MemoryStorage::new().open(config).unwrap()
}

fn draft<'a>(body: &'a [u8], queue_id: u32) -> MessageDraft<'a> {
    MessageDraft {
        topic: "BenchmarkTopic",
        queue_id,
        flag: 0,
        sys_flag: 0,
        born_timestamp_ms: 1,
        born_host: HOST,
        store_host: HOST,
        reconsume_times: 0,
        prepared_transaction_offset: 0,
        body,
        properties: PROPERTIES,
        keys: MessageKeys::of(PROPERTIES),
    }
}

/// A device that takes everything and keeps nothing.
fn complete_all(shard: &mut Shard) {
    shard.pump(1);
    while let Some(command) = shard.next_command() {
        let done = match command.kind {
            CommandKind::Write { data, .. } => StorageDone::Written { bytes: data.len() as u64 },
            CommandKind::WriteIndex { .. } => StorageDone::IndexWritten,
            CommandKind::PrepareSegment { .. } => StorageDone::SegmentReady,
            CommandKind::WriteSnapshot { .. } | CommandKind::PublishSnapshot { .. } => StorageDone::SnapshotWritten,
            CommandKind::Read { .. } | CommandKind::ReadIndex { .. } | CommandKind::RemoveSegment { .. } => {
                unreachable!("nothing is read or retired")
            }
        };
        shard.complete(command.id, Ok(done));
    }
}

fn append(shard: &mut Shard, count: u32, body: &[u8]) {
    for number in 0..count {
        shard.append(&draft(body, number % 4), 1).unwrap();
        if number % 256 == 255 {
            complete_all(shard);
        }
    }
}

#[test]
fn a_warm_append_allocates_nothing() {
    let (mut shard, body) = (shard(), [7; 1024]);
    append(&mut shard, 40_960, &body);
    let allocations = measure(|| append(&mut shard, 10_240, &body)).count_total;
    // What is left: a queue's page directory doubling, and the page list of an index write, one per 32 pages.
    assert!(allocations <= 100, "{allocations} allocations for 10,240 messages");
}

/// `cargo test --release -p rmq-engine --test append_cost -- --ignored --nocapture`
#[test]
#[ignore = "a measurement, not a check"]
fn measure_time() {
    for size in [128, 1024, 4096] {
        let (mut shard, body) = (shard(), vec![7; size]);
        append(&mut shard, 102_400, &body);
        let started = Instant::now();
        append(&mut shard, 512_000, &body);
        println!("{size} bytes: {} ns per message", started.elapsed().as_nanos() / 512_000);
    }
}
