//! Consumer progress and queue bounds: QUERY_CONSUMER_OFFSET (14), UPDATE_CONSUMER_OFFSET (15),
//! SEARCH_OFFSET_BY_TIMESTAMP (29), GET_MAX_OFFSET (30), GET_MIN_OFFSET (31), GET_EARLIEST_MSG_STORETIME (32).
//!
//! All are answered by the core that owns the queue; offsets of a queue live in its shard's log.

use rmq_engine::{AppendError, Boundary, Searched, StoreTime};
use rmq_net::codes::response;
use rmq_net::header::offset as header;

use crate::broker::{After, Body, Broker, Handled, Outcome, Refusal};
use crate::letter::{ReplyAddress, Request};
use crate::request::Job;

/// The queue's owner, or `None` when that is this core. Ids below zero name no queue and stay here.
fn elsewhere(broker: &Broker, topic: &str, queue_id: i32) -> Option<usize> {
    let owner = broker.owner(topic, u32::try_from(queue_id).ok()?);
    (owner != broker.core).then_some(owner)
}

pub fn query(broker: &mut Broker, request: &Request<'_>) -> Outcome {
    let header = header::QueryOffsetHeader::decode(&request.frame)?;
    let (group, topic) = (header.consumer_group.to_cow(), header.topic.to_cow());
    if let Some(owner) = elsewhere(broker, &topic, header.queue_id) {
        return broker.forward(owner, request, request.origin);
    }
    let queue_id = header.queue_id.max(0) as u32;
    let offset = broker.shard.offset(&group, &topic, queue_id).or_else(|| {
        // A new group on a queue that still has its first message starts there, whatever its
        // consumeFromWhere says; the reference does the same while that message is "in memory".
        let may_start = header.set_zero_if_not_found;
        (may_start && broker.shard.bounds(&topic, queue_id).min <= 0).then_some(0)
    });
    match offset {
        Some(offset) => {
            broker.reply(request.reply_address(), response::SUCCESS, Body::None, |ext| ext.int("offset", offset));
            Ok(Handled::Taken)
        }
        None => Err(Refusal::new(response::QUERY_NOT_FOUND, "Not found, maybe this group consumer boot first")),
    }
}

pub fn update(broker: &mut Broker, request: &Request<'_>) -> Outcome {
    let header = header::UpdateOffsetHeader::decode(&request.frame)?;
    let (group, topic) = (header.consumer_group.to_cow(), header.topic.to_cow());
    let (Some(queue_id), Some(commit_offset)) = (header.queue_id, header.commit_offset) else {
        return Err(Refusal::new(response::INVALID_PARAMETER, "queueId and commitOffset must be given"));
    };
    if let Some(owner) = elsewhere(broker, &topic, queue_id) {
        return broker.forward(owner, request, request.origin);
    }
    if broker.topics.get(&topic).is_none() {
        return Err(Refusal::new(response::TOPIC_NOT_EXIST, format!("topic[{topic}] not exist, apply first please!")));
    }
    if broker.groups.get(&group).is_none() {
        let remark = format!("subscription group [{group}] does not exist");
        return Err(Refusal::new(response::SUBSCRIPTION_GROUP_NOT_EXIST, remark));
    }
    let queue_id = u32::try_from(queue_id)
        .map_err(|_| Refusal::new(response::INVALID_PARAMETER, format!("queueId {queue_id} is below zero")))?;
    match broker.shard.commit_offset(&group, &topic, queue_id, commit_offset) {
        Ok(position) => {
            let to = request.reply_address();
            broker.after(position, After::Reply { to, code: response::SUCCESS });
            Ok(Handled::Taken)
        }
        Err(AppendError::BatchFull { .. }) => Ok(Handled::Full),
        Err(_) => Err(super::log_failed(&broker.shard)),
    }
}

pub fn bound(broker: &mut Broker, request: &Request<'_>, is_max: bool) -> Outcome {
    let header = header::QueueHeader::decode(&request.frame)?;
    let topic = header.topic.to_cow();
    if let Some(owner) = elsewhere(broker, &topic, header.queue_id) {
        return broker.forward(owner, request, request.origin);
    }
    let bounds =
        u32::try_from(header.queue_id).map(|queue_id| broker.shard.bounds(&topic, queue_id)).unwrap_or_default();
    let offset = if is_max { bounds.max } else { bounds.min };
    broker.reply(request.reply_address(), response::SUCCESS, Body::None, |ext| ext.int("offset", offset));
    Ok(Handled::Taken)
}

/// A look into the rows of a queue that may have to wait for the disk.
pub struct TimeLookup {
    to: ReplyAddress,
    topic: String,
    queue_id: u32,
    wanted: Wanted,
}

enum Wanted {
    Offset { timestamp_ms: i64, boundary: Boundary },
    EarliestStoreTime,
}

pub fn search(broker: &mut Broker, request: &Request<'_>) -> Outcome {
    let header = header::SearchOffsetHeader::decode(&request.frame)?;
    let topic = header.topic.to_cow();
    if let Some(owner) = elsewhere(broker, &topic, header.queue_id) {
        return broker.forward(owner, request, request.origin);
    }
    let boundary = if header.is_upper() { Boundary::Upper } else { Boundary::Lower };
    let wanted = Wanted::Offset { timestamp_ms: header.timestamp, boundary };
    look_up(broker, request, topic.into_owned(), header.queue_id, wanted)
}

pub fn earliest_store_time(broker: &mut Broker, request: &Request<'_>) -> Outcome {
    let header = header::QueueHeader::decode(&request.frame)?;
    let topic = header.topic.to_cow();
    if let Some(owner) = elsewhere(broker, &topic, header.queue_id) {
        return broker.forward(owner, request, request.origin);
    }
    look_up(broker, request, topic.into_owned(), header.queue_id, Wanted::EarliestStoreTime)
}

fn look_up(broker: &mut Broker, request: &Request<'_>, topic: String, queue_id: i32, wanted: Wanted) -> Outcome {
    let queue_id = queue_id.max(0) as u32;
    resume(broker, TimeLookup { to: request.reply_address(), topic, queue_id, wanted });
    Ok(Handled::Taken)
}

pub fn resume(broker: &mut Broker, lookup: TimeLookup) {
    let ticket = broker.new_ticket();
    let bounds = broker.shard.bounds(&lookup.topic, lookup.queue_id);
    let (key, searched) = match lookup.wanted {
        Wanted::Offset { timestamp_ms, boundary } => {
            let found = broker.shard.search_time(&lookup.topic, lookup.queue_id, timestamp_ms, boundary, ticket);
            ("offset", found)
        }
        Wanted::EarliestStoreTime if bounds.min >= bounds.max => ("timestamp", Searched::Done(-1)),
        Wanted::EarliestStoreTime => {
            let found = match broker.shard.store_time(&lookup.topic, lookup.queue_id, bounds.min, ticket) {
                StoreTime::Known(time) => Searched::Done(time),
                StoreTime::NotFound => Searched::Done(-1),
                StoreTime::Pending => Searched::Pending,
                StoreTime::Failed(error) => Searched::Failed(error),
            };
            ("timestamp", found)
        }
    };
    match searched {
        Searched::Done(number) => {
            broker.reply(lookup.to, response::SUCCESS, Body::None, |ext| ext.int(key, number));
        }
        Searched::Failed(error) => broker.refuse_later(lookup.to, &super::read_failed(&error)),
        Searched::Pending => broker.keep_job(ticket, Job::TimeLookup(lookup)),
    }
}
