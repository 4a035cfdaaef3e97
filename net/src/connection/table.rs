//! All connections of one core.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};

use rmq_turn::{Completion, ReceiveBuffers, Ring, RingError, Token, opcode, squeue, types};

use super::outbox::{Outbox, Sending};
use super::{Accepted, ConnectionId, ListenerRole};
use crate::frame::{FRAME_BYTES_MAX, frame_size};

/// Size of a receive buffer: a burst of 16 sends of 1 KiB with their headers is 20 KiB.
const RECEIVE_BUFFER_BYTES: u32 = 64 * 1024;
/// Buffers are taken only between a completion and its handling in the same turn.
const RECEIVE_BUFFER_COUNT: u16 = 128;
const RECEIVE_GROUP: u16 = 1;
/// A connection whose last receive brought this much is busy: busy ones take turns.
const BUSY_BYTES: u32 = 8 * 1024;
/// What a core asks its busy connections for in one turn, all together, by what each of them brought last: a turn stays
/// short, and nobody's one small request waits behind everything that all others have to say.
const BUSY_BYTES_PER_TURN: u32 = 1 << 20;
/// Receives per turn from busy connections; the other buffers are left to those that speak up.
const BUSY_RECEIVES_MAX: usize = RECEIVE_BUFFER_COUNT as usize * 3 / 4;
/// Stalled connections with little to say that go before the others in one turn; more would keep the others out.
const QUIET_RESUMES_MAX: usize = 64;
/// A connection silent for this long keeps no memory for its next replies.
const TRIM_AFTER_MS: i64 = 5000;
/// Times `outbox_bytes_max` that may be queued on one connection however its client reads.
const OVERFULL_FACTOR: usize = 4;
/// A connection that holds room for a large frame may be silent this long while others wait for room.
const HOARDING_MS_MAX: i64 = 3000;

/// The bounds of one core's connections.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Frames larger than a receive buffer that arrive in pieces, all connections together. Full: connections
    /// whose next frame does not fit are not read until others finish theirs. (A smaller frame costs its
    /// connection at most a receive buffer's size.)
    pub assembly_bytes_max: usize,
    /// Replies queued on one connection before it is not read any more.
    pub outbox_bytes_pause: usize,
    /// Replies queued on one connection before it has to show that its client reads.
    pub outbox_bytes_max: usize,
    /// Replies queued on all connections together. Half full: connections with replies not yet sent are not read.
    /// Full: the connection with most of them is closed.
    pub outboxes_bytes_max: usize,
    /// A connection with more than `outbox_bytes_max` queued whose client takes none of it for this long is closed. One
    /// with four times as much is closed at once.
    pub unread_ms_max: i64,
    /// Requests of one connection not answered yet before it is not read any more.
    pub open_requests_max: u32,
    /// A connection neither read nor written for this long is closed. RocketMQ's
    /// `serverChannelMaxIdleTimeSeconds`, 120 s.
    pub idle_ms: i64,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            assembly_bytes_max: 128 << 20,
            outbox_bytes_pause: 1 << 20,
            outbox_bytes_max: 64 << 20,
            outboxes_bytes_max: 256 << 20,
            unread_ms_max: 10_000,
            open_requests_max: 8192,
            idle_ms: 120_000,
        }
    }
}

/// What the bounds allow the connections of one core to hold, in bytes.
#[derive(Clone, Copy, Debug)]
pub struct ConnectionMemory {
    /// Receive buffers and large frames that are not whole yet.
    pub received: u64,
    /// Replies not yet sent; a buffer that grows has room for as much again.
    pub replies: u64,
}

impl Limits {
    pub fn memory(&self) -> ConnectionMemory {
        let buffers = RECEIVE_BUFFER_BYTES as usize * RECEIVE_BUFFER_COUNT as usize;
        ConnectionMemory {
            received: (buffers + self.assembly_bytes_max.max(FRAME_BYTES_MAX)) as u64,
            replies: 2 * self.outboxes_bytes_max as u64,
        }
    }
}

/// Who is at the other end.
#[derive(Clone, Copy, Debug)]
pub struct Peer {
    pub id: ConnectionId,
    pub address: SocketAddr,
    pub role: ListenerRole,
}

/// What the handler made of a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Handled: answered already, or no answer is due.
    Done,
    /// Taken; the answer comes later and will be counted off by [`Connections::answered`].
    Later,
    /// No room now: give the same frame again after [`Connections::resume`]; read nothing more until then.
    Stall,
    /// The frame cannot be decoded: close, as RocketMQ does.
    Close,
}

pub trait FrameHandler<B> {
    fn on_frame(&mut self, peer: &Peer, frame: &[u8], outbox: &mut Outbox<B>) -> Verdict;
    fn on_closed(&mut self, peer: &Peer);
}

struct Connection<B> {
    peer: Peer,
    socket: OwnedFd,
    /// The beginning of a frame whose rest has not arrived, or frames held back by a stall.
    partial: Vec<u8>,
    /// Charged to the core's assembly budget.
    reserved_bytes: usize,
    outbox: Outbox<B>,
    sending: Sending<B>,
    /// What of `queued_bytes` is in the table's sum.
    counted_bytes: usize,
    open_requests: u32,
    is_receiving: bool,
    /// What the last receive brought.
    received_bytes: u32,
    is_queued_to_receive: bool,
    is_stalled: bool,
    /// Stalled because its large frame found no room, not by the handler.
    waits_for_room: bool,
    is_queued_to_send: bool,
    is_closing: bool,
    last_active_ms: i64,
    /// When its client last took some of what is queued, or nothing was.
    last_drained_ms: i64,
}

impl<B: AsRef<[u8]>> Connection<B> {
    fn queued_bytes(&self) -> usize {
        self.outbox.queued_bytes() + self.sending.queued_bytes()
    }

    /// Brings `sum`, over all connections, up to date.
    fn count_into(&mut self, sum: &mut usize) {
        let queued_bytes = self.queued_bytes();
        *sum = *sum - self.counted_bytes + queued_bytes;
        self.counted_bytes = queued_bytes;
    }
}

/// The table: owns every connection of its core and all operations of theirs on the ring.
pub struct Connections<B> {
    core: u8,
    limits: Limits,
    buffers: ReceiveBuffers,
    slots: Vec<Slot<B>>,
    free: Vec<u32>,
    /// Connections with something to send and no send under way.
    to_send: Vec<u32>,
    stalled: Vec<u32>,
    /// Those of them that the handler stalled and that are not busy.
    stalled_quiet: Vec<u32>,
    /// Connections that may be readable again: a pause ended or a receive found no buffer.
    to_receive: Vec<u32>,
    /// Busy connections that may be readable, each once, in the order they will be heard.
    busy: VecDeque<u32>,
    assembly_bytes: usize,
    /// Replies not yet sent of all connections, as of the end of the last turn.
    outboxes_bytes: usize,
    /// A large frame found no room since this was last looked at.
    is_starved: bool,
    /// A connection had more than `outbox_bytes_max` queued since this was last looked at.
    is_overfull: bool,
    open_count: usize,
    now_ms: i64,
}

struct Slot<B> {
    generation: u32,
    connection: Option<Box<Connection<B>>>,
}

impl<B: AsRef<[u8]>> Connections<B> {
    pub const RECEIVE_KIND: u8 = 17;
    pub const SEND_KIND: u8 = 18;

    pub fn new(core: u8, ring: &Ring, limits: Limits) -> Result<Self, RingError> {
        let buffers = ReceiveBuffers::register(ring, RECEIVE_GROUP, RECEIVE_BUFFER_COUNT, RECEIVE_BUFFER_BYTES)?;
        Ok(Self {
            core,
            limits,
            buffers,
            slots: Vec::new(),
            free: Vec::new(),
            to_send: Vec::new(),
            stalled: Vec::new(),
            stalled_quiet: Vec::new(),
            to_receive: Vec::new(),
            busy: VecDeque::new(),
            assembly_bytes: 0,
            outboxes_bytes: 0,
            is_starved: false,
            is_overfull: false,
            open_count: 0,
            now_ms: 0,
        })
    }

    pub fn open_count(&self) -> usize {
        self.open_count
    }

    /// Bytes of replies that wait to be sent, over all connections.
    pub fn outboxes_bytes(&self) -> usize {
        self.outboxes_bytes
    }

    /// Takes a connection over and starts to read from it.
    pub fn adopt(&mut self, ring: &mut Ring, accepted: Accepted, now_ms: i64) -> ConnectionId {
        let index = self.free.pop().unwrap_or_else(|| {
            self.slots.push(Slot { generation: 0, connection: None });
            self.slots.len() as u32 - 1
        });
        let slot = &mut self.slots[index as usize];
        slot.generation = slot.generation.wrapping_add(1) & ConnectionId::GENERATION_MASK;
        let id = ConnectionId { core: self.core, generation: slot.generation, index };
        slot.connection = Some(Box::new(Connection {
            peer: Peer { id, address: accepted.peer, role: accepted.role },
            socket: accepted.socket,
            partial: Vec::new(),
            reserved_bytes: 0,
            outbox: Outbox::default(),
            sending: Sending::new(),
            counted_bytes: 0,
            open_requests: 0,
            is_receiving: false,
            received_bytes: 0,
            is_queued_to_receive: false,
            is_stalled: false,
            waits_for_room: false,
            is_queued_to_send: false,
            is_closing: false,
            last_active_ms: now_ms,
            last_drained_ms: now_ms,
        }));
        self.open_count += 1;
        self.receive(ring, index);
        id
    }

    /// The outbox of a connection, to append a reply; `None` when it is gone. `answers` counts the requests
    /// answered by what is appended.
    pub fn answer(&mut self, id: ConnectionId, answers: u32) -> Option<&mut Outbox<B>> {
        let index = id.index;
        let connection = Self::live(&mut self.slots, id)?;
        let was_full = connection.open_requests >= self.limits.open_requests_max;
        connection.open_requests = connection.open_requests.saturating_sub(answers);
        if was_full {
            self.to_receive.push(index);
        }
        if !connection.is_queued_to_send {
            connection.is_queued_to_send = true;
            self.to_send.push(index);
        }
        Some(&mut connection.outbox)
    }

    pub fn peer(&mut self, id: ConnectionId) -> Option<Peer> {
        Self::live(&mut self.slots, id).map(|connection| connection.peer)
    }

    /// Closes a connection; the handler hears of it at once.
    pub fn close(&mut self, id: ConnectionId, handler: &mut impl FrameHandler<B>) {
        if Self::live(&mut self.slots, id).is_some() {
            self.begin_close(id.index, handler);
        }
    }

    pub fn on_completion(
        &mut self,
        ring: &mut Ring,
        completion: &Completion,
        handler: &mut impl FrameHandler<B>,
        now_ms: i64,
    ) {
        self.now_ms = now_ms;
        match completion.token.kind {
            Self::RECEIVE_KIND => self.on_received(ring, completion, handler),
            Self::SEND_KIND => self.on_sent(ring, completion, handler),
            kind => unreachable!("completion of kind {kind} is not a connection's"),
        }
    }

    /// Gives stalled connections another try: a few of those with little to say, then the others.
    pub fn resume(&mut self, ring: &mut Ring, handler: &mut impl FrameHandler<B>) {
        let mut quiet = std::mem::take(&mut self.stalled_quiet);
        let mut later = quiet.split_off(quiet.len().min(QUIET_RESUMES_MAX));
        let rest = self.resume_in_order(quiet, ring, handler);
        self.stalled_quiet.extend(rest);
        let has_room = self.stalled_quiet.is_empty();
        self.stalled_quiet.append(&mut later);
        if has_room {
            let stalled = std::mem::take(&mut self.stalled);
            let rest = self.resume_in_order(stalled, ring, handler);
            self.stalled.extend(rest);
        }
    }

    /// Tries one after the other until the handler stalls one again, and returns those not tried. Those that only wait
    /// for room hold nobody up: what others have in it may be whole frames.
    fn resume_in_order(
        &mut self,
        stalled: Vec<u32>,
        ring: &mut Ring,
        handler: &mut impl FrameHandler<B>,
    ) -> std::vec::IntoIter<u32> {
        let mut waiting = stalled.into_iter();
        for index in waiting.by_ref() {
            let Some(connection) = self.slots[index as usize].connection.as_mut() else { continue };
            connection.is_stalled = false;
            connection.waits_for_room = false;
            if connection.is_closing {
                continue;
            }
            let held = std::mem::take(&mut connection.partial);
            self.assembly_bytes -= std::mem::take(&mut connection.reserved_bytes);
            self.take_bytes(index, &held, handler);
            self.receive_again(ring, index);
            let again = self.slots[index as usize].connection.as_ref();
            if again.is_some_and(|connection| connection.is_stalled && !connection.waits_for_room) {
                break;
            }
        }
        waiting
    }

    pub fn has_stalled(&self) -> bool {
        !self.stalled.is_empty() || !self.stalled_quiet.is_empty()
    }

    /// Ends a turn: one send per connection that has something to say, receives that may go on.
    pub fn submit(&mut self, ring: &mut Ring, handler: &mut impl FrameHandler<B>) {
        for index in std::mem::take(&mut self.to_receive) {
            self.receive(ring, index);
        }
        self.receive_from_busy(ring);
        let mut to_send = std::mem::take(&mut self.to_send);
        for index in to_send.drain(..) {
            let Some(connection) = self.slots[index as usize].connection.as_mut() else { continue };
            connection.is_queued_to_send = false;
            if connection.is_closing {
                continue;
            }
            connection.count_into(&mut self.outboxes_bytes);
            let queued_bytes = connection.queued_bytes();
            if queued_bytes > OVERFULL_FACTOR * self.limits.outbox_bytes_max {
                self.close_unread_connection(index, handler);
                continue;
            }
            self.is_overfull |= queued_bytes > self.limits.outbox_bytes_max;
            self.send(ring, index);
        }
        self.to_send = to_send;
        while self.outboxes_bytes > self.limits.outboxes_bytes_max && self.close_fullest(handler) {}
    }

    /// Closes the connection with most replies queued. False when there is none left to close.
    #[cold]
    fn close_fullest(&mut self, handler: &mut impl FrameHandler<B>) -> bool {
        let open = self.slots.iter().enumerate().filter_map(|(index, slot)| Some((index, slot.connection.as_ref()?)));
        let closable = open.filter(|(_, connection)| !connection.is_closing && connection.counted_bytes > 0);
        let Some((index, connection)) = closable.max_by_key(|(_, connection)| connection.counted_bytes) else {
            return false;
        };
        tracing::warn!(
            peer = %connection.peer.address,
            queued_bytes = connection.counted_bytes,
            queued_bytes_of_all = self.outboxes_bytes,
            limit = self.limits.outboxes_bytes_max,
            "closing the connection with most replies its client has not taken: those of all connections are too many"
        );
        self.begin_close(index as u32, handler);
        true
    }

    /// Closes connections with too much queued whose clients take none of it.
    pub fn close_unread(&mut self, now_ms: i64, handler: &mut impl FrameHandler<B>) {
        if !std::mem::take(&mut self.is_overfull) {
            return;
        }
        for index in 0..self.slots.len() as u32 {
            let Some(connection) = self.slots[index as usize].connection.as_ref() else { continue };
            if connection.queued_bytes() <= self.limits.outbox_bytes_max || connection.is_closing {
                continue;
            }
            if now_ms - connection.last_drained_ms <= self.limits.unread_ms_max {
                self.is_overfull = true;
                continue;
            }
            self.close_unread_connection(index, handler);
        }
    }

    fn close_unread_connection(&mut self, index: u32, handler: &mut impl FrameHandler<B>) {
        if let Some(connection) = self.slots[index as usize].connection.as_ref() {
            tracing::warn!(
                peer = %connection.peer.address,
                queued_bytes = connection.queued_bytes(),
                limit = self.limits.outbox_bytes_max,
                unread_ms = self.now_ms - connection.last_drained_ms,
                "closing a connection whose client does not read its replies"
            );
        }
        self.begin_close(index, handler);
    }

    /// Closes connections idle for longer than the limit; those idle for seconds give back what their replies needed.
    pub fn close_idle(&mut self, now_ms: i64, handler: &mut impl FrameHandler<B>) {
        for index in 0..self.slots.len() as u32 {
            let Some(connection) = self.slots[index as usize].connection.as_mut() else { continue };
            if now_ms - connection.last_active_ms > TRIM_AFTER_MS && connection.queued_bytes() == 0 {
                connection.outbox = Outbox::default();
                connection.sending = Sending::new();
            }
            if now_ms - connection.last_active_ms > self.limits.idle_ms && !connection.is_closing {
                tracing::info!(peer = %connection.peer.address, "closing an idle connection");
                self.begin_close(index, handler);
            }
        }
    }

    /// Closes everything, when the process stops.
    pub fn close_all(&mut self, handler: &mut impl FrameHandler<B>) {
        for index in 0..self.slots.len() as u32 {
            if self.slots[index as usize].connection.is_some() {
                self.begin_close(index, handler);
            }
        }
    }

    /// True while any connection still has bytes to send.
    pub fn is_sending(&self) -> bool {
        self.slots.iter().filter_map(|slot| slot.connection.as_ref()).any(|connection| connection.queued_bytes() > 0)
    }

    fn live(slots: &mut [Slot<B>], id: ConnectionId) -> Option<&mut Connection<B>> {
        let slot = slots.get_mut(id.index as usize).filter(|slot| slot.generation == id.generation)?;
        slot.connection.as_deref_mut().filter(|connection| !connection.is_closing)
    }

    fn on_received(&mut self, ring: &mut Ring, completion: &Completion, handler: &mut impl FrameHandler<B>) {
        let index = completion.token.index;
        let Some(connection) = self.slots[index as usize].connection.as_mut() else {
            unreachable!("a slot is freed only after its last completion")
        };
        connection.is_receiving = false;
        let buffer = completion.buffer();
        match completion.outcome() {
            Ok(length) if length > 0 && !connection.is_closing => {
                connection.last_active_ms = self.now_ms;
                connection.received_bytes = length;
                let Some(buffer) = buffer else { unreachable!("data arrives in a buffer the kernel picked") };
                // SAFETY: the buffer is ours until `give_back` below, and nothing between here and there
                // returns a buffer: `take_bytes` only reads it. (The borrow is detached from `self` because
                // the connections live beside the buffers.)
                let bytes: &[u8] = unsafe { &*std::ptr::from_ref(self.buffers.bytes(buffer, length)) };
                self.take_bytes(index, bytes, handler);
                self.buffers.give_back(buffer);
                self.receive_again(ring, index);
            }
            Err(error) if error.raw_os_error() == Some(libc::ENOBUFS) && !connection.is_closing => {
                // All buffers were taken in this turn; they are back by its end.
                self.to_receive.push(index);
            }
            // Closed by the client, broken, or closed by us: nothing more will arrive.
            _ => {
                if let Some(buffer) = buffer {
                    self.buffers.give_back(buffer);
                }
                self.begin_close(index, handler);
            }
        }
    }

    fn on_sent(&mut self, ring: &mut Ring, completion: &Completion, handler: &mut impl FrameHandler<B>) {
        let index = completion.token.index;
        let Some(connection) = self.slots[index as usize].connection.as_mut() else {
            unreachable!("a slot is freed only after its last completion")
        };
        match completion.outcome() {
            Ok(sent) if !connection.is_closing => {
                connection.last_active_ms = self.now_ms;
                connection.last_drained_ms = self.now_ms;
                let is_all = connection.sending.advance(sent as usize);
                connection.count_into(&mut self.outboxes_bytes);
                if is_all {
                    self.send(ring, index);
                    self.receive(ring, index);
                } else {
                    Self::submit_send(ring, index, connection);
                }
            }
            _ => {
                connection.sending.unload();
                self.begin_close(index, handler);
            }
        }
    }

    /// Splits what arrived into frames. Whole frames are handled where they lie.
    fn take_bytes(&mut self, index: u32, mut bytes: &[u8], handler: &mut impl FrameHandler<B>) {
        while !bytes.is_empty() {
            let Some(connection) = self.slots[index as usize].connection.as_mut() else { return };
            if connection.is_closing {
                return;
            }
            if connection.is_stalled {
                break;
            }
            if connection.partial.is_empty() {
                match frame_size(bytes) {
                    Ok(Some(size)) if size <= bytes.len() => match self.handle(index, &bytes[..size], handler) {
                        Verdict::Stall => break,
                        Verdict::Close => return,
                        Verdict::Done | Verdict::Later => bytes = &bytes[size..],
                    },
                    Ok(_) => break,
                    Err(error) => return self.refuse(index, &error, handler),
                }
            } else {
                let taken = match self.complete_partial(index, bytes) {
                    Ok(taken) => taken,
                    Err(error) => return self.refuse(index, &error, handler),
                };
                bytes = &bytes[taken..];
                if !self.handle_partial(index, handler) {
                    break;
                }
            }
        }
        self.keep(index, bytes);
    }

    /// Moves bytes of `bytes` to the partial frame until it is whole or they are used up.
    fn complete_partial(&mut self, index: u32, bytes: &[u8]) -> Result<usize, crate::frame::FrameError> {
        const HEAD_BYTES: usize = 4;
        let Some(connection) = self.slots[index as usize].connection.as_mut() else { return Ok(bytes.len()) };
        let mut taken = HEAD_BYTES.saturating_sub(connection.partial.len()).min(bytes.len());
        connection.partial.extend_from_slice(&bytes[..taken]);
        if let Some(size) = frame_size(&connection.partial)? {
            let more = size.saturating_sub(connection.partial.len()).min(bytes.len() - taken);
            if connection.partial.capacity() < size {
                connection.partial.reserve_exact(size - connection.partial.len());
            }
            connection.partial.extend_from_slice(&bytes[taken..taken + more]);
            taken += more;
        }
        Ok(taken)
    }

    /// Handles the partial frame if it is whole. False when the connection cannot take more now.
    fn handle_partial(&mut self, index: u32, handler: &mut impl FrameHandler<B>) -> bool {
        let Some(connection) = self.slots[index as usize].connection.as_mut() else { return false };
        if !matches!(frame_size(&connection.partial), Ok(Some(size)) if size == connection.partial.len()) {
            return true;
        }
        let frame = std::mem::take(&mut connection.partial);
        let verdict = self.handle(index, &frame, handler);
        let Some(connection) = self.slots[index as usize].connection.as_mut() else { return false };
        if verdict == Verdict::Stall {
            connection.partial = frame;
            return false;
        }
        self.assembly_bytes -= std::mem::take(&mut connection.reserved_bytes);
        verdict != Verdict::Close
    }

    /// Keeps what could not be handled yet. The rest of a large frame is charged to the assembly budget; when that
    /// is spent, the connection is not read until others have finished theirs.
    fn keep(&mut self, index: u32, bytes: &[u8]) {
        let Some(connection) = self.slots[index as usize].connection.as_mut() else { return };
        connection.partial.extend_from_slice(bytes);
        let Ok(Some(size)) = frame_size(&connection.partial) else { return };
        let is_large = size > RECEIVE_BUFFER_BYTES as usize && size > connection.partial.len();
        if !is_large || connection.reserved_bytes > 0 || connection.is_stalled {
            return;
        }
        if self.assembly_bytes + size <= self.limits.assembly_bytes_max.max(FRAME_BYTES_MAX) {
            self.assembly_bytes += size;
            connection.reserved_bytes = size;
        } else {
            self.is_starved = true;
            connection.is_stalled = true;
            connection.waits_for_room = true;
            self.stalled.push(index);
        }
    }

    /// While large frames wait for room, closes connections that hold some and send nothing: they would keep everybody
    /// else's large frames out until they go idle.
    pub fn close_hoarders(&mut self, now_ms: i64, handler: &mut impl FrameHandler<B>) {
        if !std::mem::take(&mut self.is_starved) {
            return;
        }
        for index in 0..self.slots.len() as u32 {
            let Some(connection) = self.slots[index as usize].connection.as_ref() else { continue };
            let is_silent = now_ms - connection.last_active_ms > HOARDING_MS_MAX;
            // One that the handler stalled is silent because it is not read.
            if connection.reserved_bytes > 0 && is_silent && !connection.is_stalled && !connection.is_closing {
                tracing::warn!(
                    peer = %connection.peer.address,
                    reserved_bytes = connection.reserved_bytes,
                    limit = self.limits.assembly_bytes_max,
                    "closing a connection that stopped in the middle of a large frame while others wait for the room"
                );
                self.begin_close(index, handler);
            }
        }
    }

    fn handle(&mut self, index: u32, frame: &[u8], handler: &mut impl FrameHandler<B>) -> Verdict {
        let Some(connection) = self.slots[index as usize].connection.as_mut() else { return Verdict::Close };
        let peer = connection.peer;
        let verdict = handler.on_frame(&peer, frame, &mut connection.outbox);
        if !connection.outbox.is_empty() && !connection.is_queued_to_send {
            connection.is_queued_to_send = true;
            self.to_send.push(index);
        }
        match verdict {
            Verdict::Done => {}
            Verdict::Later => connection.open_requests += 1,
            Verdict::Stall => {
                connection.is_stalled = true;
                let is_busy = connection.received_bytes >= BUSY_BYTES;
                if is_busy { self.stalled.push(index) } else { self.stalled_quiet.push(index) }
            }
            Verdict::Close => {
                tracing::info!(peer = %peer.address, "closing a connection that sent an undecodable frame");
                self.begin_close(index, handler);
            }
        }
        verdict
    }

    fn refuse(&mut self, index: u32, error: &crate::frame::FrameError, handler: &mut impl FrameHandler<B>) {
        if let Some(connection) = self.slots[index as usize].connection.as_ref() {
            tracing::info!(peer = %connection.peer.address, %error, "closing a connection");
        }
        self.begin_close(index, handler);
    }

    /// Receives again from a connection: at once, unless it is one of those that must take turns.
    fn receive_again(&mut self, ring: &mut Ring, index: u32) {
        let Some(connection) = self.slots[index as usize].connection.as_mut() else { return };
        // Brokers that register at a name server are few, and must be heard whatever the log does.
        if connection.received_bytes < BUSY_BYTES || connection.peer.role == ListenerRole::NameServer {
            self.receive(ring, index);
        } else if !connection.is_queued_to_receive {
            connection.is_queued_to_receive = true;
            self.busy.push_back(index);
        }
    }

    /// Lets the next busy connections speak, in turn. While requests wait for room nobody is asked for more of them:
    /// the one request of somebody else would only stand behind them.
    fn receive_from_busy(&mut self, ring: &mut Ring) {
        if self.is_full() {
            return;
        }
        let mut expected_bytes = 0;
        for _ in 0..self.busy.len().min(BUSY_RECEIVES_MAX) {
            let Some(index) = self.busy.pop_front() else { return };
            let Some(connection) = self.slots[index as usize].connection.as_mut() else { continue };
            connection.is_queued_to_receive = false;
            expected_bytes += connection.received_bytes;
            self.receive(ring, index);
            if expected_bytes >= BUSY_BYTES_PER_TURN {
                return;
            }
        }
    }

    /// Whether the handler has no room for a request of some connection.
    fn is_full(&self) -> bool {
        let waits = |index: &u32| self.slots[*index as usize].connection.as_ref().is_some_and(|it| !it.waits_for_room);
        !self.stalled_quiet.is_empty() || self.stalled.iter().any(waits)
    }

    /// Whether connections wait for nothing but the next turn, so that the core must not sleep.
    pub fn wants_turn(&self) -> bool {
        !self.busy.is_empty() && !self.is_full()
    }

    /// Asks the kernel for the connection's next bytes, unless a bound says to wait.
    fn receive(&mut self, ring: &mut Ring, index: u32) {
        let Some(connection) = self.slots[index as usize].connection.as_mut() else { return };
        let may_read = !connection.is_closing
            && !connection.is_receiving
            && !connection.is_queued_to_receive
            && !connection.is_stalled
            && connection.queued_bytes() <= self.limits.outbox_bytes_pause
            && (connection.queued_bytes() == 0 || self.outboxes_bytes <= self.limits.outboxes_bytes_max / 2)
            && connection.open_requests < self.limits.open_requests_max;
        if !may_read {
            return;
        }
        connection.is_receiving = true;
        let entry =
            opcode::Recv::new(types::Fd(connection.socket.as_raw_fd()), std::ptr::null_mut(), RECEIVE_BUFFER_BYTES)
                .buf_group(self.buffers.group())
                .build()
                .flags(squeue::Flags::BUFFER_SELECT)
                .user_data(Token::new(Self::RECEIVE_KIND, connection.peer.id.generation, index).to_user_data());
        // SAFETY: the kernel writes to a registered buffer; the socket stays open until no operation is under way.
        unsafe { ring.push(&entry) };
    }

    fn send(&mut self, ring: &mut Ring, index: u32) {
        let Some(connection) = self.slots[index as usize].connection.as_mut() else { return };
        if connection.is_closing || connection.sending.is_active || connection.outbox.is_empty() {
            return;
        }
        connection.last_drained_ms = self.now_ms;
        connection.sending.load(&mut connection.outbox);
        Self::submit_send(ring, index, connection);
    }

    fn submit_send(ring: &mut Ring, index: u32, connection: &mut Connection<B>) {
        let descriptor: RawFd = connection.socket.as_raw_fd();
        let entry = opcode::SendMsg::new(types::Fd(descriptor), connection.sending.message())
            .flags(libc::MSG_NOSIGNAL as u32)
            .build()
            .user_data(Token::new(Self::SEND_KIND, connection.peer.id.generation, index).to_user_data());
        // SAFETY: the message header, its vectors and the bytes they name live in the boxed connection and in
        // slices it holds; they are not changed until the completion (`is_active`), and the slot is freed only then.
        unsafe { ring.push(&entry) };
    }

    fn begin_close(&mut self, index: u32, handler: &mut impl FrameHandler<B>) {
        let Some(connection) = self.slots[index as usize].connection.as_mut() else { return };
        if !connection.is_closing {
            connection.is_closing = true;
            let peer = connection.peer;
            self.assembly_bytes -= std::mem::take(&mut connection.reserved_bytes);
            connection.partial = Vec::new();
            // What is being sent stays until the kernel lets go of it, which it does at once.
            self.outboxes_bytes -= std::mem::take(&mut connection.counted_bytes);
            connection.outbox = Outbox::default();
            // Ends the operations under way. An error means the connection is already down, which is the aim.
            let _ = socket2::SockRef::from(&connection.socket).shutdown(std::net::Shutdown::Both);
            handler.on_closed(&peer);
        }
        let Some(connection) = self.slots[index as usize].connection.as_ref() else { return };
        if !connection.is_receiving && !connection.sending.is_active {
            let slot = &mut self.slots[index as usize];
            slot.connection = None;
            self.free.push(index);
            self.open_count -= 1;
        }
    }
}
