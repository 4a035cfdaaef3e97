//! Reads the log of a running shard once more, to find what has rotted before a consumer asks for it.

use std::io;
use std::ops::{ControlFlow, Range};

use crate::commit_log::batch::{BatchError, BatchHeader};
use crate::commit_log::record::{body_crc, is_indexed};
use crate::commit_log::writer::LogEnd;
use crate::config::Geometry;
use crate::inspect::{LostRange, Stored, records_of};
use crate::position::LogPosition;
use crate::shard::SegmentSource;
use crate::shard::recover::Scan;

/// Ranges of messages told of one damage; the rest is left out.
const RANGES_TOLD_MAX: usize = 20;

/// A part of the log that is not what was written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rotten {
    /// Positions in the shard's log.
    pub range: Range<u64>,
    pub reason: BatchError,
    /// The messages whose bodies are damaged; or, if that is not where the damage is, all that are known to stand
    /// there, one or more of which are.
    pub messages: Vec<LostRange>,
    pub is_exact: bool,
}

/// Verifies every batch of a shard's log between two positions, of which the first is the start of a segment and the
/// second a place up to which the log was durable. `visit` hears of each damage, in order. Blocking.
///
/// Returns the bytes of intact batches. What a retired segment's file holds now may be reported as damage: the caller
/// knows where the log begins by then.
pub fn scrub(
    source: &mut dyn SegmentSource,
    shard: u16,
    geometry: Geometry,
    log: Range<u64>,
    visit: &mut dyn FnMut(Rotten),
) -> io::Result<u64> {
    let mut segments = source.segments()?;
    segments.sort_unstable();
    let mut scan = Scan::new(source, shard, geometry, &segments);
    let mut end = scan.beginning(log.start)?;
    let mut intact_bytes = 0;
    while end.position < log.end {
        let reason = match scan.next_batch(&end)? {
            Ok((header, _, checksum)) => {
                intact_bytes += u64::from(header.total_bytes);
                let position = header.position.bytes() + u64::from(header.total_bytes);
                end = LogEnd { position, checksum, epoch: header.epoch, chunk: None };
                continue;
            }
            Err(reason) => reason,
        };
        let next = intact_behind(&mut scan, &end)?.filter(|next| next.position < log.end);
        let range = end.position..next.as_ref().map_or(log.end, |next| next.position);
        let (messages, is_exact) = messages_at(&mut scan, &end, range.end)?;
        visit(Rotten { range, reason, messages, is_exact });
        match next {
            Some(next) => end = next,
            None => break,
        }
    }
    Ok(intact_bytes)
}

/// The end before the first intact batch behind a damaged one.
fn intact_behind(scan: &mut Scan<'_, dyn SegmentSource + '_>, end: &LogEnd) -> io::Result<Option<LogEnd>> {
    let mut found = None;
    scan.look_behind(end, &mut |header, _| {
        let position = header.position.bytes();
        found = Some(LogEnd { position, checksum: header.previous_checksum, epoch: header.epoch, chunk: None });
        ControlFlow::Break(())
    })?;
    Ok(found)
}

/// What can still be read of the batch that should follow `end`; and whether its bodies tell which are damaged.
fn messages_at(
    scan: &mut Scan<'_, dyn SegmentSource + '_>,
    end: &LogEnd,
    until: u64,
) -> io::Result<(Vec<LostRange>, bool)> {
    let shard = scan.shard;
    let (mut damaged, mut standing) = (Vec::new(), Vec::new());
    for position in scan.candidates(end.position).into_iter().filter(|position| *position < until) {
        let Ok(header) = BatchHeader::peek(scan.bytes(position, BatchHeader::SIZE_BYTES as u64)?) else { continue };
        if header.shard != shard || header.position != LogPosition::new(position) {
            continue;
        }
        let total = u64::from(header.total_bytes).min(until - position);
        let bytes = scan.bytes(position, total)?;
        let bytes = &bytes[..bytes.len().min(total as usize)];
        for (_, stored) in records_of(&header, bytes.get(BatchHeader::SIZE_BYTES..).unwrap_or_default()) {
            // Where a record cannot be read, those behind it cannot be found.
            let Ok(Stored::Message(record)) = stored else { continue };
            if !is_indexed(record.sys_flag) {
                continue;
            }
            let place = (record.topic, record.queue_id, record.queue_offset);
            if record.body_crc != body_crc(record.body) {
                add(&mut damaged, place);
            }
            add(&mut standing, place);
        }
        break;
    }
    let is_exact = !damaged.is_empty();
    Ok((if is_exact { damaged } else { standing }, is_exact))
}

fn add(ranges: &mut Vec<LostRange>, (topic, queue_id, offset): (&str, u32, i64)) {
    let follows =
        |range: &&mut LostRange| (&*range.topic, range.queue_id, range.offsets.end) == (topic, queue_id, offset);
    if let Some(range) = ranges.iter_mut().find(follows) {
        range.offsets.end += 1;
    } else if ranges.len() < RANGES_TOLD_MAX {
        let offsets = offset..offset.saturating_add(1);
        ranges.push(LostRange { topic: topic.to_owned(), queue_id, offsets });
    }
}
