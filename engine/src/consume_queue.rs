//! The per-queue index: which record is the n-th message of a queue. Derived from the log, never its own truth.

pub(crate) mod pages;
pub(crate) mod row;
pub(crate) mod table;
