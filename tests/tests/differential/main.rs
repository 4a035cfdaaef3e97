//! One script of requests against Apache's broker and against ours: codes, kinds of remarks, header fields, counts, order,
//! and all a stored message holds are compared field by field.
//!
//! `differences.txt` lists what differs, each with its reason. A difference that is not in it fails the test, and so does
//! one in it that no longer occurs. `RMQ_TEST_TARGET=apache` compares Apache with itself: is the script repeatable?

mod admin;
mod delays;
mod difference;
mod offsets;
mod pops;
mod pulls;
mod queries;
mod retries;
mod script;
mod sends;
mod sql;
mod transactions;

use std::collections::BTreeMap;
use std::panic::AssertUnwindSafe;

use rmq_tests::{Broker, JavaClient, Kind, Namesrv, Suite, attached, skip};

use difference::{Listed, differences};
use script::{Observations, Script};

/// Of both brokers.
const PROPERTIES: &str = "recallMessageEnable=true";
const LISTED: &str = include_str!("differences.txt");

/// A part of the script.
struct Section {
    name: &'static str,
    run: fn(&mut Script),
    /// Whether RingMQ has the feature; until then nothing is compared.
    is_built: bool,
}

const SECTIONS: [Section; 12] = [
    Section { name: "sends", run: sends::run, is_built: true },
    Section { name: "pulls", run: pulls::run, is_built: true },
    Section { name: "offsets", run: offsets::run, is_built: true },
    Section { name: "admin", run: admin::run, is_built: true },
    Section { name: "queries by id", run: queries::by_id, is_built: true },
    Section { name: "queries by key", run: queries::by_key, is_built: true },
    Section { name: "delays", run: delays::levels, is_built: true },
    Section { name: "timers", run: delays::timers, is_built: true },
    Section { name: "retries", run: retries::run, is_built: true },
    Section { name: "transactions", run: transactions::run, is_built: true },
    Section { name: "pops", run: pops::run, is_built: true },
    Section { name: "sql", run: sql::run, is_built: true },
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
    let namesrv = Namesrv::start(kind);
    let broker = Broker::with(kind, namesrv.address(), PROPERTIES);
    // Sections have topics of their own, and delays are waited for: all at the same time.
    let address = broker.address();
    std::thread::scope(|scope| {
        let sections = SECTIONS.iter().filter(|section| section.is_built);
        let threads: Vec<_> = sections
            .map(|section| {
                scope.spawn(move || {
                    let mut script = Script::new(section.name, address);
                    // A step that cannot go on ends its section, and that is a difference like others.
                    let end = std::panic::catch_unwind(AssertUnwindSafe(|| (section.run)(&mut script)));
                    script.observe("end", "reached", end.is_ok().to_string());
                    script.observations()
                })
            })
            .collect();
        let done = threads.into_iter().map(|thread| thread.join().expect("the section is observed"));
        done.fold(BTreeMap::new(), |mut all, mut section| {
            all.append(&mut section);
            all
        })
    })
}
