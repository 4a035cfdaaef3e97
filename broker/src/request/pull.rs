//! PULL_MESSAGE (11) and LITE_PULL_MESSAGE (361): records of one queue, now or when they arrive.
//!
//! Handled on the queue's core. Bodies are not copied: the reply carries slices of the log's memory.

use rmq_engine::{Bounds, Fetch, FetchRequest, Nothing, TagFilter};
use rmq_net::codes::{request as code, response};
use rmq_net::header::pull::{PullHeader, sys_flag};

use crate::broker::{Body, Broker, Handled, Outcome, SYSTEM_CORE};
use crate::letter::{ReplyAddress, Request};
use crate::poll::HOLD_MS_MAX;
use crate::request::{Job, pop, topic_change};
use crate::state::checks::{self, PullCheck, PullRequest, check_pull};

/// Everything a pull needs to be tried again later without its frame.
pub struct PullOrder {
    to: ReplyAddress,
    pub group: String,
    pub topic: String,
    pub queue_id: u32,
    offset: i64,
    count_max: u32,
    filter: TagFilter,
    topic_sys_flag: i32,
    group_sys_flag: i32,
    /// Until when the reply may be held; `None` once it may not.
    hold_until_ms: Option<i64>,
    /// When its last look into the queue began.
    begun_ms: i64,
}

pub fn handle(broker: &mut Broker, request: &Request<'_>) -> Outcome {
    let header = PullHeader::decode(&request.frame)?;
    let topic = header.topic.to_cow();
    let group = header.consumer_group.to_cow();
    // The group first: if it is unknown here, the system core makes it or refuses, before the queue's core is asked.
    if broker.groups.get(&group).is_none() && !broker.is_system_core() {
        return broker.forward(SYSTEM_CORE, request, request.origin);
    }
    // A queue id below zero has no owner; the check below refuses it wherever it is.
    if let Ok(queue_id) = u32::try_from(header.queue_id)
        && broker.groups.get(&group).is_some()
    {
        let owner = broker.owner(&topic, queue_id);
        if owner != broker.core {
            return broker.forward(owner, request, request.origin);
        }
    }
    let subscription = header.subscription.as_ref().map(|text| text.to_cow());
    let expression_type = header.expression_type.as_ref().map(|text| text.to_cow());
    let wanted = PullRequest {
        group: &group,
        topic: &topic,
        queue_id: header.queue_id,
        sys_flag: header.sys_flag,
        is_lite: request.frame.code == code::LITE_PULL_MESSAGE,
        subscription: subscription.as_deref(),
        expression_type: expression_type.as_deref(),
        sub_version: header.sub_version,
    };
    let Broker { check_settings, topics, groups, views, filters, .. } = broker;
    let checked = check_pull(check_settings, topics, groups, views, filters, &wanted);
    let (filter, topic_sys_flag, group_sys_flag) = match checked {
        Ok(PullCheck::Ready { topic, group, filter }) => {
            (filter.into_owned(), topic.topic_sys_flag, group.group_sys_flag)
        }
        Ok(PullCheck::CreateGroup(config)) => return topic_change::create_group_for(broker, request, config),
        Err(refusal) => return refuse(broker, request, refusal),
    };
    let queue_id = header.queue_id as u32;
    let wants_commit = header.sys_flag & sys_flag::COMMIT_OFFSET != 0 && header.commit_offset >= 0;
    // What the consumer has consumed before a reset it does not know of yet counts no more.
    if wants_commit && !broker.resets.contains(&group, &topic, queue_id) {
        match broker.shard.commit_offset(&group, &topic, queue_id, header.commit_offset) {
            // Not waited for: the pull does not acknowledge the commit.
            Ok(_) => {}
            Err(rmq_engine::AppendError::BatchFull { .. }) => return Ok(Handled::Full),
            // Reads go on although the log takes no more writes; the offset stays where it was.
            Err(_) => {}
        }
    }
    let may_hold = header.sys_flag & sys_flag::SUSPEND != 0;
    let hold_ms = if broker.config.long_polling_enable {
        header.suspend_timeout_millis.clamp(0, HOLD_MS_MAX)
    } else {
        broker.config.short_polling_time_mills
    };
    let order = PullOrder {
        to: request.reply_address(),
        queue_id,
        offset: header.queue_offset,
        count_max: u32::try_from(header.max_msg_nums).unwrap_or(0),
        filter,
        topic_sys_flag,
        group_sys_flag,
        hold_until_ms: may_hold.then(|| broker.now_ms + hold_ms),
        begun_ms: broker.now_ms,
        topic: topic.into_owned(),
        group: group.into_owned(),
    };
    execute(broker, order);
    Ok(Handled::Taken)
}

fn refuse(broker: &mut Broker, request: &Request<'_>, refusal: checks::Refusal) -> Outcome {
    let Some(kind) = refusal.forbidden_type else { return Err(refusal.into()) };
    let to = request.reply_address();
    broker.reply_with_remark(to, refusal.code, Some(&refusal.remark), Body::None, |ext| {
        ext.int("forbiddenType", kind as i64);
    });
    Ok(Handled::Taken)
}

/// Reads for an order and answers it, parks it, or leaves it waiting for the disk.
pub fn execute(broker: &mut Broker, order: PullOrder) {
    if let Some(offset) = broker.resets.take(&order.group, &order.topic, order.queue_id) {
        let bounds = broker.shard.bounds(&order.topic, order.queue_id);
        return answer(broker, &order, response::PULL_OFFSET_MOVED, "OFFSET_RESET", offset, bounds, Body::None);
    }
    let ticket = broker.new_ticket();
    let count_max = order.count_max.min(broker.config.max_transfer_count_on_message_in_memory);
    let request = FetchRequest {
        topic: &order.topic,
        queue_id: order.queue_id,
        offset: order.offset,
        count_max,
        bytes_max: broker.config.max_transfer_bytes_on_message_in_memory,
        filter: &order.filter,
    };
    match broker.shard.fetch(&request, ticket) {
        Fetch::Found { slices, count, bytes, next, bounds } => {
            broker.counters.get_took(u32::try_from(broker.now_ms - order.begun_ms).unwrap_or(0));
            broker.counters.get_found(&order.topic, &order.group, u64::from(count), u64::from(bytes));
            answer(broker, &order, response::SUCCESS, "FOUND", next, bounds, Body::Slices(slices));
        }
        Fetch::Nothing { why, next, bounds } => nothing(broker, order, why, next, bounds),
        Fetch::Pending => broker.keep_job(ticket, Job::Pull(order)),
    }
}

fn nothing(broker: &mut Broker, mut order: PullOrder, why: Nothing, next: i64, bounds: Bounds) {
    let (code, status) = match why {
        Nothing::NoQueue if order.offset == 0 => (response::PULL_NOT_FOUND, "NO_MATCHED_LOGIC_QUEUE"),
        Nothing::NoQueue => (response::PULL_OFFSET_MOVED, "NO_MATCHED_LOGIC_QUEUE"),
        Nothing::Empty if order.offset == 0 => (response::PULL_NOT_FOUND, "NO_MESSAGE_IN_QUEUE"),
        Nothing::Empty => (response::PULL_OFFSET_MOVED, "NO_MESSAGE_IN_QUEUE"),
        Nothing::AtEnd => (response::PULL_NOT_FOUND, "OFFSET_OVERFLOW_ONE"),
        Nothing::TooSmall => (response::PULL_OFFSET_MOVED, "OFFSET_TOO_SMALL"),
        Nothing::BeyondEnd => (response::PULL_OFFSET_MOVED, "OFFSET_OVERFLOW_BADLY"),
        Nothing::ReadFailed(error) => return broker.refuse_later(order.to, &super::read_failed(&error)),
        Nothing::NoMatch => (response::PULL_RETRY_IMMEDIATELY, "NO_MATCHED_MESSAGE"),
        Nothing::Removed => (response::PULL_RETRY_IMMEDIATELY, "MESSAGE_WAS_REMOVING"),
    };
    broker.counters.get_missed();
    let hold_until_ms = order.hold_until_ms.filter(|until_ms| *until_ms > broker.now_ms);
    if let Some(until_ms) = hold_until_ms {
        match code {
            response::PULL_NOT_FOUND => {
                broker.shard.watch(&order.topic, order.queue_id);
                return broker.polls.park(order, until_ms);
            }
            // Only messages the filter drops were left: wait for one that it does not, from behind them.
            response::PULL_RETRY_IMMEDIATELY if next == bounds.max => {
                order.offset = next;
                broker.shard.watch(&order.topic, order.queue_id);
                return broker.polls.park(order, until_ms);
            }
            _ => {}
        }
    }
    answer(broker, &order, code, status, next, bounds, Body::None);
}

fn answer(broker: &mut Broker, order: &PullOrder, code: i32, status: &str, next: i64, bounds: Bounds, body: Body<'_>) {
    broker.reply_with_remark(order.to, code, Some(status), body, |ext| {
        ext.int("groupSysFlag", i64::from(order.group_sys_flag));
        ext.int("maxOffset", bounds.max);
        ext.int("minOffset", bounds.min);
        ext.int("nextBeginOffset", next);
        ext.int("suggestWhichBrokerId", 0);
        ext.int("topicSysFlag", i64::from(order.topic_sys_flag));
    });
}

/// Tries the pulls whose queue got a message, and answers those whose time is up.
pub fn wake_polls(broker: &mut Broker) {
    while let Some((topic, queue_id)) = broker.shard.arrival() {
        wake_queue(broker, &topic, queue_id);
        pop::wait::on_arrival(broker, &topic, queue_id);
    }
    while let Some(mut order) = broker.polls.expire(broker.now_ms) {
        order.hold_until_ms = None;
        order.begun_ms = broker.now_ms;
        execute(broker, order);
    }
}

/// Tries the pulls that wait for a queue.
pub fn wake_queue(broker: &mut Broker, topic: &str, queue_id: u32) {
    for (_, mut order) in broker.polls.wake(topic, queue_id) {
        order.begun_ms = broker.now_ms;
        execute(broker, order);
    }
}

/// Answers every held pull at once, before the process stops.
pub fn release_polls(broker: &mut Broker) {
    while let Some(mut order) = broker.polls.expire(i64::MAX) {
        order.hold_until_ms = None;
        order.begun_ms = broker.now_ms;
        execute(broker, order);
    }
}

#[cfg(test)]
mod tests;
