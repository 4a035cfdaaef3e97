//! Topics and groups coming into being or going: first a record in the system shard's log, then, once it
//! is durable, a letter to every core and a word to the name servers.

use std::sync::Arc;

use rmq_engine::{AppendError, LogPosition};
use rmq_net::body::{SubscriptionGroupConfig, TopicConfig};
use rmq_net::codes::response;

use crate::broker::{After, Broker, Handled, Outcome, Refusal, SYSTEM_CORE};
use crate::letter::{Letter, Origin, Request};
use crate::state::groups::GroupChange;
use crate::state::settings::SettingKind;
use crate::state::topics::TopicChange;
use crate::state::{groups, topics};

/// Stores a topic. Returns the position after which it is durable; an unchanged topic is durable already.
pub fn store_topic(broker: &mut Broker, config: TopicConfig) -> Result<LogPosition, AppendError> {
    assert!(broker.is_system_core(), "topics are decided by the system core");
    let value = topics::encode(&config);
    if broker.topics.get(&config.topic_name).is_some_and(|stored| **stored == config) {
        return Ok(broker.shard.durable());
    }
    let position = broker.shard.put_setting(SettingKind::Topic.byte(), &config.topic_name, Some(&value))?;
    let now_ms = broker.now_ms;
    if let Some(change) = broker.topics.put(config, now_ms) {
        publish_topic(broker, position, change);
    }
    Ok(position)
}

pub fn remove_topic(broker: &mut Broker, name: &str) -> Result<LogPosition, AppendError> {
    let position = broker.shard.put_setting(SettingKind::Topic.byte(), name, None)?;
    let now_ms = broker.now_ms;
    if let Some(change) = broker.topics.delete(name, now_ms) {
        publish_topic(broker, position, change);
    }
    Ok(position)
}

fn publish_topic(broker: &mut Broker, position: LogPosition, change: TopicChange) {
    let publish = move |broker: &mut Broker| {
        broker.broadcast(|| Letter::TopicChanged(change.clone()));
        crate::system::register(broker);
    };
    broker.after(position, After::Do(Box::new(publish)));
}

pub fn store_group(broker: &mut Broker, config: SubscriptionGroupConfig) -> Result<LogPosition, AppendError> {
    assert!(broker.is_system_core(), "groups are decided by the system core");
    let value = groups::encode(&config);
    if broker.groups.get(&config.group_name).is_some_and(|stored| **stored == config) {
        return Ok(broker.shard.durable());
    }
    let position = broker.shard.put_setting(SettingKind::Group.byte(), &config.group_name, Some(&value))?;
    let now_ms = broker.now_ms;
    if let Some(change) = broker.groups.put(config, now_ms) {
        publish_group(broker, position, change);
    }
    Ok(position)
}

pub fn publish_group(broker: &mut Broker, position: LogPosition, change: GroupChange) {
    let publish = move |broker: &mut Broker| broker.broadcast(|| Letter::GroupChanged(change.clone()));
    broker.after(position, After::Do(Box::new(publish)));
}

/// Makes the topic a send asked for, and then lets the send go on. Runs on the system core, where sends to
/// unknown topics are forwarded to.
pub fn create_topic_for(broker: &mut Broker, request: &Request<'_>, config: TopicConfig) -> Outcome {
    tracing::info!(
        topic = config.topic_name,
        queues = config.write_queue_nums,
        "creating a topic for its first message"
    );
    let stored = store_topic(broker, config);
    go_on_after(broker, stored, request)
}

/// Makes a subscription group a request named, and then lets the request go on.
pub fn create_group_for(broker: &mut Broker, request: &Request<'_>, config: SubscriptionGroupConfig) -> Outcome {
    if !broker.is_system_core() {
        return broker.forward(SYSTEM_CORE, request, request.origin);
    }
    tracing::info!(group = config.group_name, "creating a subscription group for its first request");
    let stored = store_group(broker, config);
    go_on_after(broker, stored, request)
}

fn go_on_after(broker: &mut Broker, stored: Result<LogPosition, AppendError>, request: &Request<'_>) -> Outcome {
    match stored {
        Ok(position) => {
            again_after(broker, position, request);
            Ok(Handled::Taken)
        }
        Err(error) => append_refused(broker, &error),
    }
}

/// Handles the same request again once the log is durable up to `position`.
pub fn again_after(broker: &mut Broker, position: LogPosition, request: &Request<'_>) {
    let (origin, bytes): (Origin, Arc<[u8]>) = (request.origin, request.bytes.into());
    let again = move |broker: &mut Broker| broker.again(origin, &bytes);
    broker.after(position, After::Do(Box::new(again)));
}

/// The outcome of a change the log did not take.
pub fn append_refused(broker: &Broker, error: &AppendError) -> Outcome {
    match error {
        AppendError::BatchFull { .. } => Ok(Handled::Full),
        AppendError::Poisoned => Err(super::log_failed(&broker.shard)),
        error => Err(Refusal::new(response::SYSTEM_ERROR, error.to_string())),
    }
}

/// Answers `request` once the log is durable up to `position`.
pub fn done_after(broker: &mut Broker, stored: Result<LogPosition, AppendError>, request: &Request<'_>) -> Outcome {
    match stored {
        Ok(position) => {
            broker.after(position, After::Reply { to: request.reply_address(), code: response::SUCCESS });
            Ok(Handled::Taken)
        }
        Err(error) => append_refused(broker, &error),
    }
}
