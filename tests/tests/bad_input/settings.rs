//! Wrong settings: refused with their line, or warned about.

use std::fs;
use std::process::Command;

use rmq_tests::{Folder, Process, free_port, has_route, is_for_ringmq, rmq};

const USAGE: i32 = 2;

/// `rmq standalone` on free ports with these lines as its broker.conf. The file's path is `<folder>/broker.conf`.
fn start(folder: &Folder, lines: &str) -> (Process, String) {
    let (namesrv_port, broker_port) = (free_port(), free_port());
    let file = folder.path().join("broker.conf");
    fs::write(&file, lines).expect("broker.conf is written");
    let mut command = Command::new(rmq());
    command.arg("standalone").arg("-c").arg(&file).arg("--store").arg(folder.path().join("store"));
    command.args(["--listen", &format!("127.0.0.1:{broker_port}"), "--namesrv-port", &namesrv_port.to_string()]);
    (Process::start("standalone", folder.path(), &command), format!("127.0.0.1:{namesrv_port}"))
}

#[test]
fn wrong_values_are_refused_with_range_and_line() {
    if !is_for_ringmq() {
        return;
    }
    // Property, value, and a word of what is allowed.
    let cases = [
        ("maxMessageSize", "lots", "16777216"),
        ("maxMessageSize", "-5", "16777216"),
        ("listenPort", "70000", "65535"),
        ("flushDiskType", "MAYBE_FLUSH", "ASYNC_FLUSH"),
        ("autoCreateTopicEnable", "perhaps", "true"),
    ];
    for (name, value, allowed) in cases {
        let folder = Folder::new();
        let (mut process, _) = start(&folder, &format!("# a comment\nbrokerName=broker-a\n{name}={value}\n"));
        let code = process.exit_code();
        let log = process.log_text();
        assert_eq!(code, USAGE, "{name}={value}:\n{log}");
        for word in [name, value, allowed, "broker.conf", "3"] {
            assert!(log.contains(word), "{name}={value}: {word:?} is not in\n{log}");
        }
        assert!(!folder.path().join("store/manifest").exists(), "{name}={value}: a store was made");
    }
}

#[test]
fn unknown_settings_are_listed_in_one_warning() {
    if !is_for_ringmq() {
        return;
    }
    let folder = Folder::new();
    let (process, namesrv) = start(&folder, "brokerName=broker-a\nnobodyKnowsThis=1\nnorThis=2\n");
    process.await_ready("registered broker", || has_route(&namesrv, "TBW102"));
    let log = process.log_text();
    let warnings: Vec<&str> =
        log.lines().filter(|line| line.contains("nobodyKnowsThis") || line.contains("norThis")).collect();
    assert_eq!(warnings.len(), 1, "{log}");
    for word in ["WARN", "nobodyKnowsThis", "norThis", "2", "3"] {
        assert!(warnings[0].contains(word), "{word:?} is not in {}", warnings[0]);
    }
}

#[test]
fn a_missing_file_is_named() {
    if !is_for_ringmq() {
        return;
    }
    let folder = Folder::new();
    let mut command = Command::new(rmq());
    command.args(["broker", "-c"]).arg(folder.path().join("no-such.conf"));
    let mut process = Process::start("broker", folder.path(), &command);
    let code = process.exit_code();
    assert_eq!(code, USAGE, "{}", process.log_text());
    assert!(process.log_text().contains("no-such.conf"), "{}", process.log_text());
}
