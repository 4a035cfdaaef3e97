//! What one core has for an order: queue after queue, taken and answered.

use std::fmt::Write;
use std::ops::Range;

use rmq_engine::in_flight::{IN_FLIGHT_MAX, IN_FLIGHT_SPAN_MAX, InFlight, Take, TakenHow};
use rmq_engine::{AppendError, Bounds, Fetch, FetchRequest, LogPosition, Nothing, Rows, Slice, TagFilter, Ticket};
use rmq_net::codes::response;
use rmq_net::message::receipt::{Mark, ORDER_REVIVE_QUEUE, Receipt};
use rmq_net::message::record;
use rmq_net::reply::ExtWriter;

use super::wait::WaitKey;
use super::{PopLetter, PopOrder, Purpose, pass_on, retry_topics, send};
use crate::broker::{After, Body, Broker, Refusal};
use crate::request::{self, Job};

/// Whose tags a notification looks at in a queue, as in RocketMQ.
const TAGS_LOOKED_AT: i64 = 32;

/// Messages of one queue.
struct Part {
    /// Where they are stored.
    topic: String,
    queue_id: u32,
    start_offset: i64,
    offsets: Vec<i64>,
    /// Of each offset, how often it had been given before. Only in order.
    times_before: Vec<u32>,
    slices: Vec<Slice>,
}

/// What an order gets.
#[derive(Default)]
struct Found {
    parts: Vec<Part>,
    count: usize,
    bytes: u32,
    /// Messages left in the queues looked into.
    rest: i64,
    /// Where the last record of what was taken ends.
    end: Option<LogPosition>,
}

/// Why a look into a queue ends the whole look.
enum Stop {
    Pending(Ticket),
    /// The log has no room for the record of what is taken.
    Full,
    Failed(Refusal),
}

/// The topic's queues that this core owns.
pub fn own_queues(broker: &Broker, topic: &str) -> Vec<u32> {
    let count = broker.topics.get(topic).map_or(0, |config| config.read_queue_nums.max(0) as u32);
    (0..count).filter(|queue_id| broker.owner(topic, *queue_id) == broker.core).collect()
}

/// Those of them that have ever had a message.
fn filled_queues(broker: &Broker, topic: &str) -> Vec<u32> {
    let count = broker.topics.get(topic).map_or(0, |config| config.read_queue_nums.max(0) as u32);
    broker.shard.queues(topic).map(|(queue_id, ..)| queue_id).filter(|queue_id| *queue_id < count).collect()
}

/// Whether a pop would get something, or at least get on, here and now.
pub fn has_something(broker: &mut Broker, key: &WaitKey) -> bool {
    let queues = match key.queue_id {
        Some(queue_id) => vec![queue_id],
        None => filled_queues(broker, &key.topic),
    };
    if queues.into_iter().any(|queue_id| can_pop(broker, key, &key.topic, queue_id, key.tags.as_deref())) {
        return true;
    }
    let retries: Vec<_> = retry_topics(broker, &key.group, &key.topic).collect();
    let has_retry = |retry: String| {
        filled_queues(broker, &retry).into_iter().any(|queue_id| can_pop(broker, key, &retry, queue_id, None))
    };
    !key.is_in_order && retries.into_iter().any(has_retry)
}

/// Whether a queue has something for the group, as far as the tags of the first messages tell.
fn can_pop(broker: &mut Broker, key: &WaitKey, topic: &str, queue_id: u32, tags: Option<&[i32]>) -> bool {
    let attempt = key.is_in_order.then_some("");
    let bounds = broker.shard.bounds(topic, queue_id);
    if bounds.max == 0 || is_closed(broker, &key.group, topic, queue_id, attempt) {
        return false;
    }
    let next = next_offset(broker, &key.group, topic, queue_id, attempt).unwrap_or(bounds.min).max(bounds.min);
    let waiting = bounds.max - next;
    match tags {
        Some(tags) if waiting < i64::from(broker.config.max_message_filter_num_for_notification) => {
            has_tag(broker, topic, queue_id, next..bounds.max.min(next + TAGS_LOOKED_AT), tags)
        }
        _ => waiting > 0,
    }
}

/// Whether one of these messages may have one of these tags. What only the disk knows may.
fn has_tag(broker: &mut Broker, topic: &str, queue_id: u32, offsets: Range<i64>, tags: &[i32]) -> bool {
    let ticket = broker.new_ticket();
    let (mut is_found, mut next) = (false, offsets.start);
    while next < offsets.end && !is_found {
        let rows = broker.shard.rows(topic, queue_id, next, ticket, |offset, code, _| {
            is_found |= offsets.contains(&offset) && tags.contains(&(code as i32));
        });
        match rows {
            Rows::UpTo(end) if next < end => next = end,
            _ => return true,
        }
    }
    is_found
}

/// Where the group goes on in a queue; `None` if it has never been there.
fn next_offset(broker: &Broker, group: &str, topic: &str, queue_id: u32, attempt: Option<&str>) -> Option<i64> {
    let offset = broker.shard.offset(group, topic, queue_id)?;
    let in_flight = broker.shard.in_flight(group, topic, queue_id);
    Some(in_flight.filter(|_| attempt.is_none()).map_or(offset, |in_flight| in_flight.next().max(offset)))
}

/// Whether a queue gives nothing to the group for now: because its order would be broken, or because too much is in flight.
fn is_closed(broker: &Broker, group: &str, topic: &str, queue_id: u32, attempt: Option<&str>) -> bool {
    let Some(in_flight) = broker.shard.in_flight(group, topic, queue_id) else {
        return broker.shard.in_flight_count() >= IN_FLIGHT_MAX;
    };
    match attempt {
        Some(attempt) => is_blocked(in_flight, attempt, broker.now_ms),
        None => {
            let offset = broker.shard.offset(group, topic, queue_id).unwrap_or(0);
            let has_threshold = broker.config.enable_pop_message_threshold;
            has_threshold && in_flight.len() as i64 > broker.config.pop_inflight_message_threshold
                || in_flight.next() - offset >= IN_FLIGHT_SPAN_MAX
                || broker.shard.in_flight_count() >= IN_FLIGHT_MAX
        }
    }
}

/// In order, nobody else gets anything while what was given before is hidden; the same attempt gets it again.
fn is_blocked(in_flight: &InFlight, attempt: &str, now_ms: i64) -> bool {
    let is_repeated = !attempt.is_empty() && in_flight.attempt() == attempt;
    !is_repeated && in_flight.iter().any(|(_, taken)| now_ms < taken.until_ms)
}

/// 999 in order, else any: clients send it back, and nothing depends on it here.
pub fn revive_queue_id(broker: &mut Broker, order: &PopOrder) -> i32 {
    if order.attempt.is_some() {
        return ORDER_REVIVE_QUEUE;
    }
    broker.pops.next_revive_queue = broker.pops.next_revive_queue.wrapping_add(1);
    let count = u32::try_from(broker.config.revive_queue_num).unwrap_or(1).max(1);
    (broker.pops.next_revive_queue % count) as i32
}

/// Looks for an order's messages in the queues of this core. Answers it, passes it on, or keeps it.
pub fn look(broker: &mut Broker, order: PopOrder) {
    if order.purpose == Purpose::Notify {
        return notify(broker, order);
    }
    let mut found = Found::default();
    if order.levels.is_none() {
        let stopped = gather(broker, &order, &mut found).err();
        return finish(broker, order, found, stopped);
    }
    if order.begins_with_retries {
        let stopped = gather_retries(broker, &order, &mut found).err();
        if found.count > 0 || stopped.is_some() {
            return finish(broker, order, found, stopped);
        }
    }
    look_by_level(broker, PopOrder { begins_with_retries: false, ..order });
}

/// Takes messages of the highest priority there is. Lower ones come along only if this core has their queues, too.
fn look_by_level(broker: &mut Broker, mut order: PopOrder) {
    let mut found = Found::default();
    while let Some(levels) = order.levels.filter(|_| found.count < order.count_max) {
        let owner = broker.owner(&order.topic, levels.next);
        if owner != broker.core {
            return match found.count {
                0 => send(broker, owner, PopLetter::Look(order)),
                _ => answer(broker, order, found),
            };
        }
        let topic = order.topic.clone();
        if let Err(stop) = look_into(broker, &order, &topic, levels.next, &mut found) {
            return finish(broker, order, found, Some(stop));
        }
        order.levels = levels.following();
    }
    match found.count {
        // What came back is left, on any core.
        0 => look(broker, order),
        _ => answer(broker, order, found),
    }
}

fn finish(broker: &mut Broker, order: PopOrder, found: Found, stopped: Option<Stop>) {
    match stopped {
        _ if found.count > 0 => answer(broker, order, found),
        None => pass_on(broker, order),
        Some(Stop::Pending(ticket)) => broker.keep_job(ticket, Job::Pop(order)),
        Some(Stop::Full) => broker.pops.stall(order),
        Some(Stop::Failed(refusal)) => broker.refuse_later(order.to, &refusal),
    }
}

fn notify(broker: &mut Broker, order: PopOrder) {
    let key = super::wait::key_of(&order);
    if !has_something(broker, &key) {
        return pass_on(broker, order);
    }
    broker.reply(order.to, response::SUCCESS, Body::None, |ext| {
        ext.bool("hasMsg", true);
        ext.bool("pollingFull", false);
    });
}

/// The topic's own queues and those of its retry topics.
fn gather(broker: &mut Broker, order: &PopOrder, found: &mut Found) -> Result<(), Stop> {
    if order.begins_with_retries {
        gather_retries(broker, order, found)?;
    }
    let queues = match order.queue_id {
        Some(queue_id) => vec![queue_id],
        None => filled_queues(broker, &order.topic),
    };
    look_into_all(broker, order, &order.topic, queues, found)?;
    match order.begins_with_retries {
        true => Ok(()),
        false => gather_retries(broker, order, found),
    }
}

fn gather_retries(broker: &mut Broker, order: &PopOrder, found: &mut Found) -> Result<(), Stop> {
    if order.attempt.is_some() {
        return Ok(());
    }
    let retries: Vec<_> = retry_topics(broker, &order.group, &order.topic).collect();
    for retry in retries {
        let queues = filled_queues(broker, &retry);
        look_into_all(broker, order, &retry, queues, found)?;
    }
    Ok(())
}

/// Begins with a queue by chance.
fn look_into_all(
    broker: &mut Broker,
    order: &PopOrder,
    topic: &str,
    mut queues: Vec<u32>,
    found: &mut Found,
) -> Result<(), Stop> {
    if !queues.is_empty() {
        let first = (broker.next_random() % queues.len() as u64) as usize;
        queues.rotate_left(first);
    }
    for queue_id in queues {
        look_into(broker, order, topic, queue_id, found)?;
    }
    Ok(())
}

/// Takes messages of one queue.
fn look_into(broker: &mut Broker, order: &PopOrder, topic: &str, queue_id: u32, found: &mut Found) -> Result<(), Stop> {
    let bounds = broker.shard.bounds(topic, queue_id);
    let is_pop = matches!(order.purpose, Purpose::Pop { .. });
    if bounds.max == 0 || is_pop && is_closed(broker, &order.group, topic, queue_id, order.attempt.as_deref()) {
        return Ok(());
    }
    let start = start_in(broker, order, topic, queue_id, bounds)?;
    let bytes_max = broker.config.max_transfer_bytes_on_message_in_memory;
    if start >= bounds.max || found.count >= order.count_max || found.count > 0 && found.bytes >= bytes_max {
        found.rest += bounds.max - start;
        return Ok(());
    }
    let is_retry = Mark::of(topic) != Mark::Topic;
    let ticket = broker.new_ticket();
    let request = FetchRequest {
        topic,
        queue_id,
        offset: start,
        count_max: (order.count_max - found.count) as u32,
        bytes_max: bytes_max - found.bytes.min(bytes_max),
        filter: if is_retry { &TagFilter::All } else { &order.filter },
    };
    let (slices, next, bytes) = match broker.shard.fetch(&request, ticket) {
        Fetch::Found { slices, next, bytes, .. } => (slices, next, bytes),
        Fetch::Nothing { why: Nothing::NoMatch | Nothing::Removed, next, .. } => (Vec::new(), next, 0),
        Fetch::Nothing { why: Nothing::ReadFailed(error), .. } => {
            return Err(Stop::Failed(request::read_failed(&error)));
        }
        Fetch::Nothing { .. } => return Ok(()),
        Fetch::Pending => return Err(Stop::Pending(ticket)),
    };
    found.rest += bounds.max - next;
    let mut part = Part {
        topic: topic.to_owned(),
        queue_id,
        start_offset: start,
        offsets: Vec::new(),
        times_before: Vec::new(),
        slices,
    };
    part.offsets.extend(part.slices.iter().flat_map(|slice| queue_offsets(slice.as_ref())));
    if let Purpose::Pop { invisible_ms, .. } = order.purpose {
        found.end = Some(take(broker, order, &mut part, next, invisible_ms)?).max(found.end);
    }
    if !part.offsets.is_empty() {
        found.count += part.offsets.len();
        found.bytes = found.bytes.saturating_add(bytes);
        found.parts.push(part);
    }
    Ok(())
}

/// The queue offsets of records that follow each other.
fn queue_offsets(records: &[u8]) -> impl Iterator<Item = i64> {
    record::iter(records).map_while(Result::ok).map(|record| record.queue_offset)
}

/// Where to read on for the group, after its offset is set (on its first pop of the queue) or set right.
fn start_in(broker: &mut Broker, order: &PopOrder, topic: &str, queue_id: u32, bounds: Bounds) -> Result<i64, Stop> {
    let known = next_offset(broker, &order.group, topic, queue_id, order.attempt.as_deref());
    let start = match (known, order.purpose) {
        (Some(known), _) => known.clamp(bounds.min, bounds.max),
        (None, Purpose::Pop { begins_at_end: true, .. }) if Mark::of(topic) == Mark::Topic => {
            // RocketMQ: at the first message while that is "in memory", which here is as long as it is kept.
            let is_young = broker.config.init_pop_offset_by_check_msg_in_mem && bounds.min <= 0;
            if is_young { 0 } else { (bounds.max - 1).max(bounds.min) }
        }
        (None, _) => bounds.min,
    };
    if matches!(order.purpose, Purpose::Pop { .. }) {
        // The group is where a reset (222) has put it: no later pull needs to be told.
        let _ = broker.resets.take(&order.group, topic, queue_id);
        if known != Some(start) {
            // What was in flight lies outside the queue now.
            broker.shard.commit_offset(&order.group, topic, queue_id, start).map_err(|error| stop(broker, &error))?;
        }
    }
    Ok(start)
}

/// Records that the part's messages are the order's, and that those between are not wanted. In order, messages the group
/// is done with leave the part.
fn take(
    broker: &mut Broker,
    order: &PopOrder,
    part: &mut Part,
    next: i64,
    invisible_ms: i64,
) -> Result<LogPosition, Stop> {
    let Part { topic, queue_id, start_offset, .. } = part;
    let (group, queue_id, first) = (&*order.group, *queue_id, *start_offset);
    if order.attempt.is_some() {
        part.offsets.retain(|offset| !broker.shard.is_done(group, topic, queue_id, *offset));
    }
    let span = part.offsets.last().map_or(0, |last| (last - first + 1) as usize);
    let mut bits = vec![0; span.div_ceil(8)];
    for offset in &part.offsets {
        let n = (offset - first) as usize;
        bits[n / 8] |= 1 << (n % 8);
    }
    let taken_ms = broker.now_ms;
    let how = if order.attempt.is_some() { TakenHow::InOrder } else { TakenHow::Counted };
    let attempt = order.attempt.as_deref().unwrap_or_default();
    let until_ms = taken_ms.saturating_add(invisible_ms.max(0));
    let take = Take { group, topic, queue_id, first, next, bits: &bits, taken_ms, until_ms, how, attempt };
    let end = broker.shard.take(&take).map_err(|error| stop(broker, &error))?;
    if order.attempt.is_some() {
        let in_flight = broker.shard.in_flight(group, topic, queue_id);
        let times = |offset: &i64| in_flight.and_then(|of| of.get(*offset)).map_or(0, |taken| taken.times_before);
        part.times_before = part.offsets.iter().map(times).collect();
    }
    Ok(end)
}

fn stop(broker: &Broker, error: &AppendError) -> Stop {
    match error {
        AppendError::BatchFull { .. } => Stop::Full,
        AppendError::Poisoned => Stop::Failed(request::log_failed(&broker.shard)),
        error => Stop::Failed(Refusal::new(response::SYSTEM_ERROR, error.to_string())),
    }
}

/// Answers once what was taken is durable.
fn answer(broker: &mut Broker, order: PopOrder, found: Found) {
    let (to, end, pop_time_ms) = (order.to, found.end, broker.now_ms);
    broker.counters.get_found(&order.topic, &order.group, found.count as u64, found.bytes.into());
    let revive_queue_id = revive_queue_id(broker, &order);
    let work = move |broker: &mut Broker| match order.purpose {
        Purpose::Pop { invisible_ms, .. } => {
            let given = Given { pop_time_ms, invisible_ms, revive_queue_id };
            answer_pop(broker, &order, found, &given);
        }
        _ => {
            let slices = found.parts.into_iter().flat_map(|part| part.slices).collect();
            broker.reply_with_remark(order.to, response::SUCCESS, Some("FOUND"), Body::Slices(slices), |ext| {
                write_peek_fields(ext, found.rest);
            });
        }
    };
    match end {
        Some(end) => broker.after(end, After::Answer { to, work: Box::new(work) }),
        None => work(broker),
    }
}

/// RocketMQ answers a peek with the header of a pop that took nothing.
pub fn write_peek_fields(ext: &mut ExtWriter<'_>, rest: i64) {
    ext.int("invisibleTime", 0);
    ext.int("popTime", 0);
    ext.int("restNum", rest);
    ext.int("reviveQid", 0);
}

/// What the receipts of one answer have in common.
struct Given {
    pop_time_ms: i64,
    invisible_ms: i64,
    revive_queue_id: i32,
}

fn answer_pop(broker: &mut Broker, order: &PopOrder, found: Found, given: &Given) {
    let infos = Infos::of(&found.parts);
    let shows_retry_topic = broker.config.pop_response_return_actual_retry_topic;
    let is_plain = |part: &Part| {
        let is_whole =
            || part.slices.iter().flat_map(|slice| queue_offsets(slice.as_ref())).count() == part.offsets.len();
        (shows_retry_topic || Mark::of(&part.topic) == Mark::Topic) && (order.attempt.is_none() || is_whole())
    };
    let mut bytes = Vec::new();
    let body = if found.parts.iter().all(is_plain) {
        Body::Slices(found.parts.into_iter().flat_map(|part| part.slices).collect())
    } else {
        for part in &found.parts {
            copy_records(part, order, given, &broker.config.broker_name, shows_retry_topic, &mut bytes);
        }
        Body::Bytes(&bytes)
    };
    broker.reply_with_remark(order.to, response::SUCCESS, Some("FOUND"), body, |ext| {
        ext.int("invisibleTime", given.invisible_ms);
        ext.text("msgOffsetInfo", &infos.offsets);
        if order.attempt.is_some() {
            ext.text("orderCountInfo", &infos.order_counts);
        }
        ext.int("popTime", given.pop_time_ms);
        ext.int("restNum", found.rest);
        ext.int("reviveQid", i64::from(given.revive_queue_id));
        ext.text("startOffsetInfo", &infos.starts);
    });
}

/// The part's records one after the other. Those of a retry topic are given the topic the consumer knows and their receipt,
/// which the client could not build from that.
fn copy_records(
    part: &Part,
    order: &PopOrder,
    given: &Given,
    broker_name: &str,
    shows_retry_topic: bool,
    out: &mut Vec<u8>,
) {
    let mark = Mark::of(&part.topic);
    for slice in &part.slices {
        let mut rest = slice.as_ref();
        while let Ok(stored) = record::decode(rest) {
            let (bytes, behind) = rest.split_at(stored.size_bytes);
            rest = behind;
            if !part.offsets.contains(&stored.queue_offset) {
                continue;
            }
            if mark == Mark::Topic || shows_retry_topic {
                out.extend_from_slice(bytes);
                continue;
            }
            let receipt = Receipt {
                start_offset: part.start_offset,
                pop_time_ms: given.pop_time_ms,
                invisible_ms: given.invisible_ms,
                revive_queue_id: given.revive_queue_id,
                mark,
                broker_name,
                queue_id: part.queue_id as i32,
                queue_offset: Some(stored.queue_offset),
            };
            record::readdress(bytes, &stored, &order.topic, ("POP_CK", &receipt.to_string()), out);
        }
    }
}

/// The three texts from which clients build receipts.
#[derive(Default)]
struct Infos {
    starts: String,
    offsets: String,
    order_counts: String,
}

impl Infos {
    fn of(parts: &[Part]) -> Self {
        let mut infos = Self::default();
        for part in parts {
            let (mark, queue_id) = (Mark::of(&part.topic), part.queue_id);
            let offsets: Vec<String> = part.offsets.iter().map(i64::to_string).collect();
            entry(&mut infos.starts, format_args!("{mark} {queue_id} {}", part.start_offset));
            entry(&mut infos.offsets, format_args!("{mark} {queue_id} {}", offsets.join(",")));
            for (offset, times) in part.offsets.iter().zip(&part.times_before).filter(|(_, times)| **times > 0) {
                entry(&mut infos.order_counts, format_args!("{mark} qo{queue_id}%{offset} {times}"));
            }
            let fewest = part.times_before.iter().min().unwrap_or(&0);
            entry(&mut infos.order_counts, format_args!("{mark} {queue_id} {fewest}"));
        }
        infos
    }
}

fn entry(list: &mut String, text: std::fmt::Arguments<'_>) {
    if !list.is_empty() {
        list.push(';');
    }
    // Writing to a string does not fail.
    let _ = list.write_fmt(text);
}
