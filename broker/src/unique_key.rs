//! Message ids for producers that send none: the layout stock clients use (RocketMQ: `UNIQ_KEY`).

use std::net::{IpAddr, SocketAddr};

use rmq_net::message::id::push_hex;

/// Hex of: host (4 or 16 bytes), process id (2), core (4), milliseconds (4), counter (2).
pub struct UniqueKeys {
    prefix: Vec<u8>,
    counter: u16,
}

impl UniqueKeys {
    pub fn new(host: SocketAddr, core: usize) -> Self {
        let mut prefix = Vec::with_capacity(44);
        match host.ip() {
            IpAddr::V4(ip) => push_hex(&mut prefix, ip.octets()),
            IpAddr::V6(ip) => push_hex(&mut prefix, ip.octets()),
        }
        push_hex(&mut prefix, (std::process::id() as u16).to_be_bytes());
        push_hex(&mut prefix, (core as u32).to_be_bytes());
        Self { prefix, counter: 0 }
    }

    /// Unique as long as a core makes fewer than 65,536 a millisecond.
    pub fn next(&mut self, now_ms: i64) -> String {
        self.counter = self.counter.wrapping_add(1);
        let mut key = self.prefix.clone();
        push_hex(&mut key, (now_ms as u32).to_be_bytes());
        push_hex(&mut key, self.counter.to_be_bytes());
        // Hex digits are always text.
        String::from_utf8(key).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_differ_and_have_the_length_of_stock_ones() {
        let mut keys = UniqueKeys::new("127.0.0.1:10911".parse().unwrap(), 1);
        let (first, second) = (keys.next(7), keys.next(7));
        assert_eq!((first.len(), second.len()), (32, 32));
        assert_ne!(first, second);
        assert!(first.starts_with("7F000001"));
    }
}
