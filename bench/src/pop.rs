//! The pop consumer: each connection has one pop in flight, over all queues of a topic, and acknowledges each message
//! it got. A message counts when its acknowledgement is answered.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use crate::cluster::{self, Purpose, Queue};
use crate::connection::{Connection, Poller};
use crate::error::BenchError;
use crate::frame::{FrameWriter, OPAQUE_FIRST, Reply, Serialization, request, response};
use crate::options::{ConsumerOptions, Verify};
use crate::record::{Record, Records};
use crate::report::{Report, Tally};
use crate::run::{self, Context, Worker};
use crate::stamp;
use crate::verify::QueueCheck;

const SERIALIZATION: Serialization = Serialization::Json;
const ALL_QUEUES: i64 = -1;
/// What stock push consumers ask for.
const INVISIBLE_MS: i64 = 60_000;
const POLL_MS: i64 = 15_000;
/// RocketMQ: popThresholdForQueue, messages a stock consumer has unacknowledged before it waits with the next pop.
const UNACKNOWLEDGED_MAX: usize = 96;
/// Pause after a pop that found nothing, where the broker is not to hold it.
const EMPTY_NS: u64 = 5_000_000;
/// Pause after an error reply.
const ERROR_NS: u64 = 100_000_000;
/// Error replies in a row after which a connection gives up.
const ERRORS_MAX: u32 = 50;
/// A drain ends after this long without a message: a single empty pop says nothing about all queues.
const DRAIN_IDLE: Duration = Duration::from_secs(10);
const WAIT_MAX: Duration = Duration::from_millis(100);

pub fn run(options: &ConsumerOptions) -> Result<Report, BenchError> {
    let common = &options.common;
    let queues = cluster::queues(common, Purpose::Pull)?;
    let settings = Settings::new(options);
    let mut targets: Vec<Target> = queues.into_iter().map(Target::new).collect();
    targets.dedup();
    let threads = common.threads.min(common.connections) as usize;
    let mut lanes_by_thread: Vec<Vec<Lane>> = (0..threads).map(|_| Vec::new()).collect();
    for index in 0..common.connections as usize {
        let broker = targets[index % targets.len()].broker;
        let own = targets.iter().filter(|target| target.broker == broker).cloned().collect();
        lanes_by_thread[index % threads].push(Lane::open(broker, own, index, &settings)?);
    }
    let workers = lanes_by_thread.into_iter().map(|lanes| {
        let settings = settings.clone();
        Box::new(move |context: &Context| PopConsumer::new(settings, lanes)?.run(context)) as Worker
    });
    run::run("pop consumer", common, options.drain || options.idle.is_some(), workers.collect())
}

#[derive(Clone)]
struct Settings {
    group: String,
    count: i64,
    poll_ms: i64,
    count_max: u64,
    idle_ns: u64,
    verify: Option<Verify>,
}

impl Settings {
    fn new(options: &ConsumerOptions) -> Self {
        let idle = options.idle.or(options.drain.then_some(DRAIN_IDLE));
        Self {
            group: options.group.clone(),
            count: i64::from(options.batch),
            poll_ms: if options.drain { 0 } else { POLL_MS },
            count_max: options.common.count.unwrap_or(u64::MAX),
            idle_ns: idle.map_or(u64::MAX, |idle| idle.as_nanos() as u64),
            verify: options.verify,
        }
    }
}

/// What a pop is for: a topic on a broker.
#[derive(Clone, PartialEq, Eq)]
struct Target {
    broker: SocketAddr,
    broker_name: String,
    topic: String,
}

impl Target {
    fn new(queue: Queue) -> Self {
        Self { broker: queue.broker, broker_name: queue.broker_name.unwrap_or_default(), topic: queue.topic }
    }

    fn append_pop(&self, out: &mut Vec<u8>, settings: &Settings, now_ms: i64) {
        let mut writer = FrameWriter::begin(out, SERIALIZATION, request::POP_MESSAGE, OPAQUE_FIRST);
        writer.text("consumerGroup", &settings.group);
        writer.text("topic", &self.topic);
        writer.int("queueId", ALL_QUEUES);
        writer.int("maxMsgNums", settings.count);
        writer.int("invisibleTime", INVISIBLE_MS);
        writer.int("pollTime", settings.poll_ms);
        writer.int("bornTime", now_ms);
        writer.int("initMode", 0);
        writer.text("expType", "TAG");
        writer.text("exp", "*");
        writer.text("order", "false");
        writer.text("bname", &self.broker_name);
        writer.finish(0);
    }
}

/// What a pop's reply says about all its messages.
struct PopInfo {
    pop_time: i64,
    invisible_ms: i64,
    revive_queue: i64,
    /// First offset of the pop, by queue.
    starts: Vec<(u32, i64)>,
}

impl PopInfo {
    fn read(reply: &Reply<'_>) -> Option<Self> {
        let mut starts = Vec::new();
        // `mark queueId startOffset`, joined by `;`. Messages of a retry topic (mark 1 and 2) bring their handles with them.
        for entry in reply.ext_text("startOffsetInfo")?.split(';') {
            let mut fields = entry.split(' ');
            if fields.next()? == "0" {
                starts.push((fields.next()?.parse().ok()?, fields.next()?.parse().ok()?));
            }
        }
        Some(Self {
            pop_time: reply.ext_int("popTime")?,
            invisible_ms: reply.ext_int("invisibleTime")?,
            revive_queue: reply.ext_int("reviveQid")?,
            starts,
        })
    }

    fn handle(&self, target: &Target, record: &Record<'_>) -> Option<String> {
        let (queue_id, offset) = (record.queue_id, record.queue_offset);
        let (_, start) = self.starts.iter().find(|(queue, _)| *queue == queue_id)?;
        let Self { pop_time, invisible_ms, revive_queue, .. } = self;
        let broker = &target.broker_name;
        Some(format!("{start} {pop_time} {invisible_ms} {revive_queue} 0 {broker} {queue_id} {offset}"))
    }
}

/// Appends the acknowledgement of a message; `None` when its reply lacks what that needs.
fn append_ack(
    out: &mut Vec<u8>,
    settings: &Settings,
    target: &Target,
    info: &PopInfo,
    record: &Record<'_>,
    opaque: i32,
) -> Option<()> {
    let topic = &target.topic;
    let group = &settings.group;
    let (handle, topic, offset) = match record.property("POP_CK\u{1}") {
        Some(handle) => {
            let fields: Vec<&str> = handle.split(' ').collect();
            let topic = match *fields.get(4)? {
                "1" => format!("%RETRY%{group}_{topic}"),
                "2" => format!("%RETRY%{group}+{topic}"),
                _ => topic.clone(),
            };
            (handle.to_owned(), topic, fields.get(7)?.parse().ok()?)
        }
        None => (info.handle(target, record)?, topic.clone(), record.queue_offset),
    };
    let mut writer = FrameWriter::begin(out, SERIALIZATION, request::ACK_MESSAGE, opaque);
    writer.text("consumerGroup", group);
    writer.text("topic", &topic);
    writer.int("queueId", i64::from(record.queue_id));
    writer.text("extraInfo", &handle);
    writer.int("offset", offset);
    writer.text("bname", &target.broker_name);
    writer.finish(0);
    Some(())
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    Popping,
    /// Pop again at this moment of the run's clock, or later when acknowledgements are behind.
    Paused(u64),
    GivenUp,
}

struct Lane {
    connection: Option<Connection>,
    targets: Vec<Target>,
    target: usize,
    state: State,
    /// Error replies to pops since the last good one.
    errors: u32,
    /// Body bytes of the messages whose acknowledgement is on its way; the slot's number is in its opaque.
    acknowledging: Vec<u64>,
    free: Vec<u32>,
}

impl Lane {
    fn open(broker: SocketAddr, targets: Vec<Target>, index: usize, settings: &Settings) -> Result<Self, BenchError> {
        let slots = UNACKNOWLEDGED_MAX.max(settings.count as usize);
        Ok(Self {
            connection: Some(Connection::open(broker)?),
            target: index % targets.len(),
            targets,
            state: State::Paused(0),
            errors: 0,
            acknowledging: vec![0; slots],
            free: (0..slots as u32).collect(),
        })
    }

    fn is_over(&self) -> bool {
        self.connection.is_none() || self.state == State::GivenUp
    }

    /// Asks for messages when it is time and there is room for their acknowledgements; returns when to look again.
    fn resume(&mut self, context: &Context, settings: &Settings, now_ns: u64) -> u64 {
        let (Some(connection), State::Paused(until_ns)) = (&mut self.connection, self.state) else {
            return u64::MAX;
        };
        if self.free.len() < settings.count as usize {
            return u64::MAX;
        }
        if now_ns < until_ns {
            return until_ns;
        }
        self.target = (self.target + 1) % self.targets.len();
        let now_ms = (context.clock.wall_us(now_ns) / 1_000) as i64;
        self.targets[self.target].append_pop(&mut connection.output, settings, now_ms);
        self.state = State::Popping;
        u64::MAX
    }
}

struct PopConsumer {
    settings: Settings,
    lanes: Vec<Lane>,
    poller: Poller,
    tally: Tally,
    checks: Checks,
}

/// By topic and queue.
type Checks = HashMap<(String, u32), QueueCheck>;

impl PopConsumer {
    fn new(settings: Settings, lanes: Vec<Lane>) -> Result<Self, BenchError> {
        Ok(Self { settings, lanes, poller: Poller::new()?, tally: Tally::new(), checks: HashMap::new() })
    }

    fn run(mut self, context: &Context) -> Result<Tally, BenchError> {
        for (token, lane) in self.lanes.iter().enumerate() {
            if let Some(connection) = &lane.connection {
                self.poller.watch(connection, token as u64)?;
            }
        }
        let mut ready = Vec::new();
        loop {
            let now_ns = context.clock.now_ns();
            if self.is_over(context, now_ns) {
                break;
            }
            let mut wake_ns = u64::MAX;
            for token in 0..self.lanes.len() {
                wake_ns = wake_ns.min(self.lanes[token].resume(context, &self.settings, now_ns));
                self.flush(token);
            }
            ready.clear();
            let wait = Duration::from_nanos(wake_ns.saturating_sub(now_ns)).min(WAIT_MAX);
            ready.extend(self.poller.wait(wait)?);
            for token in &ready {
                if let Err(error) = self.receive(context, *token as usize) {
                    self.close(*token as usize, &error);
                }
            }
        }
        for check in self.checks.values() {
            self.tally.verdict.get_or_insert_default().add(&check.verdict());
        }
        Ok(self.tally)
    }

    fn is_over(&self, context: &Context, now_ns: u64) -> bool {
        context.is_over(now_ns)
            || context.messages.load(Relaxed) >= self.settings.count_max
            || now_ns.saturating_sub(context.last_ns.load(Relaxed)) > self.settings.idle_ns
            || self.lanes.iter().all(Lane::is_over)
    }

    fn receive(&mut self, context: &Context, token: usize) -> Result<(), BenchError> {
        let lane = &mut self.lanes[token];
        let Some(connection) = lane.connection.as_mut() else {
            return Ok(());
        };
        let (settings, tally, checks) = (&self.settings, &mut self.tally, &mut self.checks);
        // Requests are collected here, because the connection is busy handing out frames.
        let mut output = std::mem::take(&mut connection.output);
        let target = &lane.targets[lane.target];
        let now_ns = context.clock.now_ns();
        let (mut messages, mut bytes) = (0, 0);
        let result = connection.receive(|frame| {
            let reply = Reply::scan(frame)?;
            match reply.opaque.wrapping_sub(OPAQUE_FIRST) {
                0 => {
                    let is_good =
                        matches!(reply.code, response::SUCCESS | response::POLLING_TIMEOUT | response::POLLING_FULL);
                    lane.errors = if is_good { 0 } else { lane.errors + 1 };
                    lane.state = match reply.code {
                        response::SUCCESS => State::Paused(now_ns),
                        _ if is_good && settings.poll_ms > 0 => State::Paused(now_ns),
                        _ if is_good => State::Paused(now_ns + EMPTY_NS),
                        _ if lane.errors > ERRORS_MAX => State::GivenUp,
                        _ => State::Paused(now_ns + ERROR_NS),
                    };
                    if !is_good {
                        tally.errors.count(reply.code, &reply.remark(), 1);
                        context.errors.fetch_add(1, Relaxed);
                    }
                    if reply.code != response::SUCCESS {
                        return Ok(());
                    }
                    let info = PopInfo::read(&reply).ok_or_else(|| bad("its header lacks a field"))?;
                    for record in Records::new(reply.body) {
                        let record = record.map_err(|_| bad("its body holds no records"))?;
                        take(context, settings, tally, checks, target, &record, now_ns);
                        let slot = lane.free.pop().ok_or_else(|| bad("more messages than were asked for"))?;
                        lane.acknowledging[slot as usize] = record.body.len() as u64;
                        let opaque = OPAQUE_FIRST + 1 + slot as i32;
                        append_ack(&mut output, settings, target, &info, &record, opaque)
                            .ok_or_else(|| bad("no handle for a message of it"))?;
                    }
                }
                slot @ 1.. if slot as usize <= lane.acknowledging.len() => {
                    lane.free.push(slot as u32 - 1);
                    if reply.code == response::SUCCESS {
                        messages += 1;
                        bytes += lane.acknowledging[slot as usize - 1];
                    } else {
                        tally.errors.count(reply.code, &reply.remark(), 1);
                        context.errors.fetch_add(1, Relaxed);
                    }
                }
                _ => {} // a request of the broker
            }
            Ok(())
        });
        connection.output = output;
        if messages > 0 {
            context.publish(now_ns, messages, bytes);
            if context.is_measured(now_ns) {
                tally.replies += messages;
                tally.messages += messages;
                tally.bytes += bytes;
            }
        }
        result
    }

    fn flush(&mut self, token: usize) {
        let Some(connection) = self.lanes[token].connection.as_mut() else {
            return;
        };
        if connection.has_output()
            && let Err(error) = connection.flush(&self.poller, token as u64)
        {
            self.close(token, &error);
        }
    }

    #[cold]
    fn close(&mut self, token: usize, error: &BenchError) {
        if let Some(connection) = self.lanes[token].connection.take() {
            eprintln!("connection {token} is lost: {error}");
            self.poller.forget(&connection);
            self.tally.closed_connections += 1;
        }
    }
}

fn bad(reason: &str) -> BenchError {
    BenchError::Answer { what: "a pop", reason: reason.to_owned() }
}

/// Takes in one message that was popped.
fn take(
    context: &Context,
    settings: &Settings,
    tally: &mut Tally,
    checks: &mut Checks,
    target: &Target,
    record: &Record<'_>,
    now_ns: u64,
) {
    if let Some(verify) = settings.verify {
        let key = (target.topic.clone(), record.queue_id);
        checks.entry(key).or_insert_with(|| QueueCheck::new(0, true, verify)).take(record);
    }
    if let Ok(stamp) = stamp::read(record.body)
        && stamp.due_us >= context.clock.wall_us(context.opens_ns)
    {
        let latency_us = context.clock.wall_us(now_ns).saturating_sub(stamp.due_us);
        tally.latencies.record(latency_us.saturating_mul(1_000));
    }
}
