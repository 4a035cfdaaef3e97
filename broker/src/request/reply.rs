//! Request-reply: SEND_REPLY_MESSAGE (324) and its V2 (325) from the responder, PUSH_REPLY_MESSAGE_TO_CLIENT (326) to the
//! requester, and the requester's answer to that. The request itself is a message like any other.
//!
//! Handled on the system core, which knows where each client is connected. The responder is answered when the requester has
//! taken the reply, and unless `storeReplyMessageEnable` is off, when it is stored as well. As in RocketMQ, a reply that
//! could not be stored but was taken counts as sent.

use std::collections::VecDeque;
use std::sync::Arc;

use rmq_net::codes::{request as code, response};
use rmq_net::connection::ConnectionId;
use rmq_net::frame::Frame;
use rmq_net::header::send::SendHeader;
use rmq_net::message::properties;
use rmq_net::reply::ExtWriter;

use crate::ask::{self, ClientAnswer, ClientRequest, QUESTION_BYTES};
use crate::broker::{Body, Broker, Handled, Outcome, Refusal};
use crate::letter::{Origin, Purpose, ReplyAddress, Request};
use crate::request::send::{self, Resend};
use crate::request::topic_change;
use crate::state::checks::{self, SendCheck, SendRequest, check_send};

/// How long a requester may take to answer, as in RocketMQ.
const ANSWER_MS_MAX: i64 = 10_000;
/// Replies that wait for their requesters' answers, all together.
pub(crate) const PUSHED_BYTES_MAX: usize = 64 << 20;
/// Replies stored at a turn's end once the log has room again: a turn has to stay short.
const STORED_PER_TURN: usize = 256;

/// A reply on its way to its requester.
struct Push {
    client_id: Box<str>,
    origin: Origin,
    to: ReplyAddress,
    queue_id: u32,
    /// The responder's request.
    frame: Box<[u8]>,
}

impl Push {
    fn cost_bytes(&self) -> usize {
        self.frame.len() + QUESTION_BYTES
    }
}

/// A reply whose requester has answered, or never will.
struct Settled {
    push: Push,
    is_taken: bool,
}

/// The replies the log had no room for, and what they and those that requesters have not answered yet add up to.
#[derive(Default)]
pub struct Pushes {
    to_store: VecDeque<Settled>,
    bytes: usize,
}

/// 324 and 325.
pub fn handle(broker: &mut Broker, request: &Request<'_>) -> Outcome {
    let header = SendHeader::decode(&request.frame)?;
    let topic = header.topic.to_cow();
    let random = broker.next_random() as u32;
    let picked = broker.topics.get(&topic).and_then(|topic| checks::queue_of_send(topic, header.queue_id, random));
    let queue_id = picked.unwrap_or(0);
    let mut text = Vec::new();
    if let Some(given) = &header.properties {
        given.write_to(&mut text);
    }
    let default_topic = header.default_topic.to_cow();
    let wanted = SendRequest {
        topic: &topic,
        queue_id: queue_id as i32,
        default_topic: &default_topic,
        default_topic_queue_nums: header.default_topic_queue_nums,
        unit_mode: header.unit_mode,
        is_batch: false,
        properties: &text,
    };
    match check_send(&broker.check_settings, &broker.topics, &broker.groups, &wanted, broker.now_ms)? {
        SendCheck::Ready(_) => {}
        SendCheck::CreateTopic(config) => return topic_change::create_topic_for(broker, request, config),
        SendCheck::CreateGroup(config) => return topic_change::create_group_for(broker, request, config),
    }
    let client_id = properties::get_str(&text, "REPLY_TO_CLIENT").map(Box::<str>::from);
    let system = broker.system.as_ref();
    let requester = client_id.as_deref().and_then(|id| system?.clients.find_producer(id));
    let (Some(client_id), Some(requester)) = (client_id.clone(), requester) else {
        let to = ReplyAddress { is_oneway: true, ..request.reply_address() };
        if store(broker, request.origin, to, queue_id, request.bytes) == Handled::Full {
            return Ok(Handled::Full);
        }
        return Err(not_pushed(match client_id {
            Some(id) => format!("push reply message fail, channel of <{id}> not found."),
            None => "reply message properties[REPLY_TO_CLIENT] is null".to_owned(),
        }));
    };
    let push =
        Push { client_id, origin: request.origin, to: request.reply_address(), queue_id, frame: request.bytes.into() };
    let Some(system) = &mut broker.system else { return Ok(Handled::Taken) };
    let waiting_bytes = system.pushes.bytes + push.cost_bytes();
    if waiting_bytes > PUSHED_BYTES_MAX {
        return Err(not_pushed(format!(
            "replies of {waiting_bytes} bytes would wait for their requesters to take them; the limit of this broker is \
             {PUSHED_BYTES_MAX}"
        )));
    }
    system.pushes.bytes = waiting_bytes;
    properties::terminate(&mut text);
    properties::push_number(&mut text, "PUSH_REPLY_TIME", broker.now_ms);
    push_reply(broker, request, &header, requester, &text, push);
    Ok(Handled::Taken)
}

fn not_pushed(remark: String) -> Refusal {
    Refusal::new(response::SYSTEM_ERROR, remark)
}

fn push_reply(
    broker: &mut Broker,
    request: &Request<'_>,
    header: &SendHeader<'_>,
    requester: ConnectionId,
    text: &[u8],
    push: Push,
) {
    let (now_ms, store_host) = (broker.now_ms, broker.store_host);
    let question = ClientRequest {
        client: requester,
        code: code::PUSH_REPLY_MESSAGE_TO_CLIENT,
        body: request.frame.body,
        wait_ms: ANSWER_MS_MAX,
    };
    let ext = |ext: &mut ExtWriter<'_>| {
        ext.text("producerGroup", &header.producer_group.to_cow());
        ext.text("topic", &header.topic.to_cow());
        ext.text("defaultTopic", &header.default_topic.to_cow());
        ext.int("defaultTopicQueueNums", i64::from(header.default_topic_queue_nums));
        ext.int("queueId", i64::from(header.queue_id));
        ext.int("sysFlag", i64::from(header.sys_flag));
        ext.int("flag", i64::from(header.flag));
        ext.int("bornTimestamp", header.born_timestamp);
        ext.int("storeTimestamp", now_ms);
        ext.text("bornHost", &request.origin.address.to_string());
        ext.text("storeHost", &store_host.to_string());
        ext.text("properties", &String::from_utf8_lossy(text));
        ext.int("reconsumeTimes", i64::from(header.reconsume_times));
        ext.bool("unitMode", header.unit_mode);
    };
    ask::ask_client(broker, &question, ext, move |broker, answer| {
        let is_taken = matches!(answer, ClientAnswer::Said(frame) if frame.code == response::SUCCESS);
        settle(broker, Settled { push, is_taken });
    });
}

/// Stores what there was no room for.
pub fn tick(broker: &mut Broker) {
    for _ in 0..STORED_PER_TURN {
        let next = broker.system.as_mut().and_then(|system| system.pushes.to_store.pop_front());
        let Some(settled) = next else { return };
        if settle(broker, settled) == Handled::Full {
            return;
        }
    }
}

/// Stores a reply and answers its responder, or keeps it until the log has room.
fn settle(broker: &mut Broker, settled: Settled) -> Handled {
    let Settled { push, is_taken } = &settled;
    let to = ReplyAddress { is_oneway: push.to.is_oneway || !is_taken, ..push.to };
    let handled = store(broker, push.origin, to, push.queue_id, &push.frame);
    let cost_bytes = push.cost_bytes();
    if handled == Handled::Taken {
        if !is_taken {
            answer_not_taken(broker, push);
        } else if !broker.config.store_reply_message_enable {
            answer_unstored(broker, push.to, push.queue_id);
        }
    }
    if let Some(system) = &mut broker.system {
        match handled {
            Handled::Taken => system.pushes.bytes -= cost_bytes,
            Handled::Full => system.pushes.to_store.push_front(settled),
        }
    }
    handled
}

fn answer_not_taken(broker: &mut Broker, push: &Push) {
    let prefix = Arc::clone(&broker.send_reply_prefix);
    let remark = format!("push reply message to {}fail.", push.client_id);
    broker.reply_with_remark(push.to, response::SYSTEM_ERROR, Some(&remark), Body::None, |ext| ext.begin_with(&prefix));
}

/// Stores a reply as a message of its topic, if it is to be stored, and then answers `to`.
fn store(broker: &mut Broker, origin: Origin, to: ReplyAddress, queue_id: u32, frame: &[u8]) -> Handled {
    if !broker.config.store_reply_message_enable {
        return Handled::Taken;
    }
    // Both were decoded when the request came.
    let Ok(frame) = Frame::decode(frame) else { return Handled::Taken };
    let Ok(header) = SendHeader::decode(&frame) else { return Handled::Taken };
    let (topic, properties) = (header.topic.to_cow(), header.properties.as_ref().map(|text| text.to_cow()));
    let message = Resend {
        topic: &topic,
        queue_id,
        sys_flag: header.sys_flag,
        flag: header.flag,
        born_timestamp_ms: header.born_timestamp,
        reconsume_times: header.reconsume_times,
        properties: properties.as_deref().unwrap_or_default(),
        body: frame.body,
    };
    let origin = Origin { purpose: Purpose::PushedReply, picked_queue: Some(queue_id), hops: 0, ..origin };
    send::resend(broker, origin, to, &message)
}

/// The requester has the reply, and the log has not.
pub fn answer_unstored(broker: &mut Broker, to: ReplyAddress, queue_id: u32) {
    let prefix = Arc::clone(&broker.send_reply_prefix);
    broker.reply(to, response::SUCCESS, Body::None, |ext| {
        ext.begin_with(&prefix);
        ext.text("msgId", "0");
        ext.int("queueId", i64::from(queue_id));
        ext.int("queueOffset", 0);
    });
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{Cores, Disk, Sent};

    const REPLY_TOPIC: &str = "DefaultCluster_REPLY_TOPIC";
    /// Where the requester is connected, and where the responder is.
    const REQUESTER: usize = 1;
    const RESPONDER: usize = 0;

    fn cores_with_requester(properties: &[(&str, &str)]) -> Cores {
        let mut cores = Cores::with_config(2, properties);
        let heartbeat = br#"{"clientID":"asker","consumerDataSet":[],"producerDataSet":[{"groupName":"p"}]}"#;
        assert_eq!(cores.call(REQUESTER, code::HEART_BEAT, &[], heartbeat).code, 0);
        cores
    }

    fn post_reply(cores: &mut Cores, client_id: &str, body: &[u8]) -> i32 {
        let properties =
            format!("MSG_TYPE\u{1}reply\u{2}REPLY_TO_CLIENT\u{1}{client_id}\u{2}CORRELATION_ID\u{1}c-1\u{2}");
        let ext = [
            ("a", "responders"),
            ("b", REPLY_TOPIC),
            ("c", "TBW102"),
            ("d", "8"),
            ("e", "0"),
            ("f", "1"),
            ("g", "1699999999000"),
            ("h", "3"),
            ("i", properties.as_str()),
        ];
        cores.post(RESPONDER, code::SEND_REPLY_MESSAGE_V2, &ext, body)
    }

    fn pushed_to_client(cores: &mut Cores) -> Sent {
        let mut pushed = cores.requests_to_clients();
        assert_eq!(pushed.len(), 1, "{pushed:?}");
        pushed.remove(0)
    }

    fn answer(cores: &mut Cores, opaque: i32) -> Sent {
        let mut answers = cores.answers_to(opaque);
        assert_eq!(answers.len(), 1, "the responder gets one answer: {answers:?}");
        answers.remove(0)
    }

    fn stored(cores: &mut Cores) -> i64 {
        let owner = cores.broker(0).owner(REPLY_TOPIC, 0);
        cores.broker(owner).shard.bounds(REPLY_TOPIC, 0).max
    }

    #[test]
    fn a_reply_reaches_its_requester_and_is_stored_before_the_responder_is_answered() {
        let mut cores = cores_with_requester(&[]);
        let opaque = post_reply(&mut cores, "asker", b"the answer");
        assert!(cores.answers_to(opaque).is_empty(), "the requester has not taken it yet");
        let push = pushed_to_client(&mut cores);
        assert_eq!((push.code, push.body.as_slice()), (code::PUSH_REPLY_MESSAGE_TO_CLIENT, &b"the answer"[..]));
        let ext = ["topic", "sysFlag", "flag", "bornTimestamp", "bornHost"].map(|key| push.ext(key).to_owned());
        assert_eq!(ext, [REPLY_TOPIC, "1", "3", "1699999999000", "127.0.0.1:40000"]);
        assert!(push.ext("properties").contains("CORRELATION_ID\u{1}c-1\u{2}PUSH_REPLY_TIME\u{1}17"), "{push:?}");
        cores.answer_as_client(REQUESTER, push.opaque, 0);
        let answer = answer(&mut cores, opaque);
        assert_eq!((answer.code, answer.ext("queueOffset"), answer.ext("MSG_REGION")), (0, "0", "DefaultRegion"));
        assert_eq!(answer.ext("msgId").len(), 32, "the id of the stored reply");
        assert_eq!(stored(&mut cores), 1);
    }

    #[test]
    fn without_storing_the_responder_is_answered_once_the_requester_has_the_reply() {
        let mut cores = cores_with_requester(&[("storeReplyMessageEnable", "false")]);
        let opaque = post_reply(&mut cores, "asker", b"x");
        let push = pushed_to_client(&mut cores);
        cores.answer_as_client(REQUESTER, push.opaque, 0);
        let answer = answer(&mut cores, opaque);
        assert_eq!((answer.code, answer.ext("msgId"), answer.ext("queueId")), (0, "0", "0"));
        assert_eq!(stored(&mut cores), 0);
    }

    #[test]
    fn a_reply_that_cannot_be_stored_still_counts_as_sent() {
        let mut cores = cores_with_requester(&[]);
        let owner = cores.broker(0).owner(REPLY_TOPIC, 0);
        let opaque = post_reply(&mut cores, "asker", b"x");
        let push = pushed_to_client(&mut cores);
        cores.set_disk(owner, Disk::Broken);
        cores.answer_as_client(REQUESTER, push.opaque, 0);
        assert_eq!(answer(&mut cores, opaque).code, 0);
        // And once the log is known to be broken.
        let opaque = post_reply(&mut cores, "asker", b"x");
        let push = pushed_to_client(&mut cores);
        cores.answer_as_client(REQUESTER, push.opaque, 0);
        let answer = answer(&mut cores, opaque);
        assert_eq!((answer.code, answer.ext("msgId")), (0, "0"));
    }

    #[test]
    fn a_requester_that_is_unknown_refuses_is_silent_or_leaves_fails_the_reply_which_is_stored_all_the_same() {
        let mut cores = cores_with_requester(&[]);
        let opaque = post_reply(&mut cores, "stranger", b"x");
        let unknown = answer(&mut cores, opaque);
        assert_eq!(
            (unknown.code, unknown.remark.as_str()),
            (1, "push reply message fail, channel of <stranger> not found.")
        );

        let opaque = post_reply(&mut cores, "asker", b"x");
        let push = pushed_to_client(&mut cores);
        cores.answer_as_client(RESPONDER, push.opaque, 0);
        assert!(cores.answers_to(opaque).is_empty(), "another client's answer says nothing");
        cores.answer_as_client(REQUESTER, push.opaque, 1);
        let refused = answer(&mut cores, opaque);
        assert_eq!((refused.code, refused.remark.as_str()), (1, "push reply message to askerfail."));

        let opaque = post_reply(&mut cores, "asker", b"x");
        cores.now_ms += ANSWER_MS_MAX - 1;
        cores.run();
        assert!(cores.answers_to(opaque).is_empty(), "there is still time");
        cores.now_ms += 1;
        cores.run();
        assert_eq!(answer(&mut cores, opaque).code, 1);

        let opaque = post_reply(&mut cores, "asker", b"x");
        cores.close_client(REQUESTER);
        assert_eq!(answer(&mut cores, opaque).code, 1);
        assert_eq!(stored(&mut cores), 4);
    }

    #[test]
    fn replies_the_log_has_no_room_for_wait_for_it() {
        let mut cores = Cores::new(1);
        let heartbeat = br#"{"clientID":"asker","consumerDataSet":[],"producerDataSet":[{"groupName":"p"}]}"#;
        assert_eq!(cores.call(0, code::HEART_BEAT, &[], heartbeat).code, 0);
        cores.set_disk(0, Disk::Stuck);
        let body = vec![b'x'; 1 << 20];
        let mut posted = Vec::new();
        for _ in 0..16 {
            posted.push(post_reply(&mut cores, "asker", &body));
            let push = pushed_to_client(&mut cores);
            cores.answer_as_client(0, push.opaque, 0);
        }
        let waiting = |cores: &mut Cores| cores.broker(0).system.as_ref().map_or(0, |system| system.pushes.bytes);
        assert!(waiting(&mut cores) > body.len(), "some wait: {}", waiting(&mut cores));
        cores.set_disk(0, Disk::Works);
        cores.run();
        for opaque in posted {
            let answer = answer(&mut cores, opaque);
            assert_eq!((answer.code, answer.ext("msgId").len()), (0, 32), "{}", answer.remark);
        }
        assert_eq!((stored(&mut cores), waiting(&mut cores)), (16, 0));
    }

    #[test]
    fn replies_that_requesters_do_not_take_are_bounded() {
        let mut cores = cores_with_requester(&[]);
        let body = vec![b'x'; 4 << 20];
        let posted: Vec<i32> = (0..17).map(|_| post_reply(&mut cores, "asker", &body)).collect();
        let refused: Vec<Sent> = posted.iter().flat_map(|opaque| cores.answers_to(*opaque)).collect();
        assert!(!refused.is_empty() && refused.len() < 4, "{}", refused.len());
        assert!(refused[0].remark.contains("67108864"), "{}", refused[0].remark);
    }
}
