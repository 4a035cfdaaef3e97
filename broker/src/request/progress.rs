//! How far groups are, and what they subscribe to: QUERY_CONSUME_TIME_SPAN (303), QUERY_CORRECTION_OFFSET (308),
//! CLONE_GROUP_OFFSET (314), GET_BROKER_CONSUME_STATS (317), QUERY_CONSUME_QUEUE (321),
//! QUERY_SUBSCRIPTION_BY_CONSUMER (345).

use std::collections::{BTreeMap, BTreeSet};

use rmq_engine::{PhysicalOffset, Rows, StoreTime, Ticket};
use rmq_net::body::{
    self, ConsumeQueueData, ConsumeQueueRows, ConsumeStats, ConsumeStatsList, ConsumeTimeSpans, CorrectionOffsets,
    GroupSubscription, OffsetWrapper, QueueTimeSpan, SubscriptionData,
};
use rmq_net::codes::response;
use rmq_net::header::group::GroupHeader;
use rmq_net::header::offset as header;

use crate::broker::{Broker, Handled, Outcome, Refusal};
use crate::gather::{self, gather};
use crate::letter::{ReplyAddress, Request};
use crate::request::queues::{NotSeen, look_at, store_time};
use crate::request::stats::queue;
use crate::request::{Job, read_failed};

/// Rows told at once: 321 shows them to a person.
const ROWS_MAX: i64 = 1024;

pub fn time_span(broker: &mut Broker, request: &Request<'_>) -> Outcome {
    let header = header::TimeSpanHeader::decode(&request.frame)?;
    let (topic, group) = (header.topic.to_cow().into_owned(), header.group.to_cow().into_owned());
    let Some(config) = broker.topics.get(&topic) else {
        return Err(Refusal::new(response::TOPIC_NOT_EXIST, format!("topic[{topic}] not exist")));
    };
    let queue_ids = (0..u32::try_from(config.write_queue_nums).unwrap_or(0)).collect();
    let to = request.reply_address();
    let look = {
        let topic = topic.clone();
        move |broker: &mut Broker, queue_id, ticket| span(broker, &topic, &group, queue_id, ticket)
    };
    look_at(broker, topic, queue_ids, look, move |broker, spans| match spans {
        Ok(spans) => {
            let json = body::encode(&ConsumeTimeSpans { consume_time_span_set: spans.into_values().collect() });
            broker.reply_json(to, &json);
        }
        Err(refusal) => broker.refuse_later(to, &refusal),
    });
    Ok(Handled::Taken)
}

fn span(
    broker: &mut Broker,
    topic: &str,
    group: &str,
    queue_id: u32,
    ticket: Ticket,
) -> Result<QueueTimeSpan, NotSeen> {
    let bounds = broker.shard.bounds(topic, queue_id);
    let consumed = broker.shard.offset(group, topic, queue_id).unwrap_or(0);
    let mut time = |offset| store_time(broker, topic, queue_id, offset, ticket);
    let min_time_stamp = time(bounds.min)?;
    let max_time_stamp = time(bounds.max - 1)?;
    let consume_time_stamp = if consumed > 0 { time(consumed - 1)? } else { min_time_stamp };
    let next_time_ms = if consumed < bounds.max { time(consumed.max(bounds.min))? } else { -1 };
    let delay_time = if next_time_ms < 0 { 0 } else { broker.now_ms - next_time_ms };
    let message_queue = queue(broker, topic, queue_id as i32);
    Ok(QueueTimeSpan { consume_time_stamp, delay_time, max_time_stamp, message_queue, min_time_stamp })
}

/// The least offset of all groups on each queue of the topic; where the compared group is behind it, the largest number
/// there is. RocketMQ forgets the offsets of the groups that are to be left out; here asking changes nothing.
pub fn correction(broker: &mut Broker, request: &Request<'_>) -> Outcome {
    let header = header::CorrectionHeader::decode(&request.frame)?;
    let (topic, compared) = (header.topic.to_cow().into_owned(), header.compare_group.to_cow().into_owned());
    let left_out = header.filter_groups.as_ref().map(|text| text.to_cow().into_owned()).unwrap_or_default();
    let left_out: BTreeSet<String> = left_out.split(',').map(str::to_owned).collect();
    let to = request.reply_address();
    let ask = move |broker: &mut Broker| -> Vec<(u32, i64)> {
        let shard = &broker.shard;
        let mut least: BTreeMap<u32, i64> = BTreeMap::new();
        for (group, _, queue_id, offset) in shard.offsets().filter(|(_, of, ..)| *of == topic) {
            if !left_out.contains(group) && offset >= shard.bounds(&topic, queue_id).min {
                least.entry(queue_id).and_modify(|least| *least = offset.min(*least)).or_insert(offset);
            }
        }
        for (queue_id, offset) in &mut least {
            if shard.offset(&compared, &topic, *queue_id).is_some_and(|compared| *offset > compared) {
                *offset = i64::MAX;
            }
        }
        least.into_iter().collect()
    };
    gather(broker, ask, move |broker, answers: Vec<Vec<(u32, i64)>>| {
        let offsets = answers.into_iter().flatten().map(|(queue_id, offset)| (queue_id as i32, offset));
        let json = body::encode_legacy(&CorrectionOffsets { correction_offsets: offsets.collect() });
        broker.reply_json(to, &json);
    });
    Ok(Handled::Taken)
}

/// Lets a group go on where another one is.
pub fn clone_offsets(broker: &mut Broker, request: &Request<'_>) -> Outcome {
    let header = header::CloneOffsetsHeader::decode(&request.frame)?;
    let (from, into) = (header.src_group.to_cow().into_owned(), header.dest_group.to_cow().into_owned());
    let topic = header.topic.as_ref().map(|text| text.to_cow().into_owned()).filter(|topic| !topic.trim().is_empty());
    let is_offline = header.offline;
    let to = request.reply_address();
    let change = move |broker: &mut Broker| {
        let of_group = broker.shard.offsets().filter(|(group, of, ..)| {
            *group == from
                && topic.as_ref().is_none_or(|topic| topic == of)
                && is_of_group(broker, group, of, is_offline)
        });
        let offsets: Vec<_> = of_group.map(|(_, topic, id, offset)| (topic.to_owned(), id, offset)).collect();
        let mut position = broker.shard.durable();
        for (topic, queue_id, offset) in offsets {
            position = position.max(broker.shard.commit_offset(&into, &topic, queue_id, offset)?);
        }
        Ok(position)
    };
    gather::change(broker, change, move |broker, changed| match changed.into_iter().find_map(Result::err) {
        None => broker.reply_done(to),
        Some(error) => {
            let remark = format!("not all offsets could be recorded: {error}; clone them again");
            broker.refuse_later(to, &Refusal::new(response::SYSTEM_ERROR, remark));
        }
    });
    Ok(Handled::Taken)
}

/// Is it an offset of a topic there is, and, while the group is online, of one it subscribes to?
fn is_of_group(broker: &Broker, group: &str, topic: &str, is_offline: bool) -> bool {
    let view = broker.views.get(group).filter(|view| !is_offline && !view.subscriptions.is_empty());
    broker.topics.get(topic).is_some() && view.is_none_or(|view| view.subscriptions.contains_key(topic))
}

/// One group's offset in one queue of a core, with the end of the queue.
struct Consumed {
    group: String,
    topic: String,
    queue_id: u32,
    wrapper: OffsetWrapper,
}

pub fn of_all_groups(broker: &mut Broker, request: &Request<'_>) -> Outcome {
    let header = header::BrokerConsumeStatsHeader::decode(&request.frame)?;
    let to = request.reply_address();
    let is_order = header.is_order;
    gather(broker, consumed, move |broker, answers: Vec<Vec<Consumed>>| {
        tell_all_groups(broker, to, is_order, answers.into_iter().flatten());
    });
    Ok(Handled::Taken)
}

fn consumed(broker: &mut Broker) -> Vec<Consumed> {
    let offsets =
        broker.shard.offsets().map(|(group, topic, id, offset)| (group.to_owned(), topic.to_owned(), id, offset));
    let offsets: Vec<_> = offsets.collect();
    let mut all = Vec::with_capacity(offsets.len());
    for (group, topic, queue_id, offset) in offsets {
        let ticket = broker.new_ticket();
        // A tool's display is not worth a read.
        let last_timestamp = match broker.shard.store_time(&topic, queue_id, offset - 1, ticket) {
            StoreTime::Known(time) => time,
            StoreTime::NotFound | StoreTime::Pending | StoreTime::Failed(_) => 0,
        };
        let broker_offset = broker.shard.bounds(&topic, queue_id).max;
        // As in RocketMQ, nothing is said here about how far the group has pulled.
        let wrapper = OffsetWrapper { broker_offset, consumer_offset: offset.max(0), last_timestamp, pull_offset: 0 };
        all.push(Consumed { group, topic, queue_id, wrapper });
    }
    all
}

fn tell_all_groups(broker: &mut Broker, to: ReplyAddress, is_order: bool, all: impl Iterator<Item = Consumed>) {
    let mut groups: BTreeMap<String, BTreeMap<String, ConsumeStats>> = BTreeMap::new();
    groups.extend(broker.groups.iter().map(|config| (config.group_name.clone(), BTreeMap::new())));
    for Consumed { group, topic, queue_id, wrapper } in all {
        let Some(config) = broker.topics.get(&topic) else { continue };
        let is_told = (!is_order || config.order)
            && i64::from(queue_id) < i64::from(config.write_queue_nums)
            && is_of_group(broker, &group, &topic, false);
        if let Some(topics) = groups.get_mut(&group).filter(|_| is_told) {
            let stats = topics.entry(topic).or_default();
            stats.offset_table.insert(queue(broker, config.topic_name.as_str(), queue_id as i32), wrapper);
        }
    }
    let mut list = ConsumeStatsList {
        broker_addr: broker.config.client_address(broker.config.listen_port),
        ..ConsumeStatsList::default()
    };
    for (group, mut topics) in groups {
        for (topic, stats) in &mut topics {
            stats.consume_tps = broker.system.as_ref().map_or(0.0, |system| system.stats.group_get_tps(topic, &group));
            for wrapper in stats.offset_table.values() {
                list.total_diff += wrapper.broker_offset - wrapper.consumer_offset;
                list.total_inflight_diff += wrapper.pull_offset - wrapper.consumer_offset;
            }
        }
        list.groups.push((group, topics.into_values().collect()));
    }
    broker.reply_json(to, &list.encode());
}

pub fn subscription(broker: &mut Broker, request: &Request<'_>) -> Outcome {
    let header = GroupHeader::decode(&request.frame)?;
    let group = header.group.to_cow().into_owned();
    let topic = header.topic.as_ref().map(|text| text.to_cow().into_owned());
    let subscription_data = topic.as_deref().and_then(|topic| subscribed(broker, &group, topic));
    let json = body::encode(&GroupSubscription { group, subscription_data, topic });
    broker.reply_json(request.reply_address(), &json);
    Ok(Handled::Taken)
}

fn subscribed(broker: &Broker, group: &str, topic: &str) -> Option<SubscriptionData> {
    Some(broker.views.get(group)?.subscriptions.get(topic)?.to_data(topic))
}

/// A look at rows of one queue, on its core.
struct RowsLook {
    to: ReplyAddress,
    topic: String,
    queue_id: u32,
    next: i64,
    end: i64,
    rows: ConsumeQueueRows,
}

pub fn rows(broker: &mut Broker, request: &Request<'_>) -> Outcome {
    let header = header::ConsumeQueueHeader::decode(&request.frame)?;
    let topic = header.topic.to_cow().into_owned();
    let unknown = || Refusal::new(response::SYSTEM_ERROR, format!("{}@{topic} is not exist!", header.queue_id));
    let queue_id = u32::try_from(header.queue_id).map_err(|_| unknown())?;
    let owner = broker.owner(&topic, queue_id);
    if owner != broker.core {
        return broker.forward(owner, request, request.origin);
    }
    if broker.shard.queues(&topic).all(|(id, ..)| id != queue_id) {
        return Err(unknown());
    }
    let bounds = broker.shard.bounds(&topic, queue_id);
    let group = header.consumer_group.as_ref().map(|text| text.to_cow());
    let subscription_data = group.as_deref().and_then(|group| subscribed(broker, group, &topic));
    let filter_data = group.as_deref().map(|group| match subscription_data {
        Some(_) => "null".to_owned(),
        None => format!("{group}@{topic} is not online!"),
    });
    let rows = ConsumeQueueRows {
        filter_data,
        max_queue_index: bounds.max,
        min_queue_index: bounds.min,
        queue_data: Vec::new(),
        subscription_data,
    };
    let to = request.reply_address();
    if !(bounds.min..bounds.max).contains(&header.index) {
        // RocketMQ leaves the body out, which its own tool cannot read.
        let remark = format!("Index {} of {queue_id}@{topic} is not exist!", header.index);
        let json = body::encode(&rows);
        broker.reply_with_remark(to, response::SUCCESS, Some(&remark), crate::broker::Body::Bytes(&json), |_| ());
        return Ok(Handled::Taken);
    }
    let end = header.index.saturating_add(i64::from(header.count).clamp(0, ROWS_MAX)).min(bounds.max);
    look_at_rows(broker, RowsLook { to, topic, queue_id, next: header.index, end, rows });
    Ok(Handled::Taken)
}

fn look_at_rows(broker: &mut Broker, mut look: RowsLook) {
    let shard_number = broker.core as u16;
    while look.next < look.end {
        let ticket = broker.new_ticket();
        let (end, told_before) = (look.end, look.rows.queue_data.len());
        let told = &mut look.rows.queue_data;
        let tell = |offset, tags_code, message: rmq_engine::MessageRef| {
            if offset < end {
                told.push(ConsumeQueueData {
                    eval: false,
                    physic_offset: PhysicalOffset::new(shard_number, message.position()).to_wire(),
                    physic_size: message.size_bytes() as i32,
                    tags_code,
                });
            }
        };
        match broker.shard.rows(&look.topic, look.queue_id, look.next, ticket, tell) {
            Rows::UpTo(next) if next > look.next => look.next = next,
            // Retention took the rest of the queue meanwhile.
            Rows::UpTo(_) => break,
            Rows::Pending => {
                look.rows.queue_data.truncate(told_before);
                let again = move |broker: &mut Broker| look_at_rows(broker, look);
                return broker.keep_job(ticket, Job::Look(Box::new(again)));
            }
            Rows::Failed(error) => return broker.refuse_later(look.to, &read_failed(&error)),
        }
    }
    let json = body::encode(&look.rows);
    broker.reply_json(look.to, &json);
}

#[cfg(test)]
mod tests {
    use rmq_net::codes::{request as code, response};

    use crate::testing::{Cores, Sent};

    /// Two groups on a topic of four queues with two messages each.
    fn cores_with_groups() -> Cores {
        let mut cores = Cores::new(2);
        cores.create_topic("T", "4", "6", "");
        for group in ["g", "h"] {
            cores.create_group(&format!(r#"{{"groupName":"{group}"}}"#));
        }
        for _ in 0..2 {
            for queue_id in 0..4 {
                assert_eq!(cores.send(0, "T", queue_id, &[("TAGS", "A")]).code, 0);
            }
            cores.now_ms += 1000;
        }
        for (group, offset) in [("g", "2"), ("h", "1")] {
            for queue_id in ["0", "1", "2", "3"] {
                let ext = [("commitOffset", offset), ("consumerGroup", group), ("queueId", queue_id), ("topic", "T")];
                assert_eq!(cores.call(0, code::UPDATE_CONSUMER_OFFSET, &ext, b"").code, 0);
            }
        }
        cores
    }

    fn ask(cores: &mut Cores, code: i32, ext: &[(&'static str, &str)]) -> Sent {
        let answer = cores.call(1, code, ext, b"");
        assert_eq!(answer.code, 0, "{}", answer.remark);
        answer
    }

    fn text(answer: Sent) -> String {
        String::from_utf8(answer.body).expect("text")
    }

    #[test]
    fn the_time_span_of_each_queue_says_how_far_behind_a_group_is() {
        let mut cores = cores_with_groups();
        let span = |cores: &mut Cores, group: &str| {
            text(ask(cores, code::QUERY_CONSUME_TIME_SPAN, &[("group", group), ("topic", "T")]))
        };
        let behind = span(&mut cores, "h");
        let of_queue = r#"{"consumeTimeStamp":1700000000000,"delayTime":1000,"maxTimeStamp":1700000001000,"messageQueue":{"brokerName":"broker-a","queueId":3,"topic":"T"},"minTimeStamp":1700000000000}"#;
        assert!(behind.contains(of_queue), "{behind}");
        assert_eq!(span(&mut cores, "g").matches(r#""delayTime":0"#).count(), 4);
        assert_eq!(span(&mut cores, "never seen").matches(r#""delayTime":2000"#).count(), 4);
        let ext = [("group", "g"), ("topic", "X")];
        assert_eq!(cores.call(0, code::QUERY_CONSUME_TIME_SPAN, &ext, b"").code, response::TOPIC_NOT_EXIST);
    }

    #[test]
    fn the_least_offsets_of_all_groups_are_told_and_asking_changes_none() {
        let mut cores = cores_with_groups();
        for (left_out, compared, expected) in
            [("", "g", "1"), ("h", "g", "2"), ("h", "h", "9223372036854775807"), ("", "none", "1")]
        {
            let ext = [("compareGroup", compared), ("filterGroups", left_out), ("topic", "T")];
            let told = text(ask(&mut cores, code::QUERY_CORRECTION_OFFSET, &ext));
            let offsets: Vec<_> = (0..4).map(|queue_id| format!("{queue_id}:{expected}")).collect();
            assert_eq!(told, format!(r#"{{"correctionOffsets":{{{}}}}}"#, offsets.join(",")));
        }
    }

    #[test]
    fn a_clone_goes_on_where_the_other_group_is() {
        let mut cores = cores_with_groups();
        ask(&mut cores, code::CLONE_GROUP_OFFSET, &[("destGroup", "copy"), ("offline", "false"), ("srcGroup", "h")]);
        for queue_id in ["0", "1", "2", "3"] {
            let ext =
                [("consumerGroup", "copy"), ("queueId", queue_id), ("setZeroIfNotFound", "false"), ("topic", "T")];
            assert_eq!(ask(&mut cores, code::QUERY_CONSUMER_OFFSET, &ext).ext("offset"), "1");
        }
        ask(&mut cores, code::CLONE_GROUP_OFFSET, &[("destGroup", "other"), ("srcGroup", "h"), ("topic", "X")]);
        let ext = [("consumerGroup", "other"), ("queueId", "0"), ("setZeroIfNotFound", "false"), ("topic", "T")];
        assert_eq!(cores.call(0, code::QUERY_CONSUMER_OFFSET, &ext, b"").code, response::QUERY_NOT_FOUND);
    }

    #[test]
    fn the_statistics_of_the_broker_hold_every_group_with_what_it_has_consumed() {
        let mut cores = cores_with_groups();
        let told = text(ask(&mut cores, code::GET_BROKER_CONSUME_STATS, &[("isOrder", "false")]));
        assert!(told.contains(r#"{"h":[{"consumeTps":0.0,"offsetTable":{{"brokerName":"broker-a","queueId":0,"topic":"T"}:{"brokerOffset":2,"consumerOffset":1,"lastTimestamp":1700000000000,"pullOffset":0}"#), "{told}");
        assert!(told.ends_with(r#""totalDiff":4,"totalInflightDiff":-12}"#), "{told}");
        let ordered = text(ask(&mut cores, code::GET_BROKER_CONSUME_STATS, &[("isOrder", "true")]));
        assert!(ordered.contains(r#"{"h":[]}"#), "{ordered}");
    }

    #[test]
    fn a_subscription_is_told_while_the_group_is_online() {
        let mut cores = cores_with_groups();
        let ext = [("group", "g"), ("topic", "T")];
        assert_eq!(text(ask(&mut cores, code::QUERY_SUBSCRIPTION_BY_CONSUMER, &ext)), r#"{"group":"g","topic":"T"}"#);
        let heartbeat = br#"{"clientID":"c","consumerDataSet":[{"groupName":"g","subscriptionDataSet":[
            {"topic":"T","subString":"A","subVersion":1,"expressionType":"TAG"}]}],"producerDataSet":[]}"#;
        assert_eq!(cores.call(0, code::HEART_BEAT, &[], heartbeat).code, 0);
        let told = text(ask(&mut cores, code::QUERY_SUBSCRIPTION_BY_CONSUMER, &ext));
        assert!(told.contains(r#""subString":"A""#), "{told}");
    }

    #[test]
    fn rows_of_a_queue_are_shown_from_an_index_on() {
        let mut cores = cores_with_groups();
        for queue_id in ["0", "1"] {
            let look = |index, count| [("count", count), ("index", index), ("queueId", queue_id), ("topic", "T")];
            let told = text(ask(&mut cores, code::QUERY_CONSUME_QUEUE, &look("0", "10")));
            assert!(
                told.starts_with(r#"{"maxQueueIndex":2,"minQueueIndex":0,"queueData":[{"eval":false,"physicOffset":"#)
            );
            assert_eq!(told.matches(r#""tagsCode":65"#).count(), 2);
            let one = text(ask(&mut cores, code::QUERY_CONSUME_QUEUE, &look("1", "1")));
            assert_eq!(one.matches("physicOffset").count(), 1);
            let beyond = ask(&mut cores, code::QUERY_CONSUME_QUEUE, &look("2", "1"));
            assert_eq!(beyond.remark, format!("Index 2 of {queue_id}@T is not exist!"));
            assert!(text(beyond).contains(r#""queueData":[]"#));
        }
        for queue_id in ["9", "-1"] {
            let ext = [("count", "1"), ("index", "0"), ("queueId", queue_id), ("topic", "T")];
            let unknown = cores.call(0, code::QUERY_CONSUME_QUEUE, &ext, b"");
            assert_eq!((unknown.code, unknown.remark), (1, format!("{queue_id}@T is not exist!")));
        }
        let ext = [("consumerGroup", "g"), ("count", "1"), ("index", "0"), ("queueId", "0"), ("topic", "T")];
        let offline = text(ask(&mut cores, code::QUERY_CONSUME_QUEUE, &ext));
        assert!(offline.contains(r#""filterData":"g@T is not online!""#), "{offline}");
    }
}
