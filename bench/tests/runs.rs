//! Whole runs of the binary against a fake broker: what it counts, what it notices, how it exits.

mod fake_broker;

use std::net::SocketAddr;
use std::process::{Command, Output};

use serde_json::Value;

use fake_broker::Mood;

fn bench(broker: SocketAddr, arguments: &str) -> (Output, Value) {
    let output = Command::new(env!("CARGO_BIN_EXE_rmq-bench"))
        .args(arguments.split_whitespace())
        .args(["-n", &broker.to_string(), "--json", "-"])
        .output()
        .unwrap();
    let report = serde_json::from_slice(&output.stdout).unwrap_or(Value::Null);
    (output, report)
}

#[test]
fn everything_sent_is_consumed_whole_and_in_order() {
    let broker = fake_broker::start(Mood::Healthy);
    let send = "producer --create-topic --count 5000 --size 200 --keys --tags A,B";
    let (output, report) = bench(broker, send);
    assert!(output.status.success(), "{output:?}");
    assert_eq!(report["messages"], 5000);
    assert_eq!(report["latency"]["count"], 5000);
    let batches = "producer --count 640 --batch 32 --threads 2 --body sequence";
    let (output, report) = bench(broker, batches);
    assert!(output.status.success(), "{output:?}");
    assert_eq!((&report["messages"], &report["replies"]), (&640.into(), &20.into()));
    let (output, report) = bench(broker, "consumer --drain --verify --connections 3 --threads 2");
    assert!(output.status.success(), "{output:?}");
    assert_eq!(report["messages"], 5640);
    assert_eq!(report["verify"]["checked"], 5640);
    let (output, report) = bench(broker, "consumer --count 100 --suspend=false --batch 7");
    assert!(output.status.success(), "{output:?}");
    assert!(report["messages"].as_u64().unwrap() >= 100);
}

#[test]
fn damaged_messages_make_the_consumer_fail() {
    let broker = fake_broker::start(Mood::Corrupting);
    assert!(bench(broker, "producer --count 400").0.status.success());
    let (output, report) = bench(broker, "consumer --drain --verify=integrity");
    assert_eq!(output.status.code(), Some(1));
    assert_eq!(report["verify"]["corrupt"], 4);
    assert!(bench(broker, "consumer --drain").0.status.success());
}

#[test]
fn swapped_messages_fail_the_order_check_only() {
    let broker = fake_broker::start(Mood::Reordering);
    let (output, _) = bench(broker, "producer --count 400 --connections 1");
    assert!(output.status.success());
    let (output, report) = bench(broker, "consumer --drain --verify");
    assert_eq!(output.status.code(), Some(1));
    assert_eq!(report["verify"]["out_of_order"], 4);
    assert_eq!(report["verify"]["missing"], 0);
    assert!(bench(broker, "consumer --drain --verify=integrity").0.status.success());
}

#[test]
fn refused_sends_are_counted_by_code_and_kind_and_fail_the_run() {
    let broker = fake_broker::start(Mood::Refusing);
    let (output, report) = bench(broker, "producer --count 50");
    assert_eq!(output.status.code(), Some(1));
    assert_eq!(report["error_count"], 50);
    assert_eq!(report["errors"].as_array().unwrap().len(), 1);
    assert_eq!(report["errors"][0]["code"], 2);
    assert_eq!(report["errors"][0]["remark"], "[REJECT] \"busy\" for # ms");
}

#[test]
fn a_closed_connection_ends_the_run_and_is_reported() {
    let broker = fake_broker::start(Mood::Closing);
    let (_, report) = bench(broker, "producer --count 1000 --connections 1 --in-flight 4");
    assert_eq!(report["closed_connections"], 1);
    assert!(report["unanswered"].as_u64().unwrap() > 0);
}

#[test]
fn an_open_loop_counts_the_wait_of_requests_behind_a_stall() {
    let broker = fake_broker::start(Mood::Stalling(300));
    let load = "producer --rate 1000 --count 600 --connections 1 --in-flight 1";
    let (output, report) = bench(broker, load);
    assert!(output.status.success(), "{output:?}");
    assert_eq!(report["messages"], 600);
    // A closed loop would have seen one slow request; here all that were due meanwhile are slow.
    assert!(report["latency"]["p90_us"].as_f64().unwrap() > 100_000.0, "{report}");
}

#[test]
fn transactions_count_when_their_commit_is_answered() {
    let broker = fake_broker::start(Mood::Healthy);
    let (output, report) = bench(broker, "producer --transaction --count 400 --connections 3 --in-flight 5");
    assert!(output.status.success(), "{output:?}");
    assert_eq!((&report["messages"], &report["latency"]["count"]), (&400.into(), &400.into()));
    let (output, report) = bench(broker, "consumer --idle 0.3 --verify=once");
    assert!(output.status.success(), "{output:?}");
    assert_eq!(report["verify"]["checked"], 400);
}

#[test]
fn popped_messages_count_when_they_are_acknowledged() {
    let broker = fake_broker::start(Mood::Healthy);
    assert!(bench(broker, "producer --count 1000").0.status.success());
    let (output, report) = bench(broker, "consumer --pop --drain --verify=once --connections 3");
    assert!(output.status.success(), "{output:?}");
    assert_eq!((&report["messages"], &report["verify"]["checked"]), (&1000.into(), &1000.into()));
}

#[test]
fn messages_popped_twice_fail_the_check() {
    let broker = fake_broker::start(Mood::PoppingTwice);
    assert!(bench(broker, "producer --count 100").0.status.success());
    let (output, report) = bench(broker, "consumer --pop --drain --verify=once --connections 1");
    assert_eq!(output.status.code(), Some(1));
    assert!(report["verify"]["duplicates"].as_u64().unwrap() >= 32, "{report}");
}

#[test]
fn a_filtered_pull_counts_what_was_examined_for_it() {
    let broker = fake_broker::start(Mood::Healthy);
    assert!(bench(broker, "producer --count 4000 --number").0.status.success());
    let mut command = Command::new(env!("CARGO_BIN_EXE_rmq-bench"));
    command.args([
        "consumer",
        "--drain",
        "--batch",
        "7",
        "-n",
        &broker.to_string(),
        "--json",
        "-",
        "--sql",
        "number < 1000",
    ]);
    let report: Value = serde_json::from_slice(&command.output().unwrap().stdout).unwrap();
    assert_eq!(report["messages"], 400);
    let ratio = report["examined_per_second"].as_f64().unwrap() / report["messages_per_second"].as_f64().unwrap();
    assert!((9.9..10.1).contains(&ratio), "{report}");
}

#[test]
fn an_orderly_consumer_reads_only_queues_it_locked() {
    let consumer = "consumer --orderly --drain --verify --duration 0.3";
    let broker = fake_broker::start(Mood::Healthy);
    assert!(bench(broker, "producer --count 500").0.status.success());
    let (output, report) = bench(broker, consumer);
    assert!(output.status.success(), "{output:?}");
    assert_eq!(report["verify"]["checked"], 500);
    let broker = fake_broker::start(Mood::Locked);
    assert!(bench(broker, "producer --count 500").0.status.success());
    let (output, report) = bench(broker, consumer);
    assert_eq!(output.status.code(), Some(1));
    assert_eq!(
        (&report["messages"], &report["errors"][0]["remark"]),
        (&0.into(), &"not all queues were locked".into())
    );
}

#[test]
fn a_message_before_its_due_time_is_early() {
    let broker = fake_broker::start(Mood::Healthy);
    // This broker delivers at once.
    assert!(bench(broker, "producer --count 100 --delay-level 1").0.status.success());
    let (_, report) = bench(broker, "consumer --idle 0.2");
    assert_eq!((&report["messages"], &report["early"]), (&100.into(), &100.into()));
}

#[test]
fn wrong_options_and_absent_servers_exit_with_two() {
    let broker = fake_broker::start(Mood::Healthy);
    assert_eq!(bench(broker, "producer --size 8").0.status.code(), Some(2));
    assert_eq!(bench(broker, "producer --rate 0").0.status.code(), Some(2));
    assert_eq!(bench(broker, "producer --batch 2 --transaction").0.status.code(), Some(2));
    assert_eq!(bench(broker, "consumer --pop --verify=order").0.status.code(), Some(2));
    let absent = ([127, 0, 0, 1], 1).into();
    assert_eq!(bench(absent, "consumer").0.status.code(), Some(2));
}
