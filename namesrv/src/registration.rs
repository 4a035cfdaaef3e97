//! What one REGISTER_BROKER request says, independent of how its body was encoded.

use std::net::SocketAddr;

use rmq_net::connection::ConnectionId;

/// The connection a request came on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Peer {
    pub key: ConnectionId,
    pub addr: SocketAddr,
}

/// The id of a master; every other id is a slave.
pub const MASTER_ID: i64 = 0;

/// Milliseconds a broker may stay silent when its registration names no other value.
pub const HEARTBEAT_TIMEOUT_MS: i64 = 120_000;

/// Topic permission bits.
pub const PERM_READ: i32 = 4;
pub const PERM_WRITE: i32 = 2;

/// A broker's queues of one topic.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct QueueData {
    pub read_queue_nums: i32,
    pub write_queue_nums: i32,
    pub perm: i32,
    pub topic_sys_flag: i32,
}

impl QueueData {
    pub fn is_writable(&self) -> bool {
        self.perm & PERM_WRITE != 0
    }

    #[must_use]
    pub fn without_write(mut self) -> Self {
        self.perm &= !PERM_WRITE;
        self
    }
}

/// Where a broker listens and who it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BrokerIdentity<'a> {
    pub cluster: &'a str,
    pub broker_name: &'a str,
    /// `host:port` that clients connect to.
    pub addr: &'a str,
    /// 0 is the master.
    pub id: i64,
}
