//! The command line: RocketMQ's flags for the name server and the broker, and ours for the rest.

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};

use crate::exit;

const EXAMPLES: &str = "\
Try it:
  rmq standalone                          name server and broker in one process, on ports 9876, 10911 and 10909
  rmq standalone --store /data/rmq        keep the messages there
  rmq check --store /data/rmq             is this host set up well?
  rmq store check /data/rmq               is every message of a stopped broker intact?

As RocketMQ is run:
  rmq namesrv
  rmq broker -n 127.0.0.1:9876 -c conf/broker.conf
  rmq broker -p                           print every setting with its value

Logs go to stderr; RUST_LOG sets their level (default: info; RUST_LOG=debug shows more).
SIGTERM or Ctrl-C stops a server after it has answered what it holds; the second one stops it at once.";

/// RingMQ: a message broker and name server that stock RocketMQ clients use unchanged.
#[derive(Debug, Parser)]
#[command(name = "rmq", version, arg_required_else_help = true, after_help = format!("{EXAMPLES}\n\n{}", exit::TABLE))]
pub struct Arguments {
    #[command(subcommand)]
    pub command: Command,
}

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run a name server: it tells clients which broker serves which topic
    Namesrv(NamesrvArguments),
    /// Run a broker: it stores messages and hands them out
    Broker(BrokerArguments),
    /// Run a name server and a broker in one process
    Standalone(StandaloneArguments),
    /// Look at this host: kernel, limits, disk, clock; each finding with its remedy
    Check(CheckArguments),
    /// Look into the store of a stopped broker
    #[command(subcommand)]
    Store(StoreCommand),
}

#[derive(Debug, Subcommand)]
pub enum StoreCommand {
    /// Read every message and snapshot, change nothing, and say what is there and whether it is intact.
    ///
    /// Remains of a write that a crash interrupted are no damage: none of it was acknowledged. Ends with 0 if the store is
    /// sound and with 5 if anything in it is damaged. Refused while a broker runs on the store.
    Check(StoreCheckArguments),
    /// Print the batches and records of the log, one line each
    Dump(StoreDumpArguments),
    /// Cut a log off where damage keeps the broker from starting.
    ///
    /// Without --yes it says what would be cut off and lost, changes nothing, and ends with 5. What is cut off is kept in
    /// a folder of the store. Ends with 0 if there is nothing to repair, or all is, and with 3 if cutting does not help.
    Repair(StoreRepairArguments),
}

#[derive(Debug, Args)]
pub struct StoreCheckArguments {
    /// Folder of the store
    #[arg(value_name = "FOLDER")]
    pub store: PathBuf,
    /// Print one JSON object instead of text
    #[arg(long)]
    pub json: bool,
}

#[derive(Debug, Args)]
pub struct StoreDumpArguments {
    /// Folder of the store
    #[arg(value_name = "FOLDER")]
    pub store: PathBuf,
    /// Only this shard
    #[arg(long, value_name = "N")]
    pub shard: Option<u16>,
    /// Begin with the batch at or behind this position of each shard's log
    #[arg(long, value_name = "POSITION", default_value_t = 0)]
    pub from: u64,
    /// Print at most so many records
    #[arg(long, value_name = "COUNT", default_value_t = u64::MAX, hide_default_value = true)]
    pub limit: u64,
    /// Only messages of this topic
    #[arg(long)]
    pub topic: Option<String>,
    /// Only messages of this queue
    #[arg(long, value_name = "N", requires = "topic")]
    pub queue: Option<u32>,
    /// Print the messages' bodies too, bytes that are no ASCII text escaped
    #[arg(long)]
    pub bodies: bool,
    /// Print JSON objects, one per line, instead of a table
    #[arg(long)]
    pub json: bool,
}

#[derive(Debug, Args)]
pub struct StoreRepairArguments {
    /// Folder of the store
    #[arg(value_name = "FOLDER")]
    pub store: PathBuf,
    /// Do it
    #[arg(long)]
    pub yes: bool,
    /// Do not keep what is cut off: where the disk has no room for a copy of one segment
    #[arg(long)]
    pub no_save: bool,
    /// Instead: remove the index and the snapshots, so that the next start makes them anew from the whole log
    #[arg(long)]
    pub rebuild_index: bool,
}

#[derive(Debug, Args)]
pub struct NamesrvArguments {
    /// Property file with the name server's settings
    #[arg(short = 'c', long = "configFile", value_name = "FILE")]
    pub config_file: Option<PathBuf>,
    /// Accepted as RocketMQ does, without effect: a name server knows no other
    #[arg(short = 'n', long = "namesrvAddr", value_name = "ADDRESSES")]
    pub namesrv_addr: Option<String>,
    /// Print all settings with their values, and stop
    #[arg(short = 'p', long = "printConfigItem")]
    pub print_all: bool,
}

#[derive(Debug, Args)]
pub struct BrokerArguments {
    /// Property file with the broker's settings, such as RocketMQ's broker.conf
    #[arg(short = 'c', long = "configFile", value_name = "FILE")]
    pub config_file: Option<PathBuf>,
    /// Name servers to register at, e.g. '192.168.0.1:9876;192.168.0.2:9876'; wins over the file and NAMESRV_ADDR
    #[arg(short = 'n', long = "namesrvAddr", value_name = "ADDRESSES")]
    pub namesrv_addr: Option<String>,
    /// Print all settings with their values, and stop
    #[arg(short = 'p', long = "printConfigItem")]
    pub print_all: bool,
    /// Print the important settings with their values, and stop
    #[arg(short = 'm', long = "printImportantConfig")]
    pub print_important: bool,
    #[command(flatten)]
    pub resources: ResourceArguments,
}

#[derive(Debug, Args)]
pub struct StandaloneArguments {
    /// Folder of the store; made if missing [default: storePathRootDir of the file, else ./ringmq-store]
    #[arg(long, value_name = "FOLDER")]
    pub store: Option<PathBuf>,
    /// Address and port of the broker, e.g. 127.0.0.1:10911; the address also holds for the name server
    #[arg(long, value_name = "ADDRESS:PORT")]
    pub listen: Option<SocketAddr>,
    /// Port of the name server
    #[arg(long, value_name = "PORT", default_value_t = 9876, value_parser = clap::value_parser!(u16).range(1..))]
    pub namesrv_port: u16,
    /// Property file with the broker's settings, such as RocketMQ's broker.conf
    #[arg(short = 'c', long = "configFile", value_name = "FILE")]
    pub config_file: Option<PathBuf>,
    #[command(flatten)]
    pub resources: ResourceArguments,
}

#[derive(Debug, Default, Args)]
pub struct ResourceArguments {
    /// Cores to use, one thread each; a new store gets as many shards [default: all but one of those this process may use]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=i64::from(CORES_MAX)))]
    pub cores: Option<u16>,
    /// Memory for the newest messages, all cores together, in MiB: consumers that are not further behind are served without
    /// the disk [default: 64 per core]
    #[arg(long, value_name = "MIB", value_parser = clap::value_parser!(u32).range(1..=i64::from(LOG_MEMORY_MIB_MAX)))]
    pub log_memory: Option<u32>,
}

/// 1 TiB.
const LOG_MEMORY_MIB_MAX: u32 = 1 << 20;

/// A shard's number is part of every physical offset and has seven bits there.
pub const CORES_MAX: u16 = 128;

#[derive(Debug, Args)]
pub struct CheckArguments {
    /// Folder of the store, made or not yet
    #[arg(long, value_name = "FOLDER", default_value = ".")]
    pub store: PathBuf,
}

impl ResourceArguments {
    /// One core is left to the kernel's network work, the service threads and everything else on the host, because
    /// that measures better: with all cores taken they steal time from every shard in turn.
    pub fn core_count(&self) -> usize {
        let most = || std::thread::available_parallelism().map_or(1, usize::from).saturating_sub(1);
        self.cores.map_or_else(|| most().clamp(1, CORES_MAX.into()), usize::from)
    }

    pub fn log_memory_bytes(&self) -> Option<u64> {
        self.log_memory.map(|mib| u64::from(mib) << 20)
    }
}
