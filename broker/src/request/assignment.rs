//! Which client of a group consumes which queues, decided by the broker: QUERY_ASSIGNMENT (400), and how a group gets its
//! messages: SET_MESSAGE_REQUEST_MODE (401), GET_ALL_MESSAGE_REQUEST_MODE (402).

use rmq_net::body::topic::perm;
use rmq_net::body::{
    self, AssignmentReply, MessageModel, MessageQueue, QueryAssignmentBody, QueueAssignment, RequestMode,
    RequestModeBody, RequestModeTable,
};
use rmq_net::codes::response;
use rmq_net::message::names::{LMQ_PREFIX, RETRY_PREFIX};

use crate::broker::{Broker, Handled, Outcome, Refusal};
use crate::letter::Request;
use crate::request::client::parse;
use crate::request::topic_change::done_after;
use crate::state::assignment::{Dealing, allocate, allocate_for_pop};
use crate::state::settings::SettingKind;

/// The settings' key: neither name can hold it.
fn key(topic: &str, group: &str) -> String {
    format!("{topic}@{group}")
}

/// RocketMQ: retry topics are never popped by name.
fn mode_of(broker: &Broker, topic: &str, group: &str) -> RequestModeBody {
    let stored = broker.shard.setting(SettingKind::RequestMode.byte(), &key(topic, group));
    if let Some(stored) = stored.and_then(|value| body::decode(value).ok()) {
        return stored;
    }
    let default = RequestMode::from_name(&broker.config.default_message_request_mode).unwrap_or_default();
    let mode = if topic.starts_with(RETRY_PREFIX) { RequestMode::Pull } else { default };
    let pop_share_queue_num = if mode == RequestMode::Pop { broker.config.default_pop_share_queue_num } else { 0 };
    RequestModeBody { consumer_group: group.to_owned(), mode, pop_share_queue_num, topic: topic.to_owned() }
}

pub fn set_mode(broker: &mut Broker, request: &Request<'_>) -> Outcome {
    let wanted: RequestModeBody = parse(request.frame.body)?;
    let (topic, group) = (&wanted.topic, &wanted.consumer_group);
    if topic.starts_with(RETRY_PREFIX) {
        return Err(Refusal::new(response::NO_PERMISSION, "retry topic is not allowed to set mode"));
    }
    if broker.topics.get(topic).is_none() {
        return Err(Refusal::new(response::TOPIC_NOT_EXIST, format!("topic[{topic}] not exist")));
    }
    if broker.groups.get(group).is_none() {
        let remark = format!("subscription group [{group}] does not exist");
        return Err(Refusal::new(response::SUBSCRIPTION_GROUP_NOT_EXIST, remark));
    }
    let stored = broker.put_setting(SettingKind::RequestMode, &key(topic, group), Some(&body::encode(&wanted)));
    done_after(broker, stored, request)
}

pub fn all_modes(broker: &mut Broker, request: &Request<'_>) -> Outcome {
    let mut table = RequestModeTable::default();
    let stored = broker.shard.settings(SettingKind::RequestMode.byte());
    for mode in stored.filter_map(|(_, value)| body::decode::<RequestModeBody>(value).ok()) {
        let of_topic = table.message_request_mode_map.entry(mode.topic.clone()).or_default();
        of_topic.insert(mode.consumer_group.clone(), mode);
    }
    broker.reply_json(request.reply_address(), &body::encode(&table));
    Ok(Handled::Taken)
}

pub fn query(broker: &mut Broker, request: &Request<'_>) -> Outcome {
    let wanted: QueryAssignmentBody = parse(request.frame.body)?;
    let mode = mode_of(broker, &wanted.topic, &wanted.consumer_group);
    let assigned = assigned(broker, &wanted, &mode).map(|queues| {
        let assignment = |message_queue| QueueAssignment { message_queue, mode: mode.mode };
        queues.into_iter().map(assignment).collect()
    });
    let reply = AssignmentReply { message_queue_assignments: assigned };
    broker.reply_json(request.reply_address(), &body::encode(&reply));
    Ok(Handled::Taken)
}

/// The queues of the client, sorted, each once; `None` if that cannot be said, and the client keeps what it has.
fn assigned(broker: &Broker, wanted: &QueryAssignmentBody, mode: &RequestModeBody) -> Option<Vec<MessageQueue>> {
    let (topic, group) = (wanted.topic.as_str(), wanted.consumer_group.as_str());
    let queues = queues_of(broker, topic)?;
    if wanted.message_model == MessageModel::Broadcasting || !broker.config.server_load_balancer_enable {
        return Some(queues);
    }
    let members = broker.system.as_ref()?.clients.member_ids(group)?;
    let mut clients: Vec<&str> = members.iter().map(|id| &**id).collect();
    clients.sort_unstable();
    clients.dedup();
    let Some(strategy) = Dealing::of(&wanted.strategy_name) else {
        tracing::warn!(
            strategy = wanted.strategy_name,
            group,
            "a client asks for a strategy of assignment that RocketMQ's brokers do not have"
        );
        return None;
    };
    let mut assigned = match mode.mode {
        RequestMode::Pull => allocate(strategy, &wanted.client_id, &queues, &clients),
        RequestMode::Pop => allocate_for_pop(strategy, &wanted.client_id, &queues, &clients, mode.pop_share_queue_num),
    };
    assigned.sort_unstable();
    assigned.dedup();
    Some(assigned)
}

/// The topic's readable queues, sorted.
fn queues_of(broker: &Broker, topic: &str) -> Option<Vec<MessageQueue>> {
    let queue =
        |queue_id| MessageQueue { broker_name: broker.config.broker_name.clone(), queue_id, topic: topic.to_owned() };
    if topic.starts_with(LMQ_PREFIX) {
        return Some(vec![queue(0)]);
    }
    let config = broker.topics.get(topic).filter(|config| config.perm & perm::READ != 0)?;
    Some((0..config.read_queue_nums).map(queue).collect())
}
