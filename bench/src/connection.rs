//! Non-blocking connections and the epoll set that watches them. One thread owns both.
//!
//! A wake-up reads once, hands out every whole frame where it lies, and writes everything that was
//! queued meanwhile with one call.

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::fd::OwnedFd;
use std::time::Duration;

use rustix::buffer::spare_capacity;
use rustix::event::epoll;
use rustix::event::epoll::{EventData, EventFlags};
use rustix::time::Timespec;

use crate::error::BenchError;
use crate::frame;

const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);
/// Room for one reply of a pull and the start of the next; grows when a frame is larger.
const INPUT_BYTES: usize = 512 * 1024;

pub struct Connection {
    socket: TcpStream,
    input: Vec<u8>,
    filled: usize,
    /// Frames not yet written; filled by the owner, emptied by [`Connection::flush`].
    pub output: Vec<u8>,
    written: usize,
    is_write_watched: bool,
}

impl Connection {
    pub fn open(address: SocketAddr) -> Result<Self, BenchError> {
        let open = || {
            let socket = TcpStream::connect_timeout(&address, CONNECT_TIMEOUT)?;
            socket.set_nodelay(true)?;
            socket.set_nonblocking(true)?;
            Ok(socket)
        };
        let socket = open().map_err(|source| BenchError::Connect { address, source })?;
        Ok(Self {
            socket,
            input: vec![0; INPUT_BYTES],
            filled: 0,
            output: Vec::new(),
            written: 0,
            is_write_watched: false,
        })
    }

    /// Reads what has arrived and calls `on_frame` for every whole frame of it.
    pub fn receive(&mut self, mut on_frame: impl FnMut(&[u8]) -> Result<(), BenchError>) -> Result<(), BenchError> {
        match self.socket.read(&mut self.input[self.filled..]) {
            Ok(0) => return Err(BenchError::Closed),
            Ok(count) => self.filled += count,
            Err(error) if is_transient(&error) => return Ok(()),
            Err(error) => return Err(BenchError::Io(error)),
        }
        let mut start = 0;
        while let Some(size) = frame::frame_size(&self.input[start..self.filled])? {
            if self.filled - start < size {
                if self.input.len() < size {
                    self.input.resize(size, 0);
                }
                break;
            }
            on_frame(&self.input[start..start + size])?;
            start += size;
        }
        self.input.copy_within(start..self.filled, 0);
        self.filled -= start;
        Ok(())
    }

    pub fn has_output(&self) -> bool {
        !self.output.is_empty()
    }

    /// Writes as much of the output as the socket takes.
    fn write(&mut self) -> Result<bool, BenchError> {
        while self.written < self.output.len() {
            match self.socket.write(&self.output[self.written..]) {
                Ok(count) => self.written += count,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(false),
                Err(error) => return Err(BenchError::Io(error)),
            }
        }
        self.output.clear();
        self.written = 0;
        Ok(true)
    }

    /// Writes the output; what the socket does not take now leaves when `poller` reports room.
    pub fn flush(&mut self, poller: &Poller, token: u64) -> Result<(), BenchError> {
        let is_blocked = !self.write()?;
        if is_blocked != self.is_write_watched {
            let mut flags = EventFlags::IN;
            flags.set(EventFlags::OUT, is_blocked);
            epoll::modify(&poller.set, &self.socket, EventData::new_u64(token), flags)
                .map_err(|error| BenchError::Io(error.into()))?;
            self.is_write_watched = is_blocked;
        }
        Ok(())
    }
}

fn is_transient(error: &std::io::Error) -> bool {
    matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted)
}

/// The connections of one thread, by token.
pub struct Poller {
    set: OwnedFd,
    events: Vec<epoll::Event>,
}

impl Poller {
    pub fn new() -> Result<Self, BenchError> {
        let set = epoll::create(epoll::CreateFlags::CLOEXEC).map_err(|error| BenchError::Io(error.into()))?;
        Ok(Self { set, events: Vec::with_capacity(256) })
    }

    pub fn watch(&self, connection: &Connection, token: u64) -> Result<(), BenchError> {
        epoll::add(&self.set, &connection.socket, EventData::new_u64(token), EventFlags::IN)
            .map_err(|error| BenchError::Io(error.into()))
    }

    pub fn forget(&self, connection: &Connection) {
        // The socket is closed right after; a refusal here changes nothing.
        let _ = epoll::delete(&self.set, &connection.socket);
    }

    /// Waits for at most `timeout` and returns the tokens of the connections with something to do.
    pub fn wait(&mut self, timeout: Duration) -> Result<impl Iterator<Item = u64>, BenchError> {
        self.events.clear();
        let timeout = Timespec { tv_sec: timeout.as_secs() as i64, tv_nsec: i64::from(timeout.subsec_nanos()) };
        match epoll::wait(&self.set, spare_capacity(&mut self.events), Some(&timeout)) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(BenchError::Io(error.into())),
        }
        Ok(self.events.iter().map(|event| event.data.u64()))
    }
}
