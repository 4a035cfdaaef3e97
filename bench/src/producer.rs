//! The producer: frames written once per queue and patched per message, closed or open loop.
//!
//! A *lane* is one connection with its requests in flight. The opaque of a request is the number of
//! its slot in the lane, so a reply finds its send time by index. A transaction keeps its slot from the half message to the
//! answered commit.

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::cluster::{self, Purpose, Queue};
use crate::connection::{Connection, Poller};
use crate::error::BenchError;
use crate::frame::{OPAQUE_FIRST, Reply, response};
use crate::options::ProducerOptions;
use crate::report::{Report, Tally};
use crate::run::{self, Context, Worker};
use crate::send_frame::{MessageId, SendFrames};
use crate::transaction::Commits;

/// How long answers are waited for after the last request.
const DRAIN_NS: u64 = 5_000_000_000;
const WAIT_MAX: Duration = Duration::from_millis(100);

pub fn run(options: &ProducerOptions) -> Result<Report, BenchError> {
    options.check()?;
    let queues = match options.create_topic {
        true => cluster::create_topics(&options.common)?,
        false => cluster::queues(&options.common, Purpose::Send)?,
    };
    let queues = Arc::new(queues);
    let mut brokers: Vec<_> = queues.iter().map(|queue| queue.broker).collect();
    brokers.sort();
    brokers.dedup();
    let run_id = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let run_id = (run_id.as_nanos() as u64 ^ u64::from(std::process::id()) << 20) << 32;
    let common = &options.common;
    let threads = common.threads.min(common.connections) as usize;
    let mut lanes_by_thread: Vec<Vec<Lane>> = (0..threads).map(|_| Vec::new()).collect();
    for index in 0..common.connections as usize {
        let broker = brokers[index % brokers.len()];
        let producer = run_id | index as u64;
        let lane = Lane::open(broker, &queues, producer, index, options.in_flight)?;
        lanes_by_thread[index % threads].push(lane);
    }
    let workers = lanes_by_thread.into_iter().enumerate().map(|(index, lanes)| {
        let frames = SendFrames::new(options, &queues);
        let requests_max = options
            .common
            .count
            .map_or(u64::MAX, |count| share(count.div_ceil(u64::from(options.batch)), index, threads));
        let interval_ns = options.rate.map(|rate| 1e9 * f64::from(options.batch) * threads as f64 / rate);
        // Requests of the threads fall between each other.
        let phase_ns = interval_ns.map_or(0.0, |interval| interval * index as f64 / threads as f64);
        let commits = (options.transaction && !options.leave_open)
            .then(|| Commits { serialization: common.header, group: options.group.clone() });
        let queues = queues.clone();
        let load = Load { frames, queues, commits, requests_max, requests: 0, interval_ns, phase_ns, next_lane: 0 };
        Box::new(move |context: &Context| Producer::new(load, lanes)?.run(context)) as Worker
    });
    run::run("producer", common, false, workers.collect())
}

/// Part `index` of `total` dealt over `parts`.
fn share(total: u64, index: usize, parts: usize) -> u64 {
    let (index, parts) = (index as u64, parts as u64);
    total / parts + u64::from(index < total % parts)
}

/// A request in flight.
#[derive(Clone, Copy, Default)]
struct Slot {
    /// When it was meant to be sent; absent in a free slot.
    intended_ns: Option<u64>,
    /// The half message it sends, and the index of its queue, while its commit is still to be sent.
    half: Option<(MessageId, usize)>,
}

struct Lane {
    connection: Option<Connection>,
    slots: Vec<Slot>,
    free: Vec<u32>,
    /// Indices of this lane's queues in the frames, each with the next sequence number.
    queues: Vec<(usize, u64)>,
    next_queue: usize,
    producer: u64,
    /// Messages sent so far.
    sent: u64,
    /// Messages acknowledged inside the measured window.
    acknowledged: u64,
}

impl Lane {
    fn open(
        broker: std::net::SocketAddr,
        queues: &[Queue],
        producer: u64,
        index: usize,
        in_flight: u32,
    ) -> Result<Self, BenchError> {
        let own = queues.iter().enumerate().filter(|(_, queue)| queue.broker == broker);
        let own: Vec<_> = own.map(|(index, _)| (index, 0)).collect();
        Ok(Self {
            connection: Some(Connection::open(broker)?),
            slots: vec![Slot::default(); in_flight as usize],
            free: (0..in_flight).rev().collect(),
            next_queue: index % own.len().max(1),
            queues: own,
            producer,
            sent: 0,
            acknowledged: 0,
        })
    }

    fn in_flight(&self) -> usize {
        self.slots.len() - self.free.len()
    }

    fn can_send(&self) -> bool {
        self.connection.is_some() && !self.free.is_empty()
    }
}

/// What is to be sent.
struct Load {
    frames: SendFrames,
    queues: Arc<Vec<Queue>>,
    /// Transactions: what follows each half message.
    commits: Option<Commits>,
    requests_max: u64,
    requests: u64,
    /// Open loop: time between two requests of this thread.
    interval_ns: Option<f64>,
    phase_ns: f64,
    next_lane: usize,
}

impl Load {
    fn is_open_loop(&self) -> bool {
        self.interval_ns.is_some()
    }

    /// When the next request of an open loop is due.
    fn due_ns(&self) -> u64 {
        let interval = self.interval_ns.unwrap_or(0.0);
        (self.phase_ns + interval * self.requests as f64) as u64
    }

    /// Queues one request on a lane that has a free slot.
    fn send(&mut self, context: &Context, lane: &mut Lane, intended_ns: u64) {
        let (Some(connection), Some(slot)) = (lane.connection.as_mut(), lane.free.pop()) else {
            return;
        };
        let (queue, sequence) = &mut lane.queues[lane.next_queue];
        let id = MessageId {
            producer: lane.producer,
            sequence: *sequence,
            serial: lane.sent,
            sent_us: context.clock.wall_us(intended_ns),
        };
        let half = self.commits.is_some().then_some((id, *queue));
        lane.slots[slot as usize] = Slot { intended_ns: Some(intended_ns), half };
        let opaque = OPAQUE_FIRST + slot as i32;
        self.frames.append_to(&mut connection.output, *queue, opaque, id);
        *sequence += self.frames.messages_per_request();
        lane.sent += self.frames.messages_per_request();
        lane.next_queue += 1;
        if lane.next_queue == lane.queues.len() {
            lane.next_queue = 0;
        }
        self.requests += 1;
    }
}

struct Producer {
    load: Load,
    lanes: Vec<Lane>,
    poller: Poller,
    tally: Tally,
}

impl Producer {
    fn new(load: Load, lanes: Vec<Lane>) -> Result<Self, BenchError> {
        Ok(Self { load, lanes, poller: Poller::new()?, tally: Tally::new() })
    }

    fn run(mut self, context: &Context) -> Result<Tally, BenchError> {
        for (token, lane) in self.lanes.iter().enumerate() {
            if let Some(connection) = &lane.connection {
                self.poller.watch(connection, token as u64)?;
            }
        }
        if self.load.is_open_loop() {
            run::sharpen_timers();
        } else {
            for token in 0..self.lanes.len() {
                self.refill(context, token);
            }
        }
        let mut ready = Vec::new();
        let mut drained_by_ns = None;
        loop {
            let now_ns = context.clock.now_ns();
            if self.is_sending(context, now_ns) {
                if self.load.is_open_loop() {
                    self.send_due(context, now_ns);
                }
            } else {
                let by_ns = *drained_by_ns.get_or_insert(now_ns + DRAIN_NS);
                if now_ns >= by_ns || self.lanes.iter().all(|lane| lane.in_flight() == 0) {
                    break;
                }
            }
            if self.lanes.iter().all(|lane| lane.connection.is_none()) {
                break;
            }
            ready.clear();
            ready.extend(self.poller.wait(self.patience(context))?);
            for token in &ready {
                self.on_ready(context, *token as usize);
            }
        }
        let unanswered: usize = self.lanes.iter().map(Lane::in_flight).sum();
        self.tally.unanswered += unanswered as u64;
        self.tally.by_connection.extend(self.lanes.iter().map(|lane| lane.acknowledged));
        Ok(self.tally)
    }

    fn is_sending(&self, context: &Context, now_ns: u64) -> bool {
        self.load.requests < self.load.requests_max && !context.is_over(now_ns)
    }

    /// How long to wait for answers before something else is due.
    fn patience(&self, context: &Context) -> Duration {
        let now_ns = context.clock.now_ns();
        let mut wait_ns = WAIT_MAX.as_nanos() as u64;
        if self.load.is_open_loop() && self.is_sending(context, now_ns) && self.lanes.iter().any(Lane::can_send) {
            wait_ns = wait_ns.min(self.load.due_ns().saturating_sub(now_ns));
        }
        Duration::from_nanos(wait_ns)
    }

    /// Open loop: sends everything that is due, over the lanes in turn. When all of them are full
    /// the requests wait, and their latency counts from when they were due.
    fn send_due(&mut self, context: &Context, now_ns: u64) {
        while self.load.due_ns() <= now_ns && self.load.requests < self.load.requests_max {
            let count = self.lanes.len();
            let next =
                (0..count).map(|step| (self.load.next_lane + step) % count).find(|index| self.lanes[*index].can_send());
            let Some(index) = next else { break };
            let due_ns = self.load.due_ns();
            self.load.send(context, &mut self.lanes[index], due_ns);
            self.load.next_lane = (index + 1) % count;
        }
        for token in 0..self.lanes.len() {
            let connection = self.lanes[token].connection.as_ref();
            if connection.is_some_and(Connection::has_output) {
                self.flush(token);
            }
        }
    }

    /// Closed loop: sends until the lane is full again.
    fn refill(&mut self, context: &Context, token: usize) {
        let now_ns = context.clock.now_ns();
        let lane = &mut self.lanes[token];
        while lane.can_send() && self.load.requests < self.load.requests_max && !context.is_over(now_ns) {
            self.load.send(context, lane, now_ns);
        }
        self.flush(token);
    }

    fn on_ready(&mut self, context: &Context, token: usize) {
        if let Err(error) = self.receive(context, token) {
            self.close(token, &error);
            return;
        }
        if self.load.is_open_loop() {
            self.flush(token);
        } else {
            self.refill(context, token);
        }
    }

    fn receive(&mut self, context: &Context, token: usize) -> Result<(), BenchError> {
        let lane = &mut self.lanes[token];
        let Some(connection) = lane.connection.as_mut() else {
            return Ok(());
        };
        let messages_per_request = self.load.frames.messages_per_request();
        let bytes_per_request = self.load.frames.body_bytes_per_request();
        let tally = &mut self.tally;
        let mut acknowledged = 0;
        let mut now_ns = 0;
        // Commits are collected here, because the connection is busy handing out frames.
        let mut output = std::mem::take(&mut connection.output);
        let (queues, commits) = (&self.load.queues, &self.load.commits);
        let result = connection.receive(|frame| {
            if now_ns == 0 {
                now_ns = context.clock.now_ns();
            }
            let reply = Reply::scan(frame)?;
            let index = reply.opaque.wrapping_sub(OPAQUE_FIRST) as u32;
            let slot = lane.slots.get_mut(index as usize).filter(|slot| slot.intended_ns.is_some());
            let Some(slot) = slot else {
                return Ok(()); // a request of the broker, or an answer nobody waits for
            };
            if let (Some(commits), Some((id, queue)), response::SUCCESS) = (commits, slot.half.take(), reply.code) {
                return commits.append_to(&mut output, reply.opaque, &queues[queue].topic, id, &reply);
            }
            let intended_ns = slot.intended_ns.take().unwrap_or(now_ns);
            lane.free.push(index);
            if reply.code != response::SUCCESS {
                tally.errors.count(reply.code, &reply.remark(), messages_per_request);
                context.errors.fetch_add(messages_per_request, std::sync::atomic::Ordering::Relaxed);
                return Ok(());
            }
            acknowledged += 1;
            if context.is_measured(intended_ns) {
                tally.latencies.record(now_ns.saturating_sub(intended_ns));
            }
            Ok(())
        });
        connection.output = output;
        if acknowledged > 0 {
            let (messages, bytes) = (acknowledged * messages_per_request, acknowledged * bytes_per_request);
            context.publish(now_ns, messages, bytes);
            if context.is_measured(now_ns) {
                tally.replies += acknowledged;
                tally.messages += messages;
                lane.acknowledged += messages;
                tally.bytes += bytes;
            }
        }
        result
    }

    fn flush(&mut self, token: usize) {
        let Some(connection) = self.lanes[token].connection.as_mut() else {
            return;
        };
        if let Err(error) = connection.flush(&self.poller, token as u64) {
            self.close(token, &error);
        }
    }

    #[cold]
    fn close(&mut self, token: usize, error: &BenchError) {
        let lane = &mut self.lanes[token];
        if let Some(connection) = lane.connection.take() {
            eprintln!("connection {token} is lost: {error}");
            self.poller.forget(&connection);
            self.tally.closed_connections += 1;
            self.tally.unanswered += lane.in_flight() as u64;
            lane.free = (0..lane.slots.len() as u32).collect();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_add_up_to_the_total() {
        for (total, parts) in [(10, 3), (2, 4), (0, 2), (9, 9)] {
            let sum: u64 = (0..parts).map(|index| share(total, index, parts)).sum();
            assert_eq!(sum, total);
        }
    }
}
