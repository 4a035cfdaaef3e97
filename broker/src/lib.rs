#![forbid(unsafe_code)]
//! Turns requests into engine calls.

pub mod config;
pub mod state;
