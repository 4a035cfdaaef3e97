//! The open segment files of one shard, and how far ahead of the log they have been written once.
//!
//! A write into a block that was allocated but never written makes the file system change metadata and, with
//! O_DSYNC, wait for its journal. So a new segment is allocated whole and then filled with zeroes ahead of the
//! log: as fast as the device goes while nobody else uses it, and otherwise in small pieces at little more than
//! the log's own pace, so that no write or read of the log waits behind much of it.

use std::collections::BTreeMap;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};

/// Zeroes written per operation, one at a time: what a log write may have to wait for.
pub const ZERO_BYTES: u64 = 256 << 10;
/// Bytes zeroed per two bytes of log while the log is busy. A segment is asked for when an eighth of the one before
/// is full, so 8/7 would just do.
const ZEROED_PER_TWO_BYTES: u64 = 3;
/// Most zeroing a pause in the log may leave for later.
const ALLOWANCE_BYTES_MAX: u64 = 64 << 20;
/// Zeroing stays this far ahead of the log's last write, so that both never want the same blocks.
const GAP_BYTES: u64 = 16 << 20;

pub struct Segment {
    file: OwnedFd,
    len_bytes: u64,
    /// Everything below was written by the log.
    frontier: u64,
    /// Next byte to zero; the length when nothing is left to do.
    zero_next: u64,
    /// Zeroes on their way to the device.
    zeroing: Option<(u64, u64)>,
}

/// Who has used the device lately.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DeviceUse {
    /// Nobody: zeroing may take all of it.
    Idle,
    /// The log: zeroing keeps pace with it.
    Log,
    /// Readers alone: what is not needed yet can wait.
    Readers,
}

#[derive(Default)]
pub struct Segments {
    open: BTreeMap<u64, Segment>,
    /// What may be zeroed although the log is busy.
    allowance_bytes: u64,
}

impl Segments {
    /// A segment that was there at start: whatever it holds was written before.
    pub fn insert_existing(&mut self, segment_start: u64, file: OwnedFd, len_bytes: u64) {
        let segment = Segment { file, len_bytes, frontier: len_bytes, zero_next: len_bytes, zeroing: None };
        self.open.insert(segment_start, segment);
    }

    /// A segment just allocated.
    pub fn insert_new(&mut self, segment_start: u64, file: OwnedFd, len_bytes: u64) {
        let segment = Segment { file, len_bytes, frontier: 0, zero_next: 0, zeroing: None };
        self.open.insert(segment_start, segment);
    }

    /// A segment's file has been given to another segment: all of it was written before.
    pub fn rename(&mut self, from: u64, to: u64) {
        if let Some(segment) = self.open.remove(&from) {
            self.insert_existing(to, segment.file, segment.len_bytes);
        }
    }

    /// Lets go of a segment. Closing what this returns may block: if the file is removed, its blocks are freed then.
    pub fn remove(&mut self, segment_start: u64) -> Option<OwnedFd> {
        self.open.remove(&segment_start).map(|segment| segment.file)
    }

    pub fn descriptor(&self, segment_start: u64) -> Option<RawFd> {
        self.open.get(&segment_start).map(|segment| segment.file.as_raw_fd())
    }

    /// Notes a log write. False while zeroes for the same blocks are in flight: the write has to wait.
    pub fn begin_write(&mut self, segment_start: u64, at: u64, len: u64) -> bool {
        let Some(segment) = self.open.get_mut(&segment_start) else { return true };
        if segment.zeroing.is_some_and(|(from, to)| at < to && from < at + len) {
            return false;
        }
        segment.frontier = segment.frontier.max(at + len);
        self.allowance_bytes = (self.allowance_bytes + len / 2 * ZEROED_PER_TWO_BYTES).min(ALLOWANCE_BYTES_MAX);
        true
    }

    /// The next zeroes to write: segment, descriptor, offset, length.
    pub fn next_zeroes(&mut self, device: DeviceUse) -> Option<(u64, RawFd, u64, u64)> {
        let may_go_on = match device {
            DeviceUse::Idle => true,
            DeviceUse::Log => self.allowance_bytes >= ZERO_BYTES,
            DeviceUse::Readers => false,
        };
        if !may_go_on || self.open.values().any(|segment| segment.zeroing.is_some()) {
            return None;
        }
        let (start, segment) = self.open.iter_mut().find(|(_, segment)| segment.zero_next < segment.len_bytes)?;
        // A fresh segment is zeroed from its start; one in use from safely behind the log's last write.
        if segment.frontier > 0 && segment.zero_next < segment.frontier + GAP_BYTES {
            segment.zero_next = (segment.frontier + GAP_BYTES).next_multiple_of(ZERO_BYTES).min(segment.len_bytes);
        }
        if segment.zero_next >= segment.len_bytes {
            return None;
        }
        let len = ZERO_BYTES.min(segment.len_bytes - segment.zero_next);
        segment.zeroing = Some((segment.zero_next, segment.zero_next + len));
        self.allowance_bytes = self.allowance_bytes.saturating_sub(len);
        Some((*start, segment.file.as_raw_fd(), segment.zero_next, len))
    }

    /// Zeroes arrived, or failed: then the segment is left as it is, allocated and good enough.
    pub fn zeroed(&mut self, segment_start: u64, is_ok: bool) {
        let Some(segment) = self.open.get_mut(&segment_start) else { return };
        if let Some((_, to)) = segment.zeroing.take() {
            segment.zero_next = if is_ok { to } else { segment.len_bytes };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn segments() -> Segments {
        let mut segments = Segments::default();
        let file = std::fs::File::open("/dev/null").unwrap();
        segments.insert_new(0, file.into(), 256 << 20);
        segments
    }

    #[test]
    fn a_log_write_never_overlaps_zeroes_in_flight() {
        let mut segments = segments();
        let (start, _, from, len) = segments.next_zeroes(DeviceUse::Idle).unwrap();
        assert_eq!((start, from), (0, 0), "a fresh segment is zeroed from its start");
        assert!(!segments.begin_write(0, 4096, 4096));
        assert!(segments.begin_write(0, len, 4096), "the next blocks are free");
        segments.zeroed(0, true);
        assert!(segments.begin_write(0, 4096, 4096));
    }

    #[test]
    fn zeroing_stays_ahead_of_the_log_and_ends() {
        let mut segments = segments();
        assert!(segments.begin_write(0, 0, 8 << 20));
        let mut zeroed = 0;
        let mut first = None;
        while let Some((_, _, from, len)) = segments.next_zeroes(DeviceUse::Idle) {
            first.get_or_insert(from);
            zeroed += len;
            segments.zeroed(0, true);
        }
        assert_eq!(first, Some(24 << 20));
        assert_eq!(zeroed, (256 - 24) << 20);
    }

    #[test]
    fn beside_a_busy_log_zeroing_keeps_its_pace() {
        let mut segments = segments();
        assert!(segments.next_zeroes(DeviceUse::Log).is_none(), "an unused segment can wait");
        let written = 16 * ZERO_BYTES;
        assert!(segments.begin_write(0, 0, written));
        assert!(segments.next_zeroes(DeviceUse::Readers).is_none(), "what is zeroed already will do for a while");
        let mut zeroed = 0;
        while let Some((_, _, _, len)) = segments.next_zeroes(DeviceUse::Log) {
            zeroed += len;
            segments.zeroed(0, true);
        }
        assert_eq!(zeroed, written / 2 * 3);
        assert!(segments.next_zeroes(DeviceUse::Idle).is_some(), "an idle device has room for more");
    }
}
