//! Requests nobody knows, and those this broker does not do yet.

use rmq_tests::is_for_ringmq;
use rmq_tests::remoting::{Connection, Request};

use crate::bystander::Bystander;
use crate::{assert_refused, cluster, connect};

const REQUEST_CODE_NOT_SUPPORTED: i32 = 3;
/// The coverage table of all request codes.
const PROTOCOL: &str = include_str!("../../../docs/PROTOCOL.md");

/// The requests of the coverage table that have one of these statuses.
fn codes(statuses: &[&str]) -> Vec<i32> {
    PROTOCOL
        .lines()
        .filter_map(|line| {
            let cells: Vec<&str> = line.split('|').map(str::trim).collect();
            let status = cells.get(3)?;
            statuses.contains(status).then(|| cells.get(1)?.parse().ok())?
        })
        .collect()
}

#[test]
fn unknown_codes_are_named() {
    let mut connection = connect();
    for code in [9999, 0, -1, i32::MAX, i32::MIN] {
        let reply = connection.call(&Request::new(code));
        assert_refused(&reply, REQUEST_CODE_NOT_SUPPORTED, &[&code.to_string()]);
    }
    let mut name_server = Connection::open(cluster().namesrv());
    let reply = name_server.call(&Request::new(9999));
    assert_refused(&reply, REQUEST_CODE_NOT_SUPPORTED, &["9999"]);
}

#[test]
fn requests_the_coverage_table_calls_missing_are_refused_by_code() {
    if !is_for_ringmq() {
        return;
    }
    let codes = codes(&["not yet", "never"]);
    assert!(codes.contains(&200_070) && 50 < codes.len(), "the table is not read: {codes:?}");
    let mut bystander = Bystander::connect(&cluster().broker(), "unbuilt");
    let mut connection = connect();
    for code in codes {
        let words = code.to_string();
        // With nothing, and with fields and a body that a sloppy decoder would run into.
        assert_refused(&connection.call(&Request::new(code)), REQUEST_CODE_NOT_SUPPORTED, &[&words]);
        let full = Request::new(code).ext("topic", "unbuilt").ext("queueId", "junk").body(b"{junk");
        assert_refused(&connection.call(&full), REQUEST_CODE_NOT_SUPPORTED, &[&words]);
    }
    bystander.check();
}

#[test]
fn requests_of_the_coverage_table_that_work_are_known() {
    if !is_for_ringmq() {
        return;
    }
    let broker = PROTOCOL.split("## Name server").next().expect("the broker's tables come first");
    let mut connection = connect();
    let mut known = 0;
    for code in codes(&["supported", "partial"]) {
        if !broker.contains(&format!("\n| {code} |")) {
            continue;
        }
        known += 1;
        // Without a field nearly all are refused, but none as unknown, and none closes the connection.
        let reply = connection.call(&Request::new(code));
        assert_ne!(reply.code, REQUEST_CODE_NOT_SUPPORTED, "{code}: {reply:?}");
    }
    assert!(30 < known, "the table is not read: {known} codes");
}
