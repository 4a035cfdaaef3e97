//! Everything that adds a record to the log.

use std::sync::Arc;

use crate::commit_log::internal::InternalRecord;
use crate::commit_log::record::{
    self, BatchItem, MessageDraft, PROPERTIES_BYTES_MAX, Placement, TOPIC_BYTES_MAX, is_indexed,
};
use crate::commit_log::writer::Touched;
use crate::config::{BATCH_BYTES_MAX, QUEUE_COUNT_MAX};
use crate::consume_queue::pages::IndexPages;
use crate::consume_queue::row::{ROWS_PER_PAGE, Row};
use crate::consume_queue::table::{Queue, QueueRef};
use crate::in_flight::Take;
use crate::offsets::{Done, is_own_group};
use crate::planted::{self, Bug};
use crate::position::{LogPosition, PhysicalOffset};
use crate::shard::{MessageRef, Shard};
use crate::storage::StorageError;

/// Where a message went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Placed {
    pub physical_offset: PhysicalOffset,
    /// 0 for a record that gets no place in its queue (prepared and rolled back transactional messages).
    pub queue_offset: i64,
    /// The message may be acknowledged once [`Shard::durable`] has reached this.
    pub end: LogPosition,
    /// For [`Shard::read_message`].
    pub message: MessageRef,
}

/// Why nothing was appended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AppendError {
    /// For the client: what it sent cannot be stored in one piece.
    #[error("{size_bytes} bytes are more than the {size_bytes_max} one append can have")]
    RecordTooLarge { size_bytes: u64, size_bytes_max: u64 },
    /// For the client: a field does not fit its length in the record.
    #[error("{field} of {len_bytes} bytes is longer than {len_bytes_max}")]
    FieldTooLong { field: &'static str, len_bytes: usize, len_bytes_max: usize },
    /// For the client: a queue id no topic can have.
    #[error("queue id {queue_id} is not below {queue_count_max}")]
    QueueOutOfRange { queue_id: u32, queue_count_max: u32 },
    /// For the client: the name is one of those the server uses for itself.
    #[error("group names do not begin with a zero character")]
    OwnGroup,
    /// For us, later: too much waits for the disk. Stop reading sockets until writes complete.
    #[error("{pending_bytes} bytes wait for the disk")]
    BatchFull { pending_bytes: u64 },
    /// For the operator: the next log segment cannot be made, most likely for lack of space.
    #[error("the next log segment cannot be prepared: {reason}")]
    SegmentUnavailable { reason: StorageError },
    /// A write or fsync failed. What reached the disk is unknown, so this log takes no more appends; only a
    /// restart, which reads the disk again, can clear it.
    #[error("an earlier write failed; the shard takes no more appends until a restart")]
    Poisoned,
}

impl Shard {
    /// Appends one message. It gets its place at once and is readable once durable.
    /// Cost: no allocation, one copy of the body, one hash of the topic.
    pub fn append(&mut self, draft: &MessageDraft<'_>, now_ms: i64) -> Result<Placed, AppendError> {
        let item = BatchItem { flag: draft.flag, body: draft.body, properties: draft.properties, keys: draft.keys };
        check_draft(draft)?;
        check_item(&item)?;
        let bytes = record::record_bytes(draft, item.body, item.properties);
        self.make_room(bytes, now_ms)?;
        let queue = self.queues.find_or_create(draft.topic, draft.queue_id, 0).ok_or_else(|| out_of_range(draft))?;
        Ok(self.place(queue, draft, &item, bytes, now_ms))
    }

    /// Appends a message that takes the place of another one: the group is done with that, and both become durable
    /// together, or neither does.
    pub fn append_consuming(
        &mut self,
        draft: &MessageDraft<'_>,
        consumed: &Done<'_>,
        now_ms: i64,
    ) -> Result<Placed, AppendError> {
        let item = BatchItem { flag: draft.flag, body: draft.body, properties: draft.properties, keys: draft.keys };
        check_draft(draft)?;
        check_item(&item)?;
        let Done { group, topic, queue_id, first, bits } = *consumed;
        let consuming = InternalRecord::Done { group, topic, queue_id, first, bits };
        check_length("name", consuming.name_bytes(), usize::from(u16::MAX))?;
        let bytes = record::record_bytes(draft, item.body, item.properties);
        self.make_room(bytes + consuming.size_bytes(), now_ms)?;
        let queue = self.queues.find_or_create(draft.topic, draft.queue_id, 0).ok_or_else(|| out_of_range(draft))?;
        let placed = self.place(queue, draft, &item, bytes, now_ms);
        if planted::is(Bug::ConsumedApart) {
            self.seal_batch();
            self.make_room(consuming.size_bytes(), now_ms)?;
        }
        consuming.encode(self.log.append(consuming.size_bytes()));
        let end = self.log.appended_end();
        self.offsets.mark_done(consumed, end);
        Ok(Placed { end, ..placed })
    }

    /// Records that a group is done with messages, in whatever order.
    pub fn mark_done(&mut self, done: &Done<'_>) -> Result<LogPosition, AppendError> {
        let Done { group, topic, queue_id, first, bits } = *done;
        let end = self.append_internal(&InternalRecord::Done { group, topic, queue_id, first, bits })?;
        self.offsets.mark_done(done, end);
        Ok(end)
    }

    /// Records that messages were given to a consumer. They may be handed over once the log is durable up to the position
    /// returned.
    pub fn take(&mut self, take: &Take<'_>) -> Result<LogPosition, AppendError> {
        refuse_own_group(take.group)?;
        let end = self.append_internal(&InternalRecord::Taken(*take))?;
        self.offsets.take(take, end);
        Ok(end)
    }

    /// Appends the messages of one batch behind each other in one write: durable together, or not at all. Only the
    /// items' fields are their own. One [`Placed`] per item is added to `out`.
    pub fn append_many(
        &mut self,
        draft: &MessageDraft<'_>,
        items: &[BatchItem<'_>],
        now_ms: i64,
        out: &mut Vec<Placed>,
    ) -> Result<(), AppendError> {
        check_draft(draft)?;
        let mut total = 0;
        for item in items {
            check_item(item)?;
            total += record::record_bytes(draft, item.body, item.properties);
        }
        if items.is_empty() {
            return Ok(());
        }
        self.make_room(total, now_ms)?;
        let queue = self.queues.find_or_create(draft.topic, draft.queue_id, 0).ok_or_else(|| out_of_range(draft))?;
        out.reserve(items.len());
        for item in items {
            let bytes = record::record_bytes(draft, item.body, item.properties);
            out.push(self.place(queue, draft, item, bytes, now_ms));
        }
        Ok(())
    }

    /// Writes one record into the room made for it.
    fn place(
        &mut self,
        queue_ref: QueueRef,
        draft: &MessageDraft<'_>,
        item: &BatchItem<'_>,
        bytes: u64,
        now_ms: i64,
    ) -> Placed {
        let position = self.log.record_position();
        let physical_offset = PhysicalOffset::new(self.config.shard, position);
        let queue = self.queues.get_mut(queue_ref).expect("the queue was just found");
        let is_indexed = is_indexed(draft.sys_flag);
        let mut checksum = 0;
        let queue_offset = if is_indexed { queue.next } else { 0 };
        let placement = Placement { queue_offset, physical_offset, store_timestamp_ms: now_ms };
        let encoded = self.log.append(bytes);
        record::encode(encoded, draft, item, &placement);
        if is_indexed {
            checksum = record::checksum_but_body(encoded).unwrap_or_default();
            let row = Row {
                position: position.bytes(),
                tags_code: record::row_code(item.properties, &item.keys),
                store_time_ms: now_ms,
                size_bytes: bytes as u32,
                checksum,
            };
            push_row(queue, row, &mut self.pages);
            self.keys.add(queue.topic_hash, &item.keys, row.position, now_ms, &mut self.pages);
            if planted::is(Bug::RowsShownBeforeDurable) {
                queue.visible = queue.next;
            }
            if queue.touched_in != self.log.batch_number() {
                queue.touched_in = self.log.batch_number();
                self.touched.push(queue_ref);
            }
        }
        self.counters.messages_appended += 1;
        self.counters.message_bytes_appended += bytes;
        let message = MessageRef { position: position.bytes(), size_bytes: bytes as u32, checksum };
        Placed { physical_offset, queue_offset, end: LogPosition::new(position.bytes() + bytes), message }
    }

    /// Records how far a group has consumed a queue; it goes on from exactly there. An unchanged value writes nothing and returns where the record
    /// that says so ends.
    pub fn commit_offset(
        &mut self,
        group: &str,
        topic: &str,
        queue_id: u32,
        offset: i64,
    ) -> Result<LogPosition, AppendError> {
        refuse_own_group(group)?;
        if let Some(end) = self.offsets.is_just_at(group, topic, queue_id, offset) {
            if planted::is(Bug::RepeatedOffsetAcknowledgedEarly) {
                return Ok(self.log.durable());
            }
            return Ok(end);
        }
        let end = self.append_internal(&InternalRecord::Offset { group, topic, queue_id, offset })?;
        self.offsets.set(group, topic, queue_id, offset, end);
        if planted::is(Bug::OffsetAcknowledgedEarly) {
            return Ok(self.log.durable());
        }
        Ok(end)
    }

    /// Forgets all offsets of a group.
    pub fn remove_offsets_of_group(&mut self, group: &str) -> Result<LogPosition, AppendError> {
        refuse_own_group(group)?;
        if !self.offsets.has_group(group) {
            return Ok(self.log.appended_end());
        }
        if planted::is(Bug::RemovalNotLogged) {
            self.offsets.remove_group(group);
            return Ok(self.log.appended_end());
        }
        let end = self.append_internal(&InternalRecord::GroupOffsetsRemoved { group })?;
        self.offsets.remove_group(group);
        Ok(end)
    }

    /// Removes the topic's queues and every group's offsets in them. A topic made again starts at offset 0.
    pub fn remove_topic(&mut self, topic: &str) -> Result<LogPosition, AppendError> {
        if self.queues.of_topic(topic).next().is_none() && !self.offsets.has_topic(topic) {
            return Ok(self.log.appended_end());
        }
        let end = self.append_internal(&InternalRecord::TopicRemoved { topic })?;
        self.forget_topic(topic);
        Ok(end)
    }

    pub(super) fn forget_topic(&mut self, topic: &str) {
        for queue in self.queues.remove_topic(topic) {
            for entry in &queue.pages {
                self.pages.free(entry.page);
            }
            if queue.is_watched {
                self.arrivals.push_back((Arc::clone(&queue.topic), queue.queue_id));
            }
        }
        self.offsets.remove_topic(topic);
    }

    /// Keeps (or with `None` drops) an opaque value. The last one per kind and key wins.
    pub fn put_setting(&mut self, kind: u8, key: &str, value: Option<&[u8]>) -> Result<LogPosition, AppendError> {
        match value {
            Some(value) => {
                let end = self.append_internal(&InternalRecord::Setting { kind, key, value })?;
                self.settings.put(kind, key, value);
                Ok(end)
            }
            None if self.settings.get(kind, key).is_none() => Ok(self.log.appended_end()),
            None => {
                let end = self.append_internal(&InternalRecord::SettingRemoved { kind, key })?;
                self.settings.remove(kind, key);
                Ok(end)
            }
        }
    }

    fn append_internal(&mut self, record: &InternalRecord<'_>) -> Result<LogPosition, AppendError> {
        check_length("name", record.name_bytes(), usize::from(u16::MAX))?;
        let bytes = record.size_bytes();
        self.make_room(bytes, self.now_ms)?;
        record.encode(self.log.append(bytes));
        Ok(self.log.appended_end())
    }

    /// Makes sure that the open batch takes `bytes`, or says why it cannot. Changes nothing in that case but where
    /// the open batch ends.
    fn make_room(&mut self, bytes: u64, now_ms: i64) -> Result<(), AppendError> {
        if self.poison.is_some() {
            return Err(AppendError::Poisoned);
        }
        let pending_bytes = self.log.undurable_bytes();
        let has_too_much =
            pending_bytes > self.config.undurable_bytes_max || self.log.waiting_bytes() > self.config.waiting_bytes_max;
        if has_too_much || self.pages.is_behind() {
            let pending_bytes = pending_bytes + self.pages.unwritten_bytes();
            return Err(AppendError::BatchFull { pending_bytes });
        }
        if self.log.fits(bytes) {
            return Ok(());
        }
        self.open_batch(bytes, now_ms)
    }

    fn open_batch(&mut self, bytes: u64, now_ms: i64) -> Result<(), AppendError> {
        let geometry = self.config.geometry;
        // 64 bytes are the batch's own header.
        let size_bytes_max = BATCH_BYTES_MAX.min(geometry.segment_bytes) - 64;
        if bytes > size_bytes_max {
            return Err(AppendError::RecordTooLarge { size_bytes: bytes, size_bytes_max });
        }
        let segment = geometry.segment_of(self.log.next_place(bytes).position);
        if let Some(reason) = self.segments.failure(segment) {
            return Err(AppendError::SegmentUnavailable { reason });
        }
        if self.log.is_batch_open() {
            self.seal_batch();
        }
        let place = self.log.next_place(bytes);
        assert_eq!(segment, geometry.segment_of(place.position), "sealing does not move the next place");
        let buffer = place.is_new_chunk.then(|| self.pool.take(place.chunk_bytes as usize));
        if let Some(closed) = self.log.open_batch(place, buffer, now_ms) {
            self.reader.keep(closed);
        }
        self.segment_times.note(segment, now_ms);
        self.segments.want(segment);
        // Early, so that the next segment can be made ready at leisure.
        if place.position - segment >= geometry.segment_bytes / 8 {
            self.segments.want(segment + geometry.segment_bytes);
        }
        Ok(())
    }

    pub(super) fn seal_batch(&mut self) {
        let mut touched = self.log.take_touched();
        for queue_ref in self.touched.drain(..) {
            if let Some(queue) = self.queues.get(queue_ref) {
                touched.push(Touched { queue: queue_ref, max: queue.next, store_time_ms: queue.last_store_time_ms });
            }
        }
        self.log.seal(touched);
    }
}

/// Adds a row for the next offset of the queue; a page that is full by that goes to the index.
pub(super) fn push_row(queue: &mut Queue, row: Row, pages: &mut IndexPages) {
    queue.open.push(row);
    queue.next += 1;
    queue.last_store_time_ms = row.store_time_ms;
    if queue.open.len() == ROWS_PER_PAGE {
        queue.pages.push(pages.add(&queue.open));
        queue.open.clear();
    }
}

fn refuse_own_group(group: &str) -> Result<(), AppendError> {
    if is_own_group(group) { Err(AppendError::OwnGroup) } else { Ok(()) }
}

fn out_of_range(draft: &MessageDraft<'_>) -> AppendError {
    AppendError::QueueOutOfRange { queue_id: draft.queue_id, queue_count_max: QUEUE_COUNT_MAX }
}

fn check_draft(draft: &MessageDraft<'_>) -> Result<(), AppendError> {
    check_length("topic", draft.topic.len(), TOPIC_BYTES_MAX)?;
    if draft.queue_id >= QUEUE_COUNT_MAX { Err(out_of_range(draft)) } else { Ok(()) }
}

fn check_item(item: &BatchItem<'_>) -> Result<(), AppendError> {
    check_length("properties", item.properties.len(), PROPERTIES_BYTES_MAX)
}

fn check_length(field: &'static str, len_bytes: usize, len_bytes_max: usize) -> Result<(), AppendError> {
    if len_bytes > len_bytes_max {
        return Err(AppendError::FieldTooLong { field, len_bytes, len_bytes_max });
    }
    Ok(())
}
