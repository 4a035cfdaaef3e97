use super::super::tests::machine;
use super::*;

fn loaded(text: &str) -> Settings {
    let mut settings = Settings::broker(&machine());
    settings.load(text.as_bytes(), "broker.conf").unwrap();
    settings
}

#[test]
fn the_command_line_wins_over_the_file_and_the_last_line_over_the_first() {
    let mut settings = loaded("namesrvAddr=a:1\nbrokerName=x\nbrokerName=y");
    assert_eq!(settings.value("brokerName"), Some("y"));
    settings.set("namesrvAddr", "b:2", Origin::Flag("-n")).unwrap();
    assert_eq!(settings.value("namesrvAddr"), Some("b:2"));
    let error = settings.set("namesrvAddr", "b", Origin::Flag("-n")).unwrap_err();
    assert_eq!(error.to_string(), "namesrvAddr=b (from -n) is not allowed: host:port, several separated by ;");
}

#[test]
fn an_empty_value_leaves_the_default() {
    let settings = loaded("listenPort=\nnamesrvAddr=\nregionId=");
    assert_eq!(settings.value("listenPort"), Some("10911"));
    assert_eq!(settings.value("namesrvAddr"), None);
    assert_eq!(settings.value("regionId"), Some(""));
}

#[test]
fn notes_say_what_is_ignored_and_why() {
    let text = "a.b=1\nmapedFileSizeCommitLog=5\nsendMessageThreadPoolNums=16\nenableDetailStat=false\nwhat=2\nautoDeleteUnusedStats=false";
    let notes = loaded(text).notes();
    let warnings = [
        "unknown settings, ignored: a.b (broker.conf line 1), what (broker.conf line 5)",
        "mapedFileSizeCommitLog (broker.conf line 2) is ignored: RocketMQ 4 renamed it to mappedFileSizeCommitLog",
        "ignored for now: enableDetailStat, autoDeleteUnusedStats: these statistics are not built yet",
    ];
    assert_eq!(notes.warnings, warnings);
    assert_eq!(notes.remarks, ["accepted, nothing to tune with them here: sendMessageThreadPoolNums"]);
    assert_eq!(loaded("brokerName=a").notes(), Notes::default());
}

#[test]
fn printing_follows_the_order_of_rocketmq() {
    let settings = loaded("namesrvAddr=a:1");
    let all = settings.print_all();
    let first: Vec<_> = all.lines().take(4).collect();
    assert_eq!(first, ["brokerConfigPath=", "rocketmqHome=", "namesrvAddr=a:1", "listenPort=10911"]);
    assert!(!all.contains("mapedFileSizeCommitLog"), "names RocketMQ no longer has are not printed");
    let important = settings.print_important();
    assert!(
        important.starts_with("namesrvAddr=a:1\nlistenPort=10911\nbrokerIP1=192.0.2.2\nrecoverConcurrently=false\n")
    );
    assert!(!important.contains("brokerIP2"));
}

#[test]
fn properties_are_sorted_and_without_what_has_no_value() {
    let text = loaded("authConfigPath=x").to_properties();
    let lines: Vec<_> = text.lines().collect();
    assert!(lines.is_sorted());
    assert!(lines.contains(&"brokerName=vm") && lines.contains(&"maxMessageSize=4194304"));
    assert!(lines.contains(&"authConfigPath=x"));
    assert!(!text.contains("haMasterAddress") && !text.contains("authorizationEnabled"));
}

#[test]
fn a_file_that_cannot_be_read_is_named() {
    let error = Settings::broker(&machine()).load_file("/nonexistent/broker.conf").unwrap_err().to_string();
    assert!(error.starts_with("cannot read the property file /nonexistent/broker.conf: "), "{error}");
}
