use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use crate::folder::Folder;
use crate::process::{Process, await_condition};
use crate::suite::apache_command;
use crate::{binary, port, route};

/// Every broker has this topic, whatever its settings. Once the name server knows it, the broker is registered.
const TOPIC_OF_EVERY_BROKER: &str = "SELF_TEST_TOPIC";

/// What every broker is told beside its place. Off by default in RocketMQ, but SQL92 scenarios need it.
const BROKER_SETTINGS: &str = "enablePropertyFilter=true\nrecallMessageEnable=true\n";

/// Whose servers a test works with.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    RingMq,
    Apache,
}

impl Kind {
    /// What is to be tested: RingMQ, or Apache when `RMQ_TEST_TARGET=apache` asks for the reference.
    pub fn under_test() -> Self {
        match std::env::var("RMQ_TEST_TARGET").as_deref() {
            Err(_) | Ok("rmq") => Self::RingMq,
            Ok("apache") => Self::Apache,
            Ok(other) => panic!("RMQ_TEST_TARGET is rmq or apache, not {other}"),
        }
    }
}

/// The name server of a cluster that runs already, from `RMQ_TEST_NAMESRV`.
pub fn attached() -> Option<String> {
    std::env::var("RMQ_TEST_NAMESRV").ok()
}

/// The name server all client tests of one process share.
pub fn shared() -> String {
    static SHARED: OnceLock<Cluster> = OnceLock::new();
    attached().unwrap_or_else(|| SHARED.get_or_init(|| Cluster::start(Kind::under_test())).namesrv().to_owned())
}

/// A name server and one broker on free ports of 127.0.0.1, with a store of their own.
pub struct Cluster {
    kind: Kind,
    namesrv_port: u16,
    broker_port: u16,
    namesrv: String,
    /// In the order in which they are started. RingMQ's standalone mode is one process, Apache needs two.
    processes: Vec<Process>,
    folder: Folder,
}

impl Cluster {
    /// Starts both and waits until the broker is registered.
    pub fn start(kind: Kind) -> Self {
        let (namesrv_port, broker_port) = (port::free(), port::free());
        let mut cluster = Self {
            kind,
            namesrv_port,
            broker_port,
            namesrv: format!("127.0.0.1:{namesrv_port}"),
            processes: Vec::new(),
            folder: Folder::new(),
        };
        cluster.restart();
        cluster
    }

    pub fn namesrv(&self) -> &str {
        &self.namesrv
    }

    /// Folder of RingMQ's store.
    pub fn store(&self) -> PathBuf {
        self.folder.path().join("store")
    }

    /// Where the broker listens.
    pub fn broker(&self) -> String {
        format!("127.0.0.1:{}", self.broker_port)
    }

    /// The process of the broker.
    pub fn broker_process(&self) -> &Process {
        self.processes.last().expect("a cluster has processes")
    }

    pub fn broker_process_mut(&mut self) -> &mut Process {
        self.processes.last_mut().expect("a cluster has processes")
    }

    /// Starts the servers again, on the same ports and store.
    pub fn restart(&mut self) {
        self.processes.clear();
        let folder = self.folder.path();
        match self.kind {
            Kind::RingMq => {
                let mut command = Command::new(binary::rmq());
                // Two cores whatever the machine has: letters between cores are to be tested everywhere.
                command
                    .arg("standalone")
                    .env("HOME", folder)
                    .arg("--store")
                    .arg(folder.join("store"))
                    .args(["--cores", "2"]);
                command.args(["--listen", &format!("127.0.0.1:{}", self.broker_port)]);
                command.args(["--namesrv-port", &self.namesrv_port.to_string()]);
                let configuration = folder.join("broker.conf");
                fs::write(&configuration, BROKER_SETTINGS).expect("broker.conf is written");
                command.arg("-c").arg(&configuration);
                self.processes.push(Process::start("standalone", folder, &command));
            }
            Kind::Apache => {
                self.processes.push(start_namesrv(self.kind, folder, self.namesrv_port, ""));
                self.processes.push(start_broker(self.kind, folder, self.broker_port, &self.namesrv, ""));
            }
        }
        await_registration(self.broker_process(), &self.namesrv, self.broker_port);
    }

    /// `kill -9` for every process. Waits until the kernel has closed its listeners too: those of an io_uring may
    /// outlive the process by some milliseconds.
    pub fn crash(&mut self) {
        self.processes.iter().for_each(Process::kill_hard);
        for port in [self.namesrv_port, self.broker_port] {
            await_condition(&format!("port {port} to be free"), || port::is_free(port));
        }
    }
}

/// A name server on a free port of 127.0.0.1.
pub struct Namesrv {
    address: String,
    _process: Process,
    _folder: Folder,
}

impl Namesrv {
    pub fn start(kind: Kind) -> Self {
        Self::with(kind, "")
    }

    /// The same with lines of its namesrv.conf.
    pub fn with(kind: Kind, properties: &str) -> Self {
        let (port, folder) = (port::free(), Folder::new());
        let process = start_namesrv(kind, folder.path(), port, properties);
        Self { address: format!("127.0.0.1:{port}"), _process: process, _folder: folder }
    }

    pub fn address(&self) -> &str {
        &self.address
    }
}

/// A broker named `broker-a` of `DefaultCluster` on a free port of 127.0.0.1.
pub struct Broker {
    address: String,
    process: Process,
    _folder: Folder,
}

impl Broker {
    /// Starts it and waits until it is registered at `namesrv`.
    pub fn start(kind: Kind, namesrv: &str) -> Self {
        Self::with(kind, namesrv, "")
    }

    /// The same with lines of its broker.conf.
    pub fn with(kind: Kind, namesrv: &str, properties: &str) -> Self {
        let (folder, port) = (Folder::new(), port::free());
        let process = start_broker(kind, folder.path(), port, namesrv, properties);
        await_registration(&process, namesrv, port);
        Self { address: format!("127.0.0.1:{port}"), process, _folder: folder }
    }

    pub fn address(&self) -> &str {
        &self.address
    }

    /// Stops it as an operator does, with SIGTERM.
    pub fn stop(self) {
        self.process.terminate();
    }
}

fn start_namesrv(kind: Kind, folder: &Path, port: u16, properties: &str) -> Process {
    let configuration = folder.join("namesrv.conf");
    fs::write(&configuration, format!("listenPort={port}\n{properties}\n")).expect("namesrv.conf is written");
    let mut command = match kind {
        Kind::RingMq => {
            let mut command = Command::new(binary::rmq());
            // Its files are in the home folder unless namesrv.conf says where.
            command.arg("namesrv").env("HOME", folder);
            command
        }
        Kind::Apache => apache_command("org.apache.rocketmq.namesrv.NamesrvStartup", folder, "256m"),
    };
    command.arg("-c").arg(&configuration);
    let process = Process::start("namesrv", folder, &command);
    process.await_ready("listening name server", || std::net::TcpStream::connect(("127.0.0.1", port)).is_ok());
    process
}

fn start_broker(kind: Kind, folder: &Path, port: u16, namesrv: &str, properties: &str) -> Process {
    let configuration = folder.join("broker.conf");
    let store = folder.join("store");
    let text = format!(
        "brokerClusterName=DefaultCluster\nbrokerName=broker-a\nbrokerId=0\nbrokerIP1=127.0.0.1\nlistenPort={port}\nstorePathRootDir={}\n{BROKER_SETTINGS}{properties}\n",
        store.display()
    );
    fs::write(&configuration, text).expect("broker.conf is written");
    let mut command = match kind {
        Kind::RingMq => {
            let mut command = Command::new(binary::rmq());
            command.arg("broker");
            command
        }
        Kind::Apache => apache_command("org.apache.rocketmq.broker.BrokerStartup", folder, "1g"),
    };
    command.args(["-n", namesrv]).arg("-c").arg(&configuration);
    Process::start("broker", folder, &command)
}

fn await_registration(broker: &Process, namesrv: &str, port: u16) {
    let address = format!("127.0.0.1:{port}");
    broker.await_ready("registered broker", || route::has_broker(namesrv, TOPIC_OF_EVERY_BROKER, &address));
}
