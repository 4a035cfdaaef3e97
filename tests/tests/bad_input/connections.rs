//! Connections that say nothing, and clients that do not listen: nobody else notices, and memory stays bounded.

use std::io::{ErrorKind, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use rmq_tests::remoting::{Connection, Request};
use rmq_tests::{Cluster, Kind, await_condition, is_for_ringmq};
use rustix::process::{Resource, getrlimit, setrlimit};

use crate::bystander::Bystander;

/// Unless `RMQ_TEST_SILENT_CONNECTIONS` says otherwise.
const SILENT_CONNECTIONS: usize = 2_000;
const BYTES_PER_SILENT_CONNECTION: u64 = 24 * 1024;
const DEAF_CLIENTS: usize = 8;
const BACKLOG_MESSAGES: usize = 128;
/// 32 of them fill a pull's answer to its 256 KiB.
const BACKLOG_MESSAGE_BYTES: usize = 8 * 1024;
/// If the broker reads this many requests of a client that takes no answer, it reads without end.
const UNREAD_REQUESTS_MAX: usize = 200_000;
const RESIDENT_BYTES_MAX: u64 = 600 << 20;

/// As many open files as this process may have; the servers it starts inherit that.
fn raise_open_files() -> usize {
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    setrlimit(Resource::Nofile, limit).expect("the soft limit rises to the hard one");
    limit.maximum.map_or(usize::MAX, |maximum| usize::try_from(maximum).unwrap_or(usize::MAX))
}

#[test]
fn silent_connections_cost_little_and_harm_nobody() {
    if !is_for_ringmq() {
        return;
    }
    let count = std::env::var("RMQ_TEST_SILENT_CONNECTIONS")
        .map_or(SILENT_CONNECTIONS, |count| count.parse().expect("RMQ_TEST_SILENT_CONNECTIONS is a number"));
    let open_files = raise_open_files();
    assert!(count + 500 < open_files, "{count} connections need more than {open_files} open files");
    let cluster = Cluster::start(Kind::RingMq);
    let broker = cluster.broker_process();
    let mut bystander = Bystander::connect(&cluster.broker(), "silent");
    let (before_bytes, before_files) = (broker.resident_bytes(), broker.open_file_count());
    let mut silent = Vec::with_capacity(count);
    for number in 0..count {
        silent.push(TcpStream::connect(cluster.broker()).expect("the broker accepts"));
        if number % 500 == 499 {
            bystander.check();
        }
    }
    await_condition("the broker to accept them all", || count <= broker.open_file_count() - before_files);
    bystander.check();
    let each = broker.resident_bytes().saturating_sub(before_bytes) / count as u64;
    println!("{count} silent connections: {each} bytes each");
    assert!(each < BYTES_PER_SILENT_CONNECTION, "{each} bytes for each of {count} connections");
    drop(silent);
    await_condition("the broker to close them all", || broker.open_file_count() <= before_files + 10);
    bystander.check();
}

#[test]
fn clients_that_never_read_are_not_read_either() {
    if !is_for_ringmq() {
        return;
    }
    let cluster = Cluster::start(Kind::RingMq);
    let mut sender = Connection::open(&cluster.broker());
    let body = vec![b'x'; BACKLOG_MESSAGE_BYTES];
    for _ in 0..BACKLOG_MESSAGES {
        assert_eq!(sender.call(&Request::send("backlog", 0, "", &body)).code, 0);
    }
    let mut bystander = Bystander::connect(&cluster.broker(), "deaf");
    let pull = Request::pull("backlog", 0, 0).frame(1);
    let mut deaf = Vec::new();
    for _ in 0..DEAF_CLIENTS {
        let mut stream = TcpStream::connect(cluster.broker()).expect("the broker accepts");
        stream.set_write_timeout(Some(Duration::from_millis(500))).expect("a write timeout");
        let requests = unread_requests(&mut stream, &pull);
        assert!(requests < UNREAD_REQUESTS_MAX, "the broker reads on although nobody takes its answers");
        bystander.check();
        let resident_bytes = cluster.broker_process().resident_bytes();
        println!("a deaf client could write {requests} pulls; {} MiB resident", resident_bytes >> 20);
        assert!(resident_bytes < RESIDENT_BYTES_MAX, "{resident_bytes} bytes resident with {} of them", deaf.len() + 1);
        deaf.push(stream);
    }
    let asked = Instant::now();
    bystander.check();
    assert!(asked.elapsed() < Duration::from_secs(5), "the bystander waited {:?}", asked.elapsed());
    drop(deaf);
    bystander.check();
}

/// Asks again and again, until the socket takes nothing more; returns how often.
fn unread_requests(stream: &mut TcpStream, request: &[u8]) -> usize {
    for count in 0..UNREAD_REQUESTS_MAX {
        match stream.write_all(request) {
            Ok(()) => {}
            // Not read any more, or closed: both are right.
            Err(error)
                if matches!(
                    error.kind(),
                    ErrorKind::WouldBlock | ErrorKind::TimedOut | ErrorKind::ConnectionReset | ErrorKind::BrokenPipe
                ) =>
            {
                return count;
            }
            Err(error) => panic!("after {count} requests: {error}"),
        }
    }
    UNREAD_REQUESTS_MAX
}
