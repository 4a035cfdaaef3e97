//! The stock Java clients: every scenario of `tests/java`, with both releases, and the quickstart of
//! `rocketmq-example` as it is.

use std::collections::BTreeSet;

use rmq_tests::{Folder, JavaClient, Process, Suite, java_command, shared};

/// One test per scenario and client, and one that no scenario is forgotten here.
macro_rules! scenarios {
    (both: $($name:ident),*; only 5.5.0: $($new:ident),*;) => {
        mod client_5_5_0 {
            $(#[test] fn $name() { super::run(super::JavaClient::V5_5_0, stringify!($name)); })*
            $(#[test] fn $new() { super::run(super::JavaClient::V5_5_0, stringify!($new)); })*
        }
        mod client_4_9_8 {
            $(#[test] fn $name() { super::run(super::JavaClient::V4_9_8, stringify!($name)); })*
        }
        #[test]
        fn every_scenario_is_listed() {
            let old = BTreeSet::from([$(stringify!($name)),*].map(str::to_owned));
            let new = BTreeSet::from([$(stringify!($new)),*].map(str::to_owned));
            for (client, listed) in [(JavaClient::V4_9_8, old.clone()), (JavaClient::V5_5_0, &old | &new)] {
                let suite = Suite::Java(client);
                if suite.is_available() {
                    assert_eq!(suite.scenarios().into_iter().collect::<BTreeSet<_>>(), listed);
                }
            }
        }
    };
}

scenarios!(
    both:
    delay_levels,
    delay_timers,
    filter_sql,
    lite_pull_assign_seek,
    lite_pull_reset,
    lite_pull_subscribe,
    mode_ask_consumer,
    mode_broadcast_disabled,
    mode_consume_disabled,
    mode_consume_from_where,
    mode_reset_by_time,
    mode_reset_offline,
    mode_retry_queues,
    mode_subscription_conflict,
    mode_suspend_resume,
    order_dead_letter,
    order_over_restarts,
    order_selector,
    pull_long_polling,
    pull_old,
    push_broadcasting,
    push_clustering,
    push_orderly,
    push_rebalance,
    push_resume,
    push_retry,
    push_tags,
    query_message,
    queue_bounds,
    queue_search_time,
    request_reply,
    send_async,
    send_auto_create,
    send_batch,
    send_big_body,
    send_oneway,
    send_sync,
    trace_message,
    transaction_check,
    transaction_end,
    view_message;
    only 5.5.0:
    delay_recall,
    pop_of_all_brokers,
    pop_order,
    pop_priority,
    pop_push,
    pop_retry,
    pop_share,
    pop_takeover,
    send_auto_batch,
    send_batch_queue;
);

fn run(client: JavaClient, scenario: &str) {
    Suite::Java(client).run(scenario, shared);
}

/// `org.apache.rocketmq.example.quickstart`: what its producer sent, its consumer prints.
#[test]
fn quickstart() {
    if !Suite::Java(JavaClient::V5_5_0).is_available() {
        return;
    }
    let home = Folder::new();
    let start = |class: &str| {
        let mut command = java_command(JavaClient::V5_5_0, home.path());
        command.arg(format!("org.apache.rocketmq.example.quickstart.{class}")).env("NAMESRV_ADDR", shared());
        Process::start(class, home.path(), &command)
    };
    let mut producer = start("Producer");
    producer.await_ready("1000 answers", || ids(&producer, "SendResult [", "msgId=").len() == 1000);
    let sent = ids(&producer, "SendResult [", "msgId=");
    let consumer = start("Consumer");
    consumer.await_ready("all messages", || ids(&consumer, "Receive New Messages", "UNIQ_KEY=").is_superset(&sent));
    assert_eq!(producer.exit_code(), 0);
}

/// What follows `key` in the complete lines of a log that hold `marker`.
fn ids(process: &Process, marker: &str, key: &str) -> BTreeSet<String> {
    let log = process.log_text();
    let complete = log.rsplit_once('\n').map_or("", |(lines, _)| lines);
    complete
        .lines()
        .filter(|line| line.contains(marker))
        .flat_map(|line| line.split(key).skip(1))
        .filter_map(|rest| rest.split(|c: char| !c.is_ascii_alphanumeric()).next().map(str::to_owned))
        .collect()
}
