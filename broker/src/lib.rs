#![forbid(unsafe_code)]
//! Turns requests into engine calls.

pub mod state;
