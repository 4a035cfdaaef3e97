//! Input no good client sends: what the broker answers, that the answer names the fault, and that nobody else notices.
//!
//! `RMQ_TEST_TARGET=apache` runs what is not RingMQ's own against Apache's broker: the codes are the same there.

mod bystander;
mod connections;
mod frames;
mod headers;
mod messages;
mod pulls;
mod settings;
mod start;
mod unbuilt;

use std::sync::OnceLock;

use rmq_tests::remoting::{Connection, Reply};
use rmq_tests::{Cluster, Kind};

/// The broker all these tests share, but for those that look at its memory or its end.
fn cluster() -> &'static Cluster {
    static SHARED: OnceLock<Cluster> = OnceLock::new();
    SHARED.get_or_init(|| Cluster::start(Kind::under_test()))
}

fn connect() -> Connection {
    Connection::open(&cluster().broker())
}

fn is_ringmq() -> bool {
    Kind::under_test() == Kind::RingMq
}

/// Says so, and returns false, where Apache is tested and the test is about RingMQ alone.
fn is_for_ringmq() -> bool {
    if !is_ringmq() {
        println!("skipped: about RingMQ alone");
    }
    is_ringmq()
}

/// RingMQ's remark names what is wrong by all these words; Apache's has its own ones.
#[track_caller]
fn assert_refused(reply: &Reply, code: i32, words: &[&str]) {
    assert_eq!(reply.code, code, "{:?} {:?}", reply.remark, reply.ext);
    for word in words {
        assert!(!is_ringmq() || reply.remark.contains(word), "{word:?} is not in the remark {:?}", reply.remark);
    }
}
