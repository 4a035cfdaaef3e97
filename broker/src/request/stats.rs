//! What tools ask about queues and progress of the whole broker: GET_TOPIC_STATS_INFO (202),
//! GET_CONSUME_STATS (208), GET_ALL_CONSUMER_OFFSET (43), QUERY_TOPIC_CONSUME_BY_WHO (300),
//! QUERY_TOPICS_BY_CONSUMER (343). Each core answers for its queues; the system core joins the answers.

use std::collections::{BTreeMap, BTreeSet};

use rmq_engine::StoreTime;
use rmq_net::body::{self, MessageQueue};
use rmq_net::codes::response;
use rmq_net::header::{group, topic};

use crate::broker::{Broker, Handled, Outcome, Refusal};
use crate::gather::gather;
use crate::letter::{ReplyAddress, Request};

/// One queue as its core sees it.
#[derive(Clone, Debug, Default)]
struct QueueState {
    min: i64,
    max: i64,
    last_store_ms: i64,
}

fn queue(broker: &Broker, topic: &str, queue_id: i32) -> MessageQueue {
    MessageQueue { broker_name: broker.config.broker_name.clone(), queue_id, topic: topic.to_owned() }
}

pub fn topic_stats(broker: &mut Broker, request: &Request<'_>) -> Outcome {
    let header = topic::TopicHeader::decode(&request.frame)?;
    let topic = header.topic.to_cow().into_owned();
    let Some(config) = broker.topics.get(&topic) else {
        return Err(Refusal::new(response::TOPIC_NOT_EXIST, format!("topic[{topic}] not exist")));
    };
    let queues = config.read_queue_nums.max(config.write_queue_nums);
    let to = request.reply_address();
    let name = topic.clone();
    let ask = move |broker: &mut Broker| -> Vec<(u32, QueueState)> {
        let states = broker.shard.queues(&name).map(|(queue_id, bounds, last_store_ms)| {
            (queue_id, QueueState { min: bounds.min, max: bounds.max, last_store_ms })
        });
        states.collect()
    };
    gather(broker, ask, move |broker, answers| {
        let states: BTreeMap<u32, QueueState> = answers.into_iter().flatten().collect();
        let rows = (0..queues).map(|queue_id| {
            let state = states.get(&(queue_id as u32)).cloned().unwrap_or_default();
            let offset = body::TopicOffset {
                min_offset: state.min,
                max_offset: state.max,
                last_update_timestamp: if state.max > state.min { state.last_store_ms } else { 0 },
            };
            (queue(broker, &topic, queue_id), offset)
        });
        let offset_table = rows.collect();
        let topic_put_tps = broker.system.as_ref().map_or(0.0, |system| system.stats.topic_put_tps(&topic));
        let json = body::TopicStatsTable { offset_table, topic_put_tps }.encode();
        broker.reply_json(to, &json);
    });
    Ok(Handled::Taken)
}

/// Offsets a group has committed on one core: (topic, queue id, offset).
type Committed = Vec<(String, u32, i64)>;

fn committed_by(group: String) -> impl Fn(&mut Broker) -> Committed + Send + Sync + 'static {
    move |broker| {
        let offsets = broker.shard.offsets().filter(|(of, ..)| *of == group);
        offsets.map(|(_, topic, queue_id, offset)| (topic.to_owned(), queue_id, offset)).collect()
    }
}

pub fn consume_stats(broker: &mut Broker, request: &Request<'_>) -> Outcome {
    let header = group::ConsumeStatsHeader::decode(&request.frame)?;
    let group = header.consumer_group.to_cow().into_owned();
    let topic = header.topic.as_ref().map(|text| text.to_cow().into_owned()).filter(|topic| !topic.is_empty());
    let to = request.reply_address();
    let ask = committed_by(group.clone());
    gather(broker, ask, move |broker, answers: Vec<Committed>| {
        let committed: BTreeMap<(String, u32), i64> =
            answers.into_iter().flatten().map(|(topic, queue_id, offset)| ((topic, queue_id), offset)).collect();
        let topics: BTreeSet<String> = match topic {
            Some(topic) => BTreeSet::from([topic]),
            None => committed.keys().map(|(topic, _)| topic.clone()).collect(),
        };
        join_progress(broker, to, group, topics, committed);
    });
    Ok(Handled::Taken)
}

/// The second round: the queues of the group's topics, beside what the group has committed.
fn join_progress(
    broker: &mut Broker,
    to: ReplyAddress,
    group: String,
    topics: BTreeSet<String>,
    committed: BTreeMap<(String, u32), i64>,
) {
    let ask = {
        let (topics, committed) = (topics.clone(), committed.clone());
        move |broker: &mut Broker| queue_progress(broker, &topics, &committed)
    };
    gather(broker, ask, move |broker, answers: Vec<BTreeMap<(String, u32), QueueState>>| {
        let states: BTreeMap<(String, u32), QueueState> = answers.into_iter().flatten().collect();
        let mut offset_table = BTreeMap::new();
        let mut consume_tps = 0.0;
        for topic in &topics {
            let Some(config) = broker.topics.get(topic) else { continue };
            for queue_id in 0..config.read_queue_nums {
                let key = (topic.clone(), queue_id as u32);
                let state = states.get(&key).cloned().unwrap_or_default();
                let consumer_offset = committed.get(&key).copied().unwrap_or(0);
                let wrapper = body::OffsetWrapper {
                    broker_offset: state.max,
                    consumer_offset,
                    pull_offset: consumer_offset,
                    last_timestamp: state.last_store_ms,
                };
                offset_table.insert(queue(broker, topic, queue_id), wrapper);
            }
            consume_tps += broker.system.as_ref().map_or(0.0, |system| system.stats.group_get_tps(topic, &group));
        }
        let json = body::ConsumeStats { consume_tps, offset_table }.encode();
        broker.reply_json(to, &json);
    });
}

/// Bounds of this core's queues of the topics, and when the message last consumed was stored (0 where that
/// is only on disk: a tool's display is not worth a read).
fn queue_progress(
    broker: &mut Broker,
    topics: &BTreeSet<String>,
    committed: &BTreeMap<(String, u32), i64>,
) -> BTreeMap<(String, u32), QueueState> {
    let mut states = BTreeMap::new();
    for topic in topics {
        let queues: Vec<_> = broker.shard.queues(topic).map(|(queue_id, bounds, _)| (queue_id, bounds)).collect();
        for (queue_id, bounds) in queues {
            let key = (topic.clone(), queue_id);
            let consumed = committed.get(&key).copied().unwrap_or(0);
            let ticket = broker.new_ticket();
            let last_store_ms = match broker.shard.store_time(topic, queue_id, consumed - 1, ticket) {
                StoreTime::Known(time) => time,
                StoreTime::NotFound | StoreTime::Pending | StoreTime::Failed(_) => 0,
            };
            states.insert(key, QueueState { min: bounds.min, max: bounds.max, last_store_ms });
        }
    }
    states
}

pub fn all_offsets(broker: &mut Broker, request: &Request<'_>) -> Outcome {
    let to = request.reply_address();
    let ask = |broker: &mut Broker| -> Vec<(String, u32, i64)> {
        let offsets = broker.shard.offsets();
        offsets.map(|(group, topic, queue_id, offset)| (format!("{topic}@{group}"), queue_id, offset)).collect()
    };
    gather(broker, ask, move |broker, answers: Vec<Vec<(String, u32, i64)>>| {
        let mut offset_table: BTreeMap<String, BTreeMap<i32, i64>> = BTreeMap::new();
        for (key, queue_id, offset) in answers.into_iter().flatten() {
            offset_table.entry(key).or_default().insert(queue_id as i32, offset);
        }
        let json = body::encode_legacy(&body::ConsumerOffsets { offset_table });
        broker.reply_json(to, &json);
    });
    Ok(Handled::Taken)
}

/// Groups that are online and subscribe to the topic, or have committed offsets for it.
pub fn groups_of_topic(broker: &mut Broker, request: &Request<'_>) -> Outcome {
    let header = topic::TopicHeader::decode(&request.frame)?;
    let topic = header.topic.to_cow().into_owned();
    let to = request.reply_address();
    let name = topic.clone();
    let ask = move |broker: &mut Broker| -> BTreeSet<String> {
        broker.shard.offsets().filter(|(_, of, ..)| *of == name).map(|(group, ..)| group.to_owned()).collect()
    };
    gather(broker, ask, move |broker, answers: Vec<BTreeSet<String>>| {
        let mut groups: BTreeSet<String> = answers.into_iter().flatten().collect();
        if let Some(system) = &broker.system {
            groups.extend(system.clients.groups_on_topic(&topic).iter().map(|group| group.to_string()));
        }
        let json = body::encode(&body::GroupList { group_list: groups.into_iter().collect() });
        broker.reply_json(to, &json);
    });
    Ok(Handled::Taken)
}

pub fn topics_of_group(broker: &mut Broker, request: &Request<'_>) -> Outcome {
    let header = group::GroupHeader::decode(&request.frame)?;
    let ask = committed_by(header.group.to_cow().into_owned());
    let to = request.reply_address();
    gather(broker, ask, move |broker, answers: Vec<Committed>| {
        let topics: BTreeSet<String> = answers.into_iter().flatten().map(|(topic, ..)| topic).collect();
        let json = body::encode(&body::TopicList { topic_list: topics.into_iter().collect(), broker_addr: None });
        broker.reply_json(to, &json);
    });
    Ok(Handled::Taken)
}
