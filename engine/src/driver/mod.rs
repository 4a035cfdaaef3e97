//! What carries out a shard's storage commands in production: the core's ring.

#![allow(unsafe_code)] // Operations on the ring point to buffers; see `ring`.

mod ring;
mod segments;

pub use ring::{DriverOptions, RingDriver};
