//! A disk that delays, reorders, tears, misdirects and loses writes, lets bits rot, and sometimes refuses to work.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::ops::Range;

use rmq_engine::{
    BatchHeader, CommandId, CommandKind, LogPosition, LogSource, SegmentSource, StorageCommand, StorageDone,
    StorageError, WriteBytes,
};

use crate::random::Random;

/// What a device writes atomically.
const SECTOR_BYTES: usize = 512;
const BLOCK_BYTES: usize = 4096;
/// The one shard of the simulation.
pub const SHARD: u16 = 5;
const NO_SPACE: StorageError = StorageError { errno: 28 };

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Crash {
    /// The process is gone; the kernel and the device live on.
    Kill,
    /// What was not forced to stable media may be gone too.
    PowerCut,
}

/// How often things go wrong, in percent.
#[derive(Clone, Copy, Debug, Default)]
pub struct Faults {
    pub write_error: usize,
    pub short_write: usize,
    pub read_error: usize,
    pub no_space: usize,
    pub snapshot_error: usize,
    /// Of the writes in flight when the process or the machine ends.
    pub misdirected: usize,
}

#[derive(Clone, Debug)]
struct Write {
    segment_start: u64,
    at: usize,
    bytes: Vec<u8>,
}

#[derive(Debug)]
struct InFlight {
    command: StorageCommand,
}

/// What the disk did, for the check that the simulation gets where it hurts.
#[derive(Clone, Copy, Debug, Default)]
pub struct DiskCounters {
    pub segments_recycled: u64,
    pub log_reads: u64,
    pub index_reads: u64,
    pub writes_beside_others: u64,
    pub snapshots_published: u64,
    pub snapshots_damaged: u64,
    pub segments_renamed: u64,
    pub segments_removed: u64,
    pub writes_misdirected: u64,
}

/// The files of one shard.
pub struct Disk {
    segment_bytes: usize,
    /// What a reader gets now.
    current: BTreeMap<u64, Vec<u8>>,
    /// What a power cut leaves for certain.
    stable: BTreeMap<u64, Vec<u8>>,
    /// Completed writes between the two, in order.
    unsynced: Vec<Write>,
    index: Vec<u8>,
    stable_index: Vec<u8>,
    snapshots: BTreeMap<u64, Vec<u8>>,
    unfinished_snapshot: Vec<u8>,
    damaged: BTreeSet<u64>,
    /// Everything below was durable when a snapshot was published, and so is stable.
    pub stable_end: u64,
    /// Up to where completed writes have reached in each segment.
    written_to: BTreeMap<u64, usize>,
    in_flight: Vec<InFlight>,
    /// Segments recovery has read.
    opened: BTreeSet<u64>,
    /// Pages of the index are written late, behind most other things.
    pub is_index_slow: bool,
    pub faults: Faults,
    pub counters: DiskCounters,
    /// Recovery may do this many operations more before the next crash.
    pub operations_left: Option<usize>,
}

impl Disk {
    pub fn new(segment_bytes: u64) -> Self {
        Self {
            segment_bytes: segment_bytes as usize,
            current: BTreeMap::new(),
            stable: BTreeMap::new(),
            unsynced: Vec::new(),
            index: Vec::new(),
            stable_index: Vec::new(),
            snapshots: BTreeMap::new(),
            unfinished_snapshot: Vec::new(),
            damaged: BTreeSet::new(),
            stable_end: 0,
            written_to: BTreeMap::new(),
            in_flight: Vec::new(),
            opened: BTreeSet::new(),
            is_index_slow: false,
            faults: Faults::default(),
            counters: DiskCounters::default(),
            operations_left: None,
        }
    }

    /// Changes bits of one byte of the log, wherever it is kept.
    pub fn flip(&mut self, position: u64, bits: u8) {
        let (segment_start, at) = self.place_of(position);
        for files in [&mut self.current, &mut self.stable] {
            if let Some(file) = files.get_mut(&segment_start) {
                file[at] ^= bits;
            }
        }
        for write in self.unsynced.iter_mut().filter(|write| write.segment_start == segment_start) {
            if let Some(byte) = at.checked_sub(write.at).and_then(|at| write.bytes.get_mut(at)) {
                *byte ^= bits;
            }
        }
    }

    fn place_of(&self, position: u64) -> (u64, usize) {
        let at = position % self.segment_bytes as u64;
        (position - at, at as usize)
    }

    /// Position and length of the batches that stand in the log below `end`. The log must be intact up to there.
    pub fn batches(&self, end: u64) -> Vec<(u64, usize)> {
        let mut batches: Vec<(u64, usize)> = Vec::new();
        let mut previous_checksum = 0;
        for (start, file) in self.current.range(..end) {
            let mut at = 0;
            while at + BatchHeader::SIZE_BYTES <= file.len() && start + (at as u64) < end {
                match BatchHeader::decode(&file[at..], SHARD, LogPosition::new(start + at as u64)) {
                    // The chain leaves out what earlier lives left in gaps.
                    Ok((header, _, checksum)) if header.previous_checksum == previous_checksum => {
                        previous_checksum = checksum;
                        batches.push((start + at as u64, header.total_bytes as usize));
                        at = (at + header.total_bytes as usize).next_multiple_of(8);
                    }
                    _ => at += 8,
                }
            }
        }
        batches
    }

    /// The same files once more, to try something on. Reads and index writes in flight stay with the original.
    ///
    /// # Panics
    /// If the log is being written.
    pub fn copy(&self) -> Self {
        let changes_log =
            |kind: &CommandKind| matches!(kind, CommandKind::Write { .. } | CommandKind::PrepareSegment { .. });
        let is_log_quiet = !self.in_flight.iter().any(|flying| changes_log(&flying.command.kind));
        assert!(is_log_quiet, "a log is copied while nobody writes it");
        Self {
            segment_bytes: self.segment_bytes,
            current: self.current.clone(),
            stable: self.stable.clone(),
            unsynced: self.unsynced.clone(),
            index: self.index.clone(),
            stable_index: self.stable_index.clone(),
            snapshots: self.snapshots.clone(),
            damaged: self.damaged.clone(),
            stable_end: self.stable_end,
            written_to: self.written_to.clone(),
            ..Self::new(self.segment_bytes as u64)
        }
    }

    /// What a reader of the log gets from `position` to the end of its segment; nothing if that does not exist.
    pub fn log_at(&self, position: u64) -> &[u8] {
        let at = position as usize % self.segment_bytes;
        self.current.get(&(position - at as u64)).map_or(&[], |file| &file[at..])
    }

    /// Puts bytes there for good, by no write of the shard.
    pub fn overwrite_log(&mut self, position: u64, bytes: &[u8]) {
        let at = position as usize % self.segment_bytes;
        let write = Write { segment_start: position - at as u64, at, bytes: bytes.to_vec() };
        put(&mut self.current, &write);
        put(&mut self.stable, &write);
    }

    /// Takes bytes of another shard's log, in a segment of zeros if there is none yet. Stable at once.
    pub fn receive(&mut self, position: u64, bytes: &[u8]) {
        let segment_start = self.place_of(position).0;
        for files in [&mut self.current, &mut self.stable] {
            files.entry(segment_start).or_insert_with(|| vec![0; self.segment_bytes]);
        }
        self.overwrite_log(position, bytes);
    }

    /// Cuts the log off: nothing is left behind `end`, nor anything that was made of it.
    pub fn cut(&mut self, end: u64) {
        let (segment_start, at) = self.place_of(end);
        let mut cut = Self::new(self.segment_bytes as u64);
        cut.current = self.current.range(..=segment_start).map(|(start, bytes)| (*start, bytes.clone())).collect();
        if let Some(last) = cut.current.get_mut(&segment_start) {
            last[at..].fill(0);
        }
        cut.stable = cut.current.clone();
        *self = cut;
    }

    /// A bit of the log rots.
    pub fn flip_bit(&mut self, position: u64, bit: usize) {
        self.flip(position, 1 << bit);
    }

    /// Bytes of the index file.
    pub fn index_len(&self) -> usize {
        self.index.len()
    }

    /// A bit of the index rots.
    pub fn flip_index_bit(&mut self, at: usize, bit: usize) {
        self.index[at] ^= 1 << bit;
    }

    pub fn is_idle(&self) -> bool {
        self.in_flight.is_empty()
    }

    /// Takes a command; checks what the shard promises about its writes.
    pub fn submit(&mut self, command: StorageCommand, durable: LogPosition) {
        if let CommandKind::Write { segment_start, at, data, .. } = &command.kind {
            let (start, end) = (*at, at + data.len() as u64);
            assert!(start.is_multiple_of(4096) && end <= self.segment_bytes as u64, "whole blocks inside the segment");
            let mut is_alone = true;
            for other in &self.in_flight {
                if let CommandKind::Write { segment_start: segment, at, data, .. } = &other.command.kind {
                    is_alone = false;
                    let overlaps = segment == segment_start && *at < end && start < at + data.len() as u64;
                    assert!(!overlaps, "two writes in flight touch the same block");
                }
            }
            self.counters.writes_beside_others += u64::from(!is_alone);
            let file = self.current.get(segment_start).expect("writes go to prepared segments only");
            let padding = &device_view(data)[data.without_padding().len()..];
            assert!(padding.iter().all(|byte| *byte == 0), "the rest of the last block is zero");
            let durable_bytes = durable.bytes().saturating_sub(segment_start + start).min(data.len() as u64) as usize;
            let durable_bytes = durable_bytes.min(data.without_padding().len());
            let at = start as usize;
            assert_eq!(
                data.without_padding()[..durable_bytes],
                file[at..at + durable_bytes],
                "a rewritten block repeats its durable bytes"
            );
        }
        self.in_flight.push(InFlight { command });
    }

    /// Completes one command, whichever.
    pub fn complete_one(&mut self, random: &mut Random) -> Option<(CommandId, Result<StorageDone, StorageError>)> {
        if self.in_flight.is_empty() {
            return None;
        }
        let mut index = random.below(self.in_flight.len());
        if self.is_index_slow && matches!(self.in_flight[index].command.kind, CommandKind::WriteIndex { .. }) {
            for _ in 0..6 {
                let other = random.below(self.in_flight.len());
                if !matches!(self.in_flight[other].command.kind, CommandKind::WriteIndex { .. }) {
                    index = other;
                }
            }
        }
        let StorageCommand { id, kind } = self.in_flight.swap_remove(index).command;
        Some((id, self.carry_out(kind, random)))
    }

    fn carry_out(&mut self, kind: CommandKind, random: &mut Random) -> Result<StorageDone, StorageError> {
        match kind {
            CommandKind::Write { segment_start, at, data, sync } => {
                let write = Write { segment_start, at: at as usize, bytes: device_view(&data).to_vec() };
                if random.chance(self.faults.write_error) {
                    let torn = tear(&write, random);
                    self.apply(torn, false);
                    return Err(StorageError::IO);
                }
                if random.chance(self.faults.short_write) {
                    let bytes = random.below(write.bytes.len() / SECTOR_BYTES) * SECTOR_BYTES;
                    self.apply(vec![Write { bytes: write.bytes[..bytes].to_vec(), ..write }], false);
                    return Ok(StorageDone::Written { bytes: bytes as u64 });
                }
                let reached = self.written_to.entry(segment_start).or_default();
                *reached = (*reached).max(write.at + write.bytes.len());
                self.apply(vec![write], sync);
                Ok(StorageDone::Written { bytes: data.len() as u64 })
            }
            CommandKind::Read { segment_start, at, len, mut into } => {
                self.counters.log_reads += 1;
                if random.chance(self.faults.read_error) {
                    return Err(StorageError::IO);
                }
                let file = self.current.get(&segment_start).ok_or(StorageError::IO)?;
                let at = at as usize;
                into.as_mut_slice()[..len as usize].copy_from_slice(&file[at..at + len as usize]);
                Ok(StorageDone::Read { into, bytes: u64::from(len) })
            }
            CommandKind::WriteIndex { at, pages } => {
                let mut at = at as usize;
                for page in &pages {
                    self.write_index_at(at, page.as_slice());
                    at += page.len();
                }
                Ok(StorageDone::IndexWritten)
            }
            CommandKind::ReadIndex { at, mut into } => {
                self.counters.index_reads += 1;
                if random.chance(self.faults.read_error) {
                    return Err(StorageError::IO);
                }
                let at = at as usize;
                let len = into.len();
                into.as_mut_slice().copy_from_slice(&self.index[at..at + len]);
                Ok(StorageDone::IndexRead { into })
            }
            CommandKind::PrepareSegment { segment_start, len_bytes, from } => {
                assert_eq!(len_bytes, self.segment_bytes as u64);
                if random.chance(self.faults.no_space) {
                    return Err(NO_SPACE);
                }
                match from {
                    Some(from) => self.rename_segment(from, segment_start),
                    None => self.make_segment(segment_start, random),
                }
                Ok(StorageDone::SegmentReady)
            }
            CommandKind::RemoveSegment { segment_start } => {
                self.remove_segment(segment_start);
                Ok(StorageDone::SegmentRemoved)
            }
            CommandKind::WriteSnapshot { at, bytes, .. } => {
                assert!(at == 0 || at == self.unfinished_snapshot.len() as u64, "parts are written behind each other");
                self.unfinished_snapshot.truncate(at as usize);
                if random.chance(self.faults.snapshot_error) {
                    return Err(NO_SPACE);
                }
                self.unfinished_snapshot.extend_from_slice(&bytes);
                Ok(StorageDone::SnapshotWritten)
            }
            CommandKind::PublishSnapshot { start, log, keep_from } => {
                if random.chance(self.faults.snapshot_error) {
                    return Err(StorageError::IO);
                }
                self.publish_snapshot(start, &log, keep_from);
                Ok(StorageDone::SnapshotWritten)
            }
        }
    }

    fn publish_snapshot(&mut self, start: u64, log: &Range<u64>, keep_from: u64) {
        let first_segment = log.start / self.segment_bytes as u64 * self.segment_bytes as u64;
        self.sync(|segment| first_segment <= segment && segment < log.end);
        self.stable_index = self.index.clone();
        self.stable_end = self.stable_end.max(log.end);
        self.snapshots.insert(start, std::mem::take(&mut self.unfinished_snapshot));
        self.snapshots.retain(|start, _| keep_from <= *start);
        self.counters.snapshots_published += 1;
    }

    fn sync(&mut self, is_meant: impl Fn(u64) -> bool) {
        self.unsynced.retain(|write| !is_meant(write.segment_start));
        for (segment, bytes) in self.current.iter().filter(|(segment, _)| is_meant(**segment)) {
            self.stable.insert(*segment, bytes.clone());
        }
    }

    /// Another disk with the same log and no snapshots.
    pub fn log_only(&self) -> Self {
        let (current, stable, unsynced) = (self.current.clone(), self.stable.clone(), self.unsynced.clone());
        Self { current, stable, unsynced, ..Self::new(self.segment_bytes as u64) }
    }

    /// A new segment is seldom empty: it holds what an expired one, or someone else, left on the disk.
    fn make_segment(&mut self, segment_start: u64, random: &mut Random) {
        if self.current.contains_key(&segment_start) {
            return;
        }
        let bytes = match random.below(3) {
            0 => vec![0; self.segment_bytes],
            1 => (0..self.segment_bytes / 8).flat_map(|_| random.next().to_be_bytes()).collect(),
            _ => {
                self.counters.segments_recycled += 1;
                let olds: Vec<&Vec<u8>> = self.current.values().collect();
                if olds.is_empty() { vec![0; self.segment_bytes] } else { (*random.pick(&olds)).clone() }
            }
        };
        self.stable.insert(segment_start, bytes.clone());
        self.current.insert(segment_start, bytes);
    }

    /// Damages the newest snapshot, as long as something is left to begin with.
    fn damage_snapshot(&mut self, random: &mut Random) {
        let is_log_whole = self.current.first_key_value().is_none_or(|(start, _)| *start == 0);
        self.damaged.retain(|start| self.snapshots.contains_key(start));
        let good = self.snapshots.len() - self.damaged.len();
        if let Some(mut newest) = self.snapshots.last_entry()
            && (is_log_whole || 1 < good || self.damaged.contains(newest.key()))
        {
            let at = random.below(newest.get().len());
            newest.get_mut()[at] ^= 1 << random.below(8);
            self.damaged.insert(*newest.key());
            self.counters.snapshots_damaged += 1;
        }
    }

    /// Durable at once, as the driver's is.
    fn rename_segment(&mut self, from: u64, to: u64) {
        for files in [&mut self.current, &mut self.stable] {
            let bytes = files.remove(&from).expect("a segment that is used again is there");
            assert!(files.insert(to, bytes).is_none(), "a segment is made once");
        }
        // What was written to it before is of no interest any more.
        self.unsynced.retain(|write| write.segment_start != from);
        self.written_to.remove(&from);
        self.counters.segments_renamed += 1;
    }

    fn remove_segment(&mut self, segment_start: u64) {
        for files in [&mut self.current, &mut self.stable] {
            files.remove(&segment_start).expect("a segment that is removed is there");
        }
        self.unsynced.retain(|write| write.segment_start != segment_start);
        self.written_to.remove(&segment_start);
        self.counters.segments_removed += 1;
    }

    fn write_index_at(&mut self, at: usize, bytes: &[u8]) {
        if self.index.len() < at + bytes.len() {
            self.index.resize(at + bytes.len(), 0xEE);
        }
        self.index[at..at + bytes.len()].copy_from_slice(bytes);
    }

    fn apply(&mut self, writes: Vec<Write>, sync: bool) {
        for write in writes {
            put(&mut self.current, &write);
            if sync {
                put(&mut self.stable, &write);
            } else {
                self.unsynced.push(write);
            }
        }
    }

    /// Ends the process, or the machine. What was in flight is there in part; a power cut also loses parts of what
    /// was completed but not synced. The index file may be anything afterwards.
    pub fn crash(&mut self, crash: Crash, random: &mut Random) {
        for InFlight { command } in std::mem::take(&mut self.in_flight) {
            match command.kind {
                CommandKind::Write { segment_start, at, data, .. } => {
                    let mut write = Write { segment_start, at: at as usize, bytes: device_view(&data).to_vec() };
                    if random.chance(self.faults.misdirected) {
                        self.misdirect(&mut write, random);
                    }
                    let torn = tear(&write, random);
                    self.apply(torn, false);
                }
                CommandKind::PrepareSegment { segment_start, from, .. } if random.chance(50) => match from {
                    Some(from) => self.rename_segment(from, segment_start),
                    None => self.make_segment(segment_start, random),
                },
                CommandKind::RemoveSegment { segment_start } if random.chance(50) => {
                    self.remove_segment(segment_start);
                }
                CommandKind::WriteIndex { at, pages } => {
                    for (page, at) in pages.iter().zip((at as usize..).step_by(BLOCK_BYTES)) {
                        let kept = random.below(page.len() / SECTOR_BYTES + 1) * SECTOR_BYTES;
                        self.write_index_at(at, &page.as_slice()[..kept]);
                    }
                }
                CommandKind::PublishSnapshot { start, log, keep_from } if random.chance(50) => {
                    self.publish_snapshot(start, &log, *random.pick(&[0, keep_from]));
                }
                _ => {}
            }
        }
        self.opened.clear();
        if crash == Crash::PowerCut {
            for write in std::mem::take(&mut self.unsynced) {
                for part in tear(&write, random) {
                    put(&mut self.stable, &part);
                }
            }
            self.current = self.stable.clone();
            self.lose_index_pages(random);
        }
        self.unfinished_snapshot = if random.chance(50) { vec![0x77; 5000] } else { Vec::new() };
        if random.chance(10) {
            self.damage_snapshot(random);
        }
        self.operations_left = None;
    }

    /// A page that changed since the last snapshot was published is the old one, the new one, or neither.
    fn lose_index_pages(&mut self, random: &mut Random) {
        self.stable_index.resize(self.index.len(), 0xEE);
        for (stable, current) in self.stable_index.chunks_mut(BLOCK_BYTES).zip(self.index.chunks(BLOCK_BYTES)) {
            if stable != current {
                match random.below(3) {
                    0 => stable.copy_from_slice(current),
                    1 => stable.fill(0x5A),
                    _ => {}
                }
            }
        }
        self.index = self.stable_index.clone();
    }

    /// Sends a write to another block of its file. Never onto what a completed write has put there: no log could give
    /// that back.
    fn misdirect(&mut self, write: &mut Write, random: &mut Random) {
        let first = self.written_to.get(&write.segment_start).copied().unwrap_or(0).div_ceil(BLOCK_BYTES);
        let first = first.max(write.at / BLOCK_BYTES + 1);
        let last = (self.segment_bytes - write.bytes.len()) / BLOCK_BYTES;
        if first <= last {
            write.at = (first + random.below((last - first + 1).min(4))) * BLOCK_BYTES;
            self.counters.writes_misdirected += 1;
        }
    }

    fn count_operation(&mut self) -> io::Result<()> {
        match &mut self.operations_left {
            Some(0) => Err(io::Error::other("simulated crash")),
            Some(left) => {
                *left -= 1;
                Ok(())
            }
            None => Ok(()),
        }
    }
}

/// What the device reads from memory now, padding included.
fn device_view(data: &WriteBytes) -> &[u8] {
    // SAFETY: `data` keeps its memory, of which these are whole blocks. Shard and disk take turns on one thread, so
    // nobody writes while the view lives, whatever the shard does with the padding in between.
    unsafe { std::slice::from_raw_parts(data.as_ptr(), data.len()) }
}

fn put(files: &mut BTreeMap<u64, Vec<u8>>, write: &Write) {
    if let Some(file) = files.get_mut(&write.segment_start) {
        file[write.at..write.at + write.bytes.len()].copy_from_slice(&write.bytes);
    }
}

/// The sectors of a write that made it: all, none, the first ones, or any.
fn tear(write: &Write, random: &mut Random) -> Vec<Write> {
    let sectors = write.bytes.len() / SECTOR_BYTES;
    let style = random.below(5);
    let first = random.below(sectors + 1);
    let kept = (0..sectors).filter(|sector| match style {
        0 => true,
        1 => false,
        2 => *sector < first,
        3 => *sector >= first,
        _ => random.chance(50),
    });
    kept.map(|sector| Write {
        segment_start: write.segment_start,
        at: write.at + sector * SECTOR_BYTES,
        bytes: write.bytes[sector * SECTOR_BYTES..(sector + 1) * SECTOR_BYTES].to_vec(),
    })
    .collect()
}

impl SegmentSource for Disk {
    fn segments(&mut self) -> io::Result<Vec<u64>> {
        Ok(self.current.keys().rev().copied().collect())
    }

    fn read(&mut self, segment_start: u64, at: u64, into: &mut [u8]) -> io::Result<usize> {
        self.count_operation()?;
        self.opened.insert(segment_start);
        let file = self.current.get(&segment_start).ok_or(io::ErrorKind::NotFound)?;
        let rest = &file[at as usize..];
        let len = rest.len().min(into.len());
        into[..len].copy_from_slice(&rest[..len]);
        Ok(len)
    }
}

impl LogSource for Disk {
    fn write_index(&mut self, at: u64, pages: &[u8]) -> io::Result<()> {
        self.count_operation()?;
        self.write_index_at(at as usize, pages);
        Ok(())
    }

    fn make_stable(&mut self) -> io::Result<()> {
        self.count_operation()?;
        let opened = std::mem::take(&mut self.opened);
        self.sync(|segment| opened.contains(&segment));
        Ok(())
    }

    fn snapshots(&mut self) -> io::Result<Vec<u64>> {
        self.count_operation()?;
        Ok(self.snapshots.keys().rev().copied().collect())
    }

    fn read_snapshot(&mut self, start: u64, at: u64, into: &mut [u8]) -> io::Result<usize> {
        self.count_operation()?;
        let file = self.snapshots.get(&start).ok_or(io::ErrorKind::NotFound)?;
        let rest = file.get(at as usize..).unwrap_or_default();
        let len = rest.len().min(into.len());
        into[..len].copy_from_slice(&rest[..len]);
        Ok(len)
    }

    fn remove_snapshot(&mut self, start: u64) -> io::Result<()> {
        self.count_operation()?;
        self.snapshots.remove(&start);
        Ok(())
    }
}
