//! What stands behind the end of a log: nothing, remains of a crash, or the proof that the log is damaged.

use std::io;
use std::ops::ControlFlow;

use crate::commit_log::batch::{BATCH_ALIGN_BYTES, BatchHeader, MAGIC, Proof};
use crate::commit_log::writer::LogEnd;
use crate::config::BATCH_BYTES_MAX;
use crate::position::LogPosition;
use crate::shard::recover::{RecoverError, Scan, SegmentSource};

/// Searched without gaps behind the end, and behind every intact batch found there: more than the largest message.
const SEARCH_BYTES: u64 = 8 << 20;
/// Bytes of seeming batches whose checksum may fail before only the starts of chunks are still looked at: a message
/// can be full of what looks like headers, and each would have megabytes checksummed.
const FAILED_BYTES_MAX: u64 = 512 << 20;

impl<S: SegmentSource + ?Sized> Scan<'_, S> {
    /// Gives `visit` the intact batches found behind `end` that are not older than the last one before it, in order.
    ///
    /// Read are [`SEARCH_BYTES`], on through everything that is not zero up to the longest possible batch, and from
    /// there the start of every chunk: where a log goes on, there is a batch at the start of nearly every chunk. A
    /// start of the broker thereby costs megabytes of reading, however large the log.
    pub fn look_behind(
        &mut self,
        end: &LogEnd,
        visit: &mut dyn FnMut(&BatchHeader, &[u8]) -> ControlFlow<()>,
    ) -> io::Result<()> {
        let chunk_bytes = self.geometry.chunk_bytes;
        let gapless = SEARCH_BYTES.max(2 * chunk_bytes);
        let mut search_until = end.position + gapless;
        let content_until = end.position + BATCH_BYTES_MAX + chunk_bytes;
        let mut failed_bytes = 0;
        let first_segment = self.geometry.segment_of(end.position);
        let segments = self.segments;
        for segment in segments.iter().copied().filter(|start| first_segment <= *start) {
            let mut at = segment.max(end.position).next_multiple_of(BATCH_ALIGN_BYTES);
            let mut is_announced = false;
            while at < segment + self.geometry.segment_bytes {
                let chunk_end = self.geometry.chunk_of(at) + chunk_bytes;
                let is_chunk_start = at.is_multiple_of(chunk_bytes);
                let is_searched = at < search_until;
                if is_chunk_start && !is_searched && !is_announced {
                    // One after the other, a thousand small reads take longer than all the rest of a start.
                    self.source.announce(segment, at - segment, chunk_bytes);
                    is_announced = true;
                }
                if !(is_searched || is_chunk_start && self.is_batch_promised(segment, at)?) {
                    at = chunk_end;
                    continue;
                }
                let piece = self.bytes(at, chunk_end - at)?;
                let piece = &piece[..piece.len().min((chunk_end - at) as usize)];
                let Some(hit) = find_magic(piece) else {
                    if is_searched && piece.iter().any(|byte| *byte != 0) {
                        search_until = search_until.max((chunk_end + chunk_bytes).min(content_until));
                    }
                    at = chunk_end;
                    continue;
                };
                at += hit as u64;
                let may_verify = failed_bytes < FAILED_BYTES_MAX || at.is_multiple_of(chunk_bytes);
                let promised = if may_verify { self.promised_bytes(at, end)? } else { None };
                let Some(total) = promised else {
                    at += BATCH_ALIGN_BYTES;
                    continue;
                };
                let shard = self.shard;
                match BatchHeader::decode(self.bytes(at, total)?, shard, LogPosition::new(at)) {
                    Ok((header, records, _)) => {
                        if visit(&header, records).is_break() {
                            return Ok(());
                        }
                        at = (at + total).next_multiple_of(BATCH_ALIGN_BYTES);
                        search_until = search_until.max(at.saturating_add(gapless));
                    }
                    Err(_) => {
                        // Not a batch, or a damaged one; others may follow all the same.
                        failed_bytes += total;
                        at += BATCH_ALIGN_BYTES;
                    }
                }
            }
        }
        Ok(())
    }

    /// Whether a batch seems to start at `at`, read without what follows.
    fn is_batch_promised(&mut self, segment: u64, at: u64) -> io::Result<bool> {
        let mut head = [0; BatchHeader::SIZE_BYTES];
        let got = self.source.peek(segment, at - segment, &mut head)?;
        Ok(got == head.len() && BatchHeader::peek(&head).is_ok_and(|header| header.position.bytes() == at))
    }

    /// The length of the batch at `at`, if its header is one that may stand there behind `end`.
    fn promised_bytes(&mut self, at: u64, end: &LogEnd) -> io::Result<Option<u64>> {
        let (shard, room) = (self.shard, self.geometry.segment_end(at) - at);
        let header = BatchHeader::peek(self.bytes(at, BatchHeader::SIZE_BYTES as u64)?);
        Ok(header.ok().and_then(|header| {
            let total = u64::from(header.total_bytes);
            let is_ours = header.shard == shard && header.position.bytes() == at && end.epoch <= header.epoch;
            let is_plausible = total <= room.min(BATCH_BYTES_MAX) && header.durable <= header.position;
            (is_ours && is_plausible).then_some(total)
        }))
    }

    /// Refuses a log whose end is not one: see [`BatchHeader::proof_against`].
    pub fn check_undamaged(&mut self, end: &LogEnd, powered_since: u64) -> Result<(), RecoverError> {
        let end_position = LogPosition::new(end.position);
        let (mut first_intact, mut is_damaged, mut lost_power) = (None, false, None);
        let mut epoch = 0;
        self.look_behind(end, &mut |header, _| {
            // What is older than a batch that follows may be a remain of a crash at this very end.
            if epoch < header.epoch {
                (epoch, first_intact) = (header.epoch, Some(header.position.bytes()));
            }
            match header.proof_against(end_position, end.epoch, powered_since) {
                Proof::Damage => is_damaged = true,
                Proof::LostPower => lost_power = lost_power.or(Some(header.durable.bytes())),
                Proof::None => {}
            }
            if is_damaged { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        })?;
        let shard = self.shard;
        if let Some(intact_from) = first_intact.filter(|_| is_damaged) {
            // Where exactly the next batch stood, its header may not tell any more.
            let position = end.position;
            let segment_start = self.geometry.segment_of(position);
            let at = position - segment_start;
            return Err(RecoverError::Damaged { shard, segment_start, at, position, intact_from });
        }
        if let Some(durable) = lost_power {
            tracing::warn!(
                shard,
                end = end.position,
                durable,
                "the machine was restarted and its disk has lost messages that were acknowledged under ASYNC_FLUSH; \
                 SYNC_FLUSH prevents that"
            );
        }
        Ok(())
    }
}

/// The first place where a batch could start, from the piece's start in steps of the batches' alignment.
fn find_magic(piece: &[u8]) -> Option<usize> {
    const STEP: usize = BATCH_ALIGN_BYTES as usize;
    let magic = MAGIC.to_be_bytes();
    piece.chunks(STEP).position(|bytes| bytes.starts_with(&magic)).map(|step| step * STEP)
}
