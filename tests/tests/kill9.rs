//! `kill -9` of the broker under load: after every restart, what was acknowledged is where the answer said.

use std::fs::File;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use rmq_tests::{Cluster, Folder, JavaClient, Kind, Process, Suite, attached, await_condition, java_command, skip};

const TOPIC: &str = "durability";
/// Crashes in one run, unless `RMQ_TEST_KILL9_ROUNDS` says otherwise.
const ROUNDS: u32 = 3;
/// Acknowledgements between a start and the crash.
const ACKED_PER_ROUND: u64 = 3_000;

#[test]
fn acknowledged_messages_survive_kill_9_under_load() {
    if attached().is_some() {
        return skip("a broker to be killed must be this test's own");
    }
    if !Suite::Java(JavaClient::V5_5_0).is_available() {
        return;
    }
    let rounds = std::env::var("RMQ_TEST_KILL9_ROUNDS")
        .map_or(ROUNDS, |rounds| rounds.parse().expect("RMQ_TEST_KILL9_ROUNDS is a number"));
    let home = Folder::new();
    let acks = home.path().join("acks");
    let mut cluster = Cluster::start(Kind::under_test());
    let mut producer = Producer::start(&cluster, home.path(), &acks);
    for _ in 0..rounds {
        let goal = producer.acked() + ACKED_PER_ROUND;
        producer.await_acked(goal);
        cluster.crash();
        cluster.restart();
    }
    let goal = producer.acked() + ACKED_PER_ROUND;
    producer.await_acked(goal);
    producer.stop();
    cluster.crash();
    cluster.restart();

    let mut verifier = java_command(JavaClient::V5_5_0, home.path());
    verifier
        .arg(format!("-Dnamesrv={}", cluster.namesrv()))
        .arg("ringmq.clients.DurabilityVerifier")
        .arg(TOPIC)
        .arg(&acks);
    let mut verifier = Process::start("verifier", home.path(), &verifier);
    let code = verifier.exit_code();
    assert_eq!(code, 0, "{}", verifier.log_text());
    println!("{}", verifier.log_tail());
}

#[test]
fn orderly_consumers_keep_the_order_of_each_queue_over_kill_9() {
    killed_beside("order_over_restarts", &["sent 49\n", "sent 149\n", "sent 249\n"]);
}

#[test]
fn transactions_left_open_are_checked_after_kill_9() {
    killed_beside("transaction_check", &["left open\n"]);
}

/// Plays a scenario of the Java client, and kills the broker each time the scenario says one of these lines.
fn killed_beside(name: &str, lines: &[&str]) {
    if attached().is_some() {
        return skip("a broker to be killed must be this test's own");
    }
    if !Suite::Java(JavaClient::V5_5_0).is_available() {
        return;
    }
    let home = Folder::new();
    let mut cluster = Cluster::start(Kind::under_test());
    let mut scenario = java_command(JavaClient::V5_5_0, home.path());
    scenario.arg(format!("-Dnamesrv={}", cluster.namesrv())).arg("ringmq.clients.Scenarios").arg(name);
    let mut scenario = Process::start(name, home.path(), &scenario);
    for line in lines {
        scenario.await_ready(line, || scenario.log_text().contains(line));
        cluster.crash();
        cluster.restart();
    }
    let code = scenario.exit_code();
    assert_eq!(code, 0, "{}", scenario.log_text());
}

/// The load: a Java producer that sends until its stdin ends, and writes down what was acknowledged.
struct Producer {
    child: Child,
    log: std::path::PathBuf,
}

impl Producer {
    fn start(cluster: &Cluster, home: &Path, acks: &Path) -> Self {
        let log = home.join("producer.log");
        let mut command: Command = java_command(JavaClient::V5_5_0, home);
        command.arg(format!("-Dnamesrv={}", cluster.namesrv())).arg("ringmq.clients.DurabilityProducer");
        command.args([TOPIC, "8", "16", "1024"]).arg(acks);
        let output = File::create(&log).expect("the producer's log");
        let errors = output.try_clone().expect("the producer's log");
        let child = command.stdin(Stdio::piped()).stdout(output).stderr(errors).spawn().expect("java starts");
        Self { child, log }
    }

    /// Messages acknowledged so far, by the last complete progress line.
    fn acked(&self) -> u64 {
        let log = std::fs::read_to_string(&self.log).unwrap_or_default();
        let complete = log.rsplit_once('\n').map_or("", |(lines, _)| lines);
        complete.lines().rev().find_map(|line| line.strip_prefix("acked ")?.parse().ok()).unwrap_or(0)
    }

    fn await_acked(&mut self, goal: u64) {
        await_condition(&format!("{goal} acknowledgements"), || {
            assert!(self.child.try_wait().expect("the producer's state").is_none(), "the producer ended");
            goal <= self.acked()
        });
    }

    fn stop(mut self) {
        drop(self.child.stdin.take());
        assert!(
            self.child.wait().expect("the producer ends").success(),
            "the producer failed; see {}",
            self.log.display()
        );
    }
}

impl Drop for Producer {
    fn drop(&mut self) {
        // After `stop` it is gone already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
