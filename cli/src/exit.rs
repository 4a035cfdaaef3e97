//! Why the process ended, as its exit code tells it to scripts and service managers.

use std::process::ExitCode;

/// Exit codes; the same table stands in `rmq --help`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exit {
    /// All went well; a server stopped because it was asked to.
    Success = 0,
    /// Something failed while running.
    Runtime = 1,
    /// The command line or a setting is wrong.
    Usage = 2,
    /// The store cannot be used: locked by another process, damaged, of an unknown format, or not RingMQ's. Or the name
    /// server's file, kvConfigPath: unreadable or damaged.
    Store = 3,
    /// This host lacks what RingMQ needs: io_uring, locked memory, a usable disk.
    Host = 4,
    /// `rmq store check` found damage, or `rmq store repair` something to do.
    Damaged = 5,
}

/// A second SIGINT or SIGTERM ends the process at once with 128 plus the signal: 130 or 143.
pub const SIGNAL_BASE: i32 = 128;

/// Shown at the end of the help text.
pub const TABLE: &str = "\
Exit codes:
  0    success; a server was asked to stop and did
  1    a failure while running
  2    a wrong command line or setting
  3    the store was refused: in use by another process, damaged, of an unknown format, or of an Apache RocketMQ;
       or the name server's file (kvConfigPath) is unreadable or damaged
  4    this host lacks something (`rmq check` says what)
  5    `rmq store check` found damage in the store, `rmq store repair` something to cut off
  130  a second SIGINT while stopping      143  a second SIGTERM while stopping";

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        ExitCode::from(exit as u8)
    }
}
