//! One core's app: sockets on one side, services on the other.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::io;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::{Duration, Instant};

use rmq_engine::Slice;
use rmq_engine::driver::RingDriver;
use rmq_namesrv::{Answered, NameServer};
use rmq_net::connection::{Accepted, Connections, FrameHandler, Listener, ListenerRole, Outbox, Peer, Verdict};
use rmq_net::frame::Frame;
use rmq_turn::{App, Clock, Completion, Core, Waiting};

use crate::broker::{Broker, SYSTEM_CORE};
use crate::letter::{Letter, ReplyParcel};

/// How often deadlines measured in seconds are looked at.
const TICK: Duration = Duration::from_millis(100);
const IDLE_SCAN: Duration = Duration::from_secs(10);
const NAME_SERVER_SCAN: Duration = Duration::from_secs(5);
/// Up to this many requests that wait for the log, the core answers each as soon as it can; with more, a larger batch
/// costs the device less and makes nobody wait much longer.
const FEW_WAITING: usize = 8;
/// A stop waits this long for replies under way.
const DRAIN: Duration = Duration::from_secs(3);
/// And then this long for the snapshot that makes the next start quick.
const SNAPSHOT_WAIT: Duration = Duration::from_secs(30);

/// The process asking its cores to stop: 0 run, 1 drain and stop.
#[derive(Clone, Default)]
pub struct StopFlag(Arc<AtomicU8>);

impl StopFlag {
    pub fn raise(&self) {
        self.0.store(1, Ordering::SeqCst);
    }

    pub fn is_raised(&self) -> bool {
        self.0.load(Ordering::SeqCst) != 0
    }
}

/// What answers requests on this core.
pub struct Services {
    pub broker: Option<Broker>,
    pub name_server: Option<NameServer>,
    /// Where the core's steady time begins; see [`Self::set_now`].
    started: Instant,
    /// Milliseconds since `started`. Silence is measured with it: the wall clock may jump.
    steady_ms: i64,
}

impl FrameHandler<Slice> for Services {
    fn on_frame(&mut self, peer: &Peer, bytes: &[u8], outbox: &mut Outbox<Slice>) -> Verdict {
        match (peer.role, &mut self.name_server, &mut self.broker) {
            (ListenerRole::NameServer, Some(name_server), _) => {
                let Ok(frame) = Frame::decode(bytes) else { return Verdict::Close };
                match name_server.handle(&frame, peer.id, peer.address, self.steady_ms, outbox.bytes()) {
                    Answered::Now => Verdict::Done,
                    Answered::Later => Verdict::Later,
                }
            }
            (ListenerRole::Broker | ListenerRole::BrokerFast, _, Some(broker)) => broker.on_frame(peer, bytes),
            _ => unreachable!("only roles this core serves are dealt to it"),
        }
    }

    fn on_closed(&mut self, peer: &Peer) {
        match (peer.role, &mut self.name_server, &mut self.broker) {
            (ListenerRole::NameServer, Some(name_server), _) => {
                name_server.on_closed(peer.id);
            }
            (_, _, Some(broker)) => crate::system::on_connection_closed(broker, peer.id),
            _ => {}
        }
    }
}

pub struct Node {
    connections: Connections<Slice>,
    listeners: Vec<Listener>,
    services: Services,
    disk: Option<RingDriver>,
    stop: StopFlag,
    stopping_since: Option<Instant>,
    /// Since when every reply is out and the shard takes its last snapshot.
    drained_since: Option<Instant>,
    next_core: usize,
    /// When the turn began whose wall time the broker has.
    turn_began: Instant,
    next_tick: Instant,
    next_idle_scan: Instant,
    /// Messages appended and windows of the log read as of the last such scan.
    work_at_scan: u64,
    next_name_server_scan: Instant,
    /// Results of the name server's file writes.
    written_files: Rc<RefCell<VecDeque<io::Result<()>>>>,
}

impl Node {
    pub fn new(
        connections: Connections<Slice>,
        listeners: Vec<Listener>,
        broker: Option<(Broker, RingDriver)>,
        name_server: Option<NameServer>,
        stop: StopFlag,
        now: Instant,
    ) -> Self {
        let (broker, disk) = broker.unzip();
        Self {
            connections,
            listeners,
            services: Services { broker, name_server, started: now, steady_ms: 0 },
            disk,
            stop,
            stopping_since: None,
            drained_since: None,
            next_core: 0,
            turn_began: now,
            next_tick: now,
            next_idle_scan: now + IDLE_SCAN,
            work_at_scan: 0,
            next_name_server_scan: now + NAME_SERVER_SCAN,
            written_files: Rc::default(),
        }
    }

    /// Deals connections out to the cores in turn; the name server's stay on the system core.
    fn place(&mut self, core: &mut Core<Letter>, accepted: Accepted) {
        if accepted.role == ListenerRole::NameServer {
            self.connections.adopt(&mut core.ring, accepted, self.services.steady_ms);
            return;
        }
        let target = self.next_core;
        self.next_core = (self.next_core + 1) % core.post.core_count();
        if target == core.index() {
            self.connections.adopt(&mut core.ring, accepted, self.services.steady_ms);
        } else {
            core.post.send(target, Letter::Connection(accepted));
        }
    }

    /// Puts encoded frames into the outboxes of this core's connections.
    fn deliver(&mut self, parcel: &mut ReplyParcel) {
        let mut start = 0;
        let mut slices = parcel.slices.drain(..);
        for item in &parcel.items {
            let bytes = &parcel.bytes[start..start + item.bytes_count as usize];
            start += bytes.len();
            let mut body = slices.by_ref().take(item.slices_count as usize);
            match self.connections.answer(item.connection, item.answers) {
                Some(outbox) => {
                    outbox.bytes().extend_from_slice(bytes);
                    body.for_each(|slice| outbox.share(slice));
                }
                // The client is gone; its slices are released here.
                None => while body.next().is_some() {},
            }
        }
    }

    fn run_broker(&mut self, core: &mut Core<Letter>) {
        let (Some(broker), Some(disk)) = (&mut self.services.broker, &mut self.disk) else { return };
        broker.on_turn_end(core.clock.wall_ms);
        disk.run(core, &mut broker.shard);
        for id in std::mem::take(&mut broker.closes) {
            self.connections.close(id, &mut self.services);
        }
        let Some(broker) = &mut self.services.broker else { return };
        let post = &mut core.post;
        broker.drain_letters(|to, letter| post.send(to, letter));
        if let Some(mut own) = broker.take_own_replies() {
            self.deliver(&mut own);
            if let Some(broker) = &mut self.services.broker {
                broker.on_delivered(own);
            }
        }
    }

    fn run_name_server(&mut self, core: &mut Core<Letter>) {
        let Some(name_server) = &mut self.services.name_server else { return };
        if core.clock.monotonic >= self.next_name_server_scan {
            self.next_name_server_scan = core.clock.monotonic + NAME_SERVER_SCAN;
            name_server.tick(self.services.steady_ms);
        }
        while let Some(written) = self.written_files.borrow_mut().pop_front() {
            name_server.on_written(written);
        }
        if let Some(write) = name_server.take_write() {
            let written_files = self.written_files.clone();
            core.spawn_background(async move {
                let written = rmq_turn::run_blocking(move || write.run()).await;
                written_files.borrow_mut().push_back(written);
            });
        }
        for reply in name_server.take_replies() {
            if let Some(outbox) = self.connections.answer(reply.peer, 1) {
                outbox.bytes().extend_from_slice(&reply.frame);
            }
        }
        let pushes = name_server.take_pushes();
        let closes = name_server.take_closes();
        for push in pushes {
            if let Some(outbox) = self.connections.answer(push.peer, 0) {
                outbox.bytes().extend_from_slice(&push.frame);
            }
        }
        for id in closes {
            self.connections.close(id, &mut self.services);
        }
    }

    /// On the way out: once nobody waits for a reply any more, asks the shard for its last snapshot.
    fn run_stop(&mut self, now: Instant) {
        let Some(since) = self.stopping_since.filter(|_| self.drained_since.is_none()) else { return };
        let is_busy = self.connections.is_sending() || self.services.is_busy();
        let stopping_for = now - since;
        if !is_busy && stopping_for > Duration::from_millis(200) || stopping_for > DRAIN {
            self.drained_since = Some(now);
            if let Some(broker) = &mut self.services.broker {
                broker.shard.want_snapshot();
            }
        }
    }

    fn release_if_quiet(&mut self) {
        let Some(broker) = &mut self.services.broker else { return };
        let counters = broker.shard.counters();
        let work = counters.messages_appended + counters.reads.windows_read;
        if std::mem::replace(&mut self.work_at_scan, work) == work {
            broker.release_spare_buffers();
        }
    }

    fn run_timers(&mut self, core: &mut Core<Letter>) {
        let (now, steady_ms) = (core.clock.monotonic, self.services.steady_ms);
        if now >= self.next_tick {
            self.next_tick = now + TICK;
            self.connections.close_hoarders(steady_ms, &mut self.services);
            self.connections.close_unread(steady_ms, &mut self.services);
        }
        if now >= self.next_idle_scan {
            self.next_idle_scan = now + IDLE_SCAN;
            self.connections.close_idle(steady_ms, &mut self.services);
            self.release_if_quiet();
        }
        if self.stop.is_raised() && self.stopping_since.is_none() {
            self.stopping_since = Some(now);
            if let Some(broker) = &mut self.services.broker {
                crate::system::begin_stop(broker);
            }
        }
    }
}

impl App for Node {
    type Letter = Letter;

    fn on_completion(&mut self, core: &mut Core<Letter>, completion: Completion) {
        self.services.set_now(&core.clock);
        match completion.token.kind {
            Connections::<Slice>::RECEIVE_KIND | Connections::<Slice>::SEND_KIND => {
                let now_ms = self.services.steady_ms;
                self.connections.on_completion(&mut core.ring, &completion, &mut self.services, now_ms);
            }
            Listener::KIND => {
                let listener = &mut self.listeners[completion.token.index as usize];
                let accepted = listener.on_completion(&completion);
                if let Some(accepted) = accepted.filter(|_| self.stopping_since.is_none()) {
                    self.place(core, accepted);
                }
            }
            _ => {
                if let (Some(disk), Some(broker)) = (&mut self.disk, &mut self.services.broker) {
                    disk.on_completion(&completion, &mut broker.shard);
                }
            }
        }
    }

    fn on_letter(&mut self, core: &mut Core<Letter>, from: usize, letter: Letter) {
        self.services.set_now(&core.clock);
        match letter {
            Letter::Connection(accepted) => {
                self.connections.adopt(&mut core.ring, accepted, self.services.steady_ms);
                return;
            }
            Letter::Replies(mut parcel) => {
                self.deliver(&mut parcel);
                return core.post.send(from, Letter::Delivered(parcel));
            }
            Letter::CloseConnection(id) => return self.connections.close(id, &mut self.services),
            _ => {}
        }
        if let Some(broker) = &mut self.services.broker {
            broker.on_letter(from, letter);
        }
    }

    fn on_turn_end(&mut self, core: &mut Core<Letter>) {
        self.services.set_now(&core.clock);
        self.turn_began = core.clock.monotonic;
        if core.index() == SYSTEM_CORE && self.stopping_since.is_none() {
            self.listeners.iter_mut().for_each(|listener| listener.arm(&mut core.ring));
        }
        self.run_timers(core);
        self.run_stop(core.clock.monotonic);
        if self.connections.has_stalled() {
            self.connections.resume(&mut core.ring, &mut self.services);
        }
        self.run_broker(core);
        self.run_name_server(core);
        self.connections.submit(&mut core.ring, &mut self.services);
    }

    fn deadline(&self) -> Option<Instant> {
        if self.connections.wants_turn() || self.services.broker.as_ref().is_some_and(Broker::wants_turn) {
            return Some(self.services.started); // Long past: at once.
        }
        let owed = self.services.broker.as_ref().and_then(|broker| broker.owed.due_in_ms(broker.now_ms));
        let owed = owed.and_then(|in_ms| self.turn_began.checked_add(Duration::from_millis(in_ms as u64)));
        Some(owed.map_or(self.next_tick, |owed| owed.min(self.next_tick)))
    }

    fn waited_for_by(&self) -> Waiting {
        match self.services.broker.as_ref().map_or(0, Broker::waiting_count) {
            0 => Waiting::Nobody,
            count if count <= FEW_WAITING => Waiting::Few,
            _ => Waiting::Many,
        }
    }

    fn is_finished(&self) -> bool {
        let Some(since) = self.drained_since else { return false };
        let is_taking_snapshot = self.services.broker.as_ref().is_some_and(|broker| broker.shard.is_taking_snapshot());
        !is_taking_snapshot || since.elapsed() > SNAPSHOT_WAIT
    }

    fn name_of(kind: u8) -> &'static str {
        match kind {
            Listener::KIND => "accepting connections",
            Connections::<Slice>::RECEIVE_KIND => "requests received from connections",
            Connections::<Slice>::SEND_KIND => "replies sent to connections",
            RingDriver::KIND => "reads and writes of the disk",
            _ => unreachable!("nobody submits operations of kind {kind}"),
        }
    }
}

impl Services {
    /// Whether somebody waits for an answer.
    fn is_busy(&self) -> bool {
        self.broker.as_ref().is_some_and(Broker::is_busy)
            || self.name_server.as_ref().is_some_and(NameServer::is_changing)
    }

    /// The name server and the connections get steady time, the broker wall time, which it stores with messages.
    fn set_now(&mut self, clock: &Clock) {
        let steady = clock.monotonic.saturating_duration_since(self.started);
        self.steady_ms = i64::try_from(steady.as_millis()).unwrap_or(i64::MAX);
        if let Some(broker) = &mut self.broker {
            broker.now_ms = clock.wall_ms;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_jump_of_the_wall_clock_is_no_silence() {
        let started = Instant::now();
        let mut services = Services { broker: None, name_server: None, started, steady_ms: 0 };
        let now = |seconds, wall_ms| Clock { monotonic: started + Duration::from_secs(seconds), wall_ms };
        let year_ms = 365 * 86_400_000;
        for (clock, steady_ms) in [
            (now(1, 1_700_000_000_000), 1_000),
            (now(2, 1_700_000_000_000 + year_ms), 2_000),
            (now(3, 1_700_000_000_000 - year_ms), 3_000),
        ] {
            services.set_now(&clock);
            assert_eq!(services.steady_ms, steady_ms);
        }
    }
}
