//! POP_MESSAGE (200050), PEEK_MESSAGE (200052), NOTIFICATION (200054) and POLLING_INFO (200055): messages of any queue of a
//! topic, hidden from others for a while.
//!
//! Which messages a group has taken and not acknowledged is state of the queue's shard ([`rmq_engine::in_flight`]). A pop of
//! any queue goes from core to core until one has something:
//!
//! ```text
//!  frame --> order --> a core by chance: looks into its own queues of the topic and of the group's retry topic
//!                        found: a Taken record; the answer leaves once that is durable
//!                        nothing: the next core; behind the last one it waits at home, the core of queue 0
//!  home, while an order waits: asks every core to watch. A core that has something, now or later, says so once;
//!                        home sends it the first order, and asks it to watch again while others wait
//! ```

pub mod ack;
pub mod look;
pub mod revive;
pub mod wait;

use std::cmp::Ordering;
use std::sync::Arc;

use rmq_engine::TagFilter;
use rmq_net::body::topic::perm;
use rmq_net::codes::response;
use rmq_net::connection::ConnectionId;
use rmq_net::header::pop::{NotificationHeader, PeekHeader, PollingInfoHeader, PopHeader};
use rmq_net::message::receipt::Mark;

use crate::broker::{Body, Broker, Handled, Outcome, Refusal};
use crate::letter::{Letter, ReplyAddress, Request};
use crate::poll::HOLD_MS_MAX;
use crate::request::topic_change;
use crate::state::attributes::{MESSAGE_TYPE, MESSAGE_TYPE_PRIORITY, PRIORITY_FACTOR};
use crate::state::groups::GroupLookup;
use crate::state::subscription::{self, ExpressionType};

/// Most messages of one pop, as in RocketMQ.
const COUNT_MAX: i32 = 32;
/// RocketMQ: a request that is late by more than this is not looked at, its client has given it up.
const LATE_MS_MAX: i64 = 500;
/// RocketMQ answers a held request this much before its client expects it.
const ANSWER_EARLY_MS: i64 = 50;
/// Longest time messages can be hidden. RocketMQ: `timerMaxDelaySec`, because the end of the time is a timer message.
pub const INVISIBLE_MS_MAX: i64 = 3 * 86_400_000;

/// What an order is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    Pop {
        invisible_ms: i64,
        /// A group without offset begins with the last message.
        begins_at_end: bool,
    },
    Peek,
    Notify,
}

/// A request on its way over the cores, without its frame.
pub struct PopOrder {
    pub to: ReplyAddress,
    pub group: Arc<str>,
    pub topic: Arc<str>,
    /// `None`: any.
    pub queue_id: Option<u32>,
    /// The name of the attempt, if the messages are wanted in order; it may be empty.
    pub attempt: Option<Box<str>>,
    pub purpose: Purpose,
    count_max: usize,
    filter: TagFilter,
    /// Until when the answer may be held.
    pub hold_until_ms: i64,
    /// How many cores are to be asked after the one that has it.
    cores_left: usize,
    /// Before that, the topic's queues one after the other, if they are priorities.
    levels: Option<Levels>,
    /// What came back is looked for before all else.
    begins_with_retries: bool,
}

/// The queues of a topic by priority.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Levels {
    /// Which one is next.
    next: u32,
    last: u32,
}

impl Levels {
    /// `None` if the pop takes queues by chance.
    fn of(broker: &mut Broker, order: &PopOrder) -> Option<Self> {
        let topic = broker.topics.get(&order.topic)?;
        let is_any = order.queue_id.is_none() && order.attempt.is_none();
        let has_levels = topic.attributes.get(MESSAGE_TYPE).is_some_and(|kind| kind == MESSAGE_TYPE_PRIORITY);
        let last = u32::try_from(topic.read_queue_nums - 1).ok()?;
        if !is_any || !has_levels || !matches!(order.purpose, Purpose::Pop { .. }) {
            return None;
        }
        let group = broker.groups.get(&order.group);
        let factor = group.and_then(|group| group.attributes.get(PRIORITY_FACTOR)).and_then(|text| text.parse().ok());
        let levels = match broker.config.priority_order_asc {
            true => Self { next: last, last: 0 },
            false => Self { next: 0, last },
        };
        (broker.next_random() % 100 < factor.unwrap_or(100)).then_some(levels)
    }

    fn following(self) -> Option<Self> {
        let next = match self.next.cmp(&self.last) {
            Ordering::Less => self.next + 1,
            Ordering::Equal => return None,
            Ordering::Greater => self.next - 1,
        };
        Some(Self { next, ..self })
    }
}

/// What cores send each other about pops.
pub enum PopLetter {
    /// Look whether there is something for the order.
    Look(PopOrder),
    /// No core has anything: let it wait.
    Wait(PopOrder),
    /// Say once when there is something to pop.
    Watch(Arc<wait::WaitKey>),
    /// There is something to pop.
    Arrived(Arc<wait::WaitKey>),
    /// The connection is closed.
    Gone(ConnectionId),
}

/// The topics a group's messages of `topic` are stored in again when their time is over, the one in use first.
pub fn retry_topics(broker: &Broker, group: &str, topic: &str) -> impl Iterator<Item = String> {
    let config = &broker.config;
    let marks = match (config.enable_retry_topic_v2, config.retrieve_message_from_pop_retry_topic_v1) {
        (false, _) => [Some(Mark::RetryV1), None],
        (true, true) => [Some(Mark::RetryV2), Some(Mark::RetryV1)],
        (true, false) => [Some(Mark::RetryV2), None],
    };
    marks.into_iter().flatten().map(move |mark| mark.topic(group, topic))
}

pub fn pop(broker: &mut Broker, request: &Request<'_>) -> Outcome {
    let header = PopHeader::decode(&request.frame)?;
    let born_ms = header.born_time.filter(|born_ms| *born_ms != 0).unwrap_or(broker.now_ms);
    if broker.now_ms.saturating_sub(born_ms).saturating_sub(header.poll_time) > LATE_MS_MAX {
        let remark = format!("the broker[{}] pop message is timeout too much", broker.config.broker_ip1);
        return Err(Refusal::new(response::POLLING_TIMEOUT, remark));
    }
    check_readable(broker, "pop")?;
    if header.max_msg_nums > COUNT_MAX {
        let ip = &broker.config.broker_ip1;
        let remark = format!("the broker[{ip}] pop message's num is greater than {COUNT_MAX}");
        return Err(Refusal::new(response::INVALID_PARAMETER, remark));
    }
    if !broker.topics.settings().timer_wheel_enable {
        let ip = &broker.config.broker_ip1;
        let remark = format!("the broker[{ip}] pop message is forbidden because timerWheelEnable is false");
        return Err(Refusal::new(response::SYSTEM_ERROR, remark));
    }
    let (group, topic) = (header.consumer_group.to_cow(), header.topic.to_cow());
    if let Some(outcome) = check_names(broker, request, &group, &topic, header.queue_id)? {
        return Ok(outcome);
    }
    check_invisible(header.invisible_time).map_err(|remark| Refusal::new(response::INVALID_PARAMETER, remark))?;
    let expression = header.exp.as_ref().map(|text| text.to_cow());
    let expression_type = header.exp_type.as_ref().map(|text| text.to_cow());
    let attempt = header.order.then(|| header.attempt_id.as_ref().map(|text| text.to_cow()).unwrap_or_default().into());
    let order = PopOrder {
        to: request.reply_address(),
        group: group.into(),
        topic: topic.into(),
        queue_id: u32::try_from(header.queue_id).ok(),
        attempt,
        purpose: Purpose::Pop { invisible_ms: header.invisible_time, begins_at_end: header.init_mode != 0 },
        count_max: usize::try_from(header.max_msg_nums).unwrap_or(0).max(1),
        filter: filter(broker, expression.as_deref(), expression_type.as_deref())?,
        hold_until_ms: hold_until_ms(broker, born_ms, header.poll_time),
        cores_left: 0,
        levels: None,
        begins_with_retries: false,
    };
    set_out(broker, order);
    Ok(Handled::Taken)
}

pub fn peek(broker: &mut Broker, request: &Request<'_>) -> Outcome {
    let header = PeekHeader::decode(&request.frame)?;
    check_readable(broker, "peek")?;
    let (group, topic) = (header.consumer_group.to_cow(), header.topic.to_cow());
    if let Some(outcome) = check_names(broker, request, &group, &topic, header.queue_id)? {
        return Ok(outcome);
    }
    let order = PopOrder {
        to: request.reply_address(),
        group: group.into(),
        topic: topic.into(),
        queue_id: u32::try_from(header.queue_id).ok(),
        attempt: None,
        purpose: Purpose::Peek,
        count_max: usize::try_from(header.max_msg_nums).unwrap_or(0).max(1),
        filter: TagFilter::All,
        hold_until_ms: 0,
        cores_left: 0,
        levels: None,
        begins_with_retries: false,
    };
    set_out(broker, order);
    Ok(Handled::Taken)
}

pub fn notification(broker: &mut Broker, request: &Request<'_>) -> Outcome {
    let header = NotificationHeader::decode(&request.frame)?;
    check_readable(broker, "notify of")?;
    let (group, topic) = (header.consumer_group.to_cow(), header.topic.to_cow());
    if let Some(outcome) = check_names(broker, request, &group, &topic, header.queue_id)? {
        return Ok(outcome);
    }
    let born_ms = header.born_time.filter(|born_ms| *born_ms != 0).unwrap_or(broker.now_ms);
    let attempt = header.order.then(|| header.attempt_id.as_ref().map(|text| text.to_cow()).unwrap_or_default().into());
    let expression = header.exp.as_ref().map(|text| text.to_cow());
    let expression_type = header.exp_type.as_ref().map(|text| text.to_cow()).filter(|kind| !kind.is_empty());
    let wanted = match expression_type {
        Some(kind) if broker.config.use_message_filter_for_notification => {
            filter(broker, expression.as_deref(), Some(&kind))?
        }
        _ => TagFilter::All,
    };
    let order = PopOrder {
        to: request.reply_address(),
        group: group.into(),
        topic: topic.into(),
        queue_id: u32::try_from(header.queue_id).ok(),
        attempt,
        purpose: Purpose::Notify,
        count_max: 1,
        filter: wanted,
        hold_until_ms: hold_until_ms(broker, born_ms, header.poll_time),
        cores_left: 0,
        levels: None,
        begins_with_retries: false,
    };
    set_out(broker, order);
    Ok(Handled::Taken)
}

/// How many requests are held for the group and queue (of any queue, for a negative id).
pub fn polling_info(broker: &mut Broker, request: &Request<'_>) -> Outcome {
    let header = PollingInfoHeader::decode(&request.frame)?;
    check_readable(broker, "tell about polls of")?;
    let (group, topic) = (header.consumer_group.to_cow(), header.topic.to_cow());
    if let Some(outcome) = check_names(broker, request, &group, &topic, header.queue_id)? {
        return Ok(outcome);
    }
    let queue_id = u32::try_from(header.queue_id).ok();
    let home = wait::home(broker, &topic, queue_id);
    if home != broker.core {
        return broker.forward(home, request, request.origin);
    }
    let held = broker.pops.held(&group, &topic, queue_id);
    broker.reply(request.reply_address(), response::SUCCESS, Body::None, |ext| ext.int("pollingNum", held as i64));
    Ok(Handled::Taken)
}

fn hold_until_ms(broker: &Broker, born_ms: i64, poll_ms: i64) -> i64 {
    if poll_ms <= 0 {
        return 0;
    }
    (born_ms.saturating_add(poll_ms) - ANSWER_EARLY_MS).min(broker.now_ms + HOLD_MS_MAX)
}

fn check_readable(broker: &Broker, doing: &str) -> Result<(), Refusal> {
    if broker.config.broker_permission & perm::READ == 0 {
        let remark = format!("the broker[{}] {doing} message is forbidden", broker.config.broker_ip1);
        return Err(Refusal::new(response::NO_PERMISSION, remark));
    }
    Ok(())
}

/// Topic, queue and group. A group that has to be made first takes the request over.
fn check_names(
    broker: &mut Broker,
    request: &Request<'_>,
    group: &str,
    topic: &str,
    queue_id: i32,
) -> Result<Option<Handled>, Refusal> {
    let Some(config) = broker.topics.get(topic) else {
        return Err(Refusal::new(response::TOPIC_NOT_EXIST, format!("topic[{topic}] not exist, apply first please!")));
    };
    if config.perm & perm::READ == 0 {
        let remark = format!("the topic[{topic}] peeking message is forbidden");
        return Err(Refusal::new(response::NO_PERMISSION, remark));
    }
    if queue_id >= config.read_queue_nums {
        let remark = format!(
            "queueId[{queue_id}] is illegal, topic:[{topic}] topicConfig.readQueueNums:[{}] consumer:[{}]",
            config.read_queue_nums, request.origin.address
        );
        return Err(Refusal::new(response::INVALID_PARAMETER, remark));
    }
    match broker.groups.look_up(group) {
        GroupLookup::Known(config) if config.consume_enable => Ok(None),
        GroupLookup::Known(_) => {
            let remark = format!("subscription group no permission, {group}");
            Err(Refusal::new(response::NO_PERMISSION, remark))
        }
        GroupLookup::Creatable(config) => topic_change::create_group_for(broker, request, config).map(Some),
        GroupLookup::Missing => {
            let remark = format!("subscription group [{group}] does not exist");
            Err(Refusal::new(response::SUBSCRIPTION_GROUP_NOT_EXIST, remark))
        }
    }
}

/// Zero and less end at once; more than the longest time is refused.
fn check_invisible(invisible_ms: i64) -> Result<(), String> {
    if invisible_ms > INVISIBLE_MS_MAX {
        return Err(format!(
            "invisibleTime {invisible_ms} ms is longer than messages can be hidden ({INVISIBLE_MS_MAX} ms)"
        ));
    }
    Ok(())
}

fn filter(broker: &mut Broker, expression: Option<&str>, expression_type: Option<&str>) -> Result<TagFilter, Refusal> {
    let Some(expression) = expression.filter(|expression| !expression.is_empty()) else { return Ok(TagFilter::All) };
    let expression_type = ExpressionType::of(expression_type);
    let parsed = if expression_type.is_tag() {
        subscription::parse_tags(expression)
    } else {
        subscription::compile(&expression_type, expression, |text| broker.filters.get_or_compile(text))
    };
    parsed.map_err(|error| {
        let remark = format!("parse the consumer's subscription failed: {error}");
        Refusal::new(response::SUBSCRIPTION_PARSE_FAILED, remark)
    })
}

/// Sends an order to the first core that may have something for it: by chance, or those of one core's clients would always
/// get that core's messages.
fn set_out(broker: &mut Broker, order: PopOrder) {
    wait::note_popping(broker, order.to.connection);
    let levels = Levels::of(broker, &order);
    let retries_first = match levels {
        Some(_) => broker.config.pop_from_retry_probability_for_priority,
        None => broker.config.pop_from_retry_probability,
    };
    let begins_with_retries = broker.next_random() % 100 < retries_first.max(0) as u64;
    let (first, cores_left) = match (order.queue_id, levels) {
        (Some(queue_id), _) => (broker.owner(&order.topic, queue_id), 0),
        (None, Some(levels)) if !begins_with_retries => {
            (broker.owner(&order.topic, levels.next), broker.core_count - 1)
        }
        _ => ((broker.next_random() % broker.core_count as u64) as usize, broker.core_count - 1),
    };
    send(broker, first, PopLetter::Look(PopOrder { cores_left, levels, begins_with_retries, ..order }));
}

/// To this core or another one; worked off at the end of its turn.
fn send(broker: &mut Broker, core: usize, letter: PopLetter) {
    if core == broker.core {
        broker.pops.take_letter(core, letter);
    } else {
        broker.send_letter(core, Letter::Pop(letter));
    }
}

/// The core has nothing for the order.
fn pass_on(broker: &mut Broker, order: PopOrder) {
    if order.cores_left > 0 {
        let next = (broker.core + 1) % broker.core_count;
        let cores_left = order.cores_left - 1;
        return send(broker, next, PopLetter::Look(PopOrder { cores_left, ..order }));
    }
    if order.hold_until_ms <= broker.now_ms {
        return answer_nothing(broker, &order, response::POLLING_TIMEOUT);
    }
    let home = wait::home(broker, &order.topic, order.queue_id);
    send(broker, home, PopLetter::Wait(order));
}

/// Answers an order that gets no messages, with POLLING_TIMEOUT or POLLING_FULL.
fn answer_nothing(broker: &mut Broker, order: &PopOrder, code: i32) {
    const NOTHING: Option<&str> = Some("NO_MESSAGE_IN_QUEUE");
    match order.purpose {
        Purpose::Pop { invisible_ms, .. } => {
            let now_ms = broker.now_ms;
            let revive_queue_id = look::revive_queue_id(broker, order);
            broker.reply_with_remark(order.to, code, NOTHING, Body::None, |ext| {
                ext.int("invisibleTime", invisible_ms);
                ext.int("popTime", now_ms);
                ext.int("restNum", 0);
                ext.int("reviveQid", i64::from(revive_queue_id));
            });
        }
        Purpose::Peek => {
            broker.reply_with_remark(order.to, response::PULL_NOT_FOUND, NOTHING, Body::None, |ext| {
                look::write_peek_fields(ext, 0);
            });
        }
        Purpose::Notify => {
            broker.reply(order.to, response::SUCCESS, Body::None, |ext| {
                ext.bool("hasMsg", false);
                ext.bool("pollingFull", code == response::POLLING_FULL);
            });
        }
    }
}

/// The pops' share of a turn's end.
pub fn turn(broker: &mut Broker) {
    revive::turn(broker);
    wait::turn(broker);
    // Those that come from now on are for the next turn.
    for _ in 0..broker.pops.letters_waiting() {
        match broker.pops.next_letter() {
            Some((_, PopLetter::Look(order))) => look::look(broker, order),
            Some((_, PopLetter::Wait(order))) => wait::wait(broker, order),
            Some((from, PopLetter::Watch(key))) => wait::watch(broker, from, key),
            Some((_, PopLetter::Gone(connection))) => wait::on_gone(broker, connection),
            Some((from, PopLetter::Arrived(key))) => wait::on_arrived(broker, from, &key),
            None => break,
        }
    }
}

#[cfg(test)]
mod tests;
