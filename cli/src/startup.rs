//! The start-up block of the log: one event that says what this process serves, and how.

use std::fmt;

use rmq_broker::config::FlushDiskType;
use rmq_broker::memory::PER_UNIT;
use rmq_broker::start::StartReport;

use crate::plan::Plan;

/// Named facts, one a line.
#[derive(Debug, Default)]
pub struct Block(Vec<(&'static str, String)>);

impl Block {
    /// What the settings say already; what the store says comes from the node.
    pub fn of(plan: &Plan) -> Self {
        let mut block = Self::default();
        block.add("RingMQ", format!("{}, process {}", env!("CARGO_PKG_VERSION"), std::process::id()));
        if let Some(name_server) = &plan.name_server {
            let address = std::net::SocketAddr::new(name_server.bind_address, name_server.listen_port);
            block.add("name server", address.to_string());
        }
        if let Some(broker) = &plan.broker {
            let config = &broker.config;
            let address = std::net::SocketAddr::new(config.bind_address, config.listen_port);
            block.add("broker", format!("{} of {}", config.broker_name, config.broker_cluster_name));
            block.add("listening", format!("{address} and port {}", config.vip_port()));
            block.add("told to clients", config.client_address(config.listen_port));
            block.add(
                "registers at",
                match config.namesrv_addr.join(", ") {
                    none if none.is_empty() => "no name server: clients cannot find this broker".into(),
                    addresses => addresses,
                },
            );
            block.add("store", config.store_path_root_dir.clone());
            block.add(
                "acknowledges",
                match config.flush_disk_type {
                    FlushDiskType::Async => "when the device has the write (ASYNC_FLUSH)".into(),
                    FlushDiskType::Sync => "when the write is on stable media (SYNC_FLUSH)".into(),
                },
            );
        }
        block
    }

    /// What the node found and opened.
    pub fn add_report(&mut self, report: &StartReport) {
        if let Some(store) = &report.store {
            let path = if store.is_direct {
                "O_DIRECT on io_uring"
            } else {
                "buffered and synced on io_uring: this file system refuses O_DIRECT, which costs speed; use ext4 or xfs"
            };
            self.add("writes", path.into());
            let (messages, batches) = store
                .recovered
                .iter()
                .fold((0, 0), |(messages, batches), found| (messages + found.messages, batches + found.batches));
            self.add(
                "shards",
                format!("{}, {messages} messages in {batches} batches read behind the last snapshots", store.shards),
            );
        }
        self.add("memory", format!("{}; cores: {}", report.memory, report.cores));
        self.add("  and", PER_UNIT.into());
        self.add("ready after", format!("{} ms", report.took.as_millis()));
    }

    pub fn add(&mut self, name: &'static str, value: String) {
        self.0.push((name, value));
    }
}

impl fmt::Display for Block {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("starting")?;
        for (name, value) in &self.0 {
            write!(out, "\n  {name:<16} {value}")?;
        }
        Ok(())
    }
}
