//! What to run: command line, environment and property files turned into typed settings.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::Path;

use rmq_broker::config::{BrokerConfig, ConfigError, Machine, Notes, Origin, Settings, settings};
use rmq_namesrv::NamesrvConfig;

use crate::arguments::{BrokerArguments, NamesrvArguments, ResourceArguments, StandaloneArguments};
use crate::name_server;

/// A process's servers and their settings.
#[derive(Debug)]
pub struct Plan {
    pub broker: Option<BrokerPlan>,
    pub name_server: Option<NamesrvConfig>,
    /// What the user should know about the settings written.
    pub notes: Notes,
}

#[derive(Debug)]
pub struct BrokerPlan {
    pub config: BrokerConfig,
    pub core_count: usize,
    /// For the newest messages, all cores together; none: as usual.
    pub log_memory_bytes: Option<u64>,
}

impl BrokerPlan {
    fn new(config: BrokerConfig, resources: &ResourceArguments) -> Self {
        Self { config, core_count: resources.core_count(), log_memory_bytes: resources.log_memory_bytes() }
    }
}

const NAMESRV_ADDR: &str = "NAMESRV_ADDR";
/// Where `rmq standalone` keeps its store when nothing else is said: in the working folder, to be found and removed.
const STANDALONE_STORE: &str = "./ringmq-store";

/// `rmq namesrv`.
pub fn name_server(arguments: &NamesrvArguments) -> Result<Plan, ConfigError> {
    let mut config = NamesrvConfig::default();
    let mut notes = Notes::default();
    if let Some(file) = &arguments.config_file {
        let path = file.to_string_lossy();
        let text = settings::read_file(&path)?;
        // RocketMQ: run-time changes go to the file given; a line of the file may still say otherwise.
        config.config_store_path = path.clone().into_owned();
        notes = name_server::apply_properties(&mut config, &text, &path)?;
    }
    Ok(Plan { broker: None, name_server: Some(config), notes })
}

/// `rmq broker`.
pub fn broker(arguments: &BrokerArguments) -> Result<Plan, ConfigError> {
    let settings = broker_settings(arguments, std::env::var(NAMESRV_ADDR).ok().as_deref())?;
    let notes = settings.notes();
    let config = BrokerConfig::from_settings(settings)?;
    Ok(Plan { broker: Some(BrokerPlan::new(config, &arguments.resources)), name_server: None, notes })
}

/// The environment, then the file, then the flags: each wins over the one before, as with RocketMQ.
pub fn broker_settings(arguments: &BrokerArguments, namesrv_addr: Option<&str>) -> Result<Settings, ConfigError> {
    let mut settings = Settings::broker(&Machine::probe());
    if let Some(addresses) = namesrv_addr {
        settings.set("namesrvAddr", addresses, Origin::Flag(NAMESRV_ADDR))?;
    }
    if let Some(file) = &arguments.config_file {
        load(&mut settings, file)?;
    }
    if let Some(addresses) = &arguments.namesrv_addr {
        settings.set("namesrvAddr", addresses, Origin::Flag("-n"))?;
    }
    Ok(settings)
}

/// `rmq standalone`.
pub fn standalone(arguments: &StandaloneArguments) -> Result<Plan, ConfigError> {
    let mut settings = Settings::broker(&Machine::probe());
    settings.set("storePathRootDir", STANDALONE_STORE, Origin::Default)?;
    if let Some(file) = &arguments.config_file {
        load(&mut settings, file)?;
    }
    if let Some(store) = &arguments.store {
        settings.set("storePathRootDir", &store.to_string_lossy(), Origin::Flag("--store"))?;
    }
    if let Some(listen) = arguments.listen {
        let origin = || Origin::Flag("--listen");
        settings.set("bindAddress", &listen.ip().to_string(), origin())?;
        settings.set("listenPort", &listen.port().to_string(), origin())?;
        // Clients are sent to the one address that is listened on, unless the file knows a better one.
        if !listen.ip().is_unspecified() && settings.origin("brokerIP1") == Some(&Origin::Default) {
            settings.set("brokerIP1", &listen.ip().to_string(), origin())?;
        }
    }
    let notes = settings.notes();
    let mut config = BrokerConfig::from_settings(settings)?;

    let store = Path::new(&config.store_path_root_dir);
    let name_server = NamesrvConfig {
        listen_port: arguments.namesrv_port,
        bind_address: config.bind_address,
        kv_config_path: store.join("namesrv/kvConfig.json").to_string_lossy().into_owned(),
        config_store_path: store.join("namesrv/namesrv.properties").to_string_lossy().into_owned(),
        ..NamesrvConfig::default()
    };
    let own = own_address(config.bind_address, arguments.namesrv_port);
    if !config.namesrv_addr.contains(&own) {
        config.namesrv_addr.insert(0, own);
        let addresses = config.namesrv_addr.join(";");
        config.settings.set("namesrvAddr", &addresses, Origin::Default)?;
    }
    Ok(Plan { broker: Some(BrokerPlan::new(config, &arguments.resources)), name_server: Some(name_server), notes })
}

fn load(settings: &mut Settings, file: &Path) -> Result<(), ConfigError> {
    let path = file.to_string_lossy();
    settings.set("brokerConfigPath", &path, Origin::Flag("-c"))?;
    settings.load_file(&path)
}

/// Where this process reaches its own name server.
fn own_address(bound: IpAddr, port: u16) -> String {
    let address = match bound {
        IpAddr::V4(address) if address.is_unspecified() => IpAddr::V4(Ipv4Addr::LOCALHOST),
        IpAddr::V6(address) if address.is_unspecified() => IpAddr::V6(Ipv6Addr::LOCALHOST),
        address => address,
    };
    std::net::SocketAddr::new(address, port).to_string()
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::arguments::{Arguments, Command};

    fn standalone_plan(flags: &[&str]) -> Result<Plan, ConfigError> {
        let arguments = Arguments::try_parse_from(["rmq", "standalone"].iter().chain(flags)).unwrap();
        let Command::Standalone(arguments) = arguments.command else { unreachable!("asked for standalone") };
        standalone(&arguments)
    }

    fn file(folder: &Path, text: &str) -> String {
        let path = folder.join("broker.conf");
        std::fs::write(&path, text).unwrap();
        path.to_string_lossy().into_owned()
    }

    #[test]
    fn standalone_needs_nothing() {
        let plan = standalone_plan(&[]).unwrap();
        let (broker, name_server) = (plan.broker.unwrap(), plan.name_server.unwrap());
        assert_eq!((broker.config.listen_port, name_server.listen_port), (10911, 9876));
        assert_eq!(broker.config.namesrv_addr, ["127.0.0.1:9876"]);
        assert_eq!(broker.config.store_path_root_dir, "./ringmq-store");
        assert_eq!(name_server.kv_config_path, "./ringmq-store/namesrv/kvConfig.json");
        assert_eq!(plan.notes, Notes::default());
    }

    #[test]
    fn shortcuts_win_over_the_file() {
        let folder = tempfile::tempdir().unwrap();
        let path = file(folder.path(), "storePathRootDir=/a\nlistenPort=1000\nnamesrvAddr=b:9876\n");
        let flags = [
            "-c",
            &path,
            "--store",
            "/s",
            "--listen",
            "[::1]:2000",
            "--namesrv-port",
            "3000",
            "--cores",
            "3",
            "--log-memory",
            "512",
        ];
        let plan = standalone_plan(&flags).unwrap();
        let broker = plan.broker.unwrap();
        assert_eq!(broker.config.store_path_root_dir, "/s");
        assert_eq!((broker.config.listen_port, broker.config.broker_ip1.as_str()), (2000, "::1"));
        assert_eq!(broker.config.namesrv_addr, ["[::1]:3000", "b:9876"]);
        assert_eq!(broker.config.settings.value("namesrvAddr"), Some("[::1]:3000;b:9876"));
        assert_eq!((broker.core_count, broker.log_memory_bytes), (3, Some(512 << 20)));
        assert_eq!(plan.name_server.unwrap().bind_address.to_string(), "::1");
    }

    fn name_server_plan(file: &str) -> Result<Plan, ConfigError> {
        let arguments = Arguments::try_parse_from(["rmq", "namesrv", "-c", file]).unwrap();
        let Command::Namesrv(arguments) = arguments.command else { unreachable!("asked for namesrv") };
        name_server(&arguments)
    }

    #[test]
    fn a_name_server_with_a_wrong_address_says_where_it_stands() {
        let folder = tempfile::tempdir().unwrap();
        let path = file(folder.path(), "configStorePath=/elsewhere\n\nbindAddress=localhost\n");
        let expected =
            format!("bindAddress=localhost ({path} line 3) is not allowed: expected an IPv4 or IPv6 address");
        assert_eq!(name_server_plan(&path).unwrap_err().to_string(), expected);
    }

    #[test]
    fn a_property_file_without_end_is_not_read_to_it() {
        let folder = tempfile::tempdir().unwrap();
        let path = file(folder.path(), &"#".repeat(1 << 21));
        for path in [&path, "/dev/zero"] {
            assert!(matches!(name_server_plan(path), Err(ConfigError::Malformed { .. })), "{path}");
        }
    }

    #[test]
    fn name_servers_come_from_the_environment_the_file_and_the_flag_in_that_order() {
        let folder = tempfile::tempdir().unwrap();
        let path = file(folder.path(), "namesrvAddr=file:1\n");
        let addresses = |flags: &[&str]| {
            let arguments = Arguments::try_parse_from(["rmq", "broker"].iter().chain(flags)).unwrap();
            let Command::Broker(arguments) = arguments.command else { unreachable!("asked for broker") };
            let settings = broker_settings(&arguments, Some("env:1")).unwrap();
            settings.value("namesrvAddr").unwrap().to_owned()
        };
        assert_eq!(addresses(&[]), "env:1");
        assert_eq!(addresses(&["-c", &path]), "file:1");
        assert_eq!(addresses(&["-c", &path, "-n", "flag:1;flag:2"]), "flag:1;flag:2");
    }
}
