//! Connections as state machines on a core's ring: receive, assemble frames, hand them over, send what
//! the handler left in the outbox. No task per connection, no copy of a frame that arrived whole.
//!
//! Memory is bounded: an idle connection pins no buffer (the kernel picks one when data arrives), frames
//! that arrive in pieces are charged to a budget of the core, and a connection whose replies are not read,
//! or that has too many requests open, is not read from until that changes.

mod listener;
mod outbox;
mod table;

pub use listener::{Accepted, BindError, Listener, ListenerRole, bind};
pub use outbox::Outbox;
pub use table::{ConnectionMemory, Connections, FrameHandler, Limits, Peer, Verdict};

/// Names one connection of the process for as long as it lives; a reused slot gets another generation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ConnectionId {
    pub core: u8,
    generation: u32,
    index: u32,
}

impl ConnectionId {
    const GENERATION_MASK: u32 = 0x00ff_ffff;

    /// The connection named by core (8 bits), generation (24) and slot (32): for tests, which have no sockets.
    pub const fn from_key(key: u64) -> Self {
        Self { core: (key >> 56) as u8, generation: (key >> 32) as u32 & Self::GENERATION_MASK, index: key as u32 }
    }
}
