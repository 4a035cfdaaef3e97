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

pub fn queue(broker: &Broker, topic: &str, queue_id: i32) -> MessageQueue {
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
    let list = header.topic_list.as_ref().map(|text| text.to_cow().into_owned()).unwrap_or_default();
    let list: BTreeSet<String> = list.split(';').filter(|topic| !topic.is_empty()).map(str::to_owned).collect();
    let to = request.reply_address();
    let ask = committed_by(group.clone());
    gather(broker, ask, move |broker, answers: Vec<Committed>| {
        let committed: BTreeMap<(String, u32), i64> =
            answers.into_iter().flatten().map(|(topic, queue_id, offset)| ((topic, queue_id), offset)).collect();
        // RocketMQ: a list is taken as it is; of the rest, what a group online does not subscribe to is left out.
        let mut topics = list;
        if topics.is_empty() {
            topics = match topic {
                Some(topic) => BTreeSet::from([topic]),
                None => committed.keys().map(|(topic, _)| topic.clone()).collect(),
            };
            if let Some(view) = broker.views.get(&group).filter(|view| !view.subscriptions.is_empty()) {
                topics.retain(|topic| view.subscriptions.contains_key(topic.as_str()));
            }
        }
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

/// The reply to 43: [`body::ConsumerOffsets`] with a version.
#[derive(serde::Serialize)]
#[serde(rename_all = "camelCase")]
struct VersionedOffsets {
    data_version: body::DataVersion,
    offset_table: BTreeMap<String, BTreeMap<i32, i64>>,
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
        // Offsets have no version of their own here: each answer is another one.
        let data_version = body::DataVersion { timestamp: broker.now_ms, ..body::DataVersion::default() };
        let json = body::encode_legacy(&VersionedOffsets { data_version, offset_table });
        broker.reply_json(to, &json);
    });
    Ok(Handled::Taken)
}

/// Asks a core for the groups that have committed offsets of the topic there.
pub fn groups_with_offsets_of(topic: String) -> impl Fn(&mut Broker) -> BTreeSet<String> + Send + Sync + 'static {
    move |broker| {
        broker.shard.offsets().filter(|(_, of, ..)| *of == topic).map(|(group, ..)| group.to_owned()).collect()
    }
}

/// Groups that are online and subscribe to the topic, or have committed offsets for it.
pub fn groups_of_topic(broker: &mut Broker, request: &Request<'_>) -> Outcome {
    let header = topic::TopicHeader::decode(&request.frame)?;
    let topic = header.topic.to_cow().into_owned();
    let to = request.reply_address();
    gather(broker, groups_with_offsets_of(topic.clone()), move |broker, answers: Vec<BTreeSet<String>>| {
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
        let broker_addr = Some(broker.config.client_address(broker.config.listen_port));
        let json = body::encode(&body::TopicList { topic_list: topics.into_iter().collect(), broker_addr });
        broker.reply_json(to, &json);
    });
    Ok(Handled::Taken)
}

#[cfg(test)]
mod tests {
    use rmq_net::codes::{request as code, response};

    use crate::testing::Cores;

    fn commit(cores: &mut Cores, topic: &str) {
        let ext = [("commitOffset", "1"), ("consumerGroup", "g"), ("queueId", "0"), ("topic", topic)];
        assert_eq!(cores.call(0, code::UPDATE_CONSUMER_OFFSET, &ext, b"").code, 0);
    }

    #[test]
    fn progress_is_told_for_the_topics_asked_for_or_else_for_those_subscribed() {
        let mut cores = Cores::new(2);
        cores.create_group(r#"{"groupName":"g"}"#);
        for topic in ["A", "B", "C"] {
            cores.create_topic(topic, "1", "6", "");
            commit(&mut cores, topic);
        }
        let told = |cores: &mut Cores, ext: &[(&'static str, &str)]| -> Vec<&'static str> {
            let ext: Vec<_> = [("consumerGroup", "g")].into_iter().chain(ext.iter().copied()).collect();
            let answer = cores.call(1, code::GET_CONSUME_STATS, &ext, b"");
            assert_eq!(answer.code, 0, "{}", answer.remark);
            let text = String::from_utf8(answer.body).expect("JSON");
            ["A", "B", "C"].into_iter().filter(|topic| text.contains(&format!(r#""topic":"{topic}""#))).collect()
        };
        assert_eq!(told(&mut cores, &[]), ["A", "B", "C"]);
        assert_eq!(told(&mut cores, &[("topic", "B")]), ["B"]);
        assert_eq!(told(&mut cores, &[("topic", "B"), ("topicList", "A;C;")]), ["A", "C"]);
        let heartbeat = br#"{"clientID":"c","consumerDataSet":[{"groupName":"g","consumeType":"CONSUME_PASSIVELY",
            "messageModel":"CLUSTERING","consumeFromWhere":"CONSUME_FROM_LAST_OFFSET","subscriptionDataSet":[
            {"topic":"A","subString":"*","subVersion":1,"expressionType":"TAG"}]}],"producerDataSet":[]}"#;
        assert_eq!(cores.call(1, code::HEART_BEAT, &[], heartbeat).code, 0);
        assert_eq!(told(&mut cores, &[]), ["A"]);
        assert_eq!(told(&mut cores, &[("topic", "B")]), [""; 0]);
        assert_eq!(told(&mut cores, &[("topicList", "C")]), ["C"]);
    }

    #[test]
    fn answers_to_tools_carry_versions_addresses_and_statistics() {
        let mut cores = Cores::new(2);
        cores.create_group(r#"{"groupName":"g"}"#);
        cores.create_topic("A", "1", "6", "");
        commit(&mut cores, "A");
        let offsets = cores.call(1, code::GET_ALL_CONSUMER_OFFSET, &[], b"");
        let text = String::from_utf8(offsets.body).expect("JSON of RocketMQ's old kind");
        assert!(text.starts_with(r#"{"dataVersion":{"counter":0,"#), "{text}");
        assert!(text.ends_with(r#""offsetTable":{"A@g":{0:1}}}"#), "{text}");
        let config = cores.call(1, code::GET_BROKER_CONFIG, &[], b"");
        assert_eq!(config.ext("version"), r#"{"counter":0,"stateVersion":0,"timestamp":1700000000000}"#);
        let topics = cores.call(1, code::QUERY_TOPICS_BY_CONSUMER, &[("group", "g")], b"");
        assert_eq!(topics.body, br#"{"brokerAddr":"127.0.0.1:10911","topicList":["A"]}"#);
        let ask = [("statsKey", "A"), ("statsName", "TOPIC_PUT_NUMS")];
        assert_eq!(cores.call(1, code::VIEW_BROKER_STATS_DATA, &ask, b"").code, response::SYSTEM_ERROR);
        assert_eq!(cores.send(0, "A", 0, &[]).code, 0);
        for _ in 0..3 {
            cores.now_ms += 10_000;
            cores.run();
        }
        let found = cores.call(1, code::VIEW_BROKER_STATS_DATA, &ask, b"");
        assert_eq!(found.code, 0, "{}", found.remark);
        assert!(String::from_utf8_lossy(&found.body).contains(r#""statsMinute":{"#));
    }
}
