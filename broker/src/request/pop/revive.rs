//! Messages whose time is over: a copy of each goes into the group's retry topic, into a queue of the same shard, and takes
//! the place of the message in one batch of the log. So it returns once, whenever the broker dies.

use rmq_engine::in_flight::{Due, TakenHow};
use rmq_engine::{AppendError, Done, Fetch, FetchRequest, MessageDraft, MessageKeys, TagFilter};
use rmq_net::body::TopicConfig;
use rmq_net::message::receipt::Mark;
use rmq_net::message::record::Record;
use rmq_net::message::{properties, record};

use super::{retry_topics, wait};
use crate::broker::{Broker, SYSTEM_CORE};
use crate::letter::Letter;
use crate::request::{Job, topic_change};
use crate::state::reserved::{READ_WRITE, topic};

/// Messages stored again in one turn, at most: others want the core too.
const PER_TURN_MAX: usize = 256;
/// When a message that could not be stored again is looked at once more.
const RETRY_MS: i64 = 100;

pub fn turn(broker: &mut Broker) {
    for _ in 0..PER_TURN_MAX {
        if broker.pops.reviving >= broker.config.pop_revive_concurrency.max(1) as usize {
            return;
        }
        let Some(due) = broker.shard.next_due(broker.now_ms) else { return };
        if due.taken.how == TakenHow::InOrder {
            // It stays where it is, and the queue may be popped again.
            wait::stir(broker, &due.queue.group, &due.queue.topic);
        } else {
            broker.pops.reviving += 1;
            revive(broker, due);
        }
    }
}

/// Stores a message again, or leaves it waiting for the disk.
pub fn revive(broker: &mut Broker, due: Due) {
    let queue = due.queue.clone();
    let is_wanted = broker.topics.get(&queue.topic).is_some() && broker.groups.get(&queue.group).is_some();
    let ticket = broker.new_ticket();
    let request = FetchRequest {
        topic: &queue.topic,
        queue_id: queue.queue_id,
        offset: due.offset,
        count_max: 1,
        bytes_max: 0,
        filter: &TagFilter::All,
    };
    let fetched = if is_wanted { Some(broker.shard.fetch(&request, ticket)) } else { None };
    match fetched {
        Some(Fetch::Pending) => return broker.keep_job(ticket, Job::Revive(due)),
        Some(Fetch::Nothing { why: rmq_engine::Nothing::ReadFailed(error), .. }) => {
            tracing::warn!(topic = %queue.topic, offset = due.offset, %error, "a popped message cannot be read again yet");
            broker.shard.put_off(&due, broker.now_ms + 10 * RETRY_MS);
        }
        Some(Fetch::Found { slices, .. }) => {
            let stored = slices.first().and_then(|slice| record::decode(slice.as_ref()).ok());
            match stored.filter(|stored| stored.queue_offset == due.offset) {
                Some(stored) => store_again(broker, &due, &stored),
                None => drop_message(broker, &due),
            }
        }
        // It is gone, or nobody would read it.
        Some(Fetch::Nothing { .. }) | None => drop_message(broker, &due),
    }
    broker.pops.reviving -= 1;
}

fn is_still_due(broker: &Broker, due: &Due) -> bool {
    let queue = &due.queue;
    let in_flight = broker.shard.in_flight(&queue.group, &queue.topic, queue.queue_id);
    in_flight.and_then(|in_flight| in_flight.get(due.offset)) == Some(&due.taken)
}

fn drop_message(broker: &mut Broker, due: &Due) {
    let queue = &due.queue;
    if is_still_due(broker, due) {
        let done = Done::one(&queue.group, &queue.topic, queue.queue_id, due.offset);
        if let Err(error) = broker.shard.mark_done(&done) {
            not_stored(broker, due, &error);
        }
    }
}

fn store_again(broker: &mut Broker, due: &Due, stored: &Record<'_>) {
    let queue = due.queue.clone();
    if !is_still_due(broker, due) {
        return;
    }
    let retry = if Mark::of(&queue.topic) == Mark::Topic {
        retry_topics(broker, &queue.group, &queue.topic).next().unwrap_or_default()
    } else {
        queue.topic.to_string()
    };
    let Some(queue_id) = retry_queue(broker, &retry) else {
        want_topic(broker, &retry);
        return broker.shard.put_off(due, broker.now_ms + RETRY_MS);
    };
    let mut text = stored.properties.to_vec();
    properties::terminate(&mut text);
    for (key, value) in [("1ST_POP_TIME", due.taken.taken_ms.to_string()), ("ORIGIN_GROUP", queue.group.to_string())] {
        if properties::get(&text, key).is_none() {
            properties::push(&mut text, key, value.as_bytes());
        }
    }
    let times = i32::from(due.taken.how == TakenHow::Counted);
    let draft = MessageDraft {
        topic: &retry,
        queue_id,
        flag: stored.flag,
        sys_flag: stored.sys_flag,
        born_timestamp_ms: stored.born_timestamp,
        born_host: broker.store_host,
        store_host: broker.store_host,
        reconsume_times: stored.reconsume_times.saturating_add(times),
        prepared_transaction_offset: 0,
        body: stored.body,
        properties: &text,
        keys: MessageKeys::of(&text),
    };
    let done = Done::one(&queue.group, &queue.topic, queue.queue_id, due.offset);
    match broker.shard.append_consuming(&draft, &done, broker.now_ms) {
        Ok(_) => broker.shard.watch(&retry, queue_id),
        Err(error) => not_stored(broker, due, &error),
    }
}

fn not_stored(broker: &mut Broker, due: &Due, error: &AppendError) {
    match error {
        // The next start tells it again.
        AppendError::Poisoned => {}
        AppendError::BatchFull { .. } => broker.shard.put_off(due, broker.now_ms),
        error => {
            tracing::warn!(topic = %due.queue.topic, offset = due.offset, %error, "a popped message cannot be stored again yet");
            broker.shard.put_off(due, broker.now_ms + 10 * RETRY_MS);
        }
    }
}

/// The queue of a retry topic that messages of this core go to.
fn retry_queue(broker: &Broker, retry: &str) -> Option<u32> {
    let config = broker.topics.get(retry)?;
    let count = config.read_queue_nums.min(config.write_queue_nums).max(0) as u32;
    (0..count).find(|queue_id| broker.owner(retry, *queue_id) == broker.core)
}

/// Asks for a retry topic that has a queue on every core. RocketMQ's has one queue; so has ours on one core.
fn want_topic(broker: &mut Broker, retry: &str) {
    let mut is_missing = vec![true; broker.core_count];
    let mut count = 0;
    while is_missing.contains(&true) {
        is_missing[broker.owner(retry, count)] = false;
        count += 1;
    }
    let config = topic(retry, count as i32, READ_WRITE);
    if broker.is_system_core() {
        on_wanted(broker, config);
    } else {
        broker.send_letter(SYSTEM_CORE, Letter::TopicWanted(config));
    }
}

/// A core needs a topic, or more queues of it.
pub fn on_wanted(broker: &mut Broker, wanted: TopicConfig) {
    let queues = wanted.read_queue_nums;
    let Some(config) = broker.topics.decide_retry_topic(&wanted.topic_name, queues, false) else { return };
    tracing::info!(topic = config.topic_name, queues = config.write_queue_nums, "creating a topic for popped messages");
    if let Err(error) = topic_change::store_topic(broker, config) {
        // It is asked for again.
        tracing::warn!(topic = wanted.topic_name, %error, "a topic for popped messages cannot be created yet");
    }
}
