//! Connected clients: HEART_BEAT (34), UNREGISTER_CLIENT (35), GET_CONSUMER_LIST_BY_GROUP (38),
//! CHECK_CLIENT_CONFIG (46), and what tools ask about them (203, 204, 328).

use rmq_engine::{AppendError, LogPosition};
use rmq_net::body::{self, HeartbeatData};
use rmq_net::codes::{request as code, response};
use rmq_net::header::group as header;
use serde::de::DeserializeOwned;

use crate::broker::{After, Body, Broker, Handled, Outcome, Refusal};
use crate::letter::{Letter, Request};
use crate::request::{lock, topic_change};
use crate::state::checks::check_expression_type;
use crate::state::clients::{ClientChanges, Peer};
use crate::state::heartbeat;
use crate::state::subscription::{self, ExpressionType};

/// A JSON body, or the answer to one that is not what the request asks for.
pub fn parse<T: DeserializeOwned>(json: &[u8]) -> Result<T, Refusal> {
    body::decode(json)
        .map_err(|error| Refusal::new(response::SYSTEM_ERROR, format!("the body cannot be read: {error}")))
}

pub fn heartbeat(broker: &mut Broker, request: &Request<'_>) -> Outcome {
    let mut data: HeartbeatData = parse(request.frame.body)?;
    if !broker.config.enable_register_producer {
        data.producer_data_set.clear();
    }
    let rejects_pull = broker.config.reject_pull_consumer_enable;
    let plan = heartbeat::plan(&data, &broker.groups, &broker.topics, rejects_pull);
    let mut durable_at = broker.shard.durable();
    for group in plan.groups {
        match topic_change::store_group(broker, group) {
            Ok(position) => durable_at = durable_at.max(position),
            Err(error) => return failed(broker, &error),
        }
    }
    for topic in plan.topics {
        match topic_change::store_topic(broker, topic) {
            Ok(position) => durable_at = durable_at.max(position),
            Err(error) => return failed(broker, &error),
        }
    }
    let peer = Peer {
        connection: request.origin.connection,
        address: request.origin.address,
        language: request.frame.language,
        version: request.frame.version,
    };
    let now_ms = broker.now_ms;
    let Some(system) = &mut broker.system else { return Ok(Handled::Taken) };
    let (changes, wants_subscriptions) = system.clients.heartbeat(&peer, &data, &broker.groups, now_ms);
    pass_on(broker, changes);
    answer_heartbeat(broker, request, durable_at, wants_subscriptions);
    Ok(Handled::Taken)
}

/// Answers once what the heartbeat created is durable (nearly always at once).
fn answer_heartbeat(broker: &mut Broker, request: &Request<'_>, durable_at: LogPosition, is_sub_change: bool) {
    let to = request.reply_address();
    let answer = move |broker: &mut Broker| {
        broker.reply(to, response::SUCCESS, Body::None, |ext| {
            ext.bool("IS_SUB_CHANGE", is_sub_change);
            ext.bool("IS_SUPPORT_HEART_BEAT_V2", true);
        });
    };
    if durable_at <= broker.shard.durable() {
        answer(broker);
    } else {
        broker.after(durable_at, After::Answer { to, work: Box::new(answer) });
    }
}

fn failed(broker: &Broker, error: &AppendError) -> Outcome {
    topic_change::append_refused(broker, error)
}

/// Tells the other cores about changed views, and the members of changed groups to rebalance.
pub fn pass_on(broker: &mut Broker, changes: ClientChanges) {
    for change in changes.views {
        broker.views.apply(change.clone());
        broker.broadcast(|| Letter::ViewChanged(change.clone()));
    }
    let notices = if broker.config.notify_consumer_ids_changed_enable { changes.notices } else { Vec::new() };
    for notice in notices {
        for connection in notice.connections {
            let group: &str = &notice.group;
            broker.push_to_client(connection, code::NOTIFY_CONSUMER_IDS_CHANGED, &[], |ext| {
                ext.text("consumerGroup", group);
            });
        }
    }
}

pub fn unregister(broker: &mut Broker, request: &Request<'_>) -> Outcome {
    let header = header::UnregisterClientHeader::decode(&request.frame)?;
    let producer_group = header.producer_group.as_ref().map(|text| text.to_cow());
    let consumer_group = header.consumer_group.as_ref().map(|text| text.to_cow());
    let connection = request.origin.connection;
    if let Some(system) = &mut broker.system {
        let changes =
            system.clients.unregister(connection, producer_group.as_deref(), consumer_group.as_deref(), &broker.groups);
        pass_on(broker, changes);
    }
    if let Some(group) = consumer_group {
        lock::on_left(broker, &group, &header.client_id.to_cow());
    }
    broker.reply_done(request.reply_address());
    Ok(Handled::Taken)
}

pub fn consumer_list(broker: &mut Broker, request: &Request<'_>) -> Outcome {
    let header = header::ConsumerGroupHeader::decode(&request.frame)?;
    let group = header.consumer_group.to_cow();
    let members = broker.system.as_ref().and_then(|system| system.clients.member_ids(&group));
    let Some(members) = members.filter(|members| !members.is_empty()) else {
        return Err(Refusal::new(response::SYSTEM_ERROR, format!("no consumer for this group, {group}")));
    };
    let ids = members.iter().map(|id| id.to_string()).collect();
    let json = body::encode(&body::ConsumerIdList { consumer_id_list: ids });
    broker.reply_json(request.reply_address(), &json);
    Ok(Handled::Taken)
}

/// A client asks whether its subscription will work before it starts.
pub fn check_config(broker: &mut Broker, request: &Request<'_>) -> Outcome {
    let config: body::CheckClientConfig = parse(request.frame.body)?;
    if let Some(data) = &config.subscription_data {
        let expression_type = ExpressionType::of(Some(&data.expression_type));
        check_expression_type(&broker.check_settings, &expression_type)?;
        let compile = |text: &str| broker.filters.get_or_compile(text);
        if !expression_type.is_tag()
            && let Err(error) = subscription::compile(&expression_type, &data.sub_string, compile)
        {
            return Err(Refusal::new(response::SUBSCRIPTION_PARSE_FAILED, error.to_string()));
        }
    }
    broker.reply_done(request.reply_address());
    Ok(Handled::Taken)
}

pub fn consumer_connections(broker: &mut Broker, request: &Request<'_>) -> Outcome {
    let header = header::ConsumerGroupHeader::decode(&request.frame)?;
    let group = header.consumer_group.to_cow();
    let found = broker.system.as_ref().and_then(|system| system.clients.consumer_connection(&group));
    let Some(found) = found else {
        let remark = format!("the consumer group[{group}] not online");
        return Err(Refusal::new(response::CONSUMER_NOT_ONLINE, remark));
    };
    broker.reply_json(request.reply_address(), &body::encode(&found));
    Ok(Handled::Taken)
}

pub fn producer_connections(broker: &mut Broker, request: &Request<'_>) -> Outcome {
    let header = header::ProducerGroupHeader::decode(&request.frame)?;
    let group = header.producer_group.to_cow();
    let found = broker.system.as_ref().and_then(|system| system.clients.producer_connection(&group));
    let Some(found) = found else {
        let remark = format!("the producer group[{group}] not exist");
        return Err(Refusal::new(response::SYSTEM_ERROR, remark));
    };
    broker.reply_json(request.reply_address(), &body::encode(&found));
    Ok(Handled::Taken)
}

pub fn all_producers(broker: &mut Broker, request: &Request<'_>) -> Outcome {
    let table = broker.system.as_ref().map(|system| system.clients.producer_table()).unwrap_or_default();
    broker.reply_json(request.reply_address(), &body::encode(&table));
    Ok(Handled::Taken)
}
