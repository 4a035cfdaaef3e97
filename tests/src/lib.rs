//! Whole-process tests: stock clients, crashes, bad input, and clusters mixed with Apache's servers.
//!
//! A test starts servers ([`Cluster`], [`Namesrv`], [`Broker`]), runs scenarios of the stock clients against them
//! ([`Suite`]) or requests of its own ([`remoting`]), and compares. Every process hangs on a leash ([`Process`]): it
//! ends when the test does, however that ends.
//!
//! Environment:
//! - `RMQ_BIN`: the `rmq` binary to test; else the workspace's own, built when there is none.
//! - `RMQ_TEST_TARGET=apache`: run the same tests against Apache's servers, which say what the right answers are.
//! - `RMQ_TEST_NAMESRV=host:port`: run the client tests against a cluster that runs already.
//! - `CI=true`: a missing toolchain fails a test instead of skipping it.

#![forbid(unsafe_code)]

mod binary;
mod cluster;
mod folder;
mod port;
mod process;
pub mod remoting;
mod route;
mod suite;

pub use binary::rmq;
pub use cluster::{Broker, Cluster, Kind, Namesrv, attached, shared};
pub use folder::Folder;
pub use port::free as free_port;
pub use process::{Process, await_condition};
pub use route::is_known as has_route;
pub use suite::{JavaClient, Suite, java_command};

/// Says so, and returns false, where Apache's servers are tested and the test is about RingMQ alone.
pub fn is_for_ringmq() -> bool {
    let is_ringmq = Kind::under_test() == Kind::RingMq;
    if !is_ringmq {
        println!("skipped: about RingMQ alone");
    }
    is_ringmq
}

/// Ends a test that lacks a toolchain or a server of its own: prints why, or fails where nothing may be missing.
pub fn skip(reason: &str) {
    assert!(std::env::var_os("CI").is_none_or(|ci| ci != "true"), "not to be skipped in CI: {reason}");
    println!("skipped: {reason}");
}
