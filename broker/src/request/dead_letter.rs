//! Messages sent to `%RETRY%group` topics by consumers themselves, and where they end after too many tries.

use rmq_net::codes::response;
use rmq_net::frame::Frame;
use rmq_net::header::send::SendHeader;
use rmq_net::message::properties;

use crate::broker::{Broker, Outcome, Refusal};
use crate::letter::{Origin, Purpose, Request};
use crate::request::send::{self, Resend};
use crate::state::reserved::dlq_topic;

/// Clients from this version on send their own limit of tries (RocketMQ 3.4.9).
const VERSION_WITH_MAX_TRIES: i32 = 121;

/// How often a message of the group may be consumed again.
pub fn tries_max(broker: &Broker, group: &str, client_version: i32, asked: Option<i32>) -> i32 {
    let of_group = broker.groups.get(group).map_or(16, |config| config.retry_max_times);
    asked.filter(|_| client_version >= VERSION_WITH_MAX_TRIES).unwrap_or(of_group)
}

/// Does a message sent to the group's retry topic have to go to the dead letters instead?
pub fn is_exhausted(broker: &Broker, group: &str, header: &SendHeader<'_>, frame: &Frame<'_>) -> bool {
    let is_locked = broker.system.as_ref().is_some_and(|system| system.locks.holds_live_lock(group, broker.now_ms));
    let limit = tries_max(broker, group, frame.version, header.max_reconsume_times);
    header.reconsume_times > limit || is_locked
}

/// Stores the message in `%DLQ%group` instead, without delay.
pub fn redirect(broker: &mut Broker, request: &Request<'_>, header: &SendHeader<'_>, group: &str) -> Outcome {
    let given = header.properties.as_ref().map(|text| text.to_cow()).unwrap_or_default();
    let mut changed = Vec::with_capacity(given.len() + 16);
    properties::copy_without(given.as_bytes(), &["DELAY"], &mut changed);
    properties::push(&mut changed, "DELAY", b"-1");
    let text = String::from_utf8(changed)
        .map_err(|_| Refusal::new(response::MESSAGE_ILLEGAL, "the message's properties are not UTF-8"))?;
    let origin = Origin { purpose: Purpose::DeadLetter, picked_queue: None, ..request.origin };
    let message = Resend {
        topic: &dlq_topic(group),
        queue_id: 0,
        sys_flag: header.sys_flag,
        flag: header.flag,
        born_timestamp_ms: header.born_timestamp,
        reconsume_times: header.reconsume_times,
        properties: &text,
        body: request.frame.body,
    };
    Ok(send::resend(broker, origin, request.reply_address(), &message))
}
