//! RECALL_MESSAGE (370): a producer takes a timer back. Its handle does not say which queue the timer is for, so every core
//! that owns one of the topic's queues stores the recall and takes the timer away when its time has come.

use rmq_engine::{AppendError, LogPosition, MessageDraft, MessageKeys};
use rmq_net::codes::response;
use rmq_net::header::send::RecallHeader;
use rmq_net::message::properties;

use crate::broker::{Body, Broker, Handled, Outcome, Refusal};
use crate::gather;
use crate::letter::Request;
use crate::owed::{self, OwedQueue, owed_properties};
use crate::request::delay::RecallHandle;

const RECALL_TAG: &str = "_RECALL_TAG_";

pub fn handle(broker: &mut Broker, request: &Request<'_>) -> Outcome {
    let header = RecallHeader::decode(&request.frame)?;
    let topic = header.topic.to_cow();
    let handle = header.recall_handle.as_ref().map(|handle| handle.to_cow()).unwrap_or_default();
    let handle = check(broker, &topic, &handle)?;
    let producer_group = header.producer_group.as_ref().map(|group| group.to_cow().into_owned()).unwrap_or_default();
    let (to, born_host) = (request.reply_address(), request.origin.address);
    let unique_key = handle.unique_key.clone();
    let store = move |broker: &mut Broker| store_recall(broker, &handle, &producer_group, born_host);
    gather::change(broker, store, move |broker, outcomes| {
        if let Some(error) = outcomes.into_iter().find_map(Result::err) {
            let remark = format!("recall failed, execute error: {error}");
            return broker.refuse_later(to, &Refusal::new(response::SYSTEM_ERROR, remark));
        }
        broker.reply(to, response::SUCCESS, Body::None, |ext| ext.text("msgId", &unique_key));
    });
    Ok(Handled::Taken)
}

fn check(broker: &Broker, topic: &str, text: &str) -> Result<RecallHandle<'static>, Refusal> {
    let config = &broker.config;
    let refuse = |code, remark: String| Err(Refusal::new(code, remark));
    if !config.recall_message_enable {
        let remark = "recall failed, operation is forbidden (recallMessageEnable is false)";
        return refuse(response::NO_PERMISSION, remark.into());
    }
    let is_writable = config.broker_permission & rmq_net::body::topic::perm::WRITE != 0;
    let is_open = is_writable || config.allow_recall_when_broker_not_writeable;
    if broker.now_ms < config.start_accept_send_request_time_stamp || !is_open {
        return refuse(response::SERVICE_NOT_AVAILABLE, "recall failed, broker service not available".into());
    }
    if broker.topics.get(topic).is_none() {
        return refuse(response::TOPIC_NOT_EXIST, format!("recall failed, the topic[{topic}] not exist"));
    }
    let illegal = |remark: String| refuse(response::ILLEGAL_OPERATION, remark);
    let Some(handle) = RecallHandle::decode(text) else {
        return illegal("recall handle is invalid: not Base64 of `v1 topic broker timestamp key`".into());
    };
    if handle.topic != topic {
        return illegal(format!("recall failed, topic not match: the handle is of {}", handle.topic));
    }
    if handle.broker_name != config.broker_name {
        return illegal(format!(
            "recall failed, broker service not available: the handle is of {}",
            handle.broker_name
        ));
    }
    let left_ms = handle.timestamp_ms.saturating_sub(broker.now_ms);
    if left_ms <= 0 || left_ms >= config.timer_max_delay_sec * 1000 {
        return illegal(format!(
            "recall failed, timestamp invalid: {left_ms} ms from now, not between 0 and timerMaxDelaySec ({})",
            config.timer_max_delay_sec
        ));
    }
    if !config.timer_wheel_enable {
        return refuse(response::SYSTEM_ERROR, "recall failed, execute error: timerWheelEnable is false".into());
    }
    Ok(handle)
}

/// On a core that may have the timer.
fn store_recall(
    broker: &mut Broker,
    handle: &RecallHandle<'_>,
    producer_group: &str,
    born_host: std::net::SocketAddr,
) -> Result<LogPosition, AppendError> {
    let precision_ms = broker.config.timer_precision_ms;
    let out_ms = (handle.timestamp_ms - 1).div_euclid(precision_ms) * precision_ms;
    let queues =
        broker.topics.get(&handle.topic).map_or(0, |config| config.write_queue_nums.max(config.read_queue_nums));
    if !(0..queues).any(|queue_id| broker.owner(&handle.topic, queue_id as u32) == broker.core) {
        return Ok(broker.shard.durable());
    }
    let key = match broker.config.append_topic_for_timer_delete_key {
        true => format!("{}+{}", handle.topic, handle.unique_key),
        false => handle.unique_key.clone().into_owned(),
    };
    let mut text = Vec::new();
    for (name, value) in [
        ("TAGS", RECALL_TAG),
        ("TIMER_DEL_UNIQKEY", &key),
        ("UNIQ_KEY", &handle.unique_key),
        ("TIMER_DELIVER_MS", &handle.timestamp_ms.to_string()),
        ("BORN_TIMESTAMP", &broker.now_ms.to_string()),
        ("PGROUP", producer_group),
        ("TIMER_OUT_MS", &out_ms.to_string()),
    ] {
        properties::push(&mut text, name, value.as_bytes());
    }
    let text = owed_properties(&text, &[], out_ms, &handle.topic, 0);
    let draft = MessageDraft {
        topic: OwedQueue::Timer.topic(),
        queue_id: 0,
        flag: 0,
        sys_flag: 0,
        born_timestamp_ms: broker.now_ms,
        born_host,
        store_host: broker.store_host,
        reconsume_times: 0,
        prepared_transaction_offset: 0,
        body: b"0",
        properties: &text,
        keys: MessageKeys::of(&text),
    };
    owed::store(broker, OwedQueue::Timer, &draft, None).map(|placed| placed.end)
}
