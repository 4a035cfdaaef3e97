//! One life of a broker process on a store.

use std::fs;
use std::net::TcpStream;
use std::path::Path;
use std::process::Command;

use rmq_tests::{Folder, Process, await_condition, free_port, rmq};

/// The smallest that is allowed, so that segments change often.
const SEGMENT_BYTES: u64 = 16 << 20;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flush {
    Sync,
    Async,
}

pub struct Broker {
    process: Process,
    address: String,
    _folder: Folder,
}

impl Broker {
    /// Starts a broker, registered nowhere.
    pub fn start(store: &Path, flush: Flush) -> Self {
        let (folder, port) = (Folder::new(), free_port());
        let flush = match flush {
            Flush::Sync => "SYNC_FLUSH",
            Flush::Async => "ASYNC_FLUSH",
        };
        let text = format!(
            "brokerIP1=127.0.0.1\nbindAddress=127.0.0.1\nlistenPort={port}\nstorePathRootDir={}\nflushDiskType={flush}\nmappedFileSizeCommitLog={SEGMENT_BYTES}\n",
            store.display()
        );
        let file = folder.path().join("broker.conf");
        fs::write(&file, text).expect("broker.conf is written");
        let mut command = Command::new(rmq());
        // Two cores whatever the machine has: letters between cores are to be tested everywhere.
        command.args(["broker", "--cores", "2"]).arg("-c").arg(&file).env_remove("NAMESRV_ADDR");
        let process = Process::start("broker", folder.path(), &command);
        Self { process, address: format!("127.0.0.1:{port}"), _folder: folder }
    }

    pub fn address(&self) -> &str {
        &self.address
    }

    /// Waits until the broker listens, or until it ended or `is_over`. True: it listens.
    pub fn await_listening(&self, is_over: impl Fn() -> bool) -> bool {
        let mut is_listening = false;
        await_condition("a listening broker", || {
            is_listening = TcpStream::connect(&self.address).is_ok();
            is_listening || self.process.is_ended() || is_over()
        });
        is_listening
    }

    pub fn kill(&self) {
        // A start without power may have ended by itself.
        if !self.process.is_ended() {
            self.process.kill_hard();
        }
    }

    pub fn log_tail(&self) -> String {
        self.process.log_tail()
    }
}
