//! The binary as a user and a script meet it: help, printed settings, refusals and exit codes.

use std::process::{Command, Output};

use rmq_engine::store_dir::{StoreDir, StoreOptions};

fn rmq(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_rmq"))
        .args(arguments)
        .env_remove("NAMESRV_ADDR")
        .env_remove("RUST_LOG")
        .output()
        .unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

/// A property file that lives as long as the folder.
fn file(folder: &tempfile::TempDir, content: &str) -> String {
    let path = folder.path().join("broker.conf");
    std::fs::write(&path, content).unwrap();
    path.to_string_lossy().into_owned()
}

#[test]
fn help_explains_commands_examples_and_exit_codes() {
    for arguments in [&["--help"][..], &["-h"], &["help"]] {
        let output = rmq(arguments);
        assert_eq!(output.status.code(), Some(0), "{arguments:?}");
        let help = text(&output.stdout);
        for part in ["namesrv", "broker", "standalone", "check", "rmq broker -n 127.0.0.1:9876", "Exit codes:", "143"] {
            assert!(help.contains(part), "{arguments:?} does not mention {part}:\n{help}");
        }
    }
    let alone = rmq(&[]);
    assert_eq!(alone.status.code(), Some(2));
    assert!(text(&alone.stderr).contains("Try it:"));
}

#[test]
fn every_command_has_its_own_help() {
    for (command, flags) in [
        ("namesrv", &["-c", "-n", "-p", "-h"][..]),
        ("broker", &["-c", "-n", "-p", "-m", "-h", "--cores"]),
        ("standalone", &["--store", "--cores", "--listen", "--namesrv-port", "-c"]),
        ("check", &["--store"]),
        ("store check", &["--json", "FOLDER"]),
        ("store dump", &["--topic", "--from", "--json"]),
        ("store repair", &["--yes", "--no-save"]),
    ] {
        let arguments: Vec<_> = command.split(' ').chain(["-h"]).collect();
        let output = rmq(&arguments);
        assert_eq!(output.status.code(), Some(0));
        for flag in flags {
            assert!(text(&output.stdout).contains(flag), "rmq {command} -h does not mention {flag}");
        }
    }
}

#[test]
fn a_wrong_command_line_ends_with_2() {
    for arguments in [
        &["bogus"][..],
        &["broker", "--bogus"],
        &["broker", "-n", "nowhere"],
        &["standalone", "--cores", "0"],
        &["standalone", "--listen", "10911"],
        &["broker", "-c", "/nonexistent/broker.conf"],
    ] {
        let output = rmq(arguments);
        assert_eq!(output.status.code(), Some(2), "{arguments:?}: {}", text(&output.stderr));
        assert!(!output.stderr.is_empty() && output.stdout.is_empty(), "{arguments:?}");
    }
}

#[test]
fn settings_are_printed_as_by_rocketmq() {
    let folder = tempfile::tempdir().unwrap();
    let path = file(&folder, "brokerName=broker-a\nlistenPort=20911\nfoo=1\n");
    let all = text(&rmq(&["broker", "-c", &path, "-n", "a:1;b:2", "-p"]).stdout);
    for line in ["brokerName=broker-a", "listenPort=20911", "namesrvAddr=a:1;b:2", "flushDiskType=ASYNC_FLUSH"] {
        assert!(all.lines().any(|printed| printed == line), "{line} is missing in\n{all}");
    }
    assert!(400 < all.lines().count());

    let important = text(&rmq(&["broker", "-c", &path, "-m"]).stdout);
    assert!(important.lines().any(|line| line == "brokerName=broker-a"));
    assert!(!important.contains("regionId"), "regionId is not important to RocketMQ");

    let name_server = text(&rmq(&["namesrv", "-p"]).stdout);
    for line in
        ["listenPort=9876", "orderMessageEnable=false", "configBlackList=configBlackList;configStorePath;kvConfigPath"]
    {
        assert!(name_server.lines().any(|printed| printed == line), "{line} is missing in\n{name_server}");
    }
}

#[test]
fn wrong_settings_end_with_2_and_say_which_and_where() {
    let folder = tempfile::tempdir().unwrap();
    let path = file(&folder, "brokerName=a\nlistenPort=70000\ntraceOn=maybe\n");
    let output = rmq(&["standalone", "-c", &path]);
    assert_eq!(output.status.code(), Some(2));
    let expected = format!(
        "rmq: listenPort=70000 ({path} line 2) is not allowed: 1 to 65535\n\
         traceOn=maybe ({path} line 3) is not allowed: true or false\n"
    );
    assert_eq!(text(&output.stderr), expected);
}

#[test]
fn check_shows_findings_and_ends_with_0_or_4() {
    let folder = tempfile::tempdir().unwrap();
    let output = rmq(&["check", "--store", &folder.path().to_string_lossy()]);
    let findings = text(&output.stdout);
    let has_failure = findings.lines().any(|line| line.starts_with("FAIL"));
    assert_eq!(output.status.code(), Some(if has_failure { 4 } else { 0 }), "{findings}");
    for subject in ["kernel", "io_uring", "open files", "filesystem", "free space", "clock", "cores"] {
        assert!(findings.contains(subject), "{subject} is missing in\n{findings}");
    }
}

#[test]
fn store_check_ends_with_0_3_or_5() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().to_string_lossy();
    let check = |flags: &[&str]| rmq(&[&["store", "check", &path], flags].concat());
    let output = check(&[]);
    assert_eq!(output.status.code(), Some(3), "{}", text(&output.stderr));
    assert!(text(&output.stderr).contains("there is no store"));

    let geometry = rmq_engine::Geometry { segment_bytes: 128 * 1024, chunk_bytes: 16 * 1024 };
    let options = StoreOptions { shard_count: 2, geometry };
    let held = StoreDir::open(folder.path(), options).unwrap();
    let output = check(&[]);
    assert_eq!(output.status.code(), Some(3));
    assert!(text(&output.stderr).contains(&format!("pid {}", std::process::id())), "{}", text(&output.stderr));
    drop(held);

    let output = check(&[]);
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stdout));
    assert!(text(&output.stdout).contains("the store is sound"));

    std::fs::write(folder.path().join("shard-01/snapshot-00000000000000004096"), "junk").unwrap();
    let output = check(&[]);
    assert_eq!(output.status.code(), Some(5), "{}", text(&output.stdout));
    assert!(text(&output.stdout).contains("DAMAGED: see shard 1"), "{}", text(&output.stdout));
    let json: serde_json::Value = serde_json::from_slice(&check(&["--json"]).stdout).unwrap();
    assert_eq!((&json["isSound"], &json["shards"][0]["isSound"]), (&false.into(), &true.into()));
}

/// A free port of the loopback address whose second neighbour below, the broker's second port, is free too.
fn free_port() -> u16 {
    let bind = |port| std::net::TcpListener::bind(("127.0.0.1", port));
    loop {
        let probe = bind(0).unwrap();
        let port = probe.local_addr().unwrap().port();
        if bind(port - 2).is_ok() {
            return port;
        }
    }
}

#[test]
fn the_store_of_a_rocketmq_is_refused_with_3() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::create_dir(folder.path().join("commitlog")).unwrap();
    let store = folder.path().to_string_lossy();
    let (listen, name_server) = (format!("127.0.0.1:{}", free_port()), free_port().to_string());
    let flags = ["--store", &store, "--listen", &listen, "--namesrv-port", &name_server, "--cores", "1"];
    let output = rmq(&[&["standalone"], &flags[..]].concat());
    let log = text(&output.stderr);
    assert_eq!(output.status.code(), Some(3), "{log}");
    assert!(log.contains(&format!("store {store} is one of Apache RocketMQ")), "{log}");
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1, "something was written");
}

#[test]
fn a_damaged_file_of_the_name_server_is_refused_with_3() {
    let folder = tempfile::tempdir().unwrap();
    let table = folder.path().join("kvConfig.json");
    std::fs::write(&table, "{broken").unwrap();
    let settings =
        format!("bindAddress=127.0.0.1\nlistenPort={}\nkvConfigPath={}\n", free_port(), table.to_string_lossy());
    let output = rmq(&["namesrv", "-c", &file(&folder, &settings)]);
    assert_eq!(output.status.code(), Some(3), "{}", text(&output.stderr));
    assert!(text(&output.stderr).contains("kvConfig.json"));
}
