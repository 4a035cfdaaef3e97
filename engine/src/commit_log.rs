//! The one append-only log of a shard: what its bytes mean, and how they are put there.

pub mod batch;
pub mod internal;
pub(crate) mod reader;
pub mod record;
pub(crate) mod writer;
