//! Half messages nobody has ended: their producers are asked, CHECK_TRANSACTION_STATE (39), until that was done too often;
//! then they go to TRANS_CHECK_MAX_TIME_TOPIC, from where RESUME_CHECK_HALF_MESSAGE (323) fetches them back.
//!
//! RocketMQ looks at all half messages every `transactionCheckInterval`. Here each has its own time: the first check comes
//! `transactionTimeOut` (or what its CHECK_IMMUNITY_TIME_IN_SECONDS says) after it was stored, the next ones an interval
//! later each. The check count is part of the copy that takes its place, as in RocketMQ.

use rmq_engine::commit_log::record::DUE_PROPERTY;
use rmq_engine::{Done, MessageDraft, Placed, ReadRecord};
use rmq_net::body::TopicConfig;
use rmq_net::codes::{request as code, response};
use rmq_net::header::transaction::{CheckTransactionHeader, ResumeCheckHeader};
use rmq_net::message::id::OffsetMessageId;
use rmq_net::message::names::{TRANS_CHECK_MAX_TIME_TOPIC, TRANS_HALF_TOPIC};
use rmq_net::message::properties;
use rmq_net::message::properties::keys::{TRAN_PREPARED_QUEUE_OFFSET, TRANSACTION_CHECK_TIMES};
use rmq_net::message::record::{self, Record};
use rmq_net::text::Text;

use crate::broker::{After, Broker, Handled, Outcome, Refusal, SYSTEM_CORE};
use crate::letter::{Letter, Request};
use crate::owed::{self, Due, Facts, OwedQueue, draft_of, owed_properties};
use crate::request::transaction::{self, HalfState};
use crate::request::{again_when_read, message, read_failed, send, topic_change};
use crate::state::reserved::{READ_WRITE, topic};
use crate::system::System;

/// When to look again whether the topic for half messages given up is there.
const TOPIC_RETRY_MS: i64 = 1000;

/// A producer group to be asked what became of a transaction.
pub struct Check {
    group: String,
    unique_key: Option<String>,
    queue_offset: i64,
    physical_offset: i64,
    /// The half message with its real topic and queue, encoded.
    body: Vec<u8>,
}

/// A half message has come to its time.
pub fn check(broker: &mut Broker, due: &Due<'_>) -> Handled {
    let half = &due.record;
    let times = due.facts.check_times;
    let is_old = broker.now_ms.saturating_sub(half.born_timestamp) > transaction::reserved_ms(broker);
    if is_old || times.is_some_and(|times| times >= broker.config.transaction_check_max) {
        return discard(broker, due);
    }
    let times = times.unwrap_or(0).saturating_add(1);
    let due_ms = broker.now_ms.saturating_add(broker.config.transaction_check_interval);
    match transaction::put_back(broker, half, &due.facts, due.offset, Some(times), due_ms) {
        // If nobody can be asked, there is the next check.
        Ok(_) if broker.system.as_ref().is_some_and(|system| !has_producer(system, due.facts.producer_group)) => {
            Handled::Taken
        }
        Ok(placed) => {
            let check = Box::new(check_of(due, times, &placed));
            // Not before: after a crash another half message could be where this one says it is.
            let ask = move |broker: &mut Broker| match broker.is_system_core() {
                true => ask_producer(broker, &check),
                false => broker.send_letter(SYSTEM_CORE, Letter::CheckTransaction(check)),
            };
            broker.after(placed.end, After::Do(Box::new(ask)));
            Handled::Taken
        }
        Err(error) => owed::not_stored(broker, due.queue, due.offset, &error),
    }
}

fn has_producer(system: &System, group: Option<&str>) -> bool {
    group.is_some_and(|group| system.clients.producers(group).next().is_some())
}

fn check_of(due: &Due<'_>, times: i32, placed: &Placed) -> Check {
    let Due { record: half, facts, .. } = due;
    let mut text = Vec::with_capacity(half.properties.len() + 32);
    properties::copy_without(
        half.properties,
        &[DUE_PROPERTY, TRAN_PREPARED_QUEUE_OFFSET, TRANSACTION_CHECK_TIMES],
        &mut text,
    );
    properties::push_number(&mut text, TRANSACTION_CHECK_TIMES, times.into());
    let real = Record {
        topic: facts.real_topic.unwrap_or_default(),
        queue_id: facts.real_queue.unwrap_or_default() as i32,
        queue_offset: placed.queue_offset,
        physical_offset: placed.physical_offset.to_wire(),
        properties: &text,
        ..half.clone()
    };
    Check {
        group: facts.producer_group.unwrap_or_default().to_owned(),
        unique_key: facts.unique_key().map(str::to_owned),
        queue_offset: placed.queue_offset,
        physical_offset: placed.physical_offset.to_wire(),
        body: record::encode(&real),
    }
}

/// On the system core: asks one of the group's producers, any of them. If there is none, there is the next check.
pub fn ask_producer(broker: &mut Broker, check: &Check) {
    let random = broker.next_random() as usize;
    let Some(system) = &broker.system else { return };
    let producers = system.clients.producers(&check.group);
    let Some(position) = random.checked_rem(producers.count()) else {
        return tracing::debug!(group = check.group, "no producer of the group is online to be asked");
    };
    let Some((connection, _)) = system.clients.producers(&check.group).nth(position) else { return };
    let unique_key = || check.unique_key.as_deref().map(Text::plain);
    let id = OffsetMessageId { store_host: broker.store_host, physical_offset: check.physical_offset }.to_string();
    let broker_name = broker.config.broker_name.clone();
    let header = CheckTransactionHeader {
        topic: Text::plain(TRANS_HALF_TOPIC),
        tran_state_table_offset: check.queue_offset,
        commit_log_offset: check.physical_offset,
        msg_id: unique_key(),
        transaction_id: unique_key(),
        offset_msg_id: Text::plain(&id),
        broker_name: Text::plain(&broker_name),
    };
    broker.push_to_client(connection, code::CHECK_TRANSACTION_STATE, &check.body, |ext| header.encode(ext));
}

/// Gives a half message up: it goes to RocketMQ's topic for them, to the queue of it that this core owns.
fn discard(broker: &mut Broker, due: &Due<'_>) -> Handled {
    let half = &due.record;
    let Some(queue_id) = discard_queue(broker) else {
        if broker.is_system_core() {
            make_discard_topic(broker);
        } else {
            broker.send_letter(SYSTEM_CORE, Letter::DiscardTopicWanted);
        }
        broker.owed.postpone(due.queue, due.offset, broker.now_ms + TOPIC_RETRY_MS, due.message);
        return Handled::Taken;
    };
    let mut text = Vec::with_capacity(half.properties.len());
    properties::copy_without(half.properties, &[DUE_PROPERTY, TRAN_PREPARED_QUEUE_OFFSET], &mut text);
    let draft = MessageDraft { topic: TRANS_CHECK_MAX_TIME_TOPIC, queue_id, ..draft_of(half, due.facts.keys, &text) };
    match broker.shard.append_consuming(&draft, &due.queue.done(due.offset), broker.now_ms) {
        Ok(_) => {
            tracing::warn!(
                core = broker.core,
                topic = due.facts.real_topic,
                key = due.facts.unique_key(),
                "a half message was checked too often or became too old; it is in {TRANS_CHECK_MAX_TIME_TOPIC} now"
            );
            broker.halves.forget(half, &due.facts);
            Handled::Taken
        }
        Err(error) => owed::not_stored(broker, due.queue, due.offset, &error),
    }
}

/// The queue of the topic that this core owns; `None` while the topic does not have one for every core.
fn discard_queue(broker: &Broker) -> Option<u32> {
    broker.topics.get(TRANS_CHECK_MAX_TIME_TOPIC).filter(|topic| has_queues(topic, broker.core_count))?;
    (0..broker.core_count as u32).find(|queue_id| broker.owner(TRANS_CHECK_MAX_TIME_TOPIC, *queue_id) == broker.core)
}

fn has_queues(topic: &TopicConfig, count: usize) -> bool {
    topic.read_queue_nums as usize >= count
}

/// On the system core. RocketMQ's topic has one queue; with one per core no half message has to change its core.
pub fn make_discard_topic(broker: &mut Broker) {
    let count = broker.core_count;
    let config = match broker.topics.get(TRANS_CHECK_MAX_TIME_TOPIC) {
        Some(known) if has_queues(known, count) => return,
        Some(known) => {
            TopicConfig { read_queue_nums: count as i32, write_queue_nums: count as i32, ..(**known).clone() }
        }
        None => topic(TRANS_CHECK_MAX_TIME_TOPIC, count as i32, READ_WRITE),
    };
    if let Err(error) = topic_change::store_topic(broker, config) {
        // It is wanted again in a second.
        tracing::warn!(%error, "could not make {TRANS_CHECK_MAX_TIME_TOPIC}");
    }
}

/// RESUME_CHECK_HALF_MESSAGE: the producer of a half message is asked again, from the first time on.
pub fn resume(broker: &mut Broker, request: &Request<'_>) -> Outcome {
    let header = ResumeCheckHeader::decode(&request.frame)?;
    let text = header.msg_id.as_ref().map(|id| id.to_cow()).unwrap_or_default();
    let id = OffsetMessageId::parse(&text).ok_or_else(|| not_resumed("msgId is no offset message id"))?;
    let at = message::locate(broker, id.physical_offset)?;
    let owner = usize::from(at.shard());
    if owner != broker.core {
        return broker.forward(owner, request, request.origin);
    }
    let ticket = broker.new_ticket();
    let slice = match broker.shard.read_record(at, ticket) {
        ReadRecord::Found(slice) => slice,
        ReadRecord::NotFound => return Err(message::not_found(id.physical_offset)),
        ReadRecord::Failed(error) => return Err(read_failed(&error)),
        ReadRecord::Pending => return again_when_read(broker, ticket, request),
    };
    let half = record::decode(slice.as_ref()).map_err(|_| message::not_found(id.physical_offset))?;
    let facts = Facts::of(half.properties);
    let placed = match half.topic {
        TRANS_HALF_TOPIC => match transaction::state_of(broker, &half, &facts) {
            HalfState::Open(offset) => transaction::put_back(broker, &half, &facts, offset, Some(0), broker.now_ms),
            HalfState::Ended | HalfState::Unclear => return Err(not_resumed("the half message is not open any more")),
        },
        TRANS_CHECK_MAX_TIME_TOPIC => fetch_back(broker, &half, &facts)?,
        _ => return Err(not_resumed("the message is no half message")),
    };
    match placed {
        Ok(placed) => {
            broker.after(placed.end, After::Reply { to: request.reply_address(), code: response::SUCCESS });
            Ok(Handled::Taken)
        }
        Err(error) => send::append_failed(broker, &error),
    }
}

/// Makes a half message of one that was given up. It does so once.
fn fetch_back(
    broker: &mut Broker,
    given_up: &Record<'_>,
    facts: &Facts<'_>,
) -> Result<Result<Placed, rmq_engine::AppendError>, Refusal> {
    let (Some(real_topic), Some(real_queue)) = (facts.real_topic, facts.real_queue) else {
        return Err(not_resumed("the message is no half message"));
    };
    let queue_id = given_up.queue_id as u32;
    if broker.shard.is_done(owed::GROUP, TRANS_CHECK_MAX_TIME_TOPIC, queue_id, given_up.queue_offset) {
        return Err(not_resumed("the half message was resumed before"));
    }
    let mut text =
        owed_properties(given_up.properties, &[TRANSACTION_CHECK_TIMES], broker.now_ms, real_topic, real_queue);
    properties::push(&mut text, TRANSACTION_CHECK_TIMES, b"0");
    let done = Done::one(owed::GROUP, TRANS_CHECK_MAX_TIME_TOPIC, queue_id, given_up.queue_offset);
    Ok(owed::store(broker, OwedQueue::Half, &draft_of(given_up, facts.keys, &text), Some(&done)))
}

#[cold]
fn not_resumed(why: &str) -> Refusal {
    Refusal::new(response::SYSTEM_ERROR, format!("Put message back to {TRANS_HALF_TOPIC} failed: {why}"))
}
