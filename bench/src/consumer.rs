//! The consumer: one pull in flight per queue, as stock clients have it; queues dealt over the
//! connections. Records are walked in place in the receive buffer. The orderly consumer also holds the
//! locks of its queues, and each pull commits the messages before it.

use std::collections::HashMap;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use crate::cluster::{self, AdminConnection, Purpose, Queue};
use crate::connection::{Connection, Poller};
use crate::error::BenchError;
use crate::frame::{FrameWriter, OPAQUE_FIRST, Reply, Serialization, request, response};
use crate::lock::{OPAQUE_LOCK, QueueLocks};
use crate::options::{ConsumerOptions, From};
use crate::pop;
use crate::record::Records;
use crate::report::{Report, Tally};
use crate::run::{self, Context, Worker};
use crate::stamp;
use crate::verify::QueueCheck;

const COMMIT: i64 = 0x1;
const SUSPEND: i64 = 0x2;
const SUBSCRIPTION: i64 = 0x4;
/// How long the broker may hold a pull: what stock push consumers ask for.
const SUSPEND_MS: i64 = 15_000;
/// Pause before asking an empty queue again without long polling.
const POLL_NS: u64 = 1_000_000;
/// Pause after an error reply.
const ERROR_NS: u64 = 100_000_000;
/// Error replies in a row after which a drain gives a queue up.
const ERRORS_MAX: u32 = 50;
const WAIT_MAX: Duration = Duration::from_millis(100);

pub fn run(options: &ConsumerOptions) -> Result<Report, BenchError> {
    options.check()?;
    if options.pop {
        return pop::run(options);
    }
    let common = &options.common;
    let queues = cluster::queues(common, Purpose::Pull)?;
    let mut positions = HashMap::new();
    let mut readers = Vec::new();
    for queue in queues {
        let admin = match positions.entry(queue.broker) {
            std::collections::hash_map::Entry::Occupied(entry) => entry.into_mut(),
            std::collections::hash_map::Entry::Vacant(entry) => entry.insert(AdminConnection::open(queue.broker)?),
        };
        let code = match options.from {
            From::Begin => request::GET_MIN_OFFSET,
            From::End => request::GET_MAX_OFFSET,
        };
        let offset = admin.bound(&queue, code)?;
        readers.push(Reader::new(queue, offset, options));
    }
    drop(positions);
    let mut lanes = Vec::new();
    // Queues of one broker next to each other, so that each lane talks to one broker.
    readers.sort_by_key(|reader| reader.queue.broker);
    let mut by_broker: Vec<Vec<Reader>> = Vec::new();
    for reader in readers {
        match by_broker.last_mut() {
            Some(last) if last[0].queue.broker == reader.queue.broker => last.push(reader),
            _ => by_broker.push(vec![reader]),
        }
    }
    let client = format!("rmq-bench@{}", std::process::id());
    let per_broker = (common.connections as usize / by_broker.len().max(1)).max(1);
    for readers in by_broker {
        let mut dealt: Vec<Vec<Reader>> = Vec::new();
        dealt.resize_with(per_broker.min(readers.len()), Vec::new);
        let count = dealt.len();
        for (index, reader) in readers.into_iter().enumerate() {
            dealt[index % count].push(reader);
        }
        for readers in dealt {
            let connection = Some(Connection::open(readers[0].queue.broker)?);
            let queues = readers.iter().map(|reader| &reader.queue);
            let locks = options.orderly.then(|| QueueLocks::new(&client, &options.group, queues));
            lanes.push(Lane { connection, locks, readers });
        }
    }
    let threads = (common.threads as usize).min(lanes.len());
    let mut lanes_by_thread: Vec<Vec<Lane>> = (0..threads).map(|_| Vec::new()).collect();
    for (index, lane) in lanes.into_iter().enumerate() {
        lanes_by_thread[index % threads].push(lane);
    }
    let workers = lanes_by_thread.into_iter().map(|lanes| {
        let request = PullRequest::new(options);
        let ends = Ends::new(options);
        Box::new(move |context: &Context| Consumer::new(request, lanes, ends)?.run(context)) as Worker
    });
    run::run("consumer", common, options.drain || options.idle.is_some(), workers.collect())
}

/// What ends a consumer before its time is over.
#[derive(Clone, Copy)]
struct Ends {
    is_drain: bool,
    count_max: u64,
    idle_ns: u64,
}

impl Ends {
    fn new(options: &ConsumerOptions) -> Self {
        Self {
            is_drain: options.drain,
            count_max: options.common.count.unwrap_or(u64::MAX),
            idle_ns: options.idle.map_or(u64::MAX, |idle| idle.as_nanos() as u64),
        }
    }
}

/// The parts of a pull that are the same for every queue.
struct PullRequest {
    serialization: Serialization,
    group: String,
    subscription: String,
    expression_type: &'static str,
    count_max: i64,
    flags: i64,
}

impl PullRequest {
    fn new(options: &ConsumerOptions) -> Self {
        let is_held = options.suspend && !options.drain;
        Self {
            serialization: options.common.header,
            group: options.group.clone(),
            subscription: options.sql.as_ref().unwrap_or(&options.subscription).clone(),
            expression_type: if options.sql.is_some() { "SQL92" } else { "TAG" },
            count_max: i64::from(options.batch),
            flags: SUBSCRIPTION | if is_held { SUSPEND } else { 0 } | if options.orderly { COMMIT } else { 0 },
        }
    }

    fn is_held(&self) -> bool {
        self.flags & SUSPEND != 0
    }

    fn append_to(&self, out: &mut Vec<u8>, opaque: i32, reader: &Reader) {
        let code = request::PULL_MESSAGE;
        let mut writer = FrameWriter::begin(out, self.serialization, code, opaque);
        writer.text("consumerGroup", &self.group);
        writer.text("topic", &reader.queue.topic);
        writer.int("queueId", i64::from(reader.queue.queue_id));
        writer.int("queueOffset", reader.offset);
        writer.int("maxMsgNums", self.count_max);
        writer.int("sysFlag", self.flags);
        // Messages count as processed when the next ones are asked for.
        writer.int("commitOffset", if self.flags & COMMIT == 0 { 0 } else { reader.offset });
        writer.int("suspendTimeoutMillis", SUSPEND_MS);
        writer.text("subscription", &self.subscription);
        writer.int("subVersion", 0);
        writer.text("expressionType", self.expression_type);
        if let Some(name) = &reader.queue.broker_name {
            writer.text("bname", name);
        }
        writer.finish(0);
    }
}

enum State {
    Waiting,
    /// Ask again at this moment of the run's clock.
    Paused(u64),
    Finished,
}

/// One queue being read.
struct Reader {
    queue: Queue,
    offset: i64,
    state: State,
    /// Error replies since the last good one.
    errors: u32,
    check: Option<QueueCheck>,
}

impl Reader {
    fn new(queue: Queue, offset: i64, options: &ConsumerOptions) -> Self {
        let check = options.verify.map(|verify| {
            let sees_all = options.subscription == "*" && options.sql.is_none();
            QueueCheck::new(offset, sees_all, verify)
        });
        Self { queue, offset, state: State::Paused(0), errors: 0, check }
    }
}

struct Lane {
    connection: Option<Connection>,
    locks: Option<QueueLocks>,
    readers: Vec<Reader>,
}

struct Consumer {
    request: PullRequest,
    lanes: Vec<Lane>,
    poller: Poller,
    tally: Tally,
    ends: Ends,
}

impl Consumer {
    fn new(request: PullRequest, lanes: Vec<Lane>, ends: Ends) -> Result<Self, BenchError> {
        Ok(Self { request, lanes, poller: Poller::new()?, tally: Tally::new(), ends })
    }

    fn run(mut self, context: &Context) -> Result<Tally, BenchError> {
        for (token, lane) in self.lanes.iter().enumerate() {
            if let Some(connection) = &lane.connection {
                self.poller.watch(connection, token as u64)?;
            }
        }
        run::sharpen_timers();
        let mut ready = Vec::new();
        while !self.is_over(context) {
            let wake_ns = self.resume(context);
            let wait_ns = wake_ns.saturating_sub(context.clock.now_ns());
            ready.clear();
            ready.extend(self.poller.wait(Duration::from_nanos(wait_ns).min(WAIT_MAX))?);
            for token in &ready {
                let token = *token as usize;
                let result = self.receive(context, token).and_then(|()| self.flush(token));
                if let Err(error) = result {
                    self.close(token, &error);
                }
            }
        }
        let readers = self.lanes.iter_mut().flat_map(|lane| &mut lane.readers);
        for check in readers.filter_map(|reader| reader.check.take()) {
            self.tally.verdict.get_or_insert_default().add(&check.verdict());
        }
        Ok(self.tally)
    }

    fn is_over(&self, context: &Context) -> bool {
        let is_lost = self.lanes.iter().all(|lane| lane.connection.is_none());
        let mut readers = self.lanes.iter().flat_map(|lane| &lane.readers);
        let now_ns = context.clock.now_ns();
        is_lost
            || context.is_over(now_ns)
            || now_ns.saturating_sub(context.last_ns.load(Relaxed)) > self.ends.idle_ns
            || context.messages.load(Relaxed) >= self.ends.count_max
            || self.ends.is_drain && readers.all(|reader| matches!(reader.state, State::Finished))
    }

    /// Asks for every queue whose pause is over; returns when the next pause ends.
    fn resume(&mut self, context: &Context) -> u64 {
        let now_ns = context.clock.now_ns();
        let mut wake_ns = u64::MAX;
        for token in 0..self.lanes.len() {
            let Lane { connection, locks, readers } = &mut self.lanes[token];
            let Some(connection) = connection else {
                continue;
            };
            if let Some(locks) = locks {
                if locks.due_ns <= now_ns {
                    locks.append_to(&mut connection.output, self.request.serialization, now_ns);
                }
                wake_ns = wake_ns.min(locks.due_ns);
            }
            let may_read = locks.as_ref().is_none_or(QueueLocks::is_held);
            for (index, reader) in readers.iter_mut().enumerate() {
                match reader.state {
                    _ if !may_read => {}
                    State::Paused(until_ns) if until_ns <= now_ns => {
                        let opaque = OPAQUE_FIRST + index as i32;
                        self.request.append_to(&mut connection.output, opaque, reader);
                        reader.state = State::Waiting;
                    }
                    State::Paused(until_ns) => wake_ns = wake_ns.min(until_ns),
                    State::Waiting | State::Finished => {}
                }
            }
            if connection.has_output()
                && let Err(error) = self.flush(token)
            {
                self.close(token, &error);
            }
        }
        wake_ns
    }

    fn receive(&mut self, context: &Context, token: usize) -> Result<(), BenchError> {
        let Lane { connection, locks, readers } = &mut self.lanes[token];
        let Some(connection) = connection else {
            return Ok(());
        };
        let (request, tally, is_drain) = (&self.request, &mut self.tally, self.ends.is_drain);
        // Requests are collected here, because the connection is busy handing out frames.
        let mut output = std::mem::take(&mut connection.output);
        let result = connection.receive(|frame| {
            let reply = Reply::scan(frame)?;
            if let (Some(locks), OPAQUE_LOCK) = (locks.as_mut(), reply.opaque) {
                return on_locks(context, tally, locks, &reply);
            }
            let index = reply.opaque.wrapping_sub(OPAQUE_FIRST) as u32 as usize;
            let Some(reader) = readers.get_mut(index) else {
                return Ok(()); // a request of the broker
            };
            if !matches!(reader.state, State::Waiting) {
                return Ok(());
            }
            let now_ns = context.clock.now_ns();
            reader.state = on_reply(context, tally, reader, &reply, now_ns)?;
            let is_at_end = reply.code == response::PULL_NOT_FOUND;
            if is_drain && (is_at_end || reader.errors > ERRORS_MAX) {
                reader.state = State::Finished;
            } else if is_at_end && !request.is_held() {
                reader.state = State::Paused(now_ns + POLL_NS);
            }
            if matches!(reader.state, State::Paused(until_ns) if until_ns <= now_ns) {
                request.append_to(&mut output, reply.opaque, reader);
                reader.state = State::Waiting;
            }
            Ok(())
        });
        connection.output = output;
        result
    }

    fn flush(&mut self, token: usize) -> Result<(), BenchError> {
        match self.lanes[token].connection.as_mut() {
            Some(connection) => connection.flush(&self.poller, token as u64),
            None => Ok(()),
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

/// Takes in the answer to a lock request; queues that are somebody else's count as an error and are asked for again.
fn on_locks(context: &Context, tally: &mut Tally, locks: &mut QueueLocks, reply: &Reply<'_>) -> Result<(), BenchError> {
    if !locks.take(reply, context.clock.now_ns())? {
        tally.errors.count(reply.code, "not all queues were locked", 1);
        context.errors.fetch_add(1, Relaxed);
    }
    Ok(())
}

/// Takes in one answer; says when the queue is to be asked again.
fn on_reply(
    context: &Context,
    tally: &mut Tally,
    reader: &mut Reader,
    reply: &Reply<'_>,
    now_ns: u64,
) -> Result<State, BenchError> {
    match reply.code {
        response::SUCCESS => on_records(context, tally, reader, reply, now_ns)?,
        response::PULL_NOT_FOUND | response::PULL_RETRY_IMMEDIATELY | response::PULL_OFFSET_MOVED => {}
        _ => {
            tally.errors.count(reply.code, &reply.remark(), 1);
            context.errors.fetch_add(1, Relaxed);
            reader.errors += 1;
            return Ok(State::Paused(now_ns + ERROR_NS));
        }
    }
    let next = reply
        .ext_int("nextBeginOffset")
        .ok_or_else(|| BenchError::Answer { what: "a pull", reason: "no nextBeginOffset in it".to_owned() })?;
    if reply.code == response::PULL_OFFSET_MOVED {
        let remark = reply.remark();
        tally.errors.count(reply.code, &remark, 1);
        if let Some(check) = &mut reader.check {
            check.move_to(next);
        }
    }
    if context.is_measured(now_ns) {
        tally.examined += u64::try_from(next - reader.offset).unwrap_or_default();
    }
    reader.offset = next;
    reader.errors = 0;
    Ok(State::Paused(0))
}

fn on_records(
    context: &Context,
    tally: &mut Tally,
    reader: &mut Reader,
    reply: &Reply<'_>,
    now_ns: u64,
) -> Result<(), BenchError> {
    let now_us = context.clock.wall_us(now_ns);
    let opens_us = context.clock.wall_us(context.opens_ns);
    let (mut messages, mut bytes) = (0, 0);
    for record in Records::new(reply.body) {
        let record = record.map_err(|bad| BenchError::Answer {
            what: "a pull",
            reason: format!("no record at byte {} of {}", bad.at, reply.body.len()),
        })?;
        messages += 1;
        bytes += record.body.len() as u64;
        if let Some(check) = &mut reader.check {
            check.take(&record);
        }
        let due_us = stamp::read(record.body).map(|stamp| stamp.due_us);
        if let Some(due_us) = due_us.ok().filter(|due_us| *due_us >= opens_us) {
            // Brokers count in milliseconds.
            tally.early += u64::from(now_us / 1_000 < due_us / 1_000);
            tally.latencies.record(now_us.saturating_sub(due_us).saturating_mul(1_000));
        }
    }
    context.publish(now_ns, messages, bytes);
    if context.is_measured(now_ns) {
        tally.replies += 1;
        tally.messages += messages;
        tally.bytes += bytes;
    }
    Ok(())
}
