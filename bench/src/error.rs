//! What can end a run or a connection.

use std::net::SocketAddr;

use thiserror::Error;

use crate::frame::FrameError;

#[derive(Debug, Error)]
pub enum BenchError {
    #[error("cannot connect to {address}: {source}")]
    Connect { address: SocketAddr, source: std::io::Error },
    #[error("the server closed the connection")]
    Closed,
    #[error("{0}")]
    Io(#[from] std::io::Error),
    #[error("{0}")]
    Frame(#[from] FrameError),
    #[error("{what} was refused with code {code}: {remark}")]
    Refused { what: &'static str, code: i32, remark: String },
    #[error("the answer to {what} is unreadable: {reason}")]
    Answer { what: &'static str, reason: String },
    #[error("cannot resolve address {0:?}: expected host:port")]
    Address(String),
    #[error("topic {0:?} is unknown and cannot be created automatically; use --create-topic")]
    NoRoute(String),
    #[error("{0}")]
    Usage(String),
}
