//! A storage that keeps everything in memory and completes every command at once: for tests of what stands on the
//! shard. Crashes, delays and errors are the simulator's business.

use std::collections::BTreeMap;
use std::io;

use crate::config::ShardConfig;
use crate::shard::{LogSource, RecoverError, SegmentSource, Shard};
use crate::storage::{CommandKind, StorageCommand, StorageDone};

/// The files of one shard.
#[derive(Clone, Debug, Default)]
pub struct MemoryStorage {
    segments: BTreeMap<u64, Vec<u8>>,
    index: Vec<u8>,
    snapshots: BTreeMap<u64, Vec<u8>>,
    unfinished_snapshot: Vec<u8>,
}

impl MemoryStorage {
    pub fn new() -> Self {
        Self::default()
    }

    /// A shard on what this storage holds; an empty shard at first.
    pub fn open(&mut self, config: ShardConfig) -> Result<Shard, RecoverError> {
        Shard::recover(config, self).map(|(shard, _)| shard)
    }

    /// Pumps the shard and carries out its commands until nothing is left to do: everything appended is durable.
    pub fn settle(&mut self, shard: &mut Shard, now_ms: i64) {
        loop {
            shard.pump(now_ms);
            let Some(command) = shard.next_command() else {
                return;
            };
            self.carry_out(shard, command);
            while let Some(command) = shard.next_command() {
                self.carry_out(shard, command);
            }
        }
    }

    /// The bytes of a segment file as far as they were written, to be damaged.
    pub fn segment_mut(&mut self, segment_start: u64) -> Option<&mut [u8]> {
        self.segments.get_mut(&segment_start).map(Vec::as_mut_slice)
    }

    /// Carries out one command and completes it.
    pub fn carry_out(&mut self, shard: &mut Shard, command: StorageCommand) {
        let done = match command.kind {
            CommandKind::Write { segment_start, at, data, .. } => {
                let file = self.segments.entry(segment_start).or_default();
                write_at(file, at, data.without_padding(), data.len());
                StorageDone::Written { bytes: data.len() as u64 }
            }
            CommandKind::Read { segment_start, at, len, mut into } => {
                let file = self.segments.get(&segment_start).map(Vec::as_slice).unwrap_or_default();
                let bytes = read_at(file, at, &mut into.as_mut_slice()[..len as usize]) as u64;
                StorageDone::Read { into, bytes }
            }
            CommandKind::WriteIndex { at, pages } => {
                for (page, at) in pages.iter().zip((at..).step_by(4096)) {
                    write_at(&mut self.index, at, page.as_slice(), page.len());
                }
                StorageDone::IndexWritten
            }
            CommandKind::ReadIndex { at, mut into } => {
                read_at(&self.index, at, into.as_mut_slice());
                StorageDone::IndexRead { into }
            }
            CommandKind::PrepareSegment { segment_start, from, .. } => {
                let bytes = from.and_then(|from| self.segments.remove(&from)).unwrap_or_default();
                self.segments.entry(segment_start).or_insert(bytes);
                StorageDone::SegmentReady
            }
            CommandKind::RemoveSegment { segment_start } => {
                self.segments.remove(&segment_start);
                StorageDone::SegmentRemoved
            }
            CommandKind::WriteSnapshot { at, bytes, .. } => {
                self.unfinished_snapshot.truncate(at as usize);
                self.unfinished_snapshot.extend_from_slice(&bytes);
                StorageDone::SnapshotWritten
            }
            CommandKind::PublishSnapshot { start, keep_from, .. } => {
                self.snapshots.insert(start, std::mem::take(&mut self.unfinished_snapshot));
                self.snapshots.retain(|start, _| keep_from <= *start);
                StorageDone::SnapshotWritten
            }
        };
        shard.complete(command.id, Ok(done));
    }
}

/// Writes `bytes` and zeros up to `len`.
fn write_at(file: &mut Vec<u8>, at: u64, bytes: &[u8], len: usize) {
    let at = at as usize;
    if file.len() < at + len {
        file.resize(at + len, 0);
    }
    file[at..at + bytes.len()].copy_from_slice(bytes);
    file[at + bytes.len()..at + len].fill(0);
}

fn read_at(file: &[u8], at: u64, into: &mut [u8]) -> usize {
    let rest = usize::try_from(at).ok().and_then(|at| file.get(at..)).unwrap_or_default();
    let len = rest.len().min(into.len());
    into[..len].copy_from_slice(&rest[..len]);
    len
}

impl SegmentSource for MemoryStorage {
    fn segments(&mut self) -> io::Result<Vec<u64>> {
        Ok(self.segments.keys().copied().collect())
    }

    fn read(&mut self, segment_start: u64, at: u64, into: &mut [u8]) -> io::Result<usize> {
        let file = self.segments.get(&segment_start).map(Vec::as_slice).unwrap_or_default();
        Ok(read_at(file, at, into))
    }
}

impl LogSource for MemoryStorage {
    fn write_index(&mut self, at: u64, pages: &[u8]) -> io::Result<()> {
        write_at(&mut self.index, at, pages, pages.len());
        Ok(())
    }

    fn make_stable(&mut self) -> io::Result<()> {
        Ok(())
    }

    fn snapshots(&mut self) -> io::Result<Vec<u64>> {
        Ok(self.snapshots.keys().copied().collect())
    }

    fn read_snapshot(&mut self, start: u64, at: u64, into: &mut [u8]) -> io::Result<usize> {
        Ok(read_at(self.snapshots.get(&start).ok_or(io::ErrorKind::NotFound)?, at, into))
    }

    fn remove_snapshot(&mut self, start: u64) -> io::Result<()> {
        self.snapshots.remove(&start);
        Ok(())
    }
}
