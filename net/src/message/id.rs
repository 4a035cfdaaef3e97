//! Offset message ids: where a record is stored, as upper-case hex of IP, port and physical offset.
#![forbid(unsafe_code)]

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// An offset message id, 32 characters with an IPv4 host and 56 with an IPv6 host.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct OffsetMessageId {
    /// The broker that stores the record; clients connect to it.
    pub store_host: SocketAddr,
    /// Physical offset in wire form.
    pub physical_offset: i64,
}

impl OffsetMessageId {
    /// Appends the hex text; no other allocation.
    pub fn write_to(&self, out: &mut Vec<u8>) {
        match self.store_host.ip() {
            IpAddr::V4(ip) => push_hex(out, ip.octets()),
            IpAddr::V6(ip) => push_hex(out, ip.octets()),
        }
        push_hex(out, u32::from(self.store_host.port()).to_be_bytes());
        push_hex(out, self.physical_offset.to_be_bytes());
    }

    /// Bytes of the text of any id of this host.
    pub fn text_bytes(store_host: SocketAddr) -> usize {
        if store_host.is_ipv4() { 32 } else { 56 }
    }

    /// Any letter case; `None` unless it is hex of one of the two lengths with a 16-bit port.
    pub fn parse(text: &str) -> Option<Self> {
        match text.len() {
            32 => Self::from_host_bytes::<4>(text),
            56 => Self::from_host_bytes::<16>(text),
            _ => None,
        }
    }

    fn from_host_bytes<const N: usize>(text: &str) -> Option<Self>
    where
        [u8; N]: IntoIp,
    {
        let (ip, rest) = text.split_at_checked(2 * N)?;
        let (port, offset) = rest.split_at_checked(8)?;
        let port = u16::try_from(u32::from_be_bytes(read_hex(port)?)).ok()?;
        Some(Self {
            store_host: SocketAddr::new(read_hex::<N>(ip)?.into_ip(), port),
            physical_offset: i64::from_be_bytes(read_hex(offset)?),
        })
    }
}

trait IntoIp {
    fn into_ip(self) -> IpAddr;
}

impl IntoIp for [u8; 4] {
    fn into_ip(self) -> IpAddr {
        Ipv4Addr::from(self).into()
    }
}

impl IntoIp for [u8; 16] {
    fn into_ip(self) -> IpAddr {
        Ipv6Addr::from(self).into()
    }
}

impl std::fmt::Display for OffsetMessageId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let mut out = Vec::with_capacity(56);
        self.write_to(&mut out);
        f.write_str(&String::from_utf8_lossy(&out))
    }
}

/// Appends upper-case hex.
pub fn push_hex<const N: usize>(out: &mut Vec<u8>, bytes: [u8; N]) {
    const DIGITS: &[u8; 16] = b"0123456789ABCDEF";
    let pairs = bytes.map(|byte| [DIGITS[usize::from(byte >> 4)], DIGITS[usize::from(byte & 0xf)]]);
    out.extend_from_slice(pairs.as_flattened());
}

fn read_hex<const N: usize>(text: &str) -> Option<[u8; N]> {
    let (pairs, []) = text.as_bytes().as_chunks::<2>() else {
        return None;
    };
    let mut out = [0; N];
    if pairs.len() != N {
        return None;
    }
    for (slot, [high, low]) in out.iter_mut().zip(pairs) {
        let digit = |byte: u8| char::from(byte).to_digit(16);
        *slot = u8::try_from(digit(*high)? << 4 | digit(*low)?).ok()?;
    }
    Some(out)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn id(host: &str, physical_offset: i64) -> OffsetMessageId {
        OffsetMessageId { store_host: host.parse().unwrap(), physical_offset }
    }

    #[test]
    fn ids_equal_those_of_the_reference() {
        assert_eq!(id("127.0.0.1:10911", 1000).to_string(), "7F00000100002A9F00000000000003E8");
        assert_eq!(id("[::1]:10911", 1000).to_string(), "0000000000000000000000000000000100002A9F00000000000003E8");
        assert_eq!(OffsetMessageId::parse("7f00000100002a9f00000000000003e8"), Some(id("127.0.0.1:10911", 1000)));
        for bad in [
            "",
            "7F",
            "7F00000100012A9F00000000000003E8",
            "ZF00000100002A9F00000000000003E8",
            "中中中中中中中中中中中中中中中中中中aa",
        ] {
            assert_eq!(OffsetMessageId::parse(bad), None, "{bad}");
        }
    }

    proptest! {
        #[test]
        fn parse_undoes_display(ip: u128, is_v6: bool, port: u16, physical_offset: i64) {
            let ip: IpAddr = if is_v6 { Ipv6Addr::from(ip).into() } else { Ipv4Addr::from(ip as u32).into() };
            let id = OffsetMessageId { store_host: SocketAddr::new(ip, port), physical_offset };
            prop_assert_eq!(OffsetMessageId::parse(&id.to_string()), Some(id));
        }

        #[test]
        fn junk_never_panics(text in any::<String>(), sized in "[0-9A-Fa-fé]{28,56}") {
            let _either = (OffsetMessageId::parse(&text), OffsetMessageId::parse(&sized));
        }
    }
}
