//! The stock client Node's ali-ons: every scenario of `tests/node`.

use rmq_tests::{Suite, shared};

macro_rules! scenarios {
    ($($name:ident),* $(,)?) => {
        $(#[test] fn $name() { Suite::Node.run(stringify!($name), shared); })*

        #[test]
        fn every_scenario_is_listed() {
            if Suite::Node.is_available() {
                assert_eq!(Suite::Node.scenarios(), [$(stringify!($name)),*]);
            }
        }
    };
}

scenarios!(push_broadcasting, push_clustering, push_resume, push_retry, push_tags, send,);
