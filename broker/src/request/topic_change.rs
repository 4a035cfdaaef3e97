//! Topics and groups coming into being or going: first a record in the system shard's log, then, once it
//! is durable, a letter to every core and a word to the name servers.

use bytes::Bytes;
use rmq_engine::{AppendError, LogPosition};
use rmq_net::body::{SubscriptionGroupConfig, TopicConfig};
use rmq_net::codes::response;

use crate::broker::{After, Broker, Handled, Outcome, Refusal, SYSTEM_CORE};
use crate::gather;
use crate::letter::{Letter, ReplyAddress, Request};
use crate::state::groups::GroupChange;
use crate::state::settings::SettingKind;
use crate::state::topics::TopicChange;
use crate::state::{groups, topics};

/// Stores a topic. Returns the position after which it is durable and known to every core.
pub fn store_topic(broker: &mut Broker, config: TopicConfig) -> Result<LogPosition, AppendError> {
    let value = topics::encode(&config);
    if broker.topics.get(&config.topic_name).is_some_and(|stored| **stored == config) {
        return Ok(broker.settings_end());
    }
    let position = broker.put_setting(SettingKind::Topic, &config.topic_name, Some(&value))?;
    let now_ms = broker.now_ms;
    if let Some(change) = broker.topics.put(config, now_ms) {
        publish_topic(broker, position, change);
    }
    Ok(position)
}

pub fn remove_topic(broker: &mut Broker, name: &str) -> Result<LogPosition, AppendError> {
    let position = broker.put_setting(SettingKind::Topic, name, None)?;
    let now_ms = broker.now_ms;
    if let Some(change) = broker.topics.delete(name, now_ms) {
        publish_topic(broker, position, change);
    }
    if let Some(system) = &mut broker.system {
        system.stats.remove_topic(name);
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
    let value = groups::encode(&config);
    if broker.groups.get(&config.group_name).is_some_and(|stored| **stored == config) {
        return Ok(broker.settings_end());
    }
    let position = broker.put_setting(SettingKind::Group, &config.group_name, Some(&value))?;
    let now_ms = broker.now_ms;
    if let Some(change) = broker.groups.put(config, now_ms) {
        publish_group(broker, position, change);
    }
    Ok(position)
}

/// Allows or forbids a group to read a topic. Returns the position after which that is durable.
pub fn store_readable(
    broker: &mut Broker,
    group: &str,
    topic: &str,
    is_readable: bool,
) -> Result<LogPosition, AppendError> {
    let now_ms = broker.now_ms;
    let Some(change) = broker.groups.set_readable(group, topic, is_readable, now_ms) else {
        return Ok(broker.settings_end());
    };
    let value = match &change {
        GroupChange::Forbidden(_, topics) if !topics.is_empty() => Some(groups::encode_forbidden(topics)),
        _ => None,
    };
    let stored = broker.put_setting(SettingKind::Forbidden, group, value.as_deref());
    match stored {
        Ok(position) => publish_group(broker, position, change),
        // Nothing was recorded, so nothing has changed.
        Err(_) => drop(broker.groups.set_readable(group, topic, !is_readable, now_ms)),
    }
    stored
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
    broker.after(position, After::Again { origin: request.origin, frame: Bytes::copy_from_slice(request.bytes) });
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

/// Makes a change on every core once the log is durable up to `position` (and the other cores know what was
/// decided there), and answers when it is durable on all of them. `what` names it in the refusal.
pub fn everywhere_after(
    broker: &mut Broker,
    position: LogPosition,
    to: ReplyAddress,
    change: impl Fn(&mut Broker) -> Result<LogPosition, AppendError> + Send + Sync + 'static,
    what: &'static str,
) {
    let answer = move |broker: &mut Broker, changed: Vec<Result<(), AppendError>>| match changed
        .into_iter()
        .enumerate()
        .find_map(|(core, changed)| Some((core, changed.err()?)))
    {
        None => broker.reply_done(to),
        Some((core, error)) => {
            let remark = format!("core {core} could not record {what}: {error}; delete it again");
            broker.refuse_later(to, &Refusal::new(response::SYSTEM_ERROR, remark));
        }
    };
    let work = move |broker: &mut Broker| gather::change(broker, change, answer);
    broker.after(position, After::Answer { to, work: Box::new(work) });
}

#[cfg(test)]
mod tests {
    use rmq_net::codes::{request as code, response};

    use crate::testing::{Cores, Disk};

    const SERVICE_NOT_AVAILABLE: i32 = response::SERVICE_NOT_AVAILABLE;

    #[test]
    fn sends_to_a_topic_being_made_wait_for_it_instead_of_wandering_between_cores() {
        let mut cores = Cores::new(2);
        let queue_id = cores.queue_on(1, "T");
        cores.set_disk(0, Disk::Stuck);
        let first = cores.post_send(1, "T", queue_id, &[], &[], b"body");
        let second = cores.post_send(1, "T", queue_id, &[], &[], b"body");
        let third = cores.post_send(0, "T", queue_id, &[], &[], b"body");
        assert!([first, second, third].iter().all(|opaque| cores.answers_to(*opaque).is_empty()));
        cores.set_disk(0, Disk::Works);
        cores.run();
        for opaque in [first, second, third] {
            assert_eq!(cores.answers_to(opaque).first().map(|answer| answer.code), Some(0));
        }
    }

    #[test]
    fn whatever_waits_for_a_log_that_fails_is_refused() {
        let mut cores = Cores::new(2);
        cores.set_disk(0, Disk::Stuck);
        let queue_id = cores.queue_on(1, "T");
        let sends = [0, 1].map(|core| cores.post_send(core, "T", queue_id, &[], &[], b"body"));
        let group = cores.post(1, code::UPDATE_AND_CREATE_SUBSCRIPTIONGROUP, &[], br#"{"groupName":"g"}"#);
        let heartbeat = br#"{"clientID":"c","consumerDataSet":[{"groupName":"h","consumeType":"CONSUME_PASSIVELY",
            "messageModel":"CLUSTERING","consumeFromWhere":"CONSUME_FROM_LAST_OFFSET","subscriptionDataSet":[]}],
            "producerDataSet":[]}"#;
        let heartbeat = cores.post(1, code::HEART_BEAT, &[], heartbeat);
        let delete = cores.post(0, code::DELETE_TOPIC_IN_BROKER, &[("topic", "gone")], b"");
        cores.set_disk(0, Disk::Broken);
        cores.run();
        for opaque in [sends[0], sends[1], group, heartbeat, delete] {
            let answers = cores.answers_to(opaque);
            assert_eq!(answers.len(), 1, "{opaque}: {answers:?}");
            assert_eq!(answers[0].code, SERVICE_NOT_AVAILABLE, "{}", answers[0].remark);
        }
        // The system core's table has the topic, the other core will never hear of it.
        for core in [0, 1] {
            assert_eq!(cores.send(core, "T", queue_id, &[]).code, SERVICE_NOT_AVAILABLE);
        }
    }

    #[test]
    fn a_removal_is_answered_when_every_core_has_it_on_disk() {
        for (code, ext) in [
            (code::DELETE_TOPIC_IN_BROKER, [("topic", "T"), ("unused", "")]),
            (code::DELETE_SUBSCRIPTIONGROUP, [("groupName", "g"), ("cleanOffset", "true")]),
        ] {
            let mut cores = Cores::new(2);
            cores.create_group(r#"{"groupName":"g"}"#);
            for core in [0, 1] {
                let queue_id = cores.queue_on(core, "T");
                assert_eq!(cores.send(core, "T", queue_id, &[]).code, 0);
                let queue_id = queue_id.to_string();
                let offset =
                    [("commitOffset", "1"), ("consumerGroup", "g"), ("queueId", queue_id.as_str()), ("topic", "T")];
                assert_eq!(cores.call(core, code::UPDATE_CONSUMER_OFFSET, &offset, b"").code, 0);
            }
            cores.set_disk(1, Disk::Stuck);
            let delete = cores.post(0, code, &ext, b"");
            assert!(cores.answers_to(delete).is_empty());
            cores.set_disk(1, Disk::Works);
            cores.run();
            assert_eq!(cores.answers_to(delete).first().map(|answer| answer.code), Some(0));
            assert_eq!(cores.broker(1).shard.offsets().count(), 0);

            cores.set_disk(1, Disk::Broken);
            let delete = cores.call(0, code, &ext, b"");
            assert_eq!(delete.code, 0, "nothing is left to remove: {}", delete.remark);
        }
    }
}
