//! The stock client rocketmq-client-go v2: every scenario of `tests/go`.

use rmq_tests::{Suite, shared};

macro_rules! scenarios {
    ($($name:ident),* $(,)?) => {
        $(#[test] fn $name() { Suite::Go.run(stringify!($name), shared); })*

        #[test]
        fn every_scenario_is_listed() {
            if Suite::Go.is_available() {
                assert_eq!(Suite::Go.scenarios(), [$(stringify!($name)),*]);
            }
        }
    };
}

scenarios!(
    pull_from,
    pull_poll,
    push_broadcasting,
    push_clustering,
    push_orderly,
    push_resume,
    push_retry,
    push_tags,
    send_async,
    send_batch,
    send_big_body,
    send_oneway,
    send_sync,
);
