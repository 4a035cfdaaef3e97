//! Walks a shard's log record by record.

use std::io;
use std::ops::ControlFlow;

use crate::commit_log::batch::{BatchError, BatchHeader};
use crate::commit_log::internal::InternalRecordError;
use crate::commit_log::writer::LogEnd;
use crate::inspect::{Stored, records_of};
use crate::shard::SegmentSource;
use crate::shard::recover::Scan;
use crate::store_dir::StoreView;

/// What a walk meets, in the order of the log.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Item<'a> {
    Batch(BatchHeader),
    /// A record of the last batch, and where it stands.
    Record {
        position: u64,
        stored: Result<Stored<'a>, InternalRecordError>,
    },
}

/// How a walk ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Walked {
    /// `visit` had enough.
    Enough,
    /// Behind `position` there is no batch that follows, for this reason; whether that is the log's end or damage says
    /// [`check`](super::check).
    ToTheEnd { position: u64, reason: BatchError },
}

/// Gives `visit` the batches of a shard's log that end behind `from`, and their records. Reading begins with the segment
/// of `from`; memory is bounded by the largest batch.
pub fn walk(
    store: &StoreView,
    shard: u16,
    from: u64,
    visit: &mut dyn FnMut(Item<'_>) -> ControlFlow<()>,
) -> io::Result<Walked> {
    let geometry = store.geometry();
    let mut view = store.shard(shard);
    let mut segments = view.segments()?;
    segments.sort_unstable();
    let first = segments.first().copied().unwrap_or(0);
    let mut scan = Scan::new(&mut view, shard, geometry, &segments);
    let mut end = scan.beginning(geometry.segment_of(from).max(first))?;
    loop {
        let (header, records, checksum) = match scan.next_batch(&end)? {
            Ok(batch) => batch,
            Err(reason) => return Ok(Walked::ToTheEnd { position: end.position, reason }),
        };
        let position = header.position.bytes() + u64::from(header.total_bytes);
        end = LogEnd { position, checksum, epoch: header.epoch, chunk: None };
        if position <= from {
            continue;
        }
        if visit(Item::Batch(header)).is_break() {
            return Ok(Walked::Enough);
        }
        for (position, stored) in records_of(&header, records) {
            if visit(Item::Record { position, stored }).is_break() {
                return Ok(Walked::Enough);
            }
        }
    }
}
