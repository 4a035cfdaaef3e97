//! What is tried on copies of the disk after a crash: recovery that is interrupted at every step, batches that look
//! almost like the next one, bits that rot. The run itself goes on as if none of it had happened.

use rmq_engine::commit_log::batch::BatchHeader;
use rmq_engine::{
    Fetch, FetchRequest, Geometry, LogPosition, Nothing, ReadRecord, Record, RecoverError, Recovered, Shard, TagFilter,
};

use super::{TICKET, World, check_record};
use crate::disk::{Crash, Disk};
use crate::model::{Sent, State};

/// Number of the shard whose log it is.
const SHARD: u16 = 5;
/// A record no one has sent, and which may stand anywhere: setting `ghost` of kind 1 has value `boo`.
const GHOST: &[u8] = b"\0\0\0\x18RMQI\x04\x01\0\x05ghost\0\0\0\x03boo";

/// What makes a batch not the next one, although all else about it is right.
#[derive(Clone, Copy, Debug)]
enum Flaw {
    /// It was written in an earlier epoch than the last one, whose checksum its own predecessor shares by chance.
    Epoch,
    /// It was meant for another place: the write was misdirected.
    Position,
    /// It follows another batch: this one's place was used before.
    Chain,
    /// It was torn.
    Checksum,
    /// It is another shard's.
    Shard,
}

/// A batch of the log as the plainest reader finds it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Batch {
    pub header: BatchHeader,
    checksum: u32,
}

impl Batch {
    pub fn start(&self) -> u64 {
        self.header.position.bytes()
    }

    pub fn end(&self) -> u64 {
        self.start() + u64::from(self.header.total_bytes)
    }
}

/// Where a batch that follows one ending at `end` can stand.
fn next_places(geometry: Geometry, end: u64) -> [u64; 4] {
    [
        end.next_multiple_of(8),
        end.next_multiple_of(4096),
        end.next_multiple_of(geometry.chunk_bytes),
        end.next_multiple_of(geometry.segment_bytes),
    ]
}

/// The batches of a log up to `end`, found without the engine's recovery.
pub(super) fn batches_of(disk: &Disk, geometry: Geometry, end: u64) -> Vec<Batch> {
    let mut batches: Vec<Batch> = Vec::new();
    loop {
        let (at, previous) = batches.last().map_or((0, 0), |last| (last.end(), last.checksum));
        if at >= end {
            return batches;
        }
        let follows = |position: &u64| {
            let decoded = BatchHeader::decode(disk.log_at(*position), SHARD, LogPosition::new(*position));
            let (header, _, checksum) = decoded.ok()?;
            (header.previous_checksum == previous).then_some(Batch { header, checksum })
        };
        let next = next_places(geometry, at).iter().find_map(follows);
        batches.push(next.expect("recovery ended behind a batch"));
    }
}

impl World {
    pub(super) fn recover_copy(&mut self, disk: &mut Disk) -> Result<(Shard, Recovered), RecoverError> {
        let config = Self::config(&mut self.random, self.geometry, self.epoch + 1, self.powered_since);
        Shard::recover(config, disk)
    }

    /// Ends recovery at each of its first steps, twice in a row: it must then find what it would have found at once.
    pub(super) fn try_crashes_in_recovery(&mut self) {
        if !self.random.chance(10) {
            return;
        }
        let mut whole = self.disk.copy();
        let (shard, recovered) = self.recover_copy(&mut whole).expect("recovery on a copy");
        // Which snapshot it began with may differ: a crash damages one now and then.
        let expected = shown(&shard, &recovered);
        for operations in 0..8 {
            let mut disk = self.disk.copy();
            for left in [operations, operations / 2] {
                disk.operations_left = Some(left);
                let interrupted = self.recover_copy(&mut disk);
                disk.operations_left = None;
                let is_complete = match interrupted {
                    Ok((shard, recovered)) => {
                        assert!(is_same(&expected, &shown(&shard, &recovered)));
                        true
                    }
                    Err(RecoverError::Io(_)) => false,
                    Err(error) => panic!("{error}"),
                };
                self.summary.recoveries_interrupted += u64::from(!is_complete);
                // What a completed recovery has shown must survive the power, too.
                let crash = if is_complete { Crash::PowerCut } else { Crash::Kill };
                disk.crash(crash, &mut self.random);
            }
            let (shard, recovered) = self.recover_copy(&mut disk).expect("recovery after a crash in it");
            let found = shown(&shard, &recovered);
            assert!(is_same(&expected, &found), "recovery found something else after it was interrupted");
        }
    }

    /// Puts a batch with one flaw where the next one belongs: the log must end before it.
    pub(super) fn try_lookalikes(&mut self, recovered: &Recovered) {
        if !self.random.chance(25) || self.shard.log_start() > LogPosition::new(0) {
            return;
        }
        let Some(last) = batches_of(&self.disk, self.geometry, recovered.end.bytes()).last().copied() else {
            return;
        };
        let flaw = *self.random.pick(&[Flaw::Epoch, Flaw::Position, Flaw::Chain, Flaw::Checksum, Flaw::Shard]);
        let position = *self.random.pick(&next_places(self.geometry, last.end()));
        let bytes = lookalike(&last, flaw, position);
        let mut disk = self.disk.copy();
        if disk.log_at(position).len() < bytes.len() {
            return;
        }
        disk.overwrite_log(position, &bytes);
        self.summary.lookalikes += 1;
        let (shard, again) = self.recover_copy(&mut disk).expect("a batch with a flaw is no reason to refuse a log");
        assert_eq!(again.end, recovered.end, "a batch with a wrong {flaw:?} was taken for the next one");
        assert_eq!(shard.setting(1, "ghost"), None);
    }

    /// Lets one bit of a batch rot, once under a running shard and once before a start.
    pub(super) fn try_flipped_bits(&mut self) {
        if !self.random.chance(25) || self.shard.log_start() > LogPosition::new(0) {
            return;
        }
        let batches = batches_of(&self.disk, self.geometry, self.stable_end);
        if batches.is_empty() {
            return;
        }
        let batch = *self.random.pick(&batches);
        let position = batch.start() + self.random.below(batch.header.total_bytes as usize) as u64;
        let bit = self.random.below(8);
        self.summary.bits_flipped += 1;
        self.read_beside_rot(Some(position), |disk| disk.flip_bit(position, bit));
        let index_len = self.disk.index_len();
        if index_len > 0 {
            let at = self.random.below(index_len);
            self.read_beside_rot(None, |disk| disk.flip_index_bit(at, bit));
        }
        self.recover_from_flipped_bit(&batch, position, bit);
    }

    /// Recovery must keep everything before the damaged batch and believe nothing of it. It may refuse the log.
    fn recover_from_flipped_bit(&mut self, batch: &Batch, position: u64, bit: usize) {
        // With a snapshot, what lies before it is not read.
        let mut disk = self.disk.log_only();
        disk.flip_bit(position, bit);
        let Ok((shard, recovered)) = self.recover_copy(&mut disk) else {
            return;
        };
        let before = self.history.partition_point(|appended| appended.end <= batch.start());
        let end = self.history[..before].last().map_or(0, |appended| appended.end);
        assert_eq!(recovered.end.bytes(), end, "the log ends before the batch that is damaged at {position}");
        assert_eq!(recovered.records, before as u64);
        let state = State::of(&self.history[..before]);
        for (topic, queue_id, bounds) in shard.all_queues() {
            let sent = state.queues.iter().find(|((of, id), _)| (*of, *id) == (topic, queue_id));
            assert_eq!(bounds.max, sent.map_or(-1, |(_, sent)| sent.len() as i64), "queue {queue_id} of {topic}");
        }
    }

    /// Every message must be right or be reported as damaged, and only the one with the byte at `hit` may be. Without
    /// such a byte it is the index that rots: then a message may be refused for now.
    fn read_beside_rot(&mut self, hit: Option<u64>, rot: impl FnOnce(&mut Disk)) {
        let mut disk = self.disk.copy();
        let (shard, _) = self.recover_copy(&mut disk).expect("recovery on a copy");
        rot(&mut disk);
        let disk = std::mem::replace(&mut self.disk, disk);
        let shard = std::mem::replace(&mut self.shard, shard);
        let queues: Vec<_> = self.state.queues.iter().map(|(place, sent)| (*place, sent.clone())).collect();
        for ((topic, queue_id), sent) in &queues {
            for (offset, sent) in sent.iter().enumerate() {
                self.read_beside_rot_at(topic, *queue_id, offset as i64, sent, hit);
                self.read_record_beside_rot(topic, sent, hit);
            }
        }
        self.disk = disk;
        self.shard = shard;
    }

    fn read_beside_rot_at(&mut self, topic: &'static str, queue_id: u32, offset: i64, sent: &Sent, hit: Option<u64>) {
        let is_hit = is_hit(sent, topic, hit);
        let is_gone = || assert!(is_hit, "the message {offset} of {topic} is gone, the damage is at {hit:?}");
        let request = FetchRequest { topic, queue_id, offset, count_max: 1, bytes_max: 0, filter: &TagFilter::All };
        loop {
            match self.shard.fetch(&request, TICKET) {
                Fetch::Pending => self.await_ready(),
                Fetch::Found { slices, .. } => {
                    let bytes = slices[0].as_ref();
                    if Record::decode(bytes).is_ok_and(|record| record.queue_offset == offset) {
                        // The chunk that is written next is in memory, where nothing rots.
                        break check_record(&Record::decode(bytes).expect("it was just read"), sent);
                    }
                    // A damaged message is passed over.
                    is_gone();
                    self.summary.flips_noticed += 1;
                    break;
                }
                Fetch::Nothing { why: Nothing::Removed, .. } => {
                    is_gone();
                    self.summary.flips_noticed += 1;
                    break;
                }
                Fetch::Nothing { why: Nothing::ReadFailed(_), .. } if hit.is_none() => {
                    self.summary.flips_noticed += 1;
                    break;
                }
                other => panic!("{other:?}"),
            }
        }
    }

    fn read_record_beside_rot(&mut self, topic: &'static str, sent: &Sent, hit: Option<u64>) {
        loop {
            match self.shard.read_record(sent.physical_offset, TICKET) {
                ReadRecord::Pending => self.await_ready(),
                ReadRecord::Found(slice) => {
                    break check_record(&Record::decode(slice.as_ref()).expect("a record"), sent);
                }
                ReadRecord::NotFound if is_hit(sent, topic, hit) => break,
                ReadRecord::Failed(_) if hit.is_none() => break,
                other => panic!("{other:?}"),
            }
        }
    }
}

/// Whether the byte at this place of the log is one of the message's record.
fn is_hit(sent: &Sent, topic: &str, hit: Option<u64>) -> bool {
    let start = sent.physical_offset.position().bytes();
    let end = start + super::record_bytes(sent, topic).bytes();
    hit.is_some_and(|hit| (start..end).contains(&hit))
}

/// Where the log begins and ends, and what it adds up to.
type Shown = (LogPosition, LogPosition, u32);

fn shown(shard: &Shard, recovered: &Recovered) -> Shown {
    (shard.log_start(), recovered.end, shard.state_digest())
}

/// An older snapshot may not know yet that a segment was to go; then there is a little more.
fn is_same(expected: &Shown, found: &Shown) -> bool {
    expected == found || (expected.1 == found.1 && expected.0 != found.0)
}

fn lookalike(last: &Batch, flaw: Flaw, position: u64) -> Vec<u8> {
    let mut bytes = vec![0; BatchHeader::SIZE_BYTES];
    bytes.extend_from_slice(GHOST);
    let mut header = BatchHeader {
        total_bytes: bytes.len() as u32,
        record_count: 1,
        position: LogPosition::new(position),
        previous_checksum: last.checksum,
        ..last.header
    };
    match flaw {
        Flaw::Epoch => header.epoch -= 1,
        Flaw::Position => header.position = LogPosition::new(position + 4096),
        Flaw::Chain => header.previous_checksum ^= 1,
        Flaw::Shard => header.shard += 1,
        Flaw::Checksum => {}
    }
    header.seal(&mut bytes);
    if let Flaw::Checksum = flaw {
        bytes.pop();
        bytes.push(b'?');
    }
    bytes
}
