//! Consumer progress and queue bounds: QUERY_CONSUMER_OFFSET (14), UPDATE_CONSUMER_OFFSET (15),
//! SEARCH_OFFSET_BY_TIMESTAMP (29), GET_MAX_OFFSET (30), GET_MIN_OFFSET (31), GET_EARLIEST_MSG_STORETIME (32).
//!
//! All are answered by the core that owns the queue; offsets of a queue live in its shard's log.

use rmq_engine::{Boundary, Searched, StoreTime};
use rmq_net::codes::response;
use rmq_net::header::offset as header;

use crate::broker::{After, Body, Broker, Handled, Outcome, Refusal};
use crate::letter::{ReplyAddress, Request};
use crate::request::{Job, topic_change};

/// The queue's owner, or `None` when that is this core. Ids below zero name no queue and stay here; they are
/// answered like a queue that never had a message.
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
    let offset = u32::try_from(header.queue_id).ok().and_then(|queue_id| {
        broker.shard.offset(&group, &topic, queue_id).or_else(|| {
            // A new group on a queue that still has its first message starts there, whatever its
            // consumeFromWhere says; RocketMQ does the same while that message is "in memory". On a queue without
            // messages the client decides, which comes to 0 as well.
            let bounds = broker.shard.bounds(&topic, queue_id);
            (header.set_zero_if_not_found && bounds.min <= 0 && bounds.max > 0).then_some(0)
        })
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
    if let Some(owner) = header.queue_id.and_then(|queue_id| elsewhere(broker, &topic, queue_id)) {
        return broker.forward(owner, request, request.origin);
    }
    if broker.groups.get(&group).is_none() {
        let remark = format!("subscription group [{group}] does not exist");
        return Err(Refusal::new(response::SUBSCRIPTION_GROUP_NOT_EXIST, remark));
    }
    if broker.topics.get(&topic).is_none() {
        return Err(Refusal::new(response::TOPIC_NOT_EXIST, format!("topic[{topic}] not exist, apply first please!")));
    }
    let (Some(queue_id), Some(commit_offset)) = (header.queue_id, header.commit_offset) else {
        return Err(Refusal::new(response::INVALID_PARAMETER, "queueId and commitOffset must be given"));
    };
    let queue_id = u32::try_from(queue_id)
        .map_err(|_| Refusal::new(response::INVALID_PARAMETER, format!("queueId {queue_id} is below zero")))?;
    if broker.resets.contains(&group, &topic, queue_id) {
        let (to, remark) = (request.reply_address(), Some("Offset has been previously reset"));
        broker.reply_with_remark(to, response::SUCCESS, remark, Body::None, |_| ());
        return Ok(Handled::Taken);
    }
    match broker.shard.commit_offset(&group, &topic, queue_id, commit_offset) {
        Ok(position) => {
            let to = request.reply_address();
            broker.after(position, After::Reply { to, code: response::SUCCESS });
            Ok(Handled::Taken)
        }
        Err(error) => topic_change::append_refused(broker, &error),
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

impl Wanted {
    /// The answer for a queue without messages: ext key and value.
    fn of_empty_queue(&self) -> (&'static str, i64) {
        match self {
            Self::Offset { .. } => ("offset", 0),
            Self::EarliestStoreTime => ("timestamp", -1),
        }
    }
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
    let to = request.reply_address();
    match u32::try_from(queue_id) {
        Ok(queue_id) => resume(broker, TimeLookup { to, topic, queue_id, wanted }),
        Err(_) => {
            let (key, number) = wanted.of_empty_queue();
            broker.reply(to, response::SUCCESS, Body::None, |ext| ext.int(key, number));
        }
    }
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
        Wanted::EarliestStoreTime if bounds.min >= bounds.max => {
            let (key, number) = lookup.wanted.of_empty_queue();
            (key, Searched::Done(number))
        }
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

#[cfg(test)]
mod tests {
    use rmq_net::codes::{request as code, response};

    use crate::testing::{Cores, Sent};

    /// A request about queue `queue_id` of topic T, for those that take these fields and for those that ignore some.
    fn ask(cores: &mut Cores, code: i32, group: &str, topic: &str, queue_id: &str) -> Sent {
        let ext = [("consumerGroup", group), ("queueId", queue_id), ("timestamp", "0"), ("topic", topic)];
        cores.call(1, code, &ext, b"")
    }

    #[test]
    fn a_queue_id_below_zero_is_an_empty_queue_not_the_first_one() {
        let mut cores = Cores::new(2);
        assert_eq!(ask(&mut cores, code::QUERY_CONSUMER_OFFSET, "g", "T", "0").code, response::QUERY_NOT_FOUND);
        for _ in 0..2 {
            assert_eq!(cores.send(0, "T", 0, &[]).code, 0);
        }
        assert_eq!(ask(&mut cores, code::QUERY_CONSUMER_OFFSET, "g", "T", "-1").code, response::QUERY_NOT_FOUND);
        assert_eq!(ask(&mut cores, code::QUERY_CONSUMER_OFFSET, "g", "T", "0").ext("offset"), "0");
        for (code, key, below_zero, first) in [
            (code::SEARCH_OFFSET_BY_TIMESTAMP, "offset", "0", "0"),
            (code::GET_MAX_OFFSET, "offset", "0", "2"),
            (code::GET_MIN_OFFSET, "offset", "0", "0"),
            (code::GET_EARLIEST_MSG_STORETIME, "timestamp", "-1", "1700000000000"),
        ] {
            let answer = ask(&mut cores, code, "g", "T", "-1");
            assert_eq!((answer.code, answer.ext(key)), (0, below_zero), "{code}");
            assert_eq!(ask(&mut cores, code, "g", "T", "0").ext(key), first, "{code}");
        }
    }

    #[test]
    fn a_commit_is_checked_for_group_then_topic_then_queue() {
        let mut cores = Cores::new(2);
        let commit = |cores: &mut Cores, group: &str, topic: &str, queue_id: &str| {
            ask(cores, code::UPDATE_CONSUMER_OFFSET, group, topic, queue_id).code
        };
        for queue_id in ["0", "1", "-1"] {
            assert_eq!(commit(&mut cores, "g", "T", queue_id), response::SUBSCRIPTION_GROUP_NOT_EXIST);
        }
        cores.create_group(r#"{"groupName":"g"}"#);
        assert_eq!(commit(&mut cores, "g", "T", "1"), response::TOPIC_NOT_EXIST);
        cores.create_topic("T", "4", "6", "");
        assert_eq!(commit(&mut cores, "g", "T", "1"), response::INVALID_PARAMETER);
        let whole = [("commitOffset", "5"), ("consumerGroup", "g"), ("queueId", "1"), ("topic", "T")];
        assert_eq!(cores.call(0, code::UPDATE_CONSUMER_OFFSET, &whole, b"").code, 0);
        assert_eq!(ask(&mut cores, code::QUERY_CONSUMER_OFFSET, "g", "T", "1").ext("offset"), "5");
    }
}
