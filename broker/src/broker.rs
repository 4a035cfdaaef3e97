//! One core's broker: its shard, its copies of the settings, and the requests that wait.
//!
//! Every request is handled on the core that owns what it is about: a queue's core for sends, pulls and
//! offsets, core 0 (the *system core*) for topics, groups, clients and locks. A request that arrives
//! elsewhere is forwarded whole, one letter there and one back. No state is shared between cores.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::Arc;

use bytes::Bytes;
use rmq_engine::{AppendError, LogPosition, Shard, Slice, Ticket, shard_of};
use rmq_net::codes::{request, response};
use rmq_net::connection::{ConnectionId, ListenerRole, Peer, Verdict};
use rmq_net::frame::Frame;
use rmq_net::header::send::SendHeader;
use rmq_net::message::properties;
use rmq_net::reply::{ExtPrefix, ExtWriter, FrameWriter};
use rustc_hash::FxHashMap;

use crate::ask::ClientQuestions;
use crate::config::{BrokerConfig, FlushDiskType};
use crate::filter::CompiledFilters;
use crate::gather::{self, Gathers};
use crate::letter::{Letter, Origin, Purpose, ReplyAddress, ReplyItem, ReplyParcel, Request, RequestParcel};
use crate::owed::Owed;
use crate::poll::LongPolls;
use crate::request::pop::wait::Pops;
use crate::request::send::SendDone;
use crate::request::transaction::Halves;
use crate::request::{self as requests, Job};
use crate::retention::Retention;
use crate::scrubber::ScrubState;
use crate::state::checks;
use crate::state::clients::GroupViews;
use crate::state::groups::GroupTable;
use crate::state::locks::LockedGroups;
use crate::state::resets::Resets;
use crate::state::settings::{CheckSettings, SettingKind};
use crate::state::stats::Counters;
use crate::state::topics::TopicTable;
use crate::system::System;
use crate::unique_key::UniqueKeys;

/// The core that owns topics, groups, clients and locks.
pub const SYSTEM_CORE: usize = 0;
/// Bytes of requests forwarded to one other core and not yet taken in there; beyond it the sending
/// connections wait.
pub(crate) const FORWARDED_BYTES_MAX: usize = 4 << 20;
/// How often one request may be handed on. The longest way it needs is from the client's core to the system core
/// (unknown group), from there to the queue's core, and once each more for a topic that is being made or removed.
const HOPS_MAX: u8 = 4;
/// How often a core forgets expired locks and hands its counts to the system core.
const TICK_MS: i64 = 1000;
/// Empty parcels a core keeps for its next turns, and the largest it keeps.
const SPARE_PARCELS_MAX: usize = 8;
const SPARE_BYTES_MAX: usize = 1 << 20;
/// What empty parcels keep at most: those for requests and those for replies.
pub(crate) const SPARE_PARCEL_BYTES: u64 = 2 * (SPARE_PARCELS_MAX * SPARE_BYTES_MAX) as u64;
/// The smallest record a send makes: it bounds how many can wait for a given number of bytes.
const RECORD_BYTES_MIN: u64 = 92;

/// What the sends that wait for so many bytes of log need to be answered; a list that grows has room for as much again.
pub(crate) fn parked_bytes_max(undurable_bytes_max: u64) -> u64 {
    undurable_bytes_max / RECORD_BYTES_MIN * 2 * size_of::<Waiting>() as u64
}

/// A refusal: RocketMQ's code and a remark that says what is wrong and which limit or setting decides it.
#[derive(Debug)]
pub struct Refusal {
    pub code: i32,
    pub remark: String,
}

impl Refusal {
    #[cold]
    pub fn new(code: i32, remark: impl Into<String>) -> Self {
        Self { code, remark: remark.into() }
    }
}

impl From<checks::Refusal> for Refusal {
    #[cold]
    fn from(refusal: checks::Refusal) -> Self {
        Self::new(refusal.code, refusal.remark)
    }
}

impl From<rmq_net::header::HeaderError> for Refusal {
    #[cold]
    fn from(error: rmq_net::header::HeaderError) -> Self {
        Self::new(response::SYSTEM_ERROR, error.to_string())
    }
}

/// What became of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Handled {
    /// Answered, or taken over by something that will answer.
    Taken,
    /// No room in the shard or on the way to another core: try the same request again later.
    Full,
}

/// What a request's handler returns.
pub type Outcome = Result<Handled, Refusal>;

/// A body for a reply.
pub enum Body<'a> {
    None,
    Bytes(&'a [u8]),
    Slices(Vec<Slice>),
}

/// Something that waits for the log to be durable up to a position. If the log fails first, whoever waits for an
/// answer gets a refusal.
pub enum After {
    SendDone(SendDone),
    Reply {
        to: ReplyAddress,
        code: i32,
    },
    /// Handle this request of this core's again.
    Again {
        origin: Origin,
        frame: Bytes,
    },
    /// Work that ends with an answer to `to`.
    Answer {
        to: ReplyAddress,
        work: Work,
    },
    /// Tell the core that asked for a change that it is made.
    Changed {
        asker: usize,
        number: u64,
    },
    /// Work nobody waits for.
    Do(Work),
}

struct Waiting {
    position: LogPosition,
    since_ms: i64,
    after: After,
}

pub type Work = Box<dyn FnOnce(&mut Broker)>;

/// Numbers of one core, summed up over the cores when asked for.
#[derive(Clone, Copy, Debug, Default)]
pub struct PathCounters {
    pub stalled_requests: u64,
    pub forwarded_requests: u64,
}

/// What a broker is made of when its core starts.
pub struct BrokerParts {
    pub config: Arc<BrokerConfig>,
    pub core_count: usize,
    pub store_host: SocketAddr,
    pub shard: Shard,
    pub topics: TopicTable,
    pub groups: GroupTable,
    /// On the system core.
    pub system: Option<System>,
    pub scrub_state: Arc<ScrubState>,
}

fn check_settings(config: &BrokerConfig) -> CheckSettings {
    CheckSettings {
        broker_ip: config.broker_ip1.clone(),
        broker_permission: config.broker_permission,
        start_accept_send_ms: config.start_accept_send_request_time_stamp,
        lite_pull_message_enable: config.lite_pull_message_enable,
        enable_property_filter: config.enable_property_filter,
        reject_pull_consumer_enable: config.reject_pull_consumer_enable,
    }
}

pub struct Broker {
    pub core: usize,
    pub core_count: usize,
    pub config: Arc<BrokerConfig>,
    pub now_ms: i64,
    pub shard: Shard,
    pub topics: TopicTable,
    pub groups: GroupTable,
    /// Subscriptions of the groups that are online, by group.
    pub views: GroupViews,
    /// Of pulls that bring their own expression.
    pub filters: CompiledFilters,
    pub locked_groups: LockedGroups,
    /// Only on the system core.
    pub system: Option<System>,
    pub check_settings: CheckSettings,
    /// `brokerIP1:listenPort`, stored with every message: clients find it by the message id.
    pub store_host: SocketAddr,
    /// Properties every single message gets, encoded once.
    pub stamp: Box<[u8]>,
    /// The fields every reply to a send begins with, encoded once.
    pub send_reply_prefix: Arc<ExtPrefix>,
    /// What this core counted since the system core last asked.
    pub counters: Counters,
    pub polls: LongPolls,
    pub resets: Resets,
    pub pops: Pops,
    pub gathers: Gathers,
    pub owed: Owed,
    /// What clients were asked and have not answered yet.
    pub questions: ClientQuestions,
    pub halves: Halves,
    pub paths: PathCounters,
    /// Reused for the properties of the message being stored.
    pub(crate) scratch: Vec<u8>,
    random: u64,
    unique_keys: UniqueKeys,
    next_tick_ms: i64,
    pub(crate) retention: Retention,
    pub scrub_state: Arc<ScrubState>,
    waiting_for_log: VecDeque<Waiting>,
    jobs: FxHashMap<u64, Job>,
    next_job: u64,
    /// Where the last change of topics or groups ends in the system core's log. Other cores know of it once that is
    /// durable.
    settings_end: LogPosition,
    backlog: VecDeque<(usize, RequestParcel, usize)>,
    forward: Vec<RequestParcel>,
    forwarded_bytes: Vec<usize>,
    replies: Vec<ReplyParcel>,
    spare_requests: Vec<RequestParcel>,
    spare_replies: Vec<ReplyParcel>,
    letters: Vec<(usize, Letter)>,
    /// Connections of this core to close at the end of the turn.
    pub closes: Vec<ConnectionId>,
}

impl Broker {
    pub fn new(core: usize, parts: BrokerParts, now_ms: i64) -> Self {
        let BrokerParts { config, core_count, store_host, shard, topics, groups, system, scrub_state } = parts;
        let settings_end = shard.durable();
        let (owed, halves) = (Owed::new(&shard), Halves::new(&shard));
        let mut stamp = Vec::new();
        properties::push(&mut stamp, "MSG_REGION", config.region_id.as_bytes());
        properties::push(&mut stamp, "TRACE_ON", if config.trace_on { b"true" } else { b"false" });
        properties::push(&mut stamp, "CLUSTER", config.broker_cluster_name.as_bytes());
        Self {
            core,
            core_count,
            now_ms,
            shard,
            topics,
            groups,
            views: GroupViews::default(),
            filters: CompiledFilters::default(),
            locked_groups: LockedGroups::default(),
            system,
            check_settings: check_settings(&config),
            store_host,
            stamp: stamp.into(),
            send_reply_prefix: Arc::new(ExtPrefix::new(|ext| {
                ext.text("MSG_REGION", &config.region_id);
                ext.bool("TRACE_ON", config.trace_on);
            })),
            counters: Counters::default(),
            polls: LongPolls::default(),
            resets: Resets::default(),
            pops: Pops::default(),
            gathers: Gathers::default(),
            owed,
            questions: ClientQuestions::default(),
            halves,
            paths: PathCounters::default(),
            scratch: Vec::new(),
            random: (now_ms as u64 ^ (core as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15)) | 1,
            unique_keys: UniqueKeys::new(store_host, core),
            next_tick_ms: now_ms + TICK_MS,
            retention: Retention::default(),
            scrub_state,
            waiting_for_log: VecDeque::new(),
            jobs: FxHashMap::default(),
            next_job: 0,
            settings_end,
            backlog: VecDeque::new(),
            forward: (0..core_count).map(|_| RequestParcel::default()).collect(),
            forwarded_bytes: vec![0; core_count],
            replies: (0..core_count).map(|_| ReplyParcel::default()).collect(),
            spare_requests: Vec::new(),
            spare_replies: Vec::new(),
            letters: Vec::new(),
            closes: Vec::new(),
            config,
        }
    }

    pub fn new_unique_key(&mut self) -> String {
        self.unique_keys.next(self.now_ms)
    }

    /// What a core does once a second.
    fn tick(&mut self) {
        if self.now_ms < self.next_tick_ms {
            return;
        }
        self.next_tick_ms = self.now_ms + TICK_MS;
        self.locked_groups.tick(self.now_ms);
        crate::retention::tick(self);
        // Behind it: the scrubber must know what is retired before its files are used again.
        self.scrub_state.note(&self.shard);
        crate::system::tick_name_servers(self);
        self.hand_over_counts();
    }

    fn hand_over_counts(&mut self) {
        let delta = self.counters.drain();
        if delta.is_empty() {
            return;
        }
        match &mut self.system {
            Some(system) => system.stats.absorb(delta, self.now_ms),
            None => self.letters.push((SYSTEM_CORE, Letter::Counted(delta))),
        }
    }

    // ---- requests -------------------------------------------------------------------------------------

    /// A frame from a connection of this core.
    pub fn on_frame(&mut self, peer: &Peer, bytes: &[u8]) -> Verdict {
        if let Some((frame, header)) = SendHeader::decode_frame(bytes)
            && !frame.is_response()
        {
            let settled = if frame.is_oneway() { Verdict::Done } else { Verdict::Later };
            let request = Request { origin: Origin::of_client(peer), frame, bytes };
            let outcome = requests::send::handle_decoded(self, &request, &header);
            return self.settle(&request, outcome, settled);
        }
        let Ok(frame) = Frame::decode(bytes) else { return Verdict::Close };
        let settled = if frame.is_oneway() || frame.is_response() { Verdict::Done } else { Verdict::Later };
        let origin = Origin::of_client(peer);
        let request = Request { origin, frame, bytes };
        let outcome = self.dispatch(&request);
        self.settle(&request, outcome, settled)
    }

    fn settle(&mut self, request: &Request<'_>, outcome: Outcome, settled: Verdict) -> Verdict {
        match self.answer_refusal(request, outcome) {
            Handled::Taken => settled,
            Handled::Full => {
                self.paths.stalled_requests += 1;
                Verdict::Stall
            }
        }
    }

    pub fn handle(&mut self, request: &Request<'_>) -> Handled {
        let outcome = self.dispatch(request);
        self.answer_refusal(request, outcome)
    }

    fn dispatch(&mut self, request: &Request<'_>) -> Outcome {
        if request.frame.is_response() {
            return self.take_answer(request);
        }
        match request.frame.code {
            code if request.origin.role == ListenerRole::BrokerFast && !is_served_on_fast_port(code) => {
                Err(not_supported(code))
            }
            code => requests::dispatch(self, code, request),
        }
    }

    /// A client's answer to a request of the broker's: the system core has asked.
    fn take_answer(&mut self, answer: &Request<'_>) -> Outcome {
        if self.is_system_core() {
            crate::ask::on_answer(self, answer);
            return Ok(Handled::Taken);
        }
        self.forward(SYSTEM_CORE, answer, answer.origin)
    }

    fn answer_refusal(&mut self, request: &Request<'_>, outcome: Outcome) -> Handled {
        outcome.unwrap_or_else(|refusal| {
            self.refuse(request, &refusal);
            Handled::Taken
        })
    }

    /// The core that owns a queue.
    pub fn owner(&self, topic: &str, queue_id: u32) -> usize {
        shard_of(topic, queue_id, self.core_count as u16) as usize
    }

    pub fn is_system_core(&self) -> bool {
        self.core == SYSTEM_CORE
    }

    /// Hands a request to another core.
    pub fn forward(&mut self, core: usize, request: &Request<'_>, origin: Origin) -> Outcome {
        assert!(core != self.core, "a request for this core is handled here");
        if origin.hops == HOPS_MAX {
            return Err(lost_on_the_way());
        }
        if self.is_system_core() && origin.hops > 0 && self.settings_end > self.shard.durable() {
            // Another core sent it here because it does not know what this one has decided: it will be told when
            // that is on disk.
            let frame = Bytes::copy_from_slice(request.bytes);
            self.after(self.settings_end, After::Again { origin, frame });
            return Ok(Handled::Taken);
        }
        let origin = Origin { hops: origin.hops + 1, ..origin };
        if self.forwarded_bytes[core] > FORWARDED_BYTES_MAX {
            return Ok(Handled::Full);
        }
        self.forwarded_bytes[core] += request.bytes.len();
        self.paths.forwarded_requests += 1;
        self.forward[core].push(origin, request.bytes);
        Ok(Handled::Taken)
    }

    // ---- replies --------------------------------------------------------------------------------------

    pub fn reply(&mut self, to: ReplyAddress, code: i32, body: Body<'_>, ext: impl FnOnce(&mut ExtWriter<'_>)) {
        self.reply_with_remark(to, code, None, body, ext);
    }

    pub fn reply_with_remark(
        &mut self,
        to: ReplyAddress,
        code: i32,
        remark: Option<&str>,
        body: Body<'_>,
        ext: impl FnOnce(&mut ExtWriter<'_>),
    ) {
        if to.is_oneway {
            return;
        }
        let parcel = &mut self.replies[to.connection.core as usize];
        let start = parcel.bytes.len();
        let body_bytes = match &body {
            Body::None => 0,
            Body::Bytes(bytes) => bytes.len(),
            Body::Slices(slices) => slices.iter().map(|slice| slice.as_ref().len()).sum(),
        };
        FrameWriter::response(&mut parcel.bytes, to.serialization, code, to.opaque, remark, body_bytes, ext);
        let mut slices_count = 0;
        match body {
            Body::None => {}
            Body::Bytes(bytes) => parcel.bytes.extend_from_slice(bytes),
            Body::Slices(slices) => {
                slices_count = slices.len() as u32;
                parcel.slices.extend(slices);
            }
        }
        let bytes_count = (parcel.bytes.len() - start) as u32;
        parcel.items.push(ReplyItem { connection: to.connection, bytes_count, slices_count, answers: 1 });
    }

    /// A success without header fields or body.
    pub fn reply_done(&mut self, to: ReplyAddress) {
        self.reply(to, response::SUCCESS, Body::None, |_| ());
    }

    pub fn reply_json(&mut self, to: ReplyAddress, body: &[u8]) {
        self.reply(to, response::SUCCESS, Body::Bytes(body), |_| ());
    }

    #[cold]
    pub fn refuse(&mut self, request: &Request<'_>, refusal: &Refusal) {
        if request.origin.purpose == Purpose::SentBack {
            return self.refuse_later(request.reply_address(), &requests::send_back::not_stored(refusal));
        }
        if request.origin.purpose == Purpose::PushedReply {
            let queue_id = request.origin.picked_queue.unwrap_or(0);
            return requests::reply::answer_unstored(self, request.reply_address(), queue_id);
        }
        let is_send = requests::send::is_send(request.frame.code);
        let prefix = Arc::clone(&self.send_reply_prefix);
        self.reply_with_remark(request.reply_address(), refusal.code, Some(&refusal.remark), Body::None, |ext| {
            if is_send {
                ext.begin_with(&prefix);
            }
        });
    }

    #[cold]
    pub fn refuse_later(&mut self, to: ReplyAddress, refusal: &Refusal) {
        self.reply_with_remark(to, refusal.code, Some(&refusal.remark), Body::None, |_| ());
    }

    /// A request of the broker to a client, oneway, through the client's own connection. [`ask_client`](crate::ask) is for
    /// one that wants an answer.
    pub fn push_to_client(
        &mut self,
        connection: ConnectionId,
        code: i32,
        body: &[u8],
        ext: impl FnOnce(&mut ExtWriter<'_>),
    ) {
        self.request_of_broker(connection, code, None, body, ext);
    }

    /// With an opaque the client is to answer.
    pub(crate) fn request_of_broker(
        &mut self,
        connection: ConnectionId,
        code: i32,
        opaque: Option<i32>,
        body: &[u8],
        ext: impl FnOnce(&mut ExtWriter<'_>),
    ) {
        let parcel = &mut self.replies[connection.core as usize];
        let start = parcel.bytes.len();
        let json = rmq_net::frame::Serialization::Json;
        let (number, is_oneway) = (opaque.unwrap_or(0), opaque.is_none());
        FrameWriter::request(&mut parcel.bytes, json, code, number, is_oneway, body.len(), ext);
        parcel.bytes.extend_from_slice(body);
        let bytes_count = (parcel.bytes.len() - start) as u32;
        parcel.items.push(ReplyItem { connection, bytes_count, slices_count: 0, answers: 0 });
    }

    // ---- waiting --------------------------------------------------------------------------------------

    /// Runs `after` once the log is durable up to `position`.
    pub fn after(&mut self, position: LogPosition, after: After) {
        self.waiting_for_log.push_back(Waiting { position, since_ms: self.now_ms, after });
    }

    /// A ticket for a request that has to wait for storage, to be kept with [`keep_job`](Self::keep_job).
    pub fn new_ticket(&mut self) -> Ticket {
        self.next_job += 1;
        Ticket(self.next_job)
    }

    pub fn keep_job(&mut self, ticket: Ticket, job: Job) {
        self.jobs.insert(ticket.0, job);
    }

    /// Records a topic or group (or with `None` its end) in the system core's log.
    pub fn put_setting(
        &mut self,
        kind: SettingKind,
        key: &str,
        value: Option<&[u8]>,
    ) -> Result<LogPosition, AppendError> {
        assert!(self.is_system_core(), "settings are decided by the system core");
        self.settings_end = self.shard.put_setting(kind.byte(), key, value)?;
        Ok(self.settings_end)
    }

    /// Where everything decided so far about topics and groups is durable.
    pub fn settings_end(&self) -> LogPosition {
        self.settings_end
    }

    // ---- letters --------------------------------------------------------------------------------------

    pub fn send_letter(&mut self, core: usize, letter: Letter) {
        self.letters.push((core, letter));
    }

    pub fn broadcast(&mut self, letter: impl Fn() -> Letter) {
        for core in (0..self.core_count).filter(|core| *core != self.core) {
            self.letters.push((core, letter()));
        }
    }

    pub fn close_connection(&mut self, id: ConnectionId) {
        let core = usize::from(id.core);
        if core == self.core {
            self.closes.push(id);
        } else {
            self.letters.push((core, Letter::CloseConnection(id)));
        }
    }

    /// A parcel of ours was worked off; it comes back empty, for the next turns.
    fn on_taken(&mut self, from: usize, mut parcel: RequestParcel) {
        self.forwarded_bytes[from] -= parcel.bytes.len();
        parcel.bytes.clear();
        parcel.items.clear();
        if self.spare_requests.len() < SPARE_PARCELS_MAX && parcel.bytes.capacity() <= SPARE_BYTES_MAX {
            self.spare_requests.push(parcel);
        }
    }

    /// A parcel of replies of ours was delivered; it comes back empty.
    pub fn on_delivered(&mut self, mut parcel: ReplyParcel) {
        parcel.bytes.clear();
        parcel.slices.clear();
        parcel.items.clear();
        if self.spare_replies.len() < SPARE_PARCELS_MAX && parcel.bytes.capacity() <= SPARE_BYTES_MAX {
            self.spare_replies.push(parcel);
        }
    }

    /// A letter to this core's broker; those about sockets are for the core's connections.
    pub fn on_letter(&mut self, from: usize, letter: Letter) {
        match letter {
            Letter::Requests(parcel) => {
                self.backlog.push_back((from, parcel, 0));
                self.work_off_backlog();
            }
            Letter::Taken(parcel) => self.on_taken(from, parcel),
            Letter::Delivered(parcel) => self.on_delivered(parcel),
            Letter::TopicChanged(change) => self.topics.apply(change),
            Letter::GroupChanged(change) => self.groups.apply(change),
            Letter::ViewChanged(change) => self.views.apply(change),
            Letter::LocksChanged(change) => self.locked_groups.apply(change),
            Letter::TopicWanted(config) => requests::pop::revive::on_wanted(self, config),
            Letter::Pop(letter) => self.pops.take_letter(from, letter),
            Letter::Counted(delta) => crate::system::on_counted(self, delta),
            Letter::CheckTransaction(check) => requests::check_back::ask_producer(self, &check),
            Letter::DiscardTopicWanted => requests::check_back::make_discard_topic(self),
            Letter::ConnectionClosed(id) => crate::system::on_connection_closed(self, id),
            Letter::Change { number, change } => gather::on_change(self, from, number, &change),
            Letter::Question { number, question } => gather::on_question(self, from, number, &question),
            Letter::Answer { number, answer } => gather::on_answer(self, from, number, answer),
            Letter::Connection(_) | Letter::Replies(_) | Letter::CloseConnection(_) => {
                unreachable!("the node keeps letters about sockets")
            }
        }
    }

    fn work_off_backlog(&mut self) {
        while let Some((from, parcel, done_items)) = self.backlog.pop_front() {
            let mut start = 0;
            for item in 0..parcel.items.len() {
                let (origin, length) = parcel.items[item];
                let end = start + length as usize;
                if item >= done_items {
                    let handled = self.handle_forwarded(origin, &parcel.bytes[start..end]);
                    if handled == Handled::Full {
                        self.backlog.push_front((from, parcel, item));
                        return;
                    }
                }
                start = end;
            }
            if from != self.core {
                self.letters.push((from, Letter::Taken(parcel)));
            }
        }
    }

    /// A request whose frame was decoded before, on the core that received it.
    pub fn handle_forwarded(&mut self, origin: Origin, bytes: &[u8]) -> Handled {
        if let Some((frame, header)) = SendHeader::decode_frame(bytes)
            && !frame.is_response()
        {
            let request = Request { origin, frame, bytes };
            let outcome = requests::send::handle_decoded(self, &request, &header);
            return self.answer_refusal(&request, outcome);
        }
        self.handle(&forwarded(origin, bytes))
    }

    /// Handles a request of this core's again, now or when there is room.
    pub fn again(&mut self, origin: Origin, bytes: &[u8]) {
        if self.handle_forwarded(origin, bytes) == Handled::Full {
            let mut parcel = RequestParcel::default();
            parcel.push(origin, bytes);
            self.backlog.push_back((self.core, parcel, 0));
        }
    }

    // ---- end of turn ----------------------------------------------------------------------------------

    /// Everything that follows from this turn's events. The caller then runs the shard's storage commands
    /// and sends what [`drain_letters`](Self::drain_letters) and [`replies_for`](Self::replies_for) yield.
    pub fn on_turn_end(&mut self, now_ms: i64) {
        self.now_ms = now_ms;
        self.work_off_backlog();
        self.settle_durable();
        crate::owed::tick(self);
        self.resume_jobs();
        requests::pull::wake_polls(self);
        requests::pop::turn(self);
        self.tick();
        crate::system::tick(self);
    }

    fn settle_durable(&mut self) {
        let durable = self.shard.durable();
        while self.waiting_for_log.front().is_some_and(|waiting| waiting.position <= durable)
            && let Some(waiting) = self.waiting_for_log.pop_front()
        {
            if matches!(waiting.after, After::SendDone(_)) {
                self.counters.put_took(u32::try_from(self.now_ms - waiting.since_ms).unwrap_or(0));
            }
            self.run_after(waiting.after);
        }
        if self.shard.is_poisoned() && !self.waiting_for_log.is_empty() {
            self.fail_waiting();
        }
        if self.config.flush_disk_type == FlushDiskType::Sync {
            self.give_up_slow_sends();
        }
    }

    /// RocketMQ: with SYNC_FLUSH a send that is not on stable media after `syncFlushTimeout` is answered
    /// FLUSH_DISK_TIMEOUT, with everything a success has: the message is in the log and most likely stays there.
    fn give_up_slow_sends(&mut self) {
        let begun_before_ms = self.now_ms - self.config.sync_flush_timeout;
        let is_late = |waiting: &Waiting| waiting.since_ms <= begun_before_ms;
        if !self.waiting_for_log.front().is_some_and(is_late) {
            return;
        }
        let late = self.waiting_for_log.iter().take_while(|waiting| is_late(waiting)).count();
        let mut kept = Vec::new();
        for _ in 0..late {
            match self.waiting_for_log.pop_front() {
                Some(Waiting { after: After::SendDone(done), since_ms, .. }) => {
                    self.counters.put_took(u32::try_from(self.now_ms - since_ms).unwrap_or(0));
                    requests::send::answer(self, &done, response::FLUSH_DISK_TIMEOUT);
                }
                other => kept.extend(other),
            }
        }
        kept.into_iter().rev().for_each(|waiting| self.waiting_for_log.push_front(waiting));
    }

    fn run_after(&mut self, after: After) {
        match after {
            After::SendDone(done) => requests::send::answer(self, &done, response::SUCCESS),
            After::Reply { to, code } => self.reply(to, code, Body::None, |_| ()),
            After::Again { origin, frame } => self.again(origin, &frame),
            After::Answer { work, .. } | After::Do(work) => work(self),
            After::Changed { asker, number } => gather::answer_change(self, asker, number, Ok(())),
        }
    }

    /// The log takes no more writes: what waits for it will never become durable in this life. A send may or
    /// may not be on the device, which is what FLUSH_DISK_TIMEOUT tells a producer.
    #[cold]
    fn fail_waiting(&mut self) {
        for waiting in std::mem::take(&mut self.waiting_for_log) {
            match waiting.after {
                After::SendDone(done) => requests::send::answer(self, &done, response::FLUSH_DISK_TIMEOUT),
                After::Reply { to, .. } | After::Answer { to, .. } => {
                    self.refuse_later(to, &requests::log_failed(&self.shard));
                }
                After::Again { origin, frame } => {
                    let refusal = requests::log_failed(&self.shard);
                    self.refuse(&forwarded(origin, &frame), &refusal);
                }
                After::Changed { asker, number } => {
                    gather::answer_change(self, asker, number, Err(AppendError::Poisoned));
                }
                // What is not on disk is not told to other cores or name servers.
                After::Do(_) => {}
            }
        }
    }

    fn resume_jobs(&mut self) {
        while let Some(ticket) = self.shard.ready() {
            if let Some(job) = self.jobs.remove(&ticket.0) {
                requests::resume(self, job);
            }
        }
    }

    /// Gives memory back that only makes the next burst of work quicker: for a core that has had nothing to do for a
    /// while.
    pub fn release_spare_buffers(&mut self) {
        self.shard.release_spare_buffers();
        self.owed.release_spare_buffers();
        self.spare_requests = Vec::new();
        self.spare_replies = Vec::new();
        self.waiting_for_log.shrink_to_fit();
        self.backlog.shrink_to_fit();
        self.jobs.shrink_to_fit();
        for parcel in self.forward.iter_mut().filter(|parcel| parcel.items.is_empty()) {
            *parcel = RequestParcel::default();
        }
        for parcel in self.replies.iter_mut().filter(|parcel| parcel.items.is_empty()) {
            *parcel = ReplyParcel::default();
        }
    }

    /// Whether there is more to do at once, without anything having to happen first.
    pub fn wants_turn(&self) -> bool {
        self.pops.letters_waiting() > 0
    }

    pub fn has_backlog(&self) -> bool {
        !self.backlog.is_empty()
    }

    /// Requests that wait for the log.
    pub fn waiting_count(&self) -> usize {
        self.waiting_for_log.len()
    }

    /// True while somebody still waits for the log or the disk.
    pub fn is_busy(&self) -> bool {
        !self.waiting_for_log.is_empty() || !self.jobs.is_empty() || self.has_backlog() || self.pops.has_stalled()
    }

    /// Letters of this turn, one parcel of requests per core at most.
    pub fn drain_letters(&mut self, mut send: impl FnMut(usize, Letter)) {
        let mut closed = Vec::new();
        for (core, letter) in self.letters.drain(..) {
            match letter {
                Letter::ConnectionClosed(_) => closed.push((core, letter)),
                letter => send(core, letter),
            }
        }
        for core in 0..self.core_count {
            if !self.forward[core].items.is_empty() {
                let spare = self.spare_requests.pop().unwrap_or_default();
                send(core, Letter::Requests(std::mem::replace(&mut self.forward[core], spare)));
            }
            if core != self.core && !self.replies[core].items.is_empty() {
                let spare = self.spare_replies.pop().unwrap_or_default();
                send(core, Letter::Replies(std::mem::replace(&mut self.replies[core], spare)));
            }
        }
        // After the last requests of the connection, or a heartbeat among them would bring its client back.
        closed.into_iter().for_each(|(core, letter)| send(core, letter));
    }

    /// The replies for this core's own connections; give the parcel back with
    /// [`on_delivered`](Self::on_delivered).
    pub fn take_own_replies(&mut self) -> Option<ReplyParcel> {
        let own = &mut self.replies[self.core];
        if own.items.is_empty() {
            return None;
        }
        let spare = self.spare_replies.pop().unwrap_or_default();
        Some(std::mem::replace(own, spare))
    }

    /// The next number of a xorshift sequence, for choices that only need to spread.
    pub fn next_random(&mut self) -> u64 {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        self.random
    }
}

/// A request that was decoded on another core before; its bytes are those of a whole frame.
fn forwarded(origin: Origin, bytes: &[u8]) -> Request<'_> {
    match Frame::decode(bytes) {
        Ok(frame) => Request { origin, frame, bytes },
        Err(error) => unreachable!("the frame was decoded before it was forwarded: {error}"),
    }
}

/// Requests the second port (main port - 2) does not serve, as in RocketMQ: pulls and everything that polls.
fn is_served_on_fast_port(code: i32) -> bool {
    !matches!(
        code,
        request::PULL_MESSAGE
            | request::LITE_PULL_MESSAGE
            | request::POP_MESSAGE
            | request::PEEK_MESSAGE
            | request::NOTIFICATION
            | request::POLLING_INFO
    )
}

/// The cores differ about a topic or group, which lasts when the system core's log failed before it could record what
/// it had already decided.
#[cold]
fn lost_on_the_way() -> Refusal {
    let remark = "the cores do not agree on the topic or group named; send the request again, and if that does not \
                  help look for a failed commit log in the broker's messages";
    Refusal::new(response::SYSTEM_ERROR, remark)
}

#[cold]
pub fn not_supported(code: i32) -> Refusal {
    let remark = match request::name(code) {
        Some(name) => format!(" request type {code} ({name}) not supported"),
        None => format!(" request type {code} not supported"),
    };
    Refusal::new(response::REQUEST_CODE_NOT_SUPPORTED, remark)
}
