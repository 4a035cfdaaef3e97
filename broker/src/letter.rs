//! What cores send each other. Requests and replies travel in parcels: one letter per destination and
//! turn, however many it carries.

use std::net::SocketAddr;
use std::sync::Arc;

use rmq_engine::{AppendError, LogPosition, Slice};
use rmq_net::body::TopicConfig;
use rmq_net::connection::{Accepted, ConnectionId, ListenerRole, Peer};
use rmq_net::frame::{Frame, Serialization};

use crate::broker::Broker;
use crate::gather::Asked;
use crate::request::check_back::Check;
use crate::request::pop::PopLetter;
use crate::state::clients::ViewChange;
use crate::state::groups::GroupChange;
use crate::state::locks::LockChange;
use crate::state::stats::CountersDelta;
use crate::state::topics::TopicChange;

/// On whose account a send runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    Client,
    /// A consumer sent a message back: it goes to the group's retry topic.
    SentBack,
    /// A message was tried too often: it goes to the group's dead letters.
    DeadLetter,
    /// A reply its requester has taken, or could not take: whatever becomes of it here, that is what counts.
    PushedReply,
}

/// Where a request entered the broker.
#[derive(Clone, Copy, Debug)]
pub struct Origin {
    pub connection: ConnectionId,
    pub address: SocketAddr,
    pub role: ListenerRole,
    /// Why the request runs here; anything but `Client` was written by the broker itself.
    pub purpose: Purpose,
    /// The queue picked for a client that left the choice to the broker.
    pub picked_queue: Option<u32>,
    /// How often it has been handed on from core to core.
    pub hops: u8,
}

impl Origin {
    pub fn of_client(peer: &Peer) -> Self {
        Self {
            connection: peer.id,
            address: peer.address,
            role: peer.role,
            purpose: Purpose::Client,
            picked_queue: None,
            hops: 0,
        }
    }
}

/// One request on the core that handles it.
pub struct Request<'a> {
    pub origin: Origin,
    pub frame: Frame<'a>,
    /// The whole frame, to be forwarded as it came.
    pub bytes: &'a [u8],
}

impl Request<'_> {
    pub fn reply_address(&self) -> ReplyAddress {
        ReplyAddress {
            connection: self.origin.connection,
            opaque: self.frame.opaque,
            serialization: self.frame.serialization,
            is_oneway: self.frame.is_oneway(),
        }
    }
}

/// Everything a reply needs to find its way, kept while the request waits.
#[derive(Clone, Copy, Debug)]
pub struct ReplyAddress {
    pub connection: ConnectionId,
    pub opaque: i32,
    pub serialization: Serialization,
    pub is_oneway: bool,
}

/// Requests on their way to the core that owns what they are about.
#[derive(Default)]
pub struct RequestParcel {
    pub bytes: Vec<u8>,
    pub items: Vec<(Origin, u32)>,
}

impl RequestParcel {
    pub fn push(&mut self, origin: Origin, frame: &[u8]) {
        self.bytes.extend_from_slice(frame);
        self.items.push((origin, frame.len() as u32));
    }
}

/// Encoded frames on their way to the core whose connections they leave through.
#[derive(Default)]
pub struct ReplyParcel {
    pub bytes: Vec<u8>,
    pub slices: Vec<Slice>,
    pub items: Vec<ReplyItem>,
}

pub struct ReplyItem {
    pub connection: ConnectionId,
    pub bytes_count: u32,
    /// Slices of the log that follow the bytes: the body, never copied.
    pub slices_count: u32,
    /// Requests this settles: 1 for a reply, 0 for a frame the broker sends on its own account.
    pub answers: u32,
}

/// A question cores answer from their own shards, for requests about the whole broker.
pub type Question = Arc<dyn Fn(&mut Broker, Asked) + Send + Sync>;
/// A change every core makes in its own log. The answer is a `Result<(), AppendError>`: is it durable there?
pub type Change = Arc<dyn Fn(&mut Broker) -> Result<LogPosition, AppendError> + Send + Sync>;
pub type Answer = Box<dyn std::any::Any + Send>;

pub enum Letter {
    Connection(Accepted),
    Requests(RequestParcel),
    /// A parcel of requests that was worked off, back to its sender: credit, and memory to use again.
    Taken(RequestParcel),
    Replies(ReplyParcel),
    /// A parcel of replies that was delivered, back to its sender.
    Delivered(ReplyParcel),
    TopicChanged(TopicChange),
    GroupChanged(GroupChange),
    ViewChanged(ViewChange),
    LocksChanged(LockChange),
    /// For the system core: a topic the sender needs.
    TopicWanted(TopicConfig),
    Pop(PopLetter),
    /// What the sender counted since its last such letter.
    Counted(CountersDelta),
    /// To the system core: ask a producer what became of a transaction.
    CheckTransaction(Box<Check>),
    /// To the system core: the topic for half messages given up needs a queue on every core.
    DiscardTopicWanted,
    /// A client connection of the sender's core is gone.
    ConnectionClosed(ConnectionId),
    CloseConnection(ConnectionId),
    Question {
        number: u64,
        question: Question,
    },
    Change {
        number: u64,
        change: Change,
    },
    Answer {
        number: u64,
        answer: Answer,
    },
}
