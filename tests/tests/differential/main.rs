//! One script of requests against Apache's broker and against ours: codes, kinds of remarks, header fields, counts, order,
//! and all a stored message holds are compared field by field.
//!
//! `differences.txt` lists what differs, each with its reason. A difference that is not in it fails the test, and so does
//! one in it that no longer occurs. `RMQ_TEST_TARGET=apache` compares Apache with itself: is the script repeatable?

mod admin;
mod batch_queues;
mod closed;
mod delays;
mod difference;
mod offsets;
mod orders;
mod pops;
mod pulls;
mod queries;
mod retries;
mod script;
mod sends;
mod sql;
mod transactions;

use std::panic::AssertUnwindSafe;

use rmq_tests::{Broker, JavaClient, Kind, Namesrv, Suite, attached, skip};

use difference::{Listed, differences};
use script::{Observations, Script};

const LISTED: &str = include_str!("differences.txt");

/// Servers of both kinds with the same settings, and what is asked of them.
struct Stage {
    /// Lines of namesrv.conf and of broker.conf.
    namesrv: &'static str,
    broker: &'static str,
    sections: &'static [Section],
}

/// A part of the script.
struct Section {
    name: &'static str,
    run: fn(&mut Script),
}

const STAGES: [Stage; 3] = [
    Stage {
        namesrv: "",
        broker: "",
        sections: &[
            Section { name: "sends", run: sends::run },
            Section { name: "pulls", run: pulls::run },
            Section { name: "offsets", run: offsets::run },
            Section { name: "admin", run: admin::run },
            Section { name: "queries by id", run: queries::by_id },
            Section { name: "queries by key", run: queries::by_key },
            Section { name: "delays", run: delays::levels },
            Section { name: "timers", run: delays::timers },
            Section { name: "retries", run: retries::run },
            Section { name: "transactions", run: transactions::run },
            Section { name: "pops", run: pops::run },
            Section { name: "sql", run: sql::run },
            Section { name: "batch queues", run: batch_queues::run },
        ],
    },
    // Without write permission only ordered topics are refused; and half messages are checked soon.
    Stage {
        namesrv: "orderMessageEnable=true",
        broker: "autoCreateTopicEnable=false\nautoCreateSubscriptionGroup=false\nbrokerPermission=4\n\
                 registerNameServerPeriod=10000\ntransactionTimeOut=1000\ntransactionCheckInterval=1000",
        sections: &[
            Section { name: "closed", run: closed::run },
            Section { name: "orders", run: orders::run },
            Section { name: "checks", run: transactions::checks },
        ],
    },
    Stage {
        namesrv: "",
        broker: "brokerPermission=0\nrejectTransactionMessage=true\nallowRecallWhenBrokerNotWriteable=false",
        sections: &[Section { name: "forbidden", run: closed::forbidden }],
    },
];

#[test]
fn apache_and_ringmq_answer_one_script_alike() {
    if attached().is_some() {
        return skip("the comparison needs fresh servers of its own");
    }
    if !Suite::Java(JavaClient::V5_5_0).is_available() {
        return;
    }
    let under_test = Kind::under_test();
    let ours = std::thread::spawn(move || observe(under_test));
    let apache = observe(Kind::Apache);
    let ours = ours.join().expect("our script ends");
    let listed = match under_test {
        Kind::RingMq => Listed::read(LISTED),
        Kind::Apache => Listed::read(""),
    };
    for end in apache.iter().filter(|((step, _), _)| step.ends_with("/end")) {
        assert_eq!(end.1, "true", "a section is wrong about Apache: {end:?}");
    }
    let found = differences(&apache, &ours);
    let wrong = listed.check(&found);
    assert!(wrong.is_empty(), "{} differences are not as listed:\n{}", wrong.len(), wrong.join("\n"));
}

/// Runs the script against fresh servers.
fn observe(kind: Kind) -> Observations {
    STAGES.iter().flat_map(|stage| observe_stage(kind, stage)).collect()
}

fn observe_stage(kind: Kind, stage: &Stage) -> Observations {
    let namesrv = Namesrv::with(kind, stage.namesrv);
    let broker = Broker::with(kind, namesrv.address(), stage.broker);
    // Sections have topics of their own, and delays are waited for: all at the same time.
    let (broker, namesrv) = (broker.address(), namesrv.address());
    std::thread::scope(|scope| {
        let threads = stage.sections.iter().map(|section| {
            scope.spawn(move || {
                let mut script = Script::new(section.name, broker, namesrv);
                // A step that cannot go on ends its section, and that is a difference like others.
                let end = std::panic::catch_unwind(AssertUnwindSafe(|| (section.run)(&mut script)));
                script.observe("end", "reached", end.is_ok().to_string());
                script.observations()
            })
        });
        let threads: Vec<_> = threads.collect();
        threads.into_iter().flat_map(|thread| thread.join().expect("the section is observed")).collect()
    })
}
