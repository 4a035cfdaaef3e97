//! The facts about this machine that RocketMQ's defaults depend on.

use std::net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket};

/// Read once at start and passed around, so that tests can name a machine of their own.
#[derive(Debug, Clone)]
pub struct Machine {
    /// Default of `brokerName`.
    pub host_name: String,
    /// Default of `brokerIP1`: the address this machine would use to reach others.
    pub address: String,
    /// Folder under which RocketMQ keeps `store`.
    pub home: String,
    /// Cores this process may run on; at least 1.
    pub cores: usize,
    /// `ROCKETMQ_HOME`, which RingMQ prints but does not need.
    pub rocketmq_home: String,
}

impl Machine {
    pub fn probe() -> Self {
        let host_name = rustix::system::uname().nodename().to_string_lossy().into_owned();
        Self {
            // RocketMQ: the name is DEFAULT_BROKER when the host has none.
            host_name: if host_name.is_empty() { "DEFAULT_BROKER".into() } else { host_name },
            address: outward_address().to_string(),
            home: std::env::var("HOME").unwrap_or_else(|_| ".".into()),
            cores: std::thread::available_parallelism().map_or(1, usize::from),
            rocketmq_home: std::env::var("ROCKETMQ_HOME").unwrap_or_default(),
        }
    }

    pub(super) fn host_name(&self) -> String {
        self.host_name.clone()
    }
    pub(super) fn address(&self) -> String {
        self.address.clone()
    }
    pub(super) fn rocketmq_home(&self) -> String {
        self.rocketmq_home.clone()
    }
    pub(super) fn store_folder(&self) -> String {
        format!("{}/store", self.home)
    }

    // RocketMQ sizes some of its thread pools by the cores. We have none, but print what it would print.
    pub(super) fn send_threads(&self) -> String {
        self.cores.min(4).to_string()
    }
    pub(super) fn pull_threads(&self) -> String {
        (16 + 2 * self.cores).to_string()
    }
    pub(super) fn query_threads(&self) -> String {
        (8 + self.cores).to_string()
    }
    pub(super) fn heartbeat_threads(&self) -> String {
        self.cores.min(32).to_string()
    }
    pub(super) fn end_transaction_threads(&self) -> String {
        (8 + 2 * self.cores).max(4 * self.cores.min(4)).to_string()
    }
}

/// Asks the kernel's routing table; connecting a datagram socket sends nothing. Loopback when there is no route.
fn outward_address() -> IpAddr {
    let ask = |local: &str, remote: &str| -> std::io::Result<SocketAddr> {
        let socket = UdpSocket::bind(local)?;
        socket.connect(remote)?;
        socket.local_addr()
    };
    // Addresses reserved for documentation: they follow the default route of any network.
    ask("0.0.0.0:0", "192.0.2.1:9")
        .or_else(|_| ask("[::]:0", "[2001:db8::1]:9"))
        .map_or(IpAddr::V4(Ipv4Addr::LOCALHOST), |address| address.ip())
}
