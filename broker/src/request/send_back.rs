//! CONSUMER_SEND_MSG_BACK (36): a consumer could not handle a message and wants it again later.
//!
//! Delay levels do not exist yet, so the message returns at once; after too many tries it goes to the
//! group's dead letters.

use rmq_engine::{PhysicalOffset, ReadRecord, Slice};
use rmq_net::body::topic::perm;
use rmq_net::codes::response;
use rmq_net::header::group::SendBackHeader;
use rmq_net::message::id::OffsetMessageId;
use rmq_net::message::{properties, record};

use crate::broker::{Broker, Handled, Outcome, Refusal};
use crate::letter::{Origin, Purpose, ReplyAddress, Request};
use crate::request::send::{self, Resend};
use crate::request::{Job, dead_letter, message};
use crate::state::reserved::{dlq_topic, retry_topic};

pub struct SendBack {
    origin: Origin,
    to: ReplyAddress,
    at: PhysicalOffset,
    group: String,
    delay_level: i32,
    retry_queues: u32,
    tries_max: i32,
}

pub fn handle(broker: &mut Broker, request: &Request<'_>) -> Outcome {
    let header = SendBackHeader::decode(&request.frame)?;
    let group = header.group.to_cow();
    let Some(config) = broker.groups.get(&group).cloned() else {
        if !broker.is_system_core() {
            return broker.forward(crate::broker::SYSTEM_CORE, request, request.origin);
        }
        let remark = format!("subscription group not exist, {group}");
        return Err(Refusal::new(response::SUBSCRIPTION_GROUP_NOT_EXIST, remark));
    };
    if broker.config.broker_permission & perm::WRITE == 0 {
        let remark = "the broker takes no messages (brokerPermission lacks write)";
        return Err(Refusal::new(response::NO_PERMISSION, remark));
    }
    let Some(retry_queues) = u32::try_from(config.retry_queue_nums).ok().filter(|count| *count > 0) else {
        broker.reply_done(request.reply_address());
        return Ok(Handled::Taken);
    };
    let at = message::locate(broker, header.offset)?;
    let owner = usize::from(at.shard());
    if owner != broker.core {
        return broker.forward(owner, request, request.origin);
    }
    let back = SendBack {
        origin: Origin { purpose: Purpose::SentBack, hops: 0, ..request.origin },
        to: request.reply_address(),
        at,
        delay_level: header.delay_level,
        retry_queues,
        tries_max: dead_letter::tries_max(broker, &group, request.frame.version, header.max_reconsume_times),
        group: group.into_owned(),
    };
    resume(broker, back);
    Ok(Handled::Taken)
}

pub fn resume(broker: &mut Broker, back: SendBack) {
    let ticket = broker.new_ticket();
    match broker.shard.read_record(back.at, ticket) {
        ReadRecord::Found(slice) => store_again(broker, &back, &slice),
        ReadRecord::NotFound => broker.refuse_later(back.to, &not_found(&back)),
        ReadRecord::Failed(error) => broker.refuse_later(back.to, &super::read_failed(&error)),
        ReadRecord::Pending => broker.keep_job(ticket, Job::SendBack(back)),
    }
}

#[cold]
fn not_found(back: &SendBack) -> Refusal {
    Refusal::new(response::SYSTEM_ERROR, format!("look message by offset failed, {}", back.at.to_wire()))
}

fn store_again(broker: &mut Broker, back: &SendBack, slice: &Slice) {
    let Ok(stored) = record::decode(slice.as_ref()) else {
        return broker.refuse_later(back.to, &not_found(back));
    };
    let is_dead = back.delay_level < 0 || stored.reconsume_times >= back.tries_max;
    let (topic, queue_id) = if is_dead {
        (dlq_topic(&back.group), 0)
    } else {
        (retry_topic(&back.group), (broker.next_random() % u64::from(back.retry_queues)) as u32)
    };
    let text = changed_properties(back, &stored, is_dead);
    let Ok(text) = String::from_utf8(text) else {
        return broker.refuse_later(back.to, &not_found(back));
    };
    let message = Resend {
        topic: &topic,
        queue_id,
        sys_flag: stored.sys_flag,
        flag: stored.flag,
        born_timestamp_ms: stored.born_timestamp,
        reconsume_times: stored.reconsume_times + 1,
        properties: &text,
        body: stored.body,
    };
    let origin = Origin { address: stored.born_host, ..back.origin };
    if send::resend(broker, origin, back.to, &message) == Handled::Full {
        // The consumer keeps the message and tries again.
        broker.refuse_later(
            back.to,
            &Refusal::new(response::SYSTEM_BUSY, "the log is behind; send the message back again"),
        );
    }
}

fn changed_properties(back: &SendBack, stored: &record::Record<'_>, is_dead: bool) -> Vec<u8> {
    let mut text = Vec::with_capacity(stored.properties.len() + 128);
    properties::copy_without(stored.properties, &["WAIT", "DELAY"], &mut text);
    if properties::get(stored.properties, "RETRY_TOPIC").is_none() {
        properties::push(&mut text, "RETRY_TOPIC", stored.topic.as_bytes());
    }
    if properties::get(stored.properties, "ORIGIN_MESSAGE_ID").is_none() {
        let id = OffsetMessageId { store_host: stored.store_host, physical_offset: back.at.to_wire() };
        properties::push(&mut text, "ORIGIN_MESSAGE_ID", id.to_string().as_bytes());
    }
    properties::push(&mut text, "WAIT", b"false");
    let level = match (is_dead, back.delay_level) {
        (true, _) => 0,
        (false, 0) => 3 + stored.reconsume_times,
        (false, level) => level,
    };
    properties::push(&mut text, "DELAY", level.to_string().as_bytes());
    text
}
