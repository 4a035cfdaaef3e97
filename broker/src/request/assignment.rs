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
use crate::letter::{ReplyAddress, Request};
use crate::request::client::parse;
use crate::request::topic_change::done_after;
use crate::routes::{Lookup, Route, Routes};
use crate::state::assignment::{Dealing, allocate, allocate_for_pop};
use crate::state::settings::SettingKind;

/// Bytes of the requests that wait for a name server. One that finds no room is told that nothing can be said.
pub const WAITING_BYTES_MAX: usize = 4 << 20;
/// What one of them takes beside its texts.
const WAITING_BYTES: usize = 256;

/// Requests for topics the name servers were not asked about before.
#[derive(Default)]
pub struct WaitingQueries {
    queries: Vec<(ReplyAddress, QueryAssignmentBody)>,
    bytes: usize,
}

fn bytes_of(wanted: &QueryAssignmentBody) -> usize {
    let texts = [&wanted.topic, &wanted.consumer_group, &wanted.client_id, &wanted.strategy_name];
    WAITING_BYTES + texts.into_iter().map(String::capacity).sum::<usize>()
}

impl WaitingQueries {
    /// `false`: there is no room.
    fn keep(&mut self, to: ReplyAddress, wanted: &QueryAssignmentBody) -> bool {
        let bytes = self.bytes + bytes_of(wanted);
        let has_room = bytes <= WAITING_BYTES_MAX;
        if has_room {
            self.queries.push((to, wanted.clone()));
            self.bytes = bytes;
        }
        has_room
    }

    fn take(&mut self, topic: &str) -> Vec<(ReplyAddress, QueryAssignmentBody)> {
        let taken: Vec<_> = self.queries.extract_if(.., |(_, wanted)| wanted.topic == topic).collect();
        self.bytes -= taken.iter().map(|(_, wanted)| bytes_of(wanted)).sum::<usize>();
        taken
    }
}

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
    let (to, now_ms) = (request.reply_address(), broker.now_ms);
    let Some(system) = &mut broker.system else { return Ok(Handled::Taken) };
    let route = match &mut system.routes {
        Some(routes) if !wanted.topic.starts_with(LMQ_PREFIX) => match routes.find(&wanted.topic, now_ms) {
            Lookup::Known(route) => route,
            Lookup::Pending if system.waiting_queries.keep(to, &wanted) => return Ok(Handled::Taken),
            Lookup::Pending => Route::NotAnswered,
        },
        // There are no other brokers to know of.
        _ => Route::Unknown,
    };
    answer(broker, to, &wanted, &route);
    Ok(Handled::Taken)
}

/// Answers what waited for the name servers.
pub fn take_routes(broker: &mut Broker) {
    let found = broker.system.as_mut().and_then(|system| system.routes.as_mut()).map(Routes::take_found);
    for (topic, route) in found.into_iter().flatten() {
        let waiting = broker.system.as_mut().map(|system| system.waiting_queries.take(&topic));
        for (to, wanted) in waiting.into_iter().flatten() {
            answer(broker, to, &wanted, &route);
        }
    }
}

fn answer(broker: &mut Broker, to: ReplyAddress, wanted: &QueryAssignmentBody, route: &Route) {
    let mode = mode_of(broker, &wanted.topic, &wanted.consumer_group);
    let assigned = assigned(broker, wanted, &mode, route).map(|queues| {
        let assignment = |message_queue| QueueAssignment { message_queue, mode: mode.mode };
        queues.into_iter().map(assignment).collect()
    });
    let reply = AssignmentReply { message_queue_assignments: assigned };
    broker.reply_json(to, &body::encode(&reply));
}

/// The queues of the client, sorted, each once; `None` if that cannot be said, and the client keeps what it has.
fn assigned(
    broker: &Broker,
    wanted: &QueryAssignmentBody,
    mode: &RequestModeBody,
    route: &Route,
) -> Option<Vec<MessageQueue>> {
    let (topic, group) = (wanted.topic.as_str(), wanted.consumer_group.as_str());
    let queues = queues_of(broker, topic, route)?;
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

/// The topic's readable queues on all brokers, sorted; `None` if nobody can say.
///
/// What this broker has is in its own settings, which the name servers hear of a little later.
fn queues_of(broker: &Broker, topic: &str, route: &Route) -> Option<Vec<MessageQueue>> {
    let queue =
        |queue_id| MessageQueue { broker_name: broker.config.broker_name.clone(), queue_id, topic: topic.to_owned() };
    if topic.starts_with(LMQ_PREFIX) {
        return Some(vec![queue(0)]);
    }
    let elsewhere: &[MessageQueue] = match route {
        Route::Elsewhere(queues) => queues,
        Route::Unknown => &[],
        Route::NotAnswered => return None,
    };
    let config = broker.topics.get(topic).filter(|config| config.perm & perm::READ != 0);
    let own = (0..config.map_or(0, |config| config.read_queue_nums)).map(queue);
    let mut queues: Vec<_> = own.chain(elsewhere.iter().cloned()).collect();
    queues.sort_unstable();
    (!queues.is_empty()).then_some(queues)
}

#[cfg(test)]
mod tests;
