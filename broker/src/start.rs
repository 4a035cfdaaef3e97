//! A node's life: bind, open the store, recover, run the cores, stop.

use std::net::{SocketAddr, ToSocketAddrs};
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use rmq_engine::driver::{DriverOptions, RingDriver};
use rmq_engine::store_dir::{DirectIo, ShardFiles, StoreDir, StoreError, StoreOptions};
use rmq_engine::{Durability, Geometry, Recovered, Shard, ShardConfig, ShardMemory};
use rmq_namesrv::{KvLoadError, NameServer, NamesrvConfig};
use rmq_net::connection::{BindError, Connections, Limits, Listener, ListenerRole, bind};
pub use rmq_turn::RunError;
use rmq_turn::{Clock, Core, RingError};

use crate::broker::{Broker, BrokerParts, SYSTEM_CORE};
use crate::config::{BrokerConfig, FlushDiskType};
use crate::letter::Letter;
use crate::memory::MemoryBounds;
use crate::node::{Node, StopFlag};
use crate::registrar::{Registrar, RegistrarEnd, Registration};
use crate::routes::Routes;
use crate::scrubber::{Pace, ScrubState, ScrubbedShard, Scrubber};
use crate::state::clients::ClientRegistry;
use crate::state::groups::GroupTable;
use crate::state::settings::{GroupSettings, SettingKind, TopicSettings};
use crate::state::stats::BrokerStats;
use crate::state::topics::TopicTable;
use crate::system::{self, System};

/// The broker's share of a node.
pub struct BrokerOptions {
    pub config: BrokerConfig,
    pub store: PathBuf,
    /// Cores for a store that is made now; an existing one keeps its number.
    pub cores: usize,
    /// For the newest messages, all cores together; none: as usual.
    pub log_memory_bytes: Option<u64>,
}

pub struct NodeOptions {
    pub broker: Option<BrokerOptions>,
    pub name_server: Option<NamesrvConfig>,
    pub stop: StopFlag,
}

/// What a node found and opened, for the start-up block of the log.
#[derive(Clone, Debug, Default)]
pub struct StartReport {
    pub name_server_address: Option<SocketAddr>,
    pub broker_addresses: Vec<SocketAddr>,
    pub store: Option<StoreReport>,
    pub cores: usize,
    pub memory: MemoryBounds,
    pub took: Duration,
}

#[derive(Clone, Debug)]
pub struct StoreReport {
    pub path: PathBuf,
    pub shards: u16,
    pub flush: &'static str,
    /// False where the file system refuses O_DIRECT: writes then go through the page cache and are synced.
    pub is_direct: bool,
    pub recovered: Vec<Recovered>,
}

#[derive(Debug, thiserror::Error)]
pub enum NodeError {
    #[error(transparent)]
    Bind(#[from] BindError),
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    KeyValues(#[from] KvLoadError),
    #[error(transparent)]
    Ring(#[from] RingError),
    #[error("{0}")]
    Cores(RunError),
    #[error("the store cannot be read: {0}")]
    Recovery(String),
    #[error(
        "brokerIP1={host} is a name that does not resolve ({reason}); clients will have to resolve it too: correct it, or give an address"
    )]
    Address { host: String, reason: String },
    #[error("{0}")]
    Io(#[from] std::io::Error),
}

/// Everything one core takes over when it starts.
struct CoreParts {
    listeners: Vec<Listener>,
    broker: Option<(BrokerParts, DriverOptions)>,
    name_server: Option<NameServer>,
}

/// Runs a node until its stop flag is raised. `on_ready` is called once, when it is about to serve.
pub fn run(options: NodeOptions, on_ready: impl FnOnce(&StartReport)) -> Result<(), NodeError> {
    let started = Instant::now();
    let now_ms = Clock::now().wall_ms;
    let mut report = StartReport::default();
    let mut listeners = Vec::new();
    let mut name_server = None;
    if let Some(given) = options.name_server {
        let address = SocketAddr::new(given.bind_address, given.listen_port);
        let backlog = given.server_socket_backlog;
        listeners.push(open_listener(address, backlog, ListenerRole::NameServer, &listeners)?);
        report.name_server_address = Some(address);
        name_server = Some(NameServer::open(given, 0)?);
    }
    let mut cores: Vec<CoreParts> = Vec::new();
    let mut registrar_end = None;
    let mut scrubber = None;
    let mut store = None;
    let mut shard_memory = None;
    match options.broker {
        None => cores.push(CoreParts { listeners, broker: None, name_server }),
        Some(given) => {
            let config = Arc::new(given.config.clone());
            for (port, role) in
                [(config.listen_port, ListenerRole::Broker), (config.vip_port(), ListenerRole::BrokerFast)]
            {
                let address = SocketAddr::new(config.bind_address, port);
                listeners.push(open_listener(address, config.server_socket_backlog, role, &listeners)?);
                report.broker_addresses.push(address);
            }
            let opened = open_store(&given, &config)?;
            report.store = Some(opened.report);
            shard_memory = Some(opened.shard_memory);
            let (parts, end) = broker_parts(&config, opened.shards, now_ms)?;
            registrar_end = end;
            scrubber = Some(start_scrubber(&opened.store, &parts)?);
            store = Some(opened.store);
            let mut listeners = Some(listeners);
            cores.extend(parts.into_iter().map(|broker| CoreParts {
                listeners: listeners.take().unwrap_or_default(),
                broker: Some(broker),
                name_server: name_server.take(),
            }));
        }
    }
    report.cores = cores.len();
    report.memory = MemoryBounds::of(cores.len(), Limits::default().memory(), shard_memory);
    report.took = started.elapsed();
    on_ready(&report);
    let outcome = run_cores(cores, options.stop);
    if let Some(end) = registrar_end {
        end.wait();
    }
    if let Some(scrubber) = scrubber {
        scrubber.stop();
    }
    drop(store); // Releases the lock after the last core has stopped.
    outcome
}

fn open_listener(
    address: SocketAddr,
    backlog: i32,
    role: ListenerRole,
    before: &[Listener],
) -> Result<Listener, NodeError> {
    Ok(Listener::new(bind(address, backlog)?, role, before.len() as u32))
}

fn run_cores(cores: Vec<CoreParts>, stop: StopFlag) -> Result<(), NodeError> {
    let core_count = cores.len();
    // Each core's thread takes its part once, before it serves anything.
    let parts: Arc<Mutex<Vec<Option<CoreParts>>>> = Arc::new(Mutex::new(cores.into_iter().map(Some).collect()));
    let make = move |core: &mut Core<Letter>| {
        let taken = parts.lock().ok().and_then(|mut parts| parts.get_mut(core.index()).and_then(Option::take));
        let Some(taken) = taken else { unreachable!("every core takes its part once") };
        // A core that cannot start must not leave the others running without it.
        make_node(core, taken, stop.clone()).inspect_err(|_| stop.raise())
    };
    rmq_turn::run(core_count, |_| (), make).map_err(NodeError::Cores)
}

/// The broker's setting rules where both servers share the cores.
fn limits(parts: &CoreParts) -> Limits {
    let of_broker = parts.broker.as_ref().map(|(broker, _)| broker.config.server_channel_max_idle_time_seconds.into());
    let of_name_server = || Some(parts.name_server.as_ref()?.config().server_channel_max_idle_time_seconds.into());
    let idle_ms = of_broker.or_else(of_name_server).map_or(Limits::default().idle_ms, idle_ms);
    Limits { idle_ms, ..Limits::default() }
}

/// `serverChannelMaxIdleTimeSeconds` as a bound; 0 is never.
fn idle_ms(seconds: i64) -> i64 {
    if seconds == 0 { i64::MAX } else { seconds * 1000 }
}

fn make_node(core: &mut Core<Letter>, parts: CoreParts, stop: StopFlag) -> Result<Node, RunError> {
    let connections = Connections::new(core.index() as u8, &core.ring, limits(&parts))?;
    let broker = match parts.broker {
        None => None,
        Some((broker, driver)) => {
            let failed = |source| RunError::Core { core: core.index(), source };
            let driver = RingDriver::new(driver).map_err(failed)?;
            let mut broker = Broker::new(core.index(), broker, core.clock.wall_ms);
            if core.index() == SYSTEM_CORE {
                system::register(&mut broker);
            }
            Some((broker, driver))
        }
    };
    let now = core.clock.monotonic;
    Ok(Node::new(connections, parts.listeners, broker, parts.name_server, stop, now))
}

struct OpenedStore {
    store: StoreDir,
    shards: Vec<(Shard, DriverOptions)>,
    report: StoreReport,
    /// Of each shard, and how much of its log may be on its way to the disk.
    shard_memory: (ShardMemory, u64),
}

fn open_store(given: &BrokerOptions, config: &BrokerConfig) -> Result<OpenedStore, NodeError> {
    let options = StoreOptions {
        shard_count: u16::try_from(given.cores).unwrap_or(u16::MAX),
        geometry: Geometry { segment_bytes: config.mapped_file_size_commit_log, ..Geometry::default() },
    };
    let store = StoreDir::open(&given.store, options)?;
    let direct_io = store.direct_io();
    let durability = match config.flush_disk_type {
        FlushDiskType::Async => Durability::Async,
        FlushDiskType::Sync => Durability::Sync,
    };
    let mut threads = Vec::new();
    let mut usual = ShardConfig { geometry: store.geometry(), ..ShardConfig::new(0, store.epoch()) };
    if let Some(bytes) = given.log_memory_bytes {
        usual.tail_bytes_max = bytes / u64::from(store.shard_count());
    }
    let shard_memory = (usual.memory(), usual.undurable_bytes_max);
    for shard in 0..store.shard_count() {
        let files = store.shard_files(shard);
        let shard_config = ShardConfig {
            durability,
            geometry: store.geometry(),
            powered_since: store.powered_since(),
            indexes_keys: config.message_index_enable,
            tail_bytes_max: usual.tail_bytes_max,
            ..ShardConfig::new(shard, store.epoch())
        };
        threads.push(std::thread::spawn(move || recover(shard_config, files)));
    }
    let mut shards = Vec::new();
    let mut recovered = Vec::new();
    for thread in threads {
        let joined = thread.join().map_err(|_| NodeError::Recovery("a recovery thread panicked".to_owned()))?;
        let (shard, files, found) = joined?;
        shards.push((shard, DriverOptions { files, direct_io }));
        recovered.push(found);
    }
    let report = StoreReport {
        path: given.store.clone(),
        shards: store.shard_count(),
        flush: match durability {
            Durability::Async => "ASYNC_FLUSH (acknowledged when the device has completed the write)",
            Durability::Sync => "SYNC_FLUSH (acknowledged when the write is on stable media)",
        },
        is_direct: direct_io == DirectIo::Direct,
        recovered,
    };
    Ok(OpenedStore { store, shards, report, shard_memory })
}

fn recover(config: ShardConfig, mut files: ShardFiles) -> Result<(Shard, ShardFiles, Recovered), NodeError> {
    let (shard, found) = Shard::recover(config, &mut files).map_err(|error| NodeError::Recovery(error.to_string()))?;
    Ok((shard, files, found))
}

type PartsAndEnd = (Vec<(BrokerParts, DriverOptions)>, Option<RegistrarEnd>);

/// Deals the shards out to the cores, each with its own copy of topics and groups as shard 0 remembers them.
fn broker_parts(
    config: &Arc<BrokerConfig>,
    shards: Vec<(Shard, DriverOptions)>,
    now_ms: i64,
) -> Result<PartsAndEnd, NodeError> {
    let store_host = resolve(&config.broker_ip1, config.listen_port)?;
    let core_count = shards.len();
    let (mut registrar, end) = start_registrar(config)?.unzip();
    let mut routes = start_routes(config)?;
    let settings = shards.first().map(|(system_shard, _)| stored_settings(system_shard)).unwrap_or_default();
    let mut parts = Vec::new();
    for (core, (shard, driver)) in shards.into_iter().enumerate() {
        let (topics, groups) = tables(config, &settings, now_ms)?;
        let system = (core == SYSTEM_CORE).then(|| {
            let clients = ClientRegistry::new(config.reject_pull_consumer_enable, config.channel_expired_timeout);
            let stats = BrokerStats::new(&config.broker_cluster_name, 0, now_ms);
            System::new(clients, registrar.take(), routes.take(), stats, now_ms)
        });
        let config = config.clone();
        let scrub_state = Arc::new(ScrubState::default());
        scrub_state.note(&shard);
        parts
            .push((BrokerParts { config, core_count, store_host, shard, topics, groups, system, scrub_state }, driver));
    }
    Ok((parts, end))
}

fn start_scrubber(store: &StoreDir, parts: &[(BrokerParts, DriverOptions)]) -> std::io::Result<Scrubber> {
    let shards = parts.iter().map(|(parts, _)| {
        let shard = parts.shard.config().shard;
        let (files, state) = (store.shard_view(shard), parts.scrub_state.clone());
        ScrubbedShard { shard, geometry: store.geometry(), files, state }
    });
    Scrubber::start(shards.collect(), Pace::default())
}

/// The address that stands in every message for the broker that took it; of a name, its first IPv4 address if any.
fn resolve(host: &str, port: u16) -> Result<SocketAddr, NodeError> {
    let failed = |reason: String| NodeError::Address { host: host.to_owned(), reason };
    let found: Vec<_> = (host, port).to_socket_addrs().map_err(|error| failed(error.to_string()))?.collect();
    let preferred = found.iter().find(|address| address.is_ipv4()).or(found.first());
    preferred.copied().ok_or_else(|| failed("it has no address".to_owned()))
}

/// Kind, key and value of each setting the system shard remembers.
pub(crate) type StoredSettings = Vec<(SettingKind, String, Vec<u8>)>;

pub(crate) fn stored_settings(system_shard: &Shard) -> StoredSettings {
    let kinds = [SettingKind::Topic, SettingKind::Group, SettingKind::Forbidden].into_iter();
    let stored = kinds.flat_map(|kind| system_shard.settings(kind.byte()).map(move |(key, value)| (kind, key, value)));
    stored.map(|(kind, key, value)| (kind, key.to_owned(), value.to_vec())).collect()
}

pub(crate) fn tables(
    config: &BrokerConfig,
    settings: &StoredSettings,
    now_ms: i64,
) -> Result<(TopicTable, GroupTable), NodeError> {
    let page = config.enable_split_metadata.then_some(config.split_metadata_size as usize);
    let mut topics = TopicTable::new(topic_settings(config, page), now_ms);
    let group_settings = GroupSettings {
        auto_create_subscription_group: config.auto_create_subscription_group,
        enable_create_sys_group: config.enable_create_sys_group,
        metadata_page_size: page,
    };
    let mut groups = GroupTable::new(group_settings, now_ms);
    for (kind, key, value) in settings {
        let restored = match kind {
            SettingKind::Topic => topics.restore(value),
            SettingKind::Group => groups.restore(value),
            SettingKind::Forbidden => groups.restore_forbidden(key, value),
            // Read where it stands.
            SettingKind::RequestMode => Ok(()),
        };
        restored.map_err(|error| NodeError::Recovery(format!("the settings of `{key}` cannot be read: {error}")))?;
    }
    Ok((topics, groups))
}

fn topic_settings(config: &BrokerConfig, metadata_page_size: Option<usize>) -> TopicSettings {
    TopicSettings {
        cluster_name: config.broker_cluster_name.clone(),
        broker_name: config.broker_name.clone(),
        auto_create_topic_enable: config.auto_create_topic_enable,
        default_topic_queue_nums: config.default_topic_queue_nums as i32,
        cluster_topic_enable: config.cluster_topic_enable,
        broker_topic_enable: config.broker_topic_enable,
        timer_wheel_enable: config.timer_wheel_enable,
        trace_topic: config.trace_topic_enable.then(|| config.msg_trace_topic_name.clone()),
        validate_system_topic_when_update_topic: config.validate_system_topic_when_update_topic,
        enable_mixed_message_type: config.enable_mixed_message_type,
        metadata_page_size,
        ..TopicSettings::default()
    }
}

fn start_registrar(config: &BrokerConfig) -> Result<Option<(Registrar, RegistrarEnd)>, NodeError> {
    if config.namesrv_addr.is_empty() {
        return Ok(None);
    }
    let registration = Registration {
        cluster_name: config.broker_cluster_name.clone(),
        broker_name: config.broker_name.clone(),
        broker_id: config.broker_id,
        broker_address: config.client_address(config.listen_port),
        ha_address: config.client_address(config.listen_port.saturating_add(1)),
        name_servers: config.namesrv_addr.clone(),
        period: Duration::from_millis(config.register_name_server_period.unsigned_abs()),
        answer_timeout: Duration::from_millis(config.register_broker_timeout_mills.unsigned_abs()),
    };
    Ok(Some(Registrar::start(registration)?))
}

fn start_routes(config: &BrokerConfig) -> Result<Option<Routes>, NodeError> {
    if config.namesrv_addr.is_empty() {
        return Ok(None);
    }
    let poll_interval = Duration::from_millis(config.load_balance_poll_name_server_interval.unsigned_abs());
    Ok(Some(Routes::start(&config.broker_name, &config.namesrv_addr, poll_interval)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn idle_ms_of(text: &str) -> i64 {
        let kv_config_path = "no-such-folder/kvConfig.json".to_owned();
        let mut config = NamesrvConfig { kv_config_path, ..NamesrvConfig::default() };
        config.set("serverChannelMaxIdleTimeSeconds", text).expect("allowed");
        let name_server = NameServer::open(config, 0).expect("no file");
        limits(&CoreParts { listeners: Vec::new(), broker: None, name_server: Some(name_server) }).idle_ms
    }

    #[test]
    fn a_name_server_alone_follows_its_own_idle_time() {
        assert_eq!((idle_ms_of("120"), idle_ms_of("7"), idle_ms_of("0")), (120_000, 7_000, i64::MAX));
    }
}
