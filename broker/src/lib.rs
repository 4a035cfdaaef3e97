//! Request code to shard call to answer.

#![forbid(unsafe_code)]

pub mod config;
