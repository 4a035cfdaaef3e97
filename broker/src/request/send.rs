//! SEND_MESSAGE (10), SEND_MESSAGE_V2 (310), SEND_BATCH_MESSAGE (320): one message or one batch into a queue.
//!
//! An acknowledgement means that the device has the message (ASYNC_FLUSH) or has it on stable media (SYNC_FLUSH).
//! The property `WAIT` = false, with which RocketMQ answers from memory, changes nothing: the message shares its
//! write with all others of its turn, so there is no flush to save, and no answer promises less than another.
//!
//! A send is handled on the core that owns its queue. Cost on that core: one pass over the header, one copy
//! of the body (frame to log), no system call.

use std::net::SocketAddr;
use std::sync::Arc;

use rmq_engine::commit_log::record::DUE_PROPERTY;
use rmq_engine::{AppendError, BatchItem, MessageDraft, MessageKeys, PhysicalOffset, Placed};
use rmq_net::body::{TopicConfig, TopicFilterType};
use rmq_net::codes::{request, response};
use rmq_net::frame::Frame;
use rmq_net::header::send::SendHeader;
use rmq_net::message::id::OffsetMessageId;
use rmq_net::message::names::{AUTO_CREATE_TOPIC, group_of_retry_topic};
use rmq_net::message::sys_flag::{INNER_BATCH, MULTI_TAGS, NEED_UNWRAP, TRANSACTION_MASK};
use rmq_net::message::{batch, properties};

use crate::broker::{After, Body, Broker, Handled, Outcome, Refusal, SYSTEM_CORE};
use crate::letter::{Origin, Purpose, ReplyAddress, Request};
use crate::owed::{self, DELIVERED_BYTES, OwedQueue, owed_properties, owed_properties_of_all};
use crate::request::delay::{Asked, Later, RecallHandle};
use crate::request::{dead_letter, delay, send_back, topic_change, transaction};
use crate::state::attributes::{BATCH_CQ, QUEUE_TYPE};
use crate::state::checks::{self, SendCheck, SendRequest, check_send};

/// Most bytes of message ids one answer to a batch has: with them, its header stays below 16 MiB.
const IDS_BYTES_MAX: usize = 12 << 20;

/// A stored send whose reply waits for the log. Small: it is moved into the queue of those that wait and out again.
pub struct SendDone {
    to: ReplyAddress,
    purpose: Purpose,
    queue_id: u32,
    queue_offset: i64,
    first: PhysicalOffset,
    transaction_id: ShortText,
    extra: Extra,
}

const _: () = assert!(size_of::<SendDone>() <= 112, "what is moved for each send");

/// What few sends have.
enum Extra {
    None,
    /// Where the messages of a batch are.
    Batch(Box<[PhysicalOffset]>),
    /// What its recall handle says.
    Timer {
        topic: Arc<TopicConfig>,
        timestamp_ms: i64,
    },
}

/// A unique key as stock clients make them fits inline, so that parking a reply allocates nothing.
enum ShortText {
    Inline { length: u8, bytes: [u8; Self::INLINE_BYTES] },
    Long(Box<[u8]>),
}

impl ShortText {
    const INLINE_BYTES: usize = 38;

    fn new(text: &[u8]) -> Self {
        if text.len() > Self::INLINE_BYTES {
            return Self::Long(text.into());
        }
        let mut bytes = [0; Self::INLINE_BYTES];
        bytes[..text.len()].copy_from_slice(text);
        Self::Inline { length: text.len() as u8, bytes }
    }

    /// Empty if it is no text.
    fn as_str(&self) -> &str {
        let bytes = match self {
            Self::Inline { length, bytes } => &bytes[..usize::from(*length)],
            Self::Long(bytes) => bytes,
        };
        std::str::from_utf8(bytes).unwrap_or_default()
    }
}

pub fn is_send(code: i32) -> bool {
    matches!(
        code,
        request::SEND_MESSAGE
            | request::SEND_MESSAGE_V2
            | request::SEND_BATCH_MESSAGE
            | request::SEND_REPLY_MESSAGE
            | request::SEND_REPLY_MESSAGE_V2
    )
}

/// Is the message one the broker sends to a group's retry or dead-letter topic?
fn is_of_group(purpose: Purpose) -> bool {
    matches!(purpose, Purpose::SentBack | Purpose::DeadLetter)
}

pub fn handle(broker: &mut Broker, request: &Request<'_>) -> Outcome {
    let header = SendHeader::decode(&request.frame)?;
    handle_decoded(broker, request, &header)
}

pub fn handle_decoded(broker: &mut Broker, request: &Request<'_>, header: &SendHeader<'_>) -> Outcome {
    let topic = header.topic.to_cow();
    let mut origin = request.origin;
    let mut queue_id = header.queue_id;
    let known = broker.topics.get(&topic);
    if known.is_none() && !broker.is_system_core() {
        // Only the system core can say whether the topic may be made; it sends the request on.
        return broker.forward(SYSTEM_CORE, request, request.origin);
    }
    if let Some(config) = known {
        if let Some(picked) = origin.picked_queue {
            queue_id = picked as i32;
        } else if queue_id < 0 {
            let config = Arc::clone(config);
            let random = broker.next_random() as u32;
            let picked = checks::queue_of_send(&config, queue_id, random);
            origin.picked_queue = picked;
            // A topic without write queues has nothing to pick from; the check below refuses its queue 0.
            queue_id = picked.map_or(0, |picked| picked as i32);
        }
        let owner = broker.owner(&topic, queue_id as u32);
        if owner != broker.core {
            return broker.forward(owner, request, origin);
        }
    }
    // The one buffer per core for unescaped properties; taken out because the broker is borrowed meanwhile.
    let mut text = std::mem::take(&mut broker.scratch);
    text.clear();
    if let Some(given) = &header.properties {
        given.write_to(&mut text);
    }
    let outcome = check_and_store(broker, request, header, &topic, queue_id, &mut text);
    broker.scratch = text;
    outcome
}

fn check_and_store(
    broker: &mut Broker,
    request: &Request<'_>,
    header: &SendHeader<'_>,
    topic: &str,
    queue_id: i32,
    text: &mut Vec<u8>,
) -> Outcome {
    if request.frame.body.is_empty() {
        return Err(Refusal::new(response::SYSTEM_ERROR, "the message has no body"));
    }
    let default_topic = header.default_topic.to_cow();
    let wanted = SendRequest {
        topic,
        queue_id,
        default_topic: &default_topic,
        default_topic_queue_nums: header.default_topic_queue_nums,
        unit_mode: header.unit_mode,
        is_batch: header.batch,
        properties: text,
    };
    let checked = check_send(&broker.check_settings, &broker.topics, &broker.groups, &wanted, broker.now_ms);
    let flagged;
    let mut header = header;
    match checked {
        Ok(SendCheck::Ready(config)) if config.topic_filter_type == TopicFilterType::MultiTag => {
            flagged = SendHeader { sys_flag: header.sys_flag | MULTI_TAGS, ..header.clone() };
            header = &flagged;
        }
        Ok(SendCheck::Ready(_)) => {}
        Ok(SendCheck::CreateTopic(config)) => return topic_change::create_topic_for(broker, request, config),
        Ok(SendCheck::CreateGroup(config)) => return topic_change::create_group_for(broker, request, config),
        Err(refusal) if is_of_group(request.origin.purpose) && refusal.code == response::TOPIC_NOT_EXIST => {
            // The broker's own dead-letter topics need no template to inherit from.
            let config = broker.topics.decide_group_topic(topic, 1, None, false);
            return match config {
                Some(config) => topic_change::create_topic_for(broker, request, config),
                None => Err(refusal.into()),
            };
        }
        Err(refusal) => return Err(refusal.into()),
    }
    // Before anything is written again with them: escaped, they grow up to six times.
    check_properties_size(text.len())?;
    if let Some(group) = group_of_retry_topic(topic)
        && request.origin.purpose == Purpose::Client
        && dead_letter::is_exhausted(broker, group, header, &request.frame)
    {
        return dead_letter::redirect(broker, request, header, group);
    }
    // The checks refuse what is below zero only through the topic's queue count; nothing negative gets here.
    let queue_id = queue_id.max(0) as u32;
    if header.batch {
        store_batch(broker, request, header, topic, queue_id, text)
    } else {
        store_one(broker, request, header, topic, queue_id, text)
    }
}

/// What the broker has to know of a message's properties.
#[derive(Default)]
struct Found<'a> {
    keys: MessageKeys<'a>,
    /// What asks for a later delivery.
    asked: Asked<'a>,
    /// `TRAN_MSG` = true.
    is_transactional: bool,
    /// `__SHARDINGKEY`.
    has_sharding_key: bool,
    /// `_SYS_MSG_PRIORITY_`.
    priority: Option<&'a [u8]>,
    /// `INNER_NUM`: the body is said to hold a batch that stays one record.
    is_inner_batch: bool,
    /// A key the broker sets or removes itself is among them.
    has_broker_keys: bool,
    /// The same of those it sets while a message is owed.
    has_owed_keys: bool,
}

impl<'a> Found<'a> {
    fn unique_key(&self) -> Option<&'a str> {
        self.keys.unique().and_then(|key| str::from_utf8(key).ok())
    }
}

fn look_at(text: &[u8]) -> Found<'_> {
    let mut found = Found::default();
    for segment in properties::segments(text) {
        if found.keys.note(segment) {
            continue;
        }
        let Some((key, value)) = properties::pair(segment) else { continue };
        match key {
            b"POP_CK" | b"MSG_REGION" | b"TRACE_ON" | b"CLUSTER" | b"__DUE_MS" => found.has_broker_keys = true,
            b"REAL_TOPIC" | b"REAL_QID" => found.has_owed_keys = true,
            b"TRAN_MSG" => found.is_transactional = value.eq_ignore_ascii_case(b"true"),
            b"INNER_NUM" => found.is_inner_batch = true,
            b"__SHARDINGKEY" => found.has_sharding_key = true,
            b"_SYS_MSG_PRIORITY_" => found.priority = Some(value),
            _ => found.asked.note(key, value),
        }
    }
    found
}

/// RocketMQ: a body that is a batch by itself is for topics of `queue.type` BatchCQ, with its flag and its property.
fn check_inner_batch(
    broker: &Broker,
    topic: &str,
    header: &SendHeader<'_>,
    has_inner_count: bool,
) -> Result<(), Refusal> {
    if !has_inner_count && header.sys_flag & (INNER_BATCH | NEED_UNWRAP) == 0 {
        return Ok(());
    }
    let config = broker.topics.get(topic);
    let is_batch_topic =
        config.and_then(|config| config.attributes.get(QUEUE_TYPE)).is_some_and(|kind| kind == BATCH_CQ);
    if header.sys_flag & INNER_BATCH == 0 || !is_batch_topic {
        let remark = "an inner batch (INNER_NUM, or bits 64 or 128 of sysFlag) needs the flag 128 and a topic whose \
                      queue.type is BatchCQ";
        return Err(Refusal::new(response::MESSAGE_ILLEGAL, remark));
    }
    let remark = "inner batches are not supported yet by this broker; nothing was stored";
    Err(Refusal::new(response::REQUEST_CODE_NOT_SUPPORTED, remark))
}

/// What the priority of a message means for where it is stored.
enum Priority {
    None,
    /// Something else decides how the message is delivered: RocketMQ takes the priority away.
    NotOfThisType,
    Queue(u32),
}

/// A message with a priority goes to the queue of that number, or to the last one (since RocketMQ 5.4), whatever the type
/// of the topic.
fn queue_of_priority(broker: &Broker, topic: &str, found: &Found<'_>) -> Priority {
    let priority = found.priority.and_then(delay::number).and_then(|priority| i32::try_from(priority).ok());
    let Some(priority) = priority.and_then(|priority| u32::try_from(priority).ok()) else { return Priority::None };
    if found.is_transactional || found.asked.has_delay || found.has_sharding_key {
        return Priority::NotOfThisType;
    }
    let queues = broker.topics.get(topic).map_or(0, |config| config.write_queue_nums);
    u32::try_from(queues - 1).map_or(Priority::None, |last| Priority::Queue(priority.min(last)))
}

fn store_one(
    broker: &mut Broker,
    request: &Request<'_>,
    header: &SendHeader<'_>,
    topic: &str,
    queue_id: u32,
    text: &mut Vec<u8>,
) -> Outcome {
    properties::terminate(text);
    let given_bytes = text.len();
    text.extend_from_slice(&broker.stamp);
    let mut found = look_at(&text[..given_bytes]);
    check_inner_batch(broker, topic, header, found.is_inner_batch)?;
    let (mut queue_id, mut drops_priority) = (queue_id, false);
    if found.priority.is_some() && request.origin.purpose == Purpose::Client {
        match queue_of_priority(broker, topic, &found) {
            Priority::None => {}
            Priority::NotOfThisType => drops_priority = true,
            Priority::Queue(queue) => {
                queue_id = queue;
                let owner = broker.owner(topic, queue_id);
                if owner != broker.core {
                    let origin = Origin { picked_queue: Some(queue_id), ..request.origin };
                    return broker.forward(owner, request, origin);
                }
            }
        }
    }
    if found.has_broker_keys || drops_priority || found.unique_key().is_none() {
        complete(broker, text, given_bytes, drops_priority);
        found = look_at(&text[..text.len() - broker.stamp.len()]);
    }
    let is_transactional = found.is_transactional && request.origin.purpose == Purpose::Client;
    let later = match transaction::half(broker, header, is_transactional, &found.asked)? {
        Some(half) => Some(half),
        None => found.asked.later(broker)?,
    };
    let owed;
    let (text, extra) = match &later {
        None => (&text[..], Extra::None),
        Some(later) => {
            owed = later_properties(text, &found, later, topic, queue_id);
            check_properties_size(owed.len() + DELIVERED_BYTES)?;
            (&owed[..], recallable(broker, request, later, topic))
        }
    };
    check_sizes(broker, request.frame.body.len(), text.len())?;
    let mut draft = draft(broker, request, header, topic, queue_id, text, found.keys);
    if later.is_some_and(|later| later.queue == OwedQueue::Half) {
        // With them it would have no place in a queue.
        draft.sys_flag &= !TRANSACTION_MASK;
    }
    refuse_if_full(broker)?;
    let appended = match later {
        None => broker.shard.append(&draft, broker.now_ms),
        Some(later) => owed::store(broker, later.queue, &draft, None),
    };
    match appended {
        Ok(placed) => {
            let topic = later.map_or(topic, |later| later.queue.topic());
            broker.counters.put(topic, 1, request.frame.body.len() as u64);
            let done = SendDone {
                to: request.reply_address(),
                purpose: request.origin.purpose,
                queue_id,
                queue_offset: placed.queue_offset,
                first: placed.physical_offset,
                transaction_id: ShortText::new(found.keys.unique().unwrap_or_default()),
                extra,
            };
            broker.after(placed.end, After::SendDone(done));
            Ok(Handled::Taken)
        }
        Err(error) => append_failed(broker, &error),
    }
}

/// A level takes the timers' properties away, as in RocketMQ.
fn later_properties(text: &[u8], found: &Found<'_>, later: &Later, topic: &str, queue_id: u32) -> Vec<u8> {
    if later.queue == OwedQueue::Half {
        let unique_key = found.unique_key().unwrap_or_default();
        return transaction::half_properties(text, unique_key, later.due_ms, topic, queue_id);
    }
    let skip: &[&str] = match later.out_ms {
        None => &["TIMER_DELAY_SEC", "TIMER_DELAY_MS", "TIMER_DELIVER_MS"],
        Some(_) => &[],
    };
    let mut owed = if found.has_owed_keys || found.asked.has_timer() && !skip.is_empty() {
        owed_properties(text, skip, later.due_ms, topic, queue_id)
    } else {
        owed_properties_of_all(text, later.due_ms, topic, queue_id)
    };
    if let Some(out_ms) = later.out_ms {
        properties::push_number(&mut owed, "TIMER_OUT_MS", out_ms);
    }
    owed
}

fn recallable(broker: &Broker, request: &Request<'_>, later: &Later, topic: &str) -> Extra {
    let is_of_client = group_of_retry_topic(topic).is_none() && request.origin.purpose == Purpose::Client;
    match (later.out_ms.filter(|_| is_of_client), broker.topics.get(topic)) {
        (Some(out_ms), Some(config)) => Extra::Timer { topic: Arc::clone(config), timestamp_ms: out_ms + 1 },
        _ => Extra::None,
    }
}

/// Each item becomes a message of its own; its properties are stored byte for byte.
fn store_batch(
    broker: &mut Broker,
    request: &Request<'_>,
    header: &SendHeader<'_>,
    topic: &str,
    queue_id: u32,
    text: &[u8],
) -> Outcome {
    let body = request.frame.body;
    let limit = broker.config.max_message_size;
    if body.len() > limit as usize {
        return Err(Refusal::new(
            response::SYSTEM_ERROR,
            format!("the batch of {} bytes is larger than maxMessageSize ({limit})", body.len()),
        ));
    }
    let header_found = look_at(text);
    check_inner_batch(broker, topic, header, header_found.is_inner_batch)?;
    if is_special(&header_found) || header.sys_flag & TRANSACTION_MASK != 0 {
        return Err(special_in_batch());
    }
    let mut items = Vec::new();
    for item in batch::items(body) {
        let item = item.map_err(|error| Refusal::new(response::SYSTEM_ERROR, error.to_string()))?;
        let found = look_at(item.properties);
        // Properties of items are stored as they are, and what begins so is owed.
        if is_special(&found) || item.properties.starts_with(DUE_PROPERTY.as_bytes()) {
            return Err(special_in_batch());
        }
        check_sizes(broker, item.body.len(), item.properties.len())?;
        items.push(BatchItem { flag: item.flag, body: item.body, properties: item.properties, keys: found.keys });
    }
    if items.is_empty() {
        return Err(Refusal::new(response::SYSTEM_ERROR, "the batch holds no message"));
    }
    let ids_bytes = items.len() * (OffsetMessageId::text_bytes(broker.store_host) + 1);
    if ids_bytes > IDS_BYTES_MAX {
        let count_max = items.len() * IDS_BYTES_MAX / ids_bytes;
        let remark = format!(
            "the batch has {} messages; the ids of more than {count_max} do not fit into one answer",
            items.len()
        );
        return Err(Refusal::new(response::MESSAGE_ILLEGAL, remark));
    }
    let transaction_id = ShortText::new(header_found.keys.unique().unwrap_or_default());
    let draft = draft(broker, request, header, topic, queue_id, &[], MessageKeys::default());
    let mut placed: Vec<Placed> = Vec::with_capacity(items.len());
    refuse_if_full(broker)?;
    match broker.shard.append_many(&draft, &items, broker.now_ms, &mut placed) {
        Ok(()) => {
            let (Some(first), Some(last)) = (placed.first(), placed.last()) else {
                return Err(Refusal::new(response::SYSTEM_ERROR, "the batch holds no message"));
            };
            broker.counters.put(topic, items.len() as u64, body.len() as u64);
            let done = SendDone {
                to: request.reply_address(),
                purpose: request.origin.purpose,
                queue_id,
                queue_offset: first.queue_offset,
                first: first.physical_offset,
                transaction_id,
                extra: Extra::Batch(placed.iter().map(|one| one.physical_offset).collect()),
            };
            let end = last.end;
            broker.after(end, After::SendDone(done));
            Ok(Handled::Taken)
        }
        Err(error) => append_failed(broker, &error),
    }
}

fn is_special(found: &Found<'_>) -> bool {
    found.asked.is_anything() || found.is_transactional
}

#[cold]
fn special_in_batch() -> Refusal {
    let remark = "a batch can hold neither delayed, nor timed, nor transactional messages";
    Refusal::new(response::MESSAGE_ILLEGAL, remark)
}

fn draft<'a>(
    broker: &Broker,
    request: &Request<'a>,
    header: &SendHeader<'_>,
    topic: &'a str,
    queue_id: u32,
    properties: &'a [u8],
    keys: MessageKeys<'a>,
) -> MessageDraft<'a> {
    MessageDraft {
        topic,
        queue_id,
        flag: header.flag,
        sys_flag: header.sys_flag,
        born_timestamp_ms: header.born_timestamp,
        born_host: request.origin.address,
        store_host: broker.store_host,
        reconsume_times: header.reconsume_times,
        prepared_transaction_offset: 0,
        body: request.frame.body,
        properties,
        keys,
    }
}

fn check_sizes(broker: &Broker, body_bytes: usize, properties_bytes: usize) -> Result<(), Refusal> {
    let limit = broker.config.max_message_size as usize;
    if body_bytes > limit {
        let remark = format!("the message body of {body_bytes} bytes is larger than maxMessageSize ({limit})");
        return Err(Refusal::new(response::MESSAGE_ILLEGAL, remark));
    }
    check_properties_size(properties_bytes)
}

fn check_properties_size(properties_bytes: usize) -> Result<(), Refusal> {
    if properties_bytes > properties::PROPERTIES_BYTES_MAX {
        let remark = format!(
            "the message's properties take {properties_bytes} bytes with those the broker adds; the limit of the \
             record format is {}",
            properties::PROPERTIES_BYTES_MAX
        );
        return Err(Refusal::new(response::MESSAGE_ILLEGAL, remark));
    }
    Ok(())
}

/// Keys the broker sets itself, or never stores.
const BROKER_KEYS: &[&str] = &["POP_CK", "MSG_REGION", "TRACE_ON", "CLUSTER", DUE_PROPERTY];
const BROKER_KEYS_AND_PRIORITY: &[&str] =
    &["POP_CK", "MSG_REGION", "TRACE_ON", "CLUSTER", DUE_PROPERTY, "_SYS_MSG_PRIORITY_"];

/// Makes properties again what is to be stored: without what a client may not set, because it forwards a message it has
/// consumed, and with a unique key. The first `given_bytes` are the client's.
#[cold]
fn complete(broker: &mut Broker, text: &mut Vec<u8>, given_bytes: usize, drops_priority: bool) {
    let keys = if drops_priority { BROKER_KEYS_AND_PRIORITY } else { BROKER_KEYS };
    let mut kept = Vec::with_capacity(text.len());
    properties::copy_without(&text[..given_bytes], keys, &mut kept);
    if look_at(&kept).unique_key().is_none() {
        properties::push(&mut kept, "UNIQ_KEY", broker.new_unique_key().as_bytes());
    }
    kept.extend_from_slice(&broker.stamp);
    *text = kept;
}

pub(super) fn refuse_if_full(broker: &mut Broker) -> Result<(), Refusal> {
    match broker.retention.refusal(&broker.config) {
        None => Ok(()),
        Some(refusal) => {
            broker.counters.put_failed();
            Err(refusal)
        }
    }
}

#[cold]
pub(super) fn append_failed(broker: &mut Broker, error: &AppendError) -> Outcome {
    if !matches!(error, AppendError::BatchFull { .. }) {
        broker.counters.put_failed();
    }
    match error {
        AppendError::BatchFull { .. } => Ok(Handled::Full),
        AppendError::Poisoned => Err(super::log_failed(&broker.shard)),
        // RocketMQ: CREATE_MAPPED_FILE_FAILED.
        AppendError::SegmentUnavailable { .. } => Err(Refusal::new(response::SYSTEM_ERROR, error.to_string())),
        AppendError::RecordTooLarge { .. }
        | AppendError::FieldTooLong { .. }
        | AppendError::QueueOutOfRange { .. }
        | AppendError::OwnGroup => Err(Refusal::new(response::MESSAGE_ILLEGAL, error.to_string())),
    }
}

/// Answers a send whose message the log holds as durably as the flush mode asks (or, with
/// FLUSH_DISK_TIMEOUT, may hold).
pub fn answer(broker: &mut Broker, done: &SendDone, code: i32) {
    if done.purpose == Purpose::SentBack {
        if code == response::SUCCESS {
            return broker.reply_done(done.to);
        }
        let refusal = Refusal::new(code, "the message may or may not be on the device");
        return broker.refuse_later(done.to, &send_back::not_stored(&refusal));
    }
    let code = if done.purpose == Purpose::PushedReply { response::SUCCESS } else { code };
    let (store_host, prefix) = (broker.store_host, Arc::clone(&broker.send_reply_prefix));
    let transaction_id = done.transaction_id.as_str();
    let mut scratch = std::mem::take(&mut broker.scratch);
    let handle = match &done.extra {
        Extra::Timer { topic, timestamp_ms } => {
            let handle = RecallHandle {
                topic: topic.topic_name.as_str().into(),
                broker_name: broker.config.broker_name.as_str().into(),
                timestamp_ms: *timestamp_ms,
                unique_key: transaction_id.into(),
            };
            handle.encode_in(&mut scratch)
        }
        _ => &[],
    };
    broker.reply(done.to, code, Body::None, |ext| {
        ext.begin_with(&prefix);
        ext.plain("msgId", |out| write_ids(out, store_host, done));
        ext.int("queueId", i64::from(done.queue_id));
        ext.int("queueOffset", done.queue_offset);
        if !transaction_id.is_empty() {
            ext.text("transactionId", transaction_id);
        }
        if !handle.is_empty() {
            ext.plain("recallHandle", |out| out.extend_from_slice(handle));
        }
    });
    broker.scratch = scratch;
}

/// Offset message ids, joined by commas.
fn write_ids(out: &mut Vec<u8>, store_host: SocketAddr, done: &SendDone) {
    let positions = match &done.extra {
        Extra::Batch(positions) => positions,
        _ => std::slice::from_ref(&done.first),
    };
    for (number, position) in positions.iter().enumerate() {
        if number > 0 {
            out.push(b',');
        }
        OffsetMessageId { store_host, physical_offset: position.to_wire() }.write_to(out);
    }
}

/// A message the broker sends to itself or to another of its cores as if a client had: a request frame with
/// the V2 header. The caller gives the origin whose reply it settles.
pub struct Resend<'a> {
    pub topic: &'a str,
    pub queue_id: u32,
    pub sys_flag: i32,
    pub flag: i32,
    pub born_timestamp_ms: i64,
    pub reconsume_times: i32,
    pub properties: &'a str,
    pub body: &'a [u8],
}

pub fn resend(broker: &mut Broker, origin: Origin, to: ReplyAddress, message: &Resend<'_>) -> Handled {
    let bytes = frame_of(to, message);
    match Frame::decode(&bytes) {
        Ok(frame) => broker.handle(&Request { origin, frame, bytes: &bytes }),
        // The client's frame was as large as a frame may be, and ours has a longer header.
        Err(error) => {
            broker.refuse_later(
                to,
                &Refusal::new(response::MESSAGE_ILLEGAL, format!("the message is too large: {error}")),
            );
            Handled::Taken
        }
    }
}

fn frame_of(to: ReplyAddress, message: &Resend<'_>) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(message.body.len() + message.properties.len() + 512);
    let code = request::SEND_MESSAGE_V2;
    rmq_net::reply::FrameWriter::request(
        &mut bytes,
        to.serialization,
        code,
        to.opaque,
        to.is_oneway,
        message.body.len(),
        |ext| {
            ext.text("a", "CLIENT_INNER_PRODUCER");
            ext.text("b", message.topic);
            ext.text("c", AUTO_CREATE_TOPIC);
            ext.int("d", 1);
            ext.int("e", i64::from(message.queue_id));
            ext.int("f", i64::from(message.sys_flag));
            ext.int("g", message.born_timestamp_ms);
            ext.int("h", i64::from(message.flag));
            ext.text("i", message.properties);
            ext.int("j", i64::from(message.reconsume_times));
        },
    );
    bytes.extend_from_slice(message.body);
    bytes
}

#[cfg(test)]
mod tests;
