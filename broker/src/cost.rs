//! What a message costs a core: no memory is asked for once its buffers are warm, and bodies are not copied on their
//! way out.

use allocation_counter::measure;
use rmq_engine::{CommandKind, StorageDone};
use rmq_net::codes::{request as code, response};
use rmq_net::connection::Verdict;
use rmq_net::frame::{Frame, Serialization};
use rmq_net::reply::FrameWriter;

use crate::broker::Broker;
use crate::testing::{Cores, client_of, pull_fields};

const BODY_BYTES: usize = 4096;
const QUEUES: u32 = 4;
/// Sends of one turn.
const BURST: u32 = 256;
/// More than the memory for the end of the log: after so many, every buffer comes from a pool.
const WARM_BURSTS: u32 = 180;
const PULLED: usize = 32;

fn frame(code: i32, ext: &[(&'static str, &str)], body: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    FrameWriter::request(&mut bytes, Serialization::Json, code, 7, false, body.len(), |writer| {
        ext.iter().for_each(|(key, value)| writer.text(key, value));
    });
    bytes.extend_from_slice(body);
    bytes
}

fn send_frame(queue_id: u32) -> Vec<u8> {
    let queue_id = queue_id.to_string();
    let properties = "UNIQ_KEY\u{1}7F0000010000123456789ABCDEF01234\u{2}WAIT\u{1}true\u{2}TAGS\u{1}A\u{2}";
    let ext = [
        ("a", "producers"),
        ("b", "T"),
        ("c", "TBW102"),
        ("d", "8"),
        ("e", queue_id.as_str()),
        ("f", "0"),
        ("g", "1699999999000"),
        ("h", "0"),
        ("i", properties),
        ("j", "0"),
        ("k", "false"),
        ("m", "false"),
    ];
    frame(code::SEND_MESSAGE_V2, &ext, &[b'x'; BODY_BYTES])
}

/// A turn whose storage takes everything and keeps nothing.
fn turn(broker: &mut Broker) {
    let now_ms = broker.now_ms;
    broker.shard.pump(now_ms);
    while let Some(command) = broker.shard.next_command() {
        let done = match command.kind {
            CommandKind::Write { data, .. } => StorageDone::Written { bytes: data.len() as u64 },
            CommandKind::WriteIndex { .. } => StorageDone::IndexWritten,
            CommandKind::PrepareSegment { .. } => StorageDone::SegmentReady,
            CommandKind::WriteSnapshot { .. } | CommandKind::PublishSnapshot { .. } => StorageDone::SnapshotWritten,
            CommandKind::RemoveSegment { .. } => StorageDone::SegmentRemoved,
            CommandKind::Read { .. } | CommandKind::ReadIndex { .. } => unreachable!("all that is read is in memory"),
        };
        broker.shard.complete(command.id, Ok(done));
    }
    broker.on_turn_end(now_ms);
}

/// Sends one burst and returns how many sends were answered.
fn send_burst(broker: &mut Broker, frames: &[Vec<u8>]) -> usize {
    for number in 0..BURST {
        let verdict = broker.on_frame(&client_of(0), &frames[(number % QUEUES) as usize]);
        assert_eq!(verdict, Verdict::Later, "a send is taken");
    }
    let mut answers = 0;
    while answers < BURST as usize {
        turn(broker);
        let Some(parcel) = broker.take_own_replies() else { continue };
        answers += parcel.items.len();
        broker.on_delivered(parcel);
    }
    answers
}

/// A broker that has taken in so much that its buffers are warm.
fn warm(frames: &[Vec<u8>]) -> Cores {
    let mut cores = Cores::new(1);
    assert_eq!(cores.send(0, "T", 0, &[("TAGS", "A")]).code, response::SUCCESS);
    assert_eq!(cores.call(0, code::PULL_MESSAGE, &pull_fields("0", "0"), b"").code, response::SUCCESS);
    for _ in 0..WARM_BURSTS {
        send_burst(cores.broker(0), frames);
    }
    cores
}

#[test]
fn a_message_sent_to_a_warm_core_allocates_nothing_and_one_read_at_the_end_is_not_copied() {
    let frames: Vec<_> = (0..QUEUES).map(send_frame).collect();
    let mut cores = warm(&frames);
    let broker = cores.broker(0);

    const BURSTS: u32 = 40;
    let mut answers = 0;
    let count = measure(|| answers = (0..BURSTS).map(|_| send_burst(broker, &frames)).sum()).count_total;
    assert_eq!(answers, (BURSTS * BURST) as usize);
    // What is left is not per message: page lists of index writes, a queue's page directory, a batch's lists.
    assert!(count * 100 <= u64::from(BURSTS * BURST), "{count} allocations for {answers} messages");

    let end = i64::from((WARM_BURSTS + BURSTS) * BURST / QUEUES) + 1;
    let offset = (end - PULLED as i64).to_string();
    let pull = frame(code::PULL_MESSAGE, &pull_fields("0", &offset), b"");
    let mut parcel = None;
    let pulling = measure(|| {
        assert_eq!(broker.on_frame(&client_of(0), &pull), Verdict::Later);
        parcel = broker.take_own_replies();
    });
    let parcel = parcel.expect("what is in memory is answered at once");
    let body_bytes: usize = parcel.slices.iter().map(|slice| slice.as_ref().len()).sum();
    assert!(body_bytes > PULLED * BODY_BYTES, "{PULLED} messages came: {body_bytes} bytes");
    assert!(parcel.bytes.len() < 1024, "the reply beside the messages: {} bytes", parcel.bytes.len());
    assert!(pulling.bytes_total < BODY_BYTES as u64, "to answer with {body_bytes} bytes: {pulling:?}");
    assert!(pulling.count_total <= PULLED as u64 / 2, "for a pull of {PULLED} messages: {pulling:?}");
    let mut whole = parcel.bytes.clone();
    parcel.slices.iter().for_each(|slice| whole.extend_from_slice(slice.as_ref()));
    assert_eq!(Frame::decode(&whole).expect("a whole frame").code, response::SUCCESS);
}
