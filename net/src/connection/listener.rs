//! Listening sockets: bound once, without SO_REUSEPORT, so that a port in use is an error that names it.

use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::time::{Duration, Instant};

use rmq_turn::{Completion, Ring, Token, opcode, types};
use socket2::{Domain, Protocol, SockAddr, Socket, Type};

/// Which service a connection came for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ListenerRole {
    NameServer,
    Broker,
    /// The broker's second port (main port - 2), which serves no pulls.
    BrokerFast,
}

#[derive(Debug, thiserror::Error)]
pub enum BindError {
    #[error(
        "port {port} is already in use (listening on {address}): another server runs there; stop it or choose another port"
    )]
    InUse { port: u16, address: SocketAddr },
    #[error("cannot listen on {address}: {source}")]
    Other { address: SocketAddr, source: io::Error },
}

/// How long a port may stay in use after the process that had it was killed: the kernel lets go of a ring's listening
/// sockets a little later than of the process.
const PREDECESSOR_WAIT: Duration = Duration::from_secs(2);

/// Binds and listens; waits for the sockets of a predecessor that was killed just before. Blocking, for the start.
/// `backlog` is how many connections the kernel may hold until they are accepted; it cuts it to its own limit.
pub fn bind(address: SocketAddr, backlog: i32) -> Result<Socket, BindError> {
    let started = Instant::now();
    loop {
        match bind_once(address, backlog) {
            Err(BindError::InUse { .. }) if started.elapsed() < PREDECESSOR_WAIT => {
                std::thread::sleep(Duration::from_millis(20));
            }
            outcome => return outcome,
        }
    }
}

fn bind_once(address: SocketAddr, backlog: i32) -> Result<Socket, BindError> {
    let attempt = || {
        let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
        socket.set_reuse_address(true)?; // rebinding while old connections linger in TIME_WAIT is fine
        if address.is_ipv6() {
            // One listener on :: serves both families, as the JVM's does.
            socket.set_only_v6(false)?;
        }
        socket.bind(&SockAddr::from(address))?;
        socket.listen(backlog)?;
        Ok(socket)
    };
    attempt().map_err(|source: io::Error| match source.kind() {
        io::ErrorKind::AddrInUse => BindError::InUse { port: address.port(), address },
        _ => BindError::Other { address, source },
    })
}

/// A connection just accepted, on its way to the core that will own it.
#[derive(Debug)]
pub struct Accepted {
    pub socket: OwnedFd,
    pub peer: SocketAddr,
    pub role: ListenerRole,
}

/// Accepts on the ring, one at a time: a connection storm is bounded by what a turn can take.
pub struct Listener {
    socket: Socket,
    role: ListenerRole,
    slot: u32,
    is_armed: bool,
}

impl Listener {
    pub const KIND: u8 = 16;

    pub fn new(socket: Socket, role: ListenerRole, slot: u32) -> Self {
        Self { socket, role, slot, is_armed: false }
    }

    pub fn arm(&mut self, ring: &mut Ring) {
        if self.is_armed {
            return;
        }
        self.is_armed = true;
        let entry = opcode::Accept::new(types::Fd(self.descriptor()), std::ptr::null_mut(), std::ptr::null_mut())
            .flags(libc::SOCK_CLOEXEC)
            .build()
            .user_data(Token::new(Self::KIND, 0, self.slot).to_user_data());
        // SAFETY: the entry points to no memory; the socket lives as long as the listener, which the node
        // drops only after the ring.
        unsafe { ring.push(&entry) };
    }

    /// Takes an accept's completion. `None` when the client was gone already or descriptors ran out.
    pub fn on_completion(&mut self, completion: &Completion) -> Option<Accepted> {
        self.is_armed = false;
        let descriptor = match completion.outcome() {
            Ok(descriptor) => descriptor as RawFd,
            Err(error) => {
                tracing::warn!(%error, "a connection could not be accepted; if this repeats, raise the limit of open files");
                return None;
            }
        };
        // SAFETY: the kernel just made this descriptor for us and nobody else knows it.
        let socket = Socket::from(unsafe { OwnedFd::from_raw_fd(descriptor) });
        let peer = socket.peer_addr().ok().and_then(|address| address.as_socket())?;
        // Without it small replies wait for the client's delayed acknowledgement. It can only fail on a
        // connection that is already broken, which the first receive will report.
        let _ = socket.set_tcp_nodelay(true);
        Some(Accepted { socket: socket.into(), peer: unmapped(peer), role: self.role })
    }

    fn descriptor(&self) -> RawFd {
        self.socket.as_raw_fd()
    }
}

/// An IPv4 client on a dual-stack listener is an IPv4 client: its host is stored in 4 bytes.
fn unmapped(address: SocketAddr) -> SocketAddr {
    match address {
        SocketAddr::V6(v6) => match v6.ip().to_ipv4_mapped() {
            Some(v4) => SocketAddr::from((v4, v6.port())),
            None => address,
        },
        SocketAddr::V4(_) => address,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_in_use_is_an_error_that_names_it() {
        let first = bind("127.0.0.1:0".parse().unwrap(), 1024).unwrap();
        let taken = first.local_addr().unwrap().as_socket().unwrap();
        let error = bind(taken, 1024).unwrap_err();
        assert!(error.to_string().contains(&taken.port().to_string()), "{error}");
        assert!(matches!(error, BindError::InUse { .. }));
    }
}
