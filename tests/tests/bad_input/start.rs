//! Starts that cannot work, and those that must: ports, stores, file systems, IPv6.

use std::fs::{self, OpenOptions};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::process::Command;

use rmq_tests::remoting::{Connection, Request};
use rmq_tests::{Folder, Process, free_port, has_route, is_for_ringmq, rmq, skip};
use rustix::fs::OFlags;

use crate::bystander::Bystander;

const STORE_REFUSED: i32 = 3;

/// `rmq standalone` with its log in `folder`.
fn standalone(folder: &Folder, store: &Path, listen: &str, namesrv_port: u16) -> Process {
    let mut command = Command::new(rmq());
    command.arg("standalone").arg("--store").arg(store);
    command.args(["--listen", listen, "--namesrv-port", &namesrv_port.to_string()]);
    Process::start("standalone", folder.path(), &command)
}

/// The same, until its broker is registered; and where the broker listens.
fn started(folder: &Folder, store: &Path, host: &str) -> (Process, String) {
    let (namesrv_port, broker) = (free_port(), format!("{host}:{}", free_port()));
    let process = standalone(folder, store, &broker, namesrv_port);
    process.await_ready("registered broker", || has_route(&format!("{host}:{namesrv_port}"), "TBW102"));
    (process, broker)
}

#[test]
fn a_port_in_use_is_named() {
    if !is_for_ringmq() {
        return;
    }
    let (first_folder, folder) = (Folder::new(), Folder::new());
    let (first, broker) = started(&first_folder, &first_folder.path().join("store"), "127.0.0.1");
    let mut bystander = Bystander::connect(&broker, "port_in_use");
    let mut second = standalone(&folder, &folder.path().join("store"), &broker, free_port());
    let code = second.exit_code();
    let log = second.log_text();
    assert_ne!(code, 0, "{log}");
    assert!(log.contains(&broker) && log.contains("in use"), "{log}");
    bystander.check();
    assert!(!first.is_ended());
}

#[test]
fn a_store_in_use_is_refused() {
    if !is_for_ringmq() {
        return;
    }
    let (first_folder, folder) = (Folder::new(), Folder::new());
    let store = first_folder.path().join("store");
    let (first, broker) = started(&first_folder, &store, "127.0.0.1");
    let mut bystander = Bystander::connect(&broker, "store_in_use");
    let mut second = standalone(&folder, &store, &format!("127.0.0.1:{}", free_port()), free_port());
    let code = second.exit_code();
    let log = second.log_text();
    assert_eq!(code, STORE_REFUSED, "{log}");
    assert!(log.contains("in use by another process") && log.contains(&store.display().to_string()), "{log}");
    bystander.check();
    assert!(!first.is_ended());
}

#[test]
fn a_store_of_an_unknown_or_damaged_format_is_refused_untouched() {
    if !is_for_ringmq() {
        return;
    }
    let folder = Folder::new();
    let store = folder.path().join("store");
    let (first, _) = started(&folder, &store, "127.0.0.1");
    first.terminate();
    drop(first);
    let manifest = store.join("manifest");
    let good = fs::read_to_string(&manifest).expect("the manifest");
    let cases = [
        (good.replace("\nformat = ", "\nformat = 9"), "format version 9"),
        (good.replace("shards = ", "shards = 1"), "checksum"),
        ("junk".to_owned(), "not the manifest of a store"),
        (String::new(), "not the manifest of a store"),
    ];
    for (text, word) in cases {
        assert_ne!(text, good);
        fs::write(&manifest, &text).expect("the manifest is written");
        let mut process = standalone(&folder, &store, &format!("127.0.0.1:{}", free_port()), free_port());
        let code = process.exit_code();
        let log = process.log_text();
        assert_eq!(code, STORE_REFUSED, "{word}:\n{log}");
        assert!(log.contains(word) && log.contains("manifest"), "{word:?} is not in\n{log}");
        assert_eq!(fs::read_to_string(&manifest).expect("the manifest"), text, "the manifest was changed");
    }
}

#[test]
fn a_first_start_that_was_killed_can_be_repeated() {
    if !is_for_ringmq() {
        return;
    }
    let folder = Folder::new();
    let store = folder.path().join("store");
    // As `kill -9` leaves it: folders without any file of messages, and no manifest.
    fs::create_dir_all(store.join("shard-00/log")).expect("the folders of a shard");
    fs::write(store.join("lock"), "1\n").expect("the lock of a process that is gone");
    let (_process, broker) = started(&folder, &store, "127.0.0.1");
    Bystander::connect(&broker, "killed_start").check();
}

#[test]
fn a_store_on_tmpfs_works_with_a_warning() {
    if !is_for_ringmq() {
        return;
    }
    let Ok(shared_memory) = tempfile::Builder::new().prefix("rmq-tests-").tempdir_in("/dev/shm") else {
        return skip("/dev/shm cannot be written");
    };
    let folder = Folder::new();
    let (process, broker) = started(&folder, &shared_memory.path().join("store"), "127.0.0.1");
    Bystander::connect(&broker, "tmpfs").check();
    let log = process.log_text();
    let warning = log.lines().find(|line| line.contains("WARN") && line.contains("tmpfs"));
    assert!(warning.is_some_and(|line| line.contains("lost")), "{log}");
    // Since Linux 6.6 this file system takes O_DIRECT.
    let probe = OpenOptions::new()
        .create(true)
        .write(true)
        .truncate(true)
        .custom_flags(OFlags::DIRECT.bits().cast_signed())
        .open(shared_memory.path().join("probe"));
    let expected = if probe.is_ok() { "O_DIRECT on io_uring" } else { "buffered and synced" };
    assert!(log.contains(expected), "{expected:?} is not in\n{log}");
    process.terminate();
}

#[test]
fn ipv6_works_end_to_end() {
    if !is_for_ringmq() {
        return;
    }
    if std::net::TcpListener::bind(("::1", 0)).is_err() {
        return skip("no IPv6");
    }
    let folder = Folder::new();
    let (_process, broker) = started(&folder, &folder.path().join("store"), "[::1]");
    Bystander::connect(&broker, "ipv6").check();
    // RocketMQ: the broker's id of a message has 16 bytes for an IPv6 address.
    let mut connection = Connection::open(&broker);
    let sent = connection.call(&Request::send("ipv6", 0, "", b"body"));
    let id = sent.ext.get("msgId").and_then(|id| id.as_str()).unwrap_or_default();
    assert!(id.len() == 56 && id.starts_with("00000000000000000000000000000001"), "{sent:?}");
}
