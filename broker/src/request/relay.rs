//! What tools ask a consumer through the broker: GET_CONSUMER_RUNNING_INFO (307), CONSUME_MESSAGE_DIRECTLY (309), and
//! INVOKE_BROKER_TO_GET_CONSUMER_STATUS (223), which is GET_CONSUMER_STATUS_FROM_CLIENT (221) to every consumer.
//!
//! On the system core, which knows the consumers. At most [`RELAYS_MAX`] questions wait for consumers.

use std::cell::RefCell;
use std::rc::Rc;

use rmq_engine::{PhysicalOffset, ReadRecord};
use rmq_net::body::{self, ConsumerStatus};
use rmq_net::codes::{request as code, response};
use rmq_net::connection::ConnectionId;
use rmq_net::frame::Frame;
use rmq_net::header::group::{ConsumeDirectlyHeader, RunningInfoHeader};
use rmq_net::header::offset::ConsumerStatusHeader;
use rmq_net::message::id::OffsetMessageId;
use rmq_net::reply::ExtWriter;

use crate::ask::{ClientAnswer, ClientRequest, QUESTION_BYTES, ask_client};
use crate::broker::{Body, Broker, Handled, Outcome, Refusal};
use crate::gather::{self, Asked};
use crate::letter::{ReplyAddress, Request};
use crate::request::{Job, message, read_failed};

/// Tools are few; one that asks for more than this at once is told so.
pub(crate) const RELAYS_MAX: usize = 4096;
pub(crate) const RELAYED_BYTES_MAX: usize = RELAYS_MAX * QUESTION_BYTES;
/// How long a consumer may take, as in RocketMQ.
const CALL_MS_MAX: i64 = 10_000;
const STATUS_MS_MAX: i64 = 5_000;
/// V3_1_8_SNAPSHOT: the first clients that know 307 and 309.
const CALL_VERSION_MIN: i32 = 62;
/// V3_0_7_SNAPSHOT: the first clients that know 221.
const STATUS_VERSION_MIN: i32 = 28;

fn failed(remark: String) -> Refusal {
    Refusal::new(response::SYSTEM_ERROR, remark)
}

/// Takes room for as many questions.
fn take_room(broker: &mut Broker, count: usize) -> Result<(), Refusal> {
    let Some(system) = &mut broker.system else { return Ok(()) };
    if system.relays + count > RELAYS_MAX {
        return Err(failed(format!(
            "{} questions wait for consumers; this broker asks at most {RELAYS_MAX} at once",
            system.relays
        )));
    }
    system.relays += count;
    Ok(())
}

fn give_room_back(broker: &mut Broker) {
    if let Some(system) = &mut broker.system {
        system.relays -= 1;
    }
}

pub fn running_info(broker: &mut Broker, request: &Request<'_>) -> Outcome {
    let header = RunningInfoHeader::decode(&request.frame)?;
    let (group, client_id) = (header.consumer_group.to_cow(), header.client_id.to_cow());
    let call = Call { to: request.reply_address(), code: request.frame.code, group: &group, client_id: &client_id };
    call_consumer(broker, &call, request.frame.body, |ext| header.encode(ext))?;
    Ok(Handled::Taken)
}

/// A request of a tool's to one consumer.
struct Call<'a> {
    to: ReplyAddress,
    code: i32,
    group: &'a str,
    client_id: &'a str,
}

/// Asks the consumer and answers the tool with what it says.
fn call_consumer(
    broker: &mut Broker,
    call: &Call<'_>,
    body: &[u8],
    ext: impl FnOnce(&mut ExtWriter<'_>),
) -> Result<(), Refusal> {
    let Call { to, code, group, client_id } = *call;
    let system = broker.system.as_ref();
    let found = system.and_then(|system| system.clients.find_consumer(group, client_id));
    let Some((connection, client)) = found else {
        return Err(failed(format!("The Consumer <{group}> <{client_id}> not online")));
    };
    if client.version < CALL_VERSION_MIN {
        let version = client.version;
        return Err(failed(format!(
            "The Consumer <{client_id}> Version <{version}> too low to finish, please upgrade it to V3_1_8_SNAPSHOT"
        )));
    }
    take_room(broker, 1)?;
    let question = ClientRequest { client: connection, code, body, wait_ms: CALL_MS_MAX };
    let (group, client_id) = (group.to_owned(), client_id.to_owned());
    ask_client(broker, &question, ext, move |broker, answer| {
        give_room_back(broker);
        let refusal = match answer {
            ClientAnswer::Said(frame) => return pass_on(broker, to, frame),
            ClientAnswer::Late => Refusal::new(
                response::CONSUME_MSG_TIMEOUT,
                format!("consumer <{group}> <{client_id}> Timeout: no answer within {CALL_MS_MAX} ms"),
            ),
            ClientAnswer::Gone => {
                failed(format!("invoke consumer <{group}> <{client_id}> Exception: its connection was closed"))
            }
        };
        broker.refuse_later(to, &refusal);
    });
    Ok(())
}

fn pass_on(broker: &mut Broker, to: ReplyAddress, answer: &Frame<'_>) {
    let remark = answer.remark.as_ref().map(|text| text.to_cow());
    let body = if answer.body.is_empty() { Body::None } else { Body::Bytes(answer.body) };
    broker.reply_with_remark(to, answer.code, remark.as_deref(), body, |_| ());
}

/// Reads the message on its core, then lets the consumer have it.
pub fn consume_directly(broker: &mut Broker, request: &Request<'_>) -> Outcome {
    let header = ConsumeDirectlyHeader::decode(&request.frame)?;
    let id = header.msg_id.as_ref().map(|text| text.to_cow()).unwrap_or_default();
    let Some(id) = OffsetMessageId::parse(&id) else {
        return Err(failed(format!("msgId [{id}] is not the id of a stored message (its offset id)")));
    };
    let at = message::locate(broker, id.physical_offset)?;
    let (to, frame) = (request.reply_address(), request.bytes.to_vec());
    let read = move |broker: &mut Broker, asked: Asked| read(broker, at, asked);
    gather::ask_core(broker, usize::from(at.shard()), read, move |broker, found: Result<Vec<u8>, Refusal>| {
        if let Err(refusal) = found.and_then(|stored| hand_over(broker, to, &frame, &stored)) {
            broker.refuse_later(to, &refusal);
        }
    });
    Ok(Handled::Taken)
}

fn read(broker: &mut Broker, at: PhysicalOffset, asked: Asked) {
    let ticket = broker.new_ticket();
    let found = match broker.shard.read_record(at, ticket) {
        ReadRecord::Pending => {
            let again = move |broker: &mut Broker| read(broker, at, asked);
            return broker.keep_job(ticket, Job::Look(Box::new(again)));
        }
        ReadRecord::Found(slice) => Ok(slice.as_ref().to_vec()),
        ReadRecord::NotFound => Err(message::not_found(at.to_wire())),
        ReadRecord::Failed(error) => Err(read_failed(&error)),
    };
    asked.answer(broker, found);
}

fn hand_over(broker: &mut Broker, to: ReplyAddress, frame: &[u8], stored: &[u8]) -> Result<(), Refusal> {
    // Both were decoded when the request came.
    let Ok(frame) = Frame::decode(frame) else { return Ok(()) };
    let header = ConsumeDirectlyHeader::decode(&frame)?;
    let group = header.consumer_group.to_cow();
    let client_id = header.client_id.as_ref().map(|text| text.to_cow()).unwrap_or_default();
    let topic = header.topic.as_ref().map(|text| text.to_cow()).unwrap_or_default();
    let topic_sys_flag = broker.topics.get(&topic).map(|config| config.topic_sys_flag).or(header.topic_sys_flag);
    let group_sys_flag = broker.groups.get(&group).map(|config| config.group_sys_flag).or(header.group_sys_flag);
    let broker_name = broker.config.broker_name.clone();
    let call = Call { to, code: frame.code, group: &group, client_id: &client_id };
    let told = ConsumeDirectlyHeader { broker_name: None, topic_sys_flag, group_sys_flag, ..header.clone() };
    call_consumer(broker, &call, stored, |ext| {
        ext.text("brokerName", &broker_name);
        told.encode(ext);
    })
}

/// The consumers' answers to one 223.
struct Statuses {
    missing: usize,
    status: ConsumerStatus,
}

pub fn consumer_status(broker: &mut Broker, request: &Request<'_>) -> Outcome {
    let header = ConsumerStatusHeader::decode(&request.frame)?;
    let (topic, group) = (header.topic.to_cow(), header.group.to_cow());
    let wanted = header.client_addr.as_ref().map(|text| text.to_cow()).filter(|id| !id.trim().is_empty());
    let members = broker.system.as_ref().into_iter().flat_map(|system| system.clients.consumers(&group));
    let members: Vec<_> =
        members.map(|(connection, client)| (connection, client.client_id.clone(), client.version)).collect();
    if members.is_empty() {
        return Err(failed(format!("No Any Consumer online in the consumer group: [{group}]")));
    }
    if let Some((_, _, version)) = members.iter().find(|(_, _, version)| *version < STATUS_VERSION_MIN) {
        return Err(failed(format!("the client does not support this feature. version={version}")));
    }
    let asked = members.into_iter().filter(|(_, id, _)| wanted.as_deref().is_none_or(|wanted| wanted == &**id));
    let asked: Vec<(ConnectionId, String)> = asked.map(|(connection, id, _)| (connection, id.to_string())).collect();
    take_room(broker, asked.len())?;
    let to = request.reply_address();
    let statuses = Rc::new(RefCell::new(Statuses { missing: asked.len(), status: ConsumerStatus::default() }));
    if asked.is_empty() {
        broker.reply_json(to, &statuses.borrow().status.encode());
    }
    for (client, client_id) in asked {
        let question =
            ClientRequest { client, code: code::GET_CONSUMER_STATUS_FROM_CLIENT, body: &[], wait_ms: STATUS_MS_MAX };
        let told = ConsumerStatusHeader { client_addr: None, ..header.clone() };
        let statuses = statuses.clone();
        ask_client(
            broker,
            &question,
            |ext| told.encode(ext),
            move |broker, answer| {
                give_room_back(broker);
                let mut statuses = statuses.borrow_mut();
                // As in RocketMQ, a consumer that does not say where it is is left out.
                if let ClientAnswer::Said(frame) = answer
                    && frame.code == response::SUCCESS
                    && let Ok(status) = body::decode::<ConsumerStatus>(frame.body)
                {
                    statuses.status.consumer_table.insert(client_id, status.message_queue_table);
                }
                statuses.missing -= 1;
                if statuses.missing == 0 {
                    broker.reply_json(to, &statuses.status.encode());
                }
            },
        );
    }
    tracing::debug!(%topic, %group, "asked consumers where they are");
    Ok(Handled::Taken)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{Cores, Sent};

    const CONSUMER: usize = 1;
    const TOOL: usize = 0;

    fn cores_with_consumer() -> Cores {
        let mut cores = Cores::new(2);
        cores.create_group(r#"{"groupName":"g","groupSysFlag":5}"#);
        let heartbeat = br#"{"clientID":"c","consumerDataSet":[{"groupName":"g"}],"producerDataSet":[]}"#;
        assert_eq!(cores.call(CONSUMER, code::HEART_BEAT, &[], heartbeat).code, 0);
        cores.requests_to_clients();
        cores
    }

    fn asked_of_client(cores: &mut Cores) -> Sent {
        let mut asked = cores.requests_to_clients();
        assert_eq!(asked.len(), 1, "{asked:?}");
        asked.remove(0)
    }

    fn answer(cores: &mut Cores, opaque: i32) -> Sent {
        let mut answers = cores.answers_to(opaque);
        assert_eq!(answers.len(), 1, "the tool gets one answer: {answers:?}");
        answers.remove(0)
    }

    fn post_running_info(cores: &mut Cores, client_id: &str) -> i32 {
        let ext = [("clientId", client_id), ("consumerGroup", "g"), ("jstackEnable", "true")];
        cores.post(TOOL, code::GET_CONSUMER_RUNNING_INFO, &ext, b"")
    }

    #[test]
    fn a_tool_gets_what_the_consumer_says_as_it_says_it() {
        let mut cores = cores_with_consumer();
        let opaque = post_running_info(&mut cores, "c");
        let asked = asked_of_client(&mut cores);
        assert_eq!(asked.code, code::GET_CONSUMER_RUNNING_INFO);
        assert_eq!(
            ["consumerGroup", "clientId", "jstackEnable"].map(|key| asked.ext(key).to_owned()),
            ["g", "c", "true"]
        );
        cores.answer_as_client_with(CONSUMER, asked.opaque, 0, b"{what it says}");
        let told = answer(&mut cores, opaque);
        assert_eq!((told.code, told.body.as_slice()), (0, &b"{what it says}"[..]));
    }

    #[test]
    fn a_consumer_that_is_unknown_refuses_is_silent_or_leaves_is_told_of() {
        let mut cores = cores_with_consumer();
        let opaque = post_running_info(&mut cores, "stranger");
        assert_eq!(answer(&mut cores, opaque).remark, "The Consumer <g> <stranger> not online");

        let opaque = post_running_info(&mut cores, "c");
        let asked = asked_of_client(&mut cores);
        cores.answer_as_client(CONSUMER, asked.opaque, response::SYSTEM_ERROR);
        assert_eq!(answer(&mut cores, opaque).code, response::SYSTEM_ERROR);

        let opaque = post_running_info(&mut cores, "c");
        cores.now_ms += CALL_MS_MAX - 1;
        cores.run();
        assert!(cores.answers_to(opaque).is_empty(), "there is still time");
        cores.now_ms += 1;
        cores.run();
        assert_eq!(answer(&mut cores, opaque).code, response::CONSUME_MSG_TIMEOUT);

        let opaque = post_running_info(&mut cores, "c");
        cores.close_client(CONSUMER);
        let gone = answer(&mut cores, opaque);
        assert_eq!((gone.code, gone.remark.contains("closed")), (response::SYSTEM_ERROR, true), "{}", gone.remark);
        assert_eq!(cores.broker(0).system.as_ref().map(|system| system.relays), Some(0));
    }

    #[test]
    fn a_consumer_gets_the_stored_message_to_consume_directly() {
        let mut cores = cores_with_consumer();
        for queue_id in 0..2 {
            let sent = cores.send(TOOL, "T", queue_id, &[("TAGS", "A")]);
            let id = sent.ext("msgId").to_owned();
            let ext = [("clientId", "c"), ("consumerGroup", "g"), ("msgId", id.as_str()), ("topic", "T")];
            let opaque = cores.post(TOOL, code::CONSUME_MESSAGE_DIRECTLY, &ext, b"");
            let asked = asked_of_client(&mut cores);
            assert_eq!(
                [asked.ext("brokerName"), asked.ext("topicSysFlag"), asked.ext("groupSysFlag")],
                ["broker-a", "0", "5"]
            );
            assert!(asked.body.windows(4).any(|window| window == b"body"));
            cores.answer_as_client_with(CONSUMER, asked.opaque, 0, b"{}");
            assert_eq!(answer(&mut cores, opaque).code, 0);
        }
        for id in ["", "nonsense", "7F00000100002A9F0000000000FFFF00"] {
            let ext = [("clientId", "c"), ("consumerGroup", "g"), ("msgId", id), ("topic", "T")];
            assert_eq!(cores.call(TOOL, code::CONSUME_MESSAGE_DIRECTLY, &ext, b"").code, response::SYSTEM_ERROR);
        }
    }

    #[test]
    fn the_status_of_a_group_is_what_its_consumers_say_in_time() {
        let mut cores = cores_with_consumer();
        let offline =
            cores.call(TOOL, code::INVOKE_BROKER_TO_GET_CONSUMER_STATUS, &[("group", "x"), ("topic", "T")], b"");
        assert_eq!(offline.remark, "No Any Consumer online in the consumer group: [x]");
        let ext = [("group", "g"), ("topic", "T")];
        let opaque = cores.post(TOOL, code::INVOKE_BROKER_TO_GET_CONSUMER_STATUS, &ext, b"");
        let asked = asked_of_client(&mut cores);
        assert_eq!(
            (asked.code, asked.ext("group"), asked.ext("topic")),
            (code::GET_CONSUMER_STATUS_FROM_CLIENT, "g", "T")
        );
        let status = br#"{"messageQueueTable":{{"brokerName":"b","queueId":1,"topic":"T"}:6}}"#;
        cores.answer_as_client_with(CONSUMER, asked.opaque, 0, status);
        let told = String::from_utf8(answer(&mut cores, opaque).body).expect("text");
        assert_eq!(
            told,
            r#"{"consumerTable":{"c":{{"brokerName":"b","queueId":1,"topic":"T"}:6}},"messageQueueTable":{}}"#
        );
        let opaque = cores.post(TOOL, code::INVOKE_BROKER_TO_GET_CONSUMER_STATUS, &ext, b"");
        cores.now_ms += STATUS_MS_MAX;
        cores.run();
        assert_eq!(answer(&mut cores, opaque).body, br#"{"consumerTable":{},"messageQueueTable":{}}"#);
        let other = [("clientAddr", "other"), ("group", "g"), ("topic", "T")];
        assert_eq!(cores.call(TOOL, code::INVOKE_BROKER_TO_GET_CONSUMER_STATUS, &other, b"").code, 0);
    }
}
