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

use rmq_tests::remoting::{Connection, Reply, Request};
use rmq_tests::{Cluster, Kind, await_condition};

/// The broker all these tests share, but for those that look at its memory or its end.
fn cluster() -> &'static Cluster {
    static SHARED: OnceLock<Cluster> = OnceLock::new();
    SHARED.get_or_init(|| Cluster::start(Kind::under_test()))
}

fn connect() -> Connection {
    Connection::open(&cluster().broker())
}

/// Both servers of the process: the broker and the name server.
fn addresses() -> [String; 2] {
    [cluster().broker(), cluster().namesrv().to_owned()]
}

fn is_ringmq() -> bool {
    Kind::under_test() == Kind::RingMq
}

/// Pulls a message that was acknowledged. RingMQ has it for readers then; Apache's broker a little later.
fn pull_acknowledged(connection: &mut Connection, topic: &str, queue_id: i32, offset: i64) -> Reply {
    let mut reply = connection.call(&Request::pull(topic, queue_id, offset));
    if !is_ringmq() {
        await_condition("the message to be readable", || {
            reply = connection.call(&Request::pull(topic, queue_id, offset));
            reply.code == 0
        });
    }
    reply
}

/// RingMQ's remark names what is wrong by all these words; Apache's has its own ones.
#[track_caller]
fn assert_refused(reply: &Reply, code: i32, words: &[&str]) {
    assert_eq!(reply.code, code, "{:?} {:?}", reply.remark, reply.ext);
    for word in words {
        assert!(!is_ringmq() || reply.remark.contains(word), "{word:?} is not in the remark {:?}", reply.remark);
    }
}
