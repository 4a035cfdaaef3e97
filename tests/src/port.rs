use std::net::TcpListener;
use std::sync::atomic::{AtomicU16, Ordering};

/// Below the ports the kernel gives to outgoing connections, so that no client takes a port between our look and
/// the server's bind.
const FIRST: u16 = 11_000;
const LAST: u16 = 31_000;
/// A broker on port P also listens on P - 2 (its second listener) and, Apache's, on P + 1 (replication).
const STEP: u16 = 5;
/// Steps between the first ports of processes with neighbouring ids: prime to the count of steps.
const SPREAD: u16 = 1_009;

/// A port P where P - 2 to P + 1 are free. Tests of one process never get the same port twice.
pub fn free() -> u16 {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let steps = (LAST - FIRST) / STEP;
    // Two test processes begin far from each other, also when they were started one right after the other.
    let start = (u64::from(std::process::id()) * u64::from(SPREAD) % u64::from(steps)) as u16;
    for _ in 0..steps {
        let step = (start + NEXT.fetch_add(1, Ordering::Relaxed)) % steps;
        let port = FIRST + step * STEP;
        if (port - 2..=port + 1).all(is_free) {
            return port;
        }
    }
    panic!("no free port between {FIRST} and {LAST}");
}

pub(crate) fn is_free(port: u16) -> bool {
    TcpListener::bind(("127.0.0.1", port)).is_ok()
}
