//! INVOKE_BROKER_TO_RESET_OFFSET (222): a group goes on from another point of time or offset.
//!
//! With `useServerSideResetOffset` (the default) the offsets are set here, in the log of each queue's core, and the
//! group's next pull of a queue is told its new offset. Without it they are sent to the group's consumers, which set them:
//! RESET_CONSUMER_CLIENT_OFFSET (220).

use std::collections::BTreeMap;

use rmq_engine::{Boundary, Searched, Ticket};
use rmq_net::body::{self, MessageQueue, QueueOffset, ResetOffsetBody, ResetOffsetBodyForC};
use rmq_net::codes::{request as code, response};
use rmq_net::header::offset::ResetOffsetHeader;
use rmq_net::language::Language;

use crate::broker::{Broker, Handled, Outcome, Refusal};
use crate::gather;
use crate::letter::{ReplyAddress, Request};
use crate::request::pull;
use crate::request::queues::{NotSeen, look_at};

/// Clients before V3_0_7_SNAPSHOT do not know 220.
const CLIENT_VERSION_MIN: i32 = 28;

/// Where a queue is to go on.
#[derive(Clone, Copy, Debug)]
enum Target {
    Offset(i64),
    /// The first message stored at this time or later, ms since the epoch; below zero the end of the queue.
    Time(i64),
}

pub fn handle(broker: &mut Broker, request: &Request<'_>) -> Outcome {
    let header = ResetOffsetHeader::decode(&request.frame)?;
    if broker.config.use_server_side_reset_offset {
        in_broker(broker, request, &header)
    } else {
        by_clients(broker, request, &header)
    }
}

fn in_broker(broker: &mut Broker, request: &Request<'_>, header: &ResetOffsetHeader<'_>) -> Outcome {
    let (topic, group) = (header.topic.to_cow().into_owned(), header.group.to_cow().into_owned());
    let Some(config) = broker.topics.get(&topic) else {
        return Err(Refusal::new(response::TOPIC_NOT_EXIST, format!("Topic {topic} does not exist")));
    };
    if broker.groups.get(&group).is_none() {
        return Err(Refusal::new(response::SUBSCRIPTION_GROUP_NOT_EXIST, format!("Group {group} does not exist")));
    }
    let (target, queue_ids) = match (u32::try_from(header.queue_id), header.offset) {
        (Ok(queue_id), Some(offset)) if offset != -1 => (Target::Offset(offset), vec![queue_id]),
        (Ok(queue_id), _) => (Target::Time(header.timestamp), vec![queue_id]),
        (Err(_), _) => (Target::Time(header.timestamp), queue_ids(config.read_queue_nums)),
    };
    if queue_ids.is_empty() {
        return Err(Refusal::new(response::SYSTEM_ERROR, "No queues to reset."));
    }
    let to = request.reply_address();
    let look = {
        let topic = topic.clone();
        move |broker: &mut Broker, queue_id, ticket| find(broker, &topic, queue_id, target, ticket)
    };
    look_at(broker, topic.clone(), queue_ids, look, move |broker, found| match found {
        Ok(offsets) => set(broker, to, topic, group, offsets),
        Err(refusal) => broker.refuse_later(to, &refusal),
    });
    Ok(Handled::Taken)
}

fn queue_ids(count: i32) -> Vec<u32> {
    (0..u32::try_from(count).unwrap_or(0)).collect()
}

/// Where a queue of this core is to go on.
fn find(broker: &mut Broker, topic: &str, queue_id: u32, target: Target, ticket: Ticket) -> Result<i64, NotSeen> {
    let bounds = broker.shard.bounds(topic, queue_id);
    match target {
        Target::Offset(offset) if offset < bounds.min || offset > bounds.max + 1 => {
            let remark = format!(
                "Target offset {offset} not in consume queue range [{}-{}] of queue {queue_id}",
                bounds.min, bounds.max
            );
            Err(NotSeen::Refused(Refusal::new(response::SYSTEM_ERROR, remark)))
        }
        Target::Offset(offset) => Ok(offset),
        Target::Time(time) if time < 0 => Ok(bounds.max),
        Target::Time(time) => match broker.shard.search_time(topic, queue_id, time, Boundary::Lower, ticket) {
            Searched::Done(offset) => Ok(offset),
            Searched::Pending => Err(NotSeen::Pending),
            Searched::Failed(error) => Err(NotSeen::Failed(error)),
        },
    }
}

/// Records the offsets on every queue's core, and answers when all are durable.
fn set(broker: &mut Broker, to: ReplyAddress, topic: String, group: String, offsets: BTreeMap<u32, i64>) {
    let answer = encode(broker, &topic, &offsets).encode();
    let change = move |broker: &mut Broker| {
        let mut position = broker.shard.durable();
        for (queue_id, offset) in &offsets {
            if broker.owner(&topic, *queue_id) != broker.core {
                continue;
            }
            position = position.max(broker.shard.commit_offset(&group, &topic, *queue_id, *offset)?);
            broker.resets.put(&group, &topic, *queue_id, *offset);
            // A consumer that waits for a message is told now.
            pull::wake_queue(broker, &topic, *queue_id);
        }
        Ok(position)
    };
    gather::change(broker, change, move |broker, changed| {
        match changed.into_iter().enumerate().find_map(|(core, changed)| Some((core, changed.err()?))) {
            None => broker.reply_json(to, &answer),
            Some((core, error)) => {
                let remark = format!("core {core} could not record the offsets: {error}; reset them again");
                broker.refuse_later(to, &Refusal::new(response::SYSTEM_ERROR, remark));
            }
        }
    });
}

fn encode(broker: &Broker, topic: &str, offsets: &BTreeMap<u32, i64>) -> ResetOffsetBody {
    let broker_name = &broker.config.broker_name;
    let queue = |queue_id: u32| MessageQueue {
        broker_name: broker_name.clone(),
        queue_id: queue_id as i32,
        topic: topic.to_owned(),
    };
    ResetOffsetBody { offset_table: offsets.iter().map(|(queue_id, offset)| (queue(*queue_id), *offset)).collect() }
}

/// What is asked of consumers.
struct Order {
    to: ReplyAddress,
    topic: String,
    group: String,
    timestamp: i64,
    is_for_c: bool,
}

fn by_clients(broker: &mut Broker, request: &Request<'_>, header: &ResetOffsetHeader<'_>) -> Outcome {
    let (topic, group) = (header.topic.to_cow().into_owned(), header.group.to_cow().into_owned());
    let Some(config) = broker.topics.get(&topic) else {
        let remark = format!("[reset-offset] reset offset failed, no topic in this broker. topic={topic}");
        return Err(Refusal::new(response::TOPIC_NOT_EXIST, remark));
    };
    let queue_ids = queue_ids(config.write_queue_nums);
    let (is_force, timestamp) = (header.is_force, header.timestamp);
    let look = {
        let (topic, group) = (topic.clone(), group.clone());
        move |broker: &mut Broker, queue_id, ticket| {
            let Some(committed) = broker.shard.offset(&group, &topic, queue_id) else {
                let remark = format!("THe consumer group <{group}> not exist");
                return Err(NotSeen::Refused(Refusal::new(response::SYSTEM_ERROR, remark)));
            };
            let found = find(broker, &topic, queue_id, Target::Time(timestamp), ticket)?;
            Ok(if is_force { found } else { found.min(committed) })
        }
    };
    let order = Order {
        to: request.reply_address(),
        topic: topic.clone(),
        group,
        timestamp,
        is_for_c: request.frame.language == Language::Cpp,
    };
    look_at(broker, topic, queue_ids, look, move |broker, found| {
        if let Err(refusal) = found.and_then(|offsets| tell_consumers(broker, &order, &offsets)) {
            broker.refuse_later(order.to, &refusal);
        }
    });
    Ok(Handled::Taken)
}

fn tell_consumers(broker: &mut Broker, order: &Order, offsets: &BTreeMap<u32, i64>) -> Result<(), Refusal> {
    let Order { to, topic, group, timestamp, is_for_c } = order;
    let clients = broker.system.as_ref().into_iter().flat_map(|system| system.clients.consumers(group));
    let consumers: Vec<_> = clients.map(|(connection, client)| (connection, client.version)).collect();
    if consumers.is_empty() {
        let remark = format!(
            "Consumer not online, so can not reset offset, Group: {group} Topic: {topic} Timestamp: {timestamp}"
        );
        return Err(Refusal::new(response::CONSUMER_NOT_ONLINE, remark));
    }
    if let Some((_, version)) = consumers.iter().find(|(_, version)| *version < CLIENT_VERSION_MIN) {
        let remark = format!("the client does not support this feature. version={version}");
        return Err(Refusal::new(response::SYSTEM_ERROR, remark));
    }
    let table = encode(broker, topic, offsets);
    let answer = table.encode();
    let told = if *is_for_c { for_c(table) } else { answer.clone() };
    for (connection, _) in consumers {
        broker.push_to_client(connection, code::RESET_CONSUMER_CLIENT_OFFSET, &told, |ext| {
            ext.text("topic", topic);
            ext.text("group", group);
            ext.int("queueId", -1);
            ext.int("timestamp", *timestamp);
            ext.bool("isForce", false);
        });
    }
    broker.reply_json(*to, &answer);
    Ok(())
}

fn for_c(table: ResetOffsetBody) -> Vec<u8> {
    let one = |(queue, offset): (MessageQueue, i64)| {
        let MessageQueue { broker_name, queue_id, topic } = queue;
        QueueOffset { broker_name, offset, queue_id, topic }
    };
    body::encode(&ResetOffsetBodyForC { offset_table: table.offset_table.into_iter().map(one).collect() })
}

#[cfg(test)]
mod tests {
    use rmq_net::codes::{request as code, response};

    use crate::testing::{Cores, Sent, pull_fields};

    const HEARTBEAT: &[u8] = br#"{"clientID":"c","consumerDataSet":[{"groupName":"g","consumeType":"CONSUME_PASSIVELY",
        "messageModel":"CLUSTERING","consumeFromWhere":"CONSUME_FROM_LAST_OFFSET","subscriptionDataSet":[
        {"topic":"T","subString":"*","subVersion":1,"expressionType":"TAG"}]}],"producerDataSet":[]}"#;

    /// A group, a topic of two queues on two cores with three messages each, a second apart.
    fn cores_with_messages(properties: &[(&str, &str)]) -> Cores {
        let mut cores = Cores::with_config(2, properties);
        cores.create_group(r#"{"groupName":"g"}"#);
        cores.create_topic("T", "4", "6", "");
        for _ in 0..3 {
            for queue_id in 0..4 {
                assert_eq!(cores.send(0, "T", queue_id, &[("TAGS", "A")]).code, 0);
            }
            cores.now_ms += 1000;
        }
        cores
    }

    fn reset(cores: &mut Cores, ext: &[(&'static str, &str)]) -> Sent {
        let mut all = vec![("group", "g"), ("isForce", "true"), ("timestamp", "-1"), ("topic", "T")];
        all.retain(|(key, _)| ext.iter().all(|(given, _)| given != key));
        all.extend(ext.iter().copied());
        cores.call(1, code::INVOKE_BROKER_TO_RESET_OFFSET, &all, b"")
    }

    fn commit(cores: &mut Cores, queue_id: &str, offset: &str) -> Sent {
        let ext = [("commitOffset", offset), ("consumerGroup", "g"), ("queueId", queue_id), ("topic", "T")];
        cores.call(0, code::UPDATE_CONSUMER_OFFSET, &ext, b"")
    }

    fn committed(cores: &mut Cores, queue_id: &str) -> String {
        let ext = [("consumerGroup", "g"), ("queueId", queue_id), ("setZeroIfNotFound", "false"), ("topic", "T")];
        cores.call(0, code::QUERY_CONSUMER_OFFSET, &ext, b"").ext("offset").to_owned()
    }

    fn pull(cores: &mut Cores, queue_id: &str, offset: &str) -> (i32, String, String) {
        let pulled = cores.call(0, code::PULL_MESSAGE, &pull_fields(queue_id, offset), b"");
        (pulled.code, pulled.remark.clone(), pulled.ext("nextBeginOffset").to_owned())
    }

    #[test]
    fn a_reset_moves_the_next_pull_of_each_queue_and_no_commit_of_before_undoes_it() {
        let mut cores = cores_with_messages(&[]);
        let second = (1_700_000_001_000_i64).to_string();
        let answer = reset(&mut cores, &[("timestamp", &second)]);
        assert_eq!(answer.code, 0, "{}", answer.remark);
        let table = String::from_utf8(answer.body).expect("text");
        assert!(
            table.starts_with(r#"{"offsetTable":{{"brokerName":"broker-a","queueId":0,"topic":"T"}:1,"#),
            "{table}"
        );
        for queue_id in ["0", "1", "2", "3"] {
            let late = commit(&mut cores, queue_id, "3");
            assert_eq!((late.code, late.remark.as_str()), (0, "Offset has been previously reset"));
            assert_eq!(committed(&mut cores, queue_id), "1");
            let moved = (response::PULL_OFFSET_MOVED, "OFFSET_RESET".to_owned(), "1".to_owned());
            assert_eq!(pull(&mut cores, queue_id, "3"), moved);
            assert_eq!(pull(&mut cores, queue_id, "1"), (0, "FOUND".to_owned(), "3".to_owned()), "told once");
            assert_eq!(
                (commit(&mut cores, queue_id, "3").remark, committed(&mut cores, queue_id)),
                (String::new(), "3".to_owned())
            );
        }
    }

    #[test]
    fn a_consumer_that_waits_for_a_message_is_told_at_once() {
        let mut cores = cores_with_messages(&[]);
        let mut fields = pull_fields("2", "3");
        for (key, value) in &mut fields {
            match *key {
                "sysFlag" => *value = "6",
                "suspendTimeoutMillis" => *value = "15000",
                _ => {}
            }
        }
        let held = cores.post(1, code::PULL_MESSAGE, &fields, b"");
        assert!(cores.answers_to(held).is_empty());
        assert_eq!(reset(&mut cores, &[("queueId", "2"), ("offset", "0")]).code, 0);
        let told = cores.answers_to(held);
        assert_eq!((told[0].code, told[0].ext("nextBeginOffset")), (response::PULL_OFFSET_MOVED, "0"));
    }

    #[test]
    fn targets_lie_within_the_queue_or_are_refused_with_its_bounds() {
        let mut cores = cores_with_messages(&[]);
        for (ext, expected) in [
            ([("queueId", "1"), ("offset", "4")], Ok("4")),
            ([("queueId", "1"), ("offset", "5")], Err("Target offset 5 not in consume queue range [0-3] of queue 1")),
            ([("queueId", "1"), ("offset", "-2")], Err("Target offset -2 not in consume queue range [0-3] of queue 1")),
            ([("queueId", "1"), ("offset", "-1")], Ok("3")),
            ([("queueId", "1"), ("timestamp", "9999999999999")], Ok("3")),
            ([("queueId", "1"), ("timestamp", "0")], Ok("0")),
        ] {
            let answer = reset(&mut cores, &ext);
            match expected {
                Ok(offset) => assert_eq!((answer.code, committed(&mut cores, "1").as_str()), (0, offset), "{ext:?}"),
                Err(remark) => assert_eq!((answer.code, answer.remark.as_str()), (1, remark)),
            }
        }
        assert_eq!(reset(&mut cores, &[("topic", "X")]).code, response::TOPIC_NOT_EXIST);
        assert_eq!(reset(&mut cores, &[("group", "x")]).code, response::SUBSCRIPTION_GROUP_NOT_EXIST);
    }

    #[test]
    fn a_reset_is_forgotten_with_its_group() {
        let mut cores = cores_with_messages(&[]);
        assert_eq!(reset(&mut cores, &[]).code, 0);
        let ext = [("groupName", "g"), ("cleanOffset", "true")];
        assert_eq!(cores.call(0, code::DELETE_SUBSCRIPTIONGROUP, &ext, b"").code, 0);
        assert_eq!(pull(&mut cores, "0", "0").0, 0);
    }

    #[test]
    fn without_the_server_side_the_consumers_are_told_and_the_group_must_have_offsets() {
        let mut cores = cores_with_messages(&[("useServerSideResetOffset", "false")]);
        let unknown = reset(&mut cores, &[]);
        assert_eq!((unknown.code, unknown.remark.as_str()), (1, "THe consumer group <g> not exist"));
        for queue_id in ["0", "1", "2", "3"] {
            assert_eq!(commit(&mut cores, queue_id, "2").code, 0);
        }
        assert_eq!(reset(&mut cores, &[]).code, response::CONSUMER_NOT_ONLINE);
        assert_eq!(cores.call(1, code::HEART_BEAT, &[], HEARTBEAT).code, 0);
        cores.requests_to_clients();
        for (is_force, offset) in [("false", 2), ("true", 3)] {
            let answer = reset(&mut cores, &[("isForce", is_force)]);
            assert_eq!(answer.code, 0, "{}", answer.remark);
            let told = cores.requests_to_clients();
            assert_eq!((told.len(), told[0].code), (1, code::RESET_CONSUMER_CLIENT_OFFSET));
            assert_eq!((told[0].ext("group"), told[0].ext("timestamp")), ("g", "-1"));
            assert_eq!(told[0].body, answer.body);
            assert!(String::from_utf8_lossy(&told[0].body).contains(&format!(r#""topic":"T"}}:{offset}"#)));
        }
        assert_eq!(committed(&mut cores, "0"), "2", "the consumers commit it themselves");
    }
}
