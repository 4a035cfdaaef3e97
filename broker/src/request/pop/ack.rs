//! ACK_MESSAGE (200051), BATCH_ACK_MESSAGE (200151) and CHANGE_MESSAGE_INVISIBLETIME (200053): the end of a message's flight,
//! or another one.
//!
//! A receipt names a delivery by the time of its pop. One that is over, because its time was, or of a message that is
//! acknowledged already, changes nothing; as in RocketMQ that is no error.

use rmq_engine::in_flight::{Take, TakenHow};
use rmq_engine::{AppendError, Done, LogPosition};
use rmq_net::body::{BatchAck, BatchAckBody};
use rmq_net::codes::response;
use rmq_net::header::pop::{AckHeader, ChangeInvisibleHeader};
use rmq_net::message::receipt::{Mark, ORDER_REVIVE_QUEUE, Receipt, ReceiptError};

use super::{check_invisible, wait};
use crate::broker::{After, Body, Broker, Handled, Outcome, Refusal};
use crate::gather;
use crate::letter::Request;
use crate::request::client::parse;
use crate::request::topic_change::append_refused;

/// What an acknowledgement is of that is no delivery in flight.
const OVER: &str =
    "the receipt's delivery is over: the message was acknowledged, or its invisible time ended before; nothing changed";

fn refuse_receipt(error: &ReceiptError) -> Refusal {
    Refusal::new(response::SYSTEM_ERROR, error.to_string())
}

/// The queue a request names, if the topic has it.
fn check_queue(broker: &Broker, request: &Request<'_>, topic: &str, queue_id: i32) -> Result<u32, Refusal> {
    let Some(config) = broker.topics.get(topic) else {
        return Err(Refusal::new(response::TOPIC_NOT_EXIST, format!("topic[{topic}] not exist, apply first please!")));
    };
    u32::try_from(queue_id).ok().filter(|_| queue_id < config.read_queue_nums).ok_or_else(|| {
        let remark = format!(
            "queueId[{queue_id}] is illegal, topic:[{topic}] topicConfig.readQueueNums:[{}] consumer:[{}]",
            config.read_queue_nums, request.origin.address
        );
        Refusal::new(response::MESSAGE_ILLEGAL, remark)
    })
}

/// `is_end_allowed`: RocketMQ lets the offset behind the last message pass in an acknowledgement.
fn check_offset(broker: &Broker, topic: &str, queue_id: u32, offset: i64, is_end_allowed: bool) -> Result<(), Refusal> {
    let bounds = broker.shard.bounds(topic, queue_id);
    if bounds.min <= offset && (offset < bounds.max || is_end_allowed && offset == bounds.max) {
        return Ok(());
    }
    let (min, max) = (bounds.min, bounds.max);
    let remark = format!("offset is illegal, key:{topic}@{queue_id}, commit:{offset}, store:{min}~{max}");
    Err(Refusal::new(response::NO_MESSAGE, remark))
}

/// What became of an acknowledgement of one message.
enum Acked {
    /// True once the log is durable up to here.
    At(LogPosition),
    Over,
    /// In order: the message was never given.
    NeverGiven,
}

fn ack_one(
    broker: &mut Broker,
    group: &str,
    topic: &str,
    queue_id: u32,
    offset: i64,
    receipt_pop_time_ms: i64,
    is_in_order: bool,
) -> Result<Acked, AppendError> {
    let in_flight = broker.shard.in_flight(group, topic, queue_id);
    let taken = in_flight.and_then(|in_flight| in_flight.get(offset));
    match taken {
        Some(taken) if taken.taken_ms == receipt_pop_time_ms => {
            let end = broker.shard.mark_done(&Done::one(group, topic, queue_id, offset))?;
            wait::stir(broker, group, topic);
            Ok(Acked::At(end))
        }
        None if is_in_order && in_flight.is_some() && !broker.shard.is_done(group, topic, queue_id, offset) => {
            Ok(Acked::NeverGiven)
        }
        _ => Ok(Acked::Over),
    }
}

pub fn ack(broker: &mut Broker, request: &Request<'_>) -> Outcome {
    let header = AckHeader::decode(&request.frame)?;
    let (group, topic, text) = (header.consumer_group.to_cow(), header.topic.to_cow(), header.extra_info.to_cow());
    let queue_id = check_queue(broker, request, &topic, header.queue_id)?;
    let owner = broker.owner(&topic, queue_id);
    if owner != broker.core {
        return broker.forward(owner, request, request.origin);
    }
    check_offset(broker, &topic, queue_id, header.offset, true)?;
    let receipt = Receipt::parse(&text).map_err(|error| refuse_receipt(&error))?;
    let (pop_time_ms, is_in_order) = (receipt.pop_time_ms, receipt.is_in_order());
    let acked = ack_one(broker, &group, &topic, queue_id, header.offset, pop_time_ms, is_in_order);
    let to = request.reply_address();
    match acked {
        Ok(Acked::At(end)) => broker.after(end, After::Reply { to, code: response::SUCCESS }),
        Ok(Acked::Over) => {
            // What ended the delivery may not be durable yet.
            let work = Box::new(move |broker: &mut Broker| {
                broker.reply_with_remark(to, response::SUCCESS, Some(OVER), Body::None, |_| ());
            });
            broker.after(broker.shard.appended(), After::Answer { to, work });
        }
        Ok(Acked::NeverGiven) => {
            let offset = header.offset;
            let remark =
                format!("offset is illegal: message {offset} of {topic}@{queue_id} was not given to group {group}");
            return Err(Refusal::new(response::MESSAGE_ILLEGAL, remark));
        }
        Err(error) => return append_refused(broker, &error),
    }
    Ok(Handled::Taken)
}

/// Acknowledgements of one queue, as a batch names them.
struct QueueAcks {
    group: String,
    topic: String,
    queue_id: u32,
    start_offset: i64,
    bits: Vec<u8>,
    pop_time_ms: i64,
}

impl QueueAcks {
    /// `None`: nothing this broker could know.
    fn of(ack: &BatchAck) -> Result<Self, Refusal> {
        let refused = |part: &str, value: &str| {
            let value: String = value.chars().take(64).collect();
            Refusal::new(response::SYSTEM_ERROR, format!("the acknowledgement's {part} is not one: {value}"))
        };
        let mark = Mark::parse(&ack.retry).ok_or_else(|| refused("retry mark", &ack.retry))?;
        let queue_id = u32::try_from(ack.queue_id).map_err(|_| refused("queue id", &ack.queue_id.to_string()))?;
        Ok(Self {
            group: ack.consumer_group.clone(),
            topic: mark.topic(&ack.consumer_group, &ack.topic),
            queue_id,
            start_offset: ack.start_offset,
            bits: ack.bit_set().ok_or_else(|| refused("bit set", &ack.bits))?,
            pop_time_ms: ack.pop_time,
        })
    }

    /// Marks those that are in flight done, with one record.
    fn carry_out(&self, broker: &mut Broker) -> Result<LogPosition, AppendError> {
        let Self { group, topic, queue_id, start_offset, bits, pop_time_ms } = self;
        let mut done = vec![0; bits.len()];
        if let Some(in_flight) = broker.shard.in_flight(group, topic, *queue_id) {
            for n in (0..bits.len() * 8).filter(|n| bits[n / 8] >> (n % 8) & 1 == 1) {
                let taken = start_offset.checked_add(n as i64).and_then(|offset| in_flight.get(offset));
                if taken.is_some_and(|taken| taken.taken_ms == *pop_time_ms) {
                    done[n / 8] |= 1 << (n % 8);
                }
            }
        }
        let filled = done.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1);
        if filled == 0 {
            // What ended these deliveries may not be durable yet.
            return Ok(broker.shard.appended());
        }
        let done = Done { group, topic, queue_id: *queue_id, first: *start_offset, bits: &done[..filled] };
        let end = broker.shard.mark_done(&done)?;
        wait::stir(broker, group, topic);
        Ok(end)
    }
}

pub fn ack_batch(broker: &mut Broker, request: &Request<'_>) -> Outcome {
    let nothing = || Refusal::new(response::NO_MESSAGE, "the body names no acknowledgement");
    if request.frame.body.is_empty() {
        return Err(nothing());
    }
    let body: BatchAckBody = parse(request.frame.body)?;
    let acks: Vec<_> = body.acks.iter().map(QueueAcks::of).collect::<Result<_, _>>()?;
    let Some(first) = acks.first() else { return Err(nothing()) };
    let to = request.reply_address();
    let owner = broker.owner(&first.topic, first.queue_id);
    if acks.iter().any(|ack| broker.owner(&ack.topic, ack.queue_id) != owner) {
        let change = move |broker: &mut Broker| {
            let mut end = broker.shard.appended();
            for ack in &acks {
                if broker.owner(&ack.topic, ack.queue_id) == broker.core {
                    end = ack.carry_out(broker)?;
                }
            }
            Ok(end)
        };
        gather::change(broker, change, move |broker, made| match made.into_iter().find_map(Result::err) {
            None => broker.reply_done(to),
            Some(error) => {
                let remark = format!("not all was acknowledged: {error}; acknowledge again");
                broker.refuse_later(to, &Refusal::new(response::SYSTEM_ERROR, remark));
            }
        });
        return Ok(Handled::Taken);
    }
    if owner != broker.core {
        return broker.forward(owner, request, request.origin);
    }
    let mut end = broker.shard.appended();
    for ack in &acks {
        match ack.carry_out(broker) {
            Ok(position) => end = end.max(position),
            Err(error) => return append_refused(broker, &error),
        }
    }
    broker.after(end, After::Reply { to, code: response::SUCCESS });
    Ok(Handled::Taken)
}

pub fn change_invisible(broker: &mut Broker, request: &Request<'_>) -> Outcome {
    let header = ChangeInvisibleHeader::decode(&request.frame)?;
    let (group, topic, text) = (header.consumer_group.to_cow(), header.topic.to_cow(), header.extra_info.to_cow());
    let queue_id = check_queue(broker, request, &topic, header.queue_id)?;
    let owner = broker.owner(&topic, queue_id);
    if owner != broker.core {
        return broker.forward(owner, request, request.origin);
    }
    check_offset(broker, &topic, queue_id, header.offset, false)?;
    let receipt = Receipt::parse(&text).map_err(|error| refuse_receipt(&error))?;
    // RocketMQ's store does not take the checkpoint then.
    check_invisible(header.invisible_time).map_err(|remark| Refusal::new(response::SYSTEM_ERROR, remark))?;
    let until_ms = broker.now_ms.saturating_add(header.invisible_time.max(0));
    let in_flight = broker.shard.in_flight(&group, &topic, queue_id);
    let attempt: Box<str> = in_flight.map_or_else(Box::default, |in_flight| in_flight.attempt().into());
    let taken = in_flight.and_then(|in_flight| in_flight.get(header.offset)).copied();
    let taken = taken.filter(|taken| taken.taken_ms == receipt.pop_time_ms);
    let is_in_order = taken.map_or(receipt.is_in_order(), |taken| taken.how == TakenHow::InOrder);
    let (taken_ms, how) = match (is_in_order, header.suspend) {
        (true, _) => (receipt.pop_time_ms, TakenHow::InOrder),
        (false, true) => (broker.now_ms, TakenHow::Uncounted),
        (false, false) => (broker.now_ms, TakenHow::Counted),
    };
    let (first, next) = (header.offset, header.offset + 1);
    let attempt = if is_in_order { &*attempt } else { "" };
    let take =
        Take { group: &group, topic: &topic, queue_id, first, next, bits: &[1], taken_ms, until_ms, how, attempt };
    let end = match taken {
        Some(_) => broker.shard.take(&take),
        None => Ok(broker.shard.appended()),
    };
    let end = match end {
        Ok(end) => end,
        Err(error) => return append_refused(broker, &error),
    };
    let to = request.reply_address();
    let remark = taken.is_none().then_some(OVER);
    let invisible_ms = if is_in_order { until_ms - taken_ms } else { header.invisible_time };
    let revive_queue_id = if is_in_order { ORDER_REVIVE_QUEUE } else { receipt.revive_queue_id };
    let work = Box::new(move |broker: &mut Broker| {
        broker.reply_with_remark(to, response::SUCCESS, remark, Body::None, |ext| {
            ext.int("invisibleTime", invisible_ms);
            ext.int("popTime", taken_ms);
            ext.int("reviveQid", i64::from(revive_queue_id));
        });
    });
    broker.after(end, After::Answer { to, work });
    Ok(Handled::Taken)
}
