//! Transactions: half messages and what ends them, END_TRANSACTION (37). Producers that say nothing are asked by
//! [`check_back`](super::check_back).
//!
//! A half message waits in the shard of the queue it is for, in that shard's own queue of RocketMQ's half topic
//! ([`crate::owed`]). The real message and the mark that the half message is done are one atomic append, so a transaction
//! is committed once whatever is repeated and whenever the process dies; RocketMQ's op messages are not needed.
//!
//! Each check puts the half message back: a copy takes its place. A producer may still name an earlier copy, so all
//! copies carry the offset of the first, and [`Halves`] knows which one is open.

use rmq_engine::{AppendError, LogPosition, MessageDraft, PhysicalOffset, Placed, ReadRecord, Shard};
use rmq_net::codes::response;
use rmq_net::header::send::SendHeader;
use rmq_net::header::transaction::EndTransactionHeader;
use rmq_net::message::names::TRANS_HALF_TOPIC;
use rmq_net::message::properties;
use rmq_net::message::properties::keys::{
    REAL_QID, REAL_TOPIC, TRAN_PREPARED_QUEUE_OFFSET, TRANSACTION_CHECK_TIMES, TRANSACTION_ID,
};
use rmq_net::message::record::{self, Record};
use rmq_net::message::sys_flag::{TRANSACTION_COMMIT, TRANSACTION_MASK, TRANSACTION_PREPARED, TRANSACTION_ROLLBACK};
use rustc_hash::FxHashMap;

use crate::broker::{After, Broker, Handled, Outcome, Refusal};
use crate::letter::Request;
use crate::owed::{self, Facts, OWED_MAX, OwedQueue, draft_of, owed_properties};
use crate::request::delay::{Asked, Later, number};
use crate::request::{again_when_read, read_failed, send};

/// The half messages of one core that were put back. At most as many as are owed.
pub struct Halves {
    /// Offset of the first copy, and of the one that is open.
    put_back: FxHashMap<i64, i64>,
    /// Where the half queue ended at the start. What was put back before is not known until it is again.
    end_at_start: i64,
}

/// What a half message named by a client is now.
pub enum HalfState {
    /// Open, at this offset of the half queue.
    Open(i64),
    Ended,
    /// Ended, or put back before the last start.
    Unclear,
}

impl Halves {
    pub fn new(shard: &Shard) -> Self {
        let end_at_start = shard.bounds(TRANS_HALF_TOPIC, OwedQueue::Half.queue_id()).max;
        Self { put_back: FxHashMap::default(), end_at_start }
    }

    /// Nothing becomes of the half message any more.
    pub fn forget(&mut self, half: &Record<'_>, facts: &Facts<'_>) {
        self.put_back.remove(&first_offset(half, facts));
    }
}

/// The offset of the first copy of a half message, by which all its copies are known.
fn first_offset(half: &Record<'_>, facts: &Facts<'_>) -> i64 {
    facts.first_copy.unwrap_or(half.queue_offset)
}

pub fn state_of(broker: &Broker, half: &Record<'_>, facts: &Facts<'_>) -> HalfState {
    let is_done = |offset| OwedQueue::Half.is_done(&broker.shard, offset);
    if !is_done(half.queue_offset) {
        return HalfState::Open(half.queue_offset);
    }
    let first = first_offset(half, facts);
    if let Some(open) = broker.halves.put_back.get(&first).filter(|offset| !is_done(**offset)) {
        return HalfState::Open(*open);
    }
    let is_old = half.queue_offset < broker.halves.end_at_start;
    let done_to = broker.shard.offset(owed::GROUP, TRANS_HALF_TOPIC, OwedQueue::Half.queue_id()).unwrap_or(0);
    if is_old && done_to < broker.halves.end_at_start { HalfState::Unclear } else { HalfState::Ended }
}

/// When the producer of a message is asked for the first time, if the message is a half one.
pub fn half(
    broker: &Broker,
    header: &SendHeader<'_>,
    is_transactional: bool,
    asked: &Asked<'_>,
) -> Result<Option<Later>, Refusal> {
    // RocketMQ: clients before 4.6.1 send a committed message back for a retry with the property still there.
    if !is_transactional || (header.reconsume_times > 0 && asked.level > 0) {
        if header.sys_flag & TRANSACTION_PREPARED != 0 {
            let remark = "a prepared or rolled back transaction in sysFlag needs the property TRAN_MSG; without it nobody \
                          could ever read or end the message";
            return Err(Refusal::new(response::MESSAGE_ILLEGAL, remark));
        }
        return Ok(None);
    }
    if broker.config.reject_transaction_message {
        let ip = &broker.config.broker_ip1;
        let remark =
            format!("the broker[{ip}] sending transaction message is forbidden (rejectTransactionMessage is true)");
        return Err(Refusal::new(response::NO_PERMISSION, remark));
    }
    if asked.is_anything() {
        let remark = "a transactional message (TRAN_MSG) can have neither DELAY nor TIMER_DELAY_SEC, TIMER_DELAY_MS or \
                      TIMER_DELIVER_MS";
        return Err(Refusal::new(response::MESSAGE_ILLEGAL, remark));
    }
    if broker.owed.is_full() {
        let remark =
            format!("this core already holds {OWED_MAX} half and delayed messages, and takes no more until some end");
        return Err(Refusal::new(response::SYSTEM_ERROR, remark));
    }
    let due_ms = broker.now_ms.saturating_add(first_check_ms(broker, asked));
    Ok(Some(Later { queue: OwedQueue::Half, due_ms, out_ms: None }))
}

fn first_check_ms(broker: &Broker, asked: &Asked<'_>) -> i64 {
    let config = &broker.config;
    let seconds = asked.check_immunity.and_then(number);
    // RocketMQ takes -1 for "not a number".
    let asked_ms = seconds.filter(|seconds| *seconds != -1).map(|seconds| seconds.saturating_mul(1000).max(0));
    asked_ms.unwrap_or(config.transaction_time_out).min(reserved_ms(broker))
}

/// How old a half message can become.
pub fn reserved_ms(broker: &Broker) -> i64 {
    i64::from(broker.config.file_reserved_time) * 3_600_000
}

/// The properties of a half message, from those its producer sent.
pub fn half_properties(text: &[u8], unique_key: &str, due_ms: i64, topic: &str, queue_id: u32) -> Vec<u8> {
    // The broker's own: a producer that passes on what it has consumed may send them along.
    let own = [TRANSACTION_ID, TRANSACTION_CHECK_TIMES, TRAN_PREPARED_QUEUE_OFFSET];
    let mut half = owed_properties(text, &own, due_ms, topic, queue_id);
    properties::push(&mut half, TRANSACTION_ID, unique_key.as_bytes());
    half
}

/// Appends a half message again, in place of its copy at `offset`. `times`: how often its producer was asked by then, if
/// that changes.
pub fn put_back(
    broker: &mut Broker,
    half: &Record<'_>,
    facts: &Facts<'_>,
    offset: i64,
    times: Option<i32>,
    due_ms: i64,
) -> Result<Placed, AppendError> {
    let (topic, queue_id) = (facts.real_topic.unwrap_or_default(), facts.real_queue.unwrap_or_default());
    let first = first_offset(half, facts);
    let changed = [TRAN_PREPARED_QUEUE_OFFSET, TRANSACTION_CHECK_TIMES];
    let changed = &changed[..if times.is_some() { 2 } else { 1 }];
    let mut text = owed_properties(half.properties, changed, due_ms, topic, queue_id);
    properties::push_number(&mut text, TRAN_PREPARED_QUEUE_OFFSET, first);
    if let Some(times) = times {
        properties::push_number(&mut text, TRANSACTION_CHECK_TIMES, times.into());
    }
    let draft = draft_of(half, facts.keys, &text);
    let placed = owed::store(broker, OwedQueue::Half, &draft, Some(&OwedQueue::Half.done(offset)))?;
    broker.halves.put_back.insert(first, placed.queue_offset);
    Ok(placed)
}

/// END_TRANSACTION.
pub fn end(broker: &mut Broker, request: &Request<'_>) -> Outcome {
    let header = EndTransactionHeader::decode(&request.frame)?;
    let is_commit = match header.commit_or_rollback {
        TRANSACTION_COMMIT => true,
        TRANSACTION_ROLLBACK => false,
        // Its producer will be asked. RocketMQ never answers this, which would leave a client that waits waiting.
        0 => {
            broker.reply_done(request.reply_address());
            return Ok(Handled::Taken);
        }
        other => {
            let remark =
                format!("commitOrRollback field wrong: {other} is none of 8 (commit), 12 (rollback), 0 (unknown)");
            return Err(Refusal::new(response::SYSTEM_ERROR, remark));
        }
    };
    let at = PhysicalOffset::from_wire(header.commit_log_offset)
        .filter(|at| usize::from(at.shard()) < broker.core_count)
        .ok_or_else(|| not_found(&header))?;
    let owner = usize::from(at.shard());
    if owner != broker.core {
        return broker.forward(owner, request, request.origin);
    }
    let ticket = broker.new_ticket();
    let slice = match broker.shard.read_record(at, ticket) {
        ReadRecord::Found(slice) => slice,
        ReadRecord::NotFound => return Err(not_found(&header)),
        ReadRecord::Failed(error) => return Err(read_failed(&error)),
        ReadRecord::Pending => return again_when_read(broker, ticket, request),
    };
    let half = record::decode(slice.as_ref()).ok().filter(|half| half.topic == TRANS_HALF_TOPIC);
    let half = half.ok_or_else(|| not_found(&header))?;
    let facts = Facts::of(half.properties);
    check_right(broker, &header, &half, &facts)?;
    let open = match state_of(broker, &half, &facts) {
        HalfState::Open(offset) => offset,
        HalfState::Ended => {
            // What ended it may be on its way to the disk.
            let to = request.reply_address();
            broker.after(broker.shard.appended(), After::Reply { to, code: response::SUCCESS });
            return Ok(Handled::Taken);
        }
        HalfState::Unclear => return Err(unclear()),
    };
    let ended = match is_commit {
        true => commit(broker, &header, &half, &facts, open)?,
        false => broker.shard.mark_done(&OwedQueue::Half.done(open)),
    };
    match ended {
        Ok(end) => {
            broker.halves.forget(&half, &facts);
            broker.after(end, After::Reply { to: request.reply_address(), code: response::SUCCESS });
            Ok(Handled::Taken)
        }
        Err(error) => send::append_failed(broker, &error),
    }
}

#[cold]
fn not_found(header: &EndTransactionHeader<'_>) -> Refusal {
    let remark = format!(
        "Find prepared transaction message failed: no half message at commitLogOffset {}",
        header.commit_log_offset
    );
    Refusal::new(response::SYSTEM_ERROR, remark)
}

#[cold]
fn unclear() -> Refusal {
    let remark = "the half message was ended, or put back for a check before the broker was last started; in that case its \
                  producer is asked again (transactionCheckInterval)";
    Refusal::new(response::SYSTEM_ERROR, remark)
}

/// May whoever sent this end this half message?
fn check_right(
    broker: &Broker,
    header: &EndTransactionHeader<'_>,
    half: &Record<'_>,
    facts: &Facts<'_>,
) -> Result<(), Refusal> {
    if !header.from_transaction_check
        && let Some(immunity) = facts.immunity
    {
        let immunity_ms = immunity.parse::<i64>().unwrap_or(0).saturating_mul(1000);
        let limit_ms = immunity_ms.max(broker.config.transaction_time_out);
        let age_ms = broker.now_ms.saturating_sub(half.born_timestamp);
        if age_ms > limit_ms {
            let remark = format!(
                "the half message is {age_ms} ms old, more than the {limit_ms} of its CHECK_IMMUNITY_TIME_IN_SECONDS: only \
                 the answer to a check ends it now"
            );
            return Err(Refusal::new(response::ILLEGAL_OPERATION, remark));
        }
    }
    let wrong = if facts.producer_group != Some(&*header.producer_group.to_cow()) {
        "The producer group wrong: the half message is of another one"
    } else if half.queue_offset != header.tran_state_table_offset {
        "The transaction state table offset wrong: it is not that of the half message at commitLogOffset"
    } else {
        return Ok(());
    };
    Err(Refusal::new(response::SYSTEM_ERROR, wrong))
}

/// Stores the real message, which ends the half one.
fn commit(
    broker: &mut Broker,
    header: &EndTransactionHeader<'_>,
    half: &Record<'_>,
    facts: &Facts<'_>,
    open: i64,
) -> Result<Result<LogPosition, AppendError>, Refusal> {
    let (Some(topic), Some(queue_id)) = (facts.real_topic, facts.real_queue) else { return Err(not_found(header)) };
    send::refuse_if_full(broker)?;
    let mut text = std::mem::take(&mut broker.scratch);
    text.clear();
    committed_properties(half.properties, &mut text);
    let draft = MessageDraft {
        topic,
        queue_id,
        sys_flag: half.sys_flag & !TRANSACTION_MASK | TRANSACTION_COMMIT,
        prepared_transaction_offset: header.commit_log_offset,
        ..draft_of(half, facts.keys, &text)
    };
    let appended = broker.shard.append_consuming(&draft, &OwedQueue::Half.done(open), broker.now_ms);
    broker.scratch = text;
    if appended.is_ok() {
        broker.counters.put(topic, 1, half.body.len() as u64);
    }
    Ok(appended.map(|placed| placed.end))
}

/// What consumers see: without what only the half message needed (since RocketMQ 5.4).
pub fn committed_properties(half: &[u8], out: &mut Vec<u8>) {
    let own = [rmq_engine::commit_log::record::DUE_PROPERTY, REAL_TOPIC, REAL_QID, TRAN_PREPARED_QUEUE_OFFSET];
    properties::copy_without(half, &own, out);
}

#[cfg(test)]
mod tests;
