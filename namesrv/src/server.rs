//! The name server as one state machine: frames in, frames out, no socket and no clock.

use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;

use rmq_net::codes;
use rmq_net::frame::{Frame, Serialization};
use rmq_net::reply::FrameWriter;

use crate::changes::{Asker, Changes, FileWrite, LateReply, Staged};
use crate::config::NamesrvConfig;
use crate::kv::{KvLoadError, KvTable};
use crate::limits::CHANGES_BYTES_MAX;
use rmq_net::connection::ConnectionId;

use crate::registration::Peer;
use crate::request::{self, Arrival, ExtValue, Outcome, Refusal, Reply};
use crate::routes::{MinBrokerIdChange, RouteTable};

/// A frame for a broker that did not ask for it (NOTIFY_MIN_BROKER_ID_CHANGE, 905, oneway).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Push {
    /// Where the broker listens. RocketMQ's brokers take 905 only on a connection *to* this address.
    pub broker_addr: Arc<str>,
    /// The connection the broker registered over: good enough for brokers of ours.
    pub peer: ConnectionId,
    pub frame: Vec<u8>,
}

/// Answers every name server request. In memory only, except for the KV file.
#[derive(Debug)]
pub struct NameServer {
    pub(crate) config: NamesrvConfig,
    pub(crate) kv: KvTable,
    pub(crate) routes: RouteTable,
    pub(crate) started_ms: i64,
    next_scan_ms: i64,
    closes: Vec<ConnectionId>,
    pushes: Vec<Push>,
    push_count: i32,
    changes: Changes,
}

/// Whether a request got its answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Answered {
    /// It has it, or wants none.
    Now,
    /// It comes with [`NameServer::take_replies`].
    Later,
}

impl NameServer {
    /// Reads the KV file. `now_ms` starts the waits of `needWaitForService` and of the first scan.
    ///
    /// Here and everywhere, `now_ms` is milliseconds of a clock that only goes forward, from any origin: were it the
    /// wall clock, setting that would make all brokers silent at once.
    pub fn open(config: NamesrvConfig, now_ms: i64) -> Result<Self, KvLoadError> {
        Ok(Self {
            kv: KvTable::load(Path::new(&config.kv_config_path))?,
            routes: RouteTable::default(),
            started_ms: now_ms,
            next_scan_ms: now_ms.saturating_add(config.scan_not_active_broker_interval),
            closes: Vec::new(),
            pushes: Vec::new(),
            push_count: 0,
            changes: Changes::default(),
            config,
        })
    }

    /// The settings in force; request 318 changes them.
    pub fn config(&self) -> &NamesrvConfig {
        &self.config
    }

    /// Appends exactly one reply frame to `out`, in the serialization of the request; nothing for a
    /// oneway request or a response, or if the answer comes later. `peer` identifies the connection.
    ///
    /// Cost of a route request whose answer is finished: one look-up and one copy into `out`.
    pub fn handle(
        &mut self,
        frame: &Frame<'_>,
        peer: ConnectionId,
        peer_addr: SocketAddr,
        now_ms: i64,
        out: &mut Vec<u8>,
    ) -> Answered {
        if frame.is_response() {
            return Answered::Now;
        }
        let (serialization, opaque, is_oneway) = (frame.serialization, frame.opaque, frame.is_oneway());
        let arrival = Arrival { frame, peer: Peer { key: peer, addr: peer_addr }, now_ms };
        let outcome = match request::change(&arrival) {
            None => request::answer(self, &arrival),
            Some(Err(refusal)) => Err(refusal),
            Some(Ok(change)) if self.changes.waiting_bytes + change.bytes() > CHANGES_BYTES_MAX => {
                Err(Refusal::system_error(format_args!(
                    "{} bytes of changes wait for the disk, and no more than {CHANGES_BYTES_MAX} may",
                    self.changes.waiting_bytes
                )))
            }
            Some(Ok(change)) => {
                tracing::info!(code = frame.code, peer = %peer_addr, "the KV table or the configuration is to be changed");
                let asker = Asker { peer, serialization, opaque, is_oneway };
                self.changes.waiting_bytes += change.bytes();
                self.changes.waiting.push_back((asker, change));
                return if is_oneway { Answered::Now } else { Answered::Later };
            }
        };
        if !is_oneway {
            write_outcome(out, serialization, opaque, &outcome);
        }
        Answered::Now
    }

    /// The next file to write, if none is being written. Its result must be given to [`Self::on_written`].
    pub fn take_write(&mut self) -> Option<FileWrite> {
        while self.changes.in_flight.is_none() {
            let (asker, change) = self.changes.waiting.pop_front()?;
            self.changes.waiting_bytes -= change.bytes();
            match request::stage(self, &change) {
                Ok(Some((write, staged))) => {
                    let failure = format!("cannot write {} {}", write.setting, write.path.display());
                    self.changes.in_flight = Some((asker, staged, failure));
                    return Some(write);
                }
                Ok(None) => self.reply_late(asker, &Ok(Reply::default())),
                Err(refusal) => self.reply_late(asker, &Err(refusal)),
            }
        }
        None
    }

    /// Takes the result of the write taken last: the change is in force, or did not happen.
    pub fn on_written(&mut self, written: io::Result<()>) {
        let Some((asker, staged, failure)) = self.changes.in_flight.take() else { return };
        let outcome = match written {
            Ok(()) => {
                match staged {
                    Staged::Kv(table) => self.kv = table,
                    Staged::Config(config) => self.config = *config,
                }
                // They may show an order configuration or acting master that is another one now.
                self.routes.forget_answers();
                Ok(Reply::default())
            }
            Err(error) => {
                tracing::error!(%error, "{failure}");
                Err(Refusal::system_error(format_args!("{failure}: {error}")))
            }
        };
        self.reply_late(asker, &outcome);
    }

    /// Whether a change waits for its file or its answer.
    pub fn is_changing(&self) -> bool {
        let Changes { waiting, in_flight, replies, .. } = &self.changes;
        !waiting.is_empty() || in_flight.is_some() || !replies.is_empty()
    }

    /// Answers to requests that got none at once. Each settles one request of its connection.
    pub fn take_replies(&mut self) -> Vec<LateReply> {
        std::mem::take(&mut self.changes.replies)
    }

    fn reply_late(&mut self, asker: Asker, outcome: &Outcome<'_>) {
        if !asker.is_oneway {
            let mut frame = Vec::new();
            write_outcome(&mut frame, asker.serialization, asker.opaque, outcome);
            self.changes.replies.push(LateReply { peer: asker.peer, frame });
        }
    }

    /// The connection is gone, and with it every broker whose last registration came over it.
    pub fn on_closed(&mut self, peer: ConnectionId) {
        let keys = self.routes.live.of_peer(peer);
        if keys.is_empty() {
            return;
        }
        tracing::info!(?peer, brokers = ?keys, "connection of brokers closed");
        let changes = self.routes.unregister_live(&keys);
        self.announce(changes);
    }

    /// Removes brokers that fell silent. Call about once a second: the scan itself runs every
    /// `scanNotActiveBrokerInterval` milliseconds (5000).
    pub fn tick(&mut self, now_ms: i64) {
        if now_ms < self.next_scan_ms {
            return;
        }
        self.next_scan_ms = now_ms.saturating_add(self.config.scan_not_active_broker_interval);
        let keys = self.routes.live.expired(now_ms);
        if keys.is_empty() {
            return;
        }
        tracing::warn!(brokers = ?keys, "brokers were silent for longer than their timeout");
        for (cluster, addr) in &keys {
            if let Some(live) = self.routes.live.get(cluster, addr)
                && !self.closes.contains(&live.peer)
            {
                self.closes.push(live.peer);
            }
        }
        let changes = self.routes.unregister_live(&keys);
        self.announce(changes);
    }

    /// Connections to close, because a broker behind them fell silent. Closing one makes the caller
    /// call [`Self::on_closed`], which removes the other brokers of that connection.
    pub fn take_closes(&mut self) -> Vec<ConnectionId> {
        std::mem::take(&mut self.closes)
    }

    /// Frames to send to brokers on our own account; empty unless `notifyMinBrokerIdChanged`.
    pub fn take_pushes(&mut self) -> Vec<Push> {
        std::mem::take(&mut self.pushes)
    }

    /// Queues a 905 for every member that is to be told.
    pub(crate) fn announce(&mut self, changes: impl IntoIterator<Item = MinBrokerIdChange>) {
        if !self.config.notify_min_broker_id_changed {
            return;
        }
        for change in changes {
            for (broker_addr, peer) in &change.told {
                let mut frame = Vec::new();
                self.push_count = self.push_count.wrapping_add(1);
                write_min_id_change(&mut frame, self.push_count, &change);
                self.pushes.push(Push { broker_addr: broker_addr.clone(), peer: *peer, frame });
            }
        }
    }
}

fn write_outcome(out: &mut Vec<u8>, serialization: Serialization, opaque: i32, outcome: &Outcome<'_>) {
    match outcome {
        Ok(reply) => write_reply(out, serialization, opaque, reply),
        Err(refusal) => write_refusal(out, serialization, opaque, refusal),
    }
}

fn write_reply(out: &mut Vec<u8>, serialization: Serialization, opaque: i32, reply: &Reply<'_>) {
    let code = codes::response::SUCCESS;
    let body = reply.body.as_ref();
    FrameWriter::response(out, serialization, code, opaque, None, body.len(), |ext| {
        for (key, value) in &reply.ext {
            match value {
                ExtValue::Text(text) => ext.text(key, text),
                ExtValue::Int(number) => ext.int(key, *number),
                ExtValue::Bool(value) => ext.bool(key, *value),
            }
        }
    });
    out.extend_from_slice(body);
}

#[cold]
fn write_refusal(out: &mut Vec<u8>, serialization: Serialization, opaque: i32, refusal: &Refusal) {
    let remark = Some(refusal.remark.as_str());
    FrameWriter::response(out, serialization, refusal.code, opaque, remark, 0, |_| {});
}

fn write_min_id_change(out: &mut Vec<u8>, opaque: i32, change: &MinBrokerIdChange) {
    let code = codes::request::NOTIFY_MIN_BROKER_ID_CHANGE;
    FrameWriter::request(out, Serialization::Json, code, opaque, true, 0, |ext| {
        ext.text("brokerName", &change.broker_name);
        if let Some(addr) = &change.ha_broker_addr {
            ext.text("haBrokerAddr", addr);
        }
        ext.text("minBrokerAddr", &change.min_broker_addr);
        ext.int("minBrokerId", change.min_broker_id);
        if let Some(addr) = &change.offline_broker_addr {
            ext.text("offlineBrokerAddr", addr);
        }
    });
}
