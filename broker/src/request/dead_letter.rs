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
    let is_locked = broker.locked_groups.is_locked(group, broker.now_ms);
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
    let origin = Origin { purpose: Purpose::DeadLetter, picked_queue: None, hops: 0, ..request.origin };
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

#[cfg(test)]
mod tests {
    use rmq_net::codes::request as code;

    use crate::state::locks::LOCK_LIFETIME_MS;
    use crate::testing::Cores;

    fn lock_body() -> &'static [u8] {
        br#"{"clientId":"one","consumerGroup":"g","mqSet":[{"brokerName":"broker-a","queueId":0,"topic":"T"}]}"#
    }

    /// Where a message sent to each core's queue of the retry topic ends: true for the dead letters.
    fn ends_dead(cores: &mut Cores) -> [bool; 2] {
        [0, 1].map(|core| {
            let queue_id = cores.queue_on(core, "%RETRY%g");
            let before = dead_letters(cores);
            let sent = cores.send(core, "%RETRY%g", queue_id, &[]);
            assert_eq!(sent.code, 0, "{}", sent.remark);
            dead_letters(cores) > before
        })
    }

    fn dead_letters(cores: &mut Cores) -> i64 {
        let owner = cores.broker(0).owner("%DLQ%g", 0);
        cores.broker(owner).shard.bounds("%DLQ%g", 0).max
    }

    #[test]
    fn a_group_with_a_queue_lock_sends_its_retries_to_the_dead_letters_on_every_core() {
        let mut cores = Cores::new(2);
        cores.create_group(r#"{"groupName":"g"}"#);
        cores.create_topic("%RETRY%g", "16", "6", "");
        assert_eq!(ends_dead(&mut cores), [false, false]);
        assert_eq!(cores.call(1, code::LOCK_BATCH_MQ, &[], lock_body()).code, 0);
        assert_eq!(ends_dead(&mut cores), [true, true]);
        assert_eq!(cores.call(0, code::UNLOCK_BATCH_MQ, &[], lock_body()).code, 0);
        assert_eq!(ends_dead(&mut cores), [false, false]);
        assert_eq!(cores.call(1, code::LOCK_BATCH_MQ, &[], lock_body()).code, 0);
        cores.now_ms += LOCK_LIFETIME_MS + 1;
        assert_eq!(ends_dead(&mut cores), [false, false]);
    }
}
