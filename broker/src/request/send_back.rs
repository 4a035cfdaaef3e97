//! CONSUMER_SEND_MSG_BACK (36): a consumer could not handle a message and wants it again later.
//!
//! It returns after the delay of the level asked for, or else of level 3 + the tries so far; after too many tries it
//! goes to the group's dead letters.

use rmq_engine::{PhysicalOffset, ReadRecord, Slice};
use rmq_net::body::topic::perm;
use rmq_net::codes::response;
use rmq_net::header::group::SendBackHeader;
use rmq_net::message::id::OffsetMessageId;
use rmq_net::message::{properties, record};

use crate::broker::{Broker, Handled, Outcome, Refusal, SYSTEM_CORE};
use crate::letter::{Origin, Purpose, ReplyAddress, Request};
use crate::request::send::{self, Resend};
use crate::request::{Job, dead_letter, message, topic_change};
use crate::state::reserved::{dlq_topic, retry_topic};
use crate::state::topics::QUEUES_MAX;

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
            return broker.forward(SYSTEM_CORE, request, request.origin);
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
    let retry_queues = retry_queues.min(QUEUES_MAX as u32);
    let retry = retry_topic(&group);
    if let Some(topic) = broker.topics.decide_retry_topic(&retry, retry_queues as i32, header.unit_mode) {
        if !broker.is_system_core() {
            return broker.forward(SYSTEM_CORE, request, request.origin);
        }
        return topic_change::create_topic_for(broker, request, topic);
    }
    if broker.topics.get(&retry).is_none_or(|topic| topic.perm & perm::WRITE == 0) {
        let remark = format!("the topic[{retry}] sending message is forbidden");
        return Err(Refusal::new(response::NO_PERMISSION, remark));
    }
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
        // The consumer keeps the message and sends it itself.
        let refusal = Refusal::new(response::SYSTEM_ERROR, "OS_PAGE_CACHE_BUSY: the log is behind");
        broker.refuse_later(back.to, &refusal);
    }
}

/// The answer to the consumer when the copy of its message is not stored: as in RocketMQ code 1, with the name of the
/// store's status in the remark, and what is behind it.
#[cold]
pub fn not_stored(refusal: &Refusal) -> Refusal {
    let status = match refusal.code {
        response::MESSAGE_ILLEGAL => "MESSAGE_ILLEGAL",
        response::SERVICE_NOT_AVAILABLE => "SERVICE_NOT_AVAILABLE",
        response::FLUSH_DISK_TIMEOUT => "FLUSH_DISK_TIMEOUT",
        _ => "UNKNOWN_ERROR",
    };
    Refusal::new(response::SYSTEM_ERROR, format!("{status}: {}", refusal.remark))
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
    properties::push_number(&mut text, "DELAY", level.into());
    text
}

#[cfg(test)]
mod tests {
    use rmq_engine::PhysicalOffset;
    use rmq_net::codes::{request as code, response};
    use rmq_net::message::id::OffsetMessageId;

    use crate::testing::{Cores, Disk, Sent};

    /// Physical offset of a message of about `bytes` in a queue of the core.
    fn stored_on(cores: &mut Cores, core: usize, bytes: usize) -> i64 {
        let queue_id = cores.queue_on(core, "T");
        let sent = cores.send_with(core, "T", queue_id, &[], &[], &vec![b'x'; bytes]);
        assert_eq!(sent.code, 0, "{}", sent.remark);
        let id = OffsetMessageId::parse(sent.ext("msgId")).expect("a message id");
        assert_eq!(PhysicalOffset::from_wire(id.physical_offset).map(|at| at.shard()), Some(core as u16));
        id.physical_offset
    }

    fn send_back(cores: &mut Cores, core: usize, offset: i64, delay_level: &str) -> Sent {
        let offset = offset.to_string();
        let ext = [("delayLevel", delay_level), ("group", "g"), ("offset", offset.as_str())];
        cores.call(core, code::CONSUMER_SEND_MSG_BACK, &ext, b"")
    }

    fn queue_nums(cores: &mut Cores, core: usize, topic: &str) -> Option<i32> {
        cores.broker(core).topics.get(topic).map(|topic| topic.write_queue_nums.min(topic.read_queue_nums))
    }

    #[test]
    fn the_retry_topic_has_the_queues_its_group_asks_for_before_it_is_used() {
        let mut cores = Cores::new(2);
        cores.create_group(r#"{"groupName":"g","retryQueueNums":3}"#);
        let offset = stored_on(&mut cores, 1, 4);
        assert_eq!(send_back(&mut cores, 1, offset, "0").code, 0);
        assert_eq!([0, 1].map(|core| queue_nums(&mut cores, core, "%RETRY%g")), [Some(3); 2]);
        cores.create_group(r#"{"groupName":"g","retryQueueNums":5}"#);
        for _ in 0..20 {
            let answer = send_back(&mut cores, 0, offset, "0");
            assert_eq!((answer.code, answer.ext.len()), (0, 0), "{}", answer.remark);
        }
        assert_eq!([0, 1].map(|core| queue_nums(&mut cores, core, "%RETRY%g")), [Some(5); 2]);
        cores.now_ms += 10_000;
        cores.run();
        let queues: usize = [0, 1].into_iter().map(|core| cores.broker(core).shard.queues("%RETRY%g").count()).sum();
        assert_eq!(queues, 5);
        assert_eq!(send_back(&mut cores, 0, offset, "-1").code, 0);
        assert_eq!(queue_nums(&mut cores, 1, "%DLQ%g"), Some(1));
    }

    #[test]
    fn a_retry_topic_that_is_not_writable_takes_nothing_back() {
        let mut cores = Cores::new(2);
        cores.create_group(r#"{"groupName":"g"}"#);
        cores.create_topic("%RETRY%g", "1", "4", "");
        for core in [0, 1] {
            let offset = stored_on(&mut cores, core, 4);
            assert_eq!(send_back(&mut cores, core, offset, "0").code, response::NO_PERMISSION);
        }
        assert_eq!(send_back(&mut cores, 1, 1 << 40, "0").code, response::NO_PERMISSION);
        cores.create_topic("%RETRY%g", "1", "6", "");
        assert_eq!(send_back(&mut cores, 1, 1 << 40, "0").code, response::SYSTEM_ERROR);
    }

    #[test]
    fn a_store_that_does_not_take_the_message_is_code_1_with_its_status() {
        let mut cores = Cores::new(2);
        cores.create_group(r#"{"groupName":"g"}"#);
        let offset = stored_on(&mut cores, 0, 4);
        assert_eq!(send_back(&mut cores, 0, offset, "0").code, 0);
        let retry_owner = cores.broker(0).owner("%RETRY%g", 0);
        cores.set_disk(retry_owner, Disk::Broken);
        for _ in 0..2 {
            let answer = send_back(&mut cores, 0, offset, "0");
            assert_eq!(answer.code, response::SYSTEM_ERROR);
            let status = answer.remark.split(':').next();
            assert!(matches!(status, Some("FLUSH_DISK_TIMEOUT" | "SERVICE_NOT_AVAILABLE")), "{}", answer.remark);
            assert_eq!(answer.ext.len(), 0);
        }
    }
}
