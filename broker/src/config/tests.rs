use super::setting::{Kind, Status};
use super::*;

/// The machine on which `golden/apache-5.5.0.tsv` was read.
pub(super) fn machine() -> Machine {
    Machine {
        host_name: "vm".into(),
        address: "192.0.2.2".into(),
        home: "/root".into(),
        cores: 2,
        rocketmq_home: String::new(),
    }
}

/// Class, name, type, default, importance.
fn golden() -> Vec<[&'static str; 5]> {
    let rows = include_str!("golden/apache-5.5.0.tsv").lines();
    rows.map(|row| row.split('\t').collect::<Vec<_>>().try_into().unwrap()).collect()
}

fn with(text: &str) -> Result<BrokerConfig, ConfigError> {
    let mut settings = Settings::broker(&machine());
    settings.load(text.as_bytes(), "broker.conf")?;
    BrokerConfig::from_settings(settings)
}

/// What the process prints differs from the fields in these: the start-up code sets the ports.
fn expected_default(class: &str, name: &str, golden: &'static str) -> Option<&'static str> {
    match (class, name, golden) {
        ("BrokerConfig" | "NettyServerConfig", "listenPort", _) => Some("10911"),
        (_, "rocketmqHome", "null") => Some(""),
        (_, _, "null") => None,
        (_, _, value) => Some(value),
    }
}

#[test]
fn every_name_type_and_default_is_that_of_rocketmq() {
    let broker = Settings::broker(&machine());
    for [class, name, java_type, default, importance] in golden() {
        let declared = broker.declared().find(|setting| setting.name == name);
        let declared = declared.unwrap_or_else(|| panic!("{class}.{name} is not declared"));
        assert_eq!(broker.value(name), expected_default(class, name, default), "{class}.{name}");
        let is_listen_port = name == "listenPort";
        assert!(is_listen_port || declared.is_important == (importance == "true"), "importance of {class}.{name}");
        let fits = match java_type {
            "boolean" => matches!(declared.kind, Kind::Bool | Kind::Only("false")),
            "int" | "long" => matches!(declared.kind, Kind::Int(_, _)),
            "double" => declared.kind == Kind::Float,
            "String" => {
                matches!(
                    declared.kind,
                    Kind::Text | Kind::Ip | Kind::Host | Kind::Addresses | Kind::Hours | Kind::Delays
                )
            }
            _ => matches!(declared.kind, Kind::Choice(_) | Kind::Only(_)),
        };
        assert!(fits, "{class}.{name} is a {java_type}, declared as {:?}", declared.kind);
    }
}

#[test]
fn nothing_is_declared_that_rocketmq_does_not_know() {
    let known: Vec<&str> = golden().iter().map(|row| row[1]).collect();
    let settings = Settings::broker(&machine());
    for setting in settings.declared() {
        let is_former = table::FORMER.iter().any(|former| former.name == setting.name);
        assert!(is_former || known.contains(&setting.name), "{}", setting.name);
    }
}

#[test]
fn every_default_is_an_allowed_value() {
    let settings = Settings::broker(&machine());
    for setting in settings.declared() {
        if let Some(value) = settings.value(setting.name) {
            assert_eq!(setting.kind.normalise(value).as_deref(), Some(value), "{}", setting.name);
        }
    }
}

#[test]
fn the_broker_holds_every_used_setting_as_a_typed_value() {
    for setting in Settings::broker(&machine()).declared().filter(|setting| setting.status == Status::Used) {
        // The role has one value only, so there is nothing to hold.
        let is_held = BrokerConfig::NAMES.contains(&setting.name) || setting.name == "brokerRole";
        assert!(is_held, "{} is declared as used but has no field", setting.name);
    }
}

#[test]
fn smallest_and_largest_values_fit_their_fields() {
    for setting in Settings::broker(&machine()).declared() {
        if let Kind::Int(min, max) = setting.kind {
            for value in [min, max].map(|value| value.to_string()) {
                let result = with(&format!("{}={value}", setting.name));
                let is_port = setting.name == "listenPort";
                assert!(is_port || result.is_ok(), "{}: {:?}", setting.name, result.err());
            }
        }
    }
}

#[test]
fn defaults_become_typed_values() {
    let config = BrokerConfig::with_defaults(&machine()).unwrap();
    assert_eq!((config.broker_name.as_str(), config.broker_cluster_name.as_str()), ("vm", "DefaultCluster"));
    assert_eq!((config.listen_port, config.vip_port(), config.broker_id), (10911, 10909, 0));
    assert_eq!((config.max_message_size, config.default_topic_queue_nums), (4_194_304, 8));
    assert_eq!(config.flush_disk_type, FlushDiskType::Async);
    assert_eq!(config.store_path_root_dir, "/root/store");
    assert!(config.namesrv_addr.is_empty());
    assert!(config.auto_create_topic_enable && config.auto_create_subscription_group && config.long_polling_enable);
}

#[test]
fn a_file_of_the_distribution_is_taken_as_it_is() {
    let text = "\
brokerClusterName = DefaultCluster
brokerName = broker-a
brokerId = 0
deleteWhen = 04
fileReservedTime = 48
brokerRole = ASYNC_MASTER
flushDiskType = SYNC_FLUSH
";
    let config = with(text).unwrap();
    assert_eq!((config.broker_name.as_str(), config.file_reserved_time), ("broker-a", 48));
    assert_eq!(config.delete_when, ["04"]);
    assert_eq!(config.flush_disk_type, FlushDiskType::Sync);
}

#[test]
fn values_follow_the_rules_of_rocketmq() {
    let config =
        with("brokerId=3\nregisterNameServerPeriod=1\ndiskMaxUsedSpaceRatio=99\nmappedFileSizeCommitLog=16777217")
            .unwrap();
    assert_eq!(
        (config.broker_id, config.register_name_server_period, config.disk_max_used_space_ratio),
        (0, 10_000, 95)
    );
    assert_eq!(config.settings.value("brokerId"), Some("0"));
    assert_eq!(config.mapped_file_size_commit_log, 17 * 1024 * 1024);
    assert_eq!(with("namesrvAddr= a:9876 ;; [::1]:9877;").unwrap().namesrv_addr, ["a:9876", "[::1]:9877"]);
}

#[test]
fn wrong_values_are_refused_by_name_range_and_line() {
    let cases = [
        ("\nmaxMessageSize=20000000", "maxMessageSize=20000000 (broker.conf line 2) is not allowed: 1 to 16777216"),
        ("listenPort=0", "listenPort=0 (broker.conf line 1) is not allowed: 1 to 65535"),
        (
            "listenPort=2",
            "listenPort=2 (broker.conf line 1) is not allowed: at least 3, because listenPort - 2 is opened too",
        ),
        ("traceOn=yes", "traceOn=yes (broker.conf line 1) is not allowed: true or false"),
        (
            "transactionCheckMax=x",
            "transactionCheckMax=x (broker.conf line 1) is not allowed: -2147483648 to 2147483647",
        ),
        (
            "#\n#\nflushDiskType=FAST",
            "flushDiskType=FAST (broker.conf line 3) is not allowed: ASYNC_FLUSH or SYNC_FLUSH",
        ),
        (
            "brokerRole=SLAVE",
            "brokerRole=SLAVE (broker.conf line 1) is not allowed: only ASYNC_MASTER; RingMQ does not replicate yet, \
             so each broker is a master on its own",
        ),
        (
            "authenticationEnabled=true",
            "authenticationEnabled=true (broker.conf line 1) is not allowed: only false; authentication and \
             authorization are not built yet, so RingMQ must not start as if they were on",
        ),
        ("bindAddress=here", "bindAddress=here (broker.conf line 1) is not allowed: an IPv4 or IPv6 address"),
        (
            "namesrvAddr=a:1,b:2",
            "namesrvAddr=a:1,b:2 (broker.conf line 1) is not allowed: host:port, several separated by ;",
        ),
        (
            "deleteWhen=24",
            "deleteWhen=24 (broker.conf line 1) is not allowed: hours from 00 to 23, several separated by ;",
        ),
        ("brokerName=", "brokerName= (broker.conf line 1) is not allowed: anything but empty"),
        (
            "brokerPermission=9\ntraceOn=1",
            "brokerPermission=9 (broker.conf line 1) is not allowed: 0 to 7\n\
             traceOn=1 (broker.conf line 2) is not allowed: true or false",
        ),
        (
            "x=\\u1",
            "the property file broker.conf: line 1: \\u must be followed by four hexadecimal digits that name a character",
        ),
    ];
    for (text, message) in cases {
        assert_eq!(with(text).unwrap_err().to_string(), message);
    }
}

#[test]
fn the_address_for_clients_may_be_a_name() {
    let set = |value: &str| {
        let mut settings = Settings::broker(&machine());
        settings.set("brokerIP1", value, Origin::Flag("-c")).map(|()| BrokerConfig::from_settings(settings).unwrap())
    };
    let told = |value: &str| set(value).unwrap().client_address(10911);
    assert_eq!(told("rocketmq-broker"), "rocketmq-broker:10911");
    assert_eq!(told("broker_1.example.com"), "broker_1.example.com:10911");
    assert_eq!((told("[::1]"), told("::1")), ("[::1]:10911".to_owned(), "[::1]:10911".to_owned()));
    for wrong in ["10.0.0.256", "10.0.0", "a b", "broker:10911", "[10.0.0.1]", "-x", ""] {
        assert!(wrong.is_empty() || set(wrong).is_err(), "{wrong}");
    }
}
